#include "model/checkpoint.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "base/memory.h"

#define FORMAT "isoface-training-state"
#define VERSION "1"
#define MAX_PAIRS 64
#define TEXT 40
#define CHECKSUM "checksum"

void iso_checkpoint_clear(iso_checkpoint *c)
{
    free(c->log);
    free(c->history);
    *c = (iso_checkpoint){0};
}

/* --- the checksum: 32 hexadecimal digits over all other pairs and all tensors, in the file's order */

static void sum_pair(XXH3_state_t *sum, const char *key, const char *value)
{
    if (strcmp(key, CHECKSUM) == 0) return;
    XXH3_128bits_update(sum, key, strlen(key) + 1);
    XXH3_128bits_update(sum, value, strlen(value) + 1);
}

static void sum_tensor(XXH3_state_t *sum, const char *name, const void *data, int64_t count)
{
    XXH3_128bits_update(sum, name, strlen(name) + 1);
    XXH3_128bits_update(sum, data, (size_t)count * sizeof(float));
}

static void sum_text(const XXH3_state_t *sum, char text[TEXT])
{
    XXH128_hash_t h = XXH3_128bits_digest(sum);
    snprintf(text, TEXT, "%016" PRIx64 "%016" PRIx64, (uint64_t)h.high64, (uint64_t)h.low64);
}

/* --- saving */

static iso_status read_tensors(const iso_vars *vars, int count, const char *const *name, iso_st_out *tensor,
                               float **buffer, iso_error *err)
{
    int64_t total = 0, at = 0;
    for (int i = 0; i < count; i++) {
        int v = iso_vars_find(vars, name[i]);
        if (v < 0) return iso_fail(err, ISO_E_INTERNAL, "no variable %s to save", name[i]);
        tensor[i] = (iso_st_out){.name = name[i], .shape = iso_vars_shape(vars, v)};
        total += iso_shape_count(&tensor[i].shape);
    }
    float *data = iso_calloc((size_t)total, sizeof *data);
    if (!data) return iso_fail_memory(err);
    *buffer = data; /* the caller frees it in every case */
    for (int i = 0; i < count; i++) {
        int64_t n = iso_shape_count(&tensor[i].shape);
        iso_status status = iso_vars_read(vars, name[i], data + at, n, err);
        if (status != ISO_OK) return status;
        for (int64_t k = 0; k < n; k++)
            if (!isfinite(data[at + k]))
                return iso_fail(err, ISO_E_NUMERIC, "%s holds %s", name[i], isnan(data[at + k]) ? "a NaN" : "an infinity");
        tensor[i].data = data + at;
        at += n;
    }
    return ISO_OK;
}

typedef struct pairs {
    iso_st_meta_pair pair[MAX_PAIRS];
    char key[MAX_PAIRS][TEXT], value[MAX_PAIRS][TEXT];
    int count;
} pairs;

static void put_text(pairs *p, const char *key, const char *value)
{
    p->pair[p->count++] = (iso_st_meta_pair){key, value};
}

static void put_int(pairs *p, const char *key, int64_t value)
{
    snprintf(p->value[p->count], TEXT, "%" PRId64, value);
    put_text(p, key, p->value[p->count]);
}

/* Hexadecimal, so that every bit comes back. */
static void put_real(pairs *p, const char *key, double value)
{
    snprintf(p->value[p->count], TEXT, "%a", value);
    put_text(p, key, p->value[p->count]);
}

static void put_all(pairs *p, const iso_checkpoint *c, int options, const iso_st_meta_pair *option)
{
    put_text(p, "format", FORMAT);
    put_text(p, "version", VERSION);
    put_int(p, "epoch", c->epoch);
    put_int(p, "position", c->position);
    put_int(p, "step", c->step);
    put_int(p, "best_epoch", c->best_epoch);
    put_real(p, "best", c->best);
    put_text(p, "model", c->model);
    put_real(p, "seconds", c->seconds);
    for (int i = 0; i < ISO_TERM_COUNT; i++) {
        char *key = p->key[p->count];
        snprintf(key, TEXT, "sum.%d", i);
        put_real(p, key, c->sum[i]);
    }
    put_text(p, "log", c->log ? c->log : "");
    put_text(p, "history", c->history ? c->history : "");
    for (int i = 0; i < options; i++) {
        char *key = p->key[p->count];
        snprintf(key, TEXT, "option.%s", option[i].key);
        put_text(p, key, option[i].value);
    }
}

