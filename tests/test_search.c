/* test_search.c: the query vector (what it must be: test_scorer.c), and that every kind of index finds what looking at everything finds, while the
 * database changes and where vectors lie close together. */
#include "tests/search_common.h"

#include <time.h>

#include "retriever/searcher.h"

static void test_query(void **state)
{
    (void)state;
    float p[2 * DIM] = {3}, n[2 * DIM] = {0, -2}, bad[2 * DIM] = {1, 1};
    double w[DIM], offset = 7;
    iso_searcher *searcher;
    p[DIM + 1] = 5;
    wipe();
    iso_store *s = make(digest_a);
    fill(s, 0, 100);
    OK(iso_searcher_open(s, &searcher, &err));
    OK(iso_searcher_query(searcher, ISO_SUM, 2, p, 1, n, 0.5, w, &offset, &err));
    for (int j = 0; j < DIM; j++) assert_true(fabs(w[j] - (j == 0 ? 0.5 : j == 1 ? 1.0 : 0)) <= 1e-15);
    assert_true(offset == 0);
    OK(iso_searcher_query(searcher, ISO_SUM, 1, p, 0, NULL, 0.5, w, &offset, &err));
    assert_true(w[0] == 1);
    for (int scoring = 0; scoring < 2; scoring++) {
        iso_scoring by = (iso_scoring)scoring;
        bad[0] = bad[1] = 1;
        bad[DIM] = 0;
        assert_int_equal(iso_searcher_query(searcher, by, 2, bad, 0, NULL, 0.5, w, &offset, &err), ISO_E_NUMERIC);
        assert_non_null(strstr(err.message, "positive example 2"));
        bad[DIM] = NAN;
        assert_int_equal(iso_searcher_query(searcher, by, 1, p, 2, bad, 0.5, w, &offset, &err), ISO_E_NUMERIC);
        assert_non_null(strstr(err.message, "negative example 2"));
        assert_int_equal(iso_searcher_query(searcher, by, 1, p, 1, p, 1.0, w, &offset, &err), ISO_E_NUMERIC);
        assert_non_null(strstr(err.message, "cancel"));
        assert_int_equal(iso_searcher_query(searcher, by, 0, p, 0, NULL, 1.0, w, &offset, &err), ISO_E_ARGUMENT);
        assert_int_equal(iso_searcher_query(searcher, by, 1, p, 1, n, NAN, w, &offset, &err), ISO_E_ARGUMENT);
    }
    assert_int_equal(iso_searcher_query(searcher, (iso_scoring)2, 1, p, 0, NULL, 1.0, w, &offset, &err), ISO_E_ARGUMENT);
    assert_true(w[0] == 1 && offset == 0); /* set only on success */
    iso_hit *want, got[100];
    int64_t found;
    bool exact;
    double against[DIM];
    for (int j = 0; j < DIM; j++) against[j] = n[j];
    assert_int_equal(brute(s, against, 0, &want), 100);
    for (double gamma = 1e30; gamma < 1e150; gamma *= 1e10) { /* longer than a float can be */
        OK(iso_searcher_query(searcher, ISO_SUM, 1, p, 1, n, gamma, w, &offset, &err));
        OK(iso_search(searcher, w, offset, 100, 0, NULL, got, &found, &exact, &err));
        assert_int_equal(found, 100);
        assert_true(exact && got[99].id == want[0].id);
    }
    free(want);
    iso_searcher_free(searcher);
    iso_store_close(s);
}

static void test_kinds(void **state)
{
    (void)state;
    wipe();
    iso_store *s = make(digest_a);
    fill(s, 0, 2500);
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        iso_searcher *searcher;
        iso_vindex_info info;
        bool current;
        int64_t faults = -1;
        bool approximate = i >= 3;
        omp_set_num_threads(approximate ? 1 : omp_get_num_procs());
        OK(iso_index_build(s, kinds[i], NULL, &err));
        OK(iso_index_info_get(s, &info, &current, &err));
        assert_string_equal(info.kind, kinds[i]);
        assert_int_equal(info.count, 2500);
        assert_true(current && info.approximate == approximate && info.recall >= 0.95);
        assert_true(approximate == (info.width > 0));
        OK(iso_searcher_open(s, &searcher, &err));
        assert_null(iso_searcher_note(searcher));
        check_searches(s, searcher, approximate);
        OK(iso_index_verify(s, NULL, NULL, NULL, &faults, &err));
        assert_int_equal(faults, 0);
        iso_searcher_free(searcher);
    }
    omp_set_num_threads(1);
    assert_int_equal(iso_index_build(s, "tree", NULL, &err), ISO_E_ARGUMENT);
    iso_store_close(s);
}

