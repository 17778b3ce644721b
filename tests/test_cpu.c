/* The CPU backend's kernels against the reference backend's, on odd, broadcast, strided and padded shapes. */
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/isa.h"
#include "model/cpu/cpu.h"
#include "model/cpu/elementwise.h"
#include "model/cpu/gemm.h"
#include "model/graph/backend.h"
#include "tests/check.h"
#include "tests/random.h"

static iso_shape shape(int ndim, int64_t a, int64_t b, int64_t c, int64_t d)
{
    return (iso_shape){ndim, {a, b, c, d}};
}

/* One op on both backends: `real` in float, `exact` in double, with the same numbers in the inputs. */
typedef struct both {
    iso_call real, exact;
    int64_t count; /* of the output */
} both;

static void *take(size_t n)
{
    void *p = calloc(n ? n : 1, 1);
    assert_non_null(p);
    return p;
}

static void add_input(both *t, int i, iso_shape s, double scale, double shift)
{
    int64_t n = iso_shape_count(&s);
    float *f = take((size_t)n * sizeof *f);
    double *d = take((size_t)n * sizeof *d);
    for (int64_t k = 0; k < n; k++) d[k] = f[k] = (float)(either() * scale + shift);
    t->real.in[i] = (iso_tensor){f, s};
    t->exact.in[i] = (iso_tensor){d, s};
}

static void add_index(both *t, int i, int64_t count, int64_t limit)
{
    int64_t *f = take((size_t)count * sizeof *f), *d = take((size_t)count * sizeof *d);
    for (int64_t k = 0; k < count; k++) d[k] = f[k] = (int64_t)((either() + 1) / 2 * (double)limit);
    t->real.in[i] = (iso_tensor){f, iso_shape1(count)};
    t->exact.in[i] = (iso_tensor){d, iso_shape1(count)};
}

static void run(both *t, iso_op op, iso_shape out, iso_attr attr, int threads)
{
    const iso_backend *cpu = iso_backend_cpu();
    t->count = iso_shape_count(&out);
    t->real.attr = t->exact.attr = attr;
    t->real.threads = t->exact.threads = threads;
    float *f = t->real.out.data ? t->real.out.data : take((size_t)t->count * sizeof *f);
    for (int64_t i = 0; i < t->count; i++) f[i] = NAN; /* every element must be written */
    t->real.out = (iso_tensor){f, out};
    size_t bytes = cpu->workspace(op, &t->real);
    t->real.workspace = bytes ? aligned_alloc(64, (bytes + 63) / 64 * 64) : NULL;
    if (bytes) memset(t->real.workspace, 0xff, bytes); /* NaN: kernels may not count on zeros */
    cpu->kernel[op](&t->real);
    free(t->real.workspace);
    if (t->exact.out.data) return;
    t->exact.out = (iso_tensor){take((size_t)t->count * sizeof(double)), out};
    iso_backend_reference()->kernel[op](&t->exact);
}

/* Largest error over the largest value; NaN if a NaN is only on one side. */
static double error_of(const both *t)
{
    const float *f = t->real.out.data;
    const double *d = t->exact.out.data;
    double worst = 0, scale = 1e-30;
    for (int64_t i = 0; i < t->count; i++) {
        if (isnan(f[i]) != isnan(d[i])) return NAN;
        if (isnan(d[i])) continue;
        worst = fmax(worst, fabs(f[i] - d[i]));
        scale = fmax(scale, fabs(d[i]));
    }
    return worst / scale;
}

static void release(both *t)
{
    for (int i = 0; i < ISO_MAX_INPUTS; i++) {
        free(t->real.in[i].data);
        free(t->exact.in[i].data);
    }
    free(t->real.out.data);
    free(t->exact.out.data);
    *t = (both){.count = 0};
}

