/* emulator.c: as much of the CUDA runtime, cuBLAS, cuDNN and NVRTC as model/cuda uses, on the host: so that its code and its
 * kernels are tested where there is no GPU. Slow, and hostile:
 *
 * - What is asked of a stream is done as late as possible: when something waits for it. What reads results without waiting,
 *   or reuses memory that a transfer has yet to read, gets garbage.
 * - Device memory can only be touched while the stream works, and is full of NaN at first.
 * - A block's threads run one after the other, in changing order, and must all reach the same barriers.
 * - While a stream is captured nothing may wait, and no memory may be taken.
 * - A graph's nodes are done in an order that only its edges bind: mostly the last that may come first.
 *
 * TF32 products cut their operands off, as tensor cores read them, so that the kind of product asked for can be seen. */
#include "tests/cuda/emulator.h"

#include <cuda_runtime_api.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <ucontext.h>

#include "model/cuda/capture.h"
#include "tests/cuda/emulated.h"

/* --- blocks and threads */

enum { MOST_THREADS = 1024, STACK = 64 << 10 };
typedef void kernel(argument);

uint3 iso_emulated_thread, iso_emulated_block;
dim3 iso_emulated_grid;

static struct {
    ucontext_t scheduler, thread[MOST_THREADS];
    char *stack;
    bool done[MOST_THREADS], waits[MOST_THREADS], barriers, in_fiber;
    int current;
    kernel *kernel;
    const argument *argument;
} sm;

void iso_emulated_barrier(void)
{
    REQUIRE(sm.in_fiber);
    const int me = sm.current;
    sm.barriers = sm.waits[me] = true;
    swapcontext(&sm.thread[me], &sm.scheduler);
}

static void fiber(void)
{
    sm.kernel(*sm.argument);
    sm.done[sm.current] = true;
}

static void enter(int t, dim3 block)
{
    sm.current = t;
    iso_emulated_thread = (uint3){(unsigned)t % block.x, (unsigned)t / block.x, 0};
}

static void run_block(dim3 block, bool reverse)
{
    const int n = (int)(block.x * block.y);
    for (int t = 0; t < n; t++) {
        sm.done[t] = sm.waits[t] = false;
        getcontext(&sm.thread[t]);
        sm.thread[t].uc_stack.ss_sp = sm.stack + (size_t)t * STACK;
        sm.thread[t].uc_stack.ss_size = STACK;
        sm.thread[t].uc_link = &sm.scheduler;
        makecontext(&sm.thread[t], fiber, 0);
    }
    for (int left = n; left > 0;) {
        int waiting = 0, ended = 0;
        for (int k = 0; k < n; k++) {
            const int t = reverse ? n - 1 - k : k;
            if (sm.done[t]) continue;
            enter(t, block);
            sm.waits[t] = false;
            swapcontext(&sm.scheduler, &sm.thread[t]);
            waiting += sm.waits[t];
            ended += sm.done[t];
        }
        REQUIRE(waiting == 0 || ended == 0); /* a barrier that only some threads reach */
        left -= ended;
    }
}

static void run_kernel(kernel *k, dim3 grid, dim3 block, const argument *a)
{
    static int launches;
    const int n = (int)(block.x * block.y);
    REQUIRE(grid.x >= 1 && grid.y == 1 && grid.z == 1 && block.z == 1 && n >= 1 && n <= MOST_THREADS);
    if (!sm.stack) REQUIRE((sm.stack = malloc((size_t)MOST_THREADS * STACK)));
    sm.kernel = k;
    sm.argument = a;
    sm.barriers = true;
    iso_emulated_grid = grid;
    launches++;
    for (unsigned b = 0; b < grid.x; b++) {
        iso_emulated_block = (uint3){launches % 2 ? b : grid.x - 1 - b, 0, 0};
        if (sm.barriers) {
            sm.barriers = false;
            sm.in_fiber = true;
            run_block(block, launches % 2);
            sm.in_fiber = false;
            continue;
        }
        for (int t = 0; t < n; t++) { /* the first block had no barrier */
            enter(t, block);
            k(*a);
        }
    }
}

/* --- device memory: one reservation, closed except while the stream works */

