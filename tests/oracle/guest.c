#include "guest.h"

#include <errno.h>
#include <stdlib.h>
#include <signal.h>
#include <sys/mman.h>
#include <time.h>

#include "base/bytes.h"
#include "no_devices.h"

/* Guest physical memory. The kernel's half, up to CODE, is seen at KERNEL. */
#define PHYSICAL_GDT     GUEST_GDT
#define PHYSICAL_IDT     0x2000u
#define PHYSICAL_TSS     0x3000u
#define PHYSICAL_HANDLER GUEST_HANDLERS
#define PHYSICAL_STACK   0x6000u /* its top */
#define PHYSICAL_TABLES  0x8000u
#define PHYSICAL_CODE    GUEST_CODE
#define PHYSICAL_DATA    GUEST_DATA
#define PHYSICAL_SIZE    GUEST_MEMORY_SIZE
#define KERNEL           0xffffffff80000000ull

#define KERNEL_CS 0x10
#define KERNEL_TR 0x40
#define VECTORS   256
#define HANDLER_SIZE GUEST_HANDLER_SIZE

/* Page table entries (SDM 3A table 4-19); A and D are set from the start, so
 * that no table changes while code runs. */
#define PTE_P  (1ull << 0)
#define PTE_W  (1ull << 1)
#define PTE_U  (1ull << 2)
#define PTE_AD (3ull << 5)
#define PTE_NX (1ull << 63)

struct guest {
    const struct engine_ops *ops;
    struct engine *engine;
    struct vcpu *vcpu;
    uint8_t *memory;
    struct x86_cpuid cpuid;
    uint64_t next_table;
    struct x86_state kernel; /* what is the same in every run */
    timer_t timer;
    bool has_timer;
    volatile sig_atomic_t kicked; /* by the timer, in this run */
};

/* --- The kernel --- */

/* Enter one page into the four-level tables, making tables as it goes. */
static void map_page(struct guest *guest, uint64_t linear, uint64_t physical, uint64_t rights)
{
    uint64_t table = PHYSICAL_TABLES;

    for (unsigned shift = 39; shift > 12; shift -= 9) {
        uint8_t *entry = guest->memory + table + (linear >> shift & 511) * 8;

        if (!load_le64(entry)) {
            store_le64(entry, guest->next_table | PTE_P | PTE_W | PTE_U | PTE_AD);
            guest->next_table += IMAGE_PAGE;
        }
        table = load_le64(entry) & 0xffffffffff000;
    }
    store_le64(guest->memory + table + (linear >> 12 & 511) * 8,
               physical | rights | PTE_P | PTE_AD);
}

/* The last page comes first: what runs over a page's border without looking at
 * the tables again must not find the right memory there. */
static uint64_t physical_data(uint64_t page)
{
    return PHYSICAL_DATA + IMAGE_DATA_SIZE - IMAGE_PAGE - page;
}

static void make_page_tables(struct guest *guest)
{
    guest->next_table = PHYSICAL_TABLES + IMAGE_PAGE;
    for (uint64_t page = 0; page < PHYSICAL_CODE; page += IMAGE_PAGE)
        map_page(guest, KERNEL + page, page, PTE_W);
    for (uint64_t page = 0; page < IMAGE_CODE_SIZE; page += IMAGE_PAGE)
        map_page(guest, IMAGE_CODE + page, PHYSICAL_CODE + page, PTE_U | PTE_W);
    for (uint64_t page = 0; page < IMAGE_DATA_SIZE; page += IMAGE_PAGE)
        map_page(guest, IMAGE_DATA + page, physical_data(page),
                 PTE_U | PTE_NX | (IMAGE_DATA + page < IMAGE_READONLY ? PTE_W : 0));
}

/* Base 0 and no limit, unless given. */
static uint64_t descriptor(uint64_t base, uint32_t limit, uint64_t attributes)
{
    return (base & 0xffffff) << 16 | (base >> 24 & 0xff) << 56 | (limit & 0xffff) |
           (uint64_t)(limit >> 16 & 0xf) << 48 | attributes << 40;
}

#define USER_SEGMENT (X86_SEG_P | X86_SEG_DPL | X86_SEG_S | X86_SEG_ACCESSED | X86_SEG_WRITABLE)

