"""`lodge cp`: the same under both isolations, in both directions."""
import os
import stat
import subprocess
import time

import pytest

from system.test_guest import box, host, patient, start_vm  # noqa: F401

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="containers of images need root")


def start(box, isolation, *arguments):
    """A guest of the image, whose first command has been run so far that it sleeps."""
    name = start_vm(box, *arguments) if isolation == "vm" else box.detach(*arguments)
    for _ in range(600):
        if any(line.endswith("  sleep 600") for line in box("ps", name).splitlines()):
            return name
        time.sleep(0.1)
    raise AssertionError(box("ps", name))


@pytest.mark.parametrize("isolation", ["container", "vm"])
def test_files_are_copied_into_a_guest_and_out_of_it(patient, full_kernel, tmp_path, isolation):
    box = patient
    (tmp_path / "tree" / "below").mkdir(parents=True)
    (tmp_path / "tree" / "below" / "one").write_text("1\n")
    (tmp_path / "tree" / "link").symlink_to("/etc/shadow")
    os.chown(tmp_path / "tree" / "below" / "one", 1000, 1001)
    os.chmod(tmp_path / "tree" / "below" / "one", 0o640)
    (tmp_path / "host").write_text("host\n")
    name = start(box, isolation, "-v", f"{tmp_path}:/volume", "box:1", "sh", "-c",
                 "echo old >/tmp/file; ln -s / /up; ln -s /etc/passwd /tmp/who; sleep 600")
    box("cp", tmp_path / "tree", f"{name}:/tmp")
    assert box("exec", name, "sh", "-c", "ls -ln /tmp/tree/below/one; cat /tmp/tree/below/one"
               ).split()[:4] == ["-rw-r-----", "1", "1000", "1001"]
    box("cp", tmp_path / "host", f"{name}:tmp/file")
    assert box("exec", name, "cat", "/tmp/file") == "host\n"
    box("cp", f"{name}:/tmp/tree/", tmp_path / "copy")
    assert (tmp_path / "copy" / "below" / "one").read_text() == "1\n"
    assert os.readlink(tmp_path / "copy" / "link") == "/etc/shadow"
    assert os.stat(tmp_path / "copy" / "below" / "one").st_uid == 1000
    box("cp", f"{name}:/volume/host", tmp_path / "back")  # what is mounted there is seen
    assert (tmp_path / "back").read_text() == "host\n"
    # Links are those of the container's root.
    box("cp", f"{name}:/up/etc/passwd", tmp_path / "passwd")
    assert "joe" in (tmp_path / "passwd").read_text()
    box("cp", tmp_path / "host", f"{name}:/up/up/etc/made")
    assert not os.path.exists("/etc/made") and box("exec", name, "cat", "/etc/made") == "host\n"
    box("cp", f"{name}:/tmp/who", tmp_path / "who")
    assert os.readlink(tmp_path / "who") == "/etc/passwd"


@pytest.mark.parametrize("isolation", ["container", "vm"])
def test_what_cannot_be_copied_is_refused_and_leaves_nothing(patient, tmp_path, isolation):
    box = patient
    (tmp_path / "tree").mkdir()
    (tmp_path / "file").write_text("1")
    name = start(box, isolation, "box:1", "sh", "-c", "mkdir -p /tmp/x/tree/full; sleep 600")
    for arguments in [(tmp_path / "missing", f"{name}:/tmp"), (f"{name}:/missing", tmp_path),
                      (f"{name}:/", tmp_path), (f"{name}:/tmp/..", tmp_path),
                      (tmp_path / "tree", f"{name}:/tmp/x"), (tmp_path / "file", f"{name}:/no/"),
                      (tmp_path / "file", f"{name}:/no/no"), (tmp_path, tmp_path),
                      (f"{name}:/tmp", f"{name}:/tmp"), ("no-such-guest:/tmp", tmp_path)]:
        box.fails("cp", *arguments)
    assert box("exec", name, "/bin/busybox", "find", "/tmp", "-name", ".lodge*") == ""
    assert sorted(os.listdir(tmp_path)) == ["file", "image.tar", "store", "tree"]


