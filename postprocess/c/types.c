/* Scores of other types as the float32 that the kernel takes, and its answers in float16: what
 * scores.py, top1.py and NumPy's conversions say. */
#include "doubles.h"

/* Every float16 is a float32. */
INLINE int64_t widen_any(const uint16_t *v, float *out, int64_t count) {
#pragma omp simd
    for (int64_t j = 0; j < count; j++) {
        int32_t size = (v[j] & 0x7fff) << 13, exponent = size & 0x0f800000;
        int32_t moved = size + (112 << 23); /* between the two exponents' zeros */
        int32_t small = bits_of(float_of(moved + (1 << 23)) - 0x1p-14f);
        moved = exponent == 0x0f800000 ? moved + (112 << 23) : moved; /* infinity, NaN */
        moved = exponent == 0 ? small : moved;
        out[j] = float_of(moved | (int32_t)((uint32_t)(v[j] & 0x8000) << 16));
    }
    return 0;
}

/* To the nearest float16, of two the even one; p lies in [0, 1]. */
INLINE uint16_t half_of(float p) {
    int32_t bits = bits_of(p), small = bits_of(p + 0.5f) - bits_of(0.5f);
    int32_t rounded = (bits - (112 << 23) + 0xfff + ((bits >> 13) & 1)) >> 13;
    return (uint16_t)(p < 0x1p-14f ? small : rounded);
}

/* Lifts a row's top class above all others, where rounding has made them equal. */
INLINE void keep_top(const float *v, uint16_t *out, int64_t classes) {
    float highest = -1.0f;
    uint16_t others = 0;
#pragma omp simd reduction(max : highest)
    for (int64_t j = 0; j < classes; j++) highest = v[j] > highest ? v[j] : highest;
    int32_t top = row_top(v, classes, highest);
    uint16_t own = out[top];
    out[top] = 0;
#pragma omp simd reduction(max : others)
    for (int64_t j = 0; j < classes; j++) others = out[j] > others ? out[j] : others;
    out[top] = own > others ? own : (uint16_t)(others + 1);
}

enum kept { NOTHING, TOP, SIDES };

INLINE int64_t narrow_any(const float *v, uint16_t *out, int64_t rows, int64_t classes,
                          int32_t kept) {
    int64_t count = rows * classes;
#pragma omp simd
    for (int64_t j = 0; j < count; j++) out[j] = half_of(v[j]);
    for (int64_t row = 0; kept == TOP && row < rows; row++)
        keep_top(v + row * classes, out + row * classes, classes);
    if (kept != SIDES) return 0;
#pragma omp simd
    for (int64_t j = 0; j < count; j++) {
        uint16_t above = out[j] > 0x3801 ? out[j] : 0x3801, below = out[j] < 0x37ff ? out[j] : 0x37ff;
        out[j] = v[j] > 0.5f ? above : v[j] < 0.5f ? below : out[j];
    }
    return 0;
}

/* The natural logarithm of a ratio from 0 to 1, of 0 it is -inf. */
INLINE double log_of_ratio(double x) {
    double lifted = x < 0x1p-900 ? x * 0x1p200 : x; /* out of the subnormals */
    double value = wide_log2(lifted, lifted - 1.0) - (x < 0x1p-900 ? 200.0 : 0.0);
    return x > 0.0 ? value * 0.69314718055994531 : -INFINITY;
}

/* As float32, and still below 0 if it was. */
INLINE float below_top(double x) {
    float narrow = (float)x;
    return x < 0.0 && narrow == 0.0f ? -0x1p-149f : narrow;
}

/* Of one row: its highest score, and whether it can be protected, and looks like probabilities. */
struct view {
    double top;
    int good, alike;
};

INLINE struct view look(const struct settings *s, const double *v, int64_t classes) {
    double top = -INFINITY, least = INFINITY, sum = 0.0;
    int32_t not_finite = 0;
#pragma omp simd reduction(max : top) reduction(min : least) reduction(+ : sum) \
    reduction(| : not_finite)
    for (int64_t j = 0; j < classes; j++) {
        top = v[j] > top ? v[j] : top;
        least = v[j] < least ? v[j] : least;
        sum += v[j];
        not_finite |= !(fabs(v[j]) <= DBL_MAX);
    }
    int alike = (least >= (double)s->lowest) & (top <= (double)s->highest) & (sum > 0.0) &
                (fabs(sum - 1.0) <= most_off(s, classes));
    int good = not_finite ? 0 : s->probabilities ? alike : 1;
    return (struct view){top, good, alike & (s->probabilities == 0)};
}

