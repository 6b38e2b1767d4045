"""Guests of images for users without privileges: one with subordinate ids, and one without."""
import os
import shutil
import subprocess
import tempfile
import time
import urllib.request

import pytest

import images
from system.test_guest import busybox
from system.test_oci_rootless import user_with_subordinate_ids

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="root becomes the users")

# A tun device that users may open, as udev makes it; and files of /etc, where the test has its own.
AS = """mknod -m 666 {directory}/tun c 10 200 && mount --bind {directory}/tun /dev/net/tun
for file in {directory}/etc/*; do test -e $file && mount --bind $file /etc/${{file##*/}}; done
exec setpriv --reuid {uid} --regid {gid} --clear-groups "$@\""""


class User:
    def __init__(self, lodge, uid, gid, single):
        self.uid, self.gid, self.single = uid, gid, single
        self.directory = tempfile.mkdtemp(prefix="lodge-test-")
        shutil.copy(lodge, self.directory + "/lodge")
        layers = [busybox(images.file("owned", b"x", uid=1000, gid=1001))]
        images.docker_archive(self.directory + "/image.tar", layers, ["box:1"])
        for name in ("", "/lodge", "/image.tar"):
            os.chown(self.directory + name, uid, gid)
        os.chmod(self.directory + "/lodge", 0o755)
        os.mkdir(self.directory + "/etc")
        os.mkdir(self.directory + "/run", 0o700)
        os.chown(self.directory + "/run", uid, gid)

    def make(self):
        """In namespaces of the test, a user with subordinate ids."""
        for name, line in (("passwd", f"lodge-test:x:{self.uid}:{self.gid}::/:/bin/sh"),
                           ("subuid", "lodge-test:300000:65536"),
                           ("subgid", "lodge-test:300000:65536")):
            before = open("/etc/passwd").read() if name == "passwd" else ""
            with open(f"{self.directory}/etc/{name}", "w") as out:
                out.write(before + line + "\n")
        return self

    def __call__(self, *arguments, **options):
        script = AS.format(directory=self.directory, uid=self.uid, gid=self.gid)
        if os.path.exists(self.directory + "/tun"):
            script = script.partition("&& ")[2]
        return subprocess.run(
            ["unshare", "-m", "sh", "-c", script, "sh", self.directory + "/lodge",
             *map(str, arguments)],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=600,
            cwd=self.directory,
            env={"HOME": self.directory, "XDG_RUNTIME_DIR": self.directory + "/run",
                 "PATH": os.environ["PATH"]}, **options,
        )

    def out(self, *arguments):
        result = self(*arguments)
        assert result.returncode == 0, result.stderr
        return result.stdout

    def run(self, *arguments):
        return self.out("run", "--rm", "--network", "none", *arguments)


@pytest.fixture(params=["single", "subordinate"])
def user(request, lodge):
    uid = gid = 65534
    if request.param == "subordinate":
        if not shutil.which("newuidmap"):
            pytest.skip("newuidmap is not installed")
        entry, _ = user_with_subordinate_ids()
        uid, gid = (entry.pw_uid, entry.pw_gid) if entry else (23456, 23456)
    user = User(lodge, uid, gid, request.param == "single")
    if request.param == "subordinate" and not entry:
        user.make()
    probe = subprocess.run(["unshare", "-Urm", "true"], user=uid, group=gid, extra_groups=[],
                           stderr=subprocess.DEVNULL)
    if probe.returncode:
        shutil.rmtree(user.directory)
        pytest.skip("users may not make user namespaces here")
    user.out("image", "load", "-i", user.directory + "/image.tar")
    yield user
    user("rm", "-f", "left")
    assert len(user.out("ls").splitlines()) == 1
    shutil.rmtree(user.directory)


def test_the_user_is_root_inside_and_files_keep_owners_where_ids_are_mapped(user):
    out = user.run("box:1", "sh", "-c", "id -u; ls -ln /owned; touch /x; cat /proc/self/uid_map")
    lines = out.splitlines()
    assert lines[0] == "0"
    owner = lines[1].split()[2:4]
    assert owner == (["0", "0"] if user.single else ["1000", "1001"])
    assert lines[2].split() == ["0", str(user.uid), "1"] and len(lines) == (3 if user.single else 4)


def test_layers_stack_and_what_is_written_is_the_guests_own(user):
    assert user.run("box:1", "sh", "-c", "rm /owned; mkdir -p /a; echo b > /a/b; ls /a") == "b\n"
    assert user.run("box:1", "sh", "-c", "ls /owned; ls /a 2>/dev/null; true") == "/owned\n"


def test_another_user_is_there_where_ids_are_mapped(user):
    result = user("run", "--rm", "--network", "none", "--user", "joe", "box:1", "id", "-u")
    if user.single:
        assert result.returncode == 1 and "process.user" in result.stderr
    else:
        assert result.stdout == "1000\n", result.stderr


