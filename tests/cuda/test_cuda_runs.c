/* Chains, plans that run as graphs, trainings, and memory that runs out. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/memory.h"
#include "model/net/net.h"
#include "model/philox.h"
#include "model/train.h"
#include "tests/cuda/emulated.h"
#include "tests/cuda/test_cuda.h"

/* Where the emulator is linked in. */
__attribute__((weak)) void emulated_memory(size_t limit);
#pragma weak emulated_refusal
#pragma weak emulated_bad_capture
#pragma weak emulated_bad_branches
#pragma weak emulated_old_nvrtc
#pragma weak emulated_graph_launches
#pragma weak emulated_graph_works
#pragma weak emulated_graph_longest

static bool is_tf32(void)
{
    return strcmp(gpu->name, "cuda") == 0;
}

static void must(iso_status status, const iso_error *err, const char *what)
{
    if (status == ISO_OK) return;
    printf("FAIL  %s: %s\n", what, err->message);
    exit(1);
}

/* --- chains */

/* Runs a chain on the device: `data` and `out` of its inputs and steps are host memory. out in place of an input stays so. */
static void run_chain(const iso_fused *f)
{
    iso_fused_input input[ISO_FUSED_MAX_INPUTS];
    iso_fused_step step[ISO_FUSED_MAX_STEPS];
    iso_fused g = *f;
    const size_t bytes = (size_t)f->count * sizeof(float);
    for (int i = 0; i < f->inputs; i++) {
        input[i] = f->input[i];
        input[i].data = send(f->input[i].data, (size_t)iso_shape_count(&f->input[i].shape) * sizeof(float));
    }
    for (int s = 0; s < f->steps; s++) {
        step[s] = f->step[s];
        if (!step[s].out) continue;
        step[s].out = NULL;
        for (int i = 0; i < f->inputs; i++)
            if (f->input[i].data == f->step[s].out) step[s].out = (void *)input[i].data;
        if (!step[s].out) step[s].out = send(f->step[s].out, bytes);
    }
    g.input = input;
    g.step = step;
    const iso_fused *list[] = {&g};
    iso_error err = {0};
    must(gpu->device->prepare_fused(1, list, &err), &err, "a chain");
    gpu->fused(&g);
    for (int s = 0; s < f->steps; s++)
        if (step[s].out) gpu->get(f->step[s].out, step[s].out, bytes);
    for (int s = 0; s < f->steps; s++) {
        bool place = step[s].out != NULL;
        for (int i = 0; i < f->inputs; i++) place = place && input[i].data != step[s].out;
        if (place) gpu->release(step[s].out, bytes);
    }
    for (int i = 0; i < f->inputs; i++) gpu->release((void *)input[i].data, 0);
}

