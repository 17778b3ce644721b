#include "indexer/exchange.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>

#include "base/file.h"
#include "base/memory.h"
#include "base/progress.h"
#include "base/text.h"
#include "indexer/npy.h"

enum { ROWS = 256, COMMIT_FLOATS = 4 << 20 };

/* ---- out ---- */

static iso_status write_path(FILE *out, const char *file, const char *path, bool nul, iso_error *err)
{
    size_t n = strlen(path);
    if (nul) fwrite(path, 1, n, out);
    else iso_text_tsv(out, path, n);
    putc(nul ? 0 : '\n', out);
    return ferror(out) ? iso_fail_errno(err, "cannot write %s", file) : ISO_OK;
}

static iso_status export_rows(iso_txn *t, iso_npy_writer *w, FILE *out, const char *paths, bool nul, iso_progress *progress, int64_t *rows, iso_error *err)
{
    iso_cursor *c;
    iso_item item;
    const float *vector;
    int64_t n = 0;
    iso_status status = iso_cursor_open(t, 0, &c, err);
    if (status) return status;
    while (!(status = iso_cursor_next(c, &item, &vector, err))) {
        status = iso_npy_write(w, vector, 1, err);
        if (!status) status = write_path(out, paths, item.path, nul, err);
        if (!status && iso_interrupted()) status = iso_fail(err, ISO_E_INTERRUPTED, "interrupted: nothing was exported");
        if (status) break;
        iso_progress_step(progress, ++n);
    }
    iso_cursor_close(c);
    if (status != ISO_E_NOT_FOUND) return status;
    *rows = n;
    return ISO_OK;
}

iso_status iso_export(iso_store *s, const char *vectors, const char *paths, bool nul, iso_progress *progress, int64_t *rows, iso_error *err)
{
    iso_store_info info;
    iso_txn *t = NULL;
    iso_npy_writer *w = NULL;
    iso_file *f = NULL;
    int64_t n = 0;
    if (iso_file_same(vectors, paths)) return iso_fail(err, ISO_E_ARGUMENT, "vectors and paths go into two files, not both into %s", paths);
    const char *own = iso_store_owns(s, vectors) ? vectors : iso_store_owns(s, paths) ? paths : NULL;
    if (own) return iso_fail(err, ISO_E_ARGUMENT, "%s is a file of the database itself: name another", own);
    iso_status status = iso_txn_begin(s, false, &t, err);
    if (!status) info = iso_store_info_get(t);
    if (!status) status = iso_npy_create(vectors, (int64_t)info.count, info.dim, &w, err);
    if (!status) status = iso_file_create(paths, &f, err);
    if (!status) {
        iso_progress_pass(progress, "exporting", "items", (int64_t)info.count);
        status = export_rows(t, w, iso_file_stream(f), paths, nul, progress, &n, err);
    }
    if (!status) {
        iso_progress_pass(progress, "writing to the disk", "", 0);
        status = iso_npy_commit_with(w, f, err);
        w = NULL;
        f = NULL;
    }
    iso_file_abort(f);
    iso_npy_abort(w);
    iso_txn_abort(t);
    if (!status) *rows = n;
    return status;
}

/* ---- in ---- */

typedef struct names {
    char *data;
    char **path;       /* into data */
    size_t count, capacity;
} names;

/* In place. */
static bool unescape(char *s)
{
    char *to = s;
    for (; *s; s++) {
        if (*s != '\\') {
            *to++ = *s;
            continue;
        }
        s++;
        if (*s == 't') *to++ = '\t';
        else if (*s == 'n') *to++ = '\n';
        else if (*s == 'r') *to++ = '\r';
        else if (*s == '\\') *to++ = '\\';
        else return false;
    }
    *to = 0;
    return true;
}

static iso_status names_read(const iso_import_spec *spec, names *out, iso_error *err)
{
    size_t size;
    iso_status status = iso_file_read(spec->paths, SIZE_MAX, &out->data, &size, err);
    if (status) return status;
    char end = spec->nul ? 0 : '\n', *p = out->data, *stop = out->data + size;
    bool plain = spec->nul || !(memchr(p, 0, size) || memchr(p, '\\', size) || memchr(p, '\r', size)); /* as nearly always */
    while (p < stop) {
        char *e = memchr(p, end, (size_t)(stop - p));
        size_t n = (size_t)((e ? e : stop) - p), line = out->count + 1;
        if (!plain && memchr(p, 0, n)) return iso_fail(err, ISO_E_FORMAT, "%s: line %zu holds a NUL byte: say -0 if paths end with one", spec->paths, line);
        if (!plain && n && p[n - 1] == '\r') n--; /* a Windows line end: a path's own \r is escaped */
        p[n] = 0;
        if (!plain && !unescape(p)) return iso_fail(err, ISO_E_FORMAT, "%s: line %zu has a backslash that is not \\t, \\n, \\r or \\\\", spec->paths, line);
        if (!*p) return iso_fail(err, ISO_E_FORMAT, "%s: line %zu is empty", spec->paths, line);
        if (!iso_grow(&out->path, &out->capacity, out->count + 1, sizeof *out->path)) return iso_fail_memory(err);
        out->path[out->count++] = p;
        p = e ? e + 1 : stop;
    }
    return ISO_OK;
}

