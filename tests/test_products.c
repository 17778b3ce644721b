/* The CPU backend's small products (iso_products): right in every shape, on every instruction set; and the same to the bit with weights that were
 * packed before, with something to ask for beforehand, and row by row as in whole ones. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/isa.h"
#include "model/cpu/cpu.h"
#include "model/cpu/elementwise.h"
#include "model/cpu/gemm.h"
#include "model/graph/internal.h"
#include "model/philox.h"
#include "tests/check.h"

enum { SEED = 53 };

typedef struct sizes {
    int64_t m, n, k; /* of a result: sums are over k for each of the terms */
    int count;
    bool sum, tb;
} sizes;

static const sizes cases[] = {
    /* results, by rows that are read where they lie or not, in several blocks of depth, with tiles across two of them */
    {100, 64, 512, 1, false, false}, {100, 512, 64, 1, false, false}, {100, 64, 512, 2, false, true}, {100, 512, 64, 2, false, true},
    {52, 256, 784, 1, false, false}, {48, 784, 256, 1, false, true},  {100, 128, 256, 3, false, false}, {7, 33, 700, 2, false, false},
    {7, 33, 700, 2, false, true},    {1, 1, 1, 1, false, true},       {5, 16, 129, 3, false, false},    {130, 40, 300, 1, false, true},
    {23, 17, 64, 8, false, false},   {3, 600, 40, 2, false, true},    {31, 1030, 8, 1, false, true},
    /* sums: either operand the smaller one, depths that are packed as a whole or not */
    {64, 512, 100, 4, true, false},  {512, 64, 100, 4, true, false},  {64, 512, 100, 1, true, false},   {300, 40, 37, 8, true, false},
    {40, 300, 37, 8, true, false},   {13, 29, 300, 3, true, false},   {200, 200, 50, 2, true, false},   {9, 5, 1, 1, true, false}};

static float *numbers(uint32_t stream, uint32_t number, int64_t count)
{
    float *x = aligned_alloc(64, (size_t)(count + 15) / 16 * 64);
    assert_non_null(x);
    iso_draw_normal((iso_draw){SEED, stream, number}, count, x);
    return x;
}

/* One case: out, and what the tail makes of it: relu(out + bias), or for a sum out * scale + state. */
typedef struct work {
    iso_products of;
    iso_fused tail;
    iso_fused_input input[ISO_PRODUCTS_MAX + 1];
    iso_fused_step step[2 * ISO_PRODUCTS_MAX];
    iso_ahead ahead;
    float *extra, *out[ISO_PRODUCTS_MAX], *after[ISO_PRODUCTS_MAX];
    int results;
} work;

static void make(work *w, const sizes *s, uint32_t number)
{
    const int64_t count = s->m * s->n;
    *w = (work){.of = {.count = s->count, .sum = s->sum, .transpose_a = s->sum, .transpose_b = s->tb, .shape = iso_shape2(s->m, s->n)},
                .results = s->sum ? 1 : s->count};
    for (int i = 0; i < s->count; i++) {
        const uint32_t at = number * ISO_PRODUCTS_MAX + (uint32_t)i;
        w->of.a[i] = (iso_tensor){numbers(1, at, s->m * s->k), s->sum ? iso_shape2(s->k, s->m) : iso_shape2(s->m, s->k)};
        w->of.b[i] = s->sum || i == 0 ? (iso_tensor){numbers(2, at, s->n * s->k), s->tb ? iso_shape2(s->n, s->k) : iso_shape2(s->k, s->n)} : w->of.b[0];
    }
    w->extra = numbers(3, number, s->sum ? count : s->n);
    for (int i = 0; i < w->results; i++) {
        w->out[i] = numbers(4, number, count);
        w->after[i] = numbers(5, number, count);
        for (int64_t k = 0; k < count; k++) w->out[i][k] = w->after[i][k] = NAN;
        w->of.out[i] = w->out[i];
        w->input[i] = (iso_fused_input){.data = w->out[i], .shape = w->of.shape, .stride = {s->n, 1}, .dense = true};
        const int first = w->results + 1 + 2 * i;
        w->step[2 * i] = s->sum ? (iso_fused_step){ISO_OP_SCALE, i, -1, 0.5, NULL} : (iso_fused_step){ISO_OP_ADD, i, w->results, 0, NULL};
        w->step[2 * i + 1] = s->sum ? (iso_fused_step){ISO_OP_ADD, first, w->results, 0, w->after[i]} : (iso_fused_step){ISO_OP_RELU, first, -1, 0, w->after[i]};
    }
    w->input[w->results] = s->sum ? (iso_fused_input){.data = w->extra, .shape = w->of.shape, .stride = {s->n, 1}, .dense = true}
                                  : (iso_fused_input){.data = w->extra, .shape = iso_shape1(s->n), .stride = {0, s->n > 1}};
    w->tail = (iso_fused){.shape = w->of.shape, .count = count, .inputs = w->results + 1, .steps = 2 * w->results, .threads = 1};
}

