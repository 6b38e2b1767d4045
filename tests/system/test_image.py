"""Images: stores, layers, archives; with podman and skopeo as second opinions."""
import json
import os
import pathlib
import pwd
import shutil
import stat
import subprocess
import tempfile

import pytest

import images
from images import Store, directory, file, layer


@pytest.fixture
def store(lodge, tmp_path):
    return Store(lodge, tmp_path / "store")


@pytest.fixture
def short_path():
    """podman's directories may not have long names."""
    with tempfile.TemporaryDirectory(dir="/tmp") as path:
        yield pathlib.Path(path)


BASE = layer(directory("./"), directory("etc"), file("etc/name", b"base"), file("etc/gone", b"x"),
             directory("var"), file("var/lower", b"x"),
             ("bin", dict(type=images.LINK, linkname="usr/bin")),
             ("etc/same", dict(type=images.HARD_LINK, linkname="etc/name")),
             file("na\u00efve", b"", uid=70000, gid=70001, mode=0o4711, mtime=86400),
             ("pipe", dict(type=images.FIFO, mode=0o600)),
             ("null", dict(type=images.CHARACTER, devmajor=1, devminor=3, mode=0o666)))
CHANGE = layer(file("etc/.wh.gone"), directory("var"), file("var/.wh..wh..opq"), file("var/upper"))


def test_a_layer_is_unpacked_with_owners_modes_times_links_and_nodes(store, tmp_path):
    store("load", "-i", images.docker_archive(tmp_path / "a.tar", [BASE]))
    root, = store.layer_directories()
    status = os.lstat(f"{root}/na\u00efve")
    assert (status.st_uid, status.st_gid, status.st_mtime) == (70000, 70001, 86400)
    assert stat.S_IMODE(status.st_mode) == 0o4711
    assert os.readlink(f"{root}/bin") == "usr/bin"
    assert os.path.samefile(f"{root}/etc/same", f"{root}/etc/name")
    assert stat.S_ISFIFO(os.lstat(f"{root}/pipe").st_mode)
    assert os.lstat(f"{root}/null").st_rdev == os.makedev(1, 3)
    assert store.is_clean()


def test_whiteouts_hide_what_lower_layers_have(store, tmp_path):
    store("load", "-i", images.docker_archive(tmp_path / "a.tar", [BASE, CHANGE]))
    lower, upper = store.layer_directories()
    assert os.lstat(f"{upper}/etc/gone").st_rdev == 0
    assert stat.S_ISCHR(os.lstat(f"{upper}/etc/gone").st_mode)
    assert os.getxattr(f"{upper}/var", "trusted.overlay.opaque") == b"y"
    merged = tmp_path / "merged"
    merged.mkdir()
    seen = subprocess.run(["unshare", "-m", "sh", "-c",
                           f"mount -t overlay -o lowerdir={upper}:{lower} none {merged} &&"
                           f" cd {merged} && ls etc var"], capture_output=True, text=True)
    assert seen.stdout.split() == ["etc:", "name", "same", "var:", "upper"], seen.stderr


def test_a_whiteout_does_not_hide_what_its_own_layer_brings(store, tmp_path):
    both = layer(file("a/.wh.x"), directory("a"), directory("a/x"), file("a/x/new"),
                 directory("b"), file("b/y", b"new"), file("b/.wh.y"),
                 directory("c"), directory("c/z"), file("c/.wh.z"))
    store("load", "-i", images.docker_archive(tmp_path / "a.tar", [both]))
    root, = store.layer_directories()
    assert os.listdir(f"{root}/a/x") == ["new"]
    assert os.getxattr(f"{root}/a/x", "trusted.overlay.opaque") == b"y"
    assert open(f"{root}/b/y").read() == "new"
    assert os.getxattr(f"{root}/c/z", "trusted.overlay.opaque") == b"y"


def test_attributes_of_files_are_kept_but_those_of_overlayfs_are_not(store, tmp_path):
    attributes = {"SCHILY.xattr.user.colour": "red",
                  "SCHILY.xattr.trusted.overlay.redirect": "/etc",
                  "SCHILY.xattr.user.overlay.redirect": "/etc"}
    store("load", "-i", images.docker_archive(
        tmp_path / "a.tar", [layer(file("f", pax_headers=attributes),
                                   directory("d", pax_headers=attributes))]))
    root, = store.layer_directories()
    for name in ("f", "d"):
        assert os.listxattr(f"{root}/{name}") == ["user.colour"]
        assert os.getxattr(f"{root}/{name}", "user.colour") == b"red"


