/* What the parts of the kernel share: sixteen lanes, their arithmetic, and the first stages of a
 * batch of rows, of K >= 2 classes each. No Python in here, no state, no libm.
 *
 * The lanes run side by side and the compiler makes vectors of them. In a narrow row a lane is a
 * row of its own, sixteen rows being transposed into a tile; a wide row is taken alone, and a lane
 * is every sixteenth of its classes. Both begin with two stages:
 *
 *   peaks   largest, second largest and least score; anything not finite
 *   weigh   w_j = exp(g_j - m2), m2 the second largest, and their sum
 *
 * The top class never goes through weigh as itself: there every score counts at most as the second
 * largest, so nothing cancels and nothing overflows. All exponents and logarithms are to base 2.
 */
#ifndef LANES_H
#define LANES_H

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
    float most_beta;       /* for which float32 is enough */
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
    float rival[LANES];   /* the class by which beta is bounded */
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

/* exponent + log2(1 + f), 1 + f from sqrt(1/2) to sqrt(2); of exponent 0 to full relative accuracy. */
INLINE float log2_after(float exponent, float f) {
    float t = f * f; /* even and odd powers apart: a shorter way through the processor */
    float even = 1.44269502f +
                 t * (0.480910629f + t * (0.287916243f + t * (0.215715602f + t * 0.125837058f)));
    float odd = -0.721347332f + t * (-0.360703677f + t * (-0.238944814f + t * -0.207269758f));
    return (even + f * odd) * f + exponent;
}

/* log2(1 + u) given both, full relative accuracy even where 1 + u rounds u away. */
INLINE float log2_parts(float x, float u) {
    int32_t exponent = (bits_of(x) - bits_of(0.707106781f)) >> 23;
    float f = float_of(bits_of(x) - (int32_t)((uint32_t)exponent << 23)) - 1.0f;
    return log2_after((float)exponent, choose(exponent == 0, u, f));
}
INLINE float log2_of(float x) { return log2_parts(x, x - 1.0f); }
INLINE float log2_of_1_plus(float u) { return log2_parts(1.0f + u, u); }

/* log2 of a probability, also of a subnormal one; of 0 it is as good as -inf. Absolute accuracy. */
INLINE float log2_of_score(float p) {
    float scaled = p * SCALE;
    int32_t exponent = (bits_of(scaled) - bits_of(0.707106781f)) >> 23;
    float f = float_of(bits_of(scaled) - (int32_t)((uint32_t)exponent << 23)) - 1.0f;
    return choose(p > 0.0f, log2_after((float)(exponent - 64), f), -1e30f);
}

INLINE void peak(float high, float low, float *top, float *second, float *least, int32_t *size) {
    int32_t bits = bits_of(low) & 0x7fffffff;
    *second = larger(*second, smaller(high, *top));
    *top = larger(high, *top);
    *least = smaller(low, *least);
    *size = bits > *size ? bits : *size;
}

/* What a stage knows of its rows: a lane has a row of its own, or all lanes share ``row`` alone. */
#define OF(values) (values)[alone ? row : r]

/* The stages take ``steps`` of LANES scores each, and of one more, where a row is alone, those that
 * are ``left``. */
INLINE void peaks(const float *v, int64_t steps, int left, int alone, int row, struct lanes *l) {
    float top[LANES], second[LANES], least[LANES], best = -INFINITY, next = -INFINITY;
    float lowest = INFINITY;
    int32_t size[LANES], largest = 0, tied = 0;
    EACH_LANE {
        top[r] = second[r] = -INFINITY;
        least[r] = INFINITY;
        size[r] = 0;
    }
    for (int64_t j = 0; j < steps; j++, v += LANES) {
        EACH_LANE peak(v[r], v[r], &top[r], &second[r], &least[r], &size[r]);
    }
    if (left) {
        EACH_LANE {
            float high = r < left ? v[r] : -INFINITY;
            peak(high, r < left ? v[r] : INFINITY, &top[r], &second[r], &least[r], &size[r]);
        }
    }
    if (!alone) {
        EACH_LANE {
            l->top[r] = top[r];
            l->second[r] = second[r];
            l->least[r] = least[r];
            l->size[r] = size[r];
        }
        return;
    }
#pragma omp simd reduction(max : best, largest) reduction(min : lowest)
    for (int r = 0; r < LANES; r++) {
        best = top[r] > best ? top[r] : best;
        lowest = least[r] < lowest ? least[r] : lowest;
        largest = size[r] > largest ? size[r] : largest;
    }
#pragma omp simd reduction(max : next) reduction(+ : tied)
    for (int r = 0; r < LANES; r++) {
        float other = top[r] == best ? second[r] : top[r];
        tied += top[r] == best;
        next = other > next ? other : next;
    }
    l->top[row] = best;
    l->second[row] = tied > 1 ? best : next;
    l->least[row] = lowest;
    l->size[row] = largest;
}

