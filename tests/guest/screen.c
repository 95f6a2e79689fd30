/*
 * The guest's screen. As a DRM client it takes the display from the text console, sets a mode of
 * the connector, draws deterministic scenes into one dumb buffer, and (mode "preferred") follows
 * the host's wishes: virtio-gpu announces a new preferred mode with a hot-plug uevent, which is
 * what a desktop's compositor reacts to when the client's window is resized. Without it, fbhash
 * reads the text console's frame buffer. The console's own font draws the text scenes.
 */
#include "guest.h"

#include <drm.h>
#include <drm_mode.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fb.h>
#include <linux/kd.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/timerfd.h>
#include <unistd.h>

enum { MAX_MODES = 128, MAX_OBJECTS = 16, FLIP_X = 16, FLIP_Y = 16, FLIP_SIZE = 48 };

struct surface {
    uint32_t width, height, pitch; /* pitch in bytes */
    uint32_t handle, fb;
    size_t size;
    uint8_t *pixels;
};

static int card = -1;
static int console = -1;
static int timer = -1;
static uint32_t connector, crtc;
static bool following;
static struct surface surface;
static char scene[32] = "bars";
static uint32_t scene_arg;
static bool flip_on, flip_white;
static unsigned long animated; /* frames since animate started */
static uint8_t font[512 * 32]; /* 8 pixels wide, up to 32 rows per glyph */
static unsigned font_height;

static uint32_t random_next(uint32_t *state)
{
    uint32_t x = *state;
    x ^= x << 13;
    x ^= x >> 17;
    x ^= x << 5;
    return *state = x;
}

static void put(uint32_t x, uint32_t y, uint32_t color)
{
    if (x < surface.width && y < surface.height)
        memcpy(surface.pixels + (size_t)y * surface.pitch + 4 * (size_t)x, &color, 4);
}

static void fill(uint32_t x, uint32_t y, uint32_t width, uint32_t height, uint32_t color)
{
    for (uint32_t row = y; row < y + height; row++)
        for (uint32_t column = x; column < x + width; column++)
            put(column, row, color);
}

/* The font can be read only while the console is in text mode. */
static void font_load(void)
{
    struct console_font_op op = {
        .op = KD_FONT_OP_GET, .width = 8, .height = 32, .charcount = 512, .data = font};
    if (!font_height && console >= 0 && ioctl(console, KDFONTOP, &op) == 0 && op.width == 8)
        font_height = op.height;
}

static void draw_string(uint32_t x, uint32_t y, const char *text, uint32_t ink)
{
    for (; *text; text++, x += 8)
        for (uint32_t row = 0; row < font_height; row++)
            for (uint32_t column = 0; column < 8; column++)
                if (font[(uint8_t)*text * 32 + row] & (0x80 >> column))
                    put(x + column, y + row, ink);
}

/* Lines of words; line n always reads the same, so that starting at n + 1 is scrolling by one line.
 */
static void draw_lines(uint32_t first)
{
    uint32_t height = font_height ? font_height : 16;
    fill(0, 0, surface.width, surface.height, 0xffffff);
    for (uint32_t y = 0, n = first; y < surface.height; y += height, n++) {
        char line[512];
        uint32_t state = n * 2654435761u + 1;
        size_t columns = surface.width / 8 < sizeof line - 1 ? surface.width / 8 : sizeof line - 1;
        size_t at = (size_t)snprintf(line, sizeof line, "%6u  ", n);
        while (at < columns) {
            uint32_t r = random_next(&state);
            line[at++] = r % 6 == 0 ? ' ' : (char)('a' + r / 8 % 26);
        }
        line[columns] = 0;
        draw_string(0, y, line, 0x202020);
    }
}

