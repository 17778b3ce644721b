/* test_npy.c: .npy files as NumPy writes them, files that are none, and vectors in and out of a database. */
#include <dirent.h>
#include <inttypes.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "indexer/exchange.h"
#include "indexer/npy.h"
#include "tests/check.h"
#include "tests/descriptors.h"
#include "tests/folder.h"
#include "tests/random.h"

static char base[512], file[600], paths[600], db[600];
static iso_error err;

static void write_bytes(const char *path, const void *bytes, size_t n)
{
    unlink(path); /* ext4 syncs a file that is cut to nothing and written again */
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(bytes, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
}

/* A .npy file of a given version, header text and data. */
static size_t build(uint8_t *out, int version, const char *text, const void *data, size_t n)
{
    size_t length = strlen(text), at = version == 1 ? 10 : 12;
    memcpy(out, "\x93NUMPY", 6);
    out[6] = (uint8_t)version;
    out[7] = 0;
    for (size_t i = 8; i < at; i++) out[i] = (uint8_t)(length >> 8 * (i - 8));
    memcpy(out + at, text, length);
    memcpy(out + at + length, data, n);
    return at + length + n;
}

static iso_status open_built(int version, const char *text, const void *data, size_t n, iso_npy **f)
{
    uint8_t bytes[4096];
    write_bytes(file, bytes, build(bytes, version, text, data, n));
    return iso_npy_open(file, f, &err);
}

static void expect(int version, const char *text, const void *data, size_t n)
{
    static const float want[6] = {1, -2, 3.5f, 0, 1e-3f, 6};
    iso_npy *f;
    float got[6];
    OK(open_built(version, text, data, n, &f));
    assert_int_equal(iso_npy_rows(f), 2);
    assert_int_equal(iso_npy_cols(f), 3);
    OK(iso_npy_read(f, 0, 2, got, &err));
    assert_memory_equal(got, want, sizeof want);
    OK(iso_npy_read(f, 1, 1, got, &err));
    assert_memory_equal(got, want + 3, 3 * sizeof *want);
    OK(iso_npy_read(f, 2, 0, got, &err));
    assert_int_equal(iso_npy_read(f, 1, 2, got, &err), ISO_E_ARGUMENT);
    iso_npy_close(f);
}

static void test_reading(void **state)
{
    (void)state;
    const float a[6] = {1, -2, 3.5f, 0, 1e-3f, 6};
    double d[6];
    uint8_t big[24], wide[48];
    for (int i = 0; i < 6; i++) {
        d[i] = a[i];
        for (int b = 0; b < 4; b++) big[4 * i + b] = ((const uint8_t *)&a[i])[3 - b];
        for (int b = 0; b < 8; b++) wide[8 * i + b] = ((const uint8_t *)&d[i])[7 - b];
    }
    expect(1, "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }          \n", a, sizeof a);
    expect(2, "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }\n", a, sizeof a);
    expect(3, "{\"shape\":(2,3),\"fortran_order\":False,\"descr\":\"<f8\"}\n", d, sizeof d);
    expect(1, "{'descr': '>f4', 'fortran_order': False, 'shape': (2L, 3L), }\n", big, sizeof big);
    expect(1, "{'descr': '>f8', 'fortran_order': False, 'shape': (2, 3), }\n", wide, sizeof wide);
}

static void test_bad_headers(void **state)
{
    (void)state;
    const float a[6] = {1, 2, 3, 4, 5, 6};
    static const struct { const char *text; iso_status status; } bad[] = {
        {"{'descr': '<i8', 'fortran_order': False, 'shape': (2, 3), }\n", ISO_E_UNSUPPORTED},
        {"{'descr': '|f4', 'fortran_order': False, 'shape': (2, 3), }\n", ISO_E_UNSUPPORTED},
        {"{'descr': '<f2', 'fortran_order': False, 'shape': (2, 6), }\n", ISO_E_UNSUPPORTED},
        {"{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (2, 3), }\n", ISO_E_UNSUPPORTED},
        {"{'descr': '<f4', 'fortran_order': True, 'shape': (2, 3), }\n", ISO_E_UNSUPPORTED},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (6,), }\n", ISO_E_UNSUPPORTED},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (6), }\n", ISO_E_FORMAT}, /* a number, no tuple */
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (), }\n", ISO_E_UNSUPPORTED},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (1, 2, 3), }\n", ISO_E_UNSUPPORTED},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (2, 4), }\n", ISO_E_FORMAT},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (2, 2), }\n", ISO_E_FORMAT},
        {"{'descr': '<f8', 'fortran_order': False, 'shape': (2, 3), }\n", ISO_E_FORMAT},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (4294967296, 4294967296), }\n", ISO_E_FORMAT},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999999999, 3), }\n", ISO_E_FORMAT},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (-2, 3), }\n", ISO_E_FORMAT},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (2 3), }\n", ISO_E_FORMAT},
        {"{'descr': '<f4', 'fortran_order': Falsch, 'shape': (2, 3), }\n", ISO_E_FORMAT},
        {"{'descr': '<f4', 'shape': (2, 3), }\n", ISO_E_FORMAT},
        {"{'descr': '<f4', 'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }\n", ISO_E_FORMAT},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), 'more': 1}\n", ISO_E_FORMAT},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), } x\n", ISO_E_FORMAT},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), \n", ISO_E_FORMAT},
        {"{'descr': '<f4\n", ISO_E_FORMAT},
        {"", ISO_E_FORMAT}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        iso_npy *f;
        iso_status status = open_built(1, bad[i].text, a, sizeof a, &f);
        if (status != bad[i].status) fail_msg("%s: %d, %s", bad[i].text, status, status ? err.message : "");
    }
    iso_npy *f;
    static const char good[] = "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }\n";
    const int before = lowest_free();
    assert_int_equal(open_built(4, good, a, sizeof a, &f), ISO_E_UNSUPPORTED);
    write_bytes(file, "\x93NUMPY\1\1\2\0{}..", 14);
    assert_int_equal(iso_npy_open(file, &f, &err), ISO_E_UNSUPPORTED);
    write_bytes(file, "\x93NUMPY\1\0\5\0{}..", 14); /* a byte more than there is */
    assert_int_equal(iso_npy_open(file, &f, &err), ISO_E_FORMAT);
    SAYS("its header is longer than the file");
    write_bytes(file, "\x93NUMPX\1\0\2\0{}..", 14);
    assert_int_equal(iso_npy_open(file, &f, &err), ISO_E_FORMAT);
    write_bytes(file, "\x93NUMPY\2\0\xff\xff\xff\xff{}", 14);
    assert_int_equal(iso_npy_open(file, &f, &err), ISO_E_FORMAT);
    write_bytes(file, "", 0);
    assert_int_equal(iso_npy_open(file, &f, &err), ISO_E_FORMAT);
    assert_int_equal(iso_npy_open("/nonexistent/x.npy", &f, &err), ISO_E_IO);
    assert_int_equal(iso_npy_open("/tmp", &f, &err), ISO_E_FORMAT);
    assert_int_equal(lowest_free(), before);
}

