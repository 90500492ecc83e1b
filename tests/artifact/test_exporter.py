"""One graph is kept a structure of a module: what depends on anything but the weights' values must be exported anew."""

import os
import subprocess
import sys

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from artifacts import session
from vidlet.artifact import kept_graphs
from vidlet.artifact.exporter import to_onnx_graph
from vidlet.models import mobilenets


class Scaled(nn.Module):
    """Layers, a buffer of which a constant is folded, and a number that is an attribute."""

    def __init__(self, seed: int, temperature: float = 1.0, hidden: int = 4) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.layer = nn.Linear(3, hidden)
        self.out = nn.Linear(hidden, 2)
        self.register_buffer("spread", torch.rand(hidden) + 1)
        self.temperature = temperature

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.layer(x).tanh() / self.spread.sqrt()) / self.temperature


@pytest.fixture(autouse=True)
def exports(monkeypatch, tmp_path):
    """How often torch's exporter ran; nothing is kept from other tests."""
    monkeypatch.setattr(kept_graphs, "_kept", type(kept_graphs._kept)())
    monkeypatch.setenv("VIDLET_GRAPHS", str(tmp_path / "graphs"))
    monkeypatch.setattr(kept_graphs, "_BEGAN", float("inf"))  # also where vidlet's files change while tests run
    ran, export = [], torch.onnx.export
    monkeypatch.setattr(torch.onnx, "export", lambda *a, **k: (ran.append(1), export(*a, **k))[1])
    return ran


def exported(module: nn.Module, size: int = 3) -> onnx.ModelProto:
    return to_onnx_graph(module, {"x": torch.zeros(2, size)}, ["y"], {"x": {0: "T"}})


def difference(graph: onnx.ModelProto, module: nn.Module) -> float:
    x = torch.randn(7, 3)
    with torch.no_grad():
        return float(np.abs(session(graph).run(None, {"x": x.numpy()})[0] - module.eval()(x).numpy()).max())


def test_modules_of_one_structure_are_exported_once_and_each_graph_has_its_own_weights(exports):
    modules = [Scaled(seed) for seed in range(3)]
    graphs = [exported(module) for module in modules]
    assert len(exports) == 1
    for graph, module in zip(graphs, modules, strict=True):
        assert difference(graph, module) < 1e-6
    assert [node.op_type for node in graphs[0].graph.node] == [node.op_type for node in graphs[2].graph.node]
    assert difference(graphs[0], modules[1]) > 1e-3


def test_a_graph_is_the_same_to_the_byte_whether_its_structure_was_known_or_not(exports, monkeypatch):
    exported(Scaled(1))
    known = exported(Scaled(2)).SerializeToString(deterministic=True)
    kept_graphs._kept.clear()
    assert exported(Scaled(2)).SerializeToString(deterministic=True) == known
    assert len(exports) == 2


def test_weights_are_folded_and_no_input_is_left_of_them():
    graph = exported(Scaled(0)).graph
    assert [value.name for value in graph.input] == ["x"]
    assert "Sqrt" not in {node.op_type for node in graph.node}


def test_an_attribute_a_size_and_a_training_flag_are_part_of_the_structure(exports):
    for module in (Scaled(0), Scaled(0, temperature=2.0), Scaled(0, hidden=5)):
        assert difference(exported(module), module) < 1e-6
    assert len(exports) == 3


def test_a_class_that_is_defined_anew_is_another_structure(exports):
    def defined(factor: float) -> nn.Module:
        class Cell(nn.Module):
            def forward(self, x: Tensor) -> Tensor:
                return x * factor

        Cell.__qualname__ = "Cell"
        Cell.__module__ = __name__
        globals()["Cell"] = Cell  # as a cell of a notebook that is run again
        return Cell()

    for factor in (2.0, 3.0):
        module = defined(factor)
        assert difference(exported(module), module) < 1e-6
    assert len(exports) == 2


class Refusing:
    """What cannot be pickled, for a reason of its own."""

    def __reduce__(self) -> str:
        raise ValueError("no")


