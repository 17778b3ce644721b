#include "model/train_loop.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/progress.h"
#include "model/net/net.h"
#include "model/philox.h"
#include "model/train_log.h"
#include "model/train_loop_parts.h"

#define SAVE_EVERY 600.0 /* seconds: what a power cut may cost within a long epoch */

/* The terms of the last run; those that are not part of it are NaN. bad: the first that is not finite, or -1. */
static iso_status read_terms(const iso_train_step *s, double term[ISO_TERM_COUNT], int *bad, iso_error *err)
{
    /* The loss comes last, so that the part it broke in is named. */
    static const iso_term order[ISO_TERM_COUNT] = {ISO_TERM_MSE, ISO_TERM_NLL, ISO_TERM_KL, ISO_TERM_NORM, ISO_TERM_TRACE,
                                                   ISO_TERM_TRACE2, ISO_TERM_RATIO, ISO_TERM_ACCURACY, ISO_TERM_LOSS};
    *bad = -1;
    for (int k = 0; k < ISO_TERM_COUNT; k++) {
        iso_term t = order[k];
        term[t] = NAN;
        if (s->term[t] == ISO_NONE) continue;
        iso_status status = iso_plan_read_f64(s->plan, s->term[t], &term[t], 1, err);
        if (status != ISO_OK) return status;
        if (!isfinite(term[t]) && *bad < 0) *bad = (int)t;
    }
    return ISO_OK;
}

/* Where the decoder's image does not depend on the code: a flow has no width, and its decoder was dead before the first update or is not to blame. */
static const char *try_alive(const iso_loop_work *l, bool validating)
{
    if (l->objective->goal != ISO_GOAL_FLOW) return "a larger --width, another --seed or a smaller --lr";
    const int64_t updates = validating ? l->at.step : l->at.step - 1; /* a step that breaks has been counted, its update is of no account */
    return updates == 0 ? "another --model" : NULL;
}

static iso_status not_finite(iso_loop_work *l, iso_term bad, const double *term, bool validating, iso_error *err)
{
    char what[160];
    bool dead = bad == ISO_TERM_RATIO && term[ISO_TERM_TRACE] == 0;
    snprintf(what, sizeof what, "%s%s is %s%s", iso_term_text(bad), validating ? " on the validation images" : "",
             isnan(term[bad]) ? "NaN" : "infinite", dead ? ", for the decoder's Jacobian is zero" : "");
    return iso_loop_broken(l, what, dead ? try_alive(l, validating) : NULL, err);
}

/* What the learning rate of this step is multiplied by: a straight line up to 1 over the first steps, and half a cosine from
 * 1 to 0 over the whole run. */
static double schedule(const iso_loop_work *l)
{
    double up = l->at.step < l->run->warmup ? (double)l->at.step / (double)l->run->warmup : 1;
    if (l->run->schedule != ISO_SCHEDULE_COSINE) return up;
    return up * (0.5 + 0.5 * cos(M_PI * (double)(l->at.step - 1) / (double)(l->run->epochs * l->steps)));
}

/* The epoch's batch at `position`, which step number `step` trains on. */
static iso_status feed_step(iso_loop_work *l, int64_t position, int64_t step, iso_error *err)
{
    for (int64_t b = 0; b < l->batch; b++) l->rows[b] = l->data->train[l->order[position * l->batch + b]];
    return iso_loop_feed(l, l->step, true, (uint64_t)step, err);
}

/* What a device could not do as it should, once that is known: it costs time, and nothing else shows it. */
static void tell_detour(const iso_loop_work *l)
{
    char text[600];
    iso_plan_tell(l->step->plan, text, sizeof text);
    if (text[0]) iso_watch_say(&l->run->watch, "on the device: %s", text);
}

