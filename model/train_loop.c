#include "model/train_loop.h"

#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/memory.h"
#include "base/progress.h"
#include "model/checkpoint.h"
#include "model/device.h"
#include "model/net/net.h"
#include "model/philox.h"
#include "model/train_log.h"

#define SAVE_EVERY 600.0 /* seconds: what a power cut may cost within a long epoch */

typedef struct loop {
    const iso_loop_spec *spec;        /* NULL: it is only asked what a loop would take */
    const iso_net *net;
    const iso_objective *objective;
    const iso_run *run;
    const iso_train_data *data;
    int64_t batch, steps;             /* images a step; steps an epoch */
    const iso_backend *backend;
    iso_bytes *bytes;                 /* the images, on a backend with a device; else NULL */
    uint8_t *mirrored;                /* [batch] */
    iso_vars *vars;
    iso_train_step *step, *valid, *rest;    /* rest: the last, smaller validation batch; NULL where there is none */
    iso_checkpoint at;
    int64_t *order;                   /* [train_count] this epoch's permutation */
    float *x, *normal;                /* [batch, dim], [batch, latent] */
    float *delta;                     /* [batch] */
    float *labels;                    /* [batch, classes]; NULL unless supervised */
    int64_t *perm, *rows;             /* [batch] */
    const char **saved;               /* names of the vars in the state file */
    int saved_count;
    int64_t done, total;              /* images of this run, those of validations too */
    double began;                     /* monotonic seconds, as the next three: the run's first step */
    double resumed, last_save;        /* since when the epoch's clock runs; of the last state file */
    char *state_path, *csv_path;
    bool has_state;                   /* the state file is of this training */
} loop;

void iso_watch_say(const iso_watch *w, const char *fmt, ...)
{
    if (!w->say) return;
    char line[512];
    va_list list;
    va_start(list, fmt);
    vsnprintf(line, sizeof line, fmt, list);
    va_end(list);
    w->say(w->ctx, line);
}

void iso_watch_part(const iso_watch *w, const char *what, int64_t done, int64_t total)
{
    if (w->part) w->part(w->ctx, what, done, total);
}

bool iso_watch_stop(const iso_watch *w)
{
    return w->stop && w->stop(w->ctx);
}

/* --- inputs */

static bool is_mirrored(const loop *l, uint64_t step, int64_t b)
{
    return iso_draw_below((iso_draw){l->run->seed, ISO_DRAW_MIRROR, step}, (uint64_t)b, 2) != 0;
}

static void fill_x(loop *l, const iso_train_step *s, bool mirror, uint64_t step)
{
    int64_t dim = l->spec->codes ? l->net->latent : l->data->dim;
    for (int64_t b = 0; b < s->batch; b++) {
        float *x = l->x + b * dim;
        if (l->spec->codes) {
            memcpy(x, l->spec->codes + l->rows[b] * dim, (size_t)dim * sizeof *x);
            continue;
        }
        iso_pixels_to_real(l->data->pixels + l->rows[b] * dim, dim, x);
        if (mirror && is_mirrored(l, step, b)) iso_mirror(x);
    }
}

/* The images whose rows are in l->rows: converted on the device where there is one. */
static iso_status feed_x(loop *l, const iso_train_step *s, bool mirror, uint64_t step, iso_error *err)
{
    if (l->bytes) {
        for (int64_t b = 0; mirror && b < s->batch; b++) l->mirrored[b] = is_mirrored(l, step, b);
        return iso_plan_write_bytes(s->plan, s->x, l->bytes, l->rows, mirror ? l->mirrored : NULL, s->batch, err);
    }
    fill_x(l, s, mirror, step);
    return iso_plan_write(s->plan, s->x, l->x, iso_shape_count(&s->x_shape), err);
}

static iso_status feed_labels(loop *l, const iso_train_step *s, iso_error *err)
{
    int64_t classes = l->data->classes;
    for (int64_t b = 0; b < s->batch; b++)
        for (int64_t c = 0; c < classes; c++) l->labels[b * classes + c] = l->data->labels[l->rows[b] * classes + c];
    return iso_plan_write(s->plan, s->labels, l->labels, s->batch * classes, err);
}

