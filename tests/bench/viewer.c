/* clang-format off */
/*
 * Commands on standard input, each answered with one line, "ok NAME=VALUE ..." (times in microseconds of
 * CLOCK_MONOTONIC, which display.py reads too):
 *
 *   reset X Y...          counts anew; codes with the frame's number (tests/guest/scene.c) are there; number=
 *   stat                  updates= frames= bytes=
 *   hash                  hash=, CRC-32 of the picture as packed R, G, B rows
 *   save FILE             writes the picture as a PPM
 *   watch                 from now on remembers the hash after each update, once at rest for REST_MS
 *   watched               ends that: at=TIME:HASH,...
 *   grab N...             copies the picture when frame N or a later one is there
 *   grabbed               frames=N:N...,N:N... - of each copy what each code says
 *   compare I FILE X Y W H
 *                         ssim= of the Ith copy, or the picture itself if I is -1, and a part of a PPM file
 *   latency COUNT X Y     presses keys, 100 to 250 ms apart, and waits each time until the pixel has changed
 *                         between black and white: samples=TIME,... lost=
 *
 * Before the first: "READY WIDTH HEIGHT", when there is a picture.
 *
 * Frames are counted by their numbers, a part of one where not all codes show a new one: SPICE makes videos of their own of
 * blocks of the screen. Updates are counted by time: what changes within UPDATE_US is one, because some protocols show
 * one in many rectangles. A copy is taken when nothing has changed for GRAB_MS and all codes are the same; after
 * GRAB_FRAMES frames without that, in any state. Bytes are those the kernel received on all TCP sockets of the
 * process, so what TLS and framing add is counted alike for everyone.
 */
/* clang-format on */
#include "viewer.h"

#include <glib-unix.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <zlib.h>

enum {
    CELL = 8, /* as in scene.c */
    CODES_MAX = 8,
    JUMP_MAX = 150, /* frames: what is further away is misread */
    UPDATE_US = 5000,
    GRAB_MS = 8,
    REST_MS = 3,
    GRABS_MAX = 8,
    GRAB_FRAMES = 15,
    LOST_MS = 3000,
    FDS_MAX = 1024,
};

typedef struct {
    uint32_t wanted;
    uint32_t numbers[CODES_MAX];
    uint8_t *pixels; /* NULL: not yet */
} Grab;

static const uint8_t *picture;
static unsigned width, height, stride;
static GMainLoop *loop;
static void (*press_key)(bool down);
static GString *input;
static bool ready;

static struct {
    unsigned x, y;
    uint32_t number; /* the newest seen there */
} codes[CODES_MAX];
static unsigned n_codes;
static unsigned long updates, frames; /* frames: for each code */
static gint64 last_change;
static uint64_t bytes_before;

static Grab grabs[GRABS_MAX];
static unsigned n_grabs;
static guint grab_timer;

static GString *watched;
static guint watch_timer;

static struct {
    unsigned left, lost;
    unsigned x, y;
    bool waiting, white;
    gint64 pressed;
    guint timer;
    GString *samples;
} latency;

void viewer_fail(const char *what, const char *why)
{
    fprintf(stderr, "%s: %s\n", what, why ? why : "failed");
    exit(1);
}

static void answer(const char *format, ...) G_GNUC_PRINTF(1, 2);
static void answer(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vprintf(format, arguments);
    va_end(arguments);
    putchar('\n');
    fflush(stdout);
}

static const uint8_t *pixel(unsigned x, unsigned y)
{
    return picture + (size_t)y * stride + 4ul * x;
}

static bool is_white(unsigned x, unsigned y)
{
    return pixel(x, y)[0] + pixel(x, y)[1] + pixel(x, y)[2] > 3 * 128;
}

/* ---- what is in the picture ---- */

/* The middle of each cell decides: lossy codecs blur its border. */
static uint32_t read_code(unsigned left, unsigned top)
{
    uint32_t code = 0;
    for (unsigned i = 0; i < 16; i++) {
        unsigned white = 0;
        for (unsigned y = 2; y < 6; y++)
            for (unsigned x = 2; x < 6; x++)
                white += is_white(left + i % 4 * CELL + x, top + i / 4 * CELL + y);
        code = code << 1 | (white > 8);
    }
    for (unsigned shift = 8; shift; shift /= 2)
        code ^= code >> shift;
    return code;
}

