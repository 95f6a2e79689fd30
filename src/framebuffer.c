/*
 * Theory of operation.
 *
 * There is one shadow: our own copy of the guest's picture, always B, G, R, X. Viewers never look
 * at QEMU's memory, only at the shadow, so that what two viewers were shown cannot differ and an
 * encoder never sees a pixel change under its hands.
 *
 * A scanout arrives in one of two ways. By value: the bytes are compared with the shadow as they
 * come, tile by tile, and tiles that differ are copied and marked dirty for every viewer. In shared
 * memory: damage only marks tiles as suspect; the comparison waits until some viewer takes a
 * frame, so ten damage messages for the same tile cost one comparison. The guest writes while we
 * compare and copy; a torn tile is put right by the damage that the same write causes afterwards.
 *
 * A viewer is lent the shadow itself as its frame. Its frame has been encoded and given back by the
 * time it takes the next one, which is when the mapping is looked at again: so a single viewer
 * never costs a copy. Where something may be written meanwhile (for another viewer, or by value),
 * all of the shadow is copied then, and small changes are copied at once instead.
 *
 * The shadow may be larger than the visible picture. Without Unix.Map a mode switch shows as
 * Updates in the new size and, on another connection and so in no fixed order, as a change of the
 * console's Width and Height: pixels beyond today's size are kept until the size catches up.
 *
 * A mapping is checked against the size of the file when it is made. A QEMU that truncates its own
 * memfd afterwards can still raise SIGBUS here: that is out of scope, because QEMU is what we
 * serve and our death is the least it can cause.
 */
#include "framebuffer.h"

#include <errno.h>
#include <pixman.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "frame.h"
#include "framebuffer_format.h"
#include "log.h"
#include "pages.h"
#include "pixels.h"

#define SUBJECT FRAMEBUFFER_SUBJECT
#define TILE FRAMEBUFFER_TILE

typedef struct Map {
    uint8_t *base; /* NULL: no mapping */
    size_t len;
    const uint8_t *pixels;
    uint32_t stride;
    pixman_format_code_t format;
} Map;

struct Framebuffer {
    void (*damaged)(void *user);
    void *user;
    uint32_t width, height, generation;
    uint32_t announced_width, announced_height; /* console properties, 0 until known */
    bool blank;

    uint8_t *shadow;                      /* to be written to after own_shadow() */
    Frame *lent;                          /* the frame that has .shadow as its pixels, or NULL */
    uint32_t shadow_width, shadow_height; /* capacity */
    size_t shadow_stride;

    Map map;
    uint32_t columns, rows;
    uint8_t *suspect; /* a byte per tile: damaged in the mapping, not compared yet */
    bool any_suspect;
    bool announced_damage; /* damaged() was called and no viewer has looked since */

    GPtrArray *viewers;
    FramePool *pool;
};

struct FramebufferViewer {
    Framebuffer *fb;
    uint8_t *dirty; /* a byte per tile */
    bool any_dirty;
    bool blank_due; /* the display went off and this viewer does not know yet */
};

/* ---- tiles ---- */

static void signal_damage(Framebuffer *fb)
{
    if (fb->announced_damage)
        return;
    fb->announced_damage = true;
    if (fb->damaged)
        fb->damaged(fb->user);
}

static void viewer_all_dirty(FramebufferViewer *viewer)
{
    size_t n = (size_t)viewer->fb->columns * viewer->fb->rows;

    if (n > 0)
        memset(viewer->dirty, 1, n);
    viewer->any_dirty = n > 0;
}

