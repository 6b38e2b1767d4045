"""Bundles of busybox, and a runtime whose containers are gone when a test ends."""
import copy
import json
import os
import shutil
import subprocess
import time
import uuid

import pytest

BUSYBOX = "/bin/busybox"
APPLETS = (
    "sh cat echo true false id mount ps sleep hostname env stat touch ls mkdir rm kill ulimit test "
    "dd head grep readlink mknod chmod ln date tty stty cut wc seq umask nice ip uname "
    "chroot mv pwd sync sed"
).split()
ALL_CAPABILITIES = (
    "CHOWN DAC_OVERRIDE FOWNER FSETID KILL SETGID SETUID SETPCAP NET_ADMIN SYS_ADMIN "
    "SYS_CHROOT MKNOD SYS_PTRACE"
).split()


class Result:
    def __init__(self, process):
        self.status, self.out, self.err = process.returncode, process.stdout, process.stderr

    @property
    def json(self):
        return json.loads(self.out)


def wait_for(condition, seconds=20):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.02)
    return False


def needs_root():
    if os.geteuid() != 0:
        pytest.skip("needs root")


def make_rootfs(path):
    os.makedirs(os.path.join(path, "bin"))
    for directory in ("etc", "proc", "dev", "sys", "tmp"):
        os.mkdir(os.path.join(path, directory))
    os.chmod(os.path.join(path, "tmp"), 0o1777)
    shutil.copy(BUSYBOX, os.path.join(path, "bin/busybox"))
    for applet in APPLETS:
        os.symlink("busybox", os.path.join(path, "bin", applet))
    return path


class Bundle:
    """A directory with a root and a configuration that a test changes."""

    def __init__(self, runtime, path, rootless=False):
        self.path, self.rootfs = path, os.path.join(path, "rootfs")
        os.makedirs(path)
        make_rootfs(self.rootfs)
        if runtime.identity:
            owner = "{user}:{group}".format(**runtime.identity)
            subprocess.run(["chown", "-R", owner, path], check=True)
        runtime.run("spec", "--bundle", path, *(["--rootless"] if rootless else []), check=True)
        with open(os.path.join(path, "config.json")) as file:
            self.config = json.load(file)
        self.config["process"]["terminal"] = False

    @property
    def process(self):
        return self.config["process"]

    @property
    def linux(self):
        return self.config["linux"]

    def args(self, *words):
        self.process["args"] = list(words)
        return self

    def shell(self, script):
        return self.args("sh", "-c", script)

    def privileged(self):
        names = ["CAP_" + name for name in ALL_CAPABILITIES]
        self.process["capabilities"] = {
            kind: names for kind in ("bounding", "effective", "permitted")
        }
        self.process["noNewPrivileges"] = False
        self.config["root"]["readonly"] = False
        return self

    def save(self):
        with open(os.path.join(self.path, "config.json"), "w") as file:
            json.dump(self.config, file)
        return self

    def changed(self, change):
        """A copy of the configuration with change applied, as text."""
        config = copy.deepcopy(self.config)
        change(config)
        return json.dumps(config)


class Runtime:
    def __init__(self, command, directory):
        self.command = [*command, "--root", os.path.join(directory, "state")]
        self.state = os.path.join(directory, "state")
        self.directory = directory
        self.ids = []
        self.identity = {}  # subprocess's user, group, env

    def run(self, *arguments, check=False, timeout=60, **keywords):
        keywords.setdefault("stdin", subprocess.DEVNULL)
        process = subprocess.run(
            [*self.command, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            timeout=timeout,
            **self.identity,
            **keywords,
        )
        assert not check or process.returncode == 0, process.stderr
        return Result(process)

    def new_id(self):
        self.ids.append(f"lodge-test-{uuid.uuid4().hex[:12]}")
        return self.ids[-1]

    def bundle(self, name="bundle", **keywords):
        return Bundle(self, os.path.join(self.directory, name), **keywords)

    def once(self, bundle, *options, **keywords):
        """lodge oci run: the program's output and exit status."""
        bundle.save()
        return self.run("run", "--bundle", bundle.path, *options, self.new_id(), **keywords)

    def create(self, bundle, *options, check=True, **keywords):
        """A created container. Its streams are files: it must not hold the test's pipes."""
        bundle.save()
        name = self.new_id()
        with open(os.path.join(self.directory, "out"), "w") as out, open(
            os.path.join(self.directory, "err"), "w+"
        ) as err:
            process = subprocess.run(
                [*self.command, "create", "--bundle", bundle.path, *options, name],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                timeout=60,
                **self.identity,
                **keywords,
            )
            err.seek(0)
            text = err.read()
        assert not check or process.returncode == 0, text
        return name

    def start(self, bundle, *options):
        name = self.create(bundle, *options)
        self.run("start", name, check=True)
        return name

    def output(self):
        with open(os.path.join(self.directory, "out")) as file:
            return file.read()

    def status(self, name):
        return self.run("state", name, check=True).json["status"]

    def clean(self):
        for name in self.ids:
            self.run("delete", "--force", name)


def cgroups_named(name):
    found = subprocess.run(
        ["find", "/sys/fs/cgroup", "-maxdepth", "6", "-name", name],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    return found.stdout.split()


def command_of(lodge):
    """The stand-alone runtime beside the program under test, where it was built."""
    alone = os.path.join(os.path.dirname(lodge), "lodge-oci")
    return [alone] if os.access(alone, os.X_OK) else [lodge, "oci"]
