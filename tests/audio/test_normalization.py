"""Features of mean zero and deviation one, over an utterance, a corpus or the past."""

import json
import math
from dataclasses import asdict

import numpy as np
import pytest
import torch
from front_ends import compute_alone, make_front_end, make_noise, make_speechlike

from speechrnn.audio.features import FrontEnd, FrontEndConfig, StatisticsAccumulator
from speechrnn.audio.transforms import PRIOR_FRAMES
from speechrnn.errors import AudioError, ConfigError, ModelError


def test_utterance_normalisation_gives_mean_zero_and_deviation_one():
    features = compute_alone(make_front_end(deltas=1, normalization="utterance"), make_speechlike(16000, 16000))
    torch.testing.assert_close(features.mean(dim=0), torch.zeros(80), atol=1e-5, rtol=0)
    torch.testing.assert_close(features.std(dim=0, correction=0), torch.ones(80), atol=1e-5, rtol=0)


@pytest.mark.parametrize("waveform", [make_noise(400), torch.zeros(8000)], ids=["one frame", "digital silence"])
@pytest.mark.parametrize("normalization", ["utterance", "sliding"])
def test_constant_features_become_zero(waveform, normalization):
    features = compute_alone(make_front_end(deltas=1, normalization=normalization), waveform)
    torch.testing.assert_close(features, torch.zeros_like(features), atol=1e-5, rtol=0)


