#include "image/debian.h"

#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include <archive.h>
#include <archive_entry.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "image/blob.h"
#include "image/install.h"
#include "image/layer.h"
#include "image/library.h"
#include "image/program.h"
#include "image/tree.h"

#define SUITE "bookworm"
#define DISK_PACKAGES                                                                              \
    "linux-image-cloud-amd64,initramfs-tools,systemd-sysv,systemd-resolved,dbus,"                  \
    "openssh-server,sudo,ca-certificates,iproute2"
#define VALUE_MAX 16384 /* bytes of a variable that the scripts get */

/* Run by mmdebstrap in the new root $1, before it is packed. All values come in
 * variables, so that none of them is ever read as shell. */
static const char seed_script[] =
    "set -eu\n"
    "inside() { chroot \"$root\" \"$@\"; }\n"
    "root=$1 who=${LODGE_USER:-root}\n"
    "if [ -n \"$LODGE_HOSTNAME\" ]; then\n"
    "    printf '%s\\n' \"$LODGE_HOSTNAME\" >\"$root/etc/hostname\"\n"
    "    printf '127.0.0.1 localhost\\n127.0.1.1 %s\\n::1 localhost\\n' \"$LODGE_HOSTNAME\" "
    ">\"$root/etc/hosts\"\n"
    "fi\n"
    "if [ -n \"$LODGE_USER\" ]; then\n"
    "    inside useradd --create-home --shell /bin/bash \"$LODGE_USER\"\n"
    "    if inside getent group sudo >/dev/null; then inside usermod -aG sudo \"$LODGE_USER\"; fi\n"
    "fi\n"
    "if [ -n \"$LODGE_PASSWORD\" ]; then\n"
    "    printf '%s:%s\\n' \"$who\" \"$LODGE_PASSWORD\" | inside chpasswd\n"
    "fi\n"
    "if [ -n \"$LODGE_SSH_KEY\" ]; then\n"
    "    home=$(inside getent passwd \"$who\" | cut -d: -f6)\n"
    "    mkdir -p -m 700 \"$root$home/.ssh\"\n"
    "    printf '%s\\n' \"$LODGE_SSH_KEY\" >\"$root$home/.ssh/authorized_keys\"\n"
    "    inside chown -R \"$who:\" \"$home/.ssh\"\n"
    "fi\n"
    "if [ -n \"$LODGE_DISK\" ]; then\n"
    "    echo 'LABEL=root / ext4 errors=remount-ro 0 1' >\"$root/etc/fstab\"\n"
    "    printf '[Match]\\nName=en* eth*\\n[Network]\\nDHCP=yes\\n' "
    ">\"$root/etc/systemd/network/80-dhcp.network\"\n"
    "    inside systemctl enable systemd-networkd serial-getty@ttyS0\n"
    /* Each CPU keeps free pages that the balloon is not told of: 1/256 of memory is enough. */
    "    echo 'vm.percpu_pagelist_high_fraction = 256' "
    ">\"$root/etc/sysctl.d/80-balloon.conf\"\n"
    "fi\n";

/* Root, or root of a user namespace, turns the archive into a filesystem. */
static const char disk_script[] =
    "set -eu\n"
    "cd \"$LODGE_WORK\"\n"
    "mkdir root\n"
    "tar -C root --numeric-owner --xattrs --xattrs-include='*' -xpf root.tar\n"
    "rm root.tar\n"
    "cp -L root/vmlinuz vmlinuz\n"
    "cp -L root/initrd.img initrd\n"
    "mke2fs -q -F -t ext4 -L root -m 1 -d root disk \"$LODGE_DISK\"\n"
    "rm -rf root\n";

/* A directory for what is in the making, beside what it becomes: there is room, and a
 * rename is enough. */
struct workshop {
    char path[PATH_MAX], log[PATH_MAX + 8];
};

