// A model of vidlet: RGB frames in, scores and boxes out, its memory handed on. `ort` is onnxruntime-web.
export async function openModel(ort, bytes, about) {
  if (!about.format.startsWith("1.")) throw new Error(`model format ${about.format}: only 1.x is known here`);
  const session = await ort.InferenceSession.create(bytes, { executionProviders: ["wasm"] });
  const inputs = session.inputMetadata;
  const states = inputs.filter(({ name }) => name.startsWith("state."));
  const [, height, width] = inputs.find(({ name }) => name === "frames").shape;

  // Zeros, always. `windows` histories share the frames; row n of each array is window n.
  function zeroState(windows = 1) {
    const zeros = states.map(({ name, type, shape }) => {
      const dims = [windows, ...shape.slice(1)];
      const size = dims.reduce((a, b) => a * b, 1);
      const values = type === "uint8" ? new Uint8Array(size) : new Float32Array(size);
      return [name, new ort.Tensor(type, values, dims)];
    });
    return Object.fromEntries(zeros);
  }

  // rgb: Uint8Array of T * height * width * 3 bytes, resized by the rule in about.resize.
  async function run(rgb, state) {
    const frames = new ort.Tensor("uint8", rgb, [rgb.length / (height * width * 3), height, width, 3]);
    const found = await session.run({ frames, ...state });
    const next = Object.fromEntries(states.map(({ name }) => [name, found[`next_${name}`]]));
    return { scores: found.scores?.data, boxes: found.boxes?.data, state: next };
  }

  return { height, width, zeroState, run };
}
