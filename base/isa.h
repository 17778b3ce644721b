/* isa.h: which instructions kernels may use: all that the processor has, unless ISO_CPU in the environment or a test asks for less.
 *
 * A kernel that is written for one of these asks here, and nowhere else, each time it is chosen. What is compiled several times instead (clones.h)
 * is chosen by the dynamic linker, and OpenBLAS and FAISS choose by themselves: these do not heed ISO_CPU. */
#ifndef ISO_BASE_ISA_H
#define ISO_BASE_ISA_H

#include <stdbool.h>

/* Each has all that those before it have; so are processors made, and one that lacks something in between counts for less.
 * In ISO_CPU: portable, avx2, avx512f, avx512, avx512vnni, amx. */
typedef enum iso_isa {
    ISO_ISA_PORTABLE,
    ISO_ISA_AVX2,       /* and FMA, F16C and POPCNT */
    ISO_ISA_AVX512F,    /* of AVX-512 the first part alone */
    ISO_ISA_AVX512,     /* and BW, DQ and VL */
    ISO_ISA_AVX512VNNI, /* products of bytes and of 16 bits */
    ISO_ISA_AMX         /* the tile unit, with products of bytes and of bfloat16 */
} iso_isa;

/* Whether kernels may use it; the tile unit: if the system lets this process, which is asked for it then. The processor and the environment are
 * looked at once. An ISO_CPU that is none of the words, or more than there is, counts for none: programs say so (programs/processor.c). Any thread. */
bool iso_isa_has(iso_isa what);

/* From now on kernels use that and nothing newer (NULL: all there is), whatever ISO_CPU says. False, and no change, where it is none of the words
 * or not there. For programs before they begin, and for tests: not while anything computes, nor between the making of what a kernel lays out and
 * its use. */
bool iso_isa_use(const char *name);

/* What the processor has, whatever is asked for; not whether the system lets a process use the tile unit. */
iso_isa iso_isa_of_processor(void);

#endif
