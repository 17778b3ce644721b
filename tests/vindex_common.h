/* vindex_common.h: what the tests of indexes share: a folder with the file, and random numbers. */
#ifndef ISO_TESTS_VINDEX_COMMON_H
#define ISO_TESTS_VINDEX_COMMON_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/error.h"

#define OK(call) \
    do { \
        iso_status status_ = (call); \
        if (status_) fail_msg("%s:%d: %d: %s", __FILE__, __LINE__, status_, err.message); \
    } while (0)

static char base[512], file[600];
static uint64_t seed, drawn;
static iso_error err;

/* splitmix64 */
static uint64_t draw(void)
{
    uint64_t z = drawn += UINT64_C(0x9E3779B97F4A7C15);
    z = (z ^ z >> 30) * UINT64_C(0xBF58476D1CE4E5B9);
    z = (z ^ z >> 27) * UINT64_C(0x94D049BB133111EB);
    return z ^ z >> 31;
}

/* Of a test's set-up and tear-down. */
static int begin(const char *name, uint64_t own_seed)
{
    const char *tmp = getenv("TMPDIR"), *given = getenv("ISO_TEST_SEED");
    drawn = seed = given ? strtoull(given, NULL, 0) : own_seed;
    printf("seed %" PRIu64 " (ISO_TEST_SEED repeats it)\n", seed);
    snprintf(base, sizeof base, "%s/isoface-%s-XXXXXX", tmp && *tmp ? tmp : "/tmp", name); /* mkdtemp's template */
    if (!mkdtemp(base)) return -1;
    snprintf(file, sizeof file, "%s/index.faiss", base);
    return 0;
}

static int tear_down(void **unused)
{
    (void)unused;
    unlink(file);
    return rmdir(base); /* nothing else was left */
}

#endif
