"""The shell in which documentation runs."""

import os
import shlex
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def shell(tmp_path_factory) -> dict[str, str]:
    """Variables with which a shell finds this tree's speechrnn; pip does nothing, since everything is installed.

    ``corpus check`` may find something (exit code 1); whatever else is not done ends the example.
    """
    folder = tmp_path_factory.mktemp("bin")
    command = f'{shlex.quote(sys.executable)} -m speechrnn.cli.main "$@"'
    scripts = {"speechrnn": command + ' || { code=$?; test "$1 $2 $code" = "corpus check 1"; }', "pip": "exit 0"}
    for name, script in scripts.items():
        (folder / name).write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
        (folder / name).chmod(0o755)
    return {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
