"""NBD within TLS: nbdinfo, nbdcopy, qemu-img and qemu-nbd as the others."""
import os
import signal
import socket as sockets
import subprocess

import pytest

from system.disk import make_content, ok, refused, run

SIZE = 12 << 20


def make_authority(folder, name):
    ok("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
       "-keyout", folder / "ca-key.pem", "-out", folder / "ca-cert.pem", "-days", "30", "-subj",
       f"/CN={name}", "-addext", "basicConstraints=critical,CA:TRUE", "-addext",
       "keyUsage=critical,keyCertSign")


def make_certificate(authority, folder, who, usage):
    extensions, request = folder / "extensions", folder / "request"
    extensions.write_text("basicConstraints=CA:FALSE\nkeyUsage=digitalSignature\n"
                          f"extendedKeyUsage={usage}\n"
                          "subjectAltName=DNS:localhost,IP:127.0.0.1\n")
    ok("openssl", "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
       "-keyout", folder / f"{who}-key.pem", "-out", request, "-subj", f"/CN={who}")
    ok("openssl", "x509", "-req", "-in", request, "-CA", authority / "ca-cert.pem", "-CAkey",
       authority / "ca-key.pem", "-CAcreateserial", "-days", "30", "-extfile", extensions,
       "-out", folder / f"{who}-cert.pem")


@pytest.fixture(scope="module")
def pki(tmp_path_factory):
    """Folders: `ours` with all there is; `anonymous` with our authority alone; `theirs` with
    an authority of others and a client's certificate of it; `forged` with that certificate
    and our authority."""
    top = tmp_path_factory.mktemp("pki")
    folders = {name: top / name for name in ("ours", "anonymous", "theirs", "forged")}
    for folder in folders.values():
        folder.mkdir()
    for name in ("ours", "theirs"):
        make_authority(folders[name], name)
        make_certificate(folders[name], folders[name], "client", "clientAuth")
    make_certificate(folders["ours"], folders["ours"], "server", "serverAuth")
    for name in ("anonymous", "forged"):
        (folders[name] / "ca-cert.pem").write_bytes((folders["ours"] / "ca-cert.pem").read_bytes())
    for file in ("client-cert.pem", "client-key.pem"):
        (folders["forged"] / file).write_bytes((folders["theirs"] / file).read_bytes())
    return folders


@pytest.fixture(scope="module")
def content(tmp_path_factory):
    return make_content(tmp_path_factory.mktemp("content") / "raw", SIZE)


class Server:
    """lodge disk serve at a port of the loopback."""

    def __init__(self, lodge, image, *arguments):
        with sockets.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.process = subprocess.Popen([str(a) for a in (
            lodge, "disk", "serve", image, "--format", "raw", "--tcp", f"127.0.0.1:{self.port}",
            *arguments)])

    def __enter__(self):
        while True:
            try:
                sockets.create_connection(("127.0.0.1", self.port), timeout=60).close()
                return self
            except ConnectionRefusedError:
                assert self.process.poll() is None

    def __exit__(self, *_):
        self.process.terminate()
        assert self.process.wait(timeout=60) == 0

    def url(self, certificates=None):
        return f"nbds://127.0.0.1:{self.port}?tls-certificates={certificates}" if certificates \
            else f"nbd://127.0.0.1:{self.port}"

    def qemu(self, certificates):
        """How qemu-img names it."""
        return ("--object", f"tls-creds-x509,id=tls,endpoint=client,dir={certificates}",
                "--image-opts",
                f"driver=nbd,host=127.0.0.1,port={self.port},export=,tls-creds=tls")


@pytest.mark.parametrize("io", ["uring", "threads"])
def test_others_read_and_write_within_tls(lodge, pki, content, tmp_path, io):
    image, copy = tmp_path / "image", tmp_path / "copy"
    image.write_bytes(bytes(SIZE))
    with Server(lodge, image, "--writable", "--tls", "require", "--tls-certificates", pki["ours"],
                "--io", io) as server:
        url = server.url(pki["anonymous"])
        assert "with TLS" in ok("nbdinfo", url)
        ok("nbdcopy", "--flush", content, url)
        ok("nbdcopy", "--connections=2", url, copy)
        ok("cmp", content, copy)
        ok("qemu-img", "convert", *server.qemu(pki["anonymous"]), "-O", "raw",
           tmp_path / "qemu")
        ok("cmp", content, tmp_path / "qemu")
        ok(lodge, "disk", "compare", url, "-f", "raw", content, "-F", "raw")
    ok("cmp", content, image)


def test_who_does_without_tls_is_refused_where_it_is_required(lodge, pki, content):
    with Server(lodge, content, "--tls", "require", "--tls-certificates", pki["ours"]) as server:
        assert run("nbdinfo", "--size", server.url()).returncode != 0
        assert run("nbdinfo", "--list", server.url()).returncode != 0
        assert run("qemu-img", "info", server.url()).returncode != 0
        assert "wants TLS" in refused(lodge, "disk", "info", server.url())
        # An old client, which cannot be told why.
        with sockets.create_connection(("127.0.0.1", server.port), timeout=60) as client:
            client.recv(18, sockets.MSG_WAITALL)
            client.sendall(b"\0\0\0\3IHAVEOPT\0\0\0\1\0\0\0\0")
            assert client.recv(1) == b""


