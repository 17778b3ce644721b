#include "programs/evaluate_print.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/file.h"
#include "base/progress.h"
#include "base/text.h"

const char *const iso_part_name[] = {"training", "validation", "test"};

iso_status iso_evaluate_picture(const char *path, iso_error *err)
{
    size_t n = strlen(path);
    if (n < 4 || strcmp(path + n - 4, ".png") != 0)
        return iso_fail(err, ISO_E_ARGUMENT, "pictures are PNG files: the name must end in .png, not be %s (see --help)", path);
    iso_file *f = NULL;
    iso_status status = iso_file_create(path, &f, err);
    iso_file_abort(f);
    return status;
}

/* ---- what the database and the files do not share, and what is left out ---- */

void iso_evaluate_notes(const char *program, const iso_matches *m)
{
    if (m->items_without_row)
        fprintf(stderr, "%s: %" PRId64 " of the database's %" PRId64 " images %s not in the attribute file\n", program, m->items_without_row, m->items,
                m->items_without_row == 1 ? "is" : "are");
    if (m->items_without_part)
        fprintf(stderr, "%s: %" PRId64 " %s not in the partition file\n", program, m->items_without_part, m->items_without_part == 1 ? "image is" : "images are");
    if (m->items_doubled)
        fprintf(stderr, "%s: %" PRId64 " %s the name of another one in the database and %s left out: in these files a name stands once\n", program, m->items_doubled,
                m->items_doubled == 1 ? "image has" : "images have", m->items_doubled == 1 ? "is" : "are");
    if (m->rows_without_item)
        fprintf(stderr, "%s: %" PRId64 " of the attribute file's %" PRId64 " rows %s no image in the database\n", program, m->rows_without_item, m->rows,
                m->rows_without_item == 1 ? "has" : "have");
}

void iso_evaluate_short_ranking(const char *program, int part, int64_t ranked)
{
    if (ranked >= iso_precision_k[ISO_KS - 1]) return;
    fprintf(stderr, "%s: only %" PRId64 " %s image%s ranked: P@K of a larger K is over all of them\n", program, ranked, iso_part_name[part], ranked == 1 ? " is" : "s are");
}

static void begin_left_out(const char *program, const char *what)
{
    fprintf(stderr, "%s: %s%sleft out", program, what ? what : "", what ? ": " : "");
}

static void name_left_out(const iso_evaluation *e, int attribute, const char *before)
{
    fputs(before, stderr);
    iso_text_show(stderr, e->name[attribute], strlen(e->name[attribute]));
}

/* After the names: the pairs, which are counted only. */
static void end_left_out(int names, int pairs)
{
    if (pairs) fprintf(stderr, "%s%d pair%s", names ? " and " : " ", pairs, pairs > 1 ? "s" : "");
    fputc('\n', stderr);
}

void iso_evaluate_left_out(const char *program, const char *what, const iso_evaluation *e, const iso_precision *p)
{
    if (p->left_out) {
        begin_left_out(program, what);
        fprintf(stderr, ", as no %s or no %s image has it:", iso_part_name[e->query.part], iso_part_name[e->test.part]);
        for (int i = 0; i < p->left_out; i++) name_left_out(e, p->left[i], i ? ", " : " ");
        fputc('\n', stderr);
    }
    int names = 0, lost = p->singles - p->single_sets, pairs = p->doubles - p->double_sets;
    if (lost + pairs == 0) return;
    begin_left_out(program, what);
    fputs(", as their examples have no direction:", stderr);
    for (int i = 0; i < p->singles; i++)
        if (isnan(p->single[i].at[0])) name_left_out(e, p->single[i].a, names++ ? ", " : " ");
    end_left_out(names, pairs);
}

