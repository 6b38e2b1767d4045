"""Pull and push: Debian's docker-registry on loopback, and a server that misbehaves."""
import base64
import http.server
import json
import os
import shutil
import socket
import subprocess
import threading
import time
import urllib.parse

import pytest

import images
from images import Store, directory, file, layer

LAYERS = [layer(file("one", os.urandom(100000))), layer(file("two", b"2"), file(".wh.three"))]


@pytest.fixture
def store(lodge, tmp_path, monkeypatch):
    monkeypatch.setenv("LODGE_REGISTRIES", str(tmp_path / "registries.json"))
    (tmp_path / "registries.json").write_text("{}")
    return Store(lodge, tmp_path / "store")


def configure(tmp_path, **settings):
    (tmp_path / "registries.json").write_text(json.dumps(settings))


def certificate(directory):
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
                    "-keyout", directory / "key.pem", "-out", directory / "cert.pem",
                    "-subj", "/CN=localhost", "-addext",
                    "subjectAltName=DNS:localhost,IP:127.0.0.1"],
                   check=True, stderr=subprocess.DEVNULL)


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def auth_file(path, host, user="joe", password="secret"):
    path.write_text(json.dumps({"auths": {host: {"auth": base64.b64encode(
        f"{user}:{password}".encode()).decode()}}}))
    return path


# --- Debian's registry ---

