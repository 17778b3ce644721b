/* train_loop_files.c: what a training writes, the model, its state and its CSV; and how it goes on from there. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/memory.h"
#include "base/progress.h"
#include "model/net/net.h"
#include "model/train_log.h"
#include "model/train_loop_parts.h"

iso_status iso_loop_files_open(iso_loop_work *l, iso_error *err)
{
    l->state_path = iso_format("%s.state", l->run->path);
    l->csv_path = iso_format("%s.csv", l->run->path);
    l->saved = iso_calloc((size_t)iso_vars_count(l->vars), sizeof *l->saved);
    if (!l->state_path || !l->csv_path || !l->saved) return iso_fail_memory(err);
    for (int i = 0; i < iso_vars_count(l->vars); i++) {
        const char *name = iso_vars_name(l->vars, i);
        if (strncmp(name, "adam.", 5) == 0 || iso_objective_trains(l->objective, name)) l->saved[l->saved_count++] = name;
    }
    return ISO_OK;
}

void iso_loop_files_close(iso_loop_work *l)
{
    iso_checkpoint_clear(&l->at);
    free(l->saved);
    free(l->state_path);
    free(l->csv_path);
}

/* ---- writing ---- */

iso_status iso_loop_broken(iso_loop_work *l, const char *what, const char *advice, iso_error *err)
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
                    l->at.step, l->at.epoch + 1, what, kept, l->run->path, advice ? advice : "a smaller --lr");
}

/* With what the same command goes on. */
static const char *with_text(const iso_run *run)
{
    if (run->repeated) return run->force ? " without --force" : "";
    return run->force ? " with --resume in place of --force" : " with --resume";
}

static iso_status not_saved(const iso_loop_work *l, iso_status status, const char *why, iso_error *err)
{
    const bool repeated = l->run->repeated;
    const char *go_on = repeated ? "repeat the command" : "go on", *again = repeated ? go_on : "start again", *with = with_text(l->run);
    if (l->has_state && status == ISO_E_IO) return iso_fail(err, status, "%s; make room, then %s%s", why, go_on, with);
    if (l->has_state && status == ISO_E_MEMORY) return iso_fail(err, status, "%s; free some, then %s%s", why, go_on, with);
    if (status == ISO_E_IO) return iso_fail(err, status, "%s; make room or choose another place, then %s", why, again);
    return iso_fail(err, status, "%s", why);
}

iso_status iso_loop_save_state(iso_loop_work *l, iso_error *err)
{
    double now = iso_now();
    l->at.seconds += now - l->resumed;
    l->resumed = l->last_save = now;
    iso_error local = {0};
    iso_status status = iso_checkpoint_save(l->state_path, &l->at, l->vars, l->saved_count, l->saved,
                                            l->spec->options->count, l->spec->options->pair, &local);
    if (status == ISO_E_NUMERIC) return iso_loop_broken(l, local.message, NULL, err);
    if (status != ISO_OK) return not_saved(l, status, local.message, err);
    l->has_state = true;
    return ISO_OK;
}

iso_status iso_loop_interrupted(iso_loop_work *l, iso_error *err)
{
    iso_status status = iso_loop_save_state(l, err);
    if (status != ISO_OK) return status;
    char where[120];
    if (l->at.position == 0)
        snprintf(where, sizeof where, "after epoch %" PRId64 " (step %" PRId64 ")", l->at.epoch, l->at.step);
    else
        snprintf(where, sizeof where, "at step %" PRId64 " (epoch %" PRId64 "%s)", l->at.step, l->at.epoch + 1,
                 l->at.position == l->steps ? ", still to be validated" : "");
    return iso_fail(err, ISO_E_INTERRUPTED, "interrupted %s; %s is saved: the same command%s goes on", where, l->state_path, with_text(l->run));
}

iso_status iso_loop_collect(iso_loop_work *l, const double term[ISO_TERM_COUNT], double *sigma, iso_error *err)
{
    iso_model *m = l->spec->model;
    bool optimal = l->objective->sigma == ISO_SIGMA_OPTIMAL && l->objective->goal != ISO_GOAL_FLOW;
    iso_error local = {0};
    iso_status status = iso_model_from_vars(m, l->vars, &local);
    if (status == ISO_E_NUMERIC) return iso_loop_broken(l, local.message, NULL, err);
    if (status != ISO_OK) return iso_fail(err, status, "%s", local.message);
    int i = iso_model_find(m, "sigma");
    if (i < 0) return ISO_OK;
    if (optimal) *iso_model_data(m, i) = (float)sqrt(term[ISO_TERM_MSE]);
    if (l->objective->goal != ISO_GOAL_FLOW) *sigma = *iso_model_data_const(m, i);
    return ISO_OK;
}

