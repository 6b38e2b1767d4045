"""The options of `lodge run IMAGE`, which are podman's, under both isolations."""
import http.client
import json
import os
import subprocess
import time
import urllib.request

import pexpect
import pytest

from images import file
from system.test_guest import (box, busybox, host, patient, start_vm,  # noqa: F401
                               terminal)

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="containers of images need root")

# One boot tries them all: what is printed is the same in a container.
OPTIONS = """--hostname here --read-only --tmpfs /mnt/t:size=1m,mode=700
--mount type=tmpfs,target=/mnt/u,tmpfs-size=2m --ulimit nofile=100:200 --shm-size 3m
--sysctl net.ipv4.ip_forward=1 --group-add 77 --group-add wheel --add-host other.host:192.0.2.9
--dns 192.0.2.53 --dns-search example.test -e A=b""".split()
SCRIPT = """id; ulimit -n; ulimit -Hn; cat /proc/sys/net/ipv4/ip_forward
cat /etc/hosts /etc/resolv.conf
for i in /dev/shm /mnt/t /mnt/u; do /bin/busybox df $i | tail -n 1 | /bin/busybox awk '{print $2}'
done; touch /x /tmp/x; ls /tmp; cat /tmp/kept; echo $A; cat /h/file /deep/one; touch /h/not"""
EXPECTED = """uid=0(root) gid=0(root) groups=0(root),10(wheel),77
100
200
1
127.0.0.1 localhost
::1 localhost
127.0.1.1 here
192.0.2.9 other.host
nameserver 192.0.2.53
search example.test
3072
1024
2048
kept
x
what the image has
b
seen
seen
"""


@pytest.mark.parametrize("isolation", ["container", "vm"])
def test_options_mean_the_same_under_both_isolations(patient, full_kernel, tmp_path, isolation):
    patient.load(tmp_path, busybox(file("tmp/kept", b"what the image has\n")))
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared" / "file").write_text("seen\n")
    result = patient.run("--isolation", isolation, *OPTIONS, "--mount",
                         f"type=bind,src={tmp_path}/shared,dst=/h,ro", "-v",
                         f"{tmp_path}/shared/file:/deep/one", "box:1", "sh", "-c", SCRIPT)
    assert result.stdout == EXPECTED
    assert sorted(line.rpartition(": ")[2] for line in result.stderr.splitlines()) == [
        "Read-only file system"] * 2


@pytest.mark.parametrize("options,word", [
    (["--mount", "type=bind,src=/etc"], "target"), (["--mount", "type=x,dst=/x"], "'x'"),
    (["--mount", "src=/etc,dst=/x"], "volume"), (["--mount", "type=bind,src=v,dst=/x"], "path"),
    (["--mount", "dst=/x,colour=red"], "colour"),
    (["--mount", "type=tmpfs,src=a,dst=/x"], "source"),
    (["--add-host", "a"], "NAME:ADDRESS"), (["--add-host", "a:b"], "NAME:ADDRESS"),
    (["--dns", "x"], "address"), (["--dns-search", "a b"], "domain"), (["--label", "=x"], "name"),
    (["--sysctl", "a"], "NAME=VALUE"), (["--sysctl", "a/../b=1"], "NAME=VALUE"),
    (["--group-add", "nobody-here"], "no group"), (["--stop-signal", "X"], "signal"),
    (["--restart", "often"], "often"), (["--restart", "on-failure:x"], "on-failure"),
    (["--restart", "always", "--rm"], "--rm"), (["--pid", "x"], "--pid"),
    (["--cpu-shares", "1"], "--cpu-shares"), (["--shm-size", "x"], "--shm-size"),
    (["--memory-swap", "1G"], "needs --memory"),
    (["-m", "64M", "--memory-swap", "32M"], "less than"),
    (["--cpus", "1", "--cpu-quota", "10000"], "--cpu-quota"),
    (["--oom-score-adj", "2000"], "1000"), (["--memory-swappiness", "-1"], "0 to 100"),
    (["--umask", "9"], "octal"), (["--stop-timeout", "x"], "--stop-timeout"),
    (["--volumes-from", "nobody-of-this-name"], "no guest"),
    (["-P", "--expose", "x"], "--expose"), (["--pull", "often"], "newer"),
    (["--cidfile", "/no/such/file"], "--cidfile"), (["--label-file", "/no/such/file"], "/no/such"),
    (["--isolation", "vm", "-m", "64M", "--memory-swap", "1G"], "--memory-swap"),
    (["--isolation", "vm", "--oom-score-adj", "1"], "--oom-score-adj"),
    (["--isolation", "vm", "--pid", "host"], "--pid"),
    (["--isolation", "vm", "--cap-drop", "all"], "--cap-drop"),
    (["--isolation", "vm", "--cpuset-cpus", "0"], "--cpuset-cpus"),
    (["--isolation", "vm", "--security-opt", "seccomp=unconfined"], "--security-opt")])
