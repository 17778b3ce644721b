/* retrieve: which images of a database share what the examples share. */
#include <inttypes.h>
#include <omp.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "base/args.h"
#include "base/memory.h"
#include "base/progress.h"
#include "base/text.h"
#include "retriever/answer.h"
#include "retriever/examples.h"
#include "retriever/scorer.h"
#include "retriever/sheet.h"

static const char program[] = "retrieve";

typedef struct config {
    iso_list query, query_id, not, not_id;
    const char *db, *scorer, *sheet, *format;
    int64_t k, threads;
    double gamma;
    bool exclude, nul, relative, quiet, strict;
} config;

static const iso_option options[] = {
    {"query", 'q', ISO_ARG_LIST, offsetof(config, query), "PATH", "example images, or folders of them", 0, 0},
    {"query-id", 0, ISO_ARG_LIST, offsetof(config, query_id), "N", "items of the database as examples, by id", 0, 0},
    {"not", 0, ISO_ARG_LIST, offsetof(config, not), "PATH", "counter-examples: images or folders to be unlike", 0, 0},
    {"not-id", 0, ISO_ARG_LIST, offsetof(config, not_id), "N", "items as counter-examples, by id", 0, 0},
    {"k", 'k', ISO_ARG_INT, offsetof(config, k), "K", "how many answers (default: 10)", 1, 1e12},
    {"db", 0, ISO_ARG_TEXT, offsetof(config, db), "DB", "the database (default: $ISOFACE_DB)", 0, 0},
    {"gamma", 0, ISO_ARG_REAL, offsetof(config, gamma), "X", "weight of the counter-examples (default: 0.5)", 0, ISO_GAMMA_MAX},
    {"scorer", 0, ISO_ARG_CHOICE, offsetof(config, scorer), "auto|sum|contrast", "how images are compared, see above (default: auto)", 0, 0},
    {"exclude-query", 0, ISO_ARG_FLAG, offsetof(config, exclude), NULL, "leave out the examples themselves and exact copies of them", 0, 0},
    {"format", 0, ISO_ARG_CHOICE, offsetof(config, format), "table|tsv|json|paths", "how to print (default: table)", 0, 0},
    {"null", '0', ISO_ARG_FLAG, offsetof(config, nul), NULL, "paths, each ended by a NUL byte, as xargs -0 reads them", 0, 0},
    {"relative", 0, ISO_ARG_FLAG, offsetof(config, relative), NULL, "paths as stored, relative to the encoded folder", 0, 0},
    {"sheet", 0, ISO_ARG_TEXT, offsetof(config, sheet), "OUT", "also write a contact sheet: OUT.png or OUT.html", 0, 0},
    {"strict", 0, ISO_ARG_FLAG, offsetof(config, strict), NULL, "fail when an example cannot be used", 0, 0},
    {"threads", 0, ISO_ARG_INT, offsetof(config, threads), "N", "threads to use (default: all)", 1, 1024},
    {"quiet", 0, ISO_ARG_FLAG, offsetof(config, quiet), NULL, "no warnings", 0, 0},
    {NULL, 0, 0, 0, NULL, NULL, 0, 0}};

static const iso_command command = {
    program,
    "retrieve --query DIR|FILE... [--not DIR|FILE...] -k 10 --db DB [options]",
    "Finds the images of a database that share what the examples share.\n"
    "--scorer sum compares images as wholes: the score of an image is its mean cosine to the examples, minus gamma times its "
    "mean cosine to the counter-examples. Right where the examples are alike altogether, such as several pictures of one scene.\n"
    "--scorer contrast asks what sets the examples apart from the rest of the database and ignores what most images have in "
    "common: the score is by how many standard deviations of the database an image lies in that direction (0: average). Right "
    "where many examples differ but share one trait. Needs a database in which most images lack it.\n"
    "--scorer auto is contrast from 20 examples on (sum where contrast finds no direction), and sum below.\n"
    "Examples are JPEG or PNG, of up to 104 megapixels; others are skipped and listed on stderr. "
    "One that is in the database, under whatever name, is not encoded again. The examples are answers like any "
    "other unless --exclude-query is given.\n"
    "A search index that is missing or far behind is built first, once: a large one takes minutes, and a line on stderr says so. "
    "`indexer reindex` does it beforehand.",
    options,
    "Formats: table is for people. tsv prints rank, id, score and path, without a heading; tab, newline, carriage return and "
    "backslash in a path are written \\t, \\n, \\r and \\\\. json prints one object; a path that is not UTF-8 has its bytes "
    "in base64 as path_bytes. paths prints one path a line.\n"
    "Behind --query -- (or --not, ...) options have ended: what follows are paths, whatever they begin with.\n"
    "Exit codes: 0 done, also when examples were skipped (they are listed on stderr) or the database has fewer than K "
    "images; 1 failed; 2 wrong usage.\n"
    "Example: retrieve --query smiling/ --not glasses/ -k 20 --db faces.db --sheet answer.png"};

