/* churn.h - code that shares its page with what it writes.
 *
 * Assumption: 16-bit programs keep code and data side by side, and each write to a page with
 * code drops all of its units. Making them again for every write costs more than
 * interpreting. So a page whose units were dropped some times is left to the interpreter's
 * blocks, which are cheap to make, for a while; then it is tried again. */
#ifndef LODGE_ENGINE_TRANSLATE_CHURN_H
#define LODGE_ENGINE_TRANSLATE_CHURN_H

#include <stdbool.h>
#include <stdint.h>

struct translator;
struct code_page;

#define CHURN_PAGES 256u

/* Of pages with the same hash. */
struct churn {
    uint16_t drops; /* times that units were dropped, up to a limit */
    uint16_t left;  /* blocks to be interpreted until it is tried again */
};

/* The page's units were dropped because it was written. */
void churn_note(struct translator *t, const struct code_page *page);
/* Whether code there is to be interpreted this time. */
bool churn_interprets(struct translator *t, uint64_t physical);

#endif
