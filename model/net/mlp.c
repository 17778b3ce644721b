/* Fully connected networks: PyTorch's Sequential(Linear, act, Linear, ..., out). */
#include <stdio.h>
#include <string.h>

#include "model/net/net.h"

static const struct {
    const char *name;
    iso_node (*build)(iso_graph *, iso_node);
} activations[] = {
    {"relu", iso_relu}, {"tanh", iso_tanh}, {"softplus", iso_softplus}, {"sigmoid", iso_sigmoid}, {"linear", NULL},
};

static int activation_number(const char *name)
{
    for (int i = 0; i < (int)(sizeof activations / sizeof *activations); i++)
        if (strcmp(name, activations[i].name) == 0) return i;
    return -1;
}

bool iso_activation_known(const char *name) { return activation_number(name) >= 0; }

iso_node iso_activation(iso_graph *g, const char *name, iso_node x)
{
    int i = activation_number(name);
    if (i < 0) return iso_graph_fail(g, "unknown activation %.40s", name);
    return activations[i].build ? activations[i].build(g, x) : x;
}

iso_node iso_parameter_named(iso_graph *g, const char *name, iso_shape shape)
{
    if (shape.ndim == 4) return iso_state_permuted(g, name, shape, 0, 2, 3, 1);
    return shape.ndim == 2 && shape.dim[1] > shape.dim[0] ? iso_state_permuted(g, name, shape, 1, 0, -1, -1) : iso_state(g, name, shape);
}

iso_node iso_parameter(iso_graph *g, const char *layer, const char *what, iso_shape shape)
{
    char name[48];
    snprintf(name, sizeof name, "%s.%s", layer, what);
    return iso_parameter_named(g, name, shape);
}

/* x W^T */
static iso_node multiply(iso_graph *g, const char *layer, iso_node x, int64_t outputs)
{
    if (x == ISO_NONE) return ISO_NONE;
    const int64_t inputs = iso_node_shape(g, x).dim[1];
    const iso_node w = iso_parameter(g, layer, "weight", iso_shape2(outputs, inputs)); /* [out, in], or [in, out] */
    return w == ISO_NONE ? ISO_NONE : iso_matmul(g, x, w, false, iso_node_shape(g, w).dim[1] == inputs);
}

static iso_node add_bias(iso_graph *g, const char *layer, iso_node x)
{
    return x == ISO_NONE ? ISO_NONE : iso_add(g, x, iso_parameter(g, layer, "bias", iso_shape1(iso_node_shape(g, x).dim[1])));
}

iso_node iso_linear(iso_graph *g, const char *name, iso_node x, int64_t outputs)
{
    return add_bias(g, name, multiply(g, name, x, outputs));
}

/* The name of the layer that gives size i. */
static const char *layer_name(const char *prefix, int i, char name[32])
{
    snprintf(name, 32, "%s.%d", prefix, 2 * (i - 1));
    return name;
}

iso_node iso_mlp_first(iso_graph *g, const char *prefix, const int *sizes, iso_node x)
{
    char name[32];
    if (x == ISO_NONE) return ISO_NONE;
    iso_shape shape = iso_node_shape(g, x);
    if (shape.ndim != 2 || shape.dim[1] != sizes[0])
        return iso_graph_fail(g, "%s takes [B, %d], not %s", prefix, sizes[0], iso_shape_text(&shape, (char[96]){0}));
    return multiply(g, layer_name(prefix, 1, name), x, sizes[1]);
}

iso_node iso_mlp_rest(iso_graph *g, const char *prefix, int layers, const int *sizes, const char *act, const char *out, iso_node x)
{
    for (int i = 1; i < layers; i++) {
        char name[32];
        layer_name(prefix, i, name);
        if (i > 1) x = multiply(g, name, x, sizes[i]);
        x = iso_activation(g, i < layers - 1 ? act : out, add_bias(g, name, x));
    }
    return x;
}

iso_node iso_mlp(iso_graph *g, const char *prefix, int layers, const int *sizes, const char *act, const char *out, iso_node x)
{
    return iso_mlp_rest(g, prefix, layers, sizes, act, out, iso_mlp_first(g, prefix, sizes, x));
}

void iso_linear_params(iso_param_list *list, const char *layer, int64_t inputs, int64_t outputs)
{
    iso_param_add(list, layer, "weight", iso_shape2(outputs, inputs), inputs);
    iso_param_add(list, layer, "bias", iso_shape1(outputs), inputs);
}

void iso_mlp_params(iso_param_list *list, const char *prefix, int layers, const int *sizes)
{
    for (int i = 1; i < layers; i++) {
        char name[32];
        iso_linear_params(list, layer_name(prefix, i, name), sizes[i - 1], sizes[i]);
    }
}