def test_corpus_statistics_are_those_of_all_valid_frames():
    front_end = make_front_end(normalization="none", deltas=1)
    waveforms = [make_noise(3000, seed=1), make_speechlike(5000, 16000), make_noise(200, seed=2)]
    accumulator = StatisticsAccumulator(front_end)
    batch = torch.nn.utils.rnn.pad_sequence(waveforms[:2], batch_first=True, padding_value=math.nan)
    accumulator.add(batch, torch.tensor([3000, 5000]))
    accumulator.add(waveforms[2][None], torch.tensor([200]))
    frames = torch.cat([compute_alone(front_end, waveform) for waveform in waveforms]).double().numpy()
    mean, std = accumulator.compute()
    assert accumulator.num_frames == len(frames) == 17 + 29
    np.testing.assert_allclose(mean.numpy(), frames.mean(axis=0), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(std.numpy(), frames.std(axis=0), rtol=1e-5)

    normalized = FrontEnd(FrontEndConfig(normalization="corpus", deltas=1))
    normalized.set_statistics(mean, std)
    expected = (frames - frames.mean(axis=0)) / frames.std(axis=0)
    actual = torch.cat([compute_alone(normalized, waveform) for waveform in waveforms])
    np.testing.assert_allclose(actual.numpy(), expected, atol=1e-4)


def test_statistics_without_a_frame_are_refused():
    accumulator = StatisticsAccumulator(make_front_end())
    accumulator.add(torch.zeros(1, 399), torch.tensor([399]))
    with pytest.raises(AudioError, match="no frame"):
        accumulator.compute()


@pytest.mark.parametrize("normalization", ["corpus", "speaker"])
def test_normalisation_without_corpus_statistics_is_refused(normalization):
    with pytest.raises(ModelError, match=f"{normalization} normalisation has no statistics"):
        FrontEnd(FrontEndConfig(normalization=normalization))(make_noise(800)[None], torch.tensor([800]))


@pytest.mark.parametrize(
    ("mean", "std"),
    [
        (torch.zeros(39), torch.ones(39)),
        (torch.zeros(40), torch.zeros(40)),
        (torch.full((40,), math.nan), torch.ones(40)),
    ],
)
def test_impossible_statistics_are_refused(mean, std):
    with pytest.raises(ConfigError, match="corpus statistics"):
        make_front_end().set_statistics(mean, std)


def test_saved_front_end_holds_only_its_statistics():
    front_end = make_front_end(normalization="corpus")
    state = front_end.state_dict()
    assert sorted(state) == ["mean", "std"]
    restored = FrontEnd(FrontEndConfig(**json.loads(json.dumps(asdict(front_end.config)))))
    restored.load_state_dict(state)
    waveform = make_noise(1600)
    assert torch.equal(compute_alone(restored, waveform), compute_alone(front_end, waveform))


def make_speaker_front_end():
    front_end = make_front_end(normalization="none", deltas=1)
    by_speaker = FrontEnd(FrontEndConfig(normalization="speaker", deltas=1))
    mean, std = torch.randn(80, generator=torch.Generator().manual_seed(0)), torch.linspace(0.5, 2.0, 80)
    by_speaker.set_statistics(mean, std)
    return front_end, by_speaker, mean, std


def test_speaker_normalisation_subtracts_the_speaker_mean_shrunk_toward_the_corpus_mean():
    plain, by_speaker, mean, std = make_speaker_front_end()
    first, second = make_noise(3000, seed=1), make_speechlike(5000, 16000)
    accumulator = StatisticsAccumulator(by_speaker)
    batch = torch.nn.utils.rnn.pad_sequence([first, second], batch_first=True)
    lengths = torch.tensor([3000, 5000])
    speaker_stats = accumulator.add(batch, lengths)
    assert speaker_stats[:, 0].tolist() == [17.0, 29.0]
    frames = compute_alone(plain, second)
    torch.testing.assert_close(speaker_stats[1, 1:], frames.mean(dim=0))
    # The first utterance's speaker is the second utterance's; of the second one's only itself is known.
    said = torch.stack([speaker_stats[1], torch.zeros(81)])
    features = by_speaker.derive_features(*by_speaker.log_mel(batch, lengths), speaker_stats=said)
    for row, samples, own in ((0, first, frames), (1, second, frames)):
        centre = (PRIOR_FRAMES * mean + own.sum(dim=0)) / (PRIOR_FRAMES + len(own))
        expected = (compute_alone(plain, samples) - centre) / std
        torch.testing.assert_close(features[row, : len(expected)], expected, atol=1e-4, rtol=1e-5)
    assert torch.equal(features[0, 17:], torch.zeros(12, 80))
    torch.testing.assert_close(compute_alone(by_speaker, second), features[1], atol=1e-5, rtol=0)


def test_a_constant_shift_of_a_speakers_features_vanishes_with_many_frames():
    _, by_speaker, _, _ = make_speaker_front_end()
    outcomes, alone = [], []
    for gain in (1.0, 0.1):
        waveform, lengths = gain * make_noise(8000)[None], torch.tensor([8000])
        frames = by_speaker.compute_unnormalized(waveform, lengths)[0][0]
        speaker_stats = torch.cat([torch.tensor([1e6]), frames.mean(dim=0)])[None]
        outcomes.append(by_speaker.derive_features(*by_speaker.log_mel(waveform, lengths), speaker_stats=speaker_stats))
        alone.append(by_speaker.derive_features(*by_speaker.log_mel(waveform, lengths)))
    torch.testing.assert_close(*outcomes, atol=1e-2, rtol=0)
    assert (alone[0] - alone[1]).abs().max() > 1.0


def test_sliding_normalisation_matches_a_loop_over_the_past():
    settings = {"kind": "log_mel", "normalization_seconds": 0.1}
    waveform = make_speechlike(16000, 16000)
    plain = compute_alone(make_front_end(**settings, normalization="none"), waveform).double()
    features = compute_alone(make_front_end(**settings, normalization="sliding"), waveform)
    for t in range(len(plain)):
        past = plain[max(0, t - 9) : t + 1]
        expected = (plain[t] - past.mean(dim=0)) / past.std(dim=0, correction=0).clamp(min=0.01)
        torch.testing.assert_close(features[t].double(), expected, atol=1e-5, rtol=1e-5)


def test_sliding_normalisation_does_not_see_the_future():
    front_end = make_front_end(normalization="sliding")
    waveform = make_noise(16000)
    changed = torch.cat([waveform[:8000], 50 * make_noise(8000, seed=9)])
    before = front_end.count_frames(8000)
    kept, other = compute_alone(front_end, waveform), compute_alone(front_end, changed)
    torch.testing.assert_close(other[:before], kept[:before], atol=1e-5, rtol=0)
    assert (other[before + 3 :] - kept[before + 3 :]).abs().max() > 0.1
