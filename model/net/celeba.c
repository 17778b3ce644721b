/* The convolutional encoder and decoder of Lee 2022 D.3, for faces of 64 x 64.
 *
 *   encoder  Conv(3, w, 5, s2) Conv(w, 2w, 5, s2) Conv(2w, 4w, 5, s2) Conv(4w, 8w, 5, s2) Conv(8w, 2m, 1)
 *            64 -> 30 -> 13 -> 5 -> 1 pixels a side; ReLU between, linear out; supervised: m outputs
 *   decoder  ConvT(m, 8w, 8) ConvT(8w, 4w, 4, s2, p1) ConvT(4w, 2w, 4, s2, p1) ConvT(2w, w, 4, s2, p1) ConvT(w, 3, 1)
 *            1 -> 8 -> 16 -> 32 -> 64 -> 64; ReLU between, tanh out
 */
#include "model/net/net.h"

typedef struct layer { const char *name; int inputs, outputs, kernel, stride, pad; } layer;

#define LAYERS 5

/* mu and log sigma; or, supervised, the code. */
static int encoder_outputs(const iso_net *net) { return net->classes ? net->latent : 2 * net->latent; }

static void encoder_layers(const iso_net *net, layer out[LAYERS])
{
    int w = net->width;
    const layer layers[LAYERS] = {{"encoder.0", 3, w, 5, 2, 0},         {"encoder.2", w, 2 * w, 5, 2, 0},
                                  {"encoder.4", 2 * w, 4 * w, 5, 2, 0}, {"encoder.6", 4 * w, 8 * w, 5, 2, 0},
                                  {"encoder.8", 8 * w, encoder_outputs(net), 1, 1, 0}};
    for (int i = 0; i < LAYERS; i++) out[i] = layers[i];
}

/* PyTorch's layer 0 is the Unflatten of [B, m] to [B, m, 1, 1]. */
static void decoder_layers(const iso_net *net, layer out[LAYERS])
{
    int w = net->width, m = net->latent;
    const layer layers[LAYERS] = {{"decoder.1", m, 8 * w, 8, 1, 0},     {"decoder.3", 8 * w, 4 * w, 4, 2, 1},
                                  {"decoder.5", 4 * w, 2 * w, 4, 2, 1}, {"decoder.7", 2 * w, w, 4, 2, 1},
                                  {"decoder.9", w, 3, 1, 1, 0}};
    for (int i = 0; i < LAYERS; i++) out[i] = layers[i];
}

/* Conv2d; x [B, H, W, in] -> [B, OH, OW, out] */
static iso_node conv(iso_graph *g, const layer *l, iso_node x)
{
    iso_node w = iso_parameter(g, l->name, "weight", iso_shape4(l->outputs, l->inputs, l->kernel, l->kernel));
    iso_node b = iso_parameter(g, l->name, "bias", iso_shape1(l->outputs));
    return iso_add(g, iso_conv(g, x, w, l->stride, l->pad), b);
}

/* ConvTranspose2d without its bias is the input gradient of the convolution from `out` to `in` channels; y [B, h, w, in] -> [B, H, W, out] */
static iso_node conv_transpose(iso_graph *g, const layer *l, iso_node y)
{
    iso_node w = iso_parameter(g, l->name, "weight", iso_shape4(l->inputs, l->outputs, l->kernel, l->kernel));
    iso_shape s = iso_node_shape(g, y);
    int64_t height = (s.dim[1] - 1) * l->stride - 2 * l->pad + l->kernel;
    int64_t width = (s.dim[2] - 1) * l->stride - 2 * l->pad + l->kernel;
    return iso_conv_x(g, y, w, l->stride, l->pad, height, width);
}

iso_node iso_celeba_encode(iso_graph *g, const iso_net *net, iso_node x)
{
    if (x == ISO_NONE) return ISO_NONE;
    iso_shape s = iso_node_shape(g, x), want = iso_shape4(s.dim[0], ISO_SIDE, ISO_SIDE, 3);
    if (!iso_shape_equal(&s, &want))
        return iso_graph_fail(g, "the encoder takes [B, %d, %d, 3], not %s", ISO_SIDE, ISO_SIDE, iso_shape_text(&s, (char[96]){0}));
    layer layers[LAYERS];
    encoder_layers(net, layers);
    for (int i = 0; i < LAYERS; i++) {
        x = conv(g, &layers[i], x);
        if (i < LAYERS - 1) x = iso_relu(g, x);
    }
    return iso_reshape(g, x, iso_shape2(s.dim[0], encoder_outputs(net)));
}

iso_node iso_celeba_decode_first(iso_graph *g, const iso_net *net, iso_node z)
{
    if (z == ISO_NONE) return ISO_NONE;
    iso_shape s = iso_node_shape(g, z);
    if (s.ndim != 2 || s.dim[1] != net->latent)
        return iso_graph_fail(g, "the decoder takes [B, %d], not %s", net->latent, iso_shape_text(&s, (char[96]){0}));
    layer layers[LAYERS];
    decoder_layers(net, layers);
    return conv_transpose(g, &layers[0], iso_reshape(g, z, iso_shape4(s.dim[0], 1, 1, net->latent)));
}

iso_node iso_celeba_decode_rest(iso_graph *g, const iso_net *net, iso_node x)
{
    if (x == ISO_NONE) return ISO_NONE;
    layer layers[LAYERS];
    decoder_layers(net, layers);
    for (int i = 0; i < LAYERS; i++) {
        if (i > 0) x = conv_transpose(g, &layers[i], x);
        x = iso_add(g, x, iso_parameter(g, layers[i].name, "bias", iso_shape1(layers[i].outputs)));
        x = i < LAYERS - 1 ? iso_relu(g, x) : iso_tanh(g, x);
    }
    return x;
}

void iso_celeba_params(iso_param_list *list, const iso_net *net)
{
    layer layers[LAYERS];
    encoder_layers(net, layers);
    for (int i = 0; i < LAYERS; i++) {
        const layer *l = &layers[i];
        int64_t fan_in = (int64_t)l->inputs * l->kernel * l->kernel;
        iso_param_add(list, l->name, "weight", iso_shape4(l->outputs, l->inputs, l->kernel, l->kernel), fan_in);
        iso_param_add(list, l->name, "bias", iso_shape1(l->outputs), fan_in);
    }
    if (net->classes) return;
    decoder_layers(net, layers);
    for (int i = 0; i < LAYERS; i++) {
        const layer *l = &layers[i];
        int64_t fan_in = (int64_t)l->outputs * l->kernel * l->kernel; /* of the transposed weight, as PyTorch counts it */
        iso_param_add(list, l->name, "weight", iso_shape4(l->inputs, l->outputs, l->kernel, l->kernel), fan_in);
        iso_param_add(list, l->name, "bias", iso_shape1(l->outputs), fan_in);
    }
}
