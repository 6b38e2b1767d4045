"""What container guests may do, and the options that say otherwise, which are podman's."""
import json
import os
import subprocess

import pytest

from system.test_guest import box, busybox, host  # noqa: F401 (fixtures)

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="containers of images need root")

PODMAN_PROFILE = "/usr/share/containers/seccomp.json"
TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def out(box, *arguments):
    result = box.run(*arguments)
    assert result.returncode == 0, result.stderr
    return result.stdout


def status(box, *options):
    """The command's /proc/self/status."""
    text = out(box, *options, "box:1", "cat", "/proc/self/status")
    return dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)


def bits(*numbers):
    return sum(1 << n for n in numbers)


DEFAULT = bits(0, 1, 3, 4, 5, 6, 7, 8, 10, 18, 31)


def test_a_guest_has_podmans_capabilities_and_a_filter(box):
    found = status(box)
    assert found["Seccomp"] == "2" and found["NoNewPrivs"] == "0"
    assert [int(found["Cap" + kind], 16) for kind in ("Bnd", "Eff", "Prm", "Inh", "Amb")] == [
        DEFAULT, DEFAULT, DEFAULT, 0, 0
    ]


def test_what_joins_a_guest_is_confined_as_it_is(box):
    name = box.detach("--cap-drop", "chown", "box:1", "sleep", "100")
    found = box("exec", name, "/bin/busybox", "grep", "-E", "^(Seccomp|CapBnd):",
                "/proc/self/status").split()
    assert found == ["CapBnd:", f"{DEFAULT & ~bits(0):016x}", "Seccomp:", "2"]


def test_capabilities_are_added_and_dropped_by_name(box):
    def bounding(*options):
        return int(status(box, *options)["CapBnd"], 16)

    assert bounding("--cap-drop", "all") == 0
    assert bounding("--cap-drop", "ALL", "--cap-add", "net_raw") == bits(13)
    assert bounding("--cap-add", "CAP_NET_RAW", "--cap-drop", "chown") == (
        DEFAULT & ~bits(0) | bits(13)
    )
    assert bounding("--cap-add", "all", "--cap-drop", "sys_admin") & bits(21) == 0
    # What a user is given by name can be used without being root.
    found = status(box, "--user", "joe", "--cap-add", "net_raw")
    assert int(found["CapEff"], 16) == bits(13) and int(found["CapBnd"], 16) == DEFAULT | bits(13)


def test_calls_are_refused_unless_the_filter_is_taken_off(box):
    mount = ("sh", "-c", "/bin/busybox mount -t tmpfs none /tmp 2>&1; true")
    denied = out(box, "box:1", *mount)
    assert "denied" in denied or "not permitted" in denied
    swapon = ("sh", "-c", "/bin/busybox swapoff /none 2>&1; true")
    assert "not permitted" in out(box, "--cap-add", "sys_admin", "box:1", *swapon)
    assert "No such file" in out(
        box, "--cap-add", "sys_admin", "--security-opt", "seccomp=unconfined", "box:1", *swapon
    )
    assert status(box, "--security-opt", "seccomp=unconfined")["Seccomp"] == "0"
    assert status(box, "--security-opt", "no-new-privileges")["NoNewPrivs"] == "1"


