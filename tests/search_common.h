/* search_common.h: what test_search.c and test_search_index.c share: a database of random items, and the answers that must come from it. */
#ifndef ISO_TESTS_SEARCH_COMMON_H
#define ISO_TESTS_SEARCH_COMMON_H

#include <inttypes.h>
#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/memory.h"
#include "retriever/search.h"
#include "tests/check.h"
#include "tests/folder.h"
#include "tests/random.h"

#define DIM 27

static const char digest_a[] = "0123456789abcdef0123456789abcdef", digest_b[] = "ffffffffffffffffffffffffffffffff";
static const char *const kinds[] = {"flat", "sq8", "fp16", "ivf", "hnsw"};
static char base[512], db[600];
static iso_error err;

static float real(void)
{
    double sum = 0;
    for (int i = 0; i < 6; i++) sum += (double)(draw() >> 11) / 9007199254740992.0 - 0.5;
    return (float)sum;
}

static void random_vector(float v[DIM])
{
    for (int i = 0; i < DIM; i++) v[i] = real() * 3 / (1 + 0.2f * (float)i);
}

/* ---- a database ---- */

static void wipe(void)
{
    if (!remove_folder(db)) fail();
}

static iso_store *make(const char *digest)
{
    iso_store *s;
    iso_store_spec spec = {.dim = DIM, .digest = digest, .root = base};
    OK(iso_store_open(db, ISO_STORE_CREATE, &spec, &s, &err));
    return s;
}

static uint64_t put(iso_txn *t, const char *path, const float *v, uint64_t content)
{
    iso_item item = {.path = path, .size = 1, .hash = {content, content ? 1 : 0}, .width = 178, .height = 218};
    OK(iso_item_put(t, &item, v, &err));
    return item.id;
}

/* Random items; every 50th is the same vector (but for its length), so that scores tie. */
static void fill(iso_store *s, int first, int count)
{
    static const float twin[DIM] = {1, -1, 2, 0.5f, 3};
    iso_txn *t;
    OK(iso_txn_begin(s, true, &t, &err));
    for (int i = first; i < first + count; i++) {
        char path[32];
        float v[DIM];
        random_vector(v);
        if (i % 50 == 0)
            for (int j = 0; j < DIM; j++) v[j] = twin[j] * (float)(1 << i % 3);
        snprintf(path, sizeof path, "p/%d.jpg", i);
        put(t, path, v, (uint64_t)i + 1);
    }
    OK(iso_txn_commit(t, &err));
}

static uint64_t id_of(iso_store *s, int i)
{
    iso_txn *t;
    iso_item item;
    char path[32];
    snprintf(path, sizeof path, "p/%d.jpg", i);
    OK(iso_txn_begin(s, false, &t, &err));
    OK(iso_item_by_path(t, path, &item, &err));
    iso_txn_abort(t);
    return item.id;
}

static void drop(iso_store *s, int first, int count)
{
    iso_txn *t;
    iso_item item;
    OK(iso_txn_begin(s, true, &t, &err));
    for (int i = first; i < first + count; i++) {
        char path[32];
        snprintf(path, sizeof path, "p/%d.jpg", i);
        OK(iso_item_by_path(t, path, &item, &err));
        OK(iso_item_remove(t, item.id, &err));
    }
    OK(iso_txn_commit(t, &err));
}

/* ---- what the answer must be ---- */

static int compare(const void *a, const void *b)
{
    const iso_hit *x = a, *y = b;
    if (x->score != y->score) return x->score > y->score ? -1 : 1;
    return x->id < y->id ? -1 : x->id > y->id;
}

