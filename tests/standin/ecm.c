/*
 * A network adapter (CDC 1.2, ECM 1.2) with one machine on its wire: 10.9.0.1, which answers ARP
 * and echo requests.
 *
 * A frame ends with a short packet, so one whose length is a multiple of the packet size needs a
 * zero-length packet, in both directions.
 */
#include "bus.h"
#include "echo.h"
#include <stdlib.h>
#include <string.h>

#define EP_EVENT 0x83
#define MAX_FRAME 1514
#define ETHERNET 14

typedef struct Ecm {
    Echo to_host;
    uint8_t frame[2048]; /* what the host is sending */
    size_t len;
    unsigned told; /* notifications sent: connected */
    unsigned frames, pings;
    uint16_t filter;
} Ecm;

static const uint8_t peer_mac[6] = {0x02, 0x12, 0x09, 0, 0, 0x01};
static const uint8_t peer_ip[4] = {10, 9, 0, 1};

static bool ecm_create(Device *d, Options *o, char *err, size_t errsize)
{
    uint8_t header[5] = {5, 0x24, 0x00, 0x20, 0x01}, joined[5] = {5, 0x24, 0x06, 0, 1};
    uint8_t ethernet[13] = {13, 0x24, 0x0f, 0, 0, 0, 0, 0, MAX_FRAME & 0xff, MAX_FRAME >> 8,
                            0,  0,    0};
    bool high = d->speed == LIBUSB_SPEED_HIGH;
    Ecm *e = calloc(1, sizeof(*e));

    if (!e)
        abort();
    d->state = e;
    echo_init(&e->to_host);
    if (d->speed != LIBUSB_SPEED_HIGH && d->speed != LIBUSB_SPEED_FULL) {
        snprintf(err, errsize, "the adapter is full or high speed");
        return false;
    }
    d->device_desc[4] = LIBUSB_CLASS_COMM;
    desc_config(d, 0x80, 50);
    desc_interface(d, 0, 0, 1, LIBUSB_CLASS_COMM, 6, 0);
    ethernet[3] = desc_string(d, "021209000002"); /* the host's address */
    desc_raw(d, header, sizeof(header));
    desc_raw(d, joined, sizeof(joined));
    desc_raw(d, ethernet, sizeof(ethernet));
    desc_endpoint(d, EP_EVENT, LIBUSB_ENDPOINT_TRANSFER_TYPE_INTERRUPT, 16, high ? 8 : 16);
    desc_interface(d, 1, 0, 0, LIBUSB_CLASS_DATA, 0, 0);
    desc_interface(d, 1, 1, 2, LIBUSB_CLASS_DATA, 0, 0);
    desc_endpoint(d, 0x81, LIBUSB_ENDPOINT_TRANSFER_TYPE_BULK, desc_bulk_mps(d), 0);
    desc_endpoint(d, 0x02, LIBUSB_ENDPOINT_TRANSFER_TYPE_BULK, desc_bulk_mps(d), 0);
    return true;
}

static void ecm_reset(Device *d)
{
    Ecm *e = d->state;

    echo_drop(&e->to_host);
    e->len = e->told = 0;
}

static void ecm_destroy(Device *d)
{
    ecm_reset(d);
    free(d->state);
}

static int ecm_control(Device *d, const Setup *s, uint8_t *data)
{
    Ecm *e = d->state;

    if (s->type != 0x21 || s->request != 0x43 || s->index || s->length)
        return IO_STALL;
    e->filter = s->value; /* SET_ETHERNET_PACKET_FILTER */
    return 0;
}

/* ---- the machine on the wire ---- */

static void send_frame(Ecm *e, uint16_t mps, size_t len)
{
    memcpy(e->frame, e->frame + 6, 6); /* back to whom it came from */
    memcpy(e->frame + 6, peer_mac, 6);
    if (echo_out(&e->to_host, mps, e->frame, len) != (ssize_t)len)
        return; /* a full wire drops frames */
    if (len % mps == 0)
        echo_out(&e->to_host, mps, NULL, 0);
}

