#include "model/cuda/engine.h"

#include <string.h>

#define WORKSPACE_LIMIT ((int64_t)1 << 30)
enum { PROPOSALS = 32, MEASURED = 12 /* at most */, NOTES = 32, ALIGNMENT = 16 };
enum { X = 'x', W = 'w', Y = 'y' }; /* the tensors' numbers */

typedef cudnnBackendDescriptor_t descriptor;

/* ---- descriptors; after a failure nothing more is done ---- */

typedef struct making {
    iso_cuda_engine *e;
    cudnnStatus_t status;
} making;

static descriptor make(making *m, cudnnBackendDescriptorType_t type)
{
    descriptor d = NULL;
    if (m->status == CUDNN_STATUS_SUCCESS && m->e->count == ISO_CUDA_DESCRIPTORS) m->status = CUDNN_STATUS_INTERNAL_ERROR;
    if (m->status == CUDNN_STATUS_SUCCESS) m->status = cudnnBackendCreateDescriptor(type, &d);
    if (m->status == CUDNN_STATUS_SUCCESS) m->e->made[m->e->count++] = d;
    return d;
}

static void set(making *m, descriptor d, cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type, int64_t n, const void *value)
{
    if (m->status == CUDNN_STATUS_SUCCESS) m->status = cudnnBackendSetAttribute(d, name, type, n, value);
}

static void set_part(making *m, descriptor d, cudnnBackendAttributeName_t name, descriptor part)
{
    set(m, d, name, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &part);
}

static void finish(making *m, descriptor d)
{
    if (m->status == CUDNN_STATUS_SUCCESS) m->status = cudnnBackendFinalize(d);
}

/* How many there are, at most `most`, in `out`; fewer than 0: it failed. */
static int64_t get(descriptor d, cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type, int64_t most, void *out)
{
    int64_t n = 0;
    if (cudnnBackendGetAttribute(d, name, type, most, &n, out) != CUDNN_STATUS_SUCCESS) return -1;
    return n < most ? n : most;
}

/* Of channels last; cuDNN names the axes N, C, H, W whatever their order in memory. */
static descriptor make_tensor(making *m, int64_t number, const iso_shape *s)
{
    const int64_t h = s->dim[1], w = s->dim[2], c = s->dim[3], alignment = ALIGNMENT;
    const int64_t size[4] = {s->dim[0], c, h, w}, stride[4] = {h * w * c, 1, w * c, c};
    const cudnnDataType_t type = CUDNN_DATA_FLOAT;
    descriptor d = make(m, CUDNN_BACKEND_TENSOR_DESCRIPTOR);
    set(m, d, CUDNN_ATTR_TENSOR_DATA_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &type);
    set(m, d, CUDNN_ATTR_TENSOR_DIMENSIONS, CUDNN_TYPE_INT64, 4, size);
    set(m, d, CUDNN_ATTR_TENSOR_STRIDES, CUDNN_TYPE_INT64, 4, stride);
    set(m, d, CUDNN_ATTR_TENSOR_UNIQUE_ID, CUDNN_TYPE_INT64, 1, &number);
    set(m, d, CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, CUDNN_TYPE_INT64, 1, &alignment);
    finish(m, d);
    return d;
}

static descriptor make_window(making *m, const iso_cuda_shapes *s)
{
    const cudnnDataType_t type = CUDNN_DATA_FLOAT;
    const cudnnConvolutionMode_t mode = CUDNN_CROSS_CORRELATION;
    const int64_t axes = 2, pad[2] = {s->pad, s->pad}, stride[2] = {s->stride, s->stride}, one[2] = {1, 1};
    descriptor d = make(m, CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR);
    set(m, d, CUDNN_ATTR_CONVOLUTION_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &type);
    set(m, d, CUDNN_ATTR_CONVOLUTION_CONV_MODE, CUDNN_TYPE_CONVOLUTION_MODE, 1, &mode);
    set(m, d, CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS, CUDNN_TYPE_INT64, 1, &axes);
    set(m, d, CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, CUDNN_TYPE_INT64, axes, pad);
    set(m, d, CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, CUDNN_TYPE_INT64, axes, pad);
    set(m, d, CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, CUDNN_TYPE_INT64, axes, stride);
    set(m, d, CUDNN_ATTR_CONVOLUTION_DILATIONS, CUDNN_TYPE_INT64, axes, one);
    finish(m, d);
    return d;
}

