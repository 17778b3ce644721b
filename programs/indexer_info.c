/* indexer info: what a database holds. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "base/args.h"
#include "base/file.h"
#include "base/text.h"
#include "indexer/model_copy.h"
#include "programs/indexer.h"
#include "retriever/search.h"

typedef struct config {
    const char *db, *format;
    bool quiet;
} config;

#define AT(field) offsetof(config, field)
static const iso_option options[] = {
    {"db", 0, ISO_ARG_TEXT, AT(db), "DB", "the database (default: $ISOFACE_DB)", 0, 0},
    {"format", 0, ISO_ARG_CHOICE, AT(format), "table|tsv|json", "how to print it (default: table)", 0, 0},
    {"quiet", 'q', ISO_ARG_FLAG, AT(quiet), NULL, "no warnings", 0, 0},
    {NULL, 0, ISO_ARG_FLAG, 0, NULL, NULL, 0, 0},
};

static const iso_command command = {
    "indexer info",
    "indexer info --db DB [--format table|tsv|json]",
    "Prints how many items a database holds, of which model and folder, and the state of its vector index.",
    options,
    NULL,
};

/* One field after another: a name, then text or a number. */
typedef struct printer { char format; bool any; } printer; /* 't'able, 's' (tsv), 'j'son */

static void begin(printer *p, const char *name)
{
    if (p->format == 'j') printf("%s\"%s\": ", p->any ? ", " : "{", name);
    else if (p->format == 's') printf("%s\t", name);
    else printf("%-14s", name);
    p->any = true;
}

static void end(const printer *p)
{
    if (p->format != 'j') putchar('\n');
}

static void text(printer *p, const char *name, const char *value)
{
    begin(p, name);
    if (p->format == 'j') iso_text_json(stdout, value, strlen(value));
    else if (p->format == 's') iso_text_tsv(stdout, value, strlen(value));
    else iso_text_show(stdout, value, strlen(value));
    end(p);
}

static void path(printer *p, const char *name, const char *value)
{
    if (p->format != 'j') {
        text(p, name, value);
        return;
    }
    fputs(p->any ? ", " : "{", stdout);
    iso_text_json_path(stdout, name, value);
    p->any = true;
}

static void number(printer *p, const char *name, uint64_t value)
{
    begin(p, name);
    printf("%" PRIu64, value);
    end(p);
}

/* What the model's file says as text: a number to JSON where it is one. */
static void quantity(printer *p, const char *name, const char *value)
{
    char *rest;
    const double x = strtod(value, &rest);
    if (p->format != 'j' || rest == value || *rest || !isfinite(x)) {
        text(p, name, value);
        return;
    }
    begin(p, name);
    iso_text_json_number(stdout, x);
    end(p);
}

static void moment(printer *p, const char *name, uint64_t seconds)
{
    char buf[64] = "?";
    time_t t = (time_t)seconds;
    struct tm tm;
    if (gmtime_r(&t, &tm)) strftime(buf, sizeof buf, "%Y-%m-%dT%H:%M:%SZ", &tm);
    text(p, name, buf);
}

static iso_status size_of(printer *p, const char *db, iso_error *err)
{
    struct stat st;
    char *file = iso_path_join(db, "data.mdb");
    if (!file) return iso_fail_memory(err);
    if (!stat(file, &st)) number(p, "bytes", (uint64_t)st.st_size);
    free(file);
    return ISO_OK;
}

