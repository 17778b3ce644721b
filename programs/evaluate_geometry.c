/* evaluate geometry: the pullback metric of a model's decoder on held-out images, and pictures of its latent space. */
#include <inttypes.h>
#include <omp.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/args.h"
#include "base/memory.h"
#include "base/progress.h"
#include "base/text.h"
#include "eval/pictures.h"
#include "programs/evaluate.h"
#include "programs/evaluate_geometry.h"
#include "programs/evaluate_print.h"

static const char program[] = "evaluate geometry";
enum { NAMES = 8 };

typedef struct config {
    const char *model, *images, *partition, *attributes, *format, *attribute;
    const char *plot, *reconstructions, *interpolations, *axes;
    int64_t split, samples, seed, threads; /* split: -1 where not given */
    double eta;
    bool quiet;
} config;

static const iso_option options[] = {
    {"model", 0, ISO_ARG_TEXT, offsetof(config, model), "M", "the model file", 0, 0},
    {"images", 0, ISO_ARG_TEXT, offsetof(config, images), "DIR",
     "a data set in CelebA's layout, or any folder of images", 0, 0},
    {"partition", 0, ISO_ARG_TEXT, offsetof(config, partition), "FILE",
     "which image trains, validates, tests (default: DIR/list_eval_partition.txt where it is there)", 0, 0},
    {"split", 0, ISO_ARG_INT, offsetof(config, split), "N",
     "the part to measure on (default: 1, the validation images; without a partition file all images)", 0, 2},
    {"samples", 0, ISO_ARG_INT, offsetof(config, samples), "N", "how many images, drawn at random (default: 500)", 1,
     1000000},
    {"eta", 0, ISO_ARG_REAL, offsetof(config, eta), "X",
     "how far the codes are mixed up beyond one another; 0: between them (default: 0.2)", 0, 1000},
    {"seed", 0, ISO_ARG_INT, offsetof(config, seed), "N", "another number draws other images and mixes (default: 0)", 0,
     9007199254740992.0},
    {"plot", 0, ISO_ARG_TEXT, offsetof(config, plot), "OUT.png", "draw the codes with equidistance ellipses", 0, 0},
    {"attribute", 0, ISO_ARG_TEXT, offsetof(config, attribute), "NAME,...",
     "with --plot: colour the codes by the first of these (at most 8) that the image has", 0, 0},
    {"attributes", 0, ISO_ARG_TEXT, offsetof(config, attributes), "FILE",
     "which image has which attribute (default: DIR/list_attr_celeba.txt)", 0, 0},
    {"reconstructions", 0, ISO_ARG_TEXT, offsetof(config, reconstructions), "OUT.png",
     "draw images over their reconstructions", 0, 0},
    {"interpolations", 0, ISO_ARG_TEXT, offsetof(config, interpolations), "OUT.png",
     "draw what is decoded between the codes of two images", 0, 0},
    {"axes", 0, ISO_ARG_TEXT, offsetof(config, axes), "OUT.png",
     "draw what is decoded along the codes' principal directions", 0, 0},
    {"format", 0, ISO_ARG_CHOICE, offsetof(config, format), "table|json", "how to print (default: table)", 0, 0},
    {"threads", 0, ISO_ARG_INT, offsetof(config, threads), "N", "threads to use (default: all)", 1, 1024},
    {"quiet", 'q', ISO_ARG_FLAG, offsetof(config, quiet), NULL, "no progress and no notes on stderr", 0, 0},
    {NULL, 0, 0, 0, NULL, NULL, 0, 0}};

static const iso_command command = {
    program, "evaluate geometry --model M --images DIR [options]",
    "How far the decoder is from an isometry: whether equal steps in the latent space are equally large changes of the image, "
    "wherever one stands and whichever way one goes. Images are encoded, their codes mixed up in pairs, and at each the decoder's "
    "pullback metric G = JtJ is computed, J its Jacobian (through the flow, where the model has one). An isometry has the same G "
    "everywhere, a multiple of the identity. VoR tells how much G changes from place to place, MCN and CN how much its directions "
    "differ (largest eigenvalue over smallest), VPres and ISO how much the logarithms of its determinant and of its eigenvalues "
    "vary. One nearly flat direction makes a mean as large as you like, so medians stand beside the means.\n"
    "\n"
    "A metric that is singular as far as double precision can tell is left out of the figures, and counted.\n"
    "\n"
    "--plot draws a latent space of two dimensions as it is, of more the plane of the two leading principal directions of the codes. "
    "Each ellipse is a set of points that the metric there puts at one distance from its centre: circles of one size are an isometry.",
    options,
    "The time is that of some (latent dimension) x (samples) passes through the decoder: half a minute for 128 x 500 at width 16 on two "
    "cores, some 60 times as long at width 128.\n"
    "Exit codes: 0 done; 1 failed, or not one metric could be used (what is known is printed all the same); 2 wrong usage.\n"
    "Examples:\n"
    "  evaluate geometry --model irvae.safetensors --images celeba/\n"
    "  evaluate geometry --model irvae.safetensors --images celeba/ --plot codes.png --attribute Male,Smiling \\\n"
    "      --reconstructions rec.png --interpolations lines.png --axes axes.png"};