/* The check must see a wrong answer: swapped ranks, a missing item, a score that is off. */
static void test_the_check_itself(void **state)
{
    (void)state;
    iso_hit want[3] = {{5, 0.9}, {2, 0.5}, {3, 0.1}}, got[3];
    memcpy(got, want, sizeof got);
    assert_true(same_answer(got, 3, want, 3));
    assert_false(same_answer(got, 2, want, 3));
    got[0].id = 6;
    assert_false(same_answer(got, 3, want, 3));
    got[0] = want[0];
    got[1].score += 1e-6;
    assert_false(same_answer(got, 3, want, 3));
    iso_hit missed[3] = {{5, 0.9}, {3, 0.1}, {7, 0.05}};
    assert_false(same_answer(missed, 3, want, 3));
    assert_true(recall(missed, 3, want, 3) < 0.7);
}

static void test_skip_and_bad_queries(void **state)
{
    (void)state;
    wipe();
    iso_store *s = make(digest_a);
    fill(s, 0, 600);
    iso_searcher *searcher;
    double w[DIM] = {1, -1, 2, 0.5, 3}, bad[DIM] = {0};
    iso_hit hits[20];
    int64_t found;
    bool exact;
    OK(iso_searcher_open(s, &searcher, &err));
    uint64_t skip[2] = {id_of(s, 0), id_of(s, 50)};
    OK(iso_search(searcher, w, 0, 12, 0, NULL, hits, &found, &exact, &err));
    for (int i = 0; i < 12; i++) assert_int_equal(hits[i].id, id_of(s, i * 50)); /* equal to the last bit, so by id */
    OK(iso_search(searcher, w, 0, 12, 2, skip, hits, &found, &exact, &err));
    assert_int_equal(found, 12);
    for (int i = 0; i < 10; i++) assert_int_equal(hits[i].id, id_of(s, (i + 2) * 50));
    assert_int_equal(iso_search(searcher, bad, 0, 12, 0, NULL, hits, &found, &exact, &err), ISO_E_NUMERIC);
    bad[3] = NAN;
    assert_int_equal(iso_search(searcher, bad, 0, 12, 0, NULL, hits, &found, &exact, &err), ISO_E_NUMERIC);
    assert_int_equal(iso_search(searcher, w, 0, 0, 0, NULL, hits, &found, &exact, &err), ISO_E_ARGUMENT);
    iso_searcher_free(searcher);
    iso_store_close(s);
}

