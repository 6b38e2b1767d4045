#include "engine/translate/trap.h"

#include <asm/prctl.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

/* A handler has no argument of ours: whose code this thread runs, and whom to
 * pass other signals to, must be found without one. */
static _Thread_local struct translator *running;
static struct sigaction passed_on[2]; /* SIGSEGV, SIGFPE; written once */
static pthread_once_t installed = PTHREAD_ONCE_INIT;

static void pass_on(int number, siginfo_t *info, void *context)
{
    const struct sigaction *action = &passed_on[number == SIGFPE];

    if (action->sa_flags & SA_SIGINFO)
        action->sa_sigaction(number, info, context);
    else if (action->sa_handler != SIG_DFL && action->sa_handler != SIG_IGN)
        action->sa_handler(number);
    else /* it comes again, and ends the process */
        sigaction(number, action, NULL);
}

static void handle(int number, siginfo_t *info, void *context)
{
    greg_t *rip = &((ucontext_t *)context)->uc_mcontext.gregs[REG_RIP];
    struct translator *t = running;
    uint8_t *leave = NULL;

    if (t && (uint64_t)*rip - (uint64_t)t->cache.execute < t->cache.size)
        leave = code_cache_find_trap(&t->cache,
                                     (uint8_t *)*rip - (t->cache.execute - t->cache.write));
    if (leave)
        *rip = (greg_t)code_of(&t->cache, leave);
    else
        pass_on(number, info, context);
}

static void install(void)
{
    struct sigaction action = {.sa_sigaction = handle, .sa_flags = SA_SIGINFO | SA_ONSTACK};

    sigemptyset(&action.sa_mask);
    sigaction(SIGSEGV, &action, &passed_on[0]);
    sigaction(SIGFPE, &action, &passed_on[1]);
}

void trap_release_thread(const struct translator *t)
{
    if (running == t)
        running = NULL;
}

int trap_prepare_thread(struct translator *t, struct error *err)
{
    const stack_t stack = {.ss_sp = t->alternate_stack, .ss_size = sizeof(t->alternate_stack)};

    if (running == t)
        return 0;
    pthread_once(&installed, install);
    if (sigaltstack(&stack, NULL) < 0 || syscall(SYS_arch_prctl, ARCH_SET_GS, t) < 0)
        return error_system(err, errno, "cannot make a thread ready for translated code");
    running = t;
    return 0;
}
