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
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <malloc.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

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

static const char PREFACE[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

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

static struct connection *connections[MOST_FDS];
static atomic_int highest, abandoned, paused, parked, woken; /* of all connections */
static atomic_bool cancelled_many;
static pid_t self;

static ssize_t (*real_recvmsg)(int, struct msghdr *, int);
static ssize_t (*real_sendmsg)(int, const struct msghdr *, int);
static int (*real_close)(int);
static long (*real_syscall)(long, ...);

static void find_real(void) {
    real_recvmsg = (ssize_t(*)(int, struct msghdr *, int))dlsym(RTLD_NEXT, "recvmsg");
    real_sendmsg = (ssize_t(*)(int, const struct msghdr *, int))dlsym(RTLD_NEXT, "sendmsg");
    real_close = (int (*)(int))dlsym(RTLD_NEXT, "close");
    real_syscall = (long (*)(long, ...))dlsym(RTLD_NEXT, "syscall");
}

__attribute__((constructor)) static void begin(void) {
    if (!real_syscall) find_real();
    self = getpid();
    /* Not for the processes that Triton starts. We are the first that LD_PRELOAD names. */
    const char *named = getenv("LD_PRELOAD");
    if (!named || strcmp(program_invocation_short_name, "tritonserver")) return;
    const char *rest = strchr(named, ':');
    if (rest) setenv("LD_PRELOAD", rest + 1, 1);
    else unsetenv("LD_PRELOAD");
}

static long now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec;
}

static struct connection *at(int fd) {
    return fd >= 0 && fd < MOST_FDS ? connections[fd] : NULL;
}

static void wake(struct connection *c) {
    pthread_mutex_lock(&c->lock); /* else its descriptor may be another's by now */
    if (c->kind != OTHER) {
        struct epoll_event event = c->event;
        if (!atomic_exchange(&c->woken, true)) atomic_fetch_add(&woken, 1);
        real_syscall(SYS_epoll_ctl, c->epoll, EPOLL_CTL_MOD, c->fd, &event);
    }
    pthread_mutex_unlock(&c->lock);
}

static bool resume(struct connection *c) {
    if (!atomic_exchange(&c->paused, false)) return false;
    atomic_fetch_sub(&paused, 1);
    return true;
}

/* The next one wakes the one after it: see recvmsg. */
static void wake_next(void) {
    static atomic_uint turn;
    unsigned fds = (unsigned)highest + 1, from = atomic_fetch_add(&turn, 1);
    for (unsigned i = 0; i < fds; i++) {
        struct connection *c = connections[(from + i) % fds];
        if (c && (resume(c) || (c->parked_count && !c->woken))) {
            wake(c);
            return;
        }
    }
}

/* Return whether there is room for another request that somebody may abandon. */
static bool has_room(void) {
    return abandoned < MOST_ABANDONED;
}

/* ---- patience ---- */

/* Wake whoever has waited for too long: for good once the end is due, for once otherwise. */
static void *watch(void *unused) {
    for (unsigned turn = 0;; turn++) {
        nanosleep(&(struct timespec){.tv_nsec = 250000000}, NULL);
        /* What gRPC frees of cancelled calls is scattered over malloc's arenas, and would stay. */
        if (turn % TRIM_TURNS == 0 && atomic_exchange(&cancelled_many, false)) malloc_trim(0);
        long time = now();
        for (int fd = 0; fd <= highest; fd++) {
            struct connection *c = connections[fd];
            if (!c) continue;
            if (c->ended && !c->end_due && time - c->since > END_HELD_S) {
                c->end_due = true;
                wake(c);
            } else if ((c->paused || c->parked_count) && time - c->since > PATIENCE_S) {
                c->since = time;
                c->may_read = true;
                resume(c);
                wake(c);
            }
        }
    }
    return unused;
}

static void start_watch(void) {
    pthread_t thread;
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    if (!pthread_create(&thread, NULL, watch, NULL)) pthread_detach(thread);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
}

