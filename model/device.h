/* device.h: where a plan computes, by the name a person gives: "cpu", "cuda" (TF32 in products), "cuda-float32". */
#ifndef ISO_MODEL_DEVICE_H
#define ISO_MODEL_DEVICE_H

#include "model/graph/backend.h"

#define ISO_DEVICES "cpu|cuda|cuda-float32"

/* ISO_E_UNSUPPORTED: not in this build, or not on this machine; the message says which. The first call for a GPU opens it. */
ISO_CHECK iso_status iso_device_find(const char *name, const iso_backend **out, iso_error *err);
/* The largest batch in [1, below) whose bytes are at most `room`; 0: none. `measure` gives the bytes of a batch, which grow
 * with it. */
typedef iso_status iso_batch_measure(void *ctx, int64_t batch, size_t *bytes, iso_error *err);
ISO_CHECK iso_status iso_device_fit(iso_batch_measure *measure, void *ctx, int64_t below, size_t room, int64_t *out,
                                    iso_error *err);
/* After memory ran out for a batch: "out of memory: training with a batch of 100 needs 150.20 GiB on the device, where 139.10
 * are free; the largest batch that fits is 92". `who` is what has a batch: "training". Leaves err alone, and returns
 * ISO_E_MEMORY, where that cannot be told. */
ISO_CHECK iso_status iso_device_full(const iso_backend *backend, const char *who, iso_batch_measure *measure, void *ctx,
                                     int64_t batch, iso_error *err);

#endif
