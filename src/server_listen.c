/*
 * Listening sockets: "127.0.0.1:3389", "[::1]:0", ":3389" (all addresses), "host:port" and
 * "unix:/path".
 *
 * One rule decides what may be opened: without credentials only loopback addresses and unix
 * sockets, because then nobody is asked for a password. A bus-mode helper is exempt: it may listen
 * where libvirt says, and serves nobody until it was given a password (server.c).
 */
#include <errno.h>
#include <gio/gio.h>
#include <gio/gunixsocketaddress.h>
#include <netdb.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "server_priv.h"

#define BACKLOG 16
#define ACCEPT_PAUSE_MS 500
#define WARN_WINDOW_US 60000000u
#define WARN_BURST 5u

static void set_source(ServerListener *l, GSource *source)
{
    if (l->source) {
        g_source_destroy(l->source);
        g_source_unref(l->source);
    }
    l->source = source;
    if (source)
        g_source_attach(source, NULL);
}

static void listener_free(gpointer data)
{
    ServerListener *l = data;
    set_source(l, NULL);
    if (l->socket) {
        g_socket_close(l->socket, NULL);
        g_object_unref(l->socket);
    }
    if (l->unix_path)
        unlink(l->unix_path);
    g_free(l->unix_path);
    g_free(l->text);
    g_free(l);
}

void server_listeners_close(Server *server)
{
    g_ptr_array_set_size(server->listeners, 0);
}

static void start_accepting(ServerListener *l);

static gboolean on_accept_again(gpointer data)
{
    start_accepting(data);
    return G_SOURCE_REMOVE;
}

/* Without a descriptor for it the client stays in the queue, and the socket readable for ever. */
static void pause_accepting(ServerListener *l, const GError *error)
{
    GSource *pause = g_timeout_source_new(ACCEPT_PAUSE_MS);
    if (log_limit(&l->server->refused, (uint64_t)g_get_monotonic_time(), WARN_WINDOW_US,
                  WARN_BURST))
        log_warning("server", "a client must wait at %s: %s", l->text, error->message);
    g_source_set_callback(pause, on_accept_again, l, NULL);
    set_source(l, pause);
}

static gboolean on_incoming(GSocket *socket, GIOCondition condition, gpointer data)
{
    ServerListener *l = data;
    GError *error = NULL;
    GSocket *client = g_socket_accept(socket, NULL, &error);
    if (client) {
        server_accept(l->server, client);
        g_object_unref(client);
    } else if (!g_error_matches(error, G_IO_ERROR, G_IO_ERROR_WOULD_BLOCK)) {
        pause_accepting(l, error);
    }
    g_clear_error(&error);
    return G_SOURCE_CONTINUE; /* or it was destroyed: that holds */
}

static void start_accepting(ServerListener *l)
{
    GSource *source = g_socket_create_source(l->socket, G_IO_IN, NULL);
    g_source_set_callback(source, G_SOURCE_FUNC(on_incoming), l, NULL);
    set_source(l, source);
}

static char *address_text(GSocketAddress *address)
{
    if (G_IS_UNIX_SOCKET_ADDRESS(address))
        return g_strdup_printf("unix:%s",
                               g_unix_socket_address_get_path(G_UNIX_SOCKET_ADDRESS(address)));
    GInetSocketAddress *inet = G_INET_SOCKET_ADDRESS(address);
    char *host = g_inet_address_to_string(g_inet_socket_address_get_address(inet));
    bool six = g_socket_address_get_family(address) == G_SOCKET_FAMILY_IPV6;
    char *text =
        g_strdup_printf(six ? "[%s]:%u" : "%s:%u", host, g_inet_socket_address_get_port(inet));
    g_free(host);
    return text;
}

static GSocket *bind_and_listen(GSocketAddress *address, GError **error)
{
    GSocket *s = g_socket_new(g_socket_address_get_family(address), G_SOCKET_TYPE_STREAM,
                              G_SOCKET_PROTOCOL_DEFAULT, error);
    if (!s)
        return NULL;
    g_socket_set_blocking(s, FALSE);
    g_socket_set_listen_backlog(s, BACKLOG);
    if (!g_socket_bind(s, address, TRUE, error) || !g_socket_listen(s, error))
        g_clear_object(&s);
    return s;
}

