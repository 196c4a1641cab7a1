"""Bulk transcription without a cluster: how recordings are divided into parts, what a worker does, what is resumed."""

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from speechrnn.errors import AudioError, ConfigError
from speechrnn.model_folder import load_model
from speechrnn.recognition.output_folder import STATE_FILE
from speechrnn.recognition.part_worker import Job, make_remote, transcribe_unit
from speechrnn.recognition.parts import FAILURES_FILE, Source, Unit, describe_recording, make_units, open_parts
from speechrnn.recognition.recognizer import load


@pytest.fixture(scope="module")
def recognizer(tiny_model_folder):
    return load(str(tiny_model_folder), device="cpu")


@pytest.fixture
def calls(make_recording, tmp_path):
    """Sources of four recordings, one of which is longer than a window, and one that is damaged."""
    (tmp_path / "calls").mkdir()
    for number, seconds in enumerate((0.8, 6.5, 0.5, 1.2)):
        soundfile.write(tmp_path / "calls" / f"{number}.wav", make_recording(seconds, seed=number), 8000)
    (tmp_path / "calls" / "damaged.wav").write_bytes(b"RIFF")
    return [describe(path) for path in sorted((tmp_path / "calls").iterdir())]


def describe(path):
    return Source(path.name, str(path), **describe_recording(str(path)))


@pytest.fixture
def job(tiny_model_folder, tmp_path):
    (tmp_path / "out").mkdir()
    options = {"max_seconds": 5.0, "cut": "windows", "batch_seconds": 12.0}
    return Job(str(tiny_model_folder), str(tmp_path / "out"), ("jsonl",), options)


def run(job, sources, recognizer, *, stop_after=None, **options):
    """A run without Ray, up to some units."""
    with open_parts(Path(job.folder), sources, formats=job.formats, settings={}, **options) as folder:
        for unit in folder.units[:stop_after]:
            answer = transcribe_unit(recognizer, unit, job)
            folder.add(unit, {unit.sources[number]: reason for number, reason in answer["failed"].items()})
        if stop_after is None:
            folder.finish()
    return folder


def read_rows(job):
    return [json.loads(line) for path in sorted(Path(job.folder).glob("part-*.jsonl")) for line in path.open()]


def list_content(job):
    return {path.name: path.read_bytes() for path in Path(job.folder).iterdir()}


def make_sources(*seconds):
    return [Source(f"{number}", f"/{number}.flac", seconds=each) for number, each in enumerate(seconds)]


def test_units_hold_all_recordings_once_in_order_between_the_bounds_of_their_duration():
    rng = np.random.default_rng(0)
    sources = make_sources(*rng.uniform(1, 3000, 4000).tolist(), 90_000.0, *rng.uniform(1, 20, 9000).tolist())
    units = make_units(sources)
    assert [source for unit in units for source in unit.sources] == sources
    for unit in units:
        assert len(unit.sources) <= 5000
        assert sum(each.seconds for each in unit.sources) <= 14_400 or len(unit.sources) == 1
    for unit, following in pairwise(units):
        assert sum(each.seconds for each in (*unit.sources, following.sources[0])) > 1200 or len(unit.sources) == 5000
    assert len({unit.name for unit in units}) == len(units)


def test_a_unit_survives_json():
    unit = Unit(7, (Source("a b", "/ä\udcff.wav", 5, 2**62, 1.5, 0.25, "id"), Source("c", "/c.flac")))
    assert Unit.from_json(unit.to_json()) == unit
    assert unit.name.startswith("part-000007-")
    assert Unit(7, unit.sources[:1]).name != unit.name


def test_a_part_has_the_lines_of_json_of_one_machine_and_names_failures(recognizer, calls, job):
    folder = run(job, calls, recognizer)
    whole = [source for source in calls if source.name != "damaged.wav"]
    expected = recognizer.transcribe_many([source.path for source in whole], **job.options)
    lines = [replace(each, audio=source.name).to_json() for each, source in zip(expected, whole, strict=True)]
    [part] = [content.decode() for name, content in list_content(job).items() if name.startswith("part-")]
    assert part == "".join(lines)
    [(source, reason)] = folder.failures.items()
    assert source.name == "damaged.wav"
    with pytest.raises(AudioError) as caught:
        recognizer.transcribe(source.path)
    assert reason == str(caught.value)
    assert json.loads(list_content(job)[FAILURES_FILE]) == {"audio": "damaged.wav", "error": reason}


