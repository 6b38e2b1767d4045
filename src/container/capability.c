#include "container/capability.h"

#include <linux/capability.h>
#include <string.h>
#include <strings.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/bytes.h"

/* The index is the kernel's number (linux/capability.h). */
static const char *const names[] = {
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
};

const char *capability_name(unsigned n)
{
    if (n >= ARRAY_SIZE(names) || prctl(PR_CAPBSET_READ, n, 0, 0, 0) < 0)
        return NULL;
    return names[n];
}

static uint64_t set_parse(const string_list *list, const struct log *log)
{
    uint64_t set = 0;
    unsigned n;

    FOR_EACH(name, *list)
    {
        for (n = 0; n < ARRAY_SIZE(names) && strcasecmp(names[n], *name) != 0; n++)
            ;
        if (capability_name(n))
            set |= 1ull << n;
        else
            log_warning(log, "the capability %.64s is not known to this kernel", *name);
    }
    return set;
}

void capability_parse(const struct capability_names *from, struct capability_sets *ret_sets,
                      const struct log *log)
{
    *ret_sets = (struct capability_sets){0};
    if (!from)
        return;
    ret_sets->bounding = set_parse(&from->bounding, log);
    ret_sets->effective = set_parse(&from->effective, log);
    ret_sets->inheritable = set_parse(&from->inheritable, log);
    ret_sets->permitted = set_parse(&from->permitted, log);
    ret_sets->ambient = set_parse(&from->ambient, log);
}

int capability_bound(const struct capability_sets *sets, struct error *err)
{
    for (unsigned n = 0; n < 64; n++) {
        if (sets->bounding & 1ull << n)
            continue;
        if (prctl(PR_CAPBSET_DROP, n, 0, 0, 0) < 0) {
            if (errno == EINVAL) /* one past the last the kernel has */
                break;
            return error_system(err, errno, "cannot drop the capability %u", n);
        }
    }
    return 0;
}

int capability_apply(const struct capability_sets *sets, struct error *err)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[2];
    uint64_t held, permitted, effective, inheritable;

    if (syscall(SYS_capget, &header, data) < 0)
        return error_system(err, errno, "cannot read the capabilities");
    held = data[0].permitted | (uint64_t)data[1].permitted << 32;
    permitted = sets->permitted & held;
    effective = sets->effective & permitted;
    inheritable = sets->inheritable & (held | data[0].inheritable);
    for (unsigned i = 0; i < 2; i++)
        data[i] = (struct __user_cap_data_struct){
            .permitted = (uint32_t)(permitted >> 32 * i),
            .effective = (uint32_t)(effective >> 32 * i),
            .inheritable = (uint32_t)(inheritable >> 32 * i),
        };
    if (syscall(SYS_capset, &header, data) < 0)
        return error_system(err, errno, "cannot set the capabilities");
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
    for (unsigned n = 0; n < ARRAY_SIZE(names); n++) {
        /* Ambient needs both others (capabilities(7)); what cannot be is left out. */
        if (sets->ambient & permitted & inheritable & 1ull << n &&
            prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, n, 0, 0) < 0)
            return error_system(err, errno, "cannot raise the ambient capability %s", names[n]);
    }
    return 0;
}
