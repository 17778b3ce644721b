/* conv_image.c: the first convolution of an encoder: larger kernels over an image of few channels (colours), without padding.
 *
 * As a product its operand is a matrix of patches, as much work to write down as to multiply by few columns. But the c numbers of the kw pixels that a row
 * of kernel elements meets lie side by side in the image, a `run` of them, and the next pixel of y meets those stride * c further on: both
 * products read x where it lies. x [batch, h, w, c], w [o, kh, kw, c], y [batch, oh, ow, o], o a multiple of 16. */
#include "model/cpu/conv.h"
#include "model/cpu/fused.h"
#include "model/cpu/gemm.h"

enum {
    FEW = 4,        /* channels of the image */
    O = 16,         /* of y's channels at a time: with them and HEIGHT, registers are full */
    HEIGHT = 6,     /* pixels of y, or numbers of a run, at a time */
    MAX_O = 1024,
    SETS = 16,      /* of bands, whose sums are kept apart: results do not depend on the threads */
    BAND = 256      /* pixels of y added up in float before they go into a double */
};
typedef float vec8 __attribute__((vector_size(32)));
#define INLINE static inline __attribute__((always_inline))

bool iso_image_fits(const iso_conv_sizes *s, const iso_call *call)
{
    const int64_t batch = call->part_of ? call->part_of : s->batch;
    return !iso_gemm_isa_get()->tiles && s->kh * s->kw > 1 && s->pad == 0 && s->c <= FEW && s->o % O == 0 && s->o > 0 && s->o <= MAX_O &&
           s->ow >= HEIGHT && batch * s->oh * s->ow >= 1024; /* of narrower rows too few pixels are computed at once */
}

/* Of a transposed w, or a set's sums. */
static int64_t weights_of(const iso_conv_sizes *s) { return s->kh * s->kw * s->c * s->o; }

size_t iso_image_workspace(iso_op op, const iso_conv_sizes *s)
{
    return (size_t)weights_of(s) * (op == ISO_OP_CONV ? sizeof(float) : SETS * sizeof(double));
}

/* A function whose first argument is n, 1 ... HEIGHT, as a constant. */
#define WITH(n, f, ...)                         \
    switch (n) {                                \
    case 1: f(1, __VA_ARGS__); break;           \
    case 2: f(2, __VA_ARGS__); break;           \
    case 3: f(3, __VA_ARGS__); break;           \
    case 4: f(4, __VA_ARGS__); break;           \
    case 5: f(5, __VA_ARGS__); break;           \
    default: f(HEIGHT, __VA_ARGS__); break;     \
    }

/* --- conv */

/* n neighbouring pixels of y, O of their channels; x: the first number that the first of them meets; w [kh, run, O]. */
INLINE void conv_pixels(const int n, const iso_conv_sizes *s, const float *x, const float *w, float *y)
{
    const int64_t run = s->kw * s->c, step = s->stride * s->c;
    vec8 v[HEIGHT][2] = {{{0}}};
    for (int64_t u = 0; u < s->kh; u++, x += s->w * s->c)
        for (int64_t e = 0; e < run; e++, w += O) {
            vec8 b0, b1;
            memcpy(&b0, w, sizeof b0);
            memcpy(&b1, w + 8, sizeof b1);
#pragma GCC unroll 6
            for (int p = 0; p < n; p++) {
                v[p][0] += x[p * step + e] * b0;
                v[p][1] += x[p * step + e] * b1;
            }
        }
#pragma GCC unroll 6
    for (int p = 0; p < n; p++) {
        memcpy(y + p * s->o, &v[p][0], sizeof v[p][0]);
        memcpy(y + p * s->o + 8, &v[p][1], sizeof v[p][1]);
    }
}

/* A row of y: tiles of about equal width. w [o / O, kh, run, O]. */
ISO_CLONES static void conv_row(const iso_conv_sizes *s, const float *x, const float *w, float *y)
{
    const int64_t tiles = iso_ceil_div(s->ow, HEIGHT), each = s->kh * s->kw * s->c;
    for (int64_t o = 0; o < s->o; o += O)
        for (int64_t t = 0; t < tiles; t++) {
            const int64_t j = s->ow * t / tiles, n = s->ow * (t + 1) / tiles - j;
            WITH(n, conv_pixels, s, x + j * s->stride * s->c, w + o * each, y + j * s->o + o)
        }
}

