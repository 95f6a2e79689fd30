/* The table of redirected devices, with a VM of one slot that opens at once. */
#include "usb_slots.h"

#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "descriptor.h"

/* --- the VM --- */

static bool busy;

static void slot_free(gpointer data)
{
    g_free(((VmUsbSlot *)data)->id);
    g_free(data);
}

GPtrArray *vm_usb_slots(Vm *vm)
{
    GPtrArray *list = g_ptr_array_new_with_free_func(slot_free);
    VmUsbSlot *slot = g_new0(VmUsbSlot, 1);

    *slot = (VmUsbSlot){.id = g_strdup("slot"), .busy = busy, .ours = busy};
    g_ptr_array_add(list, slot);
    return list;
}

void vm_usb_slot_open(Vm *vm, const char *id, VmUsbOpened done, void *user)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    g_assert_cmpint(fd, >=, 0);
    busy = true;
    done(user, fd, NULL);
}

void vm_usb_slot_release(Vm *vm, const char *id)
{
    busy = false;
}

void qmp_add_usb_slot(Qmp *qmp, int boot, QmpSlotAdded done, void *user)
{
    done(user, NULL, "no monitor");
}

/* --- who has devices --- */

typedef struct Holder {
    guint granted, refused, detached;
} Holder;

static bool on_grant(void *user, guint peer_id, guint device_id, int fd, const char *slot_id,
                     const char *error)
{
    Holder *h = user;

    if (fd >= 0)
        close(fd);
    *(fd >= 0 ? &h->granted : &h->refused) += 1;
    return true;
}

static void on_detach(void *user, guint peer_id, guint device_id, bool close, const char *why)
{
    ((Holder *)user)->detached++;
}

static unsigned on_seconds_left(void *user, guint device_id)
{
    return 1;
}

static const UsbSlotsCallbacks callbacks = {
    .grant = on_grant, .detach = on_detach, .seconds_left = on_seconds_left};

static UsbDescriptors *stick(void)
{
    static const uint8_t device[18] = {18,   1, 0, 2, 0, 0, 0, 64, 0x09,
                                       0x12, 1, 0, 0, 1, 0, 0, 0,  1};
    static const uint8_t configuration[18] = {9, 2, 18, 0, 1, 1, 0, 0x80, 50,
                                              9, 4, 0,  0, 0, 8, 6, 0x50, 0};
    char why[160] = "";
    UsbDescriptors *d = usb_descriptors_new(device, sizeof(device), why, sizeof(why));

    g_assert_cmpstr(why, ==, "");
    g_assert_true(usb_descriptors_add_configuration(d, configuration, sizeof(configuration), why,
                                                    sizeof(why)));
    return d;
}

/* A stick of peer 1's in the guest, which the operator then says @verb to; the table. */
static UsbSlots *told(Holder *holder, const Config *config, UsbDescriptors *d, const char *verb)
{
    UsbSlots *slots = usb_slots_new(NULL, NULL, config, &callbacks, holder);
    bool ok = false;

    busy = false;
    usb_slots_request(slots, 1, 7, d, "label");
    g_assert_cmpuint(holder->granted, ==, 1);
    if (verb) {
        char *words[] = {(char *)verb, (char *)"1209:0001", NULL};
        g_free(usb_slots_command(slots, words, &ok));
        g_assert_true(ok);
    }
    return slots;
}

/* The order crosses the news that the client is away: the device is not kept for it. */
static void test_away(void)
{
    static const struct {
        const char *verb;
        bool kept;
    } cases[] = {{NULL, true}, {"allow", true}, {"deny", false}, {"detach", false}};
    Config config = {0};
    UsbDescriptors *d = stick();

    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        Holder holder = {0};
        UsbSlots *slots = told(&holder, &config, d, cases[i].verb);

        g_assert_true(usb_slots_suspend(slots, 1, 7) == cases[i].kept);
        g_assert_true(usb_slots_holds(slots, USB_SLOTS_AWAY, d) == cases[i].kept);
        usb_slots_forget(slots, 1, 0);
        g_assert_true(busy == cases[i].kept);
        usb_slots_free(slots);
    }
    usb_descriptors_unref(d);
}

/* Denied, and allowed again before anybody had let go: it may be kept. */
static void test_mind_changed(void)
{
    Config config = {0};
    Holder holder = {0};
    UsbDescriptors *d = stick();
    UsbSlots *slots = told(&holder, &config, d, "deny");
    char *words[] = {(char *)"allow", (char *)"1209:0001", NULL};
    bool ok = false;

    g_assert_false(usb_slots_suspend(slots, 1, 7));
    g_free(usb_slots_command(slots, words, &ok));
    g_assert_true(ok);
    g_assert_true(usb_slots_suspend(slots, 1, 7));
    usb_slots_free(slots);
    usb_descriptors_unref(d);
}

