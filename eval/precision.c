/* precision.c: the retrieval protocol. All query sets are summed in one pass over the training vectors, then scored
 * against the test vectors by one matrix product (in blocks of sets), so the cost hardly grows with their number.
 * Sums and scores are in double precision: a ranking must not depend on the order in which vectors were added. */
#include "eval/precision.h"

#include <cblas.h>
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"

const int iso_precision_k[ISO_KS] = {1, 5, 10, 20};

enum { TOP = 20, SLICE = 16, SET_BLOCK = 64 };

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

/* The attributes one image has, in order. */
static int present(const uint8_t *attributes, int count, int *has)
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
        int m = present(attributes + i * count, count, has);
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

static iso_status list_rows(iso_precision *p, int count, const int64_t *in_train, const int64_t *in_test, int64_t tests,
                            int32_t *set_of, iso_error *err)
{
    for (int pass = 0; pass < 2; pass++) {
        p->singles = p->doubles = p->left_out = 0;
        for (int a = 0; a < count; a++)
            for (int b = a; b < count; b++) {
                size_t at = (size_t)a * count + b;
                bool in = counts(a, b, in_train[at], in_test[at], tests);
                if (!in && a == b && pass) p->left[p->left_out] = a;
                if (!in && a == b) p->left_out++;
                if (!in) continue;
                int i = a == b ? p->singles++ : p->doubles++;
                if (!pass) continue;
                iso_precision_row *row = (a == b ? p->single : p->dbl) + i;
                *row = (iso_precision_row){.a = a, .b = a == b ? -1 : b, .queries = in_train[at], .relevant = in_test[at],
                                           .chance = (double)in_test[at] / (double)tests};
            }
        if (pass) break;
        p->single = iso_calloc((size_t)p->singles, sizeof *p->single);
        p->dbl = iso_calloc((size_t)p->doubles, sizeof *p->dbl);
        p->left = iso_calloc((size_t)p->left_out, sizeof *p->left);
        if (!p->single || !p->dbl || !p->left) return iso_fail_memory(err);
    }
    for (size_t i = 0; i < (size_t)count * count; i++) set_of[i] = -1;
    for (int i = 0; i < p->singles; i++) set_of[(size_t)p->single[i].a * (count + 1)] = i;
    for (int i = 0; i < p->doubles; i++) set_of[(size_t)p->dbl[i].a * count + p->dbl[i].b] = p->singles + i;
    return ISO_OK;
}

/* w [sets, dim] = sum of the unit training vectors of each set. Threads share the coordinates, not the images: every sum
 * is taken in the images' order whatever the number of threads. */
static iso_status sum_sets(int dim, int64_t n, const float *train, const double *inv, const uint8_t *attributes, int count,
                           const int32_t *set_of, double *w, iso_error *err)
{
    bool out_of_memory = false;
#pragma omp parallel for schedule(dynamic)
    for (int from = 0; from < dim; from += SLICE) {
        int width = dim - from < SLICE ? dim - from : SLICE;
        int *has = iso_calloc((size_t)count, sizeof *has);
        if (!has) {
#pragma omp atomic write
            out_of_memory = true;
            continue;
        }
        for (int64_t i = 0; i < n; i++) {
            double x[SLICE];
            for (int j = 0; j < width; j++) x[j] = inv[i] * train[i * dim + from + j];
            int m = present(attributes + i * count, count, has);
            for (int p = 0; p < m; p++)
                for (int q = p; q < m; q++) {
                    int32_t s = set_of[(size_t)has[p] * count + has[q]];
                    if (s < 0) continue;
                    double *to = w + (size_t)s * dim + from;
                    for (int j = 0; j < width; j++) to[j] += x[j];
                }
        }
        free(has);
    }
    return out_of_memory ? iso_fail_memory(err) : ISO_OK;
}

/* The first `top` rows by score, best first, ties by the lower row: insertion into a short sorted list, which most
 * scores fail to enter at the first comparison. */
static void best_rows(const double *score, int64_t n, int top, int64_t *best)
{
    int have = 0;
    for (int64_t i = 0; i < n; i++) {
        if (have == top && !(score[i] > score[best[top - 1]])) continue;
        int at = have < top ? have++ : top - 1;
        for (; at > 0 && score[i] > score[best[at - 1]]; at--) best[at] = best[at - 1];
        best[at] = i;
    }
}

static void score_row(iso_precision_row *row, const double *score, int64_t t, const uint8_t *attributes, int count)
{
    int64_t best[TOP];
    int top = t < TOP ? (int)t : TOP, hits = 0, k = 0;
    best_rows(score, t, top, best);
    for (int i = 0; i < top; i++) {
        const uint8_t *has = attributes + best[i] * count;
        hits += has[row->a] && (row->b < 0 || has[row->b]);
        while (k < ISO_KS && (i + 1 == iso_precision_k[k] || i + 1 == top)) row->at[k++] = (double)hits / (i + 1);
    }
}

