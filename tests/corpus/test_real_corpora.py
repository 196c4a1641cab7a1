"""Real recordings in their published layouts: checked, written in every format and read back, packed, trained on."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from speechrnn.cli.main import main
from speechrnn.corpus.readers import find_format, read_corpus
from speechrnn.training.train import train

CORPORA = {
    "speechocean762/test": "kaldi",
    "librispeech": "librispeech",
    "ljspeech": "nemo",
    "german-kerstin": "table",
}
WRITTEN = {"nemo": "part.jsonl", "table": "part.csv", "kaldi": "part", "lhotse": "part.jsonl.gz"}
COUNT = 8
TINY = {
    "encoder.hidden_size": 16,
    "encoder.num_layers": 1,
    "encoder.subsampling_factor": 2,
    "data.batch_seconds": 60,
    "data.num_workers": 0,
    "trainer.max_epochs": 1,
    "trainer.accelerator": "cpu",
}


@pytest.fixture(params=CORPORA)
def corpus(request):
    root = os.environ.get("SPEECHRNN_CORPORA")
    if not root or not (Path(root) / request.param).is_dir():
        pytest.skip(f"SPEECHRNN_CORPORA does not name a folder that holds {request.param}")
    assert find_format(Path(root) / request.param).name == CORPORA[request.param]
    return Path(root) / request.param


def test_every_format_keeps_all_utterances_and_can_be_trained_on(corpus, tmp_path, capsys):
    from speechrnn.corpus.manifest import write_manifest

    entries = read_corpus(corpus)[:COUNT]
    assert all(entry.text for entry in entries)
    write_manifest(tmp_path / "some.jsonl", entries)
    for name, written in WRITTEN.items():
        destination = tmp_path / name / written
        assert main(["corpus", "convert", str(tmp_path / "some.jsonl"), str(destination)]) == 0
        assert find_format(destination).name == name
        read = read_corpus(destination)
        assert [replace(entry, seconds=0.0) for entry in read] == [replace(entry, seconds=0.0) for entry in entries]
        assert [entry.seconds for entry in read] == pytest.approx([entry.seconds for entry in entries], abs=1e-3)
    assert main(["corpus", "pack", str(tmp_path / "some.jsonl"), str(tmp_path / "packed"), "--shard-size", "3"]) == 0
    capsys.readouterr()
    assert main(["corpus", "check", str(tmp_path / "packed"), "--json"]) in (0, 1)
    found = json.loads(capsys.readouterr().out)
    assert found["utterances"] == COUNT
    assert found["left_out"] == 0
    if corpus.name != "test":  # packed, all corpora are trained on in the same way
        return
    config = tmp_path / "config.yaml"
    config.write_text("data: {train: packed, valid: kaldi/part}\n")
    result = train(config, {**TINY, "output": str(tmp_path / "run")})
    assert (result.model / "model.safetensors").is_file()
    assert not result.left_out
