/* What a program needs before anything else of it runs, libraries' constructors too: linked into every program, and called by the dynamic
 * loader (.preinit_array). Neither libc nor a sanitizer is set up yet: plain system calls only. And how many threads and heaps it has. */
#include <fcntl.h>
#include <malloc.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/host_threads.h"

/* Linked into only those programs that compute. */
extern int openblas_get_num_threads(void) __attribute__((weak));

/* A program may be started without standard input, output or error. Its next file would get their number, and a warning meant for stderr
 * would be written into a database. What is opened for reading only is at its end, and writing to it fails as to what is closed. */
static void reserve_standard_files(void)
{
    for (int fd = 0; fd < 3; fd++)
        if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", O_RDONLY) < 0) (void)open("/", O_RDONLY | O_DIRECTORY);
}

/* OpenBLAS's constructor takes a buffer for each thread (base/blas.h), and never ends where there is no room. */
static void check_room(const char *program, char **environment)
{
    enum { MOST = 64, BUFFER = 128 << 20, REST = 4 << 20 /* of other constructors */ };
    long threads = sysconf(_SC_NPROCESSORS_CONF);
    for (char **e = environment; *e; e++)
        if (strncmp(*e, "OMP_NUM_THREADS=", 16) == 0) {
            const long asked = strtol(*e + 16, NULL, 10);
            if (asked > 0 && asked < threads) threads = asked;
        }
    if (threads < 1 || threads > MOST) threads = MOST;
    const size_t room = (size_t)threads * BUFFER + REST;
    void *p = mmap(NULL, room, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p != MAP_FAILED) {
        munmap(p, room);
        return;
    }
    char line[512];
    const int n = snprintf(line, sizeof line, "%.200s: out of memory: OpenBLAS needs %zu MiB of address space to start with, and the system refuses "
                           "them (ulimit -v, ulimit -d): allow more, or set OMP_NUM_THREADS to fewer than %ld threads\n", program, room >> 20, threads);
    if (write(STDERR_FILENO, line, (size_t)n) == n) _exit(1);
    _exit(1);
}

static void start(int argc, char **argv, char **environment)
{
    const char *name = argc > 0 ? argv[0] : "isoface", *slash = strrchr(name, '/');
    reserve_standard_files();
    if (openblas_get_num_threads) check_room(slash ? slash + 1 : name, environment);
}

__attribute__((section(".preinit_array"), used)) static void (*const at_start)(int, char **, char **) = start;

/* Where nobody says how many threads there are to be, no more than a container's quota has time for: they would wait for those that it has stopped. */
__attribute__((constructor)) static void limit_threads(void)
{
    const int most = getenv("OMP_NUM_THREADS") ? 0 : iso_host_threads();
    if (most > 0 && most < omp_get_max_threads()) omp_set_num_threads(most);
}

/* glibc begins a heap for a thread when threads happen to meet, and reserves 64 MiB of addresses for it. Where these are rationed they are what a
 * batch that was said to fit then lacks. */
__attribute__((constructor)) static void limit_heaps(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_AS, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY) (void)mallopt(M_ARENA_MAX, 1);
}
