import hashlib
import io
import random
import socket
import tarfile
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from speechrnn.corpus.download import content_hash, download, extract, fetch_corpus
from speechrnn.errors import CorpusError

BODY = random.Random(0).randbytes(700_000)
BODY_SHA256 = hashlib.sha256(BODY).hexdigest()


class Handler(BaseHTTPRequestHandler):
    """Serves what its server's `files` hold, whole or cut short."""

    def do_GET(self) -> None:
        self.server.requests.append(self.path)
        body = self.server.files.get(self.path)
        if body is None:
            self.send_error(404)
            return
        self.send_response(200)
        if self.server.says_length:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: self.server.cut_at])

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.files, server.requests = {"/files/a.bin": BODY}, []
    server.says_length, server.cut_at = True, None
    server.url = f"http://127.0.0.1:{server.server_port}/files/a.bin"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("says_length", [True, False])
@pytest.mark.parametrize("sha256", [BODY_SHA256, None])
def test_a_download_has_the_bytes_and_the_name_of_the_original(server, tmp_path, sha256, says_length):
    server.says_length = says_length
    path = download(server.url, tmp_path / "new", sha256=sha256)
    assert path == tmp_path / "new" / "a.bin"
    assert path.read_bytes() == BODY
    assert names(tmp_path / "new") == ["a.bin"]


def test_an_existing_file_is_not_downloaded_again(server, tmp_path):
    download(server.url, tmp_path, sha256=BODY_SHA256)
    download(server.url, tmp_path, sha256=BODY_SHA256)
    assert len(server.requests) == 1


def test_an_existing_file_with_another_hash_is_refused_and_kept(server, tmp_path):
    (tmp_path / "a.bin").write_bytes(b"mine")
    with pytest.raises(CorpusError, match=f"its sha256 is not {BODY_SHA256}; delete it"):
        download(server.url, tmp_path, sha256=BODY_SHA256)
    assert (tmp_path / "a.bin").read_bytes() == b"mine"
    assert server.requests == []


def test_a_truncated_download_is_an_error_and_leaves_no_file(server, tmp_path):
    server.cut_at = 300_000
    with pytest.raises(CorpusError, match=r"300000 bytes read.*--source"):
        download(server.url, tmp_path, sha256=BODY_SHA256)
    assert names(tmp_path) == []
    server.cut_at = None
    assert download(server.url, tmp_path, sha256=BODY_SHA256).read_bytes() == BODY


def test_a_wrong_hash_names_both_hashes_and_keeps_nothing(server, tmp_path):
    with pytest.raises(CorpusError, match=f"expected {'0' * 64} but got {BODY_SHA256}.*--source"):
        download(server.url, tmp_path, sha256="0" * 64)
    assert names(tmp_path) == []


def test_a_missing_file_and_an_unreachable_host_suggest_a_manual_download(server, tmp_path):
    gone = server.url.replace("a.bin", "gone.bin")
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))  # bound, but without a listener
        closed = f"http://127.0.0.1:{silent.getsockname()[1]}/a.bin"
        for url, reason in [(gone, "404|Not Found"), (closed, "refused")]:
            with pytest.raises(CorpusError, match=rf"^{url}: .*({reason}).*by hand.*--source") as caught:
                download(url, tmp_path, sha256=None)
            assert "\n" not in str(caught.value)


@pytest.mark.parametrize("is_terminal", [True, False])
def test_progress_appears_on_a_terminal_only(server, tmp_path, monkeypatch, is_terminal):
    screen = io.StringIO()
    monkeypatch.setattr(screen, "isatty", lambda: is_terminal)
    monkeypatch.setattr("sys.stderr", screen)
    download(server.url, tmp_path, sha256=None)
    assert ("100%" in screen.getvalue()) == is_terminal
    assert bool(screen.getvalue()) == is_terminal


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://host/a", "http://host/", "https://host/a/..", "a.zip"])
def test_addresses_that_are_not_web_files_are_refused(tmp_path, url):
    with pytest.raises(CorpusError, match="expected an http or https address"):
        download(url, tmp_path, sha256=None)


