/*
 * rdp-viewer HOST PORT USER PASSWORD [no-h264] [no-gfx] [no-rfx] [bpp=N]: a client on FreeRDP's
 * library that decodes into memory, with everything the library can, less what the words say. With
 * bpp=15, 16 or 24 it can do that depth and no other, unlike stock clients, which take 32 bits
 * where they are offered.
 *
 * FreeRDP's handles are file descriptors below; GLib's loop waits for them. Dynamic channels are
 * processed synchronously, so that a frame is decoded, acknowledged and looked at on this one
 * thread.
 */
#include <freerdp/channels/channels.h>
#include <freerdp/client.h>
#include <freerdp/client/channels.h>
#include <freerdp/freerdp.h>
#include <freerdp/gdi/gdi.h>
#include <freerdp/gdi/gfx.h>
#include <freerdp/scancode.h>
#include <glib-unix.h>
#include <string.h>
#include <winpr/synch.h>

#include "viewer.h"

static rdpContext *context;
static int fds[MAXIMUM_WAIT_OBJECTS];
static guint sources[MAXIMUM_WAIT_OBJECTS];
static unsigned n_fds;

static void show_picture(void)
{
    const rdpGdi *gdi = context->gdi;
    viewer_picture(gdi->primary_buffer, (unsigned)gdi->width, (unsigned)gdi->height, gdi->stride);
}

static BOOL on_begin_paint(rdpContext *unused)
{
    HGDI_WND window = context->gdi->primary->hdc->hwnd;
    window->invalid->null = TRUE;
    window->ninvalid = 0;
    return TRUE;
}

static BOOL on_end_paint(rdpContext *unused)
{
    if (!context->gdi->primary->hdc->hwnd->invalid->null)
        viewer_changed(true);
    return TRUE;
}

static BOOL on_desktop_resize(rdpContext *unused)
{
    const rdpSettings *settings = context->settings;
    if (!gdi_resize(context->gdi, freerdp_settings_get_uint32(settings, FreeRDP_DesktopWidth),
                    freerdp_settings_get_uint32(settings, FreeRDP_DesktopHeight)))
        return FALSE;
    show_picture();
    return TRUE;
}

static BOOL on_pre_connect(freerdp *instance)
{
    return PubSub_SubscribeChannelConnected(context->pubSub,
                                            freerdp_client_OnChannelConnectedEventHandler) >= 0 &&
           PubSub_SubscribeChannelDisconnected(
               context->pubSub, freerdp_client_OnChannelDisconnectedEventHandler) >= 0;
}

static BOOL on_post_connect(freerdp *instance)
{
    if (!gdi_init(instance, PIXEL_FORMAT_BGRX32))
        return FALSE;
    context->update->BeginPaint = on_begin_paint;
    context->update->EndPaint = on_end_paint;
    context->update->DesktopResize = on_desktop_resize;
    show_picture();
    return TRUE;
}

static void on_post_disconnect(freerdp *instance)
{
    gdi_free(instance);
}

static BOOL on_client_new(freerdp *instance, rdpContext *made)
{
    context = made;
    instance->PreConnect = on_pre_connect;
    instance->PostConnect = on_post_connect;
    instance->PostDisconnect = on_post_disconnect;
    return TRUE;
}

static void key(bool down)
{
    freerdp_input_send_keyboard_event_ex(context->input, down, FALSE, RDP_SCANCODE_KEY_A);
}

static gboolean on_readable(gint fd, GIOCondition condition, gpointer unused);

/* The set of handles changes while channels come and go. */
static void watch_handles(void)
{
    HANDLE handles[MAXIMUM_WAIT_OBJECTS] = {0};
    int now[MAXIMUM_WAIT_OBJECTS];
    DWORD count = freerdp_get_event_handles(context, handles, ARRAYSIZE(handles));
    for (DWORD i = 0; i < count; i++)
        now[i] = GetEventFileDescriptor(handles[i]);
    if (count == n_fds && memcmp(now, fds, count * sizeof *now) == 0)
        return;
    for (unsigned i = 0; i < n_fds; i++)
        g_source_remove(sources[i]);
    n_fds = count;
    memcpy(fds, now, count * sizeof *now);
    for (unsigned i = 0; i < n_fds; i++)
        sources[i] = g_unix_fd_add(fds[i], G_IO_IN, on_readable, NULL);
}

static gboolean on_readable(gint fd, GIOCondition condition, gpointer unused)
{
    if (!freerdp_check_event_handles(context) || freerdp_shall_disconnect_context(context))
        viewer_fail("RDP", freerdp_get_last_error_string(freerdp_get_last_error(context)));
    watch_handles();
    return G_SOURCE_CONTINUE;
}