/* Marks the tiles that @rect touches in @tiles. The rectangle may lie anywhere. */
static bool mark_tiles(const Framebuffer *fb, uint8_t *tiles, const Rect *rect)
{
    int64_t x0 = MAX((int64_t)rect->x, 0), y0 = MAX((int64_t)rect->y, 0);
    int64_t x1 = MIN((int64_t)rect->x + rect->w, fb->width);
    int64_t y1 = MIN((int64_t)rect->y + rect->h, fb->height);

    if (x0 >= x1 || y0 >= y1)
        return false;
    size_t left = (size_t)x0 / TILE, right = (size_t)(x1 - 1) / TILE;
    for (size_t row = (size_t)y0 / TILE; row <= (size_t)(y1 - 1) / TILE; row++)
        memset(tiles + row * fb->columns + left, 1, right - left + 1);
    return true;
}

/* The tiles [@left, @right) of @row, in pixels of the picture. */
static Rect tiles_rect(const Framebuffer *fb, uint32_t left, uint32_t right, uint32_t row)
{
    return (Rect){
        .x = (int32_t)(left * TILE),
        .y = (int32_t)(row * TILE),
        .w = (int32_t)(MIN(right * TILE, fb->width) - left * TILE),
        .h = (int32_t)MIN(TILE, fb->height - row * TILE),
    };
}

static void tile_changed(Framebuffer *fb, size_t tile)
{
    for (guint i = 0; i < fb->viewers->len; i++) {
        FramebufferViewer *viewer = g_ptr_array_index(fb->viewers, i);
        viewer->dirty[tile] = 1;
        viewer->any_dirty = true;
    }
}

/* Most rows are equal to the last byte, which memcmp() says fastest. A guest that writes X bytes
 * only has drawn nothing. */
static bool rows_equal(const uint8_t *a, const uint8_t *b, size_t bytes)
{
    return memcmp(a, b, bytes) == 0 || pixels_equal(a, b, (unsigned)(bytes / 4));
}

static void own_shadow(Framebuffer *fb)
{
    if (fb->lent)
        fb->shadow = frame_reclaim(g_steal_pointer(&fb->lent));
}

static void free_shadow(Framebuffer *fb)
{
    if (fb->lent)
        g_clear_pointer(&fb->lent, frame_unref);
    else
        free(fb->shadow);
    fb->shadow = NULL;
}

static uint8_t *shadow_at(const Framebuffer *fb, uint32_t x, uint32_t y)
{
    return fb->shadow + y * fb->shadow_stride + (size_t)x * 4;
}

/* Copies @band, which lies in one row of tiles, from @src to the shadow as far as it differs, and
 * marks the tiles: of each one the rows from the first different one on. Goes along the rows of
 * pixels through all tiles, since memory that is read in its order comes several times faster.
 * Returns whether any tile of the picture changed. */
static bool copy_band(Framebuffer *fb, const Rect *band, const uint8_t *src, size_t stride)
{
    const uint32_t x0 = (uint32_t)band->x, x1 = (uint32_t)(band->x + band->w);
    const uint32_t first = x0 / TILE, n = (x1 - 1) / TILE - first + 1;
    const uint32_t y1 = (uint32_t)(band->y + band->h);
    bool differs[FRAMEBUFFER_MAX_SIDE / TILE] = {false};
    bool changed = false;

    for (uint32_t y = (uint32_t)band->y; y < y1; y++, src += stride) {
        uint8_t *shadow = shadow_at(fb, 0, y);
        for (uint32_t i = 0, x = x0; i < n; i++) {
            const uint32_t end = MIN((first + i + 1) * TILE, x1);
            const uint8_t *in = src + (size_t)(x - x0) * 4;
            const size_t bytes = (size_t)(end - x) * 4;
            if (!differs[i])
                differs[i] = !rows_equal(shadow + (size_t)x * 4, in, bytes);
            if (differs[i])
                memcpy(shadow + (size_t)x * 4, in, bytes);
            x = end;
        }
    }
    for (uint32_t i = 0; i < n && (uint32_t)band->y < fb->height; i++) {
        if (differs[i] && first + i < fb->columns) {
            tile_changed(fb, (size_t)((uint32_t)band->y / TILE) * fb->columns + first + i);
            changed = true;
        }
    }
    return changed;
}

