/* test_search.c: the query vector (what it must be: test_scorer.c), the index and its file, searching while the database changes or the index is damaged. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <inttypes.h>
#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include "base/file.h"
#include "base/memory.h"
#include "retriever/search.h"
#include "retriever/vindex.h"

#define DIM 27
#define OK(call) do { iso_status status_ = (call); if (status_) fail_msg("%s:%d: %d: %s", __FILE__, __LINE__, status_, err.message); } while (0)

static const char digest_a[] = "0123456789abcdef0123456789abcdef", digest_b[] = "ffffffffffffffffffffffffffffffff";
static const char *const kinds[] = {"flat", "sq8", "fp16", "ivf", "hnsw"};
static char base[512], db[600], file[700];
static uint64_t seed;
static iso_error err;

static uint64_t draw(void)
{
    static uint64_t state;
    if (!state) state = seed;
    uint64_t z = state += UINT64_C(0x9E3779B97F4A7C15);
    z = (z ^ z >> 30) * UINT64_C(0xBF58476D1CE4E5B9);
    z = (z ^ z >> 27) * UINT64_C(0x94D049BB133111EB);
    return z ^ z >> 31;
}

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
    char command[700];
    snprintf(command, sizeof command, "rm -rf '%s'", db);
    if (system(command)) fail();
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

/* ---- tests ---- */

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
        iso_index_info info;
        int64_t faults = -1;
        bool approximate = i >= 3;
        omp_set_num_threads(approximate ? 1 : omp_get_num_procs());
        OK(iso_index_build(s, kinds[i], true, &err));
        OK(iso_index_info_get(s, &info, &err));
        assert_string_equal(info.kind, kinds[i]);
        assert_int_equal(info.count, 2500);
        assert_true(info.current && info.approximate == approximate && info.recall >= 0.95);
        assert_true(approximate == (info.width > 0));
        OK(iso_searcher_open(s, &searcher, &err));
        assert_null(iso_searcher_note(searcher));
        check_searches(s, searcher, approximate);
        OK(iso_index_verify(s, NULL, NULL, &faults, &err));
        assert_int_equal(faults, 0);
        iso_searcher_free(searcher);
    }
    omp_set_num_threads(1);
    assert_int_equal(iso_index_build(s, "tree", true, &err), ISO_E_ARGUMENT);
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
        iso_index_info info;
        float v[DIM];
        double w[DIM], offset;
        iso_txn *t;
        iso_hit hit[3];
        int64_t found;
        bool exact;
        wipe();
        iso_store *s = make(digest_a);
        fill(s, 0, 1000);
        OK(iso_index_build(s, kinds[i], true, &err));
        OK(iso_searcher_open(s, &old, &err));
        fill(s, 1500, 100);
        drop(s, 40, 30);
        random_vector(v);
        OK(iso_txn_begin(s, true, &t, &err));
        uint64_t id = put(t, "p/7.jpg", v, 99999); /* replaced under a new id */
        OK(iso_txn_commit(t, &err));
        OK(iso_searcher_open(s, &searcher, &err));
        assert_null(iso_searcher_note(searcher)); /* completed, not rebuilt */
        OK(iso_index_info_get(s, &info, &err));
        assert_false(info.current);
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
        OK(iso_index_info_get(s, &info, &err));
        assert_true(info.current);
        assert_string_equal(info.kind, kinds[i]);
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
        OK(iso_index_build(s, kinds[i], true, &err));
        OK(iso_searcher_open(s, &searcher, &err));
        OK(iso_search(searcher, w, 0, 5, 0, NULL, hits, &found, &exact, &err));
        assert_int_equal(found, 0);
        iso_searcher_free(searcher);
        fill(s, 0, 4);
        OK(iso_index_build(s, kinds[i], true, &err));
        OK(iso_searcher_open(s, &searcher, &err));
        OK(iso_search(searcher, w, 0, 5, 0, NULL, hits, &found, &exact, &err));
        assert_int_equal(found, 4);
        assert_true(exact);
        iso_searcher_free(searcher);
        iso_store_close(s);
    }
}

/* ---- damage ---- */

static void count_lines(void *ctx, const char *line)
{
    assert_true(strlen(line) > 10 && !strchr(line, '\n'));
    ++*(int *)ctx;
}

static char *slurp(const char *path, size_t *n)
{
    char *data;
    OK(iso_file_read(path, 1 << 28, &data, n, &err));
    return data;
}

