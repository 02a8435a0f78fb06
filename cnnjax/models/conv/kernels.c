// 3x3 convolutions with stride 1 by Winograd's F(2x2, 3x3) and F(4x4, 3x3) in one pass: a block of tiles is transformed,
// multiplied and transformed back in the caches of a core. Channels last, float32; m is 2 or 4, the pixels of a tile.
// Matrices: Lavin & Gray 2016, section 4. Channels and features are divisible by LANES.
#include <string.h>
#include "xla/ffi/api/c_api.h"

#define INLINE static inline __attribute__((always_inline))
#define EXPORT __attribute__((visibility("default")))
#define LANES 16
#define MAX_PLACES 6
#ifdef __AVX512F__
#define WIDEST 4  // vectors of features that a product takes at once: as many sums as there are registers
#else
#define WIDEST 1
#endif
// F(4, 3) by the points 0, +-P and +-Q instead of the usual 0, +-1 and +-2 halves the rounding error; so does oneDNN.
#define P .625f
#define Q 1.5f
typedef float Vector __attribute__((vector_size(4 * LANES), aligned(4)));  // loads and stores need no alignment

typedef struct {
    int64_t batch, height, width, channels;  // of the images
    int64_t rows, columns, features;         // of the output
    int64_t above, left;                     // zeros around the images
} Shape;

INLINE Vector load(const float *from) { return *(const Vector *)from; }
INLINE void store(float *to, Vector value) { *(Vector *)to = value; }

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
    out[0] = g[0], out[1] = even + odd, out[2] = even - odd, out[3] = even2 + odd2, out[4] = even2 - odd2, out[5] = g[3];
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

// Adds to, or writes, `rows` times `vectors` vectors of the product a @ b.
INLINE void product(int rows, int vectors, int add, int64_t depth, const float *a, int64_t a_row, int64_t a_depth,
                    const float *b, int64_t b_depth, float *out, int64_t out_row) {
    Vector sums[24][4];  // of fixed size, or they would lie in memory
#pragma GCC unroll 24
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
        for (int v = 0; v < vectors; v++) sums[r][v] = add ? load(out + r * out_row + v * LANES) : (Vector){0};
    for (int64_t k = 0; k < depth; k++) {
        Vector row[4];
#pragma GCC unroll 4
        for (int v = 0; v < vectors; v++) row[v] = load(b + k * b_depth + v * LANES);
#pragma GCC unroll 24
        for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
            for (int v = 0; v < vectors; v++) sums[r][v] += a[r * a_row + k * a_depth] * row[v];
    }
#pragma GCC unroll 24
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
        for (int v = 0; v < vectors; v++) store(out + r * out_row + v * LANES, sums[r][v]);
}

INLINE int64_t tiles_of(int m, int64_t pixels) { return (pixels + m - 1) / m; }
INLINE int64_t tile_count(int m, Shape shape) {
    return shape.batch * tiles_of(m, shape.rows) * tiles_of(m, shape.columns);
}
INLINE int block_of(int m) { return m == 2 ? 48 : 24; }  // tiles: their transforms fit the second cache

// Finds the `size` x `size` pixels of a tile of images, or of the output; `outside` stands for those that are outside.
INLINE void find_pixels(const float *pixels, int64_t height, int64_t width, int64_t depth, int m, int size, int64_t top,
                        int64_t left, const float *outside, const float **found) {
    for (int y = 0; y < size; y++)
        for (int x = 0; x < size; x++) {
            int64_t row = top + y, column = left + x;
            int inside = row >= 0 && row < height && column >= 0 && column < width;
            found[y * size + x] = inside ? pixels + (row * width + column) * depth : outside;
        }
}

// For each of `count` tiles: runs `body`, in which `pixels` are those of the tile t.
#define EACH_TILE(of, height, width, depth, m, size, above, left, outside, body)                                       \
    for (int t = 0; t < count; t++) {                                                                                   \
        int64_t down = tiles_of(m, shape.rows), across = tiles_of(m, shape.columns), tile = first + t;                  \
        const float *pixels[36], *in[36], *image = (of) + tile / across / down * (height) * (width) * (depth);          \
        float *to[36];                                                                                                  \
        int64_t top = tile / across % down * (m) - (above), start = tile % across * (m) - (left);                       \
        find_pixels(image, height, width, depth, m, size, top, start, outside, pixels);                                 \
        body                                                                                                            \
    }

