/* vindex_ivf.c: searching in an inverted file, and its payload; vindex_ivf_build.c makes it. */
#include "retriever/vindex_ivf.h"

#include <endian.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "model/cpu/cpu.h"
#include "retriever/vindex_ivf_pool.h"
#include "retriever/vindex_ivf_scan.h"

enum {
    BUCKETS = ISO_VINDEX_IVF_BUCKETS, /* of lists by (t - mean) / deviation, from -LOWEST on, PER_UNIT a unit */
    LOWEST = 8,
    PER_UNIT = 8,
    FIRST_LISTS = 3 /* searched at least, for a first k-th best score */
};

/* ---- the payload ---- */

static size_t aligned(size_t size)
{
    return (size + ISO_VINDEX_IVF_ALIGN - 1) / ISO_VINDEX_IVF_ALIGN * ISO_VINDEX_IVF_ALIGN;
}

enum { LOW, STEP, CENTROID_LOW, CENTROID_STEP, COV, MIDDLE, OFFSET, RADIUS, CENTROID, POSITION, CODE, ROW, SECTIONS };

/* Bytes of each part; false where a number overflows. */
static bool sizes(int64_t count, int dim, int64_t lists, int cov_dim, int middle_dim, size_t out[SECTIONS], size_t *total)
{
    const size_t n = (size_t)count, d = (size_t)dim, k = (size_t)lists, c = (size_t)cov_dim, m = (size_t)middle_dim;
    const size_t items[SECTIONS] = {d, d, d, d, c * c, m, k + 1, k, k * d, n, 0, 0};
    const size_t bytes[SECTIONS] = {4, 4, 4, 4, 4, 4, 4, 4, 1, 4, 1, 2};
    *total = ISO_VINDEX_IVF_HEAD;
    if (count < 0 || count > INT32_MAX || lists < 1 || lists > INT32_MAX || dim < 1 || cov_dim < 0 || middle_dim < 0) return false;
    for (int i = 0; i < SECTIONS; i++) {
        size_t size = i >= CODE ? n * d : items[i];
        if (size > SIZE_MAX / 8 || __builtin_add_overflow(*total, aligned(size * bytes[i]), total)) return false;
        out[i] = size * bytes[i];
    }
    return true;
}

size_t iso_vindex_ivf_size(int64_t count, int dim, int64_t lists, int cov_dim, int middle_dim)
{
    size_t parts[SECTIONS], total;
    return sizes(count, dim, lists, cov_dim, middle_dim, parts, &total) ? total : 0;
}

void iso_vindex_ivf_place(iso_vindex_ivf *x, const uint8_t *payload)
{
    size_t parts[SECTIONS], total;
    const void *at[SECTIONS];
    const uint8_t *p = payload + ISO_VINDEX_IVF_HEAD;
    (void)sizes(x->count, x->dim, x->lists, x->cov_dim, x->middle_dim, parts, &total);
    for (int i = 0; i < SECTIONS; i++, p += aligned(parts[i - 1])) at[i] = p;
    x->low = at[LOW];
    x->step = at[STEP];
    x->centroid_low = at[CENTROID_LOW];
    x->centroid_step = at[CENTROID_STEP];
    x->cov = at[COV];
    x->middle = at[MIDDLE];
    x->offset = at[OFFSET];
    x->radius = at[RADIUS];
    x->centroid = at[CENTROID];
    x->position = at[POSITION];
    x->code = at[CODE];
    x->row = at[ROW];
}

static bool all_finite(const float *x, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (!isfinite(x[i])) return false;
    return true;
}

const char *iso_vindex_ivf_check(iso_vindex_ivf *x)
{
    double sum = 0;
    x->longest = 0;
    if (!(x->tolerance >= 0 && x->tolerance < 1e6)) return "its tolerance is out of range";
    if (x->offset[0] != 0 || x->offset[x->lists] != (uint64_t)x->count) return "its lists do not hold its vectors";
    for (int64_t l = 0; l < x->lists; l++) {
        if (x->offset[l + 1] < x->offset[l] || x->offset[l + 1] > (uint64_t)x->count)
            return "its lists are not in order";
        int64_t n = x->offset[l + 1] - x->offset[l];
        if (n > x->longest) x->longest = n;
        if (!(x->radius[l] >= 0 && x->radius[l] < 4)) return "the radius of a list is out of range";
        sum += (double)x->radius[l] * (double)n;
    }
    if (!all_finite(x->low, (size_t)x->dim) || !all_finite(x->step, (size_t)x->dim) ||
        !all_finite(x->centroid_low, (size_t)x->dim) || !all_finite(x->centroid_step, (size_t)x->dim) ||
        !all_finite(x->cov, (size_t)x->cov_dim * (size_t)x->cov_dim) || !all_finite(x->middle, (size_t)x->middle_dim))
        return "a number in it is not finite";
    x->radius_mean = x->count ? sum / (double)x->count : 0;
    for (int b = 0; b <= 2 * BUCKETS; b++)
        x->tail[b] = (float)(0.5 * erfc(((double)b / PER_UNIT - LOWEST) * M_SQRT1_2));
    return NULL;
}

