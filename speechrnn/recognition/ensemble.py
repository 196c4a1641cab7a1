"""Several models that transcribe together: each decodes a recording, and all of them score every hypothesis."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NoReturn

from torch import Tensor

from speechrnn.errors import ConfigError
from speechrnn.model_folder.speakers import SpeakerProfile
from speechrnn.recognition.recognizer import Recognizer
from speechrnn.recognition.transcriber import Transcriber, check_is_list

if TYPE_CHECKING:
    from speechrnn.audio.files import AudioSource as Source
    from speechrnn.recognition.decoders import Decoder
    from speechrnn.types import Hypothesis, Waveform


class Ensemble(Transcriber):
    """Several models ready to transcribe together.

    Each searches by itself; all of them score what they find, and the hypothesis with the highest mean log probability
    is taken (:mod:`speechrnn.decoding.combination`). It takes as long as all of them one after the other. The
    networks may differ in kind and size, and in their training data. Language model weights are those tuned for the
    first; a word's times are the first's, its confidence is the mean of theirs and not calibrated.

    Args:
        members: Two models or more with the same tokens and the same sample rate.

    Raises:
        ConfigError: They do not fit together.
    """

    def __init__(self, members: Sequence[Recognizer]) -> None:
        first, *others = members
        for other in others:
            _check_pair(first, other)
        known = {name: path for name, path in first.speakers.items() if all(name in each.speakers for each in others)}
        name = " + ".join(each.name or "unnamed" for each in members)
        super().__init__(replace(first.model, name=name, calibrations={}, speakers=known), first.device)
        self.members = tuple(members)
        self.num_parameters = sum(member.num_parameters for member in members)
        self.uses_speaker_stats = any(member.uses_speaker_stats for member in members)

    def estimate_speaker(self, sources: Iterable[Source]) -> tuple[SpeakerProfile, ...]:
        """As :meth:`Recognizer.estimate_speaker`, by each of them."""
        check_is_list(sources, "estimate_speaker takes recordings as a list, of one or more")
        kept = list(sources)
        return tuple(member.estimate_speaker(kept) for member in self.members)

    def find_speaker(self, name: str) -> tuple[SpeakerProfile, ...]:
        """What they store of a speaker to whom all of them were adapted."""
        self._find_speaker_file(name)
        return tuple(member.find_speaker(name) for member in self.members)

    def check_length(self, waveform: Waveform, *, name: str = "recording") -> None:
        """Make sure that a recording is long enough for each of them."""
        for member in self.members:
            member.check_length(waveform, name=name)

    def _transcribe_in_turn(self, recordings: Any, decoder: Decoder, profile: Any) -> NoReturn:
        raise ConfigError("several models together have no state to carry on; give one of them")

    def _decode(
        self,
        waveforms: Tensor,
        lengths: Tensor,
        decoder: Decoder,
        profiles: tuple[SpeakerProfile, ...] | None,
        *,
        return_state: bool,
    ) -> tuple[list[list[Hypothesis]], None]:
        from speechrnn.decoding.combination import combine_hypotheses

        profiles = profiles or (SpeakerProfile(),) * len(self.members)
        if not isinstance(profiles, tuple) or len(profiles) != len(self.members):
            raise ConfigError("speaker: expected a name or what estimate_speaker of these models together returns")
        emissions = [
            member.emissions(waveforms, lengths, state=each.state, speaker_stats=each.speaker_stats)
            for member, each in zip(self.members, profiles, strict=True)
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
    """Refuse two models that cannot score each other's hypotheses."""
    pair = f"{first.name or 'unnamed'} and {other.name or 'unnamed'}"
    if first.sample_rate != other.sample_rate:
        raise ConfigError(
            f"{pair} do not fit together: sample rates of {first.sample_rate} and {other.sample_rate} Hz; several "
            "models need the same sample rate"
        )
    if list(first.tokens.symbols) != list(other.tokens.symbols):
        counts = " and ".join(f"{len(each.tokens.symbols)} {each.tokens.kind}" for each in (first, other))
        raise ConfigError(
            f"{pair} do not fit together: their tokens differ ({counts}); train or fine-tune both with the same"
        )
