/* attributes.c: CelebA's list_attr_celeba.txt and list_eval_partition.txt. */
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/memory.h"
#include "indexer/dataset.h"
#include "indexer/names.h"
#include "model/model.h"

struct iso_partition {
    iso_names files;
    uint8_t *part;  /* [files.count] */
    size_t capacity;
};

struct iso_attributes {
    iso_names attributes, files;
    uint8_t *rows;  /* [files.count, attributes.count] */
    size_t capacity;
};

static iso_status add_file(iso_names *files, const iso_words *w, const char *name, size_t length, size_t *number, iso_error *err)
{
    bool added;
    iso_status status = iso_names_add(files, name, length, number, &added, err);
    if (!status && !added) status = iso_fail(err, ISO_E_FORMAT, "%s: line %zu: %.*s is listed twice", w->file, w->line, (int)length, name);
    return status;
}

/* Nearly all lines of these files are written alike. Such a line is read at sight; any other is cut into words. */

/* The blank at the end of the name with which the line begins; NULL: the line is not that plain. */
static const char *plain_name(const iso_words *w, size_t *length)
{
    const char *p = w->at; /* at its end stands a NUL */
    while ((unsigned char)*p > ' ') p++;
    *length = (size_t)(p - w->at);
    return *length && *p == ' ' ? p : NULL;
}

/* Whether only blanks follow. */
static bool plain_end(const iso_words *w, const char *p)
{
    while (*p == ' ' || *p == '\r') p++;
    return p == w->end;
}

/* Of CelebA's names; a guess that is too low only costs time. */
enum { NAME = 10 };

/* How many files a text lists, if each line has `line` bytes at least. */
static size_t lines_in(const iso_words *w, size_t line) { return w->bytes / line; }

/* --- partition --------------------------------------------------------------------------------------------------- */

static iso_status add_part(iso_partition *p, const iso_words *w, const char *name, size_t length, int part, iso_error *err)
{
    size_t number;
    iso_status status = add_file(&p->files, w, name, length, &number, err);
    if (status) return status;
    if (!iso_grow(&p->part, &p->capacity, number + 1, 1)) return iso_fail_memory(err);
    p->part[number] = (uint8_t)part;
    return ISO_OK;
}

/* "file N" */
static bool plain_partition_line(const iso_words *w, size_t *length, int *part)
{
    const char *blank = plain_name(w, length);
    if (!blank || blank[1] < '0' || blank[1] > '2') return false;
    *part = blank[1] - '0';
    return plain_end(w, blank + 2);
}

static iso_status partition_line(iso_partition *p, const iso_words *w, iso_error *err)
{
    if (w->count != 2)
        return iso_fail(err, ISO_E_FORMAT, "%s: line %zu: has %zu columns, expected 2: a file and its part", w->file, w->line, w->count);
    const char *part = w->word[1];
    if (part[0] < '0' || part[0] > '2' || part[1])
        return iso_fail(err, ISO_E_FORMAT, "%s: line %zu: the part is '%.20s', expected 0 (train), 1 (validation) or 2 (test)", w->file,
                        w->line, part);
    return add_part(p, w, w->word[0], strlen(w->word[0]), part[0] - '0', err);
}

static iso_status partition_parse(iso_partition *p, iso_words *w, iso_error *err)
{
    iso_status status = iso_names_reserve(&p->files, lines_in(w, NAME + 3), NAME, err);
    while (!status && !(status = iso_words_line(w, err)) && w->at) {
        int part;
        size_t length;
        if (plain_partition_line(w, &length, &part)) status = add_part(p, w, w->at, length, part, err);
        else if (!(status = iso_words_cut(w, err)) && w->count) status = partition_line(p, w, err);
    }
    return status;
}

iso_status iso_partition_read(const char *file, iso_partition **out, iso_error *err)
{
    iso_words w;
    iso_status status = iso_words_begin(&w, file, err);
    if (status) return status;
    iso_partition *p = iso_calloc(1, sizeof *p);
    status = p ? partition_parse(p, &w, err) : iso_fail_memory(err);
    if (!status && p->files.count == 0) status = iso_fail(err, ISO_E_FORMAT, "%s: lists no files", file);
    iso_words_end(&w);
    if (status) iso_partition_free(p);
    else *out = p;
    return status;
}

void iso_partition_free(iso_partition *p)
{
    if (!p) return;
    iso_names_free(&p->files);
    free(p->part);
    free(p);
}