/* Compares the tiles [@left, @right) of @row. */
static void compare_mapped(Framebuffer *fb, uint32_t left, uint32_t right, uint32_t row)
{
    const Rect band = tiles_rect(fb, left, right, row);
    const uint8_t *src = fb->map.pixels + (size_t)band.y * fb->map.stride + (size_t)band.x * 4;

    if (fb->map.format == PIXMAN_x8r8g8b8) {
        copy_band(fb, &band, src, fb->map.stride);
        return;
    }
    for (uint32_t column = left; column < right; column++) {
        const Rect tile = tiles_rect(fb, column, column + 1, row);
        uint32_t converted[TILE * TILE];
        picture_convert(fb->map.format, fb->map.pixels, fb->map.stride, &tile, (uint8_t *)converted,
                        TILE * 4);
        copy_band(fb, &tile, (const uint8_t *)converted, TILE * 4);
    }
}

/* Compares what is suspect in the mapping. */
static void look(Framebuffer *fb)
{
    fb->announced_damage = false;
    if (!fb->any_suspect)
        return;
    fb->any_suspect = false;
    own_shadow(fb);
    for (uint32_t row = 0; row < fb->rows; row++) {
        uint8_t *suspect = fb->suspect + (size_t)row * fb->columns;
        for (uint32_t column = 0; column < fb->columns; column++) {
            const uint32_t left = column;
            while (column < fb->columns && suspect[column])
                suspect[column++] = 0;
            if (column > left)
                compare_mapped(fb, left, column, row);
        }
    }
}

/* ---- size ---- */

/* Makes the shadow at least that large and keeps what it shows. */
static void reserve_shadow(Framebuffer *fb, uint32_t width, uint32_t height)
{
    if (width <= fb->shadow_width && height <= fb->shadow_height)
        return;
    width = MAX(width, fb->shadow_width);
    height = MAX(height, fb->shadow_height);
    size_t stride = ((size_t)width * 4 + 63u) & ~(size_t)63u;
    uint8_t *shadow = pages_alloc(stride * height);
    memset(shadow, 0, stride * height);
    for (uint32_t y = 0; y < fb->shadow_height; y++)
        memcpy(shadow + y * stride, fb->shadow + y * fb->shadow_stride,
               (size_t)fb->shadow_width * 4);
    free_shadow(fb);
    fb->shadow = shadow;
    fb->shadow_width = width;
    fb->shadow_height = height;
    fb->shadow_stride = stride;
}

/* A new size is a new surface: everything is dirty for everybody. */
static void set_size(Framebuffer *fb, uint32_t width, uint32_t height)
{
    if (fb->width == width && fb->height == height)
        return;
    fb->width = width;
    fb->height = height;
    fb->columns = (width + TILE - 1) / TILE;
    fb->rows = (height + TILE - 1) / TILE;
    fb->generation++;

    size_t n = (size_t)fb->columns * fb->rows;
    g_free(fb->suspect);
    fb->suspect = g_malloc0(n);
    fb->any_suspect = false;
    for (guint i = 0; i < fb->viewers->len; i++) {
        FramebufferViewer *viewer = g_ptr_array_index(fb->viewers, i);
        g_free(viewer->dirty);
        viewer->dirty = g_malloc0(n);
        viewer_all_dirty(viewer);
    }
}

/* What was allocated for a larger mode is not kept through the next whole picture. A fresh shadow
 * is not what the viewers have seen, so comparing with it proves nothing. */
static void fit_shadow(Framebuffer *fb, uint32_t width, uint32_t height)
{
    bool fresh = fb->shadow_width != width || fb->shadow_height != height;

    if (fresh) {
        free_shadow(fb);
        fb->shadow_width = fb->shadow_height = 0;
        reserve_shadow(fb, width, height);
    }
    set_size(fb, width, height);
    for (guint i = 0; fresh && i < fb->viewers->len; i++)
        viewer_all_dirty(g_ptr_array_index(fb->viewers, i));
}