def test_bad_options_are_refused_in_one_line(box, options, word):
    name = box.name()
    assert word in box.fails("run", "--store", box.store.path, "--name", name, *options, "box:1",
                             "true")
    assert not os.path.exists(f"/var/lib/lodge/guests/{name}")


@pytest.mark.parametrize("isolation", ["container", "vm"])
def test_the_environment_is_what_options_leave_of_it(patient, tmp_path, isolation):
    patient.load(tmp_path, busybox(), Env=["GONE=1", "KEPT=2"])
    (tmp_path / "labels").write_text("# nothing\nsize=large\n\ncolour=red\n")
    script = "umask; /bin/busybox env; cat /etc/resolv.conf; ls /etc"
    result = patient.run("--isolation", isolation, "--umask", "027", "--env-host", "--unsetenv",
                         "GONE", "--no-hosts", "--dns-option", "ndots:3", "--dns-option",
                         "rotate", "-e", "HOST=mine", "box:1", "sh", "-c", script,
                         env={"PATH": os.environ["PATH"], "HOST": "its", "OF_HOST": "3"})
    lines = result.stdout.splitlines()
    assert lines[0] == "0027" and {"KEPT=2", "OF_HOST=3", "HOST=mine"} <= set(lines)
    assert not [line for line in lines if line.startswith("GONE")] and "hosts" not in lines
    assert "options ndots:3 rotate" in lines
    result = patient.run("--isolation", isolation, "--unsetenv-all", "-e", "A=b", "box:1",
                         "/bin/busybox", "env")
    assert sorted(result.stdout.splitlines()) == ["A=b", "HOME=/root"]


def test_labels_come_from_files_and_the_name_goes_to_one(box, tmp_path):
    (tmp_path / "labels").write_text("# nothing\nsize=large\n\ncolour=red\n")
    name = box.detach("--label-file", tmp_path / "labels", "--label", "colour=blue", "--cidfile",
                      tmp_path / "name", "--annotation", "x=y", "--stop-timeout", "0", "box:1",
                      "sh", "-c", "trap '' TERM; sleep 600")
    assert box.inspect(name)["labels"] == {"size": "large", "colour": "blue"}
    assert (tmp_path / "name").read_text() == name
    config = json.load(open(f"/var/lib/lodge/guests/{name}/config.json"))
    assert config["annotations"] == {"size": "large", "colour": "blue", "x": "y"}
    start = time.monotonic()
    box("stop", name)
    assert time.monotonic() - start < 8
    other = box.name()
    box.fails("run", "--store", box.store.path, "--name", other, "--cidfile", tmp_path / "name",
              "box:1", "true")
    assert not os.path.exists(f"/var/lib/lodge/guests/{other}")


def group_values(name, *files):
    for file_name in files:
        found = subprocess.run(["find", "/sys/fs/cgroup", "-path", f"*/lodge/{name}/{file_name}"],
                               stdout=subprocess.PIPE, text=True).stdout.split()
        yield open(found[0]).read().strip() if found else None


