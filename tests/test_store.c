/* test_store.c: the database: what was put comes back, as it grows, shrinks and is read meanwhile. */
#include "tests/store_common.h"
#include "indexer/store_internal.h"

#include <pthread.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>

static char file[700];

static void check_root(iso_store *s, const char *want)
{
    iso_txn *t;
    char *root;
    OK(iso_txn_begin(s, false, &t, &err));
    OK(iso_store_root(t, &root, &err));
    iso_txn_abort(t);
    assert_string_equal(root, want);
    free(root);
}

static void test_items(void **state)
{
    (void)state;
    wipe();
    iso_store *s = make(NULL);
    iso_txn *t;
    iso_item item;
    const float *v;
    float want[DIM];
    static const char odd[] = "with space/new\nline \xff\xfe\t.jpg";
    OK(iso_txn_begin(s, true, &t, &err));
    assert_int_equal(put(t, odd, 1, 11), 1);
    assert_int_equal(put(t, "b.jpg", 2, 22), 2);
    assert_int_equal(put(t, "copy of b.jpg", 2, 22), 3);
    assert_int_equal(put(t, "b.jpg", 4, 44), 4); /* replaced under a new id */
    OK(iso_txn_commit(t, &err));
    assert_int_equal(info_of(s).count, 3);
    assert_int_equal(info_of(s).next_id, 5);
    assert_int_equal(info_of(s).generation, 1);
    assert_string_equal(info_of(s).digest, digest_a);
    check_root(s, "/tmp");

    OK(iso_txn_begin(s, false, &t, &err));
    OK(iso_item_by_path(t, odd, &item, &err));
    assert_string_equal(item.path, odd);
    assert_true(item.id == 1 && item.size == 1 && item.mtime_ns == -5 && item.hash[0] == 11 && item.width == 178 && item.height == 218);
    OK(iso_item_vector(t, 4, &v, &err));
    vector_of(4, want);
    assert_memory_equal(v, want, sizeof want);
    assert_int_equal(iso_item_get(t, 2, &item, &err), ISO_E_NOT_FOUND);
    assert_int_equal(iso_item_vector(t, 2, &v, &err), ISO_E_NOT_FOUND);
    assert_int_equal(iso_item_by_path(t, "c.jpg", &item, &err), ISO_E_NOT_FOUND);
    OK(iso_item_by_hash(t, (uint64_t[]){22, 1}, &item, &err));
    assert_int_equal(item.id, 3);
    assert_int_equal(iso_item_by_hash(t, (uint64_t[]){23, 1}, &item, &err), ISO_E_NOT_FOUND);
    assert_int_equal(iso_item_put(t, &item, want, &err), ISO_E_ARGUMENT); /* a reader */
    iso_cursor *c;
    OK(iso_cursor_open(t, 2, &c, &err));
    OK(iso_cursor_next(c, &item, NULL, &err));
    assert_int_equal(item.id, 3);
    OK(iso_cursor_next(c, &item, &v, &err));
    assert_int_equal(item.id, 4);
    assert_memory_equal(v, want, sizeof want);
    assert_int_equal(iso_cursor_next(c, &item, &v, &err), ISO_E_NOT_FOUND);
    iso_cursor_close(c);
    iso_txn_abort(t);

    OK(iso_txn_begin(s, true, &t, &err));
    item = (iso_item){.id = 4, .size = 99, .mtime_ns = 100, .width = 1, .height = 2};
    OK(iso_item_touch(t, &item, &err));
    OK(iso_txn_commit(t, &err));
    assert_int_equal(info_of(s).generation, 1);
    OK(iso_txn_begin(s, true, &t, &err));
    OK(iso_item_get(t, 4, &item, &err));
    assert_true(item.size == 99 && item.mtime_ns == 100 && item.hash[0] == 44 && !strcmp(item.path, "b.jpg"));
    assert_true(item.width == 1 && item.height == 2);
    OK(iso_item_remove(t, 1, &err));
    assert_int_equal(iso_item_remove(t, 1, &err), ISO_E_NOT_FOUND);
    OK(iso_txn_commit(t, &err));
    assert_int_equal(info_of(s).count, 2);
    assert_int_equal(info_of(s).generation, 2);
    sound(s);
    OK(iso_txn_begin(s, true, &t, &err));
    OK(iso_item_remove(t, 3, &err));
    iso_txn_abort(t);
    assert_int_equal(info_of(s).count, 2);
    iso_store_close(s);
}

