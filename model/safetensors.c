#include "model/safetensors.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/file.h"
#include "base/json.h"
#include "base/memory.h"
#include "base/text.h"

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

/* The header as far as it is read, and for whom. */
typedef struct reader {
    iso_json json;
    const char *header, *path;
    iso_error *err;
} reader;

static iso_status damaged(const reader *r, const char *what)
{
    return iso_fail(r->err, ISO_E_FORMAT, "%s: its header is damaged: %s at byte %td", r->path, what, r->json.at - r->header);
}

static iso_status read_text(reader *r, char **text)
{
    iso_status s = iso_json_string(&r->json, text);
    if (s == ISO_E_MEMORY) return iso_fail_memory(r->err);
    return s ? damaged(r, "no text in UTF-8") : ISO_OK;
}

/* The next name of an object (free()), whose value comes next; NULL: there is none. */
static iso_status next_key(reader *r, bool first, char **key)
{
    *key = NULL;
    if (iso_json_take(&r->json, '}')) return ISO_OK;
    if (!first && !iso_json_take(&r->json, ',')) return damaged(r, "no comma or brace");
    iso_status s = read_text(r, key);
    if (s || iso_json_take(&r->json, ':')) return s;
    free(*key);
    *key = NULL;
    return damaged(r, "no colon");
}

static iso_status wrong(const reader *r, const iso_st_tensor *t, const char *what)
{
    return iso_fail(r->err, ISO_E_FORMAT, "%s: tensor " SHOWN ": %s", r->path, t->name, what);
}

/* What is said of a tensor; shape and offsets have -1 numbers until they were read. */
typedef struct entry {
    char *dtype;
    int offsets;
    int64_t offset[2];
} entry;

static iso_status read_field(reader *r, const char *key, iso_st_tensor *t, entry *e)
{
    if (strcmp(key, "dtype") == 0 && !e->dtype) return read_text(r, &e->dtype);
    if (strcmp(key, "shape") == 0 && t->ndim < 0)
        return iso_json_numbers(&r->json, ISO_ST_MAX_DIMS, t->dim, &t->ndim) ? ISO_OK : wrong(r, t, "its shape is not a list of up to 8 sizes");
    if (strcmp(key, "data_offsets") == 0 && e->offsets < 0)
        return iso_json_numbers(&r->json, 2, e->offset, &e->offsets) ? ISO_OK : wrong(r, t, "its data_offsets are not two positions");
    return iso_fail(r->err, ISO_E_FORMAT, "%s: tensor " SHOWN ": " SHOWN " is said of it, which is unknown or was said before", r->path, t->name, key);
}
_Static_assert(ISO_ST_MAX_DIMS == 8, "a message says 8");

/* Whether what is said of a tensor fits together and into the data. */
static iso_status check_tensor(const reader *r, const entry *e, const char *data, int64_t data_size, iso_st_tensor *t, span *where)
{
    int64_t element_bytes, bytes;
    if (!e->dtype || !dtype_of(e->dtype, &t->dtype, &element_bytes))
        return iso_fail(r->err, ISO_E_FORMAT, "%s: tensor " SHOWN ": unknown number type " SHOWN, r->path, t->name, e->dtype ? e->dtype : "(none)");
    if (t->ndim < 0) return wrong(r, t, "no shape");
    if (e->offsets != 2) return wrong(r, t, "no data_offsets");
    t->count = 1;
    for (int i = 0; i < t->ndim; i++)
        if (__builtin_mul_overflow(t->count, t->dim[i], &t->count)) return wrong(r, t, "impossibly large");
    if (__builtin_mul_overflow(t->count, element_bytes, &bytes)) return wrong(r, t, "impossibly large");
    *where = (span){e->offset[0], e->offset[1]};
    if (where->end < where->begin || where->end > data_size)
        return iso_fail(r->err, ISO_E_FORMAT, "%s: tensor " SHOWN " lies outside the file, which is cut short or damaged", r->path, t->name);
    if (where->end - where->begin != bytes)
        return iso_fail(r->err, ISO_E_FORMAT, "%s: tensor " SHOWN ": its shape needs %" PRId64 " bytes, the file gives it %" PRId64,
                        r->path, t->name, bytes, where->end - where->begin);
    t->data = data + where->begin;
    return ISO_OK;
}

