#include "gfx_pdu.h"

#include <assert.h>
#include <string.h>

#define MAX_CACHE_OFFER 5462u /* 2.2.2.16 */

static size_t begin(Writer *w, GfxCmdId cmd)
{
    size_t at = w->len;

    writer_u16(w, (uint16_t)cmd);
    writer_u16(w, 0); /* flags */
    writer_u32(w, 0);
    return at;
}

static void end(Writer *w, size_t at)
{
    writer_patch_u32(w, at + 4, (uint32_t)(w->len - at));
}

static void write_rect(Writer *w, const GfxRect *rect)
{
    writer_u16(w, rect->left);
    writer_u16(w, rect->top);
    writer_u16(w, rect->right);
    writer_u16(w, rect->bottom);
}

static void write_points(Writer *w, const GfxPoint *points, uint16_t n)
{
    writer_u16(w, n);
    for (uint16_t i = 0; i < n; i++) {
        writer_u16(w, points[i].x);
        writer_u16(w, points[i].y);
    }
}

/* 2.2.2.19. Version 10.1 carries 16 reserved bytes instead of flags (2.2.3.4). */
void gfx_write_caps_confirm(Writer *w, const GfxCapset *capset)
{
    size_t at = begin(w, GFX_CAPSCONFIRM);

    writer_u32(w, capset->version);
    if (capset->version == GFX_VERSION_101) {
        writer_u32(w, 16);
        writer_zero(w, 16);
    } else {
        writer_u32(w, 4);
        writer_u32(w, capset->flags);
    }
    end(w, at);
}

/* 2.2.2.14 */
void gfx_write_reset_graphics(Writer *w, uint32_t width, uint32_t height,
                              const GfxMonitor *monitors, unsigned n)
{
    size_t at = begin(w, GFX_RESETGRAPHICS);

    assert(n <= GFX_MAX_MONITORS);
    writer_u32(w, width);
    writer_u32(w, height);
    writer_u32(w, n);
    for (unsigned i = 0; i < n; i++) {
        writer_u32(w, (uint32_t)monitors[i].left);
        writer_u32(w, (uint32_t)monitors[i].top);
        writer_u32(w, (uint32_t)monitors[i].right);
        writer_u32(w, (uint32_t)monitors[i].bottom);
        writer_u32(w, monitors[i].primary ? 1 : 0);
    }
    writer_zero(w, GFX_RESET_GRAPHICS_BYTES - (GFX_HEADER_BYTES + 12 + 20 * n));
    end(w, at);
}

/* 2.2.2.9 */
void gfx_write_create_surface(Writer *w, uint16_t id, uint16_t width, uint16_t height,
                              uint8_t pixel_format)
{
    size_t at = begin(w, GFX_CREATESURFACE);

    writer_u16(w, id);
    writer_u16(w, width);
    writer_u16(w, height);
    writer_u8(w, pixel_format);
    end(w, at);
}

/* 2.2.2.10 */
void gfx_write_delete_surface(Writer *w, uint16_t id)
{
    size_t at = begin(w, GFX_DELETESURFACE);

    writer_u16(w, id);
    end(w, at);
}

/* 2.2.2.15 */
void gfx_write_map_surface_to_output(Writer *w, uint16_t id, uint32_t x, uint32_t y)
{
    size_t at = begin(w, GFX_MAPSURFACETOOUTPUT);

    writer_u16(w, id);
    writer_u16(w, 0);
    writer_u32(w, x);
    writer_u32(w, y);
    end(w, at);
}

uint32_t gfx_timestamp(uint64_t ms_of_day)
{
    uint32_t ms = ms_of_day % 1000;
    uint32_t s = ms_of_day / 1000 % 60;
    uint32_t min = ms_of_day / 60000 % 60;
    uint32_t h = ms_of_day / 3600000 % 24;

    return h << 22 | min << 16 | s << 10 | ms;
}

/* 2.2.2.11 */
void gfx_write_start_frame(Writer *w, uint32_t timestamp, uint32_t frame_id)
{
    size_t at = begin(w, GFX_STARTFRAME);

    writer_u32(w, timestamp);
    writer_u32(w, frame_id);
    end(w, at);
}

