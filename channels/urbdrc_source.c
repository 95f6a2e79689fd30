/*
 * Theory of operation
 *
 * Every request that was put on the wire has an entry under its RequestId until the client answers
 * or we cancel it; a cancelled one stays as a tombstone so that a late answer is known for what it
 * is: data that a device has sent is passed on all the same, since the cancel may have come from a
 * timer and the data from behind a network that stood still. Tombstones are bounded, the oldest makes room. Ids count up (usb_source_next_id), so an id
 * that has no entry but is not above the highest one sent was ours once: such an answer is a stray
 * and is dropped. An id above it was never issued, and a client that answers it is confused about
 * whose device this is: its channel is closed (MS-RDPEUSB 3.2.5.4).
 *
 * Control-type URBs go out one at a time, the rest waits in a queue: FreeRDP serves them
 * synchronously on the thread that also draws the picture (urbdrc.md 3.5).
 *
 * Clearing a halt is one request for the sink and two for the client: PIPE_REQUEST and behind it
 * GET_DESCRIPTOR(device) as a barrier, because some clients execute the first and never answer it
 * (urbdrc.md 3.6). Every device has that descriptor at any time; GET_CURRENT_FRAME_NUMBER, which
 * would not touch the bus, makes FreeRDP 3.14 to 3.30 write past a buffer and answer nonsense. The
 * pair has two entries that know each other; the first answer completes the request and leaves the
 * other entry as a tombstone.
 *
 * Pipes are addressed by opaque handles that arrive with the results of SELECT_CONFIGURATION and
 * SELECT_INTERFACE. A result may only name endpoints of the descriptor that we checked ourselves.
 */
#include "urbdrc_source_private.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "urbdrc.h"

#define DESCRIPTOR_DEVICE 1u
#define DESCRIPTOR_DEVICE_LENGTH 18u
#define SELECT_MAX_TRANSFER 0x10000u /* MaximumTransferSize, ignored by Windows (2.2.9.1.3 <2>) */

static UrbdrcSource *source_of(UsbSource *usb)
{
    return (UrbdrcSource *)usb;
}

/* ---- entries ---- */

Entry *urbdrc_find_entry(UrbdrcSource *s, uint32_t id)
{
    for (uint32_t i = 0; i < s->n_entries; i++)
        if (s->entries[i].id == id)
            return &s->entries[i];
    return NULL;
}

static void free_select(Select *select)
{
    if (select)
        free(select->plain_bytes);
    free(select);
}

void urbdrc_remove_entry(UrbdrcSource *s, Entry *entry)
{
    uint32_t at = (uint32_t)(entry - s->entries);

    assert(at < s->n_entries);
    if (entry->state == ENTRY_TOMBSTONE)
        s->n_tombstones--;
    free_select(entry->select);
    memmove(entry, entry + 1, (s->n_entries - at - 1) * sizeof(*entry));
    s->n_entries--;
}

/* Moves the entry behind the younger tombstones; the oldest one gives way if there are too many. */
void urbdrc_bury(UrbdrcSource *s, Entry *entry)
{
    Entry grave = {.id = entry->id,
                   .state = ENTRY_TOMBSTONE,
                   .kind = entry->kind,
                   .in = entry->in,
                   .length = entry->length};

    if (entry->state == ENTRY_TOMBSTONE)
        return;
    urbdrc_remove_entry(s, entry);
    if (s->n_tombstones >= USB_MAX_TOMBSTONES) {
        for (uint32_t i = 0; i < s->n_entries; i++) {
            if (s->entries[i].state == ENTRY_TOMBSTONE) {
                urbdrc_remove_entry(s, &s->entries[i]);
                break;
            }
        }
    }
    assert(s->n_entries < MAX_ENTRIES);
    s->entries[s->n_entries++] = grave;
    s->n_tombstones++;
}

