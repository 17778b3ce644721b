/* winograd.c: see winograd.h. What is multiplied when, by whom, and in how much memory; winograd_transform.c has the transforms.
 *
 * Tiles are taken in chunks of whole strips. conv and conv_x transform the weights first, or where they are many and the chunks few, block by
 * block as they are multiplied (`passing`); for each chunk: split one image, multiply at each point, join the other. conv_w splits both images and
 * multiplies and joins block by block; a conv of the same x may do that with its own chunks (`along`). Where the weights are few every thread has
 * chunks of its own, whose matrices stay in its cache; else all threads do one chunk together, so that the weights are read once for many tiles, and
 * of a conv_w each does some of x's channels. The arithmetic is the same. */
#include "model/cpu/winograd.h"

#include <math.h>
#include <omp.h>
#include <stdatomic.h>

#include "model/cpu/fused.h"
#include "model/cpu/gemm.h"
#include "model/cpu/winograd_transform.h"

enum {
    LANES = ISO_WINOGRAD_LANES,
    MAX_ROWS = 512,           /* tiles of a chunk */
    MIN_ROWS = 32,            /* so many tiles pay for reading the weights from the third-level cache */
    LEAST_ROWS = 16,          /* of the last units (take_strips) */
    OWN_BYTES = 320 << 10,    /* a thread's matrices */
    OWN_WEIGHTS = 8 << 20,    /* more than so many bytes of weights are shared by all threads */
    CACHED = 16 << 20,        /* more go to memory when they are written */
    SUM_ROWS = 128,           /* conv_w: they are the depth of its products */
    ONE_ROWS = 64,            /* of a layer that is one block */
    SEPARATE_BYTES = 8 << 20, /* conv_w whose threads each make y's operand: at most so many bytes of both operands, */
    SEPARATE_CHANNELS = 160,  /* and so many of x's channels to each thread but one pay for it */
    KEPT_ROWS = 512,          /* are multiplied, so many at a time, before they are joined, where products at the points take no more than */
    KEPT_BYTES = 256 << 10,
    SLAB = 32,                /* of x's channels: all of them, for so many tiles, would leave the second-level cache */
    SHARED_ROWS = 192,
    ALONG_ROWS = 48,          /* of a conv that does a conv_w along with it: they are the depth of its products */
    BLOCK_O = 32,             /* of conv_w: channels of y and of x, times the points, in the second-level cache */
    BLOCK_X = 64,
    PASSES = 2,               /* chunks for which weights are better brought to the points anew than kept there */
    PASSING_PANELS = 4,       /* that a block of the operand is multiplied by */
    PASSING_BYTES = 384 << 10, /* of it */
    WIDE_PANELS = 8,          /* with AVX-512: second-level caches of 1 MB and more, but for some of the first client processors */
    WIDE_BYTES = 1 << 20,
    PASSING_LEAST = 64,
    SETS = 16,                /* of strips, whose sums are kept apart */
    LEAST_TILE = 2, LARGEST_TILE = 5, /* pixels of y along a tile's side */
    SKEW = 16,                /* numbers between what would lie a power of two apart: all points would meet in one set of a cache */
    FEW = 1 << 16             /* weights that are summed in double: see wide_bytes in conv.c */
};

/* A convolution, cut up. Sizes in floats unless they say bytes. */
typedef struct job {
    iso_winograd_grid grid;
    iso_op op;
    const iso_gemm_isa *isa;
    int64_t o, channels;      /* of y; of x, for all residues */
    int64_t strips, chunk;    /* all; at a time */
    int64_t rows;             /* tiles of a chunk */
    bool own;                 /* threads have chunks of their own */
    bool prepared;            /* the weights are at the points already */
    bool passing;             /* they are brought there as they are multiplied, a panel's block at a time, for every chunk anew */
    bool slice;               /* some images of a batch, done by one thread */
    bool wide;                /* conv_w: sums are wanted as they are */
    int width;                /* of a panel */
    double cost;              /* about how many cycles of one thread, of a slice its whole's; INFINITY: this is none for Winograd */
    /* conv, conv_x */
    int64_t depth, columns;   /* of the matrices at the points */
    int64_t block;            /* depths of passing weights */
    int64_t unit;             /* strips that one thread must do: those of an image, at least */
    iso_winograd_products m;
    /* conv_w */
    int sets;
    int64_t block_o, block_x;
    int64_t slab;             /* channels of x at a time; not own: of one residue, which lie together in an image */
    int64_t shares;           /* not own: of x's channels, each done by one thread */
    bool separate;            /* each thread has y's operand for itself */
    int64_t kept;             /* chunks that are summed at the points before they are joined */
    /* both */
    bool along;               /* the conv_w is done along with the conv (iso_call.along) */
    /* workspace */
    int64_t left, right;      /* conv, conv_x: the operand and m; conv_w: both operands */
    int64_t other;            /* y's operand of the conv_w that is done along with it */
    int64_t product;          /* a thread's block: conv_w's results (all of them, along with a conv), passing weights */
    int64_t weights;          /* at the points */
    int64_t shared;           /* the weights, or the sets' sums */
} job;

static int64_t round_up(int64_t n, int64_t to)
{
    return iso_ceil_div(n, to) * to;
}

/* --- layouts */

