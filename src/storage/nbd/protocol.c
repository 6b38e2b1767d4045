#include "storage/nbd/protocol.h"

#include <errno.h>

#include "base/bytes.h"

static const struct {
    uint32_t error;
    int code;
} errors[] = {
    {1, EPERM},   {5, EIO},        {12, ENOMEM},  {22, EINVAL},
    {28, ENOSPC}, {75, EOVERFLOW}, {95, ENOTSUP}, {108, ESHUTDOWN},
};

uint32_t nbd_error_of(int negative_errno)
{
    if (negative_errno == -EROFS)
        return 1;
    for (unsigned i = 0; i < ARRAY_SIZE(errors); i++)
        if (errors[i].code == -negative_errno)
            return errors[i].error;
    return negative_errno ? 5 : 0;
}

int nbd_error_to(uint32_t error)
{
    for (unsigned i = 0; i < ARRAY_SIZE(errors); i++)
        if (errors[i].error == error)
            return -errors[i].code;
    return error ? -EIO : 0;
}
