/* test_contrast.c: the scorers through the public API beside a plain computation: where matrices are singular, while the
 * database changes, on all kinds of index and from several threads. */
#include "tests/folder.h"
#include "tests/scorer_common.h"

#include <omp.h>
#include <pthread.h>
#include <unistd.h>

#include "retriever/search.h"

static char base[512], db[600];

/* ---- the plain computation ---- */

/* Gaussian elimination with pivots: x = A^-1 x. */
static void solve(int dim, double A[MOST][MOST], double *x)
{
    for (int k = 0; k < dim; k++) {
        int best = k;
        for (int i = k + 1; i < dim; i++)
            if (fabs(A[i][k]) > fabs(A[best][k])) best = i;
        for (int j = 0; j < dim; j++) {
            double swap = A[k][j];
            A[k][j] = A[best][j];
            A[best][j] = swap;
        }
        double swap = x[k];
        x[k] = x[best];
        x[best] = swap;
        for (int i = k + 1; i < dim; i++) {
            double factor = A[i][k] / A[k][k];
            for (int j = k; j < dim; j++) A[i][j] -= factor * A[k][j];
            x[i] -= factor * x[k];
        }
    }
    for (int k = dim - 1; k >= 0; k--) {
        for (int j = k + 1; j < dim; j++) x[k] -= A[k][j] * x[j];
        x[k] /= A[k][k];
    }
}

/* A database's vectors and a query's. */
typedef struct problem {
    int dim, items, likes, unlikes;
    float *item, *like, *unlike;
    double gamma;
} problem;

static problem random_problem(int dim, int items, int likes, int unlikes)
{
    return (problem){dim, items, likes, unlikes, random_vectors(dim, items), random_vectors(dim, likes), random_vectors(dim, unlikes), 0.7};
}

static void problem_free(problem *p)
{
    free(p->item);
    free(p->like);
    free(p->unlike);
}

/* w and offset as methods.md has them; without `shrink` another a, which is the wrong case. */
static void plain(const problem *p, bool shrink, double *w, double *offset)
{
    static double S[MOST][MOST], A[MOST][MOST];
    double m[MOST], unlike[MOST], variance = 0, trace = 0;
    mean_of(p->dim, p->items, p->item, true, m);
    covariance_of(p->dim, p->items, p->item, m, S);
    double a = shrink ? shrinkage_of(p->dim, p->items, p->likes, S) : 1e-3;
    mean_of(p->dim, p->likes, p->like, false, w);
    if (p->unlikes) mean_of(p->dim, p->unlikes, p->unlike, false, unlike);
    for (int j = 0; j < p->dim; j++) w[j] = w[j] - m[j] - (p->unlikes ? p->gamma * (unlike[j] - m[j]) : 0);
    for (int i = 0; i < p->dim; i++) trace += S[i][i];
    for (int i = 0; i < p->dim; i++)
        for (int j = 0; j < p->dim; j++) A[i][j] = (1 - a) * S[i][j] + (i == j ? a * trace / p->dim : 0);
    solve(p->dim, A, w);
    for (int i = 0; i < p->dim; i++)
        for (int j = 0; j < p->dim; j++) variance += w[i] * S[i][j] * w[j];
    *offset = 0;
    for (int j = 0; j < p->dim; j++) {
        w[j] /= sqrt(variance);
        *offset += w[j] * m[j];
    }
}

static double plain_score(const problem *p, const double *w, double offset, int item)
{
    double u[MOST], score = -offset;
    unit(p->dim, p->item + item * p->dim, false, u);
    for (int j = 0; j < p->dim; j++) score += w[j] * u[j];
    return score;
}

/* ---- databases ---- */

static void wipe(void)
{
    if (!remove_folder(db)) fail();
}

static iso_store *make(int dim)
{
    iso_store *s;
    iso_store_spec spec = {.dim = dim, .digest = "0123456789abcdef0123456789abcdef", .root = base};
    OK(iso_store_open(db, ISO_STORE_CREATE, &spec, &s, &err));
    return s;
}

