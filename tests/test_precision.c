/* test_precision.c: the retrieval protocol against a plain one written from its definition, golden values, ties, what is
 * left out, and a database put beside a data set's files. */
#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/isa.h"
#include "base/memory.h"
#include "eval/evaluate.h"
#include "eval/protocol.h"
#include "indexer/dataset.h"
#include "model/safetensors.h"
#include "tests/check.h"
#include "tests/folder.h"
#include "tests/naive_contrast.h"
#include "tests/random.h"

static char base[512];
static iso_error err;

typedef struct data {
    int dim, count;
    int64_t n, t;
    float *train, *test;
    uint8_t *has, *have; /* of train, of test */
} data;

static data make(int dim, int64_t n, int64_t t, int count)
{
    data d = {.dim = dim, .count = count, .n = n, .t = t};
    d.train = iso_calloc((size_t)(n * dim), sizeof(float)), d.test = iso_calloc((size_t)(t * dim), sizeof(float));
    d.has = iso_calloc((size_t)(n * count), 1), d.have = iso_calloc((size_t)(t * count), 1);
    assert_true(d.train && d.test && d.has && d.have);
    for (int64_t i = 0; i < n * dim; i++) d.train[i] = (float)(4 * uniform() - 2);
    for (int64_t i = 0; i < t * dim; i++) d.test[i] = (float)(4 * uniform() - 2);
    for (int64_t i = 0; i < n * count; i++) d.has[i] = uniform() < 0.05 + 0.9 * (double)(i % count) / count;
    for (int64_t i = 0; i < t * count; i++) d.have[i] = uniform() < 0.05 + 0.9 * (double)(i % count) / count;
    return d;
}

static void drop(data *d) { free(d->train), free(d->test), free(d->has), free(d->have); }

static iso_status run_with(const data *d, const iso_scorer *scorer, iso_precision **p)
{
    const float **train = iso_vector_rows(d->dim, d->n, d->train), **test = iso_vector_rows(d->dim, d->t, d->test);
    assert_true(train && test);
    iso_status status = iso_precision_at_k(d->dim, d->n, train, d->has, d->t, test, d->have, d->count, scorer, p, &err);
    free(train), free(test);
    return status;
}
static iso_status run(const data *d, iso_precision **p) { return run_with(d, NULL, p); }

/* ---- the definition, word by word: one cosine at a time, a full sort ---- */

static bool both(const uint8_t *row, int a, int b) { return row[a] && (b < 0 || row[b]); }

static double cosine(int dim, const float *x, const float *y)
{
    double xy = 0, xx = 0, yy = 0;
    for (int j = 0; j < dim; j++) xy += (double)x[j] * y[j], xx += (double)x[j] * x[j], yy += (double)y[j] * y[j];
    return xy / sqrt(xx * yy);
}

typedef struct ranked { double score; int64_t row; } ranked;
static int better(const void *a, const void *b)
{
    const ranked *x = a, *y = b;
    return x->score > y->score ? -1 : x->score < y->score ? 1 : x->row < y->row ? -1 : 1;
}

/* back NULL: sum. */
static void plain(const data *d, const background *back, int a, int b, double at[ISO_KS])
{
    ranked *r = iso_calloc((size_t)d->t, sizeof *r);
    int64_t *example = iso_calloc((size_t)d->n, sizeof *example), examples = 0;
    double *w = iso_calloc((size_t)d->dim, sizeof *w);
    assert_true(r && example && w);
    for (int64_t q = 0; q < d->n; q++)
        if (both(d->has + q * d->count, a, b)) example[examples++] = q;
    if (back) naive_query(back, examples, example, w);
    for (int64_t i = 0; i < d->t; i++) {
        r[i].row = i;
        if (back) r[i].score = naive_score(back, w, d->test + i * d->dim);
        for (int64_t q = 0; !back && q < d->n; q++)
            if (both(d->has + q * d->count, a, b)) r[i].score += cosine(d->dim, d->train + q * d->dim, d->test + i * d->dim);
    }
    qsort(r, (size_t)d->t, sizeof *r, better);
    for (int k = 0; k < ISO_KS; k++) {
        int64_t top = iso_precision_k[k] < d->t ? iso_precision_k[k] : d->t, hits = 0;
        for (int64_t i = 0; i < top; i++) hits += both(d->have + r[i].row * d->count, a, b);
        at[k] = (double)hits / (double)top;
    }
    free(r), free(example), free(w);
}

static int64_t holders(int64_t n, const uint8_t *attributes, int count, int a, int b)
{
    int64_t sum = 0;
    for (int64_t i = 0; i < n; i++) sum += both(attributes + i * count, a, b);
    return sum;
}