def make_tar(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def make_zip(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


MAKERS = pytest.mark.parametrize(("make", "name"), [(make_tar, "a.tar.gz"), (make_zip, "a.zip")])


@MAKERS
def test_archives_unpack_into_a_new_folder(tmp_path, make, name):
    archive = make(tmp_path / name, {"x/1.wav": b"one", "x/y/2.wav": b"two"})
    folder = extract(archive, tmp_path / "out" / "corpus")
    assert (folder / "x" / "1.wav").read_bytes() == b"one"
    assert (folder / "x" / "y" / "2.wav").read_bytes() == b"two"
    assert names(tmp_path / "out") == ["corpus"]


@MAKERS
@pytest.mark.parametrize("member", ["../evil", "x/../../evil", "/tmp/speechrnn-evil"])
def test_an_archive_member_outside_the_folder_leaves_no_files(tmp_path, make, name, member):
    archive = make(tmp_path / name, {"x/1.wav": b"one", member: b"evil"})
    (tmp_path / "out").mkdir()
    if make is make_tar and member.startswith("/"):  # tar's own rule: a leading slash is dropped, and that is safe
        extract(archive, tmp_path / "out" / "corpus")
    else:
        with pytest.raises(CorpusError, match="cannot be unpacked"):
            extract(archive, tmp_path / "out" / "corpus")
        assert names(tmp_path / "out") == []
    assert not (tmp_path / "evil").exists()
    assert not Path("/tmp/speechrnn-evil").exists()


def test_a_tar_link_that_points_outside_is_refused(tmp_path):
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as archive:
        info = tarfile.TarInfo("x/link")
        info.type, info.linkname = tarfile.SYMTYPE, "../../../elsewhere"
        archive.addfile(info)
    with pytest.raises(CorpusError, match="cannot be unpacked"):
        extract(tmp_path / "a.tar.gz", tmp_path / "corpus")


@MAKERS
def test_a_truncated_archive_is_refused_and_leaves_no_files(tmp_path, make, name):
    archive = make(tmp_path / name, {"x/1.wav": BODY, "x/2.wav": BODY})
    archive.write_bytes(archive.read_bytes()[:900_000])
    with pytest.raises(CorpusError, match="cannot be unpacked"):
        extract(archive, tmp_path / "corpus")
    assert names(tmp_path) == [name]


def test_an_existing_folder_is_never_unpacked_over(tmp_path):
    archive = make_zip(tmp_path / "a.zip", {"1.wav": b"new"})
    (tmp_path / "corpus").mkdir()
    with pytest.raises(CorpusError, match="exists already"):
        extract(archive, tmp_path / "corpus")


def test_content_hash_is_that_of_names_sizes_and_bytes_in_order(tmp_path):
    for name, content in [("b.wav", b"2"), ("a.wav", b"1"), ("notes.txt", b"not counted")]:
        (tmp_path / name).write_bytes(content)
    by_hand = b"a.wav\x00" + bytes(7) + b"\x01" + b"1" + b"b.wav\x00" + bytes(7) + b"\x01" + b"2"
    assert content_hash(tmp_path, "*.wav") == hashlib.sha256(by_hand).hexdigest()


def test_content_hash_sees_a_moved_byte_a_new_name_and_a_missing_file(tmp_path):
    def hash_of(files: dict[str, bytes]) -> str:
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        folder.mkdir()
        for name, content in files.items():
            (folder / name).write_bytes(content)
        return content_hash(folder, "*")

    variants = [{"a": b"xy", "b": b"z"}, {"a": b"x", "b": b"yz"}, {"a": b"xy", "c": b"z"}, {"a": b"xy"}]
    assert len({hash_of(files) for files in variants}) == len(variants)
    assert hash_of(variants[0]) == hash_of(dict(reversed(variants[0].items())))


def fetch(server, folder: Path, content_sha256: str) -> Path:
    url = server.url.replace("a.bin", "corpus-1.0.zip")
    return fetch_corpus(url, folder, inside="*/recordings", pattern="*.wav", content_sha256=content_sha256)


@pytest.fixture
def corpus(server, tmp_path):
    """The address holds a corpus; the value is its content's hash."""
    members = {"corpus-1.0/recordings/1.wav": b"one", "corpus-1.0/readme": b"hello"}
    server.files["/files/corpus-1.0.zip"] = make_zip(tmp_path / "made.zip", members).read_bytes()
    return hashlib.sha256(b"1.wav\x00" + bytes(7) + b"\x03" + b"one").hexdigest()


def test_a_corpus_is_fetched_once_and_checked_each_time(server, corpus, tmp_path):
    folder = tmp_path / "data" / "mini"
    assert fetch(server, folder, corpus) == folder / "corpus-1.0" / "recordings"
    assert fetch(server, folder, corpus) == folder / "corpus-1.0" / "recordings"
    assert len(server.requests) == 1
    (folder / "corpus-1.0" / "recordings" / "1.wav").write_bytes(b"changed")
    with pytest.raises(CorpusError, match=f"expected recordings with sha256 {corpus}, found .*delete"):
        fetch(server, folder, corpus)


def test_another_content_or_layout_is_refused(server, corpus, tmp_path):
    with pytest.raises(CorpusError, match=f"found {corpus}.*--source"):
        fetch(server, tmp_path / "data" / "mini", "0" * 64)
    server.files["/files/corpus-1.0.zip"] = make_zip(tmp_path / "other.zip", {"1.wav": b"one"}).read_bytes()
    with pytest.raises(CorpusError, match="expected one folder"):
        fetch(server, tmp_path / "other" / "mini", corpus)
