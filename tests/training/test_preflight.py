"""What stands before the first step: corpora are read once, and what is wrong with many utterances is said briefly."""

import importlib
import json
import logging
import sys
from pathlib import Path

import pytest

from speechrnn.corpus.readers import read_corpus
from speechrnn.training import preflight
from speechrnn.training.config_file import load_config
from speechrnn.training.preflight import prepare_run


def change_texts(path: Path, change) -> None:
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    lines = [{**line, "id": f"u{number}", "text": change(number, line["text"])} for number, line in enumerate(lines)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.mark.parametrize("part", ["train", "valid"])
def test_of_many_texts_with_an_unknown_letter_five_are_named_and_the_rest_counted(tone_configuration, caplog, part):
    """340 such texts made 340 warnings."""
    folder = tone_configuration.parent
    (folder / "letters.txt").write_text("\n".join("abcdefghijklmnopqrstuvwxyz "))
    change_texts(folder / f"{part}.jsonl", lambda number, text: text + "ß" if number % 3 else text)
    settings = {"tokens.kind": "characters", "tokens.alphabet": str(folder / "letters.txt")}
    count = sum(number % 3 > 0 for number in range(len(read_corpus(folder / f"{part}.jsonl"))))
    with caplog.at_level(logging.WARNING, "speechrnn"):
        found = prepare_run(load_config(tone_configuration, settings), folders=[folder])
    about = [message for message in caplog.messages if "'ß' (U+00DF)" in message]
    assert len(about) == 5
    assert f"and {count - 5} more" in caplog.text
    assert len(caplog.messages) <= 7
    assert len(found.left_out) == (count if part == "train" else 0)


def test_corpora_in_memory_are_not_read_again(tone_configuration, monkeypatch):
    config, folders = load_config(tone_configuration), [tone_configuration.parent]
    expected = prepare_run(config, folders=folders)
    corpora = {f"data.{name}": read_corpus(folders[0] / f"{name}.jsonl") for name in ("train", "valid")}
    monkeypatch.setattr(preflight, "read_corpus", lambda *arguments: pytest.fail(f"read again: {arguments}"))
    found = prepare_run(config, folders=[], corpora={name: list(corpus) for name, corpus in corpora.items()})
    assert found.fingerprint() == expected.fingerprint()
    assert (found.train, found.valid) == (expected.train, expected.valid)


@pytest.fixture
def no_package():
    """As in a process that has imported neither speechrnn nor lhotse, and cannot import lhotse."""
    own = lambda: [name for name in sys.modules if name.split(".")[0] in ("speechrnn", "lhotse")]  # noqa: E731
    before = {name: sys.modules.pop(name) for name in own()}
    sys.modules["lhotse"] = None
    yield
    for name in own():
        del sys.modules[name]
    sys.modules.update(before)


@pytest.mark.usefixtures("no_package")
def test_neither_training_nor_scoring_imports_lhotse(tone_configuration):
    for name in ("evaluation.evaluate", "evaluation.tune", "training.train", "training.data"):
        importlib.import_module(f"speechrnn.{name}")
    second = importlib.import_module("speechrnn.training.preflight")
    assert second is not preflight
    config = importlib.import_module("speechrnn.training.config_file").load_config(tone_configuration)
    assert len(second.prepare_run(config, folders=[tone_configuration.parent]).train) == 60
