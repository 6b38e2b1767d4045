/* The input is a vdi image. */
#include "disk_format.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    fuzz_disk(&vdi_format, false, data, size);
    return 0;
}
