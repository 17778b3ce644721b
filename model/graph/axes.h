/* axes.h: where the numbers of a tensor lie, told by as few axes as can be, for the kernels of every backend that move or sum. Pure functions. */
#ifndef ISO_AXES_H
#define ISO_AXES_H

#include "model/graph/backend.h"

/* Axes with their strides in elements, the slowest first; none has size 1, and neighbours in memory are one. */
typedef struct iso_axis {
    int64_t n, stride;
} iso_axis;
typedef struct iso_axes {
    int count;
    iso_axis at[ISO_MAX_DIMS];
} iso_axes;

/* Number of elements. */
int64_t iso_axes_count(const iso_axes *a);

/* The output's axes as they lie in the input of a PERMUTE of something; at least one. The one with stride 1 is the input's last. */
iso_axes iso_axes_permuted(const iso_call *call);

/* A sum of `in` to the shape `out`: for each index of `kept` and each of `summed`, `inner` neighbours are added to one element each (inner_kept),
 * or all to one. */
typedef struct iso_reduction {
    iso_axes kept, summed;
    int64_t inner;
    bool inner_kept;
} iso_reduction;
iso_reduction iso_reduction_of(const iso_shape *in, const iso_shape *out);

/* A tensor as [outer, axis, inner]. */
typedef struct iso_slab {
    int64_t outer, inner;
} iso_slab;
iso_slab iso_slab_of(const iso_shape *s, int64_t axis);

/* Elements of one index of the first axis. */
int64_t iso_row_length(const iso_shape *s);

#endif