/* Runs with one, two and three threads: right, and the same to the bit. */
static void check(both *t, iso_op op, iso_shape out, iso_attr attr, double tolerance)
{
    run(t, op, out, attr, 1);
    double error = error_of(t);
    if (!(error <= tolerance)) fail_msg("%s: error %g", iso_op_name(op), error);
    float *first = take((size_t)t->count * sizeof *first);
    memcpy(first, t->real.out.data, (size_t)t->count * sizeof *first);
    for (int threads = 2; threads <= 3; threads++) {
        run(t, op, out, attr, threads);
        assert_memory_equal(first, t->real.out.data, (size_t)t->count * sizeof *first);
    }
    free(first);
    release(t);
}

/* --- elementwise */

static void test_elementwise(void **unused)
{
    (void)unused;
    static const struct { iso_shape a, b, out; } cases[] = {
        {{1, {1}}, {1, {1}}, {1, {1}}},
        {{0, {0}}, {0, {0}}, {0, {0}}},
        {{2, {37, 129}}, {2, {37, 129}}, {2, {37, 129}}},
        {{4, {2, 5, 7, 3}}, {1, {3}}, {4, {2, 5, 7, 3}}},
        {{4, {3, 1, 11, 1}}, {4, {1, 13, 1, 17}}, {4, {3, 13, 11, 17}}},
        {{2, {700, 1}}, {2, {700, 31}}, {2, {700, 31}}},
        {{0, {0}}, {3, {3, 40, 50}}, {3, {3, 40, 50}}},
        {{3, {5, 1, 2000}}, {2, {3, 2000}}, {3, {5, 3, 2000}}},
        {{2, {64, 1024}}, {1, {1024}}, {2, {64, 1024}}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        for (int op = 0; op < ISO_OP_COUNT; op++) {
            if (!iso_op_elementwise((iso_op)op)) continue;
            bool binary = op == ISO_OP_ADD || op == ISO_OP_SUB || op == ISO_OP_MUL || op == ISO_OP_DIV;
            bool positive = op == ISO_OP_LOG || op == ISO_OP_SQRT || op == ISO_OP_DIV;
            both t = {.count = 0};
            add_input(&t, 0, binary ? cases[i].a : cases[i].out, 2, positive ? 3 : 0);
            if (binary) add_input(&t, 1, cases[i].b, 2, positive ? 3 : 0);
            check(&t, (iso_op)op, cases[i].out, (iso_attr){.f = 1.75}, 1e-6);
        }
    }
}

static double sigmoid(double x) { return x < 0 ? exp(x) / (1 + exp(x)) : 1 / (1 + exp(-x)); }
static double softplus(double x) { return x > 0 ? x + log1p(exp(-x)) : log1p(exp(x)); }

/* Distance in units in the last place of the right value. */
static double ulps(float got, double want)
{
    float rounded = (float)want;
    if (isnan(want)) return isnan(got) ? 0 : INFINITY;
    if (isinf(rounded)) return got == rounded ? 0 : INFINITY;
    if (!isfinite(got)) return INFINITY;
    int exponent;
    frexp(want, &exponent);
    return fabs(got - want) / fmax(ldexp(1, exponent - 24), ldexp(1, -149));
}

/* Every 4099th float there is, and the special ones. */
static void test_functions(void **unused)
{
    (void)unused;
    static const struct { iso_op op; double (*exact)(double); } functions[] = {
        {ISO_OP_EXP, exp}, {ISO_OP_LOG, log}, {ISO_OP_SQRT, sqrt}, {ISO_OP_TANH, tanh},
        {ISO_OP_SIGMOID, sigmoid}, {ISO_OP_SOFTPLUS, softplus}};
    static const float special[] = {0.0f, -0.0f, 1, -1, INFINITY, -INFINITY, NAN, FLT_MAX, -FLT_MAX, FLT_MIN, 1e-45f, -1e-45f,
                                    88.72283f, 88.72284f, -87.33655f, -103.97208f, -104, 0.625f, -0.625f, 0.70710677f};
    enum { N = 1024, SPECIAL = sizeof special / sizeof *special };
    for (size_t f = 0; f < sizeof functions / sizeof *functions; f++) {
        float in[N], out[N];
        for (uint64_t u = 0; u < (1ULL << 32);) {
            int n = 0;
            if (u == 0)
                for (; n < SPECIAL; n++) in[n] = special[n];
            for (; n < N; n++, u += 4099) {
                uint32_t bits = (uint32_t)u;
                memcpy(&in[n], &bits, sizeof bits);
            }
            iso_elementwise_run(functions[f].op, N, in, NULL, 0, out);
            for (int i = 0; i < N; i++) {
                double error = ulps(out[i], functions[f].exact(in[i]));
                if (!(error <= 4)) fail_msg("%s(%a) = %a: %g ulp", iso_op_name(functions[f].op), in[i], out[i], error);
            }
        }
    }
}

static void test_nan(void **unused)
{
    (void)unused;
    float in[5] = {NAN, -2, 0, 3, INFINITY}, out[5];
    iso_elementwise_run(ISO_OP_RELU, 5, in, NULL, 0, out);
    assert_true(isnan(out[0]) && out[1] == 0 && out[2] == 0 && out[3] == 3 && isinf(out[4]));
    iso_elementwise_run(ISO_OP_STEP, 5, in, NULL, 0, out);
    assert_true(out[0] == 0 && out[1] == 0 && out[2] == 0 && out[3] == 1 && out[4] == 1);
}

/* NaN comes out of every pass that it goes into, unless a step, which compares, lies between. */
static void test_nan_passes(void **unused)
{
    (void)unused;
    enum { N = 37 };
    static const float numbers[ISO_PASS_OPS] = {1.7f, 0.3f, 2.5f, 0.01f, 1.1f, 0.6f};
    float value[ISO_PASS_INPUTS][N], out[N];
    for (int p = 0; p < iso_pass_count; p++)
        for (int bad = 0; bad < iso_passes[p].inputs; bad++) {
            const iso_pass *by = &iso_passes[p];
            const float *x[ISO_PASS_INPUTS];
            bool nan[ISO_PASS_INPUTS + ISO_PASS_OPS] = {false}, *of = nan + by->inputs;
            nan[bad] = true;
            for (int i = 0; i < by->ops; i++) of[i] = by->op[i].op != ISO_OP_STEP && (nan[by->op[i].a] || (by->op[i].b >= 0 && nan[by->op[i].b]));
            for (int i = 0; i < by->inputs; i++) {
                for (int k = 0; k < N; k++) value[i][k] = i == bad && k % 3 == 1 ? NAN : 0.5f;
                x[i] = value[i];
            }
            by->run(N, x, numbers, out);
            for (int k = 0; k < N; k++)
                if ((isnan(out[k]) != 0) != (k % 3 == 1 && of[by->ops - 1]))
                    fail_msg("a pass of %d ops from %s on: input %d NaN in %d gives %g", by->ops, iso_op_name(by->op[0].op), bad, k, out[k]);
        }
}

/* --- fused chains */

enum { CHAIN = 12 };

/* x [B, C] dense, bias [C], row [B, 1], scalar; a chain whose early values are read late, three outputs, one of them in
 * place of x, which a later step still reads. */
static void fused_case(int64_t rows, int64_t columns, int threads, bool in_place)
{
    const int64_t n = rows * columns;
    float *x = take((size_t)n * sizeof *x), *bias = take((size_t)columns * sizeof *bias), *row = take((size_t)rows * sizeof *row);
    float *y1 = take((size_t)n * sizeof *y1), *y2 = take((size_t)n * sizeof *y2), *y3 = take((size_t)n * sizeof *y3);
    float *was = take((size_t)n * sizeof *was), scalar = 0.5f;
    for (int64_t i = 0; i < n; i++) was[i] = x[i] = (float)either();
    for (int64_t i = 0; i < columns; i++) bias[i] = (float)either();
    for (int64_t i = 0; i < rows; i++) row[i] = (float)either();
    float *first = in_place ? x : y1;
    const iso_fused_input input[4] = {
        {.data = x, .shape = iso_shape2(rows, columns), .stride = {columns, 1}, .dense = true},
        {.data = bias, .shape = iso_shape1(columns), .stride = {0, columns > 1}},
        {.data = row, .shape = iso_shape2(rows, 1), .stride = {rows > 1, 0}},
        {.data = &scalar, .shape = iso_shape0()}};
    const iso_fused_step step[CHAIN] = {
        {ISO_OP_ADD, 0, 1, 0, first},     /* 4: x + bias */
        {ISO_OP_MUL, 4, 2, 0, NULL},      /* 5: (x + bias) row */
        {ISO_OP_SCALE, 5, -1, 3, y2},     /* 6 */
        {ISO_OP_SUB, 6, 3, 0, NULL},      /* 7 */
        {ISO_OP_MUL, 7, 7, 0, NULL},      /* 8 */
        {ISO_OP_SHIFT, 8, -1, 1, NULL},   /* 9 */
        {ISO_OP_SQRT, 9, -1, 0, NULL},    /* 10 */
        {ISO_OP_MUL, 10, 0, 0, NULL},     /* 11: reads x after step 4 was stored */
        {ISO_OP_ADD, 11, 4, 0, NULL},     /* 12 */
        {ISO_OP_RELU, 12, -1, 0, NULL},   /* 13 */
        {ISO_OP_ADD, 13, 5, 0, NULL},     /* 14 */
        {ISO_OP_SUB, 14, 3, 0, y3}};      /* 15 */
    iso_backend_cpu()->fused(&(iso_fused){.shape = iso_shape2(rows, columns), .count = n, .inputs = 4, .steps = CHAIN,
                                          .input = input, .step = step, .threads = threads});
    for (int64_t i = 0; i < n; i++) {
        double v4 = (double)was[i] + bias[i % columns], v5 = v4 * row[i / columns], v6 = 3 * v5, v7 = v6 - scalar;
        double v12 = sqrt(v7 * v7 + 1) * was[i] + v4, v15 = (v12 > 0 ? v12 : 0) + v5 - scalar;
        if (!(fabs(first[i] - v4) < 1e-6 && fabs(y2[i] - v6) < 4e-6 && fabs(y3[i] - v15) < 2e-5))
            fail_msg("%lld x %lld, element %lld: %g %g %g", (long long)rows, (long long)columns, (long long)i, first[i] - v4, y2[i] - v6,
                     y3[i] - v15);
    }
    free(x), free(bias), free(row), free(y1), free(y2), free(y3), free(was);
}

static void test_fused(void **unused)
{
    (void)unused;
    static const int64_t shapes[][2] = {{1, 1}, {3, 5}, {7, 333}, {1000, 3}, {65, 1024}, {5, 3001}, {4000, 17}, {257, 1}};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        for (int k = 0; k < 4; k++) fused_case(shapes[i][0], shapes[i][1], 1 + k / 2, k % 2);
}

/* As long as a chain may be, every value read at its end, so that none of the buffers can be shared. Inputs that repeat need buffers, too. */
static void longest_case(int64_t columns)
{
    enum { N = 3000, HALF = ISO_FUSED_MAX_STEPS / 2 };
    static float x[ISO_FUSED_MAX_INPUTS][N], y[N];
    iso_fused_input input[ISO_FUSED_MAX_INPUTS];
    iso_fused_step step[ISO_FUSED_MAX_STEPS];
    for (int i = 0; i < ISO_FUSED_MAX_INPUTS; i++) {
        for (int k = 0; k < N; k++) x[i][k] = (float)either();
        input[i] = (iso_fused_input){.data = x[i], .shape = iso_shape1(columns), .stride = {columns == N, 1}, .dense = columns == N};
    }
    const int base = ISO_FUSED_MAX_INPUTS;
    for (int s = 0; s < HALF; s++) step[s] = (iso_fused_step){ISO_OP_SCALE, s % base, -1, s + 1, NULL};
    for (int s = HALF; s < ISO_FUSED_MAX_STEPS; s++)
        step[s] = (iso_fused_step){ISO_OP_ADD, base + s - HALF, s == HALF ? base : base + s - 1, 0, s == ISO_FUSED_MAX_STEPS - 1 ? y : NULL};
    iso_backend_cpu()->fused(&(iso_fused){.shape = iso_shape2(N / columns, columns), .count = N, .inputs = base, .steps = ISO_FUSED_MAX_STEPS,
                                          .input = input, .step = step, .threads = 2});
    for (int k = 0; k < N; k++) {
        double want = x[0][k % columns];
        for (int s = 0; s < HALF; s++) want += (s + 1) * (double)x[s % base][k % columns];
        assert_true(fabs(y[k] - want) < 1e-3);
    }
}

static void test_fused_longest(void **unused)
{
    (void)unused;
    static const int64_t columns[] = {3000, 1, 60, 500, 1000, 1500};
    for (size_t i = 0; i < sizeof columns / sizeof *columns; i++) longest_case(columns[i]);
}

/* --- sums and moves */

static void test_sum(void **unused)
{
    (void)unused;
    static const struct { iso_shape in, out; } cases[] = {
        {{1, {1}}, {0, {0}}},
        {{1, {200003}}, {0, {0}}},
        {{2, {1000, 129}}, {1, {129}}},
        {{2, {3, 70001}}, {1, {70001}}},
        {{2, {5, 70001}}, {2, {5, 1}}},
        {{4, {3, 7, 5, 301}}, {4, {1, 7, 1, 301}}},
        {{4, {3, 7, 5, 301}}, {4, {3, 1, 5, 1}}},
        {{4, {30, 7, 50, 31}}, {4, {1, 7, 1, 1}}},
        {{4, {30, 7, 50, 31}}, {3, {7, 1, 31}}},
        {{4, {4, 64, 64, 16}}, {1, {16}}},
        {{4, {2, 1, 3, 1}}, {4, {2, 1, 3, 1}}},
        {{3, {2, 3, 4}}, {3, {2, 3, 4}}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        both t = {.count = 0};
        add_input(&t, 0, cases[i].in, 1, 0.25);
        check(&t, ISO_OP_SUM, cases[i].out, (iso_attr){.f = 0}, 2e-7);
        add_input(&t, 0, cases[i].out, 1, 0);
        check(&t, ISO_OP_BROADCAST, cases[i].in, (iso_attr){.f = 0}, 0);
    }
}

/* Small numbers between large ones that cancel: sums in single precision would lose them. */
static void test_sum_cancels(void **unused)
{
    (void)unused;
    static const struct { iso_shape in, out; } cases[] = {
        {{1, {4000}}, {0, {0}}}, {{1, {200003}}, {0, {0}}}, {{2, {1000, 129}}, {1, {129}}}, {{2, {5, 70001}}, {2, {5, 1}}}, {{4, {4, 64, 64, 16}}, {1, {16}}}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        both t = {.count = 0};
        add_input(&t, 0, cases[i].in, 0, 0.25);
        const int64_t n = iso_shape_count(&cases[i].in), kept = iso_shape_count(&cases[i].out), summed = n / kept;
        const int64_t inner = cases[i].in.ndim == 2 && cases[i].out.ndim == 2 ? 1 : kept, outer = inner == 1 ? kept : 1;
        for (int64_t o = 0; o < outer; o++)
            for (int64_t k = 0; k < 2 * inner; k++) {
                const int64_t at = k < inner ? o * summed + k : (o + 1) * summed * inner - inner + k - inner;
                ((double *)t.exact.in[0].data)[at] = ((float *)t.real.in[0].data)[at] = k < inner ? 0x1p30f : -0x1p30f;
            }
        check(&t, ISO_OP_SUM, cases[i].out, (iso_attr){.f = 0}, 0);
    }
}

static void test_permute(void **unused)
{
    (void)unused;
    static const int64_t sizes[][4] = {{1, 1, 1, 1}, {2, 3, 4, 5}, {17, 33, 5, 16}, {40, 1, 37, 3}, {16, 64, 4, 4}, {3, 50, 1, 70}};
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
        for (int code = 0; code < 256; code++) {
            int axis[4] = {code & 3, code >> 2 & 3, code >> 4 & 3, code >> 6}, seen = 0;
            for (int d = 0; d < 4; d++) seen |= 1 << axis[d];
            if (seen != 15) continue;
            both t = {.count = 0};
            iso_shape in = shape(4, sizes[s][0], sizes[s][1], sizes[s][2], sizes[s][3]), out = in;
            iso_attr attr = {.f = 0};
            for (int d = 0; d < 4; d++) {
                attr.i[d] = axis[d];
                out.dim[d] = in.dim[axis[d]];
            }
            add_input(&t, 0, in, 1, 0);
            check(&t, ISO_OP_PERMUTE, out, attr, 0);
        }
    }
    both t = {.count = 0};
    add_input(&t, 0, iso_shape2(301, 77), 1, 0);
    check(&t, ISO_OP_PERMUTE, iso_shape2(77, 301), (iso_attr){.i = {1, 0, -1, -1}}, 0);
    add_input(&t, 0, iso_shape3(5, 31, 18), 1, 0);
    check(&t, ISO_OP_PERMUTE, iso_shape3(18, 5, 31), (iso_attr){.i = {2, 0, 1, -1}}, 0);
}

static void test_move(void **unused)
{
    (void)unused;
    both t = {.count = 0};
    for (int axis = 0; axis < 4; axis++) {
        iso_shape in = shape(4, 6, 7, 9, 11), out = in, wide = in;
        out.dim[axis] = 3;
        wide.dim[axis] += 5;
        add_input(&t, 0, in, 1, 0);
        check(&t, ISO_OP_SLICE, out, (iso_attr){.i = {axis, 2, 3}}, 0);
        add_input(&t, 0, in, 1, 0);
        check(&t, ISO_OP_PAD, wide, (iso_attr){.i = {axis, 2, wide.dim[axis]}}, 0);
        iso_shape more = in;
        more.dim[axis] = 5;
        add_input(&t, 0, in, 1, 0);
        add_input(&t, 1, more, 1, 0);
        check(&t, ISO_OP_CONCAT, wide, (iso_attr){.i = {axis}}, 0);
    }
    add_input(&t, 0, shape(4, 13, 3, 5, 7), 1, 0);
    add_index(&t, 1, 200, 13);
    check(&t, ISO_OP_GATHER, shape(4, 200, 3, 5, 7), (iso_attr){.f = 0}, 0);
    add_input(&t, 0, shape(3, 2000, 3, 51, 0), 1, 0);
    add_index(&t, 1, 2000, 13);
    check(&t, ISO_OP_SCATTER, shape(3, 13, 3, 51, 0), (iso_attr){.i = {13}}, 1e-5);
}

/* An index outside writes nothing outside, and is seen. */
static void test_index_outside(void **unused)
{
    (void)unused;
    float x[3] = {1, 2, 3}, y[2] = {0, 0}, z[3];
    int64_t index[2] = {-1, 3};
    iso_call c = {.in = {{x, iso_shape1(3)}, {index, iso_shape1(2)}}, .out = {y, iso_shape1(2)}, .threads = 1};
    iso_backend_cpu()->kernel[ISO_OP_GATHER](&c);
    assert_true(isnan(y[0]) && isnan(y[1]));
    iso_call s = {.in = {{x, iso_shape1(2)}, {index, iso_shape1(2)}}, .out = {z, iso_shape1(3)}, .threads = 1};
    iso_backend_cpu()->kernel[ISO_OP_SCATTER](&s);
    assert_true(z[0] == 0 && z[1] == 0 && z[2] == 0);
}

/* --- products, on every instruction set that this processor has */

static void matmul_case(int64_t p, int64_t m, int64_t n, int64_t k)
{
    for (int code = 0; code < 4; code++) {
        both t = {.count = 0};
        int64_t ta = code & 1, tb = code >> 1;
        iso_shape a = ta ? iso_shape2(k, m) : iso_shape2(m, k), b = tb ? iso_shape2(n, k) : iso_shape2(k, n), c = iso_shape2(m, n);
        if (p) {
            a = iso_shape3(p, a.dim[0], a.dim[1]);
            b = iso_shape3(p, b.dim[0], b.dim[1]);
            c = iso_shape3(p, m, n);
        }
        add_input(&t, 0, a, 1, 0);
        add_input(&t, 1, b, 1, 0);
        check(&t, ISO_OP_MATMUL, c, (iso_attr){.i = {ta, tb}}, 3e-6);
    }
}

static void products(void)
{
    static const int64_t sizes[][4] = {{0, 1, 1, 1},    {0, 5, 7, 3},    {0, 16, 128, 70}, {0, 15, 32, 321}, {0, 1, 300, 40}, {0, 300, 1, 40},
                                       {0, 200, 33, 650}, {0, 29, 600, 17}, {0, 171, 530, 9}, {3, 6, 6, 6},   {2, 31, 40, 330}, {0, 160, 16, 64}};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) matmul_case(sizes[i][0], sizes[i][1], sizes[i][2], sizes[i][3]);
}

