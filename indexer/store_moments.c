/* store_moments.c: the exact sums behind the mean and covariance of the database.
 *
 * With u = z/|z| rounded to multiples of 2^-22 every number is an integer k = u 2^22 of at most 2^22, and a sum of up to
 * 512 products of two of them is an integer of at most 2^53: exact in double, whatever the order and the instructions
 * (store_sums_amx.c has integers all along). So a transaction collects vectors in blocks, multiplies a full block like a
 * small matrix, and adds that to 128-bit integers, which no database can overflow. These are a record of `meta`, named after
 * the generation whose items they cover: a program that knows nothing of them leaves one of an older generation, which then
 * counts for nothing. Its checksum is over all that comes before it.
 */
#include <float.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "base/memory.h"
#include "base/progress.h"
#include "indexer/store_sums.h"

_Static_assert(sizeof(double) == 8 && ISO_MOMENTS_DIM_MAX <= 4096, "the record of the sums fits LMDB's 32-bit lengths");

enum {
    VERSION = 2, /* of 1 there was no checksum */
    HEADER = 24, /* u32 version, u32 dim, u64 count, u64 generation; then the sums and the packed upper triangle, */
    CHECKSUM = 8, /* and XXH3 of all that */
    LANES = ISO_SUMS_LANES, /* a panel is LANES numbers wide */
    ROWS = 4,               /* of a tile */
    BLOCK = ISO_SUMS_BLOCK,
    PANEL = (BLOCK + 1) * LANES, /* from one panel to the next: no power of two, which caches suffer from */
};
#define SCALE ISO_SUMS_SCALE
#define KEY "moments"

typedef double pair __attribute__((vector_size(2 * sizeof(double))));

static size_t totals_of(int dim) { return (size_t)dim + (size_t)dim * ((size_t)dim + 1) / 2; }

uint64_t iso_sums_bytes(int dim)
{
    return dim > ISO_MOMENTS_DIM_MAX ? 0 : HEADER + sizeof(iso_total) * (uint64_t)totals_of(dim) + CHECKSUM;
}

void iso_sums_free(iso_sums *s)
{
    if (!s) return;
    free(s->block[0]);
    free(s->block[1]);
    free(s->sum);
    free(s->work);
    free(s);
}

/* An even number of panels: arithmetic that lays it out otherwise may pad vectors to sixteen numbers. */
static double *block_new(const iso_sums *s)
{
    return iso_calloc(((size_t)s->panels + 1) / 2 * 2 * PANEL, sizeof(double));
}

static void choose(iso_sums *s);

iso_sums *iso_sums_new(int dim)
{
    iso_sums *s = iso_calloc(1, sizeof *s);
    if (!s) return NULL;
    s->dim = dim;
    s->panels = (dim + LANES - 1) / LANES;
    choose(s);
    s->sum = iso_calloc(totals_of(dim), sizeof *s->sum);
    s->block[0] = block_new(s);
    if (s->sum && s->block[0]) return s;
    iso_sums_free(s);
    return NULL;
}

/* ---- arithmetic: the same bits on every machine, whatever the compiler fuses ---- */

/* k of one vector into row `at` of a block; false where it is not finite or zero. Squares of floats are exact in double, and
 * the lanes fix the order of their sum. */
static inline __attribute__((always_inline)) bool round_vector(const iso_sums *s, const float *v, double *block, int at)
{
    double square[LANES] = {0};
    for (int p = 0; p < s->panels; p++) {
        double *x = block + (size_t)p * PANEL + (size_t)at * LANES;
        int n = s->dim - p * LANES < LANES ? s->dim - p * LANES : LANES;
        for (int i = 0; i < n; i++) x[i] = (double)v[p * LANES + i];
        for (int i = n; i < LANES; i++) x[i] = 0;
        for (int i = 0; i < LANES; i++) square[i] += x[i] * x[i];
    }
    double norm = iso_sums_norm(square);
    if (!(norm > 0 && norm <= DBL_MAX)) return false;
    for (int p = 0; p < s->panels; p++) {
        double *x = block + (size_t)p * PANEL + (size_t)at * LANES;
        for (int i = 0; i < LANES; i++) x[i] = (x[i] / norm * (1 << SCALE) + ISO_SUMS_INTEGERS) - ISO_SUMS_INTEGERS;
    }
    return true;
}

