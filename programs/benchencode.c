/* benchencode: a folder of images into new databases, timed beside OpenBLAS's own sgemm in the same run. */
#include <inttypes.h>
#include <omp.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/args.h"
#include "base/memory.h"
#include "base/progress.h"
#include "indexer/encode.h"
#include "model/model.h"
#include "programs/benchstep_timing.h"

enum { MAX_ROUNDS = 100 };

typedef struct config {
    const char *images, *model, *output;
    int64_t batch, rounds, threads;
} config;

#define AT(field) offsetof(config, field)
static const iso_option options[] = {
    {"images", 0, ISO_ARG_TEXT, AT(images), "DIR", "the folder of images", 0, 0},
    {"model", 0, ISO_ARG_TEXT, AT(model), "M", "the model", 0, 0},
    {"output", 0, ISO_ARG_TEXT, AT(output), "DIR", "where the databases go: DIR/1.db, DIR/2.db, ..., none of them there yet", 0, 0},
    {"batch", 0, ISO_ARG_INT, AT(batch), "N", "images encoded at a time (default: 128)", 1, 512},
    {"rounds", 0, ISO_ARG_INT, AT(rounds), "N", "how many times (default: 1)", 1, MAX_ROUNDS},
    {"threads", 0, ISO_ARG_INT, AT(threads), "N", "threads (default: all)", 1, 1024},
    {NULL, 0, ISO_ARG_FLAG, 0, NULL, NULL, 0, 0},
};

static const iso_command command = {
    "benchencode", "benchencode --images DIR --model M --output DIR [options]",
    "Does what `indexer encode` does with a folder that it has not seen, from listing the folder to the last commit, and prints\n"
    "one line of JSON: images, median seconds, FLOPs an image from the plan, the rate of OpenBLAS's sgemm (2048 x 2048 x 2048,\n"
    "between the rounds, the same threads), and the share of that rate that decoding, encoding and storing together reach.",
    options, NULL,
};

static iso_status encode(void *ctx, const uint8_t *pixels, int64_t n, float *vectors, iso_error *err)
{
    return iso_encoder_run(ctx, pixels, n, vectors, err);
}

static void skipped(void *ctx, const char *path, const char *reason)
{
    (void)ctx;
    fprintf(stderr, "skipped %s: %s\n", path, reason);
}

static iso_status run_once(const config *c, const iso_model *m, iso_encoder *e, int round, iso_encode_counts *counts, iso_error *err)
{
    char *db = iso_format("%s/%d.db", c->output, round + 1);
    if (!db) return iso_fail_memory(err);
    iso_store_found found;
    iso_status status = iso_store_look(db, &found, err);
    if (!status && found == ISO_STORE_COMPLETE) status = iso_fail(err, ISO_E_ARGUMENT, "%s is there already", db);
    iso_encode_spec spec = {.images = c->images, .db = db, .dim = iso_model_dim(m), .digest = iso_model_digest(m), .batch = (int)c->batch,
                            .threads = (int)c->threads, .encode = encode, .encode_ctx = e, .skipped = skipped};
    if (!status) status = iso_encode(&spec, counts, err);
    if (!status && counts->skipped) status = iso_fail(err, ISO_E_FORMAT, "%" PRId64 " files could not be used", counts->skipped);
    free(db);
    return status;
}

static iso_status bench(const config *c, iso_error *err)
{
    static double seconds[MAX_ROUNDS], cpu[MAX_ROUNDS], rates[MAX_ROUNDS + 1];
    iso_model *m = NULL;
    iso_encoder *e = NULL;
    iso_encode_counts counts = {0};
    const size_t n = (size_t)BENCH_SGEMM * BENCH_SGEMM;
    if (!c->images || !c->model || !c->output) return iso_fail(err, ISO_E_ARGUMENT, "--images, --model and --output are needed");
    float *a = iso_calloc(3 * n, sizeof *a);
    if (!a) return iso_fail_memory(err);
    for (size_t i = 0; i < 2 * n; i++) a[i] = (float)(i % 1021) / 1021 - 0.5f;
    bench_sgemm_rate(a, a + n, a + 2 * n); /* first touch; OpenBLAS allocates its buffers */
    iso_status status = iso_model_load(c->model, &m, err);
    if (!status) status = iso_encoder_create(m, (int)c->batch, &e, err);
    rates[0] = bench_sgemm_rate(a, a + n, a + 2 * n);
    for (int i = 0; i < c->rounds && !status; i++) {
        double start = iso_now(), cpu_start = bench_cpu_seconds();
        status = run_once(c, m, e, i, &counts, err);
        seconds[i] = iso_now() - start;
        cpu[i] = bench_cpu_seconds() - cpu_start;
        rates[i + 1] = bench_sgemm_rate(a, a + n, a + 2 * n);
    }
    if (!status) {
        double t = bench_median(seconds, (int)c->rounds), rate = bench_median(rates, (int)c->rounds + 1), flops = iso_encoder_flops(e);
        printf("{\"images\":%" PRId64 ",\"batch\":%" PRId64 ",\"threads\":%" PRId64 ",\"seconds\":%.6g,\"cpu_seconds\":%.6g,\"flops\":%.6g,"
               "\"sgemm_gflops\":%.5g,\"share\":%.4f}\n",
               counts.encoded, c->batch, c->threads, t, bench_median(cpu, (int)c->rounds), flops, rate,
               flops * (double)counts.encoded / t / (rate * 1e9));
    }
    iso_encoder_free(e);
    iso_model_free(m);
    free(a);
    return status;
}

int main(int argc, char **argv)
{
    config c = {.batch = 128, .rounds = 1};
    iso_error err = {0};
    int code = iso_args_parse(&command, argc, argv, 1, &c, NULL);
    if (code != ISO_ARGS_RUN) return code;
    if (c.threads)
        omp_set_num_threads((int)c.threads);
    else
        c.threads = omp_get_max_threads();
    iso_interrupt_install();
    return iso_exit(command.program, bench(&c, &err), &err);
}
