// The SIREN tab: an image is dropped, a network is fitted to it while one watches, and zoomed far past the image's pixels.

import { drawCurve } from "./curve.js";
import { person } from "./person.js";
import { Duo } from "./siren-view.js";
import { dropZone, element, facts, progressBar, radios, sentence, slider } from "./siren-parts.js";

const POLL = 500; // milliseconds between looks at a fit that goes on
const API = new URL("../api/fits", import.meta.url).pathname;
const SECONDS = { image: 15, gradient: 40, laplacian: 40, blend: 30 };
const TARGETS = [
  ["image", "Values", "the pixels themselves"],
  ["gradient", "Gradient", "only how brightness changes from pixel to pixel"],
  ["laplacian", "Laplacian", "only where that change itself changes"],
];
const MODES = [["image", "Picture"], ["gradient", "Gradient"], ["laplacian", "Laplacian"]];

// Build the tab in an element.
export function sirenPanel(root) {
  style();
  return new Panel(root);
}

class Panel {
  constructor(root) {
    Object.assign(this, { root, token: null, kind: "fit" });
    root.classList.add("siren-root");
    root.replaceChildren(element("div", "siren-body", this.controls(), this.stage()));
    this.duo = new Duo(this.photo, this.network, {
      ask: (...wanted) => this.picture(...wanted),
      moved: (zoom) => (this.zoom.textContent = `${zoom < 10 ? zoom.toFixed(1).replace(".0", "") : Math.round(zoom)}×`),
    });
    this.choose("fit");
    this.idle();
    this.dropAnywhere();
    this.example();
    new ResizeObserver(() => this.curve()).observe(this.plot);
    addEventListener("pagehide", () => this.busy && navigator.sendBeacon?.(`${API}/${this.token}/stop`));
  }

  // ---- what the page consists of

  controls() {
    this.kinds = [["fit", "Fit an image"], ["blend", "Blend two"]].map(([kind, text]) => {
      const button = element("button", "siren-kind", text);
      Object.assign(button, { type: "button", onclick: () => this.choose(kind) });
      button.dataset.kind = kind;
      return button;
    });
    this.file = dropZone("siren-file", "Drop an image here", "or click to choose one");
    this.first = dropZone("siren-first", "First image", "drop or click");
    this.second = dropZone("siren-second", "Second image", "drop or click");
    for (const zone of [this.file, this.first, this.second]) zone.changed = () => this.chosen();
    this.trial = element("button", "siren-link", "or use a photo of the selfie");
    Object.assign(this.trial, { type: "button", hidden: true, id: "siren-example" });
    this.target = radios("siren-target", "Fitted to", TARGETS, (value) => this.seconds.set(SECONDS[value]));
    this.weight = slider("siren-weight", "Weight of the second", 0.05, 0.95, 0.05, 0.5, (v) => `${Math.round(100 * v)} %`);
    this.mixed = element("input");
    Object.assign(this.mixed, { type: "checkbox", id: "siren-mixed", onchange: () => this.weight.enable(!this.mixed.checked) });
    this.mixed.checked = true; // a sum of gradients is but the two images' mean
    this.weight.enable(false);
    const mixed = element("label", "siren-check", this.mixed, element("span", "", "Take the stronger gradient everywhere"));
    this.seconds = slider("siren-seconds", "Time", 5, 120, 5, SECONDS.image, (v) => `${v} s`);
    this.fitting = element("div", "siren-group", this.file, this.trial, this.target);
    const pair = element("div", "siren-pair", this.first, this.second);
    this.blending = element("div", "siren-group", pair, this.weight, mixed);
    this.start = this.button("siren-start", "Start", "siren-primary", () => this.begin());
    this.pause = this.button("siren-pause", "Pause", "", () => this.act(this.status?.paused ? "resume" : "pause"));
    this.halt = this.button("siren-stop", "Stop", "", () => this.act("stop"));
    const kinds = element("div", "siren-kinds", ...this.kinds);
    const buttons = element("div", "siren-buttons", this.start, this.pause, this.halt);
    return element("section", "siren-controls", kinds, this.fitting, this.blending, this.seconds, buttons, this.progress());
  }

