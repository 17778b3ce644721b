/* indexer whiten: a trained model to one whose vectors are whitened. */
#include <omp.h>
#include <stddef.h>

#include "base/args.h"
#include "base/file.h"
#include "model/whiten.h"
#include "programs/indexer.h"
#include "programs/indexer_training.h"

typedef struct config {
    const char *images, *model, *output;
    double shrinkage;
    int64_t threads;
    bool force, strict, quiet;
} config;

#define AT(field) offsetof(config, field)
static const iso_option options[] = {
    {"images", 0, ISO_ARG_TEXT, AT(images), "DIR", "the images that the model was trained on", 0, 0},
    {"model", 0, ISO_ARG_TEXT, AT(model), "M", "a model that `indexer train` or `indexer flatten` made", 0, 0},
    {"output", 0, ISO_ARG_TEXT, AT(output), "M2", "the model file to write", 0, 0},
    {"shrinkage", 0, ISO_ARG_REAL, AT(shrinkage), "A",
     "how far the covariance is drawn towards a multiple of the identity: 0 not at all, 1 all the way (default: 0.02)",
     0, 1},
    {"force", 0, ISO_ARG_FLAG, AT(force), NULL, "replace M2 where it is there", 0, 0},
    {"strict", 0, ISO_ARG_FLAG, AT(strict), NULL, "fail when an image cannot be used", 0, 0},
    {"threads", 0, ISO_ARG_INT, AT(threads), "N", "threads (default: all)", 1, 1024},
    {"quiet", 'q', ISO_ARG_FLAG, AT(quiet), NULL, "no progress", 0, 0},
    {NULL, 0, ISO_ARG_FLAG, 0, NULL, NULL, 0, 0},
};

static const iso_command command = {
    "indexer whiten",
    "indexer whiten --images DIR --model M --output M2 [options]",
    "Writes M2: M with its vectors whitened, from the mean and the covariance S of the training images' vectors c:\n"
    "\n"
    "    vector = W (c - mean),  W = ((1 - A) S + A (Tr S / m) I)^(-1/2)\n"
    "\n"
    "Every direction then counts alike in a cosine, as with whitened principal components. A shrinkage of 0 gives the training\n"
    "images' vectors a covariance of 1 exactly; a little of it keeps directions in which hardly anything varies from drowning the\n"
    "rest in noise. Any kind of model can be whitened, one with a flow as well. No labels are read. Takes as long as encoding the images.",
    options,
    "M2 is for encoding and retrieval. It cannot be flattened, whitened again or measured by `evaluate geometry`: "
    "flatten first, then whiten, and measure M.",
};

static iso_status check(const config *c, iso_error *err)
{
    if (!c->images) return iso_fail(err, ISO_E_ARGUMENT, "--images is missing");
    if (!c->model) return iso_fail(err, ISO_E_ARGUMENT, "--model is missing");
    if (!c->output) return iso_fail(err, ISO_E_ARGUMENT, "--output is missing");
    if (iso_file_same(c->model, c->output))
        return iso_fail(err, ISO_E_ARGUMENT,
                        "--output is --model itself, which geometry and flattening still need: give another name");
    return ISO_OK;
}

static iso_status whiten(const config *c, iso_error *err)
{
    iso_model *model = NULL;
    iso_training t = {.program = command.program, .quiet = c->quiet, .train_only = true};
    iso_status status = check(c, err);
    if (status == ISO_OK) status = iso_model_load(c->model, &model, err);
    iso_whiten_spec spec = {.model = model,
                            .shrinkage = c->shrinkage,
                            .path = c->output,
                            .force = c->force,
                            .watch = iso_training_watch(&t)};
    if (status == ISO_OK) status = iso_whiten_check(&spec, err); /* before decoding, which may take long */
    if (status == ISO_OK) status = iso_training_load(&t, c->images, (int)c->threads, c->strict, err);
    if (status == ISO_OK) status = iso_whiten(&spec, &t.data, err);
    iso_training_end(&t, c->output, status);
    iso_training_free(&t);
    iso_model_free(model);
    return status;
}

int iso_indexer_whiten(int argc, char **argv)
{
    config c = {.shrinkage = ISO_WHITEN_SHRINKAGE};
    iso_error err = {0};
    int code = iso_args_parse(&command, argc, argv, 2, &c, NULL);
    if (code != ISO_ARGS_RUN) return code;
    if (c.threads) omp_set_num_threads((int)c.threads);
    iso_interrupt_install();
    return iso_exit(command.program, whiten(&c, &err), &err);
}
