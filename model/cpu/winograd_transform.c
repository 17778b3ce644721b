/* winograd_transform.c: see winograd_transform.h and winograd.h. Each loop takes eight channels of a tile through both axes at once. */
#include "model/cpu/winograd_transform.h"

#include <stdatomic.h>

typedef float vec8 __attribute__((vector_size(32)));
#define INLINE static inline __attribute__((always_inline))
enum { LANES = ISO_WINOGRAD_LANES, SIDE = 7 /* points along an axis, at most */, LINE = 16 /* numbers of a line of the cache */ };
#define TAPS(n) ((n) == 3 || (n) == 5 ? 3 : 2) /* weights along an axis */
#define POINTS(n) ((n) + TAPS(n) - 1)          /* points along an axis, and pixels of x that a tile meets */

INLINE void load(vec8 *v, const float *from) { memcpy(v, from, sizeof *v); }
INLINE void store(float *to, const vec8 *v) { memcpy(to, v, sizeof *v); }

/* --- along one axis: n pixels of y, t weights, n+t-1 pixels of x and points.
 *
 * Points come in pairs a and -a, where a polynomial is the sum and the difference of its even and odd part, and infinity, where it is its last
 * coefficient. For N(p), the product of all p - point but infinity's: y and w are evaluated; x meets the coefficients of N(p) / (p - a), over N'(a),
 * which w bears, and at infinity those of N. n = 2 has the points 0, 1 and infinity, and no table. */
typedef struct pair {
    float y[5], x[SIDE - 1], w[3]; /* what each number counts at a: even ones for the even part, odd ones for the odd */
} pair;

/* a; s, by which y is multiplied; m, N'(a) / 2a; then x's. e1, e2: the sum and the product of the squares of the other pairs' points. */
#define PAIR(a, s, m, ...)                                                                            \
    {{(s), (s) * (a), (s) * (a) * (a), (s) * (a) * (a) * (a), (s) * (a) * (a) * (a) * (a)}, {__VA_ARGS__}, \
     {0.5 / ((a) * (m) * (s)), 0.5 / ((m) * (s)), 0.5 * (a) / ((m) * (s))}}
#define PAIR_5(a, e1) PAIR(a, 1.0, (a) * (a) - (e1), -(a) * (e1), -(e1), a, 1)
#define PAIR_7(a, s, e1, e2) PAIR(a, s, ((a) * (a) - (e1)) * (a) * (a) + (e2), (a) * (e2), e2, -(a) * (e1), -(e1), a, 1)
static const pair of_5[] = {PAIR_5(1.0, 0.25), PAIR_5(0.5, 1.0)};
static const pair of_7[] = {PAIR_7(1.0, 1.0, 265.0 / 64, 9.0 / 16), PAIR_7(0.375, 1.0, 5.0, 4.0), PAIR_7(2.0, 1.0 / 16, 73.0 / 64, 9.0 / 64)};
static const float n_5[] = {1.0 / 4, -5.0 / 4}, n_7[] = {-9.0 / 16, 301.0 / 64, -329.0 / 64}; /* N's even coefficients, but for the last, a one */
#define PAIRS(n) (POINTS(n) == 7 ? of_7 : of_5)
#define EVEN_OF_N(n) (POINTS(n) == 7 ? n_7 : n_5)

typedef enum operand { OF_Y, OF_X, OF_W } operand;
INLINE int length_of(const int n, const operand of) { return of == OF_Y ? n : of == OF_X ? POINTS(n) : TAPS(n); }
INLINE float counts(const int n, const operand of, int p, int i) { return of == OF_Y ? PAIRS(n)[p].y[i] : of == OF_X ? PAIRS(n)[p].x[i] : PAIRS(n)[p].w[i]; }

/* m = A y, B x or G w; numbers lie d apart. */
INLINE void to_points(const int n, const operand of, const vec8 *v, const int d, vec8 *m, const int dm)
{
    const int all = length_of(n, of), last = all - 1, finite = of == OF_X ? last : all, pairs = POINTS(n) / 2, more = of == OF_X ? last / 2 : 0;
    if (n == 2) {
        m[0] = of == OF_X ? v[0] - v[d] : v[0];
        m[dm] = of == OF_X ? v[d] : v[0] + v[d];
        m[2 * dm] = of == OF_X ? v[2 * d] - v[d] : v[d];
        return;
    }
#pragma GCC unroll 3
    for (int p = 0; p < pairs; p++) {
        vec8 even = counts(n, of, p, 0) * v[0], odd = counts(n, of, p, 1) * v[d];
#pragma GCC unroll 7
        for (int i = 2; i < finite; i++) {
            if (i % 2 == 0) even += counts(n, of, p, i) * v[i * d];
            else odd += counts(n, of, p, i) * v[i * d];
        }
        m[2 * p * dm] = even + odd;
        m[(2 * p + 1) * dm] = even - odd;
    }
    m[(POINTS(n) - 1) * dm] = v[last * d];
#pragma GCC unroll 3
    for (int i = 0; i < more; i++) m[(POINTS(n) - 1) * dm] += EVEN_OF_N(n)[i] * v[2 * i * d];
}

