#include "eval/evaluate.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "eval/protocol.h"
#include "indexer/dataset.h"

/* What the database lists, and what is said of it. */
typedef struct listed {
    const char *path;    /* both in the database's pages */
    const float *vector;
    uint64_t id;
    int64_t row;         /* of the attribute file; -1: none */
    int64_t place;       /* in its split */
    int part;            /* -1: none */
} listed;

enum { DATABASE, ATTRIBUTES, PARTITION, SOURCES };
enum { AHEAD = 16 }; /* items whose paths are asked for before they are read */

typedef struct reading {
    iso_attributes *attributes;
    iso_partition *partition;
    listed *item;
    size_t items, capacity;
    iso_status status[SOURCES];
    iso_error why[SOURCES];
} reading;

static iso_status list_items(reading *r, iso_txn *txn, uint64_t count, iso_error *err)
{
    iso_cursor *cursor = NULL;
    iso_status status = iso_cursor_open(txn, 0, &cursor, err);
    if (!status && !iso_grow(&r->item, &r->capacity, (size_t)count + 1, sizeof *r->item)) status = iso_fail_memory(err);
    while (status == ISO_OK) {
        iso_item item;
        const float *vector;
        status = iso_cursor_next(cursor, &item, &vector, err);
        if (status) break;
        if (!iso_grow(&r->item, &r->capacity, r->items + 1, sizeof *r->item)) status = iso_fail_memory(err);
        else r->item[r->items++] = (listed){item.path, vector, item.id, -1, -1, -1};
    }
    iso_cursor_close(cursor);
    return status == ISO_E_NOT_FOUND ? ISO_OK : status; /* after the last item */
}

static iso_status read_database(iso_evaluation *e, const char *db, reading *r, iso_error *err)
{
    iso_store_info info;
    iso_status status = iso_store_open(db, ISO_STORE_READ, NULL, &e->store, err);
    if (!status) status = iso_txn_begin(e->store, false, &e->txn, err);
    if (!status) info = iso_store_info_get(e->txn);
    if (status) return status;
    e->dim = info.dim;
    memcpy(e->digest, info.digest, sizeof e->digest);
    return list_items(r, e->txn, info.count, err);
}

/* All three at once. */
static iso_status read_all(iso_evaluation *e, const char *db, const char *attribute_file, const char *partition_file, reading *r, iso_error *err)
{
#pragma omp parallel for schedule(dynamic, 1)
    for (int i = 0; i < SOURCES; i++) {
        iso_error *why = &r->why[i];
        r->status[i] = i == DATABASE     ? read_database(e, db, r, why)
                       : i == ATTRIBUTES ? iso_attributes_read(attribute_file, &r->attributes, why)
                                         : iso_partition_read(partition_file, &r->partition, why);
    }
    for (int i = 0; i < SOURCES; i++)
        if (r->status[i]) {
            if (err) *err = r->why[i];
            return r->status[i];
        }
    return ISO_OK;
}

/* Room for its items, which have been counted. */
static iso_status split_begin(iso_split *s, int attributes, iso_error *err)
{
    const size_t n = (size_t)s->count;
    s->vector = iso_calloc(n, sizeof *s->vector);
    s->attribute = iso_calloc(n, (size_t)attributes);
    s->id = iso_calloc(n, sizeof *s->id);
    s->row = iso_calloc(n, sizeof *s->row);
    return s->vector && s->attribute && s->id && s->row ? ISO_OK : iso_fail_memory(err);
}

/* Items are mostly in the order of the files, so each is first looked for behind the one before. */
static void find_rows(const reading *r)
{
#pragma omp parallel
    {
        int64_t row = -1;
#pragma omp for schedule(static)
        for (int64_t i = 0; i < (int64_t)r->items; i++) {
            listed *item = r->item + i;
            if (i + AHEAD < (int64_t)r->items) __builtin_prefetch(item[AHEAD].path);
            item->row = iso_attributes_row_near(r->attributes, item->path, row + 1);
            if (item->row < 0) continue;
            row = item->row;
            item->part = iso_partition_find_near(r->partition, item->path, row);
        }
    }
}

static iso_split *split_of(iso_evaluation *e, const listed *item)
{
    return item->part < 0 ? NULL : item->part == e->query.part ? &e->query : item->part == e->test.part ? &e->test : NULL;
}

