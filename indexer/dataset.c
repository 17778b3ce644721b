/* dataset.c: a folder of images, decoded into memory with the part that each plays.
 *
 * Everything is kept in the listing's order (by path) at every step, so that neither the number of threads nor their
 * timing shows in the result. */
#include "indexer/dataset.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/file.h"
#include "base/host_memory.h"
#include "base/memory.h"

#define HELD_OUT 20 /* one of so many validates where no partition says which */

/* One listed file on its way into the set. */
typedef struct item {
    char *path;         /* taken over from the listing */
    char *reason;       /* why it is skipped; NULL: it is not */
    uint64_t hash[2];
    int64_t row;        /* its place among the pixels, -1: not to be decoded */
    int part;           /* -1: not known yet */
} item;

typedef struct loader {
    iso_dataset *set;
    item *items;
    size_t count;
    int64_t rows;
    bool split;         /* some of the training images are held out by their content */
    iso_dataset_fits *fits;
    void *ctx;
    iso_error *err;
} loader;

/* --- where things are -------------------------------------------------------------------------------------------- */

static bool is_kind(const char *path, mode_t kind)
{
    struct stat st;
    return stat(path, &st) == 0 && (st.st_mode & S_IFMT) == kind;
}

char *iso_dataset_image_dir(const char *dir)
{
    char *inner = iso_path_join(dir, "img_align_celeba");
    if (!inner || is_kind(inner, S_IFDIR)) return inner;
    free(inner);
    size_t n = strlen(dir);
    while (n > 1 && dir[n - 1] == '/') n--;
    return iso_strndup(dir, n);
}

/* The path of dir's `name` when that is a file, NULL when it is not; false: out of memory. */
static bool find_text(const char *dir, const char *name, char **out)
{
    char *path = iso_path_join(dir, name);
    if (!path) return false;
    if (is_kind(path, S_IFREG)) {
        *out = path;
    } else {
        free(path);
        *out = NULL;
    }
    return true;
}

/* --- steps ------------------------------------------------------------------------------------------------------- */

static bool skip(item *it, const char *reason)
{
    free(it->reason);
    it->reason = iso_strndup(reason, strlen(reason));
    it->row = -1;
    return it->reason != NULL;
}

bool iso_dataset_is_list(const char *path) { return strcmp(path, ISO_DATASET_ATTRIBUTES) == 0 || strcmp(path, ISO_DATASET_PARTITION) == 0; }

/* Takes over the listing's paths, those skipped with their reasons included. */
static iso_status take_listing(loader *l, iso_listing *list)
{
    l->items = iso_calloc(list->count + list->skipped, sizeof *l->items);
    if (!l->items) return iso_fail_memory(l->err);
    size_t a = 0, b = 0;
    while (a < list->count || b < list->skipped) {
        bool file = b == list->skipped || (a < list->count && strcmp(list->path[a], list->skip_path[b]) <= 0);
        char **path = file ? &list->path[a] : &list->skip_path[b];
        if (file && iso_dataset_is_list(*path)) {
            a++;
            continue;
        }
        l->items[l->count] = (item){.path = *path, .row = -1, .part = -1};
        *path = NULL;
        if (!file) {
            l->items[l->count].reason = list->skip_reason[b];
            list->skip_reason[b] = NULL;
        }
        l->count++;
        if (file) a++;
        else b++;
    }
    return ISO_OK;
}

static iso_status assign_parts(loader *l)
{
    iso_partition *partition = NULL;
    if (l->set->partition_file) {
        iso_status status = iso_partition_read(l->set->partition_file, &partition, l->err);
        if (status) return status;
    }
    bool memory = true;
    l->split = true;
    for (size_t i = 0; i < l->count && memory; i++) {
        item *it = &l->items[i];
        if (it->reason) continue;
        it->part = partition ? iso_partition_find(partition, it->path) : ISO_PART_TRAIN;
        if (it->part < 0) memory = skip(it, "not listed in the partition file");
        if (it->part == ISO_PART_VALID) l->split = false;
    }
    iso_partition_free(partition);
    return memory ? ISO_OK : iso_fail_memory(l->err);
}

/* Where contents decide who validates, as many as there may well be (within four standard deviations) of each part. */
static void expect_split(int64_t images, int64_t of_part[])
{
    const double held = (double)images / HELD_OUT, spread = 4 * sqrt(held);
    const int64_t most = (int64_t)ceil(held + spread), least = (int64_t)fmax(held - spread, 0);
    of_part[ISO_PART_TRAIN] = images - least;
    of_part[ISO_PART_VALID] = most < images ? most : images ? images - 1 : 0;
}

