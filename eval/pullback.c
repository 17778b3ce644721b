/* pullback.c: decoders as plans: reconstructions, codes to images, and metrics from batched JVPs. */
#include "eval/pullback.h"

#include <cblas.h>
#include <inttypes.h>
#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/blas.h"
#include "base/eigen.h"
#include "base/memory.h"
#include "model/method/method.h"
#include "model/net/net.h"
#include "model/philox.h"

/* Sizes of plans: large enough that the kernels are at their speed, small enough for the caches and for a model of width 128. */
enum { IMAGES = 16, TANGENTS = 16, SAMPLES = 8, CODES = 256 };
#define JACOBIANS ((int64_t)64 << 20) /* bytes of those of a batch, unless one sample takes more */
#define ROWS 256                      /* of J that are turned to double and summed at a time: they stay in the cache */
/* Beside few.c's. */
enum { STREAM_DELTA = 0x40000, STREAM_PERM };

/* --- plans over a model */

typedef struct machine {
    iso_graph *graph;
    iso_vars *vars;
    iso_plan *plan;
    iso_node in, out;
} machine;

static void machine_free(machine *k)
{
    iso_plan_free(k->plan);
    iso_vars_free(k->vars);
    iso_graph_free(k->graph);
    *k = (machine){0};
}

static iso_status machine_plan(machine *k, const iso_model *m, int outputs, const iso_node *output, int threads,
                               iso_error *err)
{
    iso_status status = iso_graph_check(k->graph, err);
    if (!status) status = iso_vars_create(iso_backend_cpu(), &k->vars, err);
    if (!status) status = iso_vars_add_states(k->vars, k->graph, outputs, output, err);
    if (!status) status = iso_model_to_vars(m, k->vars, err);
    if (status) return status;
    iso_plan_spec spec = {.vars = k->vars, .outputs = output, .output_count = outputs, .threads = threads};
    return iso_plan_create(k->graph, &spec, &k->plan, err);
}

/* codes [B, m] -> images [B, ISO_PIXELS] */
static iso_node decode(iso_graph *g, const iso_net *net, int64_t batch, iso_node code)
{
    iso_node z = net->flow_depth > 0 ? iso_flow_inverse(g, net, code) : code;
    return iso_reshape(g, iso_net_decode(g, net, z), iso_shape2(batch, ISO_PIXELS));
}

iso_status iso_pullback_supports(const iso_model *m, iso_error *err)
{
    const iso_net *net = iso_model_net(m);
    iso_status status = iso_net_check_decoder(net, err);
    if (status)
        return iso_fail_prefix(err, status,
                               "the geometry is a decoder's, and there is none to measure or to draw with");
    if (net->arch == ISO_ARCH_MLP && net->size[net->layers - 1] != ISO_PIXELS)
        return iso_fail(err, ISO_E_UNSUPPORTED, "this model takes %d numbers, not images of %d x %d",
                        net->size[net->layers - 1], ISO_SIDE, ISO_SIDE);
    return ISO_OK;
}

/* --- images and codes to images */

static void to_bytes(const float *x, int64_t n, uint8_t *out)
{
    for (int64_t i = 0; i < n; i++) {
        double byte = floor(((double)x[i] + 1) * 127.5 + 0.5);
        out[i] = byte >= 255 ? 255 : byte > 0 ? (uint8_t)byte : 0; /* NaN: 0 */
    }
}

