/*
 * The table has one row for each device any client has announced. A row that waits for a slot is
 * served as soon as there is one: an existing free chardev first, then, where we have QMP, a slot
 * plugged for it. Slots being opened and plugged are remembered, so that two rows never race for
 * one. A row has its slot from the grant until the peer says that it closed the fd. A row that was
 * refused for want of a slot gets the next one that becomes free.
 */
#include "usb_slots.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "log.h"
#include "usb_rules.h"

#define USB_SLOTS_MAX_ROWS 256u
#define USB_SLOTS_MAX_TRIES 8u /* chardevs that would not open, before a device is refused */
/* Devices lose their slots and the monitor is gone before we hear that the machine has ended: so
 * long nobody is told that no slot could be added. */
#define USB_SLOTS_FAILURE_SECONDS 2u
#define USB_SLOTS_ANNOUNCE_SECONDS                                                                 \
    10u /* from QMP's success to the chardev's appearance on D-Bus                                 \
         */

typedef enum Want {
    WANT_NOTHING,
    WANT_SLOT,
    WANT_OPENING,
    WANT_LEFTOVER, /* there was none; what another device leaves will do */
} Want;

typedef struct Row {
    guint number, peer_id, device_id;
    UsbDescriptors *descriptors;
    char text[160];
    char *label, *why, *slot;
    char state[16];
    UsbDeviceStats figures;
    Want want;
    bool banished;      /* the operator wants it away; whoever has it may not have heard it yet */
    GHashTable *failed; /* chardevs that would not open for this row, NULL: none */
} Row;

struct UsbSlots {
    Vm *vm;
    Qmp *qmp;
    const Config *config;
    const UsbSlotsCallbacks *callbacks;
    void *user;
    GPtrArray *rows;
    GHashTable *opening; /* chardev ids with vm_usb_slot_open() under way */
    UsbRules *rules;
    bool plugging;
    bool stopped;     /* the machine is ending: nobody gets a slot, and nobody is told so */
    char *plugged;    /* added over QMP, not seen among the VM's chardevs yet */
    guint announce;   /* the timer that no longer waits for it */
    bool cannot_plug; /* the last attempt failed */
    char *plug_error;
    guint failure; /* the timer that lets rows be refused for .plug_error; .plugging until then */
    guint last_number;
    gint refs; /* one, and one for each answer that is still under way */
    bool dead;
};

/* The fd is closed, or its peer is about to close it. */
static void give_back(UsbSlots *slots, Row *row)
{
    if (row->slot)
        vm_usb_slot_release(slots->vm, row->slot);
    g_clear_pointer(&row->slot, g_free);
}

static void row_free(void *data)
{
    Row *row = data;

    if (row->descriptors)
        usb_descriptors_unref(row->descriptors);
    g_free(row->label);
    g_free(row->why);
    g_free(row->slot);
    g_clear_pointer(&row->failed, g_hash_table_destroy);
    g_free(row);
}

UsbSlots *usb_slots_new(Vm *vm, Qmp *qmp, const Config *config, const UsbSlotsCallbacks *callbacks,
                        void *user)
{
    UsbSlots *slots = g_new0(UsbSlots, 1);

    slots->vm = vm;
    slots->qmp = qmp;
    slots->config = config;
    slots->callbacks = callbacks;
    slots->user = user;
    slots->rows = g_ptr_array_new_with_free_func(row_free);
    slots->opening = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
    slots->rules = usb_rules_new(config->usb_policy);
    slots->refs = 1;
    return slots;
}

static void slots_unref(UsbSlots *slots)
{
    if (--slots->refs > 0)
        return;
    g_ptr_array_unref(slots->rows);
    g_hash_table_destroy(slots->opening);
    usb_rules_free(slots->rules);
    g_free(slots->plug_error);
    g_free(slots->plugged);
    g_free(slots);
}

