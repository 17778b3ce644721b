/* test_store_memory.c: the database where memory runs out: it is told as that, and never taken for an answer. */
#include "tests/store_common.h"

#include <errno.h>
#include <lmdb.h>
#include <omp.h>

#include "base/file.h"
#include "include/isoface.h"
#include "indexer/exchange.h"
#include "indexer/image.h"
#include "indexer/npy.h"

/* The linker leads Isoface's calls here (Makefile). */
void *__real_malloc(size_t size);
void *__real_calloc(size_t n, size_t size);
void *__real_realloc(void *p, size_t size);
int __real_vasprintf(char **out, const char *fmt, va_list args);
int __real_mdb_cursor_open(MDB_txn *txn, MDB_dbi table, MDB_cursor **out);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_realloc(void *p, size_t size);
int __wrap_vasprintf(char **out, const char *fmt, va_list args);
int __wrap_mdb_cursor_open(MDB_txn *txn, MDB_dbi table, MDB_cursor **out);

static long asked, refuse = -1, refusals = 1; /* refuse -1: none is */
static size_t most = SIZE_MAX;                /* bytes at once */

static bool refused(size_t size)
{
    const long number = asked++;
    if (size <= most && (refuse < 0 || number < refuse || number >= refuse + refusals)) return false;
    errno = ENOMEM;
    return true;
}

void *__wrap_malloc(size_t size) { return refused(size) ? NULL : __real_malloc(size); }
void *__wrap_calloc(size_t n, size_t size) { return refused(n * size) ? NULL : __real_calloc(n, size); }
void *__wrap_realloc(void *p, size_t size) { return refused(size) ? NULL : __real_realloc(p, size); }
int __wrap_vasprintf(char **out, const char *fmt, va_list args) { return refused(0) ? -1 : __real_vasprintf(out, fmt, args); }
int __wrap_mdb_cursor_open(MDB_txn *txn, MDB_dbi table, MDB_cursor **out)
{
    return refused(0) ? ENOMEM : __real_mdb_cursor_open(txn, table, out);
}

/* Each allocation of `work` in turn: done, or out of memory; done where none is refused. */
static void every(iso_status (*work)(void *), void *ctx)
{
    for (long n = 0;; n++) {
        asked = 0;
        refuse = n;
        const iso_status status = work(ctx);
        refuse = -1;
        if (status && status != ISO_E_MEMORY) fail_msg("allocation %ld: %d: %s", n, status, err.message);
        if (status) assert_non_null(strstr(err.message, "memory"));
        if (asked <= n) { /* the last one had them all */
            assert_int_equal(status, ISO_OK);
            assert_true(n > 1); /* the deliberately wrong case: some were refused */
            return;
        }
    }
}

static iso_status put_one(void *ctx)
{
    iso_txn *t;
    float v[DIM];
    iso_item item = {.path = "p/new"};
    vector_of(7, v);
    iso_status status = iso_txn_begin(ctx, true, &t, &err);
    if (status) return status;
    status = iso_item_put(t, &item, v, &err);
    iso_txn_abort(t);
    return status;
}

static iso_status export(void *ctx)
{
    int64_t rows;
    char vectors[700], paths[700];
    snprintf(vectors, sizeof vectors, "%s/v.npy", base);
    snprintf(paths, sizeof paths, "%s/p.txt", base);
    unlink(vectors);
    return iso_export(ctx, vectors, paths, false, NULL, &rows, &err);
}

static void test_refused(void **state)
{
    (void)state;
    wipe();
    iso_store *s = make(NULL);
    fill(s, 0, 20);
    every(put_one, s);
    every(export, s);
    char data[1400];
    snprintf(data, sizeof data, "%s/../%s/x.db/data.mdb", base, strrchr(base, '/') + 1);
    asked = refuse = 0;
    refusals = 1000000;
    const bool theirs = iso_store_owns(s, "/no/such/folder/v.npy"), own = iso_store_owns(s, data);
    refuse = -1;
    refusals = 1;
    assert_false(theirs);
    assert_true(own);
    assert_int_equal(info_of(s).count, 20);
    sound(s);
    iso_store_close(s);
}

/* Examples that could not be read are read again, and none of them counts twice: 17 images that the database has, so two batches,
 * one of them to avoid, and a file that is not there. A folder is added whole or not at all. */