iso_status iso_pullback_decode(const iso_model *m, const float *codes, int64_t n, uint8_t *pixels, iso_error *err)
{
    const iso_net *net = iso_model_net(m);
    machine k = {0};
    float *code = NULL, *x = NULL;
    iso_status status = iso_pullback_supports(m, err);
    if (status) return status;
    if (n < 0) return iso_fail(err, ISO_E_ARGUMENT, "a negative number of codes");
    code = iso_calloc(IMAGES, (size_t)net->latent * sizeof *code);
    x = iso_calloc(IMAGES, ISO_PIXELS * sizeof *x);
    k.graph = iso_graph_create();
    if (!code || !x || !k.graph) {
        status = iso_fail_memory(err);
        goto done;
    }
    k.in = iso_input(k.graph, "code", iso_shape2(IMAGES, net->latent));
    k.out = decode(k.graph, net, IMAGES, k.in);
    status = machine_plan(&k, m, 1, &k.out, 0, err);
    for (int64_t at = 0; at < n && !status; at += IMAGES) {
        int64_t now = n - at < IMAGES ? n - at : IMAGES;
        memcpy(code, codes + at * net->latent,
               (size_t)(now * net->latent) * sizeof *code); /* behind them older ones: thrown away */
        if ((status = iso_plan_write(k.plan, k.in, code, (int64_t)IMAGES * net->latent, err))) break;
        iso_plan_run(k.plan);
        if ((status = iso_plan_read(k.plan, k.out, x, (int64_t)IMAGES * ISO_PIXELS, err))) break;
        to_bytes(x, now * ISO_PIXELS, pixels + at * ISO_PIXELS);
    }
done:
    machine_free(&k);
    free(code);
    free(x);
    return status;
}

/* mu is the image's own, whatever the database's vector takes besides; through the flow and back, so that what is measured is
 * the decoder of the flow's codes. */
static void build_reconstruction(machine *k, const iso_net *net)
{
    iso_node mu, log_sigma;
    bool images = net->arch != ISO_ARCH_MLP;
    k->in =
        iso_input(k->graph, "x", images ? iso_shape4(IMAGES, ISO_SIDE, ISO_SIDE, 3) : iso_shape2(IMAGES, ISO_PIXELS));
    iso_net_encode(k->graph, net, k->in, &mu, &log_sigma);
    iso_node code = net->flow_depth > 0 ? iso_flow_forward(k->graph, net, mu) : mu;
    k->out = decode(k->graph, net, IMAGES, code);
}

iso_status iso_pullback_reconstruct(const iso_model *m, const uint8_t *pixels, int64_t n, uint8_t *decoded, double *mse,
                                    iso_error *err)
{
    machine k = {0};
    double sum = 0;
    iso_status status = iso_pullback_supports(m, err);
    if (status) return status;
    if (n < 1) return iso_fail(err, ISO_E_ARGUMENT, "no images");
    float *x = iso_calloc(IMAGES, ISO_PIXELS * sizeof *x), *y = iso_calloc(IMAGES, ISO_PIXELS * sizeof *y);
    k.graph = iso_graph_create();
    if (!x || !y || !k.graph) {
        status = iso_fail_memory(err);
        goto done;
    }
    build_reconstruction(&k, iso_model_net(m));
    status = machine_plan(&k, m, 1, &k.out, 0, err);
    for (int64_t at = 0; at < n && !status; at += IMAGES) {
        int64_t now = n - at < IMAGES ? n - at : IMAGES;
        iso_pixels_to_real(pixels + at * ISO_PIXELS, now * ISO_PIXELS, x);
        if ((status = iso_plan_write(k.plan, k.in, x, (int64_t)IMAGES * ISO_PIXELS, err))) break;
        iso_plan_run(k.plan);
        if ((status = iso_plan_read(k.plan, k.out, y, (int64_t)IMAGES * ISO_PIXELS, err))) break;
        for (int64_t i = 0; i < now * ISO_PIXELS; i++) sum += ((double)y[i] - x[i]) * ((double)y[i] - x[i]);
        if (decoded) to_bytes(y, now * ISO_PIXELS, decoded + at * ISO_PIXELS);
    }
    if (!status && !isfinite(sum))
        status =
            iso_fail(err, ISO_E_NUMERIC, "the model decodes images to numbers that are not finite; train it again");
    if (!status && mse) *mse = sum / ((double)n * ISO_PIXELS);
done:
    machine_free(&k);
    free(x);
    free(y);
    return status;
}

/* --- metrics */