/* An operand by rows (gemm.h): a tile is a row, channels are depths, several points share a row where they fit. */
static iso_winograd_place place_rows(const job *j, float *at, int64_t *size)
{
    iso_winograd_place p = {.at = at, .pitch = ISO_GEMM_LDA, .group = ISO_GEMM_KC, .step = j->rows * ISO_GEMM_LDA};
    const int64_t together = iso_max64(ISO_GEMM_KC / j->depth, 1), blocks = iso_ceil_div(j->depth, ISO_GEMM_KC);
    for (int q = 0; q < j->grid.points; q++) p.point[q] = q / together * blocks * p.step + q % together * j->depth;
    *size = iso_ceil_div(j->grid.points, together) * blocks * p.step;
    return p;
}

/* An operand of conv_w: tiles are depths, channels lie in panels. */
static iso_winograd_place place_panels(const job *j, float *at, int64_t channels, int64_t width, int64_t *size)
{
    iso_winograd_place p = {.at = at, .pitch = width, .group = width, .step = j->rows * width};
    const int64_t apart = iso_ceil_div(channels, width) * p.step + SKEW;
    for (int q = 0; q < j->grid.points; q++) p.point[q] = q * apart;
    *size = j->grid.points * apart;
    return p;
}

static iso_winograd_weights weights_of(const job *j, float *at)
{
    iso_winograd_weights u = {.at = at, .depth = j->depth, .columns = j->columns, .width = j->width};
    u.apart = u.depth * iso_winograd_panels(&u) * u.width + SKEW;
    return u;
}

/* --- sizes */

/* So many strips that their tiles, about `rows`, fill the micro-kernel's rows; 0 where it takes far more to do so. */
static int64_t strips_of_full_height(const job *j, int64_t rows)
{
    int64_t step = 1;
    while (step * j->grid.tiles_w % j->isa->mr != 0) step++;
    const int64_t tiles = step * j->grid.tiles_w;
    return (rows + tiles / 2) / tiles * step;
}

/* In chunks of about so many tiles. */
static void cut_into_chunks(job *j, int64_t rows)
{
    const iso_winograd_grid *g = &j->grid;
    int64_t strips = iso_max64(rows / g->tiles_w, 1), full = 0;
    if (j->slice && (j->op != ISO_OP_CONV_W || j->along)) full = strips_of_full_height(j, rows);
    if (full) strips = full; /* one thread does them all, whatever images they are of */
    else if (strips >= g->tiles_h) /* whole images, as many in each */
        strips = iso_ceil_div(g->s.batch, iso_ceil_div(g->s.batch, strips / g->tiles_h)) * g->tiles_h;
    else strips = iso_ceil_div(g->tiles_h, iso_ceil_div(g->tiles_h, strips));
    j->chunk = iso_min64(strips, j->strips);
    j->rows = j->chunk * g->tiles_w;
    j->unit = j->slice ? j->strips : iso_max64(j->chunk, g->tiles_h);
}

/* Of a block's matrices of passing weights. */
static int64_t passing_apart(const job *j) { return j->block * j->width + SKEW; }

static int64_t passing_bytes(const job *j) { return j->isa->lanes > LANES ? WIDE_BYTES : PASSING_BYTES; }
static int64_t passing_panels(const job *j) { return j->isa->lanes > LANES ? WIDE_PANELS : PASSING_PANELS; }

static void describe_conv(job *j)
{
    const bool forward = j->op == ISO_OP_CONV;
    j->depth = forward ? j->channels : j->o;
    j->columns = forward ? j->o : j->channels;
    j->weights = j->grid.points * weights_of(j, NULL).apart;
    j->own = j->weights * (int64_t)sizeof(float) <= OWN_WEIGHTS;
    const int64_t tile_bytes = j->grid.points * (j->o + j->channels) * (int64_t)sizeof(float);
    if (j->along) cut_into_chunks(j, ALONG_ROWS);
    else cut_into_chunks(j, j->own ? iso_min64(iso_max64(OWN_BYTES / tile_bytes, MIN_ROWS), SHARED_ROWS) : SHARED_ROWS);
    j->passing = !j->prepared && j->weights * (int64_t)sizeof(float) > CACHED && iso_ceil_div(j->strips, j->chunk) <= PASSES;
    j->shared = j->prepared || j->passing ? 0 : j->weights;
    if (j->passing) {
        j->block = ISO_WINOGRAD_DEPTH;
        while (j->block > PASSING_LEAST && j->rows * j->block * j->grid.side * (int64_t)sizeof(float) > passing_bytes(j)) j->block /= 2;
        j->product = j->grid.side * passing_apart(j) + passing_panels(j) * iso_winograd_taps(&j->grid) * j->block * j->width;
    }
    (void)place_rows(j, NULL, &j->left);
    j->m.apart = j->columns + SKEW;
    j->m.pitch = j->grid.points * j->m.apart;
    j->right = j->rows * j->m.pitch;
}

/* Of conv_w's results. */
static int64_t blocks_of(const job *j) { return iso_ceil_div(j->o, j->block_o) * iso_ceil_div(j->channels, j->block_x); }

/* Of a block's matrices at the points. */
static int64_t product_apart(const job *j) { return j->block_o * j->block_x + SKEW; }

/* Residues that differ in their zeros are each shared, others as one: so many channels. */
static int64_t shared_channels(const job *j) { return j->grid.zeros && j->grid.s.c / j->width >= j->shares ? j->grid.s.c : j->channels; }

/* SUM_ROWS, or fewer where chunks of whole images, an even number of them, can then be taken by two threads. */
static int64_t even_rows(const job *j)
{
    const int64_t tiles = j->grid.tiles_h * j->grid.tiles_w, all = j->strips * j->grid.tiles_w, pairs = iso_ceil_div(all, 2 * SUM_ROWS);
    const int64_t rows = iso_ceil_div(j->grid.s.batch, 2 * pairs) * tiles;
    return j->slice || rows > SUM_ROWS || rows < LEAST_ROWS ? SUM_ROWS : rows;
}