def test_limits_of_memory_swap_and_processors_are_those_of_podman(box):
    name = box.detach("-m", "64M", "--memory-swap", "96M", "--memory-reservation", "32M",
                      "--oom-score-adj", "77", "--cpu-quota", "20000", "--cpu-period", "50000",
                      "box:1", "sleep", "600")
    assert box("exec", name, "cat", "/proc/1/oom_score_adj") == "77\n"
    v1, v2, swap = group_values(name, "memory.memsw.limit_in_bytes", "memory.swap.max",
                                "memory.soft_limit_in_bytes")
    assert v1 == str(96 << 20) or v2 == str(32 << 20)
    assert not v1 or swap == str(32 << 20)
    quota, maximum = group_values(name, "cpu.cfs_quota_us", "cpu.max")
    assert quota == "20000" or maximum == "20000 50000"
    name = box.detach("-m", "64M", "--memory-swap", "-1", "box:1", "sleep", "600")
    v1, v2 = group_values(name, "memory.memsw.limit_in_bytes", "memory.swap.max")
    assert (v1 and int(v1) > 1 << 60) or v2 == "max"


@pytest.mark.parametrize("isolation", ["container", "vm"])
def test_volumes_are_had_from_another_guest(patient, full_kernel, tmp_path, isolation):
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared" / "file").write_text("seen\n")
    first = patient.detach("-v", f"{tmp_path}/shared:/data", "-v", "/own", "box:1", "sh", "-c",
                           "echo mine >/own/file; sleep 600")
    result = patient.run("--isolation", isolation, "--volumes-from", f"{first}:ro", "box:1", "sh",
                         "-c", "cat /data/file /own/file; touch /data/not")
    assert result.stdout == "seen\nmine\n" and "Read-only" in result.stderr
    assert os.listdir(tmp_path / "shared") == ["file"]
    assert patient("exec", first, "cat", "/own/file") == "mine\n"  # it is still the first's


def test_namespaces_and_cpus_of_the_host_are_shared_when_asked_for(box):
    def link(kind, *options):
        return box.run(*options, "box:1", "/bin/busybox", "readlink",
                       f"/proc/self/ns/{kind}").stdout.strip()

    for kind in ("pid", "ipc", "uts"):
        own = os.readlink(f"/proc/self/ns/{kind}")
        assert link(kind) != own and link(kind, f"--{kind}", "host") == own
    allowed = box.run("--cpuset-cpus", "0", "box:1", "/bin/busybox", "grep", "Cpus_allowed_list",
                      "/proc/self/status")
    assert allowed.stdout.split()[-1] == "0"


def test_the_last_lines_of_a_log_are_told(box):
    script = "for i in $(/bin/busybox seq 2000); do echo line $i; done; printf x"
    name = box.detach("box:1", "sh", "-c", script)
    box.wait(name)

    def tail(*words):
        return box("logs", *words, name).splitlines()

    assert len(tail()) == 2001 and tail("--tail", "all") == tail() and tail("-n", "0") == []
    assert tail("-n", "1") == ["x"] and tail("--tail", "2") == ["line 2000", "x"]
    assert tail("--tail", "1500") == tail()[-1500:] and len(tail("--tail", "9999")) == 2001
    assert tail("-f", "-n", "1") == ["x"]
    assert "--tail" in box.fails("logs", "--tail", "few", name)


def test_names_alone_are_listed(box):
    name = box.detach("box:1", "sleep", "600")
    assert name in box("ls", "-q").splitlines() and name in box("ls", "-aq").splitlines()
    assert not box("stats", "--no-stream", name).count("PID")


def test_labels_and_ports_are_told(box):
    name = box.detach("-l", "a=b", "--label", "c", "-p", "18474:80", "-p",
                      "127.0.0.2:18475:53/udp", "box:1", "sleep", "100")
    assert box.inspect(name)["labels"] == {"a": "b", "c": ""}
    assert box("port", name) == "80/tcp -> 127.0.0.1:18474\n53/udp -> 127.0.0.2:18475\n"


