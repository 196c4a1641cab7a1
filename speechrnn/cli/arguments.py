"""Options shared by commands, and printing of results and progress."""

from __future__ import annotations

import argparse
import inspect
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import fields
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, get_args, get_type_hints

from speechrnn.atomic_io import read_text
from speechrnn.errors import ConfigError
from speechrnn.recognition.decoders import DEFAULT_HOTWORD_BONUS, OLD_NAMES, DecodingConfig

_METAVARS = {"decoder": "NAME", "cut": "NAME", "hotwords": "LIST", str: "FILE", int: "N", float: "X"}
_SHARED: dict[str, dict[str, Any]] = {
    "--device": {"default": "auto", "metavar": "NAME", "help": "auto (default), cpu, cuda, cuda:1 …"},
    "--backend": {
        **{"default": "auto", "metavar": "NAME"},
        "help": "what computes the model on a CPU: torch, onnx (ONNX Runtime), or auto (default), the faster one",
    },
    "--precision": {
        **{"default": "auto", "metavar": "NAME"},
        "help": "float32 (default); for LSTMs on a CPU also bfloat16 or int8: faster, log-probabilities change",
    },
    "--batch-seconds": {
        **{"type": float, "default": 120.0, "metavar": "S"},
        "help": "seconds of audio per batch (default: 120); less needs less memory",
    },
    "--speaker": {"metavar": "NAME", "help": "speaker of all recordings, whose state speechrnn adapt stored"},
    "--channel": {"type": int, "metavar": "N", "help": "use channel N, from 0, instead of the mean of all"},
}
"""Options of several commands."""
_LONGEST_NOTE = 2000
_CONTROLS = {code: f"\\x{code:02x}" for code in range(0x20) if chr(code) not in "\t\n"}
_CONTROLS |= {code: f"\\u{code:04x}" for code in range(0x7F, 0xA0)}  # JSON does not escape these
_COLUMN_CONTROLS = _CONTROLS | {ord("\t"): "\\t", ord("\n"): "\\n"}


def add_group(parser: argparse.ArgumentParser, title: str, *shared: str) -> argparse._ArgumentGroup:
    """The parser's group of options with this title, created if missing; adds options of ``_SHARED`` to it."""
    known = (group for group in parser._action_groups if group.title == title)
    group = next(known, None) or parser.add_argument_group(title)
    for option in shared:
        group.add_argument(option, **_SHARED[option])
    return group


def add_model_argument(
    parser: argparse.ArgumentParser, *shared: str, count: Literal["one", "several", "optional"] = "one"
) -> None:
    """Declare ``-m/--model``, and the given options of ``_SHARED`` after it.

    The command gets ``args.model``: a model, several as a list, or None if it is optional.
    """
    more = "; several -m form an ensemble" if count == "several" else ""
    add_group(parser, "model").add_argument(
        *("-m", "--model"),
        metavar="M",
        dest="models",
        action="append",
        help=f"model folder, or owner/name on the Hugging Face Hub (default: $SPEECHRNN_MODEL){more}",
    )
    add_group(parser, "model", *shared)
    parser.set_defaults(model_count=count)


def add_corpus_argument(parser: argparse.ArgumentParser, meaning: str = "a corpus in any known format") -> None:
    """Declare CORPUS and ``--format``."""
    parser.add_argument("corpus", metavar="CORPUS", help=meaning)
    add_group(parser, "input").add_argument(
        "--format",
        metavar="NAME",
        help="format of the corpus: nemo, kaldi, ljspeech, librispeech, table (CSV, TSV, audiofolder), stm, lhotse, "
        "shar or sidecar (default: detected)",
    )


def add_config_arguments(
    parser: argparse.ArgumentParser, config: type, title: str, *names: str, prefix: str = ""
) -> None:
    """Declare fields of a configuration dataclass, by default all, as options in a group; docstrings are their help."""
    meanings = re.findall(r"^ {4}(\w+): (.+?)(?=^ {4}\w|\n\n|\Z)", inspect.getdoc(config) or "", re.M | re.S)
    for name, hint in get_type_hints(config).items():
        if name.startswith("_") or (names and name not in names):
            continue
        kind = next((each for each in (int, float) if each is hint or each in get_args(hint)), str)
        about: dict[str, Any] = {"dest": prefix + name, "type": kind, "metavar": _METAVARS.get(name) or _METAVARS[kind]}
        if hint is bool:
            about = {"dest": prefix + name, "action": "store_true", "default": None}
        is_language = config is DecodingConfig and name.startswith(("language", "word_", "hot"))
        group = add_group(parser, "language model" if is_language else title)
        group.add_argument(
            f"--{(prefix + name).replace('_', '-')}", help=" ".join(dict(meanings)[name].split()), **about
        )
        for old in (old for old, new in OLD_NAMES.items() if new == name):
            group.add_argument(f"--{old.replace('_', '-')}", help=argparse.SUPPRESS, **about)


