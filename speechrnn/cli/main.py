"""``speechrnn``: finds the command, parses its arguments, and turns errors into one line and an exit code.

A command is a module of this folder with ``SUMMARY`` and ``EXAMPLE`` (one line each), ``add_arguments(parser)`` and
``run(args, rest) -> exit code``; with ``TAKES_REST = True`` it gets what its parser does not know (``--KEY VALUE``) as
``rest``; with ``HAS_ACTIONS = True`` it has commands of its own; with ``TRAINS = True`` it may be one of several
processes that train together, of which the first one alone speaks. Nothing heavy is imported before ``run``, so that
``--help`` is quick.
"""

from __future__ import annotations

import argparse
import difflib
import io
import logging
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import Any, NoReturn

import speechrnn
from speechrnn.errors import ConfigError, SpeechRNNError
from speechrnn.processes import is_first_process

COMMANDS: dict[str, int] = {
    # name: what it logs without --verbose
    "recipe": logging.INFO,
    "train": logging.INFO,
    "finetune": logging.INFO,
    "adapt": logging.WARNING,
    "transcribe": logging.WARNING,
    "evaluate": logging.WARNING,
    "align": logging.WARNING,
    "inspect": logging.WARNING,
    "corpus": logging.WARNING,
    "lm": logging.WARNING,
}
EXIT_CODES = """exit codes:
  0    done
  1    done, but something you must know is on standard error (files that failed, utterances left out)
  2    the request or the input is wrong; one line says what
  130  interrupted; what was finished is kept"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        argv: Arguments without the program's name; None: those of the process.

    Returns:
        Exit code: 0 done; 1 done, but something the user must know; 2 a wrong request or input; 130 interrupted.
    """
    try:
        code = _run(list(sys.argv[1:] if argv is None else argv))
        sys.stdout.flush()
        return code
    except SpeechRNNError as error:
        sys.stderr.write(f"speechrnn: error: {' '.join(str(error).splitlines())}\n")  # at once: others may speak too
        return 2
    except KeyboardInterrupt:
        print("speechrnn: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # Whoever read the output has gone. Python's documentation (signal, "Note on SIGPIPE") asks for this, lest
        # closing standard output fail once more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


class _Parser(argparse.ArgumentParser):
    """A parser whose complaint is one line, as for every other error."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message}; see {self.prog} --help")


def _run(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_describe_commands(), file=sys.stdout if arguments else sys.stderr)
        return 0 if arguments else 2
    if arguments[0] == "--version":
        print(f"speechrnn {speechrnn.__version__}")
        return 0
    module = _find_command(arguments[0])
    try:
        args, rest = _parse(arguments, module)
    except SystemExit as done:  # --help
        return int(done.code or 0)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    level = logging.INFO if args.verbose else COMMANDS[arguments[0]]
    is_heard = is_first_process() or not getattr(module, "TRAINS", False)
    with _logging_to_stderr(level if is_heard else logging.ERROR):
        return module.run(args, rest)


def _describe_commands() -> str:
    summaries = [f"  {name:<12} {_find_command(name).SUMMARY}" for name in COMMANDS]
    return "\n".join(
        [
            "usage: speechrnn COMMAND … | --help | --version",
            "",
            "Train, transcribe and fine-tune recurrent CTC speech recognisers on your own recordings.",
            "",
            "commands:",
            *summaries,
            "",
            "speechrnn COMMAND --help says more, with an example.",
            "",
            EXIT_CODES,
        ]
    )


def _find_command(name: str) -> Any:
    if name in COMMANDS:
        return import_module(f"speechrnn.cli.{name}")
    kind = "option" if name.startswith("-") else "command"
    near = difflib.get_close_matches(name, COMMANDS, n=1)
    hint = f"did you mean {near[0]}?" if near else "see speechrnn --help"
    raise ConfigError(f"{name}: there is no such {kind}; {hint}")


def _parse(arguments: list[str], module: Any) -> tuple[argparse.Namespace, list[str]]:
    parser = _make_parser(arguments[0], module)
    if getattr(module, "TAKES_REST", False):
        args, rest = parser.parse_known_args(arguments[1:])
    elif getattr(module, "HAS_ACTIONS", False):
        args, rest = parser.parse_args(arguments[1:]), []
    else:
        args, rest = parser.parse_intermixed_args(arguments[1:]), []  # AUDIO … -m M AUDIO …
    if "takes_several_models" in args:
        from speechrnn.cli.arguments import read_model

        try:
            args.model = read_model(args)
        except ConfigError as error:
            parser.error(str(error))
    return args, rest


def _make_parser(name: str, module: Any) -> _Parser:
    parser = _Parser(
        prog=f"speechrnn {name}",
        description=module.SUMMARY,
        epilog=f"example:\n  {module.EXAMPLE}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    module.add_arguments(parser)
    parser.add_argument("-v", "--verbose", action="store_true", help="say more on standard error")
    return parser


class _Handler(logging.Handler):
    """Writes ``speechrnn: warning: …`` to whatever standard error is then: a progress bar may have taken its place."""

    def emit(self, record: logging.LogRecord) -> None:
        level = "" if record.levelno == logging.INFO else f"{record.levelname.lower()}: "
        print(f"speechrnn: {level}{record.getMessage()}", file=sys.stderr)


@contextmanager
def _logging_to_stderr(level: int) -> Iterator[None]:
    logger, handler = logging.getLogger("speechrnn"), _Handler()
    earlier = logger.level
    logger.addHandler(handler)
    logger.setLevel(level)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(earlier)


if __name__ == "__main__":
    sys.exit(main())