typedef struct jacobian {
    machine k; /* in: the codes; one pass serves all tangents */
    int m, batch, tangents;
    int threads;
    iso_node tangent[TANGENTS], column[TANGENTS]; /* [batch, m], [batch, ISO_PIXELS] */
    float *code;                                  /* [batch, m] */
    float *tangent_data;                          /* [batch, m] */
    float *columns;                               /* [batch, ISO_PIXELS] as they come */
    float *J;                                     /* [batch, m, ISO_PIXELS]: transposed Jacobians */
    double *block;                                /* [threads, m, ROWS] */
} jacobian;

static void jacobian_free(jacobian *j)
{
    machine_free(&j->k);
    free(j->code);
    free(j->tangent_data);
    free(j->columns);
    free(j->J);
    free(j->block);
}

static iso_status jacobian_create(jacobian *j, const iso_model *model, int64_t n, int threads, iso_error *err)
{
    const iso_net *net = iso_model_net(model);
    int m = net->latent;
    int64_t each = (int64_t)m * ISO_PIXELS * (int64_t)sizeof(float), batch = JACOBIANS / each;
    batch = batch < 1 ? 1 : batch > SAMPLES ? SAMPLES : batch;
    int runs = (m + TANGENTS - 1) / TANGENTS;
    *j = (jacobian){.m = m,
                    .batch = (int)(n < batch ? n : batch),
                    .tangents = (m + runs - 1) / runs, /* the last run is full, or nearly */
                    .threads = threads > 0 ? threads : omp_get_max_threads()};
    size_t B = (size_t)j->batch;
    j->code = iso_calloc(B, (size_t)m * sizeof *j->code);
    j->tangent_data = iso_calloc(B, (size_t)m * sizeof *j->tangent_data);
    j->columns = iso_calloc(B, ISO_PIXELS * sizeof *j->columns);
    j->J = iso_calloc(B, (size_t)each);
    j->block = iso_calloc((size_t)j->threads, (size_t)m * ROWS * sizeof *j->block);
    iso_graph *g = j->k.graph = iso_graph_create();
    if (!j->code || !j->tangent_data || !j->columns || !j->J || !j->block || !g) return iso_fail_memory(err);

    j->k.in = iso_input(g, "code", iso_shape2(j->batch, m));
    j->k.out = decode(g, net, j->batch, j->k.in);
    for (int t = 0; t < j->tangents; t++) {
        char name[32];
        snprintf(name, sizeof name, "tangent.%d", t);
        j->tangent[t] = iso_input(g, name, iso_shape2(j->batch, m));
        j->column[t] = iso_jvp1(g, j->k.out, j->k.in, j->tangent[t]);
    }
    return machine_plan(&j->k, model, j->tangents, j->column, threads, err);
}

/* Columns first, first + 1, ... of the Jacobians at the codes in the plan. */
static iso_status find_columns(jacobian *j, int first, iso_error *err)
{
    iso_status status = ISO_OK;
    size_t row = (size_t)j->m;
    for (int t = 0; t < j->tangents && !status; t++) {
        for (int b = 0; b < j->batch && first + t < j->m; b++)
            j->tangent_data[(size_t)b * row + (size_t)(first + t)] = 1;
        status = iso_plan_write(j->k.plan, j->tangent[t], j->tangent_data, (int64_t)j->batch * j->m, err);
        for (int b = 0; b < j->batch && first + t < j->m; b++)
            j->tangent_data[(size_t)b * row + (size_t)(first + t)] = 0;
    }
    if (status) return status;
    iso_plan_run(j->k.plan);
    for (int t = 0; t < j->tangents && first + t < j->m && !status; t++) {
        status = iso_plan_read(j->k.plan, j->column[t], j->columns, (int64_t)j->batch * ISO_PIXELS, err);
        for (size_t b = 0; b < (size_t)j->batch && !status; b++)
            memcpy(j->J + (b * row + (size_t)(first + t)) * ISO_PIXELS, j->columns + b * ISO_PIXELS,
                   ISO_PIXELS * sizeof *j->J);
    }
    return status;
}