void iso_vindex_ivf_pack(iso_vindex_ivf *x) { x->packed = iso_ivf_pack(x->centroid, x->lists, x->dim); }

void iso_vindex_ivf_free_parts(iso_vindex_ivf *x)
{
    free(x->packed);
    free(x->slot);
    x->packed = NULL;
    x->slot = NULL;
}

iso_scan_query iso_vindex_ivf_rows(const iso_vindex_ivf *x, const float *w)
{
    double bias = 0;
    for (int j = 0; j < x->middle_dim; j++) bias += (double)w[j] * x->middle[j];
    return (iso_scan_query){ISO_CODE_F16, x->dim, w, (float)bias};
}

/* ---- searching ---- */

/* One search: the query, what is known of the lists, and the best so far. */
typedef struct search {
    const iso_vindex_ivf *x;
    iso_ivf_query codes;  /* of the codes */
    double spread, least; /* deviation of a list of radius 1; what is added so that none is 0 */
    float *mean;          /* [lists] <w, c>; -INFINITY: searched */
    void *room;           /* of a query */
    void *block;          /* all of these */
    float *scores;        /* [max(lists, longest)] */
    int32_t *order;       /* [lists] those left, and for each the bucket that it is in: */
    uint8_t *bucket;
    iso_ivf_pool pool; /* by the codes' scores: more than asked for, as those are rounded */
    int64_t visited;
} search;

static iso_status search_start(search *s, const iso_vindex_ivf *x, int64_t pool, iso_error *err)
{
    size_t lists = (size_t)x->lists, longest = (size_t)(x->longest > x->lists ? x->longest : x->lists);
    memset(s, 0, sizeof *s);
    s->x = x;
    if (pool > x->count) pool = x->count;
    const size_t room = aligned(iso_ivf_query_room(x->dim)), bucket = aligned(lists + 8),
                 parts[] = {aligned(4 * lists), room, aligned(4 * longest), aligned(4 * lists), bucket},
                 kept = aligned(iso_ivf_pool_room(pool));
    uint8_t *at = aligned_alloc(ISO_VINDEX_IVF_ALIGN, parts[0] + parts[1] + parts[2] + parts[3] + parts[4] + kept);
    if (!at) return iso_fail_memory(err);
    s->block = at;
    s->mean = (float *)(void *)at;
    s->room = at += parts[0];
    s->scores = (float *)(void *)(at += parts[1]);
    s->order = (int32_t *)(void *)(at += parts[2]);
    s->bucket = at += parts[3];
    memset(s->bucket + lists, BUCKETS, bucket - lists);
    iso_ivf_pool_start(&s->pool, pool, at + bucket);
    return ISO_OK;
}

static void search_end(search *s) { free(s->block); }

/* The lists' means, and how far the scores of one spread. */
static void look_at_lists(search *s, const float *w)
{
    const iso_vindex_ivf *x = s->x;
    const iso_ivf_query centroids = iso_ivf_query_make(x->dim, w, x->centroid_low, x->centroid_step, s->room);
    const iso_scan_query rows = {ISO_CODE_F32, x->cov_dim, w, 0};
    double square = 0, variance = 0;
    iso_ivf_scores_packed(&centroids, x->packed, x->centroid, x->lists, s->mean);
    s->codes = iso_ivf_query_make(x->dim, w, x->low, x->step, s->room);
    for (int j = 0; j < x->dim; j++) square += (double)w[j] * w[j];
    variance = square / x->dim;
    if (x->cov_dim) {
        variance = 0;
        for (int first = 0; first < x->cov_dim; first += 256) {
            float product[256];
            int n = x->cov_dim - first < 256 ? x->cov_dim - first : 256;
            iso_scan_scores(&rows, x->cov + (size_t)first * (size_t)x->cov_dim, n, product);
            for (int j = 0; j < n; j++) variance += (double)product[j] * w[first + j];
        }
    }
    s->spread = sqrt(variance > 0 ? variance : 0);
    s->least = 1e-6 * sqrt(square) + 1e-30;
}

/* next: the list that comes after it, -1 where that is not known. */
static void search_list(search *s, int64_t list, int64_t next)
{
    const iso_vindex_ivf *x = s->x;
    const size_t dim = (size_t)x->dim;
    int64_t first = x->offset[list], n = x->offset[list + 1] - first;
    iso_ivf_scores(&s->codes, s->mean[list], x->code + (size_t)first * dim, n, s->scores,
                   next >= 0 ? x->code + (size_t)x->offset[next] * dim : NULL);
    iso_ivf_pool_offer(&s->pool, s->scores, n, first);
    s->mean[list] = -INFINITY;
    s->visited++;
}

