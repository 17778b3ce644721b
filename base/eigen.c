#include "base/eigen.h"

#include <cblas.h>
#include <math.h>
#include <omp.h>
#include <stdlib.h>

#include "base/blas.h"
#include "base/memory.h"

enum { SMALL = 512 };

/* LAPACK, column-major; OpenBLAS brings it, and no header for it everywhere. */
void dsyevd_(const char *jobz, const char *uplo, const blasint *n, double *a, const blasint *lda, double *w,
             double *work, const blasint *lwork, blasint *iwork, const blasint *liwork, blasint *info);

iso_status iso_eigen(int n, double *A, double *value, iso_error *err)
{
    blasint size = n, info = 0, ask = -1, ints = 0;
    double best = 0;
    for (int i = 0; i < n; i++)
        for (int j = i; j < n; j++)
            if (!isfinite(A[(size_t)i * (size_t)n + (size_t)j]))
                return iso_fail(err, ISO_E_NUMERIC,
                                "a matrix holds a number that is not finite: it has no eigenvalues");
    iso_status status = iso_blas_begin(1, err);
    if (status) return status;
    double *work = NULL;
    blasint room, *iwork = NULL;
    /* Row-major, the upper half: LAPACK's lower one. */
    dsyevd_("V", "L", &size, A, &size, value, &best, &ask, &ints, &ask, &info);
    if (info) {
        status = iso_fail(err, ISO_E_INTERNAL, "LAPACK refuses an eigenproblem (%d)", (int)info);
        goto done;
    }
    room = (blasint)best;
    work = iso_calloc((size_t)room, sizeof *work);
    iwork = iso_calloc((size_t)ints, sizeof *iwork);
    if (!work || !iwork) status = iso_fail_memory(err);
    if (!status) {
        /* In a parallel region OpenBLAS uses one thread: on a small matrix several wait for one another longer than they
         * work, and on a busy machine a hundred times as long. */
#pragma omp parallel num_threads(2) if (n < SMALL && omp_get_max_threads() > 1)
        if (omp_get_thread_num() == 0) dsyevd_("V", "L", &size, A, &size, value, work, &room, iwork, &ints, &info);
        if (info)
            status =
                iso_fail(err, ISO_E_NUMERIC, "the eigenvalues of a matrix could not be found (LAPACK %d)", (int)info);
    }
    for (int i = 0; !status && i < n; i++)
        if (!isfinite(value[i]) || (i && value[i] < value[i - 1]))
            status = iso_fail(err, ISO_E_NUMERIC, "LAPACK gives eigenvalues that are not finite or not in order");
done:
    free(work);
    free(iwork);
    iso_blas_end(1);
    return status;
}
