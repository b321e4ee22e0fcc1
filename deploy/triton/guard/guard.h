/* Keeps cancellations from Triton 2.51, which a client that cancels gRPC calls can crash: the
 * state of a request is released while the notice of its cancellation is still on the way, and
 * whoever reads the notice reads freed memory. It is fixed from Triton 25.06 on, but no wheel of
 * nvidia-pytriton carries that. No Python in here; tritonserver loads this with LD_PRELOAD.
 *
 * gRPC reads and writes its sockets with recvmsg and sendmsg alone, and nothing else in Triton
 * does. Both are taken over, HTTP/2's frames are followed as they pass (RFC 9113), and gRPC is
 * given what it would have read from a client that waits for its answers:
 *
 *   RST_STREAM      of a request that is complete and not answered becomes a WINDOW_UPDATE of its
 *                   stream, of the same length, so that its answer never waits for the client;
 *                   one of an answered request is left out; that of half a request passes
 *   grpc-timeout    is renamed where it is spelt out: gRPC would cancel at the deadline by itself
 *   the end         of a connection, or a frame that would end it, is held back until all that
 *                   was asked is answered; what gRPC sends meanwhile is thrown away
 *
 * The client has its cancellation all the same: it does not wait, and by RFC 9113, 5.1 it ignores
 * what still comes. But the work goes on. So that it cannot pile up, the last frame of a new
 * request is parked while MOST_ABANDONED requests run that nobody waits for: Triton has not seen
 * that request, and where its cancellation follows, that passes first, as one of half a request,
 * which costs nearly nothing; the frame after it, for gRPC to count it and give the client new
 * credit. What is too large to be parked goes on to Triton, and at MOST_ABANDONED_EVER nothing
 * at all is read. Nobody waits for longer than PATIENCE_S at a time: the abandoned requests may
 * be of a slow model, or need credit that is still to be read.
 *
 * gRPC's epoll is edge-triggered: a reader that got EAGAIN has to be woken when there is
 * something after all. EPOLL_CTL_MOD brings an event about, which is then told to be one of
 * reading. Both are seen by taking over syscall, through which tritonserver uses epoll (libevent
 * brings functions of its own for that).
 */
#ifndef REVERSE_SIGMOID_GUARD_H
#define REVERSE_SIGMOID_GUARD_H
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/syscall.h> /* else SYS_epoll_wait, below, is not known */
#include <sys/types.h>
#include <pthread.h>

enum {
    MOST_ABANDONED = 32, /* requests that run and nobody waits for, of all connections */
    MOST_ABANDONED_EVER = 256,
    MOST_PARKED = 1024,  /* requests of a connection */
    PATIENCE_S = 1,      /* about; looked at four times a second */
    TRIM_TURNS = 20,     /* of those, until memory is given back */
    END_HELD_S = 120,    /* longest that the end of a connection is held back */
    MOST_FDS = 1 << 20,
    HEAD = 9,
    INPUT = 32768, /* a frame that is looked into has to fit: HEADERS are refused above 16 KiB */
    MOST_PIECES = 64,
    FEW_STREAMS = 64, /* a power of two */
    MOST_WINDOW = 0x7fffffff,
};

enum { DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE,
       CONTINUATION };
enum { END_STREAM = 1, ACK = 1, PADDED = 8, PRIORITIZED = 32 };

#ifdef SYS_epoll_wait
#define SYS_EPOLL_WAIT SYS_epoll_wait
#else
#define SYS_EPOLL_WAIT SYS_epoll_pwait
#endif

struct stream {
    uint32_t id;    /* 0: a free place */
    uint8_t ended;  /* the request is complete */
    uint8_t abandoned;
    uint32_t credit; /* what the client has added to the first window */
};

struct parked {
    struct parked *next;
    uint32_t id;
    size_t size;
    uint8_t frame[];
};

/* Where the reader of a block of headers stands, which may go on in the next frame. */
struct block {
    enum { FIELD, LENGTH, MORE, TEXT } at;
    uint64_t left;       /* of a number that is read, or of a text */
    uint32_t length;
    uint8_t texts, shift; /* texts that the field still has */
    bool of_text;
    const uint8_t *name; /* that this text may turn out to be */
};

struct connection {
    /* Whom to wake. */
    int fd, epoll;
    struct epoll_event event;
    atomic_bool woken;
    atomic_int kind; /* enum kind */

    /* The reader's alone. input[given..passed) is for gRPC, input[passed..read) is held back. */
    uint8_t *input;
    size_t given, passed, read;
    size_t payload; /* of a frame whose head has passed */
    uint32_t last;  /* the stream that it completes, or 0 */
    struct block block;
    struct parked *parked, *cancelled; /* last frames of requests, the oldest first */
    atomic_int parked_count;

    /* The writer's alone. */
    uint8_t head[HEAD];
    size_t head_size, out_payload;
    bool dropped; /* the client is away: what is sent is thrown away */

    /* What both change, under the lock. */
    pthread_mutex_t lock;
    struct stream *streams; /* open addressing; a power of two, at most half full */
    size_t places, open;
    uint32_t newest;        /* the highest stream that the client has opened */
    int waiting, abandoned; /* complete requests without an answer; those nobody waits for */
    int64_t first_window, window;
    ssize_t end; /* what recvmsg has to say in the end, with its errno */
    int end_error;

    atomic_bool ended, end_due, paused, may_read;
    atomic_long since; /* seconds: when it was paused or ended */
};

enum kind { UNSEEN, HTTP2, OTHER };

/* Nothing of ours may stand in for a function of tritonserver's but what it calls in hooks.c. */
#pragma GCC visibility push(hidden)

extern struct connection *connections[MOST_FDS];
extern atomic_int highest, abandoned, paused, parked, woken; /* of all connections */
extern atomic_bool cancelled_many;
extern long (*real_syscall)(long, ...);

/* waiting.c */
struct connection *at(int fd);
void wake(struct connection *c);
bool resume(struct connection *c);
void wake_next(void);
bool has_room(void);
void hold(struct connection *c);
bool pause_reading(struct connection *c);
void end_connection(struct connection *c, ssize_t end, int error);
bool nothing_waits(struct connection *c);

/* requests.c */
struct stream *find(struct connection *c, uint32_t id);
bool grow(struct connection *c, size_t places);
struct stream *open_stream(struct connection *c, uint32_t id);
void forget(struct connection *c, struct stream *s);
void complete(struct connection *c, struct stream *s);
void abandon(struct connection *c, struct stream *s);
void answered(struct connection *c, uint32_t id);
void append(struct parked **list, struct parked *one);
void park(struct connection *c, const uint8_t *frame, size_t size, uint32_t id);
struct parked *unpark(struct connection *c, uint32_t id);
void drop_parked(struct connection *c);
bool pass_parked(struct connection *c);

/* frames.c */
void window_update(uint8_t *frame, uint32_t stream, int64_t increment);
int64_t room(const struct connection *c, const struct stream *s);
void passed_payload(struct connection *c, size_t size);
bool pass(struct connection *c);
void sent(struct connection *c, const uint8_t *bytes, size_t size);

#pragma GCC visibility pop
#endif