// Writes the transforms of `count` tiles, [place][tile][channel], with `stride` floats between places.
#define TRANSFORM_TILES(transform, m, size, depth, out, stride)                                       \
    for (int64_t c = 0; c < (depth); c += LANES) {                                                    \
        for (int i = 0; i < (size) * (size); i++) in[i] = pixels[i] + c;                              \
        for (int i = 0; i < places; i++) to[i] = (out) + i * (stride) + t * (depth) + c;              \
        SQUARE(transform, m, size, (m) + 2, in, to);                                                  \
    }

// Writes the transformed kernel, [block of features][place][channel][feature], from one in [3, 3, channels, features] or,
// turned, in [3, 3, features, channels].
INLINE void transform_kernel(int m, const float *kernel, Shape shape, int turned, int wide, float *out) {
    int places = (m + 2) * (m + 2);
    int64_t channels = shape.channels, features = shape.features;
    for (int64_t c = 0; c < channels; c++)
        for (int64_t f = 0; f < features; f += LANES) {
            float gathered[9][LANES], *to[36];
            const float *in[9];
            for (int i = 0; i < 9; i++) {
                in[i] = turned ? gathered[i] : kernel + (i * channels + c) * features + f;
                if (turned)
                    for (int l = 0; l < LANES; l++) gathered[i][l] = kernel[((8 - i) * features + f + l) * channels + c];
            }
            for (int i = 0; i < places; i++) to[i] = out + ((f / wide * places + i) * channels + c) * wide + f % wide;
            SQUARE(of_kernel, m, 3, m + 2, in, to);
        }
}

// Floats of the temporary arrays; the strides between places are no powers of two, which would share places of a cache.
static int64_t forward_floats(int m, Shape shape) {
    int64_t block = block_of(m) + 1, places = (m + 2) * (m + 2), edge = shape.channels + shape.features;
    return places * (shape.channels * shape.features + block * shape.channels + block * WIDEST * LANES) + edge;
}

static int64_t kernel_grad_floats(int m, Shape shape) {
    int64_t block = block_of(m) + 1, places = (m + 2) * (m + 2), edge = shape.channels + shape.features;
    return places * (shape.channels * shape.features + block * edge) + edge;
}

INLINE void forward(int m, int rows, int vectors, const float *images, const float *kernel, float *output, float *scratch,
                    Shape shape, int turned) {
    int places = (m + 2) * (m + 2), block = block_of(m), wide = vectors * LANES;
    int64_t channels = shape.channels, features = shape.features, tiles = tile_count(m, shape);
    int64_t stride = block * channels + LANES, product_stride = block * wide + LANES;
    float *transformed = scratch, *windows = transformed + places * channels * features;
    float *products = windows + places * stride, *zeros = products + places * product_stride, *waste = zeros + channels;
    memset(zeros, 0, 4 * channels);
    transform_kernel(m, kernel, shape, turned, wide, transformed);
    for (int64_t first = 0; first < tiles; first += block) {
        int count = tiles - first < block ? tiles - first : block;
        EACH_TILE(images, shape.height, shape.width, channels, m, m + 2, shape.above, shape.left, zeros,
                  TRANSFORM_TILES(of_window, m, m + 2, channels, windows, stride))
        for (int64_t f = 0; f < features; f += wide) {
            for (int i = 0; i < places; i++) {
                const float *matrix = transformed + (f / wide * places + i) * channels * wide;
                for (int t = 0; t < count; t += rows)
                    product(rows, vectors, 0, channels, windows + i * stride + t * channels, channels, 1, matrix, wide,
                            products + i * product_stride + t * wide, wide);
            }
            EACH_TILE(output, shape.rows, shape.columns, features, m, m, 0, 0, waste,
                      for (int v = 0; v < wide; v += LANES) {
                          for (int i = 0; i < places; i++) in[i] = products + i * product_stride + t * wide + v;
                          for (int i = 0; i < m * m; i++) to[i] = (float *)pixels[i] + f + v;
                          SQUARE(of_output, m, m + 2, m, in, to);
                      })
        }
    }
}

