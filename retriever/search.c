/* search.c: the query vector, and the k best: candidates from the index, scored again exactly. */
#include "retriever/searcher.h"

#include <math.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>

#include "base/clones.h"
#include "base/memory.h"
#include "retriever/scan.h"

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

/* ---- the k best by their exact scores ---- */

/* A heap with the worst on top; it grows to k. */
typedef struct best {
    iso_hit *hit;
    size_t count, room, k;
} best;

typedef struct query {
    iso_searcher *s;
    iso_txn *txn;
    bool placed;            /* the transaction has places */
    iso_places *places;     /* of this query alone, where the searcher had none for it */
    const double *w;
    const float *w_single;  /* the index's copy */
    double norm, offset;
    int64_t k, skips;
    const uint64_t *skip;
} query;

static bool better(const iso_hit *a, const iso_hit *b) { return a->score != b->score ? a->score > b->score : a->id < b->id; }

static int compare_hits(const void *a, const void *b)
{
    const iso_hit *x = a, *y = b;
    return better(x, y) ? -1 : better(y, x);
}

/* The k-th best score so far: nothing below it is an answer. */
static double least_of(const best *b) { return b->count < b->k ? -INFINITY : b->hit[0].score; }

/* Puts x into the empty place at the top and moves it down. */
static void sink(iso_hit *heap, size_t count, iso_hit x)
{
    size_t i = 0;
    for (size_t child; (child = 2 * i + 1) < count; i = child) {
        if (child + 1 < count && better(&heap[child], &heap[child + 1])) child++;
        if (!better(&x, &heap[child])) break;
        heap[i] = heap[child];
    }
    heap[i] = x;
}

static iso_status keep(best *b, iso_hit x, iso_error *err)
{
    if (b->count == b->k) {
        if (better(&x, &b->hit[0])) sink(b->hit, b->count, x);
        return ISO_OK;
    }
    if (!iso_grow(&b->hit, &b->room, b->count + 1, sizeof *b->hit)) return iso_fail_memory(err);
    size_t i = b->count++;
    for (; i && better(&b->hit[(i - 1) / 2], &x); i = (i - 1) / 2) b->hit[i] = b->hit[(i - 1) / 2];
    b->hit[i] = x;
    return ISO_OK;
}

static iso_status keep_all(best *b, const best *from, iso_error *err)
{
    iso_status st = ISO_OK;
    for (size_t i = 0; st == ISO_OK && i < from->count; i++) st = keep(b, from->hit[i], err);
    return st;
}

typedef double four __attribute__((vector_size(32)));
typedef float four_single __attribute__((vector_size(16)));

/* Cosine times |w|. Four sums in a fixed order: equal vectors score equal to the last bit wherever they lie. (gcc 12 does not make vectors of them by itself.) */
ISO_CLONES static double score_of(const double *w, const float *z, int dim)
{
    four dot = {0}, square = {0};
    int j = 0;
    for (; j + 4 <= dim; j += 4) {
        four_single single;
        four weight;
        memcpy(&single, z + j, sizeof single);
        memcpy(&weight, w + j, sizeof weight);
        const four number = __builtin_convertvector(single, four);
        dot += weight * number;
        square += number * number;
    }
    for (; j < dim; j++) {
        dot[0] += w[j] * z[j];
        square[0] += (double)z[j] * z[j];
    }
    const double length = (square[0] + square[1]) + (square[2] + square[3]);
    return length == 0 ? 0 : ((dot[0] + dot[1]) + (dot[2] + dot[3])) / sqrt(length); /* not a number where one of z is not */
}

static bool skipped(const query *q, uint64_t id)
{
    return q->skips > 0 && bsearch(&id, q->skip, (size_t)q->skips, sizeof id, iso_ids_order) != NULL;
}

static iso_status take(const query *q, best *b, uint64_t id, const float *z, iso_error *err)
{
    const iso_hit x = {id, score_of(q->w, z, q->s->dim) - q->offset};
    if (isfinite(x.score) && b->count == b->k && !better(&x, &b->hit[0])) return ISO_OK;
    if (skipped(q, id)) return ISO_OK;
    if (isfinite(x.score)) return keep(b, x, err);
    return iso_fail(err, ISO_E_FORMAT, "item %llu of %s has a vector that is not finite: see 'indexer verify'", (unsigned long long)id, iso_store_dir(q->s->store));
}

/* ---- all items of the index and the extras, without the index ---- */

/* What the threads take items from, in turns. */
typedef struct walk {
    pthread_mutex_t lock; /* over all of it, and over the transaction */
    iso_cursor *cursor;   /* NULL: the transaction has places, by which each thread finds what it has taken */
    int64_t at, end;      /* positions: those of the index, then those of the extras */
    int64_t failed;       /* the first of them that something is wrong with; -1: none */
    iso_error why;
} walk;

