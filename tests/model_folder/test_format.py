import json
import shutil
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from speechrnn.acoustic.encoder import EncoderConfig
from speechrnn.errors import ConfigError, ModelError
from speechrnn.fine_tuning import mix_weights
from speechrnn.model_folder import ModelFolder, add_calibration, add_results, add_weights, load_model, save_model
from speechrnn.model_folder import format as model_format
from speechrnn.model_folder.additions import Calibration, TunedWeights
from speechrnn.model_folder.card import make_model_card
from speechrnn.model_folder.speakers import SpeakerProfile, read_speaker, save_speaker
from speechrnn.text.normalize import TextConfig
from speechrnn.text.sentencepiece_tokens import SentencePieceTokens
from speechrnn.text.tokens import WordTokens

RESULTS = {
    "interval_method": "bootstrap over utterances",
    "sets": {
        "test": {"utterances": 300, "words": 1234, "wer": 0.0123, "wer_low": 0.004, "wer_high": 0.02, "cer": 0.01}
    },
}


@pytest.fixture
def folder(tiny_model_folder, tmp_path):
    """A copy of a good model folder, to be damaged."""
    return shutil.copytree(tiny_model_folder, tmp_path / "model")


def edit_config(folder, change):
    path = folder / "config.json"
    config = json.loads(path.read_text())
    change(config)
    path.write_text(json.dumps(config))


def edit_weights(folder, change):
    weights = read_weights(folder)
    change(weights)
    save_file(weights, folder / "model.safetensors")


def read_weights(folder):
    """Copies: safetensors maps the file that is about to be written over."""
    return {name: tensor.clone() for name, tensor in load_file(folder / "model.safetensors").items()}


def assert_same_weights(arrived, expected):
    arrived, expected = arrived.state_dict(), expected.state_dict()
    assert arrived.keys() == expected.keys()
    for name, tensor in expected.items():
        assert arrived[name].dtype == tensor.dtype
        assert arrived[name].numpy().tobytes() == tensor.numpy().tobytes()


@pytest.mark.parametrize("subsampling", ["stack", "convolution", "convolution_2d"])
@pytest.mark.parametrize("cell", ["tanh", "elementwise", "gru", "lstm", "mingru", "minlstm"])
@pytest.mark.parametrize("bidirectional", [True, False])
def test_a_saved_model_is_loaded_unchanged(make_tiny_model, tmp_path, cell, subsampling, bidirectional):
    model = make_tiny_model(
        cell=cell,
        subsampling=subsampling,
        bidirectional=bidirectional,
        initial_state="learned",
        lookahead_frames=0 if bidirectional else 2,
    )
    save_model(tmp_path / "model", model)
    loaded = load_model(tmp_path / "model")
    assert_same_weights(loaded.acoustic, model.acoustic)
    assert loaded.acoustic.front_end.config == model.acoustic.front_end.config
    assert loaded.acoustic.encoder.config == model.acoustic.encoder.config
    assert loaded.tokens.symbols == model.tokens.symbols
    assert (loaded.text, loaded.provenance) == (model.text, model.provenance)
    waveforms, lengths = torch.randn(2, 4000, generator=torch.Generator().manual_seed(1)), torch.tensor([4000, 2500])
    with torch.inference_mode():
        assert torch.equal(loaded.acoustic(waveforms, lengths).log_probs, model.acoustic(waveforms, lengths).log_probs)


FIRST_RELEASE = {
    "encoder": [
        "size",
        "cell",
        "hidden_size",
        "num_layers",
        "bidirectional",
        "dropout",
        "layer_norm",
        "residual",
        "subsampling",
        "subsampling_factor",
        "subsampling_channels",
        "lookahead_frames",
        "initial_state",
    ],
    "front_end": [
        "sample_rate",
        "kind",
        "num_coefficients",
        "n_mels",
        "window_seconds",
        "hop_seconds",
        "n_fft",
        "f_min_hz",
        "f_max_hz",
        "mel_scale",
        "pre_emphasis",
        "log_floor",
        "deltas",
        "delta_width",
        "normalization",
        "normalization_seconds",
        "compatibility",
    ],
    "text": ["case", "punctuation"],
}
"""The settings that every model folder has had from the first version of the format on."""