/* Two items may share a row (the same name in two folders): of these the first counts. */
static iso_status count_items(iso_evaluation *e, const reading *r, iso_error *err)
{
    listed **of_row = iso_calloc((size_t)e->matches.rows, sizeof *of_row);
    if (!of_row) return iso_fail_memory(err);
    e->matches.items = (int64_t)r->items;
    e->matches.rows_without_item = e->matches.rows;
    for (int64_t i = 0; i < e->matches.items; i++) {
        listed *item = r->item + i;
        e->matches.items_without_row += item->row < 0;
        if (item->row < 0) continue;
        e->matches.items_without_part += item->part < 0;
        e->matches.items_doubled += of_row[item->row] != NULL;
        e->matches.rows_without_item -= !of_row[item->row];
        if (!of_row[item->row]) of_row[item->row] = item;
    }
    for (int64_t row = 0; row < e->matches.rows; row++) {
        iso_split *to = of_row[row] ? split_of(e, of_row[row]) : NULL;
        if (to) of_row[row]->place = to->count++;
    }
    free(of_row);
    return ISO_OK;
}

static iso_status match_items(iso_evaluation *e, const reading *r, iso_error *err)
{
    find_rows(r);
    iso_status status = count_items(e, r, err);
    if (!status) status = split_begin(&e->query, e->attributes, err);
    if (!status) status = split_begin(&e->test, e->attributes, err);
    if (status) return status;
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < e->matches.items; i++) {
        const listed *item = r->item + i;
        const iso_split *to = split_of(e, item);
        if (item->place < 0) continue;
        to->vector[item->place] = item->vector;
        to->id[item->place] = item->id;
        to->row[item->place] = item->row;
        memcpy(to->attribute + item->place * e->attributes, iso_attributes_at(r->attributes, item->row), (size_t)e->attributes);
    }
    return ISO_OK;
}

static iso_status copy_names(iso_evaluation *e, const iso_attributes *attributes, iso_error *err)
{
    e->name = iso_calloc((size_t)e->attributes, sizeof *e->name);
    if (!e->name) return iso_fail_memory(err);
    for (int i = 0; i < e->attributes; i++) {
        const char *name = iso_attributes_name(attributes, i);
        if (!(e->name[i] = iso_strndup(name, strlen(name)))) return iso_fail_memory(err);
    }
    return ISO_OK;
}

static iso_status check_matches(const iso_evaluation *e, const char *attribute_file, const char *partition_file, iso_error *err)
{
    int64_t matched = e->matches.items - e->matches.items_without_row;
    if (e->matches.items == 0) return iso_fail(err, ISO_E_NOT_FOUND, "the database is empty: run `indexer encode` first");
    if (matched == 0)
        return iso_fail(err, ISO_E_MISMATCH, "none of the database's %" PRId64 " images is listed in %s: is it the attribute file of these images?", e->matches.items, attribute_file);
    if (e->matches.items_without_part == matched)
        return iso_fail(err, ISO_E_MISMATCH, "none of the database's images is listed in %s: is it the partition file of these images?", partition_file);
    if (e->test.count == 0)
        return iso_fail(err, ISO_E_MISMATCH, "none of the database's %" PRId64 " images that %s lists is in part %d of %s, so there is nothing to rank: choose another --split, or encode all images",
                        matched, attribute_file, e->test.part, partition_file);
    if (e->query.count == 0)
        return iso_fail(err, ISO_E_MISMATCH, "none of the database's %" PRId64 " images that %s lists is in part %d of %s, so there are no examples: choose another --query-split, or encode all images",
                        matched, attribute_file, e->query.part, partition_file);
    return ISO_OK;
}

iso_status iso_evaluation_open(const char *db, const char *attribute_file, const char *partition_file, int query_part, int test_part,
                               bool contrast, iso_evaluation **out, iso_error *err)
{
    if (query_part == test_part) return iso_fail(err, ISO_E_ARGUMENT, "the examples and the ranked images come from different parts, not both from part %d", test_part);
    reading r = {0};
    iso_status status;
    iso_evaluation *e = iso_calloc(1, sizeof *e);
    if (!e) return iso_fail_memory(err);
    if ((status = read_all(e, db, attribute_file, partition_file, &r, err))) goto done;
    e->attributes = iso_attributes_count(r.attributes);
    e->matches.rows = iso_attributes_files(r.attributes);
    e->query.part = query_part, e->test.part = test_part;
    if ((status = copy_names(e, r.attributes, err))) goto done;
    if ((status = match_items(e, &r, err))) goto done;
    if ((status = check_matches(e, attribute_file, partition_file, err))) goto done;
    if (contrast && (status = iso_scorer_read(e->txn, &e->scorer, err))) goto done;
    *out = e;
    e = NULL;
done:
    iso_attributes_free(r.attributes);
    iso_partition_free(r.partition);
    free(r.item);
    iso_evaluation_free(e);
    return status;
}

