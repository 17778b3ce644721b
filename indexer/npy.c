/* npy.c: see https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html */
#include "indexer/npy.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/file.h"
#include "base/memory.h"

enum { HEADER_MAX = 1 << 16, CHUNK = 1 << 16 };

struct iso_npy {
    int fd;
    char *path;
    int64_t rows, cols, start;
    int width;              /* bytes of a number: 4 or 8 */
    bool big_endian;
};

/* ---- the header: a Python dict literal with exactly the keys descr, fortran_order and shape ---- */

typedef struct span { const char *p, *end; } span;

static void skip_space(span *t)
{
    while (t->p < t->end && strchr(" \t\r\n", *t->p)) t->p++;
}

static bool take(span *t, char c)
{
    skip_space(t);
    if (t->p == t->end || *t->p != c) return false;
    t->p++;
    return true;
}

static bool take_string(span *t, char out[64])
{
    skip_space(t);
    if (t->p == t->end || (*t->p != '\'' && *t->p != '"')) return false;
    char quote = *t->p++;
    size_t n = 0;
    while (t->p < t->end && *t->p != quote) {
        if (n == 63 || *t->p == '\\' || (unsigned char)*t->p < 0x20) return false;
        out[n++] = *t->p++;
    }
    out[n] = 0;
    return take(t, quote);
}

static bool take_word(span *t, const char *word)
{
    size_t n = strlen(word);
    skip_space(t);
    if ((size_t)(t->end - t->p) < n || memcmp(t->p, word, n)) return false;
    t->p += n;
    return true;
}

static bool take_integer(span *t, int64_t *out)
{
    int64_t v = 0;
    skip_space(t);
    const char *from = t->p;
    for (; t->p < t->end && *t->p >= '0' && *t->p <= '9'; t->p++)
        if (__builtin_mul_overflow(v, 10, &v) || __builtin_add_overflow(v, *t->p - '0', &v)) return false;
    *out = v;
    if (t->p > from && t->p < t->end && *t->p == 'L') t->p++; /* Python 2 wrote long integers so */
    return t->p > from;
}

/* (), (3,), (3, 4), ...: how many, and the first two */
static bool take_shape(span *t, int *dims, int64_t shape[2])
{
    *dims = 0;
    if (!take(t, '(')) return false;
    while (!take(t, ')')) {
        int64_t n;
        if (!take_integer(t, &n) || *dims == 64) return false;
        if (*dims < 2) shape[*dims] = n;
        (*dims)++;
        if (take(t, ',')) continue;
        return take(t, ')') && *dims > 1; /* (3) is an integer, not a tuple */
    }
    return true;
}

typedef struct header { char descr[64]; bool plain, fortran; int dims; int64_t shape[2]; } header;

static bool parse_header(span t, header *h)
{
    unsigned seen = 0;
    char key[64];
    if (!take(&t, '{')) return false;
    while (!take(&t, '}')) {
        unsigned bit;
        if (!take_string(&t, key) || !take(&t, ':')) return false;
        if (!strcmp(key, "descr")) {
            bit = 1;
            skip_space(&t);
            h->plain = t.p < t.end && *t.p != '[' && *t.p != '(';
            if (!h->plain) return true; /* a record type: refused by the caller, whatever it is in detail */
            if (!take_string(&t, h->descr)) return false;
        } else if (!strcmp(key, "fortran_order")) {
            bit = 2;
            h->fortran = take_word(&t, "True");
            if (!h->fortran && !take_word(&t, "False")) return false;
        } else if (!strcmp(key, "shape")) {
            bit = 4;
            if (!take_shape(&t, &h->dims, h->shape)) return false;
        } else return false;
        if (seen & bit) return false;
        seen |= bit;
        if (!take(&t, ',')) {
            if (!take(&t, '}')) return false;
            break;
        }
    }
    skip_space(&t);
    return seen == 7 && t.p == t.end;
}

static iso_status accept(iso_npy *f, const header *h, iso_error *err)
{
    const char *path = f->path, *d = h->descr;
    if (!h->plain || strlen(d) != 3 || !strchr("<>=|", d[0]) || d[1] != 'f' || (d[2] != '4' && d[2] != '8') || d[0] == '|')
        return iso_fail(err, ISO_E_UNSUPPORTED, "%s holds numbers of type %s, not float32 or float64: save it with .astype(numpy.float32)", path, h->plain ? d : "a record");
    if (h->dims != 2)
        return iso_fail(err, ISO_E_UNSUPPORTED, "%s has %d dimension%s, not two (rows of numbers): save it with .reshape(len(a), -1)", path, h->dims, h->dims == 1 ? "" : "s");
    if (h->fortran)
        return iso_fail(err, ISO_E_UNSUPPORTED, "%s is in Fortran order: save it with numpy.ascontiguousarray", path);
    f->big_endian = d[0] == '>';
    f->width = d[2] - '0';
    f->rows = h->shape[0];
    f->cols = h->shape[1];
    return ISO_OK;
}

