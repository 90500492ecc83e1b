// A model of clips of a few seconds before a video that does not end. No DOM here.

// N windows share the frames, each with its own row of the state, a stride apart; the oldest under way speaks.
export class StaggeredWindows {
  constructor(model, length, windows = 4) {
    this.model = model;
    this.windows = Math.max(1, Math.min(windows, length));
    this.stride = Math.max(1, Math.round(length / this.windows));
    this.state = model.zeroState(this.windows);
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
    const { scores, boxes, state } = await this.model.run(rgb, this.state);
    this.state = state;
    this.frames += 1;
    const oldest = Math.max(Math.floor((this.frames - 1) / this.stride) - this.windows + 1, 0);
    return { scores: scores && row(scores, oldest % this.windows, Object.keys(state).length ? this.windows : 1), boxes };
  }
}

function row(scores, number, rows) {
  const size = scores.length / rows;
  const at = Math.min(number, rows - 1) * size; // without a state there is one row
  return scores.slice(at, at + size);
}

// What happens when: a label that reaches the threshold for at least `least` seconds is a segment; "" names nothing, and
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
