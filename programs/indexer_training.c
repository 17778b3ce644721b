#include "programs/indexer_training.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/memory.h"
#include "base/text.h"

static void list_skipped(iso_training *t)
{
    for (int64_t i = 0; i < t->dataset->skipped; i++) {
        char *path = iso_text_printable(t->dataset->skip_path[i]);
        iso_progress_say(&t->progress, "%s: skipped %s: %s", t->program, path ? path : "a file", t->dataset->skip_reason[i]);
        free(path);
    }
}

iso_status iso_training_attributes(iso_training *t, const char *dir, const char *file, iso_error *err)
{
    t->attribute_file = file ? iso_strndup(file, strlen(file)) : iso_path_join(dir, ISO_DATASET_ATTRIBUTES);
    if (!t->attribute_file) return iso_fail_memory(err);
    if (!file && access(t->attribute_file, F_OK) != 0)
        return iso_fail(err, ISO_E_ARGUMENT, "%s has no " ISO_DATASET_ATTRIBUTES ", and --method supervised learns attributes: name the "
                        "file that lists them with --attributes FILE", dir);
    return iso_attributes_read(t->attribute_file, &t->attributes, err);
}

/* Images that the attribute file does not list, in one line. */
static iso_status tell_unlisted(iso_training *t, bool strict, iso_error *err)
{
    const iso_dataset *d = t->dataset;
    int64_t count[2] = {0, 0}, first = -1;
    for (int64_t i = d->count - 1; i >= 0; i--) {
        if (t->labels.listed[i]) continue;
        count[d->part[i] == ISO_PART_VALID]++;
        first = i;
    }
    if (first < 0) return ISO_OK;
    if (strict)
        return iso_fail(err, ISO_E_FORMAT, "--strict: %" PRId64 " images are not listed in %s, the first: %s", count[0] + count[1],
                        t->attribute_file, d->path[first]);
    char *path = iso_text_printable(d->path[first]), *file = iso_text_printable(t->attribute_file);
    iso_progress_say(&t->progress, "%s: %" PRId64 " training and %" PRId64 " validation images are not listed in %s and are left out, "
                     "the first: %s", t->program, count[0], count[1], file ? file : "the file", path ? path : "an image");
    free(path);
    free(file);
    return ISO_OK;
}

/* Names the attributes that no training image has, or all of them. */
static void tell_constant(iso_training *t, bool all)
{
    char line[400];
    size_t used = 0;
    for (int c = 0; c < t->labels.classes; c++) {
        int64_t have = 0;
        for (int64_t i = 0; i < t->data.train_count; i++) have += t->labels.row[t->data.train[i] * t->labels.classes + c];
        if (have != (all ? t->data.train_count : 0) || used + 1 >= sizeof line) continue;
        int n = snprintf(line + used, sizeof line - used, "%s%s", used ? ", " : "", iso_attributes_name(t->attributes, c));
        used += n > 0 ? (size_t)n : 0;
    }
    if (!used) return;
    char *shown = iso_text_printable(line);
    iso_progress_say(&t->progress, "nothing to learn of what %s: %s", all ? "every training image has" : "no training image has",
                     shown ? shown : "an attribute");
    free(shown);
}

static iso_status load_labels(iso_training *t, bool strict, iso_error *err)
{
    iso_status status = iso_labels_make(t->dataset, t->attributes, &t->labels, err);
    if (status != ISO_OK) return status;
    t->data.labels = t->labels.row;
    t->data.classes = t->labels.classes;
    t->data.attributes = t->labels.names;
    return tell_unlisted(t, strict, err);
}

/* The rows of a part that there are labels of, where there are labels; into t->rows from `at` on. Returns how many. */
static int64_t choose_rows(iso_training *t, iso_part part, int64_t at)
{
    const iso_dataset *d = t->dataset;
    int64_t count = 0;
    for (int64_t i = 0; i < d->count; i++)
        if (d->part[i] == part && (!t->attributes || t->labels.listed[i])) t->rows[at + count++] = i;
    return count;
}

