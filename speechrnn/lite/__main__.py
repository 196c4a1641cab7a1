"""``python -m speechrnn.lite MODEL.onnx AUDIO …``: ``speechrnn transcribe`` with an exported model, without torch."""

import sys
from collections.abc import Sequence

from speechrnn.cli.arguments import print_note, print_text
from speechrnn.cli.main import main as run_command

USAGE = """usage: python -m speechrnn.lite MODEL.onnx AUDIO|FOLDER|- … [options of speechrnn transcribe]

Transcribe with a model that speechrnn export --to onnx wrote; torch is not needed.

example:
  python -m speechrnn.lite fsdd.onnx talk.flac interview.mp3 -f srt -o subtitles"""


def main(arguments: Sequence[str]) -> int:
    """Run the command; the exit codes are those of ``speechrnn``."""
    if list(arguments[:1]) in (["-h"], ["--help"]):
        print_text(USAGE)
        return 0
    if not arguments or not arguments[0].endswith(".onnx"):
        found = f", got {arguments[0]}" if arguments else ""
        print_note(f"error: expected an exported model, MODEL.onnx, first{found}; see python -m speechrnn.lite --help")
        return 2
    model, *rest = arguments
    return run_command(["transcribe", "-m", model, *rest])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
