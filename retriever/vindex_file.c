/* vindex_file.c: index.faiss: a header with checksums, the ids, FAISS's own bytes. */
#include "retriever/vindex_faiss.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <faiss/c_api/index_io_c.h>
#include <xxhash.h>

#include "base/file.h"
#include "base/memory.h"

enum { VERSION = 1 };
static const char magic[8] = {'I', 'S', 'O', 'I', 'N', 'D', 'E', 'X'};

/* Where the header's fields lie. */
enum {
    AT_MAGIC = 0, AT_VERSION = 8, AT_DIM = 12, AT_KIND = 16, AT_DIGEST = 24, AT_CREATED = 56, AT_GENERATION = 64, AT_COUNT = 72,
    AT_APPROXIMATE = 80, AT_WIDTH = 84, AT_RECALL = 88, AT_ERROR = 96, AT_PAYLOAD = 104, AT_BODY_HASH = 112, AT_HEADER_HASH = 248
};

typedef struct header {
    iso_vindex_info info;
    uint64_t payload;      /* bytes */
    XXH128_hash_t hash;    /* of ids and payload */
} header;

static void put(uint8_t *at, uint64_t value, int bytes)
{
    for (int i = 0; i < bytes; i++) at[i] = (uint8_t)(value >> (8 * i));
}

static uint64_t get(const uint8_t *at, int bytes)
{
    uint64_t value = 0;
    for (int i = 0; i < bytes; i++) value |= (uint64_t)at[i] << (8 * i);
    return value;
}

static void put_real(uint8_t *at, double value)
{
    uint64_t bits;
    memcpy(&bits, &value, 8);
    put(at, bits, 8);
}

static double get_real(const uint8_t *at)
{
    uint64_t bits = get(at, 8);
    double value;
    memcpy(&value, &bits, 8);
    return value;
}

static void header_encode(const header *h, uint8_t out[ISO_VINDEX_HEADER])
{
    const iso_vindex_info *v = &h->info;
    memset(out, 0, ISO_VINDEX_HEADER);
    memcpy(out + AT_MAGIC, magic, 8);
    put(out + AT_VERSION, VERSION, 4);
    put(out + AT_DIM, (uint64_t)v->source.dim, 4);
    memcpy(out + AT_KIND, v->kind, 8);
    memcpy(out + AT_DIGEST, v->source.digest, 32);
    put(out + AT_CREATED, v->source.created, 8);
    put(out + AT_GENERATION, v->source.generation, 8);
    put(out + AT_COUNT, (uint64_t)v->count, 8);
    put(out + AT_APPROXIMATE, v->approximate, 4);
    put(out + AT_WIDTH, (uint64_t)v->width, 4);
    put_real(out + AT_RECALL, v->recall);
    put_real(out + AT_ERROR, v->error);
    put(out + AT_PAYLOAD, h->payload, 8);
    put(out + AT_BODY_HASH, h->hash.low64, 8);
    put(out + AT_BODY_HASH + 8, h->hash.high64, 8);
    put(out + AT_HEADER_HASH, XXH3_64bits(out, AT_HEADER_HASH), 8);
}

static iso_status damaged(iso_error *err, const char *path, const char *what)
{
    return iso_fail(err, ISO_E_FORMAT, "index %s is damaged: %s", path, what);
}

