"""Opening a corpus: what the recordings say wins over what the manifest says, and nothing wrong gets past."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from speechrnn.corpus.manifest import read_manifest
from speechrnn.corpus.readers import read_corpus
from speechrnn.errors import CorpusError


@pytest.fixture
def put(tmp_path: Path):
    """Writes a recording of so many samples and channels under the test's folder."""

    def write(name: str, samples: int = 8000, *, channels: int = 1, sample_rate: int = 8000) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(samples).normal(0, 0.1, (samples, channels))
        soundfile.write(path, noise, sample_rate)
        return path

    return write


@pytest.fixture
def corpus(tmp_path: Path):
    """Writes a manifest and opens it."""

    def read(*lines: dict | str, name: str = "train.jsonl"):
        text = "".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines)
        (tmp_path / name).write_text(text, encoding="utf-8")
        return list(read_corpus(tmp_path / name))

    return read


def entry(path: str | Path, seconds: float = 1.0, text: str = "seven", **more: object) -> dict:
    return {"audio_filepath": str(path), "duration": seconds, "text": text, **more}


def test_utterances_keep_the_manifests_order_ids_texts_and_speakers(put, corpus):
    for name in ("b.wav", "a.wav", "c.wav"):
        put(name)
    cuts = corpus(entry("b.wav", speaker="f1"), entry("a.wav", text="Three."), entry("c.wav", text="", id="quiet"))
    assert [cut.id for cut in cuts] == ["b", "a", "quiet"]
    assert [cut.text for cut in cuts] == ["seven", "Three.", ""]
    assert [cut.speaker for cut in cuts] == ["f1", None, None]


def test_a_missing_recording_is_named_with_the_first_utterance_that_needs_it(corpus):
    parts = [entry("gone.wav", id=name, offset=offset) for name, offset in (("first", 0.0), ("second", 1.0))]
    with pytest.raises(CorpusError, match="utterance first: .*gone.wav"):
        corpus(*parts)


@pytest.mark.parametrize("stated", [0.96, 1.0, 1.04])
def test_the_exact_length_replaces_a_rounded_duration(put, corpus, stated):
    put("a.wav", 8001)
    [cut] = corpus(entry("a.wav", stated))
    assert (cut.start, cut.seconds) == (0.0, 8001 / 8000)
    assert (cut.header.frames, cut.header.sample_rate) == (8001, 8000)


def test_a_much_shorter_duration_selects_the_first_part_of_the_recording(put, corpus):
    put("a.wav")
    [cut] = corpus(entry("a.wav", 0.5))
    assert (cut.start, cut.seconds) == (0.0, 0.5)


@pytest.mark.parametrize(
    ("offset", "stated", "seconds"),
    [(0.25, 0.5, 0.5), (0.25, 0.75, 0.75), (0.25, 0.79, 0.75), (0.04, 1.0, 0.96), (0.999, 0.04, 0.001)],
)
def test_a_segment_ends_where_the_recording_does(put, corpus, offset, stated, seconds):
    put("a.wav")
    [cut] = corpus(entry("a.wav", stated, offset=offset))
    assert cut.start == offset
    assert cut.seconds == pytest.approx(seconds, abs=1e-9)


@pytest.mark.parametrize(
    ("offset", "seconds", "end"), [(0.0, 1.2, "1.20"), (0.5, 0.6, "1.10"), (1.0, 0.03, "1.03"), (1.02, 0.02, "1.04")]
)
def test_a_manifest_that_claims_more_than_the_recording_has_is_refused(put, corpus, tmp_path, offset, seconds, end):
    put("a.wav")
    with pytest.raises(CorpusError) as caught:
        corpus(entry("a.wav", seconds, offset=offset, id="u7"))
    assert str(caught.value) == (
        f"{tmp_path / 'train.jsonl'}: utterance u7: listed to end at {end} s, "
        f"but {tmp_path / 'a.wav'} ends at 1.00 s; correct the times or the recording"
    )


@pytest.mark.parametrize("name", ["audio/a.wav", "../beside/a.wav"])
def test_a_relative_path_starts_at_the_manifest_in_any_working_directory(put, corpus, tmp_path, monkeypatch, name):
    manifest = tmp_path / "lists" / "train.jsonl"
    recording = put(f"lists/{name}", 4000)
    manifest.write_text(json.dumps(entry(name, 0.5)) + "\n")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    for path in (manifest, Path("../lists/train.jsonl"), str(manifest)):
        [cut] = read_corpus(path)
        assert cut.audio_path.resolve() == recording.resolve()
        assert cut.seconds == 0.5


