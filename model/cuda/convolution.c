/* convolution.c: T(x, w, y) = <conv(x, w), y> and its gradients, by cuDNN, channels last.
 *
 * conv is cuDNN's forward, conv_x its gradient by the data, conv_w by the filter. Where a filter covers the whole image, or
 * one pixel, all three are matrix products. Where cuDNN has nothing for a shape, or refuses at the first run what it had proposed,
 * they are matrix products over patches (patches.c); ISO_CUDA_PATCHES: everywhere. An engine of cuDNN's (engine.h) is chosen once for each
 * shape: by its heuristics, or ISO_CUDA_FIND: by measuring those that they propose. */
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/memory.h"
#include "model/cuda/cuda.h"
#include "model/graph/axes.h"

enum { WORKSPACE_ALIGNMENT = 256 }; /* a plan aligns for vectors, cudaMalloc like this */

typedef iso_cuda_shapes shapes;

typedef struct convolution {
    iso_op op;
    bool tf32;
    shapes of;
    iso_cuda_engine engine;
    size_t workspace;
    bool by_patches;
    void *patches; /* where cuDNN refused while running; not its own */
} convolution;

static struct {
    convolution *at;
    size_t count, capacity;
    void *patches;      /* [room] for those that cuDNN refused while running, one after the other; graphs know its place */
    size_t room;
    int refused;        /* of these are by patches because cuDNN would not */
    iso_error why;      /* the first of them */
} known;

static shapes shapes_of(iso_op op, const iso_call *call)
{
    const iso_shape *a = &call->in[0].shape, *b = &call->in[1].shape, *out = &call->out.shape;
    shapes s = {.stride = (int)call->attr.i[0], .pad = (int)call->attr.i[1]};
    s.x = op == ISO_OP_CONV_X ? *out : *a;
    s.w = op == ISO_OP_CONV_W ? *out : *b;
    s.y = op == ISO_OP_CONV ? *out : op == ISO_OP_CONV_X ? *a : *b;
    return s;
}

/* --- as a matrix product: rows of y and of x meet one to one */

static bool is_product(const shapes *s)
{
    bool whole = s->pad == 0 && s->y.dim[1] == 1 && s->y.dim[2] == 1 && s->w.dim[1] == s->x.dim[1] && s->w.dim[2] == s->x.dim[2];
    bool pixel = s->pad == 0 && s->stride == 1 && s->w.dim[1] == 1 && s->w.dim[2] == 1;
    return whole || pixel;
}

/* x [rows, K], w [O, K], y [rows, O]: y = x wT, x = y w, w = yT x. */
static iso_cuda_gemm product_of(iso_op op, const shapes *s, const iso_call *call)
{
    const int64_t rows = s->y.dim[0] * s->y.dim[1] * s->y.dim[2], outputs = s->y.dim[3];
    const int64_t inputs = s->w.dim[1] * s->w.dim[2] * s->w.dim[3];
    iso_cuda_gemm g = {.a = call->in[0].data, .b = call->in[1].data, .out = call->out.data, .batch = 1};
    if (op == ISO_OP_CONV) {
        g.m = rows, g.n = outputs, g.k = inputs;
        g.transpose_b = true;
    } else if (op == ISO_OP_CONV_X) {
        g.m = rows, g.n = inputs, g.k = outputs;
    } else { /* the operands are x and y */
        g.a = call->in[1].data, g.b = call->in[0].data;
        g.m = outputs, g.n = inputs, g.k = rows;
        g.transpose_a = true;
    }
    return g;
}

/* The weights' gradient of a layer to or from few channels, as of colours: few sums over every pixel of a batch that nearly cancel, so in double. */
static bool is_few(iso_op op, const shapes *s)
{
    return op == ISO_OP_CONV_W && is_product(s) && (s->y.dim[3] <= ISO_CUDA_FEW || iso_row_length(&s->w) <= ISO_CUDA_FEW);
}

