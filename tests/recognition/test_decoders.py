"""Decoding options: declared once, checked in one place, accepted in Python and on the command line alike."""

import argparse
import inspect
import json
from dataclasses import fields

import numpy as np
import pytest

from speechrnn.cli.arguments import add_config_arguments, read_config
from speechrnn.errors import ConfigError
from speechrnn.evaluation.evaluate import evaluate
from speechrnn.recognition.decoders import DecodingConfig
from speechrnn.recognition.recognizer import Recognizer

NAMES = [option.name for option in fields(DecodingConfig)]


@pytest.mark.parametrize("function", [Recognizer.transcribe, Recognizer.transcribe_many, evaluate])
def test_signatures_show_every_option_with_its_default(function):
    parameters = inspect.signature(function).parameters
    assert "decoding" not in parameters
    defaults = {each.name: each.default for each in fields(DecodingConfig)}
    assert {name: parameters[name].default for name in NAMES} == defaults


def test_the_command_line_has_every_option_and_passes_it_on(tmp_path):
    parser = argparse.ArgumentParser()
    add_config_arguments(parser, DecodingConfig, "decoding")
    (tmp_path / "words.txt").write_text("one\n\n two \n")
    assert {f"--{name.replace('_', '-')}" for name in NAMES} <= set(parser._option_string_actions)
    assert read_config(parser.parse_args([]), DecodingConfig) == {}
    given = ["--words", str(tmp_path / "words.txt"), "--beam-size", "4", "--hotwords", "one:2,two", "--nbest", "3"]
    expected = {"words": ["one", "two"], "beam_size": 4, "nbest": 3, "hotwords": {"one": 2.0, "two": 6.0}}
    assert read_config(parser.parse_args(given), DecodingConfig) == expected


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"beam_size": "16"}, "beam_size: expected a whole number in \\[1, 10000\\] or null, got '16'"),
        (
            {"decoder": "beam", "beam_size": 100_000_000},
            r"beam_size: expected a whole number in \[1, 10000\] or null, got 1000",
        ),
        (
            {"decoder": "beam", "beam_size": True},
            r"beam_size: expected a whole number in \[1, 10000\] or null, got True",
        ),
        ({"beam_size": 16}, "beam_size: needs a beam search, and the decoder is greedy; choose decoder beam"),
        ({"decoder": "greedy", "nbest": 2}, "nbest: needs a beam search"),
        ({"min_confidence": float("nan")}, r"min_confidence: expected a number in \[0, 1\], got nan"),
        (
            {"language_model": "a.bin", "language_weight": float("nan")},
            r"language_weight: expected a number in \[0, 100\]",
        ),
        ({"language_model": "a.bin", "word_bonus": float("inf")}, r"word_bonus: expected a number in \[-100, 100\]"),
        ({"language_model": 3}, "language_model: expected a path or an open language model, got 3"),
        ({"hotwords": {"fox": float("nan")}}, r"hotwords: expected numbers in \[-1000, 1000\] by name or a list .*nan"),
        ({"hotwords": "fox"}, "hotwords: expected numbers .* or a list .* got 'fox'"),
        ({"hotwords": {"": 1.0}}, "hotwords: expected phrases, got ''"),
        ({"words": "fox"}, "words: expected a list .* got 'fox'"),
        ({"sentences": [3]}, r"sentences: expected a list .* got \[3\]"),
        ({"words": ["fox"], "sentences": ["fox"]}, "words: cannot be combined with sentences"),
        ({"words": ["fox"], "decoder": "beam"}, "decoder: beam allows any text; use lexicon"),
        ({"decoder": "psychic"}, "decoder: expected one of greedy, beam, lexicon or null, got 'psychic'"),
        ({"beam": 16}, "beam: unknown option; did you mean beam_size"),
        ({"x": 16}, "x: unknown option; use decoder, words, "),
    ],
)
def test_wrong_options_are_refused_by_name(tiny_model, options, message):
    with pytest.raises(ConfigError, match=message):
        Recognizer(tiny_model, device="cpu").transcribe(np.zeros(8000), sample_rate=8000, **options)


def test_a_list_of_hotwords_gets_the_default_bonus():
    assert DecodingConfig(hotwords=["fox", "quick fox"]) == DecodingConfig(hotwords={"fox": 6.0, "quick fox": 6.0})


def test_numpy_numbers_are_numbers():
    config = DecodingConfig(decoder="beam", beam_size=np.int64(4), min_confidence=np.float32(0.5))
    assert (config.width, config.min_confidence) == (4, 0.5)


def test_the_old_name_of_an_option_is_accepted(tiny_model, make_recording):
    recognizer, audio = Recognizer(tiny_model, device="cpu"), make_recording(1.0)
    old = recognizer.transcribe(audio, sample_rate=8000, least_confidence=1.0)
    assert old == recognizer.transcribe(audio, sample_rate=8000, min_confidence=1.0)
    assert json.loads(old.to_json())["rejected"]
    parser = argparse.ArgumentParser()
    add_config_arguments(parser, DecodingConfig, "decoding")
    assert read_config(parser.parse_args(["--least-confidence", "0.5"]), DecodingConfig) == {"min_confidence": 0.5}
    assert "least-confidence" not in parser.format_help()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--beam-size", "100000000"], "--beam-size: expected a whole number in [1, 10000] or null, got 100000000"),
        (["--beam-size", "16"], "--beam-size: needs a beam search, and the decoder is greedy; choose decoder beam"),
        (["--hotwords", "fox:nan"], "--hotwords: expected numbers in [-1000, 1000]"),
        (["--min-confidence", "nan"], "--min-confidence: expected a number in [0, 1], got nan"),
    ],
)
def test_the_command_line_names_the_option(given, message):
    parser = argparse.ArgumentParser()
    add_config_arguments(parser, DecodingConfig, "decoding")
    with pytest.raises(ConfigError) as caught:
        read_config(parser.parse_args(given), DecodingConfig)
    assert str(caught.value).startswith(message)
