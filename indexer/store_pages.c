/* store_pages.c: is data.mdb what LMDB takes for granted? LMDB maps the file and follows its links unchecked: a
 * truncated file ends in SIGBUS, a wild offset in SIGSEGV. This walks the same B+ trees with bounds checks: the table of
 * tables with pread, the others in LMDB's map where the system has put all of it into memory and nobody can change
 * it, so that nothing is copied and what LMDB then reads is there; else with pread, too.
 *
 * Only the features that the store uses are accepted: no duplicates, 8-byte integer keys for items, vectors and the
 * list of free pages. The layout is LMDB 0.9's on a 64-bit little-endian machine. */
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/memory.h"
#include "indexer/store_page.h"

enum { META_SIZE = 136, KEY_MAX = 511, AHEAD = 64, NEAR = 16, NO_SUBDIR = 0x4000, PAGE_MOST = 65536 };
#define LMDB_MAGIC 0xBEEFC0DEu
#define NO_PAGE UINT64_MAX

typedef struct head { uint32_t psize; tree free, main; uint64_t last, txnid; } head;

/* The tables of the store. */
static const struct { const char *name; bool integer; } tables[] = {
    {"items", true}, {"vectors", true}, {"by-path", false}, {"by-hash", false}, {"meta", false}};
enum { TABLES = sizeof tables / sizeof *tables };

typedef struct walk {
    int fd;
    uint32_t psize;
    uint64_t pages;         /* wholly inside the file */
    uint64_t last;          /* last page number that the snapshot knows */
    uint8_t *seen;          /* one bit a page */
    bool found[TABLES];
    tree table[TABLES];     /* where found */
    const uint8_t *map;     /* of all `pages`; NULL: they are read */
    iso_say *say;
    void *ctx;
    int64_t faults;
    iso_progress *progress;
    int64_t taken;          /* pages that were found used or free */
    bool io;                /* a read failed: errno is kept below */
    int code;
    uint8_t *ahead;         /* [AHEAD] pages read at once, `held` of them, from page `first` on */
    uint64_t first, held, before; /* before: the last one that was not among them */
} walk;

typedef struct visit {      /* one tree being walked */
    const char *name;
    bool integer, main, free;
    uint64_t entries;
} visit;

__attribute__((format(printf, 2, 3))) static bool fault(walk *w, const char *fmt, ...)
{
    char line[256];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(line, sizeof line, fmt, ap);
    va_end(ap);
    w->faults++;
    if (w->say) w->say(w->ctx, line);
    return false;
}

/* One of the two header pages; false: not a header. */
static bool head_parse(const uint8_t *p, head *h)
{
    const uint8_t *m = p + PAGE_HEADER;
    if (iso_get_u16(p + 10) != P_META || iso_get_u32(m) != LMDB_MAGIC || iso_get_u32(m + 4) != 1) return false;
    h->psize = iso_get_u32(m + 24);
    h->free = tree_at(m + 24);
    h->main = tree_at(m + 24 + DB_SIZE);
    h->last = iso_get_u64(m + 24 + 2 * DB_SIZE);
    h->txnid = iso_get_u64(m + 32 + 2 * DB_SIZE);
    return h->psize >= 512 && h->psize <= PAGE_MOST && (h->psize & (h->psize - 1)) == 0 && h->last >= 1
        && (h->free.flags & ~(uint32_t)NO_SUBDIR) == INTEGER_KEYS;
}

static ssize_t read_at(int fd, void *buf, size_t bytes, uint64_t at)
{
    return TEMP_FAILURE_RETRY(pread(fd, buf, bytes, (off_t)at));
}

/* LMDB writes transaction n into header page n & 1, and reads it there: a number that is elsewhere leads it to the other tree. Where both
 * are 0, none has been committed. */
static bool heads_follow(const head h[2])
{
    const uint64_t a = h[0].txnid, b = h[1].txnid;
    return (!a && !b && h[0].main.root == NO_PAGE) || (a % 2 == 0 && b % 2 == 1 && (a + 1 == b || b + 1 == a));
}

