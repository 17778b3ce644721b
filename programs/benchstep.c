/* benchstep: one training step, timed beside OpenBLAS's own sgemm in the same run, and its memory before and after. */
#include <cblas.h>
#include <inttypes.h>
#include <math.h>
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
#include "model/net/net.h"
#include "model/philox.h"
#include "model/train_step.h"

enum { SGEMM = 2048, MAX_STEPS = 1000 };

typedef struct config {
    int64_t width, latent, batch, steps, threads, seed;
    double alpha;
    const char *device;
    bool quiet;
} config;

#define AT(field) offsetof(config, field)
static const iso_option options[] = {
    {"width", 0, ISO_ARG_INT, AT(width), "W", "channels of the first layer (default: 128)", 1, 4096},
    {"latent", 0, ISO_ARG_INT, AT(latent), "M", "latent dimension (default: 128)", 1, 4096},
    {"batch", 0, ISO_ARG_INT, AT(batch), "B", "images a step (default: 16)", 1, 4096},
    {"steps", 0, ISO_ARG_INT, AT(steps), "N", "steps to time, after one that is not (default: 3)", 1, MAX_STEPS},
    {"threads", 0, ISO_ARG_INT, AT(threads), "N", "threads (default: all)", 1, 1024},
    {"alpha", 0, ISO_ARG_REAL, AT(alpha), "A", "weight of the isometric term; 0: a step without it (default: 10)", 0, 1e12},
    {"device", 0, ISO_ARG_CHOICE, AT(device), ISO_DEVICES, "where to compute (default: cpu)", 0, 0},
    {"seed", 0, ISO_ARG_INT, AT(seed), "S", "of parameters and images (default: 0)", 0, 9007199254740992.0},
    {"quiet", 'q', ISO_ARG_FLAG, AT(quiet), NULL, "only the JSON line", 0, 0},
    {NULL, 0, ISO_ARG_FLAG, 0, NULL, NULL, 0, 0},
};

static const iso_command command = {
    "benchstep", "benchstep [options]",
    "Times one training step of architecture celeba on random images and prints one line of JSON: median\n"
    "seconds, FLOPs from the plan, the rate of OpenBLAS's sgemm (2048 x 2048 x 2048, between the steps, the same threads), the\n"
    "share of that rate that the step's products reach, planned and measured peak memory in bytes.",
    options, "On a GPU the rate and the share are still to OpenBLAS on the CPU. ISO_PLAN_PROFILE=1 in the environment adds a table of time per op.",
};

static double median(double *x, int n)
{
    for (int i = 1; i < n; i++) /* insertion sort: n is small */
        for (int k = i; k > 0 && x[k] < x[k - 1]; k--) {
            double t = x[k];
            x[k] = x[k - 1];
            x[k - 1] = t;
        }
    return n % 2 ? x[n / 2] : (x[n / 2 - 1] + x[n / 2]) / 2;
}

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

/* GFLOP/s of one product. */
static double sgemm_rate(const float *a, const float *b, float *c)
{
    double start = iso_now();
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, SGEMM, SGEMM, SGEMM, 1, a, SGEMM, b, SGEMM, 0, c, SGEMM);
    return 2.0 * SGEMM * SGEMM * SGEMM / (iso_now() - start) / 1e9;
}

static iso_status write_parameters(const iso_net *net, uint64_t seed, iso_vars *vars, iso_error *err)
{
    iso_model *m = NULL;
    iso_status status = iso_model_create(net, &m, err);
    if (status == ISO_OK) status = iso_net_init(m, seed, err);
    if (status == ISO_OK) status = iso_model_to_vars(m, vars, err);
    iso_model_free(m);
    return status;
}

static iso_status write_inputs(const iso_train_step *s, int64_t latent, uint64_t seed, iso_error *err)
{
    int64_t pixels = iso_shape_count(&s->x_shape), codes = s->batch * latent;
    iso_status status = ISO_E_MEMORY;
    float *x = iso_calloc((size_t)(pixels > codes ? pixels : codes), sizeof *x);
    int64_t *perm = iso_calloc((size_t)s->batch, sizeof *perm);
    double rate = iso_adam_rate(1e-4, 1), root = iso_adam_root(1);
    if (!x || !perm) {
        status = iso_fail_memory(err);
        goto done;
    }
    iso_draw_uniform((iso_draw){seed, 1, 0}, -1, 1, pixels, x);
    if ((status = iso_plan_write(s->plan, s->x, x, pixels, err)) != ISO_OK) goto done;
    iso_draw_normal((iso_draw){seed, 2, 0}, codes, x);
    if ((status = iso_plan_write(s->plan, s->eps, x, codes, err)) != ISO_OK) goto done;
    iso_draw_normal((iso_draw){seed, 3, 0}, codes, x);
    if ((status = iso_plan_write(s->plan, s->v, x, codes, err)) != ISO_OK) goto done;
    iso_draw_uniform((iso_draw){seed, 4, 0}, -0.2, 1.2, s->batch, x);
    if ((status = iso_plan_write(s->plan, s->delta, x, s->batch, err)) != ISO_OK) goto done;
    iso_draw_permutation((iso_draw){seed, 5, 0}, s->batch, perm);
    if ((status = iso_plan_write_index(s->plan, s->perm, perm, s->batch, err)) != ISO_OK) goto done;
    if ((status = iso_plan_write_f64(s->plan, s->adam.rate, &rate, 1, err)) != ISO_OK) goto done;
    status = iso_plan_write_f64(s->plan, s->adam.root, &root, 1, err);
done:
    free(x);
    free(perm);
    return status;
}

