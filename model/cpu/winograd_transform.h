/* winograd_transform.h: the transforms of winograd.h, between images or weights and the values at the points. For winograd*.c.
 *
 * A tile with a row of y's pixels less than n, a short one, has no products at the points at infinity of its rows: they serve its last row alone.
 * The same of columns, where it is a narrow one.
 *
 * A strip is a row of tiles of one image: number image * tiles_h + tile row. Where its tiles are in a matrix, iso_winograd_order
 * says. Channels of x's side are counted residue by residue, residue * c + channel: there are s.stride^2 * s.c of them. Channels come in eights. */
#ifndef ISO_CPU_WINOGRAD_TRANSFORM_H
#define ISO_CPU_WINOGRAD_TRANSFORM_H

#include "model/cpu/conv.h"
#include "model/cpu/gemm.h"

enum {
    ISO_WINOGRAD_POINTS = 49, /* at most */
    ISO_WINOGRAD_TAPS = 9,    /* weights of a residue, at most */
    ISO_WINOGRAD_STRIDE = 4,  /* at most */
    ISO_WINOGRAD_CHANNELS = 4096, /* of x or y, at most */
    ISO_WINOGRAD_LANES = 8,
    ISO_WINOGRAD_DEPTH = 256  /* of a block: a panel of the weights stays in the first-level cache */
};

/* Of x's pixels of one residue along one axis, numbered so that pixel i of y meets i, i+1, ...: first ... last-1 are in the image and meet
 * a pixel of y. */
typedef struct iso_winograd_line {
    int64_t first, last;
    bool fewer; /* its kernel has fewer weights than other residues': the point at infinity, the last one, has a zero */
} iso_winograd_line;

typedef struct iso_winograd_grid {
    iso_conv_sizes s;
    int n, points;             /* pixels of y along a tile's side; of the tile */
    int side;                  /* points along an axis */
    bool rest;                 /* x has pixels that meet none of y */
    bool zeros;                /* iso_winograd_zero is true of some residue at some point */
    int64_t tiles_h, tiles_w;  /* of an image */
    int64_t full_h, full_w;    /* of them so many, the first ones, n pixels high or wide; the others one less */
    iso_winograd_line rows[ISO_WINOGRAD_STRIDE], columns[ISO_WINOGRAD_STRIDE]; /* of each residue */
} iso_winograd_grid;

/* For tiles of n x n pixels of y. The stride is at most ISO_WINOGRAD_STRIDE. */
iso_winograd_grid iso_winograd_grid_of(const iso_conv_sizes *s, int n);

/* Whether a point is at infinity, of rows or of columns. */
static inline bool iso_winograd_last_row(const iso_winograd_grid *g, int64_t point) { return point / g->side == g->side - 1; }
static inline bool iso_winograd_last_column(const iso_winograd_grid *g, int64_t point) { return point % g->side == g->side - 1; }

/* Whether a residue has zeros at a point: there it is neither multiplied nor read. */
static inline bool iso_winograd_zero(const iso_winograd_grid *g, int64_t point, int64_t residue)
{
    return (iso_winograd_last_row(g, point) && g->rows[residue / g->s.stride].fewer) ||
           (iso_winograd_last_column(g, point) && g->columns[residue % g->s.stride].fewer);
}

/* The first pixel of y of a tile along an axis where `full` of the tiles are full. */
static inline int64_t iso_winograd_start(const iso_winograd_grid *g, int64_t tile, int64_t full)
{
    return tile * g->n - iso_max64(tile - full, 0);
}

static inline int64_t iso_winograd_channels(const iso_winograd_grid *g)
{
    return g->s.stride * g->s.stride * g->s.c;
}

/* The tiles of `count` strips from `strip` on, as they follow each other in a matrix: short ones that are not narrow, those that are neither, narrow
 * ones that are not short, those that are both. So those that have a point are neighbours. */
typedef struct iso_winograd_order {
    int64_t strip, count;
    int64_t full; /* strips that are not short */
} iso_winograd_order;
iso_winograd_order iso_winograd_order_of(const iso_winograd_grid *g, int64_t strip, int64_t count);

/* The tiles that have a point: first ... last-1. */
typedef struct iso_winograd_span {
    int64_t first, last;
} iso_winograd_span;
iso_winograd_span iso_winograd_span_of(const iso_winograd_grid *g, const iso_winograd_order *o, int64_t point);