static bool room_for_transfer(const UrbdrcSource *s)
{
    return s->n_entries - s->n_tombstones < USB_MAX_IN_FLIGHT;
}

static void add_entry(UrbdrcSource *s, const Entry *entry)
{
    assert(s->n_entries < MAX_ENTRIES);
    s->entries[s->n_entries++] = *entry;
    if (entry->id < s->highest_id && s->highest_id - entry->id > USB_MAX_REQUEST_ID / 2)
        s->ids_wrapped = true;
    if (entry->id > s->highest_id)
        s->highest_id = entry->id;
}

bool urbdrc_was_issued(const UrbdrcSource *s, uint32_t id)
{
    return id != 0 && id <= USB_MAX_REQUEST_ID && (s->ids_wrapped || id <= s->highest_id);
}

static bool id_is_taken(UrbdrcSource *s, uint32_t id)
{
    if (id == 0 || id > USB_MAX_REQUEST_ID || urbdrc_find_entry(s, id))
        return true;
    for (uint32_t i = 0; i < s->n_queued; i++)
        if (s->queue[i].entry.id == id || s->queue[i].entry.other == id)
            return true;
    return false;
}

/* ---- writing ---- */

static UrbdrcMessage new_message(UrbdrcSource *s, UrbdrcKind kind)
{
    return (UrbdrcMessage){
        .kind = kind, .interface_id = s->usb_device, .message_id = s->message_id++};
}

static uint8_t *serialise(const UrbdrcMessage *message, size_t *len)
{
    Writer w;

    writer_init(&w, URBDRC_MAX_MESSAGE);
    urbdrc_write_message(&w, message);
    return writer_steal(&w, len);
}

static bool send_bytes(UrbdrcSource *s, const uint8_t *bytes, size_t len)
{
    return s->dvc && bytes && dvc_send(s->dvc, bytes, len);
}

static bool send_message(UrbdrcSource *s, const UrbdrcMessage *message)
{
    size_t len;
    uint8_t *bytes = serialise(message, &len);
    bool sent = send_bytes(s, bytes, len);

    free(bytes);
    return sent;
}

/* ---- the control queue ---- */

static void free_queued(Queued *q)
{
    free(q->bytes);
    free(q->barrier_bytes);
    free_select(q->entry.select);
}

static void drop_queued(UrbdrcSource *s, uint32_t at)
{
    memmove(&s->queue[at], &s->queue[at + 1], (s->n_queued - at - 1) * sizeof(s->queue[0]));
    s->n_queued--;
}

/* False if the channel is closed; .closed is on its way then and ends everything. */
static bool send_queued(UrbdrcSource *s, Queued *q)
{
    if (!send_bytes(s, q->bytes, q->len))
        return false;
    s->control_id = q->entry.id;
    add_entry(s, &q->entry);
    q->entry.select = NULL; /* the entry has it now */
    if (send_bytes(s, q->barrier_bytes, q->barrier_len)) {
        const Entry barrier = {.id = q->entry.other,
                               .state = ENTRY_LIVE,
                               .kind = USB_REQUEST_CLEAR_HALT,
                               .in = true,
                               .barrier = true,
                               .other = q->entry.id};
        add_entry(s, &barrier);
    }
    return true;
}

void urbdrc_next_control(UrbdrcSource *s)
{
    s->control_id = 0;
    if (s->n_queued == 0)
        return;
    Queued q = s->queue[0];
    drop_queued(s, 0);
    send_queued(s, &q);
    free_queued(&q);
}

/* Sends or queues a control-type request. Takes what @q owns. */
static bool start_control(UrbdrcSource *s, Queued *q)
{
    bool started = q->bytes != NULL;

    if (started && s->control_id != 0) {
        if (s->n_queued < URBDRC_MAX_QUEUED_CONTROL) {
            s->queue[s->n_queued++] = *q;
            return true;
        }
        started = false;
    } else if (started) {
        started = send_queued(s, q);
    }
    free_queued(q);
    return started;
}

