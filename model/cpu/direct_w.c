/* direct_w.c: the weight gradient of direct.h: w[o, tap, c] = sum over q of y[q, o] x[q + tap, c].
 *
 * y is split and transposed into tiles of A once for each group of images; x lies as pairs of pixels, from which tiles of
 * B are loaded for every tap. Images form a fixed number of sets, whose sums are kept apart in double and added up in one order,
 * so that results do not depend on the threads. */
#include "model/cpu/direct.h"

#include <math.h>

#if defined(__x86_64__) && defined(__linux__)
#include <omp.h>
#include <string.h>

#include "model/cpu/amx.h"
#include "model/cpu/direct_planes.h"
#include "model/cpu/gemm.h"

#define TARGET ISO_AMX_TARGET
#define INLINE ISO_AMX_INLINE

enum {
    TILE = ISO_AMX_TILE,
    DEPTH = ISO_AMX_DEPTH,
    TILE_BYTES = ISO_AMX_TILE_BYTES,
    STEP_BYTES = ISO_AMX_PARTS * TILE_BYTES,
    SETS = 8,
    MAX_COLUMNS = 2048,       /* tiles of columns */
    MAX_RESULTS = 1 << 18,
    CACHE = 3 << 19           /* bytes: planes and y are to stay in the second-level cache */
};

/* TILE columns of the result. */
typedef struct columns {
    int64_t from;             /* bytes from pixel q to what they are multiplied with */
    int64_t to;               /* first of them in a row of the result */
} columns;

typedef struct problem {
    iso_planes planes;
    iso_conv_sizes s;
    int64_t sets, panels, tiles; /* sets of images, TILEs of rows and of columns */
    int64_t steps;               /* depths of DEPTH pixels of as many images as are split at a time */
    size_t y_bytes, thread_bytes, sum_bytes, columns_bytes;
} problem;

static bool describe(const iso_call *call, problem *p)
{
    const iso_conv_sizes s = iso_conv_sizes_of_call(ISO_OP_CONV_W, call);
    const int64_t th = iso_ceil_div(s.kh, s.stride), tw = iso_ceil_div(s.kw, s.stride);
    if (s.batch < 1 || s.c % TILE != 0 || s.o < TILE || s.o * s.kh * s.kw * s.c > MAX_RESULTS) return false;
    *p = (problem){.s = s, .sets = iso_min64(SETS, s.batch), .panels = iso_ceil_div(s.o, TILE), .tiles = s.kh * s.kw * s.c / TILE};
    p->planes = (iso_planes){.h = s.oh + th - 1, .w = s.ow + tw - 1, .c = s.c, .phases = s.stride, .pad = s.pad, .pairs = true};
    const int64_t plane = p->planes.h * p->planes.w;
    if (p->tiles > MAX_COLUMNS || 2 * s.oh * s.ow < plane || s.batch * plane < 512) return false;
    if (!iso_planes_chunk(&p->planes, s.batch)) return false;
    p->steps = iso_ceil_div(p->planes.images * plane, DEPTH);
    p->y_bytes = (size_t)(p->panels * p->steps * STEP_BYTES);
    if (p->planes.bytes + p->y_bytes > CACHE) return false;
    const int64_t beyond = (DEPTH + 1 + s.kh * p->planes.w + s.kw) * s.c * 4; /* read by the last step, where y is zero */
    p->thread_bytes = (size_t)iso_ceil_div((int64_t)(p->y_bytes + p->planes.bytes) + beyond, 64) * 64;
    p->sum_bytes = (size_t)(p->panels * TILE * p->tiles * TILE) * sizeof(double);
    p->columns_bytes = (size_t)iso_ceil_div(p->tiles * (int64_t)sizeof(columns), 64) * 64;
    return true;
}

size_t iso_direct_w_workspace(const iso_call *call)
{
    problem p;
    if (!iso_gemm_isa_get()->tiles || !describe(call, &p)) return 0;
    return (size_t)(call->threads < 1 ? 1 : call->threads) * p.thread_bytes + (size_t)p.sets * p.sum_bytes + p.columns_bytes;
}

double iso_direct_w_cost(const iso_call *call)
{
    problem p;
    if (!iso_gemm_isa_get()->tiles || !describe(call, &p)) return INFINITY;
    const double pixels = (double)(p.s.batch * p.planes.h * p.planes.w), o = (double)(p.panels * TILE), columns = (double)(p.tiles * TILE);
    return pixels * (o * columns / ISO_AMX_RATE + (double)(p.planes.phases * p.planes.phases * p.s.c) + 0.8 * o) +
           2.5 * (double)p.sets * o * columns;
}

