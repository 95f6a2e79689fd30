/*
 * Conversations between URBDRC clients and us, replayed: what the client says comes from a file,
 * and what we send must be what the file says, byte by byte. The files are in transcripts/; some
 * are the sequences that the specification and other servers document, some were recorded.
 *
 * One command a line; a line that starts with a space continues the one before, "#" starts a
 * comment. N is a channel, 0 the control channel. Ids are aside: every MessageId, and RequestIds,
 * which are matched up: one in a "server" line stands for the one we chose, also in "client" lines.
 *
 *   core BUILD FLAGS      what the core data said, before everything else
 *   accept N  refuse N    the client answers our opening of a channel
 *   leave N               it closes the channel
 *   client N HEX          it sends this
 *   server N HEX          our next message is this
 *   quiet N  closed N     we have sent nothing more; we have closed the channel
 *   flavour NAME          what we took the client for
 *   config HEX            the configuration descriptor that "do N configure" and "alt" mean
 *   do N REQUEST          the guest wants something of the device that was announced on channel N
 *   refused N REQUEST     and is refused at once
 *   done N STATUS [LENGTH [HEX]]    the next completion, "I/O-error" in one word; for an
 * isochronous one HEX is the data pending N             there is no completion tick MS time passes
 *
 *   REQUEST: control SETUP [HEX], bulk EP LENGTH, bulk EP =HEX, interrupt as bulk, iso EP LEN,LEN
 *   [HEX], configure, unconfigure, alt INTERFACE ALT, halt EP, reset, cancel (the last request),
 *   retire
 */
#include "descriptor.h"
#include "urbdrc.h"
#include "urbdrc_pdu.h"

#include <glib.h>
#include <stdlib.h>
#include <string.h>

#include "fake_dvc.h"
#include "log.h"

enum { MAX_DEVICES = 8, MAX_WORDS = 8, MAX_PACKETS = 32, DATA_MAX = 1 << 16 };

typedef struct Done {
    uint32_t id;
    UsbStatus status;
    uint32_t length;
    GBytes *data;
} Done;

typedef struct Device {
    UsbSource *source;
    unsigned gone;
    GQueue done; /* Done */
    uint32_t last_id;
} Device;

typedef struct Player {
    const char *path;
    unsigned line;
    DvcManager *manager;
    Urbdrc *urbdrc;
    uint64_t now;
    unsigned channel; /* that the client is speaking on */
    Device devices[MAX_DEVICES];
    UsbDescriptors *descriptors;
    GHashTable *ids; /* RequestId in the file -> ours */
    UrbdrcScratch scratch;
} Player;

/* ---- the server's user ---- */

static void on_complete(void *user, const UsbCompletion *c)
{
    Device *d = user;
    Done *done = g_new0(Done, 1);

    *done = (Done){.id = c->id, .status = c->status, .length = c->length};
    done->data = g_bytes_new(c->data, c->data ? c->length : 0);
    g_queue_push_tail(&d->done, done);
}

static void on_gone(void *user, const char *why)
{
    Device *d = user;

    g_assert_nonnull(why);
    d->gone++;
    d->source = NULL;
}

static const UsbSink sink = {.complete = on_complete, .gone = on_gone};

static void on_device_added(void *user, UsbSource *source)
{
    Player *p = user;
    Device *d = &p->devices[p->channel];

    g_assert_null(d->source);
    d->source = source;
    usb_source_set_sink(source, &sink, d);
}

static const UrbdrcCallbacks callbacks = {.device_added = on_device_added};

/* ---- words ---- */

static void fail(const Player *p, const char *format, ...) G_GNUC_PRINTF(2, 3) G_GNUC_NORETURN;
static void fail(const Player *p, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    char *what = g_strdup_vprintf(format, args);
    va_end(args);
    g_error("%s:%u: %s", p->path, p->line, what);
    abort();
}

