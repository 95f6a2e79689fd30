/*
 * Theory of operation. A vector that was right in the last frame is tried first: scrolling goes on
 * by the same lines. For others, features vote. A feature is a run of WINDOW pixels of one row that
 * ends where the pixels say so (a rolling hash of them has its upper bits zero), so that the same
 * content is picked wherever it lies, without looking at every position. The frame's features in
 * changed cells go into a table, those that occur twice are struck out (text repeats itself), and
 * each row of the client's picture is scanned for them: equal features vote for the vector
 * between them.
 *
 * Votes are only hints. A vector is verified cell by cell with the pixels themselves, cells are
 * joined to rectangles, and these grow to the pixel where the content really ends. Cells that have
 * not changed but would survive the copy unharmed may lie in a rectangle; so blank lines do not cut
 * a scrolled page to pieces.
 *
 * A picture in which nothing moves (video) costs a search each frame, so failures make the search
 * rarer, down to one frame in 16. The last vectors are always tried.
 */
#include "motion.h"

#include <stdlib.h>
#include <string.h>

#include "pixels.h"

#define WINDOW 32u    /* pixels of a feature: four glyphs of a console */
#define ROW_STEP 4u   /* rows of the frame that are searched for features */
#define MIN_CELLS 24u /* fewer changed cells are cheaper to send than to search */
#define MIN_GAIN 12u  /* cells that a vector must explain */
#define MIN_VOTES 4u
#define CANDIDATES 3u /* vectors tried of those voted for */
#define REMEMBERED 3u
#define GOOD_PERCENT 60u /* of the differing cells explained: no search is needed */
#define PATIENCE 4u      /* searches in vain before they become rarer */
#define MAX_SKIP_BITS 4u /* one frame in 16 at the least */
#define RESTED_US 250000 /* after which what moves is something else */
#define TABLE_BITS 13u
#define TABLE_SIZE (1u << TABLE_BITS)
#define MAX_FEATURES (TABLE_SIZE / 2)
#define MAX_PROBES 32u
#define VOTE_BITS 10u
#define VOTE_SIZE (1u << VOTE_BITS)
#define ANCHOR_BITS 4u /* one in 16 of the positions where the colour changes is an anchor */

typedef struct Feature {
    uint32_t hash; /* 0: free */
    uint16_t x, y;
    bool twice;
} Feature;

typedef struct Vote {
    int32_t dx, dy;
    uint32_t count; /* 0: free */
} Vote;

typedef struct Vector {
    int32_t dx, dy;
} Vector;

struct Motion {
    Vector last[REMEMBERED];
    unsigned n_last;
    unsigned failures, skip;
    int64_t searched_us;
    unsigned n_features;
    Feature features[TABLE_SIZE];
    Vote votes[VOTE_SIZE];
    uint8_t *cells;                            /* what the vector at hand does to each cell */
    uint8_t same[FRAMEBUFFER_MAX_SIDE / CELL]; /* scratch, for a row of cells */
};

enum { CELL_BAD, CELL_NEUTRAL, CELL_MATCH, CELL_TAKEN };

Motion *motion_new(void)
{
    return g_new0(Motion, 1);
}

void motion_free(Motion *motion)
{
    if (!motion)
        return;
    g_free(motion->cells);
    g_free(motion);
}

/* ---- features ---- */

/* A sum over the last 32 pixels in which each counts half of the next one, modulo 2^32 (a gear
 * hash): its upper bits depend on all of them, its next value on nothing else. */
static inline uint32_t roll(uint32_t gear, uint32_t pixel)
{
    return (gear << 1) + pixel * 0x9E3779B1u;
}

/* Of the WINDOW pixels that end at @p. */
static uint32_t feature_hash(const uint8_t *p)
{
    uint64_t h = 0x9E3779B97F4A7C15u;

    p -= (WINDOW - 1) * 4;
    for (unsigned i = 0; i < WINDOW; i += 2) {
        uint64_t two = pixel_at(p + i * 4) | (uint64_t)pixel_at(p + i * 4 + 4) << 32;
        h = (h ^ two) * 0xD6E8FEB86659FD93u;
        h ^= h >> 32;
    }
    return (uint32_t)h | 1u;
}

/* Where @hash is or may go; NULL: too many others are there, as a guest may want it. */
static Feature *feature_slot(Motion *motion, uint32_t hash)
{
    uint32_t at = hash >> (32 - TABLE_BITS);

    for (unsigned probes = 0; probes < MAX_PROBES; probes++, at = (at + 1) & (TABLE_SIZE - 1)) {
        Feature *feature = &motion->features[at];
        if (feature->hash == 0 || feature->hash == hash)
            return feature;
    }
    return NULL;
}

