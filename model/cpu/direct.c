/* direct.c: see direct.h. conv and conv_x; direct_w.c has the weight gradient. */
#include "model/cpu/direct.h"

#include <math.h>

#if defined(__x86_64__) && defined(__linux__)
#include <omp.h>
#include <string.h>

#include "model/cpu/amx.h"
#include "model/cpu/direct_planes.h"
#include "model/cpu/gemm.h"

#define TARGET ISO_AMX_TARGET

enum {
    TILE = ISO_AMX_TILE,
    DEPTH = ISO_AMX_DEPTH,
    TILE_BYTES = ISO_AMX_TILE_BYTES,
    STEP_BYTES = ISO_AMX_PARTS * TILE_BYTES,
    PIXELS = 64,             /* q at a time */
    MAX_STEPS = 512,
    MAX_CLASSES = 16,
    WEIGHT_BYTES = 1 << 20   /* all weights, split: they are to stay in the second-level cache */
};

/* One convolution of stride 1 over the planes: conv is one, conv_x one for each residue of its pixels. */
typedef struct class {
    int steps;
    int64_t *at;             /* [steps]: bytes from pixel q to what a step multiplies */
    int64_t oh, ow;          /* output pixels */
    int64_t first_h, first_w, stride; /* where they lie in the output image */
    char *weights;           /* [n / TILE] panels of [steps] */
    iso_axis_class h, w;     /* of conv_x */
} class;

typedef struct problem {
    iso_planes planes;
    int64_t image_h, image_w, n; /* the output image and its channels */
    int64_t panels;
    int classes;
    class class[MAX_CLASSES];
} problem;

/* --- sizes */

static int64_t run_steps(int64_t taps, int64_t c)
{
    return iso_ceil_div(taps * c, DEPTH);
}

static bool describe_conv(const iso_conv_sizes *s, problem *p)
{
    if (s->stride * s->stride > MAX_CLASSES || s->c % TILE != 0 || s->o < TILE) return false;
    const int64_t th = iso_ceil_div(s->kh, s->stride), tw = iso_ceil_div(s->kw, s->stride);
    p->planes = (iso_planes){.h = s->oh + th - 1, .w = s->ow + tw - 1, .c = s->c, .phases = s->stride, .pad = s->pad};
    p->image_h = s->oh;
    p->image_w = s->ow;
    p->n = s->o;
    p->classes = 1;
    int64_t steps = 0;
    for (int64_t ph = 0; ph < s->stride && ph < s->kh; ph++)
        for (int64_t pw = 0; pw < s->stride && pw < s->kw; pw++)
            steps += iso_ceil_div(s->kh - ph, s->stride) * run_steps(iso_ceil_div(s->kw - pw, s->stride), s->c);
    if (steps > MAX_STEPS) return false;
    p->class[0] = (class){.steps = (int)steps, .oh = s->oh, .ow = s->ow, .stride = 1};
    return true;
}

static bool describe_conv_x(const iso_conv_sizes *s, problem *p)
{
    if (s->stride * s->stride > MAX_CLASSES || s->o % TILE != 0 || s->c < TILE) return false;
    int64_t border = 0, steps = 0;
    p->classes = (int)(s->stride * s->stride);
    for (int i = 0; i < p->classes; i++) {
        class *a = &p->class[i];
        *a = (class){.first_h = i / s->stride, .first_w = i % s->stride, .stride = s->stride};
        a->h = iso_axis_class_of(s->h, s->kh, s->stride, s->pad, a->first_h);
        a->w = iso_axis_class_of(s->w, s->kw, s->stride, s->pad, a->first_w);
        a->oh = a->h.pixels;
        a->ow = a->w.pixels;
        if (a->h.taps < 1 || a->w.taps < 1 || a->oh < 1 || a->ow < 1) return false;
        a->steps = (int)(a->h.taps * run_steps(a->w.taps, s->o));
        steps += a->steps;
        /* the zeros behind a row are those before the next one: there must be as many as either needs */
        const int64_t sides[] = {a->h.pad, a->w.pad, a->oh - a->h.pad + a->h.taps - 1 - s->oh, a->ow - a->w.pad + a->w.taps - 1 - s->ow};
        for (int k = 0; k < 4; k++) border = iso_max64(border, sides[k]);
        if (a->h.pad < 0 || a->w.pad < 0) return false;
    }
    if (steps > MAX_STEPS) return false;
    p->planes = (iso_planes){.h = s->oh + border, .w = s->ow + border, .c = s->o, .phases = 1};
    p->planes.lead = border * (p->planes.w + 1);
    p->image_h = s->h;
    p->image_w = s->w;
    p->n = s->c;
    return true;
}