static void run(work *w)
{
    const size_t bytes = iso_cpu_products_workspace(&w->of);
    w->tail.input = w->input;
    w->tail.step = w->step;
    w->of.tail = &w->tail;
    w->of.workspace = aligned_alloc(64, (bytes + 63) / 64 * 64);
    assert_non_null(w->of.workspace);
    memset(w->of.workspace, 0xff, bytes); /* NaN */
    iso_cpu_products(&w->of);
    free(w->of.workspace);
}

static void release(work *w)
{
    for (int i = 0; i < w->of.count; i++) {
        free(w->of.a[i].data);
        if (w->of.sum || i == 0) free(w->of.b[i].data);
    }
    for (int i = 0; i < w->results; i++) {
        free(w->out[i]);
        free(w->after[i]);
    }
    free(w->extra);
    free(w->of.prepared.data);
}

static double exact(const work *w, const sizes *s, int result, int64_t row, int64_t column)
{
    double sum = 0;
    for (int t = s->sum ? 0 : result; t < (s->sum ? s->count : result + 1); t++) {
        const float *a = w->of.a[t].data, *b = w->of.b[t].data;
        for (int64_t k = 0; k < s->k; k++)
            sum += (double)(s->sum ? a[k * s->m + row] : a[row * s->k + k]) * (s->tb ? b[column * s->k + k] : b[k * s->n + column]);
    }
    return sum;
}

static void check_values(const work *w, const sizes *s)
{
    const double most = 2e-6 * (4 + sqrt((double)(s->k * (s->sum ? s->count : 1))) * 4);
    for (int i = 0; i < w->results; i++)
        for (int64_t r = 0; r < s->m; r++)
            for (int64_t c = 0; c < s->n; c += 1 + c % 3) {
                const int64_t at = r * s->n + c;
                const double want = exact(w, s, i, r, c), after = s->sum ? 0.5 * want + w->extra[at] : fmax(want + w->extra[c], 0);
                if (!(fabs(w->out[i][at] - want) <= most && fabs(w->after[i][at] - after) <= most))
                    fail_msg("%lld x %lld x %lld, %d%s: result %d at %lld, %lld is off by %g and %g", (long long)s->m, (long long)s->n, (long long)s->k,
                             s->count, s->sum ? " summed" : "", i, (long long)r, (long long)c, w->out[i][at] - want, w->after[i][at] - after);
            }
}

static void check_same(const work *a, const work *b, int64_t from, int64_t rows)
{
    const int64_t n = a->of.shape.dim[1];
    for (int i = 0; i < a->results; i++) {
        assert_memory_equal(a->out[i] + from * n, b->out[i], (size_t)(rows * n) * sizeof(float));
        assert_memory_equal(a->after[i] + from * n, b->after[i], (size_t)(rows * n) * sizeof(float));
    }
}

/* Returns whether the weights have a form of their own. */
static bool prepare(work *w)
{
    const iso_backend *cpu = iso_backend_cpu();
    iso_call call = {.attr.i = {w->of.transpose_a, w->of.transpose_b}, .in = {{NULL, w->of.a[0].shape}, {NULL, w->of.b[0].shape}}, .out.shape = w->of.shape, .threads = 1};
    int form = -1;
    const size_t bytes = cpu->prepared(ISO_OP_MATMUL, &call, &form);
    if (!bytes) return false;
    call.in[1].data = w->of.b[0].data;
    call.prepared = w->of.prepared = (iso_tensor){aligned_alloc(64, (bytes + 63) / 64 * 64), iso_shape1((int64_t)(bytes / sizeof(float)))};
    assert_non_null(call.prepared.data);
    cpu->prepare[ISO_OP_MATMUL](&call);
    return true;
}

