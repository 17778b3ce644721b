/* benchstep: one training step, timed beside OpenBLAS's own sgemm in the same run, and its memory before and after. */
#include <inttypes.h>
#include <omp.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/args.h"
#include "base/memory.h"
#include "base/progress.h"
#include "model/device.h"
#include "model/philox.h"
#include "programs/benchstep.h"
#include "programs/benchstep_timing.h"

enum { MAX_STEPS = 1000 };

typedef benchstep_config config;

#define AT(field) offsetof(config, field)
static const iso_option options[] = {
    {"arch", 0, ISO_ARG_CHOICE, AT(arch), "celeba|mlp", "celeba (default), or the paper's net for MNIST: 784 numbers, 4 x 256 hidden units", 0, 0},
    {"flatten", 0, ISO_ARG_FLAG, AT(flatten), NULL, "the step of `indexer flatten` instead: a flow is trained, encoder and decoder are not", 0, 0},
    {"depth", 0, ISO_ARG_INT, AT(depth), "N", "the flow's coupling layers (default: 8)", 1, 64},
    {"length", 0, ISO_ARG_INT, AT(length), "N", "hidden units of a coupling's networks (default: 512)", 1, 1 << 20},
    {"beta", 0, ISO_ARG_REAL, AT(beta), "B", "weight of the flow codes' mean squared norm (default: 10)", 0, 1e12},
    {"width", 0, ISO_ARG_INT, AT(width), "W", "channels of the first layer (default: 128)", 1, 4096},
    {"latent", 0, ISO_ARG_INT, AT(latent), "M", "latent dimension (default: 128)", 1, 4096},
    {"batch", 0, ISO_ARG_INT, AT(batch), "B", "images a step (default: 16)", 1, 4096},
    {"steps", 0, ISO_ARG_INT, AT(steps), "N", "steps to time, after one that is not (default: 3)", 1, MAX_STEPS},
    {"threads", 0, ISO_ARG_INT, AT(threads), "N", "threads (default: all)", 1, 1024},
    {"alpha", 0, ISO_ARG_REAL, AT(alpha), "A", "weight of the isometric term; 0: a step without it (default: 10)", 0, 1e12},
    {"device", 0, ISO_ARG_CHOICE, AT(device), ISO_DEVICES, "where to compute (default: cpu)", 0, 0},
    {"seed", 0, ISO_ARG_INT, AT(seed), "S", "of parameters and images (default: 0)", 0, 9007199254740992.0},
    {"save", 0, ISO_ARG_TEXT, AT(save), "FILE", "write parameters and inputs to FILE (.safetensors), for a peer to compute the same", 0, 0},
    {"quiet", 'q', ISO_ARG_FLAG, AT(quiet), NULL, "only the JSON line", 0, 0},
    {NULL, 0, ISO_ARG_FLAG, 0, NULL, NULL, 0, 0},
};

static const iso_command command = {
    "benchstep", "benchstep [options]",
    "Times one training step on random images and prints one line of JSON: median seconds, FLOPs from the\n"
    "plan, the rate of OpenBLAS's sgemm (2048 x 2048 x 2048, between the steps, the same threads), the share of that rate that\n"
    "the step's products reach, planned and measured peak memory in bytes, the loss before and after the first step, and R.",
    options, "On a GPU the rate and the share are still to OpenBLAS on the CPU. ISO_PLAN_PROFILE=1 in the environment adds a table of time per op.",
};

/* What the process holds now: program, libraries, OpenBLAS's buffers, the matrices of the comparison. */
static double resident(void)
{
    long size = 0, pages = 0;
    FILE *f = fopen("/proc/self/statm", "r");
    if (!f) return 0;
    if (fscanf(f, "%ld %ld", &size, &pages) != 2) pages = 0;
    fclose(f);
    return (double)pages * (double)sysconf(_SC_PAGESIZE);
}

static double peak(void)
{
    struct rusage use;
    return getrusage(RUSAGE_SELF, &use) == 0 ? 1024.0 * (double)use.ru_maxrss : 0;
}

/* A term of the last run; 0 where the step has none. */
static iso_status read_term(const iso_train_step *s, iso_term t, double *out, iso_error *err)
{
    *out = 0;
    return s->term[t] == ISO_NONE ? ISO_OK : iso_plan_read_f64(s->plan, s->term[t], out, 1, err);
}

static void print_result(const config *c, const iso_plan_stats *stats, double seconds, double cpu, double rate, double planned, const double loss[3])
{
    printf("{\"width\":%" PRId64 ",\"latent\":%" PRId64 ",\"batch\":%" PRId64 ",\"threads\":%" PRId64 ",\"alpha\":%g,"
           "\"seconds\":%.6g,\"cpu_seconds\":%.6g,\"flops\":%.6g,\"gemm_flops\":%.6g,\"sgemm_gflops\":%.5g,\"share\":%.4f,"
           "\"peak_planned\":%.0f,\"peak_rss\":%.0f,\"arena\":%zu,\"vars\":%zu,\"loss\":%.9g,\"loss_after\":%.9g,\"ratio\":%.9g}\n",
           c->width, c->latent, c->batch, c->threads, c->alpha, seconds, cpu, stats->flops, stats->gemm_flops, rate,
           stats->gemm_flops / seconds / (rate * 1e9), planned, peak(), stats->arena, stats->vars, loss[0],
           loss[1], loss[2]);
}

