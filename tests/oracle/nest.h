/* nest.h - loops in loops over all registers, such as compilers make of functions that work
 * on some things and have a frame: what a translator keeps in registers from turn to turn, or
 * takes to lie in one page, is then given up on some ways and not on others. 64-bit code. */
#ifndef LODGE_TESTS_ORACLE_NEST_H
#define LODGE_TESTS_ORACLE_NEST_H

struct maker;

void nest_make(struct maker *m);

#endif
