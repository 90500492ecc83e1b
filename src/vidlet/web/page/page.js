// The page: a camera or a file, the answer, the timeline. The model itself runs in worker.js.
import { rateOf, Ticks, wrongResize } from "./frames.js";
import { Segments, segmentsOf } from "./windows.js";

const at = (id) => document.getElementById(id);
const video = at("video");
const shot = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
const LIVE_S = 30; // seconds of the timeline before a camera
const MOST_BARS = 8;

let about; // the model's metadata
let watched = null; // what is being watched: {live, url, stream, ticks, segments, busy, pending, ...}

// The worker: one question, one answer.
const worker = new Worker("worker.js", { type: "module" });
const waiting = new Map();
let asked = 0;

function ask(task, more = {}, transfer = []) {
  return new Promise((resolve, reject) => {
    waiting.set(++asked, { resolve, reject });
    worker.postMessage({ id: asked, task, ...more }, transfer);
  });
}

worker.onmessage = ({ data }) => {
  const { resolve, reject } = waiting.get(data.id);
  waiting.delete(data.id);
  if (data.error) reject(new Error(data.error));
  else resolve(data);
};
worker.onerror = (event) => {
  event.preventDefault();
  problem("The runtime could not be loaded. Check that the folder was copied whole, runtime/ included.");
};

const say = (text) => (at("status").textContent = text);

function problem(text) {
  at("problem").textContent = text;
  at("problem").hidden = !text;
  if (text) say("");
}

const percent = (score) => `${Math.round(100 * score)} %`;
const seconds = (time) => `${time.toFixed(1)} s`;
const threshold = () => Number(at("threshold").value);
const showThreshold = () => (at("threshold-value").textContent = percent(threshold()));
const megabytes = (bytes) => (bytes < 1e6 ? `${Math.ceil(bytes / 1e3)} kB` : `${(bytes / 1e6).toFixed(1)} MB`);

// Loading: said where the picture will be, and in the line above it.

const HINT = "Use the camera, or drop a video file here.";

function loading(text) {
  at("hint").textContent = text;
  say(text);
}

async function fetched(name) {
  const answer = await fetch(name);
  if (!answer.ok) throw new Error(`${name} is not on the server (${answer.status}). Was the folder copied whole?`);
  return answer;
}

async function modelBytes() {
  const answer = await fetched("model.onnx");
  const parts = [];
  let size = 0;
  for (const reader = answer.body.getReader(); ; ) {
    const { done, value } = await reader.read();
    if (done) break;
    parts.push(value);
    size += value.length;
    loading(`Loading the model … ${megabytes(size)}`);
  }
  return new Uint8Array(await new Blob(parts).arrayBuffer());
}

async function load() {
  about = await (await fetched("model.json")).json();
  const wrong = about.format.startsWith("1.") ? wrongResize(about.resize) : `Model format ${about.format} is too new.`;
  if (wrong) throw new Error(wrong);
  const bytes = await modelBytes();
  const size = bytes.length;
  loading("Starting the model …");
  await ask("open", { metadata: about, bytes }, [bytes.buffer]);
  const names = about.labels.length ? about.labels : about.box_labels;
  const knows = names.length > 12 ? `${names.slice(0, 12).join(", ")} …` : names.join(", ");
  at("about").textContent = `A model of ${megabytes(size)} watches on this device; nothing is uploaded. It knows: ${knows}.`;
  at("hint").textContent = HINT;
  if (about.none) at("threshold").value = about.none.threshold; // what the training found
  showThreshold();
  at("camera").disabled = at("choose").disabled = false;
  document.documentElement.dataset.state = "ready";
  say("Ready.");
}

// Sources.

function cameraProblem({ name, message }) {
  const known = {
    NotAllowedError: "The camera may not be used. Allow it for this page (beside the address), then try again.",
    NotFoundError: "No camera was found. Connect one and try again, or open a video file.",
    NotReadableError: "The camera is in use by another program. Close that and try again.",
    OverconstrainedError: "No camera was found that can give such a picture. Open a video file instead.",
  };
  return known[name] ?? `The camera cannot be opened (${message || name}). Open a video file instead.`;
}

// A phone has a camera on each side. One that looks at the person is shown as a mirror would; the model sees it as it is.
let facing = "user";

function mirror(on) {
  document.documentElement.toggleAttribute("data-mirror", on);
  at("mirror").setAttribute("aria-pressed", on);
}

async function offerSides() {
  const devices = await navigator.mediaDevices.enumerateDevices();
  at("turn").hidden = devices.filter(({ kind }) => kind === "videoinput").length < 2;
}