static void hold(struct connection *c) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    c->since = now();
    pthread_once(&once, start_watch);
}

/* ---- requests ---- */

static struct stream *place(struct connection *c, uint32_t id) {
    size_t i = id >> 1 & (c->places - 1);
    while (c->streams[i].id && c->streams[i].id != id) i = (i + 1) & (c->places - 1);
    return &c->streams[i];
}

static struct stream *find(struct connection *c, uint32_t id) {
    struct stream *s = place(c, id);
    return s->id ? s : NULL;
}

static bool grow(struct connection *c, size_t places) {
    struct connection old = {.streams = c->streams, .places = c->places};
    struct stream *larger = calloc(places, sizeof *larger);
    if (!larger) return false;
    c->streams = larger;
    c->places = places;
    for (size_t i = 0; i < old.places; i++)
        if (old.streams[i].id) *place(c, old.streams[i].id) = old.streams[i];
    free(old.streams);
    return true;
}

static struct stream *open_stream(struct connection *c, uint32_t id) {
    if (2 * (c->open + 1) > c->places && !grow(c, 2 * c->places)) abort();
    struct stream *s = place(c, id);
    *s = (struct stream){.id = id};
    c->open++;
    c->newest = id;
    return s;
}

static void forget(struct connection *c, struct stream *s) {
    size_t mask = c->places - 1, free_place = (size_t)(s - c->streams), i = free_place;
    for (;;) {
        i = (i + 1) & mask;
        if (!c->streams[i].id) break;
        size_t home = c->streams[i].id >> 1 & mask;
        if (((i - home) & mask) < ((i - free_place) & mask)) continue;
        c->streams[free_place] = c->streams[i];
        free_place = i;
    }
    c->streams[free_place].id = 0;
    c->open--;
}

static void complete(struct connection *c, struct stream *s) {
    if (!s || s->ended) return;
    s->ended = 1;
    c->waiting++;
}

static void abandon(struct connection *c, struct stream *s) {
    if (s->abandoned) return;
    s->abandoned = 1;
    c->abandoned++;
    atomic_fetch_add(&abandoned, 1);
}

static void answered(struct connection *c, uint32_t id) {
    pthread_mutex_lock(&c->lock);
    struct stream *s = find(c, id);
    bool was_abandoned = s && s->abandoned;
    if (s) {
        c->waiting -= s->ended;
        c->abandoned -= was_abandoned;
        forget(c, s);
    }
    bool last = c->ended && !c->waiting;
    pthread_mutex_unlock(&c->lock);
    if (s && last) wake(c);
    if (was_abandoned) atomic_fetch_sub(&abandoned, 1);
    if (was_abandoned && has_room() && (paused || parked)) wake_next();
}

/* ---- frames of the client ---- */

static uint32_t number(const uint8_t *bytes) {
    return (uint32_t)bytes[0] << 24 | bytes[1] << 16 | bytes[2] << 8 | bytes[3];
}

static void window_update(uint8_t *frame, uint32_t stream, int64_t increment) {
    const uint8_t made[13] = {0, 0, 4, WINDOW_UPDATE, 0,
        stream >> 24, stream >> 16, stream >> 8, stream,
        increment >> 24, increment >> 16, increment >> 8, increment};
    memcpy(frame, made, sizeof made);
}

/* Return the most that can be added to its window whatever of it is used up. */
static int64_t room(const struct connection *c, const struct stream *s) {
    return MOST_WINDOW - c->first_window - s->credit;
}

static void settings(struct connection *c, const uint8_t *payload, size_t size) {
    for (; size >= 6; payload += 6, size -= 6)
        if (payload[0] == 0 && payload[1] == 4 && number(payload + 2) > c->first_window)
            c->first_window = number(payload + 2);
}

/* A literal name, plain or in HPACK's Huffman code; its last letter becomes one of equal length.
 * Read field by field (RFC 7541, 6): the same bytes elsewhere are part of values, or of two fields
 * at once, and gRPC would read another block than was sent. */
