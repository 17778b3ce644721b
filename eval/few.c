/* few.c: precision with few examples. The sums of many draws are gathered into blocks, each scored by one matrix product,
 * so memory does not grow with the number of draws. Hits are counted in whole numbers: means are exact. */
#include "eval/few.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "eval/protocol.h"
#include "model/philox.h"

/* Training numbers its streams from 0, and initialisation has those from ISO_STREAM_INIT on. */
enum { STREAM_EXAMPLES = 0x30000, ATTRIBUTES = 1 << 20 };

/* ---- options ---- */

static iso_status check_options(const iso_few_options *o, iso_error *err)
{
    if (o->sizes < 1) return iso_fail(err, ISO_E_ARGUMENT, "no number of examples is given");
    if (o->sizes > ISO_FEW_SIZES)
        return iso_fail(err, ISO_E_ARGUMENT, "at most %d numbers of examples can be given at once", ISO_FEW_SIZES);
    if (o->draws < 1 || o->draws > ISO_FEW_DRAWS)
        return iso_fail(err, ISO_E_ARGUMENT, "the number of draws must be from 1 to %d, not %d", ISO_FEW_DRAWS, o->draws);
    for (int i = 0; i < o->sizes; i++) {
        if (o->size[i] < 1)
            return iso_fail(err, ISO_E_ARGUMENT, "a number of examples must be at least 1, not %lld", (long long)o->size[i]);
        for (int j = 0; j < i; j++)
            if (o->size[j] == o->size[i])
                return iso_fail(err, ISO_E_ARGUMENT, "%lld examples are asked for twice", (long long)o->size[i]);
    }
    return ISO_OK;
}

iso_status iso_few_parse(const char *list, int draws, uint64_t seed, iso_few_options *out, iso_error *err)
{
    iso_few_options o = {.draws = draws, .seed = seed};
    for (const char *at = list;; at++) {
        size_t length = strcspn(at, ","), digits = strspn(at, "0123456789");
        if (digits != length || length == 0)
            return iso_fail(err, ISO_E_ARGUMENT, "numbers of examples are whole numbers with commas between them, as 1,5,10; not '%.100s'", list);
        if (length > 12) return iso_fail(err, ISO_E_ARGUMENT, "too many examples: %.*s", length > 100 ? 100 : (int)length, at);
        if (o.sizes == ISO_FEW_SIZES)
            return iso_fail(err, ISO_E_ARGUMENT, "at most %d numbers of examples can be given at once", ISO_FEW_SIZES);
        o.size[o.sizes++] = strtoll(at, NULL, 10);
        at += length;
        if (!*at) break;
    }
    iso_status status = check_options(&o, err);
    if (!status) *out = o;
    return status;
}

/* ---- draws ---- */

/* Hits of all draws of one row at one n. */
typedef struct tally {
    int64_t sum, squares;
    int lost; /* draws without direction */
} tally;

typedef struct work {
    const iso_few_options *options;
    const iso_scorer *scorer;
    iso_protocol *protocol;
    int order[ISO_FEW_SIZES];   /* of the sizes, ascending */
    int64_t *holder, *partner;  /* [n] training images that have the attributes; what each was exchanged with */
    double *sum;                /* [dim] of the examples taken so far */
    tally *tallies;             /* [sets, sizes] */
    /* The block: queries that wait to be scored. */
    int filled;
    double *query;              /* [ISO_PROTOCOL_BLOCK, dim] */
    iso_asked asked[ISO_PROTOCOL_BLOCK];
    tally *to[ISO_PROTOCOL_BLOCK];
    int hits[ISO_PROTOCOL_BLOCK * ISO_FEW_K];
} work;

static int ranks(const iso_protocol *p) { return p->t < ISO_FEW_K ? (int)p->t : ISO_FEW_K; }

static iso_status score_block(work *w, iso_error *err)
{
    iso_status status = iso_protocol_rank(w->protocol, w->scorer, w->filled, w->asked, ISO_FEW_K, w->hits, err);
    if (status) return status;
    for (int i = 0; i < w->filled; i++) {
        int hits = w->hits[i * ISO_FEW_K + ranks(w->protocol) - 1];
        w->to[i]->lost += hits < 0;
        w->to[i]->sum += hits;
        w->to[i]->squares += hits * hits;
    }
    w->filled = 0;
    return ISO_OK;
}

