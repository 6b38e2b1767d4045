"""Guests: images that run as containers, and the verbs about them."""
import json
import os
import shutil
import signal
import socket
import subprocess
import time
import urllib.request

import pexpect
import pytest

import images
from images import Store, directory, file, layer

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="containers of images need root")

APPLETS = ("sh ls cat id sleep hostname touch httpd stty head env pwd kill test echo tail true "
           "nslookup wget nc ip").split()


def busybox(*more):
    with open("/bin/busybox", "rb") as program:
        data = program.read()
    return layer(directory("bin"), file("bin/busybox", data, mode=0o755),
                 *((f"bin/{name}", dict(type=images.LINK, linkname="busybox")) for name in APPLETS),
                 directory("etc"), directory("proc"), directory("sys"), directory("dev"),
                 directory("tmp", mode=0o1777),
                 file("etc/passwd", b"root:x:0:0::/root:/bin/sh\njoe:x:1000:1001::/:/bin/sh\n"),
                 file("etc/group", b"root:x:0:\njoe:x:1001:\nwheel:x:10:joe\n"), *more)


class Host:
    """lodge with a store of its own; guests made here are removed at the end."""

    def __init__(self, lodge, path):
        self.lodge, self.store, self.guests = lodge, Store(lodge, path / "store"), []
        self.count = 0

    def load(self, path, *layers, **settings):
        def change(documents):
            documents["config"]["config"] = settings
        archive = images.docker_archive(path / "image.tar", layers, ["box:1"], change)
        self.store("load", "-i", archive)

    def name(self):
        self.count += 1
        self.guests.append(f"test-{os.getpid()}-{self.count}")
        return self.guests[-1]

    def run(self, *arguments, **options):
        """lodge run OPTION... IMAGE COMMAND...; the guest removed at its end."""
        return subprocess.run([self.lodge, "run", "--rm", "--store", self.store.path,
                               "--name", self.name(), *map(str, arguments)],
                              capture_output=True, text=True, **{"timeout": 60, **options})

    def detach(self, *arguments):
        name = self.name()
        self("run", "-d", "--store", self.store.path, "--name", name, *arguments)
        return name

    def __call__(self, *arguments, **options):
        result = subprocess.run([self.lodge, *map(str, arguments)], capture_output=True, text=True,
                                timeout=60, **options)
        assert result.returncode == 0, result.stderr
        return result.stdout

    def fails(self, *arguments):
        result = subprocess.run([self.lodge, *map(str, arguments)], capture_output=True, text=True,
                                timeout=60)
        assert result.returncode in (1, 2) and result.stderr.count("\n") == 1, result
        return result.stderr

    def inspect(self, name):
        return json.loads(self("inspect", name))

    def wait(self, name, status="exited"):
        for _ in range(400):
            if self.inspect(name)["status"] == status:
                return self.inspect(name)
            time.sleep(0.05)
        raise AssertionError(f"{name} is not {status}: {self.inspect(name)}")


