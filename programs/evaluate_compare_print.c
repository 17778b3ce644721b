/* evaluate_compare_print.c: the tables of `evaluate compare` for people and in Markdown, and its chart. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "base/text.h"
#include "eval/chart.h"
#include "programs/evaluate_compare.h"
#include "programs/evaluate_print.h"

enum { P10 = 2 }; /* of iso_precision_k */

static const iso_half *half_of(const iso_compared_row *row, bool pairs)
{
    return pairs ? &row->sum.dbl : &row->sum.single;
}

static bool several_runs(const iso_comparison *c)
{
    for (int i = 0; i < c->rows; i++)
        if (c->row[i].runs > 1) return true;
    return false;
}

static bool has_interval(const iso_figure *f) { return !isnan(f->low) && !isnan(f->high); }

/* A column of a half: P@K, or n examples. */
typedef struct column {
    bool few;
    int at;
} column;

static const iso_figure *figure_of(const iso_half *h, column k) { return k.few ? h->few + k.at : h->at + k.at; }

static const char *column_name(const iso_comparison *c, column k, char buf[32])
{
    if (k.few)
        snprintf(buf, 32, "n=%" PRId64, c->few.size[k.at]);
    else
        snprintf(buf, 32, "P@%d", iso_precision_k[k.at]);
    return buf;
}

/* ---- for people ---- */

/* Right-aligned in `width` letters: printf counts bytes. */
static void print_right(const char *text, int width)
{
    printf("%*s%s", width - iso_evaluate_letters(text) > 0 ? width - iso_evaluate_letters(text) : 0, "", text);
}

static void print_figure(const iso_figure *f, int width)
{
    char text[48];
    if (isnan(f->mean))
        snprintf(text, sizeof text, "-");
    else if (isnan(f->deviation))
        snprintf(text, sizeof text, "%.1f", 100 * f->mean);
    else
        snprintf(text, sizeof text, "%.1f ±%.1f", 100 * f->mean, 100 * f->deviation);
    print_right(text, width);
}

static void print_interval(const iso_figure *f)
{
    char text[48];
    if (has_interval(f))
        snprintf(text, sizeof text, "%.1f to %.1f", 100 * f->low, 100 * f->high);
    else
        snprintf(text, sizeof text, "-");
    print_right(text, 16);
}

static int label_width(const iso_comparison *c)
{
    int width = 14;
    for (int i = 0; i < c->rows; i++) {
        const char *label = c->row[i].entry->label;
        const int letters = iso_text_show(NULL, label, strlen(label));
        if (letters + 2 > width) width = letters + 2;
    }
    return width;
}

static void print_left(const char *bytes, int width)
{
    const int space = width - iso_text_show(stdout, bytes, strlen(bytes));
    printf("%*s", space > 0 ? space : 0, "");
}

/* Whether two rows' figures are over as many sets, with the same chance: some sets give a scorer no direction, and drop out of its rows alone. */
static bool same_sets(int a, double chance_a, int b, double chance_b) { return a == b && (chance_a == chance_b || a == 0); }

static bool alike(const iso_comparison *c, const iso_half *a, const iso_half *b, bool few)
{
    if (!few) return same_sets(a->sets, a->chance, b->sets, b->chance);
    bool same = true;
    for (int s = 0; s < c->few.sizes; s++) same = same && same_sets(a->few_sets[s], a->few_chance[s], b->few_sets[s], b->few_chance[s]);
    return same;
}

static bool all_alike(const iso_comparison *c, bool pairs, bool few)
{
    bool same = true;
    for (int i = 1; i < c->rows; i++) same = same && alike(c, half_of(c->row, pairs), half_of(c->row + i, pairs), few);
    return same;
}

