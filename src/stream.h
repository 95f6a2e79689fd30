/*
 * Who gets which pictures: clients with a graphics pipeline that keep up with each other get the
 * same ones, encoded and compressed once.
 *
 * Owner: the Server; a StreamMember is a client's, from when its pipeline has come up until that,
 * or the client, is gone. Thread: main throughout; what is delivered is immutable and goes to the
 * client's thread. Lifetime: streams_free() after the last member and before the Framebuffer.
 */
#ifndef QRDP_STREAM_H
#define QRDP_STREAM_H

#include "encoder.h"

/** A client that has kept up for so long may share with others. */
#define STREAM_PATIENCE_US 2000000

typedef struct Streams Streams;
typedef struct StreamMember StreamMember;

/** @patience_us: STREAM_PATIENCE_US, less in tests. */
Streams *streams_new(Framebuffer *fb, int64_t patience_us);
void streams_free(Streams *streams);
/** The framebuffer has something new. */
void streams_damaged(Streams *streams);

/** What the next frame must begin with for a client. */
typedef enum StreamNeed {
    STREAM_GOES_ON,
    STREAM_START, /* a gfx_start(); it shows what it was sent */
    STREAM_FRESH, /* nothing: it is not known what it shows */
} StreamNeed;

/** What a client says of itself, on its own thread, whenever that changes. */
typedef struct StreamSlot {
    FilmCodec film;
    StreamNeed need;
    bool ready;          /* it has room for a frame */
    uint32_t handled;    /* frames that were delivered to it so far, sent or not */
    uint32_t film_limit; /* bytes that a film's picture may take for its link, 0: any */
} StreamSlot;

/** Takes the reference; NULL: its pictures cannot be encoded, nothing more will come. */
typedef void (*StreamDeliver)(void *user, EncodedFrame *encoded);

StreamMember *stream_member_new(Streams *streams, const StreamSlot *slot, StreamDeliver deliver,
                                void *user);
void stream_member_free(StreamMember *member);
void stream_member_slot(StreamMember *member, const StreamSlot *slot);
/** Whether the two get the same frames. */
bool stream_members_share(const StreamMember *a, const StreamMember *b);

#endif
