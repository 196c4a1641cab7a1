import io
import logging

import numpy as np
import pytest
import soundfile

from speechrnn.errors import AudioError, ConfigError
from speechrnn.recognition.channels import merge_channels
from speechrnn.recognition.recognizer import load
from speechrnn.recognition.transcript import Segment, Transcript, Word


@pytest.fixture(scope="module")
def recognizer(tiny_model_folder):
    return load(str(tiny_model_folder), device="cpu")


@pytest.fixture
def call(make_recording, tmp_path):
    """A recording with another sound on each channel."""
    sound = np.stack([make_recording(2.0, seed=1), make_recording(2.0, seed=2)], axis=1)
    soundfile.write(tmp_path / "call.wav", sound, 8000)
    return tmp_path / "call.wav"


def make_transcript(*segments, seconds=20.0):
    """Segments of words (text, start, end)."""
    made = []
    for words in segments:
        spoken = tuple(Word(*word, 0.5) for word in words)
        made.append(Segment(spoken[0].start, spoken[-1].end, " ".join(word.text for word in spoken), spoken))
    return Transcript(" ".join(segment.text for segment in made), tuple(made), seconds)


def list_words(segments):
    """Without confidences: their last digits depend on the batch."""
    return [(word.text, word.start, word.end) for segment in segments for word in segment.words]


def list_turns(transcript):
    return [(segment.speaker, segment.text, segment.start, segment.end) for segment in transcript.segments]


def test_turns_are_cut_where_the_other_channel_speaks_in_a_pause():
    first = make_transcript([("hi", 0.0, 0.5), ("ben", 0.6, 1.0), ("fine", 3.0, 3.5)], [("bye", 6.0, 6.5)])
    second = make_transcript([("hello", 1.2, 1.6), ("how", 1.7, 1.9), ("good", 4.0, 4.5)])
    merged = merge_channels([first, second])
    assert list_turns(merged) == [
        ("Channel 1", "hi ben", 0.0, 1.0),
        ("Channel 2", "hello how", 1.2, 1.9),
        ("Channel 1", "fine", 3.0, 3.5),
        ("Channel 2", "good", 4.0, 4.5),
        ("Channel 1", "bye", 6.0, 6.5),
    ]
    assert merged.text == "hi ben hello how fine good bye"
    assert merged.speakers == ("Channel 1", "Channel 2")


def test_a_pause_without_other_speakers_does_not_cut_a_segment():
    first = make_transcript([("hi", 0.0, 0.5), ("ben", 3.0, 3.5)])
    assert list_turns(merge_channels([first, make_transcript()])) == [("Channel 1", "hi ben", 0.0, 3.5)]
    assert merge_channels([make_transcript(), make_transcript()], names=["Ann", "Ben"]).speakers == ("Ann", "Ben")


def test_words_said_at_the_same_time_stay_with_their_sentences():
    first = make_transcript([("one", 0.0, 0.5), ("two", 0.6, 1.0), ("three", 1.1, 1.5)])
    second = make_transcript([("yes", 0.7, 0.9)])
    assert [turn[1] for turn in list_turns(merge_channels([first, second]))] == ["one two three", "yes"]


@pytest.mark.parametrize("seed", range(10))
def test_merging_keeps_every_word_once_and_segments_in_order(seed):
    rng = np.random.default_rng(seed)
    channels = []
    for name in ("a", "b", "c"):
        ends = np.cumsum(rng.exponential(0.5, 40)).tolist()
        words = [(f"{name}{n}", ends[2 * n], ends[2 * n + 1]) for n in range(20)]
        channels.append(make_transcript(*[words[n : n + 7] for n in range(0, 20, 7)]))
    merged = merge_channels(channels)
    starts = [segment.start for segment in merged.segments]
    assert starts == sorted(starts)
    for name, channel in zip(merged.speakers, channels, strict=True):
        mine = [word for segment in merged.segments if segment.speaker == name for word in segment.words]
        assert mine == list(channel.words)


def test_separate_channels_are_those_transcribed_one_by_one(recognizer, call):
    merged = recognizer.transcribe(call, channel="separate")
    for number in range(2):
        alone = recognizer.transcribe(call, channel=number)
        mine = [each for each in merged.segments if each.speaker == f"Channel {number + 1}"]
        assert list_words(mine) == list_words(alone.segments)
    assert (merged.audio, merged.seconds) == (str(call), 2.0)
    assert recognizer.transcribe(call, channel="mix") == recognizer.transcribe(call)