static bool draw_scene(void)
{
    static const uint32_t bars[] = {0xffffff, 0xffff00, 0x00ffff, 0x00ff00,
                                    0xff00ff, 0xff0000, 0x0000ff, 0x000000};
    uint32_t w = surface.width, h = surface.height;
    if (strcmp(scene, "solid") == 0) {
        fill(0, 0, w, h, scene_arg);
    } else if (strcmp(scene, "bars") == 0) {
        for (uint32_t i = 0; i < 8; i++)
            fill(i * w / 8, 0, (i + 1) * w / 8 - i * w / 8, h, bars[(i + scene_arg) % 8]);
        fill(0, 0, w, 1, 0xff0000); /* a border shows at once whether an edge is cut off */
        fill(0, h - 1, w, 1, 0xff0000);
        fill(0, 0, 1, h, 0x00ff00);
        fill(w - 1, 0, 1, h, 0x00ff00);
    } else if (strcmp(scene, "gradient") == 0) {
        for (uint32_t y = 0; y < h; y++)
            for (uint32_t x = 0; x < w; x++)
                put(x, y, (x * 255 / w) << 16 | (y * 255 / h) << 8 | (scene_arg & 255));
    } else if (strcmp(scene, "noise") == 0) {
        uint32_t state = scene_arg * 2654435761u + 1;
        for (uint32_t y = 0; y < h; y++)
            for (uint32_t x = 0; x < w; x++)
                put(x, y, random_next(&state) & 0xffffff);
    } else if (strcmp(scene, "film") == 0) { /* noise in a part: what is worth a codec for video */
        uint32_t state = scene_arg * 2654435761u + 1;
        if (scene_arg == 0)
            fill(0, 0, w, h, 0x305070);
        for (uint32_t y = h / 4; y < h / 2; y++)
            for (uint32_t x = w / 4; x < w / 2; x++)
                put(x, y, random_next(&state) & 0xffffff);
    } else if (strcmp(scene, "text") == 0 || strcmp(scene, "scroll") == 0) {
        draw_lines(strcmp(scene, "text") == 0 ? scene_arg * 1000 : scene_arg);
    } else {
        return false;
    }
    if (flip_on)
        screen_draw_block();
    return true;
}

/* Tells the driver which part changed; those that scan out of video memory have no such call. */
void screen_flush(const struct clip *clips, unsigned count)
{
    struct drm_clip_rect rects[16];
    if (count > sizeof rects / sizeof *rects)
        count = sizeof rects / sizeof *rects;
    for (unsigned i = 0; i < count; i++)
        rects[i] = (struct drm_clip_rect){clips[i].x1, clips[i].y1, clips[i].x2, clips[i].y2};
    struct drm_mode_fb_dirty_cmd dirty = {
        .fb_id = surface.fb, .num_clips = count, .clips_ptr = (uintptr_t)rects};
    ioctl(card, DRM_IOCTL_MODE_DIRTYFB, &dirty);
}

static void flush(uint16_t x1, uint16_t y1, uint16_t x2, uint16_t y2)
{
    struct clip clip = {x1, y1, x2, y2};
    screen_flush(&clip, 1);
}

static void flush_all(void)
{
    flush(0, 0, (uint16_t)surface.width, (uint16_t)surface.height);
}

static void surface_free(struct surface *old)
{
    if (!old->pixels)
        return;
    munmap(old->pixels, old->size);
    ioctl(card, DRM_IOCTL_MODE_RMFB, &old->fb);
    struct drm_mode_destroy_dumb destroy = {.handle = old->handle};
    ioctl(card, DRM_IOCTL_MODE_DESTROY_DUMB, &destroy);
    *old = (struct surface){0};
}