static iso_status put_checksum(pairs *p, int tensors, const iso_st_out *tensor, iso_error *err)
{
    XXH3_state_t *sum = XXH3_createState();
    if (!sum) return iso_fail_memory(err);
    XXH3_128bits_reset(sum);
    for (int i = 0; i < p->count; i++) sum_pair(sum, p->pair[i].key, p->pair[i].value);
    for (int i = 0; i < tensors; i++) sum_tensor(sum, tensor[i].name, tensor[i].data, iso_shape_count(&tensor[i].shape));
    sum_text(sum, p->value[p->count]);
    put_text(p, CHECKSUM, p->value[p->count]);
    XXH3_freeState(sum);
    return ISO_OK;
}

iso_status iso_checkpoint_save(const char *path, const iso_checkpoint *c, const iso_vars *vars, int count,
                               const char *const *name, int options, const iso_st_meta_pair *option, iso_error *err)
{
    iso_status status;
    float *data = NULL;
    iso_st_out *tensor = iso_calloc((size_t)count, sizeof *tensor);
    pairs *p = iso_calloc(1, sizeof *p);
    if (!tensor || !p) {
        status = iso_fail_memory(err);
        goto done;
    }
    if (options > MAX_PAIRS - 12 - ISO_TERM_COUNT) {
        status = iso_fail(err, ISO_E_INTERNAL, "too many options to save");
        goto done;
    }
    if ((status = read_tensors(vars, count, name, tensor, &data, err)) != ISO_OK) goto done;
    put_all(p, c, options, option);
    if ((status = put_checksum(p, count, tensor, err)) != ISO_OK) goto done;
    status = iso_st_save(path, count, tensor, p->count, p->pair, err);
done:
    free(data);
    free(tensor);
    free(p);
    return status;
}

/* --- loading */

static iso_status damaged(const char *path, const char *what, iso_error *err)
{
    return iso_fail(err, ISO_E_FORMAT, "%s is no usable training state (%s): start anew with --force", path, what);
}

/* A state from before there were checksums has none. */
static iso_status check_sum(const char *path, const iso_st *f, iso_error *err)
{
    const char *was = iso_st_meta(f, CHECKSUM);
    if (!was) return ISO_OK;
    XXH3_state_t *sum = XXH3_createState();
    if (!sum) return iso_fail_memory(err);
    XXH3_128bits_reset(sum);
    for (int i = 0; i < iso_st_meta_count(f); i++) sum_pair(sum, iso_st_meta_key(f, i), iso_st_meta(f, iso_st_meta_key(f, i)));
    for (int i = 0; i < iso_st_count(f); i++) {
        const iso_st_tensor *t = iso_st_at(f, i);
        if (t->dtype == ISO_ST_F32) sum_tensor(sum, t->name, t->data, t->count);
    }
    char is[TEXT];
    sum_text(sum, is);
    XXH3_freeState(sum);
    return strcmp(is, was) == 0 ? ISO_OK : damaged(path, "its checksum is wrong", err);
}

static bool get_int(const iso_st *f, const char *key, int64_t *out)
{
    const char *text = iso_st_meta(f, key);
    char *end;
    if (!text || !*text) return false;
    errno = 0;
    long long v = strtoll(text, &end, 10);
    if (errno || *end || v < 0) return false;
    *out = v;
    return true;
}

static bool get_real(const iso_st *f, const char *key, double *out)
{
    const char *text = iso_st_meta(f, key);
    char *end;
    if (!text || !*text) return false;
    double v = strtod(text, &end);
    if (*end || isnan(v)) return false;
    *out = v;
    return true;
}

static bool get_text(const iso_st *f, const char *key, char **out)
{
    const char *text = iso_st_meta(f, key);
    return text && (*out = iso_strndup(text, strlen(text)));
}

static bool is_of_data(const char *option) { return strcmp(option, "images") == 0 || strcmp(option, "labels") == 0; }

