/* compile.c: the source of chains to kernels, by NVRTC, for the device at hand. A body is compiled once in a process. */
#include <nvrtc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "model/cuda/cuda.h"

typedef struct compiled {
    char *body;
    uint64_t hash;
    int number;              /* its kernel is chain_NUMBER */
    cudaKernel_t kernel;
} compiled;

static struct {
    compiled *at;
    size_t count, capacity;
} cache;

static const char *const common =
    ISO_CUDA_CHAIN_TEXT
    "__device__ __forceinline__ void load4(const float *from, float *to)\n"
    "{\n"
    "    const float4 q = *(const float4 *)from;\n"
    "    to[0] = q.x; to[1] = q.y; to[2] = q.z; to[3] = q.w;\n"
    "}\n"
    "__device__ __forceinline__ void store4(float *to, const float *from)\n"
    "{\n"
    "    *(float4 *)to = make_float4(from[0], from[1], from[2], from[3]);\n"
    "}\n"
    "__device__ __forceinline__ float sigmoid(float x)\n"
    "{\n"
    "    const float t = expf(-fabsf(x)); /* at most 1: nothing overflows on either side */\n"
    "    return (x < 0.0f ? t : 1.0f) / (1.0f + t);\n"
    "}\n"
    "__device__ __forceinline__ float softplus(float x)\n"
    "{\n"
    "    return (x > 0.0f ? x : 0.0f) + log1pf(expf(-fabsf(x)));\n"
    "}\n";

static uint64_t hash_of(const char *s)
{
    uint64_t h = 14695981039346656037u; /* FNV-1a */
    for (; *s; s++) h = (h ^ (unsigned char)*s) * 1099511628211u;
    return h;
}

static compiled *find(const char *body)
{
    const uint64_t hash = hash_of(body);
    for (size_t i = 0; i < cache.count; i++)
        if (cache.at[i].hash == hash && strcmp(cache.at[i].body, body) == 0) return &cache.at[i];
    return NULL;
}

const void *iso_cuda_compiled(const char *body)
{
    const compiled *c = find(body);
    return c ? (const void *)c->kernel : NULL;
}

/* The source of the cache's entries from `first` on. */
static char *source_of(size_t first)
{
    size_t size = strlen(common) + 1, used;
    for (size_t i = first; i < cache.count; i++) size += strlen(cache.at[i].body) + 128;
    char *source = iso_calloc(size, 1);
    if (!source) return NULL;
    used = (size_t)snprintf(source, size, "%s", common);
    for (size_t i = first; i < cache.count; i++)
        used += (size_t)snprintf(source + used, size - used, "extern \"C\" __global__ void __launch_bounds__(256) chain_%d(const chain p)\n%s",
                                 cache.at[i].number, cache.at[i].body);
    return source;
}

static iso_status fail_nvrtc(nvrtcResult r, nvrtcProgram program, iso_error *err)
{
    char log[256] = "";
    size_t size = 0;
    char *all = NULL;
    if (program && nvrtcGetProgramLogSize(program, &size) == NVRTC_SUCCESS && size > 1 && (all = iso_calloc(size + 1, 1)) &&
        nvrtcGetProgramLog(program, all) == NVRTC_SUCCESS)
        snprintf(log, sizeof log, ": %.200s", all);
    free(all);
    return iso_fail(err, ISO_E_INTERNAL, "the GPU's kernels cannot be compiled (%s)%s", nvrtcGetErrorString(r), log);
}

/* The device's own architecture where NVRTC knows it. A newer one takes the newest that it knows, as PTX, which the driver translates. */
static nvrtcResult choose_arch(int *arch, bool *own)
{
    int count = 0, known[64];
    const int device = 10 * iso_cuda_get()->major + iso_cuda_get()->minor;
    nvrtcResult r = nvrtcGetNumSupportedArchs(&count);
    if (r == NVRTC_SUCCESS && count > (int)(sizeof known / sizeof *known)) r = NVRTC_ERROR_INVALID_INPUT;
    if (r == NVRTC_SUCCESS) r = nvrtcGetSupportedArchs(known);
    if (r != NVRTC_SUCCESS) return r;
    *arch = 0;
    for (int i = 0; i < count; i++)
        if (known[i] <= device && known[i] > *arch) *arch = known[i];
    *own = *arch == device;
    return NVRTC_SUCCESS;
}

