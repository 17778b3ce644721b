/* vindex_file.c: index.faiss: a header with checksums, the engine's payload, the ids. Written in one go from front to back,
 * mapped to be used. */
#include "retriever/vindex_parts.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <xxhash.h>

#include "base/bytes.h"
#include "base/file.h"
#include "base/memory.h"

enum {
    VERSION = 3,
    PAGE = 4096,
    PIECE = 1 << 20,    /* bytes under one checksum */
    HUGE_PAGE = 2 << 20 /* what is written in such blocks, Linux can keep and map in one piece: fewer, larger pages to scan */
};
static const char magic[8] = {'I', 'S', 'O', 'I', 'N', 'D', 'E', 'X'};
static const uint64_t byte_order = 0x0102030405060708;

/* Where the header's fields lie. Magic, version, kind and the header's checksum stay where they are in all versions. */
enum {
    AT_MAGIC = 0, AT_VERSION = 8, AT_DIM = 12, AT_KIND = 16, AT_DIGEST = 24, AT_STAMP = 56, AT_GENERATION = 64, AT_COUNT = 72,
    AT_APPROXIMATE = 80, AT_WIDTH = 84, AT_RECALL = 88, AT_ERROR = 96, AT_PAYLOAD_AT = 104, AT_PAYLOAD = 112, AT_RUNS = 120,
    AT_BODY_HASH = 128, AT_ORDER = 136, AT_LEAST = 144, AT_HEADER_HASH = 248
};

typedef struct header {
    iso_vindex_info info;
    uint64_t payload_at, payload; /* bytes */
    uint64_t runs_at, runs;       /* the number of runs; runs_at follows from the two above, and from all: */
    uint64_t hashes_at;           /* a checksum for each PIECE from behind the header to here */
    uint64_t hash;                /* of those checksums */
} header;

static double get_real(const uint8_t *at)
{
    double value;
    memcpy(&value, at, sizeof value);
    return value;
}

/* How many checksums there are for what lies between the header and `end`. */
static uint64_t pieces_to(uint64_t end) { return (end - ISO_VINDEX_HEADER + PIECE - 1) / PIECE; }

static void header_encode(const header *h, uint8_t out[ISO_VINDEX_HEADER])
{
    const iso_vindex_info *v = &h->info;
    memset(out, 0, ISO_VINDEX_HEADER);
    memcpy(out + AT_MAGIC, magic, 8);
    iso_put_u32(out + AT_VERSION, VERSION);
    iso_put_u32(out + AT_DIM, (uint32_t)v->source.dim);
    memcpy(out + AT_KIND, v->kind, 8);
    memcpy(out + AT_DIGEST, v->source.digest, 32);
    iso_put_u64(out + AT_STAMP, v->source.stamp);
    iso_put_u64(out + AT_GENERATION, v->source.generation);
    iso_put_u64(out + AT_COUNT, (uint64_t)v->count);
    iso_put_u32(out + AT_APPROXIMATE, v->approximate);
    iso_put_u32(out + AT_WIDTH, (uint32_t)v->width);
    memcpy(out + AT_RECALL, &v->recall, 8);
    memcpy(out + AT_LEAST, &v->least, 8);
    memcpy(out + AT_ERROR, &v->error, 8);
    iso_put_u64(out + AT_PAYLOAD_AT, h->payload_at);
    iso_put_u64(out + AT_PAYLOAD, h->payload);
    iso_put_u64(out + AT_RUNS, h->runs);
    iso_put_u64(out + AT_BODY_HASH, h->hash);
    memcpy(out + AT_ORDER, &byte_order, 8);
    iso_put_u64(out + AT_HEADER_HASH, XXH3_64bits(out, AT_HEADER_HASH));
}

static iso_status damaged(iso_error *err, const char *path, const char *what)
{
    return iso_fail(err, ISO_E_FORMAT, "index %s is damaged: %s", path, what);
}

