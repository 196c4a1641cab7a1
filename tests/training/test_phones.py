"""Lower layers that learn phones: what they learn, what they leave out, and that nothing of it is released."""

import math

import pytest
import torch
from conftest import TONE_SETTINGS
from safetensors.torch import load_file
from single_steps import make_batch, make_module, train_on, trainer_that_is_none  # noqa: F401

from speechrnn.acoustic.ctc import CTCConfig, ctc_losses
from speechrnn.errors import ConfigError, CorpusError
from speechrnn.training.config_file import load_config
from speechrnn.training.losses import PhoneOutput
from speechrnn.training.preflight import prepare_run
from speechrnn.training.replay import replay
from speechrnn.training.train import train

SPOKEN = {"the": ["DH", "AH"], "quick": ["K", "W", "IH", "K"], "fox": ["F", "AA", "K", "S"]}
IDS = {"AA": 1, "AH": 2, "DH": 3, "F": 4, "IH": 5, "K": 6, "S": 7, "W": 8}
LEXICON = "low L OW1\nmiddle M IH1 D L\nhigh HH AY1\nother AH1 DH\n"
LOWER = {"encoder.num_layers": 2, "ctc.intermediate_layers": [1], "ctc.lexicon": "lexicon.txt"}


def test_a_text_with_an_unknown_word_has_no_phones():
    output = PhoneOutput(SPOKEN, 4)
    assert output.head.projection.weight.shape == (9, 4)
    assert output.encode("the fox") == [IDS[phone] for phone in SPOKEN["the"] + SPOKEN["fox"]]
    assert output.encode("") == []
    assert output.encode("the wolf") is None


def test_phone_losses_are_ctc_losses_of_utterances_with_known_feasible_phones():
    output = PhoneOutput(SPOKEN, 4)
    torch.manual_seed(0)
    frames = torch.randn(5, 12, 4, requires_grad=True)
    lengths = torch.tensor([12, 12, 3, 4, 7])
    texts = ["the fox", "the wolf", "quick", "", "fox the"]
    losses, counts = output.losses(output.head(frames), texts, lengths=lengths)
    assert counts.tolist() == [True, False, False, True, True]
    for row, text in ((0, "the fox"), (4, "fox the")):
        ids = torch.tensor([[IDS[phone] for word in text.split() for phone in SPOKEN[word]]])
        log_probs = output.head(frames[row : row + 1])
        alone = ctc_losses(log_probs, ids, lengths=lengths[row : row + 1], target_lengths=torch.tensor([ids.shape[1]]))
        torch.testing.assert_close(losses[row], alone[0])
    silence = output.head(frames[3])[:4, 0].sum()
    torch.testing.assert_close(losses[3], -silence)
    losses.sum().backward()
    assert bool(torch.isfinite(frames.grad).all())


@pytest.mark.usefixtures("trainer_that_is_none")
def test_phones_take_the_share_of_the_text_in_lower_layers(make_tiny_model, tmp_path):
    plain_module = make_module(make_tiny_model(), tmp_path)
    batch = make_batch(plain_module)
    plain = plain_module.compute_losses(batch)[0].detach()
    of_share = {}
    for share in (0.25, 0.5):
        ctc = CTCConfig(intermediate_layers=(1,), intermediate_weight=share, lexicon="lexicon.txt")
        torch.manual_seed(1)
        known = {word: SPOKEN[word] for word in ("the", "fox")}
        module = make_module(make_tiny_model(), tmp_path, ctc=ctc, pronunciations=known)
        of_share[share] = module.compute_losses(batch)[0].detach()
    lower = (of_share[0.5] - 0.5 * plain) / 0.5
    torch.testing.assert_close(of_share[0.25], 0.75 * plain + 0.25 * lower)
    knows = torch.tensor(["quick" not in text for text in batch.texts])
    assert (lower - plain)[knows].abs().min() > 0.1
    torch.testing.assert_close(lower[~knows], plain[~knows])  # whose phones are not known learn their text alone


def test_lower_layers_learn_and_their_heads_are_not_released(tone_configuration):
    (tone_configuration.parent / "lexicon.txt").write_text(LEXICON, encoding="utf-8")
    output = tone_configuration.parent / "run"
    settings = {**TONE_SETTINGS, **LOWER, "trainer.max_epochs": 1, "output": str(output)}
    result = train(tone_configuration, settings)
    names = set(load_file(result.model / "model.safetensors"))
    plain = train(tone_configuration, {**settings, "ctc.lexicon": None, "output": str(output) + "-plain"})
    assert names == set(load_file(plain.model / "model.safetensors"))


def prepare(configuration, lexicon):
    (configuration.parent / "lexicon.txt").write_text(lexicon, encoding="utf-8")
    config = load_config(configuration, {**TONE_SETTINGS, **LOWER})
    return prepare_run(config, folders=[configuration.parent])


def test_the_lexicon_is_checked_against_normalised_training_texts(tone_configuration, caplog):
    preflight = prepare(tone_configuration, LEXICON.upper())
    assert preflight.pronunciations == {"high": ["HH", "AY"], "low": ["L", "OW"], "middle": ["M", "IH", "D", "L"]}
    assert "lacks" not in caplog.text
    changed = prepare(tone_configuration, LEXICON.replace("M IH1", "M AY1"))
    assert changed.fingerprint() != preflight.fingerprint()  # and so a run does not go on with it
    few = prepare(tone_configuration, "low L OW\n")
    assert few.pronunciations == {"low": ["L", "OW"]}
    assert "lexicon.txt: lacks 2 of the training texts' 3 words:" in caplog.text


def test_a_lexicon_that_does_not_fit_is_one_line(tone_configuration):
    with pytest.raises(CorpusError, match="has none of the training texts' 3 words:"):
        prepare(tone_configuration, "niedrig N IY D R IH G\n")
    with pytest.raises(ConfigError, match="ctc.lexicon: say which layers"):
        load_config(tone_configuration, {"ctc.lexicon": "lexicon.txt"})
    with pytest.raises(CorpusError, match=r"ctc.lexicon: no gone.txt in"):
        prepare_run(
            load_config(tone_configuration, {**LOWER, "ctc.lexicon": "gone.txt"}), folders=[tone_configuration.parent]
        )


@pytest.mark.usefixtures("trainer_that_is_none")
def test_a_step_with_phones_can_be_rerun(make_tiny_model, tmp_path):
    ctc = CTCConfig(intermediate_layers=(1,), lexicon="lexicon.txt")
    module = make_module(make_tiny_model(dropout=0.0), tmp_path, ctc=ctc, pronunciations=SPOKEN)
    batch = make_batch(module)
    batch.waveforms[1, 100] = math.nan
    losses = module.compute_losses(batch)[0].detach()
    train_on(module, batch, 0)
    rows = {row.id: row for row in replay(tmp_path / "faults" / "epoch-1-batch-1")}
    assert not rows["the fox"].is_finite
    for name, loss in zip(batch.ids, losses.tolist(), strict=True):
        if name != "the fox":
            assert rows[name].loss == pytest.approx(loss, rel=1e-4)
