/*
 * Scenes for ./dev bench display: pictures that move the way a person's screen does, at a fixed
 * number of updates a second.
 *
 * Frame n of a scene is the same on every run and machine, so that everything that serves the
 * screen gets the same pictures, and one frame can be drawn again to be compared with what a client
 * saw. Scenes draw into a shadow in RAM; what an update changed is copied to the DRM buffer and
 * flushed with its clips. (The virtio-gpu driver of Linux 6.1 merges the clips of one call into
 * their bounding box.)
 *
 * Where a scene moves, 4x4 black and white cells show the low 16 bits of n, as a Gray code: a
 * client that shows a frame in pieces is at most one off. They stand where every update draws
 * anyway, and in one of the blocks of 32 columns that QEMU's SPICE server divides the screen into,
 * because it shows each by itself; in videos there are four. With "block", the block that changes
 * with each key press (screen.c) is put over the scene.
 */
#include "guest.h"

#include <stdlib.h>
#include <string.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

enum {
    MAX_CLIPS = 4,
    GLYPH_WIDTH = 8,
    GLYPH_HEIGHT = 16,
    CELL = 8, /* of the code, pixels a side */
    CODE_SIDE = 4 * CELL,
    SCROLL_LINES = 3,
    WINDOW_WIDTH = 600,
    WINDOW_HEIGHT = 400,
    TITLE_HEIGHT = 24,
    VIDEO_WIDTH = 640,
    VIDEO_HEIGHT = 360,
    PAN = 256, /* how far the video's textures move, pixels */
    DISCS = 3,
    GRAINS = 1 << 14, /* words in the table of grain */
};

struct area {
    uint32_t x, y, width, height;
};

struct scene {
    const char *name;
    unsigned fps;
    struct area (*prepare)(void); /* where it moves; also makes its textures */
    /* Draws frame n over frame n - 1, or, with whole, over nothing; the number of clips. */
    unsigned (*draw)(uint32_t n, bool whole, struct clip *clips);
};

static struct canvas canvas;
static uint32_t *shadow, width, height;
static const struct scene *scene;
static struct area area;
static uint32_t code_x, code_y, code_step, codes; /* where the codes are, and how many */
static bool with_block;
static uint32_t frame, last_frame;
static unsigned long late;
static int timer = -1;
static uint32_t *photo;      /* the window scene's background */
static uint32_t *texture[2]; /* the video's, PAN larger than its area each way */
static uint64_t grain[GRAINS + 4096];

/* Scrambles its argument: the scenes' only source of chance. */
static uint32_t chance(uint32_t x)
{
    x = (x ^ 61) ^ x >> 16;
    x *= 9;
    x ^= x >> 4;
    x *= 0x27d4eb2d;
    return x ^ x >> 15;
}

static void fill(uint32_t x, uint32_t y, uint32_t w, uint32_t h, uint32_t color)
{
    for (uint32_t row = y; row < y + h && row < height; row++)
        for (uint32_t column = x; column < x + w && column < width; column++)
            shadow[row * width + column] = color;
}

static void draw_glyph(uint32_t x, uint32_t y, char c, uint32_t ink, uint32_t paper)
{
    const uint8_t *glyph = screen_glyph((uint8_t)c);
    if (x + GLYPH_WIDTH > width)
        return;
    for (uint32_t row = 0; row < GLYPH_HEIGHT && y + row < height; row++)
        for (uint32_t column = 0; column < GLYPH_WIDTH; column++)
            shadow[(y + row) * width + x + column] = glyph[row] & (0x80 >> column) ? ink : paper;
}

static uint32_t draw_text(uint32_t x, uint32_t y, const char *text, uint32_t ink, uint32_t paper)
{
    for (; *text; text++, x += GLYPH_WIDTH)
        draw_glyph(x, y, *text, ink, paper);
    return x;
}

/* Words of lower-case letters, `length` characters with the spaces. */
static void words(char *text, unsigned length, uint32_t seed)
{
    for (unsigned i = 0; i < length; i++) {
        uint32_t r = chance(seed * 131 + i);
        text[i] = r % 6 == 0 ? (r / 6 % 5 == 0 ? '/' : ' ') : (char)('a' + r / 30 % 26);
    }
    text[length] = 0;
}

