#include "programs/benchstep_timing.h"

#include <cblas.h>
#include <time.h>

#include "base/progress.h"

double bench_median(double *x, int n)
{
    for (int i = 1; i < n; i++) /* insertion sort: n is small */
        for (int k = i; k > 0 && x[k] < x[k - 1]; k--) {
            double t = x[k];
            x[k] = x[k - 1];
            x[k - 1] = t;
        }
    return n % 2 ? x[n / 2] : (x[n / 2 - 1] + x[n / 2]) / 2;
}

double bench_cpu_seconds(void)
{
    struct timespec t;
    return clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t) == 0 ? (double)t.tv_sec + 1e-9 * (double)t.tv_nsec : 0;
}

double bench_sgemm_rate(const float *a, const float *b, float *c)
{
    double start = iso_now();
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, BENCH_SGEMM, BENCH_SGEMM, BENCH_SGEMM, 1, a, BENCH_SGEMM, b, BENCH_SGEMM, 0, c, BENCH_SGEMM);
    return 2.0 * BENCH_SGEMM * BENCH_SGEMM * BENCH_SGEMM / (iso_now() - start) / 1e9;
}
