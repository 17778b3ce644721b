#include "model/model.h"

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "base/memory.h"
#include "base/text.h"
#include "model/net/net.h"
#include "model/safetensors.h"

#define FORMAT "isoface"
#define FORMAT_VERSION "1"

typedef struct meta { char *key, *value; } meta;

struct iso_model {
    iso_net net;
    int params;
    iso_param *param;
    float **data;
    iso_st *file;      /* from which it was loaded, where some data lie in it; NULL */
    meta *meta;
    size_t metas, meta_capacity;
    bool touched;      /* someone may write parameters: the digest is computed at every call */
    XXH3_state_t *hash; /* for the digest, which cannot fail therefore */
    char digest[33];
};

/* --- metadata */

static meta *find_meta(const iso_model *m, const char *key)
{
    for (size_t i = 0; i < m->metas; i++)
        if (strcmp(m->meta[i].key, key) == 0) return &m->meta[i];
    return NULL;
}

const char *iso_model_meta(const iso_model *m, const char *key)
{
    const meta *found = find_meta(m, key);
    return found ? found->value : NULL;
}

static void remove_meta(iso_model *m, meta *entry)
{
    free(entry->key);
    free(entry->value);
    size_t behind = m->metas - (size_t)(entry - m->meta) - 1;
    memmove(entry, entry + 1, behind * sizeof *entry);
    m->metas--;
}

static iso_status put_meta(iso_model *m, const char *key, const char *value, iso_error *err)
{
    char *copy = iso_strndup(value, strlen(value));
    if (!copy) return iso_fail_memory(err);
    meta *entry = find_meta(m, key);
    if (entry) {
        free(entry->value);
        entry->value = copy;
        return ISO_OK;
    }
    char *name = iso_strndup(key, strlen(key));
    if (!name || !iso_grow(&m->meta, &m->meta_capacity, m->metas + 1, sizeof *m->meta)) {
        free(name);
        free(copy);
        return iso_fail_memory(err);
    }
    m->meta[m->metas++] = (meta){name, copy};
    return ISO_OK;
}

/* "4,7,7,9" */
static void sizes_text(const iso_net *net, char text[16 * 12])
{
    size_t at = 0;
    text[0] = 0;
    for (int i = 0; i < net->layers; i++) at += (size_t)snprintf(text + at, 16 * 12 - at, "%s%d", i ? "," : "", net->size[i]);
}

const char *iso_arch_name(iso_arch arch)
{
    static const char *const names[] = {[ISO_ARCH_CELEBA] = "celeba", [ISO_ARCH_MLP] = "mlp", [ISO_ARCH_PCA] = "pca"};
    return names[arch];
}

/* What save writes itself: the file and its net. */
enum { DESCRIBED = 15 };
typedef struct described {
    const char *key;
    bool there;       /* such a net has it */
    const char *text; /* NULL: the number */
    int number;
} described;

static void describe(const iso_net *net, char sizes[16 * 12], described out[DESCRIBED])
{
    const bool mlp = net->arch == ISO_ARCH_MLP, flow = net->flow_depth > 0;
    sizes_text(net, sizes);
    const described all[DESCRIBED] = {
        {"format", true, FORMAT, 0}, {"format_version", true, FORMAT_VERSION, 0}, {"version", true, ISO_VERSION, 0},
        {"preprocessing", true, ISO_PREPROCESSING, 0},
        {"arch", true, iso_arch_name(net->arch), 0}, {"latent", true, NULL, net->latent}, {"width", net->arch == ISO_ARCH_CELEBA, NULL, net->width},
        {"sizes", mlp, sizes, 0}, {"act", mlp, net->act, 0}, {"out", mlp, net->out, 0},
        {"flow_depth", flow, NULL, net->flow_depth}, {"flow_length", flow, NULL, net->flow_length},
        {"views", net->views > 1, NULL, net->views}, {"classes", net->classes != 0, NULL, net->classes}, {"whiten", net->whitened != 0, NULL, net->whitened},
    };
    memcpy(out, all, sizeof all);
}

bool iso_model_describes(const char *key)
{
    char sizes[16 * 12];
    described all[DESCRIBED];
    describe(&(iso_net){0}, sizes, all);
    for (int i = 0; i < DESCRIBED; i++)
        if (strcmp(key, all[i].key) == 0) return true;
    return false;
}

