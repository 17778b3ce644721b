/* vindex_ivf_build.c: making an inverted file, and the engine. The payload is made in memory (three quarters of what the
 * vectors take in single precision), because it is searched to choose the tolerance before it can be written. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

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
    STEPS = 96, /* of the tolerance, from 1 on, four to a half of it; then 0 */
    TIGHT = 8,  /* a list is tight below so many times the length of its centroid's rounding */
    DEPTHS = ISO_VINDEX_DEPTHS,
    POOLS_MOST = 256,
    FLIPS = 8   /* roundings that are changed at most so that the errors cancel out along the centroid */
};

typedef struct build {
    iso_vindex_ivf x; /* into payload */
    uint8_t *payload;
    size_t size;
    float *low, *step, *centroid_low, *centroid_step, *cov, *middle, *radius, *scale, *blur, *center;
    uint32_t *offset, *position;
    uint8_t *tight, *centroid, *code;
    uint16_t *row;

    float *sample; /* [samples, dim], rows 0, stride, 2 stride ... */
    int64_t samples, stride;
    iso_vindex_nearest *nearest;
    uint32_t *list; /* [count] of each row */
    double *sum;    /* [lists, dim] while assigning; then each list's sum of squared distances first */
    float *start;   /* [lists, dim] the centroids that rows are assigned by; then as their codes have them */
    float *unit;    /* [dim] the deviation of each number from its centroid's */
    uint32_t *next; /* [lists] where the next row of each list goes */
    uint32_t place[ISO_VINDEX_CHUNK]; /* of the rows at hand, and how far each is from what is kept of it: */
    float away[ISO_VINDEX_CHUNK];
} build;

static int64_t lists_for(int64_t count)
{
    int64_t lists = (int64_t)(LIST_FACTOR * sqrt((double)count));
    if (lists > count / ROWS_A_LIST) lists = count / ROWS_A_LIST;
    return lists < 1 ? 1 : lists;
}

/* One row of so many goes into the sample. */
static int64_t stride_for(int64_t count, int64_t lists)
{
    const int64_t most = lists * SAMPLE_A_LIST < SAMPLE_MOST ? lists * SAMPLE_A_LIST : SAMPLE_MOST;
    return (count + most - 1) / most;
}

/* A part of the payload, to be written. */
static void *own(const build *b, const void *part) { return b->payload + ((const uint8_t *)part - b->payload); }

/* ---- passes over the rows ---- */

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

/* How far each list reaches from its mean: the sum of squares, and the largest deviation of a number. */
static iso_status take_reach(void *ctx, int64_t first, int64_t n, const float *unit, iso_error *err)
{
    build *b = ctx;
    const int dim = b->x.dim;
    (void)err;
    for (int64_t i = 0; i < n; i++) {
        const int64_t list = b->list[first + i];
        const float *z = unit + i * dim, *center = b->center + list * dim;
        float most = b->scale[list];
        double square = 0;
        for (int j = 0; j < dim; j++) {
            const float r = z[j] - center[j];
            most = fmaxf(most, fabsf(r) / b->unit[j]);
            square += (double)r * r;
        }
        b->scale[list] = most;
        b->sum[list] += square;
    }
    return ISO_OK;
}

/* Of the roundings `kept` of r, those few are changed to `other`, the next number on the other side, that bring the sum of
 * the errors along c nearest to nothing. changed [dim]. */
static void cancel_along(int dim, const float *c, const float *r, const float *kept, const float *other, uint8_t *changed)
{
    double off = 0;
    memset(changed, 0, (size_t)dim);
    for (int j = 0; j < dim; j++) off += (double)c[j] * ((double)r[j] - kept[j]);
    for (int flip = 0; flip < FLIPS; flip++) {
        int best = -1;
        double least = fabs(off);
        for (int j = 0; j < dim; j++) {
            const double then = fabs(off + (double)c[j] * ((double)kept[j] - other[j]));
            if (then < least && !changed[j]) least = then, best = j;
        }
        if (best < 0) return;
        off += (double)c[best] * ((double)kept[best] - other[best]);
        changed[best] = 1;
    }
}

