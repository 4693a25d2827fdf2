// The photo and the network's picture side by side, under one hand: drag, wheel, pinch, keys; double click shows all.

const HAND = 110; // milliseconds that a picture may take while a hand moves it
const LIVE = 220; // and while the network is still being fitted, whose time it takes
const REST = 160; // milliseconds without a change that count as rest
const AGAIN = 500; // milliseconds between pictures of a fit that goes on
const FARTHEST = 200; // zoom
const LARGEST = 1024; // pixels a side that the server draws
const LEAST = 64;

export class Duo {
  // photo, network: canvases; ask(window, width, height, mode, signal): a promise of a bitmap; moved(zoom): after each change.
  constructor(photo, network, { ask, moved }) {
    Object.assign(this, { photo, network, ask, moved });
    this.mode = "image";
    this.cost = {}; // milliseconds a pixel, of each mode
    this.pointers = new Map();
    this.clear();
    for (const canvas of [photo, network]) this.listen(canvas);
    new ResizeObserver(() => this.redraw(true)).observe(network);
  }

  // Nothing to show.
  clear() {
    this.stop();
    this.truth = this.whole = this.part = null;
    this.live = this.wanted = this.ready = false;
    this.reached = 0; // pixels of what is shown, 0: of something older
    this.aspect = 1;
    this.reset();
  }

  // A new photo, and a network for it whose pictures can be asked for.
  open(truth) {
    this.clear();
    this.truth = truth;
    this.aspect = truth.width / truth.height;
    for (const { style } of [this.photo, this.network]) {
      style.aspectRatio = `${truth.width} / ${truth.height}`;
      style.width = `min(100%, ${(72 * this.aspect).toFixed(2)}vh)`; // upright photos fit the screen
    }
    this.redraw(true);
  }

  // From now on there is a network; live: it is still changing. When it no longer does, it is drawn in full.
  follow(live) {
    if (this.ready && live === this.live) return;
    this.ready = true;
    this.live = live;
    this.stale();
  }

  show(mode) {
    this.mode = mode;
    this.stop();
    this.whole = this.part = null;
    this.stale();
    this.redraw();
  }

  stale() {
    this.reached = 0;
    this.wanted = true;
    this.next();
  }

  stop() {
    clearTimeout(this.timer);
    this.flying?.abort();
    this.flying = null;
  }

  reset() {
    this.zoom = 1;
    this.x = this.y = 0.5;
    this.changed();
  }

  get window() {
    const half = 0.5 / this.zoom;
    return [this.x - half, this.y - half, this.x + half, this.y + half];
  }

  // The view has moved: keep it inside the photo, show what there is, ask for what there isn't.
  changed() {
    const half = 0.5 / this.zoom;
    this.x = Math.min(Math.max(this.x, half), 1 - half);
    this.y = Math.min(Math.max(this.y, half), 1 - half);
    // At rest a finger scrolls the page; zoomed in it moves the picture.
    for (const canvas of [this.photo, this.network]) canvas.style.touchAction = this.zoom > 1 ? "none" : "pan-y";
    this.touched = performance.now();
    this.moved(this.zoom);
    this.redraw();
    if (!this.truth) return;
    this.reached = 0;
    this.wanted = true;
    if (this.flying?.fine) this.stop();
    this.next();
  }

  // Zoom by a factor about a place of the canvas, in shares of it.
  zoomed(factor, u = 0.5, v = 0.5) {
    const before = this.zoom;
    this.zoom = Math.min(Math.max(before * factor, 1), FARTHEST);
    this.x += (u - 0.5) * (1 / before - 1 / this.zoom);
    this.y += (v - 0.5) * (1 / before - 1 / this.zoom);
    this.changed();
  }

  next() {
    if (this.flying || !this.truth || !this.ready) return;
    clearTimeout(this.timer);
    if (document.hidden || !this.network.offsetParent) {
      this.timer = setTimeout(() => this.next(), AGAIN);
      return;
    }
    const resting = performance.now() - this.touched > REST;
    const full = this.size(1e9);
    if (this.live) {
      const size = this.size(resting ? LIVE : HAND);
      if (this.wanted) this.fetch(size, false);
      else this.timer = setTimeout(() => ((this.wanted = true), this.next()), AGAIN);
    } else if (this.wanted && !resting) {
      this.fetch(this.size(HAND), false);
    } else if (this.reached < full.width * full.height) {
      if (!resting) this.timer = setTimeout(() => this.next(), REST / 2);
      else this.fetch(full, true);
    }
  }

  // Width and height of a picture that takes about so many milliseconds, at most one for each pixel of the screen.
  size(milliseconds) {
    const scale = window.devicePixelRatio || 1;
    const most = Math.min(LARGEST / Math.max(this.aspect, 1), (this.network.clientHeight || 256) * scale);
    const height = Math.min(most, Math.sqrt(milliseconds / (this.cost[this.mode] ?? 0.004) / this.aspect));
    const least = Math.min(most, LEAST / Math.min(this.aspect, 1));
    const tall = Math.max(height, least);
    return { width: Math.max(1, Math.round(tall * this.aspect)), height: Math.max(1, Math.round(tall)) };
  }

