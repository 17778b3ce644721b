#include "model/train.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>

#include "base/file.h"
#include "base/memory.h"
#include "base/text.h"
#include "model/net/net.h"
#include "model/train_loop.h"

/* --- options as texts */

void iso_options_text(iso_options *o, const char *key, const char *value)
{
    assert(o->count < ISO_MAX_OPTIONS);
    snprintf(o->value[o->count], sizeof o->value[0], "%s", value);
    o->pair[o->count] = (iso_st_meta_pair){key, o->value[o->count]};
    o->count++;
}

void iso_options_int(iso_options *o, const char *key, int64_t value)
{
    char text[32];
    snprintf(text, sizeof text, "%lld", (long long)value);
    iso_options_text(o, key, text);
}

void iso_options_real(iso_options *o, const char *key, double value)
{
    char text[ISO_TEXT_REAL];
    iso_options_text(o, key, iso_text_real(value, 15, text));
}

void iso_options_schedule(iso_options *o, const iso_run *run)
{
    if (run->warmup) iso_options_int(o, "warmup", run->warmup);
    if (run->schedule == ISO_SCHEDULE_CONSTANT) return;
    iso_options_text(o, "schedule", "cosine");
    iso_options_int(o, "epochs", run->epochs);
}

/* A digest of `before` and of what the training and validation rows hold, `size` bytes each. */
static iso_status options_rows(iso_options *o, const char *key, const iso_train_data *data, const char *before,
                               const uint8_t *bytes, int64_t size, iso_error *err)
{
    XXH3_state_t *state = XXH3_createState();
    if (!state) return iso_fail_memory(err);
    XXH3_128bits_reset(state);
    XXH3_128bits_update(state, before, strlen(before));
    for (int part = 0; part < 2; part++) {
        const int64_t *rows = part ? data->valid : data->train;
        int64_t count = part ? data->valid_count : data->train_count;
        XXH3_128bits_update(state, &count, sizeof count);
        for (int64_t i = 0; i < count; i++) XXH3_128bits_update(state, bytes + rows[i] * size, (size_t)size);
    }
    XXH128_hash_t hash = XXH3_128bits_digest(state);
    XXH3_freeState(state);
    char text[40];
    snprintf(text, sizeof text, "%016llx%016llx", (unsigned long long)hash.high64, (unsigned long long)hash.low64);
    iso_options_text(o, key, text);
    return ISO_OK;
}

iso_status iso_options_images(iso_options *o, const iso_train_data *data, iso_error *err)
{
    return options_rows(o, "images", data, "", data->pixels, data->dim, err);
}

iso_status iso_options_labels(iso_options *o, const iso_train_data *data, iso_error *err)
{
    return options_rows(o, "labels", data, data->attributes, data->labels, data->classes, err);
}

/* --- checks */

/* The model's file and its companions. */
static iso_status check_writable(const char *path, iso_error *err)
{
    static const char *const ends[] = {"", ".state", ".csv"};
    iso_status status = ISO_OK;
    for (size_t i = 0; i < sizeof ends / sizeof *ends && status == ISO_OK; i++) {
        iso_file *probe = NULL;
        char *name = iso_format("%s%s", path, ends[i]);
        status = name ? iso_file_create(name, &probe, err) : iso_fail_memory(err);
        iso_file_abort(probe);
        free(name);
    }
    return status;
}

static iso_status check_files(const iso_run *run, const char *state, iso_error *err)
{
    bool have_model = access(run->path, F_OK) == 0, have_state = access(state, F_OK) == 0;
    if (run->resume) {
        if (!have_state)
            return iso_fail(err, ISO_E_ARGUMENT, run->repeated ? "there is no %s to go on with: repeat the command"
                                                               : "--resume: there is no %s to go on with; start without --resume", state);
    } else if (!run->force && (have_model || have_state)) {
        return iso_fail(err, ISO_E_ARGUMENT, "%s exists: go on with --resume, or replace it with --force",
                        have_model ? run->path : state);
    }
    return ISO_OK;
}

