/*
 * Which devices may reach the guest: --usb-policy, and before it what the operator has said of one
 * VID:PID while qrdp ran.
 *
 * Owner: the UsbSlots. Thread: main.
 */
#ifndef QRDP_USB_RULES_H
#define QRDP_USB_RULES_H

#include <glib.h>
#include <stdbool.h>

#include "usb.h"

#define USB_RULES_MAX 64u /* of the operator's */

typedef struct UsbRules UsbRules;

/** @policy: Config.usb_policy, borrowed. NULL: everything but hubs. */
UsbRules *usb_rules_new(const char *policy);
void usb_rules_free(UsbRules *rules);
/** From now on such devices are let in, or not. False: there are USB_RULES_MAX rules already. */
bool usb_rules_set(UsbRules *rules, unsigned vid, unsigned pid, bool allow);
/** NULL if the device may reach the guest, else usb_rules_refusal(). */
char *usb_rules_check(const UsbRules *rules, const UsbDescriptors *d, guint number);
/** Whose rule is against the device and what would let it in; g_free() it. @number: what the
 * operator calls the device. @verdict: "denied", or another of usb_policy_check()'s. */
char *usb_rules_refusal(const UsbRules *rules, const UsbDescriptors *d, guint number,
                        const char *verdict);

#endif