static iso_status train_epoch(iso_loop_work *l, iso_error *err)
{
    iso_status status = ISO_OK;
    l->resumed = iso_now();
    iso_draw_permutation((iso_draw){l->run->seed, ISO_DRAW_SHUFFLE, (uint64_t)l->at.epoch}, l->data->train_count, l->order);
    if (l->at.position < l->steps) status = feed_step(l, l->at.position, l->at.step, err);
    if (status != ISO_OK) return status;
    while (l->at.position < l->steps) {
        l->at.step++;
        double rate = iso_adam_rate(l->run->lr * schedule(l), l->at.step), root = iso_adam_root(l->at.step);
        if ((status = iso_plan_write_f64(l->step->plan, l->step->adam.rate, &rate, 1, err)) != ISO_OK) return status;
        if ((status = iso_plan_write_f64(l->step->plan, l->step->adam.root, &root, 1, err)) != ISO_OK) return status;
        iso_plan_run(l->step->plan);
        /* While a device computes, the next batch is drawn and sent: it is needed when the terms have been read. */
        if (l->at.position + 1 < l->steps && (status = feed_step(l, l->at.position + 1, l->at.step, err)) != ISO_OK) return status;
        double term[ISO_TERM_COUNT];
        int bad;
        if ((status = read_terms(l->step, term, &bad, err)) != ISO_OK) return status;
        if (bad >= 0) return not_finite(l, (iso_term)bad, term, false, err);
        for (int t = 0; t < ISO_TERM_COUNT; t++)
            if (!isnan(term[t])) l->at.sum[t] += term[t];
        l->at.position++;
        l->done += l->batch;
        if (l->done == 3 * l->batch) tell_detour(l); /* a plan becomes a graph at its second run */
        if (l->run->watch.tick)
            l->run->watch.tick(l->run->watch.ctx, &(iso_tick){l->at.epoch + 1, l->run->epochs, l->done, l->total, iso_now() - l->began, term});
        if (iso_watch_stop(&l->run->watch)) return iso_loop_interrupted(l, err);
        if (iso_now() - l->last_save > SAVE_EVERY && (status = iso_loop_save_state(l, err)) != ISO_OK) return status;
    }
    return ISO_OK;
}

/* E|JtJv - cv|^2 = E|JtJv|^2 - 2c E|Jv|^2 + c^2 E|v|^2, with c = E|Jv|^2 / m. */
static double pooled_flat(double trace, double trace2, double probe, double latent)
{
    double c = trace / latent;
    return fmax(trace2 - 2 * c * trace + c * c * probe, 0); /* rounding must not make a square negative */
}

