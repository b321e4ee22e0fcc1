/* Whose turn it is: connections that wait for room, for their end, or for being woken. */
#include "guard.h"

#include <malloc.h>
#include <signal.h>
#include <time.h>

struct connection *connections[MOST_FDS];
atomic_int highest, abandoned, paused, parked, woken;
atomic_bool cancelled_many;

static long now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec;
}

struct connection *at(int fd) {
    return fd >= 0 && fd < MOST_FDS ? connections[fd] : NULL;
}

void wake(struct connection *c) {
    pthread_mutex_lock(&c->lock); /* else its descriptor may be another's by now */
    if (c->kind != OTHER) {
        struct epoll_event event = c->event;
        if (!atomic_exchange(&c->woken, true)) atomic_fetch_add(&woken, 1);
        real_syscall(SYS_epoll_ctl, c->epoll, EPOLL_CTL_MOD, c->fd, &event);
    }
    pthread_mutex_unlock(&c->lock);
}

bool resume(struct connection *c) {
    if (!atomic_exchange(&c->paused, false)) return false;
    atomic_fetch_sub(&paused, 1);
    return true;
}

/* The next one wakes the one after it: see recvmsg. */
void wake_next(void) {
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
bool has_room(void) {
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

void hold(struct connection *c) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    c->since = now();
    pthread_once(&once, start_watch);
}

/* Return whether nothing is to be read from it just now. */
bool pause_reading(struct connection *c) {
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
void end_connection(struct connection *c, ssize_t end, int error) {
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

/* Return whether the end may be told, which it is once. */
bool nothing_waits(struct connection *c) {
    pthread_mutex_lock(&c->lock);
    bool nothing = !c->waiting || c->end_due;
    pthread_mutex_unlock(&c->lock);
    return nothing;
}
