"""The initial state that a speaker's earlier speech gives: what it is made of, and that it begins as nothing."""

import pytest
import torch

from speechrnn.acoustic.encoder import ReferenceEncoder
from speechrnn.errors import ConfigError

SHAPE = (2, 2, 2, 5)


@pytest.fixture
def encoder():
    torch.manual_seed(0)
    encoder = ReferenceEncoder(7, SHAPE)
    torch.nn.init.normal_(encoder.state.weight)
    torch.nn.init.normal_(encoder.state.bias)
    return encoder


def test_the_encoded_state_is_zero_before_training_for_any_reference():
    states = ReferenceEncoder(7, SHAPE)(torch.randn(3, 11, 7), torch.tensor([11, 4, 0]))
    assert states.shape == (2, 2, 2, 3, 5)
    assert states.abs().max() == 0


def test_padding_and_neighbours_change_nothing(encoder):
    features = torch.randn(2, 11, 7)
    together = encoder(features, torch.tensor([11, 6]))
    alone = encoder(features[1:, :6], torch.tensor([6]))
    torch.testing.assert_close(together[:, :, :, 1], alone[:, :, :, 0])
    spoiled = features.clone()
    spoiled[1, 6:] = 1e6
    torch.testing.assert_close(encoder(spoiled, torch.tensor([11, 6])), together)


def test_different_speech_gives_different_states_and_none_gives_one_for_all(encoder):
    states = encoder(torch.randn(2, 11, 7), torch.tensor([11, 11]))
    assert (states[:, :, :, 0] - states[:, :, :, 1]).abs().max() > 0.1
    nothing = encoder(torch.randn(2, 11, 7), torch.tensor([0, 0]))
    torch.testing.assert_close(nothing[:, :, :, 0], nothing[:, :, :, 1])
    torch.testing.assert_close(nothing, encoder(torch.zeros(2, 0, 7), torch.tensor([0, 0])))
    assert torch.equal(nothing[:, :, :, 0].flatten(), encoder.state.bias)


def test_the_gradient_equals_finite_differences(encoder):
    features, lengths = torch.randn(2, 4, 7, dtype=torch.float64, requires_grad=True), torch.tensor([4, 3])
    encoder = encoder.double()
    loss = encoder(features, lengths).square().sum()
    (gradient,) = torch.autograd.grad(loss, features)
    step = 1e-6
    with torch.no_grad():
        for place in ((0, 1, 2), (1, 2, 3)):
            moved = [features.detach().clone() for _ in range(2)]
            moved[0][place] += step
            moved[1][place] -= step
            up, down = (encoder(each, lengths).square().sum() for each in moved)
            assert float(gradient[place]) == pytest.approx(float((up - down) / (2 * step)), rel=1e-5, abs=1e-8)
    assert gradient[1, 3].abs().max() == 0  # past the length


def test_a_model_starts_from_the_encoded_speaker_reference(make_tiny_model, make_recording):
    acoustic = make_tiny_model(initial_state="encoded").acoustic
    waveform = torch.from_numpy(make_recording(1.0))[None]
    lengths = torch.tensor([8000])
    plain = make_tiny_model().acoustic(waveform, lengths).log_probs
    torch.testing.assert_close(acoustic(waveform, lengths).log_probs.shape, plain.shape)
    with torch.no_grad():
        acoustic.encoder.reference.state.weight.normal_()
        own = acoustic(waveform, lengths).log_probs
        states = [
            acoustic.encode_reference(torch.from_numpy(make_recording(1.0, seed=seed))[None], lengths)
            for seed in (1, 2)
        ]
        said = [acoustic(waveform, lengths, state=state).log_probs for state in states]
        none = acoustic.encode_reference(waveform, torch.tensor([0]))
        torch.testing.assert_close(acoustic(waveform, lengths, state=none).log_probs, own)
    assert (said[0] - said[1]).abs().max() > 1e-3
    assert (said[0] - own).abs().max() > 1e-3


@pytest.mark.parametrize("cell", ["tanh", "gru", "lstm", "elementwise", "mingru", "minlstm"])
def test_an_encoded_state_works_in_half_precision(make_tiny_model, make_recording, cell):
    acoustic = make_tiny_model(initial_state="encoded", cell=cell).acoustic
    waveform, lengths = torch.from_numpy(make_recording(1.0))[None], torch.tensor([8000])
    with torch.no_grad():
        acoustic.encoder.reference.state.weight.normal_()
        exact = acoustic(waveform, lengths, state=acoustic.encode_reference(waveform, lengths)).log_probs
        with torch.autocast("cpu", torch.bfloat16):
            half = acoustic(waveform, lengths, state=acoustic.encode_reference(waveform, lengths)).log_probs
    assert half.dtype == torch.float32
    assert (half.exp() - exact.exp()).abs().max() < 0.2


@pytest.mark.parametrize("kind", ["zero", "learned"])
def test_only_a_model_with_a_reference_encoder_encodes_references(make_tiny_model, kind):
    acoustic = make_tiny_model(initial_state=kind).acoustic
    with pytest.raises(ConfigError, match=f"expected encoded, the model has {kind}"):
        acoustic.encode_reference(torch.zeros(1, 8000), torch.tensor([8000]))