/* The terms over all validation images, pooled. ISO_E_INTERRUPTED, without a message: it was told to stop. */
static iso_status validate(iso_loop_work *l, double term[ISO_TERM_COUNT], iso_error *err)
{
    double sum[ISO_TERM_COUNT] = {0}, n = (double)l->data->valid_count, probe = 0; /* probe: sum of |v|^2 */
    int latent = l->net->latent;
    int64_t batch = l->valid ? l->valid->batch : 1, k = 0;
    for (int t = 0; t < ISO_TERM_COUNT; t++) term[t] = NAN;
    if (!l->valid) return ISO_OK;
    iso_watch_part(&l->run->watch, "validating", 0, l->data->valid_count);
    for (int64_t at = 0; at < l->data->valid_count; at += batch, k++) {
        const iso_train_step *s = at + batch <= l->data->valid_count ? l->valid : l->rest;
        memcpy(l->rows, l->data->valid + at, (size_t)s->batch * sizeof *l->rows);
        iso_status status = iso_loop_feed(l, s, false, (uint64_t)k, err);
        if (status != ISO_OK) return status;
        for (int64_t i = 0; s->v != ISO_NONE && i < s->batch * latent; i++)
            probe += (double)l->normal[i] * l->normal[i]; /* feed drew v last */
        iso_plan_run(s->plan);
        int bad;
        double batch_term[ISO_TERM_COUNT];
        if ((status = read_terms(s, batch_term, &bad, err)) != ISO_OK) return status;
        if (bad >= 0) return not_finite(l, (iso_term)bad, batch_term, true, err);
        for (int t = 0; t < ISO_TERM_COUNT; t++) sum[t] += batch_term[t] * (double)s->batch;
        iso_watch_part(&l->run->watch, "validating", at + s->batch, l->data->valid_count);
        if (at + batch < l->data->valid_count && iso_watch_stop(&l->run->watch)) return ISO_E_INTERRUPTED;
    }
    for (int t = 0; t < ISO_TERM_COUNT; t++) term[t] = sum[t] / n; /* NaN where the goal has no such term */

    const iso_objective *o = l->objective;
    if (o->goal == ISO_GOAL_SUPERVISED) return ISO_OK; /* a mean over images is pooled already */
    term[ISO_TERM_RATIO] = term[ISO_TERM_TRACE2] / (term[ISO_TERM_TRACE] * term[ISO_TERM_TRACE]);
    if (o->goal == ISO_GOAL_FLOW) {
        term[ISO_TERM_LOSS] = term[ISO_TERM_RATIO] + o->beta * term[ISO_TERM_NORM];
        return ISO_OK;
    }
    if (o->sigma == ISO_SIGMA_OPTIMAL)
        term[ISO_TERM_NLL] = (double)l->data->dim / 2 * (log(2 * M_PI * term[ISO_TERM_MSE]) + 1);
    term[ISO_TERM_LOSS] = term[ISO_TERM_NLL] + o->kl_weight * term[ISO_TERM_KL];
    if (o->goal == ISO_GOAL_ISOMETRIC) term[ISO_TERM_LOSS] += o->alpha * term[ISO_TERM_RATIO];
    if (o->goal == ISO_GOAL_FLAT_MANIFOLD)
        term[ISO_TERM_LOSS] += o->alpha * pooled_flat(term[ISO_TERM_TRACE], term[ISO_TERM_TRACE2], probe / n, latent);
    return ISO_OK;
}

static iso_status add_row(iso_loop_work *l, const iso_epoch *e, iso_error *err)
{
    if (!iso_log_add(&l->at.log, &l->at.history, e)) return iso_fail_memory(err);
    if (l->run->watch.epoch) l->run->watch.epoch(l->run->watch.ctx, e);
    return ISO_OK;
}

/* Validation, files, and on to the next epoch. The state is written after the model: whatever is killed in between is
 * done again with the same result. */
static iso_status finish_epoch(iso_loop_work *l, iso_error *err)
{
    iso_status status;
    double now = iso_now();
    iso_epoch e = {.epoch = l->at.epoch + 1, .step = l->at.step, .images = l->at.step * l->batch, .sigma = NAN};
    l->at.seconds += now - l->resumed;
    l->resumed = now;
    e.images_per_second = (double)(l->steps * l->batch) / fmax(l->at.seconds, 1e-9);
    for (int t = 0; t < ISO_TERM_COUNT; t++)
        e.train[t] = l->step->term[t] == ISO_NONE ? NAN : l->at.sum[t] / (double)l->steps;
    if ((status = iso_loop_collect(l, e.train, &e.sigma, err)) != ISO_OK) return status;
    if ((status = validate(l, e.valid, err)) == ISO_E_INTERRUPTED) {
        l->resumed = iso_now(); /* it is done again from its beginning, and is to be counted once */
        return iso_loop_interrupted(l, err);
    }
    if (status != ISO_OK) return status;
    l->done += l->data->valid_count;
    now = iso_now();
    e.seconds = l->at.seconds + now - l->resumed;
    e.left = l->done ? (now - l->began) / (double)l->done * (double)(l->total - l->done) : NAN;

    double loss = l->valid ? e.valid[ISO_TERM_LOSS] : e.train[ISO_TERM_LOSS];
    if (!isfinite(loss))
        return not_finite(l, ISO_TERM_LOSS, l->valid ? e.valid : e.train, l->valid != NULL, err);
    e.best = loss < l->at.best;
    if ((status = add_row(l, &e, err)) != ISO_OK) return status;
    if (e.best) {
        l->at.best = loss;
        l->at.best_epoch = e.epoch;
        if ((status = iso_loop_save_model(l, err)) != ISO_OK)
            return iso_fail_prefix(err, status, "training stopped after epoch %" PRId64, e.epoch);
    }
    l->at.epoch++;
    l->at.position = 0;
    memset(l->at.sum, 0, sizeof l->at.sum);
    l->resumed = iso_now();
    l->at.seconds = 0;
    if ((status = iso_loop_save_state(l, err)) != ISO_OK) return status;
    l->at.seconds = 0;
    return iso_loop_save_csv(l, err);
}

