/* plan.h: an expression made ready to run.
 *
 * Planning drops what no output needs, fuses elementwise chains, orders the
 * rest and lays all intermediates in one arena by liveness. A plan allocates
 * nothing while it runs; its peak memory and FLOPs are known before it starts.
 *
 *     iso_vars_create(backend, &vars, err); iso_vars_add_states(vars, g, 1, &loss, err); iso_vars_write(vars, "w", data, count, err);
 *     iso_plan_create(g, &(iso_plan_spec){.vars = vars, .outputs = &loss, .output_count = 1}, &plan, err);
 *     iso_plan_write(plan, x, images, count, err); iso_plan_run(plan); iso_plan_read(plan, loss, &value, 1, err);
 *
 * Plans over the same vars share parameters; run them one at a time.
 */
#ifndef ISO_PLAN_H
#define ISO_PLAN_H

#include "model/graph/backend.h"

/* Named persistent tensors on one backend: parameters, Adam moments. */
typedef struct iso_vars iso_vars;
ISO_CHECK iso_status iso_vars_create(const iso_backend *backend, iso_vars **out, iso_error *err);
void iso_vars_free(iso_vars *v);
/* Adds a zeroed tensor; the same name with the same shape again is fine, with another shape an error. */
ISO_CHECK iso_status iso_vars_add(iso_vars *v, const char *name, iso_shape shape, iso_error *err);
/* Adds every state that the outputs need. */
ISO_CHECK iso_status iso_vars_add_states(iso_vars *v, const iso_graph *g, int count, const iso_node *outputs, iso_error *err);
int iso_vars_count(const iso_vars *v);
const char *iso_vars_name(const iso_vars *v, int i);
iso_shape iso_vars_shape(const iso_vars *v, int i); /* of a permuted state iso_state_shape */
int iso_vars_find(const iso_vars *v, const char *name); /* -1: none */
/* Whole tensors in the order of iso_vars_shape, converted to and from the backend's precision. count must be the tensor's. */
ISO_CHECK iso_status iso_vars_write(iso_vars *v, const char *name, const float *data, int64_t count, iso_error *err);
ISO_CHECK iso_status iso_vars_read(const iso_vars *v, const char *name, float *data, int64_t count, iso_error *err);
size_t iso_vars_bytes(const iso_vars *v);

typedef struct iso_assign {
    iso_node state;  /* an iso_state node */
    iso_node value;  /* of its shape; after the run the state holds it. Every read of the state in that run sees the old value. */
} iso_assign;

typedef struct iso_plan_spec {
    iso_vars *vars;             /* has every state needed, and the backend */
    int output_count;
    const iso_node *outputs;
    int assign_count;
    const iso_assign *assigns;
    int threads;                /* 0: all of OpenMP's */
    bool frozen;                /* states that are not assigned do not change after the first run: what depends on them alone (a weight in
                                 * the engine's layout) is computed by that run and kept */
} iso_plan_spec;

typedef struct iso_plan iso_plan;
ISO_CHECK iso_status iso_plan_create(const iso_graph *g, const iso_plan_spec *spec, iso_plan **out, iso_error *err);
void iso_plan_free(iso_plan *p);

typedef struct iso_plan_stats {
    int nodes, steps, fused; /* nodes needed; kernels launched per run; of them fused groups */
    size_t arena;            /* bytes for intermediates, inputs and workspaces */
    size_t vars;             /* bytes of the vars it uses */
    double flops, gemm_flops;/* a run; those in matmul and convolutions */
} iso_plan_stats;
iso_plan_stats iso_plan_describe(const iso_plan *p);
/* The arena and vars that such a plan would take, without taking them; the spec's vars need not have the states. */
ISO_CHECK iso_status iso_plan_measure(const iso_graph *g, const iso_plan_spec *spec, iso_plan_stats *out, iso_error *err);

/* Writing an input that the plan dropped is fine and does nothing. `count` elements; must be the node's. */
ISO_CHECK iso_status iso_plan_write(iso_plan *p, iso_node input, const float *data, int64_t count, iso_error *err);
ISO_CHECK iso_status iso_plan_write_f64(iso_plan *p, iso_node input, const double *data, int64_t count, iso_error *err);
ISO_CHECK iso_status iso_plan_write_index(iso_plan *p, iso_node input, const int64_t *data, int64_t count, iso_error *err);
/* On a device a run goes on after this returned; the next run's inputs may be written meanwhile, and reading waits for it. */
void iso_plan_run(iso_plan *p);
/* Only outputs can be read. Tells also what failed on a device since it was opened. */
ISO_CHECK iso_status iso_plan_read(const iso_plan *p, iso_node output, float *data, int64_t count, iso_error *err);
ISO_CHECK iso_status iso_plan_read_f64(const iso_plan *p, iso_node output, double *data, int64_t count, iso_error *err);

/* Rows of bytes that become an input on a device: all of them in its memory where they do not change and fit, else those of a
 * batch at a time, sent without waiting. Only for a backend with a device. */
typedef struct iso_bytes iso_bytes;
typedef struct iso_bytes_spec {
    const uint8_t *host;  /* [rows, dim], borrowed */
    int64_t rows, dim, batch;
    int64_t width, depth; /* a row is lines of `width` elements of `depth` bytes: what is reversed in a mirrored row */
    bool fixed;           /* the bytes stay as they are */
} iso_bytes_spec;
ISO_CHECK iso_status iso_bytes_create(const iso_backend *backend, const iso_bytes_spec *spec, iso_bytes **out, iso_error *err);
void iso_bytes_free(iso_bytes *b);
bool iso_bytes_resident(const iso_bytes *b);
/* The input's row i is row rows[i] of the bytes, x / 127.5 - 1, mirrored where mirror[i] (mirror NULL: nowhere). n rows, at
 * most the batch. */
ISO_CHECK iso_status iso_plan_write_bytes(iso_plan *p, iso_node input, iso_bytes *b, const int64_t *rows,
                                          const uint8_t *mirror, int64_t n, iso_error *err);

/* What makes the runs on a device slower than they might be, as far as is known after the second; "": nothing. */
void iso_plan_tell(const iso_plan *p, char *text, size_t size);
/* Per-op seconds of all runs since creation, as lines "op  calls  seconds  gflops" to stderr; needs ISO_PLAN_PROFILE=1 in the environment at creation;
 * ISO_PLAN_PROFILE=2: also by op and sizes. */
void iso_plan_profile(const iso_plan *p);

#endif