iso_status iso_run_check(const iso_run *run, iso_error *err)
{
    if (!run->path || !*run->path) return iso_fail(err, ISO_E_ARGUMENT, "no file name for the model");
    if (run->epochs < 1 || run->epochs > 1000000000) return iso_fail(err, ISO_E_ARGUMENT, "--epochs must be 1 to 1000000000");
    if (run->batch < 1 || run->batch > 1 << 20) return iso_fail(err, ISO_E_ARGUMENT, "--batch must be 1 to 1048576");
    if (run->warmup < 0) return iso_fail(err, ISO_E_ARGUMENT, "--warmup must be 0 or more");
    if (!(run->lr > 0) || !isfinite(run->lr)) return iso_fail(err, ISO_E_ARGUMENT, "--lr must be above 0");
    if (!(run->eta >= 0) || !isfinite(run->eta)) return iso_fail(err, ISO_E_ARGUMENT, "--eta must be 0 or more");
    if (run->resume && run->force) return iso_fail(err, ISO_E_ARGUMENT, "--resume and --force exclude each other");
    char *state = iso_format("%s.state", run->path);
    if (!state) return iso_fail_memory(err);
    iso_status status = check_writable(run->path, err);
    if (status == ISO_OK) status = check_files(run, state, err);
    free(state);
    return status;
}

static iso_status check_data(const iso_train_data *data, const iso_net *net, iso_error *err)
{
    int64_t dim = net->arch == ISO_ARCH_CELEBA ? ISO_PIXELS : net->size[net->layers - 1];
    if (data->train_count < 1) return iso_fail(err, ISO_E_ARGUMENT, "no training images");
    if (data->valid_count < 0) return iso_fail(err, ISO_E_ARGUMENT, "a negative number of validation images");
    if (data->dim != dim)
        return iso_fail(err, ISO_E_ARGUMENT, "the net takes %lld values an image, the data have %lld", (long long)dim,
                        (long long)data->dim);
    return ISO_OK;
}

static iso_status check_labels(const iso_train_data *data, const iso_net *net, iso_goal goal, iso_error *err)
{
    if (goal != ISO_GOAL_SUPERVISED)
        return data->labels ? iso_fail(err, ISO_E_ARGUMENT, "labels were given to a method that is not supervised") : ISO_OK;
    if (!data->labels || !data->attributes) return iso_fail(err, ISO_E_ARGUMENT, "method supervised needs labels: there are none");
    if (data->classes != net->classes)
        return iso_fail(err, ISO_E_ARGUMENT, "the net tells %d attributes, the labels have %lld", net->classes, (long long)data->classes);
    for (int64_t i = 0; i < data->train_count + data->valid_count; i++) {
        int64_t row = i < data->train_count ? data->train[i] : data->valid[i - data->train_count];
        for (int64_t c = 0; c < data->classes; c++)
            if (data->labels[row * data->classes + c] > 1)
                return iso_fail(err, ISO_E_ARGUMENT, "a label is %d: expected 0 or 1", data->labels[row * data->classes + c]);
    }
    return ISO_OK;
}

static const struct { const char *name; iso_goal goal; } methods[] = {
    {"vae", ISO_GOAL_VAE}, {"isometric", ISO_GOAL_ISOMETRIC}, {"flat-manifold", ISO_GOAL_FLAT_MANIFOLD},
    {"supervised", ISO_GOAL_SUPERVISED}};

static bool find_method(const char *name, iso_goal *goal)
{
    for (size_t i = 0; name && i < sizeof methods / sizeof methods[0]; i++)
        if (strcmp(name, methods[i].name) == 0) {
            *goal = methods[i].goal;
            return true;
        }
    return false;
}

