/*
 * Cells to rectangles: everything that is marked is covered, and what is not is covered only where
 * that was asked for. And how cells are compared, against what one pixel at a time tells.
 */
#include <glib.h>
#include <string.h>

#include "cells.h"
#include "frame.h"
#include "pixels.h"

static uint32_t pick(uint32_t *seed, uint32_t n)
{
    *seed = *seed * 1664525u + 1013904223u;
    return (*seed >> 8) % n;
}

/* A column of whole cells at the left, so that something stays open from the top to the bottom. */
static void mark_cell(Mirror *m, uint8_t *marked, uint32_t column, uint32_t row, uint32_t *seed)
{
    const size_t at = (size_t)row * m->columns + column;
    const uint32_t w = (uint32_t)cell_width(m, column), h = (uint32_t)cell_height(m, row);
    CellBox box = {0, 0, (uint8_t)w, (uint8_t)h};

    m->valid[at] = pick(seed, 8) != 0;
    if (!m->valid[at] || (column > 0 && pick(seed, 3) == 0))
        return;
    if (column > 0 && pick(seed, 2)) {
        box.x0 = (uint8_t)pick(seed, w);
        box.y0 = (uint8_t)pick(seed, h);
        box.x1 = (uint8_t)(box.x0 + 1 + pick(seed, w - box.x0));
        box.y1 = (uint8_t)(box.y0 + 1 + pick(seed, h - box.y0));
    }
    m->boxes[at] = box;
    for (uint32_t y = row * CELL + box.y0; y < row * CELL + box.y1; y++)
        memset(marked + (size_t)y * m->width + column * CELL + box.x0, 1,
               (size_t)(box.x1 - box.x0));
}

static void count_cover(const Mirror *m, const GArray *rects, uint8_t *times)
{
    for (guint i = 0; i < rects->len; i++) {
        const Rect *r = &g_array_index(rects, Rect, i);
        g_assert_cmpint(r->x, >=, 0);
        g_assert_cmpint(r->y, >=, 0);
        g_assert_cmpint(r->w, >, 0);
        g_assert_cmpint(r->h, >, 0);
        g_assert_cmpint(r->x + r->w, <=, m->width);
        g_assert_cmpint(r->y + r->h, <=, m->height);
        for (int32_t y = r->y; y < r->y + r->h; y++) {
            for (int32_t x = r->x; x < r->x + r->w; x++)
                times[(size_t)y * m->width + (size_t)x]++;
        }
    }
}

static void check_cover(const Mirror *m, const uint8_t *marked, bool exact)
{
    GArray *rects = g_array_new(FALSE, FALSE, sizeof(Rect));
    const size_t n = (size_t)m->width * m->height;
    uint8_t *times = g_malloc0(n);

    cells_join(m, m->boxes, exact, UINT32_MAX, rects);
    count_cover(m, rects, times);
    for (size_t i = 0; i < n; i++) {
        uint32_t x = (uint32_t)(i % m->width), y = (uint32_t)(i / m->width);
        if (exact)
            g_assert_cmpuint(times[i], ==, marked[i]);
        else if (times[i] > 0)
            g_assert_true(m->valid[(size_t)(y / CELL) * m->columns + x / CELL]);
        else
            g_assert_cmpuint(marked[i], ==, 0);
    }
    g_free(times);
    g_array_unref(rects);
}

static void test_cover(void)
{
    const uint32_t sizes[][2] = {{1, 1}, {15, 33}, {16, 16}, {250, 3}, {3, 250}, {413, 307}};
    uint32_t seed = 1;

    for (unsigned i = 0; i < 20 * G_N_ELEMENTS(sizes); i++) {
        Mirror m;
        mirror_init(&m, sizes[i / 20][0], sizes[i / 20][1]);
        uint8_t *marked = g_malloc0((size_t)m.width * m.height);
        for (uint32_t row = 0; row < m.rows; row++) {
            for (uint32_t column = 0; column < m.columns; column++)
                mark_cell(&m, marked, column, row, &seed);
        }
        check_cover(&m, marked, true);
        check_cover(&m, marked, false);
        g_free(marked);
        mirror_clear(&m);
    }
}

/* Lines of text become few rectangles, and a film's cells no larger ones than wanted. */
static void test_joins(void)
{
    GArray *rects = g_array_new(FALSE, FALSE, sizeof(Rect));
    Mirror m;

    mirror_init(&m, 640, 480);
    memset(m.valid, 1, (size_t)m.columns * m.rows);
    for (uint32_t at = 0; at < m.columns * m.rows; at++)
        m.boxes[at] = (CellBox){0, 0, CELL, CELL};
    cells_join(&m, m.boxes, true, UINT32_MAX, rects);
    g_assert_cmpuint(rects->len, ==, 1);
    g_array_set_size(rects, 0);
    cells_join(&m, m.boxes, true, 640 * 32, rects);
    g_assert_cmpuint(rects->len, ==, 15);
    g_array_set_size(rects, 0);
    for (uint32_t at = 0; at < m.columns * m.rows; at++)
        m.boxes[at] = (CellBox){0, 2, CELL - 1, CELL};
    cells_join(&m, m.boxes, false, UINT32_MAX, rects);
    g_assert_cmpuint(rects->len, ==, 1);
    g_array_unref(rects);
    mirror_clear(&m);
}

