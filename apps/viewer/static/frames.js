// Asks the server for pictures: coarse ones while something moves, finer ones at rest, never more than one at a time.

const HAND = 85; // milliseconds that a picture may take while a hand waits
const REST = 140; // milliseconds without a change that count as rest
const LEAST = 48, MOST = 512; // pixels of a coarse picture's longer side
const AT_ONCE = 900; // milliseconds up to which the full picture is asked for without steps in between
const LIVE = 160; // milliseconds that a picture may take while the scene is being trained

export class Frames {
  // canvas: where pictures go; view(width, height): what to ask for; aspect(): width / height;
  // full(): pixels of the finest picture's longer side; said(text): told what goes on.
  constructor(canvas, { view, aspect, full, said, person }) {
    Object.assign(this, { canvas, view, aspect, full, said, person });
    this.coarse = 160;
    this.least = LEAST;
    this.most = MOST;
    this.perPixel = 0; // milliseconds, of the last pictures
    this.changed = 0; // when something last did
    this.reached = 0; // longer side of what is shown, 0: of something older
    this.wanted = false;
    this.live = false;
    this.version = -1;
    this.shown = 0; // pictures so far
  }

  // Something has moved, or other weights are there (moved false): what is shown is out of date.
  ask(moved = true) {
    if (moved) this.changed = performance.now();
    this.wanted = true;
    if (this.flying && this.flying.size > this.coarse && moved) this.flying.abort.abort();
    this.next();
  }

  get resting() {
    return performance.now() - this.changed > REST;
  }

  next() {
    if (this.flying) return;
    clearTimeout(this.timer);
    const full = this.full();
    if (this.wanted) {
      const size = this.resting && this.reached === 0 && this.live ? this.affordable(LIVE) : this.coarse;
      this.fetch(Math.min(size, full));
      return;
    }
    const most = this.live ? Math.min(full, this.affordable(LIVE)) : full;
    // What can be afforded beside a training changes a little all the time.
    if (this.reached >= (this.live ? 0.8 * most : most)) return;
    if (!this.resting) {
      this.timer = setTimeout(() => this.next(), REST / 2);
      return;
    }
    const steps = this.cost(most) > AT_ONCE ? Math.max(this.reached * 2, this.coarse) : most;
    this.fetch(Math.min(steps, most));
  }

  cost(size) {
    const aspect = this.aspect();
    return this.perPixel * size * size * Math.min(aspect, 1 / aspect);
  }

  affordable(milliseconds) {
    const aspect = this.aspect();
    if (!this.perPixel) return this.coarse;
    return Math.round(Math.max(this.least, Math.sqrt(milliseconds / (this.perPixel * Math.min(aspect, 1 / aspect)))));
  }

  async fetch(size) {
    const aspect = this.aspect();
    const width = Math.max(1, Math.round(size * Math.min(1, aspect)));
    const height = Math.max(1, Math.round(size * Math.min(1, 1 / aspect)));
    const abort = new AbortController(), began = performance.now();
    this.flying = { size, abort };
    this.wanted = false;
    let wait = 0;
    try {
      const answer = await fetch("/api/frame", {
        method: "POST",
        headers: { "Content-Type": "application/json", "X-Person": this.person },
        body: JSON.stringify(this.view(width, height)),
        signal: abort.signal,
      });
      if (answer.status === 200) {
        const bitmap = await createImageBitmap(await answer.blob());
        this.draw(bitmap, size, performance.now() - began, width * height);
        this.version = Number(answer.headers.get("X-Version"));
      } else if (answer.status !== 499) {
        const { error } = await answer.json();
        this.said(error, true);
        wait = 1000;
      }
    } catch (error) {
      if (error.name !== "AbortError") {
        this.said("the server does not answer; trying again", true);
        this.wanted = true;
        wait = 1000;
      }
    }
    this.flying = null;
    if (wait) this.timer = setTimeout(() => this.next(), wait);
    else this.next();
  }

  draw(bitmap, size, took, pixels) {
    const context = this.canvas.getContext("2d");
    context.imageSmoothingQuality = this.resting ? "high" : "low";
    context.drawImage(bitmap, 0, 0, this.canvas.width, this.canvas.height);
    this.shown += 1;
    this.canvas.dataset.frames = this.shown;
    this.canvas.dataset.size = size;
    this.canvas.dataset.took = Math.round(took);
    this.reached = this.wanted ? 0 : size;
    // Small pictures are mostly the way to the server and back; they say little of what a pixel costs.
    const each = took / pixels;
    this.perPixel = this.perPixel ? 0.6 * this.perPixel + 0.4 * each : each;
    if (size <= this.coarse * 1.01) {
      const better = this.coarse * Math.sqrt(HAND / Math.max(took, 1));
      this.coarse = Math.round(Math.min(Math.max(0.5 * this.coarse + 0.5 * better, this.least), this.most, this.full()));
    }
    this.said(`${bitmap.width} x ${bitmap.height}, ${Math.round(took)} ms`, false);
  }

  // The picture as shown is of other weights than the server has now.
  outdated(version) {
    if (version === this.version || this.flying) return;
    this.reached = 0;
    this.ask(false);
  }
}
