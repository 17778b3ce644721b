/* indexer train: images to a model. */
#include <omp.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "base/args.h"
#include "model/device.h"
#include "model/net/net.h"
#include "model/pca.h"
#include "programs/indexer.h"
#include "programs/indexer_training.h"

typedef struct config {
    const char *images, *model, *method, *attributes, *arch, *sigma, *device, *schedule;
    int64_t width, latent, views, epochs, batch, seed, threads, warmup;
    double alpha, eta, lr, sigma_lr, kl_weight;
    bool mirror, resume, force, strict, quiet;
} config;

#define AT(field) offsetof(config, field)
static const iso_option options[] = {
    {"images", 0, ISO_ARG_TEXT, AT(images), "DIR", "folder of images, or a data set in CelebA's layout", 0, 0},
    {"model", 0, ISO_ARG_TEXT, AT(model), "M", "the model file to write", 0, 0},
    {"method", 0, ISO_ARG_CHOICE, AT(method), "isometric|flat-manifold|vae|supervised|pca", "what is trained (default: isometric)", 0, 0},
    {"attributes", 0, ISO_ARG_TEXT, AT(attributes), "FILE", "supervised: which image has which attribute (default: DIR/list_attr_celeba.txt)", 0, 0},
    {"arch", 0, ISO_ARG_CHOICE, AT(arch), "celeba", "architecture (default: celeba)", 0, 0},
    {"width", 0, ISO_ARG_INT, AT(width), "W", "channels of the first layer (default: 128; 16 or 32 suit a CPU)", 1, 4096},
    {"latent", 0, ISO_ARG_INT, AT(latent), "M", "latent dimension (default: 128)", 1, 4096},
    {"views", 0, ISO_ARG_INT, AT(views), "N", "2: a vector is the mean over an image and its mirror image (default); 1: of the image (pca's default)", 1, 2},
    {"alpha", 0, ISO_ARG_REAL, AT(alpha), "A", "weight of the method's term: of R (default: 1000), or of flat-manifold's (default: 1)", 0, 1e12},
    {"eta", 0, ISO_ARG_REAL, AT(eta), "E", "how far mixed-up codes reach beyond their pair (default: 0.2)", 0, 100},
    {"kl-weight", 0, ISO_ARG_REAL, AT(kl_weight), "W", "weight of the KL term (default: 1, the bound itself)", 0, 1e12},
    {"sigma", 0, ISO_ARG_TEXT, AT(sigma), "RULE",
     "the decoder's noise: optimal (of each batch), learned, or a fixed number from 1e-6 to 1e6 (default: optimal)", 0, 0},
    {"sigma-lr", 0, ISO_ARG_REAL, AT(sigma_lr), "R", "learning rate of log sigma where learned (default: 0.01)", 1e-12, 10},
    {"epochs", 0, ISO_ARG_INT, AT(epochs), "N", "passes over the training images (default: 100)", 1, 1e9},
    {"batch", 0, ISO_ARG_INT, AT(batch), "B", "images a step (default: 100)", 1, 1 << 20},
    {"lr", 0, ISO_ARG_REAL, AT(lr), "R", "Adam's learning rate (default: 1e-4; supervised: 1e-3)", 1e-30, 1e300},
    {"schedule", 0, ISO_ARG_CHOICE, AT(schedule), "constant|cosine", "how the learning rate goes (default: constant); cosine: falling to 0 over all epochs", 0, 0},
    {"warmup", 0, ISO_ARG_INT, AT(warmup), "N", "steps over which the learning rate rises to --lr (default: 0)", 0, 1e12},
    {"seed", 0, ISO_ARG_INT, AT(seed), "S", "of every random number (default: 0)", 0, 9007199254740992.0},
    {"mirror", 0, ISO_ARG_FLAG, AT(mirror), NULL, "flip half of the images, drawn anew each time", 0, 0},
    {"resume", 0, ISO_ARG_FLAG, AT(resume), NULL, "go on with M.state; --epochs may have grown, but not with --schedule cosine", 0, 0},
    {"force", 0, ISO_ARG_FLAG, AT(force), NULL, "start anew although M is there", 0, 0},
    {"strict", 0, ISO_ARG_FLAG, AT(strict), NULL, "fail when an image cannot be used", 0, 0},
    {"device", 0, ISO_ARG_CHOICE, AT(device), ISO_DEVICES, "where to compute (default: cpu); cuda: a GPU, products in TF32", 0, 0},
    {"threads", 0, ISO_ARG_INT, AT(threads), "N", "threads (default: all)", 1, 1024},
    {"quiet", 'q', ISO_ARG_FLAG, AT(quiet), NULL, "no progress", 0, 0},
    {NULL, 0, ISO_ARG_FLAG, 0, NULL, NULL, 0, 0},
};

