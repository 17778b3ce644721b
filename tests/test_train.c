/* Training: losses that fall, resuming bit for bit, interruption, NaNs, and everything a user may get wrong. */
#include <dirent.h>
#include <inttypes.h>
#include <math.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/memory.h"
#include "model/checkpoint.h"
#include "model/philox.h"
#include "model/train.h"
#include "tests/check.h"

enum { IMAGES = 26, VALID = 5, MLP_DIM = 12 };

static char folder[512];
static uint8_t pixels[IMAGES * ISO_PIXELS];
static uint8_t values[IMAGES * MLP_DIM];
static int64_t rows[IMAGES];
static int64_t mlp_rows[IMAGES];

/* A disc of a random colour, place and size on a random ground. */
static void draw_images(void)
{
    for (int i = 0; i < IMAGES; i++) {
        float u[9];
        iso_draw_uniform((iso_draw){5, 1, (uint64_t)i}, 0, 1, 9, u);
        for (int y = 0; y < ISO_SIDE; y++)
            for (int x = 0; x < ISO_SIDE; x++) {
                float dx = (float)x / ISO_SIDE - u[0], dy = (float)y / ISO_SIDE - u[1];
                bool inside = dx * dx + dy * dy < 0.02f + 0.1f * u[2];
                for (int c = 0; c < 3; c++)
                    pixels[((i * ISO_SIDE + y) * ISO_SIDE + x) * 3 + c] = (uint8_t)(255 * u[(inside ? 3 : 6) + c]);
            }
        for (int k = 0; k < MLP_DIM; k++)
            values[i * MLP_DIM + k] = (uint8_t)(127.5 + 100 * sin(2 * M_PI * u[0] + k) * u[1]);
        rows[i] = mlp_rows[i] = i;
    }
}

static iso_train_data image_data(void)
{
    return (iso_train_data){.pixels = pixels, .dim = ISO_PIXELS, .train = rows, .valid = rows + IMAGES - VALID,
                            .train_count = IMAGES - VALID, .valid_count = VALID};
}

static iso_train_data mlp_data(void)
{
    return (iso_train_data){.pixels = values, .dim = MLP_DIM, .train = mlp_rows, .valid = mlp_rows + IMAGES - VALID,
                            .train_count = IMAGES - VALID, .valid_count = VALID};
}

/* --- watching */

typedef struct watcher {
    int ticks, stop_at; /* stop after that many steps; 0: never */
    int stop_validation, stop_epoch; /* in the middle of that validation, after that many epochs; 0: never */
    bool fills_disk;    /* after the first step */
    int epochs;
    int parts, validations;          /* begun */
    int64_t part_done, part_total, done, total;
    double seconds;                  /* these three: of the last step */
    iso_epoch row[64];
    char said[2048];
} watcher;

static void on_say(void *ctx, const char *line)
{
    watcher *w = ctx;
    size_t used = strlen(w->said);
    if (strncmp(line, "planned memory", 14) == 0) w->done = w->total = 0, w->seconds = 0; /* another run begins */
    snprintf(w->said + used, sizeof w->said - used, "%s\n", line);
}

/* From now on no file may become longer. */
static void limit_files(rlim_t bytes)
{
    struct rlimit limit;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &limit), 0);
    limit.rlim_cur = bytes;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
}

static void on_tick(void *ctx, const iso_tick *t)
{
    watcher *w = ctx;
    w->ticks++;
    if (w->fills_disk) limit_files(1000);
    assert_true(t->images_done <= t->images_total);
    assert_true(t->images_done > w->done && (!w->total || t->images_total == w->total) && t->seconds > w->seconds);
    w->done = t->images_done, w->total = t->images_total, w->seconds = t->seconds;
}

/* Images are told one batch after another, up to the last. */
static void on_part(void *ctx, const char *what, int64_t done, int64_t total)
{
    watcher *w = ctx;
    bool begins = done == 0;
    assert_true(begins ? w->part_done == w->part_total : done > w->part_done && done <= total && total == w->part_total);
    w->parts += begins;
    w->validations += begins && strcmp(what, "validating") == 0;
    w->part_done = done, w->part_total = total;
}

static void on_epoch(void *ctx, const iso_epoch *e)
{
    watcher *w = ctx;
    if (w->epochs < 64) w->row[w->epochs++] = *e;
}

static bool on_stop(void *ctx)
{
    const watcher *w = ctx;
    if (w->stop_validation && w->validations == w->stop_validation && w->part_done < w->part_total) return true;
    if (w->stop_epoch && w->epochs == w->stop_epoch) return true;
    return w->stop_at && w->ticks >= w->stop_at;
}

static iso_watch watch(watcher *w)
{
    *w = (watcher){0};
    return (iso_watch){.ctx = w, .say = on_say, .tick = on_tick, .part = on_part, .epoch = on_epoch, .stop = on_stop};
}

static char *place(const char *name)
{
    char *path = iso_path_join(folder, name);
    assert_non_null(path);
    return path;
}