/* Every field within its range, and the sizes adding up to the file's. */
static iso_status header_decode(const uint8_t *in, uint64_t file_size, const char *path, header *h, iso_error *err)
{
    iso_vindex_info *v = &h->info;
    if (memcmp(in + AT_MAGIC, magic, 8) != 0) return iso_fail(err, ISO_E_FORMAT, "%s is not an index of Isoface", path);
    if (get(in + AT_VERSION, 4) != VERSION)
        return iso_fail(err, ISO_E_FORMAT, "index %s has version %llu, this program reads version %d", path, (unsigned long long)get(in + AT_VERSION, 4), VERSION);
    if (get(in + AT_HEADER_HASH, 8) != XXH3_64bits(in, AT_HEADER_HASH)) return damaged(err, path, "its header does not match its checksum");
    memset(h, 0, sizeof *h);
    memcpy(v->kind, in + AT_KIND, 8);
    memcpy(v->source.digest, in + AT_DIGEST, 32);
    uint64_t dim = get(in + AT_DIM, 4), count = get(in + AT_COUNT, 8), width = get(in + AT_WIDTH, 4);
    if (v->kind[7] != 0 || !iso_vindex_kind_known(v->kind)) return damaged(err, path, "an unknown kind");
    if (dim < 1 || dim > ISO_VINDEX_MAX_DIM || width > INT32_MAX) return damaged(err, path, "a field out of range");
    v->source.dim = (int)dim;
    v->source.created = get(in + AT_CREATED, 8);
    v->source.generation = get(in + AT_GENERATION, 8);
    v->approximate = get(in + AT_APPROXIMATE, 4) != 0;
    v->width = (int)width;
    v->recall = get_real(in + AT_RECALL);
    v->error = get_real(in + AT_ERROR);
    if (!(v->error >= 0 && v->error < 4) || !(v->recall >= 0 && v->recall <= 1)) return damaged(err, path, "a field out of range");
    h->payload = get(in + AT_PAYLOAD, 8);
    h->hash.low64 = get(in + AT_BODY_HASH, 8);
    h->hash.high64 = get(in + AT_BODY_HASH + 8, 8);
    uint64_t body = file_size - ISO_VINDEX_HEADER;
    if (count > body / 8 || h->payload != body - count * 8 || h->payload == 0) return damaged(err, path, "its size is not what its header says");
    v->count = (int64_t)count;
    return ISO_OK;
}

/* ---- writing ---- */

/* Between FAISS and the file: counts and hashes what passes. */
typedef struct tap {
    FILE *file;
    XXH3_state_t *hash;
    uint64_t bytes;
    int error; /* errno of the first failed write */
} tap;

static ssize_t tap_write(void *cookie, const char *data, size_t n)
{
    tap *t = cookie;
    errno = 0;
    if (!t->error && fwrite(data, 1, n, t->file) != n) t->error = errno ? errno : EIO;
    if (t->error) {
        errno = t->error;
        return 0; /* what fopencookie's write returns for an error */
    }
    XXH3_128bits_update(t->hash, data, n);
    t->bytes += n;
    return (ssize_t)n;
}

static iso_status write_payload(const iso_vindex *v, tap *t, const char *path, iso_error *err)
{
    FILE *stream = fopencookie(t, "wb", (cookie_io_functions_t){.write = tap_write});
    if (!stream) return iso_fail_memory(err);
    int rc = faiss_write_index(v->faiss, stream);
    iso_status st = rc ? iso_vindex_faiss_fail(err, "writing the index") : ISO_OK;
    if (fclose(stream) != 0 && st == ISO_OK) st = iso_fail_errno(err, "cannot write %s", path);
    if (t->error) { /* FAISS saw only a short write: this is the reason */
        errno = t->error;
        st = iso_fail_errno(err, "cannot write %s", path);
    }
    return st;
}

iso_status iso_vindex_write(const iso_vindex *v, const char *path, iso_error *err)
{
    uint8_t head[ISO_VINDEX_HEADER] = {0};
    iso_file *f = NULL;
    tap t = {0};
    header h = {.info = v->info};
    iso_status st = iso_file_create(path, &f, err);
    if (st != ISO_OK) return st;
    t.file = iso_file_stream(f);
    t.hash = XXH3_createState();
    if (!t.hash) {
        st = iso_fail_memory(err);
        goto fail;
    }
    XXH3_128bits_reset(t.hash);
    if (fwrite(head, 1, sizeof head, t.file) != sizeof head) goto fail_write; /* its place; filled in below */
    for (int64_t i = 0; i < v->info.count; i++) {
        uint8_t id[8];
        put(id, v->ids[i], 8);
        if (fwrite(id, 1, 8, t.file) != 8) goto fail_write;
        XXH3_128bits_update(t.hash, id, 8);
    }
    st = write_payload(v, &t, path, err);
    if (st != ISO_OK) goto fail;
    h.payload = t.bytes;
    h.hash = XXH3_128bits_digest(t.hash);
    header_encode(&h, head);
    if (fseeko(t.file, 0, SEEK_SET) != 0 || fwrite(head, 1, sizeof head, t.file) != sizeof head) goto fail_write;
    XXH3_freeState(t.hash);
    return iso_file_commit(f, err);
fail_write:
    st = iso_fail_errno(err, "cannot write %s", path);
fail:
    XXH3_freeState(t.hash);
    iso_file_abort(f);
    return st;
}

/* ---- reading ---- */