static iso_status add_query(work *w, const iso_query_set *set, int64_t n, tally *to, iso_error *err)
{
    size_t dim = (size_t)w->protocol->dim;
    double *sum = w->query + (size_t)w->filled * dim;
    memcpy(sum, w->sum, dim * sizeof *sum);
    w->asked[w->filled] = (iso_asked){sum, n, set};
    w->to[w->filled++] = to;
    return w->filled == ISO_PROTOCOL_BLOCK ? score_block(w, err) : ISO_OK;
}

static void list_holders(work *w, const iso_query_set *set)
{
    const iso_protocol *p = w->protocol;
    int64_t found = 0;
    const uint64_t *a = p->has.attribute + set->a * p->has.words, *b = p->has.attribute + (set->b < 0 ? set->a : set->b) * p->has.words;
    for (int64_t i = 0; i < p->has.words; i++)
        for (uint64_t both = a[i] & b[i]; both; both &= both - 1) w->holder[found++] = 64 * i + __builtin_ctzll(both);
}

static void swap(int64_t *x, int64_t i, int64_t j)
{
    int64_t t = x[i];
    x[i] = x[j];
    x[j] = t;
}

/* The first steps of a Fisher-Yates shuffle, as many as the largest n needs. They are undone afterwards, so that a draw
 * does not depend on those before it. */
static iso_status draw(work *w, const iso_query_set *set, int number, tally *to, iso_error *err)
{
    const iso_protocol *p = w->protocol;
    const iso_few_options *o = w->options;
    iso_draw d = {o->seed, STREAM_EXAMPLES, (uint64_t)set->a << 40 | (uint64_t)(set->b + 1) << 16 | (uint64_t)number};
    iso_status status = ISO_OK;
    int64_t taken = 0;
    memset(w->sum, 0, (size_t)p->dim * sizeof *w->sum);
    for (int s = 0; s < o->sizes && !status && o->size[w->order[s]] <= set->queries; s++) {
        for (; taken < o->size[w->order[s]]; taken++) {
            w->partner[taken] = taken + (int64_t)iso_draw_below(d, (uint64_t)taken, (uint64_t)(set->queries - taken));
            swap(w->holder, taken, w->partner[taken]);
            int64_t image = w->holder[taken];
            const float *x = p->train[image];
            for (int j = 0; j < p->dim; j++) w->sum[j] += p->inverse[image] * x[j];
        }
        status = add_query(w, set, taken, to + w->order[s], err);
    }
    while (taken-- > 0) swap(w->holder, taken, w->partner[taken]);
    return status;
}

static iso_status draw_all(work *w, iso_error *err)
{
    const iso_few_options *o = w->options;
    for (int i = 0; i < w->protocol->singles + w->protocol->doubles; i++) {
        const iso_query_set *set = w->protocol->set + i;
        list_holders(w, set);
        for (int r = 0; r < o->draws; r++) {
            iso_status status = draw(w, set, r, w->tallies + (size_t)i * o->sizes, err);
            if (status) return status;
        }
    }
    return score_block(w, err);
}

static iso_status work_create(work *w, iso_error *err)
{
    const iso_protocol *p = w->protocol;
    const iso_few_options *o = w->options;
    for (int i = 0; i < o->sizes; i++) {
        int at = i;
        for (; at > 0 && o->size[w->order[at - 1]] > o->size[i]; at--) w->order[at] = w->order[at - 1];
        w->order[at] = i;
    }
    w->holder = iso_calloc((size_t)p->n, sizeof *w->holder);
    w->partner = iso_calloc((size_t)p->n, sizeof *w->partner);
    w->sum = iso_calloc((size_t)p->dim, sizeof *w->sum);
    w->query = iso_calloc(ISO_PROTOCOL_BLOCK, (size_t)p->dim * sizeof *w->query);
    w->tallies = iso_calloc((size_t)p->singles + (size_t)p->doubles, (size_t)o->sizes * sizeof *w->tallies);
    return w->holder && w->partner && w->sum && w->query && w->tallies ? ISO_OK : iso_fail_memory(err);
}