static struct {
    char *base;
    size_t size, next, used, limit;
} memory = {.size = (size_t)256 << 30, .limit = (size_t)1 << 30};

void emulated_memory(size_t limit)
{
    memory.limit = limit;
}

static void open_memory(bool open)
{
    if (memory.next) REQUIRE(mprotect(memory.base, memory.next, open ? PROT_READ | PROT_WRITE : PROT_NONE) == 0);
}

bool emulated_is_device(const void *p)
{
    return memory.base && (const char *)p >= memory.base && (const char *)p < memory.base + memory.next;
}

/* --- the stream */

typedef struct work {
    enum { KERNEL, COPY, FILL, CALL, GRAPH, EVENT } kind;
    kernel *kernel;
    dim3 grid, block;
    argument *argument;
    void *to;
    const void *from;
    size_t bytes;
    int value;
    void (*call)(const argument *);
    struct list *graph;
    size_t *behind, behinds; /* of a graph: the works before it */
    const void *uses;        /* what only one work at a time may use */
} work;

typedef struct list {
    work *at;
    size_t count, capacity;
} list;

static list queue, *capturing;
static struct { /* what the stream that is captured has come to: works of `capturing` */
    size_t *at, count, capacity;
    cudaGraphNode_t *node; /* the same, for the caller */
} come_to;
static size_t done_count, asked_count; /* works of the stream, ever */

static void append(list *l, work w)
{
    if (l->count == l->capacity) {
        l->capacity = l->capacity ? 2 * l->capacity : 64;
        REQUIRE((l->at = realloc(l->at, l->capacity * sizeof *l->at)));
    }
    l->at[l->count++] = w;
}

static void come_behind(size_t work)
{
    if (come_to.count == come_to.capacity) {
        come_to.capacity = come_to.capacity ? 2 * come_to.capacity : 16;
        REQUIRE((come_to.at = realloc(come_to.at, come_to.capacity * sizeof *come_to.at)));
        REQUIRE((come_to.node = realloc(come_to.node, come_to.capacity * sizeof *come_to.node)));
    }
    for (size_t i = 0; i < come_to.count; i++) REQUIRE(come_to.at[i] != work); /* an edge that is there already */
    come_to.at[come_to.count++] = work;
}

const void *emulated_uses;
static void ask(work w)
{
    w.uses = emulated_uses;
    emulated_uses = NULL;
    if (capturing) {
        w.behinds = come_to.count;
        REQUIRE((w.behind = malloc((come_to.count + 1) * sizeof *w.behind)));
        for (size_t i = 0; i < come_to.count; i++) w.behind[i] = come_to.at[i];
        append(capturing, w);
        come_to.count = 0;
        come_behind(capturing->count - 1);
        return;
    }
    append(&queue, w);
    asked_count++;
}

bool emulated_is_capturing(void)
{
    return capturing;
}

static argument *keep(const void *from, size_t bytes)
{
    argument *a = calloc(1, sizeof *a);
    REQUIRE(a && bytes <= sizeof *a);
    memcpy(a, from, bytes);
    return a;
}

void emulated_ask(void (*call)(const argument *), const void *from, size_t bytes)
{
    ask((work){.kind = CALL, .call = call, .argument = keep(from, bytes)});
}

void emulated_fill(void *to, int value, size_t bytes)
{
    ask((work){.kind = FILL, .to = to, .value = value, .bytes = bytes});
}

static void perform(const work *w);

static bool may_come(const list *l, const bool *done, size_t i)
{
    for (size_t k = 0; k < l->at[i].behinds; k++)
        if (!done[l->at[i].behind[k]]) return false;
    return true;
}

/* The last that may, the first that may, or any. */
static void perform_graph(const list *l)
{
    static unsigned launches;
    unsigned random = ++launches;
    bool *done = calloc(l->count + 1, sizeof *done);
    REQUIRE(done);
    for (size_t left = l->count; left > 0; left--) {
        size_t next = l->count;
        random = random * 1664525 + 1013904223;
        size_t skip = launches % 4 == 1 ? random >> 28 : 0;
        for (size_t k = 0; k < l->count; k++) {
            const size_t i = launches % 4 ? l->count - 1 - k : k;
            if (done[i] || !may_come(l, done, i)) continue;
            next = i;
            if (skip-- == 0) break;
        }
        REQUIRE(next < l->count);
        perform(&l->at[next]);
        done[next] = true;
    }
    free(done);
}