def test_a_signal_in_place_of_the_image_s_stops_a_guest(box):
    name = box.detach("--stop-signal", "USR2", "box:1", "sh", "-c",
                      "trap 'exit 4' USR2; echo up; while true; do sleep 0.05; done")
    while "up" not in box("logs", name):
        time.sleep(0.05)
    box("stop", name)
    assert box.inspect(name)["exitStatus"] == 4


def test_a_guest_of_the_name_makes_room_when_told_to(box):
    name = box.detach("box:1", "sleep", "100")
    box("run", "-d", "--replace", "--store", box.store.path, "--name", name, "box:1", "sleep",
        "200")
    assert box.inspect(name)["command"] == ["sleep", "200"]


# --- Again and again ---

def runs(box, name):
    return box("logs", name).count("run")


def test_a_guest_that_fails_is_run_again_as_often_as_asked(box):
    name = box.detach("--restart", "on-failure:2", "box:1", "sh", "-c", "echo run; exit 3")
    assert box("wait", name) == "3\n"
    deadline = time.monotonic() + 30
    while runs(box, name) < 3 and time.monotonic() < deadline:
        time.sleep(0.1)
    time.sleep(0.5)
    assert runs(box, name) == 3 and box.inspect(name)["exitStatus"] == 3
    name = box.detach("--restart", "on-failure", "box:1", "sh", "-c", "echo run")
    assert box.wait(name)["exitStatus"] == 0 and runs(box, name) == 1


def test_stop_ends_a_guest_that_is_run_again_always(box):
    name = box.detach("--restart", "always", "box:1", "sh", "-c", "echo run; sleep 0.05")
    while runs(box, name) < 3:
        time.sleep(0.05)
    box("stop", name)
    count = runs(box, name)
    time.sleep(0.5)
    assert box.inspect(name)["status"] == "exited" and runs(box, name) == count
    box("start", "--store", box.store.path, name)
    while runs(box, name) < count + 2:
        time.sleep(0.05)
    box("rm", "-f", "--store", box.store.path, name)


# --- Verbs ---

def test_a_paused_guest_stands_still_until_it_goes_on(box):
    name = box.detach("box:1", "sh", "-c", "while true; do echo run; sleep 0.02; done")
    box("pause", name)
    count = runs(box, name)
    time.sleep(0.3)
    assert box.inspect(name)["status"] == "paused" and runs(box, name) == count
    assert "paused" in box.fails("exec", name, "true")
    assert "paused" in box.fails("pause", name)
    box("unpause", name)
    while runs(box, name) == count:
        time.sleep(0.02)
    assert "running" in box.fails("unpause", name)
    box("pause", name)
    box("stop", "-t", "0", name)
    assert box.wait(name)["exitStatus"] == 137


def test_restart_runs_a_guest_anew(box):
    name = box.detach("box:1", "sh", "-c", "echo run; sleep 100")
    box("restart", "-t", "0", "--store", box.store.path, name)
    while runs(box, name) < 2:
        time.sleep(0.02)
    assert box.inspect(name)["status"] == "running"


def test_wait_tells_the_exit_status_of_a_guest_that_removes_itself(box):
    name = box.name()
    box("run", "-d", "--rm", "--store", box.store.path, "--name", name, "box:1", "sh", "-c",
        "sleep 0.5; exit 7")
    assert box("wait", name) == "7\n"


def test_rm_by_force_agrees_with_a_guest_that_removes_itself(box):
    for _ in range(5):
        name = box.name()
        box("run", "-d", "--rm", "--store", box.store.path, "--name", name, "box:1", "sleep", "100")
        box("rm", "-f", "--store", box.store.path, name)
        assert name not in box("ls")


def test_prune_removes_what_has_ended_and_no_more(box):
    ended, running = box.detach("box:1", "true"), box.detach("box:1", "sleep", "100")
    box.wait(ended)
    assert ended in box("prune", "--store", box.store.path)
    assert box.inspect(running)["status"] == "running"
    box.fails("inspect", ended)


