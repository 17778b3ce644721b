/* fused.h: chains of elementwise ops for kernels whose results they follow (iso_call.tail). */
#ifndef ISO_CPU_FUSED_H
#define ISO_CPU_FUSED_H

#include "model/cpu/elementwise.h"
#include "model/graph/backend.h"

enum {
    ISO_CHAIN_TILE = 1024, /* elements at a time, at most */
    ISO_CHAIN_VALUES = ISO_FUSED_MAX_STEPS + ISO_FUSED_MAX_INPUTS,
    ISO_CHAIN_ROOM = 16 * ISO_CHAIN_TILE /* numbers of all buffers: few chains need more of them at once, and have shorter tiles then */
};

/* A chain that one thread runs over parts of its elements, made once for all of them. It lies on the stack, also of a host's thread. */
typedef struct iso_chain {
    const iso_fused *f; /* NULL: there is none, and running it does nothing */
    int64_t tile;       /* elements at a time */
    int64_t stride[ISO_FUSED_MAX_INPUTS][ISO_MAX_DIMS]; /* over the iteration axes, 0 where an input broadcasts */
    int from[ISO_CHAIN_VALUES]; /* fused.c: enum source */
    int slot[ISO_CHAIN_VALUES]; /* of values that have a buffer */
    int slots;
    int64_t room;               /* numbers of a slot */
    const iso_pass *by[ISO_FUSED_MAX_STEPS]; /* what does a step, and those before it that are done with it; NULL: it is done with a later one */
    int operand[ISO_FUSED_MAX_STEPS][ISO_PASS_INPUTS]; /* the values that this reads */
    float number[ISO_FUSED_MAX_STEPS][ISO_PASS_OPS];   /* and its ops' attr.f */
    _Alignas(64) float buffer[ISO_CHAIN_ROOM];
} iso_chain;

/* f may be NULL. Runs will begin at multiples of `start` elements; 0: at multiples of `tile`, or at 0. */
void iso_chain_begin(iso_chain *c, const iso_fused *f, int64_t start);
/* Elements first ... last-1. */
void iso_chain_run(iso_chain *c, int64_t first, int64_t last);

#endif