/* Writes the batch whose rows are in l->rows and its draws. */
static iso_status feed(loop *l, const iso_train_step *s, bool train, uint64_t step, iso_error *err)
{
    uint64_t seed = l->run->seed;
    int64_t B = s->batch, m = l->net->latent;
    iso_status status;
    if ((status = feed_x(l, s, train && l->spec->mirror, step, err)) != ISO_OK) return status;
    if (s->labels != ISO_NONE) return feed_labels(l, s, err); /* supervised: nothing is drawn */
    if (s->eps != ISO_NONE) {
        iso_draw_normal((iso_draw){seed, train ? ISO_DRAW_EPS : ISO_DRAW_VALID_EPS, step}, B * m, l->normal);
        if ((status = iso_plan_write(s->plan, s->eps, l->normal, B * m, err)) != ISO_OK) return status;
    }
    iso_draw_normal((iso_draw){seed, train ? ISO_DRAW_PROBE : ISO_DRAW_VALID_PROBE, step}, B * m, l->normal);
    if ((status = iso_plan_write(s->plan, s->v, l->normal, B * m, err)) != ISO_OK) return status;
    iso_draw_uniform((iso_draw){seed, train ? ISO_DRAW_DELTA : ISO_DRAW_VALID_DELTA, step}, -l->run->eta, 1 + l->run->eta, B, l->delta);
    if ((status = iso_plan_write(s->plan, s->delta, l->delta, B, err)) != ISO_OK) return status;
    iso_draw_permutation((iso_draw){seed, train ? ISO_DRAW_PERM : ISO_DRAW_VALID_PERM, step}, B, l->perm);
    return iso_plan_write_index(s->plan, s->perm, l->perm, B, err);
}

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

/* `what` as a whole clause: "the KL term is NaN"; `advice` as what is to be tried. */
static iso_status broken(loop *l, const char *what, const char *advice, iso_error *err)
{
    char kept[256];
    if (l->at.best_epoch)
        snprintf(kept, sizeof kept, "the best model so far, of epoch %" PRId64 ", is kept", l->at.best_epoch);
    else if (access(l->run->path, F_OK) == 0)
        snprintf(kept, sizeof kept, "no epoch was finished, so the model there is an earlier one");
    else
        snprintf(kept, sizeof kept, "no epoch was finished, so there is no model yet");
    return iso_fail(err, ISO_E_NUMERIC,
                    "training stopped at step %" PRId64 " (epoch %" PRId64 "): %s; %s (%s); try %s",
                    l->at.step, l->at.epoch + 1, what, kept, l->run->path, advice);
}

static const char slower[] = "a smaller --lr";

/* Where the decoder's image does not depend on the code: a flow has no width, and its decoder was dead before the first step or is not to blame. */
static const char *try_alive(const loop *l)
{
    if (l->objective->goal != ISO_GOAL_FLOW) return "a larger --width, another --seed or a smaller --lr";
    return l->at.step == 0 ? "another --model" : slower;
}

static iso_status not_finite(loop *l, iso_term bad, const double *term, const char *where, iso_error *err)
{
    char what[160];
    bool dead = bad == ISO_TERM_RATIO && term[ISO_TERM_TRACE] == 0;
    snprintf(what, sizeof what, "%s%s is %s%s", iso_term_text(bad), where, isnan(term[bad]) ? "NaN" : "infinite",
             dead ? ", for the decoder's Jacobian is zero" : "");
    return broken(l, what, dead ? try_alive(l) : slower, err);
}

/* --- files */

/* How the same command goes on. */
static const char *resume_text(const loop *l)
{
    return l->run->force ? "--resume in place of --force" : "--resume";
}

static iso_status not_saved(const loop *l, iso_status status, const char *why, iso_error *err)
{
    if (l->has_state && status == ISO_E_IO) return iso_fail(err, status, "%s; make room, then go on with %s", why, resume_text(l));
    if (l->has_state && status == ISO_E_MEMORY) return iso_fail(err, status, "%s; free some, then go on with %s", why, resume_text(l));
    if (status == ISO_E_IO) return iso_fail(err, status, "%s; make room or choose another place, then start again", why);
    return iso_fail(err, status, "%s", why);
}