static iso_status heads_once(int fd, const char *dir, head out[2], uint64_t *bytes, iso_error *err)
{
    uint8_t buf[PAGE_HEADER + META_SIZE];
    struct stat st;
    uint32_t psize = 0;
    int good = 0;
    for (; good < 2; psize = out[good++].psize) {
        ssize_t n = read_at(fd, buf, sizeof buf, (uint64_t)good * psize);
        if (n < 0) return iso_fail_errno(err, "cannot read %s/data.mdb", dir);
        if (n < (ssize_t)sizeof buf || !head_parse(buf, &out[good]) || (good && out[good].psize != psize)) break;
    }
    /* afterwards: what a header counts was written before it */
    if (fstat(fd, &st)) return iso_fail_errno(err, "cannot read %s/data.mdb", dir);
    const uint64_t size = (uint64_t)st.st_size;
    if (good < 2 || size < 2 * (uint64_t)psize)
        return iso_fail(err, ISO_E_FORMAT, "%s/data.mdb is damaged or not a database (%" PRIu64 " bytes, header page %d is wrong): "
                        "restore it, or remove the folder and encode again", dir, size, good < 2 ? good : 0);
    /* pages behind the end of the file are free, and the list of free pages has 8 bytes for each */
    const uint64_t last = out[0].last > out[1].last ? out[0].last : out[1].last;
    if (last > size / psize + size / 8)
        return iso_fail(err, ISO_E_FORMAT, "%s/data.mdb is damaged or truncated (%" PRIu64 " bytes, but its header counts up to page %" PRIu64 "): "
                        "restore it, or remove the folder and encode again", dir, size, last);
    if (bytes) *bytes = size;
    return ISO_OK;
}

/* A writer may commit between the looks at the two: again then. */
static iso_status heads_read(int fd, const char *dir, head out[2], uint64_t *bytes, iso_error *err)
{
    for (int attempt = 0; attempt < 100; attempt++) {
        iso_status status = heads_once(fd, dir, out, bytes, err);
        if (status || heads_follow(out)) return status;
    }
    return iso_fail(err, ISO_E_FORMAT, "%s/data.mdb is damaged (the transactions of its header pages, %" PRIu64 " and %" PRIu64 ", do not follow each "
                    "other): restore it, or remove the folder and encode again", dir, out[0].txnid, out[1].txnid);
}

iso_status iso_pages_head(int fd, const char *dir, iso_error *err)
{
    head h[2];
    return heads_read(fd, dir, h, NULL, err);
}

/* A header page as LMDB begins with it. Of one that is cut off, what there is. */
static bool head_is_first(const uint8_t *p, size_t bytes, head *h)
{
    uint8_t first[PAGE_HEADER + 8] = {[10] = P_META};
    iso_put_u32(first + PAGE_HEADER, LMDB_MAGIC);
    iso_put_u32(first + PAGE_HEADER + 4, 1);
    if (bytes < PAGE_HEADER + META_SIZE) return !memcmp(p, first, bytes < sizeof first ? bytes : sizeof first);
    return head_parse(p, h) && h->txnid == 0 && h->last == 1 && h->main.root == NO_PAGE && h->free.root == NO_PAGE;
}

static iso_status zeros_only(int fd, const char *dir, uint64_t from, uint64_t to, bool *out, iso_error *err)
{
    uint8_t buf[4096];
    *out = false;
    while (from < to) {
        ssize_t n = read_at(fd, buf, to - from < sizeof buf ? (size_t)(to - from) : sizeof buf, from);
        if (n < 0) return iso_fail_errno(err, "cannot read %s/data.mdb", dir);
        if (n == 0) return ISO_OK; /* cut off meanwhile */
        for (ssize_t i = 0; i < n; i++)
            if (buf[i]) return ISO_OK;
        from += (uint64_t)n;
    }
    *out = true;
    return ISO_OK;
}