static bool surface_new(struct surface *made, uint32_t width, uint32_t height)
{
    struct drm_mode_create_dumb create = {.width = width, .height = height, .bpp = 32};
    if (ioctl(card, DRM_IOCTL_MODE_CREATE_DUMB, &create) < 0)
        return false;
    struct drm_mode_fb_cmd fb = {.width = width,
                                 .height = height,
                                 .pitch = create.pitch,
                                 .bpp = 32,
                                 .depth = 24,
                                 .handle = create.handle};
    struct drm_mode_map_dumb map = {.handle = create.handle};
    if (ioctl(card, DRM_IOCTL_MODE_ADDFB, &fb) < 0 ||
        ioctl(card, DRM_IOCTL_MODE_MAP_DUMB, &map) < 0)
        return false;
    void *pixels =
        mmap(NULL, create.size, PROT_READ | PROT_WRITE, MAP_SHARED, card, (off_t)map.offset);
    if (pixels == MAP_FAILED)
        return false;
    *made = (struct surface){.width = width,
                             .height = height,
                             .pitch = create.pitch,
                             .handle = create.handle,
                             .fb = fb.fb_id,
                             .size = create.size,
                             .pixels = pixels};
    return true;
}

/* Asks the connector anew, which makes the driver probe it. */
static bool read_connector(uint32_t id, struct drm_mode_get_connector *info,
                           struct drm_mode_modeinfo *modes, uint32_t *encoders)
{
    uint32_t props[64];
    uint64_t values[64];
    *info = (struct drm_mode_get_connector){.connector_id = id};
    if (ioctl(card, DRM_IOCTL_MODE_GETCONNECTOR, info) < 0) /* counts 0: probe */
        return false;
    info->modes_ptr = (uintptr_t)modes;
    info->encoders_ptr = (uintptr_t)encoders;
    info->props_ptr = (uintptr_t)props;
    info->prop_values_ptr = (uintptr_t)values;
    if (info->count_modes > MAX_MODES)
        info->count_modes = MAX_MODES;
    if (info->count_encoders > MAX_OBJECTS)
        info->count_encoders = MAX_OBJECTS;
    if (info->count_props > 64)
        info->count_props = 64;
    return ioctl(card, DRM_IOCTL_MODE_GETCONNECTOR, info) == 0;
}

/* Takes the first connected connector and a CRTC that can drive it. */
static bool choose_connector(void)
{
    uint32_t crtcs[MAX_OBJECTS], connectors[MAX_OBJECTS], encoders[MAX_OBJECTS];
    struct drm_mode_card_res res = {0};
    if (ioctl(card, DRM_IOCTL_MODE_GETRESOURCES, &res) < 0 || res.count_crtcs > MAX_OBJECTS ||
        res.count_connectors > MAX_OBJECTS)
        return false;
    res = (struct drm_mode_card_res){.crtc_id_ptr = (uintptr_t)crtcs,
                                     .connector_id_ptr = (uintptr_t)connectors,
                                     .count_crtcs = res.count_crtcs,
                                     .count_connectors = res.count_connectors};
    if (ioctl(card, DRM_IOCTL_MODE_GETRESOURCES, &res) < 0)
        return false;
    for (uint32_t i = 0; i < res.count_connectors; i++) {
        static struct drm_mode_modeinfo modes[MAX_MODES];
        struct drm_mode_get_connector info;
        if (!read_connector(connectors[i], &info, modes, encoders) || info.connection != 1 ||
            !info.count_encoders)
            continue;
        struct drm_mode_get_encoder encoder = {.encoder_id = encoders[0]};
        if (ioctl(card, DRM_IOCTL_MODE_GETENCODER, &encoder) < 0)
            continue;
        for (uint32_t bit = 0; bit < res.count_crtcs; bit++)
            if (encoder.possible_crtcs >> bit & 1) {
                connector = connectors[i];
                crtc = crtcs[bit];
                return true;
            }
    }
    return false;
}