/* Item i is "p/<first + i>". */
static void put(iso_store *s, int dim, int first, int n, const float *v)
{
    iso_txn *t;
    OK(iso_txn_begin(s, true, &t, &err));
    for (int i = 0; i < n; i++) {
        char path[32];
        snprintf(path, sizeof path, "p/%d", first + i);
        iso_item item = {.path = path, .size = 1, .width = 178, .height = 218};
        OK(iso_item_put(t, &item, v + i * dim, &err));
    }
    OK(iso_txn_commit(t, &err));
}

static void drop(iso_store *s, int first, int n)
{
    iso_txn *t;
    iso_item item;
    OK(iso_txn_begin(s, true, &t, &err));
    for (int i = first; i < first + n; i++) {
        char path[32];
        snprintf(path, sizeof path, "p/%d", i);
        OK(iso_item_by_path(t, path, &item, &err));
        OK(iso_item_remove(t, item.id, &err));
    }
    OK(iso_txn_commit(t, &err));
}

static iso_db *database(int dim, int n, const float *v, const char *kind)
{
    iso_db *d;
    wipe();
    iso_store *s = make(dim);
    put(s, dim, 0, n, v);
    if (kind) OK(iso_index_build(s, kind, NULL, &err));
    iso_store_close(s);
    OK(iso_db_open(db, &d, &err));
    return d;
}

static iso_status ask(iso_db *d, const problem *p, int64_t k, iso_scoring scoring, iso_answer **out)
{
    iso_query *q;
    OK(iso_query_create(d, &q, &err));
    for (int i = 0; i < p->likes; i++) OK(iso_query_add_vector(q, ISO_LIKE, p->like + i * p->dim, p->dim, &err));
    for (int i = 0; i < p->unlikes; i++) OK(iso_query_add_vector(q, ISO_UNLIKE, p->unlike + i * p->dim, p->dim, &err));
    iso_status st = iso_query_run(q, &(iso_query_options){.k = k, .scorer = scoring, .gamma = p->gamma}, out, &err);
    iso_query_free(q);
    return st;
}

static int item_of(const iso_result *r) { return atoi(r->path + 2); }

/* Every item has the score that the plain w gives it, best first. */
static bool right(const problem *p, const iso_answer *a, const double *w, double offset)
{
    for (int64_t i = 0; i < iso_answer_count(a); i++) {
        const iso_result *r = iso_answer_result(a, i);
        double want = plain_score(p, w, offset, item_of(r));
        if (!(fabs(r->score - want) <= 1e-9 * (1 + fabs(want)))) return false;
        if (i && iso_answer_result(a, i - 1)->score < r->score) return false;
    }
    return iso_answer_count(a) == p->items;
}

/* ---- tests ---- */

static void test_sum(void **s)
{
    (void)s;
    problem p = random_problem(9, 30, 6, 4);
    iso_db *d = database(9, 30, p.item, NULL);
    iso_answer *a;
    double w[MOST], unlike[MOST];
    OK(ask(d, &p, 30, ISO_SUM, &a));
    mean_of(9, p.likes, p.like, false, w);
    mean_of(9, p.unlikes, p.unlike, false, unlike);
    for (int j = 0; j < 9; j++) w[j] -= 0.7 * unlike[j];
    assert_true(right(&p, a, w, 0));
    iso_answer_free(a);
    iso_db_close(d);
    problem_free(&p);
}