/* Room for the roundings of one row. */
typedef struct roundings {
    float *r, *kept, *other; /* [dim] */
    uint16_t *half, *next;
    uint8_t *changed;
} roundings;

static iso_status roundings_create(int dim, roundings *out, iso_error *err)
{
    float *room = iso_calloc((size_t)dim, 3 * sizeof *room + 2 * sizeof(uint16_t) + 1);
    if (!room) return iso_fail_memory(err);
    uint16_t *halves = (uint16_t *)(void *)(room + 3 * dim);
    *out = (roundings){room, room + dim, room + 2 * dim, halves, halves + dim, (uint8_t *)(halves + 2 * dim)};
    return ISO_OK;
}

static void put_codes(const build *b, int64_t list, roundings *t, uint8_t *code)
{
    const int dim = b->x.dim;
    const float scale = b->scale[list], *center = b->center + list * dim;
    for (int j = 0; j < dim; j++) code[j] = code_of(t->r[j], b->low[j] * scale, b->step[j] * scale);
    if (!b->tight[list]) return;
    for (int j = 0; j < dim; j++) {
        t->kept[j] = scale * (b->low[j] + (float)code[j] * b->step[j]);
        const int up = t->r[j] > t->kept[j];
        t->other[j] = (up ? code[j] < 255 : code[j] > 0) ? scale * (b->low[j] + (float)(up ? code[j] + 1 : code[j] - 1) * b->step[j]) : t->kept[j];
    }
    cancel_along(dim, center, t->r, t->kept, t->other, t->changed);
    for (int j = 0; j < dim; j++)
        if (t->changed[j]) code[j] = (uint8_t)(t->other[j] > t->kept[j] ? code[j] + 1 : code[j] - 1);
}

/* The squared distance of the row in 16 bits from what it stands for. */
static double put_row(const build *b, int64_t list, roundings *t, uint16_t *row)
{
    const int dim = b->x.dim;
    double distance = 0;
    iso_half_store(dim, t->r, t->half);
    iso_half_load(dim, t->half, t->kept);
    if (b->tight[list]) {
        for (int j = 0; j < dim; j++) { /* halves of one sign are in the order of their bits */
            const bool away = fabsf(t->r[j]) > fabsf(t->kept[j]);
            t->next[j] = (uint16_t)(away ? t->half[j] + 1 : t->half[j] & 0x7fff ? t->half[j] - 1 : t->half[j]);
        }
        iso_half_load(dim, t->next, t->other);
        cancel_along(dim, b->center + list * dim, t->r, t->kept, t->other, t->changed);
        for (int j = 0; j < dim; j++)
            if (t->changed[j]) t->half[j] = t->next[j], t->kept[j] = t->other[j];
    }
    memcpy(row, t->half, sizeof *row * (size_t)dim);
    for (int j = 0; j < dim; j++) distance += ((double)t->r[j] - t->kept[j]) * ((double)t->r[j] - t->kept[j]);
    return distance;
}

/* Each row to its place. */
static iso_status take_rows(void *ctx, int64_t first, int64_t n, const float *unit, iso_error *err)
{
    build *b = ctx;
    const int dim = b->x.dim;
    iso_status st = ISO_OK;
    for (int64_t i = 0; i < n; i++) b->position[b->place[i] = b->next[b->list[first + i]]++] = (uint32_t)(first + i);
#pragma omp parallel
    {
        roundings t = {0};
        iso_error mine;
        const iso_status s = roundings_create(dim, &t, &mine);
#pragma omp for
        for (int64_t i = 0; i < n; i++) {
            if (s != ISO_OK) continue;
            const int64_t list = b->list[first + i];
            const size_t slot = b->place[i] * (size_t)dim;
            const float *z = unit + i * dim, *center = b->center + list * dim;
            for (int j = 0; j < dim; j++) t.r[j] = z[j] - center[j];
            put_codes(b, list, &t, b->code + slot);
            for (int j = 0; j < dim && !b->tight[list]; j++) t.r[j] = z[j] - b->middle[j];
            b->away[i] = (float)sqrt(put_row(b, list, &t, b->row + slot));
        }
#pragma omp critical(iso_vindex_ivf_rows)
        if (s != ISO_OK) st = s;
        free(t.r);
    }
    if (st != ISO_OK) return iso_fail_memory(err);
    for (int64_t i = 0; i < n; i++) b->blur[b->list[first + i]] = fmaxf(b->blur[b->list[first + i]], b->away[i] * (1 + 1e-6f));
    return ISO_OK;
}

