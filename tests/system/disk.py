"""What the tests of lodge disk share."""
import json
import random
import subprocess


def run(*arguments, timeout=120, **keywords):
    return subprocess.run([str(a) for a in arguments], capture_output=True, text=True,
                          timeout=timeout, stdin=subprocess.DEVNULL, **keywords)


def ok(*arguments):
    """Run a command that must go well; what it prints."""
    result = run(*arguments)
    assert result.returncode == 0, f"{arguments}\n{result.stdout}{result.stderr}"
    return result.stdout


def refused(*arguments, status=1):
    """Run a command that must fail with one line; the line."""
    result = run(*arguments)
    assert result.returncode == status, f"{arguments}: {result.returncode}\n{result.stderr}"
    assert result.stderr.count("\n") == 1 and result.stderr.startswith("lodge: "), result.stderr
    return result.stderr


def facts(*arguments):
    return json.loads(ok(*arguments, "--json"))


def make_content(path, size, seed=1):
    """A raw disk with random data, text, and holes."""
    source = random.Random(seed)
    with open(path, "wb") as disk:
        disk.truncate(size)
        for _ in range(24):
            length = source.randrange(1, 300000)
            at = source.randrange(0, size - length)
            disk.seek(at)
            if source.random() < 0.5:
                disk.write(source.randbytes(length))
            else:
                disk.write((b"lodge %d\n" % at * (length // 8 + 1))[:length])
    return path


def same(raw, image, fmt="qcow2"):
    ok("qemu-img", "compare", "-f", "raw", "-F", fmt, raw, image)


def clean(lodge, image):
    """Both programs find nothing wrong with a qcow2 image."""
    ok("qemu-img", "check", image)
    ok(lodge, "disk", "check", image)
