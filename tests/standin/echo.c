/* Packets on their way back: a queue of what each call of out() brought. */
#include "echo.h"
#include <stdlib.h>
#include <string.h>

#define MAX_WAITING (1u << 20)

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
