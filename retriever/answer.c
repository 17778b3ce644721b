#include "retriever/answer.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"
#include "retriever/scorer.h"

static const char *shown_path(const iso_report *r, const iso_result *result) { return r->relative ? result->path : result->file; }

static void print_examples(const iso_report *r, FILE *out)
{
    int64_t likes = iso_query_count(r->query, ISO_LIKE), unlikes = iso_query_count(r->query, ISO_UNLIKE), skips = iso_query_skipped(r->query);
    fprintf(out, "%" PRId64 " example%s", likes, likes == 1 ? "" : "s");
    if (unlikes) fprintf(out, ", %" PRId64 " counter-example%s", unlikes, unlikes == 1 ? "" : "s");
    if (skips) fprintf(out, " (%" PRId64 " skipped)", skips);
}

static iso_status print_table(const iso_report *r, FILE *out, iso_error *err)
{
    int64_t n = iso_answer_count(r->answer);
    print_examples(r, out);
    fprintf(out, ": the best %" PRId64 " of %" PRIu64 " images%s%s\n", n, iso_db_count(r->db),
            iso_answer_scorer(r->answer) == ISO_CONTRAST ? " by contrast, in standard deviations of the database" : "",
            iso_answer_exact(r->answer) ? "" : " (approximate index)");
    fprintf(out, "%6s  %7s  %s\n", "rank", "score", "path");
    for (int64_t i = 0; i < n; i++) {
        const iso_result *x = iso_answer_result(r->answer, i);
        char *path = iso_text_printable(shown_path(r, x));
        if (!path) return iso_fail_memory(err);
        fprintf(out, "%6" PRId64 "  %7.4f  %s\n", i + 1, x->score, path);
        free(path);
    }
    return ISO_OK;
}

static void print_tsv(const iso_report *r, FILE *out)
{
    for (int64_t i = 0; i < iso_answer_count(r->answer); i++) {
        const iso_result *x = iso_answer_result(r->answer, i);
        const char *path = shown_path(r, x);
        fprintf(out, "%" PRId64 "\t%" PRIu64 "\t%.9g\t", i + 1, x->id, x->score);
        iso_text_tsv(out, path, strlen(path));
        putc('\n', out);
    }
}

static void print_json(const iso_report *r, FILE *out)
{
    fputs("{\"schema_version\": 1, \"model\": ", out);
    iso_text_json(out, iso_db_digest(r->db), strlen(iso_db_digest(r->db)));
    fputs(", \"scorer\": ", out);
    iso_text_json(out, iso_scorer_name(iso_answer_scorer(r->answer)), strlen(iso_scorer_name(iso_answer_scorer(r->answer))));
    fprintf(out, ",\n \"query\": {\"images\": %" PRId64 ", \"negatives\": %" PRId64 ", \"skipped\": [", iso_query_count(r->query, ISO_LIKE),
            iso_query_count(r->query, ISO_UNLIKE));
    for (int64_t i = 0; i < iso_query_skipped(r->query); i++) {
        const char *path, *reason;
        iso_query_skip(r->query, i, &path, &reason);
        fputs(i ? ",\n  {" : "\n  {", out);
        iso_text_json_path(out, "path", path);
        fputs(", \"reason\": ", out);
        iso_text_json(out, reason, strlen(reason));
        putc('}', out);
    }
    fprintf(out, "]},\n \"exact\": %s,\n \"results\": [", iso_answer_exact(r->answer) ? "true" : "false");
    for (int64_t i = 0; i < iso_answer_count(r->answer); i++) {
        const iso_result *x = iso_answer_result(r->answer, i);
        fprintf(out, "%s\n  {\"rank\": %" PRId64 ", \"id\": %" PRIu64 ", ", i ? "," : "", i + 1, x->id);
        iso_text_json_path(out, "path", shown_path(r, x));
        fputs(", \"score\": ", out);
        iso_text_json_number(out, x->score);
        putc('}', out);
    }
    fputs("]}\n", out);
}

static void print_paths(const iso_report *r, bool nul, FILE *out)
{
    for (int64_t i = 0; i < iso_answer_count(r->answer); i++) {
        fputs(shown_path(r, iso_answer_result(r->answer, i)), out);
        putc(nul ? '\0' : '\n', out);
    }
}

iso_status iso_report_print(const iso_report *r, const char *format, bool nul, FILE *out, iso_error *err)
{
    iso_status st = ISO_OK;
    if (strcmp(format, "table") == 0) st = print_table(r, out, err);
    else if (strcmp(format, "tsv") == 0) print_tsv(r, out);
    else if (strcmp(format, "json") == 0) print_json(r, out);
    else if (strcmp(format, "paths") == 0) print_paths(r, nul, out);
    else return iso_fail(err, ISO_E_ARGUMENT, "unknown format '%s': use table, tsv, json or paths", format);
    if (st != ISO_OK) return st;
    errno = 0;
    if (fflush(out) != 0 || ferror(out)) {
        if (errno) return iso_fail_errno(err, "cannot write the answer");
        return iso_fail(err, ISO_E_IO, "cannot write the answer");
    }
    return ISO_OK;
}
