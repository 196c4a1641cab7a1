"""CPU and GPU say the same, within 1e-3 with TF32 off.

Each test also runs on the CPU alone, so that its own code is tried where there is no GPU.
"""

import json

import numpy as np
import pytest
import torch
from conftest import TONE_SETTINGS, make_tone_configuration, say_tones

import speechrnn
from speechrnn.acoustic.ctc import ctc_losses
from speechrnn.acoustic.encoder import EncoderConfig
from speechrnn.acoustic.model import AcousticModel
from speechrnn.acoustic.recurrent import RecurrentStack
from speechrnn.acoustic.streaming import StreamingAcoustics, feed_together
from speechrnn.audio.features import FrontEnd, FrontEndConfig, StatisticsAccumulator
from speechrnn.audio.spectral_augment import SpecAugment, SpecAugmentConfig
from speechrnn.cli.main import main
from speechrnn.decoding.greedy import decode_greedy
from speechrnn.evaluation.evaluate import evaluate
from speechrnn.recognition.adaptation import adapt
from speechrnn.training.train import train

CELLS = ("tanh", "elementwise", "gru", "lstm", "mingru", "minlstm")
LENGTHS = [12000, 4503, 8250, 200, 100, 0]  # the last two make no frame


def find_device(name: str) -> torch.device:
    if name == "cuda" and not torch.cuda.is_available():
        pytest.skip("torch finds no CUDA device here")
    return torch.device(name)


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request) -> torch.device:
    return find_device(request.param)


@pytest.fixture(autouse=True)
def _no_tf32():
    switches = (torch.backends.cuda.matmul, torch.backends.cudnn)
    before = [switch.allow_tf32 for switch in switches]
    for switch in switches:
        switch.allow_tf32 = False
    yield
    for switch, value in zip(switches, before, strict=True):
        switch.allow_tf32 = value


def make_waveforms() -> tuple[torch.Tensor, torch.Tensor]:
    """Noise of different loudness, (B, N), with noise past the lengths, too; and the lengths, (B,)."""
    generator = torch.Generator().manual_seed(0)
    loudness = torch.tensor([0.3, 0.1, 0.01, 0.1, 0.1, 0.1])[:, None]
    return torch.randn(len(LENGTHS), max(LENGTHS), generator=generator) * loudness, torch.tensor(LENGTHS)


def make_model(*, front_end: dict | None = None, **encoder) -> AcousticModel:
    """An untrained model, on the CPU, that is sure of what it says."""
    torch.manual_seed(0)
    config = FrontEndConfig(**{"sample_rate": 8000, "n_mels": 20, "num_coefficients": 13, **(front_end or {})})
    model = AcousticModel(config, EncoderConfig(hidden_size=48, num_layers=3, **encoder), vocabulary_size=9)
    if config.has_statistics:
        size = model.front_end.feature_size
        model.front_end.set_statistics(torch.linspace(-3, 3, size), torch.linspace(1, 2, size))
    with torch.no_grad():
        model.head.projection.weight.normal_(0.0, 0.5)
    return model.eval()


def assert_close(actual: torch.Tensor, expected: torch.Tensor, *, atol: float = 1e-3) -> None:
    torch.testing.assert_close(actual.cpu(), expected, atol=atol, rtol=0)


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("cell", CELLS)
def test_log_probs_and_states_agree_with_the_cpu(device, cell, bidirectional):
    model = make_model(cell=cell, bidirectional=bidirectional, initial_state="learned")
    with torch.no_grad():
        model.encoder.stack.initial_state.normal_(0.0, 0.5)
    waveforms, lengths = make_waveforms()
    with torch.inference_mode():
        expected = model(waveforms, lengths, return_state=True)
        model.to(device)
        emission = model(waveforms.to(device), lengths.to(device), return_state=True)
        carried_on = model(waveforms.to(device), lengths.to(device), state=emission.state)
    assert emission.log_probs.device.type == device.type
    assert emission.lengths.tolist() == expected.lengths.tolist()
    for row, frames in enumerate(expected.lengths.tolist()):
        assert_close(emission.log_probs[row, :frames], expected.log_probs[row, :frames])
        if frames:
            assert not torch.allclose(carried_on.log_probs[row, :frames], emission.log_probs[row, :frames], atol=1e-3)
    assert_close(emission.state, expected.state)