static void test_changes(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        iso_searcher *searcher, *old;
        iso_vindex_info info;
        bool current;
        float v[DIM];
        double w[DIM], offset;
        iso_txn *t;
        iso_hit hit[3];
        int64_t found;
        bool exact;
        wipe();
        iso_store *s = make(digest_a);
        fill(s, 0, 1000);
        OK(iso_index_build(s, kinds[i], NULL, &err));
        OK(iso_searcher_open(s, &old, &err));
        fill(s, 1500, 100);
        drop(s, 40, 30);
        random_vector(v);
        OK(iso_txn_begin(s, true, &t, &err));
        uint64_t id = put(t, "p/7.jpg", v, 99999); /* replaced under a new id */
        OK(iso_txn_commit(t, &err));
        OK(iso_searcher_open(s, &searcher, &err));
        assert_null(iso_searcher_note(searcher)); /* completed, not rebuilt */
        OK(iso_index_info_get(s, &info, &current, &err));
        assert_false(current);
        check_searches(s, searcher, i >= 3);
        OK(iso_searcher_query(searcher, ISO_SUM, 1, v, 0, NULL, 0, w, &offset, &err));
        OK(iso_search(searcher, w, offset, 1, 0, NULL, hit, &found, &exact, &err));
        assert_int_equal(hit[0].id, id);
        assert_float_equal(hit[0].score, 1, 1e-6);
        iso_searcher_free(searcher);
        /* one that was open all the time: what is gone is not found, what is new after a refresh */
        OK(iso_search(old, w, offset, 3, 0, NULL, hit, &found, &exact, &err));
        assert_true(hit[0].id != id);
        OK(iso_searcher_refresh(old, &err));
        OK(iso_search(old, w, offset, 1, 0, NULL, hit, &found, &exact, &err));
        assert_int_equal(hit[0].id, id);
        check_searches(s, old, i >= 3);
        iso_searcher_free(old);
        /* too much is new: rebuilt, in the same kind unless it is the default one */
        fill(s, 2000, 400);
        OK(iso_searcher_open(s, &searcher, &err));
        assert_non_null(iso_searcher_note(searcher));
        check_searches(s, searcher, i >= 3);
        iso_searcher_free(searcher);
        OK(iso_index_info_get(s, &info, &current, &err));
        assert_true(current);
        assert_string_equal(info.kind, kinds[i]);
        iso_store_close(s);
    }
}

/* An index most of whose items are gone is built anew. */
static void test_mostly_gone(void **state)
{
    (void)state;
    for (int gone = 100; gone <= 101; gone++) {
        iso_searcher *searcher;
        wipe();
        iso_store *s = make(digest_a);
        fill(s, 0, 200);
        OK(iso_index_build(s, "sq8", NULL, &err));
        drop(s, 0, gone);
        OK(iso_searcher_open(s, &searcher, &err));
        if (gone == 100) assert_null(iso_searcher_note(searcher));
        else assert_non_null(strstr(iso_searcher_note(searcher), "holds 101 that are gone: it was built anew"));
        check_searches(s, searcher, false);
        iso_searcher_free(searcher);
        iso_store_close(s);
    }
}

static void test_empty_and_small(void **state)
{
    (void)state;
    iso_searcher *searcher;
    iso_hit hits[5];
    int64_t found = -1;
    bool exact;
    double w[DIM] = {1};
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        wipe();
        iso_store *s = make(digest_a);
        OK(iso_index_build(s, kinds[i], NULL, &err));
        OK(iso_searcher_open(s, &searcher, &err));
        OK(iso_search(searcher, w, 0, 5, 0, NULL, hits, &found, &exact, &err));
        assert_int_equal(found, 0);
        iso_searcher_free(searcher);
        fill(s, 0, 4);
        OK(iso_index_build(s, kinds[i], NULL, &err));
        OK(iso_searcher_open(s, &searcher, &err));
        OK(iso_search(searcher, w, 0, 5, 0, NULL, hits, &found, &exact, &err));
        assert_int_equal(found, 4);
        assert_true(exact);
        iso_searcher_free(searcher);
        iso_store_close(s);
    }
}

/* Vectors that differ by little of their length: what tells them apart is less than a number in 16 bits resolves. */
static void test_close_together(void **state)
{
    (void)state;
    enum { N = 8000, QUERIES = 20 };
    iso_searcher *searcher;
    iso_txn *t;
    float v[DIM], queries[QUERIES][DIM];
    wipe();
    iso_store *s = make(digest_a);
    OK(iso_txn_begin(s, true, &t, &err));
    for (int i = 0; i < N; i++) {
        char path[32];
        random_vector(v);
        for (int j = 0; j < DIM; j++) v[j] = (j % 3 ? 1 : -0.5f) + 0.03f * v[j];
        if (i < QUERIES) memcpy(queries[i], v, sizeof v);
        snprintf(path, sizeof path, "p/%d.jpg", i);
        put(t, path, v, (uint64_t)i + 1);
    }
    OK(iso_txn_commit(t, &err));
    for (int kind = 3; kind < 5; kind++) {
        const int64_t ks[] = {1, 10, 64};
        double sum[3] = {0};
        OK(iso_index_build(s, kinds[kind], NULL, &err));
        OK(iso_searcher_open(s, &searcher, &err));
        for (int i = 0; i < 3 * QUERIES; i++) {
            double w[DIM], offset;
            iso_hit got[64], *want;
            int64_t found;
            bool exact;
            OK(iso_searcher_query(searcher, ISO_SUM, 1, queries[i / 3], 0, NULL, 0.5, w, &offset, &err));
            OK(iso_search(searcher, w, offset, ks[i % 3], 0, NULL, got, &found, &exact, &err));
            assert_int_equal(got[0].id, i / 3 + 1); /* it finds itself */
            brute(s, w, offset, &want);
            sum[i % 3] += recall(got, found, want, ks[i % 3]) / QUERIES;
            free(want);
        }
        if (!(sum[0] >= 0.95 && sum[1] >= 0.95 && sum[2] >= 0.95)) fail_msg("%s: recall %g, %g and %g", kinds[kind], sum[0], sum[1], sum[2]);
        iso_searcher_free(searcher);
    }
    iso_store_close(s);
}

