/* vindex_tune.c: the queries by which the width of an approximate search is chosen, and what they should find. */
#include "retriever/vindex_tune.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/clones.h"
#include "base/memory.h"
#include "base/progress.h"

/* Kinds of queries, as people ask. A trait is what sets have in common: they are drawn from the items that lie farthest in some
 * direction, their counter-examples from those that lie farthest the other way. The best items of a trait, in the direction
 * that sets many examples apart, are the hardest to find. */
typedef struct kind {
    int queries, like, unlike;
    bool trait, contrast;
} kind;

static const kind kinds[] = {{32, 1, 0, false, false}, {128, 5, 0, false, false}, {64, 3, 2, false, false}, {32, 50, 0, false, true},
                             {32, 20, 0, true, true},  {32, 200, 0, true, true}, {32, 1000, 0, true, true}, {32, 200, 200, true, true},
                             {32, 1000, 1000, true, true}};

enum {
    KINDS = sizeof kinds / sizeof *kinds,
    DEPTHS = ISO_VINDEX_DEPTHS,
    AT = 10,
    DEEP = 64,
    WANTED = ISO_VINDEX_WANT(DEEP),
    SOME = 8,                     /* items on either side of a direction */
    KEPT = 256,                   /* best scores in single precision, among which the exact ones are found */
    POOL_MOST = 16384,            /* items that sets are drawn from */
    POOL_NUMBERS = 1 << 22
};
static const int depths[DEPTHS] = {1, AT, DEEP};
static const double GAMMA = 0.5, MORE_OF_ONE = 0.02;

struct iso_vindex_trial {
    iso_vindex *v;
    const iso_vindex_rows *rows;
    int dim, queries;
    int64_t count, pool_count, stride;
    float *pool;      /* [pool_count, dim] rows 0, stride, 2 stride ...; until there are queries */
    uint8_t *kind;    /* [queries] */
    float *query;     /* [queries, dim] */
    iso_ranked *near; /* [queries, KEPT] the best in single precision */
    int *kept;        /* [queries] how many there are */
    double *exact;    /* [queries, KEPT] their exact products */
    double *bar;      /* [queries, DEPTHS] what the last of the best has */
    double *rest;     /* [queries] no other vector has more */
};

void iso_vindex_trial_free(iso_vindex_trial *t)
{
    if (!t) return;
    free(t->pool);
    free(t->kind);
    free(t->query);
    free(t->near);
    free(t->kept);
    free(t->exact);
    free(t->bar);
    free(t->rest);
    free(t);
}

/* ---- the queries ---- */

