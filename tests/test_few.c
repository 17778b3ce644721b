/* test_few.c: precision with few examples against a plain implementation written from its definition, its draws, what is
 * left out, and the lists of numbers that are refused. */
#include <math.h>
#include <omp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "eval/few.h"
#include "eval/precision.h"
#include "model/philox.h"
#include "tests/check.h"
#include "tests/naive_contrast.h"
#include "tests/random.h"

static iso_error err;

typedef struct data {
    int dim, count;
    int64_t n, t;
    float *train, *test;
    uint8_t *has, *have; /* of train, of test */
} data;

/* Each attribute moves one coordinate, so that examples tell something. */
static void fill(const data *d, int64_t rows, float *x, uint8_t *has)
{
    for (int64_t i = 0; i < rows; i++) {
        for (int j = 0; j < d->dim; j++) x[i * d->dim + j] = (float)(4 * uniform() - 2);
        for (int a = 0; a < d->count; a++) {
            has[i * d->count + a] = uniform() < 0.1 + 0.5 * a / d->count;
            if (has[i * d->count + a]) x[i * d->dim + a % d->dim] += 2;
        }
    }
}

static data make(int dim, int64_t n, int64_t t, int count)
{
    data d = {.dim = dim, .count = count, .n = n, .t = t};
    d.train = iso_calloc((size_t)(n * dim), sizeof(float)), d.test = iso_calloc((size_t)(t * dim), sizeof(float));
    d.has = iso_calloc((size_t)(n * count), 1), d.have = iso_calloc((size_t)(t * count), 1);
    assert_true(d.train && d.test && d.has && d.have);
    fill(&d, n, d.train, d.has);
    fill(&d, t, d.test, d.have);
    return d;
}

static void drop(data *d) { free(d->train), free(d->test), free(d->has), free(d->have); }

static iso_few_options options(const char *list, int draws, uint64_t from)
{
    iso_few_options o;
    OK(iso_few_parse(list, draws, from, &o, &err));
    return o;
}

static iso_status run_with(const data *d, const iso_scorer *scorer, const iso_few_options *o, iso_few **f)
{
    const float **train = iso_vector_rows(d->dim, d->n, d->train), **test = iso_vector_rows(d->dim, d->t, d->test);
    assert_true(train && test);
    iso_status status = iso_few_precision(d->dim, d->n, train, d->has, d->t, test, d->have, d->count, scorer, o, f, &err);
    free(train), free(test);
    return status;
}
static iso_status all_examples(const data *d, const iso_scorer *scorer, iso_precision **p)
{
    const float **train = iso_vector_rows(d->dim, d->n, d->train), **test = iso_vector_rows(d->dim, d->t, d->test);
    assert_true(train && test);
    iso_status status = iso_precision_at_k(d->dim, d->n, train, d->has, d->t, test, d->have, d->count, scorer, p, &err);
    free(train), free(test);
    return status;
}
static iso_status run(const data *d, const iso_few_options *o, iso_few **f) { return run_with(d, NULL, o, f); }

/* ---- the definition: a shuffled list, one cosine at a time, the best picked ten times ---- */

static bool both(const uint8_t *row, int a, int b) { return row[a] && (b < 0 || row[b]); }

static double cosine(int dim, const float *x, const float *y)
{
    double xy = 0, xx = 0, yy = 0;
    for (int j = 0; j < dim; j++) xy += (double)x[j] * y[j], xx += (double)x[j] * x[j], yy += (double)y[j] * y[j];
    return xy / sqrt(xx * yy);
}

/* The examples of draw r in their order; the number of images that have the attributes. */
static int64_t shuffled(const data *d, const iso_few_options *o, int a, int b, int r, int64_t *image)
{
    int64_t q = 0;
    for (int64_t i = 0; i < d->n; i++)
        if (both(d->has + i * d->count, a, b)) image[q++] = i;
    iso_draw from = {o->seed, 0x30000, ((uint64_t)a << 40) + ((uint64_t)(b + 1) << 16) + (uint64_t)r};
    for (int64_t i = 0; i < q; i++) {
        int64_t j = i + (int64_t)iso_draw_below(from, (uint64_t)i, (uint64_t)(q - i)), kept = image[i];
        image[i] = image[j];
        image[j] = kept;
    }
    return q;
}

