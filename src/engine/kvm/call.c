#include "engine/kvm/call.h"

#include <fcntl.h>
#include <sys/ioctl.h>

int kvm_call_open(void)
{
    return open("/dev/kvm", O_RDWR | O_CLOEXEC);
}

int kvm_call_stat(struct stat *ret_status)
{
    return stat("/dev/kvm", ret_status);
}

int kvm_call(int fd, unsigned long request, uintptr_t argument)
{
    return ioctl(fd, request, argument);
}
