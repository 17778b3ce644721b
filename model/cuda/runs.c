/* runs.c: a plan's runs. The first goes kernel by kernel, so that the libraries load what they need; the second is
 * captured as a CUDA graph, and from then on a run is the launch of that graph.
 *
 * The one stream that is captured would make the graph a chain, and small kernels mostly wait: for the launch of the next one. So every work of a plan
 * is given, before it is captured, those that it has to wait for as what the stream has come to, and the graph has branches. What the
 * libraries keep to themselves, as cuBLAS its workspace, is used by one of them at a time (iso_cuda_shared).
 * Where that fails the graph is a chain; a plan that cannot be captured at all (a library may do what a graph cannot hold) goes on kernel by
 * kernel: slower, with the same results. iso_cuda_runs_tell says so. */
#include "model/cuda/cuda.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "model/cuda/capture.h"

_Static_assert((int)ISO_CUDA_PUBLISH == (int)ISO_PUBLISH_TENSORS && (int)ISO_CUDA_PUBLISH_REALS == (int)ISO_PUBLISH_REALS,
               "the same limits");

typedef struct runs {
    cudaGraphExec_t graph; /* NULL: not yet */
    cudaEvent_t done;      /* the last run */
    bool warm;             /* ran once */
    bool plain;            /* no graph can be made of it */
    iso_error why;         /* it is plain, or its graph is a chain: what failed */
} runs;

/* The graph that is being captured, with branches. */
static struct {
    bool on;               /* until something fails, which is remembered as any failure */
    int number;            /* the work being captured; -1: none yet */
    cudaGraphNode_t *last; /* [capacity] the last node of each work; NULL: it is not in this graph */
    size_t capacity;
    cudaGraphNode_t shared[ISO_CUDA_SHARED]; /* the last node that used it */
} branches;

iso_status iso_cuda_runs_create(void **out, iso_error *err)
{
    runs *r = iso_calloc(1, sizeof *r);
    if (!r) return iso_fail_memory(err);
    if (cudaEventCreateWithFlags(&r->done, cudaEventDisableTiming) != cudaSuccess) {
        free(r);
        return iso_fail(err, ISO_E_INTERNAL, "the GPU has no event for a plan: %s", cudaGetErrorString(cudaGetLastError()));
    }
    *out = r;
    return ISO_OK;
}

void iso_cuda_runs_free(void *plan_runs)
{
    runs *r = plan_runs;
    (void)iso_cuda_ok(cudaStreamSynchronize(iso_cuda_get()->stream), "computing"); /* the last run may be under way */
    if (r->graph) (void)iso_cuda_ok(cudaGraphExecDestroy(r->graph), "a plan's end");
    (void)iso_cuda_ok(cudaEventDestroy(r->done), "a plan's end");
    free(r);
}

/* --- branches */

static bool fail(const char *why)
{
    branches.on = false;
    return iso_cuda_remember("a graph's branch", why);
}

/* The nodes that the stream has come to. */
typedef struct ends {
    const cudaGraphNode_t *node;
    const cudaGraphEdgeData *edge; /* NULL: as usual */
    size_t count;
} ends;

static ends come_to(void)
{
    enum cudaStreamCaptureStatus status;
    ends e = {0};
    if (!iso_cuda_ok(cudaStreamGetCaptureInfo(iso_cuda_get()->stream, &status, NULL, NULL, &e.node, &e.edge, &e.count), "looking at a graph")) e.count = 0;
    return e;
}

/* The only one; NULL: there are none or several, or it is no plain predecessor. */
static cudaGraphNode_t only(ends e)
{
    static const cudaGraphEdgeData usual;
    return e.count == 1 && (!e.edge || !memcmp(e.edge, &usual, sizeof usual)) ? e.node[0] : NULL;
}

static bool among(const cudaGraphNode_t *list, size_t count, cudaGraphNode_t node)
{
    for (size_t i = 0; i < count; i++)
        if (list[i] == node) return true;
    return false;
}

/* What is captured next comes behind these: instead of what the stream has come to, or besides. */
static void come_behind(cudaGraphNode_t *node, size_t count, enum cudaStreamUpdateCaptureDependenciesFlags how)
{
    if (!iso_cuda_ok(cudaStreamUpdateCaptureDependencies(iso_cuda_get()->stream, node, NULL, count, how), "a graph's branch")) branches.on = false;
}

/* Remembers where the work that was captured last ended. */
static bool end_work(void)
{
    if (branches.number < 0) return true;
    return (branches.last[branches.number] = only(come_to())) || fail("a work has several ends");
}

