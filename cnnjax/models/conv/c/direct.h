#pragma once
#include "product.h"

// Direct convolutions, for up to four channels. The pixels under a row of the kernel lie one behind the other.
INLINE void pad(const float *image, Shape shape, float *padded) {
    int64_t columns = shape.columns + 2, depth = shape.channels;
    int64_t copied = shape.width < columns - shape.left ? shape.width : columns - shape.left;
    memset(padded, 0, 4 * (shape.rows + 2) * columns * depth);
    for (int64_t y = 0; y < shape.height && y + shape.above < shape.rows + 2; y++)
        memcpy(padded + ((y + shape.above) * columns + shape.left) * depth, image + y * shape.width * depth,
               4 * copied * depth);
}

INLINE int64_t padded_floats(Shape shape) { return (shape.rows + 2) * (shape.columns + 2) * shape.channels; }
INLINE int64_t direct_floats(Shape shape) {
    return padded_floats(shape) + shape.columns * shape.features + 18 * shape.channels * shape.features;
}

// Computes `count` pixels of a row, `vectors` vectors of features.
INLINE void row_of_pixels(int vectors, int count, const float *padded, Shape shape, const float *kernel, float *out,
                          int64_t out_row) {
    int64_t depth = 3 * shape.channels, line = (shape.columns + 2) * shape.channels;
    if (count == PIXELS)
        product(PIXELS, vectors, 0, 3, depth, padded, shape.channels, line, 1, kernel, shape.features, out, out_row);
    else
        for (int i = 0; i < count; i++)
            product(1, vectors, 0, 3, depth, padded + i * shape.channels, shape.channels, line, 1, kernel,
                    shape.features, out + i * out_row, out_row);
}

INLINE void direct_forward(int vectors, const float *images, const float *kernel, Target output, float *padded,
                           Shape shape, int64_t image, int64_t last) {
    int64_t rows = shape.rows, columns = shape.columns, features = shape.features, depth = shape.channels;
    int64_t line = (columns + 2) * depth;
    int count = columns < PIXELS ? columns : PIXELS, wide = vectors * LANES;
    for (; image < last; image++) {
        pad(images + image * shape.height * shape.width * depth, shape, padded);
        for (int64_t y = 0; y < rows; y += output.winner ? 2 : 1)
            for (int64_t next = 0; next < columns; next += count) {
                int64_t x = next + count > columns ? columns - count : next;  // the last pixels once more
                for (int64_t f = 0; f < features; f += wide) {
                    const float *from = padded + y * line + x * depth;
                    if (!output.winner) {
                        float *out = output.values + ((image * rows + y) * columns + x) * features + f;
                        row_of_pixels(vectors, count, from, shape, kernel + f, out, features);
                        continue;
                    }
                    float lines[2][PIXELS][4 * LANES];
                    for (int i = 0; i < 2; i++)
                        row_of_pixels(vectors, count, from + i * line, shape, kernel + f, lines[i][0], 4 * LANES);
                    for (int i = 0; i < count; i += 2)
                        for (int v = 0; v < wide; v += LANES) {
                            int64_t at = ((image * rows + y) / 2 * columns + x + i) / 2 * features + f + v;
                            const float *four[4] = {lines[0][i] + v, lines[0][i + 1] + v, lines[1][i] + v,
                                                    lines[1][i + 1] + v};
                            pool(output, at, f + v, four);
                        }
                }
            }
    }
}

// Adds up the gradient of the kernel, which follows an image's in memory.
INLINE void direct_kernel_grad(int channels, int vectors, const float *images, Source grad, float *padded, Shape shape,
                               int64_t image, int64_t last) {
    int64_t rows = shape.rows, columns = shape.columns, features = shape.features, line = (columns + 2) * channels;
    float *expanded = padded + padded_floats(shape), *sums = expanded + columns * features;
    int64_t size = 9 * channels * features;
    float *total = sums + size;
    memset(total, 0, 4 * size);
    for (; image < last; image++) {
        pad(images + image * shape.height * shape.width * channels, shape, padded);
        memset(sums, 0, 4 * size);
        for (int64_t y = 0; y < rows; y++) {
            const float *of_row = grad.values + (image * rows + y) * columns * features;
            if (grad.winner) {
                of_row = grad.values + (image * rows + y) / 2 * (columns / 2) * features;
                for (int64_t x = 0; x < columns; x++)
                    for (int64_t f = 0; f < features; f += LANES)
                        store(expanded + x * features + f,
                              at_winner(grad, of_row + x / 2 * features + f, y % 2 * 2 + x % 2));
                of_row = expanded;
            }
            for (int part = 0; part < 3; part++)
                for (int64_t f = 0; f < features; f += vectors * LANES)
                    product(3 * channels, vectors, 1, 1, columns, padded + (y + part) * line, 1, 0, channels,
                            of_row + f, features, sums + part * 3 * channels * features + f, features);
        }
        for (int64_t i = 0; i < size; i += LANES) store(total + i, load(total + i) + load(sums + i));
    }
}