/* x [B, C] dense, bias [C], row [B, 1], a number; three outputs, one of them perhaps in place of x, which is read later. */
static void chain(int64_t rows, int64_t columns, bool in_place)
{
    enum { STEPS = 9 };
    const int64_t n = rows * columns;
    float *x = take((size_t)n * sizeof *x), *bias = take((size_t)columns * sizeof *bias), *row = take((size_t)rows * sizeof *row);
    float *y1 = take((size_t)n * sizeof *y1), *y2 = take((size_t)n * sizeof *y2), *y3 = take((size_t)n * sizeof *y3);
    float *was = take((size_t)n * sizeof *was), number = 0.5f;
    for (int64_t i = 0; i < n; i++) was[i] = x[i] = (float)draw();
    for (int64_t i = 0; i < columns; i++) bias[i] = (float)draw();
    for (int64_t i = 0; i < rows; i++) row[i] = (float)draw();
    float *first = in_place ? x : y1;
    const iso_fused_input input[4] = {
        {.data = x, .shape = iso_shape2(rows, columns), .stride = {columns, 1}, .dense = true},
        {.data = bias, .shape = iso_shape1(columns), .stride = {0, columns > 1}, .dense = rows == 1},
        {.data = row, .shape = iso_shape2(rows, 1), .stride = {rows > 1, 0}, .dense = columns == 1},
        {.data = &number, .shape = iso_shape0(), .dense = n == 1}};
    const iso_fused_step step[STEPS] = {
        {ISO_OP_ADD, 0, 1, 0, first},   /* 4: x + bias */
        {ISO_OP_MUL, 4, 2, 0, NULL},    /* 5: (x + bias) row */
        {ISO_OP_SCALE, 5, -1, 3, y2},   /* 6 */
        {ISO_OP_SUB, 6, 3, 0, NULL},    /* 7 */
        {ISO_OP_MUL, 7, 7, 0, NULL},    /* 8 */
        {ISO_OP_SHIFT, 8, -1, 1, NULL}, /* 9 */
        {ISO_OP_SQRT, 9, -1, 0, NULL},  /* 10 */
        {ISO_OP_MUL, 10, 0, 0, NULL},   /* 11: x as it was before 4 took its place */
        {ISO_OP_ADD, 11, 4, 0, y3}};
    run_chain(&(iso_fused){.shape = iso_shape2(rows, columns), .count = n, .inputs = 4, .steps = STEPS, .input = input, .step = step});
    for (int64_t i = 0; i < n; i++) {
        double v4 = (double)was[i] + bias[i % columns], v6 = 3 * v4 * row[i / columns], v7 = v6 - number;
        double v12 = sqrt(v7 * v7 + 1) * was[i] + v4;
        if (fabs(first[i] - v4) < 1e-6 && fabs(y2[i] - v6) < 4e-6 && fabs(y3[i] - v12) < 2e-5) continue;
        wrong("a chain of %lld x %lld, element %lld: %g %g %g", (long long)rows, (long long)columns, (long long)i, first[i] - v4,
              y2[i] - v6, y3[i] - v12);
        break;
    }
    free(x), free(bias), free(row), free(y1), free(y2), free(y3), free(was);
}

static void longest_chain(void)
{
    enum { N = 300, HALF = ISO_FUSED_MAX_STEPS / 2 };
    static float x[ISO_FUSED_MAX_INPUTS][N], y[N];
    iso_fused_input input[ISO_FUSED_MAX_INPUTS];
    iso_fused_step step[ISO_FUSED_MAX_STEPS];
    const int base = ISO_FUSED_MAX_INPUTS;
    for (int i = 0; i < base; i++) {
        for (int k = 0; k < N; k++) x[i][k] = (float)draw();
        input[i] = (iso_fused_input){.data = x[i], .shape = iso_shape1(N), .stride = {1}, .dense = true};
    }
    for (int s = 0; s < HALF; s++) step[s] = (iso_fused_step){ISO_OP_SCALE, s % base, -1, s + 1, NULL};
    for (int s = HALF; s < ISO_FUSED_MAX_STEPS; s++)
        step[s] = (iso_fused_step){ISO_OP_ADD, base + s - HALF, s == HALF ? base : base + s - 1, 0, s == ISO_FUSED_MAX_STEPS - 1 ? y : NULL};
    run_chain(&(iso_fused){.shape = iso_shape1(N), .count = N, .inputs = base, .steps = ISO_FUSED_MAX_STEPS, .input = input, .step = step});
    for (int k = 0; k < N; k++) {
        double want = x[0][k];
        for (int s = 0; s < HALF; s++) want += (s + 1) * (double)x[s % base][k];
        if (!(fabs(y[k] - want) < 1e-3)) wrong("the longest chain, element %d: %g, not %g", k, y[k], want);
    }
}

void test_chains(void)
{
    static const int64_t shapes[][2] = {{1, 1}, {3, 5}, {7, 33}, {8, 32}, {100, 3}, {65, 128}, {256, 1}, {257, 1}, {1, 64}, {4, 2}};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        for (int k = 0; k < 2; k++) chain(shapes[i][0], shapes[i][1], k);
    if (emulated_memory) emulated_old_nvrtc = true; /* a device newer than it takes PTX */
    longest_chain();
    if (emulated_memory) emulated_old_nvrtc = false;
}