/* Rows that differ from the definition. */
static int differences_from(const data *d, const background *back, const iso_precision *p)
{
    int wrong = 0, singles = 0, doubles = 0, left = 0;
    for (int a = 0; a < d->count; a++)
        for (int b = -1; b < d->count; b = b < 0 ? a + 1 : b + 1) {
            int64_t queries = holders(d->n, d->has, d->count, a, b), relevant = holders(d->t, d->have, d->count, a, b);
            bool in = queries && relevant && (b < 0 || (relevant > 0.01 * (double)d->t && relevant < 0.5 * (double)d->t));
            if (!in && b < 0) wrong += left >= p->left_out || p->left[left] != a, left++;
            if (!in) continue;
            int i = b < 0 ? singles++ : doubles++;
            if (i >= (b < 0 ? p->singles : p->doubles)) return -1;
            const iso_precision_row *row = (b < 0 ? p->single : p->dbl) + i;
            double at[ISO_KS];
            plain(d, back, a, b, at);
            wrong += row->a != a || row->b != b || row->queries != queries || row->relevant != relevant;
            wrong += !(fabs(row->chance - (double)relevant / (double)d->t) <= 1e-15);
            for (int k = 0; k < ISO_KS; k++) wrong += !(fabs(row->at[k] - at[k]) <= 1e-12);
        }
    return wrong + (singles != p->singles) + (doubles != p->doubles) + (left != p->left_out);
}

static int differences(const data *d, const iso_precision *p) { return differences_from(d, NULL, p); }

static void follows_the_definition(void **unused)
{
    (void)unused;
    static const int shape[][4] = {{1, 3, 2, 1}, {3, 40, 7, 4}, {7, 60, 150, 6}, {33, 90, 120, 9}, {16, 25, 21, 3}, {17, 200, 300, 5}};
    for (size_t i = 0; i < sizeof shape / sizeof *shape; i++) {
        data d = make(shape[i][0], shape[i][1], shape[i][2], shape[i][3]);
        if (i == 2) for (int64_t q = 0; q < d.n; q++) d.has[q * d.count + 2] = 0; /* no training image */
        if (i == 3) for (int64_t q = 0; q < d.t; q++) d.have[q * d.count] = 0;    /* no test image */
        iso_precision *p;
        OK(run(&d, &p));
        assert_int_equal(differences(&d, p), 0);
        double sum = 0;
        for (int r = 0; r < p->singles; r++) sum += p->single[r].at[2];
        if (p->singles) assert_true(fabs(p->single_mean[2] - sum / p->singles) <= 1e-12);
        else assert_true(isnan(p->single_mean[2]));
        iso_precision_free(p);
        drop(&d);
    }
}

/* One direction of the database varies much more than the others and says nothing: contrast looks past it. */
static void contrast_follows_the_definition(void **unused)
{
    (void)unused;
    static const int shape[][4] = {{2, 40, 30, 3}, {5, 60, 150, 5}, {16, 90, 120, 6}, {33, 40, 50, 4}};
    for (size_t i = 0; i < sizeof shape / sizeof *shape; i++) {
        data d = make(shape[i][0], shape[i][1], shape[i][2], shape[i][3]);
        for (int64_t q = 0; q < d.n; q++) d.train[q * d.dim] *= 6;
        for (int64_t q = 0; q < d.t; q++) d.test[q * d.dim] *= 6;
        background back = background_of(d.dim, d.n, d.train, d.t, d.test);
        iso_precision *p, *sum;
        OK(run_with(&d, back.scorer, &p));
        OK(run(&d, &sum));
        assert_int_equal(differences_from(&d, &back, p), 0);
        if (d.dim > 2) assert_int_not_equal(differences_from(&d, &back, sum), 0); /* the check sees a wrong answer */
        assert_int_equal(p->single_sets, p->singles);
        iso_precision_free(p);
        iso_precision_free(sum);
        background_free(&back);
        drop(&d);
    }
}

/* Examples that are the whole database, under contrast; examples that cancel one another out, under sum. */
static void examples_without_direction_are_left_out(void **unused)
{
    (void)unused;
    data d = make(4, 20, 30, 3);
    for (int64_t q = 0; q < d.n; q++) d.has[q * 3] = 1, d.has[q * 3 + 1] = q < 4;
    for (int64_t q = 0; q < d.t; q++) d.have[q * 3] = q % 3 == 0;
    background back = background_of(d.dim, d.n, d.train, 0, NULL);
    iso_precision *p;
    OK(run_with(&d, back.scorer, &p));
    assert_int_equal(p->singles, 3);
    assert_int_equal(p->single_sets, 2);
    for (int k = 0; k < ISO_KS; k++) {
        assert_true(isnan(p->single[0].at[k]) && p->single[0].a == 0);
        assert_true(fabs(p->single_mean[k] - (p->single[1].at[k] + p->single[2].at[k]) / 2) <= 1e-12);
    }
    assert_true(fabs(p->single_chance - (p->single[1].chance + p->single[2].chance) / 2) <= 1e-12);
    iso_precision_free(p);
    for (int j = 0; j < d.dim; j++) {
        d.train[1 * d.dim + j] = -d.train[j];
        d.train[3 * d.dim + j] = -2 * d.train[2 * d.dim + j];
    }
    OK(run(&d, &p));
    assert_true(p->single_sets == 2 && isnan(p->single[1].at[0]) && !isnan(p->single[0].at[0]));
    iso_precision_free(p);
    background_free(&back);
    drop(&d);
}

