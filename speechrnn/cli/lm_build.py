"""``speechrnn lm build``: build a language model from text."""

from __future__ import annotations

import argparse
import logging
from dataclasses import replace
from pathlib import Path

from speechrnn.cli.arguments import add_group, add_model_argument, print_text
from speechrnn.errors import ConfigError

SUMMARY = "build an n-gram language model from text (interpolated modified Kneser-Ney)"
EXAMPLE = "speechrnn lm build transcripts.txt books/*.txt --order 4 -o lm.arpa"

logger = logging.getLogger("speechrnn")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's own arguments."""
    parser.add_argument(
        "texts", nargs="+", metavar="TEXT", help="text files in UTF-8, one sentence per line; - is standard input"
    )
    group = add_group(parser, "n-grams")
    group.add_argument("--order", type=int, default=4, metavar="N", help="length of the longest n-grams (default: 4)")
    group.add_argument(
        "--tokens",
        choices=("words", "characters", "model"),
        default="words",
        help="units of the n-grams; model: the tokens of the model given by -m (default: words)",
    )
    group.add_argument(
        "--prune",
        type=int,
        nargs="+",
        default=[],
        metavar="N",
        help="for orders 1, 2 …: remove n-grams that occur at most N times (0 for unigrams)",
    )
    group.add_argument(
        "--vocabulary", type=int, metavar="N", help="keep the N most frequent words, replace the others with <unk>"
    )
    add_model_argument(parser, count="optional")
    text = add_group(parser, "text")
    text.description = (
        "Normalised like the transcripts of the model -m; without a model, lower case without punctuation."
    )
    text.add_argument("--case", choices=("lower", "upper", "keep"), help="override the case")
    text.add_argument("--punctuation", choices=("remove", "keep"), help="override the punctuation")
    add_group(parser, "output").add_argument(
        *("-o", "--output"),
        required=True,
        metavar="FILE",
        help="NAME.arpa, NAME.arpa.gz, or NAME.bin, which loads fastest",
    )


def run(args: argparse.Namespace, rest: list[str]) -> int:
    """Build a model and write it; 1 if lines were left out."""
    from speechrnn.language.arpa import write_arpa
    from speechrnn.language.compiled import CompiledNgram, write_compiled
    from speechrnn.language.kneser_ney import build_ngram
    from speechrnn.language.sentences import Sentences
    from speechrnn.text.normalize import TextConfig

    output = Path(args.output)
    if not output.name.endswith((".arpa", ".arpa.gz", ".bin")):
        raise ConfigError(f"-o {output}: expected a name with .arpa, .arpa.gz or .bin")
    text, tokens = TextConfig(), None
    if args.model is not None:
        from speechrnn.model_folder import load_model

        model_folder = load_model(args.model)
        text, tokens = model_folder.text, model_folder.tokens
    chosen = {name: getattr(args, name) for name in ("case", "punctuation") if getattr(args, name) is not None}
    sentences = Sentences(args.texts, replace(text, **chosen), units=args.tokens, tokens=tokens)
    model = build_ngram(sentences, order=args.order, prune=args.prune, most_words=args.vocabulary)
    if output.suffix == ".bin":
        write_compiled(output, CompiledNgram.of(model))
    else:
        write_arpa(output, model)
    sizes = ", ".join(f"{size:,} {order}-grams" for order, size in enumerate(model.sizes, start=1))
    print_text(f"{output}: {sizes}")
    if sentences.left_out:
        logger.warning("%s", sentences.describe_left_out())
    return 1 if sentences.left_out else 0