async function useCamera() {
  stop();
  problem("");
  if (!navigator.mediaDevices?.getUserMedia) {
    problem("Browsers give a camera only to pages from https or from localhost. Serve this folder so, or open a file.");
    return;
  }
  say("Asking for the camera …");
  try {
    const stream = await navigator.mediaDevices.getUserMedia({
      video: { width: { ideal: 640 }, facingMode: { ideal: facing } },
      audio: false,
    });
    stream.getVideoTracks()[0].onended = () => {
      if (watched?.stream !== stream) return;
      stop();
      problem("The camera went away. Connect it again, then press “Use the camera”.");
    };
    video.srcObject = stream;
    mirror((stream.getVideoTracks()[0].getSettings().facingMode ?? facing) === "user");
    at("mirror").hidden = false;
    offerSides().catch(() => {}); // without a list there is one camera
    await watch({ live: true, stream, name: "the camera" });
  } catch (error) {
    stop();
    problem(cameraProblem(error));
  }
}

async function useFile(file) {
  stop();
  problem("");
  const url = URL.createObjectURL(file);
  video.src = url;
  await watch({ live: false, url, name: file.name });
}

async function watch(source) {
  const segments = new Segments(about.labels, about.sampling.median_s / 4, about.none?.label);
  const ticks = new Ticks(rateOf(about.sampling));
  const blocks = source.live || !about.labels.length ? null : []; // of a file: what `vidlet predict` judges by
  const more = { segments, blocks, ticks, busy: false, pending: null, time: 0, answers: [], dropped: 0 };
  const now = (watched = { ...source, ...more });
  await ask("begin", { live: source.live });
  if (watched !== now) return;
  at("hint").hidden = true;
  at("stop").hidden = at("past").hidden = false;
  at("segments").replaceChildren();
  showLabel("");
  document.documentElement.dataset.state = "watching";
  say(`Watching ${source.name}.`);
  following(now);
  video.play().catch(() => {}); // what is wrong with a file comes as the event "error"
}

function stop() {
  const now = watched;
  watched = null;
  if (!now) return;
  video.pause();
  now.stream?.getTracks().forEach((track) => track.stop());
  video.srcObject = null;
  video.removeAttribute("src");
  video.load();
  if (now.url) URL.revokeObjectURL(now.url);
  clearBoxes();
  if ([at("stop"), at("turn"), at("mirror")].includes(document.activeElement)) at("camera").focus();
  at("stop").hidden = at("turn").hidden = at("mirror").hidden = true;
  mirror(false);
  at("hint").hidden = false;
  document.documentElement.dataset.state = "ready";
  say("Stopped.");
}

video.addEventListener("error", () => {
  if (!watched || watched.live) return;
  const { name } = watched;
  stop();
  problem(`This browser cannot play ${name}. Convert it to an MP4 with H.264, or to WebM, and open that.`);
});

video.addEventListener("ended", () => {
  if (!watched) return;
  watched.ended = true;
  if (!watched.busy) ended(watched).catch(failed);
});

async function ended(now) {
  if (now.blocks) await judged(now);
  if (watched !== now) return;
  now.segments.finish();
  showLabel(now.segments.label);
  showPast(now);
  const count = told(now).length;
  document.documentElement.dataset.state = "ended";
  say(`The video has ended: ${count || "no"} segment${count === 1 ? "" : "s"}.`);
}

// What the model says of a file up to now: it ends with its last frame's turn, or before.
async function judged(now) {
  const turn = now.time + 1 / now.ticks.hz;
  const end = video.duration > now.time ? Math.min(turn, video.duration) : turn;
  now.blocks.push(...(await ask("finish", { end })).blocks);
}

// The segments: of a file by the rule of `vidlet predict`, before a camera those that have held so far.
function told({ segments, blocks }) {
  if (!blocks) return segments.told;
  const whole = blocks.length ? blocks.at(-1).end - blocks[0].start : 0;
  const least = Math.min(about.sampling.median_s / 4, whole || Infinity);
  return segmentsOf(blocks, about.labels, threshold(), least, about.none?.label, about.multi_label);
}

// A stream may change its size midway: what the model remembers is of another picture.
video.addEventListener("resize", () => {
  const now = watched;
  if (!now || !video.videoWidth) return;
  const size = `${video.videoWidth} × ${video.videoHeight}`;
  if (now.size && now.size !== size) {
    say(`The picture changed its size from ${now.size} to ${size}; the model begins anew.`);
    if (now.blocks) judged(now).catch(failed);
    ask("begin", { live: now.live }).catch(failed);
  }
  now.size = size;
});

// Frames: the newest one wins before a camera; a file waits for the model.

function following(now) {
  const frame = (time) => {
    if (watched !== now) return;
    next();
    took(now, time);
  };
  const began = performance.now();
  const next = () => {
    if (video.requestVideoFrameCallback) {
      video.requestVideoFrameCallback((at_ms, { mediaTime }) => frame(now.live ? (at_ms - began) / 1e3 : mediaTime));
    } else {
      requestAnimationFrame((at_ms) => frame(now.live ? (at_ms - began) / 1e3 : video.currentTime));
    }
  };
  next();
}

