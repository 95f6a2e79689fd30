#include "announce.h"

#include <stdio.h>
#include <string.h>

/** What clients type: the default port left out, loopback as the certificate's names have it. */
static char *client_host(const char *address)
{
    const char *colon = strrchr(address, ':');
    g_autofree char *host = g_strndup(address, (gsize)(colon - address));
    const char *name = host;
    if (!strcmp(host, "127.0.0.1"))
        name = "localhost";
    else if (!strcmp(host, "0.0.0.0") || !strcmp(host, "[::]"))
        name = g_get_host_name();
    return g_strdup_printf("%s%s", name, strcmp(colon, ":3389") || *name == '[' ? colon : "");
}

void announce_print(const Server *server, bool has_credentials, const char *run_dir)
{
    const char *address = NULL;
    for (unsigned i = 0; server_address(server, i); i++) {
        const char *a = server_address(server, i);
        fprintf(stderr, "qrdp: the console is at %s\n", a);
        if (!address && !g_str_has_prefix(a, "unix:"))
            address = a;
    }
    if (!address)
        return;
    g_autofree char *host = client_host(address);
    const char *user = has_credentials ? "/u:USER /d:" : "/u: /p:";
    fprintf(stderr,
            "  Windows:  mstsc /v:%s\n"
            "  Linux:    xfreerdp3 /v:%s %s /dynamic-resolution\n"
            "  a USB device too, by vendor and product from lsusb:\n"
            "            xfreerdp3 /v:%s %s /dynamic-resolution /usb:id:1234:5678\n",
            host, host, user, host, user);
    if (!has_credentials)
        fprintf(stderr,
                "  No user has a password: everybody on this host is let in, and nobody from "
                "elsewhere.\n  Set one with: qrdp passwd USER\n");
    if (run_dir)
        fprintf(stderr, "  Clients and devices: qrdp status --run-dir=%s\n", run_dir);
}

void announce_ready(const Server *server)
{
    for (unsigned i = 0; server_address(server, i); i++)
        printf("READY rdp=%s\n", server_address(server, i));
    fflush(stdout);
}
