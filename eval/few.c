/* few.c: precision with few examples. The sums of many draws are gathered into blocks, each scored by one matrix product,
 * so memory does not grow with the number of draws. Hits are counted in whole numbers: means are exact. */
#include "eval/few.h"

#include <math.h>
#include <omp.h>
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

/* Some draws for one set. */
typedef struct task {
    const iso_query_set *set;
    tally *to;                  /* [sizes] */
    int first, draws, query;    /* the first draw; the query of its least size, those of the others and of the other draws behind */
} task;

/* What a thread draws with. */
typedef struct drawer {
    int64_t *holder, *partner;  /* [n] training images that have the attributes; what each was exchanged with */
    double *sum;                /* [dim] of the examples taken so far */
} drawer;

enum { TASK_DRAWS = 16, QUERIES = 1024, MOST = QUERIES + TASK_DRAWS * ISO_FEW_SIZES };

typedef struct work {
    const iso_few_options *options;
    const iso_scorer *scorer;
    iso_protocol *protocol;
    int order[ISO_FEW_SIZES];   /* of the sizes, ascending */
    int threads;
    drawer *drawer;             /* [threads] */
    tally *tallies;             /* [sets, sizes] */
    int64_t done;               /* sets of examples */
    /* The block: queries that are drawn by all threads, and then scored. */
    int tasks, queries;
    task task[QUERIES + 1];
    double *query;              /* [MOST, dim] */
    iso_asked asked[MOST];
    tally *to[MOST];
    int *hits;                  /* [MOST, ISO_FEW_K] */
} work;

static int ranks(const iso_protocol *p) { return p->t < ISO_FEW_K ? (int)p->t : ISO_FEW_K; }

/* The sizes that a set has enough images for: the first so many of the order. */
static int sizes_of(const work *w, const iso_query_set *set)
{
    int sizes = 0;
    while (sizes < w->options->sizes && w->options->size[w->order[sizes]] <= set->queries) sizes++;
    return sizes;
}

static void list_holders(const iso_protocol *p, const iso_query_set *set, int64_t *holder)
{
    int64_t found = 0;
    const uint64_t *a = p->has.attribute + set->a * p->has.words, *b = p->has.attribute + (set->b < 0 ? set->a : set->b) * p->has.words;
    for (int64_t i = 0; i < p->has.words; i++)
        for (uint64_t both = a[i] & b[i]; both; both &= both - 1) holder[found++] = 64 * i + __builtin_ctzll(both);
}

static void swap(int64_t *x, int64_t i, int64_t j)
{
    int64_t t = x[i];
    x[i] = x[j];
    x[j] = t;
}

/* One draw, its queries from `at` on: the first steps of a Fisher-Yates shuffle, as many as the largest size needs. They are undone afterwards, so
 * that a draw does not depend on those before it. */
static void draw(work *w, const drawer *with, const task *t, int number, int at)
{
    const iso_protocol *p = w->protocol;
    const size_t dim = (size_t)p->dim;
    const int sizes = sizes_of(w, t->set);
    const int64_t most = sizes ? w->options->size[w->order[sizes - 1]] : 0;
    const iso_draw d = {w->options->seed, STREAM_EXAMPLES, (uint64_t)t->set->a << 40 | (uint64_t)(t->set->b + 1) << 16 | (uint64_t)number};
    for (int64_t i = 0; i < most; i++) {
        with->partner[i] = i + (int64_t)iso_draw_below(d, (uint64_t)i, (uint64_t)(t->set->queries - i));
        swap(with->holder, i, with->partner[i]);
    }
    memset(with->sum, 0, dim * sizeof *with->sum);
    for (int64_t s = 0, taken = 0; s < sizes; s++) {
        const int64_t n = w->options->size[w->order[s]];
        for (; taken < n; taken++) {
            const int64_t image = with->holder[taken];
            const float *x = p->train[image];
            if (taken + ISO_VECTORS_AHEAD < most) iso_vector_ahead(p->train[with->holder[taken + ISO_VECTORS_AHEAD]], p->dim);
            for (int j = 0; j < p->dim; j++) with->sum[j] += p->inverse[image] * x[j];
        }
        memcpy(w->query + (size_t)(at + s) * dim, with->sum, dim * sizeof *with->sum);
        w->asked[at + s] = (iso_asked){w->query + (size_t)(at + s) * dim, n, t->set};
        w->to[at + s] = t->to + w->order[s];
    }
    for (int64_t i = most; i-- > 0;) swap(with->holder, i, with->partner[i]);
}