static void on_arp(Ecm *e, uint16_t mps)
{
    uint8_t *arp = e->frame + ETHERNET, target[4];

    if (e->len < ETHERNET + 28 || arp[7] != 1 || memcmp(arp + 24, peer_ip, 4))
        return;
    memcpy(target, arp + 14, 4);
    arp[7] = 2; /* reply */
    memcpy(arp + 18, arp + 8, 6);
    memcpy(arp + 24, target, 4);
    memcpy(arp + 8, peer_mac, 6);
    memcpy(arp + 14, peer_ip, 4);
    send_frame(e, mps, e->len);
}

static void on_ip(Ecm *e, uint16_t mps)
{
    uint8_t *ip = e->frame + ETHERNET, *icmp = ip + 20;
    unsigned sum;

    if (e->len < ETHERNET + 28 || ip[0] != 0x45 || ip[9] != 1 || memcmp(ip + 16, peer_ip, 4) ||
        icmp[0] != 8 || ETHERNET + (size_t)(ip[2] << 8 | ip[3]) > e->len)
        return;
    memcpy(ip + 16, ip + 12, 4); /* swapping the addresses leaves the sum as it is */
    memcpy(ip + 12, peer_ip, 4);
    icmp[0] = 0; /* echo reply: the sum grows by what the type has lost */
    sum = (unsigned)(icmp[2] << 8 | icmp[3]) + 0x0800;
    sum = (sum & 0xffff) + (sum >> 16);
    icmp[2] = (uint8_t)(sum >> 8);
    icmp[3] = sum & 0xff;
    e->pings++;
    /* Without what a host adds to spare itself a zero-length packet; the reply has one then. */
    send_frame(e, mps, ETHERNET + (size_t)(ip[2] << 8 | ip[3]));
}

static void on_frame(Ecm *e, uint16_t mps)
{
    e->frames++;
    if (e->len >= ETHERNET && e->frame[12] == 8 && e->frame[13] == 6)
        on_arp(e, mps);
    else if (e->len >= ETHERNET && e->frame[12] == 8 && e->frame[13] == 0)
        on_ip(e, mps);
    e->len = 0;
}

/* ---- endpoints ---- */

static ssize_t ecm_out(Device *d, Endpoint *ep, const uint8_t *data, size_t len)
{
    Ecm *e = d->state;

    if (len > sizeof(e->frame) - e->len)
        return IO_STALL;
    memcpy(e->frame + e->len, data, len);
    e->len += len;
    if (len == 0 || len % ep->desc->mps)
        on_frame(e, ep->desc->mps);
    return (ssize_t)len;
}

static ssize_t ecm_in_avail(Device *d, Endpoint *ep)
{
    Ecm *e = d->state;

    if (ep->address == EP_EVENT)
        return e->told ? IO_NAK : 8;
    return echo_avail(&e->to_host);
}

static void ecm_in_take(Device *d, Endpoint *ep, uint8_t *buf, size_t n)
{
    static const uint8_t connected[8] = {0xa1, 0x00, 1}; /* NETWORK_CONNECTION */
    Ecm *e = d->state;

    if (ep->address == EP_EVENT) {
        memcpy(buf, connected, n);
        e->told++;
        return;
    }
    echo_take(&e->to_host, buf, n);
}

static bool ecm_command(Device *d, const char *verb, char *args, FILE *answer)
{
    Ecm *e = d->state;

    if (strcmp(verb, "state"))
        return false;
    fprintf(answer, "ok frames=%u pings=%u told=%u filter=%u", e->frames, e->pings, e->told,
            e->filter);
    return true;
}

const DeviceOps ecm_ops = {
    .kind = "ecm",
    .product_id = 0x0007,
    .speed = "high",
    .kernel_driver = true,
    .create = ecm_create,
    .destroy = ecm_destroy,
    .reset = ecm_reset,
    .control = ecm_control,
    .out = ecm_out,
    .in_avail = ecm_in_avail,
    .in_take = ecm_in_take,
    .command = ecm_command,
};