def test_a_detached_guest_is_listed_joined_stopped_and_removed(user):
    user.out("run", "-d", "--name", "left", "--network", "none", "box:1", "sleep", "100")
    assert "running" in user.out("ls")
    result = user("exec", "left", "sh", "-c", "id -u; hostname; exit 4")
    assert (result.stdout, result.returncode) == ("0\nleft\n", 4), result.stderr
    assert "sleep 100" in user.out("ps", "left")
    user.out("cp", user.directory + "/image.tar", "left:/tmp/image")
    user.out("cp", "left:/tmp/image", user.directory + "/back")
    assert os.path.getsize(user.directory + "/back") == os.path.getsize(
        user.directory + "/image.tar")
    user.out("stop", "-t", "1", "left")
    assert "exited" in user.out("ls")
    user.out("cp", "left:/tmp/image", user.directory + "/again")
    assert os.path.getsize(user.directory + "/again") == os.path.getsize(
        user.directory + "/image.tar")
    user.out("rename", "left", "other")
    assert user.out("start", "other") == "other\n"
    user.out("rm", "-f", "other")


def test_an_anonymous_volume_and_an_init_are_there(user):
    assert user.run("--init", "-v", "/made", "box:1", "sh", "-c",
                    "touch /made/x; ls /made; echo $$") == "x\n2\n"
    assert len(user.out("volume", "ls").splitlines()) == 1


@pytest.mark.parametrize("isolation", ["container", "vm"])
def test_a_published_port_leads_into_it(user, cloud_kernel, isolation):
    has_pasta = shutil.which("pasta") and os.path.exists("/dev/net/tun")
    if isolation == "container" and not has_pasta:
        pytest.skip("there is no pasta, or no tun device")
    port = 18000 + os.getpid() % 1000
    user.out("run", "-d", "--isolation", isolation, "--name", "left", "-p",
             f"127.0.0.1:{port}:80", "box:1", "sh", "-c",
             "echo hello > /tmp/index.html; httpd -f -p 80 -h /tmp")
    for _ in range(600):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5) as answer:
                assert answer.read() == b"hello\n"
            break
        except OSError:
            time.sleep(0.1)
    else:
        raise AssertionError("nobody answers")
    user.out("rm", "-f", "left")


def test_a_volume_and_the_hosts_network_are_there(user):
    out = user.out("run", "--rm", "--network", "host", "-v", f"{user.directory}:/m:ro", "box:1",
                   "sh", "-c",
                   "ls /m/image.tar; touch /m/x 2>/dev/null || echo fixed; ls -d /sys/fs")
    assert out == "/m/image.tar\nfixed\n/sys/fs\n"


def test_limits_without_a_control_group_are_refused_clearly(user):
    result = user("run", "--rm", "--network", "none", "--memory", "64M", "box:1", "true")
    if result.returncode:
        assert "memory" in result.stderr and result.stderr.count("\n") == 1


def test_a_volume_is_shared_by_containers_and_virtual_machines(user, full_kernel):
    def run(*options):
        return user.run("-v", "data:/etc", *options)

    out = run("box:1", "sh", "-c", "ls /etc/passwd; echo 1 >/etc/one; chown 1000 /etc/one; exit 0")
    assert out == "/etc/passwd\n"
    owner = "0" if user.single else "1000"
    see = "ls -ln /etc/one | /bin/busybox awk '{print $3}'; cat /etc/one"
    out = run("--isolation", "vm", "box:1", "sh", "-c",
              see + "; touch /etc/two; chown 1000 /etc/two; exit 0")
    assert out == owner + "\n1\n"
    assert run("box:1", "sh", "-c", see.replace("one", "two")).split() == [owner]
    assert "data" in user.out("volume", "ls")
    user.out("volume", "rm", "data")


@pytest.mark.parametrize("isolation", ["container", "vm"])
def test_files_are_copied_in_and_out_with_the_ids_of_the_guest(user, cloud_kernel, isolation):
    user.out("run", "-d", "--isolation", isolation, "--network", "none", "--name", "left", "box:1",
             "sh", "-c", "sleep 600; true")
    user.out("cp", "image.tar", "left:/tmp/in")
    assert user.out("exec", "left", "ls", "-ln", "/tmp/in").split()[2] == "0"
    user.out("cp", "left:/tmp/in", "out")
    assert os.stat(user.directory + "/out").st_uid == user.uid
    assert open(user.directory + "/out", "rb").read() == open(user.directory + "/image.tar",
                                                              "rb").read()
    user.out("rm", "-f", "left")


@pytest.mark.parametrize("isolation", ["container", "vm"])
def test_a_command_has_its_streams_and_status_under_both_isolations(user, cloud_kernel, isolation):
    result = user("run", "--rm", "--network", "none", "--hostname", "h", "--isolation", isolation,
                  "-e", "A=b", "-w", "/tmp", "box:1", "sh", "-c",
                  "id -u; hostname; pwd; echo $A; touch x; ls; cat /etc/hosts; echo e >&2; exit 9")
    assert (result.stdout, result.stderr, result.returncode) == (
        "0\nh\n/tmp\nb\nx\n127.0.0.1 localhost\n::1 localhost\n127.0.1.1 h\n", "e\n", 9)