static GByteArray *unhex(const Player *p, const char *text)
{
    GByteArray *bytes = g_byte_array_new();
    int high = -1;

    for (; *text; text++) {
        if (g_ascii_isspace(*text))
            continue;
        int digit = g_ascii_xdigit_value(*text);
        if (digit < 0)
            fail(p, "'%c' is not hex", *text);
        if (high < 0) {
            high = digit;
        } else {
            const uint8_t byte = (uint8_t)(high << 4 | digit);
            g_byte_array_append(bytes, &byte, 1);
            high = -1;
        }
    }
    if (high >= 0)
        fail(p, "half a byte");
    return bytes;
}

static char *hex(const uint8_t *data, size_t len)
{
    GString *s = g_string_new(NULL);

    for (size_t i = 0; i < len; i++)
        g_string_append_printf(s, "%02x", data[i]);
    return g_string_free(s, FALSE);
}

static uint32_t number(const Player *p, const char *text, unsigned base)
{
    char *end = NULL;
    guint64 n = text ? g_ascii_strtoull(text, &end, base) : 0;

    if (!text || *end || end == text || n > UINT32_MAX)
        fail(p, "'%s' is not a number", text ? text : "");
    return (uint32_t)n;
}

static Device *device(Player *p, const char *channel)
{
    uint32_t n = number(p, channel, 10);

    if (n >= MAX_DEVICES || (!p->devices[n].source && !p->devices[n].gone))
        fail(p, "no device was announced on channel %u", n);
    return &p->devices[n];
}

static Dvc *channel(Player *p, const char *word)
{
    uint32_t n = number(p, word, 10);

    if (n >= fake_dvc_count(p->manager))
        fail(p, "channel %u was never opened", n);
    return fake_dvc_nth(p->manager, n);
}

/* ---- ids ---- */

#define MESSAGE_ID_AT 4u
#define FUNCTION_AT 8u
#define HEADER 12u

static uint32_t u32_at(const uint8_t *data, size_t at)
{
    return (uint32_t)data[at] | (uint32_t)data[at + 1] << 8 | (uint32_t)data[at + 2] << 16 |
           (uint32_t)data[at + 3] << 24;
}

static void put_u32(uint8_t *data, size_t at, uint32_t value)
{
    for (unsigned i = 0; i < 4; i++)
        data[at + i] = (uint8_t)(value >> (8 * i));
}

/* Where a request to a device has its RequestId, 0 if it has none. */
static size_t request_id_at(const uint8_t *data, size_t len)
{
    if (len < HEADER + 4)
        return 0;
    switch (u32_at(data, FUNCTION_AT)) {
    case 0x100: /* CANCEL_REQUEST; CAPS and CHANNEL_CREATED have other interfaces and lengths */
        return len == HEADER + 4 && u32_at(data, 0) != 0 ? HEADER : 0;
    case 0x102: /* IO_CONTROL */
        return len - 4;
    case 0x105: /* TRANSFER_IN_REQUEST: CbTsUrb, Size, URB_Function, RequestId */
    case 0x106:
        return len >= HEADER + 12 ? HEADER + 8 : 0;
    default:
        return 0;
    }
}

/* ---- commands ---- */

static void play_client(Player *p, char **words)
{
    GByteArray *bytes = unhex(p, words[2]);
    Dvc *dvc = channel(p, words[1]);

    p->channel = number(p, words[1], 10);
    /* A completion names the request by the file's id. */
    if (p->channel < MAX_DEVICES && p->devices[p->channel].source && bytes->len >= HEADER + 8) {
        const uint32_t id = u32_at(bytes->data, HEADER);
        void *ours;
        if (g_hash_table_lookup_extended(p->ids, GUINT_TO_POINTER(id), NULL, &ours))
            put_u32(bytes->data, HEADER, GPOINTER_TO_UINT(ours));
    }
    fake_dvc_receive(dvc, bytes->data, bytes->len);
    g_byte_array_unref(bytes);
}

