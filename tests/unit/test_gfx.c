/*
 * The graphics channel against a scripted client: nothing before the confirmation, capabilities
 * again at any time, slices, pacing, and every way to lose the channel.
 */
#include "gfx.h"

#include <glib.h>
#include <string.h>

#include "fake_dvc.h"
#include "unzgfx.h"

typedef struct Rig {
    DvcManager *manager;
    Gfx *gfx;
    Dvc *dvc;
    Unzgfx *unzgfx;
    GfxPacker packer;
    uint16_t surface;
    uint32_t frame;
    uint8_t clear_sequence;
    unsigned ready, slots, interrupts, unavailable;
    char why[128];
    bool free_in_callback;
} Rig;

static uint64_t clock_us;

static uint64_t now(void)
{
    return clock_us;
}

static void on_ready(void *user)
{
    Rig *rig = user;
    rig->ready++;
    if (rig->free_in_callback)
        g_clear_pointer(&rig->gfx, gfx_free);
}

static void on_interrupt(void *user)
{
    ((Rig *)user)->interrupts++;
}

static void on_slot(void *user)
{
    ((Rig *)user)->slots++;
}

static void on_unavailable(void *user, const char *why)
{
    Rig *rig = user;
    rig->unavailable++;
    g_strlcpy(rig->why, why, sizeof(rig->why));
    g_clear_pointer(&rig->gfx, gfx_free);
}

static const GfxCallbacks callbacks = {on_ready, on_interrupt, on_slot, on_unavailable};

static void rig_init(Rig *rig)
{
    *rig = (Rig){0};
    clock_us = 1000000;
    rig->manager = fake_dvc_manager_new();
    rig->unzgfx = unzgfx_new();
    gfx_packer_init(&rig->packer);
    rig->gfx = gfx_new(rig->manager, "test", now, &callbacks, rig);
    g_assert_nonnull(rig->gfx);
    rig->dvc = fake_dvc_nth(rig->manager, 0);
    g_assert_cmpstr(fake_dvc_name(rig->dvc), ==, "Microsoft::Windows::RDS::Graphics");
    g_assert_cmpint(fake_dvc_priority(rig->dvc), ==, DVC_BULK);
}

static void rig_clear(Rig *rig)
{
    gfx_free(rig->gfx);
    fake_dvc_manager_free(rig->manager);
    unzgfx_free(rig->unzgfx);
    gfx_packer_clear(&rig->packer);
}

static void advertise(Rig *rig, uint32_t version, uint32_t flags)
{
    Writer w;

    writer_init(&w, 256);
    writer_u16(&w, GFX_CAPSADVERTISE);
    writer_u16(&w, 0);
    writer_u32(&w, 8 + 2 + 24);
    writer_u16(&w, 2);
    writer_u32(&w, GFX_VERSION_8);
    writer_u32(&w, 4);
    writer_u32(&w, 0);
    writer_u32(&w, version);
    writer_u32(&w, 4);
    writer_u32(&w, flags);
    fake_dvc_receive(rig->dvc, w.data, w.len);
    writer_clear(&w);
}

static void acknowledge(Rig *rig, uint32_t depth, uint32_t frame)
{
    Writer w;

    writer_init(&w, 64);
    writer_u16(&w, GFX_FRAMEACKNOWLEDGE);
    writer_u16(&w, 0);
    writer_u32(&w, 20);
    writer_u32(&w, depth);
    writer_u32(&w, frame);
    writer_u32(&w, frame);
    fake_dvc_receive(rig->dvc, w.data, w.len);
    writer_clear(&w);
}

/* Takes the next message out of its segments; false if there is none. */
static bool take_message(Rig *rig, Writer *pdus)
{
    size_t len;
    uint8_t *message = fake_dvc_take(rig->dvc, &len);

    writer_init(pdus, 1 << 20);
    if (!message)
        return false;
    unzgfx_unwrap(rig->unzgfx, message, len, pdus);
    free(message);
    return true;
}

/* Takes what was sent and appends the PDUs' commands to @cmds. */
static size_t take(Rig *rig, uint16_t *cmds, size_t max)
{
    size_t n = 0;
    Writer w;

    while (take_message(rig, &w)) {
        g_assert_cmpuint(w.len, <=, DVC_SLICE - 2);
        for (size_t at = 0; at < w.len;) {
            size_t pdu = gfx_pdu_length(w.data + at, w.len - at);
            g_assert_cmpuint(pdu, >, 0);
            g_assert_cmpuint(n, <, max);
            cmds[n++] = (uint16_t)(w.data[at] | w.data[at + 1] << 8);
            at += pdu;
        }
        writer_clear(&w);
    }
    return n;
}