function took(now, time) {
  if (!video.videoWidth || (now.live && now.busy)) return;
  if (now.pending !== null || !now.ticks.due(time)) return;
  if (now.busy) {
    now.pending = time;
    video.pause();
    return;
  }
  if (now.live && now.answers.length) now.dropped += Math.max(0, Math.round((time - now.time) * now.ticks.hz) - 1);
  answer(now, time);
}

async function answer(now, time) {
  const [width, height] = [video.videoWidth, video.videoHeight];
  if (shot.canvas.width !== width || shot.canvas.height !== height) Object.assign(shot.canvas, { width, height });
  shot.drawImage(video, 0, 0);
  const { data } = shot.getImageData(0, 0, width, height);
  Object.assign(now, { busy: true, time });
  try {
    const found = await ask("frame", { pixels: data, height, width, time }, [data.buffer]);
    now.busy = false;
    if (watched === now) show(now, time, found);
  } catch (error) {
    failed(error);
    return;
  }
  if (watched !== now) return;
  if (now.pending !== null) {
    const pending = now.pending;
    now.pending = null;
    answer(now, pending);
    if (!now.ended) video.play().catch(() => {});
  } else if (now.ended) ended(now).catch(failed);
}

function failed(error) {
  stop();
  problem(`The model could not run: ${error.message}`);
}

// The answer.

function show(now, time, { scores, boxes, blocks, resize_ms, model_ms }) {
  now.blocks?.push(...blocks);
  const shown = boxes ? boxesAbove(boxes) : [];
  const kinds = [...new Set(shown.map((box) => box.label))].sort();
  const changed = scores
    ? now.segments.push(time, scores, threshold())
    : now.segments.tell(time, kinds.join(", "), shown[0]?.score ?? 0);
  if (changed) showLabel(now.segments.label);
  if (scores) showScores(scores);
  if (boxes) showBoxes(shown);
  showPast(now);
  now.answers.push({ at: performance.now(), resize_ms, model_ms });
  if (now.answers.length > 40) now.answers.shift();
  const [first, last] = [now.answers[0].at, now.answers.at(-1).at];
  const rate = now.answers.length > 1 ? ((now.answers.length - 1) / (last - first)) * 1e3 : 0;
  const middle = (key) => now.answers.map((answer) => answer[key]).sort((a, b) => a - b)[now.answers.length >> 1];
  at("figures").textContent =
    `${rate.toFixed(1)} frames/s (the model wants ${now.ticks.hz.toFixed(1)}) · model ${middle("model_ms").toFixed(0)} ms, ` +
    `resize ${middle("resize_ms").toFixed(0)} ms a frame` + (now.live ? ` · ${now.dropped} dropped` : "");
}

function showLabel(label) {
  if (at("label").textContent !== (label || "–")) at("label").textContent = label || "–";
}

function showScores(scores) {
  const best = [...scores.keys()].sort((a, b) => scores[b] - scores[a]).slice(0, MOST_BARS);
  const order = about.labels.length <= MOST_BARS ? [...scores.keys()] : best; // few labels keep their places
  const list = at("scores");
  while (list.children.length < order.length) {
    const item = document.createElement("li");
    for (const kind of ["name", "value", "bar"]) {
      const part = item.appendChild(document.createElement("span"));
      part.className = kind;
      if (kind === "bar") part.appendChild(document.createElement("i"));
    }
    list.append(item);
  }
  order.forEach((index, place) => {
    const [name, value, bar] = list.children[place].children;
    name.textContent = about.labels[index];
    value.textContent = percent(scores[index]);
    bar.firstChild.style.transform = `scaleX(${scores[index]})`;
  });
}

function boxesAbove(boxes) {
  const found = [];
  for (let i = 0; i < boxes.length; i += 6) {
    if (boxes[i + 4] < threshold()) continue;
    const [x1, y1, x2, y2, score, kind] = boxes.subarray(i, i + 6);
    found.push({ x1, y1, x2, y2, score, kind, label: about.box_labels[kind] });
  }
  return found;
}

const color = (index) => getComputedStyle(document.documentElement).getPropertyValue(`--c${index % 8}`);
const onColor = () => (matchMedia("(prefers-color-scheme: dark)").matches ? "#111" : "#fff");

function clearBoxes() {
  at("boxes").getContext("2d").clearRect(0, 0, at("boxes").width, at("boxes").height);
}

