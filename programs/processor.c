/* Before anything else of a program runs: whether it has what it is to run with here. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "model/cpu/gemm.h"

static void __attribute__((constructor)) check_kernels(void)
{
    const char *name = getenv("ISO_CPU");
    if (!name || !*name || iso_gemm_isa_use(name)) return;
    dprintf(STDERR_FILENO, "%s: ISO_CPU=%.40s is none of amx, avx512, avx2 and portable that this processor can run: the best is used\n",
            program_invocation_short_name, name);
}

/* Whether this processor has what FAISS was compiled for (setup/setup.sh chooses by the machine at hand). Else the first of its
 * instructions would end the program without a word. */
#if defined(ISO_FAISS_AVX2) && defined(__x86_64__)
#include <cpuid.h>

/* Linked into only those programs that search. */
extern const char *faiss_get_last_error(void) __attribute__((weak));

static bool has_all(void)
{
    unsigned a, b, c, d;
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("popcnt") &&
           __get_cpuid(1, &a, &b, &c, &d) && c & bit_F16C;
}

/* Earlier than FAISS's own constructors, which have AVX2 in them too. */
static void __attribute__((constructor(101))) check_processor(void)
{
    if (!faiss_get_last_error || has_all()) return;
    dprintf(STDERR_FILENO, "%s: this program was built for a processor with AVX2, FMA and F16C, and this one lacks them: run `make` on "
            "this machine and use what it builds\n", program_invocation_short_name);
    _exit(1);
}
#endif
