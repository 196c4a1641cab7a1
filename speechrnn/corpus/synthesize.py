"""Synthetic speech from text, for training: espeak-ng, or any program that speaks a text into a file.

Sentences are drawn from text files in an order that follows from the seed, and dealt to speakers in blocks, so that
every speaker has equally many (within one block). A recording depends only on the seed, its sentence and its block:
not on the number of processes, nor on where an earlier run stopped.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import logging
import random
import re
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from speechrnn.atomic_io import read_json, write_atomic, write_json, write_json_lines
from speechrnn.audio.files import read_audio
from speechrnn.corpus.manifest import read_lines, read_records
from speechrnn.corpus.pack import encode
from speechrnn.errors import AudioError, ConfigError, CorpusError
from speechrnn.processes import locked
from speechrnn.settings import Settings, bounded
from speechrnn.types import Waveform

logger = logging.getLogger("speechrnn")

ESPEAK_PROGRAM = Path(__file__).with_name("espeak_program.py")
MANIFEST, OPTIONS_FILE, AUDIO_FOLDER = "manifest.jsonl", "synthesis.json", "audio"

_WORDS_PER_MINUTE = 170  # of espeak-ng at speed 1
_SILENT_PEAK = 1e-3
_MOST_PROCESSES = 256
_TRIED_FIRST = 10  # if all of so many recordings fail, the engine does not work
_SAVE_SECONDS = 10.0
_FIELD = re.compile(r"\{(text|out|voice|speed|pitch|seed)\}")
_UNNATURAL = re.compile("whisper|robo|demonic|croak|fast| ", re.IGNORECASE)  # variants of espeak-ng
_OTHER_SCRIPTS = ("en-Shaw",)


@dataclass(frozen=True)
class SynthesisConfig(Settings):
    """What is spoken, by whom and how.

    Attributes:
        engine: ``espeak`` (extra ``quickstart``), or a command with ``{text}`` and ``{out}`` and optionally
            ``{voice}``, ``{speed}``, ``{pitch}`` and ``{seed}``. It writes an audio file at ``{out}``, which ends in
            ``.wav``.
        voices: Speakers: of espeak-ng ``ACCENT+VARIANT``, such as ``en-us+f2``; otherwise values of ``{voice}``. Empty:
            all accents of the language with all natural variants of espeak-ng; one speaker of a command.
        language: Language of espeak-ng's voices, such as ``en`` or ``de``.
        num_sentences: Sentences to speak; None: all.
        min_words: Shortest sentence.
        max_words: Longest sentence.
        sentences_per_block: Sentences that a speaker says in succession.
        speed: Lowest and highest speed, drawn for each recording; 1 is the voice's own.
        pitch: Lowest and highest pitch, drawn for each block; 1 is the voice's own.
        sample_rate: Of the recordings, in Hz.
        encoding: Format of the recordings.
        seed: Determines the order of sentences and all draws.
        timeout_seconds: Longest time that a command may take for a recording.

    Raises:
        ConfigError: A value is out of range, or a command lacks ``{text}`` or ``{out}``.
    """

    engine: str = "espeak"
    voices: tuple[str, ...] = ()
    language: str = "en"
    num_sentences: int | None = bounded(None, 1, 10**8)
    min_words: int = bounded(2, 1, 1000)
    max_words: int = bounded(20, 1, 1000)
    sentences_per_block: int = bounded(20, 1, 10_000)
    speed: tuple[float, float] = bounded((0.85, 1.15), 0.5, 2)
    pitch: tuple[float, float] = bounded((0.8, 1.2), 0.5, 1.5)
    sample_rate: int = bounded(16000, 8000, 48000, unit="Hz")
    encoding: Literal["flac", "wav", "opus"] = "flac"
    seed: int = bounded(0, 0, 2**31)
    timeout_seconds: float = bounded(120.0, 0, 86400, open="low", unit="seconds")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.min_words > self.max_words:
            raise ConfigError(f"min_words: {self.min_words} is above max_words, {self.max_words}")
        for field in ("{text}", "{out}") if self.engine != "espeak" else ():
            if field not in self.engine:
                raise ConfigError(
                    f"engine: expected espeak or a command with {{text}} and {{out}}, got {self.engine!r}"
                )
        if self.engine != "espeak" and self.voices and "{voice}" not in self.engine:
            raise ConfigError("voices: the command has no {voice}; add it, or leave the voices out")


class Job(NamedTuple):
    """A recording to synthesise; speed and pitch are factors."""

    id: str
    text: str
    voice: str
    speed: float
    pitch: float
    seed: int


class Synthesis(NamedTuple):
    """A synthesised corpus: recordings and seconds in all, how many were made now, and why others failed, by text."""

    recordings: int
    seconds: float
    new: int
    failed: dict[str, str]


def synthesize(
    texts: Sequence[str | Path],
    folder: str | Path,
    config: SynthesisConfig | None = None,
    *,
    num_processes: int = 1,
    advance: Callable[[int, int], None] = lambda done, total: None,
) -> Synthesis:
    """Speak sentences into a folder: ``audio/`` and a NeMo ``manifest.jsonl`` with voice, speed, pitch and seed.

    If the folder holds a part already, made with the same options, the rest is added.

    Args:
        texts: Text files in UTF-8, one sentence per line. Sentences that occur again are spoken once.
        folder: Where the corpus goes.
        config: Options; None: the defaults.
        num_processes: Engines that run at the same time.
        advance: Called with the finished and the total number of recordings.

    Raises:
        ConfigError: The engine is not installed or fails for each of the first recordings, a voice is unknown, or the
            folder was made with other options.
        CorpusError: A text cannot be read, or no sentence has the wanted length.
    """
    config, folder = config or SynthesisConfig(), Path(folder)
    if not 1 <= num_processes <= _MOST_PROCESSES:
        raise ConfigError(f"num_processes: expected 1 to {_MOST_PROCESSES}, got {num_processes}")
    sentences = read_sentences(texts, config)
    blocks = plan_blocks(sentences[: config.num_sentences], config)
    (folder / AUDIO_FOLDER).mkdir(parents=True, exist_ok=True)
    with locked(folder, "another process writes there; wait, or choose another folder"):
        _check_options(folder, config, sentences)
        return _synthesize(blocks, folder, config, num_processes, advance)


def _synthesize(
    blocks: list[list[Job]],
    folder: Path,
    config: SynthesisConfig,
    num_processes: int,
    advance: Callable[[int, int], None],
) -> Synthesis:
    rows = _read_finished(folder)
    todo = [[job for job in block if job.id not in rows] for block in blocks]
    todo = [block if config.engine == "espeak" and rest else rest for block, rest in zip(blocks, todo, strict=True)]
    total, earlier, failed, saved = sum(map(len, blocks)), len(rows), {}, time.monotonic()
    with ThreadPoolExecutor(num_processes) as pool:
        waiting = {pool.submit(_speak_block, block, folder, config) for block in todo if block}
        try:
            for done in as_completed(waiting):
                made, reasons = done.result()
                rows.update({row["id"]: row for row in made})
                failed.update(reasons)
                _check_engine(rows, failed, config)
                if time.monotonic() - saved > _SAVE_SECONDS:
                    _save(folder, rows)
                    saved = time.monotonic()
                advance(len(rows) + len(failed), total)
        finally:
            for each in waiting:
                each.cancel()
            _save(folder, rows)
    return Synthesis(len(rows), sum(row["duration"] for row in rows.values()), len(rows) - earlier, failed)


def read_sentences(texts: Sequence[str | Path], config: SynthesisConfig) -> list[str]:
    """Read the sentences of the wanted length, each once, in an order that follows from the seed.

    Raises:
        CorpusError: A text cannot be read, or no sentence has the wanted length.
    """
    lines = (" ".join(line.split()) for path in texts for _, line in read_lines(Path(path), kind="text"))
    counts = {line: len(line.split()) for line in lines}
    sentences = [line for line, count in counts.items() if config.min_words <= count <= config.max_words]
    if not sentences:
        raise CorpusError(
            f"{', '.join(map(str, texts))}: none of {len(counts):,} lines has {config.min_words} to {config.max_words} "
            "words; give one sentence per line, or change the limits"
        )
    if len(sentences) < len(counts):
        logger.info("%d of %d sentences are shorter or longer", len(counts) - len(sentences), len(counts))
    random.Random(f"{config.seed} order").shuffle(sentences)
    return sentences


def plan_blocks(sentences: Sequence[str], config: SynthesisConfig) -> list[list[Job]]:
    """Deal sentences to speakers, in blocks; the blocks of all speakers come before the second block of any."""
    voices = list(config.voices) or (list_voices(config.language) if config.engine == "espeak" else ["default"])
    random.Random(f"{config.seed} voices").shuffle(voices)
    size, blocks = config.sentences_per_block, []
    for start in range(0, len(sentences), size):
        number = start // size
        draw = random.Random(f"{config.seed} block {number}")
        voice, pitch = voices[number % len(voices)], round(draw.uniform(*config.pitch), 3)
        block = []
        for i, text in enumerate(sentences[start : start + size], start):
            speed, seed = round(draw.uniform(*config.speed), 3), draw.randrange(2**31)
            block.append(Job(f"{i:07d}", text, voice, speed, pitch, seed))
        blocks.append(block)
    return blocks


def list_voices(language: str) -> list[str]:
    """List espeak-ng's accents of a language, each with all natural variants, as ``ACCENT+VARIANT``.

    Raises:
        ConfigError: espeakng-loader is not installed, or espeak-ng has no such language.
    """
    data = _find_espeak() / "espeak-ng-data"
    files = [path for path in (data / "lang").rglob("*") if path.is_file() and path.name not in _OTHER_SCRIPTS]
    accents = sorted(path.name.lower() for path in files if _speaks(path, language))
    if not accents:
        raise ConfigError(f"language: espeak-ng has no {language!r}; expected a code such as en, en-us or de")
    names = sorted(path.name for path in (data / "voices" / "!v").iterdir())
    variants = [name for name in names if not _UNNATURAL.search(name)]
    return [f"{accent}+{variant}" for accent in accents for variant in variants]


def _speaks(path: Path, language: str) -> bool:
    """Whether a voice file of espeak-ng names this language, or a region of it."""
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    codes = [line.split()[1] for line in lines if line.startswith("language ")]
    return any(f"{code}-".startswith(f"{language}-") for code in codes)


def _find_espeak() -> Path:
    spec = importlib.util.find_spec("espeakng_loader")
    if spec is None or not spec.submodule_search_locations:
        raise ConfigError("engine espeak: espeakng-loader is not installed; run pip install 'speechrnn[quickstart]'")
    return Path(spec.submodule_search_locations[0])


def _check_options(folder: Path, config: SynthesisConfig, sentences: Sequence[str]) -> None:
    """Store the options in a new folder; refuse a folder that was made with others, but for more sentences."""
    digest = hashlib.sha256("\n".join(sentences).encode())
    options = json.loads(json.dumps(asdict(config))) | {"sentences": digest.hexdigest()}
    path = folder / OPTIONS_FILE
    if path.exists() and (folder / MANIFEST).exists():
        earlier = read_json(path, error=ConfigError)
        for name in options:
            is_free = name in ("num_sentences", "timeout_seconds")
            if not is_free and (not isinstance(earlier, dict) or earlier.get(name) != options[name]):
                raise ConfigError(f"{folder}: was made with other {name}; give the same, or another folder")
    write_json(path, options)


def _read_finished(folder: Path) -> dict[str, dict[str, Any]]:
    path = folder / MANIFEST
    return {record["id"]: record for _, record in read_records(path, kind="manifest")} if path.exists() else {}


def _save(folder: Path, rows: Mapping[str, Any]) -> None:
    if rows:
        write_json_lines(folder / MANIFEST, [rows[id] for id in sorted(rows)])


def _speak_block(
    block: Sequence[Job], folder: Path, config: SynthesisConfig
) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Speak a block; its manifest rows, and why recordings failed, by text."""
    rows, failed = [], {}
    with tempfile.TemporaryDirectory(prefix="speechrnn-") as scratch:
        speak = _speak_with_espeak if config.engine == "espeak" else _speak_with_command
        for job, path, reason in speak(block, Path(scratch), config):
            try:
                if reason:
                    raise AudioError(reason)
                rows.append(_store(job, path, folder, config))
            except AudioError as error:
                failed[job.text] = str(error)
    return rows, failed


