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
#ifdef ISO_CUDA
    if (strcmp(name, "cuda") == 0) return iso_backend_cuda(true, out, err);
    if (strcmp(name, "cuda-float32") == 0) return iso_backend_cuda(false, out, err);
#endif
    return iso_fail(err, ISO_E_UNSUPPORTED, "--device %s is not in this build: use --device cpu", name);
}
