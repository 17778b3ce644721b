/* image.c: files, formats, crop and orientation. The decoders are in image_jpeg.c and image_png.c. */
#include "indexer/image.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include "base/memory.h"
#include "indexer/image_codec.h"

#define LEAST_SIDE 128      /* of a crop that was decoded small: twice the encoder's input */
#define LARGE (32 << 20)    /* pixels */

/* --- limits ------------------------------------------------------------------------------------------------------ */

iso_status iso_picture_check(int64_t width, int64_t height, iso_error *err)
{
    if (width < 1 || height < 1) return iso_fail(err, ISO_E_FORMAT, "a picture without pixels");
    if (width > ISO_IMAGE_MAX_SIDE || height > ISO_IMAGE_MAX_SIDE)
        return iso_fail(err, ISO_E_FORMAT, "%lld x %lld pixels: more than the %d allowed on a side", (long long)width, (long long)height,
                        ISO_IMAGE_MAX_SIDE);
    if (width > (int64_t)ISO_IMAGE_MAX_PIXELS / height)
        return iso_fail(err, ISO_E_FORMAT, "%lld x %lld pixels: more than the %u million allowed", (long long)width, (long long)height,
                        ISO_IMAGE_MAX_PIXELS / 1000000);
    return ISO_OK;
}

static pthread_mutex_t large_turn = PTHREAD_MUTEX_INITIALIZER;

void iso_picture_enter(int64_t width, int64_t height)
{
    if (width * height > LARGE) pthread_mutex_lock(&large_turn);
}

void iso_picture_leave(int64_t width, int64_t height)
{
    if (width * height > LARGE) pthread_mutex_unlock(&large_turn);
}

/* --- files ------------------------------------------------------------------------------------------------------- */

/* Opens the folders of an over-long path one piece at a time: the piece's length is what open(2) limits. */
static int open_long(const char *path, int flags)
{
    int at = AT_FDCWD;
    for (size_t left = strlen(path);;) {
        char piece[PATH_MAX];
        size_t n = left;
        if (n >= sizeof piece)
            for (n = sizeof piece - 1; n > 0 && path[n] != '/'; n--) {}
        if (n == 0) {
            errno = ENAMETOOLONG;
            n = left + 1;
        } else {
            memcpy(piece, path, n);
            piece[n] = 0;
        }
        bool last = n == left;
        int fd = n > left ? -1 : openat(at, piece, last ? flags | O_CLOEXEC : O_PATH | O_DIRECTORY | O_CLOEXEC);
        int why = errno;
        if (at != AT_FDCWD) close(at);
        errno = why;
        if (fd < 0 || last) return fd;
        at = fd;
        for (path += n, left -= n; *path == '/'; path++) left--;
        if (left == 0) {
            path = ".";
            left = 1;
        }
    }
}

int iso_path_open(const char *path, int flags)
{
    int fd = open(path, flags | O_CLOEXEC);
    return fd < 0 && errno == ENAMETOOLONG ? open_long(path, flags) : fd;
}

int iso_path_stat(const char *path, struct stat *st)
{
    if (stat(path, st) == 0) return 0;
    int fd = errno == ENAMETOOLONG ? iso_path_open(path, O_PATH) : -1;
    if (fd < 0) return -1;
    int failed = fstat(fd, st), why = errno;
    close(fd);
    errno = why;
    return failed;
}

/* st_size is only a guess at how much there is to read: the file may be growing. */
static iso_status read_all(int fd, int64_t guess, iso_image_file *f, iso_error *err)
{
    enum { KEEP = 1 << 20 }; /* larger blocks are not held for the next file */
    if (f->capacity > KEEP) iso_image_file_free(f);
    f->size = 0;
    if (!iso_grow(&f->data, &f->capacity, (size_t)guess + 1, 1)) return iso_fail_memory(err);
    for (;;) {
        const ssize_t got = TEMP_FAILURE_RETRY(read(fd, f->data + f->size, f->capacity - f->size));
        if (got < 0) return iso_fail_errno(err, "cannot read");
        if (got == 0) return ISO_OK;
        f->size += (size_t)got;
        if (f->size > ISO_IMAGE_MAX_FILE) return iso_fail(err, ISO_E_FORMAT, "larger than the %u MiB allowed", ISO_IMAGE_MAX_FILE >> 20);
        if (f->size == f->capacity && !iso_grow(&f->data, &f->capacity, f->size + 1, 1)) return iso_fail_memory(err);
    }
}

static iso_status read_file(const char *path, iso_image_file *f, iso_error *err)
{
    struct stat st;
    iso_status status;
    int fd = iso_path_open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY); /* a FIFO would block otherwise */
    if (fd < 0 && errno == ENXIO) return iso_fail(err, ISO_E_IO, "not a regular file"); /* a socket */
    if (fd < 0) return iso_fail_errno(err, "cannot open");
    if (fstat(fd, &st) != 0) status = iso_fail_errno(err, "cannot stat");
    else if (S_ISDIR(st.st_mode)) status = iso_fail(err, ISO_E_IO, "a folder, not an image");
    else if (!S_ISREG(st.st_mode)) status = iso_fail(err, ISO_E_IO, "not a regular file");
    else if (st.st_size > (off_t)ISO_IMAGE_MAX_FILE)
        status = iso_fail(err, ISO_E_FORMAT, "larger than the %u MiB allowed", ISO_IMAGE_MAX_FILE >> 20);
    else status = read_all(fd, st.st_size, f, err);
    close(fd);
    if (!status) f->mtime_ns = (int64_t)st.st_mtim.tv_sec * 1000000000 + st.st_mtim.tv_nsec;
    return status;
}

