/*
 * Who is let in: from accept to the peer's thread.
 *
 * The throttle is asked before any byte is read. Its places are bounded; when all are taken, the
 * address with the most connections that have not logged in gives one up for an address with fewer.
 *
 * Nobody gets in while there is no VM, and in bus mode nobody before a password came. Without any
 * credentials only this machine's own users do, over loopback and unix sockets, without password.
 */
#include <fcntl.h>
#include <gio/gunixsocketaddress.h>
#include <string.h>
#include <unistd.h>

#include "server_priv.h"

#define DEFAULT_WIDTH 1024
#define DEFAULT_HEIGHT 768
#define REFUSED_WINDOW_US 10000000u /* lines about connections turned away: five in ten seconds */
#define REFUSED_BURST 5u

/* What the throttle counts: an IPv4 address, an IPv6 /64 (one customer), or all local users. */
static char *throttle_key(GSocketAddress *address)
{
    if (!G_IS_INET_SOCKET_ADDRESS(address))
        return g_strdup("unix");
    GInetAddress *inet = g_inet_socket_address_get_address(G_INET_SOCKET_ADDRESS(address));
    const guint8 *b = g_inet_address_to_bytes(inet);
    if (g_inet_address_get_family(inet) == G_SOCKET_FAMILY_IPV4)
        return g_strdup_printf("%u.%u.%u.%u", b[0], b[1], b[2], b[3]);
    static const guint8 mapped[12] = {[10] = 0xff, [11] = 0xff};
    if (memcmp(b, mapped, sizeof(mapped)) == 0)
        return g_strdup_printf("%u.%u.%u.%u", b[12], b[13], b[14], b[15]);
    return g_strdup_printf("%02x%02x:%02x%02x:%02x%02x:%02x%02x/64", b[0], b[1], b[2], b[3], b[4],
                           b[5], b[6], b[7]);
}

static bool is_local(GSocketAddress *address)
{
    if (!G_IS_INET_SOCKET_ADDRESS(address))
        return true;
    GInetAddress *inet = g_inet_socket_address_get_address(G_INET_SOCKET_ADDRESS(address));
    const guint8 *b = g_inet_address_to_bytes(inet);
    static const guint8 mapped_loopback[13] = {[10] = 0xff, [11] = 0xff, [12] = 127};
    return g_inet_address_get_is_loopback(inet) ||
           (g_inet_address_get_family(inet) == G_SOCKET_FAMILY_IPV6 &&
            memcmp(b, mapped_loopback, sizeof(mapped_loopback)) == 0);
}

static void describe(GSocketAddress *address, char *out, size_t size)
{
    if (G_IS_INET_SOCKET_ADDRESS(address)) {
        char *text = g_inet_address_to_string(
            g_inet_socket_address_get_address(G_INET_SOCKET_ADDRESS(address)));
        g_strlcpy(out, text, size);
        g_free(text);
    } else {
        g_strlcpy(out, "unix socket", size);
    }
}

/* Why nobody can be served now, NULL if somebody can. */
static const char *not_serving(Server *server, bool local)
{
    GError *error = NULL;
    if (!auth_reload(server->auth, &error)) {
        log_error("server", "%s", error->message);
        g_error_free(error);
        return "the credentials cannot be read";
    }
    bool empty = auth_is_empty(server->auth);
    if (server->closing)
        return "qrdp is ending";
    if (!server->vm_ready)
        return "the virtual machine is not there yet";
    if (empty && server->config->mode == CONFIG_BUS)
        return "no password has been set over D-Bus yet";
    if (empty && !local)
        return "there are no credentials (set a password with `qrdp passwd USER`)";
    return NULL;
}

static void refuse(Server *server, const char *who, const char *why)
{
    if (log_limit(&server->refused, (uint64_t)g_get_monotonic_time(), REFUSED_WINDOW_US,
                  REFUSED_BURST))
        log_warning("server", "%s: connection refused: %s", who, why);
}

void server_peer_refused(Server *server, guint id, void *why)
{
    refuse(server, server_peer(server, id)->address, why);
}