static void find_columns(const problem *p, columns *out)
{
    const iso_conv_sizes *s = &p->s;
    for (int64_t u = 0; u < s->kh; u++)
        for (int64_t v = 0; v < s->kw; v++)
            for (int64_t c = 0; c < s->c; c += TILE, out++) {
                const int64_t plane = u % s->stride * s->stride + v % s->stride;
                out->from = iso_planes_at(&p->planes, plane, u / s->stride * p->planes.w + v / s->stride) + 4 * c;
                out->to = (u * s->kw + v) * s->c + c;
            }
}

/* Where y's numbers of pixels q0 ... q0+31 lie; NULL where there are none. */
static void find_y(const problem *p, const float *y, int64_t image, int64_t images, int64_t q0, const float **at)
{
    const int64_t w = p->planes.w, plane = p->planes.h * w;
    int64_t b = q0 / plane, i = q0 % plane / w, j = q0 % w;
    for (int k = 0; k < DEPTH; k++) {
        const bool there = b < images && i < p->s.oh && j < p->s.ow;
        at[k] = there ? y + (((image + b) * p->s.oh + i) * p->s.ow + j) * p->s.o : NULL;
        if (++j < w) continue;
        j = 0;
        if (++i < p->planes.h) continue;
        i = 0;
        b++;
    }
}

/* y as tiles of A: [panel][step]. */
TARGET static void pack_y(const problem *p, const float *y, int64_t image, int64_t images, int64_t steps, char *to)
{
    const float *at[DEPTH];
    for (int64_t step = 0; step < steps; step++, to += STEP_BYTES) {
        find_y(p, y, image, images, step * DEPTH, at);
        for (int64_t panel = 0; panel < p->panels; panel++) {
            char *tile = to + panel * p->steps * STEP_BYTES;
            const int64_t o = panel * TILE, n = p->s.o - o;
            for (int k = 0; k < TILE; k++) {
                const float *first = at[2 * k], *second = at[2 * k + 1];
                iso_amx_put_row(first ? iso_amx_load(first + o, n) : _mm512_setzero_ps(),
                                second ? iso_amx_load(second + o, n) : _mm512_setzero_ps(), tile + 64 * k);
            }
            for (int s = 0; s < ISO_AMX_PARTS; s++) iso_amx_transpose(tile + s * TILE_BYTES, 64, tile + s * TILE_BYTES);
        }
    }
}

/* c [tall ? 32 : 16][32]: two tiles of columns, whose pairs of pixels are `row` bytes apart. */
INLINE void micro(const bool tall, int64_t steps, const char *a, size_t panel, const char *b0, const char *b1, int64_t part, int64_t row, float *c)
{
    ISO_AMX_FENCE;
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    for (; steps > 0; steps--, a += STEP_BYTES, b0 += TILE * row, b1 += TILE * row) {
#define LOAD_A(i)                                              \
    _tile_loadd(4, a + (i) * TILE_BYTES, 64);                  \
    if (tall) _tile_loadd(5, a + panel + (i) * TILE_BYTES, 64);
#define LOAD_B(i)                                              \
    _tile_loadd(6, b0 + (i) * part, row);                      \
    _tile_loadd(7, b1 + (i) * part, row);
#define MULTIPLY                                               \
    _tile_dpbf16ps(0, 4, 6);                                   \
    _tile_dpbf16ps(1, 4, 7);                                   \
    if (tall) _tile_dpbf16ps(2, 5, 6);                         \
    if (tall) _tile_dpbf16ps(3, 5, 7);
        LOAD_B(2) LOAD_A(0) MULTIPLY
        LOAD_B(0) MULTIPLY
        LOAD_B(1) MULTIPLY
        LOAD_A(1) MULTIPLY
        LOAD_B(0) MULTIPLY
        LOAD_A(2) MULTIPLY
#undef LOAD_A
#undef LOAD_B
#undef MULTIPLY
    }
    _tile_stored(0, c, 8 * TILE);
    _tile_stored(1, c + TILE, 8 * TILE);
    if (tall) _tile_stored(2, c + TILE * 2 * TILE, 8 * TILE);
    if (tall) _tile_stored(3, c + TILE * 2 * TILE + TILE, 8 * TILE);
    ISO_AMX_FENCE;
}

TARGET static void micro_12(int64_t steps, const char *a, const char *b0, const char *b1, int64_t part, int64_t row, float *c)
{
    micro(false, steps, a, 0, b0, b1, part, row, c);
}

