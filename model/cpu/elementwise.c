#include "model/cpu/elementwise.h"

#include <assert.h>
#include <math.h>
#include <string.h>
#include "model/cpu/cpu.h"

#define INLINE static inline __attribute__((always_inline))

INLINE uint32_t bits_of(float x)
{
    uint32_t u;
    memcpy(&u, &x, sizeof u);
    return u;
}

INLINE float float_of(uint32_t u)
{
    float x;
    memcpy(&x, &u, sizeof x);
    return x;
}

/* e^x = 2^n e^r, |r| <= log(2)/2; 2^n in two factors, so that denormal and infinite results come out. */
INLINE float exp1(float x)
{
    const float magic = 12582912.0f; /* 1.5 * 2^23: adding it rounds to an integer, which then stands in the low bits */
    float clamped = x > 89.0f ? 89.0f : x;
    clamped = clamped < -105.0f ? -105.0f : clamped;
    const float shifted = clamped * 1.44269504f + magic, n = shifted - magic;
    const float r = (clamped - n * 0.693359375f) + n * 2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * (r * r) + r + 1.0f;
    const int32_t whole = (int32_t)(bits_of(shifted) - bits_of(magic)), half = whole >> 1;
    return p * float_of((uint32_t)(half + 127) << 23) * float_of((uint32_t)(whole - half + 127) << 23);
}

/* log(x) + low: x = 2^e m, m in [sqrt(1/2), sqrt(2)). */
INLINE float logsum1(float x, float low)
{
    /* all ones for denormals, which are scaled by 2^25 (and for negative x, whose result is not used) */
    const uint32_t tiny = (uint32_t)((int32_t)(bits_of(x) - 0x00800000u) >> 31);
    const float scaled = x * float_of(0x3f800000u + (tiny & (25u << 23)));
    const uint32_t u = bits_of(scaled) - 0x3f3504f3u;
    const float e = (float)(((int32_t)u >> 23) - (int32_t)(tiny & 25u));
    const float m = float_of((u & 0x007fffffu) + 0x3f3504f3u) - 1.0f, z = m * m;
    float p = 7.0376836292e-2f;
    p = p * m - 1.1514610310e-1f;
    p = p * m + 1.1676998740e-1f;
    p = p * m - 1.2420140846e-1f;
    p = p * m + 1.4249322787e-1f;
    p = p * m - 1.6668057665e-1f;
    p = p * m + 2.0000714765e-1f;
    p = p * m - 2.4999993993e-1f;
    p = p * m + 3.3333331174e-1f;
    const float tail = p * z * m - 2.12194440e-4f * e - 0.5f * z + low;
    return m + tail + 0.693359375f * e;
}

INLINE float log1(float x)
{
    float y = logsum1(x, 0.0f);
    y = x == INFINITY ? x : y;
    y = x == 0.0f ? -INFINITY : y;
    return x >= 0.0f ? y : NAN;
}

INLINE float sigmoid1(float x)
{
    const float t = exp1(-fabsf(x)); /* at most 1: nothing overflows on either side */
    return (x < 0.0f ? t : 1.0f) / (1.0f + t);
}

/* max(x, 0) + log(1 + e^-|x|); the second term keeps what 1 + t rounds away. */
INLINE float softplus1(float x)
{
    const float t = exp1(-fabsf(x)), u = 1.0f + t;
    const float positive = float_of(bits_of(x) & ~(uint32_t)((int32_t)bits_of(x) >> 31));
    return positive + logsum1(u, (t - (u - 1.0f)) / u);
}

INLINE float tanh1(float x)
{
    const float a = fabsf(x), z = x * x;
    float p = -5.70498872745e-3f;
    p = p * z + 2.06390887954e-2f;
    p = p * z - 5.37397155531e-2f;
    p = p * z + 1.33314422036e-1f;
    p = p * z - 3.33332819422e-1f;
    const float near = x + x * z * p, far = 1.0f - 2.0f / (exp1(2.0f * a) + 1.0f);
    return a < 0.625f ? near : copysignf(far, x);
}

/* --- passes */

#define PASS(name, expression)                                                                                                  \
    ISO_CLONES static void run_##name(int64_t n, const float *const x[ISO_PASS_INPUTS], const float f[ISO_PASS_OPS], float *out)\
    {                                                                                                                           \
        const float *x0 = x[0], *x1 = x[1], *x2 = x[2], *x3 = x[3], *x4 = x[4], f0 = f[0], f1 = f[1], f2 = f[2], f3 = f[3];     \
        (void)x1, (void)x2, (void)x3, (void)x4, (void)f0, (void)f1, (void)f2, (void)f3;                                         \
        _Pragma("omp simd") for (int64_t i = 0; i < n; i++) out[i] = (expression);                                              \
    }
