/* benchwrite: how fast the disk takes bytes that are there already: what bench/ingest.bench holds an import against. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/args.h"
#include "base/progress.h"

typedef struct config {
    const char *output;
    int64_t bytes, chunk;
    bool direct;
} config;

#define AT(field) offsetof(config, field)
static const iso_option options[] = {
    {"output", 0, ISO_ARG_TEXT, AT(output), "FILE", "a new file; it is removed again, after the time was taken", 0, 0},
    {"bytes", 0, ISO_ARG_INT, AT(bytes), "N", "how many (default: 512000000)", 1, 1e12},
    {"chunk", 0, ISO_ARG_INT, AT(chunk), "N", "bytes in one write, a multiple of 4096 (default: 16 MiB)", 4096,
     1 << 30},
    {"direct", 0, ISO_ARG_FLAG, AT(direct), NULL, "past the page cache (O_DIRECT)", 0, 0},
    {NULL, 0, ISO_ARG_FLAG, 0, NULL, NULL, 0, 0},
};

static const iso_command command = {
    "benchwrite",
    "benchwrite --output FILE [--bytes N] [--chunk N] [--direct]",
    "Writes N bytes to a new file in large writes, syncs it, and prints the seconds as JSON: the least that a program which\n"
    "keeps them could need here.",
    options,
    NULL,
};

static iso_status write_all(int fd, const config *c, const char *buffer, iso_error *err)
{
    for (int64_t left = c->bytes; left > 0;) {
        ssize_t n = write(fd, buffer, (size_t)(left < c->chunk && !c->direct ? left : c->chunk));
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return iso_fail_errno(err, "cannot write %s", c->output);
        left -= n;
    }
    return fdatasync(fd) ? iso_fail_errno(err, "cannot sync %s", c->output) : ISO_OK;
}

static iso_status run(const config *c, iso_error *err)
{
    if (!c->output) return iso_fail(err, ISO_E_ARGUMENT, "--output is missing");
    if (c->chunk % 4096) return iso_fail(err, ISO_E_ARGUMENT, "--chunk must be a multiple of 4096");
    char *buffer = aligned_alloc(4096, (size_t)c->chunk);
    if (!buffer) return iso_fail_memory(err);
    uint64_t state = 1;
    for (int64_t i = 0; i < c->chunk; i++) { /* not to be compressed away */
        state = state * UINT64_C(6364136223846793005) + 1442695040888963407;
        buffer[i] = (char)(state >> 56);
    }
    double started = iso_now();
    int fd = open(c->output, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | (c->direct ? O_DIRECT : 0), 0666);
    iso_status status = fd < 0 ? iso_fail_errno(err, "cannot write %s", c->output) : write_all(fd, c, buffer, err);
    double took = iso_now() - started;
    if (fd >= 0) {
        close(fd);
        unlink(c->output);
    }
    free(buffer);
    if (!status) printf("{\"bytes\": %" PRId64 ", \"seconds\": %.6f}\n", c->bytes, took);
    return status;
}

int main(int argc, char **argv)
{
    config c = {.bytes = 512000000, .chunk = 16 << 20};
    iso_error err = {0};
    int code = iso_args_parse(&command, argc, argv, 1, &c, NULL);
    if (code != ISO_ARGS_RUN) return code;
    return iso_exit(command.program, run(&c, &err), &err);
}