static void test_examples(void **state)
{
    (void)state;
    enum { IMAGES = 17 };
    char image[700], none[700];
    float v[DIM];
    iso_image_file f = {0};
    iso_txn *t;
    iso_db *d;
    wipe();
    snprintf(image, sizeof image, "%s/image", base);
    snprintf(none, sizeof none, "%s/none", base);
    write_bytes(image, "any bytes", 9);
    OK(iso_image_file_read(image, &f, &err));
    iso_store *s = make(NULL);
    iso_item item = {.path = "image", .hash = {f.hash[0], f.hash[1]}};
    vector_of(3, v);
    OK(iso_txn_begin(s, true, &t, &err));
    OK(iso_item_put(t, &item, v, &err));
    OK(iso_txn_commit(t, &err));
    iso_store_close(s);
    iso_image_file_free(&f);
    OK(iso_db_open(db, &d, &err));
    omp_set_num_threads(1); /* allocations are counted */
    int failed = 0;
    for (long n = 0; asked >= n; n++) {
        iso_query *q;
        OK(iso_query_create(d, &q, &err));
        OK(iso_query_add_path(q, ISO_LIKE, none, &err));
        for (int i = 0; i < IMAGES; i++) OK(iso_query_add_path(q, i ? ISO_LIKE : ISO_UNLIKE, image, &err));
        asked = 0;
        refuse = n;
        const iso_status status = iso_query_read(q, &err);
        refuse = -1;
        failed += status != ISO_OK;
        assert_true(status == ISO_OK || status == ISO_E_MEMORY);
        if (status) OK(iso_query_read(q, &err));
        assert_int_equal(iso_query_count(q, ISO_LIKE), IMAGES - 1);
        assert_int_equal(iso_query_count(q, ISO_UNLIKE), 1);
        assert_int_equal(iso_query_skipped(q), 1);
        iso_query_free(q);
    }
    assert_true(failed > 2 * IMAGES);

    char folder[700];
    snprintf(folder, sizeof folder, "%s/folder", base);
    assert_int_equal(mkdir(folder, 0777), 0);
    for (int i = 0; i < 4; i++) { /* the last is a link to nothing, which is skipped */
        snprintf(none, sizeof none, "%s/folder/%d", base, i);
        if (i < 3) write_bytes(none, "any bytes", 9);
        else assert_int_equal(symlink("nowhere", none), 0);
    }
    failed = 0;
    asked = 0;
    for (long n = 0; asked >= n; n++) {
        iso_query *q;
        OK(iso_query_create(d, &q, &err));
        asked = 0;
        refuse = n;
        const iso_status status = iso_query_add_path(q, ISO_LIKE, folder, &err);
        refuse = -1;
        failed += status != ISO_OK;
        assert_true(status == ISO_OK || status == ISO_E_MEMORY);
        assert_int_equal(iso_query_skipped(q), status == ISO_OK);
        if (status) OK(iso_query_add_path(q, ISO_LIKE, folder, &err));
        OK(iso_query_read(q, &err));
        assert_int_equal(iso_query_count(q, ISO_LIKE), 3);
        assert_int_equal(iso_query_skipped(q), 1);
        iso_query_free(q);
    }
    assert_true(failed > 8);
    iso_db_close(d);
}

/* A list of paths is as long as memory is: of 3 GiB, which take no room on the disk. */
static void test_long_list(void **state)
{
    (void)state;
    const float row[DIM] = {1};
    char vectors[700], paths[700];
    iso_import_counts counts;
    iso_npy_writer *w;
    wipe();
    snprintf(vectors, sizeof vectors, "%s/one.npy", base);
    snprintf(paths, sizeof paths, "%s/long.txt", base);
    OK(iso_npy_create(vectors, 1, DIM, &w, &err));
    OK(iso_npy_write(w, row, 1, &err));
    OK(iso_npy_commit(w, &err));
    write_bytes(paths, "a", 1);
    assert_int_equal(truncate(paths, (off_t)3 << 30), 0);
    const iso_import_spec spec = {.db = db, .vectors = vectors, .paths = paths, .root = "/tmp", .nul = true};
    most = (size_t)1 << 30;
    FAILS(ISO_E_MEMORY, iso_import(&spec, &counts, &err));
    most = SIZE_MAX;
    assert_int_equal(truncate(paths, 2), 0);
    OK(iso_import(&spec, &counts, &err));
    assert_int_equal(counts.added, 1);
}

int main(void)
{
    if (!set_up()) return 1;
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_refused), cmocka_unit_test(test_examples), cmocka_unit_test(test_long_list)};
    return clean_up(cmocka_run_group_tests(tests, NULL, NULL));
}
