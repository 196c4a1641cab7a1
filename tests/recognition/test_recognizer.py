import io
import json
import math
import sys
import types
from dataclasses import replace

import numpy as np
import pytest
import soundfile
import torch

import speechrnn
from speechrnn.acoustic.encoder import EncoderConfig
from speechrnn.errors import AudioError, ConfigError, ModelError
from speechrnn.model_folder import ModelFolder
from speechrnn.recognition.recognizer import Recognizer, load
from speechrnn.types import Emission, Waveform

SECONDS = (0.5, 2.0, 1.3, 0.2, 3.0, 1.0)


@pytest.fixture(scope="module")
def recognizer(tiny_model):
    return Recognizer(replace(tiny_model, name="tiny"), device="cpu", backend="torch")


@pytest.fixture(scope="module")
def recordings(make_recording):
    return [Waveform(make_recording(seconds, seed=seed), 8000) for seed, seconds in enumerate(SECONDS)]


@pytest.fixture
def wav(make_recording, tmp_path):
    path = tmp_path / "tones.wav"
    soundfile.write(path, make_recording(1.5, seed=4), 8000, subtype="FLOAT")
    return path


def make_buzz(num_samples):
    """Sound of one level throughout, (N,), float32."""
    return np.tile(np.float32([0.1, -0.1]), num_samples // 2)


class Scripted(torch.nn.Module):
    """An acoustic model that says a given path of tokens, one frame every 1,000 samples at 8 kHz."""

    sample_rate = 8000
    seconds_per_frame = 0.125
    encoder = types.SimpleNamespace(config=EncoderConfig())

    def __init__(self, path, probabilities):
        super().__init__()
        self.path, self.probabilities = path, probabilities

    def count_frames(self, num_samples):
        return -(-num_samples // 1000)

    def forward(self, waveforms, lengths, **state):
        log_probs = torch.full((1, len(self.path), 13), 1e-4)
        for frame, (token, probability) in enumerate(zip(self.path, self.probabilities, strict=True)):
            log_probs[0, frame, token] = probability
        return Emission(log_probs.log(), torch.tensor([len(self.path)]))


@pytest.mark.parametrize("batch_seconds", [0.1, 3.0, 7.0, 1000.0])
def test_text_does_not_depend_on_the_batch(recognizer, recordings, batch_seconds):
    alone = [recognizer.transcribe(recording) for recording in recordings]
    together = list(recognizer.transcribe_many(recordings, batch_seconds=batch_seconds))
    assert len({transcript.text for transcript in alone}) == len(alone)
    assert [transcript.text for transcript in together] == [transcript.text for transcript in alone]
    for transcript, expected in zip(together, alone, strict=True):
        assert [(w.start, w.end) for w in transcript.words] == [(w.start, w.end) for w in expected.words]
        confidences = [word.confidence for word in expected.words]
        assert [word.confidence for word in transcript.words] == pytest.approx(confidences, abs=1e-4)


def test_batches_keep_to_their_budget_of_padded_seconds(recognizer, recordings, monkeypatch):
    shapes = []
    emissions = recognizer.emissions
    monkeypatch.setattr(recognizer, "emissions", lambda w, n, **state: shapes.append(tuple(w.shape)) or emissions(w, n))
    list(recognizer.transcribe_many([*recordings, recordings[0]], batch_seconds=4.0))
    # By length 0.2, 0.5, 0.5 and 1.0, padded, are 4.0; with 1.3 it would be 6.5. 1.3 and 2.0 are 4.0. 3.0 goes alone.
    assert shapes == [(4, 8000), (2, 16000), (1, 24000)]


def test_transcribing_is_lazy(recognizer, recordings):
    read = []

    def sources():
        for number in range(100):
            read.append(number)
            yield recordings[0]

    transcripts = recognizer.transcribe_many(sources(), batch_seconds=0.5)
    assert read == []
    next(transcripts)
    transcripts.close()
    assert 4 <= len(read) <= 4 + 8 + 2  # four batches, what the thread has ready, and what it is at


def test_path_bytes_file_and_array_give_the_same_text(recognizer, wav, make_recording):
    samples = make_recording(1.5, seed=4)
    expected = recognizer.transcribe(wav)
    assert expected.words
    for source in (str(wav), wav.read_bytes(), io.BytesIO(wav.read_bytes()), Waveform(samples, 8000)):
        assert recognizer.transcribe(source).text == expected.text
    for array in (samples, torch.from_numpy(samples)):
        assert recognizer.transcribe(array, sample_rate=8000).text == expected.text
    assert (expected.audio, expected.model, expected.language, expected.seconds) == (str(wav), "tiny", "en", 1.5)


def test_other_rates_are_resampled_and_times_stay_seconds(recognizer, make_recording, monkeypatch):
    samples = make_recording(1.5, seed=4, sample_rate=44100)
    transcript = recognizer.transcribe(samples, sample_rate=44100)
    assert transcript.seconds == pytest.approx(1.5, abs=1e-3)
    assert 1.0 < transcript.words[-1].end <= transcript.seconds


def test_the_requested_channel_is_transcribed(recognizer, make_recording):
    left, right = make_recording(1.0, seed=1), make_recording(1.0, seed=2)
    both = np.stack([left, right])
    texts = [recognizer.transcribe(both, sample_rate=8000, channel=channel).text for channel in (0, 1)]
    assert texts == [recognizer.transcribe(samples, sample_rate=8000).text for samples in (left, right)]
    with pytest.raises(AudioError, match="no channel 2"):
        recognizer.transcribe(both, sample_rate=8000, channel=2)


def test_word_times_and_confidences_by_hand(tiny_model):
    ids = {symbol: number for number, symbol in enumerate(tiny_model.tokens.symbols)}
    spelled = [None, "t", "t", None, "h", "e", " ", " ", None, "f", "o", "x", "x"]
    path = [0 if symbol is None else ids[symbol] for symbol in spelled]
    probabilities = [0.9, 0.5, 0.8, 0.9, 0.4, 0.9, 0.7, 0.7, 0.9, 1.0, 0.6, 0.3, 0.2]
    model = ModelFolder(Scripted(path, probabilities), tiny_model.tokens, tiny_model.text, {})
    transcript = Recognizer(model, device="cpu").transcribe(make_buzz(12500), sample_rate=8000)
    assert transcript.text == "the fox"
    the, fox = transcript.words
    assert (the.start, the.end) == (0.125, 0.75)  # frames 1 to 5
    assert (fox.start, fox.end) == (1.125, 1.5625)  # frames 9 to 12, cut at the recording's end
    assert the.confidence == pytest.approx((0.8 * 0.4 * 0.9) ** (1 / 3), abs=1e-4)
    assert fox.confidence == pytest.approx((1.0 * 0.6 * 0.3) ** (1 / 3), abs=1e-4)
    [segment] = transcript.segments
    assert (segment.start, segment.end, segment.text, segment.words) == (0.125, 1.5625, "the fox", (the, fox))
    assert (transcript.language, transcript.model, transcript.audio) == (None, None, None)


def test_words_are_in_order_and_within_the_recording(recognizer, recordings):
    for transcript in recognizer.transcribe_many(recordings):
        times = [time for word in transcript.words for time in (word.start, word.end)]
        assert times == sorted(times)
        assert times[0] >= 0.0
        assert times[-1] <= transcript.seconds
        assert " ".join(word.text for word in transcript.words) == transcript.text
        assert all(0.0 < word.confidence <= 1.0 for word in transcript.words)


def test_no_words_give_an_empty_transcript(tiny_model):
    model = ModelFolder(Scripted([0, 0], [0.9, 0.9]), tiny_model.tokens, tiny_model.text, {})
    transcript = Recognizer(model, device="cpu").transcribe(make_buzz(2000), sample_rate=8000)
    assert (transcript.text, transcript.segments, transcript.words, transcript.seconds) == ("", (), (), 0.25)


def test_emissions_equal_those_of_the_acoustic_model(recognizer, tiny_model, recordings):
    lengths = torch.tensor([len(recording.samples) for recording in recordings[:2]])
    waveforms = torch.zeros(2, int(lengths.max()))
    for row, recording in zip(waveforms, recordings, strict=False):
        row[: len(recording.samples)] = torch.from_numpy(recording.samples)
    emission = recognizer.emissions(waveforms, lengths)
    expected = tiny_model.acoustic(waveforms, lengths)
    assert torch.equal(emission.log_probs, expected.log_probs)
    assert torch.equal(emission.lengths, expected.lengths)
    assert not emission.log_probs.requires_grad


# What can be wrong


def test_an_array_without_sample_rate_is_refused(recognizer, make_recording):
    with pytest.raises(AudioError, match="sample_rate=16000"):
        recognizer.transcribe(make_recording(1.0))


@pytest.mark.parametrize("rate", [0, -8000])
def test_rate_must_be_positive(recognizer, make_recording, rate):
    with pytest.raises(AudioError, match="give a whole number of Hz from 1000"):
        recognizer.transcribe(make_recording(1.0), sample_rate=rate)


def test_a_recording_that_is_too_short_is_refused_with_the_least_length(recognizer, tiny_model, make_recording):
    window = tiny_model.acoustic.front_end.config.window_length
    assert recognizer.transcribe(make_recording(1.0)[:window], sample_rate=8000).seconds == window / 8000
    with pytest.raises(AudioError, match=rf"recording: {(window - 1) / 8000:.4f} s .* at least {window / 8000:.4f} s"):
        recognizer.transcribe(make_recording(1.0)[: window - 1], sample_rate=8000)


def test_an_unknown_decoder_is_refused_with_the_known_ones(recognizer, recordings):
    with pytest.raises(ConfigError, match="greedy.*'psychic'"):
        recognizer.transcribe(recordings[0], decoder="psychic")
    with pytest.raises(ConfigError, match="'psychic'"):
        recognizer.transcribe_many(recordings, decoder="psychic")  # at the call, not at the first result


@pytest.mark.parametrize("batch_seconds", [0.0, -1.0, math.nan])
def test_batch_budget_must_be_positive(recognizer, recordings, batch_seconds):
    with pytest.raises(ConfigError, match="batch_seconds"):
        recognizer.transcribe_many(recordings, batch_seconds=batch_seconds)


@pytest.mark.parametrize("source", ["a.wav", b"RIFF", np.zeros(10, np.float32), torch.zeros(10)])
def test_one_recording_is_not_many(recognizer, source):
    with pytest.raises(ConfigError, match="as a list"):
        recognizer.transcribe_many(source)


def test_a_failing_file_comes_after_all_before_it(recognizer, recordings, tmp_path):
    transcripts = recognizer.transcribe_many([recordings[0], recordings[1], tmp_path / "no.wav", recordings[2]])
    texts = [next(transcripts).text, next(transcripts).text]
    assert texts == [recognizer.transcribe(recording).text for recording in recordings[:2]]
    with pytest.raises(AudioError, match=r"no\.wav: no such file"):
        next(transcripts)


def test_failing_files_are_reported_and_the_others_transcribed(recognizer, recordings, tmp_path):
    missing, short = tmp_path / "no.wav", Waveform(np.full(3, 0.1, np.float32), 8000)
    failures = []
    transcripts = recognizer.transcribe_many(
        [missing, recordings[0], short, recordings[1]],
        on_error=lambda source, error: failures.append((source, str(error))),
    )
    assert [t.text for t in transcripts] == [recognizer.transcribe(recording).text for recording in recordings[:2]]
    assert [source for source, _ in failures] == [missing, short]
    assert "no such file" in failures[0][1]
    assert "too short" in failures[1][1]


@pytest.mark.parametrize(
    "device",
    ["gpu", "", "tpu0", "mps", "xpu", "meta", "cpu:1", "cuda:", "cuda:x", "cuda:99999999999999999999", 3, None],
)
def test_an_unknown_device_is_named(tiny_model, device):
    with pytest.raises(ConfigError, match="expected auto, cpu, cuda or cuda:N"):
        Recognizer(tiny_model, device=device)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA GPU")
def test_cuda_without_a_gpu_is_refused(tiny_model):
    with pytest.raises(ConfigError, match="finds 0 CUDA GPUs"):
        Recognizer(tiny_model, device="cuda")


# Loading


def test_load_from_the_package_takes_a_folder(tiny_model_folder, recognizer, recordings):
    loaded = speechrnn.load(str(tiny_model_folder), device="cpu")
    assert isinstance(loaded, speechrnn.Recognizer)
    transcript = loaded.transcribe(recordings[1])
    assert transcript.text == recognizer.transcribe(recordings[1]).text
    assert transcript.model == str(tiny_model_folder)
    assert (loaded.sample_rate, loaded.num_parameters) == (8000, recognizer.num_parameters)


@pytest.mark.parametrize("name", ["/no/such/folder", "./owner/name", "name", "a/b/c", "~/no-such"])
def test_what_is_not_a_hub_id_is_not_looked_up_on_the_hub(name, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ModelError, match="there is no such model folder, and this is not a Hugging Face Hub id"):
        load(name)


def test_a_mistyped_path_is_not_looked_up_on_the_hub(tmp_path, monkeypatch):
    (tmp_path / "runs").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match="runs/modle: there is no such model folder in runs"):
        load("runs/modle")


def test_hub_id_without_the_extra_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ModelError, match=r"owner/name: .*pip install 'speechrnn\[hub\]'"):
        load("owner/name")


