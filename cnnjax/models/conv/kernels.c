// 3x3 convolutions with stride 1 by Winograd's F(2x2, 3x3) and F(4x4, 3x3) in one pass: a block of tiles is
// transformed, multiplied and transformed back in the caches of a core. Channels last, float32; m is 2 or 4, the pixels
// of a tile. Matrices: Lavin & Gray 2016, section 4. Channels and features are divisible by LANES. Convolutions of up
// to four channels are direct. Bias, ReLU and 2x2 max-pool may follow: then only their result is written.
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include "xla/ffi/api/c_api.h"

#define INLINE static inline __attribute__((always_inline))
#define EXPORT __attribute__((visibility("default")))
#define LANES 16
#define UNROLL _Pragma("GCC unroll 24")
#define MAX_PLACES 6
#ifdef __AVX512F__
#define WIDEST 4  // vectors of features that a product takes at once: as many sums as there are registers
#define PIXELS 8  // of a row that a direct convolution takes at once
#else
#define WIDEST 1
#define PIXELS 4
#endif
// F(4, 3) by the points 0, +-P and +-Q instead of the usual 0, +-1 and +-2 halves the rounding error; so does oneDNN.
#define P .625f
#define Q 1.5f
typedef float Vector __attribute__((vector_size(4 * LANES), aligned(4)));  // loads and stores need no alignment
typedef int32_t Mask __attribute__((vector_size(4 * LANES), aligned(4)));
typedef int8_t Bytes __attribute__((vector_size(LANES), aligned(1)));

typedef struct {
    int64_t batch, height, width, channels;  // of the images
    int64_t rows, columns, features;         // of the output
    int64_t above, left;                     // zeros around the images
} Shape;

INLINE Vector load(const float *from) { return *(const Vector *)from; }
INLINE void store(float *to, Vector value) { *(Vector *)to = value; }

INLINE Mask choose(Mask mask, Mask yes, Mask no) { return (mask & yes) | (~mask & no); }

// Images, or the gradient of an output that was pooled: then `winner` says which pixel of a 2x2 block has the value.
typedef struct {
    const float *values;
    const int8_t *winner;
} Source;

INLINE Vector at_winner(Source source, const float *at, int place) {
    Mask winner = __builtin_convertvector(*(const Bytes *)(source.winner + (at - source.values)), Mask);
    return (Vector)((Mask)load(at) & (winner == place));
}

// Images, or their bias, ReLU and 2x2 max-pool: then `winner` gets the place of each maximum, or 4 where that is 0.
typedef struct {
    float *values;
    int8_t *winner;
    const float *bias;
} Target;

INLINE void pool(Target target, int64_t at, int64_t feature, const float *const pixels[4]) {
    Vector best = load(pixels[0]);
    Mask place = {0};
    for (int i = 1; i < 4; i++) {
        Vector pixel = load(pixels[i]);
        Mask better = (pixel > best) | (pixel != pixel);  // not a number stays so
        best = (Vector)choose(better, (Mask)pixel, (Mask)best), place = choose(better, (Mask){0} + i, place);
    }
    best += load(target.bias + feature);
    Mask off = best <= 0;
    store(target.values + at, (Vector)(~off & (Mask)best));
    *(Bytes *)(target.winner + at) = __builtin_convertvector(choose(off, (Mask){0} + 4, place), Bytes);
}

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

#if WIDEST == 4
#define BY_FEATURES(run)                   \
    do {                                   \
        if (shape.features % 64 == 0)      \
            run(6, 4);                     \
        else if (shape.features % 32 == 0) \
            run(12, 2);                    \
        else                               \
            run(24, 1);                    \
    } while (0)
#define BY_CHANNELS(run)                   \
    do {                                   \
        if (shape.features % 32 == 0)      \
            run(2);                        \
        else                               \
            run(1);                        \
    } while (0)
#else
#define BY_FEATURES(run) run(6, 1)
#define BY_CHANNELS(run) run(1)
#endif

// The handlers of XLA's custom calls. The last result is the temporary array; attributes are sorted by their names.
static int is_query(XLA_FFI_CallFrame *frame) {
    XLA_FFI_Extension_Base *extension = frame->extension_start;
    if (!extension || extension->type != XLA_FFI_Extension_Metadata) return 0;
    XLA_FFI_Metadata *metadata = ((XLA_FFI_Metadata_Extension *)extension)->metadata;
    metadata->api_version.major_version = XLA_FFI_API_MAJOR;
    metadata->api_version.minor_version = XLA_FFI_API_MINOR;
    metadata->traits = 0;
    return 1;
}

INLINE XLA_FFI_Buffer *argument(XLA_FFI_CallFrame *frame, int i) { return frame->args.args[i]; }
INLINE XLA_FFI_Buffer *result(XLA_FFI_CallFrame *frame, int i) { return frame->rets.rets[i]; }
INLINE int64_t attribute(XLA_FFI_CallFrame *frame, int i) {
    return *(int64_t *)((XLA_FFI_Scalar *)frame->attrs.attrs[i])->value;
}

