/* Reverse Sigmoid of a batch of rows in a few passes over each row: what pseudo_logits.py, top1.py
 * and reverse_sigmoid.py say in NumPy, where float32 is enough; rows whose beta is too large for it
 * are handed to careful.c.
 *
 * After peaks and weigh, of lanes.h, come two more stages:
 *
 *   settle  per row: the largest beta that keeps the top class, and the top class itself
 *   shade   z_j = y_j - beta (s_j - 1/2) of every other class, and their sum
 *
 * What is asked for is absolute accuracy of a probability, a few 1e-7.
 */
#include "lanes.h"

int64_t careful(const struct settings *s, const float *v, float *out, int64_t rows,
                int64_t classes);

/* y_j of one class, and s_j as the quotient of two terms of one sign. */
struct tone {
    float y, odds, both;
};

INLINE struct tone tone_of(const struct settings *s, float slope, float share, float offset,
                           float w, float d) {
    const float *c = s->powers;
    float y = w * share;
    float odds = power_of_2(d * slope + offset); /* y^gamma */
    float against =
        c[0] +
        y * (c[1] +
             y * (c[2] + y * (c[3] + y * (c[4] + y * (c[5] + y * c[6]))))); /* (1 - y)^gamma */
    return (struct tone){y, odds, odds + against};
}

/* The slope of log y^gamma in what log_weight returns. */
INLINE float slope_of(const struct settings *s, int probabilities) {
    return s->gamma * (probabilities ? 1.0f : LOG2E);
}

/* Of two floats that are not negative; the units for integers are the less busy ones. */
INLINE float larger_positive(float a, float b) {
    int32_t i = bits_of(a), j = bits_of(b);
    return float_of(i > j ? i : j);
}

INLINE void shade(const struct settings *s, int probabilities, const float *restrict v,
                  float *restrict w, int64_t steps, int left, int alone, int row,
                  struct lanes *restrict l) {
    float slope = slope_of(s, probabilities), highest[LANES], most = 0.0f;
    double total[LANES], sum = 0.0;
    EACH_LANE {
        total[r] = 0.0;
        highest[r] = 0.0f;
    }
    for (int64_t pairs = steps / 2; pairs > 0; pairs -= CHUNK / 2) {
        float part[LANES];
        EACH_LANE part[r] = 0.0f;
        for (int64_t j = 0; j < pairs && j < CHUNK / 2; j++, v += 2 * LANES, w += 2 * LANES) {
            EACH_LANE { /* two steps for one division, which costs as much as six products */
                const float *v1 = v + LANES;
                float *w1 = w + LANES;
                float beta = OF(l->beta), m2 = OF(l->second), from = OF(l->reference);
                struct tone a = tone_of(s, slope, OF(l->share), OF(l->offset), w[r],
                                        log_weight(probabilities, v[r], m2, from));
                struct tone b = tone_of(s, slope, OF(l->share), OF(l->offset), w1[r],
                                        log_weight(probabilities, v1[r], m2, from));
                float inverse = beta / (a.both * b.both);
                float z = (a.y + 0.5f * beta) - a.odds * (b.both * inverse);
                float z1 = (b.y + 0.5f * beta) - b.odds * (a.both * inverse);
                w[r] = z;
                w1[r] = z1;
                part[r] += z;
                part[r] += z1;
                highest[r] = larger_positive(larger_positive(z, z1), highest[r]);
            }
        }
        EACH_LANE total[r] += (double)part[r];
    }
    int valid = steps % 2 ? LANES : left, then = steps % 2 ? left : 0;
    for (; valid; valid = then, then = 0, v += LANES, w += LANES) {
        EACH_LANE {
            float score = r < valid ? v[r] : 0.0f, weight = r < valid ? w[r] : 0.0f;
            float d = log_weight(probabilities, score, OF(l->second), OF(l->reference));
            struct tone a = tone_of(s, slope, OF(l->share), OF(l->offset), weight, d);
            float z = (a.y + 0.5f * OF(l->beta)) - OF(l->beta) * (a.odds / a.both);
            z = r < valid ? z : 0.0f;
            if (r < valid) w[r] = z;
            total[r] += (double)z;
            highest[r] = larger_positive(z, highest[r]);
        }
    }
#pragma omp simd reduction(+ : sum) reduction(max : most)
    for (int r = 0; r < LANES; r++) {
        sum += total[r];
        most = highest[r] > most ? highest[r] : most;
    }
    EACH_LANE {
        OF(l->sum) = alone ? sum : total[r];
        OF(l->highest) = alone ? most : highest[r];
    }
}

/* (y_k - y_j) / (s_k - s_j) for a class j of this gap and q: the beta at which it catches up
 * with the top. Written as products, for near ties are where plain differences cancel. */