static iso_cuda_outer outer_of(const shapes *s, const iso_call *call, size_t *bytes)
{
    const int64_t inputs = iso_row_length(&s->w), outputs = s->y.dim[3];
    const void *x = call->in[0].data, *y = call->in[1].data;
    iso_cuda_outer o = {.to = call->out.data, .partial = call->workspace, .rows = s->y.dim[0] * s->y.dim[1] * s->y.dim[2]};
    if (outputs <= ISO_CUDA_FEW) o.few = y, o.many = x, o.fews = (int)outputs, o.columns = inputs, o.few_stride = inputs, o.many_stride = 1;
    else o.few = x, o.many = y, o.fews = (int)inputs, o.columns = outputs, o.few_stride = 1, o.many_stride = inputs;
    *bytes = iso_cuda_outer_plan(&o);
    return o;
}

/* --- by cuDNN */

static bool same(const convolution *c, iso_op op, bool tf32, const shapes *s)
{
    return c->op == op && c->tf32 == tf32 && c->of.stride == s->stride && c->of.pad == s->pad && iso_shape_equal(&c->of.x, &s->x) &&
           iso_shape_equal(&c->of.w, &s->w) && iso_shape_equal(&c->of.y, &s->y);
}

static convolution *find(iso_op op, bool tf32, const shapes *s)
{
    for (size_t i = 0; i < known.count; i++)
        if (same(&known.at[i], op, tf32, s)) return &known.at[i];
    return NULL;
}

static size_t bytes_of(const iso_shape *s) { return (size_t)iso_shape_count(s) * sizeof(float); }

/* Whose memory begins where. */
static iso_cuda_places places_of(const convolution *c, const iso_call *call, void *work)
{
    void *a = call->in[0].data, *b = call->in[1].data, *out = call->out.data;
    return c->op == ISO_OP_CONV ? (iso_cuda_places){a, b, out, work} : c->op == ISO_OP_CONV_X ? (iso_cuda_places){out, b, a, work} : (iso_cuda_places){a, out, b, work};
}

/* Memory to measure with. */
typedef struct trial {
    iso_cuda_places at;
    void *memory;
    cudaEvent_t begin, end;
} trial;

static void trial_end(trial *t)
{
    if (t->memory) (void)cudaFree(t->memory);
    if (t->begin) (void)cudaEventDestroy(t->begin);
    if (t->end) (void)cudaEventDestroy(t->end);
}

static size_t aligned(size_t bytes) { return (bytes + WORKSPACE_ALIGNMENT - 1) & ~(size_t)(WORKSPACE_ALIGNMENT - 1); }

/* false: there is no memory for it now. */
static bool trial_begin(trial *t, const shapes *s)
{
    const size_t x = aligned(bytes_of(&s->x)), w = aligned(bytes_of(&s->w)), y = aligned(bytes_of(&s->y));
    *t = (trial){.memory = NULL};
    if (cudaMalloc(&t->memory, x + w + y) == cudaSuccess && cudaEventCreate(&t->begin) == cudaSuccess && cudaEventCreate(&t->end) == cudaSuccess &&
        cudaMemsetAsync(t->memory, 0, x + w + y, iso_cuda_get()->stream) == cudaSuccess) {
        t->at = (iso_cuda_places){.x = t->memory, .w = (char *)t->memory + x, .y = (char *)t->memory + x + w};
        return true;
    }
    (void)cudaGetLastError();
    trial_end(t);
    return false;
}

