/* matmul.c: matrix products, one or several at once. */
#include "model/cpu/cpu.h"
#include "model/cpu/gemm.h"

/* The costs are cycles to pack an element. */
static iso_gemm gemm_of(int64_t m, int64_t n, int64_t k, bool ta, bool tb)
{
    return (iso_gemm){.m = m, .n = n, .k = k, .a_cost = ta ? 0.5 : 0.3, .b_cost = tb ? 0.9 : 0.4,
                      .pack_a = ta ? iso_gemm_pack_a_depth : iso_gemm_pack_a_rows, .a_by_depth = ta,
                      .pack_b = tb ? iso_gemm_pack_b_depth : iso_gemm_pack_b_rows,
                      .find_a = ta ? iso_gemm_find_depth : iso_gemm_find_rows, .find_b = tb ? iso_gemm_find_rows : iso_gemm_find_depth,
                      .b_by_columns = tb, .c_pitch = n};
}

void iso_cpu_matmul(const iso_call *call)
{
    const iso_shape *a = &call->in[0].shape, *b = &call->in[1].shape, *c = &call->out.shape;
    const bool ta = call->attr.i[0] != 0, tb = call->attr.i[1] != 0;
    const int last = a->ndim - 1;
    const int64_t batch = a->ndim == 3 ? a->dim[0] : 1;
    const int64_t m = c->dim[last - 1], n = c->dim[last], k = ta ? a->dim[last - 1] : a->dim[last];
    for (int64_t p = 0; p < batch; p++) {
        iso_gemm_matrix ma = {(const float *)call->in[0].data + p * m * k, a->dim[last]};
        iso_gemm_matrix mb = {(const float *)call->in[1].data + p * k * n, b->dim[last]};
        iso_gemm g = gemm_of(m, n, k, ta, tb);
        g.a = &ma;
        g.b = &mb;
        g.c = (float *)call->out.data + p * m * n;
        iso_gemm_run(&g, call->threads, call->workspace);
    }
}

/* The second operand alone. */
static iso_gemm gemm_by(const iso_call *call, iso_gemm_matrix *b)
{
    const iso_shape *shape = &call->in[1].shape;
    const bool tb = call->attr.i[1] != 0;
    *b = (iso_gemm_matrix){call->in[1].data, shape->dim[1]};
    iso_gemm g = gemm_of(call->out.shape.dim[0], shape->dim[tb ? 0 : 1], shape->dim[tb ? 1 : 0], false, tb);
    g.b = b;
    return g;
}

size_t iso_cpu_matmul_prepared(const iso_call *call)
{
    static const float anywhere[1]; /* the address is not known yet */
    iso_gemm_matrix b;
    if (call->in[1].shape.ndim != 2 || call->attr.i[0]) return 0;
    const iso_gemm g = gemm_by(call, &b);
    b.data = anywhere;
    return (size_t)iso_gemm_whole(&g) * sizeof(float);
}

void iso_cpu_matmul_prepare(const iso_call *call)
{
    iso_gemm_matrix b;
    const iso_gemm g = gemm_by(call, &b);
    iso_gemm_pack_whole(&g, call->prepared.data);
}

/* --- several: one product of matrices that lie in parts */

/* Matrices of `each` rows, one below the other. */
typedef struct joined {
    iso_gemm_matrix part[ISO_PRODUCTS_MAX];
    int64_t each;
} joined;

/* Of `count` rows from i on those that lie in one matrix: its rows `first` ... */
typedef struct piece {
    const iso_gemm_matrix *of;
    int64_t first;
    int count;
} piece;

static piece piece_of(const joined *j, int64_t i, int count)
{
    const int64_t first = i % j->each;
    return (piece){&j->part[i / j->each], first, (int)iso_min64(count, j->each - first)};
}

static int find_joined_rows(const void *operand, int64_t i0, int ni, int64_t k0, int nk, const float **at)
{
    piece p;
    for (int i = 0; i < ni; i += p.count) {
        p = piece_of(operand, i0 + i, ni - i);
        (void)iso_gemm_find_rows(p.of, p.first, p.count, k0, nk, at + i);
    }
    return nk;
}

static int find_joined_depth(const void *operand, int64_t i0, int ni, int64_t k0, int nk, const float **at)
{
    (void)find_joined_rows(operand, k0, nk, i0, ni, at);
    return ni;
}

static void pack_joined_a_rows(const void *operand, int64_t i0, int ni, int64_t k0, int nk, int tile, float *dst)
{
    piece p;
    for (int i = 0; i < ni; i += p.count) {
        p = piece_of(operand, i0 + i, ni - i);
        iso_gemm_pack_a_rows(p.of, p.first, p.count, k0, nk, tile, dst + (size_t)i * ISO_GEMM_LDA);
    }
}

static void pack_joined_a_depth(const void *operand, int64_t i0, int ni, int64_t k0, int nk, int tile, float *dst)
{
    piece p;
    for (int k = 0; k < nk; k += p.count) {
        p = piece_of(operand, k0 + k, nk - k);
        iso_gemm_pack_a_depth(p.of, i0, ni, p.first, p.count, tile, dst + k * ISO_GEMM_PANEL);
    }
}

static void pack_joined_b_rows(const void *operand, int64_t i0, int ni, int64_t k0, int nk, int tile, float *dst)
{
    piece p;
    for (int k = 0; k < nk; k += p.count) {
        p = piece_of(operand, k0 + k, nk - k);
        iso_gemm_spread_rows(p.of, i0, ni, p.first, p.count, nk, tile, dst + (size_t)k * tile);
    }
}

