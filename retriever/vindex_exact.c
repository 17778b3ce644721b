/* vindex_exact.c: flat, fp16 and sq8: every row is read for every query (scan.h). The payload is FAISS's own format, so that
 * FAISS can read what it holds, but nothing of FAISS is needed to write or search it. */
#include "retriever/vindex_parts.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "retriever/vindex_head.h"

typedef struct exact {
    iso_code code;
    const uint8_t *rows; /* [count, dim] of code, in the map */
    float *low, *step;   /* u8: [dim] each; in one allocation */
} exact;

/* FAISS's numbers for what is in its headers. */
enum { QT_8BIT = 0, QT_FP16 = 4, RANGE_MINMAX = 0 };

/* The payload's head. `trained` [2, dim]: least value and range of each number, u8 only; written, or set to where they
 * are. */
static void walk_head(iso_vindex_head *h, iso_code code, int dim, int64_t count, const uint8_t **trained)
{
    const float range_argument = 0;
    const size_t code_size = (size_t)dim * (size_t)iso_code_bytes(code),
                 table = code == ISO_CODE_U8 ? 2 * sizeof(float) * (size_t)dim : 0;
    iso_vindex_field_index(h, code == ISO_CODE_F32 ? "IxFI" : "IxSQ", dim, count);
    if (code == ISO_CODE_F32) {
        iso_vindex_field_u64(h, (uint64_t)count * (uint64_t)dim);
        return;
    }
    iso_vindex_field_i32(h, code == ISO_CODE_U8 ? QT_8BIT : QT_FP16);
    iso_vindex_field_i32(h, RANGE_MINMAX);
    iso_vindex_field(h, &range_argument, sizeof range_argument);
    iso_vindex_field_u64(h, (uint64_t)dim);
    iso_vindex_field_u64(h, code_size);
    iso_vindex_field_u64(h, table / sizeof(float));
    if (h->reading)
        *trained = iso_vindex_field_bytes(h, table);
    else
        iso_vindex_field(h, *trained, table);
    iso_vindex_field_u64(h, (uint64_t)count * code_size);
}

/* How FAISS decodes a byte c: least + (c + 1/2) / 255 * range. */
static void steps_of(exact *x, int dim, const float *least, const float *range)
{
    for (int j = 0; j < dim; j++) {
        x->low[j] = (float)(least[j] + 0.5 / 255 * range[j]);
        x->step[j] = (float)(range[j] / 255.0);
    }
}

static iso_status room_for_steps(exact *x, int dim, iso_error *err)
{
    x->low = iso_calloc((size_t)dim, 2 * sizeof *x->low);
    x->step = x->low + dim;
    return x->low ? ISO_OK : iso_fail_memory(err);
}

/* ---- building ---- */

typedef struct builder {
    exact x;
    int dim;
    float *range; /* [2, dim]: least, then largest, then their difference */
    void *codes;  /* [ISO_VINDEX_CHUNK, dim] of x.code; NULL for f32 */
    float *kept;  /* f16: a row, decoded */
    double worst; /* the largest square of an error so far */
    iso_vindex_sink *sink;
} builder;

static iso_status take_range(void *ctx, int64_t first, int64_t n, const float *unit, iso_error *err)
{
    builder *b = ctx;
    float *least = b->range, *most = b->range + b->dim;
    (void)err;
    if (first == 0)
        for (int j = 0; j < b->dim; j++) least[j] = most[j] = unit[j];
    for (int64_t i = 0; i < n; i++)
        for (int j = 0; j < b->dim; j++) {
            float u = unit[i * b->dim + j];
            least[j] = u < least[j] ? u : least[j];
            most[j] = u > most[j] ? u : most[j];
        }
    return ISO_OK;
}

static double encode_f16(builder *b, const float *unit, uint16_t *out)
{
    double sum = 0;
    iso_half_store(b->dim, unit, out);
    iso_half_load(b->dim, out, b->kept);
    for (int j = 0; j < b->dim; j++) {
        double d = (double)unit[j] - b->kept[j];
        sum += d * d;
    }
    return sum;
}

