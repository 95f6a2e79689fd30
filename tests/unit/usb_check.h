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

#endif