/* y = A' m, x = B' m or w = G' m */
INLINE void from_points(const int n, const operand of, const vec8 *m, const int dm, vec8 *v, const int d)
{
    const int all = length_of(n, of), last = all - 1, finite = of == OF_X ? last : all, pairs = POINTS(n) / 2, more = of == OF_X ? last / 2 : 0;
    if (n == 2) {
        v[0] = of == OF_X ? m[0] : m[0] + m[dm];
        v[d] = of == OF_X ? m[dm] - m[0] - m[2 * dm] : m[dm] + m[2 * dm];
        if (of == OF_X) v[2 * d] = m[2 * dm];
        return;
    }
    const vec8 infinite = m[(POINTS(n) - 1) * dm];
#pragma GCC unroll 3
    for (int p = 0; p < pairs; p++) {
        const vec8 sum = m[2 * p * dm] + m[(2 * p + 1) * dm], difference = m[2 * p * dm] - m[(2 * p + 1) * dm];
#pragma GCC unroll 7
        for (int i = 0; i < finite; i++) {
            const vec8 part = counts(n, of, p, i) * (i % 2 == 0 ? sum : difference);
            v[i * d] = p == 0 ? part : v[i * d] + part;
        }
    }
    if (of != OF_X) v[last * d] += infinite;
    else v[last * d] = infinite;
#pragma GCC unroll 3
    for (int i = 0; i < more; i++) v[2 * i * d] += EVEN_OF_N(n)[i] * infinite;
}

/* A tile goes through both axes a few rows of its results at a time: the values between would not fit into the registers, and writing and reading
 * them costs more than loading the tile two or three times. What a row does not need is neither loaded nor computed. */
INLINE void forget(void) { atomic_signal_fence(memory_order_seq_cst); } /* what was loaded: compilers would keep it for the next rows, on the stack */
#define ONE_BY_ONE _Pragma("GCC unroll 1")

/* Where nothing is multiplied at the points at infinity: those of a tile's last row, or of its last column. */
typedef struct lacks {
    bool row, column;
} lacks;

/* A line of values to the points of an operand. */
INLINE void put_line(const int n, const operand of, const vec8 *from, bool no_last, float *column, const int64_t *point)
{
    const int side = POINTS(n);
    vec8 out[SIDE];
    to_points(n, of, from, 1, out, 1);
#pragma GCC unroll 6
    for (int q = 0; q < side - 1; q++) store(column + point[q], &out[q]);
    if (!no_last) store(column + point[side - 1], &out[side - 1]);
}

/* Where a tile's pixels are of which some lie outside. */
typedef struct cut {
    const float *row[SIDE];   /* of the image, or of zeros */
    int64_t first, last;      /* columns first ... last-1 lie in the image */
} cut;

/* Column j of a tile: its pixels lie `row` bytes apart (the processor multiplies these by 2 and 4 in an address, numbers by none); where k is not NULL,
 * `offset` behind k's. False: it is all zeros. */
INLINE bool load_column(const int across, const char *from, int64_t row, const cut *k, int64_t offset, const int j, vec8 *in)
{
    if (k && (j < k->first || j >= k->last)) return false;
#pragma GCC unroll 7
    for (int i = 0; i < across; i++) memcpy(&in[i], k ? (const char *)k->row[i] + offset : from + i * row, sizeof in[i]);
    return true;
}

/* Rows r and, where it is not negative, s of what a tile gives along its columns; then along these rows, to their points. Its pixels lie row and pixel
 * apart; where k is not NULL, `offset` behind k's: in bytes. */
INLINE void split_rows(const int n, const operand of, const int r, const int s, const char *from, int64_t row, int64_t pixel, const cut *k,
                       int64_t offset, bool no_last, float *column, const int64_t *point)
{
    const int across = length_of(n, of);
    vec8 first[SIDE], second[SIDE];
    forget();
#pragma GCC unroll 7
    for (int j = 0; j < across; j++, from += pixel, offset += pixel) {
        vec8 in[SIDE], out[SIDE];
        if (load_column(across, from, row, k, offset, j, in)) {
            to_points(n, of, in, 1, out, 1);
            first[j] = out[r];
            if (s >= 0) second[j] = out[s];
        } else {
            first[j] = second[j] = (vec8){0};
        }
    }
    put_line(n, of, first, no_last, column, point + r * POINTS(n));
    if (s >= 0) put_line(n, of, second, no_last, column, point + s * POINTS(n));
}

/* A whole tile; distances in numbers. Of seven rows of points, four readings would cost more than writing the columns' results down. */
INLINE void split_tile(const int n, const operand of, const float *numbers, int64_t row, int64_t pixel, const cut *k, int64_t offset,
                       lacks no, float *column, const int64_t *point)
{
    const int side = POINTS(n), across = length_of(n, of);
    const char *from = (const char *)numbers;
    row *= (int64_t)sizeof(float), pixel *= (int64_t)sizeof(float), offset *= (int64_t)sizeof(float);
    if (side <= 5) {
        split_rows(n, of, 0, 1, from, row, pixel, k, offset, no.column, column, point);
        if (side > 3 || !no.row) split_rows(n, of, 2, side > 3 ? 3 : -1, from, row, pixel, k, offset, no.column, column, point);
        if (side > 3 && !no.row) split_rows(n, of, 4, -1, from, row, pixel, k, offset, no.column, column, point);
        return;
    }
    vec8 half[SIDE * SIDE];
    ONE_BY_ONE for (int j = 0; j < across; j++, from += pixel, offset += pixel) {
        vec8 in[SIDE];
        if (load_column(across, from, row, k, offset, j, in)) to_points(n, of, in, 1, half + j, SIDE);
        else
#pragma GCC unroll 7
            for (int r = 0; r < side; r++) half[r * SIDE + j] = (vec8){0};
    }
    ONE_BY_ONE for (int r = 0; r < side - no.row; r++) put_line(n, of, half + r * SIDE, no.column, column, point + r * POINTS(n));
}

