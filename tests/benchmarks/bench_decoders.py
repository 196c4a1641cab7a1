"""Error rates and speed of our decoders beside pyctcdecode's and flashlight's, on the same log-probabilities.

pyctcdecode needs an environment of its own (it wants numpy below 2), and nothing of speechrnn::

    python -m venv peers && peers/bin/pip install pyctcdecode kenlm
    pip install flashlight-text==0.0.7
    speechrnn lm build train.txt --order 3 -o w.arpa
    speechrnn lm build train.txt --order 6 --tokens characters -o c.arpa
    python tests/benchmarks/bench_decoders.py --model MODEL --corpus valid.jsonl --words w.arpa --characters c.arpa \
        --peer-python peers/bin/python --beam 16 64

The corpus is validation data with speakers. In the order of their names every other speaker belongs to the first half,
the rest to the second; the weights that a half is scored with were tuned on the other one, each decoder's on a grid of
30 points with the first of the beams. Times are those of decoding the second half, in turns, the median of the rounds:
CPU time of one thread, so that what else the machine does counts little, and what a second thread gains by the clock.

Pruning is as alike as the options allow. ``wide``: ours tries tokens within 12 nats of a frame's best (its default),
pyctcdecode those above -12, flashlight all; prefixes 50 nats below the best go, ours has no such limit. ``narrow``: 5
nats and 10, which is what pyctcdecode does by default. flashlight adds paths up as the others do (``log_add``), its
words are spelled with the space at their end, and its language models get their vocabularies in files: without them
torchaudio hands KenLM's ids over in the order of a hash table.
"""

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

HALVES = ("first", "second")
PRUNING = {"wide": (12.0, 50.0), "narrow": (5.0, 10.0)}
"""Nats: of a token below the best one (pyctcdecode: below 0), and of a prefix below the best one."""
WORDS, CHARACTERS, LEXICON = "words", "characters", "words, no others"
"""A model of words; a model of characters; a model of words and nothing said but its words."""
GRIDS = {
    WORDS: ((0.1, 0.2, 0.4, 0.7, 1.0, 1.4), (-2.5, -1.0, 0.5, 2.0, 3.5)),
    LEXICON: ((0.1, 0.2, 0.4, 0.7, 1.0, 1.4), (-2.5, -1.0, 0.5, 2.0, 3.5)),
    CHARACTERS: ((0.1, 0.2, 0.35, 0.5, 0.75, 1.0), (0.0, 0.25, 0.5, 1.0, 1.5)),
}
"""Language weights, times the natural log of a probability, and bonuses for each word or character."""
SILENCE_BONUSES = (-1.0, -0.5, 0.0, 0.5, 1.0)
"""flashlight has no bonus for characters; each frame of a space can have one."""
SPACE = "<space>"


class Setting(NamedTuple):
    """How a decoder is to decode; language weight and bonus where it has a language model."""

    language: str
    beam: int
    pruning: str
    weights: tuple[float, float] = (0.0, 0.0)
    threads: int = 1


class Run(NamedTuple):
    """What was heard in one half, CPU time of the process, and time by the clock."""

    texts: list[str]
    cpu_seconds: float
    seconds: float


class Half(NamedTuple):
    """Log-probabilities of one half in batches, (B, T', V) with lengths (B,); its references; seconds of audio."""

    batches: list[tuple[Any, Any]]
    references: list[str]
    seconds: float


class Subject(NamedTuple):
    """A row of the table: who decodes with what."""

    system: Any
    language: str
    pruning: str


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def time_run(decode: Callable[[], list[str]]) -> Run:
    """CPU time of all threads, and the clock's."""
    started, cpu_started = time.perf_counter(), time.process_time()
    texts = decode()
    return Run(texts, time.process_time() - cpu_started, time.perf_counter() - started)


