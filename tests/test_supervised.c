/* test_supervised.c: training with labels: the loss and its gradients, the terms, resuming, and labels kept from all else. */
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/memory.h"
#include "model/method/method.h"
#include "model/net/net.h"
#include "model/philox.h"
#include "model/train.h"
#include "tests/check.h"
#include "tests/folder.h"

enum { IMAGES = 30, VALID = 9, CLASSES = 3 };

static const uint64_t seed = 23;
static char folder[512];
static uint8_t pixels[IMAGES * ISO_PIXELS], labels[IMAGES * CLASSES];
static int64_t rows[IMAGES];
static iso_error err;

/* A disc on a ground; the attributes: a bright disc, a large one, and one that nobody has. */
static int set_up(void **unused)
{
    (void)unused;
    for (int i = 0; i < IMAGES; i++) {
        float u[6];
        iso_draw_uniform((iso_draw){seed, 1, (uint64_t)i}, 0, 1, 6, u);
        for (int y = 0; y < ISO_SIDE; y++)
            for (int x = 0; x < ISO_SIDE; x++) {
                float dx = (float)x / ISO_SIDE - 0.3f - 0.4f * u[0], dy = (float)y / ISO_SIDE - 0.3f - 0.4f * u[1];
                bool inside = dx * dx + dy * dy < 0.02f + 0.15f * u[2];
                for (int c = 0; c < 3; c++)
                    pixels[((i * ISO_SIDE + y) * ISO_SIDE + x) * 3 + c] = (uint8_t)(inside ? 255 * u[3] : 128 * u[4]);
            }
        labels[i * CLASSES] = u[3] > 0.5f;
        labels[i * CLASSES + 1] = u[2] > 0.5f;
        labels[i * CLASSES + 2] = 0;
        rows[i] = i;
    }
    return make_folder(folder, sizeof folder, "supervised") ? 0 : -1;
}

static int tear_down(void **unused)
{
    (void)unused;
    return remove_files(folder) ? 0 : -1;
}

static iso_train_data labelled(void)
{
    return (iso_train_data){.pixels = pixels, .dim = ISO_PIXELS, .train = rows, .valid = rows + IMAGES - VALID,
                            .train_count = IMAGES - VALID, .valid_count = VALID, .labels = labels, .classes = CLASSES,
                            .attributes = "Bright Large Green"};
}

/* --- the loss */

/* Of logits at which the plain formula has long broken down, the loss and its gradient (sigmoid(l) - y) / n. */
static void cross_entropy(void **state)
{
    (void)state;
    enum { N = 7 };
    static const double logit[N] = {-1000, -90, -1.5, 0, 0.25, 40, 1000};
    for (int k = 0; k < 4; k++) { /* either backend, either label */
        const iso_backend *backend = k & 1 ? iso_backend_cpu() : iso_backend_reference();
        double y = k >> 1, labels_in[N], gradient[N], loss, want = 0, naive = 0;
        iso_graph *g = iso_graph_create();
        iso_vars *vars = NULL;
        iso_plan *plan = NULL;
        iso_node l = iso_input(g, "l", iso_shape2(N, 1)), t = iso_input(g, "y", iso_shape2(N, 1));
        iso_node out[2] = {iso_cross_entropy(g, l, t)};
        out[1] = iso_vjp1(g, out[0], l, iso_one(g));
        assert_int_equal(iso_graph_check(g, &err), ISO_OK);
        assert_int_equal(iso_vars_create(backend, &vars, &err), ISO_OK);
        iso_plan_spec spec = {.vars = vars, .outputs = out, .output_count = 2, .threads = 1};
        if (iso_plan_create(g, &spec, &plan, &err)) fail_msg("%s", err.message);
        for (int i = 0; i < N; i++) labels_in[i] = y;
        assert_int_equal(iso_plan_write_f64(plan, l, logit, N, &err), ISO_OK);
        assert_int_equal(iso_plan_write_f64(plan, t, labels_in, N, &err), ISO_OK);
        iso_plan_run(plan);
        assert_int_equal(iso_plan_read_f64(plan, out[0], &loss, 1, &err), ISO_OK);
        assert_int_equal(iso_plan_read_f64(plan, out[1], gradient, N, &err), ISO_OK);
        for (int i = 0; i < N; i++) {
            double miss = y > 0 ? -logit[i] : logit[i], p = 1 / (1 + exp(-logit[i]));
            want += (miss > 0 ? miss + log1p(exp(-miss)) : log1p(exp(miss))) / N;
            naive += -(y > 0 ? log(p) : log(1 - p)) / N;
            assert_true(fabs(gradient[i] - (p - y) / N) <= 1e-6);
        }
        assert_true(fabs(loss - want) <= 1e-6 * want);
        assert_false(fabs(naive - want) <= 1e-6 * want); /* deliberately wrong: the formula as it is written */
        iso_plan_free(plan);
        iso_vars_free(vars);
        iso_graph_free(g);
    }
}

