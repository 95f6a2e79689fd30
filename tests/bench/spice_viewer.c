/* spice-viewer HOST PORT: a client on spice-client-glib, with the library's own settings. */
#include <spice-client.h>

#include "viewer.h"

static SpiceInputsChannel *inputs;

static void on_primary(SpiceChannel *channel, gint format, gint width, gint height, gint stride,
                       gint shmid, gpointer pixels, gpointer unused)
{
    viewer_picture(pixels, (unsigned)width, (unsigned)height, (unsigned)stride);
}

static void on_primary_gone(SpiceChannel *channel, gpointer unused)
{
    viewer_picture(NULL, 0, 0, 0);
}

static void on_invalidate(SpiceChannel *channel, gint x, gint y, gint width, gint height,
                          gpointer unused)
{
    viewer_changed(true);
}

static void on_event(SpiceChannel *channel, SpiceChannelEvent event, gpointer unused)
{
    if (event != SPICE_CHANNEL_OPENED)
        viewer_fail("SPICE", "a channel has ended");
}

static void on_channel(SpiceSession *session, SpiceChannel *channel, gpointer unused)
{
    g_signal_connect(channel, "channel-event", G_CALLBACK(on_event), NULL);
    if (SPICE_IS_DISPLAY_CHANNEL(channel)) {
        g_signal_connect(channel, "display-primary-create", G_CALLBACK(on_primary), NULL);
        g_signal_connect(channel, "display-primary-destroy", G_CALLBACK(on_primary_gone), NULL);
        g_signal_connect(channel, "display-invalidate", G_CALLBACK(on_invalidate), NULL);
        spice_channel_connect(channel);
    } else if (SPICE_IS_INPUTS_CHANNEL(channel)) {
        inputs = SPICE_INPUTS_CHANNEL(channel);
        spice_channel_connect(channel);
    }
}

static void key(bool down)
{
    if (down)
        spice_inputs_channel_key_press(inputs, 0x1e);
    else
        spice_inputs_channel_key_release(inputs, 0x1e);
}

int main(int argc, char **argv)
{
    if (argc != 3)
        viewer_fail("spice-viewer", "HOST PORT");
    SpiceSession *session = spice_session_new();
    g_object_set(session, "host", argv[1], "port", argv[2], NULL);
    g_signal_connect(session, "channel-new", G_CALLBACK(on_channel), NULL);
    if (!spice_session_connect(session))
        viewer_fail("SPICE", "no connection");
    viewer_run(key);
    return 0;
}
