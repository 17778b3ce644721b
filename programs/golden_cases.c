/* The cases of golden files: one row and one function each. */
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "eval/geometry.h"
#include "eval/precision.h"
#include "model/method/method.h"
#include "model/net/net.h"
#include "programs/golden_run.h"

static int64_t rows(const golden *t, iso_node x) { return x == ISO_NONE ? 0 : iso_node_shape(t->graph, x).dim[0]; }

/* PyTorch's [B, C, H, W] from the engine's [B, H, W, C], as rows [B, D]; other data are rows already. */
static iso_node torch_rows(iso_graph *g, iso_node x)
{
    if (x == ISO_NONE) return ISO_NONE;
    iso_shape s = iso_node_shape(g, x);
    if (s.ndim != 4) return x;
    return iso_reshape(g, iso_permute(g, x, 0, 3, 1, 2), iso_shape2(s.dim[0], s.dim[1] * s.dim[2] * s.dim[3]));
}

/* [B, 1] to [B] */
static iso_node list(iso_graph *g, iso_node x) { return x == ISO_NONE ? ISO_NONE : iso_reshape(g, x, iso_shape1(iso_node_shape(g, x).dim[0])); }

static void relaxed_distortion(golden *t)
{
    iso_graph *g = t->graph;
    iso_net net;
    if (!golden_net(t, &net)) return;
    iso_node z = golden_input(t, "z", 2), delta = golden_input(t, "delta", 2), v = golden_input(t, "v", 2);
    iso_node perm = golden_index(t, "perm", rows(t, z));
    iso_distortion d = iso_relaxed_distortion(g, iso_probe_decoder(g, &net, z, perm, delta, v));
    golden_output(t, "out.z_augmented", iso_mixup(g, z, perm, delta));
    golden_output(t, "out.Jv", torch_rows(g, d.jv));
    golden_output(t, "out.JTJv", d.jtjv);
    golden_output(t, "out.trG", d.trace);
    golden_output(t, "out.trG2", d.trace2);
    golden_loss(t, "out.loss", d.ratio);
}

static void flat_manifold(golden *t)
{
    iso_graph *g = t->graph;
    iso_net net;
    if (!golden_net(t, &net)) return;
    iso_node z = golden_input(t, "z", 2), delta = golden_input(t, "delta", 2), v = golden_input(t, "v", 2);
    iso_flat f = iso_flat_manifold(g, iso_probe_decoder(g, &net, z, golden_index(t, "perm", rows(t, z)), delta, v));
    golden_output(t, "out.c", f.c);
    golden_loss(t, "out.loss", f.loss);
}

static void flattening(golden *t)
{
    iso_graph *g = t->graph;
    iso_net net;
    if (!golden_net(t, &net)) return;
    if (net.flow_depth == 0) {
        iso_graph_fail(g, "the file's metadata has no depth");
        return;
    }
    iso_node z = golden_input(t, "z", 2), delta = golden_input(t, "delta", 2), v = golden_input(t, "v", 2);
    iso_node perm = golden_index(t, "perm", rows(t, z));
    iso_flattening f = iso_flatten(g, &net, z, perm, delta, v, golden_number(t, "beta"));
    golden_output(t, "out.flow", f.code);
    golden_output(t, "out.z_augmented", f.mixed);
    golden_output(t, "out.Jv", torch_rows(g, f.distortion.jv));
    golden_output(t, "out.JTJv", f.distortion.jtjv);
    golden_output(t, "out.trG", f.distortion.trace);
    golden_output(t, "out.trG2", f.distortion.trace2);
    golden_output(t, "out.distortion", f.distortion.ratio);
    golden_loss(t, "out.loss", f.loss);
}

static void elbo(golden *t)
{
    iso_graph *g = t->graph;
    iso_net net;
    if (!golden_net(t, &net)) return;
    bool images = net.arch == ISO_ARCH_CELEBA;
    iso_node x = golden_input(t, "x", images ? 4 : 2), eps = golden_input(t, "eps", 2), mu, log_sigma;
    if (images) x = iso_permute(g, x, 0, 2, 3, 1); // [B, H, W, C]
    iso_net_encode(g, &net, x, &mu, &log_sigma);
    iso_node z = iso_reparameterise(g, mu, log_sigma, eps);
    iso_node nll = iso_gaussian_nll(g, x, iso_net_decode(g, &net, z), iso_state(g, "sigma", iso_shape0()));
    iso_node kl = iso_gaussian_kl(g, mu, log_sigma);
    golden_output(t, "out.mu", mu);
    golden_output(t, "out.log_sigma", log_sigma);
    golden_output(t, "out.z", z);
    golden_output(t, "out.nll", list(g, nll));
    golden_output(t, "out.kl", list(g, kl));
    golden_loss(t, "out.loss", iso_mean_all(g, iso_add(g, nll, kl)));
}

/* --- precision at K: no graph; both columns are the same computation */

typedef struct retrieval {
    int64_t rows, columns, count; /* count: attributes */
    float *vectors;
    uint8_t *attributes;
} retrieval;

