/* evaluate sweep: which models a sweep consists of. */
#include "programs/evaluate_sweep.h"

#include <assert.h>
#include <math.h>
#include <omp.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/memory.h"
#include "model/device.h"
#include "programs/evaluate.h"

static const char program[] = "evaluate sweep";

typedef iso_sweep_config config;
typedef iso_sweep_plan plan;
typedef iso_sweep_job job;

/* ---- options ---- */

#define AT(field) offsetof(config, field)
static const iso_option own[] = {
    {"images", 0, ISO_ARG_TEXT, AT(images), "DIR", "folder of images, or a data set in CelebA's layout", 0, 0},
    {"out", 0, ISO_ARG_TEXT, AT(out), "OUT", "folder for the models, sweep.csv and sweep.png; made where there is none",
     0, 0},
    {"alpha", 0, ISO_ARG_TEXT, AT(alpha), "A,A,...",
     "train a model with each weight of the method's term; 0 or vae: the plain VAE", 0, 0},
    {"method", 0, ISO_ARG_TEXT, AT(method), "M,M",
     "with --alpha: isometric, flat-manifold or both; vae adds the plain VAE (default: isometric)", 0, 0},
    {"beta", 0, ISO_ARG_TEXT, AT(beta), "B,B,...", "or flatten --model with each weight of the codes' norm", 0, 0},
    {"model", 0, ISO_ARG_TEXT, AT(model), "M",
     "with --beta: the model to flatten; {seed} in it stands for each of --seeds", 0, 0},
    {"seeds", 0, ISO_ARG_TEXT, AT(seeds), "S,S,...", "train each with these seeds (default: 0)", 0, 0},
    {"samples", 0, ISO_ARG_INT, AT(samples), "N", "images to measure on, or as many as there are (default: 500)", 1,
     1 << 20},
    {"metrics-seed", 0, ISO_ARG_INT, AT(metrics_seed), "S",
     "which they are, and how their codes are mixed up (default: 0)", 0, 9007199254740992.0},
    {"split", 0, ISO_ARG_INT, AT(split), "N", "the part that they come from (default: 1, the validation images)", 0, 2},
    {"force", 0, ISO_ARG_FLAG, AT(force), NULL, "train every model anew", 0, 0},
    {"strict", 0, ISO_ARG_FLAG, AT(strict), NULL, "fail when an image cannot be used", 0, 0},
    {"format", 0, ISO_ARG_CHOICE, AT(format), "table|json", "how to print (default: table)", 0, 0},
    {"threads", 0, ISO_ARG_INT, AT(threads), "N", "threads (default: all)", 1, 1024},
    {"quiet", 'q', ISO_ARG_FLAG, AT(quiet), NULL, "no progress", 0, 0},
};
enum { OWN = sizeof own / sizeof *own, OF_TRAIN = 1, OF_FLATTEN = 2 };

/* The own options, those of the trainings behind them, and the end. */
static iso_option options[OWN + ISO_SWEEP_PASSED + 1];
static unsigned of[ISO_SWEEP_PASSED]; /* which training takes it */
static int passed;

static iso_command command = {
    program,
    "evaluate sweep --images DIR --out OUT (--alpha A,A,... | --beta B,B,... --model M) [options]",
    "What does isometry cost? Trains a model for each alpha, as `indexer train` does, or flattens a model with each beta, as "
    "`indexer flatten` does, and measures each one's reconstruction error (MSE) and how far its decoder is from an isometry "
    "(VoR and MCN, the trade-off of Lee 2022 figures 1 to 3; CN, VPres, ISO) on held-out images at codes mixed up with eta 0.2.\n"
    "\n"
    "OUT/METHOD-aALPHA-sSEED.safetensors or OUT/fm-bBETA-sSEED.safetensors are the models, each of its best epoch, "
    "OUT/sweep.csv has a row for each, OUT/sweep.png the curves. Both are brought up to date after each model, "
    "and are of the last command only. A sweep that was stopped goes on with the same command: finished models are only looked at, an interrupted training is resumed. A training "
    "that breaks (NaN) leaves its row empty, and the others go on.\n"
    "\n"
    "The options from --arch on are those of `indexer train`. With --beta those of `indexer flatten` are taken: --eta, --epochs, "
    "--batch, --lr (default: 1e-5), --schedule, --warmup, --device, --depth and --length.",
    options,
    "Columns of sweep.csv: model, method, alpha, beta, seed; epochs and images that the training has seen; best_epoch, the\n"
    "one the model holds, its val_loss on all validation images; mse, vor, mcn (means over the images, with their medians), cn,\n"
    "vpres, iso, R; metrics, how many they are from, and left_out, how many were not positive definite; measured, a digest of\n"
    "model, images and options; command, what makes the same model.\n"
    "Exit codes: 0 done; 1 failed, or a training broke; 2 wrong usage.\n"
    "Examples:\n"
    "  evaluate sweep --images faces/ --out sweep --alpha 0,10,100,1000 --width 16 --epochs 10 --lr 1e-3\n"
    "  evaluate sweep --images faces/ --out sweep-fm --beta 1,10,100 --model irvae.safetensors --epochs 10",
};

