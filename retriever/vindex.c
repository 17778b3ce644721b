/* vindex.c: building and searching; vindex_file.c keeps it on disk. */
#include "retriever/vindex_faiss.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <faiss/c_api/AutoTune_c.h>
#include <faiss/c_api/IndexIVF_c.h>
#include <faiss/c_api/error_c.h>
#include <faiss/c_api/index_factory_c.h>

#include "base/memory.h"

enum {
    CHUNK = 4096,      /* rows held at a time while building */
    SMALL = 40,        /* below this many items every kind is kept as flat: FAISS cannot train on less */
    SAMPLE_SQ8 = 65536,
    PER_LIST = 64,     /* training rows for each list of ivf */
    MAX_EF = 4096,
    /* Queries for choosing the width, in PARTS of PART, as people ask: single vectors, means of MIX, means of some of MIX less
     * half the mean of the others (counter-examples), and CROWD against the database (contrast). The best items of the
     * latter two lie scattered and are the hardest to find. */
    PARTS = 4,
    PART = 64,
    QUERIES = PARTS * PART,
    MIX = 5,
    NEGATIVES = 2,
    CROWD = 50,
    PICKS = PART + 2 * PART * MIX + PART * CROWD,
    AT = 10
};
#define RECALL 0.95

iso_status iso_vindex_faiss_fail(iso_error *err, const char *doing)
{
    const char *why = faiss_get_last_error();
    if (why && strstr(why, "bad_alloc")) return iso_fail_memory(err);
    return iso_fail(err, ISO_E_INTERNAL, "FAISS failed while %s: %s", doing, why ? why : "no reason given");
}

bool iso_vindex_kind_known(const char *kind)
{
    static const char *const known[] = {"flat", "sq8", "fp16", "ivf", "hnsw"};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (strcmp(kind, known[i]) == 0) return true;
    return false;
}

bool iso_vindex_kind_approximate(const char *kind) { return strcmp(kind, "ivf") == 0 || strcmp(kind, "hnsw") == 0; }

void iso_vindex_free(iso_vindex *v)
{
    if (!v) return;
    if (v->faiss) faiss_Index_free(v->faiss);
    free(v->ids);
    free(v);
}

void iso_vindex_info_get(const iso_vindex *v, iso_vindex_info *out) { *out = v->info; }
int64_t iso_vindex_count(const iso_vindex *v) { return v->info.count; }
const uint64_t *iso_vindex_ids(const iso_vindex *v) { return v->ids; }

/* ---- building ---- */

/* FAISS's name for the kind at this many items. */
static void describe(const char *kind, int64_t count, char text[32], bool *approximate)
{
    *approximate = false;
    strcpy(text, "Flat");
    if (count < SMALL) return;
    if (strcmp(kind, "sq8") == 0) strcpy(text, "SQ8");
    if (strcmp(kind, "fp16") == 0) strcpy(text, "SQfp16");
    if (strcmp(kind, "hnsw") == 0) {
        strcpy(text, "HNSW32,Flat");
        *approximate = true;
    }
    if (strcmp(kind, "ivf") == 0) {
        int64_t lists = (int64_t)(4 * sqrt((double)count));
        if (lists > count / 39) lists = count / 39; /* FAISS wants 39 rows a list */
        if (lists < 1) lists = 1;
        snprintf(text, 32, "IVF%lld,Flat", (long long)lists);
        *approximate = true;
    }
}

/* Evenly spaced rows to train on. */
static iso_status train(iso_vindex *v, const iso_vindex_rows *rows, float *chunk, uint64_t *ids, iso_error *err)
{
    int dim = v->info.source.dim;
    int64_t limit = SAMPLE_SQ8, at = 0, n = 0, got;
    FaissIndexIVF *ivf = faiss_IndexIVF_cast(v->faiss);
    if (ivf) limit = (int64_t)faiss_IndexIVF_nlist(ivf) * PER_LIST;
    int64_t step = (rows->count + limit - 1) / limit;
    float *sample = iso_calloc((size_t)(rows->count / step + 1), sizeof(float) * (size_t)dim);
    if (!sample) return iso_fail_memory(err);
    iso_status st = rows->rewind(rows->ctx, err);
    while (st == ISO_OK) {
        st = rows->next(rows->ctx, CHUNK, ids, chunk, &got, err);
        if (st != ISO_OK || got == 0) break;
        for (int64_t i = 0; i < got && at < rows->count; i++, at++)
            if (at % step == 0) memcpy(sample + n++ * dim, chunk + i * dim, sizeof(float) * (size_t)dim);
    }
    if (st == ISO_OK && faiss_Index_train(v->faiss, n, sample) != 0) st = iso_vindex_faiss_fail(err, "training the index");
    free(sample);
    return st;
}