@pytest.mark.parametrize(
    "settings",
    [
        {"subsampling": "convolution", "subsampling_factor": 3},
        {"subsampling": "convolution_2d", "subsampling_factor": 4, "front_end": {"kind": "log_mel"}},
        {"bidirectional": False, "lookahead_frames": 4},
        {"output": "final_state"},
        {"layer_norm": False, "residual": False, "subsampling_factor": 1},
        {"front_end": {"normalization": "corpus", "deltas": 2}},
        {"front_end": {"normalization": "speaker"}},
        {"front_end": {"normalization": "sliding"}},
        {"front_end": {"normalization": "none", "kind": "log_mel"}},
    ],
)
def test_every_kind_of_model_agrees_with_the_cpu(device, settings):
    model = make_model(**settings)
    waveforms, lengths = make_waveforms()
    with torch.inference_mode():
        expected = model(waveforms, lengths)
        emission = model.to(device)(waveforms.to(device), lengths.to(device))
    for row, frames in enumerate(expected.lengths.tolist()):
        assert_close(emission.log_probs[row, :frames], expected.log_probs[row, :frames])


@pytest.mark.parametrize("rows", [1, 8, 13])
@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_half_precision_agrees_for_any_number_of_utterances(device, cell, rows):
    """cuDNN's fast kernels take multiples of 8 utterances and 128 units; rows are added where they are missing."""
    torch.manual_seed(0)
    stack = RecurrentStack(cell, 128, hidden_size=128, num_layers=2, bidirectional=True).eval()
    inputs, lengths = torch.randn(rows, 40, 128), torch.arange(40, 40 - rows, -1)
    state = 0.1 * torch.randn(2, stack.state_shape[1], 2, rows, 128)
    expected = stack(inputs, lengths, state=state, return_state=True, collect=[1])
    dtype = torch.float16 if device.type == "cuda" else torch.bfloat16
    stack, state = stack.to(device), state.to(device)
    with torch.no_grad(), torch.autocast(device.type, dtype):
        hidden, final, collected = stack(inputs.to(device), lengths, state=state, return_state=True, collect=[1])
    atol = 0.02 if dtype is torch.float16 else 0.1
    for actual, wanted in ((hidden, expected[0]), (final, expected[1]), (collected[0], expected[2][0])):
        assert actual.shape == wanted.shape
        assert_close(actual.float(), wanted.detach(), atol=atol)


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("cell", CELLS)
def test_neighbours_and_padding_do_not_matter(device, cell, bidirectional):
    model = make_model(cell=cell, bidirectional=bidirectional).to(device)
    waveforms, lengths = (tensor.to(device) for tensor in make_waveforms())
    padded = torch.nn.functional.pad(waveforms, (0, 5000), value=9.0)
    with torch.inference_mode():
        together, under_padding = model(waveforms, lengths), model(padded, lengths)
        for row, length in enumerate(LENGTHS):
            alone = model(waveforms[row : row + 1, :length], lengths[row : row + 1])
            frames = int(alone.lengths[0])
            assert frames == together.lengths[row] == under_padding.lengths[row]
            for emission in (together, under_padding):
                assert_close(emission.log_probs[row, :frames], alone.log_probs[0, :frames].cpu())


