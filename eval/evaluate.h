/* evaluate.h: a database put beside a data set's attribute and partition files: what a retrieval protocol works on.
 *
 *     iso_evaluation *e;
 *     iso_evaluation_open("faces.db", "list_attr_celeba.txt", "list_eval_partition.txt", 0, 2, false, &e, err);
 *     iso_precision *p;
 *     iso_evaluation_precision(e, ISO_SUM, &p, err);
 *
 * A protocol reads the two splits; nothing here knows which one it is. */
#ifndef ISO_EVALUATE_H
#define ISO_EVALUATE_H

#include <stdbool.h>
#include "eval/few.h"
#include "eval/precision.h"
#include "indexer/store.h"

/* The items of one part of the data set, in the attribute file's order: what is drawn of them, or ties, is the same whatever ids they got. */
typedef struct iso_split {
    int part;            /* 0 trains, 1 validates, 2 tests */
    int64_t count;
    const float **vector;/* [count] of dim numbers, as stored, not normalised: in the database's own pages, nothing is copied */
    uint8_t *attribute;  /* [count, attributes] 0 or 1 */
    uint64_t *id;        /* [count] of the items */
    int64_t *row;        /* [count] which row of the attribute file an item belongs to, from 0; rising, each once */
} iso_split;

/* What the database and the files share, and what they do not. */
typedef struct iso_matches {
    int64_t items;               /* of the database */
    int64_t items_without_row;   /* the attribute file does not list them */
    int64_t items_without_part;  /* they have attributes, but the partition file does not list them */
    int64_t items_doubled;       /* they have the row of an item with a lower id, which alone counts */
    int64_t rows;                /* of the attribute file */
    int64_t rows_without_item;
} iso_matches;

typedef struct iso_evaluation {
    int dim, attributes;
    char **name;         /* [attributes] in the file's order */
    char digest[33];     /* of the database's model */
    iso_split query, test;
    iso_matches matches;
    iso_scorer *scorer;          /* contrast, NULL where it was not asked for */
    iso_store *store;
    iso_txn *txn;                /* the snapshot that the vectors are read from */
} iso_evaluation;

/* Opens the database to read and keeps it open. Items are matched to rows by their path, of which the file's name counts (dataset.h);
 * of items of one row the first is taken. The two parts differ. Nothing in common, an empty part, or a file that is not what it claims: an error that says which.
 * contrast: takes the background as well, that of the whole database, as `retrieve` does, at this very moment. */
ISO_CHECK iso_status iso_evaluation_open(const char *db, const char *attribute_file, const char *partition_file, int query_part, int test_part,
                                         bool contrast, iso_evaluation **out, iso_error *err);
void iso_evaluation_free(iso_evaluation *e);

/* Reduces a split to the items of these rows (rising), so that the rankings of several databases are over the same images.
 * ISO_E_MISMATCH: a row has no item. */
ISO_CHECK iso_status iso_split_keep(iso_split *s, int attributes, int64_t n, const int64_t *row, iso_error *err);

/* Single- and double-attribute precision at K (precision.h). A vector without direction is named by its item's id.
 * ISO_CONTRAST: of an evaluation that was loaded with it (ISO_E_ARGUMENT otherwise). */
ISO_CHECK iso_status iso_evaluation_precision(const iso_evaluation *e, iso_scoring scoring, iso_precision **out, iso_error *err);

/* The same with few examples (few.h). */
ISO_CHECK iso_status iso_evaluation_few(const iso_evaluation *e, iso_scoring scoring, const iso_few_options *options, iso_few **out, iso_error *err);

#endif
