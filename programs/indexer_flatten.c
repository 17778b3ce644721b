/* indexer flatten: a trained model to one with a flattening flow. */
#include <omp.h>
#include <stddef.h>

#include "base/args.h"
#include "base/file.h"
#include "model/device.h"
#include "programs/indexer.h"
#include "programs/indexer_training.h"

typedef struct config {
    const char *images, *model, *output, *device, *schedule;
    int64_t depth, length, epochs, batch, seed, threads, warmup;
    double beta, eta, lr;
    bool resume, force, strict, quiet;
} config;

#define AT(field) offsetof(config, field)
static const iso_option options[] = {
    {"images", 0, ISO_ARG_TEXT, AT(images), "DIR", "the images that the model was trained on", 0, 0},
    {"model", 0, ISO_ARG_TEXT, AT(model), "M", "a model that `indexer train` made", 0, 0},
    {"output", 0, ISO_ARG_TEXT, AT(output), "M2", "the model file to write", 0, 0},
    {"beta", 0, ISO_ARG_REAL, AT(beta), "B", "weight of the codes' mean squared norm (default: 10; the paper's: 100)", 0, 1e12},
    {"depth", 0, ISO_ARG_INT, AT(depth), "N", "coupling layers (default: 8)", 1, 64},
    {"length", 0, ISO_ARG_INT, AT(length), "N", "hidden units of a coupling's networks (default: 512)", 1, 1 << 20},
    {"eta", 0, ISO_ARG_REAL, AT(eta), "E", "how far mixed-up codes reach beyond their pair (default: 0.2)", 0, 100},
    {"epochs", 0, ISO_ARG_INT, AT(epochs), "N", "passes over the training images (default: 100)", 1, 1e9},
    {"batch", 0, ISO_ARG_INT, AT(batch), "B", "images a step (default: 100)", 1, 1 << 20},
    {"lr", 0, ISO_ARG_REAL, AT(lr), "R", "Adam's learning rate (default: 1e-5)", 1e-30, 1e300},
    {"schedule", 0, ISO_ARG_CHOICE, AT(schedule), "constant|cosine", "how the learning rate goes (default: constant); cosine: falling to 0 over all epochs", 0, 0},
    {"warmup", 0, ISO_ARG_INT, AT(warmup), "N", "steps over which the learning rate rises to --lr (default: 0)", 0, 1e12},
    {"seed", 0, ISO_ARG_INT, AT(seed), "S", "of every random number (default: 0)", 0, 9007199254740992.0},
    {"resume", 0, ISO_ARG_FLAG, AT(resume), NULL, "go on with M2.state; --epochs may have grown, but not with --schedule cosine", 0, 0},
    {"force", 0, ISO_ARG_FLAG, AT(force), NULL, "start anew although M2 is there", 0, 0},
    {"strict", 0, ISO_ARG_FLAG, AT(strict), NULL, "fail when an image cannot be used", 0, 0},
    {"device", 0, ISO_ARG_CHOICE, AT(device), ISO_DEVICES, "where to compute (default: cpu); cuda: a GPU, products in TF32", 0, 0},
    {"threads", 0, ISO_ARG_INT, AT(threads), "N", "threads (default: all)", 1, 1024},
    {"quiet", 'q', ISO_ARG_FLAG, AT(quiet), NULL, "no progress", 0, 0},
    {NULL, 0, ISO_ARG_FLAG, 0, NULL, NULL, 0, 0},
};

static const iso_command command = {
    "indexer flatten",
    "indexer flatten --images DIR --model M --output M2 [options]",
    "Trains a flow (RealNVP) that maps M's codes to flatter ones, encoder and decoder as they are.\n"
    "\n"
    "M2 is M with the flow of the best epoch by validation loss; M2.state all that --resume needs to go on\n"
    "bit for bit (with the same --threads); M2.csv one row an epoch. Ctrl-C saves M2.state and stops.",
    options,
    "Epoch 0, told where there are validation images, is the flow before training, the identity: its R is the model's own.",
};

static iso_status check(const config *c, iso_error *err)
{
    if (!c->images) return iso_fail(err, ISO_E_ARGUMENT, "--images is missing");
    if (!c->model) return iso_fail(err, ISO_E_ARGUMENT, "--model is missing");
    if (!c->output) return iso_fail(err, ISO_E_ARGUMENT, "--output is missing");
    if (iso_file_same(c->model, c->output))
        return iso_fail(err, ISO_E_ARGUMENT, "--output is --model itself, which --resume still needs: give another name");
    return ISO_OK;
}

/* All but the model. */
static iso_status make_spec(const config *c, iso_training *t, iso_flow_spec *out, iso_error *err)
{
    const iso_backend *backend = NULL;
    iso_status status = iso_device_find(c->device, &backend, err);
    if (status != ISO_OK) return status;
    *out = (iso_flow_spec){
        .beta = c->beta,
        .depth = (int)c->depth,
        .length = (int)c->length,
        .run = {.path = c->output, .epochs = c->epochs, .batch = c->batch, .lr = c->lr, .eta = c->eta,
                .schedule = iso_training_schedule(c->schedule), .warmup = c->warmup, .seed = (uint64_t)c->seed, .threads = (int)c->threads, .resume = c->resume, .force = c->force,
                .backend = backend, .watch = iso_training_watch(t)},
    };
    return ISO_OK;
}

static iso_status fits(const void *spec, const iso_train_data *counts, iso_error *err) { return iso_flow_fits(spec, counts, err); }

static iso_status flatten(const config *c, iso_error *err)
{
    iso_model *model = NULL;
    iso_flow_spec spec;
    iso_training t = {.program = command.program, .quiet = c->quiet, .fits = fits, .spec = &spec};
    iso_status status = check(c, err);
    if (status == ISO_OK) status = make_spec(c, &t, &spec, err);
    if (status != ISO_OK) return status;
    if ((status = iso_model_load(c->model, &model, err)) != ISO_OK) goto done;
    spec.model = model;
    if ((status = iso_flow_check(&spec, err)) != ISO_OK) goto done; /* before decoding, which may take long */
    if ((status = iso_training_load(&t, c->images, (int)c->threads, c->strict, err)) != ISO_OK) goto done;
    status = iso_train_flow(&spec, &t.data, err);
done:
    iso_training_end(&t, c->output, status);
    iso_training_free(&t);
    iso_model_free(model);
    return status;
}

static const config defaults = {.device = "cpu", .schedule = "constant", .depth = 8, .length = 512, .epochs = 100, .batch = 100, .beta = 10, .eta = 0.2, .lr = 1e-5};

const iso_option *iso_indexer_flatten_options(void) { return options; }

iso_status iso_indexer_flatten_spec(int count, char **word, iso_training *t, iso_flow_spec *spec, iso_error *err)
{
    config c = defaults;
    if (iso_args_parse(&command, count, word, 0, &c, NULL) != ISO_ARGS_RUN)
        return iso_fail(err, ISO_E_INTERNAL, "options that `indexer flatten` does not take");
    return make_spec(&c, t, spec, err);
}

int iso_indexer_flatten(int argc, char **argv)
{
    config c = defaults;
    iso_error err = {0};
    int code = iso_args_parse(&command, argc, argv, 2, &c, NULL);
    if (code != ISO_ARGS_RUN) return code;
    if (c.threads) omp_set_num_threads((int)c.threads);
    iso_interrupt_install();
    return iso_exit(command.program, flatten(&c, &err), &err);
}