/* iso_cuda_measure: once to warm up, then some times. */
static double seconds_of(const iso_cuda_engine *e, void *context)
{
    enum { TIMES = 3 };
    trial *t = context;
    const iso_cuda *c = iso_cuda_get();
    float milliseconds = 0;
    bool ok = !e->workspace || cudaMalloc(&t->at.workspace, e->workspace) == cudaSuccess;
    for (int i = 0; i <= TIMES && ok; i++) {
        if (i == 1) ok = cudaEventRecord(t->begin, c->stream) == cudaSuccess;
        ok = ok && iso_cuda_engine_run(c->dnn, e, &t->at) == CUDNN_STATUS_SUCCESS;
    }
    ok = ok && cudaEventRecord(t->end, c->stream) == cudaSuccess && cudaEventSynchronize(t->end) == cudaSuccess &&
         cudaEventElapsedTime(&milliseconds, t->begin, t->end) == cudaSuccess;
    (void)cudaStreamSynchronize(c->stream);
    (void)cudaGetLastError();
    if (t->at.workspace) (void)cudaFree(t->at.workspace);
    t->at.workspace = NULL;
    return ok ? milliseconds / 1e3 / TIMES : -1;
}

static cudnnStatus_t choose(convolution *c)
{
    const iso_cuda_target on = {.handle = iso_cuda_get()->dnn};
    trial t;
    const bool measured = getenv("ISO_CUDA_FIND") && trial_begin(&t, &c->of);
    const cudnnStatus_t status = iso_cuda_engine_choose(&on, c->op, &c->of, c->tf32, measured ? seconds_of : NULL, &t, &c->engine);
    if (measured) trial_end(&t);
    c->workspace = c->engine.workspace;
    return status;
}

static bool small(const iso_shape *s)
{
    return iso_shape_count(s) <= INT_MAX;
}

static iso_status refuse(const convolution *c, cudnnStatus_t status, iso_error *err)
{
    char x[96], w[96], y[96];
    return iso_fail(err, ISO_E_UNSUPPORTED, "cuDNN has no %s for x %s, w %s, y %s, stride %d, padding %d: %s", iso_op_name(c->op),
                    iso_shape_text(&c->of.x, x), iso_shape_text(&c->of.w, w), iso_shape_text(&c->of.y, y), c->of.stride, c->of.pad,
                    iso_cuda_dnn_reason(status).text);
}

/* Whether cuDNN says that it has nothing for this, rather than that it failed. */
static bool has_none(cudnnStatus_t status)
{
    enum { GROUP = 1000 }; /* of cuDNN 9's codes */
    if (status == CUDNN_STATUS_NOT_SUPPORTED_INCOMPATIBLE_CUDA_DRIVER || status == CUDNN_STATUS_NOT_SUPPORTED_INCOMPATIBLE_CUDART ||
        status == CUDNN_STATUS_NOT_SUPPORTED_RUNTIME_PREREQUISITE_MISSING || status == CUDNN_STATUS_NOT_SUPPORTED_SUBLIBRARY_UNAVAILABLE)
        return false; /* its installation is broken */
    return status / GROUP == CUDNN_STATUS_NOT_SUPPORTED / GROUP || status / GROUP == CUDNN_STATUS_BAD_PARAM / GROUP;
}

static void note(const convolution *c, cudnnStatus_t status)
{
    if (!known.refused++) (void)refuse(c, status, &known.why);
}

void iso_cuda_convolve_tell(char *text, size_t size)
{
    if (size) text[0] = '\0';
    if (known.refused) snprintf(text, size, "%d convolutions are products over patches: %s", known.refused, known.why.message);
}

