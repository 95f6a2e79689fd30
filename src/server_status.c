/*
 * `qrdp status`: what is listening, who is connected and what they see, which USB devices are
 * where. One walk over the Server fills a JSON tree; the text is made from the same rows.
 */
#include <json-glib/json-glib.h>
#include <malloc.h>

#include "sandbox.h"
#include "server_priv.h"
#include "video.h"

#define MAX_USB_ROWS 128u

static const char *vm_state(const Server *server)
{
    if (!server->vm)
        return "not attached";
    return server->vm_ready ? "attached" : "waiting";
}

static char *since_text(gint64 real_us)
{
    GDateTime *t = g_date_time_new_from_unix_local(real_us / G_USEC_PER_SEC);
    char *text = g_date_time_format(t, "%Y-%m-%dT%H:%M:%S%z");
    g_date_time_unref(t);
    return text;
}

static gint compare_ids(gconstpointer a, gconstpointer b)
{
    const ServerPeer *x = *(ServerPeer *const *)a, *y = *(ServerPeer *const *)b;
    return x->id < y->id ? -1 : x->id > y->id;
}

static GPtrArray *sorted_peers(Server *server)
{
    GPtrArray *peers = g_ptr_array_new();
    GHashTableIter iter;
    gpointer value;
    g_hash_table_iter_init(&iter, server->peers);
    while (g_hash_table_iter_next(&iter, NULL, &value))
        g_ptr_array_add(peers, value);
    g_ptr_array_sort(peers, compare_ids);
    return peers;
}

static const char *peer_state(const ServerPeer *p)
{
    if (p->stopping)
        return "leaving";
    if (p->active)
        return "active";
    return p->logged_in ? "logged in" : "connecting";
}

static void set_string(JsonBuilder *b, const char *name, const char *value)
{
    json_builder_set_member_name(b, name);
    json_builder_add_string_value(b, value ? value : "");
}

static void set_int(JsonBuilder *b, const char *name, gint64 value)
{
    json_builder_set_member_name(b, name);
    json_builder_add_int_value(b, value);
}

/* "buckets" holds [longest duration, count] pairs, so that programs can take two readings and look
 * at what lies between them. */
static void json_latency(JsonBuilder *b, const char *name, const Latency *l)
{
    json_builder_set_member_name(b, name);
    json_builder_begin_object(b);
    set_int(b, "p50", (gint64)latency_permille(l, 500));
    set_int(b, "p99", (gint64)latency_permille(l, 990));
    set_int(b, "max", (gint64)l->max_us);
    set_int(b, "count", (gint64)l->count);
    json_builder_set_member_name(b, "buckets");
    json_builder_begin_array(b);
    for (unsigned i = 0; i < LATENCY_BUCKETS; i++) {
        if (l->buckets[i] == 0)
            continue;
        json_builder_begin_array(b);
        json_builder_add_int_value(b, (gint64)MIN(latency_bucket_end(i), (uint64_t)G_MAXINT64));
        json_builder_add_int_value(b, l->buckets[i]);
        json_builder_end_array(b);
    }
    json_builder_end_array(b);
    json_builder_end_object(b);
}

static bool shares(const ServerPeer *a, const ServerPeer *b)
{
    return a->member && b->member && stream_members_share(a->member, b->member);
}

static void json_vm(Server *server, JsonBuilder *b)
{
    uint32_t width = 0, height = 0;
    if (server->vm)
        framebuffer_size(vm_framebuffer(server->vm), &width, &height);
    json_builder_set_member_name(b, "vm");
    json_builder_begin_object(b);
    set_string(b, "name", server->vm ? vm_name(server->vm) : "");
    set_string(b, "state", vm_state(server));
    set_int(b, "width", width);
    set_int(b, "height", height);
    json_builder_end_object(b);
}

static void set_bool(JsonBuilder *b, const char *name, bool value)
{
    json_builder_set_member_name(b, name);
    json_builder_add_boolean_value(b, value);
}

