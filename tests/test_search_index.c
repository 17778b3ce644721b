/* test_search_index.c: which index file is believed: none that is damaged, of another version, of another database, or of a state that is gone. */
#include "tests/search_common.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <xxhash.h>

#include "base/progress.h"
#include "retriever/vindex.h"

static char file[700];

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
        OK(iso_index_build(s, kinds[kind], NULL, &err));
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
        OK(iso_index_verify(s, count_lines, &lines, NULL, &faults, &err));
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
        iso_vindex_info info;
        size_t n;
        OK(iso_index_build(s, "fp16", NULL, &err));
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
        OK(iso_index_info_get(s, &info, NULL, &err));
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
    OK(iso_index_build(s, NULL, NULL, &err));
    iso_store_close(s);
    snprintf(other, sizeof other, "%s/other.faiss", base);
    snprintf(command, sizeof command, "cp '%s/index.faiss' '%s'", db, other);
    if (system(command)) fail();
    wipe();
    s = make(digest_a);
    fill(s, 0, 200);
    snprintf(command, sizeof command, "cp '%s' '%s/index.faiss'", other, db);
    if (system(command)) fail();
    iso_vindex_info info;
    assert_int_equal(iso_index_info_get(s, &info, NULL, &err), ISO_E_MISMATCH);
    OK(iso_index_verify(s, count_lines, &lines, NULL, &faults, &err));
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
    assert_int_equal(iso_index_build(s, "flat", NULL, &err), ISO_E_IO);
    iso_store_close(s);
}

