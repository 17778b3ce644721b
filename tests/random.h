/* random.h: random numbers that a seed repeats. */
#ifndef ISO_TESTS_RANDOM_H
#define ISO_TESTS_RANDOM_H

#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

static uint64_t seed, drawn; /* where the numbers began; where draw's are now */

/* splitmix64 */
static inline uint64_t draw_from(uint64_t *state)
{
    uint64_t z = *state += UINT64_C(0x9E3779B97F4A7C15);
    z = (z ^ z >> 30) * UINT64_C(0xBF58476D1CE4E5B9);
    z = (z ^ z >> 27) * UINT64_C(0x94D049BB133111EB);
    return z ^ z >> 31;
}
static inline uint64_t draw(void) { return draw_from(&drawn); }
static inline double uniform(void) { return (double)(draw() >> 11) * 0x1p-53; } /* in [0, 1) */
static inline double either(void) { return 2 * uniform() - 1; }                  /* in [-1, 1) */

/* From the environment's ISO_TEST_SEED, or this one. */
static inline void begin_random(uint64_t own)
{
    const char *given = getenv("ISO_TEST_SEED");
    seed = drawn = given ? strtoull(given, NULL, 0) : own;
    printf("seed %" PRIu64 " (ISO_TEST_SEED repeats it)\n", seed);
}

#endif