static void describe_conv_w(job *j, int64_t threads)
{
    const int64_t results = j->o * j->grid.s.kh * j->grid.s.kw * j->grid.s.c;
    j->block_o = iso_min64(BLOCK_O, round_up(j->o, ISO_GEMM_PANEL));
    j->block_x = iso_min64(BLOCK_X, round_up(j->channels, j->width));
    j->product = j->grid.points * product_apart(j);
    j->own = results <= FEW;
    const bool one = j->o <= j->block_o && j->channels <= j->block_x && j->product * (int64_t)sizeof(float) <= KEPT_BYTES;
    j->slab = !j->own ? iso_max64(j->block_x, round_up(j->grid.s.c, j->width)) : one || j->along ? j->channels : iso_min64(j->block_x, SLAB);
    j->block_x = iso_min64(j->block_x, j->slab);
    cut_into_chunks(j, j->along ? ALONG_ROWS : one ? ONE_ROWS : j->own ? even_rows(j) : SHARED_ROWS);
    j->kept = one ? iso_max64(KEPT_ROWS / j->rows, 1) : 1;
    j->sets = j->own && !j->wide ? (int)iso_min64(SETS, iso_ceil_div(j->strips, j->chunk)) : 1;
    j->shared = j->own && !j->wide ? 2 * j->sets * results : 0;
    (void)place_panels(j, NULL, j->o, ISO_GEMM_PANEL, &j->left);
    j->shares = threads;
    (void)place_panels(j, NULL, j->slab, j->width, &j->right);
    j->separate = !j->own && (threads - 1) * SEPARATE_CHANNELS <= j->channels && (j->left + j->right) * (int64_t)sizeof(float) <= SEPARATE_BYTES;
}

static double cost_of(const job *j)
{
    const iso_winograd_grid *g = &j->grid;
    const double tiles = (double)(j->strips * g->tiles_w), points = g->points, rate = 2.0 * j->isa->lanes;
    const iso_winograd_order whole = iso_winograd_order_of(g, 0, j->strips);
    int64_t multiplied = 0, times = 0; /* residues, at all points; by how many tiles */
    for (int q = 0; q < g->points; q++) {
        const iso_winograd_span at = iso_winograd_span_of(g, &whole, q);
        int64_t residues = 0;
        for (int64_t r = 0; r < g->s.stride * g->s.stride; r++) residues += !iso_winograd_zero(g, q, r);
        multiplied += residues;
        times += residues * (at.last - at.first);
    }
    const double weights = (double)(multiplied * j->o * g->s.c), products = (double)times * (double)(j->o * g->s.c);
    const double transform = 4.0 / j->isa->lanes; /* cycles a number */
    double cost = 1.1 * products / rate + tiles * points * (double)(j->o + j->channels) * transform;
    if (j->op == ISO_OP_CONV_W) cost += weights * transform * (double)iso_ceil_div(j->strips, j->chunk);
    else if (j->passing) cost += weights * transform * (double)iso_ceil_div(j->strips, j->chunk);
    else cost += weights * (transform + (4 * weights > CACHED ? 5.0 : 0.0)); /* written and read again */
    return cost;
}

static void describe_batch(job *j, int64_t batch, int64_t threads)
{
    j->grid.s.batch = batch;
    j->strips = batch * j->grid.tiles_h;
    if (j->op == ISO_OP_CONV_W) describe_conv_w(j, iso_max64(threads, 1));
    else describe_conv(j);
}

/* The job with tiles of n x n pixels of y; its cost is INFINITY where this is none for Winograd. Slices have tiles as the whole has them. along: it is
 * done along with another. */
static job describe_tiles(iso_op op, const iso_call *call, bool along, int n)
{
    const iso_conv_sizes s = iso_conv_sizes_of_call(op, call);
    const iso_gemm_isa *isa = iso_gemm_isa_get();
    const int64_t taps = iso_ceil_div(s.kh, s.stride);
    job j = {.cost = INFINITY, .along = along, .op = op, .isa = isa, .width = 2 * isa->lanes, .o = s.o, .channels = s.stride * s.stride * s.c,
             .prepared = call->prepared.shape.ndim > 0, .slice = call->part_of > 0, .wide = call->wide};
    if (isa->tiles || taps < 2 || taps > 3 || iso_ceil_div(s.kw, s.stride) != taps || s.c % LANES != 0 || s.o % LANES != 0) return j;
    if (s.stride > ISO_WINOGRAD_STRIDE || s.c > ISO_WINOGRAD_CHANNELS || s.o > ISO_WINOGRAD_CHANNELS) return j;
    if (s.batch * s.oh * s.ow == 0 || s.c == 0 || s.o == 0 || (n != taps && n != taps + 2)) return j;
    j.grid = iso_winograd_grid_of(&s, n);
    if (j.grid.tiles_w > MAX_ROWS) return j;
    describe_batch(&j, call->part_of ? call->part_of : s.batch, call->threads);
    j.cost = cost_of(&j);
    if (call->part_of) describe_batch(&j, s.batch, call->threads);
    return j;
}

/* With the tiles that cost least. */
static bool describe(iso_op op, const iso_call *call, job *best)
{
    *best = (job){.cost = INFINITY};
    for (int n = LEAST_TILE; n <= LARGEST_TILE; n++) {
        const job j = describe_tiles(op, call, false, n);
        if (j.cost < best->cost) *best = j;
    }
    return best->cost < INFINITY;
}