static iso_train_spec image_spec(const char *path, watcher *w)
{
    return (iso_train_spec){
        .net = {.arch = ISO_ARCH_CELEBA, .width = 2, .latent = 3},
        .method = "isometric", .alpha = 10, .kl_weight = 1, .sigma_rule = ISO_SIGMA_OPTIMAL, .mirror = true,
        .run = {.path = path, .epochs = 4, .batch = 8, .lr = 1e-3, .eta = 0.2, .seed = 11, .threads = 1, .watch = watch(w)},
    };
}

static iso_train_spec mlp_spec(const char *path, watcher *w)
{
    iso_train_spec s = image_spec(path, w);
    s.net = (iso_net){.arch = ISO_ARCH_MLP, .latent = 3, .layers = 3, .size = {3, 8, MLP_DIM}, .act = "softplus", .out = "linear"};
    s.mirror = false;
    return s;
}

static void must_train(const iso_train_spec *spec, const iso_train_data *data)
{
    iso_error err = {0};
    if (iso_train(spec, data, &err) != ISO_OK) fail_msg("%s", err.message);
}

static void must_flow(const iso_flow_spec *spec, const iso_train_data *data)
{
    iso_error err = {0};
    if (iso_train_flow(spec, data, &err) != ISO_OK) fail_msg("%s", err.message);
}

/* Fails with this status and with `part` in its message. */
static void must_refuse(const iso_train_spec *spec, const iso_train_data *data, iso_status status, const char *part)
{
    iso_error err = {0};
    assert_int_equal(iso_train(spec, data, &err), status);
    if (!strstr(err.message, part)) fail_msg("\"%s\" does not say \"%s\"", err.message, part);
}

static void digest_of(const char *path, char out[33])
{
    iso_model *m = NULL;
    iso_error err = {0};
    if (iso_model_load(path, &m, &err) != ISO_OK) fail_msg("%s", err.message);
    snprintf(out, 33, "%s", iso_model_digest(m));
    iso_model_free(m);
}

static void must_agree(const char *a, const char *b)
{
    char da[33], db[33];
    digest_of(a, da);
    digest_of(b, db);
    assert_string_equal(da, db);
}

/* Every tensor of two files the same, bit for bit. */
static bool same_tensors(const char *a, const char *b)
{
    iso_st *fa = NULL, *fb = NULL;
    assert_int_equal(iso_st_load(a, &fa, NULL), ISO_OK);
    assert_int_equal(iso_st_load(b, &fb, NULL), ISO_OK);
    bool same = iso_st_count(fa) == iso_st_count(fb);
    for (int i = 0; same && i < iso_st_count(fa); i++) {
        const iso_st_tensor *ta = iso_st_at(fa, i), *tb = iso_st_find(fb, ta->name);
        same = tb && ta->count == tb->count && memcmp(ta->data, tb->data, (size_t)ta->count * sizeof(float)) == 0;
    }
    iso_st_free(fa);
    iso_st_free(fb);
    return same;
}

/* --- losses */

