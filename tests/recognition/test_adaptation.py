"""A speaker's state: learned or encoded, kept under a name, used by that name; and every slip in between."""

import shutil

import numpy as np
import pytest
import soundfile
import torch
from conftest import say_tones

import speechrnn
from speechrnn.cli.main import main
from speechrnn.errors import AudioError, ConfigError, CorpusError, ModelError
from speechrnn.evaluation.evaluate import evaluate
from speechrnn.model_folder import add_results, load_model, save_model
from speechrnn.model_folder.speakers import SpeakerProfile, read_speaker, save_speaker
from speechrnn.recognition.adaptation import adapt
from speechrnn.recognition.recognizer import Recognizer, load
from speechrnn.types import Waveform


@pytest.fixture(scope="module")
def recordings(tmp_path_factory):
    """Three recordings of a speaker, and what is said in them beside each."""
    folder = tmp_path_factory.mktemp("speaker")
    rng = np.random.default_rng(3)
    paths = []
    for number, words in enumerate((["low", "high"], ["middle"], ["high", "high", "low"])):
        path = folder / f"{number}.wav"
        soundfile.write(path, say_tones(words, rng), 8000)
        path.with_suffix(".txt").write_text(" ".join(words), encoding="utf-8")
        paths.append(path)
    return paths


@pytest.fixture
def folder(tone_run, tmp_path):
    return shutil.copytree(tone_run.model, tmp_path / "model")


def read_texts(recordings):
    return [path.with_suffix(".txt").read_text() for path in recordings]


def test_adaptation_lowers_the_loss_and_keeps_the_weights(folder, recordings):
    recognizer = load(folder, device="cpu")
    before = {name: value.clone() for name, value in recognizer.model.acoustic.state_dict().items()}
    found = adapt(recognizer, recordings, read_texts(recordings), steps=10)
    assert found.loss < found.loss_before
    assert (found.with_texts, found.recordings) == (3, 3)
    assert found.seconds == pytest.approx(sum(soundfile.info(path).duration for path in recordings))
    assert tuple(found.state.shape) == recognizer.model.acoustic.encoder.stack.state_shape
    after = recognizer.model.acoustic.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert all(parameter.requires_grad for parameter in recognizer.model.acoustic.parameters())


def test_adaptation_computes_gradients_in_evaluation_mode_without_cudnn(folder, recordings, monkeypatch):
    recognizer = load(folder, device="cpu")
    acoustic, calls = recognizer.model.acoustic, []
    run = type(acoustic).forward

    def forward(self, *args, **kwargs):
        calls.append((torch.is_grad_enabled(), self.training, torch.backends.cudnn.enabled))
        return run(self, *args, **kwargs)

    monkeypatch.setattr(type(acoustic), "forward", forward)
    adapt(recognizer, recordings, read_texts(recordings), steps=3)
    # With gradients cuDNN refuses recurrent layers in evaluation mode, and in training mode dropout would be active.
    assert [call for call in calls if call[0]] == [(True, False, False)] * 3
    assert torch.backends.cudnn.enabled


def test_without_texts_the_models_transcripts_are_used(folder, recordings):
    recognizer = load(folder, device="cpu")
    read = [recognizer.transcribe(path).text for path in recordings]
    assert adapt(recognizer, recordings, steps=3).with_texts == 0
    same = adapt(recognizer, recordings, read, steps=3)
    torch.testing.assert_close(adapt(recognizer, recordings, steps=3).state, same.state)


def test_without_steps_the_state_is_the_models_own(make_tiny_model, make_recording, tmp_path):
    path = tmp_path / "a.wav"
    soundfile.write(path, make_recording(1.0), 8000)
    for kind in ("zero", "learned", "encoded"):
        model = make_tiny_model(initial_state=kind)
        with torch.no_grad():
            for name, parameter in model.acoustic.named_parameters():
                if "initial_state" in name or "reference.state" in name:
                    parameter.normal_()
        state = adapt(Recognizer(model, device="cpu"), [path], steps=0).state
        if kind == "zero":
            assert state.abs().max() == 0
        elif kind == "learned":
            torch.testing.assert_close(state, model.acoustic.encoder.stack.initial_state.detach())
        else:
            samples = torch.from_numpy(soundfile.read(path, dtype="float32")[0])[None]
            expected = model.acoustic.encode_reference(samples, torch.tensor([8000]))[:, :, :, 0]
            torch.testing.assert_close(state, expected.detach(), rtol=1e-3, atol=1e-4)


