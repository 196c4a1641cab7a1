"""The decoders that bench_decoders.py compares, each behind the same two methods.

Run by another Python with ``pyctcdecode`` in it, this file is the process in which that decodes; nothing of speechrnn
is needed for it.
"""

import argparse
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

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
    """Transcripts, CPU time of the process, and elapsed time."""

    texts: list[str]
    cpu_seconds: float
    seconds: float


class Speech(NamedTuple):
    """Log-probabilities in batches, (B, T', V) with lengths (B,); references and speakers of each; seconds of audio."""

    batches: list[tuple[Any, Any]]
    references: list[str]
    speakers: list[str]
    seconds: float


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

    def __init__(self, tokens: Any, args: argparse.Namespace, speech: dict[str, Speech]) -> None:
        from speechrnn.decoding.fusion import Fusion
        from speechrnn.decoding.grammar import Grammar
        from speechrnn.language.compiled import read_language_model

        self._tokens, self._speech = tokens, speech
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

        def decode(name: str) -> Iterator[str]:
            for log_probs, lengths in self._speech[name].batches:
                if not setting.beam:
                    found = [[each] for each in decode_greedy(log_probs, lengths)]
                else:
                    found = decode_beam(log_probs, lengths, config, grammar=grammar, fusion=fusion)
                yield from (self._tokens.decode(best[0].tokens) if best else "" for best in found)

        def run(name: str) -> Run:
            with patch("speechrnn.decoding.beam.count_cores", return_value=setting.threads):
                return time_run(lambda: list(decode(name)))

        return run


class Flashlight:
    """flashlight's decoders by way of torchaudio; they hold the interpreter's lock, so threads gain nothing."""

    name, languages, threads = "flashlight", ("", CHARACTERS, LEXICON), (1,)

    def __init__(self, tokens: Any, args: argparse.Namespace, speech: dict[str, Speech], folder: Path) -> None:
        from flashlight.lib.text.decoder.kenlm import KenLM
        from flashlight.lib.text.dictionary import Dictionary

        from speechrnn.language.compiled import read_language_model

        self._speech = speech
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

        def decode(name: str) -> list[str]:
            found = (best for batch in self._speech[name].batches for best in decoder(*batch))
            return [read(best[0]) if best else "" for best in found]

        return lambda name: time_run(lambda: decode(name))


class Pyctcdecode:
    """pyctcdecode in a process of its own, which another Python runs (:func:`serve`)."""

    name, threads = "pyctcdecode", (1, 2)

    def __init__(self, tokens: Any, args: argparse.Namespace, speech: dict[str, Speech], folder: Path) -> None:
        import numpy as np

        log_probs = folder / "log_probs.npz"
        rows = {}
        for name, each in speech.items():
            for row, length in (pair for batch in each.batches for pair in zip(*batch, strict=True)):
                rows[f"{name} {len(rows)}"] = row[:length].numpy()
        np.savez(log_probs, **rows)
        command = [str(args.peer_python), __file__, str(log_probs), str(args.words)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        greeting = self._ask({"symbols": tokens.symbols})
        if "problem" in greeting:
            raise ImportError(greeting["problem"])
        self.languages = tuple(greeting["languages"])

    def grid(self, language: str) -> tuple[Sequence[float], Sequence[float]]:
        return GRIDS[language]

    def prepare(self, setting: Setting) -> Callable[[str], Run]:
        return lambda name: Run(**self._ask({"name": name, "setting": setting}))

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
        decoder, chosen = (
            decoders[setting.language],
            [rows[name] for name in rows if name.startswith(question["name"] + " ")],
        )
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


if __name__ == "__main__":
    serve(*sys.argv[1:])
