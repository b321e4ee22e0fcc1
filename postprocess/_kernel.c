/* The defence of a batch of rows in a few passes over each row: what pseudo_logits.py, top1.py
 * and reverse_sigmoid.py say in NumPy, for gamma <= 1. No Python in here, no state, no libm.
 *
 * Sixteen lanes run side by side and the compiler makes vectors of them. In a narrow row a lane
 * is a row of its own, sixteen rows being transposed into a tile; a wide row is taken alone, and
 * a lane is every sixteenth of its classes. Both go through the same four stages:
 *
 *   peaks   largest, second largest and least score; anything not finite
 *   weigh   w_j = exp(g_j - m2), m2 the second largest, and their sum
 *   settle  per row: the largest beta that keeps the top class, and the top class itself
 *   shade   z_j = y_j - beta (s_j - 1/2) of every other class, and their sum
 *
 * The top class never goes through weigh and shade as itself: there every score counts at most
 * as the second largest, so nothing cancels and nothing overflows. All exponents and logarithms
 * are to base 2. What is asked for is absolute accuracy of a probability, a few 1e-7.
 */
#include <float.h>
#include <math.h>
#include <stdint.h>
#include <string.h>

enum {
    LANES = 16,
    TERMS = 7,
    WIDE = 192, /* classes from which a row is wide; a narrower block stays in the L1 cache */
    CHUNK = 16, /* float32 sums of this many terms go into a float64 one */
};

#define INLINE static inline __attribute__((always_inline))
#define EACH_LANE _Pragma("omp simd") for (int r = 0; r < LANES; r++)

/* Its twin is _Settings in kernel.py. */
struct settings {
    float beta;
    float gamma;
    float kept;            /* 1 - margin */
    float powers[TERMS];   /* (1 - y)^gamma for y in [0, 1/2], by rising power of y */
    int32_t probabilities; /* what the scores are; otherwise logits */
    int32_t impossible;    /* a logit of -inf is a class of probability 0, not a bad row */
    int32_t preserve_top1;
    /* Of probabilities, see scores.py: their range; their sum is off by classes * step at most,
     * or by the one of the two bounds that is nearer. */
    float lowest, highest, step, least_off, most_off;
};

/* One value for each lane. */
struct lanes {
    float top[LANES], second[LANES], least[LANES];
    int32_t size[LANES];  /* largest of the scores' bits without the sign: not finite? */
    double weight[LANES]; /* sum of w */
    float reference[LANES], unit[LANES]; /* what weigh measures from: m2, or 1 / p2 */
    float share[LANES];                  /* y_j / w_j */
    float offset[LANES];                 /* log2 of y_j^gamma, less gamma log2 w_j */
    float beta[LANES];
    float own[LANES];      /* z of the top class */
    float stand_in[LANES]; /* what shade sums in its place */
    double sum[LANES];     /* sum of z, as shade leaves it */
    float highest[LANES];  /* highest z but the top's */
    float alpha[LANES];    /* what makes the row sum to 1 */
    float key[LANES];      /* the score by which the top class is found */
    int32_t tied[LANES], capped[LANES], in_range[LANES];
};

static const float LOG2E = 1.44269504f;
static const float SCALE = 0x1p64f; /* lifts every float32 above 0 out of the subnormals */

INLINE int32_t bits_of(float x) {
    int32_t i;
    memcpy(&i, &x, 4);
    return i;
}
INLINE float float_of(int32_t i) {
    float x;
    memcpy(&x, &i, 4);
    return x;
}
INLINE float larger(float a, float b) { return a > b ? a : b; }
INLINE float smaller(float a, float b) { return a < b ? a : b; }

/* condition ? a : b without a branch, which would keep a loop from being vectorised. */
INLINE float choose(int condition, float a, float b) {
    int32_t mask = -(int32_t)(condition != 0);
    return float_of((bits_of(a) & mask) | (bits_of(b) & ~mask));
}

