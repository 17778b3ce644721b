/* Training of the flattening flow: the codes mu are computed once, so no step runs the encoder. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "model/net/net.h"
#include "model/train_loop.h"

iso_status iso_encode_rows(const iso_model *m, const iso_train_data *data, const int64_t *rows, int64_t count, const iso_watch *watch,
                           const iso_backend *backend, float *codes, iso_error *err)
{
    enum { BATCH = 64 };
    iso_encoder *e = NULL;
    uint8_t *pixels = NULL;
    int latent = iso_model_dim(m);
    iso_status status = iso_encoder_create_on(m, BATCH, backend, &e, err);
    if (status == ISO_OK && !(pixels = iso_calloc(BATCH, (size_t)data->dim))) status = iso_fail_memory(err);
    if (status == ISO_OK) iso_watch_part(watch, "encoding", 0, count);
    for (int64_t at = 0; at < count && status == ISO_OK; at += BATCH) {
        int64_t n = count - at < BATCH ? count - at : BATCH;
        for (int64_t i = 0; i < n; i++)
            memcpy(pixels + i * data->dim, data->pixels + rows[at + i] * data->dim, (size_t)data->dim);
        status = iso_encoder_run(e, pixels, n, codes + at * latent, err);
        if (status == ISO_OK) iso_watch_part(watch, "encoding", at + n, count);
        if (status == ISO_OK && iso_watch_stop(watch))
            status = iso_fail(err, ISO_E_INTERRUPTED, "interrupted while encoding: nothing is lost, start again with the same command");
    }
    iso_encoder_free(e);
    free(pixels);
    return status;
}

static void flow_options(iso_options *o, const iso_flow_spec *spec)
{
    iso_options_real(o, "beta", spec->beta);
    iso_options_int(o, "depth", spec->depth);
    iso_options_int(o, "length", spec->length);
    iso_options_real(o, "eta", spec->run.eta);
    iso_options_int(o, "batch", spec->run.batch);
    iso_options_real(o, "lr", spec->run.lr);
    iso_options_schedule(o, &spec->run);
    iso_options_int(o, "seed", (int64_t)spec->run.seed);
    iso_options_text(o, "model", iso_model_digest(spec->model));
}

/* data's rows, as rows of the codes: training images first. */
static iso_train_data renumber(const iso_train_data *data, int64_t *rows)
{
    iso_train_data own = {.pixels = NULL, .dim = data->dim, .train = rows, .valid = rows + data->train_count,
                          .train_count = data->train_count, .valid_count = data->valid_count};
    for (int64_t i = 0; i < data->train_count + data->valid_count; i++) rows[i] = i;
    return own;
}

static iso_status compute_codes(const iso_flow_spec *spec, const iso_train_data *data, float *codes, iso_error *err)
{
    const iso_watch *watch = &spec->run.watch;
    iso_watch_say(watch, "encoding %lld images", (long long)(data->train_count + data->valid_count));
    iso_status status = iso_encode_rows(spec->model, data, data->train, data->train_count, watch, spec->run.backend, codes, err);
    if (status == ISO_OK)
        status = iso_encode_rows(spec->model, data, data->valid, data->valid_count, watch, spec->run.backend,
                                 codes + data->train_count * iso_model_dim(spec->model), err);
    return status;
}

/* The model's net with the flow. */
static iso_net flowed(const iso_flow_spec *spec)
{
    iso_net net = *iso_model_net(spec->model);
    net.flow_depth = spec->depth;
    net.flow_length = spec->length;
    return net;
}

static iso_status check_flow(const iso_flow_spec *spec, iso_error *err)
{
    const iso_net *plain = iso_model_net(spec->model), net = flowed(spec);
    if (plain->flow_depth)
        return iso_fail(err, ISO_E_ARGUMENT, "the model has a flow already: give the model that training made");
    if (!(spec->beta >= 0) || !isfinite(spec->beta)) return iso_fail(err, ISO_E_ARGUMENT, "--beta must be 0 or more");
    if (spec->depth < 1) return iso_fail(err, ISO_E_ARGUMENT, "--depth must be 1 or more");
    iso_status status = iso_net_check_decoder(plain, err);
    if (status != ISO_OK) return iso_fail_prefix(err, status, "this model cannot be flattened");
    if (plain->arch != ISO_ARCH_CELEBA)
        return iso_fail(err, ISO_E_UNSUPPORTED, "only models of images can be flattened");
    return iso_net_check(&net, err);
}

static iso_status check_data(const iso_train_data *data, iso_error *err)
{
    if (data->labels) return iso_fail(err, ISO_E_ARGUMENT, "labels were given to a method that is not supervised");
    if (data->dim != ISO_PIXELS) return iso_fail(err, ISO_E_ARGUMENT, "the model is for images of 64 x 64");
    if (data->train_count < 1) return iso_fail(err, ISO_E_ARGUMENT, "no training images");
    return ISO_OK;
}

iso_status iso_flow_check(const iso_flow_spec *spec, iso_error *err)
{
    iso_status status = check_flow(spec, err);
    if (status == ISO_OK) status = iso_run_check(&spec->run, err);
    if (status != ISO_OK || !spec->run.resume) return status;
    iso_options options = {.count = 0};
    flow_options(&options, spec);
    return iso_loop_resumable(&spec->run, &options, err);
}

iso_status iso_flow_fits(const iso_flow_spec *spec, const iso_train_data *counts, iso_error *err)
{
    iso_status status = check_flow(spec, err);
    if (status != ISO_OK || counts->train_count < 1) return status;
    const iso_net net = flowed(spec);
    return iso_loop_fits(&net, &(iso_objective){.goal = ISO_GOAL_FLOW, .beta = spec->beta}, &spec->run, counts, err);
}

iso_status iso_train_flow(const iso_flow_spec *spec, const iso_train_data *data, iso_error *err)
{
    iso_model *model = NULL;
    iso_options options = {.count = 0};
    float *codes = NULL;
    int64_t *rows = NULL;
    int64_t count = data->train_count + data->valid_count;
    iso_status status = iso_flow_check(spec, err);
    if (status == ISO_OK) status = check_data(data, err);
    if (status != ISO_OK) return status;

    const iso_net net = flowed(spec);
    const iso_objective objective = {.goal = ISO_GOAL_FLOW, .beta = spec->beta};
    if ((status = iso_loop_fits(&net, &objective, &spec->run, data, err)) != ISO_OK) return status;
    if ((status = iso_model_with_flow(spec->model, spec->depth, spec->length, &model, err)) != ISO_OK) goto done;
    if ((status = iso_flow_init(model, spec->run.seed, err)) != ISO_OK) goto done;

    codes = iso_calloc((size_t)count, (size_t)iso_model_dim(model) * sizeof *codes);
    rows = iso_calloc((size_t)count, sizeof *rows);
    if (!codes || !rows) {
        status = iso_fail_memory(err);
        goto done;
    }
    flow_options(&options, spec);
    if ((status = iso_options_images(&options, data, err)) != ISO_OK) goto done;
    iso_train_data own = renumber(data, rows);
    iso_loop_spec loop = {.model = model, .objective = &objective, .run = &spec->run, .data = &own, .codes = codes,
                          .baseline = true, .options = &options};
    if ((status = compute_codes(spec, data, codes, err)) != ISO_OK) goto done;
    status = iso_loop(&loop, err);
done:
    iso_model_free(model);
    free(codes);
    free(rows);
    return status;
}
