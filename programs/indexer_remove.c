/* indexer remove: items out of a database, all of those named or none. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/args.h"
#include "base/memory.h"
#include "base/progress.h"
#include "base/text.h"
#include "indexer/image.h"
#include "indexer/store.h"
#include "programs/indexer.h"

typedef struct config {
    const char *db;
    iso_list id, path;
    bool missing, force, dry_run, quiet;
} config;

#define AT(field) offsetof(config, field)
static const iso_option options[] = {
    {"db", 0, ISO_ARG_TEXT, AT(db), "DB", "the database (default: $ISOFACE_DB)", 0, 0},
    {"id", 0, ISO_ARG_LIST, AT(id), "N", "items by their ids", 0, 0},
    {"path", 0, ISO_ARG_LIST, AT(path), "PATH", "items by their paths, as the database has them", 0, 0},
    {"missing", 0, ISO_ARG_FLAG, AT(missing), NULL, "items whose files went away", 0, 0},
    {"force", 0, ISO_ARG_FLAG, AT(force), NULL, "with --missing: even when every file is missing", 0, 0},
    {"dry-run", 'n', ISO_ARG_FLAG, AT(dry_run), NULL, "only print what would be removed", 0, 0},
    {"quiet", 'q', ISO_ARG_FLAG, AT(quiet), NULL, "print only how many", 0, 0},
    {NULL, 0, ISO_ARG_FLAG, 0, NULL, NULL, 0, 0},
};

static const iso_command command = {
    "indexer remove",
    "indexer remove --db DB [--id N...] [--path PATH...] [--missing]",
    "Removes items and their vectors, all of those named or, when one is not there, none. Files are left alone: the\n"
    "next `indexer encode` adds those that still exist.",
    options,
    "`indexer compact` gives the room back to the disk.\n"
    "Paths that another program lists go behind --path --, which ends options: a file may be called as an option is.\n"
    "Example: retrieve --query blurred/ -k 100 --db faces.db -0 --relative | xargs -0 indexer remove --db faces.db --path --",
};

typedef struct ids { uint64_t *id; size_t count, capacity; } ids;

static iso_status add(ids *list, uint64_t id, iso_error *err)
{
    if (!iso_grow(&list->id, &list->capacity, list->count + 1, sizeof *list->id)) return iso_fail_memory(err);
    list->id[list->count++] = id;
    return ISO_OK;
}

static iso_status by_id(const config *c, iso_txn *t, ids *list, iso_error *err)
{
    for (size_t i = 0; i < c->id.count; i++) {
        uint64_t id;
        iso_item item;
        if (!iso_args_id(c->id.item[i], &id)) return iso_fail(err, ISO_E_ARGUMENT, "'%s' is not the id of an item: a whole number is wanted", c->id.item[i]);
        iso_status status = iso_item_get(t, id, &item, err);
        if (!status) status = add(list, item.id, err);
        if (status) return status;
    }
    return ISO_OK;
}

static iso_status by_path(const config *c, iso_txn *t, ids *list, iso_error *err)
{
    for (size_t i = 0; i < c->path.count; i++) {
        iso_item item;
        iso_status status = iso_item_by_path(t, c->path.item[i], &item, err);
        if (!status) status = add(list, item.id, err);
        if (status) return status;
    }
    return ISO_OK;
}

static bool is_missing(iso_store *s, const char *path)
{
    struct stat st;
    char *file = iso_store_path(s, path);
    bool missing = file && iso_path_stat(file, &st) && (errno == ENOENT || errno == ENOTDIR || errno == ENAMETOOLONG);
    free(file);
    return missing;
}

static iso_status by_absence(const config *c, iso_store *s, iso_txn *t, iso_progress *progress, ids *list, iso_error *err)
{
    iso_cursor *cursor;
    iso_item item;
    size_t all = 0, before = list->count;
    if (!c->missing) return ISO_OK;
    iso_status status = iso_cursor_open(t, 0, &cursor, err);
    if (status) return status;
    iso_progress_pass(progress, "looking for files", "files", (int64_t)iso_store_info_get(t).count);
    while (!status && !(status = iso_cursor_next(cursor, &item, NULL, err))) {
        iso_progress_step(progress, (int64_t)++all);
        if (is_missing(s, item.path)) status = add(list, item.id, err);
    }
    iso_cursor_close(cursor);
    if (status != ISO_E_NOT_FOUND) return status;
    if (all && list->count - before == all && !c->force)
        return iso_fail(err, ISO_E_ARGUMENT, "every file is missing: is the folder of images mounted? Nothing was removed; --force removes them all");
    return ISO_OK;
}

static void sort_unique(ids *list)
{
    size_t n = 0;
    if (list->count) qsort(list->id, list->count, sizeof *list->id, iso_ids_order);
    for (size_t i = 0; i < list->count; i++)
        if (!n || list->id[i] != list->id[n - 1]) list->id[n++] = list->id[i];
    list->count = n;
}

/* told: what is printed when they are gone. */
static iso_status remove_all(const config *c, iso_txn *t, iso_progress *progress, const ids *list, FILE *told, iso_error *err)
{
    iso_item item;
    iso_status status = ISO_OK;
    iso_progress_pass(progress, "removing", "items", (int64_t)list->count);
    for (size_t i = 0; i < list->count && !status; i++) {
        iso_progress_step(progress, (int64_t)i);
        status = iso_item_get(t, list->id[i], &item, err);
        if (!status && !c->quiet) {
            fprintf(told, "%" PRIu64 "\t", item.id);
            iso_text_tsv(told, item.path, strlen(item.path));
            putc('\n', told);
        }
        if (!status && !c->dry_run) status = iso_item_remove(t, list->id[i], err);
    }
    return !status && (fflush(told) || ferror(told)) ? iso_fail_memory(err) : status;
}