/* ---- submit ---- */

static Entry new_entry(const UsbRequest *r, bool in)
{
    return (Entry){
        .id = r->id, .state = ENTRY_LIVE, .kind = r->kind, .in = in, .length = r->length};
}

static bool submit_control(UrbdrcSource *s, const UsbRequest *r)
{
    const bool in = (r->setup.request_type & 0x80) != 0;
    UrbdrcMessage m = new_message(s, URBDRC_TRANSFER_IN);
    bool as_out = false;

    /* FreeRDP ignores a CONTROL_TRANSFER whose wLength is not OutputBufferSize (3.4). */
    if (r->length != r->setup.length || (!in && r->length > 0 && !r->data))
        return false;
    m.transfer.urb.request_id = r->id;
    if (!urbdrc_flavour_control(s->flavour, &r->setup, &m.transfer.urb, &as_out))
        return false;
    m.kind = as_out ? URBDRC_TRANSFER_OUT : URBDRC_TRANSFER_IN;
    m.transfer.output_size = r->length;
    m.transfer.output = r->data;

    Queued q = {.entry = new_entry(r, in)};
    q.bytes = serialise(&m, &q.len);
    return start_control(s, &q);
}

static void expect_endpoints(Select *select, const UsbAltSetting *alt)
{
    for (uint32_t i = 0; i < alt->n_endpoints && i < USB_MAX_ENDPOINTS; i++) {
        if (select->n_endpoints >= USB_MAX_INTERFACES * USB_MAX_ENDPOINTS)
            return;
        select->endpoints[select->n_endpoints].interface = alt->interface;
        select->endpoints[select->n_endpoints].address = alt->endpoints[i].address;
        select->n_endpoints++;
    }
}

static void describe_interface(UrbdrcInterface *out, const UsbAltSetting *alt)
{
    *out = (UrbdrcInterface){.number = alt->interface, .alt = alt->alt};
    for (uint32_t i = 0; i < alt->n_endpoints && i < URBDRC_MAX_PIPES; i++)
        out->pipes[out->n_pipes++] = (UrbdrcPipe){.max_packet = alt->endpoints[i].max_packet_raw,
                                                  .max_transfer = SELECT_MAX_TRANSFER};
}

static Select *new_select(void)
{
    Select *select = calloc(1, sizeof(*select));

    if (!select)
        abort();
    return select;
}

static uint8_t *write_select(UrbdrcSource *s, const UsbRequest *r,
                             const UrbdrcInterface *interfaces, uint32_t n, size_t *len)
{
    UrbdrcMessage m = new_message(s, URBDRC_TRANSFER_IN);
    UrbdrcUrb *urb = &m.transfer.urb;

    urb->function = URB_SELECT_CONFIGURATION;
    urb->request_id = r->id;
    urb->select_configuration.interfaces = interfaces;
    urb->select_configuration.n_interfaces = n;
    if (r->configuration) {
        urb->select_configuration.descriptor = r->configuration->raw;
        urb->select_configuration.descriptor_len = r->configuration->raw_len;
    }
    return serialise(&m, len);
}

bool urbdrc_select_plain(UrbdrcSource *s, Entry *entry)
{
    Select *select = entry->select;
    uint8_t *bytes = select->plain_bytes;

    if (!bytes)
        return false;
    s->plain_configurations = true;
    select->plain_bytes = NULL;
    send_bytes(s, bytes, select->plain_len); /* if it fails, the channel ends */
    free(bytes);
    return true;
}

