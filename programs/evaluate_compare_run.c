/* evaluate_compare_run.c: encodes, finds the images that all databases have, evaluates one database after another. Only one
 * is in memory at a time. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/file.h"
#include "base/memory.h"
#include "base/progress.h"
#include "base/text.h"
#include "indexer/dataset.h"
#include "programs/encoding.h"
#include "programs/evaluate_compare.h"
#include "programs/evaluate_print.h"

/* ---- failures ---- */

/* Told at once, and kept for the end. Returns what cannot be lived with: no memory, an interruption. */
static iso_status note_failure(iso_comparison *c, const char *name, const char *scorer, const iso_error *why,
                               iso_error *err)
{
    if (why->status == ISO_E_MEMORY || why->status == ISO_E_INTERRUPTED) {
        *err = *why;
        return why->status;
    }
    if (!iso_grow(&c->failure, &c->failure_room, (size_t)c->failures + 1, sizeof *c->failure))
        return iso_fail_memory(err);
    char *whole = scorer ? iso_format("%s, %s", name, scorer) : iso_format("%s", name),
         *shown = whole ? iso_text_printable(whole) : NULL;
    char *message = iso_format("%s", why->message[0] ? why->message : iso_status_text(why->status));
    if (!shown || !message) {
        free(whole), free(shown), free(message);
        return iso_fail_memory(err);
    }
    fprintf(stderr, "%s: %s is left out: %s\n", c->program, shown, message);
    c->failure[c->failures++] = (iso_compared_failure){whole, message};
    free(shown);
    return ISO_OK;
}

/* ---- encoding ---- */

