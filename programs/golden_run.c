#include "programs/golden_run.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "model/net/net.h"

/* --- from the file to the graph */

static const iso_st_tensor *find_input(golden *t, const char *name)
{
    char full[64];
    snprintf(full, sizeof full, "in.%s", name);
    const iso_st_tensor *tensor = iso_st_find(t->file, full);
    if (!tensor) iso_graph_fail(t->graph, "the file has no %s", full);
    if (tensor && t->inputs == GOLDEN_INPUTS) {
        iso_graph_fail(t->graph, "a case of too many inputs");
        return NULL;
    }
    return tensor;
}

iso_node golden_input(golden *t, const char *name, int ndim)
{
    const iso_st_tensor *tensor = find_input(t, name);
    if (!tensor) return ISO_NONE;
    char text[192];
    iso_shape shape = {.ndim = ndim};
    bool good = tensor->ndim == ndim && tensor->count > 0 && (tensor->dtype == ISO_ST_F32 || tensor->dtype == ISO_ST_F64);
    if (!good)
        return iso_graph_fail(t->graph, "%s is %s where numbers of %d axes are needed", tensor->name, iso_st_shape_text(tensor, text), ndim);
    for (int i = 0; i < ndim; i++) shape.dim[i] = tensor->dim[i];
    iso_node node = iso_input(t->graph, name, shape);
    t->input[t->inputs].tensor = tensor;
    t->input[t->inputs++].node = node;
    return node;
}

iso_node golden_index(golden *t, const char *name, int64_t bound)
{
    const iso_st_tensor *tensor = find_input(t, name);
    if (!tensor) return ISO_NONE;
    if (tensor->dtype != ISO_ST_I64 || tensor->ndim != 1 || tensor->count < 1)
        return iso_graph_fail(t->graph, "%s is not a list of whole numbers", tensor->name);
    for (int64_t i = 0; i < tensor->count; i++) {
        int64_t value;
        memcpy(&value, (const char *)tensor->data + i * 8, 8);
        if (value < 0 || value >= bound)
            return iso_graph_fail(t->graph, "%s holds %" PRId64 " where there are %" PRId64 " rows", tensor->name, value, bound);
    }
    iso_node node = iso_input_index(t->graph, name, tensor->count);
    t->input[t->inputs].tensor = tensor;
    t->input[t->inputs].index = true;
    t->input[t->inputs++].node = node;
    return node;
}

static const char *need_meta(golden *t, const char *key)
{
    const char *text = iso_st_meta(t->file, key);
    if (!text) iso_graph_fail(t->graph, "the file's metadata has no %s", key);
    return text;
}

double golden_number(golden *t, const char *key)
{
    const char *text = need_meta(t, key);
    if (!text) return 0;
    char *end;
    double value = strtod(text, &end);
    if (end == text || *end || !isfinite(value)) iso_graph_fail(t->graph, "%s is not a number: %.40s", key, text);
    return value;
}

static int read_int(golden *t, const char *key)
{
    double value = golden_number(t, key);
    if (!(value >= 1 && value <= 1 << 20) || value != floor(value)) {
        iso_graph_fail(t->graph, "%s is not a size", key);
        return 0;
    }
    return (int)value;
}

static bool read_word(golden *t, const char *key, char out[16])
{
    const char *text = need_meta(t, key);
    if (!text) return false;
    if (strlen(text) > 15) {
        iso_graph_fail(t->graph, "unknown %s %.40s", key, text);
        return false;
    }
    strcpy(out, text);
    return true;
}

static void read_mlp(golden *t, iso_net *net)
{
    const char *sizes = need_meta(t, "sizes");
    if (!sizes || !read_word(t, "act", net->act) || !read_word(t, "out", net->out)) return;
    net->arch = ISO_ARCH_MLP;
    net->layers = iso_sizes_parse(sizes, net->size);
    if (net->layers < 2) iso_graph_fail(t->graph, "sizes that are no network: %.40s", sizes);
    /* With an encoder in the file, sizes are the encoder's and the decoder's are the reverse. */
    if (iso_st_find(t->file, "param.encoder.0.weight"))
        for (int i = 0, j = net->layers - 1; i < j; i++, j--) {
            int swap = net->size[i];
            net->size[i] = net->size[j];
            net->size[j] = swap;
        }
    net->latent = net->size[0];
}

