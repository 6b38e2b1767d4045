#include "guest/processes.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "container/path.h"

enum { TEXT_MAX = 1024, COLUMNS_MAX = 32, PASSWD_MAX = 1 << 20, LEVELS_MAX = 33 };

/* proc_pid_stat(5) and proc_pid_status(5). */
struct process {
    pid_t pid, parent;
    char comm[64], arguments[TEXT_MAX], state;
    int group, tty;
    long nice;
    unsigned long long user_ticks, system_ticks, start_ticks, size, resident; /* bytes, pages */
    unsigned uid;
    pid_t levels[LEVELS_MAX]; /* its numbers, from the reader's namespace inwards */
    size_t level_count;
};

struct table {
    const struct processes *of;
    size_t level; /* that of the guest's namespace among a process's numbers */
    double uptime;
    char *passwd; /* owned; NULL: there is none */
};

/* --- From /proc --- */

/* What a terminal would take for commands becomes spaces. */
static void clean(char *text, size_t length)
{
    for (size_t i = 0; i < length; i++)
        if ((unsigned char)text[i] < ' ' || text[i] == 127)
            text[i] = ' ';
}

/* Returns the length; text has a NUL after it. */
static size_t read_file(pid_t pid, const char *name, char *text, size_t size)
{
    char path[64];
    FILE *file;
    size_t n;

    snprintf(path, sizeof(path), "/proc/%d/%s", (int)pid, name);
    file = fopen(path, "re");
    n = file ? fread(text, 1, size - 1, file) : 0;
    if (file)
        fclose(file);
    text[n] = 0;
    return n;
}

static bool read_stat(struct process *process)
{
    char text[TEXT_MAX], *name, *end;
    size_t length = read_file(process->pid, "stat", text, sizeof(text));

    name = strchr(text, '(');
    end = strrchr(text, ')'); /* the name may have anything in it */
    if (!length || !name || !end || end < name)
        return false;
    *end = 0;
    snprintf(process->comm, sizeof(process->comm), "%s", name + 1);
    clean(process->comm, strlen(process->comm));
    return sscanf(end + 1,
                  " %c %d %d %*d %d %*d %*u %*u %*u %*u %*u %llu %llu %*d %*d %*d %ld %*d %*d %llu"
                  " %llu %llu",
                  &process->state, &process->parent, &process->group, &process->tty,
                  &process->user_ticks, &process->system_ticks, &process->nice,
                  &process->start_ticks, &process->size, &process->resident) == 10;
}

static void read_status(struct process *process)
{
    char text[4096], *line;
    int used;

    read_file(process->pid, "status", text, sizeof(text));
    if ((line = strstr(text, "\nUid:")))
        sscanf(line, " Uid: %*u %u", &process->uid);
    line = strstr(text, "\nNSpid:");
    for (line = line ? line + 7 : NULL;
         line && process->level_count < LEVELS_MAX &&
         sscanf(line, "%*[ \t]%d%n", &process->levels[process->level_count], &used) == 1;
         line += used)
        process->level_count++;
}

static bool process_read(pid_t pid, struct process *process)
{
    size_t length;

    *process = (struct process){.pid = pid};
    if (!read_stat(process))
        return false; /* it has ended meanwhile */
    read_status(process);
    length = read_file(pid, "cmdline", process->arguments, sizeof(process->arguments));
    while (length && !process->arguments[length - 1])
        length--;
    clean(process->arguments, length);
    if (!length) /* a zombie, or a thread of the kernel */
        snprintf(process->arguments, sizeof(process->arguments), "[%s]", process->comm);
    return true;
}

/* --- In the guest's terms --- */

static pid_t pid_inside(const struct table *table, const struct process *process)
{
    return table->level < process->level_count ? process->levels[table->level] : 0;
}

static pid_t parent_inside(const struct table *table, const struct process *process)
{
    struct process parent;

    for (size_t i = 0; i < table->of->count; i++)
        if (table->of->pids[i] == process->parent && process_read(process->parent, &parent))
            return pid_inside(table, &parent);
    return 0; /* it is outside of the guest */
}

/* user_namespaces(7), uid_map; as the reader sees the outer ids. */
static unsigned uid_inside(const struct process *process)
{
    char text[4096];
    unsigned inside, outside, count;
    int used;

    read_file(process->pid, "uid_map", text, sizeof(text));
    for (const char *line = text; sscanf(line, "%u %u %u%n", &inside, &outside, &count, &used) == 3;
         line += used)
        if (process->uid >= outside && process->uid - outside < count)
            return inside + (process->uid - outside);
    return process->uid;
}