@pytest.mark.parametrize("compression", ["", "+gzip", "+zstd"])
def test_a_layout_is_imported_whatever_compresses_its_layers(store, tmp_path, compression):
    layout = images.oci_layout(tmp_path / "layout", [BASE, CHANGE], compression)
    assert store("import", layout, "own/name:2") == "own/name:2\n"
    assert os.path.exists(store.layer_directories("own/name:2")[1] + "/var/upper")
    subprocess.run(["tar", "-C", layout, "-czf", tmp_path / "layout.tgz", "."], check=True)
    assert store("import", tmp_path / "layout.tgz") == "test/image:1\n"
    assert store.is_clean()


def test_of_an_index_the_platform_asked_for_is_taken(store, tmp_path):
    layout = images.oci_layout(tmp_path / "l", [CHANGE], platforms=["linux/arm64", "linux/amd64"])
    store("import", layout, "here")
    store("import", "--platform", "linux/arm64", layout, "there")
    for name, platform in (("here", "linux/amd64"), ("there", "linux/arm64")):
        settings = json.loads(store("inspect", name))["image"]["config"]
        assert settings["Env"] == [f"PLATFORM={platform}"]
    assert "linux/riscv64" in store.fails("import", "--platform", "linux/riscv64", layout)


def test_a_saved_image_is_loaded_again_with_the_same_digests(store, lodge, tmp_path):
    store("load", "-i", images.docker_archive(tmp_path / "a.tar", [BASE, CHANGE], ["a:1", "b/c:2"]))
    assert store.names() == ["a:1", "b/c:2"]
    store("save", "-o", tmp_path / "saved.tar", "a:1", "b/c:2")
    store("export", "a:1", tmp_path / "exported")
    other = Store(lodge, tmp_path / "other")
    with open(tmp_path / "saved.tar") as archive:
        assert other("load", stdin=archive) == "a:1\nb/c:2\n"
    other("import", tmp_path / "exported", "d:3")
    digests = {json.loads(one("inspect", name))["digest"]
               for one, name in ((store, "a:1"), (other, "a:1"), (other, "b/c:2"), (other, "d:3"))}
    assert len(digests) == 1
    assert other.is_clean()


@pytest.mark.skipif(not shutil.which("podman"), reason="podman is not installed")
def test_podman_and_lodge_load_what_the_other_saves(store, tmp_path, short_path):
    podman = ["podman", "--root", short_path / "root", "--runroot", short_path / "run",
              "--storage-driver", "vfs", "--events-backend", "none"]
    plain = layer(directory("etc"), file("etc/name", b"base"))
    store("load", "-i", images.docker_archive(tmp_path / "a.tar", [plain, CHANGE]))
    store("save", "-o", tmp_path / "b.tar", "test/image:1")
    subprocess.run([*podman, "load", "-q", "-i", tmp_path / "b.tar"], check=True,
                   stdout=subprocess.PIPE)
    name = subprocess.run([*podman, "images", "--format", "{{.Repository}}:{{.Tag}}"], check=True,
                          stdout=subprocess.PIPE, text=True).stdout.strip()
    assert name.endswith("test/image:1")
    for form in ("docker-archive", "oci-archive"):
        subprocess.run([*podman, "save", "-q", "--format", form, "-o", tmp_path / form, name],
                       check=True, stderr=subprocess.PIPE)
        store("import", tmp_path / form, f"from/{form}:1")
        assert (store.layer_directories(f"from/{form}:1") == store.layer_directories())


def test_names_resolve_whole_in_part_and_by_digest(store, tmp_path):
    store("load", "-i", images.docker_archive(tmp_path / "a.tar", [CHANGE],
                                              ["host.test:5000/team/a:1"]))
    digest = json.loads(store("inspect", "host.test:5000/team/a:1"))["digest"]
    for name in ("team/a:1", digest, digest[7:17]):
        assert json.loads(store("inspect", name))["digest"] == digest
    store("load", "-i", images.docker_archive(tmp_path / "b.tar", [BASE], ["other.test/team/a:1"]))
    assert "several" in store.fails("inspect", "team/a:1")
    assert "no image" in store.fails("inspect", "team/b:1")


