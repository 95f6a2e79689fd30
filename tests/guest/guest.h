/*
 * The test guest's one program: agent.c answers the test harness over a virtio-serial port,
 * screen.c draws on the guest's screen, scene.c plays the benchmark's scenes on it, usbwatch.c
 * loads drivers, announces USB devices on the console and mounts sticks, usbloop.c times bulk
 * transfers, usbdo.c makes single USB requests, ttydo.c uses a serial port, camera.c a camera.
 * Statically linked, runs as root in an initramfs, talks to tests only.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

/* Opens a netlink socket that receives kernel uevents, non-blocking; -1 with errno. */
int uevent_open(void);
/* Receives one uevent into buf (NUL-terminated strings); its length, or -1 when none is waiting. */
long uevent_read(int fd, char *buf, size_t size);
/* The value of NAME= in a received uevent, or "". Points into buf. */
const char *uevent_get(const char *buf, long length, const char *name);

/* Loads drivers, announces USB devices and mounts sticks, for ever. Returns only on failure. */
int usbwatch_main(void);
/* Sends blocks round a loop device and times them. */
int usbloop_main(int argc, char **argv);
/* Plays or records through a sound device. */
int sound_main(int argc, char **argv);
/* Makes single USB requests and prints their results. */
int usbdo_main(int argc, char **argv);
/* Uses a serial port and prints what came of it. */
int ttydo_main(int argc, char **argv);
/* Takes pictures from a camera and prints their checksums. */
int camera_main(int argc, char **argv);
/* Times commands, control transfers and key events; see usbbench.c. */
int usbbench_main(int argc, char **argv);
/* The usbfs node of the first device with these ids, open; -1 if there is none. */
int usb_open(unsigned vid, unsigned pid);

/*
 * Screen requests; each prints its answer (or what went wrong) to out and returns 0 or 1.
 * drm: "preferred" (follows the connector's preferred mode), "WxH", "off". pattern: "NAME [ARG]".
 * animate: "NAME FPS", "off". flip: "on", "off".
 */
int screen_drm(const char *mode, FILE *out);
int screen_pattern(const char *args, FILE *out);
int screen_animate(const char *args, FILE *out);
int screen_flip(const char *args, FILE *out);
/* vbe: "WIDTH HEIGHT BITS NUMBER": see vbe.c. */
int vbe_show(const char *args, FILE *out);
/* Prints "WIDTH HEIGHT CRC32" of the visible pixels as packed R, G, B rows. */
int screen_hash(FILE *out);
/* The connector may have changed: follow its preferred mode if asked to. */
void screen_hotplug(void);
/* A key went down: flip the block if asked to. */
void screen_key_down(void);
/* File descriptor of the animation timer (readable = call screen_tick), created on first use. */
int screen_timer_fd(void);
void screen_tick(void);

/* For scene.c. The buffer of the drm mode, 0x00RRGGBB words; pixels is NULL without one. */
struct canvas {
    uint32_t width, height, pitch; /* pitch in bytes */
    uint8_t *pixels;
};
struct canvas screen_canvas(void);
struct clip {
    uint16_t x1, y1, x2, y2;
};
/* Tells the driver what changed. */
void screen_flush(const struct clip *clips, unsigned count);
/* 8x16 pixels, a byte for each row. */
const uint8_t *screen_glyph(uint8_t character);
/* The block that changes with each key press, black at first: whether there is one, and drawing it
 * without a flush. */
void screen_block(bool on);
void screen_draw_block(void);

/*
 * The benchmark's scenes, see scene.c. set: "NAME [block]" draws frame 0 and prints
 * "X Y WIDTH HEIGHT FPS [CODE_X CODE_Y]...": what moves, and where its number is. show: "N"
 * draws frame N. play: "SECONDS".
 */
int scene_set(const char *args, FILE *out);
int scene_show(const char *args, FILE *out);
int scene_play(const char *args, FILE *out);
int scene_stop(void);
/* As screen_timer_fd(). */
int scene_timer_fd(void);
void scene_tick(void);
/* What was played is over: "FRAME LATE", the frame on the screen and how many ticks were missed. */
bool scene_ended(char *text, size_t size);
