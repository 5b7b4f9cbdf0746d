"""patch(memory="auto") with an example: modes by measured bytes and milliseconds, with and without a budget."""
import itertools
import re

import pytest
import torch
from torch import nn

import gantry
from gantry.nn import patch
from gantry.nn.patch_auto import Move, Option, fit, frontier, moves
from gantry.nn.patch_measure import Step, saved_storages

MIB = 2**20


def modes(options):
    return [option.mode for option in options]


def test_frontier_is_the_convex_hull():
    options = [Option("a", 10, 1.0), Option("dominated", 9, 2.0), Option("inside", 14, 3.0), Option("b", 30, 4.0),
               Option("c", 31, 9.0), Option("worse than stock", -5, 0.5)]
    assert modes(frontier(options, 0.0)) == ["a", "b", "c"]
    assert modes(frontier(options, 1.5)) == ["a", "b", "c"] and frontier(options, 1.5)[0].ms == 0
    assert modes(frontier(options, 4.0)) == ["b", "c"], "of the free ones, that which saves most"
    assert frontier([Option("nothing", 0, 0.0)], 0.0) == []
    assert modes(frontier([Option("faster", 5, -2.0), Option("slow", 50, 1.0)], 0.0)) == ["faster", "slow"]


def test_frontier_contains_every_best_choice():
    generator = torch.Generator().manual_seed(6)
    for _ in range(50):
        draws = torch.randint(0, 20, (5, 2), generator=generator).tolist()
        options = [Option(str(i), saved, float(ms)) for i, (saved, ms) in enumerate(draws)]
        hull = [Option("store", 0, 0.0), *frontier(options, 0.0)]
        for price in (0.1, 0.5, 1.0, 3.0, 10.0):
            best = max(o.bytes_saved - price * o.ms for o in [*options, hull[0]])
            assert max(o.bytes_saved - price * o.ms for o in hull) == pytest.approx(best)


def test_moves_go_by_bytes_for_a_millisecond():
    frontiers = [[Option("a", 10, 0.0), Option("b", 40, 10.0)], [], [Option("c", 20, 1.0), Option("d", 50, 4.0)]]
    assert [(m.index, m.option.mode, m.bytes_saved, m.ms) for m in moves(frontiers)] == [
        (0, "a", 10, 0.0), (2, "c", 20, 1.0), (2, "d", 30, 3.0), (0, "b", 30, 10.0)]


class Machine:
    """A step whose peak is what the moves leave of 1000 bytes, times `share`."""

    def __init__(self, share=1.0):
        self.applied, self.measured, self.share = [], 0, share

    def apply(self, move):
        self.applied.append(move)

    def peak(self):
        self.measured += 1
        return 1000 - int(self.share * sum(m.bytes_saved for m in self.applied))


STEPS = [Move(0, Option("a", 100, 0.0), 100, 0.0), *(Move(i, Option("b", 200, 1.0), 200, 1.0) for i in (1, 2, 3))]


@pytest.mark.parametrize("budget, share, taken, peak, measured", [
    (2000, 1.0, 1, 900, 1),  # the free step alone, which is always taken
    (600, 1.0, 3, 500, 2),
    (600, 0.5, 4, 650, 3),
])
def test_fit_takes_no_more_than_the_measured_peak_needs(budget, share, taken, peak, measured):
    machine = Machine(share)
    if peak > budget:
        with pytest.raises(gantry.InputError, match=f"budget_bytes = {budget} cannot be met.*{peak} bytes"):
            fit(STEPS, machine.apply, machine.peak, budget)
    else:
        assert fit(STEPS, machine.apply, machine.peak, budget) == (taken, peak)
    assert (len(machine.applied), machine.measured) == (taken, measured)


