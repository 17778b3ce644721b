/* chain.c: a fused chain of elementwise ops as the source of one kernel.
 *
 * A thread takes four neighbours where the shapes allow (else one), reads every input once, keeps all values in registers and
 * writes what is stored: the chain costs one pass over memory. Sizes and constants are numbers in the source, so that
 * finding a broadcast operand's element takes a few multiplications; only addresses are arguments. */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "model/cuda/cuda.h"

enum { THREADS = 256, WIDE = 4 };

typedef struct text {
    char *at;
    size_t used, capacity;
    bool failed;
} text;

static void __attribute__((format(printf, 2, 3))) say(text *t, const char *fmt, ...)
{
    va_list list;
    va_start(list, fmt);
    int n = vsnprintf(NULL, 0, fmt, list);
    va_end(list);
    if (n < 0 || !iso_grow(&t->at, &t->capacity, t->used + (size_t)n + 1, 1)) {
        t->failed = true;
        return;
    }
    va_start(list, fmt);
    vsnprintf(t->at + t->used, (size_t)n + 1, fmt, list);
    va_end(list);
    t->used += (size_t)n;
}

/* --- shapes */

static bool is_scalar(const iso_fused *f, const iso_fused_input *in)
{
    for (int d = 0; d < f->shape.ndim; d++)
        if (f->shape.dim[d] > 1 && in->stride[d]) return false;
    return true;
}

/* The last axis that has more than one element; -1: none. */
static int last_axis(const iso_fused *f)
{
    int d = f->shape.ndim - 1;
    while (d >= 0 && f->shape.dim[d] == 1) d--;
    return d;
}

/* How many neighbours a thread takes: four lie in one row of every operand that broadcasts, or one. */
static int width_of(const iso_fused *f)
{
    const int last = last_axis(f);
    if (f->count % WIDE) return 1;
    for (int i = 0; i < f->inputs; i++)
        if (!f->input[i].dense && !is_scalar(f, &f->input[i]) && f->shape.dim[last] % WIDE) return 1;
    return WIDE;
}

/* The offset in an operand that broadcasts of element e of the iteration shape. Axes that it has as neighbours are one. */
static void say_offset(text *t, const iso_fused *f, const iso_fused_input *in)
{
    int64_t inner = 1; /* elements of the iteration shape behind the axis */
    const char *plus = "";
    for (int d = f->shape.ndim - 1; d >= 0;) {
        int64_t n = f->shape.dim[d], stride = in->stride[d];
        int before = d - 1;
        while (before >= 0 && (f->shape.dim[before] == 1 || in->stride[before] == (stride ? n * stride : 0)))
            n *= f->shape.dim[before--];
        if (stride && n > 1) {
            say(t, "%s", plus);
            say(t, inner > 1 ? "(e / %" PRId64 "u" : "(e", inner);
            if (inner * n < f->count) say(t, " %% %" PRId64 "u", n);
            say(t, ") * %" PRId64 "u", stride);
            plus = " + ";
        }
        inner *= n;
        d = before;
    }
    if (!*plus) say(t, "0");
}

/* --- the source */

static void say_number(text *t, double value)
{
    const float f = (float)value;
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    say(t, "__int_as_float(0x%08x)", bits); /* exact, and infinities and NaN too */
}

/* Value number v within the loop over neighbours. */
static void say_value(text *t, const iso_fused *f, int v, int width)
{
    const bool one_for_all = v < f->inputs && !f->input[v].dense && (is_scalar(f, &f->input[v]) || !f->input[v].stride[last_axis(f)]);
    if (v >= f->inputs)
        say(t, "v%d", v);
    else if (width == 1 || one_for_all)
        say(t, "a%d", v);
    else
        say(t, "a%d[l]", v);
}

static void say_input(text *t, const iso_fused *f, int i, int width)
{
    const iso_fused_input *in = &f->input[i];
    if (in->dense) {
        if (width == 1)
            say(t, "    const float a%d = p.in[%d][e];\n", i, i);
        else
            say(t, "    float a%d[4]; load4(p.in[%d] + e, a%d);\n", i, i, i);
        return;
    }
    const bool one_for_all = width == 1 || is_scalar(f, in) || !in->stride[last_axis(f)];
    say(t, one_for_all ? "    const float a%d = p.in[%d][" : "    float a%d[4]; load4(p.in[%d] + (", i, i);
    say_offset(t, f, in);
    if (one_for_all)
        say(t, "];\n");
    else
        say(t, "), a%d);\n", i);
}