/* back NULL: sum. */
static double precision(const data *d, const background *back, int a, int b, const int64_t *image, int64_t n)
{
    double *score = iso_calloc((size_t)d->t, sizeof *score);
    double *w = iso_calloc((size_t)d->dim, sizeof *w);
    assert_true(score && w);
    if (back) naive_query(back, n, image, w);
    for (int64_t i = 0; back && i < d->t; i++) score[i] = naive_score(back, w, d->test + i * d->dim);
    for (int64_t i = 0; !back && i < d->t; i++)
        for (int64_t q = 0; q < n; q++) score[i] += cosine(d->dim, d->train + image[q] * d->dim, d->test + i * d->dim);
    int top = d->t < 10 ? (int)d->t : 10, hits = 0;
    for (int r = 0; r < top; r++) {
        int64_t best = 0;
        for (int64_t i = 1; i < d->t; i++)
            if (score[i] > score[best]) best = i;
        hits += both(d->have + best * d->count, a, b);
        score[best] = -INFINITY;
    }
    free(score), free(w);
    return (double)hits / top;
}

/* Within rounding, which a square root of a difference makes 1e-8. */
static bool near(double x, double y) { return (isnan(x) && isnan(y)) || fabs(x - y) <= 1e-7; }

/* Figures of one row that differ from the definition. */
static int row_differences(const data *d, const background *back, const iso_few_options *o, const iso_few_row *row)
{
    int wrong = 0;
    int64_t *image = iso_calloc((size_t)d->n, sizeof *image);
    double *p = iso_calloc((size_t)o->draws, sizeof *p);
    assert_true(image && p);
    for (int s = 0; s < o->sizes; s++) {
        double mean = 0, squares = 0;
        for (int r = 0; r < o->draws; r++) {
            int64_t q = shuffled(d, o, row->a, row->b, r, image);
            p[r] = q < o->size[s] ? NAN : precision(d, back, row->a, row->b, image, o->size[s]);
            mean += p[r] / o->draws;
        }
        for (int r = 0; r < o->draws; r++) squares += (p[r] - mean) * (p[r] - mean);
        wrong += !near(row->mean[s], mean) + !near(row->deviation[s], o->draws > 1 ? sqrt(squares / (o->draws - 1)) : NAN);
    }
    free(image), free(p);
    return wrong;
}

static int mean_differences(const iso_few *f, const iso_few_row *row, int n, const iso_few_mean *got)
{
    int wrong = 0;
    for (int s = 0; s < f->options.sizes; s++) {
        double sum = 0, variance = 0;
        int rows = 0;
        for (int i = 0; i < n; i++)
            if (row[i].queries >= f->options.size[s]) rows++, sum += row[i].mean[s], variance += pow(row[i].deviation[s], 2);
        wrong += got[s].rows != rows || !near(got[s].mean, rows ? sum / rows : NAN);
        wrong += !near(got[s].error, rows ? sqrt(variance / f->options.draws) / rows : NAN);
    }
    return wrong;
}

static int differences_from(const data *d, const background *back, const iso_few *f)
{
    iso_precision *p;
    OK(all_examples(d, back ? back->scorer : NULL, &p));
    int wrong = p->singles != f->singles || p->doubles != f->doubles;
    for (int i = 0; i < f->singles + f->doubles && !wrong; i++) {
        const iso_few_row *row = i < f->singles ? f->single + i : f->dbl + (i - f->singles);
        const iso_precision_row *like = i < f->singles ? p->single + i : p->dbl + (i - f->singles);
        wrong += row->a != like->a || row->b != like->b || row->queries != like->queries || row->relevant != like->relevant;
        wrong += row_differences(d, back, &f->options, row);
    }
    iso_precision_free(p);
    return wrong + mean_differences(f, f->single, f->singles, f->single_mean) + mean_differences(f, f->dbl, f->doubles, f->double_mean);
}

static int differences(const data *d, const iso_few *f) { return differences_from(d, NULL, f); }

