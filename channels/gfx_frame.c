/*
 * Theory of operation. A frame is StartFrame, PDUs, EndFrame, packed into as few messages as
 * DVC_SLICE allows, so that USB and input wait for one slice at most. Each message is compressed
 * against all that was packed before (zgfx.h), unless most of it is video, and in haste where a
 * frame is large.
 *
 * Frames are packed where they are encoded, not where they are sent: compressing text costs as much
 * as coding it, and clients that get the same frames get the same messages, to the byte.
 */
#include "gfx_frame.h"

#include <assert.h>
#include <string.h>

#include "dvc.h"

/* A frame's bytes that are compressed as well as can be, at some 10 ms of work: more than a screen
 * of text. A frame of 4K may have 100 times as much, and typing waits for it. */
#define CAREFUL_BYTES (256u * 1024u)

void gfx_frame_clear(GfxFrame *frame)
{
    writer_clear(&frame->messages);
}

void gfx_packer_init(GfxPacker *packer)
{
    *packer = (GfxPacker){.zgfx = zgfx_new()};
}

void gfx_packer_clear(GfxPacker *packer)
{
    zgfx_free(packer->zgfx);
    packer->zgfx = NULL;
}

void gfx_packer_begin(GfxPacker *packer)
{
    zgfx_forget(packer->zgfx);
    packer->aux = 0;
}

/* For a message of @len bytes, of which @dense are of PDUs that are gfx_pdu_is_dense(); up to its
 * end the frame has @frame_bytes. */
static ZgfxEffort effort_for(size_t len, size_t dense, size_t frame_bytes)
{
    if (dense > len / 2)
        return ZGFX_STORE;
    return frame_bytes <= CAREFUL_BYTES ? ZGFX_COMPRESS : ZGFX_FAST;
}

/* Turns the PDUs in @pdus into one message and empties it. @dense: bytes of those that are
 * gfx_pdu_is_dense(). */
static void flush(GfxPacker *packer, GfxFrame *frame, Writer *pdus, size_t *dense)
{
    Writer *out = &frame->messages;
    size_t at = out->len;

    if (pdus->len > 0) {
        ZgfxEffort effort = effort_for(pdus->len, *dense, frame->plain_bytes + pdus->len);
        writer_u32(out, 0);
        zgfx_wrap(packer->zgfx, pdus->data, pdus->len, effort, out);
        writer_patch_u32(out, at, (uint32_t)(out->len - at - 4));
        frame->plain_bytes += pdus->len;
    }
    pdus->len = 0;
    *dense = 0;
}

/* Keeps account of the surfaces that a frame makes and deletes. */
static void note_surfaces(GfxPacker *packer, const uint8_t *pdu, size_t len)
{
    Reader r;

    reader_init(&r, pdu, len);
    uint16_t cmd = reader_u16(&r);
    if (cmd != GFX_CREATESURFACE && cmd != GFX_DELETESURFACE)
        return;
    reader_skip(&r, GFX_HEADER_BYTES - 2);
    unsigned aux = reader_u16(&r) - GFX_AUX_SURFACE;
    assert(reader_ok(&r) && aux < GFX_AUX_SURFACES);
    if (cmd == GFX_CREATESURFACE)
        packer->aux |= (uint16_t)(1u << aux);
    else
        packer->aux &= (uint16_t) ~(1u << aux);
}

bool gfx_frame_pack(GfxPacker *packer, GfxFrame *frame, uint32_t id, uint32_t timestamp,
                    const uint8_t *pdus, size_t len)
{
    const size_t room = DVC_SLICE - ZGFX_STORED_BYTES;
    size_t dense = 0;
    Writer w;

    *frame = (GfxFrame){.id = id};
    if (len > GFX_MAX_FRAME)
        return false;
    writer_init(&frame->messages, 2 * GFX_MAX_FRAME);
    writer_init(&w, GFX_MAX_FRAME);
    gfx_write_start_frame(&w, timestamp, id);
    for (size_t at = 0; at < len;) {
        size_t n = gfx_pdu_length(pdus + at, len - at);
        assert(n > 0);
        if (w.len + n > room)
            flush(packer, frame, &w, &dense);
        writer_bytes(&w, pdus + at, n);
        note_surfaces(packer, pdus + at, n);
        if (gfx_pdu_is_dense(pdus + at, n))
            dense += n;
        at += n;
    }
    if (w.len + GFX_HEADER_BYTES + 4 > room)
        flush(packer, frame, &w, &dense);
    gfx_write_end_frame(&w, id);
    flush(packer, frame, &w, &dense);
    bool ok = writer_ok(&w) && writer_ok(&frame->messages);
    writer_clear(&w);
    frame->aux = packer->aux;
    if (!ok)
        gfx_frame_clear(frame);
    return ok;
}