/* 3e-6, but for what Winograd's tiles of seven points compute (winograd.h). */
static double bound(const both *t, iso_op op, iso_shape out, iso_attr attr)
{
    enum { SEVEN = 5 }; /* the form: pixels of such a tile's side */
    int form = 0;
    const iso_call call = {.in = {{NULL, t->real.in[0].shape}, {NULL, t->real.in[1].shape}}, .out = {NULL, out}, .attr = attr, .threads = 1};
    (void)iso_cpu_conv_prepared(op, &call, &form);
    return form == SEVEN ? 1e-5 : 3e-6;
}

static void convolutions(void)
{
    static const struct { int64_t b, h, w, c, o, kh, kw, stride, pad; } cases[] = {
        {1, 1, 1, 1, 1, 1, 1, 1, 0},  {2, 7, 6, 3, 5, 3, 3, 1, 1},  {3, 9, 8, 3, 17, 5, 5, 2, 0},  {2, 8, 10, 32, 6, 4, 4, 2, 1},
        {5, 4, 4, 33, 20, 4, 4, 1, 0}, {2, 6, 5, 40, 3, 1, 1, 1, 0}, {2, 11, 7, 4, 9, 3, 2, 3, 1},  {1, 5, 6, 7, 3, 2, 3, 2, 0},
        {2, 10, 9, 16, 64, 4, 4, 2, 1}, {1, 12, 5, 2, 3, 1, 3, 2, 0}, {2, 3, 3, 5, 4, 5, 5, 1, 2},   {1, 9, 9, 3, 2, 3, 3, 4, 0},
        {2, 13, 13, 32, 35, 5, 5, 2, 0}, {1, 6, 6, 64, 70, 3, 3, 1, 1}, {17, 3, 3, 6, 130, 3, 3, 1, 0}, {1, 7, 7, 3, 2, 1, 1, 2, 0},
        {5, 3, 3, 9, 7, 3, 3, 4, 1}, /* as large as the image, but beside it */
        /* few channels, many pixels: direct.c */
        {19, 16, 16, 16, 32, 4, 4, 2, 1}, {5, 33, 27, 16, 48, 5, 5, 2, 0}, {7, 11, 12, 32, 16, 3, 3, 1, 1}, {9, 12, 12, 48, 20, 4, 4, 2, 1},
        {33, 8, 8, 16, 96, 4, 4, 2, 1}, {4, 20, 31, 16, 16, 4, 3, 2, 1}, {6, 13, 10, 32, 17, 2, 2, 1, 0}, {3, 31, 31, 16, 64, 5, 5, 3, 2},
        {2, 24, 24, 20, 32, 4, 4, 2, 1}, {11, 14, 9, 16, 40, 1, 1, 2, 0},
        /* 1 x 1 with few channels: conv_few.c */
        {3, 20, 21, 3, 16, 1, 1, 1, 0}, {2, 32, 32, 1, 21, 1, 1, 1, 0}, {1, 40, 31, 4, 70, 1, 1, 1, 0}, {5, 17, 13, 2, 33, 1, 1, 1, 0},
        /* larger kernels over few channels: conv_image.c */
        {3, 43, 51, 3, 16, 5, 5, 2, 0}, {2, 40, 37, 1, 32, 3, 4, 1, 0}, {1, 9, 603, 4, 16, 3, 3, 2, 0}, {17, 11, 12, 2, 48, 2, 3, 1, 0}, {2, 68, 66, 3, 16, 4, 5, 2, 0}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int64_t s = cases[i].stride, p = cases[i].pad;
        iso_shape x = shape(4, cases[i].b, cases[i].h, cases[i].w, cases[i].c);
        iso_shape w = shape(4, cases[i].o, cases[i].kh, cases[i].kw, cases[i].c);
        iso_shape y = shape(4, x.dim[0], (x.dim[1] + 2 * p - w.dim[1]) / s + 1, (x.dim[2] + 2 * p - w.dim[2]) / s + 1, w.dim[0]);
        both t = {.count = 0};
        add_input(&t, 0, x, 1, 0);
        add_input(&t, 1, w, 1, 0);
        const iso_attr conv = {.i = {s, p}}, conv_x = {.i = {s, p, x.dim[1], x.dim[2]}};
        const double most = bound(&t, ISO_OP_CONV, y, conv); /* and of conv_w, which has no prepared form to tell by */
        check(&t, ISO_OP_CONV, y, conv, most);
        add_input(&t, 0, y, 1, 0);
        add_input(&t, 1, w, 1, 0);
        check(&t, ISO_OP_CONV_X, x, conv_x, bound(&t, ISO_OP_CONV_X, x, conv_x));
        add_input(&t, 0, x, 1, 0);
        add_input(&t, 1, y, 1, 0);
        check(&t, ISO_OP_CONV_W, w, (iso_attr){.i = {s, p, w.dim[1], w.dim[2]}}, most);
    }
}