bool golden_net(golden *t, iso_net *net)
{
    memset(net, 0, sizeof *net);
    const char *kind = need_meta(t, "net");
    if (!kind) return false;
    if (strcmp(kind, "mlp") == 0) {
        read_mlp(t, net);
    } else if (strcmp(kind, "celeba") == 0 || strcmp(kind, "celeba_decoder") == 0) {
        net->arch = ISO_ARCH_CELEBA;
        net->width = read_int(t, "width");
        net->latent = read_int(t, "latent");
    } else {
        iso_graph_fail(t->graph, "unknown net %.40s", kind);
    }
    if (iso_st_meta(t->file, "depth")) {
        net->flow_depth = read_int(t, "depth");
        net->flow_length = read_int(t, "length");
    }
    iso_error err;
    if (iso_graph_check(t->graph, NULL)) return false;
    if (iso_net_check(net, &err)) iso_graph_fail(t->graph, "%s", err.message);
    return iso_graph_check(t->graph, NULL) == ISO_OK;
}

/* --- comparing */

static bool is_expected(const char *name) { return strncmp(name, "out.", 4) == 0 || strncmp(name, "grad.", 5) == 0; }

static int tensor_number(const golden *t, const iso_st_tensor *tensor) { return (int)(tensor - iso_st_at(t->file, 0)); }

static bool same_shape(golden *t, const iso_st_tensor *tensor, iso_shape shape)
{
    char have[192], want[96];
    if (iso_st_is_shape(tensor, &shape)) return true;
    iso_graph_fail(t->graph, "%.80s has shape %s where the case computes %s", tensor->name, iso_st_shape_text(tensor, have),
                   iso_shape_text(&shape, want));
    return false;
}

/* |got - want| / |want|, the absolute error where want is zero. */
static double relative_error(const double *got, const double *want, int64_t n)
{
    double difference = 0, size = 0;
    for (int64_t i = 0; i < n; i++) {
        difference += (got[i] - want[i]) * (got[i] - want[i]);
        size += want[i] * want[i];
    }
    return size == 0 ? sqrt(difference) : sqrt(difference) / sqrt(size);
}

static iso_status want_values(const iso_st_tensor *tensor, double *want, iso_error *err)
{
    if (tensor->dtype != ISO_ST_I64) return iso_st_f64(tensor, want, err);
    for (int64_t i = 0; i < tensor->count; i++) {
        int64_t value;
        memcpy(&value, (const char *)tensor->data + i * 8, 8);
        want[i] = (double)value;
    }
    return ISO_OK;
}

static iso_status compare(golden *t, const iso_st_tensor *tensor, const double *got, iso_error *err)
{
    double *want = iso_calloc((size_t)tensor->count, sizeof *want);
    if (!want) return iso_fail_memory(err);
    iso_status s = want_values(tensor, want, err);
    if (!s) {
        double e = relative_error(got, want, tensor->count);
        if (t->verbose) fprintf(stderr, "  %.2e  %.80s\n", e, tensor->name);
        if (!t->worst_name || (!isnan(t->worst) && !(e <= t->worst))) { /* a NaN is worse than any number */
            t->worst = e;
            t->worst_name = tensor->name;
        }
        t->compared[tensor_number(t, tensor)] = true;
    }
    free(want);
    return s;
}

void golden_values(golden *t, const char *name, iso_shape shape, const double *values)
{
    const iso_st_tensor *tensor = iso_st_find(t->file, name);
    iso_error err;
    if (!tensor || !same_shape(t, tensor, shape)) return;
    if (compare(t, tensor, values, &err)) iso_graph_fail(t->graph, "%s", err.message);
}

