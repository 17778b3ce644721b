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

iso_node iso_linear(iso_graph *g, const char *name, iso_node x, int64_t outputs)
{
    char weight[48], bias[48];
    snprintf(weight, sizeof weight, "%s.weight", name);
    snprintf(bias, sizeof bias, "%s.bias", name);
    if (x == ISO_NONE) return ISO_NONE;
    int64_t inputs = iso_node_shape(g, x).dim[1];
    iso_node w = iso_state(g, weight, iso_shape2(outputs, inputs));
    iso_node b = iso_state(g, bias, iso_shape1(outputs));
    return iso_add(g, iso_matmul(g, x, w, false, true), b);
}

iso_node iso_mlp(iso_graph *g, const char *prefix, int layers, const int *sizes, const char *act, const char *out, iso_node x)
{
    if (x == ISO_NONE) return ISO_NONE;
    iso_shape shape = iso_node_shape(g, x);
    if (shape.ndim != 2 || shape.dim[1] != sizes[0])
        return iso_graph_fail(g, "%s takes [B, %d], not %s", prefix, sizes[0], iso_shape_text(&shape, (char[96]){0}));
    for (int i = 1; i < layers; i++) {
        char name[32];
        snprintf(name, sizeof name, "%s.%d", prefix, 2 * (i - 1));
        x = iso_linear(g, name, x, sizes[i]);
        x = iso_activation(g, i < layers - 1 ? act : out, x);
    }
    return x;
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
        snprintf(name, sizeof name, "%s.%d", prefix, 2 * (i - 1));
        iso_linear_params(list, name, sizes[i - 1], sizes[i]);
    }
}