#define A x0[i]
#define B x1[i]
#define C x2[i]
#define D x3[i]
#define E x4[i]

PASS(add, A + B)
PASS(sub, A - B)
PASS(mul, A * B)
PASS(div, A / B)
PASS(scale, f0 * A)
PASS(shift, A + f0)
PASS(exp, exp1(A))
PASS(log, log1(A))
PASS(tanh, tanh1(A))
PASS(sigmoid, sigmoid1(A))
PASS(softplus, softplus1(A))
PASS(sqrt, sqrtf(A))
PASS(relu, A <= 0.0f ? 0.0f : A)
PASS(step, A > 0.0f ? 1.0f : 0.0f)
PASS(step_mul, (A > 0.0f ? 1.0f : 0.0f) * B)
PASS(add_relu, A + B <= 0.0f ? 0.0f : A + B)
PASS(scale_add, f0 * A + B)
PASS(mul_scale, f1 * (A * B))
PASS(average, f0 * A + f1 * B)
PASS(average_products, f0 * A + f2 * (B * C))
PASS(adam, A - B * C / (sqrtf(D) * E + f3))

#define ONE(NAME, name, inputs) {inputs, 1, {{ISO_OP_##NAME, 0, (inputs) == 2 ? 1 : -1}}, run_##name}
const iso_pass iso_passes[] = {
    /* Adam's (model/adam.c): the parameter, and its two moments */
    {5, 6, {{ISO_OP_MUL, 1, 2}, {ISO_OP_SQRT, 3, -1}, {ISO_OP_MUL, 6, 4}, {ISO_OP_SHIFT, 7, -1}, {ISO_OP_DIV, 5, 8}, {ISO_OP_SUB, 0, 9}}, run_adam},
    {3, 4, {{ISO_OP_SCALE, 0, -1}, {ISO_OP_MUL, 1, 2}, {ISO_OP_SCALE, 4, -1}, {ISO_OP_ADD, 3, 5}}, run_average_products},
    {2, 3, {{ISO_OP_SCALE, 0, -1}, {ISO_OP_SCALE, 1, -1}, {ISO_OP_ADD, 2, 3}}, run_average},
    {2, 2, {{ISO_OP_STEP, 0, -1}, {ISO_OP_MUL, 2, 1}}, run_step_mul},
    {2, 2, {{ISO_OP_ADD, 0, 1}, {ISO_OP_RELU, 2, -1}}, run_add_relu},
    {2, 2, {{ISO_OP_SCALE, 0, -1}, {ISO_OP_ADD, 2, 1}}, run_scale_add},
    {2, 2, {{ISO_OP_MUL, 0, 1}, {ISO_OP_SCALE, 2, -1}}, run_mul_scale},
    ONE(ADD, add, 2), ONE(SUB, sub, 2), ONE(MUL, mul, 2), ONE(DIV, div, 2), ONE(SCALE, scale, 1), ONE(SHIFT, shift, 1), ONE(EXP, exp, 1),
    ONE(LOG, log, 1), ONE(TANH, tanh, 1), ONE(SIGMOID, sigmoid, 1), ONE(SOFTPLUS, softplus, 1), ONE(SQRT, sqrt, 1), ONE(RELU, relu, 1), ONE(STEP, step, 1)};
const int iso_pass_count = sizeof iso_passes / sizeof *iso_passes;

static const iso_pass *pass_of(iso_op op)
{
    for (int i = 0; i < iso_pass_count; i++)
        if (iso_passes[i].ops == 1 && iso_passes[i].op[0].op == op) return &iso_passes[i];
    assert(!"an elementwise op without a kernel");
    return NULL;
}

void iso_elementwise_run(iso_op op, int64_t n, const float *a, const float *b, float f, float *out)
{
    pass_of(op)->run(n, (const float *[ISO_PASS_INPUTS]){a, b}, (float[ISO_PASS_OPS]){f}, out);
}

ISO_CLONES void iso_elementwise_fill(int64_t n, float value, float *out)
{
#pragma omp simd
    for (int64_t i = 0; i < n; i++) out[i] = value;
}

ISO_CLONES void iso_elementwise_copy(int64_t n, const float *a, float *out)
{
#pragma omp simd
    for (int64_t i = 0; i < n; i++) out[i] = a[i];
}