static void add_listener(Server *server, GSocket *socket, const char *unix_path)
{
    GSocketAddress *local = g_socket_get_local_address(socket, NULL);
    ServerListener *l = g_new0(ServerListener, 1);

    l->socket = socket;
    l->text = local ? address_text(local) : g_strdup("?");
    l->unix_path = g_strdup(unix_path);
    l->server = server;
    start_accepting(l);
    g_ptr_array_add(server->listeners, l);
    g_clear_object(&local);
}

/* --- unix sockets --- */

/* A socket file nobody listens at is left over from a process that was killed. */
static bool is_stale(GSocketAddress *address, const char *path)
{
    struct stat st;
    if (lstat(path, &st) < 0 || !S_ISSOCK(st.st_mode))
        return false;
    GSocket *probe =
        g_socket_new(G_SOCKET_FAMILY_UNIX, G_SOCKET_TYPE_STREAM, G_SOCKET_PROTOCOL_DEFAULT, NULL);
    GError *error = NULL;
    bool stale = probe && !g_socket_connect(probe, address, NULL, &error) &&
                 g_error_matches(error, G_IO_ERROR, G_IO_ERROR_CONNECTION_REFUSED);
    g_clear_error(&error);
    g_clear_object(&probe);
    return stale;
}

static bool listen_unix(Server *server, const char *path, GError **error)
{
    GSocketAddress *address = g_unix_socket_address_new(path);
    if (is_stale(address, path))
        unlink(path);
    mode_t old = umask(0177); /* 0600: only this user may connect */
    GError *why = NULL;
    GSocket *s = bind_and_listen(address, &why);
    umask(old);
    if (s)
        add_listener(server, s, path);
    else
        g_set_error(error, G_IO_ERROR, why->code,
                    "cannot listen at unix:%s: %s; choose another path or remove the file", path,
                    why->message);
    g_clear_error(&why);
    g_object_unref(address);
    return s;
}

/* --- TCP --- */

/* Not GResolver: it looks names up in a thread, which would stay, and outside the sandbox. */
static GList *look_up(const char *host, GError **error)
{
    const struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
    struct addrinfo *found = NULL;
    GList *list = NULL;

    int status = getaddrinfo(host, NULL, &hints, &found);
    if (status != 0)
        g_set_error_literal(error, G_RESOLVER_ERROR, G_RESOLVER_ERROR_NOT_FOUND,
                            gai_strerror(status));
    for (const struct addrinfo *a = found; a; a = a->ai_next) {
        GSocketAddress *address = g_socket_address_new_from_native(a->ai_addr, a->ai_addrlen);
        if (G_IS_INET_SOCKET_ADDRESS(address))
            list = g_list_append(list, g_object_ref(g_inet_socket_address_get_address(
                                           G_INET_SOCKET_ADDRESS(address))));
        g_clear_object(&address);
    }
    if (found)
        freeaddrinfo(found);
    if (!list && error && !*error)
        g_set_error_literal(error, G_RESOLVER_ERROR, G_RESOLVER_ERROR_NOT_FOUND,
                            "it has no internet address");
    return list;
}

/* GInetAddress list; an empty host is every address. */
static GList *resolve(const char *host, GError **error)
{
    if (!*host)
        return g_list_append(NULL, g_inet_address_new_any(G_SOCKET_FAMILY_IPV6));
    GInetAddress *literal = g_inet_address_new_from_string(host);
    if (literal)
        return g_list_append(NULL, literal);
    return look_up(host, error);
}

static bool refuse_open(Server *server, const char *text, GList *addresses, GError **error)
{
    if (server->config->mode == CONFIG_BUS || !auth_is_empty(server->auth))
        return false;
    for (GList *l = addresses; l; l = l->next) {
        if (g_inet_address_get_is_loopback(l->data))
            continue;
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_PERMISSION_DENIED,
                    "refusing to listen at %s while there are no credentials: set a password with "
                    "`qrdp passwd USER`, or listen at 127.0.0.1 only",
                    text);
        return true;
    }
    return false;
}

