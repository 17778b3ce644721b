/* evaluate sweep: trains and measures the models of a plan, and says what came out. */
#include "programs/evaluate_sweep.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/memory.h"
#include "base/text.h"
#include "eval/sample.h"
#include "model/net/net.h"
#include "model/safetensors.h"

static const char program[] = "evaluate sweep";
static const double measured_eta = 0.2; /* the papers', whatever the training's: models must compare */

typedef struct work {
    iso_sweep_plan *plan;
    const iso_sweep_config *config;
    iso_training training; /* holds the images */
    iso_sample *sample;    /* what is measured on; or: */
    uint8_t *gathered;     /* [images, 64, 64, 3] */
    const uint8_t *pixels; /* either's */
    int64_t images;
    iso_progress progress;
    int broken;
} work;

/* ---- what is there already ---- */

static bool exists(const char *path) { return access(path, F_OK) == 0; }

static bool meta_int(const iso_st *f, const char *key, int64_t *out)
{
    const char *text = iso_st_meta(f, key);
    char *end;
    *out = text ? strtoll(text, &end, 10) : -1;
    return text && *text && !*end && *out >= 0;
}

/* How much of the training PATH.state has done. */
static iso_status read_state(const char *path, int64_t *epochs, bool *has_best, iso_error *err)
{
    iso_st *f = NULL;
    int64_t best = 0;
    iso_status status = iso_st_load(path, &f, err);
    if (status != ISO_OK)
        return iso_fail_prefix(err, status,
                               "no training can go on from this file (delete it, or --force trains all anew)");
    if (!meta_int(f, "epoch", epochs) || !meta_int(f, "best_epoch", &best))
        status =
            iso_fail(err, ISO_E_FORMAT, "%s is no usable training state: delete it, or --force trains all anew", path);
    *has_best = best > 0;
    iso_st_free(f);
    return status;
}

static iso_status find_need(const iso_sweep_config *c, iso_sweep_job *j, int64_t epochs, iso_error *err)
{
    j->need = ISO_SWEEP_TRAIN;
    j->anew = c->force;
    if (c->force) return ISO_OK;
    char *state = iso_format("%s.state", j->path);
    if (!state) return iso_fail_memory(err);
    int64_t done = 0;
    bool has_best = false;
    iso_status status = ISO_OK;
    if (!exists(state)) {
        if (exists(j->path))
            status = iso_fail(
                err, ISO_E_ARGUMENT,
                "%s is there without its %s.state, so whether this sweep made it cannot be told: move it away, or --force trains all anew",
                j->path, j->row.model);
        goto done;
    }
    if ((status = read_state(state, &done, &has_best, err)) != ISO_OK) goto done;
    if (has_best && !exists(j->path))
        j->anew = true; /* the model is gone */
    else if (done > epochs)
        status = iso_fail(err, ISO_E_ARGUMENT,
                          "%s was trained for %" PRId64 " epochs, now --epochs is %" PRId64
                          ": give as many, or another --out, or --force to train all anew",
                          j->path, done, epochs);
    else
        j->need = done == epochs ? ISO_SWEEP_MEASURE : ISO_SWEEP_RESUME;
done:
    free(state);
    return status;
}

/* ---- one training ---- */

/* The run of the job's training; t for its watch. Exactly one of the specs is filled. */
static iso_status make_spec(const iso_sweep_job *j, iso_training *t, iso_train_spec *train, iso_flow_spec *flow,
                            iso_run **run, iso_error *err)
{
    iso_status status;
    if (j->source)
        status = iso_indexer_flatten_spec(j->words, j->word, t, flow, err);
    else
        status = iso_indexer_train_spec(j->words, j->word, t, train, err);
    if (status != ISO_OK) return status;
    *run = j->source ? &flow->run : &train->run;
    (*run)->resume = j->need != ISO_SWEEP_TRAIN;
    (*run)->force = j->anew;
    (*run)->repeated = true;
    return ISO_OK;
}