/* How the model came to be, as far as its file says: not that of another model, which is no model of these vectors. */
static iso_status model(printer *p, const config *c, const iso_store *s, const iso_store_info *info, iso_error *err)
{
    static const char *const keys[] = {"method", "attributes"};
    iso_model *m = NULL;
    if (!info->model[0]) {
        text(p, "vectors", "imported");
        return ISO_OK;
    }
    iso_status status = iso_model_copy_load(s, info, &m, err);
    if (status == ISO_OK) {
        const iso_net *net = iso_model_net(m);
        text(p, "architecture", iso_arch_name(net->arch));
        if (net->arch == ISO_ARCH_CELEBA) number(p, "width", (uint64_t)net->width);
        if (net->classes) number(p, "classes", (uint64_t)net->classes);
        number(p, "flow_depth", (uint64_t)net->flow_depth);
        if (net->whitened) text(p, "whitened", "yes");
        if (iso_model_meta(m, "whiten.shrinkage")) quantity(p, "shrinkage", iso_model_meta(m, "whiten.shrinkage"));
        for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
            if (iso_model_meta(m, keys[i])) text(p, keys[i], iso_model_meta(m, keys[i]));
        if (iso_model_meta(m, "alpha")) quantity(p, "alpha", iso_model_meta(m, "alpha"));
    } else if (status != ISO_E_MEMORY && !c->quiet) fprintf(stderr, "%s: %s\n", command.program, err->message);
    iso_model_free(m);
    return status == ISO_E_MEMORY ? status : ISO_OK;
}

static iso_status vector_index(printer *p, const config *c, iso_store *s, iso_error *err)
{
    iso_vindex_info info;
    bool current;
    iso_status status = iso_index_info_get(s, &info, &current, err);
    if (status == ISO_E_MEMORY) return status;
    text(p, "index", status == ISO_OK ? info.kind : status == ISO_E_NOT_FOUND ? "none yet" : "unusable");
    if (!status) {
        number(p, "indexed", (uint64_t)info.count);
        text(p, "index_state", current ? "current" : "older than the last change");
        if (info.approximate) {
            begin(p, "recall_at_10");
            iso_text_json_number(stdout, info.recall);
            end(p);
            begin(p, "recall_least");
            iso_text_json_number(stdout, info.least);
            end(p);
        }
    } else if (status != ISO_E_NOT_FOUND && !c->quiet) fprintf(stderr, "%s: %s\n", command.program, err->message);
    return ISO_OK;
}

static iso_status print(const config *c, iso_store *s, const iso_store_info *info, const char *root, iso_error *err)
{
    printer p = {.format = !strcmp(c->format, "json") ? 'j' : !strcmp(c->format, "tsv") ? 's' : 't'};
    iso_status status;
    if (p.format == 'j') number(&p, "schema_version", 1);
    path(&p, "db", c->db);
    path(&p, "images", root);
    number(&p, "items", info->count);
    number(&p, "dim", (uint64_t)info->dim);
    text(&p, "model", info->digest);
    if ((status = model(&p, c, s, info, err))) return status;
    if ((status = vector_index(&p, c, s, err))) return status;
    moment(&p, "created", info->created);
    moment(&p, "updated", info->updated);
    number(&p, "next_id", info->next_id);
    number(&p, "generation", info->generation);
    if ((status = size_of(&p, c->db, err))) return status;
    if (p.format == 'j') puts("}");
    return iso_indexer_flush(err);
}

static iso_status run(config *c, iso_error *err)
{
    iso_store *s = NULL;
    iso_txn *t = NULL;
    iso_store_info info;
    char *root = NULL;
    iso_status status = iso_args_db(&c->db, err);
    if (!status) status = iso_store_open(c->db, ISO_STORE_READ, NULL, &s, err);
    if (!status) status = iso_txn_begin(s, false, &t, err);
    if (!status) status = iso_store_root(t, &root, err);
    if (!status) info = iso_store_info_get(t);
    iso_txn_abort(t);
    if (!status) status = print(c, s, &info, root, err);
    iso_store_close(s);
    free(root);
    return status;
}

int iso_indexer_info(int argc, char **argv)
{
    config c = {.format = "table"};
    iso_error err = {0};
    int code = iso_args_parse(&command, argc, argv, 2, &c, NULL);
    return code != ISO_ARGS_RUN ? code : iso_exit(command.program, run(&c, &err), &err);
}