class Ours:
    """speechrnn's beam search, and its greedy decoder for a beam of 0."""

    name, languages, threads = "speechrnn", ("", WORDS, CHARACTERS, LEXICON), (1, 2)

    def __init__(self, tokens: Any, args: argparse.Namespace, halves: dict[str, Half]) -> None:
        from speechrnn.decoding.fusion import Fusion
        from speechrnn.decoding.grammar import Grammar
        from speechrnn.language.compiled import read_language_model

        self._tokens, self._halves = tokens, halves
        words, characters = (read_language_model(path) for path in (args.words, args.characters))
        fusions = [Fusion(tokens.spellings, model, symbols=tokens.symbols) for model in (words, characters)]
        self._fusions = {WORDS: fusions[0], CHARACTERS: fusions[1], LEXICON: fusions[0], "": None}
        spelled = [tokens.encode(word) for word in list_words(words.words, tokens)]
        self._grammar = Grammar.of_words(spelled, separator=tokens.symbols.index(" "))

    def grid(self, language: str) -> tuple[Sequence[float], Sequence[float]]:
        return GRIDS[language]

    def prepare(self, setting: Setting) -> Callable[[str], Run]:
        from speechrnn.decoding.beam import BeamConfig, decode_beam
        from speechrnn.decoding.fusion import FusionConfig
        from speechrnn.decoding.greedy import decode_greedy

        fusion = self._fusions[setting.language]
        fusion = fusion.with_config(FusionConfig(*setting.weights)) if fusion else None
        grammar = self._grammar if setting.language == LEXICON else None
        config = BeamConfig(max(1, setting.beam), token_threshold=PRUNING[setting.pruning][0])

        def decode(half: str) -> Iterator[str]:
            for log_probs, lengths in self._halves[half].batches:
                if not setting.beam:
                    found = [[each] for each in decode_greedy(log_probs, lengths)]
                else:
                    found = decode_beam(log_probs, lengths, config, grammar=grammar, fusion=fusion)
                yield from (self._tokens.decode(best[0].tokens) if best else "" for best in found)

        def run(half: str) -> Run:
            with patch("speechrnn.decoding.beam.count_cores", return_value=setting.threads):
                return time_run(lambda: list(decode(half)))

        return run


class Flashlight:
    """flashlight's decoders by way of torchaudio; they hold the interpreter's lock, so threads gain nothing."""

    name, languages, threads = "flashlight", ("", CHARACTERS, LEXICON), (1,)

    def __init__(self, tokens: Any, args: argparse.Namespace, halves: dict[str, Half], folder: Path) -> None:
        from flashlight.lib.text.decoder.kenlm import KenLM
        from flashlight.lib.text.dictionary import Dictionary

        from speechrnn.language.compiled import read_language_model

        self._halves = halves
        self._symbols = [SPACE if symbol == " " else symbol for symbol in tokens.symbols]
        words = list_words(read_language_model(args.words).words, tokens)
        lines = {
            "lexicon": [f"{word} {' '.join(word)} {SPACE}" for word in words],
            LEXICON: [*words, "<unk>"],
            CHARACTERS: self._symbols,
        }
        self._files = {name: str(folder / f"{number}.txt") for number, name in enumerate(lines)}
        for name, content in lines.items():
            Path(self._files[name]).write_text("\n".join([*content, ""]), encoding="utf-8")
        arpa = {LEXICON: args.words, CHARACTERS: args.characters}
        self._models = {unit: KenLM(str(path), Dictionary(self._files[unit])) for unit, path in arpa.items()}

    def grid(self, language: str) -> tuple[Sequence[float], Sequence[float]]:
        return GRIDS[language][0], SILENCE_BONUSES if language == CHARACTERS else GRIDS[language][1]

    def prepare(self, setting: Setting) -> Callable[[str], Run]:
        from torchaudio.models.decoder import ctc_decoder

        weight, bonus = setting.weights
        decoder = ctc_decoder(
            lexicon=self._files["lexicon"] if setting.language == LEXICON else None,
            tokens=self._symbols,
            lm=self._models.get(setting.language),
            lm_dict=self._files.get(setting.language),
            beam_size=setting.beam,
            beam_threshold=PRUNING[setting.pruning][1],
            lm_weight=weight * math.log(10),  # KenLM speaks in logarithms to base 10
            word_score=bonus,
            sil_score=bonus if setting.language == CHARACTERS else 0.0,
            log_add=True,
            blank_token=self._symbols[0],
            sil_token=SPACE,
        )

        def read(hypothesis: Any) -> str:
            if setting.language == LEXICON:
                return " ".join(hypothesis.words)
            return "".join(self._symbols[token] for token in hypothesis.tokens.tolist()).replace(SPACE, " ")

        def decode(half: str) -> list[str]:
            found = (best for batch in self._halves[half].batches for best in decoder(*batch))
            return [read(best[0]) if best else "" for best in found]

        return lambda half: time_run(lambda: decode(half))