static void expect(Rig *rig, const uint16_t *want, size_t n)
{
    uint16_t got[64];
    size_t m = take(rig, got, G_N_ELEMENTS(got));

    g_assert_cmpmem(got, m * 2, want, n * 2);
}
#define EXPECT(rig, ...)                                                                           \
    expect(rig, (const uint16_t[]){__VA_ARGS__}, sizeof((const uint16_t[]){__VA_ARGS__}) / 2)

static bool start(Rig *rig, bool fresh, uint32_t width, uint32_t height)
{
    const GfxStart start = {.fresh = fresh,
                            .surface = ++rig->surface,
                            .width = width,
                            .height = height,
                            .frame_id = 1000u + rig->surface,
                            .clear_sequence = rig->clear_sequence};

    gfx_packer_begin(&rig->packer);
    return gfx_start(rig->gfx, &start);
}

static bool send_pdus(Rig *rig, const Writer *w)
{
    GfxFrame frame;

    g_assert_true(gfx_frame_pack(&rig->packer, &frame, ++rig->frame, 0, w->data, w->len));
    bool ok = gfx_send_frame(rig->gfx, &frame, 0, NULL);
    gfx_frame_clear(&frame);
    return ok;
}

static void bring_up(Rig *rig)
{
    rig_init(rig);
    fake_dvc_accept(rig->dvc);
    advertise(rig, GFX_VERSION_104, 2);
    g_assert_cmpuint(rig->ready, ==, 1);
    EXPECT(rig, GFX_CAPSCONFIRM);
    g_assert_true(start(rig, true, 720, 400));
    g_assert_cmpuint(fake_dvc_bulk_limit(rig->manager), ==, GFX_OUTBOX(720, 400));
    EXPECT(rig, GFX_RESETGRAPHICS, GFX_CREATESURFACE, GFX_MAPSURFACETOOUTPUT);
}

static bool send_fill(Rig *rig)
{
    GfxRect rect = {0, 0, 10, 10};
    Writer w;

    writer_init(&w, 256);
    gfx_write_solid_fill(&w, gfx_surface(rig->gfx), (const uint8_t *)"\1\2\3\4", &rect, 1);
    bool ok = send_pdus(rig, &w);
    writer_clear(&w);
    return ok;
}

static void test_order(void)
{
    Rig rig;
    Writer w;

    rig_init(&rig);
    g_assert_false(gfx_ready(rig.gfx));
    g_assert_false(gfx_may_send(rig.gfx));
    g_assert_false(start(&rig, true, 100, 100));
    fake_dvc_accept(rig.dvc);
    acknowledge(&rig, 0, 1);                            /* out of place: ignored */
    g_assert_cmpuint(fake_dvc_pending(rig.dvc), ==, 0); /* nothing before the confirmation */
    advertise(&rig, GFX_VERSION_104, 2);
    g_assert_true(gfx_ready(rig.gfx));
    g_assert_true(take_message(&rig, &w));
    g_assert_cmpmem(w.data, w.len, "\x13\0\0\0\x14\0\0\0\0\x04\x0a\0\x04\0\0\0\x02\0\0\0", 20);
    writer_clear(&w);
    rig_clear(&rig);
}

/* What clients list: FreeRDP with /gfx:AVC420, /gfx:AVC444 and without, mstsc of 2016, and one
 * whose newest version lacks what an older one has. */
