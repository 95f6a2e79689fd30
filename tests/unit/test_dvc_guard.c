/*
 * The guard against honest clients, against each kind of lie, and against every truncation and bit
 * flip of a conversation. What it lets through never exceeds a channel's maximum.
 */
#include "dvc_guard.h"

#include <glib.h>
#include <string.h>

#include "mutate.h"

#define WHOLE (DVC_CHUNK_FIRST | DVC_CHUNK_LAST)

typedef struct Rig {
    DvcGuard guard;
    DvcAssembly channel; /* id 3, 1000 bytes */
} Rig;

static DvcAssembly *find(void *user, uint32_t id)
{
    return id == 3 ? &((Rig *)user)->channel : NULL;
}

static void rig_init(Rig *rig)
{
    memset(rig, 0, sizeof(*rig));
    rig->channel.max = 1000;
    dvc_guard_init(&rig->guard, find, rig);
}

static void rig_clear(Rig *rig)
{
    dvc_guard_forget(&rig->guard, &rig->channel);
    g_assert_cmpuint(rig->guard.partial, ==, 0);
    dvc_guard_clear(&rig->guard);
}

static DvcGuardEvent give(Rig *rig, const void *pdu, size_t len)
{
    return dvc_guard_chunk(&rig->guard, pdu, len, WHOLE, len);
}

static void assert_message(const DvcGuardEvent *event, const void *want, size_t len)
{
    g_assert_cmpint(event->verdict, ==, DVC_GUARD_MESSAGE);
    g_assert_cmpuint(event->id, ==, 3);
    g_assert_cmpmem(event->data, event->len, want, len);
}

static void test_control(void)
{
    Rig rig;
    DvcGuardEvent e;

    rig_init(&rig);
    e = give(&rig, "\x50\x00\x03\x00", 4);
    g_assert_cmpint(e.verdict, ==, DVC_GUARD_CAPS);
    g_assert_cmpuint(e.len, ==, 4);
    e = give(&rig, "\x10\x07\x00\x00\x00\x00", 6);
    g_assert_cmpint(e.verdict, ==, DVC_GUARD_CREATED);
    g_assert_cmpuint(e.id, ==, 7);
    g_assert_cmpint(e.status, ==, 0);
    e = give(&rig, "\x11\x07\x01\x01\x00\x00\x80", 7);
    g_assert_cmpint(e.verdict, ==, DVC_GUARD_CREATED);
    g_assert_cmpuint(e.id, ==, 0x107);
    g_assert_cmpint(e.status, <, 0);
    e = give(&rig, "\x42\x04\x03\x02\x01", 5);
    g_assert_cmpint(e.verdict, ==, DVC_GUARD_CLOSED);
    g_assert_cmphex(e.id, ==, 0x01020304);
    e = give(&rig, "\x90", 1); /* soft sync */
    g_assert_cmpint(e.verdict, ==, DVC_GUARD_NOTHING);
    rig_clear(&rig);
}

static void test_data(void)
{
    Rig rig;
    DvcGuardEvent e;

    rig_init(&rig);
    e = give(&rig, "\x30\x03hello", 7);
    assert_message(&e, "hello", 5);
    e = give(&rig, "\x30\x03", 2); /* empty: not delivered, and nothing gets stuck */
    g_assert_cmpint(e.verdict, ==, DVC_GUARD_NOTHING);
    e = give(&rig,
             "\x20\x03\x06"
             "abc",
             6);
    g_assert_cmpint(e.verdict, ==, DVC_GUARD_NOTHING);
    g_assert_cmpuint(rig.guard.partial, ==, 3);
    e = give(&rig,
             "\x30\x03"
             "d",
             3);
    g_assert_cmpint(e.verdict, ==, DVC_GUARD_NOTHING);
    e = give(&rig,
             "\x30\x03"
             "ef",
             4);
    assert_message(&e, "abcdef", 6);
    g_assert_cmpuint(rig.guard.partial, ==, 0);
    dvc_guard_message_done(&rig.channel);

    /* DATA_FIRST that holds everything; lengths of two and four bytes */
    e = give(&rig, "\x24\x03\x03\x00xyz", 7);
    assert_message(&e, "xyz", 3);
    e = give(&rig, "\x28\x03\x03\x00\x00\x00xyz", 9);
    assert_message(&e, "xyz", 3);
    e = give(&rig, "\x20\x03\x00", 3);
    g_assert_cmpint(e.verdict, ==, DVC_GUARD_NOTHING);

    /* a channel that is not open */
    e = give(&rig, "\x30\x04hello", 7);
    g_assert_cmpint(e.verdict, ==, DVC_GUARD_NOTHING);
    e = give(&rig, "\x28\x04\xff\xff\xff\xffhello", 11);
    g_assert_cmpint(e.verdict, ==, DVC_GUARD_NOTHING);
    g_assert_cmpuint(rig.guard.data_unknown, ==, 2);
    rig_clear(&rig);
}