static void print_result(const config *c, const iso_plan_stats *stats, double seconds, double rate, double planned, double loss)
{
    printf("{\"width\":%" PRId64 ",\"latent\":%" PRId64 ",\"batch\":%" PRId64 ",\"threads\":%" PRId64 ",\"alpha\":%g,"
           "\"seconds\":%.6g,\"flops\":%.6g,\"gemm_flops\":%.6g,\"sgemm_gflops\":%.5g,\"share\":%.4f,"
           "\"peak_planned\":%.0f,\"peak_rss\":%.0f,\"arena\":%zu,\"vars\":%zu,\"loss\":%.9g}\n",
           c->width, c->latent, c->batch, c->threads, c->alpha, seconds, stats->flops, stats->gemm_flops, rate,
           stats->gemm_flops / seconds / (rate * 1e9), planned, peak(), stats->arena, stats->vars, loss);
}

static iso_status bench(const config *c, iso_error *err)
{
    iso_net net = {.arch = ISO_ARCH_CELEBA, .width = (int)c->width, .latent = (int)c->latent};
    iso_objective objective = {.goal = c->alpha > 0 ? ISO_GOAL_ISOMETRIC : ISO_GOAL_VAE, .kl_weight = 1, .alpha = c->alpha};
    static double seconds[MAX_STEPS], rates[MAX_STEPS + 1];
    iso_vars *vars = NULL;
    iso_train_step *step = NULL;
    const iso_backend *backend = NULL;
    iso_status status = iso_device_find(c->device, &backend, err);
    if (status != ISO_OK) return status;
    size_t n = (size_t)SGEMM * SGEMM;
    float *a = iso_calloc(3 * n, sizeof *a);
    if (!a) return iso_fail_memory(err);
    iso_draw_uniform((iso_draw){1, 1, 0}, -1, 1, (int64_t)(2 * n), a);
    sgemm_rate(a, a + n, a + 2 * n); /* first touch; OpenBLAS allocates its buffers */
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
    if ((status = write_parameters(&net, (uint64_t)c->seed, vars, err)) != ISO_OK) goto done;
    if ((status = write_inputs(step, c->latent, (uint64_t)c->seed, err)) != ISO_OK) goto done;

    double loss, again;
    /* Reading waits for a device; its second run is the one that makes a graph. */
    for (int i = 0; i < (backend->device ? 3 : 1); i++) {
        iso_plan_run(step->plan);
        if ((status = iso_plan_read_f64(step->plan, step->term[ISO_TERM_LOSS], i ? &again : &loss, 1, err)) != ISO_OK) goto done;
    }
    rates[0] = sgemm_rate(a, a + n, a + 2 * n);
    for (int i = 0; i < c->steps; i++) {
        double start = iso_now();
        iso_plan_run(step->plan);
        if (backend->device && (status = iso_plan_read_f64(step->plan, step->term[ISO_TERM_LOSS], &again, 1, err)) != ISO_OK) goto done;
        seconds[i] = iso_now() - start;
        rates[i + 1] = sgemm_rate(a, a + n, a + 2 * n);
    }
    if (getenv("ISO_PLAN_PROFILE")) iso_plan_profile(step->plan);
    print_result(c, &stats, median(seconds, (int)c->steps), median(rates, (int)c->steps + 1), planned, loss);
done:
    iso_train_step_free(step);
    iso_vars_free(vars);
    free(a);
    return status;
}

int main(int argc, char **argv)
{
    config c = {.width = 128, .latent = 128, .batch = 16, .steps = 3, .alpha = 10, .device = "cpu"};
    iso_error err = {0};
    int code = iso_args_parse(&command, argc, argv, 1, &c, NULL);
    if (code != ISO_ARGS_RUN) return code;
    if (c.threads)
        omp_set_num_threads((int)c.threads);
    else
        c.threads = omp_get_max_threads();
    return iso_exit(command.program, bench(&c, &err), &err);
}