static iso_status train(work *w, iso_sweep_job *j, iso_error *err)
{
    iso_training t = w->training; /* its images, with progress of its own */
    if (j->need == ISO_SWEEP_MEASURE) t.quiet = true;
    iso_progress_open(&t.progress, t.quiet);
    iso_train_spec train;
    iso_flow_spec flow;
    iso_run *run;
    iso_model *source = NULL;
    iso_status status = make_spec(j, &t, &train, &flow, &run, err);
    if (status != ISO_OK) return status;
    if (j->source && (status = iso_model_load(j->source, &source, err)) != ISO_OK) return status;
    flow.model = source;
    status = j->source ? iso_train_flow(&flow, &t.data, err) : iso_train(&train, &t.data, err);
    iso_training_end(&t, j->path, status);
    iso_model_free(source);
    return status;
}

/* All that can be found wrong before images are decoded: the options before there is a folder, then the files in it. */
static iso_status check_jobs(work *w, bool files, iso_error *err)
{
    iso_status status = ISO_OK;
    for (size_t i = 0; i < w->plan->count && status == ISO_OK; i++) {
        iso_sweep_job *j = &w->plan->job[i];
        iso_train_spec train = {0};
        iso_flow_spec flow = {0};
        iso_run *run;
        if (j->reference) continue;
        status = make_spec(j, &w->training, &train, &flow, &run, err);
        if (status == ISO_OK && !j->source) status = iso_net_check(&train.net, err);
        if (status != ISO_OK || !files) continue;
        if ((status = find_need(w->config, j, run->epochs, err)) != ISO_OK) break;
        run->resume = j->need != ISO_SWEEP_TRAIN;
        run->force = j->anew;
        iso_model *source = NULL;
        if (j->source && (status = iso_model_load(j->source, &source, err)) != ISO_OK) break;
        flow.model = source;
        status = j->source ? iso_flow_check(&flow, err) : iso_train_check(&train, err);
        iso_model_free(source);
    }
    return status;
}

/* A training sets validation images aside where there is no partition file, but no test images. */
static iso_status check_part(const iso_sweep_config *c, iso_error *err)
{
    if (c->split != ISO_PART_TEST) return ISO_OK;
    char *partition = iso_path_join(c->images, ISO_DATASET_PARTITION);
    if (!partition) return iso_fail_memory(err);
    const bool there = exists(partition) || !exists(c->images); /* which decoding will tell */
    free(partition);
    return there ? ISO_OK
                 : iso_fail(err, ISO_E_ARGUMENT, "%s has no " ISO_DATASET_PARTITION ", so it has no test images to measure on: choose another --split", c->images);
}

/* ---- measuring ---- */

static void forget_figures(iso_sweep_row *row)
{
    row->mse = row->vor = row->vor_median = row->mcn = row->mcn_median = row->cn = row->vpres = row->iso = row->ratio = NAN;
    row->metrics = row->left_out = NAN;
    free(row->measured);
    row->measured = NULL;
}

/* The figures of the model's row, unless it has them from the very same measurement. */
static iso_status measure(work *w, iso_sweep_job *j, iso_error *err)
{
    char digest[33], *log = iso_format("%s.csv", j->path);
    iso_model *m = NULL;
    iso_pullback p = {0};
    iso_pullback_spec spec = {.eta = measured_eta,
                              .seed = (uint64_t)w->config->metrics_seed,
                              .threads = (int)w->config->threads,
                              .progress = &w->progress};
    iso_status status = log ? iso_model_load(j->path, &m, err) : iso_fail_memory(err);
    if (status != ISO_OK) goto done;
    const char *best = iso_model_meta(m, j->source ? "flow.epoch" : "epoch");
    if ((status = iso_sweep_training(log, best ? strtod(best, NULL) : NAN, &j->row, err)) != ISO_OK) goto done;
    if ((status = iso_sweep_digest(m, w->pixels, w->images, &spec, digest, err)) != ISO_OK) goto done;
    if (j->row.measured && strcmp(j->row.measured, digest) == 0) goto done;
    forget_figures(&j->row);
    status = iso_pullback_measure(m, w->pixels, w->images, &spec, &p, err);
    iso_progress_end(&w->progress);
    if (status == ISO_E_INTERRUPTED)
        status = iso_fail(err, status, "interrupted while measuring %s; all is saved: the same command%s goes on",
                          j->row.model, w->config->force ? ", without --force," : "");
    if (p.images) iso_sweep_set(&j->row, &p); /* also where no metric could be used: the mse */
    if (status != ISO_OK) goto done;
    if (!(j->row.measured = iso_strndup(digest, 32))) status = iso_fail_memory(err);
done:
    iso_pullback_free(&p);
    iso_model_free(m);
    free(log);
    return status;
}