/* Through the public API, and the check must see a wrong w: here one without the shrinkage. */
static void test_contrast(void **s)
{
    (void)s;
    static const int shape[][4] = {/* dim, items, likes, unlikes */
                                   {1, 6, 1, 0},    {2, 2, 1, 0},   {2, 3, 2, 1},    {3, 100, 1, 0},   {8, 60, 5, 2},    {8, 300, 3000, 0}, {27, 5, 1, 0},
                                   {27, 20, 10, 3}, {27, 26, 1, 1}, {27, 400, 1, 0}, {27, 400, 40, 0}, {27, 400, 200, 50}, {40, 12, 2000, 1}};
    for (size_t i = 0; i < sizeof shape / sizeof *shape; i++) {
        problem p = random_problem(shape[i][0], shape[i][1], shape[i][2], shape[i][3]);
        double w[MOST], offset, mean = 0, square = 0;
        iso_answer *a;
        if (p.dim == 1) p.item[0] *= -1, p.like[0] *= -1; /* both directions of the line */
        if (p.dim == 1 && p.item[0] * p.item[1] > 0) p.item[1] *= -1;
        iso_db *d = database(p.dim, p.items, p.item, NULL);
        OK(ask(d, &p, p.items, ISO_CONTRAST, &a));
        assert_true(iso_answer_exact(a));
        plain(&p, true, w, &offset);
        if (!right(&p, a, w, offset)) fail_msg("dim %d, %d items, %d and %d examples", p.dim, p.items, p.likes, p.unlikes);
        for (int k = 0; k < p.items; k++) {
            double score = iso_answer_result(a, k)->score;
            mean += score / p.items;
            square += score * score / p.items;
        }
        assert_true(fabs(mean) <= 1e-4 && fabs(square - 1) <= 1e-4); /* standard deviations; less the moments' rounding */
        if (p.dim == 27 && p.items == 400) {
            plain(&p, false, w, &offset);
            assert_false(right(&p, a, w, offset));
        }
        iso_answer_free(a);
        iso_db_close(d);
        problem_free(&p);
    }
}

/* No items, one, several alike: no covariance. Answers are in order of ids, errors are clear. */
static void test_no_covariance(void **s)
{
    (void)s;
    for (int items = 0; items < 6; items++)
        for (int dim = 1; dim < 30; dim += 14) {
            problem p = random_problem(dim, items, 3, 1);
            iso_answer *a = NULL;
            for (int i = 1; i < items; i++)
                for (int j = 0; j < dim; j++) p.item[i * dim + j] = p.item[j] * 3; /* alike up to rounding */
            iso_db *d = database(dim, items, p.item, NULL);
            for (int round = 0; round < 2 && dim > 1; round++) {
                OK(ask(d, &p, 10, ISO_CONTRAST, &a));
                assert_int_equal(iso_answer_count(a), items);
                for (int i = 0; i < items; i++) assert_true(fabs(iso_answer_result(a, i)->score) <= 1e-5);
                iso_answer_free(a);
                p.unlikes = 0;
            }
            p.unlikes = 0;
            a = NULL;
            if (items) {
                problem same = p;
                same.like = p.item;
                same.likes = items;
                assert_int_equal(ask(d, &same, 10, ISO_CONTRAST, &a), ISO_E_NUMERIC);
                assert_non_null(strstr(err.message, "as the whole database"));
                assert_null(a);
                OK(ask(d, &same, 10, ISO_SUM, &a)); /* as the message says */
                iso_answer_free(a);
            }
            iso_db_close(d);
            problem_free(&p);
        }
}

static void test_whole_database(void **s)
{
    (void)s;
    problem p = random_problem(12, 333, 1, 0), whole = p;
    for (int j = 0; j < 12; j++) p.item[332 * 12 + j] = j % 2 ? -1 : 0; /* far from all others */
    iso_db *d = database(12, p.items, p.item, NULL);
    iso_answer *a = NULL;
    whole.like = p.item;
    whole.likes = p.items;
    assert_int_equal(ask(d, &whole, 5, ISO_CONTRAST, &a), ISO_E_NUMERIC);
    assert_non_null(strstr(err.message, "as the whole database"));
    whole.unlike = p.item;
    whole.unlikes = p.items;
    whole.gamma = 0.5;
    assert_int_equal(ask(d, &whole, 5, ISO_CONTRAST, &a), ISO_E_NUMERIC);
    assert_non_null(strstr(err.message, "cancel"));
    whole.likes--; /* all but one: that one is the worst */
    whole.unlikes = 0;
    OK(ask(d, &whole, p.items, ISO_CONTRAST, &a));
    assert_int_equal(item_of(iso_answer_result(a, p.items - 1)), p.items - 1);
    iso_answer_free(a);
    iso_db_close(d);
    problem_free(&p);
}