static iso_status save_state(loop *l, iso_error *err)
{
    double now = iso_now();
    l->at.seconds += now - l->resumed;
    l->resumed = l->last_save = now;
    iso_error local = {0};
    iso_status status = iso_checkpoint_save(l->state_path, &l->at, l->vars, l->saved_count, l->saved,
                                            l->spec->options->count, l->spec->options->pair, &local);
    if (status == ISO_E_NUMERIC) return broken(l, local.message, slower, err);
    if (status != ISO_OK) return not_saved(l, status, local.message, err);
    l->has_state = true;
    return ISO_OK;
}

static iso_status interrupted(loop *l, iso_error *err)
{
    iso_status status = save_state(l, err);
    if (status != ISO_OK) return status;
    char where[120];
    if (l->at.position == 0)
        snprintf(where, sizeof where, "after epoch %" PRId64 " (step %" PRId64 ")", l->at.epoch, l->at.step);
    else
        snprintf(where, sizeof where, "at step %" PRId64 " (epoch %" PRId64 "%s)", l->at.step, l->at.epoch + 1,
                 l->at.position == l->steps ? ", still to be validated" : "");
    return iso_fail(err, ISO_E_INTERRUPTED, "interrupted %s; %s is saved: the same command with %s goes on", where, l->state_path, resume_text(l));
}

/* Vars to the model, and the sigma that goes with the epoch. Adam's last step may have broken what no loss saw. */
static iso_status collect(loop *l, const double term[ISO_TERM_COUNT], double *sigma, iso_error *err)
{
    iso_model *m = l->spec->model;
    bool optimal = l->objective->sigma == ISO_SIGMA_OPTIMAL && l->objective->goal != ISO_GOAL_FLOW;
    iso_error local = {0};
    iso_status status = iso_model_from_vars(m, l->vars, &local);
    if (status == ISO_E_NUMERIC) return broken(l, local.message, slower, err);
    if (status != ISO_OK) return iso_fail(err, status, "%s", local.message);
    int i = iso_model_find(m, "sigma");
    if (i < 0) return ISO_OK;
    if (optimal) *iso_model_data(m, i) = (float)sqrt(term[ISO_TERM_MSE]);
    if (l->objective->goal != ISO_GOAL_FLOW) *sigma = *iso_model_data_const(m, i);
    return ISO_OK;
}

static iso_status save_model(loop *l, iso_error *err)
{
    iso_model *m = l->spec->model;
    bool flow = l->objective->goal == ISO_GOAL_FLOW;
    const iso_options *o = l->spec->options;
    iso_status status = ISO_OK;
    for (int i = 0; i < o->count && status == ISO_OK; i++) {
        char key[64];
        bool of_net = !flow && (strcmp(o->pair[i].key, "arch") == 0 || strcmp(o->pair[i].key, "width") == 0 ||
                                strcmp(o->pair[i].key, "views") == 0 ||
                                strcmp(o->pair[i].key, "latent") == 0); /* the file says so already */
        snprintf(key, sizeof key, "%s%s", flow ? "flow." : "", o->pair[i].key);
        if (!of_net) status = iso_model_set_meta(m, key, o->pair[i].value, err);
    }
    char number[32];
    snprintf(number, sizeof number, "%" PRId64, l->at.best_epoch);
    if (status == ISO_OK) status = iso_model_set_meta(m, flow ? "flow.epoch" : "epoch", number, err);
    char *history = iso_format("[%s]", l->at.history ? l->at.history : "");
    if (!history) return iso_fail_memory(err);
    if (status == ISO_OK) status = iso_model_set_meta(m, flow ? "flow.history" : "history", history, err);
    free(history);
    if (status) return status;
    snprintf(l->at.model, sizeof l->at.model, "%s", iso_model_digest(m));
    return iso_model_save(m, l->run->path, err);
}

static iso_status save_csv(loop *l, iso_error *err)
{
    iso_file *f = NULL;
    iso_status status = iso_file_create(l->csv_path, &f, err);
    if (status != ISO_OK) return status;
    fputs(ISO_LOG_HEADER, iso_file_stream(f));
    fputs(l->at.log ? l->at.log : "", iso_file_stream(f));
    return iso_file_commit(f, err);
}

