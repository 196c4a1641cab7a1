"""A trained model as ONNX: from waveforms to log-probabilities, without torch."""
