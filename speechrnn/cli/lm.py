"""``speechrnn lm``: language models from text."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from speechrnn.cli.arguments import add_format_argument, add_model_argument, show_progress
from speechrnn.errors import ConfigError, CorpusError

SUMMARY = "build a language model from text, and tune how much it counts"
EXAMPLE = "speechrnn lm build transcripts.txt books/*.txt --order 4 -o lm.arpa"

HAS_ACTIONS = True

Units = Literal["words", "characters", "pieces"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's own arguments."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="build|tune")
    build = actions.add_parser("build", help="interpolated modified Kneser-Ney, as an ARPA file")
    build.add_argument(
        "texts", nargs="+", metavar="TEXT", help="text files in UTF-8, a sentence a line; - is standard input"
    )
    build.add_argument("--order", type=int, default=4, metavar="N", help="longest n-grams (default: 4)")
    build.add_argument(
        "--tokens",
        choices=("words", "characters", "pieces"),
        default="words",
        help="what an n-gram is made of; pieces: the tokens of the model -m",
    )
    build.add_argument(
        "-m", "--model", dest="writer", metavar="M", help="write the text as this model writes (case, punctuation …)"
    )
    build.add_argument(
        "--prune", type=int, nargs="+", default=[], metavar="N",
        help="for orders 1, 2 …: leave out n-grams that occur at most so often (0 for unigrams)",
    )  # fmt: skip
    build.add_argument(
        "--vocabulary", type=int, metavar="N", help="keep the N commonest words, the others become <unk>"
    )
    build.add_argument("--case", choices=("lower", "upper", "keep"), help="default: as the model -m, or lower")
    build.add_argument("--punctuation", choices=("remove", "keep"), help="default: as the model -m, or remove")
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
    from speechrnn.language.arpa import write_arpa
    from speechrnn.language.compiled import CompiledNgram, write_compiled
    from speechrnn.language.kneser_ney import build_ngram

    output = Path(args.output)
    if not output.name.endswith((".arpa", ".arpa.gz", ".bin")):
        raise ConfigError(f"-o {output}: expected a name that ends in .arpa, .arpa.gz or .bin")
    sentences = _Sentences(args)
    model = build_ngram(sentences, order=args.order, prune=args.prune, most_words=args.vocabulary)
    if output.suffix == ".bin":
        write_compiled(output, CompiledNgram.of(model))
    else:
        write_arpa(output, model)
    sizes = ", ".join(f"{size:,} {order}-grams" for order, size in enumerate(model.sizes, start=1))
    print(f"{output}: {sizes}")
    return sentences.report()


def _tune(args: argparse.Namespace) -> int:
    from speechrnn.evaluation.tune import tune_weights
    from speechrnn.language.compiled import read_language_model
    from speechrnn.model_folder import find_folder
    from speechrnn.model_folder.additions import TunedWeights, add_weights
    from speechrnn.recognition.loading import load

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


class _Sentences:
    """The sentences of the texts, cut into what the n-grams are made of; read once."""

    def __init__(self, args: argparse.Namespace) -> None:
        from speechrnn.model_folder import load_model
        from speechrnn.text.normalize import TextConfig

        if args.tokens == "pieces" and args.writer is None:
            raise ConfigError("--tokens pieces: say whose, with -m MODEL")
        writer = load_model(args.writer) if args.writer is not None else None
        chosen = {name: getattr(args, name) for name in ("case", "punctuation") if getattr(args, name) is not None}
        self.text = replace(writer.text if writer is not None else TextConfig(), **chosen)
        self.tokens = writer.tokens if writer is not None else None
        self.units: Units = args.tokens
        self.paths: list[str] = args.texts
        self.left_out: list[str] = []

    def __iter__(self) -> Iterator[list[str]]:
        from speechrnn.text.normalize import normalize_text

        for line in _read_lines(self.paths):
            yield self._split(normalize_text(line, self.text))

    def _split(self, line: str) -> list[str]:
        from speechrnn.decoding.fusion import SPACE

        if self.units == "words":
            return line.split()
        if self.units == "characters":
            return [SPACE if symbol == " " else symbol for symbol in line]
        assert self.tokens is not None
        if self.tokens.unknown(line):
            self.left_out.append(line)
            return []
        symbols = [self.tokens.symbols[token] for token in self.tokens.encode(line)]
        return [SPACE if symbol == " " else symbol for symbol in symbols]

    def report(self) -> int:
        """Say what was left out; the exit code."""
        if not self.left_out:
            return 0
        assert self.tokens is not None
        print(
            f"speechrnn: {len(self.left_out):,} lines were left out, for the model cannot write them; the first: "
            f"{self.left_out[0][:60]!r} (it has no {self.tokens.unknown(self.left_out[0])[0]!r})",
            file=sys.stderr,
        )
        return 1


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