static int open_workshop(struct workshop *workshop, const char *beside, struct error *err)
{
    const char *slash = strrchr(beside, '/');

    if (snprintf(workshop->path, sizeof(workshop->path), "%.*slodge-build-XXXXXX",
                 slash ? (int)(slash - beside + 1) : 0, beside) >= (int)sizeof(workshop->path))
        return error_set(err, ENAMETOOLONG, "the path %.64s... is too long", beside);
    if (!mkdtemp(workshop->path))
        return error_system(err, errno, "cannot make the directory %s", workshop->path);
    snprintf(workshop->log, sizeof(workshop->log), "%s/log", workshop->path);
    return 0;
}

static void close_workshop(const struct workshop *workshop)
{
    tree_remove(AT_FDCWD, workshop->path);
}

/* --- The root filesystem --- */

static bool made_of(const char *text, const char *characters)
{
    return text[0] && text[0] != '-' && text[strspn(text, characters)] == 0;
}

static int check(const struct debian *debian, struct error *err)
{
    static const char name[] = "abcdefghijklmnopqrstuvwxyz0123456789_-";
    static const char packages[] = "abcdefghijklmnopqrstuvwxyz0123456789+-.,:=~";

    if (debian->user && !made_of(debian->user, name))
        return error_set(err, EINVAL, "'%.60s' is no user name: lower-case letters, digits, _ -",
                         debian->user);
    if (debian->hostname && !made_of(debian->hostname, "abcdefghijklmnopqrstuvwxyz"
                                                       "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-."))
        return error_set(err, EINVAL, "'%.60s' is no host name: letters, digits, - .",
                         debian->hostname);
    if (debian->suite && !made_of(debian->suite, name))
        return error_set(err, EINVAL, "'%.60s' is no suite of Debian", debian->suite);
    if (debian->packages && !made_of(debian->packages, packages))
        return error_set(err, EINVAL, "'%.60s' is no list of packages separated by commas",
                         debian->packages);
    if (debian->password && (!debian->password[0] || strpbrk(debian->password, "\r\n")))
        return error_set(err, EINVAL, "the password is empty or more than a line");
    if (debian->ssh_key && (!debian->ssh_key[0] || strpbrk(debian->ssh_key, "\r\n")))
        return error_set(err, EINVAL, "the SSH key is not one line");
    return 0;
}

/* "NAME=VALUE" for the scripts; NULL: out of memory, or too long. */
static char *variable(const char *name, const char *value)
{
    char *text;

    if (value && strlen(value) > VALUE_MAX)
        return NULL;
    return asprintf(&text, "%s=%s", name, value ? value : "") < 0 ? NULL : text;
}

/* Make root.tar in the workshop. */
static int bootstrap(const struct debian *debian, const struct workshop *workshop, bool disk,
                     struct error *err)
{
    AUTO_FREE char *include = NULL, *tar = NULL, *hook = NULL;
    AUTO_FREE char *user = variable("LODGE_USER", debian->user);
    AUTO_FREE char *password = variable("LODGE_PASSWORD", debian->password);
    AUTO_FREE char *key = variable("LODGE_SSH_KEY", debian->ssh_key);
    AUTO_FREE char *hostname = variable("LODGE_HOSTNAME", debian->hostname);
    const char *extra[] = {
        user, password, key, hostname, disk ? "LODGE_DISK=1" : "LODGE_DISK=", NULL};
    const char *argv[12] = {"mmdebstrap", "--variant=minbase", "--format=tar"};
    size_t n = 3;

    if (asprintf(&include, "--include=%s%s%s%s", disk ? DISK_PACKAGES : "",
                 disk && debian->packages ? "," : "", debian->packages ? debian->packages : "",
                 "") < 0 ||
        asprintf(&tar, "%s/root.tar", workshop->path) < 0 ||
        asprintf(&hook, "--customize-hook=%s", seed_script) < 0 || !user || !password || !key ||
        !hostname)
        return error_set(err, ENOMEM, "out of memory, or a value is longer than %d bytes",
                         VALUE_MAX);
    argv[n++] = geteuid() == 0 ? "--mode=root" : "--mode=unshare";
    if (disk || debian->packages)
        argv[n++] = include;
    argv[n++] = hook;
    argv[n++] = debian->suite ? debian->suite : SUITE;
    argv[n++] = tar;
    if (debian->mirror)
        argv[n++] = debian->mirror;
    return program_run(argv, extra, workshop->log, err);
}

