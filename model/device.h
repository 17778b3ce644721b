/* device.h: where a plan computes, by the name a person gives: "cpu", "cuda" (TF32 in products), "cuda-float32"; and whether
 * what it needs fits there. */
#ifndef ISO_MODEL_DEVICE_H
#define ISO_MODEL_DEVICE_H

#include "model/graph/backend.h"

#define ISO_DEVICES "cpu|cuda|cuda-float32"

/* ISO_E_UNSUPPORTED: not in this build, or not on this machine; the message says which. The first call for a GPU opens it. */
ISO_CHECK iso_status iso_device_find(const char *name, const iso_backend **out, iso_error *err);

/* Bytes that can still be taken where a backend computes, less what allocations are rounded up by: a GPU's free memory, or the
 * process's (base/host_memory.h). SIZE_MAX where that cannot be told. */
size_t iso_device_room(const iso_backend *backend);
/* The largest batch in [1, below) whose bytes are at most `room`; 0: none. `measure` gives the bytes of a batch, which grow
 * with it; it plans and takes nothing. ISO_E_UNSUPPORTED: the backend's libraries cannot do so large a batch, which does not fit then. */
typedef iso_status iso_batch_measure(void *ctx, int64_t batch, size_t *bytes, iso_error *err);
ISO_CHECK iso_status iso_device_fit(iso_batch_measure *measure, void *ctx, int64_t below, size_t room, int64_t *out,
                                    iso_error *err);
/* Before memory is taken for a batch. ISO_E_MEMORY where there is too little: "out of memory: training with a batch of 100
 * needs 150.20 GiB on the device, where 139.10 are free; the largest batch that fits is 92" (on the CPU: "of memory").
 * `who` is what has a batch: "training". ISO_E_UNSUPPORTED where it is too large for something else, with the largest that is not. Other errors are measure's. */
ISO_CHECK iso_status iso_device_check(const iso_backend *backend, const char *who, iso_batch_measure *measure, void *ctx,
                                      int64_t batch, iso_error *err);
/* The same after memory ran out all the same, and what had been taken was given back. Always ISO_E_MEMORY. Leaves err, which
 * says what could not be had, alone where it would all seem to fit. */
iso_status iso_device_full(const iso_backend *backend, const char *who, iso_batch_measure *measure, void *ctx, int64_t batch,
                           iso_error *err);

#endif