/* --- epochs */

/* What the learning rate of this step is multiplied by: a straight line up to 1 over the first steps, and half a cosine from
 * 1 to 0 over the whole run. */
static double schedule(const loop *l)
{
    double up = l->at.step < l->run->warmup ? (double)l->at.step / (double)l->run->warmup : 1;
    if (l->run->schedule != ISO_SCHEDULE_COSINE) return up;
    return up * (0.5 + 0.5 * cos(M_PI * (double)(l->at.step - 1) / (double)(l->run->epochs * l->steps)));
}

/* The epoch's batch at `position`, which step number `step` trains on. */
static iso_status feed_step(loop *l, int64_t position, int64_t step, iso_error *err)
{
    for (int64_t b = 0; b < l->batch; b++) l->rows[b] = l->data->train[l->order[position * l->batch + b]];
    return feed(l, l->step, true, (uint64_t)step, err);
}

/* What a device could not do as it should, once that is known: it costs time, and nothing else shows it. */
static void tell_detour(const loop *l)
{
    char text[600];
    iso_plan_tell(l->step->plan, text, sizeof text);
    if (text[0]) iso_watch_say(&l->run->watch, "on the device: %s", text);
}

static iso_status train_epoch(loop *l, iso_error *err)
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
        if (bad >= 0) return not_finite(l, (iso_term)bad, term, "", err);
        for (int t = 0; t < ISO_TERM_COUNT; t++)
            if (!isnan(term[t])) l->at.sum[t] += term[t];
        l->at.position++;
        l->done += l->batch;
        if (l->done == 3 * l->batch) tell_detour(l); /* a plan becomes a graph at its second run */
        if (l->run->watch.tick)
            l->run->watch.tick(l->run->watch.ctx, &(iso_tick){l->at.epoch + 1, l->run->epochs, l->done, l->total, iso_now() - l->began, term});
        if (iso_watch_stop(&l->run->watch)) return interrupted(l, err);
        if (iso_now() - l->last_save > SAVE_EVERY && (status = save_state(l, err)) != ISO_OK) return status;
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
static iso_status validate(loop *l, double term[ISO_TERM_COUNT], iso_error *err)
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
        iso_status status = feed(l, s, false, (uint64_t)k, err);
        if (status != ISO_OK) return status;
        for (int64_t i = 0; s->v != ISO_NONE && i < s->batch * latent; i++)
            probe += (double)l->normal[i] * l->normal[i]; /* feed drew v last */
        iso_plan_run(s->plan);
        int bad;
        double batch_term[ISO_TERM_COUNT];
        if ((status = read_terms(s, batch_term, &bad, err)) != ISO_OK) return status;
        if (bad >= 0) return not_finite(l, (iso_term)bad, batch_term, " on the validation images", err);
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

static iso_status add_row(loop *l, const iso_epoch *e, iso_error *err)
{
    if (!iso_log_add(&l->at.log, &l->at.history, e)) return iso_fail_memory(err);
    if (l->run->watch.epoch) l->run->watch.epoch(l->run->watch.ctx, e);
    return ISO_OK;
}

/* Validation, files, and on to the next epoch. The state is written after the model: whatever is killed in between is
 * done again with the same result. */
