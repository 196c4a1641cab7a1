"""The systems that bench_peers.py compares. Each is measured in a process of its own:

    python tests/benchmarks/peer_systems.py TASK SYSTEM [--threads 1] [--audio FILE…] [--model M]

prints a JSON object. Only the systems whose names begin with "speechrnn" import speechrnn.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import time
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

SAMPLE_RATE = 16000
VOCABULARY = 29
BATCH, LEAST_SECONDS, MOST_SECONDS = 8, 5.0, 10.0
CHARACTERS_A_SECOND = 12
ROUNDS = 5


def make_batch() -> tuple[Any, Any, Any, Any]:
    """Noise (B, N) of 5 to 10 seconds, lengths (B,), random targets (B, U) and their lengths (B,)."""
    import torch

    random = torch.Generator().manual_seed(0)
    lengths = torch.linspace(LEAST_SECONDS, MOST_SECONDS, BATCH).mul(SAMPLE_RATE).long()
    waveforms = 0.1 * torch.randn(BATCH, int(lengths.max()), generator=random)
    target_lengths = lengths * CHARACTERS_A_SECOND // SAMPLE_RATE
    targets = torch.randint(1, VOCABULARY, (BATCH, int(target_lengths.max())), generator=random)
    return waveforms, lengths, targets, target_lengths


def build_speechrnn(cell: str) -> Any:
    """Log-mels, two-fold stacking, three bidirectional layers of 256 units with normalisation and residuals."""
    from speechrnn.acoustic.encoder import EncoderConfig
    from speechrnn.acoustic.model import AcousticModel
    from speechrnn.audio.features import FrontEndConfig

    encoder = EncoderConfig(cell=cell, size="small", dropout=0.1)
    model = AcousticModel(FrontEndConfig(kind="log_mel", n_mels=80), encoder, VOCABULARY)

    def run(waveforms: Any, lengths: Any) -> tuple[Any, Any]:
        emission = model(waveforms, lengths)
        return emission.log_probs, emission.lengths

    return model, run


def build_engine(cell: str, precision: str) -> Any:
    """The same network as speechrnn transcribes with it: ONNX Runtime, or bfloat16 through oneDNN."""
    from speechrnn.benchmarking.inputs import make_untrained
    from speechrnn.recognition.recognizer import Recognizer

    backend = "torch" if precision == "bfloat16" else "onnx"
    recognizer = Recognizer(make_untrained(cell=cell), device="cpu", backend=backend, precision=precision)

    def run(waveforms: Any, lengths: Any) -> tuple[Any, Any]:
        emission = recognizer.emissions(waveforms, lengths)
        return emission.log_probs, emission.lengths

    return recognizer.model.acoustic, run


def make_log_mels() -> Callable[[Any], Any]:
    """torchaudio's 80 log-mels, (B, N) to (B, T, 80), a hundred a second."""
    import torchaudio

    mels = torchaudio.transforms.MelSpectrogram(SAMPLE_RATE, n_fft=512, win_length=400, hop_length=160, n_mels=80)
    return lambda waveforms: mels(waveforms).clamp(min=1e-10).log().transpose(1, 2)