static iso_status gather(work *w, const int64_t *rows, int64_t count, iso_error *err)
{
    w->images = count < w->config->samples ? count : w->config->samples;
    int64_t *chosen = iso_calloc((size_t)w->images, sizeof *chosen);
    w->gathered = iso_calloc((size_t)w->images, ISO_PIXELS);
    iso_status status = chosen && w->gathered ? ISO_OK : iso_fail_memory(err);
    if (status == ISO_OK) status = iso_sweep_sample(count, w->images, (uint64_t)w->config->metrics_seed, chosen, err);
    for (int64_t i = 0; i < w->images && status == ISO_OK; i++)
        memcpy(w->gathered + i * ISO_PIXELS, w->training.data.pixels + rows[chosen[i]] * ISO_PIXELS, ISO_PIXELS);
    w->pixels = w->gathered;
    free(chosen);
    return status;
}

/* The images that are measured on: those that `evaluate geometry` takes, or, where no partition file sets the part aside, of
 * those that the training did. */
static iso_status load_sample(work *w, iso_error *err)
{
    const iso_sweep_config *c = w->config;
    const iso_train_data *d = &w->training.data;
    iso_sample_spec spec = {.dir = c->images,
                            .part = (int)c->split,
                            .count = c->samples,
                            .seed = (uint64_t)c->metrics_seed,
                            .threads = (int)c->threads,
                            .progress = &w->progress};
    iso_status status = iso_sample_load(&spec, &w->sample, err);
    iso_progress_end(&w->progress);
    if (status == ISO_OK) {
        w->images = w->sample->count;
        w->pixels = w->sample->pixels;
    } else if (status == ISO_E_ARGUMENT && c->split != ISO_PART_TEST) {
        bool valid = c->split == ISO_PART_VALID;
        int64_t count = valid ? d->valid_count : d->train_count;
        if (count == 0)
            return iso_fail(err, ISO_E_ARGUMENT,
                            "%s has no %s images to measure on: add images, or choose another --split", c->images,
                            valid ? "validation" : "training");
        status = gather(w, valid ? d->valid : d->train, count, err);
    } else
        return iso_fail_prefix(err, status, "images to measure on");
    if (status == ISO_OK && !c->quiet && w->images < c->samples)
        iso_progress_say(&w->progress, "%s: only %" PRId64 " images to measure on, not %" PRId64, program, w->images,
                         c->samples);
    return status;
}

/* ---- files ---- */

static iso_status make_folder(const char *out, iso_error *err)
{
    struct stat st;
    if (mkdir(out, 0777) == 0) return ISO_OK;
    if (errno != EEXIST) return iso_fail_errno(err, "cannot make the folder %s", out);
    if (stat(out, &st) != 0) return iso_fail_errno(err, "cannot use %s", out);
    if (!S_ISDIR(st.st_mode))
        return iso_fail(err, ISO_E_ARGUMENT, "--out %s is a file: give the name of a folder", out);
    return ISO_OK;
}

/* The rows that are to be seen, which go on belonging to their jobs. NULL: out of memory. */
static iso_sweep_row *shown_rows(const iso_sweep_plan *p, int64_t *count)
{
    iso_sweep_row *rows = iso_calloc(p->count, sizeof *rows);
    *count = 0;
    for (size_t i = 0; rows && i < p->count; i++)
        if (p->job[i].shown) rows[(*count)++] = p->job[i].row;
    return rows;
}