static void test_avc420(void)
{
    static const struct {
        GfxCapset sets[4];
        uint32_t chosen;
        bool allowed;
    } cases[] = {
        {{{GFX_VERSION_8, 0}, {GFX_VERSION_81, 0x12}}, GFX_VERSION_81, true},
        {{{GFX_VERSION_81, 0x10}, {GFX_VERSION_10, 0}, {GFX_VERSION_101, 0}, {GFX_VERSION_107, 0}},
         GFX_VERSION_107,
         true},
        {{{GFX_VERSION_81, 0},
          {GFX_VERSION_10, 0x20},
          {GFX_VERSION_101, 0},
          {GFX_VERSION_106, 0x20}},
         GFX_VERSION_106,
         false},
        {{{GFX_VERSION_8, 0}, {GFX_VERSION_10, 0}, {GFX_VERSION_101, 0}}, GFX_VERSION_10, true},
        {{{GFX_VERSION_81, 0x10}, {GFX_VERSION_104, 0x20}}, GFX_VERSION_81, true},
        {{{GFX_VERSION_8, 0x10}, {GFX_VERSION_101, 0}}, GFX_VERSION_101, false},
        {{{GFX_VERSION_8, 0x30}}, GFX_VERSION_8, false},
    };

    for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
        Rig rig;
        Writer w;
        uint16_t n = 0;

        rig_init(&rig);
        fake_dvc_accept(rig.dvc);
        g_assert_false(gfx_avc420(rig.gfx));
        while (n < G_N_ELEMENTS(cases[i].sets) && cases[i].sets[n].version)
            n++;
        writer_init(&w, 256);
        writer_u16(&w, GFX_CAPSADVERTISE);
        writer_u16(&w, 0);
        writer_u32(&w, 8 + 2 + 12u * n);
        writer_u16(&w, n);
        for (uint16_t k = 0; k < n; k++) {
            writer_u32(&w, cases[i].sets[k].version);
            writer_u32(&w, 4);
            writer_u32(&w, cases[i].sets[k].flags);
        }
        fake_dvc_receive(rig.dvc, w.data, w.len);
        writer_clear(&w);
        g_assert_cmphex(gfx_status(rig.gfx).version, ==, cases[i].chosen);
        g_assert_cmpint(gfx_avc420(rig.gfx), ==, cases[i].allowed);
        rig_clear(&rig);
    }
}

static void test_surfaces(void)
{
    Rig rig;

    bring_up(&rig);
    uint16_t first = gfx_surface(rig.gfx);
    g_assert_cmpuint(first, !=, 0);
    g_assert_true(start(&rig, true, 800, 600));
    EXPECT(&rig, GFX_DELETESURFACE, GFX_RESETGRAPHICS, GFX_CREATESURFACE, GFX_MAPSURFACETOOUTPUT);
    g_assert_cmpuint(gfx_surface(rig.gfx), !=, first);
    g_assert_true(start(&rig, true, 800, 600));
    EXPECT(&rig, GFX_DELETESURFACE, GFX_CREATESURFACE, GFX_MAPSURFACETOOUTPUT);
    rig_clear(&rig);
}

/* Surfaces that frames made go with the main one, but not twice. */
static void test_aux_surfaces(void)
{
    Rig rig;
    Writer w;

    bring_up(&rig);
    writer_init(&w, 1024);
    gfx_write_create_surface(&w, GFX_AUX_SURFACE, 720, 400, GFX_PIXEL_XRGB);
    gfx_write_create_surface(&w, GFX_AUX_SURFACE + 3, 64, 64, GFX_PIXEL_XRGB);
    gfx_write_delete_surface(&w, GFX_AUX_SURFACE);
    g_assert_true(send_pdus(&rig, &w));
    writer_clear(&w);
    EXPECT(&rig, GFX_STARTFRAME, GFX_CREATESURFACE, GFX_CREATESURFACE, GFX_DELETESURFACE,
           GFX_ENDFRAME);
    g_assert_true(start(&rig, true, 720, 400));
    EXPECT(&rig, GFX_DELETESURFACE, GFX_DELETESURFACE, GFX_CREATESURFACE, GFX_MAPSURFACETOOUTPUT);
    g_assert_true(start(&rig, true, 720, 400));
    EXPECT(&rig, GFX_DELETESURFACE, GFX_CREATESURFACE, GFX_MAPSURFACETOOUTPUT);
    writer_init(&w, 1024);
    gfx_write_create_surface(&w, GFX_AUX_SURFACE, 720, 400, GFX_PIXEL_XRGB);
    g_assert_true(send_pdus(&rig, &w));
    writer_clear(&w);
    EXPECT(&rig, GFX_STARTFRAME, GFX_CREATESURFACE, GFX_ENDFRAME);
    g_assert_true(start(&rig, true, 800, 600)); /* all before what may delete them, too */
    EXPECT(&rig, GFX_DELETESURFACE, GFX_DELETESURFACE, GFX_RESETGRAPHICS, GFX_CREATESURFACE,
           GFX_MAPSURFACETOOUTPUT);
    rig_clear(&rig);
}

/* The same picture under another id, for frames that others get as well: what was made besides it
 * goes, and the decoder's sequence number becomes that of the frames. */
