/*
 * What the tests of a UsbDevice say of its rig (tests/lib/fake_guest.h), and a stick's commands as
 * a guest gives them. For test programs of one file: functions of their own names, in their thread.
 */
#ifndef QRDP_TESTS_UNIT_USB_CHECK_H
#define QRDP_TESTS_UNIT_USB_CHECK_H

#include <glib.h>
#include <string.h>

#include "fake_guest.h"

#define FREERDP (USB_QUIRK_CLEAR_HALT_CANCELS_ALL | USB_QUIRK_RESET_IS_NO_OP)
#define STICK_IN 0x81
#define STICK_OUT 0x02

/** Nothing was asked of the device that a real one would mind, and the guest's library found no
 * error. */
static inline void check_clean(const UsbRig *r)
{
    g_assert_cmpstr(r->source->violation, ==, "");
    g_assert_cmpuint(r->source->violations, ==, 0);
    g_assert_cmpuint(r->guest->errors, ==, 0);
}

static inline void end(UsbRig *r)
{
    check_clean(r);
    usb_rig_free(r);
}

/** The one packet of this type that answers request @id, when all have run. */
static inline const GuestPacket *answer(UsbRig *r, int type, uint64_t id)
{
    unsigned n = 0;

    usb_rig_run(r);
    const GuestPacket *p = fake_guest_find(r->guest, type, id);
    g_assert_nonnull(p);
    for (unsigned i = 0; i < r->guest->n_log; i++)
        n += r->guest->log[i].type == type && r->guest->log[i].id == id;
    g_assert_cmpuint(n, ==, 1);
    return p;
}

/** A command block wrapper of Bulk-Only Transport. */
static inline void make_cbw(uint8_t cbw[31], uint32_t tag, uint32_t length, bool in,
                            const uint8_t *cb, uint8_t cb_len)
{
    memset(cbw, 0, 31);
    memcpy(cbw, "USBC", 4);
    for (int i = 0; i < 4; i++) {
        cbw[4 + i] = (uint8_t)(tag >> (8 * i));
        cbw[8 + i] = (uint8_t)(length >> (8 * i));
    }
    cbw[12] = in ? 0x80 : 0;
    cbw[14] = cb_len;
    memcpy(cbw + 15, cb, cb_len);
}

/** The guest sends one; the request's id. */
static inline uint64_t send_cbw(UsbRig *r, uint32_t tag, uint32_t length, bool in,
                                const uint8_t *cb, uint8_t cb_len)
{
    uint8_t cbw[31];

    make_cbw(cbw, tag, length, in, cb, cb_len);
    return fake_guest_bulk_out(r->guest, STICK_OUT, cbw, 31);
}

/** Request @id has no answer, when all have run. */
static inline void unanswered(UsbRig *r, uint64_t id)
{
    usb_rig_run(r);
    for (unsigned i = 0; i < r->guest->n_log; i++)
        g_assert_cmpuint(r->guest->log[i].id, !=, id);
}

/** The one answer to a bulk request, with this status and length. */
static inline const GuestPacket *bulk_answer(UsbRig *r, uint64_t id, UsbStatus status,
                                             uint32_t length)
{
    const GuestPacket *p = answer(r, usb_redir_bulk_packet, id);

    g_assert_cmpuint(p->status, ==, status);
    g_assert_cmpuint(p->length, ==, length);
    g_assert_cmpint(p->data_len, ==, p->endpoint & 0x80 ? (int)length : 0);
    return p;
}

/** The same to a control request. */
static inline const GuestPacket *control_answer(UsbRig *r, uint64_t id, UsbStatus status,
                                                uint32_t length)
{
    const GuestPacket *p = answer(r, usb_redir_control_packet, id);

    g_assert_cmpuint(p->status, ==, status);
    g_assert_cmpuint(p->length, ==, length);
    return p;
}

/** @p is a status wrapper of Bulk-Only Transport. */
static inline void check_csw(const GuestPacket *p, uint32_t tag, uint8_t status)
{
    g_assert_cmpuint(p->length, ==, 13);
    g_assert_cmpint(memcmp(p->data, "USBS", 4), ==, 0);
    g_assert_cmpuint(p->data[4], ==, tag & 0xff);
    g_assert_cmpuint(p->data[12], ==, status);
}

static inline void read_blocks(UsbRig *r, uint32_t tag, uint16_t lba, uint16_t blocks, uint8_t *out)
{
    uint32_t length = blocks * FAKE_BLOCK;
    uint8_t cb[10] = {0x28,
                      0,
                      0,
                      0,
                      (uint8_t)(lba >> 8),
                      (uint8_t)lba,
                      0,
                      (uint8_t)(blocks >> 8),
                      (uint8_t)blocks,
                      0};
    uint64_t cbw = send_cbw(r, tag, length, true, cb, 10);
    uint64_t data = fake_guest_bulk_in(r->guest, 0x81, length);
    uint64_t csw = fake_guest_bulk_in(r->guest, 0x81, 13);

    bulk_answer(r, cbw, USB_STATUS_SUCCESS, 31);
    const GuestPacket *p = bulk_answer(r, data, USB_STATUS_SUCCESS, length);
    memcpy(out, p->data, length);
    check_csw(bulk_answer(r, csw, USB_STATUS_SUCCESS, 13), tag, 0);
}

static inline void write_blocks(UsbRig *r, uint32_t tag, uint16_t lba, uint16_t blocks,
                                const uint8_t *bytes)
{
    uint32_t length = blocks * FAKE_BLOCK;
    uint8_t cb[10] = {0x2a,
                      0,
                      0,
                      0,
                      (uint8_t)(lba >> 8),
                      (uint8_t)lba,
                      0,
                      (uint8_t)(blocks >> 8),
                      (uint8_t)blocks,
                      0};
    uint64_t cbw = send_cbw(r, tag, length, false, cb, 10);
    uint64_t data = fake_guest_bulk_out(r->guest, 0x02, bytes, length);
    uint64_t csw = fake_guest_bulk_in(r->guest, 0x81, 13);

    bulk_answer(r, cbw, USB_STATUS_SUCCESS, 31);
    bulk_answer(r, data, USB_STATUS_SUCCESS, length);
    check_csw(bulk_answer(r, csw, USB_STATUS_SUCCESS, 13), tag, 0);
}

/** What is written is read back. Uses @tag and the one after it. */
static inline void check_stick_works(UsbRig *r, uint32_t tag)
{
    uint8_t bytes[2048], back[2048];

    for (unsigned i = 0; i < sizeof(bytes); i++)
        bytes[i] = (uint8_t)(i * 7 + tag);
    write_blocks(r, tag, 10, 4, bytes);
    read_blocks(r, tag + 1, 10, 4, back);
    g_assert_cmpmem(bytes, sizeof(bytes), back, sizeof(back));
}

#endif
