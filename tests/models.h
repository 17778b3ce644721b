/* models.h: small models for tests. */
#ifndef ISO_TESTS_MODELS_H
#define ISO_TESTS_MODELS_H

#include <string.h>

#include "model/model.h"
#include "model/net/net.h"
#include "model/philox.h"
#include "tests/check.h"

static const iso_net celeba = {.arch = ISO_ARCH_CELEBA, .width = 2, .latent = 5, .flow_depth = 3, .flow_length = 7};
static const iso_net mlp = {.arch = ISO_ARCH_MLP, .latent = 3, .layers = 3, .size = {3, 6, 8}, .act = "tanh", .out = "linear"};

static const iso_net supervised = {.arch = ISO_ARCH_CELEBA, .width = 2, .latent = 5, .classes = 3};

static inline iso_model *fresh(const iso_net *net, uint64_t from)
{
    iso_model *m = NULL;
    iso_error err = {0};
    if (iso_model_create(net, &m, &err) || iso_net_init(m, from, &err)) fail_msg("%s", err.message);
    return m;
}

static inline int64_t count_of(const iso_model *m, int i)
{
    iso_shape s = iso_model_shape(m, i);
    return iso_shape_count(&s);
}

/* Gives the flow's last layers numbers, so that it is no identity. */
static inline void move_flow(iso_model *m)
{
    for (int i = 0; i < iso_model_count(m); i++)
        if (strncmp(iso_model_name(m, i), "flow.", 5) == 0)
            iso_draw_uniform((iso_draw){31, (uint32_t)i, 9}, -0.6, 0.6, count_of(m, i), iso_model_data(m, i));
}

static inline bool same_parameters(const iso_model *a, const iso_model *b)
{
    bool same = iso_model_count(a) == iso_model_count(b);
    for (int i = 0; same && i < iso_model_count(a); i++) {
        iso_shape sa = iso_model_shape(a, i), sb = iso_model_shape(b, i);
        same = strcmp(iso_model_name(a, i), iso_model_name(b, i)) == 0 && iso_shape_equal(&sa, &sb) &&
               memcmp(iso_model_data_const(a, i), iso_model_data_const(b, i), (size_t)iso_shape_count(&sa) * sizeof(float)) == 0;
    }
    return same;
}

#endif
