/* The graphics channel with a client that sends anything: messages of a length byte and bytes. */
#include "gfx.h"

#include <assert.h>
#include <stdlib.h>

#include "fake_dvc.h"
#include "unzgfx.h"

typedef struct Rig {
    Gfx *gfx;
    GfxPacker packer;
    uint32_t frame;
    uint8_t clear_sequence;
    unsigned unavailable;
} Rig;

static uint64_t clock_us;

static uint64_t now(void)
{
    return clock_us;
}

static void begin(Rig *rig, bool fresh)
{
    rig->clear_sequence += 5;
    const GfxStart start = {.fresh = fresh,
                            .surface = (uint16_t)(1 + rig->frame % 3),
                            .width = 640,
                            .height = 480,
                            .frame_id = ++rig->frame,
                            .clear_sequence = rig->clear_sequence};
    gfx_packer_begin(&rig->packer);
    assert(gfx_start(rig->gfx, &start));
}

static void on_ready(void *user)
{
    begin(user, true);
}

static void on_interrupt(void *user)
{
    begin(user, false);
}

static void on_slot(void *user)
{
    Rig *rig = user;
    GfxRect rect = {0, 0, 8, 8};
    Writer w;

    if (!gfx_may_send(rig->gfx))
        return;
    writer_init(&w, 128);
    gfx_write_solid_fill(&w, gfx_surface(rig->gfx), (const uint8_t *)"\1\2\3\4", &rect, 1);
    GfxFrame frame;
    assert(gfx_frame_pack(&rig->packer, &frame, ++rig->frame, 0, w.data, w.len));
    gfx_send_frame(rig->gfx, &frame, 0, NULL);
    gfx_frame_clear(&frame);
    writer_clear(&w);
}

static void on_unavailable(void *user, const char *why)
{
    assert(why);
    ((Rig *)user)->unavailable++;
}

static const GfxCallbacks callbacks = {on_ready, on_interrupt, on_slot, on_unavailable};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    DvcManager *manager = fake_dvc_manager_new();
    Unzgfx *unzgfx = unzgfx_new();
    Rig rig = {0};
    uint8_t *sent;
    size_t len;
    Reader r;

    clock_us = 1;
    gfx_packer_init(&rig.packer);
    rig.gfx = gfx_new(manager, "fuzz", now, &callbacks, &rig);
    Dvc *dvc = fake_dvc_nth(manager, 0);
    fake_dvc_accept(dvc);
    reader_init(&r, data, size);
    while (reader_left(&r) > 0 && !fake_dvc_dead(dvc)) {
        len = reader_u8(&r);
        if (len > reader_left(&r))
            len = reader_left(&r);
        clock_us += 10000;
        if (len > 0)
            fake_dvc_receive(dvc, reader_bytes(&r, len), len);
        assert(gfx_status(rig.gfx).in_flight <= PACER_MAX_WINDOW);
        while ((sent = fake_dvc_take(dvc, &len))) {
            Writer pdus;
            writer_init(&pdus, DVC_SLICE);
            unzgfx_unwrap(unzgfx, sent, len, &pdus);
            assert(gfx_pdu_length(pdus.data, pdus.len) > 0);
            writer_clear(&pdus);
            free(sent);
        }
    }
    assert(rig.unavailable <= 1);
    gfx_free(rig.gfx);
    gfx_packer_clear(&rig.packer);
    fake_dvc_manager_free(manager);
    unzgfx_free(unzgfx);
    return 0;
}