def test_parts_of_recordings_are_read_at_their_turn(recognizer, calls, job):
    long, damaged = calls[1], calls[4]
    spans = [replace(long, start=2.0, seconds=1.5, id="a"), replace(damaged, start=1.0, id="b"), calls[0]]
    spans += [replace(long, start=400.0, id="c"), replace(long, start=6.0, id="d")]
    answer = transcribe_unit(recognizer, Unit(0, tuple(spans)), job)
    assert sorted(answer["failed"]) == [1, 3]
    samples, rate = soundfile.read(long.path, dtype="float32")
    rows = read_rows(job)
    expected = [recognizer.transcribe(samples[2 * rate : 7 * rate // 2], sample_rate=rate).text]
    expected += [recognizer.transcribe(calls[0].path).text]
    expected += [recognizer.transcribe(samples[6 * rate :], sample_rate=rate).text]
    assert [row["text"] for row in rows] == expected
    assert [(row.get("id"), row.get("offset"), row["audio"]) for row in rows] == [
        ("a", 2.0, "1.wav"),
        (None, None, "0.wav"),
        ("d", 6.0, "1.wav"),
    ]


@pytest.fixture
def in_small_units(monkeypatch):
    monkeypatch.setattr("speechrnn.recognition.parts.LEAST_SECONDS", 1.0)
    monkeypatch.setattr("speechrnn.recognition.parts._PARTS", 10**6)


@pytest.mark.usefixtures("in_small_units")
def test_a_run_that_stopped_anywhere_is_continued_to_the_same_files(recognizer, calls, job):
    run(job, calls, recognizer)
    whole = list_content(job)
    for stop_after in range(3):
        run(job, calls, recognizer, stop_after=stop_after)  # begins again
        done = len(read_rows(job))
        folder = run(job, calls, recognizer, is_resumed=True)
        assert folder.num_done == done == len(calls) - sum(len(unit.sources) for unit in folder.units)
        content = list_content(job)
        assert {name: content[name] for name in content if name != STATE_FILE} == {
            name: whole[name] for name in whole if name != STATE_FILE
        }


@pytest.mark.usefixtures("in_small_units")
def test_a_changed_recording_is_done_again_and_nothing_is_there_twice(recognizer, calls, job, make_recording):
    run(job, calls, recognizer)
    before = {row["audio"]: row["text"] for row in read_rows(job)}
    soundfile.write(calls[3].path, make_recording(0.9, seed=9), 8000)
    soundfile.write(calls[4].path, make_recording(0.4, seed=8), 8000)  # that was damaged
    soundfile.write(Path(calls[0].path).with_name("new.wav"), make_recording(0.4, seed=7), 8000)
    changed = [describe(path) for path in sorted(Path(calls[0].path).parent.iterdir())]
    folder = run(job, changed, recognizer, is_resumed=True)
    assert {source.name for unit in folder.units for source in unit.sources} >= {"3.wav", "damaged.wav", "new.wav"}
    rows = read_rows(job)
    assert sorted(row["audio"] for row in rows) == ["0.wav", "1.wav", "2.wav", "3.wav", "damaged.wav", "new.wav"]
    after = {row["audio"]: row["text"] for row in rows}
    assert after["3.wav"] == recognizer.transcribe(calls[3].path).text != before["3.wav"]
    assert FAILURES_FILE not in list_content(job)


def test_files_that_the_state_does_not_know_and_those_of_killed_workers_are_removed(recognizer, calls, job):
    run(job, calls, recognizer)
    expected = set(list_content(job))
    for name in ("part-000009-0123456789ab.jsonl", ".part-000000-0123456789ab.jsonl.17.part", ".part-000001-x.begun"):
        Path(job.folder, name).write_text("{")
    Path(job.folder, "mine.jsonl").write_text("{}")
    run(job, calls, recognizer, is_resumed=True)
    assert set(list_content(job)) == {*expected, "mine.jsonl"}


def test_other_settings_than_before_are_refused_and_a_damaged_state_begins_again(recognizer, calls, job):
    run(job, calls[:1], recognizer)
    with (
        pytest.raises(ConfigError, match="was written with other --decoder; leave out --resume"),
        open_parts(Path(job.folder), calls[:1], formats=("jsonl",), settings={"decoder": "beam"}, is_resumed=True),
    ):
        pass
    state = Path(job.folder, STATE_FILE)
    [header, row] = state.read_text().splitlines()
    for damaged in ('{"part": "../part-000000-0123456789ab", "recordings": []}', '{"part": 3}', row[:-5], "[]"):
        state.write_text(f"{header}\n{damaged}\n")
        folder = run(job, calls[:1], recognizer, is_resumed=True)
        assert folder.num_done == 0


def test_a_unit_whose_worker_was_killed_three_times_is_given_up(recognizer, calls, job, monkeypatch):
    unit = Unit(0, tuple(calls[:1]))

    def die(*args, **options):
        raise SystemExit  # as if killed: nothing after it runs

    monkeypatch.setattr(type(recognizer), "transcribe_many", die)
    for _ in range(3):
        with pytest.raises(SystemExit):
            transcribe_unit(recognizer, unit, job)
    assert "its worker was killed 3 times" in transcribe_unit(recognizer, unit, job)["crash"]


def test_an_error_that_is_not_about_a_recording_is_reported_for_the_unit(recognizer, calls, job, monkeypatch):
    unit = Unit(0, tuple(calls[:1]))
    monkeypatch.setattr(type(recognizer), "_emit", lambda *args, **options: 1 // 0)
    assert transcribe_unit(recognizer, unit, job)["crash"].startswith("ZeroDivisionError: ")
    wrong = replace(job, options={"beam_size": -1})
    assert "beam_size" in transcribe_unit(recognizer, unit, wrong)["error"]


def test_warnings_of_a_worker_come_with_its_answer(recognizer, make_recording, job, tmp_path):
    soundfile.write(tmp_path / "mono.wav", make_recording(0.5), 8000)
    separate = replace(job, options={"channel": "separate"}, speaker_names=("Ann",))
    answer = transcribe_unit(recognizer, Unit(0, (describe(tmp_path / "mono.wav"),)), separate)
    [(_, message, is_incomplete)] = answer["log"]
    assert message.endswith("mono.wav: one channel; such recordings have no speakers")
    assert not is_incomplete


def test_a_network_that_is_computed_elsewhere_gives_the_same_transcripts(
    recognizer, calls, job, tiny_model_folder, monkeypatch
):
    monkeypatch.setattr("speechrnn.recognition.recognizer._SECONDS_BEFORE_FASTER", 0.0)  # of engines that are here
    batches = []

    def compute(*batch, **profile):
        assert all(isinstance(each, np.ndarray) for each in (*batch, *profile.values()))
        batches.append(batch[0].shape)
        emission = recognizer.emissions(*batch, **profile)
        return emission.log_probs.numpy(), emission.lengths.numpy()

    remote = make_remote(load_model(tiny_model_folder), compute)
    paths = [source.path for source in calls[:4]]
    for options in (job.options, {"decoder": "beam", "nbest": 2}):
        expected = [each.to_json() for each in recognizer.transcribe_many(paths, **options)]
        assert [each.to_json() for each in remote.transcribe_many(paths, **options)] == expected
    profile = recognizer.estimate_speaker(paths[:1])
    profile = replace(profile, state=recognizer.make_state(torch.zeros(0)) + 5.0)
    changed, usual = (recognizer.transcribe(paths[0], speaker=each).to_json() for each in (profile, None))
    assert remote.transcribe(paths[0], speaker=profile).to_json() == changed != usual
    assert max(count for count, _ in batches) > 1


def test_every_part_has_the_same_parquet_columns(recognizer, calls, job):
    parquet = pytest.importorskip("pyarrow.parquet")
    both = replace(job, formats=("jsonl", "parquet"), options={})
    units = Unit(0, tuple(calls[:1])), Unit(1, (replace(calls[2], id="u", seconds=0.3),))
    for unit in units:
        transcribe_unit(recognizer, unit, both)
    tables = [parquet.read_table(path) for path in sorted(Path(job.folder).glob("*.parquet"))]
    assert tables[0].schema == tables[1].schema
    rows = read_rows(both)
    for table, row in zip(tables, rows, strict=True):
        [found] = table.to_pylist()
        assert {name: found[name] for name in ("audio", "text", "seconds", "language")} == {
            name: row[name] for name in ("audio", "text", "seconds", "language")
        }
        assert found["segments"][0]["words"][0]["end"] == row["segments"][0]["words"][0]["end"]
    assert [table["id"].to_pylist() for table in tables] == [[None], ["u"]]
