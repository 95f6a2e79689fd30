#include "announce.h"

#include <stdio.h>
#include <string.h>

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
    const char *user = has_credentials ? " /u:USER" : " /u: /p:";
    fprintf(stderr,
            "  Windows:  mstsc /v:%s\n"
            "  Linux:    xfreerdp3 /v:%s%s\n"
            "  a USB device too, by vendor and product from lsusb:\n"
            "            xfreerdp3 /v:%s%s /usb:id:1234:5678\n",
            address, address, user, address, user);
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