static iso_status publish(const iso_sweep_plan *p, iso_error *err)
{
    int64_t count;
    bool drawn;
    iso_sweep_row *rows = shown_rows(p, &count);
    if (!rows) return iso_fail_memory(err);
    iso_status status = iso_sweep_save(p->csv, rows, count, err);
    if (status == ISO_OK) status = iso_sweep_chart(p->png, rows, count, p->flow, &drawn, err);
    if (status == ISO_OK && !drawn && unlink(p->png) != 0 && errno != ENOENT) /* an earlier command's: it is not of these rows */
        status = iso_fail_errno(err, "cannot remove %s", p->png);
    free(rows);
    return status;
}

/* What an earlier sweep measured need not be measured again. */
static iso_status recall(iso_sweep_plan *p, iso_error *err)
{
    iso_sweep_row *rows = NULL;
    int64_t count = 0;
    if (p->config->force || !exists(p->csv)) return ISO_OK;
    iso_status status = iso_sweep_load(p->csv, &rows, &count, err);
    if (status != ISO_OK) return status;
    const char *other = p->flow ? "indexer train" : "indexer flatten";
    for (int64_t r = 0; r < count && status == ISO_OK; r++)
        if (rows[r].command && strncmp(rows[r].command, other, strlen(other)) == 0)
            status =
                iso_fail(err, ISO_E_ARGUMENT, "%s is the table of a sweep over %s: give another --out, or move it away",
                         p->csv, p->flow ? "alpha" : "beta");
    for (int64_t r = 0; r < count && status == ISO_OK; r++)
        for (size_t i = 0; i < p->count; i++) {
            iso_sweep_job *j = &p->job[i];
            bool same = rows[r].model && strcmp(rows[r].model, j->row.model) == 0 && rows[r].measured && !j->shown;
            if (!same || j->need != ISO_SWEEP_MEASURE) continue;
            iso_sweep_row mine = j->row; /* who it is; the rest is the file's */
            j->row = rows[r];
            free(j->row.model), free(j->row.method), free(j->row.command);
            j->row.model = mine.model, j->row.method = mine.method, j->row.command = mine.command;
            j->row.alpha = mine.alpha, j->row.beta = mine.beta, j->row.seed = mine.seed;
            rows[r] = iso_sweep_row_empty();
            j->shown = true;
            break;
        }
    iso_sweep_rows_free(rows, count);
    return status;
}

/* ---- the sweep ---- */

static iso_status do_job(work *w, iso_sweep_job *j, size_t at, iso_error *err)
{
    const iso_sweep_plan *p = w->plan;
    if (!w->config->quiet)
        iso_progress_say(&w->progress, "%s: %zu/%zu: %s%s", program, at, p->count, j->row.model,
                         j->reference                   ? ", before any flow"
                         : j->need == ISO_SWEEP_MEASURE ? ", trained already"
                         : j->need == ISO_SWEEP_RESUME  ? ": going on"
                                                        : "");
    iso_status status = j->reference ? ISO_OK : train(w, j, err);
    bool trained = status == ISO_OK;
    if (status == ISO_E_INTERRUPTED)
        return iso_fail(err, status, "interrupted while training %s; all is saved: the same command%s goes on", j->row.model,
                        w->config->force ? ", without --force," : "");
    if (trained) status = measure(w, j, err);
    if (status == ISO_E_NUMERIC) {
        iso_progress_say(&w->progress, "%s: %s: %s", program, j->row.model, err->message);
        if (!trained) forget_figures(&j->row);
        w->broken++;
        status = ISO_OK;
    }
    if (status != ISO_OK) return status;
    j->shown = true;
    return publish(p, err);
}

