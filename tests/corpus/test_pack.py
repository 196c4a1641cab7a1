"""Shards hold what the corpus held, lhotse reads them, and training reads them a few at a time."""

import gzip
import json
from dataclasses import replace

import numpy as np
import pytest
import soundfile

from speechrnn.audio.files import read_audio
from speechrnn.corpus.pack import pack_corpus
from speechrnn.corpus.readers import find_format, read_corpus
from speechrnn.corpus.utterance import Utterance, read_utterance
from speechrnn.errors import AudioError, ConfigError, CorpusError


@pytest.fixture
def entries(tmp_path):
    """Seven utterances, two of them in one stereo recording of 11,025 Hz."""
    found = []
    rng = np.random.default_rng(1)
    for number in range(5):
        path = tmp_path / "audio" / f"r{number}.wav"
        path.parent.mkdir(exist_ok=True)
        soundfile.write(path, rng.normal(0, 0.1, 8000 + 80 * number), 8000)
        entry = Utterance(
            f"book/u.{number}", path, f"Wört {number}", seconds=1 + number / 100, speaker=f"s{number % 2}", corpus="x"
        )
        found.append(entry)
    path = tmp_path / "audio" / "long.flac"
    soundfile.write(path, rng.normal(0, 0.1, (33075, 2)), 11025)
    found += [Utterance(f"part{part}", path, f"part {part}", seconds=1.0, start=0.5 + part) for part in range(2)]
    return found


@pytest.mark.parametrize(("encoding", "tolerance"), [("flac", 2**-15), ("wav", 2**-15), ("opus", None)])
def test_a_packed_corpus_is_read_back(tmp_path, entries, encoding, tolerance):
    packed = pack_corpus(entries, tmp_path / "shards", encoding=encoding, shard_size=3)
    assert (packed.shards, packed.utterances, packed.failed) == (3, 7, {})
    assert packed.seconds == pytest.approx(sum(entry.seconds for entry in entries), abs=1e-3)
    assert find_format(tmp_path / "shards").name == "shar"
    read = read_corpus(tmp_path / "shards")
    for before, after in zip(entries, read, strict=True):
        assert replace(before, audio_path=after.audio_path, start=0.0, seconds=after.seconds) == after
        wanted = read_audio(before.audio_path, start=before.start, seconds=before.seconds)
        got = read_audio(after.audio_path)
        assert len(got.samples) / got.sample_rate == pytest.approx(after.seconds)
        if tolerance is not None:
            assert got.sample_rate == wanted.sample_rate
            np.testing.assert_allclose(got.samples, wanted.samples, atol=tolerance)
    assert not list(tmp_path.glob(".part*"))


def test_lhotse_reads_packed_corpora(tmp_path, entries):
    from lhotse import CutSet

    pack_corpus(entries, tmp_path / "shards", shard_size=3)
    cuts = list(CutSet.from_shar(in_dir=tmp_path / "shards"))
    assert [cut.id for cut in cuts] == [entry.id for entry in entries]
    assert [cut.supervisions[0].text for cut in cuts] == [entry.text for entry in entries]
    for cut, entry in zip(cuts, entries, strict=True):
        wanted = read_audio(entry.audio_path, start=entry.start, seconds=entry.seconds).samples
        np.testing.assert_allclose(cut.load_audio()[0], wanted, atol=2**-15)


def test_shards_that_lhotse_wrote_are_read(tmp_path, entries):
    whole = entries[:5]
    cuts = make_cuts_of(tmp_path, whole)
    (tmp_path / "shards").mkdir()
    cuts.to_shar(tmp_path / "shards", fields={"recording": "wav"}, shard_size=2)
    for before, after in zip(whole, read_corpus(tmp_path / "shards"), strict=True):
        assert (after.id, after.text, after.speaker, after.corpus) == (before.id, before.text, before.speaker, "x")
        wanted = read_audio(before.audio_path).samples
        np.testing.assert_allclose(read_audio(after.audio_path).samples, wanted, atol=2**-15)


def test_one_shard_without_a_number_is_read_as_a_shard(tmp_path, entries):
    (tmp_path / "shards").mkdir()
    make_cuts_of(tmp_path, entries[:5]).to_shar(tmp_path / "shards", fields={"recording": "wav"}, shard_size=None)
    assert (tmp_path / "shards" / "cuts.jsonl.gz").is_file()
    assert find_format(tmp_path / "shards").name == "shar"
    assert [entry.id for entry in read_corpus(tmp_path / "shards")] == [entry.id for entry in entries[:5]]


def make_cuts_of(folder, entries):
    from lhotse import CutSet

    from speechrnn.corpus.manifest import write_manifest
    from speechrnn.corpus.writers import make_cut

    write_manifest(folder / "m.jsonl", entries)
    return CutSet([make_cut(each) for each in read_corpus(folder / "m.jsonl")])


