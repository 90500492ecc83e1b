"""The page's JavaScript client on the real MobileNetV2: the same RGB bytes give our scores.

Float32 to 1e-4. Integer arithmetic rounds otherwise in WebAssembly than here (as it does on ARM), and a score between
two labels moves: .007 was seen with this head; .02 is allowed.
"""

import numpy as np
import pytest
from test_web_client import RUN_CLIENT, in_node, needs_node, needs_runtime

from real_files import CUTS, made, pictures  # noqa: F401  # a fixture
from vidlet.runtime import load
from vidlet.web import write_page

pytestmark = [pytest.mark.slow, needs_node, needs_runtime]
TOLERANCE = {"float32": 1e-4, "int8": 0.02}


@pytest.mark.parametrize("kind", ["float32", "int8"])
@pytest.mark.parametrize("cut", sorted(CUTS))
def test_the_same_bytes_give_our_scores_with_the_real_network(cut, kind, made, tmp_path):  # noqa: F811
    path = made(cut)[kind]
    write_page(path, tmp_path / "page")
    frames = pictures()
    found = in_node(tmp_path / "page", RUN_CLIENT, {"frames": frames.ravel().tolist(), "length": 8})
    scores = load(path, threads=1)(frames)[0][0]
    print(cut, kind, scores, np.abs(np.array(found["whole"]) - scores).max())
    assert np.ptp(scores) > 0.05  # they tell something
    for way in ("whole", "streamed"):
        np.testing.assert_allclose(found[way], scores, atol=TOLERANCE[kind])
        assert np.argmax(found[way]) == np.argmax(scores)
