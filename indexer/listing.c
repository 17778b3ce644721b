/* listing.c: the files below a folder.
 *
 * Folders wait on a stack, and one at a time is open, by a path of any length (iso_path_open): neither depth nor length
 * runs into a limit on open files, on the stack or on PATH_MAX. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/memory.h"
#include "base/progress.h"
#include "indexer/dataset.h"

/* A folder that was met. They stay until the end, so that the ones below can look up their ancestors. */
typedef struct folder {
    const struct folder *parent;
    struct folder *next; /* of all folders */
    char *path;          /* relative, "" for the root */
    dev_t dev;
    ino_t ino;
} folder;

typedef struct walk {
    iso_listing list;
    size_t skip_path_capacity, skip_reason_capacity;
    folder **waiting;
    size_t waits, waiting_capacity;
    folder *all;
    iso_error *err;
} walk;

static iso_status skip(walk *w, const char *path, const char *reason)
{
    iso_listing *l = &w->list;
    if (!iso_grow(&l->skip_path, &w->skip_path_capacity, l->skipped + 1, sizeof *l->skip_path) ||
        !iso_grow(&l->skip_reason, &w->skip_reason_capacity, l->skipped + 1, sizeof *l->skip_reason))
        return iso_fail_memory(w->err);
    char *p = strdup(path), *r = strdup(reason);
    if (!p || !r) {
        free(p);
        free(r);
        return iso_fail_memory(w->err);
    }
    l->skip_path[l->skipped] = p;
    l->skip_reason[l->skipped++] = r;
    return ISO_OK;
}

/* Takes `path` over. */
static iso_status add_file(walk *w, char *path)
{
    iso_listing *l = &w->list;
    if (!iso_grow(&l->path, &l->capacity, l->count + 1, sizeof *l->path)) {
        free(path);
        return iso_fail_memory(w->err);
    }
    l->path[l->count++] = path;
    return ISO_OK;
}

/* Takes `path` over. */
static iso_status add_folder(walk *w, const folder *parent, char *path)
{
    folder *f = iso_calloc(1, sizeof *f);
    if (!f || !iso_grow(&w->waiting, &w->waiting_capacity, w->waits + 1, sizeof *w->waiting)) {
        free(f);
        free(path);
        return iso_fail_memory(w->err);
    }
    *f = (folder){.parent = parent, .next = w->all, .path = path};
    w->all = f;
    w->waiting[w->waits++] = f;
    return ISO_OK;
}

static iso_status add_entry(walk *w, const folder *f, int fd, const struct dirent *entry)
{
    struct stat st;
    bool is_file = entry->d_type == DT_REG, is_folder = entry->d_type == DT_DIR;
    char *path = f->path[0] ? iso_path_join(f->path, entry->d_name) : strdup(entry->d_name);
    if (!path) return iso_fail_memory(w->err);
    if (entry->d_type == DT_LNK || entry->d_type == DT_UNKNOWN) {
        if (fstatat(fd, entry->d_name, &st, 0) != 0) {
            iso_status status = errno == ENOENT && entry->d_type == DT_UNKNOWN ? ISO_OK /* gone meanwhile */
                              : skip(w, path, errno == ENOENT || errno == ELOOP ? "broken symbolic link" : strerror(errno));
            free(path);
            return status;
        }
        is_file = S_ISREG(st.st_mode);
        is_folder = S_ISDIR(st.st_mode);
    }
    if (is_file) return add_file(w, path);
    if (is_folder) return add_folder(w, f, path);
    iso_status status = skip(w, path, "not a regular file");
    free(path);
    return status;
}

static DIR *open_folder(const walk *w, const folder *f)
{
    char *path = f->path[0] ? iso_path_join(w->list.root, f->path) : strdup(w->list.root);
    if (!path) {
        errno = ENOMEM;
        return NULL;
    }
    int fd = iso_path_open(path, O_RDONLY | O_DIRECTORY | O_NONBLOCK);
    free(path);
    if (fd < 0) return NULL;
    DIR *dir = fdopendir(fd);
    if (!dir) {
        int why = errno;
        close(fd);
        errno = why;
    }
    return dir;
}

