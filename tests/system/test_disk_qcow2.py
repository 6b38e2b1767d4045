"""qcow2 images against qemu-img and qemu-io: each reads what the other wrote."""
import os
import random
import signal
import subprocess
import time

import pytest

from system.disk import clean, facts, make_content, ok, refused, run, same

SIZE = 12 << 20

# Options of qemu-img, and the same of lodge disk create.
OPTIONS = [
    ("compat=0.10", ["--compat", "2"]),
    ("compat=1.1", []),
    ("cluster_size=512", ["--cluster-size", "512"]),
    ("cluster_size=2M", ["--cluster-size", "2M"]),
    ("refcount_bits=1", ["--refcount-bits", "1"]),
    ("refcount_bits=4", ["--refcount-bits", "4"]),
    ("refcount_bits=64,cluster_size=1k", ["--refcount-bits", "64", "--cluster-size", "1K"]),
    ("lazy_refcounts=on", ["--lazy-refcounts"]),
    ("extended_l2=on", ["--extended-l2"]),
    ("extended_l2=on,cluster_size=16k", ["--extended-l2", "--cluster-size", "16K"]),
    ("compression_type=zstd", ["--compression", "zstd"]),
    ("preallocation=metadata", None),
    ("preallocation=falloc,extended_l2=on", None),
]


@pytest.fixture(scope="module")
def content(tmp_path_factory):
    return make_content(tmp_path_factory.mktemp("content") / "raw", SIZE)


@pytest.mark.parametrize("options", [o for o, _ in OPTIONS])
@pytest.mark.parametrize("compress", [[], ["-c"]])
def test_an_image_of_qemu_reads_the_same(lodge, content, tmp_path, options, compress):
    if compress and "preallocation" in options:
        pytest.skip("qemu-img does not compress into a preallocated image")
    image, raw = tmp_path / "image", tmp_path / "raw"
    ok("qemu-img", "convert", "-f", "raw", "-O", "qcow2", "-o", options, *compress, content, image)
    ok(lodge, "disk", "check", image)
    ok(lodge, "disk", "convert", image, raw, "-O", "raw")
    ok("cmp", content, raw)


@pytest.mark.parametrize("options, ours", [o for o in OPTIONS if o[1] is not None])
def test_an_image_that_is_written_by_both_in_turn_stays_clean(lodge, content, tmp_path, options,
                                                              ours):
    image, raw = tmp_path / "image", tmp_path / "raw"
    ok(lodge, "disk", "create", image, SIZE, *ours)
    clean(lodge, image)
    ok("qemu-img", "convert", "-n", "-f", "raw", "-O", "qcow2", content, image)
    clean(lodge, image)
    ok(lodge, "disk", "bench", image, "-w", "-c", "200", "-s", "3K")
    clean(lodge, image)
    ok("qemu-io", "-f", "qcow2", "-c", "write -P 7 100k 1M", "-c", "discard 2M 1M", "-c",
       "write -z 4M 70k", image)
    ok(lodge, "disk", "convert", image, raw, "-O", "raw")
    same(raw, image)


@pytest.mark.parametrize("arguments", [[], ["-c"], ["-c", "--compression", "zstd"]])
def test_a_converted_image_reads_the_same_in_qemu(lodge, content, tmp_path, arguments):
    image = tmp_path / "image"
    ok(lodge, "disk", "convert", "-f", "raw", content, image, *arguments)
    clean(lodge, image)
    same(content, image)
    ok(lodge, "disk", "compare", content, image)
    if arguments:
        plain = facts(lodge, "disk", "info", content, "-f", "raw")
        assert os.path.getsize(image) < plain["allocated"]


