/*
 * MS-RDPEGFX on the wire: writers for what a server sends, parsers for what a client sends. What a
 * server sends goes through zgfx.h before it is a message.
 *
 * Pure: bytes in, bytes out. Section numbers are MS-RDPEGFX's. Writers append one whole PDU with
 * its header to @w; errors are sticky in the Writer. Rectangles are exclusive at right and bottom.
 */
#ifndef QRDP_CHANNELS_GFX_PDU_H
#define QRDP_CHANNELS_GFX_PDU_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "bytes.h"

#define GFX_HEADER_BYTES 8u
#define GFX_RESET_GRAPHICS_BYTES 340u
#define GFX_MAX_MONITORS 15u      /* FreeRDP's client refuses 16 (rdp-server.md 6.3) */
#define GFX_MAX_CAPSETS 64u       /* accepted in one CapsAdvertise; eleven exist */
#define GFX_MAX_FILL_RECTS 65535u /* of one SolidFill */
/** A WireToSurface1 without its bitmap. */
#define GFX_WIRE_TO_SURFACE_BYTES (GFX_HEADER_BYTES + 17u)

typedef enum GfxCmdId { /* 2.2.1.5 */
                        GFX_WIRETOSURFACE_1 = 0x0001,
                        GFX_DELETEENCODINGCONTEXT = 0x0003,
                        GFX_SOLIDFILL = 0x0004,
                        GFX_SURFACETOSURFACE = 0x0005,
                        GFX_SURFACETOCACHE = 0x0006,
                        GFX_CACHETOSURFACE = 0x0007,
                        GFX_EVICTCACHEENTRY = 0x0008,
                        GFX_CREATESURFACE = 0x0009,
                        GFX_DELETESURFACE = 0x000A,
                        GFX_STARTFRAME = 0x000B,
                        GFX_ENDFRAME = 0x000C,
                        GFX_FRAMEACKNOWLEDGE = 0x000D,
                        GFX_RESETGRAPHICS = 0x000E,
                        GFX_MAPSURFACETOOUTPUT = 0x000F,
                        GFX_CACHEIMPORTOFFER = 0x0010,
                        GFX_CACHEIMPORTREPLY = 0x0011,
                        GFX_CAPSADVERTISE = 0x0012,
                        GFX_CAPSCONFIRM = 0x0013,
                        GFX_QOEFRAMEACKNOWLEDGE = 0x0016,
} GfxCmdId;

enum { /* 2.2.3 */
       GFX_VERSION_8 = 0x00080004,
       GFX_VERSION_81 = 0x00080105,
       GFX_VERSION_10 = 0x000A0002,
       GFX_VERSION_101 = 0x000A0100,
       GFX_VERSION_102 = 0x000A0200,
       GFX_VERSION_103 = 0x000A0301,
       GFX_VERSION_104 = 0x000A0400,
       GFX_VERSION_105 = 0x000A0502,
       GFX_VERSION_106 = 0x000A0600,
       GFX_VERSION_106_ERR = 0x000A0601, /* as an old edition of the document misprinted it */
       GFX_VERSION_107 = 0x000A0701,
};

/* 2.2.3: of version 8.1, and of 10 and later but 10.1, which has no flags */
#define GFX_CAPS_AVC420_ENABLED 0x10u
#define GFX_CAPS_AVC_DISABLED 0x20u

enum {
    GFX_CODEC_UNCOMPRESSED = 0x0000,
    GFX_CODEC_CAVIDEO = 0x0003,
    GFX_CODEC_CLEARCODEC = 0x0008,
    GFX_CODEC_PLANAR = 0x000A,
    GFX_CODEC_AVC420 = 0x000B
};
enum { GFX_PIXEL_XRGB = 0x20, GFX_PIXEL_ARGB = 0x21 };
/** In the first byte of a planar bitmap (MS-RDPEGDI 2.2.2.5.1). */
#define GFX_PLANAR_RLE 0x10u
/** FrameAcknowledge.queueDepth: acknowledgements stop until one comes again. */
#define GFX_QUEUE_SUSPEND 0xFFFFFFFFu

