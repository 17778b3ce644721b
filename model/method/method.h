/* method.h: the losses of the papers, each a function that reads like its formula (methods.md). */
#ifndef ISO_METHOD_H
#define ISO_METHOD_H

#include "model/model.h"

/* z~ = delta z + (1 - delta) z[perm]; z [B, ...], delta [B, 1], perm [B]. Lee 2022 B.1. */
iso_node iso_mixup(iso_graph *g, iso_node z, iso_node perm, iso_node delta);

/* The Jacobian J of x by some codes z, and a direction v [B, m]: x is an expression of `at`, which is z itself or linear in it, and
 * `tangent` is what v becomes there, likewise linear in v. So J v = dx/d(at) tangent, [B, ...], and JtJv comes back through both. */
typedef struct iso_probe { iso_node x, at, tangent, v; } iso_probe;
iso_probe iso_probe_codes(iso_node x, iso_node z, iso_node v); /* at = z */
/* The decoder at mixed-up codes. Its first layer is linear: what it gives for them is what it gives for z, mixed up, and a graph that decodes z has that
 * already, as do its gradients. */
iso_probe iso_probe_decoder(iso_graph *g, const iso_net *net, iso_node z, iso_node perm, iso_node delta, iso_node v);

/* Lee 2022 eq. 10 in the form of B.1: R = E|JtJv|^2 / (E|Jv|^2)^2. */
typedef struct iso_distortion { iso_node jv, jtjv, trace, trace2, ratio; } iso_distortion;
iso_distortion iso_relaxed_distortion(iso_graph *g, iso_probe probe);

/* Chen 2020 eq. 9-12 in the form of Lee 2022 C: loss = E|JtJv - cv|^2, c = E|Jv|^2 / m of the same probes.
 * Unlike R it has the units of G^2, and is least at G = 0. c and loss are scalars. */
typedef struct iso_flat { iso_node c, loss; iso_distortion distortion; } iso_flat;
iso_flat iso_flat_manifold(iso_graph *g, iso_probe probe);

/* Lee 2022 4.3, Kingma & Welling 2014. All per image [B, 1]; `sigma` is a scalar node, the decoder's noise. */
iso_node iso_reparameterise(iso_graph *g, iso_node mu, iso_node log_sigma, iso_node eps);       /* mu + e^log_sigma eps */
iso_node iso_gaussian_nll(iso_graph *g, iso_node x, iso_node mean, iso_node sigma);             /* summed over the data */
iso_node iso_gaussian_kl(iso_graph *g, iso_node mu, iso_node log_sigma);                        /* to N(0, I), summed over m */

/* The supervised upper bound (Lee 2022 5.2): binary cross-entropy, the mean over images and classes. logits [B, classes], labels
 * likewise, 0 or 1. Of a supervised net: x [B, 64, 64, 3]; code [B, m], its unit vectors; accuracy: the share of labels told right. */
iso_node iso_cross_entropy(iso_graph *g, iso_node logits, iso_node labels);
typedef struct iso_supervised { iso_node code, logits, loss, accuracy; } iso_supervised;
iso_supervised iso_supervise(iso_graph *g, const iso_net *net, iso_node x, iso_node labels);

/* Lee 2022 eq. 11 (4.2, B.2): loss = R(f o i^-1; mixed-up i(z)) + beta E|i(z)|^2. z [B, m] codes; code, mixed [B, m]. */
typedef struct iso_flattening { iso_node code, mixed, norm, loss; iso_distortion distortion; } iso_flattening;
iso_flattening iso_flatten(iso_graph *g, const iso_net *net, iso_node z, iso_node perm, iso_node delta, iso_node v, double beta);

#endif