static iso_status fill(iso_vindex *v, const iso_vindex_rows *rows, float *chunk, uint64_t *ids, iso_error *err)
{
    int64_t at = 0, got;
    iso_status st = rows->rewind(rows->ctx, err);
    while (st == ISO_OK) {
        st = rows->next(rows->ctx, CHUNK, ids, chunk, &got, err);
        if (st != ISO_OK || got == 0) break;
        if (at + got > rows->count) return iso_fail(err, ISO_E_INTERNAL, "more vectors than announced while building the index");
        for (int64_t i = 0; i < got; i++) {
            uint64_t before = i ? ids[i - 1] : at ? v->ids[at - 1] : 0;
            if ((at || i) && ids[i] <= before) return iso_fail(err, ISO_E_INTERNAL, "ids out of order while building the index");
        }
        memcpy(v->ids + at, ids, sizeof *ids * (size_t)got);
        if (faiss_Index_add(v->faiss, got, chunk) != 0) return iso_vindex_faiss_fail(err, "adding vectors");
        at += got;
    }
    if (st == ISO_OK && at != rows->count) return iso_fail(err, ISO_E_INTERNAL, "fewer vectors than announced while building the index");
    return st;
}

/* The largest distance between a unit vector and what the index keeps of it. */
static iso_status measure_error(iso_vindex *v, const iso_vindex_rows *rows, float *chunk, uint64_t *ids, iso_error *err)
{
    int dim = v->info.source.dim;
    int64_t at = 0, got;
    double worst = 0;
    float *kept = iso_calloc(CHUNK, sizeof(float) * (size_t)dim);
    if (!kept) return iso_fail_memory(err);
    iso_status st = rows->rewind(rows->ctx, err);
    while (st == ISO_OK) {
        st = rows->next(rows->ctx, CHUNK, ids, chunk, &got, err);
        if (st != ISO_OK || got == 0) break;
        if (faiss_Index_reconstruct_n(v->faiss, at, got, kept) != 0) {
            st = iso_vindex_faiss_fail(err, "reading vectors back");
            break;
        }
        for (int64_t i = 0; i < got; i++) {
            double sum = 0;
            for (int64_t j = i * dim; j < (i + 1) * dim; j++) sum += ((double)chunk[j] - kept[j]) * ((double)chunk[j] - kept[j]);
            if (sum > worst) worst = sum;
        }
        at += got;
    }
    free(kept);
    if (st == ISO_OK) v->info.error = sqrt(worst) * (1 + 1e-6);
    return st;
}

/* ---- how wide an approximate index must search ---- */

typedef struct trial {
    float *query;  /* [QUERIES, dim] */
    float *best;   /* [QUERIES, AT] exact scores, best first */
} trial;