def test_files_are_copied_into_a_container_that_has_ended_and_out_of_it(box, tmp_path):
    (tmp_path / "shared").mkdir()
    (tmp_path / "file").write_text("host\n")
    store = ("--store", box.store.path)
    name = box.detach("-v", f"{tmp_path}/shared:/shared", "-v", f"{tmp_path}/shared:/fixed:ro",
                      "box:1", "sh", "-c",
                      "echo made >/made; ln -s / /up; cat /in /shared/in; sleep 100")
    for _ in range(100):
        if box("exec", name, "sh", "-c", "test -e /up && echo there; true"):
            break
        time.sleep(0.1)
    box("stop", "-t", "0", name)
    box("cp", *store, f"{name}:/made", tmp_path / "made")
    assert (tmp_path / "made").read_text() == "made\n"
    box("cp", *store, tmp_path / "file", f"{name}:/up/in")
    box("cp", *store, tmp_path / "file", f"{name}:/shared/in")
    assert os.listdir(tmp_path / "shared") == ["in"] and not os.path.exists("/in")
    assert "Read-only" in box.fails("cp", *store, tmp_path / "file", f"{name}:/fixed/no")
    box.fails("cp", *store, f"{name}:/missing", tmp_path)
    assert f"guests/{name}" not in open("/proc/self/mountinfo").read()
    assert box.inspect(name)["exitStatus"] == 137
    box("start", *store, name)
    for _ in range(100):
        if box("logs", name).endswith("host\nhost\n"):
            break
        time.sleep(0.1)
    else:
        raise AssertionError(box("logs", name))


@pytest.mark.parametrize("isolation", ["container", "vm"])
def test_large_and_odd_files_come_through_whole(patient, tmp_path, isolation):
    tree = tmp_path / "tree"
    tree.mkdir()
    content = os.urandom(3 << 20)
    (tree / "large").write_bytes(content)
    (tree / "empty").write_bytes(b"")
    (tree / "a name\nwith\tmuch in it").write_text("odd")
    os.mkfifo(tree / "fifo")
    os.setxattr(tree / "large", "user.note", b"kept")
    os.utime(tree / "large", (1, 1_000_000_000))
    deep = tree
    for _ in range(40):
        deep = deep / "d"
        deep.mkdir()
    name = start(patient, isolation, "box:1", "sleep", "600")
    patient("cp", tree, f"{name}:/tmp/there")
    patient("cp", f"{name}:/tmp/there", tmp_path / "back")
    back = tmp_path / "back"
    assert (back / "large").read_bytes() == content
    assert sorted(os.listdir(back)) == sorted(os.listdir(tree))
    assert stat.S_ISFIFO(os.stat(back / "fifo").st_mode)
    assert os.getxattr(back / "large", "user.note") == b"kept"
    assert os.stat(back / "large").st_mtime == 1_000_000_000
    assert os.path.isdir(back.joinpath(*["d"] * 40))


def test_what_a_virtual_machine_sends_gives_no_privileges_on_the_host(patient, tmp_path):
    name = start(patient, "vm", "box:1", "sh", "-c",
                 "mkdir /d /e; echo x >/d/tool; /bin/busybox chmod 6755 /d/tool; "
                 "/bin/busybox mknod /e/disk b 8 0; sleep 600")
    patient("cp", f"{name}:/d", tmp_path)
    assert stat.S_IMODE(os.stat(tmp_path / "d" / "tool").st_mode) == 0o755
    assert "device" in patient.fails("cp", f"{name}:/e", tmp_path)
    assert not os.path.exists(tmp_path / "e")
    assert not [n for n in os.listdir(tmp_path) if n.startswith(".lodge")]


def test_a_full_disk_ends_a_copy_and_leaves_nothing(patient, tmp_path):
    name = start(patient, "vm", "--tmpfs", "/small:size=1m", "box:1", "sh", "-c",
                 "/bin/busybox dd if=/dev/zero of=/large bs=1M count=8 2>/dev/null; sleep 600")
    mount = tmp_path / "small"
    mount.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", mount], check=True)
    try:
        assert "space" in patient.fails("cp", f"{name}:/large", mount)
        assert os.listdir(mount) == []
    finally:
        subprocess.run(["umount", mount], check=True)
    (tmp_path / "large").write_bytes(bytes(8 << 20))
    assert "space" in patient.fails("cp", tmp_path / "large", f"{name}:/small")
    assert patient("exec", name, "/bin/busybox", "find", "/small") == "/small\n"


def test_a_command_follows_one_whose_reader_went_away(patient):
    name = start(patient, "vm", "box:1", "sleep", "600")
    for _ in range(10):
        reader = subprocess.Popen([patient.lodge, "exec", name, "/bin/busybox", "yes"],
                                  stdout=subprocess.PIPE)
        assert reader.stdout.read(2) == b"y\n"
        reader.kill()
        reader.wait()
        reader.stdout.close()
        assert patient("exec", name, "echo", "here") == "here\n"


def test_a_virtual_machine_that_has_ended_is_to_be_started_first(patient, tmp_path):
    name = start(patient, "vm", "box:1", "sh", "-c", "trap 'exit 0' TERM; sleep 600 & wait")
    patient("stop", "-t", "0", name)
    assert "lodge start" in patient.fails("cp", "--store", patient.store.path, f"{name}:/etc",
                                          tmp_path)
