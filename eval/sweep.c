/* sweep.c: rows of a sweep as CSV. Its curves are drawn in sweep_chart.c. */
#include "eval/sweep.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "base/file.h"
#include "base/memory.h"
#include "model/philox.h"

/* Of what iso_sweep_set takes over: another number has rows of earlier programs measured anew. */
#define FIGURES "2"

/* Training numbers its streams from 0, initialisation from ISO_STREAM_INIT, few.c has 0x30000, pullback.c and sample.c 0x4000x. */
enum { STREAM_SAMPLE = 0x30100, CSV_LIMIT = 1 << 26, COLUMNS_MAX = 64 };

typedef struct column {
    const char *name;
    bool text; /* char *, else double */
    size_t offset;
} column;

#define TEXT(field) \
    { \
#field, true, offsetof(iso_sweep_row, field) \
    }
#define REAL(field) \
    { \
#field, false, offsetof(iso_sweep_row, field) \
    }
static const column columns[] = {
    TEXT(model),   TEXT(method),     REAL(alpha),
    REAL(beta),    REAL(seed),       REAL(epochs),
    REAL(images),  REAL(best_epoch), {"val_loss", false, offsetof(iso_sweep_row, loss)},
    REAL(mse),     REAL(vor),        REAL(vor_median),
    REAL(mcn),     REAL(mcn_median), REAL(cn),
    REAL(vpres),   REAL(iso),        {"R", false, offsetof(iso_sweep_row, ratio)},
    REAL(metrics), REAL(left_out),   TEXT(measured),
    TEXT(command),
};
enum { COLUMNS = sizeof columns / sizeof *columns };

static double *number_of(iso_sweep_row *row, const column *c) { return (double *)(void *)((char *)row + c->offset); }
static char **text_of(iso_sweep_row *row, const column *c) { return (char **)(void *)((char *)row + c->offset); }

int iso_sweep_columns(void) { return COLUMNS; }
const char *iso_sweep_column(int i) { return columns[i].name; }

const char *iso_sweep_field(const iso_sweep_row *row, int i, double *number)
{
    const char *at = (const char *)row + columns[i].offset;
    char *text;
    if (!columns[i].text) {
        memcpy(number, at, sizeof *number);
        return NULL;
    }
    memcpy(&text, at, sizeof text);
    return text ? text : "";
}

iso_sweep_row iso_sweep_row_empty(void)
{
    iso_sweep_row row = {0};
    for (int i = 0; i < COLUMNS; i++)
        if (!columns[i].text) *number_of(&row, &columns[i]) = NAN;
    return row;
}

void iso_sweep_row_clear(iso_sweep_row *row)
{
    for (int i = 0; i < COLUMNS; i++)
        if (columns[i].text) free(*text_of(row, &columns[i]));
}

void iso_sweep_rows_free(iso_sweep_row *rows, int64_t count)
{
    for (int64_t r = 0; rows && r < count; r++) iso_sweep_row_clear(&rows[r]);
    free(rows);
}

/* ---- lists and numbers ---- */

const char *iso_sweep_number(double value, char text[ISO_TEXT_REAL]) { return iso_text_real(value, 15, text); }

static iso_status parse_item(const char *option, const char *item, const char *zero, bool whole, double *value,
                             iso_error *err)
{
    char *end;
    if (!*item)
        return iso_fail(err, ISO_E_ARGUMENT,
                        "--%s: an item of the list is empty: give numbers with commas between them", option);
    if (zero && strcmp(item, zero) == 0) {
        *value = 0;
        return ISO_OK;
    }
    /* strtod takes blanks, a sign, "nan" and hexadecimal digits, which nobody means here. */
    bool plain = strspn(item, whole ? "0123456789" : "0123456789.eE+-") == strlen(item) && item[0] != '+';
    double v = strtod(item, &end);
    if (!plain || *end || !isfinite(v))
        return iso_fail(err, ISO_E_ARGUMENT, "--%s needs %snumbers with commas between them, not '%.100s'", option,
                        whole ? "whole " : "", item);
    if (v < 0) return iso_fail(err, ISO_E_ARGUMENT, "--%s must not be negative, as %.100s is", option, item);
    /* A whole number that double would round to the greatest is one too many. */
    if (v > (whole ? 9007199254740992.0 : 1e12) || (whole && strtoull(item, NULL, 10) > 9007199254740992))
        return iso_fail(err, ISO_E_ARGUMENT, "--%s must be at most %s, not %.100s", option,
                        whole ? "9007199254740992" : "1e12", item);
    *value = v == 0 ? 0 : v; /* no -0 */
    return ISO_OK;
}

