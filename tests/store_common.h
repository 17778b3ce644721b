/* store_common.h: what the store's test programs share: items whose vectors tell their number. */
#ifndef ISO_TESTS_STORE_COMMON_H
#define ISO_TESTS_STORE_COMMON_H

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "indexer/store.h"
#include "tests/check.h"
#include "tests/folder.h"
#include "tests/random.h"

#define DIM 5
static const char digest_a[] = "0123456789abcdef0123456789abcdef", digest_b[] = "ffffffffffffffffffffffffffffffff";
static char base[512], db[600];
static iso_error err;

static void vector_of(uint64_t n, float v[DIM])
{
    for (int i = 0; i < DIM; i++) v[i] = (float)(n * 7 + (uint64_t)i + 1);
}

/* For iso_store_fill: row i is vector i. */
__attribute__((unused)) static iso_status read_vectors(void *ctx, int64_t first, int64_t n, float *out, iso_error *e)
{
    (void)ctx;
    (void)e;
    for (int64_t i = 0; i < n; i++) vector_of((uint64_t)(first + i), out + i * DIM);
    return ISO_OK;
}

static void wipe(void)
{
    if (!remove_folder(db)) fail();
}

static iso_store *make(const char *model)
{
    iso_store *s;
    iso_store_spec spec = {.dim = DIM, .digest = digest_a, .root = "/tmp", .model = model};
    OK(iso_store_open(db, ISO_STORE_CREATE, &spec, &s, &err));
    return s;
}

__attribute__((unused)) static uint64_t put(iso_txn *t, const char *path, uint64_t n, uint64_t content)
{
    float v[DIM];
    vector_of(n, v);
    iso_item item = {.path = path, .size = (int64_t)n, .mtime_ns = -5, .hash = {content, content ? 1 : 0}, .width = 178, .height = 218};
    OK(iso_item_put(t, &item, v, &err));
    return item.id;
}

/* items n = first ... first + count - 1 under "p/<n>", in one transaction */
__attribute__((unused)) static void fill(iso_store *s, uint64_t first, uint64_t count)
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
    info = iso_store_info_get(t);
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
    OK(iso_store_verify(s, say, line, NULL, &faults, &err));
    if (faults) fail_msg("%" PRId64 " faults: %s", faults, line);
}

__attribute__((unused)) static void write_bytes(const char *path, const void *bytes, size_t n)
{
    unlink(path); /* ext4 syncs a file that is cut to nothing and written again */
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(bytes, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
}

__attribute__((unused)) static char *read_bytes(const char *path, size_t *n)
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

/* Before the tests: the folder, the seed, this program's own path for tests that start it as another process. */
static bool set_up(void)
{
    char self[512] = "";
    begin_random((uint64_t)time(NULL));
    if (readlink("/proc/self/exe", self, sizeof self - 1) < 0 || setenv("ISO_TEST_SELF", self, 1)) return false;
    if (!make_folder(base, sizeof base, "store")) return false;
    snprintf(db, sizeof db, "%s/x.db", base);
    return true;
}

static int clean_up(int failed)
{
    return remove_folder(base) ? failed : 1;
}

#endif
