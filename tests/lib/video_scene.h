/*
 * A moving picture for tests and figures of video, a client's decoder (FreeRDP's own), and how far
 * two pictures are apart.
 *
 * The picture is that of `dev bench display`'s video scene: two textures that are blended and move
 * across each other, three discs, and grain of one step. Thread: one.
 */
#ifndef QRDP_TESTS_VIDEO_SCENE_H
#define QRDP_TESTS_VIDEO_SCENE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct VideoScene VideoScene;

/** @detail: how much of the textures is fine: 0 for soft, 1 as a photograph, 8 and more as noise.
 */
VideoScene *video_scene_new(uint32_t width, uint32_t height, double detail);
void video_scene_free(VideoScene *scene);
/** Picture number @t as bytes B, G, R, X without gaps; until the next call. */
const uint8_t *video_scene_picture(VideoScene *scene, unsigned t);

typedef struct VideoScreen VideoScreen;

/** A client's surface. NULL if this FreeRDP has no H.264 decoder. */
VideoScreen *video_screen_new(uint32_t width, uint32_t height);
void video_screen_free(VideoScreen *screen);
/** Shows an RFX_AVC420_BITMAP_STREAM. False if it is malformed or does not decode. */
bool video_screen_show(VideoScreen *screen, const uint8_t *stream, size_t len);
/** Its pixels, like a scene's. */
uint8_t *video_screen_pixels(VideoScreen *screen);
/** The last stream's: rectangles and the quantiser of the first. */
unsigned video_screen_rects(const VideoScreen *screen);
unsigned video_screen_qp(const VideoScreen *screen);

/** In decibels, over all three colours; 99 if they are equal. */
double video_psnr(const uint8_t *a, const uint8_t *b, uint32_t width, uint32_t height);
/** Of luma, windows of 8x8 every 4 pixels. */
double video_ssim(const uint8_t *a, const uint8_t *b, uint32_t width, uint32_t height);

#endif