static void test_loss_falls(void **unused)
{
    (void)unused;
    static const struct { const char *name, *method; iso_sigma_rule rule; bool image; } cases[] = {
        {"vae-optimal", "vae", ISO_SIGMA_OPTIMAL, true},     {"iso-optimal", "isometric", ISO_SIGMA_OPTIMAL, true},
        {"flat-optimal", "flat-manifold", ISO_SIGMA_OPTIMAL, true}, {"flat-fixed", "flat-manifold", ISO_SIGMA_FIXED, false},
        {"mlp-learned", "isometric", ISO_SIGMA_LEARNED, false}, {"mlp-fixed", "vae", ISO_SIGMA_FIXED, false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        watcher w;
        char *path = place(cases[i].name);
        iso_train_spec spec = cases[i].image ? image_spec(path, &w) : mlp_spec(path, &w);
        iso_train_data data = cases[i].image ? image_data() : mlp_data();
        spec.method = cases[i].method;
        spec.sigma_rule = cases[i].rule;
        spec.sigma = 0.5;
        spec.sigma_lr = 0.01;
        spec.run.lr = 3e-3;
        spec.run.epochs = 10;
        must_train(&spec, &data);
        assert_int_equal(w.epochs, 10);
        const iso_epoch *first = &w.row[0], *last = &w.row[9];
        assert_true(last->train[ISO_TERM_LOSS] < first->train[ISO_TERM_LOSS]);
        assert_true(last->valid[ISO_TERM_LOSS] < first->valid[ISO_TERM_LOSS]);
        assert_true(first->best);
        assert_true(isfinite(last->valid[ISO_TERM_RATIO]));
        assert_int_equal(isfinite(last->train[ISO_TERM_RATIO]) != 0, strcmp(cases[i].method, "vae") != 0);
        if (cases[i].rule == ISO_SIGMA_OPTIMAL)
            assert_true(fabs(last->sigma - sqrt(last->train[ISO_TERM_MSE])) <= 1e-6);
        else
            assert_int_equal(last->sigma != 0.5, cases[i].rule == ISO_SIGMA_LEARNED);
        assert_non_null(strstr(w.said, "planned memory"));
        free(path);
    }
}

/* sum |v|^2 / n that a reported loss implies: F = E|JtJv|^2 - 2c E|Jv|^2 + c^2 E|v|^2, c = E|Jv|^2 / m. */
static double implied_probe(const double term[ISO_TERM_COUNT], double alpha, double m)
{
    double flat = (term[ISO_TERM_LOSS] - term[ISO_TERM_NLL] - term[ISO_TERM_KL]) / alpha, c = term[ISO_TERM_TRACE] / m;
    return (flat - term[ISO_TERM_TRACE2] + 2 * c * term[ISO_TERM_TRACE]) / (c * c);
}

/* The loss holds the flat-manifold term of the batch, or pooled over all validation images, whose probes stay the same; and
 * training resumes bit for bit. */
static void test_flat_manifold(void **unused)
{
    (void)unused;
    enum { EPOCHS = 5 };
    watcher w;
    iso_error err = {0};
    iso_train_data data = mlp_data();
    char *a = place("flat"), *b = place("flat-resumed"), *as = iso_format("%s.state", a), *bs = iso_format("%s.state", b);
    iso_train_spec spec = mlp_spec(a, &w);
    double first = 0;
    for (int batch = 2; batch <= 21; batch += 19) { /* 21: one step an epoch, one validation batch; 2: a last one of one image */
        spec = mlp_spec(a, &w);
        spec.method = "flat-manifold";
        spec.alpha = 1e6; /* the term is nearly all of the loss, so that it can be read off */
        spec.run.batch = batch;
        spec.run.epochs = EPOCHS;
        spec.run.force = true;
        must_train(&spec, &data);
        assert_int_equal(w.epochs, EPOCHS);
        assert_true(w.row[EPOCHS - 1].valid[ISO_TERM_LOSS] < w.row[0].valid[ISO_TERM_LOSS]);
        for (int i = 0; i < EPOCHS; i++) {
            double valid = implied_probe(w.row[i].valid, spec.alpha, 3), train = implied_probe(w.row[i].train, spec.alpha, 3);
            if (i == 0) first = valid;
            assert_true(fabs(valid / first - 1) <= 1e-3 && valid > 0.3 && valid < 12);
            assert_true(fabs(valid - 3) > 0.05); /* deliberately wrong: the expectation for the probes' own */
            assert_true(batch == 2 || (train > 0.3 && train < 12));
            const double *t = w.row[i].valid;
            assert_true(fabs(t[ISO_TERM_RATIO] - t[ISO_TERM_TRACE2] / (t[ISO_TERM_TRACE] * t[ISO_TERM_TRACE])) <= 1e-12);
        }
    }
    static const int stops[] = {1, 2, 0};
    for (int i = 0; i < 3; i++) {
        spec.run.path = b;
        spec.run.force = false;
        spec.run.resume = i > 0;
        spec.run.watch = watch(&w);
        w.stop_at = stops[i];
        assert_int_equal(iso_train(&spec, &data, &err), stops[i] ? ISO_E_INTERRUPTED : ISO_OK);
    }
    must_agree(a, b);
    assert_true(same_tensors(as, bs));
    spec.method = "isometric";
    spec.run.epochs++;
    must_refuse(&spec, &data, ISO_E_ARGUMENT, "--method flat-manifold, now it is isometric");
    spec.method = "flat-manifold";
    spec.alpha = -1;
    must_refuse(&spec, &data, ISO_E_ARGUMENT, "--alpha");
    spec.alpha = 1;
    spec.sigma_rule = ISO_SIGMA_FIXED;
    for (int i = 0; i < 5; i++) {
        spec.sigma = (const double[]){0, 1e-300, 1e30, NAN, -1}[i];
        must_refuse(&spec, &data, ISO_E_ARGUMENT, "--sigma must be from 1e-06 to 1e+06");
    }
    free(a), free(b), free(as), free(bs);
}

static int count_char(const char *text, char c)
{
    int n = 0;
    for (; *text; text++) n += *text == c;
    return n;
}

/* The files beside the model, and a batch that is larger than the data. */
static void test_files(void **unused)
{
    (void)unused;
    watcher w;
    char *path = place("a file with\nodd name"), *csv = iso_format("%s.csv", path), *text = NULL;
    size_t size = 0;
    iso_train_data data = mlp_data();
    iso_train_spec spec = mlp_spec(path, &w);
    spec.run.batch = 1000;
    must_train(&spec, &data);
    assert_non_null(strstr(w.said, "shrinks"));
    assert_int_equal(w.ticks, 4);
    assert_int_equal(iso_file_read(csv, 1 << 20, &text, &size, NULL), ISO_OK);
    assert_int_equal(strlen(text), size);
    assert_int_equal(count_char(text, '\n'), 5);
    assert_int_equal(count_char(text, ','), 5 * 20);
    assert_memory_equal(text, "epoch,", 6);
    iso_model *m = NULL;
    assert_int_equal(iso_model_load(path, &m, NULL), ISO_OK);
    assert_string_equal(iso_model_meta(m, "method"), "isometric");
    assert_string_equal(iso_model_meta(m, "lr"), "0.001");
    assert_non_null(strstr(iso_model_meta(m, "history"), "\"val_loss\""));
    iso_model_free(m);
    free(text);
    free(csv);
    free(path);
}

/* --- resuming */

static void test_resume(void **unused)
{
    (void)unused;
    watcher w;
    iso_error err = {0};
    iso_train_data data = image_data();
    char *a = place("straight"), *b = place("resumed"), *c = place("interrupted"), *d = place("other");
    char *as = iso_format("%s.state", a), *bs = iso_format("%s.state", b), *cs = iso_format("%s.state", c);
    char *ds = iso_format("%s.state", d);
    iso_train_spec spec = image_spec(a, &w);
    must_train(&spec, &data);

    spec = image_spec(b, &w);
    spec.run.epochs = 2;
    must_train(&spec, &data);
    spec = image_spec(b, &w);
    spec.run.resume = true;
    must_train(&spec, &data);
    assert_int_equal(w.epochs, 2);
    must_agree(a, b);
    assert_true(same_tensors(as, bs));

    /* After every second step, and at the end of an epoch: 21 images in batches of 8 are 2 steps an epoch. */
    static const int stops[] = {1, 1, 2, 3, 0};
    for (size_t i = 0; i < sizeof stops / sizeof stops[0]; i++) {
        spec = image_spec(c, &w);
        spec.run.resume = i > 0;
        w.stop_at = stops[i];
        iso_status status = iso_train(&spec, &data, &err);
        assert_int_equal(status, stops[i] ? ISO_E_INTERRUPTED : ISO_OK);
        if (stops[i]) assert_non_null(strstr(err.message, "--resume"));
    }
    must_agree(a, c);
    assert_true(same_tensors(as, cs));

    /* Nothing left to do is fine, too. */
    spec = image_spec(c, &w);
    spec.run.resume = true;
    must_train(&spec, &data);
    assert_int_equal(w.ticks, 0);

    /* What was begun with --force goes on without. */
    for (int forced = 0; forced < 2; forced++) {
        spec = image_spec(d, &w);
        spec.run.force = forced;
        w.stop_at = 1;
        must_refuse(&spec, &data, ISO_E_INTERRUPTED, forced ? "the same command with --resume in place of --force goes on"
                                                            : "the same command with --resume goes on");
    }
    spec.run.force = false;
    spec.run.resume = true;
    spec.run.watch = watch(&w);
    must_train(&spec, &data);
    assert_true(same_tensors(as, ds));

    spec = image_spec(d, &w); /* deliberately wrong: another eta must be seen */
    spec.run.force = true;
    spec.run.eta = 0.25;
    must_train(&spec, &data);
    assert_false(same_tensors(as, ds));
    free(a), free(b), free(c), free(d), free(as), free(bs), free(cs), free(ds);
}

/* The rows of a CSV file, less what they say of time. Free. */
static char *timeless(const char *model)
{
    char *path = iso_format("%s.csv", model), *text = NULL;
    size_t size = 0, used = 0;
    assert_int_equal(iso_file_read(path, 1 << 20, &text, &size, NULL), ISO_OK);
    for (int column = 0, i = 0; text[i]; i++) {
        column = text[i] == '\n' ? 0 : column + (text[i] == ',');
        if (column != 16 && column != 17) text[used++] = text[i];
    }
    text[used] = 0;
    free(path);
    return text;
}

/* Validation tells how far it is and can be stopped: what goes on then trains no step again, and validates as a whole. */
static void test_stopped_validation(void **unused)
{
    (void)unused;
    watcher w;
    iso_train_data data = image_data(); /* in batches of 2: 10 steps an epoch, and three batches of validation */
    char *a = place("validated"), *b = place("unvalidated"), *as = iso_format("%s.state", a), *bs = iso_format("%s.state", b);
    iso_train_spec spec = image_spec(a, &w);
    spec.run.batch = 2;
    must_train(&spec, &data);
    assert_int_equal(w.validations, 4);
    assert_int_equal(w.total, 4 * (20 + VALID));
    assert_int_equal(w.done, w.total - VALID);
    for (int i = 0; i < 4; i++) assert_true(i < 3 ? w.row[i].left > 0 : w.row[i].left == 0);

    static const struct { int validation, epoch, ticks, rows; const char *said; } runs[] = {
        {1, 0, 10, 0, "interrupted at step 10 (epoch 1, still to be validated); "}, {1, 0, 0, 0, "interrupted at step 10 (epoch 1, still to be validated); "},
        {0, 1, 0, 1, "interrupted after epoch 1 (step 10); "}, {3, 0, 30, 2, "interrupted at step 40 (epoch 4, still to be validated); "}, {0, 0, 0, 1, NULL}};
    for (size_t i = 0; i < sizeof runs / sizeof *runs; i++) {
        spec.run.path = b;
        spec.run.resume = i > 0;
        spec.run.watch = watch(&w);
        w.stop_validation = runs[i].validation, w.stop_epoch = runs[i].epoch;
        if (runs[i].said) must_refuse(&spec, &data, ISO_E_INTERRUPTED, runs[i].said);
        else must_train(&spec, &data);
        assert_int_equal(w.ticks, runs[i].ticks);
        assert_int_equal(w.epochs, runs[i].rows);
    }
    must_agree(a, b);
    assert_true(same_tensors(as, bs));
    char *one = timeless(a), *other = timeless(b);
    assert_string_equal(one, other);
    free(one), free(other), free(a), free(b), free(as), free(bs);
}

/* The clock of the steps runs from before the first of them. */
static void test_pace(void **unused)
{
    (void)unused;
    watcher w;
    iso_train_data data = image_data();
    char *path = place("pace");
    iso_train_spec spec = image_spec(path, &w);
    w.stop_at = 1;
    must_refuse(&spec, &data, ISO_E_INTERRUPTED, "interrupted at step 1 (epoch 1); ");
    assert_true(w.seconds > 1e-4);
    free(path);
}

/* What lies where the best model was is not taken for it: another model, something else, nothing. */
static void test_replaced_model(void **unused)
{
    (void)unused;
    static const char *const said[] = {"was replaced by another file", "was replaced by another file", "is gone"};
    watcher w;
    iso_train_data data = mlp_data();
    char *path = place("replaced"), *other = place("replacing");
    for (size_t i = 0; i < sizeof said / sizeof *said; i++) {
        iso_train_spec spec = mlp_spec(other, &w);
        spec.run.force = true;
        spec.run.seed = 12;
        must_train(&spec, &data);
        spec = mlp_spec(path, &w);
        spec.run.force = true;
        must_train(&spec, &data);
        if (i == 0) assert_int_equal(rename(other, path), 0);
        else if (i == 1) assert_int_equal(truncate(path, 100), 0);
        else assert_int_equal(unlink(path), 0);
        spec.run.force = false;
        spec.run.resume = true;
        must_refuse(&spec, &data, ISO_E_MISMATCH, said[i]);
        must_refuse(&spec, &data, ISO_E_MISMATCH, "all 4 epochs are done: raise --epochs, or start anew with --force");
        spec.run.schedule = ISO_SCHEDULE_COSINE;
        must_refuse(&spec, &data, ISO_E_ARGUMENT, "--schedule");
        spec.run.schedule = ISO_SCHEDULE_CONSTANT;
        spec.run.epochs = 5;
        spec.run.watch = watch(&w);
        must_train(&spec, &data);
        assert_non_null(strstr(w.said, said[i]));
        assert_true(w.epochs == 1 && w.row[0].best);
        spec.run.watch = watch(&w); /* now it is the best one */
        must_train(&spec, &data);
        assert_non_null(strstr(w.said, "nothing to do"));
        assert_null(strstr(w.said, said[i]));
    }
    free(path), free(other);
}

/* What --resume cannot go on with is known before there are images, but for what is known of these alone. */
static void must_not_go_on(const iso_train_spec *spec, iso_status status, const char *part)
{
    iso_error err = {0};
    assert_int_equal(iso_train_check(spec, &err), status);
    if (!strstr(err.message, part)) fail_msg("\"%s\" does not say \"%s\"", err.message, part);
}

static void test_checked_early(void **unused)
{
    (void)unused;
    watcher w;
    iso_error err = {0};
    iso_train_data data = image_data();
    char *path = place("early"), *flat = place("early-flow"), *other = place("early-other"), *state = iso_format("%s.state", path);
    iso_train_spec spec = image_spec(path, &w);
    must_train(&spec, &data);
    spec.run.resume = true;
    assert_int_equal(iso_train_check(&spec, &err), ISO_OK);
    spec.alpha = 20;
    must_not_go_on(&spec, ISO_E_ARGUMENT, "--alpha 10, now it is 20");
    spec.alpha = 10;
    spec.run.warmup = 5;
    must_not_go_on(&spec, ISO_E_ARGUMENT, "trained without --warmup 5");
    spec.run.warmup = 0;
    spec.method = "magic";
    must_not_go_on(&spec, ISO_E_ARGUMENT, "magic");
    spec.method = "isometric";

    iso_model *model = NULL;
    assert_int_equal(iso_model_load(path, &model, NULL), ISO_OK);
    iso_flow_spec flow = {.model = model, .beta = 1, .depth = 2, .length = 4,
                          .run = {.path = flat, .epochs = 1, .batch = 8, .lr = 1e-3, .eta = 0.2, .threads = 1, .watch = watch(&w)}};
    must_flow(&flow, &data);
    flow.run.resume = true;
    assert_int_equal(iso_flow_check(&flow, &err), ISO_OK);
    flow.beta = 2;
    assert_int_equal(iso_flow_check(&flow, &err), ISO_E_ARGUMENT);
    assert_non_null(strstr(err.message, "--beta 1, now it is 2"));
    iso_model_free(model);

    assert_int_equal(rename(path, other), 0);
    must_not_go_on(&spec, ISO_E_MISMATCH, "is gone");
    spec.run.epochs++; /* the best is looked for anew */
    assert_int_equal(iso_train_check(&spec, &err), ISO_OK);
    assert_int_equal(truncate(state, 1000), 0);
    must_not_go_on(&spec, ISO_E_FORMAT, "early.state");
    free(path), free(flat), free(other), free(state);
}

/* Gives one item of a state's metadata another value; NULL: takes it away. */
static void change_state(const char *path, const char *key, const char *value)
{
    iso_error err = {0};
    iso_st *f = NULL;
    iso_st_meta_pair pair[64];
    iso_st_out tensor[64];
    int pairs = 0, tensors = 0, found = 0;
    assert_int_equal(iso_st_load(path, &f, &err), ISO_OK);
    assert_true(iso_st_meta_count(f) <= 64 && iso_st_count(f) <= 64);
    for (int i = 0; i < iso_st_meta_count(f); i++) {
        const char *name = iso_st_meta_key(f, i);
        bool here = strcmp(name, key) == 0;
        found += here;
        if (!here || value) pair[pairs++] = (iso_st_meta_pair){name, here ? value : iso_st_meta(f, name)};
    }
    assert_int_equal(found, 1);
    for (; tensors < iso_st_count(f); tensors++) {
        const iso_st_tensor *x = iso_st_at(f, tensors);
        iso_shape shape = {.ndim = x->ndim};
        for (int d = 0; d < x->ndim; d++) shape.dim[d] = x->dim[d];
        tensor[tensors] = (iso_st_out){x->name, shape, (const float *)x->data};
    }
    assert_int_equal(iso_st_save(path, tensors, tensor, pairs, pair, &err), ISO_OK);
    iso_st_free(f);
}

/* A state of a run that began before ISO_TERM_ACCURACY was summed, or before the best model's digest was kept, is gone on with; one that lacks
 * another sum is damaged. */
static void test_older_state(void **unused)
{
    (void)unused;
    watcher w;
    iso_error err = {0};
    iso_train_data data = mlp_data();
    char *a = place("newer"), *b = place("older"), *as = iso_format("%s.state", a), *bs = iso_format("%s.state", b);
    iso_train_spec spec = mlp_spec(a, &w);
    must_train(&spec, &data);
    for (int t = ISO_TERM_ACCURACY; t >= ISO_TERM_LOSS; t -= ISO_TERM_ACCURACY - ISO_TERM_LOSS) {
        char gone[16];
        spec = mlp_spec(b, &w);
        spec.run.epochs = 2;
        spec.run.force = true;
        must_train(&spec, &data);
        snprintf(gone, sizeof gone, "sum.%d", t);
        change_state(bs, gone, NULL);
        spec = mlp_spec(b, &w);
        spec.run.resume = true;
        assert_int_equal(iso_train(&spec, &data, &err), t == ISO_TERM_ACCURACY ? ISO_OK : ISO_E_FORMAT);
        if (t == ISO_TERM_ACCURACY) {
            must_agree(a, b);
            assert_true(same_tensors(as, bs));
        }
    }
    spec = mlp_spec(b, &w);
    spec.run.force = true;
    spec.run.epochs = 2;
    must_train(&spec, &data);
    change_state(bs, "model", NULL);
    spec = mlp_spec(b, &w);
    spec.run.resume = true;
    must_train(&spec, &data);
    must_agree(a, b);
    free(a), free(b), free(as), free(bs);
}

/* Counters that no run leaves: two steps an epoch, two epochs. */
static void test_counters(void **unused)
{
    (void)unused;
    static const struct { const char *key, *value, *was; } bad[] = {
        {"step", "9223372036854775807", "4"}, {"step", "9223372036854775806", "4"}, {"step", "3", "4"},
        {"step", "0", "4"},                   {"epoch", "9223372036854775807", "2"}, {"epoch", "4611686018427387906", "2"},
        {"epoch", "1", "2"},                  {"position", "9223372036854775807", "0"}, {"position", "1", "0"},
        {"position", "2", "0"},               {"best_epoch", "3", "2"},             {"best_epoch", "9223372036854775807", "2"},
        {"best_epoch", "0", "2"},             {"best", "inf", NULL},
    };
    watcher w;
    iso_train_data data = mlp_data();
    char *path = place("counters"), *state = iso_format("%s.state", path);
    iso_train_spec spec = mlp_spec(path, &w);
    spec.run.epochs = 2;
    must_train(&spec, &data);
    assert_int_equal(w.row[1].best, 1);
    spec.run.resume = true;
    spec.run.epochs = 4;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        change_state(state, bad[i].key, bad[i].value);
        must_refuse(&spec, &data, ISO_E_FORMAT, "no usable training state (counters): start anew with --force");
        if (bad[i].was) change_state(state, bad[i].key, bad[i].was);
    }
    spec.run.resume = false;
    spec.run.force = true;
    spec.run.epochs = 2;
    must_train(&spec, &data);
    /* As many epochs as there are numbers: nothing is left to do, and nothing overflows. */
    spec.run.force = false;
    spec.run.resume = true;
    change_state(state, "step", "9223372036854775806");
    change_state(state, "epoch", "4611686018427387903");
    must_train(&spec, &data);
    assert_int_equal(w.ticks, 8);
    free(path), free(state);
}

