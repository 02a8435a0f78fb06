// The transforms of Winograd's F(m, 3), m = 2 or 4: Lavin & Gray 2016, section 4.
#pragma once
#include "vectors.h"

#define MAX_PLACES 6
// F(4, 3) by the points 0, +-P and +-Q instead of the usual 0, +-1 and +-2 halves the rounding error; so does oneDNN.
#define P .625f
#define Q 1.5f

INLINE void of_window(int m, const Vector *d, Vector *out) {  // B^T
    if (m == 2) {
        out[0] = d[0] - d[2], out[1] = d[1] + d[2], out[2] = d[2] - d[1], out[3] = d[1] - d[3];
        return;
    }
    Vector even = d[4] - Q * Q * d[2], odd = P * (d[3] - Q * Q * d[1]);
    Vector even2 = d[4] - P * P * d[2], odd2 = Q * (d[3] - P * P * d[1]);
    out[0] = P * P * Q * Q * d[0] - (P * P + Q * Q) * d[2] + d[4];
    out[5] = P * P * Q * Q * d[1] - (P * P + Q * Q) * d[3] + d[5];
    out[1] = even + odd, out[2] = even - odd, out[3] = even2 + odd2, out[4] = even2 - odd2;
}

INLINE void of_output(int m, const Vector *p, Vector *out) {  // A^T
    if (m == 2) {
        out[0] = p[0] + p[1] + p[2], out[1] = p[1] - p[2] - p[3];
        return;
    }
    Vector sum = p[1] + p[2], difference = p[1] - p[2], sum2 = p[3] + p[4], difference2 = p[3] - p[4];
    out[0] = p[0] + sum + sum2, out[1] = P * difference + Q * difference2;
    out[2] = P * P * sum + Q * Q * sum2, out[3] = P * P * P * difference + Q * Q * Q * difference2 + p[5];
}

INLINE void of_grad(int m, const Vector *g, Vector *out) {  // A
    if (m == 2) {
        out[0] = g[0], out[1] = g[0] + g[1], out[2] = g[0] - g[1], out[3] = -g[1];
        return;
    }
    Vector even = g[0] + P * P * g[2], odd = P * g[1] + P * P * P * g[3];
    Vector even2 = g[0] + Q * Q * g[2], odd2 = Q * g[1] + Q * Q * Q * g[3];
    out[0] = g[0], out[1] = even + odd, out[2] = even - odd;
    out[3] = even2 + odd2, out[4] = even2 - odd2, out[5] = g[3];
}

#define OF_ZERO (1 / (P * P * Q * Q))                // Lagrange's weights of the points
#define OF_P (1 / (2 * P * P * (P * P - Q * Q)))
#define OF_Q (1 / (2 * Q * Q * (Q * Q - P * P)))

INLINE void of_kernel(int m, const Vector *k, Vector *out) {  // G
    if (m == 2) {
        out[0] = k[0], out[1] = (k[0] + k[1] + k[2]) / 2, out[2] = (k[0] - k[1] + k[2]) / 2, out[3] = k[2];
        return;
    }
    Vector ends = OF_P * k[0] + OF_P * P * P * k[2], middle = OF_P * P * k[1];
    Vector ends2 = OF_Q * k[0] + OF_Q * Q * Q * k[2], middle2 = OF_Q * Q * k[1];
    out[0] = OF_ZERO * k[0], out[1] = ends + middle, out[2] = ends - middle;
    out[3] = ends2 + middle2, out[4] = ends2 - middle2, out[5] = k[2];
}

INLINE void of_kernel_grad(int m, const Vector *u, Vector *out) {  // G^T
    if (m == 2) {
        Vector sum = (u[1] + u[2]) / 2;
        out[0] = u[0] + sum, out[1] = (u[1] - u[2]) / 2, out[2] = sum + u[3];
        return;
    }
    Vector sum = OF_P * (u[1] + u[2]), sum2 = OF_Q * (u[3] + u[4]);
    out[0] = OF_ZERO * u[0] + sum + sum2, out[1] = OF_P * P * (u[1] - u[2]) + OF_Q * Q * (u[3] - u[4]);
    out[2] = P * P * sum + Q * Q * sum2 + u[5];
}

// Applies a transform of `from` to `to` numbers to columns and rows of a square; from[y][x] is at in[y * from + x].
#define SQUARE(transform, m, from, to, in, out)                                      \
    do {                                                                             \
        Vector column[MAX_PLACES], result[MAX_PLACES], half[MAX_PLACES][MAX_PLACES]; \
        for (int x = 0; x < (from); x++) {                                           \
            for (int y = 0; y < (from); y++) column[y] = load((in)[y * (from) + x]); \
            transform(m, column, result);                                            \
            for (int y = 0; y < (to); y++) half[y][x] = result[y];                   \
        }                                                                            \
        for (int y = 0; y < (to); y++) {                                             \
            transform(m, half[y], result);                                           \
            for (int x = 0; x < (to); x++) store((out)[y * (to) + x], result[x]);    \
        }                                                                            \
    } while (0)
