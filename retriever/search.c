/* search.c: the query vector, and the k best: candidates from the index, scored again exactly. */
#include "retriever/searcher.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "model/cpu/cpu.h"

/* ---- the query vector ---- */

iso_status iso_searcher_query(iso_searcher *s, iso_scoring scoring, int64_t n, const float *positives, int64_t k, const float *negatives, double gamma, double *w, double *offset, iso_error *err)
{
    const iso_scorer *scorer = NULL;
    if (scoring != ISO_SUM && scoring != ISO_CONTRAST) return iso_fail(err, ISO_E_ARGUMENT, "no such scorer: %d", (int)scoring);
    if (n < 1 || k < 0) return iso_fail(err, ISO_E_ARGUMENT, "a query needs at least one example");
    double *like = iso_calloc((size_t)s->dim, 2 * sizeof *like), *unlike = k ? like + s->dim : NULL;
    iso_status st = like ? ISO_OK : iso_fail_memory(err);
    if (st == ISO_OK) st = iso_unit_mean(s->dim, n, positives, "positive", like, err);
    if (st == ISO_OK && k) st = iso_unit_mean(s->dim, k, negatives, "negative", unlike, err);
    if (st == ISO_OK && scoring == ISO_CONTRAST) st = iso_searcher_scorer(s, &scorer, err);
    if (st == ISO_OK) st = iso_scorer_query(scorer, s->dim, n, like, k, unlike, gamma, w, offset, err);
    free(like);
    return st;
}

/* ---- candidates ---- */

typedef struct hits {
    iso_hit *hit;
    size_t count, capacity;
} hits;

typedef struct query {
    iso_searcher *s;
    iso_txn *txn;
    const double *w;
    const float *w_single;  /* the index's copy */
    double norm, offset;
    int64_t k, skips;
    const uint64_t *skip;
} query;

/* Cosine times |w|. Four sums in a fixed order: equal vectors score equal to the last bit wherever they lie. */
ISO_CLONES static double score_of(const double *w, const float *z, int dim)
{
    double dot[4] = {0}, square[4] = {0};
    int j = 0;
    for (; j + 4 <= dim; j += 4)
        for (int l = 0; l < 4; l++) {
            dot[l] += w[j + l] * z[j + l];
            square[l] += (double)z[j + l] * z[j + l];
        }
    for (; j < dim; j++) {
        dot[0] += w[j] * z[j];
        square[0] += (double)z[j] * z[j];
    }
    double length = (square[0] + square[1]) + (square[2] + square[3]);
    return length > 0 ? ((dot[0] + dot[1]) + (dot[2] + dot[3])) / sqrt(length) : 0;
}

static int compare_hits(const void *a, const void *b)
{
    const iso_hit *x = a, *y = b;
    if (x->score != y->score) return x->score > y->score ? -1 : 1;
    return x->id < y->id ? -1 : x->id > y->id;
}

static int compare_ids(const void *a, const void *b)
{
    const uint64_t *x = a, *y = b;
    return *x < *y ? -1 : *x > *y;
}

static bool skipped(const query *q, uint64_t id)
{
    return q->skips > 0 && bsearch(&id, q->skip, (size_t)q->skips, sizeof id, compare_ids) != NULL;
}

static iso_status damaged_item(const query *q, uint64_t id, iso_error *err)
{
    return iso_fail(err, ISO_E_FORMAT, "item %llu of %s has a vector that is not finite: see 'indexer verify'", (unsigned long long)id, iso_store_dir(q->s->store));
}

static iso_status take(const query *q, hits *list, uint64_t id, const float *z, iso_error *err)
{
    if (skipped(q, id)) return ISO_OK;
    double score = score_of(q->w, z, q->s->dim) - q->offset;
    if (!isfinite(score)) return damaged_item(q, id, err);
    if (!iso_grow(&list->hit, &list->capacity, list->count + 1, sizeof *list->hit)) return iso_fail_memory(err);
    list->hit[list->count++] = (iso_hit){id, score};
    return ISO_OK;
}

/* Scores an item from LMDB; one that is gone since is passed over. */
static iso_status take_stored(const query *q, hits *list, uint64_t id, iso_error *err)
{
    const float *z;
    iso_status st = iso_item_vector(q->txn, id, &z, err);
    if (st == ISO_E_NOT_FOUND) return ISO_OK;
    return st == ISO_OK ? take(q, list, id, z, err) : st;
}