static void add_output(golden *t, const iso_st_tensor *tensor, iso_node node)
{
    if (node == ISO_NONE || !same_shape(t, tensor, iso_node_shape(t->graph, node))) return;
    int i = tensor_number(t, tensor);
    if (t->compared[i]) {
        iso_graph_fail(t->graph, "%.80s is computed twice", tensor->name);
        return;
    }
    t->compared[i] = true;
    t->output[t->outputs].tensor = tensor;
    t->output[t->outputs++].node = node;
}

void golden_output(golden *t, const char *name, iso_node node)
{
    const iso_st_tensor *tensor = iso_st_find(t->file, name);
    if (tensor) add_output(t, tensor, node);
}

/* The input or the state of that name. */
static iso_node find_source(const golden *t, const char *name)
{
    for (int i = 0; i < iso_graph_size(t->graph); i++) {
        iso_op op = iso_node_op(t->graph, i);
        const char *have = iso_node_name(t->graph, i);
        if ((op == ISO_OP_INPUT || op == ISO_OP_STATE) && have && strcmp(have, name) == 0) return i;
    }
    return ISO_NONE;
}

void golden_loss(golden *t, const char *name, iso_node loss)
{
    golden_output(t, name, loss);
    int n = iso_st_count(t->file), sources = 0;
    const iso_st_tensor **tensor = iso_calloc((size_t)n, sizeof *tensor);
    iso_node *source = iso_calloc((size_t)n, sizeof *source), *gradient = iso_calloc((size_t)n, sizeof *gradient);
    if (!tensor || !source || !gradient) iso_graph_fail(t->graph, "out of memory");
    for (int i = 0; tensor && source && gradient && i < n; i++) {
        const iso_st_tensor *expected = iso_st_at(t->file, i);
        if (strncmp(expected->name, "grad.", 5) != 0) continue;
        iso_node node = find_source(t, expected->name + 5);
        if (node == ISO_NONE) {
            iso_graph_fail(t->graph, "%.80s: the case has no such parameter or input", expected->name);
            continue;
        }
        tensor[sources] = expected;
        source[sources++] = node;
    }
    if (sources > 0 && iso_graph_check(t->graph, NULL) == ISO_OK) {
        iso_node one = iso_one(t->graph);
        iso_vjp(t->graph, 1, &loss, &one, sources, source, gradient);
        for (int i = 0; i < sources; i++) add_output(t, tensor[i], iso_state_restored(t->graph, source[i], gradient[i]));
    }
    free(tensor);
    free(source);
    free(gradient);
}

/* --- running */

/* The file has every parameter in the shape that the metadata imply: before anything of that size is allocated. */
static iso_status check_params(golden *t, iso_error *err)
{
    for (int i = 0; i < iso_graph_size(t->graph); i++) {
        if (iso_node_op(t->graph, i) != ISO_OP_STATE) continue;
        char full[80], have[192], want[96];
        snprintf(full, sizeof full, "param.%s", iso_node_name(t->graph, i));
        const iso_st_tensor *tensor = iso_st_find(t->file, full);
        iso_shape shape = iso_state_shape(t->graph, i);
        if (!tensor) return iso_fail(err, ISO_E_FORMAT, "the file has no %s", full);
        if (!iso_st_is_shape(tensor, &shape))
            return iso_fail(err, ISO_E_FORMAT, "%s is %s where the network has %s", full, iso_st_shape_text(tensor, have),
                            iso_shape_text(&shape, want));
    }
    return ISO_OK;
}

static iso_status write_params(golden *t, iso_vars *vars, iso_error *err)
{
    for (int i = 0; i < iso_vars_count(vars); i++) {
        char full[80];
        snprintf(full, sizeof full, "param.%s", iso_vars_name(vars, i));
        const iso_st_tensor *tensor = iso_st_find(t->file, full);
        float *data = iso_calloc((size_t)tensor->count, sizeof *data);
        if (!data) return iso_fail_memory(err);
        iso_status s = iso_st_f32(tensor, data, err);
        if (!s) s = iso_vars_write(vars, iso_vars_name(vars, i), data, tensor->count, err);
        free(data);
        if (s) return s;
    }
    return ISO_OK;
}