/* A column of products, a row of points apart, of which the first so many are there, transformed to numbers as far apart. All columns come first: what
 * they give is less than what they read, so that writing it down costs less than reading twice. */
INLINE void get_column(const int n, const float *from, int64_t apart, int there, const operand of, vec8 *to)
{
    const int side = POINTS(n);
    vec8 in[SIDE];
#pragma GCC unroll 7
    for (int q = 0; q < side; q++) {
        if (q < there) load(&in[q], from + q * POINTS(n) * apart);
        else in[q] = (vec8){0};
    }
    from_points(n, of, in, 1, to, POINTS(n));
}

/* How many rows of points column j has. */
INLINE int there(const int n, lacks no, int j) { return no.column && j == POINTS(n) - 1 ? 0 : POINTS(n) - no.row; }

/* A function whose first argument is the n of a grid g, as a constant. */
#define WITH_N(f, ...) \
    (g->n == 2 ? f(2, __VA_ARGS__) : g->n == 3 ? f(3, __VA_ARGS__) : g->n == 4 ? f(4, __VA_ARGS__) : f(5, __VA_ARGS__))

/* --- strips */

/* What a strip is, along both axes. */
typedef struct strip {
    int64_t image, i; /* i: its first row of y */
    bool is_short;
} strip;

INLINE strip strip_of(const iso_winograd_grid *g, int64_t number)
{
    const int64_t k = number % g->tiles_h;
    return (strip){number / g->tiles_h, iso_winograd_start(g, k, g->full_h), k >= g->full_h};
}

/* A row of a tile that lies outside; never written, but a constant would be so many bytes of the program's file. */
static float zero_row[SIDE * ISO_WINOGRAD_STRIDE * ISO_WINOGRAD_CHANNELS];

/* Pixels first ... last-1 of a tile's side lie in the image. */
typedef struct inside {
    int64_t first, last;
} inside;

/* Of n pixels from i on. */
INLINE inside inside_y(int64_t i, int n, int64_t size)
{
    return (inside){0, iso_min64(n, size - i)};
}

/* Of the pixels i, i+1, ... of a line that a tile meets. */
INLINE inside inside_x(int64_t i, int n, const iso_winograd_line *l)
{
    return (inside){iso_max64(l->first - i, 0), iso_min64(l->last - i, POINTS(n))};
}

/* The pixels of a tile to come are asked for, some lines of the cache with every second eight channels of this one: its rows lie too far apart for the
 * processor to foresee them. */
typedef struct ahead {
    const float *next;
    int64_t lines, skip; /* of a row; numbers from its end to the next row */
    int64_t left;        /* lines of this row */
    int64_t each;        /* lines at a time */
} ahead;

/* rows of `floats` numbers that lie `row` apart, while so many eights of channels are done */
INLINE ahead ahead_of(const float *first, int64_t rows, int64_t row, int64_t floats, int64_t eights)
{
    enum { MOST = 32 << 10 /* numbers: more would drive this tile out of the second-level cache */ };
    const int64_t lines = iso_ceil_div(floats, LINE);
    return (ahead){first, lines, row - lines * LINE, lines, rows * floats <= MOST ? iso_ceil_div(rows * lines, iso_ceil_div(eights, 2)) : 0};
}

/* To be read they go to the second-level cache: rows a power of two apart would drive one another out of the first. */
INLINE void look_ahead(ahead *a, int64_t c, const bool write)
{
    if (c % (2 * LANES)) return;
    for (int64_t i = 0; i < a->each; i++) {
        if (write) __builtin_prefetch(a->next, 1);
        else __builtin_prefetch(a->next, 0, 1);
        a->next += LINE;
        if (--a->left > 0) continue;
        a->left = a->lines;
        a->next += a->skip;
    }
}

static iso_winograd_line line_of(int64_t p, int64_t stride, int64_t kernel, int64_t pad, int64_t size, int64_t met)
{
    const int64_t taps = iso_ceil_div(kernel - p, stride), there = size + pad - p > 0 ? iso_ceil_div(size + pad - p, stride) : 0;
    return (iso_winograd_line){.first = pad > p ? iso_ceil_div(pad - p, stride) : 0, .last = iso_min64(there, met + taps - 1),
                               .fewer = taps < iso_ceil_div(kernel, stride)};
}

/* Whether some of x's pixels along an axis meet none of y. */
static bool rest_of(int64_t stride, int64_t kernel, int64_t pad, int64_t size, int64_t met)
{
    return stride * (met - 1) + kernel < size + pad;
}