void usb_slots_free(UsbSlots *slots)
{
    if (!slots)
        return;
    slots->dead = true;
    g_clear_handle_id(&slots->announce, g_source_remove);
    g_clear_handle_id(&slots->failure, g_source_remove);
    slots_unref(slots);
}

static Row *find_row(UsbSlots *slots, guint peer_id, guint device_id)
{
    for (guint i = 0; i < slots->rows->len; i++) {
        Row *row = slots->rows->pdata[i];
        if (row->peer_id == peer_id && row->device_id == device_id)
            return row;
    }
    return NULL;
}

static void set_state(Row *row, const char *state, const char *why)
{
    g_strlcpy(row->state, state, sizeof(row->state));
    g_free(row->why);
    row->why = g_strdup(why ? why : "");
}

static Row *get_row(UsbSlots *slots, guint peer_id, guint device_id, const char *label)
{
    Row *row = find_row(slots, peer_id, device_id);

    if (row || slots->rows->len >= USB_SLOTS_MAX_ROWS)
        return row;
    row = g_new0(Row, 1);
    row->number = ++slots->last_number;
    row->peer_id = peer_id;
    row->device_id = device_id;
    row->label = g_strdup(label);
    g_strlcpy(row->text, "unknown device", sizeof(row->text));
    set_state(row, "probing", NULL);
    g_ptr_array_add(slots->rows, row);
    return row;
}

/* --- allocation --------------------------------------------------------------------------------
 */

static void serve(UsbSlots *slots);

typedef struct Opening {
    UsbSlots *slots;
    guint peer_id, device_id;
    char *id;
} Opening;

static void refuse(UsbSlots *slots, Row *row, Want want, const char *why)
{
    row->want = want;
    set_state(row, "refused", why);
    slots->callbacks->grant(slots->user, row->peer_id, row->device_id, -1, NULL, why);
}

/* A slot that somebody else was quicker to take, or that was being unplugged, is not the last. */
static void try_another(UsbSlots *slots, Row *row, const char *id, const char *error)
{
    if (!row->failed)
        row->failed = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
    g_hash_table_add(row->failed, g_strdup(id));
    if (g_hash_table_size(row->failed) >= USB_SLOTS_MAX_TRIES) {
        refuse(slots, row, WANT_NOTHING, error);
        return;
    }
    log_info(row->label, "%s: %s; trying another slot", row->text, error);
    row->want = WANT_SLOT;
}

static void on_opened(void *user, int fd, const char *error)
{
    Opening *opening = user;
    UsbSlots *slots = opening->slots;

    if (!slots->dead) {
        Row *row = find_row(slots, opening->peer_id, opening->device_id);
        bool used = false;
        g_hash_table_remove(slots->opening, opening->id);
        if (slots->stopped)
            row = NULL;
        if (row && row->want == WANT_OPENING && fd >= 0) {
            row->want = WANT_NOTHING;
            row->slot = g_strdup(opening->id);
            set_state(row, "attaching", NULL);
            used = slots->callbacks->grant(slots->user, row->peer_id, row->device_id, fd,
                                           opening->id, NULL);
            if (!used)
                g_clear_pointer(&row->slot, g_free);
        } else if (row && row->want == WANT_OPENING) {
            try_another(slots, row, opening->id, error);
        }
        if (fd >= 0 && !used) {
            close(fd);
            vm_usb_slot_release(slots->vm, opening->id);
        }
        serve(slots);
    } else if (fd >= 0) {
        close(fd);
    }
    g_free(opening->id);
    g_free(opening);
    slots_unref(slots);
}

/* If it comes later after all, who is still waiting gets it. */
static gboolean on_not_announced(gpointer user)
{
    UsbSlots *slots = user;

    slots->announce = 0;
    g_free(slots->plug_error);
    slots->plug_error = g_strdup_printf("QEMU plugged the slot %s but did not offer it in %u s",
                                        slots->plugged, USB_SLOTS_ANNOUNCE_SECONDS);
    slots->cannot_plug = true;
    g_clear_pointer(&slots->plugged, g_free);
    serve(slots);
    return G_SOURCE_REMOVE;
}

