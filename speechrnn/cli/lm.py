"""``speechrnn lm``: language models from text."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from speechrnn.cli.arguments import add_format_argument, add_model_argument, show_progress
from speechrnn.errors import ConfigError, CorpusError

SUMMARY = "build a language model from text, and tune how much it counts"
EXAMPLE = "speechrnn lm build transcripts.txt books/*.txt --order 4 -o lm.arpa"

HAS_ACTIONS = True

Units = Literal["words", "characters"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's own arguments."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="build|tune")
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
    build.add_argument(
        "-o",
        "--output",
        required=True,
        metavar="FILE",
        help="NAME.arpa, NAME.arpa.gz, or NAME.bin, which opens at once",
    )
    tune = actions.add_parser("tune", help="find its weights on validation data and keep them with the acoustic model")
    tune.add_argument("corpus", metavar="CORPUS", help="validation data: neither trained nor tested on")
    add_model_argument(tune)
    add_format_argument(tune)
    tune.add_argument("--language-model", required=True, metavar="FILE", help="what lm build wrote, or any ARPA file")
    tune.add_argument("--beam-size", type=int, default=16, metavar="N", help="as it will be used (default: 16)")
    tune.add_argument("--device", default="auto", metavar="NAME", help="auto (default), cpu, cuda, cuda:1 …")
    tune.add_argument("--batch-seconds", type=float, default=120.0, metavar="S", help="audio in a batch (default: 120)")


def run(args: argparse.Namespace, rest: list[str]) -> int:
    """Build a model and write it, or tune one."""
    return _tune(args) if args.action == "tune" else _build(args)


def _build(args: argparse.Namespace) -> int:
    from speechrnn.language.compiled import CompiledNgram, write_compiled
    from speechrnn.language.kneser_ney import build_ngram
    from speechrnn.language.ngram import write_arpa
    from speechrnn.text.normalize import TextConfig, normalize_text

    output = Path(args.output)
    if not output.name.endswith((".arpa", ".arpa.gz", ".bin")):
        raise ConfigError(f"-o {output}: expected a name that ends in .arpa, .arpa.gz or .bin")
    text = TextConfig(case=args.case, punctuation=args.punctuation)
    lines = (normalize_text(line, text) for line in _read_lines(args.texts))
    sentences = (split(line, args.tokens) for line in lines)
    model = build_ngram(sentences, order=args.order, prune=args.prune, most_words=args.vocabulary)
    if output.suffix == ".bin":
        write_compiled(output, CompiledNgram.of(model))
    else:
        write_arpa(output, model)
    sizes = ", ".join(f"{len(table):,} {order}-grams" for order, table in enumerate(model.tables, start=1))
    print(f"{output}: {sizes}")
    return 0


def _tune(args: argparse.Namespace) -> int:
    from speechrnn.evaluation.tune import tune_weights
    from speechrnn.language.compiled import read_language_model
    from speechrnn.recognition.hub import find_folder
    from speechrnn.recognition.language_weights import TunedWeights, add_weights
    from speechrnn.recognition.recognizer import load

    model = read_language_model(args.language_model)
    with show_progress(args.corpus) as advance:
        found = tune_weights(
            load(args.model, device=args.device),
            args.corpus,
            model,
            beam_size=args.beam_size,
            format=args.format,
            batch_seconds=args.batch_seconds,
            advance=advance,
        )
    config = found.config
    print(
        f"language_weight {config.language_weight:g}, word_bonus {config.word_bonus:g}, unknown_cost "
        f"{config.unknown_cost:g}: WER {100 * found.wer:.2f} % on {found.utterances:,} utterances; beam without it "
        f"{100 * found.beam_wer:.2f} %, greedy {100 * found.greedy_wer:.2f} % ({found.unit}, {found.tried} settings)"
    )
    without = min(found.beam_wer, found.greedy_wer)
    if found.wer >= without:
        print(
            "speechrnn: this language model makes nothing better here: leave it out, or build it from text that is "
            "more like what is said",
            file=sys.stderr,
        )
        return 1
    weights = TunedWeights(
        **vars(config),
        wer=found.wer,
        wer_without=without,
        corpus=str(args.corpus),
        utterances=found.utterances,
        file=Path(args.language_model).name,
    )
    add_weights(find_folder(args.model), model.digest, weights)
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