// Runs parts of a task in threads of XLA's pool and in this one. A thread that comes late finds nothing left to do.
typedef struct {
    atomic_int next, done, users;
    int parts;
    void (*run)(void *, int);
    void *task;
} Job;

static void work(void *pointer) {
    Job *job = pointer;
    for (int part; (part = atomic_fetch_add(&job->next, 1)) < job->parts;) {
        job->run(job->task, part);
        atomic_fetch_add(&job->done, 1);
    }
    if (atomic_fetch_sub(&job->users, 1) == 1) free(job);
}

static void in_parts(XLA_FFI_CallFrame *frame, int parts, void (*run)(void *, int), void *task) {
    Job *job = parts > 1 ? malloc(sizeof(Job)) : NULL;
    for (int part = 0; !job && part < parts; part++) run(task, part);
    if (!job) return;
    *job = (Job){.users = parts + 1, .parts = parts, .run = run, .task = task};
    for (int i = 1; i < parts; i++) {
        XLA_FFI_ThreadPool_Schedule_Args schedule = {
            XLA_FFI_ThreadPool_Schedule_Args_STRUCT_SIZE, NULL, frame->ctx, work, job};
        XLA_FFI_Error *error = frame->api->XLA_FFI_ThreadPool_Schedule(&schedule);
        if (!error) continue;
        XLA_FFI_Error_Destroy_Args destroy = {XLA_FFI_Error_Destroy_Args_STRUCT_SIZE, NULL, error};
        frame->api->XLA_FFI_Error_Destroy(&destroy);
        atomic_fetch_sub(&job->users, 1);
    }
    work(job);
    while (atomic_load(&job->done) < parts) {}
    if (atomic_fetch_sub(&job->users, 1) == 1) free(job);
}

// The shape of a convolution by that of its images and output, of which a pooled one has half as many rows and columns.
INLINE Shape shape_of(XLA_FFI_CallFrame *frame, const int64_t *images, int images_pooled, const int64_t *output,
                      int output_pooled) {
    int64_t in = images_pooled ? 2 : 1, out = output_pooled ? 2 : 1;
    return (Shape){images[0],       in * images[1], in * images[2],      images[3],          out * output[1],
                   out * output[2], output[3],      attribute(frame, 0), attribute(frame, 1)};
}

typedef struct {
    Shape shape;
    int64_t m, parts, turned;
    Source images, grad;
    Target output;
    const float *kernel;
    float *scratch;
} Task;

#define KERNEL_FLOATS(task) (((task)->m + 2) * ((task)->m + 2) * (task)->shape.channels * (task)->shape.features)

static void transform_part(void *pointer, int part) {
    Task *task = pointer;
    Shape shape = task->shape;
#define KERNEL(m, vectors) \
    transform_kernel(m, vectors * LANES, task->kernel, shape, task->turned, task->scratch, part, task->parts)
#define KERNEL2(rows, vectors) KERNEL(2, vectors)
#define KERNEL4(rows, vectors) KERNEL(4, vectors)
    if (task->m == 2)
        BY_FEATURES(KERNEL2);
    else
        BY_FEATURES(KERNEL4);
}

static void forward_part(void *pointer, int part) {
    Task *task = pointer;
    Shape shape = task->shape;
    int m = task->m;
    int64_t tiles = tile_count(m, shape);
    int64_t first = first_tile(m, tiles, part, task->parts), last = first_tile(m, tiles, part + 1, task->parts);
    float *own = task->scratch + KERNEL_FLOATS(task) + part * forward_floats(m, shape);
#define FORWARD(m, rows, vectors) \
    forward(m, rows, vectors, task->images, task->scratch, task->output, own, shape, first, last)
#define FORWARD2(rows, vectors) FORWARD(2, rows, vectors)
#define FORWARD4(rows, vectors) FORWARD(4, rows, vectors)
    if (m == 2)
        BY_FEATURES(FORWARD2);
    else
        BY_FEATURES(FORWARD4);
}

static void direct_part(void *pointer, int part) {
    Task *task = pointer;
    Shape shape = task->shape;
    int64_t first = shape.batch * part / task->parts, last = shape.batch * (part + 1) / task->parts;
    float *own = task->scratch + part * direct_floats(shape);
#define DIRECT(vectors) \
    direct_forward(vectors, task->images.values, task->kernel, task->output, own, shape, first, last)
    BY_CHANNELS(DIRECT);
}

static void kernel_grad_part(void *pointer, int part) {
    Task *task = pointer;
    Shape shape = task->shape;
    int m = task->m;
    int64_t tiles = tile_count(m, shape);
    int64_t first = first_tile(m, tiles, part, task->parts), last = first_tile(m, tiles, part + 1, task->parts);
    float *own = task->scratch + part * kernel_grad_floats(m, shape);
#define GRAD2(rows, vectors) kernel_grad(2, vectors, task->images, task->grad, own, shape, first, last)
#define GRAD4(rows, vectors) kernel_grad(4, vectors, task->images, task->grad, own, shape, first, last)
    if (m == 2)
        BY_FEATURES(GRAD2);
    else
        BY_FEATURES(GRAD4);
}

