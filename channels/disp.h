/*
 * Display Control (MS-RDPEDISP), server side: the client tells the size of its window.
 *
 * Owner: PeerDisplay. Thread: the peer's. Lifetime: disp_free() at any time, also from a callback.
 */
#ifndef QRDP_CHANNELS_DISP_H
#define QRDP_CHANNELS_DISP_H

#include "dvc.h"

#define DISP_CHANNEL "Microsoft::Windows::RDS::DisplayControl"
#define DISP_MAX_MONITORS 16u
#define DISP_MIN_SIDE 200u /* 2.2.2.2.1 */
#define DISP_MAX_SIDE 8192u
#define DISP_MAX_MESSAGE 4096u

typedef struct Disp Disp;

typedef struct DispLayout {
    uint32_t width, height;       /* of the primary monitor, pixels; the width is even */
    uint32_t width_mm, height_mm; /* 0: the client does not say */
    uint32_t monitors;
} DispLayout;

/** Parses one message of a client. False and *@why if it is malformed; true with .monitors 0 if it
 * is of a kind that is of no concern. */
bool disp_parse(const uint8_t *data, size_t len, DispLayout *layout, const char **why);

/** Opens the channel; sends the capabilities when the client has it. @resized is called for each
 * layout. NULL if dvc_open() fails. */
Disp *disp_new(DvcManager *manager, const char *subject,
               void (*resized)(void *user, const DispLayout *layout), void *user);
void disp_free(Disp *disp);

#endif
