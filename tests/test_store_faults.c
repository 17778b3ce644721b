/* test_store_faults.c: the database after kills, damage, a full disk, and where it may only be read. */
#include "tests/store_common.h"

#include <endian.h>
#include <lmdb.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/time.h>
#include <sys/wait.h>

#include "base/progress.h"

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

static void interrupt(int number)
{
    (void)number;
    raise(SIGINT);
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
        struct timespec nap = {0, (long)(draw_from(&random) % (round < 6 ? 30000000 : 250000000))};
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
    if (iso_store_verify(s, say, line, NULL, &faults, &err)) faults = -1;
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
        size_t at = (size_t)(draw_from(&random) % n), run = round % 3 ? 1 + (size_t)(draw_from(&random) % 4) : (size_t)(draw_from(&random) % 5000);
        if (round % 5 == 0) at = (size_t)(draw_from(&random) % 8192);         /* the headers */
        if (round % 5 == 1) at = at / 4096 * 4096 + (size_t)(draw_from(&random) % 48); /* page headers */
        for (size_t i = at; i < at + run && i < n; i++) bad[i] = (char)draw_from(&random);
        write_bytes(data, bad, n);
        use();
    }
    memset(bad, 0, n); /* the deliberately wrong case */
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

/* The transaction's number in header page i. */
static uint64_t *head_number(char *data, int i) { return (uint64_t *)(void *)(data + 4096 * i + 144); }

/* LMDB takes the header that its transaction's number is even or odd for: one that is elsewhere must not lead it to a tree that nobody
 * has checked. */
static void test_headers(void **state)
{
    (void)state;
    wipe();
    iso_store *s = make(NULL);
    fill(s, 0, 50);
    fill(s, 50, 50);
    iso_store_close(s);
    size_t n;
    char data[700];
    snprintf(data, sizeof data, "%s/data.mdb", db);
    char *good = read_bytes(data, &n), *bad = malloc(n);
    assert_non_null(bad);
    const uint64_t was[2] = {*head_number(good, 0), *head_number(good, 1)};
    const int newer = was[1] > was[0];
    for (int wrong = 0; wrong < 6; wrong++) {
        memcpy(bad, good, n);
        uint64_t *older = head_number(bad, !newer), *newest = head_number(bad, newer);
        if (wrong == 0) *newest += 1; /* one changed byte, and LMDB takes the older state */
        if (wrong == 1) *newest += 2;
        if (wrong == 2) *older = *newest;
        if (wrong == 3) *older = 0, *newest = 0;
        if (wrong == 4) *older -= 2;
        if (wrong == 5) *older = was[newer], *newest = was[!newer];
        write_bytes(data, bad, n);
        for (int mode = 0; mode < 2; mode++) {
            assert_int_equal(iso_store_open(db, mode ? ISO_STORE_WRITE : ISO_STORE_READ, NULL, &s, &err), ISO_E_FORMAT);
            assert_non_null(strstr(err.message, "do not follow each other"));
        }
    }
    write_bytes(data, good, n);
    OK(iso_store_open(db, ISO_STORE_READ, NULL, &s, &err));
    assert_int_equal(info_of(s).count, 100);
    iso_store_close(s);
    free(good);
    free(bad);
}

/* A new database of so many items, closed; the path of its data.mdb, and what is in it. */
static char *filled(uint64_t items, char data[700], size_t *n)
{
    wipe();
    iso_store *s = make(NULL);
    fill(s, 0, items);
    iso_store_close(s);
    snprintf(data, 700, "%s/data.mdb", db);
    return read_bytes(data, n);
}

/* More pages than a file so long can have: the file is wrong, not the memory short. */
static void test_last_page(void **state)
{
    (void)state;
    iso_store *s;
    size_t n;
    char data[700], *bytes = filled(50, data, &n);
    for (int bit = 20; bit < 64; bit++)
        for (int i = 0; i < 2; i++) {
            char *at = bytes + 4096 * i + 136 + bit / 8;
            *at = (char)(*at ^ 1 << bit % 8);
            write_bytes(data, bytes, n);
            *at = (char)(*at ^ 1 << bit % 8);
            assert_int_equal(iso_store_open(db, i ? ISO_STORE_WRITE : ISO_STORE_READ, NULL, &s, &err), ISO_E_FORMAT);
            assert_non_null(strstr(err.message, "counts up to page"));
        }
    free(bytes);
}

