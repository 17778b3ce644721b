#include "model/safetensors.h"

#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/memory.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "safetensors holds little-endian numbers; so must the machine");

#define HEADER_LIMIT 100000000u        /* bytes of JSON, as the reference implementation has it */
#define FILE_LIMIT ((size_t)1 << 38)   /* no model is that large; a device or a disk image may be */
#define METADATA "__metadata__"

struct iso_st {
    char *bytes;               /* the file */
    size_t huge;               /* bytes of iso_huge_alloc; 0: they are malloc's */
    int tensors, pairs;
    iso_st_tensor *tensor;     /* header order */
    const iso_st_tensor **by_name;
    iso_st_meta_pair *pair;    /* both strings owned */
};

typedef struct span { int64_t begin, end; } span;

/* Names come from the file: shown cut short. */
#define SHOWN "%.80s"

/* --- reading */

static bool dtype_of(const char *name, iso_st_dtype *dtype, int64_t *bytes)
{
    static const struct { const char *name; iso_st_dtype dtype; int bytes; } known[] = {
        {"F32", ISO_ST_F32, 4},   {"F64", ISO_ST_F64, 8},   {"I64", ISO_ST_I64, 8},       {"BOOL", ISO_ST_OTHER, 1},
        {"U8", ISO_ST_OTHER, 1},  {"I8", ISO_ST_OTHER, 1},  {"F8_E5M2", ISO_ST_OTHER, 1}, {"F8_E4M3", ISO_ST_OTHER, 1},
        {"I16", ISO_ST_OTHER, 2}, {"U16", ISO_ST_OTHER, 2}, {"F16", ISO_ST_OTHER, 2},     {"BF16", ISO_ST_OTHER, 2},
        {"I32", ISO_ST_OTHER, 4}, {"U32", ISO_ST_OTHER, 4}, {"U64", ISO_ST_OTHER, 8},
    };
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        if (strcmp(name, known[i].name) != 0) continue;
        *dtype = known[i].dtype;
        *bytes = known[i].bytes;
        return true;
    }
    return false;
}

static iso_status parse_shape(const json_t *shape, int64_t element_bytes, iso_st_tensor *t, int64_t *bytes, const char *path,
                              iso_error *err)
{
    if (!json_is_array(shape) || json_array_size(shape) > ISO_ST_MAX_DIMS)
        return iso_fail(err, ISO_E_FORMAT, "%s: tensor " SHOWN ": its shape is not a list of up to %d sizes", path, t->name,
                        ISO_ST_MAX_DIMS);
    t->ndim = (int)json_array_size(shape);
    t->count = 1;
    for (int i = 0; i < t->ndim; i++) {
        const json_t *dim = json_array_get(shape, (size_t)i);
        if (!json_is_integer(dim) || json_integer_value(dim) < 0)
            return iso_fail(err, ISO_E_FORMAT, "%s: tensor " SHOWN ": a size is not a whole number", path, t->name);
        t->dim[i] = json_integer_value(dim);
        if (__builtin_mul_overflow(t->count, t->dim[i], &t->count))
            return iso_fail(err, ISO_E_FORMAT, "%s: tensor " SHOWN ": impossibly large", path, t->name);
    }
    if (__builtin_mul_overflow(t->count, element_bytes, bytes))
        return iso_fail(err, ISO_E_FORMAT, "%s: tensor " SHOWN ": impossibly large", path, t->name);
    return ISO_OK;
}