/* A row of the picture as packed R, G, B. */
static void pack_row(unsigned y, uint8_t *row)
{
    const uint8_t *from = pixel(0, y);
    for (unsigned x = 0; x < width; x++, from += 4) {
        row[3 * x] = from[2];
        row[3 * x + 1] = from[1];
        row[3 * x + 2] = from[0];
    }
}

static uint32_t picture_hash(void)
{
    uint32_t crc = (uint32_t)crc32(0, NULL, 0);
    g_autofree uint8_t *row = g_malloc(3ul * width);
    for (unsigned y = 0; y < height; y++) {
        pack_row(y, row);
        crc = (uint32_t)crc32(crc, row, 3 * width);
    }
    return crc;
}

static uint64_t bytes_received(void)
{
    uint64_t sum = 0;
    for (int fd = 0; fd < FDS_MAX; fd++) {
        struct tcp_info info = {0};
        socklen_t length = sizeof info;
        if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &length) == 0)
            sum += info.tcpi_bytes_received;
    }
    return sum;
}

/* The oldest frame that a part of the picture shows. */
static uint32_t oldest(bool *whole)
{
    uint32_t number = n_codes ? codes[0].number : 0;
    *whole = true;
    for (unsigned i = 1; i < n_codes; i++) {
        *whole &= codes[i].number == codes[0].number;
        number = MIN(number, codes[i].number);
    }
    return number;
}

static gboolean grab_now(gpointer unused)
{
    bool whole;
    uint32_t number = oldest(&whole);
    grab_timer = 0;
    for (unsigned i = 0; i < n_grabs; i++) {
        Grab *grab = &grabs[i];
        if (grab->pixels || number < grab->wanted + (whole ? 0 : GRAB_FRAMES))
            continue;
        for (unsigned k = 0; k < n_codes; k++)
            grab->numbers[k] = codes[k].number;
        grab->pixels = g_malloc(4ul * width * height);
        for (unsigned y = 0; y < height; y++)
            memcpy(grab->pixels + 4ul * width * y, pixel(0, y), 4ul * width);
        break;
    }
    return G_SOURCE_REMOVE;
}

static void look_for_frames(void)
{
    for (unsigned i = 0; i < n_codes; i++) {
        uint32_t found = read_code(codes[i].x, codes[i].y);
        /* An older one, or one from far away, is half a picture. */
        if (found > codes[i].number && found - codes[i].number <= JUMP_MAX) {
            frames++;
            codes[i].number = found;
        }
    }
    if (grab_timer)
        g_source_remove(grab_timer);
    grab_timer = n_grabs ? g_timeout_add(GRAB_MS, grab_now, NULL) : 0;
}

/* ---- latency ---- */

static gboolean latency_press(gpointer unused);
static gboolean latency_lost(gpointer unused);

static void latency_next(void)
{
    latency.waiting = false;
    if (latency.left-- == 0) {
        answer("ok samples=%s lost=%u", latency.samples->str, latency.lost);
        g_string_free(latency.samples, TRUE);
        latency.samples = NULL;
        return;
    }
    latency.timer = g_timeout_add((guint)g_random_int_range(100, 250), latency_press, NULL);
}

static gboolean latency_press(gpointer unused)
{
    latency.waiting = true;
    latency.white = is_white(latency.x, latency.y);
    latency.pressed = g_get_monotonic_time();
    press_key(true);
    latency.timer = g_timeout_add(LOST_MS, latency_lost, NULL);
    return G_SOURCE_REMOVE;
}

static gboolean latency_lost(gpointer unused)
{
    latency.lost++;
    press_key(false);
    latency_next();
    return G_SOURCE_REMOVE;
}

static void latency_look(gint64 now)
{
    if (is_white(latency.x, latency.y) == latency.white)
        return;
    g_source_remove(latency.timer);
    g_string_append_printf(latency.samples, "%s%" G_GINT64_FORMAT, latency.samples->len ? "," : "",
                           now - latency.pressed);
    press_key(false);
    latency_next();
}

/* Not after each rectangle: that would take a slow protocol even longer. */
static gboolean watch_rest(gpointer unused)
{
    if (g_get_monotonic_time() - last_change < REST_MS * 1000)
        return G_SOURCE_CONTINUE;
    g_string_append_printf(watched, ",%" G_GINT64_FORMAT ":%08x", last_change, picture_hash());
    watch_timer = 0;
    return G_SOURCE_REMOVE;
}

/* ---- for the protocols ---- */

void viewer_picture(const void *pixels, unsigned w, unsigned h, unsigned row)
{
    picture = pixels;
    width = w;
    height = h;
    stride = row;
}