static void json_network(JsonBuilder *b, const PeerDisplayStatus *d)
{
    const PeerLinkStatus *n = &d->network;

    set_int(b, "link_bytes_per_s", (gint64)d->rate_bps);
    set_bool(b, "auto_detect", n->detects);
    if (!n->detects)
        return;
    set_int(b, "network_round_trip_us", n->rtt_us);
    set_int(b, "network_least_round_trip_us", n->base_rtt_us);
    set_int(b, "network_bytes_per_s", (gint64)n->rate_bps);
    set_int(b, "decoding_us", (gint64)d->decoding_us);
    set_int(b, "probes", (gint64)n->probes);
    set_int(b, "probes_answered", (gint64)n->answers);
    set_int(b, "probes_stray", (gint64)n->strays);
}

/* null until it is decided how the client is shown pictures. */
static void json_display(JsonBuilder *b, const PeerDisplayStatus *d)
{
    json_builder_set_member_name(b, "display");
    if (!d->codec) {
        json_builder_add_null_value(b);
        return;
    }
    json_builder_begin_object(b);
    set_string(b, "codec", d->codec);
    if (d->version) {
        char version[16];
        g_snprintf(version, sizeof(version), "0x%08x", d->version);
        set_string(b, "gfx_version", version);
    }
    set_int(b, "width", d->width);
    set_int(b, "height", d->height);
    set_int(b, "bits_per_pixel", d->bits);
    set_bool(b, "suppressed", d->suppressed);
    set_int(b, "frames", (gint64)d->frames);
    set_int(b, "bytes", (gint64)d->bytes);
    if (d->plain_bytes)
        set_int(b, "bytes_uncompressed", (gint64)d->plain_bytes);
    set_int(b, "encoding_us", (gint64)d->encode_us);
    if (d->window) {
        set_bool(b, "acknowledges", !d->silent);
        set_int(b, "unacknowledged", d->unacknowledged);
        set_int(b, "window", d->window);
        set_int(b, "round_trip_us", (gint64)d->rtt_us);
    }
    json_network(b, d);
    if (d->film) {
        set_string(b, "film_codec", d->film);
        set_int(b, "film_pictures", (gint64)d->film_pictures);
        set_int(b, "film_limit_bytes", d->film_limit);
        set_bool(b, "exact", !d->lossy);
    }
    json_builder_end_object(b);
}

/* "shares_with": the clients that get the same frames. */
static void json_shares(const GPtrArray *peers, const ServerPeer *p, JsonBuilder *b)
{
    json_builder_set_member_name(b, "shares_with");
    json_builder_begin_array(b);
    for (guint i = 0; i < peers->len; i++) {
        const ServerPeer *other = peers->pdata[i];
        if (other != p && shares(p, other))
            json_builder_add_int_value(b, other->id);
    }
    json_builder_end_array(b);
}

static void json_peers(Server *server, JsonBuilder *b)
{
    GPtrArray *peers = sorted_peers(server);
    json_builder_set_member_name(b, "clients");
    json_builder_begin_array(b);
    for (guint i = 0; i < peers->len; i++) {
        const ServerPeer *p = peers->pdata[i];
        char *since = since_text(p->since_us);
        json_builder_begin_object(b);
        set_int(b, "id", p->id);
        set_string(b, "user", p->user);
        set_string(b, "address", p->address);
        set_string(b, "state", peer_state(p));
        set_string(b, "since", since);
        json_display(b, &p->display);
        json_shares(peers, p, b);
        if (p->flavour) {
            set_string(b, "usb_flavour", p->flavour->name);
            set_string(b, "usb_evidence", p->flavour->evidence);
        }
        if (p->usb) {
            json_builder_set_member_name(b, "usb_latency_us");
            json_builder_begin_object(b);
            json_latency(b, "out", &p->usb->out);
            json_latency(b, "in", &p->usb->in);
            json_builder_end_object(b);
        }
        json_builder_end_object(b);
        g_free(since);
    }
    json_builder_end_array(b);
    g_ptr_array_unref(peers);
}

