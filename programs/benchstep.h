/* benchstep.h: what benchstep times: a net, its parameters and a step's inputs, all from a seed. */
#ifndef ISO_PROGRAMS_BENCHSTEP_H
#define ISO_PROGRAMS_BENCHSTEP_H

#include "model/net/net.h"
#include "model/train_step.h"

typedef struct benchstep_config {
    int64_t width, latent, batch, steps, threads, seed, depth, length;
    double alpha, beta;
    const char *arch, *device, *save;
    bool flatten, quiet;
} benchstep_config;

/* The net and the loss that the options ask for. */
void benchstep_describe(const benchstep_config *c, iso_net *net, iso_objective *objective);

/* Fills the step's parameters and inputs with numbers that depend on the seed; a flow's last layers too, which training would start
 * at zero. With --save they are written to that file as well (.safetensors): every parameter by its name, and input.x, input.eps,
 * input.v, input.delta, input.perm as far as the step has them. */
ISO_CHECK iso_status benchstep_fill(const benchstep_config *c, const iso_net *net, const iso_train_step *s,
                                    iso_vars *vars, iso_error *err);

#endif