/* --- plans: the same expression, run six times on either backend */

enum { ROWS = 6, WIDTH = 8, RUNS = 6 };

typedef struct machine {
    iso_vars *vars;
    iso_plan *plan;
} machine;

static machine build(const iso_backend *backend, const iso_graph *g, const iso_node out[4], const iso_assign *assigns, int count)
{
    machine m = {NULL, NULL};
    iso_error err = {0};
    must(iso_vars_create(backend, &m.vars, &err), &err, "vars");
    must(iso_vars_add_states(m.vars, g, 4, out, &err), &err, "vars");
    for (int i = 0; i < count; i++) must(iso_vars_add_states(m.vars, g, 1, &assigns[i].state, &err), &err, "vars");
    for (int i = 0; i < iso_vars_count(m.vars); i++) {
        iso_shape s = iso_vars_shape(m.vars, i);
        float data[WIDTH * WIDTH];
        for (int k = 0; k < iso_shape_count(&s); k++) data[k] = (float)sin(i + 1 + k);
        must(iso_vars_write(m.vars, iso_vars_name(m.vars, i), data, iso_shape_count(&s), &err), &err, "vars");
    }
    iso_plan_spec spec = {.vars = m.vars, .outputs = out, .output_count = 4, .assigns = assigns, .assign_count = count};
    must(iso_plan_create(g, &spec, &m.plan, &err), &err, "a plan");
    return m;
}

static void compare(const char *what, int run, const float *a, const float *b, int64_t n, double tolerance)
{
    double difference = 0, size = 0;
    for (int64_t i = 0; i < n; i++) {
        difference += pow((double)a[i] - b[i], 2);
        size += (double)a[i] * a[i];
    }
    if (!(sqrt(difference) <= tolerance * sqrt(size))) wrong("%s, run %d: off by %g", what, run, sqrt(difference / size));
}

/* slower: how what makes the runs slower begins. */
static void plans(const char *slower)
{
    char told[1024];
    iso_graph *g = iso_graph_create();
    iso_error err = {0};
    iso_node x = iso_input(g, "x", iso_shape2(ROWS, WIDTH)), index = iso_input_index(g, "index", ROWS);
    iso_node w = iso_state(g, "w", iso_shape2(WIDTH, WIDTH)), a = iso_state(g, "a", iso_shape1(WIDTH)), b = iso_state(g, "b", iso_shape1(WIDTH));
    iso_node h = iso_tanh(g, iso_add(g, iso_matmul(g, x, w, false, true), a));
    iso_node mixed = iso_add(g, iso_scale(g, h, 0.25), iso_gather(g, h, index));
    iso_node loss = iso_mean_all(g, iso_square(g, iso_sub(g, mixed, b)));
    iso_node one = iso_one(g), gw = ISO_NONE;
    iso_vjp(g, 1, &loss, &one, 1, &w, &gw);
    const iso_node out[4] = {loss, mixed, gw, iso_const(g, 3, iso_shape1(WIDTH))};
    /* a and b change places: one of them has to be copied at the end */
    const iso_assign assigns[3] = {{w, iso_sub(g, w, iso_scale(g, gw, 0.5))}, {a, iso_scale(g, b, 0.5)}, {b, iso_shift(g, a, 0.125)}};
    must(iso_graph_check(g, &err), &err, "a graph");
    machine m[2] = {build(iso_backend_cpu(), g, out, assigns, 3), build(gpu, g, out, assigns, 3)};
    for (int run = 0; run < RUNS; run++) {
        float value[2][4][WIDTH * WIDTH], data[ROWS * WIDTH];
        static const int64_t count[4] = {1, ROWS * WIDTH, WIDTH * WIDTH, WIDTH};
        int64_t rows[ROWS];
        for (int i = 0; i < ROWS * WIDTH; i++) data[i] = (float)draw();
        for (int i = 0; i < ROWS; i++) rows[i] = (i * 5 + run) % ROWS;
        for (int k = 0; k < 2; k++) {
            must(iso_plan_write(m[k].plan, x, data, ROWS * WIDTH, &err), &err, "writing");
            must(iso_plan_write_index(m[k].plan, index, rows, ROWS, &err), &err, "writing");
            iso_plan_run(m[k].plan);
            for (int o = 0; o < 4; o++) must(iso_plan_read(m[k].plan, out[o], value[k][o], count[o], &err), &err, "reading");
        }
        for (int o = 0; o < 4; o++) compare("a plan's output", run, value[0][o], value[1][o], count[o], is_tf32() ? 1e-2 : 1e-5);
    }
    for (int i = 0; i < iso_vars_count(m[0].vars); i++) {
        const char *name = iso_vars_name(m[0].vars, i);
        iso_shape s = iso_vars_shape(m[0].vars, i);
        float value[2][WIDTH * WIDTH];
        for (int k = 0; k < 2; k++) must(iso_vars_read(m[k].vars, name, value[k], iso_shape_count(&s), &err), &err, "reading");
        compare(name, RUNS, value[0], value[1], iso_shape_count(&s), is_tf32() ? 1e-2 : 1e-5);
    }
    iso_plan_tell(m[1].plan, told, sizeof told);
    if (slower[0] ? strncmp(told, slower, strlen(slower)) != 0 : told[0] != 0) wrong("a plan's runs: '%s', not '%s'", told, slower);
    for (int k = 0; k < 2; k++) {
        iso_plan_free(m[k].plan);
        iso_vars_free(m[k].vars);
    }
    iso_graph_free(g);
}