/* ROWS numbers of a against a panel's, summed over n vectors. */
static void tile(const double *a, const double *b, int n, double *out)
{
    for (int half = 0; half < LANES; half += LANES / 2) {
        const double *x = a, *y = b + half;
        pair b0, b1, c[2 * ROWS] = {{0}};
        pair c00 = c[0], c01 = c[0], c10 = c[0], c11 = c[0], c20 = c[0], c21 = c[0], c30 = c[0], c31 = c[0];
        for (int v = 0; v < n; v++, x += LANES, y += LANES) {
            memcpy(&b0, y, sizeof b0);
            memcpy(&b1, y + 2, sizeof b1);
            c00 += x[0] * b0, c01 += x[0] * b1;
            c10 += x[1] * b0, c11 += x[1] * b1;
            c20 += x[2] * b0, c21 += x[2] * b1;
            c30 += x[3] * b0, c31 += x[3] * b1;
        }
        c[0] = c00, c[1] = c01, c[2] = c10, c[3] = c11, c[4] = c20, c[5] = c21, c[6] = c30, c[7] = c31;
        for (int r = 0; r < ROWS; r++) memcpy(out + r * LANES + half, c + 2 * r, 2 * sizeof *c);
    }
}

static void multiply(iso_sums *s, bool minus, int n)
{
    const double *x = s->block[minus];
    const size_t panel = PANEL;
    double out[ROWS * LANES];
    for (int i = 0; i < s->dim; i += ROWS) {
        for (int p = i / LANES; p < s->panels; p++) {
            tile(x + (size_t)(i / LANES) * panel + i % LANES, x + (size_t)p * panel, n, out);
            for (int r = 0; r < ROWS && i + r < s->dim; r++) {
                int from = p * LANES > i + r ? p * LANES : i + r,
                    to = (p + 1) * LANES < s->dim ? (p + 1) * LANES : s->dim;
                iso_total *row = s->sum + iso_sums_row(s->dim, i + r) - (i + r);
                for (int j = from; j < to; j++) iso_total_add(row + j, (int64_t)out[r * LANES + j - p * LANES], minus);
            }
        }
    }
}

static void add_numbers(iso_sums *s, bool minus, int n)
{
    for (int p = 0; p < s->panels; p++) {
        const double *x = s->block[minus] + (size_t)p * PANEL;
        double sum[LANES] = {0};
        for (int v = 0; v < n; v++, x += LANES)
            for (int i = 0; i < LANES; i++) sum[i] += x[i];
        for (int i = 0; i < LANES && p * LANES + i < s->dim; i++)
            iso_total_add(s->sum + p * LANES + i, (int64_t)sum[i], minus);
    }
}

/* As many of n vectors as are sound. */
static int round_portable(const iso_sums *s, const float *v, int n, double *block, int at)
{
    for (int i = 0; i < n; i++)
        if (!round_vector(s, v + (size_t)i * (size_t)s->dim, block, at + i)) return i;
    return n;
}

static void add_portable(iso_sums *s, bool minus, int n)
{
    add_numbers(s, minus, n);
    multiply(s, minus, n);
}

/* The fastest arithmetic that may be used here. */
static void choose(iso_sums *s)
{
    if (iso_sums_amx(s) || iso_sums_avx512(s) || iso_sums_avx2(s)) return;
    s->by = (iso_sums_arithmetic){BLOCK, round_portable, add_portable, NULL};
}

static void flush(iso_sums *s, bool minus)
{
    if (s->filled[minus]) s->by.add(s, minus, s->filled[minus]);
    s->filled[minus] = 0;
}

static void flush_both(iso_sums *s)
{
    flush(s, false);
    flush(s, true);
    if (s->by.finish) s->by.finish(s);
}

static bool account(iso_sums *s, const float *v, bool minus)
{
    if (!s->by.round(s, v, 1, s->block[minus], s->filled[minus])) return false;
    if (++s->filled[minus] == s->by.block) flush(s, minus);
    return true;
}

int64_t iso_sums_account(iso_sums *s, const float *vectors, int64_t n)
{
    for (int64_t i = 0; i < n;) {
        int room = s->by.block - s->filled[0], some = n - i < room ? (int)(n - i) : room;
        int sound = s->by.round(s, vectors + i * s->dim, some, s->block[0], s->filled[0]);
        s->filled[0] += sound;
        if (s->filled[0] == s->by.block) flush(s, false);
        i += sound;
        if (sound < some) return i;
    }
    return n;
}