static iso_status bad_row(const iso_import_spec *spec, int64_t row, int64_t dim, const float *vector, iso_error *err)
{
    const bool finite = isfinite(iso_vector_squares((int)dim, vector));
    return iso_fail(err, ISO_E_NUMERIC, "%s: row %" PRId64 " %s: remove it and its path, nothing was imported", spec->vectors, row + 1,
                    finite ? "is zero in float32, which has no direction" : "holds a NaN, an infinity or a number beyond float32");
}

static iso_status repeated(const iso_import_spec *spec, int64_t row, int64_t twin, iso_error *err)
{
    return iso_fail(err, ISO_E_FORMAT, "%s: line %" PRId64 " repeats the path of line %" PRId64, spec->paths, row + 1, twin + 1);
}

static int by_path(const void *a, const void *b)
{
    char *const *x = *(char *const *const *)a, *const *y = *(char *const *const *)b;
    int order = strcmp(*x, *y);
    return order ? order : x < y ? -1 : x > y;
}

static iso_status names_distinct(const iso_import_spec *spec, const names *n, iso_error *err)
{
    char ***order = iso_calloc(n->count, sizeof *order);
    if (!order) return iso_fail_memory(err);
    for (size_t i = 0; i < n->count; i++) order[i] = &n->path[i];
    qsort(order, n->count, sizeof *order, by_path);
    iso_status status = ISO_OK;
    for (size_t i = 1; i < n->count && !status; i++)
        if (!strcmp(*order[i - 1], *order[i]))
            status = repeated(spec, order[i] - n->path, order[i - 1] - n->path, err);
    free(order);
    return status;
}

/* Before anything is written: one bad row of a million must not leave half a database. */
static iso_status rows_check(const iso_import_spec *spec, iso_npy *f, float *rows, iso_error *err)
{
    int64_t n = iso_npy_rows(f), dim = iso_npy_cols(f);
    iso_progress_pass(spec->progress, "checking", "vectors", n);
    for (int64_t at = 0; at < n; at += ROWS) {
        iso_progress_step(spec->progress, at);
        int64_t count = n - at < ROWS ? n - at : ROWS;
        iso_status status = iso_npy_read(f, at, count, rows, err);
        if (status) return status;
        for (int64_t i = 0; i < count; i++)
            if (iso_vector_fault((int)dim, rows + i * dim)) return bad_row(spec, at + i, dim, rows + i * dim, err);
    }
    return ISO_OK;
}

static iso_status put_row(iso_txn *t, const char *path, const float *vector, int64_t dim, iso_import_counts *counts, iso_error *err)
{
    iso_item old, item = {.path = path};
    const float *before;
    iso_status status = iso_item_by_path(t, path, &old, err);
    if (status && status != ISO_E_NOT_FOUND) return status;
    bool known = status == ISO_OK;
    if (known) {
        status = iso_item_vector(t, old.id, &before, err);
        if (status) return status;
        if (!memcmp(before, vector, (size_t)dim * sizeof(float))) {
            counts->unchanged++;
            return ISO_OK;
        }
    }
    status = iso_item_put(t, &item, vector, err);
    if (status) return status;
    *(known ? &counts->changed : &counts->added) += 1;
    return ISO_OK;
}

/* One transaction of rows [first, first + n). */
static iso_status put_rows(const iso_import_spec *spec, iso_store *s, iso_npy *f, const names *names, int64_t first, int64_t n, float *rows, iso_import_counts *counts,
                           iso_error *err)
{
    iso_txn *t;
    iso_import_counts now = *counts;
    iso_status status = iso_txn_begin(s, true, &t, err);
    if (status) return status;
    for (int64_t at = first; at < first + n && !status; at += ROWS) {
        iso_progress_step(spec->progress, at);
        int64_t count = first + n - at < ROWS ? first + n - at : ROWS;
        status = iso_npy_read(f, at, count, rows, err);
        for (int64_t i = 0; i < count && !status; i++)
            status = put_row(t, names->path[at + i], rows + i * iso_npy_cols(f), iso_npy_cols(f), &now, err);
    }
    if (status) {
        iso_txn_abort(t);
        return status;
    }
    status = iso_txn_commit(t, err);
    if (!status) *counts = now;
    return status;
}

static iso_status put_all(const iso_import_spec *spec, iso_store *s, iso_npy *f, const names *names, float *rows, iso_import_counts *counts, iso_error *err)
{
    int64_t n = iso_npy_rows(f), step = COMMIT_FLOATS / iso_npy_cols(f) + 1;
    iso_progress_pass(spec->progress, "importing", "vectors", n);
    for (int64_t at = 0; at < n; at += step) {
        iso_status status = put_rows(spec, s, f, names, at, n - at < step ? n - at : step, rows, counts, err);
        if (status) return status;
        if (iso_interrupted() && at + step < n)
            return iso_fail(err, ISO_E_INTERRUPTED, "interrupted: %" PRId64 " of %" PRId64 " rows are in %s; run the same again to go on", at + step, n, iso_store_dir(s));
    }
    return ISO_OK;
}

