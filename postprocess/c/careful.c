/* Reverse Sigmoid for any beta and gamma, in float64: what pseudo_logits.py, top1.py and
 * reverse_sigmoid.py say in NumPy. A lane is a row of its own. All exponents and logarithms are to
 * base 2. */
#include <stdlib.h>

#include "doubles.h"

enum { ROWS = 8 };
#define EACH_ROW _Pragma("omp simd") for (int r = 0; r < ROWS; r++)

static const double LARGE = 500.0; /* an exponent from which 1 is lost beside the power */

/* 2^x and 1 - 2^x, both to full relative accuracy; beyond 2 LARGE they stay what they are there. */
struct wide_power {
    double value, less;
};
INLINE struct wide_power wide_power(double x) {
    x = most_of(least_of(x, 2 * LARGE), -2 * LARGE);
    double shifted = x + 0x1.8p52, f = x - (shifted - 0x1.8p52);
    static const double c[] = {4.455382718e-10, 7.0549116208e-9,  1.01780860092e-7,
                               1.3215486790144e-6, 1.52527338040598e-5, 1.54035303933816e-4,
                               1.33335581464284e-3, 9.61812910762848e-3, 5.55041086648216e-2,
                               0.240226506959101,  0.693147180559945};
    double p = c[0];
#pragma GCC unroll 16
    for (int i = 1; i < 11; i++) p = p * f + c[i];
    p *= f;
    double whole = double_of((int64_t)(((uint64_t)bits_of_double(shifted) + 1023) << 52));
    return (struct wide_power){whole * p + whole, (1.0 - whole) - whole * p};
}

struct row {
    double top[ROWS], second[ROWS], least[ROWS], sum[ROWS];
    double below[ROWS]; /* the highest score that does not tie with the top */
    double gap[ROWS], scale[ROWS], odds[ROWS], beta[ROWS], a[ROWS], alpha[ROWS];
    double own[ROWS];  /* the answer of the top class */
    double log_total[ROWS]; /* log2 of 1 / y of the runner-up */
    int32_t bad[ROWS], capped[ROWS];
    int64_t first[ROWS];
};

/* Of the logarithms that load makes, to base 2: what is equal has to stay so, until then. */
INLINE double unit_of(int probabilities) { return probabilities ? 1.0 : 1.4426950408889634; }

/* The logarithm of a score's probability, up to what the row has in common. */
INLINE double log_of(int probabilities, double x) {
    return most_of(probabilities ? wide_log2(x, x - 1.0) : x, IMPOSSIBLE);
}

/* The scores of a block as logarithms, a row for each lane; their peaks, and which are bad. */
INLINE void load(const struct settings *s, int probabilities, const float *v, int64_t classes,
                 int count, double *g, struct row *to) {
    double lowest = s->impossible && !probabilities ? -INFINITY : -FLT_MAX;
    struct row t; /* not ``to``, which could be where g is */
    EACH_ROW {
        t.top[r] = t.second[r] = t.below[r] = -INFINITY;
        t.least[r] = INFINITY;
        t.sum[r] = 0.0;
        t.bad[r] = 0;
        t.first[r] = 0;
    }
    for (int64_t j = 0; j < classes; j++, g += ROWS) {
        double x[ROWS];
        for (int r = 0; r < ROWS; r++) x[r] = v[(r < count ? r : count - 1) * classes + j];
        EACH_ROW {
            double lower = least_of(x[r], t.top[r]);
            t.bad[r] |= !(x[r] >= lowest) | !(x[r] <= FLT_MAX);
            t.first[r] = x[r] > t.top[r] ? j : t.first[r];
            t.second[r] = most_of(t.second[r], lower);
            t.below[r] = x[r] == t.top[r] ? t.below[r] : most_of(t.below[r], lower);
            t.top[r] = most_of(x[r], t.top[r]);
            t.least[r] = least_of(x[r], t.least[r]);
            t.sum[r] += x[r];
            g[r] = log_of(probabilities, x[r]);
        }
    }
    double off = most_off(s, classes);
    EACH_ROW {
        if (probabilities)
            t.bad[r] |= (t.least[r] < 0.0) | !(t.top[r] > 0.0) | (t.top[r] > s->highest) |
                        !(fabs(t.sum[r] - 1.0) <= off);
        else
            t.bad[r] |= !(t.top[r] > -INFINITY);
    }
    *to = t;
}

/* (y_k - y_j) / (s_k - s_j) of the class that catches up first, see find_rivals. */
INLINE double catching_beta(const struct settings *s, const struct row *t, int r, double behind,
                            double log_rest, double log_a) {
    struct wide_power p = wide_power(-behind);
    double over = p.less / most_of(t->odds[r], 0x1p-1000);
    double excess = t->gap[r] > LARGE ? t->gap[r] - log_rest : wide_log2(1.0 + over, over);
    double apart = s->gamma * (behind + excess); /* s_k = 1 / (1 + a) */
    double against = wide_power(apart + log_a).value;
    double ratio = p.less * (1.0 + t->a[r]) * (1.0 + against) /
                   ((1.0 + t->odds[r]) * against * wide_power(-apart).less);
    return p.less > 0.0 ? ratio : INFINITY;
}

