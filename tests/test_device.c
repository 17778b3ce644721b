/* Devices: by name, how much memory there is, and the batch that fits into it. */
#include <malloc.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/host_memory.h"
#include "base/host_threads.h"
#include "base/memory.h"
#include "model/device.h"
#include "model/model.h"
#include "model/net/net.h"
#include "model/train.h"
#include "tests/check.h"
#include "tests/folder.h"

#if defined(__SANITIZE_ADDRESS__)
#define SANITIZED true /* takes more address space than any limit leaves */
#else
#define SANITIZED false
#endif

static char folder[512];

/* --- names */

static void test_names(void **state)
{
    (void)state;
    const iso_backend *b = NULL;
    iso_error err = {0};
    assert_int_equal(iso_device_find("cpu", &b, &err), ISO_OK);
    assert_ptr_equal(b, iso_backend_cpu());
    b = NULL;
    assert_int_equal(iso_device_find("tpu", &b, &err), ISO_E_ARGUMENT);
    assert_non_null(strstr(err.message, "cpu|cuda|cuda-float32"));
    assert_null(b);
    /* Where there is a GPU, and it is built for, it is found. */
    if (iso_device_find("cuda", &b, &err) == ISO_OK) return;
    assert_int_equal(iso_device_find("cuda-float32", &b, &err), ISO_E_UNSUPPORTED);
    assert_non_null(strstr(err.message, "use --device cpu"));
    assert_null(strchr(err.message, '\n'));
    assert_null(b);
}

/* --- the host's memory */

/* Writes folder/root/PATH. */
static void put(const char *root, const char *path, const char *text)
{
    char *name = iso_format("%s/%s%s", folder, root, path);
    assert_non_null(name);
    for (char *at = name + strlen(folder) + 1; (at = strchr(at, '/')); at++) {
        *at = '\0';
        (void)mkdir(name, 0755);
        *at = '/';
    }
    FILE *f = fopen(name, "w");
    assert_non_null(f);
    assert_true(fputs(text, f) >= 0);
    assert_int_equal(fclose(f), 0);
    free(name);
}

static size_t memory_of(const char *root)
{
    char *name = iso_format("%s/%s", folder, root);
    assert_non_null(name);
    size_t n = iso_host_memory_at(name);
    free(name);
    return n;
}

static void test_host_memory(void **state)
{
    (void)state;
    const size_t MB = 1000 * 1000;
    assert_true(memory_of("nothing") == SIZE_MAX);
    put("plain", "/proc/meminfo", "MemTotal:       9000000 kB\nMemAvailable:   2000000 kB\nSwapFree:        100 kB\nMemAvailableX: 1 kB\n");
    assert_int_equal(memory_of("plain"), 2000100u * 1024u);
    assert_int_not_equal(memory_of("plain"), 2000000u * 1024u);

    /* Version 2: the tightest of the group and those around it; read files do not count; "max" is no limit. */
    put("two", "/proc/meminfo", "MemAvailable:   8000000 kB\n");
    put("two", "/proc/self/cgroup", "0::/user.slice/session\n");
    assert_int_equal(memory_of("two"), 8000000u * (size_t)1024u);
    put("two", "/sys/fs/cgroup/user.slice/session/memory.max", "max\n");
    put("two", "/sys/fs/cgroup/user.slice/session/memory.current", "900000000\n");
    assert_int_equal(memory_of("two"), 8000000u * (size_t)1024u);
    put("two", "/sys/fs/cgroup/user.slice/memory.max", "1000000000\n");
    put("two", "/sys/fs/cgroup/user.slice/memory.current", "900000000\n");
    assert_int_equal(memory_of("two"), 100 * MB);
    put("two", "/sys/fs/cgroup/user.slice/memory.stat", "anon 5\ninactive_file 300000000\nactive_file 7\n");
    assert_int_equal(memory_of("two"), 400 * MB);
    put("two", "/sys/fs/cgroup/user.slice/session/memory.max", "800000000\n");
    assert_int_equal(memory_of("two"), 0); /* over its limit already */

    /* Version 1, in a container that does not see the group's own path. */
    put("one", "/proc/meminfo", "MemAvailable:   8000000 kB\n");
    put("one", "/proc/self/cgroup", "12:cpu,cpuacct:/docker/x\n9:hugetlb,memory:/docker/x\n1:name=systemd:/\n");
    put("one", "/sys/fs/cgroup/memory/memory.limit_in_bytes", "700000000\n");
    put("one", "/sys/fs/cgroup/memory/memory.usage_in_bytes", "600000000\n");
    put("one", "/sys/fs/cgroup/memory/memory.stat", "cache 1\ntotal_inactive_file 50000000\n");
    assert_int_equal(memory_of("one"), 150 * MB);

    assert_true(iso_host_memory() > 16 * MB); /* of this machine */
}

