/* engine.h: one convolution by cuDNN's graph interface: an engine of those that it proposes, and a plan that runs it. One thread at a time. */
#ifndef ISO_CUDA_ENGINE_H
#define ISO_CUDA_ENGINE_H

#include <cudnn.h>

#include "model/graph/graph.h"

typedef struct iso_cuda_shapes { /* x [B, H, W, C], w [O, KH, KW, C], y [B, OH, OW, O] */
    iso_shape x, w, y;
    int stride, pad;
} iso_cuda_shapes;

/* What the plan is for: an open device, or the properties of one that is not here, for a plan that cannot be run. */
typedef struct iso_cuda_target {
    cudnnHandle_t handle;
    cudnnBackendDescriptor_t properties; /* CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR, cuDNN 9.8; NULL where there is a handle */
} iso_cuda_target;

enum { ISO_CUDA_DESCRIPTORS = 12 };
typedef struct iso_cuda_engine {
    cudnnBackendDescriptor_t made[ISO_CUDA_DESCRIPTORS], plan; /* what the plan is made of lives as long as it does */
    int count;
    size_t workspace;    /* bytes, of the device, aligned to 256 */
    bool same_bits;      /* every run gives the same */
    bool tensor_cores;
    int64_t index;       /* cuDNN's number of the engine, among those for the operation */
} iso_cuda_engine;

/* The memory of a convolution's tensors, of the device, aligned to 16 bytes. */
typedef struct iso_cuda_places {
    void *x, *w, *y, *workspace;
} iso_cuda_places;

/* Seconds that a plan takes, negative where it fails. */
typedef double iso_cuda_measure(const iso_cuda_engine *e, void *context);

/* The first engine that cuDNN's heuristics propose, or of the first few the fastest by `measure` (NULL: the first), among those that give the same
 * bits every time; among all where none does. conv writes y, conv_x x, conv_w w. tf32: tensor cores may read 19 bits of a number; never 16.
 * A workspace takes 1 GiB at most. On failure nothing is left, and cuDNN's last error says why. */
cudnnStatus_t iso_cuda_engine_choose(const iso_cuda_target *on, iso_op op, const iso_cuda_shapes *s, bool tf32, iso_cuda_measure *measure,
                                     void *context, iso_cuda_engine *out);
cudnnStatus_t iso_cuda_engine_run(cudnnHandle_t handle, const iso_cuda_engine *e, const iso_cuda_places *at);
void iso_cuda_engine_free(iso_cuda_engine *e);

#endif