static gboolean on_plug_failed(gpointer user)
{
    UsbSlots *slots = user;

    slots->failure = 0;
    slots->plugging = false;
    serve(slots);
    return G_SOURCE_REMOVE;
}

static void on_plugged(void *user, const char *chardev_id, const char *error)
{
    UsbSlots *slots = user;

    slots->plugging = error != NULL;
    if (!slots->dead) {
        g_free(slots->plug_error);
        slots->plug_error = g_strdup(error);
        slots->cannot_plug = error != NULL;
        g_free(slots->plugged);
        slots->plugged = g_strdup(chardev_id);
        if (slots->plugged)
            slots->announce =
                g_timeout_add_seconds(USB_SLOTS_ANNOUNCE_SECONDS, on_not_announced, slots);
        if (error)
            slots->failure =
                g_timeout_add_seconds(USB_SLOTS_FAILURE_SECONDS, on_plug_failed, slots);
        serve(slots);
    }
    slots_unref(slots);
}

/* A chardev for @row that nobody has; NULL if there is none. */
static const char *free_slot(UsbSlots *slots, const Row *row, GPtrArray *list)
{
    for (guint i = 0; i < list->len; i++) {
        const VmUsbSlot *s = list->pdata[i];
        bool failed = row->failed && g_hash_table_contains(row->failed, s->id);
        if (!s->busy && !failed && !g_hash_table_contains(slots->opening, s->id))
            return s->id;
    }
    return NULL;
}

static void open_slot(UsbSlots *slots, Row *row, const char *id)
{
    Opening *opening = g_new0(Opening, 1);

    opening->slots = slots;
    opening->peer_id = row->peer_id;
    opening->device_id = row->device_id;
    opening->id = g_strdup(id);
    row->want = WANT_OPENING;
    slots->refs++;
    g_hash_table_add(slots->opening, g_strdup(id));
    vm_usb_slot_open(slots->vm, id, on_opened, opening);
}

/* Whether a slot is on its way: being plugged, or plugged and not announced by QEMU yet. */
static bool slot_is_coming(UsbSlots *slots, GPtrArray *list)
{
    for (guint i = 0; slots->plugged && i < list->len; i++) {
        const VmUsbSlot *s = list->pdata[i];
        if (strcmp(s->id, slots->plugged) == 0) {
            g_clear_pointer(&slots->plugged, g_free);
            g_clear_handle_id(&slots->announce, g_source_remove);
        }
    }
    return slots->plugging || slots->plugged;
}

/* Gives each waiting row what there is. Returns with every row opened, waiting for a slot being
 * plugged, or refused. */
static void serve(UsbSlots *slots)
{
    if (slots->stopped)
        return;
    GPtrArray *list = vm_usb_slots(slots->vm);
    bool coming = slot_is_coming(slots, list);

    for (guint i = 0; i < slots->rows->len; i++) {
        Row *row = slots->rows->pdata[i];
        if ((row->want != WANT_SLOT && row->want != WANT_LEFTOVER) || row->slot)
            continue;
        const char *id = free_slot(slots, row, list);
        if (id) {
            open_slot(slots, row, id);
        } else if (coming || row->want == WANT_LEFTOVER) {
            continue;
        } else if (slots->qmp && !slots->plug_error && list->len < CONFIG_MAX_USB_SLOTS) {
            coming = slots->plugging = true;
            slots->refs++;
            qmp_add_usb_slot(slots->qmp, slots->config->usb_boot, on_plugged, slots);
        } else {
            char *why =
                slots->plug_error
                    ? g_strdup_printf("no slot could be added: %s", slots->plug_error)
                    : g_strdup_printf("all %u redirection slots of the VM are in use; add another "
                                      "(libvirt: <redirdev bus='usb' type='dbus'/>)",
                                      list->len);
            refuse(slots, row, WANT_LEFTOVER, why);
            g_free(why);
        }
    }
    if (!slots->failure)
        g_clear_pointer(&slots->plug_error, g_free);
    g_ptr_array_unref(list);
}