/* Walks from an id on; every item and vector must be the one that is there. `there` [next_id]: which ids are. */
static void walk_from(iso_store *s, bool write, int dim, uint64_t from, uint64_t next_id, const bool *there)
{
    iso_txn *t;
    iso_cursor *c;
    iso_item item;
    const float *v;
    uint64_t gone = write ? 2 * (next_id / 4) : 0; /* removed by the writer just before, whose pages are not in the map then */
    while (write && !there[gone]) gone++;
    OK(iso_txn_begin(s, write, &t, &err));
    if (write) OK(iso_item_remove(t, gone, &err));
    OK(iso_cursor_open(t, from, &c, &err));
    for (uint64_t id = from; id < next_id; id++) {
        char path[64];
        if (!there[id] || (write && id == gone)) continue;
        const bool with = id % 5 != 2;
        OK(iso_cursor_next(c, &item, with ? &v : NULL, &err));
        assert_int_equal(item.id, id);
        snprintf(path, sizeof path, "%0*" PRIu64, (int)(1 + id % 37), id);
        assert_string_equal(item.path, path);
        for (int i = 0; with && i < dim; i += dim - 1) assert_true(v[i] == (float)(id + (uint64_t)i));
    }
    err = (iso_error){0};
    assert_int_equal(iso_cursor_next(c, &item, &v, &err), ISO_E_NOT_FOUND);
    assert_int_equal(iso_cursor_next(c, &item, &v, &err), ISO_E_NOT_FOUND);
    assert_int_equal(err.status, ISO_OK); /* the end is no error */
    iso_cursor_close(c);
    iso_txn_abort(t);
}

/* Vectors of several in a page, of one, and of several pages; pages with gaps; to a reader, and to a writer with changes of its own before. */
static void test_walks(void **state)
{
    (void)state;
    enum { ITEMS = 1500 };
    static const int dim[] = {5, 128, 400, 600, 2000};
    static bool there[ITEMS + 1];
    float *v = calloc(2000, sizeof *v);
    assert_non_null(v);
    for (size_t k = 0; k < sizeof dim / sizeof *dim; k++) {
        iso_store *s;
        iso_txn *t;
        iso_store_spec spec = {.dim = dim[k], .digest = digest_a, .root = "/tmp"};
        wipe();
        OK(iso_store_open(db, ISO_STORE_CREATE, &spec, &s, &err));
        OK(iso_txn_begin(s, true, &t, &err));
        for (uint64_t id = 1; id <= ITEMS; id++) {
            char path[64];
            snprintf(path, sizeof path, "%0*" PRIu64, (int)(1 + id % 37), id);
            for (int i = 0; i < dim[k]; i++) v[i] = (float)(id + (uint64_t)i);
            iso_item item = {.path = path, .size = 1, .hash = {id, 1}, .width = 1, .height = 1};
            OK(iso_item_put(t, &item, v, &err));
            there[id] = true;
        }
        OK(iso_txn_commit(t, &err));
        walk_from(s, false, dim[k], 1, ITEMS + 1, there);
        OK(iso_txn_begin(s, true, &t, &err));
        for (uint64_t id = 1; id <= ITEMS; id++)
            if (id % 3 == 1 || (id > 400 && id < 500) || id == ITEMS) {
                OK(iso_item_remove(t, id, &err));
                there[id] = false;
            }
        OK(iso_txn_commit(t, &err));
        static const uint64_t from[] = {0, 1, 2, 401, 450, 777, 778, ITEMS - 1, ITEMS, ITEMS + 7};
        for (size_t i = 0; i < sizeof from / sizeof *from; i++)
            for (int write = 0; write < 2; write++) walk_from(s, write, dim[k], from[i], ITEMS + 1, there);
        sound(s);
        iso_store_close(s);
        OK(iso_store_open(db, ISO_STORE_READ, NULL, &s, &err));
        walk_from(s, false, dim[k], 0, ITEMS + 1, there);
        iso_store_close(s);
    }
    free(v);
}