static void user_name(const struct table *table, unsigned uid, char *text, size_t size)
{
    snprintf(text, size, "%u", uid);
    for (const char *line = table->passwd; line && *line; line += *line == '\n') {
        const char *end = strchrnul(line, '\n');
        char name[33], number[12];

        if (sscanf(line, "%32[^:\n]:%*[^:\n]:%11[0-9]:", name, number) == 2 &&
            strtoul(number, NULL, 10) == uid) {
            clean(name, strlen(name));
            snprintf(text, size, "%s", name);
            return;
        }
        line = end;
    }
}

/* "1h2m3s". */
static void duration(double seconds, char *text, size_t size)
{
    unsigned long long s = seconds > 0 ? (unsigned long long)seconds : 0;

    if (s >= 3600)
        snprintf(text, size, "%lluh%llum%llus", s / 3600, s / 60 % 60, s % 60);
    else if (s >= 60)
        snprintf(text, size, "%llum%llus", s / 60, s % 60);
    else
        snprintf(text, size, "%llus", s);
}

static double seconds_of(unsigned long long ticks)
{
    return (double)ticks / (double)sysconf(_SC_CLK_TCK);
}

static double elapsed(const struct table *table, const struct process *process)
{
    return table->uptime - seconds_of(process->start_ticks);
}

/* --- Columns --- */

typedef void column_fn(const struct table *table, const struct process *process, char *text,
                       size_t size);

static void column_args(const struct table *table, const struct process *process, char *text,
                        size_t size)
{
    (void)table;
    snprintf(text, size, "%s", process->arguments);
}

static void column_comm(const struct table *table, const struct process *process, char *text,
                        size_t size)
{
    (void)table;
    snprintf(text, size, "%s", process->comm);
}

static void column_etime(const struct table *table, const struct process *process, char *text,
                         size_t size)
{
    duration(elapsed(table, process), text, size);
}

static void column_hpid(const struct table *table, const struct process *process, char *text,
                        size_t size)
{
    /* Where the two are one, the host does not know it. */
    snprintf(text, size, table->level ? "%d" : "?", (int)process->pid);
}

static void column_nice(const struct table *table, const struct process *process, char *text,
                        size_t size)
{
    (void)table;
    snprintf(text, size, "%ld", process->nice);
}

static void column_pcpu(const struct table *table, const struct process *process, char *text,
                        size_t size)
{
    double whole = elapsed(table, process);
    double used = seconds_of(process->user_ticks + process->system_ticks);

    snprintf(text, size, "%.3f", whole > 0 ? 100 * used / whole : 0);
}

static void column_pid(const struct table *table, const struct process *process, char *text,
                       size_t size)
{
    snprintf(text, size, "%d", (int)pid_inside(table, process));
}

static void column_ppid(const struct table *table, const struct process *process, char *text,
                        size_t size)
{
    snprintf(text, size, "%d", (int)parent_inside(table, process));
}

static void column_rss(const struct table *table, const struct process *process, char *text,
                       size_t size)
{
    (void)table;
    snprintf(text, size, "%llu",
             process->resident * (unsigned long long)sysconf(_SC_PAGESIZE) / 1024);
}

static void column_state(const struct table *table, const struct process *process, char *text,
                         size_t size)
{
    (void)table;
    snprintf(text, size, "%c", process->state);
}

static void column_time(const struct table *table, const struct process *process, char *text,
                        size_t size)
{
    (void)table;
    duration(seconds_of(process->user_ticks + process->system_ticks), text, size);
}

/* Documentation/admin-guide/devices.txt of Linux. */
static void column_tty(const struct table *table, const struct process *process, char *text,
                       size_t size)
{
    unsigned number = (unsigned)process->tty;
    unsigned major = (number >> 8) & 0xfff, minor = (number & 0xff) | ((number >> 12) & 0xfff00);

    (void)table;
    if (major >= 136 && major <= 143)
        snprintf(text, size, "pts/%u", minor + (major - 136) * 256);
    else if (major == 4)
        snprintf(text, size, minor < 64 ? "tty%u" : "ttyS%u", minor < 64 ? minor : minor - 64);
    else
        snprintf(text, size, "?");
}