/* lost: those of which a draw had no direction, else those of which there are too few images. */
static void few_left_out(const char *program, const char *what, const iso_evaluation *e, const iso_few *f, int s, bool lost)
{
    int names = 0, pairs = 0, all = 0;
    for (int i = 0; i < f->singles; i++) all += isnan(f->single[i].mean[s]) && (f->single[i].lost[s] > 0) == lost;
    for (int i = 0; i < f->doubles; i++) pairs += isnan(f->dbl[i].mean[s]) && (f->dbl[i].lost[s] > 0) == lost;
    if (all + pairs == 0) return;
    begin_left_out(program, what);
    fprintf(stderr, " with n = %" PRId64 ", as ", f->options.size[s]);
    if (lost) fputs("some examples drawn have no direction:", stderr);
    else fprintf(stderr, "fewer %s images have it:", iso_part_name[e->query.part]);
    for (int i = 0; i < f->singles; i++)
        if (isnan(f->single[i].mean[s]) && (f->single[i].lost[s] > 0) == lost) name_left_out(e, f->single[i].a, names++ ? ", " : " ");
    end_left_out(names, pairs);
}

void iso_evaluate_few_short(const char *program, const iso_evaluation *e, const iso_few *f)
{
    for (int s = 0; s < f->options.sizes; s++) few_left_out(program, NULL, e, f, s, false);
}

void iso_evaluate_few_lost(const char *program, const char *what, const iso_evaluation *e, const iso_few *f)
{
    for (int s = 0; s < f->options.sizes; s++) few_left_out(program, what, e, f, s, true);
}

/* ---- table ---- */

static void print_figures(double chance, const double at[ISO_KS])
{
    if (isnan(chance)) printf("%9s", "-");
    else printf("%9.1f", 100 * chance);
    for (int k = 0; k < ISO_KS; k++)
        if (isnan(at[k])) printf("%8s", "-");
        else printf("%8.1f", 100 * at[k]);
    putchar('\n');
}

static void print_columns(void)
{
    printf("%9s", "chance");
    for (int k = 0; k < ISO_KS; k++) {
        char name[16];
        snprintf(name, sizeof name, "P@%d", iso_precision_k[k]);
        printf("%8s", name);
    }
    putchar('\n');
}

int iso_evaluate_letters(const char *s)
{
    int n = 0;
    for (; *s; s++) n += (*s & 0xC0) != 0x80;
    return n;
}

static int name_width(const iso_evaluation *e, const iso_precision *p)
{
    int width = 24;
    for (int i = 0; i < p->singles; i++) {
        const char *name = e->name[p->single[i].a];
        const int letters = iso_text_show(NULL, name, strlen(name));
        if (letters + 2 > width) width = letters + 2;
    }
    return width;
}

static void print_name(const iso_evaluation *e, int attribute, int width)
{
    const char *name = e->name[attribute];
    printf("%*s", width - iso_text_show(stdout, name, strlen(name)), "");
}

static void print_attributes(const iso_evaluation *e, const iso_precision *p)
{
    int width = name_width(e, p);
    printf("\n%-*s%9s%9s", width, "attribute", "examples", "relevant");
    print_columns();
    for (int i = 0; i < p->singles; i++) {
        const iso_precision_row *row = p->single + i;
        print_name(e, row->a, width);
        printf("%9" PRId64 "%9" PRId64, row->queries, row->relevant);
        print_figures(row->chance, row->at);
    }
}

/* "57.9  ±0.4" or "57.9", at the right end of 14 columns; "-" for what there is not. */
static void print_few_figure(double mean, double error)
{
    char behind[32];
    snprintf(behind, sizeof behind, "±%.1f", 100 * error);
    if (isnan(mean)) printf("%14s", "-");
    else if (isnan(error)) printf("%14.1f", 100 * mean);
    else printf("%8.1f%*s", 100 * mean, 6 + 1, behind); /* ± is one letter of two bytes */
}

