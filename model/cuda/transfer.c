/* transfer.c: between the host and the device. What is put is copied into a ring of page-locked memory first, so that the
 * caller goes on at once and the device fetches it when it gets there. */
#include <string.h>

#include "model/cuda/cuda.h"

enum { PARTS = 8, PART = 4 << 20 };

static struct {
    char *memory;
    int part;               /* the one in use */
    size_t used;            /* bytes of it */
    cudaEvent_t left[PARTS]; /* when the device has fetched what was in a part */
} ring;

iso_status iso_cuda_transfer_open(iso_error *err)
{
    void *memory = NULL;
    const cudaError_t e = cudaMallocHost(&memory, (size_t)PARTS * PART);
    if (e == cudaErrorMemoryAllocation) {
        (void)cudaGetLastError();
        return iso_fail(err, ISO_E_MEMORY, "out of memory: there are no %d MiB of page-locked memory for a GPU", PARTS * (PART >> 20));
    }
    ring.memory = memory;
    ring.part = 0;
    ring.used = 0;
    bool ok = iso_cuda_ok(e, "opening");
    for (int i = 0; i < PARTS; i++) ok = ok && iso_cuda_ok(cudaEventCreateWithFlags(&ring.left[i], cudaEventDisableTiming), "opening");
    return ok ? ISO_OK : iso_fail(err, ISO_E_INTERNAL, "%s", iso_cuda_get()->failure.message);
}

/* On to the next part, as soon as the device has fetched what was in it. An event that was never recorded counts as done. */
static bool next_part(void)
{
    if (!iso_cuda_ok(cudaEventRecord(ring.left[ring.part], iso_cuda_get()->stream), "a transfer")) return false;
    ring.part = (ring.part + 1) % PARTS;
    ring.used = 0;
    return iso_cuda_ok(cudaEventSynchronize(ring.left[ring.part]), "a transfer");
}

void iso_cuda_put(void *to, const void *host, size_t bytes)
{
    const size_t ALIGN = 64;
    for (size_t done = 0; done < bytes;) {
        if (ring.used >= PART && !next_part()) return;
        size_t now = bytes - done < PART - ring.used ? bytes - done : PART - ring.used;
        char *staged = ring.memory + (size_t)ring.part * PART + ring.used;
        memcpy(staged, (const char *)host + done, now);
        cudaError_t e = cudaMemcpyAsync((char *)to + done, staged, now, cudaMemcpyHostToDevice, iso_cuda_get()->stream);
        if (!iso_cuda_ok(e, "a transfer")) return;
        ring.used += (now + ALIGN - 1) / ALIGN * ALIGN;
        done += now;
    }
}

void iso_cuda_get_bytes(void *host, const void *from, size_t bytes)
{
    cudaStream_t stream = iso_cuda_get()->stream;
    if (iso_cuda_ok(cudaMemcpyAsync(host, from, bytes, cudaMemcpyDeviceToHost, stream), "fetching results") &&
        iso_cuda_ok(cudaStreamSynchronize(stream), "computing"))
        return;
    memset(host, 0xff, bytes); /* NaN: nothing that looks like a result */
}
