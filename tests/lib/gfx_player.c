#include "gfx_player.h"

#include <freerdp/codec/clear.h>
#include <freerdp/codec/color.h>
#include <freerdp/codec/planar.h>
#include <freerdp/codec/rfx.h>
#include <glib.h>
#include <string.h>

#include "bytes.h"
#include "gfx_pdu.h"
#include "video_scene.h"

/* FreeRDP 3.33 deprecates planar_decompress() for one that 3.10 does not have. */
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"

#define MAX_SIDE 2048u /* the planar decoder takes memory for all of it */

typedef struct Surface {
    uint32_t width, height;
    uint8_t *pixels;
    VideoScreen *video; /* NULL: there was none on it */
} Surface;

struct GfxPlayer {
    GHashTable *surfaces; /* id -> Surface */
    BITMAP_PLANAR_CONTEXT *planar;
    CLEAR_CONTEXT *clear;
    RFX_CONTEXT *rfx;
    unsigned counts[UINT8_MAX + 1];
};

static void surface_free(gpointer data)
{
    Surface *surface = data;

    video_screen_free(surface->video);
    g_free(surface->pixels);
    g_free(surface);
}

GfxPlayer *gfx_player_new(void)
{
    GfxPlayer *player = g_new0(GfxPlayer, 1);

    player->surfaces = g_hash_table_new_full(NULL, NULL, NULL, surface_free);
    player->planar = freerdp_bitmap_planar_context_new(0, MAX_SIDE, MAX_SIDE);
    player->clear = clear_context_new(FALSE);
    g_assert_nonnull(player->planar);
    player->rfx = rfx_context_new(FALSE);
    g_assert_nonnull(player->clear);
    g_assert_nonnull(player->rfx);
    rfx_context_set_pixel_format(player->rfx, PIXEL_FORMAT_BGRX32);
    return player;
}

void gfx_player_free(GfxPlayer *player)
{
    g_hash_table_unref(player->surfaces);
    freerdp_bitmap_planar_context_free(player->planar);
    clear_context_free(player->clear);
    rfx_context_free(player->rfx);
    g_free(player);
}

static Surface *find(const GfxPlayer *player, uint16_t id)
{
    Surface *surface = g_hash_table_lookup(player->surfaces, GUINT_TO_POINTER(id));

    g_assert_nonnull(surface);
    return surface;
}

void gfx_player_surface(GfxPlayer *player, uint16_t id, uint32_t width, uint32_t height)
{
    Surface *surface = g_new0(Surface, 1);

    g_assert_true(width > 0 && width <= MAX_SIDE && height > 0 && height <= MAX_SIDE);
    *surface = (Surface){width, height, g_malloc((size_t)width * height * 4), NULL};
    memset(surface->pixels, 0x55, (size_t)width * height * 4);
    g_hash_table_insert(player->surfaces, GUINT_TO_POINTER(id), surface);
}

const uint8_t *gfx_player_pixels(const GfxPlayer *player, uint16_t id)
{
    return find(player, id)->pixels;
}

unsigned gfx_player_count(const GfxPlayer *player, uint16_t cmd)
{
    return player->counts[(uint8_t)cmd];
}

static GfxRect read_rect(Reader *r, const Surface *surface)
{
    GfxRect rect = {reader_u16(r), reader_u16(r), reader_u16(r), reader_u16(r)};

    g_assert_true(rect.left < rect.right && rect.right <= surface->width);
    g_assert_true(rect.top < rect.bottom && rect.bottom <= surface->height);
    return rect;
}

static void solid_fill(GfxPlayer *player, Reader *r)
{
    Surface *surface = find(player, reader_u16(r));
    const uint8_t *bgrx = reader_bytes(r, 4);
    uint16_t n = reader_u16(r);

    for (uint16_t i = 0; i < n; i++) {
        GfxRect rect = read_rect(r, surface);
        for (uint32_t y = rect.top; y < rect.bottom; y++) {
            for (uint32_t x = rect.left; x < rect.right; x++)
                memcpy(surface->pixels + ((size_t)y * surface->width + x) * 4, bgrx, 4);
        }
    }
}