/* Where the parts lie, and that they add up to the file. */
static iso_status header_sizes(const uint8_t *in, uint64_t file_size, const char *path, header *h, iso_error *err)
{
    static const char wrong[] = "its size is not what its header says";
    h->payload_at = iso_get_u64(in + AT_PAYLOAD_AT);
    h->payload = iso_get_u64(in + AT_PAYLOAD);
    h->runs = iso_get_u64(in + AT_RUNS);
    if (h->payload_at < ISO_VINDEX_HEADER || h->payload_at > file_size || h->payload > file_size - h->payload_at) return damaged(err, path, wrong);
    h->runs_at = (h->payload_at + h->payload + 7) / 8 * 8;
    if (h->runs_at > file_size || h->runs > (file_size - h->runs_at) / sizeof(iso_vindex_run)) return damaged(err, path, wrong);
    h->hashes_at = h->runs_at + h->runs * sizeof(iso_vindex_run);
    if (file_size - h->hashes_at != pieces_to(h->hashes_at) * 8) return damaged(err, path, wrong);
    return ISO_OK;
}

/* The kind of a header whose checksum is right, whatever its version. */
static void kind_of(const uint8_t *in, char kind[8])
{
    if (in[AT_KIND + 7] == 0 && iso_vindex_kind_known((const char *)in + AT_KIND)) memcpy(kind, in + AT_KIND, 8);
}

/* Every field within its range. */
static iso_status header_decode(const uint8_t *in, uint64_t file_size, const char *path, header *h, char kind[8], iso_error *err)
{
    iso_vindex_info *v = &h->info;
    const uint64_t version = iso_get_u32(in + AT_VERSION);
    const bool sound = iso_get_u64(in + AT_HEADER_HASH) == XXH3_64bits(in, AT_HEADER_HASH);
    if (memcmp(in + AT_MAGIC, magic, 8) != 0) return iso_fail(err, ISO_E_FORMAT, "%s is not an index of Isoface", path);
    if (kind && sound) kind_of(in, kind);
    if (version != VERSION)
        return iso_fail(err, ISO_E_FORMAT, "index %s has version %llu, this program reads version %d", path, (unsigned long long)version, VERSION);
    if (!sound) return damaged(err, path, "its header does not match its checksum");
    if (memcmp(in + AT_ORDER, &byte_order, 8) != 0)
        return iso_fail(err, ISO_E_FORMAT, "index %s was made on a machine with another byte order", path);
    memset(h, 0, sizeof *h);
    memcpy(v->source.digest, in + AT_DIGEST, 32);
    uint64_t dim = iso_get_u32(in + AT_DIM), count = iso_get_u64(in + AT_COUNT), width = iso_get_u32(in + AT_WIDTH);
    kind_of(in, v->kind);
    if (!v->kind[0]) return damaged(err, path, "an unknown kind");
    if (dim < 1 || dim > ISO_VINDEX_MAX_DIM || width > INT32_MAX || count > INT64_MAX / ISO_VINDEX_MAX_DIM / 8)
        return damaged(err, path, "a field out of range");
    v->source.dim = (int)dim;
    v->source.stamp = iso_get_u64(in + AT_STAMP);
    v->source.generation = iso_get_u64(in + AT_GENERATION);
    v->count = (int64_t)count;
    v->approximate = iso_get_u32(in + AT_APPROXIMATE) != 0;
    v->width = (int)width;
    v->recall = get_real(in + AT_RECALL);
    v->least = get_real(in + AT_LEAST);
    v->error = get_real(in + AT_ERROR);
    h->hash = iso_get_u64(in + AT_BODY_HASH);
    if (!(v->error >= 0 && v->error < 4) || !(v->recall >= 0 && v->recall <= 1) || !(v->least >= 0 && v->least <= 1) || (v->approximate && !iso_vindex_kind_approximate(v->kind)))
        return damaged(err, path, "a field out of range");
    return header_sizes(in, file_size, path, h, err);
}

/* ---- writing ---- */

struct iso_vindex_sink {
    iso_file *file;             /* NULL: into memory */
    char *buffer;               /* [HUGE_PAGE], the stream's */
    char *path;
    bool failed;
    uint8_t *memory;            /* [room], pages that are touched one after the other */
    size_t room;
    uint64_t at;                /* bytes so far */
    uint64_t payload_at;
    XXH3_state_t *hash;         /* of the piece at hand */
    uint64_t hashed;            /* bytes of it */
    uint64_t *hashes;
    size_t hash_count, hash_room;
};