void iso_cuda_runs_after(void *plan_runs, int number, int count, const int *earlier)
{
    (void)plan_runs; /* the one being captured */
    if (!branches.on || !end_work()) return;
    const size_t before = branches.capacity;
    cudaGraphNode_t *behind = iso_calloc((size_t)count, sizeof *behind);
    if (!behind || !iso_grow(&branches.last, &branches.capacity, (size_t)number + 1, sizeof *branches.last)) {
        (void)fail("out of memory");
        free(behind);
        return;
    }
    if (branches.capacity > before) memset(branches.last + before, 0, (branches.capacity - before) * sizeof *branches.last);
    size_t n = 0;
    for (int i = 0; i < count; i++) {
        cudaGraphNode_t node = branches.last[earlier[i]];
        if (node && !among(behind, n, node)) behind[n++] = node;
    }
    come_behind(behind, n, cudaStreamSetCaptureDependencies);
    branches.number = number;
    free(behind);
}

void iso_cuda_shared_begin(int which)
{
    if (!branches.on || !branches.shared[which]) return;
    const ends e = come_to();
    if (!among(e.node, e.count, branches.shared[which])) come_behind(&branches.shared[which], 1, cudaStreamAddCaptureDependencies);
}

void iso_cuda_shared_end(int which)
{
    if (branches.on && !(branches.shared[which] = only(come_to()))) (void)fail("a library's call has several ends");
}

/* --- capturing */

/* Nothing was done where this fails, and what failed is forgotten, but for its message. */
static bool capture(runs *r, void (*launch)(void *plan), void *plan, bool branch)
{
    iso_cuda *c = iso_cuda_get();
    cudaGraph_t graph = NULL;
    if (branches.last) memset(branches.last, 0, branches.capacity * sizeof *branches.last);
    memset(branches.shared, 0, sizeof branches.shared);
    branches.number = -1;
    if (iso_cuda_ok(cudaStreamBeginCapture(c->stream, cudaStreamCaptureModeThreadLocal), "beginning a graph")) {
        branches.on = branch;
        launch(plan);
        branches.on = false;
        if (iso_cuda_ok(cudaStreamEndCapture(c->stream, &graph), "capturing a graph") && c->failure.status == ISO_OK)
            (void)iso_cuda_ok(cudaGraphInstantiate(&r->graph, graph, 0), "making a graph");
        if (graph) (void)cudaGraphDestroy(graph);
    }
    if (c->failure.status == ISO_OK) return true;
    if (r->why.status == ISO_OK) r->why = c->failure;
    r->graph = NULL;
    c->failure = (iso_error){0};
    (void)cudaGetLastError();
    return false;
}

void iso_cuda_runs_run(void *plan_runs, void (*launch)(void *plan), void *plan)
{
    runs *r = plan_runs;
    const iso_cuda *c = iso_cuda_get();
    if (c->failure.status != ISO_OK) return; /* reading tells */
    if (r->warm && !r->graph && !r->plain && !c->eager) {
        const bool branched = !c->chain && !c->alone && capture(r, launch, plan, true);
        r->plain = !branched && !capture(r, launch, plan, false);
    }
    if (r->graph)
        (void)iso_cuda_ok(cudaGraphLaunch(r->graph, c->stream), "launching a graph");
    else
        launch(plan);
    r->warm = true;
    (void)iso_cuda_ok(cudaEventRecord(r->done, c->stream), "a run");
}

void iso_cuda_runs_tell(const void *plan_runs, char *text, size_t size)
{
    const runs *r = plan_runs;
    const iso_cuda *c = iso_cuda_get();
    char convolutions[sizeof(iso_error)];
    const char *what = r->plain || c->eager ? "no graph" : !r->graph ? "no graph yet" : r->why.message[0] || c->chain || c->alone ? "a graph without branches" : "";
    iso_cuda_convolve_tell(convolutions, sizeof convolutions);
    snprintf(text, size, "%s%s%s%s%s", what, r->why.message[0] ? ": " : "", r->why.message, what[0] && convolutions[0] ? "; " : "", convolutions);
}

void iso_cuda_runs_wait(void *plan_runs)
{
    const runs *r = plan_runs;
    (void)iso_cuda_ok(r ? cudaEventSynchronize(r->done) : cudaStreamSynchronize(iso_cuda_get()->stream), "computing");
}

void iso_cuda_publish_reals(void *host, int n, const void *const *from, const int64_t *count)
{
    iso_cuda_publish p = {.to = host, .n = n};
    for (int i = 0, at = 0; i < n; at += p.count[i++]) {
        p.from[i] = from[i];
        p.at[i] = at;
        p.count[i] = (int)count[i];
    }
    (void)iso_cuda_ok(iso_cuda_publish_run(&p, iso_cuda_get()->stream), "small outputs");
}