INLINE float catching_beta(float gamma, const struct standing *t, int r, float gap, float q) {
    float excess =
        choose(t->gap[r] > 60.0f, t->gap[r] - t->log_rest[r], log2_of_1_plus(q / t->odds[r]));
    float x = gamma * (gap + excess);
    struct power p = power_and_less(-x); /* 1 / (a p.value) is odds of j, to the gamma */
    float ratio =
        q * (1.0f + t->a[r]) * (t->a[r] + p.value) / ((1.0f + t->odds[r]) * t->a[r] * p.less);
    return choose(q > 0.0f, ratio, INFINITY);
}

INLINE void settle(const struct settings *s, int probabilities, struct lanes *l) {
    struct standing t;
    measure(s, probabilities, l, &t);
    EACH_LANE l->beta[r] = s->beta;
    if (s->preserve_top1) {
        EACH_LANE {
            float top = l->top[r], rival = l->rival[r], gap, q;
            if (probabilities) {
                gap = log2_ratio(rival, top);
                q = (top - rival) / top;
            } else {
                gap = smaller((top - rival) * LOG2E, 1e30f);
                /* Of less q would round to 0, as that of a tie; the secant is the tangent by then. */
                gap = choose(top > rival, larger(gap, 1e-37f), gap);
                q = power_and_less(-gap).less;
            }
            l->beta[r] = smaller(s->kept * catching_beta(s->gamma, &t, r, gap, q), s->beta);
        }
    }
    EACH_LANE {
        float y_top = 1.0f / (1.0f + t.odds[r]);
        l->share[r] = t.ratio[r] * y_top;
        float own = y_top - l->beta[r] * (1.0f / (1.0f + t.a[r]) - 0.5f);
        l->own[r] = larger(own, 0.0f);
        float second = l->second[r];
        float log_total = t.gap[r] + log2_of_1_plus(t.odds[r]);
        float base = probabilities ? log2_of_score(second) : 0.0f;
        float offset = log_total + choose(second > 0.0f, base, 0.0f);
        l->offset[r] = -s->gamma * (probabilities ? offset : log_total);
    }
    EACH_LANE {
        float second = l->second[r], beta = l->beta[r];
        struct tone a = tone_of(s, slope_of(s, probabilities), l->share[r], l->offset[r],
                                weight_of(probabilities, second, second, l->reference[r],
                                          l->unit[r]),
                                log_weight(probabilities, second, second, l->reference[r]));
        l->stand_in[r] = (a.y + 0.5f * beta) - beta * (a.odds / a.both);
    }
}

/* What a row is multiplied by, and what its top class gets: strictly above all others. */
INLINE void finish(const struct settings *s, struct lanes *l, int r) {
    float alpha = 1.0f / (float)(l->sum[r] - (double)l->stand_in[r] + (double)l->own[r]);
    float above = float_of(bits_of(l->highest[r] * alpha) + 1);
    float own = l->own[r] * alpha;
    l->alpha[r] = alpha;
    l->own[r] = s->preserve_top1 ? larger(own, above) : own;
    l->key[r] = l->top[r] > l->second[r] ? l->top[r] : NAN; /* tied: see lift_first */
}

/* Of several classes that tie on top, lift the first. */
INLINE void lift_first(const float *v, float *out, int64_t classes, float top, float value) {
    for (int64_t j = 0; j < classes; j++) {
        if (v[j] == top) {
            out[j] = value;
            return;
        }
    }
}

/* The first class to catch up with the top as beta rises. That beta is the inverse slope of a
 * secant of s(y) from y_k. For gamma <= 1 the slope of s(y) is least at 1/2 and grows alike to both
 * sides, so that the steepest secant ends at the least class; for gamma >= 1 it is greatest there,
 * and the steepest one ends at the highest class that does not tie. */
INLINE void find_rivals(const struct settings *s, const float *v, int64_t classes, int count,
                        struct lanes *l) {
    int tied = 0;
    EACH_LANE {
        l->rival[r] = s->gamma > 1.0f ? l->second[r] : l->least[r];
        l->tied[r] = l->second[r] == l->top[r];
    }
    for (int r = 0; r < count; r++) tied |= l->tied[r];
    for (int r = 0; tied && s->gamma > 1.0f && r < count; r++) {
        float top = l->top[r], next = -INFINITY;
        if (!l->tied[r] || l->least[r] == top) continue;
        for (int64_t j = 0; j < classes; j++) {
            float score = v[r * classes + j];
            next = score < top ? larger(score, next) : next;
        }
        l->rival[r] = next;
    }
}