def test_a_model_of_the_first_version_of_the_format_is_still_read(folder):
    """A setting that came later must be listed in ``_ADDED``; otherwise older models no longer load."""

    def age(config):
        for section, names in FIRST_RELEASE.items():
            config[section] = {name: config[section][name] for name in names}

    before = load_model(folder).acoustic
    edit_config(folder, age)
    after = load_model(folder).acoustic
    assert_same_weights(before, after)
    assert after.encoder.config == before.encoder.config


def test_a_loaded_model_is_complete_and_ready(tiny_model_folder):
    acoustic = load_model(tiny_model_folder).acoustic
    tensors = [*acoustic.parameters(), *acoustic.buffers()]
    assert {tensor.device.type for tensor in tensors} == {"cpu"}
    assert all(parameter.requires_grad for parameter in acoustic.parameters())
    assert not acoustic.training


@pytest.mark.parametrize("kind", ["words", "sentencepiece"])
def test_every_kind_of_tokens_is_restored(make_tiny_model, tmp_path, kind):
    text = ["one two three four", "two one", "four three two"]
    tokens = WordTokens.build(text) if kind == "words" else SentencePieceTokens.build(text, vocabulary_size=14)
    model = make_tiny_model(tokens=tokens)
    save_model(tmp_path / "model", model)
    loaded = load_model(tmp_path / "model").tokens
    assert (loaded.kind, loaded.symbols) == (kind, tokens.symbols)
    assert loaded.encode("two four") == tokens.encode("two four")


def test_text_settings_and_provenance_are_restored(tiny_model, tmp_path):
    provenance = {"languages": ["de"], "corpora": [], "training": {"seconds": 1.5, "note": "über „alles“"}}
    text = TextConfig(case="keep", punctuation="keep")
    save_model(tmp_path / "model", ModelFolder(tiny_model.acoustic, tiny_model.tokens, text, provenance))
    loaded = load_model(tmp_path / "model")
    assert (loaded.text, loaded.provenance) == (text, provenance)


def test_config_json_has_the_documented_fields(tiny_model_folder, tiny_model):
    config = json.loads((tiny_model_folder / "config.json").read_text(encoding="utf-8"))
    assert config["format_version"] == 1
    assert config["front_end"]["sample_rate"] == 8000
    assert config["encoder"]["cell"] == "gru"
    assert config["tokens"] == {"kind": "characters"}
    assert config["vocabulary_size"] == len(tiny_model.tokens)
    assert config["num_parameters"] == sum(p.numel() for p in tiny_model.acoustic.parameters())
    assert config["provenance"]["corpora"][0]["license"] == "CC0"
    assert {path.name for path in tiny_model_folder.iterdir()} == {
        "config.json",
        "model.safetensors",
        "tokens.json",
        "README.md",
    }


# What can be wrong with a folder


def test_missing_folder(tmp_path):
    with pytest.raises(ModelError, match="nowhere: there is no such model folder"):
        load_model(tmp_path / "nowhere")


def test_file_instead_of_folder(folder):
    with pytest.raises(ModelError, match=r"config\.json: a model is a folder, this is a file"):
        load_model(folder / "config.json")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokens.json"])
def test_missing_file_is_named(folder, name):
    (folder / name).unlink()
    with pytest.raises(ModelError, match=f"{name} is missing"):
        load_model(folder)


@pytest.mark.parametrize("content", ["", "{", '{"format_version": 1', "\x00\x01"])
def test_config_that_is_not_json(folder, content):
    (folder / "config.json").write_text(content)
    with pytest.raises(ModelError, match=r"config\.json: cannot be read as JSON"):
        load_model(folder)


@pytest.mark.parametrize("content", ["[]", "{}", '{"format_version": "1"}', '{"format_version": true}'])
def test_json_that_is_not_a_config(folder, content):
    (folder / "config.json").write_text(content)
    with pytest.raises(ModelError, match="expected a format_version"):
        load_model(folder)