static void json_stream(JsonBuilder *b, const char *name, const UsbIsoStats *s)
{
    if (s->packets == 0)
        return;
    json_builder_set_member_name(b, name);
    json_builder_begin_object(b);
    set_int(b, "packets", (gint64)s->packets);
    set_int(b, "delivered", (gint64)s->delivered);
    set_int(b, "failed", (gint64)s->failed);
    set_int(b, "dropped", (gint64)s->dropped);
    set_int(b, "gaps_guest", s->gaps_guest);
    set_int(b, "gaps_own", s->gaps_own);
    set_int(b, "gaps_host", s->gaps_host);
    set_int(b, "gaps_network", s->gaps_network);
    set_int(b, "gaps_limit", s->gaps_limit);
    set_int(b, "lead_us", s->lead_us);
    json_builder_end_object(b);
}

static void text_stream(GString *out, guint number, const char *name, const UsbIsoStats *s)
{
    const struct {
        const char *whose;
        guint32 count;
    } gaps[] = {{"guest", s->gaps_guest},
                {"network or client", s->gaps_network},
                {"no processor here", s->gaps_host},
                {"qrdp", s->gaps_own},
                {"too many requests", s->gaps_limit}};
    const char *separator = "; gaps: ";

    if (s->packets == 0)
        return;
    g_string_append_printf(
        out, "usb %u:     %s %" G_GUINT64_FORMAT " packets, %" G_GUINT64_FORMAT " lost", number,
        name, s->packets, s->failed + s->dropped);
    for (size_t i = 0; i < G_N_ELEMENTS(gaps); i++) {
        if (gaps[i].count == 0)
            continue;
        g_string_append_printf(out, "%s%u (%s)", separator, gaps[i].count, gaps[i].whose);
        separator = ", ";
    }
    g_string_append_c(out, '\n');
}

static void json_usb(Server *server, JsonBuilder *b)
{
    UsbSlotsRow rows[MAX_USB_ROWS];
    guint free_slots = 0, total = 0, n = 0;

    if (server->usb) {
        usb_slots_count(server->usb, &free_slots, &total);
        n = usb_slots_rows(server->usb, rows, MAX_USB_ROWS);
    }
    json_builder_set_member_name(b, "usb");
    json_builder_begin_object(b);
    set_int(b, "slots", total);
    set_int(b, "free", free_slots);
    json_builder_set_member_name(b, "devices");
    json_builder_begin_array(b);
    for (guint i = 0; i < n; i++) {
        json_builder_begin_object(b);
        set_int(b, "number", rows[i].number);
        set_int(b, "client", rows[i].peer_id);
        set_string(b, "device", rows[i].device);
        set_string(b, "from", rows[i].label);
        set_string(b, "slot", rows[i].slot);
        set_string(b, "state", rows[i].state);
        set_string(b, "why", rows[i].why);
        if (rows[i].figures.round_trip_us > 0)
            set_int(b, "round_trip_us", rows[i].figures.round_trip_us);
        json_stream(b, "iso_out", &rows[i].figures.iso_out);
        json_stream(b, "iso_in", &rows[i].figures.iso_in);
        json_builder_end_object(b);
    }
    json_builder_end_array(b);
    json_builder_end_object(b);
}

/* Of sanitizers, whose malloc it is in a build with one. */
__attribute__((weak)) size_t __sanitizer_get_current_allocated_bytes(void);

/* Bytes that are allocated. Unlike resident memory that is exact, also in a build with sanitizers:
 * the tests compare it before and after whatever has gone wrong. */
static gint64 heap_bytes(void)
{
    if (__sanitizer_get_current_allocated_bytes)
        return (gint64)__sanitizer_get_current_allocated_bytes();
    struct mallinfo2 info = mallinfo2();
    return (gint64)(info.uordblks + info.hblkhd);
}