/* A line of a build's log: mostly commands that resemble each other, at times a warning. */
static void draw_log_line(uint32_t y, uint32_t n)
{
    static const char *const names[] = {
        "bytes", "queue",   "encoder", "window", "socket",  "device", "transfer", "font",
        "log",   "session", "cursor",  "table",  "channel", "frame",  "input",    "codec"};
    char text[160];
    uint32_t r = chance(n);
    const char *part = names[r % 16], *name = names[r / 16 % 16], *other = names[r / 256 % 16];
    fill(0, y, width, GLYPH_HEIGHT, 0);
    snprintf(text, sizeof text, "[%4u/9999] ", n % 10000);
    uint32_t x = draw_text(0, y, text, 0x55ff55, 0);
    if (r / 4096 % 8 == 0) {
        x = draw_text(x, y, "warning: ", 0xff55ff, 0);
        snprintf(text, sizeof text, "../src/%s/%s_%s.c:%u: unused variable '%s'", part, name, other,
                 r / 65536 % 1000, other);
    } else {
        snprintf(text, sizeof text, "cc -Isrc -O2 -g -c ../src/%s/%s_%s.c -o lib%s.a.p/%s_%s.c.o",
                 part, name, other, part, name, other);
    }
    draw_text(x, y, text, 0xaaaaaa, 0);
}

static void draw_log(uint32_t first, uint32_t lines)
{
    for (uint32_t line = 0; line * GLYPH_HEIGHT < height; line++)
        if (line < lines)
            draw_log_line(line * GLYPH_HEIGHT, first + line);
        else
            fill(0, line * GLYPH_HEIGHT, width, GLYPH_HEIGHT, 0);
}

static void draw_codes(uint32_t n)
{
    uint32_t code = (n ^ n >> 1) & 0xffff;
    for (uint32_t k = 0; k < codes; k++)
        for (uint32_t i = 0; i < 16; i++)
            fill(code_x + k * code_step + i % 4 * CELL, code_y + i / 4 * CELL, CELL, CELL,
                 code >> (15 - i) & 1 ? 0xffffff : 0);
}

static void place_codes(uint32_t x, uint32_t y, uint32_t step, uint32_t count)
{
    code_x = x;
    code_y = y;
    code_step = step;
    codes = count;
}

static struct clip clip_of(uint32_t x, uint32_t y, uint32_t w, uint32_t h)
{
    return (struct clip){(uint16_t)x, (uint16_t)y, (uint16_t)(x + w), (uint16_t)(y + h)};
}

/* Goes from 0 to range and back in steps. */
static uint32_t swing(uint32_t n, uint32_t step, uint32_t range)
{
    uint32_t at = n * step % (2 * range);
    return at < range ? at : 2 * range - at;
}

/* ---- idle, typing, scroll ---- */

enum { TEXT_ROWS = 20 };

static struct area prepare_prompt(void)
{
    return (struct area){0, TEXT_ROWS * GLYPH_HEIGHT, GLYPH_WIDTH, GLYPH_HEIGHT};
}

static unsigned draw_idle(uint32_t n, bool whole, struct clip *clips)
{
    if (whole)
        draw_log(1, TEXT_ROWS);
    fill(area.x, area.y, area.width, area.height, n & 1 ? 0xaaaaaa : 0);
    clips[0] = clip_of(area.x, area.y, area.width, area.height);
    return 1;
}

static struct area prepare_page(void)
{
    return (struct area){0, TEXT_ROWS * GLYPH_HEIGHT, width, height - TEXT_ROWS * GLYPH_HEIGHT};
}

static void draw_typed(uint32_t n, bool cursor)
{
    uint32_t columns = width / GLYPH_WIDTH;
    uint32_t cell = n % (columns * (area.height / GLYPH_HEIGHT));
    uint32_t x = cell % columns * GLYPH_WIDTH, y = area.y + cell / columns * GLYPH_HEIGHT;
    char text[2];
    words(text, 1, n);
    if (cursor)
        fill(x, y, GLYPH_WIDTH, GLYPH_HEIGHT, 0xaaaaaa);
    else
        draw_glyph(x, y, text[0], 0xaaaaaa, 0);
}

