"""Images made by hand, entry by entry: good ones and hostile ones."""
import gzip
import hashlib
import io
import json
import os
import subprocess
import tarfile

MEDIA = "application/vnd.oci.image."
DIRECTORY, LINK, HARD_LINK = tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE
CHARACTER, FIFO = tarfile.CHRTYPE, tarfile.FIFOTYPE


def sha256(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


def layer(*entries):
    """A tar stream of (name, {attribute: value}); data= makes a file."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, attributes in entries:
            entry = tarfile.TarInfo(name)
            data = attributes.get("data")
            for key, value in attributes.items():
                if key != "data":
                    setattr(entry, key, value)
            if data is None:
                tar.addfile(entry)
            else:
                entry.size = len(data)
                tar.addfile(entry, io.BytesIO(data))
    return out.getvalue()


def file(name, data=b"", **attributes):
    return name, dict(data=data, **attributes)


def directory(name, mode=0o755, **attributes):
    return name, dict(type=DIRECTORY, mode=mode, **attributes)


def zstd(data):
    return subprocess.run(["zstd", "-q", "-c"], input=data, stdout=subprocess.PIPE,
                          check=True).stdout


COMPRESSION = {"": lambda data: data, "+gzip": lambda data: gzip.compress(data, 1), "+zstd": zstd}


def config(layers, **settings):
    return {"os": "linux", "architecture": "amd64", "config": settings,
            "rootfs": {"type": "layers", "diff_ids": [sha256(one) for one in layers]}}


class Archive:
    """A tar archive of documents and blobs."""

    def __init__(self, path):
        self.path = str(path)
        self.tar = tarfile.open(self.path, "w")

    def add(self, name, data):
        entry = tarfile.TarInfo(name)
        entry.size = len(data)
        self.tar.addfile(entry, io.BytesIO(data))

    def close(self):
        self.tar.close()
        return self.path


def docker_archive(path, layers, tags=("test/image:1",), change=lambda documents: None):
    """As `docker save` writes it. change may spoil the documents first."""
    documents = {"config": config(layers, Cmd=["/bin/sh"]), "names": [f"{i}/layer.tar" for i in
                                                                       range(len(layers))]}
    documents["manifest"] = [{"Config": "config.json", "RepoTags": list(tags),
                              "Layers": documents["names"]}]
    change(documents)
    archive = Archive(path)
    for name, data in zip(documents["names"], layers):
        archive.add(name, data)
    archive.add("config.json", json.dumps(documents["config"]).encode())
    archive.add("manifest.json", json.dumps(documents["manifest"]).encode())
    return archive.close()


def oci_layout(path, layers, compression="+gzip", name="test/image:1", platforms=None):
    """A directory; with platforms, an index of one manifest for each."""
    path = str(path)
    os.makedirs(f"{path}/blobs/sha256")

    def blob(data, media_type, **more):
        with open(f"{path}/blobs/sha256/{hashlib.sha256(data).hexdigest()}", "wb") as out:
            out.write(data)
        return dict(mediaType=media_type, digest=sha256(data), size=len(data), **more)

    def manifest(platform):
        settings = config(layers, Env=[f"PLATFORM={platform}"])
        settings["architecture"] = platform.split("/")[1]
        document = {
            "schemaVersion": 2,
            "config": blob(json.dumps(settings).encode(), MEDIA + "config.v1+json"),
            "layers": [blob(COMPRESSION[compression](one), MEDIA + "layer.v1.tar" + compression)
                       for one in layers]}
        return blob(json.dumps(document).encode(), MEDIA + "manifest.v1+json",
                    platform=dict(zip(("os", "architecture"), platform.split("/"))))

    if platforms:
        inner = {"schemaVersion": 2, "manifests": [manifest(one) for one in platforms]}
        top = blob(json.dumps(inner).encode(), MEDIA + "index.v1+json")
    else:
        top = manifest("linux/amd64")
    top["annotations"] = {"org.opencontainers.image.ref.name": name}
    with open(f"{path}/oci-layout", "w") as out:
        out.write('{"imageLayoutVersion": "1.0.0"}')
    with open(f"{path}/index.json", "w") as out:
        json.dump({"schemaVersion": 2, "manifests": [top]}, out)
    return path


class Store:
    """lodge image with a store of its own."""

    def __init__(self, lodge, path):
        self.lodge, self.path = lodge, str(path)

    def run(self, verb, *arguments, timeout=60, **options):
        command = [self.lodge, "image", verb, "--store", self.path, *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, timeout=timeout,
                              **options)

    def __call__(self, verb, *arguments, **options):
        result = self.run(verb, *arguments, **options)
        assert result.returncode == 0, result.stderr
        return result.stdout

    def fails(self, verb, *arguments, **options):
        """It must fail with one line, which is returned."""
        result = self.run(verb, *arguments, **options)
        assert result.returncode in (1, 2), (result.returncode, result.stderr)
        assert result.stderr.startswith("lodge: ") and result.stderr.count("\n") == 1, result.stderr
        return result.stderr

    def is_clean(self, unreferenced=True):
        """Nothing is damaged, half-made or (unreferenced) left over."""
        text = self("check")
        assert text.endswith(" 0 faults\n"), text
        assert not unreferenced or " 0 unreferenced" in text, text
        assert os.listdir(f"{self.path}/tmp") == []
        return True

    def names(self):
        return [row["name"] for row in json.loads(self("ls", "--json"))]

    def layer_directories(self, image="test/image:1"):
        return [one["directory"] for one in json.loads(self("inspect", image))["layers"]]
