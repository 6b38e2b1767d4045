/* Interrupt messages on their way into the kernel's local APICs: its table of
 * routes (KVM_SET_GSI_ROUTING), and the two ways to send one (KVM_SIGNAL_MSI,
 * KVM_IRQFD). The table has the IOAPIC's pins first, whose ends the kernel
 * tells, then the sources of messages. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "engine/kvm/kvm.h"

/* struct kvm_irq_routing ends in an array without a size. */
union routes {
    struct kvm_irq_routing list;
    uint8_t room[sizeof(struct kvm_irq_routing) +
                 (KVM_PINS + KVM_LINES_MAX) * sizeof(struct kvm_irq_routing_entry)];
};

static void add_route(union routes *routes, uint32_t gsi, const struct kvm_route *route)
{
    routes->list.entries[routes->list.nr++] = (struct kvm_irq_routing_entry){
        .gsi = gsi,
        .type = KVM_IRQ_ROUTING_MSI,
        .u.msi = {.address_lo = (uint32_t)route->address,
                  .address_hi = (uint32_t)(route->address >> 32),
                  .data = route->data},
    };
}

/* The lock is held. */
static int set_routes(struct kvm_engine *kvm)
{
    AUTO_FREE union routes *routes = calloc(1, sizeof(*routes));

    if (!routes)
        return -ENOMEM;
    for (uint32_t pin = 0; pin < KVM_PINS; pin++)
        if (kvm->pins[pin].data)
            add_route(routes, pin, &kvm->pins[pin]);
    for (uint32_t i = 0; i < kvm->line_count; i++)
        add_route(routes, KVM_PINS + i, &kvm->lines[i].route);
    return KVM_CALL(kvm->vm_fd, KVM_SET_GSI_ROUTING, routes) < 0 ? -errno : 0;
}

static bool same_route(const struct kvm_route *a, const struct kvm_route *b)
{
    return a->address == b->address && a->data == b->data;
}

void kvm_apic_route(struct engine *engine, unsigned pin, uint64_t address, uint32_t data)
{
    struct kvm_engine *kvm = (struct kvm_engine *)engine;
    const struct kvm_route to = {address, data};
    int r = 0;

    if (pin >= KVM_PINS)
        return;
    pthread_mutex_lock(&kvm->lock);
    if (!same_route(&kvm->pins[pin], &to)) {
        kvm->pins[pin] = to;
        r = set_routes(kvm);
    }
    pthread_mutex_unlock(&kvm->lock);
    if (r < 0)
        log_error(kvm->config.log, "KVM does not take the routes of interrupts: %s", strerror(-r));
}

/* --- Lines: event descriptors whose write sends a message --- */

/* The lock is held. */
static struct kvm_line *find_line(struct kvm_engine *kvm, unsigned source)
{
    for (unsigned i = 0; i < kvm->line_count; i++)
        if (kvm->lines[i].source == source)
            return &kvm->lines[i];
    return NULL;
}

static int bind_line(struct kvm_engine *kvm, const struct kvm_line *line, uint32_t flags)
{
    const struct kvm_irqfd irqfd = {.fd = (uint32_t)line->fd,
                                    .gsi = KVM_PINS + (uint32_t)(line - kvm->lines),
                                    .flags = flags};

    return KVM_CALL(kvm->vm_fd, KVM_IRQFD, &irqfd);
}

/* A line for the source, its route in the table; what fails leaves none. The lock is held. */
static void add_line(struct kvm_engine *kvm, unsigned source, const struct kvm_route *route)
{
    struct kvm_line *line = &kvm->lines[kvm->line_count];

    if (kvm->line_count == KVM_LINES_MAX)
        return;
    *line = (struct kvm_line){.source = source, .route = *route,
                              .fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)};
    if (line->fd < 0)
        return;
    kvm->line_count++;
    if (set_routes(kvm) == 0 && bind_line(kvm, line, 0) == 0)
        return;
    kvm->line_count--;
    close(line->fd);
}

void kvm_apic_prepare(struct engine *engine, unsigned source, uint64_t address, uint32_t data)
{
    struct kvm_engine *kvm = (struct kvm_engine *)engine;
    const struct kvm_route to = {address, data};
    struct kvm_line *line;

    pthread_mutex_lock(&kvm->lock);
    line = find_line(kvm, source);
    if (!line) {
        add_line(kvm, source, &to);
    } else if (!same_route(&line->route, &to)) {
        const struct kvm_route before = line->route;

        line->route = to;
        if (set_routes(kvm) < 0)
            line->route = before; /* which nobody sends */
    }
    pthread_mutex_unlock(&kvm->lock);
}

/* The descriptor of the source's line, if it sends this message; -1. It stays while the engine is
 * in use: lines are drained when nobody sends. */
static int line_for(struct kvm_engine *kvm, unsigned source, const struct kvm_route *route)
{
    const struct kvm_line *line;
    int fd;

    pthread_mutex_lock(&kvm->lock);
    line = find_line(kvm, source);
    fd = line && same_route(&line->route, route) ? line->fd : -1;
    pthread_mutex_unlock(&kvm->lock);
    return fd;
}

void kvm_apic_message(struct engine *engine, unsigned source, uint64_t address, uint32_t data)
{
    struct kvm_engine *kvm = (struct kvm_engine *)engine;
    const struct kvm_route to = {address, data};
    struct kvm_msi msi = {.address_lo = (uint32_t)address, .address_hi = (uint32_t)(address >> 32),
                          .data = data};
    const int fd = source == ENGINE_NO_SOURCE ? -1 : line_for(kvm, source, &to);
    const uint64_t one = 1;

    if (fd < 0 || write(fd, &one, sizeof(one)) != sizeof(one))
        KVM_CALL(kvm->vm_fd, KVM_SIGNAL_MSI, &msi); /* nobody there: as on hardware, nothing */
}

void kvm_drain_lines(struct kvm_engine *kvm)
{
    pthread_mutex_lock(&kvm->lock);
    while (kvm->line_count) {
        struct kvm_line *line = &kvm->lines[kvm->line_count - 1];

        bind_line(kvm, line, KVM_IRQFD_FLAG_DEASSIGN);
        close(line->fd);
        kvm->line_count--;
    }
    pthread_mutex_unlock(&kvm->lock);
}