@pytest.mark.parametrize("extra", [lambda x: x, memoryview(b""), Refusing()], ids=["lambda", "memory", "refusing"])
def test_a_module_that_cannot_be_pickled_is_exported_each_time(extra, exports, monkeypatch):
    monkeypatch.setattr("vidlet.artifact.exporter.fuse_batch_norm", lambda module: module.eval())  # which copies
    module = Scaled(0)
    module.extra = extra
    for _ in range(2):
        assert difference(exported(module), module) < 1e-6
    assert len(exports) == 2


def test_so_many_structures_are_kept_and_no_more(exports, monkeypatch):
    monkeypatch.setattr(kept_graphs, "IN_MEMORY", 1)
    for temperature in (1.0, 2.0, 2.0, 1.0):
        exported(Scaled(0, temperature))
    assert len(exports) == 3


def layers(hidden: int = 4) -> nn.Module:
    """A module of torch's own classes."""
    return nn.Sequential(nn.Linear(3, hidden), nn.Tanh(), nn.Linear(hidden, 2))


def as_another_process(module: nn.Module) -> onnx.ModelProto:
    kept_graphs._kept.clear()
    return exported(module)


def test_another_process_finds_a_graph_of_code_that_is_known_and_not_of_others(exports, tmp_path):
    first = exported(layers()).SerializeToString(deterministic=True)
    module = layers()
    again = as_another_process(module)
    assert len(exports) == 1 and difference(again, module) < 1e-6
    assert len(first) == len(again.SerializeToString(deterministic=True))
    as_another_process(Scaled(0))
    as_another_process(Scaled(0))  # whose class is of this file
    assert len(exports) == 3 and len(list((tmp_path / "graphs").iterdir())) == 1