static void test_start(void)
{
    Rig rig;
    Writer w;

    bring_up(&rig);
    writer_init(&w, 1024);
    gfx_write_create_surface(&w, GFX_AUX_SURFACE + 2, 64, 64, GFX_PIXEL_XRGB);
    g_assert_true(send_pdus(&rig, &w));
    writer_clear(&w);
    EXPECT(&rig, GFX_STARTFRAME, GFX_CREATESURFACE, GFX_ENDFRAME);
    rig.clear_sequence = 2;
    g_assert_true(start(&rig, false, 720, 400));
    g_assert_cmpuint(gfx_surface(rig.gfx), ==, rig.surface);
    EXPECT(&rig, GFX_STARTFRAME, GFX_DELETESURFACE, GFX_CREATESURFACE, GFX_SURFACETOSURFACE,
           GFX_DELETESURFACE, GFX_MAPSURFACETOOUTPUT, GFX_CREATESURFACE, GFX_WIRETOSURFACE_1,
           GFX_WIRETOSURFACE_1, GFX_DELETESURFACE, GFX_ENDFRAME);
    g_assert_cmpuint(gfx_status(rig.gfx).in_flight, ==, 2);
    acknowledge(&rig, 1, 1000u + rig.surface);
    g_assert_cmpuint(gfx_status(rig.gfx).in_flight, ==, 0);

    rig.surface--; /* nothing is different: nothing is said */
    g_assert_true(start(&rig, false, 720, 400));
    g_assert_cmpuint(fake_dvc_pending(rig.dvc), ==, 0);
    g_assert_true(send_fill(&rig)); /* refers to nothing before the start */
    EXPECT(&rig, GFX_STARTFRAME, GFX_SOLIDFILL, GFX_ENDFRAME);
    rig_clear(&rig);
}

/* What is too large now would be too large for ever. */
static void test_too_large(void)
{
    static const uint8_t none[1];
    GfxPacker packer;
    GfxFrame frame;

    gfx_packer_init(&packer);
    /* as large as noise on the largest surface: 3 bytes a pixel, and headers */
    g_assert_cmpuint(GFX_MAX_FRAME, >, 8192u * 8192u * 3u + 8192u * 8192u / 4096u * 64u);
    g_assert_false(gfx_frame_pack(&packer, &frame, 1, 0, none, GFX_MAX_FRAME + 1));
    gfx_packer_clear(&packer);
}

static void test_readvertise(void)
{
    Rig rig;

    bring_up(&rig);
    g_assert_true(send_fill(&rig));
    g_assert_true(send_fill(&rig));
    EXPECT(&rig, GFX_STARTFRAME, GFX_SOLIDFILL, GFX_ENDFRAME, GFX_STARTFRAME, GFX_SOLIDFILL,
           GFX_ENDFRAME);
    g_assert_false(gfx_may_send(rig.gfx));
    advertise(&rig, GFX_VERSION_104, 2);
    g_assert_cmpuint(rig.ready, ==, 2);
    EXPECT(&rig, GFX_CAPSCONFIRM);
    g_assert_cmpuint(gfx_surface(rig.gfx), ==, 0);
    g_assert_cmpuint(gfx_status(rig.gfx).in_flight, ==, 0);
    g_assert_true(start(&rig, true, 720, 400)); /* the same size, and all of it again */
    EXPECT(&rig, GFX_RESETGRAPHICS, GFX_CREATESURFACE, GFX_MAPSURFACETOOUTPUT);
    g_assert_true(gfx_may_send(rig.gfx));
    for (unsigned i = 0; i < GFX_MAX_READVERTISES + 1 && rig.unavailable == 0; i++)
        advertise(&rig, GFX_VERSION_104, 2);
    g_assert_cmpuint(rig.unavailable, ==, 1);
    g_assert_true(fake_dvc_closed_by_server(rig.dvc));
    rig_clear(&rig);
}

static void test_pacing(void)
{
    Rig rig;

    bring_up(&rig);
    g_assert_true(gfx_may_send(rig.gfx));
    send_fill(&rig);
    g_assert_true(gfx_may_send(rig.gfx));
    send_fill(&rig);
    g_assert_false(gfx_may_send(rig.gfx));
    clock_us += 20000;
    acknowledge(&rig, 1, 1);
    g_assert_cmpuint(rig.slots, ==, 1);
    g_assert_true(gfx_may_send(rig.gfx));
    g_assert_cmpuint(gfx_status(rig.gfx).rtt_us, ==, 20000);

    fake_dvc_set_queued(rig.manager, DVC_BULK, GFX_LOW_WATER + 1);
    g_assert_false(gfx_may_send(rig.gfx));
    fake_dvc_set_queued(rig.manager, DVC_BULK, 0);
    g_assert_cmpuint(rig.slots, ==, 2);
    g_assert_true(gfx_may_send(rig.gfx));

    send_fill(&rig); /* lost acknowledgements: time frees the slot */
    g_assert_false(gfx_may_send(rig.gfx));
    clock_us = gfx_deadline(rig.gfx);
    gfx_tick(rig.gfx);
    g_assert_cmpuint(rig.slots, ==, 3);
    g_assert_true(gfx_may_send(rig.gfx));
    rig_clear(&rig);
}