static void rename_timeout(struct block *b, uint8_t *byte, size_t size) {
    static const uint8_t plain[] = "grpc-timeout", coded[] = "\x9a\xca\xc8\xb2\x4d\x49\x4f\x6a\x7f";
    for (uint8_t *end = byte + size; byte < end; byte++) {
        if (b->at == TEXT) {
            if (b->name && *byte == b->name[b->length - b->left]) {
                if (b->left == 1) *byte = b->name == plain ? 's' : 0x3f;
            } else {
                b->name = NULL;
            }
            b->left--;
        } else if (b->at == MORE) {
            b->left += (uint64_t)(*byte & 0x7f) << b->shift;
            if ((b->shift += 7) > 28) b->left = UINT32_MAX; /* gRPC closes the connection */
            if (*byte & 0x80 && b->shift <= 28) continue;
        } else {
            uint8_t mask = 0x7f;
            bool coded_text = *byte & 0x80;
            if (b->at == FIELD) {
                mask = *byte & 0x80 ? 0x7f : *byte & 0x40 ? 0x3f : *byte & 0x20 ? 0x1f : 0x0f;
                b->texts = mask == 0x7f || mask == 0x1f ? 0 : *byte & mask ? 1 : 2;
                b->of_text = false;
            } else {
                b->of_text = true;
            }
            b->left = *byte & mask;
            b->name = b->of_text && b->texts == 2
                ? coded_text ? (b->left == 9 ? coded : NULL) : (b->left == 12 ? plain : NULL) : NULL;
            b->length = (uint32_t)b->left;
            if (b->left == mask) {
                b->at = MORE;
                b->shift = 0;
                continue;
            }
        }
        /* A number is read, or a byte of a text. */
        if (b->at == TEXT ? b->left : b->of_text && b->left) {
            b->at = TEXT;
            continue;
        }
        if (b->of_text) b->texts--;
        b->at = b->texts ? LENGTH : FIELD;
    }
}

/* Return where the block begins in a frame of headers, and in ``size`` how much of it there is. */
static uint8_t *block_of(uint8_t *frame, size_t *size) {
    size_t before = frame[3] == HEADERS ? (frame[4] & PADDED ? 1 : 0) + (frame[4] & PRIORITIZED ? 5 : 0) : 0;
    size_t behind = frame[3] == HEADERS && frame[4] & PADDED && *size ? frame[HEAD] : 0;
    *size = *size > before + behind ? *size - before - behind : 0;
    return frame + HEAD + before;
}

static bool may_park(const struct connection *c, uint8_t type, uint8_t flags) {
    return type == DATA && flags & END_STREAM && !has_room() && c->parked_count < MOST_PARKED;
}

static void append(struct parked **list, struct parked *one) {
    while (*list) list = &(*list)->next;
    *list = one;
}

static struct parked *take(struct parked **list, uint32_t id) {
    while (*list && id && (*list)->id != id) list = &(*list)->next;
    struct parked *one = *list;
    if (one) {
        *list = one->next;
        one->next = NULL;
    }
    return one;
}

static void park(struct connection *c, const uint8_t *frame, size_t size, uint32_t id) {
    struct parked *one = malloc(sizeof *one + size);
    if (!one) abort();
    *one = (struct parked){.id = id, .size = size};
    memcpy(one->frame, frame, size);
    append(&c->parked, one);
    cancelled_many = true;
    if (!c->parked_count++) hold(c);
    atomic_fetch_add(&parked, 1);
}

/* Return one taken out: the oldest, or with ``id`` that of a stream; NULL if there is none. */
static struct parked *unpark(struct connection *c, uint32_t id) {
    struct parked *one = take(&c->parked, id);
    if (one) {
        c->parked_count--;
        atomic_fetch_sub(&parked, 1);
    }
    return one;
}

static void drop_parked(struct connection *c) {
    for (struct parked *one; (one = unpark(c, 0)); free(one)) {}
    for (struct parked *one; (one = take(&c->cancelled, 0)); free(one)) {}
}