/* Some items have a trait: one of the directions in which little varies. Whatever the numbers of items, dimensions and examples,
 * the answers have it more often than chance would, and nearly always where there is enough to go by. */
static void test_planted_trait(void **s)
{
    (void)s;
    static const int examples[] = {1, 2, 5, 20, 100, 3000};
    static const int shape[][2] = {{40, 8}, {40, 24}, {40, 1000}, {16, 200}, {20, 21}};
    enum { TRIES = 6, COUNTS = sizeof examples / sizeof *examples };
    for (size_t i = 0; i < sizeof shape / sizeof *shape; i++) {
        int dim = shape[i][0], items = shape[i][1], planted = items / 8, hits[COUNTS] = {0};
        for (int t = 0; t < TRIES; t++) {
            problem p = random_problem(dim, items, examples[COUNTS - 1], 0);
            for (int k = 0; k < planted + p.likes; k++) {
                float *v = k < planted ? p.item + k * dim : p.like + (k - planted) * dim;
                double square = 0;
                for (int j = 0; j < dim; j++) square += (double)v[j] * v[j];
                v[dim - 1] = (float)(0.8 * sqrt(square));
            }
            iso_db *d = database(dim, items, p.item, NULL);
            for (int e = 0; e < COUNTS; e++) {
                iso_answer *a;
                p.likes = examples[e];
                OK(ask(d, &p, planted, ISO_CONTRAST, &a));
                for (int k = 0; k < planted; k++) hits[e] += item_of(iso_answer_result(a, k)) < planted;
                iso_answer_free(a);
            }
            iso_db_close(d);
            problem_free(&p);
        }
        for (int e = 0; e < COUNTS; e++) {
            double share = (double)hits[e] / (planted * TRIES), chance = (double)planted / items;
            if (getenv("ISO_TEST_TALK")) printf("dim %d, %d items, %d examples: %.3f, chance %.3f\n", dim, items, examples[e], share, chance);
            if (!(share > 1.5 * chance)) fail_msg("dim %d, %d items, %d examples: %.3f, chance %.3f", dim, items, examples[e], share, chance);
            if (examples[e] >= 20 && items >= 1000) assert_true(share > 0.9);
        }
    }
}

static void same_answers(const iso_answer *a, const iso_answer *b)
{
    assert_int_equal(iso_answer_count(a), iso_answer_count(b));
    for (int64_t i = 0; i < iso_answer_count(a); i++) {
        assert_string_equal(iso_answer_result(a, i)->path, iso_answer_result(b, i)->path);
        assert_true(fabs(iso_answer_result(a, i)->score - iso_answer_result(b, i)->score) <= 1e-9);
    }
}

/* What this program does when it is started as "add": another process that adds and removes items. */
static int other_process(const char *dir)
{
    iso_store *s;
    iso_store_info info;
    iso_txn *t;
    drawn = seed + 1;
    snprintf(db, sizeof db, "%s", dir);
    OK(iso_store_open(db, ISO_STORE_WRITE, NULL, &s, &err));
    OK(iso_txn_begin(s, false, &t, &err));
    info = iso_store_info_get(t);
    iso_txn_abort(t);
    float *v = random_vectors(info.dim, 70);
    for (int i = 0; i < 70; i++) v[i * info.dim] += 3;
    put(s, info.dim, 5000, 70, v);
    drop(s, 5010, 10);
    drop(s, 100, 40);
    free(v);
    iso_store_close(s);
    return 0;
}