def test_backing_chains_commit_and_rebase_keep_the_content(lodge, content, tmp_path):
    base, middle, top = (tmp_path / n for n in ("base", "middle", "top"))
    ok("qemu-img", "convert", "-f", "raw", "-O", "qcow2", content, base)
    ok(lodge, "disk", "create", middle, "--backing", "base", "14M")
    ok("qemu-io", "-c", "write -P 1 0 3M", "-c", "write -z 5M 1M", middle)
    ok("qemu-img", "create", "-q", "-f", "qcow2", "-b", "middle", "-F", "qcow2", top)
    ok(lodge, "disk", "bench", top, "-w", "-c", "100", "-s", "5K")
    flat = tmp_path / "flat"
    ok("qemu-img", "convert", "-O", "raw", top, flat)
    ok(lodge, "disk", "compare", flat, top, "-f", "raw")
    extents = facts(lodge, "disk", "map", top)
    assert {e["depth"] for e in extents} >= {0, 1, 2}
    assert sum(e["length"] for e in extents) == 14 << 20

    ok(lodge, "disk", "rebase", top, "--backing", "base")
    same(flat, top)
    ok(lodge, "disk", "commit", top)
    same(flat, base)
    assert all(e["depth"] or not e["present"] for e in facts(lodge, "disk", "map", top))
    ok(lodge, "disk", "rebase", top, "--backing", "")
    same(flat, top)
    for image in (base, middle, top):
        clean(lodge, image)


def test_snapshots_of_both_are_seen_and_applied_by_both(lodge, content, tmp_path):
    image = tmp_path / "image"
    ok("qemu-img", "convert", "-f", "raw", "-O", "qcow2", content, image)
    ok("qemu-img", "snapshot", "-c", "theirs", image)
    ok(lodge, "disk", "bench", image, "-w", "-c", "300")
    ok(lodge, "disk", "snapshot", "create", image, "ours")
    now = tmp_path / "now"
    ok("qemu-img", "convert", "-O", "raw", image, now)
    ok("qemu-io", "-c", "write -P 3 1M 4M", image)
    clean(lodge, image)
    names = [s["name"] for s in facts(lodge, "disk", "snapshot", "list", image)]
    assert names == ["theirs", "ours"]
    assert "ours" in ok("qemu-img", "snapshot", "-l", image)
    ok(lodge, "disk", "snapshot", "apply", image, "theirs")
    same(content, image)
    clean(lodge, image)
    ok("qemu-img", "snapshot", "-a", "ours", image)
    same(now, image)
    ok(lodge, "disk", "snapshot", "delete", image, "theirs")
    ok(lodge, "disk", "snapshot", "delete", image, "2")
    clean(lodge, image)
    same(now, image)


def test_resizing_shows_zeroes_and_no_old_data(lodge, content, tmp_path):
    image, raw = tmp_path / "image", tmp_path / "raw"
    ok("qemu-img", "convert", "-f", "raw", "-O", "qcow2", content, image)
    ok("cp", content, raw)
    assert "--shrink" in refused(lodge, "disk", "resize", image, "1M")
    for size in ("5000K", "1536", "20M", "300M"):
        ok(lodge, "disk", "resize", "--shrink", image, size)
        ok("qemu-img", "resize", "-q", "--shrink", "-f", "raw", raw, size)
        same(raw, image)
        clean(lodge, image)
    ok(lodge, "disk", "resize", image, "+1M")
    assert facts(lodge, "disk", "info", image)["size"] == 301 << 20


def test_bitmaps_of_qemu_are_neither_leaks_nor_believed_after_a_write(lodge, tmp_path):
    image = tmp_path / "image"
    ok("qemu-img", "create", "-q", "-f", "qcow2", image, "10M")
    ok("qemu-img", "bitmap", "--add", image, "changes")
    ok("qemu-io", "-c", "write 0 1M", image)
    ok(lodge, "disk", "check", image)
    ok(lodge, "disk", "bench", image, "-w", "-c", "10")
    assert "inconsistent" in run("qemu-img", "info", image).stderr + ok("qemu-img", "info", image)