/* Epoch 0: what the start is worth. */
static iso_status baseline(iso_loop_work *l, iso_error *err)
{
    iso_epoch e = {.sigma = NAN, .images_per_second = NAN, .left = NAN};
    double now = iso_now();
    for (int t = 0; t < ISO_TERM_COUNT; t++) e.train[t] = NAN;
    iso_status status = validate(l, e.valid, err);
    if (status == ISO_E_INTERRUPTED)
        return iso_fail(err, status, "interrupted before the first step: nothing is lost, start again with the same command");
    e.seconds = iso_now() - now;
    return status == ISO_OK ? add_row(l, &e, err) : status;
}

static iso_status start(iso_loop_work *l, iso_error *err)
{
    iso_status status;
    l->last_save = l->resumed = iso_now();
    if (l->run->resume) return iso_loop_resume(l, err);
    l->at.best = INFINITY;
    if (l->spec->baseline && (status = baseline(l, err)) != ISO_OK) return status;
    l->resumed = iso_now();
    /* Written before the first step, so that a full or read-only disk is found now and not after an epoch. */
    if ((status = iso_loop_save_state(l, err)) != ISO_OK) return status;
    l->at.seconds = 0;
    return iso_loop_save_csv(l, err);
}

iso_status iso_loop(const iso_loop_spec *spec, iso_error *err)
{
    iso_loop_work l = iso_loop_of(iso_model_net(spec->model), spec->objective, spec->run, spec->data);
    l.spec = spec;
    iso_status status;
    if (l.batch < spec->run->batch)
        iso_watch_say(&l.run->watch, "only %" PRId64 " training images: the batch shrinks to that", l.batch);
    if (l.data->valid_count == 0)
        iso_watch_say(&l.run->watch, "no validation images: the training loss decides which epoch is best");
    if ((status = iso_loop_feed_open(&l, err)) != ISO_OK) goto done;
    if ((status = iso_loop_plan(&l, err)) != ISO_OK) goto done;
    if ((status = iso_loop_feed_images(&l, err)) != ISO_OK) goto done;
    if ((status = iso_loop_files_open(&l, err)) != ISO_OK) goto done;
    if ((status = iso_loop_plan_tell(&l, err)) != ISO_OK) goto done;
    if ((status = start(&l, err)) != ISO_OK) goto done;
    if (l.at.epoch < l.run->epochs)
        l.total = ((l.run->epochs - l.at.epoch) * l.steps - l.at.position) * l.batch + (l.run->epochs - l.at.epoch) * l.data->valid_count;
    l.began = iso_now();
    while (l.at.epoch < l.run->epochs) {
        if ((status = train_epoch(&l, err)) != ISO_OK) goto done;
        if ((status = finish_epoch(&l, err)) != ISO_OK) goto done;
        if (l.at.epoch < l.run->epochs && iso_watch_stop(&l.run->watch)) {
            status = iso_loop_interrupted(&l, err);
            goto done;
        }
    }
done:
    iso_loop_plan_free(&l);
    iso_loop_feed_close(&l);
    iso_loop_files_close(&l);
    return status;
}
