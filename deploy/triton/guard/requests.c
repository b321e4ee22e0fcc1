/* The requests of a connection: which are complete, abandoned, answered, or parked. */
#include "guard.h"

#include <stdlib.h>
#include <string.h>

static struct stream *place(struct connection *c, uint32_t id) {
    size_t i = id >> 1 & (c->places - 1);
    while (c->streams[i].id && c->streams[i].id != id) i = (i + 1) & (c->places - 1);
    return &c->streams[i];
}

struct stream *find(struct connection *c, uint32_t id) {
    struct stream *s = place(c, id);
    return s->id ? s : NULL;
}

bool grow(struct connection *c, size_t places) {
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

struct stream *open_stream(struct connection *c, uint32_t id) {
    if (2 * (c->open + 1) > c->places && !grow(c, 2 * c->places)) abort();
    struct stream *s = place(c, id);
    *s = (struct stream){.id = id};
    c->open++;
    c->newest = id;
    return s;
}

void forget(struct connection *c, struct stream *s) {
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

void complete(struct connection *c, struct stream *s) {
    if (!s || s->ended) return;
    s->ended = 1;
    c->waiting++;
}

void abandon(struct connection *c, struct stream *s) {
    if (s->abandoned) return;
    s->abandoned = 1;
    c->abandoned++;
    atomic_fetch_add(&abandoned, 1);
}

void answered(struct connection *c, uint32_t id) {
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

void append(struct parked **list, struct parked *one) {
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

void park(struct connection *c, const uint8_t *frame, size_t size, uint32_t id) {
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
struct parked *unpark(struct connection *c, uint32_t id) {
    struct parked *one = take(&c->parked, id);
    if (one) {
        c->parked_count--;
        atomic_fetch_sub(&parked, 1);
    }
    return one;
}

void drop_parked(struct connection *c) {
    for (struct parked *one; (one = unpark(c, 0)); free(one)) {}
    for (struct parked *one; (one = take(&c->cancelled, 0)); free(one)) {}
}

/* Return whether a parked frame was let pass, which it may between two others. */
bool pass_parked(struct connection *c) {
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
