#include "base/control_group.h"

#include <stdlib.h>
#include <string.h>

#include "base/memory.h"

FILE *iso_group_open(const char *root, const char *folder, const char *name)
{
    char *path = iso_format("%s%s%s", root, folder, name);
    FILE *f = path ? fopen(path, "re") : NULL;
    free(path);
    return f;
}

/* The group and all around it. In a container its own path is not to be seen: then `mount` itself is its group. */
static void group(const char *root, const char *mount, const char *path, bool unified, iso_group_look *look, void *ctx)
{
    char *folder = iso_format("%s%s", mount, path);
    for (char *end = folder ? folder + strlen(folder) : NULL; end; end = strrchr(folder, '/')) {
        *end = '\0';
        if (strlen(folder) < strlen(mount)) break;
        look(ctx, root, folder, unified);
    }
    free(folder);
}

/* Lines of /proc/self/cgroup: "0::/path" (version 2), "9:cpu,memory:/path" (version 1). */
void iso_groups_each(const char *root, const char *controller, iso_group_look *look, void *ctx)
{
    char line[4096], mount[64];
    FILE *f = iso_group_open(root, "/proc/self/cgroup", "");
    snprintf(mount, sizeof mount, "/sys/fs/cgroup/%s", controller);
    while (f && fgets(line, sizeof line, f)) {
        line[strcspn(line, "\n")] = '\0';
        char *names = strchr(line, ':'), *path = names ? strchr(names + 1, ':') : NULL;
        if (!path) continue;
        *names++ = *path++ = '\0';
        if (!*names) {
            group(root, "/sys/fs/cgroup", path, true, look, ctx);
            continue;
        }
        for (char *rest = names, *name; (name = strtok_r(rest, ",", &rest));)
            if (strcmp(name, controller) == 0) group(root, mount, path, false, look, ctx);
    }
    if (f) fclose(f);
}