static void unblank(Framebuffer *fb)
{
    if (!fb->blank)
        return;
    fb->blank = false;
    for (guint i = 0; i < fb->viewers->len; i++) {
        FramebufferViewer *viewer = g_ptr_array_index(fb->viewers, i);
        viewer->blank_due = false;
        viewer_all_dirty(viewer);
    }
}

static void drop_map(Framebuffer *fb)
{
    if (fb->map.base)
        munmap(fb->map.base, fb->map.len);
    memset(&fb->map, 0, sizeof(fb->map));
    fb->any_suspect = false;
    if (fb->suspect)
        memset(fb->suspect, 0, (size_t)fb->columns * fb->rows);
}

/* ---- scanouts ---- */

Framebuffer *framebuffer_new(void (*damaged)(void *user), void *user)
{
    Framebuffer *fb = g_new0(Framebuffer, 1);

    fb->damaged = damaged;
    fb->user = user;
    fb->blank = true;
    fb->viewers = g_ptr_array_new();
    fb->pool = frame_pool_new();
    return fb;
}

void framebuffer_free(Framebuffer *fb)
{
    if (!fb)
        return;
    g_assert(fb->viewers->len == 0);
    drop_map(fb);
    g_ptr_array_unref(fb->viewers);
    free_shadow(fb);
    g_free(fb->suspect);
    frame_pool_unref(fb->pool);
    g_free(fb);
}

/* Maps @size bytes at @offset of @fd. */
static bool map_memory(Map *map, int fd, uint32_t offset, uint64_t size)
{
    struct stat st;
    uint32_t page_offset = offset % (uint32_t)sysconf(_SC_PAGESIZE);

    if (fstat(fd, &st) < 0 || st.st_size < 0 || offset + size > (uint64_t)st.st_size) {
        log_warning(SUBJECT,
                    "ScanoutMap: %" G_GUINT64_FORMAT " bytes at %u exceed the shared memory", size,
                    offset);
        return false;
    }
    map->len = (size_t)(size + page_offset);
    void *base = mmap(NULL, map->len, PROT_READ, MAP_SHARED, fd, (off_t)(offset - page_offset));
    if (base == MAP_FAILED) {
        log_warning(SUBJECT, "ScanoutMap: cannot map the guest's picture: %s", g_strerror(errno));
        return false;
    }
    map->base = base;
    map->pixels = map->base + page_offset;
    return true;
}

bool framebuffer_set_map(Framebuffer *fb, int fd, uint32_t offset, uint32_t width, uint32_t height,
                         uint32_t stride, uint32_t format)
{
    Map map = {.stride = stride};
    bool ok = picture_ok("ScanoutMap", width, height, stride, format, &map.format);

    if (ok && offset % 4 != 0) {
        log_warning(SUBJECT, "ScanoutMap: offset %u is not a multiple of 4", offset);
        ok = false;
    }
    ok = ok && map_memory(&map, fd, offset, picture_size(width, height, stride, map.format));
    close(fd);
    if (!ok) {
        framebuffer_disable(fb);
        return false;
    }

    drop_map(fb);
    fit_shadow(fb, width, height);
    unblank(fb);
    fb->map = map;
    framebuffer_update_map(fb, &(Rect){0, 0, (int32_t)width, (int32_t)height});
    return true;
}

void framebuffer_update_map(Framebuffer *fb, const Rect *rect)
{
    if (!fb->map.base || !mark_tiles(fb, fb->suspect, rect))
        return;
    fb->any_suspect = true;
    signal_damage(fb);
}