static void add_feature(Motion *motion, uint32_t hash, int32_t x, int32_t y)
{
    Feature *slot = feature_slot(motion, hash);

    if (!slot)
        return;
    if (slot->hash == hash) {
        slot->twice = true;
        return;
    }
    *slot = (Feature){.hash = hash, .x = (uint16_t)x, .y = (uint16_t)y};
    motion->n_features++;
}

/* The changed extent, in pixels. */
static Rect extent(const Mirror *mirror)
{
    uint32_t x0 = mirror->columns, x1 = 0, y0 = mirror->rows, y1 = 0;

    for (uint32_t row = 0; row < mirror->rows; row++) {
        const CellBox *boxes = mirror->boxes + (size_t)row * mirror->columns;
        for (uint32_t column = 0; column < mirror->columns; column++) {
            if (boxes[column].x1 == 0)
                continue;
            x0 = MIN(x0, column);
            x1 = MAX(x1, column + 1);
            y0 = MIN(y0, row);
            y1 = row + 1;
        }
    }
    return (Rect){(int32_t)(x0 * CELL), (int32_t)(y0 * CELL),
                  (int32_t)(MIN(x1 * CELL, mirror->width) - x0 * CELL),
                  (int32_t)(MIN(y1 * CELL, mirror->height) - y0 * CELL)};
}

/* Whether position @x of a row may end a feature, and rolls @gear over it. */
static inline bool anchor(const uint8_t *row, int32_t x, uint32_t *gear)
{
    uint32_t pixel = pixel_at(row + x * 4);

    *gear = roll(*gear, pixel);
    return *gear >> (32 - ANCHOR_BITS) == 0 && pixel != pixel_at(row + (x - 1) * 4);
}

/* Features of the frame's row @y in [x0, x1), which it has. */
static void row_features(Motion *motion, const Mirror *mirror, const Frame *frame, int32_t y,
                         int32_t x0, int32_t x1)
{
    const CellBox *boxes = mirror->boxes + (size_t)y / CELL * mirror->columns;
    const uint8_t *row = frame_at(frame, 0, y);
    uint32_t gear = 0;

    for (int32_t x = x0; x < x1; x++) {
        if (x < x0 + (int32_t)WINDOW - 1) {
            gear = roll(gear, pixel_at(row + x * 4));
            continue;
        }
        if (!anchor(row, x, &gear) || boxes[(uint32_t)x / CELL].x1 == 0)
            continue;
        add_feature(motion, feature_hash(row + x * 4), x, y);
        if (motion->n_features >= MAX_FEATURES)
            return;
    }
}

static void collect_features(Motion *motion, const Mirror *mirror, const Frame *frame)
{
    const Rect area = extent(mirror);
    const uint32_t last = (uint32_t)(area.x + area.w - 1) / CELL;

    memset(motion->features, 0, sizeof(motion->features));
    motion->n_features = 0;
    for (int32_t y = area.y; y < area.y + area.h; y += (int32_t)ROW_STEP) {
        const uint8_t *valid = mirror->valid + (size_t)y / CELL * mirror->columns;
        for (uint32_t column = (uint32_t)area.x / CELL; column <= last; column++) {
            uint32_t left = column;
            while (column <= last && valid[column])
                column++;
            if (column > left)
                row_features(motion, mirror, frame, y, (int32_t)(left * CELL),
                             (int32_t)MIN(column * CELL, mirror->width));
            if (motion->n_features >= MAX_FEATURES)
                return;
        }
    }
}

static void vote(Motion *motion, int32_t dx, int32_t dy)
{
    uint32_t at = ((uint32_t)dx * 0x9E3779B1u ^ (uint32_t)dy * 0x85EBCA77u) >> (32 - VOTE_BITS);

    for (unsigned probes = 0; probes < MAX_PROBES; probes++, at = (at + 1) & (VOTE_SIZE - 1)) {
        Vote *v = &motion->votes[at];
        if (v->count == 0)
            *v = (Vote){.dx = dx, .dy = dy};
        if (v->dx == dx && v->dy == dy) {
            v->count++;
            return;
        }
    }
}

