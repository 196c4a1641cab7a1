"""Exported models without torch: ``load("model.onnx").transcribe("talk.wav")``.

Needs numpy, onnxruntime and soundfile; soxr for recordings of another sample rate than the model's, numba for a beam
search. ``pip install --no-deps speechrnn`` and ``pip install numpy onnxruntime soundfile`` install it without torch.
"""

from speechrnn.lite.recognizer import LiteRecognizer, load

__all__ = ["LiteRecognizer", "load"]