static void test_refusals(void **unused)
{
    (void)unused;
    watcher w;
    iso_train_data data = mlp_data();
    char *path = place("refusals"), *state = iso_format("%s.state", path);
    iso_train_spec spec = mlp_spec(path, &w);
    spec.run.resume = true;
    must_refuse(&spec, &data, ISO_E_ARGUMENT, "no ");
    spec.run.resume = false;
    spec.run.epochs = 1;
    must_train(&spec, &data);
    must_refuse(&spec, &data, ISO_E_ARGUMENT, "--force");
    spec.run.resume = true;
    spec.run.epochs = 2;
    spec.alpha = 20;
    must_refuse(&spec, &data, ISO_E_ARGUMENT, "--alpha 10, now it is 20");
    spec.alpha = 10;
    spec.net.size[1] = 9;
    must_refuse(&spec, &data, ISO_E_ARGUMENT, "--arch");
    spec.net.size[1] = 8;
    values[3] ^= 1;
    must_refuse(&spec, &data, ISO_E_ARGUMENT, "images");
    values[3] ^= 1;
    must_train(&spec, &data);

    /* A state file cut short, and one that is a model. */
    assert_int_equal(truncate(state, 1000), 0);
    spec.run.epochs = 3;
    iso_error err = {0};
    assert_int_equal(iso_train(&spec, &data, &err), ISO_E_FORMAT);
    assert_int_equal(rename(path, state), 0);
    must_refuse(&spec, &data, ISO_E_FORMAT, "--force");
    spec.run.resume = false;
    spec.run.force = true;
    must_train(&spec, &data);

    spec.run.path = "/nonexistent/folder/model";
    assert_int_equal(iso_train(&spec, &data, &err), ISO_E_IO);
    spec.run.path = path;
    static const char *const folders[] = {"", ".state", ".csv"}; /* each is found before the first step */
    for (size_t i = 0; i < sizeof folders / sizeof *folders; i++) {
        char *model = place("a folder"), *dir = iso_format("%s%s", model, folders[i]);
        assert_int_equal(mkdir(dir, 0755), 0);
        spec.run.path = model;
        assert_int_equal(iso_run_check(&spec.run, &err), ISO_E_IO);
        assert_non_null(strstr(err.message, "it is a folder"));
        assert_int_equal(rmdir(dir), 0);
        assert_int_equal(iso_run_check(&spec.run, &err), ISO_OK);
        spec.run.path = path;
        free(model), free(dir);
    }
    spec.method = "magic";
    must_refuse(&spec, &data, ISO_E_ARGUMENT, "magic");
    spec.method = "vae";
    spec.run.lr = NAN;
    must_refuse(&spec, &data, ISO_E_ARGUMENT, "--lr");
    spec.run.lr = 1e-3;
    data.train_count = 0;
    must_refuse(&spec, &data, ISO_E_ARGUMENT, "no training images");
    data = image_data();
    must_refuse(&spec, &data, ISO_E_ARGUMENT, "12288");
    free(path), free(state);
}

