/* conv_few.c: 1 x 1 convolutions of stride 1 from or to an image of few channels (colours): one pass over the pixels. As
 * products they would be packed for a handful of columns, which takes several times as long as reading them.
 * x [pixels, c], w [o, c], y [pixels, o], c <= FEW, o >= LANES. */
#include "model/cpu/conv.h"
#include "model/cpu/fused.h"

enum {
    FEW = 4,
    LANES = 16,     /* of a vector of y's channels; with fewer channels a product is as good */
    MAX_O = 1024,
    BLOCK = 2 << 10, /* results at once, and then their tail: they are still in the first-level cache */
    SETS = 64,      /* of pixels, whose sums are kept apart: results do not depend on the threads */
    RUN = 256       /* pixels added up in float before they go into a double */
};

bool iso_few_fits(const iso_conv_sizes *s, const iso_call *call)
{
    const int64_t batch = call->part_of ? call->part_of : s->batch;
    return s->kh == 1 && s->kw == 1 && s->stride == 1 && s->pad == 0 && s->c <= FEW && s->o >= LANES && s->o <= MAX_O && batch * s->h * s->w >= 1024;
}

size_t iso_few_w_workspace(const iso_conv_sizes *s)
{
    return SETS * FEW * (size_t)s->o * sizeof(double);
}

typedef struct range {
    int64_t first, last;
} range;

static range part_of(int64_t pixels, int part, int parts)
{
    return (range){pixels * part / parts, pixels * (part + 1) / parts};
}

/* w transposed, [FEW, o], zeros where there is no channel. */
static void transpose(const float *w, int64_t o, int64_t c, float *to)
{
    for (int64_t f = 0; f < FEW; f++)
        for (int64_t i = 0; i < o; i++) to[f * o + i] = f < c ? w[i * c + f] : 0;
}

/* The compilers' own vectors. */
typedef float vec8 __attribute__((vector_size(32)));
typedef float vec4 __attribute__((vector_size(16)));
#define INLINE static inline __attribute__((always_inline))

/* y's channels, a vector of them for all pixels before the next one. */
INLINE void conv_range(const int c, const float *x, const float *w, float *y, int64_t o, range r)
{
    const int64_t whole = o / 8 * 8;
    for (int64_t i = 0; i < whole; i += 8) {
        vec8 b[FEW];
#pragma GCC unroll 4
        for (int f = 0; f < c; f++) memcpy(&b[f], w + f * o + i, sizeof b[f]);
        for (int64_t p = r.first; p < r.last; p++) {
            vec8 v = x[p * c] * b[0];
#pragma GCC unroll 4
            for (int f = 1; f < c; f++) v += x[p * c + f] * b[f];
            memcpy(y + p * o + i, &v, sizeof v);
        }
    }
    for (int64_t p = r.first; p < r.last; p++)
        for (int64_t i = whole; i < o; i++) {
            y[p * o + i] = x[p * c] * w[i];
            for (int f = 1; f < c; f++) y[p * o + i] += x[p * c + f] * w[f * o + i];
        }
}

ISO_CLONES static void conv_part(const float *x, const float *w, float *y, int64_t c, int64_t o, range r)
{
    if (c == 1) conv_range(1, x, w, y, o, r);
    else if (c == 2) conv_range(2, x, w, y, o, r);
    else if (c == 3) conv_range(3, x, w, y, o, r);
    else conv_range(4, x, w, y, o, r);
}

/* The sums of four vectors' lanes. */
INLINE vec4 sums_of(const vec8 *v)
{
    const vec8 v01 = __builtin_shufflevector(v[0], v[1], 0, 8, 1, 9, 4, 12, 5, 13) + __builtin_shufflevector(v[0], v[1], 2, 10, 3, 11, 6, 14, 7, 15);
    const vec8 v23 = __builtin_shufflevector(v[2], v[3], 0, 8, 1, 9, 4, 12, 5, 13) + __builtin_shufflevector(v[2], v[3], 2, 10, 3, 11, 6, 14, 7, 15);
    const vec8 sum = __builtin_shufflevector(v01, v23, 0, 1, 8, 9, 4, 5, 12, 13) + __builtin_shufflevector(v01, v23, 2, 3, 10, 11, 6, 7, 14, 15);
    return __builtin_shufflevector(sum, sum, 0, 1, 2, 3) + __builtin_shufflevector(sum, sum, 4, 5, 6, 7);
}

/* Up to four pixels: sums over y's channels, whole vectors of them, then the rest. */
INLINE void conv_x_pixels(const int c, const int pixels, const float *y, const float *w, float *x, int64_t o)
{
    const int64_t whole = o / 8 * 8;
    vec8 v[FEW][FEW] = {{{0}}}; /* of x's channels, of pixels */
    vec4 sum[FEW];
    for (int64_t i = 0; i < whole; i += 8) {
        vec8 b[FEW];
#pragma GCC unroll 4
        for (int f = 0; f < c; f++) memcpy(&b[f], w + f * o + i, sizeof b[f]);
#pragma GCC unroll 4
        for (int p = 0; p < pixels; p++) {
            vec8 a;
            memcpy(&a, y + p * o + i, sizeof a);
#pragma GCC unroll 4
            for (int f = 0; f < c; f++) v[f][p] += a * b[f];
        }
    }
#pragma GCC unroll 4
    for (int f = 0; f < c; f++) sum[f] = sums_of(v[f]);
    for (int64_t i = whole; i < o; i++)
        for (int f = 0; f < c; f++)
            for (int p = 0; p < pixels; p++) sum[f][p] += y[p * o + i] * w[f * o + i];
#pragma GCC unroll 4
    for (int p = 0; p < pixels; p++)
#pragma GCC unroll 4
        for (int f = 0; f < c; f++) x[p * c + f] = sum[f][p];
}

