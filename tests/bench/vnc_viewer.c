/* vnc-viewer HOST PORT ENCODINGS: a client on libvncclient, without JPEG, compress level 2
 * (TigerVNC's default). */
#include <glib-unix.h>
#include <rfb/rfbclient.h>
#include <string.h>

#include "viewer.h"

static rfbClient *client;

static rfbBool on_size(rfbClient *unused)
{
    free(client->frameBuffer);
    client->frameBuffer = calloc((size_t)client->width * (size_t)client->height, 4);
    viewer_picture(client->frameBuffer, (unsigned)client->width, (unsigned)client->height,
                   4 * (unsigned)client->width);
    return client->frameBuffer != NULL;
}

static void on_rectangle(rfbClient *unused, int x, int y, int width, int height)
{
    viewer_changed(false);
}

static void on_update(rfbClient *unused)
{
    viewer_changed(true);
}

static gboolean on_readable(gint fd, GIOCondition condition, gpointer unused)
{
    do {
        if (!HandleRFBServerMessage(client))
            viewer_fail("VNC", "the server has gone, or sent what it must not");
    } while (client->buffered);
    return G_SOURCE_CONTINUE;
}

static void key(bool down)
{
    SendKeyEvent(client, 'a', down);
}

int main(int argc, char **argv)
{
    if (argc != 4)
        viewer_fail("vnc-viewer", "HOST PORT ENCODINGS");
    client = rfbGetClient(8, 3, 4);
    client->format.redShift = 16;
    client->format.greenShift = 8;
    client->format.blueShift = 0;
    client->appData.encodingsString = argv[3];
    client->appData.compressLevel = 2;
    client->appData.enableJPEG = FALSE;
    client->MallocFrameBuffer = on_size;
    client->GotFrameBufferUpdate = on_rectangle;
    client->FinishedFrameBufferUpdate = on_update;
    client->serverHost = strdup(argv[1]);
    client->serverPort = atoi(argv[2]);
    if (!rfbInitClient(client, NULL, NULL))
        viewer_fail("VNC", "no connection");
    g_unix_fd_add(client->sock, G_IO_IN, on_readable, NULL);
    viewer_run(key);
    rfbClientCleanup(client);
    return 0;
}
