// The scene and its controls: fills #scene-view and #scene-panel once Gradio has put them on the page.

import { Camera } from "./camera.js";
import { element } from "./controls.js";
import { Frames } from "./frames.js";
import { hand } from "./hand.js";
import { Overlay } from "./overlay.js";
import { buildPanel } from "./panel.js";
import { person } from "./person.js";

const POLL = 700; // milliseconds between looks at the server's state

export class SceneView {
  constructor(stage, panel) {
    this.picture = element("canvas", "scene-picture", { id: "scene-picture" });
    this.lines = element("canvas", "scene-lines", {
      id: "scene-lines", tabIndex: 0, role: "application",
      ariaLabel: "The scene: drag to turn, wheel to zoom, shift-drag to pan, arrow keys, R to reset",
    });
    this.hud = element("div", "scene-hud", { id: "scene-hud" });
    this.notice = element("div", "scene-notice", { id: "scene-notice", role: "status" });
    this.frame = element("div", "scene-frame", {}, this.picture, this.lines, this.hud, this.notice);
    stage.replaceChildren(this.frame);
    this.panel = panel;
    this.overlay = new Overlay(this.lines);
    this.state = this.fresh();
    this.keyframes = [];
    this.path = null;
    this.frames = new Frames(this.picture, {
      person,
      view: (width, height) => this.asked(width, height),
      aspect: () => this.aspect,
      full: () => this.state.size,
      said: (text, wrong) => this.say(text, wrong),
    });
    hand(this.lines, {
      camera: () => this.camera,
      moved: () => this.moved(),
      tapped: (x, y) => this.tapped(x, y),
      pressed: (key) => this.pressed(key),
    });
    new ResizeObserver(() => this.fit()).observe(stage);
    this.stage = stage;
    this.poll();
  }

  fresh() {
    return {
      mode: "color", time: 0.5, look: 0.5, size: 512, background: "scene", cameras: false, crop: null, chosen: -1,
      freeze: false, playing: false,
    };
  }

  get aspect() {
    return this.scene?.width ? this.scene.width / this.scene.height : 4 / 3;
  }

  // What the server needs for a picture.
  asked(width, height) {
    const { mode, time, look, background, crop } = this.state;
    return { pose: this.camera.pose, fov: this.camera.fov, width, height, mode, time, look, background, crop };
  }

  async poll() {
    try {
      const status = await (await fetch("/api/status")).json();
      this.frames.live = status.training === "training";
      if (!this.scene || status.scene !== this.scene.scene || (status.ready && !this.scene.ready)) await this.open();
      else if (status.ready && this.camera) {
        this.frames.outdated(status.version);
        this.frames.next(); // a training that has ended leaves time for the full picture
      }
    } catch {
      this.say("the server does not answer; trying again", true);
    }
    setTimeout(() => this.poll(), POLL);
  }

  async open() {
    const before = this.scene;
    this.scene = await (await fetch("/api/scene")).json();
    if (!this.scene.photos) {
      this.fit();
      return this.explain();
    }
    const again = before && before.scene === this.scene.scene;
    if (!again) {
      this.camera = new Camera(this.scene);
      this.state = { ...this.fresh(), size: Math.min(1024, Math.max(this.scene.width, this.scene.height)) };
      this.keyframes = [];
      this.path = null;
      this.recall();
    }
    this.build();
    this.fit();
    this.explain();
    if (this.scene.ready) this.frames.ask();
    document.dispatchEvent(new CustomEvent("scene-changed"));
  }

  explain() {
    const { name, ready } = this.scene;
    this.notice.textContent = ready ? "" : name ? `${name}: reading and starting ...` : "No scene yet: open one under New scene.";
    this.notice.hidden = Boolean(ready);
  }

  // The place of the person in this scene survives a reload.
  remember() {
    const { x, y, z, eye, distance, fov } = this.camera;
    const kept = { state: { ...this.state, playing: false }, camera: { x, y, z, eye, distance, fov }, keyframes: this.keyframes };
    sessionStorage.setItem(`scene:${this.scene.name}`, JSON.stringify(kept));
  }

  recall() {
    try {
      const kept = JSON.parse(sessionStorage.getItem(`scene:${this.scene.name}`));
      if (!kept) return;
      Object.assign(this.state, kept.state);
      Object.assign(this.camera, kept.camera);
      this.keyframes = kept.keyframes;
    } catch {
      sessionStorage.removeItem(`scene:${this.scene.name}`);
    }
  }

  // As large as fits, in the photos' proportions.
  fit() {
    const room = this.stage.clientWidth, tall = Math.max(window.innerHeight * 0.78, 240);
    const width = Math.min(room, tall * this.aspect), ratio = window.devicePixelRatio || 1;
    if (!width) return;
    this.frame.style.width = `${width}px`;
    this.frame.style.height = `${width / this.aspect}px`;
    const pixels = [Math.round(width * ratio), Math.round((width / this.aspect) * ratio)];
    if (this.picture.width !== pixels[0] || this.picture.height !== pixels[1]) {
      [this.picture.width, this.picture.height] = pixels;
      if (this.camera && this.scene.ready) this.frames.ask();
    }
    this.drawLines();
  }

  moved() {
    if (this.state.chosen >= 0) this.choose(-1);
    this.change();
  }

  change() {
    this.frames.ask();
    this.drawLines();
    clearTimeout(this.saving);
    this.saving = setTimeout(() => this.remember(), 300);
  }