/* 2^x for x < 127; anything below 2^-126 comes out as that. */
INLINE float power_of_2(float x) {
    x = larger(x, -126.0f);
    float shifted = x + 0x1.8p23f; /* rounds to an integer, and holds it in its low bits */
    float f = x - (shifted - 0x1.8p23f);
    float p =
        1.0f + f * (0.69314719f +
                    f * (0.24022107f + f * (0.05550357f + f * (0.00967603f + f * 0.00133909f))));
    return float_of(bits_of(p) + (int32_t)((uint32_t)bits_of(shifted) << 23));
}

/* 2^x and 1 - 2^x for x < 127, both to full relative accuracy. */
struct power {
    float value, less;
};
INLINE struct power power_and_less(float x) {
    x = larger(x, -126.0f);
    float shifted = x + 0x1.8p23f;
    float f = x - (shifted - 0x1.8p23f);
    float p = f * (0.693147188f +
                   f * (0.240226508f +
                        f * (0.0555035711f +
                             f * (0.00961808256f + f * (0.00133908634f + f * 0.000154531629f)))));
    float whole = float_of((127 << 23) + (int32_t)((uint32_t)bits_of(shifted) << 23));
    return (struct power){whole * p + whole, (1.0f - whole) - whole * p};
}

/* log2(1 + u) given both, full relative accuracy even where 1 + u rounds u away. */
INLINE float log2_parts(float x, float u) {
    int32_t exponent = (bits_of(x) - bits_of(0.707106781f)) >> 23;
    float f = float_of(bits_of(x) - (int32_t)((uint32_t)exponent << 23)) - 1.0f;
    f = choose(exponent == 0, u, f);
    float s = f / (2.0f + f);
    float t = s * s;
    return (float)exponent +
           s * (2.88539008f + t * (0.961798850f + t * (0.576713600f + t * 0.431760720f)));
}
INLINE float log2_of(float x) { return log2_parts(x, x - 1.0f); }
INLINE float log2_of_1_plus(float u) { return log2_parts(1.0f + u, u); }

/* log2 of a probability, also of a subnormal one; of 0 it is as good as -inf. Absolute accuracy. */
INLINE float log2_of_score(float p) {
    float scaled = p * SCALE;
    int32_t exponent = (bits_of(scaled) - bits_of(0.707106781f)) >> 23;
    float f = float_of(bits_of(scaled) - (int32_t)((uint32_t)exponent << 23)) - 1.0f;
    float s = f / (2.0f + f);
    float t = s * s;
    float value = (float)(exponent - 64) +
                  s * (2.88539008f + t * (0.961798850f + t * (0.576713600f + t * 0.431760720f)));
    return choose(p > 0.0f, value, -1e30f);
}

INLINE void peak(float v, float *top, float *second, float *least, int32_t *size) {
    int32_t bits = bits_of(v) & 0x7fffffff;
    *second = larger(*second, smaller(v, *top));
    *top = larger(v, *top);
    *least = smaller(v, *least);
    *size = bits > *size ? bits : *size;
}

INLINE void peaks(const float *v, int64_t steps, struct lanes *l) {
    float top[LANES], second[LANES], least[LANES];
    int32_t size[LANES];
    EACH_LANE {
        top[r] = second[r] = -INFINITY;
        least[r] = INFINITY;
        size[r] = 0;
    }
    for (int64_t j = 0; j < steps; j++, v += LANES) {
        EACH_LANE peak(v[r], &top[r], &second[r], &least[r], &size[r]);
    }
    EACH_LANE {
        l->top[r] = top[r];
        l->second[r] = second[r];
        l->least[r] = least[r];
        l->size[r] = size[r];
    }
}

/* A step of scores, or of weights, whose missing classes are impossible ones. */
INLINE void pad(const float *v, int left, int zero, float *step) {
    EACH_LANE step[r] = zero ? 0.0f : -INFINITY;
    memcpy(step, v, (size_t)left * sizeof(float));
}

