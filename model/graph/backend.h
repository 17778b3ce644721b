/* backend.h: what runs an op: the interface between plans and kernels.
 *
 * A backend is a table of kernels over plain memory. The reference backend
 * computes in double with loops that read like the definitions; the CPU
 * backend computes in float. A kernel gets shapes that were checked when the
 * graph was built, never fails, allocates nothing, and may use all threads.
 * On the host several may run at once, each then told to use one thread and
 * given a workspace of its own: they share nothing that changes.
 *
 * A backend with a device (iso_device) computes while the caller goes on:
 * kernels, put and copy are done in the order they were asked for, get and
 * wait wait. What fails there is remembered, and told by check.
 */
#ifndef ISO_BACKEND_H
#define ISO_BACKEND_H

#include "model/graph/graph.h"

typedef struct iso_tensor {
    void *data;      /* float or double (iso_backend.real_size); int64_t for an index */
    iso_shape shape; /* contiguous, last axis fastest */
} iso_tensor;

typedef struct iso_fused iso_fused;

typedef struct iso_call {
    iso_attr attr;
    iso_tensor in[ISO_MAX_INPUTS];
    iso_tensor out;
    void *workspace; /* iso_backend.workspace bytes, 64-byte aligned; NULL when 0 */
    const iso_fused *tail; /* what is done with the result while it is in the cache (iso_backend.tails): its first input is out.data, and an
                            * output of it may be; NULL: nothing */
    iso_tensor prepared; /* in[1] as iso_backend.prepare wrote it; ndim 0: the kernel reads in[1] */
    int threads;
    /* Of a slice (iso_slicing): */
    int64_t part_of;     /* it is some images of a call with so many, and is computed as that would be; 0: a whole call */
    bool wide, add;      /* out are doubles, sums that are not rounded yet; what is there is added to */
    const struct iso_call *along; /* of a conv: a conv_w of the same in[0], for as many images, that it does as well (iso_slicing.along); NULL */
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

struct iso_fused {
    iso_shape shape; /* the iteration shape; every step's value has it */
    int64_t count;   /* its elements */
    int inputs, steps;
    const iso_fused_input *input;
    const iso_fused_step *step;
    int threads;
};
/* A step's `out` may be the data of a dense input (in-place): element i of it is read only for element i.
 * Loads of a tile happen before its stores. Two outputs never share memory. */

/* What a thread reads next: a kernel may ask for it beforehand. */
typedef struct iso_ahead {
    int count;
    struct {
        const void *at;
        size_t bytes;
    } range[16];
} iso_ahead;

/* Small products done at once by one thread, and elementwise ops on what they give while that is in the cache:
 *     not sum: result i = a_i b_0: as one product of the a's on top of each other, so b is read once;
 *     sum:     result 0 = the sum of a_i' b_i: as one product of the depths one after another.
 * Several that are no sum have no transposed a's, and a sum has. All a's have one shape, and all b's. */
#define ISO_PRODUCTS_MAX 8
typedef struct iso_products {
    int count;
    bool sum, transpose_a, transpose_b;
    iso_tensor a[ISO_PRODUCTS_MAX], b[ISO_PRODUCTS_MAX];
    iso_shape shape;               /* of a result: [m, n] */
    int64_t part_of;               /* these are some rows of products that have so many; 0: whole ones */
    void *out[ISO_PRODUCTS_MAX];   /* where the results are stored; NULL where only the tail reads them */
    const iso_fused *tail;         /* its first inputs are the results, with these addresses; steps 0: none */
    void *workspace;               /* iso_backend.products_workspace bytes */
    iso_tensor prepared;           /* of those that are no sum: b as iso_backend.prepare wrote it for a MATMUL; ndim 0: as it is */
    const iso_ahead *ahead;        /* NULL: not known */
} iso_products;

/* What a backend adds whose memory and clock are not the host's. All of it. One thread at a time. */
typedef struct iso_device {
    /* Before a plan is laid out (shapes and attributes only) and before it runs: what a kernel needs that may fail. */
    iso_status (*prepare)(iso_op op, const iso_call *call, iso_error *err);
    iso_status (*prepare_fused)(int count, const iso_fused *const *fused, iso_error *err);
    /* A plan's runs. The device calls launch(plan), which calls every kernel once, as often as it needs to, and may keep
     * what it asked for and do that again instead. wait: for the last of them. */
    iso_status (*runs_create)(void **runs, iso_error *err);
    void (*runs_free)(void *runs);
    void (*run)(void *runs, void (*launch)(void *plan), void *plan);
    /* Told by launch: what it asks for next is work `number` of the run, rising, which has to wait for `count` earlier ones. What follows it without
     * a number waits for it. NULL: the device does everything in order. */
    void (*after)(void *runs, int number, int count, const int *earlier);
    void (*wait)(void *runs); /* NULL: for all that was asked for */
    void (*tell)(const void *runs, char *text, size_t size); /* what makes the runs slower than they might be; "": nothing */
    void (*copy)(void *to, const void *from, size_t bytes); /* within the device's memory */
    /* Some reals of n tensors, one behind the other, into memory of host_alloc; there after the run's wait. */
    void (*publish)(void *host, int n, const void *const *from, const int64_t *count);
    void *(*host_alloc)(size_t bytes); /* NULL when memory is out */
    void (*host_release)(void *p);
    /* out [n, dim] = data[rows[i]] / 127.5 - 1; a row is lines of `width` elements of `depth` bytes, which are reversed where
     * mirror[i] is not 0. All in the device's memory; mirror may be NULL. */
    void (*bytes)(void *out, const uint8_t *data, const int64_t *rows, const uint8_t *mirror, int64_t n, int64_t dim,
                  int64_t width, int64_t depth);
    size_t (*free_memory)(void);
    iso_status (*check)(iso_error *err); /* what went wrong first, if anything did */
} iso_device;
enum { ISO_PUBLISH_TENSORS = 32, ISO_PUBLISH_REALS = 16 }; /* at most, and of each */

/* Large calls cut into slices of images, each computed by one thread, so that a plan may take some images through many layers while they are in
 * the cache, and no thread waits for another after every layer. A slice of a call whose result has images gives its part of it. Those of a sum over
 * images (conv_w, sum) are `wide`: they add to a few lots of sums, which `join` puts together. */
typedef struct iso_slicing {
    /* Images of a slice of a call; 0: better whole. By shapes and attributes alone, not by the threads: results may depend on it. */
    int64_t (*images)(iso_op op, const iso_call *call);
    /* Whether the kernel of a slice of conv does one of conv_w, of the same in[0], along with it (iso_call.along). NULL: never. */
    bool (*along)(const iso_call *conv, const iso_call *conv_w);
    iso_kernel join; /* out = the sum of in[0], doubles [lots, out's elements] */
    size_t bytes;    /* of an operand, about, in a slice of a sum or of an elementwise chain */
} iso_slicing;

typedef struct iso_backend {
    const char *name;   /* "reference", "cpu", "cuda" */
    size_t real_size;   /* 8 or 4 */
    iso_kernel kernel[ISO_OP_COUNT];                  /* NULL: not in this backend (sources and views have none) */
    size_t (*workspace)(iso_op op, const iso_call *); /* bytes; data pointers are not set yet. May be NULL. */
    void (*fused)(const iso_fused *);                 /* NULL: elementwise ops run one by one through kernel[] */
    void (*products)(const iso_products *);           /* NULL: products run one by one; not without `fused` */
    size_t (*products_workspace)(const iso_products *);
    bool tails;                                       /* conv and conv_x do their call's tail; not without `fused` */
    /* Weights in the form that a kernel multiplies by, so that those that multiply by the same ones need not each bring them into it. Bytes for
     * in[1] of a call (data pointers are not set yet), 0: as they are. Calls of the same op and attributes with the same *form may share. NULL: none. */
    size_t (*prepared)(iso_op op, const iso_call *call, int *form);
    iso_kernel prepare[ISO_OP_COUNT];                 /* writes call->prepared; in[0] and out have shapes only */
    const iso_slicing *slicing;                       /* NULL: calls stay whole */
    void *(*alloc)(size_t bytes);                     /* 64-byte aligned, zeroed; NULL when memory is out */
    void (*release)(void *, size_t bytes);
    /* Between the host's memory and the backend's; NULL: they are the same memory. */
    void (*put)(void *to, const void *host, size_t bytes);
    void (*get)(void *host, const void *from, size_t bytes);
    const iso_device *device;                         /* NULL: kernels are done when they return */
} iso_backend;

const iso_backend *iso_backend_reference(void); /* double, plain loops */
const iso_backend *iso_backend_cpu(void);       /* float, OpenBLAS and OpenMP */

/* Multiply-adds count two. Elementwise ops one per element. */
double iso_op_flops(iso_op op, const iso_call *call);
bool iso_op_elementwise(iso_op op);

#endif