@pytest.mark.parametrize(
    "settings",
    [
        {"kind": "log_mel"},
        {"deltas": 2},
        {"normalization": "none", "deltas": 1},
        {"normalization": "sliding"},
        {"compatibility": "librosa", "mel_scale": "slaney", "normalization": "none"},
        {"compatibility": "torchaudio", "normalization": "none"},
        {"sample_rate": 16000, "n_mels": 80, "num_coefficients": 40},
    ],
)
def test_features_agree_with_the_cpu(device, settings):
    front_end = FrontEnd(FrontEndConfig(**{"sample_rate": 8000, "n_mels": 20, "num_coefficients": 13, **settings}))
    waveforms, lengths = make_waveforms()
    expected, expected_lengths = front_end(waveforms, lengths)
    features, feature_lengths = front_end.to(device)(waveforms.to(device), lengths.to(device))
    assert features.device.type == device.type
    assert feature_lengths.tolist() == expected_lengths.tolist()
    assert_close(features, expected)


def test_features_stay_float32_under_autocast(device):
    front_end = FrontEnd(FrontEndConfig(sample_rate=8000, n_mels=20, num_coefficients=13)).to(device)
    waveforms, lengths = (tensor.to(device) for tensor in make_waveforms())
    expected, _ = front_end(waveforms, lengths)
    with torch.autocast(device.type, dtype=torch.bfloat16):
        features, _ = front_end(waveforms, lengths)
    assert torch.equal(features, expected)


def test_corpus_statistics_agree_with_the_cpu(device):
    front_end = FrontEnd(FrontEndConfig(sample_rate=8000, n_mels=20, num_coefficients=13, normalization="corpus"))
    statistics = []
    for place in ("cpu", device):
        accumulator = StatisticsAccumulator(front_end.to(place))
        accumulator.add(*(tensor.to(place) for tensor in make_waveforms()))
        statistics.append(accumulator.compute())
    for found, expected in zip(statistics[1], statistics[0], strict=True):
        assert_close(found, expected)


def test_masks_are_the_same_as_on_the_cpu(device):
    front_end = FrontEnd(FrontEndConfig(sample_rate=8000, n_mels=20, num_coefficients=13))
    augment = SpecAugment(
        SpecAugmentConfig(time_masks=2, frequency_masks=2), frame_shift_seconds=front_end.frame_shift_seconds
    )
    log_mels, lengths = front_end.log_mel(*make_waveforms())
    seeds = list(range(len(LENGTHS)))
    expected = augment(log_mels, lengths, seeds=seeds)
    masked = augment(log_mels.to(device), lengths.to(device), seeds=seeds)
    assert_close(masked, expected)
    assert not torch.equal(expected, log_mels)