/* Rows for what must be decoded. Whether a training image is held out is known only once its content is. */
static iso_status assign_rows(loader *l, unsigned parts)
{
    unsigned wanted = parts;
    if (l->split && (parts & 1u << ISO_PART_VALID)) wanted |= 1u << ISO_PART_TRAIN;
    if (l->split && (parts & 1u << ISO_PART_TRAIN)) wanted |= 1u << ISO_PART_TRAIN;
    int64_t of_part[ISO_PART_TEST + 1] = {0};
    for (size_t i = 0; i < l->count; i++) {
        item *it = &l->items[i];
        if (it->reason || it->part < 0 || !(wanted & 1u << it->part)) continue;
        it->row = l->rows++;
        of_part[it->part]++;
    }
    const size_t bytes = (size_t)l->rows * ISO_PIXELS, room = iso_host_memory();
    if (bytes > room)
        return iso_fail(l->err, ISO_E_MEMORY, "out of memory: %lld images need %.2f GiB of memory, where %.2f are free; use fewer",
                        (long long)l->rows, (double)bytes / (1 << 30), (double)room / (1 << 30));
    if (l->split && (parts & 1u << ISO_PART_VALID)) expect_split(l->rows, of_part);
    iso_status status = l->fits ? l->fits(l->ctx, of_part[ISO_PART_TRAIN], of_part[ISO_PART_VALID], l->err) : ISO_OK;
    if (status) return status;
    l->set->pixels = iso_calloc((size_t)l->rows, ISO_PIXELS); /* untouched until written to: fresh pages cost nothing */
    return l->set->pixels ? ISO_OK : iso_fail_memory(l->err);
}

static iso_status decode_all(loader *l, int threads, iso_progress *progress)
{
    iso_decoding *image = iso_calloc((size_t)l->rows, sizeof *image);
    if (!image) return iso_fail_memory(l->err);
    for (size_t i = 0; i < l->count; i++)
        if (l->items[i].row >= 0) image[l->items[i].row].path = l->items[i].path;
    iso_progress_pass(progress, "decoding", "images", l->rows);
    iso_status status = iso_images_decode(l->set->image_dir, l->rows, image, l->set->pixels, threads, progress, 0, l->err);
    for (item *it = l->items; it < l->items + l->count; it++) {
        if (it->row < 0) continue;
        const iso_decoding *d = &image[it->row];
        memcpy(it->hash, d->hash, sizeof it->hash);
        it->reason = d->reason;
        if (it->reason) it->row = -1;
    }
    free(image);
    return status;
}

static bool same_hash(const item *a, const item *b)
{
    return a->hash[0] == b->hash[0] && a->hash[1] == b->hash[1];
}

static bool lower_hash(const item *a, const item *b)
{
    return a->hash[1] != b->hash[1] ? a->hash[1] < b->hash[1] : a->hash[0] < b->hash[0];
}

static bool is_training(const item *it)
{
    return it->row >= 0 && it->part == ISO_PART_TRAIN;
}

/* Of the images of `from`, the one whose content comes first (or last) goes over to `to`, with its copies, unless there
 * is nothing but copies. */
static void move_extreme(loader *l, bool lowest, iso_part from, iso_part to)
{
    item *best = NULL;
    bool all_same = true;
    for (size_t i = 0; i < l->count; i++) {
        item *it = &l->items[i];
        if (it->row < 0 || it->part != (int)from) continue;
        if (best && !same_hash(it, best)) all_same = false;
        if (!best || (lowest ? lower_hash(it, best) : lower_hash(best, it))) best = it;
    }
    if (!best) return;
    const item chosen = *best;
    for (item *it = l->items; it < l->items + l->count; it++)
        if (it == best || (!all_same && it->row >= 0 && it->part == (int)from && same_hash(it, &chosen))) it->part = to;
}

/* By content, so that copies fall on the same side and the choice moves with no renaming. */
static void hold_out(loader *l)
{
    size_t train = 0, held = 0;
    for (size_t i = 0; i < l->count; i++) train += is_training(&l->items[i]);
    for (size_t i = 0; i < l->count; i++) {
        item *it = &l->items[i];
        if (!is_training(it) || it->hash[0] % HELD_OUT) continue;
        it->part = ISO_PART_VALID;
        held++;
    }
    if (train < 2) {
        for (size_t i = 0; i < l->count; i++)
            if (l->items[i].row >= 0 && l->items[i].part == ISO_PART_VALID) l->items[i].part = ISO_PART_TRAIN;
        return;
    }
    if (held == 0) move_extreme(l, true, ISO_PART_TRAIN, ISO_PART_VALID);
    if (held == train) move_extreme(l, false, ISO_PART_VALID, ISO_PART_TRAIN);
}

