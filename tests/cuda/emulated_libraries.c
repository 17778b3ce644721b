/* emulated_libraries.c: NVRTC, cuBLAS and cuDNN for emulator.c. */
#include <cublas_v2.h>
#include <cuda_runtime_api.h>
#include <cudnn.h>
#include <dlfcn.h>
#include <math.h>
#include <nvrtc.h>
#include <string.h>
#include <unistd.h>

#include "tests/cuda/emulated.h"

static int handle; /* all handles point here */

/* --- NVRTC: the host's compiler and a shared library */

struct _nvrtcProgram {
    char *source, library[64];
};
nvrtcResult nvrtcCreateProgram(nvrtcProgram *out, const char *source, const char *name, int headers, const char *const *header,
                               const char *const *include)
{
    REQUIRE(name && headers == 0 && !header && !include);
    *out = calloc(1, sizeof **out);
    (*out)->source = strdup(source);
    return NVRTC_SUCCESS;
}
nvrtcResult nvrtcCompileProgram(nvrtcProgram p, int count, const char *const *option)
{
    static int number;
    char path[64], command[512];
    REQUIRE(count == 2 && strcmp(option[0], emulated_old_nvrtc ? "--gpu-architecture=compute_80" : "--gpu-architecture=sm_90") == 0);
    const char *folder = getenv("TMPDIR");
    snprintf(path, sizeof path, "%.30s/emulated%d.%d.cc", folder ? folder : "/tmp", (int)getpid(), number);
    snprintf(p->library, sizeof p->library, "%.30s/emulated%d.%d.so", folder ? folder : "/tmp", (int)getpid(), number++);
    FILE *f = fopen(path, "w");
    REQUIRE(f && fputs(p->source, f) >= 0 && fclose(f) == 0);
    snprintf(command, sizeof command, "c++ -std=c++17 -w -O1 -ffp-contract=off -shared -fPIC -I. -isystem %s/include -include tests/cuda/emulator.h -x c++ %s -o %s",
             getenv("CUDA_HOME") ? getenv("CUDA_HOME") : "/usr/local/cuda", path, p->library);
    int failed = system(command);
    remove(path);
    return failed ? NVRTC_ERROR_COMPILATION : NVRTC_SUCCESS;
}
bool emulated_old_nvrtc; /* knows nothing newer than 8.0 */
nvrtcResult nvrtcGetNumSupportedArchs(int *count)
{
    *count = emulated_old_nvrtc ? 2 : 4;
    return NVRTC_SUCCESS;
}
nvrtcResult nvrtcGetSupportedArchs(int *arch)
{
    memcpy(arch, (const int[]){75, 80, 90, 100}, (emulated_old_nvrtc ? 2 : 4) * sizeof *arch);
    return NVRTC_SUCCESS;
}
nvrtcResult nvrtcGetPTXSize(nvrtcProgram p, size_t *size) { return emulated_old_nvrtc ? nvrtcGetCUBINSize(p, size) : NVRTC_ERROR_INVALID_INPUT; }
nvrtcResult nvrtcGetPTX(nvrtcProgram p, char *ptx) { return nvrtcGetCUBIN(p, ptx); }
nvrtcResult nvrtcGetCUBINSize(nvrtcProgram p, size_t *size)
{
    *size = strlen(p->library) + 1;
    return NVRTC_SUCCESS;
}
nvrtcResult nvrtcGetCUBIN(nvrtcProgram p, char *binary)
{
    strcpy(binary, p->library);
    return NVRTC_SUCCESS;
}
nvrtcResult nvrtcGetProgramLogSize(nvrtcProgram p, size_t *size)
{
    (void)p;
    *size = 0;
    return NVRTC_SUCCESS;
}
nvrtcResult nvrtcGetProgramLog(nvrtcProgram p, char *log)
{
    (void)p, (void)log;
    return NVRTC_SUCCESS;
}
const char *nvrtcGetErrorString(nvrtcResult r) { return r == NVRTC_ERROR_COMPILATION ? "compilation" : "failure"; }
nvrtcResult nvrtcDestroyProgram(nvrtcProgram *p)
{
    free((*p)->source);
    free(*p);
    *p = NULL;
    return NVRTC_SUCCESS;
}
cudaError_t cudaLibraryLoadData(cudaLibrary_t *library, const void *code, enum cudaJitOption *o, void **v, unsigned n,
                                enum cudaLibraryOption *lo, void **lv, unsigned ln)
{
    REQUIRE(!o && !v && !n && !lo && !lv && !ln && !emulated_is_capturing());
    *library = (cudaLibrary_t)dlopen(code, RTLD_NOW);
    if (!*library) fprintf(stderr, "emulator: %s\n", dlerror());
    remove(code);
    return *library ? cudaSuccess : cudaErrorInvalidKernelImage;
}
cudaError_t cudaLibraryGetKernel(cudaKernel_t *out, cudaLibrary_t library, const char *name)
{
    *out = (cudaKernel_t)dlsym(library, name);
    return *out ? cudaSuccess : cudaErrorSymbolNotFound;
}
cudaError_t cudaLibraryUnload(cudaLibrary_t library) { return dlclose(library) ? cudaErrorInvalidValue : cudaSuccess; }

