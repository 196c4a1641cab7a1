"""Error rates and speed of our decoders beside pyctcdecode's and flashlight's, on the same log-probabilities.

pyctcdecode needs an environment of its own (it wants numpy below 2), and nothing of speechrnn::

    python -m venv peers && peers/bin/pip install pyctcdecode kenlm
    pip install flashlight-text==0.0.7
    speechrnn lm build train.txt --order 3 -o w.arpa
    speechrnn lm build train.txt --order 6 --tokens characters -o c.arpa
    python tests/benchmarks/bench_decoders.py --model MODEL --corpus valid.jsonl --words w.arpa --characters c.arpa \
        --peer-python peers/bin/python --beam 16 64

The corpus is validation data with speakers. In the order of their names every other speaker belongs to the first
half, the rest to the second; the weights that a half is scored with were tuned on the other one, each decoder's on a
grid of 30 points with the first of the beams. With ``--test`` all of the corpus tunes and the test data is scored,
once. Times are those of decoding the second half (the test data), in turns, the median of the rounds: CPU time of one
thread, so that what else the machine does counts little, and what a second thread gains by the clock. The difference
of each row to our wide one with the same language model is a paired interval over speakers; below 0 the row is
better.

Pruning is as alike as the options allow. ``wide``: ours tries tokens within 12 nats of a frame's best (its default),
pyctcdecode those above -12, flashlight all; prefixes 50 nats below the best go, ours has no such limit. ``narrow``: 5
nats and 10, which is what pyctcdecode does by default. flashlight adds paths up as the others do (``log_add``), its
words are spelled with the space at their end, and its language models get their vocabularies in files: without them
torchaudio hands KenLM's ids over in the order of a hash table.
"""

import argparse
import math
import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

from decoder_systems import PRUNING, Flashlight, Ours, Pyctcdecode, Run, Setting, Speech, say

HALVES = ("first", "second")
Weights = dict[str, tuple[float, float]]
"""Language weight and bonus by the part that is scored with them."""


class Subject(NamedTuple):
    """A row of the table: who decodes with what."""

    system: Any
    language: str
    pruning: str


def compute(recognizer: Any, parts: dict[str, list[Any]]) -> dict[str, Speech]:
    """Log-probabilities of each part, which is a list of cuts."""
    import torch

    from speechrnn.evaluation.evaluate import read_all
    from speechrnn.recognition.batches import collect_batches
    from speechrnn.text.normalize import normalize_for_scoring
    from speechrnn.types import pad_sequences

    computed = {}
    for name, cuts in parts.items():
        texts = {cut.id: normalize_for_scoring(cut.text) for cut in cuts}
        speakers = {cut.id: cut.speaker or "" for cut in cuts}
        speech = Speech([], [], [], sum(cut.seconds for cut in cuts))
        recordings = read_all(recognizer, cuts, {})
        budget = 120.0 * recognizer.sample_rate
        for batch in collect_batches(recordings, most_samples=budget):
            emission = recognizer.emissions(*pad_sequences([torch.from_numpy(each.samples) for each in batch]))
            ids = [str(each.name) for each in batch]
            speech.batches.append((emission.log_probs.cpu().float().contiguous().clone(), emission.lengths.cpu()))
            speech.references.extend(texts[id] for id in ids)
            speech.speakers.extend(speakers[id] for id in ids)
        computed[name] = speech
        say(f"{name}: {len(speech.references)} utterances, {speech.seconds:.0f} s")
    return computed


def divide(corpus: Path, test: Path | None) -> tuple[dict[str, list[Any]], dict[str, str]]:
    """Cuts by part, and for each part that is scored the one whose weights it is scored with; the last one is timed."""
    from speechrnn.corpus.readers import read_corpus

    cuts = list(read_corpus(corpus))
    if test is not None:
        return {"valid": cuts, "test": list(read_corpus(test))}, {"test": "valid"}
    speakers = sorted({cut.speaker or "" for cut in cuts})
    halves = {name: [cut for cut in cuts if cut.speaker in speakers[number::2]] for number, name in enumerate(HALVES)}
    return halves, dict(zip(HALVES, HALVES[::-1], strict=True))


