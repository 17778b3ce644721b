#include "eval/evaluate.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "indexer/dataset.h"

/* Grown while the items are read: how many belong to a part is known only then. */
typedef struct filler {
    size_t vectors, attributes, ids, rows; /* capacities, in elements */
} filler;

static bool split_add(iso_split *s, filler *f, int dim, int attributes, uint64_t id, const float *vector, int64_t number, const uint8_t *row)
{
    size_t n = (size_t)s->count;
    if (!iso_grow(&s->vector, &f->vectors, (n + 1) * (size_t)dim, sizeof *s->vector)) return false;
    if (!iso_grow(&s->attribute, &f->attributes, (n + 1) * (size_t)attributes, 1)) return false;
    if (!iso_grow(&s->id, &f->ids, n + 1, sizeof *s->id)) return false;
    if (!iso_grow(&s->row, &f->rows, n + 1, sizeof *s->row)) return false;
    memcpy(s->vector + n * (size_t)dim, vector, (size_t)dim * sizeof *vector);
    memcpy(s->attribute + n * (size_t)attributes, row, (size_t)attributes);
    s->id[n] = id;
    s->row[n] = number;
    s->count++;
    return true;
}

static int by_address(const void *a, const void *b)
{
    const uint8_t *x = *(const uint8_t *const *)a, *y = *(const uint8_t *const *)b;
    return x < y ? -1 : x > y;
}

/* Two items may share a row (the same name in two folders), so rows are counted once each. */
static int64_t distinct(const uint8_t **row, size_t n)
{
    if (n) qsort(row, n, sizeof *row, by_address);
    int64_t count = 0;
    for (size_t i = 0; i < n; i++) count += i == 0 || row[i] != row[i - 1];
    return count;
}

static iso_status read_items(iso_evaluation *e, iso_txn *txn, const iso_attributes *attributes, const iso_partition *partition, iso_error *err)
{
    iso_cursor *cursor = NULL;
    const uint8_t **matched = NULL;
    size_t matches = 0, capacity = 0;
    filler query = {0}, test = {0};
    iso_status status = iso_cursor_open(txn, 0, &cursor, err);
    while (status == ISO_OK) {
        iso_item item;
        const float *vector;
        status = iso_cursor_next(cursor, &item, &vector, err);
        if (status) break;
        e->items++;
        const uint8_t *row = iso_attributes_find(attributes, item.path);
        if (!row) {
            e->items_without_row++;
            continue;
        }
        if (!iso_grow(&matched, &capacity, matches + 1, sizeof *matched)) {
            status = iso_fail_memory(err);
            break;
        }
        matched[matches++] = row;
        int part = iso_partition_find(partition, item.path);
        e->items_without_part += part < 0;
        int64_t number = iso_attributes_row(attributes, item.path);
        bool kept = true;
        if (part == e->query.part) kept = split_add(&e->query, &query, e->dim, e->attributes, item.id, vector, number, row);
        else if (part == e->test.part) kept = split_add(&e->test, &test, e->dim, e->attributes, item.id, vector, number, row);
        if (!kept) status = iso_fail_memory(err);
    }
    if (status == ISO_E_NOT_FOUND) status = ISO_OK; /* after the last item */
    if (status == ISO_OK) e->rows_without_item = e->rows - distinct(matched, matches);
    free(matched);
    iso_cursor_close(cursor);
    return status;
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
    int64_t matched = e->items - e->items_without_row;
    if (e->items == 0) return iso_fail(err, ISO_E_NOT_FOUND, "the database is empty: run `indexer encode` first");
    if (matched == 0)
        return iso_fail(err, ISO_E_MISMATCH, "none of the database's %" PRId64 " images is listed in %s: is it the attribute file of these images?", e->items, attribute_file);
    if (e->items_without_part == matched)
        return iso_fail(err, ISO_E_MISMATCH, "none of the database's images is listed in %s: is it the partition file of these images?", partition_file);
    if (e->test.count == 0)
        return iso_fail(err, ISO_E_MISMATCH, "none of the database's %" PRId64 " images that %s lists is in part %d of %s, so there is nothing to rank: choose another --split, or encode all images",
                        matched, attribute_file, e->test.part, partition_file);
    if (e->query.count == 0)
        return iso_fail(err, ISO_E_MISMATCH, "none of the database's %" PRId64 " images that %s lists is in part %d of %s, so there are no examples: choose another --query-split, or encode all images",
                        matched, attribute_file, e->query.part, partition_file);
    return ISO_OK;
}

static iso_status take_background(iso_evaluation *e, iso_txn *txn, iso_error *err)
{
    iso_moments background = {0};
    iso_status status = iso_store_moments(txn, &background, err);
    if (!status) status = iso_scorer_create(&background, &e->scorer, err);
    iso_moments_free(&background);
    return status;
}