/* As graphs; and, where the emulator can bring that about, as graphs without branches, and without graphs. */
void test_plans(void)
{
    plans("");
    if (!emulated_memory) return;
    if (emulated_graph_longest >= emulated_graph_works) wrong("a graph of %d works has no branches", emulated_graph_works);
    const int before = emulated_graph_launches;
    emulated_bad_capture = true;
    plans("no graph: the GPU failed at capturing a graph");
    emulated_bad_capture = false;
    if (emulated_graph_launches != before) wrong("a graph was launched that could not be made");
    emulated_bad_branches = true;
    plans("a graph without branches: the GPU failed at a graph's branch");
    emulated_bad_branches = false;
    if (emulated_graph_launches == before || emulated_graph_longest != emulated_graph_works) wrong("plans do not become chains any more");
    plans("");
}

/* --- trainings */

enum { IMAGES = 11, VALID = 3, EPOCHS = 3, CLASSES = 2 };

typedef struct history {
    iso_epoch row[EPOCHS + 1];
    int rows;
} history;

static void on_epoch(void *ctx, const iso_epoch *e)
{
    history *h = ctx;
    if (h->rows <= EPOCHS) h->row[h->rows++] = *e;
}

static void same_history(const char *what, const history *cpu, const history *other, double tolerance)
{
    if (cpu->rows != other->rows || cpu->rows < EPOCHS) wrong("%s: %d epochs and %d", what, cpu->rows, other->rows);
    for (int i = 0; i < cpu->rows && i < other->rows; i++)
        for (int t = 0; t < ISO_TERM_COUNT; t++) {
            const double pair[2][2] = {{cpu->row[i].train[t], other->row[i].train[t]}, {cpu->row[i].valid[t], other->row[i].valid[t]}};
            for (int k = 0; k < 2; k++) {
                if (isnan(pair[k][0]) && isnan(pair[k][1])) continue;
                if (!(fabs(pair[k][0] - pair[k][1]) <= tolerance * (fabs(pair[k][0]) + 1e-3)))
                    wrong("%s, epoch %d, %s: %.7g on the CPU, %.7g on %s", what, i, iso_term_text((iso_term)t), pair[k][0], pair[k][1], gpu->name);
            }
        }
}

