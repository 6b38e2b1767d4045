"""What containers are, clause by clause of the OCI runtime specification 1.2: config.md."""
import os
import subprocess

import pytest

from system.oci import cgroups_named, wait_for

# --- config.md: Root, Mounts, Process, Hostname ---


def test_the_root_is_read_only_when_asked(oci):
    """config.md, Root: readonly."""
    bundle = oci.bundle().shell("touch /x && echo written")
    assert "Read-only" in oci.once(bundle).err
    bundle.config["root"]["readonly"] = False
    assert oci.once(bundle).out == "written\n"


MOUNTS = [
    # options, what to run, what it prints
    (["bind", "ro"], "touch /m/x || echo no", "no\n"),
    (["rbind", "rw"], "touch /m/x && echo yes", "yes\n"),
    (["bind", "noexec"], "/m/program || echo no", "no\n"),
    (
        ["bind", "nosuid", "nodev"],
        "grep -o ' /m [a-z,]*' /proc/self/mountinfo | grep -c nosuid,nodev",
        "1\n",
    ),
    (["rbind", "rro"], "touch /m/below/x || echo no", "no\n"),
    (["rbind", "ro"], "touch /m/below/x && echo yes", "yes\n"),
    (["rbind", "rnoexec", "exec"], "/m/program || echo no", "no\n"),
    (
        ["bind", "rprivate"],
        "grep ' /m ' /proc/self/mountinfo | grep -c -E 'shared|master'; true",
        "0\n",
    ),
    (["bind", "rshared"], "grep ' /m ' /proc/self/mountinfo | grep -c shared", "1\n"),
    (["bind", "nosymfollow"], "cat /m/link 2>/dev/null || echo no", "no\n"),
    (["bind", "noatime"], "grep -o ' /m [a-z,]*' /proc/self/mountinfo | grep -c noatime", "1\n"),
]


@pytest.mark.parametrize("options,script,printed", MOUNTS, ids=[",".join(m[0]) for m in MOUNTS])
def test_a_bind_mount_has_its_options(oci, options, script, printed):
    """config.md, Mounts, Linux mount options."""
    source = os.path.join(oci.directory, "source")
    os.makedirs(os.path.join(source, "below"))
    with open(os.path.join(source, "program"), "w") as file:
        file.write("#!/bin/sh\necho ran\n")
    os.chmod(file.name, 0o755)
    os.symlink("program", os.path.join(source, "link"))
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", os.path.join(source, "below")], check=True)
    try:
        bundle = oci.bundle().shell("(" + script + ") 2>/dev/null")
        bundle.config["mounts"].append(
            {"destination": "/m", "type": "bind", "source": source, "options": options}
        )
        result = oci.once(bundle)
        assert result.out == printed, result.err
    finally:
        subprocess.run(["umount", os.path.join(source, "below")], check=True)


def test_a_tmpfs_with_tmpcopyup_begins_with_what_was_there(oci):
    bundle = oci.bundle().shell("cat /etc/a/b; stat -c %a /etc/a; touch /etc/new && echo new")
    os.makedirs(os.path.join(bundle.rootfs, "etc/a"), mode=0o750)
    with open(os.path.join(bundle.rootfs, "etc/a/b"), "w") as file:
        file.write("kept\n")
    bundle.config["mounts"].append(
        {
            "destination": "/etc",
            "type": "tmpfs",
            "source": "tmpfs",
            "options": ["tmpcopyup", "mode=755"],
        }
    )
    assert oci.once(bundle).out == "kept\n750\nnew\n"
    assert not os.path.exists(os.path.join(bundle.rootfs, "etc/new"))


@pytest.mark.parametrize(
    "there,options,wanted",
    [
        (True, [], "711 5:6"),
        (True, ["mode=700", "uid=3"], "700 3:6"),
        (False, [], "1777 0:0"),
        (False, ["mode=700"], "700 0:0"),
    ],
)
def test_options_of_a_tmpfs_say_more_than_the_directory_it_begins_with(oci, there, options, wanted):
    bundle = oci.bundle().shell("stat -c '%a %u:%g' /place")
    if there:
        place = os.path.join(bundle.rootfs, "place")
        os.mkdir(place)
        os.chown(place, 5, 6)
        os.chmod(place, 0o711)
    bundle.config["mounts"].append({"destination": "/place", "type": "tmpfs", "source": "tmpfs",
                                    "options": ["tmpcopyup", *options]})
    assert oci.once(bundle).out == wanted + "\n"