void viewer_changed(bool whole)
{
    gint64 now = g_get_monotonic_time();
    if (!picture)
        return;
    if (latency.waiting)
        latency_look(now);
    if (!whole)
        return;
    if (!ready) {
        ready = true;
        answer("READY %u %u", width, height);
    }
    if (now - last_change >= UPDATE_US)
        updates++;
    last_change = now;
    if (n_codes)
        look_for_frames();
    if (watched && !watch_timer)
        watch_timer = g_timeout_add(REST_MS, watch_rest, NULL);
}

/* ---- comparing ---- */

typedef struct {
    unsigned width, height;
    uint8_t *rgb;
} Ppm;

static Ppm read_ppm(const char *path)
{
    g_autofree char *contents = NULL;
    gsize length = 0;
    Ppm ppm = {0};
    int header = 0;
    if (!g_file_get_contents(path, &contents, &length, NULL) ||
        sscanf(contents, "P6 %u %u 255%n", &ppm.width, &ppm.height, &header) != 2 || !header ||
        length != (size_t)header + 1 + 3ul * ppm.width * ppm.height)
        viewer_fail("reading a PPM file", path);
    ppm.rgb = g_memdup2(contents + header + 1, 3ul * ppm.width * ppm.height);
    return ppm;
}

static void command_save(const char *path)
{
    g_autofree uint8_t *row = g_malloc(3ul * width);
    FILE *file = fopen(path, "wb");
    if (!file)
        viewer_fail("writing", path);
    fprintf(file, "P6\n%u %u\n255\n", width, height);
    for (unsigned y = 0; y < height; y++) {
        pack_row(y, row);
        fwrite(row, 3, width, file);
    }
    if (fclose(file) != 0)
        viewer_fail("writing", path);
    answer("ok");
}

static int luma(const uint8_t *p, unsigned red, unsigned blue)
{
    return (77 * p[red] + 150 * p[1] + 29 * p[blue]) >> 8;
}

/* SSIM (Wang et al. 2004) of luma in windows of 8x8, four pixels apart; the mean. */
static double compare(const uint8_t *a, unsigned a_stride, const uint8_t *b, unsigned b_stride,
                      unsigned w, unsigned h)
{
    double sum = 0;
    unsigned long windows = 0;
    for (unsigned y = 0; y + 8 <= h; y += 4)
        for (unsigned x = 0; x + 8 <= w; x += 4) {
            long sa = 0, sb = 0, saa = 0, sbb = 0, sab = 0;
            for (unsigned j = y; j < y + 8; j++)
                for (unsigned i = x; i < x + 8; i++) {
                    int p = luma(a + j * a_stride + 4 * i, 2, 0);
                    int q = luma(b + j * b_stride + 3 * i, 0, 2);
                    sa += p;
                    sb += q;
                    saa += p * p;
                    sbb += q * q;
                    sab += p * q;
                }
            double ma = (double)sa / 64, mb = (double)sb / 64;
            double va = (double)saa / 64 - ma * ma, vb = (double)sbb / 64 - mb * mb;
            double cov = (double)sab / 64 - ma * mb;
            const double c1 = 0.01 * 255 * 0.01 * 255, c2 = 0.03 * 255 * 0.03 * 255;
            sum +=
                (2 * ma * mb + c1) * (2 * cov + c2) / ((ma * ma + mb * mb + c1) * (va + vb + c2));
            windows++;
        }
    return windows ? sum / (double)windows : 0;
}

static void command_compare(const char *arguments)
{
    int index;
    char path[256];
    unsigned x, y, w, h;
    if (sscanf(arguments, "%d %255s %u %u %u %u", &index, path, &x, &y, &w, &h) != 6 ||
        index >= (int)n_grabs || (index >= 0 && !grabs[index].pixels)) {
        answer("error no such copy");
        return;
    }
    Ppm ppm = read_ppm(path);
    if (ppm.width != width || ppm.height != height || x + w > width || y + h > height)
        viewer_fail("comparing with", path);
    const uint8_t *pixels = index < 0 ? picture : grabs[index].pixels;
    unsigned row = index < 0 ? stride : 4 * width;
    double ssim = compare(pixels + (size_t)y * row + 4ul * x, row, ppm.rgb + 3ul * (y * width + x),
                          3 * width, w, h);
    answer("ok ssim=%.6f", ssim);
    g_free(ppm.rgb);
}