/* LMDB writes both header pages without a sync: after a power cut the file may have their length, and zeros instead of both, or of the second. */
iso_status iso_pages_begun(int fd, const char *dir, bool *begun, bool *whole, iso_error *err)
{
    uint8_t buf[PAGE_HEADER + META_SIZE];
    struct stat st;
    head h = {0};
    *begun = *whole = false;
    if (fstat(fd, &st)) return iso_fail_errno(err, "cannot read %s/data.mdb", dir);
    const uint64_t size = (uint64_t)st.st_size;
    for (int i = 0; i < 2; i++) {
        ssize_t n = read_at(fd, buf, sizeof buf, (uint64_t)i * h.psize);
        if (n < 0) return iso_fail_errno(err, "cannot read %s/data.mdb", dir);
        if (i && n > 0 && buf[0] == 1) buf[0] = 0; /* its number */
        if (!head_is_first(buf, (size_t)n, &h)) {
            const bool lost = i ? size == 2 * (uint64_t)h.psize : size <= 2 * PAGE_MOST;
            return lost ? zeros_only(fd, dir, i ? h.psize : 0, size, begun, err) : ISO_OK;
        }
        if (n < (ssize_t)sizeof buf) break;
    }
    *whole = h.psize && size >= 2 * (uint64_t)h.psize;
    *begun = true;
    return ISO_OK;
}

static const head *head_of(const head h[2], uint64_t txnid)
{
    return h[txnid % 2].txnid == txnid ? &h[txnid % 2] : NULL;
}

iso_status iso_pages_short(int fd, const char *dir, uint64_t txnid, bool *is_short, iso_error *err)
{
    head h[2];
    uint64_t bytes;
    iso_status status = heads_read(fd, dir, h, &bytes, err);
    if (status) return status;
    const head *now = head_of(h, txnid);
    *is_short = now && bytes / now->psize < now->last + 1;
    return ISO_OK;
}

/* Marks pages as used; false when out of the file or used twice. */
static bool take(walk *w, const char *name, uint64_t page, uint64_t count)
{
    if (page < 2 || page > w->last || count > w->last + 1 - page)
        return fault(w, "%s: a link leads to page %" PRIu64 ", which does not exist", name, page);
    if (page + count > w->pages) return fault(w, "%s: page %" PRIu64 " lies behind the end of the file: it was truncated", name, page);
    for (uint64_t i = page; i < page + count; i++) {
        if (w->seen[i / 8] >> (i % 8) & 1) return fault(w, "%s: page %" PRIu64 " is used twice", name, i);
        w->seen[i / 8] |= (uint8_t)(1u << (i % 8));
    }
    iso_progress_step(w->progress, w->taken += (int64_t)count);
    return true;
}

/* Pages nearly always come one behind the other, or nearly so: then many are read at once. */
static bool fetch(walk *w, uint64_t page, uint8_t *buf, size_t bytes)
{
    uint64_t step = page - w->before;
    if (page - w->first >= w->held && step && step <= NEAR && bytes == w->psize) {
        ssize_t n = read_at(w->fd, w->ahead, (size_t)AHEAD * w->psize, page * w->psize);
        w->first = page;
        w->held = n > 0 ? (uint64_t)n / w->psize : 0;
    }
    bool held = page - w->first < w->held && bytes <= w->psize;
    w->before = held ? w->first + w->held - 1 : page;
    if (held) {
        memcpy(buf, w->ahead + (page - w->first) * w->psize, bytes);
        return true;
    }
    ssize_t n = read_at(w->fd, buf, bytes, page * w->psize);
    if (n == (ssize_t)bytes) return true;
    w->io = true;
    w->code = n < 0 ? errno : EIO;
    return false;
}

