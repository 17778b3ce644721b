/* vindex_ivf_pool.h: the k best of one-byte codes while a search runs. As iso_best, but small ones are kept sorted, which takes
 * no branch a score: a heap's are guessed wrong more often than not. */
#ifndef ISO_VINDEX_IVF_POOL_H
#define ISO_VINDEX_IVF_POOL_H

#include <stddef.h>
#include "retriever/scan.h"

typedef struct iso_ivf_pool {
    int64_t k, count;    /* count: kept, k at most */
    float least;         /* the worst that is kept; -INFINITY until k are there */
    int64_t *key, *next; /* best first, score above, the rest of the position below; a sentinel lies before each */
    iso_best heap;       /* of a large pool; then key is NULL */
} iso_ivf_pool;

/* Bytes of the memory that a pool of k needs. */
size_t iso_ivf_pool_room(int64_t k);
/* An empty pool in `room`, aligned to 8 bytes, the caller's. */
void iso_ivf_pool_start(iso_ivf_pool *p, int64_t k, void *room);
/* Offers scores[i] for position first + i, from 0 and below 2^32. A score that is not a number is never kept. */
void iso_ivf_pool_offer(iso_ivf_pool *p, const float *scores, int64_t n, int64_t first);
/* As iso_best_least. */
float iso_ivf_pool_least(const iso_ivf_pool *p);
/* What is kept, [count], best first; then p takes no more offers. */
void iso_ivf_pool_positions(iso_ivf_pool *p, int32_t *out);

#endif