/* It comes back while the table still has the denial: a new client is refused. */
static void test_denied_again(void)
{
    Config config = {0};
    Holder holder = {0};
    UsbDescriptors *d = stick();
    UsbSlots *slots = told(&holder, &config, d, "deny");

    g_assert_cmpuint(holder.detached, ==, 1);
    usb_slots_request(slots, 2, 8, d, "label");
    g_assert_cmpuint(holder.granted, ==, 1);
    g_assert_cmpuint(holder.refused, ==, 1);
    usb_slots_free(slots);
    usb_descriptors_unref(d);
}

/* Each refusal names the rule's author and the way in; the device itself is named by the row. */
static void test_refusals(void)
{
    static const struct {
        char *policy;
        const char *says;
    } cases[] = {
        {(char *)"0x08,-1,-1,-1,0|-1,-1,-1,-1,1",
         "denied by --usb-policy ('qrdp usb allow 1' lets it in)"},
        {(char *)"0x03,-1,-1,-1,1", "not covered by --usb-policy ('qrdp usb allow 1' lets it in)"},
        {NULL, NULL},
    };
    char *allow[] = {(char *)"allow", (char *)"1", NULL};
    char *deny[] = {(char *)"deny", (char *)"1", NULL};
    UsbDescriptors *d = stick();

    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        Config config = {.usb_policy = cases[i].policy};
        Holder holder = {0};
        UsbSlots *slots = usb_slots_new(NULL, NULL, &config, &callbacks, &holder);
        bool ok = false;

        busy = false;
        usb_slots_request(slots, 1, 7, d, "label");
        g_assert_cmpstr(usb_slots_refusal(slots, 1, 7), ==, cases[i].says);
        g_free(usb_slots_command(slots, deny, &ok));
        g_assert_true(ok);
        g_assert_cmpstr(usb_slots_refusal(slots, 1, 7), ==,
                        "denied by the operator ('qrdp usb allow 1' lets it in)");
        usb_slots_released(slots, 1, 7);
        g_free(usb_slots_command(slots, allow, &ok));
        g_assert_true(ok);
        g_assert_null(usb_slots_refusal(slots, 1, 7));
        usb_slots_free(slots);
    }
    d->class_code = 9;
    Config config = {0};
    Holder holder = {0};
    UsbSlots *slots = usb_slots_new(NULL, NULL, &config, &callbacks, &holder);
    usb_slots_request(slots, 1, 7, d, "label");
    g_assert_cmpstr(usb_slots_refusal(slots, 1, 7), ==,
                    "denied by default, as every hub is ('qrdp usb allow 1' lets it in)");
    usb_slots_free(slots);
    usb_descriptors_unref(d);
}

/* The slot is lost because the machine ends: no other is looked for, and nobody is refused one. */
static void test_machine_ends(void)
{
    Config config = {0};
    Holder holder = {0};
    UsbDescriptors *d = stick();
    UsbSlots *slots = told(&holder, &config, d, NULL);

    usb_slots_stop(slots);
    usb_slots_released(slots, 1, 7);
    usb_slots_request(slots, 1, 7, d, "label");
    usb_slots_changed(slots);
    g_assert_cmpuint(holder.granted, ==, 1);
    g_assert_cmpuint(holder.refused, ==, 0);
    usb_slots_free(slots);
    usb_descriptors_unref(d);
}

/* The monitor is gone: that is told unless the machine turns out to have ended. */
static void test_cannot_plug(void)
{
    Config config = {0};
    UsbDescriptors *d = stick();

    for (int ends = 0; ends < 2; ends++) {
        Holder holder = {0};
        UsbSlots *slots = usb_slots_new(NULL, (Qmp *)&holder, &config, &callbacks, &holder);

        busy = true;
        usb_slots_request(slots, 1, 7, d, "label");
        usb_slots_changed(slots);
        g_assert_cmpuint(holder.granted + holder.refused, ==, 0);
        if (ends)
            usb_slots_stop(slots);
        while (ends ? g_main_context_pending(NULL) : holder.refused == 0)
            g_main_context_iteration(NULL, TRUE);
        if (!ends)
            g_assert_cmpstr(usb_slots_refusal(slots, 1, 7), ==,
                            "no slot could be added: no monitor");
        g_assert_cmpuint(holder.refused, ==, ends ? 0 : 1);
        usb_slots_free(slots);
    }
    usb_descriptors_unref(d);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/usb-slots/away", test_away);
    g_test_add_func("/usb-slots/mind-changed", test_mind_changed);
    g_test_add_func("/usb-slots/denied-again", test_denied_again);
    g_test_add_func("/usb-slots/refusals", test_refusals);
    g_test_add_func("/usb-slots/machine-ends", test_machine_ends);
    g_test_add_func("/usb-slots/cannot-plug", test_cannot_plug);
    return g_test_run();
}