/* Another process adds and removes: answers stay until a refresh, and are then those of a fresh database of what is left. */
static void test_changes(void **s)
{
    (void)s;
    char self[512] = "", command[2048];
    enum { D = 15, N = 300 };
    problem p = random_problem(D, N, 4, 2);
    iso_answer *before, *stale, *after, *fresh;
    iso_db *d = database(D, N, p.item, NULL);
    OK(ask(d, &p, 20, ISO_CONTRAST, &before));
    assert_true(readlink("/proc/self/exe", self, sizeof self - 1) > 0);
    snprintf(command, sizeof command, "ISO_TEST_SEED=%" PRIu64 " '%s' add '%s'", seed, self, db);
    assert_int_equal(system(command), 0);
    OK(ask(d, &p, 20, ISO_CONTRAST, &stale));
    for (int64_t i = 0, j = 0; i < 20; i++) { /* the same background; what is gone is left out */
        int item = item_of(iso_answer_result(before, i));
        if (item >= 100 && item < 140) continue;
        assert_int_equal(item_of(iso_answer_result(stale, j)), item);
        assert_true(iso_answer_result(stale, j++)->score == iso_answer_result(before, i)->score);
    }
    OK(iso_db_refresh(d, &err));
    assert_int_equal(iso_db_count(d), N + 60 - 40);
    OK(ask(d, &p, N + 20, ISO_CONTRAST, &after));
    iso_db_close(d);
    drawn = seed + 1;
    float *added = random_vectors(D, 70);
    for (int i = 0; i < 70; i++) added[i * D] += 3;
    wipe();
    iso_store *store = make(D);
    put(store, D, 5020, 50, added + 20 * D); /* in another order */
    put(store, D, 140, N - 140, p.item + 140 * D);
    put(store, D, 5000, 10, added);
    put(store, D, 0, 100, p.item);
    iso_store_close(store);
    OK(iso_db_open(db, &d, &err));
    OK(ask(d, &p, N + 20, ISO_CONTRAST, &fresh));
    same_answers(after, fresh);
    assert_true(fabs(iso_answer_result(after, 0)->score - iso_answer_result(before, 0)->score) > 1e-6); /* there was something to see */
    iso_answer_free(before);
    iso_answer_free(stale);
    iso_answer_free(after);
    iso_answer_free(fresh);
    iso_db_close(d);
    free(added);
    problem_free(&p);
}

static void test_kinds(void **s)
{
    (void)s;
    static const char *const kinds[] = {"flat", "fp16", "sq8", "ivf", "hnsw"};
    problem p = random_problem(24, 3000, 12, 3);
    double w[MOST], offset;
    iso_answer *want = NULL, *a;
    plain(&p, true, w, &offset);
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        int found = 0;
        iso_db *d = database(24, p.items, p.item, kinds[i]);
        OK(ask(d, &p, 10, ISO_CONTRAST, &a));
        assert_int_equal(iso_answer_exact(a), i < 3);
        if (i == 0) want = a;
        else if (i < 3) same_answers(a, want);
        for (int k = 0; k < 10; k++) {
            const iso_result *r = iso_answer_result(a, k);
            double score = plain_score(&p, w, offset, item_of(r));
            assert_true(fabs(r->score - score) <= 1e-9 * (1 + fabs(score))); /* also where the index is approximate */
            found += r->score >= iso_answer_result(want, 9)->score;
        }
        assert_true(found >= 8);
        if (i) iso_answer_free(a);
        iso_db_close(d);
    }
    iso_answer_free(want);
    problem_free(&p);
}

typedef struct worker {
    iso_db *d;
    const problem *p;
    const iso_answer *want;
    bool good;
} worker;

