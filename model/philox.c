#include "model/philox.h"

#include <math.h>

static void round_once(uint32_t c[4], const uint32_t k[2])
{
    uint64_t p0 = (uint64_t)0xD2511F53u * c[0];
    uint64_t p1 = (uint64_t)0xCD9E8D57u * c[2];
    uint32_t next[4] = {(uint32_t)(p1 >> 32) ^ c[1] ^ k[0], (uint32_t)p1,
                        (uint32_t)(p0 >> 32) ^ c[3] ^ k[1], (uint32_t)p0};
    for (int i = 0; i < 4; i++) c[i] = next[i];
}

void iso_philox(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4])
{
    uint32_t k[2] = {key[0], key[1]}, c[4] = {counter[0], counter[1], counter[2], counter[3]};
    for (int round = 0; round < 10; round++) {
        round_once(c, k);
        k[0] += 0x9E3779B9u;
        k[1] += 0xBB67AE85u;
    }
    for (int i = 0; i < 4; i++) out[i] = c[i];
}

/* The four words of one block of a draw. A block number has 64 bits where the counter has room for 32: the upper half
 * (beyond 16 billion numbers of one draw) moves the key on. */
static void draw_block(iso_draw d, uint64_t block, uint32_t out[4])
{
    uint64_t seed = d.seed + (block >> 32) * 0x9E3779B97F4A7C15u;
    uint32_t counter[4] = {(uint32_t)block, d.stream, (uint32_t)d.step, (uint32_t)(d.step >> 32)};
    uint32_t key[2] = {(uint32_t)seed, (uint32_t)(seed >> 32)};
    iso_philox(counter, key, out);
}

void iso_draw_uniform(iso_draw d, double low, double high, int64_t n, float *out)
{
    uint32_t w[4];
    for (int64_t i = 0; i < n; i++) {
        if (i % 4 == 0) draw_block(d, (uint64_t)(i / 4), w);
        float f = (float)(low + (high - low) * (w[i % 4] * 0x1p-32));
        /* Rounding to float may step over either end. */
        if (f < low) f = nextafterf(f, INFINITY);
        if (f >= high && high > low) f = nextafterf(f, -INFINITY);
        out[i] = f;
    }
}

void iso_normal_pair(const uint32_t word[2], double out[2])
{
    const double tau = 6.283185307179586;
    double radius = sqrt(-2 * log((word[0] + 1.0) * 0x1p-32)), angle = tau * (word[1] * 0x1p-32);
    out[0] = radius * cos(angle);
    out[1] = radius * sin(angle);
}

void iso_draw_normal(iso_draw d, int64_t n, float *out)
{
    for (int64_t i = 0; i < n; i += 4) {
        uint32_t w[4];
        draw_block(d, (uint64_t)(i / 4), w);
        for (int pair = 0; pair < 2; pair++) {
            double x[2];
            iso_normal_pair(w + 2 * pair, x);
            for (int k = 0; k < 2 && i + 2 * pair + k < n; k++) out[i + 2 * pair + k] = (float)x[k];
        }
    }
}

uint64_t iso_draw_below(iso_draw d, uint64_t position, uint64_t bound)
{
    uint32_t w[4];
    draw_block(d, position, w);
    uint64_t bits = (uint64_t)w[1] << 32 | w[0];
    return (uint64_t)((unsigned __int128)bits * bound >> 64);
}

void iso_draw_permutation(iso_draw d, int64_t n, int64_t *out)
{
    for (int64_t i = 0; i < n; i++) out[i] = i;
    for (int64_t i = n - 1; i > 0; i--) {
        int64_t j = (int64_t)iso_draw_below(d, (uint64_t)i, (uint64_t)i + 1);
        int64_t t = out[i];
        out[i] = out[j];
        out[j] = t;
    }
}