def test_a_stored_speaker_is_used_by_name_and_survives_new_results(folder, recordings, tone_run):
    recognizer = load(folder, device="cpu")
    torch.manual_seed(0)
    state = 3.0 * torch.randn(recognizer.model.acoustic.encoder.stack.state_shape)
    path = save_speaker(folder, "anna", SpeakerProfile(state))
    assert path.stat().st_size < 8_000
    add_results(folder, {"interval_method": "none", "sets": {}})
    assert list(load_model(folder).speakers) == ["anna"]
    recognizer = load(folder, device="cpu")
    torch.testing.assert_close(recognizer.find_speaker("anna").state, state)
    samples = torch.from_numpy(soundfile.read(recordings[0], dtype="float32")[0])[None]
    lengths = torch.tensor([samples.shape[1]])
    own, hers = (recognizer.emissions(samples, lengths, state=each).log_probs for each in (None, state))
    assert (own - hers).abs().max() > 1e-3
    transcript = recognizer.transcribe(recordings[0], speaker="anna")
    words = [word.confidence for word in transcript.words]
    assert words != [word.confidence for word in recognizer.transcribe(recordings[0]).words]
    plain, adapted = (
        [each.confidence for each in evaluate(recognizer, tone_run.folder / "valid.jsonl", speaker=name).utterances]
        for name in (None, "anna")
    )
    assert plain != adapted


def test_an_unknown_speaker_is_one_line_with_the_known_names(folder, recordings):
    with pytest.raises(
        ConfigError, match="speaker bert: the model was not adapted to one of that name; it knows none yet"
    ):
        load(folder, device="cpu").transcribe(recordings[0], speaker="bert")
    save_speaker(folder, "anna", SpeakerProfile(torch.zeros(1, 1, 2, 24)))
    with pytest.raises(ConfigError, match="it knows anna"):
        load(folder, device="cpu").transcribe(recordings[0], speaker="bert")


def test_a_state_of_another_model_or_a_broken_file_is_one_line(folder, recordings):
    path = save_speaker(folder, "anna", SpeakerProfile(torch.zeros(3, 1, 2, 24)))
    with pytest.raises(
        ModelError, match=r"state: expected \(1, 1, 2, 24\) float32, got \(3, 1, 2, 24\) float32; remove the file"
    ):
        load(folder, device="cpu").transcribe(recordings[0], speaker="anna")
    path.write_bytes(b"nothing")
    with pytest.raises(ModelError, match="cannot be read"):
        read_speaker(path, shape=(1, 1, 2, 24), feature_size=13)


def test_the_command_stores_a_state_that_other_commands_use(folder, recordings, capsys):
    command = ["adapt", "-m", str(folder), "--speaker", "anna", *map(str, recordings), "--device", "cpu"]
    assert main([*command, "--steps", "5"]) == 0
    said = capsys.readouterr().out
    assert " s of speech, learned from 3 given texts and 0 transcripts of the model; loss" in said
    assert main(["transcribe", "-m", str(folder), "--speaker", "anna", str(recordings[0]), "--device", "cpu"]) == 0
    assert set(capsys.readouterr().out.split()) <= {"low", "middle", "high"}
    for path in recordings:
        path.with_suffix(".lab").unlink(missing_ok=True)
    recordings[0].with_suffix(".txt").rename(recordings[0].with_suffix(".aside"))
    try:
        assert main([*command, "--steps", "1"]) == 0
    finally:
        recordings[0].with_suffix(".aside").rename(recordings[0].with_suffix(".txt"))
    assert "learned from 2 given texts and 1 transcripts of the model" in capsys.readouterr().out
    assert main([*command, "--steps", "0"]) == 0
    assert "own state of the model" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--speaker", "../anna"], "--speaker '../anna': expected letters, digits, dots, - and _"),
        (["--speaker", ".anna"], "not starting with a dot"),
        (["--speaker", ""], "--speaker ''"),
        (["--steps", "-1"], "steps must be 0 or more"),
        (["--steps", "x"], "invalid int value: 'x'"),
        (["gone.wav"], "gone.wav"),
        (["-m", "gone"], "gone: there is no such model folder"),
    ],
)
def test_user_errors_are_one_line(folder, recordings, capsys, arguments, message):
    model = [] if "-m" in arguments else ["-m", str(folder)]
    command = ["adapt", *model, "--speaker", "anna", str(recordings[0]), *arguments]
    assert main(command) == 2
    error = capsys.readouterr().err.splitlines()
    assert len(error) == 1
    assert message in error[0]
    assert not load_model(folder).speakers