/* G = JtJ [m, m] from transposed J [m, ISO_PIXELS]; block [m, ROWS] is room. The products of floats are exact in double. */
static void gram(int m, const float *J, double *block, double *G)
{
    _Static_assert(ISO_PIXELS % ROWS == 0, "whole blocks");
    for (size_t at = 0; at < ISO_PIXELS; at += ROWS) {
        for (size_t i = 0; i < (size_t)m; i++)
            for (size_t r = 0; r < ROWS; r++) block[i * ROWS + r] = (double)J[i * ISO_PIXELS + at + r];
        cblas_dsyrk(CblasRowMajor, CblasUpper, CblasNoTrans, m, ROWS, 1, block, ROWS, at ? 1 : 0, G, m);
    }
    for (size_t i = 0; i < (size_t)m; i++)
        for (size_t k = 0; k < i; k++) G[i * (size_t)m + k] = G[k * (size_t)m + i];
}

static iso_status find_metrics(jacobian *j, const iso_pullback_spec *spec, iso_pullback *p, iso_error *err)
{
    size_t m = (size_t)p->m, size = m * m;
    iso_progress_pass(spec->progress, "measuring", "JVPs", p->images * p->m);
    for (int64_t at = 0; at < p->images; at += j->batch) {
        int64_t now = p->images - at < j->batch ? p->images - at : j->batch;
        memcpy(j->code, p->mixed + (size_t)at * m,
               (size_t)now * m * sizeof *j->code); /* behind them older ones: thrown away */
        iso_status status = iso_plan_write(j->k.plan, j->k.in, j->code, (int64_t)j->batch * p->m, err);
        if (status) return status;
        for (int first = 0; first < p->m; first += j->tangents) {
            if (iso_interrupted()) return iso_fail(err, ISO_E_INTERRUPTED, "interrupted while measuring");
            if ((status = find_columns(j, first, err))) return status;
            int64_t columns = first + j->tangents < p->m ? first + j->tangents : p->m;
            iso_progress_step(spec->progress, at * p->m + now * columns);
        }
        const int threads = j->threads < now ? j->threads : (int)now;
        if ((status = iso_blas_begin(threads, err))) return status;
#pragma omp parallel for schedule(dynamic) num_threads(threads)
        for (int64_t b = 0; b < now; b++)
            gram(p->m, j->J + (size_t)b * m * ISO_PIXELS, j->block + (size_t)omp_get_thread_num() * m * ROWS,
                 p->metric + (size_t)(at + b) * size);
        iso_blas_end(threads);
    }
    return ISO_OK;
}

/* --- codes */

static iso_status find_codes(const iso_model *m, const uint8_t *pixels, iso_pullback *p, iso_error *err)
{
    iso_encoder *e = NULL;
    iso_status status = iso_encoder_create(m, IMAGES, &e, err);
    if (!status) status = iso_encoder_run(e, pixels, p->images, p->code, err);
    iso_encoder_free(e);
    return status;
}

/* iso_mixup's formula, over all codes at once. */
static iso_status mix(const iso_pullback_spec *spec, iso_pullback *p, iso_error *err)
{
    int64_t n = p->images, *perm = iso_calloc((size_t)n, sizeof *perm);
    float *delta = iso_calloc((size_t)n, sizeof *delta);
    iso_status status = perm && delta ? ISO_OK : iso_fail_memory(err);
    if (!status) {
        iso_draw_uniform((iso_draw){spec->seed, STREAM_DELTA, 0}, -spec->eta, 1 + spec->eta, n, delta);
        iso_draw_permutation((iso_draw){spec->seed, STREAM_PERM, 0}, n, perm);
        for (int64_t i = 0; i < n; i++)
            for (int64_t k = 0; k < p->m; k++)
                p->mixed[i * p->m + k] =
                    delta[i] * p->code[i * p->m + k] + (1 - delta[i]) * p->code[perm[i] * p->m + k];
    }
    free(perm);
    free(delta);
    return status;
}

/* --- figures */