static void test_wild_headers(void **state)
{
    (void)state;
    const float a[6] = {1, 2, 3, 4, 5, 6};
    uint8_t good[256], bad[256];
    size_t n = build(good, 1, "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }\n", a, sizeof a);
    for (int round = 0; round < 3000; round++) {
        memcpy(bad, good, n);
        for (int k = 0; k < 1 + round % 3; k++) {
            const uint64_t random = draw();
            bad[(random >> 33) % (n - sizeof a)] = round % 2 ? (uint8_t)(random >> 20) : (uint8_t)"0123456789(),{}'<f4LTrue"[(random >> 20) % 24];
        }
        write_bytes(file, bad, round % 7 ? n : (size_t)draw() % n);
        iso_npy *f;
        float out[64];
        if (iso_npy_open(file, &f, &err)) continue;
        assert_true(iso_npy_rows(f) * iso_npy_cols(f) <= 6);
        OK(iso_npy_read(f, 0, iso_npy_rows(f), out, &err));
        iso_npy_close(f);
    }
}

static void test_writing(void **state)
{
    (void)state;
    iso_npy_writer *w;
    iso_npy *f;
    float a[3000], got[3000];
    for (int i = 0; i < 3000; i++) a[i] = (float)i / 7;
    unlink(file);
    OK(iso_npy_create(file, 3, 1000, &w, &err));
    OK(iso_npy_write(w, a, 1, &err));
    OK(iso_npy_write(w, a + 1000, 2, &err));
    assert_int_equal(iso_npy_write(w, a, 1, &err), ISO_E_ARGUMENT);
    assert_int_equal(access(file, F_OK), -1);
    OK(iso_npy_commit(w, &err));
    OK(iso_npy_open(file, &f, &err));
    assert_true(iso_npy_rows(f) == 3 && iso_npy_cols(f) == 1000);
    struct stat st;
    assert_int_equal(stat(file, &st), 0);
    assert_int_equal((st.st_size - (off_t)sizeof a) % 64, 0); /* where they can be mapped */
    OK(iso_npy_read(f, 0, 3, got, &err));
    assert_memory_equal(a, got, sizeof a);
    iso_npy_close(f);
    OK(iso_npy_create(file, 2, 2, &w, &err));
    OK(iso_npy_write(w, a, 1, &err));
    assert_int_equal(iso_npy_commit(w, &err), ISO_E_ARGUMENT); /* a row short: the old file stands */
    OK(iso_npy_open(file, &f, &err));
    assert_int_equal(iso_npy_rows(f), 3);
    iso_npy_close(f);
    /* With paths beside: a row short; in the vectors' place a folder, which came later; both. */
    for (int i = 0; i < 3; i++) {
        iso_file *beside;
        OK(iso_npy_create(file, 1, 2, &w, &err));
        OK(iso_file_create(paths, &beside, &err));
        if (i) OK(iso_npy_write(w, a, 1, &err));
        if (i == 1) assert_true(unlink(file) == 0 && mkdir(file, 0700) == 0);
        assert_int_equal(iso_npy_commit_with(w, beside, &err), i == 0 ? ISO_E_ARGUMENT : i == 1 ? ISO_E_IO : ISO_OK);
        if (i == 1) assert_int_equal(rmdir(file), 0);
        assert_int_equal(access(paths, F_OK), i < 2 ? -1 : 0);
    }
    unlink(paths);
}

