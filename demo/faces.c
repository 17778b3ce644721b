/* faces.c: writes drawn faces as a data set in CelebA's layout. */
#include "demo/faces.h"

#include <dirent.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <turbojpeg.h>
#include <unistd.h>

#include "base/file.h"
#include "base/memory.h"
#include "base/progress.h"
#include "demo/face.h"
#include "indexer/dataset.h"

static const char MARK[] = "drawfaces.txt"; /* tells a folder of drawn faces from one that must not be touched */
static const char IMAGES[] = "img_align_celeba";

/* ---- the folder ---- */

/* Entries other than "." and ".."; -1: cannot be read. */
static int folder_entries(const char *dir)
{
    DIR *d = opendir(dir);
    if (!d) return -1;
    int n = 0;
    for (struct dirent *e; (e = readdir(d));) n += strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0;
    closedir(d);
    return n;
}

static iso_status make_folder(const char *dir, iso_error *err)
{
    if (mkdir(dir, 0777) == 0) return ISO_OK;
    if (errno != EEXIST) return iso_fail_errno(err, "cannot make the folder %s", dir);
    struct stat st;
    if (stat(dir, &st)) return iso_fail_errno(err, "cannot read %s", dir);
    if (!S_ISDIR(st.st_mode)) return iso_fail(err, ISO_E_ARGUMENT, "%s is there already and is no folder", dir);
    return ISO_OK;
}

static bool is_picture_name(const char *name)
{
    size_t digits = strspn(name, "0123456789");
    return digits == 6 && strcmp(name + digits, ".jpg") == 0;
}

/* Pictures of an earlier, longer run would be images without attributes. */
static iso_status remove_pictures(const char *images, iso_error *err)
{
    DIR *d = opendir(images);
    if (!d) return errno == ENOENT ? ISO_OK : iso_fail_errno(err, "cannot read the folder %s", images);
    iso_status status = ISO_OK;
    for (struct dirent *e; status == ISO_OK && (e = readdir(d));)
        if (is_picture_name(e->d_name) && unlinkat(dirfd(d), e->d_name, 0)) status = iso_fail_errno(err, "cannot remove %s/%s", images, e->d_name);
    closedir(d);
    return status;
}

static iso_status write_text(const char *dir, const char *name, iso_status (*fill)(FILE *, const iso_faces_spec *, iso_error *),
                             const iso_faces_spec *spec, iso_error *err)
{
    char *path = iso_path_join(dir, name);
    if (!path) return iso_fail_memory(err);
    iso_file *f = NULL;
    iso_status status = iso_file_create(path, &f, err);
    if (status == ISO_OK && (status = fill(iso_file_stream(f), spec, err)) == ISO_OK) {
        status = iso_file_commit(f, err);
        f = NULL;
    }
    iso_file_abort(f);
    free(path);
    return status;
}

static iso_status fill_mark(FILE *out, const iso_faces_spec *spec, iso_error *err)
{
    (void)err;
    fprintf(out, "Faces drawn by Isoface %s: count %lld, seed %llu.\nNo photographs. drawfaces --force replaces what is in this folder.\n", ISO_VERSION,
            (long long)spec->count, (unsigned long long)spec->seed);
    return ISO_OK;
}

/* A fresh folder, or one of drawn faces emptied; its mark is written before the first picture. */
static iso_status prepare(const char *dir, const char *images, const iso_faces_spec *spec, iso_error *err)
{
    static const char *const list[] = {ISO_DATASET_ATTRIBUTES, ISO_DATASET_PARTITION};
    iso_status status = make_folder(dir, err);
    if (status) return status;
    int entries = folder_entries(dir);
    if (entries < 0) return iso_fail_errno(err, "cannot read the folder %s", dir);
    if (entries > 0) {
        char *mark = iso_path_join(dir, MARK);
        if (!mark) return iso_fail_memory(err);
        bool drawn = access(mark, F_OK) == 0;
        free(mark);
        if (!drawn) return iso_fail(err, ISO_E_ARGUMENT, "%s is not empty and holds no drawn faces: choose another folder", dir);
        if (!spec->force) return iso_fail(err, ISO_E_ARGUMENT, "%s holds drawn faces already: --force replaces them", dir);
        if ((status = remove_pictures(images, err))) return status;
    }
    for (int i = 0; i < 2; i++) {
        char *path = iso_path_join(dir, list[i]);
        if (!path) return iso_fail_memory(err);
        if (unlink(path) && errno != ENOENT) status = iso_fail_errno(err, "cannot remove %s", path);
        free(path);
        if (status) return status;
    }
    if ((status = write_text(dir, MARK, fill_mark, spec, err))) return status;
    return make_folder(images, err);
}

/* ---- pictures ---- */

static iso_status write_picture(const char *images, int64_t number, const unsigned char *data, size_t size, iso_error *err)
{
    char *path = iso_format("%s/%06lld.jpg", images, (long long)number);
    if (!path) return iso_fail_memory(err);
    iso_status status = ISO_OK;
    FILE *f = fopen(path, "wb");
    bool good = f && fwrite(data, 1, size, f) == size;
    if (f && fclose(f)) good = false;
    if (!good) {
        status = iso_fail_errno(err, "cannot write %s", path);
        if (f) unlink(path); /* half a picture helps nobody */
    }
    free(path);
    return status;
}