static uint64_t mix64(uint64_t x)
{
    x += 0x9e3779b97f4a7c15u;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

/* One draw after the other. */
typedef struct draws { uint64_t seed; } draws;
static int64_t draw(draws *d, int64_t below) { return (int64_t)(mix64(d->seed++) % (uint64_t)below); }
static float draw_normal(draws *d)
{
    double sum = 0;
    for (int i = 0; i < 12; i++) sum += (double)(mix64(d->seed++) >> 11) * 0x1p-53;
    return (float)(sum - 6);
}

static void add_item(const iso_vindex_trial *t, int64_t item, double weight, double *mean)
{
    for (int j = 0; j < t->dim; j++) mean[j] += weight * t->pool[item * t->dim + j];
}

/* A direction for a trait, and each pooled item's place in it: what leads from an item to another, as what varies most does, or (three of four,
 * as they are the hardest) from some items to some others, as contrast sees it: what varies little has as much of it. Which items have a trait is
 * half a deviation of chance. room [3 dim]. */
static void choose_trait(const iso_vindex_trial *t, int number, const iso_scorer *scorer, draws *d, double *room, float *direction, float *place, double *mean, double *deviation)
{
    const int dim = t->dim;
    const int items = number % 4 ? SOME : 1;
    double *from = room, *to = room + dim, *w = room + 2 * dim, offset;
    iso_error why;
    memset(room, 0, sizeof *room * 2 * (size_t)dim);
    for (int i = 0; i < items; i++) {
        add_item(t, draw(d, t->pool_count), 1.0 / items, from);
        add_item(t, draw(d, t->pool_count), 1.0 / items, to);
    }
    for (int j = 0; j < dim; j++) direction[j] = (float)(to[j] - from[j]);
    if (items > 1 && scorer && iso_scorer_query(scorer, dim, t->count, to, 1, from, 1, w, &offset, &why) == ISO_OK) {
        double most = 0;
        for (int j = 0; j < dim; j++) most = fmax(most, fabs(w[j]));
        for (int j = 0; j < dim && most > 0; j++) direction[j] = (float)(w[j] / most);
    }
    const iso_scan_query along = {ISO_CODE_F32, dim, direction, 0};
    double sum = 0, square = 0;
    iso_scan_scores(&along, t->pool, t->pool_count, place);
    for (int64_t i = 0; i < t->pool_count; i++) sum += place[i];
    *mean = sum / (double)t->pool_count;
    for (int64_t i = 0; i < t->pool_count; i++) square += (place[i] - *mean) * (place[i] - *mean);
    *deviation = sqrt(square / (double)t->pool_count);
    for (int64_t i = 0; i < t->pool_count; i++) place[i] += 0.5f * (float)*deviation * draw_normal(d);
}

/* A pooled item with the trait, or with its opposite: one of about a quarter of all, or of a sixteenth. */
static int64_t draw_with(const iso_vindex_trial *t, int number, draws *d, const float *place, double mean, double deviation, int sign)
{
    enum { TRIES = 200 };
    const double far = number / 4 % 2 ? 1.71 : 0.75;
    int64_t item = 0;
    for (int i = 0; i < TRIES; i++) {
        item = draw(d, t->pool_count);
        if (sign * (place[item] - mean) >= far * deviation) break;
    }
    return item;
}

/* Query `number` of its kind. room: 3 dim doubles, floats of the pool and of dim. One that has no direction under contrast stays a mean. */
static void make_query(const iso_vindex_trial *t, int q, int number, const iso_scorer *scorer, double *room, float *place, float *direction)
{
    const kind *k = &kinds[t->kind[q]];
    const int dim = t->dim;
    double *like = room, *unlike = room + dim, *w = room + 2 * dim, mean = 0, deviation = 0, offset, square = 0;
    draws d = {(uint64_t)q << 32};
    iso_error why;
    if (k->trait) choose_trait(t, number, scorer, &d, room, direction, place, &mean, &deviation);
    memset(room, 0, sizeof *room * 3 * (size_t)dim);
    for (int i = 0; i < k->like; i++) add_item(t, k->trait ? draw_with(t, number, &d, place, mean, deviation, 1) : draw(&d, t->pool_count), 1.0 / k->like, like);
    for (int i = 0; i < k->unlike; i++)
        add_item(t, k->trait ? draw_with(t, number, &d, place, mean, deviation, -1) : draw(&d, t->pool_count), 1.0 / k->unlike, unlike);
    if (!k->contrast || !scorer || iso_scorer_query(scorer, dim, k->like, like, k->unlike, unlike, GAMMA, w, &offset, &why) != ISO_OK)
        for (int j = 0; j < dim; j++) w[j] = like[j] - GAMMA * unlike[j];
    for (int j = 0; j < dim; j++) square += w[j] * w[j];
    for (int j = 0; j < dim; j++) t->query[(int64_t)q * dim + j] = (float)(square > 0 ? w[j] / sqrt(square) : 0);
}

static iso_status make_queries(iso_vindex_trial *t, const iso_scorer *scorer, iso_error *err)
{
    iso_status st = ISO_OK;
#pragma omp parallel
    {
        double *room = iso_calloc((size_t)t->dim, 3 * sizeof *room);
        float *place = iso_calloc((size_t)t->pool_count + (size_t)t->dim, sizeof *place);
#pragma omp for schedule(dynamic)
        for (int q = 0; q < t->queries; q++) {
            int number = 0;
            while (q - number > 0 && t->kind[q - number - 1] == t->kind[q]) number++;
            if (room && place) make_query(t, q, number, scorer, room, place, place + t->pool_count);
        }
#pragma omp critical(iso_vindex_trial) /* an unnamed one would be the host's, too */
        if (!room || !place) st = ISO_E_MEMORY;
        free(room);
        free(place);
    }
    return st == ISO_OK ? ISO_OK : iso_fail_memory(err);
}

/* ---- their exact answers ---- */

typedef struct scoring {
    const iso_vindex_trial *t;
    iso_best *best; /* [queries] */
    float *scores;  /* [queries, ISO_VINDEX_CHUNK] */
} scoring;

static iso_status take_near(void *ctx, int64_t first, int64_t n, const float *unit, iso_error *err)
{
    scoring *s = ctx;
    const int dim = s->t->dim;
    (void)err;
#pragma omp parallel for schedule(dynamic, 8)
    for (int q = 0; q < s->t->queries; q++) {
        const iso_scan_query query = {ISO_CODE_F32, dim, s->t->query + (int64_t)q * dim, 0};
        float *scores = s->scores + (int64_t)q * ISO_VINDEX_CHUNK;
        iso_scan_scores(&query, unit, n, scores);
        iso_best_offer(&s->best[q], scores, n, first, NULL);
    }
    return ISO_OK;
}

static iso_status find_near(iso_vindex_trial *t, iso_error *err)
{
    scoring s = {.t = t, .best = iso_calloc((size_t)t->queries, sizeof *s.best), .scores = iso_calloc((size_t)t->queries, sizeof(float) * ISO_VINDEX_CHUNK)};
    iso_status st = s.best && s.scores ? ISO_OK : iso_fail_memory(err);
    for (int q = 0; st == ISO_OK && q < t->queries; q++)
        s.best[q] = (iso_best){.k = t->count < KEPT ? t->count : KEPT, .heap = t->near + (int64_t)q * KEPT};
    if (st == ISO_OK) st = iso_vindex_pass(t->v, t->rows, take_near, &s, err);
    for (int q = 0; st == ISO_OK && q < t->queries; q++) t->kept[q] = (int)s.best[q].count;
    free(s.best);
    free(s.scores);
    return st;
}

/* A vector whose exact product with a query is wanted. */
typedef struct pair {
    int64_t position;
    int query, number;
    double product;
} pair;

static int by_position(const void *a, const void *b)
{
    const pair *x = a, *y = b;
    if (x->position != y->position) return x->position < y->position ? -1 : 1;
    return x->query != y->query ? (x->query > y->query) - (x->query < y->query) : (x->number > y->number) - (x->number < y->number);
}

typedef struct pairs {
    const iso_vindex_trial *t;
    pair *pair; /* by position */
    int64_t n, at;
} pairs;

/* The same for equal vectors, to the last bit. */
ISO_CLONES static double product(int dim, const float *w, const float *z)
{
    double sum[4] = {0};
    int j = 0;
    for (; j + 4 <= dim; j += 4)
        for (int l = 0; l < 4; l++) sum[l] += (double)w[j + l] * z[j + l];
    for (; j < dim; j++) sum[0] += (double)w[j] * z[j];
    return (sum[0] + sum[1]) + (sum[2] + sum[3]);
}

static iso_status take_products(void *ctx, int64_t first, int64_t n, const float *unit, iso_error *err)
{
    pairs *p = ctx;
    const int dim = p->t->dim;
    int64_t end = p->at;
    (void)err;
    while (end < p->n && p->pair[end].position < first + n) end++;
#pragma omp parallel for
    for (int64_t i = p->at; i < end; i++)
        p->pair[i].product = product(dim, p->t->query + (int64_t)p->pair[i].query * dim, unit + (p->pair[i].position - first) * dim);
    p->at = end;
    return ISO_OK;
}

static iso_status find_products(const iso_vindex_trial *t, pair *pair, int64_t n, iso_error *err)
{
    pairs p = {t, pair, n, 0};
    qsort(pair, (size_t)n, sizeof *pair, by_position);
    return iso_vindex_pass(t->v, t->rows, take_products, &p, err);
}

static int descending(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x < y) - (x > y);
}