enum { BLOCK = 256, AHEAD = 16 };

static uint64_t id_at(const iso_searcher *s, int64_t position)
{
    const int64_t count = iso_vindex_count(s->known.index);
    return position < count ? iso_vindex_id(s->known.index, position) : s->known.extra_id[position - count];
}

static void fail_at(walk *w, int64_t position, const iso_error *why)
{
    if (w->failed >= 0 && w->failed < position) return;
    w->failed = position;
    w->why = *why;
}

/* The next items, [BLOCK] of each, and the position of the first. Those of the cursor are fewer where some are gone, and have lower positions then. */
static int next_block(const query *q, walk *w, uint64_t *id, const float **z, int64_t *first)
{
    iso_error why = {0};
    iso_item item;
    int n = 0;
    *first = w->at;
    if (w->failed >= 0 || w->at >= w->end) return 0;
    if (!w->cursor) {
        const int64_t left = w->end - w->at;
        for (const int most = left < BLOCK ? (int)left : BLOCK; n < most; n++) id[n] = id_at(q->s, w->at + n);
        w->at += n;
        return n;
    }
    const uint64_t last = id_at(q->s, w->end - 1);
    while (n < BLOCK && w->at < w->end) {
        iso_status st = iso_cursor_next(w->cursor, &item, &z[n], &why);
        if (st == ISO_E_NOT_FOUND || (st == ISO_OK && item.id > last)) w->end = w->at;
        else if (st != ISO_OK) {
            fail_at(w, w->at, &why);
            break;
        } else {
            id[n++] = item.id;
            w->at++;
        }
    }
    return n;
}

/* NULL: gone since. */
static iso_status vector_of(const query *q, walk *w, uint64_t id, const float **z, iso_error *err)
{
    *z = iso_places_vector(q->txn, id);
    if (*z) return ISO_OK;
    pthread_mutex_lock(&w->lock);
    iso_status st = iso_item_vector(q->txn, id, z, err);
    pthread_mutex_unlock(&w->lock);
    if (st != ISO_E_NOT_FOUND) return st;
    *z = NULL;
    return ISO_OK;
}

static void take_blocks(const query *q, walk *w, best *b)
{
    best mine = {.k = b->k};
    iso_error why = {0};
    for (bool more = true; more;) {
        uint64_t id[BLOCK];
        const float *z[BLOCK];
        int64_t first;
        iso_status st = ISO_OK;
        int i = 0;
        pthread_mutex_lock(&w->lock);
        const int n = next_block(q, w, id, z, &first);
        pthread_mutex_unlock(&w->lock);
        for (int ahead = 0; i < n; i++) {
            for (; ahead < n && ahead < i + AHEAD; ahead++) iso_item_vector_ahead(q->txn, id[ahead]);
            if (!w->cursor) st = vector_of(q, w, id[i], &z[i], &why);
            if (st == ISO_OK && z[i]) st = take(q, &mine, id[i], z[i], &why);
            if (st != ISO_OK) break;
        }
        more = n > 0 && st == ISO_OK;
        if (st == ISO_OK) continue;
        pthread_mutex_lock(&w->lock);
        fail_at(w, first + i, &why);
        pthread_mutex_unlock(&w->lock);
    }
    pthread_mutex_lock(&w->lock);
    if (keep_all(b, &mine, &why) != ISO_OK) fail_at(w, INT64_MAX, &why);
    pthread_mutex_unlock(&w->lock);
    free(mine.hit);
}

/* The k best of the items at positions from `from` on, and of what b has already. Each thread keeps the best of those that it gets, so the answer is
 * the same whatever their number; so is the item that an error names. */
static iso_status take_items(query *q, best *b, int64_t from, iso_error *err)
{
    enum { EACH = 4 * BLOCK }; /* items worth waking up a thread for */
    walk w = {.lock = PTHREAD_MUTEX_INITIALIZER, .at = from, .end = iso_vindex_count(q->s->known.index) + q->s->known.extras, .failed = -1};
    const int64_t most = 1 + (w.end - from) / EACH, threads = omp_get_max_threads();
    iso_status st = ISO_OK;
    if (from >= w.end) return ISO_OK;
    if (!q->placed && iso_places_find(q->txn, &q->places) == ISO_OK) q->placed = iso_txn_use_places(q->txn, q->places);
    if (!q->placed) st = iso_cursor_open(q->txn, id_at(q->s, from), &w.cursor, err);
    if (st != ISO_OK) return st;
#pragma omp parallel num_threads((int)(threads < most ? threads : most))
    take_blocks(q, &w, b);
    iso_cursor_close(w.cursor);
    pthread_mutex_destroy(&w.lock);
    if (w.failed < 0) return ISO_OK;
    if (err) *err = w.why;
    return w.why.status;
}

