"""A precision that is slower on a CPU is named."""

import logging
from dataclasses import replace

import pytest

from speechrnn.acoustic.encoder import EncoderConfig
from speechrnn.training.config import Config
from speechrnn.training.trainer import _warn_of_precision


@pytest.mark.parametrize(
    ("cell", "options", "is_named"),
    [
        ("gru", {"precision": "bf16-mixed", "accelerator": "cpu"}, True),
        ("lstm", {"precision": "bf16-mixed", "accelerator": "cpu"}, False),
        ("gru", {"accelerator": "cpu"}, False),
        ("gru", {"precision": "bf16-mixed", "accelerator": "gpu"}, False),
    ],
)
def test_bfloat16_for_a_gru_on_a_cpu_is_warned_of(cell, options, is_named, caplog):
    with caplog.at_level(logging.WARNING, "speechrnn"):
        _warn_of_precision(replace(Config(), encoder=EncoderConfig(cell=cell)), options)
    assert [each.getMessage() for each in caplog.records] == is_named * [
        "trainer.precision: bf16-mixed is slower than 32-true for a GRU on a CPU; use 32-true"
    ]
