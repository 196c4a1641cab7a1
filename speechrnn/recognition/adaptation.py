"""Adapting a model to a speaker: an initial state, estimated from a few recordings; the weights stay the same."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from speechrnn.acoustic.ctc import ctc_loss
from speechrnn.atomic_io import read_text
from speechrnn.audio.blocks import check_is_list
from speechrnn.errors import ConfigError, CorpusError
from speechrnn.model_folder.speakers import SpeakerProfile
from speechrnn.recognition.recognizer import Recognizer, as_recognizer
from speechrnn.text.normalize import normalize_text
from speechrnn.types import Waveform, pad_sequences

if TYPE_CHECKING:
    from speechrnn.audio.files import AudioSource

logger = logging.getLogger("speechrnn")

STEPS, LEARNING_RATE = 20, 0.02


@dataclass(frozen=True)
class Adaptation:
    """The result of an adaptation.

    Attributes:
        state: Initial state, (L, P, D, H).
        speaker_stats: Number of frames and the mean features over them, (1 + F,), for models that normalise by speaker.
        seconds: Duration of the recordings.
        with_texts: Number of recordings with given texts; for the others the model's transcripts were used.
        recordings: Number of recordings.
        loss_before: CTC loss of the texts with the model's own state, in nats per utterance.
        loss: The same with this state.
    """

    state: Tensor
    speaker_stats: Tensor | None
    seconds: float
    with_texts: int
    recordings: int
    loss_before: float
    loss: float

    @property
    def profile(self) -> SpeakerProfile:
        """Profile for ``speaker`` of :meth:`Recognizer.transcribe`, or to be stored."""
        return SpeakerProfile(self.state, self.speaker_stats)


def adapt(
    recognizer: Recognizer | str | os.PathLike[str],
    recordings: Sequence[AudioSource],
    texts: Sequence[str | None] | None = None,
    *,
    steps: int = STEPS,
    learning_rate: float = LEARNING_RATE,
) -> Adaptation:
    """Adapt the initial state to a speaker, and estimate the mean features if the model normalises by speaker.

    The state starts as the model's own, or, if ``encoder.initial_state`` is encoded, as the encoding of the recordings;
    gradient descent (Adam) then lowers the CTC loss of the texts. For a recording without a text, and for a text with
    letters that the model lacks, the model's own transcript is used.

    Args:
        recognizer: The model, or its path as :func:`~speechrnn.recognition.recognizer.load` takes it.
        recordings: Of the speaker, each as in :meth:`Recognizer.transcribe`, except arrays.
        texts: Text of each; None if unknown.
        steps: Of gradient descent; 0: the state as it starts.
        learning_rate: Of gradient descent.

    Raises:
        AudioError: A recording cannot be read, or is too short.
        ConfigError: There is no recording, or not one text for each.
        CorpusError: There is no word to learn from.
    """
    model = as_recognizer(recognizer, "adapt")
    if not isinstance(steps, int) or steps < 0 or not learning_rate > 0:
        raise ConfigError("steps must be 0 or more and learning_rate above 0")
    known = _pair_texts(recordings, texts)
    waveforms = [torch.from_numpy(model.read(recording).samples) for recording in recordings]
    seconds = sum(map(len, waveforms)) / model.sample_rate
    start = model.make_state(torch.cat(waveforms))
    stats = model.estimate_speaker(Waveform(samples.numpy(), model.sample_rate) for samples in waveforms).speaker_stats
    if steps == 0:
        return Adaptation(start, stats, seconds, 0, len(waveforms), float("nan"), float("nan"))
    targets, with_texts = _choose_targets(model, waveforms, known, stats)
    explain = model.model.acoustic.explain_infeasible
    usable = [n for n, ids in enumerate(targets) if ids and explain(ids, len(waveforms[n])) is None]
    if not usable:
        raise CorpusError("nothing to adapt to: the model recognises no word in these recordings; give their texts")
    chosen = [waveforms[n] for n in usable], [targets[n] for n in usable]
    learned = _learn(model, *chosen, SpeakerProfile(start, stats), steps, learning_rate)
    return Adaptation(learned[0], stats, seconds, with_texts, len(waveforms), *learned[1:])


def _pair_texts(recordings: Sequence[AudioSource], texts: Sequence[str | None] | None) -> list[str | None]:
    """The text of each recording, or None."""
    check_is_list(recordings, "adapt takes recordings as a list, of one or more")
    if not recordings:
        raise ConfigError("no recording of the speaker; give one or more")
    known: list[str | None] = list(texts) if texts is not None else [None] * len(recordings)
    if len(known) != len(recordings):
        raise ConfigError(f"{len(recordings)} recordings and {len(known)} texts; give one for each, None where unknown")
    return known


def _choose_targets(
    recognizer: Recognizer, waveforms: Sequence[Tensor], texts: Sequence[str | None], stats: Tensor | None
) -> tuple[list[list[int]], int]:
    """Token ids of each recording from its text or from the model's transcript; and the number of texts used."""
    targets: list[list[int]] = []
    count = 0
    decode = recognizer.choose_decoder(decoder="greedy").decode
    for samples, text in zip(waveforms, texts, strict=True):
        written = None if text is None else normalize_text(text, recognizer.model.text)
        if written is not None and not recognizer.tokens.unknown(written):
            targets.append(recognizer.tokens.encode(written))
            count += 1
            continue
        if written is not None:
            logger.warning("a text has letters that the model lacks; the model's transcript is used instead: %s", text)
        emission = recognizer.emissions(*pad_sequences([samples]), speaker_stats=stats)
        targets.append(decode(emission.log_probs, emission.lengths)[0][0].tokens)
    return targets, count