@pytest.fixture
def host(lodge, tmp_path):
    one = Host(lodge, tmp_path)
    yield one
    for name in one.guests:
        subprocess.run([lodge, "rm", "-f", "--store", one.store.path, name], timeout=60,
                       stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 10  # those that were told to end may be at it still
        while os.path.exists(f"/var/lib/lodge/guests/{name}") and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not os.path.exists(f"/var/lib/lodge/guests/{name}")
        assert name not in open("/proc/mounts").read()
        while (left := subprocess.run(["pgrep", "-f", f"guests/{name}/"]).returncode) == 0 and \
                time.monotonic() < deadline:
            time.sleep(0.1)
        assert left == 1


@pytest.fixture
def box(host, tmp_path):
    host.load(tmp_path, busybox(), Cmd=["/bin/sh"])
    return host


def test_output_input_and_exit_status_are_the_command_s(box):
    result = box.run("-i", "box:1", "sh", "-c", "cat; echo err >&2; exit 42", input="in")
    assert (result.stdout, result.stderr, result.returncode) == ("in", "err\n", 42)
    assert box.run("box:1", "sh", "-c", "sh -c 'kill -9 $$'; exit $?").returncode == 137
    assert box.run("box:1", "cat").stdout == ""
    result = box.run("box:1", "/missing")
    assert result.returncode == 1 and "/missing" in result.stderr


def test_the_image_says_how_it_runs_and_options_say_otherwise(host, tmp_path):
    host.load(tmp_path, busybox(), Entrypoint=["sh", "-c"], Cmd=["id; pwd; echo $A $B"],
              Env=["PATH=/bin", "A=1", "B=2"], User="joe", WorkingDir="/tmp")
    assert host.run("box:1").stdout.splitlines() == [
        "uid=1000(joe) gid=1001(joe) groups=10(wheel),1001(joe)", "/tmp", "1 2"]
    result = host.run("--user", "0:wheel", "-w", "/etc", "--env", "B=3", "--env", "C", "box:1",
                      "id; pwd; echo $A $B $C", env=dict(os.environ, C="4"))
    assert result.stdout.splitlines() == ["uid=0(root) gid=10(wheel) groups=10(wheel)", "/etc",
                                          "1 3 4"]


def test_the_root_is_the_guest_s_own_and_layers_stay_as_they_are(host, tmp_path):
    host.load(tmp_path, busybox(file("etc/gone", b"x")), layer(file("etc/.wh.gone"), file("new")))
    assert host.run("box:1", "sh", "-c", "ls /etc/gone /new; touch /etc/mine").stdout == "/new\n"
    assert host.run("box:1", "ls", "/etc/mine").returncode != 0
    assert host.store.is_clean()


def test_the_guest_has_its_name_its_processes_and_its_devices(box):
    result = box.run("--hostname", "here", "box:1", "sh", "-c",
                     "hostname; cat /etc/hostname; echo $$; head -c 3 /dev/zero; ls /dev")
    lines = result.stdout.splitlines()
    assert lines[:3] == ["here", "here", "1"] and "vda" not in lines and "kvm" not in lines


def test_volumes_show_the_host_s_directories(box, tmp_path):
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared" / "file").write_text("seen")
    result = box.run("-v", f"{tmp_path}/shared:/rw", "-v", "./shared:/ro:ro", "box:1", "sh", "-c",
                     "cat /ro/file; touch /rw/made; touch /ro/not", cwd=tmp_path)
    assert result.stdout == "seen" and "Read-only" in result.stderr
    assert os.listdir(tmp_path / "shared") in (["file", "made"], ["made", "file"])


def test_a_hog_is_killed_at_its_limit(box):
    result = box.run("--memory", "16M", "box:1", "sh", "-c", "head -c 64m /dev/zero | tail")
    assert result.returncode in (1, 137)
    assert box.run("--memory", "128M", "box:1", "sh", "-c",
                   "head -c 64m /dev/zero | tail -c 1").returncode == 0


def test_a_detached_guest_is_listed_joined_and_stopped(box):
    name = box.detach("-i", "--env", "A=1", "box:1", "sh", "-c",
                      "echo begun; read x; echo $x; read y")
    assert f"{name} " in box("ls") and box.inspect(name)["status"] == "running"
    assert "read x" in box("ps", name)
    assert "1 processes" in box("stats", name)
    result = subprocess.run([box.lodge, "exec", "-u", "joe", "-w", "/tmp", name, "sh", "-c",
                             "id -un; pwd; echo $A; exit 9"], capture_output=True, text=True)
    assert (result.stdout, result.returncode) == ("joe\n/tmp\n1\n", 9)
    attach = subprocess.Popen([box.lodge, "attach", name], stdin=subprocess.PIPE,
                              stdout=subprocess.PIPE, text=True)
    attach.stdin.write("word\n")
    attach.stdin.flush()
    assert attach.stdout.readline() == "word\n"
    assert box("logs", name) == "begun\nword\n"
    box("kill", "-s", "TERM", name)  # the first process ignores what it has no handler for
    assert box.inspect(name)["status"] == "running"
    attach.stdin.write("end\n")
    attach.stdin.flush()
    assert attach.wait(10) == 0
    assert box.wait(name)["exitStatus"] == 0
    box("rm", "--store", box.store.path, name)
    assert name not in box("ls")


def test_stop_kills_what_does_not_end_and_obeys_the_image_s_signal(host, tmp_path):
    host.load(tmp_path, busybox(), StopSignal="SIGUSR1")
    name = host.detach("box:1", "sh", "-c", "trap 'exit 5' USR1; while true; do sleep 0.05; done")
    time.sleep(0.3)
    host("stop", name)
    assert host.wait(name)["exitStatus"] == 5
    name = host.detach("box:1", "sleep", "100")
    host("stop", "--time", "0", name)
    assert host.wait(name)["exitStatus"] == 137


def test_a_guest_keeps_its_image_and_runs_until_it_is_removed(box):
    name = box.detach("box:1", "sleep", "100")
    assert "runs" in box.fails("rm", name)
    box.store("rm", "box:1")
    assert box("exec", name, "echo", "alive") == "alive\n"
    assert box.store.is_clean()
    box("rm", "-f", "--store", box.store.path, name)
    box.store("prune")
    assert os.listdir(f"{box.store.path}/layers/sha256") == []


def test_a_guest_outlives_the_process_that_waits_for_it(box):
    name = box.detach("box:1", "sh", "-c", "sleep 100")
    pid = box.inspect(name)["pid"]
    with open(f"/proc/{pid}/stat") as stat:
        os.kill(int(stat.read().rpartition(")")[2].split()[1]), signal.SIGKILL)
    time.sleep(0.1)
    assert box.inspect(name)["status"] == "running"
    assert box("exec", name, "echo", "alive") == "alive\n"
    box("stop", "--time", "0", name)
    assert box.inspect(name)["status"] == "exited"
    assert not os.path.exists(f"/proc/{pid}/root/bin")
    box("rm", "--store", box.store.path, name)


def test_a_name_is_given_once(box):
    name = box.detach("box:1", "sleep", "100")
    assert "already" in box.fails("run", "--store", box.store.path, "--name", name, "box:1", "true")
    assert box.inspect(name)["status"] == "running"


def test_a_terminal_has_the_caller_s_size_and_gets_its_signals(box):
    child = pexpect.spawn(box.lodge, ["run", "--rm", "-it", "--store", box.store.path, "--name",
                                      box.name(), "box:1", "sh"], dimensions=(31, 99),
                          encoding="utf-8", timeout=20)
    child.expect("# ")
    child.sendline("stty size; test -t 0 && echo is a tty")
    child.expect("31 99")
    child.expect("is a tty")
    child.setwinsize(20, 70)
    child.sendline("sleep 0.2; stty size")
    child.expect("20 70")
    child.sendline("exit 6")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 6


@pytest.mark.skipif(not shutil.which("pasta"), reason="passt is not installed")
def test_a_published_port_leads_into_the_guest(box):
    name = box.detach("-p", "127.0.0.1:18473:80", "box:1", "sh", "-c",
                      "echo served >/tmp/page; exec httpd -f -h /tmp")
    for _ in range(100):
        try:
            with urllib.request.urlopen("http://127.0.0.1:18473/page", timeout=5) as answer:
                assert answer.read() == b"served\n"
                break
        except OSError:
            time.sleep(0.05)
    else:
        raise AssertionError("nothing is served: " + box("logs", name))


def test_without_a_network_there_is_only_the_loopback(box):
    assert box.run("--network", "none", "box:1", "ls", "/sys/class/net").stdout == "lo\n"
    there = set(box.run("--network", "host", "box:1", "ls", "/sys/class/net").stdout.split())
    assert there == set(os.listdir("/sys/class/net"))


@pytest.mark.parametrize("options,word", [
    (["--user", "nobody-here"], "no user"), (["--user", "0:nogroup-here"], "no group"),
    (["--volume", "/missing:/x"], "/missing"), (["--volume", "-x:/x"], "volume"),
    (["--volume", "etc"], "SOURCE"),
    (["--volume", "/etc:relative"], "SOURCE"), (["--publish", "0:80"], "no port"),
    (["--publish", "x"], "no port"), (["--publish", "80:80:x"], "no IPv4"),
    (["--network", "bridge"], "network"), (["--memory", "1K"], "least"),
    (["--memory", "x"], "size"),
    (["--cpus", "0"], "cpus"), (["--cpus", "nan"], "cpus"), (["--env", "=x"], "name"),
    (["--isolation", "jail"], "isolation"),
    (["--network", "none", "--publish", "1:1"], "published"),
    (["--name", "../x"], "x"), (["--name", ""], "")])
def test_bad_options_are_refused_and_leave_no_guest(box, options, word):
    before = os.listdir("/var/lib/lodge/guests") if os.path.exists("/var/lib/lodge/guests") else []
    words = box.fails("run", "--store", box.store.path, *options, "box:1", "true")
    assert word in words
    assert os.listdir("/var/lib/lodge/guests") == before


@pytest.mark.parametrize("entries", [
    [("etc/passwd", dict(type=images.FIFO))], [("etc/passwd", dict(type=images.LINK,
                                                                   linkname="/../../etc/shadow"))],
    [file("etc/passwd", b"joe:x:99999999999:0\njoe\n:::\njoe:x:-1:1:")],
    [file("etc/passwd", b"\0" * 100)], [file("etc/passwd", bytes(2 << 20))]])
def test_a_hostile_passwd_only_lacks_the_user(host, tmp_path, entries):
    host.load(tmp_path, busybox(), layer(*entries))
    result = host.run("--user", "joe", "box:1", "true")
    assert result.returncode == 1 and "no user" in result.stderr
    result = host.run("--user", "1234", "box:1", "sh", "-c", "touch /tmp/x; ls -n /tmp/x")
    assert " 1234 " in result.stdout


def test_an_image_without_a_command_needs_one(host, tmp_path):
    host.load(tmp_path, busybox())
    result = host.run("box:1")
    assert result.returncode == 1 and "command" in result.stderr


# --- The same image as a virtual machine ---

def vm(host, *arguments, **options):
    return host.run("--isolation", "vm", *arguments, **options)


@pytest.fixture
def patient(box, cloud_kernel):
    """A virtual machine boots for seconds, on a busy host for minutes."""
    run = box.run
    box.run = lambda *arguments, **options: run(*arguments, timeout=600, **options)
    return box


def start_vm(host, *arguments):
    name = host.name()
    subprocess.run([host.lodge, "run", "-d", "--store", host.store.path, "--name", name,
                    "--isolation", "vm", *arguments],
                   check=True, timeout=600, stdout=subprocess.DEVNULL)
    return name


def fetch(port):
    """The page, once somebody listens."""
    deadline = time.monotonic() + 120
    while True:
        try:
            return urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=60).read()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


