#include "model/output.h"

#include <stdlib.h>
#include <unistd.h>

#include "base/file.h"
#include "base/memory.h"

iso_status iso_output_check(const char *path, bool force, iso_error *err)
{
    if (!path || !*path) return iso_fail(err, ISO_E_ARGUMENT, "no file name for the model");
    char *state = iso_format("%s.state", path);
    if (!state) return iso_fail_memory(err);
    iso_status status = ISO_OK;
    bool have_model = access(path, F_OK) == 0, have_state = access(state, F_OK) == 0;
    if (!force && (have_model || have_state))
        status = iso_fail(err, ISO_E_ARGUMENT, "%s exists: replace it with --force", have_model ? path : state);
    iso_file *probe = NULL;
    if (!status) status = iso_file_create(path, &probe, err);
    iso_file_abort(probe);
    free(state);
    return status;
}

static iso_status remove_companions(const char *path, iso_error *err)
{
    static const char *const ends[] = {"state", "csv"};
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++) {
        char *name = iso_format("%s.%s", path, ends[i]);
        if (!name) return iso_fail_memory(err);
        iso_status status =
            unlink(name) && access(name, F_OK) == 0 ? iso_fail_errno(err, "cannot remove %s", name) : ISO_OK;
        free(name);
        if (status) return status;
    }
    return ISO_OK;
}

iso_status iso_output_save(iso_model *m, const char *path, bool force, iso_error *err)
{
    iso_status status = iso_model_save(m, path, err);
    return !status && force ? remove_companions(path, err) : status;
}
