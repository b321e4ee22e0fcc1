/* Rows in whole units: what quantise.py says in NumPy. Sixteen narrow rows go side by side, as
 * lanes; a wide row is taken alone. */
#include <stdlib.h>

#include "lanes.h"

enum { FEW = 24 }; /* classes up to which every remainder is compared with every other */
/* The remainder of a top class, and what a rival's is less by: the last to get a unit. */
static const float NEVER = -4.0f, RIVAL = 2.0f;

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

struct threshold {
    float value;
    int32_t above; /* remainders that are greater */
};

/* A threshold above which ``left`` remainders lie; or fewer, and then as many more as are missing
 * are equal to it. Of ``others`` the remainder is not negative. */
INLINE struct threshold threshold_of(const float *remainder, int64_t classes, int32_t left,
                                     int32_t others) {
    float low = INFINITY, high = NEVER;
    int to_rivals = others < left;
    float from = to_rivals ? -RIVAL - 1.0f : 0.0f, to = to_rivals ? 0.0f : INFINITY;
#pragma omp simd reduction(min : low) reduction(max : high)
    for (int64_t j = 0; j < classes; j++) {
        float v = remainder[j], under = v < to ? v : NEVER, over = v >= from ? v : INFINITY;
        high = under > high ? under : high;
        low = over < low ? over : low;
    }
    int32_t most = count_above(remainder, classes, low); /* above low; and above high: */
    int32_t least = to_rivals ? others : 0;
    if (most < left) return (struct threshold){low, most};
    for (int turn = 0;; turn++) { /* by turns where it should lie, and halfway */
        float share = turn & 1 ? 0.5f : ((float)(most - left) + 0.5f) / (float)(most - least);
        float middle = low + (high - low) * share;
        if (!(middle > low && middle < high)) middle = 0.5f * (low + high);
        if (!(middle > low && middle < high)) return (struct threshold){high, least};
        int32_t above = count_above(remainder, classes, middle);
        if (above == left) return (struct threshold){middle, above};
        if (above < left) {
            high = middle;
            least = above;
        } else {
            low = middle;
            most = above;
        }
    }
}

/* A row is padded to whole vectors by classes that get nothing. */
INLINE int64_t padded(int64_t classes) { return (classes + LANES - 1) / LANES * LANES; }

INLINE void many_classes(float *row, int64_t classes, int32_t units, float *p, float *remainder,
                         int32_t *whole) {
    int32_t count = (int32_t)padded(classes), taken = 0, rivals = 0, last = 0;
    double sum = 0.0;
    float most = -1.0f;
    memcpy(p, row, (size_t)classes * sizeof(float));
#pragma omp simd reduction(+ : sum) reduction(max : most)
    for (int32_t j = 0; j < count; j++) {
        sum += (double)p[j];
        most = p[j] > most ? p[j] : most;
    }
    int32_t top = row_top(p, classes, most);
    double unit = units / sum;
    struct part own = part_of(most, unit);
#pragma omp simd reduction(+ : taken, rivals) reduction(max : last)
    for (int32_t j = 0; j < count; j++) {
        struct part one = part_of(p[j], unit);
        int rival = (one.whole >= own.whole) & (j < (int32_t)classes) & (j != top);
        taken += one.whole;
        rivals += rival;
        last = rival & (j > last) ? j : last;
        whole[j] = one.whole;
        remainder[j] = one.remainder - (rival ? RIVAL : 0.0f);
    }
    for (int32_t j = (int32_t)classes; j < count; j++) remainder[j] = NEVER;
    remainder[top] = NEVER;
    int32_t left = units - taken, others = (int32_t)classes - 1 - rivals;
    if (rivals && left < 1) {
        whole[last]--;
        remainder[last] += 1.0f;
        left++;
    }
    int32_t of_it = of_top(left, others);
    whole[top] += of_it;
    left -= of_it;
    struct threshold threshold = {INFINITY, 0};
    if (left) threshold = threshold_of(remainder, count, left, others);
    int32_t missing = left - threshold.above;
    for (int32_t j = 0; missing > 0 && j < count; j++) {
        if (remainder[j] != threshold.value) continue;
        whole[j]++;
        missing--;
    }
#pragma omp simd
    for (int64_t j = 0; j < classes; j++)
        row[j] = (float)(whole[j] + (remainder[j] > threshold.value)) / (float)units;
}

INLINE int64_t quantise_any(float *p, int64_t rows, int64_t classes, int32_t units) {
    if (classes <= FEW) {
        for (int64_t row = 0; row < rows; row += LANES, p += LANES * classes)
            few_classes(p, classes, rows - row < LANES ? (int)(rows - row) : LANES, units);
        return 0;
    }
    /* A third of a page between the arrays: of one place in a page, stores would hold up loads. */
    int64_t size = (classes + 1023) / 1024 * 1024 + 336;
    float *scratch = calloc((size_t)size, 2 * sizeof(float) + sizeof(int32_t));
    if (!scratch) return -1;
    for (int64_t row = 0; row < rows; row++, p += classes)
        many_classes(p, classes, units, scratch, scratch + size, (int32_t *)(scratch + 2 * size));
    free(scratch);
    return 0;
}

/* In place, of rows in which one class is above all others; -1 where memory is out. */
FOR_EACH_CPU(int64_t, quantise, (float *p, int64_t rows, int64_t classes, int32_t units),
             (p, rows, classes, units))