static void spill(const char *path, const char *data, size_t n)
{
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(data, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
}

static void test_damage(void **state)
{
    (void)state;
    wipe();
    iso_store *s = make(digest_a);
    fill(s, 0, 300);
    snprintf(file, sizeof file, "%s/index.faiss", db);
    for (size_t kind = 0; kind < sizeof kinds / sizeof *kinds; kind++) {
        OK(iso_index_build(s, kinds[kind], true, &err));
        size_t n;
        char *good = slurp(file, &n), *bad = malloc(n);
        for (int i = 0; i < 120; i++) { /* a bit anywhere, the header more often; then the end cut off */
            iso_vindex *v = NULL;
            size_t size = i < 90 ? n : draw() % n, at = i % 3 ? draw() % ISO_VINDEX_HEADER : draw() % n;
            memcpy(bad, good, n);
            if (i < 90) bad[at] = (char)(bad[at] ^ (1 << draw() % 8));
            spill(file, bad, size);
            iso_status st = iso_vindex_read(file, NULL, &v, NULL, &err);
            if (st != ISO_E_FORMAT) fail_msg("%s: byte %zu of %zu: status %d", kinds[kind], at, size, st);
            assert_null(v);
        }
        int lines = 0;
        int64_t faults = 0;
        OK(iso_index_verify(s, count_lines, &lines, &faults, &err));
        assert_true(faults == 1 && lines == 1);
        iso_searcher *searcher;
        OK(iso_searcher_open(s, &searcher, &err));
        assert_non_null(strstr(iso_searcher_note(searcher), "damaged"));
        check_searches(s, searcher, kind >= 3);
        iso_searcher_free(searcher);
        OK(iso_searcher_open(s, &searcher, &err)); /* mended on disk */
        assert_null(iso_searcher_note(searcher));
        iso_searcher_free(searcher);
        free(good);
        free(bad);
    }
    iso_store_close(s);
}

/* An index of an older version, or of a machine with another byte order: built anew in its kind, with one line about it. */
static void test_of_another_version(void **state)
{
    (void)state;
    wipe();
    iso_store *s = make(digest_a);
    fill(s, 0, 300);
    snprintf(file, sizeof file, "%s/index.faiss", db);
    for (int order = 0; order < 2; order++) {
        iso_searcher *searcher;
        iso_index_info info;
        size_t n;
        OK(iso_index_build(s, "fp16", true, &err));
        char *data = slurp(file, &n);
        if (order) memcpy(data + 136, "\1\2\3\4\5\6\7\10", 8);
        else data[8] = 1;
        uint64_t hash = XXH3_64bits(data, 248);
        for (int i = 0; i < 8; i++) data[248 + i] = (char)(hash >> (8 * i));
        spill(file, data, n);
        free(data);
        OK(iso_searcher_open(s, &searcher, &err));
        assert_non_null(strstr(iso_searcher_note(searcher), order ? "byte order" : "version 1"));
        assert_null(strchr(iso_searcher_note(searcher), '\n'));
        check_searches(s, searcher, false);
        iso_searcher_free(searcher);
        OK(iso_index_info_get(s, &info, &err));
        assert_string_equal(info.kind, "fp16");
        OK(iso_searcher_open(s, &searcher, &err));
        assert_null(iso_searcher_note(searcher));
        iso_searcher_free(searcher);
    }
    iso_store_close(s);
}

static void test_of_another(void **state)
{
    (void)state;
    char other[800], command[2000];
    iso_searcher *searcher;
    int lines = 0;
    int64_t faults = 0;
    wipe();
    iso_store *s = make(digest_b);
    fill(s, 0, 200);
    OK(iso_index_build(s, NULL, true, &err));
    iso_store_close(s);
    snprintf(other, sizeof other, "%s/other.faiss", base);
    snprintf(command, sizeof command, "cp '%s/index.faiss' '%s'", db, other);
    if (system(command)) fail();
    wipe();
    s = make(digest_a);
    fill(s, 0, 200);
    snprintf(command, sizeof command, "cp '%s' '%s/index.faiss'", other, db);
    if (system(command)) fail();
    iso_index_info info;
    assert_int_equal(iso_index_info_get(s, &info, &err), ISO_E_MISMATCH);
    OK(iso_index_verify(s, count_lines, &lines, &faults, &err));
    assert_int_equal(faults, 1);
    OK(iso_searcher_open(s, &searcher, &err));
    assert_non_null(strstr(iso_searcher_note(searcher), "another"));
    check_searches(s, searcher, false);
    iso_searcher_free(searcher);
    /* no index, and its place cannot be written: searched all the same */
    snprintf(command, sizeof command, "rm '%s/index.faiss' && mkdir '%s/index.faiss'", db, db);
    if (system(command)) fail();
    OK(iso_searcher_open(s, &searcher, &err));
    assert_non_null(strstr(iso_searcher_note(searcher), "this run only"));
    check_searches(s, searcher, false);
    iso_searcher_free(searcher);
    assert_int_equal(iso_index_build(s, "flat", true, &err), ISO_E_IO);
    iso_store_close(s);
}

static void shell(const char *what, const char *from, const char *to)
{
    char command[2000];
    snprintf(command, sizeof command, "%s '%s' '%s'", what, from, to);
    if (system(command)) fail_msg("failed: %s", command);
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
        OK(iso_index_build(s, kinds[kind], true, &err));
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
            OK(iso_index_build(s, kinds[kind], true, &err));
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

/* Of the same vectors' origin, in the same second, with the same numbers of items and changes. */
static void test_of_a_twin(void **state)
{
    (void)state;
    char other[800];
    iso_searcher *searcher;
    snprintf(other, sizeof other, "%s/twin.faiss", base);
    snprintf(file, sizeof file, "%s/index.faiss", db);
    for (int i = 0; i < 2; i++) {
        wipe();
        iso_store *s = make(digest_a);
        fill(s, 0, 200);
        if (i == 0) OK(iso_index_build(s, NULL, true, &err));
        shell("cp", i ? other : file, i ? file : other);
        if (i) {
            OK(iso_searcher_open(s, &searcher, &err));
            assert_non_null(strstr(iso_searcher_note(searcher), "another database"));
            check_searches(s, searcher, false);
            iso_searcher_free(searcher);
        }
        iso_store_close(s);
    }
}

/* A backup put back, and other items put in since: generations and ids are given out a second time, with fewer changes than the index has seen,
 * as many, or more. Without anything new the index of before the backup is of this state, too. */
static void test_restored(void **state)
{
    (void)state;
    char data[700], backup[700];
    snprintf(data, sizeof data, "%s/data.mdb", db);
    snprintf(backup, sizeof backup, "%s/backup", base);
    for (int changes = 0; changes < 4; changes++)
        for (int before = 0; before < 2; before++) {
            iso_searcher *searcher;
            wipe();
            iso_store *s = make(digest_a);
            fill(s, 0, 300);
            if (before) OK(iso_index_build(s, NULL, true, &err));
            iso_store_close(s);
            shell("cp", data, backup);
            OK(iso_store_open(db, ISO_STORE_WRITE, NULL, &s, &err));
            fill(s, 300, 20);
            fill(s, 320, 20);
            if (!before) OK(iso_index_build(s, NULL, true, &err));
            iso_store_close(s);
            shell("cp", backup, data);
            OK(iso_store_open(db, ISO_STORE_WRITE, NULL, &s, &err));
            for (int i = 0; i < changes; i++) fill(s, 1000 + 40 * i, changes == 1 ? 40 : 20); /* other vectors under the same ids */
            OK(iso_searcher_open(s, &searcher, &err));
            assert_int_equal(iso_searcher_note(searcher) == NULL, before);
            check_searches(s, searcher, false);
            iso_searcher_free(searcher);
            iso_store_close(s);
        }
}

/* The history keeps a number of openings for writing; an index from before them is built anew, one from between them is not. */
static void test_many_writers(void **state)
{
    (void)state;
    wipe();
    iso_store *s = make(digest_a);
    fill(s, 0, 300);
    OK(iso_index_build(s, NULL, true, &err));
    iso_store_close(s);
    for (int i = 0; i < 2 * 100; i++) {
        iso_searcher *searcher;
        OK(iso_store_open(db, ISO_STORE_WRITE, NULL, &s, &err));
        if (i % 2) fill(s, 1000 + i, 1);
        else drop(s, i, 1);
        if (i == 99) OK(iso_index_build(s, NULL, true, &err));
        if (i == 98 || i == 199) {
            OK(iso_searcher_open(s, &searcher, &err));
            assert_null(iso_searcher_note(searcher));
            check_searches(s, searcher, false);
            iso_searcher_free(searcher);
        }
        iso_store_close(s);
    }
    for (int i = 0; i < 60; i++) {
        OK(iso_store_open(db, ISO_STORE_WRITE, NULL, &s, &err));
        drop(s, 2 * i + 1, 1);
        iso_store_close(s);
    }
    s = make(digest_a);
    iso_searcher *searcher;
    OK(iso_searcher_open(s, &searcher, &err));
    assert_non_null(strstr(iso_searcher_note(searcher), "built anew"));
    check_searches(s, searcher, false);
    iso_searcher_free(searcher);
    iso_store_close(s);
}

/* A sound file of other vectors under the right ids: only comparing them shows it. */
typedef struct rows { uint64_t *id; float *v; int64_t n, at; } rows;

static iso_status rewind_rows(void *ctx, iso_error *e) { (void)e; ((rows *)ctx)->at = 0; return ISO_OK; }

static iso_status next_rows(void *ctx, int64_t room, uint64_t *ids, float *unit, int64_t *got, iso_error *e)
{
    rows *r = ctx;
    (void)e;
    *got = r->n - r->at < room ? r->n - r->at : room;
    memcpy(ids, r->id + r->at, sizeof *ids * (size_t)*got);
    memcpy(unit, r->v + r->at * DIM, sizeof *unit * (size_t)*got * DIM);
    r->at += *got;
    return ISO_OK;
}

static void test_verify_sees_other_vectors(void **state)
{
    (void)state;
    iso_txn *t;
    iso_store_info info;
    rows r = {.n = 100};
    wipe();
    iso_store *s = make(digest_a);
    fill(s, 0, 100);
    r.id = iso_calloc(100, sizeof *r.id);
    r.v = iso_calloc(100, sizeof(float) * DIM);
    OK(iso_txn_begin(s, false, &t, &err));
    OK(iso_store_info_get(t, &info, &err));
    for (int i = 0; i < 100; i++) {
        const float *z;
        double square = 0;
        r.id[i] = id_of(s, i);
        OK(iso_item_vector(t, r.id[i], &z, &err));
        for (int j = 0; j < DIM; j++) square += (double)z[j] * z[j];
        for (int j = 0; j < DIM; j++) r.v[i * DIM + j] = (float)(z[j] / sqrt(square));
    }
    iso_vindex_source source = {.generation = info.generation, .dim = DIM};
    OK(iso_store_stamp(t, info.generation, &source.stamp, &err));
    iso_txn_abort(t);
    memcpy(source.digest, digest_a, sizeof digest_a);
    snprintf(file, sizeof file, "%s/index.faiss", db);
    for (size_t i = 0; i < 5; i++) {
        for (int wrong = 0; wrong < 2; wrong++) {
            iso_vindex *v;
            int lines = 0;
            int64_t faults = -1;
            iso_vindex_rows from = {.ctx = &r, .count = 100, .rewind = rewind_rows, .next = next_rows};
            r.v[33 * DIM + 4] += wrong ? 0.4f : 0;
            OK(iso_vindex_build(&source, kinds[i], &from, file, NULL, &v, &err));
            iso_vindex_free(v);
            r.v[33 * DIM + 4] -= wrong ? 0.4f : 0;
            OK(iso_index_verify(s, count_lines, &lines, &faults, &err));
            assert_int_equal(faults, wrong);
            assert_int_equal(lines, wrong);
        }
    }
    free(r.id);
    free(r.v);
    iso_store_close(s);
}

static int set_up(void **state)
{
    (void)state;
    const char *tmp = getenv("TMPDIR"), *given = getenv("ISO_TEST_SEED");
    seed = given ? strtoull(given, NULL, 0) : UINT64_C(20221);
    printf("seed %" PRIu64 " (ISO_TEST_SEED repeats it)\n", seed);
    omp_set_num_threads(1); /* waiting threads cost more than they bring on so little data; test_kinds uses more */
    snprintf(base, sizeof base, "%s/isoface-search-XXXXXX", tmp && *tmp ? tmp : "/tmp");
    if (!mkdtemp(base)) return -1;
    snprintf(db, sizeof db, "%s/test.db", base);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    char command[700];
    snprintf(command, sizeof command, "rm -rf '%s'", base);
    return system(command);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_query),            cmocka_unit_test(test_the_check_itself),
        cmocka_unit_test(test_kinds),            cmocka_unit_test(test_skip_and_bad_queries),
        cmocka_unit_test(test_changes),          cmocka_unit_test(test_empty_and_small),
        cmocka_unit_test(test_damage),           cmocka_unit_test(test_of_another),
        cmocka_unit_test(test_of_a_twin),        cmocka_unit_test(test_restored),
        cmocka_unit_test(test_close_together),   cmocka_unit_test(test_near_duplicates),
        cmocka_unit_test(test_many_writers),     cmocka_unit_test(test_verify_sees_other_vectors),
        cmocka_unit_test(test_of_another_version),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