typedef struct run {
    const config *c;
    iso_model *model;
    iso_sample *sample;
    iso_pullback pullback;
    iso_progress progress;
    char *names; /* of --attribute, cut at the commas */
    const char *name[NAMES];
    int name_count;
    int *group;  /* [images], where there are names */
    char *title; /* of the pictures: the model file's name */
} run;

static iso_status usage(iso_error *err, const char *what)
{
    return iso_fail(err, ISO_E_ARGUMENT, "%s (see --help)", what);
}

/* ---- before the work ---- */

static iso_status cut_names(run *r, iso_error *err)
{
    if (!r->c->attribute) return ISO_OK;
    if (!r->c->plot) return usage(err, "--attribute colours what --plot draws: give --plot OUT.png, too");
    r->names = iso_strndup(r->c->attribute, strlen(r->c->attribute));
    if (!r->names) return iso_fail_memory(err);
    for (char *at = r->names; at;) {
        if (r->name_count == NAMES) return usage(err, "--attribute takes at most 8 names");
        char *name = at;
        if ((at = strchr(name, ','))) *at++ = 0;
        if (!*name) return usage(err, "--attribute: a name is empty; names with commas between them, as Male,Smiling");
        for (int i = 0; i < r->name_count; i++)
            if (strcmp(r->name[i], name) == 0) return usage(err, "--attribute has a name twice");
        r->name[r->name_count++] = name;
    }
    return ISO_OK;
}

/* One picture must not replace another. */
static iso_status check_outputs(const config *c, iso_error *err)
{
    const char *path[] = {c->plot, c->reconstructions, c->interpolations, c->axes};
    for (int i = 0; i < 4; i++) {
        if (!path[i]) continue;
        for (int k = 0; k < i; k++)
            if (path[k] && strcmp(path[k], path[i]) == 0) return usage(err, "two pictures cannot go to one file");
        iso_status status = iso_evaluate_picture(path[i], err);
        if (status) return status;
    }
    return ISO_OK;
}

/* "irvae" of "models/irvae.safetensors", fit for a picture. */
static char *model_name(const char *path)
{
    const char *slash = strrchr(path, '/'), *base = slash && slash[1] ? slash + 1 : path, *dot = strrchr(base, '.');
    char *name =
        iso_strndup(base, dot && dot != base && strcmp(dot, ".safetensors") == 0 ? (size_t)(dot - base) : strlen(base));
    char *printable = name ? iso_text_printable(name) : NULL,
         *middle = printable ? iso_text_middle(printable, 60) : NULL;
    free(name);
    free(printable);
    return middle;
}

static iso_status prepare(run *r, iso_error *err)
{
    const config *c = r->c;
    if (!c->model) return usage(err, "--model is needed");
    if (!c->images) return usage(err, "--images is needed");
    iso_status status = cut_names(r, err);
    if (status) return status;
    if ((status = check_outputs(c, err))) return status;
    if (!(r->title = model_name(c->model))) return iso_fail_memory(err);
    if ((status = iso_model_load(c->model, &r->model, err))) return status;
    if ((status = iso_pullback_supports(r->model, err))) return iso_fail_prefix(err, status, "%s", c->model);
    if (c->plot && iso_model_dim(r->model) < 2)
        return iso_fail(err, ISO_E_UNSUPPORTED, "codes of one dimension make no plane: leave --plot out");
    iso_sample_spec spec = {.dir = c->images,
                            .partition = c->partition,
                            .part = (int)c->split,
                            .count = c->samples,
                            .seed = (uint64_t)c->seed,
                            .threads = (int)c->threads,
                            .progress = &r->progress};
    status = iso_sample_load(&spec, &r->sample, err);
    iso_progress_end(&r->progress);
    return status;
}

static void note_sample(const run *r)
{
    const iso_sample *s = r->sample;
    for (int64_t i = 0; i < s->skipped; i++) {
        fprintf(stderr, "%s: skipped ", program);
        iso_text_show(stderr, s->skip_path[i], strlen(s->skip_path[i]));
        fprintf(stderr, ": %s\n", s->skip_reason[i]);
    }
    if (s->count < r->c->samples)
        fprintf(stderr, "%s: %" PRId64 " images wanted, measured on all there are: %" PRId64 "\n", program,
                r->c->samples, s->count);
    if (s->count == 1)
        fprintf(stderr, "%s: one image only: what compares metrics (VoR, VPres) takes two or more and is left out\n",
                program);
}