iso_winograd_grid iso_winograd_grid_of(const iso_conv_sizes *s, int n)
{
    const int side = POINTS(n);
    iso_winograd_grid g = {.s = *s, .n = n, .points = side * side, .side = side, .tiles_h = iso_ceil_div(s->oh, n), .tiles_w = iso_ceil_div(s->ow, n)};
    g.full_h = iso_max64(s->oh - g.tiles_h * (n - 1), 0);
    g.full_w = iso_max64(s->ow - g.tiles_w * (n - 1), 0);
    g.rest = rest_of(s->stride, s->kh, s->pad, s->h, s->oh) || rest_of(s->stride, s->kw, s->pad, s->w, s->ow);
    for (int64_t p = 0; p < s->stride; p++) {
        g.rows[p] = line_of(p, s->stride, s->kh, s->pad, s->h, s->oh);
        g.columns[p] = line_of(p, s->stride, s->kw, s->pad, s->w, s->ow);
        g.zeros = g.zeros || g.rows[p].fewer || g.columns[p].fewer;
    }
    return g;
}

/* Of strips 0 ... strip-1 those that are not short. */
static int64_t full_strips(const iso_winograd_grid *g, int64_t strip)
{
    return strip / g->tiles_h * g->full_h + iso_min64(strip % g->tiles_h, g->full_h);
}

iso_winograd_order iso_winograd_order_of(const iso_winograd_grid *g, int64_t strip, int64_t count)
{
    return (iso_winograd_order){strip, count, full_strips(g, strip + count) - full_strips(g, strip)};
}

iso_winograd_span iso_winograd_span_of(const iso_winograd_grid *g, const iso_winograd_order *o, int64_t point)
{
    const bool last_row = iso_winograd_last_row(g, point), last_column = iso_winograd_last_column(g, point);
    const int64_t narrow = g->tiles_w - g->full_w, wide = o->count * g->full_w;
    return (iso_winograd_span){last_row ? (o->count - o->full) * g->full_w : 0, last_column ? wide : wide + (last_row ? o->full : o->count) * narrow};
}

/* The rows of a strip's tiles: the first one's, and of those that are narrow the first one's; neighbours follow. */
typedef struct strip_rows {
    int64_t full, narrow;
} strip_rows;

static strip_rows rows_of(const iso_winograd_grid *g, const iso_winograd_order *o, int64_t k)
{
    const int64_t narrow = g->tiles_w - g->full_w, wide = o->count * g->full_w, full = full_strips(g, o->strip + k) - full_strips(g, o->strip);
    if ((o->strip + k) % g->tiles_h < g->full_h) return (strip_rows){(o->count - o->full + full) * g->full_w, wide + full * narrow};
    return (strip_rows){(k - full) * g->full_w, wide + (o->full + k - full) * narrow};
}

INLINE int64_t row_of(const iso_winograd_grid *g, strip_rows r, int64_t tile)
{
    return tile < g->full_w ? r.full + tile : r.narrow + tile - g->full_w;
}

/* --- y */

INLINE cut cut_of(const int across, const float *from, int64_t row, inside h, inside w)
{
    cut k = {.first = w.first, .last = w.last};
    for (int i = 0; i < across; i++) k.row[i] = i >= h.first && i < h.last ? from + i * row : zero_row;
    return k;
}

/* The tile two after tile t of a strip, which may be one of the next strip's: its first row and column of y, as if images went on below their ends. */
INLINE void two_on(const int n, const iso_winograd_grid *g, strip s, int64_t t, int64_t *row, int64_t *column)
{
    int64_t tile = t + 2;
    for (*row = s.i; tile >= g->tiles_w; tile -= g->tiles_w) *row += n - s.is_short;
    *column = iso_winograd_start(g, tile, g->full_w);
}

/* That tile, while all channels of tile t are done. */
INLINE ahead ahead_y(const int n, const iso_winograd_grid *g, const float *y, strip s, int64_t t)
{
    int64_t i, j;
    two_on(n, g, s, t, &i, &j);
    return ahead_of(y + ((s.image * g->s.oh + i) * g->s.ow + j) * g->s.o, n, g->s.ow * g->s.o, n * g->s.o, g->s.o / LANES);
}

INLINE void split_y_tile(const int n, const float *y, int64_t row, int64_t pixel, const cut *k, int64_t channels,
                         lacks no, const iso_winograd_place *to, float *tile, ahead *next)
{
    for (int64_t c = 0; c < channels; c += LANES) {
        look_ahead(next, c, false);
        split_tile(n, OF_Y, y + c, row, pixel, k, c, no, tile + iso_winograd_column(to, c), to->point);
    }
}

INLINE void split_y(const int n, const iso_winograd_grid *g, const float *y, const iso_winograd_order *o, int64_t number, const iso_winograd_place *to)
{
    const strip s = strip_of(g, o->strip + number);
    const strip_rows rows = rows_of(g, o, number);
    const int64_t pixel = g->s.o, line = g->s.ow * pixel;
    const inside h = inside_y(s.i, n - s.is_short, g->s.oh);
    for (int64_t t = 0; t < g->tiles_w; t++) {
        const lacks no = {s.is_short, t >= g->full_w};
        const int64_t j = iso_winograd_start(g, t, g->full_w);
        const float *from = y + (s.image * g->s.oh + s.i) * line + j * pixel;
        const inside w = inside_y(j, n - no.column, g->s.ow);
        float *tile = to->at + row_of(g, rows, t) * to->pitch;
        ahead next = ahead_y(n, g, y, s, t);
        if (h.last == n && w.last == n) {
            split_y_tile(n, from, line, pixel, NULL, g->s.o, no, to, tile, &next);
        } else {
            const cut k = cut_of(n, from, line, h, w);
            split_y_tile(n, from, line, pixel, &k, g->s.o, no, to, tile, &next);
        }
    }
}