static void follows_the_definition(void **unused)
{
    (void)unused;
    static const struct { int dim; int64_t n, t; int count; const char *list; int draws; } at[] = {
        {1, 3, 2, 1, "1,2", 3}, {5, 60, 80, 4, "7,1,3", 5}, {17, 90, 120, 5, "1,30,5,1000", 4}, {8, 40, 7, 3, "2", 1}, {33, 150, 60, 6, "1,2,40", 3},
    };
    for (size_t i = 0; i < sizeof at / sizeof *at; i++) {
        data d = make(at[i].dim, at[i].n, at[i].t, at[i].count);
        if (i == 2) for (int64_t q = 1; q < d.n; q++) d.has[q * d.count + 2] = 0; /* at most one training image */
        iso_few_options o = options(at[i].list, at[i].draws, draw());
        iso_few *f;
        OK(run(&d, &o, &f));
        assert_int_equal(differences(&d, f), 0);
        iso_few_free(f);
        drop(&d);
    }
}

/* Every draw has the shrinkage of its own n. */
static void contrast_follows_the_definition(void **unused)
{
    (void)unused;
    static const struct { int dim; int64_t n, t; int count; const char *list; int draws; } at[] = {
        {3, 60, 80, 4, "7,1,3", 5}, {17, 90, 120, 4, "1,30,5,1000", 3}, {24, 40, 60, 3, "2", 1},
    };
    for (size_t i = 0; i < sizeof at / sizeof *at; i++) {
        data d = make(at[i].dim, at[i].n, at[i].t, at[i].count);
        for (int64_t q = 0; q < d.n; q++) d.train[q * d.dim] *= 6;
        for (int64_t q = 0; q < d.t; q++) d.test[q * d.dim] *= 6;
        background back = background_of(d.dim, d.n, d.train, d.t, d.test);
        iso_few_options o = options(at[i].list, at[i].draws, draw());
        iso_few *f, *sum;
        OK(run_with(&d, back.scorer, &o, &f));
        OK(run(&d, &o, &sum));
        assert_int_equal(differences_from(&d, &back, f), 0);
        assert_int_not_equal(differences_from(&d, &back, sum), 0); /* the check sees a wrong answer */
        iso_few_free(f);
        iso_few_free(sum);
        background_free(&back);
        drop(&d);
    }
}

/* Two opposite examples: alone each has a direction, together they have none. */
static void draws_without_direction_are_left_out(void **unused)
{
    (void)unused;
    data d = make(3, 30, 40, 2);
    for (int64_t q = 0; q < d.n; q++) d.has[q * 2] = q < 2, d.has[q * 2 + 1] = q >= 2;
    for (int j = 0; j < 3; j++) d.train[3 + j] = -3 * d.train[j];
    iso_few_options o = options("1,2", 6, 0);
    iso_few *f;
    OK(run(&d, &o, &f));
    assert_true(f->singles == 2 && f->single[0].queries == 2);
    assert_true(f->single[0].lost[0] == 0 && f->single[0].lost[1] == 6 && isnan(f->single[0].mean[1]) && !isnan(f->single[0].mean[0]));
    assert_true(f->single_mean[0].rows == 2 && f->single_mean[1].rows == 1 && f->single_mean[1].mean == f->single[1].mean[1]);
    iso_few_free(f);
    background back = background_of(3, 2, d.train, 0, NULL); /* the whole database under contrast */
    OK(run_with(&d, back.scorer, &o, &f));
    assert_true(f->single[0].lost[1] == 6 && f->single[1].lost[1] == 0);
    iso_few_free(f);
    background_free(&back);
    drop(&d);
}

/* The check above must see a wrong answer: here that of another seed. */
static void a_wrong_answer_is_seen(void **unused)
{
    (void)unused;
    data d = make(8, 200, 150, 6);
    iso_few_options o = options("1,5", 4, 1);
    iso_few *f;
    OK(run(&d, &o, &f));
    assert_int_equal(differences(&d, f), 0);
    f->options.seed = 2;
    assert_int_not_equal(differences(&d, f), 0);
    iso_few_free(f);
    drop(&d);
}

