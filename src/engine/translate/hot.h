/* hot.h - which code is worth more work.
 *
 * Assumption: code that ran some thousand times goes on running. Units are first
 * made quickly, and count their turns: at their head, and at the heads of loops in
 * them. When the count is down, the unit goes and is made again, hot: then nothing
 * is counted any more, and what pays only for code that runs long may be done. */
#ifndef LODGE_ENGINE_TRANSLATE_HOT_H
#define LODGE_ENGINE_TRANSLATE_HOT_H

#include "engine/translate/translator.h"

struct build;
struct step;

/* Start counting. turns: until code is hot; 0: as many as pay, 1: all code is, at once. */
void hot_init(struct translator *t, unsigned turns);
/* Which of hot_counts is for units there. */
unsigned hot_count_of(uint64_t physical);
/* Emit the counting of a turn at step s, the head of the unit or of a loop in it, where it
 * is wanted and the flags are free; changes them. */
void hot_count(struct build *b, const struct step *s);
/* The count is down at site: its unit goes, and a hot one takes its place. */
void hot_rebuild(struct translator *t, const struct site *site);

#endif