static double encode_u8(const builder *b, const float *unit, uint8_t *out)
{
    double sum = 0;
    for (int j = 0; j < b->dim; j++) {
        const double low = b->x.low[j], step = b->x.step[j];
        double c = step > 0 ? (unit[j] - low) / step + 0.5 : 0;
        out[j] = (uint8_t)(c < 0 ? 0 : c > 255 ? 255 : c);
        double d = unit[j] - (low + out[j] * step);
        sum += d * d;
    }
    return sum;
}

static iso_status take_rows(void *ctx, int64_t first, int64_t n, const float *unit, iso_error *err)
{
    builder *b = ctx;
    const int64_t dim = b->dim;
    (void)first;
    if (b->x.code == ISO_CODE_F32) return iso_vindex_put(b->sink, unit, sizeof *unit * (size_t)(n * dim), err);
    for (int64_t i = 0; i < n; i++) {
        double error = b->x.code == ISO_CODE_F16 ? encode_f16(b, unit + i * dim, (uint16_t *)b->codes + i * dim)
                                                 : encode_u8(b, unit + i * dim, (uint8_t *)b->codes + i * dim);
        if (error > b->worst) b->worst = error;
    }
    return iso_vindex_put(b->sink, b->codes, (size_t)(n * dim) * (size_t)iso_code_bytes(b->x.code), err);
}

static iso_status put_head(builder *b, int64_t count, iso_error *err)
{
    const uint8_t *trained = (const uint8_t *)b->range;
    iso_vindex_head h = {.size = 256 + 2 * sizeof(float) * (size_t)b->dim};
    h.bytes = iso_calloc(1, h.size);
    if (!h.bytes) return iso_fail_memory(err);
    walk_head(&h, b->x.code, b->dim, count, &trained);
    iso_status st = iso_vindex_start(b->sink, h.at, err);
    if (st == ISO_OK) st = iso_vindex_put(b->sink, h.bytes, h.at, err);
    free(h.bytes);
    return st;
}

static iso_status exact_build(iso_vindex *v, const iso_vindex_rows *rows, iso_vindex_sink *sink, iso_error *err)
{
    const int dim = v->info.source.dim;
    builder b = {.dim = dim, .sink = sink};
    iso_status st = ISO_OK;
    if (rows->count >= ISO_VINDEX_SMALL && strcmp(v->info.kind, "fp16") == 0) b.x.code = ISO_CODE_F16;
    if (rows->count >= ISO_VINDEX_SMALL && strcmp(v->info.kind, "sq8") == 0) b.x.code = ISO_CODE_U8;
    if (b.x.code != ISO_CODE_F32) {
        b.codes = iso_calloc(ISO_VINDEX_CHUNK, (size_t)dim * (size_t)iso_code_bytes(b.x.code));
        b.kept = iso_calloc((size_t)dim, sizeof *b.kept);
        b.range = iso_calloc((size_t)dim, 2 * sizeof *b.range);
        if (!b.codes || !b.kept || !b.range) st = iso_fail_memory(err);
    }
    if (st == ISO_OK && b.x.code == ISO_CODE_U8) {
        st = room_for_steps(&b.x, dim, err);
        if (st == ISO_OK) st = iso_vindex_pass(v, rows, take_range, &b, err);
        for (int j = 0; st == ISO_OK && j < dim; j++) b.range[dim + j] -= b.range[j];
        if (st == ISO_OK) steps_of(&b.x, dim, b.range, b.range + dim);
    }
    if (st == ISO_OK) st = put_head(&b, rows->count, err);
    if (st == ISO_OK) st = iso_vindex_pass(v, rows, take_rows, &b, err);
    v->info.error = sqrt(b.worst) * (1 + 1e-6);
    free(b.codes);
    free(b.kept);
    free(b.range);
    free(b.x.low);
    return st;
}

/* ---- use ---- */

static void exact_close(iso_vindex *v)
{
    exact *x = v->state;
    if (!x) return;
    free(x->low);
    free(x);
    v->state = NULL;
}

