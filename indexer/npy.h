/* npy.h: NumPy's .npy files: versions 1, 2 and 3, float32 or float64 of either byte order, C order, two dimensions, read
 * row by row; float32 written, whole or not at all. Every length is checked against the file before it is used. */
#ifndef ISO_NPY_H
#define ISO_NPY_H

#include <stdint.h>
#include "base/file.h"

typedef struct iso_npy iso_npy;

/* ISO_E_FORMAT: no .npy file, or not as long as its header says. ISO_E_UNSUPPORTED: one of another type, order or shape;
 * the message says how to convert it. */
ISO_CHECK iso_status iso_npy_open(const char *path, iso_npy **out, iso_error *err);
void iso_npy_close(iso_npy *f);
int64_t iso_npy_rows(const iso_npy *f);
int64_t iso_npy_cols(const iso_npy *f);
/* Rows first ... first + n - 1 as float [n, cols]; a float64 beyond float's range becomes an infinity. Any number of threads. */
ISO_CHECK iso_status iso_npy_read(iso_npy *f, int64_t first, int64_t n, float *out, iso_error *err);

/* Writing: as many rows as were announced, in order, then commit. */
typedef struct iso_npy_writer iso_npy_writer;
ISO_CHECK iso_status iso_npy_create(const char *path, int64_t rows, int64_t cols, iso_npy_writer **out, iso_error *err);
ISO_CHECK iso_status iso_npy_write(iso_npy_writer *w, const float *rows, int64_t n, iso_error *err);
ISO_CHECK iso_status iso_npy_commit(iso_npy_writer *w, iso_error *err); /* frees w in every case */
/* With another file that belongs to it, as iso_file_commit_both(beside, the vectors); frees both in every case. */
ISO_CHECK iso_status iso_npy_commit_with(iso_npy_writer *w, iso_file *beside, iso_error *err);
void iso_npy_abort(iso_npy_writer *w); /* NULL is fine */

#endif
