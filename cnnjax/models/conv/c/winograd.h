// Winograd's F(2x2, 3x3) and F(4x4, 3x3) in one pass: a block of tiles is transformed, multiplied and transformed back
// in the caches of a core. A tile has m x m pixels, m = 2 or 4.
#pragma once
#include "product.h"
#include "transforms.h"

INLINE int64_t tiles_of(int m, int64_t pixels) { return (pixels + m - 1) / m; }
INLINE int64_t tile_count(int m, Shape shape) {
    return shape.batch * tiles_of(m, shape.rows) * tiles_of(m, shape.columns);
}
INLINE int block_of(int m) { return m == 2 ? 48 : 24; }  // tiles: their transforms fit the second cache

// Finds the `size` x `size` pixels of a tile of images, or of the output; `outside` stands for those that are outside.
// Of a pooled image, those are the pixels of its blocks.
INLINE void find_pixels(const float *pixels, int is_pooled, int64_t height, int64_t width, int64_t depth, int size,
                        int64_t top, int64_t left, const float *outside, const float **found) {
    for (int y = 0; y < size; y++)
        for (int x = 0; x < size; x++) {
            int64_t row = top + y, column = left + x;
            int inside = row >= 0 && row < height && column >= 0 && column < width;
            int64_t at = is_pooled ? row / 2 * (width / 2) + column / 2 : row * width + column;
            found[y * size + x] = inside ? pixels + at * depth : outside;
        }
}

// Tile number `first + t`: its image, and its top left pixel.
#define FIND_TILE(m)                                                                                   \
    int64_t down = tiles_of(m, shape.rows), across = tiles_of(m, shape.columns), tile = first + t;     \
    int64_t image = tile / across / down, top = tile / across % down * (m), left = tile % across * (m)

// Writes the transforms of `count` tiles, [place][tile][channel], with `stride` floats between places.
#define TRANSFORM_TILES(transform, source, height, width, depth, m, size, above, before, out, stride)                  \
    for (int t = 0; t < count; t++) {                                                                                  \
        FIND_TILE(m);                                                                                                  \
        const float *pixels[36], *in[36];                                                                              \
        float *to[36], expanded[36][LANES];                                                                            \
        int is_pooled = (source).winner != NULL;                                                                       \
        int64_t area = is_pooled ? (height) / 2 * ((width) / 2) : (height) * (width);                                  \
        find_pixels((source).values + image * area * (depth), is_pooled, height, width, depth, size, top - (above),    \
                    left - (before), zeros, pixels);                                                                   \
        for (int64_t c = 0; c < (depth); c += LANES) {                                                                 \
            for (int i = 0; i < (size) * (size); i++) in[i] = pixels[i] + c;                                           \
            if (is_pooled)                                                                                             \
                for (int i = 0; i < (size) * (size); i++) {                                                            \
                    if (pixels[i] == zeros) continue;                                                                  \
                    int place = (top - (above) + i / (size)) % 2 * 2 + (left - (before) + i % (size)) % 2;             \
                    store(expanded[i], at_winner(source, in[i], place)), in[i] = expanded[i];                          \
                }                                                                                                      \
            for (int i = 0; i < places; i++) to[i] = (out) + i * (stride) + t * (depth) + c;                           \
            SQUARE(transform, m, size, (m) + 2, in, to);                                                               \
        }                                                                                                              \
    }

// Writes the transformed kernel, [block of features][place][channel][feature], from one in [3, 3, channels, features]
// or, turned, in [3, 3, features, channels].
INLINE void transform_kernel(int m, int wide, const float *kernel, Shape shape, int turned, float *out, int part,
                             int parts) {
    int places = (m + 2) * (m + 2);
    int64_t channels = shape.channels, features = shape.features, blocks = channels / LANES;
    for (int64_t first = blocks * part / parts * LANES; first < blocks * (part + 1) / parts * LANES; first += LANES)
        for (int64_t f = 0; f < features; f += LANES) {
            float gathered[LANES][9][LANES], *to[36];
            const float *in[9];
            for (int i = 0; turned && i < 9; i++)
                for (int l = 0; l < LANES; l++)
                    for (int c = 0; c < LANES; c++)
                        gathered[c][i][l] = kernel[((8 - i) * features + f + l) * channels + first + c];
            for (int64_t c = first; c < first + LANES; c++) {
                for (int i = 0; i < 9; i++)
                    in[i] = turned ? gathered[c - first][i] : kernel + (i * channels + c) * features + f;
                for (int i = 0; i < places; i++)
                    to[i] = out + ((f / wide * places + i) * channels + c) * wide + f % wide;
                SQUARE(of_kernel, m, 3, m + 2, in, to);
            }
        }
}

// Floats of the temporary arrays of a part; the strides between places are no powers of two, which would share places
// of a cache.
INLINE int64_t forward_floats(int m, Shape shape) {
    int64_t block = block_of(m) + 1, places = (m + 2) * (m + 2), edge = shape.channels + shape.features;
    return places * block * (shape.channels + WIDEST * LANES) + edge;
}

INLINE int64_t kernel_grad_floats(int m, Shape shape) {
    int64_t block = block_of(m) + 1, places = (m + 2) * (m + 2), edge = shape.channels + shape.features;
    return places * (shape.channels * shape.features + block * edge) + edge;
}