/* --- cuBLAS */

static float taken(float x, bool tf32)
{
    uint32_t u;
    if (!tf32 || !isfinite(x)) return x;
    memcpy(&u, &x, sizeof u);
    u &= ~0x1fffu; /* tensor cores read the first bits; nothing is rounded */
    memcpy(&x, &u, sizeof x);
    return x;
}

cublasStatus_t cublasCreate_v2(cublasHandle_t *h)
{
    *h = (cublasHandle_t)&handle;
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasDestroy_v2(cublasHandle_t h) { return h ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_NOT_INITIALIZED; }
cublasStatus_t cublasSetStream_v2(cublasHandle_t h, cudaStream_t s) { return h && s ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_INVALID_VALUE; }
static const void *blas_memory;
cublasStatus_t cublasSetWorkspace_v2(cublasHandle_t h, void *p, size_t bytes)
{
    blas_memory = p;
    return h && emulated_is_device(p) && bytes ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_INVALID_VALUE;
}
const char *cublasGetStatusString(cublasStatus_t s) { return s == CUBLAS_STATUS_SUCCESS ? "success" : "emulated failure"; }

typedef struct gemm {
    bool ta, tb, tf32;
    int m, n, k, lda, ldb, ldc, batch;
    bool add;
    int64_t sa, sb, sc;
    const float *a, *b;
    float *c;
} gemm;

static void run_gemm(const argument *argument)
{
    gemm g;
    memcpy(&g, argument, sizeof g);
    for (int p = 0; p < g.batch; p++)
        for (int j = 0; j < g.n; j++)
            for (int i = 0; i < g.m; i++) {
                double sum = g.add ? g.c[p * g.sc + i + (int64_t)j * g.ldc] : 0;
                const float *a = g.a + p * g.sa, *b = g.b + p * g.sb;
                for (int l = 0; l < g.k; l++)
                    sum += (double)taken(g.ta ? a[l + (int64_t)i * g.lda] : a[i + (int64_t)l * g.lda], g.tf32) *
                           taken(g.tb ? b[j + (int64_t)l * g.ldb] : b[l + (int64_t)j * g.ldb], g.tf32);
                g.c[p * g.sc + i + (int64_t)j * g.ldc] = (float)sum;
            }
}

cublasStatus_t cublasGemmStridedBatchedEx(cublasHandle_t h, cublasOperation_t ta, cublasOperation_t tb, int m, int n, int k,
                                          const void *alpha, const void *a, cudaDataType at, int lda, long long sa, const void *b,
                                          cudaDataType bt, int ldb, long long sb, const void *beta, void *c, cudaDataType ct, int ldc,
                                          long long sc, int batch, cublasComputeType_t compute, cublasGemmAlgo_t algorithm)
{
    REQUIRE(h && at == CUDA_R_32F && bt == CUDA_R_32F && ct == CUDA_R_32F && algorithm == CUBLAS_GEMM_DEFAULT);
    const float added = *(const float *)beta;
    REQUIRE(*(const float *)alpha == 1 && (added == 0 || added == 1) && emulated_is_device(a) && emulated_is_device(b) && emulated_is_device(c));
    REQUIRE(lda >= (ta == CUBLAS_OP_N ? m : k) && ldb >= (tb == CUBLAS_OP_N ? k : n) && ldc >= m);
    REQUIRE(compute == CUBLAS_COMPUTE_32F || compute == CUBLAS_COMPUTE_32F_FAST_TF32);
    const gemm g = {ta == CUBLAS_OP_T, tb == CUBLAS_OP_T, compute == CUBLAS_COMPUTE_32F_FAST_TF32, m, n, k, lda, ldb, ldc, batch, added == 1, sa, sb, sc, a, b, c};
    REQUIRE((emulated_uses = blas_memory));
    emulated_ask(run_gemm, &g, sizeof g);
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasGemmEx(cublasHandle_t h, cublasOperation_t ta, cublasOperation_t tb, int m, int n, int k, const void *alpha, const void *a,
                            cudaDataType at, int lda, const void *b, cudaDataType bt, int ldb, const void *beta, void *c, cudaDataType ct, int ldc,
                            cublasComputeType_t compute, cublasGemmAlgo_t algorithm)
{
    return cublasGemmStridedBatchedEx(h, ta, tb, m, n, k, alpha, a, at, lda, 0, b, bt, ldb, 0, beta, c, ct, ldc, 0, 1, compute, algorithm);
}

/* --- cuDNN */

struct cudnnTensorStruct {
    int n, c, h, w;
};
struct cudnnFilterStruct {
    int k, c, h, w;
};
struct cudnnConvolutionStruct {
    int pad, stride;
    cudnnMathType_t math;
};
typedef struct convolved {
    struct cudnnTensorStruct x, y;
    struct cudnnFilterStruct w;
    struct cudnnConvolutionStruct how;
    float *px, *pw, *py;
    int wanted; /* 0: y, 1: x, 2: w */
} convolved;
enum { FORWARD_ALGORITHM = 1, DATA_ALGORITHM = 1, FILTER_ALGORITHM = 1, WORKSPACE = 4096 };

size_t cudnnGetVersion(void) { return CUDNN_VERSION; }
bool emulated_refusal;
void cudnnGetLastErrorString(char *message, size_t size) { snprintf(message, size, "%s", "emulated details"); }
const char *cudnnGetErrorString(cudnnStatus_t s) { return s == CUDNN_STATUS_SUCCESS ? "success" : "emulated failure"; }
cudnnStatus_t cudnnCreate(cudnnHandle_t *h)
{
    *h = (cudnnHandle_t)&handle;
    return CUDNN_STATUS_SUCCESS;
}
cudnnStatus_t cudnnDestroy(cudnnHandle_t h) { return h ? CUDNN_STATUS_SUCCESS : CUDNN_STATUS_BAD_PARAM; }
cudnnStatus_t cudnnSetStream(cudnnHandle_t h, cudaStream_t s) { return h && s ? CUDNN_STATUS_SUCCESS : CUDNN_STATUS_BAD_PARAM; }
#define DESCRIPTOR(Name, Type) \
    cudnnStatus_t cudnnCreate##Name##Descriptor(Type *d) \
    { \
        *d = calloc(1, sizeof **d); \
        return CUDNN_STATUS_SUCCESS; \
    } \
    cudnnStatus_t cudnnDestroy##Name##Descriptor(Type d) \
    { \
        free(d); \
        return CUDNN_STATUS_SUCCESS; \
    }
DESCRIPTOR(Tensor, cudnnTensorDescriptor_t)
DESCRIPTOR(Filter, cudnnFilterDescriptor_t)
DESCRIPTOR(Convolution, cudnnConvolutionDescriptor_t)
cudnnStatus_t cudnnSetTensor4dDescriptor(cudnnTensorDescriptor_t d, cudnnTensorFormat_t format, cudnnDataType_t type, int n, int c, int h, int w)
{
    REQUIRE(format == CUDNN_TENSOR_NHWC && type == CUDNN_DATA_FLOAT);
    *d = (struct cudnnTensorStruct){n, c, h, w};
    return CUDNN_STATUS_SUCCESS;
}
cudnnStatus_t cudnnSetFilter4dDescriptor(cudnnFilterDescriptor_t d, cudnnDataType_t type, cudnnTensorFormat_t format, int k, int c, int h, int w)
{
    REQUIRE(format == CUDNN_TENSOR_NHWC && type == CUDNN_DATA_FLOAT);
    *d = (struct cudnnFilterStruct){k, c, h, w};
    return CUDNN_STATUS_SUCCESS;
}
cudnnStatus_t cudnnSetConvolution2dDescriptor(cudnnConvolutionDescriptor_t d, int pad_h, int pad_w, int u, int v, int dh, int dw,
                                              cudnnConvolutionMode_t mode, cudnnDataType_t type)
{
    REQUIRE(pad_h == pad_w && u == v && dh == 1 && dw == 1 && mode == CUDNN_CROSS_CORRELATION && type == CUDNN_DATA_FLOAT);
    *d = (struct cudnnConvolutionStruct){pad_h, u, CUDNN_DEFAULT_MATH};
    return CUDNN_STATUS_SUCCESS;
}
cudnnStatus_t cudnnSetConvolutionMathType(cudnnConvolutionDescriptor_t d, cudnnMathType_t math)
{
    d->math = math;
    return CUDNN_STATUS_SUCCESS;
}

static bool fit(const struct cudnnTensorStruct *x, const struct cudnnFilterStruct *w, const struct cudnnConvolutionStruct *how,
                const struct cudnnTensorStruct *y)
{
    return x->n == y->n && x->c == w->c && w->k == y->c && (x->h + 2 * how->pad - w->h) / how->stride + 1 == y->h &&
           (x->w + 2 * how->pad - w->w) / how->stride + 1 == y->w;
}

/* The first proposal is not deterministic, the second takes too much memory, the third is right. */
#define PROPOSE(Name, Perf, Algo, First, Second, Third, FITS, right) \
    cudnnStatus_t cudnnGetConvolution##Name##Algorithm_v7(cudnnHandle_t h, const First a, const Second b, \
                                                          const cudnnConvolutionDescriptor_t how, const Third c, const int room, \
                                                          int *count, Perf *perf) \
    { \
        REQUIRE(h && room >= 3 && FITS); \
        *count = 3; \
        for (int i = 0; i < 3; i++) \
            perf[i] = (Perf){.algo = i == 0 ? (Algo)0 : i == 1 ? (Algo)2 : (Algo)right, \
                             .determinism = i == 0 ? CUDNN_NON_DETERMINISTIC : CUDNN_DETERMINISTIC, .mathType = how->math}; \
        return CUDNN_STATUS_SUCCESS; \
    } \
    cudnnStatus_t cudnnFindConvolution##Name##Algorithm(cudnnHandle_t h, const First a, const Second b, \
                                                        const cudnnConvolutionDescriptor_t how, const Third c, const int room, \
                                                        int *count, Perf *perf) \
    { \
        return cudnnGetConvolution##Name##Algorithm_v7(h, a, b, how, c, room, count, perf); \
    } \
    cudnnStatus_t cudnnGetConvolution##Name##WorkspaceSize(cudnnHandle_t h, const First a, const Second b, \
                                                           const cudnnConvolutionDescriptor_t how, const Third c, Algo algorithm, \
                                                           size_t *bytes) \
    { \
        REQUIRE(h && FITS); \
        *bytes = (int)algorithm == right ? WORKSPACE : SIZE_MAX / 2; \
        return CUDNN_STATUS_SUCCESS; \
    }
