/* test_cuda.h: what the parts of the CUDA backend's test share. */
#ifndef ISO_TEST_CUDA_H
#define ISO_TEST_CUDA_H

#include "base/progress.h"
#include "model/device.h"

extern int failures;
extern const iso_backend *gpu; /* under test */
void wrong(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
double draw(void); /* in [-1, 1) */
void *take(size_t n);                         /* host memory, zeroed */
void *send(const void *host, size_t bytes);   /* a copy in device memory */

void test_chains(void);
void test_plans(void);
void test_training(void);
void test_memory(void);

#endif