iso_status iso_evaluation_load(iso_store *store, const char *attribute_file, const char *partition_file, int query_part, int test_part,
                               bool contrast, iso_evaluation **out, iso_error *err)
{
    if (query_part == test_part) return iso_fail(err, ISO_E_ARGUMENT, "the examples and the ranked images come from different parts, not both from part %d", test_part);
    iso_attributes *attributes = NULL;
    iso_partition *partition = NULL;
    iso_txn *txn = NULL;
    iso_status status;
    iso_evaluation *e = iso_calloc(1, sizeof *e);
    if (!e) return iso_fail_memory(err);
    if ((status = iso_attributes_read(attribute_file, &attributes, err))) goto done;
    if ((status = iso_partition_read(partition_file, &partition, err))) goto done;
    if ((status = iso_txn_begin(store, false, &txn, err))) goto done;
    iso_store_info info;
    if ((status = iso_store_info_get(txn, &info, err))) goto done;
    e->dim = info.dim;
    memcpy(e->digest, info.digest, sizeof e->digest);
    e->attributes = iso_attributes_count(attributes);
    e->rows = iso_attributes_files(attributes);
    e->query.part = query_part, e->test.part = test_part;
    if ((status = copy_names(e, attributes, err))) goto done;
    if ((status = read_items(e, txn, attributes, partition, err))) goto done;
    if ((status = check_matches(e, attribute_file, partition_file, err))) goto done;
    if (contrast && (status = take_background(e, txn, err))) goto done;
    *out = e;
    e = NULL;
done:
    iso_txn_abort(txn);
    iso_attributes_free(attributes);
    iso_partition_free(partition);
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
    free(e);
}

/* ---- the same images for several databases ---- */

typedef struct place {
    int64_t row, at; /* an item of a split: its row of the attribute file, its position */
} place;

static int by_row(const void *a, const void *b)
{
    const place *x = a, *y = b;
    return x->row < y->row ? -1 : x->row > y->row ? 1 : x->at < y->at ? -1 : 1;
}

iso_status iso_split_keep(iso_split *s, int dim, int attributes, int64_t n, const int64_t *row, iso_error *err)
{
    iso_split kept = {.part = s->part, .count = n};
    kept.vector = iso_calloc((size_t)n, (size_t)dim * sizeof *kept.vector);
    kept.attribute = iso_calloc((size_t)n, (size_t)attributes);
    kept.id = iso_calloc((size_t)n, sizeof *kept.id);
    kept.row = iso_calloc((size_t)n, sizeof *kept.row);
    place *order = iso_calloc((size_t)s->count, sizeof *order);
    iso_status status = ISO_OK;
    if (!kept.vector || !kept.attribute || !kept.id || !kept.row || !order) {
        status = iso_fail_memory(err);
        goto done;
    }
    for (int64_t i = 0; i < s->count; i++) order[i] = (place){s->row[i], i};
    if (s->count) qsort(order, (size_t)s->count, sizeof *order, by_row);
    for (int64_t i = 0, at = 0; i < n; i++) {
        while (at < s->count && order[at].row < row[i]) at++;
        if (at == s->count || order[at].row != row[i]) {
            status = iso_fail(err, ISO_E_MISMATCH, "an image that was there is gone: the database has changed meanwhile; run again");
            goto done;
        }
        int64_t from = order[at].at;
        memcpy(kept.vector + i * dim, s->vector + from * dim, (size_t)dim * sizeof *s->vector);
        memcpy(kept.attribute + i * attributes, s->attribute + from * attributes, (size_t)attributes);
        kept.id[i] = s->id[from];
        kept.row[i] = row[i];
    }
    iso_split old = *s;
    *s = kept;
    kept = old;
done:
    split_free(&kept);
    free(order);
    return status;
}

/* ---- protocols ---- */

/* precision.h numbers the rows of its input; a user knows items by their ids. */
static iso_status check_directions(const iso_split *s, int dim, iso_error *err)
{
    for (int64_t i = 0; i < s->count; i++) {
        double sum = 0;
        for (int j = 0; j < dim; j++) sum += (double)s->vector[i * dim + j] * s->vector[i * dim + j];
        if (!isfinite(sum) || !(sum > 0))
            return iso_fail(err, ISO_E_NUMERIC, "the vector of item %" PRIu64 " %s and cannot be compared: remove the item (indexer remove), or encode it anew", s->id[i],
                            isfinite(sum) ? "is all zeros" : "holds a NaN or an infinity");
    }
    return ISO_OK;
}

static iso_status check_both(const iso_evaluation *e, iso_error *err)
{
    iso_status status = check_directions(&e->query, e->dim, err);
    return status ? status : check_directions(&e->test, e->dim, err);
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
    if (!status) status = check_both(e, err);
    if (status) return status;
    return iso_precision_at_k(e->dim, e->query.count, e->query.vector, e->query.attribute, e->test.count, e->test.vector, e->test.attribute,
                              e->attributes, scorer, out, err);
}

iso_status iso_evaluation_few(const iso_evaluation *e, iso_scoring scoring, const iso_few_options *options, iso_few **out, iso_error *err)
{
    const iso_scorer *scorer = NULL;
    iso_status status = pick_scorer(e, scoring, &scorer, err);
    if (!status) status = check_both(e, err);
    if (status) return status;
    return iso_few_precision(e->dim, e->query.count, e->query.vector, e->query.attribute, e->test.count, e->test.vector, e->test.attribute,
                             e->attributes, scorer, options, out, err);
}