static bool submit_select_configuration(UrbdrcSource *s, const UsbRequest *r)
{
    UrbdrcInterface *interfaces = calloc(USB_MAX_INTERFACES, sizeof(*interfaces));
    Queued q = {.entry = new_entry(r, true)};
    const UsbConfiguration *c = r->configuration;
    uint32_t n = 0, padded = 0;

    if (!interfaces)
        abort();
    q.entry.length = 0;
    q.entry.select = new_select();
    if (c) {
        /* One entry per interface number with alternate setting 0, in the order of the descriptor,
         * and the descriptor as the device sent it: Windows takes nothing else (urbdrc.md 2.4). */
        for (uint32_t i = 0; i < c->n_interfaces && i < USB_MAX_INTERFACES; i++) {
            const UsbAltSetting *alt = usb_configuration_alt(c, c->interface_numbers[i], 0);
            if (!alt)
                continue;
            describe_interface(&interfaces[n++], alt);
            expect_endpoints(q.entry.select, alt);
        }
        if (n > 0 && s->flavour->pad_configurations && !s->plain_configurations)
            for (padded = n; padded < c->most_interfaces && padded < USB_MAX_INTERFACES; padded++)
                interfaces[padded] = interfaces[0];
    }
    if (padded > n)
        q.entry.select->plain_bytes = write_select(s, r, interfaces, n, &q.entry.select->plain_len);
    q.bytes = write_select(s, r, interfaces, padded > n ? padded : n, &q.len);
    free(interfaces);
    return start_control(s, &q);
}

static bool submit_select_interface(UrbdrcSource *s, const UsbRequest *r)
{
    UrbdrcInterface interface;
    UrbdrcMessage m = new_message(s, URBDRC_TRANSFER_IN);

    /* Before SELECT_CONFIGURATION it is a use after free in FreeRDP up to 3.21. */
    if (!s->configured || !r->alt)
        return false;
    describe_interface(&interface, r->alt);
    m.transfer.urb.function = URB_SELECT_INTERFACE;
    m.transfer.urb.request_id = r->id;
    m.transfer.urb.select_interface.configuration_handle = s->configuration_handle;
    m.transfer.urb.select_interface.interface = &interface;

    Queued q = {.entry = new_entry(r, true)};
    q.entry.length = 0;
    q.entry.select = new_select();
    q.entry.select->one_interface = true;
    q.entry.select->interface = r->alt->interface;
    expect_endpoints(q.entry.select, r->alt);
    q.bytes = serialise(&m, &q.len);
    return start_control(s, &q);
}

static bool submit_clear_halt(UrbdrcSource *s, const UsbRequest *r)
{
    const Pipe *pipe = &s->pipes[pipe_index(r->endpoint)];
    UrbdrcMessage m = new_message(s, URBDRC_TRANSFER_IN);
    Queued q = {.entry = new_entry(r, true)};

    if (!pipe->valid)
        return false;
    m.transfer.urb.function = URB_SYNC_RESET_PIPE_AND_CLEAR_STALL;
    m.transfer.urb.request_id = r->id;
    m.transfer.urb.pipe.handle = pipe->handle;
    q.entry.length = 0;
    q.bytes = serialise(&m, &q.len);
    if (s->flavour->pipe_request_needs_barrier) {
        uint32_t id;

        do
            id = usb_source_next_id(&s->usb);
        while (id_is_taken(s, id) || id == r->id);
        m = new_message(s, URBDRC_TRANSFER_IN);
        m.transfer.urb.function = URB_GET_DESCRIPTOR_FROM_DEVICE;
        m.transfer.urb.request_id = id;
        m.transfer.urb.descriptor.type = DESCRIPTOR_DEVICE;
        m.transfer.output_size = DESCRIPTOR_DEVICE_LENGTH;
        q.entry.other = id;
        q.barrier_bytes = serialise(&m, &q.barrier_len);
    }
    return start_control(s, &q);
}

static bool submit_reset_port(UrbdrcSource *s, const UsbRequest *r)
{
    UrbdrcMessage m = new_message(s, URBDRC_IO_CONTROL);
    Queued q = {.entry = new_entry(r, true)};

    m.io_control.code = URBDRC_IOCTL_RESET_PORT;
    m.io_control.request_id = r->id;
    q.entry.length = 0;
    q.bytes = serialise(&m, &q.len);
    return start_control(s, &q);
}

