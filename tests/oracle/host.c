#include "host.h"

#include <asm/ldt.h>
#include <asm/prctl.h>
#include <cpuid.h>
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <ucontext.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/cleanup.h"

#define ALTERNATE_STACK (64 * 1024)

/* The host CPU, its signals and address space exist once in a process. */
static struct {
    bool mode_16;
    enum { IDLE, ENTER, INSIDE } phase;
    struct image *image;
    struct image_memory *memory; /* the writable view of what the code sees */
    /* The C code that waits for the end. */
    gregset_t home;
    struct x86_xsave home_fpu;
    uint8_t stack[ALTERNATE_STACK] __attribute__((aligned(64)));
} host;

/* gregset_t in the order of enum x86_gpr. */
static const uint8_t registers[] = {
    REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
    REG_R8,  REG_R9,  REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15,
};

#define XSAVE_LEGACY offsetof(struct x86_xsave, reserved2) /* after it: the kernel's own words */
#define COMPONENTS   (X86_XCR0_X87 | X86_XCR0_SSE | X86_XCR0_AVX)

static void fpu_load(struct x86_xsave *frame, const struct x86_xsave *fpu)
{
    const uint32_t mask = frame->mxcsr_mask;

    memcpy(frame, fpu, XSAVE_LEGACY);
    frame->mxcsr_mask = mask;
    frame->xstate_bv |= COMPONENTS;
    memcpy(frame->ymm_high, fpu->ymm_high, sizeof(fpu->ymm_high));
}

/* A component that the CPU calls unused may hold anything in the frame: it has
 * its initial value (SDM 1 13.6). */
static void fpu_save(const struct x86_xsave *frame, struct x86_xsave *fpu)
{
    static const struct x86_xsave initial = {.fcw = 0x37f};

    if (frame->xstate_bv & X86_XCR0_X87)
        memcpy(fpu, frame, offsetof(struct x86_xsave, xmm));
    else
        memcpy(fpu, &initial, offsetof(struct x86_xsave, xmm));
    fpu->mxcsr = frame->mxcsr;
    memset(fpu->xmm, 0, sizeof(fpu->xmm));
    memset(fpu->ymm_high, 0, sizeof(fpu->ymm_high));
    if (frame->xstate_bv & X86_XCR0_SSE)
        memcpy(fpu->xmm, frame->xmm, sizeof(fpu->xmm));
    if (frame->xstate_bv & X86_XCR0_AVX)
        memcpy(fpu->ymm_high, frame->ymm_high, sizeof(fpu->ymm_high));
}

static uint64_t selectors(enum x86_mode mode, uint64_t old)
{
    const uint64_t cs = mode == X86_MODE_64   ? IMAGE_CS_64
                        : mode == X86_MODE_32 ? IMAGE_CS_32
                                              : IMAGE_CS_16;
    const uint64_t ss = mode == X86_MODE_16 ? IMAGE_DS_16 : IMAGE_DS;

    return (old & 0x0000ffffffff0000) | cs | ss << 48;
}

static void set_data_segments(uint16_t selector)
{
    __asm__ volatile("movw %0, %%ds\n\tmovw %0, %%es" : : "r"(selector));
}

static void enter(greg_t *gregs, struct x86_xsave *frame)
{
    const struct image *image = host.image;

    memcpy(host.home, gregs, sizeof(host.home));
    memcpy(&host.home_fpu, frame, sizeof(host.home_fpu));
    for (unsigned i = 0; i < X86_GPRS; i++)
        gregs[registers[i]] = (greg_t)image->gpr[i];
    gregs[REG_RIP] = (greg_t)image->rip;
    gregs[REG_EFL] = (greg_t)image->rflags;
    gregs[REG_CSGSFS] = (greg_t)selectors(image->mode, (uint64_t)gregs[REG_CSGSFS]);
    fpu_load(frame, &image->fpu);
    host.phase = INSIDE;
}

static void leave(int number, greg_t *gregs, struct x86_xsave *frame)
{
    struct image *image = host.image;

    for (unsigned i = 0; i < X86_GPRS; i++)
        image->gpr[i] = (uint64_t)gregs[registers[i]];
    if (image->mode != X86_MODE_64) /* Linux leaves its own bits above a 16-bit stack's ESP */
        image->gpr[X86_RSP] &= UINT32_MAX;
    image->rip = (uint64_t)gregs[REG_RIP];
    image->rflags = (uint64_t)gregs[REG_EFL];
    image->vector = number == SIGVTALRM ? IMAGE_TIMEOUT : (int)gregs[REG_TRAPNO];
    image->error_code = (uint32_t)gregs[REG_ERR];
    image->cr2 = image->vector == X86_PF_FAULT ? (uint64_t)gregs[REG_CR2] : 0;
    fpu_save(frame, &image->fpu);
    memcpy(gregs, host.home, sizeof(host.home));
    fpu_load(frame, &host.home_fpu);
    host.phase = IDLE;
}