static char *status_json(Server *server)
{
    JsonBuilder *b = json_builder_new();
    json_builder_begin_object(b);
    set_string(b, "version", QRDP_VERSION);
    set_string(b, "sandbox", sandbox_text());
    set_string(b, "h264", video_text());
    set_int(b, "heap_bytes", heap_bytes());
    json_vm(server, b);
    json_builder_set_member_name(b, "listening");
    json_builder_begin_array(b);
    for (unsigned i = 0; server_address(server, i); i++)
        json_builder_add_string_value(b, server_address(server, i));
    json_builder_end_array(b);
    set_string(b, "certificate_sha256", cert_fingerprint(server->cert));
    json_peers(server, b);
    json_usb(server, b);
    json_builder_end_object(b);

    JsonNode *root = json_builder_get_root(b);
    char *text = json_to_string(root, TRUE);
    char *line = g_strconcat(text, "\n", NULL);
    json_node_unref(root);
    g_object_unref(b);
    g_free(text);
    return line;
}

static void text_delay(GString *out, const char *name, const Latency *l, const char *where)
{
    if (l->count == 0)
        return;
    g_string_append_printf(out,
                           "  %swaits %" G_GUINT64_FORMAT
                           " us inside qrdp (1 in 100: %" G_GUINT64_FORMAT " us) on its way %s\n",
                           name, latency_permille(l, 500), latency_permille(l, 990), where);
}

static void text_network(const PeerDisplayStatus *d, GString *out)
{
    const PeerLinkStatus *n = &d->network;

    if (n->probes == 0)
        return;
    if (n->rtt_us == 0) {
        g_string_append(out, "  network:   the client has not answered the first question\n");
        return;
    }
    g_string_append_printf(out, "  network:   %.1f ms round trip, %.1f at least",
                           n->rtt_us / 1000.0, n->base_rtt_us / 1000.0);
    if (n->rate_bps > 0) {
        char *rate = g_format_size(n->rate_bps);
        g_string_append_printf(out, ", %s a second", rate);
        g_free(rate);
    }
    if (d->decoding_us > 0)
        g_string_append_printf(out, "; %.1f ms of a frame's are the client's own",
                               (double)d->decoding_us / 1000);
    g_string_append_c(out, '\n');
}

static void text_display(GString *out, const PeerDisplayStatus *d)
{
    if (!d->codec) {
        g_string_append(out, "  screen:    not shown yet\n");
        return;
    }
    char *sent = g_format_size(d->bytes);
    g_string_append_printf(out, "  screen:    %ux%u by %s%s\n", d->width, d->height, d->codec,
                           d->suppressed ? ", paused because its window is not visible" : "");
    g_string_append_printf(out, "  sent:      %" G_GUINT64_FORMAT " frames, %s", d->frames, sent);
    if (d->plain_bytes) {
        char *plain = g_format_size(d->plain_bytes);
        g_string_append_printf(out, " (%s before compression)", plain);
        g_free(plain);
    }
    g_string_append_c(out, '\n');
    g_string_append_printf(out, "  frame:     %.1f ms to encode", (double)d->encode_us / 1000);
    if (d->window && d->silent)
        g_string_append(out, ", the client acknowledges none");
    else if (d->window)
        g_string_append_printf(out,
                               ", %.1f ms until the client has it, %u of at most %u on the way",
                               (double)d->rtt_us / 1000, d->unacknowledged, d->window);
    g_string_append_c(out, '\n');
    if (d->rate_bps > 0) {
        char *rate = g_format_size(d->rate_bps);
        g_string_append_printf(out, "  link:      takes %s a second\n", rate);
        g_free(rate);
    }
    text_network(d, out);
    if (d->film_pictures > 0) {
        g_string_append_printf(out, "  film:      %" G_GUINT64_FORMAT " pictures as %s",
                               d->film_pictures, d->film);
        if (d->film_limit > 0)
            g_string_append_printf(out, ", %u bytes each for the link's sake", d->film_limit);
        g_string_append(out, d->lossy ? ", not shown exactly yet\n" : "\n");
    }
    g_free(sent);
}

