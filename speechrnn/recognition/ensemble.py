"""Several models that transcribe together."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NoReturn

from speechrnn.audio.blocks import check_is_list
from speechrnn.errors import ConfigError
from speechrnn.model_folder.speakers import SpeakerProfile
from speechrnn.recognition.transcriber import Transcriber, check_speaker
from speechrnn.types import Emission, Hypothesis, Waveform

if TYPE_CHECKING:
    import numpy as np

    from speechrnn.audio.files import AudioSource as Source
    from speechrnn.recognition.decoders import Decoder


class Ensemble(Transcriber):
    """Several models that transcribe together.

    Each model runs its own search; all of them score what they find, and the hypothesis with the highest mean log
    probability is taken (:mod:`speechrnn.decoding.combination`). It takes as long as all of them one after the other.
    The networks may differ in kind, size and training data. Language model weights are those tuned for the first; a
    word's times are the first's, its confidence is the mean of theirs and not calibrated.

    Args:
        members: Two models or more with the same tokens and the same sample rate.

    Raises:
        ConfigError: They do not fit together.
    """

    def __init__(self, members: Sequence[Transcriber]) -> None:
        first, *others = members
        for other in others:
            _check_pair(first, other)
        known = {name: path for name, path in first.speakers.items() if all(name in each.speakers for each in others)}
        name = " + ".join(each.name or "unnamed" for each in members)
        super().__init__(replace(first.model, name=name, calibrations={}, speakers=known))
        self.members = tuple(members)
        self.num_parameters = sum(member.num_parameters for member in members)
        self.uses_speaker_stats = any(member.uses_speaker_stats for member in members)

    def estimate_speaker(self, sources: Iterable[Source]) -> tuple[Any, ...]:
        """As :meth:`~speechrnn.recognition.recognizer.Recognizer.estimate_speaker`, by each of them."""
        check_is_list(sources, "estimate_speaker takes recordings as a list, of one or more")
        kept = list(sources)
        return tuple(member.estimate_speaker(kept) for member in self.members)

    def find_speaker(self, name: str) -> tuple[Any, ...]:
        """Read the stored profiles of a speaker to whom all of them were adapted."""
        check_speaker(self, name)
        return tuple(member.find_speaker(name) for member in self.members)

    def check_length(self, waveform: Waveform, *, name: str = "recording") -> None:
        """Check that a recording is long enough for each of them."""
        for member in self.members:
            member.check_length(waveform, name=name)

    def stream(self, **options: Any) -> NoReturn:
        """Refuse: models that transcribe together need the whole recording."""
        raise ConfigError("stream: several models together need the whole recording; give one of them")

    def _transcribe_in_turn(self, items: Any, decoder: Decoder, profile: Any, on_error: Any) -> NoReturn:
        raise ConfigError("several models together have no state to carry on; give one of them")

    def _emit(self, samples: Sequence[np.ndarray], profile: Any, *, return_state: bool = False) -> list[Emission]:
        profiles = profile or (SpeakerProfile(),) * len(self.members)
        if not isinstance(profiles, tuple) or len(profiles) != len(self.members):
            raise ConfigError("speaker: expected a name or the result of estimate_speaker of these models together")
        pairs = zip(self.members, profiles, strict=True)
        return [emission for member, each in pairs for emission in member._emit(samples, each)]

    def search(self, emissions: Sequence[Emission], decoder: Decoder) -> list[list[Hypothesis]]:
        """Hypotheses of each recording of a batch, best first."""
        from speechrnn.decoding.combination import combine_hypotheses

        return combine_hypotheses(
            [decoder.decode(each.log_probs, each.lengths, nbest=decoder.config.width) for each in emissions],
            [each.log_probs for each in emissions],
            [each.lengths for each in emissions],
            score_language=decoder.score_language,
            nbest=decoder.config.nbest,
        )


def _check_pair(first: Transcriber, other: Transcriber) -> None:
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