/* Compares @data with the shadow under @rect, tile by tile; @data is BGRX. True if it differs. */
static bool store(Framebuffer *fb, const Rect *rect, const uint8_t *data, size_t stride)
{
    const uint32_t y1 = (uint32_t)(rect->y + rect->h);
    bool changed = false;

    own_shadow(fb);
    for (uint32_t y = (uint32_t)rect->y; y < y1;) {
        const uint32_t next_y = MIN((y / TILE + 1) * TILE, y1);
        const Rect band = {rect->x, (int32_t)y, rect->w, (int32_t)(next_y - y)};
        changed |= copy_band(fb, &band, data + (size_t)(y - (uint32_t)rect->y) * stride, stride);
        y = next_y;
    }
    return changed;
}

/* As store() for any format. */
static bool store_converted(Framebuffer *fb, const Rect *rect, uint32_t stride,
                            pixman_format_code_t format, const uint8_t *data, size_t len)
{
    if (format == PIXMAN_x8r8g8b8)
        return store(fb, rect, data, stride);

    /* pixman wants words; D-Bus promises bytes. */
    uint8_t *aligned = (uintptr_t)data % 4 != 0 ? g_memdup2(data, len) : NULL;
    size_t out_stride = (size_t)rect->w * 4;
    uint8_t *out = g_malloc(out_stride * (size_t)rect->h);
    picture_convert(format, aligned ? aligned : data, stride, &(Rect){0, 0, rect->w, rect->h}, out,
                    out_stride);
    bool changed = store(fb, rect, out, out_stride);
    g_free(out);
    g_free(aligned);
    return changed;
}

static bool payload_ok(const char *what, uint32_t width, uint32_t height, uint32_t stride,
                       pixman_format_code_t format, size_t len)
{
    if (picture_size(width, height, stride, format) <= len)
        return true;
    log_warning(SUBJECT, "%s: %zu bytes are too few for %ux%u", what, len, width, height);
    return false;
}

bool framebuffer_set_scanout(Framebuffer *fb, uint32_t width, uint32_t height, uint32_t stride,
                             uint32_t format, const uint8_t *data, size_t len)
{
    pixman_format_code_t known;

    if (!picture_ok("Scanout", width, height, stride, format, &known) ||
        !payload_ok("Scanout", width, height, stride, known, len)) {
        framebuffer_disable(fb);
        return false;
    }
    bool was_blank = fb->blank;
    bool fresh = fb->shadow_width != width || fb->shadow_height != height;
    drop_map(fb);
    fit_shadow(fb, width, height);
    unblank(fb);
    bool changed = store_converted(fb, &(Rect){0, 0, (int32_t)width, (int32_t)height}, stride,
                                   known, data, len);
    if (changed || was_blank || fresh)
        signal_damage(fb);
    return true;
}

bool framebuffer_update(Framebuffer *fb, const Rect *rect, uint32_t stride, uint32_t format,
                        const uint8_t *data, size_t len)
{
    pixman_format_code_t known;
    int64_t right = (int64_t)rect->x + rect->w, bottom = (int64_t)rect->y + rect->h;

    if (rect->x < 0 || rect->y < 0 || rect->w <= 0 || rect->h <= 0 ||
        right > FRAMEBUFFER_MAX_SIDE || bottom > FRAMEBUFFER_MAX_SIDE) {
        log_warning(SUBJECT, "Update: rectangle %d,%d %dx%d is out of range", rect->x, rect->y,
                    rect->w, rect->h);
        return false;
    }
    if (!picture_ok("Update", (uint32_t)rect->w, (uint32_t)rect->h, stride, format, &known) ||
        !payload_ok("Update", (uint32_t)rect->w, (uint32_t)rect->h, stride, known, len))
        return false;

    /* Pixels by value mean that the mapping is history, whether or not that was said. */
    bool was_blank = fb->blank;
    drop_map(fb);
    if (fb->announced_width > 0) {
        reserve_shadow(fb, fb->announced_width, fb->announced_height);
        set_size(fb, fb->announced_width, fb->announced_height);
    }
    reserve_shadow(fb, (uint32_t)right, (uint32_t)bottom);
    if (fb->width == 0)
        set_size(fb, (uint32_t)right, (uint32_t)bottom);
    unblank(fb);
    bool changed = store_converted(fb, rect, stride, known, data, len);
    if (changed || was_blank)
        signal_damage(fb);
    return true;
}