static uint16_t *half(char *page, size_t at) { return (uint16_t *)(void *)(page + at); }

static void swap_halves(uint16_t *a, uint16_t *b)
{
    uint16_t was = *a;
    *a = *b;
    *b = was;
}

/* Two neighbours of a page change places, or what two of a branch lead to: every page that is in use is told, whatever its table. */
static void test_order(void **state)
{
    (void)state;
    iso_store *s;
    size_t n;
    char data[700], *good = filled(700, data, &n), *bad = malloc(n);
    assert_non_null(bad);
    static const char *const tables[] = {"(tables:", "(items:", "(vectors:", "(by-path:", "(by-hash:", "(meta:"};
    int seen[6] = {0}, unused = 0, children = 0;
    uint64_t random = seed;
    for (size_t at = 2 * 4096; at < n; at += 4096)
        for (int child = 0; child < 2; child++) {
            memcpy(bad, good, n);
            char *page = bad + at;
            /* a branch's first node has no key */
            int kind = *half(page, 10), first = kind == 1 && !child, pairs = (*half(page, 12) - 16) / 2 - first - 1;
            if ((kind != 1 && (kind != 2 || child)) || pairs < 1) continue; /* 1: a branch, 2: a leaf */
            uint16_t *a = half(page, 16 + 2 * ((size_t)first + draw_from(&random) % (uint64_t)pairs)), *b = a + 1;
            for (size_t k = 0; child && k < 6; k += 2) swap_halves(half(page, *a + k), half(page, *b + k));
            if (!child) swap_halves(a, b);
            write_bytes(data, bad, n);
            iso_status status = iso_store_open(db, at / 4096 % 2 ? ISO_STORE_WRITE : ISO_STORE_READ, NULL, &s, &err);
            if (status) {
                assert_int_equal(status, ISO_E_FORMAT);
                assert_true(strstr(err.message, "out of order") || strstr(err.message, "belong behind"));
                for (int t = 0; t < 6; t++) seen[t] += strstr(err.message, tables[t]) != NULL;
                children += child;
            } else {
                iso_store_close(s);
                unused++;
            }
        }
    for (int t = 0; t < 6; t++) assert_true(seen[t]);
    assert_true(children >= 4);
    assert_true(unused < 8);
    free(good);
    free(bad);
}

/* In every copy of the record `history`: a byte of its last generation, which is of one byte, is changed. */
static void damage_history(int byte, char by)
{
    size_t n, found = 0;
    char data[700];
    snprintf(data, sizeof data, "%s/data.mdb", db);
    char *bytes = read_bytes(data, &n);
    for (char *p = bytes + 8; p + 7 < bytes + n; p++) {
        uint16_t size;
        memcpy(&size, p - 8, sizeof size);
        if (memcmp(p - 2, "\7\0history", 9) || !size || size % 16 || p + 7 + size > bytes + n) continue;
        p[7 + size - 16 + byte] = (char)(p[7 + size - 16 + byte] + by);
        found++;
    }
    assert_true(found);
    write_bytes(data, bytes, n);
    free(bytes);
}

static uint64_t stamp_of(iso_store *s, uint64_t generation)
{
    iso_txn *t;
    uint64_t stamp = 0;
    OK(iso_txn_begin(s, false, &t, &err));
    OK(iso_store_stamp(t, generation, &stamp, &err));
    iso_txn_abort(t);
    return stamp;
}

