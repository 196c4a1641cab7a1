"""Several models that transcribe together: each hears a recording, and every reading of it is judged by all of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

from torch import Tensor

from speechrnn.decoding.combination import combine_hypotheses
from speechrnn.errors import ConfigError
from speechrnn.recognition.recognizer import Recognizer, is_one_recording
from speechrnn.recognition.speakers import Voice

if TYPE_CHECKING:
    from speechrnn.recognition.decoders import Decoder
    from speechrnn.recognition.recognizer import Source
    from speechrnn.recognition.transcript import Transcript
    from speechrnn.types import Hypothesis, Waveform


@dataclass(frozen=True)
class Voices(Voice):
    """What several models know of one speaker.

    Attributes:
        of_each: One a model, in their order.
    """

    of_each: tuple[Voice, ...] = ()


class Ensemble(Recognizer):
    """Several models ready to transcribe together.

    Each searches by itself; what they find is scored by all of them, and the reading with the highest mean log
    probability is taken (:mod:`speechrnn.decoding.combination`). It takes as long as all of them one after the other.
    Their networks may differ in kind and size, what they were trained on too. Language model weights are those tuned
    for the first; a word's times are the first's, its confidence is the mean of theirs and not calibrated.

    Args:
        members: Two models or more with the same tokens and the same sample rate.

    Raises:
        ConfigError: They do not go together.
    """

    def __init__(self, members: Sequence[Recognizer]) -> None:
        first, *others = members
        for other in others:
            _check_pair(first, other)
        known = {name: path for name, path in first.speakers.items() if all(name in each.speakers for each in others)}
        name = " + ".join(each.name or "unnamed" for each in members)
        super().__init__(first.model, device=first.device, name=name, speakers=known)
        self.members = tuple(members)
        self._decoders = first._decoders  # with what was tuned

    @property
    def num_parameters(self) -> int:
        """Trained numbers of all of them."""
        return sum(member.num_parameters for member in self.members)

    @property
    def hears_speakers(self) -> bool:
        """Whether one of them normalises features by what was heard of a speaker."""
        return any(member.hears_speakers for member in self.members)

    def hear(self, sources: Iterable[Source]) -> Voices:
        """As :meth:`Recognizer.hear`, by each of them."""
        heard = sources if is_one_recording(sources) else list(sources)
        return Voices(of_each=tuple(member.hear(heard) for member in self.members))

    def find_speaker(self, name: str) -> Voice:
        """What they know of a speaker to whom all of them were adapted."""
        if name not in self.speakers:
            return super().find_speaker(name)  # which says whom they know
        return Voices(of_each=tuple(member.find_speaker(name) for member in self.members))

    def check_length(self, waveform: Waveform, *, name: str = "recording") -> None:
        """Make sure that a recording is long enough for each of them."""
        for member in self.members:
            member.check_length(waveform, name=name)

    def emissions(self, waveforms: Tensor, lengths: Tensor, **state: Any) -> NoReturn:
        """Several models have no log-probabilities in common: always a ConfigError."""
        _refuse("log-probabilities")

    def make_state(self, samples: Tensor) -> NoReturn:
        """Several models have no state in common: always a ConfigError."""
        _refuse("a hidden state")

    def _transcribe_in_turn(self, *_: Any) -> Iterator[Transcript]:
        _refuse("a state to carry on")

    def _decode(
        self, waveforms: Tensor, lengths: Tensor, decoder: Decoder, voice: Voice, *, return_state: bool
    ) -> tuple[list[list[Hypothesis]], None]:
        voices = voice.of_each if isinstance(voice, Voices) else (voice,) * len(self.members)
        if len(voices) != len(self.members) or voice.state is not None or voice.heard is not None:
            raise ConfigError("speaker: what other models know of a speaker; let these hear the recordings themselves")
        emissions = [
            member.emissions(waveforms, lengths, state=each.state, heard=each.heard)
            for member, each in zip(self.members, voices, strict=True)
        ]
        found = [decoder.find_all(emission.log_probs, emission.lengths) for emission in emissions]
        combined = combine_hypotheses(
            found,
            [emission.log_probs for emission in emissions],
            [emission.lengths for emission in emissions],
            score_language=decoder.score_language,
            nbest=decoder.nbest,
        )
        return combined, None


def _check_pair(first: Recognizer, other: Recognizer) -> None:
    """Refuse two models that cannot judge each other's readings."""
    pair = f"{first.name or 'unnamed'} and {other.name or 'unnamed'}"
    if first.sample_rate != other.sample_rate:
        raise ConfigError(
            f"{pair} do not go together: one hears {first.sample_rate} Hz, the other {other.sample_rate} Hz; several "
            "models need the same sample rate"
        )
    if list(first.tokens.symbols) != list(other.tokens.symbols):
        raise ConfigError(
            f"{pair} do not go together: they do not write the same tokens ({_count_tokens(first)} and "
            f"{_count_tokens(other)}); train or fine-tune both with the same"
        )


def _count_tokens(recognizer: Recognizer) -> str:
    return f"{len(recognizer.tokens.symbols)} {recognizer.tokens.kind}"


def _refuse(what: str) -> NoReturn:
    raise ConfigError(f"several models together have no {what.removeprefix('a ')}; ask one of them")
