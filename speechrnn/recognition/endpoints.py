"""Endpoints: where a stream's text is final and a new search begins.

Source:
    sherpa-onnx, "Endpointing": three rules, of which the first that holds makes an endpoint.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from speechrnn.settings import Settings, bounded
from speechrnn.types import BLANK_ID

if TYPE_CHECKING:
    import numpy as np

Rule = Literal["silence", "pause", "longest"]


@dataclass(frozen=True)
class EndpointConfig(Settings):
    """When a stream closes a segment.

    The durations are sherpa-onnx's three rules in their order. A frame is silent if the blank's posterior is at least
    `blank_threshold`. CTC networks emit tokens in short peaks and blanks between them, so that silence counts from the
    last peak, not from the end of the sound.

    Attributes:
        silence_seconds: silence that ends a segment, with or without words (default: 2.4; 0: never)
        pause_seconds: silence that ends a segment with words (default: 1.2; 0: never)
        longest_seconds: longest segment; its last word goes to the next one (default: 20; 0: no limit)
        blank_threshold: least posterior of the blank in a silent frame (default: 0.8)
    """

    silence_seconds: float = bounded(2.4, 0, 3600, unit="seconds")
    pause_seconds: float = bounded(1.2, 0, 3600, unit="seconds")
    longest_seconds: float = bounded(20.0, 0, 86400, unit="seconds")
    blank_threshold: float = bounded(0.8, 0, 1, open="low")


class EndpointDetector:
    """Finds the endpoints of one stream, frame by frame.

    Args:
        config: The rules.
        seconds_per_frame: From one row of log-probabilities to the next.
    """

    def __init__(self, config: EndpointConfig, seconds_per_frame: float) -> None:
        self._least_blank = math.log(config.blank_threshold) - 1e-6
        self._frames = {
            name: math.ceil(seconds / seconds_per_frame - 1e-6) if seconds else math.inf
            for name, seconds in vars(config).items()
            if name.endswith("_seconds")
        }
        self.reset()

    def reset(self) -> None:
        """Begin a new segment."""
        self._length = self._silent = 0
        self._has_words = False

    def find(self, log_probs: np.ndarray) -> tuple[int, Rule | None]:
        """Advance to the next endpoint.

        Args:
            log_probs: The next rows, (T', V), natural log.

        Returns:
            The number of rows up to the endpoint, and its rule; all of them and None if there is none.
        """
        is_silent = log_probs[:, BLANK_ID] >= self._least_blank
        has_token = log_probs.argmax(axis=1) != BLANK_ID
        for number in range(len(log_probs)):
            self._length += 1
            self._silent = self._silent + 1 if is_silent[number] else 0
            self._has_words |= bool(has_token[number])
            rule = self._choose_rule()
            if rule is not None:
                return number + 1, rule
        return len(log_probs), None

    def _choose_rule(self) -> Rule | None:
        if self._silent >= self._frames["silence_seconds"]:
            return "silence"
        if self._has_words and self._silent >= self._frames["pause_seconds"]:
            return "pause"
        return "longest" if self._length >= self._frames["longest_seconds"] else None
