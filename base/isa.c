/* isa.c: see isa.h. */
#include "base/isa.h"

#include <stdlib.h>
#include <string.h>
#if defined(__x86_64__)
#include <cpuid.h>
#endif
#if defined(__x86_64__) && defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

static const char *const names[] = {"portable", "avx2", "avx512f", "avx512", "avx512vnni", "amx"};
static _Atomic int most = -1; /* an iso_isa; -1: not looked yet. Asking a virtual processor what it has takes longer than a small scan. */

iso_isa iso_isa_of_processor(void)
{
#if defined(__x86_64__)
    enum { TILES = 1 << 24 | 1 << 22 | 1 << 25 }; /* the unit, bfloat16, bytes */
    unsigned a, b, c, d; /* not every compiler's __builtin_cpu_supports knows F16C and these */
    __builtin_cpu_init();
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma") || !__builtin_cpu_supports("popcnt")) return ISO_ISA_PORTABLE;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_F16C)) return ISO_ISA_PORTABLE;
    if (!__builtin_cpu_supports("avx512f")) return ISO_ISA_AVX2;
    if (!__builtin_cpu_supports("avx512bw") || !__builtin_cpu_supports("avx512dq") || !__builtin_cpu_supports("avx512vl")) return ISO_ISA_AVX512F;
    if (!__builtin_cpu_supports("avx512vnni")) return ISO_ISA_AVX512;
    return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (d & TILES) == TILES ? ISO_ISA_AMX : ISO_ISA_AVX512VNNI;
#else
    return ISO_ISA_PORTABLE;
#endif
}

static bool tiles_allowed(void)
{
#if defined(__x86_64__) && defined(__linux__)
    enum { REQUEST_PERMISSION = 0x1023, TILE_DATA = 18 };
    static _Atomic int known; /* 0: not asked yet, 1: no, 2: yes */
    if (known == 0) known = syscall(SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA) == 0 ? 2 : 1;
    return known == 2;
#else
    return false;
#endif
}

bool iso_isa_use(const char *name)
{
    int isa = (int)iso_isa_of_processor();
    while (name && isa >= 0 && strcmp(name, names[isa]) != 0) isa--;
    if (isa < 0 || (name && isa == ISO_ISA_AMX && !tiles_allowed())) return false;
    most = isa;
    return true;
}

bool iso_isa_has(iso_isa what)
{
    if (most < 0 && !iso_isa_use(getenv("ISO_CPU"))) (void)iso_isa_use(NULL);
    return (int)what <= most && (what < ISO_ISA_AMX || tiles_allowed());
}
