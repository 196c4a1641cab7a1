"""What fine-tuning begins from: settings that must agree, symbols and their rows, what moves in which epoch."""

import dataclasses

import pytest
import torch

from speechrnn.errors import ConfigError, CorpusError
from speechrnn.model_folder import save_model
from speechrnn.text.sentencepiece_tokens import SentencePieceTokens
from speechrnn.text.tokens import CharacterTokens, TokensConfig, WordTokens
from speechrnn.training.config import Config, StartConfig
from speechrnn.training.start import (
    UnfreezeSchedule,
    check_start,
    count_symbols,
    make_tokens,
    propose_alphabet,
    start_from,
)

ENGLISH = ["the quick fox", "a dog"]


@pytest.fixture
def base(make_tiny_model, tmp_path):
    """A model of letters, and its folder."""
    model = make_tiny_model(tokens=CharacterTokens.build(ENGLISH), num_layers=3, initial_state="learned")
    save_model(tmp_path / "base", model)
    return model, tmp_path / "base"


def make_config(base, **settings):
    model, folder = base
    start = {"model": str(folder), **{name: settings.pop(name) for name in list(settings) if name in _START}}
    return Config(
        front_end=model.acoustic.front_end.config,
        encoder=settings.pop("encoder", model.acoustic.encoder.config),
        tokens=TokensConfig(kind=settings.pop("kind", "characters")),
        start=StartConfig(**start),
        **settings,
    )


_START = {field.name for field in dataclasses.fields(StartConfig)}


def test_front_end_encoder_and_kind_of_tokens_are_taken_from_the_model(base):
    config = make_config(base)
    check_start(base[0], config)
    other = dataclasses.replace(config.encoder, dropout=0.5, locked_dropout=True)
    check_start(base[0], make_config(base, encoder=other))  # what changes training alone may differ
    wide = dataclasses.replace(config.encoder, hidden_size=99)
    with pytest.raises(ConfigError, match=r"encoder.hidden_size: 99, but start.model \(.*base\) has 16"):
        check_start(base[0], make_config(base, encoder=wide))
    with pytest.raises(ConfigError, match="tokens.kind: words, but start.model has characters"):
        check_start(base[0], make_config(base, kind="words"))


@pytest.mark.parametrize(("alphabet", "added"), [("keep", []), ("map", []), ("extend", ["ß", "ä"]), ("replace", None)])
def test_symbols_are_kept_extended_or_replaced(base, alphabet, added):
    tokens = base[0].tokens
    made = make_tokens(tokens, make_config(base, alphabet=alphabet), ["quäk", "fuß"])
    if added is None:
        assert made.symbols == ["<blank>", *sorted(set("quäkfuß"))]
    else:
        assert made.symbols == [*tokens.symbols, *added]


def test_texts_without_a_common_symbol_are_refused_unless_replaced(base):
    for alphabet in ("keep", "extend"):
        with pytest.raises(CorpusError, match=r"share no symbol with the model: it has .*, they have ж, у, к"):
            make_tokens(base[0].tokens, make_config(base, alphabet=alphabet), ["жук"])
    assert len(make_tokens(base[0].tokens, make_config(base, alphabet="replace"), ["жук"])) == 4


def test_words_for_a_model_of_phones_are_refused(base):
    phones = WordTokens(["<blank>", "AA", "AE"])
    with pytest.raises(CorpusError, match=r"it has AA, AE, they have the, dog; .* \(phones for a model of phones\)"):
        make_tokens(phones, make_config(base), ["the dog"])


def test_sentencepiece_tokens_cannot_be_added_to(base):
    texts = ["the quick brown fox jumps over the lazy dog"] * 3
    pieces = SentencePieceTokens.build(texts, vocabulary_size=29)
    with pytest.raises(ConfigError, match="sentencepiece tokens cannot be extended"):
        make_tokens(pieces, make_config(base, alphabet="extend"), ["the fäx"])
    assert propose_alphabet(pieces, ["the fäx"])[0] == "replace"


def test_a_proposal_has_settings_and_reasons(base):
    tokens = base[0].tokens
    assert propose_alphabet(tokens, ["the dog"]) == ("keep", "the model has every symbol of these texts")
    alphabet, why = propose_alphabet(tokens, ["the dög", "the dog", "a fox", "a dog"])
    assert alphabet == "extend"
    assert why == "the model lacks ö, in 25 % of the utterances: they are added to its symbols"
    assert propose_alphabet(tokens, ["жук a"])[0] == "replace"
    known, unknown = count_symbols(tokens, ["dög ö", "dog"])
    assert (known.total(), unknown) == (5, {"ö": 2})


def test_the_model_starts_with_the_weights_of_the_other(base):
    model, _ = base
    started = start_from(model, make_config(base), model.tokens)
    for name, value in model.acoustic.state_dict().items():
        assert torch.equal(started.state_dict()[name], value)


