/* cuda.c: the device, its memory, and the tables of the CUDA backend. */
#include "model/cuda/cuda.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include "model/cuda/backend.h"

static iso_cuda cuda;

iso_cuda *iso_cuda_get(void)
{
    return &cuda;
}

/* --- failures */

bool iso_cuda_remember(const char *what, const char *reason)
{
    if (cuda.failure.status == ISO_OK)
        (void)iso_fail(&cuda.failure, ISO_E_INTERNAL, "the GPU failed at %s: %s", what, reason);
    return false;
}

bool iso_cuda_ok(cudaError_t e, const char *what)
{
    return e == cudaSuccess || iso_cuda_remember(what, cudaGetErrorString(e));
}

bool iso_cuda_blas_ok(cublasStatus_t s, const char *what)
{
    return s == CUBLAS_STATUS_SUCCESS || iso_cuda_remember(what, cublasGetStatusString(s));
}

iso_cuda_reason iso_cuda_dnn_reason(cudnnStatus_t s)
{
    char more[120] = "";
    iso_cuda_reason r;
    cudnnGetLastErrorString(more, sizeof more);
    more[sizeof more - 1] = '\0';
    snprintf(r.text, sizeof r.text, more[0] ? "%.70s (%s)" : "%.70s", cudnnGetErrorString(s), more);
    return r;
}

bool iso_cuda_dnn_ok(cudnnStatus_t s, const char *what)
{
    return s == CUDNN_STATUS_SUCCESS || iso_cuda_remember(what, iso_cuda_dnn_reason(s).text);
}

static iso_status check(iso_error *err)
{
    return cuda.failure.status == ISO_OK ? ISO_OK : iso_fail(err, cuda.failure.status, "%s", cuda.failure.message);
}

/* --- memory */

/* NULL, and nothing remembered where memory is out (or no device has so much). One that fails has none either, and is to be told as that. */
static void *refused(cudaError_t e, const char *what)
{
    if (e != cudaErrorMemoryAllocation && e != cudaErrorInvalidValue) (void)iso_cuda_ok(e, what);
    (void)cudaGetLastError(); /* else the next call reports it again */
    return NULL;
}

static void *cuda_alloc(size_t bytes)
{
    void *p = NULL;
    if (bytes > SIZE_MAX / 2) return NULL;
    const cudaError_t e = cudaMalloc(&p, bytes ? bytes : 1);
    if (e != cudaSuccess) return refused(e, "taking memory");
    if (iso_cuda_ok(cudaMemsetAsync(p, 0, bytes, cuda.stream), "clearing memory")) return p;
    (void)cudaFree(p);
    return NULL;
}

static void cuda_release(void *p, size_t bytes)
{
    (void)bytes;
    if (p) (void)iso_cuda_ok(cudaFree(p), "giving memory back");
}

static void *cuda_host_alloc(size_t bytes)
{
    void *p = NULL;
    const cudaError_t e = cudaMallocHost(&p, bytes ? bytes : 1);
    return e == cudaSuccess ? p : refused(e, "taking page-locked memory");
}

static void cuda_host_release(void *p)
{
    if (p) (void)iso_cuda_ok(cudaFreeHost(p), "giving page-locked memory back");
}

static size_t cuda_free_memory(void)
{
    size_t now = 0, all = 0;
    return iso_cuda_ok(cudaMemGetInfo(&now, &all), "asking for its free memory") ? now : 0;
}

static void cuda_copy(void *to, const void *from, size_t bytes)
{
    (void)iso_cuda_ok(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, cuda.stream), "a copy");
}

static void cuda_bytes(void *out, const uint8_t *data, const int64_t *rows, const uint8_t *mirror, int64_t n, int64_t dim,
                       int64_t width, int64_t depth)
{
    const iso_cuda_bytes b = {.to = out, .from = data, .mirror = mirror, .rows = rows, .n = n, .dim = dim, .width = width, .depth = depth};
    (void)iso_cuda_ok(iso_cuda_bytes_run(&b, cuda.stream), "converting images");
}

/* --- the tables. TF32 and float32 differ in the products only. */

#define ELEMENTWISE(NAME, name) \
    static void cuda_##name(const iso_call *call) { iso_cuda_elementwise(call, ISO_OP_##NAME); }
ELEMENTWISE(ADD, add)
ELEMENTWISE(SUB, sub)
ELEMENTWISE(MUL, mul)
ELEMENTWISE(DIV, div)
ELEMENTWISE(SCALE, scale)
ELEMENTWISE(SHIFT, shift)
ELEMENTWISE(EXP, exp)
ELEMENTWISE(LOG, log)
ELEMENTWISE(SQRT, sqrt)
ELEMENTWISE(TANH, tanh)
ELEMENTWISE(SIGMOID, sigmoid)
ELEMENTWISE(SOFTPLUS, softplus)
ELEMENTWISE(RELU, relu)
ELEMENTWISE(STEP, step)