static void make_descriptors(struct guest *guest)
{
    uint8_t *gdt = guest->memory + PHYSICAL_GDT, *idt = guest->memory + PHYSICAL_IDT;
    const uint64_t tss = KERNEL + PHYSICAL_TSS;

    store_le64(gdt + KERNEL_CS,
               descriptor(0, 0xfffff, (USER_SEGMENT & ~X86_SEG_DPL) | X86_SEG_CODE | X86_SEG_L));
    store_le64(gdt + (IMAGE_CS_32 & ~7),
               descriptor(0, 0xfffff, USER_SEGMENT | X86_SEG_CODE | X86_SEG_DB | X86_SEG_G));
    store_le64(gdt + (IMAGE_DS & ~7),
               descriptor(0, 0xfffff, USER_SEGMENT | X86_SEG_DB | X86_SEG_G));
    store_le64(gdt + (IMAGE_CS_64 & ~7),
               descriptor(0, 0xfffff, USER_SEGMENT | X86_SEG_CODE | X86_SEG_L | X86_SEG_G));
    store_le64(gdt + KERNEL_TR, descriptor(tss, 0x67, X86_SEG_P | 11));
    store_le64(gdt + KERNEL_TR + 8, tss >> 32);
    store_le64(guest->memory + PHYSICAL_TSS + 4, KERNEL + PHYSICAL_STACK); /* RSP0 */
    store_le16(guest->memory + PHYSICAL_TSS + 102, 0x68); /* no I/O permission bitmap */

    for (unsigned v = 0; v < VECTORS; v++) {
        const uint64_t handler = KERNEL + PHYSICAL_HANDLER + v * HANDLER_SIZE;
        const bool user = v == X86_BP || v == X86_OF_TRAP || v == 0x80; /* as on Linux */
        /* A 64-bit interrupt gate (SDM 3A figure 6-8). */
        const uint64_t attributes = X86_SEG_P | 14 | (user ? X86_SEG_DPL : 0);

        store_le64(idt + v * 16, (handler & 0xffff) | KERNEL_CS << 16 | attributes << 40 |
                                     (handler >> 16 & 0xffff) << 48);
        store_le64(idt + v * 16 + 8, handler >> 32);
        guest->memory[PHYSICAL_HANDLER + v * HANDLER_SIZE] = 0xf4; /* hlt */
    }
}

static struct x86_segment segment(uint16_t selector, uint64_t base, uint32_t limit,
                                  uint16_t attributes)
{
    return (struct x86_segment){
        .selector = selector, .base = base, .limit = limit, .attributes = attributes};
}

static void make_kernel_state(struct guest *guest)
{
    struct x86_state *s = &guest->kernel;

    x86_state_reset(s, 0);
    s->cr0 = X86_CR0_PE | X86_CR0_MP | X86_CR0_ET | X86_CR0_NE | X86_CR0_WP | X86_CR0_AM |
             X86_CR0_PG;
    s->cr3 = PHYSICAL_TABLES;
    s->cr4 = X86_CR4_PAE | X86_CR4_PGE | X86_CR4_OSFXSR | X86_CR4_OSXMMEXCPT | X86_CR4_FSGSBASE |
             X86_CR4_OSXSAVE;
    /* Nothing leads to CPL 0 but exceptions: SYSCALL is off, as SYSENTER is. */
    s->efer = X86_EFER_LME | X86_EFER_LMA | X86_EFER_NXE;
    s->xcr0 = X86_XCR0_X87 | X86_XCR0_SSE | X86_XCR0_AVX;
    s->gdtr = (struct x86_table_register){KERNEL + PHYSICAL_GDT, KERNEL_TR + 15};
    s->idtr = (struct x86_table_register){KERNEL + PHYSICAL_IDT, VECTORS * 16 - 1};
    s->segment[X86_TR] = segment(KERNEL_TR, KERNEL + PHYSICAL_TSS, 0x67, X86_SEG_P | 11);
    s->segment[X86_LDTR] = segment(0, 0, 0, 0);
    s->segment[X86_FS] = segment(0, 0, 0, 0);
    s->segment[X86_GS] = segment(0, IMAGE_GS_BASE, 0, 0);
}

/* The segments of the mode (image.h). */
static void set_segments(struct x86_state *s, enum x86_mode mode)
{
    static const uint8_t data[] = {X86_SS, X86_DS, X86_ES};
    const bool small = mode == X86_MODE_16;
    const uint16_t size = small ? 0 : X86_SEG_DB | X86_SEG_G;
    const uint32_t limit = small ? 0xffff : 0xffffffff;

    for (unsigned i = 0; i < ARRAY_SIZE(data); i++)
        s->segment[data[i]] = segment(small ? IMAGE_DS_16 : IMAGE_DS, image_data_base(mode), limit,
                                      USER_SEGMENT | size);
    if (mode == X86_MODE_64)
        s->segment[X86_CS] = segment(IMAGE_CS_64, 0, limit,
                                     USER_SEGMENT | X86_SEG_CODE | X86_SEG_L | X86_SEG_G);
    else
        s->segment[X86_CS] = segment(small ? IMAGE_CS_16 : IMAGE_CS_32, image_code_base(mode),
                                     limit, USER_SEGMENT | X86_SEG_CODE | size);
}

/* --- Life --- */