static iso_status bench(const config *c, iso_error *err)
{
    iso_net net;
    iso_objective objective;
    benchstep_describe(c, &net, &objective);
    static double seconds[MAX_STEPS], cpu[MAX_STEPS], rates[MAX_STEPS + 1];
    iso_vars *vars = NULL;
    iso_train_step *step = NULL;
    const iso_backend *backend = NULL;
    iso_status status = iso_device_find(c->device, &backend, err);
    if (status != ISO_OK) return status;
    size_t n = (size_t)BENCH_SGEMM * BENCH_SGEMM;
    float *a = iso_calloc(3 * n, sizeof *a);
    if (!a) return iso_fail_memory(err);
    iso_draw_uniform((iso_draw){1, 1, 0}, -1, 1, (int64_t)(2 * n), a);
    bench_sgemm_rate(a, a + n, a + 2 * n); /* first touch; OpenBLAS allocates its buffers */
    double base = resident();

    if ((status = iso_net_check(&net, err)) != ISO_OK) goto done;
    if ((status = iso_vars_create(backend, &vars, err)) != ISO_OK) goto done;
    status = iso_train_step_create(&net, &objective, c->batch, true, vars, (int)c->threads, &step, err);
    if (status != ISO_OK) goto done;
    iso_plan_stats stats = iso_plan_describe(step->plan);
    double planned = base + (double)stats.arena + (double)iso_vars_bytes(vars), MiB = 1 << 20;
    if (!c->quiet)
        fprintf(stderr, "planned peak memory: %.0f MiB (arena %.0f, parameters and Adam %.0f, program and libraries %.0f); "
                "%.1f GFLOP a step in %d kernels\n", planned / MiB, (double)stats.arena / MiB,
                (double)iso_vars_bytes(vars) / MiB, base / MiB, stats.flops / 1e9, stats.steps);
    if ((status = benchstep_fill(c, &net, step, vars, err)) != ISO_OK) goto done;

    double loss[3] = {0}; /* of the first step, of the one after it, R of the first */
    /* Reading waits for a device; its second run is the one that makes a graph. */
    for (int i = 0; i < (backend->device ? 3 : 1); i++) {
        iso_plan_run(step->plan);
        if (i < 2 && (status = read_term(step, ISO_TERM_LOSS, &loss[i], err)) != ISO_OK) goto done;
        if (i == 0 && (status = read_term(step, ISO_TERM_RATIO, &loss[2], err)) != ISO_OK) goto done;
    }
    /* Steps run one after another, as in training and as the peers' do; between so many seconds of them the rate is measured,
     * since the processor's speed drifts. */
    static const double row_seconds = 1;
    double since = 0;
    int rate_count = 0;
    rates[rate_count++] = bench_sgemm_rate(a, a + n, a + 2 * n);
    for (int i = 0; i < c->steps; i++) {
        double start = iso_now(), start_cpu = bench_cpu_seconds(), now;
        iso_plan_run(step->plan);
        if ((status = read_term(step, ISO_TERM_LOSS, &now, err)) != ISO_OK) goto done;
        seconds[i] = iso_now() - start;
        cpu[i] = bench_cpu_seconds() - start_cpu;
        if (i == 0 && !backend->device) loss[1] = now;
        since += seconds[i];
        if (backend->device || (since < row_seconds && i + 1 < c->steps)) continue; /* a device is not to wait for it */
        rates[rate_count++] = bench_sgemm_rate(a, a + n, a + 2 * n);
        since = 0;
    }
    if (getenv("ISO_PLAN_PROFILE")) iso_plan_profile(step->plan);
    char slower[600];
    iso_plan_tell(step->plan, slower, sizeof slower);
    if (slower[0]) fprintf(stderr, "benchstep: on the device: %s\n", slower);
    print_result(c, &stats, bench_median(seconds, (int)c->steps), bench_median(cpu, (int)c->steps), bench_median(rates, rate_count), planned, loss);
done:
    iso_train_step_free(step);
    iso_vars_free(vars);
    free(a);
    return status;
}

int main(int argc, char **argv)
{
    config c = {.width = 128, .latent = 128, .batch = 16, .steps = 3, .depth = 8, .length = 512, .alpha = 10, .beta = 10,
                .arch = "celeba", .device = "cpu"};
    iso_error err = {0};
    int code = iso_args_parse(&command, argc, argv, 1, &c, NULL);
    if (code != ISO_ARGS_RUN) return code;
    if (c.threads)
        omp_set_num_threads((int)c.threads);
    else
        c.threads = omp_get_max_threads();
    return iso_exit(command.program, bench(&c, &err), &err);
}