def test_what_a_killed_process_left_of_a_guest_is_in_nobodys_way(box):
    for way in ("prune", "run"):
        name = box.name()
        place = f"/var/lib/lodge/guests/{name}"
        os.makedirs(place + "/upper/file")  # it was killed before it wrote the record
        assert "no guest" in box.fails("rm", name)
        if way == "prune":
            box("prune", "--store", box.store.path)
            assert not os.path.exists(place)
        box("run", "-d", "--store", box.store.path, "--name", name, "box:1", "sleep", "100")
        assert box("exec", name, "ls", "/").split().count("file") == 0


# --- Attached ---

def say(child, line, answer):
    """A line for the guest's shell, again until it answers: what is typed too early is lost."""
    for _ in range(60):
        child.sendline(line)
        if child.expect([answer, pexpect.TIMEOUT], timeout=2) == 0:
            return
    raise AssertionError(f"{line} has no answer {answer}")


@pytest.mark.parametrize("isolation", ["container", "vm"])
def test_attach_has_the_guest_s_terminal_until_its_keys_or_its_end(patient, isolation):
    name = patient.name()
    subprocess.run([patient.lodge, "run", "-dit", "--store", patient.store.path, "--name", name,
                    "--isolation", isolation, "box:1", "sh"], check=True, timeout=600,
                   stdout=subprocess.DEVNULL)
    child = terminal(patient, "attach", name)
    say(child, "stty size", "31 99")
    child.setwinsize(20, 70)
    say(child, "stty size", "20 70")
    child.send("\x10\x11")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 0 and patient.inspect(name)["status"] == "running"
    child = terminal(patient, "attach", name)
    say(child, "echo $((6 * 7))", "42")
    child.sendline("exit 6")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 6


def test_a_virtual_machine_is_paused_and_waited_for(patient):
    name = start_vm(patient, "box:1", "sh", "-c",
                    "trap 'exit 5' TERM; echo up; while true; do sleep 0.05; done")
    patient("pause", name)
    assert patient.inspect(name)["status"] == "paused"
    assert "unpause" in patient.fails("cp", f"{name}:/etc/passwd", "/tmp")
    assert json.loads(patient("ls", "--json"))
    patient("unpause", name)
    assert patient("exec", name, "echo", "alive") == "alive\n"
    patient("kill", "-s", "TERM", name)
    assert patient("wait", name) == "5\n"


def test_a_guest_that_has_ended_gets_another_name(box):
    old = box.detach("box:1", "sh", "-c", "hostname; touch /mine")
    new, other = box.name(), box.name()
    box("wait", old)
    box("run", "--store", box.store.path, "--name", other, "box:1", "true")
    assert "already" in box.fails("rename", "--store", box.store.path, old, other)
    for name in ("../x", "", "a/b"):
        box.fails("rename", "--store", box.store.path, old, name)
    box("rename", "--store", box.store.path, old, new)
    assert "no guest" in box.fails("inspect", old)
    assert box.inspect(new)["name"] == new and box.inspect(new)["hostname"] == new
    box("image", "rm", "--store", box.store.path, "box:1")  # the guest holds its content
    assert box("start", "-a", "--store", box.store.path, new) == new + "\n"
    assert sorted(os.listdir(box.store.path + "/holds")) == sorted([new, other])


def test_a_virtual_machine_by_another_name_has_what_it_wrote(patient):
    name, new = patient.name(), patient.name()
    store = ("--store", patient.store.path)
    patient("run", *store, "--isolation", "vm", "--name", name, "box:1", "sh", "-c",
            "cat /kept; hostname >>/kept")
    patient("rename", *store, name, new)
    assert patient("start", "-a", *store, new) == name + "\n"
    assert "lodge start" in patient.fails("cp", *store, f"{new}:/kept", "/tmp")


