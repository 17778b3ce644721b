/* emulated_libraries.c: NVRTC and cuBLAS for emulator.c. */
#include <cublas_v2.h>
#include <cuda_runtime_api.h>
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

float emulated_taken(float x, bool tf32)
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
                    sum += (double)emulated_taken(g.ta ? a[l + (int64_t)i * g.lda] : a[i + (int64_t)l * g.lda], g.tf32) *
                           emulated_taken(g.tb ? b[j + (int64_t)l * g.ldb] : b[l + (int64_t)j * g.ldb], g.tf32);
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
