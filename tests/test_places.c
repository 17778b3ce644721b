/* Vectors found by their places are those that LMDB finds: the same addresses, and none where there is none. */
#include <fcntl.h>

#include "indexer/store_page.h"
#include "tests/store_common.h"

static void drop(iso_store *s, uint64_t percent, uint64_t next)
{
    iso_txn *t;
    OK(iso_txn_begin(s, true, &t, &err));
    for (uint64_t id = 1; id < next; id++) {
        const bool far = id / 500 % 7 == 3; /* whole pages */
        if (!far && draw() % 100 >= percent) continue;
        iso_status status = iso_item_remove(t, id, &err);
        if (status != ISO_E_NOT_FOUND) OK(status);
    }
    OK(iso_txn_commit(t, &err));
}

/* Every id, and some that never were: with places and without. How many places knew. */
static uint64_t check_all(iso_store *s, uint64_t next)
{
    iso_txn *plain, *with;
    iso_places *p = NULL;
    uint64_t known = 0;
    OK(iso_txn_begin(s, false, &plain, &err));
    OK(iso_txn_begin(s, false, &with, &err));
    OK(iso_places_find(with, &p));
    assert_true(iso_txn_use_places(with, p));
    for (uint64_t id = 0; id < next + 300; id++) {
        const float *a = NULL, *b = NULL;
        iso_item_vector_ahead(with, id);
        iso_item_vector_ahead(plain, id);
        iso_status status = iso_item_vector(plain, id, &a, &err);
        assert_int_equal(iso_item_vector(with, id, &b, &err), status);
        assert_true(status == ISO_OK || status == ISO_E_NOT_FOUND);
        assert_ptr_equal(a, b);
        assert_ptr_equal(iso_places_vector(with, id), a);
        known += a != NULL;
    }
    assert_int_equal(iso_item_vector(with, UINT64_MAX, &(const float *){0}, &err), ISO_E_NOT_FOUND);
    iso_txn_abort(plain);
    iso_txn_abort(with);
    iso_places_free(p);
    return known;
}

static void test_found(void **state)
{
    (void)state;
    static const uint64_t sizes[] = {1, 2, 85, 3000, 40000}; /* trees of one, two and three levels */
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        wipe();
        iso_store *s = make(NULL);
        fill(s, 0, sizes[i]);
        assert_int_equal(check_all(s, sizes[i]), sizes[i]);
        drop(s, sizes[i] > 2 ? 30 : 0, sizes[i]);
        assert_int_equal(check_all(s, sizes[i]), info_of(s).count);
        fill(s, sizes[i] / 2, sizes[i]); /* replaces half of them under new ids */
        assert_int_equal(check_all(s, 3 * sizes[i]), info_of(s).count);
        iso_store_close(s);
    }
}

static void test_snapshots(void **state)
{
    (void)state;
    iso_txn *before, *after, *writer;
    iso_places *p;
    const float *v;
    float was[DIM];
    wipe();
    iso_store *s = make(NULL);
    fill(s, 0, 2000);
    OK(iso_txn_begin(s, false, &before, &err));
    OK(iso_places_find(before, &p));
    assert_false(iso_txn_use_places(before, NULL));
    OK(iso_txn_begin(s, true, &writer, &err));
    assert_false(iso_txn_use_places(writer, p));
    OK(iso_item_remove(writer, 700, &err));
    OK(iso_txn_commit(writer, &err));
    OK(iso_txn_begin(s, false, &after, &err));
    assert_false(iso_txn_use_places(after, p));
    assert_int_equal(iso_item_vector(after, 700, &v, &err), ISO_E_NOT_FOUND);
    assert_true(iso_txn_use_places(before, p)); /* its snapshot has it still */
    OK(iso_item_vector(before, 700, &v, &err));
    vector_of(699, was);
    assert_memory_equal(v, was, sizeof was);
    iso_txn_abort(before);
    iso_txn_abort(after);
    iso_places_free(p);
    /* the map moves between two transactions */
    OK(iso_txn_begin(s, false, &before, &err));
    OK(iso_places_find(before, &p));
    iso_txn_abort(before);
    OK(iso_store_map_step(s, UINT64_C(1) << 33, &err));
    OK(iso_txn_begin(s, false, &after, &err));
    assert_true(iso_txn_use_places(after, p));
    OK(iso_item_vector(after, 1500, &v, &err));
    assert_ptr_equal(v, iso_places_vector(after, 1500));
    vector_of(1499, was);
    assert_memory_equal(v, was, sizeof was);
    iso_txn_abort(after);
    iso_places_free(p);
    iso_store_close(s);
}

