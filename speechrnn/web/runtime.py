"""ONNX Runtime for web browsers: two files of the npm package onnxruntime-web, copied when a page is exported."""

from __future__ import annotations

import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

from speechrnn.errors import ConfigError

PACKAGE = "onnxruntime-web"
VERSION = "1.30.0"
FILES = {
    "dist/ort.wasm.bundle.min.mjs": "onnxruntime-web.js",
    "dist/ort-wasm-simd-threaded.wasm": "ort-wasm-simd-threaded.wasm",
}
"""Files of the package, and their names in the page's folder. Not every web server knows the type of ``.mjs``."""
_OPTION = "--onnxruntime-web"
_SECONDS = 300
_ADVICE = f"give {_OPTION}: a folder node_modules/{PACKAGE}, or the file of npm pack {PACKAGE}@{VERSION}"


def read_runtime(source: str | Path | None = None) -> dict[str, bytes]:
    """Read the files of the runtime, by their names in the page's folder.

    Args:
        source: The folder of the installed npm package, or its archive; None: ``npm pack`` fetches :data:`VERSION`.

    Raises:
        ConfigError: ``source`` does not hold the files, or npm is missing or failed.
    """
    if source is not None:
        return _read_folder(Path(source)) if Path(source).is_dir() else _read_archive(Path(source))
    with tempfile.TemporaryDirectory() as folder:
        return _read_archive(_fetch(Path(folder)))


def _fetch(folder: Path) -> Path:
    """Fetch the package's archive into a folder."""
    npm = shutil.which("npm")
    if npm is None:
        raise ConfigError(f"export: the page needs {PACKAGE}, and npm is not installed; install it, or {_ADVICE}")
    command = [npm, "pack", f"{PACKAGE}@{VERSION}", "--silent", "--ignore-scripts"]
    try:
        subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True, timeout=_SECONDS)
        [archive] = folder.glob("*.tgz")
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        reason = " ".join(str(getattr(error, "stderr", None) or error).split())[-300:]
        raise ConfigError(f"export: npm pack {PACKAGE}@{VERSION} failed ({reason}); try again, or {_ADVICE}") from error
    return archive


def _read_folder(folder: Path) -> dict[str, bytes]:
    try:
        return {target: (folder / name).read_bytes() for name, target in FILES.items()}
    except OSError as error:
        raise _refuse(folder, f"no {error.filename}") from error


def _read_archive(path: Path) -> dict[str, bytes]:
    content = {}
    try:
        with tarfile.open(path) as archive:
            for name, target in FILES.items():
                member = archive.extractfile(f"package/{name}")
                if member is None:
                    raise KeyError(name)
                content[target] = member.read()
    except (OSError, tarfile.TarError, EOFError, KeyError) as error:
        reason = getattr(error, "strerror", None) or error
        raise _refuse(path, str(reason)) from error
    return content


def _refuse(path: Path, reason: str) -> ConfigError:
    return ConfigError(f"{_OPTION} {path}: not the npm package {PACKAGE}, version {VERSION} or later ({reason})")