function showBoxes(shown) {
  const canvas = at("boxes");
  const [width, height] = [video.videoWidth, video.videoHeight];
  if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
  clearBoxes();
  const pen = canvas.getContext("2d");
  const unit = Math.max(1, width / Math.max(canvas.clientWidth, 1)); // pixels of the video to one of the screen
  Object.assign(pen, { lineWidth: 3 * unit, font: `600 ${15 * unit}px system-ui, sans-serif`, textBaseline: "top" });
  for (const { x1, y1, x2, y2, score, kind, label } of shown) {
    const text = `${label} ${percent(score)}`;
    const mirrored = document.documentElement.hasAttribute("data-mirror");
    const [x, y] = [(mirrored ? 1 - x2 : x1) * width, y1 * height];
    pen.strokeStyle = pen.fillStyle = color(kind);
    pen.strokeRect(x, y, (x2 - x1) * width, (y2 - y1) * height);
    pen.fillRect(x, y, pen.measureText(text).width + 8 * unit, 21 * unit);
    pen.fillStyle = onColor();
    pen.fillText(text, x + 4 * unit, y + 3 * unit);
  }
  at("found").hidden = false;
  const names = shown.slice(0, 5).map(({ label, score }) => `${label} ${percent(score)}`);
  at("found").textContent = shown.length ? `Boxes: ${names.join(", ")}${shown.length > 5 ? " …" : ""}` : "No boxes.";
}

function showPast(now) {
  const { label } = now.segments;
  const all = told(now);
  const end = now.live || !Number.isFinite(video.duration) ? Math.max(now.time, LIVE_S) : video.duration;
  const start = now.live ? Math.max(0, now.time - LIVE_S) : 0;
  const names = about.labels.length ? about.labels : [...new Set(all.map((segment) => segment.label))];
  drawPast(all, names, start, end, now.time);
  const list = at("segments");
  const listed = all.slice(-50);
  while (list.children.length > listed.length) list.lastChild.remove();
  while (list.children.length < listed.length) {
    const item = document.createElement("li");
    item.append(document.createElement("span"), document.createElement("span"));
    item.firstChild.className = "when";
    list.append(item);
    if (document.activeElement !== list) list.scrollTop = list.scrollHeight;
  }
  listed.forEach((segment, place) => {
    const goes_on = label && !now.blocks && segment === all.at(-1) && !now.ended;
    const texts = [
      `${seconds(segment.start)} – ${goes_on ? "now" : seconds(segment.end)}`,
      `${segment.label} ${percent(segment.score)}`,
    ];
    [...list.children[place].children].forEach((part, i) => {
      if (part.textContent !== texts[i]) part.textContent = texts[i];
    });
  });
}

function drawPast(segments, names, start, end, now) {
  const canvas = at("timeline");
  const scale = devicePixelRatio || 1;
  const [width, height] = [Math.round(canvas.clientWidth * scale), Math.round(canvas.clientHeight * scale)];
  if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
  const pen = canvas.getContext("2d");
  const place = (time) => ((time - start) / (end - start)) * width;
  pen.clearRect(0, 0, width, height);
  Object.assign(pen, { font: `600 ${13 * scale}px system-ui, sans-serif`, textBaseline: "middle" });
  for (const segment of segments) {
    const [left, right] = [Math.max(0, place(segment.start)), place(segment.end)];
    if (right <= 0) continue;
    pen.fillStyle = color(Math.max(0, names.indexOf(segment.label)));
    pen.fillRect(left, 0, Math.max(right - left, scale), height);
    pen.fillStyle = onColor();
    if (right - left > pen.measureText(segment.label).width + 10 * scale) {
      pen.fillText(segment.label, left + 5 * scale, height / 2);
    }
  }
  pen.fillStyle = getComputedStyle(document.body).color;
  pen.fillRect(Math.min(place(now), width - 2 * scale), 0, 2 * scale, height);
}

// Buttons, keys, dropped files.

at("camera").onclick = useCamera;
at("turn").onclick = () => {
  facing = facing === "user" ? "environment" : "user";
  useCamera();
};
at("mirror").onclick = () => mirror(!document.documentElement.hasAttribute("data-mirror"));
at("stop").onclick = stop;
at("choose").onclick = () => at("file").click();
at("file").onchange = () => {
  const [file] = at("file").files;
  at("file").value = ""; // the same file can be opened again
  if (file) useFile(file).catch(failed);
};
at("threshold").oninput = showThreshold;
addEventListener("dragover", (event) => {
  event.preventDefault();
  at("stage").classList.add("over");
});
addEventListener("dragleave", () => at("stage").classList.remove("over"));
addEventListener("drop", (event) => {
  event.preventDefault();
  at("stage").classList.remove("over");
  const file = event.dataTransfer.files[0];
  if (file && !at("choose").disabled) useFile(file).catch(failed);
});

if (!document.documentElement.dataset.problem) {
  load().catch((error) => {
    loading("");
    problem(`The model cannot be started: ${error.message}`);
  });
}