static bool describe(iso_op op, const iso_call *call, problem *p, iso_conv_sizes *s)
{
    memset(p, 0, sizeof *p);
    *s = iso_conv_sizes_of_call(op, call);
    if (s->batch < 1 || !(op == ISO_OP_CONV ? describe_conv : describe_conv_x)(s, p)) return false;
    p->panels = iso_ceil_div(p->n, TILE);
    int64_t steps = 0, useful = 0;
    for (int i = 0; i < p->classes; i++) {
        steps += p->class[i].steps;
        useful += p->class[i].oh * p->class[i].ow;
    }
    const int64_t computed = p->classes * p->planes.h * p->planes.w;
    if (steps * p->panels * STEP_BYTES > WEIGHT_BYTES || 2 * useful < computed || s->batch * computed < 8 * PIXELS) return false;
    return iso_planes_chunk(&p->planes, s->batch);
}

/* --- weights */

/* TILE columns of B: 32 depths of floats, [depth][column], as a step's tiles. */
TARGET static void split_weights(const float *stage, char *to)
{
    for (int k = 0; k < TILE; k++)
        iso_amx_put_row(_mm512_loadu_ps(stage + 2 * k * TILE), _mm512_loadu_ps(stage + (2 * k + 1) * TILE), to + 64 * k);
}

/* The weights that a run of kernel elements meets: w[column * column_pitch + r * tap_pitch + c * c_pitch], r < taps. */
typedef struct tap_run {
    const float *w;
    int64_t taps, channels, column_pitch, tap_pitch, c_pitch;
} tap_run;

static char *pack_run(const tap_run *r, int64_t first, int columns, char *to)
{
    float stage[DEPTH * TILE];
    const int64_t depth = r->taps * r->channels;
    for (int64_t k0 = 0; k0 < depth; k0 += DEPTH, to += STEP_BYTES) {
        memset(stage, 0, sizeof stage);
        for (int64_t k = k0; k < depth && k < k0 + DEPTH; k++) {
            const float *from = r->w + first * r->column_pitch + k / r->channels * r->tap_pitch + k % r->channels * r->c_pitch;
            for (int j = 0; j < columns; j++) stage[(k - k0) * TILE + j] = from[j * r->column_pitch];
        }
        split_weights(stage, to);
    }
    return to;
}

static void pack_conv(const iso_conv_sizes *s, const float *w, int64_t first, int columns, char *to)
{
    for (int64_t ph = 0; ph < s->stride && ph < s->kh; ph++)
        for (int64_t pw = 0; pw < s->stride && pw < s->kw; pw++)
            for (int64_t u = ph; u < s->kh; u += s->stride) {
                const tap_run r = {w + (u * s->kw + pw) * s->c, iso_ceil_div(s->kw - pw, s->stride), s->c,
                               s->kh * s->kw * s->c, s->stride * s->c, 1};
                to = pack_run(&r, first, columns, to);
            }
}

static void pack_conv_x(const iso_conv_sizes *s, const class *a, const float *w, int64_t first, int columns, char *to)
{
    for (int64_t t = 0; t < a->h.taps; t++) {
        const int64_t u = a->h.last - t * s->stride;
        const tap_run r = {w + (u * s->kw + a->w.last) * s->c, a->w.taps, s->o, 1, -s->stride * s->c, s->kh * s->kw * s->c};
        to = pack_run(&r, first, columns, to);
    }
}