/* Only the index needs the history: a damaged one is told, stands in nobody's way, and is begun anew by a change or a compaction. */
static void test_history(void **state)
{
    (void)state;
    static const struct { int byte; char by; } damage[] = {{0, 1}, {0, 2}, {7, 1}, {0, -3}};
    for (size_t i = 0; i < sizeof damage / sizeof *damage; i++)
        for (int compact = 0; compact < 2; compact++) {
            wipe();
            for (uint64_t k = 0; k < 3; k++) { /* generations 0, 1, 2 and 3 have stamps of their own */
                iso_store *s = make(NULL);
                fill(s, 20 * k, 20);
                iso_store_close(s);
            }
            damage_history(damage[i].byte, damage[i].by);
            iso_store *s = make(NULL);
            char line[256] = "";
            int64_t faults = 0;
            OK(iso_store_verify(s, say, line, NULL, &faults, &err));
            assert_int_equal(faults, 1);
            assert_non_null(strstr(line, "indexer compact"));
            for (uint64_t g = 0; g < 5; g++) assert_int_equal(stamp_of(s, g), 0);
            uint64_t before, after, now = compact ? 3 : 4;
            if (!compact) fill(s, 60, 20);
            iso_store_close(s);
            if (compact) OK(iso_store_compact(db, NULL, &before, &after, &err));
            s = make(NULL);
            sound(s);
            assert_int_equal(info_of(s).count, compact ? 60 : 80);
            assert_int_equal(info_of(s).generation, now);
            assert_int_not_equal(stamp_of(s, now), 0);
            for (uint64_t g = 0; g < now; g++) assert_int_equal(stamp_of(s, g), 0);
            fill(s, 80, 20);
            sound(s);
            assert_int_not_equal(stamp_of(s, now), 0);
            iso_store_close(s);
        }
}

/* A database as LMDB has it; its table `meta`. */
static MDB_txn *meta_begin(MDB_env **env, MDB_dbi *meta)
{
    MDB_txn *txn;
    assert_int_equal(mdb_env_create(env), 0);
    assert_int_equal(mdb_env_set_maxdbs(*env, 8), 0);
    assert_int_equal(mdb_env_set_mapsize(*env, 64 << 20), 0);
    assert_int_equal(mdb_env_open(*env, db, MDB_NOSYNC, 0666), 0);
    assert_int_equal(mdb_txn_begin(*env, NULL, 0, &txn), 0);
    assert_int_equal(mdb_dbi_open(txn, "meta", 0, meta), 0);
    return txn;
}

static void meta_end(MDB_env *env, MDB_txn *txn)
{
    assert_int_equal(mdb_txn_commit(txn), 0);
    mdb_env_close(env);
}

enum { PATHS, CONTENTS, ITEMS, VECTORS, TABLES };

/* The key of an item in a table that leads to items. */
static void key_of(MDB_txn *txn, MDB_dbi table, uint64_t id, uint8_t out[24])
{
    MDB_cursor *c;
    MDB_val key, v;
    assert_int_equal(mdb_cursor_open(txn, table, &c), 0);
    while (!mdb_cursor_get(c, &key, &v, MDB_NEXT))
        if (((uint8_t *)key.mv_data)[23] == id) memcpy(out, key.mv_data, 24);
    mdb_cursor_close(c);
}