static const iso_command command = {
    "indexer train",
    "indexer train --images DIR --model M [options]",
    "Trains a variational autoencoder on the images of DIR: isometrically regularized (Lee 2022), with the flat-manifold term\n"
    "E|JtJv - cv|^2 (Chen 2020), or plain. Or the same encoder, without a decoder, to tell the attributes that people gave the\n"
    "images (supervised). Or finds whitened principal components of the pixels (pca), in seconds.\n"
    "\n"
    "M holds the best epoch by validation loss; M.state all that --resume needs to go on bit for bit (with\n"
    "the same --threads); M.csv one row an epoch. Ctrl-C saves M.state and stops.\n"
    "\n"
    "supervised is the only method that sees labels: what can be reached with them. Its vectors are the encoder's outputs divided by\n"
    "their norm, from which a linear layer tells each attribute of the attribute file (binary cross-entropy). Images that the file\n"
    "does not list are left out. --alpha, --eta, --kl-weight, --sigma and --sigma-lr mean nothing with it and are errors.\n"
    "\n"
    "pca writes M alone, and has no use for the options of a network and its steps, which are errors with it: it takes\n"
    "--latent (at most the training images less one), --views, --seed, --force, --strict, --device, --threads and --quiet.",
    options,
    "An epoch's line gives training figures and, in parentheses, those of the validation images: the loss,\n"
    "the squared error per pixel and channel (images in [-1, 1]), the isometric term R (1/latent of an isometry, but for the noise\n"
    "of its probes; reported for every method with a decoder), the KL. Of supervised: the loss, and the share of the attributes told right.",
};

/* What only training by steps has. Numbers below every option's least, and NULL, mean that it was not given. */
static const config not_given = {.method = "isometric", .device = "cpu", .latent = 128, .alpha = -1, .eta = -1, .kl_weight = -1, .warmup = -1};

static bool is_supervised(const config *c) { return strcmp(c->method, "supervised") == 0; }
static bool is_pca(const config *c) { return strcmp(c->method, "pca") == 0; }

/* Options that mean nothing with the method. */
static iso_status refuse_others(const config *c, iso_error *err)
{
    bool pca = is_pca(c), no_bound = pca || is_supervised(c), no_labels = !is_supervised(c);
    const struct { const char *name; bool given, unfit; } list[] = {
        {"attributes", c->attributes != NULL, no_labels}, {"arch", c->arch != NULL, pca}, {"width", c->width != 0, pca},
        {"alpha", c->alpha >= 0, no_bound}, {"eta", c->eta >= 0, no_bound}, {"kl-weight", c->kl_weight >= 0, no_bound},
        {"sigma", c->sigma != NULL, no_bound}, {"sigma-lr", c->sigma_lr > 0, no_bound}, {"epochs", c->epochs != 0, pca},
        {"batch", c->batch != 0, pca}, {"lr", c->lr > 0, pca}, {"schedule", c->schedule != NULL, pca}, {"warmup", c->warmup >= 0, pca}, {"mirror", c->mirror, pca},
        {"resume", c->resume, pca}};
    for (size_t i = 0; i < sizeof list / sizeof *list; i++)
        if (list[i].given && list[i].unfit)
            return iso_fail(err, ISO_E_ARGUMENT, "--%s means nothing with --method %s: leave it out", list[i].name, c->method);
    return ISO_OK;
}

static void fill_defaults(config *c)
{
    if (!c->arch) c->arch = "celeba";
    if (!c->sigma) c->sigma = "optimal";
    if (!c->schedule) c->schedule = "constant";
    if (!c->width) c->width = 128;
    if (!c->views) c->views = 2;
    if (!c->epochs) c->epochs = 100;
    if (!c->batch) c->batch = 100;
    if (c->alpha < 0) c->alpha = strcmp(c->method, "flat-manifold") == 0 ? 1 : 1000; /* docs/training.md says why not the paper's 10 */
    if (c->eta < 0) c->eta = 0.2;
    if (c->kl_weight < 0) c->kl_weight = 1;
    if (c->warmup < 0) c->warmup = 0;
    if (!(c->lr > 0)) c->lr = is_supervised(c) ? 1e-3 : 1e-4;
    if (!(c->sigma_lr > 0)) c->sigma_lr = 1e-2;
}

static iso_status parse_sigma(const config *c, iso_train_spec *spec, iso_error *err)
{
    spec->sigma = 1;
    if (strcmp(c->sigma, "optimal") == 0) {
        spec->sigma_rule = ISO_SIGMA_OPTIMAL;
    } else if (strcmp(c->sigma, "learned") == 0) {
        spec->sigma_rule = ISO_SIGMA_LEARNED;
    } else {
        char *end;
        spec->sigma_rule = ISO_SIGMA_FIXED;
        spec->sigma = strtod(c->sigma, &end);
        if (!*c->sigma || *end || !(spec->sigma >= ISO_SIGMA_LEAST && spec->sigma <= ISO_SIGMA_MOST))
            return iso_fail(err, ISO_E_ARGUMENT, "--sigma is optimal, learned or a number from %g to %g, not %s", ISO_SIGMA_LEAST, ISO_SIGMA_MOST, c->sigma);
    }
    return ISO_OK;
}