typedef struct GfxRect {
    uint16_t left, top, right, bottom;
} GfxRect;
typedef struct GfxPoint {
    uint16_t x, y;
} GfxPoint;
typedef struct GfxMonitor {
    int32_t left, top, right, bottom; /* inclusive (2.2.2.14, MS-RDPBCGR 2.2.1.3.6.1) */
    bool primary;
} GfxMonitor;
typedef struct GfxCapset {
    uint32_t version;
    uint32_t flags;
} GfxCapset;

void gfx_write_caps_confirm(Writer *w, const GfxCapset *capset);
void gfx_write_reset_graphics(Writer *w, uint32_t width, uint32_t height,
                              const GfxMonitor *monitors, unsigned n);
void gfx_write_create_surface(Writer *w, uint16_t id, uint16_t width, uint16_t height,
                              uint8_t pixel_format);
void gfx_write_delete_surface(Writer *w, uint16_t id);
void gfx_write_map_surface_to_output(Writer *w, uint16_t id, uint32_t x, uint32_t y);
/** @timestamp: gfx_timestamp(). */
void gfx_write_start_frame(Writer *w, uint32_t timestamp, uint32_t frame_id);
void gfx_write_end_frame(Writer *w, uint32_t frame_id);
void gfx_write_wire_to_surface_1(Writer *w, uint16_t surface, uint16_t codec, uint8_t pixel_format,
                                 const GfxRect *rect, const uint8_t *bitmap, uint32_t len);
/** The same around a bitmap that is written in between; returns what the end has to be given. */
size_t gfx_begin_wire_to_surface_1(Writer *w, uint16_t surface, uint16_t codec,
                                   uint8_t pixel_format, const GfxRect *rect);
void gfx_end_wire_to_surface_1(Writer *w, size_t begun);
/** @bgrx: the colour as bytes B, G, R, X. */
void gfx_write_solid_fill(Writer *w, uint16_t surface, const uint8_t bgrx[4], const GfxRect *rects,
                          uint16_t n);
void gfx_write_surface_to_surface(Writer *w, uint16_t source, uint16_t dest, const GfxRect *rect,
                                  const GfxPoint *points, uint16_t n);
void gfx_write_surface_to_cache(Writer *w, uint16_t surface, uint64_t key, uint16_t slot,
                                const GfxRect *rect);
void gfx_write_cache_to_surface(Writer *w, uint16_t slot, uint16_t surface, const GfxPoint *points,
                                uint16_t n);
void gfx_write_evict_cache_entry(Writer *w, uint16_t slot);
void gfx_write_delete_encoding_context(Writer *w, uint16_t surface, uint32_t context);
/** Says that none of the offered entries is taken. */
void gfx_write_cache_import_reply_empty(Writer *w);
/** Milliseconds since midnight as 2.2.2.11 packs them: hour, minute, second, millisecond. */
uint32_t gfx_timestamp(uint64_t ms_of_day);

/** Length of the PDU at the start of @data, header included; 0 if that is not a whole PDU. */
size_t gfx_pdu_length(const uint8_t *data, size_t len);
/** Whether that PDU carries pictures which nothing shortens much: of a codec with entropy coding,
 * or a photograph's raw planes. */
bool gfx_pdu_is_dense(const uint8_t *pdu, size_t len);

typedef struct GfxAck {
    uint32_t queue_depth;
    uint32_t frame_id;
    uint32_t total_decoded;
} GfxAck;
typedef struct GfxQoe {
    uint32_t frame_id;
    uint32_t timestamp;
    uint16_t decode_ms, render_ms; /* differences, as the client measures them */
} GfxQoe;

/** One PDU of a client. */
typedef struct GfxClientPdu {
    uint16_t cmd;
    union {
        struct {
            uint16_t n; /* at most GFX_MAX_CAPSETS */
            GfxCapset sets[GFX_MAX_CAPSETS];
        } caps;
        GfxAck ack;
        GfxQoe qoe;
        uint16_t offered; /* CacheImportOffer: entries */
    };
} GfxClientPdu;

/** Reads the next PDU from @r, which holds unwrapped bytes. False, with *@why, if it is malformed;
 * an unknown command is skipped and reported by its .cmd. */
bool gfx_parse_client(Reader *r, GfxClientPdu *pdu, const char **why);

#endif