def test_every_kind_of_source_has_channels(recognizer, call, tmp_path):
    expected = list_words(recognizer.transcribe(call, channel="separate").segments)
    samples, rate = soundfile.read(call, dtype="float32")
    for source in (call.read_bytes(), io.BytesIO(call.read_bytes()), io.BufferedReader(Unseekable(call))):
        made = recognizer.transcribe(source, channel="separate")
        assert (list_words(made.segments), made.audio) == (expected, None)
    made = recognizer.transcribe(samples, sample_rate=rate, channel="separate")
    assert list_words(made.segments) == expected


class Unseekable(io.FileIO):
    def seekable(self):
        return False

    def seek(self, *arguments):
        raise OSError("not seekable")


@pytest.mark.parametrize(("kind", "subtype"), [("WAV", "PCM_16"), ("OGG", "OPUS"), ("MP3", "MPEG_LAYER_III")])
def test_identical_channels_are_transcribed_once(recognizer, make_recording, tmp_path, caplog, kind, subtype):
    sound = make_recording(1.0)
    path = tmp_path / f"mono.{kind.lower()}"
    soundfile.write(path, np.stack([sound, sound], axis=1), 8000, format=kind, subtype=subtype)
    made = recognizer.transcribe(path, channel="separate")
    assert made.speakers == ()
    assert list_words(made.segments) == list_words(recognizer.transcribe(path, channel=0).segments)
    assert [record.message for record in caplog.records] == [f"{path}: 2 identical channels; transcribed once"]


def test_channels_that_differ_a_little_are_speakers(recognizer, make_recording, tmp_path):
    sound, whisper = make_recording(1.0), 0.02 * make_recording(1.0, seed=1)
    soundfile.write(tmp_path / "a.wav", np.stack([sound, sound + whisper], axis=1), 8000)
    assert recognizer.transcribe(tmp_path / "a.wav", channel="separate").speakers == ("Channel 1", "Channel 2")


def test_one_channel_is_told_once_and_has_no_speakers(recognizer, make_recording, call, tmp_path, caplog):
    paths = []
    for seed in range(2):
        paths.append(tmp_path / f"{seed}.wav")
        soundfile.write(paths[-1], make_recording(1.0, seed=seed), 8000)
    first, middle, last = recognizer.transcribe_many([paths[0], call, paths[1]], channel="separate")
    assert [first.text, last.text] == [recognizer.transcribe(path).text for path in paths]
    assert not first.speakers
    assert len(middle.speakers) == 2
    messages = [record.message for record in caplog.records if record.levelno >= logging.WARNING]
    assert messages == [f"{paths[0]}: one channel; such recordings have no speakers"]


def test_a_recording_that_fails_is_reported_once_and_the_others_keep_their_order(recognizer, call, tmp_path):
    broken, short = tmp_path / "broken.wav", tmp_path / "short.wav"
    broken.write_text("not a recording")
    soundfile.write(short, np.random.default_rng(1).normal(0, 0.1, (100, 2)), 8000)
    failed = []
    sources = [broken, call, short, str(call), io.BytesIO(b"")]
    made = list(
        recognizer.transcribe_many(
            sources, channel="separate", on_error=lambda source, error: failed.append((source, str(error)))
        )
    )
    assert [each.audio for each in made] == [str(call), str(call)]
    assert [source for source, _ in failed] == [broken, short, sources[-1]]
    assert "0.0125 s is too short" in failed[1][1]
    assert "empty, 0 bytes" in failed[2][1]
    with pytest.raises(AudioError, match="broken.wav: "):
        recognizer.transcribe(broken, channel="separate")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"are_consecutive": True}, "are_consecutive: cannot be combined with separate channels"),
        ({"decoder": "beam", "nbest": 2}, "nbest: cannot be combined with separate channels"),
    ],
)
def test_what_does_not_fit_separate_channels_is_refused(recognizer, call, options, message):
    with pytest.raises(ConfigError, match=message):
        recognizer.transcribe_many([call], channel="separate", **options)


def test_separate_channels_are_transcribed_lazily(recognizer, call):
    read = []

    def sources():
        for number in range(50):
            read.append(number)
            yield str(call)

    transcripts = recognizer.transcribe_many(sources(), channel="separate", batch_seconds=2.0)
    assert read == []
    assert len(next(transcripts).speakers) == 2
    transcripts.close()
    assert len(read) <= 10  # four batches of one channel, what the reading thread has ready, and what it is at