/* The check above must see a wrong answer: here the rows of the test set are shifted by one. */
static void a_wrong_answer_is_seen(void **unused)
{
    (void)unused;
    data d = make(8, 80, 100, 5);
    iso_precision *p;
    OK(run(&d, &p));
    for (int64_t i = d.t * d.dim - 1; i >= d.dim; i--) d.test[i] = d.test[i - d.dim];
    assert_int_not_equal(differences(&d, p), 0);
    iso_precision_free(p);
    drop(&d);
}

static void golden_values(void **unused)
{
    (void)unused;
    iso_st *f;
    OK(iso_st_load("tests/golden/precision_at_k.safetensors", &f, &err));
    static const char *const in[] = {"in.train", "in.test", "in.train_attributes", "in.test_attributes"};
    const iso_st_tensor *x[4];
    for (int i = 0; i < 4; i++) assert_non_null(x[i] = iso_st_find(f, in[i]));
    data d = make((int)x[0]->dim[1], x[0]->dim[0], x[1]->dim[0], (int)x[2]->dim[1]);
    OK(iso_st_f32(x[0], d.train, &err));
    OK(iso_st_f32(x[1], d.test, &err));
    for (int i = 2; i < 4; i++) {
        int64_t *value = iso_calloc((size_t)x[i]->count, sizeof *value);
        OK(iso_st_i64(x[i], value, &err));
        for (int64_t j = 0; j < x[i]->count; j++) (i == 2 ? d.has : d.have)[j] = value[j] != 0;
        free(value);
    }
    iso_precision *p;
    OK(run(&d, &p));
    double want[4096];
    const iso_st_tensor *single = iso_st_find(f, "out.single"), *dbl = iso_st_find(f, "out.double"), *pairs = iso_st_find(f, "out.pairs");
    assert_true(single && dbl && pairs && single->count <= 4096 && dbl->count <= 4096 && pairs->count <= 4096);
    assert_int_equal(p->singles, single->dim[0]);
    assert_int_equal(p->doubles, dbl->dim[0]);
    OK(iso_st_f64(single, want, &err));
    for (int i = 0; i < p->singles * ISO_KS; i++) assert_true(fabs(p->single[i / ISO_KS].at[i % ISO_KS] - want[i]) <= 1e-12);
    OK(iso_st_f64(dbl, want, &err));
    for (int i = 0; i < p->doubles * ISO_KS; i++) assert_true(fabs(p->dbl[i / ISO_KS].at[i % ISO_KS] - want[i]) <= 1e-12);
    int64_t pair[4096];
    OK(iso_st_i64(pairs, pair, &err));
    for (int i = 0; i < p->doubles; i++) assert_true(p->dbl[i].a == pair[2 * i] && p->dbl[i].b == pair[2 * i + 1]);
    iso_precision_free(p);
    iso_st_free(f);
    drop(&d);
}

/* Equal vectors have equal scores wherever they stand, and the lower row comes first. */
static void ties_go_to_the_lower_row(void **unused)
{
    (void)unused;
    data d = make(19, 30, 203, 1);
    for (int64_t i = 1; i < d.t; i++) memcpy(d.test + i * d.dim, d.test, (size_t)d.dim * sizeof(float));
    for (int64_t i = 0; i < d.t; i++) d.have[i] = i < 5 || i > 100;
    for (int64_t i = 0; i < d.n; i++) d.has[i] = 1;
    iso_precision *p;
    OK(run(&d, &p));
    assert_int_equal(p->singles, 1);
    static const double want[ISO_KS] = {1, 1, 0.5, 0.25};
    for (int k = 0; k < ISO_KS; k++) assert_true(p->single[0].at[k] == want[k]);
    iso_precision_free(p);
    drop(&d);
}

/* A pair that exactly 1 % or exactly half of the test images have does not count. */
static void pair_limits_are_strict(void **unused)
{
    (void)unused;
    static const int64_t holder[] = {1, 2, 3, 99, 100};
    for (int i = 0; i < 5; i++) {
        data d = make(2, 10, 200, 2);
        memset(d.has, 1, (size_t)(d.n * 2));
        for (int64_t j = 0; j < d.t; j++) d.have[2 * j] = d.have[2 * j + 1] = j < holder[i];
        iso_precision *p;
        OK(run(&d, &p));
        assert_int_equal(p->doubles, holder[i] == 3 || holder[i] == 99);
        iso_precision_free(p);
        drop(&d);
    }
}