def _learn(
    recognizer: Recognizer,
    waveforms: Sequence[Tensor],
    targets: Sequence[Sequence[int]],
    start: SpeakerProfile,
    steps: int,
    learning_rate: float,
) -> tuple[Tensor, float, float]:
    """The state after gradient descent, and the losses before and after."""
    acoustic, device = recognizer.model.acoustic, recognizer.device
    padded_waveforms, lengths = (each.to(device) for each in pad_sequences(list(waveforms)))
    padded, sizes = (each.to(device) for each in pad_sequences([torch.tensor(ids) for ids in targets]))
    moving = [parameter for parameter in acoustic.parameters() if parameter.requires_grad]
    assert start.state is not None
    state = start.state.detach().to(device).clone().requires_grad_()
    stats = None if start.speaker_stats is None else start.speaker_stats.to(device).expand(len(waveforms), -1)
    optimizer = torch.optim.Adam([state], lr=learning_rate)

    def compute_loss() -> Tensor:
        expanded = state[:, :, :, None].expand(-1, -1, -1, len(waveforms), -1)
        emission = acoustic(padded_waveforms, lengths, state=expanded, speaker_stats=stats)
        return ctc_loss(emission.log_probs, padded, lengths=emission.lengths, target_lengths=sizes)

    losses = []
    try:
        for parameter in moving:
            parameter.requires_grad_(False)
        # cuDNN computes no gradients of a recurrent layer in evaluation mode; torch's own kernels do.
        with torch.backends.cudnn.flags(enabled=False):
            for _ in range(steps):
                loss = compute_loss()
                losses.append(float(loss.detach()))
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        with torch.no_grad():
            losses.append(float(compute_loss()))
    finally:
        for parameter in moving:
            parameter.requires_grad_(True)
    return state.detach().cpu(), losses[0], losses[-1]


def find_text(recording: str | os.PathLike[str]) -> str | None:
    """Find the text of a recording in the ``.txt`` or ``.lab`` file beside it; None if there is none.

    Raises:
        ConfigError: The file cannot be read as UTF-8.
    """
    paths = [Path(recording).with_suffix(ending) for ending in (".txt", ".lab")]
    path = next((path for path in paths if path.is_file()), None)
    return None if path is None else read_text(path, error=ConfigError).strip()


def describe_adaptation(found: Adaptation, recognizer: Recognizer, *, steps: int) -> str:
    """Describe in one line how much speech was used, and how the state was found."""
    if steps == 0:
        is_encoded = recognizer.model.acoustic.encoder.reference is not None
        return f"{found.seconds:.0f} s of speech, {'encoded' if is_encoded else 'own state of the model'}"
    own = found.recordings - found.with_texts
    return (
        f"{found.seconds:.0f} s of speech, learned from {found.with_texts} given texts and {own} transcripts of the "
        f"model; loss {found.loss_before:.2f} to {found.loss:.2f} nats per utterance"
    )