/* What only a variational autoencoder's loss has. */
static iso_status check_bound(const iso_train_spec *spec, iso_goal goal, iso_error *err)
{
    if (goal == ISO_GOAL_SUPERVISED) return ISO_OK;
    if (goal != ISO_GOAL_VAE && (!(spec->alpha >= 0) || !isfinite(spec->alpha)))
        return iso_fail(err, ISO_E_ARGUMENT, "--alpha must be 0 or more");
    if (!(spec->kl_weight >= 0) || !isfinite(spec->kl_weight))
        return iso_fail(err, ISO_E_ARGUMENT, "--kl-weight must be 0 or more");
    if (spec->sigma_rule != ISO_SIGMA_OPTIMAL && !(spec->sigma >= ISO_SIGMA_LEAST && spec->sigma <= ISO_SIGMA_MOST))
        return iso_fail(err, ISO_E_ARGUMENT, "--sigma must be from %g to %g", ISO_SIGMA_LEAST, ISO_SIGMA_MOST);
    if (spec->sigma_rule == ISO_SIGMA_LEARNED && (!(spec->sigma_lr > 0) || !isfinite(spec->sigma_lr)))
        return iso_fail(err, ISO_E_ARGUMENT, "--sigma-lr must be above 0");
    return ISO_OK;
}

static iso_status check_train(const iso_train_spec *spec, iso_goal *goal, iso_error *err)
{
    if (!find_method(spec->method, goal))
        return iso_fail(err, ISO_E_ARGUMENT, "unknown method %s: vae, isometric, flat-manifold or supervised",
                        spec->method ? spec->method : "(none)");
    iso_status status = check_bound(spec, *goal, err);
    if (status != ISO_OK) return status;
    if ((*goal == ISO_GOAL_SUPERVISED) != (spec->net.classes != 0))
        return iso_fail(err, ISO_E_ARGUMENT, spec->net.classes ? "a supervised net is trained by method supervised, not %s"
                                                               : "method %s needs a net that tells attributes", spec->method);
    if (spec->net.arch == ISO_ARCH_PCA)
        return iso_fail(err, ISO_E_ARGUMENT, "principal components are not trained by steps: method pca finds them");
    if (spec->net.flow_depth) return iso_fail(err, ISO_E_ARGUMENT, "a flow is trained after its encoder and decoder");
    if (spec->net.whitened) return iso_fail(err, ISO_E_ARGUMENT, "a whitened model is not trained: train one, then whiten");
    if (spec->mirror && spec->net.arch != ISO_ARCH_CELEBA)
        return iso_fail(err, ISO_E_ARGUMENT, "--mirror is for images only");
    return iso_net_check(&spec->net, err);
}

/* --- iso_train */

static void net_options(iso_options *o, const iso_net *net)
{
    if (net->arch == ISO_ARCH_CELEBA) {
        iso_options_text(o, "arch", "celeba");
        iso_options_int(o, "width", net->width);
        iso_options_int(o, "latent", net->latent);
        if (net->views > 1) iso_options_int(o, "views", net->views);
        return;
    }
    char sizes[128];
    size_t used = (size_t)snprintf(sizes, sizeof sizes, "mlp %s %s", net->act, net->out);
    for (int i = 0; i < net->layers && used < sizeof sizes; i++)
        used += (size_t)snprintf(sizes + used, sizeof sizes - used, " %d", net->size[i]);
    iso_options_text(o, "arch", sizes);
}

/* What only a variational autoencoder's loss has. */
static void bound_options(iso_options *o, const iso_train_spec *spec, iso_goal goal)
{
    static const char *const rule[] = {"optimal", "learned", "fixed"};
    iso_options_real(o, "alpha", goal != ISO_GOAL_VAE ? spec->alpha : 0);
    iso_options_real(o, "kl-weight", spec->kl_weight);
    if (spec->sigma_rule == ISO_SIGMA_FIXED)
        iso_options_real(o, "sigma", spec->sigma);
    else
        iso_options_text(o, "sigma", rule[spec->sigma_rule]);
    iso_options_real(o, "sigma-lr", spec->sigma_rule == ISO_SIGMA_LEARNED ? spec->sigma_lr : 0);
    iso_options_real(o, "eta", spec->run.eta);
}