class Pyctcdecode:
    """pyctcdecode in a process of its own, which another Python runs (:func:`serve`)."""

    name, threads = "pyctcdecode", (1, 2)

    def __init__(self, tokens: Any, args: argparse.Namespace, halves: dict[str, Half], folder: Path) -> None:
        import numpy as np

        log_probs = folder / "log_probs.npz"
        rows = {}
        for name, half in halves.items():
            for row, length in (pair for batch in half.batches for pair in zip(*batch, strict=True)):
                rows[f"{name} {len(rows)}"] = row[:length].numpy()
        np.savez(log_probs, **rows)
        command = [str(args.peer_python), __file__, "--serve", str(log_probs), str(args.words)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        greeting = self._ask({"symbols": tokens.symbols})
        if "problem" in greeting:
            raise ImportError(greeting["problem"])
        self.languages = tuple(greeting["languages"])

    def grid(self, language: str) -> tuple[Sequence[float], Sequence[float]]:
        return GRIDS[language]

    def prepare(self, setting: Setting) -> Callable[[str], Run]:
        return lambda half: Run(**self._ask({"half": half, "setting": setting}))

    def close(self) -> None:
        self._process.stdin.close()  # type: ignore[union-attr]
        self._process.wait()

    def _ask(self, question: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise ImportError("its process ended; what it said stands above")
        return json.loads(answer)


def serve(path: str, words: str) -> None:
    """Be the other process: a question a line on standard input, an answer a line on standard output."""
    import multiprocessing

    import numpy as np

    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever else writes there
    symbols = json.loads(sys.stdin.readline())["symbols"]
    try:
        from pyctcdecode import build_ctcdecoder
    except ImportError as error:
        print(json.dumps({"problem": str(error)}), file=answers, flush=True)
        return
    decoders = {"": build_ctcdecoder(["", *symbols[1:]])}
    try:
        import kenlm  # noqa: F401

        decoders[WORDS] = build_ctcdecoder(["", *symbols[1:]], kenlm_model_path=words)
    except ImportError as error:
        say(f"pyctcdecode has no language model: {error}")
    print(json.dumps({"languages": list(decoders)}), file=answers, flush=True)
    with np.load(path) as file:
        rows = {name: file[name] for name in file.files}
    for line in sys.stdin:
        question = json.loads(line)
        setting = Setting(*question["setting"])
        decoder, chosen = decoders[setting.language], [rows[name] for name in rows if name.startswith(question["half"])]
        decoder.reset_params(*map(float, setting.weights))
        options = {
            "beam_width": setting.beam,
            "token_min_logp": -PRUNING[setting.pruning][0],
            "beam_prune_logp": -PRUNING[setting.pruning][1],
        }
        with ExitStack() as stack:
            pool = None
            if setting.threads > 1:
                pool = stack.enter_context(multiprocessing.get_context("fork").Pool(setting.threads))
                pool.map(abs, range(setting.threads))  # they have started
            run = time_run(lambda: decoder.decode_batch(pool, chosen, **options))  # noqa: B023
        print(json.dumps(run._asdict()), file=answers, flush=True)


def list_words(vocabulary: Sequence[str], tokens: Any) -> list[str]:
    """The words among them that the acoustic model can write."""
    letters = set(tokens.symbols[1:])
    return [word for word in vocabulary if not word.startswith("<") and letters.issuperset(word)]


def compute(recognizer: Any, corpus: Path) -> dict[str, Half]:
    """Log-probabilities of both halves."""
    from speechrnn.corpus.readers import read_corpus
    from speechrnn.evaluation.evaluate import read_all
    from speechrnn.recognition.batches import collect_batches, pad_waveforms
    from speechrnn.text.normalize import normalize_for_scoring

    cuts = list(read_corpus(corpus))
    speakers = sorted({cut.supervisions[0].speaker or "" for cut in cuts})
    halves = {}
    for number, name in enumerate(HALVES):
        chosen = [cut for cut in cuts if cut.supervisions[0].speaker in speakers[number::2]]
        texts = {cut.id: normalize_for_scoring(cut.supervisions[0].text or "") for cut in chosen}
        half = Half([], [], sum(cut.duration for cut in chosen))
        recordings = read_all(recognizer, chosen, {})
        budget = 120.0 * recognizer.sample_rate
        for batch in collect_batches(recordings, lambda recording: len(recording[1]), most_samples=budget):
            emission = recognizer.emissions(*pad_waveforms([waveform for _, waveform in batch]))
            half.batches.append((emission.log_probs.cpu().float().contiguous().clone(), emission.lengths.cpu()))
            half.references.extend(texts[id] for id, _ in batch)
        halves[name] = half
        say(
            f"{name} half: {len(speakers[number::2])} speakers, {len(half.references)} utterances, {half.seconds:.0f} s"
        )
    return halves


def count(half: Half, texts: Sequence[str]) -> tuple[Any, Any]:
    """Word and character errors."""
    from speechrnn.text.metrics import ErrorCounts, character_errors, word_errors
    from speechrnn.text.normalize import normalize_for_scoring

    pairs = list(zip(half.references, map(normalize_for_scoring, texts), strict=True))
    return (
        sum((word_errors(*pair) for pair in pairs), ErrorCounts()),
        sum((character_errors(*pair) for pair in pairs), ErrorCounts()),
    )


def tune(subject: Subject, beam: int, halves: dict[str, Half]) -> dict[str, tuple[float, float]]:
    """The weights with the fewest word errors on each half."""
    if not subject.language:
        return dict.fromkeys(HALVES, (0.0, 0.0))
    tried = {}
    for weights in product(*subject.system.grid(subject.language)):
        run = subject.system.prepare(Setting(subject.language, beam, subject.pruning, weights))
        tried[weights] = {half: count(halves[half], run(half).texts)[0].errors for half in HALVES}
    best = {half: min(tried, key=lambda weights: tried[weights][half]) for half in HALVES}
    say(f"{subject.system.name}, {subject.language}, {subject.pruning}: language weight and bonus {best}")
    return best


def measure(
    runs: dict[Subject, dict[int, Callable[[str], Run]]], rounds: int
) -> dict[Subject, tuple[float, float | None]]:
    """CPU seconds of one thread on the second half, and how much sooner two are done; medians of rounds in turns."""
    taken: dict[tuple[Subject, int], list[Run]] = {}
    for number in range(rounds):
        say(f"round {number + 1} of {rounds}")
        for subject, by_threads in runs.items():
            for threads, run in by_threads.items():
                taken.setdefault((subject, threads), []).append(run(HALVES[1]))
    speeds = {}
    for subject in runs:
        cpu_seconds = statistics.median(run.cpu_seconds for run in taken[subject, 1])
        one, two = ([run.seconds for run in taken.get((subject, threads), ())] for threads in (1, 2))
        speeds[subject] = cpu_seconds, statistics.median(one) / statistics.median(two) if two else None
    return speeds


def compare(
    subjects: Sequence[Subject],
    weights: dict[Subject, dict[str, tuple[float, float]]],
    beam: int,
    halves: dict[str, Half],
    rounds: int,
) -> None:
    """Score and time everything with one beam, and print its table."""
    runs: dict[Subject, dict[int, Callable[[str], Run]]] = {}
    errors = {}
    for subject in subjects:
        width = 0 if subject.pruning == "greedy" else beam
        base = Setting(subject.language, width, "wide" if width == 0 else subject.pruning)
        for_second, for_first = (base._replace(weights=weights[subject][half]) for half in HALVES)
        threads = subject.system.threads if width else (1,)
        runs[subject] = {n: subject.system.prepare(for_second._replace(threads=n)) for n in threads}
        first = subject.system.prepare(for_first)("first").texts
        second = subject.system.prepare(for_second)("second").texts
        errors[subject] = count(halves["first"], first), count(halves["second"], second)
    speeds = measure(runs, rounds)
    print(f"\nBeam {beam}\n")
    print("| decoder | language model | pruning | WER, % (of each half) | CER, % | × real time | 2 threads |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for subject in subjects:
        (first_words, first_characters), (second_words, second_characters) = errors[subject]
        whole, *both = (100 * each.rate for each in (first_words + second_words, first_words, second_words))
        wer = f"{whole:.1f} ({both[0]:.1f}, {both[1]:.1f})"
        cer = f"{100 * (first_characters + second_characters).rate:.1f}"
        seconds, gain = speeds[subject]
        speed = f"{halves['second'].seconds / seconds:,.0f} | {'–' if gain is None else f'{gain:.1f} times'}"
        print(f"| {subject.system.name} | {subject.language or '–'} | {subject.pruning} | {wer} | {cer} | {speed} |")
    sys.stdout.flush()


def find_systems(
    tokens: Any, args: argparse.Namespace, halves: dict[str, Half], folder: Path, stack: ExitStack
) -> list[Any]:
    """Ours, and the peers that are there."""
    systems: list[Any] = [Ours(tokens, args, halves)]
    try:
        systems.append(Flashlight(tokens, args, halves, folder))
    except ImportError as error:
        say(f"flashlight is left out: {error}; pip install flashlight-text==0.0.7")
    if args.peer_python is None:
        say("pyctcdecode is left out: --peer-python is not given")
        return systems
    try:
        systems.append(Pyctcdecode(tokens, args, halves, folder))
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
    parser.add_argument("--words", type=Path, required=True, help="ARPA file of words")
    parser.add_argument("--characters", type=Path, required=True, help="ARPA file of characters")
    parser.add_argument("--peer-python", type=Path, help="the Python of an environment with pyctcdecode and kenlm")
    parser.add_argument("--beam", type=int, nargs="+", default=[16, 64], help="weights are tuned with the first")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    for name in ("model", "corpus", "words", "characters"):
        if not getattr(args, name).exists():
            parser.error(f"--{name}: there is no {getattr(args, name)}")
    return args


def main() -> None:
    """Compute, tune, measure, print."""
    if sys.argv[1:2] == ["--serve"]:
        serve(*sys.argv[2:])
        return
    args = parse()
    import torch

    import speechrnn

    torch.set_num_threads(1)
    recognizer = speechrnn.load(args.model)
    if recognizer.tokens.kind != "characters" or " " not in recognizer.tokens.symbols:
        sys.exit(f"{args.model}: its tokens are {recognizer.tokens.kind}; give a model of characters with a space")
    halves = compute(recognizer, args.corpus)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        systems = find_systems(recognizer.tokens, args, halves, Path(folder), stack)
        subjects = [
            Subject(system, language, pruning)
            for pruning in PRUNING
            for system in systems
            for language in system.languages
        ]
        weights = {subject: tune(subject, args.beam[0], halves) for subject in subjects}
        greedy = Subject(systems[0], "", "greedy")
        weights[greedy] = dict.fromkeys(HALVES, (0.0, 0.0))
        for beam in args.beam:
            compare([greedy, *subjects], weights, beam, halves, args.rounds)


if __name__ == "__main__":
    main()