/* The page in the map, or read into `buf`; NULL: it could not be, or is another. */
static const uint8_t *load(walk *w, const char *name, uint64_t page, uint8_t *buf, size_t bytes)
{
    const uint8_t *p = w->map ? w->map + page * w->psize : buf;
    if (!w->map && !fetch(w, page, buf, bytes)) return NULL;
    if (iso_get_u64(p) == page) return p;
    fault(w, "%s: page %" PRIu64 " says that it is another", name, page);
    return NULL;
}

/* The nodes that a tree's keys lie between, from the branches above: not below the one, below the other. NULL: no bound. */
typedef struct span { const uint8_t *from, *to; } span;

static bool walk_tree(walk *w, visit *v, uint64_t page, uint32_t level, uint32_t depth, span keys);

static bool check_overflow(walk *w, const visit *v, const uint8_t *data, uint32_t size, uint64_t *first)
{
    uint8_t buf[PAGE_HEADER];
    uint64_t page = iso_get_u64(data), need = ((uint64_t)PAGE_HEADER + size - 1) / w->psize + 1;
    if (page < 2 || page >= w->pages) return fault(w, "%s: a link leads to page %" PRIu64 ", outside the file", v->name, page);
    const uint8_t *h = load(w, v->name, page, buf, sizeof buf);
    if (!h) return false;
    uint64_t count = iso_get_u32(h + 12);
    if (iso_get_u16(h + 10) != P_OVERFLOW || count < need) return fault(w, "%s: page %" PRIu64 " should hold a long value", v->name, page);
    *first = page;
    return take(w, v->name, page, count);
}

/* A list of free pages: its length, then the numbers, falling. */
static bool check_free(walk *w, const uint8_t *p, uint32_t size)
{
    uint64_t n = size >= 8 && size % 8 == 0 ? iso_get_u64(p) : UINT64_MAX;
    if (n > size / 8 - 1) return fault(w, "free pages: a list is longer than its record");
    uint64_t before = UINT64_MAX;
    for (uint64_t i = 1; i <= n; i++) {
        uint64_t page = iso_get_u64(p + 8 * i);
        if (page < 2 || page > w->last || page >= before) return fault(w, "free pages: a list holds wrong page %" PRIu64, page);
        before = page;
        /* a free page may lie behind the file's end: LMDB does not write pages freed in the transaction that took them */
        if (page < w->pages && !take(w, "free pages", page, 1)) return false;
    }
    return true;
}

/* Memory for a page to be read into; false: there is none. Pages in the map need none. */
static bool page_buffer(walk *w, size_t bytes, uint8_t **buf)
{
    *buf = w->map ? NULL : malloc(bytes);
    if (*buf || w->map) return true;
    w->io = true;
    w->code = ENOMEM;
    return false;
}

static bool check_long_free(walk *w, uint64_t page, uint32_t size)
{
    uint8_t *buf;
    if (!page_buffer(w, (size_t)size + PAGE_HEADER, &buf)) return false;
    const uint8_t *p = load(w, "free pages", page, buf, (size_t)size + PAGE_HEADER);
    bool ok = p && check_free(w, p + PAGE_HEADER, size);
    free(buf);
    return ok;
}

/* A record of the table of tables. */
static bool check_table(walk *w, const uint8_t *key, uint32_t ksize, const uint8_t *data, uint32_t size)
{
    if (size != DB_SIZE) return fault(w, "a table's record has %u bytes", size);
    for (int i = 0; i < TABLES; i++)
        if (strlen(tables[i].name) == ksize && !memcmp(tables[i].name, key, ksize)) {
            if (w->found[i]) return fault(w, "%s: a table that is there twice", tables[i].name);
            w->found[i] = true;
            w->table[i] = tree_at(data);
            return true;
        }
    return fault(w, "a table of an unknown name");
}

