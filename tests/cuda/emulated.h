/* emulated.h: what the emulator's files share, and what a test can ask of it. */
#ifndef ISO_EMULATED_H
#define ISO_EMULATED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

/* --- for tests */
void emulated_memory(size_t limit); /* of the device, in bytes; 1 GiB at first */
extern int emulated_graph_launches;
extern int emulated_graph_works, emulated_graph_longest; /* of the last graph; of these the most that wait for each other */
extern bool emulated_refusal;       /* cuDNN does not run what it proposed */
extern int emulated_engine;         /* the number of cuDNN's engine that ran last; emulated_cudnn.c says what is told of them */
extern bool emulated_bad_capture;   /* what is captured becomes no graph */
extern bool emulated_bad_branches;  /* nor one with branches */
extern bool emulated_old_nvrtc;     /* NVRTC knows no architecture newer than 8.0 */

/* --- for the emulator */
#define REQUIRE(condition) \
    do { \
        if (!(condition)) { \
            fprintf(stderr, "emulator: %s:%d: %s does not hold\n", __func__, __LINE__, #condition); \
            abort(); \
        } \
    } while (0)

enum { ARGUMENT = 2048 };
typedef struct argument {
    char bytes[ARGUMENT];
} argument;

/* What the next work uses, as the only one at a time. */
extern const void *emulated_uses;
/* Works of the stream: a call with a copy of its argument; memory filled. */
void emulated_ask(void (*call)(const argument *), const void *from, size_t bytes);
void emulated_fill(void *to, int value, size_t bytes);
bool emulated_is_device(const void *p);
bool emulated_is_capturing(void);
float emulated_taken(float x, bool tf32); /* what tensor cores read of it */

#endif