static bool is_cycle(const folder *f)
{
    for (const folder *up = f->parent; up; up = up->parent)
        if (up->dev == f->dev && up->ino == f->ino) return true;
    return false;
}

/* The root must be readable; of another folder it is told that it is not. */
static iso_status cannot_read(walk *w, const folder *f)
{
    if (!f->parent || errno == ENOMEM) return iso_fail_errno(w->err, "cannot read folder %s", w->list.root);
    return skip(w, f->path, strerror(errno));
}

static iso_status read_folder(walk *w, folder *f)
{
    struct stat st;
    iso_status status = ISO_OK;
    DIR *dir = open_folder(w, f);
    if (!dir) return cannot_read(w, f);
    if (fstat(dirfd(dir), &st) != 0) {
        status = cannot_read(w, f);
        goto done;
    }
    f->dev = st.st_dev;
    f->ino = st.st_ino;
    if (is_cycle(f)) goto done;
    while (!status) {
        if (iso_interrupted()) status = iso_fail(w->err, ISO_E_INTERRUPTED, "interrupted while listing %s", w->list.root);
        if (status) break;
        errno = 0;
        const struct dirent *entry = readdir(dir);
        if (!entry && errno) status = cannot_read(w, f);
        if (!entry) break;
        if (entry->d_name[0] != '.') status = add_entry(w, f, dirfd(dir), entry);
    }
done:
    closedir(dir);
    return status;
}

static int by_bytes(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

typedef struct pair { char *path, *reason; } pair;

static iso_status sort_skipped(iso_listing *l, iso_error *err)
{
    pair *pairs = iso_calloc(l->skipped, sizeof *pairs);
    if (!pairs) return iso_fail_memory(err);
    for (size_t i = 0; i < l->skipped; i++) pairs[i] = (pair){l->skip_path[i], l->skip_reason[i]};
    qsort(pairs, l->skipped, sizeof *pairs, by_bytes); /* the path comes first in a pair */
    for (size_t i = 0; i < l->skipped; i++) {
        l->skip_path[i] = pairs[i].path;
        l->skip_reason[i] = pairs[i].reason;
    }
    free(pairs);
    return ISO_OK;
}

static void walk_end(walk *w)
{
    for (folder *f = w->all, *next; f; f = next) {
        next = f->next;
        free(f->path);
        free(f);
    }
    free(w->waiting);
}

iso_status iso_listing_read(const char *path, iso_listing *out, iso_error *err)
{
    walk w = {.err = err};
    size_t n = strlen(path);
    if (n == 0) return iso_fail(err, ISO_E_ARGUMENT, "the folder of images has an empty name");
    while (n > 1 && path[n - 1] == '/') n--;
    iso_status status = ISO_E_MEMORY;
    char *empty = iso_strndup("", 0);
    w.list.root = iso_strndup(path, n);
    if (!empty || !w.list.root) {
        free(empty);
        status = iso_fail_memory(err);
    } else {
        status = add_folder(&w, NULL, empty);
    }
    while (!status && w.waits) status = read_folder(&w, w.waiting[--w.waits]);
    walk_end(&w);
    if (!status) status = sort_skipped(&w.list, err);
    if (status) {
        iso_listing_free(&w.list);
        return status;
    }
    if (w.list.count) qsort(w.list.path, w.list.count, sizeof *w.list.path, by_bytes);
    *out = w.list;
    return ISO_OK;
}

void iso_listing_free(iso_listing *l)
{
    for (size_t i = 0; i < l->count; i++) free(l->path[i]);
    for (size_t i = 0; i < l->skipped; i++) {
        free(l->skip_path[i]);
        free(l->skip_reason[i]);
    }
    free(l->path);
    free(l->skip_path);
    free(l->skip_reason);
    free(l->root);
    *l = (iso_listing){0};
}