static iso_status to_binary(const char *source, char **out, iso_error *err)
{
    char text[40];
    nvrtcProgram program = NULL;
    size_t size = 0;
    char *binary = NULL;
    iso_status status = ISO_OK;
    int arch;
    bool own;
    nvrtcResult r = choose_arch(&arch, &own);
    if (r == NVRTC_SUCCESS) {
        snprintf(text, sizeof text, "--gpu-architecture=%s_%d", own ? "sm" : "compute", arch);
        r = nvrtcCreateProgram(&program, source, "chains.cu", 0, NULL, NULL);
    }
    const char *const options[] = {text, "--std=c++17"};
    if (r == NVRTC_SUCCESS) r = nvrtcCompileProgram(program, 2, options);
    if (r == NVRTC_SUCCESS) r = own ? nvrtcGetCUBINSize(program, &size) : nvrtcGetPTXSize(program, &size);
    if (r == NVRTC_SUCCESS && !(binary = iso_calloc(size, 1))) status = iso_fail_memory(err);
    if (r == NVRTC_SUCCESS && status == ISO_OK) r = own ? nvrtcGetCUBIN(program, binary) : nvrtcGetPTX(program, binary);
    if (r != NVRTC_SUCCESS) status = fail_nvrtc(r, program, err);
    if (program) (void)nvrtcDestroyProgram(&program);
    if (status == ISO_OK)
        *out = binary;
    else
        free(binary);
    return status;
}

/* The library stays loaded: its kernels are used to the end. */
static iso_status load(const char *binary, size_t first, iso_error *err)
{
    cudaLibrary_t library = NULL;
    cudaError_t e = cudaLibraryLoadData(&library, binary, NULL, NULL, 0, NULL, NULL, 0);
    for (size_t i = first; e == cudaSuccess && i < cache.count; i++) {
        char name[32];
        snprintf(name, sizeof name, "chain_%d", cache.at[i].number);
        e = cudaLibraryGetKernel(&cache.at[i].kernel, library, name);
    }
    if (e == cudaSuccess) return ISO_OK;
    (void)cudaGetLastError();
    if (library) (void)cudaLibraryUnload(library);
    return iso_fail(err, ISO_E_INTERNAL, "the GPU does not take its kernels: %s", cudaGetErrorString(e));
}

static iso_status add(const char *body, iso_error *err)
{
    static int number;
    if (!iso_grow(&cache.at, &cache.capacity, cache.count + 1, sizeof *cache.at)) return iso_fail_memory(err);
    char *own = strdup(body);
    if (!own) return iso_fail_memory(err);
    cache.at[cache.count++] = (compiled){.body = own, .hash = hash_of(body), .number = number++};
    return ISO_OK;
}

iso_status iso_cuda_compile(int count, char *const *body, iso_error *err)
{
    const size_t first = cache.count;
    iso_status status = ISO_OK;
    char *source = NULL, *binary = NULL;
    for (int i = 0; status == ISO_OK && i < count; i++)
        if (!find(body[i])) status = add(body[i], err);
    if (status == ISO_OK && cache.count == first) return ISO_OK;
    if (status == ISO_OK && !(source = source_of(first))) status = iso_fail_memory(err);
    if (status == ISO_OK) status = to_binary(source, &binary, err);
    if (status == ISO_OK) status = load(binary, first, err);
    free(source);
    free(binary);
    while (status != ISO_OK && cache.count > first) free(cache.at[--cache.count].body);
    return status;
}
