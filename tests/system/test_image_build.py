"""lodge image build: Debian out of its packages."""
import json
import os
import subprocess

import pytest

from images import Store


@pytest.fixture
def store(lodge, tmp_path):
    return Store(lodge, tmp_path / "store")


@pytest.mark.parametrize("options,word", [
    (["--name", "a/b"], "name"), (["--oci", "a", "-o", "b"], "--oci"),
    (["--oci", "Bad Name"], "image name"),
    (["--oci", "a", "--user", "x;y"], "user name"), (["--oci", "a", "--user", "-x"], "user name"),
    (["--oci", "a", "--hostname", "a b"], "host name"),
    (["--oci", "a", "--password", ""], "password"),
    (["--oci", "a", "--password", "x\ny"], "password"),
    (["--oci", "a", "--suite", "../x"], "suite"), (["--oci", "a", "--packages", "a b"], "packages"),
    (["--oci", "a", "--ssh-key", "/missing"], "/missing"),
    (["-o", "disk", "--size", "x"], "--size"), (["-o", "/missing/disk"], "/missing")])
def test_bad_options_are_refused_before_anything_is_fetched(store, tmp_path, options, word):
    assert word in store.fails("build", *options, "debian", cwd=tmp_path)
    assert set(os.listdir(tmp_path)) <= {"store"}


def test_only_debian_is_built(store):
    assert "debian" in store.fails("build", "--oci", "a", "plan9")


@pytest.mark.long
def test_a_debian_image_has_the_user_and_the_name_asked_for(store):
    store("build", "--oci", "debian:12", "--user", "joe", "--password", "a 'b\" $c", "--hostname",
          "box", "debian", timeout=1200)
    root, = store.layer_directories("debian:12")
    assert "joe:x:1000" in open(f"{root}/etc/passwd").read()
    assert open(f"{root}/etc/hostname").read() == "box\n"
    assert json.loads(store("inspect", "debian:12"))["image"]["config"]["Cmd"] == ["/bin/bash"]
    assert store.is_clean()


@pytest.mark.long
def test_a_debian_disk_is_a_clean_filesystem_with_its_kernel(store, tmp_path):
    store("build", "-o", tmp_path / "debian.qcow2", "--size", "2G", "debian", timeout=1200)
    subprocess.run([store.lodge, "disk", "check", tmp_path / "debian.qcow2"], check=True)
    subprocess.run([store.lodge, "disk", "convert", "-O", "raw", tmp_path / "debian.qcow2",
                    tmp_path / "raw"], check=True)
    subprocess.run(["e2fsck", "-fn", tmp_path / "raw"], check=True)
    assert os.path.getsize(tmp_path / "debian.qcow2.vmlinuz") > 1 << 20
    assert os.path.getsize(tmp_path / "debian.qcow2.initrd") > 1 << 20