static void threads_do_not_matter(void **unused)
{
    (void)unused;
    data d = make(37, 500, 400, 8);
    iso_precision *p[2];
    for (int i = 0; i < 2; i++) {
        omp_set_num_threads(i ? 3 : 1);
        OK(run(&d, &p[i]));
    }
    omp_set_num_threads(omp_get_num_procs());
    assert_memory_equal(p[0]->single, p[1]->single, (size_t)p[0]->singles * sizeof *p[0]->single);
    assert_memory_equal(p[0]->dbl, p[1]->dbl, (size_t)p[0]->doubles * sizeof *p[0]->dbl);
    iso_precision_free(p[0]);
    iso_precision_free(p[1]);
    drop(&d);
}

static void bad_vectors_and_empty_parts(void **unused)
{
    (void)unused;
    data d = make(3, 10, 10, 2);
    iso_precision *p = NULL;
    float kept = d.test[7];
    d.test[7] = NAN;
    assert_int_equal(run(&d, &p), ISO_E_NUMERIC);
    assert_non_null(strstr(err.message, "test vector 2"));
    d.test[7] = kept;
    d.train[0] = d.train[1] = d.train[2] = 0;
    assert_int_equal(run(&d, &p), ISO_E_NUMERIC);
    assert_non_null(strstr(err.message, "training vector 0"));
    d.train[0] = 1;
    for (int i = 3; i < 27; i++) d.train[i] = 0; /* of several the first, whoever looks at it */
    assert_int_equal(run(&d, &p), ISO_E_NUMERIC);
    assert_non_null(strstr(err.message, "training vector 1"));
    for (int i = 3; i < 27; i++) d.test[i] = 0;
    assert_int_equal(run(&d, &p), ISO_E_NUMERIC);
    assert_non_null(strstr(err.message, "test vector 1"));
    d.n = 0;
    assert_int_equal(run(&d, &p), ISO_E_ARGUMENT);
    d.n = 10, d.t = 0;
    assert_int_equal(run(&d, &p), ISO_E_ARGUMENT);
    assert_null(p);
    drop(&d);
}

/* ---- a database and a data set's files ---- */

static char *file(const char *name, const char *text)
{
    static char path[4][600];
    static int next;
    char *p = path[next++ % 4];
    snprintf(p, sizeof path[0], "%s/%s", base, name);
    FILE *f = fopen(p, "w");
    assert_non_null(f);
    fputs(text, f);
    assert_int_equal(fclose(f), 0);
    return p;
}

/* The folder of a database, which got its items in this order or the other one. */
static char *database_in_order(const char *name, int items, bool backwards)
{
    static const char *const path[] = {"000001.jpg", "a/000002.jpg", "000003.jpg", "000004.jpg", "not listed.jpg", "000005.jpg"};
    static const float vector[][2] = {{1, 0}, {0.9f, 0.1f}, {0, 1}, {2, 0.1f}, {1, 1}, {0.1f, 3}};
    static char path_of[2][600];
    static int next;
    char *dir = path_of[next++ % 2];
    snprintf(dir, sizeof path_of[0], "%s/%s.db", base, name);
    iso_store_spec spec = {.dim = 2, .digest = "0123456789abcdef0123456789abcdef", .root = "/tmp"};
    iso_store *s;
    iso_txn *t;
    OK(iso_store_open(dir, ISO_STORE_CREATE, &spec, &s, &err));
    OK(iso_txn_begin(s, true, &t, &err));
    for (int k = 0; k < items; k++) {
        const int i = backwards ? items - 1 - k : k;
        iso_item item = {.path = path[i], .size = 1, .hash = {(uint64_t)i + 1, 0}, .width = 1, .height = 1};
        OK(iso_item_put(t, &item, vector[i], &err));
    }
    OK(iso_txn_commit(t, &err));
    iso_store_close(s);
    return dir;
}

static char *database_of(const char *name, int items) { return database_in_order(name, items, false); }

static const char attribute_text[] = "6\nOne Two \n000001.jpg  1 -1\n000002.jpg  1 -1\n000003.jpg -1  1\n000004.jpg  1 -1\n000005.jpg -1  1\n000006.jpg  1  1\n";
static const char partition_text[] = "000001.jpg 0\n000002.jpg 0\n000003.jpg 0\n000004.jpg 2\n000005.jpg 2\n000006.jpg 2\n";