def test_newer_format_asks_for_an_upgrade(folder):
    edit_config(folder, lambda config: config.update(format_version=3, front_end="something else"))
    with pytest.raises(
        ModelError, match="newer speechrnn, format 3; this one reads up to 1: upgrade with pip install -U"
    ):
        load_model(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.pop("provenance"), "provenance is missing"),
        (lambda c: c.update(colour="red"), "unknown setting colour"),
        (lambda c: c.update(vocabulary_size="10"), "vocabulary_size: expected a whole number, got '10'"),
        (lambda c: c["front_end"].update(n_mel=4), r"unknown setting front_end\.n_mel"),
        (lambda c: c["front_end"].pop("n_mels"), r"front_end\.n_mels is missing"),
        (lambda c: c["front_end"].update(hop_seconds=-1.0), r"front_end\.hop_seconds"),
        (lambda c: c["encoder"].update(cell="transformer"), r"encoder\.cell: expected one of .*, got 'transformer'"),
        (lambda c: c["encoder"].update(num_layers="2"), r"encoder\.num_layers: expected a whole number .*, got '2'"),
        (lambda c: c["encoder"].update(bidirectional=1), r"encoder\.bidirectional: expected true or false, got 1"),
        (lambda c: c["encoder"].update(dropout=2), r"encoder\.dropout"),
        (lambda c: c["text"].update(case="Upper"), r"text\.case"),
        (lambda c: c.update(text=[]), "text: expected a mapping, got "),
        (
            lambda c: c.update(tokens={"kind": "words"}),
            r"says 13 tokens of kind words, tokens\.json holds 13 of",
        ),
        (lambda c: c.update(vocabulary_size=99), r"says 99 tokens of kind characters, tokens\.json holds 13 of"),
    ],
)
def test_an_invalid_setting_is_named(folder, change, message):
    edit_config(folder, change)
    with pytest.raises(ModelError, match=message) as caught:
        load_model(folder)
    assert "\n" not in str(caught.value)


def test_wrong_shape_names_tensor_and_both_shapes(folder):
    edit_config(folder, lambda config: config["encoder"].update(hidden_size=24))
    with pytest.raises(ModelError, match=r"tensor encoder\.\S+: expected \(72, 26\) float32 .* got \(48, 26\) float32"):
        load_model(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.pop("head.projection.bias"), r"tensor head\.projection\.bias is missing"),
        (lambda w: w.update(spare=torch.zeros(2)), "tensor spare is not in this model"),
        (
            lambda w: w.update({"head.projection.bias": w["head.projection.bias"].double()}),
            r"head\.projection\.bias: expected \(13,\) float32 by config\.json, got \(13,\) float64",
        ),
        (lambda w: w["head.projection.bias"][3:4].fill_(float("nan")), r"head\.projection\.bias holds .* not finite"),
    ],
)
def test_wrong_weights_are_named(folder, change, message):
    edit_weights(folder, change)
    with pytest.raises(ModelError, match=message):
        load_model(folder)


@pytest.mark.parametrize("keep", [0, 7, 100, -1])
def test_damaged_weights_file(folder, keep):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ModelError, match=r"model\.safetensors: the file is damaged"):
        load_model(folder)


def test_a_pickle_is_not_read(folder):
    torch.save(read_weights(folder), folder / "model.safetensors")
    with pytest.raises(ModelError, match=r"model\.safetensors: the file is damaged"):
        load_model(folder)


def test_a_loaded_model_no_longer_needs_its_file(folder, tiny_model):
    acoustic = load_model(folder).acoustic
    path = folder / "model.safetensors"
    path.write_bytes(bytes(path.stat().st_size))
    assert_same_weights(acoustic, tiny_model.acoustic)


# Saving


def test_tokens_must_fit_the_model(tiny_model, tmp_path):
    model = ModelFolder(tiny_model.acoustic, WordTokens.build(["one two"]), tiny_model.text, {})
    with pytest.raises(ModelError, match="13 outputs and 3 tokens"):
        save_model(tmp_path / "model", model)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("value", [object(), float("nan")])
def test_provenance_must_be_json(tiny_model, tmp_path, value):
    model = ModelFolder(tiny_model.acoustic, tiny_model.tokens, tiny_model.text, {"what": value})
    with pytest.raises(ModelError, match="provenance is not plain JSON"):
        save_model(tmp_path / "model", model)


