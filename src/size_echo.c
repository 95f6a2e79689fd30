/*
 * Theory of operation. xfreerdp fits its window to the picture and then reports that size as if its
 * user had asked for it; mstsc does not. A report of the size that has just been shown changes
 * nothing and is dropped. A report of a size that was shown just before may be
 *   - the echo of that one, late: the guest has switched again meanwhile (to the wish that a client
 *     sends with its connection, most often), and passing it on would undo that switch; or
 *   - a user who dragged the window there and back.
 * What follows tells them apart. A client whose window was fitted to the present size reports that
 * next, so the doubtful report is held: the next one replaces it, and without any it was a wish.
 */
#include "size_echo.h"

#include <string.h>

void size_echo_shown(SizeEcho *echo, uint32_t width, uint32_t height, int64_t now)
{
    echo->shown[0].until = now + SIZE_ECHO_US;
    if (echo->shown[0].width == width && echo->shown[0].height == height)
        return;
    memmove(&echo->shown[1], &echo->shown[0], sizeof(echo->shown) - sizeof(echo->shown[0]));
    echo->shown[0].width = width;
    echo->shown[0].height = height;
    echo->shown[0].until = now + SIZE_ECHO_US;
}

bool size_echo_report(SizeEcho *echo, const DispLayout *layout, int64_t now)
{
    echo->held_until = 0;
    for (unsigned i = 0; i < SIZE_ECHO_SHOWN; i++) {
        if (echo->shown[i].width != layout->width || echo->shown[i].height != layout->height ||
            now >= echo->shown[i].until)
            continue;
        if (i > 0) {
            echo->held = *layout;
            echo->held_until = echo->shown[i].until;
        }
        return false;
    }
    return true;
}

int64_t size_echo_due(const SizeEcho *echo)
{
    return echo->held_until == 0 ? INT64_MAX : echo->held_until;
}

bool size_echo_take(SizeEcho *echo, int64_t now, DispLayout *layout)
{
    if (echo->held_until == 0 || now < echo->held_until)
        return false;
    echo->held_until = 0;
    *layout = echo->held;
    return true;
}
