/* backend.h: the GPU as a backend. */
#ifndef ISO_CUDA_BACKEND_H
#define ISO_CUDA_BACKEND_H

#include "model/graph/backend.h"

/* float; matrix products and convolutions in TF32 (10 bits of mantissa, sums in float) or in float. Opens the first
 * device that CUDA shows; ISO_E_UNSUPPORTED when there is none that can be used. Both kinds share the device. */
ISO_CHECK iso_status iso_backend_cuda(bool tf32, const iso_backend **out, iso_error *err);

#endif
