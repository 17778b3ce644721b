/* The CUDA backend: every op against the reference backend, chains, plans that run as graphs, and short trainings against
 * the CPU. Exit code 77: there is no device. */
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/cuda/test_cuda.h"

int failures;
const iso_backend *gpu;

/* Where the emulator is linked in. */
extern bool emulated_refusal __attribute__((weak));
static bool *const refusal = &emulated_refusal;
extern int emulated_engine __attribute__((weak));
static const int *const engine = &emulated_engine;

void wrong(const char *fmt, ...)
{
    va_list list;
    va_start(list, fmt);
    printf("FAIL  ");
    vprintf(fmt, list);
    putchar('\n');
    va_end(list);
    failures++;
}

static uint64_t state = 20240229;

double draw(void) /* in [-1, 1) */
{
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (double)(int64_t)(state >> 11) / (double)(1LL << 52) - 1;
}

void *take(size_t n)
{
    void *p = calloc(n ? n : 1, 1);
    if (!p) abort();
    return p;
}

void *send(const void *host, size_t bytes)
{
    void *p = gpu->alloc(bytes);
    if (!p) abort();
    gpu->put(p, host, bytes);
    return p;
}

static void settle(const char *what)
{
    iso_error err = {0};
    gpu->device->wait(NULL);
    if (gpu->device->check(&err) == ISO_OK) return;
    printf("FAIL  %s: %s\n", what, err.message);
    exit(1); /* after a failure nothing works on a GPU */
}

/* --- one op on both backends */

typedef struct both {
    iso_call real, exact;
    float *values; /* what came out */
} both;

static void add_input(both *t, int i, iso_shape s, double scale, double shift)
{
    int64_t n = iso_shape_count(&s);
    float *f = take((size_t)n * sizeof *f);
    double *d = take((size_t)n * sizeof *d);
    for (int64_t k = 0; k < n; k++) d[k] = f[k] = (float)(draw() * scale + shift);
    t->real.in[i] = (iso_tensor){send(f, (size_t)n * sizeof *f), s};
    t->exact.in[i] = (iso_tensor){d, s};
    free(f);
}

static void add_index(both *t, int i, int64_t count, int64_t limit)
{
    int64_t *d = take((size_t)count * sizeof *d);
    for (int64_t k = 0; k < count; k++) d[k] = (int64_t)((draw() + 1) / 2 * (double)limit);
    t->real.in[i] = (iso_tensor){send(d, (size_t)count * sizeof *d), iso_shape1(count)};
    t->exact.in[i] = (iso_tensor){d, iso_shape1(count)};
}

/* Largest error over the largest value; NaN if a NaN is only on one side. */
static double error_of(const float *f, const double *d, int64_t n)
{
    double worst = 0, scale = 1e-30;
    for (int64_t i = 0; i < n; i++) {
        if (isnan(f[i]) != isnan(d[i])) return NAN;
        if (isnan(d[i])) continue;
        worst = fmax(worst, fabs(f[i] - d[i]));
        scale = fmax(scale, fabs(d[i]));
    }
    return worst / scale;
}

static void check(both *t, iso_op op, iso_shape out, iso_attr attr, double tolerance)
{
    const int64_t n = iso_shape_count(&out);
    const size_t bytes = (size_t)n * sizeof(float);
    float *f = take(bytes);
    char text[96];
    for (int64_t i = 0; i < n; i++) f[i] = NAN; /* every element must be written */
    t->real.attr = t->exact.attr = attr;
    t->real.out = (iso_tensor){send(f, bytes), out};
    t->exact.out = (iso_tensor){take((size_t)n * sizeof(double)), out};
    iso_error err = {0};
    if (gpu->device->prepare(op, &t->real, &err) != ISO_OK) wrong("%s: %s", iso_op_name(op), err.message);
    size_t room = gpu->workspace(op, &t->real);
    if (room) {
        float *rubbish = take(room);
        memset(rubbish, 0xff, room);
        t->real.workspace = send(rubbish, room);
        free(rubbish);
    }
    gpu->kernel[op](&t->real);
    gpu->get(f, t->real.out.data, bytes);
    settle(iso_op_name(op));
    iso_backend_reference()->kernel[op](&t->exact);
    double error = error_of(f, t->exact.out.data, n);
    if (!(error <= tolerance)) wrong("%s to %s: error %g, allowed %g", iso_op_name(op), iso_shape_text(&out, text), error, tolerance);
    for (int i = 0; i < ISO_MAX_INPUTS; i++) {
        if (t->real.in[i].data) gpu->release(t->real.in[i].data, 0);
        free(t->exact.in[i].data);
    }
    gpu->release(t->real.out.data, bytes);
    gpu->release(t->real.workspace, room);
    free(t->exact.out.data);
    free(f);
    *t = (both){.values = NULL};
}

