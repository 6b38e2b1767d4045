/* cgroup_device.c - device rules as a BPF program of type CGROUP_DEVICE. The
 * last rule that matches decides, so the program asks them from the last to
 * the first. */
#include <fcntl.h>
#include <linux/bpf.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "container/cgroup-private.h"

#define NUMBER(n)                                                                                  \
    {                                                                                              \
        .value = n, .given = true                                                                  \
    }

/* config-linux.md, Default Devices; mknod of any, as runc and crun allow. */
const struct device_rule cgroup_default_devices[] = {
    {true, "c", .access = "m"},
    {true, "b", .access = "m"},
    {true, "c", NUMBER(1), NUMBER(3), "rwm"}, /* null */
    {true, "c", NUMBER(1), NUMBER(5), "rwm"}, /* zero */
    {true, "c", NUMBER(1), NUMBER(7), "rwm"}, /* full */
    {true, "c", NUMBER(1), NUMBER(8), "rwm"}, /* random */
    {true, "c", NUMBER(1), NUMBER(9), "rwm"}, /* urandom */
    {true, "c", NUMBER(5), NUMBER(0), "rwm"}, /* tty */
    {true, "c", NUMBER(5), NUMBER(1), "rwm"}, /* console */
    {true, "c", NUMBER(5), NUMBER(2), "rwm"}, /* ptmx */
    {true, "c", NUMBER(136), {0}, "rwm"},     /* pts */
};
const size_t cgroup_default_devices_count = ARRAY_SIZE(cgroup_default_devices);

enum { RULE_INSNS = 12, ANSWER_INSNS = 2, PROLOGUE_INSNS = 6, RULES_MAX = 300 };

#define LOAD(to, offset)                                                                           \
    (struct bpf_insn)                                                                              \
    {                                                                                              \
        .code = BPF_LDX | BPF_MEM | BPF_W, .dst_reg = to, .src_reg = 1, .off = offset              \
    }
#define MOVE(to, from)                                                                             \
    (struct bpf_insn)                                                                              \
    {                                                                                              \
        .code = BPF_ALU | BPF_MOV | BPF_X, .dst_reg = to, .src_reg = from                          \
    }
#define ALU(op, to, number)                                                                        \
    (struct bpf_insn)                                                                              \
    {                                                                                              \
        .code = BPF_ALU | (op) | BPF_K, .dst_reg = to, .imm = (int)(number)                        \
    }
#define MOVE_NUMBER(to, number)                                                                    \
    (struct bpf_insn)                                                                              \
    {                                                                                              \
        .code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = to, .imm = (int)(number)                   \
    }
#define JUMP_NOT(reg, number)                                                                      \
    (struct bpf_insn)                                                                              \
    {                                                                                              \
        .code = BPF_JMP | BPF_JNE | BPF_K, .dst_reg = reg, .imm = (int)(number)                    \
    }
#define EXIT() ((struct bpf_insn){.code = BPF_JMP | BPF_EXIT})

static unsigned access_bits(const char *access)
{
    unsigned bits = 0;

    if (!access || !access[0])
        access = "rwm";
    for (; *access; access++)
        bits |= *access == 'r'   ? BPF_DEVCG_ACC_READ
                : *access == 'w' ? BPF_DEVCG_ACC_WRITE
                                 : BPF_DEVCG_ACC_MKNOD;
    return bits;
}

/* r2 type, r3 access asked for, r4 major, r5 minor; jumps go to the next rule. */
static size_t rule_compile(struct bpf_insn *insns, const struct device_rule *rule)
{
    char type = rule->type && rule->type[0] ? rule->type[0] : 'a';
    unsigned bits = access_bits(rule->access);
    size_t n = 0;

    if (type != 'a')
        insns[n++] = JUMP_NOT(2, type == 'c' ? BPF_DEVCG_DEV_CHAR : BPF_DEVCG_DEV_BLOCK);
    if (rule->allow) { /* allow when nothing is asked for beyond the rule's access */
        if (bits != 7) {
            insns[n++] = MOVE(1, 3);
            insns[n++] = ALU(BPF_AND, 1, ~bits & 7);
            insns[n++] = JUMP_NOT(1, 0);
        }
    } else if (bits != 7) { /* deny when anything the rule has is asked for */
        insns[n++] = MOVE(1, 3);
        insns[n++] = ALU(BPF_AND, 1, bits);
        insns[n++] = (struct bpf_insn){.code = BPF_JMP | BPF_JEQ | BPF_K, .dst_reg = 1, .imm = 0};
    }
    if (rule->major.given && rule->major.value >= 0)
        insns[n++] = JUMP_NOT(4, rule->major.value);
    if (rule->minor.given && rule->minor.value >= 0)
        insns[n++] = JUMP_NOT(5, rule->minor.value);
    insns[n++] = MOVE_NUMBER(0, rule->allow);
    insns[n++] = EXIT();
    for (size_t i = 0; i < n; i++)
        if (BPF_CLASS(insns[i].code) == BPF_JMP && BPF_OP(insns[i].code) != BPF_EXIT)
            insns[i].off = (short)(n - i - 1);
    return n;
}

