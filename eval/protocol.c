#include "eval/protocol.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/clones.h"
#include "base/memory.h"

double iso_vector_inverse(int dim, const float *x)
{
    const double sum = iso_vector_squares(dim, x);
    return isfinite(sum) && sum > 0 ? 1 / sqrt(sum) : 0;
}

iso_status iso_vector_fail(const char *what, int64_t number, int dim, const float *x, iso_error *err)
{
    const bool finite = isfinite(iso_vector_squares(dim, x));
    return iso_fail(err, ISO_E_NUMERIC, "%s vector %lld %s", what, (long long)number, finite ? "is all zeros and has no direction" : "holds a NaN or an infinity");
}

/* 1 / length of each vector; the first bad one is an error. */
static iso_status inverse_norms(int dim, int64_t n, const float *const *x, const char *what, double **out, iso_error *err)
{
    int64_t bad = n;
    double *inverse = *out = iso_calloc((size_t)n, sizeof *inverse);
    if (!inverse) return iso_fail_memory(err);
#pragma omp parallel for schedule(static) reduction(min : bad)
    for (int64_t i = 0; i < n; i++) {
        if (i + ISO_VECTORS_AHEAD < n) iso_vector_ahead(x[i + ISO_VECTORS_AHEAD], dim);
        inverse[i] = iso_vector_inverse(dim, x[i]);
        if (!(inverse[i] > 0) && i < bad) bad = i;
    }
    return bad == n ? ISO_OK : iso_vector_fail(what, bad, dim, x[bad], err);
}

iso_status iso_protocol_lengths(iso_protocol *p, iso_error *err) { return inverse_norms(p->dim, p->n, p->train, "training", &p->inverse, err); }

static iso_status take_vectors(iso_protocol *p, iso_error *err)
{
    iso_status status = inverse_norms(p->dim, p->t, p->test, "test", &p->test_inverse, err);
    if (status) return status;
    p->panel = iso_rank_panels_create(p->dim, p->t, p->test, p->test_inverse);
    return p->panel ? ISO_OK : iso_fail_memory(err);
}

/* ---- attributes as bits ---- */

static void bits_free(iso_bits *b) { free(b->attribute), free(b->image); }

/* Bit a of `to` is set where byte a, of at most 64, is not 0. */
static uint64_t pack(const uint8_t *byte, int n)
{
    uint64_t bits = 0;
    for (int a = 0; a < n; a += 8) {
        uint64_t v = 0;
        memcpy(&v, byte + a, n - a < 8 ? (size_t)(n - a) : 8);
        v |= v >> 4, v |= v >> 2, v |= v >> 1;
        v &= UINT64_C(0x0101010101010101);
        bits |= (v * UINT64_C(0x0102040810204080) >> 56) << a; /* the lowest bits of eight bytes, side by side */
    }
    return bits;
}

/* Bit j of word i to bit i of word j, by halves of ever smaller squares (H. S. Warren, Hacker's Delight, 7-3). */
static void transpose(uint64_t x[64])
{
    uint64_t mask = UINT64_C(0x00000000FFFFFFFF);
    for (int half = 32; half; half >>= 1, mask ^= mask << half)
        for (int i = 0; i < 64; i = ((i | half) + 1) & ~half) {
            const uint64_t swap = (x[i] >> half ^ x[i | half]) & mask;
            x[i] ^= swap << half;
            x[i | half] ^= swap;
        }
}

static iso_status bits_make(int64_t n, const uint8_t *attributes, int count, iso_bits *b, iso_error *err)
{
    *b = (iso_bits){.images = n, .words = (n + 63) / 64, .count = count, .row_words = (count + 63) / 64};
    b->attribute = iso_calloc((size_t)count, (size_t)b->words * sizeof *b->attribute);
    b->image = iso_calloc((size_t)n, (size_t)b->row_words * sizeof *b->image);
    if (!b->attribute || !b->image) return iso_fail_memory(err);
#pragma omp parallel for schedule(static)
    for (int64_t w = 0; w < b->words; w++)
        for (int r = 0; r < b->row_words; r++) {
            const int many = count - 64 * r < 64 ? count - 64 * r : 64;
            uint64_t square[64] = {0}; /* images, then attributes */
            for (int64_t i = 64 * w; i < n && i < 64 * w + 64; i++)
                square[i % 64] = b->image[i * b->row_words + r] = pack(attributes + i * count + 64 * r, many);
            transpose(square);
            for (int a = 0; a < many; a++) b->attribute[(64 * r + a) * b->words + w] = square[a];
        }
    return ISO_OK;
}

