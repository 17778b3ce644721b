/* Lee 2022 eq. 11 (4.2, B.2): R(f o i^-1) at mixed-up flow codes, + beta E|i(z)|^2. */
#include "model/method/method.h"
#include "model/net/net.h"

iso_flattening iso_flatten(iso_graph *g, const iso_net *net, iso_node z, iso_node perm, iso_node delta, iso_node v, double beta)
{
    iso_flattening f;
    f.code = iso_flow_forward(g, net, z); // [B, m]
    f.mixed = iso_mixup(g, f.code, perm, delta);
    iso_node x = iso_net_decode(g, net, iso_flow_inverse(g, net, f.mixed));
    f.distortion = iso_relaxed_distortion(g, iso_probe_codes(x, f.mixed, v));
    f.norm = iso_mean_all(g, iso_sum_rows(g, iso_square(g, f.code))); // E|i(z)|^2
    f.loss = iso_add(g, f.distortion.ratio, iso_scale(g, f.norm, beta));
    return f;
}
