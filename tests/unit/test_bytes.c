#include "bytes.h"

#include <glib.h>
#include <stdlib.h>
#include <string.h>

static const uint8_t sample[] = {0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07, 0x08,
                                 0xff, 0x10, 0x20, 0x30, 0x40, 0x50, 0x60};

static void test_reads_both_orders(void)
{
    Reader r;

    reader_init(&r, sample, sizeof(sample));
    g_assert_cmphex(reader_u8(&r), ==, 0x01);
    g_assert_cmphex(reader_u16(&r), ==, 0x0302);
    g_assert_cmphex(reader_u32(&r), ==, 0x07060504);
    g_assert_cmphex(reader_u16be(&r), ==, 0x08ff);
    g_assert_cmphex(reader_u32be(&r), ==, 0x10203040);
    g_assert_cmpuint(reader_left(&r), ==, 2);
    g_assert_true(reader_ok(&r));
    g_assert_false(reader_done(&r));
    reader_skip(&r, 2);
    g_assert_true(reader_done(&r));

    reader_init(&r, sample, 8);
    g_assert_cmphex(reader_u64(&r), ==, 0x0807060504030201);
}

static void test_reader_failure_is_sticky(void)
{
    for (size_t len = 0; len < 4; len++) {
        Reader r;

        reader_init(&r, len ? sample : NULL, len);
        g_assert_cmphex(reader_u32(&r), ==, 0);
        g_assert_false(reader_ok(&r));
        g_assert_cmpuint(reader_left(&r), ==, 0);
        g_assert_cmphex(reader_u8(&r), ==, 0); /* there would be bytes, but not after a failure */
        g_assert_null(reader_bytes(&r, 0));
        g_assert_false(reader_done(&r));
    }
}

static void test_reader_length_cannot_wrap(void)
{
    Reader r;

    reader_init(&r, sample, sizeof(sample));
    reader_skip(&r, 4);
    g_assert_null(reader_bytes(&r, SIZE_MAX));
    reader_init(&r, sample, sizeof(sample));
    reader_skip(&r, 4);
    reader_skip(&r, SIZE_MAX - 3);
    g_assert_false(reader_ok(&r));
}

static void test_sub_reader_ends_where_it_should(void)
{
    Reader r, sub;

    reader_init(&r, sample, sizeof(sample));
    sub = reader_sub(&r, 3);
    reader_u16(&sub);
    g_assert_cmpuint(reader_left(&sub), ==, 1);
    g_assert_cmphex(reader_u16(&sub), ==, 0);
    g_assert_false(reader_ok(&sub));
    g_assert_true(reader_ok(&r)); /* the parent does not fail with it */
    g_assert_cmphex(reader_u8(&r), ==, 0x04);

    sub = reader_sub(&r, 100);
    g_assert_false(reader_ok(&sub));
    g_assert_false(reader_ok(&r));
    g_assert_null(reader_bytes(&sub, 0));
}

static void test_empty_input_is_done(void)
{
    Reader r;

    reader_init(&r, NULL, 0);
    g_assert_true(reader_done(&r));
    g_assert_nonnull(reader_bytes(&r, 0));
}