/* The deliberately wrong case: vectors that must never get in. */
static void test_wrong_vectors(void **state)
{
    (void)state;
    wipe();
    iso_store *s = make(NULL);
    iso_txn *t;
    float v[DIM] = {0};
    iso_item item = {.path = "x"};
    OK(iso_txn_begin(s, true, &t, &err));
    assert_int_equal(iso_item_put(t, &item, v, &err), ISO_E_NUMERIC);
    v[2] = NAN;
    assert_int_equal(iso_item_put(t, &item, v, &err), ISO_E_NUMERIC);
    v[2] = -INFINITY;
    assert_int_equal(iso_item_put(t, &item, v, &err), ISO_E_NUMERIC);
    v[2] = 1;
    item.path = "";
    assert_int_equal(iso_item_put(t, &item, v, &err), ISO_E_ARGUMENT);
    char *path = malloc(ISO_STORE_PATH_MAX + 2); /* as long as one may be, and longer */
    assert_non_null(path);
    memset(path, 'x', ISO_STORE_PATH_MAX + 1);
    path[ISO_STORE_PATH_MAX + 1] = 0;
    item.path = path;
    assert_int_equal(iso_item_put(t, &item, v, &err), ISO_E_ARGUMENT);
    path[ISO_STORE_PATH_MAX] = 0;
    OK(iso_item_put(t, &item, v, &err));
    free(path);
    item.path = "x";
    OK(iso_item_put(t, &item, v, &err)); /* a refused item leaves the transaction usable */
    OK(iso_txn_commit(t, &err));
    sound(s);
    iso_store_close(s);
}

static void test_open(void **state)
{
    (void)state;
    iso_store *s, *second;
    wipe();
    assert_int_equal(iso_store_open(db, ISO_STORE_READ, NULL, &s, &err), ISO_E_NOT_FOUND);
    assert_int_equal(iso_store_open(db, ISO_STORE_WRITE, NULL, &s, &err), ISO_E_NOT_FOUND);
    iso_store_found found;
    OK(iso_store_look(db, &found, &err));
    assert_int_equal(found, ISO_STORE_NONE);
    iso_store_spec spec = {.dim = DIM, .digest = digest_a, .root = "/tmp", .model = "/nonexistent/m.safetensors"};
    assert_int_equal(iso_store_open(db, ISO_STORE_CREATE, &spec, &s, &err), ISO_E_IO);
    assert_int_equal(access(db, F_OK), -1); /* nothing is left behind */
    snprintf(file, sizeof file, "%s/m", base);
    write_bytes(file, "weights", 7);
    s = make(file);
    assert_string_equal(info_of(s).model, "model.safetensors");
    assert_int_equal(iso_store_open(db, ISO_STORE_READ, NULL, &second, &err), ISO_E_ARGUMENT); /* twice in one process */
    fill(s, 0, 10);
    iso_store_close(s);
    OK(iso_store_look(db, &found, &err));
    assert_int_equal(found, ISO_STORE_COMPLETE);
    snprintf(file, sizeof file, "%s/model.safetensors", db);
    size_t n;
    char *copy = read_bytes(file, &n);
    assert_true(n == 7 && !memcmp(copy, "weights", 7));
    free(copy);
    spec.model = NULL;
    spec.digest = digest_b;
    assert_int_equal(iso_store_open(db, ISO_STORE_CREATE, &spec, &s, &err), ISO_E_MISMATCH);
    assert_non_null(strstr(err.message, digest_a));
    assert_non_null(strstr(err.message, digest_b));
    spec.digest = digest_a;
    spec.root = "/usr";
    assert_int_equal(iso_store_open(db, ISO_STORE_CREATE, &spec, &s, &err), ISO_E_MISMATCH);
    spec.root = NULL;
    OK(iso_store_open(db, ISO_STORE_CREATE, &spec, &s, &err));
    OK(iso_store_relocate(s, "/usr", &err));
    char *full = iso_store_path(s, "a b");
    assert_string_equal(full, "/usr/a b");
    free(full);
    iso_store_close(s);
    OK(iso_store_open(db, ISO_STORE_READ, NULL, &s, &err));
    check_root(s, "/usr");
    assert_int_equal(info_of(s).count, 10);
    iso_txn *t;
    assert_int_equal(iso_txn_begin(s, true, &t, &err), ISO_E_ARGUMENT);
    iso_store_close(s);
    spec.root = "/tmp";
    char folder[600];
    snprintf(folder, sizeof folder, "%s/strange", base);
    mkdir(folder, 0777);
    snprintf(file, sizeof file, "%s/photo.jpg", folder);
    write_bytes(file, "x", 1);
    assert_int_equal(iso_store_open(folder, ISO_STORE_CREATE, &spec, &s, &err), ISO_E_ARGUMENT);
    assert_int_equal(iso_store_open(file, ISO_STORE_CREATE, &spec, &s, &err), ISO_E_ARGUMENT);
    assert_int_equal(iso_store_open(file, ISO_STORE_READ, NULL, &s, &err), ISO_E_FORMAT);
    assert_int_equal(iso_store_open(folder, ISO_STORE_READ, NULL, &s, &err), ISO_E_NOT_FOUND);
    snprintf(file, sizeof file, "%s/data.mdb", folder);
    assert_int_equal(mkfifo(file, 0600), 0);
    alarm(60); /* nobody writes to it */
    assert_int_equal(iso_store_open(folder, ISO_STORE_READ, NULL, &s, &err), ISO_E_FORMAT);
    alarm(0);
    assert_non_null(strstr(err.message, "not a regular file"));
}

