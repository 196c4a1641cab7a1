"""Fetch a public corpus: download, verify, unpack, verify again.

Services that pack an archive for each request may change its bytes while the recordings stay the same. `content_hash`
over the unpacked recordings can be verified nevertheless.
"""

from __future__ import annotations

import hashlib
import shutil
import sys
import tarfile
import urllib.parse
import zipfile
import zlib
from pathlib import Path

from speechrnn.errors import CorpusError

_TIMEOUT_SECONDS = 30


def fetch_corpus(
    url: str,
    folder: Path,
    *,
    inside: str,
    pattern: str,
    content_sha256: str,
    archive_sha256: str | None = None,
) -> Path:
    """Download and unpack a corpus, unless it exists already, and verify its recordings.

    Args:
        url: A .tar.gz or .zip archive.
        folder: The folder to unpack to; the archive is stored beside it.
        inside: The recordings' folder inside `folder`, as a glob pattern.
        pattern: The recordings in that folder, as a glob pattern.
        content_sha256: Expected `content_hash` of the recordings.
        archive_sha256: The archive's own hash, if its bytes never change.

    Returns:
        The recordings' folder.

    Raises:
        CorpusError: The download failed, or the content is not the corpus.
    """
    if not folder.exists():
        extract(download(url, folder.parent, sha256=archive_sha256), folder)
    again = f"delete {folder} and the archive beside it and run again"
    found = [path for path in sorted(folder.glob(inside)) if path.is_dir()]
    if len(found) != 1:
        raise CorpusError(f"{folder}: expected one folder {inside} inside, found {len(found)}; {again}")
    actual = content_hash(found[0], pattern)
    if actual != content_sha256:
        raise CorpusError(
            f"{found[0]}: expected recordings with sha256 {content_sha256}, found {actual}; {again}, "
            "or pass a copy that you trust with --source"
        )
    return found[0]


def download(url: str, destination_folder: Path, *, sha256: str | None) -> Path:
    """Download one file with pooch, unless it exists already; an incomplete file is removed.

    Args:
        url: An http or https address that ends in the file's name.
        destination_folder: The folder of the file; created if missing.
        sha256: The file's hash, 64 hexadecimal digits; None does not verify it.

    Returns:
        The downloaded file.

    Raises:
        CorpusError: The address cannot be reached, the file is incomplete, or its hash differs.
    """
    import pooch

    parts = urllib.parse.urlsplit(url)
    name = urllib.parse.unquote(parts.path).rsplit("/", 1)[-1]
    if parts.scheme not in ("http", "https") or name in ("", ".", "..") or "\\" in name:
        raise CorpusError(f"{url}: expected an http or https address that ends in a file's name")
    target = destination_folder / name
    if target.exists():
        if sha256 is not None and pooch.file_hash(str(target)) != sha256:
            raise CorpusError(f"{target}: its sha256 is not {sha256}; delete it and run again")
        return target
    pooch.get_logger().setLevel("WARNING")
    downloader = pooch.HTTPDownloader(progressbar=sys.stderr.isatty(), timeout=_TIMEOUT_SECONDS)
    try:
        pooch.retrieve(url, sha256, fname=target.name, path=destination_folder, downloader=downloader)
    except (OSError, ValueError) as error:  # those of requests are OSErrors
        raise CorpusError(
            f"{url}: the download failed ({' '.join(str(error).split())}); fetch it by hand, unpack it and pass its "
            "folder with --source"
        ) from error
    return target


def extract(archive: Path, folder: Path) -> Path:
    """Unpack an archive into a new folder, which appears only when it is complete.

    Args:
        archive: A tar file, compressed or not, or a zip file.
        folder: The folder to create; it must not exist.

    Returns:
        The folder.

    Raises:
        CorpusError: The folder exists, the archive is damaged, or a member would be outside the folder.
    """
    if folder.exists():
        raise CorpusError(f"{folder}: exists already; delete it to unpack {archive.name} again")
    beside = folder.with_name(f"{folder.name}.part")
    shutil.rmtree(beside, ignore_errors=True)
    try:
        _unpack(archive, beside)
        beside.replace(folder)
    except (OSError, EOFError, RuntimeError, tarfile.TarError, zipfile.BadZipFile, zlib.error) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise CorpusError(f"{archive}: cannot be unpacked ({reason}); delete it and fetch it again") from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return folder


def _unpack(archive: Path, folder: Path) -> None:
    folder.mkdir(parents=True)
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as members:
            for name in members.namelist():
                parts = name.replace("\\", "/").split("/")
                if ".." in parts or parts[0] == "" or ":" in parts[0]:
                    raise OSError(f"the member {name!r} would be outside the folder")
            members.extractall(folder)
        return
    with tarfile.open(archive) as members:
        members.extractall(folder, filter="data")


def content_hash(folder: Path, pattern: str) -> str:
    """Hash the names and the bytes of a folder's files.

    Args:
        folder: The folder.
        pattern: The files, as a glob pattern relative to `folder`.

    Returns:
        The sha256 over the files in the order of their names (by code point), as 64 hexadecimal digits. Each file
        contributes its name relative to `folder`, in UTF-8 with forward slashes; a zero byte; its size as eight bytes,
        big-endian; its bytes.
    """
    files = {path.relative_to(folder).as_posix(): path for path in folder.glob(pattern) if path.is_file()}
    digest = hashlib.sha256()
    for name in sorted(files):
        content = files[name].read_bytes()
        digest.update(name.encode("utf-8", "surrogateescape") + b"\0" + len(content).to_bytes(8, "big"))
        digest.update(content)
    return digest.hexdigest()