static iso_status read_tensor(reader *r, const char *data, int64_t data_size, iso_st_tensor *t, span *where)
{
    entry e = {.offsets = -1};
    char *key;
    iso_status s;
    t->ndim = -1;
    if (!iso_json_take(&r->json, '{')) return wrong(r, t, "not an object");
    for (bool first = true; !(s = next_key(r, first, &key)) && key; first = false) {
        s = read_field(r, key, t, &e);
        free(key);
        if (s) break;
    }
    if (!s) s = check_tensor(r, &e, data, data_size, t, where);
    free(e.dtype);
    return s;
}

static int compare_keys(const void *a, const void *b)
{
    return strcmp((*(const iso_st_meta_pair *const *)a)->key, (*(const iso_st_meta_pair *const *)b)->key);
}

static iso_status check_keys(const reader *r, const iso_st *f)
{
    iso_status s = ISO_OK;
    const iso_st_meta_pair **order = iso_calloc((size_t)f->pairs, sizeof *order);
    if (!order) return iso_fail_memory(r->err);
    for (int i = 0; i < f->pairs; i++) order[i] = &f->pair[i];
    qsort(order, (size_t)f->pairs, sizeof *order, compare_keys);
    for (int i = 1; i < f->pairs && !s; i++)
        if (strcmp(order[i - 1]->key, order[i]->key) == 0)
            s = iso_fail(r->err, ISO_E_FORMAT, "%s: metadata " SHOWN " is there twice", r->path, order[i]->key);
    free(order);
    return s;
}