@pytest.fixture
def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


SERVER = ("trap 'echo bye; exit 7' TERM; mkdir -p /www; echo page >/www/index.html; echo x >>/kept;"
          "httpd -p 80 -h /www; echo up; while true; do sleep 0.1; done")


def test_a_virtual_machine_has_the_command_s_streams_and_status(patient):
    result = vm(patient, "-i", "--user", "joe", "--env", "A=b", "-w", "/tmp",
                "--hostname", "here", "box:1", "sh", "-c",
                "cat; id; hostname; pwd; echo $A $$; echo err >&2; exit 42", input="in" * 50000)
    assert result.stdout == "in" * 50000 + (
        "uid=1000(joe) gid=1001(joe) groups=10(wheel),1001(joe)\nhere\n/tmp\nb 1\n")
    assert (result.stderr, result.returncode) == ("err\n", 42)
    assert patient.store.is_clean()


def test_a_virtual_machine_serves_takes_commands_and_keeps_what_it_wrote(patient, free_port):
    name = start_vm(patient, "-p", f"{free_port}:80", "box:1", "sh", "-c", SERVER)
    assert fetch(free_port) == b"page\n"
    assert patient.inspect(name)["status"] == "running"
    result = subprocess.run([patient.lodge, "exec", "-i", "--user", "joe", "--env", "A=b", "-w",
                             "/tmp", name, "sh", "-c", "cat; id; pwd; echo $A; echo e >&2; exit 5"],
                            input="in", capture_output=True, text=True, timeout=600)
    assert result.stdout == "inuid=1000(joe) gid=1001(joe) groups=10(wheel),1001(joe)\n/tmp\nb\n"
    assert (result.stderr, result.returncode) == ("e\n", 5)
    assert "/missing" in patient.fails("exec", name, "/missing")
    assert "httpd -p 80" in patient("ps", name)
    assert json.loads(patient("stats", "--json", name))["cpu"]["usage"]["total"] > 0
    patient("stop", "--time", "60", name)
    assert patient.inspect(name)["exitStatus"] == 7
    assert patient("logs", name) == "up\nbye\n"
    patient("start", "--store", patient.store.path, name)
    while patient("logs", name).count("up") < 2:
        time.sleep(0.1)
    assert patient("exec", name, "cat", "/kept") == "x\nx\n"
    os.kill(patient.inspect(name)["pid"], signal.SIGKILL)
    patient.wait(name)
    assert "exited" in patient.fails("exec", name, "ls")