  drawLines() {
    if (!this.camera) return;
    const { cameras, chosen, crop } = this.state, { photos, near, half } = this.scene;
    const shown = { photos: cameras ? photos : null, chosen, path: this.path, box: crop, keyframes: this.keyframes };
    this.overlay.draw(this.camera, shown, half ? 0.08 * half : 0.2 * near);
  }

  say(text, wrong = false) {
    this.hud.textContent = text;
    this.hud.classList.toggle("scene-wrong", wrong);
  }

  tapped(x, y) {
    if (!this.camera || !this.state.cameras) return;
    const index = this.overlay.hit(this.camera, this.scene.photos, x, y);
    if (index >= 0) this.snap(index);
  }

  // To a photo's camera, instant and exposure.
  snap(index) {
    const count = this.scene.photos.length, photo = this.scene.photos[(index + count) % count];
    this.camera.place(photo.pose, photo.fov);
    Object.assign(this.state, { time: photo.time, look: photo.time });
    this.choose((index + count) % count);
    this.build();
    this.change();
  }

  choose(index) {
    this.state.chosen = index;
    if (this.photos) this.photos.value = String(index);
    this.compared.hidden = index < 0;
    if (index < 0) this.sheet.hidden = true;
  }

  pressed(key) {
    const { state } = this;
    if (key === "r" || key === "R" || key === "Home") this.reset();
    else if (key === "[" || key === "]") this.snap(state.chosen + (key === "]" ? 1 : state.chosen < 0 ? 0 : -1));
    else if (key === "c" || key === "C") this.set({ cameras: !state.cameras });
    else if (key === " " && (this.scene.moving || this.path)) this.play(!state.playing);
    else if (key === "k" || key === "K") this.record();
    else return false;
    return true;
  }

  reset() {
    this.camera.reset();
    this.choose(-1);
    this.build();
    this.change();
  }

  set(change) {
    Object.assign(this.state, change);
    this.build();
    this.change();
  }

  record() {
    this.keyframes.push({ pose: this.camera.pose, fov: this.camera.fov, time: this.state.time });
    this.path = null;
    this.build();
    this.change();
  }

  forget() {
    this.keyframes = [];
    this.path = null;
    this.change();
  }

  // The recorded keyframes as the JSON that nerf.render takes.
  recorded() {
    return JSON.stringify({ units: "scene", loop: false, keyframes: this.keyframes });
  }

  async preview(order) {
    const body = JSON.stringify({ ...order, keyframes: order.path === "keyframes" ? this.recorded() : "" });
    const answer = await fetch("/api/paths", { method: "POST", headers: { "Content-Type": "application/json" }, body });
    const found = await answer.json();
    this.path = answer.ok ? found : null;
    this.say(answer.ok ? `${order.path}: shown as a line; Play goes along it` : found.error, !answer.ok);
    this.build();
    this.drawLines();
  }

  // Time runs to the end and back, unless the person is frozen; along a path that is shown the camera goes too.
  play(playing) {
    this.state.playing = playing;
    this.playButton.textContent = playing ? "Pause" : "Play";
    if (!playing || this.ticking) return;
    let last = null, way = 1, along = 0;
    const length = 1000 * (this.path ? 5 : Math.max(2, this.scene.photos.length / 24));
    const advance = (now) => {
      this.ticking = this.state.playing ? requestAnimationFrame(advance) : null;
      last ??= now; // a frame's clock may stand before that of the click
      const share = (now - last) / length;
      if (!this.ticking || this.frames.flying) return;
      last = now;
      along = (along + share) % 1;
      if (this.path) this.camera.follow(this.path, along);
      if (this.scene.moving && !this.state.freeze) {
        const next = this.state.time + way * share;
        way = next >= 1 ? -1 : next <= 0 ? 1 : way;
        this.state.time = Math.min(Math.max(next, 0), 1);
        this.timeSlider.value = String(this.state.time);
      }
      this.frames.ask();
      this.drawLines();
    };
    this.ticking = requestAnimationFrame(advance);
  }

  async compare() {
    const answer = await fetch(`/api/photos/${this.state.chosen}/compared?longest=512`, { headers: { "X-Person": person } });
    if (answer.status === 499) return;
    // A refusal stands where the picture would be: what the scene itself says is gone with its next picture.
    const said = answer.ok ? `photo, rendering, difference (x 4): ${answer.headers.get("X-PSNR")} dB` : (await answer.json()).error;
    URL.revokeObjectURL(this.sheetImage.src);
    if (answer.ok) this.sheetImage.src = URL.createObjectURL(await answer.blob());
    this.sheetImage.hidden = !answer.ok;
    this.sheetText.textContent = said;
    this.sheet.hidden = false;
  }

  build() {
    buildPanel(this);
  }

  // A change whose control already shows it.
  put(change) {
    Object.assign(this.state, change);
    this.change();
  }
}

// Gradio builds the page in its own time.
function start() {
  const stage = document.getElementById("scene-view"), panel = document.getElementById("scene-panel");
  if (!stage || !panel || window.sceneView) return Boolean(window.sceneView);
  window.sceneView = new SceneView(stage, panel);
  return true;
}
if (!start()) {
  const watch = new MutationObserver(() => start() && watch.disconnect());
  watch.observe(document.documentElement, { childList: true, subtree: true });
}