PROPOSE(Forward, cudnnConvolutionFwdAlgoPerf_t, cudnnConvolutionFwdAlgo_t, cudnnTensorDescriptor_t, cudnnFilterDescriptor_t,
        cudnnTensorDescriptor_t, fit(a, b, how, c), FORWARD_ALGORITHM)
PROPOSE(BackwardData, cudnnConvolutionBwdDataAlgoPerf_t, cudnnConvolutionBwdDataAlgo_t, cudnnFilterDescriptor_t, cudnnTensorDescriptor_t,
        cudnnTensorDescriptor_t, fit(c, a, how, b), DATA_ALGORITHM)
PROPOSE(BackwardFilter, cudnnConvolutionBwdFilterAlgoPerf_t, cudnnConvolutionBwdFilterAlgo_t, cudnnTensorDescriptor_t, cudnnTensorDescriptor_t,
        cudnnFilterDescriptor_t, fit(a, c, how, b), FILTER_ALGORITHM)

static void run_convolution(const argument *argument)
{
    convolved v;
    memcpy(&v, argument, sizeof v);
    const int64_t nx = (int64_t)v.x.n * v.x.h * v.x.w * v.x.c, ny = (int64_t)v.y.n * v.y.h * v.y.w * v.y.c;
    const int64_t nw = (int64_t)v.w.k * v.w.h * v.w.w * v.w.c, n = v.wanted == 0 ? ny : v.wanted == 1 ? nx : nw;
    const bool tf32 = v.how.math != CUDNN_FMA_MATH;
    double *sum = calloc((size_t)n, sizeof *sum);
    REQUIRE(sum);
    for (int b = 0; b < v.y.n; b++)
        for (int oh = 0; oh < v.y.h; oh++)
            for (int ow = 0; ow < v.y.w; ow++)
                for (int kh = 0; kh < v.w.h; kh++)
                    for (int kw = 0; kw < v.w.w; kw++) {
                        const int h = oh * v.how.stride - v.how.pad + kh, w = ow * v.how.stride - v.how.pad + kw;
                        if (h < 0 || h >= v.x.h || w < 0 || w >= v.x.w) continue;
                        for (int o = 0; o < v.y.c; o++)
                            for (int i = 0; i < v.x.c; i++) {
                                const int64_t ix = (((int64_t)b * v.x.h + h) * v.x.w + w) * v.x.c + i;
                                const int64_t iw = (((int64_t)o * v.w.h + kh) * v.w.w + kw) * v.w.c + i;
                                const int64_t iy = (((int64_t)b * v.y.h + oh) * v.y.w + ow) * v.y.c + o;
                                const float p = v.wanted == 1 ? v.py[iy] : v.px[ix], q = v.wanted == 2 ? v.py[iy] : v.pw[iw];
                                sum[v.wanted == 0 ? iy : v.wanted == 1 ? ix : iw] += (double)taken(p, tf32) * taken(q, tf32);
                            }
                    }
    float *out = v.wanted == 0 ? v.py : v.wanted == 1 ? v.px : v.pw;
    for (int64_t i = 0; i < n; i++) out[i] = (float)sum[i];
    free(sum);
}

