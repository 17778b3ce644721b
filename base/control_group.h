/* control_group.h: the control groups (cgroups) that this process is in, as a container's are. */
#ifndef ISO_BASE_CONTROL_GROUP_H
#define ISO_BASE_CONTROL_GROUP_H

#include <stdbool.h>
#include <stdio.h>

/* A group's folder; unified: of version 2. `root` stands before every path: "", or where a test has its files. */
typedef void iso_group_look(void *ctx, const char *root, const char *folder, bool unified);
/* Looks at each group of `controller` ("memory", "cpu") and at all around it, of both versions. */
void iso_groups_each(const char *root, const char *controller, iso_group_look *look, void *ctx);

/* The file root/folder/name for reading; NULL. */
FILE *iso_group_open(const char *root, const char *folder, const char *name);

#endif
