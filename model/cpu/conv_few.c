/* conv_few.c: 1 x 1 convolutions of stride 1 from or to an image of few channels (colours): one pass over the pixels. As
 * products they would be packed for a handful of columns, which takes several times as long as reading them.
 * x [pixels, c], w [o, c], y [pixels, o], c <= FEW, o >= LANES. */
#include "model/cpu/conv.h"

enum {
    FEW = 4,
    LANES = 16,     /* of a vector of y's channels; with fewer channels a product is as good */
    MAX_O = 1024,
    BLOCK = 32 << 10, /* numbers of y that a tail follows at once */
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

ISO_CLONES static void conv_part(const float *x, const float *w, float *y, int64_t c, int64_t o, range r)
{
    for (int64_t p = r.first; p < r.last; p++) {
        const float *from = x + p * c;
        const float x0 = from[0], x1 = c > 1 ? from[1] : 0, x2 = c > 2 ? from[2] : 0, x3 = c > 3 ? from[3] : 0;
        float *to = y + p * o;
#pragma omp simd
        for (int64_t i = 0; i < o; i++) to[i] = x0 * w[i] + x1 * w[o + i] + x2 * w[2 * o + i] + x3 * w[3 * o + i];
    }
}

/* The compilers' own vectors. */
typedef float vec8 __attribute__((vector_size(32)));
typedef float vec4 __attribute__((vector_size(16)));
#define INLINE static inline __attribute__((always_inline))

/* Its lanes' sum in four parts. */
#define FOLD(v) (__builtin_shufflevector(v, v, 0, 1, 2, 3) + __builtin_shufflevector(v, v, 4, 5, 6, 7))

/* Sums over y's channels: whole vectors of them, then the rest. */
ISO_CLONES static void conv_x_part(const float *y, const float *w, float *x, int64_t c, int64_t o, range r)
{
    const int64_t whole = o / 8 * 8;
    for (int64_t p = r.first; p < r.last; p++) {
        const float *from = y + p * o;
        vec8 v0 = {0}, v1 = {0}, v2 = {0}, v3 = {0};
        for (int64_t i = 0; i < whole; i += 8) {
            vec8 a, b0, b1, b2, b3;
            memcpy(&a, from + i, sizeof a);
            memcpy(&b0, w + i, sizeof b0);
            memcpy(&b1, w + o + i, sizeof b1);
            memcpy(&b2, w + 2 * o + i, sizeof b2);
            memcpy(&b3, w + 3 * o + i, sizeof b3);
            v0 += a * b0;
            v1 += a * b1;
            v2 += a * b2;
            v3 += a * b3;
        }
        const vec4 s0 = FOLD(v0), s1 = FOLD(v1), s2 = FOLD(v2), s3 = FOLD(v3);
        const vec4 s01 = __builtin_shufflevector(s0, s1, 0, 4, 1, 5) + __builtin_shufflevector(s0, s1, 2, 6, 3, 7);
        const vec4 s23 = __builtin_shufflevector(s2, s3, 0, 4, 1, 5) + __builtin_shufflevector(s2, s3, 2, 6, 3, 7);
        vec4 sum = __builtin_shufflevector(s01, s23, 0, 1, 4, 5) + __builtin_shufflevector(s01, s23, 2, 3, 6, 7);
        for (int64_t i = whole; i < o; i++)
            for (int f = 0; f < FEW; f++) sum[f] += from[i] * w[f * o + i];
        if (c == 3 && p + 1 < r.last) { /* the fourth is written over by the next pixel */
            memcpy(x + p * c, &sum, sizeof sum);
            continue;
        }
        for (int64_t f = 0; f < c; f++) x[p * c + f] = sum[f];
    }
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

/* Pixels from `first` on: all of them, or as many as a tail follows while they are in the cache. */
static range next_block(const iso_conv_sizes *s, const iso_call *call, range all, int64_t first)
{
    return (range){first, call->tail ? iso_min64(first + BLOCK / s->o, all.last) : all.last};
}

void iso_few_conv(const iso_conv_sizes *s, const iso_call *call)
{
    float w[FEW * MAX_O];
    const int64_t pixels = s->batch * s->h * s->w;
    const int threads = iso_cpu_threads(call->threads, pixels * (s->c + s->o) * 4);
    transpose(call->in[1].data, s->o, s->c, w);
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int t = 0; t < threads; t++) {
        const range all = part_of(pixels, t, threads);
        for (range r = next_block(s, call, all, all.first); r.first < r.last; r = next_block(s, call, all, r.last)) {
            conv_part(call->in[0].data, w, call->out.data, s->c, s->o, r);
            if (call->tail) iso_cpu_fused_part(call->tail, r.first * s->o, r.last * s->o);
        }
    }
}

void iso_few_conv_x(const iso_conv_sizes *s, const iso_call *call)
{
    float w[FEW * MAX_O];
    const int64_t pixels = s->batch * s->h * s->w;
    const int threads = iso_cpu_threads(call->threads, pixels * (s->c + s->o) * 4);
    transpose(call->in[1].data, s->o, s->c, w);
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int t = 0; t < threads; t++) {
        const range all = part_of(pixels, t, threads);
        for (range r = next_block(s, call, all, all.first); r.first < r.last; r = next_block(s, call, all, r.last)) {
            conv_x_part(call->in[0].data, w, call->out.data, s->c, s->o, r);
            if (call->tail) iso_cpu_fused_part(call->tail, r.first * s->c, r.last * s->c);
        }
    }
}

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