def test_tls_is_for_who_asks_where_it_is_offered(lodge, pki, content):
    with Server(lodge, content, "--tls-certificates", pki["ours"]) as server:
        assert ok("nbdinfo", "--size", server.url()).strip() == str(SIZE)
        assert ok("nbdinfo", "--size", server.url(pki["anonymous"])).strip() == str(SIZE)
    with Server(lodge, content) as server:
        assert run("nbdinfo", "--size", server.url(pki["anonymous"])).returncode != 0
        assert "does not offer TLS" in refused(lodge, "disk", "info", server.url(pki["ours"]))


def test_a_server_that_is_not_believed_gets_nothing(lodge, pki, content):
    with Server(lodge, content, "--tls-certificates", pki["ours"]) as server:
        assert run("nbdinfo", server.url(pki["theirs"])).returncode != 0
        assert run("qemu-img", "info", *server.qemu(pki["theirs"])).returncode != 0
        assert "certificate" in refused(lodge, "disk", "info", server.url(pki["theirs"]))
        other = server.url(pki["ours"]) + "&tls-hostname=elsewhere"
        assert "mismatch" in refused(lodge, "disk", "info", other)
        by_the_system = server.url(pki["ours"]).split("?")[0]
        assert "certificate" in refused(lodge, "disk", "info", by_the_system)


def test_a_client_has_to_prove_itself_where_that_is_wanted(lodge, pki, content):
    with Server(lodge, content, "--tls-verify-peer", "--tls-certificates", pki["ours"]) as server:
        for folder in ("anonymous", "forged"):
            assert run("nbdinfo", server.url(pki[folder])).returncode != 0
            refused(lodge, "disk", "info", server.url(pki[folder]))
        assert run("nbdinfo", "--size", server.url()).returncode != 0
        assert ok("nbdinfo", "--size", server.url(pki["ours"])).strip() == str(SIZE)
        ok("qemu-img", "info", *server.qemu(pki["ours"]))
        ok(lodge, "disk", "compare", server.url(pki["ours"]), "-f", "raw", content, "-F", "raw")


def test_lodge_is_a_client_of_qemus_server_within_tls(lodge, pki, content, tmp_path):
    socket, pid, target = tmp_path / "socket", tmp_path / "pid", tmp_path / "target"
    target.write_bytes(bytes(SIZE))
    url = f"nbds+unix:///?socket={socket}&tls-certificates={pki['ours']}"
    ok("qemu-nbd", "--fork", "--pid-file", pid, "-f", "raw", "-k", socket, "--persistent",
       "--object", f"tls-creds-x509,id=tls,endpoint=server,dir={pki['ours']},verify-peer=yes",
       "--tls-creds", "tls", target)
    try:
        ok(lodge, "disk", "convert", "-f", "raw", content, url, "-O", "raw", "--existing",
           "--flush")
        ok(lodge, "disk", "compare", content, "-f", "raw", url, "-F", "raw")
        refused(lodge, "disk", "info", url.replace("/ours", "/forged"))
    finally:
        os.kill(int(pid.read_text()), signal.SIGTERM)
    ok("cmp", content, target)


def test_garbage_within_and_instead_of_a_handshake_harms_only_that_client(lodge, pki, content):
    hello = b"\0\0\0\3IHAVEOPT\0\0\0\5\0\0\0\0"
    with Server(lodge, content, "--tls-certificates", pki["ours"]) as server:
        for garbage in (b"", bytes(5), b"\x16\3\1\x40\1" + bytes(20), os.urandom(70000)):
            with sockets.create_connection(("127.0.0.1", server.port), timeout=60) as client:
                client.recv(18, sockets.MSG_WAITALL)
                client.sendall(hello)
                assert len(client.recv(20, sockets.MSG_WAITALL)) == 20
                try:
                    client.sendall(garbage)
                    client.shutdown(sockets.SHUT_WR)
                    while client.recv(65536):
                        pass
                except OSError:  # hung up, before or after all was sent
                    pass
        assert ok("nbdinfo", "--size", server.url(pki["anonymous"])).strip() == str(SIZE)


@pytest.mark.parametrize("arguments, word", [
    (("--tls", "require"), "--tls-certificates"),
    (("--tls", "maybe"), "require"),
    (("--tls-verify-peer",), "--tls-certificates"),
])
def test_options_that_do_not_fit_are_refused(lodge, content, arguments, word):
    assert word in refused(lodge, "disk", "serve", content, *arguments, status=2)


def test_bad_certificates_and_names_are_refused_in_a_line(lodge, pki, content, tmp_path):
    serve = (lodge, "disk", "serve", content, "--tls", "on", "--tls-certificates")
    assert "No such file" in refused(*serve, tmp_path)
    for name in ("server-cert.pem", "server-key.pem"):
        (tmp_path / name).write_bytes((pki["ours"] / name).read_bytes())
    (tmp_path / "server-key.pem").write_bytes((pki["theirs"] / "client-key.pem").read_bytes())
    assert "server-key.pem" in refused(*serve, tmp_path)
    for url in ("nbds://", "nbds+unix:///", "nbds://localhost?socket=x", "nbd://h?tls-hostname=x",
                "nbds://localhost?what=1"):
        assert "write nbd" in refused(lodge, "disk", "info", url)