/* What stands below a half: what chance gives; with few examples also over how many sets, which changes with n. */
static void print_foot(const iso_half *h, const char *of, bool few, int columns, int width, int names)
{
    for (int chance = !few; chance < 2; chance++) {
        char *label = iso_format("%s%s", chance ? "chance" : "sets", of);
        printf("%3s  ", "");
        print_left(label ? label : "?", names);
        free(label);
        printf("%-10s%5s", "", "");
        if (few) printf("%6s", "");
        else printf("%6d", h->sets);
        for (int k = 0; k < columns; k++)
            if (chance) print_figure(&(iso_figure){few ? h->few_chance[k] : h->chance, NAN, NAN, NAN}, width);
            else printf("%*d", width, h->few_sets[k]);
        putchar('\n');
    }
}

/* Once where it is the same for all rows, else once for every kind, with their numbers. */
static void print_feet(const iso_comparison *c, bool pairs, bool few, int columns, int width, int names)
{
    const bool same = all_alike(c, pairs, few);
    for (int i = 0; i < c->rows; i++) {
        const iso_half *h = half_of(c->row + i, pairs);
        bool told = false;
        for (int j = 0; j < i; j++) told = told || alike(c, half_of(c->row + j, pairs), h, few);
        if (told) continue;
        char *of = iso_format("%s", same ? "" : " of");
        for (int j = i; j < c->rows && !same && of; j++) {
            if (!alike(c, half_of(c->row + j, pairs), h, few)) continue;
            char *longer = iso_format("%s #%d", of, j + 1);
            free(of);
            of = longer;
        }
        print_foot(h, of ? of : "?", few, columns, width, names);
        free(of);
    }
}

static void print_half(const iso_comparison *c, bool pairs, bool few, int columns)
{
    int width = several_runs(c) ? 12 : 8, names = label_width(c);
    bool interval = !few && c->resamples > 0;
    char name[32];
    printf("\n%3s  %-*s%-10s%5s%6s", "#", names, pairs ? "double (DAR)" : "single (SAR)", "scorer", "seeds",
           few ? "" : "sets");
    for (int k = 0; k < columns; k++) print_right(column_name(c, (column){few, k}, name), width);
    if (interval) print_right("P@10, 95 %", 16);
    putchar('\n');
    for (int i = 0; i < c->rows; i++) {
        const iso_compared_row *row = c->row + i;
        const iso_half *h = half_of(row, pairs);
        printf("%3d  ", i + 1);
        print_left(row->entry->label, names);
        printf("%-10s%5d", iso_scorer_name((int)row->scoring), row->runs);
        if (few)
            printf("%6s", "");
        else
            printf("%6d", h->sets);
        for (int k = 0; k < columns; k++) print_figure(figure_of(h, (column){few, k}), width);
        if (interval) print_interval(h->at + P10);
        putchar('\n');
    }
    print_feet(c, pairs, few, columns, width, names);
}

/* The row of an attribute is the same in every table row: all are over the same images. */
static void print_attributes(const iso_comparison *c)
{
    const iso_precision *p = c->row[0].precision[0];
    int names = 24;
    for (int i = 0; i < p->singles; i++) {
        const char *name = c->name[p->single[i].a];
        const int letters = iso_text_show(NULL, name, strlen(name));
        if (letters + 2 > names) names = letters + 2;
    }
    printf("\nP@10 of each attribute, by the numbers of the rows above\n\n%-*s%9s%9s%9s", names, "attribute",
           "examples", "relevant", "chance");
    for (int i = 0; i < c->rows; i++) {
        char number[16];
        snprintf(number, sizeof number, "#%d", i + 1);
        print_right(number, 8);
    }
    putchar('\n');
    for (int a = 0; a < p->singles; a++) {
        print_left(c->name[p->single[a].a], names);
        printf("%9" PRId64 "%9" PRId64 "%9.1f", p->single[a].queries, p->single[a].relevant, 100 * p->single[a].chance);
        for (int i = 0; i < c->rows; i++) {
            iso_figure f = {iso_compare_at(c->row[i].runs, c->row[i].precision, false, a, P10), NAN, NAN, NAN};
            print_figure(&f, 8);
        }
        putchar('\n');
    }
}

