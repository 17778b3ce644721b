/* device.c: devices by name. Only programs call it, so only they load a GPU's libraries. */
#include "model/device.h"

#include <string.h>

#ifdef ISO_CUDA
#include "model/cuda/backend.h"
#endif

iso_status iso_device_find(const char *name, const iso_backend **out, iso_error *err)
{
    if (strcmp(name, "cpu") == 0) {
        *out = iso_backend_cpu();
        return ISO_OK;
    }
    const bool cuda = strcmp(name, "cuda") == 0, exact = strcmp(name, "cuda-float32") == 0;
    if (!cuda && !exact) return iso_fail(err, ISO_E_ARGUMENT, "there is no device '%s': one of " ISO_DEVICES, name);
#ifdef ISO_CUDA
    return iso_backend_cuda(cuda, out, err);
#else
    return iso_fail(err, ISO_E_UNSUPPORTED, "--device %s is not in this build: build it with `make CUDA=1`, or use --device cpu", name);
#endif
}
