import logging
import math
import random
import threading
import time
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
import soundfile
import torch

from speechrnn.audio.vad import VadOptions
from speechrnn.errors import AudioError, ConfigError
from speechrnn.model_folder import load_model, save_model
from speechrnn.recognition import cutters
from speechrnn.recognition.batches import choose_batch, prefetch, transcribe_pooled
from speechrnn.recognition.context import CANDIDATE_SECONDS, measure_context
from speechrnn.recognition.cutters import PauseCutter, WindowCutter
from speechrnn.recognition.cutting import CutConfig, End, Piece, Recording
from speechrnn.recognition.ensemble import Ensemble
from speechrnn.recognition.joining import Joiner
from speechrnn.recognition.longform import cut_recording, make_cutter
from speechrnn.recognition.recognizer import Recognizer, load
from speechrnn.types import Waveform

RATE = 8000


@pytest.fixture(scope="module")
def recognizer(tiny_model):
    return Recognizer(tiny_model, device="cpu", backend="torch")


@pytest.fixture(scope="module")
def long_recording(make_recording):
    return Waveform(make_recording(73.0, seed=5), RATE)


class ScriptedDetector:
    """Speech at given places, in seconds, which is certain half a second after its end."""

    speech: tuple[tuple[float, float], ...] = ()

    def __init__(self, options, rate):
        self.waiting = [(round(begin * rate), round(end * rate)) for begin, end in self.speech]
        self.rate, self.received, self.decided = rate, 0, 0

    def feed(self, samples):
        self.received += len(samples)
        return self._release(self.received - self.rate // 2)

    def flush(self):
        return self._release(self.received)

    def _release(self, certain):
        found = [each for each in self.waiting if each[1] <= certain]
        self.waiting = self.waiting[len(found) :]
        self.decided = max(self.decided, min([certain, *(begin for begin, _ in self.waiting)]))
        return found


@pytest.fixture
def script_speech(monkeypatch):
    """Voice activity detection that finds speech at the given places."""

    def script(*speech):
        monkeypatch.setattr(ScriptedDetector, "speech", speech)
        monkeypatch.setattr(cutters, "SpeechDetector", ScriptedDetector)
        for module in ("cutting", "longform"):
            monkeypatch.setattr(f"speechrnn.recognition.{module}.has_vad", lambda: True)

    return script


def draw_speech(rng, seconds):
    """Random stretches of speech, padding included."""
    found, place = [], rng.choice([0.0, rng.uniform(0, 5)])
    while True:
        end = place + rng.uniform(0.3, 26)
        if end > seconds:
            return found
        found.append((place, end))
        place = end + rng.choice([0.0, rng.uniform(0, 1), rng.uniform(1, 100)])


def cut_at_random(cutter, samples, rng):
    first = 0
    while first < len(samples):
        size = rng.randrange(1, 20 * RATE)
        yield from cutter.feed(samples[first : first + size])
        first += size
    yield from cutter.flush()


# Cutting


@pytest.mark.parametrize("seed", range(30))
@pytest.mark.parametrize("vad_filter", [False, True])
def test_pieces_and_what_is_skipped_make_up_the_recording(seed, vad_filter, script_speech):
    rng = random.Random(seed)
    seconds = rng.uniform(31, 300)
    speech = draw_speech(rng, seconds)
    script_speech(*speech)
    samples = np.arange(round(seconds * RATE), dtype=np.float32)  # exact up to 2²⁴
    step = rng.choice([None, 160])
    cutter, again = (PauseCutter(CutConfig(vad_filter=vad_filter), RATE, step=step) for _ in range(2))
    pieces = list(cut_at_random(cutter, samples, rng))
    place, covered = 0, np.zeros(len(samples), bool)
    for piece in pieces:
        assert 0 < len(piece.samples) <= 30 * RATE
        np.testing.assert_array_equal(piece.samples, samples[piece.start : piece.start + len(piece.samples)])
        first, last = piece.used or (0, len(piece.samples))
        assert piece.used is None or (first % 160 == 0 and last == len(piece.samples))
        first, last = piece.start + first, piece.start + last
        assert first >= place if vad_filter else first == place
        assert not any(begin * RATE + 1 < first < end * RATE - 1 for begin, end in speech), "a cut within speech"
        covered[first:last] = True
        place = last
    assert covered.sum() + cutter.skipped == len(samples)
    assert (cutter.skipped == 0) or vad_filter
    assert all(covered[round(begin * RATE) : round(end * RATE)].all() for begin, end in speech)
    whole = [*again.feed(samples), *again.flush()]
    assert [(each.start, len(each.samples), each.used) for each in whole] == [
        (each.start, len(each.samples), each.used) for each in pieces
    ]


@pytest.mark.parametrize(("hours", "longest"), [(None, 15.0), (1.0, 15.0), (0.1, 6.0)])
def test_pieces_are_about_as_long_as_the_utterances_of_the_training(tiny_model, script_speech, hours, longest):
    """Speech of 2 s and pauses of 0.9 s: a piece holds as much as is usual for the model."""
    script_speech(*[(at * 2.9, at * 2.9 + 2.0) for at in range(20)])
    provenance = {"training": {"hours_of_speech": hours, "utterances": 120}} if hours else {}
    recognizer = Recognizer(replace(tiny_model, provenance=provenance), device="cpu")
    cutter = make_cutter(recognizer, CutConfig())
    pieces = [*cutter.feed(np.zeros(60 * recognizer.sample_rate, np.float32)), *cutter.flush()]
    lengths = [len(piece.samples) / recognizer.sample_rate for piece in pieces[:-1]]
    assert longest - 2.9 < max(lengths[1:4]) <= longest + 0.9


@pytest.mark.parametrize("seed", range(20))
def test_used_parts_of_windows_make_up_the_recording(seed):
    rng = random.Random(seed)
    step, left = rng.choice([80, 160, 240]), rng.randrange(0, 50)
    right = rng.choice([left, 3])
    window = left + right + rng.randrange(1, 200)
    samples = np.arange(rng.randrange(1, 200_000), dtype=np.float32)
    cutter = WindowCutter(step=step, tail=256, window=window, left=left, right=right)
    pieces = list(cut_at_random(cutter, samples, rng))
    np.testing.assert_array_equal(np.concatenate([each.samples[slice(*each.used)] for each in pieces]), samples)
    for number, piece in enumerate(pieces):
        first, last = piece.used
        assert piece.start % step == first % step == 0
        assert first == min(left * step, piece.start + first)
        assert number == len(pieces) - 1 or len(piece.samples) - last == right * step + 256


@pytest.mark.parametrize(
    "encoder",
    [
        {},
        {"subsampling_factor": 3},
        {"subsampling": "convolution", "subsampling_factor": 3},
        {"subsampling": "convolution_2d", "subsampling_factor": 4},
        {"bidirectional": False, "lookahead_frames": 4},
        {"bidirectional": False, "cell": "lstm"},
    ],
)
def test_joined_log_probs_are_those_of_the_whole_recording(make_tiny_model, make_recording, encoder):
    """With layers that forget within the context, and without normalisation over the window."""
    model = make_tiny_model(**encoder)
    object.__setattr__(model.acoustic.front_end.config, "normalization", "none")
    with torch.no_grad():
        model.acoustic.front_end.dct.mul_(0.1)  # features of a normalised size
        for name, weight in model.acoustic.encoder.stack.named_parameters():
            if "weight_hh" in name:
                weight.mul_(0.2)
    recognizer = Recognizer(model, device="cpu")
    for seconds in (47.337,):
        samples = make_recording(seconds, seed=3)
        whole = recognizer.emissions(samples[None], [len(samples)])
        config = CutConfig(max_seconds=20.0, cut="windows", context_seconds=6.0)
        joined = []
        for piece in cut_recording(recognizer, None, [samples], config, nbest=1):
            if isinstance(piece, Piece):
                found = recognizer._transcribe_batch([piece], recognizer.choose_decoder(), None)
                joined.append(found[0][0])
        together = torch.from_numpy(np.concatenate(joined))
        assert len(together) == int(whole.lengths[0])
        torch.testing.assert_close(together, whole.log_probs[0], atol=1e-4, rtol=0.0)


def test_a_unidirectional_model_has_no_more_on_the_right_than_its_look_ahead(make_tiny_model):
    config = CutConfig(cut="windows", context_seconds=3.0)
    both, ahead = (
        make_cutter(Recognizer(make_tiny_model(**options), device="cpu"), config)
        for options in ({}, {"bidirectional": False, "lookahead_frames": 5})
    )
    assert (both._left, both._right) == (150, 150)  # frames of 20 ms
    assert (ahead._left, ahead._right) == (150, 6)


# Joining and decoding


@pytest.mark.parametrize("seed", range(20))
def test_stretches_hold_all_frames_and_do_not_depend_on_the_windows(seed):
    rng = np.random.default_rng(seed)
    runs = [np.full(rng.integers(1, 120), rng.integers(0, 2)) for _ in range(80)]
    best = np.concatenate(runs)
    log_probs = np.where(np.arange(2) == best[:, None], np.float32(0.0), np.float32(-5.0))
    samples = np.arange(len(best) * 160, dtype=np.float32)

    def join(cuts):
        joiner = Joiner(step=160, rate=RATE)
        for first, last in zip([0, *cuts], [*cuts, len(best)], strict=True):
            part = slice(first * 160, last * 160)
            yield from joiner.feed(Piece(None, samples[part], 0, (0, len(samples[part]))), [log_probs[first:last]])
        yield from joiner.flush()

    whole = list(join([]))
    np.testing.assert_array_equal(np.concatenate([each.samples for each in whole]), samples)
    np.testing.assert_array_equal(np.concatenate([each.log_probs[0] for each in whole]), log_probs)
    place = 0
    for each in whole:
        assert each.start == place
        place += len(each.samples)
        assert len(each.samples) <= 30 * RATE
    for end in (each.start // 160 for each in whole[1:]):  # between blanks, if there are any in 30 s
        assert best[end] == best[end - 1] == 0
    cuts = sorted(rng.choice(np.arange(1, len(best)), 15, replace=False).tolist())
    assert [(each.start, len(each.samples)) for each in join(cuts)] == [
        (each.start, len(each.samples)) for each in whole
    ]


def test_a_stretch_without_blanks_ends_at_its_greatest_length():
    joiner = Joiner(step=160, rate=RATE, most_seconds=2.0)
    log_probs = np.tile(np.float32([-9.0, 0.0]), (250, 1))
    piece = Piece(None, np.zeros(250 * 160, np.float32), 0, (0, 250 * 160))
    assert [len(each.log_probs[0]) for each in [*joiner.feed(piece, [log_probs]), *joiner.flush()]] == [100, 100, 50]


# Transcribing


@pytest.mark.parametrize("options", [{"cut": "windows"}, {"cut": "vad"}, {"vad_filter": True}])
@pytest.mark.parametrize("seed", range(4))
def test_times_are_absolute_and_in_order(recognizer, make_recording, script_speech, options, seed):
    rng = random.Random(seed)
    seconds = rng.uniform(45, 90)
    script_speech(*draw_speech(rng, seconds))
    recording = Waveform(make_recording(seconds, seed=seed), RATE)
    found = recognizer.transcribe(recording, max_seconds=rng.uniform(9, 15), **options)
    times = [time for word in found.words for time in (word.start, word.end)]
    assert times == sorted(times)
    assert 0 <= times[0] <= times[-1] <= found.seconds + 1e-9
    assert found.seconds == recording.seconds
    assert found.text == " ".join(segment.text for segment in found.segments)
    assert all((each.start, each.end) == (each.words[0].start, each.words[-1].end) for each in found.segments)


def test_words_are_where_the_piece_alone_has_them(recognizer, long_recording, script_speech):
    script_speech((0.0, 20.0), (22.0, 40.0), (41.5, 70.0))
    found = recognizer.transcribe(long_recording)
    piece = recognizer.transcribe(Waveform(long_recording.samples[22 * RATE : 40 * RATE], RATE))
    segment = next(each for each in found.segments if each.start >= 22)
    assert segment.text == piece.text
    np.testing.assert_allclose([each.start for each in segment.words], [each.start + 22 for each in piece.words])


@pytest.mark.parametrize("options", [{}, {"cut": "vad"}, {"cut": "windows"}, {"max_seconds": None}])
def test_short_recordings_are_as_without_cutting(recognizer, make_recording, script_speech, options):
    script_speech((0.0, 1.0))
    for seconds in (0.5, 12.0, 30.0):
        recording = Waveform(make_recording(seconds), RATE)
        lengths = torch.tensor([len(recording.samples)])
        [[best]] = recognizer.choose_decoder().decode(
            recognizer.emissions(recording.samples[None], lengths).log_probs,
            recognizer.emissions(recording.samples[None], lengths).lengths,
        )
        expected = recognizer.make_transcript(Recording(None, recording.samples), [best], recognizer.choose_decoder())
        assert recognizer.transcribe(recording, **options) == expected


@pytest.mark.parametrize("cut", ["vad", "windows"])
@pytest.mark.parametrize("decoding", [{}, {"decoder": "beam", "beam_size": 4}])
def test_batches_do_not_change_long_recordings(recognizer, make_recording, script_speech, cut, decoding):
    script_speech((0.0, 7.0), (9.0, 14.0), (14.2, 20.0), (33.0, 38.0))
    sources = [Waveform(make_recording(seconds, seed=3), RATE) for seconds in (40.0, 2.0, 51.0, 0.4)]
    alone = [recognizer.transcribe(each, cut=cut, max_seconds=12, **decoding) for each in sources]
    for batch_seconds in (1.0, 30.0, 500.0):
        options = {"cut": cut, "max_seconds": 12, "batch_seconds": batch_seconds, **decoding}
        together = list(recognizer.transcribe_many(iter(sources), **options))
        assert [each.text for each in together] == [each.text for each in alone]
        assert [len(each.segments) for each in together] == [len(each.segments) for each in alone]


def test_transcribed_and_skipped_are_the_duration(recognizer, long_recording, script_speech, caplog):
    script_speech((10.0, 20.0), (20.5, 25.0), (60.0, 65.0))
    with caplog.at_level(logging.INFO, logger="speechrnn"):
        found = recognizer.transcribe(long_recording, vad_filter=True)
    assert found.skipped_seconds == pytest.approx(10 + 35 + 8)
    assert found.seconds == 73.0
    assert [record.getMessage() for record in caplog.records] == [
        "recording: 20.0 s of 73.0 s transcribed, 53.0 s skipped, which are not speech"
    ]
    assert all(10 <= word.start <= 25 or 60 <= word.start <= 65 for word in found.words)
    assert recognizer.transcribe(long_recording).skipped_seconds == 0
    assert '"skipped_seconds": 53.0' in found.to_json()


def test_what_is_not_speech_is_transcribed_in_its_place(recognizer, long_recording, script_speech):
    script_speech((0.0, 10.0), (40.0, 50.0))
    starts = [word.start for word in recognizer.transcribe(long_recording).words]
    for first, last in ((1, 9), (12, 38), (41, 49), (52, 72)):
        assert any(first < start < last for start in starts)
    assert starts == sorted(starts)


def test_without_speech_the_filter_leaves_out_everything(recognizer, make_recording, script_speech):
    script_speech()
    for seconds in (3.0, 40.0):
        found = recognizer.transcribe(Waveform(make_recording(seconds), RATE), vad_filter=True)
        assert (found.text, found.segments, found.skipped_seconds, found.seconds) == ("", (), seconds, seconds)


def test_min_confidence_rejects_pieces(recognizer, long_recording, script_speech):
    script_speech((0.0, 20.0), (22.0, 40.0), (41.5, 70.0))
    every = recognizer.transcribe(long_recording)
    lowest = [min(word.confidence for word in segment.words) for segment in every.segments]
    limit = sorted(lowest)[len(lowest) // 2]
    found = recognizer.transcribe(long_recording, min_confidence=limit)
    kept = [segment.text for segment, low in zip(every.segments, lowest, strict=True) if low >= limit]
    assert [segment.text for segment in found.segments] == kept
    assert found.rejected
    assert found.text == " ".join(kept)


def test_ensembles_take_both_ways(make_tiny_model, long_recording, script_speech):
    script_speech((0.0, 20.0), (22.0, 40.0))
    pair = [Recognizer(make_tiny_model(), device="cpu") for _ in range(2)]
    ensemble = Ensemble(pair)
    for cut in ("vad", "windows"):
        assert ensemble.transcribe(long_recording, cut=cut).text == pair[0].transcribe(long_recording, cut=cut).text
    other = Recognizer(make_tiny_model(subsampling_factor=3), device="cpu")
    with pytest.raises(ConfigError, match=r"cut windows: models with 160 and 240 samples a frame .* use cut vad"):
        Ensemble([pair[0], other]).transcribe(long_recording, cut="windows")


def test_models_of_classes_and_consecutive_recordings_are_not_cut(make_tiny_model, long_recording):
    classes = Recognizer(make_tiny_model(output="final_state"), device="cpu")
    assert len(classes.transcribe(long_recording).words) <= 1
    for model, options in ((classes, {}), (Recognizer(make_tiny_model(), device="cpu"), {"are_consecutive": True})):
        [found] = model.transcribe_many([long_recording], **options)
        assert len(found.segments) <= 1
        with pytest.raises(ConfigError, match="vad_filter: "):
            list(model.transcribe_many([long_recording], vad_filter=True, **options))


def test_recordings_that_are_cut_have_no_alternatives(recognizer, long_recording, make_recording, script_speech):
    script_speech()
    options = {"decoder": "beam", "nbest": 2}
    with pytest.raises(ConfigError, match="nbest 2: recording is cut, and only whole recordings have alternatives"):
        recognizer.transcribe(long_recording, **options)
    failures = []
    sources = [long_recording, Waveform(make_recording(1.0), RATE)]
    [found] = recognizer.transcribe_many(sources, on_error=lambda *each: failures.append(each), **options)
    assert len(found.alternatives) == 2
    assert len(failures) == 1


def test_a_recording_that_ends_too_early_is_left_out_as_a_whole(recognizer, make_recording, tmp_path, script_speech):
    script_speech((0.0, 10.0), (12.0, 20.0), (22.0, 38.0))
    for name, seconds in (("cut.flac", 50.0), ("long.flac", 45.0)):
        soundfile.write(tmp_path / name, make_recording(seconds), RATE)
    content = (tmp_path / "cut.flac").read_bytes()
    (tmp_path / "cut.flac").write_bytes(content[: len(content) * 9 // 10])
    failures = []
    found = list(
        recognizer.transcribe_many(
            [tmp_path / "cut.flac", tmp_path / "long.flac"], on_error=lambda *each: failures.append(each)
        )
    )
    assert [each.audio for each in found] == [str(tmp_path / "long.flac")]
    assert found[0].text == recognizer.transcribe(tmp_path / "long.flac").text
    [(source, error)] = failures
    assert source == tmp_path / "cut.flac"
    assert isinstance(error, AudioError)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_seconds": 1}, r"max_seconds: expected a number of seconds in \[5, 3600\]"),
        ({"max_seconds": "long"}, "max_seconds: expected"),
        ({"cut": "silence"}, "cut: expected one of auto, vad, windows"),
        ({"context_seconds": -1}, "context_seconds: expected"),
        ({"vad_filter": "yes"}, "vad_filter: expected true or false"),
        ({"vad": {"threshold": 0.5}}, "vad: expected"),
        ({"vad_filter": True, "cut": "windows"}, "vad_filter: needs cut vad or auto, got windows"),
        ({"vad": VadOptions(), "cut": "windows"}, "vad: needs cut vad or auto"),
        ({"vad_filter": True, "max_seconds": None}, "vad_filter: needs max_seconds"),
        ({"cut": "windows", "context_seconds": 15}, "context_seconds: the context of both sides leaves nothing"),
        ({"vad": VadOptions(speech_pad_ms=9000), "max_seconds": 20}, "vad.speech_pad_ms: 9000 leaves no room"),
    ],
)
def test_wrong_options_are_named_in_one_line(recognizer, long_recording, options, message, script_speech):
    script_speech()
    with pytest.raises(ConfigError, match=message) as caught:
        recognizer.transcribe(long_recording, **options)
    assert "\n" not in str(caught.value)


def test_without_the_extra_windows_are_used_and_the_filter_names_it(recognizer, long_recording, monkeypatch):
    for module in ("cutting", "longform"):
        monkeypatch.setattr(f"speechrnn.recognition.{module}.has_vad", lambda: False)
    assert recognizer.transcribe(long_recording) == recognizer.transcribe(long_recording, cut="windows")
    for options in ({"vad_filter": True}, {"cut": "vad"}, {"vad": VadOptions()}):
        with pytest.raises(ConfigError, match=rf"^{next(iter(options))}: .*pip install 'speechrnn\[vad\]'$"):
            recognizer.transcribe_many([long_recording], **options)  # at the call


@pytest.mark.parametrize("cut", ["vad", "windows"])
def test_memory_does_not_grow_with_the_length(make_tiny_model, make_recording, tmp_path, script_speech, cut):
    model = make_tiny_model()
    with torch.no_grad():
        model.acoustic.head.projection.bias[0] = 1e3  # blanks only: the transcript would grow
    recognizer, block = Recognizer(model, device="cpu"), make_recording(60.0)
    script_speech(*[(second, second + 3.0) for second in range(1, 1800, 4)])
    peaks = []
    for minutes in (3, 10):
        with soundfile.SoundFile(tmp_path / "long.wav", "w", RATE, 1) as file:
            for _ in range(minutes):
                file.write(block)
        tracemalloc.start()
        [found] = recognizer.transcribe_many(
            [tmp_path / "long.wav"], cut=cut, max_seconds=6.0, context_seconds=0.5, batch_seconds=10.0
        )
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert (found.text, found.seconds) == ("", 60.0 * minutes)
    assert peaks[1] <= 1.1 * peaks[0]


# Context


@pytest.fixture
def quick_model(make_tiny_model):
    """A model that forgets quickly."""
    model = make_tiny_model()
    with torch.no_grad():
        for name, weight in model.acoustic.encoder.stack.named_parameters():
            if "weight_hh" in name:
                weight.mul_(0.5)
    return model


def test_the_context_is_the_smallest_within_the_tolerance(quick_model, make_recording, tmp_path):
    save_model(tmp_path / "model", quick_model)
    recording = Waveform(make_recording(40.0), RATE)
    recognizer = load(tmp_path / "model", device="cpu")
    found = [measure_context(recognizer, recording, tolerance=tolerance) for tolerance in (1.0, 0.01, 1e-4)]
    seconds = [each.seconds for each in found]
    assert seconds == sorted(seconds)
    assert seconds[0] < seconds[-1]
    for each in found:
        assert each.seconds in CANDIDATE_SECONDS
        assert each.change <= each.tolerance
        assert each.audio_seconds == 40.0
    kept = measure_context(recognizer, [recording], tolerance=0.01, save=True)
    for model in (recognizer, load(tmp_path / "model", device="cpu")):
        assert model.model.context == kept
        cutter = make_cutter(model, CutConfig(cut="windows"))
        assert cutter._left == math.ceil(kept.seconds * RATE / 160)
    save_model(tmp_path / "again", recognizer.model)
    assert load_model(tmp_path / "again").context == kept


def test_a_model_that_never_forgets_causes_a_warning(make_tiny_model, make_recording, caplog):
    model = make_tiny_model(cell="tanh")
    with torch.no_grad():
        for name, weight in model.acoustic.encoder.stack.named_parameters():
            if "weight_hh" in name:
                weight.mul_(2.0)  # chaotic
    recognizer = Recognizer(model, device="cpu")
    found = measure_context(recognizer, Waveform(make_recording(40.0), RATE), tolerance=1e-3)
    assert found.seconds == CANDIDATE_SECONDS[-1]
    assert "still changes log-probabilities" in caplog.text
    with pytest.raises(AudioError, match="no recording has 26 s; give a longer one"):
        measure_context(recognizer, Waveform(make_recording(5.0), RATE))


# Batches and reading ahead


def test_the_oldest_is_computed_with_those_of_similar_length():
    lengths = {3: 50, 4: 10, 6: 48, 7: 11, 9: 52, 12: 9}
    waiting = {number: Recording(None, np.zeros(length, np.float32)) for number, length in lengths.items()}
    assert choose_batch(waiting, most_samples=110) == [6, 3]  # 9, 10, 11 are 33; with 48 it would be 192
    del waiting[3]
    assert choose_batch(waiting, most_samples=110) == [12, 4, 7]


def test_results_come_in_order_and_an_error_after_all_before_it():
    rng = random.Random(0)
    lengths = [rng.randrange(1, 100) for _ in range(200)]

    def items():
        for number, length in enumerate(lengths):
            yield Recording(str(number), np.zeros(length, np.float32))
            if number % 7 == 0:
                yield End(str(number), 0.0)
        raise OSError("the disk is gone")

    sizes = []

    def compute(batch):
        sizes.append(len(batch) * max(len(each.samples) for each in batch))
        return [each.name for each in batch]

    found = []
    with pytest.raises(OSError, match="the disk is gone"):
        found.extend(transcribe_pooled(items(), compute, most_samples=300))
    assert all(result is None if isinstance(item, End) else result == item.name for item, result in found)
    found = [(int(item.name), isinstance(item, End)) for item, _ in found]
    assert found == sorted(found)
    assert len({name for name, _ in found}) == 200
    assert max(sizes) <= 300
    assert sum(sizes) < 1.15 * sum(lengths)  # little padding


def test_items_are_computed_in_a_thread_and_errors_come_after_them():
    names = []

    def items():
        for number in range(5):
            names.append(threading.current_thread().name)
            yield number
        raise ValueError("no more")

    found = []
    with pytest.raises(ValueError, match="no more"):
        found.extend(prefetch(items()))
    assert set(names) == {"speechrnn reader"}
    assert list(prefetch(iter(range(100)))) == list(range(100))


def test_the_thread_ends_when_its_user_does():
    closed = threading.Event()

    def items():
        try:
            yield from range(1000)
        finally:
            closed.set()

    found = prefetch(items(), most=3)
    assert next(found) == 0
    found.close()
    assert closed.wait(5.0)
    assert not [thread for thread in threading.enumerate() if thread.name == "speechrnn reader"]


def test_no_more_than_the_bound_waits():
    read = []

    def items():
        for number in range(100):
            read.append(number)
            yield number

    found = prefetch(items(), most=3)
    next(found)
    time.sleep(0.2)
    assert len(read) <= 5
    found.close()