ISO_CLONES void iso_winograd_split_y(const iso_winograd_grid *g, const float *y, const iso_winograd_order *o, int64_t k, const iso_winograd_place *to)
{
    WITH_N(split_y, g, y, o, k, to);
}

INLINE void join_y_tile(const int n, const bool whole, const float *m, int64_t apart, lacks no, inside h, inside w, int64_t line, int64_t pixel,
                        float *y, ahead *next)
{
    const int side = POINTS(n);
    for (int64_t c = 0; c < pixel; c += LANES) {
        vec8 half[SIDE * SIDE], out[SIDE];
        look_ahead(next, c, true);
        ONE_BY_ONE for (int j = 0; j < side; j++) {
            get_column(n, m + j * apart + c, apart, whole ? side : there(n, no, j), OF_Y, half + j);
        }
        ONE_BY_ONE for (int i = 0; i < n; i++) {
            if (!whole && i >= h.last) break;
            from_points(n, OF_Y, half + i * side, 1, out, 1);
#pragma GCC unroll 5
            for (int j = 0; j < n; j++)
                if (whole || j < w.last) store(y + i * line + j * pixel + c, &out[j]);
        }
    }
}

INLINE void join_y(const int n, const iso_winograd_grid *g, const iso_winograd_products *m, const iso_winograd_order *o, int64_t number, float *y)
{
    const strip s = strip_of(g, o->strip + number);
    const strip_rows rows = rows_of(g, o, number);
    const int64_t pixel = g->s.o, line = g->s.ow * pixel;
    const inside h = inside_y(s.i, n - s.is_short, g->s.oh);
    for (int64_t t = 0; t < g->tiles_w; t++) {
        const lacks no = {s.is_short, t >= g->full_w};
        const int64_t j = iso_winograd_start(g, t, g->full_w);
        const inside w = inside_y(j, n - no.column, g->s.ow);
        const float *from = m->at + row_of(g, rows, t) * m->pitch;
        float *to = y + (s.image * g->s.oh + s.i) * line + j * pixel;
        ahead next = ahead_y(n, g, y, s, t);
        if (h.last == n && w.last == n) join_y_tile(n, true, from, m->apart, no, h, w, line, pixel, to, &next);
        else join_y_tile(n, false, from, m->apart, no, h, w, line, pixel, to, &next);
    }
}

ISO_CLONES void iso_winograd_join_y(const iso_winograd_grid *g, const iso_winograd_products *m, const iso_winograd_order *o, int64_t k, float *y)
{
    WITH_N(join_y, g, m, o, k, y);
}

/* --- x */

/* The pixels of one residue that a tile meets: the first of them, which may lie outside, and their distances. */
typedef struct patch {
    int64_t offset, row, pixel;
    inside h, w;
    bool whole;
    lacks no;
    const iso_winograd_line *column;
} patch;
enum { PATCHES = ISO_WINOGRAD_STRIDE * ISO_WINOGRAD_STRIDE };

/* Those of a strip's first tile, but for what differs along the strip. */
INLINE void patches_of(const iso_winograd_grid *g, const int n, strip s, patch *a)
{
    const iso_conv_sizes *z = &g->s;
    for (int64_t p = 0; p < z->stride; p++)
        for (int64_t q = 0; q < z->stride; q++, a++) {
            *a = (patch){.row = z->stride * z->w * z->c, .pixel = z->stride * z->c, .no.row = g->rows[p].fewer || s.is_short};
            a->h = inside_x(s.i, n, &g->rows[p]);
            a->offset = ((s.image * z->h + s.i * z->stride + p - z->pad) * z->w + q - z->pad) * z->c;
            a->column = &g->columns[q];
        }
}

INLINE void move_patch(const iso_winograd_grid *g, const int n, int64_t tile, patch *a)
{
    const int64_t j = iso_winograd_start(g, tile, g->full_w);
    a->no.column = a->column->fewer || tile >= g->full_w;
    a->w = inside_x(j, n, a->column);
    a->whole = a->h.first == 0 && a->h.last == POINTS(n) && a->w.first == 0 && a->w.last == POINTS(n);
    if (tile > 0) a->offset += (j - iso_winograd_start(g, tile - 1, g->full_w)) * a->pixel;
}

