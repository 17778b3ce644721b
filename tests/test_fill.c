/* A database filled in one pass against one that was filled item by item, and what must not appear when that fails. */
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include "base/isa.h"
#include "indexer/store_internal.h"
#include "tests/store_common.h"

typedef struct rows {
    int dim;
    int64_t bad;
    int fails;
} rows; /* row `bad` is not finite; -1: none */

static void row_of(const rows *r, int64_t row, float *v)
{
    uint64_t state = seed ^ (uint64_t)row * 977;
    for (int i = 0; i < r->dim; i++) v[i] = (float)((double)(draw_from(&state) >> 11) * 0x1p-53 - 0.4);
    if (row % 5 == 3) /* half-way numbers: roundings that must not depend on the processor */
        for (int i = 0; i < r->dim; i++) v[i] = i ? 0 : -3;
    if (row % 7 == 2) v[r->dim - 1] = 1e-42f;
    if (row == r->bad) v[r->dim / 2] = NAN;
}

static iso_status read_rows(void *ctx, int64_t first, int64_t n, float *out, iso_error *e)
{
    const rows *r = ctx;
    if (r->fails) return iso_fail(e, ISO_E_IO, "no such row");
    for (int64_t i = 0; i < n; i++) row_of(r, first + i, out + i * r->dim);
    return ISO_OK;
}

static char **paths_of(int64_t n, size_t longest)
{
    char **paths = calloc((size_t)n, sizeof *paths);
    assert_non_null(paths);
    for (int64_t i = 0; i < n; i++) {
        size_t length = longest && i % 3 == 1 ? longest - (size_t)(i % 100) : 12;
        paths[i] = malloc(length + 24);
        assert_non_null(paths[i]);
        memset(paths[i], 'x', length);
        snprintf(paths[i] + length, 24, "/%" PRId64, i);
    }
    return paths;
}

static void free_paths(char **paths, int64_t n)
{
    for (int64_t i = 0; i < n; i++) free(paths[i]);
    free(paths);
}

static iso_status fill_db(const char *dir, int64_t n, rows *r, char **paths, iso_fill *what)
{
    iso_store_spec spec = {.dim = r->dim, .digest = digest_a, .root = "/tmp"};
    *what = (iso_fill){.count = n, .paths = paths, .read = read_rows, .ctx = r};
    return iso_store_fill(dir, &spec, what, &err);
}

static iso_store *put_db(const char *dir, int64_t n, const rows *r, char **paths)
{
    iso_store *s;
    iso_txn *t;
    float *v = malloc((size_t)r->dim * sizeof *v);
    assert_non_null(v);
    iso_store_spec spec = {.dim = r->dim, .digest = digest_a, .root = "/tmp"};
    OK(iso_store_open(dir, ISO_STORE_CREATE, &spec, &s, &err));
    OK(iso_txn_begin(s, true, &t, &err));
    for (int64_t i = 0; i < n; i++) {
        iso_item item = {.path = paths[i]};
        row_of(r, i, v);
        OK(iso_item_put(t, &item, v, &err));
    }
    OK(iso_txn_commit(t, &err));
    free(v);
    return s;
}

static bool same_moments(iso_txn *a, iso_txn *b)
{
    iso_moments x, y;
    OK(iso_store_moments(a, &x, &err));
    OK(iso_store_moments(b, &y, &err));
    size_t n = (size_t)x.dim;
    bool same = x.count == y.count && !memcmp(x.sum, y.sum, n * sizeof *x.sum) &&
                !memcmp(x.product, y.product, n * n * sizeof *x.product);
    iso_moments_free(&x);
    iso_moments_free(&y);
    return same;
}