/* A create that was killed at its first instants is completed. */
static void test_killed_create(void **state)
{
    (void)state;
    wipe();
    mkdir(db, 0777);
    snprintf(file, sizeof file, "%s/data.mdb", db);
    write_bytes(file, "", 0);
    iso_store *s;
    assert_int_equal(iso_store_open(db, ISO_STORE_READ, NULL, &s, &err), ISO_E_FORMAT);
    s = make(NULL);
    fill(s, 0, 3);
    sound(s);
    iso_store_close(s);
}

/* The same where the disk was full at any of its first pages; the model is that of the attempt that succeeds. */
static void test_full_create(void **state)
{
    (void)state;
    static const rlim_t sizes[] = {0, 1, 20, 100, 200, 4096, 4100, 5000, 8191, 8192, 10000, 12288, 16383};
    char data[700], copy[700];
    struct rlimit old;
    signal(SIGXFSZ, SIG_IGN);
    getrlimit(RLIMIT_FSIZE, &old);
    snprintf(file, sizeof file, "%s/m", base);
    snprintf(data, sizeof data, "%s/data.mdb", db);
    snprintf(copy, sizeof copy, "%s/model.safetensors", db);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        iso_store_spec spec = {.dim = DIM, .digest = digest_b, .root = "/usr"};
        iso_store_found found;
        size_t n;
        wipe();
        iso_store *s = make(NULL); /* for the lock file, which is larger */
        iso_store_close(s);
        unlink(data);
        setrlimit(RLIMIT_FSIZE, &(struct rlimit){sizes[i], old.rlim_max});
        iso_status status = iso_store_open(db, ISO_STORE_CREATE, &spec, &s, &err);
        setrlimit(RLIMIT_FSIZE, &old);
        assert_int_equal(status, ISO_E_IO);
        write_bytes(copy, "m", 1);
        OK(iso_store_look(db, &found, &err));
        assert_int_equal(found, ISO_STORE_INCOMPLETE);
        assert_int_not_equal(iso_store_open(db, ISO_STORE_READ, NULL, &s, &err), ISO_OK);
        assert_non_null(strstr(err.message, "complete"));
        write_bytes(file, "another", 7);
        s = make(file);
        fill(s, 0, 3);
        sound(s);
        iso_store_close(s);
        char *bytes = read_bytes(copy, &n);
        assert_true(n == 7 && !memcmp(bytes, "another", 7));
        free(bytes);
    }
}