INLINE void conv_x_range(const int c, const float *y, const float *w, float *x, int64_t o, range r)
{
    int64_t p = r.first;
    for (; p + FEW <= r.last; p += FEW) conv_x_pixels(c, FEW, y + p * o, w, x + p * c, o);
    for (; p < r.last; p++) conv_x_pixels(c, 1, y + p * o, w, x + p * c, o);
}

ISO_CLONES static void conv_x_part(const float *y, const float *w, float *x, int64_t c, int64_t o, range r)
{
    if (c == 1) conv_x_range(1, y, w, x, o, r);
    else if (c == 2) conv_x_range(2, y, w, x, o, r);
    else if (c == 3) conv_x_range(3, y, w, x, o, r);
    else conv_x_range(4, y, w, x, o, r);
}

/* sum [FEW, o] += the products of the pixels of a range, for sixteen of y's channels. */
INLINE void add_products(const int c, const float *x, const float *y, double *sum, int64_t o, range r)
{
    vec8 v[FEW][2] = {{{0}}};
    for (int64_t p = r.first; p < r.last; p++) {
        vec8 a, b;
        memcpy(&a, y + p * o, sizeof a);
        memcpy(&b, y + p * o + 8, sizeof b);
#pragma GCC unroll 4
        for (int f = 0; f < c; f++) {
            v[f][0] += x[p * c + f] * a;
            v[f][1] += x[p * c + f] * b;
        }
    }
    for (int f = 0; f < c; f++)
        for (int i = 0; i < LANES; i++) sum[f * o + i] += v[f][i / 8][i % 8];
}

ISO_CLONES static void conv_w_part(const float *x, const float *y, double *sum, int64_t c, int64_t o, range all)
{
    const int64_t whole = o / LANES * LANES;
    for (int64_t p0 = all.first; p0 < all.last; p0 += RUN) {
        const range r = {p0, iso_min64(p0 + RUN, all.last)};
        for (int64_t i = 0; i < whole; i += LANES) {
            if (c == 1) add_products(1, x, y + i, sum + i, o, r);
            else if (c == 2) add_products(2, x, y + i, sum + i, o, r);
            else if (c == 3) add_products(3, x, y + i, sum + i, o, r);
            else add_products(4, x, y + i, sum + i, o, r);
        }
        for (int64_t i = whole; i < o; i++)
            for (int64_t f = 0; f < c; f++) {
                float v = 0;
                for (int64_t p = r.first; p < r.last; p++) v += x[p * c + f] * y[p * o + i];
                sum[f * o + i] += v;
            }
    }
}

/* Every thread some pixels, of them a block at a time. Both are whole fours: which pixels conv_x takes one by one, and perhaps rounds otherwise, must not
 * depend on the threads. */
static void run(const iso_conv_sizes *s, const iso_call *call,
                void (*part)(const float *in, const float *w, float *out, int64_t c, int64_t o, range r))
{
    float w[FEW * MAX_O];
    const int64_t pixels = s->batch * s->h * s->w, channels = call->out.shape.dim[3], fours = iso_ceil_div(pixels, FEW), block = iso_max64(BLOCK / channels / FEW, 1) * FEW;
    const int threads = iso_cpu_threads(call->threads, pixels * (s->c + s->o) * 4);
    transpose(call->in[1].data, s->o, s->c, w);
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int t = 0; t < threads; t++) {
        const range some = part_of(fours, t, threads), all = {some.first * FEW, iso_min64(some.last * FEW, pixels)};
        iso_chain tail;
        iso_chain_begin(&tail, call->tail, channels);
        for (range r = {all.first, 0}; r.first < all.last; r.first = r.last) {
            r.last = iso_min64(r.first + block, all.last);
            part(call->in[0].data, w, call->out.data, s->c, s->o, r);
            iso_chain_run(&tail, r.first * channels, r.last * channels);
        }
    }
}

void iso_few_conv(const iso_conv_sizes *s, const iso_call *call) { run(s, call, conv_part); }
void iso_few_conv_x(const iso_conv_sizes *s, const iso_call *call) { run(s, call, conv_x_part); }

void iso_few_conv_w(const iso_conv_sizes *s, const iso_call *call)
{
    const int64_t pixels = s->batch * s->h * s->w;
    const int threads = iso_cpu_threads(call->threads, pixels * (s->c + s->o) * 4);
    double *sums = call->workspace;
    memset(sums, 0, iso_few_w_workspace(s));
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int t = 0; t < SETS; t++)
        conv_w_part(call->in[0].data, call->in[1].data, sums + t * FEW * s->o, s->c, s->o, part_of(pixels, t, SETS));
    for (int64_t i = 0; i < s->o; i++)
        for (int64_t f = 0; f < s->c; f++) {
            double sum = 0;
            for (int t = 0; t < SETS; t++) sum += sums[(t * FEW + f) * s->o + i];
            iso_cpu_put_sum(call, i * s->c + f, sum);
        }
}