static void draw_images(uint8_t *pixels)
{
    for (int i = 0; i < IMAGES; i++)
        for (int k = 0; k < ISO_PIXELS; k++) {
            int px = k / 3 % ISO_SIDE, py = k / 3 / ISO_SIDE, c = k % 3;
            pixels[i * ISO_PIXELS + k] = (uint8_t)(127.5 + 120 * sin(0.1 * (i + 1) * (px + 3 * c) + 0.07 * py * (c + 1)));
        }
}

static void train_once(const char *method, const iso_backend *backend, const char *path, const iso_train_data *data, history *h)
{
    const bool supervised = strcmp(method, "supervised") == 0;
    iso_train_spec spec = {.net = {.arch = ISO_ARCH_CELEBA, .width = 2, .latent = 3, .views = 2, .classes = supervised ? CLASSES : 0},
                           .method = method, .alpha = 10, .kl_weight = 1, .mirror = true,
                           .run = {.path = path, .epochs = EPOCHS, .batch = 4, .lr = 1e-3, .eta = 0.2, .seed = 11, .threads = 1,
                                   .force = true, .backend = backend, .watch = {.ctx = h, .epoch = on_epoch}}};
    iso_error err = {0};
    *h = (history){.rows = 0};
    must(iso_train(&spec, data, &err), &err, method);
}

static void flatten_once(const iso_model *m, const iso_backend *backend, const char *path, const iso_train_data *data, history *h)
{
    iso_flow_spec spec = {.model = m, .beta = 1, .depth = 2, .length = 8,
                          .run = {.path = path, .epochs = EPOCHS, .batch = 4, .lr = 1e-3, .eta = 0.2, .seed = 3, .threads = 1,
                                  .force = true, .backend = backend, .watch = {.ctx = h, .epoch = on_epoch}}};
    iso_error err = {0};
    *h = (history){.rows = 0};
    must(iso_train_flow(&spec, data, &err), &err, "flow");
}

static void encode_both(const iso_model *m, const uint8_t *pixels)
{
    float vectors[2][IMAGES * 3];
    for (int k = 0; k < 2; k++) {
        iso_encoder *e = NULL;
        iso_error err = {0};
        must(iso_encoder_create_on(m, 4, k ? gpu : NULL, &e, &err), &err, "an encoder"); /* does not divide the images */
        must(iso_encoder_run(e, pixels, IMAGES, vectors[k], &err), &err, "encoding");
        iso_encoder_free(e);
    }
    compare("encoding", 0, vectors[0], vectors[1], IMAGES * 3, is_tf32() ? 2e-2 : 1e-4);
}

void test_training(void)
{
    static const char *const methods[] = {"isometric", "supervised", "vae"};
    static uint8_t pixels[IMAGES * ISO_PIXELS], labels[IMAGES * CLASSES];
    static const int64_t rows[IMAGES] = {3, 0, 7, 1, 9, 4, 10, 2, 8, 6, 5};
    const double tolerance = is_tf32() ? 5e-2 : 2e-3;
    char path[256];
    const char *folder = getenv("TMPDIR");
    snprintf(path, sizeof path, "%.200s/isoface-cuda-%d.safetensors", folder ? folder : "/tmp", (int)getpid());
    draw_images(pixels);
    for (int i = 0; i < IMAGES * CLASSES; i++) labels[i] = i / 3 % 2;
    iso_train_data data = {.pixels = pixels, .dim = ISO_PIXELS, .train = rows, .valid = rows + IMAGES - VALID,
                           .train_count = IMAGES - VALID, .valid_count = VALID};
    history h[2];
    iso_error err = {0};
    for (size_t i = 0; i < sizeof methods / sizeof *methods; i++) {
        iso_train_data own = data;
        if (i == 1) own.labels = labels, own.classes = CLASSES, own.attributes = "first second";
        for (int k = 0; k < 2; k++) train_once(methods[i], k ? gpu : NULL, path, &own, &h[k]);
        same_history(methods[i], &h[0], &h[1], tolerance);
    }
    iso_model *m = NULL;
    must(iso_model_load(path, &m, &err), &err, path);
    encode_both(m, pixels);
    for (int k = 0; k < 2; k++) flatten_once(m, k ? gpu : NULL, path, &data, &h[k]);
    same_history("flow", &h[0], &h[1], tolerance);
    iso_model_free(m);
    for (int i = 0; i < 3; i++) {
        static const char *const ends[] = {"", ".state", ".csv"};
        char name[300];
        snprintf(name, sizeof name, "%s%s", path, ends[i]);
        remove(name);
    }
}

