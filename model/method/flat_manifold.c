/* Chen 2020 eq. 9-12, as Lee 2022 (appendix C) compares it: E|G - cI|_F^2 with c = E[Tr G] / m, G = JtJ. One probe
 * v ~ N(0, I) per code stands for the norm, E_v|Av|^2 = |A|_F^2, and the same probes give c. c moves with the decoder: the
 * gradient goes through it. */
#include "model/method/method.h"

iso_flat iso_flat_manifold(iso_graph *g, iso_probe p)
{
    iso_flat f;
    iso_shape shape = iso_node_shape(g, p.v);
    int64_t batch = shape.ndim == 2 ? shape.dim[0] : 1, latent = shape.ndim == 2 ? shape.dim[1] : 1;
    f.distortion = iso_relaxed_distortion(g, p);
    f.c = iso_scale(g, f.distortion.trace, 1.0 / (double)latent);
    iso_node rest = iso_sub(g, f.distortion.jtjv, iso_mul(g, f.c, p.v)); // [B, m]
    f.loss = iso_scale(g, iso_sum_all(g, iso_square(g, rest)), 1.0 / (double)batch);
    return f;
}
