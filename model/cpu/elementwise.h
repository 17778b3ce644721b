/* elementwise.h: the elementwise ops on short runs of floats that lie in the first-level cache.
 *
 * exp, log, tanh, sigmoid and softplus are polynomials of our own: without branches, so that a compiler turns the loops
 * into vector code, and right for NaN, infinities and denormals. Errors are within 4 units in the last place. */
#ifndef ISO_CPU_ELEMENTWISE_H
#define ISO_CPU_ELEMENTWISE_H

#include <stdbool.h>
#include <stdint.h>
#include "model/graph/graph.h"

/* What is done in one pass over such a run: an op, or several of which nothing else needs the results between them. With the same bits as one after
 * the other. Numbers as in iso_fused: 0 ... inputs-1 are what it reads, then one for each op; the last op's result is what it gives. */
enum { ISO_PASS_INPUTS = 5, ISO_PASS_OPS = 6 };
typedef struct iso_pass {
    int inputs, ops;
    struct {
        iso_op op;
        int a, b; /* b = -1 for unary ops */
    } op[ISO_PASS_OPS];
    /* f: the ops' attr.f. out may be one of x, no other overlap */
    void (*run)(int64_t n, const float *const x[ISO_PASS_INPUTS], const float f[ISO_PASS_OPS], float *out);
} iso_pass;
extern const iso_pass iso_passes[];
extern const int iso_pass_count; /* those of many ops first; one for each elementwise op by itself is among them */

/* out[i] = op(a[i], b[i]); b is NULL for unary ops, f is attr.f. out may be a or b, no other overlap. */
void iso_elementwise_run(iso_op op, int64_t n, const float *a, const float *b, float f, float *out);
void iso_elementwise_fill(int64_t n, float value, float *out);
void iso_elementwise_copy(int64_t n, const float *a, float *out);

#endif