static iso_status put_net(iso_model *m, iso_error *err)
{
    char sizes[16 * 12], number[16];
    described all[DESCRIBED];
    iso_status s = ISO_OK;
    describe(&m->net, sizes, all);
    for (int i = 0; !s && i < DESCRIBED; i++) {
        snprintf(number, sizeof number, "%d", all[i].number);
        if (all[i].there) s = put_meta(m, all[i].key, all[i].text ? all[i].text : number, err);
    }
    return s;
}

/* Whether `names` are as many words as the net tells attributes, one space between them. */
static iso_status check_attributes(const iso_net *net, const char *names, iso_error *err)
{
    int words = 0;
    bool inside = false;
    if (!names && !net->classes) return ISO_OK;
    if (!names) return iso_fail(err, ISO_E_ARGUMENT, "the metadata does not name the %d attributes of a supervised model", net->classes);
    if (!net->classes) return iso_fail(err, ISO_E_ARGUMENT, "the metadata names attributes, but the model is not a supervised one");
    if (!iso_text_is_utf8(names, strlen(names))) return iso_fail(err, ISO_E_ARGUMENT, "the attributes' names are not UTF-8");
    for (const char *c = names; *c; c++) {
        if (*c == ' ' && !inside) break; /* an empty name */
        words += !inside;
        inside = *c != ' ';
    }
    if (!inside || words != net->classes)
        return iso_fail(err, ISO_E_ARGUMENT, "the metadata should name %d attributes, one space between them: %.60s", net->classes, names);
    return ISO_OK;
}

iso_status iso_model_set_meta(iso_model *m, const char *key, const char *value, iso_error *err)
{
    if (iso_model_describes(key)) return iso_fail(err, ISO_E_ARGUMENT, "metadata %s follows from the model and cannot be set", key);
    if (value && strcmp(key, "attributes") == 0) {
        iso_status s = check_attributes(&m->net, value, err);
        if (s) return s;
    }
    if (value) return put_meta(m, key, value, err);
    meta *entry = find_meta(m, key);
    if (entry) remove_meta(m, entry);
    return ISO_OK;
}

/* --- from metadata to a net */

/* A whole decimal number in the metadata; 0 when the key is absent and may be. */
static iso_status read_number(const iso_st *f, const char *key, bool needed, int *out, const char *path, iso_error *err)
{
    const char *text = iso_st_meta(f, key);
    *out = 0;
    if (!text && !needed) return ISO_OK;
    if (!text) return iso_fail(err, ISO_E_FORMAT, "%s is not an Isoface model: its metadata has no %s", path, key);
    int used = -1;
    size_t digits = strspn(text, "0123456789");
    if (digits < 1 || digits > 9 || text[digits] || sscanf(text, "%d%n", out, &used) != 1 || used != (int)digits)
        return iso_fail(err, ISO_E_FORMAT, "%s: %s is not a number in its metadata: %.40s", path, key, text);
    return ISO_OK;
}

static iso_status read_word(const iso_st *f, const char *key, char out[16], const char *path, iso_error *err)
{
    const char *text = iso_st_meta(f, key);
    if (!text) return iso_fail(err, ISO_E_FORMAT, "%s is not an Isoface model: its metadata has no %s", path, key);
    if (strlen(text) > 15) return iso_fail(err, ISO_E_FORMAT, "%s: unknown %s in its metadata: %.40s", path, key, text);
    strcpy(out, text);
    return ISO_OK;
}

int iso_sizes_parse(const char *text, int sizes[16])
{
    int n = 0;
    for (;;) {
        size_t digits = strspn(text, "0123456789");
        if (n == 16 || digits < 1 || digits > 9) return 0;
        sizes[n++] = atoi(text);
        text += digits;
        if (!*text) return n;
        if (*text++ != ',') return 0;
    }
}

static iso_status read_mlp(const iso_st *f, iso_net *net, const char *path, iso_error *err)
{
    const char *sizes = iso_st_meta(f, "sizes");
    if (!sizes) return iso_fail(err, ISO_E_FORMAT, "%s is not an Isoface model: its metadata has no sizes", path);
    net->layers = iso_sizes_parse(sizes, net->size);
    if (net->layers == 0) return iso_fail(err, ISO_E_FORMAT, "%s: its metadata's sizes are damaged: %.40s", path, sizes);
    iso_status s = read_word(f, "act", net->act, path, err);
    if (!s) s = read_word(f, "out", net->out, path, err);
    return s;
}

