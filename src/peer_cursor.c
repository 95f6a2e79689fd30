#include "peer_cursor.h"

#include <freerdp/pointer.h>
#include <string.h>

typedef struct Slot {
    Cursor *cursor;
    uint64_t used; /* counts shows: the least is replaced */
} Slot;

struct PeerCursor {
    rdpContext *context;
    Slot slots[PEER_CURSOR_MAX_SLOTS];
    uint64_t shows;
};

void cursor_image_free(CursorImage *image)
{
    if (!image)
        return;
    g_free(image->xor_mask);
    g_free(image->and_mask);
    g_free(image);
}

/* The average of the source pixels that fall on one pixel of the scaled shape. */
static uint32_t sample(const Cursor *cursor, uint32_t x, uint32_t y, uint32_t width,
                       uint32_t height)
{
    uint32_t x0 = x * cursor->width / width, x1 = (x + 1) * cursor->width / width;
    uint32_t y0 = y * cursor->height / height, y1 = (y + 1) * cursor->height / height;
    uint32_t sum[4] = {0}, n = (x1 - x0) * (y1 - y0), result = 0;

    for (uint32_t v = y0; v < y1; v++) {
        for (uint32_t u = x0; u < x1; u++) {
            uint32_t argb = cursor->argb[(size_t)v * cursor->width + u];
            for (unsigned c = 0; c < 4; c++)
                sum[c] += argb >> (8 * c) & 0xFF;
        }
    }
    for (unsigned c = 0; c < 4; c++)
        result |= sum[c] / n << (8 * c);
    return result;
}

CursorImage *cursor_image_new(const Cursor *cursor, uint32_t max_side, unsigned bpp)
{
    uint32_t larger = MAX(cursor->width, cursor->height);
    uint32_t w = cursor->width, h = cursor->height;
    bool shows = false;

    if (w == 0 || h == 0)
        return NULL;
    if (larger > max_side) {
        w = MAX(w * max_side / larger, 1);
        h = MAX(h * max_side / larger, 1);
    }
    CursorImage *image = g_new0(CursorImage, 1);
    uint32_t bytes = bpp / 8;
    uint32_t xor_stride = (w * bytes + 1) & ~1u, and_stride = (w + 15) / 16 * 2;
    image->width = w;
    image->height = h;
    image->hot_x =
        (uint32_t)CLAMP(cursor->hot_x, 0, (int32_t)cursor->width - 1) * w / cursor->width;
    image->hot_y =
        (uint32_t)CLAMP(cursor->hot_y, 0, (int32_t)cursor->height - 1) * h / cursor->height;
    image->xor_len = xor_stride * h;
    image->xor_mask = g_malloc0(image->xor_len);
    image->and_len = and_stride * h;
    image->and_mask = g_malloc0(image->and_len);

    for (uint32_t y = 0; y < h; y++) {
        uint8_t *xor_row = image->xor_mask + (size_t)(h - 1 - y) * xor_stride;
        uint8_t *and_row = image->and_mask + (size_t)(h - 1 - y) * and_stride;
        for (uint32_t x = 0; x < w; x++) {
            uint32_t argb = sample(cursor, x, y, w, h);
            uint32_t alpha = argb >> 24;
            /* transparent: black under a set mask bit; any other colour would invert the screen */
            if (alpha == 0 || (bpp < 32 && alpha < 128)) {
                and_row[x / 8] |= (uint8_t)(0x80 >> x % 8);
                continue;
            }
            shows = true;
            for (unsigned c = 0; c < bytes; c++)
                xor_row[x * bytes + c] = (uint8_t)(argb >> (8 * c));
        }
    }
    if (!shows) {
        cursor_image_free(image);
        return NULL;
    }
    return image;
}

PeerCursor *peer_cursor_new(rdpContext *context)
{
    PeerCursor *pc = g_new0(PeerCursor, 1);

    pc->context = context;
    return pc;
}

void peer_cursor_reset(PeerCursor *pc)
{
    for (unsigned i = 0; i < PEER_CURSOR_MAX_SLOTS; i++) {
        if (pc->slots[i].cursor)
            cursor_unref(pc->slots[i].cursor);
        pc->slots[i] = (Slot){0};
    }
}

void peer_cursor_free(PeerCursor *pc)
{
    if (!pc)
        return;
    peer_cursor_reset(pc);
    g_free(pc);
}