/* Items that the index does not know. */
static iso_status take_extras(const query *q, hits *list, iso_error *err)
{
    const iso_searcher *s = q->s;
    iso_store_info info;
    iso_status st = iso_store_info_get(q->txn, &info, err);
    for (int64_t i = 0; st == ISO_OK && i < s->extras; i++) {
        if (info.generation != s->generation) st = take_stored(q, list, s->extra_id[i], err); /* some may be gone */
        else st = take(q, list, s->extra_id[i], s->extra + i * s->dim, err);
    }
    return st;
}

/* Every item of the database, without the index. */
static iso_status take_all(const query *q, hits *list, iso_error *err)
{
    iso_cursor *c = NULL;
    iso_item item;
    const float *z;
    list->count = 0;
    iso_status st = iso_cursor_open(q->txn, 0, &c, err);
    while (st == ISO_OK) {
        st = iso_cursor_next(c, &item, &z, err);
        if (st == ISO_OK) st = take(q, list, item.id, z, err);
    }
    iso_cursor_close(c);
    return st == ISO_E_NOT_FOUND ? ISO_OK : st;
}

/* Finding out where the vectors lie is worth it when many have been looked up. Not waited for: who has the lock may wait for this transaction's end. */
static void use_places(iso_searcher *s, iso_txn *txn)
{
    enum { SHARE = 256 };
    if (!s->places && s->looked_up < iso_vindex_count(s->index) / SHARE) return;
    if (!s->places && !pthread_mutex_trylock(&s->lock)) {
        iso_places *found = NULL;
        if (!s->places && s->looked_up >= 0) {
            if (iso_places_find(txn, &found, NULL) == ISO_OK) s->places = found;
            else s->looked_up = INT64_MIN; /* never */
        }
        pthread_mutex_unlock(&s->lock);
    }
    (void)iso_txn_use_places(txn, s->places);
}

/* Candidates of the index, best first, `scores` its own, wrong by `slack` at most. Those that cannot be among the k best any
 * more are not looked up. The vectors of some are on their way from memory at a time. */
static iso_status take_candidates(const query *q, hits *list, int64_t n, const uint64_t *ids, const float *scores, double slack, iso_error *err)
{
    enum { BATCH = 16, AHEAD = 2 * BATCH };
    const size_t k = (size_t)q->k, bytes = sizeof(float) * (size_t)q->s->dim;
    double least = -INFINITY; /* the k-th best score is no lower */
    size_t known = 0;
    int64_t i = 0;
    for (int64_t ahead = 0; i < n;) {
        const float *z[BATCH];
        uint64_t id[BATCH];
        int some = 0, most = list->count + BATCH <= k ? BATCH : list->count < k ? (int)(k - list->count) : 1;
        for (; known < list->count && known < k; known++)
            if (known == 0 || list->hit[known].score < least) least = list->hit[known].score;
        for (; i < n && some < most; i++) {
            if (known == k && scores[i] * q->norm - q->offset + slack < least) {
                n = i;
                break;
            }
            for (; ahead < n && ahead < i + AHEAD; ahead++) iso_item_vector_ahead(q->txn, ids[ahead]);
            iso_status st = iso_item_vector(q->txn, ids[i], &z[some], err);
            if (st == ISO_E_NOT_FOUND) continue; /* gone since */
            if (st != ISO_OK) return st;
            for (size_t b = 0; b < bytes && b < 4096; b += 64) __builtin_prefetch((const char *)z[some] + b);
            id[some++] = ids[i];
        }
        for (int j = 0; j < some; j++) {
            iso_status st = take(q, list, id[j], z[j], err);
            if (st != ISO_OK) return st;
        }
    }
    if (!q->s->places) q->s->looked_up += i;
    return ISO_OK;
}

/* Asks the index for more and more until the k best are certain. Of an approximate index they are never, but those that its rounded vectors do not
 * tell apart are all scored exactly, unless they are very many: where vectors lie close together, ranks are a matter of that rounding. */