static void vectors(const float *a, int64_t rows, int64_t cols)
{
    iso_npy_writer *w;
    OK(iso_npy_create(file, rows, cols, &w, &err));
    OK(iso_npy_write(w, a, rows, &err));
    OK(iso_npy_commit(w, &err));
}

static iso_status import(const float *a, int64_t rows, int64_t cols, const char *names, size_t n, bool nul, iso_import_counts *c)
{
    vectors(a, rows, cols);
    write_bytes(paths, names, n);
    iso_import_spec spec = {.vectors = file, .paths = paths, .db = db, .nul = nul};
    return iso_import(&spec, c, &err);
}

static void expect_counts(const iso_import_counts *c, int64_t added, int64_t changed, int64_t unchanged)
{
    assert_true(c->added == added && c->changed == changed && c->unchanged == unchanged);
}

/* What it says is never more than there is, nor less than before. */
typedef struct heard {
    iso_progress progress; /* first: hear() is given it */
    int passes;
    int64_t done;
} heard;

static void hear(iso_progress *p)
{
    heard *h = (heard *)p;
    h->passes += p->done == 0;
    assert_true(p->done <= p->total && (p->done == 0 || p->done >= h->done));
    h->done = p->done;
}

static void test_exchange(void **state)
{
    (void)state;
    heard h = {.progress.show = hear};
    float a[6] = {1, 0, 0, 2, -1, 5};
    iso_import_counts c;
    static const char three[] = "plain.jpg\nt\\tn\\nr\\rb\\\\.jpg\r\nwild \xff name.jpg";
    OK(import(a, 3, 2, three, sizeof three - 1, false, &c));
    expect_counts(&c, 3, 0, 0);
    OK(import(a, 3, 2, three, sizeof three - 1, false, &c));
    expect_counts(&c, 0, 0, 3);
    a[5] = 6;
    static const char raw[] = "more\0wild \xff name.jpg\0t\tn\nr\rb\\.jpg";
    float b[6] = {9, 9, -1, 6, 0, 2};
    OK(import(b, 3, 2, raw, sizeof raw, true, &c));
    expect_counts(&c, 1, 1, 1);

    iso_store *s;
    int64_t rows;
    OK(iso_store_open(db, ISO_STORE_READ, NULL, &s, &err));
    OK(iso_export(s, file, paths, false, &h.progress, &rows, &err));
    assert_int_equal(rows, 4);
    assert_true(h.passes == 2 && h.done == 0); /* the items, and the disk, of which nobody knows how far it is */
    int64_t faults;
    h.passes = 0;
    OK(iso_store_verify(s, NULL, NULL, &h.progress, &faults, &err));
    assert_int_equal(faults, 0);
    assert_int_equal(h.passes, 6);
    iso_store_close(s);
    static const char want[] = "plain.jpg\nt\\tn\\nr\\rb\\\\.jpg\nmore\nwild \xff name.jpg\n";
    char got[256];
    FILE *f = fopen(paths, "rb");
    size_t n = fread(got, 1, sizeof got, f);
    fclose(f);
    assert_int_equal(n, sizeof want - 1);
    assert_memory_equal(got, want, n);
    iso_npy *v;
    float out[8], all[8] = {1, 0, 0, 2, 9, 9, -1, 6};
    OK(iso_npy_open(file, &v, &err));
    OK(iso_npy_read(v, 0, 4, out, &err));
    assert_memory_equal(out, all, sizeof all);
    iso_npy_close(v);
}