static void shell(const char *what, const char *from, const char *to)
{
    char command[2000];
    snprintf(command, sizeof command, "%s '%s' '%s'", what, from, to);
    if (system(command)) fail_msg("failed: %s", command);
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
        if (i == 0) OK(iso_index_build(s, NULL, NULL, &err));
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
            if (before) OK(iso_index_build(s, NULL, NULL, &err));
            iso_store_close(s);
            shell("cp", data, backup);
            OK(iso_store_open(db, ISO_STORE_WRITE, NULL, &s, &err));
            fill(s, 300, 20);
            fill(s, 320, 20);
            if (!before) OK(iso_index_build(s, NULL, NULL, &err));
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

/* An index is used as long as little is missing, however many openings for writing lie behind it. */
static void test_many_writers(void **state)
{
    (void)state;
    wipe();
    iso_store *s = make(digest_a);
    fill(s, 0, 300);
    OK(iso_index_build(s, NULL, NULL, &err));
    iso_store_close(s);
    for (int i = 0; i < 2 * 100; i++) {
        iso_searcher *searcher;
        OK(iso_store_open(db, ISO_STORE_WRITE, NULL, &s, &err));
        if (i % 2) fill(s, 1000 + i, 1);
        else drop(s, i, 1);
        if (i == 99) OK(iso_index_build(s, NULL, NULL, &err));
        if (i == 98 || i == 199) {
            OK(iso_searcher_open(s, &searcher, &err));
            assert_null(iso_searcher_note(searcher));
            check_searches(s, searcher, false);
            iso_searcher_free(searcher);
        }
        iso_store_close(s);
    }
    for (int i = 0; i < 60; i++) { /* 50 items are missing: one in five of 250 */
        iso_searcher *searcher;
        OK(iso_store_open(db, ISO_STORE_WRITE, NULL, &s, &err));
        drop(s, 2 * i + 1, 1);
        if (i == 45 || i == 59) {
            OK(iso_searcher_open(s, &searcher, &err));
            if (i == 45) assert_null(iso_searcher_note(searcher));
            else assert_non_null(strstr(iso_searcher_note(searcher), "lacks 50 of 240 items"));
            check_searches(s, searcher, false);
            iso_searcher_free(searcher);
        }
        iso_store_close(s);
    }
}

/* Without the history no index is known to be of this database: each is built anew until the next change begins another. */
static void test_history_lost(void **state)
{
    (void)state;
    char data[700];
    wipe();
    iso_store *s = make(digest_a);
    fill(s, 0, 300);
    OK(iso_index_build(s, NULL, NULL, &err));
    iso_store_close(s);
    snprintf(data, sizeof data, "%s/data.mdb", db);
    size_t n;
    char *bytes = slurp(data, &n), *at = bytes;
    while ((at = memmem(at, (size_t)(bytes + n - at), "\7\0history", 9))) {
        at += 9;
        *at = 64; /* the first generation is above the second */
    }
    spill(data, bytes, n);
    free(bytes);
    for (int i = 0; i < 4; i++) {
        iso_searcher *searcher;
        OK(iso_store_open(db, i == 2 ? ISO_STORE_WRITE : ISO_STORE_READ, NULL, &s, &err));
        OK(iso_searcher_open(s, &searcher, &err));
        if (i == 3) assert_null(iso_searcher_note(searcher));
        else assert_non_null(strstr(iso_searcher_note(searcher), "too many changes ago"));
        check_searches(s, searcher, false);
        if (i == 2) {
            fill(s, 300, 5);
            OK(iso_searcher_refresh(searcher, &err));
            check_searches(s, searcher, false);
            OK(iso_index_build(s, NULL, NULL, &err));
        }
        iso_searcher_free(searcher);
        iso_store_close(s);
    }
}

static void *open_searcher(void *store)
{
    static const iso_index_talk talk = {.program = "the tester"};
    static iso_error why; /* one thread at a time */
    iso_searcher *searcher = NULL;
    return iso_searcher_open_telling(store, &talk, &searcher, &why) ? NULL : searcher;
}

/* Who finds no index while another builds it waits for that one and builds none; an interruption ends the waiting. */
static void test_built_by_another(void **state)
{
    (void)state;
    char data[700], aside[700], said[700];
    size_t n;
    pthread_t thread;
    void *opened = NULL;
    int status = -1;
    wipe();
    iso_store *s = make(digest_a);
    fill(s, 0, 300);
    snprintf(file, sizeof file, "%s/index.faiss", db);
    snprintf(aside, sizeof aside, "%s/aside", base);
    snprintf(data, sizeof data, "%s/data.mdb", db);
    OK(iso_index_build(s, NULL, NULL, &err));
    assert_int_equal(rename(file, aside), 0);
    int lock = open(data, O_RDONLY | O_CLOEXEC);
    assert_int_equal(flock(lock, LOCK_EX), 0);
    pid_t child = fork();
    if (child == 0) {
        iso_store *own;
        iso_searcher *searcher;
        iso_interrupt_install();
        raise(SIGINT);
        _exit(iso_store_open(db, ISO_STORE_READ, NULL, &own, &err) || iso_searcher_open(own, &searcher, &err) != ISO_E_INTERRUPTED);
    }
    assert_true(child > 0 && waitpid(child, &status, 0) == child);
    assert_int_equal(status, 0);
    assert_int_equal(access(file, F_OK), -1);
    snprintf(said, sizeof said, "%s/said", base);
    int was = dup(STDERR_FILENO), into = open(said, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    assert_true(was >= 0 && into >= 0 && dup2(into, STDERR_FILENO) >= 0);
    assert_int_equal(pthread_create(&thread, NULL, open_searcher, s), 0);
    nanosleep(&(struct timespec){.tv_nsec = 300000000}, NULL);
    assert_int_equal(access(file, F_OK), -1);
    assert_int_equal(rename(aside, file), 0);
    assert_int_equal(flock(lock, LOCK_UN), 0);
    assert_int_equal(pthread_join(thread, &opened), 0);
    assert_true(dup2(was, STDERR_FILENO) >= 0 && !close(was) && !close(into));
    char *line = slurp(said, &n);
    assert_string_equal(line, "the tester: another program builds the index: waiting for it\n");
    free(line);
    assert_non_null(opened);
    assert_null(iso_searcher_note(opened));
    check_searches(s, opened, false);
    iso_searcher_free(opened);
    assert_int_equal(unlink(file), 0);
    opened = open_searcher(s); /* nobody builds it now */
    assert_non_null(opened);
    assert_non_null(strstr(iso_searcher_note(opened), "built anew"));
    iso_searcher_free(opened);
    assert_int_equal(flock(lock, LOCK_EX | LOCK_NB), 0); /* and it has let others */
    close(lock);
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
    info = iso_store_info_get(t);
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
        for (int wrong = 2; wrong >= 0; wrong--) {
            static const int at[] = {33 * DIM + 4, 60 * DIM + 1};
            iso_vindex *v;
            int lines = 0;
            int64_t faults = -1;
            float kept[2];
            iso_vindex_rows from = {.ctx = &r, .count = 100, .rewind = rewind_rows, .next = next_rows};
            for (int k = 0; k < wrong; k++) kept[k] = r.v[at[k]], r.v[at[k]] += i ? 0.4f : 1e-4f; /* flat keeps all of it */
            OK(iso_vindex_build(&source, kinds[i], &from, file, NULL, &v, &err));
            iso_vindex_free(v);
            for (int k = 0; k < wrong; k++) r.v[at[k]] = kept[k];
            OK(iso_index_verify(s, count_lines, &lines, NULL, &faults, &err));
            assert_int_equal(faults, wrong);
            assert_int_equal(lines, wrong);
        }
        drop(s, (int)i, 1); /* what was removed since is no fault */
        int lines = 0;
        int64_t faults = -1;
        OK(iso_index_verify(s, count_lines, &lines, NULL, &faults, &err));
        assert_int_equal(faults, 0);
    }
    free(r.id);
    free(r.v);
    iso_store_close(s);
}

/* What an approximate index is to reach it is to reach for every number of answers. */
static void test_shortfall(void **state)
{
    (void)state;
    char line[200];
    assert_true(iso_index_shortfall(&(iso_vindex_info){.kind = "ivf", .approximate = true, .count = 1000, .source.dim = DIM, .recall = 0.99, .least = 0.94}, line));
    assert_non_null(strstr(line, "only 0.940 of the answers"));
    assert_false(iso_index_shortfall(&(iso_vindex_info){.kind = "ivf", .approximate = true, .count = 1000, .source.dim = DIM, .recall = 0.96, .least = 0.95}, line));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_damage),
        cmocka_unit_test(test_of_another_version),
        cmocka_unit_test(test_of_another),
        cmocka_unit_test(test_of_a_twin),
        cmocka_unit_test(test_restored),
        cmocka_unit_test(test_many_writers),
        cmocka_unit_test(test_history_lost),
        cmocka_unit_test(test_built_by_another),
        cmocka_unit_test(test_verify_sees_other_vectors),
        cmocka_unit_test(test_shortfall),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