iso_status iso_sweep_list(const char *option, const char *text, const char *zero, bool whole,
                          double value[ISO_SWEEP_LIST], int *count, iso_error *err)
{
    iso_status status = ISO_OK;
    int n = 0;
    for (const char *at = text; status == ISO_OK;) {
        size_t length = strcspn(at, ",");
        if (n == ISO_SWEEP_LIST)
            return iso_fail(err, ISO_E_ARGUMENT, "--%s takes at most %d values", option, ISO_SWEEP_LIST);
        char *item = iso_strndup(at, length);
        if (!item) return iso_fail_memory(err);
        status = parse_item(option, item, zero, whole, &value[n], err);
        for (int i = 0; i < n && status == ISO_OK; i++)
            if (value[i] == value[n]) status = iso_fail(err, ISO_E_ARGUMENT, "--%s has %.100s twice", option, item);
        free(item);
        n++;
        at += length;
        if (!*at++) break;
    }
    if (status == ISO_OK) *count = n;
    return status;
}

iso_status iso_sweep_sample(int64_t count, int64_t n, uint64_t seed, int64_t *row, iso_error *err)
{
    int64_t *order = iso_calloc((size_t)count, sizeof *order);
    if (!order) return iso_fail_memory(err);
    iso_draw_permutation((iso_draw){seed, STREAM_SAMPLE, 0}, count, order);
    memcpy(row, order, (size_t)n * sizeof *row);
    free(order);
    return ISO_OK;
}

/* ---- measuring ---- */

void iso_sweep_set(iso_sweep_row *row, const iso_pullback *p)
{
    const iso_geometry *g = &p->geometry;
    row->mse = p->mse;
    row->vor = g->vor, row->vor_median = g->vor_median;
    row->mcn = g->mcn, row->mcn_median = g->mcn_median;
    row->cn = g->cn, row->vpres = g->vpres, row->iso = g->iso, row->ratio = p->ratio;
    row->metrics = (double)p->metrics, row->left_out = (double)p->left_out;
}

iso_status iso_sweep_digest(const iso_model *m, const uint8_t *pixels, int64_t n, const iso_pullback_spec *spec,
                            char text[33], iso_error *err)
{
    XXH3_state_t *state = XXH3_createState();
    if (!state) return iso_fail_memory(err);
    const char *model = iso_model_digest(m);
    XXH3_128bits_reset(state);
    XXH3_128bits_update(state, ISO_VERSION FIGURES, sizeof ISO_VERSION FIGURES);
    XXH3_128bits_update(state, model, strlen(model));
    XXH3_128bits_update(state, &n, sizeof n);
    XXH3_128bits_update(state, pixels, (size_t)n * ISO_PIXELS);
    XXH3_128bits_update(state, &spec->eta, sizeof spec->eta);
    XXH3_128bits_update(state, &spec->seed, sizeof spec->seed);
    XXH128_hash_t hash = XXH3_128bits_digest(state);
    XXH3_freeState(state);
    snprintf(text, 33, "%016" PRIx64 "%016" PRIx64, (uint64_t)hash.high64, (uint64_t)hash.low64);
    return ISO_OK;
}

/* ---- CSV ---- */

static void put_text(FILE *out, const char *text)
{
    if (!strpbrk(text, ",\"\r\n")) {
        fputs(text, out);
        return;
    }
    putc('"', out);
    for (; *text; text++) {
        if (*text == '"') putc('"', out);
        putc(*text, out);
    }
    putc('"', out);
}

static void put_row(FILE *out, const iso_sweep_row *row)
{
    for (int i = 0; i < COLUMNS; i++) {
        double value;
        char number[32];
        const char *text = iso_sweep_field(row, i, &value);
        if (i) putc(',', out);
        if (text)
            put_text(out, text);
        else if (isfinite(value))
            fputs(iso_sweep_number(value, number), out);
    }
    putc('\n', out);
}

iso_status iso_sweep_save(const char *path, const iso_sweep_row *rows, int64_t count, iso_error *err)
{
    iso_file *file = NULL;
    iso_status status = iso_file_create(path, &file, err);
    if (status != ISO_OK) return status;
    FILE *out = iso_file_stream(file);
    for (int i = 0; i < COLUMNS; i++) fprintf(out, "%s%s", i ? "," : "", columns[i].name);
    putc('\n', out);
    for (int64_t r = 0; r < count; r++) put_row(out, &rows[r]);
    return iso_file_commit(file, err);
}

