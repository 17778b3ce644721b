/* sample.h: some images of a data set, drawn at random and decoded: what geometry is measured on. */
#ifndef ISO_SAMPLE_H
#define ISO_SAMPLE_H

#include "indexer/dataset.h"

typedef struct iso_sample_spec {
    const char *dir;       /* CelebA's layout or any folder of images */
    const char *partition; /* its partition file; NULL: the folder's own where it has one */
    int part;              /* an iso_part, or -1: validation where there is a partition file, else all images */
    int64_t count;         /* how many are wanted, at least 1 */
    uint64_t seed;
    int threads; /* 0: all */
    iso_progress *progress; /* NULL: none */
} iso_sample_spec;

typedef struct iso_sample {
    int64_t count, candidates; /* decoded; in the part (or folder) in all */
    int part;                  /* -1: all images */
    char **path;               /* [count] below the folder of images, in the order drawn */
    uint8_t *pixels;           /* [count, 64, 64, 3] */
    int64_t skipped;           /* drawn, but could not be used: others were drawn instead */
    char **skip_path, **skip_reason;
} iso_sample;

/* Drawn without replacement, a function of the seed and the sorted paths of the candidates; fewer than asked for where there are
 * no more. Only what is drawn is decoded, in parallel; iso_interrupted() stops it. Not one image: ISO_E_ARGUMENT that says whether
 * the part is empty or nothing could be decoded; a part without a partition file: ISO_E_ARGUMENT. */
ISO_CHECK iso_status iso_sample_load(const iso_sample_spec *spec, iso_sample **out, iso_error *err);
void iso_sample_free(iso_sample *s);

/* For each image the first of the named attributes that it has, 0 ... names - 1; -1 where it has none of them or is not listed.
 * group [s->count]; *unlisted: images that the file misses. file: NULL: the folder's own. ISO_E_NOT_FOUND: a name that the file does not have, with
 * those that it has, or no attribute file. */
ISO_CHECK iso_status iso_sample_groups(const iso_sample *s, const char *dir, const char *file, int names,
                                       const char *const *name, int *group, int64_t *unlisted, iso_error *err);

#endif
