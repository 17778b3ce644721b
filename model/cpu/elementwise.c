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

#define UNARY(name, expression)                                                             \
    ISO_CLONES static void run_##name(int64_t n, const float *a, float f, float *out)       \
    {                                                                                       \
        (void)f;                                                                            \
        _Pragma("omp simd") for (int64_t i = 0; i < n; i++)                                 \
        {                                                                                   \
            float x = a[i];                                                                 \
            out[i] = (expression);                                                          \
        }                                                                                   \
    }
#define BINARY(name, expression)                                                            \
    ISO_CLONES static void run_##name(int64_t n, const float *a, const float *b, float *out) \
    {                                                                                       \
        _Pragma("omp simd") for (int64_t i = 0; i < n; i++) out[i] = (expression);          \
    }

BINARY(add, a[i] + b[i])
BINARY(sub, a[i] - b[i])
BINARY(mul, a[i] * b[i])
BINARY(div, a[i] / b[i])
UNARY(scale, f * x)
UNARY(shift, x + f)
UNARY(exp, exp1(x))
UNARY(log, log1(x))
UNARY(tanh, tanh1(x))
UNARY(sigmoid, sigmoid1(x))
UNARY(softplus, softplus1(x))
UNARY(sqrt, sqrtf(x))
UNARY(relu, x <= 0.0f ? 0.0f : x)
UNARY(step, x > 0.0f ? 1.0f : 0.0f)

/* Two ops in one pass. */
#define PAIR(name, expression)                                                                            \
    ISO_CLONES static void run_##name(int64_t n, const float *a, const float *b, float f, float *out)     \
    {                                                                                                     \
        (void)f;                                                                                          \
        _Pragma("omp simd") for (int64_t i = 0; i < n; i++) out[i] = (expression);                        \
    }

PAIR(step_mul, (a[i] > 0.0f ? 1.0f : 0.0f) * b[i])
PAIR(add_relu, a[i] + b[i] <= 0.0f ? 0.0f : a[i] + b[i])
PAIR(scale_add, f * a[i] + b[i])
PAIR(mul_scale, f * (a[i] * b[i]))
PAIR(sqrt_mul, sqrtf(a[i]) * b[i])
PAIR(shift_div, b[i] / (a[i] + f))

void iso_elementwise_run(iso_op op, int64_t n, const float *a, const float *b, float f, float *out)
{
    switch (op) {
    case ISO_OP_ADD: run_add(n, a, b, out); return;
    case ISO_OP_SUB: run_sub(n, a, b, out); return;
    case ISO_OP_MUL: run_mul(n, a, b, out); return;
    case ISO_OP_DIV: run_div(n, a, b, out); return;
    case ISO_OP_SCALE: run_scale(n, a, f, out); return;
    case ISO_OP_SHIFT: run_shift(n, a, f, out); return;
    case ISO_OP_EXP: run_exp(n, a, f, out); return;
    case ISO_OP_LOG: run_log(n, a, f, out); return;
    case ISO_OP_SQRT: run_sqrt(n, a, f, out); return;
    case ISO_OP_TANH: run_tanh(n, a, f, out); return;
    case ISO_OP_SIGMOID: run_sigmoid(n, a, f, out); return;
    case ISO_OP_SOFTPLUS: run_softplus(n, a, f, out); return;
    case ISO_OP_RELU: run_relu(n, a, f, out); return;
    case ISO_OP_STEP: run_step(n, a, f, out); return;
    default: assert(!"an elementwise op without a kernel");
    }
}

typedef void (*pair)(int64_t n, const float *a, const float *b, float f, float *out);

/* k: which operand of the second the first is. NULL: these are no pair. */
static pair pair_of(iso_op first, iso_op second, int k)
{
    if (first == ISO_OP_STEP && second == ISO_OP_MUL) return run_step_mul;
    if (first == ISO_OP_ADD && second == ISO_OP_RELU) return run_add_relu;
    if (first == ISO_OP_SCALE && second == ISO_OP_ADD) return run_scale_add;
    if (first == ISO_OP_MUL && second == ISO_OP_SCALE) return run_mul_scale;
    if (first == ISO_OP_SQRT && second == ISO_OP_MUL) return run_sqrt_mul;
    if (first == ISO_OP_SHIFT && second == ISO_OP_DIV && k == 1) return run_shift_div;
    return NULL;
}

bool iso_elementwise_pairs(iso_op first, iso_op second, int k) { return pair_of(first, second, k) != NULL; }

void iso_elementwise_run_pair(iso_op first, iso_op second, int k, int64_t n, const float *a, const float *b, float f, float *out)
{
    pair_of(first, second, k)(n, a, b, f, out);
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
