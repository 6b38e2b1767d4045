/* lodge image ls, inspect, tag, rm, check, prune: what is in the store. */
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/size.h"
#include "cli/image.h"
#include "cli/json.h"
#include "image/collect.h"
#include "image/install.h"

/* --- ls --- */

struct facts {
    char created[32];
    uint64_t size; /* of all blobs */
};

static void gather(const struct store *store, const struct descriptor *item, struct facts *facts)
{
    struct manifest manifest;
    struct image_config config;

    *facts = (struct facts){"damaged", 0};
    if (store_read_image(store, item, &manifest, &config, NULL) < 0)
        return;
    snprintf(facts->created, sizeof(facts->created), "%.10s",
             config.created ? config.created : "-");
    facts->size = item->size + manifest.config.size;
    for (size_t i = 0; i < manifest.layer_count; i++)
        facts->size += manifest.layers[i].size;
    image_config_release(&config);
    manifest_release(&manifest);
}

static void print_row(struct cli *cli, const struct descriptor *item, const struct facts *facts)
{
    char size[32];

    fprintf(cli->out, "%-40s %.12s  %-10s %10s\n", item->name[0] ? item->name : "-",
            digest_hex(&item->digest), facts->created,
            size_format(facts->size, size, sizeof(size)));
}

static json_t *json_row(const struct descriptor *item, const struct facts *facts)
{
    return json_pack("{ss ss ss sI}", "name", item->name, "digest", item->digest.text, "created",
                     facts->created, "size", (json_int_t)facts->size);
}

static int ls_run(struct cli *cli, struct error *err)
{
    json_t *rows = cli_flag(cli, "json") ? json_array() : NULL;
    struct store *store;
    struct index index;
    int r = image_store_open(cli, &store, err);

    if (r < 0)
        return r;
    r = store_list(store, &index, err);
    if (r == 0 && !rows)
        fprintf(cli->out, "%-40s %-12s  %-10s %10s\n", "NAME", "DIGEST", "CREATED", "SIZE");
    for (size_t i = 0; r == 0 && i < index.count; i++) {
        struct facts facts;

        gather(store, index.items + i, &facts);
        if (rows)
            json_array_append_new(rows, json_row(index.items + i, &facts));
        else
            print_row(cli, index.items + i, &facts);
    }
    store_close(store);
    if (r < 0)
        return -EIO;
    index_release(&index);
    return rows ? cli_print_json(cli, rows, err) : CLI_OK;
}

/* --- inspect --- */

static json_t *inspect(const struct store *store, const struct descriptor *item,
                       const struct manifest *manifest, const struct image_config *config)
{
    json_t *layers = json_array();
    char path[LAYER_PATH_MAX], whole[4096];

    for (size_t i = 0; i < manifest->layer_count && i < config->diff_count; i++) {
        json_t *layer = descriptor_write(manifest->layers + i);

        layer_path(config->diff_ids + i, path);
        snprintf(whole, sizeof(whole), "%s/%s", store_path(store), path);
        json_object_set_new(layer, "diffID", json_string(config->diff_ids[i].text));
        json_object_set_new(layer, "directory", json_string(whole));
        json_array_append_new(layers, layer);
    }
    return json_pack("{ss ss so so sO}", "name", item->name, "digest", item->digest.text, "config",
                     descriptor_write(&manifest->config), "layers", layers, "image", config->tree);
}

static int inspect_run(struct cli *cli, struct error *err)
{
    struct store *store = NULL;
    struct descriptor item;
    struct manifest manifest;
    struct image_config config;
    int r = image_operands(cli, 1, 1, err);

    if (r < 0)
        return r;
    r = image_store_open(cli, &store, err);
    if (r == 0)
        r = store_resolve(store, cli->argv[0], &item, err);
    if (r == 0)
        r = store_read_image(store, &item, &manifest, &config, err);
    if (r == 0) {
        r = cli_print_json(cli, inspect(store, &item, &manifest, &config), err);
        image_config_release(&config);
        manifest_release(&manifest);
    }
    store_close(store);
    return r < 0 ? -EIO : CLI_OK;
}

