/* The variational autoencoder's bound (Kingma & Welling 2014; Lee 2022 4.3). */
#include <math.h>

#include "model/method/method.h"

iso_node iso_reparameterise(iso_graph *g, iso_node mu, iso_node log_sigma, iso_node eps)
{
    return iso_add(g, mu, iso_mul(g, iso_exp(g, log_sigma), eps));
}

/* -log N(x; mean, sigma^2 I) = |x - mean|^2 / (2 sigma^2) + D/2 log(2 pi sigma^2) */
iso_node iso_gaussian_nll(iso_graph *g, iso_node x, iso_node mean, iso_node sigma)
{
    if (x == ISO_NONE) return ISO_NONE;
    iso_shape shape = iso_node_shape(g, x);
    double dim = (double)(iso_shape_count(&shape) / shape.dim[0]);
    iso_node variance = iso_square(g, sigma);
    iso_node misfit = iso_sum_rows(g, iso_square(g, iso_sub(g, x, mean))); // [B, 1]
    iso_node constant = iso_scale(g, iso_log(g, iso_scale(g, variance, 2 * M_PI)), dim / 2);
    return iso_add(g, iso_scale(g, iso_div(g, misfit, variance), 0.5), constant);
}

/* KL(N(mu, sigma^2) | N(0, I)) = 1/2 sum(mu^2 + sigma^2 - 1) - log sigma */
iso_node iso_gaussian_kl(iso_graph *g, iso_node mu, iso_node log_sigma)
{
    iso_node variance = iso_exp(g, iso_scale(g, log_sigma, 2));
    iso_node half = iso_scale(g, iso_shift(g, iso_add(g, iso_square(g, mu), variance), -1), 0.5);
    return iso_sum_rows(g, iso_sub(g, half, log_sigma)); // [B, 1]
}