static iso_status make_spec(const config *c, iso_training *t, iso_train_spec *out, iso_error *err)
{
    iso_train_spec spec = {
        .net = {.arch = ISO_ARCH_CELEBA, .width = (int)c->width, .latent = (int)c->latent, .views = (int)c->views},
        .method = c->method,
        .alpha = c->alpha,
        .kl_weight = c->kl_weight,
        .sigma_lr = c->sigma_lr,
        .mirror = c->mirror,
        .run = {.path = c->model, .epochs = c->epochs, .batch = c->batch, .lr = c->lr, .eta = c->eta, .schedule = iso_training_schedule(c->schedule), .warmup = c->warmup,
                .seed = (uint64_t)c->seed, .threads = (int)c->threads, .resume = c->resume, .force = c->force,
                .watch = iso_training_watch(t)},
    };
    iso_status status = parse_sigma(c, &spec, err);
    if (status == ISO_OK) status = iso_device_find(c->device, &spec.run.backend, err);
    if (status == ISO_OK) *out = spec;
    return status;
}

static iso_status fits(const void *spec, const iso_train_data *counts, iso_error *err) { return iso_train_fits(spec, counts, err); }

static iso_status train(const config *c, iso_error *err)
{
    iso_train_spec spec;
    iso_training t = {.program = command.program, .quiet = c->quiet, .fits = fits, .spec = &spec};
    iso_status status = make_spec(c, &t, &spec, err);
    if (status == ISO_OK) status = iso_run_check(&spec.run, err); /* before decoding, which may take long */
    if (status == ISO_OK && is_supervised(c)) {
        status = iso_training_attributes(&t, c->images, c->attributes, err);
        if (status == ISO_OK) spec.net.classes = iso_attributes_count(t.attributes);
    }
    if (status == ISO_OK) status = iso_train_check(&spec, err);
    if (status == ISO_OK) status = iso_training_load(&t, c->images, (int)c->threads, c->strict, err);
    if (status == ISO_OK) status = iso_train(&spec, &t.data, err);
    iso_training_end(&t, c->model, status);
    iso_training_free(&t);
    return status;
}

static iso_status find_components(const config *c, iso_error *err)
{
    iso_training t = {.program = command.program, .quiet = c->quiet, .train_only = true};
    iso_pca_spec spec = {.latent = (int)c->latent, .views = (int)c->views, .seed = (uint64_t)c->seed, .path = c->model, .force = c->force,
                         .watch = iso_training_watch(&t)};
    iso_status status = iso_pca_check(&spec, err); /* before decoding, which may take long */
    if (status == ISO_OK) status = iso_training_load(&t, c->images, (int)c->threads, c->strict, err);
    if (status == ISO_OK) status = iso_pca_train(&spec, &t.data, err);
    iso_training_end(&t, c->model, status);
    iso_training_free(&t);
    return status;
}

static iso_status run(config *c, iso_error *err)
{
    iso_status status = refuse_others(c, err);
    if (status != ISO_OK) return status;
    if (!c->images) return iso_fail(err, ISO_E_ARGUMENT, "--images is missing");
    if (!c->model) return iso_fail(err, ISO_E_ARGUMENT, "--model is missing");
    if (is_pca(c)) {
        const iso_backend *backend = NULL;
        status = iso_device_find(c->device, &backend, err);
        if (status == ISO_OK && backend->device)
            status = iso_fail(err, ISO_E_UNSUPPORTED, "--method pca computes on the CPU: use --device cpu");
        return status == ISO_OK ? find_components(c, err) : status;
    }
    fill_defaults(c);
    return train(c, err);
}

const iso_option *iso_indexer_train_options(void) { return options; }

iso_status iso_indexer_train_spec(int count, char **word, iso_training *t, iso_train_spec *spec, iso_error *err)
{
    config c = not_given;
    if (iso_args_parse(&command, count, word, 0, &c, NULL) != ISO_ARGS_RUN)
        return iso_fail(err, ISO_E_INTERNAL, "options that `indexer train` does not take");
    iso_status status = refuse_others(&c, err);
    if (status != ISO_OK) return status;
    fill_defaults(&c);
    return make_spec(&c, t, spec, err);
}

int iso_indexer_train(int argc, char **argv)
{
    config c = not_given;
    iso_error err = {0};
    int code = iso_args_parse(&command, argc, argv, 2, &c, NULL);
    if (code != ISO_ARGS_RUN) return code;
    if (c.threads) omp_set_num_threads((int)c.threads);
    iso_interrupt_install();
    return iso_exit(command.program, run(&c, &err), &err);
}