static iso_status parse_tensor(const char *name, const json_t *entry, const char *data, int64_t data_size, iso_st_tensor *t,
                               span *where, const char *path, iso_error *err)
{
    t->name = iso_strndup(name, strlen(name));
    if (!t->name) return iso_fail_memory(err);
    const char *dtype = json_string_value(json_object_get(entry, "dtype"));
    int64_t element_bytes, bytes = 0;
    if (!dtype || !dtype_of(dtype, &t->dtype, &element_bytes))
        return iso_fail(err, ISO_E_FORMAT, "%s: tensor " SHOWN ": unknown number type " SHOWN, path, name, dtype ? dtype : "(none)");
    iso_status s = parse_shape(json_object_get(entry, "shape"), element_bytes, t, &bytes, path, err);
    if (s) return s;
    const json_t *offsets = json_object_get(entry, "data_offsets");
    const json_t *begin = json_array_get(offsets, 0), *end = json_array_get(offsets, 1);
    if (json_array_size(offsets) != 2 || !json_is_integer(begin) || !json_is_integer(end))
        return iso_fail(err, ISO_E_FORMAT, "%s: tensor " SHOWN ": no data_offsets", path, name);
    where->begin = json_integer_value(begin);
    where->end = json_integer_value(end);
    if (where->begin < 0 || where->end < where->begin || where->end > data_size)
        return iso_fail(err, ISO_E_FORMAT, "%s: tensor " SHOWN " lies outside the file, which is cut short or damaged", path, name);
    if (where->end - where->begin != bytes)
        return iso_fail(err, ISO_E_FORMAT, "%s: tensor " SHOWN ": its shape needs %" PRId64 " bytes, the file gives it %" PRId64,
                        path, name, bytes, where->end - where->begin);
    t->data = data + where->begin;
    return ISO_OK;
}

static iso_status parse_metadata(iso_st *f, const json_t *metadata, const char *path, iso_error *err)
{
    if (!json_is_object(metadata)) return iso_fail(err, ISO_E_FORMAT, "%s: " METADATA " is not an object", path);
    f->pair = iso_calloc(json_object_size(metadata), sizeof *f->pair);
    if (!f->pair) return iso_fail_memory(err);
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)metadata, key, value) {
        if (!json_is_string(value)) return iso_fail(err, ISO_E_FORMAT, "%s: metadata " SHOWN " is not a string", path, key);
        iso_st_meta_pair *pair = &f->pair[f->pairs++];
        pair->key = iso_strndup(key, strlen(key));
        pair->value = iso_strndup(json_string_value(value), json_string_length(value));
        if (!pair->key || !pair->value) return iso_fail_memory(err);
    }
    return ISO_OK;
}

static int compare_spans(const void *a, const void *b)
{
    const span *x = a, *y = b;
    if (x->begin != y->begin) return x->begin < y->begin ? -1 : 1;
    return (x->end > y->end) - (x->end < y->end);
}

/* The tensors must tile the data: a gap could hide something, an overlap would alias two parameters. */
static iso_status check_tiling(span *where, int n, int64_t data_size, const char *path, iso_error *err)
{
    qsort(where, (size_t)n, sizeof *where, compare_spans);
    int64_t at = 0;
    for (int i = 0; i < n; i++) {
        if (where[i].begin != at)
            return iso_fail(err, ISO_E_FORMAT, "%s: its tensors %s", path, where[i].begin < at ? "overlap" : "leave a gap");
        at = where[i].end;
    }
    if (at != data_size)
        return iso_fail(err, ISO_E_FORMAT, "%s: %" PRId64 " bytes behind its last tensor", path, data_size - at);
    return ISO_OK;
}

static int compare_names(const void *a, const void *b)
{
    return strcmp((*(const iso_st_tensor *const *)a)->name, (*(const iso_st_tensor *const *)b)->name);
}

static iso_status parse_entries(iso_st *f, const json_t *root, const char *data, int64_t data_size, const char *path, iso_error *err)
{
    iso_status s = ISO_OK;
    size_t entries = json_object_size(root);
    span *where = iso_calloc(entries, sizeof *where);
    f->tensor = iso_calloc(entries, sizeof *f->tensor);
    f->by_name = iso_calloc(entries, sizeof *f->by_name);
    if (!where || !f->tensor || !f->by_name) {
        s = iso_fail_memory(err);
        goto out;
    }
    const char *name;
    json_t *entry;
    json_object_foreach((json_t *)root, name, entry) {
        if (strcmp(name, METADATA) == 0) {
            s = parse_metadata(f, entry, path, err);
        } else {
            int i = f->tensors++;
            f->by_name[i] = &f->tensor[i];
            s = parse_tensor(name, entry, data, data_size, &f->tensor[i], &where[i], path, err);
        }
        if (s) goto out;
    }
    s = check_tiling(where, f->tensors, data_size, path, err);
    qsort(f->by_name, (size_t)f->tensors, sizeof *f->by_name, compare_names);
out:
    free(where);
    return s;
}

