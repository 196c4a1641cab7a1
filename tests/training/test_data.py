"""Batches are functions of (seed, epoch, members); a speed never makes an utterance too short for CTC."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch

from speechrnn.audio.augment import AugmentConfig
from speechrnn.audio.channel import NoiseConfig
from speechrnn.audio.resampling import resampled_length
from speechrnn.corpus.batches import BatchRequest
from speechrnn.corpus.utterance import Utterance
from speechrnn.errors import ConfigError
from speechrnn.training import dataset as data
from speechrnn.training.config import Config, DataConfig
from speechrnn.training.data import SpeechData, count_workers, share_cores
from speechrnn.training.dataset import UtteranceDataset
from speechrnn.training.preflight import Preflight


@pytest.fixture
def utterances(tmp_path):
    rng = np.random.default_rng(0)
    made = []
    for number, samples in enumerate((8000, 6000, 4000)):
        path = tmp_path / f"{number}.wav"
        soundfile.write(path, 0.1 * rng.standard_normal(samples), 8000)
        made.append(Utterance(f"u{number}", path, "low", seconds=samples / 8000, tokens=(1,)))
    return made


def make_dataset(utterances, *, speed=(0.5, 1.0, 2.0), explain=lambda tokens, samples: None, seed=0, **augment):
    augment = AugmentConfig(speed=speed, **augment)
    return UtteranceDataset(utterances, sample_rate=8000, augment=augment, explain_infeasible=explain, seed=seed)


def make_data(utterances, *, augment=None, **settings):
    model = SimpleNamespace(sample_rate=8000, explain_infeasible=lambda tokens, samples: None)
    config = Config(data=DataConfig(**settings), augment=augment or AugmentConfig())
    preflight = Preflight(model, None, utterances, utterances, [], config.data.weights)
    data = SpeechData(config, preflight=preflight)
    data.setup()
    return data


def test_a_batch_depends_only_on_seed_epoch_and_members(utterances):
    first, second = make_dataset(utterances), make_dataset(utterances)
    second[BatchRequest(9, 0, [2, 0])]
    for request in (BatchRequest(3, 0, [0, 1, 2]), BatchRequest(3, 5, [0, 1, 2])):
        a, b = first[request], second[request]
        assert torch.equal(a.waveforms, b.waveforms)
        assert a.augment_seeds == b.augment_seeds
    alone = first[BatchRequest(3, 0, [1])]
    together = first[BatchRequest(3, 0, [0, 1])]
    length = int(alone.waveform_lengths[0])
    assert torch.equal(alone.waveforms[0], together.waveforms[1, :length])


def test_epochs_and_seeds_change_the_draws(utterances):
    def lengths(dataset):
        return [tuple(dataset[BatchRequest(epoch, 0, [0, 1, 2])].waveform_lengths.tolist()) for epoch in range(12)]

    assert len(set(lengths(make_dataset(utterances)))) > 3
    assert lengths(make_dataset(utterances)) != lengths(make_dataset(utterances, seed=1))


def test_noise_from_the_corpus_is_by_other_speakers(utterances):
    """Each speaker holds one tone, so the spectrum shows whose speech is in the noise."""
    hertz = {"a": 500, "b": 1000, "c": 2000}
    speakers = []
    for utterance, (speaker, hz) in zip(utterances, hertz.items(), strict=True):
        tone = 0.1 * np.sin(2 * np.pi * hz * np.arange(8000) / 8000)
        soundfile.write(utterance.audio_path, tone, 8000)
        speakers.append(replace(utterance, speaker=speaker, seconds=1.0))
    speakers.append(replace(speakers[0], id="again"))  # the same speaker once more, and a file that cannot be read
    speakers.append(replace(speakers[1], id="gone", audio_path="gone.wav"))
    noise = NoiseConfig(probability=1.0, snr_db=(0.0, 0.0), kinds=("babble",), voices=(6, 6))
    dataset = make_dataset(speakers, speed=(1.0,), noise=noise)
    speakers_in_noise = set()
    for epoch in range(8):
        batch = dataset[BatchRequest(epoch, 0, [0])]
        power = np.abs(np.fft.rfft(batch.waveforms[0].numpy()[:8000])) ** 2
        speakers_in_noise |= {speaker for speaker, hz in hertz.items() if power[hz] > 0.02 * power.sum()}
        assert power[500] == pytest.approx(power.sum() / 2, rel=0.05)
    assert speakers_in_noise == {"a", "b", "c"}


def test_copies_of_an_utterance_are_augmented_differently(utterances):
    dataset = make_dataset(utterances, speed=tuple(np.linspace(0.8, 1.25, 40)))
    batch = dataset[BatchRequest(2, 0, [1, 4, 7])]  # three utterances, so 4 and 7 are copies of 1
    assert batch.ids == ["u1", "u1", "u1"]
    assert len(set(batch.waveform_lengths.tolist())) == 3
    assert len(set(batch.augment_seeds)) == 3
    alone = dataset[BatchRequest(2, 0, [1])]
    assert alone.augment_seeds == batch.augment_seeds[:1]


def test_an_epoch_mixes_corpora_by_their_weights(utterances):
    corpora = [replace(utterance, corpus=name) for utterance, name in zip(utterances, ("a", "b", None), strict=True)]
    data = make_data(corpora, batch_seconds=1.0, num_workers=0, weights={"a": 3.0, "gone": 9.0})
    assert sorted(id for batch in data.train_dataloader() for id in batch.ids) == ["u0", "u0", "u0", "u1", "u2"]
    assert sorted(id for batch in data.val_dataloader() for id in batch.ids) == ["u0", "u1", "u2"]


def test_speed_changes_the_length_by_its_factor(utterances):
    batch = make_dataset(utterances, speed=(1.25,))[BatchRequest(0, 0, [0])]
    assert batch.waveform_lengths.tolist() == [resampled_length(8000, 10000, 8000)] == [6400]


def test_an_utterance_that_would_become_too_short_is_not_augmented(utterances):
    def explain(tokens, samples):
        return "too short" if samples < 5000 else None

    batch = make_dataset(utterances, speed=(2.0,), explain=explain)[BatchRequest(0, 0, [0, 1])]
    assert batch.waveform_lengths.tolist() == [8000, 6000]


def test_validation_recordings_are_not_augmented(utterances):
    dataset = UtteranceDataset(
        utterances, sample_rate=8000, augment=None, explain_infeasible=lambda tokens, samples: None, seed=0
    )
    batch = dataset[BatchRequest(4, 0, [2])]
    samples, _ = soundfile.read(utterances[2].audio_path, dtype="float32")
    assert np.array_equal(batch.waveforms[0].numpy(), samples)
    assert batch.augment_seeds == []


@pytest.mark.parametrize(("cores", "workers", "threads"), [(1, 0, 1), (2, 1, 1), (8, 1, 7)])
def test_on_a_cpu_one_process_reads_and_the_other_cores_train(monkeypatch, cores, workers, threads):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("speechrnn.training.data.count_cores", lambda: cores)
    set_to = []
    monkeypatch.setattr("torch.get_num_threads", lambda: cores)
    monkeypatch.setattr("torch.set_num_threads", set_to.append)
    assert count_workers(DataConfig()) == workers
    with share_cores(DataConfig()):
        pass
    assert set_to == [threads, cores]
    assert count_workers(DataConfig(num_workers=3)) == 3


@pytest.mark.parametrize(("cores", "most"), [(1, 16), (2, 16), (4, 32)])
def test_more_reading_processes_than_the_machine_can_run_are_refused(monkeypatch, cores, most):
    monkeypatch.setattr("speechrnn.training.data.count_cores", lambda: cores)
    assert count_workers(DataConfig(num_workers=most)) == most
    with pytest.raises(ConfigError, match=f"data.num_workers: expected at most {most} with {cores} cores, got"):
        count_workers(DataConfig(num_workers=most + 1))


def test_the_number_of_threads_set_by_the_user_is_kept(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    set_to = []
    monkeypatch.setattr("torch.get_num_threads", lambda: 5)
    monkeypatch.setattr("torch.set_num_threads", set_to.append)
    with share_cores(DataConfig()):
        pass
    assert set_to == [5]


@pytest.mark.parametrize(("room", "reads"), [(0, 9), (8000 * 4, 3 + 2 * 2), (1_000_000, 3)])
def test_recordings_are_cached_up_to_the_limit(utterances, monkeypatch, room, reads):
    """Three epochs of three recordings; the first takes all of 32 kB."""
    calls = []
    original = data.read_utterance
    monkeypatch.setattr(data, "read_utterance", lambda *a, **k: (calls.append(1), original(*a, **k))[1])
    options = {"sample_rate": 8000, "explain_infeasible": lambda tokens, samples: None, "seed": 0}
    augment = AugmentConfig(speed=(1.0, 1.3), gain_db=(-9.0, 9.0))
    cached = UtteranceDataset(utterances, augment=augment, **options)
    cached.cache(room)
    plain = UtteranceDataset(utterances, augment=augment, **options)
    found = [cached[BatchRequest(epoch, 0, [0, 1, 2])] for epoch in range(3)]
    assert len(calls) == reads
    for epoch, batch in enumerate(found):  # and what is kept is not changed by what is done to it
        assert torch.equal(batch.waveforms, plain[BatchRequest(epoch, 0, [0, 1, 2])].waveforms)


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # it creates none: nothing is read
@pytest.mark.parametrize(("workers", "processes", "share"), [(0, 1, 1.0), (3, 1, 1 / 3), (2, 4, 1 / 8)])
def test_all_reading_processes_share_the_cache_limit(utterances, monkeypatch, workers, processes, share):
    given = []
    monkeypatch.setattr(UtteranceDataset, "cache", lambda self, num_bytes: given.append(num_bytes))
    speech = make_data(utterances, num_workers=workers, cache_gigabytes=0.5)
    speech.trainer = SimpleNamespace(world_size=processes, global_rank=0, overfit_batches=0)
    speech.train_dataloader()
    speech.val_dataloader()  # is read once an epoch, and not kept
    assert given == [int(0.5e9 * share)]


def test_a_reference_is_another_utterance_of_the_speaker(utterances):
    speakers = [replace(utterance, speaker=name) for utterance, name in zip(utterances, "aab", strict=True)]
    options = {"sample_rate": 8000, "explain_infeasible": lambda tokens, samples: None, "with_references": True}
    dataset = UtteranceDataset(speakers, augment=None, seed=0, **options)
    batch = dataset[BatchRequest(0, 0, [0, 1, 2])]
    assert batch.reference_lengths.tolist() == [6000, 8000, 0]  # the third speaker has no other
    assert torch.equal(batch.references[0, :6000], batch.waveforms[1, :6000])
    assert torch.equal(batch.references[1, :8000], batch.waveforms[0, :8000])
    training = UtteranceDataset(speakers, augment=AugmentConfig(), seed=0, **options)
    lengths = [int(training[BatchRequest(epoch, 0, [0])].reference_lengths[0]) for epoch in range(200)]
    assert 0.03 < lengths.count(0) / 200 < 0.2  # at times there is none
    assert set(lengths) == {0, 6000}
    assert UtteranceDataset(speakers, augment=None, seed=0, **{**options, "with_references": False})[
        BatchRequest(0, 0, [0])
    ].references is None  # fmt: skip


def test_a_long_reference_is_a_part_of_its_utterance(utterances, monkeypatch):
    monkeypatch.setattr(data, "REFERENCE_SECONDS", 0.25)
    speakers = [replace(utterance, speaker="a") for utterance in utterances[:2]]
    options = {"sample_rate": 8000, "explain_infeasible": lambda tokens, samples: None, "with_references": True}
    dataset = UtteranceDataset(speakers, augment=None, seed=0, **options)
    piece = dataset[BatchRequest(0, 0, [1])].references[0].numpy()
    assert len(piece) == 2000
    whole, _ = soundfile.read(speakers[0].audio_path, dtype="float32")
    places = np.flatnonzero(np.isclose(whole[: len(whole) - 1999], piece[0], atol=1e-6))
    assert any(np.allclose(whole[place : place + 2000], piece, atol=1e-6) for place in places)


def test_validation_data_are_not_augmented(utterances):
    augment = AugmentConfig(speed=(0.5,), noise=NoiseConfig(probability=1.0))
    data = make_data(utterances, augment=augment, num_workers=0, batch_seconds=10)
    [batch] = data.val_dataloader()
    assert sorted(batch.waveform_lengths.tolist()) == [4000, 6000, 8000]
    [batch] = data.train_dataloader()
    assert sorted(batch.waveform_lengths.tolist()) == [8000, 12000, 16000]


def test_speakers_of_the_same_name_in_two_corpora_are_different(utterances):
    """Neither a reference nor, as noise, a stranger's voice is taken from a speaker of the same name elsewhere."""
    named = [replace(each, speaker="s", corpus=corpus) for each, corpus in zip(utterances, "aab", strict=True)]
    options = {"sample_rate": 8000, "explain_infeasible": lambda tokens, samples: None, "seed": 0}
    dataset = UtteranceDataset(named, augment=None, with_references=True, **options)
    assert dataset[BatchRequest(0, 0, [0, 1, 2])].reference_lengths.tolist() == [6000, 8000, 0]
    others = {len(dataset._read_other(named[0], seed)) for seed in range(20)}
    assert others == {4000}


def test_the_state_holds_how_much_of_an_epoch_was_consumed(utterances):
    data = make_data([replace(each, header=None) for each in utterances], num_workers=0, batch_seconds=1.0)
    data.fingerprint = "digest"
    trainer = SimpleNamespace(training=True, current_epoch=2, num_training_batches=3, world_size=1, global_rank=0)
    trainer.overfit_batches = 0
    data.trainer = trainer
    states = []
    for epoch, training in ((2, True), (2, True), (2, False), (2, True), (3, True)):
        trainer.current_epoch, trainer.training = epoch, training
        data.on_before_batch_transfer(None, 0)
        states.append((data.state_dict()["epoch"], data.state_dict()["batches_done"]))
    assert states == [(2, 1), (2, 2), (2, 2), (3, 0), (3, 1)]
    resumed = make_data(utterances, num_workers=0, batch_seconds=1.0)
    resumed.load_state_dict({"epoch": 2, "batches_done": 2, "data": "digest"})
    whole = make_data(utterances, num_workers=0, batch_seconds=1.0)
    whole.load_state_dict({"epoch": 2, "batches_done": 0, "data": "digest"})
    assert [batch.ids for batch in resumed.train_dataloader()] == [batch.ids for batch in whole.train_dataloader()][2:]