static void test_writes_what_is_read(void)
{
    Writer w;
    Reader r;
    size_t len;

    writer_init(&w, 1000);
    writer_u8(&w, 0xab);
    writer_u16(&w, 0x1234);
    writer_u32(&w, 0xdeadbeef);
    writer_u64(&w, 0x0102030405060708);
    writer_u16be(&w, 0x1234);
    writer_u32be(&w, 0xcafebabe);
    writer_bytes(&w, "xyz", 3);
    writer_zero(&w, 300);
    writer_patch_u16(&w, 1, 0x4321);
    writer_patch_u32(&w, 3, 0xfeedface);
    g_assert_true(writer_ok(&w));
    uint8_t *data = writer_steal(&w, &len);
    g_assert_cmpuint(len, ==, 1 + 2 + 4 + 8 + 2 + 4 + 3 + 300);
    reader_init(&r, data, len);
    g_assert_cmphex(reader_u8(&r), ==, 0xab);
    g_assert_cmphex(reader_u16(&r), ==, 0x4321);
    g_assert_cmphex(reader_u32(&r), ==, 0xfeedface);
    g_assert_cmphex(reader_u64(&r), ==, 0x0102030405060708);
    g_assert_cmphex(reader_u16be(&r), ==, 0x1234);
    g_assert_cmphex(reader_u32be(&r), ==, 0xcafebabe);
    g_assert_cmpmem(reader_bytes(&r, 3), 3, "xyz", 3);
    for (int i = 0; i < 300; i++)
        g_assert_cmpint(reader_u8(&r), ==, 0);
    g_assert_true(reader_done(&r));
    free(data);
    g_assert_cmpuint(w.len, ==, 0); /* stolen from: empty and usable */
    writer_u8(&w, 1);
    g_assert_true(writer_ok(&w));
    writer_clear(&w);
}

static void test_writer_stops_at_its_maximum(void)
{
    Writer w;
    size_t len = 7;

    writer_init(&w, 10);
    writer_u64(&w, 1);
    writer_u16(&w, 2);
    g_assert_true(writer_ok(&w));
    writer_u8(&w, 3);
    g_assert_false(writer_ok(&w));
    writer_patch_u16(&w, 0, 1);
    g_assert_null(writer_steal(&w, &len));
    g_assert_cmpuint(len, ==, 0);

    writer_init(&w, 10);
    writer_u32(&w, 0);
    g_assert_null(writer_reserve(&w, SIZE_MAX));
    g_assert_false(writer_ok(&w));
    writer_clear(&w);
    g_assert_true(writer_ok(&w)); /* clear starts over */
}

static void test_patch_needs_written_bytes(void)
{
    Writer w;

    writer_init(&w, 100);
    writer_u32(&w, 0);
    writer_patch_u32(&w, 1, 0);
    g_assert_false(writer_ok(&w));
    writer_clear(&w);
    writer_u32(&w, 0);
    writer_patch_u16(&w, SIZE_MAX, 0);
    g_assert_false(writer_ok(&w));
    writer_clear(&w);
}

static void test_truncate(void)
{
    Writer w;

    writer_init(&w, 6);
    writer_u32(&w, 0x04030201);
    writer_u16(&w, 0x0605);
    writer_truncate(&w, 8); /* not so much was written */
    g_assert_cmpuint(w.len, ==, 6);
    writer_truncate(&w, 3);
    writer_u8(&w, 9);
    g_assert_true(writer_ok(&w));
    g_assert_cmpmem(w.data, w.len, "\1\2\3\t", 4);
    writer_clear(&w);
}

static void test_empty_message_is_not_a_failure(void)
{
    Writer w;
    size_t len;

    writer_init(&w, 0);
    uint8_t *data = writer_steal(&w, &len);
    g_assert_nonnull(data);
    g_assert_cmpuint(len, ==, 0);
    free(data);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/bytes/truncate", test_truncate);
    g_test_add_func("/bytes/reader/both-orders", test_reads_both_orders);
    g_test_add_func("/bytes/reader/sticky", test_reader_failure_is_sticky);
    g_test_add_func("/bytes/reader/no-wrap", test_reader_length_cannot_wrap);
    g_test_add_func("/bytes/reader/sub", test_sub_reader_ends_where_it_should);
    g_test_add_func("/bytes/reader/empty", test_empty_input_is_done);
    g_test_add_func("/bytes/writer/round-trip", test_writes_what_is_read);
    g_test_add_func("/bytes/writer/maximum", test_writer_stops_at_its_maximum);
    g_test_add_func("/bytes/writer/patch", test_patch_needs_written_bytes);
    g_test_add_func("/bytes/writer/empty", test_empty_message_is_not_a_failure);
    return g_test_run();
}
