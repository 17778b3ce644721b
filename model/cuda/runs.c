/* runs.c: a plan's runs. The first goes kernel by kernel, so that the libraries load what they need; the second is
 * captured as a CUDA graph, and from then on a run is the launch of that graph. A plan that cannot be captured (a library may do
 * what a graph cannot hold) goes on kernel by kernel: slower, with the same results. */
#include "model/cuda/cuda.h"

#include <stdlib.h>

#include "base/memory.h"

_Static_assert((int)ISO_CUDA_PUBLISH == (int)ISO_PUBLISH_TENSORS && (int)ISO_CUDA_PUBLISH_REALS == (int)ISO_PUBLISH_REALS,
               "the same limits");

typedef struct runs {
    cudaGraphExec_t graph; /* NULL: not yet */
    cudaEvent_t done;      /* the last run */
    bool warm;             /* ran once */
    bool plain;            /* no graph can be made of it */
} runs;

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

/* Nothing was done where this fails, and what failed is forgotten. */
static void capture(runs *r, void (*launch)(void *plan), void *plan)
{
    iso_cuda *c = iso_cuda_get();
    cudaGraph_t graph = NULL;
    if (iso_cuda_ok(cudaStreamBeginCapture(c->stream, cudaStreamCaptureModeThreadLocal), "beginning a graph")) {
        launch(plan);
        if (iso_cuda_ok(cudaStreamEndCapture(c->stream, &graph), "capturing a graph") && c->failure.status == ISO_OK)
            (void)iso_cuda_ok(cudaGraphInstantiate(&r->graph, graph, 0), "making a graph");
        if (graph) (void)cudaGraphDestroy(graph);
    }
    if (c->failure.status == ISO_OK) return;
    r->plain = true;
    r->graph = NULL;
    c->failure = (iso_error){0};
    (void)cudaGetLastError();
}

void iso_cuda_runs_run(void *plan_runs, void (*launch)(void *plan), void *plan)
{
    runs *r = plan_runs;
    const iso_cuda *c = iso_cuda_get();
    if (c->failure.status != ISO_OK) return; /* reading tells */
    if (r->warm && !r->graph && !r->plain && !c->eager) capture(r, launch, plan);
    if (r->graph)
        (void)iso_cuda_ok(cudaGraphLaunch(r->graph, c->stream), "launching a graph");
    else
        launch(plan);
    r->warm = true;
    (void)iso_cuda_ok(cudaEventRecord(r->done, c->stream), "a run");
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
