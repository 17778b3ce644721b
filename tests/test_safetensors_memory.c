/* test_safetensors_memory.c: memory that runs out at every allocation in turn, those of the libraries below among them: a file is written and read
 * whole, or ISO_E_MEMORY is said, the old file stands, and nothing is leaked; a model that was loaded has its digest. */
#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "model/model.h"
#include "model/safetensors.h"
#include "tests/check.h"
#include "tests/folder.h"

static char folder[256], path[320];

#ifndef __SANITIZE_ADDRESS__ /* which has allocators of its own */
#define REFUSES 1

void *__libc_malloc(size_t size);
void *__libc_calloc(size_t n, size_t size);
void *__libc_realloc(void *p, size_t size);
void __libc_free(void *p);

static long asked, refuse = -1, live; /* refuse: the number of the allocation that fails; -1: none does */

static void *counted(void *p)
{
    live += p != NULL;
    return p;
}

static bool refused(void)
{
    if (refuse < 0 || asked++ != refuse) return false;
    errno = ENOMEM;
    return true;
}

void *malloc(size_t size) { return refused() ? NULL : counted(__libc_malloc(size)); }
void *calloc(size_t n, size_t size) { return refused() ? NULL : counted(__libc_calloc(n, size)); }
void *realloc(void *p, size_t size)
{
    if (refused()) return NULL;
    void *q = __libc_realloc(p, size);
    live += !p && q;
    return q;
}
void free(void *p)
{
    live -= p != NULL;
    __libc_free(p);
}
#else
#define REFUSES 0
static long asked, refuse, live;
#endif

enum { TENSORS = 5, PAIRS = 12 };
static const float number[6] = {1, 2, 3, 4, 5, 6};
static char long_value[3000];

static const char *key_of(int i)
{
    static char key[32];
    snprintf(key, sizeof key, "key %d", i);
    return key;
}

static iso_status save(float first, iso_error *err)
{
    static char name[TENSORS][32], key[PAIRS][32];
    float data[6];
    iso_st_out tensor[TENSORS];
    iso_st_meta_pair pair[PAIRS];
    memcpy(data, number, sizeof data);
    data[0] = first;
    for (int i = 0; i < TENSORS; i++) {
        snprintf(name[i], sizeof name[i], "t.%d.weight", i);
        tensor[i] = (iso_st_out){name[i], iso_shape2(2, 3), data};
    }
    for (int i = 0; i < PAIRS; i++) {
        snprintf(key[i], sizeof key[i], "%s", key_of(i));
        pair[i] = (iso_st_meta_pair){key[i], i ? "a \"value\"\n" : long_value};
    }
    return iso_st_save(path, TENSORS, tensor, PAIRS, pair, err);
}

static void check(const iso_st *f, float first)
{
    assert_int_equal(iso_st_count(f), TENSORS);
    assert_int_equal(iso_st_meta_count(f), PAIRS);
    for (int i = 0; i < TENSORS; i++) {
        char name[32];
        float got[6];
        snprintf(name, sizeof name, "t.%d.weight", i);
        const iso_st_tensor *t = iso_st_find(f, name);
        assert_non_null(t);
        assert_int_equal(iso_st_f32(t, got, NULL), ISO_OK);
        assert_true(got[0] == first);
        assert_memory_equal(got + 1, number + 1, 5 * sizeof *got);
    }
    for (int i = 0; i < PAIRS; i++) {
        assert_non_null(iso_st_meta(f, key_of(i)));
        assert_string_equal(iso_st_meta(f, key_of(i)), i ? "a \"value\"\n" : long_value);
    }
}

static void check_file(float first)
{
    iso_st *f = NULL;
    iso_error err = {0};
    if (iso_st_load(path, &f, &err)) fail_msg("%s", err.message);
    check(f, first);
    iso_st_free(f);
}

/* Begins to refuse allocation n; and ends: whether there was one. */
static long begin(long n)
{
    refuse = n;
    asked = 0;
    return live;
}

static bool end(long n)
{
    refuse = -1;
    return asked > n;
}

static void saving(void **state)
{
    (void)state;
    iso_error err = {0};
    float stands = 100;
    long n = 0, failed = 0;
    assert_int_equal(save(stands, &err), ISO_OK);
    for (bool more = REFUSES; more; n++) {
        const long before = begin(n);
        const iso_status status = save((float)n, &err);
        more = end(n);
        assert_int_equal(live, before);
        if (status == ISO_OK) stands = (float)n;
        else assert_int_equal(status, ISO_E_MEMORY);
        failed += status != ISO_OK;
        check_file(stands);
    }
    assert_true(!REFUSES || (failed > 0 && stands == (float)(n - 1)));
}

static void loading(void **state)
{
    (void)state;
    iso_error err = {0};
    long n = 0, failed = 0;
    bool last = !REFUSES;
    assert_int_equal(save(7, &err), ISO_OK);
    for (bool more = REFUSES; more; n++) {
        iso_st *f = NULL;
        const long before = begin(n);
        const iso_status status = iso_st_load(path, &f, &err);
        more = end(n);
        last = status == ISO_OK;
        if (last) check(f, 7);
        else assert_int_equal(status, ISO_E_MEMORY);
        failed += !last;
        iso_st_free(f);
        assert_int_equal(live, before);
    }
    assert_true(last && (!REFUSES || failed > 2 * PAIRS));
}

/* A model of which memory is left to be loaded has its digest: another would be taken for another model's. */
static void digest(void **state)
{
    (void)state;
    const iso_net net = {.arch = ISO_ARCH_MLP, .layers = 3, .size = {2, 4, 4}, .act = "tanh", .out = "linear", .latent = 2, .views = 1};
    iso_error err = {0};
    iso_model *m = NULL;
    char want[33];
    assert_int_equal(iso_model_create(&net, &m, &err), ISO_OK);
    strcpy(want, iso_model_digest(m));
    assert_int_equal(iso_model_save(m, path, &err), ISO_OK);
    iso_model_free(m);
    long n = 0, failed = 0;
    for (bool more = REFUSES; more; n++) {
        char got[33] = "";
        m = NULL;
        begin(n);
        const iso_status status = iso_model_load(path, &m, &err);
        if (status == ISO_OK) snprintf(got, sizeof got, "%s", iso_model_digest(m));
        else failed++;
        more = end(n);
        if (status == ISO_OK) assert_string_equal(got, want);
        else assert_int_equal(status, ISO_E_MEMORY);
        iso_model_free(m);
    }
    assert_true(!REFUSES || (failed > 0 && failed == n - 1));
}

static int setup(void **state)
{
    (void)state;
    memset(long_value, 'x', sizeof long_value - 1);
    if (!make_folder(folder, sizeof folder, "safetensors-memory")) return -1;
    snprintf(path, sizeof path, "%s/m.safetensors", folder);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    unlink(path);
    return rmdir(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(saving), cmocka_unit_test(loading), cmocka_unit_test(digest)};
    return cmocka_run_group_tests(tests, setup, teardown);
}
