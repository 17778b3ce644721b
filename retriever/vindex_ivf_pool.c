/* vindex_ivf_pool.c: see vindex_ivf_pool.h. */
#include "retriever/vindex_ivf_pool.h"

#include <math.h>
#include <string.h>

#include "base/clones.h"

enum {
    SORTED = 128, /* largest k that is kept sorted */
    LANES = 8,    /* keys are moved so many at a time */
    GROUP = 16    /* scores looked at so many at a time */
};

static size_t rounded(int64_t k) { return ((size_t)k + LANES - 1) / LANES * LANES; }

size_t iso_ivf_pool_room(int64_t k)
{
    return k <= SORTED ? 2 * (rounded(k) + 1) * sizeof(int64_t) : (size_t)k * sizeof(iso_ranked);
}

void iso_ivf_pool_start(iso_ivf_pool *p, int64_t k, void *room)
{
    *p = (iso_ivf_pool){.k = k, .least = -INFINITY};
    if (k > SORTED) {
        p->heap = (iso_best){.k = k, .heap = room};
        return;
    }
    p->key = (int64_t *)room + 1;
    p->next = p->key + rounded(k) + 1;
    p->key[-1] = p->next[-1] = INT64_MAX;
    for (size_t i = 0; i < rounded(k); i++) p->key[i] = INT64_MIN;
}

/* Higher score first, then lower position: in the order of integers. */
static inline int64_t key_of(float score, int64_t position)
{
    int32_t bits;
    score += 0.0f; /* -0 is 0 */
    memcpy(&bits, &score, sizeof bits);
    bits ^= bits >> 31 & INT32_MAX;
    return (int64_t)((uint64_t)(uint32_t)bits << 32 | (UINT32_MAX - (uint32_t)position));
}

static inline float score_of(int64_t key)
{
    int32_t bits = (int32_t)(key >> 32);
    float score;
    bits ^= bits >> 31 & INT32_MAX;
    memcpy(&score, &bits, sizeof score);
    return score;
}

/* Each place keeps what is better there: what it had, or the worse of x and what comes from above. */
static inline __attribute__((always_inline)) void insert(size_t n, const int64_t *restrict from, int64_t x,
                                                         int64_t *restrict to)
{
#pragma omp simd
    for (size_t i = 0; i < n; i++) {
        const int64_t above = from[(int64_t)i - 1] < x ? from[(int64_t)i - 1] : x;
        to[i] = from[i] > above ? from[i] : above;
    }
}

static inline __attribute__((always_inline)) void keep(iso_ivf_pool *p, float score, int64_t position)
{
    int64_t *const old = p->key;
    const int64_t key = key_of(score, position);
    if (key <= old[p->k - 1]) return; /* as good as the worst and behind it: of many equal ones nearly all are */
    insert(rounded(p->k), old, key, p->next);
    p->key = p->next;
    p->next = old;
    if (p->count < p->k) p->count++;
    if (p->count == p->k) p->least = score_of(p->key[p->k - 1]);
}

ISO_CLONES static void offer_sorted(iso_ivf_pool *p, const float *scores, int64_t n, int64_t first)
{
    int64_t i = 0;
    for (; i + GROUP <= n; i += GROUP) { /* most are too low: one test for all of them */
        const float *s = scores + i, least = p->least;
        uint32_t some = 0;
#pragma omp simd reduction(| : some)
        for (uint32_t l = 0; l < GROUP; l++) some |= s[l] >= least ? UINT32_C(1) << l : 0;
        for (; some; some &= some - 1) {
            const int l = __builtin_ctz(some);
            if (s[l] >= p->least) keep(p, s[l], first + i + l);
        }
    }
    for (; i < n; i++)
        if (scores[i] >= p->least) keep(p, scores[i], first + i);
}

void iso_ivf_pool_offer(iso_ivf_pool *p, const float *scores, int64_t n, int64_t first)
{
    if (p->key) {
        offer_sorted(p, scores, n, first);
        return;
    }
    iso_best_offer(&p->heap, scores, n, first, NULL);
    p->count = p->heap.count;
}

float iso_ivf_pool_least(const iso_ivf_pool *p) { return p->key ? p->least : iso_best_least(&p->heap); }

void iso_ivf_pool_positions(iso_ivf_pool *p, int32_t *out)
{
    if (!p->key) iso_best_sort(&p->heap);
    for (int64_t i = 0; i < p->count; i++)
        out[i] = (int32_t)(p->key ? (int64_t)(UINT32_MAX - (uint32_t)p->key[i]) : p->heap.heap[i].position);
}