/* Sets the mode called name, or the preferred one, and draws the scene; a reason, or NULL. */
static const char *set_mode(const char *name)
{
    static struct drm_mode_modeinfo modes[MAX_MODES];
    uint32_t encoders[MAX_OBJECTS];
    struct drm_mode_get_connector info;
    if (!read_connector(connector, &info, modes, encoders) || !info.count_modes)
        return "the connector has no modes";
    struct drm_mode_modeinfo *mode = NULL;
    for (uint32_t i = 0; i < info.count_modes && !mode; i++)
        if (name ? strcmp(modes[i].name, name) == 0
                 : (modes[i].type & DRM_MODE_TYPE_PREFERRED) != 0)
            mode = &modes[i];
    if (!mode && name)
        return "the connector has no such mode";
    if (!mode)
        mode = &modes[0];
    if (surface.pixels && surface.width == mode->hdisplay && surface.height == mode->vdisplay)
        return NULL;
    struct surface old = surface, made = {0};
    if (!surface_new(&made, mode->hdisplay, mode->vdisplay))
        return strerror(errno);
    surface = made;
    draw_scene();
    struct drm_mode_crtc set = {.set_connectors_ptr = (uintptr_t)&connector,
                                .count_connectors = 1,
                                .crtc_id = crtc,
                                .fb_id = surface.fb,
                                .mode_valid = 1,
                                .mode = *mode};
    if (ioctl(card, DRM_IOCTL_MODE_SETCRTC, &set) < 0) {
        const char *why = strerror(errno);
        surface_free(&surface);
        surface = old;
        return why;
    }
    flush_all();
    surface_free(&old);
    return NULL;
}

static void console_take(bool take)
{
    if (console < 0)
        console = open("/dev/tty1", O_RDWR | O_CLOEXEC | O_NOCTTY);
    if (take)
        font_load();
    ioctl(console, KDSETMODE, take ? KD_GRAPHICS : KD_TEXT);
    ioctl(console, KDSKBMODE, take ? K_OFF : K_UNICODE); /* else keys also type into the shell */
}

int screen_drm(const char *mode, FILE *out)
{
    const char *why = NULL;
    if (strcmp(mode, "off") == 0) {
        following = false;
        scene_stop();
        if (card >= 0) {
            surface_free(&surface);
            close(card);
            card = -1;
            console_take(false);
        }
        return 0;
    }
    if (card < 0) {
        card = open("/dev/dri/card0", O_RDWR | O_CLOEXEC);
        if (card < 0 || !choose_connector()) {
            fprintf(out, "no DRM device with a connected screen: %s\n", strerror(errno));
            if (card >= 0)
                close(card);
            card = -1;
            return 1;
        }
        console_take(true);
    }
    following = strcmp(mode, "preferred") == 0;
    why = set_mode(following ? NULL : mode);
    if (why)
        fprintf(out, "%s: %s\n", mode, why);
    else
        fprintf(out, "%u %u\n", surface.width, surface.height);
    return why != NULL;
}

void screen_hotplug(void)
{
    if (following)
        set_mode(NULL);
}

int screen_pattern(const char *args, FILE *out)
{
    char name[32];
    char arg[32] = "0";
    if (!surface.pixels || sscanf(args, "%31s %31s", name, arg) < 1) {
        fprintf(out, "ask for a drm mode first, then for pattern NAME [NUMBER]\n");
        return 1;
    }
    strcpy(scene, name);
    scene_arg = (uint32_t)strtoul(arg, NULL, strcmp(name, "solid") == 0 ? 16 : 10);
    if (!draw_scene()) {
        fprintf(out, "no pattern %s: solid, bars, gradient, noise, film, text, scroll\n", name);
        return 1;
    }
    flush_all();
    return 0;
}

int screen_timer_fd(void)
{
    if (timer < 0)
        timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    return timer;
}

int screen_animate(const char *args, FILE *out)
{
    char name[32];
    unsigned fps = 0;
    struct itimerspec spec = {0};
    if (strcmp(args, "off") == 0) {
        timerfd_settime(screen_timer_fd(), 0, &spec, NULL);
        fprintf(out, "%lu\n", animated);
        return 0;
    }
    if (sscanf(args, "%31s %u", name, &fps) != 2 || fps < 1 || fps > 240) {
        fprintf(out, "animate NAME FPS, with 1 to 240 frames a second, or animate off\n");
        return 1;
    }
    if (screen_pattern(name, out))
        return 1;
    animated = 0;
    spec.it_interval.tv_nsec = fps == 1 ? 0 : 1000000000 / (long)fps;
    spec.it_interval.tv_sec = fps == 1;
    spec.it_value = spec.it_interval;
    timerfd_settime(screen_timer_fd(), 0, &spec, NULL);
    return 0;
}

