/* test_scan.c: every kernel of scan.h that this processor runs against plain loops in double precision; the k best against
 * a sort; half precision against its definition. */
#include <inttypes.h>
#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/isa.h"
#include "base/memory.h"
#include "retriever/scan.h"
#include "tests/check.h"
#include "tests/random.h"

static iso_error err;

static float real(void)
{
    double sum = 0;
    for (int i = 0; i < 4; i++) sum += (double)(draw() >> 11) / 9007199254740992.0 - 0.5;
    return (float)sum;
}

/* ---- half precision, by its definition ---- */

static double half_value(uint16_t h)
{
    int exponent = h >> 10 & 31, fraction = h & 1023;
    double x = exponent == 31 ? (fraction ? NAN : INFINITY)
               : exponent     ? ldexp(1024 + fraction, exponent - 25)
                              : ldexp(fraction, -24);
    return h & 0x8000 ? -x : x;
}

static uint16_t half_from(float x)
{
    const uint16_t sign = signbit(x) ? 0x8000 : 0;
    const double size = fabs((double)x);
    if (!(size < 65520)) return sign | 0x7c00;
    int e = size < ldexp(1, -14) ? -14 : ilogb(size);
    int q = (int)nearbyint(ldexp(size, 10 - e)); /* ties to even */
    return (uint16_t)(sign | (q < 1024 ? q : ((e + 15) << 10) + q - 1024));
}

/* ---- rows of every code, and what their scores must be ---- */

typedef struct table {
    iso_code code;
    int dim;
    int64_t n;
    uint8_t *memory, *rows; /* rows: at an odd address, and its end is the end of the memory */
    float *w, *weight, *low, *step;
    iso_scan_query q;
    double *want; /* [n] */
    double slack;
} table;

static table table_make(iso_code code, int dim, int64_t n)
{
    table t = {.code = code, .dim = dim, .n = n};
    const size_t numbers = (size_t)n * (size_t)dim, bytes = numbers * (size_t)iso_code_bytes(code);
    double length = 0;
    t.memory = malloc(bytes + 1);
    t.rows = t.memory + 1;
    t.w = iso_calloc((size_t)dim, 4 * sizeof *t.w);
    t.weight = t.w + dim;
    t.low = t.w + 2 * dim;
    t.step = t.w + 3 * dim;
    t.want = iso_calloc((size_t)n, sizeof *t.want);
    assert_true(t.memory && t.w && t.want);
    for (int j = 0; j < dim; j++) {
        t.w[j] = real();
        t.low[j] = real();
        t.step[j] = fabsf(real()) / 255;
    }
    for (int64_t i = 0; i < n; i++) {
        double square = 0;
        for (int j = 0; j < dim; j++) {
            const size_t at = (size_t)i * (size_t)dim + (size_t)j;
            double x;
            float f = real();
            uint16_t h = half_from(f);
            uint8_t c = (uint8_t)draw();
            if (code == ISO_CODE_F32) memcpy(t.rows + 4 * at, &f, 4);
            if (code == ISO_CODE_F16) memcpy(t.rows + 2 * at, &h, 2);
            if (code == ISO_CODE_U8) t.rows[at] = c;
            x = code == ISO_CODE_F32 ? f : code == ISO_CODE_F16 ? half_value(h) : t.low[j] + (double)c * t.step[j];
            t.want[i] += t.w[j] * x;
            square += x * x;
        }
        length = fmax(length, sqrt(square));
    }
    t.q = code == ISO_CODE_U8 ? iso_scan_query_u8(dim, t.w, t.low, t.step, t.weight)
                              : (iso_scan_query){code, dim, t.w, 0};
    t.slack = iso_scan_slack(&t.q, length);
    return t;
}

static void table_free(table *t)
{
    free(t->memory);
    free(t->w);
    free(t->want);
}

/* The largest share of the slack that a score is off by. */
static double worst_of(const table *t, const float *scores, const int32_t *at, int64_t n)
{
    double worst = 0;
    for (int64_t i = 0; i < n; i++) {
        double off = fabs(scores[i] - t->want[at ? at[i] : i]);
        if (!(off <= worst)) worst = off;
    }
    return worst / t->slack;
}