def test_only_the_model_of_a_hub_id_is_downloaded(tiny_model_folder, monkeypatch):
    asked = []

    def snapshot_download(hub_id, *, allow_patterns):
        asked.append((hub_id, allow_patterns))
        return str(tiny_model_folder)

    monkeypatch.setitem(sys.modules, "huggingface_hub", types.SimpleNamespace(snapshot_download=snapshot_download))
    assert load("owner/name", device="cpu").name == "owner/name"
    [(hub_id, patterns)] = asked
    assert hub_id == "owner/name"
    expected = [
        "README.md",
        "confidence.json",
        "config.json",
        "context.json",
        "language/*",
        "lexicon.txt",
        "model.safetensors",
        "speakers/*",
        "tokenizer.model",
        "tokens.json",
    ]
    assert sorted(patterns) == expected


def test_hub_failure_is_one_line(monkeypatch):
    def snapshot_download(hub_id, *, allow_patterns):
        raise OSError("404\n\nRepository not found")

    monkeypatch.setitem(sys.modules, "huggingface_hub", types.SimpleNamespace(snapshot_download=snapshot_download))
    with pytest.raises(ModelError, match="owner/name: .*404 Repository not found") as caught:
        load("owner/name")
    assert "\n" not in str(caught.value)


@pytest.mark.gpu
def test_gpu_equals_cpu(make_tiny_model, recordings):
    on_cpu = Recognizer(make_tiny_model(), device="cpu")
    on_gpu = Recognizer(make_tiny_model(), device="auto")
    assert on_gpu.device.type == "cuda"
    with torch.backends.cudnn.flags(allow_tf32=False):
        texts = [transcript.text for transcript in on_gpu.transcribe_many(recordings)]
    assert texts == [transcript.text for transcript in on_cpu.transcribe_many(recordings)]


