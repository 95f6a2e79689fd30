/*
 * The whole URBDRC server against any client and any order of events. The input is a script of
 * records, each an opcode byte, a target byte and operands:
 *
 *      0 channel            accept            4 device kind endpoint len16   submit
 *      1 channel len16 ...  receive           5 device id                    cancel
 *      2 channel            close             6 device                       retire
 *      3 seconds            let time pass
 *
 * What must hold: a request that was accepted is completed at most once and never after .gone;
 * after its cancellation only with data that a device had sent; no completion has more bytes than
 * were asked for; every source that was announced is gone exactly once in the end; no channel leaks
 * (fake_dvc asserts).
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "bytes.h"
#include "fake_dvc.h"
#include "log.h"
#include "urbdrc.h"

#define MAX_SOURCES 64u
#define MAX_IDS 256u

typedef struct Fuzzed {
    UsbSource *source; /* NULL once gone */
    bool live[MAX_IDS], cancelled[MAX_IDS];
    uint32_t length[MAX_IDS];
    uint32_t next_id;
} Fuzzed;

static Fuzzed sources[MAX_SOURCES];
static unsigned n_sources;
static const uint8_t payload[65536];

static uint8_t config_bytes[] = {9, 2, 9, 0, 1, 1, 0, 0x80, 50};
static UsbAltSetting alts[] = {
    {.n_endpoints = 3,
     .endpoints = {{.address = 0x81, .type = USB_ENDPOINT_BULK, .max_packet_raw = 512},
                   {.address = 0x02, .type = USB_ENDPOINT_BULK, .max_packet_raw = 512},
                   {.address = 0x83, .type = USB_ENDPOINT_ISO, .max_packet_raw = 64}}},
};
static const UsbConfiguration configuration = {.value = 1,
                                               .n_interfaces = 1,
                                               .n_alts = 1,
                                               .alts = alts,
                                               .raw_len = sizeof(config_bytes),
                                               .raw = config_bytes};

static void complete(void *user, const UsbCompletion *c)
{
    Fuzzed *f = user;

    assert(f->source && c->id < MAX_IDS && (f->live[c->id] || f->cancelled[c->id]));
    assert(c->length <= f->length[c->id]);
    assert(f->live[c->id] || (c->data && c->length > 0 && c->n_packets == 0));
    f->live[c->id] = f->cancelled[c->id] = false;
    uint64_t sum = 0;
    for (uint32_t i = 0; i < c->n_packets; i++)
        sum += c->packets[i].length;
    if (c->data && c->length > 0) {
        volatile uint8_t touch = (uint8_t)(c->data[0] + c->data[c->length - 1]);
        (void)touch;
        assert(c->n_packets == 0 || sum <= c->length);
    }
}

static void gone(void *user, const char *why)
{
    Fuzzed *f = user;

    assert(f->source && strlen(why) > 0);
    for (uint32_t id = 0; id < MAX_IDS; id++)
        if (f->live[id])
            f->source->ops->cancel(f->source, id);
    f->source = NULL;
}

static const UsbSink sink = {.complete = complete, .gone = gone};

static void device_added(void *user, UsbSource *source)
{
    (void)user;
    if (n_sources == MAX_SOURCES)
        return;
    Fuzzed *f = &sources[n_sources++];
    *f = (Fuzzed){.source = source, .next_id = 1};
    usb_source_set_sink(source, &sink, f);
}

static void submit(Fuzzed *f, uint8_t kind, uint8_t endpoint, uint16_t length)
{
    UsbIsoPacket packets[4];
    UsbRequest r = {.kind = (UsbRequestKind)(kind & 7),
                    .endpoint = endpoint,
                    .length = length,
                    .configuration = kind & 0x10 ? NULL : &configuration,
                    .alt = alts,
                    .n_packets = 4,
                    .packets = packets};

    /* CLEAR_HALT takes ids of its own from the same counter. */
    f->next_id = r.id = usb_source_next_id(f->source);
    if (r.id >= MAX_IDS)
        return;
    if (r.kind == USB_REQUEST_CONTROL)
        r.setup = (UsbSetup){endpoint, (uint8_t)(kind >> 3), 0x100, 0, length};
    if (r.kind == USB_REQUEST_ISO)
        r.length = 4 * (r.length / 4);
    for (int i = 0; i < 4; i++)
        packets[i] = (UsbIsoPacket){.length = r.length / 4};
    r.data = (endpoint & 0x80) ? NULL : payload;
    if (r.kind >= USB_REQUEST_SELECT_CONFIGURATION)
        r.length = 0;
    f->length[r.id] = r.length;
    f->live[r.id] = true; /* a completion may not come before, but the flag must be there */
    if (!f->source->ops->submit(f->source, &r))
        f->live[r.id] = false;
}

static void drain(DvcManager *manager)
{
    for (size_t i = 0; i < fake_dvc_count(manager); i++) {
        size_t len;
        uint8_t *message;
        while ((message = fake_dvc_take(fake_dvc_nth(manager, i), &len)))
            free(message);
    }
}

static void step(Reader *r, DvcManager *manager, Urbdrc *urbdrc, uint64_t *now)
{
    uint8_t op = reader_u8(r), target = reader_u8(r);
    size_t n = fake_dvc_count(manager);
    Dvc *dvc = n ? fake_dvc_nth(manager, target % n) : NULL;
    Fuzzed *f = n_sources ? &sources[target % n_sources] : NULL;

    switch (op % 7) {
    case 0:
        if (dvc && !fake_dvc_dead(dvc) && !dvc_is_open(dvc))
            fake_dvc_accept(dvc);
        break;
    case 1: {
        size_t len = reader_u16(r);
        if (len > reader_left(r))
            len = reader_left(r);
        const uint8_t *data = reader_bytes(r, len);
        if (dvc && data)
            fake_dvc_receive(dvc, data, len);
        break;
    }
    case 2:
        if (dvc)
            fake_dvc_end(dvc, (DvcCloseReason)(reader_u8(r) % 4));
        break;
    case 3:
        urbdrc_tick(urbdrc, *now);
        *now += target * 1000000ull;
        urbdrc_tick(urbdrc, *now);
        break;
    case 4: {
        uint8_t kind = reader_u8(r), endpoint = reader_u8(r);
        uint16_t length = reader_u16(r);
        if (f && f->source)
            submit(f, kind, endpoint, length);
        break;
    }
    case 5: {
        uint8_t id = reader_u8(r);
        if (f && f->source && f->live[id]) {
            f->live[id] = false;
            f->cancelled[id] = true;
            f->source->ops->cancel(f->source, id);
        }
        break;
    }
    case 6:
        if (f && f->source)
            f->source->ops->retire(f->source, "fuzzed away");
        break;
    }
    drain(manager);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const UrbdrcCallbacks callbacks = {.device_added = device_added};
    uint64_t now = 1;
    Reader r;

    log_set_level(LOG_LEVEL_ERROR);
    n_sources = 0;
    DvcManager *manager = fake_dvc_manager_new();
    Urbdrc *urbdrc = urbdrc_new(manager, "fuzzer", now, &callbacks, NULL);
    reader_init(&r, data, size);
    while (reader_left(&r) > 0)
        step(&r, manager, urbdrc, &now);
    urbdrc_free(urbdrc);
    for (unsigned i = 0; i < n_sources; i++)
        assert(!sources[i].source);
    fake_dvc_manager_free(manager);
    return 0;
}