#define PRODUCTS(kind, tf32) \
    static void matmul_##kind(const iso_call *call) { iso_cuda_matmul(call, tf32); } \
    static void conv_##kind(const iso_call *call) { iso_cuda_convolve(ISO_OP_CONV, call, tf32); } \
    static void conv_x_##kind(const iso_call *call) { iso_cuda_convolve(ISO_OP_CONV_X, call, tf32); } \
    static void conv_w_##kind(const iso_call *call) { iso_cuda_convolve(ISO_OP_CONV_W, call, tf32); } \
    static iso_status prepare_##kind(iso_op op, const iso_call *call, iso_error *err) { return prepare(op, call, tf32, err); } \
    static size_t workspace_##kind(iso_op op, const iso_call *call) { return workspace(op, call, tf32); }

static iso_status prepare(iso_op op, const iso_call *call, bool tf32, iso_error *err)
{
    switch (op) {
    case ISO_OP_MATMUL: return iso_cuda_matmul_prepare(call, err);
    case ISO_OP_CONV:
    case ISO_OP_CONV_X:
    case ISO_OP_CONV_W: return iso_cuda_convolve_prepare(op, call, tf32, err);
    default: return ISO_OK;
    }
}

static size_t workspace(iso_op op, const iso_call *call, bool tf32)
{
    switch (op) {
    case ISO_OP_SUM: return iso_cuda_sum_workspace(call);
    case ISO_OP_CONV:
    case ISO_OP_CONV_X:
    case ISO_OP_CONV_W: return iso_cuda_convolve_workspace(op, call, tf32);
    default: return 0;
    }
}

PRODUCTS(tf32, true)
PRODUCTS(float32, false)

#define TABLE(kind, title) \
    static const iso_device device_##kind = { \
        .prepare = prepare_##kind, \
        .prepare_fused = iso_cuda_chain_prepare, \
        .runs_create = iso_cuda_runs_create, \
        .runs_free = iso_cuda_runs_free, \
        .run = iso_cuda_runs_run, \
        .after = iso_cuda_runs_after, \
        .tell = iso_cuda_runs_tell, \
        .wait = iso_cuda_runs_wait, \
        .copy = cuda_copy, \
        .publish = iso_cuda_publish_reals, \
        .host_alloc = cuda_host_alloc, \
        .host_release = cuda_host_release, \
        .bytes = cuda_bytes, \
        .free_memory = cuda_free_memory, \
        .check = check, \
    }; \
    static const iso_backend backend_##kind = { \
        .name = title, \
        .real_size = sizeof(float), \
        .kernel = {[ISO_OP_ADD] = cuda_add, [ISO_OP_SUB] = cuda_sub, [ISO_OP_MUL] = cuda_mul, [ISO_OP_DIV] = cuda_div, \
                   [ISO_OP_SCALE] = cuda_scale, [ISO_OP_SHIFT] = cuda_shift, [ISO_OP_EXP] = cuda_exp, \
                   [ISO_OP_LOG] = cuda_log, [ISO_OP_SQRT] = cuda_sqrt, [ISO_OP_TANH] = cuda_tanh, \
                   [ISO_OP_SIGMOID] = cuda_sigmoid, [ISO_OP_SOFTPLUS] = cuda_softplus, [ISO_OP_RELU] = cuda_relu, \
                   [ISO_OP_STEP] = cuda_step, [ISO_OP_SUM] = iso_cuda_sum_op, [ISO_OP_BROADCAST] = iso_cuda_broadcast, \
                   [ISO_OP_PERMUTE] = iso_cuda_permute, [ISO_OP_SLICE] = iso_cuda_slice, [ISO_OP_PAD] = iso_cuda_pad_op, \
                   [ISO_OP_CONCAT] = iso_cuda_concat, [ISO_OP_GATHER] = iso_cuda_gather, \
                   [ISO_OP_SCATTER] = iso_cuda_scatter, [ISO_OP_MATMUL] = matmul_##kind, [ISO_OP_CONV] = conv_##kind, \
                   [ISO_OP_CONV_X] = conv_x_##kind, [ISO_OP_CONV_W] = conv_w_##kind}, \
        .workspace = workspace_##kind, \
        .fused = iso_cuda_chain_run, \
        .alloc = cuda_alloc, \
        .release = cuda_release, \
        .put = iso_cuda_put, \
        .get = iso_cuda_get_bytes, \
        .device = &device_##kind, \
    };
TABLE(tf32, "cuda")
TABLE(float32, "cuda-float32")

/* --- opening */

enum { LEAST_MAJOR = 8 };