def test_n_best_readings_are_in_order(recognizer, recordings):
    found = recognizer.transcribe(recordings[0], decoder="beam", nbest=4)
    assert 2 <= len(found.alternatives) == len({each.text for each in found.alternatives}) <= 4
    scores = [each.score for each in found.alternatives]
    assert scores == sorted(scores, reverse=True)
    assert (found.alternatives[0].text, found.alternatives[0].words) == (found.text, found.words)
    assert found.text == recognizer.transcribe(recordings[0], decoder="beam").text
    written = json.loads(found.to_json())["alternatives"]
    assert [(each["text"], each["score"]) for each in written] == [
        (each.text, round(each.score, 4)) for each in found.alternatives
    ]
    assert written[0]["words"] == json.loads(found.to_json())["segments"][0]["words"]
    assert "alternatives" not in json.loads(recognizer.transcribe(recordings[0], decoder="beam").to_json())
    for options, message in (
        ({"nbest": 2}, "nbest: needs a beam search, and the decoder is greedy"),
        ({"decoder": "beam", "nbest": 0}, r"nbest: expected a whole number in \[1, 10000\], got 0"),
        ({"decoder": "beam", "nbest": 17}, "nbest: expected at most the beam size, 16, got 17"),
    ):
        with pytest.raises(ConfigError, match=message):
            recognizer.transcribe(recordings[0], **options)


def test_low_confidence_is_rejected_and_reported(recognizer, recordings):
    accepted = recognizer.transcribe(recordings[0])
    lowest = min(word.confidence for word in accepted.words)
    assert recognizer.transcribe(recordings[0], min_confidence=lowest) == accepted
    refused = recognizer.transcribe(recordings[0], min_confidence=lowest + 1e-6)
    assert (refused.text, refused.words, refused.rejected) == ("", (), accepted.text)
    assert json.loads(refused.to_json())["rejected"] == accepted.text
    with pytest.raises(ConfigError, match=r"min_confidence: expected a number in \[0, 1\], got 1.5"):
        recognizer.transcribe(recordings[0], min_confidence=1.5)


def test_beam_search_on_peaky_posteriors_equals_greedy(recognizer, recordings):
    greedy, beam = (recognizer.transcribe(recordings[0], decoder=name) for name in ("greedy", "beam"))
    assert beam.text == recognizer.transcribe(recordings[0], decoder="beam", beam_size=64).text
    assert beam.seconds == greedy.seconds
    with pytest.raises(ConfigError, match=r"beam_size: expected a whole number in \[1, 10000\] or null, got 0"):
        recognizer.transcribe_many(recordings, decoder="beam", beam_size=0)