void screen_tick(void)
{
    uint64_t expired;
    if (read(timer, &expired, sizeof expired) != sizeof expired || !surface.pixels)
        return;
    scene_arg += 1; /* a late frame is one frame, not several */
    animated += 1;
    draw_scene();
    flush_all();
}

struct canvas screen_canvas(void)
{
    return (struct canvas){surface.width, surface.height, surface.pitch, surface.pixels};
}

const uint8_t *screen_glyph(uint8_t character)
{
    return font + (size_t)character * 32;
}

void screen_block(bool on)
{
    flip_on = on;
    flip_white = false;
}

void screen_draw_block(void)
{
    fill(FLIP_X, FLIP_Y, FLIP_SIZE, FLIP_SIZE, flip_white ? 0xffffff : 0);
}

int screen_flip(const char *args, FILE *out)
{
    screen_block(strcmp(args, "on") == 0);
    if (!surface.pixels) {
        fprintf(out, "ask for a drm mode first\n");
        return 1;
    }
    draw_scene();
    flush_all();
    fprintf(out, "%d %d %d\n", FLIP_X, FLIP_Y, FLIP_SIZE);
    return 0;
}

void screen_key_down(void)
{
    if (!flip_on || !surface.pixels)
        return;
    flip_white = !flip_white;
    screen_draw_block();
    flush(FLIP_X, FLIP_Y, FLIP_X + FLIP_SIZE, FLIP_Y + FLIP_SIZE);
}

static uint32_t crc_update(uint32_t crc, uint8_t byte)
{
    static uint32_t table[256];
    if (!table[1])
        for (uint32_t i = 0; i < 256; i++) {
            uint32_t c = i;
            for (int bit = 0; bit < 8; bit++)
                c = c & 1 ? c >> 1 ^ 0xedb88320 : c >> 1;
            table[i] = c;
        }
    return table[(crc ^ byte) & 255] ^ crc >> 8;
}

static uint32_t crc_row(uint32_t crc, const uint8_t *row, uint32_t width)
{
    for (uint32_t x = 0; x < width; x++, row += 4) { /* memory order is B, G, R, unused */
        crc = crc_update(crc, row[2]);
        crc = crc_update(crc, row[1]);
        crc = crc_update(crc, row[0]);
    }
    return crc;
}

int screen_hash(FILE *out)
{
    uint32_t crc = 0xffffffff;
    if (surface.pixels) {
        for (uint32_t y = 0; y < surface.height; y++)
            crc = crc_row(crc, surface.pixels + (size_t)y * surface.pitch, surface.width);
        fprintf(out, "%u %u %08x\n", surface.width, surface.height, ~crc);
        return 0;
    }
    struct fb_var_screeninfo var;
    struct fb_fix_screeninfo fix;
    int fd = open("/dev/fb0", O_RDONLY | O_CLOEXEC);
    if (fd < 0 || ioctl(fd, FBIOGET_VSCREENINFO, &var) < 0 ||
        ioctl(fd, FBIOGET_FSCREENINFO, &fix) < 0 || var.bits_per_pixel != 32) {
        fprintf(out, "no frame buffer with 32 bits per pixel\n");
        if (fd >= 0)
            close(fd);
        return 1;
    }
    uint8_t *row = malloc(fix.line_length);
    bool ok = row != NULL;
    for (uint32_t y = 0; ok && y < var.yres; y++) {
        ok = pread(fd, row, fix.line_length, (off_t)(var.yoffset + y) * fix.line_length) ==
             (ssize_t)fix.line_length;
        if (ok)
            crc = crc_row(crc, row, var.xres);
    }
    free(row);
    close(fd);
    fprintf(out, ok ? "%u %u %08x\n" : "reading the frame buffer failed\n", var.xres, var.yres,
            ~crc);
    return !ok;
}