/* --- A disk --- */

static int move_out(const struct workshop *workshop, const char *name, const char *path,
                    const char *suffix, struct error *err)
{
    char from[PATH_MAX + 16], to[PATH_MAX + 16];

    snprintf(from, sizeof(from), "%s/%s", workshop->path, name);
    snprintf(to, sizeof(to), "%s%s", path, suffix);
    if (rename(from, to) < 0)
        return error_system(err, errno, "cannot make %s", to);
    return 0;
}

int debian_build_disk(const struct debian *debian, const char *path, uint64_t size,
                      struct error *err)
{
    const char *const as_root[] = {"sh", "-c", disk_script, NULL};
    const char *const as_user[] = {"unshare", "--user", "--map-auto", "--map-root-user",
                                   "sh",      "-c",     disk_script,  NULL};
    char work[PATH_MAX + 16], kib[48];
    const char *const extra[] = {work, kib, NULL};
    struct workshop workshop;
    int r = check(debian, err);

    if (r < 0)
        return r;
    r = open_workshop(&workshop, path, err);
    if (r < 0)
        return r;
    snprintf(work, sizeof(work), "LODGE_WORK=%s", workshop.path);
    snprintf(kib, sizeof(kib), "LODGE_DISK=%lluk", (unsigned long long)(size >> 10));
    r = bootstrap(debian, &workshop, true, err);
    if (r == 0)
        r = program_run(geteuid() == 0 ? as_root : as_user, extra, workshop.log, err);
    if (r == 0)
        r = move_out(&workshop, "vmlinuz", path, ".vmlinuz", err);
    if (r == 0)
        r = move_out(&workshop, "initrd", path, ".initrd", err);
    if (r == 0)
        r = move_out(&workshop, "disk", path, "", err);
    close_workshop(&workshop);
    return r;
}

/* --- An image --- */

/* libarchive's writer into a blob. */
struct packing {
    struct blob_writer *writer;
    struct error *err;
};

static la_ssize_t pack_came(struct archive *archive, void *opaque, const void *data, size_t length)
{
    struct packing *packing = opaque;
    int r = blob_write(packing->writer, data, length, packing->err);

    if (r < 0)
        archive_set_error(archive, -r, "cannot write");
    return r < 0 ? -1 : (la_ssize_t)length;
}

/* Copy fd through the archive, and hash it on the way. */
static int pack_stream(struct archive *archive, int fd, struct hasher *hasher, struct error *err)
{
    AUTO_FREE char *buffer = malloc(256 << 10);
    ssize_t n;

    if (!buffer)
        return error_set(err, ENOMEM, "out of memory");
    while ((n = read(fd, buffer, 256 << 10)) > 0) {
        hasher_update(hasher, buffer, (size_t)n);
        if (archive_write_data(archive, buffer, (size_t)n) < 0)
            return -EIO; /* err is filled by the writer */
    }
    return n < 0 ? error_system(err, errno, "cannot read") : 0;
}

/* Compress the tar stream in fd into a blob. */
static int pack_layer(struct store *store, int fd, struct descriptor *ret_layer,
                      struct digest *ret_diff_id, struct error *err)
{
    struct packing packing = {.err = err};
    struct archive *archive = archive_write_new();
    struct archive_entry *entry = archive_entry_new();
    struct hasher *hasher = NULL;
    int r = archive && entry ? hasher_create(NULL, &hasher, err)
                             : error_set(err, ENOMEM, "out of memory");