/* The header's length, checked against the file's. */
static iso_status header_length(const unsigned char prefix[9], size_t size, const char *path, size_t *length, iso_error *err)
{
    uint64_t n;
    if (size < 10) return iso_fail(err, ISO_E_FORMAT, "%s is not a safetensors file: only %zu bytes", path, size);
    memcpy(&n, prefix, 8);
    if (n < 2 || prefix[8] != '{') return iso_fail(err, ISO_E_FORMAT, "%s is not a safetensors file", path);
    if (n > HEADER_LIMIT || n > size - 8)
        return iso_fail(err, ISO_E_FORMAT, "%s is not a safetensors file, or is cut short: its header would be %" PRIu64 " bytes long",
                        path, n);
    *length = (size_t)n;
    return ISO_OK;
}

static void free_bytes(char *bytes, size_t huge)
{
    if (huge) iso_huge_free(bytes, huge);
    else free(bytes);
}

/* Takes `bytes` over in every case. */
static iso_status parse_owned(char *bytes, size_t size, size_t huge, const char *path, iso_st **out, iso_error *err)
{
    json_t *root = NULL;
    json_error_t why;
    size_t header;
    iso_status s;
    iso_st *f = iso_calloc(1, sizeof *f);
    if (!f) {
        free_bytes(bytes, huge);
        return iso_fail_memory(err);
    }
    f->bytes = bytes;
    f->huge = huge;
    s = header_length((const unsigned char *)bytes, size, path, &header, err);
    if (s) goto out;
    root = json_loadb(bytes + 8, header, JSON_REJECT_DUPLICATES, &why);
    if (!root) {
        s = iso_fail(err, ISO_E_FORMAT, "%s: its header is damaged: " SHOWN, path, why.text);
        goto out;
    }
    if (!json_is_object(root)) {
        s = iso_fail(err, ISO_E_FORMAT, "%s: its header is not an object", path);
        goto out;
    }
    s = parse_entries(f, root, bytes + 8 + header, (int64_t)(size - 8 - header), path, err);
    if (s) goto out;
    *out = f;
    f = NULL;
out:
    json_decref(root);
    iso_st_free(f);
    return s;
}

iso_status iso_st_parse(const void *data, size_t size, const char *path, iso_st **out, iso_error *err)
{
    if (size > FILE_LIMIT) return iso_fail(err, ISO_E_FORMAT, "%s is too large to be a safetensors file", path);
    char *bytes = iso_calloc(size < 16 ? 16 : size, 1); /* header_length looks at nine bytes */
    if (!bytes) return iso_fail_memory(err);
    memcpy(bytes, data, size);
    return parse_owned(bytes, size, 0, path, out, err);
}

iso_status iso_st_load(const char *path, iso_st **out, iso_error *err)
{
    /* A look at the first bytes, before gigabytes of something else are read. */
    unsigned char prefix[9] = {0};
    int fd;
    struct stat st;
    size_t header;
    iso_status s = iso_file_open_regular(path, FILE_LIMIT, &fd, &st, err);
    if (s) return s;
    const bool large = st.st_size >= 2 * (off_t)ISO_HUGE_PAGE;
    ssize_t n;
    do n = read(fd, prefix, sizeof prefix);
    while (n < 0 && errno == EINTR);
    if (n < 0) s = iso_fail_errno(err, "cannot read %s", path);
    close(fd);
    if (!s) s = header_length(prefix, (size_t)st.st_size, path, &header, err);
    if (s) return s;
    char *bytes;
    size_t size;
    s = large ? iso_file_read_huge(path, FILE_LIMIT, &bytes, &size, err) : iso_file_read(path, FILE_LIMIT, &bytes, &size, err);
    if (s) return s;
    return parse_owned(bytes, size, large ? size : 0, path, out, err);
}

