/* Training: losses that fall, the files, NaNs, a full disk, the flow, and everything a user may get wrong. */
#include "tests/train_common.h"

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
        spec.run.force = true;
        for (int repeated = 1; repeated >= 0; repeated--) { /* a command that goes on by itself */
            spec.run.watch = watch(&w);
            spec.run.repeated = repeated;
            w.stop_at = 1;
            w.fills_disk = true;
            assert_int_equal(iso_train(&spec, &data, &err), ISO_E_IO);
            limit_files(old.rlim_cur);
            assert_int_equal(strstr(err.message, "; make room, then repeat the command without --force") != NULL, repeated);
        }
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

/* A decoder whose image does not depend on the code has no R. What helps depends on who made it so. */
static void test_dead(void **unused)
{
    (void)unused;
    watcher w;
    iso_error err = {0};
    iso_train_data data = image_data();
    char *path = place("dead"), *base = place("living"), *flat = place("dead-flow");
    iso_train_spec spec = image_spec(path, &w);
    spec.run.seed = 5;
    must_refuse(&spec, &data, ISO_E_NUMERIC, "Jacobian is zero; no epoch was finished, so there is no model yet (");
    spec.run.force = true;
    must_refuse(&spec, &data, ISO_E_NUMERIC, "; try a larger --width, another --seed or a smaller --lr");

    spec = image_spec(base, &w);
    must_train(&spec, &data);
    iso_model *model = NULL;
    assert_int_equal(iso_model_load(base, &model, NULL), ISO_OK);
    iso_flow_spec flow = {.model = model, .beta = 0.1, .depth = 4, .length = 8,
                          .run = {.path = flat, .epochs = 6, .batch = 8, .lr = 100, .eta = 0.2, .seed = 3, .threads = 1, .watch = watch(&w)}};
    assert_int_equal(iso_train_flow(&flow, &data, &err), ISO_E_NUMERIC); /* the flow leads out of where the decoder changes */
    assert_non_null(strstr(err.message, "Jacobian is zero"));
    assert_non_null(strstr(err.message, "; try a smaller --lr"));
    assert_null(strstr(err.message, "--width"));
    int last = iso_model_find(model, "decoder.9.weight");
    iso_shape shape = iso_model_shape(model, last);
    memset(iso_model_data(model, last), 0, (size_t)iso_shape_count(&shape) * sizeof(float));
    flow.run.lr = 1e-3;
    flow.run.force = true;
    flow.run.watch = watch(&w);
    assert_int_equal(iso_train_flow(&flow, &data, &err), ISO_E_NUMERIC);
    assert_non_null(strstr(err.message, "Jacobian is zero"));
    assert_non_null(strstr(err.message, "; try another --model"));
    data.valid_count = 0; /* found by the first step, before it has changed anything */
    flow.run.watch = watch(&w);
    assert_int_equal(iso_train_flow(&flow, &data, &err), ISO_E_NUMERIC);
    assert_non_null(strstr(err.message, "step 1 (epoch 1): the isometric term R is NaN, for the decoder's Jacobian is zero"));
    assert_non_null(strstr(err.message, "; try another --model"));
    iso_model_free(model);
    free(path), free(base), free(flat);
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_loss_falls), cmocka_unit_test(test_flat_manifold), cmocka_unit_test(test_files),
        cmocka_unit_test(test_refusals),   cmocka_unit_test(test_not_finite),    cmocka_unit_test(test_full_disk),
        cmocka_unit_test(test_dead),
        cmocka_unit_test(test_flow),
    };
    return cmocka_run_group_tests_name("train", tests, set_up, tear_down);
}