/* The same tile, while channels c0 ... c1-1 are done: the rows of their residues, one residue's or all. */
INLINE ahead ahead_x(const int n, const iso_winograd_grid *g, const float *x, strip s, int64_t t, int64_t c0, int64_t c1)
{
    const iso_conv_sizes *z = &g->s;
    const int64_t line = z->w * z->c, p = c0 / (z->stride * z->c);
    const bool one = c1 <= (p + 1) * z->stride * z->c;
    int64_t i, j;
    two_on(n, g, s, t, &i, &j);
    const int64_t row = i * z->stride - z->pad, column = (j + TAPS(n) - 1) * z->stride - z->pad;
    const float *first = x + ((s.image * z->h + row + (one ? p : 0)) * z->w + column) * z->c;
    return ahead_of(first, POINTS(n) * (one ? 1 : z->stride), line * (one ? z->stride : 1), n * z->stride * z->c, (c1 - c0) / LANES);
}

/* Channels c0 ... c1-1 of a residue, whose first one is `channel`. */
INLINE void split_x_tile(const int n, const float *x, const patch *a, const cut *k, int64_t c0, int64_t c1, int64_t channel,
                         const iso_winograd_place *to, float *tile, ahead *next)
{
    for (int64_t c = c0; c < c1; c += LANES) {
        look_ahead(next, c, false);
        split_tile(n, OF_X, x + a->offset + c, a->row, a->pixel, k, c, a->no, tile + iso_winograd_column(to, channel + c), to->point);
    }
}

INLINE void split_x(const int n, const iso_winograd_grid *g, const float *x, const iso_winograd_order *o, int64_t number, int64_t last,
                    const iso_winograd_place *to)
{
    const strip s = strip_of(g, o->strip + number);
    const strip_rows rows = rows_of(g, o, number);
    patch patches[PATCHES];
    patches_of(g, n, s, patches);
    for (int64_t t = 0; t < g->tiles_w; t++) {
        float *tile = to->at + row_of(g, rows, t) * to->pitch;
        ahead next = ahead_x(n, g, x, s, t, to->first, last);
        for (int64_t r = to->first / g->s.c; r * g->s.c < last; r++) {
            const int64_t c0 = iso_max64(to->first - r * g->s.c, 0), c1 = iso_min64(last - r * g->s.c, g->s.c);
            patch *a = &patches[r];
            move_patch(g, n, t, a);
            if (a->whole) {
                split_x_tile(n, x, a, NULL, c0, c1, r * g->s.c, to, tile, &next);
            } else {
                const cut k = cut_of(POINTS(n), x + a->offset, a->row, a->h, a->w);
                split_x_tile(n, x, a, &k, c0, c1, r * g->s.c, to, tile, &next);
            }
        }
    }
}

ISO_CLONES void iso_winograd_split_x(const iso_winograd_grid *g, const float *x, const iso_winograd_order *o, int64_t k, int64_t last,
                                     const iso_winograd_place *to)
{
    WITH_N(split_x, g, x, o, k, last, to);
}

/* A row of a tile; the first `again` pixels are added to what is there. */
INLINE void join_x_row(const int n, const bool whole, const patch *a, int again, vec8 *row, float *to)
{
    const int side = POINTS(n);
#pragma GCC unroll 7
    for (int j = 0; j < side; j++) {
        if (!whole && (j < a->w.first || j >= a->w.last)) continue;
        if (j < again) {
            vec8 was;
            load(&was, to + j * a->pixel);
            row[j] += was;
        }
        store(to + j * a->pixel, &row[j]);
    }
}

/* above, left: whether the tiles there have written the first rows and columns. */
INLINE void join_x_tile(const int n, const bool whole, const float *m, int64_t apart, const patch *a, int64_t first, int64_t last,
                        bool above, bool left, float *x, ahead *next)
{
    const int side = POINTS(n);
    for (int64_t c = first; c < last; c += LANES) {
        vec8 half[SIDE * SIDE];
        look_ahead(next, c, true);
        ONE_BY_ONE for (int j = 0; j < side; j++) {
            get_column(n, m + j * apart + c, apart, there(n, a->no, j), OF_X, half + j);
        }
        float *to = x + a->offset + c;
        ONE_BY_ONE for (int i = 0; i < side; i++, to += a->row) {
            vec8 out[SIDE];
            if (!whole && (i < a->h.first || i >= a->h.last)) continue;
            from_points(n, OF_X, half + i * POINTS(n), 1, out, 1);
            if (above && i < TAPS(n) - 1) join_x_row(n, whole, a, side, out, to);
            else join_x_row(n, whole, a, left ? TAPS(n) - 1 : 0, out, to);
        }
    }
}

/* Whether row or column i of x meets a pixel of y. */
static bool meets(int64_t i, int64_t met, int64_t kernel, int64_t stride, int64_t pad)
{
    return (i + pad) / stride < met + iso_ceil_div(kernel - (i + pad) % stride, stride) - 1;
}

/* Pixels of an image's channels that meet none of y. */
static void clear_rest(const iso_winograd_grid *g, int64_t image, int64_t first, int64_t last, float *x)
{
    const iso_conv_sizes *z = &g->s;
    for (int64_t i = 0; i < z->h; i++) {
        const bool row = meets(i, z->oh, z->kh, z->stride, z->pad);
        for (int64_t j = 0; j < z->w; j++)
            if (!row || !meets(j, z->ow, z->kw, z->stride, z->pad))
                memset(x + ((image * z->h + i) * z->w + j) * z->c + first, 0, (size_t)(last - first) * sizeof *x);
    }
}