def test_damage_is_found_and_repaired(lodge, content, tmp_path):
    image = tmp_path / "image"
    ok("qemu-img", "convert", "-f", "raw", "-O", "qcow2", content, image)
    with open(image, "r+b") as file:  # the refcounts of clusters 3 to 6
        file.seek(0x20000 + 3 * 2)
        file.write(b"\0\0\0\0\0\7\0\7")
    found = run(lodge, "disk", "check", image, "--json")
    assert found.returncode == 1
    ok(lodge, "disk", "check", "--repair", image)
    clean(lodge, image)
    same(content, image)


def test_a_dirty_image_is_set_right_when_it_is_opened_for_writing(lodge, tmp_path):
    image = tmp_path / "image"
    ok("qemu-img", "create", "-q", "-f", "qcow2", "-o", "lazy_refcounts=on", image, "10M")
    run("qemu-io", "-c", "write -P 5 0 2M", "-c", "flush", "-c", "abort", image)
    assert facts(lodge, "disk", "info", image)["dirty"]
    ok(lodge, "disk", "resize", image, "11M")
    assert not facts(lodge, "disk", "info", image)["dirty"]
    clean(lodge, image)
    ok("qemu-io", "-c", "read -P 5 0 2M", image)


def test_what_cannot_be_done_is_said_in_one_line(lodge, tmp_path):
    image = tmp_path / "image"
    assert "exists" in (ok(lodge, "disk", "create", image, "1M"),
                        refused(lodge, "disk", "create", image, "1M"))[1]
    refused(lodge, "disk", "create", tmp_path / "x", "9E", "--cluster-size", "512")
    refused(lodge, "disk", "create", tmp_path / "x", "1M", "--backing", "nowhere")
    assert not (tmp_path / "x").exists()
    refused(lodge, "disk", "create", tmp_path / "x", "lots", status=2)
    refused(lodge, "disk", "create", tmp_path / "x.raw", "1M", "--cluster-size", "4K", status=2)
    assert "--shrink" in refused(lodge, "disk", "resize", image, "-512K")
    refused(lodge, "disk", "info", tmp_path / "nothing")
    refused(lodge, "disk", "info", tmp_path)
    refused(lodge, "disk", "snapshot", "apply", image, "none")
    ok("qemu-img", "create", "-q", "-f", "qcow2", "-o",
       f"data_file={tmp_path}/data,data_file_raw=on", tmp_path / "external", "1M")
    assert "external data file" in refused(lodge, "disk", "info", tmp_path / "external")
    ok("qemu-img", "create", "-q", "-f", "qcow2", tmp_path / "luks", "1M")
    with open(tmp_path / "luks", "r+b") as file:  # the header says: encrypted by LUKS
        file.seek(32)
        file.write(b"\0\0\0\2")
    assert "encrypted" in refused(lodge, "disk", "info", tmp_path / "luks")


def test_a_name_that_says_raw_makes_a_raw_disk(lodge, tmp_path):
    for name, options, fmt in [("a.raw", [], "raw"), ("a.img", [], "raw"), ("a", [], "qcow2"),
                               ("a.qcow2", [], "qcow2"), ("b.raw", ["-f", "qcow2"], "qcow2")]:
        ok(lodge, "disk", "create", *options, tmp_path / name, "1M")
        assert facts(lodge, "disk", "info", tmp_path / name)["format"] == fmt
    ok(lodge, "disk", "convert", tmp_path / "a.qcow2", tmp_path / "c.img")
    assert facts(lodge, "disk", "info", tmp_path / "c.img")["format"] == "raw"