static iso_status usage(iso_error *err, const char *what)
{
    return iso_fail(err, ISO_E_ARGUMENT, "%s (see --help)", what);
}

static int find_option(const iso_option *table, int count, const char *name)
{
    for (int i = 0; i < count; i++)
        if (strcmp(table[i].name, name) == 0) return i;
    return -1;
}

static void pass_on(const iso_option *o, unsigned training, iso_sweep_config *c)
{
    /* Given for each model, or none of a sweep's. */
    static const char *const not [] = {"output", "seed", "resume", "attributes"};
    for (; o->name; o++) {
        bool skip = find_option(own, OWN, o->name) >= 0 || o->kind == ISO_ARG_LIST;
        for (size_t i = 0; i < sizeof not / sizeof *not ; i++) skip = skip || strcmp(o->name, not [i]) == 0;
        int known = find_option(options + OWN, passed, o->name);
        if (known >= 0) of[known] |= training;
        if (skip || known >= 0) continue;
        assert(passed < ISO_SWEEP_PASSED);
        iso_sweep_cell *cell = &c->passed[passed];
        if (o->kind == ISO_ARG_INT)
            cell->i = INT64_MIN;
        else if (o->kind == ISO_ARG_REAL)
            cell->r = NAN;
        of[passed] = training;
        options[OWN + passed] = *o;
        options[OWN + passed].offset = AT(passed) + (size_t)passed * sizeof *cell;
        passed++;
    }
}

static bool given(const config *c, int i)
{
    const iso_sweep_cell *cell = &c->passed[i];
    switch (options[OWN + i].kind) {
    case ISO_ARG_INT: return cell->i != INT64_MIN;
    case ISO_ARG_REAL: return !isnan(cell->r);
    case ISO_ARG_FLAG: return cell->flag;
    default: return cell->text != NULL;
    }
}

/* ---- what is asked for ---- */

typedef struct lists {
    const char *method[ISO_SWEEP_METHODS];
    double value[ISO_SWEEP_LIST], seed[ISO_SWEEP_LIST];
    int methods, values, seeds;
    bool vae; /* the plain VAE, too */
} lists;

static iso_status parse_methods(const char *text, lists *l, iso_error *err)
{
    static const char *const known[] = {"isometric", "flat-manifold", "vae"};
    bool have[3] = {false};
    for (const char *at = text;; at++) {
        size_t length = strcspn(at, ",");
        int found = -1;
        for (int k = 0; k < 3; k++)
            if (strlen(known[k]) == length && memcmp(at, known[k], length) == 0) found = k;
        if (found < 0)
            return iso_fail(err, ISO_E_ARGUMENT,
                            "--method takes isometric, flat-manifold and vae with commas between them, not '%.100s'",
                            text);
        if (have[found]) return iso_fail(err, ISO_E_ARGUMENT, "--method has %s twice", known[found]);
        have[found] = true;
        if (found < 2) l->method[l->methods++] = known[found];
        at += length;
        if (!*at) break;
    }
    l->vae = have[2];
    return ISO_OK;
}

static iso_status parse_lists(const config *c, lists *l, iso_error *err)
{
    iso_status status = iso_sweep_list("seeds", c->seeds ? c->seeds : "0", NULL, true, l->seed, &l->seeds, err);
    if (status != ISO_OK) return status;
    if (c->beta) return iso_sweep_list("beta", c->beta, NULL, false, l->value, &l->values, err);
    if ((status = parse_methods(c->method ? c->method : "isometric", l, err)) != ISO_OK) return status;
    if ((status = iso_sweep_list("alpha", c->alpha, "vae", false, l->value, &l->values, err)) != ISO_OK) return status;
    int kept = 0;
    for (int i = 0; i < l->values; i++) {
        if (l->value[i] == 0)
            l->vae = true;
        else
            l->value[kept++] = l->value[i];
    }
    l->values = kept;
    if (kept && !l->methods) return usage(err, "--method vae has no alpha: give isometric or flat-manifold, too");
    return ISO_OK;
}