iso_status iso_cuda_convolve_prepare(iso_op op, const iso_call *call, bool tf32, iso_error *err)
{
    const shapes s = shapes_of(op, call);
    if (is_product(&s)) {
        const iso_cuda_gemm g = product_of(op, &s, call);
        return iso_cuda_gemm_check(&g, err);
    }
    if (find(op, tf32, &s)) return ISO_OK;
    if (!small(&s.x) || !small(&s.y) || !small(&s.w))
        return iso_fail(err, ISO_E_UNSUPPORTED, "a convolution of more than 2^31 numbers is too large for cuDNN");
    if (!iso_grow(&known.at, &known.capacity, known.count + 1, sizeof *known.at)) return iso_fail_memory(err);
    convolution c = {.op = op, .tf32 = tf32, .of = s};
    const bool wanted = getenv("ISO_CUDA_PATCHES") != NULL;
    const cudnnStatus_t status = wanted ? CUDNN_STATUS_NOT_SUPPORTED : choose(&c);
    if (status != CUDNN_STATUS_SUCCESS) {
        if (!has_none(status) || iso_cuda_patches_check(&s, err) != ISO_OK) return refuse(&c, status, err);
        if (!wanted) note(&c, status);
        c = (convolution){.op = op, .tf32 = tf32, .of = s, .by_patches = true, .workspace = iso_cuda_patches_workspace(&s)};
    }
    known.at[known.count++] = c;
    return ISO_OK;
}

size_t iso_cuda_convolve_workspace(iso_op op, const iso_call *call, bool tf32)
{
    const shapes s = shapes_of(op, call);
    size_t bytes;
    if (is_few(op, &s)) {
        (void)outer_of(&s, call, &bytes);
        return bytes;
    }
    const convolution *c = is_product(&s) ? NULL : find(op, tf32, &s);
    return c && c->workspace ? c->workspace + WORKSPACE_ALIGNMENT : 0;
}

/* From cuDNN to patches, whose memory the plan does not have. Not within a graph: there cuDNN ran well before. */
static bool give_up(convolution *c, cudnnStatus_t status)
{
    enum cudaStreamCaptureStatus capturing = cudaStreamCaptureStatusNone;
    iso_error ignored = {0};
    if (!has_none(status) || iso_cuda_get()->failure.status != ISO_OK || iso_cuda_patches_check(&c->of, &ignored) != ISO_OK) return false;
    if (cudaStreamIsCapturing(iso_cuda_get()->stream, &capturing) != cudaSuccess || capturing != cudaStreamCaptureStatusNone) return false;
    const size_t bytes = iso_cuda_patches_workspace(&c->of);
    void *larger = NULL;
    if (bytes > known.room && cudaMalloc(&larger, bytes) != cudaSuccess) {
        (void)cudaGetLastError();
        return false;
    }
    if (larger) known.patches = larger, known.room = bytes;
    c->patches = known.patches;
    iso_cuda_get()->alone = true;
    return c->by_patches = true;
}

void iso_cuda_convolve(iso_op op, const iso_call *call, bool tf32)
{
    const shapes s = shapes_of(op, call);
    size_t bytes;
    if (is_few(op, &s)) {
        const iso_cuda_outer o = outer_of(&s, call, &bytes);
        (void)iso_cuda_ok(iso_cuda_outer_run(&o, iso_cuda_get()->stream), "a convolution's gradient");
        return;
    }
    if (is_product(&s)) {
        const iso_cuda_gemm g = product_of(op, &s, call);
        iso_cuda_gemm_run(&g, tf32);
        return;
    }
    convolution *c = find(op, tf32, &s);
    if (!c) {
        (void)iso_cuda_dnn_ok(CUDNN_STATUS_NOT_INITIALIZED, "a convolution that was not prepared");
        return;
    }
    void *work = (void *)(((uintptr_t)call->workspace + WORKSPACE_ALIGNMENT - 1) & -(uintptr_t)WORKSPACE_ALIGNMENT);
    if (!c->by_patches) {
        iso_cuda_shared_begin(ISO_CUDA_DNN);
        const iso_cuda_places at = places_of(c, call, work);
        const cudnnStatus_t status = iso_cuda_engine_run(iso_cuda_get()->dnn, &c->engine, &at);
        iso_cuda_shared_end(ISO_CUDA_DNN);
        if (status == CUDNN_STATUS_SUCCESS || !give_up(c, status)) {
            (void)iso_cuda_dnn_ok(status, "a convolution");
            return;
        }
        note(c, status);
    }
    iso_cuda_patches_run(op, &s, call, c->patches ? c->patches : work, tf32);
}
