/* vindex_ivf_build.c: making an inverted file, and the engine. The payload is made in memory (three quarters of what the
 * vectors take in single precision), because it is searched to choose the tolerance before it can be written. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "retriever/vindex_ivf.h"
#include "retriever/vindex_kmeans.h"
#include "retriever/vindex_tune.h"

enum {
    LIST_FACTOR =
        6, /* lists for each sqrt(count): with 3, means of several vectors took up to ten times as long; more pays little */
    ROWS_A_LIST = 39, /* at least, on average */
    SAMPLE_A_LIST = 64,
    SAMPLE_MOST = 1 << 19,
    COV_SAMPLE = 16384,
    STEPS = 48 /* of the tolerance, from 1 on, each the square root of a half of the one before; then 0 */
};

typedef struct build {
    iso_vindex_ivf x; /* into payload */
    uint8_t *payload;
    float *low, *step, *centroid_low, *centroid_step, *cov, *middle, *radius;
    uint32_t *offset, *position;
    uint8_t *centroid, *code;
    uint16_t *row;

    float *sample; /* [samples, dim], rows 0, stride, 2 stride ... */
    int64_t samples, stride;
    iso_vindex_nearest *nearest;
    uint32_t *list; /* [count] of each row */
    double *sum;    /* [lists, dim] while assigning; then each list's sum of squared distances first */
    float *center;  /* [lists, dim] the centroids as they are kept */
    uint32_t *next; /* [lists] where the next row of each list goes */
    double worst;   /* squared distance of a row from what is kept of it */
} build;

static int64_t lists_for(int64_t count)
{
    int64_t lists = (int64_t)(LIST_FACTOR * sqrt((double)count));
    if (lists > count / ROWS_A_LIST) lists = count / ROWS_A_LIST;
    return lists < 1 ? 1 : lists;
}

/* ---- passes over the rows ---- */

static iso_status take_sample(void *ctx, int64_t first, int64_t n, const float *unit, iso_error *err)
{
    build *b = ctx;
    size_t dim = (size_t)b->x.dim;
    (void)err;
    for (int64_t i = (b->stride - first % b->stride) % b->stride;
         i < n && b->samples < (b->x.count + b->stride - 1) / b->stride; i += b->stride)
        memcpy(b->sample + (size_t)b->samples++ * dim, unit + (size_t)i * dim, sizeof *unit * dim);
    return ISO_OK;
}

/* The list of each row, and the lists' sums. */
static iso_status take_lists(void *ctx, int64_t first, int64_t n, const float *unit, iso_error *err)
{
    build *b = ctx;
    int dim = b->x.dim;
    iso_status st = iso_vindex_nearest_find(b->nearest, n, unit, b->list + first, err);
    for (int64_t i = 0; st == ISO_OK && i < n; i++) {
        double *sum = b->sum + (size_t)b->list[first + i] * (size_t)dim;
        for (int j = 0; j < dim; j++) sum[j] += unit[i * dim + j];
        b->offset[b->list[first + i] + 1]++;
    }
    return st;
}

static uint8_t code_of(float r, float low, float step)
{
    float c = step > 0 ? (r - low) / step + 0.5f : 0;
    return (uint8_t)(c > 255 ? 255 : c > 0 ? c : 0);
}

/* Each row to its place. */
static iso_status take_rows(void *ctx, int64_t first, int64_t n, const float *unit, iso_error *err)
{
    build *b = ctx;
    int dim = b->x.dim;
    float *away = iso_calloc((size_t)dim, 2 * sizeof *away), *kept = away + dim;
    if (!away) return iso_fail_memory(err);
    for (int64_t i = 0; i < n; i++) {
        const float *z = unit + i * dim, *center = b->center + (size_t)b->list[first + i] * (size_t)dim;
        size_t slot = b->next[b->list[first + i]]++;
        double distance = 0, square = 0;
        b->position[slot] = (uint32_t)(first + i);
        for (int j = 0; j < dim; j++) away[j] = z[j] - b->middle[j];
        iso_half_store(dim, away, b->row + slot * (size_t)dim);
        iso_half_load(dim, b->row + slot * (size_t)dim, kept);
        for (int j = 0; j < dim; j++) {
            float r = z[j] - center[j];
            b->code[slot * (size_t)dim + (size_t)j] = code_of(r, b->low[j], b->step[j]);
            square += (double)r * r;
            distance += ((double)z[j] - b->middle[j] - kept[j]) * ((double)z[j] - b->middle[j] - kept[j]);
        }
        b->sum[b->list[first + i]] += square;
        if (distance > b->worst) b->worst = distance;
    }
    free(away);
    return ISO_OK;
}

/* ---- between them ---- */

