"""Where a model lies: in a folder, or on the Hugging Face Hub."""

from __future__ import annotations

import os
import re
from pathlib import Path

from speechrnn.errors import ModelError
from speechrnn.model_folder import LANGUAGE_FOLDER, MODEL_FILES, SPEAKERS_FOLDER

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)


def find_folder(name_or_path: str | os.PathLike[str]) -> Path:
    """Find a model's folder, downloading it from the Hub where that is what was named.

    Args:
        name_or_path: A path, or ``owner/name`` of a model on the Hub. A path that exists is never looked for there, nor
            one whose first folder exists: it is a mistyped path, and none of the Hub's business.

    Returns:
        The folder; not yet checked.

    Raises:
        ModelError: There is no such folder, and no such model on the Hub; the message says what was tried.
    """
    path = Path(name_or_path).expanduser()
    if path.exists():
        return path
    if not isinstance(name_or_path, str) or not _HUB_ID.fullmatch(name_or_path):
        raise ModelError(
            f"{name_or_path}: there is no such model folder, and this is no Hugging Face Hub id (owner/name); "
            "check the path"
        )
    if path.parent.exists():
        raise ModelError(f"{name_or_path}: there is no such model folder in {path.parent}; check the path")
    return _download(name_or_path)


def _download(hub_id: str) -> Path:
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise ModelError(
            f"{hub_id}: there is no such model folder; if it is a model of the Hugging Face Hub, "
            "pip install 'speechrnn[hub]'"
        ) from None
    try:
        folders = {LANGUAGE_FOLDER, SPEAKERS_FOLDER}
        patterns = {*MODEL_FILES - folders, *(f"{name}/*" for name in folders)}
        return Path(snapshot_download(hub_id, allow_patterns=sorted(patterns)))
    except (
        Exception
    ) as error:  # its errors share no base: OSError, ValueError, and those of whichever HTTP library it uses
        reason = " ".join(str(error).split())
        raise ModelError(
            f"{hub_id}: there is no such model folder, and the Hugging Face Hub does not give it ({reason}); "
            "check the name"
        ) from error
