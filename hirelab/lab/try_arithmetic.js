"use strict";
// What the page on which a network runs computes by itself (try_page.js): index maps, the square
// that a network gets of an image, probabilities. Nothing here knows the page.

// ---------------------------------------------------------------- the rearrangement

// The index maps of one axis, as hirelab/rearrange.py has them; a test holds the two equal.
// slots: the token in each slot, region after region, -1 for zero padding.
// landing: for every token of the result, the slot that it is read from.
function indexMaps(size, region, shift, padding, mode, restore) {
  const modulo = (a, n) => ((a % n) + n) % n;
  const positions = Array.from({ length: size }, (_, position) => position);
  const moves = shift !== 0 && mode !== "none";
  let order = positions;  // the token that stands at each position after the cross-region step
  if (moves && mode === "shift") order = positions.map(p => modulo(p - shift, size));
  if (moves && mode === "shuffle")  // dealt out to the regions in turn
    order = positions.slice().sort((a, b) => (a % region) - (b % region) || a - b);
  // where a padded line goes on, beyond its last position
  const sources = {
    circular: p => p % size,
    replicate: p => Math.min(p, size - 1),
    reflect: p => size - 1 - Math.abs((p % Math.max(2 * (size - 1), 1)) - (size - 1)),
    zero: p => (p < size ? p : -1),
  };
  const slots = [];
  for (let p = 0; p < Math.ceil(size / region) * region; p++) {
    const source = sources[padding](p);
    slots.push(source < 0 ? -1 : order[source]);
  }
  let landing = positions;
  if (moves && restore) {
    landing = new Array(size);
    order.forEach((token, position) => { landing[token] = position; });
  }
  return { slots, landing };
}

// The inputs of the network beside its pixels: block j of a stage shifts by (j mod cycle) * shift.
function mapInputs(network, settings) {
  const inputs = {};
  for (const branch of network.branches) {
    const shift = (branch.block % network.shift_cycle[branch.stage]) * settings.shift[branch.stage];
    const { padding, mode, restore } = settings;
    const maps = indexMaps(branch.size, branch.region, shift, padding, mode, restore);
    for (const kind of ["slots", "landing"]) inputs[`${branch.name}.${kind}`] = maps[kind];
  }
  return inputs;
}

// The settings that a network was trained with.
function trainedSettings(network) {
  const first = network.branches[0];
  const shift = network.shift_cycle.map((cycle, stage) => {
    const moved = network.branches.find(b => b.stage === stage && b.block % cycle > 0);
    return moved ? moved.shift / (moved.block % cycle) : 0;
  });
  return { shift, padding: first.padding, mode: first.cross_region, restore: first.restore };
}

// ---------------------------------------------------------------- images

// The middle square of RGBA pixels as RGB bytes, as hirelab.datasets.transforms.square cuts it:
// the shorter side is reduced by Pillow's bicubic filter, in its own integer arithmetic, first
// along the width and then along the height. (Of a picture more than twice as tall as wide Pillow 13
// goes the other way about, which differs by the rounding in between.)
function squarePixels(rgba, width, height, side) {
  const short = Math.min(width, height);
  // what is more than 16 times as long as wide loses its ends first
  const keptWidth = Math.min(width, 16 * short), keptHeight = Math.min(height, 16 * short);
  const columns = resizing(keptWidth, Math.trunc(side * keptWidth / short), side,
    roundEven((width - keptWidth) / 2));
  const rows = resizing(keptHeight, Math.trunc(side * keptHeight / short), side,
    roundEven((height - keptHeight) / 2));
  const top = rows[0].first, bottom = rows[side - 1].first + rows[side - 1].weights.length;
  const narrow = new Uint8ClampedArray((bottom - top) * side * 3);
  for (let y = top; y < bottom; y++)
    for (let x = 0; x < side; x++)
      weigh(columns[x], rgba, y * width * 4, 4, narrow, ((y - top) * side + x) * 3);
  const pixels = new Uint8ClampedArray(side * side * 3);
  for (let y = 0; y < side; y++)
    for (let x = 0; x < side; x++)
      weigh(rows[y], narrow, (x - top * side) * 3, side * 3, pixels, (y * side + x) * 3);
  return pixels;
}

// For each of the middle `side` positions of a line that goes from `size` to `reduced` pixels: the
// first pixel that it is made of, and their weights in 2^-22.
function resizing(size, reduced, side, offset) {
  const scale = size / reduced, stretch = Math.max(scale, 1), support = 2 * stretch;
  const shrink = 1 / stretch;  // a product with this and not a quotient: the last bit counts
  const start = roundEven((reduced - side) / 2);
  return Array.from({ length: side }, (_, i) => {
    const centre = (start + i + 0.5) * scale;
    const first = Math.max(0, Math.trunc(centre - support + 0.5));
    const end = Math.min(size, Math.trunc(centre + support + 0.5));
    const weights = Float64Array.from({ length: end - first },
      (_, p) => bicubic((p + first - centre + 0.5) * shrink));
    const share = 1 / weights.reduce((a, b) => a + b, 0);
    return {
      first: offset + first,
      weights: weights.map(w => Math.sign(w) * Math.trunc(0.5 + Math.abs(w * share) * 2 ** 22)),
    };
  });
}

function bicubic(x) {
  const a = -0.5, t = Math.abs(x);
  if (t < 1) return ((a + 2) * t - (a + 3)) * t * t + 1;
  return t < 2 ? (((t - 5) * t + 8) * t - 4) * a : 0;
}

// Red, green and blue of one position; what is below black or above white is clamped on writing.
function weigh({ first, weights }, values, start, step, result, place) {
  let red = 2 ** 21, green = 2 ** 21, blue = 2 ** 21;  // a half, so that cutting off rounds
  for (let i = 0, at = start + first * step; i < weights.length; i++, at += step) {
    red += weights[i] * values[at];
    green += weights[i] * values[at + 1];
    blue += weights[i] * values[at + 2];
  }
  result[place] = Math.floor(red / 2 ** 22);
  result[place + 1] = Math.floor(green / 2 ** 22);
  result[place + 2] = Math.floor(blue / 2 ** 22);
}

function roundEven(value) {  // halves to even, as Python rounds
  const down = Math.floor(value);
  return value - down === 0.5 ? down + (down % 2) : Math.round(value);
}

// ---------------------------------------------------------------- what a network gives

function softmax(logits) {
  const most = Math.max(...logits), powers = Array.from(logits, v => Math.exp(v - most));
  const sum = powers.reduce((a, b) => a + b, 0);
  return powers.map(v => v / sum);
}

// The (rows, columns) root mean square over channels of a map (1, C, rows, columns).
function magnitudes({ dims: [, channels, rows, columns], data }) {
  const values = new Float64Array(rows * columns);
  for (let c = 0; c < channels; c++)
    for (let i = 0; i < values.length; i++) values[i] += data[c * values.length + i] ** 2;
  return { rows, columns, channels, values: values.map(v => Math.sqrt(v / channels)) };
}
