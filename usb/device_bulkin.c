/*
 * Theory of operation
 *
 * Bulk IN endpoints of serial adapters are read ahead. QEMU knows FTDI, CP210x and PL2303 by their
 * ids (its hw/usb/quirks.h) and asks for it with start_bulk_receiving when the guest first reads.
 * Such a chip holds a few hundred bytes; with the two reads that a guest keeps open, each a round
 * trip long, it would overflow over any distance: 9 kB/s at 50 ms with a pl2303, less than 115200
 * baud bring. Like this it is 106 kB/s (test_devices' adapter behind the delay proxy). For other
 * devices reading ahead is wrong: a read too many takes the answer to a command that has not been
 * given yet.
 *
 * From start to stop a window of requests is kept at the source by device_stream.c, which also
 * reissues what the client gave up on (FreeRDP does so after 10 s: nothing is lost, what had come
 * is passed on), clears halts, and pauses while QEMU does not read. The window is
 * USB_MAX_BULKIN_TRANSFERS however few QEMU wants (5): a chip answers each request with what has
 * come in within a millisecond or 16, so a round trip takes many of them.
 *
 * What comes is passed on in packets of at most the endpoint's packet size, because of two
 * things in QEMU's hw/usb/redirect.c:
 *
 * - It cuts what it gets into such pieces. When its queue is full (10000 pieces, a program that
 *   does not read its port) it drops pieces, and before 10.0.13 it then frees a packet's bytes
 *   while pieces of it are still queued (CVE-2026-15705). A packet of one piece is dropped whole.
 * - A read of the guest's that waits is ended by a packet with bytes in it, and by nothing else. So
 *   an error travels with two zero bytes (an FTDI chip's packets begin with two status bytes;
 *   shorter ones are dropped by QEMU). A driver does not look at the bytes of a failed transfer.
 *
 * That queue has no end that we could see, so a program that does not read loses bytes after 10000
 * pieces instead of making the chip lower RTS. When it closes the port QEMU stops the stream and
 * forgets what it had: nothing old comes with the next start.
 */
#include "device_priv.h"

#define MAX_PACKETS_PER_REQUEST 16u /* each is a packet to QEMU, too */

static bool acceptable(const UsbDevice *d, const Pipe *pipe, const RedirEvent *e)
{
    const UsbEndpoint *ep = pipe->endpoint;

    return d->selected && ep && ep->address == e->endpoint && ep->type == USB_ENDPOINT_BULK &&
           (e->endpoint & 0x80) && ep->max_packet > 0 && e->stream == 0 && e->length > 0 &&
           e->length <= USB_MAX_BULKIN_BYTES && e->length % ep->max_packet == 0 &&
           e->transfers > 0 && e->transfers <= USB_MAX_BULKIN_TRANSFERS && !pipe->queue.head;
}

void bulkin_start(UsbDevice *d, const RedirEvent *e)
{
    Pipe *pipe = &d->pipes[pipe_index(e->endpoint)];

    if (!acceptable(d, pipe, e)) {
        redir_send_bulk_receiving_status(d->redir, e->id, USB_STATUS_STALL, e->endpoint, e->stream);
        return;
    }
    uint32_t most = MAX_PACKETS_PER_REQUEST * pipe->endpoint->max_packet;
    d->settings.serial_adapter = true;
    redir_send_bulk_receiving_status(d->redir, e->id, USB_STATUS_SUCCESS, e->endpoint, 0);
    stream_run(d, pipe, USB_MAX_BULKIN_TRANSFERS, e->length < most ? e->length : most);
}

void bulkin_stop(UsbDevice *d, const RedirEvent *e)
{
    Pipe *pipe = &d->pipes[pipe_index(e->endpoint)];

    if (pipe->endpoint && pipe->endpoint->address == e->endpoint &&
        pipe->endpoint->type == USB_ENDPOINT_BULK)
        stream_end(d, pipe);
    redir_send_bulk_receiving_status(d->redir, e->id, USB_STATUS_SUCCESS, e->endpoint, e->stream);
}

void bulkin_report(UsbDevice *d, Pipe *pipe, UsbStatus status, const uint8_t *data, uint32_t length)
{
    static const uint8_t no_data[2];
    const uint32_t max_packet = pipe->endpoint->max_packet;
    bool last;

    if (status != USB_STATUS_SUCCESS && length == 0) {
        data = no_data;
        length = sizeof(no_data);
    }
    do {
        uint32_t n = length < max_packet ? length : max_packet;

        last = n == length;
        redir_send_buffered_bulk(d->redir, pipe->stream.next_id++,
                                 last ? status : USB_STATUS_SUCCESS, pipe->endpoint->address,
                                 n ? data : NULL, n);
        data = n ? data + n : NULL;
        length -= n;
    } while (!last);
}
