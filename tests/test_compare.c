/* test_compare.c: runs summed up over seeds, the bootstrap against a plain one and against what is known of it, and the images
 * that databases have in common. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "eval/compare.h"
#include "model/philox.h"
#include "tests/check.h"
#include "tests/random.h"

static iso_error err;

enum { SINGLES = 9, SIZES = 2 };

/* Attributes 1, 3, 5, ...; every other pair of them. */
typedef struct made {
    iso_precision p;
    iso_few f;
} made;

static made *make(int singles)
{
    made *m = iso_calloc(1, sizeof *m);
    assert_non_null(m);
    m->p.single = iso_calloc((size_t)singles, sizeof *m->p.single),
    m->f.single = iso_calloc((size_t)singles, sizeof *m->f.single);
    m->p.dbl = iso_calloc((size_t)(singles * singles), sizeof *m->p.dbl),
    m->f.dbl = iso_calloc((size_t)(singles * singles), sizeof *m->f.dbl);
    assert_true(m->p.single && m->p.dbl && m->f.single && m->f.dbl);
    m->f.options = (iso_few_options){.sizes = SIZES, .size = {5, 1}, .draws = 3};
    for (int a = 0; a < singles; a++)
        for (int b = a; b < singles; b++) {
            if (a != b && (a + b) % 2 == 0) continue;
            bool pair = a != b;
            int i = pair ? m->p.doubles++ : m->p.singles++;
            iso_precision_row *row = (pair ? m->p.dbl : m->p.single) + i;
            iso_few_row *few = (pair ? m->f.dbl : m->f.single) + i;
            *row = (iso_precision_row){
                .a = 2 * a + 1, .b = pair ? 2 * b + 1 : -1, .relevant = 10 + a + b, .chance = 0.01 * (a + b + 1)};
            *few = (iso_few_row){.a = row->a, .b = row->b, .relevant = row->relevant};
            for (int k = 0; k < ISO_KS; k++) row->at[k] = uniform();
            for (int s = 0; s < SIZES; s++) few->mean[s] = uniform();
        }
    m->f.singles = m->p.singles, m->f.doubles = m->p.doubles;
    return m;
}

static void drop(made *m)
{
    free(m->p.single), free(m->p.dbl), free(m->f.single), free(m->f.dbl);
    free(m);
}

static void sum_up(int runs, made **m, int resamples, uint64_t from, iso_summary *out)
{
    const iso_precision *p[8];
    const iso_few *f[8];
    for (int r = 0; r < runs; r++) p[r] = &m[r]->p, f[r] = &m[r]->f;
    OK(iso_compare_sum_up(runs, p, f, resamples, from, out, &err));
}

/* ---- plainly ---- */