/* @codec: whose PDUs are stored or compressed. */
static void check_slices(uint16_t codec)
{
    static uint8_t data[50000];
    GfxRect rect = {0, 0, 64, 64};
    uint16_t cmds[64];
    Writer w;
    Rig rig;

    bring_up(&rig);
    for (size_t i = 0; i < sizeof(data); i++)
        data[i] = (uint8_t)(i % 3 ? i * i / 64 : i / 7);
    data[0] = 0; /* planar without run lengths */
    writer_init(&w, 1 << 22);
    for (unsigned i = 0; i < 12; i++)
        gfx_write_wire_to_surface_1(&w, gfx_surface(rig.gfx), codec, GFX_PIXEL_XRGB, &rect, data,
                                    i % 2 ? 50000 : 20000);
    g_assert_true(send_pdus(&rig, &w));
    g_assert_cmpuint(fake_dvc_pending(rig.dvc), >=, 7);
    size_t n = take(&rig, cmds, G_N_ELEMENTS(cmds)); /* checks the size of each */
    g_assert_cmpuint(n, ==, 14);
    g_assert_cmpuint(cmds[0], ==, GFX_STARTFRAME);
    g_assert_cmpuint(cmds[13], ==, GFX_ENDFRAME);
    if (codec == GFX_CODEC_CLEARCODEC)
        g_assert_cmpuint(gfx_status(rig.gfx).bytes * 4, <, gfx_status(rig.gfx).plain_bytes);
    writer_clear(&w);
    rig_clear(&rig);
}

static void test_slices(void)
{
    check_slices(GFX_CODEC_PLANAR);
    check_slices(GFX_CODEC_CLEARCODEC);
}

/* Frames that resemble each other shrink; video is stored; the counters tell. */
static void test_compression(void)
{
    static uint8_t video[5000];
    GfxRect rect = {0, 0, 64, 64};
    Rig rig;
    Writer w;
    size_t len;

    bring_up(&rig);
    send_fill(&rig);
    while (take_message(&rig, &w))
        writer_clear(&w);
    GfxStatus before = gfx_status(rig.gfx);
    send_fill(&rig);
    GfxStatus after = gfx_status(rig.gfx);
    uint64_t sent = after.bytes - before.bytes, plain = after.plain_bytes - before.plain_bytes;
    uint8_t *message = fake_dvc_take(rig.dvc, &len);
    g_assert_cmpuint(len, ==, sent);
    g_assert_cmpuint(sent, <, plain / 2);
    writer_init(&w, 1 << 20);
    unzgfx_unwrap(rig.unzgfx, message, len, &w);
    g_assert_cmpuint(plain, ==, w.len);
    writer_clear(&w);
    free(message);

    acknowledge(&rig, 0, 2);
    writer_init(&w, 1 << 20);
    gfx_write_wire_to_surface_1(&w, gfx_surface(rig.gfx), GFX_CODEC_AVC420, GFX_PIXEL_XRGB, &rect,
                                video, sizeof(video));
    g_assert_true(send_pdus(&rig, &w));
    message = fake_dvc_take(rig.dvc, &len);
    g_assert_cmpmem(message, 2, "\xe0\x04", 2);
    g_assert_cmpuint(len, >, sizeof(video));
    free(message);
    writer_clear(&w);
    rig_clear(&rig);
}

