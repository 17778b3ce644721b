/* train_step.h: one step of training, or one batch of validation, as a plan.
 *
 * A training step is a single plan: forward, loss, gradients and Adam. The terms it reports are scalars of the batch:
 *
 *   vae        loss = mean NLL + kl_weight * mean KL
 *   isometric  loss = the same + alpha R        R of the decoder at mixed-up posterior samples (Lee 2022 eq. 10, B.1)
 *   flat-manifold  loss = the same + alpha F    F = E|JtJv - cv|^2 at the same codes (Chen 2020; Lee 2022 C); R is reported
 *   flow       loss = R + beta mean |i(mu)|^2   R of decoder o i^-1 at mixed-up i(mu)            (Lee 2022 4.2, B.2)
 *   supervised loss = binary cross-entropy      the mean over images and attributes; the only goal that is given labels
 *
 * sigma_x, the noise of p(x|z) (methods.md 2): by default the batch's optimum sigma^2 = MSE put into the NLL, which is
 * then D/2 (log(2 pi MSE) + 1) with its gradient; or learned by log sigma at its own rate; or fixed. */
#ifndef ISO_TRAIN_STEP_H
#define ISO_TRAIN_STEP_H

#include "model/adam.h"
#include "model/model.h"

/* A fixed sigma, or where a learned one starts: its square and the inverse of that are floats, with room for what they multiply. */
#define ISO_SIGMA_LEAST 1e-6
#define ISO_SIGMA_MOST 1e6
typedef enum iso_sigma_rule { ISO_SIGMA_OPTIMAL, ISO_SIGMA_LEARNED, ISO_SIGMA_FIXED } iso_sigma_rule;
typedef enum iso_goal { ISO_GOAL_VAE, ISO_GOAL_ISOMETRIC, ISO_GOAL_FLAT_MANIFOLD, ISO_GOAL_FLOW, ISO_GOAL_SUPERVISED } iso_goal;

typedef struct iso_objective {
    iso_goal goal;
    iso_sigma_rule sigma;
    double sigma_ratio;  /* learned: learning rate of log sigma / the others' */
    double kl_weight;
    double alpha;        /* isometric, flat-manifold */
    double beta;         /* flow */
} iso_objective;

typedef enum iso_term {
    ISO_TERM_LOSS,
    ISO_TERM_NLL,    /* mean over images, summed over the data */
    ISO_TERM_KL,     /* mean over images, summed over m */
    ISO_TERM_MSE,    /* per value, data in [-1, 1] */
    ISO_TERM_RATIO,  /* R = TRACE2 / TRACE^2 */
    ISO_TERM_TRACE,  /* E |Jv|^2 */
    ISO_TERM_TRACE2, /* E |JtJv|^2 */
    ISO_TERM_NORM,   /* E |i(mu)|^2 */
    ISO_TERM_ACCURACY, /* supervised: share of the attributes told right */
    ISO_TERM_COUNT
} iso_term;
const char *iso_term_text(iso_term t); /* "the loss", "the negative log likelihood", ... */

typedef struct iso_train_step {
    iso_graph *graph;
    iso_plan *plan;
    int64_t batch;
    iso_shape x_shape;
    iso_node x;               /* images, [B, 64, 64, 3] or [B, D], in [-1, 1]; for a flow the codes mu [B, m] */
    iso_node eps, v;          /* [B, m] ~ N(0, I); eps is ISO_NONE for a flow */
    iso_node delta;           /* [B, 1] ~ U[-eta, 1 + eta] */
    iso_node perm;            /* [B], a permutation */
    iso_node labels;          /* [B, classes], 0 or 1: supervised, which has none of the four above; ISO_NONE for all others */
    iso_adam adam;            /* training only */
    iso_node term[ISO_TERM_COUNT]; /* ISO_NONE: not part of this goal */
} iso_train_step;

/* Adds to `vars` what the step needs (zeroed where new). train = false gives the validation form: no updates, and R also for
 * a plain VAE, so that methods can be compared. net is copied where needed. */
ISO_CHECK iso_status iso_train_step_create(const iso_net *net, const iso_objective *objective, int64_t batch, bool train,
                                     iso_vars *vars, int threads, iso_train_step **out, iso_error *err);
/* The memory of such a step's plan and of all states it has, without taking it. */
ISO_CHECK iso_status iso_train_step_measure(const iso_net *net, const iso_objective *objective, int64_t batch, bool train,
                                            const iso_backend *backend, iso_plan_stats *out, iso_error *err);
void iso_train_step_free(iso_train_step *s);

/* The parameters that a goal trains, as a prefix test: flow.* for a flow, encoder.* and classifier.* for a supervised net,
 * encoder.* and decoder.* otherwise, and sigma where it is learned. */
bool iso_objective_trains(const iso_objective *objective, const char *param);

#endif