/* ---- between them ---- */

/* What the payload's parts do not write (their gaps) is zeros, and not in memory before. */
static iso_status allocate(build *b, iso_error *err)
{
    iso_vindex_ivf *x = &b->x;
    size_t size = iso_vindex_ivf_size(x->count, x->dim, x->lists, x->cov_dim);
    if (size == 0)
        return iso_fail(err, ISO_E_UNSUPPORTED, "an index of kind ivf cannot hold %lld vectors of %d numbers",
                        (long long)x->count, x->dim);
    b->size = size;
    void *payload = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (payload == MAP_FAILED) return iso_fail_memory(err);
    b->payload = payload;
    b->list = iso_calloc((size_t)x->count, sizeof *b->list);
    b->sum = iso_calloc((size_t)x->lists * (size_t)x->dim, sizeof *b->sum);
    b->start = iso_calloc((size_t)x->lists * (size_t)x->dim, sizeof *b->start);
    b->next = iso_calloc((size_t)x->lists, sizeof *b->next);
    b->unit = iso_calloc((size_t)x->dim, sizeof *b->unit);
    b->stride = stride_for(x->count, x->lists);
    b->samples = (x->count + b->stride - 1) / b->stride;
    b->sample = iso_calloc((size_t)b->samples, sizeof *b->sample * (size_t)x->dim);
    if (!b->list || !b->sum || !b->start || !b->next || !b->unit || !b->sample) return iso_fail_memory(err);
    iso_vindex_ivf_place(x, b->payload);
    b->low = own(b, x->low);
    b->step = own(b, x->step);
    b->cov = own(b, x->cov);
    b->middle = own(b, x->middle);
    b->radius = own(b, x->radius);
    b->scale = own(b, x->scale);
    b->blur = own(b, x->blur);
    b->center = own(b, x->center);
    b->offset = own(b, x->offset);
    b->position = own(b, x->position);
    b->centroid_low = own(b, x->centroid_low);
    b->centroid_step = own(b, x->centroid_step);
    b->tight = own(b, x->tight);
    b->centroid = own(b, x->centroid);
    b->row = own(b, x->row);
    b->code = own(b, x->code);
    return ISO_OK;
}

/* The means of the lists become their centroids, and are rounded to codes of one byte a number; counts become offsets. */
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
        double n = b->offset[l + 1];
        for (int j = 0; j < dim; j++) b->center[l * dim + j] = n > 0 ? (float)(b->sum[l * dim + j] / n) : b->start[l * dim + j];
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
        b->start[i] = low + (float)b->centroid[i] * step;
    }
    memset(b->sum, 0, sizeof *b->sum * (size_t)x->lists);
}