static void print_table(const work *w, const iso_sweep_row *rows, int64_t count)
{
    static const char *const column[] = {"best_epoch", "val_loss", "mse",   "vor", "vor_median", "mcn",
                                         "mcn_median", "cn",       "vpres", "iso", "R"};
    int width = 5;
    for (int64_t r = 0; r < count; r++)
        if ((int)strlen(rows[r].model) > width) width = (int)strlen(rows[r].model);
    printf("%" PRId64 " images\n%-*s", w->images, width, "model");
    for (size_t h = 0; h < sizeof column / sizeof *column; h++) printf(" %10s", column[h]);
    putchar('\n');
    for (int64_t r = 0; r < count; r++) {
        const int letters = iso_text_show(stdout, rows[r].model, strlen(rows[r].model));
        printf("%*s", width > letters ? width - letters : 0, "");
        for (size_t h = 0; h < sizeof column / sizeof *column; h++)
            for (int i = 0; i < iso_sweep_columns(); i++) {
                double value;
                if (strcmp(iso_sweep_column(i), column[h]) != 0 || iso_sweep_field(&rows[r], i, &value)) continue;
                if (isfinite(value))
                    printf(h == 0 ? " %10.0f" : " %10.4g", value);
                else
                    printf(" %10s", "-");
            }
        putchar('\n');
    }
}

static void print_json(const work *w, const iso_sweep_row *rows, int64_t count)
{
    printf("{\"schema_version\": 1, \"images\": %" PRId64 ", \"split\": %" PRId64 ", \"models\": [", w->images,
           w->config->split);
    for (int64_t r = 0; r < count; r++) {
        printf("%s\n  {", r ? "," : "");
        for (int i = 0; i < iso_sweep_columns(); i++) {
            double value;
            const char *text = iso_sweep_field(&rows[r], i, &value);
            printf("%s\"%s\": ", i ? ", " : "", iso_sweep_column(i));
            if (!text)
                iso_text_json_number(stdout, value);
            else if (*text)
                iso_text_json(stdout, text, strlen(text));
            else
                printf("null");
        }
        putchar('}');
    }
    puts("\n]}");
}

static iso_status print(const work *w, iso_error *err)
{
    int64_t count;
    iso_sweep_row *rows = shown_rows(w->plan, &count);
    if (!rows) return iso_fail_memory(err);
    if (strcmp(w->config->format, "json") == 0)
        print_json(w, rows, count);
    else
        print_table(w, rows, count);
    free(rows);
    if (fflush(stdout) || ferror(stdout)) return iso_fail_errno(err, "cannot write the results");
    return ISO_OK;
}

iso_status iso_sweep_run(iso_sweep_plan *p, iso_error *err)
{
    const iso_sweep_config *c = p->config;
    work w = {.plan = p, .config = c, .training = {.program = program, .quiet = c->quiet}};
    size_t at = 0;
    iso_progress_open(&w.progress, c->quiet);
    iso_status status = check_jobs(&w, false, err);
    if (status == ISO_OK) status = check_part(c, err);
    if (status == ISO_OK) status = make_folder(c->out, err);
    if (status == ISO_OK) status = check_jobs(&w, true, err);
    if (status == ISO_OK) status = recall(p, err);
    if (status == ISO_OK) status = iso_training_load(&w.training, c->images, (int)c->threads, c->strict, err);
    if (status == ISO_OK) status = load_sample(&w, err);
    for (int need = ISO_SWEEP_MEASURE; need <= ISO_SWEEP_TRAIN; need++)
        for (size_t i = 0; i < p->count && status == ISO_OK; i++)
            if (p->job[i].need == (iso_sweep_need)need) status = do_job(&w, &p->job[i], ++at, err);
    if (status == ISO_OK) status = print(&w, err);
    if (status == ISO_OK && w.broken)
        status = iso_fail(err, ISO_E_NUMERIC, "%d of %zu models broke or cannot be measured: their rows lack figures",
                          w.broken, p->count);
    iso_training_free(&w.training);
    iso_sample_free(w.sample);
    free(w.gathered);
    return status;
}