static iso_status find_exact(iso_vindex_trial *t, iso_error *err)
{
    int64_t n = 0;
    pair *all = iso_calloc((size_t)t->queries * KEPT, sizeof *all);
    if (!all) return iso_fail_memory(err);
    for (int q = 0; q < t->queries; q++)
        for (int i = 0; i < t->kept[q]; i++) all[n++] = (pair){t->near[(int64_t)q * KEPT + i].position, q, i, 0};
    iso_status st = find_products(t, all, n, err);
    for (int64_t i = 0; i < n; i++) t->exact[(int64_t)all[i].query * KEPT + all[i].number] = all[i].product;
    free(all);
    for (int q = 0; st == ISO_OK && q < t->queries; q++) {
        double sorted[KEPT];
        const int kept = t->kept[q];
        memcpy(sorted, t->exact + (int64_t)q * KEPT, sizeof *sorted * (size_t)kept);
        qsort(sorted, (size_t)kept, sizeof *sorted, descending);
        for (int d = 0; d < DEPTHS; d++) t->bar[q * DEPTHS + d] = sorted[(kept < depths[d] ? kept : depths[d]) - 1];
        t->rest[q] = kept == t->count ? -INFINITY : sorted[kept - 1] + iso_scan_slack(&(iso_scan_query){ISO_CODE_F32, t->dim, t->query + (int64_t)q * t->dim, 0}, 1.01);
    }
    return st;
}