def test_saving_replaces_a_model_and_leaves_nothing_behind(make_tiny_model, folder):
    (folder / "tokenizer.model").write_text("of an earlier model")
    model = make_tiny_model(seed=7)
    save_model(folder, model)
    assert_same_weights(load_model(folder).acoustic, model.acoustic)
    assert [path.name for path in folder.parent.iterdir()] == ["model"]
    assert not (folder / "tokenizer.model").exists()


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_save_that_fails_leaves_the_old_model(make_tiny_model, tiny_model, folder, monkeypatch, error):
    def fail(*_args, **_settings):
        raise error

    monkeypatch.setattr("speechrnn.model_folder.format.save", fail)
    with pytest.raises(ModelError if isinstance(error, OSError) else KeyboardInterrupt):
        save_model(folder, make_tiny_model(seed=7))
    assert_same_weights(load_model(folder).acoustic, tiny_model.acoustic)
    assert [path.name for path in folder.parent.iterdir()] == ["model"]


def test_saving_through_a_link_replaces_what_it_points_to(make_tiny_model, folder):
    link = folder.parent / "best"
    link.symlink_to(folder)
    model = make_tiny_model(seed=7)
    save_model(link, model)
    assert link.is_symlink()
    assert_same_weights(load_model(folder).acoustic, model.acoustic)


@pytest.mark.parametrize("cell", ["gru", "lstm"])  # the weights fit the old configuration, or they do not
def test_a_folder_that_is_replaced_while_it_is_read_gives_the_new_model(make_tiny_model, folder, monkeypatch, cell):
    new = replace(make_tiny_model(seed=7, cell=cell), provenance={"languages": ["de"]})
    read = model_format.load_tokens
    saved = []

    def replace_folder(path):
        if not saved:
            saved.append(save_model(folder, new))
        return read(path)

    monkeypatch.setattr(model_format, "load_tokens", replace_folder)
    found = load_model(folder)
    assert found.provenance == new.provenance
    assert_same_weights(found.acoustic, new.acoustic)


def test_saving_never_deletes_a_folder_that_is_not_a_model(tiny_model, folder):
    (folder / "thesis.tex").write_text("years of work")
    with pytest.raises(ModelError, match=r"would delete thesis\.tex"):
        save_model(folder, tiny_model)
    assert (folder / "thesis.tex").exists()
    with pytest.raises(ModelError, match="this is a file; choose"):
        save_model(folder / "thesis.tex", tiny_model)


def test_saved_files_have_the_permissions_of_the_umask(tiny_model_folder, tmp_path):
    (tmp_path / "made").mkdir()
    assert tiny_model_folder.stat().st_mode == (tmp_path / "made").stat().st_mode
    (tmp_path / "written").write_text("")
    assert {path.stat().st_mode for path in tiny_model_folder.iterdir()} == {(tmp_path / "written").stat().st_mode}


# The card


def test_card_carries_licence_attribution_and_results(folder, tiny_model):
    (folder / "language").mkdir()
    (folder / "language" / "weights.json").write_text("{}")
    (folder / "confidence.json").write_text("{}")
    add_results(folder, RESULTS)
    assert (folder / "language" / "weights.json").is_file()
    assert (folder / "confidence.json").is_file()
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert "| Nothing | CC0 | - | A generator \\| seeded |" in card
    assert "| test | 300 | 1,234 | 1.23 % | 0.40 % to 2.00 % |" in card
    assert "bootstrap over utterances" in card
    assert card.startswith("---\nlibrary_name: speechrnn\n")
    loaded = load_model(folder)
    assert loaded.provenance["results"] == RESULTS
    assert_same_weights(loaded.acoustic, tiny_model.acoustic)


def test_a_given_card_is_written_unchanged(tiny_model, tmp_path):
    save_model(tmp_path / "model", tiny_model, card="# Mine\n")
    assert (tmp_path / "model" / "README.md").read_text(encoding="utf-8") == "# Mine\n"