/* A complete one that was cut off or damaged is never made anew. */
static void test_damaged_create(void **state)
{
    (void)state;
    static const size_t cuts[] = {0, 1, 100, 4096, 4200, 8191, 8192, 12288};
    char index[700];
    size_t n, now;
    wipe();
    iso_store *s = make(NULL);
    for (uint64_t i = 0; i < 3; i++) fill(s, i, 1);
    iso_store_close(s);
    snprintf(file, sizeof file, "%s/data.mdb", db);
    snprintf(index, sizeof index, "%s/index.faiss", db);
    char *good = read_bytes(file, &n);
    for (int round = 0; round < 3; round++)
        for (size_t i = 0; i < sizeof cuts / sizeof *cuts; i++) {
            size_t bytes = round < 2 ? cuts[i] : n;
            if (round == 0 && bytes < 152) continue; /* nothing in it tells */
            char *bad = malloc(bytes + 1);
            assert_non_null(bad);
            memcpy(bad, good, bytes);
            if (round == 1) write_bytes(index, "x", 1);
            if (round == 2) memset(bad + (i % 2) * 4096, i < 4 ? 0 : 255, 152);
            write_bytes(file, bad, bytes);
            iso_store_found found;
            OK(iso_store_look(db, &found, &err));
            assert_int_equal(found, ISO_STORE_COMPLETE);
            iso_store_spec spec = {.dim = DIM, .digest = digest_a, .root = "/tmp"};
            assert_int_equal(iso_store_open(db, ISO_STORE_CREATE, &spec, &s, &err), ISO_E_FORMAT);
            assert_null(strstr(err.message, "run what makes it again")); /* which has just been done */
            char *after = read_bytes(file, &now);
            assert_true(now == bytes && !memcmp(after, bad, now));
            free(after);
            free(bad);
        }
    free(good);
}

/* The map grows as the data do, under readers, and with readers in this process keeping their snapshot. */
static void test_growth(void **state)
{
    (void)state;
    wipe();
    iso_store *s = make(NULL);
    OK(iso_store_map_step(s, 1 << 20, &err));
    fill(s, 0, 10);
    iso_txn *t;
    const float *v;
    float want[DIM];
    OK(iso_txn_begin(s, false, &t, &err));
    fill(s, 10, 100);
    iso_store_info info;
    info = iso_store_info_get(t);
    assert_int_equal(info.count, 10);
    OK(iso_item_vector(t, 3, &v, &err));
    vector_of(2, want);
    assert_memory_equal(v, want, sizeof want);
    iso_txn_abort(t);
    for (uint64_t n = 110; n < 30110; n += 1000) fill(s, n, 1000);
    assert_int_equal(info_of(s).count, 30110);
    sound(s);
    /* one transaction beyond its room: told, nothing stored, and the database goes on */
    OK(iso_txn_begin(s, true, &t, &err));
    iso_status status = ISO_OK;
    for (uint64_t n = 0; !status && n < 200000; n++) {
        char path[64];
        snprintf(path, sizeof path, "huge/%" PRIu64, n);
        vector_of(n, want);
        iso_item item = {.path = path, .hash = {n + 1, 77}};
        status = iso_item_put(t, &item, want, &err);
    }
    assert_int_equal(status, ISO_E_IO);
    assert_int_equal(iso_txn_commit(t, &err), ISO_E_ARGUMENT);
    fill(s, 30110, 500);
    assert_int_equal(info_of(s).count, 30610);
    sound(s);
    iso_store_close(s);
}

/* Lets the process have `more` addresses than it has now. */
static void ration(uint64_t more)
{
    unsigned long pages;
    struct rlimit limit;
    FILE *f = fopen("/proc/self/statm", "r");
    assert_non_null(f);
    assert_int_equal(fscanf(f, "%lu", &pages), 1);
    fclose(f);
    getrlimit(RLIMIT_AS, &limit);
    limit.rlim_cur = more == RLIM_INFINITY ? limit.rlim_max : (rlim_t)pages * (rlim_t)sysconf(_SC_PAGESIZE) + more;
    assert_int_equal(setrlimit(RLIMIT_AS, &limit), 0);
}

