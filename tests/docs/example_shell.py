"""The shell in which documentation runs."""

import os
import shlex
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
SPEECHRNN = """
case "$1 $2" in
  "finetune "* | "recipe recipes/custom") set -- "$@" --trainer.max_epochs 2 ;;
esac
{python} -m speechrnn.cli.main "$@" || {{ code=$?; test "$1 $2 $code" = "corpus check 1"; }}
"""


def make_shell(folder: Path) -> dict[str, str]:
    """Variables with which a shell finds this tree's speechrnn; pip does nothing, since everything is installed.

    ``corpus check`` may find something (exit code 1); whatever else is not done ends the example. Fine-tuning and the
    recipe for own recordings train for two epochs: on a minute of speech they would choose hundreds.
    """
    scripts = {"speechrnn": SPEECHRNN.format(python=shlex.quote(sys.executable)), "pip": "exit 0\n"}
    for name, script in scripts.items():
        (folder / name).write_text("#!/bin/sh\n" + script, encoding="utf-8")
        (folder / name).chmod(0o755)
    return {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
