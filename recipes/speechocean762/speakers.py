"""What a speaker's own initial state is worth: zeros, one learned state, encoded, adapted, and a wrong speaker's.

    python recipes/speechocean762/speakers.py valid.jsonl --zero M --learned M --encoded M --output runs/speakers

The first SECONDS of each speaker are what the model may hear of them; the rest is scored, greedily. Differences are of
word error rates from the same network begun at its own state, with a paired interval over speakers. A wrong speaker's
state is that of the next one in the order of their names: what it brings is not the speaker's doing. ``speakers.md``
holds the table.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from speechrnn.atomic_io import write_atomic
from speechrnn.audio.files import read_audio
from speechrnn.corpus.manifest import read_manifest
from speechrnn.corpus.utterance import Utterance
from speechrnn.errors import SpeechRNNError
from speechrnn.recognition.adaptation import adapt
from speechrnn.recognition.recognizer import Recognizer, load
from speechrnn.text.normalize import normalize_for_scoring
from speechrnn.text.scores import ErrorCounts, character_errors, difference_interval, word_errors
from speechrnn.types import pad_sequences

SECONDS = 30.0
NETWORKS = ("zero", "learned", "encoded")
READINGS = (WITH_TEXTS, OWN) = ("with texts", "own readings")

Speakers = dict[str, tuple[list[Utterance], list[Utterance]]]
Errors = list[tuple[str, ErrorCounts, ErrorCounts]]


def split_speakers(entries: list[Utterance], seconds: float) -> Speakers:
    """What is heard of each speaker beforehand, and what is scored; those without enough of both are left out."""
    by_speaker: dict[str, list[Utterance]] = {}
    for entry in entries:
        by_speaker.setdefault(entry.speaker or entry.id, []).append(entry)
    found = {}
    for name, own in sorted(by_speaker.items()):
        heard: list[Utterance] = []
        for entry in own:
            if sum(each.seconds for each in heard) >= seconds:
                break
            heard.append(entry)
        if len(heard) < len(own) and sum(each.seconds for each in heard) >= seconds:
            found[name] = (heard, own[len(heard) :])
    return found


def score(recognizer: Recognizer, speakers: Speakers, find_state: Callable[[str], Tensor | None]) -> Errors:
    """Speaker, word and character errors of each utterance that is scored."""
    errors: Errors = []
    decode = recognizer.choose_decoder(decoder="greedy").decode
    for name, (_, entries) in speakers.items():
        waveforms = [
            torch.from_numpy(
                read_audio(entry.audio_path, sample_rate=recognizer.sample_rate, check_levels=False).samples
            )
            for entry in entries
        ]
        emission = recognizer.emissions(*pad_sequences(waveforms), state=find_state(name))
        for entry, [best, *_] in zip(entries, decode(emission.log_probs, emission.lengths), strict=True):
            pair = normalize_for_scoring(entry.text), normalize_for_scoring(recognizer.tokens.decode(best.tokens))
            errors.append((name, word_errors(*pair), character_errors(*pair)))
    return errors


def adapt_all(recognizer: Recognizer, speakers: Speakers, *, with_texts: bool, steps: int) -> dict[str, Tensor]:
    """A state for each speaker."""
    states = {}
    for name, (heard, _) in speakers.items():
        texts = [entry.text for entry in heard] if with_texts else None
        states[name] = adapt(recognizer, [entry.audio_path for entry in heard], texts, steps=steps).state
    return states


def next_speakers(names: list[str]) -> dict[str, str]:
    """A wrong speaker for each."""
    return dict(zip(names, names[1:] + names[:1], strict=True))


def rate(errors: Errors, column: int) -> float:
    """Errors over words (1) or characters (2), in percent."""
    total = sum((row[column] for row in errors), ErrorCounts())  # type: ignore[misc]
    return 100 * total.rate


def describe(rows: list[tuple[str, str, Errors, Errors | None]]) -> str:
    """The table: each with its network, rates and difference from that network's own state."""
    lines = [
        "| network | starts from | WER % | CER % | WER against its own state, points (95 %) |",
        "| --- | --- | --- | --- | --- |",
    ]
    for network, state, errors, own in rows:
        change = ""
        if own is not None:
            interval = difference_interval([e[1] for e in own], [e[1] for e in errors], [e[0] for e in errors])
            ends = f"{100 * interval.low:+.2f} to {100 * interval.high:+.2f}"
            change = f"{rate(errors, 1) - rate(own, 1):+.2f} ({ends})"
        lines.append(f"| {network} | {state} | {rate(errors, 1):.2f} | {rate(errors, 2):.2f} | {change} |")
    return "\n".join(lines) + "\n"


def list_ways(network: str, readings: Sequence[str], *, steps: int) -> dict[str, tuple[bool, int]]:
    """What each row says, whether texts are known, and for how many steps is adapted: none encodes alone."""
    ways = {f"adapted, {steps} steps, {reading}": (reading == WITH_TEXTS, steps) for reading in readings}
    return {"encoded": (False, 0), **ways} if network == "encoded" else ways


def measure(
    models: dict[str, str], speakers: Speakers, *, steps: int, readings: dict[str, Sequence[str]]
) -> list[tuple[str, str, Errors, Errors | None]]:
    """Rows of the table."""
    wrong = next_speakers(list(speakers))
    rows: list[tuple[str, str, Errors, Errors | None]] = []
    for network, folder in models.items():
        recognizer = load(folder, device="cpu")
        own = score(recognizer, speakers, lambda name: None)
        first = {"zero": "zeros", "learned": "one learned state", "encoded": "nothing heard"}[network]
        rows.append((network, first, own, None))
        for way, (with_texts, its_steps) in list_ways(network, readings.get(network, ()), steps=steps).items():
            states = adapt_all(recognizer, speakers, with_texts=with_texts, steps=its_steps)
            for whose, of in (("", {name: name for name in speakers}), (", a wrong speaker's", wrong)):
                found = score(recognizer, speakers, lambda name, s=states, o=of: s[o[name]])
                rows.append((network, f"{way}{whose}", found, own))
    return rows


def main() -> None:
    """Measure what is asked for and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", help="a manifest with speakers")
    for name in NETWORKS:
        parser.add_argument(f"--{name}", metavar="MODEL", help=f"a model with encoder.initial_state: {name}")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=SECONDS, help="heard of each speaker beforehand (default: 30)")
    parser.add_argument("--steps", type=int, default=20, help="of adaptation (default: 20)")
    parser.add_argument(
        "--adapt", nargs="*", choices=NETWORKS, default=NETWORKS, help="which are adapted, some 6 s a speaker (all)"
    )
    parser.add_argument("--readings", nargs="+", choices=READINGS, default=READINGS, help="to what (both)")
    args = parser.parse_args()
    models = {name: getattr(args, name) for name in NETWORKS if getattr(args, name)}
    speakers = split_speakers(read_manifest(args.corpus), args.seconds)
    if not models or not speakers:
        parser.error("give one model or more, and a corpus whose speakers say more than --seconds each")
    readings = dict.fromkeys(args.adapt, args.readings)
    table = describe(measure(models, speakers, steps=args.steps, readings=readings))
    scored = sum(len(rest) for _, rest in speakers.values())
    print(f"{len(speakers)} speakers, {scored} utterances scored\n\n{table}", end="")
    write_atomic(args.output / "speakers.md", table)


if __name__ == "__main__":
    try:
        main()
    except SpeechRNNError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