static void a_database_is_matched_by_path(void **unused)
{
    (void)unused;
    const char *db = database_of("match", 6);
    char *attributes = file("attr", attribute_text), *partition = file("part", partition_text);
    iso_evaluation *e;
    iso_precision *p;
    OK(iso_evaluation_open(db, attributes, partition, 0, 2, false, &e, &err));
    assert_int_equal(e->matches.items, 6);
    assert_int_equal(e->matches.items_without_row, 1);
    assert_int_equal(e->matches.items_without_part, 0);
    assert_int_equal(e->matches.rows_without_item, 1);
    assert_int_equal(e->query.count, 3);
    assert_int_equal(e->test.count, 2);
    assert_string_equal(e->name[1], "Two");
    OK(iso_evaluation_precision(e, ISO_SUM, &p, &err));
    assert_int_equal(p->singles, 2);
    for (int i = 0; i < 2; i++) {
        assert_true(p->single[i].at[0] == 1 && p->single[i].at[3] == 0.5 && p->single[i].chance == 0.5);
        assert_int_equal(p->single[i].queries, i ? 1 : 2);
    }
    iso_precision_free(p);
    p = NULL;
    assert_int_equal(iso_evaluation_precision(e, ISO_CONTRAST, &p, &err), ISO_E_ARGUMENT); /* loaded without */
    assert_null(p);
    assert_true(e->query.row[0] == 0 && e->query.row[1] == 1 && e->query.row[2] == 2 && e->test.row[0] == 3 && e->test.row[1] == 4);
    iso_evaluation_free(e);
}

/* Examples are drawn, and ties are broken, in the order of the files: ids come from when an image was encoded. */
static void ids_change_nothing(void **unused)
{
    (void)unused;
    const char *db = database_in_order("backwards", 6, true);
    char *attributes = file("attr", attribute_text), *partition = file("part", partition_text);
    iso_evaluation *e;
    OK(iso_evaluation_open(db, attributes, partition, 0, 2, false, &e, &err));
    assert_true(e->query.count == 3 && e->test.count == 2);
    for (int i = 0; i < 3; i++) assert_true(e->query.row[i] == i && e->query.attribute[2 * i] == (i < 2) && e->query.id[i] == 6 - (uint64_t)i);
    assert_true(e->test.row[0] == 3 && e->test.id[0] == 3 && e->test.row[1] == 4 && e->test.id[1] == 1);
    assert_true(e->query.vector[1][0] == 0.9f && e->test.vector[1][1] == 3);
    iso_evaluation_free(e);
}

/* Copies of an image in other folders have its row of the files: the first counts, or a figure would rise with every copy. */
static void an_image_counts_once(void **unused)
{
    (void)unused;
    const char *db = database_of("doubled", 6);
    char *attributes = file("attr", attribute_text), *partition = file("part", partition_text);
    static const char *const copy[] = {"copy/000004.jpg", "copy/000001.jpg", "more/000004.jpg"};
    const float v[2] = {2, 0.1f};
    iso_store *s;
    iso_txn *t;
    OK(iso_store_open(db, ISO_STORE_WRITE, NULL, &s, &err));
    OK(iso_txn_begin(s, true, &t, &err));
    for (int i = 0; i < 3; i++) {
        iso_item item = {.path = copy[i], .size = 1, .hash = {(uint64_t)i + 50, 0}, .width = 1, .height = 1};
        OK(iso_item_put(t, &item, v, &err));
    }
    OK(iso_txn_commit(t, &err));
    iso_store_close(s);
    iso_evaluation *e;
    OK(iso_evaluation_open(db, attributes, partition, 0, 2, false, &e, &err));
    assert_int_equal(e->matches.items, 9);
    assert_int_equal(e->matches.items_doubled, 3);
    assert_int_equal(e->matches.rows_without_item, 1);
    assert_true(e->query.count == 3 && e->test.count == 2);
    assert_true(e->test.id[0] == 4 && e->query.id[0] == 1);
    iso_evaluation_free(e);
}

/* The background is the whole database: also the item that no file lists. */
static void the_background_is_the_whole_database(void **unused)
{
    (void)unused;
    static const float all[6][2] = {{1, 0}, {0.9f, 0.1f}, {0, 1}, {2, 0.1f}, {1, 1}, {0.1f, 3}};
    const char *db = database_of("background", 6);
    char *attributes = file("attr", attribute_text), *partition = file("part", partition_text);
    background back = background_of(2, 6, &all[0][0], 0, NULL);
    iso_evaluation *e;
    iso_precision *p;
    OK(iso_evaluation_open(db, attributes, partition, 0, 2, true, &e, &err));
    assert_non_null(e->scorer);
    double like[2] = {0.2, 0.9}, got[2], want[2], offset[2];
    OK(iso_scorer_query(e->scorer, 2, 3, like, 0, NULL, 0, got, offset, &err));
    OK(iso_scorer_query(back.scorer, 2, 3, like, 0, NULL, 0, want, offset + 1, &err));
    for (int j = 0; j < 2; j++) assert_true(fabs(got[j] - want[j]) <= 1e-5 * (1 + fabs(want[j])));
    OK(iso_evaluation_precision(e, ISO_CONTRAST, &p, &err));
    assert_true(p->single_sets == 2 && p->single_mean[0] == 1);
    iso_precision_free(p);
    iso_evaluation_free(e);
    background_free(&back);
}