static iso_status read_metadata(reader *r, iso_st *f)
{
    size_t room = 0;
    char *key;
    iso_status s;
    if (f->pair) return iso_fail(r->err, ISO_E_FORMAT, "%s: " METADATA " is there twice", r->path);
    if (!iso_json_take(&r->json, '{')) return iso_fail(r->err, ISO_E_FORMAT, "%s: " METADATA " is not an object", r->path);
    if (!iso_grow(&f->pair, &room, 1, sizeof *f->pair)) return iso_fail_memory(r->err);
    for (bool first = true; !(s = next_key(r, first, &key)) && key; first = false) {
        char *value = NULL;
        if (f->pairs == INT_MAX || !iso_grow(&f->pair, &room, (size_t)f->pairs + 1, sizeof *f->pair)) {
            free(key);
            return iso_fail_memory(r->err);
        }
        s = iso_json_string(&r->json, &value);
        f->pair[f->pairs++] = (iso_st_meta_pair){key, value};
        if (s == ISO_E_MEMORY) return iso_fail_memory(r->err);
        if (s) return iso_fail(r->err, ISO_E_FORMAT, "%s: metadata " SHOWN " is not a string", r->path, key);
    }
    return s ? s : check_keys(r, f);
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
    if (n) qsort(where, (size_t)n, sizeof *where, compare_spans);
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

static iso_status read_entries(reader *r, iso_st *f, const char *data, int64_t data_size, span **where)
{
    size_t room = 0, spans = 0;
    char *key;
    iso_status s;
    if (!iso_json_take(&r->json, '{')) return iso_fail(r->err, ISO_E_FORMAT, "%s: its header is not an object", r->path);
    for (bool first = true; !(s = next_key(r, first, &key)) && key; first = false) {
        if (strcmp(key, METADATA) == 0) {
            free(key);
            s = read_metadata(r, f);
        } else {
            const size_t n = (size_t)f->tensors + 1;
            if (n > INT_MAX || !iso_grow(&f->tensor, &room, n, sizeof *f->tensor) || !iso_grow(where, &spans, n, sizeof **where)) {
                free(key);
                return iso_fail_memory(r->err);
            }
            iso_st_tensor *t = &f->tensor[f->tensors];
            *t = (iso_st_tensor){.name = key};
            s = read_tensor(r, data, data_size, t, &(*where)[f->tensors++]);
        }
        if (s) return s;
    }
    if (!s && !iso_json_ended(&r->json)) return damaged(r, "something behind its end");
    return s;
}

static iso_status order_names(iso_st *f, const char *path, iso_error *err)
{
    f->by_name = iso_calloc((size_t)f->tensors, sizeof *f->by_name);
    if (!f->by_name) return iso_fail_memory(err);
    for (int i = 0; i < f->tensors; i++) f->by_name[i] = &f->tensor[i];
    qsort(f->by_name, (size_t)f->tensors, sizeof *f->by_name, compare_names);
    for (int i = 1; i < f->tensors; i++)
        if (compare_names(&f->by_name[i - 1], &f->by_name[i]) == 0)
            return iso_fail(err, ISO_E_FORMAT, "%s: two tensors of the name " SHOWN, path, f->by_name[i]->name);
    return ISO_OK;
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
    size_t header;
    span *where = NULL;
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
    reader r = {.json = {bytes + 8, bytes + 8 + header}, .header = bytes, .path = path, .err = err};
    const int64_t data = (int64_t)(size - 8 - header);
    s = read_entries(&r, f, bytes + 8 + header, data, &where);
    if (!s) s = order_names(f, path, err);
    if (!s) s = check_tiling(where, f->tensors, data, path, err);
    if (s) goto out;
    *out = f;
    f = NULL;
out:
    free(where);
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
    if (TEMP_FAILURE_RETRY(read(fd, prefix, sizeof prefix)) < 0) s = iso_fail_errno(err, "cannot read %s", path);
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

static iso_status check_out(int tensors, const iso_st_out *tensor, int pairs, const iso_st_meta_pair *pair, iso_error *err)
{
    for (int i = 0; i < pairs; i++) {
        if (!iso_text_is_utf8(pair[i].key, strlen(pair[i].key)) || !iso_text_is_utf8(pair[i].value, strlen(pair[i].value)))
            return iso_fail(err, ISO_E_ARGUMENT, "metadata " SHOWN " is not UTF-8 text", pair[i].key);
        for (int k = 0; k < i; k++)
            if (strcmp(pair[k].key, pair[i].key) == 0) return iso_fail(err, ISO_E_ARGUMENT, "metadata " SHOWN " twice", pair[i].key);
    }
    for (int i = 0; i < tensors; i++) {
        if (!iso_text_is_utf8(tensor[i].name, strlen(tensor[i].name)))
            return iso_fail(err, ISO_E_ARGUMENT, "a tensor's name, " SHOWN ", is not UTF-8 text", tensor[i].name);
        for (int k = 0; k < i; k++)
            if (strcmp(tensor[k].name, tensor[i].name) == 0) return iso_fail(err, ISO_E_ARGUMENT, "two tensors of the name " SHOWN, tensor[i].name);
    }
    return ISO_OK;
}

/* The header's JSON. It takes no memory; what cannot be written the stream remembers. */
static void write_header(FILE *f, int tensors, const iso_st_out *tensor, int pairs, const iso_st_meta_pair *pair)
{
    int64_t at = 0;
    fputs("{\"" METADATA "\":{", f);
    for (int i = 0; i < pairs; i++) {
        if (i) putc(',', f);
        iso_text_json(f, pair[i].key, strlen(pair[i].key));
        putc(':', f);
        iso_text_json(f, pair[i].value, strlen(pair[i].value));
    }
    putc('}', f);
    for (int i = 0; i < tensors; i++) {
        const int64_t end = at + iso_shape_count(&tensor[i].shape) * 4;
        putc(',', f);
        iso_text_json(f, tensor[i].name, strlen(tensor[i].name));
        fputs(":{\"dtype\":\"F32\",\"shape\":[", f);
        for (int d = 0; d < tensor[i].shape.ndim; d++) fprintf(f, "%s%" PRId64, d ? "," : "", tensor[i].shape.dim[d]);
        fprintf(f, "],\"data_offsets\":[%" PRId64 ",%" PRId64 "]}", at, end);
        at = end;
    }
    putc('}', f);
}

static bool write_all(FILE *f, const void *data, size_t size) { return size == 0 || fwrite(data, 1, size, f) == size; }

iso_status iso_st_save(const char *path, int tensors, const iso_st_out *tensor, int pairs, const iso_st_meta_pair *pair, iso_error *err)
{
    iso_file *file = NULL;
    iso_status s = check_out(tensors, tensor, pairs, pair, err);
    if (!s) s = iso_file_create(path, &file, err);
    if (s) return s;
    FILE *f = iso_file_stream(file);
    uint64_t length = 0;
    bool good = write_all(f, &length, 8);
    write_header(f, tensors, tensor, pairs, pair);
    const off_t end = ftello(f);
    good = good && end >= 8;
    length = (uint64_t)(end + 7) / 8 * 8 - 8;
    good = good && write_all(f, "        ", (size_t)(length + 8 - (uint64_t)end)) && fseeko(f, 0, SEEK_SET) == 0 && write_all(f, &length, 8) &&
           fseeko(f, 0, SEEK_END) == 0;
    for (int i = 0; good && i < tensors; i++)
        good = write_all(f, tensor[i].data, (size_t)iso_shape_count(&tensor[i].shape) * sizeof(float));
    if (good) return iso_file_commit(file, err);
    s = iso_fail_errno(err, "cannot write %s", path);
    iso_file_abort(file);
    return s;
}
