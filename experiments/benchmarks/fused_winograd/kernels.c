// 3x3 convolutions by Winograd's F(2x2, 3x3) and F(4x4, 3x3) in one pass: a block of tiles is transformed, multiplied and
// transformed back in the caches of a core. Channels last, float32, zeros around ('SAME'); m is 2 or 4.
// Matrices: Lavin & Gray 2016, section 4. Needs AVX-512, height and width divisible by m, channels by 32.
#include <stdlib.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))
#define LANES 16
#define MAX_PLACES 6
typedef float Vector __attribute__((vector_size(4 * LANES), aligned(4)));  // loads and stores need no alignment

typedef struct {
    int batch, height, width, channels, features;
} Shape;

INLINE Vector load(const float *from) { return *(const Vector *)from; }
INLINE void store(float *to, Vector value) { *(Vector *)to = value; }

INLINE void of_window(int m, const Vector *d, Vector *out) {  // B^T
    if (m == 2) {
        out[0] = d[0] - d[2], out[1] = d[1] + d[2], out[2] = d[2] - d[1], out[3] = d[1] - d[3];
        return;
    }
    Vector even = d[4] - 4 * d[2], odd = d[3] - 4 * d[1], close = d[4] - d[2], far = 2 * (d[3] - d[1]);
    out[0] = 4 * d[0] - 5 * d[2] + d[4], out[5] = 4 * d[1] - 5 * d[3] + d[5];
    out[1] = even + odd, out[2] = even - odd, out[3] = close + far, out[4] = close - far;
}

INLINE void of_output(int m, const Vector *p, Vector *out) {  // A^T
    if (m == 2) {
        out[0] = p[0] + p[1] + p[2], out[1] = p[1] - p[2] - p[3];
        return;
    }
    Vector sum = p[1] + p[2], difference = p[1] - p[2], sum2 = p[3] + p[4], difference2 = p[3] - p[4];
    out[0] = p[0] + sum + sum2, out[1] = difference + 2 * difference2;
    out[2] = sum + 4 * sum2, out[3] = difference + 8 * difference2 + p[5];
}

INLINE void of_grad(int m, const Vector *g, Vector *out) {  // A
    if (m == 2) {
        out[0] = g[0], out[1] = g[0] + g[1], out[2] = g[0] - g[1], out[3] = -g[1];
        return;
    }
    Vector even = g[0] + g[2], odd = g[1] + g[3], even2 = g[0] + 4 * g[2], odd2 = 2 * g[1] + 8 * g[3];
    out[0] = g[0], out[1] = even + odd, out[2] = even - odd, out[3] = even2 + odd2, out[4] = even2 - odd2, out[5] = g[3];
}

INLINE void of_kernel(int m, const Vector *k, Vector *out) {  // G
    if (m == 2) {
        out[0] = k[0], out[1] = (k[0] + k[1] + k[2]) / 2, out[2] = (k[0] - k[1] + k[2]) / 2, out[3] = k[2];
        return;
    }
    Vector ends = (k[0] + k[2]) / 6, ends2 = k[0] / 24 + k[2] / 6, middle = k[1] / 6, middle2 = k[1] / 12;
    out[0] = k[0] / 4, out[1] = -ends - middle, out[2] = middle - ends, out[3] = ends2 + middle2;
    out[4] = ends2 - middle2, out[5] = k[2];
}