static void splits_are_reduced_to_common_rows(void **unused)
{
    (void)unused;
    const float all[] = {0, 1, 2, 3}, *vector[] = {all, all + 1, all + 2, all + 3};
    uint8_t attribute[] = {0, 1, 2, 3};
    uint64_t id[] = {10, 11, 12, 13};
    int64_t row[] = {2, 5, 7, 8}, keep[] = {2, 7}, gone[] = {2, 6};
    iso_split s = {.count = 4, .vector = iso_calloc(4, sizeof *vector), .attribute = iso_calloc(4, 1), .id = iso_calloc(4, sizeof *id), .row = iso_calloc(4, sizeof *row)};
    memcpy(s.vector, vector, sizeof vector), memcpy(s.attribute, attribute, sizeof attribute);
    memcpy(s.id, id, sizeof id), memcpy(s.row, row, sizeof row);
    assert_int_equal(iso_split_keep(&s, 1, 2, gone, &err), ISO_E_MISMATCH);
    assert_int_equal(s.count, 4);
    OK(iso_split_keep(&s, 1, 2, keep, &err));
    assert_true(s.count == 2 && s.id[0] == 10 && s.id[1] == 12 && s.vector[0] == all && s.vector[1] == all + 2 && s.attribute[1] == 2 && s.row[1] == 7);
    free(s.vector), free(s.attribute), free(s.id), free(s.row);
}

static void what_does_not_fit_is_said(void **unused)
{
    (void)unused;
    const char *db = database_of("bad", 6), *empty = database_of("empty", 0);
    char *attributes = file("attr", attribute_text), *partition = file("part", partition_text);
    iso_evaluation *e = NULL;
    assert_int_equal(iso_evaluation_open(db, attributes, partition, 0, 1, false, &e, &err), ISO_E_MISMATCH);
    assert_non_null(strstr(err.message, "part 1"));
    assert_int_equal(iso_evaluation_open(db, attributes, partition, 1, 2, false, &e, &err), ISO_E_MISMATCH);
    assert_int_equal(iso_evaluation_open(db, attributes, partition, 2, 2, false, &e, &err), ISO_E_ARGUMENT);
    assert_int_equal(iso_evaluation_open(empty, attributes, partition, 0, 2, false, &e, &err), ISO_E_NOT_FOUND);
    assert_int_equal(iso_evaluation_open("/nowhere.db", attributes, partition, 0, 2, false, &e, &err), ISO_E_NOT_FOUND);
    assert_int_equal(iso_evaluation_open(db, "/nowhere", partition, 0, 2, false, &e, &err), ISO_E_IO);
    assert_int_equal(iso_evaluation_open(db, partition, partition, 0, 2, false, &e, &err), ISO_E_FORMAT);
    char *others = file("others", "1\nOne \nz.jpg 1\n"), *parts = file("parts", "z.jpg 2\n");
    assert_int_equal(iso_evaluation_open(db, others, partition, 0, 2, false, &e, &err), ISO_E_MISMATCH);
    assert_non_null(strstr(err.message, "attribute file"));
    assert_int_equal(iso_evaluation_open(db, attributes, parts, 0, 2, false, &e, &err), ISO_E_MISMATCH);
    assert_non_null(strstr(err.message, "partition file"));
    char *some = file("some", "1\nOne \n000001.jpg 1\n");
    assert_int_equal(iso_evaluation_open(db, some, partition, 0, 2, false, &e, &err), ISO_E_MISMATCH);
    assert_non_null(strstr(err.message, some)); /* the part has images, but the attribute file misses them */
    assert_null(e);
}

/* ---- fast kernels ---- */

