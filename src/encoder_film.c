/*
 * Theory of operation. A film (region.c) is a stream of H.264 if the client decodes it and there is
 * a codec, else RemoteFX, which every client has. H.264 is on a surface of its own, of the size of
 * the film, which is not mapped to the client's output: after each picture what changed is
 * copied to its place on the screen (MS-RDPEGFX 2.2.2.5). So the codec never sees the rest of the
 * screen, and text beside a film stays exact.
 *
 * The mirror has the true pixels of the film, and its cells are marked as not exact. When the film
 * has ended they differ as a whole, wherever the frame has them, and are painted like anything
 * else: PeerDisplay asks for such a frame after a moment of quiet.
 */
#include "encoder_priv.h"

#include <math.h>

#include "gfx.h"
#include "gfx_pdu.h"
#include "remotefx.h"

#define RFX_TYPICAL_TILE 2048u /* bytes, of a photograph; 18 KiB at most */
#define RFX_TILES_PER_PDU ((int32_t)(ENCODER_MAX_PDU / RFX_TYPICAL_TILE))
#define RFX_STEPS_PER_LEVEL (6.0 / 7) /* of QP (remotefx.h) */
#define RFX_AGAIN 2u                  /* times what a picture may take: code it again, coarser */
#define FILM_SURFACE (GFX_AUX_SURFACE + HISTORY_LAYERS)

void encoder_film_end(Encoder *encoder)
{
    g_clear_pointer(&encoder->gfx.video, video_encoder_free);
    encoder->gfx.film = (Rect){0};
}

static bool same(const Rect *a, const Rect *b)
{
    return a->x == b->x && a->y == b->y && a->w == b->w && a->h == b->h;
}

/* A stream for the film at @rect, and a surface if it is H.264. */
static void begin(Encoder *encoder, EncodedFrame *encoded, const Rect *rect)
{
    GfxState *gfx = &encoder->gfx;

    if (gfx->film_surface)
        gfx_write_delete_surface(&encoded->bytes, FILM_SURFACE);
    gfx->film_surface = false;
    encoder_film_end(encoder);
    if (encoder->params.film == FILM_H264)
        gfx->video = video_encoder_new((uint32_t)rect->w, (uint32_t)rect->h);
    if (gfx->video) {
        gfx_write_create_surface(&encoded->bytes, FILM_SURFACE, (uint16_t)rect->w,
                                 (uint16_t)rect->h, GFX_PIXEL_XRGB);
        gfx->film_surface = true;
    }
    gfx->film = *rect;
}

/* The extent of what changed in the film, in its own coordinates and whole cells; false: nothing.
 */
static bool changed_part(const Mirror *mirror, const Rect *film, Rect *part)
{
    int32_t x0 = film->w, y0 = film->h, x1 = 0, y1 = 0;
    const int32_t cell = (int32_t)CELL;

    for (int32_t y = 0; y < film->h; y += cell) {
        for (int32_t x = 0; x < film->w; x += cell) {
            size_t at =
                (size_t)((film->y + y) / cell) * mirror->columns + (size_t)((film->x + x) / cell);
            if (!mirror->damaged[at])
                continue;
            x0 = MIN(x0, x);
            y0 = MIN(y0, y);
            x1 = MAX(x1, x + cell);
            y1 = MAX(y1, y + cell);
        }
    }
    if (x0 >= x1)
        return false;
    *part = (Rect){x0, y0, MIN(x1, film->w) - x0, MIN(y1, film->h) - y0};
    return true;
}

static GfxRect edges(const Rect *r)
{
    return (GfxRect){(uint16_t)r->x, (uint16_t)r->y, (uint16_t)(r->x + r->w),
                     (uint16_t)(r->y + r->h)};
}

/* RemoteFX has no pictures that need others, and what it takes goes by the tiles that are coded, of
 * which there may be few in one picture and all in the next. */
void encoder_film_init(Encoder *encoder)
{
    VideoRate *rate = &encoder->gfx.tile_rate;

    video_rate_init(rate, REMOTEFX_TILE, REMOTEFX_TILE);
    rate->need[0] = log2(RFX_TYPICAL_TILE) + VIDEO_GOOD_QP / 6;
    rate->worst = VIDEO_GOOD_QP + (REMOTEFX_LEVELS - 1) * RFX_STEPS_PER_LEVEL;
}

/* One PDU: a piece of the film, in its own coordinates. */
static void send_rfx_piece(Encoder *encoder, EncodedFrame *encoded, const Rect *piece,
                           unsigned level, bool first)
{
    GfxState *gfx = &encoder->gfx;
    const GfxRect whole = edges(&gfx->film);
    const RemotefxPicture picture = {mirror_at(&gfx->mirror, gfx->film.x, gfx->film.y),
                                     gfx->mirror.stride, (uint16_t)gfx->film.w,
                                     (uint16_t)gfx->film.h};
    size_t at = gfx_begin_wire_to_surface_1(&encoded->bytes, encoded->surface, GFX_CODEC_CAVIDEO,
                                            GFX_PIXEL_XRGB, &whole);

    if (first)
        remotefx_write_headers(&picture, &encoded->bytes);
    remotefx_write(&picture, (uint16_t)piece->x, (uint16_t)piece->y, (uint16_t)piece->w,
                   (uint16_t)piece->h, level, encoder->rfx_frame++, &encoded->bytes);
    gfx_end_wire_to_surface_1(&encoded->bytes, at);
}