double iso_winograd_cost(iso_op op, const iso_call *call)
{
    job j;
    return describe(op, call, &j) ? cost_of(&j) : INFINITY;
}

/* A conv and the conv_w that is done along with it, chunk by chunk: x is brought to the points once for both, those of the conv alone. False where they
 * cannot. */
static bool describe_along(const iso_call *call, const iso_call *along, job *conv, job *sums)
{
    if (!describe(ISO_OP_CONV, call, conv)) return false;
    *sums = describe_tiles(ISO_OP_CONV_W, along, true, conv->grid.n);
    *conv = describe_tiles(ISO_OP_CONV, call, true, conv->grid.n);
    if (!conv->own || !sums->own || !sums->wide || conv->chunk != sums->chunk) return false;
    conv->other = sums->left;
    conv->product = blocks_of(sums) * round_up(sums->product, 16);
    return true;
}

bool iso_winograd_along(const iso_call *call, const iso_call *along)
{
    job conv, sums;
    return describe_along(call, along, &conv, &sums);
}

/* Which operands all threads have together. Of a conv_w's x each has its channels. */
static bool shares_left(const job *j) { return !j->own && !j->separate; }
static bool shares_right(const job *j) { return !j->own && j->op != ISO_OP_CONV_W; }

/* What each thread has, but for what they share: floats. */
static int64_t part_size(const job *j)
{
    return (shares_left(j) ? 0 : round_up(j->left, 16)) + (shares_right(j) ? 0 : round_up(j->right, 16)) + round_up(j->other, 16);
}

/* What they share, behind the weights or sums. */
static int64_t shared_size(const job *j)
{
    return (shares_left(j) ? round_up(j->left, 16) : 0) + (shares_right(j) ? round_up(j->right, 16) : 0);
}

size_t iso_winograd_workspace(iso_op op, const iso_call *call)
{
    job j, sums;
    if (!(call->along ? describe_along(call, call->along, &j, &sums) : describe(op, call, &j))) return 0;
    const int64_t threads = call->threads < 1 ? 1 : call->threads;
    return (size_t)(round_up(j.shared, 16) + shared_size(&j) + threads * (part_size(&j) + j.product)) * sizeof(float);
}

/* --- conv and conv_x */

/* Who of how many does a part; and their matrices. */
typedef struct crew {
    int rank, size;
    float *left, *right, *other, *product;
    iso_chain *tail; /* its own */
} crew;

typedef struct range {
    int64_t first, last;
} range;

static range share(const crew *c, int64_t n)
{
    return (range){n * c->rank / c->size, n * (c->rank + 1) / c->size};
}

static void meet(const crew *c)
{
    if (c->size > 1) {
#pragma omp barrier
    }
}

/* Whether n of x's channels are of residues that have zeros at a point. */
static bool zeros(const job *j, int64_t q, int64_t first, int64_t n)
{
    if (!j->grid.zeros) return false;
    for (int64_t r = first / j->grid.s.c; r * j->grid.s.c < first + n; r++)
        if (!iso_winograd_zero(&j->grid, q, r)) return false;
    return true;
}

/* The first depth from k on that is multiplied at a point, and for how many it goes on within a block. */
static int64_t next_depth(const job *j, int64_t q, int64_t k)
{
    while (j->op == ISO_OP_CONV && k < j->depth && zeros(j, q, k, 1)) k = (k / j->grid.s.c + 1) * j->grid.s.c;
    return k;
}

static int64_t depths_from(const job *j, int64_t q, int64_t k)
{
    const int64_t block = iso_min64((k / ISO_WINOGRAD_DEPTH + 1) * ISO_WINOGRAD_DEPTH, j->depth), c = j->grid.s.c;
    if (j->op != ISO_OP_CONV || !j->grid.zeros) return block - k;
    int64_t end = (k / c + 1) * c;
    while (end < block && !zeros(j, q, end, 1)) end += c;
    return iso_min64(end, block) - k;
}

/* Rows from the first one on, in tiles of equal heights: two rows take as long as four. */
typedef struct tiling {
    int64_t first, rows, tiles, height, higher; /* so many of them are one row higher */
} tiling;

static tiling tiling_of(const job *j, iso_winograd_span s)
{
    const int64_t rows = s.last - s.first, tiles = iso_ceil_div(rows, j->isa->mr);
    return (tiling){s.first, rows, tiles, tiles ? rows / tiles : 0, tiles ? rows % tiles : 0};
}

/* A chunk's operand, the weights, NULL where they are brought to the points on the way, and the results. */
typedef struct factors {
    iso_winograd_order order;
    tiling by[2][2]; /* at a point of the last row or another, of the last column or another */
    iso_winograd_place a;
    const iso_winograd_weights *u;
    iso_winograd_products m;
} factors;

static void find_tilings(const job *j, factors *f)
{
    const iso_winograd_grid *g = &j->grid;
    for (int last_row = 0; last_row < 2; last_row++)
        for (int last_column = 0; last_column < 2; last_column++) {
            const int64_t point = (last_row * g->side + last_column) * (g->side - 1);
            f->by[last_row][last_column] = tiling_of(j, iso_winograd_span_of(g, &f->order, point));
        }
}

