/* Rows in whole units: what quantise.py says in NumPy. Sixteen narrow rows go side by side, as
 * lanes; a wide row is taken alone. */
#include <stdlib.h>

#include "lanes.h"

enum { FEW = 24 }; /* classes up to which every remainder is compared with every other */
/* The remainder of a top class, and what a rival's is less by: the last to get a unit. */
static const float NEVER = -4.0f, RIVAL = 2.0f;
static const float OTHERS = -1e-30f; /* below the remainders of all but rivals */

struct part {
    int32_t whole;
    float remainder;
};

/* The whole units in p, and what is left; a whole number, up to float32 rounding, is that number. */
INLINE struct part part_of(float p, double unit) {
    double exact = (double)p * unit;
    double nearest = (exact + 0x1.8p52) - 0x1.8p52; /* ties to even, as rint */
    exact = fabs(exact - nearest) <= 2e-7 * exact ? nearest : exact;
    double floored = nearest > exact ? nearest - 1.0 : nearest;
    return (struct part){(int32_t)floored, (float)(exact - floored)};
}

/* How many units the top class gets of those that are left, ``others`` being neither it nor a
 * rival. */
INLINE int32_t of_top(int32_t left, int32_t others) {
    int32_t most = left > 1 + others ? 2 : 1;
    return left < most ? left : most;
}

INLINE void few_classes(float *p, int64_t classes, int count, int32_t units) {
    float tile[FEW * LANES], remainder[FEW * LANES];
    int32_t whole[FEW * LANES], top[LANES], left[LANES], rivals[LANES], last[LANES], own[LANES];
    double sum[LANES];
    float most[LANES];
    to_tile(p, tile, classes, count);
    EACH_LANE {
        sum[r] = 0.0;
        most[r] = -1.0f;
        left[r] = units;
        rivals[r] = top[r] = last[r] = 0;
    }
    for (int64_t j = 0; j < classes; j++) {
        EACH_LANE {
            float v = tile[j * LANES + r];
            sum[r] += (double)v;
            top[r] = v > most[r] ? (int32_t)j : top[r];
            most[r] = larger(v, most[r]);
        }
    }
    EACH_LANE sum[r] = units / sum[r];
    for (int64_t j = 0; j < classes; j++) {
        EACH_LANE {
            struct part one = part_of(tile[j * LANES + r], sum[r]);
            whole[j * LANES + r] = one.whole;
            remainder[j * LANES + r] = one.remainder;
            left[r] -= one.whole;
            own[r] = j == top[r] ? one.whole : own[r];
        }
    }
    for (int64_t j = 0; j < classes; j++) {
        EACH_LANE {
            int rival = (whole[j * LANES + r] >= own[r]) & (j != top[r]);
            rivals[r] += rival;
            last[r] = rival ? (int32_t)j : last[r];
            float less = j == top[r] ? remainder[j * LANES + r] - NEVER : RIVAL * (float)rival;
            remainder[j * LANES + r] -= less;
        }
    }
    for (int64_t j = 0; j < classes; j++) { /* the last rival gives a unit up, where none is left */
        EACH_LANE {
            int short_of = (left[r] < 1) & (rivals[r] > 0) & (j == last[r]);
            whole[j * LANES + r] -= short_of;
            remainder[j * LANES + r] += (float)short_of;
        }
    }
    EACH_LANE {
        left[r] += (left[r] < 1) & (rivals[r] > 0);
        own[r] = of_top(left[r], (int32_t)classes - 1 - rivals[r]);
        left[r] -= own[r];
    }
    for (int64_t j = 0; j < classes; j++) {
        int32_t before[LANES];
        EACH_LANE before[r] = 0;
        for (int64_t i = 0; i < classes; i++) {
            const float *a = remainder + i * LANES, *b = remainder + j * LANES;
            if (i < j)
                EACH_LANE before[r] += a[r] >= b[r];
            else
                EACH_LANE before[r] += a[r] > b[r];
        }
        EACH_LANE {
            int32_t given = (before[r] < left[r]) + (j == top[r] ? own[r] : 0);
            tile[j * LANES + r] = (float)(whole[j * LANES + r] + given) / (float)units;
        }
    }
    from_tile(tile, p, classes, count);
}

INLINE int32_t count_above(const float *remainder, int64_t classes, float than) {
    int32_t count = 0;
#pragma omp simd reduction(+ : count)
    for (int64_t j = 0; j < classes; j++) count += remainder[j] > than;
    return count;
}