static void test_oversize(void)
{
    Rig rig;
    uint8_t big[1100] = {0x30, 0x03};

    rig_init(&rig);
    g_assert_cmpint(give(&rig, big, 1002).verdict, ==, DVC_GUARD_MESSAGE);
    g_assert_cmpint(give(&rig, big, 1003).verdict, ==, DVC_GUARD_OVERSIZE);
    DvcGuardEvent e = give(&rig, "\x28\x03\xff\xff\xff\xffhello", 11);
    g_assert_cmpint(e.verdict, ==, DVC_GUARD_OVERSIZE);
    g_assert_cmpuint(e.id, ==, 3);
    g_assert_cmpuint(rig.channel.bytes.cap, ==, 0); /* nothing was spent */
    g_assert_cmpint(give(&rig, "\x24\x03\xe9\x03", 4).verdict, ==, DVC_GUARD_OVERSIZE);
    g_assert_cmpint(give(&rig, "\x24\x03\xe8\x03", 4).verdict, ==, DVC_GUARD_NOTHING);
    rig_clear(&rig);
}

typedef struct Lie {
    const char *what;
    const char *pdu;
    size_t len;
} Lie;

static void test_violations(void)
{
    static const Lie lies[] = {
        {"no bytes", "", 0},
        {"capabilities cut", "\x50\x00\x01", 3},
        {"version 0", "\x50\x00\x00\x00", 4},
        {"no channel id", "\x30", 1},
        {"two-byte id cut", "\x31\x03", 2},
        {"id length 3", "\x33\x03\x03\x03\x03\x03\x03\x03\x03", 9},
        {"status cut", "\x10\x03\x00\x00\x00", 5},
        {"no total", "\x20\x03", 2},
        {"total cut", "\x28\x03\x01\x00\x00", 5},
        {"total length 3", "\x2c\x03\x01\x00\x00\x00\x00\x00\x00", 9},
        {"more than the total",
         "\x20\x03\x02"
         "abc",
         6},
        {"compressed",
         "\x70\x03"
         "abc",
         5},
        {"unknown command",
         "\xf0\x03"
         "abc",
         5},
    };

    for (unsigned i = 0; i < G_N_ELEMENTS(lies); i++) {
        Rig rig;
        rig_init(&rig);
        DvcGuardEvent e = give(&rig, lies[i].pdu, lies[i].len);
        g_test_message("%s", lies[i].what);
        g_assert_cmpint(e.verdict, ==, DVC_GUARD_VIOLATION);
        g_assert_nonnull(e.why);
        rig_clear(&rig);
    }

    Rig rig;
    rig_init(&rig);
    give(&rig,
         "\x20\x03\x06"
         "abc",
         6);
    g_assert_cmpint(give(&rig,
                         "\x30\x03"
                         "defg",
                         6)
                        .verdict,
                    ==, DVC_GUARD_VIOLATION);
    rig_clear(&rig);
    rig_init(&rig);
    give(&rig,
         "\x20\x03\x06"
         "abc",
         6);
    g_assert_cmpint(give(&rig,
                         "\x20\x03\x06"
                         "abc",
                         6)
                        .verdict,
                    ==, DVC_GUARD_VIOLATION);
    rig_clear(&rig);
}

static void test_chunks(void)
{
    Rig rig;
    DvcGuardEvent e;

    rig_init(&rig);
    e = dvc_guard_chunk(&rig.guard, (const uint8_t *)"\x30", 1, DVC_CHUNK_FIRST, 7);
    g_assert_cmpint(e.verdict, ==, DVC_GUARD_NOTHING);
    e = dvc_guard_chunk(&rig.guard, (const uint8_t *)"\x03he", 3, 0, 7);
    g_assert_cmpint(e.verdict, ==, DVC_GUARD_NOTHING);
    e = dvc_guard_chunk(&rig.guard, (const uint8_t *)"llo", 3, DVC_CHUNK_LAST, 7);
    assert_message(&e, "hello", 5);
    rig_clear(&rig);
}

static void test_static(void)
{
    static const struct {
        size_t size, total;
        uint32_t flags;
        bool ok;
    } steps[][3] = {
        {{5, 5, WHOLE, true}, {5, 5, WHOLE, true}},
        {{5, 9, DVC_CHUNK_FIRST, true}, {4, 9, DVC_CHUNK_LAST, true}, {1, 1, WHOLE, true}},
        {{5, 9, DVC_CHUNK_FIRST, true}, {5, 9, DVC_CHUNK_LAST, false}},
        {{5, 9, DVC_CHUNK_FIRST, true}, {3, 9, DVC_CHUNK_LAST, false}},
        {{5, 9, DVC_CHUNK_FIRST, true}, {4, 9, DVC_CHUNK_FIRST, false}},
        {{5, 5, DVC_CHUNK_LAST, false}},
        {{5, 5, 0, false}},
        {{6, 5, WHOLE, false}},
        {{5, 101, DVC_CHUNK_FIRST, false}},
        {{5, 5, WHOLE | DVC_CHUNK_COMPRESSED, false}},
    };

    for (unsigned i = 0; i < G_N_ELEMENTS(steps); i++) {
        DvcGuardStatic message = {0};
        for (unsigned k = 0; k < 3 && steps[i][k].total; k++) {
            const char *why = NULL;
            g_assert_true(dvc_guard_static(&message, steps[i][k].size, steps[i][k].flags,
                                           steps[i][k].total, 100, &why) == steps[i][k].ok);
            g_assert_true((why == NULL) == steps[i][k].ok);
        }
    }
}

