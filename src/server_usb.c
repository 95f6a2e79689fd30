/*
 * Between the table of redirection slots (usb_slots.c, main) and the clients' devices (peer_usb.c,
 * each on its peer's thread) or this host's (host_usb.c): answers go to the peer by id, and fall on
 * the floor if it is gone.
 */
#include <string.h>

#include "server_priv.h"

static bool on_grant(void *user, guint peer_id, guint device_id, int fd, const char *slot_id,
                     const char *error)
{
    Server *server = user;
    if (peer_id == USB_SLOTS_HOST)
        return host_usb_granted(server->host_usb, device_id, fd, slot_id, error);
    ServerPeer *p = server_peer(server, peer_id);
    if (!p)
        return false;
    peer_usb_grant(p->peer, device_id, fd, slot_id, error);
    return true;
}

static void on_detach(void *user, guint peer_id, guint device_id, bool close, const char *why)
{
    Server *server = user;
    if (peer_id == USB_SLOTS_HOST) {
        host_usb_leave(server->host_usb, device_id, close, why);
        return;
    }
    ServerPeer *p = server_peer(server, peer_id);
    if (p)
        peer_usb_leave(p->peer, device_id, close, why);
    else if (peer_id == USB_SLOTS_AWAY)
        usb_keeper_drop(server->keeper, device_id, why);
}

void server_peer_usb_flavour(Server *server, guint id, void *flavour)
{
    ServerPeer *p = server_peer(server, id);

    g_free(p->flavour);
    p->flavour = g_memdup2(flavour, sizeof(*p->flavour));
}

static unsigned on_seconds_left(void *user, guint device_id)
{
    return usb_keeper_seconds(((Server *)user)->keeper, device_id);
}

void server_usb_start(Server *server)
{
    static const UsbSlotsCallbacks callbacks = {
        .grant = on_grant, .detach = on_detach, .seconds_left = on_seconds_left};

    server_grace_start(server);
    server->usb = usb_slots_new(server->vm, server->qmp, server->config, &callbacks, server);
    server->host_usb = host_usb_new(server->usb);
}

void server_usb_machine_ends(Server *server)
{
    if (server->usb)
        usb_slots_stop(server->usb);
}

void server_usb_give_back(Server *server)
{
    host_usb_free(g_steal_pointer(&server->host_usb));
}

void server_usb_stop(Server *server)
{
    server_usb_give_back(server);
    server_grace_stop(server);
    usb_slots_free(g_steal_pointer(&server->usb));
}

UsbSlots *server_usb_slots(Server *server)
{
    return server->usb;
}

static char *attach(Server *server, const char *which, bool *ok)
{
    if (!server->host_usb)
        return g_strdup("This qrdp is about to end.\n");
    if (!server->config->host_usb)
        return g_strdup("This qrdp has given up the right to this host's USB devices: start it "
                        "with --host-usb.\n");
    return host_usb_attach(server->host_usb, which, ok);
}

char *server_usb_command(Server *server, char **words, bool *ok)
{
    *ok = false;
    if (!server->usb) {
        g_autofree char *waiting = config_waiting_text(server->config);
        return g_strdup_printf("There is no virtual machine yet: qrdp is %s.\n", waiting);
    }
    if (words && g_strv_length(words) == 2 && strcmp(words[0], "attach") == 0)
        return attach(server, words[1], ok);
    return usb_slots_command(server->usb, words, ok);
}
