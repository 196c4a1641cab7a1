"""Utterances as lhotse's cuts, for the formats that lhotse writes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from speechrnn.corpus.utterance import Utterance

if TYPE_CHECKING:
    from lhotse.cut import MonoCut


def make_cut(utterance: Utterance) -> MonoCut:
    """The cut of an utterance, with its text in the only supervision; needs the header."""
    import lhotse

    id, header, seconds = utterance.id, utterance.header, utterance.seconds
    assert header is not None
    source = lhotse.AudioSource(type="file", channels=list(range(header.channels)), source=str(utterance.audio_path))
    recording = lhotse.Recording(
        id=id,
        sources=[source],
        sampling_rate=header.sample_rate,
        num_samples=header.frames,
        duration=header.seconds,
    )
    supervision = lhotse.SupervisionSegment(
        id=id, recording_id=id, start=0.0, duration=seconds, text=utterance.text, speaker=utterance.speaker
    )
    return lhotse.MonoCut(
        id=id,
        start=utterance.start,
        duration=seconds,
        channel=0,
        supervisions=[supervision],
        recording=recording,
        custom={"corpus": utterance.corpus} if utterance.corpus is not None else None,
    )