iso_status iso_loop_save_model(iso_loop_work *l, iso_error *err)
{
    iso_model *m = l->spec->model;
    bool flow = l->objective->goal == ISO_GOAL_FLOW;
    const iso_options *o = l->spec->options;
    iso_status status = ISO_OK;
    for (int i = 0; i < o->count && status == ISO_OK; i++) {
        char key[64];
        snprintf(key, sizeof key, "%s%s", flow ? "flow." : "", o->pair[i].key);
        if (!iso_model_describes(key)) status = iso_model_set_meta(m, key, o->pair[i].value, err);
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

iso_status iso_loop_save_csv(iso_loop_work *l, iso_error *err)
{
    iso_file *f = NULL;
    iso_status status = iso_file_create(l->csv_path, &f, err);
    if (status != ISO_OK) return status;
    fputs(ISO_LOG_HEADER, iso_file_stream(f));
    fputs(l->at.log ? l->at.log : "", iso_file_stream(f));
    return iso_file_commit(f, err);
}

/* ---- going on ---- */

/* Whether a state's counters can be those of such a training. */
static bool counters_agree(const iso_loop_work *l)
{
    const iso_checkpoint *at = &l->at;
    return at->position <= l->steps && at->position <= at->step && (at->step - at->position) % l->steps == 0 &&
           (at->step - at->position) / l->steps == at->epoch && at->best_epoch <= at->epoch &&
           (at->best_epoch == 0) == (at->best == INFINITY);
}

/* What the model's file is to a state that is gone on with; NULL: the best epoch's. */
static iso_status look_at_model(const iso_loop_work *l, const char **what, iso_error *err)
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
static iso_status check_model(const iso_loop_work *l, const char **what, iso_error *err)
{
    iso_status status = look_at_model(l, what, err);
    if (status != ISO_OK || !*what || l->at.epoch < l->run->epochs) return status;
    return iso_fail(err, ISO_E_MISMATCH, "%s%s, of epoch %" PRId64 ", %s, and all %" PRId64 " epochs are done: %sstart anew with --force",
                    l->run->repeated ? "" : "--resume: ", l->run->path, l->at.best_epoch, *what, l->at.epoch,
                    l->run->schedule == ISO_SCHEDULE_COSINE ? "" : "raise --epochs, or ");
}

static iso_status load_state(iso_loop_work *l, const iso_options *options, iso_error *err)
{
    iso_status status = iso_checkpoint_load(l->state_path, &l->at, l->vars, l->saved_count, l->saved, options->count, options->pair, err);
    return status == ISO_E_ARGUMENT && !l->run->repeated ? iso_fail_prefix(err, status, "--resume") : status;
}

iso_status iso_loop_resumable(const iso_run *run, const iso_options *options, iso_error *err)
{
    const char *what;
    iso_loop_work l = {.run = run, .state_path = iso_format("%s.state", run->path)};
    iso_status status = l.state_path ? load_state(&l, options, err) : iso_fail_memory(err);
    if (status == ISO_OK) status = check_model(&l, &what, err);
    iso_loop_files_close(&l);
    return status;
}

/* The best epoch begins anew where its model is not there, as long as there are epochs to come. */
iso_status iso_loop_resume(iso_loop_work *l, iso_error *err)
{
    const char *what;
    iso_status status = load_state(l, l->spec->options, err);
    if (status != ISO_OK) return status;
    if (!counters_agree(l))
        return iso_fail(err, ISO_E_FORMAT, "%s is no usable training state (counters): start anew with --force", l->state_path);
    if (!iso_log_widen(&l->at.log)) return iso_fail_memory(err);
    l->has_state = true;
    if ((status = check_model(l, &what, err)) != ISO_OK) return status;
    if (what) {
        iso_watch_say(&l->run->watch, "%s, of epoch %" PRId64 ", %s: the best epoch is looked for anew", l->run->path, l->at.best_epoch, what);
        l->at.best_epoch = 0;
        l->at.best = INFINITY;
        l->at.model[0] = 0;
    }
    if (l->at.epoch >= l->run->epochs)
        iso_watch_say(&l->run->watch, "nothing to do: %" PRId64 " epochs are done%s", l->at.epoch,
                      l->run->schedule == ISO_SCHEDULE_COSINE ? "" : "; --epochs can be raised");
    else
        iso_watch_say(&l->run->watch, "going on after epoch %" PRId64 ", step %" PRId64, l->at.epoch, l->at.step);
    return iso_loop_save_csv(l, err);
}
