/*
 * Theory of operation. xfreerdp fits its window to each new picture and then reports that size as
 * if its user had asked for it; mstsc does not. Passed on, a late echo would switch the guest back,
 * most often from the size that the client asked for when it connected, because it is shown the
 * guest's old one before that.
 *
 * So the first report of a size that was shown a moment ago is an echo, unless the client had
 * reported that size last anyway: it does not repeat itself, so it will not echo a wish that the
 * guest has followed. A user who drags the window there and back is thus understood.
 */
#include "size_echo.h"

#include <string.h>

void size_echo_shown(SizeEcho *echo, uint32_t width, uint32_t height, int64_t now)
{
    echo->shown[0].since = now;
    if (echo->shown[0].width == width && echo->shown[0].height == height)
        return;
    memmove(&echo->shown[1], &echo->shown[0], sizeof(echo->shown) - sizeof(echo->shown[0]));
    echo->shown[0].width = width;
    echo->shown[0].height = height;
    echo->shown[0].since = now;
    echo->shown[0].expected = echo->width != width || echo->height != height;
}

bool size_echo_report(SizeEcho *echo, const DispLayout *layout, int64_t now)
{
    echo->width = layout->width;
    echo->height = layout->height;
    for (unsigned i = 0; i < SIZE_ECHO_SHOWN; i++) {
        if (echo->shown[i].width == layout->width && echo->shown[i].height == layout->height &&
            echo->shown[i].expected && now - echo->shown[i].since < SIZE_ECHO_US) {
            echo->shown[i].expected = false;
            return false;
        }
    }
    return true;
}
