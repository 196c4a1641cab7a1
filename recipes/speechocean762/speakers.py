"""Error rates by initial state: zeros, learned, encoded or adapted for each speaker, and that of a wrong speaker.

    python recipes/speechocean762/speakers.py valid.jsonl --zero M --learned M --encoded M --output runs/speakers

The first SECONDS of each speaker are the reference for its state; the rest is scored, decoded greedily. Each row is
compared with the same network from its default state: the difference of word error rates with a paired interval over
speakers. The control uses the state of the next speaker by name. ``speakers.md`` holds the table.
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
    """Split the utterances of each speaker into reference and scored ones; speakers with too few are left out."""
    by_speaker: dict[str, list[Utterance]] = {}
    for entry in entries:
        by_speaker.setdefault(entry.speaker or entry.id, []).append(entry)
    found = {}
    for name, own in sorted(by_speaker.items()):
        reference: list[Utterance] = []
        for entry in own:
            if sum(each.seconds for each in reference) >= seconds:
                break
            reference.append(entry)
        if len(reference) < len(own) and sum(each.seconds for each in reference) >= seconds:
            found[name] = (reference, own[len(reference) :])
    return found


def score(recognizer: Recognizer, speakers: Speakers, find_state: Callable[[str], Tensor | None]) -> Errors:
    """Speaker, word and character errors of each scored utterance."""
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
    """Adapt a state to each speaker."""
    states = {}
    for name, (reference, _) in speakers.items():
        texts = [entry.text for entry in reference] if with_texts else None
        states[name] = adapt(recognizer, [entry.audio_path for entry in reference], texts, steps=steps).state
    return states


def next_speakers(names: list[str]) -> dict[str, str]:
    """Assign each speaker the next one."""
    return dict(zip(names, names[1:] + names[:1], strict=True))


def rate(errors: Errors, column: int) -> float:
    """Errors over words (1) or characters (2), in percent."""
    total = sum((row[column] for row in errors), ErrorCounts())  # type: ignore[misc]
    return 100 * total.rate


def describe(rows: list[tuple[str, str, Errors, Errors | None]]) -> str:
    """The table: network, state, error rates, and the difference from the default state of the network."""
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
    """Label of each row, whether texts are used, and the number of adaptation steps (0: only encoded)."""
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
        first = {"zero": "zeros", "learned": "one learned state", "encoded": "no reference"}[network]
        rows.append((network, first, own, None))
        for way, (with_texts, its_steps) in list_ways(network, readings.get(network, ()), steps=steps).items():
            states = adapt_all(recognizer, speakers, with_texts=with_texts, steps=its_steps)
            for whose, of in (("", {name: name for name in speakers}), (", a wrong speaker's", wrong)):
                found = score(recognizer, speakers, lambda name, s=states, o=of: s[o[name]])
                rows.append((network, f"{way}{whose}", found, own))
    return rows


def main() -> None:
    """Measure the given models and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", help="a manifest with speakers")
    for name in NETWORKS:
        parser.add_argument(f"--{name}", metavar="MODEL", help=f"a model with encoder.initial_state: {name}")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=SECONDS, help="reference speech of each speaker (default: 30)")
    parser.add_argument("--steps", type=int, default=20, help="adaptation steps (default: 20)")
    parser.add_argument(
        "--adapt",
        nargs="*",
        choices=NETWORKS,
        default=NETWORKS,
        help="networks to adapt, about 6 s a speaker (default: all)",
    )
    parser.add_argument(
        "--readings", nargs="+", choices=READINGS, default=READINGS, help="texts to adapt to (default: both)"
    )
    args = parser.parse_args()
    models = {name: getattr(args, name) for name in NETWORKS if getattr(args, name)}
    speakers = split_speakers(read_manifest(args.corpus), args.seconds)
    if not models or not speakers:
        parser.error("give one model or more, and a corpus with more than --seconds of speech per speaker")
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
