/* backend.h: what runs an op: the interface between plans and kernels.
 *
 * A backend is a table of kernels over plain memory. The reference backend
 * computes in double with loops that read like the definitions; the CPU
 * backend computes in float. A kernel gets shapes that were checked when the
 * graph was built, never fails, allocates nothing, and may use all threads.
 */
#ifndef ISO_BACKEND_H
#define ISO_BACKEND_H

#include "model/graph/graph.h"

typedef struct iso_tensor {
    void *data;      /* float or double (iso_backend.real_size); int64_t for an index */
    iso_shape shape; /* contiguous, last axis fastest */
} iso_tensor;

typedef struct iso_call {
    iso_attr attr;
    iso_tensor in[ISO_MAX_INPUTS];
    iso_tensor out;
    void *workspace; /* iso_backend.workspace bytes, 64-byte aligned; NULL when 0 */
    int threads;
} iso_call;

typedef void (*iso_kernel)(const iso_call *call);

#define ISO_FUSED_MAX_STEPS 48
#define ISO_FUSED_MAX_INPUTS 24

/* A fused chain of elementwise ops over one iteration shape.
 * Value numbers: 0 ... inputs-1 are the inputs, then one per step. */
typedef struct iso_fused_input {
    const void *data;
    iso_shape shape;                /* as it is; broadcasts to the iteration shape */
    int64_t stride[ISO_MAX_DIMS];   /* in elements over the iteration shape's axes (right-aligned); 0 where broadcast */
    bool dense;                     /* same shape as the iteration shape: plain flat indexing */
} iso_fused_input;

typedef struct iso_fused_step {
    iso_op op;
    int a, b;        /* value numbers; b = -1 for unary ops */
    double f;        /* attr.f */
    void *out;       /* where this step's value is stored (dense), or NULL */
} iso_fused_step;

typedef struct iso_fused {
    iso_shape shape; /* the iteration shape; every step's value has it */
    int64_t count;   /* its elements */
    int inputs, steps;
    const iso_fused_input *input;
    const iso_fused_step *step;
    int threads;
} iso_fused;
/* A step's `out` may be the data of a dense input (in-place): element i of it is read only for element i.
 * Loads of a tile happen before its stores. Two outputs never share memory. */

typedef struct iso_backend {
    const char *name;   /* "reference", "cpu" */
    size_t real_size;   /* 8 or 4 */
    iso_kernel kernel[ISO_OP_COUNT];                  /* NULL: not in this backend (sources and views have none) */
    size_t (*workspace)(iso_op op, const iso_call *); /* bytes; data pointers are not set yet. May be NULL. */
    void (*fused)(const iso_fused *);                 /* NULL: elementwise ops run one by one through kernel[] */
    void *(*alloc)(size_t bytes);                     /* 64-byte aligned, zeroed; NULL when memory is out */
    void (*release)(void *, size_t bytes);
    /* Between the host's memory and the backend's; NULL: they are the same memory. */
    void (*put)(void *to, const void *host, size_t bytes);
    void (*get)(void *host, const void *from, size_t bytes);
} iso_backend;

const iso_backend *iso_backend_reference(void); /* double, plain loops */
const iso_backend *iso_backend_cpu(void);       /* float, OpenBLAS and OpenMP */

/* Multiply-adds count two. Elementwise ops one per element. */
double iso_op_flops(iso_op op, const iso_call *call);
bool iso_op_elementwise(iso_op op);

#endif
