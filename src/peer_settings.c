/*
 * What we tell FreeRDP about ourselves before the connection starts, and about the picture before
 * the capabilities go out (rdp-server.md 3). What the client sent overwrites some of it later;
 * those values are read in Capabilities and PostConnect only.
 *
 * Security: TLS always, classic RDP security never. NLA unless nobody has a password; TLS with the
 * password in the client info besides it if the operator wants that.
 *
 * WaitForOutputBufferFlush is off: with it a client that stops reading would hold this thread
 * inside FreeRDP for as long as it likes (style.md, FreeRDP fact 4). Without it FreeRDP's buffer
 * has no bound, so every sender asks IsWriteBlocked or waits for acknowledgements first (dvc.h
 * outbox, the GFX window), and the watchdog cuts a client that takes nothing.
 */
#include <freerdp/crypto/certificate.h>
#include <freerdp/crypto/privatekey.h>
#include <freerdp/settings.h>

#include "peer_priv.h"

#define TLS_1_2 0x0303
#define VC_CHUNK_SIZE 16256
#define MULTIFRAG_MAX (8u << 20) /* mstsc rejects 16 MiB - 1 */

static bool set_bools(rdpSettings *s, Peer *peer)
{
    bool open = auth_snapshot_is_empty(peer->auth);
    const struct {
        FreeRDP_Settings_Keys_Bool key;
        BOOL value;
    } bools[] = {
        {FreeRDP_RdpSecurity, FALSE},
        {FreeRDP_UseRdpSecurityLayer, FALSE},
        {FreeRDP_ExtSecurity, FALSE},
        {FreeRDP_RdstlsSecurity, FALSE},
        {FreeRDP_NlaSecurity, !open},
        {FreeRDP_TlsSecurity, open || peer->config->tls_only},
        {FreeRDP_WaitForOutputBufferFlush, FALSE},
        {FreeRDP_SupportGraphicsPipeline, TRUE},
        {FreeRDP_GfxH264, FALSE},
        {FreeRDP_GfxAVC444, FALSE},
        {FreeRDP_GfxAVC444v2, FALSE},
        {FreeRDP_RemoteFxCodec, TRUE},
        {FreeRDP_RemoteFxImageCodec, TRUE},
        {FreeRDP_NSCodec, TRUE},
        {FreeRDP_SurfaceFrameMarkerEnabled, TRUE},
        {FreeRDP_FrameMarkerCommandEnabled, TRUE},
        {FreeRDP_DrawAllowSkipAlpha, TRUE},
        {FreeRDP_FastPathOutput, TRUE},
        {FreeRDP_FastPathInput, TRUE},
        {FreeRDP_RefreshRect, TRUE},
        {FreeRDP_SuppressOutput, TRUE},
        {FreeRDP_DesktopResize, TRUE},
        {FreeRDP_SupportMonitorLayoutPdu, TRUE},
        {FreeRDP_SupportDisplayControl, TRUE}, /* no PDU tells: the client may refuse the channel */
        {FreeRDP_SupportMultitransport, FALSE},
        {FreeRDP_NetworkAutoDetect, TRUE},
        {FreeRDP_CompressionEnabled, FALSE},
        {FreeRDP_AutoReconnectionEnabled, FALSE},
        {FreeRDP_UnicodeInput, TRUE},
        {FreeRDP_HasExtendedMouseEvent, TRUE},
        {FreeRDP_HasRelativeMouseEvent, TRUE},
        {FreeRDP_HasHorizontalWheel, FALSE}, /* QEMU has nowhere to put it */
        {FreeRDP_HasQoeEvent, FALSE},
    };

    for (size_t i = 0; i < G_N_ELEMENTS(bools); i++) {
        if (!freerdp_settings_set_bool(s, bools[i].key, bools[i].value))
            return false;
    }
    return true;
}

static bool set_numbers(rdpSettings *s, const Peer *peer)
{
    const struct {
        FreeRDP_Settings_Keys_UInt32 key;
        UINT32 value;
    } numbers[] = {
        {FreeRDP_OsMajorType, OSMAJORTYPE_UNIX},
        {FreeRDP_OsMinorType, OSMINORTYPE_PSEUDO_XSERVER},
        {FreeRDP_ColorDepth, 32},
        {FreeRDP_DesktopWidth, peer->width},
        {FreeRDP_DesktopHeight, peer->height},
        {FreeRDP_PointerCacheSize, 100},
        {FreeRDP_LargePointerFlag, LARGE_POINTER_FLAG_96x96 | LARGE_POINTER_FLAG_384x384},
        {FreeRDP_MultifragMaxRequestSize, MULTIFRAG_MAX},
        {FreeRDP_VCFlags, VCCAPS_COMPR_SC},
        {FreeRDP_VCChunkSize, VC_CHUNK_SIZE},
    };

    for (size_t i = 0; i < G_N_ELEMENTS(numbers); i++) {
        if (!freerdp_settings_set_uint32(s, numbers[i].key, numbers[i].value))
            return false;
    }
    return freerdp_settings_set_uint16(s, FreeRDP_TLSMinVersion, TLS_1_2);
}

/* The settings own both objects; each peer has its own pair. */
static bool set_certificate(rdpSettings *s, const Peer *peer)
{
    rdpCertificate *certificate = freerdp_certificate_new_from_pem(peer->cert_pem);
    rdpPrivateKey *key = freerdp_key_new_from_pem(peer->key_pem);

    if (!certificate ||
        !freerdp_settings_set_pointer_len(s, FreeRDP_RdpServerCertificate, certificate, 1)) {
        freerdp_certificate_free(certificate);
        freerdp_key_free(key);
        return false;
    }
    if (!key || !freerdp_settings_set_pointer_len(s, FreeRDP_RdpServerRsaKey, key, 1)) {
        freerdp_key_free(key);
        return false;
    }
    return true;
}

bool peer_apply_settings(Peer *peer)
{
    rdpSettings *s = peer->client->context->settings;
    return set_bools(s, peer) && set_numbers(s, peer) && set_certificate(s, peer);
}

bool peer_check_capabilities(Peer *peer)
{
    rdpSettings *s = peer->client->context->settings;

    /* A client that asked for 16 or 24 bits takes 32 if it says so; the codecs need 32. */
    UINT16 depths = freerdp_settings_get_uint16(s, FreeRDP_SupportedColorDepths);
    if (depths & RNS_UD_32BPP_SUPPORT)
        freerdp_settings_set_uint32(s, FreeRDP_ColorDepth, 32);
    return freerdp_settings_set_uint32(s, FreeRDP_DesktopWidth, peer->width) &&
           freerdp_settings_set_uint32(s, FreeRDP_DesktopHeight, peer->height);
}