/* A full disk: the system refuses to write more than some bytes. */
static void test_full_disk(void **unused)
{
    (void)unused;
    watcher w;
    iso_error err = {0};
    struct rlimit old;
    iso_train_data data = mlp_data();
    char *path = place("full"), *state = iso_format("%s.state", path);
    iso_train_spec spec = mlp_spec(path, &w);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    void (*before)(int) = signal(SIGXFSZ, SIG_IGN);
    limit_files(1000);
    iso_status status = iso_train(&spec, &data, &err);
    limit_files(old.rlim_cur);
    assert_int_equal(status, ISO_E_IO);
    assert_non_null(strstr(err.message, "full.state"));
    assert_non_null(strstr(err.message, "; make room or choose another place, then start again"));
    assert_int_equal(w.ticks, 0); /* found before the first step */
    assert_int_not_equal(access(state, F_OK), 0);

    /* Later there is a state to go on with, in the same place. */
    for (int forced = 0; forced < 2; forced++) {
        spec.run.watch = watch(&w);
        spec.run.force = forced;
        w.stop_at = 1;
        w.fills_disk = true;
        status = iso_train(&spec, &data, &err);
        limit_files(old.rlim_cur);
        assert_int_equal(status, ISO_E_IO);
        assert_int_equal(w.ticks, 1);
        const char *advice = strstr(err.message, "; make room, then go on with --resume");
        assert_non_null(advice);
        assert_int_equal(strstr(advice, " in place of --force") != NULL, forced);
        spec.run.watch = watch(&w);
        spec.run.force = false;
        spec.run.resume = true;
        must_train(&spec, &data);
        spec.run.resume = false;
    }
    signal(SIGXFSZ, before);
    free(path), free(state);
}