/* Sixteen rows, or fewer, of fewer than WIDE classes. */
INLINE int narrow(const struct settings *s, int probabilities, const float *v, float *out,
                  int64_t classes, int count, struct lanes *l) {
    float tile[WIDE * LANES], w[WIDE * LANES];
    to_tile(v, tile, classes, count);
    peaks(tile, classes, 0, 0, 0, l);
    EACH_LANE take_reference(l, r);
    weigh(probabilities, tile, w, classes, 0, 0, 0, l);
    int bad = first_bad(s, probabilities, classes, l);
    if (bad < count) return bad;
    find_rivals(s, v, classes, count, l);
    settle(s, probabilities, l);
    shade(s, probabilities, tile, w, classes, 0, 0, 0, l);
    EACH_LANE finish(s, l, r);
    for (int64_t j = 0; j < classes; j++) {
        float *z = w + j * LANES, *t = tile + j * LANES;
        EACH_LANE z[r] = t[r] == l->key[r] ? l->own[r] : z[r] * l->alpha[r];
    }
    from_tile(w, out, classes, count);
    return LANES;
}

/* Sixteen rows, or fewer, of WIDE classes or more, each for itself. */
INLINE int wide(const struct settings *s, int probabilities, const float *v, float *out,
                int64_t classes, int count, struct lanes *l) {
    int64_t steps = classes / LANES;
    int left = (int)(classes % LANES);
    *l = (struct lanes){0};
    for (int row = 0; row < count; row++) {
        const float *g = v + row * classes;
        peaks(g, steps, left, 1, row, l);
        take_reference(l, row);
        weigh(probabilities, g, out + row * classes, steps, left, 1, row, l);
    }
    int bad = first_bad(s, probabilities, classes, l);
    if (bad < count) return bad;
    find_rivals(s, v, classes, count, l);
    settle(s, probabilities, l);
    for (int row = 0; row < count; row++) {
        const float *g = v + row * classes;
        float *z = out + row * classes;
        shade(s, probabilities, g, z, steps, left, 1, row, l);
        finish(s, l, row);
        float key = l->key[row], own = l->own[row], alpha = l->alpha[row];
#pragma omp simd
        for (int64_t j = 0; j < classes; j++) z[j] = g[j] == key ? own : z[j] * alpha;
    }
    return LANES;
}

/* Answers rows of a block anew, if they are allowed a beta for which float32 is not enough. */
INLINE int64_t again(const struct settings *s, const float *v, float *out, int64_t classes,
                     int count, const struct lanes *l) {
    for (int r = 0, some; r < count; r += some + 1) {
        for (some = 0; r + some < count && l->beta[r + some] > s->most_beta; some++) continue;
        if (!some) continue;
        int64_t counted = careful(s, v + r * classes, out + r * classes, some, classes);
        if (counted < 0) return counted == INT64_MIN ? counted : counted - r;
    }
    return 0;
}

INLINE int64_t run(const struct settings *s, int probabilities, const float *v, float *out,
                   int64_t rows, int64_t classes) {
    int64_t capped = 0, alike = 0;
    for (int64_t row = 0; row < rows; row += LANES, v += LANES * classes, out += LANES * classes) {
        struct lanes l;
        int count = rows - row < LANES ? (int)(rows - row) : LANES;
        int bad = classes < WIDE ? narrow(s, probabilities, v, out, classes, count, &l)
                                 : wide(s, probabilities, v, out, classes, count, &l);
        if (bad < LANES) return -(row + bad + 1);
        int32_t tied = 0, lowered = 0, inside = 0;
        EACH_LANE {
            l.in_range[r] = (l.least[r] >= s->lowest) & (l.top[r] <= s->highest);
            l.capped[r] = (l.beta[r] < s->beta) & (r < count);
        }
        for (int r = 0; r < LANES; r++) tied |= l.tied[r];
        for (int r = 0; r < LANES; r++) lowered += l.capped[r];
        for (int r = 0; r < LANES; r++) inside |= l.in_range[r];
        capped += lowered;
        for (int r = 0; inside && !probabilities && r < count; r++)
            if (l.in_range[r]) alike += sums_to_1(s, v + r * classes, classes);
        for (int r = 0; tied && s->preserve_top1 && r < count; r++)
            if (l.tied[r])
                lift_first(v + r * classes, out + r * classes, classes, l.top[r], l.own[r]);
        if (s->beta <= s->most_beta) continue;
        int64_t failed = again(s, v, out, classes, count, &l);
        if (failed) return failed == INT64_MIN ? failed : failed - row;
    }
    return alike << 32 | capped;
}

INLINE int64_t reverse_sigmoid_any(const struct settings *s, const float *v, float *out,
                                   int64_t rows, int64_t classes) {
    return s->probabilities ? run(s, 1, v, out, rows, classes) : run(s, 0, v, out, rows, classes);
}

/* Returns in how many rows beta was lowered, and 2^32 times how many rows of logits look like
 * probabilities; or -1 - r if row r is the first bad one; INT64_MIN where memory is out. Fewer than
 * 2^31 rows. */
FOR_EACH_CPU(int64_t, reverse_sigmoid,
             (const struct settings *s, const float *v, float *out, int64_t rows, int64_t classes),
             (s, v, out, rows, classes))