// Where part number `part` of the tiles begins: with a block.
INLINE int64_t first_tile(int m, int64_t tiles, int part, int parts) {
    int64_t block = block_of(m), blocks = (tiles + block - 1) / block, first = blocks * part / parts * block;
    return first < tiles ? first : tiles;
}

INLINE void forward(int m, int rows, int vectors, Source images, const float *transformed, Target output,
                    float *windows, Shape shape, int64_t first, int64_t tiles) {
    int places = (m + 2) * (m + 2), block = block_of(m), wide = vectors * LANES;
    int64_t channels = shape.channels, features = shape.features;
    int64_t stride = block * channels + LANES, product_stride = block * wide + LANES;
    float *products = windows + places * stride, *zeros = products + places * product_stride, *waste = zeros + channels;
    memset(zeros, 0, 4 * channels);
    for (; first < tiles; first += block) {
        int count = tiles - first < block ? tiles - first : block;
        TRANSFORM_TILES(of_window, images, shape.height, shape.width, channels, m, m + 2, shape.above, shape.left,
                        windows, stride)
        for (int64_t f = 0; f < features; f += wide) {
            for (int i = 0; i < places; i++) {
                const float *matrix = transformed + (f / wide * places + i) * channels * wide;
                for (int t = 0; t < count; t += rows)
                    product(rows, vectors, 0, 1, channels, windows + i * stride + t * channels, channels, 0, 1, matrix,
                            wide, products + i * product_stride + t * wide, wide);
            }
            for (int t = 0; t < count; t++) {
                FIND_TILE(m);
                const float *pixels[16], *in[36];
                float *to[16], block[16][LANES];
                if (!output.winner)
                    find_pixels(output.values + image * shape.rows * shape.columns * features, 0, shape.rows,
                                shape.columns, features, m, top, left, waste, pixels);
                for (int v = 0; v < wide; v += LANES) {
                    for (int i = 0; i < places; i++) in[i] = products + i * product_stride + t * wide + v;
                    for (int i = 0; i < m * m; i++) to[i] = output.winner ? block[i] : (float *)pixels[i] + f + v;
                    SQUARE(of_output, m, m + 2, m, in, to);
                    for (int y = 0; output.winner && y < m && top + y < shape.rows; y += 2)
                        for (int x = 0; x < m && left + x < shape.columns; x += 2) {
                            int64_t row = image * (shape.rows / 2) + (top + y) / 2;
                            int64_t at = (row * (shape.columns / 2) + (left + x) / 2) * features + f + v;
                            const float *four[4] = {block[y * m + x], block[y * m + x + 1], block[(y + 1) * m + x],
                                                    block[(y + 1) * m + x + 1]};
                            pool(output, at, f + v, four);
                        }
                }
            }
        }
    }
}

// Adds up the transformed gradient of the kernel, [place][channel][feature].
INLINE void kernel_grad(int m, int vectors, Source images, Source grad, float *sums, Shape shape, int64_t first,
                        int64_t tiles) {
    int places = (m + 2) * (m + 2), block = block_of(m), wide = vectors * LANES;
    int64_t channels = shape.channels, features = shape.features;
    int64_t stride = block * channels + LANES, grad_stride = block * features + LANES, sum_stride = channels * features;
    float *windows = sums + places * sum_stride, *grads = windows + places * stride;
    float *zeros = grads + places * grad_stride;
    memset(zeros, 0, 4 * (channels + features));
    memset(sums, 0, 4 * places * sum_stride);
    for (; first < tiles; first += block) {
        int count = tiles - first < block ? tiles - first : block;
        TRANSFORM_TILES(of_window, images, shape.height, shape.width, channels, m, m + 2, shape.above, shape.left,
                        windows, stride)
        TRANSFORM_TILES(of_grad, grad, shape.rows, shape.columns, features, m, m, 0, 0, grads, grad_stride)
        for (int i = 0; i < places; i++)
            for (int64_t f = 0; f < features; f += wide)
                for (int64_t c = 0; c < channels;) {  // six rows of the matrix, or five, so that none is left
                    const float *a = windows + i * stride + c, *b = grads + i * grad_stride + f;
                    float *out = sums + i * sum_stride + c * features + f;
                    int six = (channels - c) % 5 || channels - c >= 30;
                    if (six)
                        product(6, vectors, 1, 1, count, a, 1, 0, channels, b, features, out, features);
                    else
                        product(5, vectors, 1, 1, count, a, 1, 0, channels, b, features, out, features);
                    c += six ? 6 : 5;
                }
    }
}

// Transforms the sums of all parts, which lie `distance` floats apart, for some of the elements of the kernel.
INLINE void finish_kernel_grad(int m, float *sums, int64_t distance, float *output, Shape shape, int part, int parts) {
    int places = (m + 2) * (m + 2);
    int64_t vectors = shape.channels * shape.features / LANES, size = vectors * LANES;
    for (int64_t j = vectors * part / parts * LANES; j < vectors * (part + 1) / parts * LANES; j += LANES) {
        const float *in[36];
        float *to[9];
        for (int i = 0; i < places; i++) {
            float *sum = sums + i * size + j;
            for (int other = 1; other < parts; other++) store(sum, load(sum) + load(sum + other * distance));
            in[i] = sum;
        }
        for (int i = 0; i < 9; i++) to[i] = output + i * size + j;
        SQUARE(of_kernel_grad, m, m + 2, 3, in, to);
    }
}