static int threads_of(const char *root)
{
    char *name = iso_format("%s/%s", folder, root);
    assert_non_null(name);
    const int n = iso_host_threads_at(name);
    free(name);
    return n;
}

static void test_host_threads(void **state)
{
    (void)state;
    assert_int_equal(threads_of("nothing"), 0);

    /* Version 2: the tightest of the group and those around it, rounded up. */
    put("wide", "/proc/self/cgroup", "0::/user.slice/session\n");
    put("wide", "/sys/fs/cgroup/user.slice/session/cpu.max", "max 100000\n");
    assert_int_equal(threads_of("wide"), 0);
    put("wide", "/sys/fs/cgroup/user.slice/cpu.max", "350000 100000\n");
    assert_int_equal(threads_of("wide"), 4);
    put("wide", "/sys/fs/cgroup/user.slice/session/cpu.max", "20000 10000\n");
    assert_int_equal(threads_of("wide"), 2);
    put("wide", "/sys/fs/cgroup/user.slice/session/cpu.max", "1000 100000\n");
    assert_int_equal(threads_of("wide"), 1);

    /* Version 1; -1 is no limit. */
    put("narrow", "/proc/self/cgroup", "9:memory:/docker/x\n3:cpu,cpuacct:/docker/x\n");
    put("narrow", "/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "-1\n");
    put("narrow", "/sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n");
    assert_int_equal(threads_of("narrow"), 0);
    put("narrow", "/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "150000\n");
    assert_int_equal(threads_of("narrow"), 2);
    assert_true(iso_host_threads() >= 0);
}

/* --- what fits */

typedef struct cost {
    size_t fixed, each;
    int64_t calls, most; /* most: 0, or a batch beyond which a library would not go */
    bool fails;
} cost;

static iso_status measure(void *ctx, int64_t batch, size_t *bytes, iso_error *err)
{
    cost *c = ctx;
    c->calls++;
    if (c->fails || (c->most && batch > c->most)) return iso_fail(err, ISO_E_UNSUPPORTED, "cannot be planned");
    *bytes = c->fixed + (size_t)batch * c->each;
    return ISO_OK;
}

static size_t there_is;
static size_t fake_memory(void) { return there_is; }
static const iso_device fake_device = {.free_memory = fake_memory};
static const iso_backend fake = {.name = "fake", .device = &fake_device};

static void test_fit(void **state)
{
    (void)state;
    iso_error err = {0};
    for (size_t room = 0; room < 70; room++)
        for (int64_t below = 1; below < 12; below++) {
            cost c = {.fixed = 10, .each = 7};
            int64_t got = -1, want = 0;
            assert_int_equal(iso_device_fit(measure, &c, below, room, &got, &err), ISO_OK);
            for (int64_t b = 1; b < below && 10 + (size_t)b * 7 <= room; b++) want = b;
            assert_int_equal(got, want);
            assert_true(c.calls <= 4); /* it halves */
        }
    cost bad = {.fails = true};
    int64_t untouched = 5;
    assert_int_equal(iso_device_fit(measure, &bad, 8, 10, &untouched, &err), ISO_E_UNSUPPORTED);
    assert_int_equal(untouched, 5);
    for (int64_t most = 1; most < 12; most++) { /* a library's limit, or memory's */
        cost c = {.fixed = 10, .each = 7, .most = most};
        int64_t got = -1;
        assert_int_equal(iso_device_fit(measure, &c, 12, 10 + 7 * 5, &got, &err), ISO_OK);
        assert_int_equal(got, most < 5 ? most : 5);
    }
}

static void test_check(void **state)
{
    (void)state;
    const size_t GiB = (size_t)1 << 30, rounding = (size_t)512 << 20;
    cost c = {.fixed = GiB, .each = GiB};
    iso_error err = {0};
    there_is = 20 * GiB + rounding;
    assert_true(iso_device_room(&fake) == 20 * GiB);
    assert_int_equal(iso_device_check(&fake, "training", measure, &c, 19, &err), ISO_OK);
    assert_int_equal(iso_device_check(&fake, "training", measure, &c, 100, &err), ISO_E_MEMORY);
    assert_string_equal(err.message, "out of memory: training with a batch of 100 needs 101.00 GiB on the device, where 20.00 are "
                                     "free; the largest batch that fits is 19");
    there_is = GiB;
    assert_int_equal(iso_device_full(&fake, "encoding", measure, &c, 2, &err), ISO_E_MEMORY);
    assert_string_equal(err.message, "out of memory: encoding with a batch of 2 needs 3.00 GiB on the device, where 0.50 are free; "
                                     "no batch fits");
    /* Something else was short, or planning fails: what was said stays. */
    there_is = 50 * GiB;
    err = (iso_error){0};
    assert_int_equal(iso_device_full(&fake, "encoding", measure, &c, 2, &err), ISO_E_MEMORY);
    assert_string_equal(err.message, "");
    /* Too large for a library before it is for the memory. */
    c.most = 30;
    assert_int_equal(iso_device_check(&fake, "training", measure, &c, 100, &err), ISO_E_UNSUPPORTED);
    assert_string_equal(err.message, "training with a batch of 100: cannot be planned; the largest batch that fits is 30");
    there_is = 20 * GiB + rounding;
    assert_int_equal(iso_device_check(&fake, "training", measure, &c, 100, &err), ISO_E_UNSUPPORTED);
    assert_string_equal(err.message, "training with a batch of 100: cannot be planned; the largest batch that fits is 19");
    there_is = GiB;
    assert_int_equal(iso_device_check(&fake, "training", measure, &c, 100, &err), ISO_E_UNSUPPORTED);
    assert_string_equal(err.message, "cannot be planned");
    there_is = 50 * GiB;
    err = (iso_error){0};
    c.fails = true;
    err = (iso_error){0};
    assert_int_equal(iso_device_full(&fake, "encoding", measure, &c, 2, &err), ISO_E_MEMORY);
    assert_string_equal(err.message, "");
    assert_int_equal(iso_device_check(&fake, "encoding", measure, &c, 2, &err), ISO_E_UNSUPPORTED);
    assert_string_equal(err.message, "cannot be planned");
    assert_int_equal(iso_device_full(&fake, "encoding", measure, &c, 2, NULL), ISO_E_MEMORY);
}

/* --- real plans in a process that may take little */

enum { IMAGES = 200, LIMIT_MiB = 240 };

static bool halt(void *ctx)
{
    (void)ctx;
    return true; /* after the first step */
}

/* Of a net of `width`; or a flow of that length and of `depth` on a model. */
static iso_status train_net(int width, int depth, int64_t batch, const iso_model *flow_of, iso_error *err)
{
    static uint8_t pixels[IMAGES * ISO_PIXELS];
    static int64_t rows[IMAGES];
    char path[600];
    for (int i = 0; i < IMAGES * ISO_PIXELS; i++) pixels[i] = (uint8_t)(i % 251);
    for (int i = 0; i < IMAGES; i++) rows[i] = i;
    snprintf(path, sizeof path, "%s/m.safetensors", folder);
    const iso_train_data data = {.pixels = pixels, .dim = ISO_PIXELS, .train = rows, .train_count = IMAGES};
    const iso_run run = {.path = path, .epochs = 1, .batch = batch, .lr = 1e-3, .eta = 0.2, .force = true, .threads = 2, /* each has buffers */
                         .watch = {.stop = flow_of ? NULL : halt}};
    if (flow_of) return iso_train_flow(&(iso_flow_spec){.model = flow_of, .beta = 1, .depth = depth, .length = width, .run = run}, &data, err);
    const iso_train_spec spec = {.net = {.arch = ISO_ARCH_CELEBA, .width = width, .latent = 4}, .method = "isometric", .alpha = 1,
                                 .kl_weight = 1, .run = run};
    return iso_train(&spec, &data, err);
}

static iso_status train(int64_t batch, const iso_model *flow_of, iso_error *err) { return train_net(8, 2, batch, flow_of, err); }

/* The batch that a message proposes; 0: none. */
static int proposed(const char *message, const char *begins)
{
    int batch = 0;
    const char *at = strstr(message, "the largest batch that fits is ");
    if (strncmp(message, begins, strlen(begins)) != 0 || !at || !strstr(message, "GiB of memory, where ")) return 0;
    return sscanf(at, "the largest batch that fits is %d", &batch) == 1 ? batch : 0;
}

/* From now on the process may take this much more. */
static bool leave(rlim_t MiB)
{
    long pages = 0;
    FILE *f = fopen("/proc/self/statm", "r");
    if (!f || fscanf(f, "%ld", &pages) != 1) return false;
    fclose(f);
    const rlim_t most = (rlim_t)pages * (rlim_t)sysconf(_SC_PAGESIZE) + (MiB << 20);
    return setrlimit(RLIMIT_AS, &(struct rlimit){most, RLIM_INFINITY}) == 0;
}

/* In a process of its own, whose address space is limited: returns what is wrong, 0 for nothing. */
static int limited(void)
{
    iso_error err = {0};
    iso_model *m = NULL;
    iso_encoder *e = NULL;
    const iso_net net = {.arch = ISO_ARCH_CELEBA, .width = 16, .latent = 4};
    if (iso_model_create(&net, &m, &err) != ISO_OK || iso_net_init(m, 1, &err) != ISO_OK) return 1;
    if (train(1, NULL, &err) != ISO_E_INTERRUPTED) return 2; /* threads and their buffers are there now */
    if (!leave(LIMIT_MiB)) return 3;

    if (train(IMAGES, NULL, &err) != ISO_E_MEMORY) return 5;
    fprintf(stderr, "%s\n", err.message);
    int batch = proposed(err.message, "out of memory: training with a batch of 200 needs ");
    if (batch < 2 || train(batch, NULL, &err) != ISO_E_INTERRUPTED) return 6;
    /* Threads' heaps keep address space and give it back, so it is asked again; what it then says fits is the most that does. */
    if (train(IMAGES, NULL, &err) != ISO_E_MEMORY) return 12;
    const int again = proposed(err.message, "out of memory: training with a batch of 200 needs ");
    if (again < 2 || train(again + 1, NULL, &err) != ISO_E_MEMORY) return 7;

    if (iso_encoder_create(m, 20000, &e, &err) != ISO_E_MEMORY) return 8;
    fprintf(stderr, "%s\n", err.message);
    batch = proposed(err.message, "out of memory: encoding with a batch of 20000 needs ");
    if (batch < 2 || iso_encoder_create(m, batch, &e, &err) != ISO_OK) return 9;
    iso_encoder_free(e);

    if (train(IMAGES, m, &err) != ISO_E_MEMORY) return 10;
    fprintf(stderr, "%s\n", err.message);
    if (proposed(err.message, "out of memory: training with a batch of 200 needs ") < 1) return 11;
    /* Found before the parameters themselves are made, which would not fit. */
    if (train_net(300, 0, 1, NULL, &err) != ISO_E_MEMORY || !strstr(err.message, "training with a batch of 1 needs ")) return 13;
    if (train_net(1 << 20, 2, 1, m, &err) != ISO_E_MEMORY || !strstr(err.message, "training with a batch of 1 needs ")) return 14;
    /* And before images are decoded: what these still take counts. */
    iso_train_data counts = {.dim = ISO_PIXELS, .train_count = IMAGES};
    iso_train_spec spec = {.net = net, .method = "vae", .run = {.path = "m", .epochs = 1, .batch = 1, .lr = 1e-3, .eta = 0.2}};
    const iso_flow_spec flow = {.model = m, .beta = 1, .depth = 2, .length = 8, .run = spec.run};
    if (iso_train_fits(&spec, &counts, &err) != ISO_OK || iso_flow_fits(&flow, &counts, &err) != ISO_OK) return 15;
    spec.run.batch = IMAGES;
    if (iso_train_fits(&spec, &counts, &err) != ISO_E_MEMORY || proposed(err.message, "out of memory: training with a batch of 200 needs ") < 1) return 16;
    spec.run.batch = 1;
    counts.valid_count = (int64_t)LIMIT_MiB * (1 << 20) / ISO_PIXELS;
    if (iso_train_fits(&spec, &counts, &err) != ISO_E_MEMORY || iso_flow_fits(&flow, &counts, &err) != ISO_E_MEMORY) return 17;
    iso_model_free(m);
    return 0;
}

/* What is said to fit can be saved, too: however much there is, a training is refused at once or saves its first step. */
static int saved(void)
{
    iso_error err = {0};
    (void)mallopt(M_ARENA_MAX, 1); /* a heap that glibc begins for a thread reserves 64 MiB of addresses, when threads happen to meet */
    if (train(1, NULL, &err) != ISO_E_INTERRUPTED) return 1;
    for (rlim_t MiB = 200; MiB < 1000; MiB += 10) {
        if (!leave(MiB)) return 2;
        iso_status status = train_net(80, 0, 1, NULL, &err);
        if (status == ISO_E_INTERRUPTED) return MiB > 200 ? 0 : 3;
        fprintf(stderr, "%d MiB: %s\n", (int)MiB, err.message);
        if (status != ISO_E_MEMORY || !strstr(err.message, "training with a batch of 1 needs ")) return 4;
    }
    return 5;
}

static void in_child(int (*run)(void))
{
    if (SANITIZED) skip();
    fflush(NULL);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) _exit(run());
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
}

static void test_limit(void **state)
{
    (void)state;
    in_child(limited);
}

static void test_saved(void **state)
{
    (void)state;
    in_child(saved);
}

static int remove_all(void **state)
{
    (void)state;
    return !remove_folder(folder);
}

int main(void)
{
    if (!make_folder(folder, sizeof folder, "device")) return 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names), cmocka_unit_test(test_host_memory), cmocka_unit_test(test_host_threads), cmocka_unit_test(test_fit),
        cmocka_unit_test(test_check), cmocka_unit_test(test_limit),  cmocka_unit_test(test_saved),
    };
    return cmocka_run_group_tests(tests, NULL, remove_all);
}
