/* vindex_ivf.c: searching in an inverted file, and its payload; vindex_ivf_build.c makes it. */
#include "retriever/vindex_ivf.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/clones.h"
#include "base/memory.h"
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

enum { LOW, STEP, CENTROID_LOW, CENTROID_STEP, COV, MIDDLE, OFFSET, RADIUS, SCALE, BLUR, CENTER, TIGHT, CENTROID, POSITION, CODE, ROW, SECTIONS };

/* Bytes of each part; false where a number overflows. */
static bool sizes(int64_t count, int dim, int64_t lists, int cov_dim, size_t out[SECTIONS], size_t *total)
{
    const size_t n = (size_t)count, d = (size_t)dim, k = (size_t)lists, c = (size_t)cov_dim;
    const size_t items[SECTIONS] = {d, d, d, d, c * c, d, k + 1, k, k, k, k * d, k, k * d, n, 0, 0};
    const size_t bytes[SECTIONS] = {4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 1, 1, 4, 1, 2};
    *total = ISO_VINDEX_IVF_HEAD;
    if (count < 0 || count > INT32_MAX || lists < 1 || lists > INT32_MAX || dim < 1 || cov_dim < 0) return false;
    for (int i = 0; i < SECTIONS; i++) {
        size_t size = i >= CODE ? n * d : items[i];
        if (size > SIZE_MAX / 8 || __builtin_add_overflow(*total, aligned(size * bytes[i]), total)) return false;
        out[i] = size * bytes[i];
    }
    return true;
}

size_t iso_vindex_ivf_size(int64_t count, int dim, int64_t lists, int cov_dim)
{
    size_t parts[SECTIONS], total;
    return sizes(count, dim, lists, cov_dim, parts, &total) ? total : 0;
}

void iso_vindex_ivf_place(iso_vindex_ivf *x, const uint8_t *payload)
{
    size_t parts[SECTIONS], total;
    const void *at[SECTIONS];
    const uint8_t *p = payload + ISO_VINDEX_IVF_HEAD;
    (void)sizes(x->count, x->dim, x->lists, x->cov_dim, parts, &total);
    for (int i = 0; i < SECTIONS; i++, p += aligned(parts[i - 1])) at[i] = p;
    x->low = at[LOW];
    x->step = at[STEP];
    x->centroid_low = at[CENTROID_LOW];
    x->centroid_step = at[CENTROID_STEP];
    x->cov = at[COV];
    x->middle = at[MIDDLE];
    x->offset = at[OFFSET];
    x->radius = at[RADIUS];
    x->scale = at[SCALE];
    x->blur = at[BLUR];
    x->center = at[CENTER];
    x->tight = at[TIGHT];
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
    x->any_tight = false;
    if (x->pools < 1 || x->pools > ISO_VINDEX_IVF_POOLS_MOST) return "its candidates are too many or none";
    for (int d = 0; d < ISO_VINDEX_DEPTHS; d++)
        if (!(x->tolerance[d] >= 0 && x->tolerance[d] < 1e6)) return "its tolerance is out of range";
    if (x->offset[0] != 0 || x->offset[x->lists] != (uint64_t)x->count) return "its lists do not hold its vectors";
    for (int64_t l = 0; l < x->lists; l++) {
        if (x->offset[l + 1] < x->offset[l] || x->offset[l + 1] > (uint64_t)x->count)
            return "its lists are not in order";
        int64_t n = x->offset[l + 1] - x->offset[l];
        if (n > x->longest) x->longest = n;
        if (!(x->radius[l] >= 0 && x->radius[l] < 4)) return "the radius of a list is out of range";
        if (!(x->scale[l] >= 0 && x->scale[l] < 1e20f) || !(x->blur[l] >= 0 && x->blur[l] < 4)) return "the scale of a list is out of range";
        if (x->tight[l] > 1) return "a list is neither tight nor not";
        x->any_tight = x->any_tight || x->tight[l];
        sum += (double)x->radius[l] * (double)n;
    }
    if (!all_finite(x->low, (size_t)x->dim) || !all_finite(x->step, (size_t)x->dim) ||
        !all_finite(x->centroid_low, (size_t)x->dim) || !all_finite(x->centroid_step, (size_t)x->dim) ||
        !all_finite(x->cov, (size_t)x->cov_dim * (size_t)x->cov_dim) || !all_finite(x->middle, (size_t)x->dim) ||
        !all_finite(x->center, (size_t)x->lists * (size_t)x->dim))
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

int iso_vindex_ivf_depth(int64_t k) { return k <= 6 ? 0 : k <= 32 ? 1 : 2; }

int64_t iso_vindex_ivf_list(const iso_vindex_ivf *x, int64_t slot)
{
    int64_t low = 0, high = x->lists; /* the last list that begins at or before the slot: those before it may be empty */
    while (high - low > 1) {
        const int64_t middle = low + (high - low) / 2;
        if (x->offset[middle] <= (uint64_t)slot) low = middle;
        else high = middle;
    }
    return low;
}

ISO_CLONES static double dot(int dim, const float *a, const float *b)
{
    double sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int j = 0; j < dim; j++) sum += (double)a[j] * b[j];
    return sum;
}

