/* benchstep_timing.h: what benchstep and benchencode share. */
#ifndef ISO_BENCHSTEP_TIMING_H
#define ISO_BENCHSTEP_TIMING_H

/* Sorts x [n], n >= 1. */
double bench_median(double *x, int n);
/* Processor time of all threads: what was computed, however busy the machine is. Threads that wait count too. */
double bench_cpu_seconds(void);
/* GFLOP/s of one product by OpenBLAS of matrices [BENCH_SGEMM, BENCH_SGEMM]. */
enum { BENCH_SGEMM = 2048 };
double bench_sgemm_rate(const float *a, const float *b, float *c);

#endif