/* More room for a sink in memory: pages move, bytes do not. */
static iso_status reserve(iso_vindex_sink *s, uint64_t size, iso_error *err)
{
    if (size <= s->room) return ISO_OK;
    size_t room = s->room ? s->room : PIECE;
    while (room < size) room *= 2;
    void *p = s->memory ? mremap(s->memory, s->room, room, MREMAP_MAYMOVE)
                        : mmap(NULL, room, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) return iso_fail_memory(err);
    (void)madvise(p, room, MADV_HUGEPAGE);
    s->memory = p;
    s->room = room;
    return ISO_OK;
}

static iso_status append(iso_vindex_sink *s, const void *data, size_t size, iso_error *err)
{
    if (s->file) {
        errno = 0;
        if (size && fwrite(data, 1, size, iso_file_stream(s->file)) != size) {
            s->failed = true;
            if (!errno) errno = EIO;
            return iso_fail_errno(err, "cannot write %s", s->path);
        }
    } else {
        iso_status st = reserve(s, s->at + size, err);
        if (st != ISO_OK) return st;
        memcpy(s->memory + s->at, data, size);
    }
    s->at += size;
    return ISO_OK;
}

iso_status iso_vindex_put(iso_vindex_sink *s, const void *data, size_t size, iso_error *err)
{
    iso_status st = append(s, data, size, err);
    for (const uint8_t *p = data; st == ISO_OK && size > 0;) {
        size_t n = size < PIECE - s->hashed ? size : PIECE - s->hashed;
        if (s->hashed == 0) XXH3_64bits_reset(s->hash);
        XXH3_64bits_update(s->hash, p, n);
        s->hashed += n;
        p += n;
        size -= n;
        if (s->hashed < PIECE) break;
        if (!iso_grow(&s->hashes, &s->hash_room, s->hash_count + 1, sizeof *s->hashes)) return iso_fail_memory(err);
        s->hashes[s->hash_count++] = XXH3_64bits_digest(s->hash);
        s->hashed = 0;
    }
    return st;
}

static iso_status put_zeros(iso_vindex_sink *s, size_t size, iso_error *err)
{
    static const uint8_t zeros[PAGE];
    return iso_vindex_put(s, zeros, size, err);
}

iso_status iso_vindex_start(iso_vindex_sink *s, size_t lead, iso_error *err)
{
    size_t rest = (size_t)((s->at + lead) % PAGE);
    iso_status st = rest ? put_zeros(s, PAGE - rest, err) : ISO_OK;
    s->payload_at = s->at;
    return st;
}

iso_status iso_vindex_sink_create(const char *path, iso_vindex_sink **out, iso_error *err)
{
    static const uint8_t place[ISO_VINDEX_HEADER]; /* of the header, which is known last */
    iso_vindex_sink *s = iso_calloc(1, sizeof *s);
    iso_status st = s ? ISO_OK : iso_fail_memory(err);
    if (st == ISO_OK && path) {
        st = (s->path = iso_strndup(path, strlen(path))) ? ISO_OK : iso_fail_memory(err);
        if (st == ISO_OK && !(s->buffer = malloc(HUGE_PAGE))) st = iso_fail_memory(err);
        if (st == ISO_OK) st = iso_file_create(path, &s->file, err);
        if (st == ISO_OK) setvbuf(iso_file_stream(s->file), s->buffer, _IOFBF, HUGE_PAGE);
    }
    if (st == ISO_OK && !(s->hash = XXH3_createState())) st = iso_fail_memory(err);
    if (st == ISO_OK) st = append(s, place, sizeof place, err);
    if (st == ISO_OK) *out = s;
    else iso_vindex_sink_free(s);
    return st;
}

bool iso_vindex_sink_failed(const iso_vindex_sink *s) { return s->failed; }

void iso_vindex_sink_free(iso_vindex_sink *s)
{
    if (!s) return;
    iso_file_abort(s->file);
    free(s->buffer);
    if (s->memory) munmap(s->memory, s->room);
    if (s->hash) XXH3_freeState(s->hash);
    free(s->hashes);
    free(s->path);
    free(s);
}

