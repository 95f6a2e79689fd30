/*
 * Theory of operation. For clients without a graphics pipeline (rdp-server.md 8). RemoteFX codes
 * the whole list of rectangles into messages of bounded size; its tiles are 64x64 on the grid that
 * our rectangles lie on. NSCodec codes runs of tiles small enough for one update. Bitmaps are
 * single tiles (half ones where a client cannot take more), planar at 32 bits per pixel (lossless)
 * and interleaved run lengths (interleaved.c) below; their widths must be multiples of four, so
 * tiles at the right edge are padded by repeating the last pixel, which the destination rectangle
 * hides. Rows go bottom-up.
 *
 * A blank frame is always bitmaps of black: cheap, exact, and the codecs need no picture for it.
 */
#include "encoder_priv.h"

#include <string.h>
#include <winpr/stream.h>

#include "interleaved.h"
#include "remotefx.h"

/* NSCodec: 1 loses one bit of chroma, the least there is; subsampling would lose more. */
#define NSC_LOSS 1
#define NSC_MAX_TILES 8
/* RemoteFX: a tile is at most 12 KiB, of text some 3 KiB. */
#define RFX_TYPICAL_TILE 3072u

bool encoder_legacy_init(Encoder *encoder)
{
    const EncoderParams *p = &encoder->params;
    DWORD planar = PLANAR_FORMAT_HEADER_RLE | (p->skip_alpha ? PLANAR_FORMAT_HEADER_NA : 0);

    encoder->scratch = g_malloc(TILE * TILE * 4);
    if (p->bpp == 32) {
        encoder->planar = freerdp_bitmap_planar_context_new(planar, TILE, TILE);
        if (!encoder->planar)
            return false;
    }
    if (p->path == ENCODER_NSC) {
        encoder->nsc = nsc_context_new();
        if (!encoder->nsc ||
            !nsc_context_set_parameters(encoder->nsc, NSC_COLOR_LOSS_LEVEL, NSC_LOSS) ||
            !nsc_context_set_parameters(encoder->nsc, NSC_ALLOW_SUBSAMPLING, 0) ||
            !nsc_context_set_parameters(encoder->nsc, NSC_DYNAMIC_COLOR_FIDELITY, 0) ||
            !nsc_context_set_parameters(encoder->nsc, NSC_COLOR_FORMAT, PIXEL_FORMAT_BGRX32))
            return false;
    }
    return true;
}

static void add_part(EncodedFrame *encoded, const Rect *dest, uint32_t width, uint32_t height,
                     bool compressed, const uint8_t *data, size_t len)
{
    EncodedPart part = {*dest, width, height, compressed, encoded->bytes.len, len};

    writer_bytes(&encoded->bytes, data, len);
    g_array_append_val(encoded->parts, part);
}

/* The tile with its width padded to a multiple of four: in place, or a copy in @copy. */
static const uint8_t *padded(const Frame *frame, const Rect *tile, uint8_t *copy, uint32_t *width,
                             uint32_t *stride)
{
    *width = ((uint32_t)tile->w + 3) & ~3u;
    *stride = frame->stride;
    if (!frame->blank && *width == (uint32_t)tile->w)
        return frame_at(frame, tile->x, tile->y);

    *stride = TILE * 4;
    memset(copy, 0, TILE * TILE * 4);
    for (int32_t y = 0; y < tile->h && !frame->blank; y++) {
        const uint8_t *row = frame_at(frame, tile->x, tile->y + y);
        uint8_t *to = copy + (size_t)y * *stride;
        memcpy(to, row, (size_t)tile->w * 4);
        for (uint32_t x = (uint32_t)tile->w; x < *width; x++)
            memcpy(to + x * 4, row + (size_t)(tile->w - 1) * 4, 4);
    }
    return copy;
}

/* An uncompressed bitmap: what the codec could not shrink. 32 bits per pixel only. */
static void add_raw(EncodedFrame *encoded, const Rect *tile, const uint8_t *data, uint32_t width,
                    uint32_t stride)
{
    EncodedPart part = {*tile,
                        width,
                        (uint32_t)tile->h,
                        false,
                        encoded->bytes.len,
                        (size_t)width * 4 * (size_t)tile->h};

    for (int32_t y = tile->h - 1; y >= 0; y--)
        writer_bytes(&encoded->bytes, data + (size_t)y * stride, (size_t)width * 4);
    g_array_append_val(encoded->parts, part);
}

static void add_interleaved(EncodedFrame *encoded, const Rect *tile, const uint8_t *data,
                            uint32_t width, uint32_t stride, unsigned bpp)
{
    EncodedPart part = {*tile, width, (uint32_t)tile->h, true, encoded->bytes.len, 0};

    interleaved_encode(data, stride, width, (uint32_t)tile->h, bpp, &encoded->bytes);
    part.len = encoded->bytes.len - part.offset;
    g_array_append_val(encoded->parts, part);
}

static void add_bitmap(Encoder *encoder, EncodedFrame *encoded, const Rect *tile)
{
    uint32_t width, stride, h = (uint32_t)tile->h, len = TILE * TILE * 4;
    const uint8_t *data = padded(encoded->frame, tile, encoder->scratch, &width, &stride);

    if (encoder->params.bpp != 32) {
        add_interleaved(encoded, tile, data, width, stride, encoder->params.bpp);
        return;
    }
    uint8_t *made = freerdp_bitmap_compress_planar(encoder->planar, data, PIXEL_FORMAT_BGRX32,
                                                   width, h, stride, NULL, &len);
    if (made && len < width * h * 4)
        add_part(encoded, tile, width, h, true, made, len);
    else
        add_raw(encoded, tile, data, width, stride);
    free(made);
}