static iso_status check(const config *c, iso_error *err)
{
    if (!c->images) return usage(err, "--images is missing");
    if (!c->out) return usage(err, "--out is missing");
    if (!c->alpha && !c->beta) return usage(err, "nothing to sweep: give --alpha or --beta");
    if (c->alpha && c->beta)
        return usage(err, "--alpha and --beta exclude each other: sweep alpha first, then flatten a model of it");
    if (c->alpha && c->model) return usage(err, "--model is what --beta flattens: leave it out with --alpha");
    if (c->beta && !c->model) return usage(err, "--beta needs --model M, the model to flatten");
    if (c->beta && c->method) return usage(err, "--method means nothing with --beta");
    for (int i = 0; i < passed; i++) {
        const char *name = options[OWN + i].name;
        if (!given(c, i) || of[i] & (c->beta ? OF_FLATTEN : OF_TRAIN)) continue;
        if (c->beta)
            return iso_fail(err, ISO_E_ARGUMENT, "--%s belongs to the training of --model: leave it out with --beta",
                            name);
        return iso_fail(err, ISO_E_ARGUMENT, "--%s belongs to a flow: leave it out with --alpha", name);
    }
    int device = find_option(options + OWN, passed, "device");
    const iso_backend *backend;
    return device >= 0 && c->passed[device].text ? iso_device_find(c->passed[device].text, &backend, err) : ISO_OK;
}

/* ---- the plan ---- */

static iso_status add_word(job *j, char *word, iso_error *err)
{
    if (!word) return iso_fail_memory(err);
    j->word[j->words++] = word;
    return ISO_OK;
}

static char *passed_word(const config *c, int i)
{
    const char *name = options[OWN + i].name;
    char number[32];
    switch (options[OWN + i].kind) {
    case ISO_ARG_INT: return iso_format("--%s=%lld", name, (long long)c->passed[i].i);
    case ISO_ARG_REAL: return iso_format("--%s=%s", name, iso_sweep_number(c->passed[i].r, number));
    case ISO_ARG_FLAG: return iso_format("--%s", name);
    default: return iso_format("--%s=%s", name, c->passed[i].text);
    }
}

/* The options of the training, as either command takes them. */
static iso_status make_words(const config *c, job *j, iso_error *err)
{
    char number[32];
    const iso_sweep_row *r = &j->row;
    iso_status status;
    if (!(j->word = iso_calloc(ISO_SWEEP_PASSED + 16, sizeof *j->word))) return iso_fail_memory(err);
    if ((status = add_word(j, iso_format("--images=%s", c->images), err)) != ISO_OK) return status;
    if (j->source) {
        if ((status = add_word(j, iso_format("--model=%s", j->source), err)) != ISO_OK) return status;
        if ((status = add_word(j, iso_format("--output=%s", j->path), err)) != ISO_OK) return status;
        if ((status = add_word(j, iso_format("--beta=%s", iso_sweep_number(r->beta, number)), err)) != ISO_OK)
            return status;
    } else {
        if ((status = add_word(j, iso_format("--model=%s", j->path), err)) != ISO_OK) return status;
        if ((status = add_word(j, iso_format("--method=%s", r->method), err)) != ISO_OK) return status;
        if (r->alpha != 0 &&
            (status = add_word(j, iso_format("--alpha=%s", iso_sweep_number(r->alpha, number)), err)) != ISO_OK)
            return status;
    }
    if ((status = add_word(j, iso_format("--seed=%s", iso_sweep_number(r->seed, number)), err)) != ISO_OK)
        return status;
    for (int i = 0; i < passed; i++)
        if (given(c, i) && (status = add_word(j, passed_word(c, i), err)) != ISO_OK) return status;
    if (c->strict && (status = add_word(j, iso_format("--strict"), err)) != ISO_OK) return status;
    if (c->threads) status = add_word(j, iso_format("--threads=%lld", (long long)c->threads), err);
    return status;
}

