/* vindex_tune.c: the queries by which the width of an approximate search is chosen. */
#include "retriever/vindex_tune.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"

enum {
    /* Queries in PARTS of PART, as people ask: single vectors, means of MIX, means of some of MIX less half the mean of the others
     * (counter-examples), and CROWD against the database (contrast). The best items of the latter two lie scattered and are
     * the hardest to find. */
    PARTS = 4,
    PART = 64,
    QUERIES = PARTS * PART,
    MIX = 5,
    NEGATIVES = 2,
    CROWD = 50,
    PICKS = PART + 2 * PART * MIX + PART * CROWD,
    DEPTHS = 3, /* 1, 10 and 64 answers */
    AT = 10,
    DEEP = 64
};

struct iso_vindex_trial {
    int dim;
    int64_t count;
    float *query;     /* [QUERIES, dim] */
    iso_ranked *best; /* [QUERIES, DEEP] exact answers, best first */
};

void iso_vindex_trial_free(iso_vindex_trial *t)
{
    if (!t) return;
    free(t->query);
    free(t->best);
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

typedef struct pick {
    int64_t position;
    int query, number; /* the number of the vector in its query */
    float weight;
} pick;

static int compare_picks(const void *a, const void *b)
{
    const pick *x = a, *y = b;
    if (x->position != y->position) return x->position < y->position ? -1 : 1;
    return x->query != y->query ? (x->query > y->query) - (x->query < y->query)
                                : (x->number > y->number) - (x->number < y->number);
}

/* Part 0: one vector; 1: MIX; 2: MIX with counter-examples; 3: CROWD. */
static void choose_picks(int64_t count, pick *out)
{
    static const int size[PARTS] = {1, MIX, MIX, CROWD};
    int i = 0;
    for (int q = 0; q < QUERIES; q++) {
        int part = q / PART;
        for (int k = 0; k < size[part]; k++, i++) {
            float weight = 1.0f / (float)size[part];
            if (part == 2) weight = k < NEGATIVES ? -0.5f / NEGATIVES : 1.0f / (MIX - NEGATIVES);
            out[i] = (pick){(int64_t)(mix64((uint64_t)i) % (uint64_t)count), q, k, weight};
        }
    }
    qsort(out, PICKS, sizeof *out, compare_picks);
}

/* Turns the means of the last part into contrast queries of length 1. One that has no direction stays a mean. */
static iso_status contrast_queries(const iso_vindex_trial *t, const iso_scorer *scorer, iso_error *err)
{
    iso_error why;
    int dim = t->dim;
    double *like = iso_calloc((size_t)dim, 2 * sizeof *like), *w = like + dim, offset;
    if (!like) return iso_fail_memory(err);
    for (int q = (PARTS - 1) * PART; q < QUERIES; q++) {
        float *query = t->query + (int64_t)q * dim;
        double square = 0;
        for (int j = 0; j < dim; j++) like[j] = query[j];
        if (iso_scorer_query(scorer, dim, CROWD, like, 0, NULL, 0, w, &offset, &why) != ISO_OK) continue;
        for (int j = 0; j < dim; j++) square += w[j] * w[j];
        for (int j = 0; j < dim; j++) query[j] = (float)(w[j] / sqrt(square));
    }
    free(like);
    return ISO_OK;
}

typedef struct first_pass {
    iso_vindex_trial *t;
    const pick *picks;
    int at;
} first_pass;

static iso_status take_picks(void *ctx, int64_t first, int64_t n, const float *unit, iso_error *err)
{
    first_pass *f = ctx;
    int dim = f->t->dim;
    (void)err;
    for (; f->at < PICKS && f->picks[f->at].position < first + n; f->at++) {
        const pick *p = f->picks + f->at;
        for (int j = 0; j < dim; j++)
            f->t->query[(int64_t)p->query * dim + j] += p->weight * unit[(p->position - first) * dim + j];
    }
    return ISO_OK;
}

/* ---- their exact answers ---- */

typedef struct second_pass {
    const iso_vindex_trial *t;
    iso_best best[QUERIES];
    float *scores; /* [QUERIES, ISO_VINDEX_CHUNK] */
} second_pass;

static iso_status take_answers(void *ctx, int64_t first, int64_t n, const float *unit, iso_error *err)
{
    second_pass *s = ctx;
    int dim = s->t->dim;
    (void)err;
#pragma omp parallel for
    for (int q = 0; q < QUERIES; q++) {
        iso_scan_query query = {ISO_CODE_F32, dim, s->t->query + (int64_t)q * dim, 0};
        float *scores = s->scores + (int64_t)q * ISO_VINDEX_CHUNK;
        iso_scan_scores(&query, unit, n, scores);
        iso_best_offer(&s->best[q], scores, n, first, NULL);
    }
    return ISO_OK;
}

static iso_status find_answers(iso_vindex *v, iso_vindex_trial *t, const iso_vindex_rows *rows, iso_error *err)
{
    second_pass s = {.t = t, .scores = iso_calloc(QUERIES, sizeof(float) * ISO_VINDEX_CHUNK)};
    if (!s.scores) return iso_fail_memory(err);
    for (int q = 0; q < QUERIES; q++) s.best[q] = (iso_best){.k = DEEP, .heap = t->best + q * DEEP};
    iso_status st = iso_vindex_pass(v, rows, take_answers, &s, err);
    for (int q = 0; q < QUERIES; q++) iso_best_sort(&s.best[q]);
    free(s.scores);
    return st;
}

iso_status iso_vindex_trial_create(iso_vindex *v, const iso_vindex_rows *rows, iso_vindex_trial **out, iso_error *err)
{
    iso_vindex_trial *t = iso_calloc(1, sizeof *t);
    pick *picks = iso_calloc(PICKS, sizeof *picks);
    iso_status st = ISO_OK;
    if (t) {
        t->dim = v->info.source.dim;
        t->count = rows->count;
        t->query = iso_calloc(QUERIES, sizeof(float) * (size_t)t->dim);
        t->best = iso_calloc((size_t)QUERIES * DEEP, sizeof *t->best);
    }
    if (!t || !picks || !t->query || !t->best) st = iso_fail_memory(err);
    if (st == ISO_OK) {
        first_pass f = {t, picks, 0};
        choose_picks(rows->count, picks);
        st = iso_vindex_pass(v, rows, take_picks, &f, err);
    }
    if (st == ISO_OK && rows->scorer) st = contrast_queries(t, rows->scorer, err);
    if (st == ISO_OK) st = find_answers(v, t, rows, err);
    free(picks);
    if (st == ISO_OK)
        *out = t;
    else
        iso_vindex_trial_free(t);
    return st;
}

/* ---- recall ---- */

iso_status iso_vindex_trial_recall(const iso_vindex_trial *t, iso_vindex_trial_search *search, void *ctx, double slack,
                                   double *worst, double *ten, iso_error *err)
{
    const int64_t wants[DEPTHS] = {1, t->count < AT ? t->count : AT, t->count < DEEP ? t->count : DEEP};
    int64_t hits[DEPTHS][PARTS] = {{0}};
    iso_status st = ISO_OK;
#pragma omp parallel for schedule(dynamic)
    for (int i = 0; i < DEPTHS * QUERIES; i++) {
        int q = i / DEPTHS;
        int64_t want = wants[i % DEPTHS], found = 0, n = 0;
        iso_ranked got[DEEP];
        iso_error mine;
        iso_status s = search(ctx, t->query + (int64_t)q * t->dim, want, got, &found, &mine);
        double least = t->best[q * DEEP + want - 1].score - slack;
        for (int64_t j = 0; s == ISO_OK && j < found; j++) n += got[j].score >= least;
#pragma omp critical(iso_vindex_trial) /* an unnamed one would be the host's, too */
        {
            if (s != ISO_OK && st == ISO_OK) {
                st = s;
                if (err) *err = mine;
            }
            hits[i % DEPTHS][q / PART] += n;
        }
    }
    if (st != ISO_OK) return st;
    double low[DEPTHS] = {1, 1, 1};
    for (int d = 0; d < DEPTHS; d++)
        for (int p = 0; p < PARTS; p++) low[d] = fmin(low[d], (double)hits[d][p] / (double)(PART * wants[d]));
    *worst = fmin(low[0], fmin(low[1], low[2]));
    if (ten) *ten = low[1];
    return ISO_OK;
}