static iso_status finish_epoch(loop *l, iso_error *err)
{
    iso_status status;
    double now = iso_now();
    iso_epoch e = {.epoch = l->at.epoch + 1, .step = l->at.step, .images = l->at.step * l->batch, .sigma = NAN};
    l->at.seconds += now - l->resumed;
    l->resumed = now;
    e.images_per_second = (double)(l->steps * l->batch) / fmax(l->at.seconds, 1e-9);
    for (int t = 0; t < ISO_TERM_COUNT; t++)
        e.train[t] = l->step->term[t] == ISO_NONE ? NAN : l->at.sum[t] / (double)l->steps;
    if ((status = collect(l, e.train, &e.sigma, err)) != ISO_OK) return status;
    if ((status = validate(l, e.valid, err)) == ISO_E_INTERRUPTED) {
        l->resumed = iso_now(); /* it is done again from its beginning, and is to be counted once */
        return interrupted(l, err);
    }
    if (status != ISO_OK) return status;
    l->done += l->data->valid_count;
    now = iso_now();
    e.seconds = l->at.seconds + now - l->resumed;
    e.left = l->done ? (now - l->began) / (double)l->done * (double)(l->total - l->done) : NAN;

    double loss = l->valid ? e.valid[ISO_TERM_LOSS] : e.train[ISO_TERM_LOSS];
    if (!isfinite(loss))
        return not_finite(l, ISO_TERM_LOSS, l->valid ? e.valid : e.train, l->valid ? " on the validation images" : "", err);
    e.best = loss < l->at.best;
    if ((status = add_row(l, &e, err)) != ISO_OK) return status;
    if (e.best) {
        l->at.best = loss;
        l->at.best_epoch = e.epoch;
        if ((status = save_model(l, err)) != ISO_OK)
            return iso_fail_prefix(err, status, "training stopped after epoch %" PRId64, e.epoch);
    }
    l->at.epoch++;
    l->at.position = 0;
    memset(l->at.sum, 0, sizeof l->at.sum);
    l->resumed = iso_now();
    l->at.seconds = 0;
    if ((status = save_state(l, err)) != ISO_OK) return status;
    l->at.seconds = 0;
    return save_csv(l, err);
}

/* Epoch 0: what the start is worth. */
static iso_status baseline(loop *l, iso_error *err)
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

/* --- set-up */

/* Bytes of the host's memory that a loop takes beside its plans and their vars. */
typedef struct beside {
    size_t model, saving, inputs; /* saving: a copy of what is written at a time, the model's parameters or the state */
} beside;

static iso_status count_beside(const loop *l, int64_t batch, beside *out, iso_error *err)
{
    int count = iso_net_params(l->net, 0, NULL);
    iso_param *param = iso_calloc((size_t)count, sizeof *param);
    if (!param) return iso_fail_memory(err);
    iso_net_params(l->net, count, param);
    size_t state = 0, latent = (size_t)l->net->latent;
    *out = (beside){0};
    for (int i = 0; i < count; i++) {
        size_t bytes = (size_t)iso_shape_count(&param[i].shape) * sizeof(float);
        out->model += bytes;
        if (iso_objective_trains(l->objective, param[i].name)) state += 3 * bytes; /* with Adam's moments */
    }
    free(param);
    bool flow = l->objective->goal == ISO_GOAL_FLOW;
    size_t codes = flow ? (size_t)(l->data->train_count + l->data->valid_count) * latent : 0;
    size_t image = (flow ? latent : (size_t)l->data->dim) + latent + (size_t)l->net->classes;
    out->saving = state > out->model ? state : out->model;
    out->inputs = (codes + (size_t)batch * image) * sizeof(float);
    return ISO_OK;
}

/* What training with a batch takes of a backend's memory: validation is planned beside it. A loop that runs has its model and inputs. */
static iso_status measure(void *ctx, int64_t batch, size_t *bytes, iso_error *err)
{
    const loop *l = ctx;
    const iso_objective *o = l->objective;
    iso_plan_stats train = {0}, valid = {0}, rest = {0};
    beside host = {0};
    int64_t count = l->data->valid_count < batch ? l->data->valid_count : batch;
    iso_status status = iso_train_step_measure(l->net, o, batch, true, l->backend, &train, err);
    if (status == ISO_OK && count) status = iso_train_step_measure(l->net, o, count, false, l->backend, &valid, err);
    if (status == ISO_OK && count && l->data->valid_count % count)
        status = iso_train_step_measure(l->net, o, l->data->valid_count % count, false, l->backend, &rest, err);
    if (status == ISO_OK && !l->backend->device) status = count_beside(l, batch, &host, err);
    if (status == ISO_OK && !l->backend->device && !l->spec && !l->data->pixels)
        host.inputs += (size_t)(l->data->train_count + l->data->valid_count) * (size_t)l->data->dim;
    *bytes = train.arena + train.vars + valid.arena + rest.arena + host.saving + (l->spec ? 0 : host.model + host.inputs);
    return status;
}