/* Where an operand of the products lies: point q's value of channel first + k of the tile in row r at
 *     at + r * pitch + point[q] + k / group * step + k % group. */
typedef struct iso_winograd_place {
    float *at;
    int64_t pitch, group /* a power of two */, step;
    int64_t first;
    int64_t point[ISO_WINOGRAD_POINTS];
} iso_winograd_place;
/* What a channel adds: divisions would take longer than a small product at a point. */
static inline int64_t iso_winograd_column(const iso_winograd_place *p, int64_t channel)
{
    const int64_t k = channel - p->first;
    return (k >> __builtin_ctzll((unsigned long long)p->group)) * p->step + (k & (p->group - 1));
}

/* A y of strip o->strip + k; B x of its channels to->first ... last-1 (multiples of eight). */
void iso_winograd_split_y(const iso_winograd_grid *g, const float *y, const iso_winograd_order *o, int64_t k, const iso_winograd_place *to);
void iso_winograd_split_x(const iso_winograd_grid *g, const float *x, const iso_winograd_order *o, int64_t k, int64_t last, const iso_winograd_place *to);

/* What a strip's tiles were multiplied to: point q's channel k of the tile in row r lies at at + r * pitch + q * apart + k. */
typedef struct iso_winograd_products {
    float *at;
    int64_t pitch, apart;
} iso_winograd_products;

/* y = A' m of strip o->strip + k. */
void iso_winograd_join_y(const iso_winograd_grid *g, const iso_winograd_products *m, const iso_winograd_order *o, int64_t k, float *y);
/* x = B' m of the channels first ... last-1 of a strip (multiples of eight). Adds to what the strip before it has left of an image: strips of an
 * image come one after another. Pixels that meet nothing of y become zero. */
void iso_winograd_join_x(const iso_winograd_grid *g, const iso_winograd_products *m, const iso_winograd_order *o, int64_t k, int64_t first,
                         int64_t last, float *x);

/* Matrices of the weights, one for each point: [depth, columns] cut into panels of `width` columns, for blocks of ISO_WINOGRAD_DEPTH: point,
 * block, panel, depth, column. */
typedef struct iso_winograd_weights {
    float *at;
    int64_t depth, columns;
    int64_t apart; /* numbers from one point's matrix to the next */
    int width;
} iso_winograd_weights;
static inline int64_t iso_winograd_panels(const iso_winograd_weights *u)
{
    return iso_ceil_div(u->columns, u->width);
}
static inline int64_t iso_winograd_weight(const iso_winograd_weights *u, int64_t q, int64_t depth, int64_t panel)
{
    const int64_t start = depth / ISO_WINOGRAD_DEPTH * ISO_WINOGRAD_DEPTH, deep = iso_min64(ISO_WINOGRAD_DEPTH, u->depth - start);
    return q * u->apart + (start * iso_winograd_panels(u) + panel * deep + depth - start) * u->width;
}
/* A part of these matrices: for conv_x depths are y's channels and columns x's, for conv it is the other way round. Both come in eights. */
typedef struct iso_winograd_part {
    int64_t depth, depths, column, columns; /* the first ones, and how many; at most `width` columns */
} iso_winograd_part;
/* G w in two steps: the weights of a part, [taps, p.depths, width], where there are so many taps a residue; and a row of points of these: the value
 * of the row's point q at depth p.depth + k and column p.column + j to at[q * apart + k * width + j]. */
void iso_winograd_take_w(const iso_winograd_grid *g, const float *w, bool conv_x, iso_winograd_part p, int width, float *taps);
void iso_winograd_split_w(const iso_winograd_grid *g, const float *taps, iso_winograd_part p, int row, int width, float *at, int64_t apart);
static inline int64_t iso_winograd_taps(const iso_winograd_grid *g) { return (int64_t)(g->side - g->n + 1) * (g->side - g->n + 1); }

/* w (+)= G' m for o's `o` to o+no-1 and x's channels first to first+n-1 (multiples of eight): m [points, no, pitch], points `apart` numbers from one
 * another. To out, or where that is NULL to sum; both of w's shape. */
void iso_winograd_join_w(const iso_winograd_grid *g, const float *m, int64_t apart, int64_t pitch, int64_t o, int64_t no, int64_t first, int64_t n,
                         bool add, float *out, double *sum);

#endif