  async fetch({ width, height }, fine) {
    const abort = new AbortController();
    abort.fine = fine;
    this.flying = abort;
    this.wanted = false;
    const area = this.window, mode = this.mode, began = performance.now();
    let wait = 0;
    try {
      const bitmap = await this.ask(area, width, height, mode, abort.signal);
      if (this.flying !== abort) return;
      const took = (performance.now() - began) / (width * height);
      this.cost[mode] = this.cost[mode] ? 0.6 * this.cost[mode] + 0.4 * took : took;
      this.part = { bitmap, area };
      if (this.zoom === 1 || !this.whole || area[2] - area[0] > 0.999) this.whole = this.part;
      if (!this.wanted) this.reached = width * height;
      this.redraw();
      if (this.live) wait = Math.max(0, AGAIN - (performance.now() - began));
    } catch {
      if (this.flying !== abort) return;
      wait = AGAIN; // the fit may not have begun yet
      this.wanted = true;
    }
    this.flying = null;
    if (this.live && this.reached) this.wanted = true;
    if (wait) this.timer = setTimeout(() => this.next(), wait);
    else this.next();
  }

  // resized: whether the canvases may have another size.
  redraw(resized = false) {
    for (const canvas of [this.photo, this.network]) {
      const scale = window.devicePixelRatio || 1;
      const width = Math.max(1, Math.round(canvas.clientWidth * scale));
      const height = Math.max(1, Math.round(canvas.clientHeight * scale));
      if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
      const context = canvas.getContext("2d");
      context.clearRect(0, 0, width, height);
      context.imageSmoothingQuality = "high";
      if (canvas === this.photo) {
        if (this.truth) this.draw(context, this.truth, [0, 0, 1, 1], this.truth.width < this.zoom * width);
      } else {
        for (const shown of new Set([this.whole, this.part])) {
          if (shown) this.draw(context, shown.bitmap, shown.area, false);
        }
      }
    }
    if (resized && this.truth) this.stale();
  }

  // A bitmap that covers `area` of the photo, where the present window has it; squares: pixels stay visible.
  draw(context, bitmap, area, squares) {
    const [left, top, right, bottom] = this.window;
    const { width, height } = context.canvas;
    const across = width / (right - left), down = height / (bottom - top);
    context.imageSmoothingEnabled = !squares;
    context.drawImage(
      bitmap, (area[0] - left) * across, (area[1] - top) * down, (area[2] - area[0]) * across, (area[3] - area[1]) * down,
    );
  }

  listen(canvas) {
    const place = (event) => {
      const box = canvas.getBoundingClientRect();
      return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
    };
    canvas.addEventListener("wheel", (event) => {
      if (!this.truth) return;
      event.preventDefault();
      const lines = event.deltaMode === 1 ? 30 : 1;
      this.zoomed(Math.exp(-Math.min(Math.max(event.deltaY * lines, -200), 200) * 0.0022), ...place(event));
    }, { passive: false });
    canvas.addEventListener("dblclick", () => this.reset());
    canvas.addEventListener("pointerdown", (event) => {
      if (!this.truth || event.button) return;
      canvas.setPointerCapture(event.pointerId);
      this.pointers.set(event.pointerId, place(event));
    });
    canvas.addEventListener("pointermove", (event) => {
      if (this.pointers.has(event.pointerId)) this.drag(event.pointerId, place(event));
    });
    for (const kind of ["pointerup", "pointercancel", "lostpointercapture"]) {
      canvas.addEventListener(kind, (event) => this.pointers.delete(event.pointerId));
    }
    canvas.addEventListener("keydown", (event) => this.key(event));
  }

  drag(id, [u, v]) {
    const [before, apart] = this.spread();
    this.pointers.set(id, [u, v]);
    const [after, farther] = this.spread();
    this.x -= (after[0] - before[0]) / this.zoom;
    this.y -= (after[1] - before[1]) / this.zoom;
    if (apart && farther) this.zoomed(farther / apart, ...after);
    else this.changed();
  }

  // The fingers' middle, and their distance (0: one finger).
  spread() {
    const at = [...this.pointers.values()].slice(0, 2);
    const middle = [0, 1].map((axis) => at.reduce((sum, place) => sum + place[axis], 0) / at.length);
    return [middle, at.length < 2 ? 0 : Math.hypot(at[0][0] - at[1][0], (at[0][1] - at[1][1]) / this.aspect)];
  }

  key(event) {
    const step = 0.15 / this.zoom;
    const moves = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step] };
    if (moves[event.key]) {
      this.x += moves[event.key][0];
      this.y += moves[event.key][1];
      this.changed();
    } else if (event.key === "+" || event.key === "=") this.zoomed(1.5);
    else if (event.key === "-") this.zoomed(1 / 1.5);
    else if (event.key === "0") this.reset();
    else return;
    event.preventDefault();
  }
}