/* Which of the three it is, by its first field that tells. */
static iso_code code_of(const iso_vindex *v)
{
    if (v->payload_size < 4 || memcmp(v->payload, "IxSQ", 4) != 0) return ISO_CODE_F32;
    return strcmp(v->info.kind, "sq8") == 0 ? ISO_CODE_U8 : ISO_CODE_F16;
}

static iso_status exact_open(iso_vindex *v, const char **fault, iso_error *err)
{
    const int dim = v->info.source.dim;
    const uint8_t *trained = NULL;
    exact *x = iso_calloc(1, sizeof *x);
    if (!x) return iso_fail_memory(err);
    v->state = x;
    x->code = code_of(v);
    iso_vindex_head h = iso_vindex_head_read(v->payload, v->payload_size);
    walk_head(&h, x->code, dim, v->info.count, &trained);
    if (h.bad || h.size - h.at != (size_t)v->info.count * (size_t)dim * (size_t)iso_code_bytes(x->code)) {
        *fault = "its vectors are not what the header says";
        return ISO_E_FORMAT;
    }
    x->rows = v->payload + h.at;
    if (x->code != ISO_CODE_U8) return ISO_OK;
    float *range = iso_calloc((size_t)dim, 2 * sizeof *range);
    iso_status st = range ? room_for_steps(x, dim, err) : iso_fail_memory(err);
    if (st == ISO_OK) {
        memcpy(range, trained, 2 * sizeof *range * (size_t)dim);
        steps_of(x, dim, range, range + dim);
    }
    free(range);
    return st;
}

/* weight: [dim] for codes u8, unused otherwise. */
static iso_scan_query query_of(const iso_vindex *v, const float *w, float *weight)
{
    const exact *x = v->state;
    if (x->code == ISO_CODE_U8) return iso_scan_query_u8(v->info.source.dim, w, x->low, x->step, weight);
    return (iso_scan_query){x->code, v->info.source.dim, w, 0};
}

static iso_status exact_search(const iso_vindex *v, const float *w, int64_t k, iso_ranked *out, int64_t *found,
                               iso_vindex_scale *scale, iso_error *err)
{
    (void)scale;
    const exact *x = v->state;
    float *weight = iso_calloc((size_t)v->info.source.dim, sizeof *weight);
    if (!weight) return iso_fail_memory(err);
    iso_scan_query q = query_of(v, w, weight);
    iso_status st = iso_scan_best(&q, x->rows, v->info.count, k, out, found, err);
    free(weight);
    return st;
}

static iso_status exact_vector(iso_vindex *v, int64_t position, float *out, iso_error *err)
{
    const exact *x = v->state;
    const size_t dim = (size_t)v->info.source.dim, size = dim * (size_t)iso_code_bytes(x->code);
    const uint8_t *row = x->rows + (size_t)position * size;
    (void)err;
    if (x->code == ISO_CODE_F32) memcpy(out, row, size);
    if (x->code == ISO_CODE_F16) iso_half_load((int64_t)dim, (const uint16_t *)(const void *)row, out);
    for (size_t j = 0; x->code == ISO_CODE_U8 && j < dim; j++)
        out[j] = (float)(x->low[j] + (double)row[j] * x->step[j]);
    return ISO_OK;
}

static double exact_slack(const iso_vindex *v, const float *w)
{
    float *weight = iso_calloc((size_t)v->info.source.dim, sizeof *weight);
    if (!weight) return INFINITY; /* nothing can be proved */
    iso_scan_query q = query_of(v, w, weight);
    double slack = iso_scan_slack(&q, 1 + v->info.error + 1e-6);
    free(weight);
    return slack;
}

/* The coarser the rows, the more of them until the answer is proved. */
static int64_t exact_want(const iso_vindex *v, int64_t k)
{
    const exact *x = v->state;
    return x->code == ISO_CODE_U8 ? 4 * k + 64 : x->code == ISO_CODE_F16 ? 2 * k + 64 : k + 32;
}

const iso_vindex_engine iso_vindex_exact = {exact_build, exact_open, exact_close, exact_search, exact_vector, exact_slack, exact_want};