/* Clusters of near-duplicates: what an exact kind's rounding cannot tell apart is looked up until the answer is proved. */
static void test_near_duplicates(void **state)
{
    (void)state;
    enum { N = 4200, CLUSTERS = 7, MOST = 300 };
    static const float noise[] = {1e-3f, 1e-6f};
    static const int64_t ks[] = {10, MOST};
    for (size_t size = 0; size < sizeof noise / sizeof *noise; size++) {
        float centre[CLUSTERS][DIM], v[DIM];
        iso_txn *t;
        wipe();
        iso_store *s = make(digest_a);
        for (int c = 0; c < CLUSTERS; c++) random_vector(centre[c]);
        OK(iso_txn_begin(s, true, &t, &err));
        for (int i = 0; i < N; i++) {
            char path[32];
            for (int j = 0; j < DIM; j++) v[j] = centre[i % CLUSTERS][j] + noise[size] * real();
            snprintf(path, sizeof path, "p/%d.jpg", i);
            put(t, path, v, (uint64_t)i + 1);
        }
        OK(iso_txn_commit(t, &err));
        for (int kind = 0; kind < 3; kind++) {
            iso_searcher *searcher;
            OK(iso_index_build(s, kinds[kind], NULL, &err));
            OK(iso_searcher_open(s, &searcher, &err));
            for (int q = 0; q < 2 * CLUSTERS; q++) {
                double w[DIM], offset;
                iso_hit got[MOST], *want;
                random_vector(v);
                for (int j = 0; j < DIM; j++) v[j] = centre[q / 2][j] + 0.3f * v[j];
                OK(iso_searcher_query(searcher, q % 2 ? ISO_CONTRAST : ISO_SUM, 1, v, 0, NULL, 0.5, w, &offset, &err));
                brute(s, w, offset, &want);
                for (int i = 0; i < 2; i++) {
                    int64_t found;
                    bool exact;
                    OK(iso_search(searcher, w, offset, ks[i], 0, NULL, got, &found, &exact, &err));
                    assert_true(exact);
                    if (size == 1 && q == 0 && i == 0) assert_true(searcher->looked_up <= N / 8); /* it gives the index up soon */
                    if (!same_answer(got, found, want, ks[i]))
                        fail_msg("%s, noise %g, query %d: not the %d best", kinds[kind], noise[size], q, (int)ks[i]);
                }
                free(want);
            }
            iso_searcher_free(searcher);
        }
        iso_store_close(s);
    }
}

