"""How much of the package one transcription enters: a reader who steps through it in a debugger sees all of it."""

import json
import subprocess
import sys

import pytest
import soundfile

REACHED = {"command": (28, 130), "python": (26, 119)}
"""Most files and functions, greedy and with an uncalibrated model of the default kind; the mark is 28 and 130."""

SCRIPT = """
import json, os, sys
import speechrnn

package = os.path.dirname(speechrnn.__file__) + "/"
way, audio, model = sys.argv[1:]
entered = set()

def profile(frame, event, argument):
    code = frame.f_code
    # Neither bodies of modules and classes nor comprehensions, which newer Pythons compile into their function.
    is_function = code.co_flags & 2 and not code.co_name.startswith(("<list", "<dict", "<set", "<gen"))
    if event == "call" and is_function and code.co_filename.startswith(package):
        entered.add((code.co_filename[len(package):], code.co_qualname, code.co_firstlineno))

if way == "command":
    from speechrnn.cli.main import main
    sys.setprofile(profile)
    assert main(["transcribe", audio, "-m", model, "--device", "cpu"]) == 0
else:
    sys.setprofile(profile)
    assert speechrnn.load(model, device="cpu").transcribe(audio).text
sys.setprofile(None)
print(json.dumps(sorted(entered)))
"""


@pytest.mark.parametrize("way", ["command", "python"])
def test_a_transcription_enters_few_files_and_functions(way, tiny_model_folder, make_recording, tmp_path):
    soundfile.write(tmp_path / "tones.wav", make_recording(2.0), 8000)
    arguments = [way, str(tmp_path / "tones.wav"), str(tiny_model_folder)]
    done = subprocess.run([sys.executable, "-c", SCRIPT, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    entered = json.loads(done.stdout.splitlines()[-1])
    files = {file for file, _, _ in entered}
    assert "audio/blocks.py" in files  # it is measured at all
    most_files, most_functions = REACHED[way]
    listed = "\n".join(f"{file}: {name}" for file, name, _ in entered)
    assert len(files) <= most_files, f"{len(files)} files:\n{listed}"
    assert len(entered) <= most_functions, f"{len(entered)} functions:\n{listed}"
