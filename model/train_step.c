#include "model/train_step.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "model/method/method.h"
#include "model/net/net.h"

const char *iso_term_text(iso_term t)
{
    static const char *const text[ISO_TERM_COUNT] = {
        "the loss", "the negative log likelihood", "the KL term", "the reconstruction error",
        "the isometric term R", "E|Jv|^2", "E|JtJv|^2", "the norm of the flow's codes",
        "the share of attributes told right"};
    return (unsigned)t < ISO_TERM_COUNT ? text[t] : "a term";
}

bool iso_objective_trains(const iso_objective *objective, const char *param)
{
    if (objective->goal == ISO_GOAL_FLOW) return strncmp(param, "flow.", 5) == 0;
    if (objective->goal == ISO_GOAL_SUPERVISED) return strncmp(param, "encoder.", 8) == 0 || strncmp(param, "classifier.", 11) == 0;
    if (strcmp(param, "sigma") == 0) return objective->sigma == ISO_SIGMA_LEARNED;
    return strncmp(param, "encoder.", 8) == 0 || strncmp(param, "decoder.", 8) == 0;
}

static void add_distortion(iso_train_step *s, iso_distortion d)
{
    s->term[ISO_TERM_RATIO] = d.ratio;
    s->term[ISO_TERM_TRACE] = d.trace;
    s->term[ISO_TERM_TRACE2] = d.trace2;
}

/* NLL of the batch, mean over images: D/2 log(2 pi sigma^2) + D mse / (2 sigma^2). */
static iso_node mean_nll(iso_graph *g, const iso_objective *o, iso_node x, iso_node decoded, iso_node mse)
{
    if (o->sigma != ISO_SIGMA_OPTIMAL)
        return iso_mean_all(g, iso_gaussian_nll(g, x, decoded, iso_state(g, "sigma", iso_shape0())));
    iso_shape shape = iso_node_shape(g, x);
    double dim = (double)iso_shape_count(&shape) / (double)shape.dim[0];
    return iso_scale(g, iso_shift(g, iso_log(g, iso_scale(g, mse, 2 * M_PI)), 1), dim / 2);
}

static void build_vae(iso_train_step *s, const iso_net *net, const iso_objective *o, bool with_ratio)
{
    iso_graph *g = s->graph;
    iso_node mu = ISO_NONE, log_sigma = ISO_NONE;
    iso_net_encode(g, net, s->x, &mu, &log_sigma);
    s->eps = iso_input(g, "eps", iso_shape2(s->batch, net->latent));
    iso_node z = iso_reparameterise(g, mu, log_sigma, s->eps);
    iso_node decoded = iso_net_decode(g, net, z);

    iso_node mse = iso_mean_all(g, iso_square(g, iso_sub(g, s->x, decoded)));
    iso_node nll = mean_nll(g, o, s->x, decoded, mse);
    iso_node kl = iso_mean_all(g, iso_gaussian_kl(g, mu, log_sigma));
    iso_node loss = iso_add(g, nll, iso_scale(g, kl, o->kl_weight));
    if (with_ratio) {
        iso_flat f = iso_flat_manifold(g, iso_probe_decoder(g, net, z, s->perm, s->delta, s->v));
        add_distortion(s, f.distortion);
        if (o->goal == ISO_GOAL_ISOMETRIC) loss = iso_add(g, loss, iso_scale(g, f.distortion.ratio, o->alpha));
        if (o->goal == ISO_GOAL_FLAT_MANIFOLD) loss = iso_add(g, loss, iso_scale(g, f.loss, o->alpha));
    }
    s->term[ISO_TERM_LOSS] = loss;
    s->term[ISO_TERM_NLL] = nll;
    s->term[ISO_TERM_KL] = kl;
    s->term[ISO_TERM_MSE] = mse;
}

static void build_flow(iso_train_step *s, const iso_net *net, const iso_objective *o)
{
    iso_flattening f = iso_flatten(s->graph, net, s->x, s->perm, s->delta, s->v, o->beta);
    add_distortion(s, f.distortion);
    s->term[ISO_TERM_NORM] = f.norm;
    s->term[ISO_TERM_LOSS] = f.loss;
}

static void build_supervised(iso_train_step *s, const iso_net *net)
{
    s->labels = iso_input(s->graph, "labels", iso_shape2(s->batch, net->classes));
    iso_supervised supervised = iso_supervise(s->graph, net, s->x, s->labels);
    s->term[ISO_TERM_LOSS] = supervised.loss;
    s->term[ISO_TERM_ACCURACY] = supervised.accuracy;
}

/* Mixup and probes. */
static void build_draws(iso_train_step *s, const iso_net *net)
{
    s->v = iso_input(s->graph, "v", iso_shape2(s->batch, net->latent));
    s->delta = iso_input(s->graph, "delta", iso_shape2(s->batch, 1));
    s->perm = iso_input_index(s->graph, "perm", s->batch);
}