static void free_graph(list *l)
{
    for (size_t i = 0; i < l->count; i++) free(l->at[i].argument), free(l->at[i].behind);
    free(l->at);
    free(l);
}

static void perform(const work *w)
{
    switch (w->kind) {
    case KERNEL: run_kernel(w->kernel, w->grid, w->block, w->argument); return;
    case COPY: memmove(w->to, w->from, w->bytes); return;
    case FILL: memset(w->to, w->value, w->bytes); return;
    case CALL: w->call(w->argument); return;
    case GRAPH:
        perform_graph(w->graph);
        return;
    case EVENT: return;
    }
}

static void work_until(size_t position)
{
    REQUIRE(!capturing);
    size_t n = position > done_count ? position - done_count : 0;
    if (n == 0) return;
    open_memory(true);
    for (size_t i = 0; i < n; i++) {
        perform(&queue.at[i]);
        free(queue.at[i].argument);
    }
    open_memory(false);
    memmove(queue.at, queue.at + n, (queue.count - n) * sizeof *queue.at);
    queue.count -= n;
    done_count = position;
}

/* --- the runtime */

/* EMULATED_LOST=n: the device fails when memory is asked for the n-th time, and at everything from then on. */
static int asked_memory;
static bool lost(void)
{
    const char *when = getenv("EMULATED_LOST");
    return when && asked_memory >= atoi(when);
}

cudaError_t cudaGetDeviceCount(int *count)
{
    *count = getenv("EMULATED_NO_DEVICE") ? 0 : 1;
    return *count ? cudaSuccess : cudaErrorNoDevice;
}
cudaError_t cudaDriverGetVersion(int *version)
{
    *version = getenv("EMULATED_NO_DRIVER") ? 0 : 13000;
    return cudaSuccess;
}
cudaError_t cudaSetDevice(int device) { return device == 0 ? cudaSuccess : cudaErrorInvalidDevice; }
cudaError_t cudaDeviceGetAttribute(int *value, enum cudaDeviceAttr attribute, int device)
{
    REQUIRE(device == 0);
    *value = attribute == cudaDevAttrComputeCapabilityMajor ? 9 : 0;
    return cudaSuccess;
}
cudaError_t cudaGetLastError(void) { return cudaSuccess; }
const char *cudaGetErrorString(cudaError_t e) { return e == cudaErrorNoDevice ? "no CUDA-capable device is detected" : "emulated failure"; }
cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned flags)
{
    (void)flags;
    *stream = (cudaStream_t)&queue;
    return cudaSuccess;
}
cudaError_t cudaStreamDestroy(cudaStream_t stream) { return stream ? cudaSuccess : cudaErrorInvalidValue; }
cudaError_t cudaStreamSynchronize(cudaStream_t stream)
{
    REQUIRE(stream == (cudaStream_t)&queue);
    if (lost()) return cudaErrorLaunchFailure;
    work_until(asked_count);
    return cudaSuccess;
}

