#include "base/fiber.h"

#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define FIBER_ASAN 1
#endif
#elif defined(__SANITIZE_ADDRESS__)
#define FIBER_ASAN 1
#endif
#ifdef FIBER_ASAN
#include <sanitizer/common_interface_defs.h>
#endif

#define STACKS_KEPT 64 /* idle stacks that wait for the next fiber */

struct fiber {
    struct fibers *fibers;
    fiber_fn *fn;
    void *opaque;
    void *stack_pointer; /* while it does not run */
    uint8_t *stack;      /* its mapping, the guard page first */
    bool finished;
    struct fiber *next; /* in the one queue that it is in */
};

struct fibers {
    struct fiber *running;
    void *stack_pointer; /* of the thread's own stack, while a fiber runs */
    struct fiber_queue ready;
    struct fiber *idle;
    unsigned idle_count;
    size_t page;
#ifdef FIBER_ASAN
    const void *thread_stack;
    size_t thread_stack_size;
#endif
};

/* Push what the System V ABI lets a callee keep, change stacks, pop it there. */
void lodge_fiber_switch(void **ret_from, void *to);
void lodge_fiber_enter(void);
__asm__(".text\n"
        ".type lodge_fiber_switch, @function\n"
        "lodge_fiber_switch:\n"
        "    push %rbp\n    push %rbx\n    push %r12\n    push %r13\n    push %r14\n    push %r15\n"
        "    mov %rsp, (%rdi)\n"
        "    mov %rsi, %rsp\n"
        "    pop %r15\n    pop %r14\n    pop %r13\n    pop %r12\n    pop %rbx\n    pop %rbp\n"
        "    ret\n"
        ".size lodge_fiber_switch, . - lodge_fiber_switch\n"
        ".type lodge_fiber_enter, @function\n"
        "lodge_fiber_enter:\n" /* the first return goes here: RBX is the fiber, R12 its main */
        "    mov %rbx, %rdi\n"
        "    call *%r12\n"
        "    ud2\n"
        ".size lodge_fiber_enter, . - lodge_fiber_enter\n");

/* --- Queues --- */

void fiber_queue_init(struct fiber_queue *queue)
{
    queue->first = NULL;
    queue->end = &queue->first;
}

static void put(struct fiber_queue *queue, struct fiber *fiber)
{
    fiber->next = NULL;
    *queue->end = fiber;
    queue->end = &fiber->next;
}

static struct fiber *take(struct fiber_queue *queue)
{
    struct fiber *fiber = queue->first;

    if (fiber) {
        queue->first = fiber->next;
        if (!queue->first)
            queue->end = &queue->first;
    }
    return fiber;
}

/* --- Changing stacks --- */

static void leave(struct fibers *fibers, struct fiber *fiber)
{
#ifdef FIBER_ASAN
    void *fake = NULL;

    __sanitizer_start_switch_fiber(fiber->finished ? NULL : &fake, fibers->thread_stack,
                                   fibers->thread_stack_size);
    lodge_fiber_switch(&fiber->stack_pointer, fibers->stack_pointer);
    __sanitizer_finish_switch_fiber(fake, &fibers->thread_stack, &fibers->thread_stack_size);
#else
    lodge_fiber_switch(&fiber->stack_pointer, fibers->stack_pointer);
#endif
}

static void enter(struct fibers *fibers, struct fiber *fiber)
{
    fibers->running = fiber;
#ifdef FIBER_ASAN
    void *fake = NULL;

    __sanitizer_start_switch_fiber(&fake, fiber->stack + fibers->page, FIBER_STACK);
    lodge_fiber_switch(&fibers->stack_pointer, fiber->stack_pointer);
    __sanitizer_finish_switch_fiber(fake, NULL, NULL);
#else
    lodge_fiber_switch(&fibers->stack_pointer, fiber->stack_pointer);
#endif
    fibers->running = NULL;
}

static void fiber_main(struct fiber *fiber)
{
#ifdef FIBER_ASAN
    __sanitizer_finish_switch_fiber(NULL, &fiber->fibers->thread_stack,
                                    &fiber->fibers->thread_stack_size);
#endif
    fiber->fn(fiber->opaque);
    fiber->finished = true;
    leave(fiber->fibers, fiber);
}

