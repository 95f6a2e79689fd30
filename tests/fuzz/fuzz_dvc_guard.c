/*
 * The guard with a client that sends anything. Input: records of a flags byte (bits 0, 1: FIRST,
 * LAST; the rest scales the claimed total), a length byte, bytes.
 */
#include "dvc_guard.h"

#include <assert.h>
#include <string.h>

#define CHANNELS 4
#define MAX_MESSAGE 500

static DvcAssembly channels[CHANNELS];

static DvcAssembly *find(void *user, uint32_t id)
{
    (void)user;
    return id < CHANNELS ? &channels[id] : NULL;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    DvcGuard guard;
    Reader r;

    memset(channels, 0, sizeof(channels));
    for (unsigned i = 0; i < CHANNELS; i++)
        channels[i].max = MAX_MESSAGE;
    dvc_guard_init(&guard, find, NULL);
    reader_init(&r, data, size);
    while (reader_left(&r) >= 2) {
        uint8_t flags = reader_u8(&r);
        size_t len = reader_u8(&r);
        if (len > reader_left(&r))
            len = reader_left(&r);
        size_t total = flags >> 2 ? (size_t)(flags >> 2) * len : len;
        DvcGuardEvent e = dvc_guard_chunk(&guard, reader_bytes(&r, len), len, flags & 3, total);
        if (e.verdict == DVC_GUARD_VIOLATION) {
            assert(e.why);
            break;
        }
        if (e.verdict == DVC_GUARD_MESSAGE) {
            volatile uint8_t sum = 0;
            assert(e.id < CHANNELS && e.len > 0 && e.len <= MAX_MESSAGE);
            for (size_t i = 0; i < e.len; i++)
                sum = (uint8_t)(sum + e.data[i]);
            dvc_guard_message_done(&channels[e.id]);
        }
        size_t partial = 0;
        for (unsigned i = 0; i < CHANNELS; i++)
            partial += channels[i].total ? channels[i].bytes.len : 0;
        assert(partial == guard.partial && partial <= CHANNELS * MAX_MESSAGE);
    }
    for (unsigned i = 0; i < CHANNELS; i++)
        dvc_guard_forget(&guard, &channels[i]);
    assert(guard.partial == 0);
    dvc_guard_clear(&guard);
    return 0;
}