/* ---- searching ---- */

/* One search: the query, what is known of the lists, and the best so far. */
typedef struct search {
    const iso_vindex_ivf *x;
    iso_ivf_query codes;  /* of the codes */
    double spread, least; /* deviation of a list of radius 1; what is added so that none is 0 */
    float *mean;          /* [lists] <w, c> - base; -INFINITY: searched */
    float *known;         /* [lists] the same of those searched */
    uint8_t *sharp;       /* [lists] of a tight list: mean is from c in full */
    double base, doubt;   /* about the largest <w, c>; how far a mean can be off that is from the codes of c */
    double square;        /* |w|^2 */
    double tolerance;
    float coarsest;       /* largest scale of a list searched */
    const float *w;
    void *room;           /* of a query */
    void *block;          /* all of these */
    float *scores;        /* [max(lists, longest)] */
    int32_t *order;       /* [lists] those left, and for each the bucket that it is in: */
    uint8_t *bucket;
    iso_ivf_pool pool; /* by the codes' scores: more than asked for, as those are rounded */
    int64_t visited;
} search;

static iso_status search_start(search *s, const iso_vindex_ivf *x, const float *w, int64_t pool, iso_error *err)
{
    size_t lists = (size_t)x->lists, longest = (size_t)(x->longest > x->lists ? x->longest : x->lists);
    memset(s, 0, sizeof *s);
    s->x = x;
    s->w = w;
    if (pool > x->count) pool = x->count;
    const size_t room = aligned(iso_ivf_query_room(x->dim)), bucket = aligned(lists + 8),
                 parts[] = {aligned(4 * lists), aligned(4 * lists), x->any_tight ? aligned(lists) : 0, room, aligned(4 * longest), aligned(4 * lists), bucket},
                 kept = aligned(iso_ivf_pool_room(pool));
    size_t all = kept;
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) all += parts[i];
    uint8_t *at = aligned_alloc(ISO_VINDEX_IVF_ALIGN, all);
    if (!at) return iso_fail_memory(err);
    s->block = at;
    s->mean = (float *)(void *)at;
    s->known = (float *)(void *)(at += parts[0]);
    s->sharp = at += parts[1];
    memset(s->sharp, 0, parts[2]);
    s->room = at += parts[2];
    s->scores = (float *)(void *)(at += parts[3]);
    s->order = (int32_t *)(void *)(at += parts[4]);
    s->bucket = at += parts[5];
    memset(s->bucket + lists, BUCKETS, bucket - lists);
    iso_ivf_pool_start(&s->pool, pool, at + bucket);
    return ISO_OK;
}

static void search_end(search *s) { free(s->block); }

/* Scores are kept less the best list's mean: in single precision what is left is as exact as it is small. */
ISO_CLONES static float take_base(int64_t lists, float *mean)
{
    float most = -INFINITY;
#pragma omp simd reduction(max : most)
    for (int64_t l = 0; l < lists; l++) most = mean[l] > most ? mean[l] : most;
    if (!isfinite(most)) return 0;
#pragma omp simd
    for (int64_t l = 0; l < lists; l++) mean[l] -= most;
    return most;
}