static int64_t count_part(const iso_dataset *d, iso_part part)
{
    int64_t count = 0;
    for (int64_t i = 0; i < d->count; i++) count += d->part[i] == part;
    return count;
}

static iso_status fits(void *ctx, int64_t train, int64_t valid, iso_error *err)
{
    const iso_training *t = ctx;
    const iso_train_data counts = {.dim = ISO_PIXELS, .train_count = train, .valid_count = valid};
    return t->fits ? t->fits(t->spec, &counts, err) : ISO_OK;
}

iso_status iso_training_load(iso_training *t, const char *dir, int threads, bool strict, iso_error *err)
{
    unsigned parts = 1u << ISO_PART_TRAIN | (t->train_only ? 0 : 1u << ISO_PART_VALID);
    iso_progress_open(&t->progress, t->quiet);
    iso_status status = iso_dataset_load(dir, parts, threads, &t->progress, fits, t, &t->dataset, err);
    iso_progress_end(&t->progress);
    if (status != ISO_OK) return status;
    iso_dataset *d = t->dataset;
    list_skipped(t);
    if (strict && d->skipped)
        return iso_fail(err, ISO_E_FORMAT, "--strict: %" PRId64 " files could not be used", d->skipped);
    t->rows = iso_calloc((size_t)d->count, sizeof *t->rows);
    if (!t->rows) return iso_fail_memory(err);
    t->data = (iso_train_data){.pixels = d->pixels, .dim = ISO_PIXELS, .train = t->rows};
    if (count_part(d, ISO_PART_TRAIN) == 0)
        return iso_fail(err, ISO_E_ARGUMENT, "%s has no training images: its partition file leaves none in part 0", dir);
    if (t->attributes && (status = load_labels(t, strict, err)) != ISO_OK) return status;
    t->data.train_count = choose_rows(t, ISO_PART_TRAIN, 0);
    t->data.valid = t->rows + t->data.train_count;
    t->data.valid_count = choose_rows(t, ISO_PART_VALID, t->data.train_count);
    if (t->data.train_count == 0)
        return iso_fail(err, ISO_E_ARGUMENT, "%s lists none of the training images of %s", t->attribute_file, dir);
    if (!t->quiet && t->train_only)
        iso_progress_say(&t->progress, "%" PRId64 " training images", t->data.train_count);
    else if (!t->quiet)
        iso_progress_say(&t->progress, "%" PRId64 " training images, %" PRId64 " validation images", t->data.train_count,
                         t->data.valid_count);
    if (!t->quiet && t->attributes) {
        tell_constant(t, false);
        tell_constant(t, true);
    }
    return ISO_OK;
}

static void say(void *ctx, const char *line)
{
    iso_training *t = ctx;
    if (!t->quiet) iso_progress_say(&t->progress, "%s", line);
}

/* " name value" where the method has the term. */
static int term_text(char *out, size_t room, const char *name, double value)
{
    return isnan(value) ? 0 : snprintf(out, room, "  %s %.4g", name, value);
}

static void tick(void *ctx, const iso_tick *k)
{
    iso_training *t = ctx;
    int n = snprintf(t->line, sizeof t->line, "epoch %" PRId64 "/%" PRId64, k->epoch, k->epochs);
    n += term_text(t->line + n, sizeof t->line - (size_t)n, "loss", k->term[ISO_TERM_LOSS]);
    n += term_text(t->line + n, sizeof t->line - (size_t)n, "accuracy", k->term[ISO_TERM_ACCURACY]);
    n += term_text(t->line + n, sizeof t->line - (size_t)n, "mse", k->term[ISO_TERM_MSE]);
    n += term_text(t->line + n, sizeof t->line - (size_t)n, "R", k->term[ISO_TERM_RATIO]);
    snprintf(t->line + n, sizeof t->line - (size_t)n, " ");
    if (t->progress.what != t->line) { /* at first, and after a part */
        iso_progress_pass(&t->progress, t->line, "images", k->images_total);
        t->progress.started -= k->seconds;
    }
    iso_progress_step(&t->progress, k->images_done);
}