/* Unfinished messages of many channels are bounded together. */
static DvcAssembly many[80];

static DvcAssembly *find_many(void *user, uint32_t id)
{
    return id < G_N_ELEMENTS(many) ? &many[id] : NULL;
}

static void test_partial_total(void)
{
    static uint8_t pdu[60000];
    DvcGuard guard;
    unsigned refused = 0;

    dvc_guard_init(&guard, find_many, NULL);
    for (uint32_t id = 0; id < G_N_ELEMENTS(many) && refused == 0; id++) {
        many[id].max = 2 << 20;
        memcpy(pdu, "\x28\x00\x00\x00\x20\x00", 6); /* 2 MiB announced */
        pdu[1] = (uint8_t)id;
        dvc_guard_chunk(&guard, pdu, sizeof(pdu), WHOLE, sizeof(pdu));
        memcpy(pdu, "\x30\x00", 2);
        pdu[1] = (uint8_t)id;
        for (unsigned i = 0; i < 33 && refused == 0; i++) {
            if (dvc_guard_chunk(&guard, pdu, sizeof(pdu), WHOLE, sizeof(pdu)).verdict ==
                DVC_GUARD_VIOLATION)
                refused++;
        }
        g_assert_cmpuint(guard.partial, <=, DVC_GUARD_MAX_PARTIAL);
    }
    g_assert_cmpuint(refused, ==, 1);
    for (uint32_t id = 0; id < G_N_ELEMENTS(many); id++)
        dvc_guard_forget(&guard, &many[id]);
    g_assert_cmpuint(guard.partial, ==, 0);
    dvc_guard_clear(&guard);
}

static void mutated(uint8_t *data, size_t len, void *user)
{
    Rig rig;

    (void)user;
    rig_init(&rig);
    for (size_t at = 0; at < len;) { /* length byte, PDU, length byte, ... */
        size_t n = MIN(data[at], len - at - 1);
        DvcGuardEvent e = give(&rig, data + at + 1, n);
        if (e.verdict == DVC_GUARD_MESSAGE) {
            g_assert_cmpuint(e.len, <=, 1000);
            g_assert_cmpuint(e.len, >, 0);
            dvc_guard_message_done(&rig.channel);
        }
        if (e.verdict == DVC_GUARD_VIOLATION)
            break;
        at += n + 1;
    }
    rig_clear(&rig);
}

static void test_mutations(void)
{
    static const uint8_t conversation[] = "\x04\x50\x00\x01\x00"
                                          "\x06\x10\x03\x00\x00\x00\x00"
                                          "\x06\x20\x03\x06"
                                          "abc"
                                          "\x05\x30\x03"
                                          "def"
                                          "\x07\x24\x03\x03\x00xyz"
                                          "\x07\x30\x03hello"
                                          "\x02\x40\x03";
    size_t len = sizeof(conversation) - 1;

    mutate_none(conversation, len, mutated, NULL);
    mutate_truncations(conversation, len, mutated, NULL);
    mutate_bit_flips(conversation, len, mutated, NULL);
    mutate_random(conversation, len, 1, 20000, mutated, NULL);
}

/* The examples of MS-RDPEDYC 4.3 are of this form: header, channel, length. */
static void test_data_header(void)
{
    static const struct {
        uint32_t id, total;
        const char *bytes;
        size_t len;
    } cases[] = {
        {3, 0, "\x30\x03", 2},
        {0xff, 0, "\x30\xff", 2},
        {0x100, 0, "\x31\x00\x01", 3},
        {0x10000, 0, "\x32\x00\x00\x01\x00", 5},
        {3, 0xff, "\x20\x03\xff", 3},
        {3, 0xc7b, "\x24\x03\x7b\x0c", 4},
        {0x1234, 0x12345678, "\x29\x34\x12\x78\x56\x34\x12", 7},
        {0x12345678, 0x12345678, "\x2a\x78\x56\x34\x12\x78\x56\x34\x12", 9},
    };

    for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
        Writer w;

        writer_init(&w, 16);
        dvc_guard_write_data_header(&w, cases[i].id, cases[i].total);
        g_assert_cmpmem(w.data, w.len, cases[i].bytes, cases[i].len);
        writer_clear(&w);
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/dvc-guard/control", test_control);
    g_test_add_func("/dvc-guard/data", test_data);
    g_test_add_func("/dvc-guard/oversize", test_oversize);
    g_test_add_func("/dvc-guard/violations", test_violations);
    g_test_add_func("/dvc-guard/chunks", test_chunks);
    g_test_add_func("/dvc-guard/static", test_static);
    g_test_add_func("/dvc-guard/partial-total", test_partial_total);
    g_test_add_func("/dvc-guard/mutations", test_mutations);
    g_test_add_func("/dvc-guard/data-header", test_data_header);
    return g_test_run();
}
