/*
 * Theory of operation. FreeRDP's transport reads whole PDUs through a table of functions that may
 * be replaced; ours calls the original and mends what it knows.
 *
 * rdesktop (every version) encodes the two numbers of its MCS Erect Domain Request as plain 16-bit
 * words instead of PER integers (MS-RDPBCGR 2.2.1.5). Windows does not look; FreeRDP finds a byte
 * too many and disconnects. The numbers mean nothing, and the right form is as long.
 */
#include "peer_quirks.h"

#include <freerdp/transport_io.h>
#include <stdbool.h>
#include <string.h>

static const BYTE rdesktop_erect_domain[] = {0x03, 0, 0, 0x0c, 0x02, 0xf0, 0x80, 0x04, 0, 1, 0, 1};
static const BYTE erect_domain[] = {0x03, 0, 0, 0x0c, 0x02, 0xf0, 0x80, 0x04, 1, 0, 1, 0};

static pTransportRWFkt freerdp_read_pdu; /* the same for all transports */

static int read_pdu(rdpTransport *transport, wStream *s)
{
    pTransportRWFkt read = __atomic_load_n(&freerdp_read_pdu, __ATOMIC_RELAXED);
    int status = read(transport, s);

    if (status == (int)sizeof(erect_domain) && Stream_Length(s) == sizeof(erect_domain) &&
        memcmp(Stream_Buffer(s), rdesktop_erect_domain, sizeof(erect_domain)) == 0)
        memcpy(Stream_Buffer(s), erect_domain, sizeof(erect_domain));
    return status;
}

bool peer_quirks_install(rdpContext *context)
{
    const rdpTransportIo *io = freerdp_get_io_callbacks(context);

    if (!io)
        return false;
    rdpTransportIo mended = *io;
    __atomic_store_n(&freerdp_read_pdu, io->ReadPdu, __ATOMIC_RELAXED);
    mended.ReadPdu = read_pdu;
    return freerdp_set_io_callbacks(context, &mended);
}