cudaError_t cudaMalloc(void **p, size_t bytes)
{
    REQUIRE(!capturing);
    asked_memory++;
    if (lost()) return cudaErrorLaunchFailure;
    size_t room = (bytes + 4096 + 8191) / 4096 * 4096; /* a page behind each catches what runs over */
    if (!memory.base) {
        memory.base = mmap(NULL, memory.size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        REQUIRE(memory.base != MAP_FAILED);
    }
    const char *limit = getenv("EMULATED_MEMORY");
    if (memory.used + bytes > (limit ? (size_t)atoll(limit) : memory.limit) || memory.next + room > memory.size) return cudaErrorMemoryAllocation;
    char *base = memory.base + memory.next;
    memory.next += room;
    memory.used += bytes;
    open_memory(true);
    memcpy(base, &bytes, sizeof bytes);
    memset(base + 256, 0xff, bytes);
    open_memory(false);
    *p = base + 256;
    return cudaSuccess;
}

cudaError_t cudaFree(void *p)
{
    REQUIRE(!capturing);
    if (!p) return cudaSuccess;
    REQUIRE(emulated_is_device(p));
    work_until(asked_count);
    size_t bytes;
    char *base = (char *)p - 256;
    open_memory(true);
    memcpy(&bytes, base, sizeof bytes);
    memset(p, 0xff, bytes);
    REQUIRE(madvise(base, (bytes + 256 + 4095) / 4096 * 4096, MADV_DONTNEED) == 0);
    open_memory(false);
    memory.used -= bytes;
    return cudaSuccess;
}

cudaError_t cudaMemGetInfo(size_t *now, size_t *all)
{
    if (lost()) return cudaErrorLaunchFailure;
    *all = memory.limit;
    *now = memory.limit > memory.used ? memory.limit - memory.used : 0;
    return cudaSuccess;
}

cudaError_t cudaMallocHost(void **p, size_t bytes)
{
    REQUIRE(!capturing);
    if (lost()) return cudaErrorLaunchFailure;
    *p = malloc(bytes);
    if (*p) memset(*p, 0xff, bytes);
    return *p ? cudaSuccess : cudaErrorMemoryAllocation;
}
cudaError_t cudaFreeHost(void *p)
{
    work_until(asked_count);
    free(p);
    return cudaSuccess;
}

cudaError_t cudaMemsetAsync(void *to, int value, size_t bytes, cudaStream_t stream)
{
    REQUIRE(stream && (bytes == 0 || emulated_is_device(to)));
    ask((work){.kind = FILL, .to = to, .value = value, .bytes = bytes});
    return cudaSuccess;
}

cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, enum cudaMemcpyKind kind, cudaStream_t stream)
{
    REQUIRE(stream && emulated_is_device(to) == (kind != cudaMemcpyDeviceToHost) && emulated_is_device(from) == (kind != cudaMemcpyHostToDevice));
    ask((work){.kind = COPY, .to = to, .from = from, .bytes = bytes});
    return cudaSuccess;
}

struct CUevent_st {
    size_t position;
};
cudaError_t cudaEventCreateWithFlags(cudaEvent_t *e, unsigned flags)
{
    (void)flags;
    *e = calloc(1, sizeof **e);
    return *e ? cudaSuccess : cudaErrorMemoryAllocation;
}
cudaError_t cudaEventCreate(cudaEvent_t *e) { return cudaEventCreateWithFlags(e, 0); }
cudaError_t cudaEventDestroy(cudaEvent_t e)
{
    free(e);
    return cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t e, cudaStream_t stream)
{
    REQUIRE(stream && !capturing);
    ask((work){.kind = EVENT});
    e->position = asked_count;
    return cudaSuccess;
}
cudaError_t cudaEventSynchronize(cudaEvent_t e)
{
    if (lost()) return cudaErrorLaunchFailure;
    work_until(e->position);
    return cudaSuccess;
}

