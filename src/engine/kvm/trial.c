/* A short trial: does KVM run an ordinary 64-bit guest, and at hardware speed?
 * Some hosts' /dev/kvm opens and emulates protected-mode code an instruction
 * at a time, hundreds of times slower than any engine of ours. */
#include <errno.h>
#include <linux/kvm.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "engine/kvm/kvm.h"

#define TRIAL_SIZE    0x8000u
#define TRIAL_CODE    0x1000u
#define TRIAL_PML4    0x2000u
#define TRIAL_PDPT    0x3000u
#define TRIAL_LOOPS    1000000u /* hardware needs less than a millisecond */
#define TRIAL_SLICE_NS 2000000L /* KVM_RUN is interrupted that often to look */
#define TRIAL_SLICES   4        /* that say the same, until it is believed */
#define TRIAL_SLICES_MAX 25     /* with those that went into page faults alone */
/* Loops in a millisecond of CPU time: hardware does over 1,000,000, hardware
 * that QEMU's TCG emulates 50,000, KVM's instruction emulator under 1,000. */
#define TRIAL_LOOPS_PER_MS 3000

/* mov ecx, TRIAL_LOOPS; 1: dec ecx; jnz 1b; hlt */
static const uint8_t trial_code[] = {
    0xb9, TRIAL_LOOPS & 0xff, TRIAL_LOOPS >> 8 & 0xff, TRIAL_LOOPS >> 16 & 0xff, 0,
    0xff, 0xc9, 0x75, 0xfc, 0xf4,
};

/* CPU time: a busy host must not look like a slow one. */
static uint64_t cpu_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

/* 64-bit mode; the first 2 MiB are mapped one to one by a large page. */
static int set_long_mode(int vcpu_fd, uint8_t *memory)
{
    struct kvm_sregs sregs;
    struct kvm_regs regs = {.rip = TRIAL_CODE, .rflags = X86_FLAGS_ONE, .rsp = TRIAL_SIZE};
    const struct kvm_segment code = {.limit = 0xffffffff, .selector = 8, .type = 11,
                                     .present = 1, .s = 1, .l = 1, .g = 1};
    const struct kvm_segment data = {.limit = 0xffffffff, .selector = 16, .type = 3,
                                     .present = 1, .db = 1, .s = 1, .g = 1};

    memcpy(memory + TRIAL_CODE, trial_code, sizeof(trial_code));
    store_le64(memory + TRIAL_PML4, TRIAL_PDPT | 3);
    store_le64(memory + TRIAL_PDPT, (TRIAL_PDPT + 0x1000) | 3);
    store_le64(memory + TRIAL_PDPT + 0x1000, 0x83);
    if (KVM_CALL(vcpu_fd, KVM_GET_SREGS, &sregs) < 0)
        return -errno;
    sregs.cs = code;
    sregs.ds = sregs.es = sregs.ss = sregs.fs = sregs.gs = data;
    sregs.cr0 = X86_CR0_PE | X86_CR0_PG | X86_CR0_ET | X86_CR0_NE;
    sregs.cr4 = X86_CR4_PAE;
    sregs.cr3 = TRIAL_PML4;
    sregs.efer = X86_EFER_LME | X86_EFER_LMA;
    if (KVM_CALL(vcpu_fd, KVM_SET_SREGS, &sregs) < 0 || KVM_CALL(vcpu_fd, KVM_SET_REGS, &regs) < 0)
        return -errno;
    return 0;
}

/* How many loops are left to do. */
static uint64_t loops_left(int vcpu_fd)
{
    struct kvm_regs regs;

    if (KVM_CALL(vcpu_fd, KVM_GET_REGS, &regs) < 0 || regs.rip == TRIAL_CODE)
        return TRIAL_LOOPS;
    return MIN(regs.rcx, (uint64_t)TRIAL_LOOPS);
}

/* One slice that is fast enough says all; so does the end of the loop. */
static int run_trial(int vcpu_fd, struct kvm_run *run, struct error *err)
{
    uint64_t left = TRIAL_LOOPS;
    unsigned slow = 0;

    for (unsigned i = 0; slow < TRIAL_SLICES && i < TRIAL_SLICES_MAX; i++) {
        uint64_t start = cpu_ns(), before = left;
        int r = KVM_CALL(vcpu_fd, KVM_RUN, 0); /* the timer's signal cuts it short */

        if (r == 0 && run->exit_reason == KVM_EXIT_HLT)
            return 0;
        if (r == 0 || errno != EINTR)
            return error_set(err, EOPNOTSUPP, "this host's KVM cannot run a 64-bit guest (exit %u)",
                             r < 0 ? 0 : run->exit_reason);
        left = loops_left(vcpu_fd);
        if ((before - left) * 1000000 >= (cpu_ns() - start) * TRIAL_LOOPS_PER_MS)
            return 0;
        slow += left < before;
    }
    return error_set(err, EOPNOTSUPP, "this host's KVM emulates guests an instruction at a time "
                                      "instead of running them");
}

static void ignore_signal(int number)
{
    (void)number;
}

int kvm_trial(int kvm_fd, struct error *err)
{
    AUTO_CLOSE int vm_fd = KVM_CALL(kvm_fd, KVM_CREATE_VM, 0ul);
    AUTO_CLOSE int vcpu_fd = vm_fd < 0 ? -1 : KVM_CALL(vm_fd, KVM_CREATE_VCPU, 0ul);
    int run_size = KVM_CALL(kvm_fd, KVM_GET_VCPU_MMAP_SIZE, 0);
    struct sigaction action = {.sa_handler = ignore_signal}, before;
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = kvm_kick_signal()};
    struct itimerspec when = {.it_value.tv_nsec = TRIAL_SLICE_NS,
                              .it_interval.tv_nsec = TRIAL_SLICE_NS};
    struct kvm_userspace_memory_region region = {.memory_size = TRIAL_SIZE};
    void *memory = MAP_FAILED, *run = MAP_FAILED;
    timer_t timer;
    int r;

    if (vcpu_fd < 0)
        return error_system(err, errno, "KVM cannot create a virtual machine");
    memory = mmap(NULL, TRIAL_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    run = mmap(NULL, (size_t)run_size, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu_fd, 0);
    if (memory == MAP_FAILED || run == MAP_FAILED) {
        r = error_system(err, errno, "cannot map memory for KVM");
        goto out;
    }
    region.userspace_addr = (uintptr_t)memory;
    r = KVM_CALL(vm_fd, KVM_SET_USER_MEMORY_REGION, &region);
    if (r == 0)
        r = set_long_mode(vcpu_fd, memory);
    if (r < 0) {
        r = error_set(err, EOPNOTSUPP, "this host's KVM does not take a 64-bit guest");
        goto out;
    }
    sigaction(kvm_kick_signal(), &action, &before);
    if (timer_create(CLOCK_MONOTONIC, &event, &timer) < 0) {
        r = error_system(err, errno, "cannot create a timer");
    } else {
        timer_settime(timer, 0, &when, NULL);
        r = run_trial(vcpu_fd, run, err);
        timer_delete(timer);
    }
    sigaction(kvm_kick_signal(), &before, NULL);
out:
    if (memory != MAP_FAILED)
        munmap(memory, TRIAL_SIZE);
    if (run != MAP_FAILED)
        munmap(run, (size_t)run_size);
    return r;
}