/* Does one of the things below to item 2 of four. */
static void do_wrong(int what, MDB_txn *txn, const MDB_dbi table[TABLES])
{
    uint64_t two = 2, three = 3, fifty = 50;
    uint8_t path[24], content[24], record[256];
    float v[DIM] = {1, NAN};
    MDB_val by_path = {24, path}, by_content = {24, content}, key = {8, &two}, other = {8, &fifty}, none = {0, ""}, old, vector = {sizeof v, v};
    key_of(txn, table[PATHS], 2, path);
    key_of(txn, table[CONTENTS], 2, content);
    assert_int_equal(mdb_get(txn, table[ITEMS], &key, &old), 0);
    memcpy(record, old.mv_data, old.mv_size);
    MDB_val now = {old.mv_size, record};
    int rc = 0;
    switch (what) {
    case 0: rc = mdb_del(txn, table[PATHS], &by_path, NULL); break;
    case 1: rc = mdb_del(txn, table[CONTENTS], &by_content, NULL); break;
    case 2: path[0] ^= 1; rc = mdb_put(txn, table[PATHS], &by_path, &none, 0); break;
    case 3: content[0] ^= 1; rc = mdb_put(txn, table[CONTENTS], &by_content, &none, 0); break;
    case 4: path[23] = 99; rc = mdb_put(txn, table[PATHS], &by_path, &none, 0); break;
    case 5: by_path.mv_size = 3; rc = mdb_put(txn, table[PATHS], &by_path, &none, 0); break;
    case 6: rc = mdb_del(txn, table[VECTORS], &key, NULL); break;
    case 7: rc = mdb_put(txn, table[VECTORS], &key, &vector, 0); break;
    case 8: rc = mdb_put(txn, table[VECTORS], &other, &vector, 0); break;
    case 9: rc = mdb_put(txn, table[ITEMS], &other, &now, 0) || mdb_del(txn, table[ITEMS], &key, NULL); break;
    case 10: record[0] ^= 1; rc = mdb_put(txn, table[ITEMS], &key, &now, 0); break;
    case 11: now.mv_size++; record[old.mv_size] = 0; rc = mdb_put(txn, table[ITEMS], &key, &now, 0); break;
    case 12: record[old.mv_size - 2] = 0; rc = mdb_put(txn, table[ITEMS], &key, &now, 0); break;
    case 13: rc = mdb_put(txn, table[ITEMS], &(MDB_val){8, &three}, &now, 0); break;
    }
    assert_int_equal(rc, 0);
}

static void say_all(void *ctx, const char *line)
{
    char *all = ctx;
    const size_t n = strlen(all);
    snprintf(all + n, 4096 - n, "%s\n", line);
}

/* Two paths may hash alike: each is found all the same. */
static void test_hashes_alike(void **state)
{
    (void)state;
    uint8_t of[24];
    MDB_env *env;
    MDB_dbi meta, paths;
    iso_txn *t;
    iso_item item;
    wipe();
    iso_store *s = make(NULL);
    fill(s, 0, 4);
    iso_store_close(s);
    MDB_txn *txn = meta_begin(&env, &meta);
    assert_int_equal(mdb_dbi_open(txn, "by-path", 0, &paths), 0);
    key_of(txn, paths, 3, of);
    of[23] = 2; /* as item 2 would be found then: before item 3 */
    assert_int_equal(mdb_put(txn, paths, &(MDB_val){24, of}, &(MDB_val){0, ""}, 0), 0);
    meta_end(env, txn);
    s = make(NULL);
    OK(iso_txn_begin(s, false, &t, &err));
    OK(iso_item_by_path(t, "p/2", &item, &err));
    assert_int_equal(item.id, 3);
    iso_txn_abort(t);
    iso_store_close(s);
}

/* What only verify sees: records, vectors, entries and counts that do not fit together, on pages that are sound. */
static void test_records(void **state)
{
    (void)state;
    static const char *const names[TABLES] = {"by-path", "by-hash", "items", "vectors"};
    static const char *const says[][2] = {
        {"item 2 is not found by its path", "3 paths for 4 items"},
        {"item 2 is not found by its content"},
        {"an entry by path leads to item 2, which has another", "5 paths for 4 items"},
        {"an entry by content leads to item 2, which has another", "5 contents for 4 items"},
        {"an entry by path leads to item 99, which is missing or damaged"},
        {"an entry by path has 3 bytes"},
        {"the vector of item 2 is missing or has a wrong length", "3 vectors for 4 items"},
        {"the vector of item 2 holds a NaN"},
        {"vector 50 belongs to no item", "5 vectors for 4 items"},
        {"item 50 has an id that was never given out"},
        {"the record of item 2 is damaged"},
        {"the record of item 2 is damaged"},
        {"the record of item 2 is damaged"},
        {"items 2 and 3 have the same path p/1"},
    };
    for (size_t i = 0; i < sizeof says / sizeof *says; i++) {
        char all[4096] = "";
        int64_t faults = 0;
        MDB_env *env;
        MDB_dbi table[TABLES], meta;
        wipe();
        iso_store *s = make(NULL);
        fill(s, 0, 4);
        sound(s);
        iso_store_close(s);
        MDB_txn *txn = meta_begin(&env, &meta);
        for (int k = 0; k < TABLES; k++) assert_int_equal(mdb_dbi_open(txn, names[k], k < ITEMS ? 0 : MDB_INTEGERKEY, &table[k]), 0);
        do_wrong((int)i, txn, table);
        meta_end(env, txn);
        s = make(NULL);
        OK(iso_store_verify(s, say_all, all, NULL, &faults, &err));
        assert_true(faults > 0);
        for (int k = 0; k < 2 && says[i][k]; k++)
            if (!strstr(all, says[i][k])) fail_msg("case %zu: no \"%s\" in:\n%s", i, says[i][k], all);
        iso_store_close(s);
    }
}