static void put_shell(FILE *out, const char *text)
{
    static const char plain[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_./+-,:@%";
    bool quote = !*text || strspn(text, plain) != strlen(text);
    if (quote) putc('\'', out);
    for (; *text; text++) {
        if (*text == '\'')
            fputs("'\\''", out);
        else
            putc(*text, out);
    }
    if (quote) putc('\'', out);
}

/* The command as a person would type it: --name value. */
static iso_status make_command(job *j, iso_error *err)
{
    char *text = NULL;
    size_t size;
    FILE *out = open_memstream(&text, &size);
    if (!out) return iso_fail_memory(err);
    fputs(j->source ? "indexer flatten" : "indexer train", out);
    for (int i = 0; i < j->words; i++) {
        const char *value = strchr(j->word[i], '=');
        bool glued = value && value[1] == '-';
        fprintf(out, " %.*s%s", (int)(value ? value - j->word[i] : (ptrdiff_t)strlen(j->word[i])), j->word[i],
                !value  ? ""
                : glued ? "="
                        : " ");
        if (value) put_shell(out, value + 1);
    }
    if (fclose(out) != 0) {
        free(text);
        return iso_fail_memory(err);
    }
    j->row.command = text;
    return ISO_OK;
}

/* A job with this file name; *out until the next one is added. */
static iso_status add_job(plan *p, char *name, job **out, iso_error *err)
{
    if (!name || !iso_grow(&p->job, &p->capacity, p->count + 1, sizeof *p->job)) {
        free(name);
        return iso_fail_memory(err);
    }
    job *j = &p->job[p->count++];
    *j = (job){.row = iso_sweep_row_empty()};
    j->row.model = name;
    *out = j;
    return ISO_OK;
}

static iso_status add_training(plan *p, const char *method, double alpha, double seed, iso_error *err)
{
    char a[32], s[32];
    job *j;
    iso_status status =
        add_job(p, iso_format("%s-a%s-s%s.safetensors", method, iso_sweep_number(alpha, a), iso_sweep_number(seed, s)),
                &j, err);
    if (status != ISO_OK) return status;
    j->row.alpha = alpha, j->row.seed = seed;
    j->row.method = iso_strndup(method, strlen(method));
    j->path = iso_path_join(p->config->out, j->row.model);
    if (!j->row.method || !j->path) return iso_fail_memory(err);
    if ((status = make_words(p->config, j, err)) != ISO_OK) return status;
    return make_command(j, err);
}

/* --model with its {seed}s filled in. */
static char *source_path(const char *template, double seed)
{
    char s[32], *path = iso_strndup("", 0);
    iso_sweep_number(seed, s);
    for (const char *at = template; path;) {
        const char *hole = strstr(at, "{seed}");
        char *longer = iso_format("%s%.*s%s", path, (int)(hole ? hole - at : (ptrdiff_t)strlen(at)), at, hole ? s : "");
        free(path);
        path = longer;
        if (!hole) break;
        at = hole + 6;
    }
    return path;
}

static iso_status copy_text(char **out, const char *text, iso_error *err)
{
    if (text && !(*out = iso_strndup(text, strlen(text)))) return iso_fail_memory(err);
    return ISO_OK;
}

/* What the row of a model, or of its flattened form, says of the training before. */
static iso_status describe_source(const iso_model *m, iso_sweep_row *row, iso_error *err)
{
    const char *alpha = iso_model_meta(m, "alpha");
    row->alpha = alpha ? strtod(alpha, NULL) : NAN;
    return copy_text(&row->method, iso_model_meta(m, "method"), err);
}

static iso_status add_reference(plan *p, const char *path, const iso_model *m, iso_error *err)
{
    const char *name = strrchr(path, '/'), *seed = iso_model_meta(m, "seed");
    job *j;
    name = name ? name + 1 : path;
    iso_status status = add_job(p, iso_strndup(name, strlen(name)), &j, err);
    if (status != ISO_OK) return status;
    j->reference = true;
    j->row.seed = seed ? strtod(seed, NULL) : NAN;
    if ((status = copy_text(&j->path, path, err)) != ISO_OK) return status;
    return describe_source(m, &j->row, err);
}

static iso_status add_flow(plan *p, const char *path, const iso_model *m, double beta, double seed, iso_error *err)
{
    char b[32], s[32];
    job *j;
    iso_status status =
        add_job(p, iso_format("fm-b%s-s%s.safetensors", iso_sweep_number(beta, b), iso_sweep_number(seed, s)), &j, err);
    if (status != ISO_OK) return status;
    j->row.beta = beta, j->row.seed = seed;
    if ((status = describe_source(m, &j->row, err)) != ISO_OK) return status;
    if (!(j->path = iso_path_join(p->config->out, j->row.model))) return iso_fail_memory(err);
    if ((status = copy_text(&j->source, path, err)) != ISO_OK) return status;
    if ((status = make_words(p->config, j, err)) != ISO_OK) return status;
    return make_command(j, err);
}

/* A model to flatten: of images, without a flow; with as many dimensions as the first (0: this is the first). */
static iso_status load_source(const char *path, int *latent, iso_model **m, iso_error *err)
{
    iso_status status = iso_model_load(path, m, err);
    if (status != ISO_OK) return status;
    const iso_net *net = iso_model_net(*m);
    if ((status = iso_net_check_decoder(net, err)) != ISO_OK)
        return iso_fail_prefix(err, status, "%s cannot be flattened", path);
    if (net->arch != ISO_ARCH_CELEBA)
        return iso_fail(err, ISO_E_UNSUPPORTED, "%s cannot be flattened: it is no model of images", path);
    if (net->flow_depth)
        return iso_fail(err, ISO_E_ARGUMENT, "%s has a flow already: give the model that training made", path);
    if (*latent && *latent != net->latent)
        return iso_fail(err, ISO_E_MISMATCH,
                        "%s has latent dimension %d, the models before it %d: their figures would not compare", path,
                        net->latent, *latent);
    *latent = net->latent;
    return ISO_OK;
}

static iso_status plan_flows(plan *p, const lists *l, iso_error *err)
{
    iso_status status = ISO_OK;
    bool each = strstr(p->config->model, "{seed}") != NULL;
    int latent = 0;
    for (int s = 0; s < l->seeds && status == ISO_OK; s++) {
        iso_model *m = NULL;
        char *path = source_path(p->config->model, l->seed[s]);
        status = path ? load_source(path, &latent, &m, err) : iso_fail_memory(err);
        if (status == ISO_OK && (each || s == 0)) status = add_reference(p, path, m, err);
        for (int b = 0; b < l->values && status == ISO_OK; b++)
            status = add_flow(p, path, m, l->value[b], l->seed[s], err);
        iso_model_free(m);
        free(path);
    }
    return status;
}

static iso_status plan_trainings(plan *p, const lists *l, iso_error *err)
{
    iso_status status = ISO_OK;
    for (int s = 0; s < l->seeds && l->vae && status == ISO_OK; s++)
        status = add_training(p, "vae", 0, l->seed[s], err);
    for (int m = 0; m < l->methods; m++)
        for (int a = 0; a < l->values; a++)
            for (int s = 0; s < l->seeds && status == ISO_OK; s++)
                status = add_training(p, l->method[m], l->value[a], l->seed[s], err);
    return status;
}

static void plan_free(plan *p)
{
    for (size_t i = 0; i < p->count; i++) {
        job *j = &p->job[i];
        iso_sweep_row_clear(&j->row);
        for (int w = 0; w < j->words; w++) free(j->word[w]);
        free(j->word), free(j->path), free(j->source);
    }
    free(p->job), free(p->csv), free(p->png);
}

static iso_status sweep(const config *c, iso_error *err)
{
    plan p = {.config = c, .flow = c->beta != NULL};
    lists l = {0};
    iso_status status = check(c, err);
    if (status == ISO_OK) status = parse_lists(c, &l, err);
    if (status == ISO_OK) status = p.flow ? plan_flows(&p, &l, err) : plan_trainings(&p, &l, err);
    if (status != ISO_OK) goto done;
    p.csv = iso_path_join(c->out, "sweep.csv"), p.png = iso_path_join(c->out, "sweep.png");
    status = p.csv && p.png ? iso_sweep_run(&p, err) : iso_fail_memory(err);
done:
    plan_free(&p);
    return status;
}

int iso_evaluate_sweep(int argc, char **argv)
{
    config c = {.format = "table", .samples = 500, .split = 1};
    iso_error err = {0};
    memcpy(options, own, sizeof own);
    pass_on(iso_indexer_train_options(), OF_TRAIN, &c);
    pass_on(iso_indexer_flatten_options(), OF_FLATTEN, &c);
    int code = iso_args_parse(&command, argc, argv, 2, &c, NULL);
    if (code != ISO_ARGS_RUN) return code;
    if (c.threads) omp_set_num_threads((int)c.threads);
    iso_interrupt_install();
    return iso_exit(program, sweep(&c, &err), &err);
}
