/*
 * A URBDRC client for the session fuzzer: it knows the protocol well enough to bring a device as
 * far as the guest, and is told for each request whether to answer it properly or how to get it
 * wrong.
 *
 * It reads what the server sends with the same parsers and asserts what a server may never do,
 * whatever the client and the guest did: see check_request().
 */
#ifndef QRDP_TESTS_HOSTILE_CLIENT_H
#define QRDP_TESTS_HOSTILE_CLIENT_H

#include "fake_dvc.h"

#define HOSTILE_PROFILES 5u

typedef enum HostileHow {
    HOSTILE_PROPER,
    HOSTILE_SHORT, /* fewer bytes than asked for; @arg of 256 parts */
    HOSTILE_STALL,
    HOSTILE_ERROR,      /* one of many status values, by @arg */
    HOSTILE_OVERSIZE,   /* more bytes than asked for */
    HOSTILE_CLAIM,      /* says that there are more bytes than there are */
    HOSTILE_WRONG_KIND, /* another kind of completion */
    HOSTILE_TWICE,
    HOSTILE_WRONG_ID,
    HOSTILE_MUTATED, /* a proper answer with a byte changed at @arg */
    HOSTILE_CUT,     /* a proper answer that ends early */
    HOSTILE_NEVER,
    HOSTILE_FAILED, /* a proper answer; of mass storage, that the command has failed */
    HOSTILE_N_HOWS
} HostileHow;

typedef struct HostileClient HostileClient;

/** @usb_device: what ADD_DEVICE says, below 5 like Windows. */
HostileClient *hostile_client_new(DvcManager *manager, unsigned profile, uint32_t usb_device);
void hostile_client_free(HostileClient *client);
/** The next devices have this byte of their configuration descriptor changed. */
void hostile_client_patch(HostileClient *client, uint16_t offset, uint8_t value);
void hostile_client_profile(HostileClient *client, unsigned profile);
/** Takes what the server has sent. Handshakes are gone along with, requests are kept. True if there
 * was anything. */
bool hostile_client_read(HostileClient *client);
unsigned hostile_client_pending(const HostileClient *client);
/** Answers the pending request @index. */
void hostile_client_answer(HostileClient *client, unsigned index, HostileHow how, uint16_t arg);
/** Announces one more device on the control channel. */
void hostile_client_announce(HostileClient *client);

#endif