static bool submit_transfer(UrbdrcSource *s, const UsbRequest *r)
{
    const bool in = (r->endpoint & 0x80) != 0;
    const Pipe *pipe = &s->pipes[pipe_index(r->endpoint)];
    const Entry entry = new_entry(r, in);
    UrbdrcMessage m = new_message(s, in ? URBDRC_TRANSFER_IN : URBDRC_TRANSFER_OUT);

    if (!pipe->valid || !room_for_transfer(s) || (!in && r->length > 0 && !r->data))
        return false;
    m.transfer.urb.function = URB_BULK_OR_INTERRUPT_TRANSFER;
    m.transfer.urb.request_id = r->id;
    m.transfer.urb.transfer.pipe = pipe->handle;
    /* Without SHORT_OK Windows fails a short read (urbdrc.md 2.4). */
    m.transfer.urb.transfer.flags = in ? URB_FLAG_IN | URB_FLAG_SHORT_OK : 0;
    m.transfer.output_size = r->length;
    m.transfer.output = r->data;
    if (!send_message(s, &m))
        return false;
    add_entry(s, &entry);
    return true;
}

static bool submit_iso(UrbdrcSource *s, const UsbRequest *r)
{
    const bool in = (r->endpoint & 0x80) != 0;
    const Pipe *pipe = &s->pipes[pipe_index(r->endpoint)];
    UrbdrcIsoPacket packets[URBDRC_MAX_ISO_PACKETS];
    UrbdrcMessage m = new_message(s, in ? URBDRC_TRANSFER_IN : URBDRC_TRANSFER_OUT);
    Entry entry = new_entry(r, in);
    uint64_t offset = 0;

    if (!pipe->valid || !room_for_transfer(s) || r->n_packets == 0 ||
        r->n_packets > URBDRC_MAX_ISO_PACKETS || (!in && !r->data))
        return false;
    for (uint32_t i = 0; i < r->n_packets; i++) {
        if (s->usb.quirks & USB_QUIRK_EQUAL_ISO_PACKETS &&
            r->packets[i].length != r->packets[0].length)
            return false;
        if (r->packets[i].length > entry.packet_size)
            entry.packet_size = r->packets[i].length;
        packets[i] = (UrbdrcIsoPacket){.offset = (uint32_t)offset};
        offset += r->packets[i].length;
    }
    if (offset != r->length)
        return false;
    entry.packets = r->n_packets;
    m.transfer.urb.function = URB_ISOCH_TRANSFER;
    m.transfer.urb.request_id = r->id;
    m.transfer.urb.iso.pipe = pipe->handle;
    /* As soon as possible after what is queued already: FreeRDP has no frame numbers, and those of
     * Windows would be a round trip old. */
    m.transfer.urb.iso.flags = (in ? URB_FLAG_IN : 0) | URB_FLAG_START_ISO_ASAP;
    m.transfer.urb.iso.n_packets = r->n_packets;
    m.transfer.urb.iso.packets = packets;
    m.transfer.output_size = r->length;
    m.transfer.output = r->data;
    if (!send_message(s, &m))
        return false;
    add_entry(s, &entry);
    return true;
}

static bool source_submit(UsbSource *usb, const UsbRequest *r)
{
    UrbdrcSource *s = source_of(usb);

    if (!s->dvc || id_is_taken(s, r->id) || r->length > USB_MAX_TRANSFER_BYTES)
        return false;
    switch (r->kind) {
    case USB_REQUEST_CONTROL:
        return submit_control(s, r);
    case USB_REQUEST_BULK:
    case USB_REQUEST_INTERRUPT:
        return submit_transfer(s, r);
    case USB_REQUEST_ISO:
        return submit_iso(s, r);
    case USB_REQUEST_SELECT_CONFIGURATION:
        return submit_select_configuration(s, r);
    case USB_REQUEST_SELECT_INTERFACE:
        return submit_select_interface(s, r);
    case USB_REQUEST_CLEAR_HALT:
        return submit_clear_halt(s, r);
    case USB_REQUEST_RESET_PORT:
        return submit_reset_port(s, r);
    }
    return false;
}