/* The next record of *at, cut into fields in place; their number, 0 at the end of the text, -1 where quotes do not close or
 * there are more than COLUMNS_MAX. */
static int next_record(char **at, char *field[COLUMNS_MAX])
{
    char *in = *at;
    int n = 0;
    if (!*in) return 0;
    for (;;) {
        if (n == COLUMNS_MAX) return -1;
        char *out = field[n++] = in;
        if (*in == '"') {
            for (in++; *in && !(in[0] == '"' && in[1] != '"'); in++) {
                if (*in == '"') in++;
                *out++ = *in;
            }
            if (!*in++) return -1;
        } else {
            in += strcspn(in, ",\r\n");
            out = in;
        }
        char end = *in;
        *out = 0;
        if (end == ',') {
            in++;
            continue;
        }
        if (end == '\r' && in[1] == '\n')
            in++;
        else if (end && end != '\n')
            return -1;
        *at = end ? in + 1 : in;
        return n;
    }
}

static bool read_row(char **field, iso_sweep_row *row)
{
    for (int i = 0; i < COLUMNS; i++) {
        if (columns[i].text) {
            if (*field[i] && !(*text_of(row, &columns[i]) = iso_strndup(field[i], strlen(field[i])))) return false;
            continue;
        }
        char *end;
        double value = *field[i] ? strtod(field[i], &end) : NAN;
        if (*field[i] && *end) return false;
        *number_of(row, &columns[i]) = value;
    }
    return true;
}

iso_status iso_sweep_load(const char *path, iso_sweep_row **out, int64_t *out_count, iso_error *err)
{
    char *data = NULL, *field[COLUMNS_MAX];
    iso_sweep_row *rows = NULL;
    size_t size, capacity = 0;
    int64_t count = 0, line = 1;
    iso_status status = iso_file_read(path, CSV_LIMIT, &data, &size, err);
    if (status != ISO_OK) return status;
    char *at = data;
    bool good = strlen(data) == size && next_record(&at, field) == COLUMNS;
    for (int i = 0; i < COLUMNS && good; i++) good = strcmp(field[i], columns[i].name) == 0;
    for (int n; good && (n = next_record(&at, field)) != 0;) {
        line++;
        if (!iso_grow(&rows, &capacity, (size_t)count + 1, sizeof *rows)) {
            status = iso_fail_memory(err);
            goto done;
        }
        rows[count] = iso_sweep_row_empty();
        count++;
        good = n == COLUMNS && read_row(field, &rows[count - 1]);
    }
    if (!good) {
        status = iso_fail(err, ISO_E_FORMAT,
                          "%s is not the table of a sweep (record %" PRId64 "): move it away or delete it", path, line);
        goto done;
    }
    *out = rows, *out_count = count;
    rows = NULL;
done:
    iso_sweep_rows_free(rows, count);
    free(data);
    return status;
}

/* ---- the CSV beside a model ---- */

static int find(char **field, int n, const char *name)
{
    for (int i = 0; i < n; i++)
        if (strcmp(field[i], name) == 0) return i;
    return -1;
}

static double value_at(char **field, int n, int i)
{
    return i >= 0 && i < n && *field[i] ? strtod(field[i], NULL) : NAN;
}

iso_status iso_sweep_training(const char *csv, double best_epoch, iso_sweep_row *row, iso_error *err)
{
    char *data = NULL, *field[COLUMNS_MAX];
    size_t size;
    row->epochs = row->images = row->loss = NAN;
    row->best_epoch = best_epoch;
    iso_error none;
    if (iso_file_read(csv, CSV_LIMIT, &data, &size, &none) != ISO_OK) return ISO_OK; /* a model from elsewhere */
    char *at = data;
    int n = next_record(&at, field);
    int epoch = find(field, n, "epoch"), images = find(field, n, "images"), loss[2];
    loss[0] = find(field, n, "val_loss"), loss[1] = find(field, n, "loss");
    iso_status status = epoch < 0 ? iso_fail(err, ISO_E_FORMAT, "%s is not the log of a training", csv) : ISO_OK;
    while (status == ISO_OK && (n = next_record(&at, field)) > 0) {
        double e = value_at(field, n, epoch);
        row->epochs = e;
        row->images = value_at(field, n, images);
        if (e != best_epoch) continue;
        row->loss = value_at(field, n, loss[0]);
        if (isnan(row->loss)) row->loss = value_at(field, n, loss[1]);
    }
    free(data);
    return status;
}
