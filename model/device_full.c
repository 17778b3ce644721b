/* device_full.c: what to say when a device's memory is out. */
#include "model/device.h"

iso_status iso_device_fit(iso_batch_measure *measure, void *ctx, int64_t below, size_t room, int64_t *out, iso_error *err)
{
    int64_t fits = 0, not = below;
    while (fits + 1 < not) {
        int64_t batch = fits + (not - fits) / 2;
        size_t bytes = 0;
        iso_status status = measure(ctx, batch, &bytes, err);
        if (status != ISO_OK) return status;
        if (bytes <= room)
            fits = batch;
        else
            not = batch;
    }
    *out = fits;
    return ISO_OK;
}

iso_status iso_device_full(const iso_backend *backend, const char *who, iso_batch_measure *measure, void *ctx,
                           int64_t batch, iso_error *err)
{
    const size_t rounding = (size_t)64 << 20; /* allocations are rounded up, and libraries load code */
    size_t bytes = 0, room;
    int64_t fits = 0;
    if (!backend->device) return ISO_E_MEMORY;
    size_t free_now = backend->device->free_memory();
    room = free_now > rounding ? free_now - rounding : 0;
    iso_error local = {0};
    if (measure(ctx, batch, &bytes, &local) != ISO_OK || iso_device_fit(measure, ctx, batch, room, &fits, &local) != ISO_OK)
        return ISO_E_MEMORY;
    const double GiB = 1 << 30;
    if (fits == 0)
        return iso_fail(err, ISO_E_MEMORY, "out of memory: %s with a batch of %lld needs %.2f GiB on the device, where %.2f are free; "
                        "no batch fits", who, (long long)batch, (double)bytes / GiB, (double)free_now / GiB);
    return iso_fail(err, ISO_E_MEMORY, "out of memory: %s with a batch of %lld needs %.2f GiB on the device, where %.2f are free; "
                    "the largest batch that fits is %lld", who, (long long)batch, (double)bytes / GiB, (double)free_now / GiB,
                    (long long)fits);
}