def test_new_symbols_start_near_similar_ones_and_known_ones_are_unchanged(base, caplog):
    caplog.set_level("INFO")
    model, _ = base
    config = make_config(base, alphabet="replace")
    tokens = make_tokens(model.tokens, config, ["häx ж", "o"])
    torch.manual_seed(0)
    started = start_from(model, config, tokens).head.projection
    old = model.acoustic.head.projection
    row = {symbol: old.weight[number] for number, symbol in enumerate(model.tokens.symbols)}
    spread = float(old.weight.detach().std())
    for number, symbol in enumerate(tokens.symbols):
        near = {"ä": row["a"], "ж": old.weight[1:].mean(dim=0)}.get(symbol, row.get(symbol))
        distance = float((started.weight[number] - near).detach().abs().max())
        if symbol in "äж":
            assert 0 < distance < 0.5 * spread
        else:
            assert distance == 0
    assert started.bias[tokens.symbols.index("ä")] == old.bias[model.tokens.symbols.index("a")]
    assert "new symbols: ä near a, ж" in caplog.text


def test_another_kind_of_tokens_starts_a_new_output_layer_and_keeps_the_rest(base):
    model, _ = base
    config = make_config(base, kind="words", alphabet="replace")
    check_start(model, config)
    tokens = make_tokens(model.tokens, config, ENGLISH)
    assert (tokens.kind, tokens.symbols) == ("words", ["<blank>", "a", "dog", "fox", "quick", "the"])
    started = start_from(model, config, tokens)
    for name, value in model.acoustic.encoder.state_dict().items():
        assert torch.equal(started.encoder.state_dict()[name], value)
    # The word "a" has nothing to do with the letter.
    row = model.acoustic.head.projection.weight[model.tokens.symbols.index("a")]
    assert not torch.isclose(started.head.projection.weight[1], row).any()
    blank = [each.head.projection.weight[0] for each in (started, model.acoustic)]
    assert not torch.isclose(*blank).any()


def test_replace_is_proposed_for_another_kind_of_tokens(base):
    tokens = base[0].tokens
    alphabet, why = propose_alphabet(tokens, ["the dog"], kind="words")
    assert (alphabet, why) == ("replace", "the model has characters, asked for: words; a new output layer is trained")
    assert propose_alphabet(tokens, ["the dog"], kind="characters")[0] == "keep"


def moving(base, epoch, **settings):
    """The depths that move: 0 the output layer, 1 to 3 recurrent layers from the top, 4 the subsampling."""
    unfreezing = UnfreezeSchedule(base[0].acoustic, StartConfig(model="x", **settings))
    return {unfreezing.depths[name] for name in unfreezing.depths if unfreezing.trains(name, epoch)}


def test_depths_are_counted_from_the_top(make_tiny_model):
    acoustic = make_tiny_model(
        num_layers=2, initial_state="learned", bidirectional=False, lookahead_frames=2, subsampling="convolution"
    ).acoustic
    depths = UnfreezeSchedule(acoustic, StartConfig(model="x")).depths
    found = {
        depth: {name.split(".")[1] + name.split(".")[2] for name in depths if depths[name] == depth}
        for depth in range(4)
    }
    assert found[0] == {"projectionweight", "projectionbias"}
    assert found[1] == {"stacklayers", "stacknorms", "stackinitial_state", "lookaheadweight"}
    assert found[2] == {"stacklayers", "stacknorms"}
    assert all(name.startswith("subsampling") for name in found[3])
    assert found[3]


@pytest.mark.parametrize(
    ("settings", "by_epoch"),
    [
        ({}, [{0, 1, 2, 3, 4}] * 3),
        ({"layers": 0}, [{0}] * 3),
        ({"layers": 2}, [{0, 1, 2}] * 3),
        ({"head_epochs": 2}, [{0}, {0}, {0, 1, 2, 3, 4}]),
        ({"unfreeze_every": 1}, [{0, 1}, {0, 1, 2}, {0, 1, 2, 3}, {0, 1, 2, 3, 4}, {0, 1, 2, 3, 4}]),
        ({"unfreeze_every": 2, "head_epochs": 1, "layers": 2}, [{0}, {0, 1}, {0, 1}, {0, 1, 2}, {0, 1, 2}, {0, 1, 2}]),
    ],
)
def test_layers_are_unfrozen_in_their_epochs(make_tiny_model, settings, by_epoch):
    base = (make_tiny_model(num_layers=3, subsampling="convolution"), None)
    assert [moving(base, epoch, **settings) for epoch in range(len(by_epoch))] == by_epoch


def test_learning_rates_decrease_with_depth(base):
    unfreezing = UnfreezeSchedule(base[0].acoustic, StartConfig(model="x", layer_decay=0.5))
    assert unfreezing.factor("head.projection.weight") == 1.0
    assert unfreezing.factor("encoder.stack.norms.2.weight") == 0.5
    assert unfreezing.factor("encoder.stack.layers.0.directions.0.weight_hh_l0") == 0.125


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"layers": -1}, r"start.layers: expected a whole number in \[0, 64\] or null, got -1"),
        ({"head_epochs": -1}, "start.head_epochs"),
        ({"unfreeze_every": -2}, "start.unfreeze_every"),
        ({"layer_decay": 0.0}, r"start.layer_decay: expected a number in \(0, 1\], got 0.0"),
        ({"layer_decay": 1.5}, "start.layer_decay"),
        ({"replay_share": 1.0}, r"start.replay_share: expected a number in \(0, 1\), got 1.0"),
    ],
)
def test_impossible_settings_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        StartConfig(**settings)


def test_another_encoder_cell_is_refused(base):
    with pytest.raises(ConfigError, match="encoder.cell: lstm, but start.model"):
        check_start(
            base[0],
            make_config(base, encoder=dataclasses.replace(base[0].acoustic.encoder.config, cell="lstm")),
        )
