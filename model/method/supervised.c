/* The supervised upper bound of Lee 2022 5.2 (methods.md 7): an attribute is likely by sigmoid(l), and with y in {0, 1}
 *
 *     -y log sigmoid(l) - (1 - y) log(1 - sigmoid(l)) = softplus(l) - y l
 *
 * which needs no logarithm of what may have become zero. */
#include "model/method/method.h"
#include "model/net/net.h"

iso_node iso_cross_entropy(iso_graph *g, iso_node logits, iso_node labels)
{
    return iso_mean_all(g, iso_sub(g, iso_softplus(g, logits), iso_mul(g, labels, logits)));
}

iso_supervised iso_supervise(iso_graph *g, const iso_net *net, iso_node x, iso_node labels)
{
    iso_supervised s;
    s.code = iso_net_unit(g, net, x);
    s.logits = iso_net_classify(g, net, s.code); // [B, classes]
    s.loss = iso_cross_entropy(g, s.logits, labels);
    iso_node sign = iso_shift(g, iso_scale(g, labels, 2), -1); // 1: above zero is right; -1: below
    s.accuracy = iso_mean_all(g, iso_step(g, iso_mul(g, sign, s.logits)));
    return s;
}