INLINE void join_x(const int n, const iso_winograd_grid *g, const iso_winograd_products *m, const iso_winograd_order *o, int64_t number,
                   int64_t first, int64_t last, float *x)
{
    const strip s = strip_of(g, o->strip + number);
    const strip_rows rows = rows_of(g, o, number);
    if (s.i == 0 && first < g->s.c && g->rest) clear_rest(g, s.image, first, iso_min64(last, g->s.c), x);
    patch patches[PATCHES];
    patches_of(g, n, s, patches);
    for (int64_t t = 0; t < g->tiles_w; t++) {
        const float *from = m->at + row_of(g, rows, t) * m->pitch;
        ahead next = ahead_x(n, g, x, s, t, first, last);
        for (int64_t r = first / g->s.c; r * g->s.c < last; r++) {
            const int64_t c0 = iso_max64(first - r * g->s.c, 0), c1 = iso_min64(last - r * g->s.c, g->s.c);
            patch *a = &patches[r];
            move_patch(g, n, t, a);
            if (a->whole && s.i > 0 && t > 0) join_x_tile(n, true, from + r * g->s.c, m->apart, a, c0, c1, true, true, x, &next);
            else join_x_tile(n, false, from + r * g->s.c, m->apart, a, c0, c1, s.i > 0, t > 0, x, &next);
        }
    }
}

ISO_CLONES void iso_winograd_join_x(const iso_winograd_grid *g, const iso_winograd_products *m, const iso_winograd_order *o, int64_t k, int64_t first,
                                    int64_t last, float *x)
{
    WITH_N(join_x, g, m, o, k, first, last, x);
}

/* --- weights */

/* Where a weight of a residue is; -1 where its kernel has none. */
INLINE int64_t tap_of(const int n, const iso_conv_sizes *s, int64_t o, int64_t residue, int64_t tap)
{
    const int64_t u = residue / s->stride + tap / TAPS(n) * s->stride, v = residue % s->stride + tap % TAPS(n) * s->stride;
    return u < s->kh && v < s->kw ? ((o * s->kh + u) * s->kw + v) * s->c : -1;
}

INLINE int64_t o_apart(const iso_conv_sizes *s) { return s->kh * s->kw * s->c; }

/* One of y's channels lies far from the next one: what is wanted of so many further on is asked for, into the second level, as many of them meet in one
 * set of the first. */
enum { FURTHER = 16 };

/* Weights as they lie. */
INLINE void take_rows(const int n, const iso_conv_sizes *s, const float *w, iso_winograd_part p, int width, float *taps)
{
    const vec8 none = {0};
    for (int t = 0; t < TAPS(n) * TAPS(n); t++)
        for (int64_t j = 0, some; j < p.columns; j += some) { /* of one residue */
            const int64_t tap = tap_of(n, s, p.depth, (p.column + j) / s->c, t), first = (p.column + j) % s->c;
            const float *from = w + tap + first;
            float *to = taps + t * p.depths * width + j;
            some = iso_min64(p.columns - j, s->c - first);
            for (int64_t k = 0; k < p.depths; k++, from += o_apart(s), to += width)
                for (int64_t i = 0; i < some; i += LANES) {
                    if (tap < 0) store(to + i, &none);
                    else memcpy(to + i, from + i, sizeof none);
                    if (tap >= 0 && i % LINE == 0) __builtin_prefetch(from + i + FURTHER * o_apart(s), 0, 2);
                }
        }
}

/* Weights whose channels of x are depths: sixteen, a line of the cache, by four of them transposed at a time. */
INLINE void take_turned(const int n, const iso_conv_sizes *s, const float *w, iso_winograd_part p, int width, float *taps)
{
    for (int64_t k = 0, some; k < p.depths; k += some) {
        const int64_t first = (p.depth + k) % s->c;
        some = iso_min64(iso_min64(LINE - first % LINE, p.depths - k), s->c - first);
        for (int t = 0; t < TAPS(n) * TAPS(n); t++) {
            const int64_t tap = tap_of(n, s, p.column, (p.depth + k) / s->c, t);
            const float *from = w + tap + first;
            float *to = taps + (t * p.depths + k) * width;
            if (tap < 0) memset(to, 0, (size_t)(some * width) * sizeof *to);
            for (int64_t j = 0; tap >= 0 && j < p.columns; j += 4) {
                for (int64_t r = 0; r < 4; r++) __builtin_prefetch(from + (j + r + FURTHER) * o_apart(s), 0, 2);
                for (int64_t i = 0; i < some; i += 4) iso_transpose4(from + j * o_apart(s) + i, o_apart(s), to + i * width + j, width);
            }
        }
    }
}

ISO_CLONES void iso_winograd_take_w(const iso_winograd_grid *g, const float *w, bool conv_x, iso_winograd_part p, int width, float *taps)
{
    if (conv_x) WITH_N(take_rows, &g->s, w, p, width, taps);
    else WITH_N(take_turned, &g->s, w, p, width, taps);
}