static iso_status check_source(const iso_vindex_source *have, const iso_vindex_source *want, const char *path, iso_error *err)
{
    if (strcmp(have->digest, want->digest) != 0 || have->dim != want->dim)
        return iso_fail(err, ISO_E_MISMATCH, "index %s was built from the vectors of another model", path);
    if (have->created != want->created) return iso_fail(err, ISO_E_MISMATCH, "index %s was built from another database", path);
    return ISO_OK;
}

static iso_status read_body(iso_vindex *v, const header *h, const uint8_t *body, const char *path, iso_error *err)
{
    v->ids = iso_calloc((size_t)h->info.count, sizeof *v->ids);
    if (!v->ids) return iso_fail_memory(err);
    for (int64_t i = 0; i < h->info.count; i++) {
        v->ids[i] = get(body + i * 8, 8);
        if (i && v->ids[i] <= v->ids[i - 1]) return damaged(err, path, "its ids are not in order");
    }
    FILE *stream = fmemopen((void *)(uintptr_t)(body + h->info.count * 8), h->payload, "rb");
    if (!stream) return iso_fail_memory(err);
    int rc = faiss_read_index(stream, 0, &v->faiss);
    fclose(stream);
    if (rc) {
        v->faiss = NULL;
        iso_status st = iso_vindex_faiss_fail(err, "reading the index");
        return st == ISO_E_MEMORY ? st : damaged(err, path, "FAISS cannot read it");
    }
    if (faiss_Index_d(v->faiss) != h->info.source.dim || faiss_Index_ntotal(v->faiss) != h->info.count ||
        faiss_Index_metric_type(v->faiss) != METRIC_INNER_PRODUCT || !faiss_Index_is_trained(v->faiss))
        return damaged(err, path, "FAISS's part does not match the header");
    return ISO_OK;
}

static iso_status open_map(const char *path, const uint8_t **map, uint64_t *size, iso_error *err)
{
    struct stat s;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0 && errno == ENOENT) return iso_fail(err, ISO_E_NOT_FOUND, "there is no index %s", path);
    if (fd < 0) return iso_fail_errno(err, "cannot open %s", path);
    iso_status st = ISO_OK;
    if (fstat(fd, &s) != 0) st = iso_fail_errno(err, "cannot read %s", path);
    else if (!S_ISREG(s.st_mode)) st = iso_fail(err, ISO_E_FORMAT, "%s is not a file", path);
    else if (s.st_size < ISO_VINDEX_HEADER) st = damaged(err, path, "it is shorter than its header");
    if (st == ISO_OK) {
        void *p = mmap(NULL, (size_t)s.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
        if (p == MAP_FAILED) st = iso_fail_errno(err, "cannot read %s", path);
        else {
            *map = p;
            *size = (uint64_t)s.st_size;
        }
    }
    close(fd);
    return st;
}

iso_status iso_vindex_read(const char *path, const iso_vindex_source *source, iso_vindex **out, char kind[8], iso_error *err)
{
    const uint8_t *map = NULL;
    uint64_t size = 0;
    header h;
    iso_vindex *v = NULL;
    iso_status st = open_map(path, &map, &size, err);
    if (st != ISO_OK) return st;
    st = header_decode(map, size, path, &h, err);
    if (st == ISO_OK && kind) memcpy(kind, h.info.kind, 8);
    if (st == ISO_OK && source) st = check_source(&h.info.source, source, path, err);
    if (st != ISO_OK) goto done;
    if (!XXH128_isEqual(XXH3_128bits(map + ISO_VINDEX_HEADER, size - ISO_VINDEX_HEADER), h.hash)) {
        st = damaged(err, path, "its content does not match its checksum");
        goto done;
    }
    v = iso_calloc(1, sizeof *v);
    if (!v) {
        st = iso_fail_memory(err);
        goto done;
    }
    v->info = h.info;
    st = read_body(v, &h, map + ISO_VINDEX_HEADER, path, err);
done:
    munmap((void *)(uintptr_t)map, size);
    if (st == ISO_OK) *out = v;
    else iso_vindex_free(v);
    return st;
}

iso_status iso_vindex_peek(const char *path, iso_vindex_info *out, iso_error *err)
{
    const uint8_t *map = NULL;
    uint64_t size = 0;
    header h;
    iso_status st = open_map(path, &map, &size, err);
    if (st != ISO_OK) return st;
    st = header_decode(map, size, path, &h, err);
    munmap((void *)(uintptr_t)map, size);
    if (st == ISO_OK) *out = h.info;
    return st;
}
