/*
 * A module for tests: kinds of codec that fail in each way there is. A "stream" is the luma of its
 * picture, so decode() copies. FAKE_VIDEO in the environment says which kinds there are:
 *
 *      none    no kind works
 *      abi     it belongs to another version
 *      steady  the first that works is steady
 *      (else)  five broken kinds, one that breaks at its 8th picture and takes no
 *              small ones, a good one
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "video_backend.h"

enum { ABSENT, DELAYS, RUBBISH, NO_KEY, UNCONFINED, STEADY, BREAKS, GOOD };

struct VideoCodec {
    unsigned kind, coded;
    uint32_t width, height;
    uint8_t *out;
};

static VideoCodec *fake_open(unsigned kind, uint32_t width, uint32_t height, double qp, char *why,
                             size_t why_size)
{
    const char *mode = getenv("FAKE_VIDEO");

    if (kind == ABSENT || (mode && strcmp(mode, "none") == 0) ||
        (kind == STEADY && (!mode || strcmp(mode, "steady") != 0))) {
        snprintf(why, why_size, "not there");
        return NULL;
    }
    if (kind == BREAKS && width < 32) {
        snprintf(why, why_size, "too small");
        return NULL;
    }
    VideoCodec *codec = calloc(1, sizeof(*codec));
    codec->kind = kind;
    codec->width = width;
    codec->height = height;
    codec->out = malloc((size_t)width * height);
    return codec;
}

static bool fake_encode(VideoCodec *codec, const VideoPlanes *planes, double qp, bool key,
                        VideoCoded *coded, char *why, size_t why_size)
{
    if (codec->kind == DELAYS) {
        snprintf(why, why_size, "it wants more pictures");
        return false;
    }
    if (codec->kind == BREAKS && codec->coded == 7) {
        snprintf(why, why_size, "it broke");
        return false;
    }
    codec->coded++;
    for (uint32_t y = 0; y < codec->height; y++)
        memcpy(codec->out + (size_t)y * codec->width,
               planes->data[0] + (size_t)y * planes->stride[0], codec->width);
    if (codec->kind == RUBBISH)
        memset(codec->out, 0, (size_t)codec->width * codec->height);
    *coded = (VideoCoded){.data = codec->out,
                          .len = (size_t)codec->width * codec->height,
                          .key = key && codec->kind != NO_KEY,
                          .qp = (int)qp};
    return true;
}

static void fake_close(VideoCodec *codec)
{
    if (codec)
        free(codec->out);
    free(codec);
}

static bool fake_decode(const VideoCoded *units, unsigned n, uint32_t width, uint32_t height,
                        uint8_t *luma)
{
    memcpy(luma, units[n - 1].data, (size_t)width * height);
    return units[n - 1].len == (size_t)width * height;
}

static const VideoCodecKind kinds[] = {{.name = "absent"},
                                       {.name = "delays"},
                                       {.name = "rubbish"},
                                       {.name = "no key"},
                                       {.name = "unconfined", .unconfined = true},
                                       {.name = "steady", .steady = true},
                                       {.name = "breaks"},
                                       {.name = "good"}};

static VideoBackend backend = {.abi = VIDEO_BACKEND_ABI,
                               .kinds = kinds,
                               .n_kinds = sizeof(kinds) / sizeof(kinds[0]),
                               .open = fake_open,
                               .encode = fake_encode,
                               .close = fake_close,
                               .decode = fake_decode};

__attribute__((visibility("default"))) const VideoBackend *qrdp_video_backend(void);

const VideoBackend *qrdp_video_backend(void)
{
    const char *mode = getenv("FAKE_VIDEO");

    if (mode && strcmp(mode, "abi") == 0)
        backend.abi++;
    return &backend;
}
