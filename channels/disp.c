#include "disp.h"

#include <stdio.h>
#include <stdlib.h>

#include "bytes.h"
#include "log.h"

enum { TYPE_MONITOR_LAYOUT = 2, TYPE_CAPS = 5 }; /* 2.2.1 */
enum { HEADER_BYTES = 8, MONITOR_BYTES = 40, MONITOR_PRIMARY = 1 };
enum { MIN_MM = 10, MAX_MM = 10000 }; /* outside: both are to be ignored (2.2.2.2.1) */

struct Disp {
    Dvc *dvc;
    char subject[64];
    void (*resized)(void *user, const DispLayout *layout);
    void *user;
};

/* 2.2.2.2.1. The client's limits are checked; odd widths are rounded down, as clients send them. */
static bool parse_monitor(Reader *r, DispLayout *monitor, bool *primary, const char **why)
{
    *primary = reader_u32(r) & MONITOR_PRIMARY;
    reader_skip(r, 8); /* left, top: one monitor is shown */
    monitor->width = reader_u32(r);
    monitor->height = reader_u32(r);
    monitor->width_mm = reader_u32(r);
    monitor->height_mm = reader_u32(r);
    reader_skip(r, 12); /* orientation, scale factors */
    if (!reader_ok(r)) {
        *why = "truncated DISPLAYCONTROL_MONITOR_LAYOUT";
        return false;
    }
    if (monitor->width < DISP_MIN_SIDE || monitor->width > DISP_MAX_SIDE ||
        monitor->height < DISP_MIN_SIDE || monitor->height > DISP_MAX_SIDE) {
        *why = "monitor size outside 200..8192";
        return false;
    }
    monitor->width &= ~1u;
    if (monitor->width_mm < MIN_MM || monitor->width_mm > MAX_MM || monitor->height_mm < MIN_MM ||
        monitor->height_mm > MAX_MM)
        monitor->width_mm = monitor->height_mm = 0;
    return true;
}

bool disp_parse(const uint8_t *data, size_t len, DispLayout *layout, const char **why)
{
    Reader r;

    *layout = (DispLayout){0};
    reader_init(&r, data, len);
    uint32_t type = reader_u32(&r);
    uint32_t length = reader_u32(&r);
    if (!reader_ok(&r) || length != len) {
        *why = "display control header with a wrong length";
        return false;
    }
    if (type != TYPE_MONITOR_LAYOUT)
        return true;

    uint32_t monitor_bytes = reader_u32(&r);
    uint32_t count = reader_u32(&r);
    if (!reader_ok(&r) || monitor_bytes != MONITOR_BYTES) {
        *why = "malformed DISPLAYCONTROL_MONITOR_LAYOUT_PDU";
        return false;
    }
    if (count == 0 || count > DISP_MAX_MONITORS) {
        *why = "number of monitors outside 1..16";
        return false;
    }
    for (uint32_t i = 0; i < count; i++) {
        DispLayout monitor = {0};
        bool primary;

        if (!parse_monitor(&r, &monitor, &primary, why))
            return false;
        if (i == 0 || primary)
            *layout = monitor;
    }
    if (!reader_done(&r)) {
        *why = "bytes after the last monitor";
        return false;
    }
    layout->monitors = count;
    return true;
}

/* 2.2.2.1: the area of all monitors is at most the product of the three fields. */
static void on_opened(Dvc *dvc, void *user)
{
    Writer w;

    (void)user;
    writer_init(&w, 64);
    writer_u32(&w, TYPE_CAPS);
    writer_u32(&w, HEADER_BYTES + 12);
    writer_u32(&w, DISP_MAX_MONITORS);
    writer_u32(&w, DISP_MAX_SIDE);
    writer_u32(&w, DISP_MAX_SIDE);
    dvc_send(dvc, w.data, w.len);
    writer_clear(&w);
}

static void on_message(Dvc *dvc, const uint8_t *data, size_t len, void *user)
{
    Disp *disp = user;
    DispLayout layout;
    const char *why = "";

    if (!disp_parse(data, len, &layout, &why)) {
        log_warning(disp->subject, "display control: %s; channel closed", why);
        disp->dvc = NULL;
        dvc_close(dvc);
        return;
    }
    if (layout.monitors > 0)
        disp->resized(disp->user, &layout);
}

static void on_closed(Dvc *dvc, DvcCloseReason reason, void *user)
{
    Disp *disp = user;

    (void)dvc;
    (void)reason;
    disp->dvc = NULL;
}

static const DvcCallbacks callbacks = {
    .opened = on_opened, .message = on_message, .closed = on_closed};

Disp *disp_new(DvcManager *manager, const char *subject,
               void (*resized)(void *user, const DispLayout *layout), void *user)
{
    Disp *disp = calloc(1, sizeof(*disp));

    if (!disp)
        abort();
    disp->resized = resized;
    disp->user = user;
    snprintf(disp->subject, sizeof(disp->subject), "%s", subject);
    disp->dvc = dvc_open(manager, DISP_CHANNEL, DISP_MAX_MESSAGE, DVC_URGENT, &callbacks, disp);
    if (!disp->dvc) {
        free(disp);
        return NULL;
    }
    return disp;
}

void disp_free(Disp *disp)
{
    if (!disp)
        return;
    dvc_close(disp->dvc);
    free(disp);
}