def test_a_profile_from_a_file_takes_the_place_of_the_built_in_one(box, tmp_path):
    profile = tmp_path / "profile.json"
    profile.write_text(json.dumps({
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [
            {"name": "mkdir", "action": "SCMP_ACT_ERRNO", "args": None},
            {"names": ["rmdir"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28,
             "excludes": {"caps": ["CAP_CHOWN"]}},
        ],
    }))
    script = ("sh", "-c", "cd /tmp; mkdir x 2>&1; /bin/busybox rmdir nothing 2>&1; true")
    option = f"seccomp={profile}"
    text = out(box, "--security-opt", option, "box:1", *script)
    assert "not permitted" in text and "No such file" in text
    text = out(box, "--security-opt", option, "--cap-drop", "chown", "box:1", *script)
    assert "No space" in text
    profile.write_text("{")
    assert "profile" in box.fails("run", "--store", box.store.path, "--security-opt", option,
                                  "box:1")


@pytest.mark.skipif(not os.path.exists(PODMAN_PROFILE), reason="podman's profile is not installed")
def test_podmans_profile_works_and_the_built_in_one_allows_what_it_allows(box):
    assert status(box, "--security-opt", f"seccomp={PODMAN_PROFILE}")["Seccomp"] == "2"

    def allowed(path):
        with open(path) as file:
            rows = json.load(file)["syscalls"]
        return {
            name for row in rows for name in row["names"]
            if row["action"] == "SCMP_ACT_ALLOW" and not row.get("includes", {}).get("caps")
            and "amd64" in row.get("includes", {}).get("arches", ["amd64"])
        }

    ours = allowed(os.path.join(TOP, "src/guest/seccomp.json"))
    # setns is for those who may administer, as is its kind; "syscall" is no call of this machine.
    assert allowed(PODMAN_PROFILE) - ours == {"setns", "syscall"}


def test_paths_of_the_kernel_are_masked_and_fixed_unless_unmasked(box):
    script = ("sh", "-c", "cat /proc/keys | head -c 1; ls /sys/firmware;"
              "(echo x > /proc/sys/vm/swappiness) 2>/dev/null || echo fixed")
    assert out(box, "box:1", *script) == "fixed\n"
    text = out(box, "--security-opt", "unmask=ALL", "box:1", "cat", "/proc/keys")
    assert text


def test_a_read_only_root_leaves_room_for_what_passes(box):
    script = ("sh", "-c", "touch /x 2>/dev/null || echo fixed; touch /tmp/x /run/x && echo room")
    assert out(box, "--read-only", "box:1", *script) == "fixed\nroom\n"


def test_a_tmpfs_is_empty_or_begins_with_what_was_there(box):
    text = out(box, "--tmpfs", "/etc:size=64k", "--tmpfs", "/new", "box:1", "sh", "-c",
               "grep -c joe /etc/passwd; grep -o ' /new [a-z,]*' /proc/self/mountinfo")
    assert text.startswith("1\n") and "noexec" in text
    assert "tmpfs" in box.fails("run", "--store", box.store.path, "--tmpfs", "etc", "box:1")


def test_a_device_is_there_with_its_access(box):
    text = out(box, "--device", "/dev/zero:/dev/mine:r", "box:1", "sh", "-c",
               "head -c 2 /dev/mine | /bin/busybox wc -c; test -c /dev/mine && echo device")
    assert text == "2\ndevice\n"
    fails = box.fails("run", "--store", box.store.path, "--device", "/etc/passwd", "box:1")
    assert "no device" in fails


def test_limits_of_processes_are_set(box):
    text = out(box, "--ulimit", "nofile=77:88", "--ulimit", "core=0", "box:1", "sh", "-c",
               "ulimit -Sn; ulimit -Hn; ulimit -c")
    assert text == "77\n88\n0\n"
    name = box.detach("--pids-limit", "33", "box:1", "sleep", "100")
    found = subprocess.run(["find", "/sys/fs/cgroup", "-path", f"*/lodge/{name}/pids.max"],
                           capture_output=True, text=True).stdout.split()
    assert [open(path).read() for path in found] == ["33\n"]


def test_a_privileged_guest_is_held_back_by_nothing(box):
    found = status(box, "--privileged")
    with open("/proc/self/status") as file:
        own = dict(line.split(":\t") for line in file)["CapBnd"].strip()
    assert found["Seccomp"] == "0" and found["CapEff"] == own
    script = ("sh", "-c", "/bin/busybox mount -t tmpfs none /tmp && ls /dev | /bin/busybox wc -l;"
              "(echo 1 > /proc/sys/net/ipv4/ip_forward) && echo written")
    lines = out(box, "--privileged", "box:1", *script).split()
    assert int(lines[0]) > 15 and lines[1] == "written"


def test_an_entry_point_takes_the_place_of_the_images_own(host, tmp_path):  # noqa: F811
    host.load(tmp_path, busybox(), Entrypoint=["/bin/echo", "image"], Cmd=["command"])
    assert out(host, "box:1") == "image command\n"
    assert out(host, "--entrypoint", "/bin/echo", "box:1") == "\n"
    assert out(host, "--entrypoint", "/bin/echo", "box:1", "mine") == "mine\n"
    assert out(host, "--entrypoint", '["/bin/echo", "a b"]', "box:1", "c") == "a b c\n"
    assert out(host, "--entrypoint", "", "box:1", "/bin/echo", "bare") == "bare\n"
    assert "entry point" in host.fails("run", "--store", host.store.path, "--entrypoint", "[1]",
                                       "box:1")


def test_variables_come_from_files_and_options_override_them(box, tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_text("# a comment\n\nA=1\nB=x y\r\nHOSTVALUE\n")
    two.write_text("A=2")
    os.environ["HOSTVALUE"] = "host"
    text = out(box, "--env-file", one, "--env-file", two, "--env", "C=3", "box:1", "sh", "-c",
               "echo $A,$B,$C,$HOSTVALUE")
    assert text == "2,x y,3,host\n"
    assert "nothing" in box.fails("run", "--store", box.store.path, "--env-file",
                                  tmp_path / "nothing", "box:1")


@pytest.mark.parametrize("options,word", [
    (("--cap-add", "flying"), "flying"),
    (("--security-opt", "dance"), "dance"),
    (("--security-opt", "seccomp=/nothing"), "/nothing"),
    (("--ulimit", "nofile=5:3"), "nofile=5:3"),
    (("--ulimit", "nofile"), "nofile"),
    (("--pids-limit", "many"), "many"),
    (("--device", "/dev/null:x:y"), "/dev/null:x:y"),
])
def test_options_that_mean_nothing_are_refused(box, options, word):
    assert word in box.fails("run", "--store", box.store.path, *options, "box:1")
