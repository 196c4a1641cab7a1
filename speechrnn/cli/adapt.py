"""``speechrnn adapt``: what suits a speaker (an initial state, mean features), kept with the model under a name."""

from __future__ import annotations

import argparse
from pathlib import Path

from speechrnn.cli.arguments import add_model_argument
from speechrnn.errors import ConfigError

SUMMARY = "let a model start from a state that suits a speaker; its weights stay as they are"
EXAMPLE = "speechrnn adapt -m runs/english/model --speaker anna anna-1.wav anna-2.wav"

_TEXT_ENDINGS = (".txt", ".lab")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's own arguments."""
    parser.add_argument(
        "audio",
        nargs="+",
        metavar="AUDIO",
        help="recordings of the speaker, half a minute or more in all; what was said is read from a .txt or .lab file "
        "beside each, and where there is none the model's own reading is taken for it",
    )
    add_model_argument(parser)
    parser.add_argument(
        "--speaker", metavar="NAME", required=True, help="what --speaker of transcribe and evaluate then names"
    )
    parser.add_argument(
        "--steps", type=int, metavar="N", help="of gradient descent; 0: what the model encodes, or its own state"
    )
    parser.add_argument("--device", default="auto", metavar="DEVICE", help="auto (default), cpu, cuda, cuda:1 …")


def run(args: argparse.Namespace, rest: list[str]) -> int:
    """Adapt, keep the state, and say how it was found."""
    from speechrnn.model_folder import find_folder
    from speechrnn.model_folder.speakers import check_speaker_name, keep_speaker
    from speechrnn.recognition.adaptation import STEPS, adapt
    from speechrnn.recognition.loading import load

    check_speaker_name(args.speaker)
    recognizer = load(args.model, device=args.device)
    texts = [_find_text(Path(audio)) for audio in args.audio]
    found = adapt(recognizer, args.audio, texts, steps=STEPS if args.steps is None else args.steps)
    path = keep_speaker(find_folder(args.model), args.speaker, found.voice)
    heard = f"{found.seconds:.0f} s heard"
    if args.steps == 0:
        how = "encoded" if recognizer.model.acoustic.encoder.reference is not None else "the model's own state"
    else:
        own = found.recordings - found.with_texts
        how = f"learned from given texts: {found.with_texts}, from the model's own readings: {own}"
        how += f", loss {found.loss_before:.2f} to {found.loss:.2f} nats an utterance"
    print(f"{path}: {heard}, {how}")
    return 0


def _find_text(audio: Path) -> str | None:
    """What was said, where a file beside the recording says it."""
    for ending in _TEXT_ENDINGS:
        path = audio.with_suffix(ending)
        if path.is_file():
            try:
                return path.read_text(encoding="utf-8-sig").strip()
            except (OSError, UnicodeDecodeError) as error:
                raise ConfigError(f"{path}: expected a text file in UTF-8: {error}") from error
    return None