@pytest.mark.long
@pytest.mark.parametrize("command", [
    ["echo", "a b", "c"], ["sh", "-c", "exit 3"], ["ls", "/etc"], ["cat", "/etc/passwd"], ["id"],
    ["sh", "-c", "echo $HOME $PATH $HOSTNAME"], ["cat", "/missing"], ["pwd"],
    ["sh", "-c", "sh -c 'kill -9 $$'; exit $?"],
    ["sh", "-c", "head -c 300000 /dev/zero | tail -c 9"], ["cat", "/etc/hosts", "/etc/hostname"],
    ["sh", "-c", "echo $$; ls /proc | head -n 1"], ["/missing"]])
def test_a_command_does_the_same_under_both_isolations(patient, command):
    one = patient.run("--hostname", "h", "box:1", *command)
    other = vm(patient, "--hostname", "h", "box:1", *command)
    assert one.stdout == other.stdout
    assert one.stderr == other.stderr or command == ["/missing"] and "/missing" in other.stderr
    assert one.returncode == other.returncode


@pytest.fixture(scope="module")
def debian(lodge, tmp_path_factory):
    store = Store(lodge, tmp_path_factory.mktemp("debian"))
    store("build", "--oci", "debian:12", "--packages", "nginx-light", "debian", timeout=1800)
    return store


