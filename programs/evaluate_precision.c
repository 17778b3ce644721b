/* evaluate precision: single- and double-attribute retrieval over a database. */
#include <inttypes.h>
#include <math.h>
#include <omp.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/args.h"
#include "base/file.h"
#include "base/text.h"
#include "eval/evaluate.h"
#include "programs/evaluate.h"

static const char program[] = "evaluate precision";

typedef struct config {
    const char *db, *attributes, *partition, *images, *scorer, *format;
    int64_t split, query_split, threads;
    bool per_attribute, quiet;
    char *own_attributes, *own_partition; /* found by --images */
} config;

static const iso_option options[] = {
    {"db", 0, ISO_ARG_TEXT, offsetof(config, db), "DB", "the database (default: $ISOFACE_DB)", 0, 0},
    {"attributes", 0, ISO_ARG_TEXT, offsetof(config, attributes), "FILE", "which image has which attribute: list_attr_celeba.txt", 0, 0},
    {"partition", 0, ISO_ARG_TEXT, offsetof(config, partition), "FILE", "which image trains, validates, tests: list_eval_partition.txt", 0, 0},
    {"images", 0, ISO_ARG_TEXT, offsetof(config, images), "DIR", "the data set: both files from this folder", 0, 0},
    {"split", 0, ISO_ARG_INT, offsetof(config, split), "N", "the part that is ranked (default: 2, the test images)", 0, 2},
    {"query-split", 0, ISO_ARG_INT, offsetof(config, query_split), "N", "the part that the examples come from (default: 0, the training images)", 0, 2},
    {"scorer", 0, ISO_ARG_CHOICE, offsetof(config, scorer), "sum", "sum: summed cosine to the examples (default)", 0, 0},
    {"per-attribute", 0, ISO_ARG_FLAG, offsetof(config, per_attribute), NULL, "also a line for each attribute", 0, 0},
    {"format", 0, ISO_ARG_CHOICE, offsetof(config, format), "table|json", "how to print (default: table)", 0, 0},
    {"threads", 0, ISO_ARG_INT, offsetof(config, threads), "N", "threads to use (default: all)", 1, 1024},
    {"quiet", 0, ISO_ARG_FLAG, offsetof(config, quiet), NULL, "no notes on stderr", 0, 0},
    {NULL, 0, 0, 0, NULL, NULL, 0, 0}};

static const iso_command command = {
    program,
    "evaluate precision --db DB --attributes FILE --partition FILE [options]",
    "For each attribute, the training images that have it are the examples and the test images are ranked. P@K is the share of "
    "the first K that have it, in per cent, averaged over the attributes; chance is the share of all test images that have it, "
    "which a random order would reach. Pairs of attributes likewise, for pairs that more than 1 % and less than 50 % of the "
    "test images have. An attribute that no training or no test image has is left out and named.",
    options,
    "Exit codes: 0 done; 1 failed; 2 wrong usage.\n"
    "Example: evaluate precision --db faces.db --images faces/ --per-attribute"};

static const char *const part_name[] = {"training", "validation", "test"};

static iso_status usage(iso_error *err, const char *what) { return iso_fail(err, ISO_E_ARGUMENT, "%s (see --help)", what); }

/* Both files, each from its option or from the data set's folder. */
static iso_status find_files(config *c, iso_error *err)
{
    if (c->images) {
        c->own_attributes = iso_path_join(c->images, "list_attr_celeba.txt");
        c->own_partition = iso_path_join(c->images, "list_eval_partition.txt");
        if (!c->own_attributes || !c->own_partition) return iso_fail_memory(err);
        if (!c->attributes) c->attributes = c->own_attributes;
        if (!c->partition) c->partition = c->own_partition;
    }
    if (!c->db || !c->db[0]) c->db = getenv("ISOFACE_DB");
    if (!c->db || !c->db[0]) return usage(err, "no database: give --db DB or set ISOFACE_DB");
    if (!c->attributes) return usage(err, "no attributes: give --attributes FILE, or --images DIR for both files");
    if (!c->partition) return usage(err, "no partition: give --partition FILE, or --images DIR for both files");
    return ISO_OK;
}

/* ---- what the database and the files do not share, and what is left out ---- */