static double value(const made *m, bool pairs, int i, int column)
{
    if (column < ISO_KS) return (pairs ? m->p.dbl : m->p.single)[i].at[column];
    return (pairs ? m->f.dbl : m->f.single)[i].mean[column - ISO_KS];
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

/* A resample is a list of attributes; each pair of its members that is a pair of the table counts. */
static double resampled(int runs, made **m, bool pairs, int column, uint64_t from, int number)
{
    const iso_precision *p = &m[0]->p;
    int n = p->singles;
    int *drawn = iso_calloc((size_t)n, sizeof *drawn);
    double sum = 0, count = 0;
    for (int i = 0; i < n; i++)
        drawn[i] = p->single[iso_draw_below((iso_draw){from, 0x30001, (uint64_t)number}, (uint64_t)i, (uint64_t)n)].a;
    for (int set = 0; set < (pairs ? p->doubles : n); set++) {
        const iso_precision_row *row = (pairs ? p->dbl : p->single) + set;
        double mean = 0;
        for (int r = 0; r < runs; r++) mean += value(m[r], pairs, set, column) / runs;
        if (isnan(mean)) continue;
        for (int i = 0; i < n; i++)
            for (int j = 0; j < (pairs ? n : 1); j++)
                if (drawn[i] == row->a && (!pairs || drawn[j] == row->b)) sum += mean, count++;
    }
    free(drawn);
    return sum / count;
}

static bool near(double x, double y) { return (isnan(x) && isnan(y)) || fabs(x - y) <= 1e-12; }

/* Figures of a column that differ from the definition. */
static int differences(int runs, made **m, bool pairs, int column, int resamples, uint64_t from, const iso_figure *got)
{
    double run[8] = {0}, mean = 0, square = 0;
    int sets = 0;
    for (int i = 0; i < (pairs ? m[0]->p.doubles : m[0]->p.singles); i++) {
        double all = 0;
        for (int r = 0; r < runs; r++) all += value(m[r], pairs, i, column);
        if (isnan(all)) continue;
        sets++;
        for (int r = 0; r < runs; r++) run[r] += value(m[r], pairs, i, column);
    }
    for (int r = 0; r < runs; r++) mean += run[r] / sets / runs;
    for (int r = 0; r < runs; r++) square += pow(run[r] / sets - mean, 2);
    int wrong = !near(got->mean, mean) + !near(got->deviation, runs > 1 ? sqrt(square / (runs - 1)) : NAN);
    double *x = iso_calloc((size_t)resamples, sizeof *x);
    int n = 0;
    for (int b = 0; b < resamples; b++) {
        x[n] = resampled(runs, m, pairs, column, from, b);
        n += !isnan(x[n]);
    }
    qsort(x, (size_t)n, sizeof *x, ascending);
    double at[] = {0.025 * (n - 1), 0.975 * (n - 1)}, want[2];
    for (int i = 0; i < 2; i++) want[i] = x[(int)at[i]] + (at[i] - floor(at[i])) * (x[(int)at[i] + 1] - x[(int)at[i]]);
    free(x);
    return wrong + !near(got->low, want[0]) + !near(got->high, want[1]);
}

static int all_differences(int runs, made **m, int resamples, uint64_t from, const iso_summary *s)
{
    int wrong = s->runs != runs;
    for (int pairs = 0; pairs < 2; pairs++) {
        const iso_half *h = pairs ? &s->dbl : &s->single;
        for (int c = 0; c < ISO_KS + SIZES; c++)
            wrong += differences(runs, m, pairs, c, resamples, from, c < ISO_KS ? h->at + c : h->few + (c - ISO_KS));
    }
    return wrong;
}

static void follows_the_definition(void **unused)
{
    (void)unused;
    for (int runs = 1; runs <= 3; runs++) {
        made *m[3];
        iso_summary s;
        for (int r = 0; r < runs; r++) m[r] = make(SINGLES);
        sum_up(runs, m, 101, 7, &s);
        assert_int_equal(s.single.sets, SINGLES);
        assert_int_equal(s.dbl.sets, m[0]->p.doubles);
        assert_int_equal(all_differences(runs, m, 101, 7, &s), 0);
        m[0]->p.single[2].at[1] += 0.01; /* the check sees a wrong answer */
        assert_int_not_equal(all_differences(runs, m, 101, 7, &s), 0);
        for (int r = 0; r < runs; r++) drop(m[r]);
    }
}

/* A set that one run has no figure of is no part of the row. */
static void a_missing_figure_leaves_its_set_out(void **unused)
{
    (void)unused;
    made *m[2] = {make(SINGLES), make(SINGLES)};
    iso_summary s;
    const iso_precision *p[] = {&m[0]->p, &m[1]->p};
    const iso_few *f[] = {&m[0]->f, &m[1]->f};
    for (int k = 0; k < ISO_KS; k++) m[1]->p.single[4].at[k] = NAN, m[0]->p.dbl[0].at[k] = NAN;
    m[0]->f.single[1].mean[1] = m[0]->f.single[2].mean[1] = NAN;
    sum_up(2, m, 60, 1, &s);
    assert_true(s.single.sets == SINGLES - 1 && s.dbl.sets == m[0]->p.doubles - 1);
    assert_true(s.single.few_sets[0] == SINGLES && s.single.few_sets[1] == SINGLES - 2);
    assert_int_equal(all_differences(2, m, 60, 1, &s), 0);
    double chance = 0, of_pairs = 0;
    for (int i = 0; i < SINGLES; i++) chance += i == 4 ? 0 : m[0]->p.single[i].chance / (SINGLES - 1);
    for (int i = 1; i < m[0]->p.doubles; i++) of_pairs += m[0]->p.dbl[i].chance / (m[0]->p.doubles - 1);
    assert_true(near(s.single.chance, chance) && near(s.dbl.chance, of_pairs) && !near(chance, of_pairs));
    double all = 0, of_few = 0;
    for (int i = 0; i < SINGLES; i++) {
        all += m[0]->p.single[i].chance / SINGLES;
        of_few += i == 1 || i == 2 ? 0 : m[0]->p.single[i].chance / (SINGLES - 2);
    }
    assert_true(near(s.single.few_chance[0], all) && near(s.single.few_chance[1], of_few) && !near(all, of_few));
    assert_true(isnan(iso_compare_at(2, p, false, 4, 0)) &&
                near(iso_compare_at(2, p, true, 3, 1), (p[0]->dbl[3].at[1] + p[1]->dbl[3].at[1]) / 2));
    assert_true(isnan(iso_compare_few_at(2, f, false, 1, 1)) &&
                near(iso_compare_few_at(2, f, false, 1, 0), (f[0]->single[1].mean[0] + f[1]->single[1].mean[0]) / 2));
    for (int i = 0; i < SINGLES; i++) m[0]->p.single[i].at[2] = NAN;
    sum_up(2, m, 60, 1, &s);
    assert_true(isnan(s.single.at[2].mean) && isnan(s.single.at[2].low) && isnan(s.single.at[2].deviation));
    drop(m[0]), drop(m[1]);
}

static void equal_figures_have_no_width(void **unused)
{
    (void)unused;
    made *m = make(SINGLES);
    iso_summary s;
    for (int i = 0; i < m->p.singles; i++) m->p.single[i].at[0] = 0.37;
    for (int i = 0; i < m->p.doubles; i++) m->p.dbl[i].at[0] = 0.25;
    sum_up(1, &m, 500, 3, &s);
    assert_true(near(s.single.at[0].low, 0.37) && near(s.single.at[0].high, 0.37) && near(s.dbl.at[0].low, 0.25) &&
                near(s.dbl.at[0].high, 0.25));
    assert_true(s.single.at[1].low < s.single.at[1].mean && s.single.at[1].mean < s.single.at[1].high);
    drop(m);
}

/* The mean of n figures of 0 or 1, half of each, is that of n coins: its 95 % lie within 1.96 / sqrt(4 n) of a half. */
static void coins_have_the_width_of_coins(void **unused)
{
    (void)unused;
    enum { COINS = 100 };
    made *m = make(COINS);
    iso_summary s;
    for (int i = 0; i < COINS; i++) m->p.single[i].at[0] = i % 2;
    sum_up(1, &m, 4000, seed, &s);
    double half = 1.96 / sqrt(4 * COINS);
    assert_true(fabs(s.single.at[0].low - (0.5 - half)) <= 0.021 && fabs(s.single.at[0].high - (0.5 + half)) <= 0.021);
    drop(m);
}

static void the_seed_decides(void **unused)
{
    (void)unused;
    made *m = make(SINGLES);
    iso_summary s[3];
    sum_up(1, &m, 300, 5, &s[0]);
    sum_up(1, &m, 300, 5, &s[1]);
    sum_up(1, &m, 300, 6, &s[2]);
    assert_memory_equal(s[0].single.at, s[1].single.at, sizeof s[0].single.at);
    assert_true(s[0].single.at[1].low != s[2].single.at[1].low && s[0].single.at[1].mean == s[2].single.at[1].mean);
    sum_up(1, &m, 0, 5, &s[0]);
    assert_true(isnan(s[0].single.at[1].low) && isnan(s[0].dbl.at[1].high) &&
                s[0].single.at[1].mean == s[1].single.at[1].mean);
    drop(m);
}

/* One attribute tells nothing of others: no interval. */
static void a_single_set_has_no_interval(void **unused)
{
    (void)unused;
    made *m = make(2);
    iso_summary s;
    sum_up(1, &m, 200, 0, &s);
    assert_true(s.single.sets == 2 && s.dbl.sets == 1);
    assert_true(!isnan(s.single.at[0].low) && isnan(s.dbl.at[0].low) && !isnan(s.dbl.at[0].mean));
    drop(m);
}

static void what_does_not_fit_is_refused(void **unused)
{
    (void)unused;
    made *m[2] = {make(SINGLES), make(SINGLES - 1)};
    const iso_precision *p[] = {&m[0]->p, &m[1]->p};
    const iso_few *f[] = {&m[0]->f, &m[1]->f};
    iso_summary s = {.runs = -3};
    assert_int_equal(iso_compare_sum_up(2, p, NULL, 10, 0, &s, &err), ISO_E_MISMATCH);
    assert_int_equal(iso_compare_sum_up(0, p, NULL, 10, 0, &s, &err), ISO_E_ARGUMENT);
    assert_int_equal(iso_compare_sum_up(1, p, f + 1, 10, 0, &s, &err), ISO_E_MISMATCH);
    assert_int_equal(iso_compare_sum_up(1, p, NULL, -1, 0, &s, &err), ISO_E_ARGUMENT);
    assert_int_equal(iso_compare_sum_up(1, p, NULL, ISO_COMPARE_RESAMPLES + 1, 0, &s, &err), ISO_E_ARGUMENT);
    m[0]->p.dbl[0].b = 1000; /* a pair of an attribute that is none of the single ones */
    assert_int_equal(iso_compare_sum_up(1, p, NULL, 10, 0, &s, &err), ISO_E_ARGUMENT);
    assert_int_equal(s.runs, -3);
    drop(m[0]), drop(m[1]);
}

static void common_rows(void **unused)
{
    (void)unused;
    int64_t first[] = {1, 4, 7, 9}, second[] = {0, 4, 7, 8};
    iso_split a = {.count = 4, .row = first}, b = {.count = 4, .row = second}, none = {0};
    iso_rows x, y, z;
    OK(iso_rows_of(&a, &x, &err));
    OK(iso_rows_of(&b, &y, &err));
    OK(iso_rows_of(&none, &z, &err));
    assert_true(x.count == 4 && x.row[0] == 1 && x.row[1] == 4 && x.row[2] == 7 && x.row[3] == 9);
    iso_rows_common(&x, &y);
    assert_true(x.count == 2 && x.row[0] == 4 && x.row[1] == 7);
    iso_rows_common(&x, &z);
    assert_true(x.count == 0);
    iso_rows_free(&x), iso_rows_free(&y), iso_rows_free(&z);
}

int main(void)
{
    begin_random(20221);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(follows_the_definition),
        cmocka_unit_test(a_missing_figure_leaves_its_set_out),
        cmocka_unit_test(equal_figures_have_no_width),
        cmocka_unit_test(coins_have_the_width_of_coins),
        cmocka_unit_test(the_seed_decides),
        cmocka_unit_test(a_single_set_has_no_interval),
        cmocka_unit_test(what_does_not_fit_is_refused),
        cmocka_unit_test(common_rows),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