static iso_status usage(iso_error *err, const char *what) { return iso_fail(err, ISO_E_ARGUMENT, "%s (see --help)", what); }

static iso_status check(config *c, iso_error *err)
{
    iso_status status = iso_args_db(&c->db, err);
    if (status) return status;
    if (!c->query.count && !c->query_id.count) return usage(err, "no examples: give --query or --query-id");
    if (c->nul && c->format && strcmp(c->format, "paths") != 0) return usage(err, "-0 goes with --format paths only");
    if (!c->format) c->format = c->nul ? "paths" : "table";
    return c->sheet ? iso_sheet_check(c->sheet, err) : ISO_OK;
}

static iso_status add_examples(iso_query *q, iso_sign sign, const iso_list *paths, const iso_list *ids, iso_error *err)
{
    iso_status st = ISO_OK;
    for (size_t i = 0; st == ISO_OK && i < paths->count; i++) st = iso_query_add_path(q, sign, paths->item[i], err);
    for (size_t i = 0; st == ISO_OK && i < ids->count; i++) {
        uint64_t id = 0;
        if (!iso_args_id(ids->item[i], &id)) return iso_fail(err, ISO_E_ARGUMENT, "'%s' is not the id of an item: a whole number is wanted", ids->item[i]);
        st = iso_query_add_id(q, sign, id, err);
    }
    return st;
}

static iso_status list_skipped(const config *c, const iso_query *q, iso_error *err)
{
    int64_t n = iso_query_skipped(q);
    for (int64_t i = 0; i < n && !c->quiet; i++) {
        const char *path, *reason;
        iso_query_skip(q, i, &path, &reason);
        char *text = iso_text_printable(path);
        if (!text) return iso_fail_memory(err);
        fprintf(stderr, "%s: skipped %s: %s\n", program, text, reason);
        free(text);
    }
    if (!c->strict || n == 0) return ISO_OK;
    const char *path, *reason;
    iso_query_skip(q, 0, &path, &reason);
    return iso_fail(err, ISO_E_FORMAT, "%" PRId64 " example%s could not be used, and --strict was given; the first: %.500s: %.300s", n, n == 1 ? "" : "s", path, reason);
}

/* ---- the sheet ---- */

static const char *last_part(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash && slash[1] ? slash + 1 : path;
}

/* The folder's or file's own name, whatever slashes follow it. */
static char *short_name(const char *path)
{
    size_t n = strlen(path);
    while (n > 1 && path[n - 1] == '/') n--;
    char *whole = iso_strndup(path, n), *name = NULL;
    if (whole) name = iso_strndup(last_part(whole), strlen(last_part(whole)));
    free(whole);
    return name;
}

static iso_sheet_image *example_images(const iso_query *q, iso_sign sign, size_t *n)
{
    *n = (size_t)iso_query_count(q, sign);
    iso_sheet_image *images = iso_calloc(*n, sizeof *images);
    for (size_t i = 0; images && i < *n; i++) {
        images[i].file = iso_query_file(q, sign, (int64_t)i);
        images[i].name = images[i].file ? last_part(images[i].file) : "";
    }
    return images;
}

/* What the scores of the sheet are. */
static char *sheet_note(const config *c, const iso_db *db, const iso_answer *a, const iso_sheet *s)
{
    bool sum = iso_answer_scorer(a) == ISO_SUM;
    const char *plural = s->likes == 1 ? "" : "s";
    char *note = NULL, *against = s->unlikes ? iso_format(", less %g times %s %zu counter-example%s", c->gamma, sum ? "that to" : "those to", s->unlikes,
                                                          s->unlikes == 1 ? "" : "s")
                                             : iso_format("%s", "");
    char *by = sum ? iso_format("mean cosine to %zu example%s", s->likes, plural)
                   : iso_format("contrast: standard deviations towards %zu example%s", s->likes, plural);
    if (against && by)
        note = iso_format("Isoface: the best %zu of %" PRIu64 " images by %s%s; model %.8s", s->results, iso_db_count(db), by, against, iso_db_digest(db));
    free(against);
    free(by);
    return note;
}