def count(speech: Speech, texts: Sequence[str]) -> tuple[list[Any], list[Any]]:
    """Word errors and character errors of each utterance."""
    from speechrnn.text.normalize import normalize_for_scoring
    from speechrnn.text.scores import character_errors, word_errors

    pairs = list(zip(speech.references, map(normalize_for_scoring, texts), strict=True))
    return [word_errors(*pair) for pair in pairs], [character_errors(*pair) for pair in pairs]


def add_up(counts: Sequence[Any]) -> Any:
    """The errors of all utterances."""
    return sum(counts[1:], counts[0])


def describe_difference(ours: Sequence[Any], theirs: Sequence[Any], speakers: Sequence[str]) -> str:
    """Word error rate of theirs less that of ours in points, with its interval."""
    from speechrnn.text.scores import difference_interval

    if ours is theirs:
        return "–"
    interval = difference_interval(ours, theirs, speakers)
    change = add_up(theirs).rate - add_up(ours).rate
    return f"{100 * change:+.2f} ({100 * interval.low:+.2f} to {100 * interval.high:+.2f})"


def tune(subject: Subject, beam: int, speech: dict[str, Speech], scored: dict[str, str]) -> Weights:
    """For each part that is scored the weights with the fewest word errors on the one that it is tuned on."""
    if not subject.language:
        return dict.fromkeys(scored, (0.0, 0.0))
    tried = {}
    for weights in product(*subject.system.grid(subject.language)):
        run = subject.system.prepare(Setting(subject.language, beam, subject.pruning, weights))
        tried[weights] = {part: add_up(count(speech[part], run(part).texts)[0]).errors for part in scored.values()}
    best = {part: min(tried, key=lambda weights: tried[weights][tuned]) for part, tuned in scored.items()}
    say(f"{subject.system.name}, {subject.language}, {subject.pruning}: language weight and bonus {best}")
    return best


def measure(
    runs: dict[Subject, dict[int, Callable[[str], Run]]], part: str, rounds: int
) -> dict[Subject, tuple[float, float | None]]:
    """CPU seconds of one thread on a part, and how much sooner two are done; medians of rounds in turns."""
    taken: dict[tuple[Subject, int], list[Run]] = {}
    for number in range(rounds):
        say(f"round {number + 1} of {rounds}")
        for subject, by_threads in runs.items():
            for threads, run in by_threads.items():
                taken.setdefault((subject, threads), []).append(run(part))
    speeds = {}
    for subject in runs if rounds else ():
        cpu_seconds = statistics.median(run.cpu_seconds for run in taken[subject, 1])
        one, two = ([run.seconds for run in taken.get((subject, threads), ())] for threads in (1, 2))
        speeds[subject] = cpu_seconds, statistics.median(one) / statistics.median(two) if two else None
    return speeds


def compare(
    subjects: Sequence[Subject], weights: dict[Subject, Weights], beam: int, speech: dict[str, Speech], rounds: int
) -> None:
    """Score and time everything with one beam, and print its table."""
    runs: dict[Subject, dict[int, Callable[[str], Run]]] = {}
    errors: dict[Subject, list[tuple[list[Any], list[Any]]]] = {}
    timed = list(weights[subjects[0]])[-1]
    for subject in subjects:
        width = 0 if subject.pruning == "greedy" else beam
        base = Setting(subject.language, width, "wide" if width == 0 else subject.pruning)
        settings = {part: base._replace(weights=chosen) for part, chosen in weights[subject].items()}
        threads = subject.system.threads if width else (1,)
        runs[subject] = {n: subject.system.prepare(settings[timed]._replace(threads=n)) for n in threads}
        errors[subject] = [
            count(speech[part], subject.system.prepare(setting)(part).texts) for part, setting in settings.items()
        ]
    speeds = measure(runs, timed, rounds)
    several = " (of each half)" if len(weights[subjects[0]]) > 1 else ""
    print(f"\nBeam {beam}\n")
    print(f"| decoder | language model | pruning | WER, %{several} | to ours | CER, % | × real time | 2 threads |")
    print("|" + " --- |" * 8)
    speakers = [speaker for part in weights[subjects[0]] for speaker in speech[part].speakers]
    all_words = {each: [one for words, _ in errors[each] for one in words] for each in subjects}
    for subject in subjects:
        words, characters = ([add_up(each) for each in parts] for parts in zip(*errors[subject], strict=True))
        wer, cer = (f"{100 * add_up(rows).rate:.1f}" for rows in (words, characters))
        if several:
            wer += f" ({', '.join(f'{100 * each.rate:.1f}' for each in words)})"
        ours = next(each for each in subjects if each[1:] == (subject.language, "wide"))
        difference = describe_difference(all_words[ours], all_words[subject], speakers)
        seconds, gain = speeds.get(subject, (math.inf, None))
        speed = f"{speech[timed].seconds / seconds:,.0f}" if rounds else "–"
        speed += f" | {'–' if gain is None else f'{gain:.1f} times'}"
        row = f"{subject.system.name} | {subject.language or '–'} | {subject.pruning} | {wer} | {difference} | {cer}"
        print(f"| {row} | {speed} |")
    sys.stdout.flush()