static iso_status allocate(iso_vindex_trial *t, iso_error *err)
{
    for (int k = 0; k < KINDS; k++) t->queries += kinds[k].queries;
    const int64_t numbers = POOL_NUMBERS / t->dim, most = numbers < POOL_MOST ? numbers : POOL_MOST;
    const size_t n = (size_t)t->queries;
    t->stride = (t->count + most - 1) / most;
    t->pool_count = (t->count + t->stride - 1) / t->stride;
    t->pool = iso_calloc((size_t)t->pool_count, sizeof *t->pool * (size_t)t->dim);
    t->kind = iso_calloc(n, 1);
    t->query = iso_calloc(n, sizeof *t->query * (size_t)t->dim);
    t->near = iso_calloc(n * KEPT, sizeof *t->near);
    t->exact = iso_calloc(n * KEPT, sizeof *t->exact);
    t->kept = iso_calloc(n, sizeof *t->kept);
    t->bar = iso_calloc(n * DEPTHS, sizeof *t->bar);
    t->rest = iso_calloc(n, sizeof *t->rest);
    if (!t->pool || !t->kind || !t->query || !t->near || !t->exact || !t->kept || !t->bar || !t->rest) return iso_fail_memory(err);
    for (int k = 0, q = 0; k < KINDS; k++)
        for (int i = 0; i < kinds[k].queries; i++) t->kind[q++] = (uint8_t)k;
    return ISO_OK;
}

iso_status iso_vindex_trial_create(iso_vindex *v, const iso_vindex_rows *rows, iso_vindex_trial **out, iso_error *err)
{
    iso_vindex_trial *t = iso_calloc(1, sizeof *t);
    if (!t) return iso_fail_memory(err);
    t->v = v;
    t->rows = rows;
    t->dim = v->info.source.dim;
    t->count = rows->count;
    iso_status st = allocate(t, err);
    if (st == ISO_OK) st = iso_vindex_pass(v, rows, iso_vindex_take_sample, &(iso_vindex_sample){t->dim, t->stride, t->pool}, err);
    if (st == ISO_OK) st = make_queries(t, rows->scorer, err);
    free(t->pool);
    t->pool = NULL;
    if (st == ISO_OK) st = find_near(t, err);
    if (st == ISO_OK) st = find_exact(t, err);
    if (st == ISO_OK)
        *out = t;
    else
        iso_vindex_trial_free(t);
    return st;
}

/* ---- recall ---- */

typedef struct tally {
    int64_t *hits;   /* [queries, DEPTHS] */
    iso_ranked *got; /* [queries, DEPTHS, WANTED] */
    int64_t *found;  /* [queries, DEPTHS] */
} tally;

static int64_t depth_of(const iso_vindex_trial *t, int d) { return depths[d] < t->count ? depths[d] : t->count; }