def test_removing_a_name_frees_what_no_other_needs(store, tmp_path):
    store("load", "-i", images.docker_archive(tmp_path / "a.tar", [BASE], ["a:1"]))
    store("load", "-i", images.docker_archive(tmp_path / "b.tar", [BASE, CHANGE], ["b:1"]))
    store("tag", "b:1", "c:1")
    store("rm", "b:1")
    assert store.names() == ["a:1", "c:1"] and store.is_clean()
    store("rm", "c:1")
    assert len(store.layer_directories("a:1")) == 1 and store.is_clean()
    store("rm", "a:1")
    for kind in ("blobs", "layers"):
        assert os.listdir(f"{store.path}/{kind}/sha256") == []


def test_check_finds_damage(store, tmp_path):
    store("load", "-i", images.docker_archive(tmp_path / "a.tar", [BASE]))
    blob = f"{store.path}/blobs/sha256/{images.sha256(BASE)[7:]}"
    with open(blob, "r+b") as out:
        out.seek(600)
        out.write(b"?")
    result = store.run("check")
    assert result.returncode == 1 and "damaged" in result.stdout
    assert "damaged" in store.fails("save", "-o", tmp_path / "b.tar", "test/image:1")
    assert not os.path.exists(tmp_path / "b.tar")
    os.unlink(blob)
    assert "lacks its layer" in store.run("check").stdout


def test_many_processes_load_and_remove_at_once(store, tmp_path):
    shared = layer(file("shared", os.urandom(200000)))
    paths = [images.docker_archive(tmp_path / f"{i}.tar", [shared, layer(file(f"own{i}"))],
                                   [f"i{i}:1"]) for i in range(6)]
    running = [subprocess.Popen([store.lodge, "image", "load", "--store", store.path, "-i", path],
                                stdout=subprocess.DEVNULL) for path in paths * 2]
    assert [one.wait(60) for one in running] == [0] * 12
    assert sorted(store.names()) == [f"i{i}:1" for i in range(6)]
    running = [subprocess.Popen([store.lodge, "image", "rm", "--store", store.path, f"i{i}:1"],
                                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
               for i in range(5)]
    assert [one.wait(60) for one in running] == [0] * 5
    store("prune")
    assert store.names() == ["i5:1"] and store.is_clean()


def test_killed_at_any_moment_a_load_leaves_nothing_half_made(store, tmp_path):
    path = images.docker_archive(tmp_path / "a.tar", [layer(*(file(f"{k}/{i}", b"x" * 20000)
                                                            for i in range(60))) for k in range(4)])
    command = [store.lodge, "image", "load", "--store", store.path, "-i", path]
    for i in range(20):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        try:
            process.wait(0.004 * i)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        assert store.is_clean(unreferenced=False)
    store("prune")
    assert store.is_clean()
    store("load", "-i", path)
    assert len(store.layer_directories()) == 4


def test_a_user_without_privileges_has_a_store_of_their_own(lodge, tmp_path):
    user = pwd.getpwnam("nobody")
    home = tmp_path / "home"
    home.mkdir()
    os.chown(home, user.pw_uid, user.pw_gid)
    for part in (tmp_path, tmp_path.parent, tmp_path.parent.parent):
        os.chmod(part, 0o755)
    program = shutil.copy(lodge, tmp_path / "lodge")
    path = images.docker_archive(tmp_path / "a.tar", [BASE, CHANGE])

    def run(*arguments):
        return subprocess.run([program, "image", *arguments], user=user.pw_uid, group=user.pw_gid,
                              env={"HOME": str(home), "PATH": os.environ["PATH"]}, check=True,
                              capture_output=True, text=True, cwd="/").stdout

    run("load", "-i", path)
    assert "0 faults" in run("check")
    layers = json.loads(run("inspect", "test/image:1"))["layers"]
    assert layers[0]["directory"].startswith(f"{home}/.local/share/lodge/images/layers/")
    assert not os.path.exists(layers[0]["directory"] + "/null")
    assert os.getxattr(layers[1]["directory"] + "/var", "user.overlay.opaque") == b"y"
    run("rm", "test/image:1")
    assert os.listdir(f"{home}/.local/share/lodge/images/layers/sha256") == []