static void print_notes(const iso_evaluation *e, const iso_precision *p)
{
    if (e->items_without_row)
        fprintf(stderr, "%s: %" PRId64 " of the database's %" PRId64 " images are not in the attribute file\n", program, e->items_without_row, e->items);
    if (e->items_without_part) fprintf(stderr, "%s: %" PRId64 " images are not in the partition file\n", program, e->items_without_part);
    if (e->rows_without_item)
        fprintf(stderr, "%s: %" PRId64 " of the attribute file's %" PRId64 " rows have no image in the database\n", program, e->rows_without_item, e->rows);
    if (!p->left_out) return;
    fprintf(stderr, "%s: left out, as no %s or no %s image has it:", program, part_name[e->query.part], part_name[e->test.part]);
    for (int i = 0; i < p->left_out; i++) {
        char *name = iso_text_printable(e->name[p->left[i]]);
        fprintf(stderr, "%s %s", i ? "," : "", name ? name : "?");
        free(name);
    }
    fputc('\n', stderr);
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

/* Letters, not bytes: names may be UTF-8. */
static int letters(const char *s)
{
    int n = 0;
    for (; *s; s++) n += (*s & 0xC0) != 0x80;
    return n;
}

static void print_attributes(const iso_evaluation *e, const iso_precision *p)
{
    int width = 24;
    for (int i = 0; i < p->singles; i++)
        if (letters(e->name[p->single[i].a]) + 2 > width) width = letters(e->name[p->single[i].a]) + 2;
    printf("\n%-*s%9s%9s", width, "attribute", "examples", "relevant");
    print_columns();
    for (int i = 0; i < p->singles; i++) {
        const iso_precision_row *row = p->single + i;
        char *name = iso_text_printable(e->name[row->a]);
        printf("%s%*s%9" PRId64 "%9" PRId64, name ? name : "?", width - letters(name ? name : "?"), "", row->queries, row->relevant);
        free(name);
        print_figures(row->chance, row->at);
    }
}

static void print_table(const config *c, const iso_evaluation *e, const iso_precision *p)
{
    char *db = iso_text_printable(c->db);
    printf("database %s, model %.8s, scorer %s\n", db ? db : "?", e->digest, c->scorer);
    free(db);
    printf("examples from %" PRId64 " %s images, ranked %" PRId64 " %s images; figures in %%\n\n", e->query.count, part_name[e->query.part], e->test.count,
           part_name[e->test.part]);
    printf("%-24s%9s%9s", "averaged over", "", "sets");
    print_columns();
    printf("%-24s%9s%9d", "single attributes (SAR)", "", p->singles);
    print_figures(p->single_chance, p->single_mean);
    printf("%-24s%9s%9d", "double attributes (DAR)", "", p->doubles);
    print_figures(p->double_chance, p->double_mean);
    if (c->per_attribute) print_attributes(e, p);
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

static void print_json(const config *c, const iso_evaluation *e, const iso_precision *p)
{
    printf("{\"schema_version\":1,\"protocol\":\"precision\",\"model\":\"%s\",\"scorer\":\"%s\",", e->digest, c->scorer);
    iso_text_json_path(stdout, "db", c->db);
    printf(",\"query\":{\"part\":%d,\"images\":%" PRId64 "},\"test\":{\"part\":%d,\"images\":%" PRId64 "},", e->query.part, e->query.count, e->test.part, e->test.count);
    printf("\"items\":%" PRId64 ",\"items_without_row\":%" PRId64 ",\"items_without_part\":%" PRId64 ",\"rows\":%" PRId64 ",\"rows_without_item\":%" PRId64 ",", e->items,
           e->items_without_row, e->items_without_part, e->rows, e->rows_without_item);
    printf("\"k\":[%d,%d,%d,%d],\"single\":{\"sets\":%d,", iso_precision_k[0], iso_precision_k[1], iso_precision_k[2], iso_precision_k[3], p->singles);
    json_figures(p->single_chance, p->single_mean);
    fputs(",\"rows\":[", stdout);
    json_rows(e, p->single, p->singles);
    printf("]},\"double\":{\"sets\":%d,", p->doubles);
    json_figures(p->double_chance, p->double_mean);
    fputs(",\"rows\":[", stdout);
    json_rows(e, p->dbl, p->doubles);
    fputs("]},\"left_out\":[", stdout);
    for (int i = 0; i < p->left_out; i++) {
        fputs(i ? "," : "", stdout);
        json_name(e, p->left[i]);
    }
    puts("]}");
}

static iso_status evaluate(config *c, iso_error *err)
{
    iso_store *store = NULL;
    iso_evaluation *e = NULL;
    iso_precision *p = NULL;
    iso_status status = find_files(c, err);
    if (status) goto done;
    if ((status = iso_store_open(c->db, ISO_STORE_READ, NULL, &store, err))) goto done;
    if ((status = iso_evaluation_load(store, c->attributes, c->partition, (int)c->query_split, (int)c->split, &e, err))) goto done;
    if ((status = iso_evaluation_precision(e, &p, err))) goto done;
    if (!c->quiet) print_notes(e, p);
    if (p->singles == 0) {
        status = iso_fail(err, ISO_E_MISMATCH, "no attribute has both a %s image, as an example, and a %s image, to be found", part_name[e->query.part], part_name[e->test.part]);
        goto done;
    }
    if (strcmp(c->format, "json") == 0) print_json(c, e, p);
    else print_table(c, e, p);
    if (fflush(stdout) || ferror(stdout)) status = iso_fail_errno(err, "cannot write the results");
done:
    iso_precision_free(p);
    iso_evaluation_free(e);
    iso_store_close(store);
    return status;
}

int iso_evaluate_precision(int argc, char **argv)
{
    config c = {.split = 2, .query_split = 0, .scorer = "sum", .format = "table"};
    int code = iso_args_parse(&command, argc, argv, 2, &c, NULL);
    if (code != ISO_ARGS_RUN) return code;
    if (c.threads > 0) omp_set_num_threads((int)c.threads);
    iso_error err = {0};
    iso_status status = evaluate(&c, &err);
    free(c.own_attributes), free(c.own_partition);
    return iso_exit(program, status, &err);
}