def _store(job: Job, path: Path, folder: Path, config: SynthesisConfig) -> dict[str, Any]:
    """Encode a spoken recording, and return its manifest row."""
    waveform = read_audio(path, sample_rate=config.sample_rate, name="its output", check_levels=False)
    if np.abs(waveform.samples).max() < _SILENT_PEAK:
        raise AudioError("its output is silent")
    name = f"{AUDIO_FOLDER}/{job.id}.{config.encoding}"
    write_atomic(folder / name, encode(Waveform(waveform.samples, config.sample_rate), config.encoding).getvalue())
    row = {"id": job.id, "audio_filepath": name, "duration": len(waveform.samples) / config.sample_rate}
    labels = {"speaker": job.voice, "speed": job.speed, "pitch": job.pitch, "seed": job.seed}
    return {**row, "text": job.text, **labels, "text_source": "synthetic"}


def _speak_with_espeak(block: Sequence[Job], scratch: Path, config: SynthesisConfig) -> Iterator[tuple[Job, Path, str]]:
    """Speak a block in a process of its own; yield each job, its file, and why it failed."""
    _find_espeak()
    lines = []
    for job in block:
        accent, _, variant = job.voice.partition("+")
        rate = min(450, max(80, round(_WORDS_PER_MINUTE * job.speed)))
        pitch = min(99, max(0, round(50 * job.pitch)))
        voice = {"accent": accent, "variant": variant, "rate": rate, "pitch": pitch}
        lines.append(json.dumps({"path": str(scratch / f"{job.id}.wav"), "text": job.text, **voice}) + "\n")
    (scratch / "jobs").write_text("".join(lines), encoding="utf-8")
    reason = _run([sys.executable, str(ESPEAK_PROGRAM), str(scratch / "jobs")], config.timeout_seconds * len(block))
    for job in block:
        path = scratch / f"{job.id}.wav"
        yield job, path, "" if path.exists() else reason or "espeak-ng wrote no file"