/* With all examples a draw is the protocol itself. */
static void all_examples_are_the_whole_protocol(void **unused)
{
    (void)unused;
    data d = make(9, 50, 100, 1);
    memset(d.has, 1, (size_t)d.n);
    d.have[0] = 1;
    iso_few_options o = options("50,51", 6, 0);
    iso_few *f;
    iso_precision *p;
    OK(run(&d, &o, &f));
    OK(all_examples(&d, NULL, &p));
    assert_int_equal(f->singles, 1);
    assert_true(near(f->single[0].mean[0], p->single[0].at[2]) && f->single[0].deviation[0] == 0 && f->single_mean[0].error == 0);
    assert_true(f->single_mean[1].rows == 0 && isnan(f->single_mean[1].mean) && isnan(f->single[0].mean[1]));
    iso_few_free(f);
    iso_precision_free(p);
    drop(&d);
}

static bool same(const iso_few_row *x, int i, const iso_few_row *y, int j)
{
    return memcmp(&x->mean[i], &y->mean[j], sizeof(double)) == 0 && memcmp(&x->deviation[i], &y->deviation[j], sizeof(double)) == 0;
}

/* Neither other n nor the number of threads. */
static void nothing_else_changes_a_figure(void **unused)
{
    (void)unused;
    data d = make(19, 300, 170, 5);
    iso_few_options few = options("5,20", 7, 3), many = options("50,20,1,5,2", 7, 3);
    iso_few *f[3];
    OK(run(&d, &few, &f[0]));
    omp_set_num_threads(1);
    OK(run(&d, &many, &f[1]));
    omp_set_num_threads(3);
    OK(run(&d, &many, &f[2]));
    omp_set_num_threads(omp_get_num_procs());
    for (int i = 0; i < f[0]->singles; i++)
        assert_true(same(f[0]->single + i, 0, f[1]->single + i, 3) && same(f[0]->single + i, 1, f[1]->single + i, 1));
    for (int i = 0; i < f[0]->doubles; i++)
        assert_true(same(f[0]->dbl + i, 0, f[1]->dbl + i, 3) && same(f[0]->dbl + i, 1, f[1]->dbl + i, 1));
    assert_memory_equal(f[1]->single, f[2]->single, (size_t)f[1]->singles * sizeof *f[1]->single);
    assert_memory_equal(f[1]->dbl, f[2]->dbl, (size_t)f[1]->doubles * sizeof *f[1]->dbl);
    for (int s = 0; s < many.sizes; s++) {
        const iso_few_mean *x = f[1]->double_mean + s, *y = f[2]->double_mean + s;
        assert_true(x->rows == y->rows && memcmp(&x->mean, &y->mean, sizeof x->mean) == 0 && memcmp(&x->error, &y->error, sizeof x->error) == 0);
    }
    for (int i = 0; i < 3; i++) iso_few_free(f[i]);
    drop(&d);
}

typedef struct heard {
    iso_progress progress; /* first: hear() is given it */
    int calls;
    int64_t done, total;
} heard;

static void hear(iso_progress *p)
{
    heard *h = (heard *)p;
    assert_true(h->calls++ ? p->done >= h->done && p->total == h->total : p->done == 0);
    h->done = p->done, h->total = p->total;
}

/* All that is asked is told, from nothing on. */
static void progress_is_told(void **unused)
{
    (void)unused;
    data d = make(5, 60, 50, 4);
    heard h = {.progress.show = hear};
    iso_few_options o = options("1,2000,3", 200, 3);
    o.progress = &h.progress;
    iso_few *f;
    OK(run(&d, &o, &f));
    int64_t asked = 0;
    for (int i = 0; i < f->singles; i++) asked += 200 * ((f->single[i].queries >= 1) + (f->single[i].queries >= 3));
    for (int i = 0; i < f->doubles; i++) asked += 200 * ((f->dbl[i].queries >= 1) + (f->dbl[i].queries >= 3));
    assert_true(asked > 1024 && h.calls > 2);
    assert_true(h.done == asked && h.total == asked);
    assert_null(f->options.progress);
    iso_few_free(f);
    drop(&d);
}