void iso_sums_merge(iso_sums *into, iso_sums *from)
{
    flush_both(from);
    for (size_t i = 0; i < totals_of(into->dim); i++) into->sum[i] += from->sum[i];
}

bool iso_sums_equal(iso_sums *a, iso_sums *b)
{
    flush_both(a);
    flush_both(b);
    return a->dim == b->dim && !memcmp(a->sum, b->sum, totals_of(a->dim) * sizeof *a->sum);
}

/* ---- the record ---- */

typedef enum fit { FITS, OTHER, DAMAGED } fit; /* OTHER: none, of an older generation, or of another version */

static uint64_t checksum_of(const uint8_t *record, size_t size) { return XXH3_64bits(record, size - CHECKSUM); }

static iso_status record_find(const iso_txn *t, MDB_val *v, fit *how, iso_error *err)
{
    const iso_store *s = t->store;
    MDB_val key = {sizeof KEY - 1, KEY};
    *how = OTHER;
    int rc = mdb_get(t->txn, s->meta, &key, v);
    if (rc == MDB_NOTFOUND) return ISO_OK;
    if (rc) return iso_lmdb_fail(err, rc, s->dir, "read");
    const uint8_t *p = v->mv_data;
    *how = DAMAGED;
    if (v->mv_size < HEADER) return ISO_OK;
    uint32_t version = iso_get_u32(p);
    uint64_t count = iso_get_u64(p + 8), generation = iso_get_u64(p + 16);
    if (version != VERSION || generation < t->state.generation)
        *how = OTHER;
    else if (iso_get_u32(p + 4) == (uint32_t)s->dim && v->mv_size == iso_sums_bytes(s->dim) &&
             count == t->state.count && generation == t->state.generation &&
             iso_get_u64(p + v->mv_size - CHECKSUM) == checksum_of(p, v->mv_size))
        *how = FITS;
    return ISO_OK;
}

static void decode(iso_sums *s, const uint8_t *p)
{
    size_t n = totals_of(s->dim);
    p += HEADER;
    for (size_t i = 0; i < n; i++, p += sizeof(iso_total))
        s->sum[i] = (iso_total)iso_get_u64(p) | (iso_total)iso_get_u64(p + 8) << 64;
}

static bool same(const iso_sums *s, const uint8_t *p)
{
    size_t n = totals_of(s->dim);
    p += HEADER;
    for (size_t i = 0; i < n; i++, p += sizeof(iso_total))
        if (iso_get_u64(p) != (uint64_t)s->sum[i] || iso_get_u64(p + 8) != (uint64_t)(s->sum[i] >> 64)) return false;
    return true;
}

static iso_status record_write(iso_txn *t, const iso_sums *s, iso_error *err)
{
    size_t n = totals_of(s->dim);
    MDB_val key = {sizeof KEY - 1, KEY}, v = {iso_sums_bytes(s->dim), NULL};
    int rc = mdb_put(t->txn, t->store->meta, &key, &v, MDB_RESERVE);
    if (rc) return iso_lmdb_fail(err, rc, t->store->dir, "write");
    uint8_t *record = v.mv_data, *p = record;
    iso_put_u32(p, VERSION);
    iso_put_u32(p + 4, (uint32_t)s->dim);
    iso_put_u64(p + 8, t->state.count);
    iso_put_u64(p + 16, t->state.generation);
    p += HEADER;
    for (size_t i = 0; i < n; i++, p += sizeof(iso_total)) {
        iso_put_u64(p, (uint64_t)s->sum[i]);
        iso_put_u64(p + 8, (uint64_t)(s->sum[i] >> 64));
    }
    iso_put_u64(p, checksum_of(record, v.mv_size));
    return ISO_OK;
}