static iso_status search_all(const iso_vindex_trial *t, iso_vindex_trial_search *search, void *ctx, tally *a, iso_error *err)
{
    iso_status st = ISO_OK;
#pragma omp parallel for schedule(dynamic)
    for (int i = 0; i < DEPTHS * t->queries; i++) {
        const int64_t k = depth_of(t, i % DEPTHS), want = ISO_VINDEX_WANT(k);
        iso_error mine;
        if (iso_interrupted()) continue;
        const iso_status s = search(ctx, t->query + (int64_t)(i / DEPTHS) * t->dim, want < t->count ? want : t->count, a->got + (int64_t)i * WANTED, &a->found[i], &mine);
        if (s == ISO_OK) continue;
#pragma omp critical(iso_vindex_trial)
        {
            if (st == ISO_OK && err) *err = mine;
            st = s;
        }
    }
    return st == ISO_OK && iso_interrupted() ? iso_fail(err, ISO_E_INTERRUPTED, "interrupted while the index was tuned") : st;
}

/* Counts what is known to be among the best; what is not known, and may be, becomes a pair. */
static iso_status count_known(const iso_vindex_trial *t, tally *a, pair **unknown, int64_t *n, iso_error *err)
{
    size_t room = 0;
    *n = 0;
    for (int i = 0; i < DEPTHS * t->queries; i++) {
        const int q = i / DEPTHS;
        for (int64_t j = 0; j < a->found[i]; j++) {
            const int64_t position = a->got[(int64_t)i * WANTED + j].position;
            const iso_ranked *near = t->near + (int64_t)q * KEPT;
            int at = 0;
            while (at < t->kept[q] && near[at].position != position) at++;
            if (at < t->kept[q]) a->hits[i] += t->exact[(int64_t)q * KEPT + at] >= t->bar[i];
            else if (t->rest[q] >= t->bar[i]) {
                if (!iso_grow(unknown, &room, (size_t)*n + 1, sizeof **unknown)) return iso_fail_memory(err);
                (*unknown)[(*n)++] = (pair){position, q, i, 0};
            }
        }
    }
    return ISO_OK;
}

iso_status iso_vindex_trial_recall(iso_vindex_trial *t, iso_vindex_trial_search *search, void *ctx, double least[ISO_VINDEX_DEPTHS],
                                   bool enough[ISO_VINDEX_DEPTHS], iso_error *err)
{
    const size_t searches = (size_t)t->queries * DEPTHS;
    tally a = {iso_calloc(searches, sizeof *a.hits), iso_calloc(searches * WANTED, sizeof *a.got), iso_calloc(searches, sizeof *a.found)};
    pair *unknown = NULL;
    int64_t n = 0;
    double low[DEPTHS] = {1, 1, 1};
    iso_status st = a.hits && a.got && a.found ? search_all(t, search, ctx, &a, err) : iso_fail_memory(err);
    if (st == ISO_OK) st = count_known(t, &a, &unknown, &n, err);
    if (st == ISO_OK && n) st = find_products(t, unknown, n, err);
    for (int64_t i = 0; st == ISO_OK && i < n; i++) a.hits[unknown[i].number] += unknown[i].product >= t->bar[unknown[i].number];
    for (int d = 0; st == ISO_OK && d < DEPTHS; d++) {
        double sum = 0, most = 0;
        for (int k = 0, q = 0; k < KINDS; k++) {
            for (int i = 0; i < kinds[k].queries; i++, q++) sum += fmin((double)a.hits[q * DEPTHS + d], (double)depth_of(t, d));
            most += (double)(kinds[k].queries * depth_of(t, d));
            if (d == 0 && k > 0 && k + 1 < KINDS && kinds[k].contrast == kinds[k + 1].contrast) continue; /* a kind's single answers are few: all sums, all contrast */
            low[d] = fmin(low[d], sum / most);
            sum = most = 0;
        }
    }
    free(unknown);
    free(a.hits);
    free(a.got);
    free(a.found);
    if (st != ISO_OK) return st;
    for (int d = 0; d < DEPTHS; d++) {
        least[d] = low[d];
        enough[d] = low[d] >= ISO_VINDEX_RECALL + (d == 0 ? MORE_OF_ONE : 0);
    }
    return ISO_OK;
}
