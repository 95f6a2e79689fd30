/*
 * Theory of operation. The ladder is RemoteFX, NSCodec, bitmaps, by what the client's capability
 * sets say (rdp-server.md 8). All of them leave as fast-path updates, which may not be larger than
 * the client's MultifragMaxRequestSize. Frames are bracketed by frame markers where the client
 * knows them, and counted by the pacer where it acknowledges them; otherwise the measures are the
 * socket, no frame being asked for while FreeRDP's output buffer is not empty, and the bandwidth
 * that auto-detection has found, if the client takes part in it.
 *
 * RemoteFX and NSCodec lose. Small frames go as bitmaps at once. Each tile shown with loss is
 * remembered, and when it has rested for a quarter of a second it is shown again as a bitmap, some
 * tiles at a time, so that a still picture ends up exact.
 */
#include "peer_display_priv.h"

#include <freerdp/peer.h>
#include <freerdp/update.h>
#include <string.h>

/* Of one update: TS_UPDATE_BITMAP_DATA and fast-path headers; and per rectangle. */
#define UPDATE_HEADER 64u
#define RECT_HEADER 32u

static uint32_t u32(const Legacy *legacy, FreeRDP_Settings_Keys_UInt32 id)
{
    return freerdp_settings_get_uint32(legacy->context->settings, id);
}

static bool flag(const Legacy *legacy, FreeRDP_Settings_Keys_Bool id)
{
    return freerdp_settings_get_bool(legacy->context->settings, id);
}

static EncoderPath choose_path(const Legacy *legacy)
{
    uint32_t commands = u32(legacy, FreeRDP_SurfaceCommandsSupported);

    if (legacy->params.bpp != 32 || !flag(legacy, FreeRDP_SurfaceCommandsEnabled))
        return ENCODER_BITMAP;
    if (flag(legacy, FreeRDP_RemoteFxCodec) && u32(legacy, FreeRDP_RemoteFxCodecId) != 0 &&
        (commands & SURFCMDS_STREAM_SURFACE_BITS) && legacy->max_update >= 65536)
        return ENCODER_RFX;
    if (flag(legacy, FreeRDP_NSCodec) && u32(legacy, FreeRDP_NSCodecId) != 0 &&
        (commands & SURFCMDS_SET_SURFACE_BITS) && legacy->max_update >= 32768)
        return ENCODER_NSC;
    return ENCODER_BITMAP;
}

bool legacy_init(Legacy *legacy, rdpContext *context, const char **why)
{
    memset(legacy, 0, sizeof(*legacy));
    legacy->context = context;
    if (!flag(legacy, FreeRDP_FastPathOutput)) {
        *why = "the client takes no fast-path output, nothing can be drawn for it";
        return false;
    }
    uint32_t limit = u32(legacy, FreeRDP_MultifragMaxRequestSize);
    if (limit < ENCODER_MIN_PART + UPDATE_HEADER + RECT_HEADER) {
        *why = "the client's largest update is too small to draw with";
        return false;
    }
    legacy->max_update = MIN(limit, LEGACY_LARGEST_UPDATE) - UPDATE_HEADER;

    uint32_t depth = u32(legacy, FreeRDP_ColorDepth);
    if (depth != 32 && depth != 24 && depth != 16 && depth != 15) {
        *why = "the client's colour depth is not 15, 16, 24 or 32 bits";
        return false;
    }
    legacy->params.bpp = depth;
    legacy->params.skip_alpha = flag(legacy, FreeRDP_DrawAllowSkipAlpha);
    legacy->params.path = choose_path(legacy);
    legacy->params.max_part = legacy->max_update - RECT_HEADER;
    legacy->markers =
        flag(legacy, FreeRDP_SurfaceFrameMarkerEnabled) && legacy->params.path != ENCODER_BITMAP;
    legacy->acks = legacy->markers && u32(legacy, FreeRDP_FrameAcknowledge) > 0;
    pacer_init(&legacy->pacer);
    if (!legacy->acks)
        pacer_never_acked(&legacy->pacer);
    return true;
}

void legacy_clear(Legacy *legacy)
{
    g_clear_pointer(&legacy->lossy, g_free);
    legacy->n_lossy = 0;
}

void legacy_reset(Legacy *legacy, uint32_t width, uint32_t height)
{
    legacy_clear(legacy);
    legacy->columns = (width + FRAMEBUFFER_TILE - 1) / FRAMEBUFFER_TILE;
    legacy->rows = (height + FRAMEBUFFER_TILE - 1) / FRAMEBUFFER_TILE;
    legacy->lossy = g_new0(int64_t, (size_t)legacy->columns * legacy->rows);
    pacer_forget(&legacy->pacer);
}

static uint64_t area(const Frame *frame)
{
    uint64_t sum = 0;

    for (uint32_t i = 0; i < frame->n_rects; i++)
        sum += (uint64_t)frame->rects[i].w * (uint64_t)frame->rects[i].h;
    return sum;
}

