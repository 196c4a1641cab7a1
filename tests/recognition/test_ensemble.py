"""Several models that transcribe together: in Python, on the command line, and what they refuse."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import soundfile
import torch
from conftest import say_tones

from speechrnn.acoustic.model import AcousticModel
from speechrnn.audio.features import StatisticsAccumulator
from speechrnn.cli.main import main
from speechrnn.decoding.combination import combine_hypotheses
from speechrnn.decoding.greedy import decode_greedy
from speechrnn.errors import AudioError, ConfigError
from speechrnn.evaluation.evaluate import evaluate
from speechrnn.language.compiled import CompiledNgram
from speechrnn.language.kneser_ney import build_ngram
from speechrnn.model_folder import load_model, save_model
from speechrnn.model_folder.additions import TunedWeights
from speechrnn.model_folder.speakers import SpeakerProfile, save_speaker
from speechrnn.recognition.adaptation import adapt
from speechrnn.recognition.alignment import align
from speechrnn.recognition.ensemble import Ensemble
from speechrnn.recognition.recognizer import Recognizer, load
from speechrnn.text.tokens import CharacterTokens
from speechrnn.types import Waveform, pad_sequences

NOISE = 0.35
SECONDS = (0.5, 2.0, 1.3, 0.2, 3.0)


@pytest.fixture(scope="module")
def members(make_tiny_model):
    """Three that were never trained, the last of another kind and with fewer frames."""
    models = [
        make_tiny_model(seed=1),
        make_tiny_model(seed=2),
        make_tiny_model(seed=3, cell="lstm", subsampling_factor=3),
    ]
    named = [replace(model, name=f"model {number}") for number, model in enumerate(models)]
    return [Recognizer(model, device="cpu", backend="torch") for model in named]


@pytest.fixture(scope="module")
def ensemble(members):
    return Ensemble(members)


@pytest.fixture(scope="module")
def recordings(make_recording):
    return [Waveform(make_recording(seconds, seed=seed), 8000) for seed, seconds in enumerate(SECONDS)]


@pytest.fixture(scope="module")
def folders(members, tmp_path_factory):
    folder = tmp_path_factory.mktemp("members")
    for number, member in enumerate(members):
        save_model(folder / str(number), member.model)
    return [str(folder / str(number)) for number in range(len(members))]


@pytest.fixture(scope="module")
def tone_models(tone_run, tmp_path_factory):
    """Three models of the tone language, spoiled by noise on their weights, each by its own."""
    folder = tmp_path_factory.mktemp("spoiled")
    for seed in range(3):
        model = load_model(tone_run.model)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for weights in model.acoustic.parameters():
                weights += NOISE * torch.randn(weights.shape, generator=generator)
        save_model(folder / str(seed), model)
    return [str(folder / str(seed)) for seed in range(3)]


def test_an_ensemble_returns_the_combined_readings_of_its_members(ensemble, members, recordings):
    padded = pad_sequences([torch.from_numpy(recording.samples) for recording in recordings])
    emissions = [member.emissions(*padded) for member in members]
    found = [[[best] for best in decode_greedy(each.log_probs, each.lengths)] for each in emissions]
    shapes = [each.log_probs for each in emissions], [each.lengths for each in emissions]
    expected = combine_hypotheses(found, *shapes, score_language=lambda _: 0.0)
    transcripts = list(ensemble.transcribe_many(recordings))
    assert [each.text for each in transcripts] == [ensemble.tokens.decode(best.tokens) for [best] in expected]
    assert {each.model for each in transcripts} == {"model 0 + model 1 + model 2"}
    texts = [[each.text for each in member.transcribe_many(recordings)] for member in members]
    assert [each.text for each in transcripts] not in texts


@pytest.mark.parametrize("batch_seconds", [0.1, 3.0, 1000.0])
def test_neighbours_do_not_matter(ensemble, recordings, batch_seconds):
    alone = [ensemble.transcribe(recording) for recording in recordings]
    together = list(ensemble.transcribe_many(recordings, batch_seconds=batch_seconds))
    assert [each.text for each in together] == [each.text for each in alone]
    for each, expected in zip(together, alone, strict=True):
        assert [(word.start, word.end) for word in each.words] == [(word.start, word.end) for word in expected.words]


def test_an_ensemble_of_one_model_twice_equals_that_model(members, recordings):
    twice = Ensemble([members[0], members[0]])
    for recording in recordings:
        one, two = members[0].transcribe(recording), twice.transcribe(recording)
        assert one.text == two.text
        assert [word.confidence for word in two.words] == pytest.approx([w.confidence for w in one.words], abs=1e-5)
    assert twice.num_parameters == 2 * members[0].num_parameters


def test_every_decoder_works(ensemble, members, recordings):
    recording = recordings[1]
    readings = ensemble.transcribe(recording, decoder="beam", nbest=3).alternatives
    assert [each.score for each in readings] == sorted((each.score for each in readings), reverse=True)
    assert 1 < len(readings) <= 3
    said = ensemble.transcribe(recording, sentences=["the fox", "quick quick", "fox"])
    scores = {}
    for text in ("the fox", "quick quick", "fox"):
        tokens = torch.tensor([ensemble.tokens.encode(text)])
        losses = []
        for member in members:
            emission = member.emissions(torch.from_numpy(recording.samples)[None], torch.tensor([16000]))
            loss = torch.nn.functional.ctc_loss(
                emission.log_probs.transpose(0, 1),
                tokens,
                emission.lengths,
                torch.tensor([tokens.shape[1]]),
                reduction="sum",
            )
            losses.append(float(loss))
        scores[text] = -np.mean(losses)
    assert said.text == max(scores, key=scores.get)
    assert ensemble.transcribe(recording, hotwords={"fox": 60.0}).text.count("fox") > 0
    assert ensemble.choose_decoder(sentences=["fox"]).score_language is None
    assert ensemble.choose_decoder(hotwords={"fox": 6.0}).score_language(ensemble.tokens.encode("fox ox")) == 6.0
    assert ensemble.choose_decoder(decoder="beam").score_language([1]) == 0.0
    assert ensemble.transcribe(recording, min_confidence=1.0).rejected
    decoder = ensemble.choose_decoder(decoder="beam", beam_size=4, nbest=2)
    emission = members[0].emissions(torch.from_numpy(recording.samples)[None], torch.tensor([16000]))
    found = [
        decoder.decode(emission.log_probs, emission.lengths, nbest=nbest)[0] for nbest in (None, decoder.config.width)
    ]
    assert [len(each) for each in found] == [2, 4]  # all that is in the beam is judged


def test_an_ensemble_uses_the_tuned_weights_of_its_first_model(members, recordings, caplog):
    language_model = CompiledNgram.of(build_ngram([["the", "fox"]], order=2))
    weights = TunedWeights(0.9, 0.3, 5.0, 0.1, 0.2, "valid", 10, "lm.bin")
    tuned = Recognizer(replace(members[0].model, tuned={language_model.digest: weights}), device="cpu")
    ensemble = Ensemble([tuned, members[1]])
    assert ensemble.transcribe(recordings[0], language_model=language_model)
    assert not caplog.records
    tokens = tuned.tokens.encode("the quick fox")
    scores = [each.choose_decoder(language_model=language_model).score_language(tokens) for each in (tuned, ensemble)]
    assert scores[0] == scores[1] != members[1].choose_decoder(language_model=language_model).score_language(tokens)


def test_a_recording_must_be_long_enough_for_all(ensemble, recordings, monkeypatch):
    def refuse(waveform, *, name):
        raise AudioError(f"{name}: too short for the last one")

    monkeypatch.setattr(ensemble.members[-1], "check_length", refuse)
    with pytest.raises(AudioError, match="recording: too short for the last one"):
        ensemble.transcribe(recordings[0])


def test_each_member_starts_from_its_own_speaker_state(members, recordings, monkeypatch):
    ensemble = Ensemble(members[:2])
    taken = []
    for member in ensemble.members:
        emissions = member.emissions
        monkeypatch.setattr(
            member,
            "emissions",
            lambda *waves, emissions=emissions, **options: taken.append(options) or emissions(*waves),
        )
    profiles = [SpeakerProfile(torch.full((2,), float(number)), torch.full((3,), float(number))) for number in range(2)]
    ensemble.transcribe(recordings[0], speaker=tuple(profiles))
    assert [(options["state"], options["speaker_stats"]) for options in taken] == [
        (each.state, each.speaker_stats) for each in profiles
    ]


def test_an_ensemble_of_models_with_different_errors_makes_fewer(tone_run, tone_models):
    test = tone_run.folder / "test.jsonl"
    alone = [evaluate(load(model, device="cpu"), test).score.wer for model in tone_models]
    together = evaluate(load(tone_models, device="cpu"), test).score.wer
    assert together < min(alone)


def test_a_list_of_models_is_loaded_as_an_ensemble(folders):
    several = load(folders, device="cpu")
    assert isinstance(several, Ensemble)
    assert several.name == " + ".join(folders)
    assert not isinstance(load(folders[:1], device="cpu"), Ensemble)
    with pytest.raises(ConfigError, match="a list of one or more"):
        load([], device="cpu")


def test_models_that_cannot_be_combined_are_refused(members, make_tiny_model):
    zero = make_tiny_model(tokens=CharacterTokens.build(["zero"]))
    other = Recognizer(replace(zero, name="zero"), device="cpu")
    with pytest.raises(ConfigError, match="^model 0 and zero do not fit together: their tokens differ"):
        Ensemble([members[0], other])
    faster = Recognizer(make_tiny_model(), device="cpu")
    faster.sample_rate = 16000
    with pytest.raises(ConfigError, match="sample rates of 8000 and 16000 Hz"):
        Ensemble([members[0], faster])


def test_an_ensemble_refuses_what_needs_one_model(ensemble, recordings):
    with pytest.raises(ConfigError, match="several models together have no state to carry on"):
        ensemble.transcribe_many(recordings, are_consecutive=True)
    with pytest.raises(ConfigError, match="align: several models together have no log-probabilities; give one"):
        align(ensemble, recordings[0], "the fox")


def normalize_by_speaker(model, samples, *, noise):
    """The same weights, with some noise, in a model that normalises by speaker, with statistics of a recording."""
    front_end = replace(model.acoustic.front_end.config, normalization="speaker")
    acoustic = AcousticModel(front_end, model.acoustic.encoder.config, len(model.tokens))
    weights = {name: tensor + noise * torch.randn_like(tensor) for name, tensor in model.acoustic.state_dict().items()}
    acoustic.load_state_dict(weights)
    accumulator = StatisticsAccumulator(acoustic.front_end)
    accumulator.add(torch.from_numpy(samples)[None], torch.tensor([len(samples)]))
    acoustic.front_end.set_statistics(*accumulator.compute())
    return Recognizer(replace(model, acoustic=acoustic), device="cpu")


def test_each_member_estimates_the_speaker(tone_run):
    model, rng = load_model(tone_run.model), np.random.default_rng(0)
    several = say_tones(["low", "high", "middle", "low"], rng)
    ensemble = Ensemble([normalize_by_speaker(model, several, noise=noise) for noise in (0.0, 0.01)])
    assert ensemble.uses_speaker_stats
    said = say_tones(["low", "high"], rng)
    profile = ensemble.estimate_speaker(iter([Waveform(said, 8000)]))
    for estimated, member in zip(profile, ensemble.members, strict=True):
        assert torch.equal(estimated.speaker_stats, member.estimate_speaker([Waveform(said, 8000)]).speaker_stats)
    texts = [
        member.transcribe(Waveform(said, 8000), speaker=each)
        for member, each in zip(ensemble.members, profile, strict=True)
    ]
    assert ensemble.transcribe(Waveform(said, 8000), speaker=profile).text in {each.text for each in texts}
    assert evaluate(ensemble, tone_run.folder / "test.jsonl").score.wer <= 0.2
    with pytest.raises(
        ConfigError, match="speaker: expected a name or the result of estimate_speaker of these models together"
    ):
        ensemble.transcribe(Waveform(said, 8000), speaker=profile[0])
    with pytest.raises(
        ConfigError, match="speaker: expected a name or the result of estimate_speaker of these models together"
    ):
        ensemble.transcribe(Waveform(said, 8000), speaker=profile[:1])
    with pytest.raises(ConfigError, match="estimate_speaker takes recordings as a list"):
        ensemble.estimate_speaker("a.wav")


def test_a_speaker_stored_in_all_members_is_found_by_name(folders, make_recording, tmp_path):
    copies = [shutil.copytree(folder, tmp_path / str(number)) for number, folder in enumerate(folders[:2])]
    spoken = Waveform(make_recording(2.0, seed=5), 8000)
    for copy in copies:
        found = adapt(load(copy, device="cpu"), [spoken], ["the fox"], steps=2)
        save_speaker(copy, "Ann", found.profile)
    save_speaker(copies[0], "Bob", found.profile)
    ensemble = load(copies, device="cpu")
    assert list(ensemble.speakers) == ["Ann"]
    for each, member in zip(ensemble.find_speaker("Ann"), ensemble.members, strict=True):
        assert torch.equal(each.state, member.find_speaker("Ann").state)
    assert ensemble.transcribe(spoken, speaker="Ann").text
    with pytest.raises(ConfigError, match="speaker Bob: .*; it knows Ann$"):
        ensemble.transcribe(spoken, speaker="Bob")


class TestOnTheCommandLine:
    @pytest.fixture(autouse=True)
    def _no_model_from_outside(self, monkeypatch):
        monkeypatch.delenv("SPEECHRNN_MODEL", raising=False)

    @pytest.fixture
    def wav(self, recordings, tmp_path):
        soundfile.write(tmp_path / "tones.wav", recordings[1].samples, 8000, subtype="FLOAT")
        return str(tmp_path / "tones.wav")

    def test_the_command_transcribes_with_several_models(self, capsys, folders, ensemble, wav):
        models = [argument for folder in folders for argument in ("-m", folder)]
        assert main(["transcribe", wav, *models, "-f", "json", "--device", "cpu"]) == 0
        row = json.loads(capsys.readouterr().out)
        assert (row["text"], row["model"]) == (ensemble.transcribe(wav).text, " + ".join(folders))

    def test_the_command_evaluates_several_models(self, capsys, tone_run, tone_models):
        models = [argument for model in tone_models for argument in ("-m", model)]
        assert main(["evaluate", str(tone_run.folder / "test.jsonl"), *models, "--json", "--device", "cpu"]) == 0
        expected = evaluate(load(tone_models, device="cpu"), tone_run.folder / "test.jsonl")
        assert json.loads(capsys.readouterr().out)["wer"] == expected.score.wer

    def test_a_command_for_one_model_refuses_several(self, capsys, folders, wav):
        assert main(["align", wav, "the fox", "-m", folders[0], "-m", folders[1]]) == 2
        expected = (
            f"-m {folders[0]} -m {folders[1]}: this command takes one model; transcribe and evaluate take several"
        )
        assert expected in capsys.readouterr().err
        assert main(["transcribe", wav, "-m", folders[0], "-m", folders[1], "--consecutive"]) == 2
        assert "several models together have no state to carry on; give one of them" in capsys.readouterr().err
        assert main(["evaluate", wav, "-m", folders[0], "-m", folders[1], "--calibrate"]) == 2
        assert "--calibrate: the calibration is stored with one model; give -m once" in capsys.readouterr().err

    def test_the_command_refuses_models_that_cannot_be_combined(self, capsys, folders, tone_run, wav):
        assert main(["transcribe", wav, "-m", folders[0], "-m", str(tone_run.model)]) == 2
        [line] = capsys.readouterr().err.splitlines()
        assert line.startswith(f"speechrnn: error: {folders[0]} and {tone_run.model} do not fit together")

    def test_calibration_works_with_one_model(self, capsys, tone_run, tmp_path):
        model = shutil.copytree(tone_run.model, tmp_path / "model")
        assert main(["evaluate", str(tone_run.folder / "valid.jsonl"), "-m", str(model), "--calibrate"]) == 0
        assert load(model).calibrations
        assert load_model(model).tokens.symbols
