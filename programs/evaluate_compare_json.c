/* evaluate_compare_json.c: all that `evaluate compare` found, as JSON. Shares are from 0 to 1; what there is not is null. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/text.h"
#include "programs/evaluate_compare.h"

static void text(const char *key, const char *bytes)
{
    printf("\"%s\":", key);
    iso_text_json(stdout, bytes, strlen(bytes));
}

static void number(const char *key, double value)
{
    printf(",\"%s\":", key);
    iso_text_json_number(stdout, value);
}

/* One field of n figures, as an array. */
static void figures(const char *key, const iso_figure *f, int n, size_t offset)
{
    printf(",\"%s\":[", key);
    for (int i = 0; i < n; i++) {
        if (i) putchar(',');
        iso_text_json_number(stdout, *(const double *)(const void *)((const char *)(f + i) + offset));
    }
    putchar(']');
}

static void columns(const iso_figure *f, int n)
{
    figures("precision", f, n, offsetof(iso_figure, mean));
    figures("standard_deviation", f, n, offsetof(iso_figure, deviation));
    figures("low", f, n, offsetof(iso_figure, low));
    figures("high", f, n, offsetof(iso_figure, high));
}

/* The means of each run: what the standard deviation is of. */
static void run_means(const iso_compared_row *row, bool pairs)
{
    fputs(",\"runs\":[", stdout);
    for (int r = 0; r < row->runs; r++) {
        const iso_precision *p = row->precision[r];
        printf("%s{\"sets\":%d", r ? "," : "", pairs ? p->double_sets : p->single_sets);
        fputs(",\"precision\":[", stdout);
        for (int k = 0; k < ISO_KS; k++) {
            if (k) putchar(',');
            iso_text_json_number(stdout, (pairs ? p->double_mean : p->single_mean)[k]);
        }
        putchar(']');
        if (row->few) {
            const iso_few *f = row->few[r];
            const iso_few_mean *mean = pairs ? f->double_mean : f->single_mean;
            fputs(",\"few\":[", stdout);
            for (int s = 0; s < f->options.sizes; s++) {
                if (s) putchar(',');
                iso_text_json_number(stdout, mean[s].mean);
            }
            fputs("],\"few_standard_error\":[", stdout);
            for (int s = 0; s < f->options.sizes; s++) {
                if (s) putchar(',');
                iso_text_json_number(stdout, mean[s].error);
            }
            putchar(']');
        }
        putchar('}');
    }
    putchar(']');
}

static void sets(const iso_comparison *c, const iso_compared_row *row, bool pairs)
{
    const iso_precision *p = row->precision[0];
    fputs(",\"rows\":[", stdout);
    for (int i = 0; i < (pairs ? p->doubles : p->singles); i++) {
        const iso_precision_row *set = (pairs ? p->dbl : p->single) + i;
        fputs(i ? ",{\"attributes\":[" : "{\"attributes\":[", stdout);
        iso_text_json(stdout, c->name[set->a], strlen(c->name[set->a]));
        if (pairs) putchar(','), iso_text_json(stdout, c->name[set->b], strlen(c->name[set->b]));
        printf("],\"examples\":%" PRId64 ",\"relevant\":%" PRId64, set->queries, set->relevant);
        number("chance", set->chance);
        fputs(",\"precision\":[", stdout);
        for (int k = 0; k < ISO_KS; k++) {
            if (k) putchar(',');
            iso_text_json_number(stdout, iso_compare_at(row->runs, row->precision, pairs, i, k));
        }
        putchar(']');
        if (row->few) fputs(",\"few\":[", stdout);
        for (int s = 0; row->few && s < c->few.sizes; s++) {
            if (s) putchar(',');
            iso_text_json_number(stdout, iso_compare_few_at(row->runs, row->few, pairs, i, s));
        }
        fputs(row->few ? "]}" : "}", stdout);
    }
    putchar(']');
}