/* Every feature bit that there may be, for the engines to cut. */
static const struct x86_cpuid everything = {
    .count = 8,
    .leaf = {{.function = 0, .eax = 0xd},
             {.function = 1, .ecx = 0xffffffff, .edx = 0xffffffff},
             {.function = 7, .indexed = true, .ebx = 0xffffffff, .ecx = 0xffffffff,
              .edx = 0xffffffff},
             {.function = 0xd, .indexed = true, .eax = 7, .ebx = 832, .ecx = 832},
             {.function = 0xd, .index = 1, .indexed = true, .eax = 0xf},
             {.function = 0xd, .index = 2, .indexed = true, .eax = 256, .ebx = 576},
             {.function = 0x80000000, .eax = 0x80000001},
             {.function = 0x80000001, .ecx = 0xffffffff, .edx = 0xffffffff}},
};

static void kick(int number, siginfo_t *info, void *context)
{
    struct guest *guest = info->si_value.sival_ptr;

    (void)number, (void)context;
    guest->kicked = 1;
    engine_signal(guest->vcpu, ENGINE_SIGNAL_KICK);
}

static int make_timer(struct guest *guest, struct error *err)
{
    /* An engine may run with the guest's stack pointer: not on that stack. */
    struct sigaction action = {.sa_sigaction = kick,
                               .sa_flags = SA_SIGINFO | SA_RESTART | SA_ONSTACK};
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGRTMIN,
                             .sigev_value.sival_ptr = guest};

    if (sigaction(SIGRTMIN, &action, NULL) < 0 ||
        timer_create(CLOCK_MONOTONIC, &event, &guest->timer) < 0)
        return error_system(err, errno, "cannot make a timer");
    guest->has_timer = true;
    return 0;
}

int guest_open(const char *engine, const char *const *peers, unsigned hot_turns,
               struct guest **ret_guest, struct error *err)
{
    struct guest *guest = calloc(1, sizeof(*guest));
    struct engine_config config = {.callbacks = &no_devices, .cpus = 1, .hot_turns = hot_turns};
    const struct engine_ops *peer;
    int r;

    if (!guest)
        return error_set(err, ENOMEM, "out of memory for a guest");
    guest->cpuid = everything;
    config.cpuid = &guest->cpuid;
    r = engine_find(engine, &guest->ops, err);
    for (; r == 0 && peers && *peers; peers++) {
        r = engine_find(*peers, &peer, err);
        if (r == 0)
            peer->filter_cpuid(&guest->cpuid);
    }
    if (r < 0)
        goto fail;
    guest->ops->filter_cpuid(&guest->cpuid);
    guest->memory = mmap(NULL, PHYSICAL_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
                         -1, 0);
    if (guest->memory == MAP_FAILED) {
        r = error_system(err, errno, "no memory for a guest");
        goto fail;
    }
    make_page_tables(guest);
    make_descriptors(guest);
    make_kernel_state(guest);
    r = guest->ops->create(&config, &guest->engine, err);
    if (r == 0)
        r = guest->ops->map(guest->engine, 0, PHYSICAL_SIZE, guest->memory, 0, err);
    if (r < 0)
        goto fail;
    guest->vcpu = guest->engine->vcpus[0];
    r = make_timer(guest, err);
    if (r < 0)
        goto fail;
    *ret_guest = guest;
    return 0;

fail:
    guest_close(guest);
    return r;
}

void guest_close(struct guest *guest)
{
    if (!guest)
        return;
    if (guest->has_timer)
        timer_delete(guest->timer);
    if (guest->engine)
        guest->ops->destroy(guest->engine);
    if (guest->memory && guest->memory != MAP_FAILED)
        munmap(guest->memory, PHYSICAL_SIZE);
    free(guest);
}

static void set_timer(struct guest *guest, unsigned milliseconds)
{
    const struct itimerspec when = {.it_value = {.tv_sec = milliseconds / 1000,
                                                 .tv_nsec = milliseconds % 1000 * 1000000}};

    timer_settime(guest->timer, 0, &when, NULL);
}

static int run(struct guest *guest, unsigned milliseconds, enum engine_exit *ret_exit,
               struct error *err)
{
    int r;

    guest->kicked = 0;
    if (milliseconds)
        set_timer(guest, milliseconds);
    do
        r = engine_run(guest->vcpu, ret_exit, err);
    while (r == 0 && *ret_exit == ENGINE_EXIT_KICK && !guest->kicked); /* a late one */
    if (milliseconds)
        set_timer(guest, 0);
    return r;
}