/* Every holder is drawn about equally often: with one example the answer is known from the example alone. */
static void draws_are_uniform(void **unused)
{
    (void)unused;
    enum { HOLDERS = 8, DRAWS = 4000 };
    /* Ten test images point where each example does; of example e's ten, e + 1 are relevant. */
    data d = make(HOLDERS, HOLDERS, HOLDERS * 10, 1);
    memset(d.has, 1, HOLDERS);
    for (int i = 0; i < HOLDERS; i++)
        for (int j = 0; j < HOLDERS; j++) d.train[i * HOLDERS + j] = i == j;
    for (int i = 0; i < HOLDERS * 10; i++) {
        for (int j = 0; j < HOLDERS; j++) d.test[i * HOLDERS + j] = i / 10 == j;
        d.have[i] = i % 10 <= i / 10;
    }
    iso_few_options o = options("1", DRAWS, seed);
    iso_few *f;
    OK(run(&d, &o, &f));
    double mean = (HOLDERS + 1) / 20.0, deviation = sqrt((HOLDERS * HOLDERS - 1) / 12.0) / 10;
    assert_true(fabs(f->single[0].mean[0] - mean) <= 5 * deviation / sqrt(DRAWS));
    assert_true(fabs(f->single[0].deviation[0] / deviation - 1) <= 0.1);
    iso_few_free(f);
    drop(&d);
}

static void refused(const char *list, const char *why)
{
    iso_few_options o = {.draws = -7};
    assert_int_equal(iso_few_parse(list, 20, 0, &o, &err), ISO_E_ARGUMENT);
    if (!strstr(err.message, why)) fail_msg("'%s': %s", list, err.message);
    assert_int_equal(o.draws, -7);
}

static void lists_are_checked(void **unused)
{
    (void)unused;
    iso_few_options o = options("1,5,010,200", 20, 9);
    assert_true(o.sizes == 4 && o.size[2] == 10 && o.size[3] == 200 && o.draws == 20 && o.seed == 9);
    assert_int_equal(options("1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16", 1, 0).sizes, 16);
    assert_int_equal(options("1", ISO_FEW_DRAWS, 0).draws, ISO_FEW_DRAWS);
    refused("1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17", "at most 16");
    static const char *const not_numbers[] = {"", ",", "5,", ",5", "1,,5", "-3", "+3", "1 5", "1, 5", "1.5", "x"};
    for (size_t i = 0; i < sizeof not_numbers / sizeof *not_numbers; i++) refused(not_numbers[i], "whole numbers");
    refused("3,0", "at least 1");
    refused("5,1,5", "5 examples are asked for twice");
    refused("99999999999999999999", "too many");
    data d = make(3, 10, 10, 2);
    iso_few *f = NULL;
    o = (iso_few_options){.draws = 3};
    assert_int_equal(run(&d, &o, &f), ISO_E_ARGUMENT);
    o = options("1", 1, 0), o.draws = 0;
    assert_int_equal(run(&d, &o, &f), ISO_E_ARGUMENT);
    o.draws = ISO_FEW_DRAWS + 1;
    assert_int_equal(run(&d, &o, &f), ISO_E_ARGUMENT);
    o.draws = 1, o.size[0] = -1;
    assert_int_equal(run(&d, &o, &f), ISO_E_ARGUMENT);
    o.size[0] = 1, d.test[4] = INFINITY;
    assert_int_equal(run(&d, &o, &f), ISO_E_NUMERIC);
    assert_non_null(strstr(err.message, "test vector 1"));
    d.t = 0;
    assert_int_equal(run(&d, &o, &f), ISO_E_ARGUMENT);
    assert_null(f);
    iso_few_free(NULL);
    drop(&d);
}

int main(void)
{
    begin_random(20221);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(follows_the_definition),        cmocka_unit_test(a_wrong_answer_is_seen),
        cmocka_unit_test(all_examples_are_the_whole_protocol), cmocka_unit_test(progress_is_told), cmocka_unit_test(nothing_else_changes_a_figure),
        cmocka_unit_test(draws_are_uniform),             cmocka_unit_test(lists_are_checked),
        cmocka_unit_test(contrast_follows_the_definition), cmocka_unit_test(draws_without_direction_are_left_out),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