cudaError_t cudaEventElapsedTime(float *milliseconds, cudaEvent_t from, cudaEvent_t to)
{
    REQUIRE(from->position < to->position);
    *milliseconds = (float)(to->position - from->position); /* works in between */
    return cudaSuccess;
}

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, enum cudaStreamCaptureMode mode)
{
    REQUIRE(stream && !capturing && mode == cudaStreamCaptureModeThreadLocal);
    REQUIRE((capturing = calloc(1, sizeof *capturing)));
    come_to.count = 0;
    return cudaSuccess;
}
cudaError_t cudaStreamGetCaptureInfo(cudaStream_t stream, enum cudaStreamCaptureStatus *status, unsigned long long *id, cudaGraph_t *graph,
                                     const cudaGraphNode_t **nodes, const cudaGraphEdgeData **edges, size_t *count)
{
    REQUIRE(stream && capturing && !id && !graph);
    *status = cudaStreamCaptureStatusActive;
    for (size_t i = 0; i < come_to.count; i++) come_to.node[i] = (cudaGraphNode_t)(uintptr_t)(come_to.at[i] + 1);
    *nodes = come_to.node;
    *edges = NULL;
    *count = come_to.count;
    return cudaSuccess;
}
bool emulated_bad_branches;
cudaError_t cudaStreamUpdateCaptureDependencies(cudaStream_t stream, cudaGraphNode_t *nodes, const cudaGraphEdgeData *edges, size_t count, unsigned flags)
{
    REQUIRE(stream && capturing && !edges && (flags == cudaStreamSetCaptureDependencies || flags == cudaStreamAddCaptureDependencies));
    if (emulated_bad_branches) return cudaErrorInvalidValue;
    if (flags == cudaStreamSetCaptureDependencies) come_to.count = 0;
    for (size_t i = 0; i < count; i++) {
        const size_t work = (size_t)(uintptr_t)nodes[i] - 1;
        REQUIRE(work < capturing->count);
        come_behind(work);
    }
    return cudaSuccess;
}
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t *graph)
{
    REQUIRE(stream && capturing);
    list *l = capturing;
    capturing = NULL;
    if (emulated_bad_capture) {
        free_graph(l);
        *graph = NULL;
        return cudaErrorStreamCaptureInvalidated;
    }
    *graph = (cudaGraph_t)l;
    return cudaSuccess;
}
bool emulated_bad_capture;
cudaError_t cudaStreamIsCapturing(cudaStream_t stream, enum cudaStreamCaptureStatus *status)
{
    REQUIRE(stream);
    *status = capturing ? cudaStreamCaptureStatusActive : cudaStreamCaptureStatusNone;
    return cudaSuccess;
}
/* Of two works that use the same, one must wait for the other. */
static void check_uses(const list *l)
{
    bool *before = calloc(l->count + 1, l->count + 1); /* [i, k]: work k comes before work i */
    REQUIRE(before);
    for (size_t i = 0; i < l->count; i++) {
        bool *mine = before + i * l->count;
        for (size_t k = 0; k < l->at[i].behinds; k++) {
            const size_t b = l->at[i].behind[k];
            mine[b] = true;
            for (size_t j = 0; j < b; j++) mine[j] = mine[j] || before[b * l->count + j];
        }
        for (size_t k = 0; k < i; k++) REQUIRE(!l->at[i].uses || l->at[i].uses != l->at[k].uses || mine[k]);
    }
    free(before);
}

int emulated_graph_works, emulated_graph_longest;
cudaError_t cudaGraphInstantiate(cudaGraphExec_t *exec, cudaGraph_t graph, unsigned long long flags)
{
    REQUIRE(flags == 0);
    const list *l = (const list *)graph;
    int *way = calloc(l->count + 1, sizeof *way);
    REQUIRE(way);
    emulated_graph_works = (int)l->count;
    emulated_graph_longest = 0;
    for (size_t i = 0; i < l->count; i++) {
        for (size_t k = 0; k < l->at[i].behinds; k++)
            if (way[i] < way[l->at[i].behind[k]]) way[i] = way[l->at[i].behind[k]];
        if (++way[i] > emulated_graph_longest) emulated_graph_longest = way[i];
    }
    free(way);
    check_uses(l);
    *exec = (cudaGraphExec_t)graph; /* which cudaGraphDestroy leaves alone */
    return cudaSuccess;
}
cudaError_t cudaGraphDestroy(cudaGraph_t graph) { return graph ? cudaSuccess : cudaErrorInvalidValue; }
cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream)
{
    REQUIRE(stream && !capturing);
    emulated_graph_launches++;
    ask((work){.kind = GRAPH, .graph = (list *)exec});
    return cudaSuccess;
}
int emulated_graph_launches;
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec)
{
    list *l = (list *)exec;
    REQUIRE(queue.count == 0);
    free_graph(l);
    return cudaSuccess;
}

/* Kernels take one structure of more than 16 bytes, which lies in the caller's frame whatever its size. */
cudaError_t cudaLaunchKernel(const void *function, dim3 grid, dim3 block, void **arguments, size_t shared, cudaStream_t stream)
{
    REQUIRE(stream && shared == 0);
    ask((work){.kind = KERNEL, .kernel = (kernel *)function, .grid = grid, .block = block, .argument = keep(arguments[0], ARGUMENT)});
    return cudaSuccess;
}