def test_card_states_what_is_unknown():
    card = make_model_card({}, num_parameters=12345, sample_rate=16000)
    assert "12,345 parameters" in card
    assert "16,000 Hz" in card
    assert "No results are recorded." in card
    assert "The corpora are not recorded." in card


# Hostile folders


HUGE = 10**9


@pytest.mark.parametrize(
    ("section", "settings"),
    [
        ("encoder", {"num_layers": HUGE}),
        ("encoder", {"num_layers": 50, "hidden_size": 16384}),
        ("encoder", {"hidden_size": HUGE}),
        ("encoder", {"lookahead_frames": HUGE, "bidirectional": False}),
        ("encoder", {"lookahead_frames": 1000, "hidden_size": 16384, "bidirectional": False}),
        ("encoder", {"subsampling_factor": HUGE}),
        ("encoder", {"hidden_size": 1e308}),
        ("front_end", {"sample_rate": HUGE}),
        ("front_end", {"n_mels": HUGE}),
        ("front_end", {"n_fft": HUGE}),
        ("front_end", {"window_seconds": HUGE}),
        ("front_end", {"window_seconds": 1e308}),
        ("front_end", {"hop_seconds": 1e308}),
        ("front_end", {"hop_seconds": float("nan")}),
        ("front_end", {"normalization_seconds": 1e308}),
        ("provenance", {"languages": 5}),
        ("provenance", {"languages": [5]}),
        ("provenance", {"corpora": "mine"}),
        ("provenance", {"training": 3}),
        ("provenance", {"results": [1]}),
    ],
)
def test_an_absurd_setting_is_refused_before_anything_is_built(folder, monkeypatch, section, settings):
    built = []
    monkeypatch.setattr("speechrnn.model_folder.format.AcousticModel", lambda *_args: built.append(1))
    edit_config(folder, lambda config: config[section].update(settings))
    with pytest.raises(ModelError, match=r"config\.json") as caught:
        load_model(folder)
    assert not built
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


def test_layers_that_do_not_fit_the_weights_are_not_built(folder):
    edit_config(folder, lambda config: config["encoder"].update(num_layers=40))
    with pytest.raises(ModelError, match=r"config\.json says 40 layers of 16 units, model\.safetensors holds"):
        load_model(folder)


@pytest.mark.parametrize("name", ["config.json", "tokens.json", "confidence.json", "language/weights.json"])
def test_json_nested_too_deeply_is_one_line(folder, name):
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text("[" * 100_000 + "]" * 100_000)
    with pytest.raises(ModelError, match=name) as caught:
        load_model(folder)
    assert "\n" not in str(caught.value)


CALIBRATION = {"slope": 0.5, "offset": 0.1, "words": 10, "corpus": "valid", "error": 0.01, "raw_error": 0.1}
WEIGHTS = {
    **{"language_weight": 0.5, "word_bonus": 1.0, "unknown_cost": 8.0, "wer": 0.1, "wer_without": 0.2},
    **{"corpus": "valid", "utterances": 10, "file": "lm.bin"},
}


@pytest.mark.parametrize(
    ("name", "values", "changes"),
    [
        ("confidence.json", CALIBRATION, {"slope": ["1", None, [], float("nan"), float("inf"), 0, -1, 1e308, 10**400]}),
        ("confidence.json", CALIBRATION, {"offset": [float("nan"), True, "0"], "words": [1.5, -1], "corpus": [3]}),
        ("confidence.json", CALIBRATION, {"colour": ["red"], "error": ["big"]}),
        ("language/weights.json", WEIGHTS, {"language_weight": [float("nan"), float("inf"), "1", -1, 1e308]}),
        ("language/weights.json", WEIGHTS, {"word_bonus": [None], "unknown_cost": [{}], "utterances": ["ten"]}),
        ("language/weights.json", WEIGHTS, {"file": [5], "corpus": [None]}),
    ],
)
def test_wrong_additions_are_named(folder, name, values, changes):
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"greedy": values}))
    load_model(folder)
    for key, wrong in changes.items():
        for value in wrong:
            path.write_text(json.dumps({"greedy": {**values, key: value}}))
            with pytest.raises(ModelError, match=rf"{name}: .*{key}") as caught:
                load_model(folder)
            assert "\n" not in str(caught.value)
            assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    "content", ["{", "[1]", '{"greedy": {"slope": 1}}', '{"greedy": 3}', '{"greedy": {}, "greedy": {}}']
)
def test_damaged_additions_are_named(folder, content):
    (folder / "confidence.json").write_text(content)
    with pytest.raises(ModelError, match=r"confidence\.json: "):
        load_model(folder)


