"""A save that is stopped anywhere leaves the old or the new model under its name."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from speechrnn.model_folder import format as model_format
from speechrnn.model_folder import load_model, replacing, save_model

WATCHED = {replacing.__file__, model_format.__file__}


@pytest.fixture(params=["exchange", "two renames"])
def way(request, monkeypatch):
    """With the system call that exchanges two folders, and as on a file system that lacks it."""
    if request.param == "two renames":
        monkeypatch.setattr(replacing, "_exchange", lambda one, other: False)
    return request.param


@pytest.fixture(scope="module")
def models(make_tiny_model):
    return [make_tiny_model(seed=seed, num_layers=1) for seed in (1, 2)]


@pytest.fixture
def folder(models, tmp_path):
    save_model(tmp_path / "model", models[0])
    return tmp_path / "model"


def find_saved(folder, models):
    """Which of the models stands in a folder."""
    weights = load_model(folder).acoustic.head.projection.weight
    [number] = [number for number, each in enumerate(models) if (each.acoustic.head.projection.weight == weights).all()]
    return number


def count_events(step, save):
    """How often a function is called by a hook in a save that is not stopped."""
    calls = []
    step(lambda: calls.append(None), save)
    return len(calls)


def trace_lines(call, save):
    """Call a function before each line of the modules that save."""

    def trace(frame, event, argument):
        if frame.f_code.co_filename not in WATCHED:
            return None
        if event == "line":
            call()
        return trace

    earlier = sys.gettrace()
    sys.settrace(trace)
    try:
        save()
    finally:
        sys.settrace(earlier)


def test_an_interrupt_at_any_line_leaves_the_old_or_the_new_model(folder, models, way):
    total = count_events(trace_lines, lambda: save_model(folder, models[1]))
    saved = set()
    for stop in range(total):
        save_model(folder, models[0])
        seen = 0

        def interrupt(stop=stop):
            nonlocal seen
            seen += 1
            if seen == stop + 1:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            trace_lines(interrupt, lambda: save_model(folder, models[1]))
        assert (folder / "config.json").is_file(), f"stopped before line {stop} of the save"
        saved.add(find_saved(folder, models))
    assert saved == {0, 1}
    save_model(folder, models[0])
    assert [path.name for path in folder.parent.iterdir()] == ["model"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_death_at_any_system_call_leaves_the_old_or_the_new_model(folder, models, way):
    """Python reports each call that touches the file system to audit hooks, before it happens."""

    def run_child(stop):
        """Save in a child that dies at one call; how many calls it made."""
        read_end, write_end = os.pipe()
        child = os.fork()
        if child == 0:
            seen = 0

            def die(event, arguments):
                nonlocal seen
                if event == "open" or event.startswith(("os.", "shutil.", "ctypes.")):
                    os.write(write_end, b".")
                    if seen == stop:
                        os._exit(9)
                    seen += 1

            sys.addaudithook(die)
            save_model(folder, models[1])
            os._exit(0)
        os.close(write_end)
        calls = 0
        while part := os.read(read_end, 4096):
            calls += len(part)
        os.close(read_end)
        os.waitpid(child, 0)
        return calls

    total = run_child(stop=-1)
    assert total > 20
    saved, missing = set(), 0
    for stop in range(total):
        save_model(folder, models[0])
        run_child(stop)
        missing += not folder.exists()
        saved.add(find_saved(folder, models))
    assert saved == {0, 1}
    assert missing == (1 if way == "two renames" else 0)
    save_model(folder, models[0])
    assert [path.name for path in folder.parent.iterdir()] == ["model"]


def test_a_killed_process_leaves_a_model(folder, models, make_tiny_model):
    save_model(folder.parent / "other", make_tiny_model(seed=3, num_layers=1, hidden_size=64))
    script = (
        "import sys, time\n"
        "from speechrnn.model_folder import load_model, save_model\n"
        "models = [load_model(path) for path in sys.argv[2:]]\n"
        "print('ready', flush=True)\n"
        "while True:\n"
        "    for model in models:\n"
        "        save_model(sys.argv[1], model)\n"
        "        time.sleep(0.05)\n"
    )
    paths = [str(folder), str(folder), str(folder.parent / "other")]
    with subprocess.Popen([sys.executable, "-c", script, *paths], stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        sizes = set()
        until = time.monotonic() + 30.0
        try:
            while len(sizes) < 2 and time.monotonic() < until:
                sizes.add(load_model(folder).acoustic.num_parameters)  # never files of both
        finally:
            process.send_signal(signal.SIGKILL)
    assert len(sizes) == 2
    assert load_model(folder).acoustic.num_parameters in sizes


def test_a_dead_save_of_an_earlier_version_is_recovered(folder, models):
    folder.rename(folder.parent / ".model-0123abcd-old")
    assert find_saved(folder, models) == 0
    assert [path.name for path in folder.parent.iterdir()] == ["model"]


def test_another_save_that_is_running_is_left_alone(folder, models):
    with replacing.replacing(folder) as new:
        (new / "config.json").write_text("half")
        save_model(folder, models[1])
        assert new.exists()
    assert (folder / "config.json").read_text() == "half"


def test_hidden_files_of_the_user_are_left_alone(folder, models):
    (folder.parent / ".model-notes").mkdir()
    (folder.parent / ".model-0123abcd.txt").touch()
    save_model(folder, models[1])
    assert sorted(path.name for path in Path(folder.parent).iterdir()) == [
        ".model-0123abcd.txt",
        ".model-notes",
        "model",
    ]
