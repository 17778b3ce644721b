/* RealNVP (Dinh 2017) as methods.md 6 has it: coupling k keeps a and moves b by what a says,
 *
 *     b' = b exp(tanh s_k(a)) + t_k(a)        b = (b' - t_k(a)) exp(-tanh s_k(a))
 *
 * where a is the first half of the coordinates for an even k and the rest for an odd one, and s_k and t_k are
 * Linear-ReLU-Linear of hidden length flow_length. */
#include <stdio.h>

#include "model/net/net.h"

static iso_node subnet(iso_graph *g, const iso_net *net, char which, int k, iso_node a, int64_t outputs)
{
    char name[32];
    snprintf(name, sizeof name, "flow.%c.%d.0", which, k);
    iso_node hidden = iso_relu(g, iso_linear(g, name, a, net->flow_length));
    snprintf(name, sizeof name, "flow.%c.%d.2", which, k);
    return iso_linear(g, name, hidden, outputs);
}

/* Moves one half of the coordinates by what the other one says. */
static void coupling(iso_graph *g, const iso_net *net, int k, iso_node half[2], bool inverse)
{
    iso_node a = half[k % 2], *b = &half[1 - k % 2];
    int64_t moved = k % 2 == 0 ? net->latent - net->latent / 2 : net->latent / 2;
    iso_node s = iso_tanh(g, subnet(g, net, 's', k, a, moved));
    iso_node t = subnet(g, net, 't', k, a, moved);
    if (inverse)
        *b = iso_mul(g, iso_sub(g, *b, t), iso_exp(g, iso_neg(g, s)));
    else
        *b = iso_add(g, iso_mul(g, *b, iso_exp(g, s)), t);
}

/* All couplings. The halves stay apart between them: joining and cutting would be copies, also in every derivative. */
static iso_node flow(iso_graph *g, const iso_net *net, iso_node z, bool inverse)
{
    const int64_t m = net->latent, first = m / 2;
    iso_node half[2] = {iso_slice(g, z, 1, 0, first), iso_slice(g, z, 1, first, m - first)};
    for (int k = 0; k < net->flow_depth; k++) coupling(g, net, inverse ? net->flow_depth - 1 - k : k, half, inverse);
    return net->flow_depth ? iso_concat(g, half[0], half[1], 1) : z;
}

static bool fits(iso_graph *g, const iso_net *net, iso_node z)
{
    if (z == ISO_NONE) return false;
    iso_shape s = iso_node_shape(g, z);
    if (s.ndim == 2 && s.dim[1] == net->latent) return true;
    iso_graph_fail(g, "the flow takes [B, %d], not %s", net->latent, iso_shape_text(&s, (char[96]){0}));
    return false;
}

iso_node iso_flow_forward(iso_graph *g, const iso_net *net, iso_node z)
{
    return fits(g, net, z) ? flow(g, net, z, false) : ISO_NONE;
}

iso_node iso_flow_inverse(iso_graph *g, const iso_net *net, iso_node y)
{
    return fits(g, net, y) ? flow(g, net, y, true) : ISO_NONE;
}

void iso_flow_params(iso_param_list *list, const iso_net *net)
{
    int64_t m = net->latent, half = m / 2;
    for (const char *which = "st"; *which; which++)
        for (int k = 0; k < net->flow_depth; k++) {
            int64_t kept = k % 2 == 0 ? half : m - half;
            char name[32];
            snprintf(name, sizeof name, "flow.%c.%d.0", *which, k);
            iso_linear_params(list, name, kept, net->flow_length);
            snprintf(name, sizeof name, "flow.%c.%d.2", *which, k);
            iso_linear_params(list, name, net->flow_length, m - kept);
        }
}
