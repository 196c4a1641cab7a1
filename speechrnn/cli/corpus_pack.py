"""``speechrnn corpus pack``: pack a corpus into shards."""

from __future__ import annotations

import argparse
import logging

from speechrnn.cli.arguments import add_corpus_argument, add_group, print_text, show_progress

SUMMARY = "pack a corpus into shards (lhotse's Shar), for file systems that are slow with many small files"
EXAMPLE = "speechrnn corpus pack mine/train mine/shards --encoding opus"

logger = logging.getLogger("speechrnn")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's own arguments."""
    add_corpus_argument(parser)
    parser.add_argument("destination", metavar="DST", help="a new folder")
    output = add_group(parser, "output")
    output.add_argument("--encoding", default="flac", metavar="E", help="flac, wav or opus (default: flac)")
    output.add_argument("--shard-size", type=int, default=1000, metavar="N", help="utterances a shard (default: 1000)")
    output.add_argument("--sample-rate", type=int, metavar="HZ", help="resample to this rate (default: as recorded)")


def run(args: argparse.Namespace, rest: list[str]) -> int:
    """Pack; 1 if utterances were left out."""
    from speechrnn.corpus.pack import pack_corpus
    from speechrnn.corpus.readers import read_corpus

    unusable: dict[str, str] = {}
    utterances = read_corpus(
        args.corpus, args.format, on_error=lambda utterance, reason: unusable.update({utterance.id: reason})
    )
    with show_progress(args.destination) as advance:
        packed = pack_corpus(
            utterances,
            args.destination,
            encoding=args.encoding,
            shard_size=args.shard_size,
            sample_rate=args.sample_rate,
            advance=advance,
        )
    left_out = {**unusable, **packed.failed}
    for id, reason in left_out.items():
        logger.warning("%s is left out: %s", id, reason)
    hours = packed.seconds / 3600
    print_text(f"{packed.folder}: {packed.utterances:,} utterances ({hours:.2f} h) in {packed.shards:,} shards")
    return 1 if left_out else 0
