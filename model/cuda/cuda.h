/* cuda.h: what the files of the CUDA backend share. Nothing outside model/cuda includes it.
 *
 * One device, one stream: everything is done in the order it was asked for. All of it is opened once, at the first use,
 * and kept until the process ends. Used by one thread at a time. */
#ifndef ISO_CUDA_H
#define ISO_CUDA_H

#include <cublas_v2.h>
#include <cuda_runtime_api.h>
#include <cudnn.h>

#include "model/cuda/engine.h"
#include "model/cuda/kernels.h"
#include "model/graph/backend.h"

/* What belongs to the libraries, and one kernel at a time may use. */
enum { ISO_CUDA_BLAS_BYTES = 32 << 20 /* of each memory */ };
enum { ISO_CUDA_BLAS_MEMORIES = 8, ISO_CUDA_DNN = ISO_CUDA_BLAS_MEMORIES, ISO_CUDA_SHARED };

typedef struct iso_cuda {
    cudaStream_t stream;
    cublasHandle_t blas;
    cudnnHandle_t dnn;
    int major, minor;   /* of the device's compute capability */
    bool eager;         /* ISO_CUDA_EAGER: no graphs, every kernel is launched by itself */
    bool chain;         /* ISO_CUDA_CHAIN: graphs without branches */
    bool alone;         /* convolutions have memory of their own, which the plan does not know: one after the other */
    void *blas_memory[ISO_CUDA_BLAS_MEMORIES]; /* cuBLAS's, by turns */
    iso_error failure;  /* the first; status ISO_OK: none */
} iso_cuda;

/* cuda.c. The opened device; only after iso_backend_cuda succeeded. */
iso_cuda *iso_cuda_get(void);
/* Remembers the first failure: kernels cannot return one. `what` is a clause: "a sum". False. */
bool iso_cuda_remember(const char *what, const char *reason);
/* The same of a code that is none of success; true on success. */
bool iso_cuda_ok(cudaError_t e, const char *what);
bool iso_cuda_blas_ok(cublasStatus_t s, const char *what);
bool iso_cuda_dnn_ok(cudnnStatus_t s, const char *what);
/* cuDNN's words for its last failure: "reason" or "reason (details)". */
typedef struct iso_cuda_reason {
    char text[200];
} iso_cuda_reason;
iso_cuda_reason iso_cuda_dnn_reason(cudnnStatus_t s);

/* runs.c: a plan's runs as a graph, and small outputs. */
iso_status iso_cuda_runs_create(void **runs, iso_error *err);
void iso_cuda_runs_free(void *runs);
void iso_cuda_runs_run(void *runs, void (*launch)(void *plan), void *plan);
void iso_cuda_runs_after(void *runs, int number, int count, const int *earlier);
void iso_cuda_runs_wait(void *runs);
/* "" where a run is a graph with branches, else what it is and why. */
void iso_cuda_runs_tell(const void *runs, char *text, size_t size);
/* Around what uses something that is shared: within a graph it then waits for the last that did. */
void iso_cuda_shared_begin(int which);
void iso_cuda_shared_end(int which);
void iso_cuda_publish_reals(void *host, int n, const void *const *from, const int64_t *count);

/* transfer.c: between the host and the device, through page-locked memory. */
iso_status iso_cuda_transfer_open(iso_error *err);
void iso_cuda_put(void *to, const void *host, size_t bytes);
void iso_cuda_get_bytes(void *host, const void *from, size_t bytes);

/* chain.c: fused elementwise chains as source code; compile.c: source code to kernels. */
char *iso_cuda_chain_source(const iso_fused *f); /* the body of its kernel; NULL when memory is out */
void iso_cuda_chain_run(const iso_fused *f);
iso_status iso_cuda_chain_prepare(int count, const iso_fused *const *fused, iso_error *err);
void iso_cuda_elementwise(const iso_call *call, iso_op op);

typedef struct iso_cuda_chain { /* the argument of every such kernel */
    const float *in[ISO_FUSED_MAX_INPUTS];
    float *out[ISO_FUSED_MAX_STEPS];
} iso_cuda_chain;
#define ISO_CUDA_CHAIN_TEXT "struct chain { const float *in[24]; float *out[48]; };\n"
_Static_assert(ISO_FUSED_MAX_INPUTS == 24 && ISO_FUSED_MAX_STEPS == 48, "ISO_CUDA_CHAIN_TEXT says so");

/* Kernels for bodies, all of which are compiled at once where they are new. */
iso_status iso_cuda_compile(int count, char *const *body, iso_error *err);
const void *iso_cuda_compiled(const char *body); /* NULL: not compiled */

/* products.c: matmul by cuBLAS; convolution.c: the three forms by cuDNN, or by cuBLAS where they are matrix products;
 * patches.c: by cuBLAS over patches, where cuDNN has nothing. */
typedef struct iso_cuda_gemm { /* row-major: out [batch, m, n] = op(a) [batch, m, k] op(b) [batch, k, n] */
    const float *a, *b;
    float *out;
    int64_t batch, m, n, k;
    bool transpose_a, transpose_b;
    bool add; /* to what is in out */
} iso_cuda_gemm;
void iso_cuda_gemm_run(const iso_cuda_gemm *g, bool tf32);
iso_status iso_cuda_gemm_check(const iso_cuda_gemm *g, iso_error *err);
void iso_cuda_matmul(const iso_call *call, bool tf32);
iso_status iso_cuda_matmul_prepare(const iso_call *call, iso_error *err);
void iso_cuda_convolve(iso_op op, const iso_call *call, bool tf32);
iso_status iso_cuda_convolve_prepare(iso_op op, const iso_call *call, bool tf32, iso_error *err);
void iso_cuda_convolve_tell(char *text, size_t size); /* which of all convolutions cuDNN would not do; "": none */
size_t iso_cuda_convolve_workspace(iso_op op, const iso_call *call, bool tf32);

iso_status iso_cuda_patches_check(const iso_cuda_shapes *s, iso_error *err);
size_t iso_cuda_patches_workspace(const iso_cuda_shapes *s);
void iso_cuda_patches_run(iso_op op, const iso_cuda_shapes *s, const iso_call *call, void *workspace, bool tf32);

/* moves.c: shapes to the kernels of kernels.h. */
void iso_cuda_sum_op(const iso_call *call);
size_t iso_cuda_sum_workspace(const iso_call *call);
void iso_cuda_broadcast(const iso_call *call);
void iso_cuda_permute(const iso_call *call);
void iso_cuda_slice(const iso_call *call);
void iso_cuda_pad_op(const iso_call *call);
void iso_cuda_concat(const iso_call *call);
void iso_cuda_gather(const iso_call *call);
void iso_cuda_scatter(const iso_call *call);

#endif
