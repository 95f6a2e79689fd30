/*
 * The descriptor walk. Input: 18 bytes of device descriptor, then one configuration whose length is
 * made right (else nearly every input ends at the first check), or as it is when the first byte is
 * odd; with 4 in the first byte the second one says how many bytes at the end are a BOS. What is
 * taken must be within usb_limits.h and survive everything that is done with it.
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "descriptor.h"
#include "shown.h"

/* What a guest would see of it. */
static void show(UsbDescriptors *d)
{
    UsbDescriptors *as_is = usb_shown_as_is(d), *raised = usb_shown_as_super(d);

    assert(as_is->speed == d->speed && as_is->n_configurations == 1);
    assert(as_is->configurations[0].raw_len == d->configurations[0].raw_len);
    if (raised) {
        const UsbConfiguration *c = &raised->configurations[0];

        assert(d->speed == USB_SPEED_HIGH && raised->speed == USB_SPEED_SUPER);
        assert(c->n_alts == 1 && c->alts[0].n_endpoints == 2 && c->raw_len <= USB_MAX_CONFIG_BYTES);
        assert(raised->bos_len > USB_BOS_HEADER_LEN);
        usb_descriptors_derive_speed(raised, false);
        assert(raised->speed == USB_SPEED_SUPER);
    }
    usb_descriptors_unref(raised);
    usb_descriptors_unref(as_is);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char why[160] = "", text[160];

    if (size < 18 + 9)
        return 0;
    uint8_t device[18];
    memcpy(device, data, 18);
    device[0] = 18;
    device[1] = 1;
    UsbDescriptors *d = usb_descriptors_new(device, 18, why, sizeof(why));
    assert(d);

    size_t len = size - 18;
    size_t bos_len = data[0] & 4 && data[1] <= len - 9 ? data[1] : 0;
    len -= bos_len;
    usb_descriptors_set_bos(d, data + 18 + len, bos_len, why, sizeof(why));
    why[0] = '\0';
    uint8_t *raw = malloc(len);
    memcpy(raw, data + 18, len);
    if (!(data[0] & 1)) {
        raw[2] = (uint8_t)len;
        raw[3] = (uint8_t)(len >> 8);
    }
    if (usb_descriptors_add_configuration(d, raw, len, why, sizeof(why))) {
        const UsbConfiguration *c = &d->configurations[0];

        assert(c->raw_len == len && len <= USB_MAX_CONFIG_BYTES);
        assert(c->n_interfaces > 0 && c->n_interfaces <= USB_MAX_INTERFACES);
        assert(c->n_alts <= USB_MAX_ALT_SETTINGS);
        for (unsigned i = 0; i < c->n_alts; i++)
            assert(c->alts[i].n_endpoints <= USB_MAX_ENDPOINTS);
        for (unsigned i = 0; i < c->n_interfaces; i++)
            assert(usb_configuration_alt(c, c->interface_numbers[i], 0));
        usb_descriptors_derive_speed(d, data[0] & 2);
        assert(d->speed <= USB_SPEED_SUPER);
        show(d);
    } else {
        assert(why[0] && d->n_configurations == 0);
    }
    usb_descriptors_set_bos(d, data + 18, len, why, sizeof(why));
    usb_descriptor_string(data + 18, len, d->product, sizeof(d->product));
    assert(strlen(d->product) < sizeof(d->product));
    usb_descriptors_describe(d, text, sizeof(text));
    usb_descriptors_unref(d);
    free(raw);
    return 0;
}