/* The lists' means, and how far the scores of one spread. */
static void look_at_lists(search *s)
{
    const iso_vindex_ivf *x = s->x;
    const float *w = s->w;
    const iso_ivf_query centroids = iso_ivf_query_make(x->dim, w, x->centroid_low, x->centroid_step, s->room);
    const iso_scan_query rows = {ISO_CODE_F32, x->cov_dim, w, 0};
    double variance = 0, off = 0;
    iso_ivf_scores_packed(&centroids, x->packed, x->centroid, x->lists, s->mean);
    s->base = take_base(x->lists, s->mean);
    s->codes = iso_ivf_query_make(x->dim, w, x->low, x->step, s->room);
    for (int j = 0; j < x->dim; j++) s->square += (double)w[j] * w[j];
    for (int j = 0; x->any_tight && j < x->dim; j++) off += (double)w[j] * w[j] * x->centroid_step[j] * x->centroid_step[j];
    s->doubt = 5 * sqrt(off / 12); /* deviations of so many roundings */
    variance = s->square / x->dim;
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
    s->least = 1e-6 * sqrt(s->square) + 1e-30;
}

static void sharpen(search *s, int64_t list)
{
    s->mean[list] = (float)(dot(s->x->dim, s->w, s->x->center + (size_t)list * (size_t)s->x->dim) - s->base);
    s->sharp[list] = 1;
}

/* The means of those tight lists that may hold a vector above t. */
static void sharpen_above(search *s, double t)
{
    const iso_vindex_ivf *x = s->x;
    for (int64_t l = 0; x->any_tight && l < x->lists; l++)
        if (x->tight[l] && !s->sharp[l] && s->mean[l] + s->doubt + LOWEST * s->spread * x->radius[l] >= t) sharpen(s, l);
}