/* Adds up all vectors. ISO_E_FORMAT where one is damaged; ISO_E_INTERRUPTED. */
static iso_status scan(const iso_txn *t, iso_sums *s, iso_progress *progress, iso_error *err)
{
    const char *dir = t->store->dir, *why = NULL;
    MDB_cursor *c;
    MDB_val key, v;
    uint64_t n = 0, id = 0;
    int rc = mdb_cursor_open(t->txn, t->store->vectors, &c);
    if (rc) return iso_lmdb_fail(err, rc, dir, "read");
    iso_progress_pass(progress, "adding up", "vectors", (int64_t)t->state.count);
    while (!why && !(rc = mdb_cursor_get(c, &key, &v, MDB_NEXT))) {
        memcpy(&id, key.mv_data, key.mv_size < sizeof id ? key.mv_size : sizeof id);
        const bool whole = v.mv_size == (size_t)s->dim * sizeof(float) && !((uintptr_t)v.mv_data % sizeof(float));
        why = whole ? iso_vector_fault(s->dim, v.mv_data) : "a wrong length";
        if (!why) account(s, v.mv_data, false);
        n += !why;
        if (n == 1) iso_pages_whole(t->store->env, v.mv_data);
        if (n % 4096 == 0) {
            iso_progress_step(progress, (int64_t)n);
            if (iso_interrupted()) break;
        }
    }
    mdb_cursor_close(c);
    flush_both(s);
    if (!rc && !why) return iso_fail(err, ISO_E_INTERRUPTED, "interrupted while the vectors of %s were added up", dir);
    if (why)
        return iso_fail(err, ISO_E_FORMAT, "%s: the vector of item %" PRIu64 " is damaged (%s): run `indexer verify`",
                        dir, id, why);
    if (rc != MDB_NOTFOUND) return iso_lmdb_fail(err, rc, dir, "read");
    if (n != t->state.count)
        return iso_fail(err, ISO_E_FORMAT,
                        "%s holds %" PRIu64 " vectors where %" PRIu64 " are counted: run `indexer verify`", dir, n,
                        t->state.count);
    return ISO_OK;
}

/* Those of the items as the last commit left them. */
static iso_status sums_committed(const iso_txn *t, iso_sums **out, iso_error *err)
{
    MDB_val v;
    fit how;
    iso_status status = record_find(t, &v, &how, err);
    if (status) return status;
    iso_sums *s = iso_sums_new(t->store->dim);
    if (!s) return iso_fail_memory(err);
    if (how == FITS)
        decode(s, v.mv_data);
    else
        status = scan(t, s, NULL, err);
    if (status)
        iso_sums_free(s);
    else
        *out = s;
    return status;
}

/* ---- within a transaction ---- */

/* A damaged vector must not keep anyone from changing the database, least of all from removing that vector: then nothing is
 * kept, and whoever asks for the sums is told of the damage. Nor does who is told to stop lose what is to be committed before that. */
iso_status iso_sums_begin(iso_txn *t, iso_error *err)
{
    iso_store *s = t->store;
    iso_error why;
    if (t->sums || t->sums_lost || s->dim > ISO_MOMENTS_DIM_MAX) return ISO_OK;
    iso_status status = s->sums_hopeless ? ISO_E_FORMAT : sums_committed(t, &t->sums, &why);
    if (status == ISO_E_FORMAT || status == ISO_E_INTERRUPTED) {
        t->sums_lost = true;
        if (status == ISO_E_FORMAT) s->sums_hopeless = true; /* no scan in every transaction from here on */
        return ISO_OK;
    }
    if (status && err) *err = why;
    return status;
}

void iso_sums_add(iso_txn *t, const float *vector)
{
    if (t->sums) account(t->sums, vector, false);
}

iso_status iso_sums_subtract(iso_txn *t, uint64_t id, iso_error *err)
{
    const float *vector;
    iso_sums *s = t->sums;
    bool damaged = iso_item_vector(t, id, &vector, NULL) || iso_vector_fault(t->store->dim, vector);
    if (damaged) {
        iso_sums_end(t);
        t->sums_lost = true;
        t->store->sums_hopeless = false; /* perhaps it was the only one */
        return ISO_OK;
    }
    if (!s) return ISO_OK;
    if (!s->block[1]) s->block[1] = block_new(s);
    if (!s->block[1]) return iso_fail_memory(err);
    account(s, vector, true);
    return ISO_OK;
}

iso_status iso_sums_store(iso_txn *t, iso_error *err)
{
    if (!t->sums) return ISO_OK;
    flush_both(t->sums);
    return record_write(t, t->sums, err);
}

void iso_sums_end(iso_txn *t)
{
    iso_sums_free(t->sums);
    t->sums = NULL;
}