static unsigned draw_typing(uint32_t n, bool whole, struct clip *clips)
{
    uint32_t columns = width / GLYPH_WIDTH;
    if (whole) {
        draw_log(1, TEXT_ROWS);
        for (uint32_t i = 0; i < n; i++)
            draw_typed(i, false);
    } else {
        draw_typed(n - 1, false);
    }
    draw_typed(n, true);
    if (whole)
        return 0;
    uint32_t rows = area.height / GLYPH_HEIGHT;
    uint32_t from = (n - 1) % (columns * rows), to = n % (columns * rows);
    clips[0] = clip_of(from % columns * GLYPH_WIDTH, area.y + from / columns * GLYPH_HEIGHT,
                       GLYPH_WIDTH, GLYPH_HEIGHT);
    clips[1] = clip_of(to % columns * GLYPH_WIDTH, area.y + to / columns * GLYPH_HEIGHT,
                       GLYPH_WIDTH, GLYPH_HEIGHT);
    return 2;
}

static struct area prepare_screen(void)
{
    place_codes(width - CODE_SIDE, 0, 0, 1); /* it scrolls out of the top */
    return (struct area){0, 0, width, height};
}

static unsigned draw_scroll(uint32_t n, bool whole, struct clip *clips)
{
    uint32_t lines = height / GLYPH_HEIGHT, pixels = SCROLL_LINES * GLYPH_HEIGHT;
    if (whole) {
        draw_log(n * SCROLL_LINES, lines);
    } else {
        memmove(shadow, shadow + pixels * width, 4ul * (height - pixels) * width);
        for (uint32_t line = lines - SCROLL_LINES; line < lines; line++)
            draw_log_line(line * GLYPH_HEIGHT, n * SCROLL_LINES + line);
    }
    draw_codes(n);
    clips[0] = clip_of(0, 0, width, height);
    return 1;
}

/* ---- window ---- */

/* Adds an octave of noise to a row of 8-bit values with 8 fractional bits: random values on a grid,
 * and straight lines between them. */
static void add_octave(int *row, uint32_t w, uint32_t y, uint32_t cell, int amplitude,
                       uint32_t seed)
{
    int down = (int)(y % cell * 256 / cell);
    uint32_t line = seed * 7919 + y / cell * 104729;
    int left = 0, right = 0;
    for (uint32_t x = 0, i = 0; x < w; i++) {
        int above = (int)(chance(line + i + 1) & 255),
            below = (int)(chance(line + 104729 + i + 1) & 255);
        left = right;
        right = (above * (256 - down) + below * down) / 256 - 128;
        if (i == 0) {
            above = (int)(chance(line) & 255);
            below = (int)(chance(line + 104729) & 255);
            left = (above * (256 - down) + below * down) / 256 - 128;
        }
        int value = left * amplitude * 2, step = (right - left) * amplitude * 2 / (int)cell;
        for (uint32_t end = x + cell < w ? x + cell : w; x < end; x++, value += step)
            row[x] += value;
    }
}

static uint32_t channel(int value)
{
    value = value / 256 + 128;
    return (uint32_t)(value < 1 ? 1 : value > 254 ? 254 : value);
}

/* Something like a photograph: noise in cells of 256 down to `finest` pixels, hard edges here and
 * there, and grain of -amount to amount. No channel is 0 or 255. */
