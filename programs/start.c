/* What a program needs before anything else of it runs, libraries' constructors too: linked into every program, and called by the dynamic
 * loader (.preinit_array). Neither libc nor a sanitizer is set up yet: plain system calls only. */
#include <fcntl.h>
#include <unistd.h>

/* A program may be started without standard input, output or error. Its next file would get their number, and a warning meant for stderr
 * would be written into a database. What is opened for reading only is at its end, and writing to it fails as to what is closed. */
static void reserve_standard_files(void)
{
    for (int fd = 0; fd < 3; fd++)
        if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", O_RDONLY) < 0) (void)open("/", O_RDONLY | O_DIRECTORY);
}

__attribute__((section(".preinit_array"), used)) static void (*const at_start)(void) = reserve_standard_files;