/* What it took. */
static uint32_t code_rfx(Encoder *encoder, EncodedFrame *encoded, const Rect *part, double qp,
                         bool first)
{
    const int32_t tile = REMOTEFX_TILE, right = part->x + part->w, bottom = part->y + part->h;
    const int32_t columns = (right + tile - 1) / tile - part->x / tile;
    const int32_t wide = MIN(columns, RFX_TILES_PER_PDU) * tile,
                  high = MAX(RFX_TILES_PER_PDU / columns, 1) * tile;
    const unsigned level = (unsigned)lrint((qp - VIDEO_GOOD_QP) / RFX_STEPS_PER_LEVEL);
    size_t start = encoded->bytes.len;

    for (int32_t y = part->y, y1; y < bottom; y = y1) {
        y1 = MIN((y + high) / tile * tile, bottom);
        for (int32_t x = part->x, x1; x < right; x = x1, first = false) {
            x1 = MIN((x + wide) / tile * tile, right);
            send_rfx_piece(encoder, encoded, &(Rect){x, y, x1 - x, y1 - y}, level, first);
        }
    }
    return (uint32_t)(encoded->bytes.len - start);
}

/* RemoteFX codes @part of the film where it is. Level 0 takes what H.264 takes at the best QP or
 * so. */
static void send_rfx(Encoder *encoder, EncodedFrame *encoded, const Rect *part, bool first)
{
    VideoRate *rate = &encoder->gfx.tile_rate;
    const int32_t tile = REMOTEFX_TILE;
    const int32_t columns = (part->x + part->w + tile - 1) / tile - part->x / tile,
                  rows = (part->y + part->h + tile - 1) / tile - part->y / tile;
    const double tiles = log2((double)columns * rows);
    const uint32_t number = encoder->rfx_frame, may = encoder->film_bytes;
    size_t start = encoded->bytes.len;

    rate->need[0] += tiles;
    double qp = video_rate_next(rate, false, VIDEO_GOOD_QP, may);
    encoded->film_bytes = code_rfx(encoder, encoded, part, qp, first);
    if (may > 0 && encoded->film_bytes > RFX_AGAIN * may && qp < rate->worst) {
        /* A cut to what takes far more, which a slow link would notice. No picture needs others, so
         * it can be taken back. */
        rate->need[0] = log2(encoded->film_bytes) + qp / 6;
        qp = video_rate_next(rate, false, VIDEO_GOOD_QP, may);
        writer_truncate(&encoded->bytes, start);
        encoder->rfx_frame = number;
        encoded->film_bytes = code_rfx(encoder, encoded, part, qp, first);
    }
    encoded->film_codec = "RemoteFX";
    video_rate_coded(rate, false, qp, encoded->film_bytes, may);
    rate->need[0] -= tiles;
}

/* Codes @part of the film and copies it to its place. */
static bool send_h264(Encoder *encoder, EncodedFrame *encoded, const Rect *part, bool key)
{
    GfxState *gfx = &encoder->gfx;
    const GfxRect inside = edges(part),
                  whole = {0, 0, (uint16_t)gfx->film.w, (uint16_t)gfx->film.h};
    const GfxPoint place = {(uint16_t)(gfx->film.x + part->x), (uint16_t)(gfx->film.y + part->y)};
    const VideoPicture picture = {
        .bgrx = mirror_at(&gfx->mirror, gfx->film.x, gfx->film.y),
        .stride = gfx->mirror.stride,
        .rects = &inside,
        .n_rects = 1,
    };
    const VideoWant want = {.qp = VIDEO_GOOD_QP, .frame_bytes = encoder->film_bytes, .key = key};
    VideoInfo info;
    size_t at = gfx_begin_wire_to_surface_1(&encoded->bytes, FILM_SURFACE, GFX_CODEC_AVC420,
                                            GFX_PIXEL_XRGB, &whole);

    if (!video_encode(gfx->video, &picture, &want, &encoded->bytes, &info)) {
        writer_truncate(&encoded->bytes, at);
        return false;
    }
    gfx_end_wire_to_surface_1(&encoded->bytes, at);
    gfx_write_surface_to_surface(&encoded->bytes, FILM_SURFACE, encoded->surface, &inside, &place,
                                 1);
    encoded->film_bytes = (uint32_t)info.len;
    encoded->film_codec = "H.264";
    return true;
}

void encoder_film(Encoder *encoder, EncodedFrame *encoded)
{
    GfxState *gfx = &encoder->gfx;
    Mirror *mirror = &gfx->mirror;
    Rect film, part;

    if (!gfx->region || !mirror->all_known)
        return;
    if (!region_note(gfx->region, mirror, encoded->frame, encoder->film_bytes > 0,
                     gfx->bytes_before, &film) ||
        film.w > (int32_t)VIDEO_MAX_SIDE || film.h > (int32_t)VIDEO_MAX_SIDE) {
        encoder_film_end(encoder); /* its surface goes when the next one comes */
        return;
    }
    bool key = !same(&film, &gfx->film);
    if (key)
        part = (Rect){0, 0, film.w, film.h};
    else if (!changed_part(mirror, &film, &part)) {
        mirror_clear_boxes(mirror, &film); /* between two pictures */
        return;
    }
    if (key)
        begin(encoder, encoded, &film);
    mirror_draw_lossy(mirror, encoded->frame, &film);
    if (!gfx->video) {
        send_rfx(encoder, encoded, &part, key);
    } else if (!send_h264(encoder, encoded, &part, key)) {
        encoder_film_end(encoder); /* its cells are painted as what they are: not exact */
        mirror_compare_again(mirror, encoded->frame, &film, false);
        return;
    }
    mirror_clear_boxes(mirror, &film);
}