def test_a_structure_is_the_same_in_every_process(tmp_path):
    script = (
        "from torch import nn; from vidlet.artifact.kept_graphs import structure_of\n"
        "class Sets(nn.Tanh):\n    pass\n"
        "module = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), Sets())\n"
        "module[2].names = {'a', 'b', 'c', 'd'}\n"
        "print(structure_of(module).digest.hex())"
    )
    told = set()
    for seed in "12":
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        found = subprocess.run(
            [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True
        )
        told.add(found.stdout)
    assert len(told) == 1 and told.pop().strip()


def test_other_code_of_vidlet_or_another_exporter_makes_it_again(exports, monkeypatch):
    as_another_process(layers())
    monkeypatch.setattr(kept_graphs, "_versions", lambda: "others")
    as_another_process(layers())
    as_another_process(layers(5))
    assert len(exports) == 3


def test_a_forward_that_was_put_in_place_of_vidlets_is_not_kept_for_others(exports, monkeypatch):
    as_another_process(layers())
    monkeypatch.setattr(nn.Tanh, "forward", lambda self, x: x * 2)
    module = layers()
    assert difference(as_another_process(module), module) < 1e-6 and len(exports) == 2
    monkeypatch.undo()
    module = layers()
    assert difference(exported(module), module) < 1e-6


FACTOR = 2.0


def doubled(x: Tensor) -> Tensor:
    return x * FACTOR


class Calling(nn.Module):
    """Code that reads names of its module, as notebooks have them."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        return doubled(self.layer(x))


@pytest.mark.parametrize("name, value", [("FACTOR", 3.0), ("doubled", lambda x: x * 5.0)])
def test_what_code_calls_and_reads_by_names_of_its_module_is_part_of_a_structure(name, value, exports, monkeypatch):
    module = Calling()
    assert difference(exported(module), module) < 1e-6
    monkeypatch.setitem(globals(), name, value)
    assert difference(exported(module), module) < 1e-6 and len(exports) == 2


def test_code_of_vidlets_that_calls_what_others_put_there_is_not_known(monkeypatch):
    def known() -> tuple[bool, bytes]:
        found = kept_graphs.structure_of(mobilenets.ConvNorm(3, 4, 3, 2, padding="same"))
        assert found is not None
        return found.known, found.digest

    before = known()
    assert before[0]
    monkeypatch.setattr(mobilenets, "same_pads", lambda *_: (0, 0))
    assert not known()[0]
    monkeypatch.undo()
    assert known() == before


def test_a_cache_that_others_filled_is_read_where_it_cannot_be_written(exports, monkeypatch):
    exported(layers())

    def refused(self, *_, **__):
        raise PermissionError(13, "no")

    monkeypatch.setattr(kept_graphs.Path, "touch", refused)
    as_another_process(layers())
    assert len(exports) == 1


def test_a_process_whose_code_was_replaced_meanwhile_leaves_no_graph_for_others(exports, monkeypatch, tmp_path):
    monkeypatch.setattr(kept_graphs, "_BEGAN", 0.0)
    exported(layers())
    assert len(exports) == 1 and not (tmp_path / "graphs").exists()


@pytest.mark.parametrize("damage", [lambda b: b[:-1], lambda b: b[:40] + bytes([b[40] ^ 1]) + b[41:], lambda b: b""])
def test_a_damaged_graph_is_made_again(damage, exports, tmp_path):
    exported(layers())
    [path] = (tmp_path / "graphs").iterdir()
    whole = path.read_bytes()
    path.write_bytes(damage(whole))
    as_another_process(layers())
    assert len(exports) == 2 and path.read_bytes() == whole


def test_where_nothing_can_be_written_a_module_is_exported_all_the_same(exports, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("VIDLET_GRAPHS", str(tmp_path / "file"))
    module = layers()
    assert difference(exported(module), module) < 1e-6 and len(exports) == 1


def test_the_graphs_used_longest_ago_are_removed(exports, monkeypatch, tmp_path):
    monkeypatch.setattr(kept_graphs, "ON_DISK", 1)
    as_another_process(layers(4))
    as_another_process(layers(5))
    assert len(list((tmp_path / "graphs").iterdir())) == 1
    as_another_process(layers(5))
    assert len(exports) == 2


@pytest.mark.parametrize("layer", [nn.GRU, nn.LSTM])
def test_a_recurrent_layer_is_one_operator_with_its_weights_in_order(layer):
    module = layer(3, 5, batch_first=True).eval()
    states = {name: torch.randn(1, 2, 5) for name in ("h", "c")[: 1 if layer is nn.GRU else 2]}
    outputs = ["out", *(f"next.{name}" for name in states)]

    class Step(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = module

        def forward(self, x: Tensor, h: Tensor, c: Tensor | None = None) -> tuple[Tensor, ...]:
            out, after = self.layer(x, h if c is None else (h, c))
            return (out, after) if c is None else (out, *after)

    dynamic = {"x": {0: "N", 1: "T"}} | {name: {1: "N"} for name in states}
    graph = to_onnx_graph(Step(), {"x": torch.zeros(2, 4, 3), **states}, outputs, dynamic)
    assert {node.op_type for node in graph.graph.node} == {"Transpose", "Squeeze", layer.__name__}
    x = torch.randn(2, 9, 3)
    feeds = {"x": x.numpy(), **{name: state.numpy() for name, state in states.items()}}
    with torch.no_grad():
        wanted = Step()(x, *states.values())
    for said, right in zip(session(graph).run(outputs, feeds), wanted, strict=True):
        np.testing.assert_allclose(said, right.numpy(), atol=1e-6)


def test_recurrent_layers_of_another_form_are_left_to_torch():
    module = nn.GRU(3, 5, num_layers=2).eval()

    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = module

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x)[0]

    x = torch.randn(4, 2, 3)
    graph = to_onnx_graph(Both(), {"x": torch.zeros(4, 2, 3)}, ["y"], {})
    with torch.no_grad():
        np.testing.assert_allclose(session(graph).run(None, {"x": x.numpy()})[0], module(x)[0].numpy(), atol=1e-6)
