"""``speechrnn export``: a model for other programs."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from speechrnn.cli.arguments import add_group, add_model_argument, print_note, print_text
from speechrnn.errors import ConfigError

if TYPE_CHECKING:
    from speechrnn.export.export import Exported

SUMMARY = "write a model for programs without torch (ONNX), or a web page that transcribes"
EXAMPLE = "speechrnn export -m runs/fsdd/model --to onnx -o fsdd.onnx"

FORMATS = ("onnx", "web")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's own arguments."""
    output = add_group(parser, "output")
    output.add_argument(
        "--to",
        choices=FORMATS,
        required=True,
        help="onnx: one file, from waveforms to log-probabilities; web: a folder with a page that transcribes",
    )
    output.add_argument(
        "-o", "--output", metavar="PATH", required=True, help="the file or folder; an existing one is replaced"
    )
    output.add_argument(
        "--streaming",
        action="store_true",
        help="a graph for one chunk of a stream (unidirectional models); a page has it where the model can",
    )
    output.add_argument("--int8", action="store_true", help="8-bit weights in LSTM layers; other layers keep float32")
    output.add_argument(
        "--audio", metavar="FILE", help="recording on which the result is compared with the model (default: a signal)"
    )
    output.add_argument(
        "--onnxruntime-web",
        metavar="PATH",
        help="web: the npm package of this name, its folder or its .tgz file (default: npm pack fetches it)",
    )
    add_model_argument(parser)


def run(args: argparse.Namespace, rest: list[str]) -> int:
    """Write the file, and print its path and what it was compared on."""
    from speechrnn.export.export import export_onnx
    from speechrnn.model_folder import load_model

    if args.onnxruntime_web and args.to != "web":
        raise ConfigError("--onnxruntime-web: needs --to web")
    model = load_model(args.model)
    options = {"int8": args.int8, "streaming": args.streaming, "audio": args.audio}
    if args.to == "web":
        from speechrnn.web.export import export_page

        exported = export_page(model, args.output, onnxruntime_web=args.onnxruntime_web, **options)
    else:
        exported = export_onnx(model, args.output, **options)
    for note in describe(exported, wants_int8=args.int8, cell=model.acoustic.encoder.config.cell):
        print_note(note)
    if args.to == "web":
        print_note(f"serve it with python -m http.server --directory {args.output}")
    print_text(args.output)
    return 0


def describe(exported: Exported, *, wants_int8: bool, cell: str) -> list[str]:
    """What was written and how it compares, one line each."""
    share = exported.int8_weights / exported.num_parameters
    weights = f"{share:.0%} of them 8-bit (the LSTM's), the rest float32" if exported.int8_weights else "float32"
    notes = [f"{exported.num_bytes / 1e6:.1f} MB, {exported.num_parameters:,} parameters, {weights}"]
    if wants_int8 and not exported.int8_weights:
        notes.append(f"--int8 changed nothing: onnxruntime has 8-bit weights for lstm only, encoder.cell is {cell}")
    found = exported.comparison
    same = (
        "same greedy text" if found.text == found.original_text else f"text {found.text!r}, was {found.original_text!r}"
    )
    notes.append(f"compared on {exported.audio}: log-probabilities within {found.difference:.1e}, {same}")
    return notes