static cudnnStatus_t convolve(int wanted, const float *alpha, const float *beta, const struct cudnnTensorStruct *x, const void *px,
                              const struct cudnnFilterStruct *w, const void *pw, const struct cudnnTensorStruct *y, const void *py,
                              const struct cudnnConvolutionStruct *how, int algorithm, void *workspace, size_t bytes)
{
    REQUIRE(*alpha == 1 && *beta == 0 && fit(x, w, how, y) && algorithm == 1 && bytes >= WORKSPACE && emulated_is_device(workspace));
    REQUIRE((uintptr_t)workspace % 256 == 0);
    if (emulated_refusal) return CUDNN_STATUS_NOT_SUPPORTED;
    REQUIRE(emulated_is_device(px) && emulated_is_device(pw) && emulated_is_device(py));
    const convolved v = {*x, *y, *w, *how, (float *)px, (float *)pw, (float *)py, wanted};
    emulated_fill(workspace, 0xff, bytes); /* NaN: nothing may count on what is there */
    emulated_uses = &handle;
    emulated_ask(run_convolution, &v, sizeof v);
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnConvolutionForward(cudnnHandle_t h, const void *alpha, const cudnnTensorDescriptor_t x, const void *px,
                                      const cudnnFilterDescriptor_t w, const void *pw, const cudnnConvolutionDescriptor_t how,
                                      cudnnConvolutionFwdAlgo_t algorithm, void *workspace, size_t bytes, const void *beta,
                                      const cudnnTensorDescriptor_t y, void *py)
{
    REQUIRE(h);
    return convolve(0, alpha, beta, x, px, w, pw, y, py, how, (int)algorithm, workspace, bytes);
}
cudnnStatus_t cudnnConvolutionBackwardData(cudnnHandle_t h, const void *alpha, const cudnnFilterDescriptor_t w, const void *pw,
                                           const cudnnTensorDescriptor_t y, const void *py, const cudnnConvolutionDescriptor_t how,
                                           cudnnConvolutionBwdDataAlgo_t algorithm, void *workspace, size_t bytes, const void *beta,
                                           const cudnnTensorDescriptor_t x, void *px)
{
    REQUIRE(h);
    return convolve(1, alpha, beta, x, px, w, pw, y, py, how, (int)algorithm, workspace, bytes);
}
cudnnStatus_t cudnnConvolutionBackwardFilter(cudnnHandle_t h, const void *alpha, const cudnnTensorDescriptor_t x, const void *px,
                                             const cudnnTensorDescriptor_t y, const void *py, const cudnnConvolutionDescriptor_t how,
                                             cudnnConvolutionBwdFilterAlgo_t algorithm, void *workspace, size_t bytes, const void *beta,
                                             const cudnnFilterDescriptor_t w, void *pw)
{
    REQUIRE(h);
    return convolve(2, alpha, beta, x, px, w, pw, y, py, how, (int)algorithm, workspace, bytes);
}