static void free_plans(loop *l)
{
    iso_train_step_free(l->step);
    iso_train_step_free(l->valid);
    iso_train_step_free(l->rest);
    iso_vars_free(l->vars);
    l->step = l->valid = l->rest = NULL;
    l->vars = NULL;
}

static void close_loop(loop *l)
{
    free_plans(l);
    iso_bytes_free(l->bytes);
    free(l->mirrored);
    iso_checkpoint_clear(&l->at);
    free(l->order);
    free(l->x);
    free(l->normal);
    free(l->delta);
    free(l->labels);
    free(l->perm);
    free(l->rows);
    free(l->saved);
    free(l->state_path);
    free(l->csv_path);
}

/* The images to the device. */
static iso_status build_bytes(loop *l, iso_error *err)
{
    int64_t rows = 0;
    if (!l->backend->device || l->spec->codes) return ISO_OK;
    for (int64_t i = 0; i < l->data->train_count; i++)
        if (l->data->train[i] >= rows) rows = l->data->train[i] + 1;
    for (int64_t i = 0; i < l->data->valid_count; i++)
        if (l->data->valid[i] >= rows) rows = l->data->valid[i] + 1;
    bool images = l->data->dim == ISO_PIXELS;
    iso_bytes_spec spec = {.host = l->data->pixels, .rows = rows, .dim = l->data->dim, .batch = l->batch, .fixed = true,
                           .width = images ? ISO_SIDE : l->data->dim, .depth = images ? 3 : 1};
    iso_status status = iso_bytes_create(l->backend, &spec, &l->bytes, err);
    if (status == ISO_OK)
        iso_watch_say(&l->run->watch, "computing on %s; the images %s", l->backend->name,
                      iso_bytes_resident(l->bytes) ? "are in its memory" : "do not fit into its memory and are sent by batches");
    return status;
}

/* What every loop begins with. */
static loop loop_of(const iso_net *net, const iso_objective *objective, const iso_run *run, const iso_train_data *data)
{
    loop l = {.net = net, .objective = objective, .run = run, .data = data, .batch = run->batch};
    if (l.batch > data->train_count) l.batch = data->train_count;
    l.steps = data->train_count / l.batch;
    l.backend = run->backend ? run->backend : iso_backend_cpu();
    return l;
}

iso_status iso_loop_fits(const iso_net *net, const iso_objective *objective, const iso_run *run, const iso_train_data *data,
                         iso_error *err)
{
    loop l = loop_of(net, objective, run, data);
    return iso_device_check(l.backend, "training", measure, &l, l.batch, err);
}

static iso_status build_plans(loop *l, iso_error *err)
{
    const iso_net *net = l->net;
    const iso_objective *o = l->objective;
    int64_t valid = l->data->valid_count < l->batch ? l->data->valid_count : l->batch;
    int64_t rest = valid ? l->data->valid_count % valid : 0;
    iso_status status = iso_vars_create(l->backend, &l->vars, err);
    if (status != ISO_OK) return status;
    int threads = l->run->threads;
    status = iso_train_step_create(net, o, l->batch, true, l->vars, threads, &l->step, err);
    if (status == ISO_OK && valid) status = iso_train_step_create(net, o, valid, false, l->vars, threads, &l->valid, err);
    if (status == ISO_OK && rest) status = iso_train_step_create(net, o, rest, false, l->vars, threads, &l->rest, err);
    if (status == ISO_E_MEMORY) {
        free_plans(l); /* to see what is free without them */
        return iso_device_full(l->backend, "training", measure, l, l->batch, err);
    }
    if (status != ISO_OK) return status;
    if ((status = iso_model_to_vars(l->spec->model, l->vars, err)) != ISO_OK) return status;
    if ((status = build_bytes(l, err)) != ISO_OK) return status;
    l->saved = iso_calloc((size_t)iso_vars_count(l->vars), sizeof *l->saved);
    if (!l->saved) return iso_fail_memory(err);
    for (int i = 0; i < iso_vars_count(l->vars); i++) {
        const char *name = iso_vars_name(l->vars, i);
        if (strncmp(name, "adam.", 5) == 0 || iso_objective_trains(o, name)) l->saved[l->saved_count++] = name;
    }
    return ISO_OK;
}