void iso_import_digest(int dim, char out[33])
{
    char text[64];
    int n = snprintf(text, sizeof text, "imported vectors of %d numbers", dim);
    XXH128_hash_t h = XXH3_128bits(text, (size_t)n);
    snprintf(out, 33, "%016" PRIx64 "%016" PRIx64, (uint64_t)h.high64, (uint64_t)h.low64);
}

static iso_status read_rows(void *ctx, int64_t first, int64_t n, float *out, iso_error *err)
{
    return iso_npy_read(ctx, first, n, out, err);
}

/* A new database in one pass. */
static iso_status fill(const iso_import_spec *spec, iso_npy *f, const names *names, const iso_store_spec *store, iso_import_counts *counts, iso_error *err)
{
    iso_fill what = {.count = iso_npy_rows(f), .paths = names->path, .read = read_rows, .ctx = f, .progress = spec->progress};
    iso_status status = iso_store_fill(spec->db, store, &what, err);
    if (!status) counts->added = what.count;
    if (status == ISO_E_FORMAT && what.twin >= 0) return repeated(spec, what.row, what.twin, err);
    if (status != ISO_E_NUMERIC || what.row < 0) return status;
    float *row = iso_calloc((size_t)iso_npy_cols(f), sizeof *row); /* once more, to tell what is wrong with it */
    iso_status again = row ? iso_npy_read(f, what.row, 1, row, err) : iso_fail_memory(err);
    if (!again) again = bad_row(spec, what.row, iso_npy_cols(f), row, err);
    free(row);
    return again;
}

/* Into one that has items: two passes over the rows, so that nothing is written where one is bad. */
static iso_status merge(const iso_import_spec *spec, iso_npy *f, const names *names, const iso_store_spec *store, iso_import_counts *counts, iso_error *err)
{
    iso_store *s = NULL;
    float *rows = iso_calloc((size_t)(ROWS * iso_npy_cols(f)), sizeof *rows);
    iso_status status = rows ? names_distinct(spec, names, err) : iso_fail_memory(err);
    if (!status) status = rows_check(spec, f, rows, err);
    if (!status) status = iso_store_open(spec->db, ISO_STORE_CREATE, store, &s, err);
    if (!status) status = put_all(spec, s, f, names, rows, counts, err);
    iso_store_close(s);
    free(rows);
    return status;
}

static iso_status import_into(const iso_import_spec *spec, iso_npy *f, const names *names, iso_import_counts *counts, iso_error *err)
{
    char digest[33], *here = NULL;
    iso_import_digest((int)iso_npy_cols(f), digest);
    iso_store_spec store = {.dim = (int)iso_npy_cols(f), .digest = digest, .root = spec->root};
    iso_store_found found;
    iso_status status = iso_store_look(spec->db, &found, err);
    if (status) return status;
    if (!store.root && found != ISO_STORE_COMPLETE) {
        here = realpath(".", NULL);
        if (!here) return iso_fail_errno(err, "cannot tell the current folder");
        store.root = here;
    }
    status = fill(spec, f, names, &store, counts, err);
    if (status == ISO_E_UNSUPPORTED) status = merge(spec, f, names, &store, counts, err);
    free(here);
    return status;
}

iso_status iso_import(const iso_import_spec *spec, iso_import_counts *out, iso_error *err)
{
    iso_npy *f = NULL;
    names names = {0};
    iso_import_counts counts = {0};
    iso_progress_pass(spec->progress, "reading paths", "", 0);
    iso_status status = iso_npy_open(spec->vectors, &f, err);
    if (status) return status;
    int64_t n = iso_npy_rows(f), dim = iso_npy_cols(f);
    if (!n || !dim) status = iso_fail(err, ISO_E_ARGUMENT, "%s holds no vectors (%" PRId64 " x %" PRId64 ")", spec->vectors, n, dim);
    else if (dim > ISO_STORE_DIM_MAX) status = iso_fail(err, ISO_E_ARGUMENT, "%s: vectors of %" PRId64 " numbers; at most %d can be stored", spec->vectors, dim, ISO_STORE_DIM_MAX);
    else status = names_read(spec, &names, err);
    if (!status && (int64_t)names.count != n)
        status = iso_fail(err, ISO_E_MISMATCH, "%s has %" PRId64 " rows, %s names %zu paths: one path a row is needed", spec->vectors, n, spec->paths, names.count);
    if (!status) status = import_into(spec, f, &names, &counts, err);
    iso_npy_close(f);
    free(names.path);
    free(names.data);
    if (!status) *out = counts;
    return status;
}