static void finish_part(void *pointer, int part) {
    Task *task = pointer;
    int64_t distance = kernel_grad_floats(task->m, task->shape);
    if (task->m == 2)
        finish_kernel_grad(2, task->scratch, distance, task->output.values, task->shape, part, task->parts);
    else
        finish_kernel_grad(4, task->scratch, distance, task->output.values, task->shape, part, task->parts);
}

static void direct_grad_part(void *pointer, int part) {
    Task *task = pointer;
    Shape shape = task->shape;
    int64_t first = shape.batch * part / task->parts, last = shape.batch * (part + 1) / task->parts;
    const float *images = task->images.values;
    float *own = task->scratch + part * direct_floats(shape);
#define DIRECT1(vectors) direct_kernel_grad(1, vectors, images, task->grad, own, shape, first, last)
#define DIRECT2(vectors) direct_kernel_grad(2, vectors, images, task->grad, own, shape, first, last)
#define DIRECT3(vectors) direct_kernel_grad(3, vectors, images, task->grad, own, shape, first, last)
#define DIRECT4(vectors) direct_kernel_grad(4, vectors, images, task->grad, own, shape, first, last)
    if (shape.channels == 1)
        BY_CHANNELS(DIRECT1);
    else if (shape.channels == 2)
        BY_CHANNELS(DIRECT2);
    else if (shape.channels == 3)
        BY_CHANNELS(DIRECT3);
    else
        BY_CHANNELS(DIRECT4);
}

// Arguments: images, kernel, then the winner of pooled images, or the bias of an output to pool; results: output, the
// winner of a pooled output, scratch; attributes: above, left, m (0 for a direct convolution), parts, turned.
EXPORT XLA_FFI_Error *winograd_forward(XLA_FFI_CallFrame *frame) {
    if (is_query(frame)) return NULL;
    int pools = frame->rets.size == 3, was_pooled = !pools && frame->args.size == 3;
    Task task = {
        .shape = shape_of(frame, argument(frame, 0)->dims, was_pooled, result(frame, 0)->dims, pools),
        .m = attribute(frame, 2),
        .parts = attribute(frame, 3),
        .turned = attribute(frame, 4),
        .images = {argument(frame, 0)->data, was_pooled ? argument(frame, 2)->data : NULL},
        .output = {result(frame, 0)->data, pools ? result(frame, 1)->data : NULL,
                   pools ? argument(frame, 2)->data : NULL},
        .kernel = argument(frame, 1)->data,
        .scratch = result(frame, pools ? 2 : 1)->data,
    };
    if (task.m > 0) in_parts(frame, task.parts, transform_part, &task);
    in_parts(frame, task.parts, task.m > 0 ? forward_part : direct_part, &task);
    return NULL;
}

// Arguments: images, gradient of the output and, if that was pooled, the winner; results: gradient of the kernel,
// scratch; attributes: above, left, m (0 for a direct convolution), parts.
EXPORT XLA_FFI_Error *winograd_kernel_grad(XLA_FFI_CallFrame *frame) {
    if (is_query(frame)) return NULL;
    int was_pooled = frame->args.size == 3;
    Task task = {
        .shape = shape_of(frame, argument(frame, 0)->dims, 0, argument(frame, 1)->dims, was_pooled),
        .m = attribute(frame, 2),
        .parts = attribute(frame, 3),
        .images = {argument(frame, 0)->data, NULL},
        .grad = {argument(frame, 1)->data, was_pooled ? argument(frame, 2)->data : NULL},
        .output = {.values = result(frame, 0)->data},
        .scratch = result(frame, 1)->data,
    };
    in_parts(frame, task.parts, task.m > 0 ? kernel_grad_part : direct_grad_part, &task);
    if (task.m > 0) {
        in_parts(frame, task.parts, finish_part, &task);
        return NULL;
    }
    int64_t size = 9 * task.shape.channels * task.shape.features;
    memset(task.output.values, 0, 4 * size);
    for (int part = 0; part < task.parts; part++) {
        float *total = task.scratch + (part + 1) * direct_floats(task.shape) - size, *to = task.output.values;
        for (int64_t i = 0; i < size; i += LANES) store(to + i, load(to + i) + load(total + i));
    }
    return NULL;
}

// Floats of the scratch array.
EXPORT int64_t winograd_floats(int m, int64_t rows, int64_t columns, int64_t channels, int64_t features, int parts,
                               int is_grad) {
    Task task = {.m = m, .shape = {.rows = rows, .columns = columns, .channels = channels, .features = features}};
    if (m == 0) return parts * direct_floats(task.shape);
    if (is_grad) return parts * kernel_grad_floats(m, task.shape);
    return KERNEL_FLOATS(&task) + parts * forward_floats(m, task.shape);
}
