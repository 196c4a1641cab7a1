"""``speechrnn``: runs a command; errors become one line and an exit code.

A command is a module of this folder with ``SUMMARY`` and ``EXAMPLE`` (one line each), ``add_arguments(parser)`` and
``run(args, rest) -> exit code``; ``corpus check`` is the module ``corpus_check``. With ``TAKES_REST = True`` arguments
that the parser does not know (``--KEY VALUE``) are passed as ``rest``; with ``TRAINS = True`` the command logs its
progress, in distributed training from the first process only. Heavy imports belong into ``run``: ``--help`` is quick.
"""

from __future__ import annotations

import argparse
import difflib
import errno
import io
import logging
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from typing import Any, NoReturn

import speechrnn
from speechrnn.cli.arguments import OutputError, print_note, print_text
from speechrnn.errors import ConfigError, SpeechRNNError
from speechrnn.processes import is_first_process

COMMANDS = (
    "recipe",
    "train",
    "finetune",
    "adapt",
    "transcribe",
    "listen",
    "evaluate",
    "align",
    "inspect",
    "corpus check",
    "corpus convert",
    "corpus pack",
    "corpus synthesize",
    "lm build",
    "lm tune",
    "export",
    "models",
    "benchmark",
)
EXIT_CODES = """exit codes:
  0    done
  1    done, but read the messages on standard error (files that failed or are damaged, utterances left out)
  2    the request or the input is wrong; one line says what
  130  interrupted; finished work is kept"""

_AFTER_DASHES = "\0"
"""Marks arguments after ``--`` during parsing: they are not options."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        argv: Arguments without the program's name; None: those of the process.

    Returns:
        Exit code (:data:`EXIT_CODES`).
    """
    for name, stand_in in (("stdout", _ClosedOutput), ("stderr", io.StringIO)):  # of streams that are closed
        if getattr(sys, name) is None:
            os.open(os.devnull, os.O_RDWR)
            setattr(sys, name, stand_in())
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    _Handler.is_incomplete = False
    try:
        code = _run(list(sys.argv[1:] if argv is None else argv))
        print_text("", end="")
        return code or int(_Handler.is_incomplete)
    except SpeechRNNError as error:
        print_note(f"error: {' '.join(str(error).splitlines())}")
        return 2
    except KeyboardInterrupt:
        print_note("interrupted")
        return 130
    except OutputError as error:
        with suppress(OSError):  # the interpreter flushes again at exit
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.stdout = io.StringIO()
        if error.is_closed_by_reader:
            return 1
        print_note(f"error: {error}")
        return 2


class _ClosedOutput(io.StringIO):
    """Standard output of a process that was started without it."""

    def flush(self) -> None:
        if self.tell():
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))


def _run(arguments: list[str]) -> int:
    if not arguments:
        with suppress(OSError):
            sys.stderr.write(_describe_commands() + "\n")
        return 2
    is_group = any(name.startswith(f"{arguments[0]} ") for name in COMMANDS)
    words = 2 if is_group else 1  # of the command's name
    if arguments[words - 1 : words] in (["-h"], ["--help"]):
        print_text(_describe_commands(arguments[0] if is_group else ""))
        return 0
    if arguments[0] == "--version":
        print_text(f"speechrnn {speechrnn.__version__}")
        return 0
    name = " ".join(arguments[:words])
    module = _find_command(name)
    trains = getattr(module, "TRAINS", False)
    try:
        args, rest = _parse(_make_parser(name, module), arguments[words:], getattr(module, "TAKES_REST", False))
    except SystemExit as done:  # --help
        return int(done.code or 0)
    logger, handler = logging.getLogger("speechrnn"), _Handler()
    earlier = logger.level
    logger.addHandler(handler)
    is_quiet = trains and not is_first_process()
    level = logging.DEBUG if args.verbose else logging.INFO if trains else logging.WARNING
    logger.setLevel(logging.ERROR if is_quiet else level)
    try:
        return int(module.run(args, rest))
    finally:
        logger.removeHandler(handler)
        logger.setLevel(earlier)