static iso_status allocate(loop *l, iso_error *err)
{
    size_t batch = (size_t)l->batch, latent = (size_t)l->net->latent;
    size_t dim = l->spec->codes ? latent : (size_t)l->data->dim;
    l->order = iso_calloc((size_t)l->data->train_count, sizeof *l->order);
    l->x = iso_calloc(batch * dim, sizeof *l->x);
    l->normal = iso_calloc(batch * latent, sizeof *l->normal);
    l->delta = iso_calloc(batch, sizeof *l->delta);
    if (l->objective->goal == ISO_GOAL_SUPERVISED) {
        l->labels = iso_calloc(batch * (size_t)l->data->classes, sizeof *l->labels);
        if (!l->labels) return iso_fail_memory(err);
    }
    l->perm = iso_calloc(batch, sizeof *l->perm);
    l->rows = iso_calloc(batch, sizeof *l->rows);
    l->mirrored = iso_calloc(batch, sizeof *l->mirrored);
    l->state_path = iso_format("%s.state", l->run->path);
    l->csv_path = iso_format("%s.csv", l->run->path);
    bool ok = l->order && l->x && l->normal && l->delta && l->perm && l->rows && l->mirrored && l->state_path && l->csv_path;
    return ok ? ISO_OK : iso_fail_memory(err);
}

static iso_status tell_plan(const loop *l, iso_error *err)
{
    iso_plan_stats a = iso_plan_describe(l->step->plan), b = {0}, c = {0};
    beside host;
    iso_status status = count_beside(l, l->batch, &host, err);
    if (status != ISO_OK) return status;
    if (l->valid) b = iso_plan_describe(l->valid->plan);
    if (l->rest) c = iso_plan_describe(l->rest->plan);
    double vars = (double)iso_vars_bytes(l->vars), arena = (double)(a.arena + b.arena + c.arena), MiB = 1 << 20;
    double model = (double)(host.model + host.saving), data = (double)host.inputs;
    if (!l->spec->codes) data += (double)l->data->dim * (double)(l->data->train_count + l->data->valid_count);
    iso_watch_say(&l->run->watch,
                  "planned memory: %.0f MiB (plans %.0f, parameters and Adam %.0f, model and its saving %.0f, data %.0f); "
                  "%.1f GFLOP a step",
                  (vars + arena + model + data) / MiB, arena / MiB, vars / MiB, model / MiB, data / MiB, a.flops / 1e9);
    return ISO_OK;
}

/* Whether a state's counters can be those of such a training. */
static bool counters_agree(const loop *l)
{
    const iso_checkpoint *at = &l->at;
    return at->position <= l->steps && at->position <= at->step && (at->step - at->position) % l->steps == 0 &&
           (at->step - at->position) / l->steps == at->epoch && at->best_epoch <= at->epoch &&
           (at->best_epoch == 0) == (at->best == INFINITY);
}

/* What the model's file is to a state that is gone on with; NULL: the best epoch's. */
static iso_status look_at_model(const loop *l, const char **what, iso_error *err)
{
    iso_model *m = NULL;
    *what = NULL;
    if (!l->at.best_epoch) return ISO_OK;
    if (access(l->run->path, F_OK) != 0) {
        *what = "is gone";
        return ISO_OK;
    }
    if (!l->at.model[0]) return ISO_OK;
    iso_status status = iso_model_load(l->run->path, &m, err);
    if (status == ISO_E_FORMAT || status == ISO_E_NUMERIC) status = ISO_OK;
    if (status == ISO_OK && (!m || strcmp(iso_model_digest(m), l->at.model) != 0)) *what = "was replaced by another file";
    iso_model_free(m);
    return status;
}

/* Of a state that was loaded. */
static iso_status check_model(const loop *l, const char **what, iso_error *err)
{
    iso_status status = look_at_model(l, what, err);
    if (status != ISO_OK || !*what || l->at.epoch < l->run->epochs) return status;
    return iso_fail(err, ISO_E_MISMATCH, "--resume: %s, of epoch %" PRId64 ", %s, and all %" PRId64 " epochs are done: %sstart anew with --force",
                    l->run->path, l->at.best_epoch, *what, l->at.epoch, l->run->schedule == ISO_SCHEDULE_COSINE ? "" : "raise --epochs, or ");
}