static uint32_t *make_photo(uint32_t w, uint32_t h, uint32_t seed, uint32_t finest, unsigned amount)
{
    uint32_t *made = malloc(4ul * w * h);
    int *light = malloc(sizeof(int) * w), *hue = malloc(sizeof(int) * w);
    if (!made || !light || !hue)
        abort();
    for (uint32_t y = 0; y < h; y++) {
        memset(light, 0, sizeof(int) * w);
        memset(hue, 0, sizeof(int) * w);
        for (uint32_t cell = 256, amplitude = 96; cell >= finest;
             cell /= 2, amplitude = amplitude * 5 / 9)
            add_octave(light, w, y, cell, (int)amplitude, seed + cell);
        add_octave(hue, w, y, 192, 70, seed + 1);
        add_octave(hue, w, y, 48, 30, seed + 2);
        for (uint32_t x = 0; x < w; x++) {
            /* where the hue passes a level another surface begins */
            int l = light[x] + (hue[x] > 4000 ? 9000 : hue[x] < -6000 ? -7000 : 0);
            int r =
                amount ? (int)((chance(seed + y * w + x) % (2 * amount + 1) - amount) * 256) : 0;
            made[y * w + x] =
                channel(l + hue[x] + r) << 16 | channel(l + r) << 8 | channel(l - hue[x] + r);
        }
    }
    free(light);
    free(hue);
    return made;
}

static struct area prepare_window(void)
{
    if (!photo)
        photo = make_photo(width, height, 1, 8, 3);
    place_codes(width / 2, height / 2, 0, 1); /* the window always covers the middle */
    return (struct area){0, 0, width, height};
}

static void window_at(uint32_t n, uint32_t *x, uint32_t *y)
{
    *x = (width - WINDOW_WIDTH) / 2 - 150 + swing(n + 20, 7, 300);
    *y = (height - WINDOW_HEIGHT) / 2 - 80 + swing(n + 9, 4, 160);
}

static void restore_photo(uint32_t x, uint32_t y, uint32_t w, uint32_t h)
{
    for (uint32_t row = y; row < y + h; row++)
        memcpy(shadow + row * width + x, photo + row * width + x, 4ul * w);
}

static unsigned draw_window(uint32_t n, bool whole, struct clip *clips)
{
    uint32_t x, y, old_x, old_y;
    char text[80];
    window_at(n, &x, &y);
    window_at(n - 1, &old_x, &old_y);
    if (whole)
        restore_photo(0, 0, width, height);
    else
        restore_photo(old_x, old_y, WINDOW_WIDTH, WINDOW_HEIGHT);
    fill(x, y, WINDOW_WIDTH, TITLE_HEIGHT, 0x3366aa);
    draw_text(x + 8, y + 4, "A window with text", 0xffffff, 0x3366aa);
    fill(x, y + TITLE_HEIGHT, WINDOW_WIDTH, WINDOW_HEIGHT - TITLE_HEIGHT, 0xffffff);
    for (uint32_t line = 0; (line + 2) * GLYPH_HEIGHT + TITLE_HEIGHT < WINDOW_HEIGHT; line++) {
        words(text, 20 + chance(line) % 50, line + 1000);
        draw_text(x + 8, y + TITLE_HEIGHT + 8 + line * GLYPH_HEIGHT, text, 0x202020, 0xffffff);
    }
    draw_codes(n);
    uint32_t left = x < old_x ? x : old_x, top = y < old_y ? y : old_y;
    clips[0] = clip_of(left, top, WINDOW_WIDTH + (x > old_x ? x : old_x) - left,
                       WINDOW_HEIGHT + (y > old_y ? y : old_y) - top);
    return 1;
}

/* ---- video, fullvideo ---- */

static void prepare_video_of(uint32_t w, uint32_t h)
{
    for (unsigned i = 0; i < 2; i++) {
        free(texture[i]);
        texture[i] = make_photo(w + PAN, h + PAN, 7 + 16 * i, 32, 0);
    }
    uint8_t *levels = (uint8_t *)grain;
    for (uint32_t i = 0; i < sizeof grain; i++)
        levels[i] = i % 4 == 3 ? 1 : (uint8_t)(chance(i) % 3);
}

static struct area prepare_video(void)
{
    prepare_video_of(VIDEO_WIDTH, VIDEO_HEIGHT);
    struct area made = {(width - VIDEO_WIDTH) / 2, (height - VIDEO_HEIGHT) / 2, VIDEO_WIDTH,
                        VIDEO_HEIGHT};
    place_codes(made.x + 32, made.y + 32, 160, 4);
    return made;
}

