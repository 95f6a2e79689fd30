/*
 * Which devices may reach the guest: usbredir's own rule syntax, so that one string can be given to
 * qrdp, virt-viewer and QEMU alike. The rules are checked against the descriptors, never against
 * what a client announces. A device passes when its own class and every interface of every setting
 * pass: a device must not become a keyboard by switching its setting later. For the same reason the
 * library's exception for non-boot HID interfaces of composite devices is not used.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <usbredirfilter.h>

#include "usb.h"

/* Hubs would need their children redirected one by one, which no client does. */
static const char default_rules[] = "0x09,-1,-1,-1,0|-1,-1,-1,-1,1";

struct UsbPolicy {
    struct usbredirfilter_rule *rules;
    int n_rules;
};

UsbPolicy *usb_policy_new(const char *rules, const char **error)
{
    UsbPolicy *policy = calloc(1, sizeof(*policy));

    if (!policy)
        abort();
    int r = usbredirfilter_string_to_rules(rules ? rules : default_rules, ",", "|", &policy->rules,
                                           &policy->n_rules);
    if (r != 0) {
        *error = "the USB rules must look like CLASS,VENDOR,PRODUCT,VERSION,ALLOW|... with -1 for "
                 "any and 1 or 0 for ALLOW";
        free(policy);
        return NULL;
    }
    return policy;
}

void usb_policy_free(UsbPolicy *policy)
{
    if (!policy)
        return;
    usbredirfilter_free(policy->rules);
    free(policy);
}

bool usb_policy_check(const UsbPolicy *policy, const UsbDescriptors *d, const char **why)
{
    for (unsigned i = 0; i < d->n_configurations; i++) {
        const UsbConfiguration *c = &d->configurations[i];
        uint8_t classes[USB_MAX_ALT_SETTINGS], subclasses[USB_MAX_ALT_SETTINGS],
            protocols[USB_MAX_ALT_SETTINGS];

        for (unsigned a = 0; a < c->n_alts; a++) {
            classes[a] = c->alts[a].class_code;
            subclasses[a] = c->alts[a].subclass;
            protocols[a] = c->alts[a].protocol;
        }
        int r =
            usbredirfilter_check(policy->rules, policy->n_rules, d->class_code, d->subclass,
                                 d->protocol, classes, subclasses, protocols, c->n_alts, d->vid,
                                 d->pid, d->bcd_device, usbredirfilter_fl_dont_skip_non_boot_hid);
        if (r != 0) {
            *why = r == -ENOENT ? "not covered" : "denied";
            return false;
        }
    }
    return true;
}