/* The whole step on the reference backend, in double: its plan, with the parameters of a fresh model. */
typedef struct rig {
    iso_net net;
    iso_model *model;
    iso_graph *g;
    iso_vars *vars;
    iso_plan *plan;
    iso_node x, y, code;
    iso_supervised s;
    iso_node gradient[12];
} rig;

enum { BATCH = 2 };

static rig make_rig(void)
{
    rig r = {.net = {.arch = ISO_ARCH_CELEBA, .width = 1, .latent = 3, .classes = CLASSES}};
    if (iso_model_create(&r.net, &r.model, &err) || iso_net_init(r.model, seed, &err)) fail_msg("%s", err.message);
    r.g = iso_graph_create();
    r.x = iso_input(r.g, "x", iso_shape4(BATCH, ISO_SIDE, ISO_SIDE, 3));
    r.y = iso_input(r.g, "y", iso_shape2(BATCH, CLASSES));
    r.s = iso_supervise(r.g, &r.net, r.x, r.y);
    r.code = iso_celeba_encode(r.g, &r.net, r.x); /* before it is divided by its norm */
    iso_node param[12], out[16] = {r.s.loss, r.s.accuracy, r.s.logits, r.code}, one = iso_one(r.g);
    assert_int_equal(iso_model_count(r.model), 12);
    for (int i = 0; i < 12; i++) param[i] = iso_parameter_named(r.g, iso_model_name(r.model, i), iso_model_shape(r.model, i));
    iso_vjp(r.g, 1, &r.s.loss, &one, 12, param, r.gradient);
    for (int i = 0; i < 12; i++) r.gradient[i] = iso_state_restored(r.g, param[i], r.gradient[i]);
    for (int i = 0; i < 12; i++) out[4 + i] = r.gradient[i];
    if (iso_graph_check(r.g, &err) || iso_vars_create(iso_backend_reference(), &r.vars, &err) ||
        iso_vars_add_states(r.vars, r.g, 16, out, &err) || iso_model_to_vars(r.model, r.vars, &err))
        fail_msg("%s", err.message);
    iso_plan_spec spec = {.vars = r.vars, .outputs = out, .output_count = 16, .threads = 1};
    if (iso_plan_create(r.g, &spec, &r.plan, &err)) fail_msg("%s", err.message);
    static float x[BATCH * ISO_PIXELS];
    double y[BATCH * CLASSES];
    iso_pixels_to_real(pixels, BATCH * ISO_PIXELS, x);
    for (int i = 0; i < BATCH * CLASSES; i++) y[i] = i % 2;
    assert_int_equal(iso_plan_write(r.plan, r.x, x, BATCH * ISO_PIXELS, &err), ISO_OK);
    assert_int_equal(iso_plan_write_f64(r.plan, r.y, y, BATCH * CLASSES, &err), ISO_OK);
    return r;
}

static void free_rig(rig *r)
{
    iso_plan_free(r->plan);
    iso_vars_free(r->vars);
    iso_graph_free(r->g);
    iso_model_free(r->model);
}

static double loss_of(rig *r)
{
    double loss;
    iso_plan_run(r->plan);
    assert_int_equal(iso_plan_read_f64(r->plan, r->s.loss, &loss, 1, &err), ISO_OK);
    return loss;
}