static void test_not_finite(void **unused)
{
    (void)unused;
    watcher w;
    iso_train_data data = mlp_data();
    char *path = place("at-once"), *kept = place("kept"), *one = place("one");
    iso_train_spec spec = mlp_spec(path, &w);
    spec.run.lr = 1e30;
    must_refuse(&spec, &data, ISO_E_NUMERIC, "step 2 ");
    assert_int_not_equal(access(path, F_OK), 0);
    spec.run.force = true;
    must_refuse(&spec, &data, ISO_E_NUMERIC, "there is no model yet (");
    spec.run.lr = 1e-3;
    must_train(&spec, &data);
    spec.run.lr = 1e30;
    must_refuse(&spec, &data, ISO_E_NUMERIC, "the model there is an earlier one (");

    /* log sigma falls by 30: the first epoch's figures are huge but finite, the second's gradients overflow. */
    spec = mlp_spec(one, &w);
    spec.sigma_rule = ISO_SIGMA_LEARNED;
    spec.sigma = 1;
    spec.sigma_lr = 30;
    spec.run.batch = 21;
    spec.run.epochs = 1;
    must_train(&spec, &data);
    spec.run.path = kept;
    spec.run.epochs = 50;
    must_refuse(&spec, &data, ISO_E_NUMERIC, "step ");
    must_refuse(&spec, &data, ISO_E_ARGUMENT, "exists");
    must_agree(one, kept);
    free(path), free(kept), free(one);
}