static bool check_leaf(walk *w, visit *v, const uint8_t *node)
{
    uint32_t size = data_size(node);
    uint32_t flags = iso_get_u16(node + 4), ksize = iso_get_u16(node + 6);
    const uint8_t *data = node + NODE_HEADER + ksize;
    if (flags & ~(uint32_t)(F_BIGDATA | F_SUBDATA) || ((flags & F_SUBDATA) != 0) != v->main || (v->main && flags & F_BIGDATA))
        return fault(w, "%s: a record has wrong flags", v->name);
    if (v->main) return check_table(w, node + NODE_HEADER, ksize, data, size);
    if (flags & F_BIGDATA) {
        uint64_t page = 0;
        if (!check_overflow(w, v, data, size, &page)) return false;
        return v->free ? check_long_free(w, page, size) : true;
    }
    return v->free ? check_free(w, data, size) : true;
}

static inline uint64_t node_size(const uint8_t *node, bool leaf)
{
    uint64_t size = (uint64_t)NODE_HEADER + iso_get_u16(node + 6);
    if (leaf) size += iso_get_u16(node + 4) & F_BIGDATA ? 8 : data_size(node);
    return size;
}

/* Two records in one place would be torn apart by the next write to their page. The offsets are in order to be read.
 * Records that were appended lie each before the last one. */
static bool nodes_apart(const uint8_t *p, uint32_t psize, uint32_t nodes, bool leaf)
{
    uint8_t taken[PAGE_MOST / 2 / 8]; /* a bit for every two bytes */
    uint32_t falling = 0;
    for (uint32_t end = psize; falling < nodes; falling++) {
        uint32_t at = iso_get_u16(p + PAGE_HEADER + 2 * falling);
        if (at + node_size(p + at, leaf) > end) break;
        end = at;
    }
    if (falling == nodes) return true;
    memset(taken, 0, psize / 2 / 8);
    for (uint32_t i = 0; i < nodes; i++) {
        uint32_t at = iso_get_u16(p + PAGE_HEADER + 2 * i);
        uint64_t size = node_size(p + at, leaf);
        if (at + size > psize) return false;
        for (uint32_t bit = at / 2; bit < (at + size + 1) / 2; bit++) {
            if (taken[bit / 8] >> bit % 8 & 1) return false;
            taken[bit / 8] |= (uint8_t)(1 << bit % 8);
        }
    }
    return true;
}

static bool walk_children(walk *w, visit *v, const uint8_t *p, uint32_t nodes, uint32_t level, uint32_t depth, span keys)
{
    for (uint32_t i = 0; i < nodes; i++) {
        const uint8_t *node = p + iso_get_u16(p + PAGE_HEADER + 2 * i);
        const uint8_t *to = i + 1 < nodes ? p + iso_get_u16(p + PAGE_HEADER + 2 * (i + 1)) : keys.to;
        if (!walk_tree(w, v, child_of(node), level + 1, depth, (span){i ? node : keys.from, to})) return false;
    }
    return true;
}

/* As LMDB compares keys; below 0: a is the smaller one. */
static inline int compare_keys(bool integer, const uint8_t *a, const uint8_t *b)
{
    uint32_t na = iso_get_u16(a + 6), nb = iso_get_u16(b + 6);
    if (integer || (na >= 8 && nb >= 8)) { /* of hashes, the first bytes nearly always decide */
        uint64_t x = iso_get_u64(a + NODE_HEADER), y = iso_get_u64(b + NODE_HEADER);
        if (!integer) x = be64toh(x), y = be64toh(y);
        if (x != y || integer) return (x > y) - (x < y);
    }
    int order = memcmp(a + NODE_HEADER, b + NODE_HEADER, na < nb ? na : nb);
    return order ? order : (na > nb) - (na < nb);
}