static int jpeg_quality(uint64_t seed, int64_t number)
{
    iso_face_rng r = iso_face_rng_start(seed, number, ISO_FACE_FOR_FILE);
    return (int)iso_face_rand(&r, 70, 96);
}

static iso_status draw_picture(tjhandle jpeg, const char *images, uint64_t seed, int64_t number, iso_error *err)
{
    uint8_t has[ISO_FACE_ATTRIBUTES], rgb[ISO_FACE_BYTES];
    iso_face_traits(seed, number, has);
    iso_status status = iso_face_draw(seed, number, has, rgb, err);
    if (status) return status;
    unsigned char *data = NULL;
    unsigned long size = 0;
    if (tjCompress2(jpeg, rgb, ISO_FACE_WIDTH, 0, ISO_FACE_HEIGHT, TJPF_RGB, &data, &size, TJSAMP_420, jpeg_quality(seed, number), TJFLAG_ACCURATEDCT))
        status = iso_fail(err, ISO_E_INTERNAL, "cannot compress face %lld: %s", (long long)number, tjGetErrorStr2(jpeg));
    else
        status = write_picture(images, number, data, size, err);
    tjFree(data);
    return status;
}

static iso_status draw_pictures(const char *images, const iso_faces_spec *spec, iso_error *err)
{
    iso_status first = ISO_OK;
    iso_error why = {0};
    int64_t done = 0;
    iso_progress progress;
    iso_progress_open(&progress, spec->quiet);
    iso_progress_pass(&progress, "drawing", "faces", spec->count);
#pragma omp parallel
    {
        tjhandle jpeg = tjInitCompress();
#pragma omp for schedule(dynamic, 8)
        for (int64_t i = 1; i <= spec->count; i++) {
            iso_status stop;
#pragma omp atomic read
            stop = first;
            if (stop) continue;
            iso_error e = {0};
            iso_status status = iso_interrupted() ? iso_fail(&e, ISO_E_INTERRUPTED, "interrupted: --force begins again")
                              : !jpeg             ? iso_fail_memory(&e)
                                                  : draw_picture(jpeg, images, spec->seed, i, &e);
#pragma omp critical(faces)
            {
                if (status && !first) {
                    why = e;
#pragma omp atomic write
                    first = status;
                }
                iso_progress_step(&progress, ++done);
            }
        }
        if (jpeg) tjDestroy(jpeg);
    }
    iso_progress_end(&progress);
    return first ? iso_fail(err, first, "%s", why.message) : ISO_OK;
}

/* ---- lists ---- */

static iso_status fill_attributes(FILE *out, const iso_faces_spec *spec, iso_error *err)
{
    (void)err;
    fprintf(out, "%lld\n", (long long)spec->count);
    for (int a = 0; a < ISO_FACE_ATTRIBUTES; a++) fprintf(out, "%s ", iso_face_attribute[a]);
    fputc('\n', out);
    for (int64_t i = 1; i <= spec->count; i++) {
        uint8_t has[ISO_FACE_ATTRIBUTES];
        iso_face_traits(spec->seed, i, has);
        fprintf(out, "%06lld.jpg", (long long)i);
        for (int a = 0; a < ISO_FACE_ATTRIBUTES; a++) fputs(has[a] ? "  1" : " -1", out);
        fputc('\n', out);
    }
    return ISO_OK; /* a failed write shows at the commit */
}

static iso_status fill_partition(FILE *out, const iso_faces_spec *spec, iso_error *err)
{
    (void)err;
    int64_t train = llround(spec->train * (double)spec->count), valid = llround(spec->valid * (double)spec->count);
    for (int64_t i = 1; i <= spec->count; i++) fprintf(out, "%06lld.jpg %d\n", (long long)i, i <= train ? 0 : i <= train + valid ? 1 : 2);
    return ISO_OK;
}

iso_status iso_faces_write(const char *dir, const iso_faces_spec *spec, iso_error *err)
{
    if (spec->count < 1 || spec->count > ISO_FACES_MAX) return iso_fail(err, ISO_E_ARGUMENT, "the count of faces is from 1 to %d", ISO_FACES_MAX);
    if (!(spec->train >= 0 && spec->valid >= 0 && spec->train + spec->valid <= 1 + 1e-9))
        return iso_fail(err, ISO_E_ARGUMENT, "the shares that train and validate are 0 or more and together at most 1");
    char *images = iso_path_join(dir, IMAGES);
    if (!images) return iso_fail_memory(err);
    iso_status status = prepare(dir, images, spec, err);
    if (status == ISO_OK) status = draw_pictures(images, spec, err);
    if (status == ISO_OK) status = write_text(dir, ISO_DATASET_ATTRIBUTES, fill_attributes, spec, err);
    if (status == ISO_OK) status = write_text(dir, ISO_DATASET_PARTITION, fill_partition, spec, err);
    free(images);
    return status;
}