static void play_server(Player *p, char **words)
{
    GByteArray *wanted = unhex(p, words[2]);
    size_t len;
    uint8_t *sent = fake_dvc_take(channel(p, words[1]), &len);

    if (!sent)
        fail(p, "we should have sent %s, and have sent nothing", words[2]);
    size_t at = request_id_at(sent, len);
    if (at && at == request_id_at(wanted->data, wanted->len)) {
        g_hash_table_insert(p->ids, GUINT_TO_POINTER(u32_at(wanted->data, at)),
                            GUINT_TO_POINTER(u32_at(sent, at)));
        put_u32(sent, at, u32_at(wanted->data, at));
    }
    if (len >= FUNCTION_AT && wanted->len >= FUNCTION_AT)
        put_u32(sent, MESSAGE_ID_AT, u32_at(wanted->data, MESSAGE_ID_AT));
    if (len != wanted->len || memcmp(sent, wanted->data, len) != 0) {
        char *text = hex(sent, len), *other = hex(wanted->data, wanted->len);
        fail(p, "we sent\n%s\nwhere we should have sent\n%s", text, other);
    }
    free(sent);
    g_byte_array_unref(wanted);
}

typedef struct Request {
    UsbRequest r;
    GByteArray *data;
    UsbIsoPacket packets[MAX_PACKETS];
} Request;

static void set_data(Request *q, GByteArray *data)
{
    q->data = data;
    q->r.data = data->data;
    q->r.length = data->len;
}

static void parse_control(Player *p, Request *q, char **words)
{
    GByteArray *s = unhex(p, words[0]);

    if (s->len != 8)
        fail(p, "a SETUP packet has 8 bytes");
    q->r.kind = USB_REQUEST_CONTROL;
    q->r.setup = (UsbSetup){s->data[0], s->data[1], (uint16_t)(s->data[2] | s->data[3] << 8),
                            (uint16_t)(s->data[4] | s->data[5] << 8),
                            (uint16_t)(s->data[6] | s->data[7] << 8)};
    q->r.endpoint = s->data[0] & 0x80;
    q->r.length = q->r.setup.length;
    if (words[1])
        set_data(q, unhex(p, words[1]));
    g_byte_array_unref(s);
}

static void parse_transfer(Player *p, Request *q, char **words)
{
    q->r.endpoint = (uint8_t)number(p, words[0], 16);
    if (words[1] && words[1][0] == '=')
        set_data(q, unhex(p, words[1] + 1));
    else
        q->r.length = number(p, words[1], 10);
}

static void parse_iso(Player *p, Request *q, char **words)
{
    char **lengths = g_strsplit(words[1], ",", MAX_PACKETS);

    q->r.kind = USB_REQUEST_ISO;
    q->r.endpoint = (uint8_t)number(p, words[0], 16);
    for (unsigned i = 0; lengths[i]; i++) {
        q->packets[q->r.n_packets++].length = number(p, lengths[i], 10);
        q->r.length += q->packets[i].length;
    }
    q->r.packets = q->packets;
    if (words[2])
        set_data(q, unhex(p, words[2]));
    g_strfreev(lengths);
}

static const UsbConfiguration *configuration(Player *p)
{
    if (!p->descriptors)
        fail(p, "there is no config");
    return &p->descriptors->configurations[p->descriptors->n_configurations - 1];
}

static void parse_request(Player *p, Request *q, char **words)
{
    const char *kind = words[0];

    if (strcmp(kind, "control") == 0 && words[1]) {
        parse_control(p, q, words + 1);
    } else if (strcmp(kind, "bulk") == 0 && words[1]) {
        q->r.kind = USB_REQUEST_BULK;
        parse_transfer(p, q, words + 1);
    } else if (strcmp(kind, "interrupt") == 0 && words[1]) {
        q->r.kind = USB_REQUEST_INTERRUPT;
        parse_transfer(p, q, words + 1);
    } else if (strcmp(kind, "iso") == 0 && words[1] && words[2]) {
        parse_iso(p, q, words + 1);
    } else if (strcmp(kind, "configure") == 0) {
        q->r.kind = USB_REQUEST_SELECT_CONFIGURATION;
        q->r.configuration = configuration(p);
    } else if (strcmp(kind, "unconfigure") == 0) {
        q->r.kind = USB_REQUEST_SELECT_CONFIGURATION;
    } else if (strcmp(kind, "alt") == 0 && words[1]) {
        q->r.kind = USB_REQUEST_SELECT_INTERFACE;
        q->r.configuration = configuration(p);
        q->r.alt = usb_configuration_alt(configuration(p), (uint8_t)number(p, words[1], 10),
                                         (uint8_t)number(p, words[2], 10));
    } else if (strcmp(kind, "halt") == 0) {
        q->r.kind = USB_REQUEST_CLEAR_HALT;
        q->r.endpoint = (uint8_t)number(p, words[1], 16);
    } else if (strcmp(kind, "reset") == 0) {
        q->r.kind = USB_REQUEST_RESET_PORT;
    } else {
        fail(p, "what is '%s'?", kind);
    }
}