static void same_items(iso_txn *a, iso_txn *b, int64_t n, int dim)
{
    iso_cursor *x, *y;
    iso_item p, q, found;
    const float *u, *v;
    int64_t seen = 0;
    OK(iso_cursor_open(a, 0, &x, &err));
    OK(iso_cursor_open(b, 0, &y, &err));
    while (!iso_cursor_next(x, &p, &u, &err)) {
        OK(iso_cursor_next(y, &q, &v, &err));
        assert_true(p.id == q.id && p.size == q.size && p.mtime_ns == q.mtime_ns && p.width == q.width && !p.hash[0] &&
                    !p.hash[1]);
        assert_string_equal(p.path, q.path);
        assert_memory_equal(u, v, (size_t)dim * sizeof *u);
        OK(iso_item_by_path(a, p.path, &found, &err));
        assert_int_equal(found.id, p.id);
        seen++;
    }
    assert_int_equal(iso_cursor_next(y, &q, &v, &err), ISO_E_NOT_FOUND);
    assert_int_equal(seen, n);
    iso_cursor_close(x);
    iso_cursor_close(y);
}

/* The same edits afterwards: LMDB must be able to go on with what it did not write. */
static void edit(iso_store *s, int64_t n, const rows *r, char **paths)
{
    iso_txn *t;
    iso_item item;
    float *v = malloc((size_t)r->dim * sizeof *v);
    assert_non_null(v);
    OK(iso_txn_begin(s, true, &t, &err));
    for (int64_t i = 0; i < n; i += 2) {
        OK(iso_item_by_path(t, paths[i], &item, &err));
        if (i % 3)
            OK(iso_item_remove(t, item.id, &err));
        else {
            item = (iso_item){.path = paths[i], .size = 5};
            row_of(r, i + n, v);
            OK(iso_item_put(t, &item, v, &err));
        }
    }
    for (int64_t i = 0; i < 100; i++) {
        char path[32];
        snprintf(path, sizeof path, "new/%" PRId64, i);
        item = (iso_item){.path = path, .hash = {(uint64_t)i + 1, 7}};
        row_of(r, i + 2 * n, v);
        OK(iso_item_put(t, &item, v, &err));
    }
    OK(iso_txn_commit(t, &err));
    free(v);
}

static void compare(int dim, int64_t n, size_t longest)
{
    char other[700];
    iso_txn *a, *b;
    iso_fill what;
    iso_store *s, *o;
    rows r = {.dim = dim, .bad = -1};
    char **paths = paths_of(n, longest);
    snprintf(other, sizeof other, "%s/other.db", base);
    OK(fill_db(db, n, &r, paths, &what));
    OK(iso_store_open(db, ISO_STORE_WRITE, NULL, &s, &err));
    sound(s);
    o = put_db(other, n, &r, paths);
    for (int round = 0; round < 2; round++) {
        OK(iso_txn_begin(s, false, &a, &err));
        OK(iso_txn_begin(o, false, &b, &err));
        iso_store_info info;
        info = iso_store_info_get(a);
        if (!round) assert_true(info.count == (uint64_t)n && info.next_id == (uint64_t)n + 1 && info.dim == dim);
        if (!round) same_items(a, b, n, dim);
        assert_true(same_moments(a, b));
        iso_txn_abort(a);
        iso_txn_abort(b);
        if (round) break;
        edit(s, n, &r, paths);
        edit(o, n, &r, paths);
        sound(s);
    }
    iso_store_close(s);
    iso_store_close(o);
    free_paths(paths, n);
    char command[1500];
    snprintf(command, sizeof command, "rm -rf '%s' '%s'", db, other);
    assert_int_equal(system(command), 0);
}

static void test_same(void **state)
{
    (void)state;
    compare(5, 1, 0);
    compare(1, 2, 0);
    compare(8, 300, 0);
    compare(33, 20000, 0);    /* branches of two levels by path */
    compare(128, 3000, 3000); /* paths in pages of their own */
    compare(505, 500, 0);     /* the longest vectors within a leaf */
    compare(506, 500, 0);
    compare(1100, 333, 9000);
}

static void test_long_vectors(void **state)
{
    (void)state;
    rows r = {.dim = ISO_STORE_DIM_MAX, .bad = -1};
    iso_fill what;
    iso_store *s;
    iso_txn *t;
    const float *v;
    char **paths = paths_of(70, 0);
    OK(fill_db(db, 70, &r, paths, &what));
    OK(iso_store_open(db, ISO_STORE_READ, NULL, &s, &err));
    sound(s);
    OK(iso_txn_begin(s, false, &t, &err));
    float *row = malloc((size_t)r.dim * sizeof *row);
    assert_non_null(row);
    for (int64_t i = 0; i < 70; i += 23) {
        row_of(&r, i, row);
        OK(iso_item_vector(t, (uint64_t)i + 1, &v, &err));
        assert_memory_equal(v, row, (size_t)r.dim * sizeof *row);
    }
    free(row);
    iso_txn_abort(t);
    iso_store_close(s);
    free_paths(paths, 70);
    wipe();
}