/* What stands behind the encoder, as loops. */
static void head(void **state)
{
    (void)state;
    rig r = make_rig();
    double loss = loss_of(&r), accuracy, code[BATCH * 3], want = 0, right = 0, far = 0;
    assert_int_equal(iso_plan_read_f64(r.plan, r.code, code, BATCH * 3, &err), ISO_OK);
    assert_int_equal(iso_plan_read_f64(r.plan, r.s.accuracy, &accuracy, 1, &err), ISO_OK);
    const float *w = iso_model_data_const(r.model, 10), *b = iso_model_data_const(r.model, 11);
    for (int i = 0; i < BATCH; i++) {
        const double *z = code + i * 3;
        double norm = sqrt(z[0] * z[0] + z[1] * z[1] + z[2] * z[2]);
        for (int c = 0; c < CLASSES; c++) {
            double unit = b[c], raw = b[c];
            for (int k = 0; k < 3; k++) unit += w[c * 3 + k] * z[k] / norm, raw += w[c * 3 + k] * z[k];
            int y = (i * CLASSES + c) % 2;
            want -= log(y ? 1 / (1 + exp(-unit)) : 1 / (1 + exp(unit)));
            far -= log(y ? 1 / (1 + exp(-raw)) : 1 / (1 + exp(raw)));
            right += (unit > 0) == y;
        }
    }
    assert_true(fabs(loss - want / (BATCH * CLASSES)) < 1e-9);
    assert_true(fabs(accuracy - right / (BATCH * CLASSES)) < 1e-12);
    assert_false(fabs(loss - far / (BATCH * CLASSES)) < 1e-9); /* deliberately wrong: not divided by the norm */
    free_rig(&r);
}

/* Against central differences, every parameter of the small tensors and every 13th of the others. */
static void gradients(void **state)
{
    (void)state;
    rig r = make_rig();
    double worst = 0, doubled = 0;
    loss_of(&r);
    double *exact[12];
    for (int i = 0; i < 12; i++) {
        iso_shape shape = iso_model_shape(r.model, i);
        int64_t n = iso_shape_count(&shape);
        exact[i] = calloc((size_t)n, sizeof(double));
        assert_int_equal(iso_plan_read_f64(r.plan, r.gradient[i], exact[i], n, &err), ISO_OK);
    }
    for (int i = 0; i < 12; i++) {
        const char *name = iso_model_name(r.model, i);
        iso_shape shape = iso_model_shape(r.model, i);
        int64_t n = iso_shape_count(&shape);
        float *p = iso_model_data(r.model, i);
        double size = 0;
        for (int64_t k = 0; k < n; k++) size = fmax(size, fabs(exact[i][k]));
        for (int64_t k = 0; k < n; k += n > 30 ? 13 : 1) {
            float was = p[k], up = was + 0x1p-14f, down = was - 0x1p-14f;
            double loss[2];
            for (int side = 0; side < 2; side++) {
                p[k] = side ? up : down;
                assert_int_equal(iso_vars_write(r.vars, name, p, n, &err), ISO_OK);
                loss[side] = loss_of(&r);
            }
            p[k] = was;
            double difference = (loss[1] - loss[0]) / ((double)up - (double)down);
            worst = fmax(worst, fabs(difference - exact[i][k]) / (size + 1e-9));
            doubled = fmax(doubled, fabs(difference - 2 * exact[i][k]) / (size + 1e-9));
        }
        assert_int_equal(iso_vars_write(r.vars, name, p, n, &err), ISO_OK);
        assert_true(size > 1e-12);
    }
    printf("gradients differ by %.2g of the largest\n", worst);
    assert_true(worst < 1e-4);
    assert_false(doubled < 1e-4); /* deliberately wrong */
    for (int i = 0; i < 12; i++) free(exact[i]);
    free_rig(&r);
}

/* --- training */

typedef struct watcher {
    int ticks, stop_at, epochs;
    iso_epoch row[64];
} watcher;

static void on_tick(void *ctx, const iso_tick *t)
{
    watcher *w = ctx;
    w->ticks++;
    assert_true(isfinite(t->term[ISO_TERM_LOSS]) && t->term[ISO_TERM_ACCURACY] >= 0 && t->term[ISO_TERM_ACCURACY] <= 1);
}