iso_status iso_loop_resumable(const iso_run *run, const iso_options *options, iso_error *err)
{
    const char *what;
    loop l = {.run = run, .state_path = iso_format("%s.state", run->path)};
    iso_status status = l.state_path ? iso_checkpoint_load(l.state_path, &l.at, NULL, 0, NULL, options->count, options->pair, err) : iso_fail_memory(err);
    if (status == ISO_OK) status = check_model(&l, &what, err);
    close_loop(&l);
    return status;
}

/* The best epoch begins anew where its model is not there, as long as there are epochs to come. */
static iso_status resume(loop *l, iso_error *err)
{
    const char *what;
    iso_status status = iso_checkpoint_load(l->state_path, &l->at, l->vars, l->saved_count, l->saved, l->spec->options->count,
                                            l->spec->options->pair, err);
    if (status != ISO_OK) return status;
    if (!counters_agree(l))
        return iso_fail(err, ISO_E_FORMAT, "%s is no usable training state (counters): start anew with --force", l->state_path);
    l->has_state = true;
    if ((status = check_model(l, &what, err)) != ISO_OK) return status;
    if (what) {
        iso_watch_say(&l->run->watch, "%s, of epoch %" PRId64 ", %s: the best epoch is looked for anew", l->run->path, l->at.best_epoch, what);
        l->at.best_epoch = 0;
        l->at.best = INFINITY;
        l->at.model[0] = 0;
    }
    if (l->at.epoch >= l->run->epochs)
        iso_watch_say(&l->run->watch, "nothing to do: %" PRId64 " epochs are done; --epochs can be raised", l->at.epoch);
    else
        iso_watch_say(&l->run->watch, "going on after epoch %" PRId64 ", step %" PRId64, l->at.epoch, l->at.step);
    return save_csv(l, err);
}

static iso_status start(loop *l, iso_error *err)
{
    iso_status status;
    l->last_save = l->resumed = iso_now();
    if (l->run->resume) return resume(l, err);
    l->at.best = INFINITY;
    if (l->spec->baseline && (status = baseline(l, err)) != ISO_OK) return status;
    l->resumed = iso_now();
    /* Written before the first step, so that a full or read-only disk is found now and not after an epoch. */
    if ((status = save_state(l, err)) != ISO_OK) return status;
    l->at.seconds = 0;
    return save_csv(l, err);
}

iso_status iso_loop(const iso_loop_spec *spec, iso_error *err)
{
    loop l = loop_of(iso_model_net(spec->model), spec->objective, spec->run, spec->data);
    l.spec = spec;
    iso_status status;
    if (l.batch < spec->run->batch)
        iso_watch_say(&l.run->watch, "only %" PRId64 " training images: the batch shrinks to that", l.batch);
    if (l.data->valid_count == 0)
        iso_watch_say(&l.run->watch, "no validation images: the training loss decides which epoch is best");
    if ((status = allocate(&l, err)) != ISO_OK) goto done;
    if ((status = build_plans(&l, err)) != ISO_OK) goto done;
    if ((status = tell_plan(&l, err)) != ISO_OK) goto done;
    if ((status = start(&l, err)) != ISO_OK) goto done;
    if (l.at.epoch < l.run->epochs)
        l.total = ((l.run->epochs - l.at.epoch) * l.steps - l.at.position) * l.batch + (l.run->epochs - l.at.epoch) * l.data->valid_count;
    l.began = iso_now();
    while (l.at.epoch < l.run->epochs) {
        if ((status = train_epoch(&l, err)) != ISO_OK) goto done;
        if ((status = finish_epoch(&l, err)) != ISO_OK) goto done;
        if (l.at.epoch < l.run->epochs && iso_watch_stop(&l.run->watch)) {
            status = interrupted(&l, err);
            goto done;
        }
    }
done:
    close_loop(&l);
    return status;
}
