/* image.h: from a file to the encoder's 64 x 64 RGB, or a reason why not.
 *
 * JPEG (baseline, progressive, gray, CMYK, YCCK; any EXIF orientation) through TurboJPEG with DCT scaling as long as
 * the crop's side stays >= 128; PNG (palette, gray, 16 bit, alpha over white) through libpng. By content, not by name.
 *
 * What is refused rather than guessed at: any JPEG that libjpeg warns about, except for junk between the header's
 * segments, an unknown JFIF revision, and padding between the picture and the end marker; a JPEG without its end
 * marker or without data for one of its components; any PNG with a wrong checksum, or whose transparency or palette
 * does not fit. Damage inside a JPEG's data that still makes a valid stream cannot be seen: JPEG has no checksum.
 * Colour profiles and PNG's gamma are ignored, as by most viewers of thumbnails.
 *
 * Thread-safe: any number of threads may decode at once (pictures above 32 Mi pixels take turns, so that memory stays
 * bounded). Outputs are set only on ISO_OK. */
#ifndef ISO_IMAGE_H
#define ISO_IMAGE_H

#include <sys/stat.h>
#include "base/progress.h"
#include "model/preprocess.h"

#define ISO_IMAGE_MAX_FILE (256u << 20) /* bytes; larger files are refused */
#define ISO_IMAGE_MAX_PIXELS (100u << 20) /* width x height, before DCT scaling; larger pictures are refused before they are decoded */
#define ISO_IMAGE_MAX_SIDE 65535 /* JPEG's own limit; a longer PNG is refused, as every row costs memory beside its pixels */
#define ISO_IMAGE_MAX_THUMBNAIL 4096

typedef struct iso_image_info {
    int width, height;  /* oriented, as a viewer shows it */
    uint64_t hash[2];   /* XXH3 128 of the file's bytes: low half, high half */
    int64_t size;       /* bytes */
    int64_t mtime_ns;
} iso_image_info;

/* Reads and decodes. A picture that is truncated, corrupt or no picture is ISO_E_FORMAT with a reason (no path in the
 * message: the caller has it); a file that cannot be read, or is a folder, FIFO or device, ISO_E_IO (opening never
 * blocks). `info` may be NULL. */
ISO_CHECK iso_status iso_image_read(const char *path, uint8_t out[ISO_PIXELS], iso_image_info *info, iso_error *err);

/* One of many images, and what came of it. */
typedef struct iso_decoding {
    const char *path;   /* below the folder */
    uint64_t hash[2];   /* out: as in iso_image_info */
    char *reason;       /* out: why it cannot be used, in fresh memory; NULL: it can */
} iso_decoding;
/* Reads and decodes n images of a folder in parallel, on `threads` (0: all), into pixels [n, 64, 64, 3]; one that cannot be used is no failure. image [n]: zeroed
 * but for the paths. The progress, drawn by the calling thread only, goes on from `before`. ISO_E_INTERRUPTED when iso_interrupted. What it has
 * noted is the caller's also after a failure. */
ISO_CHECK iso_status iso_images_decode(const char *folder, int64_t n, iso_decoding *image, uint8_t *pixels, int threads, iso_progress *progress,
                                       int64_t before, iso_error *err);

/* iso_image_read in two steps. A file's bytes: zeroed before the first use, used again by the next read (a large block is given
 * back first), kept until iso_image_file_free. After a failed read there are none. */
typedef struct iso_image_file {
    uint8_t *data;
    size_t size, capacity;
    int64_t mtime_ns;
    uint64_t hash[2];   /* as in iso_image_info */
} iso_image_file;
ISO_CHECK iso_status iso_image_file_read(const char *path, iso_image_file *file, iso_error *err);
ISO_CHECK iso_status iso_image_file_decode(const iso_image_file *file, uint8_t out[ISO_PIXELS], iso_image_info *info, iso_error *err);
void iso_image_file_free(iso_image_file *file);

/* The oriented, centre-cropped picture at side x side RGB (fresh memory) for contact sheets; side 1 ... 4096. */
ISO_CHECK iso_status iso_image_thumbnail(const char *path, int side, uint8_t **rgb, iso_error *err);

/* open(2), close-on-exec, for a path of any length: below PATH_MAX the very call, above it folder by folder.
 * -1 and errno on failure. */
int iso_path_open(const char *path, int flags);
/* The same of stat(2). */
int iso_path_stat(const char *path, struct stat *st);

#endif