/* Content moves inside what changed: where it was, something else is now. */
static void collect_votes(Motion *motion, const Mirror *mirror)
{
    const Rect area = extent(mirror);
    const int32_t first = area.x + (int32_t)WINDOW - 1;

    memset(motion->votes, 0, sizeof(motion->votes));
    for (int32_t y = area.y; y < area.y + area.h; y++) {
        const uint8_t *row = mirror_at(mirror, 0, y);
        uint32_t gear = 0;
        for (int32_t x = area.x; x < area.x + area.w; x++) {
            if (x < first) {
                gear = roll(gear, pixel_at(row + x * 4));
                continue;
            }
            if (!anchor(row, x, &gear))
                continue;
            const uint32_t hash = feature_hash(row + x * 4);
            const Feature *feature = feature_slot(motion, hash);
            if (feature && feature->hash == hash && !feature->twice &&
                (feature->x != x || feature->y != y))
                vote(motion, feature->x - x, feature->y - y);
        }
    }
}

static unsigned best_votes(const Motion *motion, Vector best[CANDIDATES])
{
    uint32_t counts[CANDIDATES] = {0};
    unsigned n = 0;

    for (unsigned i = 0; i < VOTE_SIZE; i++) {
        const Vote *v = &motion->votes[i];
        if (v->count < MIN_VOTES)
            continue;
        unsigned at = n < CANDIDATES ? n : CANDIDATES;
        while (at > 0 && counts[at - 1] < v->count)
            at--;
        if (at == CANDIDATES)
            continue;
        for (unsigned j = MIN(n, CANDIDATES - 1); j > at; j--) {
            counts[j] = counts[j - 1];
            best[j] = best[j - 1];
        }
        counts[at] = v->count;
        best[at] = (Vector){v->dx, v->dy};
        n = MIN(n + 1, CANDIDATES);
    }
    return n;
}

/* ---- verification ---- */

static bool rows_match(const Mirror *mirror, const Frame *frame, const Rect *r, Vector v)
{
    if (r->x - v.dx < 0 || r->y - v.dy < 0 || r->x + r->w - v.dx > (int32_t)mirror->width ||
        r->y + r->h - v.dy > (int32_t)mirror->height)
        return false;
    for (int32_t y = r->y; y < r->y + r->h; y++) {
        if (!pixels_equal(frame_at(frame, r->x, y), mirror_at(mirror, r->x - v.dx, y - v.dy),
                          (unsigned)r->w))
            return false;
    }
    return true;
}

/* Marks each cell that the frame has; returns how many differing ones the vector explains. */
static uint32_t mark_cells(Motion *motion, const Mirror *mirror, const Frame *frame, Vector v)
{
    uint32_t gain = 0;

    for (uint32_t row = 0; row < mirror->rows; row++) {
        const size_t start = (size_t)row * mirror->columns;
        uint8_t *cells = motion->cells + start, *same = motion->same;
        for (uint32_t column = 0; column < mirror->columns; column++)
            same[column] = mirror->valid[start + column] && cells[column] != CELL_TAKEN;
        mirror_match(mirror, frame, row, v.dx, v.dy, same);
        for (uint32_t column = 0; column < mirror->columns; column++) {
            const bool differs = mirror->boxes[start + column].x1 > 0;
            if (cells[column] == CELL_TAKEN)
                continue;
            cells[column] = !same[column] ? CELL_BAD : differs ? CELL_MATCH : CELL_NEUTRAL;
            gain += cells[column] == CELL_MATCH;
        }
    }
    return gain;
}

/* Whether the frame has all pixels of @r, and they match. */
static bool strip_ok(const Mirror *mirror, const Frame *frame, const Rect *r, Vector v)
{
    if (r->x < 0 || r->y < 0 || r->x + r->w > (int32_t)mirror->width ||
        r->y + r->h > (int32_t)mirror->height)
        return false;
    for (uint32_t row = (uint32_t)r->y / CELL; row <= (uint32_t)(r->y + r->h - 1) / CELL; row++) {
        for (uint32_t col = (uint32_t)r->x / CELL; col <= (uint32_t)(r->x + r->w - 1) / CELL; col++)
            if (!mirror->valid[(size_t)row * mirror->columns + col])
                return false;
    }
    return rows_match(mirror, frame, r, v);
}

/* The content does not end at a cell's border. */
static void grow(const Mirror *mirror, const Frame *frame, Rect *r, Vector v)
{
    const int32_t most = (int32_t)CELL - 1;

    for (int32_t i = 0; i < most; i++) {
        Rect strip = {r->x, r->y - 1, r->w, 1};
        if (!strip_ok(mirror, frame, &strip, v))
            break;
        r->y--;
        r->h++;
    }
    for (int32_t i = 0; i < most; i++) {
        Rect strip = {r->x, r->y + r->h, r->w, 1};
        if (!strip_ok(mirror, frame, &strip, v))
            break;
        r->h++;
    }
    for (int32_t i = 0; i < most; i++) {
        Rect strip = {r->x - 1, r->y, 1, r->h};
        if (!strip_ok(mirror, frame, &strip, v))
            break;
        r->x--;
        r->w++;
    }
    for (int32_t i = 0; i < most; i++) {
        Rect strip = {r->x + r->w, r->y, 1, r->h};
        if (!strip_ok(mirror, frame, &strip, v))
            break;
        r->w++;
    }
}

