/* store_squares.c: a vector's squares. On its own: the graph's header, which ISO_CLONES brings along, has names that the store's files have, too. */
#include "indexer/store.h"
#include "model/cpu/cpu.h"

/* Plain loops: gcc takes its own vectors of that many doubles apart through the stack where registers are shorter. */
ISO_CLONES double iso_vector_squares(int dim, const float *v)
{
    enum { LANES = 8 };
    double part[LANES] = {0};
    int j = 0;
    for (; j + LANES <= dim; j += LANES)
        for (int l = 0; l < LANES; l++) part[l] += (double)v[j + l] * v[j + l];
    double sum = ((part[0] + part[1]) + (part[2] + part[3])) + ((part[4] + part[5]) + (part[6] + part[7]));
    for (; j < dim; j++) sum += (double)v[j] * v[j];
    return sum;
}
