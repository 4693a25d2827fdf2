// The scene's controls, built anew where what they show has changed from elsewhere.

import { button, choice, element, group, range, tick } from "./controls.js";

export function buildPanel(view) {
  const { scene, state } = view, moving = scene.moving;
  const modes = ["color", "depth", "opacity", ...(moving ? ["canonical", "warp"] : [])];
  view.playButton = button(state.playing ? "Pause" : "Play", () => view.play(!view.state.playing), { id: "scene-play" });
  const time = range("Time", state.time, 0, 1, 0.001, (time) => view.put({ time }), { id: "scene-time" });
  view.timeSlider = time.input;
  const look = range("Exposure", state.look, 0, 1, 0.001, (look) => view.put({ look }), { id: "scene-look" });
  const names = [["-1", "free"], ...scene.photos.map((p, i) => [String(i), p.held_out ? `${p.name} (held out)` : p.name])];
  const photos = choice("Photo", names, String(state.chosen), (v) => (v === "-1" ? view.moved() : view.snap(Number(v))), { id: "scene-photo" });
  view.photos = photos.input;
  view.compared = button("Compare with the photo", () => view.compare(), { id: "scene-compare", hidden: state.chosen < 0 });
  view.sheetImage = element("img", "scene-sheet-image", { alt: "photo, rendering and their difference" });
  view.sheetText = element("div", "scene-sheet-text");
  view.sheet = element("div", "scene-sheet", { id: "scene-sheet", hidden: true }, view.sheetImage, view.sheetText);
  const most = Math.min(2048, 2 * Math.max(scene.width, scene.height));
  view.panel.replaceChildren(
    group("View",
      choice("Show", modes.map((m) => [m, m]), state.mode, (mode) => view.put({ mode }), { id: "scene-mode" }),
      moving && time, (moving || view.path) && element("div", "scene-row", {}, view.playButton,
        moving && tick("Freeze the person", state.freeze, (freeze) => view.put({ freeze }), { id: "scene-freeze" })),
      scene.looks && look,
      range("Field of view", view.camera.fov, 10, 120, 0.5, (fov) => { view.camera.fov = fov; view.moved(); }, { id: "scene-fov" }),
      range("Resolution", state.size, 64, most, 16, (size) => view.put({ size }), { id: "scene-size" }),
      choice("Background", ["scene", "black", "gray", "white"].map((m) => [m, m]), state.background,
        (background) => view.put({ background }), { id: "scene-background" }),
      button("Reset", () => view.reset(), { id: "scene-reset" })),
    group("Photos",
      tick("Show their cameras", state.cameras, (cameras) => view.put({ cameras }), { id: "scene-cameras" }),
      photos, view.compared, view.sheet),
    scene.center && cropGroup(view),
  );
}

function cropGroup(view) {
  const { center, half } = view.scene, { crop } = view.state;
  const low = center.map((c) => c - half), high = center.map((c) => c + half);
  const sliders = ["x", "y", "z"].flatMap((axis, i) => [0, 3].map((end) =>
    range(`${axis} ${end ? "up to" : "from"}`, crop ? crop[i + end] : end ? high[i] : low[i], low[i], high[i], half / 100, (v) => {
      view.state.crop ||= [...low, ...high];
      view.state.crop[i + end] = v;
      view.change();
    }, { id: `scene-crop-${axis}${end ? 1 : 0}` })));
  const on = tick("Crop to a box", Boolean(crop), (on) => view.set({ crop: on ? [...low, ...high] : null }), { id: "scene-crop" });
  return group("Crop box", on, ...(crop ? sliders : []));
}