def _speak_with_command(
    block: Sequence[Job], scratch: Path, config: SynthesisConfig
) -> Iterator[tuple[Job, Path, str]]:
    """Run the command for each job; yield the job, its file, and why it failed."""
    for job in block:
        path = scratch / f"{job.id}.wav"
        words = _fill(config.engine, {**job._asdict(), "out": path})
        reason = _run(words, config.timeout_seconds)
        yield job, path, reason or ("" if path.exists() else "the command wrote no file at {out}")


def _fill(command: str, values: Mapping[str, Any]) -> list[str]:
    """Split a command as a shell does, then replace its fields."""
    return [_FIELD.sub(lambda field: str(values[field[1]]), word) for word in shlex.split(command)]


def _run(command: Sequence[str], timeout: float) -> str:
    """Run a program; the last line of its messages if it fails, else nothing."""
    try:
        done = subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL, timeout=timeout, check=False)
    except subprocess.TimeoutExpired:
        return f"no result after {timeout:g} s"
    except OSError as error:
        raise ConfigError(f"engine: {command[0]} cannot be run ({error.strerror or error})") from error
    if done.returncode == 0:
        return ""
    lines = done.stderr.decode(errors="replace").strip().splitlines() or [f"exit code {done.returncode}"]
    return lines[-1][:500]


def _check_engine(rows: Iterable[str], failed: dict[str, str], config: SynthesisConfig) -> None:
    if len(failed) >= _TRIED_FIRST and not rows:
        raise ConfigError(
            f"engine {config.engine}: failed for all of {len(failed)} sentences: {list(failed.values())[-1]}"
        )