static void play_do(Player *p, char **words, bool may)
{
    Device *d = device(p, words[1]);
    Request q = {0};

    if (!d->source)
        fail(p, "the device is gone");
    if (g_strcmp0(words[2], "cancel") == 0) {
        d->source->ops->cancel(d->source, d->last_id);
        return;
    }
    if (g_strcmp0(words[2], "retire") == 0) {
        d->source->ops->retire(d->source, "the policy says no");
        return;
    }
    parse_request(p, &q, words + 2);
    q.r.id = d->last_id = usb_source_next_id(d->source);
    if (d->source->ops->submit(d->source, &q.r) != may)
        fail(p, may ? "it was refused" : "it was not refused");
    if (q.data)
        g_byte_array_unref(q.data);
}

static void play_done(Player *p, char **words)
{
    Done *done = g_queue_pop_head(&device(p, words[1])->done);

    if (!done)
        fail(p, "nothing was completed");
    char *status = g_strdelimit(g_strdup(usb_status_name(done->status)), " ", '-');
    if (g_strcmp0(status, words[2]) != 0)
        fail(p, "the status is %s", status);
    g_free(status);
    if (words[3] && number(p, words[3], 10) != done->length)
        fail(p, "the length is %u", done->length);
    if (words[3] && words[4]) {
        GByteArray *wanted = unhex(p, words[4]);
        gsize len;
        const uint8_t *data = g_bytes_get_data(done->data, &len);
        if (len != wanted->len || memcmp(data, wanted->data, len) != 0)
            fail(p, "the data is %s", hex(data, len));
        g_byte_array_unref(wanted);
    }
    g_bytes_unref(done->data);
    g_free(done);
}

static void play_config(Player *p, char **words)
{
    static const uint8_t device_descriptor[18] = {18, 1, 0,    2,    0xff, 0, 0, 64, 0x09,
                                                  18, 3, 0x00, 0x00, 1,    0, 0, 0,  1};
    GByteArray *raw = unhex(p, words[1]);
    char why[128];

    usb_descriptors_unref(p->descriptors);
    p->descriptors =
        usb_descriptors_new(device_descriptor, sizeof(device_descriptor), why, sizeof(why));
    if (!p->descriptors ||
        !usb_descriptors_add_configuration(p->descriptors, raw->data, raw->len, why, sizeof(why)))
        fail(p, "%s", why);
    g_byte_array_unref(raw);
}

static void play(Player *p, char **words)
{
    const char *verb = words[0];
    const char *evidence;

    if (strcmp(verb, "core") == 0) {
        urbdrc_set_client(p->urbdrc, number(p, words[1], 10), number(p, words[2], 16));
    } else if (strcmp(verb, "accept") == 0) {
        fake_dvc_accept(channel(p, words[1]));
    } else if (strcmp(verb, "refuse") == 0) {
        fake_dvc_end(channel(p, words[1]), DVC_CLOSED_REFUSED);
    } else if (strcmp(verb, "leave") == 0) {
        fake_dvc_end(channel(p, words[1]), DVC_CLOSED_BY_CLIENT);
    } else if (strcmp(verb, "client") == 0) {
        play_client(p, words);
    } else if (strcmp(verb, "server") == 0) {
        play_server(p, words);
    } else if (strcmp(verb, "quiet") == 0) {
        if (fake_dvc_pending(channel(p, words[1])) > 0)
            fail(p, "we have sent more");
    } else if (strcmp(verb, "closed") == 0) {
        if (!fake_dvc_closed_by_server(channel(p, words[1])))
            fail(p, "we have not closed the channel");
    } else if (strcmp(verb, "flavour") == 0) {
        if (g_strcmp0(urbdrc_flavour(p->urbdrc, &evidence), words[1]) != 0)
            fail(p, "it was taken for %s", urbdrc_flavour(p->urbdrc, &evidence));
    } else if (strcmp(verb, "config") == 0) {
        play_config(p, words);
    } else if (strcmp(verb, "do") == 0) {
        play_do(p, words, true);
    } else if (strcmp(verb, "refused") == 0) {
        play_do(p, words, false);
    } else if (strcmp(verb, "done") == 0) {
        play_done(p, words);
    } else if (strcmp(verb, "pending") == 0) {
        if (!g_queue_is_empty(&device(p, words[1])->done))
            fail(p, "there is a completion");
    } else if (strcmp(verb, "tick") == 0) {
        urbdrc_tick(p->urbdrc, p->now);
        p->now += (uint64_t)number(p, words[1], 10) * 1000u;
        urbdrc_tick(p->urbdrc, p->now);
    } else {
        fail(p, "what is '%s'?", verb);
    }
}

