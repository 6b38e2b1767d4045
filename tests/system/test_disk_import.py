"""VMDK, VDI and VHDX images of qemu-img are read as they are."""
import pytest

from system.disk import make_content, ok, refused, run

SIZE = 12 << 20


@pytest.fixture(scope="module")
def content(tmp_path_factory):
    return make_content(tmp_path_factory.mktemp("content") / "raw", SIZE)


@pytest.mark.parametrize("fmt, options", [
    ("vmdk", "subformat=monolithicSparse"), ("vmdk", "subformat=streamOptimized"),
    ("vmdk", "subformat=monolithicSparse,zeroed_grain=on"), ("vdi", "static=off"),
    ("vdi", "static=on"), ("vhdx", "subformat=dynamic"), ("vhdx", "subformat=fixed"),
    ("vhdx", "block_size=8M"),
])
def test_an_image_of_another_format_reads_the_same(lodge, content, tmp_path, fmt, options):
    image, raw = tmp_path / "image", tmp_path / "raw"
    ok("qemu-img", "convert", "-f", "raw", "-O", fmt, "-o", options, content, image)
    assert f'"format": "{fmt}"' in ok(lodge, "disk", "info", image, "--json")
    ok(lodge, "disk", "convert", image, raw, "-O", "raw")
    ok("cmp", content, raw)
    ok(lodge, "disk", "compare", image, content, "-F", "raw")


@pytest.mark.parametrize("fmt", ["vmdk", "vdi", "vhdx"])
def test_an_imported_format_is_not_written(lodge, tmp_path, fmt):
    image = tmp_path / "image"
    ok("qemu-img", "create", "-q", "-f", fmt, image, "10M")
    assert "only be read" in refused(lodge, "disk", "resize", image, "20M")
    assert "only be read" in refused(lodge, "disk", "create", tmp_path / "new", "1M", "-f", fmt)


def test_what_is_not_supported_is_said(lodge, tmp_path):
    flat, base, delta = tmp_path / "flat", tmp_path / "base", tmp_path / "delta"
    ok("qemu-img", "create", "-q", "-f", "vmdk", "-o", "subformat=monolithicFlat", flat, "10M")
    assert "several files" in refused(lodge, "disk", "info", flat)
    ok("qemu-img", "create", "-q", "-f", "vmdk", base, "10M")
    ok("qemu-img", "create", "-q", "-f", "vmdk", "-b", base, "-F", "vmdk", delta)
    assert "rests on another" in refused(lodge, "disk", "info", delta)


@pytest.mark.parametrize("fmt", ["qcow2", "vmdk", "vdi", "vhdx"])
def test_a_truncated_image_is_an_error_or_reads_but_never_crashes(lodge, content, tmp_path, fmt):
    image = tmp_path / "image"
    ok("qemu-img", "convert", "-f", "raw", "-O", fmt, content, image)
    whole = image.read_bytes()
    for length in (0, 3, 4, 511, 512, 4096, 65536, 70000, 200000, len(whole) // 2, len(whole) - 1):
        image.write_bytes(whole[:length])
        result = run(lodge, "disk", "convert", "-f", fmt, image, tmp_path / "raw", "-O", "raw",
                     "--force")
        assert result.returncode in (0, 1), result.stderr
        assert result.returncode == 0 or result.stderr.count("\n") == 1
