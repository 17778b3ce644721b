/* The engines that the cuDNN at hand proposes for an H200, which need not be there: every convolution of the faces' network has one of tensor cores
 * for TF32 and one without for float32, that gives the same bits every time. Exit code 77: this cuDNN plans for no device but its own. */
#include <stdio.h>
#include <string.h>

#include "model/cuda/engine.h"

static int failures;

#if CUDNN_VERSION >= 90800
static const char h200[] =
    "{\"cudaDeviceId\":0,\"deviceVer\":900,\"driverVer\":13000,\"maxGridSize\":[2147483647,65535,65535],\"maxBlockSize\":[1024,1024,64],"
    "\"regsPerBlock\":65536,\"multiProcessorCount\":132,\"warpSize\":32,\"maxSharedMemoryPerBlock\":49152,\"maxSharedMemoryPerBlockOptin\":232448,"
    "\"reservedSharedMemoryPerBlock\":1024,\"maxRegistersPerSM\":65536,\"maxCtasPerSM\":32,\"maxThreadsPerBlock\":1024,\"maxThreadsPerSM\":2048,"
    "\"pciDeviceId\":0,\"isTccDriver\":0,\"supportCoopLaunch\":1,\"smClockRateKHz\":1980000,\"memClockRateKHz\":3201000,\"l2CacheSize\":62914560,"
    "\"totalGlobalMem\":150000000000,\"deviceName\":\"NVIDIA H200\"}";

static bool describe(cudnnBackendDescriptor_t *out)
{
    return cudnnBackendCreateDescriptor(CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR, out) == CUDNN_STATUS_SUCCESS &&
           cudnnBackendSetAttribute(*out, CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION, CUDNN_TYPE_CHAR, sizeof h200 - 1, h200) == CUDNN_STATUS_SUCCESS &&
           cudnnBackendFinalize(*out) == CUDNN_STATUS_SUCCESS;
}
#else
static bool describe(cudnnBackendDescriptor_t *out)
{
    *out = NULL;
    return false;
}
#endif

enum { COLOURS = 4 };

typedef struct layer {
    int size, inputs, outputs, kernel, stride, pad; /* x [B, size, size, inputs] */
} layer;

static double number_of(const iso_cuda_engine *e, void *context) /* the third is the fastest */
{
    (void)e;
    return ++*(int *)context == 3 ? 1 : 2;
}

static void check(const iso_cuda_target *on, iso_op op, const layer *l, int64_t batch, bool tf32, bool measure)
{
    const int64_t out = (l->size + 2 * l->pad - l->kernel) / l->stride + 1;
    const iso_cuda_shapes s = {iso_shape4(batch, l->size, l->size, l->inputs), iso_shape4(l->outputs, l->kernel, l->kernel, l->inputs),
                               iso_shape4(batch, out, out, l->outputs), l->stride, l->pad};
    iso_cuda_engine e;
    int measured = 0;
    char why[256] = "";
    const cudnnStatus_t status = iso_cuda_engine_choose(on, op, &s, tf32, measure ? number_of : NULL, &measured, &e);
    /* with colours on one side the heuristics of some cuDNN prefer an engine without tensor cores */
    const bool cores = status == CUDNN_STATUS_SUCCESS && (e.tensor_cores == tf32 || (tf32 && l->inputs <= COLOURS));
    if (status == CUDNN_STATUS_SUCCESS && e.same_bits && cores && (!measure || measured >= 3)) {
        iso_cuda_engine_free(&e);
        return;
    }
    if (status == CUDNN_STATUS_SUCCESS) snprintf(why, sizeof why, "engine %lld%s%s, %d measured", (long long)e.index, e.same_bits ? "" : ", not the same bits", e.tensor_cores ? ", tensor cores" : "", measured);
    else cudnnGetLastErrorString(why, sizeof why);
    printf("FAIL  %s %d x %d x %d, %d outputs, %s: %s\n", iso_op_name(op), l->size, l->size, l->inputs, l->outputs, tf32 ? "TF32" : "float32", why);
    if (status == CUDNN_STATUS_SUCCESS) iso_cuda_engine_free(&e);
    failures++;
}

int main(void)
{
    /* celeba of width 128; its first and last layer meet colours */
    static const layer layers[] = {{64, 3, 128, 5, 2, 0},   {30, 128, 256, 5, 2, 0},  {13, 256, 512, 5, 2, 0}, {5, 512, 1024, 5, 2, 0},
                                   {16, 512, 1024, 4, 2, 1}, {32, 256, 512, 4, 2, 1}, {64, 128, 256, 4, 2, 1}};
    static const iso_op ops[] = {ISO_OP_CONV, ISO_OP_CONV_X, ISO_OP_CONV_W};
    iso_cuda_target on = {.handle = NULL};
    if (!describe(&on.properties)) {
        puts("skipped: cuDNN is older than 9.8, and plans for no device that is not there");
        return 77;
    }
    for (size_t i = 0; i < sizeof layers / sizeof *layers; i++)
        for (size_t k = 0; k < sizeof ops / sizeof *ops; k++)
            for (int tf32 = 0; tf32 < 2; tf32++) check(&on, ops[k], &layers[i], 100, tf32, false);
    check(&on, ISO_OP_CONV, &layers[6], 100, true, true);
    (void)cudnnBackendDestroyDescriptor(on.properties);
    return failures > 0;
}
