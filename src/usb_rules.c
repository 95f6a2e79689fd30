/*
 * All rules are one list in usbredir syntax, in which the first that fits decides: the operator's
 * allow and deny put a rule for one VID:PID in front, for the life of the process.
 */
#include "usb_rules.h"

/* usbredirfilter: class, vendor, product, version, allow. Hubs are never passed on: a hub without
 * its children is of no use, and its children are announced by themselves. */
static const char default_rules[] = "0x09,-1,-1,-1,0|-1,-1,-1,-1,1";

struct UsbRules {
    const char *policy;
    GPtrArray *operators; /* the operator's, newest first */
};

UsbRules *usb_rules_new(const char *policy)
{
    UsbRules *rules = g_new(UsbRules, 1);

    *rules = (UsbRules){.policy = policy, .operators = g_ptr_array_new_with_free_func(g_free)};
    return rules;
}

void usb_rules_free(UsbRules *rules)
{
    g_ptr_array_unref(rules->operators);
    g_free(rules);
}

static char *make_prefix(unsigned vid, unsigned pid)
{
    return g_strdup_printf("-1,0x%04x,0x%04x,-1,", vid, pid);
}

bool usb_rules_set(UsbRules *rules, unsigned vid, unsigned pid, bool allow)
{
    char *prefix = make_prefix(vid, pid);

    for (guint i = rules->operators->len; i-- > 0;) {
        if (g_str_has_prefix(rules->operators->pdata[i], prefix))
            g_ptr_array_remove_index(rules->operators, i);
    }
    bool room = rules->operators->len < USB_RULES_MAX;
    if (room)
        g_ptr_array_insert(rules->operators, 0, g_strdup_printf("%s%d", prefix, allow ? 1 : 0));
    g_free(prefix);
    return room;
}

/* Who refuses the device. */
static const char *whose_rule(const UsbRules *rules, const UsbDescriptors *d)
{
    const char *whose = rules->policy ? "--usb-policy" : "default, as every hub is";
    char *prefix = make_prefix(d->vid, d->pid);

    for (guint i = 0; i < rules->operators->len; i++) {
        if (g_str_has_prefix(rules->operators->pdata[i], prefix))
            whose = "the operator";
    }
    g_free(prefix);
    return whose;
}

char *usb_rules_refusal(const UsbRules *rules, const UsbDescriptors *d, guint number,
                        const char *verdict)
{
    return g_strdup_printf("%s by %s ('qrdp usb allow %u' lets it in)", verdict,
                           whose_rule(rules, d), number);
}

char *usb_rules_check(const UsbRules *rules, const UsbDescriptors *d, guint number)
{
    GString *list = g_string_new(NULL);
    const char *error = NULL, *verdict = NULL;
    char *why = NULL;

    for (guint i = 0; i < rules->operators->len; i++)
        g_string_append_printf(list, "%s|", (char *)rules->operators->pdata[i]);
    g_string_append(list, rules->policy ? rules->policy : default_rules);
    UsbPolicy *policy = usb_policy_new(list->str, &error);
    if (!policy)
        why = g_strdup_printf("the USB policy cannot be read: %s", error);
    else if (!usb_policy_check(policy, d, &verdict))
        why = usb_rules_refusal(rules, d, number, verdict);
    usb_policy_free(policy);
    g_string_free(list, TRUE);
    return why;
}