static void work_clear(work *w) { free(w->holder), free(w->partner), free(w->sum), free(w->query), free(w->tallies); }

/* ---- figures ---- */

static void fill_row(const work *w, const iso_query_set *set, const tally *t, iso_few_row *row)
{
    double draws = w->options->draws, top = ranks(w->protocol);
    *row = (iso_few_row){.a = set->a, .b = set->b, .queries = set->queries, .relevant = set->relevant};
    for (int s = 0; s < ISO_FEW_SIZES; s++) row->mean[s] = row->deviation[s] = NAN;
    for (int s = 0; s < w->options->sizes; s++) {
        row->lost[s] = t[s].lost;
        if (w->options->size[s] > set->queries || t[s].lost) continue;
        double sum = (double)t[s].sum, squares = (double)t[s].squares;
        row->mean[s] = sum / (draws * top);
        if (draws > 1) row->deviation[s] = sqrt((draws * squares - sum * sum) / (draws * (draws - 1))) / top;
    }
}

/* Rows are drawn independently of each other, so their variances add up. */
static void mean_rows(const iso_few_row *row, int n, const iso_few_options *o, iso_few_mean *mean)
{
    for (int s = 0; s < o->sizes; s++) {
        double sum = 0, variance = 0;
        int rows = 0;
        for (int i = 0; i < n; i++) {
            if (isnan(row[i].mean[s])) continue;
            rows++;
            sum += row[i].mean[s];
            variance += row[i].deviation[s] * row[i].deviation[s] / o->draws;
        }
        mean[s] = rows ? (iso_few_mean){rows, sum / rows, sqrt(variance) / rows} : (iso_few_mean){0, NAN, NAN};
    }
}

static iso_status fill(const work *w, iso_few **out, iso_error *err)
{
    const iso_protocol *p = w->protocol;
    iso_few *f = iso_calloc(1, sizeof *f);
    if (!f) return iso_fail_memory(err);
    f->options = *w->options;
    f->singles = p->singles, f->doubles = p->doubles;
    f->single = iso_calloc((size_t)p->singles, sizeof *f->single);
    f->dbl = iso_calloc((size_t)p->doubles, sizeof *f->dbl);
    if (!f->single || !f->dbl) {
        iso_few_free(f);
        return iso_fail_memory(err);
    }
    for (int i = 0; i < p->singles + p->doubles; i++)
        fill_row(w, p->set + i, w->tallies + (size_t)i * f->options.sizes, i < p->singles ? f->single + i : f->dbl + (i - p->singles));
    mean_rows(f->single, f->singles, &f->options, f->single_mean);
    mean_rows(f->dbl, f->doubles, &f->options, f->double_mean);
    *out = f;
    return ISO_OK;
}

iso_status iso_few_precision(int dim, int64_t n, const float *const *train, const uint8_t *train_attributes, int64_t t,
                             const float *const *test, const uint8_t *test_attributes, int count, const iso_scorer *scorer,
                             const iso_few_options *options, iso_few **out, iso_error *err)
{
    iso_status status = check_options(options, err);
    if (status) return status;
    if (count >= ATTRIBUTES) return iso_fail(err, ISO_E_ARGUMENT, "too many attributes to draw examples of: %d", count);
    work w = {.options = options, .scorer = scorer};
    if ((status = iso_protocol_create(dim, n, train, train_attributes, t, test, test_attributes, count, &w.protocol, err)))
        return status;
    if ((status = iso_protocol_lengths(w.protocol, err))) goto done;
    if ((status = work_create(&w, err))) goto done;
    if ((status = draw_all(&w, err))) goto done;
    status = fill(&w, out, err);
done:
    work_clear(&w);
    iso_protocol_free(w.protocol);
    return status;
}

void iso_few_free(iso_few *f)
{
    if (!f) return;
    free(f->single), free(f->dbl);
    free(f);
}