int iso_partition_find_near(const iso_partition *p, const char *name, int64_t near)
{
    size_t number;
    return iso_names_find(&p->files, name, (size_t)near, &number) ? p->part[number] : -1;
}

int iso_partition_find(const iso_partition *p, const char *name) { return iso_partition_find_near(p, name, -1); }

int64_t iso_partition_files(const iso_partition *p, int part)
{
    int64_t n = 0;
    for (size_t i = 0; i < p->files.count; i++) n += p->part[i] == part;
    return n;
}

/* --- attributes -------------------------------------------------------------------------------------------------- */

/* Line 1: how many files follow. */
static iso_status attribute_total(iso_words *w, uint64_t *total, iso_error *err)
{
    iso_status status = iso_words_next(w, err);
    if (status) return status;
    if (w->count == 0) return iso_fail(err, ISO_E_FORMAT, "%s: is empty", w->file);
    const char *digits = w->word[0];
    if (w->count != 1 || strspn(digits, "0123456789") != strlen(digits) || strlen(digits) > 18)
        return iso_fail(err, ISO_E_FORMAT, "%s: line %zu: expected the number of files, then the names on a line of their own", w->file, w->line);
    *total = strtoull(digits, NULL, 10);
    return ISO_OK;
}

static iso_status attribute_names(iso_attributes *a, iso_words *w, iso_error *err)
{
    iso_status status = iso_words_next(w, err);
    if (status) return status;
    if (w->count == 0) return iso_fail(err, ISO_E_FORMAT, "%s: line 2: the attributes' names are missing", w->file);
    if (w->count > ISO_NET_MAX_CHANNELS)
        return iso_fail(err, ISO_E_FORMAT, "%s: line %zu: names %zu attributes, more than the %d allowed", w->file, w->line, w->count, ISO_NET_MAX_CHANNELS);
    for (size_t i = 0; i < w->count; i++) {
        size_t number;
        bool added;
        status = iso_names_add(&a->attributes, w->word[i], strlen(w->word[i]), &number, &added, err);
        if (status) return status;
        if (!added) return iso_fail(err, ISO_E_FORMAT, "%s: line %zu: attribute %s is named twice", w->file, w->line, w->word[i]);
    }
    return ISO_OK;
}

/* Room for the row that comes next; NULL: out of memory. */
static uint8_t *next_row(iso_attributes *a)
{
    size_t n = a->attributes.count, number = a->files.count;
    if (number >= PTRDIFF_MAX / n || !iso_grow(&a->rows, &a->capacity, (number + 1) * n, 1)) return NULL;
    return a->rows + number * n;
}

/* Eight values, of three bytes each: row[i] = whether it is "  1" and not " -1"; not 0: one is neither. A value's second byte is what differs
 * from " -1": a blank instead of a '-', which are three bits apart. */
static inline uint64_t eight_values(const char *p, uint8_t *row)
{
    static const char no[] = " -1 -1 -1 -1 -1 -1 -1 -1";
    static const uint64_t second[3] = {UINT64_C(0x0100000100000100), UINT64_C(0x0000010000010000), UINT64_C(0x0001000001000001)};
    uint64_t yes[3], odd = 0;
#pragma GCC unroll 3
    for (int i = 0; i < 3; i++) {
        const uint64_t x = iso_get_u64((const uint8_t *)p + 8 * i) ^ iso_get_u64((const uint8_t *)no + 8 * i);
        yes[i] = x & second[i];
        odd |= x ^ yes[i] * (' ' ^ '-');
    }
    /* Bytes 1, 4, 7 of the first word, 2, 5 of the second and 0, 3, 6 of the third, side by side. */
    const uint64_t bytes = ((yes[0] >> 8 | yes[0] >> 24 | yes[0] >> 40) & UINT64_C(0x010101)) |
                           ((yes[1] << 8 | yes[1] >> 8) & UINT64_C(0x0101000000)) |
                           ((yes[2] << 40 | yes[2] << 24 | yes[2] << 8) & UINT64_C(0x0101010000000000));
    iso_put_u64(row, bytes);
    return odd;
}

