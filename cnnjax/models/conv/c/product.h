// A product of matrices that lie in the caches.
#pragma once
#include "vectors.h"

// Adds to, or writes, `rows` times `vectors` vectors of a product a @ b, whose depth is cut into `parts`.
INLINE void product(int rows, int vectors, int add, int parts, int64_t depth, const float *a, int64_t a_row,
                    int64_t a_part, int64_t a_depth, const float *b, int64_t b_depth, float *out, int64_t out_row) {
    Vector sums[24][4] = {0};  // of fixed size, or they would lie in memory
    for (int part = 0; part < parts; part++)
        for (int64_t k = 0; k < depth; k++) {
            Vector row[4];
            UNROLL
            for (int v = 0; v < vectors; v++) row[v] = load(b + (part * depth + k) * b_depth + v * LANES);
            UNROLL
            for (int r = 0; r < rows; r++) {
                UNROLL
                for (int v = 0; v < vectors; v++) sums[r][v] += a[r * a_row + part * a_part + k * a_depth] * row[v];
            }
        }
    UNROLL
    for (int r = 0; r < rows; r++) {
        UNROLL
        for (int v = 0; v < vectors; v++) {
            float *to = out + r * out_row + v * LANES;
            store(to, add ? load(to) + sums[r][v] : sums[r][v]);
        }
    }
}
