/*
 * The chunks of a static channel, as clients write them, cut off anywhere, changed anywhere; and
 * the PDUs next to them in the stream, which are not for us.
 */
#include "channel_pdu.h"

#include <glib.h>
#include <string.h>

#include "dvc_guard.h"
#include "mutate.h"

/* TPKT of 26 bytes, X.224 Data, Send Data Request of user 1007 on channel 1006, 12 bytes of it: a
 * whole message of four. */
static const uint8_t SHORT[] = "\x03\x00\x00\x1a\x02\xf0\x80\x64\x00\x06\x03\xee\x70\x0c"
                               "\x04\x00\x00\x00\x03\x00\x00\x00\x50\x00\x03\x00";
#define SHORT_BYTES (sizeof(SHORT) - 1)

static void test_short(void)
{
    ChannelPdu pdu;

    g_assert_true(channel_pdu_read(&pdu, SHORT, SHORT_BYTES));
    g_assert_cmpuint(pdu.size, ==, SHORT_BYTES);
    g_assert_cmpuint(pdu.channel, ==, 1006);
    g_assert_cmpuint(pdu.flags, ==, DVC_CHUNK_FIRST | DVC_CHUNK_LAST);
    g_assert_cmpuint(pdu.total, ==, 4);
    g_assert_cmpmem(pdu.data, pdu.len, "\x50\x00\x03\x00", 4);
}

/* What clients send most: 1600 bytes, so the length takes two bytes; and the next PDU behind it. */
static void test_long(void)
{
    uint8_t bytes[15 + 8 + 1600 + SHORT_BYTES];
    ChannelPdu pdu;

    memset(bytes, 0xa5, sizeof(bytes));
    memcpy(bytes, "\x03\x00\x06\x57\x02\xf0\x80\x64\x00\x06\x03\xee\x70\x86\x48", 15);
    memcpy(bytes + 15, "\x90\x1a\x00\x00\x01\x00\x00\x00", 8);
    memcpy(bytes + 15 + 8 + 1600, SHORT, SHORT_BYTES);

    g_assert_true(channel_pdu_read(&pdu, bytes, sizeof(bytes)));
    g_assert_cmpuint(pdu.size, ==, 15 + 8 + 1600);
    g_assert_cmpuint(pdu.flags, ==, DVC_CHUNK_FIRST);
    g_assert_cmpuint(pdu.total, ==, 6800);
    g_assert_cmpuint(pdu.len, ==, 1600);
    g_assert_true(pdu.data == bytes + 15 + 8);
    g_assert_true(channel_pdu_read(&pdu, bytes + pdu.size, sizeof(bytes) - pdu.size));
    g_assert_cmpuint(pdu.len, ==, 4);
}

static void refuse(size_t at, uint8_t value)
{
    uint8_t bytes[SHORT_BYTES];
    ChannelPdu pdu;

    memcpy(bytes, SHORT, SHORT_BYTES);
    bytes[at] = value;
    g_assert_false(channel_pdu_read(&pdu, bytes, SHORT_BYTES));
}

static void test_others(void)
{
    refuse(0, 0x44); /* fast-path input */
    refuse(2, 0x7f); /* longer than what is there */
    refuse(3, 0x03); /* shorter than its own header */
    refuse(3, 0x19); /* shorter than what it holds */
    refuse(4, 0x06); /* X.224 with a longer header: a connection request, say */
    refuse(5, 0xe0);
    refuse(6, 0x00);  /* more parts follow */
    refuse(7, 0x68);  /* Send Data Indication: only servers send it */
    refuse(7, 0x21);  /* Disconnect Provider Ultimatum */
    refuse(8, 0xff);  /* no user has that number */
    refuse(13, 0x0b); /* length and TPKT's length disagree */
    refuse(13, 0x0d);
    refuse(13, 0xc1); /* PER in fragments */
}

static void never(uint8_t *data, size_t len, void *user)
{
    ChannelPdu pdu;

    g_assert_false(channel_pdu_read(&pdu, data, len));
}

static void stays_inside(uint8_t *data, size_t len, void *user)
{
    ChannelPdu pdu;

    if (!channel_pdu_read(&pdu, data, len))
        return;
    g_assert_cmpuint(pdu.size, <=, len);
    g_assert_cmpuint(pdu.size, >, pdu.len);
    g_assert_true(pdu.data + pdu.len == data + pdu.size);
}

static void test_mutations(void)
{
    mutate_truncations(SHORT, SHORT_BYTES, never, NULL);
    mutate_bit_flips(SHORT, SHORT_BYTES, stays_inside, NULL);
    mutate_random(SHORT, SHORT_BYTES, 1, 20000, stays_inside, NULL);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/channel-pdu/short", test_short);
    g_test_add_func("/channel-pdu/long", test_long);
    g_test_add_func("/channel-pdu/others", test_others);
    g_test_add_func("/channel-pdu/mutations", test_mutations);
    return g_test_run();
}
