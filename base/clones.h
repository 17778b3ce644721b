/* clones.h: plain loops compiled for several processors. */
#ifndef ISO_BASE_CLONES_H
#define ISO_BASE_CLONES_H

/* Before a function: it is compiled three times, and the processor picks one when the program starts. Not with the
 * sanitizers (their runtime is not ready when the choice is made) and not where the compiler lacks it. */
#if defined(__x86_64__) && defined(__linux__) && defined(__GNUC__) && !defined(__clang__) && \
    !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define ISO_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define ISO_CLONES
#endif

#endif