/* LMDB searches by halving: out of order, what is there is not found, and what is put goes astray. It never looks at a branch's first key. */
static bool walk_nodes(walk *w, visit *v, const uint8_t *p, uint64_t page, uint32_t level, uint32_t depth, span keys)
{
    uint32_t lower = iso_get_u16(p + 12), upper = iso_get_u16(p + 14);
    const bool leaf = level + 1 == depth, integer = v->integer;
    if (iso_get_u16(p + 10) != (leaf ? P_LEAF : P_BRANCH)) return fault(w, "%s: page %" PRIu64 " is of the wrong kind", v->name, page);
    if (lower < PAGE_HEADER || lower % 2 || lower > upper || upper > w->psize) return fault(w, "%s: page %" PRIu64 " has a wrong header", v->name, page);
    uint32_t nodes = (lower - PAGE_HEADER) / 2;
    if (w->map && leaf) leaf_ahead(p, w->psize, nodes);
    if (!nodes || (!leaf && nodes < 2 && !v->free)) return fault(w, "%s: page %" PRIu64 " is empty", v->name, page);
    for (uint32_t i = 0; i < nodes; i++) {
        uint32_t at = iso_get_u16(p + PAGE_HEADER + 2 * i);
        if (at < upper || at % 2 || at + NODE_HEADER > w->psize) return fault(w, "%s: page %" PRIu64 " has a wrong offset", v->name, page);
    }
    if (!nodes_apart(p, w->psize, nodes, leaf)) return fault(w, "%s: page %" PRIu64 " holds records that overlap", v->name, page);
    const uint8_t *before = keys.from;
    const uint32_t unused = leaf ? 0 : iso_get_u16(p + iso_get_u16(p + PAGE_HEADER) + 6);
    if (unused > (integer ? 8 : KEY_MAX) || (integer && unused % 8)) return fault(w, "%s: a key of %u bytes", v->name, unused);
    for (uint32_t i = leaf ? 0 : 1; i < nodes; i++) {
        const uint8_t *node = p + iso_get_u16(p + PAGE_HEADER + 2 * i);
        uint32_t size = iso_get_u16(node + 6);
        if (integer ? size != 8 : !size || size > KEY_MAX) return fault(w, "%s: a key of %u bytes", v->name, size);
        int order = before ? compare_keys(integer, before, node) : -1;
        if (order > 0 || (!order && i)) return fault(w, "%s: page %" PRIu64 " has keys out of order", v->name, page);
        if (leaf && !check_leaf(w, v, node)) return false;
        before = node;
    }
    if (before && keys.to && compare_keys(integer, before, keys.to) >= 0)
        return fault(w, "%s: page %" PRIu64 " has keys that belong behind it", v->name, page);
    if (leaf) v->entries += nodes;
    return leaf || walk_children(w, v, p, nodes, level, depth, keys);
}

static bool walk_tree(walk *w, visit *v, uint64_t page, uint32_t level, uint32_t depth, span keys)
{
    if (level >= depth) return fault(w, "%s: the tree is deeper than it says", v->name);
    if (!take(w, v->name, page, 1)) return false;
    uint8_t *buf;
    if (!page_buffer(w, w->psize, &buf)) return false;
    const uint8_t *p = load(w, v->name, page, buf, w->psize);
    bool ok = p && walk_nodes(w, v, p, page, level, depth, keys);
    free(buf);
    return ok;
}

static bool walk_db(walk *w, const char *name, const tree *t, bool integer, bool is_main, bool is_free)
{
    visit v = {.name = name, .integer = integer, .main = is_main, .free = is_free};
    if (!is_free && t->flags != (integer ? INTEGER_KEYS : 0)) return fault(w, "%s: flags 0x%x are not this store's", name, t->flags);
    if (t->root == NO_PAGE) return t->entries || t->depth ? fault(w, "%s: the table has entries but no root", name) : true;
    if (!t->depth || t->depth > DEPTH_MAX) return fault(w, "%s: a tree of depth %u", name, t->depth);
    if (!walk_tree(w, &v, t->root, 0, t->depth, (span){NULL, NULL})) return false;
    if (v.entries != t->entries) return fault(w, "%s: %" PRIu64 " entries where %" PRIu64 " are counted", name, v.entries, t->entries);
    return true;
}