/* Gradients and Adam for every trained parameter; three assignments each. */
static iso_status build_updates(iso_train_step *s, const iso_net *net, const iso_objective *o, iso_assign **assigns,
                                int *assign_count, iso_error *err)
{
    iso_graph *g = s->graph;
    iso_status status = ISO_OK;
    int count = iso_net_params(net, 0, NULL), trained = 0;
    iso_param *param = iso_calloc((size_t)count, sizeof *param);
    iso_node *node = iso_calloc((size_t)count, sizeof *node), *gradient = iso_calloc((size_t)count, sizeof *gradient);
    iso_assign *list = iso_calloc((size_t)count * 3, sizeof *list);
    if (!param || !node || !gradient || !list) {
        status = iso_fail_memory(err);
        goto done;
    }
    iso_net_params(net, count, param);
    for (int i = 0; i < count; i++)
        if (iso_objective_trains(o, param[i].name)) node[trained++] = iso_parameter_named(g, param[i].name, param[i].shape);
    iso_node loss = s->term[ISO_TERM_LOSS], one = iso_one(g);
    iso_vjp(g, 1, &loss, &one, trained, node, gradient);
    if ((status = iso_graph_check(g, err)) != ISO_OK) goto done;
    s->adam = iso_adam_inputs(g);
    for (int i = 0; i < trained; i++) {
        const char *name = iso_node_name(g, node[i]);
        if (name && strcmp(name, "sigma") == 0)
            iso_adam_update_log(g, s->adam, node[i], gradient[i], o->sigma_ratio, list + 3 * i);
        else
            iso_adam_update(g, s->adam, node[i], gradient[i], list + 3 * i);
    }
    *assigns = list;
    *assign_count = 3 * trained;
    list = NULL;
done:
    free(param);
    free(node);
    free(gradient);
    free(list);
    return status;
}

static iso_status add_states(iso_vars *vars, const iso_graph *g, int output_count, const iso_node *outputs,
                             int assign_count, const iso_assign *assigns, iso_error *err)
{
    int n = 0;
    iso_node *all = iso_calloc((size_t)output_count + 2 * (size_t)assign_count, sizeof *all);
    if (!all) return iso_fail_memory(err);
    for (int i = 0; i < output_count; i++) all[n++] = outputs[i];
    for (int i = 0; i < assign_count; i++) {
        all[n++] = assigns[i].state;
        all[n++] = assigns[i].value;
    }
    iso_status status = iso_vars_add_states(vars, g, n, all, err);
    free(all);
    return status;
}

/* measure: only what the step would take; vars then give the backend alone. */
static iso_status make(const iso_net *net, const iso_objective *objective, int64_t batch, bool train, iso_vars *vars, int threads,
                       iso_plan_stats *measure, iso_train_step **out, iso_error *err)
{
    iso_assign *assigns = NULL;
    int assign_count = 0;
    iso_status status;
    iso_train_step *s = iso_calloc(1, sizeof *s);
    if (!s || !(s->graph = iso_graph_create())) {
        free(s);
        return iso_fail_memory(err);
    }
    iso_graph *g = s->graph;
    bool flow = objective->goal == ISO_GOAL_FLOW;
    s->batch = batch;
    s->eps = s->v = s->delta = s->perm = s->labels = ISO_NONE;
    s->adam = (iso_adam){ISO_NONE, ISO_NONE};
    for (int i = 0; i < ISO_TERM_COUNT; i++) s->term[i] = ISO_NONE;
    s->x_shape = flow ? iso_shape2(batch, net->latent)
                 : net->arch == ISO_ARCH_CELEBA ? iso_shape4(batch, ISO_SIDE, ISO_SIDE, 3)
                                                : iso_shape2(batch, net->size[net->layers - 1]);
    s->x = iso_input(g, "x", s->x_shape);
    if (objective->goal != ISO_GOAL_SUPERVISED) build_draws(s, net);
    if (objective->goal == ISO_GOAL_SUPERVISED)
        build_supervised(s, net);
    else if (flow)
        build_flow(s, net, objective);
    else
        build_vae(s, net, objective, !train || objective->goal != ISO_GOAL_VAE);
    if (train && (status = build_updates(s, net, objective, &assigns, &assign_count, err)) != ISO_OK) goto fail;
    if ((status = iso_graph_check(g, err)) != ISO_OK) goto fail;

    iso_node outputs[ISO_TERM_COUNT];
    int output_count = 0;
    for (int i = 0; i < ISO_TERM_COUNT; i++)
        if (s->term[i] != ISO_NONE) outputs[output_count++] = s->term[i];
    iso_plan_spec spec = {.vars = vars, .outputs = outputs, .output_count = output_count, .assigns = assigns,
                          .assign_count = assign_count, .threads = threads,
                          .frozen = flow && train}; /* encoder and decoder */
    if (measure) {
        status = iso_plan_measure(g, &spec, measure, err);
        goto fail; /* in any case: nothing is kept */
    }
    if ((status = add_states(vars, g, output_count, outputs, assign_count, assigns, err)) != ISO_OK) goto fail;
    if ((status = iso_plan_create(g, &spec, &s->plan, err)) != ISO_OK) goto fail;
    free(assigns);
    *out = s;
    return ISO_OK;
fail:
    free(assigns);
    iso_train_step_free(s);
    return status;
}

iso_status iso_train_step_create(const iso_net *net, const iso_objective *objective, int64_t batch, bool train,
                           iso_vars *vars, int threads, iso_train_step **out, iso_error *err)
{
    return make(net, objective, batch, train, vars, threads, NULL, out, err);
}

iso_status iso_train_step_measure(const iso_net *net, const iso_objective *objective, int64_t batch, bool train,
                                  const iso_backend *backend, iso_plan_stats *out, iso_error *err)
{
    iso_vars *none = NULL;
    iso_status status = iso_vars_create(backend, &none, err);
    if (status == ISO_OK) status = make(net, objective, batch, train, none, 0, out, NULL, err);
    iso_vars_free(none);
    return status;
}

void iso_train_step_free(iso_train_step *s)
{
    if (!s) return;
    iso_plan_free(s->plan);
    iso_graph_free(s->graph);
    free(s);
}
