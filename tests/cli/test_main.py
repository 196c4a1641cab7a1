import importlib
import json
import logging
import os
import shlex
import subprocess
import sys
import types
from pathlib import Path

import pytest

import speechrnn
from speechrnn.cli.arguments import print_text
from speechrnn.cli.main import COMMANDS, main
from speechrnn.errors import ConfigError


@pytest.fixture
def command(monkeypatch):
    """A command made by the test, in place of an existing one."""

    def install(run, **attributes):
        module = types.ModuleType("speechrnn.cli.evaluate")
        module.SUMMARY, module.EXAMPLE = "try something", "speechrnn evaluate this"
        module.add_arguments = lambda parser: parser.add_argument("--number", type=int, default=0)
        module.run = run
        vars(module).update(attributes)
        monkeypatch.setitem(sys.modules, "speechrnn.cli.evaluate", module)

    return install


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"speechrnn {speechrnn.__version__}\n"


def test_help_lists_every_command_with_its_summary(capsys):
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    for name in COMMANDS:
        summary = importlib.import_module(f"speechrnn.cli.{name.replace(' ', '_')}").SUMMARY
        assert f"  {name:<14} {summary}\n" in out


def test_no_command_shows_the_help_and_fails(capsys):
    assert main([]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "commands:" in captured.err


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_its_example(capsys, name):
    assert main([*name.split(), "--help"]) == 0
    out = capsys.readouterr().out
    assert f"usage: speechrnn {name}" in out
    assert f"example:\n  speechrnn {name}" in out
    assert "--verbose" in out


@pytest.mark.parametrize(
    "arguments", [["--help"], ["--version"], ["corpus", "--help"], *([*name.split(), "--help"] for name in COMMANDS)]
)
def test_help_imports_no_heavy_library(arguments):
    script = (
        "import sys; from speechrnn.cli.main import main; code = main(sys.argv[1:]); "
        "assert not {'torch', 'numpy', 'rich', 'lhotse', 'lightning'} & set(sys.modules); sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_only_the_chosen_command_is_imported():
    script = (
        "import sys; from speechrnn.cli.main import main; main(['train', '--help']); "
        "print(sorted(name for name in sys.modules if name.startswith('speechrnn.cli.')), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stderr == "['speechrnn.cli.arguments', 'speechrnn.cli.main', 'speechrnn.cli.train']\n"


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["transcibe"], "transcibe: unknown command; did you mean transcribe?"),
        (["sing"], "sing: unknown command; see speechrnn --help"),
        (["--verson"], "--verson: unknown option; see speechrnn --help"),
        (
            ["evaluate", "--numb", "3"],
            "unrecognized arguments: --numb 3; did you mean --number?; see speechrnn evaluate --help",
        ),
        (["evaluate", "--number", "x"], "argument --number: invalid int value: 'x'; see speechrnn evaluate --help"),
        (["evaluate", "extra"], "unrecognized arguments: extra; see speechrnn evaluate --help"),
    ],
)
def test_an_error_is_answered_in_one_line(capsys, command, arguments, line):
    command(lambda args, rest: 0)
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", f"speechrnn: error: {line}\n")


def test_a_command_gets_its_arguments_and_returns_its_exit_code(command):
    seen = []
    command(lambda args, rest: seen.append((args.number, rest)) or 1)
    assert main(["evaluate", "--number", "7"]) == 1
    assert seen == [(7, [])]


def test_unknown_options_are_passed_on_to_commands_that_want_them(command):
    seen = []
    command(lambda args, rest: seen.append((args.number, rest)) or 0, TAKES_REST=True)
    assert main(["evaluate", "--encoder.hidden_size", "256", "--number", "7", "--numb=3", "--x", "-1.5"]) == 0
    assert seen == [(7, ["--encoder.hidden_size", "256", "--numb=3", "--x", "-1.5"])]


def test_an_error_is_one_line_and_exit_code_2(capsys, command):
    def fail(args, rest):
        raise ConfigError("first\nsecond")

    command(fail)
    assert main(["evaluate"]) == 2
    assert capsys.readouterr().err == "speechrnn: error: first second\n"


def test_a_bug_keeps_its_traceback(command):
    def fail(args, rest):
        raise ZeroDivisionError

    command(fail)
    with pytest.raises(ZeroDivisionError):
        main(["evaluate"])


def test_an_interruption_is_exit_code_130(capsys, command):
    def fail(args, rest):
        raise KeyboardInterrupt

    command(fail)
    assert main(["evaluate"]) == 130
    assert capsys.readouterr().err == "speechrnn: interrupted\n"