static iso_status read_format(const iso_st *f, const char *path, iso_error *err)
{
    const char *format = iso_st_meta(f, "format"), *version = iso_st_meta(f, "format_version");
    if (!format || strcmp(format, FORMAT) != 0)
        return iso_fail(err, ISO_E_FORMAT, "%s is not an Isoface model: no isoface metadata", path);
    if (!version || strcmp(version, FORMAT_VERSION) != 0)
        return iso_fail(err, ISO_E_UNSUPPORTED, "%s is a model of format version %.20s, this program reads " FORMAT_VERSION ": use the Isoface that wrote it",
                        path, version ? version : "(none)");
    const char *preprocessing = iso_st_meta(f, "preprocessing");
    if (!preprocessing || strcmp(preprocessing, ISO_PREPROCESSING) != 0)
        return iso_fail(err, ISO_E_UNSUPPORTED, "%s wants its images prepared in a way this program does not know: %.80s", path,
                        preprocessing ? preprocessing : "(none)");
    return ISO_OK;
}

static iso_status read_net(const iso_st *f, iso_net *net, const char *path, iso_error *err)
{
    memset(net, 0, sizeof *net);
    iso_status s = read_format(f, path, err);
    if (s) return s;
    const char *arch = iso_st_meta(f, "arch");
    if (arch && strcmp(arch, "celeba") == 0) {
        net->arch = ISO_ARCH_CELEBA;
        s = read_number(f, "width", true, &net->width, path, err);
    } else if (arch && strcmp(arch, "mlp") == 0) {
        net->arch = ISO_ARCH_MLP;
        s = read_mlp(f, net, path, err);
    } else if (arch && strcmp(arch, "pca") == 0) {
        net->arch = ISO_ARCH_PCA;
    } else {
        return iso_fail(err, ISO_E_FORMAT, "%s: unknown architecture %.40s", path, arch ? arch : "(none)");
    }
    if (!s) s = read_number(f, "latent", true, &net->latent, path, err);
    if (!s) s = read_number(f, "flow_depth", false, &net->flow_depth, path, err);
    if (!s) s = read_number(f, "flow_length", net->flow_depth > 0, &net->flow_length, path, err);
    if (!s) s = read_number(f, "views", false, &net->views, path, err);
    if (!s) s = read_number(f, "classes", false, &net->classes, path, err);
    if (!s) s = read_number(f, "whiten", false, &net->whitened, path, err);
    if (s) return s;
    s = iso_net_check(net, err);
    if (!s) s = check_attributes(net, iso_st_meta(f, "attributes"), err);
    if (s) return iso_fail_prefix(err, ISO_E_FORMAT, "%s", path);
    return ISO_OK;
}

/* --- life */

static bool in_file(const iso_model *m, int i)
{
    const iso_st_tensor *t = m->file ? iso_st_find(m->file, m->param[i].name) : NULL;
    return t && t->data == m->data[i];
}

void iso_model_free(iso_model *m)
{
    if (!m) return;
    for (int i = 0; m->data && i < m->params; i++)
        if (!in_file(m, i)) free(m->data[i]);
    iso_st_free(m->file);
    for (size_t i = 0; i < m->metas; i++) {
        free(m->meta[i].key);
        free(m->meta[i].value);
    }
    free(m->data);
    free(m->param);
    free(m->meta);
    XXH3_freeState(m->hash);
    free(m);
}

static iso_status list_params(const iso_net *net, iso_param **out, int *count, iso_error *err)
{
    int n = iso_net_params(net, 0, NULL);
    iso_param *param = iso_calloc((size_t)n, sizeof *param);
    if (!param) return iso_fail_memory(err);
    iso_net_params(net, n, param);
    *out = param;
    *count = n;
    return ISO_OK;
}

/* Its parameters lie nowhere yet. */
static iso_status create_empty(const iso_net *net, iso_model **out, iso_error *err)
{
    iso_status s = iso_net_check(net, err);
    if (s) return s;
    iso_model *m = iso_calloc(1, sizeof *m);
    if (!m) return iso_fail_memory(err);
    m->net = *net;
    s = list_params(net, &m->param, &m->params, err);
    if (!s) m->data = iso_calloc((size_t)m->params, sizeof *m->data);
    m->hash = XXH3_createState();
    if (!s && (!m->data || !m->hash)) s = iso_fail_memory(err);
    if (!s) s = put_net(m, err);
    if (s) {
        iso_model_free(m);
        return s;
    }
    *out = m;
    return ISO_OK;
}