void iso_comparison_table(const iso_comparison *c, bool per_attribute)
{
    printf("data set ");
    iso_text_show(stdout, c->images, strlen(c->images));
    printf(": examples from %" PRId64 " %s images, ranked %" PRId64 " %s images; figures in %%\n", c->query.count, iso_part_name[c->query_part],
           c->test.count, iso_part_name[c->test_part]);
    if (several_runs(c)) puts("mean ± standard deviation over the seeds");
    if (c->resamples)
        printf("95 %%: bootstrap over the attributes (%d resamples, seed %" PRIu64 ")\n", c->resamples, c->few.seed);
    for (int pairs = 0; pairs < 2; pairs++) print_half(c, pairs, false, ISO_KS);
    if (c->with_few)
        printf("\nP@10 with n random examples, averaged over %d draw%s (seed %" PRIu64 ")\n",
               c->few.draws, c->few.draws > 1 ? "s" : "", c->few.seed);
    for (int pairs = 0; pairs < 2 && c->with_few; pairs++) print_half(c, pairs, true, c->few.sizes);
    if (per_attribute) print_attributes(c);
}

/* ---- Markdown ---- */

/* Text of a cell, such that it stays one and is shown as it is. */
static void mark_text(const char *bytes)
{
    static const char marks[] = "\\|`*_<>[]";
    while (*bytes) {
        const size_t plain = strcspn(bytes, marks);
        iso_text_show(stdout, bytes, plain);
        bytes += plain;
        if (*bytes) printf("\\%c", *bytes++);
    }
}

static void mark_figure(const iso_figure *f, bool interval)
{
    if (isnan(f->mean)) {
        fputs("–", stdout);
        return;
    }
    printf("%.1f", 100 * f->mean);
    if (!isnan(f->deviation)) printf(" ± %.1f", 100 * f->deviation);
    if (interval && has_interval(f)) printf(" (%.1f to %.1f)", 100 * f->low, 100 * f->high);
}

static void mark_sets(int singles, int pairs)
{
    printf("%d attribute%s and %d pair%s", singles, singles == 1 ? "" : "s", pairs, pairs == 1 ? "" : "s");
}

static void mark_chance(double single, double dbl)
{
    fputs("; chance: ", stdout);
    mark_figure(&(iso_figure){single, NAN, NAN, NAN}, false);
    fputs(" / ", stdout);
    mark_figure(&(iso_figure){dbl, NAN, NAN, NAN}, false);
}

static void mark_name(const iso_compared_row *row)
{
    mark_text(row->entry->label);
    printf(", %s", iso_scorer_name((int)row->scoring));
}

static void mark_row_begin(const iso_comparison *c, const iso_compared_row *row)
{
    fputs("| ", stdout);
    mark_text(row->entry->label);
    printf(" | %s |", iso_scorer_name((int)row->scoring));
    if (several_runs(c)) printf(" %d |", row->runs);
}

static void mark_head(const iso_comparison *c)
{
    fputs("\n| model | scorer |", stdout);
    if (several_runs(c)) fputs(" seeds |", stdout);
}

static void mark_rule(const iso_comparison *c, int columns)
{
    fputs("\n|---|---|", stdout);
    if (several_runs(c)) fputs("---:|", stdout);
    for (int k = 0; k < columns; k++) fputs("---:|", stdout);
    putchar('\n');
}

static void mark_table(const iso_comparison *c)
{
    mark_head(c);
    for (int pairs = 0; pairs < 2; pairs++)
        for (int k = 0; k < ISO_KS; k++) printf(" %s P@%d |", pairs ? "double" : "single", iso_precision_k[k]);
    mark_rule(c, 2 * ISO_KS);
    for (int i = 0; i < c->rows; i++) {
        mark_row_begin(c, c->row + i);
        for (int pairs = 0; pairs < 2; pairs++)
            for (int k = 0; k < ISO_KS; k++) {
                putchar(' ');
                mark_figure(half_of(c->row + i, pairs)->at + k, k == P10);
                fputs(" |", stdout);
            }
        putchar('\n');
    }
}

