// Vectors of channels, shapes, and where a convolution reads and writes.
#pragma once
#include <stdint.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))
#define LANES 16
#define UNROLL _Pragma("GCC unroll 24")
#ifdef __AVX512F__
#define WIDEST 4  // vectors of features that a product takes at once: as many sums as there are registers
#define PIXELS 8  // of a row that a direct convolution takes at once
#else
#define WIDEST 1
#define PIXELS 4
#endif
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