/* --- the flow */

static void test_flow(void **unused)
{
    (void)unused;
    watcher w;
    iso_error err = {0};
    iso_train_data data = image_data();
    char *base = place("base"), *a = place("flow-a"), *b = place("flow-b"), *c = place("flow-c");
    char *as = iso_format("%s.state", a), *bs = iso_format("%s.state", b);
    iso_train_spec spec = image_spec(base, &w);
    spec.method = "vae";
    spec.run.lr = 3e-3;
    must_train(&spec, &data);
    iso_model *model = NULL, *flat = NULL;
    assert_int_equal(iso_model_load(base, &model, NULL), ISO_OK);

    iso_flow_spec flow = {.model = model, .beta = 0.1, .depth = 4, .length = 8,
                          .run = {.path = a, .epochs = 6, .batch = 8, .lr = 1e-2, .eta = 0.2, .seed = 3, .threads = 1,
                                  .watch = watch(&w)}};
    must_flow(&flow, &data);
    assert_int_equal(w.epochs, 7); /* with epoch 0 */
    assert_int_equal(w.validations, 7);
    assert_int_equal(w.parts, 9); /* with the codes of either kind */
    assert_int_equal(w.total, 6 * (16 + VALID));
    assert_int_equal(w.row[0].epoch, 0);
    assert_true(w.row[6].valid[ISO_TERM_LOSS] < w.row[0].valid[ISO_TERM_LOSS]);

    assert_int_equal(iso_model_load(a, &flat, NULL), ISO_OK);
    for (int i = 0; i < iso_model_count(model); i++) {
        int k = iso_model_find(flat, iso_model_name(model, i));
        iso_shape shape = iso_model_shape(model, i);
        assert_true(k >= 0);
        assert_memory_equal(iso_model_data_const(flat, k), iso_model_data_const(model, i),
                            (size_t)iso_shape_count(&shape) * sizeof(float));
    }
    assert_string_equal(iso_model_meta(flat, "method"), "vae");
    assert_string_equal(iso_model_meta(flat, "flow.beta"), "0.1");

    static const int stops[] = {3, 2, 0};
    for (int i = 0; i < 3; i++) {
        flow.run.path = b;
        flow.run.watch = watch(&w);
        flow.run.resume = i > 0;
        /* The encoding before the first step asks, too, but no step is done then. */
        w.stop_at = stops[i];
        assert_int_equal(iso_train_flow(&flow, &data, &err), stops[i] ? ISO_E_INTERRUPTED : ISO_OK);
    }
    must_agree(a, b);
    assert_true(same_tensors(as, bs));

    flow.run.path = c; /* in batches of 2 the validation before the first step can be stopped: nothing is there then */
    flow.run.batch = 2;
    flow.run.resume = false;
    flow.run.watch = watch(&w);
    w.stop_validation = 1;
    assert_int_equal(iso_train_flow(&flow, &data, &err), ISO_E_INTERRUPTED);
    assert_string_equal(err.message, "interrupted before the first step: nothing is lost, start again with the same command");
    assert_true(w.ticks == 0 && w.epochs == 0);
    w.stop_validation = 0, w.part_done = w.part_total;
    must_flow(&flow, &data);

    flow.model = flat;
    assert_int_equal(iso_train_flow(&flow, &data, &err), ISO_E_ARGUMENT);
    assert_non_null(strstr(err.message, "has a flow"));
    iso_model_free(model);
    iso_model_free(flat);
    free(base), free(a), free(b), free(c), free(as), free(bs);
}

