#include "framebuffer_format.h"

#include "log.h"

/* The formats a guest can make QEMU use, alpha read as padding. 0: not one of them. */
static pixman_format_code_t known_format(uint32_t format)
{
    switch (format) {
    case PIXMAN_a8r8g8b8:
    case PIXMAN_x8r8g8b8:
        return PIXMAN_x8r8g8b8;
    case PIXMAN_a8b8g8r8:
    case PIXMAN_x8b8g8r8:
        return PIXMAN_x8b8g8r8;
    case PIXMAN_b8g8r8a8:
    case PIXMAN_b8g8r8x8:
        return PIXMAN_b8g8r8x8;
    case PIXMAN_r8g8b8a8:
    case PIXMAN_r8g8b8x8:
        return PIXMAN_r8g8b8x8;
    case PIXMAN_a2r10g10b10:
    case PIXMAN_x2r10g10b10:
        return PIXMAN_x2r10g10b10;
    case PIXMAN_r8g8b8:
    case PIXMAN_b8g8r8:
    case PIXMAN_r5g6b5:
    case PIXMAN_b5g6r5:
        return (pixman_format_code_t)format;
    case PIXMAN_a1r5g5b5:
    case PIXMAN_x1r5g5b5:
        return PIXMAN_x1r5g5b5;
    default:
        return (pixman_format_code_t)0;
    }
}

static uint32_t format_bytes(pixman_format_code_t format)
{
    return PIXMAN_FORMAT_BPP(format) / 8;
}

bool picture_ok(const char *what, uint32_t width, uint32_t height, uint32_t stride, uint32_t format,
                pixman_format_code_t *known)
{
    *known = known_format(format);
    if (*known == 0) {
        log_warning(FRAMEBUFFER_SUBJECT, "%s: pixel format 0x%08x is not supported", what, format);
        return false;
    }
    if (width == 0 || height == 0 || width > FRAMEBUFFER_MAX_SIDE ||
        height > FRAMEBUFFER_MAX_SIDE) {
        log_warning(FRAMEBUFFER_SUBJECT, "%s: %ux%u is out of range (at most %u a side): not shown",
                    what, width, height, FRAMEBUFFER_MAX_SIDE);
        return false;
    }
    if (stride < (uint64_t)width * format_bytes(*known) || stride > INT32_MAX) {
        log_warning(FRAMEBUFFER_SUBJECT, "%s: stride %u does not fit %u pixels", what, stride,
                    width);
        return false;
    }
    if (*known != PIXMAN_x8r8g8b8 && stride % 4 != 0) { /* pixman's own rule */
        log_warning(FRAMEBUFFER_SUBJECT, "%s: stride %u is not a multiple of 4", what, stride);
        return false;
    }
    return true;
}

uint64_t picture_size(uint32_t width, uint32_t height, uint32_t stride, pixman_format_code_t format)
{
    return (uint64_t)stride * (height - 1) + (uint64_t)width * format_bytes(format);
}

void picture_convert(pixman_format_code_t format, const uint8_t *src, uint32_t stride,
                     const Rect *rect, uint8_t *out, size_t out_stride)
{
    /* pixman takes uint32_t pointers but only reads from the source. */
    pixman_image_t *from = pixman_image_create_bits_no_clear(
        format, rect->x + rect->w, rect->y + rect->h, (uint32_t *)(uintptr_t)src, (int)stride);
    pixman_image_t *to = pixman_image_create_bits_no_clear(
        PIXMAN_x8r8g8b8, rect->w, rect->h, (uint32_t *)(void *)out, (int)out_stride);
    g_assert(from && to);
    pixman_image_composite32(PIXMAN_OP_SRC, from, NULL, to, rect->x, rect->y, 0, 0, 0, 0, rect->w,
                             rect->h);
    pixman_image_unref(from);
    pixman_image_unref(to);
}
