"""Subsampling lengths against the real computation, look-ahead, named sizes, refused settings."""

import pytest
import torch

from speechrnn.acoustic.encoder import SIZES, Convolution2d, Encoder, EncoderConfig, Lookahead, count_encoder_frames
from speechrnn.errors import ConfigError
from speechrnn.types import mask_padding

KINDS = ["stack", "convolution", "convolution_2d"]


@pytest.mark.parametrize("factor", [1, 2, 3, 4, 5, 6, 8])
@pytest.mark.parametrize("kind", KINDS)
def test_counted_frames_equal_output_frames(kind, factor):
    encoder = Encoder(
        EncoderConfig(hidden_size=2, num_layers=1, subsampling=kind, subsampling_factor=factor, subsampling_channels=3),
        input_size=4,
    )
    for frames in range(41):
        length = torch.tensor([frames])
        outputs, lengths, *_ = encoder(torch.zeros(1, frames, 4), length)
        assert outputs.shape[1] == lengths.item() == encoder.count_frames(frames) == encoder.count_frames(length).item()


def test_encoder_frame_count_follows_the_convolution_formula():
    lengths = torch.arange(0, 30)
    for kernel, stride, padding in [(3, 2, 1), (5, 3, 0), (7, 4, 2)]:
        counted = count_encoder_frames(lengths, kernel=kernel, stride=stride, padding=padding)
        for frames, count in zip(lengths.tolist(), counted.tolist(), strict=True):
            positions = list(range(-padding, frames + padding - kernel + 1, stride)) if frames else []
            assert count == len(positions)


@pytest.mark.parametrize("lookahead", [0, 2])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("cell", ["tanh", "elementwise", "gru", "lstm", "mingru", "minlstm"])
def test_padding_does_not_change_encoder_frames(cell, kind, lookahead):
    torch.manual_seed(0)
    config = EncoderConfig(
        cell=cell,
        hidden_size=5,
        num_layers=2,
        bidirectional=not lookahead,
        lookahead_frames=lookahead,
        subsampling=kind,
        subsampling_factor=3,
        subsampling_channels=6,
    )
    encoder = Encoder(config, input_size=4).eval()
    lengths = torch.tensor([20, 7, 11])
    features = mask_padding(torch.randn(3, 20, 4), lengths)
    together, counts, *_ = encoder(features, lengths)
    for row, length in enumerate(lengths.tolist()):
        alone, count, *_ = encoder(features[row : row + 1, :length], lengths[row : row + 1])
        assert count[0] == counts[row] == alone.shape[1]
        torch.testing.assert_close(together[row, : count[0]], alone[0], atol=1e-5, rtol=0)


@pytest.mark.parametrize("factor", [1, 2, 3, 4, 5, 6, 8])
def test_convolutions_over_time_and_bands_use_every_frame_and_band(factor):
    torch.manual_seed(0)
    subsampling = Convolution2d(9, 32, factor, 5)
    features = torch.randn(1, 4 * factor, 9, requires_grad=True)
    frames, lengths = subsampling(features, torch.tensor([4 * factor]))
    assert (frames.shape, lengths.tolist()) == ((1, 4, 5), [4])
    frames.pow(2).sum().backward()
    assert bool((features.grad != 0).all())


def test_channels_default_to_those_of_the_kind():
    over_time = Encoder(EncoderConfig(subsampling="convolution"), 20).subsampling
    assert over_time.convolution.out_channels == 128
    for channels, expected in ((None, 32), (7, 7)):
        config = EncoderConfig(subsampling="convolution_2d", subsampling_channels=channels)
        assert Encoder(config, 20).subsampling.convolutions[1].out_channels == expected


def test_lookahead_depends_on_exactly_its_number_of_future_frames():
    lookahead = Lookahead(1, 2)
    lookahead.weight.data.copy_(torch.tensor([[[1.0, 10.0, 100.0]]]))
    frames = torch.tensor([1.0, 2.0, 3.0, 4.0])[None, :, None]
    assert lookahead(frames)[0, :, 0].tolist() == [321.0, 432.0, 43.0, 4.0]


@pytest.mark.parametrize("kind", ["convolution", "convolution_2d"])
def test_lookahead_and_subsampling_gradients_equal_finite_differences(kind):
    torch.manual_seed(1)
    config = EncoderConfig(
        hidden_size=2,
        num_layers=1,
        bidirectional=False,
        lookahead_frames=1,
        subsampling=kind,
        subsampling_factor=2,
        subsampling_channels=2,
    )
    encoder = Encoder(config, input_size=2).double().eval()
    features = torch.randn(1, 5, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda features, *_: encoder(features, torch.tensor([5]))[0], (features, *encoder.parameters())
    )


@pytest.mark.parametrize("size", SIZES)
def test_named_sizes_set_units_and_layers_and_can_be_overridden(size):
    config = EncoderConfig(size=size)
    assert (config.resolved_hidden_size, config.resolved_num_layers) == SIZES[size]
    config = EncoderConfig(size=size, num_layers=1)
    assert (config.resolved_hidden_size, config.resolved_num_layers) == (SIZES[size][0], 1)


@pytest.mark.parametrize(
    "settings",
    [
        {"hidden_size": 0},
        {"num_layers": -1},
        {"dropout": 1.0},
        {"dropout": -0.1},
        {"subsampling_factor": 0},
        {"subsampling_channels": 0},
        {"lookahead_frames": -1, "bidirectional": False},
        {"lookahead_frames": 3, "bidirectional": True},
        {"lookahead_frames": 3, "bidirectional": False, "output": "final_state"},
    ],
)
def test_impossible_settings_are_refused_by_name(settings):
    with pytest.raises(ConfigError, match="encoder.*" + next(iter(settings))):
        EncoderConfig(**settings)


@pytest.mark.parametrize("cell", ["tanh", "elementwise", "gru", "lstm", "mingru", "minlstm"])
@pytest.mark.parametrize("bidirectional", [True, False])
def test_the_final_state_is_the_last_output_of_each_direction(cell, bidirectional):
    """Without normalisation and residuals the final frame is the top layer's hidden state, padding or not."""
    torch.manual_seed(0)
    config = EncoderConfig(
        cell=cell, hidden_size=5, num_layers=2, bidirectional=bidirectional, layer_norm=False, residual=False,
        output="final_state",
    )  # fmt: skip
    encoder = Encoder(config, input_size=4).eval()
    lengths = torch.tensor([20, 7, 0])
    features = mask_padding(torch.randn(3, 20, 4), lengths)
    frames, counts, state, _ = encoder(features, lengths, return_state=True)
    assert counts.tolist() == [1, 1, 0]
    assert frames.shape == (3, 1, encoder.output_size)
    hidden = state[-1, 0].transpose(0, 1).flatten(1)  # of the last layer: (D, B, H) → (B, D·H)
    torch.testing.assert_close(frames[:2, 0], hidden[:2])
    assert not frames[2].any()
    assert [encoder.count_frames(number) for number in (0, 1, 2, 100)] == [0, 1, 1, 1]


def test_intermediate_layers_are_also_read_at_their_final_state():
    torch.manual_seed(0)
    encoder = Encoder(EncoderConfig(hidden_size=5, num_layers=2, output="final_state"), input_size=4).eval()
    lengths = torch.tensor([9, 4])
    *_, [lower] = encoder(mask_padding(torch.randn(2, 9, 4), lengths), lengths, collect=(1,))
    assert lower.shape == (2, 1, 10)
