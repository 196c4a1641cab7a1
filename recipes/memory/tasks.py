"""What is to be remembered: sums of two numbers, symbols, a first digit; and what comes next in a series or a text.

Each task is drawn anew for each training step, so that nothing can be learned by heart but the rule. B is the batch, T
the steps of a sequence. A *lag* is how many steps lie between what must be remembered and where it is asked for.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from speechrnn.audio.features import FrontEnd, FrontEndConfig
from speechrnn.audio.files import read_audio
from speechrnn.errors import CorpusError
from speechrnn.training.sequences import SequenceBatch

Loss = Literal["squared_error", "cross_entropy"]


def make_batch(
    inputs: np.ndarray, targets: np.ndarray, counts: np.ndarray, reference: np.ndarray | None = None
) -> SequenceBatch:
    """Sequences of one length: (B, T, F), (B, T, O) or (B, T), (B, T) and references (B, T', F), as tensors."""
    return SequenceBatch(
        torch.from_numpy(inputs.astype(np.float32)),
        torch.full((len(inputs),), inputs.shape[1]),
        torch.from_numpy(targets.astype(np.float32 if targets.ndim == 3 else np.int64)),
        torch.from_numpy(counts),
        None if reference is None else torch.from_numpy(reference.astype(np.float32)),
    )


def ask_at_the_end(batch_size: int, steps: int, asked: int = 1) -> np.ndarray:
    """Only the last steps count: (B, T), bool."""
    counts = np.zeros((batch_size, steps), dtype=bool)
    counts[:, -asked:] = True
    return counts


@dataclass
class Adding:
    """Numbers between 0 and 1, two of them marked: what is their sum?

    The first marked number is one of the first ten, the second one of the others, and the sum is asked for ``lag``
    steps after the tenth. To say 1 at all times has an error of 1/6.

    Source:
        S. Hochreiter and J. Schmidhuber, "Long short-term memory", 1997.
    """

    lag: int
    input_size: int = 2
    output_size: int = 1
    loss: Loss = "squared_error"
    chance: float = 1 / 6
    solved_below: float = 0.01

    def draw(self, rng: np.random.Generator, batch_size: int) -> SequenceBatch:
        """Value and mark at each step."""
        steps, row = self.lag + 10, np.arange(batch_size)
        inputs = np.zeros((batch_size, steps, 2))
        inputs[:, :, 0] = rng.random((batch_size, steps))
        first, second = rng.integers(10, size=batch_size), rng.integers(10, steps, size=batch_size)
        inputs[row, first, 1] = inputs[row, second, 1] = 1.0
        targets = np.zeros((batch_size, steps, 1))
        targets[:, -1, 0] = inputs[row, first, 0] + inputs[row, second, 0]
        return make_batch(inputs, targets, ask_at_the_end(batch_size, steps))


@dataclass
class Copy:
    """Three symbols of eight, then a wait of ``lag`` steps, then a sign to say them again, in their order.

    To guess has seven errors in eight.
    """

    lag: int
    symbols: int = 8
    length: int = 3
    loss: Loss = "cross_entropy"
    solved_below: float = 0.01

    def __post_init__(self) -> None:
        self.input_size = self.symbols + 2  # and nothing, and the sign
        self.output_size = self.symbols
        self.chance = 1 - 1 / self.symbols

    def draw(self, rng: np.random.Generator, batch_size: int) -> SequenceBatch:
        """One-hot symbols; the sign stands at the first step of the answer."""
        symbols = rng.integers(self.symbols, size=(batch_size, self.length))
        steps = self.lag + 2 * self.length
        inputs = np.full((batch_size, steps), self.symbols)
        inputs[:, : self.length] = symbols
        inputs[:, -self.length] = self.symbols + 1
        targets = np.zeros((batch_size, steps))
        targets[:, -self.length :] = symbols
        return make_batch(np.eye(self.input_size)[inputs], targets, ask_at_the_end(batch_size, steps, self.length))


class FirstDigit:
    """Spoken digits one after the other: which was the first? It is asked for ``lag`` frames after its end.

    Args:
        clips: Features of each digit's clips, ten lists of (T, F).
        lag: In frames.
    """

    loss: Loss = "cross_entropy"
    output_size = 10
    chance = 0.9
    solved_below = 0.02

    def __init__(self, clips: Sequence[Sequence[np.ndarray]], lag: int) -> None:
        self.clips, self.lag = clips, lag
        self.input_size = clips[0][0].shape[1]

    def draw(self, rng: np.random.Generator, batch_size: int) -> SequenceBatch:
        """MFCCs; what comes after the first digit is other digits, cut off where the lag is over."""
        digits, rows = rng.integers(10, size=batch_size), []
        for digit in digits:
            pieces = [self._pick(rng, digit)]
            wanted = len(pieces[0]) + self.lag
            while sum(map(len, pieces)) < wanted:
                pieces.append(self._pick(rng, rng.integers(10)))
            rows.append(np.concatenate(pieces)[:wanted])
        lengths = np.array([len(row) for row in rows])
        inputs = np.zeros((batch_size, lengths.max(), self.input_size), np.float32)
        counts = np.zeros(inputs.shape[:2], dtype=bool)
        for number, row in enumerate(rows):
            inputs[number, : len(row)] = row
            counts[number, len(row) - 1] = True
        targets = np.repeat(digits[:, None], inputs.shape[1], axis=1)
        return SequenceBatch(
            torch.from_numpy(inputs), torch.from_numpy(lengths), torch.from_numpy(targets), torch.from_numpy(counts)
        )

    def _pick(self, rng: np.random.Generator, digit: int) -> np.ndarray:
        clips = self.clips[digit]
        return clips[int(rng.integers(len(clips)))]


FSDD_FRONT_END = FrontEndConfig(
    sample_rate=8000, n_mels=24, num_coefficients=13, hop_seconds=0.02, normalization="utterance"
)


def read_digits(folder: Path, numbers: range) -> list[list[np.ndarray]]:
    """MFCCs of FSDD's clips with these numbers, by digit: 20 ms a frame, each clip normalised.

    Raises:
        CorpusError: The folder holds no such clips.
    """
    recordings = folder / "recordings" if (folder / "recordings").is_dir() else folder
    front_end, clips = FrontEnd(FSDD_FRONT_END), []
    for digit in range(10):
        paths = [path for path in sorted(recordings.glob(f"{digit}_*_*.wav")) if _number(path) in numbers]
        if not paths:
            raise CorpusError(
                f"{folder}: expected clips of FSDD named {digit}_SPEAKER_NUMBER.wav with numbers from {numbers.start} "
                f"to {numbers.stop - 1}, found none; give the folder that has recordings/ in it"
            )
        clips.append([_features(front_end, path) for path in paths])
    return clips


def _number(path: Path) -> int:
    last = path.stem.rsplit("_", 1)[-1]
    return int(last) if last.isdigit() else -1


def _features(front_end: FrontEnd, path: Path) -> np.ndarray:
    samples = torch.from_numpy(read_audio(path, sample_rate=FSDD_FRONT_END.sample_rate).samples)
    return front_end(samples[None], torch.tensor([len(samples)]))[0][0].numpy()


@dataclass
class Waves:
    """What comes next in a wave of unknown frequency, amplitude and phase.

    The reference is the same wave, earlier: a model that has read it already knows its parameters. Every step is
    scored, so a model without the reference errs at the beginning.
    """

    steps: int = 20
    input_size: int = 1
    output_size: int = 1
    loss: Loss = "squared_error"

    def draw(self, rng: np.random.Generator, batch_size: int) -> SequenceBatch:
        """Periods of 6 to 30 steps, amplitudes of 0.5 to 1.5."""
        period = np.exp(rng.uniform(math.log(6), math.log(30), size=(batch_size, 1)))
        amplitude = rng.uniform(0.5, 1.5, size=(batch_size, 1))
        phase = rng.uniform(0, 2 * math.pi, size=(batch_size, 1))
        at = np.arange(-40, self.steps + 1)
        wave = (amplitude * np.sin(phase + 2 * math.pi * at / period))[..., None]
        counts = np.ones((batch_size, self.steps), dtype=bool)
        return make_batch(wave[:, 40:-1], wave[:, 41:], counts, wave[:, :40])


class Series:
    """The next values of a series that goes on: windows of it, and each window's values ``ahead`` steps later.

    Args:
        values: (N, F).
        ahead: How far ahead is to be predicted, in steps.
        steps: Of a window.
        mean: Of the series that is trained on, (F,); None: of this one.
        std: Likewise.
    """

    loss: Loss = "squared_error"

    def __init__(
        self,
        values: np.ndarray,
        *,
        ahead: int = 1,
        steps: int = 50,
        mean: np.ndarray | None = None,
        std: np.ndarray | None = None,
    ) -> None:
        if len(values) < steps + ahead:
            raise CorpusError(
                f"a series of {len(values)} values: expected {steps + ahead} or more, for windows of {steps} steps and "
                f"{ahead} ahead; give a longer series or smaller numbers"
            )
        self.mean = values.mean(axis=0) if mean is None else mean
        self.std = np.maximum(values.std(axis=0), 1e-8) if std is None else std
        self.values = (values - self.mean) / self.std
        self.ahead, self.steps = ahead, steps
        self.input_size = self.output_size = values.shape[1]

    def draw(self, rng: np.random.Generator, batch_size: int) -> SequenceBatch:
        """Windows from anywhere."""
        starts = rng.integers(len(self.values) - self.steps - self.ahead + 1, size=batch_size)
        index = starts[:, None] + np.arange(self.steps)
        counts = np.ones((batch_size, self.steps), dtype=bool)
        return make_batch(self.values[index], self.values[index + self.ahead], counts)

    @property
    def naive_error(self) -> float:
        """Mean squared error of saying that everything stays as it is."""
        return float(np.mean((self.values[self.ahead :] - self.values[: -self.ahead]) ** 2))


def read_series(path: Path, columns: Sequence[str] = ()) -> np.ndarray:
    """Numbers from a CSV file with or without a header: (N, F).

    Args:
        path: The file.
        columns: Which columns, by their names in the header; none: all.

    Raises:
        CorpusError: It is missing, empty, or has a hole or a text where a number should be; the message says where.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise CorpusError(f"{path}: expected a CSV file of numbers: {error}") from error
    rows = [(number, row) for number, row in enumerate(csv.reader(lines), start=1) if any(map(str.strip, row))]
    header: list[str] = []
    if rows and not any(map(_is_number, rows[0][1])):
        header = [name.strip() for name in rows.pop(0)[1]]
    missing = [name for name in columns if name not in header]
    if missing:
        raise CorpusError(f"{path}: no column {missing[0]!r}; it has {', '.join(header) or 'no header'}")
    if not rows:
        raise CorpusError(f"{path}: expected rows of numbers, found none")
    width = len(header or rows[0][1])
    chosen = [header.index(name) for name in columns] or list(range(width))
    values = np.empty((len(rows), len(chosen)))
    for at, (number, row) in enumerate(rows):
        if len(row) != width:
            raise CorpusError(f"{path}, line {number}: expected {width} values, found {len(row)}")
        for place, column in enumerate(chosen):
            text = row[column].strip()
            if not _is_number(text) or not math.isfinite(float(text)):
                what = "a hole" if not text else repr(text)
                name = header[column] if header else str(column + 1)
                raise CorpusError(
                    f"{path}, line {number}, column {name}: expected a number, found {what}; fill it in, leave the "
                    "line out, or choose other columns"
                )
            values[at, place] = float(text)
    return values


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


class Text:
    """The next symbol of a text.

    Args:
        text: What windows are cut from.
        symbols: What it may be made of; None: what it is made of. Others are passed over.
        steps: Of a window.
    """

    loss: Loss = "cross_entropy"

    def __init__(self, text: str, *, symbols: Sequence[str] | None = None, steps: int = 60) -> None:
        self.symbols = sorted(set(text)) if symbols is None else list(symbols)
        known = {symbol: number for number, symbol in enumerate(self.symbols)}
        self.numbers = np.array([known[symbol] for symbol in text if symbol in known], dtype=np.int64)
        self.steps = steps
        if len(self.numbers) <= steps:
            raise CorpusError(f"a text of {len(self.numbers)} symbols: expected more than {steps}")
        self.input_size = self.output_size = len(self.symbols)

    def draw(self, rng: np.random.Generator, batch_size: int) -> SequenceBatch:
        """One-hot symbols from anywhere in the text."""
        starts = rng.integers(len(self.numbers) - self.steps, size=batch_size)
        index = starts[:, None] + np.arange(self.steps)
        counts = np.ones((batch_size, self.steps), dtype=bool)
        return make_batch(np.eye(self.input_size)[self.numbers[index]], self.numbers[index + 1], counts)

    def entropy_bits(self, symbols: np.ndarray | None = None) -> float:
        """Bits a symbol of a model that knows how often each symbol is, and nothing else."""
        counts = np.bincount(self.numbers if symbols is None else symbols, minlength=self.input_size)
        shares = counts[counts > 0] / counts.sum()
        return float(-(shares * np.log2(shares)).sum())


@dataclass
class Delay:
    """A series of small random numbers, and at each step the one of three steps before, at its full size.

    The numbers that go in have a standard deviation of ``scale``.
    """

    scale: float = 0.1
    steps: int = 100
    lag: int = 3
    input_size: int = 1
    output_size: int = 1
    loss: Loss = "squared_error"
    chance: float = 1.0
    solved_below: float = 0.5

    def draw(self, rng: np.random.Generator, batch_size: int) -> SequenceBatch:
        """Asked for from the third step on."""
        numbers = rng.normal(size=(batch_size, self.steps, 1))
        counts = np.broadcast_to(np.arange(self.steps) >= self.lag, (batch_size, self.steps)).copy()
        return make_batch(self.scale * numbers, np.roll(numbers, self.lag, axis=1), counts)
