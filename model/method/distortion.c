/* Lee 2022 eq. 10, estimated as in B.1: one probe v ~ N(0, I) per code gives
 * E|Jv|^2 = E Tr G and E|JtJv|^2 = E Tr G^2, where G = JtJ. */
#include "model/method/method.h"

static iso_node mean_square(iso_graph *g, iso_node x, int64_t batch)
{
    return iso_scale(g, iso_sum_all(g, iso_square(g, x)), 1.0 / (double)batch);
}

iso_distortion iso_relaxed_distortion(iso_graph *g, iso_node x, iso_node z, iso_node v)
{
    int64_t batch = z == ISO_NONE ? 1 : iso_node_shape(g, z).dim[0];
    iso_distortion d;
    d.jv = iso_jvp1(g, x, z, v);      // the shape of x
    d.jtjv = iso_vjp1(g, x, z, d.jv); // [B, m]
    d.trace = mean_square(g, d.jv, batch);
    d.trace2 = mean_square(g, d.jtjv, batch);
    d.ratio = iso_div(g, d.trace2, iso_square(g, d.trace));
    return d;
}
