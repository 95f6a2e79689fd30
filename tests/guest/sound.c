/*
 * sound play DEVICE RATE MILLISECONDS: plays on /dev/snd/DEVICE (pcmC0D0p), in stereo: left a sine
 * of 1 kHz, right the number of the frame, from 1 to 65535 and again, so that a listener can tell
 * each frame from silence and from its neighbours.
 *
 * sound record DEVICE RATE MILLISECONDS FILE: records in mono into FILE.
 *
 * 16 bits, through ALSA's own ioctls: a library would be larger than the rest of the guest. Prints
 * how many frames it was and how often the driver had run dry (or over).
 */
#include "guest.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <sound/asound.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

enum { CHUNK = 480, PERIOD_MS = 20, BUFFER_MS = 200, TONE_HZ = 1000, LEVEL = 12000 };

static void set_mask(struct snd_pcm_hw_params *p, int what, unsigned value)
{
    struct snd_mask *mask = &p->masks[what - SNDRV_PCM_HW_PARAM_FIRST_MASK];
    memset(mask, 0, sizeof *mask);
    mask->bits[value / 32] = 1u << value % 32;
}

static void set_interval(struct snd_pcm_hw_params *p, int what, unsigned low, unsigned high)
{
    struct snd_interval *i = &p->intervals[what - SNDRV_PCM_HW_PARAM_FIRST_INTERVAL];
    *i = (struct snd_interval){.min = low, .max = high, .integer = 1};
}

static int configure(int fd, unsigned rate, unsigned channels)
{
    struct snd_pcm_hw_params p = {.rmask = ~0u};
    for (size_t i = 0; i < sizeof p.masks / sizeof *p.masks; i++)
        memset(&p.masks[i], 0xff, sizeof p.masks[i]);
    for (size_t i = 0; i < sizeof p.intervals / sizeof *p.intervals; i++)
        p.intervals[i] = (struct snd_interval){.max = ~0u};
    set_mask(&p, SNDRV_PCM_HW_PARAM_ACCESS, SNDRV_PCM_ACCESS_RW_INTERLEAVED);
    set_mask(&p, SNDRV_PCM_HW_PARAM_FORMAT, SNDRV_PCM_FORMAT_S16_LE);
    set_interval(&p, SNDRV_PCM_HW_PARAM_CHANNELS, channels, channels);
    set_interval(&p, SNDRV_PCM_HW_PARAM_RATE, rate, rate);
    set_interval(&p, SNDRV_PCM_HW_PARAM_PERIOD_SIZE, rate * PERIOD_MS / 1000,
                 rate * PERIOD_MS / 1000);
    set_interval(&p, SNDRV_PCM_HW_PARAM_BUFFER_SIZE, rate * BUFFER_MS / 1000,
                 rate * BUFFER_MS / 1000);
    if (ioctl(fd, SNDRV_PCM_IOCTL_HW_PARAMS, &p) < 0) {
        perror("HW_PARAMS");
        return -1;
    }
    struct snd_pcm_sw_params sw = {
        .period_step = 1,
        .avail_min = 1,
        .start_threshold =
            channels == 2 ? rate * BUFFER_MS / 1000 : 1, /* play from a full buffer */
        .stop_threshold = rate * BUFFER_MS / 1000,
        .boundary = 1ul << 30,
    };
    if (ioctl(fd, SNDRV_PCM_IOCTL_SW_PARAMS, &sw) < 0) {
        perror("SW_PARAMS");
        return -1;
    }
    return ioctl(fd, SNDRV_PCM_IOCTL_PREPARE);
}

/* Moves one chunk, after an overrun or underrun again. */
static int move(int fd, unsigned long request, int16_t *buffer, unsigned frames, unsigned *xruns)
{
    while (frames > 0) {
        struct snd_xferi x = {.buf = buffer, .frames = frames};
        if (ioctl(fd, request, &x) < 0) {
            if (errno == EIO) /* nothing moved for a buffer's time: a busy host; it goes on */
                continue;
            if (errno != EPIPE && errno != EINTR) {
                perror("transfer");
                return -1;
            }
            *xruns += errno == EPIPE;
            if (errno == EPIPE && ioctl(fd, SNDRV_PCM_IOCTL_PREPARE) < 0)
                return -1;
            continue;
        }
        frames -= (unsigned)x.result;
        buffer += x.result * (request == SNDRV_PCM_IOCTL_WRITEI_FRAMES ? 2 : 1);
    }
    return 0;
}

static int play(int fd, unsigned rate, unsigned total, unsigned *xruns)
{
    int16_t buffer[CHUNK * 2];
    for (unsigned at = 0; at < total;) {
        unsigned n = total - at < CHUNK ? total - at : CHUNK;
        for (unsigned i = 0; i < n; i++, at++) {
            double phase = 2 * M_PI * TONE_HZ * (at % rate) / rate;
            buffer[2 * i] = (int16_t)lrint(LEVEL * sin(phase));
            buffer[2 * i + 1] = (int16_t)(uint16_t)(at % 65535 + 1);
        }
        if (move(fd, SNDRV_PCM_IOCTL_WRITEI_FRAMES, buffer, n, xruns) < 0)
            return -1;
    }
    /* The driver takes back what it has given the host controller when the last period is over: let
     * that be silence. */
    memset(buffer, 0, sizeof buffer);
    for (unsigned at = 0; at < rate * BUFFER_MS / 1000; at += CHUNK) {
        if (move(fd, SNDRV_PCM_IOCTL_WRITEI_FRAMES, buffer, CHUNK, xruns) < 0)
            return -1;
    }
    return ioctl(fd, SNDRV_PCM_IOCTL_DRAIN) < 0 && errno != EIO ? -1 : 0; /* only silence is left */
}

static int record(int fd, unsigned total, const char *path, unsigned *xruns)
{
    int16_t buffer[CHUNK];
    FILE *file = fopen(path, "w");
    if (!file) {
        perror(path);
        return -1;
    }
    int result = 0;
    for (unsigned at = 0; at < total && result == 0; at += CHUNK) {
        result = move(fd, SNDRV_PCM_IOCTL_READI_FRAMES, buffer, CHUNK, xruns);
        if (result == 0 && fwrite(buffer, sizeof *buffer, CHUNK, file) != CHUNK)
            result = -1;
    }
    return fclose(file) == 0 ? result : -1;
}

int sound_main(int argc, char **argv)
{
    bool playing = argc == 5 && strcmp(argv[1], "play") == 0;
    if (!playing && (argc != 6 || strcmp(argv[1], "record") != 0)) {
        fprintf(stderr, "usage: sound play DEVICE RATE MILLISECONDS\n"
                        "       sound record DEVICE RATE MILLISECONDS FILE\n");
        return 2;
    }
    char path[64];
    unsigned rate = (unsigned)atoi(argv[3]), xruns = 0;
    unsigned total = (unsigned)((unsigned long)rate * (unsigned long)atoi(argv[4]) / 1000);
    snprintf(path, sizeof path, "/dev/snd/%.32s", argv[2]);
    int fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0 || configure(fd, rate, playing ? 2 : 1) < 0) {
        perror(path);
        return 1;
    }
    int result = playing ? play(fd, rate, total, &xruns) : record(fd, total, argv[5], &xruns);
    if (result < 0)
        perror(argv[1]);
    close(fd);
    printf("frames=%u xruns=%u\n", total, xruns);
    return result < 0;
}
