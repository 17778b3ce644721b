/* emulated_cudnn.c: cuDNN's graph interface for emulator.c: one convolution, by one of several engines. */
#include <cudnn.h>
#include <math.h>
#include <string.h>

#include "tests/cuda/emulated.h"

static int handle; /* all handles point here */

size_t cudnnGetVersion(void) { return CUDNN_VERSION; }
bool emulated_refusal;
int emulated_engine = -1;
void cudnnGetLastErrorString(char *message, size_t size) { snprintf(message, size, "%s", "emulated details"); }
const char *cudnnGetErrorString(cudnnStatus_t s) { return s == CUDNN_STATUS_SUCCESS ? "success" : "emulated failure"; }
cudnnStatus_t cudnnCreate(cudnnHandle_t *h)
{
    *h = (cudnnHandle_t)&handle;
    return CUDNN_STATUS_SUCCESS;
}
cudnnStatus_t cudnnDestroy(cudnnHandle_t h) { return h ? CUDNN_STATUS_SUCCESS : CUDNN_STATUS_BAD_PARAM; }
cudnnStatus_t cudnnSetStream(cudnnHandle_t h, cudaStream_t s) { return h && s ? CUDNN_STATUS_SUCCESS : CUDNN_STATUS_BAD_PARAM; }

/* --- descriptors: attributes by name. Destroyed ones stay, so that their use is seen. */

enum { ATTRIBUTES = 8, BYTES = 64 };
typedef struct attribute {
    cudnnBackendAttributeName_t name;
    int64_t n;
    char bytes[BYTES];
} attribute;
typedef struct described {
    cudnnBackendDescriptorType_t type;
    bool finished, destroyed;
    int count;
    attribute at[ATTRIBUTES];
    int proposal;            /* of an engine and its configuration */
    struct described *graph;
} described;

