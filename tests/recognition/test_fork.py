"""A process that is forked after a model was loaded and used transcribes as its parent does."""

import os
import subprocess
import sys

import pytest
import soundfile

SCRIPT = """
import os, sys
from multiprocessing import get_context
import torch
torch.set_num_threads(2)
import speechrnn

audio = [sys.argv[1]] * 2
recognizer = speechrnn.load(sys.argv[2], device="cpu")
expected = [recognizer.transcribe(each).text for each in audio]
assert expected[0]

def transcribe(path):
    return recognizer.transcribe(path).text

child = os.fork()
if child == 0:
    os._exit(0 if transcribe(audio[0]) == expected[0] else 1)
assert os.waitpid(child, 0)[1] == 0
with get_context("fork").Pool(2) as pool:
    assert pool.map(transcribe, audio) == expected
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="fork is a POSIX call")
def test_a_forked_process_transcribes(tiny_model_folder, make_recording, tmp_path):
    soundfile.write(tmp_path / "tones.wav", make_recording(20.0), 8000)
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    command = [sys.executable, "-c", SCRIPT, str(tmp_path / "tones.wav"), str(tiny_model_folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=90, env=environment)
    assert done.returncode == 0, done.stderr