bool legacy_worth_exactness(const Frame *frame, bool refining)
{
    const uint64_t tile = (uint64_t)FRAMEBUFFER_TILE * FRAMEBUFFER_TILE;

    return area(frame) <= tile * (refining ? 2 * LEGACY_REFINE_TILES : LEGACY_SMALL_TILES);
}

bool legacy_reactivate(rdpContext *context, uint32_t width, uint32_t height)
{
    freerdp_peer *peer = context->peer;
    rdpSettings *settings = context->settings;
    psPeerCapabilities first_time = peer->Capabilities;

    if (!freerdp_settings_set_uint32(settings, FreeRDP_DesktopWidth, width) ||
        !freerdp_settings_set_uint32(settings, FreeRDP_DesktopHeight, height))
        return false;
    peer->Capabilities = NULL; /* it settles the size and depth of a new connection */
    bool ok = context->update->DesktopResize(context);
    peer->Capabilities = first_time;
    return ok;
}

const char *legacy_name(const Legacy *legacy)
{
    switch (legacy->params.path) {
    case ENCODER_RFX:
        return "RemoteFX";
    case ENCODER_NSC:
        return "NSCodec";
    default:
        return legacy->params.bpp == 32 ? "planar bitmaps" : "interleaved bitmaps";
    }
}

/* FreeRDP keeps the newest acknowledged frame in a public member of the peer. */
static void look_at_acks(Legacy *legacy, int64_t now)
{
    uint32_t acked = legacy->context->peer->ack_frame_id;

    if (legacy->acks && acked != legacy->seen_ack) {
        legacy->seen_ack = acked;
        pacer_acked(&legacy->pacer, acked, acked == UINT32_MAX, (uint64_t)now);
    }
}

bool legacy_may_send(Legacy *legacy, int64_t now)
{
    freerdp_peer *peer = legacy->context->peer;

    look_at_acks(legacy, now);
    if (now < legacy->next_us || peer->IsWriteBlocked(peer))
        return false;
    if (!legacy->acks)
        return pacer_may_send(&legacy->pacer, (uint64_t)now);
    if (!legacy->pacer.suspended && legacy->pacer.n >= u32(legacy, FreeRDP_FrameAcknowledge) &&
        legacy->pacer.n > 0 &&
        now - (int64_t)legacy->pacer.frames[0].sent_us < (int64_t)PACER_LOST_US)
        return false;
    return pacer_may_send(&legacy->pacer, (uint64_t)now);
}

int64_t legacy_look_at(const Legacy *legacy, int64_t now)
{
    return legacy->next_us > now ? legacy->next_us : now + LEGACY_POLL_US;
}

static void mark(Legacy *legacy, const EncodedFrame *encoded, int64_t now)
{
    bool loss = encoded->path != ENCODER_BITMAP;

    if (encoded->frame->blank) { /* all of it, and without rectangles */
        memset(legacy->lossy, 0, sizeof(*legacy->lossy) * legacy->columns * legacy->rows);
        legacy->n_lossy = 0;
    }
    for (uint32_t i = 0; i < encoded->frame->n_rects; i++) {
        const Rect *r = &encoded->frame->rects[i];
        for (uint32_t y = (uint32_t)r->y / FRAMEBUFFER_TILE;
             y * FRAMEBUFFER_TILE < (uint32_t)(r->y + r->h); y++) {
            for (uint32_t x = (uint32_t)r->x / FRAMEBUFFER_TILE;
                 x * FRAMEBUFFER_TILE < (uint32_t)(r->x + r->w); x++) {
                int64_t *tile = &legacy->lossy[(size_t)y * legacy->columns + x];
                legacy->n_lossy += loss;
                legacy->n_lossy -= *tile != 0;
                *tile = loss ? now : 0;
            }
        }
    }
}

int64_t legacy_refine_at(const Legacy *legacy)
{
    int64_t oldest = INT64_MAX;

    for (size_t i = 0; legacy->n_lossy > 0 && i < (size_t)legacy->columns * legacy->rows; i++) {
        if (legacy->lossy[i] != 0)
            oldest = MIN(oldest, legacy->lossy[i]);
    }
    return oldest == INT64_MAX ? oldest : oldest + LEGACY_REST_US;
}

uint32_t legacy_refine(Legacy *legacy, int64_t now,
                       void (*invalidate)(void *user, const Rect *rect), void *user)
{
    uint32_t tiles = 0;

    for (uint32_t y = 0; y < legacy->rows; y++) {
        const int64_t *row = legacy->lossy + (size_t)y * legacy->columns;
        for (uint32_t x = 0; x < legacy->columns && tiles < LEGACY_REFINE_TILES;) {
            uint32_t n = 0;
            while (x + n < legacy->columns && row[x + n] != 0 &&
                   row[x + n] + LEGACY_REST_US <= now && tiles + n < LEGACY_REFINE_TILES)
                n++;
            if (n > 0) {
                Rect rect = {(int32_t)(x * FRAMEBUFFER_TILE), (int32_t)(y * FRAMEBUFFER_TILE),
                             (int32_t)(n * FRAMEBUFFER_TILE), (int32_t)FRAMEBUFFER_TILE};
                invalidate(user, &rect);
            }
            tiles += n;
            x += n + 1;
        }
    }
    return tiles;
}

