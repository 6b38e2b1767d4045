/* no_devices.h - the callbacks of a machine that has none: reads give ones, writes are lost, no
 * interrupt waits, no MSR is known. Tests of engines take it, or begin with it. */
#ifndef LODGE_TESTS_NO_DEVICES_H
#define LODGE_TESTS_NO_DEVICES_H

#include "engine/engine.h"

extern const struct engine_callbacks no_devices;

#endif
