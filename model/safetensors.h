/* safetensors.h: reading and writing .safetensors files; every length and offset is checked before it is used.
 *
 * The format: 8 bytes little-endian header length n, n bytes of JSON {"__metadata__": {string: string}, "name":
 * {"dtype", "shape", "data_offsets": [begin, end]}, ...}, each name once and no others, then the tensors, which fill the rest without gap or
 * overlap.
 * A loaded file is read-only, but for iso_st_floats, and may be shared by threads. */
#ifndef ISO_SAFETENSORS_H
#define ISO_SAFETENSORS_H

#include "model/graph/graph.h"

typedef enum iso_st_dtype { ISO_ST_F32, ISO_ST_F64, ISO_ST_I64, ISO_ST_OTHER } iso_st_dtype;

#define ISO_ST_MAX_DIMS 8

typedef struct iso_st_tensor {
    char *name;
    iso_st_dtype dtype;
    int ndim;               /* up to ISO_ST_MAX_DIMS on reading; 0 is a scalar */
    int64_t dim[ISO_ST_MAX_DIMS];
    int64_t count;          /* elements */
    const void *data;       /* little-endian, inside the file's memory; may be unaligned: use iso_st_f32 ... */
} iso_st_tensor;

typedef struct iso_st iso_st;
ISO_CHECK iso_status iso_st_load(const char *path, iso_st **out, iso_error *err); /* ISO_E_FORMAT when it is not one, never for want of memory */
/* A file in memory (copied); `path` is for messages. */
ISO_CHECK iso_status iso_st_parse(const void *data, size_t size, const char *path, iso_st **out, iso_error *err);
void iso_st_free(iso_st *f);
int iso_st_count(const iso_st *f);
const iso_st_tensor *iso_st_at(const iso_st *f, int i);            /* in the header's order; lives as long as the file */
const iso_st_tensor *iso_st_find(const iso_st *f, const char *name); /* NULL: none */
const char *iso_st_meta(const iso_st *f, const char *key);         /* of __metadata__; NULL: none */
int iso_st_meta_count(const iso_st *f);
const char *iso_st_meta_key(const iso_st *f, int i);
/* All elements converted, t->count of them. dtype must be F32/F64 for the first two, I64 for the third. */
ISO_CHECK iso_status iso_st_f32(const iso_st_tensor *t, float *out, iso_error *err);
ISO_CHECK iso_status iso_st_f64(const iso_st_tensor *t, double *out, iso_error *err);
ISO_CHECK iso_status iso_st_i64(const iso_st_tensor *t, int64_t *out, iso_error *err);
/* A tensor of type F32 as it lies in the file's memory, which is the caller's to change; NULL where it is of another type, or unaligned. */
float *iso_st_floats(iso_st *f, const iso_st_tensor *t);
/* Whether the tensor has exactly this shape. */
bool iso_st_is_shape(const iso_st_tensor *t, const iso_shape *shape);
/* "[2, 3]" into buf. */
const char *iso_st_shape_text(const iso_st_tensor *t, char buf[192]);

typedef struct iso_st_meta_pair { const char *key, *value; } iso_st_meta_pair; /* UTF-8 */
typedef struct iso_st_out { const char *name; iso_shape shape; const float *data; } iso_st_out;
/* Writes F32 tensors, atomically (temporary, fsync, rename); the data begin at a multiple of 8 bytes. */
ISO_CHECK iso_status iso_st_save(const char *path, int tensors, const iso_st_out *tensor, int pairs, const iso_st_meta_pair *pair, iso_error *err);

#endif
