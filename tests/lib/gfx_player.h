/*
 * A client's side of RDPGFX for tests: plays the PDUs of frames on surfaces of its own, with
 * FreeRDP's decoders, and asserts that each PDU is in order.
 */
#ifndef QRDP_TESTS_GFX_PLAYER_H
#define QRDP_TESTS_GFX_PLAYER_H

#include <stddef.h>
#include <stdint.h>

typedef struct GfxPlayer GfxPlayer;

GfxPlayer *gfx_player_new(void);
void gfx_player_free(GfxPlayer *player);
/** A surface that is there already, as gfx.c makes the main one. */
void gfx_player_surface(GfxPlayer *player, uint16_t id, uint32_t width, uint32_t height);
/** Plays whole PDUs, each at most @max_pdu bytes. */
void gfx_player_play(GfxPlayer *player, const uint8_t *pdus, size_t len, size_t max_pdu);
/** The surface's pixels: B, G, R, X, rows without gaps. */
const uint8_t *gfx_player_pixels(const GfxPlayer *player, uint16_t id);
/** How many PDUs of that command were played so far. */
unsigned gfx_player_count(const GfxPlayer *player, uint16_t cmd);

#endif