static iso_status score_block(work *w, iso_error *err)
{
#pragma omp parallel for schedule(dynamic) num_threads(w->threads)
    for (int i = 0; i < w->tasks; i++) {
        const task *t = &w->task[i];
        const drawer *with = &w->drawer[omp_get_thread_num()];
        list_holders(w->protocol, t->set, with->holder);
        for (int r = 0; r < t->draws; r++) draw(w, with, t, t->first + r, t->query + r * sizes_of(w, t->set));
    }
    iso_status status = iso_protocol_rank(w->protocol, w->scorer, w->queries, w->asked, ISO_FEW_K, w->hits, err);
    if (status) return status;
    for (int i = 0; i < w->queries; i++) {
        int hits = w->hits[i * ISO_FEW_K + ranks(w->protocol) - 1];
        w->to[i]->lost += hits < 0;
        w->to[i]->sum += hits;
        w->to[i]->squares += hits * hits;
    }
    w->done += w->queries;
    w->tasks = w->queries = 0;
    iso_progress_step(w->options->progress, w->done);
    return ISO_OK;
}

static iso_status draw_all(work *w, iso_error *err)
{
    const iso_few_options *o = w->options;
    int64_t total = 0;
    for (int i = 0; i < w->protocol->singles + w->protocol->doubles; i++) total += (int64_t)o->draws * sizes_of(w, w->protocol->set + i);
    iso_progress_pass(o->progress, "asking with few examples", "sets", total);
    for (int i = 0; i < w->protocol->singles + w->protocol->doubles; i++) {
        const iso_query_set *set = w->protocol->set + i;
        const int sizes = sizes_of(w, set);
        for (int r = 0; sizes && r < o->draws; r += TASK_DRAWS) {
            const int draws = o->draws - r < TASK_DRAWS ? o->draws - r : TASK_DRAWS;
            w->task[w->tasks++] = (task){set, w->tallies + (size_t)i * (size_t)o->sizes, r, draws, w->queries};
            w->queries += draws * sizes;
            iso_status status = w->queries >= QUERIES ? score_block(w, err) : ISO_OK;
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
    w->threads = omp_get_max_threads();
    w->drawer = iso_calloc((size_t)w->threads, sizeof *w->drawer);
    w->query = iso_calloc(MOST, (size_t)p->dim * sizeof *w->query);
    w->hits = iso_calloc(MOST, ISO_FEW_K * sizeof *w->hits);
    w->tallies = iso_calloc((size_t)p->singles + (size_t)p->doubles, (size_t)o->sizes * sizeof *w->tallies);
    bool ok = w->drawer && w->query && w->hits && w->tallies;
    for (int i = 0; ok && i < w->threads; i++) {
        drawer *with = &w->drawer[i];
        with->holder = iso_calloc((size_t)p->n, sizeof *with->holder);
        with->partner = iso_calloc((size_t)p->n, sizeof *with->partner);
        with->sum = iso_calloc((size_t)p->dim, sizeof *with->sum);
        ok = with->holder && with->partner && with->sum;
    }
    return ok ? ISO_OK : iso_fail_memory(err);
}

static void work_clear(work *w)
{
    for (int i = 0; w->drawer && i < w->threads; i++) free(w->drawer[i].holder), free(w->drawer[i].partner), free(w->drawer[i].sum);
    free(w->drawer), free(w->query), free(w->hits), free(w->tallies);
    iso_protocol_free(w->protocol);
    free(w);
}

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
    f->options.progress = NULL; /* which may be gone */
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
    work *w = iso_calloc(1, sizeof *w);
    if (!w) return iso_fail_memory(err);
    w->options = options;
    w->scorer = scorer;
    status = iso_protocol_create(dim, n, train, train_attributes, t, test, test_attributes, count, &w->protocol, err);
    if (!status) status = iso_protocol_lengths(w->protocol, err);
    if (!status) status = work_create(w, err);
    if (!status) status = draw_all(w, err);
    if (!status) status = fill(w, out, err);
    work_clear(w);
    return status;
}

void iso_few_free(iso_few *f)
{
    if (!f) return;
    free(f->single), free(f->dbl);
    free(f);
}