static iso_status take_room(iso_model *m, int i, iso_error *err)
{
    m->data[i] = iso_calloc((size_t)iso_shape_count(&m->param[i].shape), sizeof(float));
    return m->data[i] ? ISO_OK : iso_fail_memory(err);
}

iso_status iso_model_create(const iso_net *net, iso_model **out, iso_error *err)
{
    iso_model *m;
    iso_status s = create_empty(net, &m, err);
    if (s) return s;
    for (int i = 0; !s && i < m->params; i++) s = take_room(m, i, err);
    if (s) {
        iso_model_free(m);
        return s;
    }
    *out = m;
    return ISO_OK;
}

/* --- loading and saving */

/* Before anything of the net's size is allocated: the file holds its parameters, and nothing else. */
static iso_status check_tensors(const iso_st *f, const iso_net *net, const char *path, iso_error *err)
{
    iso_param *param = NULL;
    int params = 0;
    iso_status s = list_params(net, &param, &params, err);
    if (s) return s;
    for (int i = 0; !s && i < params; i++) {
        const iso_st_tensor *t = iso_st_find(f, param[i].name);
        char have[192], want[96];
        if (!t)
            s = iso_fail(err, ISO_E_FORMAT, "%s is a damaged model: it has no tensor %s", path, param[i].name);
        else if (t->dtype != ISO_ST_F32)
            s = iso_fail(err, ISO_E_FORMAT, "%s is a damaged model: tensor %s is not of type F32", path, param[i].name);
        else if (!iso_st_is_shape(t, &param[i].shape))
            s = iso_fail(err, ISO_E_FORMAT, "%s is a damaged model: tensor %s has shape %s where its architecture has %s", path,
                         param[i].name, iso_st_shape_text(t, have), iso_shape_text(&param[i].shape, want));
    }
    if (!s && iso_st_count(f) != params)
        s = iso_fail(err, ISO_E_FORMAT, "%s is a damaged model: %d tensors where its architecture has %d", path, iso_st_count(f), params);
    free(param);
    return s;
}

static bool all_finite(const float *data, int64_t n)
{
    enum { MANY = 1 << 20 };
    int other = 0;
#pragma omp parallel for simd reduction(| : other) if (parallel : n > MANY)
    for (int64_t i = 0; i < n; i++) other |= !(fabsf(data[i]) <= FLT_MAX);
    return !other;
}

/* They stay where the model's file has them, if they can. */
static iso_status read_tensors(iso_model *m, const char *path, iso_error *err)
{
    for (int i = 0; i < m->params; i++) {
        const iso_st_tensor *t = iso_st_find(m->file, m->param[i].name);
        iso_status s = ISO_OK;
        m->data[i] = iso_st_floats(m->file, t);
        if (!m->data[i]) {
            s = take_room(m, i, err);
            if (!s) s = iso_st_f32(t, m->data[i], err);
        }
        if (s) return iso_fail_prefix(err, s, "%s", path);
        if (!all_finite(m->data[i], iso_shape_count(&m->param[i].shape)))
            return iso_fail(err, ISO_E_FORMAT, "%s is a damaged model: tensor %s holds a NaN or an infinity", path, m->param[i].name);
    }
    return ISO_OK;
}

iso_status iso_model_load(const char *path, iso_model **out, iso_error *err)
{
    iso_st *f = NULL;
    iso_model *m = NULL;
    iso_net net;
    iso_status s = iso_st_load(path, &f, err);
    if (s == ISO_E_FORMAT) return iso_fail_prefix(err, s, "not an Isoface model");
    if (s) return s;
    s = read_net(f, &net, path, err);
    if (s) goto out;
    s = check_tensors(f, &net, path, err);
    if (s) goto out;
    s = create_empty(&net, &m, err);
    if (s) goto out;
    m->file = f;
    s = read_tensors(m, path, err);
    for (int i = 0; !s && i < iso_st_meta_count(f); i++) {
        const char *key = iso_st_meta_key(f, i);
        if (!iso_model_describes(key)) s = put_meta(m, key, iso_st_meta(f, key), err);
    }
    /* Which program wrote it, not which one reads it. */
    if (!s && iso_st_meta(f, "version")) s = put_meta(m, "version", iso_st_meta(f, "version"), err);
    if (!s) {
        *out = m;
        return ISO_OK;
    }
out:
    if (!m) iso_st_free(f); /* else it goes with the model */
    iso_model_free(m);
    return s;
}