static iso_precision_row *row_of(iso_precision *p, int set)
{
    return set < p->singles ? p->single + set : p->dbl + (set - p->singles);
}

static void score_sets(iso_precision *p, int dim, const double *w, int64_t t, const double *unit, const uint8_t *attributes,
                       int count, double *scores)
{
    int sets = p->singles + p->doubles;
    for (int from = 0; from < sets; from += SET_BLOCK) {
        int m = sets - from < SET_BLOCK ? sets - from : SET_BLOCK;
        cblas_dgemm(CblasRowMajor, CblasNoTrans, CblasTrans, m, (blasint)t, dim, 1, w + (size_t)from * dim, dim, unit, dim, 0,
                    scores, (blasint)t);
#pragma omp parallel for schedule(dynamic)
        for (int i = 0; i < m; i++) score_row(row_of(p, from + i), scores + (size_t)i * t, t, attributes, count);
    }
}

static void mean_rows(const iso_precision_row *row, int n, double mean[ISO_KS], double *chance)
{
    double sum[ISO_KS + 1] = {0};
    for (int i = 0; i < n; i++) {
        for (int k = 0; k < ISO_KS; k++) sum[k] += row[i].at[k];
        sum[ISO_KS] += row[i].chance;
    }
    for (int k = 0; k < ISO_KS; k++) mean[k] = n ? sum[k] / n : NAN;
    *chance = n ? sum[ISO_KS] / n : NAN;
}

iso_status iso_precision_at_k(int dim, int64_t n, const float *train, const uint8_t *train_attributes, int64_t t,
                              const float *test, const uint8_t *test_attributes, int count, iso_precision **out, iso_error *err)
{
    if (dim < 1 || count < 1) return iso_fail(err, ISO_E_ARGUMENT, "precision at K needs vectors and attributes");
    if (n < 1) return iso_fail(err, ISO_E_ARGUMENT, "precision at K needs training images to take the query sets from: there are none");
    if (t < 1 || t > INT32_MAX) return iso_fail(err, ISO_E_ARGUMENT, "precision at K needs test images to rank: there are %s", t < 1 ? "none" : "too many");
    iso_status status = ISO_OK;
    size_t cells = (size_t)count * (size_t)count;
    double *train_inv = iso_calloc((size_t)n, sizeof *train_inv), *test_inv = iso_calloc((size_t)t, sizeof *test_inv);
    double *unit = iso_calloc((size_t)t, (size_t)dim * sizeof *unit), *w = NULL, *scores = NULL;
    int64_t *in_train = iso_calloc(cells, sizeof *in_train), *in_test = iso_calloc(cells, sizeof *in_test);
    int32_t *set_of = iso_calloc(cells, sizeof *set_of);
    int *has = iso_calloc((size_t)count, sizeof *has);
    iso_precision *p = iso_calloc(1, sizeof *p);
    if (!train_inv || !test_inv || !unit || !in_train || !in_test || !set_of || !has || !p) {
        status = iso_fail_memory(err);
        goto done;
    }
    if ((status = inverse_norms(dim, n, train, "training", train_inv, err))) goto done;
    if ((status = inverse_norms(dim, t, test, "test", test_inv, err))) goto done;
    for (int64_t i = 0; i < t; i++)
        for (int j = 0; j < dim; j++) unit[i * dim + j] = test_inv[i] * test[i * dim + j];
    count_pairs(n, train_attributes, count, has, in_train);
    count_pairs(t, test_attributes, count, has, in_test);
    if ((status = list_rows(p, count, in_train, in_test, t, set_of, err))) goto done;

    size_t sets = (size_t)p->singles + (size_t)p->doubles, block = sets < SET_BLOCK ? sets : SET_BLOCK;
    w = iso_calloc(sets, (size_t)dim * sizeof *w);
    scores = iso_calloc(block, (size_t)t * sizeof *scores);
    if (!w || !scores) {
        status = iso_fail_memory(err);
        goto done;
    }
    if ((status = sum_sets(dim, n, train, train_inv, train_attributes, count, set_of, w, err))) goto done;
    score_sets(p, dim, w, t, unit, test_attributes, count, scores);
    mean_rows(p->single, p->singles, p->single_mean, &p->single_chance);
    mean_rows(p->dbl, p->doubles, p->double_mean, &p->double_chance);
    *out = p;
    p = NULL;
done:
    iso_precision_free(p);
    free(train_inv), free(test_inv), free(unit), free(w), free(scores);
    free(in_train), free(in_test), free(set_of), free(has);
    return status;
}

void iso_precision_free(iso_precision *p)
{
    if (!p) return;
    free(p->single), free(p->dbl), free(p->left);
    free(p);
}
