/* HTTP/2's frames, followed as they pass. */
#include "guard.h"

#include <string.h>

static const char PREFACE[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

static uint32_t number(const uint8_t *bytes) {
    return (uint32_t)bytes[0] << 24 | bytes[1] << 16 | bytes[2] << 8 | bytes[3];
}

void window_update(uint8_t *frame, uint32_t stream, int64_t increment) {
    const uint8_t made[13] = {0, 0, 4, WINDOW_UPDATE, 0,
        stream >> 24, stream >> 16, stream >> 8, stream,
        increment >> 24, increment >> 16, increment >> 8, increment};
    memcpy(frame, made, sizeof made);
}

/* Return the most that can be added to its window whatever of it is used up. */
int64_t room(const struct connection *c, const struct stream *s) {
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
void passed_payload(struct connection *c, size_t size) {
    c->payload -= size;
    if (c->payload || !c->last) return;
    pthread_mutex_lock(&c->lock);
    complete(c, find(c, c->last));
    pthread_mutex_unlock(&c->lock);
    c->last = 0;
}

/* Return whether gRPC would not close the connection for its length, its flags or its stream. */
static bool legal(uint8_t type, uint8_t flags, size_t size, uint32_t id) {
    switch (type) {
    case HEADERS: case DATA: return id & 1;
    case RST_STREAM: return size == 4 && id;
    case SETTINGS: return (flags ? flags == ACK && !size : size % 6 == 0) && !id && size <= INPUT - HEAD;
    case PING: return size == 8 && !id && flags <= ACK;
    case WINDOW_UPDATE: return size == 4 && !flags;
    default: return true;
    }
}

/* Return whether gRPC would not close the connection for what such a frame says. */
static bool legal_payload(const uint8_t *frame, size_t size) {
    const uint8_t *payload = frame + HEAD;
    if (frame[3] == WINDOW_UPDATE) return number(payload) & MOST_WINDOW;
    for (; frame[3] == SETTINGS && size >= 6; payload += 6, size -= 6) {
        uint32_t name = payload[0] << 8 | payload[1], value = number(payload + 2);
        if (name == 2 && value > 1) return false;           /* ENABLE_PUSH */
        if (name == 4 && value > MOST_WINDOW) return false; /* INITIAL_WINDOW_SIZE */
        if (name == 5 && (value < 1 << 14 || value >= 1 << 24)) return false; /* MAX_FRAME_SIZE */
    }
    return true;
}

/* Let pass what may, as far as it has come. Return false where gRPC would close the connection. */
bool pass(struct connection *c) {
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
        if (!legal(type, frame[4], size, number(frame + 5) & MOST_WINDOW)) return false;
        bool whole = HEAD + size <= INPUT && (type == HEADERS || type == RST_STREAM ||
            type == SETTINGS || type == WINDOW_UPDATE || type == CONTINUATION ||
            may_park(c, type, frame[4]));
        if (whole && left < HEAD + size) return true;
        if (whole && !legal_payload(frame, size)) return false;
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

/* Look for ends of answers in what was sent. */
void sent(struct connection *c, const uint8_t *bytes, size_t size) {
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