/* Computed from the vectors alone, and whether the record says the same. ISO_E_FORMAT: a vector is damaged. */
static iso_status recompute(iso_txn *t, iso_progress *progress, iso_sums **out, fit *how, bool *agrees, iso_error *err)
{
    MDB_val v;
    iso_status status = record_find(t, &v, how, err);
    if (status) return status;
    iso_sums *s = iso_sums_new(t->store->dim);
    if (!s) return iso_fail_memory(err);
    status = scan(t, s, progress, err);
    if (status) {
        iso_sums_free(s);
        return status;
    }
    *agrees = *how == FITS && same(s, v.mv_data);
    *out = s;
    return ISO_OK;
}

iso_status iso_sums_mend(iso_txn *t, iso_progress *progress, iso_error *err)
{
    iso_sums *s = NULL;
    fit how;
    bool agrees = false;
    iso_error why;
    if (t->store->dim > ISO_MOMENTS_DIM_MAX) return ISO_OK;
    iso_status status = recompute(t, progress, &s, &how, &agrees, &why);
    if (status == ISO_E_FORMAT) return ISO_OK; /* what they are of is damaged: not to be mended here */
    if (status && err) *err = why;
    if (!status && !agrees) {
        status = record_write(t, s, err);
        t->dirty = true;
    }
    iso_sums_free(s);
    return status;
}

iso_status iso_sums_check(iso_txn *t, iso_progress *progress, const char **fault, iso_error *err)
{
    iso_sums *s = NULL;
    fit how;
    bool agrees = false;
    *fault = NULL;
    if (t->store->dim > ISO_MOMENTS_DIM_MAX) return ISO_OK;
    iso_status status = recompute(t, progress, &s, &how, &agrees, err);
    if (status) return status;
    if (how == DAMAGED)
        *fault = "the stored mean and covariance are damaged: `indexer compact` computes them anew";
    else if (how == FITS && !agrees)
        *fault = "the stored mean and covariance are not those of the vectors: `indexer compact` computes them anew";
    iso_sums_free(s);
    return ISO_OK;
}

/* ---- asking for them ---- */

static double real(iso_total k, int scale) { return ldexp((double)(iso_signed_total)k, -scale); }

static iso_status moments_of(const iso_sums *s, uint64_t count, iso_moments *out, iso_error *err)
{
    size_t dim = (size_t)s->dim;
    iso_moments m = {.dim = s->dim, .count = count};
    m.sum = iso_calloc(dim, sizeof *m.sum);
    m.product = iso_calloc(dim * dim, sizeof *m.product);
    if (!m.sum || !m.product) {
        iso_moments_free(&m);
        return iso_fail_memory(err);
    }
    for (size_t i = 0; i < dim; i++) m.sum[i] = real(s->sum[i], SCALE);
    const iso_total *k = s->sum + dim;
    for (size_t i = 0; i < dim; i++)
        for (size_t j = i; j < dim; j++) m.product[i * dim + j] = m.product[j * dim + i] = real(*k++, 2 * SCALE);
    *out = m;
    return ISO_OK;
}

iso_status iso_store_moments(iso_txn *t, iso_moments *out, iso_error *err)
{
    const iso_store *store = t->store;
    iso_sums *s = t->sums;
    iso_status status = ISO_OK;
    if (store->dim > ISO_MOMENTS_DIM_MAX)
        return iso_fail(
            err, ISO_E_UNSUPPORTED,
            "%s holds vectors of %d numbers: their covariance is kept for up to %d only (score by the sum instead)",
            store->dir, store->dim, ISO_MOMENTS_DIM_MAX);
    if (t->failed) return iso_fail(err, ISO_E_ARGUMENT, "%s: this transaction failed before", store->dir);
    if (s)
        flush_both(s);
    else if (!t->changed)
        status = sums_committed(t, &s, err);
    else { /* what the record says is no longer so */
        s = iso_sums_new(store->dim);
        status = s ? scan(t, s, NULL, err) : iso_fail_memory(err);
    }
    if (!status) status = moments_of(s, t->state.count, out, err);
    if (s != t->sums) iso_sums_free(s);
    return status;
}

void iso_moments_free(iso_moments *m)
{
    if (!m) return;
    free(m->sum);
    free(m->product);
    *m = (iso_moments){0};
}