static iso_status allocate(build *b, iso_error *err)
{
    iso_vindex_ivf *x = &b->x;
    size_t size = iso_vindex_ivf_size(x->count, x->dim, x->lists, x->cov_dim, x->middle_dim);
    if (size == 0)
        return iso_fail(err, ISO_E_UNSUPPORTED, "an index of kind ivf cannot hold %lld vectors of %d numbers",
                        (long long)x->count, x->dim);
    b->payload = aligned_alloc(ISO_VINDEX_IVF_ALIGN, size);
    b->list = iso_calloc((size_t)x->count, sizeof *b->list);
    b->sum = iso_calloc((size_t)x->lists * (size_t)x->dim, sizeof *b->sum);
    b->center = iso_calloc((size_t)x->lists * (size_t)x->dim, sizeof *b->center);
    b->next = iso_calloc((size_t)x->lists, sizeof *b->next);
    int64_t most = x->lists * SAMPLE_A_LIST < SAMPLE_MOST ? x->lists * SAMPLE_A_LIST : SAMPLE_MOST;
    b->stride = (x->count + most - 1) / most;
    b->sample = iso_calloc((size_t)((x->count + b->stride - 1) / b->stride), sizeof *b->sample * (size_t)x->dim);
    if (!b->payload || !b->list || !b->sum || !b->center || !b->next || !b->sample) return iso_fail_memory(err);
    memset(b->payload, 0, size);
    iso_vindex_ivf_place(x, b->payload);
    b->low = (float *)(b->payload + ((const uint8_t *)x->low - b->payload));
    b->step = (float *)(b->payload + ((const uint8_t *)x->step - b->payload));
    b->cov = (float *)(b->payload + ((const uint8_t *)x->cov - b->payload));
    b->middle = (float *)(b->payload + ((const uint8_t *)x->middle - b->payload));
    b->radius = (float *)(b->payload + ((const uint8_t *)x->radius - b->payload));
    b->offset = (uint32_t *)(b->payload + ((const uint8_t *)x->offset - b->payload));
    b->position = (uint32_t *)(b->payload + ((const uint8_t *)x->position - b->payload));
    b->centroid_low = (float *)(b->payload + ((const uint8_t *)x->centroid_low - b->payload));
    b->centroid_step = (float *)(b->payload + ((const uint8_t *)x->centroid_step - b->payload));
    b->centroid = b->payload + (x->centroid - b->payload);
    b->row = (uint16_t *)(b->payload + ((const uint8_t *)x->row - b->payload));
    b->code = b->payload + (x->code - b->payload);
    return ISO_OK;
}

/* The means of the lists become their centroids, as codes of one byte, and what these stand for is what they are from here on;
 * counts become offsets. */
static void settle_lists(build *b)
{
    const iso_vindex_ivf *x = &b->x;
    const int dim = x->dim;
    for (int j = 0; j < dim; j++) {
        double sum = 0;
        for (int64_t l = 0; l < x->lists; l++) sum += b->sum[l * dim + j];
        b->middle[j] = (float)(sum / (double)x->count);
    }
    for (int64_t l = 0; l < x->lists; l++) {
        float *center = b->center + l * dim;
        double n = b->offset[l + 1];
        if (n > 0)
            for (int j = 0; j < dim; j++) center[j] = (float)(b->sum[l * dim + j] / n);
        b->next[l] = b->offset[l];
        b->offset[l + 1] += b->offset[l];
    }
    for (int j = 0; j < dim; j++) {
        float low = b->center[j], high = low;
        for (int64_t l = 1; l < x->lists; l++) {
            low = fminf(low, b->center[l * dim + j]);
            high = fmaxf(high, b->center[l * dim + j]);
        }
        b->centroid_low[j] = low;
        b->centroid_step[j] = (high - low) / 255;
    }
    for (int64_t i = 0; i < x->lists * dim; i++) {
        const float low = b->centroid_low[i % dim], step = b->centroid_step[i % dim];
        b->centroid[i] = code_of(b->center[i], low, step);
        b->center[i] = low + (float)b->centroid[i] * step;
    }
    memset(b->sum, 0, sizeof *b->sum * (size_t)x->lists);
}