/* The answers of one thread, of several, and of looking at everything are the same to the last bit, whatever the scores' order. */
static void check_threads(iso_store *s, iso_searcher *searcher, const double *w, bool looks_at_all)
{
    enum { MOST = 20000 };
    static const int64_t ks[] = {1, 10, 700, MOST};
    static iso_hit got[2][MOST];
    iso_hit *want;
    const int64_t n = brute(s, w, 0, &want);
    for (size_t i = 0; i < sizeof ks / sizeof *ks; i++) {
        int64_t found[2];
        for (int several = 0; several < 2; several++) {
            bool exact;
            omp_set_num_threads(several ? 4 : 1);
            OK(iso_search(searcher, w, 0, ks[i], 0, NULL, got[several], &found[several], &exact, &err));
            assert_true(exact || !looks_at_all);
        }
        assert_int_equal(found[0], ks[i] < n ? ks[i] : n);
        assert_int_equal(found[1], found[0]);
        for (int64_t j = 0; j < found[0]; j++) assert_true(got[0][j].id == got[1][j].id && got[0][j].score == got[1][j].score);
        if (looks_at_all && !same_answer(got[0], found[0], want, found[0])) fail_msg("not the %d best", (int)ks[i]);
    }
    omp_set_num_threads(1);
    free(want);
}

/* Many items that the index lacks, most of them so close together that only their exact scores tell them apart; then some of them gone, before the
 * searcher knows and when it does. */
static void test_many_extras(void **state)
{
    (void)state;
    enum { INDEXED = 12000, EXTRAS = 2300 };
    float centre[DIM], v[DIM];
    double w[2][DIM], offset;
    iso_txn *t;
    random_vector(centre);
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i += 2) { /* flat, fp16, hnsw */
        iso_searcher *searcher;
        wipe();
        iso_store *s = make(digest_a);
        fill(s, 0, INDEXED);
        OK(iso_index_build(s, kinds[i], NULL, &err));
        OK(iso_searcher_open(s, &searcher, &err));
        OK(iso_txn_begin(s, true, &t, &err));
        for (int e = 0; e < EXTRAS; e++) {
            char path[32];
            random_vector(v);
            for (int j = 0; j < DIM && e % 8; j++) v[j] = centre[j] + (e % 8 < 6 ? 1e-7f : 0) * v[j];
            snprintf(path, sizeof path, "p/%d.jpg", INDEXED + e);
            put(t, path, v, (uint64_t)(INDEXED + e + 1));
        }
        OK(iso_txn_commit(t, &err));
        assert_int_equal(searcher->known.extras, 0);
        OK(iso_searcher_refresh(searcher, &err));
        assert_int_equal(searcher->known.extras, EXTRAS);
        random_vector(v);
        OK(iso_searcher_query(searcher, ISO_SUM, 1, centre, 0, NULL, 0, w[0], &offset, &err));
        OK(iso_searcher_query(searcher, ISO_SUM, 1, v, 0, NULL, 0, w[1], &offset, &err));
        for (int q = 0; q < 2; q++) check_threads(s, searcher, w[q], i < 3);
        drop(s, 500, 40);
        drop(s, INDEXED + 1000, 1100);
        for (int q = 0; q < 2; q++) check_threads(s, searcher, w[q], i < 3);
        fill(s, INDEXED + EXTRAS, 30); /* behind those that are gone */
        OK(iso_searcher_refresh(searcher, &err));
        assert_int_equal(searcher->known.extras, EXTRAS - 1100 + 30);
        assert_int_equal(searcher->known.removed, 40);
        for (int64_t e = 1; e < searcher->known.extras; e++) assert_true(searcher->known.extra_id[e] > searcher->known.extra_id[e - 1]);
        for (int q = 0; q < 2; q++) check_threads(s, searcher, w[q], i < 3);
        iso_searcher_free(searcher);
        iso_store_close(s);
    }
}

static void check_held(iso_store *s, iso_searcher *searcher, const char *kind, int64_t count, int64_t extras, int64_t removed)
{
    iso_vindex_info info;
    OK(iso_searcher_refresh(searcher, &err));
    iso_vindex_info_get(searcher->known.index, &info);
    assert_string_equal(info.kind, kind);
    assert_int_equal(info.count, count);
    assert_int_equal(searcher->known.extras, extras);
    assert_int_equal(searcher->known.removed, removed);
    check_searches(s, searcher, info.approximate);
}

