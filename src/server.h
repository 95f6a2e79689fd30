/*
 * The hub: listeners, admission, the peers and the one VM they look at.
 *
 * Owner: main.c. Thread: main, except server_post(). Lifetime: server_free() after the loop ended.
 */
#ifndef QRDP_SERVER_H
#define QRDP_SERVER_H

#include <gio/gio.h>

#include "auth.h"
#include "config.h"
#include "qmp.h"
#include "vm.h"

#define SERVER_MAX_PEERS 16u /* connected at once, logged in or not */
#define SERVER_MAX_PENDING_PER_ADDRESS 5u
#define SERVER_MAX_EVICTED 16u /* sent away for others, and their threads not yet ended */

typedef struct Server Server;

typedef struct ServerCallbacks {
    /** The VM is gone for good or a fatal error happened: leave the main loop with @status. */
    void (*quit)(void *user, int status, const char *why);
} ServerCallbacks;

Server *server_new(const Config *config, Auth *auth, const ServerCallbacks *callbacks, void *user);
/** False if a client's thread does not end within seconds: then nothing was freed, and all that is
 * left to do is to end the process. */
bool server_free(Server *server);
/** Opens Config.listen. One sentence that says what to do in @error. */
bool server_listen(Server *server, GError **error);
/** "127.0.0.1:3389" of listener @i with the real port, NULL past the last. */
const char *server_address(const Server *server, unsigned i);
/** Hands over the VM (the Server owns it now); @qmp may be NULL (bus mode) and is owned too. */
void server_attach_p2p(Server *server, GDBusConnection *connection, Qmp *qmp);
void server_attach_bus(Server *server, GDBusConnection *connection);
/** Ends every peer with @reason (shown to the client) and stops listening. Returns at once; quit is
 * called when the last peer's thread has been joined. */
void server_shutdown(Server *server, int status, const char *reason);

/** Text or JSON for `qrdp status`; free with g_free(). Never holds credentials. */
char *server_status(Server *server, bool json);
/** `qrdp usb VERB ARGS...`: the answer's text, free with g_free(); *ok false if it is an error. */
char *server_usb_command(Server *server, char **words, bool *ok);

/** Main thread, for functions run by server_post(). NULL before server_attach_*(). */
struct UsbSlots *server_usb_slots(Server *server);
/** Main thread. NULL if there is no such peer (any more). */
struct Peer *server_find_peer(Server *server, guint peer_id);

/* From a peer's thread. */

typedef void (*ServerFunc)(Server *server, guint peer_id, void *data);
/** Runs @func on main, in order per peer, unless the peer is gone by then; then, or afterwards,
 * @destroy (may be NULL) frees @data. Any thread. */
void server_post(Server *server, guint peer_id, ServerFunc func, void *data,
                 GDestroyNotify destroy);

#endif
