"""Streams: the transcript of the whole recording, however it is cut; endpoints; hypotheses so far."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import cut_at_random

from speechrnn.audio.resampling import resample
from speechrnn.errors import AudioError, ConfigError
from speechrnn.language.compiled import CompiledNgram
from speechrnn.language.kneser_ney import build_ngram
from speechrnn.model_folder.speakers import SpeakerProfile
from speechrnn.recognition.endpoints import EndpointConfig, EndpointDetector
from speechrnn.recognition.ensemble import Ensemble
from speechrnn.recognition.recognizer import Recognizer
from speechrnn.recognition.stream import Stream
from speechrnn.text.tokens import WordTokens
from speechrnn.types import Waveform

RATE = 8000
LANGUAGE = CompiledNgram.of(build_ngram([["the", "fox"], ["quick", "the"]], order=2))


@pytest.fixture(scope="module")
def recognizer(make_tiny_model):
    model = make_tiny_model(normalization="sliding", bidirectional=False, lookahead_frames=2)
    return Recognizer(replace(model, name="tiny"), device="cpu", backend="torch")


@pytest.fixture(scope="module")
def samples(make_recording):
    """Tones, half a second of digital silence, and tones."""
    return np.concatenate([make_recording(1.2, seed=6), np.zeros(RATE // 2, np.float32), make_recording(0.9, seed=7)])


def run(stream, samples, sizes=(80, 0, 777, 16000)):
    """What each chunk gave, and the final transcript."""
    seen = [stream.feed(piece) for piece in cut_at_random(samples, sizes)]
    return seen, stream.final()


DECODINGS = [
    {},
    {"decoder": "beam", "beam_size": 4, "nbest": 2},
    {"language_model": LANGUAGE, "beam_size": 8, "hotwords": {"fox": 4.0}},
    {"words": ["the", "quick", "fox"], "beam_size": 8},
    {"min_confidence": 0.99},
]


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(
    ("decoding", "sizes"),
    [*((each, (0, 1, 160, 4001)) for each in DECODINGS), (DECODINGS[0], (80,)), (DECODINGS[2], (16_000,))],
)
def test_a_stream_ends_with_the_transcript_of_the_whole_recording(recognizer, samples, decoding, sizes):
    expected = recognizer.transcribe(samples, sample_rate=RATE, **decoding)
    _, found = run(recognizer.stream(**decoding), samples, sizes)
    assert found.text == expected.text
    assert found.rejected == expected.rejected
    assert len(expected.text or expected.rejected) > 5
    assert [word.text for word in found.words] == [word.text for word in expected.words]
    for ours, theirs in zip(found.words, expected.words, strict=True):
        assert (ours.start, ours.end) == (theirs.start, theirs.end)
        assert ours.confidence == pytest.approx(theirs.confidence, abs=1e-4)
    assert [each.text for each in found.alternatives] == [each.text for each in expected.alternatives]
    assert (found.seconds, found.model, found.language) == (expected.seconds, "tiny", "en")


@pytest.mark.parametrize("rate", [16000, 11025])
def test_other_rates_are_resampled_without_a_seam(recognizer, make_recording, rate):
    samples = make_recording(2.0, seed=8, sample_rate=rate)
    expected = recognizer.transcribe(samples, sample_rate=rate)
    _, found = run(recognizer.stream(sample_rate=rate), samples)
    assert (found.text, found.seconds) == (expected.text, expected.seconds)
    assert found.seconds == len(resample(samples, rate, RATE)) / RATE
    assert len(found.words) > 3


def test_arrays_bytes_tensors_and_waveforms_are_the_same(recognizer, samples):
    whole = (samples * 32767).astype(np.int16)
    expected = recognizer.transcribe(whole, sample_rate=RATE).text
    kinds = [
        lambda piece: piece,
        lambda piece: piece.astype("<i2").tobytes(),
        lambda piece: bytearray(piece.astype("<i2").tobytes()),
        lambda piece: torch.from_numpy(piece.copy()),
        lambda piece: (piece / 32768).astype(np.float64),
        lambda piece: Waveform((piece / 32768).astype(np.float32), RATE),
    ]
    for convert in kinds:
        stream = recognizer.stream()
        for piece in cut_at_random(whole, [500]):
            stream.feed(convert(piece))
        assert stream.final().text == expected


def test_streams_of_one_model_do_not_disturb_each_other(recognizer, make_recording):
    recordings = [make_recording(1.5, seed=seed) for seed in (11, 12)]
    streams = [recognizer.stream() for _ in recordings]
    for pieces in zip(*(cut_at_random(each, [700]) for each in recordings), strict=True):
        for stream, piece in zip(streams, pieces, strict=True):
            stream.feed(piece)
    expected = [recognizer.transcribe(each, sample_rate=RATE).text for each in recordings]
    assert [stream.final().text for stream in streams] == expected
    assert len(set(expected)) == 2


def test_a_speakers_profile_is_used(recognizer, samples):
    shape = recognizer.model.acoustic.encoder.stack.state_shape
    profile = SpeakerProfile(torch.ones(shape))
    expected = recognizer.transcribe(samples, sample_rate=RATE, speaker=profile)
    assert run(recognizer.stream(speaker=profile), samples)[1].text == expected.text
    assert expected.text != recognizer.transcribe(samples, sample_rate=RATE).text


@pytest.mark.parametrize("decoding", [{}, {"decoder": "beam", "beam_size": 4}])
def test_stable_text_remains_and_partial_text_grows_to_the_final_one(recognizer, samples, decoding):
    seen, final = run(recognizer.stream(**decoding), samples, [400])
    stable = ""
    for partial in seen:
        words = partial.stable.split()
        assert words[: len(stable.split())] == stable.split()
        assert " ".join([*words, *partial.unstable.split()]) == partial.text
        assert [word.text for word in partial.words] == partial.text.split()
        stable = partial.stable
    assert final.text.split()[: len(stable.split())] == stable.split()
    assert len(stable.split()) >= 2
    assert [each.seconds for each in seen[:2]] == [0.05, 0.1]


def test_text_of_the_last_frames_is_not_lost(recognizer, samples):
    grown = []
    for size in (9000, 9160, 9320, 9480):
        stream = recognizer.stream()
        before, after = stream.feed(samples[:size]).text, stream.final()
        assert after.text == recognizer.transcribe(samples[:size], sample_rate=RATE).text
        assert stream.partial.text == stream.partial.stable == after.text
        assert stream.final() is after
        grown.append(len(after.text) - len(before))
    assert max(grown) > 0


def test_an_empty_stream_has_an_empty_transcript(recognizer):
    for pieces in ([], [np.zeros(0, np.float32)], [b""], [np.zeros(10, np.float32)]):
        stream = recognizer.stream(endpoints=True)
        for piece in pieces:
            assert stream.feed(piece).text == ""
        assert (stream.final().text, stream.final().words) == ("", ())


class Scripted:
    """Acoustics that give scripted rows, one for every 1,000 samples at 8 kHz."""

    def __init__(self, path, vocabulary_size):
        self.rows = torch.full((len(path), vocabulary_size), 1e-4)
        for frame, token in enumerate(path):
            self.rows[frame, token] = 1.0
        self.rows = (self.rows / self.rows.sum(-1, keepdim=True)).log()
        self.given = self.received = 0

    def feed(self, samples):
        self.received += len(samples)
        return self._give(self.received // 1000 - 1)  # one frame of delay

    def finish(self):
        return self._give(len(self.rows))

    def _give(self, end):
        rows = self.rows[self.given : max(self.given, end)]
        self.given = max(self.given, min(end, len(self.rows)))
        return rows


@pytest.fixture(scope="module")
def words_model(make_tiny_model):
    tokens = WordTokens.build(["one two three"])
    recognizer = Recognizer(make_tiny_model(tokens=tokens, normalization="sliding", bidirectional=False), device="cpu")
    recognizer.seconds_per_frame = 0.125
    return recognizer


def stream_script(recognizer, path, *, sizes=(600,), sound=None, endpoints=None):
    """Run a path of one digit a frame, 0 is the blank; the sound is a buzz unless given."""
    script = [int(digit) for digit in path]
    sound = np.tile(np.float32([0.1, -0.1]), 500 * len(script)) if sound is None else sound
    stream = Stream(
        recognizer, Scripted(script, len(recognizer.tokens)), recognizer.choose_decoder(), endpoints=endpoints
    )
    return (*run(stream, sound, sizes), stream)


def name_words(recognizer, digits):
    return " ".join(recognizer.tokens.symbols[int(digit)] for digit in digits)


RULES = EndpointConfig(silence_seconds=1.0, pause_seconds=0.5, longest_seconds=3.0)
"""8, 4 and 24 frames of the script."""


@pytest.mark.parametrize(
    ("path", "segments"),
    [
        ("1002003", ["123"]),  # no four blanks follow each other
        ("1000020000", ["1", "2"]),
        ("000000010000", ["1"]),  # seven blanks before a first word are no pause after words
        ("0" * 30 + "1", ["1"]),
        ("10203000" * 3, ["12312312", "3"]),  # at most 24 frames; the last word goes to the next segment
        ("1" * 30, ["1", "1"]),  # one word longer than a segment is cut
    ],
)
def test_endpoints_follow_the_rules(words_model, path, segments):
    for sizes in ((600,), (5000, 0, 1)):
        _, final, _ = stream_script(words_model, path, sizes=sizes, endpoints=RULES)
        assert [each.text for each in final.segments] == [name_words(words_model, each) for each in segments]
        assert final.text == name_words(words_model, "".join(segments))
        assert final.seconds == pytest.approx(len(path) * 0.125)
        starts = [word.start for word in final.words]
        assert starts == sorted(starts)


def test_times_are_those_of_the_whole_recording(words_model):
    _, final, _ = stream_script(words_model, "0010000000200", endpoints=RULES)
    peaks = [(0.25, 0.375), (1.25, 1.375)]
    for word, (start, end) in zip(final.words, peaks, strict=True):
        assert (word.start, word.end) == (start, end)  # the buzz has one level: words have the times of their peaks


def test_sound_before_a_segment_counts_for_its_first_word(words_model):
    sound = np.zeros(13_000, np.float32)
    for frame in (2, 6):  # the first word, and the frame that ends the first segment
        sound[1000 * frame : 1000 * (frame + 1)] = np.tile(np.float32([0.1, -0.1]), 500)
    _, final, _ = stream_script(words_model, "0010000200000", sound=sound, endpoints=RULES)
    assert final.text == name_words(words_model, "12")
    assert final.words[1].start == pytest.approx(0.75)
    without, _, _ = stream_script(words_model, "0010000200000", sound=sound)
    assert without[-1].text == final.text


def test_a_stream_with_endpoints_keeps_the_open_segment_only(words_model):
    path = "10200000" * 30 + "0" * 60
    _, final, stream = stream_script(words_model, path, endpoints=RULES)
    assert len(final.segments) == 30
    held = []
    script = [int(digit) for digit in path]
    stream = Stream(
        words_model, Scripted(script, len(words_model.tokens)), words_model.choose_decoder(), endpoints=RULES
    )
    for piece in cut_at_random(np.tile(np.float32([0.1, -0.1]), 500 * len(script)), [1000]):
        stream.feed(piece)
        held.append((len(stream._samples), len(stream._search.rows)))
    assert max(samples for samples, _ in held) <= (8 + 7 + 2) * 1000  # a segment, what is before it, and the delay
    assert max(rows for _, rows in held) <= 8


def test_words_so_far_cost_no_more_in_a_long_stream(words_model, monkeypatch):
    sizes = []
    words = words_model.tokens.words
    monkeypatch.setattr(words_model.tokens, "words", lambda ids: sizes.append(len(ids)) or words(ids), raising=False)
    seen, final, _ = stream_script(words_model, "1020" * 100)
    assert len(seen[-1].words) > 190
    assert len(final.words) == 200
    assert max(sizes[:-1]) < 10  # the last one is the final transcript


def test_a_word_in_digital_silence_is_left_out_of_the_partial_text_too(words_model):
    sound = np.concatenate([np.tile(np.float32([0.1, -0.1]), 2000), np.zeros(20_000, np.float32)])
    seen, final, _ = stream_script(words_model, "010000000000000200000000", sound=sound)
    assert {each.text for each in seen} == {"", name_words(words_model, "1")}
    assert final.text == name_words(words_model, "1")


def test_rejected_segments_are_named(words_model):
    script = [int(digit) for digit in "1000020000"]
    acoustics = Scripted(script, len(words_model.tokens))
    acoustics.rows[5] = torch.log_softmax(torch.tensor([0.0, 0.0, 1.0, 0.0]), -1)
    decoder = words_model.choose_decoder(min_confidence=0.9)
    stream = Stream(words_model, acoustics, decoder, endpoints=RULES)
    _, final = run(stream, np.tile(np.float32([0.1, -0.1]), 5000))
    assert (final.text, final.rejected) == (name_words(words_model, "1"), name_words(words_model, "2"))


def test_words_of_two_segments_do_not_overlap(words_model):
    sound = np.tile(np.float32([0.1, -0.1]), 15_000)
    sound[28_000:] = 0.0  # contrast, so that words extend over the sound around their peaks
    _, final, _ = stream_script(words_model, "1" * 30, sound=sound, endpoints=RULES)
    first, second = final.words
    assert first.end == second.start == 3.0


def test_a_pause_ends_a_segment_with_words_only(words_model):
    detector = EndpointDetector(RULES, 0.125)
    rows = Scripted([0] * 7 + [1] + [0] * 9, len(words_model.tokens)).rows.numpy()
    assert detector.find(rows) == (12, "pause")
    detector.reset()
    assert detector.find(rows[8:]) == (8, "silence")


def test_silence_is_what_the_blank_threshold_says():
    config = EndpointConfig(silence_seconds=0.0, pause_seconds=0.3, longest_seconds=0.0, blank_threshold=0.6)
    rows = np.log(np.array([[0.1, 0.9], [0.61, 0.39], [0.59, 0.41], [0.6, 0.4], [0.7, 0.3], [0.7, 0.3], [0.7, 0.3]]))
    detector = EndpointDetector(config, 0.1)
    assert detector.find(rows.astype(np.float32)) == (6, "pause")
    detector.reset()
    assert detector.find(rows[6:].astype(np.float32)) == (1, None)


def test_endpoint_defaults_are_those_of_sherpa_onnx():
    assert vars(EndpointConfig()) == {
        **{"silence_seconds": 2.4, "pause_seconds": 1.2, "longest_seconds": 20.0, "blank_threshold": 0.8}
    }


@pytest.mark.parametrize(
    ("piece", "message"),
    [
        (b"abc", "stream: 3 bytes, but a sample of 16-bit PCM has 2; keep the last byte for the next chunk"),
        (np.array([0.1, math.nan], np.float32), "stream: 1 samples are NaN or infinite"),
        (np.array([0.1, math.inf]), "stream: 1 samples are NaN or infinite"),
        (np.array([20000.0]), "stream: samples reach 20000, not 1; scale them"),
        (Waveform(np.zeros(8, np.float32), 16000), "stream: a chunk of 16000 Hz, but the stream has 8000 Hz"),
        (np.zeros((8, 2), np.float32), r"stream: shape \(8, 2\); give mono samples"),
        ([0.1, 0.2], "stream: expected an array, a tensor or bytes of 16-bit PCM, got list"),
        (None, "stream: expected an array, a tensor or bytes of 16-bit PCM, got NoneType"),
        (np.zeros(8, np.complex64), "stream: complex64 samples have no standard scale"),
    ],
)
def test_a_wrong_chunk_is_named_and_leaves_the_stream_as_it_was(recognizer, samples, piece, message):
    stream = recognizer.stream()
    stream.feed(samples[:9000])
    with pytest.raises(AudioError, match=f"^{message}"):
        stream.feed(piece)
    stream.feed(samples[9000:])
    assert stream.final().text == recognizer.transcribe(samples, sample_rate=RATE).text


def test_a_stream_that_has_ended_takes_nothing(recognizer, samples):
    stream = recognizer.stream()
    stream.final()
    with pytest.raises(ConfigError, match=r"^stream: feed after final, but it has ended; begin another"):
        stream.feed(samples)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"sample_rate": 0}, AudioError, "stream: sample rate 0"),
        ({"sample_rate": "fast"}, AudioError, "stream: sample rate 'fast'"),
        ({"endpoints": 1.2}, ConfigError, "endpoints: expected True or an EndpointConfig, got 1.2"),
        ({"beam": 3}, ConfigError, "beam: unknown option"),
        ({"speaker": "nobody"}, ConfigError, "speaker nobody: the model was not adapted"),
        ({"speaker": 3}, ConfigError, "speaker: expected a name or the result of estimate_speaker, got 3"),
    ],
)
def test_wrong_options_are_named(recognizer, options, error, message):
    with pytest.raises(error, match=f"^{message}"):
        recognizer.stream(**options)


def test_models_that_need_the_whole_recording_are_refused(tiny_model, recognizer):
    with pytest.raises(
        ConfigError, match=r"^stream: encoder.bidirectional true needs the whole .*encoder.bidirectional false"
    ):
        Recognizer(tiny_model, device="cpu").stream()
    with pytest.raises(ConfigError, match=r"^stream: several models together need the whole recording; give one"):
        Ensemble([recognizer, recognizer]).stream()
    with pytest.raises(ConfigError, match=r"^pause_seconds"):
        EndpointConfig(pause_seconds=-1.0)