def test_packed_recordings_can_be_resampled(tmp_path, entries):
    pack_corpus(entries, tmp_path / "shards", sample_rate=16000)
    for cut in read_corpus(tmp_path / "shards"):
        assert cut.header.sample_rate == 16000
        assert len(read_audio(cut.audio_path).samples) == cut.header.frames


def test_unreadable_recordings_are_reported_and_the_others_packed(tmp_path, entries):
    entries[1].audio_path.write_text("no sound")
    progress = []
    packed = pack_corpus(entries, tmp_path / "shards", advance=lambda done, total: progress.append((done, total)))
    assert list(packed.failed) == ["book/u.1"]
    assert progress == [(number, 7) for number in range(1, 8)]
    assert [entry.id for entry in read_corpus(tmp_path / "shards")] == [
        entry.id for entry in entries if entry.id != "book/u.1"
    ]


def test_packing_without_usable_recordings_leaves_no_files(tmp_path, entries):
    with pytest.raises(CorpusError, match="nothing can be packed: .*gone"):
        pack_corpus([replace(entries[0], audio_path=tmp_path / "gone.wav")], tmp_path / "shards")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["audio"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"encoding": "mp4"}, "encoding 'mp4': unknown; choose from flac, wav, opus"),
        ({"shard_size": 0}, "expected 1 utterance or more, got 0"),
        ({"sample_rate": 0}, "expected Hz above 0, got 0"),
        ({"folder": "audio"}, "audio: exists already"),
        ({"folder": "a%b"}, "choose a path without it"),
    ],
)
def test_wrong_requests_are_refused_before_anything_is_written(tmp_path, entries, settings, message):
    folder = tmp_path / settings.pop("folder", "shards")
    with pytest.raises(ConfigError, match=message):
        pack_corpus(entries, folder, **settings)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["audio"]


def test_a_broken_shard_loses_only_its_own_utterances(tmp_path, entries):
    pack_corpus(entries, tmp_path / "shards", shard_size=3)
    broken = tmp_path / "shards" / "recording.000001.tar"
    broken.write_bytes(b"\xff" * broken.stat().st_size)
    failed = []
    for entry in read_corpus(tmp_path / "shards"):
        try:
            read_audio(entry.audio_path)
        except AudioError as error:
            failed.append((entry.id, "recording.000001.tar" in str(error)))
    assert failed == [(entry.id, True) for entry in entries[3:6]]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda record: record.pop("recording"), "line 2: not a cut with one recording and one supervision"),
        (lambda record: record["supervisions"].append({}), "line 2: not a cut"),
        (lambda record: record.update(duration="long"), "line 2: not a cut"),
    ],
)
def test_faults_of_cuts_are_reported_with_their_line(tmp_path, entries, spoil, message):
    pack_corpus(entries, tmp_path / "shards")
    path = tmp_path / "shards" / "cuts.000000.jsonl.gz"
    with gzip.open(path, "rt", encoding="utf-8") as file:
        records = [json.loads(line) for line in file]
    spoil(records[1])
    with gzip.open(path, "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(record) + "\n" for record in records)
    with pytest.raises(CorpusError, match=message):
        read_corpus(tmp_path / "shards")
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(CorpusError, match=r"cuts\.000000\.jsonl\.gz: the file of cuts cannot be read"):
        read_corpus(tmp_path / "shards")


def test_training_on_shards_gets_the_same_audio_and_opens_few_shards(tmp_path, tone_run):
    from speechrnn.corpus.batches import ShardedBatches
    from speechrnn.training.config import DataConfig
    from speechrnn.training.config_file import load_config
    from speechrnn.training.data import plan_batches
    from speechrnn.training.preflight import prepare_run

    loose = read_corpus(tone_run.folder / "train.jsonl")
    pack_corpus(loose, tmp_path / "shards", shard_size=10)
    config = load_config(
        tone_run.folder / "config.yaml", {"data.train": str(tmp_path / "shards"), "front_end.sample_rate": 8000}
    )
    preflight = prepare_run(config, folders=[tone_run.folder])
    assert len(preflight.train) == 60
    for utterance, entry in zip(preflight.train, loose, strict=True):
        np.testing.assert_allclose(
            read_utterance(utterance, sample_rate=8000).samples, read_audio(entry.audio_path).samples, atol=2**-15
        )
    batches = plan_batches(preflight.train, DataConfig(batch_seconds=8, shards_at_once=2), seed=0, shuffle=True)
    assert isinstance(batches, ShardedBatches)
    assert len(batches.parts) == 3
    mixed = [*preflight.train, *preflight.valid]  # validation lies in files
    assert not isinstance(plan_batches(mixed, DataConfig(), seed=0, shuffle=True), ShardedBatches)
    assert not isinstance(plan_batches(preflight.train, DataConfig(), seed=0, shuffle=False), ShardedBatches)
