/*
 * One frame of the graphics channel as its client, or several of them, get it: RDPGFX PDUs between
 * frame markers, packed into few messages, each compressed.
 *
 * Pure: bytes in, bytes out. A GfxPacker and a GfxFrame belong to whoever made them, one thread at
 * a time; a GfxFrame that is not changed any more may be read by any number of threads.
 */
#ifndef QRDP_CHANNELS_GFX_FRAME_H
#define QRDP_CHANNELS_GFX_FRAME_H

#include "gfx_pdu.h"
#include "zgfx.h"

/** PDUs of one frame: 4 bytes a pixel (raw ones take 3) and headers. */
#define GFX_FRAME(width, height) ((1u << 20) + 4 * (size_t)(width) * (size_t)(height))
#define GFX_MAX_FRAME GFX_FRAME(8192, 8192)

/** Frames may create and delete surfaces of their own with these ids; they go with the main one. */
#define GFX_AUX_SURFACE 0x8000u
#define GFX_AUX_SURFACES 16u

typedef struct GfxFrame {
    uint32_t id;        /* of its markers, which the client acknowledges */
    Writer messages;    /* each a length of 32 bits and so many bytes of RDP_SEGMENTED_DATA */
    size_t plain_bytes; /* before compression */
    uint16_t aux;       /* afterwards: a bit for each of GFX_AUX_SURFACES that exists */
} GfxFrame;
void gfx_frame_clear(GfxFrame *frame);

/** Where a sequence of frames begins, before the first one (gfx_start() in gfx.h): each refers to
 * those since then alone. */
typedef struct GfxStart {
    bool fresh;             /* the client shows nothing; else what it shows, it keeps */
    uint16_t surface;       /* 1..0x7FFF: the id that the frames' PDUs use */
    uint32_t width, height; /* of it, 1..8192 a side */
    uint32_t frame_id;      /* for what must be said in a frame */
    uint8_t clear_sequence; /* of the first ClearCodec stream that follows */
} GfxStart;

/** A sequence of frames that refer to each other. */
typedef struct GfxPacker {
    Zgfx *zgfx;
    uint16_t aux; /* as GfxFrame's, so far */
} GfxPacker;

void gfx_packer_init(GfxPacker *packer);
void gfx_packer_clear(GfxPacker *packer);
/** What follows is for clients that have no unmapped surfaces, and may have got anything before. */
void gfx_packer_begin(GfxPacker *packer);
/** Packs whole PDUs into messages of at most DVC_SLICE bytes, if every PDU is shorter than that.
 * @timestamp: gfx_timestamp(). False, and *@frame is nothing, if they pass GFX_MAX_FRAME: then the
 * packer is good for gfx_packer_begin() only. */
bool gfx_frame_pack(GfxPacker *packer, GfxFrame *frame, uint32_t id, uint32_t timestamp,
                    const uint8_t *pdus, size_t len);

#endif