/* The operand at a point, from depth k on, times a panel of the weights; to: the rows of the results. */
static void multiply_panel(const job *j, const factors *f, int64_t q, int64_t k, int64_t deep, int64_t panel, const float *right, float *const *to)
{
    const iso_winograd_place *a = &f->a;
    const tiling *by = &f->by[iso_winograd_last_row(&j->grid, q)][iso_winograd_last_column(&j->grid, q)];
    const int n = (int)iso_min64(j->width, j->columns - panel * j->width);
    const float *left = a->at + a->point[q] + iso_winograd_column(a, k);
    const iso_gemm_kernel *kernel = j->isa->kernel[ISO_GEMM_BY_ROWS][n > j->isa->lanes];
    const bool add = k > next_depth(j, q, 0);
    if (j->op == ISO_OP_CONV_X && zeros(j, q, panel * j->width, n)) return;
    for (int64_t tile = 0, i = by->first, h; tile < by->tiles; tile++, i += h) {
        h = by->height + (tile < by->higher);
        kernel[h - 1](deep, left + i * a->pitch, right, to + i, panel * j->width, n, add, 0, 0, NULL, 0);
    }
}

static void find_rows(const factors *f, int64_t q, float **to)
{
    for (int64_t i = 0; i < f->by[0][0].rows; i++) to[i] = f->m.at + i * f->m.pitch + q * f->m.apart;
}

/* The operand at a point times every so many panels of the weights. */
static void multiply_point(const job *j, const factors *f, int64_t q, int64_t first, int64_t step)
{
    const iso_winograd_weights *u = f->u;
    float *to[MAX_ROWS];
    find_rows(f, q, to);
    for (int64_t k = next_depth(j, q, 0), deep; k < j->depth; k = next_depth(j, q, k + deep)) {
        deep = depths_from(j, q, k);
        for (int64_t panel = first; panel < iso_winograd_panels(u); panel += step)
            multiply_panel(j, f, q, k, deep, panel, u->at + iso_winograd_weight(u, q, k, panel), to);
    }
}

/* This crew member's panels: every so many, counted on from point to point, as some cost more. */
static void multiply_panels(const job *j, const crew *c, const factors *f)
{
    const int64_t left_over = iso_winograd_panels(f->u) % c->size;
    for (int64_t q = 0, first = c->rank; q < j->grid.points; q++, first += first < left_over ? c->size - left_over : -left_over)
        multiply_point(j, f, q, first, c->size);
}

static iso_winograd_part weights_part(const job *j, int64_t depth, int64_t end, int64_t panel)
{
    const int64_t column = panel * j->width;
    return (iso_winograd_part){depth, end - depth, column, iso_min64(j->width, j->columns - column)};
}

/* A row of points: weights of a panel, depths start ... end-1, to these points, and the operand times them. */
static void multiply_row(const job *j, const crew *c, const factors *f, const float *taps, int row, int64_t start, int64_t end, int64_t panel)
{
    const int64_t apart = passing_apart(j);
    float *to[MAX_ROWS];
    iso_winograd_split_w(&j->grid, taps, weights_part(j, start, end, panel), row, j->width, c->product, apart);
    for (int i = 0; i < j->grid.side; i++) {
        const int64_t q = row * j->grid.side + i;
        find_rows(f, q, to);
        for (int64_t k = next_depth(j, q, start), deep; k < end; k = next_depth(j, q, k + deep)) {
            deep = iso_min64(depths_from(j, q, k), end - k);
            multiply_panel(j, f, q, k, deep, panel, c->product + i * apart + (k - start) * j->width, to);
        }
    }
}

/* multiply_panels with weights that are brought to the points on the way: what they are there, many times their own size, goes to memory no more.
 * A row of points at a time, so that a block of the operand stays in the second-level cache for some panels. */
static void multiply_passing(const job *j, const crew *c, const factors *f, const float *w)
{
    const int64_t panels = iso_ceil_div(j->columns, j->width), together = iso_min64(iso_ceil_div(panels, c->size), passing_panels(j));
    const int64_t groups = iso_ceil_div(panels, together), taken = iso_winograd_taps(&j->grid) * j->block * j->width;
    float *taps = c->product + j->grid.side * passing_apart(j);
    for (int64_t start = 0; start < j->depth; start += j->block)
        for (int64_t group = c->rank; group < groups; group += c->size) { /* the same for every block, as these are added up */
            const int64_t end = iso_min64(start + j->block, j->depth), first = group * together, last = iso_min64(first + together, panels);
            for (int64_t panel = first; panel < last; panel++)
                iso_winograd_take_w(&j->grid, w, j->op == ISO_OP_CONV_X, weights_part(j, start, end, panel), j->width, taps + (panel - first) * taken);
            for (int row = 0; row < j->grid.side; row++)
                for (int64_t panel = first; panel < last; panel++)
                    multiply_row(j, c, f, taps + (panel - first) * taken, row, start, end, panel);
        }
}

/* The part of x's join that is this crew member's: images, and where there are fewer of them than members, channels. */
static void join_x(const job *j, const crew *c, const factors *f, float *x)
{
    const iso_winograd_grid *g = &j->grid;
    const int64_t count = f->order.count, images = iso_ceil_div(count, g->tiles_h), parts = iso_min64(iso_ceil_div(c->size, images), j->channels / LANES);
    const range r = share(c, images * parts);
    for (int64_t i = r.first; i < r.last; i++) {
        const int64_t first = i / parts * g->tiles_h, last = iso_min64(first + g->tiles_h, count), eights = j->channels / LANES;
        const int64_t c0 = eights * (i % parts) / parts * LANES, c1 = eights * (i % parts + 1) / parts * LANES;
        for (int64_t k = first; k < last; k++) iso_winograd_join_x(g, &f->m, &f->order, k, c0, c1, x);
    }
}

