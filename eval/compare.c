/* compare.c: all columns of a table (P@K, and few examples) go the same way: a matrix of figures [sets, columns] for each run. */
#include "eval/compare.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "model/philox.h"

enum { STREAM_BOOTSTRAP = 0x30001, COLUMNS = ISO_KS + ISO_FEW_SIZES };

/* ---- figures of single rows ---- */

static double value(const iso_precision *p, const iso_few *f, bool pairs, int i, int column)
{
    if (column < ISO_KS) return (pairs ? p->dbl : p->single)[i].at[column];
    return (pairs ? f->dbl : f->single)[i].mean[column - ISO_KS];
}

/* NaN where any run's is. */
static double mean_value(int runs, const iso_precision *const *p, const iso_few *const *f, bool pairs, int i,
                         int column)
{
    double sum = 0;
    for (int r = 0; r < runs; r++) sum += value(p ? p[r] : NULL, f ? f[r] : NULL, pairs, i, column);
    return sum / runs;
}

double iso_compare_at(int runs, const iso_precision *const *precision, bool pairs, int i, int k)
{
    return mean_value(runs, precision, NULL, pairs, i, k);
}

double iso_compare_few_at(int runs, const iso_few *const *few, bool pairs, int i, int s)
{
    return mean_value(runs, NULL, few, pairs, i, ISO_KS + s);
}

/* Mean and standard deviation (n - 1; NaN for one). */
static void spread(int n, const double *x, double *mean, double *deviation)
{
    double sum = 0, squares = 0;
    for (int i = 0; i < n; i++) sum += x[i];
    for (int i = 0; i < n; i++) squares += (x[i] - sum / n) * (x[i] - sum / n);
    *mean = sum / n;
    *deviation = n > 1 ? sqrt(squares / (n - 1)) : NAN;
}

/* ---- a half of the table ---- */

typedef struct table {
    int runs, columns;
    const iso_precision *const *precision;
    const iso_few *const *few;
    int resamples;
    uint64_t seed;
    double *run;       /* [runs] the means of the runs */
    double *mean;      /* [sets, columns] over the runs, of the singles or of the pairs */
    double *resampled; /* [columns, resamples] */
    int *place;        /* [attributes] position among the singles, by number; -1 for others */
    int *times;        /* [singles] how often a resample has each */
} table;

static int sets_of(const table *t, bool pairs) { return pairs ? t->precision[0]->doubles : t->precision[0]->singles; }

static const iso_precision_row *row_of(const table *t, bool pairs, int i)
{
    return (pairs ? t->precision[0]->dbl : t->precision[0]->single) + i;
}

/* One column: its mean and deviation over the sets that every run has; their number. */
static int sum_column(table *t, bool pairs, int column, iso_figure *out, double *chance)
{
    int sets = 0;
    double share = 0;
    memset(t->run, 0, (size_t)t->runs * sizeof *t->run);
    for (int i = 0; i < sets_of(t, pairs); i++) {
        double mean = mean_value(t->runs, t->precision, t->few, pairs, i, column);
        t->mean[(size_t)i * t->columns + column] = mean;
        if (isnan(mean)) continue;
        sets++;
        share += row_of(t, pairs, i)->chance;
        for (int r = 0; r < t->runs; r++)
            t->run[r] += value(t->precision[r], t->few ? t->few[r] : NULL, pairs, i, column);
    }
    *out = (iso_figure){NAN, NAN, NAN, NAN};
    for (int r = 0; r < t->runs && sets; r++) t->run[r] /= sets;
    if (sets) spread(t->runs, t->run, &out->mean, &out->deviation);
    *chance = sets ? share / sets : NAN;
    return sets;
}

/* ---- bootstrap ---- */

static void draw_attributes(const table *t, int number)
{
    int n = t->precision[0]->singles;
    memset(t->times, 0, (size_t)n * sizeof *t->times);
    for (int i = 0; i < n; i++)
        t->times[iso_draw_below((iso_draw){t->seed, STREAM_BOOTSTRAP, (uint64_t)number}, (uint64_t)i, (uint64_t)n)]++;
}

static double weight(const table *t, const iso_precision_row *row)
{
    double w = t->times[t->place[row->a]];
    return row->b < 0 ? w : w * t->times[t->place[row->b]];
}