typedef struct Run {
    uint32_t left, right, top, bottom; /* cells */
    uint32_t gain;                     /* of them that differ */
} Run;

/* The run of usable cells from @column on, ending in cells that differ; right == left: none. */
static Run next_run(const Motion *motion, const Mirror *mirror, uint32_t column, uint32_t row)
{
    const uint8_t *cells = motion->cells + (size_t)row * mirror->columns;
    Run run = {column, column, row, row + 1, 0};

    for (uint32_t i = column; i < mirror->columns; i++) {
        if (cells[i] != CELL_MATCH && cells[i] != CELL_NEUTRAL)
            break;
        if (cells[i] != CELL_MATCH)
            continue;
        if (run.gain == 0)
            run.left = i;
        run.right = i + 1;
        run.gain++;
    }
    return run;
}

static bool usable(const Motion *motion, const Mirror *mirror, uint32_t row, uint32_t left,
                   uint32_t right)
{
    const uint8_t *cells = motion->cells + (size_t)row * mirror->columns;

    for (uint32_t i = left; i < right; i++) {
        if (cells[i] != CELL_MATCH && cells[i] != CELL_NEUTRAL)
            return false;
    }
    return true;
}

static uint32_t count_matches(const Motion *motion, const Mirror *mirror, const Run *run,
                              uint32_t row)
{
    const uint8_t *cells = motion->cells + (size_t)row * mirror->columns;
    uint32_t n = 0;

    for (uint32_t i = run->left; i < run->right; i++)
        n += cells[i] == CELL_MATCH;
    return n;
}

/* Rows below that are usable over the run's width, or over a wider one that starts there. */
static void lengthen(const Motion *motion, const Mirror *mirror, Run *run)
{
    uint32_t end = run->bottom, gain = run->gain;

    for (uint32_t row = run->bottom; row < mirror->rows; row++) {
        uint32_t left = run->left, right = run->right;
        const uint8_t *cells = motion->cells + (size_t)row * mirror->columns;
        if (!usable(motion, mirror, row, left, right))
            break;
        /* a row whose matches reach further needs the rectangle to be wider from the start on */
        while (right < mirror->columns && cells[right] == CELL_MATCH)
            right++;
        while (left > 0 && cells[left - 1] == CELL_MATCH)
            left--;
        bool wider = left != run->left || right != run->right;
        for (uint32_t above = run->top; above < row && wider; above++)
            wider = usable(motion, mirror, above, left, right);
        if (wider) {
            run->left = left;
            run->right = right;
            gain = 0;
            for (uint32_t above = run->top; above < row; above++)
                gain += count_matches(motion, mirror, run, above);
        }
        uint32_t here = count_matches(motion, mirror, run, row);
        gain += here;
        if (here > 0) {
            end = row + 1;
            run->gain = gain;
        }
    }
    run->bottom = end;
}

static unsigned take_rects(Motion *motion, const Mirror *mirror, const Frame *frame, Vector v,
                           Move *moves, unsigned room)
{
    unsigned n = 0;

    for (uint32_t row = 0; row < mirror->rows; row++) {
        for (uint32_t column = 0; column < mirror->columns && n < room; column++) {
            if (motion->cells[(size_t)row * mirror->columns + column] != CELL_MATCH)
                continue;
            Run run = next_run(motion, mirror, column, row);
            lengthen(motion, mirror, &run);
            for (uint32_t y = run.top; y < run.bottom; y++)
                memset(motion->cells + (size_t)y * mirror->columns + run.left, CELL_TAKEN,
                       run.right - run.left);
            if (run.gain < MIN_GAIN / 2)
                continue;
            Rect r = {(int32_t)(run.left * CELL), (int32_t)(run.top * CELL), 0, 0};
            r.w = (int32_t)MIN(run.right * CELL, mirror->width) - r.x;
            r.h = (int32_t)MIN(run.bottom * CELL, mirror->height) - r.y;
            grow(mirror, frame, &r, v);
            moves[n++] = (Move){r, v.dx, v.dy};
        }
    }
    return n;
}