static joined join(int count, const iso_tensor *of)
{
    joined j = {.each = of[0].shape.dim[0]};
    for (int i = 0; i < count; i++) j.part[i] = (iso_gemm_matrix){of[i].data, of[i].shape.dim[1]};
    return j;
}

/* Where the results are: stored, or in the workspace. */
typedef struct results {
    float *at[ISO_PRODUCTS_MAX];
    int64_t m, n; /* of each */
} results;

static void rows_of_results(const void *context, int64_t i0, int ni, float **rows)
{
    const results *r = context;
    for (int i = 0; i < ni; i++) rows[i] = r->at[(i0 + i) / r->m] + (i0 + i) % r->m * r->n;
}

static int result_count(const iso_products *p) { return p->sum ? 1 : p->count; }

/* What the products pack into, then the results that are not stored. */
static size_t packing_bytes(void)
{
    enum { LINE = 64 };
    return (iso_gemm_workspace(1) + LINE - 1) / LINE * LINE;
}

size_t iso_cpu_products_workspace(const iso_products *p)
{
    return packing_bytes() + (size_t)result_count(p) * (size_t)iso_shape_count(&p->shape) * sizeof(float);
}

/* The operand that lies along the depth is split as it is as B, and transposed as A: let the larger one be B. */
static void turn(iso_gemm *g)
{
    if (!iso_gemm_isa_get()->tiles || g->m <= g->n) return;
    const void *a = g->a;
    const int64_t m = g->m;
    g->a = g->b;
    g->m = g->n;
    g->b = a;
    g->n = m;
    g->turned = true;
}

/* What is asked for while multiplying: what the tail of a sum reads, then what comes next. */
typedef struct lines {
    iso_gemm_lines at[ISO_FUSED_MAX_INPUTS + sizeof ((iso_ahead *)0)->range / sizeof ((iso_ahead *)0)->range[0]];
    int count;
} lines;

static void add_lines(lines *l, const void *at, size_t bytes)
{
    l->at[l->count++] = (iso_gemm_lines){at, ISO_GEMM_LINE, (int64_t)(bytes / ISO_GEMM_LINE), 1};
}

static void find_lines(const iso_products *p, lines *l)
{
    l->count = 0;
    for (int i = 1; p->sum && i < p->tail->inputs; i++)
        if (p->tail->input[i].dense) add_lines(l, p->tail->input[i].data, (size_t)p->tail->count * sizeof(float));
    for (int i = 0; p->ahead && i < p->ahead->count; i++) add_lines(l, p->ahead->range[i].at, p->ahead->range[i].bytes);
}

static void multiply(const iso_products *p, const results *r)
{
    lines ahead;
    find_lines(p, &ahead);
    const joined a = join(p->count, p->a), b = join(p->sum ? p->count : 1, p->b);
    const int64_t depth = p->a[0].shape.dim[p->transpose_a ? 0 : 1];
    iso_gemm g = gemm_of(r->m * result_count(p), r->n, depth * (p->sum ? p->count : 1), p->transpose_a, p->transpose_b);
    g.a = &a;
    g.b = &b;
    g.c_rows = rows_of_results;
    g.c_context = r;
    g.part_of = p->part_of * p->count;
    g.ahead = ahead.at;
    g.ahead_count = ahead.count;
    if (p->transpose_a) {
        g.pack_a = pack_joined_a_depth;
        g.find_a = find_joined_depth;
        g.pack_b = pack_joined_b_rows;
        g.find_b = find_joined_depth;
        turn(&g);
    } else {
        g.b = &b.part[0];
        g.b_packed = p->prepared.data;
        g.pack_a = pack_joined_a_rows;
        g.find_a = find_joined_rows;
    }
    iso_gemm_run(&g, 1, p->workspace);
}

static bool tail_reads(const iso_fused *tail, const void *data)
{
    for (int i = 0; i < tail->inputs; i++)
        if (tail->input[i].data == data) return true;
    return false;
}

/* A result that only the tail reads: where the tail writes one of its own, which is then in the cache; else in `room`. */
static float *place_of(const iso_fused *tail, float *const *taken, int count, float *room)
{
    for (int s = 0; s < tail->steps; s++) {
        bool free = tail->step[s].out && !tail_reads(tail, tail->step[s].out);
        for (int i = 0; i < count; i++) free = free && taken[i] != tail->step[s].out;
        if (free) return tail->step[s].out;
    }
    return room;
}

void iso_cpu_products(const iso_products *p)
{
    results r = {.m = p->shape.dim[0], .n = p->shape.dim[1]};
    float *room = (float *)((char *)p->workspace + packing_bytes());
    iso_fused_input input[ISO_FUSED_MAX_INPUTS];
    iso_fused tail = *p->tail;
    for (int i = 0; i < result_count(p); i++) r.at[i] = p->out[i] ? p->out[i] : place_of(&tail, r.at, i, room + (int64_t)i * r.m * r.n);
    multiply(p, &r);
    if (!tail.steps) return;
    memcpy(input, tail.input, (size_t)tail.inputs * sizeof *input);
    for (int i = 0; i < result_count(p); i++) input[i].data = r.at[i];
    tail.input = input;
    iso_cpu_fused(&tail);
}