static void say_step(text *t, const iso_fused *f, int s, int width)
{
    const iso_fused_step *step = &f->step[s];
    /* %a, %b and %f of a pattern are the operands and the number. */
    static const char *const pattern[ISO_OP_COUNT] = {
        [ISO_OP_ADD] = "%a + %b", [ISO_OP_SUB] = "%a - %b", [ISO_OP_MUL] = "%a * %b", [ISO_OP_DIV] = "%a / %b",
        [ISO_OP_SCALE] = "%f * %a", [ISO_OP_SHIFT] = "%a + %f", [ISO_OP_EXP] = "expf(%a)", [ISO_OP_LOG] = "logf(%a)",
        [ISO_OP_SQRT] = "sqrtf(%a)", [ISO_OP_TANH] = "tanhf(%a)", [ISO_OP_SIGMOID] = "sigmoid(%a)",
        [ISO_OP_SOFTPLUS] = "softplus(%a)", [ISO_OP_RELU] = "%a <= 0.0f ? 0.0f : %a", [ISO_OP_STEP] = "%a > 0.0f ? 1.0f : 0.0f"};
    say(t, "        const float v%d = ", f->inputs + s);
    for (const char *c = pattern[step->op]; c && *c; c++) {
        if (*c != '%') {
            say(t, "%c", *c);
            continue;
        }
        c++;
        if (*c == 'f')
            say_number(t, step->f);
        else
            say_value(t, f, *c == 'a' ? step->a : step->b, width);
    }
    say(t, ";\n");
    if (step->out) say(t, "        o%d%s = v%d;\n", s, width == 1 ? "" : "[l]", f->inputs + s);
}

char *iso_cuda_chain_source(const iso_fused *f)
{
    text t = {0};
    const int width = width_of(f);
    const char *index = f->count < (int64_t)1 << 31 ? "unsigned" : "unsigned long long";
    say(&t, "{\n    const %s e = ((%s)blockIdx.x * %du + threadIdx.x) * %du;\n    if (e >= %" PRId64 "u) return;\n", index, index,
        THREADS, width, f->count);
    for (int i = 0; i < f->inputs; i++) say_input(&t, f, i, width);
    for (int s = 0; s < f->steps; s++)
        if (f->step[s].out) say(&t, "    float o%d%s;\n", s, width == 1 ? "" : "[4]");
    if (width > 1) say(&t, "#pragma unroll\n    for (int l = 0; l < 4; l++) {\n");
    for (int s = 0; s < f->steps; s++) say_step(&t, f, s, width);
    if (width > 1) say(&t, "    }\n");
    /* Every input was read: now an output may take an input's place. */
    for (int s = 0; s < f->steps; s++)
        if (f->step[s].out) say(&t, width == 1 ? "    p.out[%d][e] = o%d;\n" : "    store4(p.out[%d] + e, o%d);\n", s, s);
    say(&t, "}\n");
    if (!t.failed) return t.at;
    free(t.at);
    return NULL;
}

/* --- running */

iso_status iso_cuda_chain_prepare(int count, const iso_fused *const *fused, iso_error *err)
{
    char **body = iso_calloc((size_t)count, sizeof *body);
    iso_status status = body ? ISO_OK : iso_fail_memory(err);
    for (int i = 0; status == ISO_OK && i < count; i++)
        if (!(body[i] = iso_cuda_chain_source(fused[i]))) status = iso_fail_memory(err);
    if (status == ISO_OK) status = iso_cuda_compile(count, body, err);
    for (int i = 0; body && i < count; i++) free(body[i]);
    free(body);
    return status;
}

void iso_cuda_chain_run(const iso_fused *f)
{
    char *body = iso_cuda_chain_source(f);
    const void *kernel = body ? iso_cuda_compiled(body) : NULL;
    free(body);
    iso_cuda_chain p = {.in = {NULL}};
    for (int i = 0; i < f->inputs; i++) p.in[i] = f->input[i].data;
    for (int s = 0; s < f->steps; s++) p.out[s] = f->step[s].out;
    const int64_t threads = f->count / width_of(f), blocks = (threads + THREADS - 1) / THREADS;
    void *argument[] = {&p};
    cudaError_t e = !kernel ? cudaErrorInvalidKernelImage
                            : cudaLaunchKernel(kernel, (dim3){(unsigned)blocks, 1, 1}, (dim3){THREADS, 1, 1}, argument, 0,
                                               iso_cuda_get()->stream);
    (void)iso_cuda_ok(e, "an elementwise chain");
}

/* An op on its own is a chain of one. Only tests come here: plans fuse. */
void iso_cuda_elementwise(const iso_call *call, iso_op op)
{
    iso_fused_input input[ISO_MAX_INPUTS];
    const iso_shape *to = &call->out.shape;
    int inputs = 0;
    for (; inputs < ISO_MAX_INPUTS && call->in[inputs].data; inputs++) {
        const iso_shape *from = &call->in[inputs].shape;
        iso_fused_input *in = &input[inputs];
        *in = (iso_fused_input){.data = call->in[inputs].data, .shape = *from};
        in->dense = iso_shape_count(from) == iso_shape_count(to);
        int64_t step = 1;
        for (int d = from->ndim - 1; d >= 0; d--) {
            in->stride[to->ndim - from->ndim + d] = from->dim[d] == 1 ? 0 : step;
            step *= from->dim[d];
        }
    }
    const iso_fused_step step = {.op = op, .a = 0, .b = inputs > 1 ? 1 : -1, .f = call->attr.f, .out = call->out.data};
    const iso_fused f = {.shape = *to, .count = iso_shape_count(to), .inputs = inputs, .steps = 1, .input = input, .step = &step};
    const iso_fused *list[] = {&f};
    iso_error err = {0};
    if (iso_cuda_chain_prepare(1, list, &err) == ISO_OK)
        iso_cuda_chain_run(&f);
    else
        (void)iso_cuda_ok(cudaErrorInvalidKernelImage, err.message);
}