@pytest.mark.parametrize(
    ("arguments", "lines"),
    [
        ([], ["speechrnn: warning: careful", "speechrnn: error: gone"]),
        (["-v"], ["speechrnn: by the way", "speechrnn: warning: careful", "speechrnn: error: gone"]),
    ],
)
def test_the_log_goes_to_standard_error(capsys, command, arguments, lines):
    logger = logging.getLogger("speechrnn")

    def say(args, rest):
        logger.info("by the %s", "way")
        logger.warning("careful")
        logger.error("gone")
        return 0

    command(say)
    before = (logger.level, list(logger.handlers))
    assert main(["evaluate", *arguments]) == 0
    captured = capsys.readouterr()
    assert (captured.out, captured.err.splitlines()) == ("", lines)
    assert (logger.level, logger.handlers) == before


def test_training_reports_its_progress(capsys, command):
    command(lambda args, rest: logging.getLogger("speechrnn").info("epoch 1") or 0, TRAINS=True)
    assert main(["evaluate"]) == 0
    assert capsys.readouterr().err == "speechrnn: epoch 1\n"


def test_every_command_module_is_a_command():
    modules = {path.stem for path in Path(speechrnn.__file__).parent.glob("cli/*.py")}
    shared = {"__init__", "arguments", "main", "transcribe_cluster"}
    assert modules == {name.replace(" ", "_") for name in COMMANDS} | shared


@pytest.mark.parametrize("group", ["corpus", "lm"])
def test_a_group_has_a_help_with_its_commands_and_an_example(capsys, group):
    assert main([group, "--help"]) == 0
    out = capsys.readouterr().out
    assert f"usage: speechrnn {group} COMMAND" in out
    assert f"example:\n  speechrnn {group} " in out
    assert [name for name in COMMANDS if f"  {name} " in out] == [name for name in COMMANDS if name.startswith(group)]


def test_commands_of_a_group_take_the_common_options(capsys, tmp_path):
    (tmp_path / "text.txt").write_text("one two\n")
    arguments = ["lm", "build", "-v", str(tmp_path / "text.txt"), "-o", str(tmp_path / "a.arpa")]
    assert main(arguments) == 0
    assert (tmp_path / "a.arpa").exists()


def run_shell(command, **environment):
    script = f"{shlex.quote(sys.executable)} -m speechrnn {command}"
    return subprocess.run(script, shell=True, capture_output=True, text=True, env={**os.environ, **environment})


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
@pytest.mark.parametrize("arguments", ["--help", "train --help", "--version"])
@pytest.mark.parametrize(
    ("redirection", "reason"), [(">/dev/full", "No space left on device"), (">&-", "Bad file descriptor")]
)
def test_a_failing_standard_output_is_one_line(arguments, redirection, reason):
    done = run_shell(f"{arguments} {redirection}")
    line = f"speechrnn: error: standard output: cannot be written ({reason}); check it, or write to a file\n"
    assert (done.returncode, done.stdout, done.stderr) == (2, "", line)


def test_a_failing_standard_error_does_not_change_results():
    for redirection in ("2>/dev/full", "2>&-"):
        assert run_shell(f"nonsense {redirection}").returncode == 2


def test_help_works_in_an_encoding_without_its_characters():
    done = run_shell("train --help", PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stderr) == (0, "")
    assert "--config FILE" in done.stdout


def test_a_hint_names_the_nearest_option(capsys):
    assert main(["transcribe", "a.wav", "-m", "model", "--fromat", "srt"]) == 2
    assert "unrecognized arguments: --fromat srt; did you mean --format?" in capsys.readouterr().err


def test_control_characters_of_a_message_are_shown(capsys):
    assert main(["\x1b[31mred"]) == 2
    assert capsys.readouterr().err.startswith("speechrnn: error: \\x1b[31mred: unknown command")


def test_control_characters_of_results_are_shown_and_json_stays_json(capsys):
    print_text("\x1b[31mred\x9b\tand\nmore")
    assert capsys.readouterr().out == "\\x1b[31mred\\u009b\tand\nmore\n"
    content = {"text": "\x1b[31m\x7f\x9b"}
    print_text(json.dumps(content, ensure_ascii=False))
    printed = capsys.readouterr().out
    assert not set(content["text"]) & {"\x1b", "\x7f", "\x9b"} & set(printed)
    assert json.loads(printed) == content


def test_a_long_message_is_shortened(capsys):
    assert main(["x" * 5000]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert len(line) < 2100


@pytest.mark.skipif(os.name == "nt", reason="no such pipes")
def test_a_closed_pipe_is_not_reported():
    read, write = os.pipe()
    os.close(read)
    try:
        script = "import sys; from speechrnn.cli.main import main; sys.exit(main(['--help']))"
        done = subprocess.run([sys.executable, "-c", script], stdout=write, stderr=subprocess.PIPE, text=True)
    finally:
        os.close(write)
    assert (done.returncode, done.stderr) == (1, "")
