"""``speechrnn adapt``: an initial state and mean features for a speaker, stored with the model."""

from __future__ import annotations

import argparse

from speechrnn.cli.arguments import add_group, add_model_argument, print_text

SUMMARY = "adapt to a speaker: an initial state and mean features; the weights do not change"
EXAMPLE = "speechrnn adapt -m runs/english/model --speaker anna anna-1.wav anna-2.wav"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's own arguments."""
    parser.add_argument(
        "audio",
        nargs="+",
        metavar="AUDIO",
        help="recordings of the speaker, half a minute or more in total; the text of each is read from the .txt or "
        ".lab file of the same name; without it the model's own transcript is used",
    )
    group = add_group(parser, "adaptation")
    group.add_argument("--speaker", metavar="NAME", required=True, help="name for transcribe and evaluate --speaker")
    group.add_argument(
        "--steps",
        type=int,
        metavar="N",
        help="steps of gradient descent (default: 20); 0: the state encoded from the recordings, or the model's own",
    )
    add_model_argument(parser, "--device")


def run(args: argparse.Namespace, rest: list[str]) -> int:
    """Adapt, store the state, and describe how it was found."""
    from speechrnn.model_folder import find_folder
    from speechrnn.model_folder.speakers import check_speaker_name, save_speaker
    from speechrnn.recognition.adaptation import STEPS, adapt, describe_adaptation, find_text
    from speechrnn.recognition.recognizer import load

    check_speaker_name(args.speaker)
    folder, recognizer = find_folder(args.model, to_change=True), load(args.model, device=args.device)
    steps = STEPS if args.steps is None else args.steps
    found = adapt(recognizer, args.audio, [find_text(audio) for audio in args.audio], steps=steps)
    path = save_speaker(folder, args.speaker, found.profile)
    print_text(f"{path}: {describe_adaptation(found, recognizer, steps=steps)}")
    return 0
