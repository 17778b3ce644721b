/* philox.h: counter-based random numbers (Philox4x32-10, Salmon et al. 2011).
 *
 * A draw is a pure function of (seed, stream, step, position): the same on
 * every backend and thread count, and resuming needs no generator state.
 * Every function is safe on any thread. */
#ifndef ISO_PHILOX_H
#define ISO_PHILOX_H

#include <stdint.h>

typedef struct iso_draw {
    uint64_t seed;
    uint32_t stream; /* what is drawn: one number per use; from ISO_STREAM_INIT on they belong to initialisation */
    uint64_t step;   /* when: training step, epoch */
} iso_draw;

#define ISO_STREAM_INIT 0x10000u /* + the number of the parameter */
#define ISO_STREAM_FLOW 0x20000u /* the same for flow.* */

void iso_philox(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4]);
void iso_draw_uniform(iso_draw d, double low, double high, int64_t n, float *out); /* [low, high) */
void iso_draw_normal(iso_draw d, int64_t n, float *out);                           /* Box-Muller, in double */
/* Its step: two normal numbers of two words, whose first is a uniform in (0, 1], never 0: the largest radius is sqrt(64 log 2). */
void iso_normal_pair(const uint32_t word[2], double out[2]);
void iso_draw_permutation(iso_draw d, int64_t n, int64_t *out);                    /* Fisher-Yates */
/* One number in [0, bound), bound > 0, from 64 random bits: off uniform by at most bound / 2^64. */
uint64_t iso_draw_below(iso_draw d, uint64_t position, uint64_t bound);

#endif