/* From the sample: the deviation of each number of a residual, and their covariance. */
static iso_status settle_residuals(build *b, iso_error *err)
{
    const int dim = b->x.dim, cov = b->x.cov_dim;
    int64_t skip = b->samples / COV_SAMPLE + 1;
    double trace = 0, all = 0;
    double *sum = iso_calloc((size_t)(cov ? cov : 1) * (size_t)(cov ? cov : 1), sizeof *sum);
    double *square = iso_calloc((size_t)dim, sizeof *square);
    if (!sum || !square) {
        free(sum);
        free(square);
        return iso_fail_memory(err);
    }
    for (int64_t i = 0; i < b->samples; i++) { /* in place: the sample is not needed any more */
        float *r = b->sample + i * dim;
        const float *center = b->center + (size_t)b->list[i * b->stride] * (size_t)dim;
        for (int j = 0; j < dim; j++) {
            r[j] -= center[j];
            square[j] += (double)r[j] * r[j];
        }
    }
    for (int j = 0; j < dim; j++) all += square[j];
    for (int j = 0; j < dim; j++) { /* one that hardly varies may do so outside of the sample */
        b->unit[j] = all > 0 ? (float)sqrt(fmax(square[j], 1e-6 * all / dim) / (double)b->samples) : 1;
        b->low[j] = -b->unit[j];
        b->step[j] = 2 * b->unit[j] / 255;
    }
#pragma omp parallel for
    for (int j = 0; j < cov; j++)
        for (int64_t i = 0; i < b->samples; i += skip) {
            const float *r = b->sample + i * dim;
            for (int l = 0; l < cov; l++) sum[(size_t)j * (size_t)cov + (size_t)l] += (double)r[j] * r[l];
        }
    for (int j = 0; j < cov; j++) trace += sum[(size_t)j * (size_t)cov + (size_t)j];
    for (size_t i = 0; i < (size_t)cov * (size_t)cov; i++) b->cov[i] = trace > 0 ? (float)(sum[i] / trace) : 0;
    free(sum);
    free(square);
    return ISO_OK;
}

/* The squared length of what the codes of a centroid leave out. */
static double rounding_of(const build *b, int64_t list)
{
    double off = 0;
    for (int64_t i = list * b->x.dim; i < (list + 1) * b->x.dim; i++) off += ((double)b->center[i] - b->start[i]) * ((double)b->center[i] - b->start[i]);
    return off;
}

