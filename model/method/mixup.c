#include "model/method/method.h"

iso_node iso_mixup(iso_graph *g, iso_node z, iso_node perm, iso_node delta)
{
    iso_node other = iso_gather(g, z, perm);
    iso_node rest = iso_shift(g, iso_neg(g, delta), 1); // 1 - delta
    return iso_add(g, iso_mul(g, delta, z), iso_mul(g, rest, other));
}