/* Marks those that are none with NaN. */
static iso_status sort_out(iso_pullback *p, int threads, iso_error *err)
{
    int64_t n = p->images;
    size_t size = (size_t)p->m * (size_t)p->m;
    iso_error *why = iso_calloc((size_t)n, sizeof *why); /* status ISO_OK: a metric */
    if (!why) return iso_fail_memory(err);
#pragma omp parallel for schedule(dynamic) num_threads(threads > 0 ? threads : omp_get_max_threads())
    for (int64_t i = 0; i < n; i++) {
        iso_status ignored = iso_geometry_check(p->m, p->metric + (size_t)i * size, &why[i]);
        (void)ignored; /* why has it */
    }
    iso_status status = ISO_OK;
    for (int64_t i = 0; i < n && !status; i++) {
        if (why[i].status == ISO_OK) continue;
        if (why[i].status != ISO_E_NUMERIC) status = iso_fail(err, why[i].status, "%s", why[i].message);
        if (p->left_out++ == 0)
            snprintf(p->left_out_reason, sizeof p->left_out_reason, "%.*s", (int)sizeof p->left_out_reason - 1,
                     why[i].message);
        for (size_t k = 0; k < size; k++) p->metric[(size_t)i * size + k] = NAN;
    }
    free(why);
    p->metrics = n - p->left_out;
    return status;
}

static void no_figures(iso_pullback *p)
{
    iso_geometry *g = &p->geometry;
    g->vor = g->mcn = g->cn = g->vpres = g->iso = g->vor_median = g->mcn_median = g->cn_median = g->log_det_median =
        NAN;
    p->magnification = p->magnification_spread = p->trace = p->ratio = NAN;
}

/* Metrics in a row for geometry.h: in place where none is left out, which is the usual case. */
static iso_status measure_metrics(iso_pullback *p, iso_error *err)
{
    size_t m = (size_t)p->m, size = m * m;
    double *good = p->metric, *copy = NULL, trace = 0, trace2 = 0;
    if (p->left_out) {
        if (!(good = copy = iso_calloc((size_t)p->metrics, size * sizeof *copy))) return iso_fail_memory(err);
        for (int64_t i = 0, to = 0; i < p->images; i++)
            if (!isnan(p->metric[(size_t)i * size]))
                memcpy(copy + size * (size_t)to++, p->metric + (size_t)i * size, size * sizeof *copy);
    }
    for (size_t i = 0; i < (size_t)p->metrics; i++) {
        for (size_t k = 0; k < m; k++) trace += good[i * size + k * m + k];
        for (size_t k = 0; k < size; k++) trace2 += good[i * size + k] * good[i * size + k];
    }
    p->ratio = trace2 / trace / trace * (double)p->metrics;
    p->trace = trace / ((double)p->metrics * (double)m);
    iso_status status = iso_geometry_metrics(p->metrics, p->m, good, &p->geometry, err);
    free(copy);
    if (status) return status;
    p->magnification = 0.5 * p->geometry.log_det_median / M_LN10;
    p->magnification_spread = 0.5 * sqrt(p->geometry.vpres) / M_LN10;
    if (p->metrics == 1) p->geometry.vor = p->geometry.vor_median = p->geometry.vpres = p->magnification_spread = NAN;
    return ISO_OK;
}

void iso_pullback_free(iso_pullback *p)
{
    if (!p) return;
    free(p->code);
    free(p->mixed);
    free(p->metric);
    *p = (iso_pullback){0};
}

static iso_status check(const iso_model *m, int64_t n, const iso_pullback_spec *spec, iso_error *err)
{
    if (n < 1) return iso_fail(err, ISO_E_ARGUMENT, "no images to measure the geometry on");
    if (!(spec->eta >= 0) || !(spec->eta <= 1e6)) return iso_fail(err, ISO_E_ARGUMENT, "eta must be 0 or more");
    return iso_pullback_supports(m, err);
}