/* Where addresses are rationed (ulimit -v) the map keeps less room; where there are none at all that is told, and the database goes on. */
static void test_few_addresses(void **state)
{
    (void)state;
    wipe();
    iso_store *s = make(NULL);
    ration(64 << 20);
    fill(s, 0, 10);
    ration(RLIM_INFINITY);
    OK(iso_store_map_step(s, 1 << 20, &err));
    fill(s, 10, 1000);
    iso_txn *t;
    ration(64 << 10); /* less than those items take */
    iso_status larger = iso_store_map_step(s, 64 << 20, &err), write = iso_txn_begin(s, true, &t, &err);
    iso_store_info info = info_of(s);
    ration(RLIM_INFINITY);
    assert_int_equal(larger, ISO_E_MEMORY);
    assert_int_equal(write, ISO_E_MEMORY);
    assert_non_null(strstr(err.message, "ulimit -v"));
    assert_int_equal(info.count, 1010);
    fill(s, 1010, 10);
    assert_int_equal(info_of(s).count, 1020);
    sound(s);
    iso_store_close(s);
}

/* Another process grows the file beyond the map that this one opened with. */
static void test_grown_elsewhere(void **state)
{
    (void)state;
    wipe();
    iso_store *s = make(NULL);
    fill(s, 0, 10);
    iso_store_close(s);
    OK(iso_store_open(db, ISO_STORE_READ, NULL, &s, &err));
    OK(iso_store_map_step(s, 1 << 16, &err));
    pid_t child = fork();
    if (child == 0) {
        execl(getenv("ISO_TEST_SELF"), "test_store", "--fill", db, (char *)NULL);
        _exit(3);
    }
    int code;
    assert_int_equal(waitpid(child, &code, 0), child);
    assert_true(WIFEXITED(code) && WEXITSTATUS(code) == 0);
    ration(64 << 20); /* less than the other has mapped */
    iso_store_info info = info_of(s);
    ration(RLIM_INFINITY);
    assert_int_equal(info.count, 5010);
    sound(s);
    iso_store_close(s);
}

static int child_fill(const char *dir)
{
    iso_store *s;
    if (iso_store_open(dir, ISO_STORE_WRITE, NULL, &s, &err)) {
        fprintf(stderr, "%s\n", err.message);
        return 1;
    }
    fill(s, 10, 5000);
    iso_store_close(s);
    return 0;
}

static int heard; /* passes */

static void hear(iso_progress *p)
{
    static const char *before;
    heard += p->what != before;
    before = p->what;
    assert_true(p->done <= p->total);
}

/* Random puts and removes against a plain array: files that shrink within a transaction, free lists, reuse. */
static void test_model(void **state)
{
    (void)state;
    enum { PATHS = 400 };
    uint64_t *id = calloc(PATHS, sizeof *id), *value = calloc(PATHS, sizeof *value), random = seed;
    wipe();
    iso_store *s = make(NULL);
    for (int round = 0; round < 40; round++) {
        iso_txn *t;
        OK(iso_txn_begin(s, true, &t, &err));
        int edits = (int)(draw_from(&random) % 300), removing = (int)(draw_from(&random) % 10);
        for (int i = 0; i < edits; i++) {
            uint64_t p = draw_from(&random) % PATHS;
            char path[64];
            snprintf(path, sizeof path, "some/folder/with a longer name %" PRIu64, p);
            if ((int)(draw_from(&random) % 10) >= removing) {
                value[p] = draw_from(&random) % 1000000;
                id[p] = put(t, path, value[p], value[p] % 50); /* contents repeat; 0 is unknown */
            } else if (id[p]) {
                OK(iso_item_remove(t, id[p], &err));
                id[p] = 0;
            }
        }
        OK(iso_txn_commit(t, &err));
        if (round % 6 == 0) { /* opening checks the file's length against what it says */
            sound(s);
            iso_store_close(s);
            s = make(NULL);
        }
    }
    iso_txn *t;
    uint64_t count = 0;
    OK(iso_txn_begin(s, false, &t, &err));
    for (int p = 0; p < PATHS; p++) {
        char path[64];
        iso_item item;
        snprintf(path, sizeof path, "some/folder/with a longer name %d", p);
        iso_status status = iso_item_by_path(t, path, &item, &err);
        assert_int_equal(status, id[p] ? ISO_OK : ISO_E_NOT_FOUND);
        if (status) continue;
        count++;
        assert_true(item.id == id[p] && item.size == (int64_t)value[p]);
    }
    iso_txn_abort(t);
    assert_int_equal(info_of(s).count, count);
    iso_store_close(s);
    uint64_t before, after;
    heard = 0;
    OK(iso_store_compact(db, &(iso_progress){.show = hear}, &before, &after, &err));
    assert_true(after < before);
    assert_int_equal(heard, 3); /* the sums, the copy, the disk */
    s = make(NULL);
    assert_int_equal(info_of(s).count, count);
    sound(s);
    assert_int_equal(iso_store_compact(db, NULL, &before, &after, &err), ISO_E_ARGUMENT); /* open here */
    iso_store_close(s);
    free(id);
    free(value);
}

