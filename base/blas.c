#include "base/blas.h"

#include <cblas.h>
#include <omp.h>
#include <pthread.h>
#include <stdbool.h>
#include <sys/mman.h>

enum { MOST_THREADS = 64 }; /* that Debian's OpenBLAS is built for */
#define BUFFER ((size_t)128 << 20)

/* OpenBLAS's own, in no header of its: a buffer that is free, or else a new one; and back, which frees no memory. One that has no such functions is
 * believed to find room. */
void *blas_memory_alloc(int where) __attribute__((weak));
void blas_memory_free(void *buffer) __attribute__((weak));

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int running; /* callers */
static int held;    /* buffers that OpenBLAS has, at least */
static int threads; /* that it may have had to run a product on */
static _Thread_local int depth;

static bool room_for_one(void)
{
    void *p = mmap(NULL, BUFFER, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return p != MAP_FAILED && munmap(p, BUFFER) == 0;
}

/* OpenBLAS has buffers for `want` then. All that its threads lack not are taken at once, so that none counts twice; each new one has been
 * seen to have room. */
static bool take(int want)
{
    const int of_threads = openblas_get_num_threads(), known = held - of_threads - running;
    void *chain = NULL;
    int taken = 0;
    while (taken < want - of_threads && (taken < known || room_for_one())) {
        void **buffer = blas_memory_alloc(0);
        *buffer = chain;
        chain = buffer;
        taken++;
    }
    while (chain) {
        void *next = *(void **)chain;
        blas_memory_free(chain);
        chain = next;
    }
    if (held < of_threads + taken) held = of_threads + taken;
    return held >= want;
}

iso_status iso_blas_begin(int callers, iso_error *err)
{
    if (depth > 0) {
        depth++;
        return ISO_OK;
    }
    int here = omp_get_max_threads() < MOST_THREADS ? omp_get_max_threads() : MOST_THREADS;
    pthread_mutex_lock(&lock);
    if (!held) held = threads = openblas_get_num_threads(); /* which it takes as it is loaded */
    if (threads < here) threads = here;
    const int want = threads + running + callers;
    const bool fine = held >= want || !blas_memory_alloc || !blas_memory_free || take(want);
    if (fine) running += callers;
    pthread_mutex_unlock(&lock);
    if (!fine)
        return iso_fail(err, ISO_E_MEMORY, "out of memory: OpenBLAS needs 128 MiB of address space for each thread and one more, and the system refuses them "
                                           "(ulimit -v, ulimit -d): allow more, or use fewer threads");
    depth = 1;
    return ISO_OK;
}

void iso_blas_end(int callers)
{
    if (--depth > 0) return;
    pthread_mutex_lock(&lock);
    running -= callers;
    pthread_mutex_unlock(&lock);
}
