/* Training where memory runs out: at every allocation in turn a step is refused with ISO_E_MEMORY, and nothing is lost. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#include <cmocka.h>

#include "model/train_step.h"
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
    return first_refused >= 0 && number >= first_refused && number < first_refused + refusals;
}

void *__wrap_malloc(size_t size) { return refused() ? NULL : __real_malloc(size); }
void *__wrap_calloc(size_t n, size_t size) { return refused() ? NULL : __real_calloc(n, size); }
void *__wrap_realloc(void *p, size_t size) { return refused() ? NULL : __real_realloc(p, size); }
void *__wrap_aligned_alloc(size_t alignment, size_t size) { return refused() ? NULL : __real_aligned_alloc(alignment, size); }
int __wrap_posix_memalign(void **out, size_t alignment, size_t size)
{
    return refused() ? 12 : __real_posix_memalign(out, alignment, size);
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

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_measure), cmocka_unit_test(test_create)};
    return cmocka_run_group_tests_name("memory of training", tests, NULL, NULL);
}