iso_status iso_image_file_read(const char *path, iso_image_file *file, iso_error *err)
{
    iso_status status = read_file(path, file, err);
    if (status) {
        file->size = 0;
        return status;
    }
    XXH128_hash_t hash = XXH3_128bits(file->data, file->size);
    file->hash[0] = hash.low64;
    file->hash[1] = hash.high64;
    return ISO_OK;
}

void iso_image_file_free(iso_image_file *file)
{
    free(file->data);
    *file = (iso_image_file){0};
}

/* --- pictures ---------------------------------------------------------------------------------------------------- */

static iso_status decode_picture(const uint8_t *data, size_t size, int least, iso_picture *out, iso_error *err)
{
    static const uint8_t png[8] = {0x89, 'P', 'N', 'G', '\r', '\n', 0x1A, '\n'};
    if (size == 0) return iso_fail(err, ISO_E_FORMAT, "empty file");
    if (size >= 2 && data[0] == 0xFF && data[1] == 0xD8) return iso_jpeg_decode(data, size, least, out, err);
    if (size >= 4 && memcmp(data, png, size < 8 ? size : 8) == 0)
        return size < 8 ? iso_fail(err, ISO_E_FORMAT, "truncated PNG") : iso_png_decode(data, size, out, err);
    return iso_fail(err, ISO_E_FORMAT, "not a JPEG or PNG");
}

/* An orientation as steps from an upright position to a stored one: swap the axes, then mirror each. */
static void orientation_steps(int orientation, bool *swap, bool *mirror_x, bool *mirror_y)
{
    *swap = iso_exif_swaps(orientation);
    *mirror_x = orientation == 2 || orientation == 3 || orientation == 7 || orientation == 8;
    *mirror_y = orientation == 3 || orientation == 4 || orientation == 6 || orientation == 7;
}

/* The square n x n is turned after resampling, which is cheaper than turning the picture and gives the same bytes: the
 * crop is laid out on the upright picture and carried over to the stored one. */
static void crop_upright(const iso_picture *p, int n, uint8_t *scratch, uint8_t *out)
{
    bool swap, mirror_x, mirror_y;
    int x, y, side;
    orientation_steps(p->orientation, &swap, &mirror_x, &mirror_y);
    if (swap) iso_crop(p->height, p->width, &y, &x, &side);
    else iso_crop(p->width, p->height, &x, &y, &side);
    if (mirror_x) x = p->width - side - x;
    if (mirror_y) y = p->height - side - y;
    bool turn = swap || mirror_x || mirror_y;
    iso_resample_eighths(p->rgb, p->stride, (int64_t)x * p->eighths, (int64_t)y * p->eighths, (int64_t)side * p->eighths, n,
                         turn ? scratch : out);
    if (!turn) return;
    for (int v = 0; v < n; v++)
        for (int u = 0; u < n; u++) {
            int sx = swap ? v : u, sy = swap ? u : v;
            if (mirror_x) sx = n - 1 - sx;
            if (mirror_y) sy = n - 1 - sy;
            memcpy(out + 3 * ((int64_t)v * n + u), scratch + 3 * ((int64_t)sy * n + sx), 3);
        }
}

iso_status iso_image_file_decode(const iso_image_file *file, uint8_t out[ISO_PIXELS], iso_image_info *info, iso_error *err)
{
    iso_picture p;
    uint8_t scratch[ISO_PIXELS];
    iso_status status = decode_picture(file->data, file->size, LEAST_SIDE, &p, err);
    if (status) return status;
    crop_upright(&p, ISO_SIDE, scratch, out);
    free(p.rgb);
    bool swap = iso_exif_swaps(p.orientation);
    if (info)
        *info = (iso_image_info){.width = swap ? p.height : p.width, .height = swap ? p.width : p.height,
                                 .hash = {file->hash[0], file->hash[1]}, .size = (int64_t)file->size, .mtime_ns = file->mtime_ns};
    return ISO_OK;
}

iso_status iso_image_read(const char *path, uint8_t out[ISO_PIXELS], iso_image_info *info, iso_error *err)
{
    iso_image_file file = {0};
    iso_status status = iso_image_file_read(path, &file, err);
    if (!status) status = iso_image_file_decode(&file, out, info, err);
    iso_image_file_free(&file);
    return status;
}

iso_status iso_image_thumbnail(const char *path, int side, uint8_t **rgb, iso_error *err)
{
    uint8_t *out = NULL, *scratch = NULL;
    iso_image_file file = {0};
    iso_picture p = {0};
    if (side < 1 || side > ISO_IMAGE_MAX_THUMBNAIL)
        return iso_fail(err, ISO_E_ARGUMENT, "a thumbnail has 1 to %d pixels a side, not %d", ISO_IMAGE_MAX_THUMBNAIL, side);
    iso_status status = read_file(path, &file, err);
    if (!status) status = decode_picture(file.data, file.size, side > LEAST_SIDE ? side : LEAST_SIDE, &p, err);
    if (status) goto done;
    size_t pixels = (size_t)side * (size_t)side;
    out = iso_calloc(pixels, 3);
    scratch = iso_calloc(pixels, 3);
    if (!out || !scratch) {
        free(out);
        status = iso_fail_memory(err);
        goto done;
    }
    crop_upright(&p, side, scratch, out);
    *rgb = out;
done:
    free(scratch);
    free(p.rgb);
    iso_image_file_free(&file);
    return status;
}