/* ---- tests ---- */

static void each_isa(void (*run)(void))
{
    static const char *const names[] = {"portable", "avx2", "avx512"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (iso_isa_use(names[i])) run();
    assert_true(iso_isa_use(NULL));
}

static void check_kernels(void)
{
    float scores[64], alone[1];
    int32_t at[64];
    for (int code = 0; code < 3; code++) {
        for (int dim = 1; dim <= 300; dim += dim < 140 ? 1 : 7) {
            const int64_t n = 1 + (int64_t)(draw() % 40);
            table t = table_make((iso_code)code, dim, n);
            const size_t stride = (size_t)dim * (size_t)iso_code_bytes(t.code);
            iso_scan_scores(&t.q, t.rows, n, scores);
            if (!(worst_of(&t, scores, NULL, n) <= 1)) fail_msg("code %d, dim %d, %d rows", code, dim, (int)n);
            for (int64_t i = 0; i < n; i++) { /* a row's place and neighbours do not matter, to the last bit */
                iso_scan_scores(&t.q, t.rows + (size_t)i * stride, 1, alone);
                assert_memory_equal(alone, scores + i, sizeof *alone);
                at[i] = (int32_t)(draw() % (uint64_t)n);
            }
            float scattered[64];
            iso_scan_scores_at(&t.q, t.rows, at, n, scattered);
            for (int64_t i = 0; i < n; i++) assert_memory_equal(scattered + i, scores + at[i], sizeof *scores);
            table_free(&t);
        }
    }
}

static void test_kernels(void **unused)
{
    (void)unused;
    each_isa(check_kernels);
}

/* A kernel that leaves out the last number, or reads one too many, must be seen. */
static void test_the_check_itself(void **unused)
{
    (void)unused;
    float scores[30];
    for (int code = 0; code < 3; code++) {
        table t = table_make((iso_code)code, 33, 30);
        iso_scan_query shorter = t.q;
        shorter.dim = 32;
        for (int64_t i = 0; i < 30; i++)
            iso_scan_scores(&shorter, t.rows + i * 33 * iso_code_bytes(t.code), 1, scores + i);
        assert_true(worst_of(&t, scores, NULL, 30) > 1);
        table_free(&t);
    }
}

static int compare(const void *a, const void *b)
{
    const iso_ranked *x = a, *y = b;
    if (x->score != y->score) return x->score > y->score ? -1 : 1;
    return x->position < y->position ? -1 : x->position > y->position;
}

static void check_best(void)
{
    static const int64_t ks[] = {1, 2, 10, 42, 999, 5000, 100000};
    for (int code = 0; code < 3; code++) {
        const int64_t n = 5000 + (int64_t)(draw() % 9000);
        table t = table_make((iso_code)code, 37, n);
        const size_t stride = 37 * (size_t)iso_code_bytes(t.code);
        for (int64_t i = 0; i < n; i++) /* ties: one in three is the copy of a row among the first hundred */
            if (draw() % 3 == 0) memmove(t.rows + (size_t)i * stride, t.rows + (draw() % 100) * stride, stride);
        float *scores = malloc(sizeof *scores * (size_t)n);
        iso_ranked *want = malloc(sizeof *want * (size_t)n), *got = malloc(sizeof *got * 100000);
        iso_scan_scores(&t.q, t.rows, n, scores);
        for (int64_t i = 0; i < n; i++) want[i] = (iso_ranked){scores[i], i};
        qsort(want, (size_t)n, sizeof *want, compare);
        for (size_t i = 0; i < sizeof ks / sizeof *ks; i++)
            for (int threads = 1; threads <= 5; threads += 2) {
                int64_t found = -1, wanted = ks[i] < n ? ks[i] : n;
                omp_set_num_threads(threads);
                OK(iso_scan_best(&t.q, t.rows, n, ks[i], got, &found, &err));
                assert_int_equal(found, wanted);
                for (int64_t r = 0; r < wanted; r++)
                    if (got[r].score != want[r].score || got[r].position != want[r].position)
                        fail_msg("code %d, k %d, rank %d", code, (int)ks[i], (int)r);
            }
        free(scores);
        free(want);
        free(got);
        table_free(&t);
    }
    omp_set_num_threads(1);
}

static void test_best(void **unused)
{
    (void)unused;
    each_isa(check_best);
    int64_t found = -1;
    iso_ranked out[1];
    iso_scan_query q = {ISO_CODE_F32, 3, (const float[]){1, 2, 3}, 0};
    OK(iso_scan_best(&q, NULL, 0, 1, out, &found, &err));
    assert_int_equal(found, 0);
}

/* Offered in any order, with what is no number among them. */
static void test_offers(void **unused)
{
    (void)unused;
    iso_ranked heap[7], all[1000];
    float scores[1000];
    int32_t at[1000];
    for (int round = 0; round < 50; round++) {
        iso_best best = {7, 0, heap};
        int n = (int)(draw() % 1000), numbers = 0;
        for (int i = 0; i < n; i++) {
            at[i] = i;
            scores[i] = draw() % 10 == 0 ? NAN : draw() % 50 == 0 ? -INFINITY : (float)(draw() % 20);
        }
        for (int i = n - 1; i > 0; i--) { /* positions shuffled */
            int j = (int)(draw() % (uint64_t)(i + 1)), x = at[i];
            at[i] = at[j];
            at[j] = x;
        }
        for (int i = 0; i < n; i++)
            if (!isnan(scores[i])) all[numbers++] = (iso_ranked){scores[i], at[i]};
        if (numbers) qsort(all, (size_t)numbers, sizeof *all, compare);
        for (int i = 0; i < n; i += 100) iso_best_offer(&best, scores + i, n - i < 100 ? n - i : 100, 0, at + i);
        assert_int_equal(best.count, numbers < 7 ? numbers : 7);
        if (numbers < 7)
            assert_true(iso_best_least(&best) == -INFINITY);
        else
            assert_true(iso_best_least(&best) == all[6].score);
        iso_best_sort(&best);
        for (int i = 0; i < best.count; i++)
            assert_true(heap[i].score == all[i].score && heap[i].position == all[i].position);
    }
}

static void check_half(void)
{
    static uint16_t h[65536], back[65536];
    static float x[65536];
    for (int i = 0; i < 65536; i++) h[i] = (uint16_t)i;
    iso_half_load(65536, h, x);
    iso_half_store(65536, x, back);
    for (int i = 0; i < 65536; i++) {
        double want = half_value((uint16_t)i);
        if (isnan(want))
            assert_true(isnan(x[i]) && (back[i] & 0x7fff) > 0x7c00);
        else if (!(x[i] == want && back[i] == i))
            fail_msg("half %04x", i);
    }
    for (int i = 0; i < 65535;
         i++) { /* around each number that half precision has: the middle to the next, and beside it */
        float middle = (float)((half_value((uint16_t)i) + half_value((uint16_t)(i + 1))) / 2);
        x[i] = i % 3 == 0 ? middle : nextafterf(middle, i % 3 == 1 ? -INFINITY : INFINITY);
        if (!isfinite(x[i])) x[i] = 1;
    }
    for (int i = 0; i < 500; i++) x[draw() % 65535] = (float)ldexp(real(), (int)(draw() % 60) - 40);
    for (int64_t at = 0, n; at < 65535; at += n) { /* all lengths of the tail */
        n = at + 40 < 65535 ? 1 + (int64_t)(draw() % 40) : 65535 - at;
        iso_half_store(n, x + at, back + at);
    }
    for (int i = 0; i < 65535; i++)
        if (back[i] != half_from(x[i])) fail_msg("%a became %04x, not %04x", (double)x[i], back[i], half_from(x[i]));
}

static void test_half(void **unused)
{
    (void)unused;
    each_isa(check_half);
}

static int set_up(void **unused)
{
    (void)unused;
    begin_random(20222);
    printf("kernels up to %d\n", (int)iso_isa_of_processor());
    omp_set_num_threads(1);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_kernels), cmocka_unit_test(test_the_check_itself),
        cmocka_unit_test(test_best),    cmocka_unit_test(test_offers),
        cmocka_unit_test(test_half),
    };
    return cmocka_run_group_tests(tests, set_up, NULL);
}
