"""Models of the Hugging Face Hub."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from speechrnn.errors import ModelError

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)


def download(hub_id: str, patterns: Sequence[str]) -> Path:
    """Download a model of the Hub.

    Args:
        hub_id: ``owner/name``. If a folder ``owner`` exists, it is taken for a mistyped path and not looked up.
        patterns: Files to download.

    Returns:
        The folder, not yet checked.

    Raises:
        ModelError: It is not a Hub id, the extra ``hub`` is not installed, or the Hub has no such model.
    """
    if not _HUB_ID.fullmatch(hub_id):
        raise ModelError(
            f"{hub_id[:200]}: there is no such model folder, and this is not a Hugging Face Hub id (owner/name); "
            "check the path"
        )
    if (parent := Path(hub_id).parent).exists():
        raise ModelError(f"{hub_id}: there is no such model folder in {parent}; check the path")
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise ModelError(
            f"{hub_id}: there is no such model folder; if it is a model of the Hugging Face Hub, "
            "pip install 'speechrnn[hub]'"
        ) from None
    try:
        return Path(snapshot_download(hub_id, allow_patterns=sorted(patterns)))
    # Its errors have no common base: OSError, ValueError, and those of the HTTP library that it uses.
    except Exception as error:
        reason = " ".join(str(error).split())
        raise ModelError(
            f"{hub_id}: there is no such model folder, and the download from the Hugging Face Hub failed ({reason}); "
            "check the name"
        ) from error