static struct area prepare_fullvideo(void)
{
    prepare_video_of(width, height);
    place_codes(64, 32, 320, 4);
    return (struct area){0, 0, width, height};
}

/* Half of each texture, and grain of -1 to 1; two pixels at a time. */
static void blend_row(uint32_t *to, const uint32_t *a, const uint32_t *b, const uint64_t *noise,
                      uint32_t pixels)
{
    for (uint32_t i = 0; i + 2 <= pixels; i += 2) {
        uint64_t first, second;
        memcpy(&first, a + i, 8);
        memcpy(&second, b + i, 8);
        first = (first & second) + (((first ^ second) & 0x00fefefe00fefefe) >> 1) + noise[i / 2] -
                0x0101010101010101;
        memcpy(to + i, &first, 8);
    }
}

static void draw_disc(uint32_t center_x, uint32_t center_y, uint32_t radius, uint32_t color)
{
    for (uint32_t y = 0; y < 2 * radius; y++) {
        int32_t dy = (int32_t)y - (int32_t)radius;
        int32_t half = (int32_t)radius;
        while (half > 0 && half * half + dy * dy > (int32_t)(radius * radius))
            half--;
        fill(center_x - (uint32_t)half, center_y - radius + y, 2 * (uint32_t)half, 1, color);
    }
}

static unsigned draw_video(uint32_t n, bool whole, struct clip *clips)
{
    static const uint32_t colors[DISCS] = {0xd04030, 0x30b060, 0x4060d0};
    uint32_t stride = area.width + PAN, radius = area.height / 12;
    if (whole)
        fill(0, 0, width, height, 0x202428);
    const uint32_t *a = texture[0] + swing(n, 3, PAN) + swing(n, 1, PAN) * stride;
    const uint32_t *b = texture[1] + swing(n + 100, 2, PAN) + swing(n + 50, 3, PAN) * stride;
    for (uint32_t y = 0; y < area.height; y++)
        blend_row(shadow + (area.y + y) * width + area.x, a + y * stride, b + y * stride,
                  grain + chance(n * 4096 + y) % GRAINS, area.width);
    for (uint32_t i = 0; i < DISCS; i++)
        draw_disc(area.x + radius + swing(n + 37 * i, 5 + i, area.width - 2 * radius),
                  area.y + radius + swing(n + 71 * i, 4 - i, area.height - 2 * radius), radius,
                  colors[i]);
    draw_codes(n);
    clips[0] = clip_of(area.x, area.y, area.width, area.height);
    return 1;
}

/* ---- desktop ---- */

enum { BAR_X = 440, BAR_Y = 600, BAR_WIDTH = 400, BAR_HEIGHT = 20, CARET_X = 300, CARET_Y = 200 };

static struct area prepare_desktop(void)
{
    return (struct area){0, 0, width, height};
}

static unsigned draw_desktop(uint32_t n, bool whole, struct clip *clips)
{
    unsigned count = 0;
    char clock[16];
    uint32_t done = n * 4 % BAR_WIDTH, clock_x = width - 100;
    if (whole)
        fill(0, 0, width, height, 0x3a6ea5);
    fill(BAR_X, BAR_Y, done, BAR_HEIGHT, 0x30c030);
    fill(BAR_X + done, BAR_Y, BAR_WIDTH - done, BAR_HEIGHT, 0xe0e0e0);
    clips[count++] = clip_of(BAR_X, BAR_Y, BAR_WIDTH, BAR_HEIGHT);
    fill(CARET_X, CARET_Y, 2, GLYPH_HEIGHT, n / 5 & 1 ? 0 : 0x3a6ea5);
    if (n % 5 == 0)
        clips[count++] = clip_of(CARET_X, CARET_Y, 2, GLYPH_HEIGHT);
    snprintf(clock, sizeof clock, "12:%02u:%02u", n / 600 % 60, n / 10 % 60);
    draw_text(clock_x, 8, clock, 0xffffff, 0x3a6ea5);
    if (n % 10 == 0)
        clips[count++] = clip_of(clock_x, 8, 8 * GLYPH_WIDTH, GLYPH_HEIGHT);
    return count;
}

