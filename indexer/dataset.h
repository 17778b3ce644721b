/* dataset.h: folders of images, and data sets in CelebA's layout
 * (img_align_celeba/, list_attr_celeba.txt, list_eval_partition.txt). */
#ifndef ISO_DATASET_H
#define ISO_DATASET_H

#include <stdbool.h>
#include "indexer/image.h"

#define ISO_DATASET_ATTRIBUTES "list_attr_celeba.txt"
#define ISO_DATASET_PARTITION "list_eval_partition.txt"

/* Paths below a folder, sorted by bytes, relative to it: recursive to any depth, symbolic links followed (a link back to
 * a folder it lies in is not entered), names that begin with '.' left out, only regular files. Every file counts: what is
 * no image is found out on decoding. What cannot be read below the folder (a subfolder without permission, a broken link, a pipe)
 * is listed as skipped, with the reason; a folder that cannot be read itself is an error. No file at all is ISO_OK.
 * Links may make a folder endless in practice: it can be interrupted (base/progress.h), ISO_E_INTERRUPTED. */
typedef struct iso_listing {
    char *root;    /* as given, without trailing slashes */
    char **path;
    size_t count;
    size_t capacity;
    char **skip_path, **skip_reason; /* sorted likewise */
    size_t skipped;
} iso_listing;
ISO_CHECK iso_status iso_listing_read(const char *folder, iso_listing *out, iso_error *err);
void iso_listing_free(iso_listing *l); /* what it holds, not l itself; a zeroed one is fine */

typedef enum iso_part { ISO_PART_TRAIN = 0, ISO_PART_VALID = 1, ISO_PART_TEST = 2 } iso_part;

/* The two files below are plain text: words separated by blanks, Windows line ends and blank lines are fine. What does
 * not fit (another number of columns, a value that is none, a name given twice, a NUL byte) is ISO_E_FORMAT naming the
 * line. Once read they are constant: any number of threads may look up.
 *
 * A lookup takes a file's path below the folder of images: first the whole of it is looked for, then its last component. */

/* ISO_DATASET_PARTITION: "file part" lines, part 0, 1 or 2. */
typedef struct iso_partition iso_partition;
ISO_CHECK iso_status iso_partition_read(const char *file, iso_partition **out, iso_error *err);
void iso_partition_free(iso_partition *p);
int iso_partition_find(const iso_partition *p, const char *name); /* an iso_part, or -1: not listed */
/* The same; near: which line it may well be, from 0, looked at first. Negative: no idea. */
int iso_partition_find_near(const iso_partition *p, const char *name, int64_t near);
int64_t iso_partition_files(const iso_partition *p, int part);    /* how many files it lists in that part */

/* ISO_DATASET_ATTRIBUTES: the number of files, the attributes' names, then "file +-1 ..." lines, as many as the first line
 * says. 0 counts as -1. At most ISO_NET_MAX_CHANNELS attributes: pairs of them are counted. */
typedef struct iso_attributes iso_attributes;
ISO_CHECK iso_status iso_attributes_read(const char *file, iso_attributes **out, iso_error *err);
void iso_attributes_free(iso_attributes *a);
int iso_attributes_count(const iso_attributes *a);               /* attributes */
const char *iso_attributes_name(const iso_attributes *a, int i);
int64_t iso_attributes_files(const iso_attributes *a);
/* The row of a file, one byte (0 or 1) per attribute; NULL when it is not listed. */
const uint8_t *iso_attributes_find(const iso_attributes *a, const char *name);
/* Its number, from 0 in the file's order; -1 when it is not listed. near as above. */
int64_t iso_attributes_row_near(const iso_attributes *a, const char *name, int64_t near);
const uint8_t *iso_attributes_at(const iso_attributes *a, int64_t row); /* of that number */

/* A set of decoded images in memory, for training. */
typedef struct iso_dataset {
    char **path;        /* [count] relative to the folder of images, sorted by bytes */
    uint8_t *pixels;    /* [count, 64, 64, 3] */
    uint8_t *part;      /* [count] iso_part: from the partition file; where none of the images is given to validation there,
                           or there is no such file, 5 % of the training images by content hash (at least one when there
                           are two or more) validate and the rest train */
    int64_t count;
    char *image_dir;    /* where path is relative to: DIR/img_align_celeba or DIR */
    char *attribute_file, *partition_file; /* NULL when the folder has none */
    int64_t skipped;    /* not decodable, not listed in the partition file, or not readable; sorted by bytes */
    char **skip_path, **skip_reason;
} iso_dataset;

/* Decodes in parallel on `threads` (0: all). Only the parts in the bit set `parts` (1 << part) are kept: the others'
 * images are not in the set. The result does not depend on the number of threads. Files that cannot be used are skipped
 * and listed; no usable image at all is ISO_E_ARGUMENT. Stops with ISO_E_INTERRUPTED when iso_interrupted() says so.
 * Progress is drawn by the calling thread only.
 * `fits` (NULL: nobody) is asked when the images have been listed and before any is decoded, and what it returns but ISO_OK ends the loading. It
 * is told how many are to be decoded to train and to validate: where their contents decide about that, as many of
 * each as there may well be. */
typedef iso_status iso_dataset_fits(void *ctx, int64_t train, int64_t valid, iso_error *err);
ISO_CHECK iso_status iso_dataset_load(const char *dir, unsigned parts, int threads, iso_progress *progress, iso_dataset_fits *fits, void *ctx, iso_dataset **out,
                                      iso_error *err);
void iso_dataset_free(iso_dataset *d);

/* What the attribute file says of the images of a set, for supervised training. */
typedef struct iso_labels {
    int classes;        /* attributes */
    char *names;        /* theirs, one space between them */
    uint8_t *row;       /* [count of the set, classes], 0 or 1; 0 where the image is not listed */
    bool *listed;       /* [count of the set] */
} iso_labels;
ISO_CHECK iso_status iso_labels_make(const iso_dataset *d, const iso_attributes *a, iso_labels *out, iso_error *err);
void iso_labels_free(iso_labels *l); /* what it holds; a zeroed one is fine */

/* Whether a path below the folder of images is one of the data set's two lists, which lie there when there is no img_align_celeba/: they are
 * no damaged images. */
bool iso_dataset_is_list(const char *path);
/* Where the images of `dir` are: DIR/img_align_celeba when that is a folder, else DIR, without trailing slashes. Fresh
 * memory; NULL when memory is out. */
char *iso_dataset_image_dir(const char *dir);

#endif