static void find_conv(const iso_conv_sizes *s, const iso_planes *p, class *a)
{
    int64_t *at = a->at;
    for (int64_t ph = 0; ph < s->stride && ph < s->kh; ph++)
        for (int64_t pw = 0; pw < s->stride && pw < s->kw; pw++)
            for (int64_t t = 0; t < iso_ceil_div(s->kh - ph, s->stride); t++)
                for (int64_t k = 0; k < run_steps(iso_ceil_div(s->kw - pw, s->stride), s->c); k++)
                    *at++ = iso_planes_at(p, ph * s->stride + pw, t * p->w) + k * DEPTH * 2;
}

static void find_conv_x(const iso_planes *p, class *a)
{
    int64_t *at = a->at;
    for (int64_t t = 0; t < a->h.taps; t++)
        for (int64_t k = 0; k < run_steps(a->w.taps, p->c); k++)
            *at++ = iso_planes_at(p, 0, (t - a->h.pad) * p->w - a->w.pad) + k * DEPTH * 2;
}

/* --- the micro-kernels: c = A B over all steps; A at a + at[step] and its parts `part` bytes apart, rows `row` bytes apart */

/* 64 rows and 16 columns; c [64][16]. */
TARGET static void micro_41(int steps, const int64_t *at, const char *a, int64_t part, int64_t row, const char *b, float *c)
{
    ISO_AMX_FENCE;
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    for (int s = 0; s < steps; s++, b += STEP_BYTES) {
        const char *from = a + at[s];
        _tile_loadd(5, b, 64);
        _tile_loadd(6, b + TILE_BYTES, 64);
        _tile_loadd(7, b + 2 * TILE_BYTES, 64);
#define ROWS(i)                                                  \
    _tile_loadd(4, from + (i) * TILE * row + 2 * part, row);     \
    _tile_dpbf16ps(i, 4, 5);                                     \
    _tile_loadd(4, from + (i) * TILE * row + part, row);         \
    _tile_dpbf16ps(i, 4, 5);                                     \
    _tile_dpbf16ps(i, 4, 6);                                     \
    _tile_loadd(4, from + (i) * TILE * row, row);                \
    _tile_dpbf16ps(i, 4, 5);                                     \
    _tile_dpbf16ps(i, 4, 6);                                     \
    _tile_dpbf16ps(i, 4, 7);
        ROWS(0) ROWS(1) ROWS(2) ROWS(3)
#undef ROWS
    }
    _tile_stored(0, c, 4 * TILE);
    _tile_stored(1, c + TILE * TILE, 4 * TILE);
    _tile_stored(2, c + 2 * TILE * TILE, 4 * TILE);
    _tile_stored(3, c + 3 * TILE * TILE, 4 * TILE);
    ISO_AMX_FENCE;
}

/* 32 rows and 32 columns, the second 16 of them `panel` bytes behind; c [2][32][16]: the columns one behind the other. */
TARGET static void micro_22(int steps, const int64_t *at, const char *a, int64_t part, int64_t row, const char *b, size_t panel, float *c)
{
    ISO_AMX_FENCE;
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    for (int s = 0; s < steps; s++, b += STEP_BYTES) {
        const char *from = a + at[s];
#define LOAD_A(i)                                                \
    _tile_loadd(4, from + (i) * part, row);                      \
    _tile_loadd(5, from + TILE * row + (i) * part, row);
#define LOAD_B(i)                                                \
    _tile_loadd(6, b + (i) * TILE_BYTES, 64);                    \
    _tile_loadd(7, b + panel + (i) * TILE_BYTES, 64);
#define MULTIPLY                                                 \
    _tile_dpbf16ps(0, 4, 6);                                     \
    _tile_dpbf16ps(1, 4, 7);                                     \
    _tile_dpbf16ps(2, 5, 6);                                     \
    _tile_dpbf16ps(3, 5, 7);
        LOAD_A(2) LOAD_B(0) MULTIPLY
        LOAD_A(0) MULTIPLY
        LOAD_A(1) MULTIPLY
        LOAD_B(1) MULTIPLY
        LOAD_A(0) MULTIPLY
        LOAD_B(2) MULTIPLY
#undef LOAD_A
#undef LOAD_B
#undef MULTIPLY
    }
    _tile_stored(0, c, 4 * TILE);
    _tile_stored(1, c + PIXELS * TILE, 4 * TILE);
    _tile_stored(2, c + TILE * TILE, 4 * TILE);
    _tile_stored(3, c + PIXELS * TILE + TILE * TILE, 4 * TILE);
    ISO_AMX_FENCE;
}