/* Return whether the frame may pass; it may have been changed. ``whole``: with its payload. */
static bool follow(struct connection *c, uint8_t *frame, size_t size, bool whole) {
    uint8_t type = frame[3], flags = frame[4], *payload = frame + HEAD;
    uint32_t id = number(frame + 5) & MOST_WINDOW;
    struct stream *s = find(c, id);
    switch (type) {
    case HEADERS:
        if (!s && id > c->newest) s = open_stream(c, id);
        /* fall through */
    case CONTINUATION:
        if (type == HEADERS) c->block = (struct block){0};
        if (whole) {
            size_t some = size;
            uint8_t *block = block_of(frame, &some);
            rename_timeout(&c->block, block, some);
        } else {
            c->block = (struct block){.at = TEXT, .left = UINT64_MAX}; /* the rest is not looked at */
        }
        /* fall through */
    case DATA:
        if (type == CONTINUATION || !(flags & END_STREAM)) return true;
        if (type == DATA && whole) {
            if (s && !s->ended) park(c, frame, HEAD + size, id);
            return !s;
        }
        if (whole || !size) complete(c, s);
        else c->last = id; /* once all of it is there */
        return true;
    case SETTINGS:
        if (whole && !(flags & ACK)) settings(c, payload, size);
        return true;
    case WINDOW_UPDATE:
        if (id == 0) c->window += number(payload) & MOST_WINDOW;
        if (s) s->credit += number(payload) & MOST_WINDOW;
        return true;
    case RST_STREAM:
        if (!s) return id > c->newest; /* one of an answered request */
        if (!s->ended) {
            struct parked *one = unpark(c, id);
            if (one) append(&c->cancelled, one);
            forget(c, s);
            return true;
        }
        abandon(c, s);
        int64_t increment = room(c, s);
        if (increment <= 0) return false;
        s->credit += (uint32_t)increment;
        window_update(frame, id, increment);
        return true;
    default:
        return true;
    }
}

/* So much of the payload has passed. */
static void passed_payload(struct connection *c, size_t size) {
    c->payload -= size;
    if (c->payload || !c->last) return;
    pthread_mutex_lock(&c->lock);
    complete(c, find(c, c->last));
    pthread_mutex_unlock(&c->lock);
    c->last = 0;
}

/* Return whether gRPC would not close the connection for its length or its stream. */
static bool legal(uint8_t type, size_t size, uint32_t id) {
    switch (type) {
    case HEADERS: case DATA: return id & 1;
    case RST_STREAM: return size == 4 && id;
    case SETTINGS: return size % 6 == 0 && !id && size <= INPUT - HEAD;
    case PING: return size == 8 && !id;
    case WINDOW_UPDATE: return size == 4;
    default: return true;
    }
}

/* Let pass what may, as far as it has come. Return false where gRPC would close the connection. */
static bool pass(struct connection *c) {
    for (;;) {
        uint8_t *frame = c->input + c->passed;
        size_t left = c->read - c->passed;
        if (c->kind == OTHER || c->payload) {
            size_t some = c->kind == OTHER || c->payload > left ? left : c->payload;
            c->passed += some;
            if (c->kind == OTHER) return true;
            passed_payload(c, some);
            if (c->payload) return true;
            continue;
        }
        if (c->kind == UNSEEN) {
            size_t preface = sizeof PREFACE - 1;
            if (memcmp(frame, PREFACE, left < preface ? left : preface)) c->kind = OTHER;
            else if (left < preface) return true;
            else c->passed += preface, c->kind = HTTP2;
            continue;
        }
        if (left < HEAD) return true;
        size_t size = number(frame) >> 8;
        uint8_t type = frame[3];
        if (!legal(type, size, number(frame + 5) & MOST_WINDOW)) return false;
        bool whole = HEAD + size <= INPUT && (type == HEADERS || type == RST_STREAM ||
            type == SETTINGS || type == WINDOW_UPDATE || type == CONTINUATION ||
            may_park(c, type, frame[4]));
        if (whole && left < HEAD + size) return true;
        pthread_mutex_lock(&c->lock);
        bool may = follow(c, frame, size, whole);
        pthread_mutex_unlock(&c->lock);
        if (may) {
            c->passed += HEAD + (whole ? size : 0);
            c->payload = whole ? 0 : size;
        } else {
            memmove(frame, frame + HEAD + size, left - HEAD - size);
            c->read -= HEAD + size;
        }
    }
}

