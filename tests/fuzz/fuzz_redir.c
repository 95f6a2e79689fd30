/*
 * QEMU's bytes, whatever they are, against a device behind them. The input is what comes from the
 * chardev, in one piece and again byte by byte: both must have the same outcome.
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "fake_guest.h"

#define HELLO_BYTES 80u /* header, version, one word of capabilities */

static UsbDeviceState run(const uint8_t *data, size_t size, size_t chunk, UsbDeviceStats *stats)
{
    UsbRig *r = usb_rig_new(FAKE_STICK, USB_SPEED_SUPER,
                            USB_QUIRK_CLEAR_HALT_CANCELS_ALL | USB_QUIRK_RESET_IS_NO_OP);

    /* The guest's hello is in the input, or not. If it is, QEMU must be able to parse whatever the
     * device sends. */
    bool same_caps = size >= HELLO_BYTES && memcmp(data, r->guest->out, 12) == 0 &&
                     memcmp(data + HELLO_BYTES - 4, r->guest->out + HELLO_BYTES - 4, 4) == 0;
    r->guest->out_len = 0;
    for (size_t at = 0; at < size; at += chunk) {
        size_t n = size - at < chunk ? size - at : chunk;
        if (!usb_device_guest_bytes(r->device, data + at, n, r->now))
            break;
        usb_rig_run(r);
    }
    usb_rig_wait(r, 60000000);
    assert(r->source->violations == 0);
    assert(!same_caps || r->guest->errors == 0);
    usb_device_stats(r->device, stats);
    assert(stats->in_flight <= USB_MAX_IN_FLIGHT);
    UsbDeviceState state = usb_device_state(r->device);
    usb_rig_free(r);
    return state;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    UsbDeviceStats whole, bytewise;

    if (size > 65536)
        return 0;
    UsbDeviceState a = run(data, size, size ? size : 1, &whole);
    UsbDeviceState b = run(data, size, 1, &bytewise);
    assert(a == b);
    return 0;
}
