"""What training tells a front end of each utterance's speaker: frames heard, and the mean features over them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

_WITHOUT = 0.2


class Voices:
    """How much speech each speaker has in a corpus, and what its features are on average.

    Args:
        rows: Frames of each utterance, and the mean features over them, (U, 1 + F).
        speakers: Who speaks in each, U of them; None where that is not known.
        seed: Of the order in which a speaker's utterances stand for the draws.
    """

    def __init__(self, rows: np.ndarray, speakers: Sequence[str | None], *, seed: int) -> None:
        self._size = rows.shape[1]
        numbers = {name: number for number, name in enumerate(dict.fromkeys(speakers))}
        self._voice = np.array([-1 if name is None else numbers[name] for name in speakers], np.int64)
        order = np.random.default_rng(seed).permutation(len(rows))
        order = order[np.argsort(self._voice[order], kind="stable")]  # (U,), speaker by speaker
        bounds = np.arange(len(numbers))
        self._first = np.searchsorted(self._voice[order], bounds, side="left")
        self._last = np.searchsorted(self._voice[order], bounds, side="right")
        sums = rows[order].astype(np.float64)
        sums[:, 1:] *= sums[:, :1]
        self._sums = np.concatenate([np.zeros((1, self._size)), sums.cumsum(axis=0)])

    def tell(self, position: int, rng: np.random.Generator | None) -> np.ndarray:
        """What was heard of an utterance's speaker, (1 + F,), float32; zeros where nothing is known.

        Args:
            position: The utterance's, from 0.
            rng: For training: at times nothing is told, else some of the speaker's utterances, as likely one to ten of
                them as ten to a hundred, so that a model knows what to do with any amount. None: all of them.
        """
        voice = self._voice[position]
        if voice < 0 or (rng is not None and rng.random() < _WITHOUT):
            return np.zeros(self._size, np.float32)
        first, last = int(self._first[voice]), int(self._last[voice])
        start, count = 0, last - first
        if rng is not None:
            start, count = int(rng.integers(count)), int(count ** rng.random())
        end = first + start + count
        total = self._sums[min(end, last)] - self._sums[first + start]
        if end > last:  # on from the speaker's first one
            total = total + self._sums[end - (last - first)] - self._sums[first]
        frames = total[0]
        return np.concatenate([total[:1], total[1:] / max(1.0, frames)]).astype(np.float32)