/* From the sample: the range of each number of a residual, and their covariance. */
static iso_status settle_residuals(build *b, iso_error *err)
{
    const int dim = b->x.dim, cov = b->x.cov_dim;
    int64_t skip = b->samples / COV_SAMPLE + 1;
    double trace = 0;
    double *sum = iso_calloc((size_t)(cov ? cov : 1) * (size_t)(cov ? cov : 1), sizeof *sum);
    float *high = iso_calloc((size_t)dim, sizeof *high);
    if (!sum || !high) {
        free(sum);
        free(high);
        return iso_fail_memory(err);
    }
    for (int64_t i = 0; i < b->samples; i++) { /* in place: the sample is not needed any more */
        float *r = b->sample + i * dim;
        const float *center = b->center + (size_t)b->list[i * b->stride] * (size_t)dim;
        for (int j = 0; j < dim; j++) {
            r[j] -= center[j];
            if (i == 0 || r[j] < b->low[j]) b->low[j] = r[j];
            if (i == 0 || r[j] > high[j]) high[j] = r[j];
        }
    }
    for (int j = 0; j < dim; j++) b->step[j] = (high[j] - b->low[j]) / 255;
#pragma omp parallel for
    for (int j = 0; j < cov; j++)
        for (int64_t i = 0; i < b->samples; i += skip) {
            const float *r = b->sample + i * dim;
            for (int l = 0; l < cov; l++) sum[(size_t)j * (size_t)cov + (size_t)l] += (double)r[j] * r[l];
        }
    for (int j = 0; j < cov; j++) trace += sum[(size_t)j * (size_t)cov + (size_t)j];
    for (size_t i = 0; i < (size_t)cov * (size_t)cov; i++) b->cov[i] = trace > 0 ? (float)(sum[i] / trace) : 0;
    free(sum);
    free(high);
    return ISO_OK;
}

static void settle_radii(build *b)
{
    for (int64_t l = 0; l < b->x.lists; l++) {
        int64_t n = (int64_t)b->offset[l + 1] - b->offset[l];
        b->radius[l] = n ? (float)sqrt(b->sum[l] / (double)n) : 0;
    }
}

/* ---- how far to search ---- */

typedef struct trial {
    const iso_vindex_ivf *x;
    int64_t searches, visited; /* lists in all */
} trial;

static iso_status on_trial(void *ctx, const float *w, int64_t k, iso_ranked *out, int64_t *found, iso_error *err)
{
    trial *t = ctx;
    int64_t visited = 0;
    iso_status st = iso_vindex_ivf_search(t->x, w, k, out, found, &visited, err);
#pragma omp atomic
    t->visited += visited;
#pragma omp atomic
    t->searches++;
    return st;
}

static double tolerance_of(int step) { return step >= STEPS ? 0 : pow(0.5, step / 2.0); }

/* The largest tolerance that reaches the recall, by halving the range of steps. */
static iso_status choose_tolerance(build *b, iso_vindex *v, const iso_vindex_rows *rows, iso_error *err)
{
    iso_vindex_trial *t = NULL;
    trial last = {.x = &b->x};
    double worst = 0, ten = 0, slack = v->info.error; /* what rounding to 16 bits can change of a score */
    int low = 0, high = STEPS;                        /* the answer is from low to high */
    iso_status st = iso_vindex_trial_create(v, rows, &t, err);
    while (st == ISO_OK && low < high) {
        int step = (low + high) / 2;
        b->x.tolerance = tolerance_of(step);
        st = iso_vindex_trial_recall(t, on_trial, &last, slack, &worst, NULL, err);
        if (worst >= ISO_VINDEX_RECALL)
            high = step;
        else
            low = step + 1;
    }
    b->x.tolerance = tolerance_of(high);
    last.searches = last.visited = 0;
    if (st == ISO_OK) st = iso_vindex_trial_recall(t, on_trial, &last, slack, &worst, &ten, err);
    if (st == ISO_OK) {
        v->info.recall = ten;
        v->info.width = (int)((last.visited + last.searches - 1) / last.searches);
    }
    iso_vindex_trial_free(t);
    return st;
}

static void put_head(const build *b)
{
    uint32_t lists = (uint32_t)b->x.lists, cov = (uint32_t)b->x.cov_dim, middle = (uint32_t)b->x.middle_dim;
    memcpy(b->payload, &lists, 4);
    memcpy(b->payload + 4, &cov, 4);
    memcpy(b->payload + 8, &b->x.tolerance, 8);
    memcpy(b->payload + 16, &middle, 4);
}

static iso_status make(build *b, iso_vindex *v, const iso_vindex_rows *rows, iso_error *err)
{
    const char *fault = NULL;
    iso_status st = allocate(b, err);
    if (st == ISO_OK) st = iso_vindex_pass(v, rows, take_sample, b, err);
    if (st == ISO_OK) st = iso_vindex_kmeans(b->x.dim, b->samples, b->sample, b->x.lists, b->center, err);
    if (st == ISO_OK) st = iso_vindex_nearest_create(b->x.dim, b->x.lists, b->center, &b->nearest, err);
    if (st == ISO_OK) st = iso_vindex_pass(v, rows, take_lists, b, err);
    if (st != ISO_OK) return st;
    settle_lists(b);
    st = settle_residuals(b, err);
    free(b->sample);
    b->sample = NULL;
    if (st == ISO_OK) st = iso_vindex_pass(v, rows, take_rows, b, err);
    if (st != ISO_OK) return st;
    settle_radii(b);
    fault = iso_vindex_ivf_check(&b->x);
    if (fault) return iso_fail(err, ISO_E_INTERNAL, "the index that was built is not sound: %s", fault);
    iso_vindex_ivf_pack(&b->x);
    v->info.error = sqrt(b->worst) * (1 + 1e-6);
    v->info.approximate = true;
    return choose_tolerance(b, v, rows, err);
}