class Mlp(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm, self.first, self.act = nn.LayerNorm(64), nn.Linear(64, 512), nn.GELU()
        self.second, self.dropout = nn.Linear(512, 64), nn.Dropout(0.1)
        self.batch_norm = nn.BatchNorm1d(64)

    def forward(self, x):
        return self.batch_norm(x + self.dropout(self.second(self.act(self.first(self.norm(x))))))


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner, self.outer, self.unused = Mlp(), Mlp(), nn.GELU()

    def forward(self, x):
        return self.outer(self.inner(x))


@pytest.fixture
def net():
    torch.manual_seed(1)
    return Net()


ROWS = 2048
X = torch.randn(ROWS, 64, generator=torch.Generator().manual_seed(2))


def test_an_example_measures_what_each_module_saves(net):
    table = patch(net, example={"x": X})
    for name in ("inner.act", "outer.act"):
        row = table[name]
        # Its input, 512 floats a row, against a bit an element. Time decides about the mode, which is left open here.
        assert row.mode == "store" or row.bytes_saved == ROWS * 512 * 4 - ROWS * 512 // 8
        assert row.mode == "in-place" or "would save 4063232 bytes but add" in row.reason
    assert table["unused"].reason == "the example does not call it" and table["unused"].mode == "store"
    assert table.peak_bytes > 2 * ROWS * 512 * 4 and "a step allocates" in str(table)


def test_measuring_leaves_no_trace(net):
    net.inner.eval()
    net.inner.first.weight.grad = torch.ones(512, 64)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    state = torch.get_rng_state()
    patch(net, example={"x": X})
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert not net.inner.training and not net.inner.act.training and net.outer.training
    assert patch(net, example={"x": X})["inner.act"].reason == "no mode keeps less than the stock module here", "eval"
    assert torch.equal(net.inner.first.weight.grad, torch.ones(512, 64)) and net.outer.first.weight.grad is None


def peak_of(net, memory):
    patch(net, memory)
    step = Step(net, {"x": X})
    with step.traceless():
        return step.peak_bytes()


def test_budget_is_met_by_the_measured_peak(net):
    most, least = peak_of(net, "store"), peak_of(net, "in-place")
    assert least < most - 3 * MIB
    budget = (most + least) // 2
    table = patch(net, budget_bytes=budget, example={"x": X})
    assert table.peak_bytes <= budget and table.budget_bytes == budget
    assert peak_of(net, table.modes()) == table.peak_bytes
    assert {row.reason for row in table if row.mode != "store"} and table.patched
    for row in table.patched:
        assert row.bytes_saved > 0 and row.ms is not None
        assert row.reason == "adds no time" or re.fullmatch(r"[\d.]+ MiB for a millisecond", row.reason)


def test_a_budget_that_cannot_be_met_tells_the_least(net):
    with pytest.raises(gantry.InputError, match="budget_bytes = 1000 cannot be met") as error:
        patch(net, budget_bytes=1000, example={"x": X})
    least = int(re.search(r"allocates (\d+) bytes", str(error.value)).group(1))
    assert type(net.inner.act) is nn.GELU, "unpatched"
    assert patch(net, budget_bytes=least, example={"x": X}).peak_bytes <= least


def test_a_callable_runs_the_step(net):
    def step():
        net(X).square().mean().backward()

    table = patch(net, example=step)
    assert table["inner.act"].bytes_saved is not None and net.inner.first.weight.grad is None

    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)

    def train():
        step()
        optimizer.step()

    with pytest.raises(gantry.InputError, match="example changed parameters"):
        patch(net, example=train)
    assert type(net.inner.act) is nn.GELU


def test_examples_that_are_none(net):
    with pytest.raises(gantry.InputError, match="example must be a dict of inputs or a callable.*got list"):
        patch(net, example=[X])
    with pytest.raises(gantry.InputError, match="neither a loss nor a tensor with a gradient"):
        patch(nn.Sequential(nn.Flatten()), example={"input": X})


def test_an_output_that_is_overwritten_is_found_by_running():
    class Overwriting(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear, self.act = nn.Linear(64, 64), nn.GELU()

        def forward(self, x):
            return self.act(self.linear(x)).mul_(2)

    row = patch(Overwriting(), example={"x": X})["act"]
    assert (row.mode, row.reason) == ("store", "its output, which in-place keeps, is overwritten before backward")


def test_an_activation_whose_input_is_kept_anyway_saves_nothing():
    class Shared(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear, self.act = nn.Linear(64, 64), nn.GELU()

        def forward(self, x):
            y = self.linear(x)
            return y.exp().sum() + y.square().sum() + self.act(y).sum()

    row = patch(Shared(), example={"x": X})["act"]
    assert (row.mode, row.bytes_saved, row.reason) == ("store", 0, "no mode keeps less than the stock module here")


def test_torch_s_encoder_is_measured():
    layer = nn.TransformerEncoderLayer(64, 2, 128, dropout=0.1, activation=nn.GELU(), batch_first=True)
    table = patch(nn.TransformerEncoder(layer, 2), example={"src": X.view(8, 256, 64)})
    row = table["layers.0.self_attn"]
    # Probabilities, mask and dropped probabilities of two heads, at least.
    assert row.mode == "store" or row.bytes_saved > 3 * 4 * 8 * 2 * 256 * 256
    assert table["layers.1.activation"].reason == "no mode keeps less than the stock module here", "dropout follows"


def test_saved_storages_counts_each_once():
    a = torch.randn(100, requires_grad=True)
    with saved_storages([a]) as storages:
        b = a * 2
        c = b * b
        (c * b.view(10, 10).flatten()).sum()
    assert sum(storages.values()) == 2 * 400
    assert len(list(itertools.chain(storages))) == 2