/* All lanes into the first, by halves. */
INLINE double total_of(double *lanes) {
#pragma GCC unroll 8
    for (int half = LANES / 2; half; half /= 2)
        for (int r = 0; r < half; r++) lanes[r] += lanes[r + half];
    return lanes[0];
}

INLINE float highest_of(float *lanes) {
#pragma GCC unroll 8
    for (int half = LANES / 2; half; half /= 2)
        for (int r = 0; r < half; r++) lanes[r] = larger(lanes[r + half], lanes[r]);
    return lanes[0];
}

/* Whence weigh measures. A runner-up of probability 0 makes every weight 0. */
INLINE void take_reference(struct lanes *l) {
    EACH_LANE {
        l->weight[r] = l->sum[r] = 0.0;
        l->highest[r] = 0.0f;
        float m2 = l->second[r];
        l->reference[r] = m2 == -INFINITY ? 0.0f : m2;
        l->unit[r] = m2 > 0.0f ? 1.0f / (m2 * SCALE) : 0.0f;
    }
}

/* The logarithm of w_j up to a constant: natural of a logit, base 2 of a probability. */
INLINE float log_weight(int probabilities, float score, float second, float reference) {
    float g = smaller(score, second);
    return probabilities ? log2_of_score(g) : g - reference;
}

INLINE float weight_of(int probabilities, float score, const struct lanes *l, int r) {
    float g = smaller(score, l->second[r]);
    return probabilities ? g * SCALE * l->unit[r] : power_of_2((g - l->reference[r]) * LOG2E);
}

/* Adds to l->weight. */
INLINE void weigh(int probabilities, const float *restrict v, float *restrict w, int64_t steps,
                  struct lanes *restrict l) {
    double total[LANES];
    EACH_LANE total[r] = l->weight[r];
    while (steps > 0) {
        float part[LANES];
        EACH_LANE part[r] = 0.0f;
        int chunk = steps < CHUNK ? (int)steps : CHUNK;
        for (int j = 0; j < chunk; j++, v += LANES, w += LANES) {
            EACH_LANE {
                float weight = weight_of(probabilities, v[r], l, r);
                w[r] = weight;
                part[r] += weight;
            }
        }
        EACH_LANE total[r] += (double)part[r];
        steps -= chunk;
    }
    EACH_LANE l->weight[r] = total[r];
}

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

