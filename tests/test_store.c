/* test_store.c: the database: what was put comes back, also after kills, damage, growth and a full disk. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "indexer/store.h"

#define DIM 5
static const char digest_a[] = "0123456789abcdef0123456789abcdef", digest_b[] = "ffffffffffffffffffffffffffffffff";
static char base[512], db[600], file[700];
static uint64_t seed;
static iso_error err;

static uint64_t draw(uint64_t *state)
{
    uint64_t z = *state += UINT64_C(0x9E3779B97F4A7C15);
    z = (z ^ z >> 30) * UINT64_C(0xBF58476D1CE4E5B9);
    z = (z ^ z >> 27) * UINT64_C(0x94D049BB133111EB);
    return z ^ z >> 31;
}

#define OK(call) do { iso_status status_ = (call); if (status_) { fail_msg("%s:%d: %d: %s", __FILE__, __LINE__, status_, err.message); } } while (0)

static void vector_of(uint64_t n, float v[DIM])
{
    for (int i = 0; i < DIM; i++) v[i] = (float)(n * 7 + (uint64_t)i + 1);
}

static void wipe(void)
{
    char command[700];
    snprintf(command, sizeof command, "rm -rf '%s'", db);
    if (system(command)) fail();
}

static iso_store *make(const char *model)
{
    iso_store *s;
    iso_store_spec spec = {.dim = DIM, .digest = digest_a, .root = "/tmp", .model = model};
    OK(iso_store_open(db, ISO_STORE_CREATE, &spec, &s, &err));
    return s;
}

static uint64_t put(iso_txn *t, const char *path, uint64_t n, uint64_t content)
{
    float v[DIM];
    vector_of(n, v);
    iso_item item = {.path = path, .size = (int64_t)n, .mtime_ns = -5, .hash = {content, content ? 1 : 0}, .width = 178, .height = 218};
    OK(iso_item_put(t, &item, v, &err));
    return item.id;
}

/* items n = first ... first + count - 1 under "p/<n>", in one transaction */
static void fill(iso_store *s, uint64_t first, uint64_t count)
{
    iso_txn *t;
    char path[64];
    OK(iso_txn_begin(s, true, &t, &err));
    for (uint64_t n = first; n < first + count; n++) {
        snprintf(path, sizeof path, "p/%" PRIu64, n);
        put(t, path, n, n + 1);
    }
    OK(iso_txn_commit(t, &err));
}

static iso_store_info info_of(iso_store *s)
{
    iso_txn *t;
    iso_store_info info;
    OK(iso_txn_begin(s, false, &t, &err));
    OK(iso_store_info_get(t, &info, &err));
    iso_txn_abort(t);
    return info;
}

static void say(void *ctx, const char *line)
{
    snprintf(ctx, 256, "%s", line);
}

static void sound(iso_store *s)
{
    char line[256] = "";
    int64_t faults = -1;
    OK(iso_store_verify(s, say, line, &faults, &err));
    if (faults) fail_msg("%" PRId64 " faults: %s", faults, line);
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
    assert_string_equal(info_of(s).root, "/tmp");

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
    item.path = "x";
    OK(iso_item_put(t, &item, v, &err)); /* a refused item leaves the transaction usable */
    OK(iso_txn_commit(t, &err));
    sound(s);
    iso_store_close(s);
}