static int one_case(const sizes *s, uint32_t number)
{
    work plain, other;
    int prepared = 0;
    make(&plain, s, number);
    run(&plain);
    check_values(&plain, s);
    /* something to ask for: inside memory, and nothing at all */
    make(&other, s, number);
    other.ahead = (iso_ahead){.count = 2, .range = {{plain.out[0], (size_t)(s->m * s->n) * sizeof(float)}, {plain.extra, 0}}};
    other.of.ahead = &other.ahead;
    run(&other);
    check_same(&plain, &other, 0, s->m);
    release(&other);
    if (!s->sum) {
        make(&other, s, number);
        other.of.ahead = NULL;
        if (prepare(&other)) {
            memset(other.of.b[0].data, 0xff, (size_t)(s->n * s->k) * sizeof(float)); /* not read any more */
            prepared = 1;
            run(&other);
            check_same(&plain, &other, 0, s->m);
        }
        release(&other);
    }
    /* the last rows alone */
    if (!s->sum && s->m > 1) {
        const int64_t from = s->m / 2, rows = s->m - from;
        make(&other, s, number);
        other.of.part_of = s->m;
        other.of.shape.dim[0] = other.tail.shape.dim[0] = rows;
        other.tail.count = rows * s->n;
        for (int i = 0; i < s->count; i++) {
            float *a = other.of.a[i].data;
            memmove(a, a + from * s->k, (size_t)(rows * s->k) * sizeof *a);
            other.of.a[i].shape.dim[0] = rows;
            other.input[i].shape.dim[0] = rows;
        }
        run(&other);
        check_same(&plain, &other, from, rows);
        release(&other);
    }
    release(&plain);
    return prepared;
}

static void test_products(void **state)
{
    (void)state;
    static const char *const names[] = {"portable", "avx2", "avx512", "amx"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        int prepared = 0;
        if (!iso_isa_use(names[i])) continue;
        for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) prepared += one_case(&cases[c], (uint32_t)c);
        assert_int_equal(prepared > 5, !iso_gemm_isa_get()->tiles);
    }
    assert_true(iso_isa_use(NULL));
}

/* Several ops in one pass give what they give one after the other. */
static void test_passes(void **state)
{
    (void)state;
    enum { N = 203 };
    static const float numbers[ISO_PASS_OPS] = {1.7f, 0.3f, 2.5f, 0.01f, 1.1f, 0.6f};
    float value[ISO_PASS_INPUTS + ISO_PASS_OPS][N], got[N];
    int several = 0, alone = 0;
    for (int i = 0; i < ISO_PASS_INPUTS; i++) {
        iso_draw_normal((iso_draw){SEED, 6, (uint64_t)i}, N, value[i]);
        for (int k = 0; k < N && i == 3; k++) value[i][k] = k % 7 == 0 ? 0 : fabsf(value[i][k]); /* the one that a root is taken of */
    }
    for (int p = 0; p < iso_pass_count; p++) {
        const iso_pass *by = &iso_passes[p];
        const float *x[ISO_PASS_INPUTS];
        if (by->ops == 1) alone++;
        if (by->ops == 1) continue;
        several++;
        for (int i = 0; i < by->inputs; i++) x[i] = value[i];
        for (int i = 0; i < by->ops; i++) {
            const int a = by->op[i].a, b = by->op[i].b;
            const float *of[2] = {a < by->inputs ? value[a] : value[ISO_PASS_INPUTS + a - by->inputs],
                                  b < 0 ? NULL : b < by->inputs ? value[b] : value[ISO_PASS_INPUTS + b - by->inputs]};
            assert_int_equal(b >= 0, iso_op_table[by->op[i].op].inputs == 2);
            iso_elementwise_run(by->op[i].op, N, of[0], of[1], numbers[i], value[ISO_PASS_INPUTS + i]);
        }
        by->run(N, x, numbers, got);
        assert_memory_equal(value[ISO_PASS_INPUTS + by->ops - 1], got, sizeof got);
        memcpy(got, value[0], sizeof got); /* in place */
        x[0] = got;
        by->run(N, x, numbers, got);
        assert_memory_equal(value[ISO_PASS_INPUTS + by->ops - 1], got, sizeof got);
    }
    for (int op = 0; op < ISO_OP_COUNT; op++) alone -= iso_op_elementwise((iso_op)op);
    assert_int_equal(alone, 0);
    assert_true(several >= 7);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_products), cmocka_unit_test(test_passes)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