TEN_COMMANDS = [
    ["cat", "/etc/debian_version", "/etc/os-release"], ["sh", "-c", "exit 3"], ["id"],
    ["dpkg-query", "-W", "-f", "${Package} ${Version}\n"], ["cat", "/missing"],
    ["sh", "-c", "apt-get --version | head -n 1; echo $HOME $PATH $HOSTNAME"],
    ["bash", "-c", "kill -9 $$"], ["sh", "-c", "echo $$; ls /proc | head -n 1; hostname"],
    ["perl", "-e", "print 'x' x 100000, qq{\n}; warn qq{w\n}; exit 9"],
    ["bash", "-c", "seq 1000 | sort -r | sha256sum; su nobody -s /bin/sh -c id"],
]


@pytest.mark.long
def test_a_debian_does_the_same_under_both_isolations(lodge, debian):
    for command in TEN_COMMANDS:
        one, other = (subprocess.run(
            [lodge, "run", "--rm", "--store", debian.path, "--isolation", isolation, "--hostname",
             "h", "--network", "none", "debian:12", *command], capture_output=True, text=True,
            timeout=600) for isolation in ("container", "vm"))
        assert (one.stdout, one.stderr, one.returncode) == (
            other.stdout, other.stderr, other.returncode), command


@pytest.mark.long
@pytest.mark.parametrize("isolation", ["container", "vm"])
def test_a_debian_serves_pages_under_both_isolations(lodge, debian, isolation, free_port):
    name = f"test-{os.getpid()}-nginx"
    run = [lodge, "run", "--store", debian.path, "--isolation", isolation, "--name", name]
    try:
        subprocess.run([*run, "-d", "-p", f"{free_port}:80", "debian:12", "nginx", "-g",
                        "daemon off;"], check=True, timeout=600)
        assert b"Welcome to nginx" in fetch(free_port)
        result = subprocess.run([lodge, "exec", name, "sh", "-c", "dpkg -s nginx-light | head -2"],
                                capture_output=True, text=True, timeout=600)
        assert result.stdout == "Package: nginx-light\nStatus: install ok installed\n"
        subprocess.run([lodge, "stop", "--time", "60", name], check=True, timeout=600)
    finally:
        subprocess.run([lodge, "rm", "-f", "--store", debian.path, name], timeout=600)


