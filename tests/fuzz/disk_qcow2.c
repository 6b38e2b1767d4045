/* The input is a qcow2 image. */
#include "disk_format.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    fuzz_disk(&qcow2_format, true, data, size);
    return 0;
}