static void text_latency(const UsbLatencies *l, GString *out)
{
    text_delay(out, "usb out:   ", &l->out, "to the client");
    text_delay(out, "usb in:    ", &l->in, "to the guest");
}

static void text_shares(const GPtrArray *peers, const ServerPeer *p, GString *out)
{
    const char *separator = "  shared:    its pictures are made once, for it and client ";

    for (guint i = 0; i < peers->len; i++) {
        const ServerPeer *other = peers->pdata[i];
        if (other == p || !shares(p, other))
            continue;
        g_string_append_printf(out, "%s%u", separator, other->id);
        separator = ", ";
    }
    if (*separator == ',')
        g_string_append_c(out, '\n');
}

static void text_peers(Server *server, GString *out)
{
    GPtrArray *peers = sorted_peers(server);
    if (peers->len == 0)
        g_string_append(out, "clients:   none\n");
    for (guint i = 0; i < peers->len; i++) {
        const ServerPeer *p = peers->pdata[i];
        char *since = since_text(p->since_us);
        g_string_append_printf(out, "client %u:  %s, %s since %s\n", p->id,
                               p->user ? p->user : p->address, peer_state(p), since);
        text_display(out, &p->display);
        text_shares(peers, p, out);
        if (p->flavour)
            g_string_append_printf(out, "  usb:       like %s\n", p->flavour->name);
        if (p->usb)
            text_latency(p->usb, out);
        g_free(since);
    }
    g_ptr_array_unref(peers);
}

static void text_usb(Server *server, GString *out)
{
    UsbSlotsRow rows[MAX_USB_ROWS];
    guint free_slots = 0, total = 0;

    if (!server->usb)
        return;
    usb_slots_count(server->usb, &free_slots, &total);
    g_string_append_printf(out, "usb:       %u of %u slots free%s\n", free_slots, total,
                           usb_slots_can_grow(server->usb) ? "; more are added on demand" : "");
    guint n = usb_slots_rows(server->usb, rows, MAX_USB_ROWS);
    for (guint i = 0; i < n; i++) {
        const UsbSlotsRow *r = &rows[i];
        g_string_append_printf(out, "usb %u:     %s from %s: %s%s%s%s%s\n", r->number, r->device,
                               r->label, r->state, *r->slot ? " at " : "", r->slot,
                               *r->why ? ", " : "", r->why);
        text_stream(out, r->number, "plays", &r->figures.iso_out);
        text_stream(out, r->number, "records", &r->figures.iso_in);
    }
}

static void text_vm(Server *server, GString *out)
{
    uint32_t width = 0, height = 0;

    if (!server->vm_ready) {
        char *waiting = config_waiting_text(server->config);
        g_string_append_printf(out, "vm:        %s\n", waiting);
        g_free(waiting);
        return;
    }
    framebuffer_size(vm_framebuffer(server->vm), &width, &height);
    g_string_append_printf(out, "vm:        \"%s\" attached, screen %ux%u\n", vm_name(server->vm),
                           width, height);
}

char *server_status(Server *server, bool json)
{
    if (json)
        return status_json(server);

    GString *out = g_string_new(NULL);
    text_vm(server, out);
    for (unsigned i = 0; server_address(server, i); i++)
        g_string_append_printf(out, "listening: %s\n", server_address(server, i));
    g_string_append_printf(out, "TLS:       certificate SHA-256 %s\n",
                           cert_fingerprint(server->cert));
    g_string_append_printf(out, "sandbox:   %s\n", sandbox_text());
    g_string_append_printf(out, "H.264:     %s\n", video_text());
    text_peers(server, out);
    text_usb(server, out);
    return g_string_free(out, FALSE);
}
