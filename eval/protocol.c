#include "eval/protocol.h"

#include <cblas.h>
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"

/* 1 / length of each row; the first bad row is an error. */
static iso_status inverse_norms(int dim, int64_t n, const float *x, const char *what, double *inv, iso_error *err)
{
    for (int64_t i = 0; i < n; i++) {
        double s = 0;
        for (int j = 0; j < dim; j++) s += (double)x[i * dim + j] * x[i * dim + j];
        if (!isfinite(s)) return iso_fail(err, ISO_E_NUMERIC, "%s vector %lld holds a NaN or an infinity", what, (long long)i);
        if (!(s > 0)) return iso_fail(err, ISO_E_NUMERIC, "%s vector %lld is all zeros and has no direction", what, (long long)i);
        inv[i] = 1 / sqrt(s);
    }
    return ISO_OK;
}

static iso_status take_vectors(iso_protocol *p, const float *test, iso_error *err)
{
    double *inv = iso_calloc((size_t)p->t, sizeof *inv);
    p->inverse = iso_calloc((size_t)p->n, sizeof *p->inverse);
    p->unit = iso_calloc((size_t)p->t, (size_t)p->dim * sizeof *p->unit);
    iso_status status = ISO_OK;
    if (!inv || !p->inverse || !p->unit) status = iso_fail_memory(err);
    if (!status) status = inverse_norms(p->dim, p->n, p->train, "training", p->inverse, err);
    if (!status) status = inverse_norms(p->dim, p->t, test, "test", inv, err);
    for (int64_t i = 0; !status && i < p->t; i++)
        for (int j = 0; j < p->dim; j++) p->unit[i * p->dim + j] = inv[i] * test[i * p->dim + j];
    free(inv);
    return status;
}

/* ---- the sets that count ---- */

int iso_protocol_present(const uint8_t *attributes, int count, int *has)
{
    int n = 0;
    for (int a = 0; a < count; a++)
        if (attributes[a]) has[n++] = a;
    return n;
}

/* pairs[a * count + b], a <= b: images that have both; the diagonal counts single attributes. */
static void count_pairs(int64_t n, const uint8_t *attributes, int count, int *has, int64_t *pairs)
{
    for (int64_t i = 0; i < n; i++) {
        int m = iso_protocol_present(attributes + i * count, count, has);
        for (int p = 0; p < m; p++)
            for (int q = p; q < m; q++) pairs[(size_t)has[p] * count + has[q]]++;
    }
}

/* A set of relevant images that counts; singles lie on the diagonal. */
static bool counts(int a, int b, int64_t queries, int64_t relevant, int64_t tests)
{
    if (queries == 0 || relevant == 0) return false;
    return a == b || (100 * relevant > tests && 2 * relevant < tests);
}

static iso_status list_sets(iso_protocol *p, const int64_t *in_train, const int64_t *in_test, iso_error *err)
{
    int count = p->count;
    for (int pass = 0; pass < 2; pass++) {
        int singles = p->singles;
        p->singles = p->doubles = p->left_out = 0;
        for (int a = 0; a < count; a++)
            for (int b = a; b < count; b++) {
                size_t at = (size_t)a * count + b;
                bool in = counts(a, b, in_train[at], in_test[at], p->t);
                if (!in && a == b && pass) p->left[p->left_out] = a;
                if (!in && a == b) p->left_out++;
                if (!in) continue;
                int i = a == b ? p->singles++ : singles + p->doubles++;
                if (pass) p->set[i] = (iso_query_set){a, a == b ? -1 : b, in_train[at], in_test[at]};
            }
        if (pass) break;
        p->set = iso_calloc((size_t)p->singles + (size_t)p->doubles, sizeof *p->set);
        p->left = iso_calloc((size_t)p->left_out, sizeof *p->left);
        if (!p->set || !p->left) return iso_fail_memory(err);
    }
    return ISO_OK;
}

static iso_status find_sets(iso_protocol *p, iso_error *err)
{
    size_t cells = (size_t)p->count * (size_t)p->count;
    int64_t *in_train = iso_calloc(cells, sizeof *in_train), *in_test = iso_calloc(cells, sizeof *in_test);
    int *has = iso_calloc((size_t)p->count, sizeof *has);
    iso_status status = ISO_OK;
    if (!in_train || !in_test || !has) {
        status = iso_fail_memory(err);
    } else {
        count_pairs(p->n, p->train_attributes, p->count, has, in_train);
        count_pairs(p->t, p->test_attributes, p->count, has, in_test);
        status = list_sets(p, in_train, in_test, err);
    }
    free(in_train), free(in_test), free(has);
    return status;
}

iso_status iso_protocol_create(int dim, int64_t n, const float *train, const uint8_t *train_attributes, int64_t t,
                               const float *test, const uint8_t *test_attributes, int count, iso_protocol **out,
                               iso_error *err)
{
    if (dim < 1 || count < 1) return iso_fail(err, ISO_E_ARGUMENT, "precision at K needs vectors and attributes");
    if (n < 1)
        return iso_fail(err, ISO_E_ARGUMENT, "precision at K needs training images to take the query sets from: there are none");
    if (t < 1 || t > INT32_MAX)
        return iso_fail(err, ISO_E_ARGUMENT, "precision at K needs test images to rank: there are %s", t < 1 ? "none" : "too many");
    iso_protocol *p = iso_calloc(1, sizeof *p);
    if (!p) return iso_fail_memory(err);
    *p = (iso_protocol){.dim = dim, .count = count, .n = n, .t = t, .train = train, .train_attributes = train_attributes,
                        .test_attributes = test_attributes};
    iso_status status = take_vectors(p, test, err);
    if (!status) status = find_sets(p, err);
    if (!status) p->scores = iso_calloc(ISO_PROTOCOL_BLOCK, (size_t)t * sizeof *p->scores);
    if (!status) p->query = iso_calloc(ISO_PROTOCOL_BLOCK, (size_t)dim * sizeof *p->query);
    if (!status && (!p->scores || !p->query)) status = iso_fail_memory(err);
    if (status) iso_protocol_free(p);
    else *out = p;
    return status;
}