/* So many openings for writing with a change each; the stamps of their generations, as they were then. */
static void open_often(uint64_t *generation, int n, uint64_t *stamps)
{
    for (int i = 0; i < n; i++) {
        iso_store *s = make(NULL);
        fill(s, *generation, 1);
        ++*generation;
        stamps[*generation] = stamp_of(s, *generation);
        assert_int_not_equal(stamps[*generation], stamps[*generation - 1]);
        iso_store_close(s);
    }
}

/* Every generation keeps its stamp. Where a program that knows of 128 has dropped some, those are unknown, and no others; so are the oldest of
 * more than a quarter of a million. */
static void test_many_openings(void **state)
{
    (void)state;
    enum { OPENINGS = 330, KEPT = 128, DROPPED = 5, OLDER = 4096 };
    uint64_t stamps[2 * OPENINGS] = {0}, now = 0, first;
    MDB_env *env;
    MDB_dbi meta;
    MDB_val key = {7, "history"}, v;
    MDB_stat stat;
    uint8_t record[KEPT * 16];
    wipe();
    iso_store *s = make(NULL);
    stamps[0] = stamp_of(s, 0);
    iso_store_close(s);
    open_often(&now, OPENINGS, stamps);
    s = make(NULL);
    sound(s);
    for (uint64_t g = 0; g <= now; g++) assert_int_equal(stamp_of(s, g), stamps[g]);
    assert_int_equal(stamp_of(s, now + 1), 0);
    iso_store_close(s);
    MDB_txn *txn = meta_begin(&env, &meta);
    assert_int_equal(mdb_get(txn, meta, &key, &v), 0);
    assert_true(v.mv_size > DROPPED * 16 && v.mv_size <= sizeof record); /* what an older Isoface reads */
    memcpy(record, v.mv_data, v.mv_size);
    memcpy(&first, record, sizeof first);
    v.mv_data = record + DROPPED * 16;
    v.mv_size -= DROPPED * 16;
    assert_int_equal(mdb_put(txn, meta, &key, &v, 0), 0);
    meta_end(env, txn);
    first = le64toh(first);
    open_often(&now, OPENINGS - 100, stamps);
    s = make(NULL);
    for (uint64_t g = 0; g <= now; g++) assert_int_equal(stamp_of(s, g), g >= first && g < first + DROPPED ? 0 : stamps[g]);
    iso_store_close(s);
    txn = meta_begin(&env, &meta);
    for (int i = 0; i < OLDER + 8; i++) {
        uint8_t name[15] = "history";
        uint64_t behind = htobe64(now + 1000 + (uint64_t)i); /* none of these is asked for */
        memcpy(name + 7, &behind, 8);
        assert_int_equal(mdb_put(txn, meta, &(MDB_val){15, name}, &(MDB_val){16, record}, 0), 0);
    }
    assert_int_equal(mdb_stat(txn, meta, &stat), 0);
    meta_end(env, txn);
    const size_t entries = stat.ms_entries;
    open_often(&now, 64, stamps);
    txn = meta_begin(&env, &meta);
    assert_int_equal(mdb_stat(txn, meta, &stat), 0);
    meta_end(env, txn);
    assert_int_equal(stat.ms_entries, entries); /* one more, one less */
    s = make(NULL);
    sound(s);
    assert_int_equal(stamp_of(s, 0), 0);
    assert_int_equal(stamp_of(s, first - 1), stamps[first - 1]);
    assert_int_equal(stamp_of(s, now), stamps[now]);
    iso_store_close(s);
}

