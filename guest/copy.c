/* copy.c - `lodge cp`: a file or a directory out of the guest, or into it, as an archive over the
 * session's streams. Paths are resolved as the guest's own commands see them. */
#include <fcntl.h>
#include <stdio.h>

#include "guest/archive.h"
#include "guest/place.h"
#include "init.h"

static int receive(int directory, const char *name, void *in, struct error *err)
{
    return archive_receive(in, true, directory, name, err);
}

static int copy_out(const char *path)
{
    struct place place = {.directory = -1};
    struct error why = {0};
    int r = place_open(NULL, path, &place, &why);

    if (r < 0)
        archive_send_failure(stdout, &why);
    else
        r = archive_send(place.directory, place.name, stdout, NULL);
    place_close(&place);
    return r;
}

/* Nothing else is printed: why it failed. */
static int copy_in(const char *path, const char *name)
{
    struct place place = {.directory = -1};
    struct error why = {0};
    int r = place_open_target(NULL, path, name, &place, &why);

    if (r == 0)
        r = place_fill(&place, receive, stdin, &why);
    place_close(&place);
    if (r < 0)
        printf("%s", why.text);
    fflush(stdout);
    return r;
}

int copy_serve(const struct task *task)
{
    int r = -1;

    if (task->copies == COPY_OUT && task->argument_count == 1)
        r = copy_out(task->arguments[0]);
    else if (task->copies == COPY_IN && task->argument_count == 2)
        r = copy_in(task->arguments[0], task->arguments[1]);
    return r < 0;
}
