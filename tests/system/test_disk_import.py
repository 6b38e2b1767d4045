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


@pytest.mark.parametrize("kind", ["monolithicFlat", "twoGbMaxExtentFlat", "twoGbMaxExtentSparse"])
def test_a_vmdk_disk_of_several_files_reads_the_same(lodge, content, tmp_path, kind):
    """Also when it is so large that it has more than one part, with data across their border."""
    image, raw, big = tmp_path / "image.vmdk", tmp_path / "raw", tmp_path / "big.vmdk"
    ok("qemu-img", "convert", "-f", "raw", "-O", "vmdk", "-o", f"subformat={kind}", content, image)
    ok(lodge, "disk", "convert", image, raw, "-O", "raw")
    ok("cmp", content, raw)
    ok("qemu-img", "create", "-q", "-f", "vmdk", "-o", f"subformat={kind}", big, "5G")
    ok("qemu-io", "-f", "vmdk", "-c", "write -P 7 2046M 4M", "-c", "write -P 8 5119M 1M", big)
    copy = tmp_path / "copy.qcow2"
    ok(lodge, "disk", "convert", big, copy)
    ok("qemu-img", "compare", "-f", "qcow2", "-F", "vmdk", copy, big)


def descriptor(*lines):
    return "\n".join(("# Disk DescriptorFile", "version=1", "parentCID=ffffffff", *lines, ""))


def test_parts_of_a_vmdk_disk_begin_where_they_say_and_may_be_zeroes(lodge, tmp_path):
    image, flat = tmp_path / "image", tmp_path / "flat"
    flat.write_bytes(b"a" * 512 + b"b" * 512 + b"c" * 512)
    image.write_text(descriptor('RW 1 FLAT "flat" 2', "RW 2 ZERO", 'RDONLY 2 VMFS "flat"'))
    ok(lodge, "disk", "convert", image, tmp_path / "raw", "-O", "raw")
    assert (tmp_path / "raw").read_bytes() == \
        b"c" * 512 + bytes(1024) + b"a" * 512 + b"b" * 512


@pytest.mark.parametrize("line, word", [
    ('RW 1 FLAT "../image" 0', "beside"), ('RW 1 FLAT "/etc/passwd" 0', "beside"),
    ('RW 1 FLAT "nbd:x" 0', "beside"), ('RW 1 FLAT "none" 0', "none"),
    ('RW 900 FLAT "image" 0', "shorter"), ('RW 1 FLAT "image" 900', "shorter"),
    ('RW 1 SPARSE "image"', "no VMDK"), ('RW 99999999999999999999 ZERO', "large"),
    ('RW 1 VMFSRDM "image"', "VMFSRDM"), ("RW", "names no file"), ("RW x", "not understood"),
])
def test_a_bad_part_of_a_vmdk_disk_is_refused(lodge, tmp_path, line, word):
    (tmp_path / "image").write_text(descriptor(line))
    assert word in refused(lodge, "disk", "info", tmp_path / "image")


@pytest.mark.parametrize("fmt", ["vmdk", "vdi", "vhdx"])
def test_an_imported_format_is_not_written(lodge, tmp_path, fmt):
    image = tmp_path / "image"
    ok("qemu-img", "create", "-q", "-f", fmt, image, "10M")
    assert "only be read" in refused(lodge, "disk", "resize", image, "20M")
    assert "only be read" in refused(lodge, "disk", "create", tmp_path / "new", "1M", "-f", fmt)


def test_what_is_not_supported_is_said(lodge, tmp_path):
    base, delta = tmp_path / "base", tmp_path / "delta"
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