static iso_status check_options(const char *path, const iso_st *f, int options, const iso_st_meta_pair *option, bool with_data,
                                iso_error *err)
{
    for (int i = 0; i < options; i++) {
        char key[TEXT];
        snprintf(key, sizeof key, "option.%s", option[i].key);
        const char *was = iso_st_meta(f, key);
        if (!was && strcmp(option[i].key, "views") == 0) was = "1"; /* named only where there are two, which has become the default */
        if (!was)
            return iso_fail(err, ISO_E_ARGUMENT,
                            "%s was trained without --%s %s; do the same, or start anew with --force", path,
                            option[i].key, option[i].value);
        if (strcmp(was, option[i].value) == 0) continue;
        if (strcmp(option[i].key, "images") == 0)
            return iso_fail(err, ISO_E_ARGUMENT,
                            "the images of --images are not those that %s was trained on; give the same "
                            "folder, unchanged, or start anew with --force", path);
        if (strcmp(option[i].key, "labels") == 0)
            return iso_fail(err, ISO_E_ARGUMENT,
                            "the attributes are not those that %s was trained on; give the same file, unchanged, "
                            "or start anew with --force", path);
        if (strcmp(option[i].key, "model") == 0)
            return iso_fail(err, ISO_E_ARGUMENT,
                            "--model is not the model that %s was made from (%s, now %s); give the same, or "
                            "start anew with --force", path, was, option[i].value);
        return iso_fail(err, ISO_E_ARGUMENT,
                        "%s was trained with --%s %s, now it is %s; give the same, or start anew with --force",
                        path, option[i].key, was, option[i].value);
    }
    /* Options that are named only where they are not the default. */
    for (int k = 0; k < iso_st_meta_count(f); k++) {
        const char *key = iso_st_meta_key(f, k);
        bool known = strncmp(key, "option.", 7) != 0 || (!with_data && is_of_data(key + 7));
        for (int i = 0; i < options && !known; i++) known = strcmp(key + 7, option[i].key) == 0;
        if (!known)
            return iso_fail(err, ISO_E_ARGUMENT,
                            "%s was trained with --%s %s, now it is not; give the same, or start anew with --force",
                            path, key + 7, iso_st_meta(f, key));
    }
    return ISO_OK;
}

static iso_status get_tensors(const char *path, const iso_st *f, iso_vars *vars, int count, const char *const *name,
                              iso_error *err)
{
    iso_status status = ISO_OK;
    for (int i = 0; i < count && status == ISO_OK; i++) {
        const iso_st_tensor *t = iso_st_find(f, name[i]);
        int v = iso_vars_find(vars, name[i]);
        if (v < 0) return iso_fail(err, ISO_E_INTERNAL, "no variable %s to load", name[i]);
        iso_shape shape = iso_vars_shape(vars, v);
        if (!t || t->dtype != ISO_ST_F32 || !iso_st_is_shape(t, &shape)) return damaged(path, name[i], err);
        float *data = iso_calloc((size_t)t->count, sizeof *data);
        if (!data) return iso_fail_memory(err);
        status = iso_st_f32(t, data, err);
        for (int64_t k = 0; status == ISO_OK && k < t->count; k++)
            if (!isfinite(data[k])) status = damaged(path, "a number that is not finite", err);
        if (status == ISO_OK) status = iso_vars_write(vars, name[i], data, t->count, err);
        free(data);
    }
    return status;
}

iso_status iso_checkpoint_load(const char *path, iso_checkpoint *out, iso_vars *vars, int count, const char *const *name,
                               int options, const iso_st_meta_pair *option, iso_error *err)
{
    iso_checkpoint c = {0};
    iso_st *f = NULL;
    iso_status status = iso_st_load(path, &f, err);
    if (status != ISO_OK) return status;
    const char *format = iso_st_meta(f, "format"), *version = iso_st_meta(f, "version");
    if (!format || strcmp(format, FORMAT) != 0) {
        status = damaged(path, "another kind of file", err);
        goto done;
    }
    if (version && strcmp(version, VERSION) != 0) {
        status = iso_fail(err, ISO_E_UNSUPPORTED, "%s was written by another Isoface (format %.20s, this one reads " VERSION "): go on with that one, or start anew "
                          "with --force", path, version);
        goto done;
    }
    if (!version) {
        status = damaged(path, "no version", err);
        goto done;
    }
    if ((status = check_sum(path, f, err)) != ISO_OK) goto done;
    if ((status = check_options(path, f, options, option, vars != NULL, err)) != ISO_OK) goto done;
    bool good = get_int(f, "epoch", &c.epoch) && get_int(f, "position", &c.position) && get_int(f, "step", &c.step) &&
                get_int(f, "best_epoch", &c.best_epoch) && get_real(f, "best", &c.best) &&
                get_real(f, "seconds", &c.seconds) && get_text(f, "log", &c.log) && get_text(f, "history", &c.history);
    if (iso_st_meta(f, "model")) snprintf(c.model, sizeof c.model, "%s", iso_st_meta(f, "model")); /* not in older states */
    for (int i = 0; good && i < ISO_TERM_COUNT; i++) {
        char key[TEXT];
        snprintf(key, sizeof key, "sum.%d", i);
        bool later = i == ISO_TERM_ACCURACY && !iso_st_meta(f, key); /* a run that began before there was this term */
        good = later || get_real(f, key, &c.sum[i]);
    }
    if (!good) {
        status = damaged(path, "counters", err);
        goto done;
    }
    if ((status = get_tensors(path, f, vars, count, name, err)) != ISO_OK) goto done;
    *out = c;
    c = (iso_checkpoint){0};
done:
    iso_checkpoint_clear(&c);
    iso_st_free(f);
    return status;
}