/* ---- the end of a connection, and the pause ---- */

/* Return whether nothing is to be read from it just now. */
static bool pause_reading(struct connection *c) {
    if (abandoned < MOST_ABANDONED_EVER || c->may_read) return false;
    if (!atomic_exchange(&c->paused, true)) {
        atomic_fetch_add(&paused, 1);
        hold(c);
    }
    if (abandoned >= MOST_ABANDONED_EVER) return true;
    resume(c); /* the last of them went meanwhile, perhaps before it could see us */
    return false;
}

/* The client is gone: its requests run on, and their answers must not wait for its credit. */
static void end_connection(struct connection *c, ssize_t end, int error) {
    pthread_mutex_lock(&c->lock);
    c->end = end;
    c->end_error = error;
    c->read = c->passed; /* the rest of that frame will not come */
    if (c->waiting && !c->payload && c->window < MOST_WINDOW) {
        window_update(c->input + c->read, 0, MOST_WINDOW - c->window);
        c->passed = c->read += 13;
        c->window = MOST_WINDOW;
    }
    for (size_t i = 0; i < c->places; i++) {
        struct stream *s = &c->streams[i];
        if (!s->id || !s->ended) continue;
        abandon(c, s);
        if (c->payload || room(c, s) <= 0 || c->read + 13 > INPUT) continue;
        window_update(c->input + c->read, s->id, room(c, s));
        c->passed = c->read += 13;
    }
    hold(c);
    c->ended = true;
    pthread_mutex_unlock(&c->lock);
    shutdown(c->fd, SHUT_RDWR); /* who waits to write, or to be woken, is not to wait for the client */
    drop_parked(c);
}

/* Return whether a parked frame was let pass, which it may between two others. */
static bool pass_parked(struct connection *c) {
    struct parked *one = NULL;
    if (c->payload) return false;
    if (c->cancelled) one = take(&c->cancelled, 0);
    else if (has_room() || c->may_read) one = unpark(c, 0);
    if (!one) return false;
    pthread_mutex_lock(&c->lock);
    complete(c, find(c, one->id));
    pthread_mutex_unlock(&c->lock);
    memmove(c->input + one->size, c->input + c->passed, c->read - c->passed);
    memcpy(c->input, one->frame, one->size);
    c->read += one->size - c->passed;
    c->given = 0;
    c->passed = one->size;
    free(one);
    return true;
}

/* Return whether the end may be told, which it is once. */
static bool nothing_waits(struct connection *c) {
    pthread_mutex_lock(&c->lock);
    bool nothing = !c->waiting || c->end_due;
    pthread_mutex_unlock(&c->lock);
    return nothing;
}

/* ---- what gRPC calls ---- */

static ssize_t give(struct connection *c, struct msghdr *message) {
    size_t total = 0;
    for (size_t i = 0; i < message->msg_iovlen && c->given < c->passed; i++) {
        size_t some = c->passed - c->given, most = message->msg_iov[i].iov_len;
        if (some > most) some = most;
        memcpy(message->msg_iov[i].iov_base, c->input + c->given, some);
        c->given += some;
        total += some;
    }
    message->msg_flags = 0;
    return (ssize_t)total;
}