/* The vector code is the scalar code, at any alignment; the fourth byte of a pixel does not count.
 */
static void test_pixels(void)
{
    uint8_t a[41 * 4 + 16], b[41 * 4 + 16];
    uint32_t seed = 1;

    for (unsigned round = 0; round < 3000; round++) {
        uint8_t *p = a + pick(&seed, 16), *q = b + pick(&seed, 16);
        const unsigned n = pick(&seed, 42), few = MIN(n, 32);
        for (unsigned i = 0; i < n * 4; i++)
            p[i] = q[i] = (uint8_t)pick(&seed, 3);
        for (unsigned i = 0; i < n; i++)
            q[i * 4 + 3] = (uint8_t)pick(&seed, 256);
        g_assert_true(pixels_equal(p, q, n));
        for (unsigned i = pick(&seed, 4); i > 0 && n > 0; i--)
            q[pick(&seed, n) * 4 + pick(&seed, 3)] ^= 0x80;
        bool equal = true;
        for (unsigned i = 0; i < n; i++)
            equal &= pixel_at(p + i * 4) == pixel_at(q + i * 4);
        g_assert_cmpuint(pixels_difference(p, q, few), ==, pixels_difference_scalar(p, q, few));
        g_assert_cmpint(pixels_equal(p, q, n), ==, equal);
        if (n >= 16)
            g_assert_cmpint(pixels_equal_16(p, q), ==, pixels_difference_scalar(p, q, 16) == 0);
    }
}

/* Cells that a vector explains, in a picture of four colours with the vector's copy in it. */
static void test_match(void)
{
    FramePool *pool = frame_pool_new();
    uint32_t seed = 1;

    for (unsigned round = 0; round < 60; round++) {
        const int32_t dx = (int32_t)pick(&seed, 41) - 20, dy = (int32_t)pick(&seed, 41) - 20;
        Mirror m;
        mirror_init(&m, 90 + pick(&seed, 17), 60 + pick(&seed, 17));
        Frame *frame = frame_new(pool, m.width, m.height, 0);
        frame_set_rects(frame, NULL, 0);
        for (int32_t y = 0; y < (int32_t)m.height; y++) {
            for (int32_t x = 0; x < (int32_t)m.width * 4; x++)
                mirror_at(&m, 0, y)[x] = (uint8_t)pick(&seed, 2);
        }
        for (int32_t y = 0; y < (int32_t)m.height; y++) {
            for (int32_t x = 0; x < (int32_t)m.width; x++) {
                const bool inside = x - dx >= 0 && x - dx < (int32_t)m.width && y - dy >= 0 &&
                                    y - dy < (int32_t)m.height && pick(&seed, 400) != 0;
                memcpy(frame->pixels + (size_t)y * frame->stride + x * 4,
                       inside ? mirror_at(&m, x - dx, y - dy) : (const uint8_t *)&seed, 4);
            }
        }
        for (uint32_t row = 0; row < m.rows; row++) {
            uint8_t same[8] = {0}, asked[8];
            unsigned left = 0;
            for (uint32_t column = 0; column < m.columns; column++)
                same[column] = pick(&seed, 5) != 0;
            memcpy(asked, same, sizeof(same));
            unsigned told = mirror_match(&m, frame, row, dx, dy, same);
            for (uint32_t column = 0; column < m.columns; column++) {
                bool want = asked[column];
                for (int32_t i = 0; i < cell_width(&m, column) * cell_height(&m, row); i++) {
                    const int32_t x = (int32_t)(column * CELL) + i % cell_width(&m, column);
                    const int32_t y = (int32_t)(row * CELL) + i / cell_width(&m, column);
                    want =
                        want && x - dx >= 0 && x - dx < (int32_t)m.width && y - dy >= 0 &&
                        y - dy < (int32_t)m.height &&
                        pixel_at(frame_at(frame, x, y)) == pixel_at(mirror_at(&m, x - dx, y - dy));
                }
                g_assert_cmpint(same[column], ==, want);
                left += want;
            }
            g_assert_cmpuint(told, ==, left);
        }
        frame_unref(frame);
        mirror_clear(&m);
    }
    frame_pool_unref(pool);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/cells/cover", test_cover);
    g_test_add_func("/cells/joins", test_joins);
    g_test_add_func("/cells/pixels", test_pixels);
    g_test_add_func("/cells/match", test_match);
    return g_test_run();
}
