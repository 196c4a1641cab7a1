"""Pictures hold what they were given."""

import math

import numpy as np
import pytest
import torch

import speechrnn
from speechrnn.acoustic.gradient_flow import LagCurve
from speechrnn.audio.features import FrontEnd, FrontEndConfig
from speechrnn.errors import SpeechRNNError
from speechrnn.inspection.inspect import inspect_recording
from speechrnn.inspection.pictures import draw_inspection, draw_lag_curves, to_pixels, to_png
from speechrnn.model_folder import save_model
from speechrnn.types import Waveform


def make_curve(direction="forward", *, share=0.5, layer=1):
    norms = 4.0 * share ** torch.arange(30.0)
    return LagCurve(layer, direction, norms, torch.ones(30), 0.04)


def test_curves_are_drawn_as_shares_of_lag_0_with_their_half_life():
    axes = draw_lag_curves([make_curve(), make_curve("backward", share=0.8, layer=2)], title="of a test").axes[0]
    forward, backward = (line for line in axes.lines if len(line.get_xdata()) > 1)
    np.testing.assert_allclose(forward.get_ydata(), 0.5 ** np.arange(30.0), rtol=1e-6)
    assert (forward.get_linestyle(), backward.get_linestyle()) == ("-", "--")
    assert forward.get_label() == "layer 1 forward, half-life 1.0"
    assert backward.get_label() == "layer 2 backward, half-life 3.1"
    dots = [line.get_xdata()[0] for line in axes.lines if len(line.get_xdata()) == 1]
    assert dots == pytest.approx([1.0, math.log(0.5) / math.log(0.8)])
    assert axes.get_title() == "of a test"
    assert axes.get_xlabel() == "lag k, in encoder frames of 40 ms"


@pytest.mark.parametrize("norms", [[1.0, math.inf, math.inf], [0.0, 0.0], [1.0]])
def test_infinite_and_zero_gradients_are_drawn(norms):
    figure = draw_lag_curves([LagCurve(1, "forward", torch.tensor(norms), torch.ones(len(norms)), 0.01)])
    assert to_pixels(figure).shape[2] == 3
    assert "no half-life" in figure.axes[0].lines[0].get_label()


def test_a_picture_becomes_png_and_pixels():
    figure = draw_lag_curves([make_curve()])
    assert to_png(figure).startswith(b"\x89PNG")
    pixels = to_pixels(figure)
    assert (pixels.dtype, pixels.ndim) == (np.uint8, 3)
    assert len(np.unique(pixels)) > 2


def test_without_matplotlib_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setattr("speechrnn.inspection.pictures.has_matplotlib", lambda: False)
    with pytest.raises(SpeechRNNError, match="pip install matplotlib"):
        draw_lag_curves([make_curve()])


def test_log_mels_are_drawn_over_hz_on_the_mel_scale(make_tiny_model, make_recording, tmp_path):
    model = make_tiny_model()
    model.acoustic.front_end = FrontEnd(FrontEndConfig(sample_rate=8000, kind="log_mel", n_mels=13))
    save_model(tmp_path / "model", model)
    inspection = inspect_recording(
        speechrnn.load(tmp_path / "model", device="cpu"), Waveform(make_recording(0.5), 8000)
    )
    bands = inspection.bands_hz
    assert len(bands) == inspection.features.shape[1]
    assert (np.diff(bands) > 0).all()
    assert 20.0 < bands[0] < bands[-1] < 4000.0
    axes = draw_inspection(inspection).axes[1]
    (mesh,) = axes.collections
    np.testing.assert_array_equal(np.asarray(mesh.get_array()).reshape(len(bands), -1), inspection.features.T)
    assert axes.get_ylabel() == "log-mels, Hz"
    assert axes.get_yscale() == "symlog"
    assert 1024.0 in axes.get_yticks()