static bool send_bitmaps(Legacy *legacy, const EncodedFrame *encoded)
{
    rdpUpdate *update = legacy->context->update;
    GArray *batch = g_array_new(FALSE, TRUE, sizeof(BITMAP_DATA));
    unsigned bpp = legacy->params.bpp;
    size_t size = 0;
    bool ok = true;

    for (guint i = 0; i < encoded->parts->len && ok; i++) {
        const EncodedPart *part = &g_array_index(encoded->parts, EncodedPart, i);
        BITMAP_DATA data = {
            .destLeft = (UINT32)part->dest.x,
            .destTop = (UINT32)part->dest.y,
            .destRight = (UINT32)(part->dest.x + part->dest.w - 1),
            .destBottom = (UINT32)(part->dest.y + part->dest.h - 1),
            .width = part->width,
            .height = part->height,
            .bitsPerPixel = bpp,
            .bitmapLength = (UINT32)part->len,
            .cbCompMainBodySize = (UINT32)part->len,
            .cbScanWidth = part->width * ((bpp + 7) / 8),
            .cbUncompressedSize = part->width * part->height * ((bpp + 7) / 8),
            .bitmapDataStream = encoded->bytes.data + part->offset,
            .compressed = part->compressed,
        };
        g_array_append_val(batch, data);
        size += part->len + RECT_HEADER;
        if (i + 1 < encoded->parts->len && size + part[1].len + RECT_HEADER <= legacy->max_update)
            continue;
        BITMAP_UPDATE bitmap = {.number = batch->len,
                                .rectangles = (BITMAP_DATA *)(void *)batch->data,
                                .skipCompression = TRUE};
        ok = update->BitmapUpdate(legacy->context, &bitmap);
        g_array_set_size(batch, 0);
        size = 0;
    }
    g_array_unref(batch);
    return ok;
}

static bool send_surface_bits(Legacy *legacy, const EncodedFrame *encoded)
{
    rdpUpdate *update = legacy->context->update;
    bool rfx = encoded->path == ENCODER_RFX;
    bool ok = true;

    for (guint i = 0; i < encoded->parts->len && ok; i++) {
        const EncodedPart *part = &g_array_index(encoded->parts, EncodedPart, i);
        SURFACE_BITS_COMMAND command = {
            .cmdType = rfx ? CMDTYPE_STREAM_SURFACE_BITS : CMDTYPE_SET_SURFACE_BITS,
            .destLeft = (UINT32)part->dest.x,
            .destTop = (UINT32)part->dest.y,
            .destRight = (UINT32)(part->dest.x + part->dest.w),
            .destBottom = (UINT32)(part->dest.y + part->dest.h),
            .skipCompression = TRUE,
            .bmp =
                {
                    .bpp = 32,
                    .codecID =
                        (UINT16)u32(legacy, rfx ? FreeRDP_RemoteFxCodecId : FreeRDP_NSCodecId),
                    .width = (UINT16)part->width,
                    .height = (UINT16)part->height,
                    .bitmapDataLength = (UINT32)part->len,
                    .bitmapData = encoded->bytes.data + part->offset,
                },
        };
        ok = update->SurfaceBits(legacy->context, &command);
    }
    return ok;
}

static bool send_marker(Legacy *legacy, UINT32 action)
{
    SURFACE_FRAME_MARKER marker = {.frameAction = action, .frameId = legacy->frame_id};

    return !legacy->markers ||
           legacy->context->update->SurfaceFrameMarker(legacy->context, &marker);
}

bool legacy_send(Legacy *legacy, const EncodedFrame *encoded, int64_t now)
{
    if (encoded->parts->len == 0)
        return true;
    legacy->frame_id++;
    if (!send_marker(legacy, SURFACECMD_FRAMEACTION_BEGIN))
        return false;
    if (encoded->path == ENCODER_BITMAP ? !send_bitmaps(legacy, encoded)
                                        : !send_surface_bits(legacy, encoded))
        return false;
    if (!send_marker(legacy, SURFACECMD_FRAMEACTION_END))
        return false;
    mark(legacy, encoded, now);
    pacer_sent(&legacy->pacer, legacy->frame_id, encoded->bytes.len, (uint64_t)now);
    /* One that was made late does not delay the next: a guest that draws as often loses none. */
    if (!legacy->acks)
        legacy->next_us = MAX(legacy->next_us, now - LEGACY_FRAME_US) + LEGACY_FRAME_US;
    legacy->frames++;
    legacy->bytes += encoded->bytes.len;
    return true;
}
