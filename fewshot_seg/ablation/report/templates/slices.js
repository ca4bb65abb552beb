// Slices: outlines of truth and prediction over the scan, one canvas a variant, one slider for all.

const TOP = [1, 0.5], RIGHT = [1.5, 1], BOTTOM = [1, 1.5], LEFT = [0.5, 1];
/** The pieces of an outline in a block of 2x2 pixels, by which of them are set (1 2 / 8 4). */
const PIECES = [
  [], [[LEFT, TOP]], [[TOP, RIGHT]], [[LEFT, RIGHT]],
  [[RIGHT, BOTTOM]], [[LEFT, TOP], [RIGHT, BOTTOM]], [[TOP, BOTTOM]], [[LEFT, BOTTOM]],
  [[LEFT, BOTTOM]], [[TOP, BOTTOM]], [[TOP, RIGHT], [LEFT, BOTTOM]], [[RIGHT, BOTTOM]],
  [[LEFT, RIGHT]], [[TOP, RIGHT]], [[LEFT, TOP]], [],
];

/** Deflated bits in base64 as bytes. */
async function inflate(text) {
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

async function loadPicture(address) {
  const picture = new Image();
  picture.src = address;
  await picture.decode();
  return picture;
}

/** One slice of a mask: a byte a pixel, with a border of nothing around it. */
function slicePixels(bits, index, { height, width }) {
  const pixels = new Uint8Array((height + 2) * (width + 2));
  let bit = index * height * width;
  for (let y = 1; y <= height; y++) {
    const line = y * (width + 2);
    for (let x = 1; x <= width; x++, bit++) {
      pixels[line + x] = (bits[bit >> 3] >> (7 - (bit & 7))) & 1;
    }
  }
  return pixels;
}

/** The outline of a slice (marching squares), in pixels. */
function outline(pixels, { height, width }) {
  const path = new Path2D();
  const step = width + 2;
  for (let y = 0; y <= height; y++) {
    for (let x = 0; x <= width; x++) {
      const at = y * step + x;
      const which =
        pixels[at] + 2 * pixels[at + 1] + 4 * pixels[at + step + 1] + 8 * pixels[at + step];
      for (const [from, to] of PIECES[which]) {
        path.moveTo(x - 1 + from[0], y - 1 + from[1]);
        path.lineTo(x - 1 + to[0], y - 1 + to[1]);
      }
    }
  }
  return path;
}

/** Dice of one slice in per cent; null where neither shows the class. */
function sliceDice(truth, prediction) {
  let both = 0, sum = 0;
  for (let i = 0; i < truth.length; i++) {
    both += truth[i] & prediction[i];
    sum += truth[i] + prediction[i];
  }
  return sum === 0 ? null : (200 * both) / sum;
}

/** The truth is filled as well as outlined, so that colour alone does not tell the two apart. */
function paint(canvas, shape, picture, truth, prediction) {
  const { height, width, aspect, upright } = shape;
  const scale = Math.max(1, Math.round(512 / width));
  canvas.width = width * scale;
  canvas.height = Math.round(height * aspect * scale);
  const pen = canvas.getContext("2d");
  const style = getComputedStyle(document.documentElement);
  pen.imageSmoothingQuality = "high";
  if (upright) pen.setTransform(1, 0, 0, -1, 0, canvas.height);
  if (picture !== null) pen.drawImage(picture, 0, 0, canvas.width, canvas.height);
  pen.scale(scale, canvas.height / height);
  pen.lineCap = "round";
  // two of the screen's pixels, however small the canvas is shown
  pen.lineWidth = (2 * width) / Math.max(1, canvas.clientWidth);
  if (truth !== null) {
    pen.fillStyle = style.getPropertyValue("--truth-fill");
    for (let y = 0; y < height; y++) {
      for (let x = 0; x < width; x++) {
        if (truth[(y + 1) * (width + 2) + x + 1]) pen.fillRect(x, y, 1, 1);
      }
    }
    pen.strokeStyle = style.getPropertyValue("--truth");
    pen.stroke(outline(truth, shape));
  }
  if (prediction !== null) {
    pen.strokeStyle = style.getPropertyValue("--prediction");
    pen.stroke(outline(prediction, shape));
  }
}

const percent = (value) => (value === null ? "\u2013" : value.toFixed(1));

function fill(select, labels, values = labels) {
  select.replaceChildren(...labels.map((label, i) => new Option(label, values[i])));
}

function element(tag, content, kind = "") {
  const made = document.createElement(tag);
  made.textContent = content;
  made.className = kind;
  return made;
}

/** A canvas with its caption, for one prediction. */
function frame(prediction) {
  const figure = document.createElement("figure");
  const canvas = document.createElement("canvas");
  canvas.setAttribute("role", "img");
  figure.append(canvas, document.createElement("figcaption"));
  return { figure, canvas, prediction };
}

class Viewer {
  constructor(root) {
    const { scans, pictures } = JSON.parse(root.querySelector("script").textContent);
    if (scans.length === 0) return;
    Object.assign(this, { scans, pictures, parts: {}, frames: [], loaded: new Map() });
    for (const part of root.querySelectorAll("[data-part]")) this.parts[part.dataset.part] = part;
    const { parts } = this;
    fill(parts.class, [...new Set(scans.map((scan) => scan.class))]);
    parts.class.addEventListener("change", () => this.chooseClass());
    parts.scan.addEventListener("change", () => this.chooseScan());
    parts.variant.addEventListener("change", () => this.chooseVariant());
    for (const part of [parts.slice, parts.truth, parts.prediction]) {
      part.addEventListener("input", () => this.draw());
    }
    parts.stage.addEventListener("keydown", (event) => this.key(event));
    root.hidden = false;
    this.chooseClass();
  }

  get scan() {
    return this.scans[Number(this.parts.scan.value)];
  }

  chooseClass() {
    const numbers = [...this.scans.keys()]
      .filter((number) => this.scans[number].class === this.parts.class.value);
    fill(this.parts.scan, numbers.map((number) => this.scans[number].name), numbers);
    this.chooseScan();
  }

  chooseScan() {
    const { variant, slice } = this.parts;
    const before = variant.value;
    const names = this.scan.predictions.map((one) => one.variant);
    fill(variant, ["all, side by side", ...names], ["", ...names]);
    if (names.includes(before)) variant.value = before;
    slice.max = this.scan.slices.length - 1;
    slice.value = this.scan.start;
    this.chooseVariant();
  }

  chooseVariant() {
    const { stage, variant } = this.parts;
    this.frames = this.scan.predictions
      .filter((one) => variant.value === "" || one.variant === variant.value)
      .map(frame);
    stage.classList.toggle("single", this.frames.length === 1);
    stage.replaceChildren(...this.frames.map(({ figure }) => figure));
    this.draw();
  }

  key(event) {
    const step = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1 }[event.key];
    if (step === undefined) return;
    event.preventDefault();
    this.parts.slice.valueAsNumber += step;
    this.draw();
  }

  /** Load once: pictures and masks by their text. */
  once(load, text) {
    if (!this.loaded.has(text)) this.loaded.set(text, load(text));
    return this.loaded.get(text);
  }

  async draw() {
    const { scan, frames, parts } = this;
    const index = parts.slice.valueAsNumber;
    const place = `${index + 1} of ${scan.slices.length}`;
    parts.told.textContent = place;
    parts.slice.setAttribute("aria-valuetext", `${place}, slice ${scan.slices[index]} of the scan`);
    const address = this.pictures[scan.pictures]?.[scan.slices[index]];
    const [picture, truthBits, ...bits] = await Promise.all([
      address === undefined ? null : this.once(loadPicture, address),
      this.once(inflate, scan.truth),
      ...frames.map(({ prediction }) => this.once(inflate, prediction.mask)),
    ]);
    // Somebody may have moved on while these were unpacked.
    if (frames !== this.frames || index !== parts.slice.valueAsNumber) return;
    const truth = slicePixels(truthBits, index, scan);
    frames.forEach((one, i) => {
      const prediction = slicePixels(bits[i], index, scan);
      paint(one.canvas, scan, picture,
        parts.truth.checked ? truth : null, parts.prediction.checked ? prediction : null);
      this.describe(one, percent(sliceDice(truth, prediction)), place);
    });
  }

  describe({ figure, canvas, prediction }, here, place) {
    const { variant, dice } = prediction;
    figure.querySelector("figcaption").replaceChildren(
      element("strong", variant),
      element("span", `Dice ${percent(dice)} in the scan, ${here} in this slice`, "muted"));
    canvas.setAttribute("aria-label",
      `${this.scan.class} in scan ${this.scan.scan}, ${variant}, slice ${place}: Dice ${here}`);
  }
}

for (const root of document.querySelectorAll(".slices")) new Viewer(root);