static void source_cancel(UsbSource *usb, uint32_t id)
{
    UrbdrcSource *s = source_of(usb);
    Entry *entry;

    for (uint32_t i = 0; i < s->n_queued; i++) {
        if (s->queue[i].entry.id == id) {
            free_queued(&s->queue[i]);
            drop_queued(s, i);
            return;
        }
    }
    entry = urbdrc_find_entry(s, id);
    if (!entry || entry->state != ENTRY_LIVE || entry->barrier)
        return;

    UrbdrcMessage m = new_message(s, URBDRC_CANCEL_REQUEST);
    m.cancel.request_id = id;
    send_message(s, &m);
    uint32_t other = entry->other;
    urbdrc_bury(s, entry);
    if (other != 0 && (entry = urbdrc_find_entry(s, other)))
        urbdrc_bury(s, entry);
    if (s->control_id == id)
        urbdrc_next_control(s);
}

static void source_retire(UsbSource *usb, const char *reason)
{
    UrbdrcSource *s = source_of(usb);

    if (s->dvc)
        s->retire(s->user, reason);
}

static const UsbSourceOps source_ops = {
    .submit = source_submit, .cancel = source_cancel, .retire = source_retire};

/* ---- life ---- */

static void register_callback(UrbdrcSource *s)
{
    UrbdrcMessage m = new_message(s, URBDRC_REGISTER_CALLBACK);

    m.callback.n = 1;
    m.callback.request_completion = s->request_completion;
    send_message(s, &m);
}

UrbdrcSource *urbdrc_source_new(Dvc *dvc, const UrbdrcAddDevice *add_device,
                                const UrbdrcFlavour *flavour, const char *label,
                                void (*retire)(void *user, const char *reason), void *user)
{
    UrbdrcSource *s = calloc(1, sizeof(*s));

    if (!s)
        abort();
    s->usb.ops = &source_ops;
    s->usb.quirks = flavour->quirks;
    s->usb.high_speed_hint = add_device->is_high_speed != 0;
    snprintf(s->usb.label, sizeof(s->usb.label), "%s", label);
    s->dvc = dvc;
    s->flavour = flavour;
    s->usb_device = add_device->usb_device;
    /* Any id will do; one that cannot be taken for another interface is easier to read. */
    s->request_completion = s->usb_device == 0x10000 ? 0x10001 : 0x10000;
    s->retire = retire;
    s->user = user;
    register_callback(s);
    return s;
}

void urbdrc_source_free(UrbdrcSource *s, const char *why)
{
    if (!s)
        return;
    const UsbSink *sink = s->usb.sink;
    void *sink_user = s->usb.sink_user;

    /* A sink that leaves may still cancel what it had in flight. */
    s->dvc = NULL;
    s->usb.gone = true;
    s->usb.sink = NULL;
    s->usb.gone = true;
    if (sink)
        sink->gone(sink_user, why);
    for (uint32_t i = 0; i < s->n_queued; i++)
        free_queued(&s->queue[i]);
    for (uint32_t i = 0; i < s->n_entries; i++)
        free_select(s->entries[i].select);
    free(s);
}

UsbSource *urbdrc_source_usb(UrbdrcSource *s)
{
    return &s->usb;
}

const UrbdrcFlavour *urbdrc_source_flavour(const UrbdrcSource *s)
{
    return s->flavour;
}

void urbdrc_source_retract(UrbdrcSource *s)
{
    UrbdrcMessage m = new_message(s, URBDRC_RETRACT_DEVICE);

    m.retract.reason = URBDRC_RETRACT_BLOCKED_BY_POLICY;
    send_message(s, &m);
}