ISO_CLONES static int64_t common(int64_t words, const uint64_t *x, const uint64_t *y)
{
    int64_t sum = 0;
    for (int64_t i = 0; i < words; i++) sum += __builtin_popcountll(x[i] & y[i]);
    return sum;
}

/* both[a * count + b], a <= b: images that have both; the diagonal counts single attributes. */
static void count_pairs(const iso_bits *b, int64_t *both)
{
#pragma omp parallel for schedule(dynamic)
    for (int i = 0; i < b->count; i++)
        for (int j = i; j < b->count; j++) both[(size_t)i * b->count + j] = common(b->words, b->attribute + i * b->words, b->attribute + j * b->words);
}

/* ---- the sets that count ---- */

/* A set of relevant images that counts; singles lie on the diagonal. */
static bool counts(int a, int b, int64_t queries, int64_t relevant, int64_t tests)
{
    if (queries == 0 || relevant == 0) return false;
    return a == b || (100 * relevant > tests && 2 * relevant < tests);
}

static iso_status list_sets(iso_protocol *p, const int64_t *in_test, iso_error *err)
{
    int count = p->count;
    for (int pass = 0; pass < 2; pass++) {
        int singles = p->singles;
        p->singles = p->doubles = p->left_out = 0;
        for (int a = 0; a < count; a++)
            for (int b = a; b < count; b++) {
                size_t at = (size_t)a * count + b;
                bool in = counts(a, b, p->both[at], in_test[at], p->t);
                if (!in && a == b && pass) p->left[p->left_out] = a;
                if (!in && a == b) p->left_out++;
                if (!in) continue;
                int i = a == b ? p->singles++ : singles + p->doubles++;
                if (pass) p->set[i] = (iso_query_set){a, a == b ? -1 : b, p->both[at], in_test[at]};
            }
        if (pass) break;
        p->set = iso_calloc((size_t)p->singles + (size_t)p->doubles, sizeof *p->set);
        p->left = iso_calloc((size_t)p->left_out, sizeof *p->left);
        if (!p->set || !p->left) return iso_fail_memory(err);
    }
    return ISO_OK;
}

static iso_status find_sets(iso_protocol *p, iso_error *err)
{
    iso_bits test = {0};
    size_t cells = (size_t)p->count * (size_t)p->count;
    int64_t *in_test = iso_calloc(cells, sizeof *in_test);
    p->both = iso_calloc(cells, sizeof *p->both);
    iso_status status = in_test && p->both ? ISO_OK : iso_fail_memory(err);
    if (!status) status = bits_make(p->n, p->train_attributes, p->count, &p->has, err);
    if (!status) status = bits_make(p->t, p->test_attributes, p->count, &test, err);
    if (!status) {
        count_pairs(&p->has, p->both);
        count_pairs(&test, in_test);
        status = list_sets(p, in_test, err);
    }
    bits_free(&test);
    free(in_test);
    return status;
}

iso_status iso_protocol_create(int dim, int64_t n, const float *const *train, const uint8_t *train_attributes, int64_t t,
                               const float *const *test, const uint8_t *test_attributes, int count, iso_protocol **out,
                               iso_error *err)
{
    if (dim < 1 || count < 1) return iso_fail(err, ISO_E_ARGUMENT, "precision at K needs vectors and attributes");
    if (n < 1)
        return iso_fail(err, ISO_E_ARGUMENT, "precision at K needs training images to take the query sets from: there are none");
    if (t < 1 || t > INT32_MAX)
        return iso_fail(err, ISO_E_ARGUMENT, "precision at K needs test images to rank: there are %s", t < 1 ? "none" : "too many");
    iso_protocol *p = iso_calloc(1, sizeof *p);
    if (!p) return iso_fail_memory(err);
    *p = (iso_protocol){.dim = dim, .count = count, .n = n, .t = t, .train = train, .test = test, .train_attributes = train_attributes,
                        .test_attributes = test_attributes};
    iso_status status = take_vectors(p, err);
    if (!status) status = find_sets(p, err);
    if (status) iso_protocol_free(p);
    else *out = p;
    return status;
}

void iso_protocol_free(iso_protocol *p)
{
    if (!p) return;
    bits_free(&p->has);
    free(p->both), free(p->inverse), free(p->test_inverse), iso_rank_panels_free(p->panel), free(p->set), free(p->left);
    free(p);
}