static iso_status take_from_index(const query *q, hits *list, bool *exact, iso_error *err)
{
    enum { WIDENED_MOST = 4 }; /* times 4 */
    iso_vindex_info info;
    iso_vindex_info_get(q->s->index, &info);
    const size_t extras = list->count;
    const double slack = iso_vindex_slack(q->s->index, q->w_single) * q->norm + q->norm * 0x1p-22; /* w and the unit vectors are rounded, too */
    int64_t want = info.error > 1e-3 ? 4 * q->k + 64 : info.approximate ? q->k + q->k / 8 + 2 : info.error > 0 ? 2 * q->k + 64 : q->k + 32;
    uint64_t *ids = NULL; /* and behind them their scores */
    int widened = 0;
    iso_status st = ISO_OK;
    want += q->skips + (q->s->removed < 1024 ? q->s->removed : 1024);
    *exact = !info.approximate;
    for (;; want *= 4, widened++) {
        int64_t got;
        if (want > info.count / 2 && want > 256) { /* as cheap without the index, and certain */
            *exact = true;
            st = take_all(q, list, err);
            break;
        }
        if (want > info.count) want = info.count;
        free(ids);
        ids = iso_calloc((size_t)want, sizeof *ids + sizeof(float));
        if (!ids || !iso_grow(&list->hit, &list->capacity, extras + (size_t)(want < 64 ? want : 64), sizeof *list->hit)) {
            st = iso_fail_memory(err);
            break;
        }
        float *scores = (float *)(void *)(ids + want);
        list->count = extras;
        st = iso_vindex_search(q->s->index, q->w_single, want, ids, scores, &got, err);
        if (st == ISO_OK) st = take_candidates(q, list, got, ids, scores, slack, err);
        if (st != ISO_OK || (want == info.count && !info.approximate)) break;
        bool enough = list->count >= (size_t)q->k;
        if (enough && info.approximate && (info.error == 0 || widened == WIDENED_MOST)) break;
        if (enough && got > 0) {
            qsort(list->hit, list->count, sizeof *list->hit, compare_hits);
            if (list->hit[q->k - 1].score > scores[got - 1] * q->norm - q->offset + slack) break;
            list->count = 0; /* sorting mixed the extras in */
            st = take_extras(q, list, err);
            if (st != ISO_OK) break;
        }
        if (want == info.count) { /* approximate, and it cannot find enough */
            *exact = true;
            st = take_all(q, list, err);
            break;
        }
    }
    free(ids);
    return st;
}

iso_status iso_search(iso_searcher *s, const double *w, double offset, int64_t k, int64_t skips, const uint64_t *skip, iso_hit *out, int64_t *found, bool *exact, iso_error *err)
{
    hits list = {0};
    bool certain = true;
    query q = {.s = s, .w = w, .offset = offset, .k = k, .skips = skips, .skip = skip};
    if (k < 1) return iso_fail(err, ISO_E_ARGUMENT, "k must be at least 1");
    for (int j = 0; j < s->dim; j++) q.norm += w[j] * w[j];
    q.norm = sqrt(q.norm);
    if (!isfinite(q.norm) || !(q.norm > 0)) return iso_fail(err, ISO_E_NUMERIC, "the query vector is zero or not finite");
    float *single = iso_calloc((size_t)s->dim, sizeof *single);
    if (!single) return iso_fail_memory(err);
    for (int j = 0; j < s->dim; j++) single[j] = (float)(w[j] / q.norm); /* of any length w may have: a float may not hold it */
    q.w_single = single;
    iso_status st = iso_txn_begin(s->store, false, &q.txn, err);
    if (st != ISO_OK) {
        free(single);
        return st;
    }
    use_places(s, q.txn);
    st = take_extras(&q, &list, err);
    if (st == ISO_OK && (uint64_t)k > (uint64_t)INT64_MAX / 32) st = take_all(&q, &list, err);
    else if (st == ISO_OK && iso_vindex_count(s->index) > 0) st = take_from_index(&q, &list, &certain, err);
    iso_txn_abort(q.txn);
    if (st == ISO_OK) {
        if (list.count) qsort(list.hit, list.count, sizeof *list.hit, compare_hits);
        *found = list.count < (size_t)k ? (int64_t)list.count : k;
        if (*found) memcpy(out, list.hit, sizeof *out * (size_t)*found);
        *exact = certain;
    }
    free(list.hit);
    free(single);
    return st;
}
