"""What a corpus takes up before the first step, and that taking up less of it changes no plan and no resumed run."""

import gc
import gzip
import hashlib
import json
import tarfile
import tracemalloc

import numpy as np
import pytest
import soundfile

from speechrnn.corpus.batches import DurationBatches, ShardedBatches
from speechrnn.corpus.check import check_corpus
from speechrnn.corpus.readers import read_corpus
from speechrnn.text.tokens import CharacterTokens
from speechrnn.training.config import DataConfig
from speechrnn.training.config_file import load_config
from speechrnn.training.data import plan_batches
from speechrnn.training.preflight import prepare_run

WORDS = 30
SHARD = 100


def make_texts(count):
    """Of random letters: nothing that a compressor could do better on than on language."""
    rng = np.random.default_rng(0)
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz"))
    words = ["".join(rng.choice(letters, rng.integers(2, 11))) for _ in range(5000)]
    return [" ".join(rng.choice(words, WORDS)) for _ in range(count)]


def write_shards(folder, count):
    """Shards as ``speechrnn corpus pack`` writes them, their recordings without bytes."""
    folder.mkdir()
    texts = make_texts(count)
    for shard in range(0, count, SHARD):
        with (
            gzip.open(folder / f"cuts.{shard:06d}.jsonl.gz", "wt", compresslevel=1) as cuts,
            tarfile.open(folder / f"recording.{shard:06d}.tar", "w") as archive,
        ):
            for number in range(shard, min(count, shard + SHARD)):
                name, samples = f"utterance-{number:08d}", 160_000 + 1600 * (number % 97)
                recording = {"sampling_rate": 16000, "num_samples": samples, "channel_ids": [0]}
                cut = {"id": name, "start": 0, "duration": samples / 16000, "recording": recording}
                supervision = {"text": texts[number], "speaker": f"s{number % 90}"}
                cuts.write(json.dumps({**cut, "supervisions": [supervision]}) + "\n")
                archive.addfile(tarfile.TarInfo(f"{name}.flac"))
                archive.addfile(tarfile.TarInfo(f"{name}.json"))
    return folder


def write_manifest(folder, count):
    folder.mkdir()
    soundfile.write(folder / "long.wav", np.zeros(16000 * 100), 16000)
    with (folder / "manifest.jsonl").open("w") as file:
        for number, text in enumerate(make_texts(count)):
            line = {"audio_filepath": "long.wav", "offset": number / 100, "duration": 10.0 + number % 7, "text": text}
            file.write(json.dumps({**line, "speaker": f"s{number % 90}"}) + "\n")
    return folder


def open_corpus(folder):
    """What training does before its first step, without a model."""
    cuts = read_corpus(folder)
    tokens = CharacterTokens.build(cut.text for cut in cuts)
    usable, left_out = check_corpus(
        cuts, tokens=tokens, normalize=str.lower, sample_rate=16000, explain_infeasible=lambda ids, samples: None
    )
    assert not left_out
    batches = plan_batches(usable, DataConfig(batch_seconds=300), seed=0, shuffle=True)
    return cuts, usable, batches, batches.plan(0)


def measure_opening(folder):
    """Bytes that there are when a corpus has been opened, and the most that there were until then.

    The least of two times: now and then the interpreter enlarges a table of its own in between.
    """
    measured = []
    for _ in range(2):
        gc.collect()
        tracemalloc.start()
        try:
            kept = open_corpus(folder)
            gc.collect()
            measured.append(tracemalloc.get_traced_memory())
        finally:
            tracemalloc.stop()
        del kept
    return np.min(measured, axis=0)


@pytest.mark.parametrize("write", [write_shards, write_manifest])
def test_an_utterance_of_thirty_words_needs_less_than_900_bytes(tmp_path, monkeypatch, write):
    """With its text and tokens, its place in an archive and in a plan, and the corpus still open; objects took 3,000.

    That is what each of some hundred more takes up; what is read at a time takes up the same in any corpus.
    """
    monkeypatch.setattr("speechrnn.corpus.readers.recordings._AT_ONCE", 50)
    open_corpus(write(tmp_path / "first", 50))  # what is imported and made once
    few, many = (measure_opening(write(tmp_path / str(count), count)) for count in (100, 300))
    now, peak = (many - few) / 200
    assert now < 800  # 650 to 700 as measured
    assert peak < 900


def test_a_plan_equals_that_of_a_plain_list(tmp_path):
    _, usable, _, plan = open_corpus(write_shards(tmp_path / "shards", 400))
    config = DataConfig(batch_seconds=300, shards_at_once=2)
    for seed in (0, 1):
        compact, listed = (plan_batches(each, config, seed=seed, shuffle=True) for each in (usable, list(usable)))
        assert isinstance(compact, ShardedBatches)
        assert [compact.plan(epoch) for epoch in range(3)] == [listed.plan(epoch) for epoch in range(3)]
    assert sorted(member for batch in plan for member in batch) == list(range(400))
    assert isinstance(plan_batches(usable, config, seed=0, shuffle=False), DurationBatches)


def test_shards_are_numbered_in_the_order_of_their_names_as_numpy_would_sort_them():
    names = ["b", "Ä", "a", "z\u0301", "B", "ab", "𝔞", "\uffee"]
    shards = [names[number % len(names)] for number in range(80)]
    batches = ShardedBatches([1.0] * 80, shards, shards_at_once=1, batch_seconds=5, seed=3)
    unique, shard_of = np.unique(np.asarray(shards), return_inverse=True)
    found = [set(members.tolist()) for members in batches.members]
    assert sorted(map(sorted, found)) == sorted(np.flatnonzero(shard_of == n).tolist() for n in range(len(unique)))
    by_rank = [unique[shard_of[members[0]]] for members in batches.members]
    ranked = ShardedBatches([1.0] * 80, [f"{n:03d}" for n in shard_of], shards_at_once=1, batch_seconds=5, seed=3)
    assert [unique[shard_of[members[0]]] for members in ranked.members] == by_rank
    assert [batches.plan(epoch) for epoch in range(2)] == [ranked.plan(epoch) for epoch in range(2)]


def test_a_run_that_began_before_utterances_were_compact_can_be_resumed(tone_configuration):
    """What its checkpoint says of the data is what is computed now: id, samples and token ids of each, in order."""
    config = load_config(tone_configuration, {"encoder.hidden_size": 8, "data.format": "nemo"})
    preflight = prepare_run(config, folders=[tone_configuration.parent])
    lines = []
    for utterance in [*preflight.train, *preflight.valid]:
        ids = preflight.tokens.encode(utterance.text)
        lines.append(f"{utterance.id}\x1f{utterance.count_samples(preflight.model.sample_rate)}\x1f{ids}\x1e")
    digest = hashlib.blake2b("".join(lines).encode(), digest_size=8).hexdigest()
    assert preflight.fingerprint() == digest