/* Row r of the points of weights taken. */
INLINE void split_w_row(const int n, const int r, const float *taps, iso_winograd_part p, int width, float *at, int64_t apart)
{
    const int side = POINTS(n), across = TAPS(n);
    const int64_t next = p.depths * width;
    for (int64_t k = 0; k < p.depths; k++, taps += width, at += width)
        for (int64_t j = 0; j < p.columns; j += LANES) {
            vec8 row[3], in[3], out[SIDE];
#pragma GCC unroll 3
            for (int v = 0; v < across; v++) {
#pragma GCC unroll 3
                for (int u = 0; u < across; u++) load(&in[u], taps + (u * TAPS(n) + v) * next + j);
                to_points(n, OF_W, in, 1, out, 1);
                row[v] = out[r];
            }
            to_points(n, OF_W, row, 1, out, 1);
#pragma GCC unroll 7
            for (int q = 0; q < side; q++) store(at + q * apart + j, &out[q]);
        }
}

INLINE void split_w(const int n, const float *taps, iso_winograd_part p, int r, int width, float *at, int64_t apart)
{
    switch (r) { /* a constant: what other rows need is not computed */
        case 0: split_w_row(n, 0, taps, p, width, at, apart); break;
        case 1: split_w_row(n, 1, taps, p, width, at, apart); break;
        case 2: split_w_row(n, 2, taps, p, width, at, apart); break;
        case 3: if (POINTS(n) > 3) split_w_row(n, 3, taps, p, width, at, apart); break;
        case 4: if (POINTS(n) > 3) split_w_row(n, 4, taps, p, width, at, apart); break;
        case 5: if (POINTS(n) > 5) split_w_row(n, 5, taps, p, width, at, apart); break;
        default: if (POINTS(n) > 5) split_w_row(n, 6, taps, p, width, at, apart);
    }
}

ISO_CLONES void iso_winograd_split_w(const iso_winograd_grid *g, const float *taps, iso_winograd_part p, int row, int width, float *at, int64_t apart)
{
    WITH_N(split_w, taps, p, row, width, at, apart);
}

/* sum (+)= *v: four doubles at a time, as registers hold them; of eight, gcc goes through the stack. */
INLINE void add_wide(double *sum, const vec8 *v, bool add)
{
    typedef float vec4 __attribute__((vector_size(16)));
    typedef double wide4 __attribute__((vector_size(32)));
    const vec4 half[2] = {__builtin_shufflevector(*v, *v, 0, 1, 2, 3), __builtin_shufflevector(*v, *v, 4, 5, 6, 7)};
#pragma GCC unroll 2
    for (int i = 0; i < 2; i++, sum += 4) {
        wide4 was = {0};
        if (add) memcpy(&was, sum, sizeof was);
        was += __builtin_convertvector(half[i], wide4);
        memcpy(sum, &was, sizeof was);
    }
}

/* Where the weights of one of y's channels are for eight of x's from `column` on; -1 where their residue has none. */
INLINE void find_taps(const int n, const iso_conv_sizes *s, int64_t column, int64_t *at)
{
    for (int t = 0; t < TAPS(n) * TAPS(n); t++) {
        const int64_t tap = tap_of(n, s, 0, column / s->c, t);
        at[t] = tap < 0 ? -1 : tap + column % s->c;
    }
}

/* A row of weights: to out, or where that is NULL to sum. */
INLINE void join_w_row(const int n, const int64_t *at, const vec8 *from, bool add, float *out, double *sum)
{
    const int taps = TAPS(n);
    vec8 w[SIDE];
    from_points(n, OF_W, from, 1, w, 1);
#pragma GCC unroll 3
    for (int v = 0; v < taps; v++) {
        if (at[v] < 0) continue;
        if (out) {
            vec8 was = {0};
            if (add) load(&was, out + at[v]);
            was += w[v];
            store(out + at[v], &was);
        } else {
            add_wide(sum + at[v], &w[v], add);
        }
    }
}

INLINE void join_w(const int n, const iso_winograd_grid *g, const float *m, int64_t apart, int64_t pitch, int64_t o0, int64_t no, int64_t first,
                   int64_t count, bool add, float *out, double *sum)
{
    enum { SOME = 8 * LANES };
    const int side = POINTS(n), taps = TAPS(n);
    for (int64_t start = 0, some; start < count; start += some) {
        int64_t at[SOME / LANES][ISO_WINOGRAD_TAPS];
        some = iso_min64(SOME, count - start);
        for (int64_t j = 0; j < some; j += LANES) find_taps(n, &g->s, first + start + j, at[j / LANES]);
        for (int64_t o = 0; o < no; o++)
            for (int64_t j = 0; j < some; j += LANES) {
                vec8 half[3 * SIDE];
                const float *from = m + o * pitch + start + j;
                const int64_t base = (o0 + o) * o_apart(&g->s);
                ONE_BY_ONE for (int k = 0; k < side; k++) get_column(n, from + k * apart, apart, side, OF_W, half + k);
                ONE_BY_ONE for (int u = 0; u < taps; u++)
                    join_w_row(n, at[j / LANES] + u * taps, half + u * side, add, out ? out + base : NULL, out ? NULL : sum + base);
            }
    }
}

ISO_CLONES void iso_winograd_join_w(const iso_winograd_grid *g, const float *m, int64_t apart, int64_t pitch, int64_t o, int64_t no, int64_t first,
                                    int64_t n, bool add, float *out, double *sum)
{
    WITH_N(join_w, g, m, apart, pitch, o, no, first, n, add, out, sum);
}