/* --- Fibers --- */

static void release(struct fibers *fibers, struct fiber *fiber)
{
    if (fibers->idle_count < STACKS_KEPT) {
        fiber->next = fibers->idle;
        fibers->idle = fiber;
        fibers->idle_count++;
        return;
    }
    munmap(fiber->stack, fibers->page + FIBER_STACK);
    free(fiber);
}

static struct fiber *obtain(struct fibers *fibers)
{
    struct fiber *fiber = fibers->idle;

    if (fiber) {
        fibers->idle = fiber->next;
        fibers->idle_count--;
        return fiber;
    }
    fiber = calloc(1, sizeof(*fiber));
    if (!fiber)
        return NULL;
    fiber->stack = mmap(NULL, fibers->page + FIBER_STACK, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (fiber->stack == MAP_FAILED || mprotect(fiber->stack, fibers->page, PROT_NONE) < 0) {
        if (fiber->stack != MAP_FAILED)
            munmap(fiber->stack, fibers->page + FIBER_STACK);
        free(fiber);
        return NULL;
    }
    return fiber;
}

struct fibers *fibers_create(void)
{
    struct fibers *fibers = calloc(1, sizeof(*fibers));

    if (fibers) {
        fibers->page = (size_t)sysconf(_SC_PAGESIZE);
        fiber_queue_init(&fibers->ready);
    }
    return fibers;
}

void fibers_destroy(struct fibers *fibers)
{
    if (!fibers)
        return;
    while (fibers->idle) {
        struct fiber *fiber = fibers->idle;

        fibers->idle = fiber->next;
        munmap(fiber->stack, fibers->page + FIBER_STACK);
        free(fiber);
    }
    free(fibers);
}

void fibers_run(struct fibers *fibers)
{
    struct fiber *fiber;

    while ((fiber = take(&fibers->ready))) {
        enter(fibers, fiber);
        if (fiber->finished)
            release(fibers, fiber);
    }
}

int fiber_start(struct fibers *fibers, fiber_fn *fn, void *opaque)
{
    struct fiber *fiber = obtain(fibers);
    uintptr_t *top;

    if (!fiber)
        return -ENOMEM;
    fiber->fibers = fibers;
    fiber->fn = fn;
    fiber->opaque = opaque;
    fiber->finished = false;
    top = (uintptr_t *)(void *)(fiber->stack + fibers->page + FIBER_STACK);
    *--top = 0;
    *--top = 0; /* keeps the stack aligned to 16 at the call */
    *--top = (uintptr_t)lodge_fiber_enter;
    *--top = 0;                     /* RBP */
    *--top = (uintptr_t)fiber;      /* RBX */
    *--top = (uintptr_t)fiber_main; /* R12 */
    *--top = 0;
    *--top = 0;
    *--top = 0; /* R13 to R15 */
    fiber->stack_pointer = top;
    put(&fibers->ready, fiber);
    return 0;
}

struct fiber *fiber_self(const struct fibers *fibers)
{
    return fibers->running;
}

void fiber_wait(struct fibers *fibers)
{
    leave(fibers, fibers->running);
}

void fiber_wake(struct fiber *fiber)
{
    put(&fiber->fibers->ready, fiber);
}

void fiber_queue_wait(struct fibers *fibers, struct fiber_queue *queue)
{
    put(queue, fibers->running);
    fiber_wait(fibers);
}

void fiber_queue_wake_all(struct fiber_queue *queue)
{
    struct fiber *fiber;

    while ((fiber = take(queue)))
        fiber_wake(fiber);
}

/* --- Locks --- */

void fiber_lock_init(struct fiber_lock *lock)
{
    lock->held = false;
    fiber_queue_init(&lock->waiting);
}

void fiber_lock(struct fibers *fibers, struct fiber_lock *lock)
{
    if (lock->held)
        fiber_queue_wait(fibers, &lock->waiting); /* wakes as the holder */
    lock->held = true;
}

void fiber_unlock(struct fiber_lock *lock)
{
    struct fiber *next = take(&lock->waiting);

    if (next)
        fiber_wake(next);
    else
        lock->held = false;
}
