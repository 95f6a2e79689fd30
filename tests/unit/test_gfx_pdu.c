/*
 * RDPGFX on the wire: golden bytes laid out from MS-RDPEGFX 2.2, and every truncation and bit flip
 * of what a client sends.
 */
#include "gfx_pdu.h"

#include <glib.h>
#include <string.h>

#include "mutate.h"

static uint8_t *unhex(const char *hex, size_t *len)
{
    uint8_t *out = g_malloc(strlen(hex) / 2 + 1);
    *len = 0;
    for (const char *p = hex; *p;) {
        if (*p == ' ') {
            p++;
            continue;
        }
        out[(*len)++] = (uint8_t)(g_ascii_xdigit_value(p[0]) << 4 | g_ascii_xdigit_value(p[1]));
        p += 2;
    }
    return out;
}

static void expect(Writer *w, const char *hex)
{
    size_t len;
    uint8_t *want = unhex(hex, &len);

    g_assert_true(writer_ok(w));
    g_assert_cmpmem(w->data, w->len, want, len);
    g_assert_cmpuint(gfx_pdu_length(w->data, w->len), ==, len);
    g_assert_cmpuint(gfx_pdu_length(w->data, w->len - 1), ==, 0);
    w->len = 0;
    g_free(want);
}

static void test_server(void)
{
    GfxCapset caps = {GFX_VERSION_104, 0x22}, caps101 = {GFX_VERSION_101, 0};
    GfxRect rects[] = {{1, 2, 3, 4}, {0, 0, 0x500, 0x320}};
    GfxPoint points[] = {{5, 6}, {7, 8}};
    Writer w;

    writer_init(&w, 100000);
    gfx_write_caps_confirm(&w, &caps);
    expect(&w, "1300 0000 14000000 00040a00 04000000 22000000");
    gfx_write_caps_confirm(&w, &caps101);
    expect(&w, "1300 0000 20000000 00010a00 10000000 00000000 00000000 00000000 00000000");
    gfx_write_create_surface(&w, 1, 0x400, 0x300, GFX_PIXEL_XRGB);
    expect(&w, "0900 0000 0f000000 0100 0004 0003 20");
    gfx_write_delete_surface(&w, 2);
    expect(&w, "0a00 0000 0a000000 0200");
    gfx_write_map_surface_to_output(&w, 1, 16, 32);
    expect(&w, "0f00 0000 14000000 0100 0000 10000000 20000000");
    gfx_write_start_frame(&w, 0x01020304, 9);
    expect(&w, "0b00 0000 10000000 04030201 09000000");
    gfx_write_end_frame(&w, 9);
    expect(&w, "0c00 0000 0c000000 09000000");
    gfx_write_wire_to_surface_1(&w, 1, GFX_CODEC_PLANAR, GFX_PIXEL_XRGB, &rects[0],
                                (const uint8_t *)"\xaa\xbb\xcc", 3);
    expect(&w, "0100 0000 1c000000 0100 0a00 20 0100 0200 0300 0400 03000000 aabbcc");
    gfx_write_solid_fill(&w, 1, (const uint8_t *)"\x10\x20\x30\xff", rects, 2);
    expect(&w, "0400 0000 20000000 0100 102030ff 0200 0100020003000400 0000000000052003");
    gfx_write_surface_to_surface(&w, 1, 2, &rects[0], points, 2);
    expect(&w, "0500 0000 1e000000 0100 0200 0100020003000400 0200 05000600 07000800");
    gfx_write_surface_to_cache(&w, 1, 0x1122334455667788, 5, &rects[0]);
    expect(&w, "0600 0000 1c000000 0100 8877665544332211 0500 0100020003000400");
    gfx_write_cache_to_surface(&w, 5, 1, points, 1);
    expect(&w, "0700 0000 12000000 0500 0100 0100 05000600");
    gfx_write_evict_cache_entry(&w, 5);
    expect(&w, "0800 0000 0a000000 0500");
    gfx_write_delete_encoding_context(&w, 1, 2);
    expect(&w, "0300 0000 0e000000 0100 02000000");
    gfx_write_cache_import_reply_empty(&w);
    expect(&w, "1100 0000 0a000000 0000");
    writer_clear(&w);
}

static void test_reset_graphics(void)
{
    GfxMonitor monitors[GFX_MAX_MONITORS] = {{-8, 0, 1023, 767, true}};
    Writer w;

    for (unsigned n = 1; n <= GFX_MAX_MONITORS; n += GFX_MAX_MONITORS - 1) {
        writer_init(&w, 4096);
        gfx_write_reset_graphics(&w, 1032, 768, monitors, n);
        g_assert_cmpuint(w.len, ==, GFX_RESET_GRAPHICS_BYTES);
        g_assert_cmpuint(gfx_pdu_length(w.data, w.len), ==, GFX_RESET_GRAPHICS_BYTES);
        g_assert_cmpmem(
            w.data + 8, 12,
            n == 1 ? "\x08\x04\0\0\0\x03\0\0\x01\0\0\0" : "\x08\x04\0\0\0\x03\0\0\x0f\0\0\0", 12);
        g_assert_cmpmem(w.data + 20, 20,
                        "\xf8\xff\xff\xff\0\0\0\0\xff\x03\0\0\xff\x02\0\0\x01\0\0\0", 20);
        writer_clear(&w);
    }
}

static void test_timestamp(void)
{
    g_assert_cmphex(gfx_timestamp(0), ==, 0);
    /* 13:37:42.123 */
    g_assert_cmphex(gfx_timestamp(((13 * 60 + 37) * 60 + 42) * 1000ull + 123), ==,
                    13u << 22 | 37u << 16 | 42u << 10 | 123u);
    g_assert_cmphex(gfx_timestamp(86400000ull * 3 + 5), ==, 5);
}

