/* precision.c: the retrieval protocol. Query sets are summed in one pass over the training vectors (sums.c), then ranked
 * together (rank.c), so the cost hardly grows with their number; as many at a time as SUMS bytes hold, as thousands of
 * attributes have millions of pairs. Sums and the scores that decide are in double precision: a
 * ranking must not depend on the order in which vectors were added. */
#include "eval/precision.h"

#include <math.h>
#include <stdlib.h>

#include "base/memory.h"
#include "eval/protocol.h"

const int iso_precision_k[ISO_KS] = {1, 5, 10, 20};

enum { TOP = 20, SUMS = 64 << 20 };

static void fill_row(iso_precision_row *row, const iso_query_set *set, const int *hits, int64_t t)
{
    *row = (iso_precision_row){.a = set->a, .b = set->b, .queries = set->queries, .relevant = set->relevant,
                               .chance = (double)set->relevant / (double)t};
    for (int k = 0; k < ISO_KS; k++) {
        int top = t < iso_precision_k[k] ? (int)t : iso_precision_k[k];
        row->at[k] = hits[top - 1] < 0 ? NAN : (double)hits[top - 1] / top;
    }
}

static int mean_rows(const iso_precision_row *row, int rows, double mean[ISO_KS], double *chance)
{
    double sum[ISO_KS + 1] = {0};
    int n = 0;
    for (int i = 0; i < rows; i++) {
        if (isnan(row[i].at[0])) continue;
        n++;
        for (int k = 0; k < ISO_KS; k++) sum[k] += row[i].at[k];
        sum[ISO_KS] += row[i].chance;
    }
    for (int k = 0; k < ISO_KS; k++) mean[k] = n ? sum[k] / n : NAN;
    *chance = n ? sum[ISO_KS] / n : NAN;
    return n;
}

/* Room for the rows of all sets. */
static iso_status make_rows(const iso_protocol *from, iso_precision **out, iso_error *err)
{
    iso_precision *p = iso_calloc(1, sizeof *p);
    if (!p) return iso_fail_memory(err);
    p->singles = from->singles, p->doubles = from->doubles, p->left_out = from->left_out;
    p->single = iso_calloc((size_t)p->singles, sizeof *p->single);
    p->dbl = iso_calloc((size_t)p->doubles, sizeof *p->dbl);
    p->left = iso_calloc((size_t)p->left_out, sizeof *p->left);
    if (!p->single || !p->dbl || !p->left) {
        iso_precision_free(p);
        return iso_fail_memory(err);
    }
    for (int i = 0; i < p->left_out; i++) p->left[i] = from->left[i];
    *out = p;
    return ISO_OK;
}

/* The rows of all sets, at most `most` of them at a time. */
static iso_status fill_rows(const iso_protocol *p, const iso_scorer *scorer, int most, iso_precision *out, iso_error *err)
{
    const int sets = p->singles + p->doubles;
    const size_t dim = (size_t)p->dim;
    double *w = iso_calloc((size_t)most, dim * sizeof *w);
    iso_asked *asked = iso_calloc((size_t)most, sizeof *asked);
    int *hits = iso_calloc((size_t)most, TOP * sizeof *hits);
    iso_status status = w && asked && hits ? ISO_OK : iso_fail_memory(err);
    for (int first = 0; (first == 0 || first < sets) && !status; first += most) { /* where there are none, vectors are looked at still */
        const int n = sets - first < most ? sets - first : most;
        for (int i = 0; i < n; i++) asked[i] = (iso_asked){w + (size_t)i * dim, p->set[first + i].queries, p->set + first + i};
        status = iso_protocol_sums(p, first, n, w, err);
        if (!status) status = iso_protocol_rank(p, scorer, n, asked, TOP, hits, err);
        for (int i = first; i < first + n && !status; i++)
            fill_row(i < p->singles ? out->single + i : out->dbl + (i - p->singles), p->set + i, hits + (size_t)(i - first) * TOP, p->t);
    }
    free(w), free(asked), free(hits);
    return status;
}

iso_status iso_precision_at_k(int dim, int64_t n, const float *const *train, const uint8_t *train_attributes, int64_t t,
                              const float *const *test, const uint8_t *test_attributes, int count, const iso_scorer *scorer, iso_precision **out,
                              iso_error *err)
{
    iso_protocol *p = NULL;
    iso_precision *rows = NULL;
    iso_status status = iso_protocol_create(dim, n, train, train_attributes, t, test, test_attributes, count, &p, err);
    if (status) return status;
    const int sets = p->singles + p->doubles, hold = SUMS / (int)sizeof(double) / dim, most = hold < sets ? hold : sets;
    status = make_rows(p, &rows, err);
    if (!status) status = fill_rows(p, scorer, most > 0 ? most : 1, rows, err);
    iso_protocol_free(p);
    if (status) {
        iso_precision_free(rows);
        return status;
    }
    rows->single_sets = mean_rows(rows->single, rows->singles, rows->single_mean, &rows->single_chance);
    rows->double_sets = mean_rows(rows->dbl, rows->doubles, rows->double_mean, &rows->double_chance);
    *out = rows;
    return ISO_OK;
}

void iso_precision_free(iso_precision *p)
{
    if (!p) return;
    free(p->single), free(p->dbl), free(p->left);
    free(p);
}

const float **iso_vector_rows(int dim, int64_t n, const float *x)
{
    const float **row = iso_calloc((size_t)n, sizeof *row);
    for (int64_t i = 0; row && i < n; i++) row[i] = x + i * dim;
    return row;
}