static void on_signal(int number, siginfo_t *info, void *context)
{
    mcontext_t *machine = &((ucontext_t *)context)->uc_mcontext;
    struct x86_xsave *frame = (struct x86_xsave *)machine->fpregs;

    (void)info;
    /* What POPF set in the code under test is still set here; sigreturn leaves NT and ID. */
    __builtin_ia32_writeeflags_u64(__builtin_ia32_readeflags_u64() &
                                   ~(uint64_t)(X86_AC | X86_NT | X86_ID));
    switch (host.phase) {
    case ENTER:
        enter(machine->gregs, frame);
        break;
    case INSIDE:
        leave(number, machine->gregs, frame);
        break;
    default:
        if (number != SIGVTALRM) /* the test program's own fault */
            signal(number, SIG_DFL);
        break;
    }
}

/* Show the pages of fd from offset on at a fixed address. */
static int map_region(int fd, uint64_t address, size_t size, size_t offset, int protection,
                      struct error *err)
{
    void *at = mmap((void *)address, size, protection,
                    MAP_SHARED | MAP_FIXED_NOREPLACE | MAP_POPULATE, fd, (off_t)offset);

    if (at != (void *)address)
        return error_system(err, errno ? errno : EEXIST, "cannot map 0x%llx for code under test",
                            (unsigned long long)address);
    return 0;
}

static int map_memory(struct error *err)
{
    const size_t data = offsetof(struct image_memory, data);
    const size_t readonly = data + IMAGE_READONLY - IMAGE_DATA;
    AUTO_CLOSE int fd = memfd_create("oracle", MFD_CLOEXEC);
    int r;

    if (fd < 0 || ftruncate(fd, sizeof(struct image_memory)) < 0)
        return error_system(err, errno, "cannot make memory for code under test");
    host.memory = mmap(NULL, sizeof(*host.memory), PROT_READ | PROT_WRITE,
                       MAP_SHARED | MAP_POPULATE, fd, 0);
    if (host.memory == MAP_FAILED)
        return error_system(err, errno, "cannot map memory for code under test");
    r = map_region(fd, IMAGE_CODE, IMAGE_CODE_SIZE, 0, PROT_READ | PROT_WRITE | PROT_EXEC, err);
    if (r == 0)
        r = map_region(fd, IMAGE_DATA, IMAGE_READONLY - IMAGE_DATA, data, PROT_READ | PROT_WRITE,
                       err);
    if (r == 0)
        r = map_region(fd, IMAGE_READONLY, IMAGE_PAGE, readonly, PROT_READ, err);
    return r;
}

/* Two 16-bit segments in a local descriptor table. */
static bool make_segments_16(void)
{
    struct user_desc code = {.entry_number = 0, .base_addr = IMAGE_CODE_BASE_16, .limit = 0xffff,
                             .contents = MODIFY_LDT_CONTENTS_CODE};
    struct user_desc data = {.entry_number = 1, .base_addr = IMAGE_DATA_BASE_16, .limit = 0xffff,
                             .contents = MODIFY_LDT_CONTENTS_DATA};

    return syscall(SYS_modify_ldt, 0x11, &code, sizeof(code)) == 0 &&
           syscall(SYS_modify_ldt, 0x11, &data, sizeof(data)) == 0;
}

int host_open(struct error *err)
{
    static const int numbers[] = {SIGSEGV, SIGILL, SIGFPE, SIGTRAP, SIGBUS, SIGVTALRM};
    const stack_t stack = {.ss_sp = host.stack, .ss_size = sizeof(host.stack)};
    struct sigaction action = {.sa_sigaction = on_signal,
                               .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER};
    int r;

    r = map_memory(err);
    if (r < 0)
        return r;
    if (sigaltstack(&stack, NULL) < 0)
        return error_system(err, errno, "cannot set the signal stack");
    for (size_t i = 0; i < ARRAY_SIZE(numbers); i++)
        if (sigaction(numbers[i], &action, NULL) < 0)
            return error_system(err, errno, "cannot catch signal %d", numbers[i]);
    host.mode_16 = make_segments_16();
    set_data_segments(IMAGE_DS);
    return 0;
}