/* Read no more than the payload straight to where gRPC wants it. */
static ssize_t read_payload(struct connection *c, struct msghdr *message) {
    struct iovec pieces[MOST_PIECES];
    struct msghdr most = *message;
    size_t left = c->payload, count = 0;
    for (; count < message->msg_iovlen && count < MOST_PIECES && left; count++) {
        pieces[count] = message->msg_iov[count];
        if (pieces[count].iov_len > left) pieces[count].iov_len = left;
        left -= pieces[count].iov_len;
    }
    most.msg_iov = pieces;
    most.msg_iovlen = count;
    ssize_t size = real_recvmsg(c->fd, &most, 0);
    message->msg_controllen = most.msg_controllen;
    message->msg_flags = most.msg_flags;
    if (size > 0) passed_payload(c, (size_t)size);
    return size;
}

/* Read behind what is held back. ``control``: gRPC's, where the kernel says what is left. */
static ssize_t read_input(struct connection *c, struct msghdr *message) {
    memmove(c->input, c->input + c->passed, c->read - c->passed);
    c->read -= c->passed;
    c->given = c->passed = 0;
    struct iovec piece = {c->input + c->read, INPUT - c->read};
    struct msghdr own = {.msg_iov = &piece, .msg_iovlen = 1, .msg_control = message->msg_control,
                         .msg_controllen = message->msg_controllen};
    ssize_t size = real_recvmsg(c->fd, &own, 0);
    if (size > 0) {
        c->read += (size_t)size;
        message->msg_controllen = own.msg_controllen;
    }
    return size;
}

ssize_t recvmsg(int fd, struct msghdr *message, int flags) {
    if (!real_recvmsg) find_real();
    struct connection *c = at(fd);
    if (!c || flags || (c->kind == OTHER && c->given == c->read))
        return real_recvmsg(fd, message, flags);
    if (!c->input && !(c->input = malloc(2 * INPUT))) abort();
    size_t control = message->msg_controllen;
    message->msg_controllen = 0; /* says nothing about what is left: gRPC then asks again */
    while (c->given == c->passed) {
        if (c->ended) {
            if (!nothing_waits(c)) goto nothing;
            errno = c->end_error;
            return c->end;
        }
        if (pause_reading(c)) goto nothing;
        if (pass_parked(c)) continue;
        c->may_read = false;
        if (has_room() && (paused || parked)) wake_next();
        message->msg_controllen = control;
        bool straight = c->payload >= INPUT && c->read == c->passed;
        ssize_t size = straight ? read_payload(c, message) : read_input(c, message);
        if (straight && size > 0) {
            if (c->parked || c->cancelled) message->msg_controllen = 0;
            return size;
        }
        bool empty = size < 0 && (errno == EAGAIN || errno == EINTR);
        if (empty && pass_parked(c)) continue; /* there is room since we looked */
        if (empty) return size;
        if (size <= 0 || !pass(c)) end_connection(c, size < 0 ? -1 : 0, errno);
    }
    ssize_t size = give(c, message);
    if (c->given < c->passed || c->ended || c->parked || c->cancelled) message->msg_controllen = 0;
    return size;
nothing:
    errno = EAGAIN;
    return -1;
}

/* Look for ends of answers in what was sent. */
static void sent(struct connection *c, const uint8_t *bytes, size_t size) {
    while (size) {
        size_t some;
        if (c->head_size < HEAD) {
            some = HEAD - c->head_size < size ? HEAD - c->head_size : size;
            memcpy(c->head + c->head_size, bytes, some);
            if ((c->head_size += some) < HEAD) return;
            c->out_payload = number(c->head) >> 8;
            if (c->head[3] == DATA) {
                pthread_mutex_lock(&c->lock);
                c->window -= (int64_t)c->out_payload;
                pthread_mutex_unlock(&c->lock);
            }
        } else {
            some = c->out_payload < size ? c->out_payload : size;
            c->out_payload -= some;
        }
        bytes += some;
        size -= some;
        if (c->out_payload) continue;
        c->head_size = 0;
        uint8_t type = c->head[3];
        if (type == RST_STREAM || ((type == DATA || type == HEADERS) && c->head[4] & END_STREAM))
            answered(c, number(c->head + 5) & MOST_WINDOW);
    }
}