iso_status iso_model_save(iso_model *m, const char *path, iso_error *err)
{
    iso_status s = ISO_OK;
    iso_st_out *tensor = iso_calloc((size_t)m->params, sizeof *tensor);
    iso_st_meta_pair *pair = iso_calloc(m->metas, sizeof *pair);
    if (!tensor || !pair) {
        s = iso_fail_memory(err);
        goto out;
    }
    for (int i = 0; i < m->params; i++) {
        tensor[i] = (iso_st_out){m->param[i].name, m->param[i].shape, m->data[i]};
        if (all_finite(m->data[i], iso_shape_count(&m->param[i].shape))) continue;
        s = iso_fail(err, ISO_E_NUMERIC, "not saved: parameter %s holds a NaN or an infinity", m->param[i].name);
        goto out;
    }
    s = check_attributes(&m->net, iso_model_meta(m, "attributes"), err);
    if (s) goto out;
    s = put_meta(m, "version", ISO_VERSION, err);
    if (s) goto out;
    for (size_t i = 0; i < m->metas; i++) pair[i] = (iso_st_meta_pair){m->meta[i].key, m->meta[i].value};
    s = iso_st_save(path, m->params, tensor, (int)m->metas, pair, err);
out:
    free(tensor);
    free(pair);
    return s;
}

/* --- looking */

const iso_net *iso_model_net(const iso_model *m) { return &m->net; }

int iso_model_dim(const iso_model *m) { return m->net.latent; }

int iso_model_count(const iso_model *m) { return m->params; }

const char *iso_model_name(const iso_model *m, int i) { return m->param[i].name; }

iso_shape iso_model_shape(const iso_model *m, int i) { return m->param[i].shape; }

const float *iso_model_data_const(const iso_model *m, int i) { return m->data[i]; }

float *iso_model_data(iso_model *m, int i)
{
    m->touched = true;
    return m->data[i];
}

int iso_model_find(const iso_model *m, const char *name)
{
    for (int i = 0; i < m->params; i++)
        if (strcmp(m->param[i].name, name) == 0) return i;
    return -1;
}

void iso_net_text(const iso_net *net, char out[ISO_NET_TEXT])
{
    char sizes[16 * 12];
    /* What came later is told where it is there only: the digests of older models stay. */
    const char *views = net->views > 1 ? " views=2" : "", *white = net->whitened ? " whiten=1" : "";
    const int flow_length = net->flow_depth ? net->flow_length : 0;
    const size_t room = ISO_NET_TEXT;
    sizes_text(net, sizes);
    if (net->classes)
        snprintf(out, room, "arch=celeba width=%d latent=%d classes=%d%s%s preprocessing=" ISO_PREPROCESSING, net->width, net->latent,
                 net->classes, views, white);
    else if (net->arch == ISO_ARCH_CELEBA)
        snprintf(out, room, "arch=celeba width=%d latent=%d flow=%dx%d%s%s preprocessing=" ISO_PREPROCESSING, net->width, net->latent,
                 net->flow_depth, flow_length, views, white);
    else if (net->arch == ISO_ARCH_PCA)
        snprintf(out, room, "arch=pca latent=%d%s%s preprocessing=" ISO_PREPROCESSING, net->latent, views, white);
    else
        snprintf(out, room, "arch=mlp sizes=%s act=%s out=%s flow=%dx%d%s%s preprocessing=" ISO_PREPROCESSING, sizes, net->act, net->out,
                 net->flow_depth, flow_length, views, white);
}

/* The digest's bytes are fixed by the file format: the line of iso_net_text, then name, shape and data of every tensor. */
static void compute_digest(iso_model *m)
{
    char text[ISO_NET_TEXT];
    iso_net_text(&m->net, text);
    XXH3_128bits_reset(m->hash);
    XXH3_128bits_update(m->hash, text, strlen(text) + 1);
    for (int i = 0; i < m->params; i++) {
        const iso_param *p = &m->param[i];
        XXH3_128bits_update(m->hash, p->name, strlen(p->name) + 1);
        XXH3_128bits_update(m->hash, p->shape.dim, (size_t)p->shape.ndim * sizeof p->shape.dim[0]);
        XXH3_128bits_update(m->hash, m->data[i], (size_t)iso_shape_count(&p->shape) * sizeof(float));
    }
    XXH128_hash_t h = XXH3_128bits_digest(m->hash);
    snprintf(m->digest, sizeof m->digest, "%016llx%016llx", (unsigned long long)h.high64, (unsigned long long)h.low64);
}