static void test_cache_offer(void)
{
    Rig rig;

    bring_up(&rig);
    fake_dvc_receive(rig.dvc, "\x10\0\0\0\x16\0\0\0\x01\0kkkkkkkk\x10\0\0\0", 22);
    g_assert_cmpuint(fake_dvc_pending(rig.dvc), ==, 0); /* frames refer to each other */
    g_assert_cmpuint(rig.interrupts, ==, 1);
    rig.surface--;
    g_assert_true(start(&rig, false, 720, 400));
    EXPECT(&rig, GFX_CACHEIMPORTREPLY);
    for (int i = 0; i < 1000; i++) /* answers nobody reads must not pile up */
        fake_dvc_receive(rig.dvc, "\x10\0\0\0\x16\0\0\0\x01\0kkkkkkkk\x10\0\0\0", 22);
    g_assert_cmpuint(fake_dvc_pending(rig.dvc), ==, 0);
    g_assert_cmpuint(rig.interrupts, ==, 1);
    rig_clear(&rig);

    rig_init(&rig); /* before the first frame there is nothing to wait for */
    fake_dvc_accept(rig.dvc);
    advertise(&rig, GFX_VERSION_104, 2);
    fake_dvc_receive(rig.dvc, "\x10\0\0\0\x16\0\0\0\x01\0kkkkkkkk\x10\0\0\0", 22);
    EXPECT(&rig, GFX_CAPSCONFIRM, GFX_CACHEIMPORTREPLY);
    rig_clear(&rig);
}

static void test_no_common_version(void)
{
    Rig rig;

    rig_init(&rig);
    fake_dvc_accept(rig.dvc);
    fake_dvc_receive(rig.dvc, "\x12\0\0\0\x16\0\0\0\x01\0\x99\x99\x99\x99\x04\0\0\0\0\0\0\0", 22);
    g_assert_cmpuint(rig.unavailable, ==, 1);
    g_assert_null(strstr(rig.why, "time"));
    rig_clear(&rig);
}

static void test_timeouts(void)
{
    Rig rig;

    rig_init(&rig); /* never answers the open */
    clock_us = gfx_deadline(rig.gfx);
    gfx_tick(rig.gfx);
    g_assert_cmpuint(rig.unavailable, ==, 1);
    rig_clear(&rig);

    rig_init(&rig); /* opens, never advertises */
    clock_us += 5000000;
    fake_dvc_accept(rig.dvc);
    clock_us += GFX_ADVERTISE_US - 1;
    gfx_tick(rig.gfx);
    g_assert_cmpuint(rig.unavailable, ==, 0);
    clock_us += 1;
    gfx_tick(rig.gfx);
    g_assert_cmpuint(rig.unavailable, ==, 1);
    g_assert_true(fake_dvc_closed_by_server(rig.dvc));
    rig_clear(&rig);
}

static void test_endings(void)
{
    static const DvcCloseReason reasons[] = {DVC_CLOSED_REFUSED, DVC_CLOSED_BY_CLIENT,
                                             DVC_CLOSED_OVERSIZE, DVC_CLOSED_LOST};
    Rig rig;

    for (unsigned i = 0; i < G_N_ELEMENTS(reasons); i++) {
        rig_init(&rig);
        if (reasons[i] != DVC_CLOSED_REFUSED)
            fake_dvc_accept(rig.dvc);
        fake_dvc_end(rig.dvc, reasons[i]);
        g_assert_cmpuint(rig.unavailable, ==, 1);
        rig_clear(&rig);
    }
    bring_up(&rig); /* malformed */
    fake_dvc_receive(rig.dvc, "\x0d\0\0\0\x10\0\0\0\0\0\0\0\0\0\0\0", 16);
    g_assert_cmpuint(rig.unavailable, ==, 1);
    g_assert_nonnull(strstr(rig.why, "FRAME_ACKNOWLEDGE"));
    rig_clear(&rig);

    rig_init(&rig); /* freed from its own callback */
    rig.free_in_callback = true;
    fake_dvc_accept(rig.dvc);
    advertise(&rig, GFX_VERSION_81, 0);
    g_assert_cmpuint(rig.ready, ==, 1);
    g_assert_null(rig.gfx);
    rig_clear(&rig);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/gfx/order", test_order);
    g_test_add_func("/gfx/avc420", test_avc420);
    g_test_add_func("/gfx/surfaces", test_surfaces);
    g_test_add_func("/gfx/aux-surfaces", test_aux_surfaces);
    g_test_add_func("/gfx/start", test_start);
    g_test_add_func("/gfx/too-large", test_too_large);
    g_test_add_func("/gfx/readvertise", test_readvertise);
    g_test_add_func("/gfx/pacing", test_pacing);
    g_test_add_func("/gfx/slices", test_slices);
    g_test_add_func("/gfx/compression", test_compression);
    g_test_add_func("/gfx/cache-offer", test_cache_offer);
    g_test_add_func("/gfx/no-common-version", test_no_common_version);
    g_test_add_func("/gfx/timeouts", test_timeouts);
    g_test_add_func("/gfx/endings", test_endings);
    return g_test_run();
}