ssize_t sendmsg(int fd, const struct msghdr *message, int flags) {
    if (!real_sendmsg) find_real();
    struct connection *c = at(fd);
    if (!c || c->kind == OTHER) return real_sendmsg(fd, message, flags);
    ssize_t size = -1;
    if (!c->ended && !c->dropped) {
        size = real_sendmsg(fd, message, flags);
        if (size < 0 && (errno == EAGAIN || errno == EINTR || nothing_waits(c))) return size;
    }
    if (size < 0) {
        c->dropped = true;
        size = 0;
        for (size_t i = 0; i < message->msg_iovlen; i++)
            size += (ssize_t)message->msg_iov[i].iov_len;
    }
    size_t left = (size_t)size;
    for (size_t i = 0; left; i++) {
        size_t some = message->msg_iov[i].iov_len < left ? message->msg_iov[i].iov_len : left;
        sent(c, message->msg_iov[i].iov_base, some);
        left -= some;
    }
    return size;
}

static void reset(struct connection *c) {
    resume(c);
    if (atomic_exchange(&c->woken, false)) atomic_fetch_sub(&woken, 1);
    drop_parked(c);
    atomic_fetch_sub(&abandoned, c->abandoned);
    pthread_mutex_lock(&c->lock); /* nobody wakes it from here on */
    c->kind = OTHER;
    pthread_mutex_unlock(&c->lock);
    free(c->streams);
    c->streams = NULL;
    c->places = c->open = 0;
    c->given = c->passed = c->read = c->payload = c->head_size = c->out_payload = 0;
    c->newest = c->last = 0;
    c->waiting = c->abandoned = 0;
    c->first_window = c->window = 65535;
    c->dropped = c->ended = c->end_due = c->may_read = false;
}

int close(int fd) {
    if (!real_close) find_real();
    struct connection *c = at(fd);
    /* Not in a child between fork and exec, which closes what it has inherited. */
    if (c && c->kind != OTHER && getpid() == self) {
        reset(c);
        if (has_room() && (paused || parked)) wake_next();
    }
    return real_close(fd);
}

/* A socket that is to be watched: what it is will be seen from its first bytes. */
static void added(int epoll, int fd, const struct epoll_event *event) {
    struct connection *c = connections[fd];
    if (!c) {
        c = calloc(1, sizeof *c);
        if (!c) abort();
        pthread_mutex_init(&c->lock, NULL);
        c->fd = fd;
    }
    reset(c);
    if (!grow(c, FEW_STREAMS)) abort();
    c->epoll = epoll;
    c->event = *event;
    c->kind = UNSEEN;
    connections[fd] = c;
    int before = highest;
    while (before < fd && !atomic_compare_exchange_weak(&highest, &before, fd)) {}
}

/* Tell those who were woken that there is something to read. */
static void told(int epoll, struct epoll_event *events, long count) {
    for (int fd = 0; fd <= highest; fd++) {
        struct connection *c = connections[fd];
        if (!c || !c->woken || c->epoll != epoll) continue;
        for (long i = 0; i < count; i++) {
            if (events[i].data.u64 != c->event.data.u64 || !atomic_exchange(&c->woken, false))
                continue;
            atomic_fetch_sub(&woken, 1);
            events[i].events |= EPOLLIN;
        }
    }
}

long syscall(long number, ...) {
    if (!real_syscall) find_real();
    va_list rest;
    va_start(rest, number);
    long a = va_arg(rest, long), b = va_arg(rest, long), c = va_arg(rest, long),
         d = va_arg(rest, long), e = va_arg(rest, long), f = va_arg(rest, long);
    va_end(rest);
    if (number == SYS_epoll_ctl && b == EPOLL_CTL_ADD && (int)c >= 0 && (int)c < MOST_FDS)
        added((int)a, (int)c, (const struct epoll_event *)d);
    long result = real_syscall(number, a, b, c, d, e, f);
    if (woken && result > 0 && (number == SYS_epoll_pwait || number == SYS_EPOLL_WAIT))
        told((int)a, (struct epoll_event *)b, result);
    return result;
}
