/* Initialisation: a parameter's numbers depend on the seed, its name's place in the net and nothing else. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "model/net/net.h"
#include "model/philox.h"

static bool is_flow(const char *name) { return strncmp(name, "flow.", 5) == 0; }

/* flow.s.3.2.weight, flow.t.3.2.bias: what the last layer of a coupling's network adds. */
static bool is_flow_output(const char *name)
{
    const char *end = strrchr(name, '.');
    return is_flow(name) && end && end - name >= 2 && end[-1] == '2' && end[-2] == '.';
}

/* The identity: zero but for the weight's diagonal. */
static void fill_whitening(const iso_param *p, float *data)
{
    memset(data, 0, (size_t)iso_shape_count(&p->shape) * sizeof *data);
    for (int64_t i = 0; p->shape.ndim == 2 && i < p->shape.dim[0]; i++) data[i * p->shape.dim[1] + i] = 1;
}

static void fill(const iso_param *p, iso_draw draw, float *data)
{
    int64_t n = iso_shape_count(&p->shape);
    if (strcmp(p->name, "sigma") == 0) {
        data[0] = 1;
    } else if (strncmp(p->name, "whiten.", 7) == 0) {
        fill_whitening(p, data);
    } else if (is_flow_output(p->name)) {
        memset(data, 0, (size_t)n * sizeof *data);
    } else {
        double bound = 1 / sqrt((double)p->fan_in);
        iso_draw_uniform(draw, -bound, bound, n, data);
    }
}

static iso_status init(iso_model *m, uint64_t seed, bool flow_only, iso_error *err)
{
    int n = iso_model_count(m), flow_first = 0;
    iso_param *param = iso_calloc((size_t)n, sizeof *param);
    if (!param) return iso_fail_memory(err);
    if (iso_net_params(iso_model_net(m), n, param) != n) {
        free(param);
        return iso_fail(err, ISO_E_INTERNAL, "a model whose parameters are not its net's");
    }
    while (flow_first < n && !is_flow(param[flow_first].name)) flow_first++;
    for (int i = 0; i < n; i++) {
        bool flow = is_flow(param[i].name);
        if (flow_only && !flow) continue;
        uint32_t stream = flow ? ISO_STREAM_FLOW + (uint32_t)(i - flow_first) : ISO_STREAM_INIT + (uint32_t)i;
        fill(&param[i], (iso_draw){seed, stream, 0}, iso_model_data(m, i));
    }
    free(param);
    return ISO_OK;
}

iso_status iso_net_init(iso_model *m, uint64_t seed, iso_error *err) { return init(m, seed, false, err); }

iso_status iso_flow_init(iso_model *m, uint64_t seed, iso_error *err)
{
    if (iso_model_net(m)->flow_depth == 0) return iso_fail(err, ISO_E_ARGUMENT, "this model has no flow");
    return init(m, seed, true, err);
}