/* More images than a block of sums.c, more attributes than a word, a dim that fills no slice: the sums, against plain ones. */
static void sums_are_those_of_a_plain_loop(void **unused)
{
    (void)unused;
    static const struct { int dim, count; int64_t n; } size[] = {{1, 2, 3}, {13, 7, 500}, {64, 3, 100}, {67, 70, 9000}, {200, 12, 8193}, {128, 12, 40000}};
    for (size_t k = 0; k < sizeof size / sizeof *size; k++) {
        data d = make(size[k].dim, size[k].n, 60, size[k].count);
        const float **train = iso_vector_rows(d.dim, d.n, d.train), **test = iso_vector_rows(d.dim, d.t, d.test);
        assert_true(train && test);
        iso_protocol *p;
        OK(iso_protocol_create(d.dim, d.n, train, d.has, d.t, test, d.have, d.count, &p, &err));
        int sets = p->singles + p->doubles, wrong = 0;
        double *sum = iso_calloc((size_t)sets, (size_t)d.dim * sizeof *sum), *want = iso_calloc((size_t)d.dim, sizeof *want);
        assert_true(sum && want && sets > 0);
        double *parts = iso_calloc((size_t)sets, (size_t)d.dim * sizeof *parts); /* the same, asked for in two */
        assert_non_null(parts);
        OK(iso_protocol_sums(p, 0, sets, sum, &err));
        OK(iso_protocol_sums(p, 0, sets / 3, parts, &err));
        OK(iso_protocol_sums(p, sets / 3, sets - sets / 3, parts + sets / 3 * d.dim, &err));
        OK(iso_protocol_lengths(p, &err));
        for (int s = 0; s < sets; s++) {
            memset(want, 0, (size_t)d.dim * sizeof *want);
            for (int64_t i = 0; i < d.n; i++)
                for (int j = 0; both(d.has + i * d.count, p->set[s].a, p->set[s].b) && j < d.dim; j++) want[j] += d.train[i * d.dim + j] * p->inverse[i];
            for (int j = 0; j < d.dim; j++) wrong += !(fabs(sum[s * d.dim + j] - want[j]) <= 1e-9) + !(fabs(parts[s * d.dim + j] - want[j]) <= 1e-9);
        }
        assert_int_equal(wrong, 0);
        double *last = sum + (size_t)sets * (size_t)d.dim - 1; /* what is wanted is still that of the last set */
        *last += 1e-6;
        assert_false(fabs(*last - want[d.dim - 1]) <= 1e-9);
        free(sum), free(parts), free(want), free(train), free(test);
        iso_protocol_free(p);
        drop(&d);
    }
}

/* Vectors so long that not all sums are held at a time: zeros behind the numbers of a vector change nothing. */
static void sums_in_pieces_change_nothing(void **unused)
{
    (void)unused;
    enum { SHORT = 9, LONG = 16384 };
    data d = make(SHORT, 16, 21, 50), wide = d;
    iso_precision *p, *q;
    wide.dim = LONG;
    wide.train = iso_calloc((size_t)d.n * LONG, sizeof(float)), wide.test = iso_calloc((size_t)d.t * LONG, sizeof(float));
    assert_true(wide.train && wide.test);
    for (int64_t i = 0; i < d.n; i++) memcpy(wide.train + i * LONG, d.train + i * SHORT, SHORT * sizeof(float));
    for (int64_t i = 0; i < d.t; i++) memcpy(wide.test + i * LONG, d.test + i * SHORT, SHORT * sizeof(float));
    OK(run(&d, &p));
    OK(run(&wide, &q));
    assert_true(p->singles + p->doubles > (64 << 20) / 8 / LONG && p->singles == q->singles && p->doubles == q->doubles);
    assert_memory_equal(p->single, q->single, (size_t)p->singles * sizeof *p->single);
    assert_memory_equal(p->dbl, q->dbl, (size_t)p->doubles * sizeof *p->dbl);
    iso_precision_free(p), iso_precision_free(q);
    free(wide.train), free(wide.test);
    drop(&d);
}

static const char *const kernel_name[] = {"portable", "avx2", "avx512", "avx512vnni"};
enum { KERNELS = sizeof kernel_name / sizeof *kernel_name };

/* Ranks by every kernel that this processor has, each as the definition does; how many there are. */
static int exact_by_every_kernel(const data *d)
{
    int tried = 0;
    for (int k = 0; k < KERNELS; k++) {
        if (!iso_isa_use(kernel_name[k])) continue;
        iso_precision *p;
        OK(run(d, &p));
        assert_int_equal(differences(d, p), 0);
        iso_precision_free(p);
        tried++;
    }
    assert_true(iso_isa_use(NULL));
    return tried;
}

/* Images that lie so near to each other that only exact scores put them in order; in an odd and an even number of coordinates. */
static void near_images_are_told_apart(void **unused)
{
    (void)unused;
    static const double apart[] = {1e-2, 1e-3, 1e-4, 1e-5, 1e-6};
    for (size_t i = 0; i < sizeof apart / sizeof *apart; i++) {
        data d = make(i % 2 ? 33 : 128, 300, 1500, 6);
        for (int64_t k = 1; k < d.t; k++)
            for (int j = 0; j < d.dim; j++) d.test[k * d.dim + j] = d.test[j] + (float)(apart[i] * (uniform() - 0.5));
        assert_true(exact_by_every_kernel(&d) >= 1);
        drop(&d);
    }
}

/* Every kernel that this processor has, with ties among more images than a query's first room holds. */
static void kernels_agree(void **unused)
{
    (void)unused;
    data d = make(19, 300, 1003, 5);
    for (int64_t i = 0; i < d.t; i++) /* 700 times the same image, at any length, then some that are nearly that one */
        for (int j = 0; j < d.dim; j++) {
            if (i >= 200 && i < 900) d.test[i * d.dim + j] = d.test[j] * (float)(1 << (i % 5));
            if (i >= 900 && i < 950) d.test[i * d.dim + j] = d.test[j] * (1 + (float)(uniform() - 0.5) * 1e-6f);
        }
    const int tried = exact_by_every_kernel(&d);
    assert_true(tried >= 1 && !iso_isa_use("none"));
    printf("%d kernels\n", tried);
    drop(&d);
}