/* The finished memory becomes the index's map; what was reserved behind it goes back. */
static void hand_over(iso_vindex_sink *s, iso_vindex *v)
{
    size_t whole = (size_t)((s->at + PAGE - 1) / PAGE * PAGE);
    if (whole < s->room) munmap(s->memory + whole, s->room - whole);
    v->map = s->memory;
    v->map_size = (size_t)s->at;
    s->memory = NULL;
}

static iso_status map_file(int fd, const char *path, const uint8_t **map, uint64_t *size, iso_error *err)
{
    struct stat s;
    if (fstat(fd, &s) != 0) return iso_fail_errno(err, "cannot read %s", path);
    if (!S_ISREG(s.st_mode)) return iso_fail(err, ISO_E_FORMAT, "%s is not a file", path);
    if (s.st_size < ISO_VINDEX_HEADER) return damaged(err, path, "it is shorter than its header");
    void *p = mmap(NULL, (size_t)s.st_size, PROT_READ, MAP_SHARED, fd, 0);
    if (p == MAP_FAILED) return iso_fail_errno(err, "cannot read %s", path);
    (void)madvise(p, (size_t)s.st_size, MADV_HUGEPAGE); /* for what is not in memory yet */
    *map = p;
    *size = (uint64_t)s.st_size;
    return ISO_OK;
}

/* The finished file, as it will be found: it is mapped before it has its name, under which another program may put its own at any time. */
static iso_status commit(iso_vindex_sink *s, iso_vindex *v, iso_error *err)
{
    uint64_t size = 0;
    FILE *f = iso_file_stream(s->file);
    iso_status st = fflush(f) ? iso_fail_errno(err, "cannot write %s", s->path) : map_file(fileno(f), s->path, &v->map, &size, err);
    v->map_size = (size_t)size;
    if (st != ISO_OK) return st;
    st = iso_file_commit(s->file, err);
    s->file = NULL;
    return st;
}

iso_status iso_vindex_finish(iso_vindex_sink *s, iso_vindex *v, iso_error *err)
{
    uint8_t head[ISO_VINDEX_HEADER];
    header h = {.info = v->info, .payload_at = s->payload_at, .payload = s->at - s->payload_at, .runs = (uint64_t)v->run_count};
    iso_status st = put_zeros(s, (size_t)(-s->at & 7), err);
    if (st == ISO_OK && h.runs) st = iso_vindex_put(s, v->runs, sizeof *v->runs * (size_t)h.runs, err);
    if (st == ISO_OK && s->hashed) {
        if (!iso_grow(&s->hashes, &s->hash_room, s->hash_count + 1, sizeof *s->hashes)) st = iso_fail_memory(err);
        else s->hashes[s->hash_count++] = XXH3_64bits_digest(s->hash);
    }
    if (st != ISO_OK) return st;
    h.hash = XXH3_64bits(s->hashes, sizeof *s->hashes * s->hash_count);
    st = append(s, s->hashes, sizeof *s->hashes * s->hash_count, err);
    header_encode(&h, head);
    if (st == ISO_OK && !s->file) {
        memcpy(s->memory, head, sizeof head);
        hand_over(s, v);
    }
    if (st != ISO_OK || !s->file) return st;
    FILE *f = iso_file_stream(s->file);
    if (fseeko(f, 0, SEEK_SET) != 0 || fwrite(head, 1, sizeof head, f) != sizeof head) st = iso_fail_errno(err, "cannot write %s", s->path);
    if (st == ISO_OK) st = commit(s, v, err);
    s->failed = st == ISO_E_IO;
    return st;
}

/* ---- reading ---- */

iso_status iso_vindex_source_check(const iso_vindex_source *have, const iso_vindex_source *want, const char *path, iso_error *err)
{
    if (strcmp(have->digest, want->digest) != 0 || have->dim != want->dim)
        return iso_fail(err, ISO_E_MISMATCH, "index %s was built from the vectors of another model", path);
    if (!want->stamp)
        return iso_fail(err, ISO_E_MISMATCH, "index %s was built too many changes ago: the database's record of them does not reach back to it, or is damaged", path);
    if (have->stamp != want->stamp || have->generation != want->generation)
        return iso_fail(err, ISO_E_MISMATCH, "index %s was built from another database, or from a state of it that is gone", path);
    return ISO_OK;
}

