/* Reverse Sigmoid of scores that are each a yes or no, for any beta and gamma: the first of a pair
 * (p, 1 - p). Both lie at one distance from 1/2, so that the constraint needs no search. */
#include "lanes.h"

/* tanh(x / 2) of 2^-x' = ``power``. */
INLINE float tanh_of(struct power p) { return p.less / (1.0f + p.value); }

/* Of the pair's distance from each other, 2 y - 1, and of its log2 odds, both not negative. */
INLINE float distance(const struct settings *s, float y, float odds, int *lowered) {
    float r = tanh_of(power_and_less(-s->gamma * odds));
    float left = y - s->beta * r;
    *lowered = s->preserve_top1 & (left < (1.0f - s->kept) * y);
    left = *lowered ? (1.0f - s->kept) * y : left;
    return larger(smaller(left, 1.0f), -1.0f) * 0.5f;
}

INLINE float side(const struct settings *s, int probabilities, float v, int *lowered) {
    float y, odds, sign = v - (probabilities ? 0.5f : 0.0f);
    if (probabilities) {
        float p = larger(smaller(v, 1.0f), 0.0f);
        float high = larger(p, 1.0f - p), low = 1.0f - high;
        low = p < 0.5f ? p : low;
        y = high - low;
        odds = log2_ratio(low, high);
    } else {
        odds = smaller(fabsf(v), 1e30f) * LOG2E;
        y = tanh_of(power_and_less(-odds));
    }
    float from_half = distance(s, y, odds, lowered);
    float answer = sign < 0.0f ? 0.5f - from_half : 0.5f + from_half;
    if (s->preserve_top1) {
        answer = sign > 0.0f ? larger(answer, 0x1.000002p-1f) : answer;
        answer = sign < 0.0f ? smaller(answer, 0x1.fffffep-2f) : answer;
    }
    return sign == 0.0f ? 0.5f : answer;
}

INLINE int64_t run(const struct settings *s, int probabilities, const float *v, float *out,
                   int64_t rows, int64_t classes) {
    int64_t capped = 0, alike = 0;
    for (int64_t row = 0; row < rows; row++, v += classes, out += classes) {
        int32_t any = 0, outside = 0, not_finite = 0;
#pragma omp simd reduction(| : any, outside, not_finite)
        for (int64_t j = 0; j < classes; j++) {
            int lowered;
            not_finite |= (bits_of(v[j]) & 0x7fffffff) >= 0x7f800000;
            outside |= (v[j] < s->lowest) | (v[j] > s->highest);
            out[j] = side(s, probabilities, v[j], &lowered);
            any |= lowered;
        }
        if (not_finite | (probabilities & outside)) return -1 - row;
        capped += any;
        alike += !probabilities & !outside;
    }
    return alike << 32 | capped;
}

INLINE int64_t sides_any(const struct settings *s, const float *v, float *out, int64_t rows,
                         int64_t classes) {
    return s->probabilities ? run(s, 1, v, out, rows, classes) : run(s, 0, v, out, rows, classes);
}

/* Returns as reverse_sigmoid does. */
FOR_EACH_CPU(int64_t, sides,
             (const struct settings *s, const float *v, float *out, int64_t rows, int64_t classes),
             (s, v, out, rows, classes))
