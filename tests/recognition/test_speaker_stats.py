"""A model that normalises by speaker: training, statistics given beforehand or not, stored profiles."""

import json
import logging
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from conftest import TONE_SETTINGS, make_tone_configuration

from speechrnn.cli.main import main
from speechrnn.corpus.batches import select_utterances
from speechrnn.corpus.manifest import read_manifest
from speechrnn.corpus.readers import read_corpus
from speechrnn.corpus.utterance import Utterance
from speechrnn.errors import AudioError, ConfigError, ModelError
from speechrnn.evaluation.evaluate import _find_parts, estimate_speakers, evaluate, stack_speaker_stats
from speechrnn.evaluation.tune import _compute
from speechrnn.model_folder.speakers import save_speaker
from speechrnn.recognition.adaptation import adapt
from speechrnn.recognition.recognizer import Recognizer, load
from speechrnn.training import preflight
from speechrnn.training.config_file import load_config
from speechrnn.training.data import SpeechData
from speechrnn.training.module import SpeechModule
from speechrnn.training.preflight import prepare_run
from speechrnn.training.train import train
from speechrnn.types import Waveform


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A model that was taught to normalise by speaker, and its corpora."""
    folder = tmp_path_factory.mktemp("speaker_stats")
    settings = {
        **TONE_SETTINGS,
        "front_end.normalization": "speaker",
        "trainer.max_epochs": 8,
        "output": str(folder / "run"),
    }
    return folder, train(make_tone_configuration(folder), settings)


@pytest.fixture
def recognizer(run):
    return load(run[1].model, device="cpu")


def read(folder, speaker):
    entries = [entry for entry in read_manifest(folder / "test.jsonl") if entry.speaker == speaker]
    return [soundfile.read(entry.audio_path, dtype="float32")[0] for entry in entries]


def test_a_speaker_normalised_model_learns_and_validation_equals_evaluate(run, recognizer):
    folder, _ = run
    evaluation = evaluate(recognizer, folder / "valid.jsonl")
    assert run[1].valid_wer == evaluation.score.wer < 0.1


def test_estimate_speaker_gives_frames_and_mean_features_over_all_recordings(run, recognizer):
    recordings = read(run[0], "s1")
    profile = recognizer.estimate_speaker(Waveform(samples, 8000) for samples in recordings)
    front_end = recognizer.model.acoustic.front_end
    each = [
        front_end.compute_unnormalized(torch.from_numpy(samples)[None], torch.tensor([len(samples)]))[0][0]
        for samples in recordings
    ]
    frames = torch.cat(each)
    assert profile.state is None
    assert profile.speaker_stats[0] == len(frames)
    torch.testing.assert_close(profile.speaker_stats[1:], frames.mean(dim=0), atol=1e-4, rtol=1e-4)
    with pytest.raises(AudioError, match="no speech of the speaker"):
        recognizer.estimate_speaker([])
    for one in ("a.wav", recordings[0], Waveform(recordings[0], 8000)):
        with pytest.raises(ConfigError, match="estimate_speaker takes recordings as a list"):
            recognizer.estimate_speaker(one)


def test_statistics_change_the_features_and_a_single_recording_is_its_own_speaker(run, recognizer):
    samples = torch.from_numpy(read(run[0], "s0")[0])[None]
    lengths = torch.tensor([samples.shape[1]])
    alone = recognizer.emissions(samples, lengths).log_probs
    own = recognizer.estimate_speaker([Waveform(samples[0].numpy(), 8000)])
    torch.testing.assert_close(recognizer.emissions(samples, lengths, speaker_stats=own.speaker_stats).log_probs, alone)
    other = own.speaker_stats + torch.cat([torch.tensor([1000.0]), torch.full((len(own.speaker_stats) - 1,), 3.0)])
    assert (recognizer.emissions(samples, lengths, speaker_stats=other).log_probs - alone).abs().max() > 0.1


@pytest.fixture(scope="module")
def prepared(run):
    """What training begins with, and the features of each validation utterance, (T, F)."""
    config = load_config(run[0] / "config.yaml", {**TONE_SETTINGS, "front_end.normalization": "speaker"})
    before = prepare_run(config, folders=[run[0]])
    frames = []
    for utterance in before.valid:
        samples = torch.from_numpy(soundfile.read(utterance.audio_path, dtype="float32")[0])[None]
        lengths = torch.tensor([samples.shape[1]])
        frames.append(before.model.front_end.compute_unnormalized(samples, lengths)[0][0])
    return config, before, frames


def make_data(config, preflight):
    data = SpeechData(config, preflight=preflight)
    data.setup()
    return data


def test_training_batches_hold_the_statistics_of_each_speaker(prepared):
    config, before, frames = prepared
    rows = before.speaker_stats[1]
    np.testing.assert_allclose(rows[3], [len(frames[3]), *frames[3].mean(dim=0)], rtol=1e-4, atol=1e-4)
    data = make_data(config, before)
    batches = list(data.val_dataloader())
    assert sum(len(batch.ids) for batch in batches) == 15
    for batch in batches:
        for place, id in enumerate(batch.ids):
            speaker = next(each.speaker for each in before.valid if each.id == id)
            of_speaker = torch.cat([frames[n] for n, each in enumerate(before.valid) if each.speaker == speaker])
            assert batch.speaker_stats[place, 0] == len(of_speaker)
            torch.testing.assert_close(batch.speaker_stats[place, 1:], of_speaker.mean(dim=0), atol=1e-3, rtol=1e-4)
        part = select_utterances(batch, [1, 0])
        assert torch.equal(part.speaker_stats, batch.speaker_stats[[1, 0]])
    stats = torch.cat([batch.speaker_stats[:, 0] for batch in data.train_dataloader()])
    assert 0 < int((stats == 0).sum()) < 30 < len(stats) == 60


def test_two_masked_versions_of_an_utterance_have_the_same_speaker(prepared):
    config, before, _ = prepared
    [batch, *_] = make_data(config, before).val_dataloader()
    model = before.model.eval()
    sound = batch.waveforms, batch.waveform_lengths
    twice = model(
        *sound,
        speaker_stats=batch.speaker_stats,
        augment=lambda mels, lengths: (mels.repeat(2, 1, 1), lengths.repeat(2)),
    )
    once = model(*sound, speaker_stats=batch.speaker_stats).log_probs
    torch.testing.assert_close(twice.log_probs, once.repeat(2, 1, 1), atol=1e-5, rtol=0)


def test_statistics_count_in_the_losses_and_in_validation(prepared):
    config, before, _ = prepared
    [batch, *_] = make_data(config, before).val_dataloader()
    module = SpeechModule(config, before.model, before.tokens).eval()
    losses, rates = [], []
    for each in (batch, replace(batch, speaker_stats=batch.speaker_stats + 5.0)):
        losses.append(module.compute_losses(each)[0].detach())
        with torch.no_grad():
            module.validation_step(each, 0)
        rates.append(module.validations[0].finish(None)["loss"])
    assert (losses[0] - losses[1]).abs().max() > 0.01
    assert abs(rates[0] - rates[1]) > 0.01


def test_an_unreadable_recording_has_zero_statistics_and_does_not_stop_training(prepared, run, monkeypatch):
    config, before, _ = prepared
    gone = before.train[3].id
    true = preflight.read_utterance

    def read_utterance(utterance, **options):
        if utterance.id == gone:
            raise AudioError(f"{gone}: gone")
        return true(utterance, **options)

    monkeypatch.setattr(preflight, "read_utterance", read_utterance)
    [rows, _] = prepare_run(config, folders=[run[0]]).speaker_stats
    assert not rows[3].any()
    np.testing.assert_array_equal(np.delete(rows, 3, axis=0), np.delete(before.speaker_stats[0], 3, axis=0))


def test_speakers_of_the_same_name_in_two_corpora_are_different(run, recognizer, tmp_path):
    lines = [json.loads(line) for line in (run[0] / "test.jsonl").read_text().splitlines()]
    for number, line in enumerate(lines):
        line |= {"audio_filepath": str(run[0] / line["audio_filepath"]), "speaker": "s", "corpus": f"c{number % 2}"}
    (tmp_path / "two.jsonl").write_text("\n".join(map(json.dumps, lines)))
    cuts = list(read_corpus(tmp_path / "two.jsonl"))
    profiles = estimate_speakers(recognizer, cuts)
    assert set(profiles) == {"c0\x1fs", "c1\x1fs"}
    assert not torch.equal(profiles["c0\x1fs"].speaker_stats, profiles["c1\x1fs"].speaker_stats)
    assert [len(_find_parts(cuts, carry, by_speaker=True)) for carry in ("no", "speaker")] == [2, 2]
    stats = stack_speaker_stats(profiles, ["c1\x1fs", None, "c2\x1fs"])
    assert torch.equal(stats[0], profiles["c1\x1fs"].speaker_stats)
    assert not stats[1:].any()
    utterances = [Utterance("u", Path("a.wav"), "", speaker="s", corpus=corpus) for corpus in ("c0", "c1", None)]
    assert len({each.speaker_key for each in utterances}) == 3


def test_a_carried_state_keeps_the_profile_within_one_speaker_only(run, recognizer, tmp_path, monkeypatch):
    stats = []
    true = Recognizer.transcribe_many

    def transcribe_many(self, sources, *, speaker, **options):
        stats.append(speaker)
        return true(self, sources, speaker=speaker, **options)

    monkeypatch.setattr(Recognizer, "transcribe_many", transcribe_many)
    first, second = (np.concatenate(read(run[0], speaker)[:2]) for speaker in ("s1", "s2"))
    soundfile.write(tmp_path / "one.wav", first, 8000)
    soundfile.write(tmp_path / "two.wav", np.concatenate([first, second]), 8000)
    half = len(first) / 8000
    rows = [("one.wav", 0.0, "s1"), ("two.wav", 0.0, "s1"), ("two.wav", half, "s2")]
    lines = [
        {"audio_filepath": name, "offset": start, "duration": half, "text": "a", "speaker": speaker}
        for name, start, speaker in rows
    ]
    lines[2]["duration"] = len(second) / 8000
    (tmp_path / "talk.jsonl").write_text("\n".join(map(json.dumps, lines)))
    evaluate(recognizer, tmp_path / "talk.jsonl", carry_state="recording")
    assert stats[0].speaker_stats is not None
    assert stats[1] is None
    stats.clear()
    evaluate(recognizer, tmp_path / "talk.jsonl", carry_state="speaker")
    assert [profile.speaker_stats is not None for profile in stats] == [True, True]


def test_evaluate_estimates_speakers_by_default(run, recognizer, monkeypatch):
    stats = []
    true = type(recognizer).emissions

    def emissions(self, waveforms, lengths, **options):
        stats.append(options.get("speaker_stats"))
        return true(self, waveforms, lengths, **options)

    monkeypatch.setattr(type(recognizer), "emissions", emissions)
    corpus = run[0] / "test.jsonl"
    evaluation = evaluate(recognizer, corpus)
    assert len(stats) == 3  # a batch for each of three speakers
    profile = recognizer.estimate_speaker(Waveform(samples, 8000) for samples in read(run[0], "s2"))
    assert any(torch.allclose(each, profile.speaker_stats) for each in stats)
    assert len(evaluation.utterances) == 15
    stats.clear()
    evaluate(recognizer, corpus, use_speaker_stats=False)
    assert stats == [None]
    stats.clear()
    evaluate(recognizer, corpus, speaker=profile)
    assert [torch.equal(each, profile.speaker_stats) for each in stats] == [True]
    stats.clear()
    batches, _ = _compute(recognizer, corpus, None, 120.0)
    assert len(batches) == 1
    assert stats[0].shape == (15, 14)
    assert torch.allclose(stats[0][2], profile.speaker_stats)


def test_a_recording_that_cannot_be_transcribed_is_named_once_and_not_used(run, recognizer, tmp_path, caplog):
    lines = [json.loads(line) for line in (run[0] / "test.jsonl").read_text().splitlines()]
    for line in lines:
        line["audio_filepath"] = str(run[0] / line["audio_filepath"])
    soundfile.write(tmp_path / "click.wav", np.zeros(50), 8000)
    lines[0] |= {"audio_filepath": "click.wav", "duration": 50 / 8000, "speaker": "click"}
    manifest = tmp_path / "manifest.jsonl"
    manifest.write_text("\n".join(map(json.dumps, lines)))
    with caplog.at_level(logging.WARNING):
        evaluation = evaluate(recognizer, manifest)
    assert sum(utterance.problem is not None for utterance in evaluation.utterances) == 1
    assert len([message for message in caplog.messages if "counts as not recognised" in message]) == 1


def test_adapt_stores_the_statistics_under_the_name(run, recognizer, tmp_path, capsys):
    folder = shutil.copytree(run[1].model, tmp_path / "model")
    paths = []
    for number, samples in enumerate(read(run[0], "s1")[:3]):
        paths.append(tmp_path / f"{number}.wav")
        soundfile.write(paths[-1], samples, 8000, subtype="FLOAT")
    profile = recognizer.estimate_speaker(paths)
    found = adapt(recognizer, paths, steps=2)
    torch.testing.assert_close(found.profile.speaker_stats, profile.speaker_stats)
    assert main(["adapt", "-m", str(folder), "--speaker", "anna", *map(str, paths), "--steps", "0"]) == 0
    capsys.readouterr()
    again = load(folder, device="cpu")
    torch.testing.assert_close(again.find_speaker("anna").speaker_stats, profile.speaker_stats)
    named = again.transcribe(paths[0], speaker="anna")
    given = again.transcribe(paths[0], speaker=profile)
    assert [word.confidence for word in named.words] == [word.confidence for word in given.words]
    assert [word.confidence for word in named.words] != [word.confidence for word in again.transcribe(paths[0]).words]
    shape = again.model.acoustic.encoder.stack.state_shape
    save_speaker(folder, "bert", type(profile)(torch.zeros(shape), torch.zeros(8)))
    with pytest.raises(
        ModelError, match=r"speaker_stats: expected \(14,\) float32, got \(8,\) float32; remove the file"
    ):
        load(folder, device="cpu").transcribe(paths[0], speaker="bert")


def test_models_without_speaker_normalisation_have_no_statistics(tone_run):
    recognizer = load(tone_run.model, device="cpu")
    assert recognizer.estimate_speaker([Waveform(np.zeros(8000, np.float32), 8000)]).speaker_stats is None


def test_the_command_line_can_switch_statistics_off(run, monkeypatch):
    each = []
    true = Recognizer.estimate_speaker
    monkeypatch.setattr(Recognizer, "estimate_speaker", lambda self, sources: each.append(1) or true(self, sources))
    command = ["evaluate", str(run[0] / "test.jsonl"), "-m", str(run[1].model), "--device", "cpu"]
    assert main(command) == 0
    assert len(each) == 3
    for option in ("--no-speaker-stats", "--unknown-speakers"):  # the second is the name in an earlier version
        assert main([*command, option]) == 0
        assert len(each) == 3