static const float *row_of(const iso_conv_sizes *s, const float *x, int64_t row)
{
    return x + (row / s->oh * s->h + row % s->oh * s->stride) * s->w * s->c;
}

void iso_image_conv(const iso_conv_sizes *s, const iso_call *call)
{
    const int64_t each = weights_of(s) / s->o, rows = s->batch * s->oh, line = s->ow * s->o;
    const float *w = call->in[1].data;
    float *turned = call->workspace, *y = call->out.data;
    for (int64_t o = 0; o < s->o; o++)
        for (int64_t k = 0; k < each; k++) turned[o / O * O * each + k * O + o % O] = w[o * each + k];
#pragma omp parallel num_threads(call->threads < 1 ? 1 : call->threads)
    {
        iso_chain tail;
        iso_chain_begin(&tail, call->tail, s->o);
#pragma omp for schedule(static)
        for (int64_t i = 0; i < rows; i++) {
            conv_row(s, row_of(s, call->in[0].data, i), turned, y + i * line);
            iso_chain_run(&tail, i * line, (i + 1) * line);
        }
    }
}

/* --- conv_w */

/* sum [n, o] += what n numbers of a run, from x on, and O channels of y give over some rows of an image. */
INLINE void add_run(const int n, const iso_conv_sizes *s, const float *x, const float *y, int64_t rows, double *sum)
{
    const int64_t step = s->stride * s->c, line = s->stride * s->w * s->c;
    vec8 v[HEIGHT][2] = {{{0}}};
    for (int64_t i = 0; i < rows; i++, x += line)
        for (int64_t j = 0; j < s->ow; j++, y += s->o) {
            const float *from = x + j * step;
            vec8 a0, a1;
            memcpy(&a0, y, sizeof a0);
            memcpy(&a1, y + 8, sizeof a1);
#pragma GCC unroll 6
            for (int e = 0; e < n; e++) {
                v[e][0] += from[e] * a0;
                v[e][1] += from[e] * a1;
            }
        }
    for (int e = 0; e < n; e++)
        for (int k = 0; k < O; k++) sum[e * s->o + k] += v[e][k / 8][k % 8];
}

/* Some rows of an image; sum [kh, run, o]. */
ISO_CLONES static void add_band(const iso_conv_sizes *s, const float *x, const float *y, int64_t rows, double *sum)
{
    const int64_t run = s->kw * s->c, parts = iso_ceil_div(run, HEIGHT);
    for (int64_t o = 0; o < s->o; o += O)
        for (int64_t u = 0; u < s->kh; u++)
            for (int64_t t = 0; t < parts; t++) {
                const int64_t e = run * t / parts, n = run * (t + 1) / parts - e;
                WITH(n, add_run, s, x + u * s->w * s->c + e, y + o, rows, sum + (u * run + e) * s->o + o)
            }
}

void iso_image_conv_w(const iso_conv_sizes *s, const iso_call *call)
{
    const int64_t results = weights_of(s), each = results / s->o, high = iso_min64(iso_max64(BAND / s->ow, 1), s->oh);
    const int64_t of_image = iso_ceil_div(s->oh, high), bands = s->batch * of_image;
    const float *y = call->in[1].data;
    double *sums = call->workspace;
    memset(sums, 0, iso_image_workspace(ISO_OP_CONV_W, s));
#pragma omp parallel for num_threads(call->threads < 1 ? 1 : call->threads) schedule(static, 1)
    for (int t = 0; t < SETS; t++)
        for (int64_t b = bands * t / SETS; b < bands * (t + 1) / SETS; b++) {
            const int64_t first = b % of_image * high, row = b / of_image * s->oh + first;
            add_band(s, row_of(s, call->in[0].data, row), y + row * s->ow * s->o, iso_min64(high, s->oh - first), sums + t * results);
        }
    for (int64_t o = 0; o < s->o; o++)
        for (int64_t k = 0; k < each; k++) {
            double sum = 0;
            for (int t = 0; t < SETS; t++) sum += sums[t * results + k * s->o + o];
            iso_cpu_put_sum(call, o * each + k, sum);
        }
}