def read_config(args: argparse.Namespace, config: type, *, prefix: str = "") -> dict[str, Any]:
    """The given options of :func:`add_config_arguments`, checked, with the content of their files.

    Raises:
        ConfigError: A file cannot be read, or an option is wrong; the message begins with the option.
    """
    given = {
        option.name: _READERS[option.name](value) if option.name in _READERS else value
        for option in fields(config)
        if (value := getattr(args, prefix + option.name, None)) is not None
    }
    try:
        if given:
            config(**given)
    except ConfigError as error:
        name, colon, reason = str(error).partition(":")
        option = prefix + name.rpartition(".")[2]
        raise ConfigError(f"--{option.replace('_', '-')}{colon}{reason}") from None
    return given


def _parse_hotwords(written: str) -> dict[str, float]:
    """Parse ``phrase:bonus`` separated by commas; the bonus is optional."""
    hotwords = {}
    for part in written.split(","):
        phrase, colon, bonus = part.strip().rpartition(":")
        if not colon:
            phrase, bonus = part.strip(), str(DEFAULT_HOTWORD_BONUS)
        if not phrase.strip():
            raise ConfigError(f'--hotwords {written}: expected phrases separated by commas, as in "cuDNN:8,New York"')
        try:
            hotwords[phrase.strip()] = float(bonus)
        except ValueError:
            raise ConfigError(f"--hotwords {part.strip()}: expected a number after the colon, got {bonus!r}") from None
    return hotwords


def _read_allowed(option: str, path: str) -> list[str]:
    """Read allowed texts, one per line."""
    try:
        lines = read_text(path, error=ConfigError, expected="a text file in UTF-8, one entry per line").splitlines()
    except ConfigError as error:
        raise ConfigError(f"{option} {error}") from None
    return [line.strip() for line in lines if line.strip()]


_READERS: dict[str, Callable[[str], Any]] = {
    "words": partial(_read_allowed, "--words"),
    "sentences": partial(_read_allowed, "--sentences"),
    "hotwords": _parse_hotwords,
}


def make_output_folder(path: str) -> Path:
    """Create the folder of ``-o``.

    Raises:
        ConfigError: It cannot be created.
    """
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"-o {folder}: cannot be created ({error.strerror}); choose another folder") from error
    return folder


def escape_controls(text: str, *, is_column: bool = False) -> str:
    """Escape control characters for a terminal, with ``is_column`` also tabs and line breaks."""
    return text.translate(_COLUMN_CONTROLS if is_column else _CONTROLS)


class OutputError(Exception):
    """Standard output cannot be written."""

    def __init__(self, cause: OSError) -> None:
        super().__init__(f"standard output: cannot be written ({cause.strerror}); check it, or write to a file")
        self.is_closed_by_reader = isinstance(cause, BrokenPipeError)


def print_text(text: str, *, end: str = "\n") -> None:
    """Print and flush results, with control characters escaped.

    Raises:
        OutputError: Standard output cannot be written.
    """
    try:
        print(text.translate(_CONTROLS), end=end, flush=True)
    except OSError as error:
        raise OutputError(error) from error


def print_note(message: str) -> None:
    """Write a line to the present standard error (a progress bar may replace it), if possible."""
    if len(message) > _LONGEST_NOTE:
        message = f"{message[: _LONGEST_NOTE // 2]} … {message[-_LONGEST_NOTE // 2 :]}"
    with suppress(OSError):
        sys.stderr.write(f"speechrnn: {escape_controls(message)}\n")  # one write: other processes write too


@contextmanager
def show_progress(name: str) -> Iterator[Callable[[float, float], None]]:
    """A progress bar on a terminal; yields a function of the finished and the total amount."""
    if not sys.stderr.isatty() or find_spec("rich") is None:  # without torch only a few packages are installed
        yield lambda done, total: None
        return
    from rich.console import Console
    from rich.progress import Progress

    # By default rich redirects standard output to the terminal.
    with Progress(console=Console(stderr=True), redirect_stdout=False, transient=True) as bar:
        task = bar.add_task(escape_controls(Path(name).name, is_column=True))
        yield lambda done, total: bar.update(task, completed=done, total=total)
