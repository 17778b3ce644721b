/* device_full.c: whether a batch fits, and what to say when it does not. */
#include <stdio.h>

#include "base/host_memory.h"
#include "model/device.h"

size_t iso_device_room(const iso_backend *backend)
{
    /* allocations are rounded up; on a device libraries load their code when it first runs, after the plan has taken its memory */
    const size_t rounding = (size_t)(backend->device ? 512 : 64) << 20;
    const size_t now = backend->device ? backend->device->free_memory() : iso_host_memory();
    return now == SIZE_MAX ? now : now > rounding ? now - rounding : 0;
}

iso_status iso_device_fit(iso_batch_measure *measure, void *ctx, int64_t below, size_t room, int64_t *out, iso_error *err)
{
    int64_t fits = 0, not = below;
    iso_status refused = ISO_OK;
    while (fits + 1 < not) {
        int64_t batch = fits + (not - fits) / 2;
        size_t bytes = 0;
        const iso_status status = measure(ctx, batch, &bytes, err);
        if (status != ISO_OK && status != ISO_E_UNSUPPORTED) return status;
        if (status == ISO_OK && bytes <= room)
            fits = batch;
        else
            not = batch, refused = status;
    }
    if (!fits && refused) return refused;
    *out = fits;
    return ISO_OK;
}

/* tell: err then says that the batch needs more than `room`. */
static iso_status compare(const iso_backend *backend, const char *who, iso_batch_measure *measure, void *ctx, int64_t batch,
                          size_t room, bool *tell, iso_error *err)
{
    const double GiB = 1 << 30;
    size_t bytes = 0;
    int64_t fits = 0;
    *tell = false;
    iso_error why = {0};
    const iso_status first = measure(ctx, batch, &bytes, &why);
    if (first != ISO_OK && first != ISO_E_UNSUPPORTED) return iso_fail(err, first, "%s", why.message);
    if (first == ISO_OK && bytes <= room) return ISO_OK;
    const iso_status status = iso_device_fit(measure, ctx, batch, room, &fits, err);
    if (status != ISO_OK) return status;
    if (first != ISO_OK && !fits) return iso_fail(err, first, "%s", why.message);
    if (first != ISO_OK)
        return iso_fail(err, first, "%s with a batch of %lld: %.300s; the largest batch that fits is %lld", who, (long long)batch, why.message, (long long)fits);
    char most[64] = "no batch fits";
    if (fits) snprintf(most, sizeof most, "the largest batch that fits is %lld", (long long)fits);
    *tell = true;
    return iso_fail(err, ISO_E_MEMORY, "out of memory: %s with a batch of %lld needs %.2f GiB %s, where %.2f are free; %s", who,
                    (long long)batch, (double)bytes / GiB, backend->device ? "on the device" : "of memory", (double)room / GiB, most);
}

iso_status iso_device_check(const iso_backend *backend, const char *who, iso_batch_measure *measure, void *ctx, int64_t batch,
                            iso_error *err)
{
    const size_t room = iso_device_room(backend);
    iso_status status = backend->device && backend->device->check ? backend->device->check(err) : ISO_OK; /* a GPU that fails has no memory either */
    bool tell;
    if (status != ISO_OK) return status;
    return room == SIZE_MAX ? ISO_OK : compare(backend, who, measure, ctx, batch, room, &tell, err);
}

iso_status iso_device_full(const iso_backend *backend, const char *who, iso_batch_measure *measure, void *ctx, int64_t batch,
                           iso_error *err)
{
    iso_error local = {0};
    bool tell;
    if (compare(backend, who, measure, ctx, batch, iso_device_room(backend), &tell, &local) != ISO_OK && tell && err) *err = local;
    return ISO_E_MEMORY;
}
