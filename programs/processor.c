/* Before anything else of a program runs: whether it has what it is to run with here. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/isa.h"

static void __attribute__((constructor)) check_kernels(void)
{
    const char *name = getenv("ISO_CPU");
    if (!name || !*name || iso_isa_use(name)) return;
    dprintf(STDERR_FILENO, "%s: ISO_CPU=%.40s is none of amx, avx512vnni, avx512, avx512f, avx2 and portable that this processor can run: the best is used\n",
            program_invocation_short_name, name);
}

/* Whether this processor has what FAISS was compiled for (setup/setup.sh chooses by the machine at hand). Else the first of its
 * instructions would end the program without a word. */
#if defined(ISO_FAISS_AVX2) && defined(__x86_64__)
/* Linked into only those programs that search. */
extern const char *faiss_get_last_error(void) __attribute__((weak));

/* Earlier than FAISS's own constructors, which have AVX2 in them too. */
static void __attribute__((constructor(101))) check_processor(void)
{
    if (!faiss_get_last_error || iso_isa_of_processor() >= ISO_ISA_AVX2) return;
    dprintf(STDERR_FILENO, "%s: this program was built for a processor with AVX2, FMA and F16C, and this one lacks them: run `make` on "
            "this machine and use what it builds\n", program_invocation_short_name);
    _exit(1);
}
#endif
