/* train_loop_plans.c: what a training computes with, and whether there is memory for it. */
#include <stdlib.h>

#include "base/memory.h"
#include "model/device.h"
#include "model/net/net.h"
#include "model/train_loop_parts.h"

iso_loop_work iso_loop_of(const iso_net *net, const iso_objective *objective, const iso_run *run, const iso_train_data *data)
{
    iso_loop_work l = {.net = net, .objective = objective, .run = run, .data = data, .batch = run->batch};
    if (l.batch > data->train_count) l.batch = data->train_count;
    l.steps = data->train_count / l.batch;
    l.backend = run->backend ? run->backend : iso_backend_cpu();
    return l;
}

/* Bytes of the host's memory that a loop takes beside its plans and their vars. */
typedef struct beside {
    size_t model, saving, inputs; /* saving: a copy of what is written at a time, the model's parameters or the state */
} beside;

static iso_status count_beside(const iso_loop_work *l, int64_t batch, beside *out, iso_error *err)
{
    int count = iso_net_params(l->net, 0, NULL);
    iso_param *param = iso_calloc((size_t)count, sizeof *param);
    if (!param) return iso_fail_memory(err);
    iso_net_params(l->net, count, param);
    size_t state = 0, latent = (size_t)l->net->latent;
    *out = (beside){0};
    for (int i = 0; i < count; i++) {
        size_t bytes = (size_t)iso_shape_count(&param[i].shape) * sizeof(float);
        out->model += bytes;
        if (iso_objective_trains(l->objective, param[i].name)) state += 3 * bytes; /* with Adam's moments */
    }
    free(param);
    bool flow = l->objective->goal == ISO_GOAL_FLOW;
    size_t codes = flow ? (size_t)(l->data->train_count + l->data->valid_count) * latent : 0;
    size_t image = (flow ? latent : (size_t)l->data->dim) + latent + (size_t)l->net->classes;
    out->saving = state > out->model ? state : out->model;
    out->inputs = (codes + (size_t)batch * image) * sizeof(float);
    return ISO_OK;
}

/* A batch that fits before images are decoded must fit then, too. What there is beside them: a path and rows of each, and what their decoding
 * leaves in the heap. */
enum { DECODING = 4 << 20, NAMED = 256 };

/* What training with a batch takes of a backend's memory: validation is planned beside it. A loop that runs has its model and inputs. */
static iso_status measure(void *ctx, int64_t batch, size_t *bytes, iso_error *err)
{
    const iso_loop_work *l = ctx;
    const iso_objective *o = l->objective;
    iso_plan_stats train = {0}, valid = {0}, rest = {0};
    beside host = {0};
    const bool decoded = l->spec || l->data->pixels;
    int64_t count = l->data->valid_count < batch ? l->data->valid_count : batch, left = count ? l->data->valid_count % count : 0;
    if (!decoded && count < l->data->valid_count) left = batch - 1; /* some may turn out unusable: the worst that can be left */
    iso_status status = iso_train_step_measure(l->net, o, batch, true, l->backend, &train, err);
    if (status == ISO_OK && count) status = iso_train_step_measure(l->net, o, count, false, l->backend, &valid, err);
    if (status == ISO_OK && left) status = iso_train_step_measure(l->net, o, left, false, l->backend, &rest, err);
    if (status == ISO_OK && !l->backend->device) status = count_beside(l, batch, &host, err);
    if (status == ISO_OK && !l->backend->device && !decoded)
        host.inputs += DECODING + (size_t)(l->data->train_count + l->data->valid_count) * ((size_t)l->data->dim + NAMED);
    *bytes = train.arena + train.vars + valid.arena + rest.arena + host.saving + (l->spec ? 0 : host.model + host.inputs);
    return status;
}

iso_status iso_loop_fits(const iso_net *net, const iso_objective *objective, const iso_run *run, const iso_train_data *data,
                         iso_error *err)
{
    iso_loop_work l = iso_loop_of(net, objective, run, data);
    return iso_device_check(l.backend, "training", measure, &l, l.batch, err);
}

void iso_loop_plan_free(iso_loop_work *l)
{
    iso_train_step_free(l->step);
    iso_train_step_free(l->valid);
    iso_train_step_free(l->rest);
    iso_vars_free(l->vars);
    l->step = l->valid = l->rest = NULL;
    l->vars = NULL;
}

iso_status iso_loop_plan(iso_loop_work *l, iso_error *err)
{
    const iso_net *net = l->net;
    const iso_objective *o = l->objective;
    int64_t valid = l->data->valid_count < l->batch ? l->data->valid_count : l->batch;
    int64_t rest = valid ? l->data->valid_count % valid : 0;
    iso_status status = iso_vars_create(l->backend, &l->vars, err);
    if (status != ISO_OK) return status;
    int threads = l->run->threads;
    status = iso_train_step_create(net, o, l->batch, true, l->vars, threads, &l->step, err);
    if (status == ISO_OK && valid) status = iso_train_step_create(net, o, valid, false, l->vars, threads, &l->valid, err);
    if (status == ISO_OK && rest) status = iso_train_step_create(net, o, rest, false, l->vars, threads, &l->rest, err);
    if (status == ISO_E_MEMORY) {
        iso_loop_plan_free(l); /* to see what is free without them */
        return iso_device_full(l->backend, "training", measure, l, l->batch, err);
    }
    if (status != ISO_OK) return status;
    return iso_model_to_vars(l->spec->model, l->vars, err);
}

iso_status iso_loop_plan_tell(const iso_loop_work *l, iso_error *err)
{
    iso_plan_stats a = iso_plan_describe(l->step->plan), b = {0}, c = {0};
    beside host;
    iso_status status = count_beside(l, l->batch, &host, err);
    if (status != ISO_OK) return status;
    if (l->valid) b = iso_plan_describe(l->valid->plan);
    if (l->rest) c = iso_plan_describe(l->rest->plan);
    double vars = (double)iso_vars_bytes(l->vars), arena = (double)(a.arena + b.arena + c.arena), MiB = 1 << 20;
    double model = (double)(host.model + host.saving), data = (double)host.inputs;
    if (!l->spec->codes) data += (double)l->data->dim * (double)(l->data->train_count + l->data->valid_count);
    iso_watch_say(&l->run->watch,
                  "planned memory: %.0f MiB (plans %.0f, parameters and Adam %.0f, model and its saving %.0f, data %.0f); "
                  "%.1f GFLOP a step",
                  (vars + arena + model + data) / MiB, arena / MiB, vars / MiB, model / MiB, data / MiB, a.flops / 1e9);
    return ISO_OK;
}