/* One that is there and fails is no device that is missing: whoever goes without one is to know. */
static iso_status no_device(cudaError_t e, iso_error *err)
{
    int driver = 0;
    (void)cudaGetLastError();
    if (e == cudaErrorMemoryAllocation)
        return iso_fail(err, ISO_E_MEMORY, "out of memory: the CUDA device has too little left to begin with: stop what else uses it, or use --device cpu");
    bool none = cudaDriverGetVersion(&driver) == cudaSuccess && driver == 0;
    const bool missing = e == cudaErrorNoDevice || e == cudaErrorInsufficientDriver || e == cudaErrorStubLibrary;
    if (none) return iso_fail(err, ISO_E_UNSUPPORTED, "there is no usable CUDA device here (no NVIDIA driver is installed): use --device cpu");
    if (!missing) return iso_fail(err, ISO_E_IO, "the CUDA device cannot be used (%s): mend it, or use --device cpu", cudaGetErrorString(e));
    return iso_fail(err, ISO_E_UNSUPPORTED, "there is no usable CUDA device here (%s; the driver is for CUDA %d.%d, this was built with %d.%d): use --device cpu",
                    cudaGetErrorString(e), driver / 1000, driver % 1000 / 10, CUDART_VERSION / 1000, CUDART_VERSION % 1000 / 10);
}

static iso_status open_device(iso_error *err)
{
    int count = 0, least = CUDNN_VERSION / 10000;
    cudaError_t e = cudaGetDeviceCount(&count);
    if (e == cudaSuccess && count < 1) e = cudaErrorNoDevice;
    if (e == cudaSuccess) e = cudaSetDevice(0);
    if (e == cudaSuccess) e = cudaDeviceGetAttribute(&cuda.major, cudaDevAttrComputeCapabilityMajor, 0);
    if (e == cudaSuccess) e = cudaDeviceGetAttribute(&cuda.minor, cudaDevAttrComputeCapabilityMinor, 0);
    if (e != cudaSuccess) return no_device(e, err);
    if (cuda.major < LEAST_MAJOR)
        return iso_fail(err, ISO_E_UNSUPPORTED, "the CUDA device has compute capability %d.%d, %d.0 is needed: use --device cpu",
                        cuda.major, cuda.minor, LEAST_MAJOR);
    if ((int)(cudnnGetVersion() / 10000) != least)
        return iso_fail(err, ISO_E_UNSUPPORTED, "cuDNN %d is needed, and this one has version number %zu", least, cudnnGetVersion());
    if ((e = cudaStreamCreateWithFlags(&cuda.stream, cudaStreamNonBlocking)) != cudaSuccess) return no_device(e, err);
    return ISO_OK;
}

/* cuBLAS with memory of its own: it would take some at first use, which a graph that is being captured cannot have. Several, so that a graph's branches
 * do not all wait for one. */
static iso_status open_libraries(iso_error *err)
{
    cudaError_t e = cudaSuccess;
    for (int i = 0; i < ISO_CUDA_BLAS_MEMORIES && e == cudaSuccess; i++) e = cudaMalloc(&cuda.blas_memory[i], ISO_CUDA_BLAS_BYTES);
    const bool full = e == cudaErrorMemoryAllocation;
    bool ok = !full && iso_cuda_ok(e, "taking memory for cuBLAS") && iso_cuda_blas_ok(cublasCreate(&cuda.blas), "opening cuBLAS") &&
              iso_cuda_blas_ok(cublasSetStream(cuda.blas, cuda.stream), "opening cuBLAS") &&
              iso_cuda_dnn_ok(cudnnCreate(&cuda.dnn), "opening cuDNN") &&
              iso_cuda_dnn_ok(cudnnSetStream(cuda.dnn, cuda.stream), "opening cuDNN");
    iso_status status = ok ? iso_cuda_transfer_open(err) : full ? no_device(e, err) : check(err);
    if (status == ISO_OK) return ISO_OK;
    if (cuda.dnn) (void)cudnnDestroy(cuda.dnn);
    if (cuda.blas) (void)cublasDestroy(cuda.blas);
    for (int i = 0; i < ISO_CUDA_BLAS_MEMORIES; i++) (void)cudaFree(cuda.blas_memory[i]);
    (void)cudaStreamDestroy(cuda.stream);
    cuda = (iso_cuda){0};
    return status;
}

iso_status iso_backend_cuda(bool tf32, const iso_backend **out, iso_error *err)
{
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    static bool opened;
    iso_status status = ISO_OK;
    pthread_mutex_lock(&lock);
    if (!opened) {
        status = open_device(err);
        if (status == ISO_OK) status = open_libraries(err);
        opened = status == ISO_OK;
        cuda.eager = getenv("ISO_CUDA_EAGER") != NULL;
        cuda.chain = getenv("ISO_CUDA_CHAIN") != NULL;
    }
    pthread_mutex_unlock(&lock);
    if (status == ISO_OK) *out = tf32 ? &backend_tf32 : &backend_float32;
    return status;
}