static void on_epoch(void *ctx, const iso_epoch *e)
{
    watcher *w = ctx;
    if (w->epochs < 64) w->row[w->epochs++] = *e;
}

static bool on_stop(void *ctx)
{
    const watcher *w = ctx;
    return w->stop_at && w->ticks >= w->stop_at;
}

static char *place(const char *name)
{
    char *path = iso_path_join(folder, name);
    assert_non_null(path);
    return path;
}

static iso_train_spec make_spec(const char *path, watcher *w)
{
    *w = (watcher){0};
    return (iso_train_spec){
        .net = {.arch = ISO_ARCH_CELEBA, .width = 2, .latent = 4, .classes = CLASSES},
        .method = "supervised", .mirror = true,
        .run = {.path = path, .epochs = 4, .batch = 8, .lr = 3e-3, .seed = 7, .threads = 1,
                .watch = {.ctx = w, .tick = on_tick, .epoch = on_epoch, .stop = on_stop}},
    };
}

static void must_train(const iso_train_spec *spec, const iso_train_data *data)
{
    if (iso_train(spec, data, &err) != ISO_OK) fail_msg("%s", err.message);
}

static void must_refuse(const iso_train_spec *spec, const iso_train_data *data, iso_status status, const char *part)
{
    assert_int_equal(iso_train(spec, data, &err), status);
    SAYS(part);
}

static iso_model *must_load(const char *path)
{
    iso_model *m = NULL;
    if (iso_model_load(path, &m, &err)) fail_msg("%s", err.message);
    return m;
}

/* The mean loss and share told right of the validation images, by a model as it was saved. */
static void check_model(const iso_model *m, double *loss, double *accuracy)
{
    iso_encoder *e = NULL;
    float v[VALID * 4];
    assert_int_equal(iso_encoder_create(m, 4, &e, &err), ISO_OK);
    assert_int_equal(iso_encoder_run(e, pixels + (IMAGES - VALID) * ISO_PIXELS, VALID, v, &err), ISO_OK);
    const float *w = iso_model_data_const(m, iso_model_find(m, "classifier.weight"));
    const float *b = iso_model_data_const(m, iso_model_find(m, "classifier.bias"));
    *loss = *accuracy = 0;
    for (int i = 0; i < VALID; i++)
        for (int c = 0; c < CLASSES; c++) {
            double l = b[c];
            int y = labels[(IMAGES - VALID + i) * CLASSES + c];
            for (int k = 0; k < 4; k++) l += w[c * 4 + k] * v[i * 4 + k];
            *loss += log1p(exp(y ? -l : l)) / (VALID * CLASSES);
            *accuracy += ((l > 0) == y) / (double)(VALID * CLASSES);
        }
    iso_encoder_free(e);
}