/* Moves the rows that stay together and everything over into the set. */
static iso_status collect(loader *l, unsigned parts)
{
    iso_dataset *d = l->set;
    size_t keep = 0, skipped = 0;
    for (size_t i = 0; i < l->count; i++) {
        item *it = &l->items[i];
        if (it->row >= 0 && !(parts & 1u << it->part)) it->row = -1;
        keep += it->row >= 0;
        skipped += it->reason != NULL;
    }
    d->path = iso_calloc(keep, sizeof *d->path);
    d->part = iso_calloc(keep, 1);
    d->skip_path = iso_calloc(skipped, sizeof *d->skip_path);
    d->skip_reason = iso_calloc(skipped, sizeof *d->skip_reason);
    if (!d->path || !d->part || !d->skip_path || !d->skip_reason) return iso_fail_memory(l->err);
    for (item *it = l->items; it < l->items + l->count; it++) {
        if (it->reason) {
            d->skip_path[d->skipped] = it->path;
            d->skip_reason[d->skipped++] = it->reason;
        } else if (it->row >= 0) {
            if (it->row != d->count) memcpy(d->pixels + d->count * ISO_PIXELS, d->pixels + it->row * ISO_PIXELS, ISO_PIXELS);
            d->part[d->count] = (uint8_t)it->part;
            d->path[d->count++] = it->path;
        } else {
            continue;
        }
        it->path = it->reason = NULL;
    }
    uint8_t *fit = d->count && d->count < l->rows ? realloc(d->pixels, (size_t)d->count * ISO_PIXELS) : NULL;
    if (fit) d->pixels = fit; /* else the larger block does as well */
    return ISO_OK;
}

static iso_status check_any(const iso_dataset *d, size_t listed, unsigned parts, iso_error *err)
{
    if (d->count) return ISO_OK;
    if (d->skipped)
        return iso_fail(err, ISO_E_ARGUMENT, "no usable image in %s: %lld skipped, the first: %s: %s", d->image_dir, (long long)d->skipped,
                        d->skip_path[0], d->skip_reason[0]);
    if (listed)
        return iso_fail(err, ISO_E_ARGUMENT, "no image in %s belongs to the part%s that %s needed of its partition file:%s%s%s", d->image_dir, (parts & (parts - 1)) ? "s" : "",
                        (parts & (parts - 1)) ? "are" : "is", parts & 1u << ISO_PART_TRAIN ? " 0" : "", parts & 1u << ISO_PART_VALID ? " 1" : "",
                        parts & 1u << ISO_PART_TEST ? " 2" : "");
    return iso_fail(err, ISO_E_ARGUMENT, "no images in %s: give a folder that holds JPEG or PNG files", d->image_dir);
}

static iso_status load(loader *l, const char *dir, unsigned parts, int threads, iso_progress *progress)
{
    iso_dataset *d = l->set;
    iso_listing list = {0};
    d->image_dir = iso_dataset_image_dir(dir);
    if (!d->image_dir || !find_text(dir, ISO_DATASET_ATTRIBUTES, &d->attribute_file) ||
        !find_text(dir, ISO_DATASET_PARTITION, &d->partition_file))
        return iso_fail_memory(l->err);
    iso_status status = iso_listing_read(d->image_dir, &list, l->err);
    if (!status) status = take_listing(l, &list);
    iso_listing_free(&list);
    if (!status) status = assign_parts(l);
    if (!status) status = assign_rows(l, parts);
    if (!status) status = decode_all(l, threads, progress);
    if (status) return status;
    if (l->split) hold_out(l);
    status = collect(l, parts);
    return status ? status : check_any(d, l->count, parts, l->err);
}

iso_status iso_dataset_load(const char *dir, unsigned parts, int threads, iso_progress *progress, iso_dataset_fits *fits, void *ctx, iso_dataset **out,
                            iso_error *err)
{
    if (!dir[0]) return iso_fail(err, ISO_E_ARGUMENT, "the folder of images has an empty name");
    if (!(parts & 7u)) return iso_fail(err, ISO_E_ARGUMENT, "no part of the data set was asked for");
    loader l = {.set = iso_calloc(1, sizeof *l.set), .fits = fits, .ctx = ctx, .err = err};
    if (!l.set) return iso_fail_memory(err);
    iso_status status = load(&l, dir, parts, threads, progress);
    for (size_t i = 0; i < l.count; i++) {
        free(l.items[i].path);
        free(l.items[i].reason);
    }
    free(l.items);
    if (status) iso_dataset_free(l.set);
    else *out = l.set;
    return status;
}

void iso_dataset_free(iso_dataset *d)
{
    if (!d) return;
    for (int64_t i = 0; d->path && i < d->count; i++) free(d->path[i]);
    for (int64_t i = 0; i < d->skipped; i++) {
        free(d->skip_path[i]);
        free(d->skip_reason[i]);
    }
    free(d->path);
    free(d->pixels);
    free(d->part);
    free(d->skip_path);
    free(d->skip_reason);
    free(d->image_dir);
    free(d->attribute_file);
    free(d->partition_file);
    free(d);
}