static const char *const processors[] = {"portable", "avx2", "avx512", NULL};

/* The largest sums, and what only a division rounds the right way: with a norm of 3 * 2^23 a 9 is exactly half-way between two
 * integers, and 9 * (2^22/norm) is below that. */
static void test_extremes(void **state)
{
    (void)state;
    const float halves[] = {9, 16776583, 16775930, 8392445, 9};
    for (int dim = 5; dim < 30; dim += 9) {
        iso_sums *s[4] = {NULL};
        float v[5 * 30];
        for (int k = 0; k < 4; k++) {
            (void)iso_isa_use(processors[k]); /* one that is not there: as before */
            s[k] = iso_sums_new(dim);
            assert_non_null(s[k]);
            for (int64_t i = 0; i < 9001; i++) {
                memset(v, 0, sizeof v);
                for (int r = 0; r < 5; r++) {
                    int kind = i < 1000 ? 0 : (int)(i + r) % 4;
                    v[r * dim] = -1;
                    if (kind == 1) memcpy(v + (r + 1) * dim - 5, halves, sizeof halves);
                    if (kind == 2) v[(r + 1) * dim - 1] = 2048;
                    if (kind == 1 && dim > 5) v[r * dim] = 0;
                }
                assert_int_equal(iso_sums_account(s[k], v, 5), 5);
            }
        }
        assert_true(iso_isa_use(NULL));
        for (int k = 1; k < 4; k++) assert_true(iso_sums_equal(s[0], s[k]));
        for (int k = 0; k < 4; k++) iso_sums_free(s[k]);
    }
}

/* Every processor's arithmetic: the same bits, whatever mixes of full and begun blocks. */
static void test_arithmetic(void **state)
{
    (void)state;
    const int dims[] = {1, 7, 8, 9, 31, 128, 200, 500};
    for (size_t d = 0; d < sizeof dims / sizeof *dims; d++) {
        rows r = {.dim = dims[d], .bad = -1};
        iso_sums *s[4] = {NULL};
        float v[500];
        for (int k = 0; k < 4; k++) {
            (void)iso_isa_use(processors[k]); /* one that is not there: as before */
            s[k] = iso_sums_new(dims[d]);
            assert_non_null(s[k]);
            for (int64_t i = 0; i < 1700; i++) {
                row_of(&r, i, v);
                assert_true(iso_sums_account(s[k], v, 1));
            }
            memset(v, 0, sizeof v);
            assert_false(iso_sums_account(s[k], v, 1));
            v[dims[d] - 1] = INFINITY;
            assert_false(iso_sums_account(s[k], v, 1));
        }
        assert_true(iso_isa_use(NULL));
        for (int k = 1; k < 4; k++) assert_true(iso_sums_equal(s[0], s[k]));
        row_of(&r, 1, v);
        iso_sums_account(s[1], v, 1);
        assert_false(iso_sums_equal(s[0], s[1])); /* the comparison sees a difference */
        for (int k = 0; k < 4; k++) iso_sums_free(s[k]);
    }
}