static void surface_to_surface(GfxPlayer *player, Reader *r)
{
    Surface *from = find(player, reader_u16(r)), *to = find(player, reader_u16(r));
    GfxRect rect = read_rect(r, from);
    uint16_t n = reader_u16(r);
    uint32_t w = (uint32_t)(rect.right - rect.left), h = (uint32_t)(rect.bottom - rect.top);

    for (uint16_t i = 0; i < n; i++) {
        uint32_t x = reader_u16(r), y = reader_u16(r);
        g_assert_true(x + w <= to->width && y + h <= to->height);
        g_assert_true(freerdp_image_copy(to->pixels, PIXEL_FORMAT_BGRX32, to->width * 4, x, y, w, h,
                                         from->pixels, PIXEL_FORMAT_BGRX32, from->width * 4,
                                         rect.left, rect.top, NULL, FREERDP_FLIP_NONE));
    }
}

/* A surface with a film on it has nothing else. */
static void show_video(Surface *surface, const uint8_t *data, uint32_t len)
{
    if (!surface->video)
        surface->video = video_screen_new(surface->width, surface->height);
    g_assert_nonnull(surface->video);
    g_assert_true(video_screen_show(surface->video, data, len));
    memcpy(surface->pixels, video_screen_pixels(surface->video),
           (size_t)surface->width * surface->height * 4);
}

static void wire_to_surface(GfxPlayer *player, Reader *r)
{
    Surface *surface = find(player, reader_u16(r));
    uint16_t codec = reader_u16(r);
    g_assert_cmpuint(reader_u8(r), ==, GFX_PIXEL_XRGB);
    GfxRect rect = read_rect(r, surface);
    uint32_t len = reader_u32(r), w = (uint32_t)(rect.right - rect.left);
    uint32_t h = (uint32_t)(rect.bottom - rect.top);
    const uint8_t *data = reader_bytes(r, len);

    g_assert_nonnull(data);
    switch (codec) {
    case GFX_CODEC_PLANAR:
        g_assert_true(planar_decompress(player->planar, data, len, w, h, surface->pixels,
                                        PIXEL_FORMAT_BGRX32, surface->width * 4, rect.left,
                                        rect.top, w, h, FALSE));
        break;
    case GFX_CODEC_CLEARCODEC:
        g_assert_cmpint(clear_decompress(player->clear, data, len, w, h, surface->pixels,
                                         PIXEL_FORMAT_BGRX32, surface->width * 4, rect.left,
                                         rect.top, surface->width, surface->height, NULL),
                        ==, 0);
        break;
    case GFX_CODEC_CAVIDEO: {
        REGION16 region;
        region16_init(&region);
        g_assert_true(rfx_process_message(player->rfx, data, len, rect.left, rect.top,
                                          surface->pixels, PIXEL_FORMAT_BGRX32, surface->width * 4,
                                          surface->height, &region));
        region16_uninit(&region);
        break;
    }
    case GFX_CODEC_AVC420:
        show_video(surface, data, len);
        break;
    default:
        g_assert_not_reached();
    }
}

void gfx_player_play(GfxPlayer *player, const uint8_t *pdus, size_t len, size_t max_pdu)
{
    for (size_t at = 0; at < len;) {
        size_t pdu = gfx_pdu_length(pdus + at, len - at);
        Reader r;

        g_assert_cmpuint(pdu, >, 0);
        g_assert_cmpuint(pdu, <=, max_pdu);
        reader_init(&r, pdus + at, pdu);
        uint16_t cmd = reader_u16(&r);
        reader_skip(&r, 6);
        player->counts[(uint8_t)cmd]++;
        if (cmd == GFX_SOLIDFILL) {
            solid_fill(player, &r);
        } else if (cmd == GFX_WIRETOSURFACE_1) {
            wire_to_surface(player, &r);
        } else if (cmd == GFX_SURFACETOSURFACE) {
            surface_to_surface(player, &r);
        } else if (cmd == GFX_CREATESURFACE) {
            uint16_t id = reader_u16(&r), w = reader_u16(&r), h = reader_u16(&r);
            g_assert_cmpuint(reader_u8(&r), ==, GFX_PIXEL_XRGB);
            g_assert_false(g_hash_table_contains(player->surfaces, GUINT_TO_POINTER(id)));
            gfx_player_surface(player, id, w, h);
        } else if (cmd == GFX_DELETESURFACE) {
            g_assert_true(g_hash_table_remove(player->surfaces, GUINT_TO_POINTER(reader_u16(&r))));
        } else {
            g_assert_not_reached();
        }
        g_assert_true(reader_done(&r));
        at += pdu;
    }
}