class _Handler(logging.Handler):
    """Writes ``speechrnn: warning: …`` to standard error.

    Attributes:
        is_incomplete: Whether a record had ``extra={"is_incomplete": True}``.
    """

    is_incomplete = False

    def emit(self, record: logging.LogRecord) -> None:
        _Handler.is_incomplete |= getattr(record, "is_incomplete", False)
        level = "" if record.levelno <= logging.INFO else f"{record.levelname.lower()}: "
        print_note(level + record.getMessage())


def _describe_commands(group: str = "") -> str:
    """The help of the program, or of a group of commands."""
    names = [name for name in COMMANDS if name.startswith(f"{group} " if group else "")]
    if group:
        head, foot = f"usage: speechrnn {group} COMMAND … | --help", f"example:\n  {_find_command(names[0]).EXAMPLE}"
    else:
        head = "usage: speechrnn COMMAND … | --help | --version\n\nTrain and use recurrent CTC speech recognisers."
        foot = f"speechrnn COMMAND --help describes the options, with an example.\n\n{EXIT_CODES}"
    lines = [f"  {name:<14} {_find_command(name).SUMMARY}" for name in names]
    return "\n".join([head, "", "commands:", *lines, "", foot])


def _find_command(name: str) -> Any:
    if name in COMMANDS:
        return import_module(f"speechrnn.cli.{name.replace(' ', '_')}")
    group = [each for each in COMMANDS if each.startswith(name.split()[0] + " ")] if name.split() else []
    if group:
        raise ConfigError(f"{name}: expected one of the commands {', '.join(group)}")
    kind = "option" if name.startswith("-") else "command"
    near = difflib.get_close_matches(name, [*COMMANDS, *{each.split()[0] for each in COMMANDS}], n=1)
    raise ConfigError(f"{name}: unknown {kind}; {f'did you mean {near[0]}?' if near else 'see speechrnn --help'}")


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message.replace(_AFTER_DASHES, '')}; see {self.prog} --help")

    def print_help(self, file: Any = None) -> None:
        print_text(self.format_help(), end="")


def _make_parser(name: str, module: Any) -> _Parser:
    parser = _Parser(
        prog=f"speechrnn {name}",
        description=module.SUMMARY,
        epilog=f"example:\n  {module.EXAMPLE}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    module.add_arguments(parser)
    parser.add_argument("-v", "--verbose", action="store_true", help="print more messages on standard error")
    return parser


def _parse(parser: _Parser, arguments: list[str], takes_rest: bool) -> tuple[argparse.Namespace, list[str]]:
    """Parse options and positional arguments in any order; after ``--`` there are no options."""
    end = arguments.index("--") if "--" in arguments and not takes_rest else len(arguments)
    marked = [_AFTER_DASHES + argument for argument in arguments[end + 1 :]]
    parse = parser.parse_known_args if takes_rest else parser.parse_known_intermixed_args
    args, rest = parse([*arguments[:end], *marked])
    if rest and not takes_rest:
        known = [string for action in parser._actions for string in action.option_strings]
        near = difflib.get_close_matches(rest[0].partition("=")[0], known, n=1)
        parser.error(f"unrecognized arguments: {' '.join(rest)}{f'; did you mean {near[0]}?' if near else ''}")
    for name, value in vars(args).items() if marked else ():
        values = value if isinstance(value, list) else [value]
        plain = [each.removeprefix(_AFTER_DASHES) if isinstance(each, str) else each for each in values]
        setattr(args, name, plain if isinstance(value, list) else plain[0])
    if "model_count" in args:
        models = args.models or [name for name in [os.environ.get("SPEECHRNN_MODEL")] if name]
        if len(models) > 1 and args.model_count != "several":
            parser.error(
                f"-m {' -m '.join(models)}: this command takes one model; transcribe and evaluate take several"
            )
        if not models and args.model_count != "optional":
            models = [_choose_default_model(parser)]
        args.model = list(models) if len(models) > 1 else next(iter(models), None)
    return args, rest


def _choose_default_model(parser: _Parser) -> str:
    """The package's own model, if it has one."""
    from speechrnn.model_folder.embedded import DEFAULT_MODEL, list_embedded

    if DEFAULT_MODEL not in list_embedded():
        parser.error("no model: give -m M, or set SPEECHRNN_MODEL")
    print_note(f"no model is named, so {DEFAULT_MODEL} is used; choose another with -m or SPEECHRNN_MODEL")
    return DEFAULT_MODEL


if __name__ == "__main__":
    sys.exit(main())