static void *work(void *ctx)
{
    worker *x = ctx;
    iso_error why;
    x->good = true;
    for (int round = 0; round < 5; round++) {
        iso_query *q = NULL;
        iso_answer *a = NULL;
        iso_scoring scoring = round % 2 ? ISO_SUM : ISO_CONTRAST;
        if (iso_query_create(x->d, &q, &why)) x->good = false;
        for (int i = 0; x->good && i < x->p->likes; i++)
            if (iso_query_add_vector(q, ISO_LIKE, x->p->like + i * x->p->dim, x->p->dim, &why)) x->good = false;
        if (x->good && iso_query_run(q, &(iso_query_options){.k = 10, .scorer = scoring}, &a, &why)) x->good = false;
        for (int i = 0; x->good && scoring == ISO_CONTRAST && i < 10; i++)
            x->good = iso_answer_result(a, i)->id == iso_answer_result(x->want, i)->id &&
                      fabs(iso_answer_result(a, i)->score - iso_answer_result(x->want, i)->score) <= 1e-9; /* LAPACK may use more threads here */
        iso_answer_free(a);
        iso_query_free(q);
    }
    return NULL;
}

static void test_threads(void **s)
{
    (void)s;
    enum { THREADS = 6 };
    pthread_t thread[THREADS];
    worker worker[THREADS];
    problem p = random_problem(20, 500, 7, 0);
    iso_answer *want;
    iso_db *d = database(20, 500, p.item, NULL);
    OK(ask(d, &p, 10, ISO_CONTRAST, &want));
    iso_db_close(d);
    OK(iso_db_open(db, &d, &err)); /* whose background nobody has read yet */
    for (int i = 0; i < THREADS; i++) {
        worker[i] = (struct worker){.d = d, .p = &p, .want = want};
        assert_int_equal(pthread_create(&thread[i], NULL, work, &worker[i]), 0);
    }
    for (int i = 0; i < THREADS; i++) {
        assert_int_equal(pthread_join(thread[i], NULL), 0);
        assert_true(worker[i].good);
    }
    iso_answer_free(want);
    iso_db_close(d);
    problem_free(&p);
}

static void test_too_many_numbers(void **s)
{
    (void)s;
    int dim = ISO_MOMENTS_DIM_MAX + 1;
    float *v = random_vectors(dim, 3);
    problem p = {.dim = dim, .items = 3, .likes = 1, .item = v, .like = v};
    iso_answer *a = NULL;
    iso_db *d = database(dim, 3, v, "ivf"); /* which looks at the background while it is built, where there can be one */
    assert_int_equal(ask(d, &p, 3, ISO_CONTRAST, &a), ISO_E_UNSUPPORTED);
    assert_non_null(strstr(err.message, "use the scorer sum"));
    assert_null(a);
    OK(ask(d, &p, 3, ISO_SUM, &a));
    assert_int_equal(item_of(iso_answer_result(a, 0)), 0);
    iso_answer_free(a);
    iso_query *many = NULL; /* enough examples for contrast, which cannot be */
    OK(iso_query_create(d, &many, &err));
    for (int i = 0; i < ISO_AUTO_EXAMPLES; i++) OK(iso_query_add_vector(many, ISO_LIKE, v, dim, &err));
    OK(iso_query_run(many, &(iso_query_options){.k = 3, .scorer = ISO_AUTO}, &a, &err));
    assert_int_equal(iso_answer_scorer(a), ISO_SUM);
    assert_int_equal(item_of(iso_answer_result(a, 0)), 0);
    iso_answer_free(a);
    iso_query_free(many);
    iso_db_close(d);
    free(v);
}

static int set_up(void **s)
{
    (void)s;
    if (!make_folder(base, sizeof base, "contrast")) return -1;
    snprintf(db, sizeof db, "%s/test.db", base);
    return 0;
}

static int tear_down(void **s)
{
    (void)s;
    return !remove_folder(base);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sum),           cmocka_unit_test(test_contrast),
        cmocka_unit_test(test_no_covariance), cmocka_unit_test(test_whole_database),
        cmocka_unit_test(test_planted_trait), cmocka_unit_test(test_changes),
        cmocka_unit_test(test_kinds),         cmocka_unit_test(test_threads),
        cmocka_unit_test(test_too_many_numbers),
    };
    begin_random(20223);
    omp_set_num_threads(1); /* so little data */
    if (argc == 3 && strcmp(argv[1], "add") == 0) return other_process(argv[2]);
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
