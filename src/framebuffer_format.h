/*
 * Pictures as QEMU describes them: size, stride and pixel format, checked and converted. For
 * framebuffer.c only.
 */
#ifndef QRDP_FRAMEBUFFER_FORMAT_H
#define QRDP_FRAMEBUFFER_FORMAT_H

#include <pixman.h>

#include "framebuffer.h"

#define FRAMEBUFFER_SUBJECT "framebuffer"

/** Checks a picture from QEMU; says in the log what is wrong with it. *@known: its format, with
 * alpha read as padding. */
bool picture_ok(const char *what, uint32_t width, uint32_t height, uint32_t stride, uint32_t format,
                pixman_format_code_t *known);
/** Bytes from the first pixel to the last of a picture whose last row may be short. */
uint64_t picture_size(uint32_t width, uint32_t height, uint32_t stride,
                      pixman_format_code_t format);
/** Converts a rectangle at (x, y) of @src into BGRX at @out. */
void picture_convert(pixman_format_code_t format, const uint8_t *src, uint32_t stride,
                     const Rect *rect, uint8_t *out, size_t out_stride);

#endif