bool host_has_mode(enum x86_mode mode)
{
    return mode != X86_MODE_16 || host.mode_16;
}

/* What CPUID says of leaf:index in register 0 to 3, EAX to EDX. */
static uint32_t cpuid_register(uint32_t leaf, uint32_t index, unsigned reg)
{
    uint32_t value[4] = {0};

    if (!__get_cpuid_count(leaf, index, &value[0], &value[1], &value[2], &value[3]))
        return 0;
    return value[reg];
}

bool host_has_feature(enum x86_feature feature)
{
    /* Where CPUID tells of it, for those that a host may lack (SDM 2 CPUID). */
    static const struct {
        enum x86_feature feature;
        uint32_t leaf, index;
        uint8_t reg, bit;
    } bits[] = {
        {X86_FEATURE_PCLMULQDQ, 1, 0, 2, 1},   {X86_FEATURE_FMA, 1, 0, 2, 12},
        {X86_FEATURE_SSE4_2, 1, 0, 2, 20},     {X86_FEATURE_MOVBE, 1, 0, 2, 22},
        {X86_FEATURE_POPCNT, 1, 0, 2, 23},     {X86_FEATURE_AES, 1, 0, 2, 25},
        {X86_FEATURE_XSAVE, 1, 0, 2, 27},      {X86_FEATURE_AVX, 1, 0, 2, 28},
        {X86_FEATURE_F16C, 1, 0, 2, 29},       {X86_FEATURE_RDRAND, 1, 0, 2, 30},
        {X86_FEATURE_FSGSBASE, 7, 0, 1, 0},    {X86_FEATURE_BMI1, 7, 0, 1, 3},
        {X86_FEATURE_AVX2, 7, 0, 1, 5},        {X86_FEATURE_BMI2, 7, 0, 1, 8},
        {X86_FEATURE_RDSEED, 7, 0, 1, 18},     {X86_FEATURE_ADX, 7, 0, 1, 19},
        {X86_FEATURE_CLFLUSHOPT, 7, 0, 1, 23}, {X86_FEATURE_CLWB, 7, 0, 1, 24},
        {X86_FEATURE_SHA, 7, 0, 1, 29},        {X86_FEATURE_RDPID, 7, 0, 2, 22},
        {X86_FEATURE_XSAVEOPT, 0xd, 1, 0, 0},  {X86_FEATURE_XSAVEC, 0xd, 1, 0, 1},
        {X86_FEATURE_LZCNT, 0x80000001, 0, 2, 5}, {X86_FEATURE_RDTSCP, 0x80000001, 0, 3, 27},
    };

    for (size_t i = 0; i < ARRAY_SIZE(bits); i++)
        if (bits[i].feature == feature)
            return cpuid_register(bits[i].leaf, bits[i].index, bits[i].reg) >> bits[i].bit & 1;
    return true;
}

/* What takes a second of the CPU's own time was hardly meant to end. */
static void run_once(struct image *image, struct image_memory *memory)
{
    const struct itimerval limit = {.it_value.tv_sec = 1}, none = {0};
    uint64_t gs_base = 0;

    *host.memory = *memory;
    syscall(SYS_arch_prctl, ARCH_GET_GS, &gs_base); /* the translator's, when it ran here */
    syscall(SYS_arch_prctl, ARCH_SET_GS, (uint64_t)IMAGE_GS_BASE);
    if (image->mode == X86_MODE_16)
        set_data_segments(IMAGE_DS_16);
    setitimer(ITIMER_VIRTUAL, &limit, NULL);
    host.image = image;
    host.phase = ENTER;
    __asm__ volatile("int3" : : : "memory");
    setitimer(ITIMER_VIRTUAL, &none, NULL);
    if (image->mode == X86_MODE_16)
        set_data_segments(IMAGE_DS);
    syscall(SYS_arch_prctl, ARCH_SET_GS, gs_base);
    *memory = *host.memory;
}

/* A virtual machine's host may hold up a locked access across cache lines for seconds, as it
 * locks the bus (SDM 3A 9.1.2): what did not end gets a second try. */
void host_run(struct image *image, struct image_memory *memory)
{
    static struct image_memory memory_before;
    const struct image before = *image;

    memory_before = *memory;
    run_once(image, memory);
    if (image->vector != IMAGE_TIMEOUT)
        return;
    *image = before;
    *memory = memory_before;
    run_once(image, memory);
}