/* 2.2.2.12 */
void gfx_write_end_frame(Writer *w, uint32_t frame_id)
{
    size_t at = begin(w, GFX_ENDFRAME);

    writer_u32(w, frame_id);
    end(w, at);
}

/* 2.2.2.1 */
size_t gfx_begin_wire_to_surface_1(Writer *w, uint16_t surface, uint16_t codec,
                                   uint8_t pixel_format, const GfxRect *rect)
{
    size_t at = begin(w, GFX_WIRETOSURFACE_1);

    writer_u16(w, surface);
    writer_u16(w, codec);
    writer_u8(w, pixel_format);
    write_rect(w, rect);
    writer_u32(w, 0);
    return at;
}

void gfx_end_wire_to_surface_1(Writer *w, size_t begun)
{
    if (writer_ok(w))
        writer_patch_u32(w, begun + GFX_WIRE_TO_SURFACE_BYTES - 4,
                         (uint32_t)(w->len - begun - GFX_WIRE_TO_SURFACE_BYTES));
    end(w, begun);
}

void gfx_write_wire_to_surface_1(Writer *w, uint16_t surface, uint16_t codec, uint8_t pixel_format,
                                 const GfxRect *rect, const uint8_t *bitmap, uint32_t len)
{
    size_t at = gfx_begin_wire_to_surface_1(w, surface, codec, pixel_format, rect);

    writer_bytes(w, bitmap, len);
    gfx_end_wire_to_surface_1(w, at);
}

/* 2.2.2.4 */
void gfx_write_solid_fill(Writer *w, uint16_t surface, const uint8_t bgrx[4], const GfxRect *rects,
                          uint16_t n)
{
    size_t at = begin(w, GFX_SOLIDFILL);

    writer_u16(w, surface);
    writer_bytes(w, bgrx, 4);
    writer_u16(w, n);
    for (uint16_t i = 0; i < n; i++)
        write_rect(w, &rects[i]);
    end(w, at);
}

/* 2.2.2.5 */
void gfx_write_surface_to_surface(Writer *w, uint16_t source, uint16_t dest, const GfxRect *rect,
                                  const GfxPoint *points, uint16_t n)
{
    size_t at = begin(w, GFX_SURFACETOSURFACE);

    writer_u16(w, source);
    writer_u16(w, dest);
    write_rect(w, rect);
    write_points(w, points, n);
    end(w, at);
}

/* 2.2.2.6 */
void gfx_write_surface_to_cache(Writer *w, uint16_t surface, uint64_t key, uint16_t slot,
                                const GfxRect *rect)
{
    size_t at = begin(w, GFX_SURFACETOCACHE);

    writer_u16(w, surface);
    writer_u64(w, key);
    writer_u16(w, slot);
    write_rect(w, rect);
    end(w, at);
}

/* 2.2.2.7 */
void gfx_write_cache_to_surface(Writer *w, uint16_t slot, uint16_t surface, const GfxPoint *points,
                                uint16_t n)
{
    size_t at = begin(w, GFX_CACHETOSURFACE);

    writer_u16(w, slot);
    writer_u16(w, surface);
    write_points(w, points, n);
    end(w, at);
}

/* 2.2.2.8 */
void gfx_write_evict_cache_entry(Writer *w, uint16_t slot)
{
    size_t at = begin(w, GFX_EVICTCACHEENTRY);

    writer_u16(w, slot);
    end(w, at);
}

/* 2.2.2.3 */
void gfx_write_delete_encoding_context(Writer *w, uint16_t surface, uint32_t context)
{
    size_t at = begin(w, GFX_DELETEENCODINGCONTEXT);

    writer_u16(w, surface);
    writer_u32(w, context);
    end(w, at);
}

/* 2.2.2.17 */
void gfx_write_cache_import_reply_empty(Writer *w)
{
    size_t at = begin(w, GFX_CACHEIMPORTREPLY);

    writer_u16(w, 0);
    end(w, at);
}