/* ---- commands ---- */

static void command_reset(char *arguments)
{
    bool whole;
    n_codes = 0;
    for (char *word = strtok(arguments, " "); word && n_codes < CODES_MAX;
         word = strtok(NULL, " ")) {
        unsigned x = (unsigned)strtoul(word, NULL, 10);
        word = strtok(NULL, " ");
        unsigned y = word ? (unsigned)strtoul(word, NULL, 10) : height;
        if (x + 4 * CELL > width || y + 4 * CELL > height) {
            answer("error reset X Y...");
            return;
        }
        codes[n_codes].x = x;
        codes[n_codes].y = y;
        codes[n_codes++].number = read_code(x, y);
    }
    updates = frames = 0;
    bytes_before = bytes_received();
    answer("ok number=%u", oldest(&whole));
}

static void command_grab(char *arguments)
{
    for (unsigned i = 0; i < n_grabs; i++)
        g_clear_pointer(&grabs[i].pixels, g_free);
    n_grabs = 0;
    for (char *word = strtok(arguments, " "); word && n_grabs < GRABS_MAX; word = strtok(NULL, " "))
        grabs[n_grabs++].wanted = (uint32_t)strtoul(word, NULL, 10);
    answer("ok");
}

static void command_grabbed(void)
{
    GString *list = g_string_new("ok frames=");
    for (unsigned i = 0; i < n_grabs && grabs[i].pixels; i++)
        for (unsigned k = 0; k < n_codes; k++)
            g_string_append_printf(list, "%s%u", k ? ":" : i ? "," : "", grabs[i].numbers[k]);
    answer("%s", list->str);
    g_string_free(list, TRUE);
}

static void command_latency(const char *arguments)
{
    if (sscanf(arguments, "%u %u %u", &latency.left, &latency.x, &latency.y) != 3 ||
        latency.x >= width || latency.y >= height) {
        answer("error latency COUNT X Y");
        return;
    }
    latency.lost = 0;
    latency.samples = g_string_new(NULL);
    latency_next();
}

static void command(char *line)
{
    char *arguments = line + strcspn(line, " ");
    if (*arguments)
        *arguments++ = 0;
    if (strcmp(line, "reset") == 0)
        command_reset(arguments);
    else if (strcmp(line, "stat") == 0)
        answer("ok updates=%lu frames=%.2f bytes=%" G_GUINT64_FORMAT, updates,
               n_codes ? (double)frames / n_codes : 0, bytes_received() - bytes_before);
    else if (strcmp(line, "hash") == 0)
        answer("ok hash=%08x", picture_hash());
    else if (strcmp(line, "save") == 0)
        command_save(arguments);
    else if (strcmp(line, "watch") == 0) {
        watched = g_string_new(NULL);
        g_string_append_printf(watched, "%" G_GINT64_FORMAT ":%08x", last_change, picture_hash());
        answer("ok");
    } else if (strcmp(line, "watched") == 0 && watched) {
        if (watch_timer)
            g_source_remove(watch_timer);
        watch_timer = 0;
        answer("ok at=%s", watched->str);
        g_string_free(watched, TRUE);
        watched = NULL;
    } else if (strcmp(line, "grab") == 0)
        command_grab(arguments);
    else if (strcmp(line, "grabbed") == 0)
        command_grabbed();
    else if (strcmp(line, "compare") == 0)
        command_compare(arguments);
    else if (strcmp(line, "latency") == 0)
        command_latency(arguments);
    else
        answer("error no command %s", line);
}

static gboolean on_input(gint fd, GIOCondition condition, gpointer unused)
{
    char buffer[4096];
    ssize_t n = read(fd, buffer, sizeof buffer);
    if (n <= 0) {
        g_main_loop_quit(loop);
        return G_SOURCE_REMOVE;
    }
    g_string_append_len(input, buffer, n);
    for (char *end; (end = memchr(input->str, '\n', input->len));) {
        *end = 0;
        command(input->str);
        g_string_erase(input, 0, end + 1 - input->str);
    }
    return G_SOURCE_CONTINUE;
}

void viewer_run(void (*key)(bool down))
{
    press_key = key;
    input = g_string_new(NULL);
    loop = g_main_loop_new(NULL, FALSE);
    g_unix_fd_add(STDIN_FILENO, G_IO_IN | G_IO_HUP, on_input, NULL);
    g_main_loop_run(loop);
    g_main_loop_unref(loop);
    g_string_free(input, TRUE);
}