/* How many words come before the rest of the line, which may have spaces in it (hex). */
static int plain_words(const char *line)
{
    if (g_str_has_prefix(line, "client ") || g_str_has_prefix(line, "server "))
        return 3;
    return g_str_has_prefix(line, "config ") ? 2 : MAX_WORDS;
}

static void play_line(Player *p, GString *line)
{
    char **words;

    if (line->len == 0)
        return;
    words = g_strsplit(g_strstrip(line->str), " ", plain_words(line->str));
    unsigned n = g_strv_length(words);
    words = g_renew(char *, words, MAX_WORDS + 1); /* so that what is missing is NULL */
    for (unsigned i = n; i <= MAX_WORDS; i++)
        words[i] = NULL;
    if (!words[1])
        fail(p, "words are missing");
    play(p, words);
    g_strfreev(words);
    g_string_truncate(line, 0);
}

static void end_devices(Player *p)
{
    for (unsigned i = 0; i < MAX_DEVICES; i++) {
        if (!g_queue_is_empty(&p->devices[i].done))
            fail(p, "a completion on channel %u that the file does not know", i);
        if (p->devices[i].source || p->devices[i].gone > 1)
            fail(p, "the end of channel %u was not told once", i);
    }
}

static void test_transcript(gconstpointer user)
{
    Player p = {.path = user, .now = 1000000000u};
    GString *command = g_string_new(NULL);
    char *text;
    GError *error = NULL;

    if (!g_file_get_contents(p.path, &text, NULL, &error))
        g_error("%s", error->message);
    p.manager = fake_dvc_manager_new();
    p.urbdrc = urbdrc_new(p.manager, "transcript", p.now, &callbacks, &p);
    p.ids = g_hash_table_new(NULL, NULL);
    char **lines = g_strsplit(text, "\n", -1);
    unsigned at = 0;
    for (char **line = lines; *line; line++) {
        at++;
        char *comment = strchr(*line, '#');
        if (comment)
            *comment = 0;
        g_strchomp(*line);
        if (**line == 0)
            continue;
        if (!g_ascii_isspace(**line)) {
            play_line(&p, command);
            p.line = at;
        }
        g_string_append(command, g_ascii_isspace(**line) ? g_strchug(*line) : *line);
    }
    play_line(&p, command);
    for (size_t i = 0; i < fake_dvc_count(p.manager); i++)
        if (fake_dvc_pending(fake_dvc_nth(p.manager, i)) > 0)
            fail(&p, "at the end we had sent more on channel %zu", i);
    urbdrc_free(p.urbdrc);
    end_devices(&p);
    fake_dvc_manager_free(p.manager);
    usb_descriptors_unref(p.descriptors);
    g_hash_table_destroy(p.ids);
    g_string_free(command, TRUE);
    g_strfreev(lines);
    g_free(text);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    log_set_level(LOG_LEVEL_ERROR);
    for (int i = 1; i < argc; i++) {
        char *name = g_path_get_basename(argv[i]);
        char *path = g_strconcat("/transcript/", name, NULL);
        g_test_add_data_func(path, argv[i], test_transcript);
        g_free(path);
        g_free(name);
    }
    g_assert_cmpint(argc, >, 1);
    return g_test_run();
}