static void training(void **state)
{
    (void)state;
    watcher w;
    iso_train_data data = labelled();
    char *path = place("model"), *csv = iso_format("%s.csv", path), *text = NULL;
    size_t size;
    double best = INFINITY, loss, accuracy;
    int best_epoch = 0;
    iso_train_spec spec = make_spec(path, &w);
    spec.run.epochs = 40;
    spec.run.lr = 2e-2;
    must_train(&spec, &data);
    assert_int_equal(w.epochs, 40);
    for (int i = 0; i < 40; i++) {
        for (int t = 0; t < ISO_TERM_COUNT; t++) {
            bool has = t == ISO_TERM_LOSS || t == ISO_TERM_ACCURACY;
            assert_int_equal(isfinite(w.row[i].train[t]) != 0, has);
            assert_int_equal(isfinite(w.row[i].valid[t]) != 0, has);
        }
        assert_true(isnan(w.row[i].sigma));
        bool better = w.row[i].valid[ISO_TERM_LOSS] < best;
        assert_int_equal(w.row[i].best, better);
        if (better) best = w.row[i].valid[ISO_TERM_LOSS], best_epoch = i;
    }
    assert_true(w.row[39].train[ISO_TERM_LOSS] < 0.7 * w.row[0].train[ISO_TERM_LOSS]);
    assert_true(w.row[39].train[ISO_TERM_ACCURACY] > w.row[0].train[ISO_TERM_ACCURACY]);

    /* The best epoch is what the file holds, and its figures are of all validation images: 9 in batches of 8. */
    iso_model *m = must_load(path);
    check_model(m, &loss, &accuracy);
    assert_true(fabs(loss - best) < 1e-5);
    assert_true(fabs(accuracy - w.row[best_epoch].valid[ISO_TERM_ACCURACY]) < 1e-6);
    static const struct { const char *key, *value; } meta[] = {
        {"method", "supervised"}, {"arch", "celeba"}, {"classes", "3"}, {"attributes", "Bright Large Green"}, {"lr", "0.02"},
        {"mirror", "on"}, {"alpha", NULL}, {"eta", NULL}, {"kl-weight", NULL}, {"sigma", NULL}, {"sigma-lr", NULL}};
    for (size_t i = 0; i < sizeof meta / sizeof *meta; i++) {
        const char *have = iso_model_meta(m, meta[i].key);
        if (!meta[i].value) assert_null(have);
        else assert_string_equal(have, meta[i].value);
    }
    assert_non_null(strstr(iso_model_meta(m, "history"), "\"val_accuracy\":"));
    assert_null(strstr(iso_model_meta(m, "history"), "nll"));
    assert_int_equal(iso_model_find(m, "sigma"), -1);
    iso_model_free(m);

    /* Every row has every column; those that this method has not are empty. */
    assert_int_equal(iso_file_read(csv, 1 << 20, &text, &size, &err), ISO_OK);
    int lines = 0, commas = 0;
    for (const char *c = text; *c; c++) lines += *c == '\n', commas += *c == ',';
    assert_int_equal(lines, 41);
    assert_int_equal(commas, 41 * 20);
    assert_non_null(strstr(text, ",best,accuracy,val_accuracy\n"));
    double train_loss, valid_loss;
    assert_int_equal(sscanf(strchr(text, '\n') + 1, "1,2,16,%lf,,,,,,%lf,,,,,,,", &train_loss, &valid_loss), 2);
    assert_true(fabs(train_loss - w.row[0].train[ISO_TERM_LOSS]) < 1e-6 && fabs(valid_loss - w.row[0].valid[ISO_TERM_LOSS]) < 1e-6);
    free(text);

    /* Without validation images the training loss decides. */
    data.valid_count = 0;
    spec.run.epochs = 1;
    spec.run.force = true;
    must_train(&spec, &data);
    free(path), free(csv);
}

static bool same_files(const char *a, const char *b)
{
    iso_model *ma = must_load(a), *mb = must_load(b);
    bool same = strcmp(iso_model_digest(ma), iso_model_digest(mb)) == 0 &&
                strcmp(iso_model_meta(ma, "history"), iso_model_meta(mb, "history")) == 0;
    iso_model_free(ma);
    iso_model_free(mb);
    return same;
}

static void resuming(void **state)
{
    (void)state;
    watcher w;
    iso_train_data data = labelled();
    char *a = place("a"), *b = place("b"), *c = place("c");
    iso_train_spec spec = make_spec(a, &w);
    must_train(&spec, &data);
    static const int stops[] = {1, 2, 3, 0};
    for (size_t i = 0; i < sizeof stops / sizeof *stops; i++) {
        spec = make_spec(b, &w);
        spec.run.resume = i > 0;
        w.stop_at = stops[i];
        assert_int_equal(iso_train(&spec, &data, &err), stops[i] ? ISO_E_INTERRUPTED : ISO_OK);
    }
    assert_true(same_files(a, b));
    spec = make_spec(c, &w);
    labels[0] ^= 1;
    must_train(&spec, &data);
    assert_false(same_files(a, c)); /* deliberately wrong: one label is another */

    spec = make_spec(a, &w);
    spec.run.resume = true;
    spec.run.epochs = 5;
    must_refuse(&spec, &data, ISO_E_ARGUMENT, "the attributes are not those");
    labels[0] ^= 1;
    data.attributes = "Bright Large Blue";
    must_refuse(&spec, &data, ISO_E_ARGUMENT, "the attributes are not those");
    data.attributes = "Bright Large Green";
    must_train(&spec, &data);
    free(a), free(b), free(c);
}