def make_ctc_batch() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Logits (B, T', V), targets (B, U), and both lengths; the last utterance but one is empty, the last infeasible."""
    logits = torch.randn(5, 60, 9, generator=torch.Generator().manual_seed(1)) * 3
    targets = torch.zeros(5, 20, dtype=torch.int64)
    targets[:3] = torch.randint(1, 9, (3, 20), generator=torch.Generator().manual_seed(2))
    targets[1, 1] = targets[1, 0]
    targets[4, :5] = 3
    return logits, targets, torch.tensor([60, 47, 20, 9, 8]), torch.tensor([20, 12, 5, 0, 5])


def test_ctc_loss_agrees_with_the_cpu_and_is_finite_exactly_where_it_is_feasible(device):
    logits, targets, lengths, target_lengths = make_ctc_batch()
    expected = ctc_losses(logits.log_softmax(-1), targets, lengths=lengths, target_lengths=target_lengths)
    moved = [tensor.to(device) for tensor in (logits.log_softmax(-1), targets, lengths, target_lengths)]
    losses = ctc_losses(moved[0], moved[1], lengths=moved[2], target_lengths=moved[3])
    assert torch.isfinite(losses).tolist() == [True, True, True, True, False]
    assert_close(losses[:4], expected[:4])


def test_ctc_gradients_agree_with_the_cpu_and_are_finite(device):
    gradients = []
    for place in ("cpu", device):
        logits, *rest = (tensor[:3].to(place) for tensor in make_ctc_batch())
        logits.requires_grad_()
        losses = ctc_losses(logits.log_softmax(-1), rest[0], lengths=rest[1], target_lengths=rest[2])
        losses.sum().backward()
        gradients.append(logits.grad)
    assert torch.isfinite(gradients[1]).all()
    assert_close(gradients[1], gradients[0])


@pytest.mark.parametrize("cell", CELLS)
def test_gradients_of_a_whole_model_agree_with_the_cpu(device, cell):
    gradients = []
    for place in ("cpu", device):
        model = make_model(cell=cell, dropout=0.0).to(place).train()
        waveforms, lengths = (tensor[:3].to(place) for tensor in make_waveforms())
        emission = model(waveforms, lengths)
        targets = torch.tensor([[1, 2, 2, 3], [4, 5, 0, 0], [6, 7, 8, 0]], device=place)
        losses = ctc_losses(
            emission.log_probs, targets, lengths=emission.lengths, target_lengths=torch.tensor([4, 2, 3], device=place)
        )
        (losses.mean() / 100).backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
    for found, expected in zip(gradients[1], gradients[0], strict=True):
        assert torch.isfinite(found).all()
        assert_close(found, expected)


def test_decoding_agrees_with_the_cpu(device):
    logits, _, lengths, _ = make_ctc_batch()
    log_probs = logits.log_softmax(-1)
    expected = decode_greedy(log_probs, lengths)
    found = decode_greedy(log_probs.to(device), lengths.to(device))
    assert [(h.tokens, h.frames) for h in found] == [(h.tokens, h.frames) for h in expected]
    assert [h.acoustic_score for h in found] == pytest.approx([h.acoustic_score for h in expected], abs=1e-3)


def test_transcripts_of_a_corpus_agree_with_the_cpu(device, tone_run):
    found, expected = (
        evaluate(speechrnn.load(tone_run.model, device=place), tone_run.folder / "test.jsonl")
        for place in (device, "cpu")
    )
    assert [(u.id, u.hypothesis) for u in found.utterances] == [(u.id, u.hypothesis) for u in expected.utterances]
    assert [u.confidence for u in found.utterances] == pytest.approx(
        [u.confidence for u in expected.utterances], abs=1e-3
    )


def settings_for(device: torch.device, **changes: object) -> dict[str, object]:
    accelerator = {"cpu": "cpu", "cuda": "gpu"}[device.type]
    dotted = {name.replace("__", "."): value for name, value in changes.items()}
    return {**TONE_SETTINGS, "trainer.accelerator": accelerator, **dotted}


def test_a_model_trained_on_the_device_loads_on_the_cpu(device, tmp_path):
    settings = settings_for(
        device,
        trainer__max_epochs=6,
        encoder__dropout=0.1,
        augment__speed=[0.95, 1.0, 1.05],
        augment__spec_augment__frequency_masks=1,
        augment__spec_augment__frequency_mask_share=0.1,  # a tone is gone where all its bands are
        output=str(tmp_path / "run"),
    )
    result = train(make_tone_configuration(tmp_path / "tones"), settings)
    assert result.valid_wer <= 0.2
    stated = json.loads((result.model / "config.json").read_text())["provenance"]["training"]["device"]
    assert stated == ("cpu" if device.type == "cpu" else torch.cuda.get_device_name())
    on_cpu, on_device = (speechrnn.load(result.model, device=place) for place in ("cpu", device))
    waveform = torch.from_numpy(say_tones(["low", "high", "middle"], np.random.default_rng(5)))[None]
    emissions = [
        recognizer.emissions(waveform, torch.tensor([waveform.shape[1]])) for recognizer in (on_cpu, on_device)
    ]
    assert_close(emissions[1].log_probs, emissions[0].log_probs.cpu())
    assert on_cpu.transcribe(waveform[0], sample_rate=8000).text == "low high middle"


@pytest.mark.parametrize(
    ("name", "cell", "precision"),
    [
        ("cpu", "elementwise", "bf16-mixed"),
        *(
            pytest.param("cuda", cell, precision, marks=pytest.mark.gpu)
            for cell in CELLS
            for precision in ("32-true", "bf16-mixed", "16-mixed")
        ),
    ],
)
def test_every_cell_trains_in_every_precision(name, cell, precision, tmp_path):
    device = find_device(name)
    settings = settings_for(
        device, trainer__max_epochs=1, trainer__precision=precision, encoder__cell=cell, output=str(tmp_path / "run")
    )
    result = train(make_tone_configuration(tmp_path / "tones"), settings)
    assert speechrnn.load(result.model, device=device).transcribe(tmp_path / "tones" / "test" / "test-0.wav").seconds


def test_the_command_line_transcribes_on_the_device(device, tone_run, capsys):
    recording = tone_run.folder / "test" / "test-0.wav"
    reference = json.loads((tone_run.folder / "test.jsonl").read_text().splitlines()[0])["text"]
    assert main(["transcribe", str(recording), "-m", str(tone_run.model), "--device", str(device)]) == 0
    assert capsys.readouterr().out == reference.lower().removesuffix(".") + "\n"


def test_adaptation_agrees_with_the_cpu(device, tone_run):
    recordings = [tone_run.folder / "test" / f"test-{number}.wav" for number in range(3)]
    found = [adapt(speechrnn.load(tone_run.model, device=place), recordings, steps=5) for place in ("cpu", device)]
    # Adam divides by the size of the gradient; where that is almost zero, rounding decides.
    assert_close(found[1].state, found[0].state, atol=2e-2)
    assert found[1].loss == pytest.approx(found[0].loss, abs=1e-2)


@pytest.mark.parametrize(
    "settings",
    [
        {"encoder.initial_state": "encoded"},
        {"front_end.normalization": "speaker"},
        {"data.carry_state": "speaker", "encoder.cell": "lstm"},
        {"encoder.num_layers": 2, "ctc.intermediate_layers": [1], "ctc.lexicon": "lexicon.txt", "ctc.consistency": 0.2},
    ],
    ids=lambda settings: next(iter(settings)),
)
def test_initial_states_and_lower_layers_train_on_the_device(device, tmp_path, settings):
    configuration = make_tone_configuration(tmp_path / "tones")
    (tmp_path / "tones" / "lexicon.txt").write_text("low L OW\nmiddle M IH D L\nhigh HH AY\n")
    result = train(
        configuration,
        {**settings_for(device, trainer__max_epochs=1, output=str(tmp_path / "run")), **settings},
    )
    assert result.model.is_dir()
    evaluate(speechrnn.load(result.model, device=device), tmp_path / "tones" / "test.jsonl")


def test_a_model_is_fine_tuned_on_the_device(device, tone_run, tmp_path):
    overrides = settings_for(device, trainer__max_epochs=1)
    kept = {name: overrides[name] for name in ("trainer.accelerator", "trainer.max_epochs", "data.num_workers")}
    outcome = speechrnn.finetune(
        tone_run.model,
        tone_run.folder / "test.jsonl",
        tone_run.folder / "valid.jsonl",
        output=tmp_path / "run",
        replay=tone_run.folder / "train.jsonl",
        overrides={**kept, "start.layers": 0},
    )
    assert outcome.sets["valid"].wer <= 0.2


@pytest.mark.parametrize("cell", CELLS)
def test_streams_say_what_the_whole_recording_says(device, cell):
    front_end = {"normalization": "sliding", "deltas": 1}
    model = make_model(front_end=front_end, cell=cell, bidirectional=False, lookahead_frames=2)
    waveforms, _ = make_waveforms()
    with torch.inference_mode():
        expected = model(waveforms[:2], torch.tensor([12000, 12000])).log_probs
    model.to(device)
    streams = [StreamingAcoustics(model) for _ in range(2)]
    parts = [feed_together(streams, list(waveforms[:2, at : at + 900])) for at in range(0, 12000, 900)]
    parts.append([stream.finish() for stream in streams])
    for number, whole in enumerate(expected):
        assert_close(torch.cat([part[number] for part in parts]), whole)
