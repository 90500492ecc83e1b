// A model of clips of a few seconds before a video that does not end. No DOM here.

// As Python rounds: halves to the even number.
const rounded = (value) => (value % 1 === 0.5 ? 2 * Math.round(value / 2) : Math.round(value));

// N windows share the frames, each with its own row of the state, a stride apart; the oldest under way speaks. `whole` adds
// one more row that is never started anew: the score of everything so far.
export class StaggeredWindows {
  constructor(model, length, windows = 4, whole = false) {
    this.model = model;
    this.windows = Math.max(1, Math.min(windows, rounded(length)));
    this.stride = Math.max(1, rounded(rounded(length) / this.windows));
    this.length = this.stride * this.windows;
    this.state = model.zeroState(this.windows + whole);
    this.frames = 0;
  }

  // One frame of height * width * 3 bytes: {scores (K), boxes (M * 6)}.
  async push(rgb) {
    if (this.frames && this.frames % this.stride === 0) {
      const row = (this.frames / this.stride) % this.windows;
      for (const { data, dims } of Object.values(this.state)) {
        const size = data.length / dims[0];
        data.fill(0, row * size, (row + 1) * size);
      }
    }
    const rows = Object.values(this.state)[0]?.dims[0] ?? 1; // without a state there is one row
    const { scores, boxes, state } = await this.model.run(rgb, this.state);
    Object.assign(this, { state, scores, rows });
    this.frames += 1;
    const oldest = Math.max(Math.floor((this.frames - 1) / this.stride) - this.windows + 1, 0);
    return { scores: scores && this.row(oldest % this.windows), boxes };
  }

  // The scores (K) of a row.
  row(number) {
    const size = this.scores.length / this.rows;
    const at = Math.min(number, this.rows - 1) * size;
    return this.scores.slice(at, at + size);
  }

  // Forget the row that is never started anew.
  dropWhole() {
    const kept = this.model.zeroState(this.windows);
    for (const [name, { data }] of Object.entries(kept)) data.set(this.state[name].data.subarray(0, data.length));
    this.state = kept;
  }
}

const mean = (rows) => rows[0].map((_, i) => rows.reduce((sum, row) => sum + row[i], 0) / rows.length);

// A file from its first frame to its last, as `vidlet predict` reads it: time in blocks of one stride, {start, end, scores},
// each the mean of the last scores of the N windows that cover it. A file of at most one and a half training clips is one block.
export class Timeline {
  constructor(model, length) {
    this.windows = new StaggeredWindows(model, length, 4, true);
    Object.assign(this, { short: 1.5 * length, start: 0, whole: null, finals: [], starts: [], held: [] });
  }

  // One frame: what StaggeredWindows.push gives, and the blocks that are known now.
  async push(time, rgb) {
    const found = await this.windows.push(rgb);
    const { frames, stride, length, windows } = this.windows;
    if (!found.scores) return { ...found, blocks: [] };
    if (frames === 1) this.start = time;
    if ((frames - 1) % stride === 0) {
      this.starts.push(time);
      const ended = this.starts.length - 1 - windows; // the block whose own window ended with the frame before
      if (ended >= 0) this.held.push({ start: this.starts[ended], end: this.starts[ended + 1], scores: this.around(ended) });
    }
    if (frames % stride === 0 && frames >= length) this.speak();
    if (frames <= this.short) {
      this.whole = this.windows.row(windows);
      return { ...found, blocks: [] };
    }
    if (this.whole) this.windows.dropWhole();
    this.whole = null;
    return { ...found, blocks: this.held.splice(0) };
  }

  // At the end of the file: the blocks that are left. Windows that have seen half their time speak, too.
  finish(end) {
    const { frames, stride, length } = this.windows;
    if (this.whole) return [{ start: this.start, end, scores: this.whole }];
    const blocks = [];
    for (let block = Math.max(this.starts.length - this.windows.windows, 0); block < this.starts.length; block++) {
      if (this.finals.length === block && 2 * (frames - block * stride) >= length) this.speak();
      blocks.push({ start: this.starts[block], end: this.starts[block + 1] ?? end, scores: this.around(block) });
    }
    return blocks;
  }

  speak() {
    this.finals.push(this.windows.row(this.finals.length % this.windows.windows));
  }

  // The mean of the windows that cover a block; where none of them speaks, the last that spoke.
  around(block) {
    const first = Math.min(Math.max(block - this.windows.windows + 1, 0), this.finals.length - 1);
    return mean(this.finals.slice(first, block + 1));
  }
}

const joined = (a, b) => {
  const [long, more] = [a.end - a.start, b.end - b.start];
  return { ...a, end: b.end, score: (a.score * long + b.score * more) / (long + more || 1) };
};

// Segments {start, end, label, score} of blocks, by the rule of `vidlet predict`: one label at a time (or, `many`, each for
// itself), none shorter than `least` seconds, gaps shorter than that bridged; a segment's score is the mean over its time.
export function segmentsOf(blocks, labels, threshold, least, none, many = false) {
  const told = [];
  const groups = many ? labels.map((_, i) => [i]) : [[...labels.keys()]];
  for (const group of groups) {
    const kept = [];
    let run = null;
    for (const { start, end, scores } of [...blocks, { scores: [] }]) {
      const best = group.reduce((top, i) => (scores[i] > scores[top] ? i : top), group[0]);
      const named = scores[best] >= threshold && labels[best] !== none;
      const span = named ? { start, end, label: labels[best], score: scores[best] } : null;
      if (run && span?.label === run.label) {
        run = joined(run, span);
        continue;
      }
      if (run && run.end - run.start >= least - 1e-9) {
        const before = kept.at(-1);
        if (before?.label === run.label && run.start - before.end < least) kept[kept.length - 1] = joined(before, run);
        else kept.push(run);
      }
      run = span;
    }
    told.push(...kept);
  }
  return told.sort((a, b) => a.start - b.start || (a.label < b.label ? -1 : 1));
}

// Before a camera: a label that reaches the threshold for at least `least` seconds is a segment; "" names nothing, and
// so does the label `none`, which means none of the others.
export class Segments {
  constructor(labels, least, none) {
    Object.assign(this, { labels, least, none, told: [], label: "", candidate: null });
  }

  // The scores after the frame at `time`; returns whether the told label has changed.
  push(time, scores, threshold) {
    const best = scores.reduce((top, score, i) => (score > scores[top] ? i : top), 0);
    const named = scores[best] >= threshold && !(this.none && this.labels[best] === this.none);
    return named ? this.tell(time, this.labels[best], scores[best]) : this.tell(time, "", 0);
  }

  tell(time, label, score) {
    const now = this.told.at(-1);
    if (label === this.label) {
      this.candidate = null;
      if (now && label) Object.assign(now, { end: time, score: Math.max(now.score, score) });
      return false;
    }
    if (this.candidate?.label !== label) this.candidate = { label, start: time, score };
    this.candidate.score = Math.max(this.candidate.score, score);
    if (time - this.candidate.start < this.least) return false;
    if (now && this.label) now.end = this.candidate.start;
    this.label = label;
    if (label) this.told.push({ ...this.candidate, end: time });
    this.told.splice(0, Math.max(0, this.told.length - 500)); // a camera never ends
    this.candidate = null;
    return true;
  }

  // The source has ended: what could not hold long enough is told where nothing else was.
  finish() {
    if (!this.told.length && this.candidate?.label) {
      this.label = this.candidate.label;
      this.told.push({ ...this.candidate, end: this.candidate.start });
    }
  }
}