static void admit(Server *server, int fd, const char *who, const char *key)
{
    uint32_t width = 0, height = 0;
    GError *error = NULL;
    if (!cert_reload(server->cert, &error)) {
        log_warning("server", "%s; the certificate read before stays in use", error->message);
        g_error_free(error);
    }
    framebuffer_size(vm_framebuffer(server->vm), &width, &height);

    AuthSnapshot *auth = auth_snapshot(server->auth);
    PeerParams params = {
        .server = server,
        .config = server->config,
        .id = ++server->next_id,
        .fd = fd,
        .auth = auth,
        .cert_pem = cert_pem(server->cert),
        .key_pem = cert_key_pem(server->cert),
        .width = width ? width : DEFAULT_WIDTH,
        .height = height ? height : DEFAULT_HEIGHT,
    };
    g_strlcpy(params.address, who, sizeof(params.address));

    /* The record comes first: the peer's thread may post before peer_new() returns. Letters are
     * delivered by this thread's loop, so it is complete by then. */
    ServerPeer *p = g_new0(ServerPeer, 1);
    p->id = params.id;
    p->key = g_strdup(key);
    p->since_us = g_get_real_time();
    g_strlcpy(p->address, who, sizeof(p->address));
    p->peer = peer_new(&params);
    auth_snapshot_unref(auth);
    if (!p->peer) {
        throttle_left(server->throttle, key, true);
        server_peer_free(p);
        return;
    }
    g_hash_table_insert(server->peers, GUINT_TO_POINTER(p->id), p);
    log_debug("server", "%s: connection %u", who, p->id);
}

/* Sends the oldest connection of @key that has not logged in away; false if too many were that have
 * not ended yet. */
static bool evict(Server *server, const char *key)
{
    GHashTableIter iter;
    gpointer value;
    ServerPeer *oldest = NULL;
    unsigned leaving = 0;

    g_hash_table_iter_init(&iter, server->peers);
    while (g_hash_table_iter_next(&iter, NULL, &value)) {
        ServerPeer *p = value;
        leaving += p->evicted;
        if (!p->evicted && !p->logged_in && strcmp(p->key, key) == 0 &&
            (!oldest || p->id < oldest->id))
            oldest = p;
    }
    if (!oldest || leaving >= SERVER_MAX_EVICTED)
        return false;
    oldest->evicted = true;
    server_stop_peer(oldest, PEER_STOP_SHUTDOWN, "its place was needed before it had logged in");
    peer_cut(oldest->peer, "its place was needed before it had logged in");
    throttle_left(server->throttle, key, true);
    return true;
}

/* Whether @key may connect, making room if need be; counted if so. */
static ThrottleVerdict may_connect(Server *server, const char *key)
{
    const char *crowd;
    ThrottleVerdict verdict =
        throttle_admit(server->throttle, key, (uint64_t)g_get_monotonic_time(), &crowd);
    if (verdict != THROTTLE_ADMIT || !crowd || evict(server, crowd))
        return verdict;
    throttle_left(server->throttle, key, true);
    return THROTTLE_FULL;
}

static void refuse_verdict(Server *server, const char *who, const char *key,
                           ThrottleVerdict verdict)
{
    char why[128];
    uint64_t left = throttle_pause_left(server->throttle, key, (uint64_t)g_get_monotonic_time());

    g_strlcpy(why, throttle_verdict_text(verdict), sizeof(why));
    if (verdict == THROTTLE_PAUSE)
        g_snprintf(why, sizeof(why), "%s, for another %" G_GUINT64_FORMAT " s",
                   throttle_verdict_text(verdict), (left + G_USEC_PER_SEC - 1) / G_USEC_PER_SEC);
    refuse(server, who, why);
}

void server_accept(Server *server, GSocket *socket)
{
    GSocketAddress *address = g_socket_get_remote_address(socket, NULL);
    char who[96];

    if (!address) /* gone already */
        return;
    describe(address, who, sizeof(who));
    char *key = throttle_key(address);
    const char *why = not_serving(server, is_local(address));
    if (why) {
        refuse(server, who, why);
    } else {
        ThrottleVerdict verdict = may_connect(server, key);
        int fd = -1;
        if (verdict != THROTTLE_ADMIT) {
            refuse_verdict(server, who, key, verdict);
        } else if ((fd = fcntl(g_socket_get_fd(socket), F_DUPFD_CLOEXEC, 3)) < 0) {
            refuse(server, who, "no file descriptor is left");
            throttle_left(server->throttle, key, true);
        } else {
            admit(server, fd, who, key);
        }
    }
    g_free(key);
    g_object_unref(address);
}
