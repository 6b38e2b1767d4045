#include "engine/translate/churn.h"

#include "engine/translate/translator.h"

#define DROPS_MAX 32u    /* before the page is interpreted */
#define RETRY     24u    /* of them, after a trial: the next one is shorter */
#define BLOCKS    20000u /* that are interpreted until then */

static struct churn *find(struct translator *t, const struct code_page *page)
{
    return &t->churn[(uintptr_t)page / sizeof(*page) % CHURN_PAGES];
}

void churn_note(struct translator *t, const struct code_page *page)
{
    struct churn *c = find(t, page);

    if (c->left || ++c->drops < DROPS_MAX)
        return;
    c->drops = RETRY;
    c->left = BLOCKS;
}

bool churn_interprets(struct translator *t, uint64_t physical)
{
    const struct code_page *page = code_page_at(t->cpu.soft, physical);
    struct churn *c;

    if (!page)
        return false;
    c = find(t, page);
    if (!c->left)
        return false;
    c->left--;
    t->stats.churned++;
    return true;
}