static int64_t brute(iso_store *s, const double *w, double offset, iso_hit **out)
{
    iso_txn *t;
    iso_cursor *c;
    iso_item item;
    const float *z;
    size_t n = 0, room = 0;
    iso_hit *hits = NULL;
    OK(iso_txn_begin(s, false, &t, &err));
    OK(iso_cursor_open(t, 0, &c, &err));
    while (iso_cursor_next(c, &item, &z, &err) == ISO_OK) {
        double dot = 0, square = 0;
        for (int j = 0; j < DIM; j++) {
            dot += w[j] * z[j];
            square += (double)z[j] * z[j];
        }
        assert_true(iso_grow(&hits, &room, n + 1, sizeof *hits));
        hits[n++] = (iso_hit){item.id, dot / sqrt(square) - offset};
    }
    iso_cursor_close(c);
    iso_txn_abort(t);
    if (n) qsort(hits, n, sizeof *hits, compare);
    *out = hits;
    return (int64_t)n;
}

/* Rank by rank: the same score, and the same item unless two scores are equal to rounding. */
static bool same_answer(const iso_hit *got, int64_t found, const iso_hit *want, int64_t wanted)
{
    if (found != wanted) return false;
    for (int64_t i = 0; i < found; i++) {
        if (!(fabs(got[i].score - want[i].score) <= 1e-12)) return false;
        if (i && (got[i - 1].score < got[i].score || (got[i - 1].score == got[i].score && got[i - 1].id >= got[i].id))) return false;
        bool alone = (i == 0 || want[i - 1].score - want[i].score > 1e-12) && (i + 1 == wanted || want[i].score - want[i + 1].score > 1e-12);
        if (alone && i + 1 < wanted && got[i].id != want[i].id) return false;
    }
    return true;
}

/* The share of the right answer that an approximate one has. */
static double recall(const iso_hit *got, int64_t found, const iso_hit *want, int64_t wanted)
{
    int64_t hits = 0;
    for (int64_t i = 0; i < found; i++) hits += got[i].score >= want[wanted - 1].score - 1e-12;
    return (double)hits / (double)wanted;
}

static void check_searches(iso_store *s, iso_searcher *searcher, bool approximate)
{
    int64_t ks[] = {1, 10, 61, 100000};
    double sum[2] = {0};
    int searches = 0;
    for (int q = 0; q < 12; q++) {
        float v[3 * DIM];
        double w[DIM], offset;
        iso_hit *want, *got;
        bool twins = q < 2;
        iso_scoring scoring = q % 2 ? ISO_CONTRAST : ISO_SUM;
        for (int i = 0; i < 3; i++) random_vector(v + i * DIM);
        if (twins) /* ties: the twins come first */
            for (int j = 0; j < DIM; j++) v[j] = v[DIM + j] = v[2 * DIM + j] = j < 5 ? (const float[]){1, -1, 2, 0.5f, 3}[j] : 0;
        OK(iso_searcher_query(searcher, scoring, twins ? 1 : 2, v, twins ? 0 : 1, v + 2 * DIM, 0.5, w, &offset, &err));
        int64_t n = brute(s, w, offset, &want), found;
        for (size_t i = 0; i < sizeof ks / sizeof *ks; i++) {
            bool exact;
            int64_t wanted = ks[i] < n ? ks[i] : n;
            got = iso_calloc((size_t)ks[i], sizeof *got);
            OK(iso_search(searcher, w, offset, ks[i], 0, NULL, got, &found, &exact, &err));
            assert_int_equal(found, wanted);
            if (exact) assert_true(same_answer(got, found, want, wanted));
            if (!approximate || ks[i] > n) assert_true(exact);
            sum[scoring] += recall(got, found, want, wanted);
            searches++;
            free(got);
        }
        free(want);
    }
    if (getenv("ISO_TEST_TALK")) printf("recall %.3f, contrast %.3f\n", 2 * sum[0] / searches, 2 * sum[1] / searches);
    assert_true(2 * sum[ISO_SUM] / searches >= 0.9);
    assert_true(2 * sum[ISO_CONTRAST] / searches >= 0.9);
}

/* ---- around the tests ---- */

static int set_up(void **state)
{
    (void)state;
    begin_random(20221);
    omp_set_num_threads(1); /* waiting threads cost more than they bring on so little data; test_kinds uses more */
    if (!make_folder(base, sizeof base, "search")) return -1;
    snprintf(db, sizeof db, "%s/test.db", base);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    return !remove_folder(base);
}

#endif
