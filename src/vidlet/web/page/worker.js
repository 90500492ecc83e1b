// The model runs here, so that the page answers while it computes. Nothing is sent anywhere but to the page.
import * as ort from "./runtime/ort.wasm.min.js";
import { openModel } from "./client.js";
import { rateOf, resize } from "./frames.js";
import { StaggeredWindows, Timeline } from "./windows.js";

let about, model, windows, timeline;

const begin = (live = true) => {
  const length = about.sampling.median_s * rateOf(about.sampling);
  windows = live ? new StaggeredWindows(model, length) : null;
  timeline = live ? null : new Timeline(model, length);
};

async function open({ metadata, bytes }) {
  about = metadata;
  ort.env.wasm.numThreads = 1; // more need headers that a plain static server does not send
  ort.env.wasm.wasmPaths = {
    mjs: new URL("./runtime/ort-wasm-simd-threaded.js", import.meta.url).href,
    wasm: new URL("./runtime/ort-wasm-simd-threaded.wasm", import.meta.url).href,
  };
  model = await openModel(ort, bytes, about);
  begin();
  return {};
}

async function frame({ pixels, height, width, time }) {
  const began = performance.now();
  const rgb = resize(pixels, height, width, 4, model.height, model.width);
  const resized = performance.now();
  const found = await (timeline ? timeline.push(time, rgb) : windows.push(rgb));
  return { ...found, resize_ms: resized - began, model_ms: performance.now() - resized };
}

const tasks = {
  open,
  frame,
  begin: async ({ live }) => begin(live) ?? {},
  finish: async ({ end }) => ({ blocks: timeline?.windows.frames ? timeline.finish(end) : [] }),
};
let last = Promise.resolve();

onmessage = ({ data }) => {
  last = last.then(async () => {
    try {
      postMessage({ id: data.id, ...(await tasks[data.task](data)) });
    } catch (error) {
      postMessage({ id: data.id, error: String(error?.message ?? error) });
    }
  });
};
