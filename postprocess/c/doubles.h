/* Arithmetic in float64 that careful.c and types.c share. All logarithms are to base 2. */
#ifndef DOUBLES_H
#define DOUBLES_H

#include "lanes.h"

static const double IMPOSSIBLE = -1e300; /* stands for log 0 where it is subtracted from itself */

INLINE int64_t bits_of_double(double x) {
    int64_t i;
    memcpy(&i, &x, 8);
    return i;
}
INLINE double double_of(int64_t i) {
    double x;
    memcpy(&x, &i, 8);
    return x;
}
INLINE double least_of(double a, double b) { return a < b ? a : b; }
INLINE double most_of(double a, double b) { return a > b ? a : b; }

/* log2(1 + u) given both, to full relative accuracy; of 0 it is as good as -inf. */
INLINE double wide_log2(double x, double u) {
    int64_t i = bits_of_double(x);
    int64_t high = (i - 0x3fe6a09e667f3bcd) & (int64_t)0xfff0000000000000;
    double f = double_of(i - high) - 1.0;
    f = high == 0 ? u : f;
    /* The exponent, which lies in bits 52 to 62, as a number without a conversion. */
    double exponent = double_of((int64_t)(((uint64_t)(high + ((int64_t)1024 << 52)) >> 52) |
                                          0x4330000000000000)) -
                      (0x1p52 + 1024.0);
    double s = f / (2.0 + f), t = s * s, series = 1.0 / 19;
#pragma GCC unroll 16
    for (int i = 17; i > 0; i -= 2) series = series * t + 1.0 / i;
    double value = exponent + s * series * (2 * 1.4426950408889634);
    return x > 0.0 ? value : IMPOSSIBLE;
}

#endif
