/* reference.c: the reference backend: double precision, loops that read like the definitions in ops.def. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "model/graph/internal.h"

#define EACH(i, n) for (int64_t i = 0; i < (n); i++)

static int64_t count_of(const iso_tensor *t) { return iso_shape_count(&t->shape); }

/* --- elementwise: element i of the output reads element at(i) of each operand */

/* The element that flat index i of `to` reads in a tensor that broadcasts to it. */
static int64_t source_of(const iso_shape *from, const iso_shape *to, int64_t i)
{
    int64_t stride[ISO_MAX_DIMS], at = 0;
    iso_shape_strides(from, to, stride);
    for (int d = to->ndim - 1; d >= 0; d--) {
        at += i % to->dim[d] * stride[d];
        i /= to->dim[d];
    }
    return at;
}

static double operand(const iso_call *c, int k, int64_t i)
{
    return ((const double *)c->in[k].data)[source_of(&c->in[k].shape, &c->out.shape, i)];
}

#define ELEMENTWISE(NAME, value) \
    static void ref_##NAME(const iso_call *c) \
    { \
        double *out = c->out.data, f = c->attr.f; \
        (void)f; \
        EACH(i, count_of(&c->out)) \
        { \
            double x = operand(c, 0, i); \
            out[i] = value; \
        } \
    }
#define Y operand(c, 1, i)
ELEMENTWISE(add, x + Y)
ELEMENTWISE(sub, x - Y)
ELEMENTWISE(mul, x *Y)
ELEMENTWISE(div, x / Y)
ELEMENTWISE(scale, f *x)
ELEMENTWISE(shift, x + f)
ELEMENTWISE(exp, exp(x))
ELEMENTWISE(log, log(x))
ELEMENTWISE(sqrt, sqrt(x))
ELEMENTWISE(tanh, tanh(x))
ELEMENTWISE(sigmoid, x >= 0 ? 1 / (1 + exp(-x)) : exp(x) / (1 + exp(x)))
ELEMENTWISE(softplus, x > 0 ? x + log1p(exp(-x)) : log1p(exp(x)))
ELEMENTWISE(relu, x <= 0 ? 0 : x) /* this way round, NaN stays NaN */
ELEMENTWISE(step, x > 0 ? 1 : 0)

#undef Y

/* --- shape */

static void ref_sum(const iso_call *c)
{
    double *out = c->out.data;
    const double *in = c->in[0].data;
    memset(out, 0, (size_t)count_of(&c->out) * sizeof *out);
    EACH(i, count_of(&c->in[0])) out[source_of(&c->out.shape, &c->in[0].shape, i)] += in[i];
}

static void ref_broadcast(const iso_call *c)
{
    double *out = c->out.data;
    EACH(i, count_of(&c->out)) out[i] = operand(c, 0, i);
}

static void ref_permute(const iso_call *c)
{
    const double *in = c->in[0].data;
    double *out = c->out.data;
    const iso_shape *s = &c->in[0].shape;
    int64_t stride[ISO_MAX_DIMS], step = 1;
    for (int d = s->ndim - 1; d >= 0; d--) {
        stride[d] = step;
        step *= s->dim[d];
    }
    EACH(i, count_of(&c->out))
    {
        int64_t rest = i, at = 0;
        for (int d = s->ndim - 1; d >= 0; d--) {
            at += rest % c->out.shape.dim[d] * stride[c->attr.i[d]];
            rest /= c->out.shape.dim[d];
        }
        out[i] = in[at];
    }
}

/* outer x axis x inner: how slice, pad and concat see a tensor. */
static void split(const iso_shape *s, int64_t axis, int64_t *outer, int64_t *inner)
{
    *outer = *inner = 1;
    for (int d = 0; d < s->ndim; d++) {
        if (d < axis) *outer *= s->dim[d];
        if (d > axis) *inner *= s->dim[d];
    }
}

/* Copies `rows` along the axis from position `from` of one tensor to position `to` of another. */
static void copy_axis(const iso_tensor *in, int64_t from, iso_tensor *out, int64_t to, int64_t axis, int64_t rows)
{
    int64_t outer, inner;
    split(&in->shape, axis, &outer, &inner);
    const double *x = in->data;
    double *y = out->data;
    int64_t nx = in->shape.dim[axis], ny = out->shape.dim[axis];
    EACH(o, outer) memcpy(y + (o * ny + to) * inner, x + (o * nx + from) * inner, (size_t)(rows * inner) * sizeof *y);
}

static void ref_slice(const iso_call *c)
{
    iso_tensor out = c->out;
    copy_axis(&c->in[0], c->attr.i[1], &out, 0, c->attr.i[0], c->attr.i[2]);
}

static void ref_pad(const iso_call *c)
{
    iso_tensor out = c->out;
    memset(out.data, 0, (size_t)count_of(&out) * sizeof(double));
    copy_axis(&c->in[0], 0, &out, c->attr.i[1], c->attr.i[0], c->in[0].shape.dim[c->attr.i[0]]);
}