/* Cells that are over other sets than the table above: once for all rows where they are alike. */
static void mark_fewer(const iso_comparison *c)
{
    const bool same = all_alike(c, false, true) && all_alike(c, true, true);
    bool begun = false;
    for (int i = 0; i < (same ? 1 : c->rows); i++)
        for (int s = 0; s < c->few.sizes; s++) {
            const iso_half *single = &c->row[i].sum.single, *dbl = &c->row[i].sum.dbl;
            if (single->few_sets[s] == single->sets && dbl->few_sets[s] == dbl->sets) continue;
            if (!begun) putchar('\n');
            begun = true;
            if (!same) mark_name(c->row + i);
            printf("%sn = %" PRId64 ": over ", same ? "" : ", ", c->few.size[s]);
            mark_sets(single->few_sets[s], dbl->few_sets[s]);
            mark_chance(single->few_chance[s], dbl->few_chance[s]);
            puts(".");
        }
}

static void mark_few(const iso_comparison *c)
{
    printf("\nP@10, single / double, with n random examples, averaged over %d draw%s (seed %" PRIu64 "):\n",
           c->few.draws, c->few.draws > 1 ? "s" : "", c->few.seed);
    mark_head(c);
    for (int s = 0; s < c->few.sizes; s++) printf(" n = %" PRId64 " |", c->few.size[s]);
    mark_rule(c, c->few.sizes);
    for (int i = 0; i < c->rows; i++) {
        mark_row_begin(c, c->row + i);
        for (int s = 0; s < c->few.sizes; s++)
            for (int pairs = 0; pairs < 2; pairs++) {
                fputs(pairs ? " / " : " ", stdout);
                mark_figure(half_of(c->row + i, pairs)->few + s, false);
                if (pairs) fputs(" |", stdout);
            }
        putchar('\n');
    }
    mark_fewer(c);
}

static void mark_attributes(const iso_comparison *c)
{
    const iso_precision *p = c->row[0].precision[0];
    fputs("\nP@10 of each attribute:\n\n| attribute | chance |", stdout);
    for (int i = 0; i < c->rows; i++) {
        putchar(' ');
        mark_name(c->row + i);
        fputs(" |", stdout);
    }
    fputs("\n|---|---:|", stdout);
    for (int i = 0; i < c->rows; i++) fputs("---:|", stdout);
    putchar('\n');
    for (int a = 0; a < p->singles; a++) {
        fputs("| ", stdout);
        mark_text(c->name[p->single[a].a]);
        printf(" | %.1f |", 100 * p->single[a].chance);
        for (int i = 0; i < c->rows; i++) {
            iso_figure f = {iso_compare_at(c->row[i].runs, c->row[i].precision, false, a, P10), NAN, NAN, NAN};
            putchar(' ');
            mark_figure(&f, false);
            fputs(" |", stdout);
        }
        putchar('\n');
    }
}

void iso_comparison_markdown(const iso_comparison *c, bool per_attribute)
{
    const iso_summary *s = &c->row[0].sum;
    iso_figure single = {s->single.chance, NAN, NAN, NAN}, dbl = {s->dbl.chance, NAN, NAN, NAN};
    printf("Examples from %" PRId64 " %s images, ranked %" PRId64
           " %s images; P@K in %%, averaged over %d attribute%s (single) and %d pair%s (double).",
           c->query.count, iso_part_name[c->query_part], c->test.count, iso_part_name[c->test_part], s->single.sets,
           s->single.sets == 1 ? "" : "s", s->dbl.sets, s->dbl.sets == 1 ? "" : "s");
    fputs(" Chance: ", stdout);
    mark_figure(&single, false);
    fputs(" / ", stdout);
    mark_figure(&dbl, false);
    putchar('.');
    if (several_runs(c)) fputs(" ±: standard deviation over the seeds.", stdout);
    if (c->resamples)
        printf(" In brackets: 95 %% bootstrap interval over the attributes (%d resamples, seed %" PRIu64 ").",
               c->resamples, c->few.seed);
    putchar('\n');
    for (int i = 0; i < c->rows; i++) {
        const iso_summary *x = &c->row[i].sum;
        if (alike(c, &x->single, &s->single, false) && alike(c, &x->dbl, &s->dbl, false)) continue;
        mark_name(c->row + i);
        fputs(": over ", stdout);
        mark_sets(x->single.sets, x->dbl.sets);
        mark_chance(x->single.chance, x->dbl.chance);
        puts(".");
    }
    mark_table(c);
    if (c->with_few) mark_few(c);
    if (per_attribute) mark_attributes(c);
}