void iso_pages_whole(MDB_env *env, const void *data)
{
    MDB_envinfo info;
    MDB_stat stat;
    if (mdb_env_info(env, &info) || mdb_env_stat(env, &stat) || stat.ms_psize > (size_t)sysconf(_SC_PAGESIZE)) return;
    const size_t bytes = (info.me_last_pgno + 1) * stat.ms_psize;
    void *map = (void *)(uintptr_t)map_of(data, stat.ms_psize);
    const size_t most = bytes < info.me_mapsize ? bytes : info.me_mapsize;
    (void)madvise(map, most, MADV_NORMAL); /* only wishes */
#ifdef MADV_HUGEPAGE
    (void)madvise(map, most, MADV_HUGEPAGE);
#endif
}

/* From here on pages are read in LMDB's map. The table of tables has been found sound, so LMDB may look into it. Pages that
 * the file system cannot give, and older kernels, leave it at reading. */
static void use_map(walk *w, MDB_txn *txn)
{
#ifdef MADV_POPULATE_READ
    MDB_envinfo env;
    MDB_dbi dbi;
    MDB_cursor *c;
    MDB_val key, first;
    const size_t bytes = (size_t)w->pages * w->psize;
    if (w->psize > (size_t)sysconf(_SC_PAGESIZE) || mdb_env_info(mdb_txn_env(txn), &env) || env.me_mapsize < bytes) return;
    if (mdb_dbi_open(txn, NULL, 0, &dbi) || mdb_cursor_open(txn, dbi, &c)) return;
    int rc = mdb_cursor_get(c, &key, &first, MDB_FIRST);
    mdb_cursor_close(c);
    if (rc) return;
    iso_pages_whole(mdb_txn_env(txn), first.mv_data);
    const uint8_t *map = map_of(first.mv_data, w->psize);
    if (!madvise((void *)(uintptr_t)map, bytes, MADV_POPULATE_READ)) w->map = map;
#else
    (void)w, (void)txn;
#endif
}

static void walk_all(walk *w, const head *h, MDB_txn *txn, bool in_map)
{
    if (walk_db(w, "tables", &h->main, false, true, false) && in_map) use_map(w, txn);
    for (int i = 0; i < TABLES && !w->io; i++)
        if (w->found[i]) walk_db(w, tables[i].name, &w->table[i], tables[i].integer, false, false);
    if (!w->io) walk_db(w, "free pages", &h->free, true, false, true);
}

iso_status iso_pages_check(int fd, const char *dir, MDB_txn *txn, bool in_map, iso_say *say, void *ctx, iso_progress *progress, int64_t *faults, iso_error *err)
{
    head h[2];
    uint64_t bytes;
    iso_status status = heads_read(fd, dir, h, &bytes, err);
    if (status) return status;
    const head *now = head_of(h, mdb_txn_id(txn));
    if (!now) return iso_fail(err, ISO_E_INTERRUPTED, "%s changed while it was being checked: try again", dir);
    walk w = {.fd = fd, .psize = now->psize, .pages = bytes / now->psize, .last = now->last, .say = say, .ctx = ctx, .progress = progress};
    w.seen = iso_calloc((size_t)(w.pages / 8 + 1), 1);
    w.ahead = malloc((size_t)AHEAD * w.psize);
    if (!w.seen || !w.ahead) {
        free(w.seen);
        free(w.ahead);
        return iso_fail_memory(err);
    }
    iso_progress_pass(progress, "checking", "pages", (int64_t)w.pages);
    /* LMDB reads records in the map up to `last`: shorter is fine only while all that is missing is free */
    walk_all(&w, now, txn, in_map);
    free(w.seen);
    free(w.ahead);
    if (w.io) {
        errno = w.code;
        return iso_fail_errno(err, "cannot read %s/data.mdb", dir);
    }
    *faults = w.faults;
    return ISO_OK;
}
