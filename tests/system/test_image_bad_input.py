"""Hostile images: one line of words, and nothing that stays behind."""
import gzip
import json
import os
import random
import subprocess
import zlib

import pytest

import images
from images import Store, directory, file, layer


@pytest.fixture
def store(lodge, tmp_path):
    return Store(lodge, tmp_path / "store")


def load_fails(store, tmp_path, stream, **options):
    path = images.docker_archive(tmp_path / "bad.tar", [stream], **options)
    words = store.fails("load", "-i", path)
    assert store.is_clean() and store.names() == []
    return words


def symbolic(name, target):
    return name, dict(type=images.LINK, linkname=target)


def hard(name, target):
    return name, dict(type=images.HARD_LINK, linkname=target)


@pytest.mark.parametrize("name", ["../escaped", "a/../../escaped", "/../escaped"])
def test_a_name_with_dots_is_refused(store, tmp_path, name):
    assert "'..'" in load_fails(store, tmp_path, layer(file(name)))


def test_an_absolute_name_is_meant_inside_the_root(store, tmp_path):
    outside = tmp_path / "outside"
    store("load", "-i", images.docker_archive(tmp_path / "a.tar", [layer(file(f"{outside}/x"))]))
    root, = store.layer_directories()
    assert os.path.exists(f"{root}{outside}/x") and not outside.exists()


@pytest.mark.parametrize("target", ["{outside}", "../../../../../../../../../..{outside}"])
def test_nothing_is_written_through_a_link_out_of_the_root(store, tmp_path, target):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "victim").write_text("safe")
    stream = layer(symbolic("way", target.format(outside=outside)), file("way/new", b"bad"),
                   symbolic("file", f"{outside}/victim"), file("file", b"bad"),
                   file("way/.wh.victim"), file("way/.wh..wh..opq"))
    result = store.run("load", "-i", images.docker_archive(tmp_path / "a.tar", [stream]))
    assert result.returncode in (0, 1)
    assert os.listdir(outside) == ["victim"]
    assert (outside / "victim").read_text() == "safe"
    assert os.listxattr(outside) == []
    assert store.is_clean()