/* Adds to l->sum and l->highest; lanes from valid on are left out of them. */
INLINE void shade(const struct settings *s, int probabilities, const float *restrict v,
                  float *restrict w, int64_t steps, int valid, struct lanes *restrict l) {
    float slope = slope_of(s, probabilities);
    double total[LANES];
    float highest[LANES];
    EACH_LANE {
        total[r] = l->sum[r];
        highest[r] = l->highest[r];
    }
    for (int64_t start = 0; start < steps; start += CHUNK) {
        int64_t end = start + CHUNK < steps ? start + CHUNK : steps, j = start;
        float part[LANES];
        EACH_LANE part[r] = 0.0f;
        for (; j + 1 < end; j += 2, v += 2 * LANES, w += 2 * LANES) {
            EACH_LANE { /* two steps for one division, which costs as much as ten products */
                const float *v1 = v + LANES;
                float *w1 = w + LANES;
                float beta = l->beta[r], m2 = l->second[r], from = l->reference[r];
                struct tone a = tone_of(s, slope, l->share[r], l->offset[r], w[r],
                                        log_weight(probabilities, v[r], m2, from));
                struct tone b = tone_of(s, slope, l->share[r], l->offset[r], w1[r],
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
        for (; j < end; j++, v += LANES, w += LANES) {
            EACH_LANE {
                float d = log_weight(probabilities, v[r], l->second[r], l->reference[r]);
                struct tone a = tone_of(s, slope, l->share[r], l->offset[r], w[r], d);
                float z = (a.y + 0.5f * l->beta[r]) - l->beta[r] * (a.odds / a.both);
                z = r < valid ? z : 0.0f;
                w[r] = z;
                part[r] += z;
                highest[r] = larger_positive(z, highest[r]);
            }
        }
        EACH_LANE total[r] += (double)part[r];
    }
    EACH_LANE {
        l->sum[r] = total[r];
        l->highest[r] = highest[r];
    }
}

/* What settle knows of each row before it knows beta. */
struct standing {
    float ratio[LANES];                     /* y_j / y_k of the runner-up */
    float gap[LANES], q[LANES];             /* and -log2, and 1 less that */
    float least_gap[LANES], least_q[LANES]; /* of the least class */
    float log_rest[LANES];                  /* log2 of the sum over i != k of w_i */
    float odds[LANES];                      /* (1 - y_k) / y_k */
    float log_a[LANES], a[LANES];           /* odds^gamma: s_k = 1 / (1 + a) */
};

INLINE float one_less_ratio(float low, float high) { return (high - low) / high; }

/* log2 (high / low) of two probabilities, also where they are a float32 step apart. */
INLINE float log2_ratio(float low, float high) {
    float over = (high - low) / low;
    float apart = log2_of_score(high) - log2_of_score(low);
    return choose(over < 4.0f, log2_of_1_plus(over), apart);
}

INLINE void measure(const struct settings *s, int probabilities, const struct lanes *l,
                    struct standing *t) {
    EACH_LANE {
        float top = l->top[r], second = l->second[r], least = l->least[r];
        if (probabilities) {
            t->gap[r] = log2_ratio(second, top);
            t->ratio[r] = second / top;
            t->q[r] = one_less_ratio(second, top);
            t->least_gap[r] = log2_ratio(least, top);
            t->least_q[r] = one_less_ratio(least, top);
        } else {
            t->gap[r] = smaller((top - second) * LOG2E, 1e30f);
            struct power p = power_and_less(-t->gap[r]);
            t->ratio[r] = p.value;
            t->q[r] = p.less;
            t->least_gap[r] = smaller((top - least) * LOG2E, 1e30f);
            t->least_q[r] = power_and_less(-t->least_gap[r]).less;
        }
    }
    EACH_LANE {
        float rest = larger((float)(l->weight[r] - 1.0), 1.0f);
        t->log_rest[r] = log2_of(rest);
        t->odds[r] = rest * t->ratio[r];
        t->log_a[r] = larger(s->gamma * (t->log_rest[r] - t->gap[r]), -60.0f);
        t->a[r] = power_of_2(t->log_a[r]);
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
        /* For gamma <= 1 either the runner-up or the least class catches up first. */
        EACH_LANE {
            float near = catching_beta(s->gamma, &t, r, t.gap[r], t.q[r]);
            float far = catching_beta(s->gamma, &t, r, t.least_gap[r], t.least_q[r]);
            l->beta[r] = smaller(s->kept * smaller(near, far), s->beta);
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
                                weight_of(probabilities, second, l, r),
                                log_weight(probabilities, second, second, l->reference[r]));
        l->stand_in[r] = (a.y + 0.5f * beta) - beta * (a.odds / a.both);
    }
}

/* How far the sum of as many probabilities may be from 1. */
INLINE double most_off(const struct settings *s, int64_t classes) {
    return (double)smaller(larger((float)classes * s->step, s->least_off), s->most_off);
}

/* Do scores that lie in the range of probabilities look like these, whatever they are? */
INLINE int sums_to_1(const struct settings *s, const float *v, int64_t classes) {
    double sum = 0.0;
    for (int64_t j = 0; j < classes; j++) sum += (double)v[j];
    return sum > 0.0 && fabs(sum - 1.0) <= most_off(s, classes);
}

/* Which of the lanes holds the first bad row, or LANES. */
INLINE int first_bad(const struct settings *s, int probabilities, int64_t classes,
                     const struct lanes *l) {
    int32_t bad[LANES], any = 0;
    double off = most_off(s, classes);
    float lowest = s->impossible && !probabilities ? -INFINITY : -FLT_MAX;
    EACH_LANE {
        float top = l->top[r], least = l->least[r];
        bad[r] = (l->size[r] > 0x7f800000) | (top > FLT_MAX) | (top < -FLT_MAX) | (least < lowest);
        if (probabilities) {
            double sum = (double)top + (l->weight[r] - 1.0) * (double)l->second[r];
            bad[r] |= (least < 0.0f) | !(top > 0.0f) | (top > s->highest) |
                      !(fabs(sum - 1.0) <= off);
        }
    }
    for (int r = 0; r < LANES; r++) any |= bad[r];
    if (any) {
        for (int r = 0; r < LANES; r++)
            if (bad[r]) return r;
    }
    return LANES;
}

/* What a row is multiplied by, and what its top class gets: strictly above all others. */
INLINE void finish(const struct settings *s, struct lanes *l) {
    EACH_LANE {
        float alpha = (float)(1.0 / (l->sum[r] - (double)l->stand_in[r] + (double)l->own[r]));
        float above = float_of(bits_of(l->highest[r] * alpha) + 1);
        float own = l->own[r] * alpha;
        l->alpha[r] = alpha;
        l->own[r] = s->preserve_top1 ? larger(own, above) : own;
        l->key[r] = l->top[r] > l->second[r] ? l->top[r] : NAN; /* tied: see lift_first */
        l->tied[r] = l->top[r] == l->second[r];
        l->capped[r] = l->beta[r] < s->beta;
        l->in_range[r] = (l->least[r] >= s->lowest) & (l->top[r] <= s->highest);
    }
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

typedef float quad __attribute__((vector_size(16)));
#ifndef __has_builtin
#define __has_builtin(name) 0
#endif
#if __has_builtin(__builtin_shufflevector)
#define PICK(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
typedef int32_t quad_of_int __attribute__((vector_size(16)));
#define PICK(a, b, ...) __builtin_shuffle(a, b, (quad_of_int){__VA_ARGS__})
#endif

/* Four times four floats, transposed. */
INLINE void transpose(const float *a, const float *b, const float *c, const float *d, float *to,
                      int64_t stride) {
    quad in[4], out[4];
    memcpy(&in[0], a, 16);
    memcpy(&in[1], b, 16);
    memcpy(&in[2], c, 16);
    memcpy(&in[3], d, 16);
    quad ab = PICK(in[0], in[1], 0, 4, 1, 5), cd = PICK(in[2], in[3], 0, 4, 1, 5);
    quad ef = PICK(in[0], in[1], 2, 6, 3, 7), gh = PICK(in[2], in[3], 2, 6, 3, 7);
    out[0] = PICK(ab, cd, 0, 1, 4, 5);
    out[1] = PICK(ab, cd, 2, 3, 6, 7);
    out[2] = PICK(ef, gh, 0, 1, 4, 5);
    out[3] = PICK(ef, gh, 2, 3, 6, 7);
    for (int i = 0; i < 4; i++) memcpy(to + i * stride, &out[i], 16);
}

/* Rows to columns: a tile has one step for each class. Missing rows repeat the last. */
INLINE void to_tile(const float *v, float *tile, int64_t classes, int count) {
    const float *row[LANES];
    for (int r = 0; r < LANES; r++) row[r] = v + (r < count ? r : count - 1) * classes;
    for (int r = 0; r < LANES; r += 4) {
        if (classes < 4) {
            for (int i = r; i < r + 4; i++)
                for (int64_t j = 0; j < classes; j++) tile[j * LANES + i] = row[i][j];
            continue;
        }
        for (int64_t j = 0; j < classes; j += 4) {
            j = j > classes - 4 ? classes - 4 : j; /* the last four overlap the ones before */
            transpose(row[r] + j, row[r + 1] + j, row[r + 2] + j, row[r + 3] + j,
                      tile + j * LANES + r, LANES);
        }
    }
}

INLINE void from_tile(const float *tile, float *out, int64_t classes, int count) {
    int fours = classes < 4 ? 0 : count / 4 * 4;
    for (int r = 0; r < fours; r += 4) {
        for (int64_t j = 0; j < classes; j += 4) {
            j = j > classes - 4 ? classes - 4 : j;
            const float *t = tile + j * LANES + r;
            transpose(t, t + LANES, t + 2 * LANES, t + 3 * LANES, out + r * classes + j, classes);
        }
    }
    for (int r = fours; r < count; r++)
        for (int64_t j = 0; j < classes; j++) out[r * classes + j] = tile[j * LANES + r];
}

/* Sixteen rows, or fewer, of fewer than WIDE classes. */
INLINE int narrow(const struct settings *s, int probabilities, const float *v, float *out,
                  int64_t classes, int count, struct lanes *l) {
    float tile[WIDE * LANES], w[WIDE * LANES];
    to_tile(v, tile, classes, count);
    peaks(tile, classes, l);
    take_reference(l);
    weigh(probabilities, tile, w, classes, l);
    int bad = first_bad(s, probabilities, classes, l);
    if (bad < LANES) return bad;
    settle(s, probabilities, l);
    shade(s, probabilities, tile, w, classes, LANES, l);
    finish(s, l);
    for (int64_t j = 0; j < classes; j++) {
        float *z = w + j * LANES, *t = tile + j * LANES;
        EACH_LANE z[r] = t[r] == l->key[r] ? l->own[r] : z[r] * l->alpha[r];
    }
    from_tile(w, out, classes, count);
    return LANES;
}

/* One value of a row in all lanes, for a stage to run over the classes of that row alone. */
INLINE void spread(const struct lanes *l, int row, struct lanes *one) {
    EACH_LANE {
        one->second[r] = l->second[row];
        one->reference[r] = l->reference[row];
        one->unit[r] = l->unit[row];
        one->share[r] = l->share[row];
        one->offset[r] = l->offset[row];
        one->beta[r] = l->beta[row];
        one->weight[r] = one->sum[r] = 0.0;
        one->highest[r] = 0.0f;
    }
}

INLINE void row_peaks(const float *v, int64_t classes, struct lanes *l, int row) {
    struct lanes one;
    int64_t steps = classes / LANES;
    peaks(v, steps, &one);
#pragma GCC unroll 8
    for (int half = LANES / 2; half; half /= 2) {
        for (int r = 0; r < half; r++) {
            float lower = smaller(one.top[r + half], one.top[r]);
            one.second[r] = larger(larger(one.second[r + half], one.second[r]), lower);
            one.top[r] = larger(one.top[r + half], one.top[r]);
            one.least[r] = smaller(one.least[r + half], one.least[r]);
            one.size[r] = one.size[r + half] > one.size[r] ? one.size[r + half] : one.size[r];
        }
    }
    float top = one.top[0], second = one.second[0], least = one.least[0];
    int32_t size = one.size[0];
    for (int64_t j = steps * LANES; j < classes; j++) peak(v[j], &top, &second, &least, &size);
    l->top[row] = top;
    l->second[row] = second;
    l->least[row] = least;
    l->size[row] = size;
}

/* Sixteen rows, or fewer, of WIDE classes or more, each for itself; what is left over of a row
 * after its last full step goes through a step of its own, padded with impossible classes. */
INLINE int wide(const struct settings *s, int probabilities, const float *v, float *out,
                int64_t classes, int count, struct lanes *l) {
    int64_t steps = classes / LANES, full = steps * LANES;
    int left = (int)(classes - full);
    float tail[LANES], tail_w[LANES];
    struct lanes one;
    for (int row = 0; row < LANES; row++)
        row_peaks(v + (row < count ? row : count - 1) * classes, classes, l, row);
    take_reference(l);
    for (int row = 0; row < count; row++) {
        const float *g = v + row * classes;
        float *w = out + row * classes;
        spread(l, row, &one);
        weigh(probabilities, g, w, steps, &one);
        if (left) {
            pad(g + full, left, probabilities, tail);
            weigh(probabilities, tail, tail_w, 1, &one);
            memcpy(w + full, tail_w, (size_t)left * sizeof(float));
        }
        l->weight[row] = total_of(one.weight);
    }
    for (int row = count; row < LANES; row++) l->weight[row] = l->weight[count - 1];
    int bad = first_bad(s, probabilities, classes, l);
    if (bad < LANES) return bad;
    settle(s, probabilities, l);
    for (int row = 0; row < count; row++) {
        const float *g = v + row * classes;
        float *z = out + row * classes;
        spread(l, row, &one);
        shade(s, probabilities, g, z, steps, LANES, &one);
        if (left) {
            pad(g + full, left, probabilities, tail);
            pad(z + full, left, 1, tail_w);
            shade(s, probabilities, tail, tail_w, 1, left, &one);
            memcpy(z + full, tail_w, (size_t)left * sizeof(float));
        }
        l->sum[row] = total_of(one.sum);
        l->highest[row] = highest_of(one.highest);
    }
    for (int row = count; row < LANES; row++) {
        l->sum[row] = 1.0;
        l->highest[row] = 0.0f;
    }
    finish(s, l);
    for (int row = 0; row < count; row++) {
        const float *g = v + row * classes;
        float *z = out + row * classes;
        float key = l->key[row], own = l->own[row], alpha = l->alpha[row];
#pragma omp simd
        for (int64_t j = 0; j < classes; j++) z[j] = g[j] == key ? own : z[j] * alpha;
    }
    return LANES;
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
        for (int r = 0; r < LANES; r++) tied |= l.tied[r];
        for (int r = 0; r < LANES; r++) lowered += r < count ? l.capped[r] : 0;
        for (int r = 0; r < LANES; r++) inside |= l.in_range[r];
        capped += lowered;
        for (int r = 0; inside && !probabilities && r < count; r++)
            if (l.in_range[r]) alike += sums_to_1(s, v + r * classes, classes);
        for (int r = 0; tied && s->preserve_top1 && r < count; r++)
            if (l.tied[r])
                lift_first(v + r * classes, out + r * classes, classes, l.top[r], l.own[r]);
    }
    return alike << 32 | capped;
}

#define VERSION(name, isa)                                                                      \
    isa static int64_t name(const struct settings *s, const float *v, float *out, int64_t rows, \
                            int64_t classes) {                                                  \
        return s->probabilities ? run(s, 1, v, out, rows, classes)                              \
                                : run(s, 0, v, out, rows, classes);                             \
    }

VERSION(plain, )
#ifdef __x86_64__
VERSION(avx2, __attribute__((target("avx2,fma,bmi2"))))
VERSION(avx512, __attribute__((target("avx2,fma,bmi2,avx512f,avx512vl,avx512dq,avx512bw"))))
#endif

/* Returns in how many rows beta was lowered, and 2^32 times how many rows of logits look like
 * probabilities; or -1 - r if row r is the first bad one. Fewer than 2^31 rows. */
int64_t reverse_sigmoid(const struct settings *s, const float *v, float *out, int64_t rows,
                        int64_t classes) {
#ifdef __x86_64__
    if (__builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512bw"))
        return avx512(s, v, out, rows, classes);
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        return avx2(s, v, out, rows, classes);
#endif
    return plain(s, v, out, rows, classes);
}