/* --- tag, rm --- */

static int tag_run(struct cli *cli, struct error *err)
{
    struct store *store = NULL;
    struct descriptor item;
    struct reference reference;
    int r = image_operands(cli, 2, 2, err);

    if (r == 0)
        r = reference_parse(cli->argv[1], &reference, err);
    if (r < 0)
        return r;
    r = image_store_open(cli, &store, err);
    if (r == 0)
        r = store_resolve(store, cli->argv[0], &item, err);
    if (r == 0) {
        reference_format(&reference, item.name);
        r = store_tag(store, &item, err);
    }
    store_close(store);
    return r < 0 ? -EIO : CLI_OK;
}

static void print_collected(struct cli *cli, const struct collected *collected)
{
    char size[32];

    if (collected->busy)
        fprintf(stderr, "lodge: the store is in use; 'lodge image prune' removes what is left\n");
    else if (collected->items)
        fprintf(cli->out, "freed %s (%zu items)\n",
                size_format(collected->bytes, size, sizeof(size)), collected->items);
}

static int rm_run(struct cli *cli, struct error *err)
{
    struct collected collected;
    struct store *store = NULL;
    int r = image_operands(cli, 1, 1024, err);

    if (r < 0)
        return r;
    r = image_store_open(cli, &store, err);
    for (int i = 0; i < cli->argc && r == 0; i++) {
        struct descriptor item;

        r = store_resolve(store, cli->argv[i], &item, err);
        if (r == 0)
            r = store_untag(store, &item, err);
    }
    if (r == 0)
        r = store_collect(store, &collected, err);
    if (r == 0)
        print_collected(cli, &collected);
    store_close(store);
    return r < 0 ? -EIO : CLI_OK;
}

/* --- check, prune --- */

static void print_fault(void *opaque, const char *fault)
{
    const struct cli *cli = opaque;

    fprintf(cli->out, "%s\n", fault);
}

static int check_run(struct cli *cli, struct error *err)
{
    struct checked checked;
    struct store *store;
    int r = image_store_open(cli, &store, err);

    if (r < 0)
        return r;
    r = store_check(store, print_fault, cli, &checked, err);
    store_close(store);
    if (r < 0)
        return -EIO;
    fprintf(cli->out, "%zu images, %zu blobs, %zu unreferenced, %zu faults\n", checked.images,
            checked.blobs, checked.unreferenced, checked.faults);
    return checked.faults ? CLI_FAILED : CLI_OK;
}

static int prune_run(struct cli *cli, struct error *err)
{
    struct collected collected;
    struct store *store;
    int r = image_store_open(cli, &store, err);

    if (r < 0)
        return r;
    r = store_collect(store, &collected, err);
    if (r == 0)
        print_collected(cli, &collected);
    store_close(store);
    return r < 0 ? -EIO : CLI_OK;
}

static const struct cli_option options[] = {
    IMAGE_STORE_OPTION,
    {0},
};

static const struct cli_option ls_options[] = {
    {"json", 0, NULL, "Print JSON.", NULL},
    IMAGE_STORE_OPTION,
    {0},
};

const struct verb image_ls_verb = {
    .name = "ls",
    .summary = "list the images in the store",
    .options = ls_options,
    .run = ls_run,
};

const struct verb image_inspect_verb = {
    .name = "inspect",
    .summary = "print all about an image, as JSON",
    .operands = "IMAGE",
    .options = options,
    .run = inspect_run,
};

const struct verb image_tag_verb = {
    .name = "tag",
    .summary = "give an image one more name",
    .operands = "IMAGE NAME",
    .options = options,
    .run = tag_run,
};

const struct verb image_rm_verb = {
    .name = "rm",
    .summary = "take names away, and remove what no name leads to any more",
    .operands = "IMAGE...",
    .options = options,
    .run = rm_run,
};

const struct verb image_check_verb = {
    .name = "check",
    .summary = "compare all content of the store with its digests",
    .options = options,
    .run = check_run,
};

const struct verb image_prune_verb = {
    .name = "prune",
    .summary = "remove content that no image needs",
    .options = options,
    .run = prune_run,
};
