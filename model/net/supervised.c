/* The network that is trained with labels (methods.md 7): the celeba encoder with m outputs, divided by their norm, and one
 * linear layer to the classes. What is kept of an image is the unit vector; the classifier is there for training alone. */
#include "model/net/net.h"

/* z / |z|. The shift keeps a zero zero, and its gradient finite. Written as z (n / n^2), so that a |z|^2 beyond the range of
 * float makes a NaN, which every user of it notices, and not a zero. */
iso_node iso_unit_rows(iso_graph *g, iso_node z)
{
    iso_node square = iso_shift(g, iso_sum_rows(g, iso_square(g, z)), 1e-20); // [B, 1]
    return iso_mul(g, z, iso_div(g, iso_sqrt(g, square), square));
}

iso_node iso_net_unit(iso_graph *g, const iso_net *net, iso_node x)
{
    if (!net->classes) return iso_graph_fail(g, "this net is not a supervised one");
    return iso_unit_rows(g, iso_celeba_encode(g, net, x));
}

iso_node iso_net_classify(iso_graph *g, const iso_net *net, iso_node z)
{
    if (!net->classes) return iso_graph_fail(g, "this net has no classifier");
    return iso_linear(g, "classifier", z, net->classes);
}