static iso_status ivf_build(iso_vindex *v, const iso_vindex_rows *rows, iso_vindex_sink *sink, iso_error *err)
{
    build b = {.x = {.dim = v->info.source.dim, .count = rows->count, .lists = lists_for(rows->count)}};
    b.x.cov_dim = b.x.dim <= ISO_VINDEX_IVF_COV_MAX ? b.x.dim : 0;
    b.x.middle_dim = b.x.dim;
    iso_status st = make(&b, v, rows, err);
    if (st == ISO_OK) {
        put_head(&b);
        st = iso_vindex_start(sink, 0, err);
    }
    if (st == ISO_OK)
        st = iso_vindex_put(sink, b.payload, iso_vindex_ivf_size(b.x.count, b.x.dim, b.x.lists, b.x.cov_dim, b.x.middle_dim), err);
    iso_vindex_nearest_free(b.nearest);
    iso_vindex_ivf_free_parts(&b.x);
    free(b.payload);
    free(b.sample);
    free(b.list);
    free(b.sum);
    free(b.center);
    free(b.next);
    return st;
}

/* ---- the engine ---- */

static iso_status ivf_open(iso_vindex *v, const char **fault, iso_error *err)
{
    uint32_t lists, cov, middle;
    if (v->payload_size < ISO_VINDEX_IVF_HEAD) {
        *fault = "its payload is too short";
        return ISO_E_FORMAT;
    }
    iso_vindex_ivf *x = iso_calloc(1, sizeof *x);
    if (!x) return iso_fail_memory(err);
    memcpy(&lists, v->payload, 4);
    memcpy(&cov, v->payload + 4, 4);
    memcpy(&x->tolerance, v->payload + 8, 8);
    memcpy(&middle, v->payload + 16, 4);
    x->dim = v->info.source.dim;
    x->count = v->info.count;
    x->lists = lists;
    x->cov_dim = (int)cov;
    x->middle_dim = (int)middle;
    if ((middle != 0 && middle != (uint32_t)x->dim) || (cov != 0 && cov != (uint32_t)x->dim) || cov > ISO_VINDEX_IVF_COV_MAX || x->count < 1 || lists > x->count ||
        iso_vindex_ivf_size(x->count, x->dim, x->lists, x->cov_dim, x->middle_dim) != v->payload_size)
        *fault = "its payload has another size than its lists and vectors take";
    if (!*fault) {
        iso_vindex_ivf_place(x, v->payload);
        *fault = iso_vindex_ivf_check(x);
    }
    if (*fault) {
        free(x);
        return ISO_E_FORMAT;
    }
    iso_vindex_ivf_pack(x);
    v->state = x;
    return ISO_OK;
}

static void ivf_close(iso_vindex *v)
{
    iso_vindex_ivf *x = v->state;
    if (x) iso_vindex_ivf_free_parts(x);
    free(x);
    v->state = NULL;
}

static iso_status ivf_search(const iso_vindex *v, const float *w, int64_t k, iso_ranked *out, int64_t *found,
                             iso_error *err)
{
    return iso_vindex_ivf_search(v->state, w, k, out, found, NULL, err);
}

static iso_status ivf_vector(iso_vindex *v, int64_t position, float *out, iso_error *err)
{
    iso_vindex_ivf *x = v->state;
    if (!x->slot) {
        x->slot = iso_calloc((size_t)x->count, sizeof *x->slot);
        if (!x->slot) return iso_fail_memory(err);
        for (int64_t i = 0; i < x->count; i++)
            if (x->position[i] < (uint64_t)x->count) x->slot[x->position[i]] = (uint32_t)i;
    }
    iso_half_load(x->dim, x->row + (size_t)x->slot[position] * (size_t)x->dim, out);
    for (int j = 0; j < x->middle_dim; j++) out[j] += x->middle[j];
    return ISO_OK;
}

static double ivf_slack(const iso_vindex *v, const float *w)
{
    iso_scan_query rows = iso_vindex_ivf_rows(v->state, w);
    return iso_scan_slack(&rows, 1.01);
}

const iso_vindex_engine iso_vindex_inverted = {ivf_build, ivf_open, ivf_close, ivf_search, ivf_vector, ivf_slack};