static void write_bytes(const char *path, const void *bytes, size_t n)
{
    unlink(path); /* ext4 syncs a file that is cut to nothing and written again */
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(bytes, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
}

static char *read_bytes(const char *path, size_t *n)
{
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    fseek(f, 0, SEEK_END);
    *n = (size_t)ftell(f);
    rewind(f);
    char *p = malloc(*n + 1);
    assert_non_null(p);
    assert_int_equal(fread(p, 1, *n, f), *n);
    fclose(f);
    return p;
}

static void test_open(void **state)
{
    (void)state;
    iso_store *s, *second;
    wipe();
    assert_int_equal(iso_store_open(db, ISO_STORE_READ, NULL, &s, &err), ISO_E_NOT_FOUND);
    assert_int_equal(iso_store_open(db, ISO_STORE_WRITE, NULL, &s, &err), ISO_E_NOT_FOUND);
    assert_false(iso_store_exists(db));
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
    assert_true(iso_store_exists(db));
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
    assert_string_equal(info_of(s).root, "/usr");
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
    OK(iso_store_info_get(t, &info, &err));
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
    assert_int_equal(info_of(s).count, 5010);
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

/* Puts items 0, 1, ... for ever, telling each commit's count through fd 1. */
static int child_forever(const char *dir)
{
    iso_store *s;
    iso_store_spec spec = {.dim = DIM, .digest = digest_a, .root = "/tmp"};
    if (iso_store_open(dir, ISO_STORE_CREATE, &spec, &s, &err)) {
        fprintf(stderr, "%s\n", err.message);
        return 1;
    }
    uint64_t n = info_of(s).next_id - 1;
    for (;;) {
        fill(s, n, 1 + n % 7);
        n += 1 + n % 7;
        if (write(1, &n, sizeof n) != sizeof n) return 1;
    }
}

static void test_kill(void **state)
{
    (void)state;
    wipe();
    uint64_t random = seed, promised = 0;
    for (int round = 0; round < 12; round++) {
        int tell[2];
        assert_int_equal(pipe(tell), 0);
        pid_t child = fork();
        if (child == 0) {
            dup2(tell[1], 1);
            close(tell[0]);
            close(tell[1]);
            execl(getenv("ISO_TEST_SELF"), "test_store", "--forever", db, (char *)NULL);
            _exit(3);
        }
        close(tell[1]);
        struct timespec nap = {0, (long)(draw(&random) % (round < 6 ? 30000000 : 250000000))};
        nanosleep(&nap, NULL);
        kill(child, SIGKILL);
        uint64_t n;
        while (read(tell[0], &n, sizeof n) == sizeof n) promised = n;
        close(tell[0]);
        int code;
        assert_int_equal(waitpid(child, &code, 0), child);
        assert_true(WIFSIGNALED(code));
        iso_store *s = make(NULL); /* opens, or completes a creation that was cut short */
        sound(s);
        assert_true(info_of(s).count >= promised);
        iso_txn *t;
        OK(iso_txn_begin(s, false, &t, &err));
        for (uint64_t i = 0; i < promised; i++) {
            char path[64];
            iso_item item;
            const float *v;
            float want[DIM];
            snprintf(path, sizeof path, "p/%" PRIu64, i);
            OK(iso_item_by_path(t, path, &item, &err));
            OK(iso_item_vector(t, item.id, &v, &err));
            vector_of(i, want);
            assert_memory_equal(v, want, sizeof want);
        }
        iso_txn_abort(t);
        iso_store_close(s);
    }
    assert_true(promised > 0);
}

/* Whatever is in the file: an error or right answers, never a crash. */
static void use(void)
{
    iso_store *s;
    iso_item item;
    const float *v;
    iso_txn *t;
    if (iso_store_open(db, ISO_STORE_READ, NULL, &s, &err)) {
        assert_true(strlen(err.message) > 0);
        return;
    }
    int64_t faults = 0;
    char line[256];
    if (iso_store_verify(s, say, line, &faults, &err)) faults = -1;
    if (!iso_txn_begin(s, false, &t, &err)) {
        iso_cursor *c;
        if (!iso_cursor_open(t, 0, &c, &err)) {
            iso_status status = ISO_OK;
            for (int i = 0; i < 3000 && status != ISO_E_NOT_FOUND; i++) status = iso_cursor_next(c, &item, &v, &err);
            iso_cursor_close(c);
        }
        iso_txn_abort(t);
    }
    iso_store_close(s);
    if (iso_store_open(db, ISO_STORE_WRITE, NULL, &s, &err)) return;
    if (!iso_txn_begin(s, true, &t, &err)) {
        float w[DIM] = {1, 2, 3};
        iso_status status = ISO_OK;
        for (uint64_t i = 0; i < 20 && !status; i++) {
            char path[32];
            snprintf(path, sizeof path, "p/%" PRIu64, i * 5);
            item = (iso_item){.path = path};
            status = iso_item_put(t, &item, w, &err);
            if (!status && i % 2) status = iso_item_remove(t, item.id - 1, &err);
        }
        if (iso_txn_commit(t, &err)) assert_true(strlen(err.message) > 0);
    }
    iso_store_close(s);
}

static void test_damage(void **state)
{
    (void)state;
    wipe();
    iso_store *s = make(NULL);
    for (uint64_t n = 0; n < 600; n += 100) fill(s, n, 100);
    iso_txn *t;
    OK(iso_txn_begin(s, true, &t, &err));
    for (uint64_t id = 100; id < 300; id += 2) OK(iso_item_remove(t, id, &err));
    OK(iso_txn_commit(t, &err));
    sound(s);
    iso_store_close(s);
    size_t n;
    char data[700];
    snprintf(data, sizeof data, "%s/data.mdb", db);
    char *good = read_bytes(data, &n), *bad = malloc(n);
    assert_non_null(bad);
    uint64_t random = seed;
    for (size_t cut = 0; cut < n; cut += 1 + n / 23) { /* truncated anywhere */
        write_bytes(data, good, cut);
        assert_int_not_equal(iso_store_open(db, ISO_STORE_READ, NULL, &s, &err), ISO_OK);
    }
    for (int round = 0; round < 250; round++) { /* one wild byte, or a run of garbage */
        memcpy(bad, good, n);
        size_t at = (size_t)(draw(&random) % n), run = round % 3 ? 1 + (size_t)(draw(&random) % 4) : (size_t)(draw(&random) % 5000);
        if (round % 5 == 0) at = (size_t)(draw(&random) % 8192);         /* the headers */
        if (round % 5 == 1) at = at / 4096 * 4096 + (size_t)(draw(&random) % 48); /* page headers */
        for (size_t i = at; i < at + run && i < n; i++) bad[i] = (char)draw(&random);
        write_bytes(data, bad, n);
        use();
    }
    memset(bad, 0, n);
    write_bytes(data, bad, n);
    assert_int_equal(iso_store_open(db, ISO_STORE_READ, NULL, &s, &err), ISO_E_FORMAT);
    write_bytes(data, good, n);
    OK(iso_store_open(db, ISO_STORE_READ, NULL, &s, &err));
    assert_int_equal(info_of(s).count, 500);
    sound(s);
    iso_store_close(s);
    free(good);
    free(bad);
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
        int edits = (int)(draw(&random) % 300), removing = (int)(draw(&random) % 10);
        for (int i = 0; i < edits; i++) {
            uint64_t p = draw(&random) % PATHS;
            char path[64];
            snprintf(path, sizeof path, "some/folder/with a longer name %" PRIu64, p);
            if ((int)(draw(&random) % 10) >= removing) {
                value[p] = draw(&random) % 1000000;
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
    OK(iso_store_compact(db, &before, &after, &err));
    assert_true(after < before);
    s = make(NULL);
    assert_int_equal(info_of(s).count, count);
    sound(s);
    assert_int_equal(iso_store_compact(db, &before, &after, &err), ISO_E_ARGUMENT); /* open here */
    iso_store_close(s);
    free(id);
    free(value);
}

/* A disk that fills up: one line, and all that was committed is there afterwards. */
static void test_full_disk(void **state)
{
    (void)state;
    wipe();
    iso_store *s = make(NULL);
    fill(s, 0, 100);
    struct rlimit old, small;
    getrlimit(RLIMIT_FSIZE, &old);
    small = old;
    small.rlim_cur = 256 << 10;
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    iso_status status = ISO_OK;
    uint64_t stored = 100;
    for (; !status && stored < 100000; stored += 100) {
        iso_txn *t;
        OK(iso_txn_begin(s, true, &t, &err));
        for (uint64_t n = stored; n < stored + 100; n++) {
            char path[64];
            snprintf(path, sizeof path, "p/%" PRIu64, n);
            put(t, path, n, n + 1);
        }
        status = iso_txn_commit(t, &err);
        if (status) break;
    }
    assert_int_equal(status, ISO_E_IO);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
    assert_int_equal(info_of(s).count, stored);
    sound(s);
    fill(s, stored, 100); /* there is room again */
    iso_store_close(s);
    s = make(NULL);
    assert_int_equal(info_of(s).count, stored + 100);
    sound(s);
    iso_store_close(s);
}

/* Somebody who may only read reads. */
static void test_read_only(void **state)
{
    (void)state;
    wipe();
    iso_store *s = make(NULL);
    fill(s, 0, 20);
    iso_store_close(s);
    char command[1500];
    snprintf(command, sizeof command, "chmod a+rx '%s' && chmod -R a+rX,a-w '%s'", base, db);
    assert_int_equal(system(command), 0);
    pid_t child = fork();
    if (child == 0) {
        if (geteuid() == 0 && (setegid(65534) || seteuid(65534))) _exit(0);
        if (iso_store_open(db, ISO_STORE_READ, NULL, &s, &err)) _exit(1);
        if (info_of(s).count != 20) _exit(2);
        sound(s);
        iso_store_close(s);
        if (iso_store_open(db, ISO_STORE_WRITE, NULL, &s, &err) != ISO_E_IO) _exit(3);
        _exit(0);
    }
    int code;
    assert_int_equal(waitpid(child, &code, 0), child);
    snprintf(command, sizeof command, "chmod -R u+w '%s'", db);
    assert_int_equal(system(command), 0);
    assert_true(WIFEXITED(code));
    assert_int_equal(WEXITSTATUS(code), 0);
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
        if (iso_store_info_get(t, &info, &e) || iso_cursor_open(t, 0, &c, &e)) return "open";
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

int main(int argc, char **argv)
{
    if (argc == 3 && !strcmp(argv[1], "--fill")) return child_fill(argv[2]);
    if (argc == 3 && !strcmp(argv[1], "--forever")) return child_forever(argv[2]);
    const char *given = getenv("ISO_TEST_SEED"), *tmp = getenv("TMPDIR");
    char self[512] = "";
    seed = given ? strtoull(given, NULL, 0) : (uint64_t)time(NULL);
    printf("test_store: seed %" PRIu64 " (ISO_TEST_SEED)\n", seed);
    if (readlink("/proc/self/exe", self, sizeof self - 1) < 0) return 1;
    setenv("ISO_TEST_SELF", self, 1);
    snprintf(base, sizeof base, "%s/isoface-store-XXXXXX", tmp ? tmp : "/tmp");
    if (!mkdtemp(base)) return 1;
    snprintf(db, sizeof db, "%s/x.db", base);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_items), cmocka_unit_test(test_wrong_vectors), cmocka_unit_test(test_open),
        cmocka_unit_test(test_killed_create), cmocka_unit_test(test_growth), cmocka_unit_test(test_grown_elsewhere),
        cmocka_unit_test(test_kill), cmocka_unit_test(test_damage), cmocka_unit_test(test_model),
        cmocka_unit_test(test_full_disk), cmocka_unit_test(test_read_only), cmocka_unit_test(test_threads)};
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    char command[700];
    snprintf(command, sizeof command, "rm -rf '%s'", base);
    return system(command) ? 1 : failed;
}