/* A threshold above which ``left`` remainders lie; or fewer, and then as many more as are missing
 * are equal to it. */
INLINE float threshold_of(const float *remainder, int64_t classes, int32_t left) {
    float low = INFINITY, high = NEVER;
#pragma omp simd reduction(min : low) reduction(max : high)
    for (int64_t j = 0; j < classes; j++) {
        high = remainder[j] > high ? remainder[j] : high;
        float v = remainder[j] < 0.0f ? INFINITY : remainder[j];
        low = v < low ? v : low;
    }
    int32_t most = count_above(remainder, classes, OTHERS), least = 0; /* above low and high */
    if (most >= left) {
        most = count_above(remainder, classes, low);
        if (most < left) return low;
    } else { /* some go to rivals */
        most = (int32_t)classes - 1;
        low = NEVER;
        high = OTHERS;
    }
    for (int turn = 0;; turn++) { /* by turns where it should lie, and halfway */
        float share = turn & 1 ? 0.5f : ((float)(most - left) + 0.5f) / (float)(most - least);
        float middle = low + (high - low) * share;
        if (!(middle > low && middle < high)) middle = 0.5f * (low + high);
        if (!(middle > low && middle < high)) return high;
        int32_t above = count_above(remainder, classes, middle);
        if (above == left) return middle;
        if (above < left) {
            high = middle;
            least = above;
        } else {
            low = middle;
            most = above;
        }
    }
}

INLINE void many_classes(float *p, int64_t classes, int32_t units, int32_t *whole,
                         float *remainder) {
    double sum = 0.0;
    float most = -1.0f;
    int32_t taken = 0, rivals = -1;
#pragma omp simd reduction(+ : sum) reduction(max : most)
    for (int64_t j = 0; j < classes; j++) {
        sum += (double)p[j];
        most = p[j] > most ? p[j] : most;
    }
    int64_t top = row_top(p, classes, most);
    double unit = units / sum;
#pragma omp simd reduction(+ : taken)
    for (int64_t j = 0; j < classes; j++) {
        struct part one = part_of(p[j], unit);
        whole[j] = one.whole;
        remainder[j] = one.remainder;
        taken += one.whole;
    }
    int32_t own = whole[top], left = units - taken;
#pragma omp simd reduction(+ : rivals)
    for (int64_t j = 0; j < classes; j++) rivals += whole[j] >= own;
    if (rivals) {
        int64_t last = 0;
        for (int64_t j = 0; j < classes; j++) {
            if (whole[j] < own || j == top) continue;
            remainder[j] -= RIVAL;
            last = j;
        }
        if (left < 1) {
            whole[last]--;
            remainder[last] += 1.0f;
            left++;
        }
    }
    remainder[top] = NEVER;
    int32_t of_it = of_top(left, (int32_t)classes - 1 - rivals);
    whole[top] += of_it;
    left -= of_it;
    float threshold = left ? threshold_of(remainder, classes, left) : INFINITY;
    int32_t missing = left - (left ? count_above(remainder, classes, threshold) : 0);
    for (int64_t j = 0; missing > 0 && j < classes; j++) {
        if (remainder[j] != threshold) continue;
        whole[j]++;
        missing--;
    }
#pragma omp simd
    for (int64_t j = 0; j < classes; j++)
        p[j] = (float)(whole[j] + (remainder[j] > threshold)) / (float)units;
}

INLINE int64_t quantise_any(float *p, int64_t rows, int64_t classes, int32_t units) {
    if (classes <= FEW) {
        for (int64_t row = 0; row < rows; row += LANES, p += LANES * classes)
            few_classes(p, classes, rows - row < LANES ? (int)(rows - row) : LANES, units);
        return 0;
    }
    int32_t *whole = malloc((size_t)classes * (sizeof(int32_t) + sizeof(float)));
    if (!whole) return -1;
    for (int64_t row = 0; row < rows; row++, p += classes)
        many_classes(p, classes, units, whole, (float *)(whole + classes));
    free(whole);
    return 0;
}

/* In place, of rows in which one class is above all others; -1 where memory is out. */
FOR_EACH_CPU(int64_t, quantise, (float *p, int64_t rows, int64_t classes, int32_t units),
             (p, rows, classes, units))