def test_unusable_recordings_for_adaptation_are_named(folder, recordings, tmp_path):
    recognizer = load(folder, device="cpu")
    with pytest.raises(ConfigError, match="no recording of the speaker"):
        adapt(recognizer, [])
    with pytest.raises(ConfigError, match="3 recordings and 1 texts; give one for each"):
        adapt(recognizer, recordings, ["low"])
    short = tmp_path / "short.wav"
    soundfile.write(short, np.zeros(10), 8000)
    with pytest.raises(AudioError, match="too short"):
        adapt(recognizer, [short])
    silence = tmp_path / "silence.wav"
    soundfile.write(silence, np.zeros(8000), 8000)
    with pytest.raises(CorpusError, match="nothing to adapt to: the model recognises no word"):
        adapt(recognizer, [silence], [""])


def test_a_text_far_longer_than_its_recording_is_left_out(folder, recordings):
    recognizer = load(folder, device="cpu")
    texts = read_texts(recordings)
    long = [texts[0], "low " * 200, texts[2]]
    found = adapt(recognizer, recordings, long, steps=2)
    alone = adapt(recognizer, [recordings[0], recordings[2]], [texts[0], texts[2]], steps=2)
    torch.testing.assert_close(found.state, alone.state)
    with pytest.raises(CorpusError, match="nothing to adapt to"):
        adapt(recognizer, recordings[1:2], ["low " * 200])


def test_a_text_with_letters_that_the_model_lacks_is_not_used(folder, recordings, caplog):
    found = adapt(load(folder, device="cpu"), recordings, ["low high", "mittel", "high high low"], steps=1)
    assert found.with_texts == 2
    assert "has letters that the model lacks; the model's transcript is used instead: mittel" in caplog.text


def test_a_model_with_references_is_trained_and_released(tone_configuration, tone_run):
    """Every speaker of the tone corpus has other utterances, from which the initial state is encoded."""
    from conftest import TONE_SETTINGS

    output = tone_configuration.parent / "run"
    settings = {**TONE_SETTINGS, "encoder.initial_state": "encoded", "trainer.max_epochs": 1, "output": str(output)}
    result = speechrnn.train(tone_configuration, settings)
    reference = load_model(result.model).acoustic.encoder.reference
    assert reference.state.weight.abs().max() > 0  # it learned
    save_model(output / "again", load_model(result.model))
    assert load_model(tone_run.model).acoustic.encoder.reference is None


@pytest.mark.parametrize("bidirectional", [True, False])
def test_the_state_is_carried_over_pieces_of_a_recording(make_tiny_model, make_recording, bidirectional):
    """In a unidirectional model, two pieces then equal the whole, except for the frames at the cut."""
    recognizer = Recognizer(make_tiny_model(bidirectional=bidirectional, dropout=0.0), device="cpu")
    pieces = [Waveform(make_recording(1.0, seed=seed), 8000) for seed in (1, 2)]
    apart, carried = (list(recognizer.transcribe_many(pieces, are_consecutive=carry)) for carry in (False, True))
    assert apart[0].text == carried[0].text
    first, second = (torch.from_numpy(piece.samples)[None] for piece in pieces)
    lengths = torch.tensor([8000])
    final = recognizer.emissions(first, lengths, return_state=True).state
    state = recognizer.make_state(torch.zeros(0))
    state[:, :, 0] = final[:, :, 0, 0]
    expected = recognizer.choose_decoder().decode(
        *(lambda found: (found.log_probs, found.lengths))(recognizer.emissions(second, lengths, state=state))
    )
    assert carried[1].text == recognizer.tokens.decode(expected[0][0].tokens)
    own = [word.confidence for word in apart[1].words]
    assert own != [word.confidence for word in carried[1].words]


def test_the_command_carries_the_state_over_pieces(folder, recordings, capsys):
    for option in ([], ["--consecutive"]):
        assert main(["transcribe", "-m", str(folder), *map(str, recordings), "--device", "cpu", *option]) == 0
        assert len(capsys.readouterr().out.splitlines()) == 3


def test_evaluation_carries_states_over_utterances(make_tiny_model, tone_run):
    recognizer = Recognizer(make_tiny_model(dropout=0.0), device="cpu")
    corpus = tone_run.folder / "valid.jsonl"
    found = {carry: evaluate(recognizer, corpus, carry_state=carry) for carry in ("no", "recording", "speaker")}
    texts = {carry: {each.id: each.hypothesis for each in it.utterances} for carry, it in found.items()}
    assert texts["recording"] == texts["no"]  # each utterance has a recording of its own
    assert texts["speaker"] != texts["no"]
    assert set(texts["speaker"]) == set(texts["no"])