static iso_status take_all(query *q, best *b, iso_error *err)
{
    b->count = 0;
    return take_items(q, b, 0, err);
}

/* ---- candidates ---- */

/* Finding out where the vectors lie is worth it when many have been looked up. Not waited for: who has the lock may wait for this transaction's end. */
static bool use_places(iso_searcher *s, iso_txn *txn)
{
    enum { SHARE = 256 };
    if (!s->places && s->looked_up < iso_vindex_count(s->known.index) / SHARE) return false;
    if (!s->places && !pthread_mutex_trylock(&s->lock)) {
        iso_places *found = NULL;
        if (!s->places && s->looked_up >= 0) {
            if (iso_places_find(txn, &found) == ISO_OK) s->places = found;
            else s->looked_up = INT64_MIN; /* never */
        }
        pthread_mutex_unlock(&s->lock);
    }
    return iso_txn_use_places(txn, s->places);
}

/* Some candidates, best first, `scores` their own, wrong by `slack` at most. Those that cannot be among the k best any more are not looked up.
 * The vectors of some are on their way from memory at a time. */
static iso_status take_candidates(const query *q, best *b, int64_t n, const uint64_t *ids, const double *scores, double slack, iso_error *err)
{
    enum { BATCH = 16, BATCHES_AHEAD = 2 * BATCH };
    const size_t bytes = sizeof(float) * (size_t)q->s->dim;
    int64_t i = 0;
    for (int64_t ahead = 0; i < n;) {
        const float *z[BATCH];
        uint64_t id[BATCH];
        const double least = least_of(b);
        int some = 0, most = i + BATCH <= q->k ? BATCH : i < q->k ? (int)(q->k - i) : 1; /* about k are looked up anyway */
        for (; i < n && some < most; i++) {
            if (scores[i] * q->norm - q->offset + slack < least) {
                n = i;
                break;
            }
            for (; ahead < n && ahead < i + BATCHES_AHEAD; ahead++) iso_item_vector_ahead(q->txn, ids[ahead]);
            iso_status st = iso_item_vector(q->txn, ids[i], &z[some], err);
            if (st == ISO_E_NOT_FOUND) continue; /* gone since */
            if (st != ISO_OK) return st;
            for (size_t at = 0; at < bytes && at < 4096; at += 64) __builtin_prefetch((const char *)z[some] + at);
            id[some++] = ids[i];
        }
        for (int j = 0; j < some; j++) {
            iso_status st = take(q, b, id[j], z[j], err);
            if (st != ISO_OK) return st;
        }
    }
    if (!q->s->places) q->s->looked_up += i;
    return ISO_OK;
}

/* Whether nothing that scored no better than `score`, but for the slack, can be among the k best. */
static bool proved(const query *q, const best *b, double score, double slack)
{
    return b->count == b->k && b->hit[0].score > score * q->norm - q->offset + slack;
}

/* What a score by single-precision vectors of length 1 may be wrong by, beside its own slack: they are rounded, and so is w. */
static double rounding(const query *q) { return q->norm * 0x1p-22; }

/* Items that the index does not know: as a flat index finds them, or all of them scored exactly where many cannot be told apart. */
static iso_status take_extras(query *q, best *b, iso_error *err)
{
    const iso_searcher *s = q->s;
    if (s->known.extras == 0) return ISO_OK;
    const iso_scan_query scan = {ISO_CODE_F32, s->dim, q->w_single, 0};
    const double slack = iso_scan_slack(&scan, 1 + 1e-6) * q->norm + rounding(q);
    int64_t want = q->k < s->known.extras ? q->k + q->skips + 32 : s->known.extras, got = 0;
    if (want > s->known.extras) want = s->known.extras;
    iso_ranked *ranked = iso_calloc((size_t)want, sizeof *ranked + sizeof(uint64_t) + sizeof(double));
    if (!ranked) return iso_fail_memory(err);
    uint64_t *ids = (uint64_t *)(void *)(ranked + want);
    double *scores = (double *)(void *)(ids + want);
    iso_status st = iso_scan_best(&scan, s->known.extra, s->known.extras, want, ranked, &got, err);
    for (int64_t i = 0; st == ISO_OK && i < got; i++) {
        ids[i] = s->known.extra_id[ranked[i].position];
        scores[i] = ranked[i].score;
    }
    if (st == ISO_OK) st = take_candidates(q, b, got, ids, scores, slack, err);
    if (st == ISO_OK && got < s->known.extras && !proved(q, b, scores[got - 1], slack)) {
        b->count = 0;
        st = take_items(q, b, iso_vindex_count(s->known.index), err);
    }
    free(ranked);
    return st;
}