void framebuffer_resize(Framebuffer *fb, uint32_t width, uint32_t height)
{
    if (width == 0 || height == 0 || width > FRAMEBUFFER_MAX_SIDE || height > FRAMEBUFFER_MAX_SIDE)
        return;
    fb->announced_width = width;
    fb->announced_height = height;
    /* A mapping brings its own size, and before the first scanout there is nothing to resize. */
    if (fb->map.base || fb->width == 0 || (fb->width == width && fb->height == height))
        return;
    reserve_shadow(fb, width, height);
    set_size(fb, width, height);
    if (!fb->blank)
        signal_damage(fb);
}

void framebuffer_disable(Framebuffer *fb)
{
    drop_map(fb);
    if (fb->blank)
        return;
    fb->blank = true;
    for (guint i = 0; i < fb->viewers->len; i++)
        ((FramebufferViewer *)g_ptr_array_index(fb->viewers, i))->blank_due = true;
    signal_damage(fb);
}

void framebuffer_size(const Framebuffer *fb, uint32_t *width, uint32_t *height)
{
    *width = fb->width;
    *height = fb->height;
}

/* ---- viewers ---- */

FramebufferViewer *framebuffer_viewer_new(Framebuffer *fb)
{
    FramebufferViewer *viewer = g_new0(FramebufferViewer, 1);

    viewer->fb = fb;
    viewer->dirty = g_malloc0((size_t)fb->columns * fb->rows);
    viewer->blank_due = fb->blank && fb->width > 0;
    viewer_all_dirty(viewer);
    g_ptr_array_add(fb->viewers, viewer);
    frame_pool_set_idle(fb->pool, false);
    return viewer;
}

void framebuffer_viewer_free(FramebufferViewer *viewer)
{
    if (!viewer)
        return;
    g_ptr_array_remove_fast(viewer->fb->viewers, viewer);
    if (viewer->fb->viewers->len == 0)
        frame_pool_set_idle(viewer->fb->pool, true);
    g_free(viewer->dirty);
    g_free(viewer);
}

void framebuffer_viewer_invalidate(FramebufferViewer *viewer, const Rect *rect)
{
    if (viewer->fb->width == 0)
        return;
    if (viewer->fb->blank)
        viewer->blank_due = true;
    else if (!rect)
        viewer_all_dirty(viewer);
    else if (mark_tiles(viewer->fb, viewer->dirty, rect))
        viewer->any_dirty = true;
}

/* Appends the run of dirty tiles [left, right) of @row, or lengthens the rectangle that ends right
 * above it; rectangles before @search_from ended earlier. */
static void add_run(const Framebuffer *fb, GArray *rects, guint search_from, uint32_t left,
                    uint32_t right, uint32_t row)
{
    const Rect run = tiles_rect(fb, left, right, row);

    for (guint i = search_from; i < rects->len; i++) {
        Rect *above = &g_array_index(rects, Rect, i);
        if (above->x == run.x && above->w == run.w && above->y + above->h == run.y) {
            above->h += run.h;
            return;
        }
    }
    g_array_append_val(rects, run);
}

