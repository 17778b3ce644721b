#include "model/net/net.h"

#include <stdio.h>
#include <string.h>

#define MAX_FEATURES (1 << 20)
#define MAX_DEPTH 64
#define MAX_PARAMETERS ((int64_t)1 << 33) /* numbers in all: 32 GiB */

/* --- parameters */

void iso_param_add(iso_param_list *list, const char *layer, const char *name, iso_shape shape, int64_t fan_in)
{
    if (list->count < list->room) {
        iso_param *p = &list->item[list->count];
        snprintf(p->name, sizeof p->name, "%s%s%s", layer, *layer ? "." : "", name);
        p->shape = shape;
        p->fan_in = fan_in;
    }
    list->count++;
}

/* The sizes of an mlp's encoder: the decoder's reversed, with mu and log sigma at the end. */
static void encoder_sizes(const iso_net *net, int sizes[16])
{
    for (int i = 0; i < net->layers; i++) sizes[i] = net->size[net->layers - 1 - i];
    sizes[net->layers - 1] = 2 * net->latent;
}

static void autoencoder_params(iso_param_list *list, const iso_net *net)
{
    if (net->arch == ISO_ARCH_CELEBA) {
        iso_celeba_params(list, net);
    } else {
        int sizes[16];
        encoder_sizes(net, sizes);
        iso_mlp_params(list, "encoder", net->layers, sizes);
        iso_mlp_params(list, "decoder", net->layers, net->size);
    }
    iso_param_add(list, "", "sigma", iso_shape0(), 1);
    if (net->flow_depth > 0) iso_flow_params(list, net);
}

int iso_net_params(const iso_net *net, int room, iso_param *out)
{
    iso_param_list list = {0, room, out};
    if (net->arch == ISO_ARCH_PCA) {
        iso_pca_params(&list, net);
    } else if (net->classes) {
        iso_celeba_params(&list, net);
        iso_linear_params(&list, "classifier", net->latent, net->classes);
    } else {
        autoencoder_params(&list, net);
    }
    if (net->whitened) iso_linear_params(&list, "whiten", net->latent, net->latent);
    return list.count;
}

/* --- checks */

static iso_status check_mlp(const iso_net *net, iso_error *err)
{
    if (net->layers < 2 || net->layers > 16)
        return iso_fail(err, ISO_E_ARGUMENT, "an mlp has 2 to 16 sizes, not %d", net->layers);
    for (int i = 0; i < net->layers; i++)
        if (net->size[i] < 1 || net->size[i] > MAX_FEATURES)
            return iso_fail(err, ISO_E_ARGUMENT, "size %d of an mlp is out of range (1 to %d)", net->size[i], MAX_FEATURES);
    if (net->size[0] != net->latent)
        return iso_fail(err, ISO_E_ARGUMENT, "an mlp's first size, %d, is not its latent dimension, %d", net->size[0], net->latent);
    if (!memchr(net->act, 0, sizeof net->act) || !iso_activation_known(net->act))
        return iso_fail(err, ISO_E_ARGUMENT, "unknown activation %.15s", net->act);
    if (!memchr(net->out, 0, sizeof net->out) || !iso_activation_known(net->out))
        return iso_fail(err, ISO_E_ARGUMENT, "unknown output activation %.15s", net->out);
    return ISO_OK;
}

static iso_status check_classes(const iso_net *net, iso_error *err)
{
    if (net->classes < 0 || net->classes > ISO_NET_MAX_CHANNELS)
        return iso_fail(err, ISO_E_ARGUMENT, "%d attributes to tell are out of range (1 to %d)", net->classes, ISO_NET_MAX_CHANNELS);
    if (net->classes && net->arch != ISO_ARCH_CELEBA)
        return iso_fail(err, ISO_E_ARGUMENT, "only a net of architecture celeba can be supervised");
    if (net->classes && net->flow_depth)
        return iso_fail(err, ISO_E_ARGUMENT, "a supervised net has no decoder and takes no flow");
    return ISO_OK;
}

iso_status iso_net_check_decoder(const iso_net *net, iso_error *err)
{
    if (net->arch == ISO_ARCH_PCA) return iso_fail(err, ISO_E_UNSUPPORTED, "principal components have no decoder");
    if (net->classes) return iso_fail(err, ISO_E_UNSUPPORTED, "a supervised model has no decoder");
    if (net->whitened) return iso_fail(err, ISO_E_UNSUPPORTED, "whitened vectors have no decoder: take the model that was whitened");
    return ISO_OK;
}

/* No product of the ranges above overflows 63 bits, and there are at most some hundred parameters. */
static iso_status check_total(const iso_net *net, iso_error *err)
{
    iso_param param[4 * 16 + 1 + 8 * MAX_DEPTH + 2];
    int64_t total = 0;
    int n = iso_net_params(net, (int)(sizeof param / sizeof *param), param);
    for (int i = 0; i < n; i++) total += iso_shape_count(&param[i].shape);
    if (total > MAX_PARAMETERS)
        return iso_fail(err, ISO_E_ARGUMENT, "a net of %lld parameters is too large", (long long)total);
    return ISO_OK;
}