def test_an_interrupted_conversion_leaves_nothing(lodge, tmp_path):
    source, target = tmp_path / "source", tmp_path / "target"
    with open(source, "wb") as file:
        for i in range(128):
            file.write(random.Random(i).randbytes(1 << 20))
    for number in signal.SIGINT, signal.SIGTERM:
        # Behind whoever interrupts it, or it may be over by then on a busy host.
        process = subprocess.Popen(["nice", "-n", "19", lodge, "disk", "convert", "-f", "raw", "-c",
                                    source, target], stderr=subprocess.PIPE)
        while not target.exists() or target.stat().st_size < 1 << 20:
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(number)
        assert process.wait(60) == -number and not target.exists()


def test_a_chain_that_loops_is_refused(lodge, tmp_path):
    a, b = tmp_path / "a", tmp_path / "b"
    ok(lodge, "disk", "create", a, "1M")
    ok(lodge, "disk", "create", b, "1M", "--backing", "a")
    ok(lodge, "disk", "rebase", "--unsafe", a, "--backing", "b", "--backing-format", "qcow2")
    assert "loop" in refused(lodge, "disk", "map", a)


def random_commands(source, size):
    """Commands of qemu-io, which say no content but a byte."""
    for _ in range(12):
        unit = source.choice([512, 512, 4096, 65536])
        at = source.randrange(0, size // unit) * unit
        length = min(source.randrange(1, 40) * unit, size - at)
        yield source.choice([f"write -P {source.randrange(256)} {at} {length}",
                             f"write -P {source.randrange(256)} {at} {length}",
                             f"write -z {at} {length}", f"write -z -u {at} {length}",
                             f"discard {at} {length}"])


def check_sequence(lodge, folder, seed):
    """qemu-io works on an image of ours and, through NBD of ours, on another: both end alike."""
    source = random.Random(seed)
    image, raw = folder / f"image{seed}", folder / f"raw{seed}"
    options = source.choice([o for _, o in OPTIONS
                             if o is not None and o != ["--refcount-bits", "1"]])
    size = source.randrange(1, 16) << 19
    ok(lodge, "disk", "create", image, size, *options)
    ok("qemu-img", "create", "-q", "-f", "raw", raw, size)
    commands = []
    for command in random_commands(source, size):
        if command.startswith("discard"):
            continue
        commands += ["-c", command]
    ok("qemu-io", "-f", "raw", *commands, raw)
    socket = folder / f"socket{seed}"
    ok(lodge, "disk", "serve", image, "--unix", socket, "--writable", "--run",
       "qemu-io -f raw %s nbd+unix:///?socket=%s" %
       (" ".join("-c '%s'" % c for c in commands[1::2]), socket))
    same(raw, image)
    clean(lodge, image)
    for path in (image, raw):
        os.unlink(path)


@pytest.mark.parametrize("part", range(4))
def test_random_commands_of_qemu_io_have_the_same_effect_on_our_server(lodge, tmp_path, part):
    for seed in range(part * 10, part * 10 + 10):
        check_sequence(lodge, tmp_path, seed)


@pytest.mark.long
def test_many_random_commands_of_qemu_io_have_the_same_effect(lodge, tmp_path):
    for seed in range(1000, 6000):
        check_sequence(lodge, tmp_path, seed)


def test_two_writers_are_refused_whoever_they_are(lodge, tmp_path):
    image, socket = tmp_path / "image", tmp_path / "socket"
    ok(lodge, "disk", "create", image, "10M")

    def while_served(command):
        return run(lodge, "disk", "serve", image, "--unix", socket, "--writable", "--run", command)

    assert "in use" in while_served(f"{lodge} disk resize {image} 11M").stderr
    assert "in use" in while_served(f"{lodge} disk map {image}").stderr
    assert "lock" in while_served(f"qemu-io -c 'write 0 4k' {image}").stderr
    holder = subprocess.Popen(["qemu-io", image], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    holder.stdin.write(b"length\n")
    holder.stdin.flush()
    holder.stdout.read(8)  # it is open now
    assert "in use" in refused(lodge, "disk", "resize", image, "11M")
    holder.communicate(b"quit\n")
    ok(lodge, "disk", "resize", image, "11M")