INLINE void of_kernel_grad(int m, const Vector *u, Vector *out) {  // G^T
    if (m == 2) {
        Vector sum = (u[1] + u[2]) / 2;
        out[0] = u[0] + sum, out[1] = (u[1] - u[2]) / 2, out[2] = sum + u[3];
        return;
    }
    Vector sum = (u[1] + u[2]) / 6, sum2 = u[3] + u[4];
    out[0] = u[0] / 4 - sum + sum2 / 24, out[1] = (u[2] - u[1]) / 6 + (u[3] - u[4]) / 12, out[2] = sum2 / 6 - sum + u[5];
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

// Adds to, or writes, `rows` times `vectors` vectors of the product a @ b.
INLINE void product(int rows, int vectors, int add, int depth, const float *a, long a_row, long a_depth, const float *b,
                    long b_depth, float *out, long out_row) {
    Vector sums[12][4];  // of fixed size, or they would lie in memory
#pragma GCC unroll 16
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
        for (int v = 0; v < vectors; v++) sums[r][v] = add ? load(out + r * out_row + v * LANES) : (Vector){0};
    for (int k = 0; k < depth; k++) {
        Vector row[4];
#pragma GCC unroll 4
        for (int v = 0; v < vectors; v++) row[v] = load(b + k * b_depth + v * LANES);
#pragma GCC unroll 16
        for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
            for (int v = 0; v < vectors; v++) sums[r][v] += a[r * a_row + k * a_depth] * row[v];
    }
#pragma GCC unroll 16
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
        for (int v = 0; v < vectors; v++) store(out + r * out_row + v * LANES, sums[r][v]);
}

// Finds the `size` x `size` pixels of a tile; `zeros` stands for those outside.
INLINE void find_pixels(const float *images, int height, int width, int channels, int m, int size, long tile, int before,
                        const float *zeros, const float **pixels) {
    int columns = width / m, rows = height / m;
    int left = tile % columns * m - before, top = tile / columns % rows * m - before;
    const float *image = images + tile / columns / rows * height * width * channels;
    for (int y = 0; y < size; y++)
        for (int x = 0; x < size; x++) {
            int row = top + y, column = left + x;
            int inside = row >= 0 && row < height && column >= 0 && column < width;
            pixels[y * size + x] = inside ? image + ((long)row * width + column) * channels : zeros;
        }
}

// Writes the transforms of `count` tiles, [place][tile][channel], with `stride` floats between places.
#define TRANSFORM_TILES(transform, m, size, before, images, depth, out, stride)                                       \
    for (int t = 0; t < count; t++) {                                                                                 \
        const float *pixels[36], *in[36];                                                                             \
        float *to[36];                                                                                                \
        find_pixels(images, shape.height, shape.width, depth, m, size, first + t, before, zeros, pixels);             \
        for (int c = 0; c < (depth); c += LANES) {                                                                    \
            for (int i = 0; i < (size) * (size); i++) in[i] = pixels[i] + c;                                          \
            for (int i = 0; i < places; i++) to[i] = (out) + i * (stride) + (long)t * (depth) + c;                    \
            SQUARE(transform, m, size, (m) + 2, in, to);                                                              \
        }                                                                                                             \
    }

// Writes the transformed kernel, [block of features][place][channel][feature], from one in [3, 3, channels, features] or,
// turned, in [3, 3, features, channels].
INLINE void transform_kernel(int m, const float *kernel, Shape shape, int turned, int wide, float *out) {
    int places = (m + 2) * (m + 2), channels = shape.channels, features = shape.features;
    for (int c = 0; c < channels; c++)
        for (int f = 0; f < features; f += LANES) {
            float gathered[9][LANES], *to[36];
            const float *in[9];
            for (int i = 0; i < 9; i++) {
                in[i] = turned ? gathered[i] : kernel + ((long)i * channels + c) * features + f;
                if (turned)
                    for (int l = 0; l < LANES; l++)
                        gathered[i][l] = kernel[((long)(8 - i) * features + f + l) * channels + c];
            }
            for (int i = 0; i < places; i++)
                to[i] = out + (((long)(f / wide) * places + i) * channels + c) * wide + f % wide;
            SQUARE(of_kernel, m, 3, m + 2, in, to);
        }
}

static float *scratch(size_t floats) {  // kept between calls, one of a thread
    static __thread float *memory;
    static __thread size_t have;
    if (have < floats) {
        free(memory);
        memory = aligned_alloc(4096, (floats * 4 + 4095) / 4096 * 4096);
        memset(memory, 0, floats * 4);
        have = floats;
    }
    return memory;
}

INLINE void forward(int m, int rows, int vectors, const float *images, const float *kernel, float *output, Shape shape,
                    int turned, int block) {
    int places = (m + 2) * (m + 2), channels = shape.channels, wide = vectors * LANES;
    long tiles = (long)shape.batch * shape.height / m * shape.width / m;
    long stride = (long)block * channels + LANES, product_stride = (long)block * wide + LANES;
    long kernel_floats = (long)places * channels * shape.features;
    float *transformed = scratch(kernel_floats + places * (stride + product_stride) + channels + 64);
    float *windows = transformed + kernel_floats, *products = windows + places * stride;
    float *zeros = products + places * product_stride;
    memset(zeros, 0, 4 * channels);
    transform_kernel(m, kernel, shape, turned, wide, transformed);
    for (long first = 0; first < tiles; first += block) {
        int count = tiles - first < block ? tiles - first : block;
        TRANSFORM_TILES(of_window, m, m + 2, 1, images, channels, windows, stride)
        for (int f = 0; f < shape.features; f += wide) {
            for (int i = 0; i < places; i++) {
                const float *matrix = transformed + ((long)(f / wide) * places + i) * channels * wide;
                for (int t = 0; t < count; t += rows)
                    product(rows, vectors, 0, channels, windows + i * stride + (long)t * channels, channels, 1, matrix, wide,
                            products + i * product_stride + t * wide, wide);
            }
            for (int t = 0; t < count; t++) {
                const float *pixels[16], *in[36];
                float *to[16];
                find_pixels(output, shape.height, shape.width, shape.features, m, m, first + t, 0, zeros, pixels);
                for (int v = 0; v < wide; v += LANES) {
                    for (int i = 0; i < places; i++) in[i] = products + i * product_stride + t * wide + v;
                    for (int i = 0; i < m * m; i++) to[i] = (float *)pixels[i] + f + v;
                    SQUARE(of_output, m, m + 2, m, in, to);
                }
            }
        }
    }
}

INLINE void kernel_grad(int m, int vectors, const float *images, const float *grad, float *output, Shape shape, int block) {
    int places = (m + 2) * (m + 2), channels = shape.channels, features = shape.features, wide = vectors * LANES;
    long tiles = (long)shape.batch * shape.height / m * shape.width / m;
    long stride = (long)block * channels + LANES, grad_stride = (long)block * features + LANES;
    long sum_stride = (long)channels * features;
    int most = channels > features ? channels : features;
    float *sums = scratch(places * (sum_stride + stride + grad_stride) + most + 64), *windows = sums + places * sum_stride;
    float *grads = windows + places * stride, *zeros = grads + places * grad_stride;
    memset(zeros, 0, 4 * most);
    memset(sums, 0, 4 * places * sum_stride);
    for (long first = 0; first < tiles; first += block) {
        int count = tiles - first < block ? tiles - first : block;
        TRANSFORM_TILES(of_window, m, m + 2, 1, images, channels, windows, stride)
        TRANSFORM_TILES(of_grad, m, m, 0, grad, features, grads, grad_stride)
        for (int i = 0; i < places; i++)
            for (int f = 0; f < features; f += wide)
                for (int c = 0; c < channels;) {  // six rows of the matrix, or five, so that none is left
                    const float *a = windows + i * stride + c, *b = grads + i * grad_stride + f;
                    float *out = sums + i * sum_stride + (long)c * features + f;
                    int six = (channels - c) % 5 || channels - c >= 30;
                    if (six)
                        product(6, vectors, 1, count, a, 1, channels, b, features, out, features);
                    else
                        product(5, vectors, 1, count, a, 1, channels, b, features, out, features);
                    c += six ? 6 : 5;
                }
    }
    for (long j = 0; j < sum_stride; j += LANES) {
        const float *in[36];
        float *to[9];
        for (int i = 0; i < places; i++) in[i] = sums + i * sum_stride + j;
        for (int i = 0; i < 9; i++) to[i] = output + i * sum_stride + j;
        SQUARE(of_kernel_grad, m, m + 2, 3, in, to);
    }
}

// The output, or if turned the gradient of the images (then `images` is the gradient of the output, and `shape` its).
void winograd_forward(int m, const float *images, const float *kernel, float *output, int batch, int height, int width,
                      int channels, int features, int turned, int block) {
    Shape shape = {batch, height, width, channels, features};
    if (m == 2 && features % 64 == 0) forward(2, 6, 4, images, kernel, output, shape, turned, block);
    if (m == 2 && features % 64 != 0) forward(2, 12, 2, images, kernel, output, shape, turned, block);
    if (m == 4 && features % 64 == 0) forward(4, 6, 4, images, kernel, output, shape, turned, block);
    if (m == 4 && features % 64 != 0) forward(4, 12, 2, images, kernel, output, shape, turned, block);
}

void winograd_kernel_grad(int m, const float *images, const float *grad, float *output, int batch, int height, int width,
                          int channels, int features, int block) {
    Shape shape = {batch, height, width, channels, features};
    if (m == 2 && features % 64 == 0) kernel_grad(2, 4, images, grad, output, shape, block);
    if (m == 2 && features % 64 != 0) kernel_grad(2, 2, images, grad, output, shape, block);
    if (m == 4 && features % 64 == 0) kernel_grad(4, 4, images, grad, output, shape, block);
    if (m == 4 && features % 64 != 0) kernel_grad(4, 2, images, grad, output, shape, block);
}