const char *iso_model_digest(const iso_model *m)
{
    if (m->touched || !m->digest[0]) compute_digest((iso_model *)m); /* a cache: every model is made writable */
    return m->digest;
}

/* --- moving parameters */

/* A model of another net with m's metadata, and with m's parameters but for those whose names begin with `fresh_part`. */
static iso_status copy_as(const iso_model *m, const iso_net *net, const char *fresh_part, iso_model **out, iso_error *err)
{
    iso_model *fresh = NULL;
    iso_status s = iso_model_create(net, &fresh, err);
    if (s) return s;
    for (int i = 0; i < fresh->params; i++) {
        const iso_param *p = &fresh->param[i];
        int from = iso_model_find(m, p->name);
        if (from >= 0 && strncmp(p->name, fresh_part, strlen(fresh_part)) != 0)
            memcpy(fresh->data[i], m->data[from], (size_t)iso_shape_count(&p->shape) * sizeof(float));
    }
    for (size_t i = 0; !s && i < m->metas; i++)
        if (!iso_model_describes(m->meta[i].key)) s = put_meta(fresh, m->meta[i].key, m->meta[i].value, err);
    if (s) {
        iso_model_free(fresh);
        return s;
    }
    *out = fresh;
    return ISO_OK;
}

iso_status iso_model_with_flow(const iso_model *m, int depth, int length, iso_model **out, iso_error *err)
{
    iso_net net = m->net;
    net.flow_depth = depth;
    net.flow_length = length;
    if (depth < 1) return iso_fail(err, ISO_E_ARGUMENT, "flow depth %d is out of range (1 or more)", depth);
    if (net.whitened)
        return iso_fail(err, ISO_E_ARGUMENT, "a whitened model takes no flow: flatten the model it was made from, then whiten");
    return copy_as(m, &net, "flow.", out, err);
}

iso_status iso_model_with_whitening(const iso_model *m, iso_model **out, iso_error *err)
{
    iso_net net = m->net;
    iso_model *fresh = NULL;
    if (net.whitened) return iso_fail(err, ISO_E_ARGUMENT, "the model is whitened already: give the model it was made from");
    net.whitened = 1;
    iso_status s = copy_as(m, &net, "whiten.", &fresh, err);
    if (s) return s;
    float *weight = iso_model_data(fresh, iso_model_find(fresh, "whiten.weight"));
    for (int i = 0; i < net.latent; i++) weight[(int64_t)i * net.latent + i] = 1;
    *out = fresh;
    return ISO_OK;
}

iso_status iso_model_to_vars(const iso_model *m, iso_vars *vars, iso_error *err)
{
    for (int i = 0; i < m->params; i++) {
        const iso_param *p = &m->param[i];
        if (iso_vars_find(vars, p->name) < 0) continue;
        iso_status s = iso_vars_write(vars, p->name, m->data[i], iso_shape_count(&p->shape), err);
        if (s) return s;
    }
    return ISO_OK;
}

iso_status iso_model_from_vars(iso_model *m, const iso_vars *vars, iso_error *err)
{
    iso_status s = ISO_OK;
    float **fresh = iso_calloc((size_t)m->params, sizeof *fresh);
    if (!fresh) return iso_fail_memory(err);
    for (int i = 0; i < m->params; i++) {
        const iso_param *p = &m->param[i];
        int64_t n = iso_shape_count(&p->shape);
        if (iso_vars_find(vars, p->name) < 0) continue;
        fresh[i] = iso_calloc((size_t)n, sizeof(float));
        s = fresh[i] ? iso_vars_read(vars, p->name, fresh[i], n, err) : iso_fail_memory(err);
        if (!s && !all_finite(fresh[i], n))
            s = iso_fail(err, ISO_E_NUMERIC, "parameter %s has become a NaN or an infinity", p->name);
        if (s) goto out;
    }
    for (int i = 0; i < m->params; i++)
        if (fresh[i]) {
            /* Copied, not swapped: pointers from iso_model_data stay good. */
            memcpy(m->data[i], fresh[i], (size_t)iso_shape_count(&m->param[i].shape) * sizeof(float));
        }
    m->digest[0] = 0;
out:
    for (int i = 0; i < m->params; i++) free(fresh[i]);
    free(fresh);
    return s;
}
