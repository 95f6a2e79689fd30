/*
 * Where lines of text begin. A column of a glyph is found in the client's cache if it is cut at
 * the same height of the glyph as before, so what matters is not where the cuts are but that they
 * are the same again.
 *
 * The cache itself answers that: a few columns are looked up as they would be cut with the grid of
 * the last rectangle, then from the top, then at every other phase, unless it is a photo. Only
 * where nothing is known (new text, a new font, no text at all) the rows are looked at: lines are
 * separated by rows in which little happens, at equal distances. A grid that is wrong costs bytes,
 * never exactness.
 */
#include "clearcodec_priv.h"

#define SAMPLES 32u
#define FEW_SAMPLES 8u
#define MIN_INFORMED 3u
#define MIN_PITCH 8u
#define MAX_PITCH 32u
#define MAX_ROWS 512u /* looked at for a pitch */
#define PIECES 16u    /* of a row that are looked at, */
#define PIECE 16u     /* and pixels in each */
/* A row is quiet if it has less than an eighth of the average row's edges. */
#define QUIET 8u

typedef struct Vote {
    unsigned asked, hits;
    unsigned busy; /* columns that change nearly everywhere: no text */
} Vote;

static void ask_strip(const ClearEncoder *e, const Bitmap *b, unsigned y, unsigned rows,
                      unsigned samples, Vote *vote)
{
    uint32_t column[CLEAR_BAND_ROWS];

    for (unsigned i = 0; i < samples; i++) {
        /* spread by the golden ratio: equal distances could all be the same column of a cell */
        unsigned x = (unsigned)((uint64_t)(uint32_t)(i * 0x9E3779B1u) * b->w >> 32);
        unsigned edges = 0;
        for (unsigned k = 0; k < rows; k++) {
            column[k] = bitmap_pixel(b, x, y + k);
            edges += k > 0 && column[k] != column[k - 1];
        }
        if (edges == 0) /* says nothing about where lines begin */
            continue;
        vote->asked++;
        vote->busy += edges * 4 >= rows * 3;
        vote->hits +=
            cache_find(&e->vbars, &e->columns_ring, clear_hash(column, rows), 1, column, rows) >= 0;
    }
}

/* Asks the first and the middle line of the grid. */
static Vote ask(const ClearEncoder *e, const Bitmap *b, Grid grid, unsigned samples)
{
    Vote vote = {0};

    if (grid.phase + grid.pitch > b->h)
        return vote;
    unsigned lines = (b->h - grid.phase) / grid.pitch;
    if (samples > b->w)
        samples = b->w;
    ask_strip(e, b, grid.phase, grid.pitch, samples, &vote);
    if (lines > 1)
        ask_strip(e, b, grid.phase + lines / 2 * grid.pitch, grid.pitch, samples, &vote);
    return vote;
}

static bool convincing(Vote vote)
{
    return vote.asked >= MIN_INFORMED && vote.hits * 2 >= vote.asked;
}

/* Nothing else need be tried: columns of some fonts also hit when they are cut a row off. */
static bool certain(Vote vote)
{
    return vote.asked >= MIN_INFORMED && vote.hits * 16 >= vote.asked * 15;
}

static unsigned row_edges(const Bitmap *b, unsigned y)
{
    unsigned edges = 0;

    if (b->w <= PIECES * PIECE) {
        for (unsigned x = 1; x < b->w; x++)
            edges += bitmap_pixel(b, x, y) != bitmap_pixel(b, x - 1, y);
        return edges;
    }
    for (unsigned i = 0; i < PIECES; i++) {
        unsigned from = (unsigned)((uint64_t)i * (b->w - PIECE) / (PIECES - 1));
        for (unsigned x = from + 1; x < from + PIECE; x++)
            edges += bitmap_pixel(b, x, y) != bitmap_pixel(b, x - 1, y);
    }
    return edges;
}

/* The phase at which lines of @pitch can be cut through quiet rows only, or -1: the top and
 * @wanted if they can, otherwise the middle of the widest gap. */
static int quiet_phase(const unsigned *edges, unsigned rows, unsigned pitch, unsigned wanted)
{
    unsigned sum[MAX_PITCH] = {0}, total = 0;
    unsigned best = 0, best_end = 0, length = 0;

    for (unsigned y = 0; y < rows; y++) {
        sum[y % pitch] += edges[y];
        total += edges[y];
    }
#define IS_QUIET(p) (sum[p] * pitch * QUIET <= total)
    if (total == 0)
        return -1;
    if (IS_QUIET(0))
        return 0;
    if (wanted < pitch && IS_QUIET(wanted))
        return (int)wanted;
    for (unsigned i = 0; i < 2 * pitch; i++) { /* around */
        length = IS_QUIET(i % pitch) ? length + 1 : 0;
        if (length > best) {
            best = length;
            best_end = i;
        }
    }
#undef IS_QUIET
    return best == 0 ? -1 : (int)((best_end - (best - 1) / 2) % pitch);
}

static bool look_at_rows(const ClearEncoder *e, const Bitmap *b, Grid *grid)
{
    unsigned rows = b->h < MAX_ROWS ? b->h : MAX_ROWS;
    unsigned edges[MAX_ROWS];

    for (unsigned y = 0; y < rows; y++)
        edges[y] = row_edges(b, y);
    for (unsigned pitch = MIN_PITCH - 1; pitch <= MAX_PITCH && pitch * 3 <= rows; pitch++) {
        unsigned p = pitch < MIN_PITCH ? e->grid.pitch : pitch; /* the known one first */
        int phase = p * 3 <= rows ? quiet_phase(edges, rows, p, e->grid.phase) : -1;
        if (phase >= 0) {
            *grid = (Grid){p, (unsigned)phase};
            return true;
        }
    }
    return false;
}

Grid clear_find_grid(ClearEncoder *e, const Bitmap *b)
{
    Grid known = e->grid, top = {e->grid.pitch, 0}, best = top;
    Vote vote, most = {0};

    if (b->h <= top.pitch)
        return top;
    if (certain(ask(e, b, known, SAMPLES)))
        return known;
    if (certain(most = ask(e, b, top, SAMPLES)))
        return e->grid = top;
    if (most.busy * 4 > most.asked * 3)
        return top;
    for (unsigned phase = 0; phase < known.pitch; phase++) {
        Grid grid = {known.pitch, phase};
        vote = ask(e, b, grid, FEW_SAMPLES);
        if (vote.hits * 2 < vote.asked || vote.asked == 0)
            continue;
        vote = ask(e, b, grid, SAMPLES);
        if (vote.hits > most.hits) {
            most = vote;
            best = grid;
        }
    }
    if (convincing(most))
        return e->grid = best;
    if (look_at_rows(e, b, &best))
        return e->grid = best;
    return top;
}
