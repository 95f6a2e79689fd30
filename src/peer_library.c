/*
 * FreeRDP as a library: which versions can serve, and where its log goes.
 *
 * Most of what FreeRDP calls an error is a client that went away or sent something odd, and we say
 * that in a line of our own; so its errors are our debug lines and the rest is trace. Its own trace
 * level dumps packets, passwords included, and is never switched on.
 */
#include <freerdp/freerdp.h>
#include <freerdp/version.h>
#include <winpr/ssl.h>
#include <winpr/wlog.h>

#include "log.h"
#include "peer_library.h"
#include "tls_connection.h"

static BOOL on_wlog(const wLogMessage *message)
{
    char text[512];

    if (!message->TextString)
        return TRUE;
    log_escape(text, sizeof(text), message->TextString, SIZE_MAX);
    log_line(message->Level >= WLOG_ERROR ? LOG_LEVEL_DEBUG : LOG_LEVEL_TRACE, "freerdp", "%s",
             text);
    return TRUE;
}

static BOOL on_wlog_bytes(const wLogMessage *message)
{
    return TRUE; /* packets and pictures are nobody's business */
}

static DWORD wlog_level(void)
{
    switch (log_get_level()) {
    case LOG_LEVEL_TRACE:
        return WLOG_DEBUG;
    case LOG_LEVEL_DEBUG:
        return WLOG_ERROR;
    case LOG_LEVEL_ERROR:
    case LOG_LEVEL_WARNING:
    case LOG_LEVEL_INFO:
        break;
    }
    return WLOG_OFF;
}

void peer_library_init(void)
{
    static bool done;
    wLogCallbacks callbacks = {.data = on_wlog_bytes,
                               .image = on_wlog_bytes,
                               .message = on_wlog,
                               .package = on_wlog_bytes};
    if (done)
        return;
    done = true;
    /* First of all: without it FreeRDP warns that MD4 and RC4 are missing (rdp-server.md 4.4). */
    winpr_InitializeSSL(WINPR_SSL_INIT_DEFAULT);
    tls_connection_init();
    wLog *root = WLog_GetRoot();
    if (WLog_SetLogAppenderType(root, WLOG_APPENDER_CALLBACK))
        WLog_ConfigureAppender(WLog_GetLogAppender(root), "callbacks", &callbacks);
    WLog_SetLogLevel(root, wlog_level());
}

const char *peer_library_problem(void)
{
    int major = 0, minor = 0, revision = 0;
    freerdp_get_version(&major, &minor, &revision);
    if (major == 3 && minor >= 13 && minor <= 15)
        return "this FreeRDP (3.13 to 3.15) turns away every client that describes its monitors: "
               "install 3.16 or newer (Debian 13: apt install -t trixie-backports libfreerdp3-3 "
               "libfreerdp-server3-3 libwinpr3-3)";
    return NULL;
}
