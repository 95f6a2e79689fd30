/*
 * Streams, a guest that draws, and up to MAX_CLIENTS clients, each of which shows what it is sent:
 * for the tests of stream.h. Everything belongs to the Rig and is used on the test's thread.
 */
#ifndef QRDP_TESTS_STREAM_RIG_H
#define QRDP_TESTS_STREAM_RIG_H

#include "gfx.h"
#include "gfx_player.h"
#include "stream.h"
#include "unzgfx.h"

#define PATIENCE_US 5000 /* rig_init()'s */
#define MAX_SIDE 512u
#define MAX_CLIENTS 4u

typedef struct Client {
    struct Rig *rig;
    DvcManager *manager;
    Dvc *dvc;
    Gfx *gfx;
    Unzgfx *unzgfx;
    GfxPlayer *player;
    StreamMember *member;
    StreamSlot told;
    StreamNeed need;
    uint32_t handled, film_limit;
    FilmCodec film;
    GQueue inbox;   /* of EncodedFrame: what was delivered to its thread */
    bool stopped;   /* the thread hangs */
    bool silent;    /* it acknowledges nothing */
    uint16_t shown; /* the mapped surface */
    uint32_t frames, fresh_starts;
    uint32_t last, ended; /* id of the last frame that was sent, and that it has played */
    bool lossy;
    unsigned film_pictures, replies;
} Client;

typedef struct Rig {
    Framebuffer *fb;
    Streams *streams;
    uint32_t width, height;
    uint32_t screen[MAX_SIDE][MAX_SIDE];
    Client *clients[MAX_CLIENTS];
    uint32_t seed;
} Rig;

typedef bool (*Condition)(Rig *rig);

/** A rig with a picture and no clients; @patience_us: see streams_new(). */
void rig_init_for(Rig *rig, int64_t patience_us);
void rig_init(Rig *rig);
void rig_clear(Rig *rig);
uint32_t random_bits(Rig *rig);

/** The client's, once it has advertised its capabilities; in the first free place of rig->clients.
 */
Client *client_new(Rig *rig, FilmCodec film);
void client_free(Client *c);
/** Tells the stream of what has changed about the client. */
void tell(Client *c);
/** It acknowledges what it has not. */
void catch_up(Client *c);
/** It has lost what it showed. */
void lose(Client *c);
/** It shows the guest's picture, pixel by pixel. */
bool exact(const Client *c);

void set_scanout(Rig *rig, uint32_t width, uint32_t height);
/** Blocks of few colours, like text; or something like a photograph. */
void draw(Rig *rig, int32_t x, int32_t y, int32_t w, int32_t h, bool photo);
void draw_anywhere(Rig *rig);
/** A line of text, and the rest of it scrolls. */
void scroll(Rig *rig);

void run_once(Rig *rig);
/** Fails after a minute, naming @what. */
void run_until(Rig *rig, Condition condition, const char *what);
/** Runs until all clients that can show the guest's picture. */
void settle(Rig *rig);
/** All clients share one stream. */
bool share(Rig *rig);
/** Adds two clients that share, and have got a frame that way. */
void share_two(Rig *rig);

#endif
