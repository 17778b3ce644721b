/* blas.h: OpenBLAS works in buffers of its own, one for each call that runs and one for each thread, and keeps them. Where the system
 * refuses it one it asks again without end: so who calls OpenBLAS, or what of FAISS does, has it take them first.
 *
 *     if ((status = iso_blas_begin(1, err))) return status;
 *     cblas_dgemm(...);
 *     iso_blas_end(1); */
#ifndef ISO_BASE_BLAS_H
#define ISO_BASE_BLAS_H

#include "base/error.h"

/* `callers` threads may each be in one call of OpenBLAS's, until iso_blas_end(callers) by the thread that began. ISO_E_MEMORY: there
 * is no room for their buffers, and nothing to end. Once for an operation, not for a product: 0.1 us where the buffers are there.
 * Any thread; within its own the same thread may begin again, which costs nothing more. */
ISO_CHECK iso_status iso_blas_begin(int callers, iso_error *err);
void iso_blas_end(int callers);

#endif
