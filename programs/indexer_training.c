#include "programs/indexer_training.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

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

iso_status iso_training_load(iso_training *t, const char *dir, int threads, bool strict, iso_error *err)
{
    unsigned parts = 1u << ISO_PART_TRAIN | 1u << ISO_PART_VALID;
    iso_status status = iso_dataset_load(dir, parts, threads, t->quiet, &t->dataset, err);
    if (status != ISO_OK) return status;
    iso_dataset *d = t->dataset;
    list_skipped(t);
    if (strict && d->skipped)
        return iso_fail(err, ISO_E_FORMAT, "--strict: %" PRId64 " files could not be used", d->skipped);
    t->rows = iso_calloc((size_t)d->count, sizeof *t->rows);
    if (!t->rows) return iso_fail_memory(err);
    t->data = (iso_train_data){.pixels = d->pixels, .dim = ISO_PIXELS, .train = t->rows};
    for (int64_t i = 0; i < d->count; i++)
        if (d->part[i] == ISO_PART_TRAIN) t->rows[t->data.train_count++] = i;
    t->data.valid = t->rows + t->data.train_count;
    for (int64_t i = 0; i < d->count; i++)
        if (d->part[i] == ISO_PART_VALID) t->rows[t->data.train_count + t->data.valid_count++] = i;
    if (t->data.train_count == 0)
        return iso_fail(err, ISO_E_ARGUMENT, "%s has no training images: its partition file leaves none in part 0", dir);
    if (!t->quiet)
        iso_progress_say(&t->progress, "%" PRId64 " training images, %" PRId64 " validation images", t->data.train_count,
                         t->data.valid_count);
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
    if (!t->started) {
        t->started = true;
        t->began = iso_now();
        iso_progress_start(&t->progress, t->line, "images", k->images_total, t->quiet);
    }
    t->done = k->images_done;
    t->total = k->images_total;
    int n = snprintf(t->line, sizeof t->line, "epoch %" PRId64 "/%" PRId64, k->epoch, k->epochs);
    n += term_text(t->line + n, sizeof t->line - (size_t)n, "loss", k->term[ISO_TERM_LOSS]);
    n += term_text(t->line + n, sizeof t->line - (size_t)n, "mse", k->term[ISO_TERM_MSE]);
    n += term_text(t->line + n, sizeof t->line - (size_t)n, "R", k->term[ISO_TERM_RATIO]);
    snprintf(t->line + n, sizeof t->line - (size_t)n, " ");
    iso_progress_step(&t->progress, k->images_done);
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
    int n = snprintf(line, sizeof line, "epoch %" PRId64 ":", e->epoch);
    static const struct { const char *name; iso_term term; } shown[] = {
        {"loss", ISO_TERM_LOSS}, {"mse", ISO_TERM_MSE}, {"R", ISO_TERM_RATIO}, {"kl", ISO_TERM_KL}, {"norm", ISO_TERM_NORM}};
    for (size_t i = 0; i < sizeof shown / sizeof shown[0]; i++)
        n += pair_text(line + n, sizeof line - (size_t)n, shown[i].name, e, shown[i].term);
    if (isfinite(e->sigma)) n += snprintf(line + n, sizeof line - (size_t)n, "  sigma %.3g", e->sigma);
    if (isfinite(e->images_per_second))
        n += snprintf(line + n, sizeof line - (size_t)n, "  %.3g images/s", e->images_per_second);
    if (t->done > 0 && t->done < t->total) {
        double seconds = (iso_now() - t->began) / (double)t->done * (double)(t->total - t->done);
        n += snprintf(line + n, sizeof line - (size_t)n, "  %s left", iso_duration(seconds, left));
    }
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
    return (iso_watch){.ctx = t, .say = say, .tick = tick, .epoch = epoch, .stop = stop};
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
    free(t->rows);
}