/* What a good vector of each list would score. */
ISO_CLONES static void find_promise(const search *s)
{
    const float *mean = s->mean, *radius = s->x->radius, far = (float)(2 * s->spread);
    float *promise = s->scores;
#pragma omp simd
    for (int64_t l = 0; l < s->x->lists; l++) promise[l] = mean[l] + far * radius[l];
}

/* The most promising lists, with enough vectors to fill the pool. */
static iso_status search_first(search *s, iso_error *err)
{
    enum { FEW = 1024 };
    const iso_vindex_ivf *x = s->x;
    int64_t most = x->lists, need = FIRST_LISTS + s->pool.k * x->lists / x->count * 2;
    for (bool enough = false; !enough; need *= 4) {
        int64_t rows = 0;
        int64_t few[FEW];
        void *many = NULL;
        iso_ivf_pool best;
        if (need > most) need = most;
        if (iso_ivf_pool_room(need) > sizeof few && !(many = malloc(iso_ivf_pool_room(need))))
            return iso_fail_memory(err);
        iso_ivf_pool_start(&best, need, many ? many : few);
        find_promise(s);
        iso_ivf_pool_offer(&best, s->scores, most, 0);
        iso_ivf_pool_positions(&best, s->order);
        free(many);
        for (int64_t i = 0; i < best.count; i++) rows += x->offset[s->order[i] + 1] - x->offset[s->order[i]];
        enough = rows >= s->pool.k || need == most;
        for (int64_t i = 0; enough && i < best.count; i++)
            search_list(s, s->order[i], i + 1 < best.count ? s->order[i + 1] : -1);
    }
    return ISO_OK;
}

/* What the lists not searched are expected to hold above the k-th best score. tail: of bucket 0, risen as t has. */
static double expected(const float *tail, const int64_t held[BUCKETS], int from, int end)
{
    double sum = 0;
    for (int b = from; b < end; b++) sum += (double)held[b] * tail[b];
    return sum;
}

/* The bucket from which on even all vectors together are not expected to hold what would count. */
static int hopeless(const iso_vindex_ivf *x, double allowed)
{
    int b = 0;
    while (b < BUCKETS && x->tail[b] * (double)x->count > 0.1 * allowed) b++;
    return b;
}

/* The bucket of each list; BUCKETS: hopeless (from bucket `end` on), or searched already. */
ISO_CLONES static void find_buckets(const search *s, float t, float end)
{
    const float *mean = s->mean, *radius = s->x->radius;
    const float spread = (float)s->spread, least = (float)s->least;
    uint8_t *bucket = s->bucket;
#pragma omp simd
    for (int64_t l = 0; l < s->x->lists; l++) {
        float place = ((t - mean[l]) / (spread * radius[l] + least) + LOWEST) * PER_UNIT;
        place = place > 0 ? place : 0;
        bucket[l] = (uint8_t)(int)(place < end ? place : BUCKETS);
    }
}

/* The lists left: those whose bucket is less than BUCKETS; how many. Most are not, and are passed over eight at a time. */
static int32_t find_left(const search *s, int32_t *left)
{
    const uint64_t eight = UINT64_C(0x0101010101010101) * BUCKETS;
    int32_t n = 0;
    _Static_assert(BUCKETS == 128, "one bit tells the lists that are left");
    for (int64_t l = 0; l < s->x->lists; l += 8) {
        uint64_t word;
        memcpy(&word, s->bucket + l, sizeof word); /* behind the last list are further BUCKETS */
        for (uint64_t some = ~le64toh(word) & eight; some; some &= some - 1)
            left[n++] = (int32_t)l + __builtin_ctzll(some) / 8;
    }
    return n;
}

/* The lists left by bucket: those of bucket b are order[first[b]] to order[first[b + 1] - 1], with held[b] vectors in all.
 * Returns the bucket behind the last one that has any. */
static int sort_lists(search *s, double t, double allowed, int32_t first[BUCKETS + 1], int64_t held[BUCKETS])
{
    const iso_vindex_ivf *x = s->x;
    int32_t at[BUCKETS] = {0}, *some = (int32_t *)(void *)s->scores; /* as long as order */
    int end = hopeless(x, allowed);
    memset(held, 0, sizeof *held * BUCKETS);
    find_buckets(s, (float)t, (float)end);
    if (x->tolerance == 0) { /* none is hopeless */
        end = BUCKETS;
        for (int64_t l = 0; l < x->lists; l++)
            if (s->bucket[l] == BUCKETS && s->mean[l] > -INFINITY) s->bucket[l] = BUCKETS - 1;
    }
    const int32_t left = find_left(s, some);
    for (int32_t i = 0; i < left; i++) {
        const int b = s->bucket[some[i]];
        at[b]++;
        held[b] += x->offset[some[i] + 1] - x->offset[some[i]];
    }
    first[0] = 0;
    for (int b = 0; b < BUCKETS; b++) {
        first[b + 1] = first[b] + at[b];
        at[b] = first[b];
    }
    for (int32_t i = 0; i < left; i++) s->order[at[s->bucket[some[i]]]++] = some[i];
    return end;
}