void usb_slots_stop(UsbSlots *slots)
{
    slots->stopped = true;
}

void usb_slots_changed(UsbSlots *slots)
{
    serve(slots);
}

/* --- policy ------------------------------------------------------------------------------------
 */

static void judge(UsbSlots *slots, Row *row)
{
    char *why = usb_rules_check(slots->rules, row->descriptors, row->number);

    if (why) {
        refuse(slots, row, WANT_NOTHING, why);
        g_free(why);
        return;
    }
    log_info(row->label, "%s allowed by policy", row->text);
    g_clear_pointer(&row->failed, g_hash_table_destroy);
    row->banished = false;
    row->want = WANT_SLOT;
    set_state(row, "waiting", NULL);
    serve(slots);
}

void usb_slots_request(UsbSlots *slots, guint peer_id, guint device_id, UsbDescriptors *descriptors,
                       const char *label)
{
    Row *row = get_row(slots, peer_id, device_id, label);

    if (!row) {
        slots->callbacks->grant(slots->user, peer_id, device_id, -1, NULL,
                                "too many devices have been announced");
        return;
    }
    if (row->descriptors)
        usb_descriptors_unref(row->descriptors);
    row->descriptors = usb_descriptors_ref(descriptors);
    usb_descriptors_describe(descriptors, row->text, sizeof(row->text));
    judge(slots, row);
}

void usb_slots_note(UsbSlots *slots, guint peer_id, guint device_id, const char *label,
                    const char *state, const char *why)
{
    Row *row = get_row(slots, peer_id, device_id, label);

    if (!row)
        return;
    set_state(row, state, why);
}

void usb_slots_figures(UsbSlots *slots, guint peer_id, guint device_id,
                       const UsbDeviceStats *figures)
{
    Row *row = find_row(slots, peer_id, device_id);

    if (row)
        row->figures = *figures;
}

void usb_slots_released(UsbSlots *slots, guint peer_id, guint device_id)
{
    Row *row = find_row(slots, peer_id, device_id);

    if (row)
        give_back(slots, row);
    serve(slots);
}

void usb_slots_forget(UsbSlots *slots, guint peer_id, guint device_id)
{
    for (guint i = slots->rows->len; i-- > 0;) {
        Row *row = slots->rows->pdata[i];
        if (row->peer_id == peer_id && (device_id == 0 || row->device_id == device_id)) {
            give_back(slots, row);
            g_ptr_array_remove_index(slots->rows, i);
        }
    }
    serve(slots);
}

/* --- clients that are away ---------------------------------------------------------------------
 */

bool usb_slots_suspend(UsbSlots *slots, guint peer_id, guint device_id)
{
    Row *row = find_row(slots, peer_id, device_id);

    if (!row || row->banished)
        return false;
    row->peer_id = USB_SLOTS_AWAY;
    row->want = WANT_NOTHING;
    set_state(row, "suspended", NULL);
    return true;
}

void usb_slots_resume(UsbSlots *slots, guint old_id, guint peer_id, guint device_id,
                      const char *label)
{
    Row *row = find_row(slots, USB_SLOTS_AWAY, old_id);
    Row *fresh = find_row(slots, peer_id, device_id);

    if (fresh)
        g_ptr_array_remove(slots->rows, fresh);
    if (!row)
        return;
    row->peer_id = peer_id;
    row->device_id = device_id;
    g_free(row->label);
    row->label = g_strdup(label);
    set_state(row, "resuming", NULL);
}

bool usb_slots_holds(UsbSlots *slots, guint peer_id, const UsbDescriptors *descriptors)
{
    for (guint i = 0; i < slots->rows->len; i++) {
        const Row *row = slots->rows->pdata[i];
        if (row->peer_id == peer_id && row->slot && row->descriptors &&
            usb_descriptors_same(row->descriptors, descriptors))
            return true;
    }
    return false;
}