static void encode_bitmaps(Encoder *encoder, EncodedFrame *encoded, const Rect *rect)
{
    const int32_t rows = encoder->params.max_part >= TILE * TILE * 4 + 64 ? TILE : TILE / 2;

    for (int32_t y = rect->y; y < rect->y + rect->h;) {
        int32_t h = MIN(rows - y % rows, rect->y + rect->h - y);
        for (int32_t x = rect->x; x < rect->x + rect->w;) {
            int32_t w = MIN((int32_t)TILE - x % (int32_t)TILE, rect->x + rect->w - x);
            Rect tile = {x, y, w, h};
            add_bitmap(encoder, encoded, &tile);
            x += w;
        }
        y += h;
    }
}

/* One message for @rect, or two for its halves if it gets too long. */
static void add_rfx(Encoder *encoder, EncodedFrame *encoded, const Rect *rect)
{
    const Frame *frame = encoded->frame;
    const RemotefxPicture picture = {frame->pixels, frame->stride, (uint16_t)frame->width,
                                     (uint16_t)frame->height};
    const bool first = encoder->rfx_width != frame->width || encoder->rfx_height != frame->height;
    EncodedPart part = {{0, 0, (int32_t)frame->width, (int32_t)frame->height},
                        frame->width,
                        frame->height,
                        true,
                        encoded->bytes.len,
                        0};

    if (first)
        remotefx_write_headers(&picture, &encoded->bytes);
    remotefx_write(&picture, (uint16_t)rect->x, (uint16_t)rect->y, (uint16_t)rect->w,
                   (uint16_t)rect->h, 0, encoder->rfx_frame, &encoded->bytes);
    part.len = encoded->bytes.len - part.offset;
    if (part.len > encoder->params.max_part &&
        (rect->w > (int32_t)TILE || rect->h > (int32_t)TILE)) {
        Rect a = *rect, b = *rect;
        if (rect->h > (int32_t)TILE) {
            a.h = (rect->h / (int32_t)TILE + 1) / 2 * (int32_t)TILE;
            b.y += a.h;
            b.h -= a.h;
        } else {
            a.w = (rect->w / (int32_t)TILE + 1) / 2 * (int32_t)TILE;
            b.x += a.w;
            b.w -= a.w;
        }
        writer_truncate(&encoded->bytes, part.offset);
        add_rfx(encoder, encoded, &a);
        add_rfx(encoder, encoded, &b);
        return;
    }
    encoder->rfx_width = frame->width;
    encoder->rfx_height = frame->height;
    encoder->rfx_frame++;
    g_array_append_val(encoded->parts, part);
}

static void encode_rfx(Encoder *encoder, EncodedFrame *encoded)
{
    const Frame *frame = encoded->frame;

    for (uint32_t i = 0; i < frame->n_rects; i++) {
        const Rect *r = &frame->rects[i];
        /* as many rows of tiles as usually fit */
        uint32_t columns = ((uint32_t)r->w + TILE - 1) / TILE;
        int32_t rows = (int32_t)(encoder->params.max_part / RFX_TYPICAL_TILE / columns);
        int32_t step = rows * (int32_t)TILE;
        for (int32_t y = r->y; y < r->y + r->h;) {
            Rect part = {r->x, y, r->w, MIN(MAX(step, (int32_t)TILE), r->y + r->h - y)};
            add_rfx(encoder, encoded, &part);
            y += part.h;
        }
    }
}

static bool encode_nsc(Encoder *encoder, EncodedFrame *encoded, const Rect *rect)
{
    const Frame *frame = encoded->frame;
    const size_t per_tile = TILE * TILE * 4 + 64; /* NSCodec never exceeds raw planes */
    int32_t tiles = (int32_t)MIN(encoder->params.max_part / per_tile, NSC_MAX_TILES);
    int32_t step = MAX(tiles, 1) * (int32_t)TILE;
    wStream *s = Stream_New(NULL, 65536);
    bool ok = s != NULL;

    for (int32_t y = rect->y; y < rect->y + rect->h && ok; y += TILE) {
        for (int32_t x = rect->x; x < rect->x + rect->w && ok; x += step) {
            Rect part = {x, y, MIN(step, rect->x + rect->w - x),
                         MIN((int32_t)TILE, rect->y + rect->h - y)};
            Stream_SetPosition(s, 0);
            ok = nsc_context_reset(encoder->nsc, (UINT32)part.w, (UINT32)part.h) &&
                 nsc_compose_message(encoder->nsc, s, frame_at(frame, x, y), (UINT32)part.w,
                                     (UINT32)part.h, frame->stride);
            if (ok)
                add_part(encoded, &part, (uint32_t)part.w, (uint32_t)part.h, true, Stream_Buffer(s),
                         Stream_GetPosition(s));
        }
    }
    if (s)
        Stream_Free(s, TRUE);
    return ok;
}

bool encoder_legacy_encode(Encoder *encoder, EncodedFrame *encoded)
{
    const Frame *frame = encoded->frame;
    bool ok = true;

    if (frame->blank) {
        Rect all = {0, 0, (int32_t)frame->width, (int32_t)frame->height};
        encoded->path = ENCODER_BITMAP;
        encode_bitmaps(encoder, encoded, &all);
        return true;
    }
    if (encoded->path == ENCODER_RFX) {
        encode_rfx(encoder, encoded);
        return true;
    }
    for (uint32_t i = 0; i < frame->n_rects && ok; i++) {
        if (encoded->path == ENCODER_NSC)
            ok = encode_nsc(encoder, encoded, &frame->rects[i]);
        else
            encode_bitmaps(encoder, encoded, &frame->rects[i]);
    }
    return ok;
}