static bool has_word(int argc, char **argv, const char *word)
{
    for (int i = 5; i < argc; i++)
        if (strcmp(argv[i], word) == 0)
            return true;
    return false;
}

/* The depth asked for, if one is: as a number, and as the only one supported. */
static bool set_depth(rdpSettings *settings, int argc, char **argv)
{
    static const struct {
        const char *word;
        UINT32 bits;
        UINT16 flag;
    } depths[] = {{"bpp=15", 15, RNS_UD_15BPP_SUPPORT},
                  {"bpp=16", 16, RNS_UD_16BPP_SUPPORT},
                  {"bpp=24", 24, RNS_UD_24BPP_SUPPORT}};
    for (unsigned i = 0; i < ARRAYSIZE(depths); i++)
        if (has_word(argc, argv, depths[i].word))
            return freerdp_settings_set_uint32(settings, FreeRDP_ColorDepth, depths[i].bits) &&
                   freerdp_settings_set_uint16(settings, FreeRDP_SupportedColorDepths,
                                               depths[i].flag);
    return freerdp_settings_set_uint32(settings, FreeRDP_ColorDepth, 32);
}

static bool configure(rdpSettings *settings, int argc, char **argv)
{
    static const FreeRDP_Settings_Keys_Bool on[] = {FreeRDP_IgnoreCertificate,
                                                    FreeRDP_SynchronousDynamicChannels,
                                                    FreeRDP_SynchronousStaticChannels,
                                                    FreeRDP_NetworkAutoDetect,
                                                    FreeRDP_FastPathInput,
                                                    FreeRDP_FastPathOutput,
                                                    FreeRDP_FrameMarkerCommandEnabled,
                                                    FreeRDP_SurfaceFrameMarkerEnabled,
                                                    FreeRDP_NSCodec};
    bool ok = true, gfx = !has_word(argc, argv, "no-gfx");
    bool h264 = gfx && !has_word(argc, argv, "no-h264"), rfx = !has_word(argc, argv, "no-rfx");
    for (unsigned i = 0; i < ARRAYSIZE(on); i++)
        ok &= freerdp_settings_set_bool(settings, on[i], TRUE);
    return ok && freerdp_settings_set_bool(settings, FreeRDP_SupportGraphicsPipeline, gfx) &&
           freerdp_settings_set_bool(settings, FreeRDP_GfxH264, h264) &&
           freerdp_settings_set_bool(settings, FreeRDP_GfxAVC444, h264) &&
           freerdp_settings_set_bool(settings, FreeRDP_GfxAVC444v2, h264) &&
           freerdp_settings_set_bool(settings, FreeRDP_GfxProgressive, rfx) &&
           freerdp_settings_set_bool(settings, FreeRDP_GfxProgressiveV2, rfx) &&
           freerdp_settings_set_bool(settings, FreeRDP_RemoteFxCodec, rfx) &&
           freerdp_settings_set_uint32(settings, FreeRDP_ConnectionType,
                                       CONNECTION_TYPE_AUTODETECT) &&
           set_depth(settings, argc, argv) &&
           freerdp_settings_set_uint32(settings, FreeRDP_DesktopWidth, 1280) &&
           freerdp_settings_set_uint32(settings, FreeRDP_DesktopHeight, 800) &&
           freerdp_settings_set_string(settings, FreeRDP_ServerHostname, argv[1]) &&
           freerdp_settings_set_uint32(settings, FreeRDP_ServerPort, (UINT32)atoi(argv[2])) &&
           freerdp_settings_set_string(settings, FreeRDP_Username, argv[3]) &&
           freerdp_settings_set_string(settings, FreeRDP_Password, argv[4]);
}

int main(int argc, char **argv)
{
    RDP_CLIENT_ENTRY_POINTS entry = {.Size = sizeof entry,
                                     .Version = RDP_CLIENT_INTERFACE_VERSION,
                                     .ContextSize = sizeof(rdpClientContext),
                                     .ClientNew = on_client_new};
    if (argc < 5)
        viewer_fail("rdp-viewer", "HOST PORT USER PASSWORD [no-h264] [no-gfx] [no-rfx] [bpp=N]");
    if (!freerdp_client_context_new(&entry) || !configure(context->settings, argc, argv) ||
        !freerdp_connect(context->instance))
        viewer_fail("RDP", context ? freerdp_get_last_error_string(freerdp_get_last_error(context))
                                   : "no context");
    watch_handles();
    viewer_run(key);
    freerdp_disconnect(context->instance);
    freerdp_client_context_free(context);
    return 0;
}