/* Whence weigh measures. A runner-up of probability 0 makes every weight 0. */
INLINE void take_reference(struct lanes *l, int r) {
    float m2 = l->second[r];
    l->reference[r] = m2 == -INFINITY ? 0.0f : m2;
    l->unit[r] = m2 > 0.0f ? 1.0f / (m2 * SCALE) : 0.0f;
}

/* The logarithm of w_j up to a constant: natural of a logit, base 2 of a probability. */
INLINE float log_weight(int probabilities, float score, float second, float reference) {
    float g = smaller(score, second);
    return probabilities ? log2_of_score(g) : g - reference;
}

INLINE float weight_of(int probabilities, float score, float second, float reference, float unit) {
    float g = smaller(score, second);
    return probabilities ? g * SCALE * unit : power_of_2((g - reference) * LOG2E);
}

/* w is left out where only the sum is asked for. */
INLINE void weigh(int probabilities, const float *restrict v, float *restrict w, int64_t steps,
                  int left, int alone, int row, struct lanes *restrict l) {
    double total[LANES], sum = 0.0;
    EACH_LANE total[r] = 0.0;
    while (steps > 0) {
        float part[LANES];
        EACH_LANE part[r] = 0.0f;
        int chunk = steps < CHUNK ? (int)steps : CHUNK;
        for (int j = 0; j < chunk; j++, v += LANES) {
            EACH_LANE {
                float weight = weight_of(probabilities, v[r], OF(l->second), OF(l->reference),
                                         OF(l->unit));
                if (w) w[r] = weight;
                part[r] += weight;
            }
            if (w) w += LANES;
        }
        EACH_LANE total[r] += (double)part[r];
        steps -= chunk;
    }
    if (left) {
        EACH_LANE {
            float score = r < left ? v[r] : 0.0f;
            float weight = weight_of(probabilities, score, OF(l->second), OF(l->reference),
                                     OF(l->unit));
            if (w && r < left) w[r] = weight;
            total[r] += r < left ? (double)weight : 0.0;
        }
    }
#pragma omp simd reduction(+ : sum)
    for (int r = 0; r < LANES; r++) sum += total[r];
    EACH_LANE OF(l->weight) = alone ? sum : total[r];
}

/* What settle knows of each row before it knows beta. */
struct standing {
    float ratio[LANES];                     /* y_j / y_k of the runner-up */
    float gap[LANES];                       /* and -log2 of it */
    float log_rest[LANES];                  /* log2 of the sum over i != k of w_i */
    float odds[LANES];                      /* (1 - y_k) / y_k */
    float log_a[LANES], a[LANES];           /* odds^gamma: s_k = 1 / (1 + a) */
};

/* log2 (high / low) of two probabilities, also where they are a float32 step apart. */
INLINE float log2_ratio(float low, float high) {
    float over = (high - low) / low;
    float apart = log2_of_score(high) - log2_of_score(low);
    return choose(over < 4.0f, log2_of_1_plus(over), apart);
}

INLINE void measure(const struct settings *s, int probabilities, const struct lanes *l,
                    struct standing *t) {
    EACH_LANE {
        float top = l->top[r], second = l->second[r];
        if (probabilities) {
            t->gap[r] = log2_ratio(second, top);
            t->ratio[r] = second / top;
        } else {
            t->gap[r] = smaller((top - second) * LOG2E, 1e30f);
            t->ratio[r] = power_and_less(-t->gap[r]).value;
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

/* The first class with the highest score. */
INLINE int32_t row_top(const float *v, int64_t classes, float top) {
    int64_t j = 0;
    for (; j + LANES <= classes; j += LANES) {
        int found = 0;
        for (int r = 0; r < LANES; r++) found |= v[j + r] == top;
        if (found) break;
    }
    while (j < classes - 1 && v[j] != top) j++;
    return (int32_t)j;
}

/* Makes a function of a few arguments, and of an inlined one of the same arguments that is named
 * like it with _any, of which there is a copy for each kind of vectors. */
#ifdef __x86_64__
#define FOR_EACH_CPU(result, name, declared, given)                                               \
    static result name##_plain declared { return name##_any given; }                              \
    __attribute__((target("avx2,fma,bmi2"))) static result name##_avx2 declared {                 \
        return name##_any given;                                                                  \
    }                                                                                             \
    __attribute__((target("avx2,fma,bmi2,avx512f,avx512vl,avx512dq,avx512bw"))) static result     \
        name##_avx512 declared {                                                                  \
        return name##_any given;                                                                  \
    }                                                                                             \
    result name declared {                                                                        \
        if (__builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&           \
            __builtin_cpu_supports("avx512bw"))                                                   \
            return name##_avx512 given;                                                           \
        if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))                      \
            return name##_avx2 given;                                                             \
        return name##_plain given;                                                                \
    }
#else
#define FOR_EACH_CPU(result, name, declared, given) \
    result name declared { return name##_any given; }
#endif

#endif
