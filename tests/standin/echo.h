/*
 * An OUT endpoint whose packets come back on an IN endpoint, with their boundaries.
 *
 * Owner: the device; echo_drop() before it is freed. Thread: any, under the bus lock.
 */
#ifndef QRDP_TESTS_STANDIN_ECHO_H
#define QRDP_TESTS_STANDIN_ECHO_H

#include "bus.h"

typedef struct Echo {
    STAILQ_HEAD(, Chunk) chunks;
    size_t waiting; /* bytes */
} Echo;

void echo_init(Echo *e);
void echo_drop(Echo *e);
/** As DeviceOps.out, .in_avail and .in_take; NAKs while a mebibyte waits. */
ssize_t echo_out(Echo *e, uint16_t mps, const uint8_t *data, size_t len);
ssize_t echo_avail(const Echo *e);
void echo_take(Echo *e, uint8_t *buf, size_t n);

/*
 * What a device whose state begins with these does with its pipes: endpoint N comes back on 80 + N.
 */
#define ECHO_PIPES 4

typedef struct Echoes {
    Echo pipes[ECHO_PIPES];
} Echoes;

void echoes_init(Echoes *e);
/** As DeviceOps.reset, .destroy (which frees the state), .out, .in_avail and .in_take. */
void echoes_reset(Device *d);
void echoes_destroy(Device *d);
ssize_t echoes_out(Device *d, Endpoint *ep, const uint8_t *data, size_t len);
ssize_t echoes_in_avail(Device *d, Endpoint *ep);
void echoes_in_take(Device *d, Endpoint *ep, uint8_t *buf, size_t n);

#endif