  progress() {
    this.bar = progressBar();
    this.line = element("div", "siren-line");
    this.line.id = "siren-status";
    this.line.setAttribute("role", "status");
    this.note = element("div", "siren-note");
    this.plot = element("canvas", "siren-curve");
    this.plot.hidden = true; // until there is a curve
    return element("div", "siren-progress", this.bar, this.line, this.plot, this.note);
  }

  stage() {
    this.mode = radios("siren-mode", "", MODES, (value) => this.look(value));
    this.zoom = element("span", "siren-zoom", "1×");
    this.zoom.title = "zoom";
    const hint = element("span", "siren-hint", "wheel or pinch to zoom, drag to move, double click to see all");
    [this.photo, this.network] = ["siren-photo", "siren-network"].map((id) => {
      const canvas = element("canvas", "siren-canvas");
      Object.assign(canvas, { id, tabIndex: 0 });
      return canvas;
    });
    this.photo.setAttribute("aria-label", "The photo");
    this.network.setAttribute("aria-label", "The network's picture");
    this.left = element("figcaption", "", "The photo's pixels");
    this.right = element("figcaption", "", "The network");
    const views = element(
      "div", "siren-views",
      element("figure", "siren-view", this.left, this.photo), element("figure", "siren-view", this.right, this.network),
    );
    const above = element("div", "siren-above", this.mode, this.zoom, hint);
    this.empty = element("p", "siren-empty");
    this.shown = element("div", "siren-shown", above, views);
    return element("section", "siren-stage", this.empty, this.shown);
  }

  button(id, text, more, pressed) {
    const button = element("button", `siren-button ${more}`.trim(), text);
    return Object.assign(button, { type: "button", id, onclick: pressed });
  }

  // ---- choosing

  choose(kind) {
    this.kind = kind;
    for (const button of this.kinds) button.setAttribute("aria-pressed", String(button.dataset.kind === kind));
    this.fitting.hidden = kind !== "fit";
    this.blending.hidden = kind !== "blend";
    this.seconds.set(SECONDS[kind === "fit" ? this.target.value : "blend"]);
    this.chosen();
    if (!this.token) this.idle();
  }

  look(mode) {
    this.right.textContent = mode === "image" ? "The network" : `The network's ${mode === "gradient" ? "gradient" : "Laplacian"}`;
    this.duo.show(mode);
  }

  chosen() {
    const zones = this.kind === "fit" ? [this.file] : [this.first, this.second];
    this.start.disabled = this.starting || zones.some((zone) => !zone.file);
  }

  idle() {
    this.shown.hidden = true;
    this.empty.hidden = false;
    this.empty.textContent = this.kind === "fit"
      ? "A network of sines learns the image as a smooth function. Watch it get sharp, then zoom in: the photo ends in squares, the network doesn't."
      : "A network is fitted to gradients alone, taken from both images, and so becomes an image that has the outlines of both.";
    this.pause.disabled = this.halt.disabled = true;
  }

  dropAnywhere() {
    this.root.addEventListener("dragover", (event) => event.preventDefault());
    this.root.addEventListener("drop", (event) => {
      event.preventDefault(); // or the browser leaves the page to show the file
      const files = [...(event.dataTransfer?.files ?? [])];
      if (this.kind === "fit" && files[0]) this.file.take(files[0]);
      for (const file of this.kind === "blend" ? files.slice(0, 2) : []) (this.first.file ? this.second : this.first).take(file);
    });
  }

  async example() {
    try {
      const answer = await fetch(`${API}/example`);
      if (!answer.ok) return;
      const file = new File([await answer.blob()], "selfie.jpg", { type: "image/jpeg" });
      this.trial.hidden = false;
      this.trial.onclick = () => this.file.take(file);
    } catch {
      // no photo to try
    }
  }

  // ---- fitting

  get busy() {
    return Boolean(this.token) && ["waiting", "running"].includes(this.status?.state);
  }