static iso_status write_inputs(golden *t, iso_plan *plan, iso_error *err)
{
    for (int i = 0; i < t->inputs; i++) {
        const iso_st_tensor *tensor = t->input[i].tensor;
        void *data = iso_calloc((size_t)tensor->count, 8);
        if (!data) return iso_fail_memory(err);
        iso_status s = t->input[i].index ? iso_st_i64(tensor, data, err) : iso_st_f64(tensor, data, err);
        if (!s) s = t->input[i].index ? iso_plan_write_index(plan, t->input[i].node, data, tensor->count, err)
                                      : iso_plan_write_f64(plan, t->input[i].node, data, tensor->count, err);
        free(data);
        if (s) return s;
    }
    return ISO_OK;
}

static iso_status compare_outputs(golden *t, const iso_plan *plan, iso_error *err)
{
    for (int i = 0; i < t->outputs; i++) {
        const iso_st_tensor *tensor = t->output[i].tensor;
        double *got = iso_calloc((size_t)tensor->count, sizeof *got);
        if (!got) return iso_fail_memory(err);
        iso_status s = iso_plan_read_f64(plan, t->output[i].node, got, tensor->count, err);
        if (!s) s = compare(t, tensor, got, err);
        free(got);
        if (s) return s;
    }
    return ISO_OK;
}

static iso_status run_graph(golden *t, const iso_backend *backend, iso_error *err)
{
    iso_vars *vars = NULL;
    iso_plan *plan = NULL;
    iso_node *node = iso_calloc((size_t)t->outputs, sizeof *node);
    if (!node) return iso_fail_memory(err);
    int nodes = 0;
    for (int i = 0; i < t->outputs; i++) { /* equal expressions are one node */
        int j = 0;
        while (j < nodes && node[j] != t->output[i].node) j++;
        if (j == nodes) node[nodes++] = t->output[i].node;
    }
    iso_status s = check_params(t, err);
    if (!s) s = iso_vars_create(backend, &vars, err);
    if (!s) s = iso_vars_add_states(vars, t->graph, nodes, node, err);
    if (!s) s = write_params(t, vars, err);
    iso_plan_spec spec = {.vars = vars, .outputs = node, .output_count = nodes};
    if (!s) s = iso_plan_create(t->graph, &spec, &plan, err);
    if (!s) s = write_inputs(t, plan, err);
    if (!s) {
        iso_plan_run(plan);
        s = compare_outputs(t, plan, err);
    }
    iso_plan_free(plan);
    iso_vars_free(vars);
    free(node);
    return s;
}

/* Every expected tensor was compared, and there was one. */
static iso_status check_complete(const golden *t, iso_error *err)
{
    for (int i = 0; i < iso_st_count(t->file); i++) {
        const char *name = iso_st_at(t->file, i)->name;
        if (is_expected(name) && !t->compared[i]) return iso_fail(err, ISO_E_FORMAT, "the case does not compute %.80s", name);
    }
    if (!t->worst_name) return iso_fail(err, ISO_E_FORMAT, "the file has nothing to compare with");
    return ISO_OK;
}

iso_status golden_run(const iso_st *file, const golden_case *c, const iso_backend *backend, bool verbose, double *worst,
                      const char **worst_name, iso_error *err)
{
    golden t = {.file = file, .verbose = verbose};
    iso_status s;
    size_t tensors = (size_t)iso_st_count(file);
    t.graph = iso_graph_create();
    t.output = iso_calloc(tensors, sizeof *t.output);
    t.compared = iso_calloc(tensors, sizeof *t.compared);
    if (!t.graph || !t.output || !t.compared) {
        s = iso_fail_memory(err);
        goto out;
    }
    c->build(&t);
    s = iso_graph_check(t.graph, err);
    if (!s && t.outputs > 0) s = run_graph(&t, backend, err);
    if (!s) s = check_complete(&t, err);
    if (s) goto out;
    *worst = t.worst;
    *worst_name = t.worst_name;
out:
    free(t.output);
    free(t.compared);
    iso_graph_free(t.graph);
    return s;
}
