"""``speechrnn lm``: language models from text."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from speechrnn.errors import ConfigError, CorpusError

SUMMARY = "build a language model from text"
EXAMPLE = "speechrnn lm build transcripts.txt books/*.txt --order 4 -o lm.arpa"

HAS_ACTIONS = True

Units = Literal["words", "characters"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's own arguments."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="build")
    build = actions.add_parser("build", help="interpolated modified Kneser-Ney, as an ARPA file")
    build.add_argument(
        "texts", nargs="+", metavar="TEXT", help="text files in UTF-8, a sentence a line; - is standard input"
    )
    build.add_argument("--order", type=int, default=4, metavar="N", help="longest n-grams (default: 4)")
    build.add_argument("--tokens", choices=("words", "characters"), default="words", help="what an n-gram is made of")
    build.add_argument(
        "--prune", type=int, nargs="+", default=[], metavar="N",
        help="for orders 1, 2 …: leave out n-grams that occur at most so often (0 for unigrams)",
    )  # fmt: skip
    build.add_argument(
        "--vocabulary", type=int, metavar="N", help="keep the N commonest words, the others become <unk>"
    )
    build.add_argument(
        "--case", choices=("lower", "upper", "keep"), default="lower", help="default: lower, as models do"
    )
    build.add_argument(
        "--punctuation", choices=("remove", "keep"), default="remove", help="default: remove, as models do"
    )
    build.add_argument("-o", "--output", required=True, metavar="FILE", help="NAME.arpa, or NAME.arpa.gz")


def run(args: argparse.Namespace, rest: list[str]) -> int:
    """Build a model and write it."""
    from speechrnn.language.kneser_ney import build_ngram
    from speechrnn.language.ngram import write_arpa
    from speechrnn.text.normalize import TextConfig, normalize_text

    output = Path(args.output)
    if not output.name.endswith((".arpa", ".arpa.gz")):
        raise ConfigError(f"-o {output}: expected a name that ends in .arpa or .arpa.gz")
    text = TextConfig(case=args.case, punctuation=args.punctuation)
    lines = (normalize_text(line, text) for line in _read_lines(args.texts))
    sentences = (split(line, args.tokens) for line in lines)
    model = build_ngram(sentences, order=args.order, prune=args.prune, most_words=args.vocabulary)
    write_arpa(output, model)
    sizes = ", ".join(f"{len(table):,} {order}-grams" for order, table in enumerate(model.tables, start=1))
    print(f"{output}: {sizes}")
    return 0


def split(line: str, units: Units) -> list[str]:
    """A sentence as words, or as characters with ``<space>`` between words."""
    if units == "words":
        return line.split()
    return ["<space>" if symbol == " " else symbol for symbol in line]


def _read_lines(paths: Sequence[str]) -> Iterator[str]:
    for path in paths:
        if path == "-":
            yield from sys.stdin
            continue
        try:
            with Path(path).open(encoding="utf-8-sig") as file:
                yield from file
        except UnicodeDecodeError as error:
            raise CorpusError(f"{path}: not UTF-8 at byte {error.start}; save the text as UTF-8") from error
        except OSError as error:
            raise CorpusError(f"{path}: the text cannot be read ({error.strerror or error})") from error