static iso_status write_sheet(const config *c, const iso_db *db, const iso_query *q, const iso_answer *a, iso_error *err)
{
    iso_sheet s = {.results = (size_t)iso_answer_count(a)};
    iso_sheet_image *like = example_images(q, ISO_LIKE, &s.likes), *unlike = example_images(q, ISO_UNLIKE, &s.unlikes);
    iso_sheet_image *result = iso_calloc(s.results, sizeof *result);
    size_t given = c->query.count + c->query_id.count;
    char *name = c->query.count ? short_name(c->query.item[0]) : iso_format("item %s", c->query_id.item[0]);
    char *title = name ? given > 1 ? iso_format("Like %s and %zu more", name, given - 1) : iso_format("Like %s", name) : NULL;
    char *note = sheet_note(c, db, a, &s);
    iso_status st = ISO_OK;
    if (!like || !unlike || !result || !title || !note) st = iso_fail_memory(err);
    for (size_t i = 0; st == ISO_OK && i < s.results; i++) {
        const iso_result *r = iso_answer_result(a, (int64_t)i);
        result[i] = (iso_sheet_image){r->file, last_part(r->path), r->score};
    }
    s.title = title;
    s.note = note;
    s.like = like;
    s.unlike = unlike;
    s.result = result;
    if (st == ISO_OK) st = iso_sheet_write(&s, c->sheet, err);
    free(like);
    free(unlike);
    free(result);
    free(name);
    free(title);
    free(note);
    return st;
}

static iso_status run(config *c, iso_error *err)
{
    iso_db *db = NULL;
    iso_query *q = NULL;
    iso_answer *a = NULL;
    iso_progress progress;
    const iso_index_talk talk = {&progress, program, "; `indexer reindex` does that beforehand"};
    iso_progress_open(&progress, c->quiet);
    iso_status st = iso_db_open_telling(c->db, c->quiet ? NULL : &talk, &db, err);
    iso_progress_end(&progress);
    if (st != ISO_OK) return st;
    if (iso_db_note(db) && !c->quiet) fprintf(stderr, "%s: %s\n", program, iso_db_note(db));
    st = iso_query_create(db, &q, err);
    if (st == ISO_OK) q->progress = &progress;
    if (st == ISO_OK) st = add_examples(q, ISO_LIKE, &c->query, &c->query_id, err);
    if (st == ISO_OK) st = add_examples(q, ISO_UNLIKE, &c->not, &c->not_id, err);
    if (st == ISO_OK) st = iso_query_read(q, err);
    iso_progress_end(&progress);
    if (st == ISO_OK) st = list_skipped(c, q, err);
    if (st == ISO_OK) st = iso_query_run_settled(q, &(iso_query_options){.k = c->k, .scorer = (iso_scoring)iso_scorer_by_name(c->scorer), .gamma = c->gamma, .exclude_query = c->exclude}, &a, err);
    if (st == ISO_OK && iso_interrupted()) st = iso_fail(err, ISO_E_INTERRUPTED, "interrupted");
    if (st != ISO_OK) goto done;
    int64_t n = iso_answer_count(a);
    if (n < c->k && !c->quiet) fprintf(stderr, "%s: the database has only %" PRId64 " image%s to answer with, fewer than the %" PRId64 " asked for\n", program, n, n == 1 ? "" : "s", c->k);
    iso_report report = {db, q, a, c->relative};
    st = iso_report_print(&report, c->format, c->nul, stdout, err);
    if (st == ISO_OK && c->sheet) st = write_sheet(c, db, q, a, err);
done:
    iso_answer_free(a);
    iso_query_free(q);
    iso_db_close(db);
    return st;
}

int main(int argc, char **argv)
{
    config c = {.k = 10, .gamma = 0.5, .scorer = "auto"};
    iso_error err = {0};
    signal(SIGXFSZ, SIG_IGN); /* a file size limit is an error to report, not to die of */
    int code = iso_args_parse(&command, argc, argv, 1, &c, NULL);
    if (code == ISO_ARGS_RUN) {
        iso_interrupt_install();
        iso_status st = check(&c, &err);
        if (c.threads) omp_set_num_threads((int)c.threads);
        if (st == ISO_OK) st = run(&c, &err);
        code = iso_exit(program, st, &err);
    }
    iso_list_free(&c.query);
    iso_list_free(&c.query_id);
    iso_list_free(&c.not);
    iso_list_free(&c.not_id);
    return code;
}