/* Told before anything is written, and nothing is left. */
static void test_full_disk(void **state)
{
    (void)state;
    pid_t child = fork();
    if (!child) {
        iso_npy_writer *w;
        signal(SIGXFSZ, SIG_IGN);
        setrlimit(RLIMIT_FSIZE, &(struct rlimit){1 << 20, 1 << 20});
        if (iso_npy_create(file, 100, 128, &w, &err)) _exit(1);
        iso_npy_abort(w);
        _exit(iso_npy_create(file, 1 << 20, 128, &w, &err) == ISO_E_IO ? 7 : 1);
    }
    int how;
    assert_int_equal(waitpid(child, &how, 0), child);
    assert_true(WIFEXITED(how) && WEXITSTATUS(how) == 7);
    DIR *d = opendir(base);
    for (struct dirent *e; (e = readdir(d));) assert_null(strstr(e->d_name, ".isoface"));
    closedir(d);
}

/* The deliberately wrong cases: all refused, and nothing written. */
static void test_refused(void **state)
{
    (void)state;
    assert_true(remove_folder(db));
    float a[6] = {1, 0, 0, 2, -1, 5};
    iso_import_counts c;
    assert_int_equal(import(a, 3, 2, "a\nb\n", 4, false, &c), ISO_E_MISMATCH);
    assert_int_equal(import(a, 3, 2, "a\nb\na\n", 6, false, &c), ISO_E_FORMAT);
    assert_non_null(strstr(err.message, "line 3 repeats the path of line 1"));
    assert_int_equal(import(a, 3, 2, "a\n\nb\n", 5, false, &c), ISO_E_FORMAT);
    assert_int_equal(import(a, 3, 2, "a\nb\\q\nc\n", 8, false, &c), ISO_E_FORMAT);
    assert_int_equal(import(a, 3, 2, "a\0b\0c\0", 6, false, &c), ISO_E_FORMAT);
    a[2] = a[3] = 0;
    assert_int_equal(import(a, 3, 2, "a\nb\nc\n", 6, false, &c), ISO_E_NUMERIC);
    assert_non_null(strstr(err.message, "row 2 is zero"));
    a[3] = NAN;
    assert_int_equal(import(a, 3, 2, "a\nb\nc\n", 6, false, &c), ISO_E_NUMERIC);
    a[3] = INFINITY;
    assert_int_equal(import(a, 3, 2, "a\nb\nc\n", 6, false, &c), ISO_E_NUMERIC);
    assert_int_equal(import(a, 0, 2, "", 0, false, &c), ISO_E_ARGUMENT);
    const double tiny[2] = {1e-300, -1e-300}; /* no zero where it comes from */
    iso_npy *f;
    OK(open_built(1, "{'descr': '<f8', 'fortran_order': False, 'shape': (1, 2), }\n", tiny, sizeof tiny, &f));
    iso_npy_close(f);
    write_bytes(paths, "a\n", 2);
    iso_import_spec from_doubles = {.vectors = file, .paths = paths, .db = db};
    assert_int_equal(iso_import(&from_doubles, &c, &err), ISO_E_NUMERIC);
    assert_non_null(strstr(err.message, "row 1 is zero in float32"));
    iso_store_found found;
    OK(iso_store_look(db, &found, &err));
    assert_int_equal(found, ISO_STORE_NONE);
    a[3] = 1;
    mkdir(db, 0777); /* what a killed import leaves is made anew, for the folder that it is in now */
    char data[700];
    snprintf(data, sizeof data, "%s/data.mdb", db);
    write_bytes(data, "", 0);
    OK(import(a, 3, 2, "a\nb\nc\n", 6, false, &c));
    assert_int_equal(import(a, 2, 3, "a\nb\n", 4, false, &c), ISO_E_MISMATCH); /* another length */
}

int main(void)
{
    begin_random(20221);
    if (!make_folder(base, sizeof base, "npy")) return 1;
    snprintf(file, sizeof file, "%s/v.npy", base);
    snprintf(paths, sizeof paths, "%s/p.txt", base);
    snprintf(db, sizeof db, "%s/x.db", base);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reading), cmocka_unit_test(test_bad_headers), cmocka_unit_test(test_wild_headers),
        cmocka_unit_test(test_writing), cmocka_unit_test(test_full_disk), cmocka_unit_test(test_exchange), cmocka_unit_test(test_refused)};
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    return remove_folder(base) ? failed : 1;
}