/* The engine has halted in a handler: what it saved on its stack (SDM 3A 6.14.2). */
static int read_exception(const struct guest *guest, const struct x86_state *s,
                          struct image *image, struct error *err)
{
    const uint32_t with_error_code = 1u << X86_DF_FAULT | 1u << X86_TS | 1u << X86_NP |
                                     1u << X86_SS_FAULT | 1u << X86_GP | 1u << X86_PF_FAULT |
                                     1u << X86_AC_FAULT;
    const uint8_t *frame = guest->memory + (s->gpr[X86_RSP] - KERNEL);

    if (s->gpr[X86_RSP] - KERNEL > PHYSICAL_STACK)
        return error_set(err, EIO, "the guest took an exception at CPL 0, its RSP is 0x%llx",
                         (unsigned long long)s->gpr[X86_RSP]);
    image->vector = (int)((s->rip - KERNEL - PHYSICAL_HANDLER) / HANDLER_SIZE);
    image->error_code = 0;
    if (image->vector < 32 && (with_error_code >> image->vector & 1)) {
        image->error_code = load_le32(frame);
        frame += 8;
    }
    image->rip = load_le64(frame);
    image->rflags = load_le64(frame + 16);
    image->gpr[X86_RSP] = load_le64(frame + 24);
    image->cr2 = image->vector == X86_PF_FAULT ? s->cr2 : 0;
    return 0;
}

int guest_run(struct guest *guest, struct image *image, struct image_memory *memory,
              unsigned milliseconds, struct error *err)
{
    struct x86_state s = guest->kernel;
    enum engine_exit exit;
    int r;

    if (memcmp(guest->memory + PHYSICAL_CODE, memory->code, IMAGE_CODE_SIZE) != 0) {
        memcpy(guest->memory + PHYSICAL_CODE, memory->code, IMAGE_CODE_SIZE);
        guest->ops->invalidate(guest->engine, PHYSICAL_CODE, IMAGE_CODE_SIZE);
    }
    for (uint64_t page = 0; page < IMAGE_DATA_SIZE; page += IMAGE_PAGE)
        memcpy(guest->memory + physical_data(page), memory->data + page, IMAGE_PAGE);
    guest->ops->invalidate(guest->engine, PHYSICAL_DATA, IMAGE_DATA_SIZE);
    memcpy(s.gpr, image->gpr, sizeof(s.gpr));
    s.rip = image->rip;
    s.rflags = image->rflags;
    set_segments(&s, image->mode);
    s.fpu = image->fpu;
    s.fpu.xstate_bv = s.xcr0;
    guest->ops->set_state(guest->vcpu, &s);

    r = run(guest, milliseconds, &exit, err);
    if (r < 0)
        return r;
    guest->ops->get_state(guest->vcpu, &s);
    memcpy(image->gpr, s.gpr, sizeof(s.gpr));
    image->rip = s.rip;
    image->rflags = s.rflags;
    image->fpu = s.fpu;
    image->vector = IMAGE_TIMEOUT;
    if (exit == ENGINE_EXIT_SHUTDOWN)
        return error_set(err, EIO, "the guest shut down at 0x%llx", (unsigned long long)s.rip);
    if (exit == ENGINE_EXIT_HALT) {
        if (s.rip - KERNEL - PHYSICAL_HANDLER >= VECTORS * HANDLER_SIZE)
            return error_set(err, EIO, "the guest halted at 0x%llx", (unsigned long long)s.rip);
        r = read_exception(guest, &s, image, err);
    }
    memcpy(memory->code, guest->memory + PHYSICAL_CODE, IMAGE_CODE_SIZE);
    for (uint64_t page = 0; page < IMAGE_DATA_SIZE; page += IMAGE_PAGE)
        memcpy(memory->data + page, guest->memory + physical_data(page), IMAGE_PAGE);
    return r;
}

void guest_get_kernel(const struct guest *guest, struct x86_state *ret_state, uint8_t *ret_memory)
{
    *ret_state = guest->kernel;
    ret_state->segment[X86_CS] =
        segment(KERNEL_CS, 0, 0xffffffff,
                (USER_SEGMENT & ~X86_SEG_DPL) | X86_SEG_CODE | X86_SEG_L);
    memcpy(ret_memory, guest->memory, GUEST_MEMORY_SIZE);
}

int guest_run_machine(struct guest *guest, struct x86_state *state, uint8_t *memory,
                      unsigned milliseconds, enum engine_exit *ret_exit, struct error *err)
{
    int r;

    memcpy(guest->memory, memory, GUEST_MEMORY_SIZE);
    guest->ops->invalidate(guest->engine, 0, GUEST_MEMORY_SIZE);
    guest->ops->set_state(guest->vcpu, state);
    r = run(guest, milliseconds, ret_exit, err);
    if (r < 0)
        return r;
    guest->ops->get_state(guest->vcpu, state);
    memcpy(memory, guest->memory, GUEST_MEMORY_SIZE);
    return 0;
}

struct vcpu *guest_vcpu(struct guest *guest)
{
    return guest->vcpu;
}