@pytest.fixture(scope="module")
def registry(tmp_path_factory):
    """docker-registry with TLS and a password: (host, certificate, auth file)."""
    if not shutil.which("docker-registry") or not shutil.which("htpasswd"):
        pytest.skip("docker-registry or htpasswd is not installed")
    directory = tmp_path_factory.mktemp("registry")
    certificate(directory)
    port = free_port()
    with open(directory / "htpasswd", "w") as out:
        subprocess.run(["htpasswd", "-Bbn", "joe", "secret"], check=True, stdout=out)
    (directory / "config.yml").write_text(json.dumps({
        "version": "0.1", "log": {"level": "error"},
        "storage": {"filesystem": {"rootdirectory": str(directory / "data")}},
        "http": {"addr": f"127.0.0.1:{port}", "tls": {"certificate": str(directory / "cert.pem"),
                                                     "key": str(directory / "key.pem")}},
        "auth": {"htpasswd": {"realm": "test", "path": str(directory / "htpasswd")}}}))
    process = subprocess.Popen(["docker-registry", "serve", directory / "config.yml"],
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    for _ in range(200):
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            break
        except ConnectionRefusedError:
            time.sleep(0.05)
    host = f"localhost:{port}"
    yield host, directory / "cert.pem", auth_file(directory / "auth.json", host)
    process.kill()
    process.wait()


def test_what_is_pushed_is_pulled_with_the_same_digest(store, lodge, tmp_path, registry):
    host, ca, auth = registry
    trust = ["--ca", ca, "--authfile", auth]
    store("import", images.oci_layout(tmp_path / "l", LAYERS, "+zstd"), "a:1")
    store("push", *trust, "a:1", f"{host}/team/a:1")
    other = Store(lodge, tmp_path / "other")
    assert other("pull", *trust, f"{host}/team/a:1") == f"{host}/team/a:1\n"
    digest = json.loads(store("inspect", "a:1"))["digest"]
    assert json.loads(other("inspect", "team/a:1"))["digest"] == digest
    assert os.path.exists(other.layer_directories("team/a:1")[0] + "/one")
    assert other("pull", *trust, f"{host}/team/a@{digest}") == f"{host}/team/a@{digest}\n"
    assert other.is_clean() and store.is_clean()


def test_the_registry_is_trusted_only_with_its_certificate_and_password(store, tmp_path, registry):
    host, ca, auth = registry
    store("import", images.oci_layout(tmp_path / "l", LAYERS), "a:1")
    assert "certificate" in store.fails("push", "--authfile", auth, "a:1", f"{host}/b:1")
    assert "password" in store.fails("push", "--ca", ca, "a:1", f"{host}/b:1")
    wrong = auth_file(tmp_path / "wrong.json", host, password="guess")
    assert "401" in store.fails("push", "--ca", ca, "--authfile", wrong, "a:1", f"{host}/b:1")
    assert "has no" in store.fails("pull", "--insecure", "--authfile", auth, f"{host}/none:1")


def test_settings_come_from_the_file_of_registries(store, tmp_path, registry, monkeypatch):
    host, ca, auth = registry
    monkeypatch.setenv("REGISTRY_AUTH_FILE", str(auth))
    store("import", images.oci_layout(tmp_path / "l", LAYERS), "c:1")
    words = store.fails("pull", "c:1")
    assert "default" in words and "registries.json" in words
    configure(tmp_path, default=host, registries={host: {"ca": str(ca)}})
    store("push", "c:1")
    store("rm", "c:1")
    assert store("pull", "c:1") == f"{host}/c:1\n"
    configure(tmp_path, default=7)
    assert "default must be a string" in store.fails("pull", "c:1")


def test_a_login_is_tried_and_kept_for_its_user_alone(store, tmp_path, registry, monkeypatch):
    host, ca, _ = registry
    kept = tmp_path / "new/auth.json"
    monkeypatch.setenv("REGISTRY_AUTH_FILE", str(kept))
    login = [store.lodge, "image", "login", "--ca", str(ca), "-u", "joe", "--password-stdin", host]

    def run(password, *command):
        return subprocess.run(command or login, input=password, capture_output=True, text=True)

    assert "does not take" in run("guess\n").stderr and not kept.exists()
    assert run("secret\n").stdout == "Login succeeded\n"
    assert oct(kept.stat().st_mode & 0o777) == "0o600"
    store("import", images.oci_layout(tmp_path / "l", LAYERS), "e:1")
    store("push", "--ca", ca, "e:1", f"{host}/e:1")
    documents = json.loads(kept.read_text())
    documents["other"] = {"kept": True}
    documents["auths"]["elsewhere"] = {"auth": "eDp5"}
    kept.write_text(json.dumps(documents))
    assert run("", store.lodge, "image", "logout", host).returncode == 0
    documents = json.loads(kept.read_text())
    assert documents == {"auths": {"elsewhere": {"auth": "eDp5"}}, "other": {"kept": True}}
    assert "no such login" in run("", store.lodge, "image", "logout", host).stderr
    assert "password" in store.fails("push", "--ca", ca, "e:1", f"{host}/e:1")
    assert run("", store.lodge, "image", "logout", "--all").returncode == 0
    assert json.loads(kept.read_text())["auths"] == {}


def test_a_login_of_podman_and_of_lodge_are_the_same(store, tmp_path, registry, monkeypatch):
    """podman's own place: in the user's runtime directory."""
    if not shutil.which("podman"):
        pytest.skip("podman is not installed")
    host, ca, _ = registry
    monkeypatch.delenv("REGISTRY_AUTH_FILE", raising=False)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    shown = ["podman", "login", "--get-login", host]
    subprocess.run([store.lodge, "image", "login", "--ca", ca, "-u", "joe", "--password-stdin",
                    host], input="secret", text=True, check=True, stdout=subprocess.DEVNULL)
    assert subprocess.run(shown, capture_output=True, text=True).stdout == "joe\n"
    subprocess.run([store.lodge, "image", "logout", host], check=True)
    assert subprocess.run(shown, capture_output=True).returncode != 0


def test_skopeo_and_lodge_agree(store, tmp_path, registry):
    if not shutil.which("skopeo"):
        pytest.skip("skopeo is not installed")
    host, ca, auth = registry
    layout = images.oci_layout(tmp_path / "l", LAYERS, "+gzip", name="x")
    subprocess.run(["skopeo", "copy", "-q", "--dest-tls-verify=false", "--authfile", auth,
                    f"oci:{layout}:x", f"docker://{host}/skopeo:1"], check=True)
    store("pull", "--ca", ca, "--authfile", auth, f"{host}/skopeo:1")
    store("push", "--ca", ca, "--authfile", auth, "skopeo:1", f"{host}/lodge:1")
    seen = subprocess.run(["skopeo", "inspect", "--tls-verify=false", "--authfile", auth,
                           f"docker://{host}/lodge:1"], check=True, stdout=subprocess.PIPE)
    assert json.loads(seen.stdout)["Digest"] == json.loads(store("inspect", "skopeo:1"))["digest"]


# --- A server that misbehaves ---

class Server(http.server.ThreadingHTTPServer):
    """Serves blobs and manifests from dicts; faults name what it does wrong."""
    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.host = f"127.0.0.1:{self.server_port}"
        self.blobs, self.manifests, self.faults, self.log = {}, {}, set(), []
        self.tokens = 0
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    def handle_error(self, request, client_address):
        pass

    def blob(self, data):
        digest = images.sha256(data)
        self.blobs[digest] = data
        return {"digest": digest, "size": len(data)}

    def publish(self, name, layers, change=()):
        settings = json.dumps(images.config(layers)).encode()
        manifest = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
                    "config": self.blob(settings), "layers": [self.blob(one) for one in layers]}
        manifest.update(change)
        return self.document(name, manifest)

    def document(self, name, tree):
        data = json.dumps(tree).encode()
        self.manifests[name] = self.manifests[images.sha256(data)] = data
        return {"mediaType": tree.get("mediaType"), "digest": images.sha256(data),
                "size": len(data)}


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments):
        pass

    def answer(self, status, data=b"", **headers):
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        for key, value in headers.items():
            self.send_header(key.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(data)

    def do_GET(self):
        server, faults = self.server, self.server.faults
        path = urllib.parse.urlsplit(self.path)
        server.log.append((self.path, self.headers.get("Range")))
        if path.path == "/token":
            server.tokens += 1
            return self.answer(200, json.dumps({"token": f"t{server.tokens}"}).encode())
        if "token" in faults and self.headers.get("Authorization") != f"Bearer t{server.tokens}":
            return self.answer(401, WWW_Authenticate=f'Bearer realm="http://{server.host}/token",'
                                                     'service="here",scope="repository:a:pull"')
        kind, _, name = path.path.rpartition("/")
        if kind.endswith("/manifests"):
            data = server.manifests.get(name)
            if "garbage" in faults:
                data = b"<html>" + os.urandom(100)
            return self.answer(200, data) if data else self.answer(404, b"no")
        data = server.blobs.get(name)
        if data is None:
            return self.answer(404)
        if "redirect" in faults and not path.query:
            return self.answer(307, Location=f"http://{server.host}{self.path}?here")
        if "wrong" in faults:
            data = bytes(len(data))
        if "long" in faults:
            data += b"more"
        if "fail" in faults:
            return self.answer(503)
        start = 0
        if self.headers.get("Range") and "ranges" not in faults:
            start = int(self.headers["Range"][len("bytes="):-1])
            if start >= len(data):
                return self.answer(416)
        if "half" in faults and len(data) - start > 1000:
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(data) - start))
            self.end_headers()
            self.wfile.write(data[start:start + (len(data) - start) // 2])
            self.wfile.flush()
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True
            return None
        return self.answer(206 if start else 200, data[start:])


@pytest.fixture
def server():
    one = Server()
    yield one
    one.shutdown()
    one.server_close()


def pull(store, server, name="a:1"):
    return store("pull", "--insecure", f"{server.host}/{name}")


def pull_fails(store, server, name="a:1"):
    words = store.fails("pull", "--insecure", f"{server.host}/{name}")
    assert store.is_clean(unreferenced=False) and store.names() == []
    store("prune")
    assert store.is_clean()
    return words


def test_a_broken_download_is_gone_on_with(store, server):
    server.publish("1", LAYERS)
    server.faults = {"half"}
    pull(store, server)
    assert store.is_clean()
    ranges = [int(one[6:-1]) for path, one in server.log if one]
    assert ranges and min(ranges) > 0


def test_a_server_without_ranges_is_read_from_the_start(store, server):
    server.publish("1", [layer(file("x", os.urandom(3000000)))])
    server.faults = {"half"}
    process = subprocess.Popen([store.lodge, "image", "pull", "--insecure", "--store", store.path,
                                f"{server.host}/a:1"], stdout=subprocess.DEVNULL,
                               stderr=subprocess.DEVNULL)
    while process.poll() is None and not any(one for _, one in server.log):
        time.sleep(0.005)
    process.kill()
    process.wait()
    server.faults = {"ranges"}
    pull(store, server)
    assert store.is_clean() and os.listdir(f"{store.path}/partial") == []


def test_after_a_killed_pull_only_the_rest_is_read(store, server):
    data = layer(file("x", os.urandom(3000000)))
    server.publish("1", [data])
    os.makedirs(f"{store.path}/partial")
    with open(f"{store.path}/partial/{images.sha256(data)[7:]}", "wb") as out:
        out.write(data[:2000000])
    pull(store, server)
    assert [one for _, one in server.log if one] == ["bytes=2000000-"]
    assert store.is_clean()


def test_a_partial_download_of_wrong_bytes_is_not_kept(store, server):
    data = layer(file("x", os.urandom(30000)))
    server.publish("1", [data])
    os.makedirs(f"{store.path}/partial")
    with open(f"{store.path}/partial/{images.sha256(data)[7:]}", "wb") as out:
        out.write(b"wrong")
    assert "wrong digest" in pull_fails(store, server)
    pull(store, server)
    assert store.is_clean()


@pytest.mark.parametrize("fault,word", [("wrong", "wrong digest"), ("long", "more comes"),
                                        ("garbage", "manifest"), ("fail", "503")])
def test_what_is_not_as_it_should_be_is_refused(store, server, fault, word):
    server.publish("1", LAYERS)
    server.faults = {fault}
    assert word in pull_fails(store, server)


def test_a_manifest_that_is_not_the_digest_asked_for_is_refused(store, server):
    server.publish("1", LAYERS)
    asked = "sha256:" + "1" * 64
    server.manifests[asked] = server.manifests["1"]
    assert "wrong digest" in pull_fails(store, server, f"a@{asked}")


@pytest.mark.parametrize("change", [
    {"schemaVersion": 1}, {"schemaVersion": None}, {"layers": None}, {"layers": [1]}, {"config": 1},
    {"layers": [{"digest": "sha256:1", "size": 1}]},
    {"layers": [{"digest": "sha256:" + "0" * 64, "size": -1}]},
    {"layers": [{"digest": "sha256:" + "0" * 64, "size": 1}] * 600}, {"layers": []}])
def test_a_manifest_with_bad_members_is_refused(store, server, change):
    server.publish("1", LAYERS, change)
    pull_fails(store, server)


def test_tokens_are_fetched_and_renewed(store, server):
    server.publish("1", LAYERS)
    server.faults = {"token", "redirect"}
    pull(store, server)
    asked = [path for path, _ in server.log if path.startswith("/token")]
    assert asked[0] == "/token?service=here&scope=repository%3Aa%3Apull"
    assert store.is_clean()


def test_mirrors_come_first_and_the_registry_stands_in_for_them(store, server, tmp_path):
    mirror = Server()
    server.publish("1", LAYERS)
    mirror.publish("1", LAYERS)
    configure(tmp_path, registries={server.host: {"insecure": True, "mirrors": [mirror.host]},
                                    mirror.host: {"insecure": True}})
    mirror.faults = {"wrong"}
    assert store("pull", f"{server.host}/a:1") == f"{server.host}/a:1\n"
    assert any("/manifests/" in path for path, _ in mirror.log)
    assert not any("/manifests/" in path for path, _ in server.log)
    assert any("/blobs/" in path for path, _ in server.log)
    assert store.is_clean()
    mirror.shutdown()
    mirror.server_close()
    store("pull", f"{server.host}/a:1")


def test_an_index_leads_to_the_platform(store, server):
    items = []
    for platform in ("arm64", "amd64"):
        one = server.publish(platform, [layer(file(platform))])
        items.append(dict(one, platform={"os": "linux", "architecture": platform}))
    server.document("1", {"schemaVersion": 2, "manifests": items,
                          "mediaType": "application/vnd.oci.image.index.v1+json"})
    pull(store, server)
    assert os.listdir(store.layer_directories("a:1")[0]) == ["amd64"]
    assert "riscv64" in store.fails("pull", "--insecure", "--platform", "linux/riscv64",
                                    f"{server.host}/a:1")


def test_several_pulls_of_one_image_share_the_work(store, server):
    server.publish("1", [layer(file(f"{i}", os.urandom(200000))) for i in range(4)])
    command = [store.lodge, "image", "pull", "--insecure", "--store", store.path,
               f"{server.host}/a:1"]
    running = [subprocess.Popen(command, stdout=subprocess.DEVNULL) for _ in range(4)]
    assert [one.wait(60) for one in running] == [0] * 4
    blobs = [path for path, _ in server.log if "/blobs/" in path]
    assert len(blobs) == len(set(blobs)) == 5
    assert store.is_clean()


# --- Run ---

def test_run_pulls_as_it_is_told(store, lodge, server, tmp_path):
    if os.geteuid() != 0:
        pytest.skip("containers of images need root")
    image = f"{server.host}/a:1"

    def run(*options, name=image):
        return subprocess.run([lodge, "run", "--rm", "--network", "none", "--insecure", "--store",
                               store.path, *options, name, "/bin/busybox", "cat", "/one"],
                              capture_output=True, text=True, timeout=60)

    def publish(word):
        with open("/bin/busybox", "rb") as program:
            server.publish("1", [layer(directory("bin"), directory("proc"), directory("sys"),
                                       directory("dev"), directory("etc"), file("one", word),
                                       file("bin/busybox", program.read(), mode=0o755))])

    publish(b"1")
    result = run("--pull", "never")
    assert result.returncode == 1 and "no image" in result.stderr and not server.log
    assert run().stdout == "1" and store.names() == [image]
    publish(b"2")
    asked = len(server.log)
    assert run().stdout == "1" and run("--pull=missing").stdout == "1" and len(server.log) == asked
    assert run("--pull", "newer").stdout == "2"
    publish(b"3")
    assert run("--pull", "always").stdout == "3"
    publish(b"2")
    assert run("--pull", "newer").stdout == "2"
    server.faults = {"fail"}
    server.publish("1", LAYERS)
    result = run("--pull", "always")
    assert result.returncode == 1 and result.stderr.count("\n") == 1, result
    result = run(name="missing")
    assert result.returncode == 1 and "no registry" in result.stderr
    assert run("--pull", "newer").stdout == "2"  # the registry cannot be asked
    result = run("--pull", "newer", name=image + "0")
    assert result.returncode == 1 and result.stderr.count("\n") == 1, result
    assert run("--pull", "often").returncode == 2
    server.faults = set()
    configure(tmp_path, default=server.host)
    store("rm", image)
    publish(b"3")
    assert run(name="a:1").stdout == "3" and store.names() == [image]
