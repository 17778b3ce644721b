/* store_sums.h: what store_moments.c and its faster arithmetic share; nothing else includes it but a test. */
#ifndef ISO_STORE_SUMS_H
#define ISO_STORE_SUMS_H

#include <math.h>

#include "base/isa.h"
#include "indexer/store_internal.h"

enum {
    ISO_SUMS_SCALE = 22,  /* numbers are multiples of 2^-22 */
    ISO_SUMS_LANES = 8,   /* of the sum of squares: their number is part of the format */
    ISO_SUMS_BLOCK = 512, /* vectors multiplied together: the most that stay exact in double */
};

/* Adding this and taking it away rounds to the nearest integer, halves to even; its lower 32 bits are zero, so that after
 * the sum they are that integer. */
#define ISO_SUMS_INTEGERS 0x1.8p52

__extension__ typedef unsigned __int128 iso_total; /* two's complement */
__extension__ typedef __int128 iso_signed_total;

/* How n vectors become rows at ... at + n - 1 of a block, in turn, up to one that is not finite or zero; n or its index
 * comes back, the rows before it count. How n rows are added to the sums; and how what `add` holds back reaches
 * them, or NULL: nothing. */
typedef struct iso_sums_arithmetic {
    int block; /* rows that it takes, ISO_SUMS_BLOCK at most */
    int (*round)(const iso_sums *s, const float *v, int n, double *block, int at);
    void (*add)(iso_sums *s, bool minus, int n);
    void (*finish)(iso_sums *s);
} iso_sums_arithmetic;

struct iso_sums {
    iso_sums_arithmetic by;
    int dim, panels;
    int filled[2];    /* vectors waiting to be added, and to be subtracted */
    double *block[2]; /* room for ISO_SUMS_BLOCK of them, by->round's way; made when needed */
    iso_total *sum;   /* [dim] of k, then of k kT row by row from the diagonal on */
    void *work;       /* by's own, free() */
};

/* Where the products of number i begin, with its square. */
static inline size_t iso_sums_row(int dim, int i)
{
    return (size_t)dim + (size_t)i * (size_t)dim - (size_t)i * ((size_t)i - 1) / 2;
}

static inline void iso_total_add(iso_total *t, int64_t exact, bool minus)
{
    iso_total k = (iso_total)(iso_signed_total)exact;
    *t += minus ? -k : k;
}

/* |z| of the lanes' sums of squares, always in this order. */
static inline double iso_sums_norm(const double square[ISO_SUMS_LANES])
{
    return sqrt(((square[0] + square[4]) + (square[1] + square[5])) +
                ((square[2] + square[6]) + (square[3] + square[7])));
}

/* store_sums_amx.c, with the tile unit's products of bytes, and store_sums_avx*.c. False: not here (base/isa.h), not for that
 * length, or no memory; nothing is set then. Else sets by and work. */
bool iso_sums_amx(iso_sums *s);
bool iso_sums_avx512(iso_sums *s);
bool iso_sums_avx2(iso_sums *s);

#endif