/* --- running */

/* Where pixels q0 ... of the planes lie in the output; NULL for those that don't. */
static void find_pixels(const problem *p, const class *a, int64_t image, int64_t images, int64_t q0, float *out, float **rows)
{
    const int64_t plane = p->planes.h * p->planes.w;
    int64_t b = q0 / plane, i = q0 % plane / p->planes.w, j = q0 % p->planes.w;
    for (int k = 0; k < PIXELS; k++) {
        rows[k] = NULL;
        if (b < images && i < a->oh && j < a->ow) {
            const int64_t y = a->first_h + i * a->stride, x = a->first_w + j * a->stride;
            rows[k] = out + (((image + b) * p->image_h + y) * p->image_w + x) * p->n;
        }
        if (++j < p->planes.w) continue;
        j = 0;
        if (++i < p->planes.h) continue;
        i = 0;
        b++;
    }
}

TARGET static void save(const float *c, float *const *rows, int64_t column, int64_t n)
{
    const __mmask16 mask = n - column >= TILE ? 0xffff : (__mmask16)((1u << (n - column)) - 1);
    for (int k = 0; k < PIXELS; k++, c += TILE)
        if (rows[k]) _mm512_mask_storeu_ps(rows[k] + column, mask, _mm512_load_ps(c));
}

TARGET static void multiply(const problem *p, const class *a, int64_t image, int64_t images, const char *planes, float *out)
{
    _Alignas(64) float c[2 * PIXELS * TILE];
    float *rows[PIXELS];
    const int64_t row = p->planes.c * 2, part = p->planes.part;
    const size_t panel = (size_t)a->steps * STEP_BYTES;
    for (int64_t q = 0; q < images * p->planes.h * p->planes.w; q += PIXELS) {
        const char *from = planes + q * row;
        find_pixels(p, a, image, images, q, out, rows);
        int64_t j = 0;
        for (; j + 2 <= p->panels; j += 2) {
            const char *b = a->weights + (size_t)j * panel;
            micro_22(a->steps, a->at, from, part, row, b, panel, c);
            micro_22(a->steps, a->at, from + 2 * TILE * row, part, row, b, panel, c + 2 * TILE * TILE);
            save(c, rows, j * TILE, p->n);
            save(c + PIXELS * TILE, rows, (j + 1) * TILE, p->n);
        }
        if (j == p->panels) continue;
        micro_41(a->steps, a->at, from, part, row, a->weights + (size_t)j * panel, c);
        save(c, rows, j * TILE, p->n);
    }
}

/* What one thread has, then what all have: offsets and weights. */
static size_t planes_bytes(const problem *p, const iso_conv_sizes *s)
{
    /* what the last tiles read beyond the planes, for products that are thrown away */
    const int64_t beyond = (PIXELS + s->kh * p->planes.w + s->kw + DEPTH) * p->planes.c * 2;
    return (size_t)iso_ceil_div((int64_t)p->planes.bytes + beyond, 64) * 64;
}

static int64_t all_steps(const problem *p)
{
    int64_t steps = 0;
    for (int i = 0; i < p->classes; i++) steps += p->class[i].steps;
    return steps;
}

size_t iso_direct_workspace(iso_op op, const iso_call *call)
{
    problem p;
    iso_conv_sizes s;
    if (!iso_gemm_isa_get()->tiles || !describe(op, call, &p, &s)) return 0;
    const size_t threads = call->threads < 1 ? 1 : (size_t)call->threads;
    return threads * planes_bytes(&p, &s) + (size_t)(iso_ceil_div(all_steps(&p) * 8, 64) * 64 + all_steps(&p) * p.panels * STEP_BYTES);
}