def test_a_name_of_5000_letters_is_one_line():
    for name in ("m" * 5000, "m/" * 2500, "m" * 200 + "/" + "m" * 4000):
        with pytest.raises(ModelError, match="check the path") as caught:
            load_model(name)
        assert len(str(caught.value)) < 500


def test_a_format_newer_by_one_is_refused(folder):
    edit_config(folder, lambda config: config.update(format_version=config["format_version"] + 1))
    with pytest.raises(ModelError, match="format 2; this one reads up to 1"):
        load_model(folder)


@pytest.mark.parametrize("name", ["a/../../x", "../x", "a/b", "", ".x", "/x", "x\n", "x" * 65])
def test_a_speaker_name_cannot_leave_the_folder(folder, name):
    before = sorted(folder.parent.rglob("*"))
    with pytest.raises(ConfigError, match="--speaker"):
        save_speaker(folder, name, SpeakerProfile(torch.zeros(1)))
    assert sorted(folder.parent.rglob("*")) == before


def test_calibrations_weights_and_speakers_are_saved_with_the_model(folder, tiny_model, tmp_path):
    calibration, weights = Calibration(**CALIBRATION), TunedWeights(**WEIGHTS)
    add_calibration(folder, "greedy", calibration)
    add_weights(folder, "0123", weights)
    profile = SpeakerProfile(torch.ones(tiny_model.acoustic.encoder.stack.state_shape))
    save_speaker(folder, "anna", profile)
    loaded = load_model(folder)
    save_model(tmp_path / "copy", loaded)
    for each in (loaded, load_model(tmp_path / "copy")):
        assert (each.calibrations, each.tuned) == ({"greedy": calibration}, {"0123": weights})
        stored = read_speaker(each.speakers["anna"], shape=tuple(profile.state.shape), feature_size=13)
        assert torch.equal(stored.state, profile.state)
    assert load_model(tmp_path / "copy").path == tmp_path / "copy"


@pytest.mark.parametrize(
    "state", [torch.full((2, 1, 2, 16), float("nan")), torch.zeros(2, 1, 2, 16, dtype=torch.int64)]
)
def test_an_invalid_speaker_profile_is_named(folder, state):
    path = save_speaker(folder, "anna", SpeakerProfile(state))
    with pytest.raises(ModelError, match=r"anna\.safetensors: state.*remove the file and adapt again"):
        read_speaker(path, shape=(2, 1, 2, 16), feature_size=13)


@pytest.mark.parametrize("name", ["input_dropout", "locked_dropout", "recurrent_dropout"])
def test_a_model_without_a_newer_setting_gets_its_default(folder, name):
    edit_config(folder, lambda config: config["encoder"].pop(name))
    assert getattr(load_model(folder).acoustic.encoder.config, name) == getattr(EncoderConfig(), name)


def test_the_mean_of_two_models_has_neither_calibrations_nor_speakers(tiny_model):
    stored = {"calibrations": {"greedy": Calibration(**CALIBRATION)}, "tuned": {"0123": TunedWeights(**WEIGHTS)}}
    mixed = mix_weights(replace(tiny_model, **stored), tiny_model, 0.5)
    assert (mixed.calibrations, mixed.tuned, mixed.speakers) == ({}, {}, {})


def test_a_speaker_profile_of_an_earlier_version_is_read(tmp_path):
    path = tmp_path / "anna.safetensors"
    save_file({"state": torch.ones(2, 3), "heard": torch.arange(5.0)}, path)
    profile = read_speaker(path, shape=(2, 3), feature_size=4)
    assert profile.speaker_stats.tolist() == [0.0, 1.0, 2.0, 3.0, 4.0]