/* What follows on a strip of y, and on the images of x that these strips complete. */
static void follow_y(const job *j, const crew *c, int64_t strip)
{
    const iso_winograd_grid *g = &j->grid;
    const int64_t image = strip / g->tiles_h * g->s.oh, k = strip % g->tiles_h, first = iso_winograd_start(g, k, g->full_h);
    const int64_t last = iso_min64(iso_winograd_start(g, k + 1, g->full_h), g->s.oh);
    iso_chain_run(c->tail, (image + first) * g->s.ow * g->s.o, (image + last) * g->s.ow * g->s.o);
}

static void follow_x(const job *j, const crew *c, range strips)
{
    const iso_conv_sizes *s = &j->grid.s;
    const int64_t image = s->h * s->w, first = strips.first / j->grid.tiles_h * image, last = strips.last / j->grid.tiles_h * image;
    if (!c->tail->f || first == last) return;
    const range mine = share(c, last - first);
    meet(c);
    iso_chain_run(c->tail, (first + mine.first) * s->c, (first + mine.last) * s->c);
}

/* The next strips for one thread of a team, whole images: a unit, and towards the end less, so that no thread waits long for another. */
static bool take_strips(const job *j, int threads, _Atomic int64_t *next, range *r)
{
    const int64_t image = j->grid.tiles_h, least = iso_ceil_div(LEAST_ROWS, image * j->grid.tiles_w) * image;
    int64_t first = atomic_load(next), last;
    do {
        const int64_t left = j->strips - first, share = threads > 1 ? left / image / (2 * threads) * image : left;
        if (left <= 0) return false;
        last = first + iso_min64(iso_min64(iso_max64(share, least), j->unit), left);
    } while (!atomic_compare_exchange_weak(next, &first, last));
    *r = (range){first, last};
    return true;
}

/* --- conv_w */

/* Some of the weights: y's channels o ... o+no-1, of x's nx from x on; where their sums at the points are. */
typedef struct block {
    int64_t o, no, x, nx;
    float *product;
} block;

/* Number k of those of x's channels first ... end-1. */
static block block_of(const job *j, int64_t k, int64_t first, int64_t end, float *product)
{
    const int64_t across = iso_ceil_div(end - first, j->block_x);
    block b = {.o = k / across * j->block_o, .x = first + k % across * j->block_x, .product = product};
    b.no = iso_min64(j->block_o, j->o - b.o);
    b.nx = iso_min64(j->block_x, end - b.x);
    return b;
}

/* One block of weights at a point, from a chunk's operands. */
static void multiply_block(const job *j, int64_t q, const iso_winograd_order *o, const iso_winograd_place *y, const iso_winograd_place *x,
                           const block *b, bool add)
{
    const iso_winograd_span at = iso_winograd_span_of(&j->grid, o, q);
    const int tiles = (int)iso_ceil_div(ISO_GEMM_PANEL, j->isa->mr), height = (int)iso_ceil_div(ISO_GEMM_PANEL, tiles);
    float *to[BLOCK_O];
    for (int64_t i = 0; i < b->no; i++) to[i] = b->product + q * product_apart(j) + i * j->block_x;
    for (int64_t k = 0; k < b->nx; k += j->width) {
        const int n = (int)iso_min64(j->width, b->nx - k);
        const float *right = x->at + at.first * x->pitch + x->point[q] + iso_winograd_column(x, b->x + k);
        if (zeros(j, q, b->x + k, n)) continue;
        const iso_gemm_kernel *kernel = j->isa->kernel[x->pitch == ISO_GEMM_LDA ? ISO_GEMM_BOTH_BY_DEPTH : ISO_GEMM_BY_DEPTH][n > j->isa->lanes];
        for (int64_t i = 0; i < b->no; i += ISO_GEMM_PANEL) {
            const float *left = y->at + at.first * y->pitch + y->point[q] + iso_winograd_column(y, b->o + i);
            const int panel = (int)iso_min64(ISO_GEMM_PANEL, b->no - i);
            for (int h = 0; h < panel; h += height)
                kernel[iso_min64(height, panel - h) - 1](at.last - at.first, left + h, right, to + i + h, k, n, add, 0, 0, NULL, 0);
        }
    }
}

static void join_block(const job *j, const block *b, bool add, float *out, double *sum)
{
    iso_winograd_join_w(&j->grid, b->product, product_apart(j), j->block_x, b->o, b->no, b->x, b->nx, add, out, sum);
}

/* A thread's own strips. */
static void sum_weights(const job *j, const iso_call *call, const crew *c, range strips, double *sum)
{
    const iso_winograd_grid *g = &j->grid;
    int64_t size;
    const iso_winograd_place y = place_panels(j, c->left, j->o, ISO_GEMM_PANEL, &size);
    iso_winograd_place x = place_panels(j, c->right, j->slab, j->width, &size);
    for (int64_t strip = strips.first, chunks = 0; strip < strips.last; strip += j->chunk, chunks++) {
        const int64_t count = iso_min64(j->chunk, strips.last - strip);
        const bool first = chunks % j->kept == 0, last = chunks % j->kept == j->kept - 1 || strip + count == strips.last;
        const iso_winograd_order o = iso_winograd_order_of(g, strip, count);
        for (int64_t k = 0; k < count; k++) iso_winograd_split_y(g, call->in[1].data, &o, k, &y);
        for (x.first = 0; x.first < j->channels; x.first += j->slab) {
            const int64_t end = iso_min64(x.first + j->slab, j->channels), blocks = iso_ceil_div(j->o, j->block_o) * iso_ceil_div(end - x.first, j->block_x);
            for (int64_t k = 0; k < count; k++) iso_winograd_split_x(g, call->in[0].data, &o, k, end, &x);
            for (int64_t k = 0; k < blocks; k++) {
                const block b = block_of(j, k, x.first, end, c->product);
                for (int q = 0; q < g->points; q++) multiply_block(j, q, &o, &y, &x, &b, !first);
                if (last) join_block(j, &b, call->add || chunks >= j->kept, NULL, sum);
            }
        }
    }
}