/* A refresh takes up an index that was built meanwhile, where the one in memory lacks more than a little; one that is of no use leaves it alone. */
static void test_newer_index(void **state)
{
    (void)state;
    char file[700];
    iso_searcher *searcher;
    wipe();
    iso_store *s = make(digest_a);
    snprintf(file, sizeof file, "%s/index.faiss", db);
    fill(s, 0, 1000);
    OK(iso_index_build(s, "flat", NULL, &err));
    OK(iso_searcher_open(s, &searcher, &err));
    fill(s, 1000, 200);
    OK(iso_index_build(s, "sq8", NULL, &err));
    check_held(s, searcher, "sq8", 1200, 0, 0);
    fill(s, 1200, 5);
    OK(iso_index_build(s, "flat", NULL, &err));
    check_held(s, searcher, "sq8", 1200, 5, 0); /* not worth it */
    fill(s, 1205, 100);
    check_held(s, searcher, "flat", 1205, 100, 0);
    OK(iso_index_build(s, "fp16", NULL, &err));
    fill(s, 1305, 7);
    drop(s, 1300, 10); /* of both */
    check_held(s, searcher, "fp16", 1305, 2, 5);
    drop(s, 0, 400);
    check_held(s, searcher, "fp16", 1305, 2, 405);
    OK(iso_index_build(s, "hnsw", NULL, &err)); /* of the state that the searcher knows already */
    check_held(s, searcher, "hnsw", 902, 0, 0);
    fill(s, 1400, 50);
    OK(iso_index_build(s, "flat", NULL, &err)); /* a newer one, but damaged */
    FILE *f = fopen(file, "r+b");
    assert_true(f && !fseek(f, -3000, SEEK_END) && fputs("damage", f) >= 0 && !fclose(f));
    check_held(s, searcher, "hnsw", 902, 50, 0);
    fill(s, 1450, 50);
    assert_int_equal(unlink(file), 0);
    check_held(s, searcher, "hnsw", 902, 100, 0);
    iso_searcher_free(searcher);
    iso_store_close(s);
}

/* Vectors of which a page holds one: they have no places, and are walked through where all are scored. */
static void test_large_vectors(void **state)
{
    (void)state;
    enum { LARGE = 700, N = 2600 };
    static float v[LARGE];
    static double w[LARGE], dot[N];
    static iso_hit got[N];
    iso_txn *t;
    iso_store *s;
    iso_searcher *searcher;
    wipe();
    OK(iso_store_open(db, ISO_STORE_CREATE, &(iso_store_spec){.dim = LARGE, .digest = digest_a, .root = base}, &s, &err));
    OK(iso_txn_begin(s, true, &t, &err));
    for (int j = 0; j < LARGE; j++) w[j] = real();
    for (int i = 0; i < N; i++) {
        char path[32];
        double square = 0;
        dot[i] = 0;
        for (int j = 0; j < LARGE; j++) {
            v[j] = real();
            dot[i] += w[j] * v[j];
            square += (double)v[j] * v[j];
        }
        dot[i] /= sqrt(square);
        snprintf(path, sizeof path, "p/%d.jpg", i);
        assert_int_equal(put(t, path, v, (uint64_t)i + 1), i + 1);
    }
    OK(iso_txn_commit(t, &err));
    OK(iso_index_build(s, "sq8", NULL, &err));
    OK(iso_searcher_open(s, &searcher, &err));
    drop(s, 100, 500);
    for (int threads = 1; threads <= 4; threads++) {
        int64_t found;
        bool exact;
        omp_set_num_threads(threads);
        OK(iso_search(searcher, w, 0, N, 0, NULL, got, &found, &exact, &err));
        assert_int_equal(found, N - 500);
        for (int i = 0; i < found; i++) {
            assert_true(got[i].id <= 100 || got[i].id > 600);
            assert_true(fabs(got[i].score - dot[got[i].id - 1]) <= 1e-12 && (i == 0 || got[i - 1].score > got[i].score));
        }
    }
    omp_set_num_threads(1);
    iso_searcher_free(searcher);
    iso_store_close(s);
}