/* The three operations differ in names only. */
typedef struct operation {
    cudnnBackendDescriptorType_t type;
    cudnnBackendAttributeName_t x, w, y, window, alpha, beta;
} operation;

static operation operation_of(iso_op op)
{
    static const operation forward = {
        CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X,
        CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W,             CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y,
        CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC,     CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA,
        CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_BETA};
    static const operation data = {
        CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DX,
        CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_W,                  CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DY,
        CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_CONV_DESC,          CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_ALPHA,
        CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_BETA};
    static const operation filter = {
        CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_FILTER_DESCRIPTOR, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_X,
        CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DW,                 CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DY,
        CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_CONV_DESC,          CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_ALPHA,
        CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_BETA};
    return op == ISO_OP_CONV ? forward : op == ISO_OP_CONV_X ? data : filter;
}

/* A graph of one operation. */
static descriptor make_graph(making *m, const iso_cuda_target *on, iso_op op, const iso_cuda_shapes *s)
{
    const operation o = operation_of(op);
    const float one = 1, zero = 0;
    descriptor x = make_tensor(m, X, &s->x), w = make_tensor(m, W, &s->w), y = make_tensor(m, Y, &s->y), window = make_window(m, s);
    descriptor d = make(m, o.type);
    set_part(m, d, o.x, x);
    set_part(m, d, o.w, w);
    set_part(m, d, o.y, y);
    set_part(m, d, o.window, window);
    set(m, d, o.alpha, CUDNN_TYPE_FLOAT, 1, &one);
    set(m, d, o.beta, CUDNN_TYPE_FLOAT, 1, &zero);
    finish(m, d);
    descriptor graph = make(m, CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR);
    if (on->handle) set(m, graph, CUDNN_ATTR_OPERATIONGRAPH_HANDLE, CUDNN_TYPE_HANDLE, 1, &on->handle);
    set_part(m, graph, CUDNN_ATTR_OPERATIONGRAPH_OPS, d);
    finish(m, graph);
    return graph;
}

/* ---- what cuDNN proposes ---- */

static void set_properties(making *m, const iso_cuda_target *on, descriptor d, bool plan)
{
#if CUDNN_VERSION >= 90800
    if (on->properties) set_part(m, d, plan ? CUDNN_ATTR_EXECUTION_PLAN_DEVICEPROP : CUDNN_ATTR_ENGINEHEUR_DEVICEPROP, on->properties);
#else
    (void)d, (void)plan;
    if (on->properties) m->status = CUDNN_STATUS_NOT_SUPPORTED;
#endif
}

/* Engine configurations, the best first. */
typedef struct proposals {
    descriptor at[PROPOSALS];
    int64_t count;
} proposals;

static void propose(making *m, const iso_cuda_target *on, descriptor graph, cudnnBackendHeurMode_t mode, proposals *p)
{
    descriptor d = make(m, CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR);
    set_part(m, d, CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, graph);
    set(m, d, CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_TYPE_HEUR_MODE, 1, &mode);
    set_properties(m, on, d, false);
    finish(m, d);
    for (int i = 0; i < PROPOSALS && m->status == CUDNN_STATUS_SUCCESS; i++)
        m->status = cudnnBackendCreateDescriptor(CUDNN_BACKEND_ENGINECFG_DESCRIPTOR, &p->at[i]);
    if (m->status == CUDNN_STATUS_SUCCESS)
        m->status = cudnnBackendGetAttribute(d, CUDNN_ATTR_ENGINEHEUR_RESULTS, CUDNN_TYPE_BACKEND_DESCRIPTOR, PROPOSALS, &p->count, p->at);
    if (m->status != CUDNN_STATUS_SUCCESS) p->count = 0;
    if (p->count > PROPOSALS) p->count = PROPOSALS;
}

