/* adam.h: Adam (Kingma & Ba 2015) as graph expressions, so that a whole training step is one plan.
 *
 *     m' = b1 m + (1 - b1) g          v' = b2 v + (1 - b2) g^2
 *     p' = p - lr/(1 - b1^t) * m' / (sqrt(v')/sqrt(1 - b2^t) + eps)
 *
 * b1 = 0.9, b2 = 0.999, eps = 1e-8 outside the root, as PyTorch has it. What depends on the step number t enters as two
 * scalar inputs, so one plan serves all steps. The moments are states "adam.m.<param>" and "adam.v.<param>". */
#ifndef ISO_ADAM_H
#define ISO_ADAM_H

#include "model/graph/plan.h"

#define ISO_ADAM_BETA1 0.9
#define ISO_ADAM_BETA2 0.999
#define ISO_ADAM_EPS 1e-8

/* What an update reads beside its gradient: inputs "adam.rate" = lr/(1 - b1^t) and "adam.root" = 1/sqrt(1 - b2^t). */
typedef struct iso_adam { iso_node rate, root; } iso_adam;

iso_adam iso_adam_inputs(iso_graph *g);
/* The two inputs' values at step t = 1, 2, ... */
double iso_adam_rate(double lr, int64_t t);
double iso_adam_root(int64_t t);

/* Appends the update of one parameter: out[0] assigns the parameter, out[1] and out[2] its moments. */
void iso_adam_update(iso_graph *g, iso_adam adam, iso_node param, iso_node gradient, iso_assign out[3]);

/* The same for a positive scalar that moves by its logarithm: p' = p exp(-ratio * lr ...), with the gradient p dL/dp of
 * log p; `ratio` is its learning rate as a multiple of the others'. */
void iso_adam_update_log(iso_graph *g, iso_adam adam, iso_node param, iso_node gradient, double ratio, iso_assign out[3]);

#endif
