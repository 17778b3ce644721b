#include "model/train_log.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"

static const struct { iso_term term; const char *name; } column[] = {
    {ISO_TERM_LOSS, "loss"}, {ISO_TERM_NLL, "nll"},  {ISO_TERM_KL, "kl"},
    {ISO_TERM_MSE, "mse"},   {ISO_TERM_RATIO, "R"}, {ISO_TERM_NORM, "norm"},
};
enum { COLUMNS = sizeof column / sizeof column[0] };

typedef struct text { char at[1024]; size_t used; } text;

static void put(text *t, const char *s)
{
    while (*s && t->used + 1 < sizeof t->at) t->at[t->used++] = *s++;
    t->at[t->used] = 0;
}

static void put_number(text *t, double value, int digits)
{
    char number[40];
    if (!isfinite(value)) return;
    snprintf(number, sizeof number, "%.*g", digits, value);
    put(t, number);
}

static void put_int(text *t, int64_t value)
{
    char number[40];
    snprintf(number, sizeof number, "%" PRId64, value);
    put(t, number);
}

static void csv_row(text *t, const iso_epoch *e)
{
    put_int(t, e->epoch);
    put(t, ",");
    put_int(t, e->step);
    put(t, ",");
    put_int(t, e->images);
    for (int part = 0; part < 2; part++)
        for (int i = 0; i < COLUMNS; i++) {
            put(t, ",");
            put_number(t, (part ? e->valid : e->train)[column[i].term], 8);
        }
    put(t, ",");
    put_number(t, e->sigma, 8);
    put(t, ",");
    put_number(t, e->seconds, 6);
    put(t, ",");
    put_number(t, e->images_per_second, 5);
    put(t, e->best ? ",1," : ",0,");
    put_number(t, e->train[ISO_TERM_ACCURACY], 8);
    put(t, ",");
    put_number(t, e->valid[ISO_TERM_ACCURACY], 8);
    put(t, "\n");
}

static void json_field(text *t, const char *prefix, const char *name, double value)
{
    if (!isfinite(value)) return;
    put(t, ",\"");
    put(t, prefix);
    put(t, name);
    put(t, "\":");
    put_number(t, value, 8);
}

static void json_object(text *t, const iso_epoch *e)
{
    put(t, "{\"epoch\":");
    put_int(t, e->epoch);
    for (int part = 0; part < 2; part++)
        for (int i = 0; i < COLUMNS; i++)
            json_field(t, part ? "val_" : "", column[i].name, (part ? e->valid : e->train)[column[i].term]);
    json_field(t, "", "accuracy", e->train[ISO_TERM_ACCURACY]);
    json_field(t, "val_", "accuracy", e->valid[ISO_TERM_ACCURACY]);
    json_field(t, "", "sigma", e->sigma);
    put(t, "}");
}

bool iso_log_add(char **csv, char **json, const iso_epoch *e)
{
    text row = {{0}, 0}, object = {{0}, 0};
    csv_row(&row, e);
    json_object(&object, e);
    bool first = !*json || !**json;
    char *new_csv = iso_format("%s%s", *csv ? *csv : "", row.at);
    char *new_json = iso_format("%s%s%s", first ? "" : *json, first ? "" : ",", object.at);
    if (!new_csv || !new_json) {
        free(new_csv);
        free(new_json);
        return false;
    }
    free(*csv);
    free(*json);
    *csv = new_csv;
    *json = new_json;
    return true;
}

static size_t count(const char *text, char what)
{
    size_t n = 0;
    for (; *text; text++) n += *text == what;
    return n;
}

bool iso_log_widen(char **csv)
{
    const size_t commas = count(ISO_LOG_HEADER, ',');
    if (!*csv) return true;
    char *out = iso_calloc(strlen(*csv) + count(*csv, '\n') * commas + 1, 1), *to = out;
    if (!out) return false;
    size_t seen = 0;
    for (const char *c = *csv; *c; c++) {
        seen += *c == ',';
        for (; *c == '\n' && seen < commas; seen++) *to++ = ',';
        if (*c == '\n') seen = 0;
        *to++ = *c;
    }
    free(*csv);
    *csv = out;
    return true;
}