static GSocket *listen_address(GInetAddress *inet, guint16 port, GError **error)
{
    GSocketAddress *address = g_inet_socket_address_new(inet, port);
    GError *why = NULL;
    GSocket *s = bind_and_listen(address, &why);
    g_object_unref(address);
    if (!s && g_inet_address_get_is_any(inet) &&
        g_inet_address_get_family(inet) == G_SOCKET_FAMILY_IPV6 &&
        !g_error_matches(why, G_IO_ERROR, G_IO_ERROR_ADDRESS_IN_USE)) {
        g_clear_error(&why); /* a host without IPv6 */
        GInetAddress *four = g_inet_address_new_any(G_SOCKET_FAMILY_IPV4);
        address = g_inet_socket_address_new(four, port);
        s = bind_and_listen(address, &why);
        g_object_unref(address);
        g_object_unref(four);
    }
    if (!s)
        g_propagate_error(error, why);
    return s;
}

/* Why nobody can listen at @text, and what can be done about it. */
static void explain(const char *text, guint16 port, const GError *why, GError **error)
{
    if (!g_error_matches(why, G_IO_ERROR, G_IO_ERROR_ADDRESS_IN_USE)) {
        g_set_error(error, G_IO_ERROR, why->code, "cannot listen at %s: %s", text, why->message);
        return;
    }
    g_set_error(error, G_IO_ERROR, G_IO_ERROR_ADDRESS_IN_USE,
                "cannot listen at %s, which is in use: take another port with --listen=%.*s:%u",
                text, (int)(strrchr(text, ':') - text), text,
                port < G_MAXUINT16 ? port + 1u : port - 1u);
}

static bool listen_tcp(Server *server, const char *text, GError **error)
{
    char *host = NULL;
    guint16 port = 0;
    GError *why = NULL;

    if (!config_split_address(text, &host, &port)) {
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_INVALID_ARGUMENT,
                    "\"%s\" is not an address to listen at: write ADDRESS:PORT, [IPV6]:PORT, :PORT "
                    "or unix:/PATH",
                    text);
        return false;
    }
    GList *addresses = resolve(host, &why);
    bool ok = addresses && !refuse_open(server, text, addresses, error);

    for (GList *l = addresses; ok && l; l = l->next) {
        GSocket *s = listen_address(l->data, port, &why);
        if (s)
            add_listener(server, s, NULL);
        ok = s;
    }
    if (why) {
        explain(text, port, why, error);
        g_error_free(why);
    }
    g_list_free_full(addresses, g_object_unref);
    g_free(host);
    return ok;
}

bool server_listen(Server *server, GError **error)
{
    if (server->unusable) {
        g_set_error_literal(error, G_IO_ERROR, G_IO_ERROR_NOT_SUPPORTED, server->unusable);
        return false;
    }
    for (char **l = server->config->listen; l && *l; l++) {
        bool ok = g_str_has_prefix(*l, "unix:") ? listen_unix(server, *l + 5, error)
                                                : listen_tcp(server, *l, error);
        if (!ok) {
            server_listeners_close(server);
            return false;
        }
    }
    for (guint i = 0; i < server->listeners->len; i++) {
        const ServerListener *l = server->listeners->pdata[i];
        log_info("server", "listening at %s, certificate SHA-256 %s", l->text,
                 cert_fingerprint(server->cert));
    }
    /* qrdp run has its own words for it, and a bus's helper serves nobody without a password. */
    if (server->config->mode == CONFIG_QMP)
        server_warn_if_open(server);
    return true;
}

const char *server_address(const Server *server, unsigned i)
{
    if (i >= server->listeners->len)
        return NULL;
    return ((const ServerListener *)server->listeners->pdata[i])->text;
}

GPtrArray *server_listeners_new(void)
{
    return g_ptr_array_new_with_free_func(listener_free);
}