/* Turns the viewer's dirty tiles into rectangles and clears them. */
static GArray *collect_rects(FramebufferViewer *viewer)
{
    const Framebuffer *fb = viewer->fb;
    GArray *rects = g_array_new(FALSE, FALSE, sizeof(Rect));
    guint search_from = 0;

    for (uint32_t row = 0; row < fb->rows; row++) {
        uint8_t *dirty = viewer->dirty + (size_t)row * fb->columns;
        for (uint32_t column = 0; column < fb->columns; column++) {
            uint32_t left = column;
            while (column < fb->columns && dirty[column])
                dirty[column++] = 0;
            if (column > left)
                add_run(fb, rects, search_from, left, column, row);
        }
        /* Rectangles that ended above this row cannot grow any more. */
        while (search_from < rects->len) {
            const Rect *r = &g_array_index(rects, Rect, search_from);
            if (r->y + r->h > (int32_t)(row * TILE))
                break;
            search_from++;
        }
    }
    return rects;
}

/* The shadow can be a frame as it is. */
static bool may_lend(const Framebuffer *fb, const Frame *frame)
{
    return !fb->lent && fb->shadow_width == fb->width && fb->shadow_height == fb->height &&
           fb->shadow_stride == frame->stride;
}

/* Whether @rects are much of the picture. */
static bool is_much(const Framebuffer *fb, const GArray *rects)
{
    uint64_t area = 0;

    for (guint i = 0; i < rects->len; i++) {
        const Rect *r = &g_array_index(rects, Rect, i);
        area += (uint64_t)r->w * (uint64_t)r->h;
    }
    return area * 4 >= (uint64_t)fb->width * fb->height;
}

static void copy_rects(const Framebuffer *fb, Frame *frame)
{
    for (uint32_t i = 0; i < frame->n_rects; i++) {
        const Rect *r = &frame->rects[i];
        uint8_t *out = frame->pixels + (size_t)r->y * frame->stride + (size_t)r->x * 4;
        const uint8_t *in = shadow_at(fb, (uint32_t)r->x, (uint32_t)r->y);
        for (int32_t y = 0; y < r->h; y++)
            memcpy(out + (size_t)y * frame->stride, in + (size_t)y * fb->shadow_stride,
                   (size_t)r->w * 4);
    }
}

FramebufferViewer *framebuffer_viewer_copy(const FramebufferViewer *viewer)
{
    FramebufferViewer *copy = framebuffer_viewer_new(viewer->fb);

    copy->blank_due = viewer->blank_due;
    copy->any_dirty = viewer->any_dirty;
    if (viewer->any_dirty)
        memcpy(copy->dirty, viewer->dirty, (size_t)viewer->fb->columns * viewer->fb->rows);
    else if (copy->dirty)
        memset(copy->dirty, 0, (size_t)viewer->fb->columns * viewer->fb->rows);
    return copy;
}

bool framebuffer_viewer_look(FramebufferViewer *viewer)
{
    look(viewer->fb);
    return viewer->blank_due || (viewer->any_dirty && !viewer->fb->blank);
}

Frame *framebuffer_viewer_take(FramebufferViewer *viewer)
{
    Framebuffer *fb = viewer->fb;

    if (!framebuffer_viewer_look(viewer))
        return NULL;
    if (viewer->blank_due) {
        viewer->blank_due = false;
        Frame *blank = frame_new(fb->pool, fb->width, fb->height, fb->generation);
        blank->blank = true;
        return blank;
    }
    viewer->any_dirty = false;

    GArray *rects = collect_rects(viewer);
    Frame *frame = frame_new(fb->pool, fb->width, fb->height, fb->generation);
    if (fb->lent && frame_is_back(fb->lent))
        own_shadow(fb);
    const bool much = is_much(fb, rects), alone = fb->map.base && fb->viewers->len == 1;
    const bool lend = may_lend(fb, frame) && (much || alone);
    uint32_t n_rects = rects->len;
    Rect *list = (Rect *)(void *)g_array_free(rects, FALSE);
    if (lend) {
        frame_lend(frame, fb->shadow, list, n_rects);
        frame->whole = much; /* of a small change the rest is not worth looking at */
        fb->lent = frame_ref(frame);
    } else {
        frame_set_rects(frame, list, n_rects);
        copy_rects(fb, frame);
    }
    return frame;
}