void iso_st_free(iso_st *f)
{
    if (!f) return;
    for (int i = 0; i < f->tensors; i++) free(f->tensor[i].name);
    for (int i = 0; i < f->pairs; i++) {
        free((char *)f->pair[i].key);
        free((char *)f->pair[i].value);
    }
    free(f->tensor);
    free(f->by_name);
    free(f->pair);
    free_bytes(f->bytes, f->huge);
    free(f);
}

/* --- looking */

int iso_st_count(const iso_st *f) { return f->tensors; }

float *iso_st_floats(iso_st *f, const iso_st_tensor *t)
{
    const char *data = t->data;
    if (t->dtype != ISO_ST_F32 || (uintptr_t)data % _Alignof(float) != 0) return NULL;
    return (float *)(f->bytes + (data - f->bytes));
}

const iso_st_tensor *iso_st_at(const iso_st *f, int i) { return &f->tensor[i]; }

const iso_st_tensor *iso_st_find(const iso_st *f, const char *name)
{
    int low = 0, high = f->tensors;
    while (low < high) {
        int middle = low + (high - low) / 2;
        int order = strcmp(name, f->by_name[middle]->name);
        if (order == 0) return f->by_name[middle];
        if (order < 0) high = middle;
        else low = middle + 1;
    }
    return NULL;
}

int iso_st_meta_count(const iso_st *f) { return f->pairs; }

const char *iso_st_meta_key(const iso_st *f, int i) { return f->pair[i].key; }

const char *iso_st_meta(const iso_st *f, const char *key)
{
    for (int i = 0; i < f->pairs; i++)
        if (strcmp(f->pair[i].key, key) == 0) return f->pair[i].value;
    return NULL;
}

bool iso_st_is_shape(const iso_st_tensor *t, const iso_shape *shape)
{
    if (t->ndim != shape->ndim) return false;
    for (int i = 0; i < t->ndim; i++)
        if (t->dim[i] != shape->dim[i]) return false;
    return true;
}

const char *iso_st_shape_text(const iso_st_tensor *t, char buf[192])
{
    int at = snprintf(buf, 192, "[");
    for (int i = 0; i < t->ndim; i++) at += snprintf(buf + at, 192 - (size_t)at, "%s%" PRId64, i ? ", " : "", t->dim[i]);
    snprintf(buf + at, 192 - (size_t)at, "]");
    return buf;
}

/* --- converting */

iso_status iso_st_f32(const iso_st_tensor *t, float *out, iso_error *err)
{
    if (t->dtype == ISO_ST_F32) {
        memcpy(out, t->data, (size_t)t->count * sizeof *out);
        return ISO_OK;
    }
    if (t->dtype != ISO_ST_F64) return iso_fail(err, ISO_E_FORMAT, "tensor " SHOWN " is not of type F32 or F64", t->name);
    for (int64_t i = 0; i < t->count; i++) {
        double value;
        memcpy(&value, (const char *)t->data + i * 8, 8);
        out[i] = (float)value;
    }
    return ISO_OK;
}

iso_status iso_st_f64(const iso_st_tensor *t, double *out, iso_error *err)
{
    if (t->dtype == ISO_ST_F64) {
        memcpy(out, t->data, (size_t)t->count * sizeof *out);
        return ISO_OK;
    }
    if (t->dtype != ISO_ST_F32) return iso_fail(err, ISO_E_FORMAT, "tensor " SHOWN " is not of type F32 or F64", t->name);
    for (int64_t i = 0; i < t->count; i++) {
        float value;
        memcpy(&value, (const char *)t->data + i * 4, 4);
        out[i] = value;
    }
    return ISO_OK;
}