/* How long it will take is known when somebody asks. */
static void refresh(UsbSlots *slots)
{
    for (guint i = 0; i < slots->rows->len; i++) {
        Row *row = slots->rows->pdata[i];
        if (row->peer_id != USB_SLOTS_AWAY)
            continue;
        g_free(row->why);
        row->why = g_strdup_printf("%u s left for its client to come back",
                                   slots->callbacks->seconds_left(slots->user, row->device_id));
    }
}

/* --- the operator ------------------------------------------------------------------------------
 */

guint usb_slots_number(UsbSlots *slots, guint peer_id, guint device_id)
{
    const Row *row = find_row(slots, peer_id, device_id);

    return row ? row->number : 0;
}

const char *usb_slots_refusal(UsbSlots *slots, guint peer_id, guint device_id)
{
    const Row *row = find_row(slots, peer_id, device_id);

    return row && strcmp(row->state, "refused") == 0 ? row->why : NULL;
}

guint usb_slots_rows(UsbSlots *slots, UsbSlotsRow *rows, guint max)
{
    guint n = MIN(slots->rows->len, max);

    refresh(slots);
    for (guint i = 0; i < n; i++) {
        const Row *row = slots->rows->pdata[i];
        rows[i] = (UsbSlotsRow){
            .number = row->number,
            .peer_id = row->peer_id == USB_SLOTS_AWAY ? 0 : row->peer_id,
            .device = row->text,
            .label = row->label,
            .slot = row->slot ? row->slot : "",
            .state = row->state,
            .why = row->why,
            .figures = row->figures,
        };
    }
    return n;
}

void usb_slots_count(UsbSlots *slots, guint *free_slots, guint *total)
{
    GPtrArray *list = vm_usb_slots(slots->vm);

    *total = list->len;
    *free_slots = 0;
    for (guint i = 0; i < list->len; i++)
        *free_slots += !((const VmUsbSlot *)list->pdata[i])->busy;
    g_ptr_array_unref(list);
}

bool usb_slots_can_grow(const UsbSlots *slots)
{
    return slots->qmp && !slots->cannot_plug;
}

static void append_row(GString *out, const Row *row)
{
    g_string_append_printf(out, "%-3u %-10s %s%s%s, %s%s%s\n", row->number, row->state, row->text,
                           row->slot ? " on " : "", row->slot ? row->slot : "", row->label,
                           *row->why ? ": " : "", row->why);
}

static char *list_devices(UsbSlots *slots)
{
    GString *out = g_string_new(NULL);
    guint n_free, total;

    refresh(slots);
    for (guint i = 0; i < slots->rows->len; i++) {
        const Row *row = slots->rows->pdata[i];
        append_row(out, row);
    }
    if (slots->rows->len == 0)
        g_string_append(out, "No USB device is redirected.\n");
    usb_slots_count(slots, &n_free, &total);
    g_string_append_printf(out, "%u of %u redirection slots are free%s\n", n_free, total,
                           usb_slots_can_grow(slots) ? "; more are added on demand." : ".");
    return g_string_free(out, FALSE);
}

/* "3" names a row, "1234:abcd" every device with these ids. */
static bool row_matches(const Row *row, const char *word)
{
    unsigned vid, pid;
    char *end;
    int used = 0;
    guint64 number = g_ascii_strtoull(word, &end, 10);

    if (*word && *end == '\0')
        return row->number == number;
    return row->descriptors && sscanf(word, "%4x:%4x%n", &vid, &pid, &used) == 2 &&
           word[used] == '\0' && vid == row->descriptors->vid && pid == row->descriptors->pid;
}

