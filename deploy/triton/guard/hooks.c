/* What tritonserver calls in place of the C library's. */
#include "guard.h"

#include <dlfcn.h>
#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static pid_t self;

static ssize_t (*real_recvmsg)(int, struct msghdr *, int);
static ssize_t (*real_sendmsg)(int, const struct msghdr *, int);
static int (*real_close)(int);
long (*real_syscall)(long, ...);

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

/* Return whether there is nowhere to read to: gRPC asks so once all its pieces are full, and gives
 * on what it has when the answer is 0, which then is no end of the connection. */
static bool is_full(const struct msghdr *message) {
    for (size_t i = 0; i < message->msg_iovlen; i++)
        if (message->msg_iov[i].iov_len) return false;
    return true;
}

ssize_t recvmsg(int fd, struct msghdr *message, int flags) {
    if (!real_recvmsg) find_real();
    struct connection *c = at(fd);
    if (!c || flags || (c->kind == OTHER && c->given == c->read))
        return real_recvmsg(fd, message, flags);
    if (is_full(message)) return 0;
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
