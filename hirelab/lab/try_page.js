"use strict";
// The page on which a network runs. What it holds stands before this script: the facts (JSON, see
// try_page.py) and files in base64 after gzip, one a <script> of a type that no browser runs. What
// is arithmetic stands in try_arithmetic.js.
const facts = JSON.parse(document.getElementById("facts").textContent);
const find = id => document.getElementById(id);

// ---------------------------------------------------------------- images

const LARGEST = 4096;  // pixels a side that a canvas surely holds, on a phone too

// A picture's RGBA pixels, on white, no larger than a canvas can be.
function readPixels(image, width, height) {
  const factor = Math.min(1, LARGEST / Math.max(width, height));
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.round(width * factor));
  canvas.height = Math.max(1, Math.round(height * factor));
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.imageSmoothingQuality = "high";
  context.fillStyle = "#ffffff";
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.drawImage(image, 0, 0, canvas.width, canvas.height);
  return context.getImageData(0, 0, canvas.width, canvas.height);
}

async function decode(source) {
  const image = await createImageBitmap(source, { colorSpaceConversion: "none" });
  const read = readPixels(image, image.width, image.height);
  image.close();
  return read;
}

// ---------------------------------------------------------------- the network

async function unpack(id) {
  const element = find(id);
  const letters = atob(element.textContent);
  element.remove();  // its text is as large as the file
  const bytes = new Uint8Array(letters.length);
  for (let i = 0; i < letters.length; i++) bytes[i] = letters.charCodeAt(i);
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

let runtime = null;  // a promise of ONNX Runtime Web
function loadRuntime() {
  return runtime ??= (async () => {
    const [script, wasm] = await Promise.all([unpack("runtime-script"), unpack("runtime-wasm")]);
    const address = URL.createObjectURL(new Blob([script], { type: "text/javascript" }));
    const ort = await import(address);
    URL.revokeObjectURL(address);
    ort.env.wasm.wasmBinary = wasm.buffer;
    ort.env.wasm.numThreads = 1;
    ort.env.logLevel = "error";
    return ort;
  })();
}

const sessions = [];  // a promise of each network that was opened
function open(index) {
  return sessions[index] ??= (async () => {
    const [ort, file] = await Promise.all([loadRuntime(), unpack(`network-${index}`)]);
    return ort.InferenceSession.create(file, { executionProviders: ["wasm"] });
  })();
}

// The network's outputs by name, each {dims, data}, of RGB bytes and settings.
async function run(index, pixels, settings) {
  const network = facts.networks[index], session = await open(index), ort = await loadRuntime();
  const side = network.img_size, area = side * side;
  const values = new Float32Array(3 * area);
  for (let c = 0; c < 3; c++)
    for (let i = 0; i < area; i++)
      values[c * area + i] = (pixels[i * 3 + c] / 255 - network.mean[c]) / network.std[c];
  const inputs = { pixels: new ort.Tensor("float32", values, [1, 3, side, side]) };
  for (const [name, map] of Object.entries(mapInputs(network, settings)))
    inputs[name] = new ort.Tensor("int64", BigInt64Array.from(map, BigInt), [map.length]);
  return session.run(inputs);
}

// ---------------------------------------------------------------- what is chosen, what is shown

const chosen = { network: 0, picture: null, settings: null, all: false };
let trained = null;  // {picture, network, shares}: the answer of the trained rearrangement
let last = null;  // {shares, outputs}: what is shown

const percent = share => `${(100 * share).toFixed(share < 0.0995 ? 1 : 0)} %`;
const network = () => facts.networks[chosen.network];
const same = (a, b) => JSON.stringify(a) === JSON.stringify(b);

// Compute what is chosen now. While it computes, only the last of what is chosen waits.
let waiting = false, working = null;
function update() {
  waiting = true;
  return working ??= (async () => {
    find("time").textContent = "computing \u2026";
    find("main").setAttribute("aria-busy", "true");
    try {
      while (waiting) {
        waiting = false;
        await painted();
        await answer();
      }
    } catch (error) {
      complain(`The network cannot run here: ${error.message ?? error}`);
    } finally {
      working = null;
      find("main").setAttribute("aria-busy", "false");
    }
  })();
}

// Resolves when the browser has drawn what was changed; at once in a page that is not seen.
const painted = () => document.hidden ? Promise.resolve()
  : new Promise(done => requestAnimationFrame(() => setTimeout(done)));

async function answer() {
  const { network: index, picture: given } = chosen, settings = structuredClone(chosen.settings);
  await open(index);
  const start = performance.now();
  const pixels = await (given.cut[index] ??= given.pixels(facts.networks[index]));
  const outputs = await run(index, pixels, settings);
  const shares = softmax(outputs.logits.data);
  const took = performance.now() - start;
  if (!trained || trained.picture !== given || trained.network !== index) {
    const before = trainedSettings(facts.networks[index]);
    const plain = same(before, settings) ? shares
      : softmax((await run(index, pixels, before)).logits.data);
    trained = { picture: given, network: index, shares: plain };
  }
  if (index !== chosen.network) return;  // another network is chosen: it comes next
  last = { shares, outputs, took };
  showSeen(given, pixels);
  showAnswer();
  showMaps(outputs);
  showGates(outputs);
}

function showSeen(picture, pixels) {
  const side = network().img_size, canvas = find("seen");
  canvas.width = canvas.height = side;
  const image = new ImageData(side, side);
  for (let i = 0; i < side * side; i++) {
    image.data.set(pixels.subarray(3 * i, 3 * i + 3), 4 * i);
    image.data[4 * i + 3] = 255;
  }
  canvas.getContext("2d").putImageData(image, 0, 0);
  canvas.setAttribute("aria-label", `${picture.name}, as the network gets it`);
  find("seen-note").textContent = `${picture.name}, as the network gets it: ${side} x ${side} pixels`;
  for (const button of find("pictures").children)
    button.setAttribute("aria-pressed", String(button.dataset.name === picture.shipped));
}

const FEW = 5;  // classes shown at first
function showAnswer() {
  const names = network().label_names, { shares } = last;
  const order = shares.map((_, i) => i).sort((a, b) => shares[b] - shares[a]);
  const list = find("answer");
  list.replaceChildren(...order.slice(0, chosen.all ? order.length : FEW).map(i => {
    const item = document.createElement("li"), bar = element("div", "bar");
    bar.append(document.createElement("i"));
    bar.firstChild.style.width = `${100 * shares[i]}%`;
    item.append(element("span", "name", names[i]), element("span", "share", percent(shares[i])), bar);
    return item;
  }));
  const more = find("more");
  more.hidden = false;
  more.textContent = chosen.all ? "The first five" : `All ${names.length} classes`;
  more.setAttribute("aria-expanded", String(chosen.all));
  find("words").classList.remove("wrong");
  find("words").textContent = words(order[0]);
  find("time").textContent = `computed in ${Math.round(last.took)} ms`;
}

// What has changed against the trained rearrangement, in words.
function words(top) {
  const names = network().label_names, before = trainedSettings(network());
  const now = chosen.settings, changed = [];
  now.shift.forEach((shift, stage) => {
    if (shift !== before.shift[stage])
      changed.push(`shift ${shift} in stage ${stage} (trained: ${before.shift[stage]})`);
  });
  if (now.padding !== before.padding) changed.push(`${now.padding} padding (trained: ${before.padding})`);
  if (now.mode !== before.mode) changed.push(`cross-region mode ${now.mode} (trained: ${before.mode})`);
  if (now.restore !== before.restore) changed.push(now.restore ? "restore" : "no restore");
  const plain = trained.shares, first = plain.indexOf(Math.max(...plain));
  if (!changed.length) return `As it was trained: ${names[top]}, ${percent(last.shares[top])}.`;
  const [from, to] = [plain[first], last.shares[first]].map(percent);
  const moved = `${names[first]} ${from === to ? `stays at ${to}` : `goes from ${from} to ${to}`}`;
  const instead = top === first ? "still the first answer"
    : `and the first answer is ${names[top]}, ${percent(last.shares[top])}`;
  return `${changed.join(", ")}: ${moved}, ${instead}.`.replace(/^./, c => c.toUpperCase());
}

function complain(text) {
  find("time").textContent = "";
  find("words").textContent = text;
  find("words").classList.add("wrong");
}

function element(tag, className = "", text = "") {
  const made = document.createElement(tag);
  made.className = className;
  made.textContent = text;
  return made;
}

function showMaps(outputs) {
  const names = Object.keys(outputs).filter(name => /^stages\.\d+\.out$/.test(name));
  const place = find("maps");
  while (place.children.length < names.length) {
    const figure = document.createElement("figure"), canvas = document.createElement("canvas");
    canvas.setAttribute("role", "img");
    figure.append(canvas, document.createElement("figcaption"));
    place.append(figure);
  }
  names.forEach((name, stage) => {
    const { rows, columns, channels, values } = magnitudes(outputs[name]);
    const [canvas, caption] = place.children[stage].children;
    const low = Math.min(...values), high = Math.max(...values), span = high - low || 1;
    canvas.width = columns;
    canvas.height = rows;
    const image = new ImageData(columns, rows);
    values.forEach((value, i) => {
      const color = facts.heat[Math.min(255, Math.floor((value - low) / span * 255))];
      image.data.set([...color, 255], 4 * i);
    });
    canvas.getContext("2d").putImageData(image, 0, 0);
    const said = `${rows} x ${columns} tokens of ${channels} channels, `
      + `${low.toPrecision(2)} to ${high.toPrecision(2)}`;
    canvas.setAttribute("aria-label", `stage ${stage}: ${said}`);
    caption.replaceChildren(element("b", "", `stage ${stage}`), document.createElement("br"), said);
  });
}

function showGates(outputs) {
  const place = find("gates");
  place.replaceChildren(...Object.entries(network().gates).map(([name, branches]) => {
    const { dims: [, channels], data } = outputs[name];
    const [, stage, block] = name.match(/stages\.(\d+)\.blocks\.(\d+)/);
    const row = element("div", "gate"), bar = element("span", "bar");
    const shares = branches.map((branch, b) => {
      let sum = 0;
      for (let c = 0; c < channels; c++) sum += data[c * branches.length + b];
      const part = document.createElement("i");
      part.style.width = `${100 * sum / channels}%`;
      part.style.background = facts.branchColors[branch];
      bar.append(part);
      return `${branch} ${percent(sum / channels)}`;
    });
    bar.setAttribute("role", "img");
    bar.setAttribute("aria-label", shares.join(", "));
    bar.title = shares.join(", ");
    row.append(element("span", "", `stage ${stage}, block ${block}`), bar);
    return row;
  }));
}

// ---------------------------------------------------------------- controls

function choose(changes) {
  Object.assign(chosen.settings, changes);
  showSettings();
  return update();
}

// What a control does, in the words below it.
const MODE_WORDS = {
  shift: "all tokens of a line move on, past the borders of regions",
  shuffle: "tokens are dealt out to the regions in turn; every shift but 0 does the same",
  none: "regions exchange nothing; shift and restore have no effect",
};
const PADDING_WORDS = {
  circular: "the line\u2019s first tokens", zero: "zeros",
  reflect: "its last tokens, mirrored", replicate: "copies of its last token",
};

function showSettings() {
  const { shift, padding, mode, restore } = chosen.settings;
  [...find("shifts").children].forEach((control, stage) => {
    const slider = control.querySelector("input");
    slider.value = shift[stage];
    slider.disabled = mode === "none";
    control.querySelector("output").textContent = shift[stage];
    find(`shift-note-${stage}`).textContent = `blocks shift by ${blockShifts(stage).join(", ")}`;
  });
  find("padding").value = padding;
  find("padding-note").textContent = `a last region that is not full gets ${PADDING_WORDS[padding]}`;
  find("mode").value = mode;
  find("mode-note").textContent = MODE_WORDS[mode];
  find("restore").checked = restore;
  find("restore").disabled = mode === "none" || shift.every(step => step === 0);
  find("restore-note").textContent = "after mixing, tokens go back to their own places";
}

// By how many tokens each block of a stage shifts; 0 in a mode that moves nothing.
function blockShifts(stage) {
  const { shift, mode } = chosen.settings, cycle = network().shift_cycle[stage];
  const blocks = new Set(network().branches.filter(b => b.stage === stage).map(b => b.block));
  return [...blocks].map(block => mode === "none" ? 0 : (block % cycle) * shift[stage]);
}

function fillSelect(id, names, words = names) {
  find(id).replaceChildren(...names.map((name, i) => new Option(words[i], name)));
}

// Everything that belongs to a network: its sliders, its pictures, its trained settings.
function chooseNetwork(index) {
  const kept = chosen.picture;
  chosen.network = index;
  chosen.settings = trainedSettings(network());
  find("network").value = index;
  find("shifts").replaceChildren(...network().shift_cycle.map((_, stage) => {
    const { region } = network().branches.find(branch => branch.stage === stage);
    const control = element("div", "control"), id = `shift-${stage}`;
    const label = element("label", "", `shift, stage ${stage}`), slider = document.createElement("input");
    label.htmlFor = slider.id = id;
    const reach = Math.max(region, Math.abs(chosen.settings.shift[stage]));
    Object.assign(slider, { type: "range", min: -reach, max: reach, step: 1 });
    slider.addEventListener("input", () =>
      choose({ shift: chosen.settings.shift.map((s, i) => i === stage ? Number(slider.value) : s) }));
    const output = document.createElement("output");
    output.htmlFor = id;
    const note = element("p", "quiet");
    note.id = `shift-note-${stage}`;
    slider.setAttribute("aria-describedby", note.id);
    control.append(label, output, slider, note);
    return control;
  }));
  find("pictures").replaceChildren(...network().pictures.map(picture => {
    const button = document.createElement("button"), image = new Image();
    button.type = "button";
    button.dataset.name = picture.name;
    image.src = picture.address;
    image.alt = button.title = picture.name;
    button.append(image);
    button.addEventListener("click", () => choosePicture(shipped(picture.name)));
    return button;
  }));
  const { top1, images } = network();
  find("network-note").textContent = `right on ${top1.toFixed(0)} % of its `
    + `${images.toLocaleString("en")} validation images; it knows no other classes`;
  find("more").hidden = true;
  showSettings();
  return choosePicture(kept?.shipped === undefined && kept ? kept : shipped(kept?.shipped));
}

// A picture has a name, `pixels`, which resolves to the RGB bytes that a network gets, and `cut`,
// which keeps these by the network's place. This one is of the page, in every network's own size.
function shipped(name = "coffee") {
  return {
    name, shipped: name, cut: [],
    pixels: async ({ img_size: side, pictures }) => {
      const image = new Image();
      image.src = pictures.find(picture => picture.name === name).address;
      await image.decode();
      const { data } = readPixels(image, side, side);
      return data.filter((_, i) => i % 4 < 3);
    },
  };
}

function choosePicture(picture) {
  chosen.picture = picture;
  return update();
}

// A file of the reader's; it is decoded here and goes nowhere.
async function chooseFile(file) {
  if (!file) return;
  try {
    const { data, width, height } = await decode(file);
    await choosePicture({
      name: file.name, cut: [],
      pixels: async ({ img_size: side }) => squarePixels(data, width, height, side),
    });
  } catch {
    complain(`${file.name} is no image that this browser can open: choose a JPEG, PNG or WebP.`);
  }
}

fillSelect("network", facts.networks.map((_, i) => i), facts.networks.map(
  ({ name, label_names: names }) => `${name}: ${names.length} classes`));
fillSelect("padding", facts.paddings);
fillSelect("mode", facts.modes);
find("legend").append(...Object.entries(facts.branchColors).flatMap(([branch, color]) => {
  const key = element("i", "key");
  key.style.background = color;
  return [key, branch];
}));
find("network").addEventListener("change", event => chooseNetwork(Number(event.target.value)));
find("padding").addEventListener("change", event => choose({ padding: event.target.value }));
find("mode").addEventListener("change", event => choose({ mode: event.target.value }));
find("restore").addEventListener("change", event => choose({ restore: event.target.checked }));
find("reset").addEventListener("click", () => choose(trainedSettings(network())));
find("more").addEventListener("click", () => { chosen.all = !chosen.all; showAnswer(); });
find("file").addEventListener("change", event => {
  chooseFile(event.target.files[0]);
  event.target.value = "";  // the same file may be chosen again
});
document.addEventListener("dragover", event => {
  event.preventDefault();
  document.body.classList.add("dropping");
});
document.addEventListener("dragleave", () => document.body.classList.remove("dropping"));
document.addEventListener("drop", event => {
  event.preventDefault();
  document.body.classList.remove("dropping");
  chooseFile(event.dataTransfer.files[0]);
});
chooseNetwork(0);