double iso_direct_cost(iso_op op, const iso_call *call)
{
    problem p;
    iso_conv_sizes s;
    if (!iso_gemm_isa_get()->tiles || !describe(op, call, &p, &s)) return INFINITY;
    const double pixels = (double)(s.batch * p.planes.h * p.planes.w), n = (double)(p.panels * TILE);
    return pixels * ((double)all_steps(&p) * DEPTH * n / ISO_AMX_RATE + (double)(p.planes.phases * p.planes.phases * p.planes.c) +
                     0.4 * p.classes * n);
}

/* Sets where the classes' offsets and weights lie. */
static void place(problem *p, char *at)
{
    char *weights = at + iso_ceil_div(all_steps(p) * 8, 64) * 64;
    for (int i = 0; i < p->classes; i++) {
        p->class[i].at = (int64_t *)at;
        p->class[i].weights = weights;
        at += p->class[i].steps * 8;
        weights += p->class[i].steps * p->panels * STEP_BYTES;
    }
}

TARGET static void multiply_chunk(const problem *p, const float *in, int64_t h, int64_t w, int64_t image, int64_t images, char *planes,
                                  float *out)
{
    iso_planes_fill(&p->planes, in, h, w, image, images, planes);
    iso_amx_configure();
    for (int i = 0; i < p->classes; i++) multiply(p, &p->class[i], image, images, planes, out);
    _tile_release();
}

static void run(iso_op op, const iso_call *call)
{
    problem p;
    iso_conv_sizes s;
    if (!describe(op, call, &p, &s)) return;
    const int threads = call->threads < 1 ? 1 : call->threads;
    const float *in = call->in[0].data, *w = call->in[1].data;
    const int64_t h = op == ISO_OP_CONV ? s.h : s.oh, width = op == ISO_OP_CONV ? s.w : s.ow;
    const int64_t chunks = iso_ceil_div(s.batch, p.planes.images);
    place(&p, (char *)call->workspace + (size_t)threads * planes_bytes(&p, &s));
    for (int i = 0; i < p.classes; i++) {
        if (op == ISO_OP_CONV) find_conv(&s, &p.planes, &p.class[i]);
        else find_conv_x(&p.planes, &p.class[i]);
    }
#pragma omp parallel num_threads(threads)
    {
        char *planes = (char *)call->workspace + (size_t)omp_get_thread_num() * planes_bytes(&p, &s);
#pragma omp for schedule(static)
        for (int64_t j = 0; j < p.classes * p.panels; j++) {
            const class *a = &p.class[j / p.panels];
            const int64_t first = j % p.panels * TILE;
            char *to = a->weights + (size_t)(j % p.panels) * (size_t)a->steps * STEP_BYTES;
            if (op == ISO_OP_CONV) pack_conv(&s, w, first, (int)iso_min64(TILE, p.n - first), to);
            else pack_conv_x(&s, a, w, first, (int)iso_min64(TILE, p.n - first), to);
        }
#pragma omp for schedule(dynamic, 1)
        for (int64_t k = 0; k < chunks; k++) {
            const int64_t image = k * p.planes.images, images = iso_min64(p.planes.images, s.batch - image);
            multiply_chunk(&p, in, h, width, image, images, planes, call->out.data);
        }
    }
}

void iso_direct_conv(const iso_call *call)
{
    run(ISO_OP_CONV, call);
}

void iso_direct_conv_x(const iso_call *call)
{
    run(ISO_OP_CONV_X, call);
}
#else
size_t iso_direct_workspace(iso_op op, const iso_call *call)
{
    (void)op, (void)call;
    return 0;
}
double iso_direct_cost(iso_op op, const iso_call *call)
{
    (void)op, (void)call;
    return INFINITY;
}
void iso_direct_conv(const iso_call *call) { (void)call; }
void iso_direct_conv_x(const iso_call *call) { (void)call; }
#endif