size_t gfx_pdu_length(const uint8_t *data, size_t len)
{
    Reader r;

    reader_init(&r, data, len);
    reader_skip(&r, 4);
    size_t pdu = reader_u32(&r);
    return reader_ok(&r) && pdu >= GFX_HEADER_BYTES && pdu <= len ? pdu : 0;
}

bool gfx_pdu_is_dense(const uint8_t *pdu, size_t len)
{
    Reader r;

    reader_init(&r, pdu, len);
    if (reader_u16(&r) != GFX_WIRETOSURFACE_1)
        return false;
    reader_skip(&r, GFX_HEADER_BYTES - 2 + 2); /* the rest of the header, the surface */
    uint16_t codec = reader_u16(&r);
    if (codec == GFX_CODEC_PLANAR) { /* planes without run lengths: the encoder saw a photograph */
        reader_skip(&r, GFX_WIRE_TO_SURFACE_BYTES - GFX_HEADER_BYTES - 4);
        return (reader_u8(&r) & GFX_PLANAR_RLE) == 0 && reader_ok(&r);
    }
    return reader_ok(&r) && (codec == GFX_CODEC_AVC420 || codec == GFX_CODEC_CAVIDEO);
}

/* 2.2.2.18 */
static bool parse_caps_advertise(Reader *body, GfxClientPdu *pdu)
{
    uint16_t count = reader_u16(body);

    pdu->caps.n = 0;
    for (uint16_t i = 0; i < count && reader_ok(body); i++) {
        GfxCapset set = {.version = reader_u32(body)};
        uint32_t len = reader_u32(body);
        Reader data = reader_sub(body, len);

        if (len >= 4)
            set.flags = reader_u32(&data);
        if (set.version == GFX_VERSION_101)
            set.flags = 0; /* reserved bytes */
        if (reader_ok(body) && pdu->caps.n < GFX_MAX_CAPSETS)
            pdu->caps.sets[pdu->caps.n++] = set;
    }
    return reader_done(body);
}

/* 2.2.2.16 */
static bool parse_cache_import_offer(Reader *body, GfxClientPdu *pdu)
{
    pdu->offered = reader_u16(body);
    if (pdu->offered > MAX_CACHE_OFFER)
        return false;
    reader_skip(body, pdu->offered * 12u);
    return reader_done(body);
}

bool gfx_parse_client(Reader *r, GfxClientPdu *pdu, const char **why)
{
    memset(pdu, 0, sizeof(*pdu));
    pdu->cmd = reader_u16(r);
    reader_skip(r, 2);
    uint32_t length = reader_u32(r);
    if (!reader_ok(r) || length < GFX_HEADER_BYTES) {
        *why = "truncated RDPGFX header";
        return false;
    }
    Reader body = reader_sub(r, length - GFX_HEADER_BYTES);
    if (!reader_ok(&body)) {
        *why = "RDPGFX PDU longer than its message";
        return false;
    }

    switch (pdu->cmd) {
    case GFX_CAPSADVERTISE:
        *why = "malformed RDPGFX_CAPS_ADVERTISE";
        return parse_caps_advertise(&body, pdu);
    case GFX_FRAMEACKNOWLEDGE: /* 2.2.2.13 */
        *why = "malformed RDPGFX_FRAME_ACKNOWLEDGE";
        pdu->ack.queue_depth = reader_u32(&body);
        pdu->ack.frame_id = reader_u32(&body);
        pdu->ack.total_decoded = reader_u32(&body);
        return reader_done(&body);
    case GFX_QOEFRAMEACKNOWLEDGE: /* 2.2.2.21 */
        *why = "malformed RDPGFX_QOE_FRAME_ACKNOWLEDGE";
        pdu->qoe.frame_id = reader_u32(&body);
        pdu->qoe.timestamp = reader_u32(&body);
        pdu->qoe.decode_ms = reader_u16(&body);
        pdu->qoe.render_ms = reader_u16(&body);
        return reader_done(&body);
    case GFX_CACHEIMPORTOFFER:
        *why = "malformed RDPGFX_CACHE_IMPORT_OFFER";
        return parse_cache_import_offer(&body, pdu);
    default:
        return true;
    }
}