static bool is_folder(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

/* Whether another model file would get the same database below --work. */
static bool shares_stem(const iso_comparison *c, const char *name, const char *stem)
{
    bool shared = false;
    for (int i = 0; i < c->models && !shared; i++) {
        char *other = iso_compared_stem(c->model[i].name);
        shared = other && strcmp(other, stem) == 0 && !iso_file_same(c->model[i].name, name) && !is_folder(c->model[i].name);
        free(other);
    }
    return shared;
}

/* M.db beside M.safetensors, or below --work, with the model's digest where several have that name. */
static char *database_of(const iso_comparison *c, const char *name, const char *digest)
{
    static const char ending[] = ".safetensors";
    size_t length = strlen(name), n = strlen(ending);
    if (!c->work) {
        if (length > n && strcmp(name + length - n, ending) == 0) length -= n;
        return iso_format("%.*s.db", (int)length, name);
    }
    char *stem = iso_compared_stem(name);
    const bool shared = stem && shares_stem(c, name, stem);
    char *path = stem ? iso_format("%s/%s%s%.*s.db", c->work, stem, shared ? "-" : "", shared ? 8 : 0, digest) : NULL;
    free(stem);
    return path;
}

/* A database that is there already must be of this very model and these images. */
static iso_status check_database(const char *db, const char *name, const char *digest, const char *images,
                                 iso_error *err)
{
    iso_store_found found;
    iso_status status = iso_store_look(db, &found, err);
    if (status || found != ISO_STORE_COMPLETE) return status;
    iso_store *store = NULL;
    iso_txn *txn = NULL;
    iso_store_info info;
    char *folder = iso_dataset_image_dir(images), *root = folder ? realpath(folder, NULL) : NULL, *its = NULL;
    if (!folder) status = iso_fail_memory(err);
    if (!status && !root) status = iso_fail_errno(err, "cannot open the folder %s", folder);
    if (!status) status = iso_store_open(db, ISO_STORE_READ, NULL, &store, err);
    if (!status) status = iso_txn_begin(store, false, &txn, err);
    if (!status) status = iso_store_root(txn, &its, err);
    if (!status) info = iso_store_info_get(txn);
    if (!status && strcmp(info.digest, digest) != 0)
        status = iso_fail(
            err, ISO_E_MISMATCH,
            "%s belongs to another model than %s now is: remove that folder, or give another place with --work DIR", db,
            name);
    else if (!status && strcmp(its, root) != 0)
        status =
            iso_fail(err, ISO_E_MISMATCH,
                     "%s holds the images of %s, not of %s: remove that folder, or give another place with --work DIR",
                     db, its, root);
    iso_txn_abort(txn);
    iso_store_close(store);
    free(folder), free(root), free(its);
    return status;
}

static iso_status encode_model(const iso_comparison *c, iso_compared_model *m, iso_error *err)
{
    iso_model *model = NULL;
    iso_encode_counts n = {0};
    iso_status status = iso_model_load(m->name, &model, err);
    if (status) return status;
    m->label = iso_compared_label(model, m->name);
    m->db = database_of(c, m->name, iso_model_digest(model));
    if (!m->label || !m->db) status = iso_fail_memory(err);
    if (!status) status = check_database(m->db, m->name, iso_model_digest(model), c->images, err);
    if (!status) {
        iso_encoding e = {
            .images = c->images, .db = m->db, .model = m->name, .batch = 128, .threads = c->threads, .quiet = c->quiet};
        status = iso_encoding_run(&e, model, &n, err);
    }
    if (!status && !c->quiet && (n.added || n.changed)) {
        fprintf(stderr, "%s: ", c->program);
        iso_text_show(stderr, m->db, strlen(m->db));
        fprintf(stderr, ": added %" PRId64 ", changed %" PRId64 "\n", n.added, n.changed);
    }
    iso_model_free(model);
    return status;
}

/* A database folder is taken as it is; its own model, where it has one, tells the name. */
static iso_status name_database(iso_compared_model *m, iso_error *err)
{
    iso_model *model = NULL;
    char *path = iso_path_join(m->name, ISO_STORE_MODEL);
    if (!path || !(m->db = iso_format("%s", m->name))) {
        free(path);
        return iso_fail_memory(err);
    }
    struct stat st;
    if (stat(path, &st) == 0 && iso_model_load(path, &model, NULL) == ISO_OK)
        m->label = iso_compared_label(model, m->name);
    else
        m->label = iso_compared_stem(m->name);
    iso_model_free(model);
    free(path);
    return m->label ? ISO_OK : iso_fail_memory(err);
}

/* ---- which images ---- */

static iso_status survey(const iso_comparison *c, iso_compared_model *m, iso_error *err)
{
    iso_evaluation *e = NULL;
    iso_status status = iso_evaluation_open(m->db, c->attribute_file, c->partition_file, c->query_part, c->test_part, false, &e, err);
    if (!status) status = iso_rows_of(&e->query, &m->query, err);
    if (!status) status = iso_rows_of(&e->test, &m->test, err);
    if (!status) {
        m->dim = e->dim;
        memcpy(m->digest, e->digest, sizeof m->digest);
        m->matches = e->matches;
        m->usable = true;
    }
    iso_evaluation_free(e);
    return status;
}

static iso_status prepare(iso_comparison *c, iso_error *err)
{
    for (int i = 0; i < c->models; i++) {
        iso_compared_model *m = c->model + i;
        iso_error why = {0};
        iso_status status = is_folder(m->name) ? name_database(m, &why) : encode_model(c, m, &why);
        if (!status) status = survey(c, m, &why);
        if (status && (status = note_failure(c, m->name, NULL, &why, err))) return status;
    }
    return ISO_OK;
}

/* Once where all databases are alike in this, else for each of them. */
static void tell_notes(const iso_comparison *c)
{
    const iso_compared_model *first = NULL;
    bool alike = true;
    for (int i = 0; i < c->models; i++) {
        if (!c->model[i].usable) continue;
        if (!first) first = c->model + i;
        alike = alike && memcmp(&first->matches, &c->model[i].matches, sizeof first->matches) == 0;
    }
    for (int i = 0; i < c->models; i++) {
        const iso_compared_model *m = c->model + i;
        if (!m->usable || (alike && m != first)) continue;
        char *shown = iso_text_printable(m->name), *prefix = iso_format("%s%s%s", c->program, alike ? "" : ": ",
                                                                        alike   ? ""
                                                                        : shown ? shown
                                                                                : "?");
        iso_evaluate_notes(prefix ? prefix : c->program, &m->matches);
        free(shown), free(prefix);
    }
}

static iso_status copy_rows(iso_rows *to, const iso_rows *from, iso_error *err)
{
    int64_t *row = iso_calloc((size_t)from->count, sizeof *row);
    if (!row) return iso_fail_memory(err);
    if (from->count) memcpy(row, from->row, (size_t)from->count * sizeof *row);
    *to = (iso_rows){from->count, row};
    return ISO_OK;
}

/* Said whether quiet or not: it changes every figure. */
static void tell_common(const iso_comparison *c)
{
    const char *before = " (";
    bool differ = false;
    for (int i = 0; i < c->models; i++)
        differ = differ || (c->model[i].usable &&
                            (c->model[i].query.count != c->query.count || c->model[i].test.count != c->test.count));
    if (!differ) return;
    fprintf(stderr,
            "%s: the databases do not hold the same images: only the %" PRId64 " examples and %" PRId64
            " ranked images that all have are used",
            c->program, c->query.count, c->test.count);
    for (int i = 0; i < c->models; i++) {
        const iso_compared_model *m = c->model + i;
        if (!m->usable) continue;
        fputs(before, stderr);
        iso_text_show(stderr, m->name, strlen(m->name));
        fprintf(stderr, " has %" PRId64 " and %" PRId64, m->query.count, m->test.count);
        before = ", ";
    }
    fputs(")\n", stderr);
}

static iso_status find_common(iso_comparison *c, iso_error *err)
{
    iso_status status = ISO_OK;
    bool any = false;
    for (int i = 0; i < c->models && !status; i++) {
        const iso_compared_model *m = c->model + i;
        if (!m->usable) continue;
        if (!any) {
            any = true;
            status = copy_rows(&c->query, &m->query, err);
            if (!status) status = copy_rows(&c->test, &m->test, err);
            continue;
        }
        iso_rows_common(&c->query, &m->query);
        iso_rows_common(&c->test, &m->test);
    }
    if (status) return status;
    if (!any) return iso_fail(err, ISO_E_MISMATCH, "none of the models could be used, so there is nothing to compare");
    if (c->query.count == 0 || c->test.count == 0)
        return iso_fail(err, ISO_E_MISMATCH, "the databases have no %s image in common, so there is nothing to compare",
                        iso_part_name[c->test.count ? c->query_part : c->test_part]);
    tell_common(c);
    if (!c->quiet) iso_evaluate_short_ranking(c->program, c->test_part, c->test.count);
    return ISO_OK;
}

/* ---- figures ---- */

static iso_status copy_names(iso_comparison *c, const iso_evaluation *e, iso_error *err)
{
    if (c->name) return ISO_OK;
    if (!(c->name = iso_calloc((size_t)e->attributes, sizeof *c->name))) return iso_fail_memory(err);
    c->attributes = e->attributes;
    for (int i = 0; i < e->attributes; i++)
        if (!(c->name[i] = iso_strndup(e->name[i], strlen(e->name[i])))) return iso_fail_memory(err);
    return ISO_OK;
}

static iso_status measure(iso_comparison *c, iso_compared_model *m, const iso_evaluation *e, int s, iso_error *why)
{
    iso_precision *p = NULL;
    iso_few *f = NULL;
    iso_progress progress;
    iso_few_options few = c->few;
    iso_progress_open(&progress, c->quiet);
    few.progress = &progress;
    iso_status status = iso_evaluation_precision(e, c->scorer[s], &p, why);
    if (!status && p->singles == 0)
        status = iso_fail(why, ISO_E_MISMATCH,
                          "no attribute has both a %s image, as an example, and a %s image, to be found",
                          iso_part_name[c->query_part], iso_part_name[c->test_part]);
    if (!status && p->single_sets == 0)
        status = iso_fail(why, ISO_E_NUMERIC, "no attribute's examples have a direction");
    if (!status && c->with_few) status = iso_evaluation_few(e, c->scorer[s], &few, &f, why);
    iso_progress_end(&progress);
    if (status)
        iso_few_free(f), iso_precision_free(p);
    else
        m->precision[s] = p, m->few[s] = f;
    return status;
}

/* What no model can help is said once, with the first; what a scorer loses, each time. */
static void tell_left_out(const iso_comparison *c, const iso_compared_model *m, const iso_evaluation *e, int s,
                          bool first)
{
    iso_precision p = *m->precision[s];
    char *what = iso_format("%s, %s", m->name, iso_scorer_name((int)c->scorer[s])),
         *shown = what ? iso_text_printable(what) : NULL;
    if (first) {
        iso_precision absent = {.left_out = p.left_out, .left = p.left};
        iso_evaluate_left_out(c->program, NULL, e, &absent);
        if (m->few[s]) iso_evaluate_few_short(c->program, e, m->few[s]);
    }
    p.left_out = 0;
    iso_evaluate_left_out(c->program, shown, e, &p);
    if (m->few[s]) iso_evaluate_few_lost(c->program, shown, e, m->few[s]);
    free(what), free(shown);
}

static bool wants(const iso_comparison *c, iso_scoring scoring)
{
    for (int s = 0; s < c->scorers; s++)
        if (c->scorer[s] == scoring) return true;
    return false;
}

/* contrast: with the background. */
static iso_status load(const iso_comparison *c, const iso_compared_model *m, bool contrast, iso_evaluation **out,
                       iso_error *why)
{
    iso_evaluation *e = NULL;
    iso_status status = iso_evaluation_open(m->db, c->attribute_file, c->partition_file, c->query_part, c->test_part, contrast, &e, why);
    if (!status) status = iso_split_keep(&e->query, e->attributes, c->query.count, c->query.row, why);
    if (!status) status = iso_split_keep(&e->test, e->attributes, c->test.count, c->test.row, why);
    if (status)
        iso_evaluation_free(e);
    else
        *out = e;
    return status;
}

/* Where the background cannot be had, sums still can. No attribute to ask for is the same for all models: that is returned. */
static iso_status evaluate_model(iso_comparison *c, iso_compared_model *m, bool *first, iso_error *err)
{
    iso_evaluation *e = NULL;
    iso_error why = {0}, contrast_why = {0};
    iso_status status = ISO_OK;
    if (wants(c, ISO_CONTRAST)) status = load(c, m, true, &e, &contrast_why);
    if (!e) status = load(c, m, false, &e, &why);
    if (status) return note_failure(c, m->name, NULL, &why, err);
    status = copy_names(c, e, err);
    for (int s = 0; s < c->scorers && !status; s++) {
        iso_error *said = c->scorer[s] == ISO_CONTRAST && !e->scorer ? &contrast_why : &why;
        why = (iso_error){0};
        if (said == &contrast_why || measure(c, m, e, s, &why)) {
            if (why.status == ISO_E_MISMATCH) *err = why;
            status = why.status == ISO_E_MISMATCH
                         ? ISO_E_MISMATCH
                         : note_failure(c, m->name, iso_scorer_name((int)c->scorer[s]), said, err);
            continue;
        }
        if (!c->quiet) tell_left_out(c, m, e, s, *first);
        *first = false;
    }
    iso_evaluation_free(e);
    return status;
}

/* ---- rows ---- */

/* The seeds of one row should be the same model but for the seed. */
static void tell_mixed(const iso_comparison *c, const iso_compared_entry *e)
{
    const iso_compared_model *first = NULL;
    for (int i = 0; i < e->models; i++) {
        const iso_compared_model *m = c->model + e->first + i;
        if (!m->label || !m->usable) continue;
        if (!first) first = m;
        if (strcmp(first->label, m->label) == 0) continue;
        fprintf(stderr, "%s: ", c->program);
        iso_text_show(stderr, e->pattern, strlen(e->pattern));
        fputs(" mixes different models in one row: ", stderr);
        iso_text_show(stderr, first->label, strlen(first->label));
        fputs(" and ", stderr);
        iso_text_show(stderr, m->label, strlen(m->label));
        putc('\n', stderr);
        return;
    }
}

static iso_status make_row(iso_comparison *c, const iso_compared_entry *e, int s, iso_error *err)
{
    iso_compared_row *row = c->row + c->rows;
    *row = (iso_compared_row){.entry = e, .scoring = c->scorer[s]};
    row->model = iso_calloc((size_t)e->models, sizeof *row->model);
    row->precision = iso_calloc((size_t)e->models, sizeof *row->precision);
    if (c->with_few) row->few = iso_calloc((size_t)e->models, sizeof *row->few);
    c->rows++;
    if (!row->model || !row->precision || (c->with_few && !row->few)) return iso_fail_memory(err);
    for (int i = 0; i < e->models; i++) {
        const iso_compared_model *m = c->model + e->first + i;
        if (!m->precision[s]) continue;
        row->model[row->runs] = m;
        row->precision[row->runs] = m->precision[s];
        if (row->few) row->few[row->runs] = m->few[s];
        row->runs++;
    }
    if (row->runs > 0)
        return iso_compare_sum_up(row->runs, row->precision, row->few, c->resamples, c->few.seed, &row->sum, err);
    c->rows--;
    free(row->model), free(row->precision), free(row->few);
    return ISO_OK;
}

static iso_status make_rows(iso_comparison *c, iso_error *err)
{
    iso_status status = iso_compared_name_entries(c, err);
    if (status) return status;
    if (!(c->row = iso_calloc((size_t)c->entries * (size_t)c->scorers, sizeof *c->row))) return iso_fail_memory(err);
    for (int i = 0; i < c->entries; i++)
        for (int s = 0; s < c->scorers; s++)
            if ((status = make_row(c, c->entry + i, s, err))) return status;
    for (int i = 0; i < c->entries; i++) tell_mixed(c, c->entry + i);
    return c->rows
               ? ISO_OK
               : iso_fail(err, ISO_E_MISMATCH, "none of the models could be evaluated, so there is nothing to compare");
}

/* ---- the whole ---- */

/* Before anything is encoded, which may take hours. */
static iso_status check_files(const iso_comparison *c, iso_error *err)
{
    iso_attributes *attributes = NULL;
    iso_partition *partition = NULL;
    iso_status status = iso_attributes_read(c->attribute_file, &attributes, err);
    if (!status) status = iso_partition_read(c->partition_file, &partition, err);
    int part[] = {c->query_part, c->test_part};
    for (int i = 0; i < 2 && !status; i++)
        if (iso_partition_files(partition, part[i]) == 0)
            status = iso_fail(err, ISO_E_MISMATCH,
                              "%s lists no %s image (part %d), so there is nothing to %s: choose another --%s",
                              c->partition_file, iso_part_name[part[i]], part[i], i ? "rank" : "ask with",
                              i ? "split" : "query-split");
    iso_attributes_free(attributes);
    iso_partition_free(partition);
    if (!status && c->query_part == c->test_part)
        status = iso_fail(err, ISO_E_ARGUMENT,
                          "the examples and the ranked images come from different parts, not both from part %d",
                          c->test_part);
    if (!status && c->work && mkdir(c->work, 0777) != 0 && errno != EEXIST)
        status = iso_fail_errno(err, "cannot make the folder %s", c->work);
    return status;
}

iso_status iso_comparison_run(iso_comparison *c, iso_error *err)
{
    iso_status status = check_files(c, err);
    if (!status) status = prepare(c, err);
    if (!status && !c->quiet) tell_notes(c);
    if (!status) status = find_common(c, err);
    bool first = true;
    for (int i = 0; i < c->models && !status; i++) {
        if (iso_interrupted()) status = iso_fail(err, ISO_E_INTERRUPTED, "interrupted");
        else if (c->model[i].usable) status = evaluate_model(c, c->model + i, &first, err);
    }
    return status ? status : make_rows(c, err);
}

static void clear_model(iso_compared_model *m)
{
    free(m->name), free(m->db), free(m->label);
    iso_rows_free(&m->query);
    iso_rows_free(&m->test);
    for (int s = 0; s < ISO_SCORERS; s++) iso_precision_free(m->precision[s]), iso_few_free(m->few[s]);
}

void iso_comparison_clear(iso_comparison *c)
{
    for (int i = 0; i < c->rows; i++) free(c->row[i].model), free(c->row[i].precision), free(c->row[i].few);
    for (int i = 0; i < c->models; i++) clear_model(c->model + i);
    for (int i = 0; i < c->entries; i++) free(c->entry[i].pattern), free(c->entry[i].label);
    for (int i = 0; i < c->failures; i++) free(c->failure[i].name), free(c->failure[i].message);
    for (int i = 0; c->name && i < c->attributes; i++) free(c->name[i]);
    iso_rows_free(&c->query);
    iso_rows_free(&c->test);
    free(c->name), free(c->row), free(c->model), free(c->entry), free(c->failure);
}