static void print_few_attributes(const iso_evaluation *e, const iso_precision *p, const iso_few *f)
{
    int width = name_width(e, p);
    printf("\n%-*s%9s%9s", width, "P@10 with n examples", "examples", "relevant");
    for (int s = 0; s < f->options.sizes; s++) {
        char name[32];
        snprintf(name, sizeof name, "n=%" PRId64, f->options.size[s]);
        printf("%14s", name);
    }
    putchar('\n');
    for (int i = 0; i < f->singles; i++) {
        const iso_few_row *row = f->single + i;
        print_name(e, row->a, width);
        printf("%9" PRId64 "%9" PRId64, row->queries, row->relevant);
        for (int s = 0; s < f->options.sizes; s++) print_few_figure(row->mean[s], row->deviation[s] / sqrt(f->options.draws));
        putchar('\n');
    }
}

static void print_few(const iso_few *f)
{
    const iso_few_options *o = &f->options;
    printf("\nP@10 with n random examples, averaged over %d draw%s (seed %" PRIu64 ")%s\n\n", o->draws, o->draws > 1 ? "s" : "", o->seed,
           o->draws > 1 ? " ± standard error" : "");
    printf("%12s%9s%14s%9s%14s\n", "n", "sets", "single (SAR)", "sets", "double (DAR)");
    for (int s = 0; s < o->sizes; s++) {
        printf("%12" PRId64 "%9d", o->size[s], f->single_mean[s].rows);
        print_few_figure(f->single_mean[s].mean, f->single_mean[s].error);
        printf("%9d", f->double_mean[s].rows);
        print_few_figure(f->double_mean[s].mean, f->double_mean[s].error);
        putchar('\n');
    }
}

void iso_evaluate_table(const char *path, const char *scorer, bool per_attribute, const iso_evaluation *e, const iso_precision *p,
                        const iso_few *f)
{
    printf("database ");
    iso_text_show(stdout, path, strlen(path));
    printf(", model %.8s, scorer %s\n", e->digest, scorer);
    printf("examples from %" PRId64 " %s images, ranked %" PRId64 " %s images; figures in %%\n\n", e->query.count, iso_part_name[e->query.part], e->test.count,
           iso_part_name[e->test.part]);
    printf("%-24s%9s%9s", "averaged over", "", "sets");
    print_columns();
    printf("%-24s%9s%9d", "single attributes (SAR)", "", p->single_sets);
    print_figures(p->single_chance, p->single_mean);
    printf("%-24s%9s%9d", "double attributes (DAR)", "", p->double_sets);
    print_figures(p->double_chance, p->double_mean);
    if (per_attribute) print_attributes(e, p);
    if (f) print_few(f);
    if (f && per_attribute) print_few_attributes(e, p, f);
}

/* ---- JSON ---- */

static void json_name(const iso_evaluation *e, int i) { iso_text_json(stdout, e->name[i], strlen(e->name[i])); }

static void json_figures(double chance, const double at[ISO_KS])
{
    fputs("\"chance\":", stdout);
    iso_text_json_number(stdout, chance);
    for (int k = 0; k < ISO_KS; k++) {
        fputs(k ? "," : ",\"precision\":[", stdout);
        iso_text_json_number(stdout, at[k]);
    }
    putchar(']');
}

static void json_rows(const iso_evaluation *e, const iso_precision_row *row, int n)
{
    for (int i = 0; i < n; i++) {
        fputs(i ? "," : "", stdout);
        fputs("{\"attributes\":[", stdout);
        json_name(e, row[i].a);
        if (row[i].b >= 0) putchar(','), json_name(e, row[i].b);
        printf("],\"examples\":%" PRId64 ",\"relevant\":%" PRId64 ",", row[i].queries, row[i].relevant);
        json_figures(row[i].chance, row[i].at);
        putchar('}');
    }
}

/* The figures of each n, `stride` bytes apart. */
static void json_array(const char *key, const void *first, size_t stride, int n)
{
    printf(",\"%s\":[", key);
    for (int i = 0; i < n; i++) {
        fputs(i ? "," : "", stdout);
        iso_text_json_number(stdout, *(const double *)(const void *)((const char *)first + (size_t)i * stride));
    }
    putchar(']');
}