    if (r == 0)
        r = blob_create(store, NULL, &packing.writer, err);
    if (r == 0) {
        archive_write_set_format_raw(archive);
        archive_write_add_filter_zstd(archive);
        archive_write_set_bytes_in_last_block(archive, 1);
        archive_entry_set_filetype(entry, S_IFREG);
        if (archive_write_open(archive, &packing, NULL, pack_came, NULL) != ARCHIVE_OK ||
            archive_write_header(archive, entry) != ARCHIVE_OK)
            r = error_set(err, EIO, "%s", archive_error_string(archive));
    }
    if (r == 0)
        r = pack_stream(archive, fd, hasher, err);
    if (r == 0 && archive_write_close(archive) != ARCHIVE_OK)
        r = -EIO;
    if (archive)
        archive_write_free(archive);
    if (entry)
        archive_entry_free(entry);
    if (r == 0)
        hasher_finish(hasher, ret_diff_id);
    hasher_destroy(hasher);
    if (r == 0)
        r = blob_finish(packing.writer, ret_layer, err);
    else if (packing.writer)
        blob_abandon(packing.writer);
    strcpy(ret_layer->media_type, MEDIA_LAYER_ZSTD);
    return r;
}

static json_t *make_config(const struct digest *diff_id)
{
    char created[32];
    time_t now = time(NULL);
    struct tm utc;

    strftime(created, sizeof(created), "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&now, &utc));
    return json_pack("{ss ss ss s{s[s] s[s]} s{ss s[s]}}", "created", created, "os", "linux",
                     "architecture", "amd64", "config", "Env",
                     "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "Cmd",
                     "/bin/bash", "rootfs", "type", "layers", "diff_ids", diff_id->text);
}

/* Put the documents of an image of one layer into the store, and unpack it. */
static int make_image(struct store *store, struct descriptor *layer, const struct digest *diff_id,
                      struct descriptor *image, struct error *err)
{
    struct manifest manifest = {.layers = layer, .layer_count = 1};
    json_t *tree = make_config(diff_id);
    AUTO_FREE char *config_text = json_dumps(tree, JSON_COMPACT), *text = NULL;
    struct image_config config;
    int r;

    json_decref(tree);
    if (!config_text)
        return error_set(err, ENOMEM, "out of memory");
    strcpy(manifest.config.media_type, MEDIA_CONFIG);
    r = store_write_blob(store, config_text, strlen(config_text), &manifest.config, err);
    if (r == 0)
        r = manifest_write(&manifest, &text, err);
    if (r == 0)
        r = store_write_blob(store, text, strlen(text), image, err);
    if (r == 0)
        r = image_config_read(config_text, strlen(config_text), &config, err);
    if (r < 0)
        return r;
    strcpy(image->media_type, MEDIA_MANIFEST);
    image->platform = config.platform;
    r = image_unpack(store, &manifest, &config, err);
    image_config_release(&config);
    return r;
}

int debian_build_image(const struct debian *debian, struct store *store, const char *name,
                       struct descriptor *ret_descriptor, struct error *err)
{
    struct descriptor layer = {0}, image = {0};
    char beside[PATH_MAX], tar[PATH_MAX + 16];
    struct reference reference;
    struct workshop workshop;
    AUTO_CLOSE int fd = -1;
    struct digest diff_id;
    int r = check(debian, err);

    if (r == 0)
        r = reference_parse(name, &reference, err);
    if (r == 0)
        r = library_load(&library_archive, err);
    /* In the store's tmp/, which is emptied should this be killed. */
    snprintf(beside, sizeof(beside), "%s/tmp/", store_path(store));
    if (r == 0)
        r = open_workshop(&workshop, beside, err);
    if (r < 0)
        return r;
    r = bootstrap(debian, &workshop, false, err);
    snprintf(tar, sizeof(tar), "%s/root.tar", workshop.path);
    if (r == 0 && (fd = open(tar, O_RDONLY | O_CLOEXEC)) < 0)
        r = error_system(err, errno, "cannot open %s", tar);
    if (r == 0)
        r = pack_layer(store, fd, &layer, &diff_id, err);
    close_workshop(&workshop);
    if (r == 0)
        r = make_image(store, &layer, &diff_id, &image, err);
    reference_format(&reference, image.name);
    if (r == 0)
        r = store_tag(store, &image, err);
    if (r == 0)
        *ret_descriptor = image;
    return r;
}