static void train_options(iso_options *o, const iso_train_spec *spec, iso_goal goal)
{
    iso_options_text(o, "method", spec->method);
    net_options(o, &spec->net);
    if (goal != ISO_GOAL_SUPERVISED) bound_options(o, spec, goal);
    iso_options_int(o, "batch", spec->run.batch);
    iso_options_real(o, "lr", spec->run.lr);
    iso_options_schedule(o, &spec->run);
    iso_options_int(o, "seed", (int64_t)spec->run.seed);
    iso_options_text(o, "mirror", spec->mirror ? "on" : "off");
}

static iso_objective objective_of(const iso_train_spec *spec, iso_goal goal)
{
    return (iso_objective){
        .goal = goal,
        .sigma = spec->sigma_rule,
        .sigma_ratio = spec->sigma_lr / spec->run.lr,
        .kl_weight = spec->kl_weight,
        .alpha = spec->alpha,
    };
}

iso_status iso_train_check(const iso_train_spec *spec, iso_error *err)
{
    iso_goal goal = ISO_GOAL_VAE;
    iso_status status = check_train(spec, &goal, err);
    if (status == ISO_OK) status = iso_run_check(&spec->run, err);
    if (status != ISO_OK || !spec->run.resume) return status;
    iso_options options = {.count = 0};
    train_options(&options, spec, goal);
    return iso_loop_resumable(&spec->run, &options, err);
}

iso_status iso_train_fits(const iso_train_spec *spec, const iso_train_data *counts, iso_error *err)
{
    iso_goal goal = ISO_GOAL_VAE;
    iso_status status = check_train(spec, &goal, err);
    if (status != ISO_OK || counts->train_count < 1) return status;
    const iso_objective objective = objective_of(spec, goal);
    return iso_loop_fits(&spec->net, &objective, &spec->run, counts, err);
}

iso_status iso_train(const iso_train_spec *spec, const iso_train_data *data, iso_error *err)
{
    iso_model *model = NULL;
    iso_options options = {.count = 0};
    iso_goal goal = ISO_GOAL_VAE;
    iso_status status = check_train(spec, &goal, err);
    if (status == ISO_OK) status = check_data(data, &spec->net, err);
    if (status == ISO_OK) status = check_labels(data, &spec->net, goal, err);
    if (status == ISO_OK) status = iso_run_check(&spec->run, err);
    if (status != ISO_OK) return status;

    const iso_objective objective = objective_of(spec, goal);
    if ((status = iso_loop_fits(&spec->net, &objective, &spec->run, data, err)) != ISO_OK) return status;
    train_options(&options, spec, goal);
    if (goal == ISO_GOAL_SUPERVISED && (status = iso_options_labels(&options, data, err)) != ISO_OK) return status;
    if ((status = iso_options_images(&options, data, err)) != ISO_OK) return status;
    if ((status = iso_model_create(&spec->net, &model, err)) != ISO_OK) goto done;
    if ((status = iso_net_init(model, spec->run.seed, err)) != ISO_OK) goto done;
    if (goal == ISO_GOAL_SUPERVISED && (status = iso_model_set_meta(model, "attributes", data->attributes, err)) != ISO_OK) goto done;
    int sigma = iso_model_find(model, "sigma");
    if (sigma >= 0 && spec->sigma_rule != ISO_SIGMA_OPTIMAL) *iso_model_data(model, sigma) = (float)spec->sigma;
    iso_loop_spec loop = {.model = model, .objective = &objective, .run = &spec->run, .data = data,
                          .mirror = spec->mirror, .options = &options};
    status = iso_loop(&loop, err);
done:
    iso_model_free(model);
    return status;
}