static iso_shape shape(int ndim, int64_t a, int64_t b, int64_t c, int64_t d)
{
    return (iso_shape){ndim, {a, b, c, d}};
}

static void test_elementwise(void)
{
    static const struct { iso_shape a, b, out; } cases[] = {
        {{0, {0}}, {0, {0}}, {0, {0}}},
        {{2, {37, 129}}, {2, {37, 129}}, {2, {37, 129}}},
        {{2, {36, 128}}, {2, {36, 128}}, {2, {36, 128}}},
        {{4, {2, 5, 7, 3}}, {1, {3}}, {4, {2, 5, 7, 3}}},
        {{4, {2, 5, 7, 8}}, {1, {8}}, {4, {2, 5, 7, 8}}},
        {{4, {3, 1, 11, 1}}, {4, {1, 13, 1, 17}}, {4, {3, 13, 11, 17}}},
        {{4, {3, 1, 11, 1}}, {4, {1, 13, 1, 16}}, {4, {3, 13, 11, 16}}},
        {{4, {3, 4, 1, 1}}, {4, {3, 4, 5, 1}}, {4, {3, 4, 5, 1}}},
        {{2, {700, 1}}, {2, {700, 31}}, {2, {700, 31}}},
        {{2, {40, 1}}, {2, {40, 32}}, {2, {40, 32}}},
        {{0, {0}}, {3, {3, 40, 50}}, {3, {3, 40, 50}}},
        {{3, {5, 1, 200}}, {2, {3, 200}}, {3, {5, 3, 200}}},
        {{3, {1, 6, 8}}, {3, {4, 6, 8}}, {3, {4, 6, 8}}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (int op = 0; op < ISO_OP_COUNT; op++) {
            if (!iso_op_elementwise((iso_op)op)) continue;
            bool binary = op == ISO_OP_ADD || op == ISO_OP_SUB || op == ISO_OP_MUL || op == ISO_OP_DIV;
            if (!binary && i > 2) continue;
            bool positive = op == ISO_OP_LOG || op == ISO_OP_SQRT || op == ISO_OP_DIV;
            both t = {.values = NULL};
            add_input(&t, 0, binary ? cases[i].a : cases[i].out, 2, positive ? 3 : 0);
            if (binary) add_input(&t, 1, cases[i].b, 2, positive ? 3 : 0);
            check(&t, (iso_op)op, cases[i].out, (iso_attr){.f = 1.75}, 1e-6);
        }
    both t = {.values = NULL}; /* the ends of functions: what overflows on the way must not */
    for (int op = ISO_OP_EXP; op <= ISO_OP_STEP; op++) {
        if (op == ISO_OP_EXP || op == ISO_OP_LOG || op == ISO_OP_SQRT) continue;
        add_input(&t, 0, iso_shape1(512), 300, 0);
        check(&t, (iso_op)op, iso_shape1(512), (iso_attr){.f = 0}, 1e-6);
    }
}

static void test_sum(void)
{
    static const struct { iso_shape in, out; } cases[] = {
        {{1, {200003}}, {0, {0}}},          {{1, {31}}, {0, {0}}},
        {{2, {1000, 129}}, {1, {129}}},     {{2, {3, 7001}}, {1, {7001}}},
        {{2, {5, 7001}}, {2, {5, 1}}},      {{2, {300, 20}}, {2, {300, 1}}},
        {{4, {3, 7, 5, 301}}, {4, {1, 7, 1, 301}}}, {{4, {3, 7, 5, 301}}, {4, {3, 1, 5, 1}}},
        {{4, {30, 7, 50, 31}}, {4, {1, 7, 1, 1}}},  {{4, {30, 7, 50, 31}}, {3, {7, 1, 31}}},
        {{4, {4, 64, 64, 16}}, {1, {16}}},  {{4, {4, 64, 64, 3}}, {1, {3}}},
        {{4, {4, 64, 64, 1}}, {1, {1}}},    {{4, {2, 33, 9, 130}}, {1, {130}}},
        {{3, {9, 40, 6}}, {3, {9, 1, 6}}},  {{4, {2, 1, 3, 1}}, {4, {2, 1, 3, 1}}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        both t = {.values = NULL};
        add_input(&t, 0, cases[i].in, 1, 0.25);
        check(&t, ISO_OP_SUM, cases[i].out, (iso_attr){.f = 0}, 2e-7);
        add_input(&t, 0, cases[i].out, 1, 0);
        check(&t, ISO_OP_BROADCAST, cases[i].in, (iso_attr){.f = 0}, 0);
    }
}

static void test_permute(void)
{
    static const int64_t sizes[][4] = {{1, 1, 1, 1}, {2, 3, 4, 5}, {7, 33, 5, 16}, {40, 1, 37, 3}, {16, 24, 4, 4}, {3, 50, 1, 70}};
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++)
        for (int code = 0; code < 256; code++) {
            int axis[4] = {code & 3, code >> 2 & 3, code >> 4 & 3, code >> 6}, seen = 0;
            for (int d = 0; d < 4; d++) seen |= 1 << axis[d];
            if (seen != 15) continue;
            both t = {.values = NULL};
            iso_shape in = shape(4, sizes[s][0], sizes[s][1], sizes[s][2], sizes[s][3]), out = in;
            iso_attr attr = {.f = 0};
            for (int d = 0; d < 4; d++) {
                attr.i[d] = axis[d];
                out.dim[d] = in.dim[axis[d]];
            }
            add_input(&t, 0, in, 1, 0);
            check(&t, ISO_OP_PERMUTE, out, attr, 0);
        }
    both t = {.values = NULL};
    add_input(&t, 0, iso_shape2(301, 77), 1, 0);
    check(&t, ISO_OP_PERMUTE, iso_shape2(77, 301), (iso_attr){.i = {1, 0, -1, -1}}, 0);
    add_input(&t, 0, iso_shape3(5, 31, 18), 1, 0);
    check(&t, ISO_OP_PERMUTE, iso_shape3(18, 5, 31), (iso_attr){.i = {2, 0, 1, -1}}, 0);
}

static void test_move(void)
{
    both t = {.values = NULL};
    for (int axis = 0; axis < 4; axis++)
        for (int even = 0; even < 2; even++) {
            iso_shape in = even ? shape(4, 6, 8, 4, 12) : shape(4, 6, 7, 9, 11), out = in, wide = in, joined = in;
            const int64_t start = even ? 0 : 2, length = even ? 4 : 3;
            out.dim[axis] = length;
            wide.dim[axis] += 5;
            joined.dim[axis] = in.dim[axis] + length;
            add_input(&t, 0, in, 1, 0);
            check(&t, ISO_OP_SLICE, out, (iso_attr){.i = {axis, start, length}}, 0);
            add_input(&t, 0, in, 1, 0);
            check(&t, ISO_OP_PAD, wide, (iso_attr){.i = {axis, 2, wide.dim[axis]}}, 0);
            add_input(&t, 0, in, 1, 0);
            add_input(&t, 1, out, 1, 0);
            check(&t, ISO_OP_CONCAT, joined, (iso_attr){.i = {axis}}, 0);
        }
    add_input(&t, 0, iso_shape3(19, 5, 3), 1, 0);
    add_index(&t, 1, 40, 19);
    check(&t, ISO_OP_GATHER, iso_shape3(40, 5, 3), (iso_attr){.f = 0}, 0);
    add_input(&t, 0, iso_shape3(40, 5, 3), 1, 0);
    add_index(&t, 1, 40, 19);
    check(&t, ISO_OP_SCATTER, iso_shape3(19, 5, 3), (iso_attr){.i = {19}}, 1e-6);
    add_input(&t, 0, iso_shape3(12, 61, 70), 1, 0); /* rows of more than a block's columns */
    add_index(&t, 1, 12, 9);
    check(&t, ISO_OP_SCATTER, iso_shape3(9, 61, 70), (iso_attr){.i = {9}}, 1e-6);
    add_input(&t, 0, iso_shape1(7), 1, 0);
    add_index(&t, 1, 5, 7);
    check(&t, ISO_OP_GATHER, iso_shape1(5), (iso_attr){.f = 0}, 0);
}

static double product_tolerance(void)
{
    return strcmp(gpu->name, "cuda") == 0 ? 3e-3 : 1e-5;
}

static void test_matmul(void)
{
    static const int64_t sizes[][4] = {{0, 1, 1, 1}, {0, 3, 5, 7}, {0, 33, 1, 65}, {0, 64, 128, 256}, {0, 1, 100, 31}, {4, 6, 5, 3}, {1, 9, 8, 7}};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        for (int code = 0; code < 4; code++) {
            const int64_t p = sizes[i][0], m = sizes[i][1], n = sizes[i][2], k = sizes[i][3];
            const bool ta = code & 1, tb = code >> 1;
            both t = {.values = NULL};
            iso_shape a = ta ? iso_shape2(k, m) : iso_shape2(m, k), b = tb ? iso_shape2(n, k) : iso_shape2(k, n), out = iso_shape2(m, n);
            if (p) {
                a = iso_shape3(p, a.dim[0], a.dim[1]);
                b = iso_shape3(p, b.dim[0], b.dim[1]);
                out = iso_shape3(p, m, n);
            }
            add_input(&t, 0, a, 1, 0);
            add_input(&t, 1, b, 1, 0);
            check(&t, ISO_OP_MATMUL, out, (iso_attr){.i = {ta, tb}}, product_tolerance());
        }
}

typedef struct sizes {
    int64_t b, h, w, c, o, kh, kw, stride, pad;
} sizes;

/* All three forms of one convolution. */
static void convolve(const sizes *c)
{
    const int64_t s = c->stride, p = c->pad;
    iso_shape x = shape(4, c->b, c->h, c->w, c->c), w = shape(4, c->o, c->kh, c->kw, c->c);
    iso_shape y = shape(4, x.dim[0], (x.dim[1] + 2 * p - w.dim[1]) / s + 1, (x.dim[2] + 2 * p - w.dim[2]) / s + 1, w.dim[0]);
    both t = {.values = NULL};
    add_input(&t, 0, x, 1, 0);
    add_input(&t, 1, w, 1, 0);
    check(&t, ISO_OP_CONV, y, (iso_attr){.i = {s, p}}, product_tolerance());
    add_input(&t, 0, y, 1, 0);
    add_input(&t, 1, w, 1, 0);
    check(&t, ISO_OP_CONV_X, x, (iso_attr){.i = {s, p, x.dim[1], x.dim[2]}}, product_tolerance());
    add_input(&t, 0, x, 1, 0);
    add_input(&t, 1, y, 1, 0);
    check(&t, ISO_OP_CONV_W, w, (iso_attr){.i = {s, p, w.dim[1], w.dim[2]}}, product_tolerance());
}

static void test_convolution(void)
{
    static const sizes cases[] = {
        {1, 1, 1, 1, 1, 1, 1, 1, 0},  {2, 9, 8, 5, 7, 3, 3, 2, 1},  {3, 5, 5, 4, 6, 5, 5, 1, 0},  {3, 8, 8, 4, 12, 8, 8, 1, 0},
        {2, 6, 7, 3, 5, 1, 1, 1, 0},  {2, 20, 20, 3, 4, 5, 5, 2, 0}, {2, 8, 8, 8, 4, 4, 4, 2, 1}, {2, 7, 7, 3, 2, 1, 1, 2, 0},
        {2, 6, 9, 4, 4, 2, 3, 1, 1},  {3, 64, 64, 12, 3, 1, 1, 1, 0}, {3, 64, 64, 3, 70, 1, 1, 1, 0}, {2, 9, 7, 40, 4, 1, 1, 1, 0},  {1, 13, 13, 8, 16, 5, 5, 2, 0},
        {2, 5, 5, 4, 3, 5, 5, 2, 0}, {2, 10, 6, 2, 3, 4, 2, 3, 1}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) convolve(&cases[i]);
    if (!refusal) return;
    /* the first that is right, or the fastest (ISO_CUDA_FIND); with ISO_CUDA_PATCHES none */
    const int wanted = getenv("ISO_CUDA_PATCHES") ? -1 : product_tolerance() < 1e-4 ? 6 : getenv("ISO_CUDA_FIND") ? 5 : 4;
    if (*engine != wanted) wrong("cuDNN's engine %d instead of %d", *engine, wanted);
    *refusal = true; /* shapes that were not seen before: what was refused once is not tried again */
    convolve(&(sizes){2, 9, 9, 5, 7, 3, 3, 2, 1});
    *refusal = false;
    convolve(&(sizes){2, 9, 9, 5, 7, 3, 3, 2, 1});
}

/* Every kernel that a plan can need is there, and the comparison sees one element that is off by a thousandth. */
static void test_table(void)
{
    for (int op = 0; op < ISO_OP_COUNT; op++)
        if (!gpu->kernel[op] != !iso_backend_cpu()->kernel[op]) wrong("the backend %s %s", gpu->kernel[op] ? "has" : "lacks", iso_op_name((iso_op)op));
    float f[3] = {1, 2, 3};
    const double d[3] = {1, 2, 3};
    f[1] += 1e-2f;
    if (error_of(f, d, 3) <= 1e-3) wrong("the comparison is blind");
    f[1] = NAN;
    if (error_of(f, d, 3) <= 1e-3) wrong("the comparison is blind to NaN");
}

/* test_cuda [NAME]: all tests, or those whose name contains NAME; --names: which there are. */
int main(int argc, char **argv)
{
    static const char *const names[] = {"cuda-float32", "cuda"};
    static const struct { const char *name; void (*run)(void); } tests[] = {
        {"table", test_table}, {"elementwise", test_elementwise}, {"sum and broadcast", test_sum}, {"permute", test_permute},
        {"moves", test_move}, {"matmul", test_matmul}, {"convolution", test_convolution}, {"chains", test_chains},
        {"plans", test_plans}, {"training", test_training}, {"memory", test_memory}};
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (argc > 1 && strcmp(argv[1], "--names") == 0) {
        for (size_t i = 0; i < sizeof tests / sizeof *tests; i++) puts(tests[i].name);
        return 0;
    }
    printf("seed %llu\n", (unsigned long long)state);
    for (int k = 0; k < 2; k++) {
        iso_error err = {0};
        iso_status status = iso_device_find(names[k], &gpu, &err);
        if (status == ISO_E_UNSUPPORTED) {
            printf("skipped: %s\n", err.message);
            return 77;
        }
        if (status != ISO_OK) {
            printf("FAIL  %s\n", err.message);
            return 1;
        }
        for (size_t i = 0; i < sizeof tests / sizeof *tests; i++) {
            if (argc > 1 && !strstr(tests[i].name, argv[1])) continue;
            int before = failures;
            double started = iso_now();
            tests[i].run();
            settle(tests[i].name);
            printf("%s  %s, %s  %.2f s\n", failures == before ? "ok  " : "FAIL", names[k], tests[i].name, iso_now() - started);
        }
    }
    return failures ? 1 : 0;
}
