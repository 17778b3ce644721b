/* Whitened principal components: one linear layer. Its weight is divided by the components' standard deviations already. */
#include "model/net/net.h"

void iso_pca_params(iso_param_list *list, const iso_net *net)
{
    iso_param_add(list, "encoder", "mean", iso_shape1(ISO_PIXELS), ISO_PIXELS);
    iso_param_add(list, "encoder", "weight", iso_shape2(net->latent, ISO_PIXELS), ISO_PIXELS);
}

iso_node iso_pca_encode(iso_graph *g, const iso_net *net, iso_node x)
{
    if (x == ISO_NONE) return ISO_NONE;
    int64_t batch = iso_node_shape(g, x).dim[0];
    iso_node flat = iso_reshape(g, iso_permute(g, x, 0, 3, 1, 2), iso_shape2(batch, ISO_PIXELS));
    iso_node mean = iso_state(g, "encoder.mean", iso_shape1(ISO_PIXELS));
    iso_node weight = iso_state(g, "encoder.weight", iso_shape2(net->latent, ISO_PIXELS));
    return iso_matmul(g, iso_sub(g, flat, mean), weight, false, true);
}