/* --- the folder */

static int set_up(void **unused)
{
    (void)unused;
    const char *tmp = getenv("TMPDIR");
    snprintf(folder, sizeof folder, "%s/isoface-train-XXXXXX", tmp && *tmp ? tmp : "/tmp");
    draw_images();
    return mkdtemp(folder) ? 0 : -1;
}

static int tear_down(void **unused)
{
    (void)unused;
    DIR *d = opendir(folder);
    if (!d) return -1;
    for (struct dirent *e; (e = readdir(d));) {
        char *path = iso_path_join(folder, e->d_name);
        if (path && strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0) unlink(path);
        free(path);
    }
    closedir(d);
    return rmdir(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_loss_falls), cmocka_unit_test(test_flat_manifold),
        cmocka_unit_test(test_files),   cmocka_unit_test(test_older_state), cmocka_unit_test(test_counters),
        cmocka_unit_test(test_resume),  cmocka_unit_test(test_stopped_validation), cmocka_unit_test(test_pace), cmocka_unit_test(test_checked_early), cmocka_unit_test(test_replaced_model), cmocka_unit_test(test_refusals),   cmocka_unit_test(test_not_finite),
        cmocka_unit_test(test_full_disk), cmocka_unit_test(test_flow),
    };
    return cmocka_run_group_tests_name("train", tests, set_up, tear_down);
}