static void test_products(void **unused)
{
    (void)unused;
    static const char *const names[] = {"portable", "avx2", "avx512", "amx"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (!iso_isa_use(names[i])) continue;
        assert_string_equal(iso_gemm_isa_get()->name, names[i]);
        products();
        convolutions();
    }
    assert_false(iso_isa_use("abacus"));
    assert_true(iso_isa_use(NULL));
}

/* The comparison itself: one element off by a thousandth must be seen, and a NaN too. */
static void test_wrong_is_seen(void **unused)
{
    (void)unused;
    both t = {.count = 0};
    add_input(&t, 0, iso_shape2(9, 10), 1, 0);
    add_input(&t, 1, iso_shape2(10, 11), 1, 0);
    run(&t, ISO_OP_MATMUL, iso_shape2(9, 11), (iso_attr){.f = 0}, 1);
    assert_true(error_of(&t) <= 3e-6);
    float *y = t.real.out.data;
    y[50] += 1e-3f;
    assert_false(error_of(&t) <= 3e-6);
    y[50] = NAN;
    assert_false(error_of(&t) <= 3e-6);
    release(&t);
}

static void test_alloc(void **unused)
{
    (void)unused;
    const iso_backend *b = iso_backend_cpu();
    static const size_t sizes[] = {0, 1, 100, 4096, (2 << 20) - 1, 2 << 20, (2 << 20) + 5, 9 << 20};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        char *p = b->alloc(sizes[i]);
        assert_non_null(p);
        assert_int_equal((uintptr_t)p % 64, 0);
        for (size_t k = 0; k < sizes[i]; k++) assert_true(p[k] == 0);
        memset(p, 1, sizes[i]);
        b->release(p, sizes[i]);
    }
    assert_null(b->alloc(SIZE_MAX - 10));
    assert_null(b->alloc(SIZE_MAX / 4));
    b->release(NULL, 0);
}

int main(void)
{
    drawn = 20240229; /* no other seed: the bounds of errors are what these numbers give */
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_elementwise),   cmocka_unit_test(test_functions),     cmocka_unit_test(test_nan),
        cmocka_unit_test(test_nan_passes),    cmocka_unit_test(test_fused),         cmocka_unit_test(test_fused_longest),
        cmocka_unit_test(test_sum),           cmocka_unit_test(test_sum_cancels),   cmocka_unit_test(test_permute),
        cmocka_unit_test(test_move),          cmocka_unit_test(test_index_outside), cmocka_unit_test(test_products),
        cmocka_unit_test(test_wrong_is_seen), cmocka_unit_test(test_alloc)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