/* "file", then for each attribute "  1" or " -1". `row` is changed in any case. */
static bool plain_attribute_line(const iso_words *w, size_t n, size_t *length, uint8_t *row)
{
    const char *blank = plain_name(w, length);
    if (!blank || (size_t)(w->end - blank) < 3 * n) return false;
    uint64_t odd = 0;
    size_t i = 0;
    for (; i + 8 <= n; i += 8) odd |= eight_values(blank + 3 * i, row + i);
    for (; i < n; i++) {
        const char *value = blank + 3 * i;
        int yes = value[1] == ' ';
        odd |= (uint64_t)((value[0] ^ ' ') | (value[2] ^ '1') | !(yes | (value[1] == '-')));
        row[i] = (uint8_t)yes;
    }
    return !odd && plain_end(w, blank + 3 * n);
}

static iso_status attribute_line(iso_attributes *a, const iso_words *w, uint8_t *row, iso_error *err)
{
    size_t number, n = a->attributes.count;
    if (w->count != n + 1)
        return iso_fail(err, ISO_E_FORMAT, "%s: line %zu: has %zu columns, expected %zu: a file and its %zu attributes", w->file, w->line,
                        w->count, n + 1, n);
    iso_status status = add_file(&a->files, w, w->word[0], strlen(w->word[0]), &number, err);
    if (status) return status;
    for (size_t i = 0; i < n; i++) {
        const char *value = w->word[i + 1];
        if (strcmp(value, "1") != 0 && strcmp(value, "-1") != 0 && strcmp(value, "0") != 0)
            return iso_fail(err, ISO_E_FORMAT, "%s: line %zu: %s is '%.20s', expected 1, -1 or 0", w->file, w->line, iso_names_at(&a->attributes, i), value);
        row[i] = value[0] == '1';
    }
    return ISO_OK;
}

static iso_status attributes_parse(iso_attributes *a, iso_words *w, iso_error *err)
{
    uint64_t total = 0;
    iso_status status = attribute_total(w, &total, err);
    if (!status) status = attribute_names(a, w, err);
    if (status) return status;
    size_t n = a->attributes.count, room = lines_in(w, 3 * n + 2);
    if (room > total) room = (size_t)total;
    status = iso_names_reserve(&a->files, room, NAME, err);
    if (!status && !iso_grow(&a->rows, &a->capacity, (room + 1) * n, 1)) status = iso_fail_memory(err); /* and the row tried last */
    while (!status && !(status = iso_words_line(w, err)) && w->at) {
        size_t number, length;
        uint8_t *row = next_row(a);
        if (!row) return iso_fail_memory(err);
        if (plain_attribute_line(w, n, &length, row)) status = add_file(&a->files, w, w->at, length, &number, err);
        else if (!(status = iso_words_cut(w, err)) && w->count) status = attribute_line(a, w, row, err);
    }
    if (!status && a->files.count != total)
        status = iso_fail(err, ISO_E_FORMAT, "%s: line 1 says %llu files, but %zu follow: cut off, or the number needs correcting", w->file,
                          (unsigned long long)total, a->files.count);
    return status;
}

iso_status iso_attributes_read(const char *file, iso_attributes **out, iso_error *err)
{
    iso_words w;
    iso_status status = iso_words_begin(&w, file, err);
    if (status) return status;
    iso_attributes *a = iso_calloc(1, sizeof *a);
    status = a ? attributes_parse(a, &w, err) : iso_fail_memory(err);
    iso_words_end(&w);
    if (status) iso_attributes_free(a);
    else *out = a;
    return status;
}

void iso_attributes_free(iso_attributes *a)
{
    if (!a) return;
    iso_names_free(&a->attributes);
    iso_names_free(&a->files);
    free(a->rows);
    free(a);
}

int iso_attributes_count(const iso_attributes *a)
{
    return (int)a->attributes.count;
}

const char *iso_attributes_name(const iso_attributes *a, int i)
{
    return iso_names_at(&a->attributes, (size_t)i);
}

int64_t iso_attributes_files(const iso_attributes *a)
{
    return (int64_t)a->files.count;
}

int64_t iso_attributes_row_near(const iso_attributes *a, const char *name, int64_t near)
{
    size_t number;
    return iso_names_find(&a->files, name, (size_t)near, &number) ? (int64_t)number : -1;
}

const uint8_t *iso_attributes_at(const iso_attributes *a, int64_t row) { return a->rows + (size_t)row * a->attributes.count; }

const uint8_t *iso_attributes_find(const iso_attributes *a, const char *name)
{
    int64_t row = iso_attributes_row_near(a, name, -1);
    return row < 0 ? NULL : iso_attributes_at(a, row);
}