static void part(void *ctx, const char *what, int64_t done, int64_t total)
{
    iso_training *t = ctx;
    if (done == 0) iso_progress_pass(&t->progress, what, "images", total);
    iso_progress_step(&t->progress, done);
    if (done == total) iso_progress_end(&t->progress);
}

/* "  name train (valid)" where the method has the term. */
static int pair_text(char *out, size_t room, const char *name, const iso_epoch *e, iso_term term)
{
    double a = e->train[term], b = e->valid[term];
    if (isnan(a) && isnan(b)) return 0;
    if (isnan(a)) return snprintf(out, room, "  %s (%.4g)", name, b);
    if (isnan(b)) return snprintf(out, room, "  %s %.4g", name, a);
    return snprintf(out, room, "  %s %.4g (%.4g)", name, a, b);
}

static void epoch(void *ctx, const iso_epoch *e)
{
    iso_training *t = ctx;
    char line[400], left[32];
    int n = snprintf(line, sizeof line, "epoch %" PRId64 ":", e->epoch), head = n;
    static const struct { const char *name; iso_term term; } shown[] = {
        {"loss", ISO_TERM_LOSS}, {"accuracy", ISO_TERM_ACCURACY}, {"mse", ISO_TERM_MSE}, {"R", ISO_TERM_RATIO}, {"kl", ISO_TERM_KL}, {"norm", ISO_TERM_NORM}};
    for (size_t i = 0; i < sizeof shown / sizeof shown[0]; i++)
        n += pair_text(line + n, sizeof line - (size_t)n, shown[i].name, e, shown[i].term);
    if (n == head) return; /* before training, without validation images */
    if (isfinite(e->sigma)) n += snprintf(line + n, sizeof line - (size_t)n, "  sigma %.3g", e->sigma);
    if (isfinite(e->images_per_second))
        n += snprintf(line + n, sizeof line - (size_t)n, "  %.3g images/s", e->images_per_second);
    if (e->left > 0) n += snprintf(line + n, sizeof line - (size_t)n, "  %s left", iso_duration(e->left, left));
    if (!t->quiet) iso_progress_say(&t->progress, "%s%s", line, e->best ? "  best" : "");
    if (e->best) t->best = *e;
}

static bool stop(void *ctx)
{
    (void)ctx;
    return iso_interrupted();
}

iso_watch iso_training_watch(iso_training *t)
{
    return (iso_watch){.ctx = t, .say = say, .tick = tick, .part = part, .epoch = epoch, .stop = stop};
}

void iso_training_end(iso_training *t, const char *model_path, iso_status status)
{
    iso_progress_end(&t->progress);
    if (status != ISO_OK || t->quiet || t->best.epoch == 0) return;
    bool valid = isfinite(t->best.valid[ISO_TERM_LOSS]);
    char *path = iso_text_printable(model_path);
    iso_progress_say(&t->progress, "%s: epoch %" PRId64 ", the best by %s loss (%.6g)", path ? path : "model", t->best.epoch,
                     valid ? "validation" : "training", (valid ? t->best.valid : t->best.train)[ISO_TERM_LOSS]);
    free(path);
}

void iso_training_free(iso_training *t)
{
    iso_dataset_free(t->dataset);
    iso_attributes_free(t->attributes);
    iso_labels_free(&t->labels);
    free(t->attribute_file);
    free(t->rows);
}

iso_schedule iso_training_schedule(const char *name)
{
    return strcmp(name, "cosine") == 0 ? ISO_SCHEDULE_COSINE : ISO_SCHEDULE_CONSTANT;
}