enum { PIECE = 512 };

/* Logits of a row measured from its highest, so that what float32 cannot tell apart stays apart. */
INLINE int64_t rows_of(const struct settings *s, int probabilities, const double *v, float *out,
                       int64_t rows, int64_t classes) {
    int64_t alike = 0, at_once = classes < PIECE ? PIECE / classes : 1;
    double x[PIECE], top[PIECE];
    for (int64_t row = 0; row < rows; row += at_once) {
        int64_t count = rows - row < at_once ? rows - row : at_once;
        for (int64_t r = 0; r < count; r++) {
            struct view one = look(s, v + (row + r) * classes, classes);
            if (!one.good) return -1 - (row + r);
            top[r] = one.top;
            alike += one.alike;
        }
        for (int64_t j = 0; j < classes; j += PIECE) {
            int64_t width = classes - j < PIECE ? classes - j : PIECE;
            for (int64_t r = 0; r < count; r++) {
                const double *from = v + (row + r) * classes + j;
                double highest = top[r], *to = x + r * width;
                for (int64_t k = 0; k < width; k++)
                    to[k] = probabilities ? most_of(from[k], 0.0) / highest : from[k] - highest;
            }
            float *to = out + row * classes + j;
#pragma omp simd
            for (int64_t k = 0; k < count * width; k++)
                to[k] = below_top(probabilities ? log_of_ratio(x[k]) : x[k]);
        }
    }
    return alike;
}

/* The logit of a yes, from its probability or its own. */
INLINE float side_of(int probabilities, double v) {
    double limit = 1e30, p = most_of(least_of(v, 1.0), 0.0);
    double high = most_of(p, 1.0 - p), low = p < 0.5 ? p : 1.0 - high;
    double odds = -log_of_ratio(low / high);
    double logit = probabilities ? (p < 0.5 ? -odds : odds) : v;
    return (float)most_of(least_of(logit, limit), -limit);
}

INLINE int64_t sides_of(const struct settings *s, int probabilities, const double *v, float *out,
                        int64_t rows, int64_t classes) {
    int64_t alike = 0;
    double lowest = (double)s->lowest, highest = (double)s->highest;
    for (int64_t row = 0; row < rows; row++, v += classes, out += classes) {
        int32_t outside = 0, not_finite = 0;
#pragma omp simd reduction(| : outside, not_finite)
        for (int64_t j = 0; j < classes; j++) {
            not_finite |= !(fabs(v[j]) <= DBL_MAX);
            outside |= (v[j] < lowest) | (v[j] > highest);
            out[j] = side_of(probabilities, v[j]);
        }
        if (not_finite | (probabilities & outside)) return -1 - row;
        alike += !probabilities & !outside;
    }
    return alike;
}

INLINE int64_t to_logits_any(const struct settings *s, const double *v, float *out, int64_t rows,
                             int64_t classes, int32_t single) {
    if (s->probabilities)
        return single ? sides_of(s, 1, v, out, rows, classes) : rows_of(s, 1, v, out, rows, classes);
    return single ? sides_of(s, 0, v, out, rows, classes) : rows_of(s, 0, v, out, rows, classes);
}

FOR_EACH_CPU(int64_t, widen, (const uint16_t *v, float *out, int64_t count), (v, out, count))

FOR_EACH_CPU(int64_t, narrow,
             (const float *v, uint16_t *out, int64_t rows, int64_t classes, int32_t kept),
             (v, out, rows, classes, kept))

/* Returns how many rows of logits look like probabilities; or -1 - r if row r is the first that
 * cannot be protected. */
FOR_EACH_CPU(int64_t, to_logits,
             (const struct settings *s, const double *v, float *out, int64_t rows, int64_t classes,
              int32_t single),
             (s, v, out, rows, classes, single))