iso_status iso_pullback_measure(const iso_model *m, const uint8_t *pixels, int64_t n, const iso_pullback_spec *spec,
                                iso_pullback *out, iso_error *err)
{
    iso_status status = check(m, n, spec, err);
    if (status) return status;
    jacobian j = {0};
    iso_pullback p = {.m = iso_model_net(m)->latent, .images = n};
    size_t row = (size_t)p.m;
    p.code = iso_calloc((size_t)n, row * sizeof *p.code);
    p.mixed = iso_calloc((size_t)n, row * sizeof *p.mixed);
    p.metric = iso_calloc((size_t)n, row * row * sizeof *p.metric);
    status = p.code && p.mixed && p.metric ? ISO_OK : iso_fail_memory(err);
    if (!status) status = iso_pullback_reconstruct(m, pixels, n, NULL, &p.mse, err);
    if (!status) status = find_codes(m, pixels, &p, err);
    if (!status) status = mix(spec, &p, err);
    if (!status) status = jacobian_create(&j, m, n, spec->threads, err);
    if (!status) status = find_metrics(&j, spec, &p, err);
    jacobian_free(&j);
    if (!status) status = sort_out(&p, spec->threads, err);
    if (!status && p.metrics > 0) status = measure_metrics(&p, err);
    if (status) {
        iso_pullback_free(&p);
        return status;
    }
    if (p.metrics == 0) {
        no_figures(&p);
        status = iso_fail(err, ISO_E_NUMERIC,
                          "none of the %" PRId64
                          " metrics can be used (%s): does the decoder follow its codes? Its mean squared "
                          "reconstruction error is %.6g",
                          n, p.left_out_reason, p.mse);
    }
    *out = p;
    return status;
}

/* --- principal directions */

static void covariance(const float *codes, int64_t n, int m, const double *mean, double *block, double *C)
{
    for (int64_t at = 0; at < n; at += CODES) {
        int64_t now = n - at < CODES ? n - at : CODES;
        for (int64_t i = 0; i < now; i++)
            for (int k = 0; k < m; k++) block[i * m + k] = (double)codes[(at + i) * m + k] - mean[k];
        cblas_dsyrk(CblasRowMajor, CblasUpper, CblasTrans, m, (blasint)now, 1 / (double)n, block, m, 1, C, m);
    }
}

iso_status iso_pullback_axes(const float *codes, int64_t n, int m, double *mean, double *axis, double *deviation,
                             iso_error *err)
{
    if (n < 1 || m < 1) return iso_fail(err, ISO_E_ARGUMENT, "no codes to find principal directions in");
    for (int64_t i = 0; i < n * m; i++)
        if (!isfinite(codes[i])) return iso_fail(err, ISO_E_NUMERIC, "code %" PRId64 " is not finite", i / m);
    size_t row = (size_t)m;
    double *center = iso_calloc(row, sizeof *center), *value = iso_calloc(row, sizeof *value);
    double *C = iso_calloc(row * row, sizeof *C), *block = iso_calloc((size_t)CODES * row, sizeof *block);
    iso_status status = center && value && C && block ? ISO_OK : iso_fail_memory(err);
    if (status) goto done;
    if ((status = iso_blas_begin(1, err))) goto done;
    for (int64_t i = 0; i < n; i++)
        for (int k = 0; k < m; k++) center[k] += (double)codes[i * m + k] / (double)n;
    covariance(codes, n, m, center, block, C);
    status = iso_eigen(m, C, value, err); /* the upper triangle is enough */
    iso_blas_end(1);
    if (status) goto done;
    for (int k = 0; k < m; k++) {
        const double *from = C + (size_t)(m - 1 - k) * row;
        int largest = 0;
        for (int i = 1; i < m; i++)
            if (fabs(from[i]) > fabs(from[largest])) largest = i;
        for (int i = 0; i < m; i++) axis[(size_t)k * row + (size_t)i] = from[largest] < 0 ? -from[i] : from[i];
        deviation[k] = sqrt(fmax(0, value[m - 1 - k]));
    }
    memcpy(mean, center, row * sizeof *mean);
done:
    free(center);
    free(value);
    free(C);
    free(block);
    return status;
}
