/*
 * Between the table of redirection slots (usb_slots.c, main) and the clients' devices (peer_usb.c,
 * each on its peer's thread): answers go to the peer by id, and fall on the floor if it is gone.
 */
#include "server_priv.h"

static bool on_grant(void *user, guint peer_id, guint device_id, int fd, const char *slot_id,
                     const char *error)
{
    ServerPeer *p = server_peer(user, peer_id);
    if (!p)
        return false;
    peer_usb_grant(p->peer, device_id, fd, slot_id, error);
    return true;
}

static void on_detach(void *user, guint peer_id, guint device_id, bool close, const char *why)
{
    ServerPeer *p = server_peer(user, peer_id);
    if (p)
        peer_usb_leave(p->peer, device_id, close, why);
}

void server_peer_usb_flavour(Server *server, guint id, void *flavour)
{
    ServerPeer *p = server_peer(server, id);

    g_free(p->flavour);
    p->flavour = g_memdup2(flavour, sizeof(*p->flavour));
}

UsbSlots *server_usb_new(Server *server)
{
    static const UsbSlotsCallbacks callbacks = {.grant = on_grant, .detach = on_detach};
    return usb_slots_new(server->vm, server->qmp, server->config, &callbacks, server);
}

UsbSlots *server_usb_slots(Server *server)
{
    return server->usb;
}

char *server_usb_command(Server *server, char **words, bool *ok)
{
    *ok = false;
    if (!server->usb)
        return g_strdup("The virtual machine is not attached yet.\n");
    return usb_slots_command(server->usb, words, ok);
}
