/* Training where memory runs out, at every allocation in turn: ISO_E_MEMORY, nothing is leaked, and what is said is true. */
#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/memory.h"
#include "model/train.h"
#include "tests/check.h"
#include "tests/folder.h"
#include "tests/models.h"

/* The linker leads Isoface's calls here (Makefile). */
void *__real_malloc(size_t size);
void *__real_calloc(size_t n, size_t size);
void *__real_realloc(void *p, size_t size);
void *__real_aligned_alloc(size_t alignment, size_t size);
int __real_posix_memalign(void **out, size_t alignment, size_t size);
char *__real_strdup(const char *s);
void *__real_mmap(void *at, size_t size, int protection, int flags, int file, off_t offset);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_realloc(void *p, size_t size);
void *__wrap_aligned_alloc(size_t alignment, size_t size);
int __wrap_posix_memalign(void **out, size_t alignment, size_t size);
char *__wrap_strdup(const char *s);
void *__wrap_mmap(void *at, size_t size, int protection, int flags, int file, off_t offset);

static long asked, first_refused = -1, refusals; /* first_refused -1: none is */

static bool refused(void)
{
    long number = __atomic_fetch_add(&asked, 1, __ATOMIC_RELAXED);
    if (first_refused < 0 || number < first_refused || number >= first_refused + refusals) return false;
    errno = ENOMEM;
    return true;
}

void *__wrap_malloc(size_t size) { return refused() ? NULL : __real_malloc(size); }
void *__wrap_calloc(size_t n, size_t size) { return refused() ? NULL : __real_calloc(n, size); }
void *__wrap_realloc(void *p, size_t size) { return refused() ? NULL : __real_realloc(p, size); }
void *__wrap_aligned_alloc(size_t alignment, size_t size) { return refused() ? NULL : __real_aligned_alloc(alignment, size); }
int __wrap_posix_memalign(void **out, size_t alignment, size_t size)
{
    return refused() ? ENOMEM : __real_posix_memalign(out, alignment, size);
}
char *__wrap_strdup(const char *s) { return refused() ? NULL : __real_strdup(s); }
void *__wrap_mmap(void *at, size_t size, int protection, int flags, int file, off_t offset)
{
    return refused() ? MAP_FAILED : __real_mmap(at, size, protection, flags, file, offset);
}

static const struct { const iso_net *net; iso_objective objective; } cases[] = {
    {&mlp, {.goal = ISO_GOAL_ISOMETRIC, .sigma = ISO_SIGMA_LEARNED, .sigma_ratio = 1, .kl_weight = 1, .alpha = 1}},
    {&celeba, {.goal = ISO_GOAL_FLOW, .beta = 1}},
    {&supervised, {.goal = ISO_GOAL_SUPERVISED}},
};
enum { CASES = sizeof cases / sizeof *cases };

static iso_status measure(size_t i, iso_error *err)
{
    iso_plan_stats stats;
    return iso_train_step_measure(cases[i].net, &cases[i].objective, 2, true, iso_backend_cpu(), &stats, err);
}

static iso_status create(size_t i, iso_error *err)
{
    iso_vars *vars = NULL;
    iso_train_step *step = NULL;
    iso_status status = iso_vars_create(iso_backend_cpu(), &vars, err);
    if (status == ISO_OK) status = iso_train_step_create(cases[i].net, &cases[i].objective, 2, true, vars, 1, &step, err);
    iso_train_step_free(step);
    iso_vars_free(vars);
    return status;
}

/* Refuses so many allocations from number `from` on. */
static iso_status refuse(iso_status (*make)(size_t, iso_error *), size_t i, long from, long many, iso_error *err)
{
    asked = 0, first_refused = from, refusals = many;
    iso_status status = make(i, err);
    first_refused = -1;
    return status;
}

static void every_allocation(iso_status (*make)(size_t, iso_error *))
{
    for (size_t i = 0; i < CASES; i++)
        for (long many = 1; many <= 1 << 20; many <<= 20) {
            long seen = 0, from = 0;
            for (;; from++) {
                iso_error err = {0};
                iso_status status = refuse(make, i, from, many, &err);
                if (asked <= from) break; /* there is no such allocation any more */
                seen += status == ISO_E_MEMORY;
                if (status == ISO_OK) continue; /* one that can be done without */
                assert_int_equal(status, ISO_E_MEMORY);
                assert_memory_equal(err.message, "out of memory", 13);
            }
            assert_true(from > 100 && seen >= from / 2);
        }
}

static void test_measure(void **unused)
{
    (void)unused;
    every_allocation(measure);
}

static void test_create(void **unused)
{
    (void)unused;
    every_allocation(create);
}

/* --- a whole training: what it says can be done then can be done */

static char folder[512], *model, *state, *csv;

static iso_status train(size_t unused, iso_error *err)
{
    (void)unused;
    static const uint8_t values[4 * 8] = {1, 9, 200, 7, 50, 60, 3, 8, 100, 255, 0, 12, 33, 4, 80, 160, 9, 9, 30, 60, 1, 70};
    static const int64_t rows[] = {0, 1, 2, 3};
    const iso_train_data data = {.pixels = values, .dim = 8, .train = rows, .valid = rows + 3, .train_count = 3, .valid_count = 1};
    const iso_train_spec spec = {.net = mlp, .method = "vae", .kl_weight = 1,
                                 .run = {.path = model, .epochs = 1, .batch = 3, .lr = 1e-3, .threads = 1}};
    (void)unlink(model), (void)unlink(state), (void)unlink(csv);
    return iso_train(&spec, &data, err);
}

static void test_train(void **unused)
{
    (void)unused;
    long from = 0, resumable = 0, refused_at_all = 0;
    for (;; from += 3) {
        iso_error err = {0};
        iso_status status = refuse(train, 0, from, 1, &err);
        if (asked <= from) break;
        if (status == ISO_OK) continue;
        assert_int_equal(status, ISO_E_MEMORY);
        assert_null(strstr(err.message, "make room"));
        assert_null(strchr(err.message, '\n'));
        refused_at_all++;
        if (!strstr(err.message, "--resume")) continue;
        assert_int_equal(access(state, F_OK), 0);
        resumable++;
    }
    assert_true(refused_at_all > 100 && resumable > 0 && resumable < refused_at_all);
}

static int set_up(void **unused)
{
    (void)unused;
    if (!make_folder(folder, sizeof folder, "memory")) return -1;
    model = iso_format("%s/m", folder), state = iso_format("%s/m.state", folder), csv = iso_format("%s/m.csv", folder);
    return model && state && csv ? 0 : -1;
}

static int tear_down(void **unused)
{
    (void)unused;
    (void)unlink(model), (void)unlink(state), (void)unlink(csv);
    free(model), free(state), free(csv);
    return rmdir(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_measure), cmocka_unit_test(test_create), cmocka_unit_test(test_train)};
    return cmocka_run_group_tests_name("memory of training", tests, set_up, tear_down);
}
