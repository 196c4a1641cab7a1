"""Bidirectional stacks over chunks: against the whole stack, against one window after the other, against padding."""

import pytest
import torch

from speechrnn.acoustic.chunked import Chunks, run_in_chunks
from speechrnn.acoustic.recurrent import RecurrentStack
from speechrnn.types import mask_padding

CELLS = ("tanh", "elementwise", "gru", "lstm", "mingru", "minlstm")
LENGTHS = torch.tensor([11, 4, 1, 7])


def make_stack(cell: str, **options: object) -> RecurrentStack:
    torch.manual_seed(0)
    stack = RecurrentStack(
        cell, 6, hidden_size=5, num_layers=3, bidirectional=True, initial_state="learned", **options
    ).eval()
    torch.nn.init.normal_(stack.initial_state)
    return stack


def make_inputs() -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return mask_padding(torch.randn(len(LENGTHS), int(LENGTHS.max()), 6, generator=generator), LENGTHS)


def run_window(stack: RecurrentStack, window: torch.Tensor, own: int, state: torch.Tensor):
    """One window of one utterance (W, F), frame by frame with torch's layers: outputs of its own frames and the state.

    The oracle shares no code with what it checks but the layers' weights.
    """
    hidden, after = window, state.clone()
    for number, layer in enumerate(stack.layers):
        columns = []
        for direction in (0, 1):
            current, outputs = state[number][:, direction], []
            frames = hidden if direction == 0 else hidden.flip(0)
            for index, frame in enumerate(frames):
                pair = (current[:1, None], current[1:, None]) if layer.cell == "lstm" else current[:, None]
                _, last = layer.directions[direction](frame[None, None], pair)
                current = (torch.cat(last) if layer.cell == "lstm" else last)[:, 0]
                outputs.append(current[0])
                if direction == 0 and index == min(own, len(frames)) - 1:
                    after[number][:, 0] = current
            columns.append(torch.stack(outputs if direction == 0 else outputs[::-1]))
        output = stack.norms[number](torch.cat(columns, dim=-1))
        hidden = output + hidden if number else output
    return hidden[:own], after


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize(("steps", "context"), [(3, 2), (1, 0), (4, 30), (2, 5), (5, 1)])
@torch.no_grad()
def test_chunks_equal_one_window_after_the_other(cell, steps, context):
    stack, inputs = make_stack(cell), make_inputs()
    outputs, _ = run_in_chunks(stack, inputs, LENGTHS, chunks=Chunks(steps, context))
    for row, length in enumerate(LENGTHS.tolist()):
        state, expected = stack.initial_state, []
        for start in range(0, length, steps):
            window = inputs[row, start : min(length, start + steps + context)]
            own, state = run_window(stack, window, steps, state)
            expected.append(own)
        torch.testing.assert_close(outputs[row, :length], torch.cat(expected), atol=1e-5, rtol=0)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("steps", [11, 500])
@torch.no_grad()
def test_a_chunk_as_long_as_the_batch_equals_the_whole_stack(cell, steps):
    stack, inputs = make_stack(cell), make_inputs()
    state = torch.randn(3, 2 if cell == "lstm" else 1, 2, 4, 5)
    expected, _, lower = stack(inputs, LENGTHS, state=state, collect=[1, 2])
    outputs, collected = run_in_chunks(stack, inputs, LENGTHS, chunks=Chunks(steps, 3), state=state, collect=[1, 2])
    assert torch.equal(outputs, expected)
    for layer, of_stack in zip(collected, lower, strict=True):
        assert torch.equal(mask_padding(layer, LENGTHS), mask_padding(of_stack, LENGTHS))


@pytest.mark.parametrize("cell", CELLS)
@torch.no_grad()
def test_neighbours_and_padding_change_no_chunk(cell):
    stack, inputs = make_stack(cell), make_inputs()
    noise = torch.where(mask_padding(torch.ones_like(inputs), LENGTHS) > 0, inputs, torch.full_like(inputs, 99.0))
    together, _ = run_in_chunks(stack, noise, LENGTHS, chunks=Chunks(3, 2))
    for row, length in enumerate(LENGTHS.tolist()):
        alone, _ = run_in_chunks(stack, inputs[row : row + 1, :length], LENGTHS[row : row + 1], chunks=Chunks(3, 2))
        torch.testing.assert_close(together[row, :length], alone[0], atol=1e-5, rtol=0)
        assert (together[row, length:] == 0).all()


@torch.no_grad()
def test_an_output_depends_on_no_step_after_its_right_context():
    stack, inputs = make_stack("gru"), make_inputs()[:1]
    before, _ = run_in_chunks(stack, inputs, LENGTHS[:1], chunks=Chunks(3, 2))
    inputs[:, 5:] += 1.0
    after, _ = run_in_chunks(stack, inputs, LENGTHS[:1], chunks=Chunks(3, 2))
    assert torch.equal(before[:, :3], after[:, :3])
    assert (before != after).any(dim=2)[0, 3:].all()


@pytest.mark.parametrize("cell", CELLS)
def test_gradients_through_chunks_equal_finite_differences(cell):
    stack = make_stack(cell).double()
    inputs = torch.randn(2, 5, 6, dtype=torch.float64, requires_grad=True)
    lengths = torch.tensor([5, 3])

    def run(inputs, *_):
        return run_in_chunks(stack, inputs, lengths, chunks=Chunks(2, 1))[0]

    assert torch.autograd.gradcheck(run, (inputs, *stack.parameters()), fast_mode=True)


def test_locked_dropout_is_the_same_in_all_windows():
    stack = make_stack("lstm", dropout=0.5, locked_dropout=True).train()
    outputs, _ = run_in_chunks(stack, torch.ones(1, 40, 6), torch.tensor([40]), chunks=Chunks(4, 4))
    is_kept = outputs[0] != 0
    assert (is_kept == is_kept[0]).all()
    assert 0 < is_kept[0].sum() < is_kept.shape[1]


@pytest.mark.parametrize("cell", CELLS[:4])
def test_recurrent_dropout_is_drawn_once_for_all_windows(cell):
    torch.manual_seed(0)
    stack = RecurrentStack(cell, 6, hidden_size=5, num_layers=1, bidirectional=True, recurrent_dropout=0.5).train()
    stack.norms[0] = torch.nn.Identity()
    inputs, lengths, outputs = torch.randn(1, 12, 6), torch.tensor([12]), []
    for steps in (12, 3):
        torch.manual_seed(1)
        outputs.append(run_in_chunks(stack, inputs, lengths, chunks=Chunks(steps, 2))[0])
    whole, chunked = outputs
    torch.testing.assert_close(chunked[:, :, :5], whole[:, :, :5])  # the forward direction of one layer is not cut
    torch.testing.assert_close(chunked[:, -3:, 5:], whole[:, -3:, 5:])
    assert (chunked[:, 3, 5:] != whole[:, 3, 5:]).any()


def test_sizes_in_seconds_are_rounded_to_steps():
    assert Chunks.from_seconds(0.5, 0.25, seconds_per_step=0.04) == Chunks(12, 6)
    assert Chunks.from_seconds(0.001, 0.0, seconds_per_step=0.04) == Chunks(1, 0)


def test_no_frames_make_no_outputs():
    outputs, _ = run_in_chunks(
        make_stack("gru"), torch.zeros(2, 0, 6), torch.zeros(2, dtype=torch.int64), chunks=Chunks(3, 2)
    )
    assert outputs.shape == (2, 0, 10)