INLINE void kernel_grad(int m, int vectors, const float *images, const float *grad, float *output, float *scratch,
                        Shape shape) {
    int places = (m + 2) * (m + 2), block = block_of(m), wide = vectors * LANES;
    int64_t channels = shape.channels, features = shape.features, tiles = tile_count(m, shape);
    int64_t stride = block * channels + LANES, grad_stride = block * features + LANES, sum_stride = channels * features;
    float *sums = scratch, *windows = sums + places * sum_stride, *grads = windows + places * stride;
    float *zeros = grads + places * grad_stride;
    memset(zeros, 0, 4 * (channels + features));
    memset(sums, 0, 4 * places * sum_stride);
    for (int64_t first = 0; first < tiles; first += block) {
        int count = tiles - first < block ? tiles - first : block;
        EACH_TILE(images, shape.height, shape.width, channels, m, m + 2, shape.above, shape.left, zeros,
                  TRANSFORM_TILES(of_window, m, m + 2, channels, windows, stride))
        EACH_TILE(grad, shape.rows, shape.columns, features, m, m, 0, 0, zeros,
                  TRANSFORM_TILES(of_grad, m, m, features, grads, grad_stride))
        for (int i = 0; i < places; i++)
            for (int64_t f = 0; f < features; f += wide)
                for (int64_t c = 0; c < channels;) {  // six rows of the matrix, or five, so that none is left
                    const float *a = windows + i * stride + c, *b = grads + i * grad_stride + f;
                    float *out = sums + i * sum_stride + c * features + f;
                    int six = (channels - c) % 5 || channels - c >= 30;
                    if (six)
                        product(6, vectors, 1, count, a, 1, channels, b, features, out, features);
                    else
                        product(5, vectors, 1, count, a, 1, channels, b, features, out, features);
                    c += six ? 6 : 5;
                }
    }
    for (int64_t j = 0; j < sum_stride; j += LANES) {
        const float *in[36];
        float *to[9];
        for (int i = 0; i < places; i++) in[i] = sums + i * sum_stride + j;
        for (int i = 0; i < 9; i++) to[i] = output + i * sum_stride + j;
        SQUARE(of_kernel_grad, m, m + 2, 3, in, to);
    }
}

#if WIDEST == 4
#define BY_FEATURES(run)                    \
    do {                                    \
        if (shape.features % 64 == 0)       \
            run(6, 4);                      \
        else if (shape.features % 32 == 0)  \
            run(12, 2);                     \
        else                                \
            run(24, 1);                     \
    } while (0)
#else
#define BY_FEATURES(run) run(6, 1)
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

INLINE Shape shape_of(const int64_t *images, const int64_t *output, int64_t above, int64_t left) {
    return (Shape){images[0], images[1], images[2], images[3], output[1], output[2], output[3], above, left};
}

// Arguments: images, kernel; results: output, scratch; attributes: above, left, m, turned.
EXPORT XLA_FFI_Error *winograd_forward(XLA_FFI_CallFrame *frame) {
    if (is_query(frame)) return NULL;
    XLA_FFI_Buffer *images = argument(frame, 0), *kernel = argument(frame, 1), *output = result(frame, 0);
    Shape shape = shape_of(images->dims, output->dims, attribute(frame, 0), attribute(frame, 1));
    int64_t m = attribute(frame, 2), turned = attribute(frame, 3);
    float *scratch = result(frame, 1)->data;
#define FORWARD2(rows, vectors) forward(2, rows, vectors, images->data, kernel->data, output->data, scratch, shape, turned)
#define FORWARD4(rows, vectors) forward(4, rows, vectors, images->data, kernel->data, output->data, scratch, shape, turned)
    if (m == 2)
        BY_FEATURES(FORWARD2);
    else
        BY_FEATURES(FORWARD4);
    return NULL;
}

// Arguments: images, gradient of the output; results: gradient of the kernel, scratch; attributes: above, left, m.
EXPORT XLA_FFI_Error *winograd_kernel_grad(XLA_FFI_CallFrame *frame) {
    if (is_query(frame)) return NULL;
    XLA_FFI_Buffer *images = argument(frame, 0), *grad = argument(frame, 1), *output = result(frame, 0);
    Shape shape = shape_of(images->dims, grad->dims, attribute(frame, 0), attribute(frame, 1));
    float *scratch = result(frame, 1)->data;
#define GRAD2(rows, vectors) kernel_grad(2, vectors, images->data, grad->data, output->data, scratch, shape)
#define GRAD4(rows, vectors) kernel_grad(4, vectors, images->data, grad->data, output->data, scratch, shape)
    if (attribute(frame, 2) == 2)
        BY_FEATURES(GRAD2);
    else
        BY_FEATURES(GRAD4);
    return NULL;
}

EXPORT int64_t winograd_floats(int m, int64_t channels, int64_t features, int is_grad) {
    Shape shape = {.channels = channels, .features = features};
    return is_grad ? kernel_grad_floats(m, shape) : forward_floats(m, shape);
}