/* Overwrites vectors in the file. */
static void spoil(const float *v)
{
    char data[700], *bytes, *at;
    const float nan[DIM] = {NAN};
    size_t n;
    snprintf(data, sizeof data, "%s/data.mdb", db);
    OK(iso_file_read(data, 1 << 28, &bytes, &n, &err));
    for (at = bytes; (at = memmem(at, (size_t)(bytes + n - at), v, sizeof nan)); at += sizeof nan) memcpy(at, nan, sizeof nan);
    FILE *f = fopen(data, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(bytes, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
    free(bytes);
}

/* Whichever thread finds which of two damaged vectors first, the message names the first one. */
static void test_damaged_vectors(void **state)
{
    (void)state;
    static const double w[DIM] = {1, 2, 3};
    static iso_hit got[6000];
    const uint64_t skip[2] = {2001, 4001};
    iso_searcher *searcher;
    iso_txn *t;
    float bad[DIM];
    wipe();
    iso_store *s = make(digest_a);
    random_vector(bad);
    fill(s, 0, 2000);
    OK(iso_txn_begin(s, true, &t, &err));
    assert_int_equal(put(t, "bad", bad, 77777), skip[0]);
    OK(iso_txn_commit(t, &err));
    fill(s, 2001, 1999);
    OK(iso_txn_begin(s, true, &t, &err));
    assert_int_equal(put(t, "worse", bad, 77778), skip[1]);
    OK(iso_txn_commit(t, &err));
    fill(s, 4001, 500);
    OK(iso_index_build(s, "fp16", NULL, &err));
    iso_store_close(s);
    spoil(bad);
    OK(iso_store_open(db, ISO_STORE_READ, NULL, &s, &err));
    OK(iso_searcher_open(s, &searcher, &err));
    for (int i = 0; i < 40; i++) {
        int64_t found;
        bool exact;
        omp_set_num_threads(1 + i % 4);
        assert_int_equal(iso_search(searcher, w, 0, 6000, 0, NULL, got, &found, &exact, &err), ISO_E_FORMAT);
        assert_non_null(strstr(err.message, "item 2001 "));
        OK(iso_search(searcher, w, 0, 6000, 2, skip, got, &found, &exact, &err));
        assert_int_equal(found, 4499);
    }
    omp_set_num_threads(1);
    iso_searcher_free(searcher);
    iso_store_close(s);
}

static void *search_once(void *ctx)
{
    static const double w[DIM] = {1, 2, 3};
    iso_error why;
    iso_hit got[10];
    int64_t found;
    bool exact;
    return iso_search(ctx, w, 0, 10, 0, NULL, got, &found, &exact, &why) ? NULL : ctx;
}

/* Who has the searcher's lock may begin a transaction and wait until there is no other: so a search, which has one, does not wait for the lock. */
static void test_busy_lock(void **state)
{
    (void)state;
    iso_searcher *searcher;
    pthread_t thread;
    struct timespec until;
    void *done = NULL;
    wipe();
    iso_store *s = make(digest_a);
    fill(s, 0, 1000);
    OK(iso_searcher_open(s, &searcher, &err));
    searcher->looked_up = 1000; /* it wants places */
    pthread_mutex_lock(&searcher->lock);
    assert_int_equal(pthread_create(&thread, NULL, search_once, searcher), 0);
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += 5;
    int late = pthread_timedjoin_np(thread, &done, &until);
    pthread_mutex_unlock(&searcher->lock);
    if (late) pthread_join(thread, &done);
    assert_int_equal(late, 0);
    assert_ptr_equal(done, searcher);
    assert_null(searcher->places);
    assert_ptr_equal(search_once(searcher), searcher);
    assert_non_null(searcher->places);
    iso_searcher_free(searcher);
    iso_store_close(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_query),
        cmocka_unit_test(test_kinds),
        cmocka_unit_test(test_the_check_itself),
        cmocka_unit_test(test_skip_and_bad_queries),
        cmocka_unit_test(test_changes),
        cmocka_unit_test(test_mostly_gone), cmocka_unit_test(test_empty_and_small),
        cmocka_unit_test(test_close_together),
        cmocka_unit_test(test_near_duplicates),
        cmocka_unit_test(test_many_extras),
        cmocka_unit_test(test_newer_index),
        cmocka_unit_test(test_large_vectors),
        cmocka_unit_test(test_damaged_vectors),
        cmocka_unit_test(test_busy_lock),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