void iso_protocol_free(iso_protocol *p)
{
    if (!p) return;
    free(p->inverse), free(p->unit), free(p->set), free(p->left), free(p->scores), free(p->query);
    free(p);
}

/* ---- ranking ---- */

/* The first `top` rows by score, best first, ties by the lower row: insertion into a short sorted list, which most
 * scores fail to enter at the first comparison. */
static void first_rows(const double *score, int64_t n, int top, int64_t *best)
{
    int have = 0;
    for (int64_t i = 0; i < n; i++) {
        if (have == top && !(score[i] > score[best[top - 1]])) continue;
        int at = have < top ? have++ : top - 1;
        for (; at > 0 && score[i] > score[best[at - 1]]; at--) best[at] = best[at - 1];
        best[at] = i;
    }
}

/* A matrix product may add up equal vectors in different orders at the edges of its blocks, and so tell ties apart. What
 * comes near the first rows is scored again, all in one order. */
static void best_rows(const iso_protocol *p, const double *query, double *score, int top, int64_t *best)
{
    first_rows(score, p->t, top, best);
    double size = 0;
    for (int j = 0; j < p->dim; j++) size += fabs(query[j]);
    const double least = score[best[top - 1]] - 1e-12 * size;
    for (int64_t i = 0; i < p->t; i++) {
        double sum = score[i] >= least ? 0 : -INFINITY;
        for (int j = 0; score[i] >= least && j < p->dim; j++) sum += query[j] * p->unit[i * p->dim + j];
        score[i] = sum;
    }
    first_rows(score, p->t, top, best);
}

static void count_hits(const iso_protocol *p, const iso_query_set *set, const int64_t *best, int top, int *hits)
{
    for (int r = 0, sum = 0; r < top; r++) {
        const uint8_t *has = p->test_attributes + best[r] * p->count;
        sum += has[set->a] && (set->b < 0 || has[set->b]);
        hits[r] = sum;
    }
}

/* The query vectors of some asked; found[i] tells which have one. The offset, the same for all images, ranks nothing. */
static iso_status make_queries(iso_protocol *p, const iso_scorer *scorer, int rows, const iso_asked *asked, bool *found, iso_error *err)
{
    iso_status failed = ISO_OK;
#pragma omp parallel for schedule(dynamic)
    for (int i = 0; i < rows; i++) {
        iso_error why = {0};
        double offset, *w = p->query + (size_t)i * p->dim, *mean = iso_calloc((size_t)p->dim, sizeof *mean);
        iso_status status = mean ? ISO_OK : iso_fail_memory(&why);
        for (int j = 0; mean && j < p->dim; j++) mean[j] = asked[i].sum[j] / (double)asked[i].n;
        if (!status) status = iso_scorer_query(scorer, p->dim, asked[i].n, mean, 0, NULL, 0, w, &offset, &why);
        found[i] = !status;
        if (status) memset(w, 0, (size_t)p->dim * sizeof *w);
        if (status && status != ISO_E_NUMERIC) {
#pragma omp critical(iso_protocol_queries)
            {
                failed = status;
                if (err) *err = why;
            }
        }
        free(mean);
    }
    return failed;
}

iso_status iso_protocol_rank(iso_protocol *p, const iso_scorer *scorer, int m, const iso_asked *asked, int top, int *hits, iso_error *err)
{
    int ranks = p->t < top ? (int)p->t : top;
    bool found[ISO_PROTOCOL_BLOCK];
    iso_status status = ISO_OK;
    int64_t *best = iso_calloc(ISO_PROTOCOL_BLOCK, (size_t)ranks * sizeof *best);
    if (!best) return iso_fail_memory(err);
    for (int from = 0; from < m; from += ISO_PROTOCOL_BLOCK) {
        int rows = m - from < ISO_PROTOCOL_BLOCK ? m - from : ISO_PROTOCOL_BLOCK;
        if ((status = make_queries(p, scorer, rows, asked + from, found, err))) break;
        cblas_dgemm(CblasRowMajor, CblasNoTrans, CblasTrans, rows, (blasint)p->t, p->dim, 1, p->query, p->dim, p->unit, p->dim, 0, p->scores,
                    (blasint)p->t);
#pragma omp parallel for schedule(dynamic)
        for (int i = 0; i < rows; i++) {
            int *row = hits + (size_t)(from + i) * top;
            for (int r = 0; r < ranks; r++) row[r] = -1;
            if (!found[i]) continue;
            best_rows(p, p->query + (size_t)i * p->dim, p->scores + (size_t)i * p->t, ranks, best + (size_t)i * ranks);
            count_hits(p, asked[from + i].of, best + (size_t)i * ranks, ranks, row);
        }
    }
    free(best);
    return status;
}