static char *allow_or_deny(UsbSlots *slots, const char *word, bool allow, bool *ok)
{
    unsigned vid, pid;
    guint matched = 0;
    int used = 0;

    if (sscanf(word, "%4x:%4x%n", &vid, &pid, &used) != 2 || word[used] != '\0') {
        Row *named = NULL;
        for (guint i = 0; i < slots->rows->len && !named; i++) {
            Row *row = slots->rows->pdata[i];
            if (row_matches(row, word) && row->descriptors)
                named = row;
        }
        if (!named)
            return g_strdup_printf("There is no USB device %s: see qrdp usb list.\n", word);
        vid = named->descriptors->vid;
        pid = named->descriptors->pid;
    }
    if (!usb_rules_set(slots->rules, vid, pid, allow))
        return g_strdup_printf("There are already %u rules.\n", USB_RULES_MAX);
    log_info("usb", "%04x:%04x is %s from now on, says the operator", vid, pid,
             allow ? "allowed" : "denied");
    for (guint i = 0; i < slots->rows->len; i++) {
        Row *row = slots->rows->pdata[i];
        if (!row->descriptors || row->descriptors->vid != vid || row->descriptors->pid != pid)
            continue;
        matched++;
        if (!allow) {
            char *why = usb_rules_refusal(slots->rules, row->descriptors, row->number, "denied");
            row->want = WANT_NOTHING;
            row->banished = true;
            set_state(row, "refused", why);
            slots->callbacks->detach(slots->user, row->peer_id, row->device_id, false, why);
            g_free(why);
        } else if (row->want != WANT_OPENING &&
                   (!row->slot || strcmp(row->state, "refused") == 0)) {
            judge(slots, row);
        }
    }
    *ok = true;
    return g_strdup_printf("%04x:%04x is %s from now on; %u such %s here.\n", vid, pid,
                           allow ? "allowed" : "denied", matched,
                           matched == 1 ? "device is" : "devices are");
}

static char *detach(UsbSlots *slots, const char *word, bool *ok)
{
    for (guint i = 0; i < slots->rows->len; i++) {
        Row *row = slots->rows->pdata[i];
        if (!row_matches(row, word))
            continue;
        row->want = WANT_NOTHING;
        row->banished = true;
        *ok = true;
        slots->callbacks->detach(slots->user, row->peer_id, row->device_id, true,
                                 "detached by the operator");
        if (row->peer_id == USB_SLOTS_HOST)
            return g_strdup_printf("%s goes back to this host.\n", row->text);
        return g_strdup_printf("%s was detached. Its user can plug it in again.\n", row->text);
    }
    return g_strdup_printf("There is no USB device %s: see qrdp usb list.\n", word);
}

static char *show(UsbSlots *slots, const char *word, bool *ok)
{
    for (guint i = 0; i < slots->rows->len; i++) {
        if (!row_matches(slots->rows->pdata[i], word))
            continue;
        GString *out = g_string_new(NULL);
        append_row(out, slots->rows->pdata[i]);
        *ok = true;
        return g_string_free(out, FALSE);
    }
    return g_strdup_printf("There is no USB device %s: see qrdp usb list.\n", word);
}

char *usb_slots_command(UsbSlots *slots, char **words, bool *ok)
{
    guint n = words ? g_strv_length(words) : 0;

    *ok = false;
    if (n == 0 || (n == 1 && strcmp(words[0], "list") == 0)) {
        *ok = true;
        return list_devices(slots);
    }
    if (n == 2 && strcmp(words[0], "show") == 0) /* what `qrdp usb attach` waits with */
        return show(slots, words[1], ok);
    if (n == 2 && strcmp(words[0], "allow") == 0)
        return allow_or_deny(slots, words[1], true, ok);
    if (n == 2 && strcmp(words[0], "deny") == 0)
        return allow_or_deny(slots, words[1], false, ok);
    if (n == 2 && strcmp(words[0], "detach") == 0)
        return detach(slots, words[1], ok);
    return g_strdup("Say: qrdp usb list, or allow, deny or detach with a number from the list or "
                    "with VID:PID, or attach with VID:PID or BUS-DEVICE.\n");
}
