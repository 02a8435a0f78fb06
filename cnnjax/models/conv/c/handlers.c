// 3x3 convolutions with stride 1, channels last, float32: by Winograd's method, or direct with up to four channels.
// Channels and features are divisible by LANES. Bias, ReLU and 2x2 max-pool may follow: then only their result is
// written.
#include <stdatomic.h>
#include <stdlib.h>
#include "direct.h"
#include "winograd.h"
#include "xla/ffi/api/c_api.h"

#define EXPORT __attribute__((visibility("default")))

// The functions of the other files are compiled for each size of tile, or number of channels, and for the rows and
// vectors that a product takes at once. These macros choose: run(m, rows, vectors) and run(channels, vectors).
#if WIDEST == 4
#define BY_FEATURES(run, m)                \
    do {                                   \
        if (shape.features % 64 == 0)      \
            run(m, 6, 4);                  \
        else if (shape.features % 32 == 0) \
            run(m, 12, 2);                 \
        else                               \
            run(m, 24, 1);                 \
    } while (0)
#define DIRECT_BY_FEATURES(run, channels)  \
    do {                                   \
        if (shape.features % 32 == 0)      \
            run(channels, 2);              \
        else                               \
            run(channels, 1);              \
    } while (0)
#else
#define BY_FEATURES(run, m) run(m, 6, 1)
#define DIRECT_BY_FEATURES(run, channels) run(channels, 1)
#endif
#define BY_TILE(run)             \
    do {                         \
        if (task->m == 2)        \
            BY_FEATURES(run, 2); \
        else                     \
            BY_FEATURES(run, 4); \
    } while (0)

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
#define KERNEL(m, rows, vectors) \
    transform_kernel(m, vectors * LANES, task->kernel, shape, task->turned, task->scratch, part, task->parts)
    BY_TILE(KERNEL);
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
    BY_TILE(FORWARD);
}

static void direct_part(void *pointer, int part) {
    Task *task = pointer;
    Shape shape = task->shape;
    int64_t first = shape.batch * part / task->parts, last = shape.batch * (part + 1) / task->parts;
    float *own = task->scratch + part * direct_floats(shape);
#define DIRECT(channels, vectors) \
    direct_forward(vectors, task->images.values, task->kernel, task->output, own, shape, first, last)
    DIRECT_BY_FEATURES(DIRECT, shape.channels);
}

static void kernel_grad_part(void *pointer, int part) {
    Task *task = pointer;
    Shape shape = task->shape;
    int m = task->m;
    int64_t tiles = tile_count(m, shape);
    int64_t first = first_tile(m, tiles, part, task->parts), last = first_tile(m, tiles, part + 1, task->parts);
    float *own = task->scratch + part * kernel_grad_floats(m, shape);
#define GRAD(m, rows, vectors) kernel_grad(m, vectors, task->images, task->grad, own, shape, first, last)
    BY_TILE(GRAD);
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
#define DIRECT_GRAD(channels, vectors) \
    direct_kernel_grad(channels, vectors, images, task->grad, own, shape, first, last)
    if (shape.channels == 1)
        DIRECT_BY_FEATURES(DIRECT_GRAD, 1);
    else if (shape.channels == 2)
        DIRECT_BY_FEATURES(DIRECT_GRAD, 2);
    else if (shape.channels == 3)
        DIRECT_BY_FEATURES(DIRECT_GRAD, 3);
    else
        DIRECT_BY_FEATURES(DIRECT_GRAD, 4);
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