TARGET static void micro_22(int64_t steps, const char *a, size_t panel, const char *b0, const char *b1, int64_t part, int64_t row, float *c)
{
    micro(true, steps, a, panel, b0, b1, part, row, c);
}

/* sum [rows][pitch] += 16 columns of c [rows][32]. */
TARGET static void add(const float *c, int rows, double *sum, int64_t pitch)
{
    for (int i = 0; i < rows; i++, c += 2 * TILE, sum += pitch) {
        _mm512_storeu_pd(sum, _mm512_add_pd(_mm512_loadu_pd(sum), _mm512_cvtps_pd(_mm256_loadu_ps(c))));
        _mm512_storeu_pd(sum + 8, _mm512_add_pd(_mm512_loadu_pd(sum + 8), _mm512_cvtps_pd(_mm256_loadu_ps(c + 8))));
    }
}

TARGET static void multiply(const problem *p, const columns *list, int64_t steps, const char *y, const char *planes, double *sum)
{
    _Alignas(64) float c[2 * TILE * 2 * TILE];
    const int64_t pitch = p->tiles * TILE, row = 2 * 4 * p->s.c, part = p->planes.part;
    const size_t panel = (size_t)p->steps * STEP_BYTES;
    for (int64_t o = 0; o < p->panels; o += 2) {
        const bool tall = o + 1 < p->panels;
        const char *a = y + (size_t)o * panel;
        for (int64_t j = 0; j < p->tiles; j += 2) {
            const columns *first = list + j, *second = j + 1 < p->tiles ? first + 1 : first;
            if (tall) micro_22(steps, a, panel, planes + first->from, planes + second->from, part, row, c);
            else micro_12(steps, a, planes + first->from, planes + second->from, part, row, c);
            add(c, tall ? 2 * TILE : TILE, sum + o * TILE * pitch + first->to, pitch);
            if (second != first) add(c + TILE, tall ? 2 * TILE : TILE, sum + o * TILE * pitch + second->to, pitch);
        }
    }
}

TARGET static void sum_set(const problem *p, const columns *list, const iso_call *call, int64_t set, char *own, double *sum)
{
    const int64_t first = set * p->s.batch / p->sets, last = (set + 1) * p->s.batch / p->sets;
    char *planes = own + p->y_bytes;
    memset(sum, 0, p->sum_bytes);
    for (int64_t image = first; image < last; image += p->planes.images) {
        const int64_t images = iso_min64(p->planes.images, last - image);
        iso_planes_fill(&p->planes, call->in[0].data, p->s.h, p->s.w, image, images, planes);
        const int64_t steps = iso_ceil_div(images * p->planes.h * p->planes.w, DEPTH);
        pack_y(p, call->in[1].data, image, images, steps, own);
        iso_amx_configure();
        multiply(p, list, steps, own, planes, sum);
        _tile_release();
    }
}

void iso_direct_conv_w(const iso_call *call)
{
    problem p = {.sets = 0};
    if (!describe(call, &p)) return;
    const int threads = call->threads < 1 ? 1 : call->threads;
    char *shared = (char *)call->workspace + (size_t)threads * p.thread_bytes;
    columns *list = (columns *)(shared + (size_t)p.sets * p.sum_bytes);
    const int64_t pitch = p.tiles * TILE;
    float *out = call->out.data;
    find_columns(&p, list);
#pragma omp parallel num_threads(threads)
    {
        char *own = (char *)call->workspace + (size_t)omp_get_thread_num() * p.thread_bytes;
        /* what the last steps read behind the planes meets zeros of y, but must be numbers */
        memset(own + p.y_bytes + p.planes.bytes, 0, p.thread_bytes - p.y_bytes - p.planes.bytes);
#pragma omp for schedule(dynamic, 1)
        for (int64_t set = 0; set < p.sets; set++)
            sum_set(&p, list, call, set, own, (double *)(shared + (size_t)set * p.sum_bytes));
#pragma omp for schedule(static)
        for (int64_t o = 0; o < p.s.o; o++)
            for (int64_t j = 0; j < pitch; j++) {
                double sum = 0;
                for (int64_t set = 0; set < p.sets; set++) sum += ((const double *)(shared + (size_t)set * p.sum_bytes))[o * pitch + j];
                out[o * pitch + j] = (float)sum;
            }
    }
}
#else
size_t iso_direct_w_workspace(const iso_call *call)
{
    (void)call;
    return 0;
}
double iso_direct_w_cost(const iso_call *call)
{
    (void)call;
    return INFINITY;
}
void iso_direct_conv_w(const iso_call *call) { (void)call; }
#endif