static iso_status read_at(const iso_npy *f, void *out, size_t n, int64_t at, iso_error *err)
{
    const int why = iso_file_read_at(f->fd, out, n, at);
    errno = why < 0 ? EIO : why;
    return why ? iso_fail_errno(err, "cannot read %s", f->path) : ISO_OK;
}

static iso_status not_npy(const char *path, const char *why, iso_error *err)
{
    return iso_fail(err, ISO_E_FORMAT, "%s is not a .npy file (%s)", path, why);
}

static iso_status read_header(iso_npy *f, iso_error *err)
{
    struct stat st;
    uint8_t head[12], text[HEADER_MAX];
    if (fstat(f->fd, &st)) return iso_fail_errno(err, "cannot read %s", f->path);
    if (!S_ISREG(st.st_mode)) return iso_fail(err, ISO_E_FORMAT, "%s is not a regular file", f->path);
    if (st.st_size < 12) return not_npy(f->path, "it is too short", err);
    iso_status status = read_at(f, head, sizeof head, 0, err);
    if (status) return status;
    if (memcmp(head, "\x93NUMPY", 6)) return not_npy(f->path, "its first bytes are wrong", err);
    if (head[6] < 1 || head[6] > 3 || head[7]) return iso_fail(err, ISO_E_UNSUPPORTED, "%s is of .npy version %d.%d: 1.0, 2.0 and 3.0 can be read", f->path, head[6], head[7]);
    uint32_t start = head[6] == 1 ? 10 : 12;
    uint32_t n = head[6] == 1 ? iso_get_u16(head + 8) : iso_get_u32(head + 8);
    if (n > HEADER_MAX || (int64_t)start + n > st.st_size) return not_npy(f->path, "its header is longer than the file, or absurd", err);
    header h = {0};
    if ((status = read_at(f, text, n, start, err))) return status;
    if (memchr(text, 0, n) || !parse_header((span){(const char *)text, (const char *)text + n}, &h))
        return not_npy(f->path, "its header cannot be read", err);
    if ((status = accept(f, &h, err))) return status;
    int64_t bytes;
    f->start = (int64_t)start + n;
    if (__builtin_mul_overflow(f->rows, f->cols, &bytes) || __builtin_mul_overflow(bytes, f->width, &bytes) || bytes != st.st_size - f->start)
        return iso_fail(err, ISO_E_FORMAT, "%s is damaged: its header says %" PRId64 " x %" PRId64 " numbers of %d bytes, behind it are %lld bytes",
                        f->path, f->rows, f->cols, f->width, (long long)(st.st_size - f->start));
    return ISO_OK;
}

iso_status iso_npy_open(const char *path, iso_npy **out, iso_error *err)
{
    iso_npy *f = iso_calloc(1, sizeof *f);
    if (!f) return iso_fail_memory(err);
    iso_status status;
    f->fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a pipe must not keep us waiting: it is refused */
    f->path = iso_strndup(path, strlen(path));
    if (f->fd < 0) status = iso_fail_errno(err, "cannot read %s", path);
    else if (!f->path) status = iso_fail_memory(err);
    else status = read_header(f, err);
    if (status) {
        iso_npy_close(f);
        return status;
    }
    *out = f;
    return ISO_OK;
}

void iso_npy_close(iso_npy *f)
{
    if (!f) return;
    if (f->fd >= 0) close(f->fd);
    free(f->path);
    free(f);
}

int64_t iso_npy_rows(const iso_npy *f) { return f->rows; }
int64_t iso_npy_cols(const iso_npy *f) { return f->cols; }

static float number(const iso_npy *f, const uint8_t *p)
{
    if (f->width == 4) { /* big-endian: others are read as they are */
        const uint32_t bits = __builtin_bswap32(iso_get_u32(p));
        float x;
        memcpy(&x, &bits, sizeof x);
        return x;
    }
    const uint64_t stored = iso_get_u64(p), bits = f->big_endian ? __builtin_bswap64(stored) : stored;
    double x;
    memcpy(&x, &bits, sizeof x);
    return (float)x; /* IEEE: out of range is an infinity */
}