/* Lines that are read at sight and lines that are cut into words say the same; files out of order and names in folders are found. */
static void lines_of_any_form_are_read(void **unused)
{
    (void)unused;
    static const char plain[] = "4\nOne Two\n000001.jpg  1 -1\n000002.jpg -1  1\n000003.jpg -1 -1\n000004.jpg  1  1\n";
    static const char odd[] = "4\r\nOne\tTwo\r\n\r\n000004.jpg 1 1\r\n000002.jpg\t0 1 \n000001.jpg  1 -1 \r\n000003.jpg -1 -1";
    for (int form = 0; form < 2; form++) {
        iso_attributes *a;
        char *path = file(form ? "odd" : "plain", form ? odd : plain);
        OK(iso_attributes_read(path, &a, &err));
        assert_int_equal(iso_attributes_files(a), 4);
        for (int i = 0; i < 4; i++) {
            char name[64];
            snprintf(name, sizeof name, "%s%06d.jpg", i % 2 ? "a/b/" : "", i + 1);
            const uint8_t *row = iso_attributes_find(a, name);
            int64_t number = iso_attributes_row_near(a, name, -1);
            assert_non_null(row);
            assert_true(row[0] == (i == 0 || i == 3) && row[1] == (i == 1 || i == 3));
            for (int64_t near = -1; near < 6; near++) assert_int_equal(iso_attributes_row_near(a, name, near), number);
            assert_ptr_equal(iso_attributes_at(a, number), row);
        }
        assert_null(iso_attributes_find(a, "000005.jpg"));
        iso_attributes_free(a);
    }
    static const char *const bad[] = {
        "2\nOne\na.jpg  1\na.jpg  1\n", "2\nOne\nb.jpg  1\na.jpg  1 -1\n", "2\nOne\na.jpg  2\nb.jpg  1\n",
        "2\nOne\na.jpg --1\nb.jpg  1\n", "3\nOne\nb.jpg  1\na.jpg -1\nb.jpg  1\n", "1\nOne\na.jpg  1",  "2\nOne\na.jpg  1\n",
        "1\nOne\na.jpg  11\n"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        iso_attributes *a = NULL;
        iso_status status = iso_attributes_read(file("bad", bad[i]), &a, &err);
        assert_int_equal(status, i == 5 ? ISO_OK : ISO_E_FORMAT); /* without a line end is fine */
        iso_attributes_free(a);
    }
    iso_partition *p = NULL;
    OK(iso_partition_read(file("mixed", "c.jpg 0\na.jpg\t1\r\nb.jpg 2\n"), &p, &err));
    for (int64_t near = -1; near < 4; near++)
        assert_true(iso_partition_find_near(p, "x/a.jpg", near) == 1 && iso_partition_find_near(p, "b.jpg", near) == 2 && iso_partition_find_near(p, "d.jpg", near) == -1);
    iso_partition_free(p);
    assert_int_equal(iso_partition_read(file("twice", "a.jpg 0\nb.jpg 1\na.jpg 2\n"), &p, &err), ISO_E_FORMAT);
    assert_int_equal(iso_partition_read(file("three", "a.jpg 0\nb.jpg 3\n"), &p, &err), ISO_E_FORMAT);
    assert_non_null(strstr(err.message, "line 2"));
}

int main(void)
{
    begin_random(20221);
    if (!make_folder(base, sizeof base, "precision")) return 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(follows_the_definition), cmocka_unit_test(a_wrong_answer_is_seen),     cmocka_unit_test(golden_values),
        cmocka_unit_test(ties_go_to_the_lower_row), cmocka_unit_test(pair_limits_are_strict),   cmocka_unit_test(threads_do_not_matter),
        cmocka_unit_test(bad_vectors_and_empty_parts), cmocka_unit_test(a_database_is_matched_by_path), cmocka_unit_test(ids_change_nothing), cmocka_unit_test(an_image_counts_once), cmocka_unit_test(what_does_not_fit_is_said),
        cmocka_unit_test(contrast_follows_the_definition), cmocka_unit_test(examples_without_direction_are_left_out),
        cmocka_unit_test(the_background_is_the_whole_database), cmocka_unit_test(splits_are_reduced_to_common_rows),
        cmocka_unit_test(sums_are_those_of_a_plain_loop), cmocka_unit_test(sums_in_pieces_change_nothing), cmocka_unit_test(kernels_agree), cmocka_unit_test(near_images_are_told_apart), cmocka_unit_test(lines_of_any_form_are_read),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    return !remove_folder(base) || failed;
}