static void destroy(descriptor *d)
{
    if (*d) (void)cudnnBackendDestroyDescriptor(*d);
    *d = NULL;
}

static void proposals_free(proposals *p)
{
    for (int i = 0; i < PROPOSALS; i++) destroy(&p->at[i]);
}

/* What is said of a configuration's engine; false: nothing, or that it may not be used. */
static bool describe(descriptor configuration, bool tf32, iso_cuda_engine *e)
{
    cudnnBackendNumericalNote_t note[NOTES];
    descriptor engine = NULL;
    bool ok = cudnnBackendCreateDescriptor(CUDNN_BACKEND_ENGINE_DESCRIPTOR, &engine) == CUDNN_STATUS_SUCCESS &&
              get(configuration, CUDNN_ATTR_ENGINECFG_ENGINE, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &engine) == 1 &&
              get(engine, CUDNN_ATTR_ENGINE_GLOBAL_INDEX, CUDNN_TYPE_INT64, 1, &e->index) == 1;
    const int64_t notes = ok ? get(engine, CUDNN_ATTR_ENGINE_NUMERICAL_NOTE, CUDNN_TYPE_NUMERICAL_NOTE, NOTES, note) : -1;
    destroy(&engine);
    e->same_bits = true;
    e->tensor_cores = false;
    for (int64_t i = 0; i < notes; i++) {
        if (note[i] == CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC) e->same_bits = false;
        if (note[i] == CUDNN_NUMERICAL_NOTE_TENSOR_CORE) e->tensor_cores = true;
        if (note[i] == CUDNN_NUMERICAL_NOTE_DOWN_CONVERT_INPUTS || note[i] == CUDNN_NUMERICAL_NOTE_REDUCED_PRECISION_REDUCTION) ok = false;
    }
    return ok && notes >= 0 && (tf32 || !e->tensor_cores);
}

/* The plan of a configuration, in e->plan. */
static cudnnStatus_t make_plan(const iso_cuda_target *on, descriptor configuration, iso_cuda_engine *e)
{
    making m = {e, cudnnBackendCreateDescriptor(CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR, &e->plan)};
    int64_t bytes = 0;
    if (on->handle) set(&m, e->plan, CUDNN_ATTR_EXECUTION_PLAN_HANDLE, CUDNN_TYPE_HANDLE, 1, &on->handle);
    set_part(&m, e->plan, CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, configuration);
    set_properties(&m, on, e->plan, true);
    finish(&m, e->plan);
    if (m.status == CUDNN_STATUS_SUCCESS && get(e->plan, CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE, CUDNN_TYPE_INT64, 1, &bytes) != 1) m.status = CUDNN_STATUS_INTERNAL_ERROR;
    if (m.status == CUDNN_STATUS_SUCCESS && bytes > WORKSPACE_LIMIT) m.status = CUDNN_STATUS_NOT_SUPPORTED;
    if (m.status != CUDNN_STATUS_SUCCESS) destroy(&e->plan);
    e->workspace = m.status == CUDNN_STATUS_SUCCESS ? (size_t)bytes : 0;
    return m.status;
}

/* ---- one of them ---- */

/* The best so far, and the configuration that its plan is of. */
typedef struct best {
    iso_cuda_engine engine;
    descriptor *configuration;
    double seconds;
    int tried;
    cudnnStatus_t status; /* why there is none */
} best;