/* ---- chart ---- */

static char *series_name(const iso_comparison *c, const iso_compared_row *row)
{
    char *label = iso_text_printable(row->entry->label), *name = NULL;
    if (label && c->scorers > 1)
        name = iso_format("%s, %s", label, iso_scorer_name((int)row->scoring));
    else if (label)
        name = iso_format("%s", label);
    free(label);
    return name;
}

static void fill_bars(const iso_comparison *c, double *value, double *low, double *high, double *level)
{
    for (int pairs = 0; pairs < 2; pairs++)
        for (int k = 0; k < ISO_KS; k++) {
            int g = pairs * ISO_KS + k;
            level[g] = all_alike(c, pairs, false) ? 100 * half_of(c->row, pairs)->chance : NAN; /* it is one line for all rows */
            for (int i = 0; i < c->rows; i++) {
                const iso_figure *f = half_of(c->row + i, pairs)->at + k;
                value[i * 2 * ISO_KS + g] = 100 * f->mean;
                low[i * 2 * ISO_KS + g] = 100 * f->low;
                high[i * 2 * ISO_KS + g] = 100 * f->high;
            }
        }
}

iso_status iso_comparison_chart(const iso_comparison *c, const char *path, iso_error *err)
{
    enum { GROUPS = 2 * ISO_KS };
    char group[GROUPS][32], note[160], title[64];
    const char *groups[GROUPS];
    size_t cells = (size_t)c->rows * GROUPS;
    double *value = iso_calloc(3 * cells, sizeof *value), *low = value ? value + cells : NULL,
           *high = value ? low + cells : NULL, level[GROUPS];
    char **name = iso_calloc((size_t)c->rows, sizeof *name);
    iso_status status = value && name ? ISO_OK : iso_fail_memory(err);
    for (int i = 0; i < c->rows && !status; i++)
        if (!(name[i] = series_name(c, c->row + i))) status = iso_fail_memory(err);
    if (status) goto done;
    for (int g = 0; g < GROUPS; g++) {
        snprintf(group[g], sizeof group[g], "%s P@%d", g < ISO_KS ? "single" : "double", iso_precision_k[g % ISO_KS]);
        groups[g] = group[g];
    }
    fill_bars(c, value, low, high, level);
    snprintf(note, sizeof note, "dashed: chance%s%s%s", all_alike(c, false, false) && all_alike(c, true, false) ? "" : " where it is the same for all rows",
             several_runs(c) ? "; bars: mean over the seeds" : "",
             c->resamples ? "; error bars: 95 % bootstrap interval over the attributes" : "");
    snprintf(title, sizeof title, "Precision at K%s%s", c->scorers > 1 ? "" : ", scorer ",
             c->scorers > 1 ? "" : iso_scorer_name((int)c->scorer[0]));
    iso_bars bars = {.title = title,
                     .y_label = "P@K in %",
                     .note = note,
                     .groups = GROUPS,
                     .series = c->rows,
                     .group = groups,
                     .name = (const char *const *)name,
                     .value = value,
                     .low = c->resamples ? low : NULL,
                     .high = c->resamples ? high : NULL,
                     .level = level};
    status = iso_chart_bars(&bars, path, err);
done:
    for (int i = 0; name && i < c->rows; i++) free(name[i]);
    free(name), free(value);
    return status;
}