def test_a_guest_that_runs_keeps_its_name(box):
    name, other = box.detach("box:1", "sleep", "100"), box.name()
    assert "stop" in box.fails("rename", "--store", box.store.path, name, other)
    assert box.inspect(name)["status"] == "running"


@pytest.mark.parametrize("isolation", ["container", "vm"])
def test_what_the_image_exposes_is_published_by_free_ports(patient, tmp_path, isolation):
    patient.load(tmp_path, busybox(file("index.html", b"page\n")),
                 ExposedPorts={"80/tcp": {}, "53/udp": {}, "8000-8001": {}, "9/tcp": {}})
    name = patient.detach("--isolation", isolation, "-P", "-p", "127.0.0.2:18476:9", "-p", "7",
                          "box:1", "httpd", "-f", "-h", "/")
    lines = [line.split(" -> ") for line in patient("port", name).splitlines()]
    ports = dict(lines)
    assert sorted(ports) == ["53/udp", "7/tcp", "80/tcp", "8000/tcp", "8001/tcp", "9/tcp"]
    assert ports["9/tcp"] == "127.0.0.2:18476" and len(set(ports.values())) == len(lines)
    for _ in range(100):
        try:
            with urllib.request.urlopen(f"http://{ports['80/tcp']}/", timeout=5) as page:
                assert page.read() == b"page\n"
                break
        except (OSError, http.client.HTTPException):
            time.sleep(0.2)
    else:
        raise AssertionError("nothing answers")
    patient("stop", "-t", "0", name)
    patient("start", "--store", patient.store.path, name)
    assert dict(line.split(" -> ") for line in patient("port", name).splitlines()) == ports


@pytest.mark.parametrize("port", ["80/sctp", "0", "1-65535/tcp", "x", "80:81", "70000", ""])
def test_a_hostile_port_of_an_image_is_refused(patient, tmp_path, port):
    patient.load(tmp_path, busybox(), ExposedPorts={port: {}})
    result = patient.run("-P", "box:1", "true")
    assert result.returncode in (1, 2) and result.stderr.count("\n") == 1, result
    assert patient.run("box:1", "true").returncode == 0


@pytest.mark.parametrize("command,status,words", [
    ("no-such-command", 127, "No such file"), ("/no/such", 127, "No such file"),
    ("/etc/passwd", 126, "Permission denied"), ("/etc", 126, "Permission denied")])
@pytest.mark.parametrize("isolation", ["container", "vm"])
def test_an_init_ends_as_shells_do_when_it_cannot_run_the_command(patient, isolation, command,
                                                                  status, words):
    result = patient.run("--isolation", isolation, "--init", "box:1", command)
    assert result.returncode == status and result.stdout == ""
    assert result.stderr == f"lodge-init: cannot run {command}: {words}" + (
        " or directory\n" if status == 127 else "\n")


@pytest.mark.parametrize("isolation", ["container", "vm"])
def test_an_init_reaps_orphans_and_passes_signals_and_the_status_on(patient, isolation):
    def run(script, *options):
        return patient.run("--isolation", isolation, "--init", *options, "box:1", "sh", "-c",
                           script)

    # The orphan has ended long before it is looked for, and nobody but the first process reaps it.
    result = run("echo $$; (sh -c 'sleep 0.1; echo $$ >/tmp/pid' &); sleep 1;"
                 "test -e /proc/$(cat /tmp/pid) || echo gone; kill -9 $$", "--user", "joe")
    assert result.stdout.splitlines() == ["2", "gone"] and result.returncode == 137, result
    name = patient.detach("--isolation", isolation, "--init", "--stop-signal", "USR1", "box:1",
                          "sh", "-c", "trap 'exit 7' USR1; echo up; while :; do sleep 0.1; done")
    for _ in range(200):
        if patient("logs", name) == "up\n":
            break
        time.sleep(0.1)
    patient("stop", name)
    assert patient.inspect(name)["exitStatus"] == 7
    assert run("x", "--entrypoint", "/missing").returncode != 0