static void split_free(iso_split *s) { free(s->vector), free(s->attribute), free(s->id), free(s->row); }

void iso_evaluation_free(iso_evaluation *e)
{
    if (!e) return;
    for (int i = 0; e->name && i < e->attributes; i++) free(e->name[i]);
    free(e->name);
    split_free(&e->query);
    split_free(&e->test);
    iso_scorer_free(e->scorer);
    iso_txn_abort(e->txn);
    iso_store_close(e->store);
    free(e);
}

/* ---- the same images for several databases ---- */

iso_status iso_split_keep(iso_split *s, int attributes, int64_t n, const int64_t *row, iso_error *err)
{
    iso_split kept = {.part = s->part, .count = n};
    iso_status status = split_begin(&kept, attributes, err);
    for (int64_t i = 0, at = 0; i < n && !status; i++) {
        while (at < s->count && s->row[at] < row[i]) at++;
        if (at == s->count || s->row[at] != row[i]) {
            status = iso_fail(err, ISO_E_MISMATCH, "an image that was there is gone: the database has changed meanwhile; run again");
            break;
        }
        kept.vector[i] = s->vector[at];
        memcpy(kept.attribute + i * attributes, s->attribute + at * attributes, (size_t)attributes);
        kept.id[i] = s->id[at];
        kept.row[i] = row[i];
    }
    const iso_split old = *s;
    if (!status) *s = kept, kept = old;
    split_free(&kept);
    return status;
}

/* ---- protocols ---- */

/* precision.h numbers the vectors of its input; a user knows items by their ids. Where a vector is what failed, it is named. */
static iso_status name_fault(const iso_evaluation *e, iso_status status, iso_error *err)
{
    const iso_split *split[2] = {&e->query, &e->test};
    if (status != ISO_E_NUMERIC) return status;
    for (int s = 0; s < 2; s++)
        for (int64_t i = 0; i < split[s]->count; i++) {
            const float *vector = split[s]->vector[i];
            if (!iso_vector_fault(e->dim, vector)) continue;
            return iso_fail(err, status, "the vector of item %" PRIu64 " %s and cannot be compared: remove the item (indexer remove), or encode it anew",
                            split[s]->id[i], isfinite(iso_vector_squares(e->dim, vector)) ? "is all zeros" : "holds a NaN or an infinity");
        }
    return status;
}

/* NULL is the scorer for sums. */
static iso_status pick_scorer(const iso_evaluation *e, iso_scoring scoring, const iso_scorer **out, iso_error *err)
{
    if (scoring != ISO_SUM && !e->scorer) return iso_fail(err, ISO_E_ARGUMENT, "the background of the database, which contrast needs, was not loaded");
    *out = scoring == ISO_SUM ? NULL : e->scorer;
    return ISO_OK;
}

iso_status iso_evaluation_precision(const iso_evaluation *e, iso_scoring scoring, iso_precision **out, iso_error *err)
{
    const iso_scorer *scorer = NULL;
    iso_status status = pick_scorer(e, scoring, &scorer, err);
    if (status) return status;
    status = iso_precision_at_k(e->dim, e->query.count, e->query.vector, e->query.attribute, e->test.count, e->test.vector, e->test.attribute,
                                e->attributes, scorer, out, err);
    return name_fault(e, status, err);
}

iso_status iso_evaluation_few(const iso_evaluation *e, iso_scoring scoring, const iso_few_options *options, iso_few **out, iso_error *err)
{
    const iso_scorer *scorer = NULL;
    iso_status status = pick_scorer(e, scoring, &scorer, err);
    if (status) return status;
    status = iso_few_precision(e->dim, e->query.count, e->query.vector, e->query.attribute, e->test.count, e->test.vector, e->test.attribute,
                               e->attributes, scorer, options, out, err);
    return name_fault(e, status, err);
}