static uint32_t setting(const PeerCursor *pc, FreeRDP_Settings_Keys_UInt32 id)
{
    return freerdp_settings_get_uint32(pc->context->settings, id);
}

/* Largest side the client can take in one update. */
static uint32_t max_side(const PeerCursor *pc)
{
    uint32_t flags = setting(pc, FreeRDP_LargePointerFlag);
    uint32_t limit = setting(pc, FreeRDP_MultifragMaxRequestSize);
    uint32_t side = 32;

    if (flags & LARGE_POINTER_FLAG_384x384)
        side = 384;
    else if (flags & LARGE_POINTER_FLAG_96x96)
        side = 96;
    while (side > 32 && side * side * 4 + (side + 16) * side / 8 + 64 > limit)
        side -= 8;
    return side;
}

static bool same(const Cursor *a, const Cursor *b)
{
    return a == b || (a->width == b->width && a->height == b->height && a->hot_x == b->hot_x &&
                      a->hot_y == b->hot_y &&
                      memcmp(a->argb, b->argb, (size_t)a->width * a->height * 4) == 0);
}

static bool show_system(PeerCursor *pc, UINT32 type)
{
    POINTER_SYSTEM_UPDATE update = {.type = type};

    return pc->context->update->pointer->PointerSystem(pc->context, &update);
}

static bool send_shape(PeerCursor *pc, const CursorImage *image, unsigned slot, unsigned bpp)
{
    rdpPointerUpdate *pointer = pc->context->update->pointer;

    if (image->width > 96 || image->height > 96) {
        POINTER_LARGE_UPDATE large = {
            .xorBpp = (UINT16)bpp,
            .cacheIndex = (UINT16)slot,
            .hotSpotX = (UINT16)image->hot_x,
            .hotSpotY = (UINT16)image->hot_y,
            .width = (UINT16)image->width,
            .height = (UINT16)image->height,
            .lengthAndMask = image->and_len,
            .lengthXorMask = image->xor_len,
            .xorMaskData = image->xor_mask,
            .andMaskData = image->and_mask,
        };
        return pointer->PointerLarge(pc->context, &large);
    }
    POINTER_NEW_UPDATE update = {
        .xorBpp = bpp,
        .colorPtrAttr =
            {
                .cacheIndex = (UINT16)slot,
                .hotSpotX = (UINT16)image->hot_x,
                .hotSpotY = (UINT16)image->hot_y,
                .width = (UINT16)image->width,
                .height = (UINT16)image->height,
                .lengthAndMask = (UINT16)image->and_len,
                .lengthXorMask = (UINT16)image->xor_len,
                .xorMaskData = image->xor_mask,
                .andMaskData = image->and_mask,
            },
    };
    if (bpp == 24)
        return pointer->PointerColor(pc->context, &update.colorPtrAttr);
    return pointer->PointerNew(pc->context, &update);
}

bool peer_cursor_show(PeerCursor *pc, Cursor *cursor)
{
    uint32_t cache = setting(pc, FreeRDP_PointerCacheSize);
    unsigned bpp = cache > 0 ? 32 : 24; /* no cache of new pointers: colour pointers only */
    unsigned slots = cache > 0 ? cache : setting(pc, FreeRDP_ColorPointerCacheSize);
    unsigned oldest = 0;

    if (!cursor)
        return show_system(pc, SYSPTR_NULL);
    slots = CLAMP(slots, 1, PEER_CURSOR_MAX_SLOTS);
    for (unsigned i = 0; i < slots; i++) {
        if (pc->slots[i].cursor && same(pc->slots[i].cursor, cursor)) {
            POINTER_CACHED_UPDATE cached = {.cacheIndex = i};
            pc->slots[i].used = ++pc->shows;
            return pc->context->update->pointer->PointerCached(pc->context, &cached);
        }
        if (pc->slots[i].used < pc->slots[oldest].used)
            oldest = i;
    }

    CursorImage *image = cursor_image_new(cursor, bpp == 32 ? max_side(pc) : 32, bpp);
    if (!image)
        return show_system(pc, SYSPTR_NULL);
    bool ok = send_shape(pc, image, oldest, bpp);
    cursor_image_free(image);
    Slot *slot = &pc->slots[oldest];
    if (slot->cursor)
        cursor_unref(slot->cursor);
    *slot = (Slot){cursor_ref(cursor), ++pc->shows};
    return ok;
}