/* A chunk's part of the weights of some of x's channels: x.first ... last-1. */
static void sum_channels(const job *j, const iso_call *call, const crew *c, const iso_winograd_place *y, iso_winograd_place x, int64_t last,
                         const iso_winograd_order *o)
{
    const int64_t blocks = iso_ceil_div(j->o, j->block_o) * iso_ceil_div(last - x.first, j->block_x);
    for (int64_t k = 0; k < o->count; k++) iso_winograd_split_x(&j->grid, call->in[0].data, o, k, last, &x);
    for (int64_t k = 0; k < blocks; k++) {
        const block b = block_of(j, k, x.first, last, c->product);
        for (int q = 0; q < j->grid.points; q++) multiply_block(j, q, o, y, &x, &b, false);
        join_block(j, &b, o->strip > 0, call->out.data, NULL);
    }
}

/* All strips, by all members: each does some of x's channels, which no other one reads. y's operand is everybody's: they make it together, or separately
 * each for itself. */
static void sum_together(const job *j, const iso_call *call, const crew *c)
{
    const int64_t n = shared_channels(j), panels = iso_ceil_div(n, j->width);
    int64_t size;
    const iso_winograd_place y = place_panels(j, c->left, j->o, ISO_GEMM_PANEL, &size);
    iso_winograd_place x = place_panels(j, c->right, j->slab, j->width, &size);
    for (int64_t strip = 0; strip < j->strips; strip += j->chunk) {
        const iso_winograd_order o = iso_winograd_order_of(&j->grid, strip, iso_min64(j->chunk, j->strips - strip));
        const range mine = j->separate ? (range){0, o.count} : share(c, o.count);
        for (int64_t k = mine.first; k < mine.last; k++) iso_winograd_split_y(&j->grid, call->in[1].data, &o, k, &y);
        if (!j->separate) meet(c);
        for (int64_t part = c->rank; part < j->shares; part += c->size)
            for (int64_t start = 0; start < j->channels; start += n) {
                const int64_t last = start + iso_min64(panels * (part + 1) / j->shares * j->width, n);
                for (x.first = start + panels * part / j->shares * j->width; x.first < last; x.first += j->slab)
                    sum_channels(j, call, c, &y, x, iso_min64(x.first + j->slab, last), &o);
            }
        if (!j->separate) meet(c);
    }
}

/* --- conv and conv_x, chunk by chunk */

/* A chunk's products by the weights, and what it adds to the weights' gradient, whose x's operand is the same: point by point, while that is in the
 * first-level cache. */
static void multiply_both(const job *j, const job *sums, const iso_call *along, const crew *c, const factors *f, range strips)
{
    const iso_winograd_order *o = &f->order;
    const int64_t blocks = blocks_of(sums), apart = round_up(sums->product, 16);
    int64_t size;
    const iso_winograd_place y = place_panels(sums, c->other, sums->o, ISO_GEMM_PANEL, &size);
    for (int64_t k = 0; k < o->count; k++) iso_winograd_split_y(&sums->grid, along->in[1].data, o, k, &y);
    for (int q = 0; q < j->grid.points; q++) {
        multiply_point(j, f, q, 0, 1);
        for (int64_t k = 0; k < blocks; k++) {
            const block b = block_of(sums, k, 0, sums->channels, c->product + k * apart);
            multiply_block(sums, q, o, &y, &f->a, &b, o->strip > strips.first);
        }
    }
    for (int64_t k = 0; k < blocks && o->strip + o->count == strips.last; k++) {
        const block b = block_of(sums, k, 0, sums->channels, c->product + k * apart);
        join_block(sums, &b, along->add, NULL, along->out.data);
    }
}

/* sums: the conv_w that is done along with it; NULL. */
static void convolve(const job *j, const job *sums, const iso_call *call, const crew *c, range strips, const iso_winograd_weights *u)
{
    const iso_winograd_grid *g = &j->grid;
    int64_t size;
    factors f = {.a = place_rows(j, c->left, &size), .u = u, .m = {c->right, j->m.pitch, j->m.apart}};
    for (int64_t strip = strips.first; strip < strips.last; strip += j->chunk) {
        const int64_t count = iso_min64(j->chunk, strips.last - strip);
        const range mine = share(c, count);
        f.order = iso_winograd_order_of(g, strip, count);
        find_tilings(j, &f);
        for (int64_t k = mine.first; k < mine.last; k++) {
            if (j->op == ISO_OP_CONV) iso_winograd_split_x(g, call->in[0].data, &f.order, k, j->channels, &f.a);
            else iso_winograd_split_y(g, call->in[0].data, &f.order, k, &f.a);
        }
        meet(c);
        if (sums) multiply_both(j, sums, call->along, c, &f, strips);
        else if (j->passing) multiply_passing(j, c, &f, call->in[1].data);
        else multiply_panels(j, c, &f);
        meet(c);
        if (j->op == ISO_OP_CONV_X) {
            join_x(j, c, &f, call->out.data);
            follow_x(j, c, (range){strip, strip + count});
        } else {
            for (int64_t k = mine.first; k < mine.last; k++) {
                iso_winograd_join_y(g, &f.m, &f.order, k, call->out.data);
                follow_y(j, c, strip + k);
            }
        }
    }
}