static void column_user(const struct table *table, const struct process *process, char *text,
                        size_t size)
{
    user_name(table, uid_inside(process), text, size);
}

static void column_vsz(const struct table *table, const struct process *process, char *text,
                       size_t size)
{
    (void)table;
    snprintf(text, size, "%llu", process->size / 1024);
}

static const struct column {
    const char *name, *heading;
    column_fn *write;
} columns_known[] = {
    {"args", "COMMAND", column_args},   {"comm", "COMMAND", column_comm},
    {"etime", "ELAPSED", column_etime}, {"hpid", "HPID", column_hpid},
    {"nice", "NI", column_nice},        {"pcpu", "%CPU", column_pcpu},
    {"pid", "PID", column_pid},         {"ppid", "PPID", column_ppid},
    {"rss", "RSS", column_rss},         {"state", "STATE", column_state},
    {"time", "TIME", column_time},      {"tty", "TTY", column_tty},
    {"user", "USER", column_user},      {"vsz", "VSZ", column_vsz},
};

static const char *const columns_default[] = {"user", "pid",  "ppid", "pcpu", "etime",
                                              "tty",  "time", "args", NULL};

static const struct column *column_find(const char *name)
{
    for (size_t i = 0; i < ARRAY_SIZE(columns_known); i++)
        if (!strcmp(columns_known[i].name, name))
            return &columns_known[i];
    return NULL;
}

int processes_check(const char *const *columns, struct error *err)
{
    size_t count = 0;

    for (; *columns; columns++, count++)
        if (!column_find(*columns))
            return error_set(err, EINVAL,
                             "there is no column '%.30s': args, comm, etime, hpid, nice, pcpu, "
                             "pid, ppid, rss, state, time, tty, user, vsz",
                             *columns);
    return count > COLUMNS_MAX ? error_set(err, EINVAL, "more than %d columns", COLUMNS_MAX) : 0;
}

/* --- The table --- */

static void table_open(struct table *table, const struct processes *of)
{
    struct path_root root = {.fd = of->root_fd};
    struct process first;
    FILE *file = fopen("/proc/uptime", "re");

    *table = (struct table){.of = of};
    if (!file || fscanf(file, "%lf", &table->uptime) != 1)
        table->uptime = 0;
    if (file)
        fclose(file);
    if (process_read(of->first, &first) && first.level_count)
        table->level = first.level_count - 1;
    table->passwd = path_read_text(&root, "/etc/passwd", PASSWD_MAX);
}

static void row_print(char *const *cells, const size_t *widths, size_t columns, FILE *out)
{
    for (size_t i = 0; i + 1 < columns; i++)
        fprintf(out, "%-*s  ", (int)widths[i], cells[i]);
    fprintf(out, "%s\n", cells[columns - 1]);
}

void processes_print(const struct processes *processes, const char *const *columns, FILE *out)
{
    const struct column *chosen[COLUMNS_MAX];
    size_t widths[COLUMNS_MAX] = {0}, count = 0, rows = 0;
    AUTO_FREE char **cells = NULL;
    struct table table;

    for (columns = *columns ? columns : columns_default; *columns && count < COLUMNS_MAX; columns++)
        if ((chosen[count] = column_find(*columns)))
            count++;
    cells = calloc((processes->count + 1) * count, sizeof(*cells));
    if (!cells)
        return;
    table_open(&table, processes);
    for (size_t i = 0; i <= processes->count; i++) {
        struct process process;
        char text[TEXT_MAX];

        if (i && !process_read(processes->pids[i - 1], &process))
            continue;
        for (size_t c = 0; c < count; c++) {
            char **cell = &cells[rows * count + c];

            if (i)
                chosen[c]->write(&table, &process, text, sizeof(text));
            *cell = strdup(i ? text : chosen[c]->heading);
            if (!*cell)
                goto out;
            widths[c] = MAX(widths[c], strlen(*cell));
        }
        rows++;
    }
    for (size_t i = 0; i < rows; i++)
        row_print(&cells[i * count], widths, count, out);
out:
    for (size_t i = 0; i < (processes->count + 1) * count; i++)
        free(cells[i]);
    free(table.passwd);
}

void processes_list(const struct processes *processes, FILE *out)
{
    for (size_t i = 0; i < processes->count; i++) {
        struct process process;

        if (process_read(processes->pids[i], &process))
            fprintf(out, "%8d  %s\n", (int)process.pid, process.arguments);
    }
}
