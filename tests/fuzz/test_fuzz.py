"""A few rounds of the fuzzing harness in the default run; `make fuzz` goes on for minutes or hours."""

import random

import pytest
import run

from vidlet.errors import VidletError

ROUNDS = 6


@pytest.mark.parametrize("kind", [kind for kind in run.KINDS if kind != "network"])  # that one starts processes
def test_damaged_inputs_are_read_or_refused_in_one_line(kind, tmp_path):
    pytest.importorskip("torch")
    make, read = run.KINDS[kind]
    path = make(tmp_path)
    whole = path.read_bytes()
    read(path)
    for number in range(ROUNDS):
        path.write_bytes(run.mutated(whole, random.Random(f"7 {kind} {number}")))
        try:
            read(path)
        except VidletError as error:
            assert "\n" not in str(error)


def test_a_round_is_made_again_by_its_numbers():
    whole = bytes(range(200))
    assert run.mutated(whole, random.Random("0 a 1")) == run.mutated(whole, random.Random("0 a 1"))
    assert len({run.mutated(whole, random.Random(f"0 a {number}")) for number in range(20)}) > 10