static void errors(void **state)
{
    (void)state;
    watcher w;
    iso_train_data data = labelled(), none = data;
    char *path = place("errors");
    iso_train_spec spec = make_spec(path, &w);
    none.labels = NULL;
    must_refuse(&spec, &none, ISO_E_ARGUMENT, "needs labels");
    data.classes = 2;
    must_refuse(&spec, &data, ISO_E_ARGUMENT, "tells 3 attributes, the labels have 2");
    data = labelled();
    labels[5] = 2;
    must_refuse(&spec, &data, ISO_E_ARGUMENT, "a label is 2");
    labels[5] = 0;
    static const char *const names[] = {"Bright Large", "Bright Large Green Blue", "Bright  Large Green", ""};
    for (int i = 0; i < 4; i++) {
        data.attributes = names[i];
        must_refuse(&spec, &data, ISO_E_ARGUMENT, "should name 3 attributes");
    }
    data.attributes = "Bright Large Gr\xfcn";
    must_refuse(&spec, &data, ISO_E_ARGUMENT, "UTF-8");
    data = labelled();
    spec.net.classes = 0;
    must_refuse(&spec, &data, ISO_E_ARGUMENT, "tells attributes");
    spec.mirror = false;
    spec.net = (iso_net){.arch = ISO_ARCH_MLP, .latent = 3, .layers = 3, .size = {3, 8, 12}, .act = "relu", .out = "linear", .classes = 3};
    must_refuse(&spec, &data, ISO_E_ARGUMENT, "celeba");
    spec = make_spec(path, &w);
    spec.run.lr = 1e30;
    must_refuse(&spec, &data, ISO_E_NUMERIC, "step 2 ");
    assert_int_not_equal(access(path, F_OK), 0);

    /* Weights so large that |z|^2 is no float: stopped as well, and not taken for vectors of zeros. */
    spec.run.lr = 1e5;
    spec.run.force = true;
    assert_int_equal(iso_train(&spec, &data, &err), ISO_E_NUMERIC);
    free(path);
}

/* Nothing but this method is given labels, and what it makes has no decoder. */
static void kept_apart(void **state)
{
    (void)state;
    static const char *const methods[] = {"vae", "isometric", "flat-manifold"};
    watcher w;
    iso_train_data data = labelled(), plain = data;
    char *path = place("apart"), *base = place("base"), *flow_path = place("flow");
    plain.labels = NULL;
    for (int i = 0; i < 3; i++) {
        iso_train_spec spec = make_spec(path, &w);
        spec.method = methods[i];
        spec.alpha = spec.kl_weight = 1;
        must_refuse(&spec, &data, ISO_E_ARGUMENT, "a supervised net is trained by method supervised");
        spec.net.classes = 0;
        must_refuse(&spec, &data, ISO_E_ARGUMENT, "labels were given to a method that is not supervised");
        if (i > 0) continue;
        spec.run.watch.tick = NULL;
        spec.run.epochs = 1;
        must_train(&spec, &plain);
    }
    iso_train_spec spec = make_spec(base, &w);
    spec.run.epochs = 1;
    must_train(&spec, &data);
    iso_model *m = must_load(base), *vae = must_load(path);
    iso_flow_spec flow = {.model = m, .beta = 1, .depth = 2, .length = 4,
                          .run = {.path = flow_path, .epochs = 1, .batch = 8, .lr = 1e-3, .threads = 1}};
    assert_int_equal(iso_train_flow(&flow, &plain, &err), ISO_E_UNSUPPORTED);
    SAYS("cannot be flattened: a supervised model has no decoder");
    flow.model = vae;
    assert_int_equal(iso_train_flow(&flow, &data, &err), ISO_E_ARGUMENT);
    SAYS("labels were given");
    assert_int_equal(iso_train_flow(&flow, &plain, &err), ISO_OK);
    iso_model_free(m);
    iso_model_free(vae);
    free(path), free(base), free(flow_path);
}

int main(void)
{
    printf("seed %d\n", (int)seed);
    const struct CMUnitTest tests[] = {cmocka_unit_test(cross_entropy), cmocka_unit_test(head), cmocka_unit_test(gradients),
                                       cmocka_unit_test(training), cmocka_unit_test(resuming), cmocka_unit_test(errors),
                                       cmocka_unit_test(kept_apart)};
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