  async begin() {
    if (this.starting) return;
    const form = new FormData(), fit = this.kind === "fit";
    form.set("seconds", this.seconds.value);
    if (fit) {
      form.set("target", this.target.value);
      form.set("image", this.file.file);
    } else {
      form.set("weight", this.weight.value);
      form.set("mixed", this.mixed.checked);
      form.set("first", this.first.file);
      form.set("second", this.second.file);
    }
    this.starting = true;
    this.chosen();
    this.say("Sending …");
    try {
      if (this.busy) await this.post(`${API}/${this.token}/stop`).catch(() => null);
      const status = await this.post(fit ? API : `${API}/blend`, form);
      this.token = status.token;
      await this.open(status);
    } catch (error) {
      this.say(error.message, true);
    }
    this.starting = false;
    this.chosen();
  }

  async open(status) {
    const token = status.token;
    clearTimeout(this.timer);
    this.empty.hidden = true;
    this.shown.hidden = false;
    this.left.textContent = status.target === "blend" ? "The two laid over each other" : "The photo's pixels";
    this.update(status);
    const address = `${API}/${token}/picture?mode=photo&format=png&width=${status.width}&height=${status.height}`;
    const photo = await createImageBitmap(await (await this.get(address)).blob());
    if (this.token !== token) return;
    this.duo.open(photo);
    this.poll(token);
  }

  async poll(token) {
    clearTimeout(this.timer);
    try {
      const status = await (await this.get(`${API}/${token}`)).json();
      if (this.token === token) this.update(status);
    } catch (error) {
      if (this.token !== token) return;
      if (error.status === 404) this.status = { state: "failed" };
      this.say(error.message, true);
      this.duo.follow(this.busy);
    }
    if (this.token === token && this.busy) this.timer = setTimeout(() => this.poll(token), POLL);
  }

  async act(what) {
    const token = this.token;
    try {
      const status = await this.post(`${API}/${token}/${what}`);
      if (this.token !== token) return;
      this.update(status);
      this.poll(token);
    } catch (error) {
      this.say(error.message, true);
    }
  }

  update(status) {
    this.status = status;
    const busy = this.busy, live = busy && !status.paused;
    this.pause.disabled = this.halt.disabled = !busy;
    this.pause.textContent = status.paused ? "Resume" : "Pause";
    this.bar.set(status.state === "done" ? 1 : status.share, live);
    this.say(status.error || sentence(status), Boolean(status.error));
    this.note.textContent = facts(status);
    this.plot.hidden = !status.curve.length;
    this.curve();
    if (status.ready) this.duo.follow(live);
  }

  curve() {
    if (this.status?.curve) {
      const title = this.status.measure === "PSNR" ? "PSNR (dB)" : "fit (dB, from the loss)";
      drawCurve(this.plot, this.status.curve, title, this.status.budget);
    }
  }

  say(text, wrong = false) {
    this.line.textContent = text;
    this.line.classList.toggle("siren-wrong", wrong);
  }

  // ---- the server

  async picture([left, top, right, bottom], width, height, mode, signal) {
    const near = (value) => Math.min(Math.max(value, 0), 1);
    const query = new URLSearchParams({
      left: near(left), top: near(top), right: near(right), bottom: near(bottom), width, height, mode,
    });
    const answer = await this.get(`${API}/${this.token}/picture?${query}`, signal);
    return createImageBitmap(await answer.blob());
  }

  get(address, signal) {
    return this.asked(address, { signal });
  }

  async post(address, body) {
    return (await this.asked(address, { method: "POST", body })).json();
  }

  async asked(address, options) {
    let answer;
    try {
      answer = await fetch(address, { ...options, headers: { "X-Person": person } });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new Error("the viewer doesn't answer; is it still running?");
    }
    if (answer.ok) return answer;
    const said = await answer.json().catch(() => null);
    throw Object.assign(new Error(said?.error ?? `the viewer answered ${answer.status}`), { status: answer.status });
  }
}

function style() {
  const address = new URL("siren.css", import.meta.url).href;
  if ([...document.styleSheets].some((sheet) => sheet.href === address)) return;
  document.head.append(Object.assign(document.createElement("link"), { rel: "stylesheet", href: address }));
}