static void json_few_half(const iso_evaluation *e, const char *key, const iso_few_mean *mean, const iso_few_row *row, int rows, int sizes)
{
    printf(",\"%s\":{\"sets\":[", key);
    for (int s = 0; s < sizes; s++) printf("%s%d", s ? "," : "", mean[s].rows);
    putchar(']');
    json_array("precision", &mean->mean, sizeof *mean, sizes);
    json_array("standard_error", &mean->error, sizeof *mean, sizes);
    fputs(",\"rows\":[", stdout);
    for (int i = 0; i < rows; i++) {
        fputs(i ? ",{\"attributes\":[" : "{\"attributes\":[", stdout);
        json_name(e, row[i].a);
        if (row[i].b >= 0) putchar(','), json_name(e, row[i].b);
        printf("],\"examples\":%" PRId64 ",\"relevant\":%" PRId64, row[i].queries, row[i].relevant);
        json_array("precision", row[i].mean, sizeof *row[i].mean, sizes);
        json_array("standard_deviation", row[i].deviation, sizeof *row[i].deviation, sizes);
        putchar('}');
    }
    fputs("]}", stdout);
}

/* A figure is null where an attribute has fewer than n examples, or these no direction. */
static void json_few(const iso_evaluation *e, const iso_few *f)
{
    const iso_few_options *o = &f->options;
    printf(",\"few\":{\"k\":%d,\"draws\":%d,\"seed\":%" PRIu64 ",\"n\":[", ISO_FEW_K, o->draws, o->seed);
    for (int s = 0; s < o->sizes; s++) printf("%s%" PRId64, s ? "," : "", o->size[s]);
    putchar(']');
    json_few_half(e, "single", f->single_mean, f->single, f->singles, o->sizes);
    json_few_half(e, "double", f->double_mean, f->dbl, f->doubles, o->sizes);
    putchar('}');
}

void iso_evaluate_json(const char *path, const char *scorer, const iso_evaluation *e, const iso_precision *p, const iso_few *f)
{
    printf("{\"schema_version\":1,\"protocol\":\"precision\",\"model\":\"%s\",\"scorer\":\"%s\",", e->digest, scorer);
    iso_text_json_path(stdout, "db", path);
    printf(",\"query\":{\"part\":%d,\"images\":%" PRId64 "},\"test\":{\"part\":%d,\"images\":%" PRId64 "},", e->query.part, e->query.count, e->test.part, e->test.count);
    printf("\"items\":%" PRId64 ",\"items_without_row\":%" PRId64 ",\"items_without_part\":%" PRId64 ",\"items_doubled\":%" PRId64 ",\"rows\":%" PRId64 ",\"rows_without_item\":%" PRId64 ",", e->matches.items,
           e->matches.items_without_row, e->matches.items_without_part, e->matches.items_doubled, e->matches.rows, e->matches.rows_without_item);
    printf("\"k\":[%d,%d,%d,%d],\"single\":{\"sets\":%d,", iso_precision_k[0], iso_precision_k[1], iso_precision_k[2], iso_precision_k[3], p->single_sets);
    json_figures(p->single_chance, p->single_mean);
    fputs(",\"rows\":[", stdout);
    json_rows(e, p->single, p->singles);
    printf("]},\"double\":{\"sets\":%d,", p->double_sets);
    json_figures(p->double_chance, p->double_mean);
    fputs(",\"rows\":[", stdout);
    json_rows(e, p->dbl, p->doubles);
    fputs("]},\"left_out\":[", stdout);
    for (int i = 0; i < p->left_out; i++) {
        fputs(i ? "," : "", stdout);
        json_name(e, p->left[i]);
    }
    putchar(']');
    if (f) json_few(e, f);
    puts("}");
}