static iso_status run(config *c, iso_error *err)
{
    iso_store *s = NULL;
    iso_txn *t = NULL;
    ids list = {0};
    iso_progress progress;
    char *text = NULL;
    size_t size = 0;
    if (!c->id.count && !c->path.count && !c->missing) return iso_fail(err, ISO_E_ARGUMENT, "nothing is named: give --id, --path or --missing");
    iso_progress_open(&progress, c->quiet);
    iso_status status = iso_args_db(&c->db, err);
    if (!status) status = iso_store_open(c->db, c->dry_run ? ISO_STORE_READ : ISO_STORE_WRITE, NULL, &s, err);
    if (!status) status = iso_txn_begin(s, !c->dry_run, &t, err);
    if (!status) status = by_id(c, t, &list, err);
    if (!status) status = by_path(c, t, &list, err);
    if (!status) status = by_absence(c, s, t, &progress, &list, err);
    sort_unique(&list);
    FILE *told = open_memstream(&text, &size);
    if (!status) status = told ? remove_all(c, t, &progress, &list, told, err) : iso_fail_memory(err);
    if (!status) {
        status = iso_txn_commit(t, err);
        t = NULL;
    }
    iso_progress_end(&progress);
    iso_txn_abort(t);
    if (told) fclose(told);
    if (!status) fwrite(text, 1, size, stdout);
    if (!status) printf("%s %zu\n", c->dry_run ? "would remove" : "removed", list.count);
    iso_store_close(s);
    free(text);
    free(list.id);
    return status ? status : iso_indexer_flush(err);
}

int iso_indexer_remove(int argc, char **argv)
{
    config c = {0};
    iso_error err = {0};
    int code = iso_args_parse(&command, argc, argv, 2, &c, NULL);
    if (code == ISO_ARGS_RUN) code = iso_exit(command.program, run(&c, &err), &err);
    iso_list_free(&c.id);
    iso_list_free(&c.path);
    return code;
}
