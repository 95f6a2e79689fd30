/* Packets on their way back: a queue of what each call of out() brought. */
#include "echo.h"
#include <stdlib.h>
#include <string.h>

#define MAX_WAITING (4u << 20)

struct Chunk {
    STAILQ_ENTRY(Chunk) link;
    size_t len, at;
    uint8_t bytes[];
};

void echo_init(Echo *e)
{
    STAILQ_INIT(&e->chunks);
    e->waiting = 0;
}

void echo_drop(Echo *e)
{
    struct Chunk *c;

    while ((c = STAILQ_FIRST(&e->chunks))) {
        STAILQ_REMOVE_HEAD(&e->chunks, link);
        free(c);
    }
    e->waiting = 0;
}

ssize_t echo_out(Echo *e, uint16_t mps, const uint8_t *data, size_t len)
{
    struct Chunk *c;

    if (e->waiting >= MAX_WAITING)
        return IO_NAK;
    if (len > MAX_WAITING - e->waiting) { /* whole packets, and the rest when there is room */
        size_t room = (MAX_WAITING - e->waiting + mps - 1) / mps * mps;

        len = room < len ? room : len;
    }
    c = malloc(sizeof(*c) + len);
    if (!c)
        abort();
    c->len = len;
    c->at = 0;
    if (len)
        memcpy(c->bytes, data, len);
    STAILQ_INSERT_TAIL(&e->chunks, c, link);
    e->waiting += len;
    return (ssize_t)len;
}

ssize_t echo_avail(const Echo *e)
{
    const struct Chunk *c = STAILQ_FIRST(&e->chunks);

    return c ? (ssize_t)(c->len - c->at) : IO_NAK;
}

void echo_take(Echo *e, uint8_t *buf, size_t n)
{
    struct Chunk *c = STAILQ_FIRST(&e->chunks);

    memcpy(buf, c->bytes + c->at, n);
    c->at += n;
    e->waiting -= n;
    if (c->at == c->len) {
        STAILQ_REMOVE_HEAD(&e->chunks, link);
        free(c);
    }
}

static Echo *pipe_of(Device *d, const Endpoint *ep)
{
    Echoes *e = d->state;

    return &e->pipes[(ep->address & 15) - 1];
}

void echoes_init(Echoes *e)
{
    for (unsigned i = 0; i < ECHO_PIPES; i++)
        echo_init(&e->pipes[i]);
}

void echoes_reset(Device *d)
{
    Echoes *e = d->state;

    for (unsigned i = 0; i < ECHO_PIPES; i++)
        echo_drop(&e->pipes[i]);
}

void echoes_destroy(Device *d)
{
    echoes_reset(d);
    free(d->state);
}

ssize_t echoes_out(Device *d, Endpoint *ep, const uint8_t *data, size_t len)
{
    return echo_out(pipe_of(d, ep), ep->desc->mps, data, len);
}

ssize_t echoes_in_avail(Device *d, Endpoint *ep)
{
    return echo_avail(pipe_of(d, ep));
}

void echoes_in_take(Device *d, Endpoint *ep, uint8_t *buf, size_t n)
{
    echo_take(pipe_of(d, ep), buf, n);
}