static void ref_concat(const iso_call *c)
{
    iso_tensor out = c->out;
    int64_t axis = c->attr.i[0], first = c->in[0].shape.dim[axis];
    copy_axis(&c->in[0], 0, &out, 0, axis, first);
    copy_axis(&c->in[1], 0, &out, first, axis, c->in[1].shape.dim[axis]);
}

static void ref_gather(const iso_call *c)
{
    const int64_t *index = c->in[1].data;
    const double *x = c->in[0].data;
    double *out = c->out.data;
    int64_t rows = c->out.shape.dim[0], row = count_of(&c->out) / rows;
    EACH(i, rows) memcpy(out + i * row, x + index[i] * row, (size_t)row * sizeof *out);
}

static void ref_scatter(const iso_call *c)
{
    const int64_t *index = c->in[1].data;
    const double *y = c->in[0].data;
    double *out = c->out.data;
    int64_t rows = c->in[0].shape.dim[0], row = count_of(&c->in[0]) / rows;
    memset(out, 0, (size_t)count_of(&c->out) * sizeof *out);
    EACH(i, rows) EACH(k, row) out[index[i] * row + k] += y[i * row + k];
}

/* --- products */

static void ref_matmul(const iso_call *c)
{
    const iso_shape *sa = &c->in[0].shape, *so = &c->out.shape;
    int d = so->ndim - 2;
    bool ta = c->attr.i[0], tb = c->attr.i[1];
    int64_t batch = d ? so->dim[0] : 1, m = so->dim[d], n = so->dim[d + 1], k = sa->dim[d + !ta];
    EACH(p, batch)
    {
        const double *a = (const double *)c->in[0].data + p * m * k, *b = (const double *)c->in[1].data + p * k * n;
        double *out = (double *)c->out.data + p * m * n;
        EACH(i, m) EACH(j, n)
        {
            double sum = 0;
            EACH(l, k) sum += (ta ? a[l * m + i] : a[i * k + l]) * (tb ? b[j * k + l] : b[l * n + j]);
            out[i * n + j] = sum;
        }
    }
}

/* Visits every product x w y of T: the element numbers of x, w and y that meet. */
typedef void visit(double *x, double *w, double *y);
static void visit_y(double *x, double *w, double *y) { *y += *x * *w; }
static void visit_x(double *x, double *w, double *y) { *x += *w * *y; }
static void visit_w(double *x, double *w, double *y) { *w += *x * *y; }

static void conv_each(const iso_call *c, const iso_tensor *tx, const iso_tensor *tw, const iso_tensor *ty, visit *visit)
{
    double *x = tx->data, *w = tw->data, *y = ty->data;
    const int64_t *X = tx->shape.dim, *W = tw->shape.dim, *Y = ty->shape.dim;
    int64_t stride = c->attr.i[0], pad = c->attr.i[1];
    EACH(b, Y[0]) EACH(oh, Y[1]) EACH(ow, Y[2]) EACH(kh, W[1]) EACH(kw, W[2])
    {
        int64_t h = oh * stride - pad + kh, v = ow * stride - pad + kw;
        if (h < 0 || h >= X[1] || v < 0 || v >= X[2]) continue;
        double *px = x + ((b * X[1] + h) * X[2] + v) * X[3], *py = y + ((b * Y[1] + oh) * Y[2] + ow) * Y[3];
        EACH(o, Y[3])
        {
            double *pw = w + ((o * W[1] + kh) * W[2] + kw) * W[3];
            EACH(i, X[3]) visit(px + i, pw + i, py + o);
        }
    }
}

static void clear(const iso_tensor *t) { memset(t->data, 0, (size_t)count_of(t) * sizeof(double)); }
static void ref_conv(const iso_call *c)
{
    clear(&c->out);
    conv_each(c, &c->in[0], &c->in[1], &c->out, visit_y);
}
static void ref_conv_x(const iso_call *c)
{
    clear(&c->out);
    conv_each(c, &c->out, &c->in[1], &c->in[0], visit_x);
}
static void ref_conv_w(const iso_call *c)
{
    clear(&c->out);
    conv_each(c, &c->in[0], &c->out, &c->in[1], visit_w);
}

/* --- the backend */

static void *reference_alloc(size_t bytes)
{
    void *p = NULL;
    if (posix_memalign(&p, 64, bytes ? bytes : 64)) return NULL;
    return memset(p, 0, bytes);
}
static void reference_release(void *p, size_t bytes)
{
    (void)bytes;
    free(p);
}

#define ref_input NULL
#define ref_state NULL
#define ref_constant NULL
#define ref_reshape NULL
static const iso_backend reference = {
    .name = "reference",
    .real_size = sizeof(double),
    .kernel =
        {
#define ISO_OP(NAME, name, inputs, kind) [ISO_OP_##NAME] = ref_##name,
#include "model/graph/ops.def"
#undef ISO_OP
        },
    .alloc = reference_alloc,
    .release = reference_release,
};

const iso_backend *iso_backend_reference(void) { return &reference; }