static size_t program_compile(struct bpf_insn *insns, const struct resources *resources)
{
    size_t n = 0;

    /* struct bpf_cgroup_dev_ctx: access_type (access << 16 | type), major, minor */
    insns[n++] = LOAD(2, 0);
    insns[n++] = MOVE(3, 2);
    insns[n++] = ALU(BPF_AND, 2, 0xffff);
    insns[n++] = ALU(BPF_RSH, 3, 16);
    insns[n++] = LOAD(4, 4);
    insns[n++] = LOAD(5, 8);
    for (size_t i = cgroup_default_devices_count; i-- > 0;)
        n += rule_compile(insns + n, &cgroup_default_devices[i]);
    for (size_t i = resources->devices.count; i-- > 0;) {
        size_t length = rule_compile(insns + n, &resources->devices.items[i]);

        n += length;
        /* A rule for everything decides: the kernel takes no program with a part out of reach. */
        if (length == ANSWER_INSNS)
            return n;
    }
    insns[n++] = MOVE_NUMBER(0, 0);
    insns[n++] = EXIT();
    return n;
}

static int bpf(int command, union bpf_attr *attr, size_t size)
{
    return (int)syscall(SYS_bpf, command, attr, size);
}

/* Programs attached by an earlier call go, once the new one is in place. */
static int old_programs(int cgroup_fd, uint32_t ids[16])
{
    union bpf_attr attr = {0};

    attr.query.target_fd = (uint32_t)cgroup_fd;
    attr.query.attach_type = BPF_CGROUP_DEVICE;
    attr.query.prog_ids = (uint64_t)(uintptr_t)ids;
    attr.query.prog_cnt = 16;
    return bpf(BPF_PROG_QUERY, &attr, sizeof(attr)) < 0 ? 0 : (int)attr.query.prog_cnt;
}

static void program_detach(int cgroup_fd, uint32_t id)
{
    union bpf_attr attr = {0};
    AUTO_CLOSE int fd = -1;

    attr.prog_id = id;
    fd = bpf(BPF_PROG_GET_FD_BY_ID, &attr, sizeof(attr));
    if (fd < 0)
        return;
    memset(&attr, 0, sizeof(attr));
    attr.target_fd = (uint32_t)cgroup_fd;
    attr.attach_bpf_fd = (uint32_t)fd;
    attr.attach_type = BPF_CGROUP_DEVICE;
    bpf(BPF_PROG_DETACH, &attr, sizeof(attr));
}

int cgroup_device_attach(int cgroup_fd, const struct resources *resources, struct error *err)
{
    static const char license[] = "Apache-2.0";
    AUTO_FREE struct bpf_insn *insns = NULL;
    AUTO_CLOSE int fd = -1;
    union bpf_attr attr = {0};
    uint32_t ids[16];
    int count;

    if (resources->devices.count > RULES_MAX)
        return error_set(err, E2BIG, "linux.resources.devices: has more than %d rules", RULES_MAX);
    insns = calloc((resources->devices.count + cgroup_default_devices_count) * RULE_INSNS +
                       PROLOGUE_INSNS + 2,
                   sizeof(*insns));
    if (!insns)
        return error_set(err, ENOMEM, "out of memory");
    attr.prog_type = BPF_PROG_TYPE_CGROUP_DEVICE;
    attr.insn_cnt = (uint32_t)program_compile(insns, resources);
    attr.insns = (uint64_t)(uintptr_t)insns;
    attr.license = (uint64_t)(uintptr_t)license;
    fd = bpf(BPF_PROG_LOAD, &attr, sizeof(attr));
    if (fd < 0 && (errno == EPERM || errno == ENOSYS) && geteuid() != 0)
        return 0; /* rootless: there are no devices to be kept from */
    if (fd < 0)
        return error_system(err, errno, "cannot load the device rules");
    count = old_programs(cgroup_fd, ids);
    memset(&attr, 0, sizeof(attr));
    attr.target_fd = (uint32_t)cgroup_fd;
    attr.attach_bpf_fd = (uint32_t)fd;
    attr.attach_type = BPF_CGROUP_DEVICE;
    attr.attach_flags = BPF_F_ALLOW_MULTI;
    if (bpf(BPF_PROG_ATTACH, &attr, sizeof(attr)) < 0)
        return error_system(err, errno, "cannot attach the device rules");
    for (int i = 0; i < count; i++)
        program_detach(cgroup_fd, ids[i]);
    return 0;
}
