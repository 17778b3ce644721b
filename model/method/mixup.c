#include "model/method/method.h"

iso_node iso_mixup(iso_graph *g, iso_node z, iso_node perm, iso_node delta)
{
    if (z == ISO_NONE || delta == ISO_NONE) return ISO_NONE;
    iso_shape one = iso_node_shape(g, z); // [B, 1, ...]
    for (int i = 1; i < one.ndim; i++) one.dim[i] = 1;
    delta = iso_reshape(g, delta, one);
    iso_node other = iso_gather(g, z, perm);
    iso_node rest = iso_shift(g, iso_neg(g, delta), 1); // 1 - delta
    return iso_add(g, iso_mul(g, delta, z), iso_mul(g, rest, other));
}