iso_status iso_net_check(const iso_net *net, iso_error *err)
{
    if (net->arch != ISO_ARCH_CELEBA && net->arch != ISO_ARCH_MLP && net->arch != ISO_ARCH_PCA)
        return iso_fail(err, ISO_E_ARGUMENT, "unknown architecture number %d", (int)net->arch);
    if (net->latent < 1 || net->latent > ISO_NET_MAX_CHANNELS)
        return iso_fail(err, ISO_E_ARGUMENT, "latent dimension %d is out of range (1 to %d)", net->latent, ISO_NET_MAX_CHANNELS);
    if (net->arch == ISO_ARCH_CELEBA && (net->width < 1 || net->width > ISO_NET_MAX_CHANNELS))
        return iso_fail(err, ISO_E_ARGUMENT, "width %d is out of range (1 to %d)", net->width, ISO_NET_MAX_CHANNELS);
    if (net->arch == ISO_ARCH_MLP) {
        iso_status s = check_mlp(net, err);
        if (s) return s;
    }
    if (net->arch == ISO_ARCH_PCA && net->flow_depth)
        return iso_fail(err, ISO_E_ARGUMENT, "principal components have no decoder and take no flow");
    iso_status classes = check_classes(net, err);
    if (classes) return classes;
    if (net->views < 0 || net->views > 2)
        return iso_fail(err, ISO_E_ARGUMENT, "%d views of an image: there can be 1 (itself) or 2 (and its mirror image)", net->views);
    if (net->whitened < 0 || net->whitened > 1)
        return iso_fail(err, ISO_E_ARGUMENT, "an unknown kind of whitening, %d", net->whitened);
    if (net->flow_depth < 0 || net->flow_depth > MAX_DEPTH)
        return iso_fail(err, ISO_E_ARGUMENT, "flow depth %d is out of range (0 to %d)", net->flow_depth, MAX_DEPTH);
    if (net->flow_depth > 0) {
        if (net->flow_length < 1 || net->flow_length > MAX_FEATURES)
            return iso_fail(err, ISO_E_ARGUMENT, "flow length %d is out of range (1 to %d)", net->flow_length, MAX_FEATURES);
        if (net->latent < 2)
            return iso_fail(err, ISO_E_ARGUMENT, "a flow splits its coordinates in two: the latent dimension must be 2 or more");
    }
    return check_total(net, err);
}

/* --- expressions */

void iso_net_encode(iso_graph *g, const iso_net *net, iso_node x, iso_node *mu, iso_node *log_sigma)
{
    iso_node h; // [B, 2m]
    if (net->arch == ISO_ARCH_PCA) {
        *mu = *log_sigma = iso_graph_fail(g, "principal components are no variational encoder");
        return;
    }
    if (net->classes) {
        *mu = *log_sigma = iso_graph_fail(g, "a supervised net has no variational encoder");
        return;
    }
    if (net->arch == ISO_ARCH_CELEBA) {
        h = iso_celeba_encode(g, net, x);
    } else {
        int sizes[16];
        encoder_sizes(net, sizes);
        h = iso_mlp(g, "encoder", net->layers, sizes, net->act, "linear", x);
    }
    *mu = iso_slice(g, h, 1, 0, net->latent);
    *log_sigma = iso_slice(g, h, 1, net->latent, net->latent);
}

iso_node iso_net_decode_first(iso_graph *g, const iso_net *net, iso_node z)
{
    if (net->classes) return iso_graph_fail(g, "a supervised net has no decoder");
    if (net->arch == ISO_ARCH_CELEBA) return iso_celeba_decode_first(g, net, z);
    if (net->arch == ISO_ARCH_PCA) return iso_graph_fail(g, "principal components have no decoder");
    return iso_mlp_first(g, "decoder", net->size, z);
}

iso_node iso_net_decode_rest(iso_graph *g, const iso_net *net, iso_node h)
{
    if (net->arch == ISO_ARCH_CELEBA) return iso_celeba_decode_rest(g, net, h);
    return iso_mlp_rest(g, "decoder", net->layers, net->size, net->act, net->out, h);
}

iso_node iso_net_decode(iso_graph *g, const iso_net *net, iso_node z)
{
    return iso_net_decode_rest(g, net, iso_net_decode_first(g, net, z));
}

/* [2B, m], the images' codes and then their mirror images', to [B, m]. */
static iso_node mean_of_views(iso_graph *g, iso_node code)
{
    if (code == ISO_NONE) return ISO_NONE;
    int64_t batch = iso_node_shape(g, code).dim[0] / 2;
    return iso_scale(g, iso_add(g, iso_slice(g, code, 0, 0, batch), iso_slice(g, code, 0, batch, batch)), 0.5);
}

iso_node iso_net_vector(iso_graph *g, const iso_net *net, iso_node x)
{
    iso_node mu, log_sigma;
    if (net->arch == ISO_ARCH_PCA) mu = iso_pca_encode(g, net, x);
    else if (net->classes) mu = iso_net_unit(g, net, x);
    else iso_net_encode(g, net, x, &mu, &log_sigma);
    if (net->views > 1) mu = mean_of_views(g, mu);
    if (net->views > 1 && net->classes) mu = iso_unit_rows(g, mu);
    if (net->flow_depth > 0) mu = iso_flow_forward(g, net, mu);
    return net->whitened ? iso_linear(g, "whiten", mu, net->latent) : mu;
}