/* Which lists are tight; what is kept of the others is relative to their centroids' codes. */
static void settle_radii(build *b)
{
    const int dim = b->x.dim;
    bool any = false;
    for (int64_t l = 0; l < b->x.lists; l++) { /* one vector alone is tight where others are: by itself it would make every search look for such */
        const int64_t n = (int64_t)b->offset[l + 1] - b->offset[l];
        any = any || (n > 1 && b->sum[l] / (double)n < TIGHT * TIGHT * rounding_of(b, l));
    }
    for (int64_t l = 0; l < b->x.lists; l++) {
        const int64_t n = (int64_t)b->offset[l + 1] - b->offset[l];
        float *center = b->center + l * dim, most = 0;
        const float *coded = b->start + l * dim;
        const double off = rounding_of(b, l);
        double spread = n ? b->sum[l] / (double)n : 0;
        for (int j = 0; j < dim; j++) most = fmaxf(most, fabsf(center[j] - coded[j]) / b->unit[j]);
        b->tight[l] = any && spread < TIGHT * TIGHT * off;
        if (!b->tight[l]) {
            spread += n ? off : 0;
            b->scale[l] += most;
            memcpy(center, coded, sizeof *center * (size_t)dim);
        }
        b->radius[l] = (float)sqrt(spread);
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
    iso_vindex_scale scale;
    iso_status st = iso_vindex_ivf_search(t->x, w, k, out, found, &scale, &visited, err);
#pragma omp atomic
    t->visited += visited;
#pragma omp atomic
    t->searches++;
    return st;
}

static double tolerance_of(int step) { return step >= STEPS ? 0 : pow(0.5, step / 4.0); }

/* The recall as x stands, which becomes what the index states. */
static iso_status try_out(build *b, iso_vindex *v, iso_vindex_trial *t, bool enough[DEPTHS], iso_error *err)
{
    trial run = {.x = &b->x};
    double least[DEPTHS];
    const iso_status st = iso_vindex_trial_recall(t, on_trial, &run, least, enough, err);
    if (st != ISO_OK) return st;
    v->info.recall = least[1];
    v->info.least = fmin(least[0], fmin(least[1], least[2]));
    v->info.width = (int)((run.visited + run.searches - 1) / run.searches);
    return ISO_OK;
}

/* For each depth the largest tolerance that reaches the recall, by halving the range of steps; a quarter of it at first, as small tolerances
 * take long. enough: whether it is reached. */
static iso_status choose_tolerance(build *b, iso_vindex *v, iso_vindex_trial *t, bool enough[DEPTHS], iso_error *err)
{
    int low[DEPTHS] = {0}, high[DEPTHS], step[DEPTHS] = {0}; /* the answer is from low to high */
    iso_status st = ISO_OK;
    for (int d = 0; d < DEPTHS; d++) high[d] = STEPS;
    while (st == ISO_OK && (low[0] < high[0] || low[1] < high[1] || low[2] < high[2])) {
        for (int d = 0; d < DEPTHS; d++) {
            step[d] = high[d] == STEPS ? low[d] + (high[d] - low[d]) / 4 : (low[d] + high[d]) / 2;
            b->x.tolerance[d] = tolerance_of(step[d]);
        }
        st = try_out(b, v, t, enough, err);
        for (int d = 0; st == ISO_OK && d < DEPTHS; d++) {
            if (enough[d]) high[d] = step[d];
            else if (low[d] < high[d]) low[d] = step[d] + 1;
        }
    }
    const bool tried = step[0] == high[0] && step[1] == high[1] && step[2] == high[2]; /* just now */
    for (int d = 0; d < DEPTHS; d++) b->x.tolerance[d] = tolerance_of(high[d]);
    return st == ISO_OK && !tried ? try_out(b, v, t, enough, err) : st;
}

/* Where even all lists do not give the recall, it is the codes that do not tell the best vectors apart: more of them then become candidates. */
static iso_status tune(build *b, iso_vindex *v, const iso_vindex_rows *rows, iso_error *err)
{
    iso_vindex_trial *t = NULL;
    bool enough[DEPTHS];
    iso_status st = iso_vindex_trial_create(v, rows, &t, err);
    iso_progress_pass(rows->progress, "tuning", "", 0);
    if (st == ISO_OK) st = choose_tolerance(b, v, t, enough, err);
    while (st == ISO_OK && !(enough[0] && enough[1] && enough[2]) && b->x.pools < POOLS_MOST) {
        b->x.pools *= 4;
        for (int d = 0; d < DEPTHS; d++) b->x.tolerance[d] = 0;
        st = try_out(b, v, t, enough, err);
        if (st == ISO_OK && enough[0] && enough[1] && enough[2]) st = choose_tolerance(b, v, t, enough, err); /* perhaps not all lists are needed then */
    }
    iso_vindex_trial_free(t);
    return st;
}

static void put_head(const build *b)
{
    uint32_t lists = (uint32_t)b->x.lists, cov = (uint32_t)b->x.cov_dim, pools = (uint32_t)b->x.pools;
    memcpy(b->payload, &lists, 4);
    memcpy(b->payload + 4, &cov, 4);
    memcpy(b->payload + 8, &pools, 4);
    memcpy(b->payload + 16, b->x.tolerance, sizeof b->x.tolerance);
}

static iso_status make(build *b, iso_vindex *v, const iso_vindex_rows *rows, iso_error *err)
{
    const char *fault = NULL;
    iso_status st = allocate(b, err);
    if (st == ISO_OK) st = iso_vindex_pass(v, rows, iso_vindex_take_sample, &(iso_vindex_sample){b->x.dim, b->stride, b->sample}, err);
    if (st == ISO_OK) st = iso_vindex_kmeans(b->x.dim, b->samples, b->sample, b->x.lists, b->start, rows->progress, err);
    if (st == ISO_OK) st = iso_vindex_nearest_create(b->x.dim, b->x.lists, b->start, &b->nearest, err);
    if (st == ISO_OK) st = iso_vindex_pass(v, rows, take_lists, b, err);
    if (st != ISO_OK) return st;
    settle_lists(b);
    st = settle_residuals(b, err);
    free(b->sample);
    b->sample = NULL;
    if (st == ISO_OK) st = iso_vindex_pass(v, rows, take_reach, b, err);
    if (st != ISO_OK) return st;
    settle_radii(b);
    st = iso_vindex_pass(v, rows, take_rows, b, err);
    if (st != ISO_OK) return st;
    b->x.pools = 1;
    fault = iso_vindex_ivf_check(&b->x);
    if (fault) return iso_fail(err, ISO_E_INTERNAL, "the index that was built is not sound: %s", fault);
    iso_vindex_ivf_pack(&b->x);
    float blur = 0; /* the largest first: gcc 12 for arm64 dies of an internal error where a loop takes fmax of a widened number */
    for (int64_t l = 0; l < b->x.lists; l++) blur = fmaxf(blur, b->blur[l]);
    v->info.error = fmax(v->info.error, (double)blur * (1 + 1e-6) + 0x1p-23); /* and adding c or m rounds */
    v->info.approximate = true;
    return tune(b, v, rows, err);
}

static iso_status ivf_build(iso_vindex *v, const iso_vindex_rows *rows, iso_vindex_sink *sink, iso_error *err)
{
    build *b = iso_calloc(1, sizeof *b);
    if (!b) return iso_fail_memory(err);
    b->x = (iso_vindex_ivf){.dim = v->info.source.dim, .count = rows->count, .lists = lists_for(rows->count)};
    b->x.cov_dim = b->x.dim <= ISO_VINDEX_IVF_COV_MAX ? b->x.dim : 0;
    iso_status st = make(b, v, rows, err);
    if (st == ISO_OK) {
        put_head(b);
        st = iso_vindex_start(sink, 0, err);
    }
    if (st == ISO_OK) st = iso_vindex_put(sink, b->payload, b->size, err);
    iso_vindex_nearest_free(b->nearest);
    iso_vindex_ivf_free_parts(&b->x);
    if (b->payload) munmap(b->payload, b->size);
    free(b->sample);
    free(b->list);
    free(b->sum);
    free(b->start);
    free(b->next);
    free(b->unit);
    free(b);
    return st;
}

/* ---- the engine ---- */

static iso_status ivf_open(iso_vindex *v, const char **fault, iso_error *err)
{
    uint32_t lists, cov, pools;
    if (v->payload_size < ISO_VINDEX_IVF_HEAD) {
        *fault = "its payload is too short";
        return ISO_E_FORMAT;
    }
    iso_vindex_ivf *x = iso_calloc(1, sizeof *x);
    if (!x) return iso_fail_memory(err);
    memcpy(&lists, v->payload, 4);
    memcpy(&cov, v->payload + 4, 4);
    memcpy(x->tolerance, v->payload + 16, sizeof x->tolerance);
    memcpy(&pools, v->payload + 8, 4);
    x->dim = v->info.source.dim;
    x->count = v->info.count;
    x->lists = lists;
    x->cov_dim = (int)cov;
    x->pools = pools <= ISO_VINDEX_IVF_POOLS_MOST ? (int)pools : 0;
    if ((cov != 0 && cov != (uint32_t)x->dim) || cov > ISO_VINDEX_IVF_COV_MAX || x->count < 1 || lists > x->count ||
        iso_vindex_ivf_size(x->count, x->dim, x->lists, x->cov_dim) != v->payload_size)
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
                             iso_vindex_scale *scale, iso_error *err)
{
    return iso_vindex_ivf_search(v->state, w, k, out, found, scale, NULL, err);
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
    const int64_t list = iso_vindex_ivf_list(x, x->slot[position]);
    const float *from = x->tight[list] ? x->center + list * x->dim : x->middle;
    iso_half_load(x->dim, x->row + (size_t)x->slot[position] * (size_t)x->dim, out);
    for (int j = 0; j < x->dim; j++) out[j] += from[j];
    return ISO_OK;
}

static double ivf_slack(const iso_vindex *v, const float *w)
{
    const iso_vindex_ivf *x = v->state;
    double bias = 0;
    for (int j = 0; j < x->dim; j++) bias += (double)w[j] * x->middle[j];
    const iso_scan_query rows = {ISO_CODE_F16, x->dim, w, (float)bias};
    return iso_scan_slack(&rows, 1.01);
}

static int64_t ivf_want(const iso_vindex *v, int64_t k)
{
    (void)v;
    return ISO_VINDEX_WANT(k);
}

const iso_vindex_engine iso_vindex_inverted = {ivf_build, ivf_open, ivf_close, ivf_search, ivf_vector, ivf_slack, ivf_want};