/* The whole body against its checksums, by all threads; each maps in the pages that it reads. */
static iso_status check_body(const uint8_t *map, uint64_t size, const header *h, const char *path, iso_error *err)
{
    const int64_t pieces = (int64_t)pieces_to(h->hashes_at);
    int wrong = XXH3_64bits(map + h->hashes_at, size - h->hashes_at) != h->hash;
#pragma omp parallel for schedule(dynamic, 4) reduction(| : wrong)
    for (int64_t i = 0; i < pieces; i++) {
        uint64_t from = ISO_VINDEX_HEADER + (uint64_t)i * PIECE, to = i + 1 < pieces ? from + PIECE : h->hashes_at;
#ifdef MADV_POPULATE_READ
        uint64_t page = from / PAGE * PAGE;
        if (madvise((void *)(uintptr_t)(map + page), (size_t)(to - page), MADV_POPULATE_READ) != 0 && errno == EFAULT) {
            wrong = 1; /* a disk that cannot be read, or a file cut off meanwhile: reading on would be the end of us */
            continue;
        }
#endif
        wrong |= XXH3_64bits(map + from, (size_t)(to - from)) != iso_get_u64(map + h->hashes_at + (uint64_t)i * 8);
    }
    return wrong ? damaged(err, path, "its content does not match its checksum") : ISO_OK;
}

static iso_status check_runs(const iso_vindex *v, const char *path, iso_error *err)
{
    static const char wrong[] = "its ids are not in order";
    const uint64_t count = (uint64_t)v->info.count;
    if ((v->run_count == 0) != (count == 0)) return damaged(err, path, wrong);
    for (int64_t i = 0; i < v->run_count; i++) {
        const iso_vindex_run *r = v->runs + i;
        uint64_t end = i + 1 < v->run_count ? r[1].at : count;
        if ((i == 0 && r->at != 0) || r->at >= end || r->first > UINT64_MAX - (end - r->at)) return damaged(err, path, wrong);
        if (i + 1 < v->run_count && r[1].first < r->first + (end - r->at)) return damaged(err, path, wrong);
    }
    return ISO_OK;
}

iso_status iso_vindex_adopt(iso_vindex *v, const char *path, iso_error *err)
{
    header h;
    const char *fault = NULL;
    iso_status st = header_decode(v->map, v->map_size, path, &h, NULL, err);
    if (st != ISO_OK) return st;
    free(v->own);
    v->own = NULL;
    v->own_room = 0;
    v->info = h.info;
    v->runs = (const iso_vindex_run *)(const void *)(v->map + h.runs_at);
    v->run_count = (int64_t)h.runs;
    v->payload = v->map + h.payload_at;
    v->payload_size = (size_t)h.payload;
    st = check_runs(v, path, err);
    if (st != ISO_OK) return st;
    v->engine = iso_vindex_engine_of(&h.info);
    st = v->engine->open(v, &fault, err);
    return st != ISO_OK && fault ? damaged(err, path, fault) : st;
}

static iso_status open_map(const char *path, const uint8_t **map, uint64_t *size, iso_error *err)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0 && errno == ENOENT) return iso_fail(err, ISO_E_NOT_FOUND, "there is no index %s", path);
    if (fd < 0) return iso_fail_errno(err, "cannot open %s", path);
    iso_status st = map_file(fd, path, map, size, err);
    close(fd);
    return st;
}

iso_status iso_vindex_read(const char *path, const iso_vindex_source *source, iso_vindex **out, char kind[8], iso_error *err)
{
    uint64_t size = 0;
    header h;
    iso_vindex *v = iso_calloc(1, sizeof *v);
    if (!v) return iso_fail_memory(err);
    iso_status st = open_map(path, &v->map, &size, err);
    v->map_size = (size_t)size;
    if (st == ISO_OK) st = header_decode(v->map, size, path, &h, kind, err);
    if (st == ISO_OK && source) st = iso_vindex_source_check(&h.info.source, source, path, err);
    if (st == ISO_OK) st = check_body(v->map, size, &h, path, err);
    if (st == ISO_OK) st = iso_vindex_adopt(v, path, err);
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
    st = header_decode(map, size, path, &h, NULL, err);
    munmap((void *)(uintptr_t)map, size);
    if (st == ISO_OK) *out = h.info;
    return st;
}