iso_status iso_st_i64(const iso_st_tensor *t, int64_t *out, iso_error *err)
{
    if (t->dtype != ISO_ST_I64) return iso_fail(err, ISO_E_FORMAT, "tensor " SHOWN " is not of type I64", t->name);
    memcpy(out, t->data, (size_t)t->count * sizeof *out);
    return ISO_OK;
}

/* --- writing */

/* Steals `value`; false when memory is out or a string is not UTF-8. */
static bool put(json_t *object, const char *key, json_t *value)
{
    return value && json_object_set_new(object, key, value) == 0;
}

static json_t *describe_tensor(const iso_st_out *t, int64_t *at)
{
    json_t *entry = json_object(), *shape = json_array(), *offsets = json_array();
    int64_t end = *at + iso_shape_count(&t->shape) * 4;
    bool good = entry && shape && offsets;
    for (int i = 0; good && i < t->shape.ndim; i++) good = json_array_append_new(shape, json_integer(t->shape.dim[i])) == 0;
    good = good && json_array_append_new(offsets, json_integer(*at)) == 0 && json_array_append_new(offsets, json_integer(end)) == 0 &&
           put(entry, "dtype", json_string("F32")) && json_object_set(entry, "shape", shape) == 0 &&
           json_object_set(entry, "data_offsets", offsets) == 0;
    json_decref(shape);
    json_decref(offsets);
    *at = end;
    if (good) return entry;
    json_decref(entry);
    return NULL;
}

/* The header's JSON in memory of jansson's (free()). */
static iso_status describe(int tensors, const iso_st_out *tensor, int pairs, const iso_st_meta_pair *pair, char **text, iso_error *err)
{
    iso_status s = ISO_OK;
    int64_t at = 0;
    json_t *root = json_object(), *metadata = json_object();
    if (!root || !metadata || json_object_set(root, METADATA, metadata) != 0) {
        s = iso_fail_memory(err);
        goto out;
    }
    for (int i = 0; i < pairs; i++)
        if (!put(metadata, pair[i].key, json_string(pair[i].value))) {
            s = iso_fail(err, ISO_E_ARGUMENT, "metadata " SHOWN " is not UTF-8 text", pair[i].key);
            goto out;
        }
    for (int i = 0; i < tensors; i++) {
        if (json_object_get(root, tensor[i].name)) {
            s = iso_fail(err, ISO_E_ARGUMENT, "two tensors of the name " SHOWN, tensor[i].name);
            goto out;
        }
        if (!put(root, tensor[i].name, describe_tensor(&tensor[i], &at))) {
            s = iso_fail_memory(err);
            goto out;
        }
    }
    *text = json_dumps(root, JSON_COMPACT);
    if (!*text) s = iso_fail_memory(err);
out:
    json_decref(metadata);
    json_decref(root);
    return s;
}

static bool write_all(FILE *f, const void *data, size_t size) { return size == 0 || fwrite(data, 1, size, f) == size; }

iso_status iso_st_save(const char *path, int tensors, const iso_st_out *tensor, int pairs, const iso_st_meta_pair *pair, iso_error *err)
{
    char *header = NULL;
    iso_file *file = NULL;
    iso_status s = describe(tensors, tensor, pairs, pair, &header, err);
    if (s) goto out;
    s = iso_file_create(path, &file, err);
    if (s) goto out;
    FILE *f = iso_file_stream(file);
    size_t length = strlen(header), padding = (8 - length % 8) % 8;
    uint64_t n = length + padding;
    bool good = write_all(f, &n, 8) && write_all(f, header, length) && write_all(f, "        ", padding);
    for (int i = 0; good && i < tensors; i++)
        good = write_all(f, tensor[i].data, (size_t)iso_shape_count(&tensor[i].shape) * sizeof(float));
    if (!good) {
        s = iso_fail_errno(err, "cannot write %s", path);
        goto out;
    }
    s = iso_file_commit(file, err);
    file = NULL;
out:
    iso_file_abort(file);
    free(header);
    return s;
}
