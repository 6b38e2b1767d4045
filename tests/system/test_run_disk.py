"""lodge run NAME: a disk with its kernel beside it boots, wherever it is kept."""
import os
import shutil
import subprocess

import pytest

import machine
import virtio

SESSION = """
echo "== command line"
cat /proc/cmdline
echo "== disks"
for disk in vda vdb; do echo "$(cat /sys/block/$disk/serial)"; done
echo "== memory"
grep MemTotal /proc/meminfo
echo "== end"
"""


@pytest.fixture
def disk(lodge, cloud_kernel, tmp_path):
    """Its name in tmp_path: a disk as `lodge image build` leaves it, as far as a boot needs."""
    initrd = virtio.make_guest(str(tmp_path), cloud_kernel, ["blk"], SESSION)
    shutil.copy(cloud_kernel, tmp_path / "box.qcow2.vmlinuz")
    shutil.move(initrd, tmp_path / "box.qcow2.initrd")
    subprocess.run([lodge, "disk", "create", tmp_path / "box.qcow2", "64M"], check=True)
    return "box"


def boot(lodge, folder, operand, *options):
    r = subprocess.run([lodge, "run", "--append", "quiet panic=-1 session=/session/main", *options,
                        operand], cwd=folder, stdin=subprocess.DEVNULL, capture_output=True,
                       text=True, timeout=240)
    assert r.returncode == 0, r.stdout[-2000:] + r.stderr
    return r.stdout.replace("\r\n", "\n")


def test_a_disk_boots_by_its_name_in_the_folder(lodge, disk, tmp_path):
    subprocess.run([lodge, "disk", "create", tmp_path / "data.qcow2", "1M"], check=True)
    said = boot(lodge, tmp_path, disk, "--disk", "data.qcow2,serial=SECOND")
    assert "root=LABEL=root console=ttyS0" in virtio.section(said, "command line")
    assert virtio.section(said, "disks").split() == ["SECOND"]  # behind the disk itself
    assert int(virtio.section(said, "memory").split()[1]) > 900 << 10


def test_a_disk_boots_by_its_path_with_options_of_ones_own(lodge, disk, tmp_path):
    said = boot(lodge, "/", tmp_path / f"{disk}.qcow2", "--memory", "256M", "--network", "none")
    assert int(virtio.section(said, "memory").split()[1]) < 256 << 10


@pytest.mark.skipif(os.geteuid() != 0, reason="another user's folder is looked at as that user")
def test_a_users_disk_boots_by_its_name(lodge, disk, tmp_path):
    home = tmp_path / "home"
    (home / "lodge/disks").mkdir(parents=True)
    for path in tmp_path.glob("box*"):
        shutil.move(path, home / "lodge/disks")
    for path in [tmp_path, *tmp_path.parents, home, *home.rglob("*")]:
        if os.stat(path).st_uid == 0 and str(path).startswith(str(tmp_path.parents[1])):
            os.chmod(path, os.stat(path).st_mode | 0o755)
    for path in home.rglob("*"):
        shutil.chown(path, "nobody")
    said = subprocess.run(
        ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups", "env",
         f"XDG_DATA_HOME={home}", f"XDG_RUNTIME_DIR={home}", lodge, "run", "--append",
         "quiet panic=-1 session=/session/main", disk],
        cwd="/", stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=240)
    assert "== end" in said.stdout, said.stderr


def test_what_is_neither_disk_nor_image_is_told_in_a_line(lodge, tmp_path):
    r = machine.run(lodge, "--store", tmp_path / "store", "nosuchbox")
    assert r.status == 1
    assert "no image 'nosuchbox'" in r.errors and "names no registry" in r.errors