def test_an_absolute_path_is_taken_as_it_is(put, corpus, tmp_path):
    path = put("far/a.wav")
    [cut] = corpus(entry(path))
    assert cut.audio_path == path


def test_the_length_of_a_recording_is_that_of_one_channel(put, corpus):
    put("stereo.wav", 4000, channels=2)
    [cut] = corpus(entry("stereo.wav", 0.5))
    assert cut.header.channels == 2
    assert (cut.seconds, cut.header.frames) == (0.5, 4000)


def test_a_missing_recording_is_named_with_its_utterance_and_manifest(put, corpus, tmp_path):
    put("a.wav")
    with pytest.raises(CorpusError) as caught:
        corpus(entry("a.wav"), entry("gone.wav", id="u9"), entry("gone-too.wav"))
    assert str(caught.value) == f"{tmp_path / 'train.jsonl'}: utterance u9: {tmp_path / 'gone.wav'}: no such file"


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"", "empty, 0 bytes"), (b"seven three oh one", "text"), (None, "a folder, not a recording")],
)
def test_a_file_without_sound_is_reported_with_its_utterance(corpus, tmp_path, content, reason):
    if content is None:
        (tmp_path / "a.wav").mkdir()
    else:
        (tmp_path / "a.wav").write_bytes(content)
    with pytest.raises(CorpusError, match="utterance a: ") as caught:
        corpus(entry("a.wav"))
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_corpus_may_mix_formats_and_rates(put, corpus):
    put("a.flac", 22050, sample_rate=44100)
    put("b.ogg", 8000, sample_rate=16000)
    cuts = corpus(entry("a.flac", 0.5), entry("b.ogg", 0.5))
    assert [(cut.header.sample_rate, cut.seconds) for cut in cuts] == [(44100, 0.5), (16000, 0.5)]


def test_a_folder_is_opened_by_its_manifest(put, corpus, tmp_path):
    put("a.wav")
    corpus(entry("a.wav"), name="manifest.jsonl")
    assert [cut.id for cut in read_corpus(tmp_path)] == ["a"]
    assert [cut.id for cut in read_corpus(str(tmp_path))] == ["a"]


def test_a_folder_without_a_manifest_is_refused(put, corpus, tmp_path):
    put("a.wav")
    corpus(entry("a.wav"), name="train.jsonl")
    with pytest.raises(CorpusError, match=r"no known format \(nemo: a NeMo manifest .*wav.scp"):
        read_corpus(tmp_path)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{not json", "line 2: cannot be read as JSON"),
        ("[1, 2]", "line 2: expected a JSON object"),
        ('{"audio_filepath": "a.wav", "duration": 1}', "line 2: lacks 'text'"),
    ],
)
def test_a_wrong_line_is_reported_before_recordings_are_opened(corpus, line, reason):
    with pytest.raises(CorpusError) as caught:
        corpus(entry("gone.wav"), line)
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_or_empty_manifest_is_refused(corpus, tmp_path):
    with pytest.raises(CorpusError, match="no such file or folder; check the path"):
        read_corpus(tmp_path / "gone.jsonl")
    with pytest.raises(CorpusError, match="contains no utterance"):
        corpus()


def test_each_header_is_read_once_with_any_number_of_readers(put, corpus, monkeypatch):
    from speechrnn.corpus.readers import recordings as module

    read, original = [], module.audio_info

    def note(path):
        read.append(path.stem)
        return original(path)

    monkeypatch.setattr(module, "_AT_ONCE", 2)
    monkeypatch.setattr(module, "audio_info", note)
    for number in range(3):
        put(f"{number}.wav", 8000 + number)
    order = [0, 1, 0, 2, 2, 1, 0]
    cuts = corpus(*(entry(f"{number}.wav", 0.1, offset=place / 10) for place, number in enumerate(order)))
    assert [cut.header.frames for cut in cuts] == [8000 + number for number in order]
    assert sorted(read) == ["0", "1", "2"]


def test_reading_twice_gives_the_same_corpus(put, corpus, tmp_path):
    for number in range(20):
        put(f"{number}.wav", 800 + number)
    cuts = corpus(*(entry(f"{number}.wav", 0.1) for number in range(20)))
    assert [cut.id for cut in cuts] == [str(number) for number in range(20)]
    assert [cut.header.frames for cut in cuts] == [800 + number for number in range(20)]
    assert [each.id for each in read_manifest(tmp_path / "train.jsonl")] == [cut.id for cut in cuts]
