/*
 * From the client's completions to UsbCompletions.
 *
 * Whatever a completion claims is held against the entry of its request: kind, direction, length,
 * packet count, and for SELECT_* the endpoints of the descriptor. A claim that cannot be true is
 * the client's fault and ends the channel; a status that is bad news is the guest's to hear.
 */
#include "urbdrc_source_private.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What the sink is told, gathered piece by piece. */
typedef struct Result {
    UsbStatus status;
    uint32_t length;
    const uint8_t *data;
    bool retry_in;
    uint32_t n_packets;
    const UsbIsoPacket *packets;
    bool again; /* not over: the request was sent in another form */
} Result;

/* Keeps the sentence until the channel has logged it. */
static const char *blame(UrbdrcSource *s, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
static const char *blame(UrbdrcSource *s, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    vsnprintf(s->error, sizeof(s->error), format, args);
    va_end(args);
    return s->error;
}

/* The sink may submit, cancel, retire or leave from inside. */
static void finish(UrbdrcSource *s, Entry *entry, const Result *result)
{
    UsbCompletion completion = {.id = entry->barrier ? entry->other : entry->id,
                                .status = result->status,
                                .length = result->length,
                                .data = result->data,
                                .n_packets = result->n_packets,
                                .packets = result->packets,
                                .retry_in = result->retry_in};
    uint32_t other = entry->other;

    if (s->strays > 0)
        s->strays--; /* one that answers may also have answered twice */
    urbdrc_remove_entry(s, entry);
    if (other != 0 && (entry = urbdrc_find_entry(s, other)))
        urbdrc_bury(s, entry);
    if (s->control_id == completion.id)
        urbdrc_next_control(s);
    if (s->usb.sink)
        s->usb.sink->complete(s->usb.sink_user, &completion);
}

static bool expected(const Select *select, uint8_t interface, uint8_t address)
{
    for (uint32_t i = 0; i < select->n_endpoints; i++)
        if (select->endpoints[i].interface == interface && select->endpoints[i].address == address)
            return true;
    return false;
}

static const char *take_pipes(UrbdrcSource *s, const Select *select, Pipe pipes[32],
                              const UrbdrcInterfaceResult *interface)
{
    for (uint32_t i = 0; i < interface->n_pipes; i++) {
        const UrbdrcPipeResult *pipe = &interface->pipes[i];
        Pipe *slot = &pipes[pipe_index(pipe->endpoint)];

        if (!expected(select, interface->number, pipe->endpoint))
            return blame(s,
                         "the result of a SELECT names endpoint 0x%02x of interface %u, which its "
                         "descriptor does not have",
                         pipe->endpoint, interface->number);
        if (slot->valid)
            return blame(s, "the result of a SELECT names endpoint 0x%02x twice (interface %u)",
                         pipe->endpoint, interface->number);
        *slot = (Pipe){.valid = true, .interface = interface->number, .handle = pipe->handle};
    }
    return NULL;
}

static const char *complete_select_configuration(UrbdrcSource *s, Entry *entry,
                                                 const UrbdrcMessage *m, Result *result)
{
    UrbdrcInterfaceResult *interfaces = calloc(URBDRC_MAX_INTERFACES, sizeof(*interfaces));
    Pipe pipes[32] = {0};
    uint32_t handle = 0, n = 0;

    if (!interfaces)
        abort();
    const char *error = urbdrc_parse_select_configuration_result(
        m->completion.result, m->completion.result_len, &handle, &n, interfaces);
    for (uint32_t i = 0; !error && i < n; i++) {
        bool padding =
            i > 0 && entry->select->plain_bytes && interfaces[i].number == interfaces[0].number;

        if (!padding)
            error = take_pipes(s, entry->select, pipes, &interfaces[i]);
    }
    free(interfaces);
    if (error)
        return error;
    if (n == 0 && urbdrc_select_plain(s, entry)) {
        result->again = true;
        return NULL;
    }
    /* An empty result is how FreeRDP says that it refused the descriptor. */
    if (n == 0 && entry->select->n_endpoints > 0) {
        result->status = USB_STATUS_IOERROR;
        return NULL;
    }
    memcpy(s->pipes, pipes, sizeof(pipes));
    s->configuration_handle = handle;
    s->configured = n > 0;
    return NULL;
}

static const char *complete_select_interface(UrbdrcSource *s, Entry *entry, const UrbdrcMessage *m,
                                             Result *result)
{
    UrbdrcInterfaceResult interface = {0};
    Pipe pipes[32];
    const char *error = urbdrc_parse_select_interface_result(m->completion.result,
                                                             m->completion.result_len, &interface);

    if (error)
        return error;
    if (interface.number != entry->select->interface) {
        result->status = USB_STATUS_IOERROR;
        return NULL;
    }
    memcpy(pipes, s->pipes, sizeof(pipes));
    for (uint32_t i = 0; i < 32; i++)
        if (pipes[i].interface == interface.number)
            pipes[i].valid = false;
    if ((error = take_pipes(s, entry->select, pipes, &interface)))
        return error;
    memcpy(s->pipes, pipes, sizeof(pipes));
    return NULL;
}

static const char *complete_select(UrbdrcSource *s, Entry *entry, const UrbdrcMessage *m,
                                   Result *result)
{
    /* Bytes that FreeRDP 3.14-3.22 put before HResult make it meaningless. */
    bool hresult_lost = entry->select->one_interface && m->completion.trailing > 0;
    UrbdrcOutcome outcome = urbdrc_flavour_outcome(
        m->completion.usbd_status, hresult_lost ? 0 : m->completion.hresult, 0, false);

    result->status = outcome.status;
    if (outcome.status != USB_STATUS_SUCCESS)
        return NULL;
    return entry->select->one_interface ? complete_select_interface(s, entry, m, result)
                                        : complete_select_configuration(s, entry, m, result);
}

/* Lengths and the IN payload of anything that moves data; checked against what was asked. */
static const char *complete_data(UrbdrcSource *s, const Entry *entry, const UrbdrcMessage *m,
                                 Result *result)
{
    uint32_t moved;

    if (entry->in)
        moved = m->kind == URBDRC_URB_COMPLETION ? (uint32_t)m->completion.data_len : 0;
    else /* FreeRDP up to 3.30 echoes the payload: the count is what matters */
        moved = m->completion.output_size;
    if (moved > entry->length)
        return blame(s, "a transfer of %u bytes was answered with %u", entry->length, moved);

    UrbdrcOutcome outcome =
        urbdrc_flavour_outcome(m->completion.usbd_status, m->completion.hresult, moved,
                               entry->in && entry->kind != USB_REQUEST_CONTROL);
    result->status = outcome.status;
    result->retry_in = outcome.retry_in;
    result->length = moved;
    result->data = entry->in ? m->completion.data : NULL;
    /* Some clients report 0 bytes with success: nothing else than all of it can be meant. One that
     * says that less was sent means what it says. */
    if (!entry->in && moved == 0 && outcome.status == USB_STATUS_SUCCESS &&
        m->completion.usbd_status == USBD_STATUS_SUCCESS)
        result->length = entry->length;
    return NULL;
}

static const char *complete_iso(UrbdrcSource *s, const Entry *entry, const UrbdrcMessage *m,
                                UsbIsoPacket *packets, Result *result)
{
    UrbdrcIsoPacket wire[URBDRC_MAX_ISO_PACKETS];
    uint32_t start_frame, error_count, n = 0;
    uint64_t sum = 0;
    const char *error = complete_data(s, entry, m, result);

    if (error || m->completion.result_len == 0)
        return error;
    error = urbdrc_parse_isoch_result(m->completion.result, m->completion.result_len, &start_frame,
                                      &error_count, &n, wire);
    if (error)
        return error;
    if (n != 0 && n != entry->packets)
        return blame(s, "an isochronous URB of %u packets was answered with %u", entry->packets, n);
    for (uint32_t i = 0; i < n; i++) {
        UrbdrcOutcome outcome = urbdrc_flavour_outcome(wire[i].status, 0, wire[i].length, false);

        if (entry->in && wire[i].length > entry->packet_size)
            return blame(s, "an isochronous packet of %u bytes was answered with %u",
                         entry->packet_size, wire[i].length);
        /* OUT: nothing of it is used but whether it failed. FreeRDP writes this table over the
         * payload and, once a packet has failed, moves payload over the table (func_iso_callback):
         * then only its count of errors is right. */
        if (!entry->in && error_count == 0)
            outcome.status = USB_STATUS_SUCCESS;
        /* Only packets that arrived are in the buffer, one after another (2.2.10.5). */
        packets[i].status = outcome.status;
        packets[i].length = outcome.status == USB_STATUS_SUCCESS ? wire[i].length : 0;
        if (packets[i].length > entry->packet_size)
            packets[i].length = entry->packet_size;
        sum += packets[i].length;
    }
    if (entry->in && sum > result->length)
        return "an isochronous completion has less data than its packets claim";
    if (entry->in && n > 0)
        result->length = (uint32_t)sum; /* FreeRDP claims the whole buffer */
    result->n_packets = n;
    result->packets = packets;
    return NULL;
}

/* The answer to a request that was cancelled. Only what a device has sent can still matter. */
static void complete_late(UrbdrcSource *s, Entry *entry, const UrbdrcMessage *m)
{
    Result result = {0};
    bool data = entry->in && m->kind == URBDRC_URB_COMPLETION && m->completion.data_len > 0 &&
                (entry->kind == USB_REQUEST_BULK || entry->kind == USB_REQUEST_INTERRUPT);

    if (data && !complete_data(s, entry, m, &result))
        finish(s, entry, &result);
    else
        urbdrc_remove_entry(s, entry);
}

const char *urbdrc_source_completion(UrbdrcSource *s, const UrbdrcMessage *m)
{
    UsbIsoPacket packets[URBDRC_MAX_ISO_PACKETS];
    Result result = {0};
    const char *error = NULL;
    uint32_t id = m->completion.request_id;
    Entry *entry = urbdrc_find_entry(s, id);

    if (!entry || entry->state == ENTRY_TOMBSTONE) {
        if (!urbdrc_was_issued(s, id))
            return blame(s, "a completion for request %u, which was never sent (last: %u)", id,
                         s->highest_id);
        if (entry)
            complete_late(s, entry, m);
        else if (++s->strays > URBDRC_MAX_STRAYS)
            return "too many completions of requests that had been answered already";
        return NULL;
    }
    if ((m->kind == URBDRC_IOCONTROL_COMPLETION) != (entry->kind == USB_REQUEST_RESET_PORT))
        return blame(s, "request %u was answered with the completion of another kind (kind %u)", id,
                     (uint32_t)entry->kind);

    switch (entry->kind) {
    case USB_REQUEST_CONTROL:
    case USB_REQUEST_BULK:
    case USB_REQUEST_INTERRUPT:
        error = complete_data(s, entry, m, &result);
        break;
    case USB_REQUEST_ISO:
        error = complete_iso(s, entry, m, packets, &result);
        break;
    case USB_REQUEST_SELECT_CONFIGURATION:
    case USB_REQUEST_SELECT_INTERFACE:
        error = complete_select(s, entry, m, &result);
        break;
    case USB_REQUEST_CLEAR_HALT:
        /* The barrier's own answer says nothing about the pipe. */
        if (!entry->barrier)
            result.status =
                urbdrc_flavour_outcome(m->completion.usbd_status, m->completion.hresult, 0, false)
                    .status;
        break;
    case USB_REQUEST_RESET_PORT:
        result.status = urbdrc_flavour_outcome(0, m->completion.hresult, 0, false).status;
        break;
    }
    if (error || result.again)
        return error;
    finish(s, entry, &result);
    return NULL;
}