static iso_status read_retrieval(const iso_st *f, const char *vectors, const char *attributes, retrieval *r, iso_error *err)
{
    const iso_st_tensor *v = iso_st_find(f, vectors), *a = iso_st_find(f, attributes);
    if (!v || !a) return iso_fail(err, ISO_E_FORMAT, "the file has no %s", v ? attributes : vectors);
    if (v->ndim != 2 || a->ndim != 2 || v->dim[0] != a->dim[0] || v->count < 1 || a->count < 1 || a->dtype != ISO_ST_I64 ||
        v->dim[1] > 1 << 20 || a->dim[1] > 1 << 12)
        return iso_fail(err, ISO_E_FORMAT, "%s and %s do not fit together", vectors, attributes);
    r->rows = v->dim[0];
    r->columns = v->dim[1];
    r->count = a->dim[1];
    r->vectors = iso_calloc((size_t)v->count, sizeof *r->vectors);
    r->attributes = iso_calloc((size_t)a->count, 1);
    if (!r->vectors || !r->attributes) return iso_fail_memory(err);
    for (int64_t i = 0; i < a->count; i++) {
        int64_t value;
        memcpy(&value, (const char *)a->data + i * 8, 8);
        if (value != 0 && value != 1) return iso_fail(err, ISO_E_FORMAT, "%s holds something other than 0 and 1", attributes);
        r->attributes[i] = (uint8_t)value;
    }
    return iso_st_f32(v, r->vectors, err);
}

/* Rows of P@K, and the attributes they belong to. */
static void report_rows(golden *t, const char *name, const char *pairs, int n, const iso_precision_row *row)
{
    double *at = iso_calloc((size_t)n, ISO_KS * sizeof *at), *pair = iso_calloc((size_t)n, 2 * sizeof *pair);
    if (!at || !pair) iso_graph_fail(t->graph, "out of memory");
    for (int i = 0; at && pair && i < n; i++) {
        memcpy(at + i * ISO_KS, row[i].at, sizeof row[i].at);
        pair[2 * i] = row[i].a;
        pair[2 * i + 1] = row[i].b;
    }
    if (at && pair) {
        golden_values(t, name, iso_shape2(n, ISO_KS), at);
        if (pairs) golden_values(t, pairs, iso_shape2(n, 2), pair);
    }
    free(at);
    free(pair);
}

static void precision_at_k(golden *t)
{
    iso_error err;
    retrieval train = {0}, test = {0};
    iso_precision *p = NULL;
    double k[ISO_KS];
    iso_status s = read_retrieval(t->file, "in.train", "in.train_attributes", &train, &err);
    if (!s) s = read_retrieval(t->file, "in.test", "in.test_attributes", &test, &err);
    if (!s && (train.columns != test.columns || train.count != test.count))
        s = iso_fail(&err, ISO_E_FORMAT, "in.train and in.test do not fit together");
    const float **query = s ? NULL : iso_vector_rows((int)train.columns, train.rows, train.vectors);
    const float **ranked = s ? NULL : iso_vector_rows((int)test.columns, test.rows, test.vectors);
    if (!s && (!query || !ranked)) s = iso_fail_memory(&err);
    if (!s) s = iso_precision_at_k((int)train.columns, train.rows, query, train.attributes, test.rows, ranked,
                                   test.attributes, (int)train.count, NULL, &p, &err);
    free(query), free(ranked);
    if (s) {
        iso_graph_fail(t->graph, "%s", err.message);
        goto out;
    }
    for (int i = 0; i < ISO_KS; i++) k[i] = iso_precision_k[i];
    golden_values(t, "out.K", iso_shape1(ISO_KS), k);
    report_rows(t, "out.single", NULL, p->singles, p->single);
    report_rows(t, "out.double", "out.pairs", p->doubles, p->dbl);
    golden_values(t, "out.single_mean", iso_shape1(ISO_KS), p->single_mean);
    golden_values(t, "out.double_mean", iso_shape1(ISO_KS), p->double_mean);
out:
    iso_precision_free(p);
    free(train.vectors);
    free(train.attributes);
    free(test.vectors);
    free(test.attributes);
}

/* --- geometry: no graph either */

static void geometry_metrics(golden *t)
{
    iso_error err;
    iso_geometry result;
    iso_status s = ISO_OK;
    const iso_st_tensor *G = iso_st_find(t->file, "in.G");
    if (!G || G->ndim != 3 || G->dim[1] != G->dim[2] || G->dim[1] > 1 << 12 || G->count < 1) {
        iso_graph_fail(t->graph, G ? "in.G is no batch of square matrices" : "the file has no in.G");
        return;
    }
    double *metric = iso_calloc((size_t)G->count, sizeof *metric);
    if (!metric) s = iso_fail_memory(&err);
    if (!s) s = iso_st_f64(G, metric, &err);
    if (!s) s = iso_geometry_metrics(G->dim[0], (int)G->dim[1], metric, &result, &err);
    free(metric);
    if (s) {
        iso_graph_fail(t->graph, "%s", err.message);
        return;
    }
    golden_values(t, "out.VoR", iso_shape0(), &result.vor);
    golden_values(t, "out.MCN", iso_shape0(), &result.mcn);
    golden_values(t, "out.CN", iso_shape0(), &result.cn);
    golden_values(t, "out.VPres", iso_shape0(), &result.vpres);
    golden_values(t, "out.ISO", iso_shape0(), &result.iso);
}

static const golden_case cases[] = {
    {"relaxed_distortion", relaxed_distortion},
    {"flat_manifold", flat_manifold},
    {"elbo", elbo},
    {"flattening", flattening},
    {"precision_at_k", precision_at_k},
    {"geometry_metrics", geometry_metrics},
};

const golden_case *golden_case_find(const char *name)
{
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        if (strcmp(name, cases[i].name) == 0) return &cases[i];
    return NULL;
}
