/* Parameters and inputs for benchstep, and a file of them for whoever computes the same step. */
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "model/philox.h"
#include "model/safetensors.h"
#include "programs/benchstep.h"

enum { INPUTS = 5, MNIST = 28 * 28 };

/* One input of the step; data of its own. */
typedef struct input {
    const char *name;
    iso_node node;
    iso_shape shape;
    float *data;
} input;

void benchstep_describe(const benchstep_config *c, iso_net *net, iso_objective *objective)
{
    const bool mlp = strcmp(c->arch, "mlp") == 0;
    *net = (iso_net){.arch = mlp ? ISO_ARCH_MLP : ISO_ARCH_CELEBA, .latent = (int)c->latent};
    *objective =
        (iso_objective){.goal = c->alpha > 0 ? ISO_GOAL_ISOMETRIC : ISO_GOAL_VAE, .kl_weight = 1, .alpha = c->alpha};
    if (mlp) { /* Lee 2022 D.1 */
        const int sizes[] = {net->latent, 256, 256, 256, 256, MNIST};
        memcpy(net->size, sizes, sizeof sizes);
        net->layers = (int)(sizeof sizes / sizeof *sizes);
        strcpy(net->act, "relu");
        strcpy(net->out, "sigmoid");
    } else {
        net->width = (int)c->width;
    }
    if (!c->flatten) return;
    net->flow_depth = (int)c->depth;
    net->flow_length = (int)c->length;
    *objective = (iso_objective){.goal = ISO_GOAL_FLOW, .beta = c->beta};
}

/* A flow that is not the identity: what its networks say then counts. */
static void fill_zeros(iso_model *m, uint64_t seed)
{
    for (int i = 0; i < iso_model_count(m); i++) {
        iso_shape shape = iso_model_shape(m, i);
        int64_t n = iso_shape_count(&shape);
        const char *name = iso_model_name(m, i), *layer = strstr(name, ".2.");
        if (strncmp(name, "flow.", 5) == 0 && layer)
            iso_draw_uniform((iso_draw){seed, 6, (uint64_t)i}, -0.02, 0.02, n, iso_model_data(m, i));
    }
}

static iso_status draw_inputs(const iso_train_step *s, int64_t latent, uint64_t seed, input *in, iso_error *err)
{
    const iso_shape codes = iso_shape2(s->batch, latent), rows = iso_shape2(s->batch, 1);
    const bool images = s->eps != ISO_NONE;
    in[0] = (input){"input.x", s->x, s->x_shape, NULL};
    in[1] = (input){"input.eps", s->eps, codes, NULL};
    in[2] = (input){"input.v", s->v, codes, NULL};
    in[3] = (input){"input.delta", s->delta, rows, NULL};
    in[4] = (input){"input.perm", s->perm, iso_shape1(s->batch), NULL};
    for (int i = 0; i < INPUTS; i++)
        if (!(in[i].data = iso_calloc((size_t)iso_shape_count(&in[i].shape), sizeof(float))))
            return iso_fail_memory(err);
    if (images)
        iso_draw_uniform((iso_draw){seed, 1, 0}, -1, 1, iso_shape_count(&s->x_shape), in[0].data);
    else
        iso_draw_normal((iso_draw){seed, 1, 0}, iso_shape_count(&s->x_shape), in[0].data);
    iso_draw_normal((iso_draw){seed, 2, 0}, iso_shape_count(&codes), in[1].data);
    iso_draw_normal((iso_draw){seed, 3, 0}, iso_shape_count(&codes), in[2].data);
    iso_draw_uniform((iso_draw){seed, 4, 0}, -0.2, 1.2, s->batch, in[3].data);
    int64_t *perm = iso_calloc((size_t)s->batch, sizeof *perm);
    if (!perm) return iso_fail_memory(err);
    iso_draw_permutation((iso_draw){seed, 5, 0}, s->batch, perm);
    for (int64_t i = 0; i < s->batch; i++) in[4].data[i] = (float)perm[i];
    iso_status status = iso_plan_write_index(s->plan, s->perm, perm, s->batch, err);
    free(perm);
    return status;
}

static iso_status write_inputs(const iso_train_step *s, const input *in, iso_error *err)
{
    double rate = iso_adam_rate(1e-4, 1), root = iso_adam_root(1);
    iso_status status = ISO_OK;
    for (int i = 0; i < INPUTS - 1 && status == ISO_OK; i++)
        if (in[i].node != ISO_NONE)
            status = iso_plan_write(s->plan, in[i].node, in[i].data, iso_shape_count(&in[i].shape), err);
    if (status == ISO_OK) status = iso_plan_write_f64(s->plan, s->adam.rate, &rate, 1, err);
    if (status == ISO_OK) status = iso_plan_write_f64(s->plan, s->adam.root, &root, 1, err);
    return status;
}

static iso_status save(const char *path, iso_model *m, const input *in, iso_error *err)
{
    int n = iso_model_count(m), count = 0;
    iso_st_out *out = iso_calloc((size_t)n + INPUTS, sizeof *out);
    if (!out) return iso_fail_memory(err);
    for (int i = 0; i < n; i++)
        out[count++] = (iso_st_out){iso_model_name(m, i), iso_model_shape(m, i), iso_model_data(m, i)};
    for (int i = 0; i < INPUTS; i++)
        if (in[i].node != ISO_NONE) out[count++] = (iso_st_out){in[i].name, in[i].shape, in[i].data};
    iso_status status = iso_st_save(path, count, out, 0, NULL, err);
    free(out);
    return status;
}

iso_status benchstep_fill(const benchstep_config *c, const iso_net *net, const iso_train_step *s, iso_vars *vars,
                          iso_error *err)
{
    const uint64_t seed = (uint64_t)c->seed;
    input in[INPUTS] = {0};
    iso_model *m = NULL;
    iso_status status = iso_model_create(net, &m, err);
    if (status == ISO_OK) status = iso_net_init(m, seed, err);
    if (status != ISO_OK) goto done;
    fill_zeros(m, seed);
    if ((status = iso_model_to_vars(m, vars, err)) != ISO_OK) goto done;
    if ((status = draw_inputs(s, net->latent, seed, in, err)) != ISO_OK) goto done;
    if ((status = write_inputs(s, in, err)) != ISO_OK) goto done;
    if (c->save) status = save(c->save, m, in, err);
done:
    for (int i = 0; i < INPUTS; i++) free(in[i].data);
    iso_model_free(m);
    return status;
}