static void resample(const table *t, bool pairs, int number)
{
    double sum[COLUMNS] = {0}, weights[COLUMNS] = {0};
    draw_attributes(t, number);
    for (int i = 0; i < sets_of(t, pairs); i++) {
        double w = weight(t, row_of(t, pairs, i));
        for (int c = 0; w > 0 && c < t->columns; c++) {
            double x = t->mean[(size_t)i * t->columns + c];
            if (isnan(x)) continue;
            sum[c] += w * x;
            weights[c] += w;
        }
    }
    for (int c = 0; c < t->columns; c++)
        t->resampled[(size_t)c * t->resamples + number] = weights[c] > 0 ? sum[c] / weights[c] : NAN;
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static double quantile(const double *sorted, int n, double q)
{
    double at = q * (n - 1);
    int i = (int)at;
    return i + 1 < n ? sorted[i] + (at - i) * (sorted[i + 1] - sorted[i]) : sorted[n - 1];
}

/* A resample without any of the pairs says nothing of them, and is passed over. */
static void interval(double *means, int resamples, iso_figure *out)
{
    int n = 0;
    for (int b = 0; b < resamples; b++)
        if (!isnan(means[b])) means[n++] = means[b];
    if (n == 0) return;
    qsort(means, (size_t)n, sizeof *means, ascending);
    out->low = quantile(means, n, 0.025);
    out->high = quantile(means, n, 0.975);
}

static void sum_half(table *t, bool pairs, iso_half *out)
{
    iso_figure *figure[COLUMNS];
    int sets[COLUMNS];
    for (int c = 0; c < t->columns; c++) {
        figure[c] = c < ISO_KS ? out->at + c : out->few + (c - ISO_KS);
        double chance;
        sets[c] = sum_column(t, pairs, c, figure[c], &chance);
        if (c == 0) out->chance = chance;
        if (c >= ISO_KS) out->few_sets[c - ISO_KS] = sets[c], out->few_chance[c - ISO_KS] = chance;
    }
    out->sets = sets[0];
    for (int b = 0; b < t->resamples; b++) resample(t, pairs, b);
    for (int c = 0; c < t->columns && t->resamples; c++)
        if (sets[c] > 1) interval(t->resampled + (size_t)c * t->resamples, t->resamples, figure[c]);
}

/* ---- the whole ---- */

static bool same_rows(const iso_precision *a, const iso_precision *b)
{
    if (a->singles != b->singles || a->doubles != b->doubles) return false;
    for (int i = 0; i < a->singles; i++)
        if (a->single[i].a != b->single[i].a || a->single[i].relevant != b->single[i].relevant) return false;
    for (int i = 0; i < a->doubles; i++)
        if (a->dbl[i].a != b->dbl[i].a || a->dbl[i].b != b->dbl[i].b || a->dbl[i].relevant != b->dbl[i].relevant)
            return false;
    return true;
}

static bool same_sizes(const iso_few *a, const iso_few *b)
{
    if (a->options.sizes != b->options.sizes) return false;
    for (int s = 0; s < a->options.sizes; s++)
        if (a->options.size[s] != b->options.size[s]) return false;
    return true;
}

static iso_status check(const table *t, iso_error *err)
{
    if (t->runs < 1) return iso_fail(err, ISO_E_ARGUMENT, "there is no run to sum up");
    if (t->resamples < 0 || t->resamples > ISO_COMPARE_RESAMPLES)
        return iso_fail(err, ISO_E_ARGUMENT, "the number of resamples must be from 0 to %d, not %d",
                        ISO_COMPARE_RESAMPLES, t->resamples);
    for (int r = 0; r < t->runs; r++) {
        const iso_precision *p = t->precision[r];
        const iso_few *f = t->few ? t->few[r] : NULL;
        if (!same_rows(p, t->precision[0]) ||
            (f && (f->singles != p->singles || f->doubles != p->doubles || !same_sizes(f, t->few[0]))))
            return iso_fail(err, ISO_E_MISMATCH, "the runs of one row are not over the same images and attributes");
    }
    return ISO_OK;
}

static iso_status make_room(table *t, iso_error *err)
{
    const iso_precision *p = t->precision[0];
    int most = p->singles > p->doubles ? p->singles : p->doubles, numbers = 1;
    for (int i = 0; i < p->singles; i++)
        if (p->single[i].a >= numbers) numbers = p->single[i].a + 1;
    for (int i = 0; i < p->doubles; i++)
        if (p->dbl[i].b >= numbers) numbers = p->dbl[i].b + 1;
    t->run = iso_calloc((size_t)t->runs, sizeof *t->run);
    t->mean = iso_calloc((size_t)most, (size_t)t->columns * sizeof *t->mean);
    t->resampled = iso_calloc((size_t)t->columns, (size_t)t->resamples * sizeof *t->resampled);
    t->place = iso_calloc((size_t)numbers, sizeof *t->place);
    t->times = iso_calloc((size_t)p->singles, sizeof *t->times);
    if (!t->run || !t->mean || !t->resampled || !t->place || !t->times) return iso_fail_memory(err);
    for (int i = 0; i < numbers; i++) t->place[i] = -1;
    for (int i = 0; i < p->singles; i++) t->place[p->single[i].a] = i;
    for (int i = 0; i < p->doubles; i++)
        if (t->place[p->dbl[i].a] < 0 || t->place[p->dbl[i].b] < 0)
            return iso_fail(err, ISO_E_ARGUMENT, "a pair's attribute is not among the single ones");
    return ISO_OK;
}

iso_status iso_compare_sum_up(int runs, const iso_precision *const *precision, const iso_few *const *few, int resamples,
                              uint64_t seed, iso_summary *out, iso_error *err)
{
    table t = {.runs = runs, .precision = precision, .few = few, .resamples = resamples, .seed = seed};
    iso_summary s = {.runs = runs};
    iso_status status = check(&t, err);
    if (status) return status;
    t.columns = ISO_KS + (few ? few[0]->options.sizes : 0);
    if (!(status = make_room(&t, err))) {
        sum_half(&t, false, &s.single);
        sum_half(&t, true, &s.dbl);
        *out = s;
    }
    free(t.run), free(t.mean), free(t.resampled), free(t.place), free(t.times);
    return status;
}

/* ---- images ---- */

iso_status iso_rows_of(const iso_split *s, iso_rows *out, iso_error *err)
{
    iso_rows r = {.count = s->count, .row = iso_calloc((size_t)s->count, sizeof *r.row)};
    if (!r.row) return iso_fail_memory(err);
    if (s->count) memcpy(r.row, s->row, (size_t)s->count * sizeof *r.row);
    *out = r;
    return ISO_OK;
}

void iso_rows_common(iso_rows *a, const iso_rows *b)
{
    int64_t kept = 0;
    for (int64_t i = 0, j = 0; i < a->count; i++) {
        while (j < b->count && b->row[j] < a->row[i]) j++;
        if (j < b->count && b->row[j] == a->row[i]) a->row[kept++] = a->row[i];
    }
    a->count = kept;
}

void iso_rows_free(iso_rows *r) { free(r->row); }