@pytest.mark.long
def test_volumes_show_the_host_s_directories_to_virtual_machines(patient, full_kernel, tmp_path):
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared" / "file").write_text("seen")
    result = vm(patient, "-v", f"{tmp_path}/shared:/rw", "-v", f"{tmp_path}/shared:/ro:ro", "box:1",
                "sh", "-c", "cat /ro/file; touch /rw/made; touch /ro/not")
    assert result.stdout == "seen" and "Read-only" in result.stderr
    assert sorted(os.listdir(tmp_path / "shared")) == ["file", "made"]


@pytest.mark.long
def test_a_virtual_machine_that_is_killed_has_the_status_of_that(patient):
    name = start_vm(patient, "box:1", "sleep", "1000")
    patient("kill", name)
    assert patient.wait(name)["exitStatus"] == 137


def terminal(host, *arguments):
    return pexpect.spawn(host.lodge, list(arguments), dimensions=(31, 99), encoding="utf-8",
                         timeout=600)


def exercise(child):
    child.expect("# ")
    child.sendline("stty size")
    child.expect("31 99")
    child.setwinsize(20, 70)
    child.sendline("sleep 0.5; stty size")
    child.expect("20 70")
    child.sendline("exit 6")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 6


@pytest.mark.long
def test_a_virtual_machine_has_a_terminal(patient):
    exercise(terminal(patient, "run", "--rm", "-it", "--store", patient.store.path, "--name",
                      patient.name(), "--isolation", "vm", "box:1", "sh"))
    name = start_vm(patient, "box:1", "sleep", "1000")
    exercise(terminal(patient, "exec", "-it", name, "sh"))


@pytest.mark.parametrize("options,word", [
    (["--isolation", "vm", "--kernel", "/missing"], "/missing"),
    (["--kernel", "/etc/passwd"], "vm"),
    (["--isolation", "vm", "--kernel", "/etc/passwd"], "kernel"),
    (["--isolation", "vm", "--network", "host"], "host"),
    (["--isolation", "vm", "-p", "x"], "'x'"),
    (["--isolation", "vm", "--memory", "16M"], "--memory")])
def test_bad_options_of_virtual_machines_are_refused(box, options, word):
    name = box.name()
    words = box.fails("run", "--store", box.store.path, "--name", name, *options, "box:1", "true")
    assert word in words
    assert not os.path.exists(f"/var/lib/lodge/guests/{name}")
