/* Lee 2022 eq. 10, estimated as in B.1: one probe v ~ N(0, I) per code gives
 * E|Jv|^2 = E Tr G and E|JtJv|^2 = E Tr G^2, where G = JtJ. */
#include "model/method/method.h"
#include "model/net/net.h"

static iso_node mean_square(iso_graph *g, iso_node x, int64_t batch)
{
    return iso_scale(g, iso_sum_all(g, iso_square(g, x)), 1.0 / (double)batch);
}

iso_probe iso_probe_codes(iso_node x, iso_node z, iso_node v) { return (iso_probe){x, z, v, v}; }

iso_probe iso_probe_decoder(iso_graph *g, const iso_net *net, iso_node z, iso_node perm, iso_node delta, iso_node v)
{
    iso_node mixed = iso_mixup(g, iso_net_decode_first(g, net, z), perm, delta);
    return (iso_probe){iso_net_decode_rest(g, net, mixed), mixed, iso_net_decode_first(g, net, v), v};
}

iso_distortion iso_relaxed_distortion(iso_graph *g, iso_probe p)
{
    int64_t batch = p.v == ISO_NONE ? 1 : iso_node_shape(g, p.v).dim[0];
    iso_distortion d;
    d.jv = iso_jvp1(g, p.x, p.at, p.tangent);                             // the shape of x
    d.jtjv = iso_vjp1(g, p.tangent, p.v, iso_vjp1(g, p.x, p.at, d.jv)); // [B, m]
    d.trace = mean_square(g, d.jv, batch);
    d.trace2 = mean_square(g, d.jtjv, batch);
    d.ratio = iso_div(g, d.trace2, iso_square(g, d.trace));
    return d;
}