static uint64_t mix64(uint64_t x)
{
    x += 0x9e3779b97f4a7c15u;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

/* Merges n new scores (best first) into the best ones of a query. */
static void merge_best(float *best, const float *scores, int n)
{
    for (int i = 0; i < n; i++) {
        int j = AT;
        while (j > 0 && scores[i] > best[j - 1]) j--;
        if (j == AT) break;
        memmove(best + j + 1, best + j, sizeof *best * (size_t)(AT - 1 - j));
        best[j] = scores[i];
    }
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
    return x->query != y->query ? (x->query > y->query) - (x->query < y->query) : (x->number > y->number) - (x->number < y->number);
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

/* Turns the means of part 3 into contrast queries of length 1. One that has no direction stays a mean. */
static iso_status contrast_queries(const trial *t, int dim, const iso_scorer *scorer, iso_error *err)
{
    iso_error why;
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

/* First pass: the queries. Second pass: their exact best scores, over small flat indexes of a chunk each. */
static iso_status trial_prepare(trial *t, int dim, const iso_vindex_rows *rows, float *chunk, uint64_t *ids, iso_error *err)
{
    pick *picks = iso_calloc(PICKS, sizeof *picks);
    FaissIndex *flat = NULL;
    float scores[QUERIES * AT];
    idx_t labels[QUERIES * AT];
    int64_t at = 0, got, p = 0;
    if (!picks) return iso_fail_memory(err);
    choose_picks(rows->count, picks);
    iso_status st = rows->rewind(rows->ctx, err);
    while (st == ISO_OK && p < PICKS) {
        st = rows->next(rows->ctx, CHUNK, ids, chunk, &got, err);
        if (st != ISO_OK || got == 0) break;
        for (; p < PICKS && picks[p].position < at + got; p++)
            for (int j = 0; j < dim; j++)
                t->query[(int64_t)picks[p].query * dim + j] += picks[p].weight * chunk[(picks[p].position - at) * dim + j];
        at += got;
    }
    free(picks);
    if (st == ISO_OK && rows->scorer) st = contrast_queries(t, dim, rows->scorer, err);
    if (st != ISO_OK) return st;
    for (int i = 0; i < QUERIES * AT; i++) t->best[i] = -INFINITY;
    if (faiss_index_factory(&flat, dim, "Flat", METRIC_INNER_PRODUCT) != 0) return iso_vindex_faiss_fail(err, "making an index");
    st = rows->rewind(rows->ctx, err);
    while (st == ISO_OK) {
        st = rows->next(rows->ctx, CHUNK, ids, chunk, &got, err);
        if (st != ISO_OK || got == 0) break;
        int n = got < AT ? (int)got : AT;
        if (faiss_Index_reset(flat) != 0 || faiss_Index_add(flat, got, chunk) != 0 ||
            faiss_Index_search(flat, QUERIES, t->query, n, scores, labels) != 0) {
            st = iso_vindex_faiss_fail(err, "searching exactly");
            break;
        }
        for (int q = 0; q < QUERIES; q++) merge_best(t->best + q * AT, scores + q * n, n);
    }
    faiss_Index_free(flat);
    return st;
}

/* Share of the exact best AT that the index finds (by score, so that duplicates count as one another): the worst of the
 * parts of the queries. */
static iso_status trial_recall(const trial *t, const FaissIndex *index, double *recall, iso_error *err)
{
    float scores[QUERIES * AT];
    idx_t labels[QUERIES * AT];
    int hits[PARTS] = {0}, least = PART * AT;
    if (faiss_Index_search(index, QUERIES, t->query, AT, scores, labels) != 0) return iso_vindex_faiss_fail(err, "measuring recall");
    for (int q = 0; q < QUERIES; q++)
        for (int i = 0; i < AT; i++)
            hits[q / PART] += labels[q * AT + i] >= 0 && scores[q * AT + i] >= t->best[q * AT + AT - 1] - 1e-5f;
    for (int i = 0; i < PARTS; i++) least = hits[i] < least ? hits[i] : least;
    *recall = (double)least / (PART * AT);
    return ISO_OK;
}

static iso_status set_width(FaissIndex *index, bool ivf, int width, iso_error *err)
{
    FaissParameterSpace *space = NULL;
    if (faiss_ParameterSpace_new(&space) != 0) return iso_vindex_faiss_fail(err, "tuning the index");
    int rc = faiss_ParameterSpace_set_index_parameter(space, index, ivf ? "nprobe" : "efSearch", width);
    faiss_ParameterSpace_free(space);
    return rc ? iso_vindex_faiss_fail(err, "tuning the index") : ISO_OK;
}

/* Doubles the width until the recall is reached. FAISS keeps the width in its file. */
static iso_status choose_width(iso_vindex *v, const iso_vindex_rows *rows, float *chunk, uint64_t *ids, iso_error *err)
{
    FaissIndexIVF *ivf = faiss_IndexIVF_cast(v->faiss);
    int most = ivf ? (int)faiss_IndexIVF_nlist(ivf) : MAX_EF;
    int width = ivf ? 1 : 64;
    double recall = 0;
    trial t = {iso_calloc(QUERIES, sizeof(float) * (size_t)v->info.source.dim), iso_calloc(QUERIES * AT, sizeof(float))};
    iso_status st = t.query && t.best ? trial_prepare(&t, v->info.source.dim, rows, chunk, ids, err) : iso_fail_memory(err);
    while (st == ISO_OK) {
        st = set_width(v->faiss, ivf != NULL, width, err);
        if (st == ISO_OK) st = trial_recall(&t, v->faiss, &recall, err);
        if (st != ISO_OK || recall >= RECALL || width >= most) break;
        width = width * 2 < most ? width * 2 : most;
    }
    v->info.width = width;
    v->info.recall = recall;
    free(t.query);
    free(t.best);
    return st;
}

iso_status iso_vindex_build(const iso_vindex_source *source, const char *kind, const iso_vindex_rows *rows, iso_vindex **out, iso_error *err)
{
    char text[32];
    float *chunk = NULL;
    uint64_t *ids = NULL;
    iso_status st;
    if (!iso_vindex_kind_known(kind))
        return iso_fail(err, ISO_E_ARGUMENT, "unknown kind of index '%s': use flat, sq8, fp16, ivf or hnsw", kind);
    if (source->dim < 1 || source->dim > ISO_VINDEX_MAX_DIM)
        return iso_fail(err, ISO_E_ARGUMENT, "cannot index vectors of %d numbers", source->dim);
    iso_vindex *v = iso_calloc(1, sizeof *v);
    if (!v) return iso_fail_memory(err);
    v->info.source = *source;
    v->info.count = rows->count;
    v->info.recall = 1;
    strcpy(v->info.kind, kind);
    describe(kind, rows->count, text, &v->info.approximate);
    v->ids = iso_calloc((size_t)rows->count, sizeof *v->ids);
    ids = iso_calloc(CHUNK, sizeof *ids);
    chunk = iso_calloc(CHUNK, sizeof(float) * (size_t)source->dim);
    if (!v->ids || !ids || !chunk) {
        st = iso_fail_memory(err);
        goto done;
    }
    if (faiss_index_factory(&v->faiss, source->dim, text, METRIC_INNER_PRODUCT) != 0) {
        st = iso_vindex_faiss_fail(err, "making an index");
        goto done;
    }
    st = faiss_Index_is_trained(v->faiss) ? ISO_OK : train(v, rows, chunk, ids, err);
    if (st == ISO_OK) st = fill(v, rows, chunk, ids, err);
    if (st == ISO_OK && strncmp(text, "SQ", 2) == 0) st = measure_error(v, rows, chunk, ids, err);
    if (st == ISO_OK && v->info.approximate) st = choose_width(v, rows, chunk, ids, err);
done:
    free(ids);
    free(chunk);
    if (st == ISO_OK) *out = v;
    else iso_vindex_free(v);
    return st;
}

/* ---- use ---- */

iso_status iso_vindex_search(const iso_vindex *v, const float *w, int64_t k, uint64_t *ids, float *scores, int64_t *found, iso_error *err)
{
    int64_t n = 0;
    if (k > v->info.count) k = v->info.count;
    if (k <= 0) {
        *found = 0;
        return ISO_OK;
    }
    idx_t *labels = iso_calloc((size_t)k, sizeof *labels);
    if (!labels) return iso_fail_memory(err);
    if (faiss_Index_search(v->faiss, 1, w, k, scores, labels) != 0) {
        free(labels);
        return iso_vindex_faiss_fail(err, "searching");
    }
    for (int64_t i = 0; i < k; i++) { /* -1: an approximate index found no more */
        if (labels[i] < 0 || labels[i] >= v->info.count) continue;
        ids[n] = v->ids[labels[i]];
        scores[n++] = scores[i];
    }
    free(labels);
    *found = n;
    return ISO_OK;
}

iso_status iso_vindex_vector(iso_vindex *v, int64_t position, float *out, iso_error *err)
{
    if (position < 0 || position >= v->info.count) return iso_fail(err, ISO_E_ARGUMENT, "the index has no position %lld", (long long)position);
    FaissIndexIVF *ivf = faiss_IndexIVF_cast(v->faiss);
    if (ivf && !v->direct_map) {
        if (faiss_IndexIVF_make_direct_map(ivf, 1) != 0) return iso_vindex_faiss_fail(err, "mapping ids to lists");
        v->direct_map = true;
    }
    if (faiss_Index_reconstruct(v->faiss, position, out) != 0) return iso_vindex_faiss_fail(err, "reading a vector back");
    return ISO_OK;
}
