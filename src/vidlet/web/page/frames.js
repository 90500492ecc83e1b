// From the pictures of a browser to the frames of a model: the resize rule, and which frames are taken. No DOM here.

const BITS = 22;
const tables = new Map(); // "n m": the weights of one axis

// Weights of one axis from n to m samples, as integers: output i sums fixed[at[i] + k] * input[first[i] + k].
function axis(n, m) {
  const key = `${n} ${m}`;
  if (tables.has(key)) return tables.get(key);
  const scale = n / m;
  const support = Math.max(scale, 1);
  const first = new Int32Array(m);
  const at = new Int32Array(m + 1);
  const fixed = [];
  for (let i = 0; i < m; i++) {
    const center = (i + 0.5) * scale;
    first[i] = Math.max(0, Math.floor(center - support + 0.5));
    const last = Math.min(n, Math.floor(center + support + 0.5));
    const weights = [];
    for (let j = first[i]; j < last; j++) weights.push(Math.max(0, 1 - Math.abs((j + 0.5 - center) / support)));
    const sum = weights.reduce((a, b) => a + b, 0);
    for (const weight of weights) fixed.push(Math.floor(0.5 + (weight / sum) * 2 ** BITS));
    at[i + 1] = fixed.length;
  }
  const table = { first, at, fixed: Int32Array.from(fixed) };
  if (tables.size > 15) tables.clear(); // streams that change their size again and again
  tables.set(key, table);
  return table;
}

const rounded = (sum) => {
  const value = (sum + (1 << (BITS - 1))) >> BITS;
  return value > 255 ? 255 : value;
};

// Pixels (height, width, channels), RGB or RGBA, stretched to (outHeight, outWidth, 3): the rule "triangle", exact.
export function resize(pixels, height, width, channels, outHeight, outWidth) {
  const rows = new Uint8Array(height * outWidth * 3);
  if (width === outWidth) {
    for (let from = 0, to = 0; to < rows.length; from += channels, to += 3) {
      rows[to] = pixels[from];
      rows[to + 1] = pixels[from + 1];
      rows[to + 2] = pixels[from + 2];
    }
  } else {
    const { first, at, fixed } = axis(width, outWidth);
    for (let y = 0, to = 0; y < height; y++) {
      for (let x = 0; x < outWidth; x++, to += 3) {
        let red = 0, green = 0, blue = 0;
        let from = (y * width + first[x]) * channels;
        for (let k = at[x]; k < at[x + 1]; k++, from += channels) {
          red += fixed[k] * pixels[from];
          green += fixed[k] * pixels[from + 1];
          blue += fixed[k] * pixels[from + 2];
        }
        rows[to] = rounded(red);
        rows[to + 1] = rounded(green);
        rows[to + 2] = rounded(blue);
      }
    }
  }
  if (height === outHeight) return rows;
  const stride = outWidth * 3;
  const out = new Uint8Array(outHeight * stride);
  const { first, at, fixed } = axis(height, outHeight);
  for (let y = 0; y < outHeight; y++) {
    for (let x = 0; x < stride; x++) {
      let sum = 0;
      let from = first[y] * stride + x;
      for (let k = at[y]; k < at[y + 1]; k++, from += stride) sum += fixed[k] * rows[from];
      out[y * stride + x] = rounded(sum);
    }
  }
  return out;
}

// Whether our resize is the rule that a model was trained with: null, or a sentence that says what differs.
export function wrongResize({ rule, golden }) {
  if (rule !== "triangle") return `The model was trained with the resize rule "${rule}", which this page does not have.`;
  const [height, width] = [golden.input.length, golden.input[0].length];
  const found = resize(Uint8Array.from(golden.input.flat(2)), height, width, 3, ...golden.size);
  const same = golden.output.flat(2).every((value, i) => value === found[i]);
  return same ? null : "The resize rule of this page does not give the golden vector in the model's metadata.";
}

// Frames a second at which the training clips were seen.
export const rateOf = ({ rule, hz, frames, median_s }) => (rule === "rate" ? hz : frames / median_s);

// Takes a frame whenever 1/hz has passed; one that comes a little early is nearer than the next one.
export class Ticks {
  constructor(hz) {
    this.hz = hz;
    this.next = -Infinity;
  }

  due(time) {
    if (time < this.next - 0.25 / this.hz) return false;
    this.next += 1 / this.hz;
    if (!(this.next > time)) this.next = time + 1 / this.hz; // the first frame, or one that comes late
    return true;
  }
}