def build_torch(cell: str, *, is_packed: bool) -> Any:
    """torchaudio's log-mels, two-fold stacking, and torch's own layers: three, bidirectional, of 256 units."""
    import torch
    from torch import nn
    from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

    log_mels = make_log_mels()
    layers = {"lstm": nn.LSTM, "gru": nn.GRU}[cell](160, 256, 3, batch_first=True, bidirectional=True, dropout=0.1)
    head = nn.Linear(512, VOCABULARY)
    model = nn.ModuleList([layers, head])

    def run(waveforms: Any, lengths: Any) -> tuple[Any, Any]:
        features = log_mels(waveforms)
        frames = (lengths // 160 + 1) // 2
        features = features[:, : features.shape[1] // 2 * 2].reshape(len(features), -1, 160)
        frames = frames.clamp(max=features.shape[1])
        if is_packed:
            packed = pack_padded_sequence(features, frames, batch_first=True, enforce_sorted=False)
            hidden, _ = pad_packed_sequence(layers(packed)[0], batch_first=True, total_length=features.shape[1])
        else:
            hidden, _ = layers(features)
        return torch.log_softmax(head(hidden), dim=-1), frames

    return model, run


def build_deepspeech() -> Any:
    """torchaudio's Deep Speech: three dense layers, one bidirectional plain recurrent layer; no subsampling."""
    import torchaudio

    log_mels = make_log_mels()
    model = torchaudio.models.DeepSpeech(n_feature=80, n_hidden=656, n_class=VOCABULARY)

    def run(waveforms: Any, lengths: Any) -> tuple[Any, Any]:
        features = log_mels(waveforms)
        return model(features[:, None]), (lengths // 160 + 1).clamp(max=features.shape[1])

    return model, run


def build_crdnn(kind: str) -> Any:
    """SpeechBrain's CRDNN: convolutions that halve the frames, recurrent layers, two dense ones."""
    import speechbrain.nnet.RNN
    import torch
    from speechbrain.lobes.features import Fbank
    from speechbrain.lobes.models.CRDNN import CRDNN
    from speechbrain.nnet.linear import Linear

    features = Fbank(sample_rate=SAMPLE_RATE, n_fft=400, n_mels=40)
    crdnn = CRDNN(
        input_size=40,
        time_pooling=True,
        time_pooling_size=2,
        cnn_channels=(32, 64),
        rnn_class=getattr(speechbrain.nnet.RNN, kind),
        rnn_layers=2,
        rnn_neurons=224 if kind == "LSTM" else 288,
    )
    model = torch.nn.ModuleList([crdnn, Linear(input_size=512, n_neurons=VOCABULARY)])

    def run(waveforms: Any, lengths: Any) -> tuple[Any, Any]:
        outputs = model[1](crdnn(features(waveforms)))
        frames = (lengths / lengths.max() * outputs.shape[1]).long()
        return torch.log_softmax(outputs, dim=-1), frames

    return model, run


NETWORKS: dict[str, Callable[[], Any]] = {
    "speechrnn LSTM": lambda: build_speechrnn("lstm"),
    "speechrnn GRU": lambda: build_speechrnn("gru"),
    "torch nn.LSTM, packed": lambda: build_torch("lstm", is_packed=True),
    "torch nn.LSTM, padded": lambda: build_torch("lstm", is_packed=False),
    "torch nn.GRU, packed": lambda: build_torch("gru", is_packed=True),
    "torch nn.GRU, padded": lambda: build_torch("gru", is_packed=False),
    "torchaudio DeepSpeech": build_deepspeech,
    "SpeechBrain CRDNN, LSTM": lambda: build_crdnn("LSTM"),
    "SpeechBrain CRDNN, LiGRU": lambda: build_crdnn("LiGRU"),
}
ENGINES: dict[str, Callable[[], Any]] = {
    "speechrnn LSTM, bfloat16": lambda: build_engine("lstm", "bfloat16"),
    "speechrnn LSTM, int8": lambda: build_engine("lstm", "int8"),
    "speechrnn GRU, ONNX Runtime": lambda: build_engine("gru", "float32"),
}


def measure(run: Callable[[], Any], *, rounds: int = ROUNDS) -> float:
    """Median seconds of a call, after one that is not counted."""
    seconds = []
    for number in range(rounds + 1):
        begun = time.perf_counter()
        run()
        if number > 0:
            seconds.append(time.perf_counter() - begun)
    return statistics.median(seconds)


def train(name: str) -> dict[str, Any]:
    """Time whole steps: features, forward, CTC, backward, AdamW."""
    import torch

    model, run = NETWORKS[name]()
    model.train()
    waveforms, lengths, targets, target_lengths = make_batch()
    run(waveforms, lengths)  # SpeechBrain's layers get their parameters at the first call
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)

    def step() -> None:
        log_probs, frames = run(waveforms, lengths)
        loss = torch.nn.functional.ctc_loss(
            log_probs.transpose(0, 1), targets, frames, target_lengths, zero_infinity=True
        )
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()

    return _describe(model, lengths, measure(step))


def transcribe(name: str) -> dict[str, Any]:
    """Time features, forward and the best token of every frame."""
    import torch

    model, run = (NETWORKS | ENGINES)[name]()
    model.eval()
    waveforms, lengths, *_ = make_batch()
    with torch.inference_mode():
        return _describe(model, lengths, measure(lambda: run(waveforms, lengths)[0].argmax(dim=-1)))


def _describe(model: Any, lengths: Any, seconds: float) -> dict[str, Any]:
    audio = float(lengths.sum()) / SAMPLE_RATE
    return {"parameters": sum(each.numel() for each in model.parameters()), "times_real_time": audio / seconds}


def extract(name: str) -> dict[str, Any]:
    """Time 40 MFCCs of a minute of noise, ten seconds at a time as far as a library takes no batches."""
    import numpy as np

    waveforms = (0.1 * np.random.default_rng(0).standard_normal((6, 10 * SAMPLE_RATE))).astype(np.float32)
    return {"times_real_time": 60 / measure(EXTRACTORS[name](waveforms), rounds=20)}


def _extract_ours(waveforms: Any) -> Callable[[], Any]:
    import torch

    from speechrnn.audio.features import FrontEnd, FrontEndConfig

    front_end, batch = FrontEnd(FrontEndConfig(normalization="none")), torch.from_numpy(waveforms)
    lengths = torch.full((len(batch),), batch.shape[1])
    return lambda: front_end(batch, lengths)


def _extract_torchaudio(waveforms: Any) -> Callable[[], Any]:
    import torch
    import torchaudio

    settings = {"n_fft": 512, "win_length": 400, "hop_length": 160, "n_mels": 40, "f_min": 20.0}
    transform, batch = torchaudio.transforms.MFCC(SAMPLE_RATE, 40, melkwargs=settings), torch.from_numpy(waveforms)
    return lambda: transform(batch)


def _extract_librosa(waveforms: Any) -> Callable[[], Any]:
    import librosa

    settings = {"n_fft": 512, "win_length": 400, "hop_length": 160, "n_mels": 40, "fmin": 20.0}
    return lambda: librosa.feature.mfcc(y=waveforms, sr=SAMPLE_RATE, n_mfcc=40, **settings)


def _extract_kaldi(waveforms: Any) -> Callable[[], Any]:
    import kaldi_native_fbank

    options = kaldi_native_fbank.MfccOptions()
    options.frame_opts.dither, options.frame_opts.samp_freq = 0.0, SAMPLE_RATE
    options.mel_opts.num_bins = options.num_ceps = 40

    def run() -> None:
        for waveform in waveforms:
            online = kaldi_native_fbank.OnlineMfcc(options)
            online.accept_waveform(SAMPLE_RATE, waveform)
            online.input_finished()
            for number in range(online.num_frames_ready):
                online.get_frame(number)

    return run


EXTRACTORS: dict[str, Callable[[Any], Callable[[], Any]]] = {
    "speechrnn": _extract_ours,
    "torchaudio": _extract_torchaudio,
    "librosa": _extract_librosa,
    "kaldi-native-fbank": _extract_kaldi,
}


def recognise(name: str, paths: list[str], model: str | None) -> dict[str, Any]:
    """Time whole recognisers on recordings, from file to text, and return their texts."""
    import soundfile

    seconds = math.fsum(soundfile.info(path).duration for path in paths)
    run = _open_pocketsphinx(paths) if name == "PocketSphinx" else _open_speechrnn(paths, model, name)
    texts: list[str] = []
    taken = measure(lambda: texts.__setitem__(slice(None), run()), rounds=1)
    return {"times_real_time": seconds / taken, "texts": texts}


def _open_pocketsphinx(paths: list[str]) -> Callable[[], list[str]]:
    import numpy as np
    import soundfile
    from pocketsphinx import Decoder

    decoder = Decoder(loglevel="FATAL")

    def decode(path: str) -> str:
        samples, rate = soundfile.read(path, dtype="int16", always_2d=True)
        assert rate == SAMPLE_RATE, f"{path}: {rate} Hz; PocketSphinx's model takes {SAMPLE_RATE}"
        decoder.start_utt()
        decoder.process_raw(np.ascontiguousarray(samples[:, 0]).tobytes(), full_utt=True)
        decoder.end_utt()
        return decoder.hyp().hypstr if decoder.hyp() else ""

    return lambda: [decode(path) for path in paths]


def _open_speechrnn(paths: list[str], model: str | None, name: str) -> Callable[[], list[str]]:
    import speechrnn

    recognizer = speechrnn.load(model or "english", device="cpu")
    decoder = "beam" if "beam" in name else "greedy"
    return lambda: [each.text for each in recognizer.transcribe_many(paths, decoder=decoder)]


RECOGNISERS = ("speechrnn, greedy", "speechrnn, beam", "PocketSphinx")
TASKS = {
    "train": tuple(NETWORKS),
    "transcribe": (*NETWORKS, *ENGINES),
    "features": tuple(EXTRACTORS),
    "whole": RECOGNISERS,
}


def main() -> None:
    """Measure one system at one task."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=TASKS)
    parser.add_argument("system")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--audio", nargs="+", default=[])
    parser.add_argument("--model")
    args = parser.parse_args()
    import torch

    torch.set_num_threads(args.threads)
    if args.task == "whole":
        found = recognise(args.system, args.audio, args.model)
    else:
        found = {"train": train, "transcribe": transcribe, "features": extract}[args.task](args.system)
    print(json.dumps({**found, "torch": version("torch")}))


if __name__ == "__main__":
    main()