/* Asks the index for more and more until the k best are certain, or until scoring all items costs less than going on: for an exact kind, which reads
 * all of its vectors each time, that is soon. Of an approximate index they are never, but those that its rounded vectors do not
 * tell apart are all scored exactly, unless they are very many: where vectors lie close together, ranks are a matter of that rounding. */
static iso_status take_from_index(query *q, best *b, bool *exact, iso_error *err)
{
    enum { WIDENED_MOST = 4 /* times 4 */, SHARE = 64, SHARE_APPROXIMATE = 16 };
    iso_vindex_info info;
    iso_vindex_info_get(q->s->known.index, &info);
    best extras = {.k = b->k};
    const double more = info.approximate && info.error > 0 ? 0 : rounding(q); /* ivf knows that of its own */
    int64_t want = iso_vindex_want(q->s->known.index, q->k);
    uint64_t *ids = NULL; /* and behind them their scores */
    int widened = 0;
    iso_status st = keep_all(&extras, b, err);
    want += q->skips + (q->s->known.removed < 1024 ? q->s->known.removed : 1024);
    *exact = !info.approximate;
    const int64_t wider = info.approximate ? 4 : 16, most = info.count / (info.approximate ? SHARE_APPROXIMATE : SHARE);
    for (int64_t before = 0; st == ISO_OK; before = want, want *= wider, widened++) {
        int64_t got;
        double slack;
        if (!info.approximate && before && before < most && want > most) want = most;
        if (want > (before ? most : info.count / 2) && want > 256) { /* as cheap without the index, and certain */
            *exact = true;
            st = take_all(q, b, err);
            break;
        }
        if (want > info.count) want = info.count;
        free(ids);
        ids = iso_calloc((size_t)want, sizeof *ids + sizeof(double));
        if (!ids) {
            st = iso_fail_memory(err);
            break;
        }
        double *scores = (double *)(void *)(ids + want);
        b->count = 0;
        st = keep_all(b, &extras, err);
        if (st == ISO_OK) st = iso_vindex_search(q->s->known.index, q->w_single, want, ids, scores, &got, &slack, err);
        if (st == ISO_OK) slack = slack * q->norm + more;
        if (st == ISO_OK) st = take_candidates(q, b, got, ids, scores, slack, err);
        if (st != ISO_OK || (want == info.count && !info.approximate)) break;
        const bool enough = b->count == b->k;
        if (enough && info.approximate && (info.error == 0 || widened == WIDENED_MOST)) break;
        if (got > 0 && proved(q, b, scores[got - 1], slack)) break;
        if (want == info.count) { /* approximate, and it cannot find enough */
            *exact = true;
            st = take_all(q, b, err);
            break;
        }
    }
    free(extras.hit);
    free(ids);
    return st;
}

iso_status iso_search(iso_searcher *s, const double *w, double offset, int64_t k, int64_t skips, const uint64_t *skip, iso_hit *out, int64_t *found, bool *exact, iso_error *err)
{
    bool certain = true;
    query q = {.s = s, .w = w, .offset = offset, .k = k, .skips = skips, .skip = skip};
    if (k < 1) return iso_fail(err, ISO_E_ARGUMENT, "k must be at least 1");
    for (int j = 0; j < s->dim; j++) q.norm += w[j] * w[j];
    q.norm = sqrt(q.norm);
    if (!isfinite(q.norm) || !(q.norm > 0)) return iso_fail(err, ISO_E_NUMERIC, "the query vector is zero or not finite");
    best b = {.k = (size_t)k};
    float *single = iso_calloc((size_t)s->dim, sizeof *single);
    if (!single) return iso_fail_memory(err);
    for (int j = 0; j < s->dim; j++) single[j] = (float)(w[j] / q.norm); /* of any length w may have: a float may not hold it */
    q.w_single = single;
    iso_status st = iso_txn_begin(s->store, false, &q.txn, err);
    if (st != ISO_OK) {
        free(single);
        return st;
    }
    q.placed = use_places(s, q.txn);
    const bool many = k > INT64_MAX / 32;
    if (many) st = take_all(&q, &b, err);
    else st = take_extras(&q, &b, err);
    if (st == ISO_OK && !many && iso_vindex_count(s->known.index) > 0) st = take_from_index(&q, &b, &certain, err);
    iso_txn_abort(q.txn);
    iso_places_free(q.places);
    if (st == ISO_OK) {
        if (b.count) qsort(b.hit, b.count, sizeof *b.hit, compare_hits);
        *found = (int64_t)b.count;
        if (*found) memcpy(out, b.hit, sizeof *out * b.count);
        *exact = certain;
    }
    free(b.hit);
    free(single);
    return st;
}
