"""The smallest client of an artifact, as source to paste: ONNX Runtime and NumPy, nothing of vidlet."""

from collections.abc import Mapping, Sequence

_CLIENT = """\
import json
import numpy as np
import onnxruntime

model = onnxruntime.InferenceSession({path!r})
labels = json.loads(model.get_modelmeta().custom_metadata_map["vidlet"])["labels"]
kinds = {{"tensor(float)": np.float32, "tensor(uint8)": np.uint8}}
states = [i for i in model.get_inputs() if i.name.startswith("state.")]
state = {{s.name: np.zeros((1, *s.shape[1:]), kinds[s.type]) for s in states}}
{clip}
scores, *state_out = model.run(["scores", *("next_" + name for name in state)], {{**clip, **state}})
state = dict(zip(state, state_out))  # hand it on with the next frames, or drop it to start anew
print(labels[scores[0].argmax()], scores[0].max())
"""


def python_client(path: str, inputs: Mapping[str, Sequence[int]]) -> str:
    """Source that scores a clip with the model file ``path``; ``inputs`` are the shapes of its arrays behind T."""
    if "frames" in inputs:
        height, width, _ = inputs["frames"]
        clip = f'clip = {{"frames": np.zeros((1, {height}, {width}, 3), np.uint8)}}  # yours: uint8 (T, H, W, 3), RGB'
        if "flow" in inputs:
            flow = f'clip["flow"] = np.zeros((1, {height}, {width}, 2), np.float32)'
            clip += f"\n{flow}  # pixels since the frame before: x, y"
    else:
        arrays = ", ".join(f'"{name}": np.zeros((1, {shape[0]}), np.uint8)' for name, shape in inputs.items())
        clip = f"clip = {{{arrays}}}  # yours: uint8 (T, D)"
    return _CLIENT.format(path=path, clip=clip)
