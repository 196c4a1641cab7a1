"""The memory recipe: the targets of its tasks, the experiments and their report, prediction of a series."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from speechrnn.acoustic.sequence import SequenceConfig
from speechrnn.errors import CorpusError
from speechrnn.training.sequences import SequenceTraining, train_sequences

FOLDER = Path(__file__).resolve().parents[2] / "recipes" / "memory"
sys.path.insert(0, str(FOLDER))
import memory  # noqa: E402
import report  # noqa: E402
import tasks  # noqa: E402

RNG = np.random.default_rng


def asked(batch):
    """Targets at the steps that count, row by row."""
    return [row[counts] for row, counts in zip(batch.targets, batch.counts, strict=True)]


@pytest.mark.parametrize("lag", [10, 200])
def test_adding_targets_are_the_sum_of_two_marked_numbers_at_the_end(lag):
    batch = tasks.Adding(lag).draw(RNG(0), 64)
    values, marks = batch.inputs.unbind(dim=-1)
    assert marks.sum(dim=1).tolist() == [2.0] * 64
    torch.testing.assert_close(torch.stack(asked(batch))[:, 0, 0], (values * marks).sum(dim=1))
    first = marks.argmax(dim=1)
    assert set(first.tolist()) <= set(range(10))
    assert batch.inputs.shape[1] - 10 == lag
    assert batch.counts.sum().item() == 64
    sums = torch.cat([part[:, 0] for part in asked(tasks.Adding(lag).draw(RNG(1), 4000))])
    assert float((sums - 1).pow(2).mean()) == pytest.approx(tasks.Adding(lag).chance, rel=0.1)


def test_copy_targets_are_the_symbols_in_order_after_the_delay():
    task = tasks.Copy(50)
    batch = task.draw(RNG(0), 16)
    symbols = batch.inputs.argmax(dim=-1)
    assert torch.equal(torch.stack(asked(batch)), symbols[:, :3])
    sign = (symbols == 9).nonzero()
    assert sign[:, 1].tolist() == [53] * 16  # 50 steps after the last symbol, at the first step of the answer
    assert batch.inputs.shape[1] == 56
    assert (symbols[:, 3:53] == 8).all()


def make_clips(size=5):
    """Ten digits with clips of different lengths; each frame holds the digit."""
    return [[np.full((length, 2), digit, np.float32) for length in (4, size)] for digit in range(10)]


def test_first_digit_targets_follow_the_digit_after_the_lag():
    task = tasks.FirstDigit(make_clips(), 7)
    batch = task.draw(RNG(0), 200)
    first = batch.inputs[:, 0, 0]
    assert torch.equal(torch.cat(asked(batch)).float(), first)
    assert set(batch.lengths.tolist()) == {11, 12}
    assert torch.equal(batch.counts.float().argmax(dim=1), batch.lengths - 1)
    later = batch.inputs[:, 6:, 0]
    assert (later != first[:, None]).any()
    assert sorted(set(first.tolist())) == list(range(10))


def test_waves_continue_their_reference():
    batch = tasks.Waves().draw(RNG(0), 8)
    assert torch.equal(batch.targets[:, :-1], batch.inputs[:, 1:])
    wave = torch.cat([batch.reference, batch.inputs], dim=1)[..., 0]
    # A sampled sine obeys x[t+1] + x[t-1] = 2 cos(ω) x[t], over the border too.
    factor = (wave[:, 2:] + wave[:, :-2]) / wave[:, 1:-1]
    assert (factor.max(dim=1).values - factor.median(dim=1).values).median() < 1e-2


def test_series_targets_are_values_a_number_of_steps_ahead():
    values = np.arange(100.0)[:, None]
    task = tasks.Series(values, ahead=3, steps=10)
    batch = task.draw(RNG(0), 50)
    step = 1 / values.std()
    torch.testing.assert_close(batch.targets - batch.inputs, torch.full((50, 10, 1), 3 * step, dtype=torch.float32))
    assert task.naive_error == pytest.approx((3 * step) ** 2)
    starts = (batch.inputs[:, 0, 0] * values.std() + values.mean()).round()
    assert starts.min() >= 0
    assert starts.max() <= 87
    with pytest.raises(CorpusError, match="a series of 12 values: expected 13 or more"):
        tasks.Series(values[:12], ahead=3, steps=10)


def test_text_targets_are_the_next_symbols_with_a_unigram_baseline():
    task = tasks.Text("abac" * 30, steps=8)
    batch = task.draw(RNG(0), 10)
    assert torch.equal(batch.inputs.argmax(dim=-1)[:, 1:], batch.targets[:, :-1])
    assert task.entropy_bits() == pytest.approx(1.5)
    other = tasks.Text("abxba" * 5, symbols=task.symbols, steps=8)
    assert len(other.numbers) == 20  # what the training text never had is passed over
    with pytest.raises(CorpusError, match="a text of 3 symbols: expected more than 60"):
        tasks.Text("abc")


def write(path, text):
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("text", "columns", "expected"),
    [
        ("a,b\n1,2\n3,4.5\n", [], [[1, 2], [3, 4.5]]),
        ("\ufeffa,b\r\n1,2\r\n\r\n3,4\r\n", ["b"], [[2], [4]]),
        ("1,2\n3,-4e1\n", [], [[1, 2], [3, -40]]),
        ("b,name,a\n1,x,2\n", ["a", "b"], [[2, 1]]),
    ],
)
def test_numbers_are_read_from_csv(tmp_path, text, columns, expected):
    assert tasks.read_series(write(tmp_path / "s.csv", text), columns).tolist() == expected


@pytest.mark.parametrize(
    ("text", "columns", "message"),
    [
        ("a,b\n1,2\n3,\n", [], "line 3, column b: expected a number, found a hole"),
        ("a,b\n1,2\nx,4\n", [], "line 3, column a: expected a number, found 'x'"),
        ("1,2\nnan,4\n", [], "line 2, column 1: expected a number, found 'nan'"),
        ("a,b\n1,2\n3\n", [], "line 3: expected 2 values, found 1"),
        ("a,b\n1,2\n", ["c"], "no column 'c'; it has a, b"),
        ("1,2\n", ["c"], "no column 'c'; it has no header"),
        ("a,b\n", [], "expected rows of numbers, found none"),
        ("", [], "expected rows of numbers, found none"),
    ],
)
def test_missing_values_and_text_in_a_series_are_named(tmp_path, text, columns, message):
    with pytest.raises(CorpusError) as error:
        tasks.read_series(write(tmp_path / "s.csv", text), columns)
    assert message in str(error.value)
    assert "s.csv" in str(error.value)


def test_a_missing_series_and_a_binary_file_are_named(tmp_path):
    (tmp_path / "b.csv").write_bytes(b"\xff\xfe\x00")
    for name in ("gone.csv", "b.csv"):
        with pytest.raises(CorpusError, match=f"{name}: expected a CSV file of numbers"):
            tasks.read_series(tmp_path / name)


def test_digits_are_labelled_by_their_file_names(tmp_path):
    (tmp_path / "recordings").mkdir()
    for digit in range(10):
        for number in (3, 7):
            noise = RNG(digit).normal(0, 0.1, 4000)
            soundfile.write(tmp_path / "recordings" / f"{digit}_ann_{number}.wav", noise, 8000)
    clips = tasks.read_digits(tmp_path, range(5, 10))
    assert [len(of_digit) for of_digit in clips] == [1] * 10
    assert clips[0][0].shape == (24, 13)
    with pytest.raises(CorpusError, match="numbers from 20 to 29, found none"):
        tasks.read_digits(tmp_path, range(20, 30))


def test_the_plan_has_every_task_lag_cell_and_clipping_once():
    names = [experiment.name for experiment in memory.plan(with_speech=True, seed=0)]
    assert len(names) == len(set(names)) == 72 + 6 + 3 + 3
    assert {f"{task}-{lag}-{cell}-{clip}" for task in ("adding", "copy", "first-digit") for lag in (10, 50, 200)
            for cell in report.CELLS for clip in ("clipped", "unclipped")} <= set(names)  # fmt: skip
    silent = [experiment.name for experiment in memory.plan(with_speech=False, seed=0)]
    assert not [name for name in silent if "digit" in name or "mfcc" in name]


def shorten(experiments, steps=4):
    return [
        replace(one, training=replace(one.training, steps=steps, validate_every=2, validation_size=8))
        for one in experiments
    ]


def test_finished_experiments_are_not_repeated_and_are_reported(tmp_path, monkeypatch, capsys):
    """One of each kind, a few steps long, in this process."""
    monkeypatch.setattr(memory, "ProcessPoolExecutor", Immediately)
    monkeypatch.setattr(memory, "FAR", 30)
    wanted = ("adding-200-gru", "copy-10-lstm-clipped", "clipping-sgd", "state-", "next-symbol")
    experiments = [one for one in memory.plan(with_speech=False, seed=0) if one.name.startswith(wanted)]
    results = memory.run_all(shorten(experiments), tmp_path, fsdd=None, jobs=1)
    assert sorted(results) == sorted(one.name for one in experiments)
    assert len(results["adding-200-gru-clipped"]["curve_after"]) == 40  # to the far lag
    gates = results["adding-200-gru-clipped"]["gates_before"]
    assert list(gates) == ["reset gate", "update gate", "new state"]
    assert gates["new state"]["spectral_radius"] == pytest.approx(1.0, abs=1e-4)  # orthogonal, as they begin
    assert results["adding-200-gru-clipped"]["gates_after"] != gates
    assert "by_step_wrong" not in results["state-zero"]
    assert len(results["state-encoded"]["by_step"]) == len(results["state-encoded"]["by_step_wrong"]) == 20
    assert results["next-symbol"]["bits"] > 0
    table = (tmp_path / "memory.md").read_text()
    for words in (
        "| adding, MSE 0.167 | 200 | norm 1 |",
        "| gru | update gate | 1.00 → ",
        "| sgd | none |",
        "| encoded from another wave |",
    ):
        assert words in table
    assert table == report.describe(results)
    report.draw(results, tmp_path)
    assert {path.name for path in tmp_path.glob("*.png")} == {
        "gradients.png",
        "learning.png",
        "clipping.png",
        "states.png",
    }
    Immediately.calls = 0
    again = memory.run_all(shorten(experiments), tmp_path, fsdd=None, jobs=1)
    assert Immediately.calls == 0
    assert report.describe(again) == table
    memory.run_all(shorten(experiments[:1], steps=6), tmp_path, fsdd=None, jobs=1)
    assert Immediately.calls == 1  # a changed experiment is another one


class Immediately:
    """A pool that runs what it is given at once."""

    calls = 0

    def __init__(self, *_, **__):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def submit(self, function, *arguments):
        from concurrent.futures import Future

        Immediately.calls += 1
        future = Future()
        future.set_result(function(*arguments))
        return future


def test_a_failed_run_is_reported_as_failed():
    kept = {
        "best": None,
        "failed": "the loss was not finite in step 7",
        "steps": 7,
        "gradient_norms": [2.0, None],
        "losses": [],
    }
    table = report.describe({"clipping-sgd-none": kept, "adding-10-tanh-unclipped": kept})
    assert "| sgd | none | not finite | 2 | – | the loss was not finite in step 7 |" in table
    assert "failed in step 7" in table


def test_a_series_of_the_user_is_predicted(tmp_path):
    wave = np.sin(np.arange(400) / 3)
    write(tmp_path / "s.csv", "t,x\n" + "".join(f"{t},{x}\n" for t, x in enumerate(wave)))
    memory.predict_series(tmp_path / "s.csv", ["x"], 2, tmp_path / "out", seed=0, training_steps=200)
    rows = (tmp_path / "out" / "predicted.csv").read_text().splitlines()
    assert rows[0] == "row,x"
    assert [int(row.split(",")[0]) for row in rows[1:]] == list(range(323, 403))  # rows of the series, two ahead
    said = {int(row.split(",")[0]): float(row.split(",")[1]) for row in rows[1:]}
    errors = [said[row] - wave[row - 1] for row in range(340, 401)]
    assert float(np.mean(np.square(errors))) < 0.05  # of a variance of 0.5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--series", "gone.csv"], "gone.csv: expected a CSV file of numbers"),
        (["--series", "short.csv"], "short.csv: 3 rows: expected more than 10"),
        (["--series", "short.csv", "--ahead", "0"], "--ahead 0: expected 1 or more steps"),
        (["--fsdd", "."], "expected clips of FSDD named 0_SPEAKER_NUMBER.wav"),
        (["--only", "magic"], "--only magic: no experiment has a name that begins with it"),
    ],
)
def test_errors_end_with_one_line_and_exit_code_2(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "short.csv", "1\n2\n3\n")
    monkeypatch.setattr(sys, "argv", ["memory.py", *arguments, "--output", "out"])
    with pytest.raises(SystemExit) as stopped:
        memory.main()
    said = capsys.readouterr().err
    assert stopped.value.code == 2
    assert message in said
    assert said.count("\n") == 1


@pytest.mark.slow  # seconds of imports
def test_memory_runs_as_a_script_with_help():
    command = [sys.executable, str(FOLDER / "memory.py"), "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "--fsdd" in done.stdout


def test_the_same_experiment_with_the_same_seed_is_the_same(tmp_path):
    results = [
        train_sequences(tasks.Copy(5), SequenceConfig(hidden_size=8), SequenceTraining(steps=5, seed=3)).losses
        for _ in range(2)
    ]
    assert results[0] == results[1]