/* next: the list that comes after it, -1 where that is not known. */
static void search_list(search *s, int64_t list, int64_t next)
{
    const iso_vindex_ivf *x = s->x;
    const size_t dim = (size_t)x->dim;
    int64_t first = x->offset[list], n = x->offset[list + 1] - first;
    if (x->tight[list] && !s->sharp[list]) sharpen(s, list);
    iso_ivf_scores(&s->codes, x->scale[list], s->mean[list], x->code + (size_t)first * dim, n, s->scores,
                   next >= 0 ? x->code + (size_t)x->offset[next] * dim : NULL);
    iso_ivf_pool_offer(&s->pool, s->scores, n, first);
    if (x->scale[list] > s->coarsest) s->coarsest = x->scale[list];
    s->known[list] = s->mean[list];
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
    sharpen_above(s, -s->doubt);
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
        for (uint64_t some = ~word & eight; some; some &= some - 1)
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
    if (s->tolerance == 0) { /* none is hopeless */
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
    const double t = iso_ivf_pool_least(&s->pool), allowed = s->tolerance > 0 ? s->tolerance * (double)s->pool.k : -1;
    const double unit = s->spread * x->radius_mean + s->least;
    sharpen_above(s, t);
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

/* How far the score of a vector of a list can be off. The error of a tight list is across c, where little of a query of its own is. */
static double blur_of(const search *s, int64_t list)
{
    const iso_vindex_ivf *x = s->x;
    const float *c = x->center + (size_t)list * (size_t)x->dim;
    const double along = dot(x->dim, s->w, c), length = dot(x->dim, c, c), across = s->square - (length > 0 ? along * along / length : 0);
    return x->blur[list] * (sqrt(across > 0 ? across : 0) + 1e-3 * sqrt(s->square));
}

/* How far the scores that are no lower than `least` can be off; where all are of tight lists, that is far less than what holds for all vectors. */
static void slack_of_tight(const search *s, const int32_t *at, const float *scores, int64_t n, float least, double *slack)
{
    const iso_vindex_ivf *x = s->x;
    const iso_scan_query rows = {ISO_CODE_F16, x->dim, s->w, 0};
    const double reach = sqrt(dot(x->dim, x->low, x->low));
    double blur = 0, length = 0, top = 0;
    for (int64_t i = 0, last = -1; i < n; i++) {
        const int64_t list = scores[i] >= least ? iso_vindex_ivf_list(x, at[i]) : last;
        if (list == last) continue;
        if (!x->tight[list]) return;
        blur = fmax(blur, blur_of(s, list));
        length = fmax(length, x->scale[list] * reach);
        top = fmax(top, fabsf(s->known[list]) + x->scale[list] * reach * sqrt(s->square));
        last = list;
    }
    /* the unit vectors themselves are rounded, too, each by itself */
    *slack = fmin(*slack, blur + iso_scan_slack(&rows, length) + top * 0x1p-22 + 0x1p-27 * sqrt(s->square));
}

/* The pool's scores from the 16-bit rows, and their positions. */
static iso_status finish(search *s, int64_t k, iso_ranked *out, int64_t *found, iso_vindex_scale *scale, iso_error *err)
{
    enum { FEW = 64 };
    const iso_vindex_ivf *x = s->x;
    const double middle = dot(x->dim, s->w, x->middle) - s->base;
    const iso_scan_query rows = {ISO_CODE_F16, x->dim, s->w, x->any_tight ? 0 : (float)middle};
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
    for (int64_t i = 0; x->any_tight && i < n; i++) {
        const int64_t list = iso_vindex_ivf_list(x, at[i]);
        scores[i] += x->tight[list] ? s->known[list] : (float)middle;
    }
    for (int64_t i = 0; st == ISO_OK && i < n; i++) {
        if (x->position[at[i]] >= (uint64_t)x->count)
            st = iso_fail(err, ISO_E_FORMAT, "the index names a position that it does not have: build it anew");
        position[i] = (int32_t)x->position[at[i]];
    }
    if (st == ISO_OK) {
        iso_best_offer(&best, scores, n, 0, position);
        iso_best_sort(&best);
        *found = best.count;
        scale->base = s->base;
    }
    if (st == ISO_OK && x->any_tight && best.count) slack_of_tight(s, at, scores, n, out[best.count - 1].score, &scale->slack);
    free(many);
    return st;
}
/* Whether vectors outside of the pool, whose codes score no better than its worst, could be better than the k-th. Many equal
 * vectors share one rounding, and can crowd all others out. */
static bool crowded(const search *s, int64_t k, const iso_ranked *out, int64_t found)
{
    const iso_vindex_ivf *x = s->x;
    double square = 0;
    if (s->pool.count < s->pool.k || s->pool.k == x->count || found < k) return false;
    for (int j = 0; j < x->dim; j++) square += (double)s->w[j] * s->w[j] * x->step[j] * x->step[j];
    return iso_ivf_pool_least(&s->pool) + 3 * s->coarsest * sqrt(square / 12) > out[k - 1].score;
}

iso_status iso_vindex_ivf_search(const iso_vindex_ivf *x, const float *w, int64_t k, iso_ranked *out, int64_t *found,
                                 iso_vindex_scale *scale, int64_t *visited, iso_error *err)
{
    enum { ROUNDS = 2 };
    search s;
    iso_status st = ISO_OK;
    bool more = true;
    int64_t pool = k + k / 4 + 8;
    pool = pool > x->count / x->pools ? x->count : pool * x->pools;
    for (int round = 0; st == ISO_OK && more && round < ROUNDS; round++, pool *= 4) {
        st = search_start(&s, x, w, pool, err);
        if (st == ISO_OK) {
            s.tolerance = x->tolerance[iso_vindex_ivf_depth(k)];
            look_at_lists(&s);
            st = search_first(&s, err);
        }
        if (st == ISO_OK) {
            search_on(&s);
            st = finish(&s, k, out, found, scale, err);
        }
        more = st == ISO_OK && crowded(&s, k, out, *found);
        if (st == ISO_OK && visited) *visited = s.visited;
        search_end(&s);
    }
    return st;
}
