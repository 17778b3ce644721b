#include "model/adam.h"

#include <math.h>
#include <stdio.h>

iso_adam iso_adam_inputs(iso_graph *g)
{
    return (iso_adam){iso_input(g, "adam.rate", iso_shape0()), iso_input(g, "adam.root", iso_shape0())};
}

double iso_adam_rate(double lr, int64_t t)
{
    return lr / (1 - pow(ISO_ADAM_BETA1, (double)t));
}

double iso_adam_root(int64_t t)
{
    return 1 / sqrt(1 - pow(ISO_ADAM_BETA2, (double)t));
}

static iso_node moment(iso_graph *g, const char *kind, iso_node param)
{
    const char *name = iso_node_name(g, param);
    if (!name) return iso_graph_fail(g, "Adam updates named states only");
    char text[96];
    int n = snprintf(text, sizeof text, "adam.%s.%s", kind, name);
    if (n < 0 || (size_t)n >= sizeof text) return iso_graph_fail(g, "the name of parameter %s is too long", name);
    return iso_state_like(g, text, param);
}

/* Fills the moments' assignments and returns by how much the parameter goes down. */
static iso_node decrement(iso_graph *g, iso_adam adam, iso_node param, iso_node gradient, iso_assign out[3])
{
    iso_node m = moment(g, "m", param), v = moment(g, "v", param);
    iso_node m_new = iso_add(g, iso_scale(g, m, ISO_ADAM_BETA1), iso_scale(g, gradient, 1 - ISO_ADAM_BETA1));
    iso_node v_new = iso_add(g, iso_scale(g, v, ISO_ADAM_BETA2),
                             iso_scale(g, iso_square(g, gradient), 1 - ISO_ADAM_BETA2));
    out[1] = (iso_assign){m, m_new};
    out[2] = (iso_assign){v, v_new};
    iso_node below = iso_shift(g, iso_mul(g, iso_sqrt(g, v_new), adam.root), ISO_ADAM_EPS);
    return iso_div(g, iso_mul(g, m_new, adam.rate), below);
}

void iso_adam_update(iso_graph *g, iso_adam adam, iso_node param, iso_node gradient, iso_assign out[3])
{
    iso_node down = decrement(g, adam, param, gradient, out);
    out[0] = (iso_assign){param, iso_sub(g, param, down)};
}

void iso_adam_update_log(iso_graph *g, iso_adam adam, iso_node param, iso_node gradient, double ratio, iso_assign out[3])
{
    iso_node down = decrement(g, adam, param, iso_mul(g, param, gradient), out);
    out[0] = (iso_assign){param, iso_mul(g, param, iso_exp(g, iso_scale(g, down, -ratio)))};
}