@pytest.mark.parametrize(
    "program,words",
    [
        ("/no/such", "no such file or directory"),
        ("no-such", "executable file not found in $PATH"),
        ("/etc", "permission denied"),
        ("/script", "no such file or directory"),
    ],
)
def test_a_program_that_cannot_run_is_told_in_the_words_that_engines_look_for(oci, program, words):
    """docker gives 126 or 127 by them."""
    bundle = oci.bundle().args(program)
    with open(os.path.join(bundle.rootfs, "script"), "w", opener=lambda path, flags: os.open(
            path, flags, 0o755)) as file:
        file.write("#!/no/interpreter\n")
    result = oci.once(bundle)
    assert result.status != 0 and result.err.endswith(f'exec: "{program}": {words}\n')


def test_an_overlay_is_mounted_by_its_type(oci):
    """config.md, Mounts: type is a filesystem of the kernel."""
    for name in ("lower", "upper", "work"):
        os.mkdir(os.path.join(oci.directory, name))
    with open(os.path.join(oci.directory, "lower", "file"), "w") as file:
        file.write("below\n")
    bundle = oci.bundle().shell("cat /o/file; echo above > /o/file; cat /o/file")
    data = ["{0}dir={1}/{0}".format(n, oci.directory) for n in ("lower", "upper", "work")]
    bundle.config["mounts"].append(
        {"destination": "/o", "type": "overlay", "source": "overlay", "options": data}
    )
    assert oci.once(bundle).out == "below\nabove\n"
    with open(os.path.join(oci.directory, "lower", "file")) as file:
        assert file.read() == "below\n"


def test_an_id_mapped_mount_shows_files_with_mapped_owners(oci):
    """config.md, Mounts: uidMappings and gidMappings."""
    source = os.path.join(oci.directory, "source")
    os.mkdir(source)
    with open(os.path.join(source, "file"), "w"):
        pass
    os.chown(os.path.join(source, "file"), 0, 0)
    bundle = oci.bundle().shell("stat -c %u:%g /m/file")
    bundle.config["mounts"].append(
        {
            "destination": "/m",
            "type": "bind",
            "source": source,
            "options": ["bind"],
            "uidMappings": [{"containerID": 0, "hostID": 1000, "size": 10}],
            "gidMappings": [{"containerID": 0, "hostID": 2000, "size": 10}],
        }
    )
    result = oci.once(bundle)
    if "cannot id-map" in result.err:
        pytest.skip("the filesystem of the temporary directory cannot be id-mapped")
    assert result.out == "1000:2000\n", result.err


def test_the_process_is_what_the_configuration_says(oci):
    """config.md, Process and User."""
    bundle = oci.bundle().shell(
        "pwd; umask; id -u; id -g; id -G; echo $X; ulimit -n; cat /proc/self/oom_score_adj; "
        "cut -d' ' -f19 /proc/self/stat; "
        "grep -E 'NoNewPrivs|CapBnd|CapEff' /proc/self/status"
    )
    bundle.process.update(
        cwd="/made/for/it",
        env=["PATH=/bin", "X=y"],
        oomScoreAdj=100,
        user={"uid": 5, "gid": 6, "umask": 0o27, "additionalGids": [8, 9]},
        rlimits=[{"type": "RLIMIT_NOFILE", "soft": 77, "hard": 78}],
        scheduler={"policy": "SCHED_BATCH", "nice": 5},
        ioPriority={"class": "IOPRIO_CLASS_BE", "priority": 6},
        capabilities={
            kind: ["CAP_KILL"]
            for kind in ("bounding", "effective", "permitted", "inheritable", "ambient")
        },
    )
    bundle.config["root"]["readonly"] = False
    result = oci.once(bundle)
    assert result.out.split("\n")[:9] == [
        "/made/for/it",
        "0027",
        "5",
        "6",
        "6 8 9",
        "y",
        "77",
        "100",
        "5",
    ], result.err
    assert "CapEff:\t0000000000000020" in result.out and "CapBnd:\t0000000000000020" in result.out
    assert "NoNewPrivs:\t1" in result.out


def test_home_is_found_in_the_containers_passwd(oci):
    bundle = oci.bundle().shell("echo $HOME")
    with open(os.path.join(bundle.rootfs, "etc/passwd"), "w") as file:
        file.write("other:x:1:1::/wrong:\nuser:x:12:12::/home/user:/bin/sh\n")
    bundle.process["user"] = {"uid": 12, "gid": 12}
    assert oci.once(bundle).out == "/home/user\n"
    bundle.process["user"] = {"uid": 99, "gid": 12}
    assert oci.once(bundle).out == "/\n"