def find_systems(
    tokens: Any, args: argparse.Namespace, speech: dict[str, Speech], folder: Path, stack: ExitStack
) -> list[Any]:
    """Ours, and the peers that are there."""
    systems: list[Any] = [Ours(tokens, args, speech)]
    try:
        systems.append(Flashlight(tokens, args, speech, folder))
    except ImportError as error:
        say(f"flashlight is left out: {error}; pip install flashlight-text==0.0.7")
    if args.peer_python is None:
        say("pyctcdecode is left out: --peer-python is not given")
        return systems
    try:
        systems.append(Pyctcdecode(tokens, args, speech, folder))
        stack.callback(systems[-1].close)
    except (ImportError, OSError) as error:
        say(f"pyctcdecode is left out: {error}; pip install pyctcdecode kenlm for that Python")
    return systems


def parse() -> argparse.Namespace:
    """Options; an error in one line where one is missing or names no file."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, usage="%(prog)s [options]"
    )
    parser.add_argument("--model", type=Path, required=True, help="model folder; its tokens are characters")
    parser.add_argument("--corpus", type=Path, required=True, help="validation data with speakers")
    parser.add_argument("--test", type=Path, help="test data, to be scored once with weights tuned on the corpus")
    parser.add_argument("--words", type=Path, required=True, help="ARPA file of words")
    parser.add_argument("--characters", type=Path, required=True, help="ARPA file of characters")
    parser.add_argument("--peer-python", type=Path, help="the Python of an environment with pyctcdecode and kenlm")
    parser.add_argument("--beam", type=int, nargs="+", default=[16, 64], help="weights are tuned with the first")
    parser.add_argument("--rounds", type=int, default=3, help="of timing; 0: none")
    args = parser.parse_args()
    for name in ("model", "corpus", "test", "words", "characters"):
        if getattr(args, name) is not None and not getattr(args, name).exists():
            parser.error(f"--{name}: there is no {getattr(args, name)}")
    return args


def main() -> None:
    """Compute, tune, measure, print."""
    args = parse()
    import torch

    import speechrnn

    torch.set_num_threads(1)
    recognizer = speechrnn.load(args.model)
    if recognizer.tokens.kind != "characters" or " " not in recognizer.tokens.symbols:
        sys.exit(f"{args.model}: its tokens are {recognizer.tokens.kind}; give a model of characters with a space")
    parts, scored = divide(args.corpus, args.test)
    speech = compute(recognizer, parts)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        systems = find_systems(recognizer.tokens, args, speech, Path(folder), stack)
        subjects = [
            Subject(system, language, pruning)
            for pruning in PRUNING
            for system in systems
            for language in system.languages
        ]
        weights = {subject: tune(subject, args.beam[0], speech, scored) for subject in subjects}
        greedy = Subject(systems[0], "", "greedy")
        weights[greedy] = dict.fromkeys(scored, (0.0, 0.0))
        for beam in args.beam:
            compare([greedy, *subjects], weights, beam, speech, args.rounds)


if __name__ == "__main__":
    main()