/* --- memory that runs out: only the emulator's can be made small */

void test_memory(void)
{
    if (gpu->alloc(SIZE_MAX - 10) || gpu->alloc(SIZE_MAX / 4)) wrong("more memory than there is");
    const iso_net net = {.arch = ISO_ARCH_CELEBA, .width = 2, .latent = 3, .views = 2}, wide = {.arch = ISO_ARCH_CELEBA, .width = 32, .latent = 3, .views = 2};
    iso_model *m = NULL;
    iso_encoder *e = NULL;
    iso_error err = {0};
    int most = 0;
    /* Its layers have more numbers than cuDNN counts. */
    must(iso_model_create(&wide, &m, &err), &err, "a model");
    iso_status status = iso_encoder_create_on(m, 60000, gpu, &e, &err);
    iso_model_free(m);
    const char *at = strstr(err.message, "; the largest batch that fits is ");
    if (status != ISO_E_UNSUPPORTED || !strstr(err.message, "too large for cuDNN") || !at || sscanf(at, "; the largest batch that fits is %d", &most) != 1 || most < 1)
        wrong("too large a batch says: %s", err.message);
    printf("      %s\n", err.message);
    if (!emulated_memory) return;
    must(iso_model_create(&net, &m, &err), &err, "a model");
    size_t before = gpu->device->free_memory();
    emulated_memory((size_t)1 << 30);
    status = iso_encoder_create_on(m, 60000, gpu, &e, &err);
    at = strstr(err.message, "the largest batch that fits is ");
    if (status != ISO_E_MEMORY || !at || sscanf(at, "the largest batch that fits is %d", &most) != 1) {
        wrong("out of memory says: %s", err.message);
    } else {
        printf("      %s\n", err.message);
        must(iso_encoder_create_on(m, most, gpu, &e, &err), &err, "the largest batch that fits");
        iso_encoder_free(e);
    }
    /* Too little for the parameters, their moments and a step. */
    static uint8_t pixels[8 * ISO_PIXELS];
    static const int64_t rows[8] = {0, 1, 2, 3, 4, 5, 6, 7};
    const iso_train_data data = {.pixels = pixels, .dim = ISO_PIXELS, .train = rows, .train_count = 8};
    const char *folder = getenv("TMPDIR");
    char path[256];
    snprintf(path, sizeof path, "%.200s/isoface-memory-%d.safetensors", folder ? folder : "/tmp", (int)getpid());
    iso_train_spec spec = {.net = {.arch = ISO_ARCH_CELEBA, .width = 48, .latent = 3}, .method = "isometric", .alpha = 10, .kl_weight = 1,
                           .run = {.path = path, .epochs = 1, .batch = 8, .lr = 1e-3, .eta = 0.2, .threads = 1, .force = true, .backend = gpu}};
    emulated_memory(((size_t)1 << 30) - before + ((size_t)100 << 20));
    status = iso_train(&spec, &data, &err);
    at = strstr(err.message, "training with a batch of 8 needs ");
    if (status != ISO_E_MEMORY || !at || !strstr(at, "fits")) wrong("out of memory while training says: %s", err.message);
    printf("      %s\n", err.message);
    emulated_memory((size_t)1 << 30);
    if (gpu->device->free_memory() != before) wrong("memory was not given back");
    iso_model_free(m);
}
