/* Answers of which there are few: the one of a row's top class, or of it and of a level of its
 * confidence. What decoy.py says in NumPy, and calibrated.py, whose log-odds here are float32's: a
 * row that lies too near the end of a level to be sure is handed back. */
#include "lanes.h"

/* Its twin is _Book in kernel.py. Entries have ``size`` bytes, whatever their type. */
struct book {
    const float *cuts; /* where a level ends, in log-odds; levels - 1 of them */
    const void *own;   /* the top class's entry, [classes][levels]; or, without levels, one row */
    const void *rest;  /* all others', [classes][levels] */
    int32_t levels;    /* 0: answer is row[classes - top ...], classes entries of it */
    int32_t size;
};

/* Of what the log-odds may be off, as a share of 1 and of themselves. */
static const float UNSURE = 4e-6f;

struct places {
    int32_t top[LANES], level[LANES], unsure[LANES];
};

INLINE void find_levels(const struct settings *s, int probabilities, const struct book *b,
                        const struct lanes *l, struct places *p) {
    struct standing t;
    float odds[LANES], near[LANES];
    measure(s, probabilities, l, &t);
    EACH_LANE {
        odds[r] = (t.gap[r] - t.log_rest[r]) * 0.693147181f;
        near[r] = UNSURE * (1.0f + fabsf(odds[r]));
        p->level[r] = p->unsure[r] = 0;
    }
    for (int i = 0; i + 1 < b->levels; i++) {
        float cut = b->cuts[i];
        EACH_LANE {
            p->level[r] += odds[r] >= cut;
            p->unsure[r] |= fabsf(odds[r] - cut) <= near[r];
        }
    }
}

#define FILL(name, type)                                                                        \
    INLINE void name(type *out, int64_t classes, int64_t top, type own, type rest) {            \
        for (int64_t j = 0; j < classes; j++) out[j] = rest;                                    \
        out[top] = own;                                                                         \
    }
FILL(fill_16, uint16_t)
FILL(fill_32, uint32_t)
FILL(fill_64, uint64_t)

INLINE void answer(const struct book *b, void *out, int64_t classes, int64_t top, int level) {
    if (!b->levels) {
        const char *row = (const char *)b->own + (classes - top) * b->size;
        memcpy(out, row, (size_t)(classes * b->size));
        return;
    }
    int64_t i = top * b->levels + level;
    if (b->size == 2)
        fill_16(out, classes, top, ((const uint16_t *)b->own)[i], ((const uint16_t *)b->rest)[i]);
    else if (b->size == 4)
        fill_32(out, classes, top, ((const uint32_t *)b->own)[i], ((const uint32_t *)b->rest)[i]);
    else
        fill_64(out, classes, top, ((const uint64_t *)b->own)[i], ((const uint64_t *)b->rest)[i]);
}

INLINE void tile_tops(const float *tile, int64_t classes, const struct lanes *l, int32_t *top) {
    EACH_LANE top[r] = 0;
    for (int64_t j = classes - 1; j >= 0; j--) {
        const float *v = tile + j * LANES;
        EACH_LANE top[r] = v[r] == l->top[r] ? (int32_t)j : top[r];
    }
}

/* The first stages of sixteen rows, or fewer; which of them is the first bad one, or LANES. */
INLINE int begin(const struct settings *s, int probabilities, int weighed, const float *v,
                 int64_t classes, int count, struct lanes *l, struct places *p) {
    float tile[WIDE * LANES];
    int left = (int)(classes % LANES);
    if (classes < WIDE) {
        to_tile(v, tile, classes, count);
        peaks(tile, classes, 0, 0, 0, l);
        EACH_LANE take_reference(l, r);
        if (weighed) weigh(probabilities, tile, NULL, classes, 0, 0, 0, l);
        tile_tops(tile, classes, l, p->top);
    } else {
        *l = (struct lanes){0};
        for (int row = 0; row < count; row++) {
            const float *g = v + row * classes;
            peaks(g, classes / LANES, left, 1, row, l);
            take_reference(l, row);
            if (weighed) weigh(probabilities, g, NULL, classes / LANES, left, 1, row, l);
            p->top[row] = row_top(g, classes, l->top[row]);
        }
    }
    return first_bad(s, probabilities, classes, l);
}

INLINE int64_t run(const struct settings *s, int probabilities, int weighed, const struct book *b,
                   const float *v, char *out, int64_t rows, int64_t classes, uint8_t *unsure) {
    int64_t handed_back = 0, alike = 0;
    for (int64_t row = 0; row < rows; row += LANES, v += LANES * classes) {
        struct lanes l;
        struct places p;
        int count = rows - row < LANES ? (int)(rows - row) : LANES;
        int bad = begin(s, probabilities, weighed, v, classes, count, &l, &p);
        if (bad < count) return -(row + bad + 1);
        EACH_LANE p.level[r] = p.unsure[r] = 0;
        if (b->levels > 1) find_levels(s, probabilities, b, &l, &p);
        for (int r = 0; r < count; r++, out += classes * b->size) {
            answer(b, out, classes, p.top[r], p.level[r]);
            handed_back += unsure[row + r] = (uint8_t)p.unsure[r];
            if (!probabilities && l.least[r] >= s->lowest && l.top[r] <= s->highest)
                alike += sums_to_1(s, v + r * classes, classes);
        }
    }
    return alike << 32 | handed_back;
}

INLINE int64_t codebook_any(const struct settings *s, const struct book *b, const float *v,
                            void *out, int64_t rows, int64_t classes, uint8_t *unsure) {
    if (s->probabilities) return run(s, 1, 1, b, v, out, rows, classes, unsure);
    if (b->levels > 1) return run(s, 0, 1, b, v, out, rows, classes, unsure);
    return run(s, 0, 0, b, v, out, rows, classes, unsure);
}

/* Returns how many rows are marked in ``unsure`` as handed back, and 2^32 times how many rows of
 * logits look like probabilities; or -1 - r if row r is the first bad one. */
FOR_EACH_CPU(int64_t, codebook,
             (const struct settings *s, const struct book *b, const float *v, void *out,
              int64_t rows, int64_t classes, uint8_t *unsure),
             (s, b, v, out, rows, classes, unsure))