/* A wrong number of items in the state record is no fault of any page. */
static void test_count(void **state)
{
    (void)state;
    wipe();
    iso_store *s = make(NULL);
    fill(s, 0, 300);
    iso_store_close(s);
    size_t n, found = 0;
    char data[700];
    snprintf(data, sizeof data, "%s/data.mdb", db);
    char *good = read_bytes(data, &n), *bad = malloc(n);
    assert_non_null(bad);
    const char record[] = {'s', 't', 'a', 't', 'e', 1, 0, 0, 0, 300 & 255, 300 >> 8}; /* key, version, count */
    for (int wrong = 0; wrong < 2; wrong++) {
        memcpy(bad, good, n);
        for (size_t i = 0; i + 30 < n; i++)
            if (memcmp(bad + i, record, sizeof record) == 0) bad[i + (wrong ? 14 : 9)] ^= 5, found++; /* 2^40 more, or one less */
        write_bytes(data, bad, n);
        assert_int_equal(iso_store_open(db, ISO_STORE_READ, NULL, &s, &err), ISO_E_FORMAT);
        assert_non_null(strstr(err.message, "but it has 300"));
        assert_int_equal(iso_store_open(db, ISO_STORE_WRITE, NULL, &s, &err), ISO_E_FORMAT);
    }
    assert_true(found >= 2);
    free(good);
    free(bad);
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

/* Compaction stops where it is interrupted, in the middle of the copy too. */
static void test_stopped_compaction(void **state)
{
    (void)state;
    wipe();
    iso_store *s = make(NULL);
    fill(s, 0, 3000);
    iso_store_close(s);
    for (int round = 0; round < 4; round++) {
        pid_t child = fork();
        if (child == 0) {
            uint64_t before, after;
            iso_interrupt_install();
            if (round == 0) raise(SIGINT);
            else setitimer(ITIMER_REAL, &(struct itimerval){.it_value = {.tv_usec = 1500 * round}}, NULL), signal(SIGALRM, interrupt);
            iso_status status = iso_store_compact(db, NULL, &before, &after, &err);
            _exit(status == ISO_E_INTERRUPTED ? 10 : status ? 2 : round == 0);
        }
        int code;
        assert_int_equal(waitpid(child, &code, 0), child);
        assert_true(WIFEXITED(code) && (WEXITSTATUS(code) == 10 || (WEXITSTATUS(code) == 0 && round)));
        char temporary[700];
        snprintf(temporary, sizeof temporary, "%s/.isoface-compact.tmp", db);
        assert_int_equal(access(temporary, F_OK), -1);
        s = make(NULL);
        assert_int_equal(info_of(s).count, 3000);
        sound(s);
        iso_store_close(s);
    }
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

int main(int argc, char **argv)
{
    if (argc == 3 && !strcmp(argv[1], "--forever")) return child_forever(argv[2]);
    if (!set_up()) return 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_kill), cmocka_unit_test(test_damage), cmocka_unit_test(test_headers), cmocka_unit_test(test_last_page), cmocka_unit_test(test_order),
        cmocka_unit_test(test_history), cmocka_unit_test(test_records), cmocka_unit_test(test_hashes_alike), cmocka_unit_test(test_many_openings), cmocka_unit_test(test_count), cmocka_unit_test(test_full_disk), cmocka_unit_test(test_stopped_compaction),
        cmocka_unit_test(test_read_only)};
    return clean_up(cmocka_run_group_tests(tests, NULL, NULL));
}