/* --- conv_w's sets */

static void add_sets(const job *j, const double *sums, int64_t results, float *out)
{
#pragma omp for schedule(static)
    for (int64_t i = 0; i < results; i++) {
        double sum = 0;
        for (int k = 0; k < j->sets; k++) sum += sums[k * results + i];
        out[i] = (float)sum;
    }
}

/* Some panels of the weights to each thread of the team. */
static void split_weights(iso_op op, const job *j, const float *w, const iso_winograd_weights *u)
{
#pragma omp for schedule(static)
    for (int64_t panel = 0; panel < iso_winograd_panels(u); panel++)
        for (int64_t start = 0, end; start < u->depth; start = end) {
            enum { SOME = 32 }; /* divides ISO_WINOGRAD_DEPTH */
            float taps[ISO_WINOGRAD_TAPS * SOME * ISO_GEMM_NR_MAX];
            end = iso_min64(start + SOME, u->depth);
            const iso_winograd_part part = weights_part(j, start, end, panel);
            iso_winograd_take_w(&j->grid, w, op == ISO_OP_CONV_X, part, u->width, taps);
            for (int row = 0; row < j->grid.side; row++)
                iso_winograd_split_w(&j->grid, taps, part, row, u->width, u->at + iso_winograd_weight(u, row * j->grid.side, start, panel), u->apart);
        }
}

size_t iso_winograd_prepared(iso_op op, const iso_call *call, int *form)
{
    job j;
    if (op == ISO_OP_CONV_W || !describe(op, call, &j)) return 0;
    *form = j.grid.n;
    return j.passing ? 0 : (size_t)j.weights * sizeof(float);
}

void iso_winograd_prepare(iso_op op, const iso_call *call)
{
    job j;
    if (!describe(op, call, &j)) return;
    const iso_winograd_weights u = weights_of(&j, call->prepared.data);
#pragma omp parallel num_threads(call->threads < 1 ? 1 : call->threads)
    split_weights(op, &j, call->in[1].data, &u);
}

/* --- slices */

int64_t iso_winograd_images(iso_op op, const iso_call *call)
{
    job j;
    if (!describe(op, call, &j) || !j.own) return 0;
    const iso_conv_sizes *s = &j.grid.s;
    const int64_t tiles = j.grid.tiles_h * j.grid.tiles_w, rows = op == ISO_OP_CONV_W ? SUM_ROWS : MIN_ROWS;
    return iso_cpu_slice_images(s->batch, iso_ceil_div(rows, tiles), s->h * s->w * s->c + s->oh * s->ow * s->o);
}

/* --- all three */

void iso_winograd_run(iso_op op, const iso_call *call)
{
    job j, sums;
    const job *along = call->along ? &sums : NULL;
    if (!(along ? describe_along(call, call->along, &j, &sums) : describe(op, call, &j))) return;
    const int threads = call->threads < 1 ? 1 : call->threads;
    float *shared = call->workspace, *operands = shared + round_up(j.shared, 16), *parts = operands + shared_size(&j);
    float *products = parts + threads * part_size(&j);
    iso_winograd_weights u = {.at = NULL};
    if (op != ISO_OP_CONV_W && !j.passing) u = weights_of(&j, j.prepared ? call->prepared.data : shared);
    const int64_t results = iso_shape_count(&call->out.shape);
    _Atomic int64_t next = 0;
#pragma omp parallel num_threads(threads)
    {
        const int rank = omp_get_thread_num();
        float *part = parts + rank * part_size(&j);
        iso_chain tail;
        crew c = {.rank = rank, .size = omp_get_num_threads(), .product = products + rank * j.product, .tail = &tail};
        c.left = shares_left(&j) ? operands : part;
        c.right = shares_right(&j) ? operands + round_up(j.left, 16) : part + (shares_left(&j) ? 0 : round_up(j.left, 16));
        c.other = part + part_size(&j) - round_up(j.other, 16);
        iso_chain_begin(&tail, call->tail, op == ISO_OP_CONV ? j.o : j.grid.s.c);
        if (j.own) c.rank = 0, c.size = 1;
        if (op != ISO_OP_CONV_W) {
            if (!j.prepared && !j.passing) split_weights(op, &j, call->in[1].data, &u);
            if (j.own) {
                for (range strips; take_strips(&j, omp_get_num_threads(), &next, &strips);) convolve(&j, along, call, &c, strips, &u);
            } else {
                for (int64_t strip = 0; strip < j.strips; strip += j.unit)
                    convolve(&j, along, call, &c, (range){strip, iso_min64(strip + j.unit, j.strips)}, &u);
            }
        } else if (j.own) {
            double *sums = j.wide ? call->out.data : (double *)shared;
#pragma omp for schedule(dynamic, 1)
            for (int set = 0; set < j.sets; set++)
                sum_weights(&j, call, &c, (range){set * j.strips / j.sets, (set + 1) * j.strips / j.sets}, sums + set * results);
            if (!j.wide) add_sets(&j, sums, results, call->out.data);
        } else {
            sum_together(&j, call, &c);
        }
    }
}