def test_a_directory_replaced_by_a_link_is_not_written_through(store, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    stream = layer(directory("d"), file("d/one"), symbolic("d", str(outside)), file("d/two"))
    store.run("load", "-i", images.docker_archive(tmp_path / "a.tar", [stream]))
    assert os.listdir(outside) == []
    assert store.is_clean()


def test_directories_owned_by_a_link_keep_their_own_attributes(store, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir(mode=0o700)
    stream = layer(symbolic("d", str(outside)), directory("d", mode=0o777, uid=7))
    store.run("load", "-i", images.docker_archive(tmp_path / "a.tar", [stream]))
    assert (outside.stat().st_mode & 0o777, outside.stat().st_uid) == (0o700, 0)


@pytest.mark.parametrize("target", ["/etc/passwd", "../../../../etc/passwd", "missing",
                                    "way/passwd"])
def test_a_hard_link_out_of_the_layer_is_refused(store, tmp_path, target):
    stream = layer(symbolic("way", "/etc"), hard("link", target))
    assert "link" in load_fails(store, tmp_path, stream)


@pytest.mark.parametrize("name", [".wh.", ".wh..", ".wh...", "a/.wh.."])
def test_a_whiteout_of_nothing_is_refused(store, tmp_path, name):
    assert "whiteout" in load_fails(store, tmp_path, layer(directory("a"), file(name)))


def test_a_root_that_is_no_directory_is_refused(store, tmp_path):
    assert "root" in load_fails(store, tmp_path, layer(symbolic("./", "/etc")))


@pytest.mark.parametrize("name", ["a" * 256, "/".join(["a"] * 300), "/".join(["b" * 200] * 30)])
def test_a_name_that_is_too_long_is_refused(store, tmp_path, name):
    assert "too long or too deep" in load_fails(store, tmp_path, layer(file(name)))


def test_directories_deeper_than_descriptors_are_removed_again(store, tmp_path):
    deep, entries = "/".join(["d"] * 250), []
    for i in range(8):
        entries += [directory(deep), symbolic(f"s{i}", ("s%d/" % (i - 1) if i else "") + deep)]
        deep = f"s{i}/" + "/".join(["d"] * 240)
    load_fails(store, tmp_path, layer(*entries, file("../end")))


def test_a_bomb_is_refused_with_a_clear_word(store, tmp_path):
    layout = images.oci_layout(tmp_path / "l", [b""])
    squeezer = zlib.compressobj(9, zlib.DEFLATED, 31)
    entry = images.tarfile.TarInfo("zero")
    entry.size = 8 << 30
    bomb = squeezer.compress(entry.tobuf())
    for _ in range(1200):
        bomb += squeezer.compress(bytes(1 << 20))
    bomb += squeezer.flush()
    with open(f"{layout}/index.json") as index:
        top = json.load(index)["manifests"][0]

    def blob(data):
        with open(f"{layout}/blobs/sha256/{images.sha256(data)[7:]}", "wb") as out:
            out.write(data)
        return {"digest": images.sha256(data), "size": len(data)}

    manifest = {"schemaVersion": 2, "config": blob(json.dumps(images.config([bomb])).encode()),
                "layers": [dict(blob(bomb), mediaType=images.MEDIA + "layer.v1.tar+gzip")]}
    top.update(blob(json.dumps(manifest).encode()))
    with open(f"{layout}/index.json", "w") as index:
        json.dump({"schemaVersion": 2, "manifests": [top]}, index)
    assert "bomb" in store.fails("import", layout)
    assert store.is_clean()


def test_a_huge_file_of_holes_is_refused(store, tmp_path):
    sparse = tmp_path / "sparse"
    with open(sparse, "wb") as out:
        out.truncate(1 << 40)
    stream = subprocess.run(["tar", "-C", tmp_path, "-S", "-cf", "-", "sparse"], check=True,
                            stdout=subprocess.PIPE).stdout
    assert len(stream) < 100000
    assert "bomb" in load_fails(store, tmp_path, stream)


GOOD = layer(directory("a"), *(file(f"a/{i}", os.urandom(3000)) for i in range(20)))


@pytest.mark.parametrize("compression", ["", "+gzip", "+zstd"])
def test_a_layer_cut_or_changed_anywhere_is_refused(store, tmp_path, compression):
    layout = images.oci_layout(tmp_path / "l", [GOOD], compression)
    blob = max(os.scandir(f"{layout}/blobs/sha256"), key=lambda entry: entry.stat().st_size)
    whole = open(blob.path, "rb").read()
    for spoiled in (whole[:-1], whole[:len(whole) // 2], b"", whole + b"x",
                    whole[:5000] + b"!" + whole[5001:]):
        with open(blob.path, "wb") as out:
            out.write(spoiled)
        store.fails("import", layout)
        assert store.is_clean() and store.names() == []


@pytest.mark.parametrize("spoil", ["truncate", "garbage"])
def test_a_compressed_stream_that_is_broken_inside_is_refused(store, tmp_path, spoil):
    # The blob's digest is right; what is in it is not.
    packed = gzip.compress(GOOD)
    bad = {"truncate": packed[:-100], "garbage": packed[:2000] + os.urandom(3000)}[spoil]

    def change(documents):
        documents["config"]["rootfs"]["diff_ids"] = [images.sha256(GOOD)]

    load_fails(store, tmp_path, bad, change=change)


def test_a_layer_that_is_not_the_one_in_the_configuration_is_refused(store, tmp_path):
    def change(documents):
        documents["config"]["rootfs"]["diff_ids"] = ["sha256:" + "0" * 64]

    assert "digest" in load_fails(store, tmp_path, GOOD, change=change)


def member(path, value):
    """A change of documents: the member at path gets value."""
    def change(documents):
        at = documents
        for step in path[:-1]:
            at = at[step]
        if value is Ellipsis:
            del at[path[-1]]
        else:
            at[path[-1]] = value
    return change


@pytest.mark.parametrize("value", [..., 7, "x", {}, [1], [{}], "sha256:12", ["sha256:zz"]])
@pytest.mark.parametrize("path", [("manifest", 0, "Config"), ("manifest", 0, "Layers"),
                                  ("config", "rootfs", "diff_ids"), ("config", "rootfs"),
                                  ("manifest",)])
def test_each_member_missing_or_of_a_wrong_type_is_refused(store, tmp_path, path, value):
    load_fails(store, tmp_path, GOOD, change=member(path, value) if path != ("manifest",) or
               value is not ... else member(path, None))


@pytest.mark.parametrize("path,value", [
    (("config", "config"), 3), (("config", "config", "Env"), "A=1"),
    (("config", "config", "Cmd"), [1]), (("config", "config", "User"), 0),
    (("config", "os"), "x" * 40), (("config", "architecture"), 1),
    (("manifest", 0, "RepoTags"), ["Bad Name"]), (("manifest", 0, "RepoTags"), "a:1"),
    (("manifest", 0, "Layers"), ["../../etc/passwd"]), (("manifest", 0, "Config"), "/etc/passwd")])
def test_a_configuration_out_of_range_is_refused(store, tmp_path, path, value):
    load_fails(store, tmp_path, GOOD, change=member(path, value))


def test_files_named_by_a_layout_do_not_lead_out_of_it(store, tmp_path):
    layout = images.oci_layout(tmp_path / "l", [GOOD])
    os.rename(f"{layout}/index.json", tmp_path / "index.json")
    os.symlink(tmp_path / "index.json", f"{layout}/index.json")
    assert "index.json" in store.fails("import", layout)


def test_what_is_no_image_is_refused(store, tmp_path):
    generator = random.Random(1)
    for data in (b"", b"x", bytes(10240), generator.randbytes(5000), gzip.compress(b"no tar"),
                 layer(file("else"))):
        path = tmp_path / "bad"
        path.write_bytes(data)
        store.fails("import", path)
    store.fails("import", tmp_path / "missing")
    store.fails("load", "-i", "/dev/null")
    assert store.is_clean()


def test_a_full_disk_leaves_nothing_behind(lodge, tmp_path):
    big = [layer(*(file(f"{k}/{i}", os.urandom(100000)) for i in range(30))) for k in range(4)]
    path = images.docker_archive(tmp_path / "a.tar", big)
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "none", small], check=True)
    try:
        store = Store(lodge, small / "store")
        assert "No space left" in store.fails("load", "-i", path)
        assert store.is_clean()
        store("load", "-i", images.docker_archive(tmp_path / "b.tar", [GOOD]))
        assert store.is_clean()
    finally:
        subprocess.run(["umount", small], check=True)


@pytest.mark.parametrize("name", ["", ":", "a:", "A", "a//b", "a@sha256:1", "-a", "a/", "a:b:c/d!",
                                  "x" * 300, "a__" + "_b", "[::1/a", "host:99999999/a"])
def test_a_name_that_is_none_is_a_usage_error(store, tmp_path, name):
    store("load", "-i", images.docker_archive(tmp_path / "a.tar", [GOOD]))
    store.fails("tag", "test/image:1", name)
    store.fails("pull", name)
