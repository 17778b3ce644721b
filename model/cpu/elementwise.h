/* elementwise.h: the elementwise ops on short runs of floats that lie in the first-level cache.
 *
 * exp, log, tanh, sigmoid and softplus are polynomials of our own: without branches, so that a compiler turns the loops
 * into vector code, and right for NaN, infinities and denormals. Errors are within 4 units in the last place. */
#ifndef ISO_CPU_ELEMENTWISE_H
#define ISO_CPU_ELEMENTWISE_H

#include <stdbool.h>
#include <stdint.h>
#include "model/graph/graph.h"

/* out[i] = op(a[i], b[i]); b is NULL for unary ops, f is attr.f. out may be a or b, no other overlap. */
void iso_elementwise_run(iso_op op, int64_t n, const float *a, const float *b, float f, float *out);
/* Whether `second`, whose operand k is what `first` gives, can be had in one pass with it, with the same bits. Then a is first's first operand, b the
 * other one that the two have, if any, and f the attr.f of the one that has any. */
bool iso_elementwise_pairs(iso_op first, iso_op second, int k);
void iso_elementwise_run_pair(iso_op first, iso_op second, int k, int64_t n, const float *a, const float *b, float f, float *out);
void iso_elementwise_fill(int64_t n, float value, float *out);
void iso_elementwise_copy(int64_t n, const float *a, float *out);

#endif