static const struct scene scenes[] = {
    {"idle", 2, prepare_prompt, draw_idle},
    {"typing", 20, prepare_page, draw_typing},
    {"scroll", 30, prepare_screen, draw_scroll},
    {"window", 30, prepare_window, draw_window},
    {"video", 30, prepare_video, draw_video},
    {"fullvideo", 30, prepare_fullvideo, draw_video},
    {"desktop", 10, prepare_desktop, draw_desktop},
};

/* ---- player ---- */

static void present(const struct clip *clips, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        for (uint32_t y = clips[i].y1; y < clips[i].y2; y++)
            memcpy(canvas.pixels + (size_t)y * canvas.pitch + 4ul * clips[i].x1,
                   shadow + y * width + clips[i].x1, 4ul * (uint32_t)(clips[i].x2 - clips[i].x1));
    if (with_block)
        screen_draw_block();
    screen_flush(clips, count);
}

static void present_frame(uint32_t n)
{
    struct clip clips[MAX_CLIPS];
    frame = n;
    scene->draw(n, true, clips);
    clips[0] = clip_of(0, 0, width, height);
    present(clips, 1);
}

int scene_set(const char *args, FILE *out)
{
    char name[32] = "", option[16] = "";
    sscanf(args, "%31s %15s", name, option);
    scene_stop();
    scene = NULL;
    canvas = screen_canvas();
    for (size_t i = 0; i < sizeof scenes / sizeof *scenes; i++)
        if (strcmp(scenes[i].name, name) == 0)
            scene = &scenes[i];
    if (!canvas.pixels || !scene || canvas.width < 1024 || canvas.height < 640) {
        fprintf(out, "no such scene, or no drm mode of at least 1024x640\n");
        scene = NULL;
        return 1;
    }
    if (canvas.width != width || canvas.height != height) {
        width = canvas.width;
        height = canvas.height;
        free(shadow);
        free(photo);
        photo = NULL;
        shadow = malloc(4ul * width * height);
        if (!shadow)
            abort();
    }
    codes = 0;
    area = scene->prepare();
    with_block = strcmp(option, "block") == 0;
    screen_block(with_block);
    present_frame(0);
    fprintf(out, "%u %u %u %u %u", area.x, area.y, area.width, area.height, scene->fps);
    for (uint32_t k = 0; k < codes; k++)
        fprintf(out, " %u %u", code_x + k * code_step, code_y);
    fprintf(out, "\n");
    return 0;
}

int scene_show(const char *args, FILE *out)
{
    if (!scene) {
        fprintf(out, "ask for a scene first\n");
        return 1;
    }
    present_frame((uint32_t)strtoul(args, NULL, 10));
    return 0;
}

int scene_play(const char *args, FILE *out)
{
    double seconds = strtod(args, NULL);
    if (!scene || seconds <= 0 || seconds > 3600) {
        fprintf(out, "play SECONDS, after a scene was asked for\n");
        return 1;
    }
    last_frame = frame + (uint32_t)(seconds * scene->fps);
    late = 0;
    struct itimerspec spec = {.it_interval = {0, 1000000000 / (long)scene->fps}};
    spec.it_value = spec.it_interval;
    timerfd_settime(scene_timer_fd(), 0, &spec, NULL);
    return 0;
}

int scene_stop(void)
{
    struct itimerspec spec = {0};
    timerfd_settime(scene_timer_fd(), 0, &spec, NULL);
    last_frame = frame;
    return 0;
}

int scene_timer_fd(void)
{
    if (timer < 0)
        timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    return timer;
}

void scene_tick(void)
{
    uint64_t expired;
    struct clip clips[MAX_CLIPS];
    if (read(timer, &expired, sizeof expired) != sizeof expired || !scene)
        return;
    late += expired - 1; /* a late frame is one frame, not several */
    frame += 1;
    present(clips, scene->draw(frame, false, clips));
    if (frame >= last_frame)
        scene_stop();
}

bool scene_ended(char *text, size_t size)
{
    if (scene && frame < last_frame)
        return false;
    snprintf(text, size, "%u %lu\n", frame, late);
    return true;
}
