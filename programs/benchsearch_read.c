/* The least that a search can cost: reading the vectors once. */
#include "programs/benchsearch.h"

#include <errno.h>
#include <fcntl.h>
#include <omp.h>
#include <sys/stat.h>
#include <unistd.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "base/memory.h"
#include "base/progress.h"

/* ---- reading it ---- */

enum { LINE = 64, STEP = 4 * LINE };

/* A thread's part, whole or piece by piece, as `streams` places read in turn: each trains a prefetcher of its own. `ahead`: bytes to fetch
 * before they are needed, 0: the processor guesses well enough. `piece`: bytes, 0: whole. */
typedef struct way {
    int streams;
    size_t ahead, piece;
} way;
static const way ways[BENCHSEARCH_WAYS] = {{1, 0, 0}, {2, 0, 0}, {4, 0, 0}, {4, 512, 0}, {1, 2048, 0}, {4, 0, 4 << 20}};

#if defined(__x86_64__)
__attribute__((target("avx512f"))) static uint64_t read_avx512(const char *p, size_t part, way w)
{
    __m512i sum[4];
    for (int j = 0; j < 4; j++) sum[j] = _mm512_setzero_si512();
    for (size_t i = 0; i < part; i += STEP)
        for (int s = 0; s < w.streams; s++) {
            const char *at = p + (size_t)s * part + i;
            if (w.ahead)
                for (int j = 0; j < 4; j++) __builtin_prefetch(at + w.ahead + LINE * j);
            for (int j = 0; j < 4; j++)
                sum[j] = _mm512_or_si512(sum[j], _mm512_load_si512((const void *)(at + LINE * j)));
        }
    return (uint64_t)_mm512_reduce_or_epi64(
        _mm512_or_si512(_mm512_or_si512(sum[0], sum[1]), _mm512_or_si512(sum[2], sum[3])));
}

__attribute__((target("avx2"))) static uint64_t read_avx2(const char *p, size_t part, way w)
{
    __m256i sum[4];
    uint64_t out[4];
    for (int j = 0; j < 4; j++) sum[j] = _mm256_setzero_si256();
    for (size_t i = 0; i < part; i += STEP)
        for (int s = 0; s < w.streams; s++) {
            const char *at = p + (size_t)s * part + i;
            if (w.ahead)
                for (int j = 0; j < 4; j++) __builtin_prefetch(at + w.ahead + LINE * j);
            for (int j = 0; j < 8; j++)
                sum[j % 4] =
                    _mm256_or_si256(sum[j % 4], _mm256_load_si256((const __m256i *)(const void *)(at + LINE / 2 * j)));
        }
    _mm256_storeu_si256((__m256i *)(void *)out,
                        _mm256_or_si256(_mm256_or_si256(sum[0], sum[1]), _mm256_or_si256(sum[2], sum[3])));
    return out[0] | out[1] | out[2] | out[3];
}
#endif

static uint64_t read_plain(const char *p, size_t part, way w)
{
    uint64_t sum[4] = {0};
    for (size_t i = 0; i < part; i += STEP)
        for (int s = 0; s < w.streams; s++) {
            const uint64_t *at = (const void *)(p + (size_t)s * part + i);
            for (int j = 0; j < STEP / 8; j++) sum[j % 4] |= at[j];
        }
    return sum[0] | sum[1] | sum[2] | sum[3];
}

static uint64_t read_part(const char *p, size_t bytes, way w)
{
    size_t part = bytes / (size_t)w.streams / STEP * STEP;
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx512f")) return read_avx512(p, part, w);
    if (__builtin_cpu_supports("avx2")) return read_avx2(p, part, w);
#endif
    return read_plain(p, part, w);
}

double benchsearch_read(const void *p, size_t bytes, int how)
{
    uint64_t sum = 0;
    double start = iso_now();
#pragma omp parallel reduction(| : sum)
    {
        size_t n = (size_t)omp_get_num_threads(), me = (size_t)omp_get_thread_num();
        size_t from = bytes / n * me / LINE * LINE, to = me + 1 == n ? bytes : bytes / n * (me + 1) / LINE * LINE;
        const size_t piece = ways[how].piece ? ways[how].piece : to - from;
        for (; from < to; from += piece) sum |= read_part((const char *)p + from, piece < to - from ? piece : to - from, ways[how]);
    }
    __asm__ volatile("" : : "r"(sum)); /* somebody might look: nothing is left out */
    return iso_now() - start;
}

/* ---- a file ---- */

/* Bytes from ... to of the file, in pieces that a huge page holds. 0, or an errno. */
static int fetch(int fd, char *p, size_t from, size_t to)
{
    while (from < to) {
        size_t piece = to - from < ISO_HUGE_PAGE ? to - from : ISO_HUGE_PAGE;
        ssize_t got = pread(fd, p + from, piece, (off_t)from);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return errno;
        if (got == 0) return EIO; /* shorter than a moment ago */
        from += (size_t)got;
    }
    return 0;
}

iso_status benchsearch_read_file(const char *path, int how, double *seconds, int64_t *bytes, iso_error *err)
{
    struct stat about;
    int failed = 0, fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return iso_fail_errno(err, "cannot open %s", path);
    if (fstat(fd, &about) != 0) {
        iso_status status = iso_fail_errno(err, "cannot read %s", path);
        close(fd);
        return status;
    }
    size_t size = (size_t)about.st_size;
    double start = iso_now();
    char *p = iso_huge_alloc(size);
    if (!p) {
        close(fd);
        return iso_fail_memory(err);
    }
#pragma omp parallel reduction(max : failed)
    {
        size_t n = (size_t)omp_get_num_threads(), me = (size_t)omp_get_thread_num();
        size_t from = size / n * me / ISO_HUGE_PAGE * ISO_HUGE_PAGE,
               to = me + 1 == n ? size : size / n * (me + 1) / ISO_HUGE_PAGE * ISO_HUGE_PAGE;
        failed = fetch(fd, p, from, to);
    }
    close(fd);
    benchsearch_read(p, size, how);
    *seconds = iso_now() - start;
    *bytes = (int64_t)size;
    iso_huge_free(p, size);
    errno = failed;
    return failed ? iso_fail_errno(err, "cannot read %s", path) : ISO_OK;
}