/* List after list until those left are expected to hold no more than is tolerated. */
static void search_on(search *s)
{
    const iso_vindex_ivf *x = s->x;
    const double t = iso_ivf_pool_least(&s->pool), allowed = x->tolerance > 0 ? x->tolerance * (double)s->pool.k : -1;
    const double unit = s->spread * x->radius_mean + s->least;
    int32_t first[BUCKETS + 1];
    int64_t held[BUCKETS];
    const int end = sort_lists(s, t, allowed, first, held);
    for (int b = 0; b < end; b++) {
        if (first[b] == first[b + 1]) continue;
        double risen = ((double)iso_ivf_pool_least(&s->pool) - t) / unit * PER_UNIT;
        const float *tail = x->tail + (risen < BUCKETS ? (int)risen : BUCKETS);
        double left = expected(tail, held, b, end);
        for (int32_t i = first[b]; i < first[b + 1]; i++) {
            if (left <= allowed) return;
            int32_t l = s->order[i];
            left -= (double)(x->offset[l + 1] - x->offset[l]) * tail[b];
            search_list(s, l, i + 1 < first[BUCKETS] ? s->order[i + 1] : -1);
        }
    }
}

/* The pool's scores from the 16-bit rows, and their positions. */
static iso_status finish(search *s, const float *w, int64_t k, iso_ranked *out, int64_t *found, iso_error *err)
{
    enum { FEW = 64 };
    const iso_vindex_ivf *x = s->x;
    const iso_scan_query rows = iso_vindex_ivf_rows(x, w);
    const int64_t n = s->pool.count;
    iso_best best = {.k = k, .heap = out};
    int32_t few[3 * FEW], *many = NULL, *at = few;
    if (n > FEW && !(at = many = iso_calloc((size_t)n, 3 * sizeof *at))) return iso_fail_memory(err);
    int32_t *position = at + n;
    float *scores = (float *)(void *)(position + n);
    iso_status st = ISO_OK;
    iso_ivf_pool_positions(&s->pool, at);
    for (int64_t i = 0; i < n; i++) __builtin_prefetch(x->position + at[i]);
    iso_scan_scores_at(&rows, x->row, at, n, scores);
    for (int64_t i = 0; st == ISO_OK && i < n; i++) {
        if (x->position[at[i]] >= (uint64_t)x->count)
            st = iso_fail(err, ISO_E_FORMAT, "the index names a position that it does not have: build it anew");
        position[i] = (int32_t)x->position[at[i]];
    }
    if (st == ISO_OK) {
        iso_best_offer(&best, scores, n, 0, position);
        iso_best_sort(&best);
        *found = best.count;
    }
    free(many);
    return st;
}

/* Whether vectors outside of the pool, whose codes score no better than its worst, could be better than the k-th. Many equal
 * vectors share one rounding, and can crowd all others out. */
static bool crowded(const search *s, const float *w, int64_t k, const iso_ranked *out, int64_t found)
{
    const iso_vindex_ivf *x = s->x;
    double square = 0;
    if (s->pool.count < s->pool.k || s->pool.k == x->count || found < k) return false;
    for (int j = 0; j < x->dim; j++) square += (double)w[j] * w[j] * x->step[j] * x->step[j];
    return iso_ivf_pool_least(&s->pool) + 3 * sqrt(square / 12) > out[k - 1].score;
}

iso_status iso_vindex_ivf_search(const iso_vindex_ivf *x, const float *w, int64_t k, iso_ranked *out, int64_t *found,
                                 int64_t *visited, iso_error *err)
{
    enum { ROUNDS = 2 };
    search s;
    iso_status st = ISO_OK;
    bool more = true;
    for (int64_t round = 0, pool = k + k / 4 + 8; st == ISO_OK && more && round < ROUNDS; round++, pool *= 4) {
        st = search_start(&s, x, pool, err);
        if (st == ISO_OK) {
            look_at_lists(&s, w);
            st = search_first(&s, err);
        }
        if (st == ISO_OK) {
            search_on(&s);
            st = finish(&s, w, k, out, found, err);
        }
        more = st == ISO_OK && crowded(&s, w, k, out, *found);
        if (st == ISO_OK && visited) *visited = s.visited;
        search_end(&s);
    }
    return st;
}