def test_host_and_domain_name_are_the_containers_own(oci):
    """config.md, Hostname and Domainname."""
    bundle = oci.bundle().shell("hostname; cat /proc/sys/kernel/domainname")
    bundle.config.update(hostname="inside", domainname="example.test")
    before = os.uname().nodename
    assert oci.once(bundle).out == "inside\nexample.test\n"
    assert os.uname().nodename == before


def test_descriptors_are_passed_on_only_when_asked(oci):
    reading, writing = os.pipe()
    os.write(writing, b"through\n")
    os.close(writing)
    bundle = oci.bundle().shell(
        f"ls /proc/self/fd | wc -l; cat <&{reading} 2>/dev/null || echo none"
    )
    try:
        assert oci.once(bundle, pass_fds=(reading,)).out == "4\nnone\n"
        result = oci.once(bundle, "--preserve-fds", str(reading - 2), pass_fds=(reading,))
        assert result.out.endswith("through\n")
    finally:
        os.close(reading)


# --- config.md, Hooks ---


def test_hooks_run_in_order_and_in_their_namespaces(oci):
    """config.md, POSIX-platform Hooks; runtime.md, Lifecycle."""
    log = os.path.join(oci.directory, "hooks")
    script = os.path.join(oci.directory, "hook")
    with open(script, "w") as file:
        file.write(
            f"#!/bin/sh\nread state\n"
            f"echo \"$1 $(echo \"$state\" | sed 's/.*\"status\":\"\\([a-z]*\\).*/\\1/') "
            f"$(readlink /proc/self/ns/mnt)\" >> {log}\n"
        )
    os.chmod(script, 0o755)
    bundle = oci.bundle().shell("echo program >> /log")
    bundle.config["root"]["readonly"] = False
    kinds = "prestart createRuntime createContainer startContainer poststart poststop".split()
    bundle.config["hooks"] = {kind: [{"path": script, "args": ["hook", kind]}] for kind in kinds}
    bundle.config["hooks"]["startContainer"] = [
        {"path": "/bin/sh", "args": ["sh", "-c", "read s; echo startContainer >> /log"]}
    ]
    name = oci.start(bundle)
    assert wait_for(lambda: oci.status(name) == "stopped")
    oci.run("delete", name, check=True)
    with open(log) as file:
        lines = [line.split() for line in file]
    assert [line[0] for line in lines] == [
        "prestart",
        "createRuntime",
        "createContainer",
        "poststart",
        "poststop",
    ]
    assert [line[1] for line in lines] == ["created", "creating", "creating", "running", "stopped"]
    own = os.readlink("/proc/self/ns/mnt")
    assert [line[2] == own for line in lines] == [True, True, False, True, True]
    with open(os.path.join(bundle.rootfs, "log")) as file:
        assert file.read() == "startContainer\nprogram\n"


def test_a_failing_hook_after_the_start_is_a_warning(oci):
    """runtime.md, Lifecycle: poststart; the remaining hooks run."""
    mark = os.path.join(oci.directory, "mark")
    bundle = oci.bundle().args("sleep", "100")
    bundle.config["hooks"] = {
        "poststart": [{"path": "/bin/false"}, {"path": "/bin/touch", "args": ["touch", mark]}]
    }
    name = oci.create(bundle)
    result = oci.run("start", name)
    assert result.status == 0 and "poststart hook" in result.err and os.path.exists(mark)
    assert oci.status(name) == "running"


@pytest.mark.parametrize("kind", ["prestart", "createRuntime", "createContainer"])
def test_a_failing_hook_ends_the_creation_and_leaves_nothing(oci, kind):
    """runtime.md, Lifecycle: an error, the container is stopped, poststop follows."""
    bundle = oci.bundle().args("true")
    bundle.config["hooks"] = {kind: [{"path": "/bin/false"}]}
    name = oci.create(bundle, check=False)
    assert oci.run("state", name).status == 1
    assert not cgroups_named(name)


def test_a_hook_that_outlives_its_timeout_is_killed(oci):
    bundle = oci.bundle().args("true")
    bundle.config["hooks"] = {
        "createRuntime": [{"path": "/bin/sleep", "args": ["sleep", "100"], "timeout": 1}]
    }
    assert "longer than 1 seconds" in oci.once(bundle).err


def test_a_failing_start_hook_is_reported_by_start(oci):
    bundle = oci.bundle().args("true")
    bundle.config["hooks"] = {"startContainer": [{"path": "/bin/false"}]}
    name = oci.create(bundle)
    result = oci.run("start", name)
    assert result.status == 1 and "startContainer hook" in result.err
    assert wait_for(lambda: oci.status(name) == "stopped")