/* Up to vectors that no page holds two of. */
static void test_sizes(void **state)
{
    (void)state;
    static const int dims[] = {1, 128, 505, 506, 3000};
    for (size_t i = 0; i < sizeof dims / sizeof *dims; i++) {
        iso_store *s;
        iso_txn *t;
        iso_places *p = NULL;
        iso_store_spec spec = {.dim = dims[i], .digest = digest_a, .root = "/tmp"};
        float *v = calloc((size_t)dims[i], sizeof *v);
        assert_non_null(v);
        wipe();
        OK(iso_store_open(db, ISO_STORE_CREATE, &spec, &s, &err));
        OK(iso_txn_begin(s, false, &t, &err));
        assert_int_equal(iso_places_find(t, &p), ISO_E_UNSUPPORTED); /* no items */
        iso_txn_abort(t);
        OK(iso_txn_begin(s, true, &t, &err));
        assert_int_equal(iso_places_find(t, &p), ISO_E_UNSUPPORTED);
        for (int n = 0; n < 1000; n++) {
            char path[16];
            snprintf(path, sizeof path, "%d", n);
            v[n % dims[i]] = (float)(n + 1);
            OK(iso_item_put(t, &(iso_item){.path = path}, v, &err));
        }
        OK(iso_txn_commit(t, &err));
        if (dims[i] <= 505) {
            assert_int_equal(check_all(s, 1001), 1000);
        } else {
            OK(iso_txn_begin(s, false, &t, &err));
            assert_int_equal(iso_places_find(t, &p), ISO_E_UNSUPPORTED);
            iso_txn_abort(t);
        }
        iso_store_close(s);
        free(v);
    }
}

/* Branches that lead nowhere are never followed. */
static void test_damage(void **state)
{
    (void)state;
    enum { PSIZE = 4096, TRIALS = 300 };
    uint8_t page[PSIZE], wrong[PSIZE];
    char path[700];
    uint64_t refused = 0, branches = 0;
    wipe();
    iso_store *s = make(NULL);
    fill(s, 0, 20000);
    snprintf(path, sizeof path, "%s/data.mdb", db);
    const int fd = open(path, O_RDWR);
    assert_true(fd >= 0);
    for (off_t at = 2 * PSIZE; pread(fd, page, PSIZE, at) == PSIZE; at += PSIZE) {
        if (iso_get_u16(page + 10) != P_BRANCH) continue;
        branches++;
        for (int trial = 0; trial < TRIALS; trial++) {
            iso_txn *t;
            iso_places *p = NULL;
            memcpy(wrong, page, PSIZE);
            /* not the first node, which LMDB itself follows to the first item */
            const size_t nodes = (size_t)(iso_get_u16(page + 12) - PAGE_HEADER) / 2, node = nodes < 2 ? 0 : 1 + draw() % (nodes - 1);
            if (!node) continue;
            uint8_t *byte = trial % 3 == 0 ? wrong + PAGE_HEADER + 2 * node : wrong + iso_get_u16(page + PAGE_HEADER + 2 * node) + draw() % 16;
            *byte ^= (uint8_t)(1 + draw() % 255);
            assert_int_equal(pwrite(fd, wrong, PSIZE, at), PSIZE);
            OK(iso_txn_begin(s, false, &t, &err));
            refused += iso_places_find(t, &p) == ISO_E_UNSUPPORTED;
            for (uint64_t id = 1; p && iso_txn_use_places(t, p) && id < 20000; id += 97) iso_item_vector_ahead(t, id);
            iso_txn_abort(t);
            iso_places_free(p);
        }
        assert_int_equal(pwrite(fd, page, PSIZE, at), PSIZE);
    }
    close(fd);
    assert_true(branches > 1 && refused > 0);
    sound(s);
    assert_int_equal(check_all(s, 20000), 20000);
    iso_store_close(s);
}

int main(void)
{
    if (!set_up()) return 1;
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_found), cmocka_unit_test(test_snapshots), cmocka_unit_test(test_sizes),
                                       cmocka_unit_test(test_damage)};
    return clean_up(cmocka_run_group_tests(tests, NULL, NULL));
}