static iso_status find_groups(run *r, iso_error *err)
{
    if (!r->name_count) return ISO_OK;
    int64_t unlisted = 0;
    r->group = iso_calloc((size_t)r->sample->count, sizeof *r->group);
    if (!r->group) return iso_fail_memory(err);
    iso_status status =
        iso_sample_groups(r->sample, r->c->images, r->c->attributes, r->name_count, r->name, r->group, &unlisted, err);
    if (!status && unlisted && !r->c->quiet)
        fprintf(stderr, "%s: %" PRId64 " of the images %s not in the attribute file and stay%s gray\n", program,
                unlisted, unlisted == 1 ? "is" : "are", unlisted == 1 ? "s" : "");
    return status;
}

/* ---- the work ---- */

static iso_status measure(run *r, iso_error *err)
{
    iso_pullback_spec spec = {.eta = r->c->eta,
                              .seed = (uint64_t)r->c->seed,
                              .threads = (int)r->c->threads,
                              .progress = &r->progress};
    iso_status status = iso_pullback_measure(r->model, r->sample->pixels, r->sample->count, &spec, &r->pullback, err);
    iso_progress_end(&r->progress);
    const iso_pullback *p = &r->pullback;
    if (!status && p->left_out && !r->c->quiet)
        fprintf(stderr, "%s: %" PRId64 " of %" PRId64 " metrics are left out; of the first: %s\n", program, p->left_out,
                p->images, p->left_out_reason);
    return status;
}

static iso_status print(const run *r, iso_error *err)
{
    iso_geometry_report report = {.model_path = r->c->model,
                                  .images = r->c->images,
                                  .model = r->model,
                                  .sample = r->sample,
                                  .pullback = &r->pullback,
                                  .eta = r->c->eta,
                                  .seed = (uint64_t)r->c->seed};
    if (strcmp(r->c->format, "json") == 0)
        iso_geometry_json(&report);
    else
        iso_geometry_table(&report);
    return fflush(stdout) || ferror(stdout) ? iso_fail_errno(err, "cannot write the results") : ISO_OK;
}

enum { PLOT, RECONSTRUCTIONS, INTERPOLATIONS, AXES, PICTURES };

static iso_status draw_one(const run *r, int which, iso_error *err)
{
    const config *c = r->c;
    const iso_pullback *p = &r->pullback;
    const uint8_t *pixels = r->sample->pixels;
    switch (which) {
    case PLOT: return c->plot ? iso_picture_codes(p, r->title, r->group, r->name_count, r->name, c->plot, err) : ISO_OK;
    case RECONSTRUCTIONS:
        return c->reconstructions
                   ? iso_picture_reconstructions(r->model, pixels, p->images, p->mse, r->title, c->reconstructions, err)
                   : ISO_OK;
    case INTERPOLATIONS:
        return c->interpolations ? iso_picture_interpolations(r->model, pixels, p, r->title, c->interpolations, err)
                                 : ISO_OK;
    default: return c->axes ? iso_picture_axes(r->model, p, r->title, c->axes, err) : ISO_OK;
    }
}

/* All that can be drawn, whatever fails; err has the first failure, the others are told at once. */
static iso_status draw(const run *r, iso_error *err)
{
    iso_status status = ISO_OK;
    for (int i = 0; i < PICTURES; i++) {
        iso_error own = {0};
        iso_status s = draw_one(r, i, &own);
        if (s && status) fprintf(stderr, "%s: %s\n", program, own.message);
        if (!s || status) continue;
        status = s;
        *err = own;
    }
    return status;
}

static iso_status evaluate(run *r, iso_error *err)
{
    iso_error later = {0};
    iso_status status = prepare(r, err);
    if (status) return status;
    if (!r->c->quiet) note_sample(r);
    if ((status = find_groups(r, err))) return status;
    status = measure(r, err);
    if (status && !r->pullback.images) return status;
    /* Without a single metric there are still an error and codes to show; and one failure does not keep the other results. */
    iso_status rest = print(r, &later);
    if (!rest) rest = draw(r, &later);
    if (rest && status) fprintf(stderr, "%s: %s\n", program, err->message);
    if (rest) *err = later;
    return rest ? rest : status;
}

int iso_evaluate_geometry(int argc, char **argv)
{
    config c = {.split = -1, .samples = 500, .eta = 0.2, .format = "table"};
    int code = iso_args_parse(&command, argc, argv, 2, &c, NULL);
    if (code != ISO_ARGS_RUN) return code;
    if (c.threads > 0) omp_set_num_threads((int)c.threads);
    iso_interrupt_install();
    iso_error err = {0};
    run r = {.c = &c};
    iso_status status = evaluate(&r, &err);
    iso_model_free(r.model);
    iso_sample_free(r.sample);
    iso_pullback_free(&r.pullback);
    free(r.names);
    free(r.group);
    free(r.title);
    return iso_exit(program, status, &err);
}