typedef struct rule {
    cudnnBackendAttributeName_t name;
    cudnnBackendDescriptorType_t of;
    cudnnBackendAttributeType_t type;
    int64_t n;
} rule;
#define OPERATION(OF, PREFIX, X, W, Y) \
    {PREFIX##X, OF, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1}, {PREFIX##W, OF, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1}, \
        {PREFIX##Y, OF, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1}, {PREFIX##CONV_DESC, OF, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1}, \
        {PREFIX##ALPHA, OF, CUDNN_TYPE_FLOAT, 1}, {PREFIX##BETA, OF, CUDNN_TYPE_FLOAT, 1}
/* All that can be set, and must be. */
static const rule rules[] = {
    {CUDNN_ATTR_TENSOR_DATA_TYPE, CUDNN_BACKEND_TENSOR_DESCRIPTOR, CUDNN_TYPE_DATA_TYPE, 1},
    {CUDNN_ATTR_TENSOR_DIMENSIONS, CUDNN_BACKEND_TENSOR_DESCRIPTOR, CUDNN_TYPE_INT64, 4},
    {CUDNN_ATTR_TENSOR_STRIDES, CUDNN_BACKEND_TENSOR_DESCRIPTOR, CUDNN_TYPE_INT64, 4},
    {CUDNN_ATTR_TENSOR_UNIQUE_ID, CUDNN_BACKEND_TENSOR_DESCRIPTOR, CUDNN_TYPE_INT64, 1},
    {CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, CUDNN_BACKEND_TENSOR_DESCRIPTOR, CUDNN_TYPE_INT64, 1},
    {CUDNN_ATTR_CONVOLUTION_COMP_TYPE, CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR, CUDNN_TYPE_DATA_TYPE, 1},
    {CUDNN_ATTR_CONVOLUTION_CONV_MODE, CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR, CUDNN_TYPE_CONVOLUTION_MODE, 1},
    {CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS, CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR, CUDNN_TYPE_INT64, 1},
    {CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR, CUDNN_TYPE_INT64, 2},
    {CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR, CUDNN_TYPE_INT64, 2},
    {CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR, CUDNN_TYPE_INT64, 2},
    {CUDNN_ATTR_CONVOLUTION_DILATIONS, CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR, CUDNN_TYPE_INT64, 2},
    OPERATION(CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_, X, W, Y),
    OPERATION(CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_, DX, W, DY),
    OPERATION(CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_FILTER_DESCRIPTOR, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_, X, DW, DY),
    {CUDNN_ATTR_OPERATIONGRAPH_HANDLE, CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR, CUDNN_TYPE_HANDLE, 1},
    {CUDNN_ATTR_OPERATIONGRAPH_OPS, CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1},
    {CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1},
    {CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR, CUDNN_TYPE_HEUR_MODE, 1},
    {CUDNN_ATTR_EXECUTION_PLAN_HANDLE, CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR, CUDNN_TYPE_HANDLE, 1},
    {CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1},
    {CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR, CUDNN_TYPE_INT64, 3},
    {CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR, CUDNN_TYPE_VOID_PTR, 3},
    {CUDNN_ATTR_VARIANT_PACK_WORKSPACE, CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR, CUDNN_TYPE_VOID_PTR, 1},
};
enum { RULES = sizeof rules / sizeof *rules };

static size_t size_of(cudnnBackendAttributeType_t t)
{
    switch (t) {
    case CUDNN_TYPE_INT64: return sizeof(int64_t);
    case CUDNN_TYPE_FLOAT: return sizeof(float);
    case CUDNN_TYPE_DATA_TYPE:
    case CUDNN_TYPE_CONVOLUTION_MODE:
    case CUDNN_TYPE_HEUR_MODE: return sizeof(int);
    default: return sizeof(void *);
    }
}

static const attribute *find(const described *d, cudnnBackendAttributeName_t name)
{
    REQUIRE(d && d->finished && !d->destroyed);
    for (int i = 0; i < d->count; i++)
        if (d->at[i].name == name) return &d->at[i];
    return NULL;
}

/* Value i of an attribute that is there. */
static void read(const described *d, cudnnBackendAttributeName_t name, int i, void *out, size_t size)
{
    const attribute *a = find(d, name);
    REQUIRE(a);
    memcpy(out, a->bytes + (size_t)i * size, size);
}
static int64_t number(const described *d, cudnnBackendAttributeName_t name, int i)
{
    int64_t v;
    read(d, name, i, &v, sizeof v);
    return v;
}
static void *pointer(const described *d, cudnnBackendAttributeName_t name, int i)
{
    void *v;
    read(d, name, i, &v, sizeof v);
    return v;
}

cudnnStatus_t cudnnBackendCreateDescriptor(cudnnBackendDescriptorType_t type, cudnnBackendDescriptor_t *out)
{
    described *d = calloc(1, sizeof *d);
    REQUIRE(d);
    d->type = type;
    *out = d;
    return CUDNN_STATUS_SUCCESS;
}
cudnnStatus_t cudnnBackendDestroyDescriptor(cudnnBackendDescriptor_t descriptor)
{
    described *d = descriptor;
    REQUIRE(d && !d->destroyed);
    d->destroyed = true;
    return CUDNN_STATUS_SUCCESS;
}
cudnnStatus_t cudnnBackendSetAttribute(cudnnBackendDescriptor_t descriptor, cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type,
                                       int64_t n, const void *value)
{
    described *d = descriptor;
    int r = 0;
    while (r < RULES && rules[r].name != name) r++;
    REQUIRE(r < RULES && d && !d->finished && !d->destroyed && rules[r].of == d->type && rules[r].type == type && rules[r].n == n && d->count < ATTRIBUTES);
    attribute *a = &d->at[d->count++];
    REQUIRE((size_t)n * size_of(type) <= BYTES);
    *a = (attribute){.name = name, .n = n};
    memcpy(a->bytes, value, (size_t)n * size_of(type));
    if (type == CUDNN_TYPE_HANDLE) REQUIRE(*(void *const *)value == &handle);
    if (type == CUDNN_TYPE_BACKEND_DESCRIPTOR) REQUIRE((*(described *const *)value)->finished && !(*(described *const *)value)->destroyed);
    if (type == CUDNN_TYPE_DATA_TYPE) REQUIRE(*(const int *)value == CUDNN_DATA_FLOAT);
    if (type == CUDNN_TYPE_CONVOLUTION_MODE) REQUIRE(*(const int *)value == CUDNN_CROSS_CORRELATION);
    return CUDNN_STATUS_SUCCESS;
}

/* --- engines: what is told of them */

typedef struct proposal {
    cudnnBackendHeurMode_t mode;
    int notes;
    cudnnBackendNumericalNote_t note[2];
    int64_t workspace;
    bool no_plan;
    int slow; /* works more than it needs */
} proposal;
static const proposal proposals[] = {
    {CUDNN_HEUR_MODE_A, 2, {CUDNN_NUMERICAL_NOTE_TENSOR_CORE, CUDNN_NUMERICAL_NOTE_DOWN_CONVERT_INPUTS}, 0, false, 0},
    {CUDNN_HEUR_MODE_A, 2, {CUDNN_NUMERICAL_NOTE_TENSOR_CORE, CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC}, 0, false, 0},
    {CUDNN_HEUR_MODE_A, 1, {CUDNN_NUMERICAL_NOTE_TENSOR_CORE}, INT64_C(2) << 30, false, 0},
    {CUDNN_HEUR_MODE_A, 1, {CUDNN_NUMERICAL_NOTE_TENSOR_CORE}, 0, true, 0},
    {CUDNN_HEUR_MODE_A, 1, {CUDNN_NUMERICAL_NOTE_TENSOR_CORE}, 4096, false, 5},
    {CUDNN_HEUR_MODE_A, 1, {CUDNN_NUMERICAL_NOTE_TENSOR_CORE}, 131, false, 0},
    {CUDNN_HEUR_MODE_FALLBACK, 0, {0}, 4096, false, 0},
};
enum { PROPOSED = sizeof proposals / sizeof *proposals };

static cudnnStatus_t results(const described *d, int64_t most, int64_t *n, described **out)
{
    int mode;
    read(d, CUDNN_ATTR_ENGINEHEUR_MODE, 0, &mode, sizeof mode);
    *n = 0;
    for (int i = 0; i < PROPOSED && *n < most; i++) {
        if ((int)proposals[i].mode != mode) continue;
        described *c = out[(*n)++];
        REQUIRE(c && c->type == CUDNN_BACKEND_ENGINECFG_DESCRIPTOR && !c->finished && !c->destroyed);
        c->finished = true;
        c->proposal = i;
        c->graph = pointer(d, CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, 0);
    }
    return CUDNN_STATUS_SUCCESS;
}

static const described *configuration_of(const described *plan) { return pointer(plan, CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, 0); }

cudnnStatus_t cudnnBackendGetAttribute(cudnnBackendDescriptor_t const descriptor, cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type,
                                       int64_t most, int64_t *n, void *out)
{
    const described *d = descriptor;
    REQUIRE(d && d->finished && !d->destroyed && most >= 1);
    const proposal *p = &proposals[d->proposal];
    *n = 1;
    switch (name) {
    case CUDNN_ATTR_ENGINEHEUR_RESULTS:
        REQUIRE(d->type == CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR && type == CUDNN_TYPE_BACKEND_DESCRIPTOR);
        return results(d, most, n, out);
    case CUDNN_ATTR_ENGINECFG_ENGINE:
        REQUIRE(d->type == CUDNN_BACKEND_ENGINECFG_DESCRIPTOR && type == CUDNN_TYPE_BACKEND_DESCRIPTOR);
        described *engine = *(described **)out;
        REQUIRE(engine && engine->type == CUDNN_BACKEND_ENGINE_DESCRIPTOR && !engine->finished);
        engine->finished = true;
        engine->proposal = d->proposal;
        return CUDNN_STATUS_SUCCESS;
    case CUDNN_ATTR_ENGINE_GLOBAL_INDEX:
        REQUIRE(d->type == CUDNN_BACKEND_ENGINE_DESCRIPTOR && type == CUDNN_TYPE_INT64);
        *(int64_t *)out = d->proposal;
        return CUDNN_STATUS_SUCCESS;
    case CUDNN_ATTR_ENGINE_NUMERICAL_NOTE:
        REQUIRE(d->type == CUDNN_BACKEND_ENGINE_DESCRIPTOR && type == CUDNN_TYPE_NUMERICAL_NOTE && most >= p->notes);
        *n = p->notes;
        memcpy(out, p->note, (size_t)p->notes * sizeof *p->note);
        return CUDNN_STATUS_SUCCESS;
    case CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE:
        REQUIRE(d->type == CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR && type == CUDNN_TYPE_INT64);
        *(int64_t *)out = proposals[configuration_of(d)->proposal].workspace;
        return CUDNN_STATUS_SUCCESS;
    default: REQUIRE(!"an attribute that can be read");
    }
    return CUDNN_STATUS_BAD_PARAM;
}

cudnnStatus_t cudnnBackendFinalize(cudnnBackendDescriptor_t descriptor)
{
    described *d = descriptor;
    REQUIRE(d && !d->finished && !d->destroyed);
    d->finished = true;
    for (int r = 0; r < RULES; r++) REQUIRE(rules[r].of != d->type || find(d, rules[r].name));
    if (d->type == CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR && proposals[configuration_of(d)->proposal].no_plan) {
        d->finished = false;
        return CUDNN_STATUS_NOT_SUPPORTED;
    }
    return CUDNN_STATUS_SUCCESS;
}

/* --- the convolution */

typedef struct sizes {
    int n, c, h, w;
} sizes;
typedef struct convolved {
    sizes x, w, y; /* w.n: of the outputs */
    int pad, stride;
    bool tf32;
    float *px, *pw, *py;
    int wanted; /* 0: y, 1: x, 2: w */
} convolved;

static void run_convolution(const argument *argument)
{
    convolved v;
    memcpy(&v, argument, sizeof v);
    const int64_t nx = (int64_t)v.x.n * v.x.h * v.x.w * v.x.c, ny = (int64_t)v.y.n * v.y.h * v.y.w * v.y.c;
    const int64_t nw = (int64_t)v.w.n * v.w.h * v.w.w * v.w.c, n = v.wanted == 0 ? ny : v.wanted == 1 ? nx : nw;
    double *sum = calloc((size_t)n, sizeof *sum);
    REQUIRE(sum);
    for (int b = 0; b < v.y.n; b++)
        for (int oh = 0; oh < v.y.h; oh++)
            for (int ow = 0; ow < v.y.w; ow++)
                for (int kh = 0; kh < v.w.h; kh++)
                    for (int kw = 0; kw < v.w.w; kw++) {
                        const int h = oh * v.stride - v.pad + kh, w = ow * v.stride - v.pad + kw;
                        if (h < 0 || h >= v.x.h || w < 0 || w >= v.x.w) continue;
                        for (int o = 0; o < v.y.c; o++)
                            for (int i = 0; i < v.x.c; i++) {
                                const int64_t ix = (((int64_t)b * v.x.h + h) * v.x.w + w) * v.x.c + i;
                                const int64_t iw = (((int64_t)o * v.w.h + kh) * v.w.w + kw) * v.w.c + i;
                                const int64_t iy = (((int64_t)b * v.y.h + oh) * v.y.w + ow) * v.y.c + o;
                                const float p = v.wanted == 1 ? v.py[iy] : v.px[ix], q = v.wanted == 2 ? v.py[iy] : v.pw[iw];
                                sum[v.wanted == 0 ? iy : v.wanted == 1 ? ix : iw] += (double)emulated_taken(p, v.tf32) * emulated_taken(q, v.tf32);
                            }
                    }
    float *out = v.wanted == 0 ? v.py : v.wanted == 1 ? v.px : v.pw;
    for (int64_t i = 0; i < n; i++) out[i] = (float)sum[i];
    free(sum);
}
static void dawdle(const argument *argument) { (void)argument; }

static int int_of(int64_t x)
{
    REQUIRE(x >= 0 && x <= INT32_MAX);
    return (int)x;
}

/* A tensor of an operation, channels last, and where it lies. */
static sizes tensor(const described *operation, cudnnBackendAttributeName_t name, const described *pack, float **place)
{
    const described *t = pointer(operation, name, 0);
    int64_t size[4], stride[4];
    for (int i = 0; i < 4; i++) size[i] = number(t, CUDNN_ATTR_TENSOR_DIMENSIONS, i), stride[i] = number(t, CUDNN_ATTR_TENSOR_STRIDES, i);
    REQUIRE(stride[1] == 1 && stride[3] == size[1] && stride[2] == size[3] * stride[3] && stride[0] == size[2] * stride[2]);
    const int64_t id = number(t, CUDNN_ATTR_TENSOR_UNIQUE_ID, 0);
    *place = NULL;
    for (int i = 0; i < 3; i++)
        if (number(pack, CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, i) == id) *place = pointer(pack, CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, i);
    REQUIRE(emulated_is_device(*place) && (uintptr_t)*place % (uintptr_t)number(t, CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, 0) == 0);
    return (sizes){int_of(size[0]), int_of(size[1]), int_of(size[2]), int_of(size[3])};
}

static bool fit(const convolved *v)
{
    return v->x.n == v->y.n && v->x.c == v->w.c && v->w.n == v->y.c && (v->x.h + 2 * v->pad - v->w.h) / v->stride + 1 == v->y.h &&
           (v->x.w + 2 * v->pad - v->w.w) / v->stride + 1 == v->y.w;
}

#define TAKE(PREFIX, X, W, Y, which) \
    v.wanted = which, v.x = tensor(o, PREFIX##X, pack, &v.px), v.w = tensor(o, PREFIX##W, pack, &v.pw), v.y = tensor(o, PREFIX##Y, pack, &v.py), \
    window = pointer(o, PREFIX##CONV_DESC, 0), read(o, PREFIX##ALPHA, 0, &alpha, sizeof alpha), read(o, PREFIX##BETA, 0, &beta, sizeof beta)

static convolved convolved_of(const described *o, const described *pack)
{
    convolved v = {.wanted = -1};
    const described *window = NULL;
    float alpha = 0, beta = 1;
    if (o->type == CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR) TAKE(CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_, X, W, Y, 0);
    if (o->type == CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR) TAKE(CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_, DX, W, DY, 1);
    if (o->type == CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_FILTER_DESCRIPTOR) TAKE(CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_, X, DW, DY, 2);
    REQUIRE(window && alpha == 1 && beta == 0 && number(window, CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS, 0) == 2);
    v.pad = int_of(number(window, CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, 0));
    v.stride = int_of(number(window, CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, 0));
    for (int i = 0; i < 2; i++) {
        REQUIRE(number(window, CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, i) == v.pad && number(window, CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, i) == v.pad);
        REQUIRE(number(window, CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, i) == v.stride && number(window, CUDNN_ATTR_CONVOLUTION_DILATIONS, i) == 1);
    }
    REQUIRE(fit(&v));
    return v;
}

cudnnStatus_t cudnnBackendExecute(cudnnHandle_t h, cudnnBackendDescriptor_t plan, cudnnBackendDescriptor_t pack)
{
    const described *configuration = configuration_of(plan);
    const proposal *p = &proposals[configuration->proposal];
    char *workspace = pointer(pack, CUDNN_ATTR_VARIANT_PACK_WORKSPACE, 0);
    REQUIRE(h && !configuration->destroyed);
    REQUIRE(!p->workspace || (emulated_is_device(workspace) && emulated_is_device(workspace + p->workspace - 1) && (uintptr_t)workspace % 256 == 0));
    if (emulated_refusal) return CUDNN_STATUS_NOT_SUPPORTED;
    convolved v = convolved_of(pointer(configuration->graph, CUDNN_ATTR_OPERATIONGRAPH_OPS, 0), pack);
    v.tf32 = p->notes > 0;
    if (p->workspace) emulated_fill(workspace, 0xff, (size_t)p->workspace); /* NaN: nothing may count on what is there */
    for (int i = 0; i < p->slow; i++) emulated_ask(dawdle, "", 1);
    emulated_engine = configuration->proposal;
    emulated_uses = &handle;
    emulated_ask(run_convolution, &v, sizeof v);
    return CUDNN_STATUS_SUCCESS;
}