iso_status iso_npy_read(iso_npy *f, int64_t first, int64_t n, float *out, iso_error *err)
{
    if (first < 0 || n < 0 || first > f->rows || n > f->rows - first)
        return iso_fail(err, ISO_E_ARGUMENT, "%s has no rows %" PRId64 " to %" PRId64, f->path, first, first + n - 1);
    int64_t at = first * f->cols, end = at + n * f->cols;
    if (f->width == sizeof *out && !f->big_endian) return read_at(f, out, (size_t)(end - at) * sizeof *out, f->start + at * f->width, err);
    uint8_t buffer[CHUNK];
    while (at < end) {
        int64_t count = end - at < CHUNK / f->width ? end - at : CHUNK / f->width;
        iso_status status = read_at(f, buffer, (size_t)(count * f->width), f->start + at * f->width, err);
        if (status) return status;
        for (int64_t i = 0; i < count; i++) *out++ = number(f, buffer + i * f->width);
        at += count;
    }
    return ISO_OK;
}

/* ---- writing ---- */

struct iso_npy_writer {
    iso_file *file;
    char *path;
    int64_t rows, cols, written;
};

/* Version 1; padded so that the numbers begin at a multiple of 64, as NumPy does for mapping. */
static bool write_header(FILE *out, int64_t rows, int64_t cols)
{
    char text[256];
    int n = snprintf(text, sizeof text, "{'descr': '<f4', 'fortran_order': False, 'shape': (%" PRId64 ", %" PRId64 "), }", rows, cols);
    int total = (10 + n + 1 + 63) / 64 * 64 - 10;
    uint8_t head[10] = {0x93, 'N', 'U', 'M', 'P', 'Y', 1, 0, (uint8_t)total, (uint8_t)(total >> 8)};
    return fwrite(head, 1, sizeof head, out) == sizeof head && fprintf(out, "%-*s\n", total - 1, text) == total;
}

iso_status iso_npy_create(const char *path, int64_t rows, int64_t cols, iso_npy_writer **out, iso_error *err)
{
    iso_npy_writer *w = iso_calloc(1, sizeof *w);
    if (!w) return iso_fail_memory(err);
    w->rows = rows;
    w->cols = cols;
    w->path = iso_strndup(path, strlen(path));
    iso_status status = w->path ? iso_file_create(path, &w->file, err) : iso_fail_memory(err);
    if (!status && (errno = iso_file_reserve(fileno(iso_file_stream(w->file)), (uint64_t)(rows * cols) * sizeof(float), true)) != 0)
        status = iso_fail_errno(err, "cannot write %s", path);
    if (!status && !write_header(iso_file_stream(w->file), rows, cols)) status = iso_fail_errno(err, "cannot write %s", path);
    if (status) {
        iso_npy_abort(w);
        return status;
    }
    *out = w;
    return ISO_OK;
}

iso_status iso_npy_write(iso_npy_writer *w, const float *rows, int64_t n, iso_error *err)
{
    if (n < 0 || n > w->rows - w->written) return iso_fail(err, ISO_E_ARGUMENT, "%s: more rows than the %" PRId64 " announced", w->path, w->rows);
    const size_t count = (size_t)(n * w->cols);
    if (fwrite(rows, sizeof *rows, count, iso_file_stream(w->file)) != count) return iso_fail_errno(err, "cannot write %s", w->path);
    w->written += n;
    return ISO_OK;
}

static iso_status check_rows(const iso_npy_writer *w, iso_error *err)
{
    if (w->written == w->rows) return ISO_OK;
    return iso_fail(err, ISO_E_ARGUMENT, "%s: %" PRId64 " rows of %" PRId64 " were written", w->path, w->written, w->rows);
}

iso_status iso_npy_commit(iso_npy_writer *w, iso_error *err)
{
    iso_status status = check_rows(w, err);
    if (!status) {
        status = iso_file_commit(w->file, err);
        w->file = NULL;
    }
    iso_npy_abort(w);
    return status;
}

iso_status iso_npy_commit_with(iso_npy_writer *w, iso_file *beside, iso_error *err)
{
    iso_status status = check_rows(w, err);
    if (!status) {
        status = iso_file_commit_both(beside, w->file, err);
        w->file = beside = NULL;
    }
    iso_file_abort(beside);
    iso_npy_abort(w);
    return status;
}

void iso_npy_abort(iso_npy_writer *w)
{
    if (!w) return;
    iso_file_abort(w->file);
    free(w->path);
    free(w);
}