static void test_refused(void **state)
{
    (void)state;
    iso_fill what;
    iso_store *s;
    rows r = {.dim = DIM, .bad = 5000};
    char **paths = paths_of(9000, 0);
    assert_int_equal(fill_db(db, 9000, &r, paths, &what), ISO_E_NUMERIC);
    assert_int_equal(what.row, 5000);
    assert_non_null(strstr(err.message, paths[5000]));
    assert_int_equal(access(db, F_OK), -1); /* nothing is left */
    r.bad = -1;
    char *kept = paths[8000];
    paths[8000] = paths[17];
    assert_int_equal(fill_db(db, 9000, &r, paths, &what), ISO_E_FORMAT);
    assert_true((what.row == 8000 && what.twin == 17) || (what.row == 17 && what.twin == 8000));
    assert_int_equal(access(db, F_OK), -1);
    paths[8000] = kept;
    r.fails = 1;
    assert_int_equal(fill_db(db, 9000, &r, paths, &what), ISO_E_IO);
    assert_string_equal(err.message, "no such row");
    assert_int_equal(what.row, -1);
    assert_int_equal(access(db, F_OK), -1);
    r.fails = 0;

    /* an empty database is filled, and stands when that fails */
    s = make(NULL);
    iso_store_close(s);
    r.bad = 0;
    assert_int_equal(fill_db(db, 9000, &r, paths, &what), ISO_E_NUMERIC);
    OK(iso_store_open(db, ISO_STORE_READ, NULL, &s, &err));
    assert_int_equal(info_of(s).count, 0);
    iso_store_close(s);
    r.bad = -1;
    OK(fill_db(db, 9000, &r, paths, &what));
    assert_int_equal(fill_db(db, 9000, &r, paths, &what), ISO_E_UNSUPPORTED); /* it has items now */
    OK(iso_store_open(db, ISO_STORE_READ, NULL, &s, &err));
    assert_int_equal(info_of(s).count, 9000);
    iso_store_close(s);
    free_paths(paths, 9000);
    wipe();
}

/* In another process, with files limited to less than the vectors take; and one that is killed. */
static void test_disk_full_and_killed(void **state)
{
    (void)state;
    enum { N = 60000 };
    rows r = {.dim = 64, .bad = -1};
    iso_fill what;
    iso_store *s;
    char **paths = paths_of(N, 0);
    iso_store_close(make(NULL));
    wipe();
    const rlim_t limits[] = {8 << 20, 19 << 20}; /* too small for the vectors, for the tables behind them */
    int how;
    pid_t child;
    for (int i = 0; i < 2; i++) {
        child = fork();
        if (!child) {
            signal(SIGXFSZ, SIG_IGN);
            setrlimit(RLIMIT_FSIZE, &(struct rlimit){limits[i], limits[i]});
            iso_status status = fill_db(db, N, &r, paths, &what);
            _exit(status == ISO_E_IO && strstr(err.message, "make room") ? 7 : 1);
        }
        assert_int_equal(waitpid(child, &how, 0), child);
        assert_true(WIFEXITED(how) && WEXITSTATUS(how) == 7);
        assert_int_equal(access(db, F_OK), -1);
    }
    child = fork();
    if (!child) {
        if (fill_db(db, N, &r, paths, &what)) _exit(1);
        _exit(0);
    }
    uint64_t random = seed;
    usleep((useconds_t)(draw_from(&random) % 60000));
    kill(child, SIGKILL);
    assert_int_equal(waitpid(child, &how, 0), child);
    if (WIFSIGNALED(how)) { /* all or nothing, and the next run does it */
        iso_status status = iso_store_open(db, ISO_STORE_READ, NULL, &s, &err);
        if (!status) {
            uint64_t count = info_of(s).count;
            assert_true(count == 0 || count == N);
            iso_store_close(s);
            if (!count) OK(fill_db(db, N, &r, paths, &what));
        } else {
            /* nothing yet, or what LMDB had begun */
            assert_true(status == ISO_E_NOT_FOUND || (status == ISO_E_FORMAT && strstr(err.message, "was never completed")));
            OK(fill_db(db, N, &r, paths, &what));
        }
    }
    OK(iso_store_open(db, ISO_STORE_READ, NULL, &s, &err));
    assert_int_equal(info_of(s).count, N);
    sound(s);
    iso_store_close(s);
    free_paths(paths, N);
    wipe();
}

int main(void)
{
    if (!set_up()) return 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_same),          cmocka_unit_test(test_long_vectors), cmocka_unit_test(test_extremes),
        cmocka_unit_test(test_arithmetic),
        cmocka_unit_test(test_refused), cmocka_unit_test(test_disk_full_and_killed),
    };
    return clean_up(cmocka_run_group_tests(tests, NULL, NULL));
}