/* Keeps a configuration's plan if it can be made and is faster. */
static void try_one(best *b, const iso_cuda_target *on, descriptor *configuration, const iso_cuda_engine *described, iso_cuda_measure *measure, void *context)
{
    iso_cuda_engine e = *described;
    const cudnnStatus_t status = make_plan(on, *configuration, &e);
    if (status != CUDNN_STATUS_SUCCESS) {
        if (!b->configuration) b->status = status;
        return;
    }
    const double seconds = measure ? measure(&e, context) : 0;
    b->tried++;
    if (seconds < 0 || (b->configuration && seconds >= b->seconds)) {
        destroy(&e.plan);
        return;
    }
    destroy(&b->engine.plan);
    *b = (best){e, configuration, seconds, b->tried, CUDNN_STATUS_SUCCESS};
}

/* Its own proposals, then those that always work; each time those with the same bits first. */
static void try_all(best *b, const iso_cuda_target *on, proposals p[2], bool tf32, iso_cuda_measure *measure, void *context)
{
    for (int pass = 0; pass < 2 && !b->configuration; pass++)
        for (int list = 0; list < 2 && !b->configuration; list++)
            for (int64_t i = 0; i < p[list].count && (measure ? b->tried < MEASURED : !b->configuration); i++) {
                iso_cuda_engine e = {.plan = NULL};
                if (describe(p[list].at[i], tf32, &e) && e.same_bits == (pass == 0)) try_one(b, on, &p[list].at[i], &e, measure, context);
            }
}

cudnnStatus_t iso_cuda_engine_choose(const iso_cuda_target *on, iso_op op, const iso_cuda_shapes *s, bool tf32, iso_cuda_measure *measure,
                                     void *context, iso_cuda_engine *out)
{
    iso_cuda_engine parts = {.plan = NULL};
    making m = {&parts, CUDNN_STATUS_SUCCESS};
    proposals p[2] = {{.count = 0}, {.count = 0}};
    best b = {.status = CUDNN_STATUS_NOT_SUPPORTED};
    descriptor graph = make_graph(&m, on, op, s);
    if (m.status != CUDNN_STATUS_SUCCESS) goto failed;
    propose(&m, on, graph, CUDNN_HEUR_MODE_A, &p[0]);
    const cudnnStatus_t first = m.status;
    m.status = CUDNN_STATUS_SUCCESS;
    propose(&m, on, graph, CUDNN_HEUR_MODE_FALLBACK, &p[1]);
    if (first != CUDNN_STATUS_SUCCESS && m.status != CUDNN_STATUS_SUCCESS) goto failed;
    try_all(&b, on, p, tf32, measure, context);
    m.status = b.status;
    if (!b.configuration) goto failed;
    *out = b.engine;
    memcpy(out->made, parts.made, sizeof out->made);
    out->count = parts.count;
    out->made[out->count++] = *b.configuration;
    *b.configuration = NULL;
    parts.count = 0;
failed:
    for (int i = 0; i < 2; i++) proposals_free(&p[i]);
    iso_cuda_engine_free(&parts);
    return m.status;
}

cudnnStatus_t iso_cuda_engine_run(cudnnHandle_t handle, const iso_cuda_engine *e, const iso_cuda_places *at)
{
    const int64_t number[3] = {X, W, Y};
    void *const place[3] = {at->x, at->w, at->y};
    iso_cuda_engine pack = {.plan = NULL};
    making m = {&pack, CUDNN_STATUS_SUCCESS};
    descriptor d = make(&m, CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR);
    set(&m, d, CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, CUDNN_TYPE_INT64, 3, number);
    set(&m, d, CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, CUDNN_TYPE_VOID_PTR, 3, place);
    set(&m, d, CUDNN_ATTR_VARIANT_PACK_WORKSPACE, CUDNN_TYPE_VOID_PTR, 1, &at->workspace);
    finish(&m, d);
    if (m.status == CUDNN_STATUS_SUCCESS) m.status = cudnnBackendExecute(handle, e->plan, d);
    iso_cuda_engine_free(&pack);
    return m.status;
}

void iso_cuda_engine_free(iso_cuda_engine *e)
{
    destroy(&e->plan);
    while (e->count > 0) destroy(&e->made[--e->count]);
}
