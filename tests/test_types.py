"""One mask and one padding for the whole package."""

import re
from pathlib import Path

import torch

import speechrnn
from speechrnn.types import mask_padding, pad_sequences, valid_mask


def test_padded_sequences_hold_each_one_and_zeros():
    padded, lengths = pad_sequences([torch.tensor([1, 2, 3]), torch.tensor([], dtype=torch.int64), torch.tensor([4])])
    assert padded.tolist() == [[1, 2, 3], [0, 0, 0], [4, 0, 0]]
    assert (lengths.tolist(), lengths.dtype) == ([3, 0, 1], torch.int64)


def test_mask_is_true_before_each_length():
    assert valid_mask(torch.empty(3, 2, 5), torch.tensor([0, 1, 2])).tolist() == [
        [False] * 2,
        [True, False],
        [True] * 2,
    ]


def test_padding_becomes_zero_for_any_value_and_rank():
    lengths = torch.tensor([1, 3])
    for shape in ((2, 3), (2, 3, 2), (2, 3, 2, 2)):
        sequences = torch.full(shape, torch.nan)
        sequences[0, :1], sequences[1] = 5.0, 7.0
        masked = mask_padding(sequences, lengths)
        assert masked[0, :1].unique().tolist() == [5.0]
        assert masked[1].unique().tolist() == [7.0]
        assert not masked[0, 1:].any()


def test_no_other_module_pads_or_masks_by_itself():
    by_hand = re.compile(r"pad_sequence\(|arange\([^\n]*(<|>=) lengths|frame\[[^\n]*(<|>=) \w*lengths")
    package = Path(speechrnn.__file__).parent
    found = [path.name for path in package.rglob("*.py") if by_hand.search(path.read_text(encoding="utf-8"))]
    assert found == ["types.py"]