static void half(const iso_comparison *c, const iso_compared_row *row, bool pairs)
{
    const iso_half *h = pairs ? &row->sum.dbl : &row->sum.single;
    printf(",\"%s\":{\"sets\":%d", pairs ? "double" : "single", h->sets);
    number("chance", h->chance);
    columns(h->at, ISO_KS);
    if (c->with_few) {
        fputs(",\"few\":{\"sets\":[", stdout);
        for (int s = 0; s < c->few.sizes; s++) printf("%s%d", s ? "," : "", h->few_sets[s]);
        fputs("],\"chance\":[", stdout);
        for (int s = 0; s < c->few.sizes; s++) {
            if (s) putchar(',');
            iso_text_json_number(stdout, h->few_chance[s]);
        }
        putchar(']');
        columns(h->few, c->few.sizes);
        putchar('}');
    }
    run_means(row, pairs);
    sets(c, row, pairs);
    putchar('}');
}

static void models(const iso_compared_row *row)
{
    fputs(",\"models\":[", stdout);
    for (int r = 0; r < row->runs; r++) {
        const iso_compared_model *m = row->model[r];
        fputs(r ? ",{" : "{", stdout);
        iso_text_json_path(stdout, "name", m->name);
        putchar(',');
        iso_text_json_path(stdout, "db", m->db);
        printf(",\"model\":\"%s\",\"dim\":%d,\"items\":%" PRId64 ",\"seed\":", m->digest, m->dim, m->matches.items);
        if (m->has_seed)
            printf("%" PRId64 "}", m->seed);
        else
            fputs("null}", stdout);
    }
    putchar(']');
}

static void absent(const iso_comparison *c)
{
    const iso_precision *p = c->row[0].precision[0];
    fputs(",\"left_out\":[", stdout);
    for (int i = 0; i < p->left_out; i++) {
        if (i) putchar(',');
        iso_text_json(stdout, c->name[p->left[i]], strlen(c->name[p->left[i]]));
    }
    putchar(']');
}

static void failures(const iso_comparison *c)
{
    fputs(",\"failed\":[", stdout);
    for (int i = 0; i < c->failures; i++) {
        fputs(i ? ",{" : "{", stdout);
        text("name", c->failure[i].name);
        putchar(',');
        text("message", c->failure[i].message);
        putchar('}');
    }
    putchar(']');
}

void iso_comparison_json(const iso_comparison *c)
{
    fputs("{\"schema_version\":1,\"protocol\":\"compare\",", stdout);
    iso_text_json_path(stdout, "images", c->images);
    putchar(',');
    iso_text_json_path(stdout, "attributes", c->attribute_file);
    putchar(',');
    iso_text_json_path(stdout, "partition", c->partition_file);
    printf(",\"query\":{\"part\":%d,\"images\":%" PRId64 "},\"test\":{\"part\":%d,\"images\":%" PRId64 "}",
           c->query_part, c->query.count, c->test_part, c->test.count);
    fputs(",\"k\":[", stdout);
    for (int k = 0; k < ISO_KS; k++) printf("%s%d", k ? "," : "", iso_precision_k[k]);
    printf("],\"bootstrap\":{\"resamples\":%d,\"level\":0.95,\"seed\":%" PRIu64 "}", c->resamples, c->few.seed);
    if (c->with_few) {
        printf(",\"few\":{\"k\":%d,\"draws\":%d,\"seed\":%" PRIu64 ",\"n\":[", ISO_FEW_K, c->few.draws, c->few.seed);
        for (int s = 0; s < c->few.sizes; s++) printf("%s%" PRId64, s ? "," : "", c->few.size[s]);
        fputs("]}", stdout);
    }
    absent(c);
    fputs(",\"rows\":[", stdout);
    for (int i = 0; i < c->rows; i++) {
        fputs(i ? ",{" : "{", stdout);
        text("label", c->row[i].entry->label);
        printf(",\"scorer\":\"%s\",\"seeds\":%d", iso_scorer_name((int)c->row[i].scoring), c->row[i].runs);
        models(c->row + i);
        half(c, c->row + i, false);
        half(c, c->row + i, true);
        putchar('}');
    }
    putchar(']');
    failures(c);
    puts("}");
}