/* Against the direction of the move: what lies ahead is copied before it is overwritten. */
static int by_direction(const void *a, const void *b)
{
    const Move *x = a, *y = b;
    int32_t rows = x->dest.y - y->dest.y, columns = x->dest.x - y->dest.x;

    if (x->dy > 0)
        rows = -rows;
    if (x->dx > 0)
        columns = -columns;
    return x->dy != 0 && rows != 0 ? rows : columns;
}

static bool tried(const Vector *vectors, unsigned n, Vector v)
{
    for (unsigned i = 0; i < n; i++) {
        if (vectors[i].dx == v.dx && vectors[i].dy == v.dy)
            return true;
    }
    return false;
}

static void remember(Motion *motion, Vector v)
{
    if (tried(motion->last, motion->n_last, v))
        return;
    memmove(motion->last + 1, motion->last, sizeof(motion->last) - sizeof(motion->last[0]));
    motion->last[0] = v;
    motion->n_last = MIN(motion->n_last + 1, REMEMBERED);
}

typedef struct Search {
    Motion *motion;
    const Mirror *mirror;
    const Frame *frame;
    Move *moves;
    unsigned n;
    uint32_t explained; /* differing cells */
} Search;

/* Takes the @gain cells that mark_cells() has just found for the vector. */
static void take(Search *search, Vector v, uint32_t gain)
{
    Move *moves = search->moves + search->n;
    unsigned n = take_rects(search->motion, search->mirror, search->frame, v, moves,
                            MOTION_MAX_MOVES - search->n);

    qsort(moves, n, sizeof(moves[0]), by_direction);
    search->n += n;
    search->explained += n > 0 ? gain : 0;
}

/* Takes vectors, the one that explains most first: solid areas match many vectors, and what a wrong
 * one took would be missing from the right one. Returns whether any was good. */
static bool take_best(Search *search, Vector *vectors, unsigned n)
{
    bool any = false;

    while (n > 0 && search->n < MOTION_MAX_MOVES) {
        uint32_t most = 0;
        unsigned best = 0;
        for (unsigned i = 0; i < n; i++) {
            uint32_t gain = mark_cells(search->motion, search->mirror, search->frame, vectors[i]);
            if (gain > most) {
                most = gain;
                best = i;
            }
        }
        if (most < MIN_GAIN)
            break;
        take(search, vectors[best],
             mark_cells(search->motion, search->mirror, search->frame, vectors[best]));
        remember(search->motion, vectors[best]);
        vectors[best] = vectors[--n];
        any = true;
    }
    return any;
}

static uint32_t enough(const Mirror *mirror)
{
    return MAX((uint32_t)((uint64_t)mirror->differing * GOOD_PERCENT / 100), MIN_GAIN);
}

/* What the last frames did. Nothing is taken unless it explains this one: a search may do better.
 */
static void try_remembered(Search *search)
{
    const Motion *motion = search->motion;

    for (unsigned i = 0; i < motion->n_last; i++) {
        const Vector v = motion->last[i];
        uint32_t gain = mark_cells(search->motion, search->mirror, search->frame, v);
        if (gain >= enough(search->mirror)) {
            take(search, v, gain);
            return;
        }
    }
}

/* Whether a search may be made now: each that found nothing makes the next one rarer. */
static bool may_search(Motion *motion, int64_t now_us)
{
    if (now_us - motion->searched_us > RESTED_US)
        motion->failures = motion->skip = 0;
    if (motion->skip > 0) {
        motion->skip--;
        return false;
    }
    motion->searched_us = now_us;
    return true;
}

unsigned motion_find(Motion *motion, const Mirror *mirror, const Frame *frame,
                     Move moves[MOTION_MAX_MOVES])
{
    Search search = {motion, mirror, frame, moves, 0, 0};
    Vector vectors[CANDIDATES + REMEMBERED];

    if (mirror->differing < MIN_CELLS || !mirror->all_known)
        return 0;
    g_free(motion->cells);
    motion->cells = g_malloc0((size_t)mirror->columns * mirror->rows);

    try_remembered(&search);
    if (search.explained >= enough(mirror) || !may_search(motion, frame->captured_us))
        return search.n;
    collect_features(motion, mirror, frame);
    collect_votes(motion, mirror);
    unsigned n = best_votes(motion, vectors);
    for (unsigned i = 0; i < motion->n_last; i++) {
        if (!tried(vectors, n, motion->last[i]))
            vectors[n++] = motion->last[i];
    }
    if (take_best(&search, vectors, n))
        motion->failures = 0;
    else if (++motion->failures > PATIENCE)
        motion->skip = 1u << MIN(motion->failures - PATIENCE, MAX_SKIP_BITS);
    return search.n;
}
