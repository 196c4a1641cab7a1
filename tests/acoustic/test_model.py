"""Law 1 on the whole model, exact frame counts, and where masks are applied."""

import pytest
import torch

from speechrnn.acoustic.ctc import ctc_losses
from speechrnn.acoustic.encoder import EncoderConfig
from speechrnn.acoustic.model import AcousticModel, check_memory
from speechrnn.audio.features import FrontEndConfig
from speechrnn.errors import ConfigError


def make_model(*, normalization="utterance", deltas=1, **encoder) -> AcousticModel:
    torch.manual_seed(0)
    model = AcousticModel(
        FrontEndConfig(sample_rate=8000, num_coefficients=13, n_mels=20, deltas=deltas, normalization=normalization),
        EncoderConfig(hidden_size=8, num_layers=2, **encoder),
        vocabulary_size=7,
    )
    if model.front_end.config.has_statistics:
        size = model.front_end.feature_size
        model.front_end.set_statistics(torch.linspace(-3, 3, size), torch.linspace(1, 2, size))
    return model.eval()


def make_waveforms(lengths, *, seed=0):
    waveforms = torch.randn(len(lengths), max(lengths), generator=torch.Generator().manual_seed(seed)) * 0.1
    return waveforms, torch.tensor(lengths)


@pytest.mark.parametrize("normalization", ["none", "utterance", "corpus", "speaker", "sliding"])
@pytest.mark.parametrize("cell", ["tanh", "elementwise", "gru", "lstm", "mingru", "minlstm"])
def test_padding_does_not_change_log_probs(cell, normalization):
    model = make_model(normalization=normalization, cell=cell)
    waveforms, lengths = make_waveforms([4000, 1503, 2750, 200])
    together = model(waveforms, lengths)
    for row, length in enumerate(lengths.tolist()):
        alone = model(waveforms[row : row + 1, :length], lengths[row : row + 1])
        frames = int(alone.lengths[0])
        assert frames == together.lengths[row]
        torch.testing.assert_close(together.log_probs[row, :frames], alone.log_probs[0, :frames], atol=1e-5, rtol=0)


@pytest.mark.parametrize("subsampling", ["stack", "convolution", "convolution_2d"])
def test_counted_frames_are_exact_for_every_number_of_samples(subsampling):
    model = make_model(subsampling=subsampling, subsampling_factor=3)
    edges = {hop + offset for hop in range(0, 700, 80) for offset in (-1, 0, 1)} - {-1}  # hops of 80 samples
    for samples in sorted({*edges, *range(0, 700, 13), 1999, 2000}):
        with torch.inference_mode():
            emission = model(torch.zeros(1, samples), torch.tensor([samples]))
        assert emission.log_probs.shape[1] == int(emission.lengths[0]) == model.count_frames(samples)


def test_masks_reach_the_log_mels_before_the_cosine_transform():
    model = make_model()
    waveforms, lengths = make_waveforms([4000])
    seen = []

    def mask(log_mels, frame_lengths):
        seen.append(tuple(log_mels.shape))
        return torch.zeros_like(log_mels), frame_lengths

    plain, masked = model(waveforms, lengths), model(waveforms, lengths, augment=mask)
    assert seen == [(1, int(model.front_end.count_frames(4000)), 20)]  # mel bands, not coefficients
    assert not torch.allclose(plain.log_probs, masked.log_probs)


def test_a_state_is_taken_and_returned():
    model = make_model(bidirectional=False, cell="lstm")
    waveforms, lengths = make_waveforms([4000, 2000])
    first = model(waveforms, lengths, return_state=True)
    assert first.state.shape == (2, 2, 1, 2, 8)
    second = model(waveforms, lengths, state=first.state)
    assert not torch.allclose(first.log_probs, second.log_probs)
    assert model(waveforms, lengths).state is None


def test_infeasible_utterances_are_explained_with_the_models_own_frames():
    model = make_model(subsampling_factor=4)
    frames = model.count_frames(1600)
    assert model.explain_infeasible([1, 2] * (frames // 2), 1600) is None
    assert f"this model makes {frames};" in model.explain_infeasible([1, 2] * frames, 1600)


def test_every_parameter_gets_a_gradient():
    model = make_model(initial_state="learned", subsampling="convolution").train()
    waveforms, lengths = make_waveforms([4000, 2000])
    model(waveforms, lengths).log_probs[..., 1:3].sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


def test_a_model_that_reads_its_final_state_outputs_one_token_per_recording():
    """Its CTC loss is then the cross-entropy of that token."""
    model = make_model(output="final_state").eval()
    waveforms, lengths = make_waveforms([4000, 1503])
    emission = model(waveforms, lengths)
    assert emission.log_probs.shape[1] == 1
    assert emission.lengths.tolist() == [1, 1]
    assert [model.count_frames(samples) for samples in (0, 4000)] == [0, 1]
    assert model.explain_infeasible([2], 4000) is None
    assert "a recording has one token" in model.explain_infeasible([2, 3], 4000)
    targets = torch.tensor([[2], [1]])
    losses = ctc_losses(emission.log_probs, targets, lengths=emission.lengths, target_lengths=torch.tensor([1, 1]))
    torch.testing.assert_close(losses, -emission.log_probs[[0, 1], 0, targets[:, 0]])
    assert model.seconds_per_frame > 1e6
    assert model.seconds_per_step == make_model().seconds_per_frame


@pytest.mark.timeout(20)
def test_a_model_larger_than_memory_is_refused_before_it_is_built(monkeypatch):
    monkeypatch.setattr("speechrnn.acoustic.model.count_memory", lambda: 24 * 2**30)
    encoder = EncoderConfig(hidden_size=16384, num_layers=64, cell="lstm")
    with pytest.raises(ConfigError, match=r"encoder: this model would have 408,\d+,\d+,\d+ parameters, 6,0\d\d.\d GiB"):
        check_memory(FrontEndConfig(), encoder, 30)


@pytest.mark.parametrize("cell", ["tanh", "elementwise", "gru", "lstm", "mingru", "minlstm"])
def test_memory_is_checked_against_the_parameters_of_the_model_that_is_built(monkeypatch, cell):
    encoder = EncoderConfig(size="tiny", cell=cell, initial_state="encoded", subsampling="convolution")
    needed = 16 * AcousticModel(FrontEndConfig(), encoder, 30).num_parameters
    monkeypatch.setattr("speechrnn.acoustic.model.count_memory", lambda: needed)
    check_memory(FrontEndConfig(), encoder, 30)
    monkeypatch.setattr("speechrnn.acoustic.model.count_memory", lambda: needed - 1)
    with pytest.raises(ConfigError, match="lower encoder.hidden_size or encoder.num_layers"):
        check_memory(FrontEndConfig(), encoder, 30)
