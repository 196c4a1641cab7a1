"""``speechrnn corpus convert``: the same corpus in another format."""

from __future__ import annotations

import argparse
from pathlib import Path

from speechrnn.cli.arguments import add_corpus_argument, add_group, print_text

SUMMARY = "convert a corpus to a NeMo manifest, a table, a Kaldi folder or lhotse's cuts"
EXAMPLE = "speechrnn corpus convert mine/train mine/train.csv"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's own arguments."""
    add_corpus_argument(parser)
    parser.add_argument(
        "destination",
        metavar="DST",
        help="NAME.jsonl (NeMo), NAME.csv or .tsv, NAME.jsonl.gz (lhotse) or a folder (Kaldi)",
    )
    add_group(parser, "output").add_argument(
        "--to", metavar="NAME", help="nemo, table, kaldi or lhotse (default: from the name of DST)"
    )


def run(args: argparse.Namespace, rest: list[str]) -> int:
    """Convert, and print what was written."""
    from speechrnn.corpus.writers import convert_corpus

    name, count = convert_corpus(args.corpus, Path(args.destination), to=args.to, format=args.format)
    print_text(f"{args.destination}: {count:,} utterances as {name}")
    return 0