/* Sets g to log2 of y_j over the runner-up's, w to the power of it; and finds beta. */
INLINE void compare(const struct settings *s, int probabilities, int64_t classes, double *g,
                    double *w, struct row *t) {
    double second[ROWS], rest[ROWS];
    EACH_ROW {
        second[r] = log_of(probabilities, t->second[r]);
        rest[r] = -1.0; /* the top class counts as a second runner-up */
    }
    for (int64_t j = 0; j < classes; j++) {
        EACH_ROW {
            double d = least_of(g[j * ROWS + r], second[r]) - second[r];
            d *= unit_of(probabilities);
            g[j * ROWS + r] = d;
            w[j * ROWS + r] = wide_power(d).value;
            rest[r] += w[j * ROWS + r];
        }
    }
    EACH_ROW {
        double top = log_of(probabilities, t->top[r]);
        double rival = log_of(probabilities, s->gamma > 1.0f ? t->below[r] : t->least[r]);
        double log_rest = wide_log2(rest[r], rest[r] - 1.0);
        t->gap[r] = (top - second[r]) * unit_of(probabilities);
        double behind = (top - rival) * unit_of(probabilities);
        t->scale[r] = wide_power(-t->gap[r]).value;
        t->scale[r] = t->gap[r] > 2 * LARGE ? 0.0 : t->scale[r];
        t->odds[r] = rest[r] * t->scale[r];
        t->log_total[r] = t->gap[r] + wide_log2(1.0 + t->odds[r], t->odds[r]);
        double log_a = s->gamma * (log_rest - t->gap[r]);
        t->a[r] = wide_power(log_a).value;
        behind = t->least[r] == t->top[r] ? 0.0 : behind;
        double cap = (double)s->kept * catching_beta(s, t, r, behind, log_rest, log_a);
        t->capped[r] = s->preserve_top1 & (cap < s->beta);
        t->beta[r] = t->capped[r] ? cap : s->beta;
    }
}

/* Sets w to the answer before it sums to 1, the top class's as that of another runner-up. */
INLINE void perturb(const struct settings *s, int64_t classes, const double *g, double *w,
                    struct row *t) {
    double sum[ROWS], highest[ROWS], stand_in[ROWS], share[ROWS];
    EACH_ROW {
        sum[r] = highest[r] = stand_in[r] = 0.0;
        share[r] = t->scale[r] / (1.0 + t->odds[r]);
    }
    for (int64_t j = 0; j < classes; j++) {
        EACH_ROW {
            double y = w[j * ROWS + r] * share[r];
            double log_odds = wide_log2(1.0 - y, -y) + t->log_total[r] - g[j * ROWS + r];
            double against = wide_power(s->gamma * log_odds).value; /* s_j = 1 / (1 + it) */
            double z = y + t->beta[r] * 0.5 * (against - 1.0) / (against + 1.0);
            stand_in[r] = j == t->first[r] ? z : stand_in[r];
            w[j * ROWS + r] = z;
            sum[r] += z;
            highest[r] = most_of(highest[r], j == t->first[r] ? 0.0 : z);
        }
    }
    EACH_ROW {
        double y = 1.0 / (1.0 + t->odds[r]);
        double own = most_of(y - t->beta[r] * 0.5 * (1.0 - t->a[r]) / (1.0 + t->a[r]), 0.0);
        t->alpha[r] = 1.0 / (sum[r] - stand_in[r] + own);
        float above = float_of(bits_of((float)(highest[r] * t->alpha[r])) + 1);
        double answer = own * t->alpha[r];
        t->own[r] = s->preserve_top1 ? most_of(answer, (double)above) : answer;
    }
}

INLINE int64_t run(const struct settings *s, int probabilities, const float *v, float *out,
                   int64_t rows, int64_t classes, double *g, double *w) {
    int64_t capped = 0, alike = 0;
    for (int64_t row = 0; row < rows; row += ROWS, v += ROWS * classes, out += ROWS * classes) {
        struct row t;
        int count = rows - row < ROWS ? (int)(rows - row) : ROWS;
        load(s, probabilities, v, classes, count, g, &t);
        for (int r = 0; r < count; r++) {
            if (t.bad[r]) return -(row + r + 1);
            if (!probabilities && t.least[r] >= s->lowest && t.top[r] <= s->highest)
                alike += sums_to_1(s, v + r * classes, classes);
        }
        compare(s, probabilities, classes, g, w, &t);
        perturb(s, classes, g, w, &t);
        for (int64_t j = 0; j < classes; j++)
            for (int r = 0; r < count; r++)
                out[r * classes + j] = (float)(w[j * ROWS + r] * t.alpha[r]);
        for (int r = 0; r < count; r++) {
            out[r * classes + t.first[r]] = (float)t.own[r];
            capped += t.capped[r];
        }
    }
    return alike << 32 | capped;
}

INLINE int64_t careful_any(const struct settings *s, const float *v, float *out, int64_t rows,
                           int64_t classes) {
    double *g = malloc((size_t)classes * ROWS * 2 * sizeof(double)), *w = g + classes * ROWS;
    if (!g) return INT64_MIN;
    int64_t counted = s->probabilities ? run(s, 1, v, out, rows, classes, g, w)
                                       : run(s, 0, v, out, rows, classes, g, w);
    free(g);
    return counted;
}

/* Returns as reverse_sigmoid does, INT64_MIN where memory is out. */
FOR_EACH_CPU(int64_t, careful,
             (const struct settings *s, const float *v, float *out, int64_t rows, int64_t classes),
             (s, v, out, rows, classes))
