/* precision.c: the retrieval protocol. All query sets are summed in one pass over the training vectors (sums.c), then ranked
 * together (rank.c), so the cost hardly grows with their number. Sums and the scores that decide are in double precision: a
 * ranking must not depend on the order in which vectors were added. */
#include "eval/precision.h"

#include <math.h>
#include <stdlib.h>

#include "base/memory.h"
#include "eval/protocol.h"

const int iso_precision_k[ISO_KS] = {1, 5, 10, 20};

enum { TOP = 20 };

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

static iso_status fill(const iso_protocol *from, const int *hits, iso_precision **out, iso_error *err)
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
    for (int i = 0; i < p->singles + p->doubles; i++)
        fill_row(i < p->singles ? p->single + i : p->dbl + (i - p->singles), from->set + i, hits + (size_t)i * TOP, from->t);
    p->single_sets = mean_rows(p->single, p->singles, p->single_mean, &p->single_chance);
    p->double_sets = mean_rows(p->dbl, p->doubles, p->double_mean, &p->double_chance);
    *out = p;
    return ISO_OK;
}

iso_status iso_precision_at_k(int dim, int64_t n, const float *const *train, const uint8_t *train_attributes, int64_t t,
                              const float *const *test, const uint8_t *test_attributes, int count, const iso_scorer *scorer, iso_precision **out,
                              iso_error *err)
{
    iso_protocol *p = NULL;
    iso_status status = iso_protocol_create(dim, n, train, train_attributes, t, test, test_attributes, count, &p, err);
    if (status) return status;
    size_t sets = (size_t)p->singles + (size_t)p->doubles;
    double *w = iso_calloc(sets, (size_t)dim * sizeof *w);
    iso_asked *asked = iso_calloc(sets, sizeof *asked);
    int *hits = iso_calloc(sets, TOP * sizeof *hits);
    if (!w || !asked || !hits) {
        status = iso_fail_memory(err);
        goto done;
    }
    for (size_t i = 0; i < sets; i++) asked[i] = (iso_asked){w + i * (size_t)dim, p->set[i].queries, p->set + i};
    if ((status = iso_protocol_sums(p, w, err))) goto done;
    if ((status = iso_protocol_rank(p, scorer, (int)sets, asked, TOP, hits, err))) goto done;
    status = fill(p, hits, out, err);
done:
    free(w), free(asked), free(hits);
    iso_protocol_free(p);
    return status;
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