static void test_dense(void)
{
    static const struct {
        uint16_t codec;
        const char *data;
        bool dense;
    } codecs[] = {
        {GFX_CODEC_UNCOMPRESSED, "abcd", false},
        {GFX_CODEC_PLANAR,
         "\x30"
         "bcd",
         false},
        {GFX_CODEC_PLANAR,
         "\x20"
         "bcd",
         true},
        {GFX_CODEC_CAVIDEO, "abcd", true},
        {GFX_CODEC_AVC420, "abcd", true},
    };
    const GfxRect rect = {0, 0, 1, 1};
    Writer w;

    writer_init(&w, 1024);
    for (unsigned i = 0; i < G_N_ELEMENTS(codecs); i++) {
        w.len = 0;
        gfx_write_wire_to_surface_1(&w, GFX_CODEC_AVC420, codecs[i].codec, GFX_PIXEL_XRGB, &rect,
                                    (const uint8_t *)codecs[i].data, 4);
        g_assert_cmpint(gfx_pdu_is_dense(w.data, w.len), ==, codecs[i].dense);
        g_assert_false(gfx_pdu_is_dense(w.data, 11));
    }
    w.len = 0;
    gfx_write_delete_encoding_context(&w, GFX_CODEC_AVC420, GFX_CODEC_AVC420);
    g_assert_false(gfx_pdu_is_dense(w.data, w.len));
    writer_clear(&w);
}

static const char *const client[] = {
    ("1200 0000 2a000000 0300 04000800 04000000 02000000 05010800 04000000 10000000"
     " 00010a00 00000000"),
    "0d00 0000 14000000 01000000 07000000 08000000",
    "0d00 0000 14000000 ffffffff 07000000 08000000",
    "1600 0000 14000000 07000000 01020304 0500 0600",
    "1000 0000 22000000 0200 8877665544332211 00100000 0102030405060708 00200000",
};

static void test_client(void)
{
    GfxClientPdu pdu;
    const char *why;
    size_t len;
    Reader r;

    uint8_t *data = unhex(client[0], &len);
    reader_init(&r, data, len);
    g_assert_true(gfx_parse_client(&r, &pdu, &why));
    g_assert_cmpuint(pdu.cmd, ==, GFX_CAPSADVERTISE);
    g_assert_cmpuint(pdu.caps.n, ==, 3);
    g_assert_cmphex(pdu.caps.sets[0].version, ==, GFX_VERSION_8);
    g_assert_cmphex(pdu.caps.sets[0].flags, ==, 2);
    g_assert_cmphex(pdu.caps.sets[1].flags, ==, 0x10);
    g_assert_cmphex(pdu.caps.sets[2].version, ==, GFX_VERSION_101);
    g_free(data);

    data = unhex(client[2], &len);
    reader_init(&r, data, len);
    g_assert_true(gfx_parse_client(&r, &pdu, &why));
    g_assert_cmphex(pdu.ack.queue_depth, ==, GFX_QUEUE_SUSPEND);
    g_assert_cmpuint(pdu.ack.frame_id, ==, 7);
    g_assert_cmpuint(pdu.ack.total_decoded, ==, 8);
    g_free(data);

    data = unhex(client[3], &len);
    reader_init(&r, data, len);
    g_assert_true(gfx_parse_client(&r, &pdu, &why));
    g_assert_cmpuint(pdu.qoe.frame_id, ==, 7);
    g_assert_cmpuint(pdu.qoe.decode_ms, ==, 5);
    g_free(data);

    data = unhex(client[4], &len);
    reader_init(&r, data, len);
    g_assert_true(gfx_parse_client(&r, &pdu, &why));
    g_assert_cmpuint(pdu.offered, ==, 2);
    g_free(data);

    data = unhex("7700 0000 0c000000 01020304", &len); /* unknown: skipped */
    reader_init(&r, data, len);
    g_assert_true(gfx_parse_client(&r, &pdu, &why));
    g_assert_cmphex(pdu.cmd, ==, 0x77);
    g_assert_cmpuint(reader_left(&r), ==, 0);
    g_free(data);
}

static void truncated(uint8_t *data, size_t len, void *user)
{
    GfxClientPdu pdu;
    const char *why = NULL;
    Reader r;

    (void)user;
    reader_init(&r, data, len);
    g_assert_false(gfx_parse_client(&r, &pdu, &why));
    g_assert_nonnull(why);
}

static void mangled(uint8_t *data, size_t len, void *user)
{
    GfxClientPdu pdu;
    const char *why = NULL;
    Reader r;

    (void)user;
    reader_init(&r, data, len);
    while (reader_left(&r) > 0 && gfx_parse_client(&r, &pdu, &why)) {
        if (pdu.cmd == GFX_CAPSADVERTISE)
            g_assert_cmpuint(pdu.caps.n, <=, GFX_MAX_CAPSETS);
    }
}

static void test_mutations(void)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(client); i++) {
        size_t len;
        uint8_t *data = unhex(client[i], &len);
        mutate_truncations(data, len, truncated, NULL);
        mutate_bit_flips(data, len, mangled, NULL);
        mutate_random(data, len, i, 5000, mangled, NULL);
        g_free(data);
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/gfx-pdu/server", test_server);
    g_test_add_func("/gfx-pdu/reset-graphics", test_reset_graphics);
    g_test_add_func("/gfx-pdu/timestamp", test_timestamp);
    g_test_add_func("/gfx-pdu/dense", test_dense);
    g_test_add_func("/gfx-pdu/client", test_client);
    g_test_add_func("/gfx-pdu/mutations", test_mutations);
    return g_test_run();
}