static void *reader(void *ctx)
{
    iso_store *s = ctx;
    iso_error e;
    uint64_t last = 0;
    for (int i = 0; i < 200; i++) {
        iso_txn *t;
        iso_store_info info;
        iso_cursor *c;
        if (iso_txn_begin(s, false, &t, &e)) return "begin";
        uint64_t n = 0;
        info = iso_store_info_get(t);
        if (iso_cursor_open(t, 0, &c, &e)) return "open";
        while (iso_cursor_next(c, NULL, NULL, &e) == ISO_OK) n++;
        iso_cursor_close(c);
        iso_txn_abort(t);
        if (n != info.count || n < last) return "count";
        last = n;
    }
    return NULL;
}

static void test_threads(void **state)
{
    (void)state;
    wipe();
    iso_store *s = make(NULL);
    pthread_t thread[3];
    void *wrong;
    for (int i = 0; i < 3; i++) assert_int_equal(pthread_create(&thread[i], NULL, reader, s), 0);
    for (uint64_t n = 0; n < 600; n += 20) fill(s, n, 20);
    for (int i = 0; i < 3; i++) {
        pthread_join(thread[i], &wrong);
        assert_null(wrong);
    }
    iso_store_close(s);
}

/* What would be written into a folder that is elsewhere now, nobody would find; what is in it can be read. */
static void test_moved(void **state)
{
    (void)state;
    wipe();
    iso_store *s = make(NULL);
    iso_txn *t = NULL;
    char away[700];
    fill(s, 0, 20);
    snprintf(away, sizeof away, "%s/away", base);
    assert_int_equal(rename(db, away), 0);
    iso_store_close(make(NULL));
    assert_int_equal(iso_txn_begin(s, true, &t, &err), ISO_E_MISMATCH);
    assert_null(t);
    assert_int_equal(info_of(s).count, 20);
    wipe();
    assert_int_equal(rename(away, db), 0); /* and back */
    fill(s, 20, 20);
    assert_int_equal(info_of(s).count, 40);
    iso_store_close(s);
}

int main(int argc, char **argv)
{
    if (argc == 3 && !strcmp(argv[1], "--fill")) return child_fill(argv[2]);
    if (!set_up()) return 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_items), cmocka_unit_test(test_walks), cmocka_unit_test(test_wrong_vectors), cmocka_unit_test(test_open),
        cmocka_unit_test(test_killed_create), cmocka_unit_test(test_full_create), cmocka_unit_test(test_damaged_create), cmocka_unit_test(test_growth), cmocka_unit_test(test_few_addresses), cmocka_unit_test(test_grown_elsewhere),
        cmocka_unit_test(test_model), cmocka_unit_test(test_threads), cmocka_unit_test(test_moved)};
    return clean_up(cmocka_run_group_tests(tests, NULL, NULL));
}
