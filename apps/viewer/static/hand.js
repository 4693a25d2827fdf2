// Mouse, touch and keyboard on the picture: turn, pan, zoom.

import { add } from "./camera.js";

const TURN = Math.PI; // radians a drag across the picture's height turns by
const KEY = 0.06; // of a turn's, pan's and zoom's size, a key press

// element takes the events; camera(): the person's; moved(): called after each change; tapped(x, y): a click that was no
// drag; pressed(key): other keys, true where it did something.
export function hand(element, { camera, moved, tapped, pressed }) {
  const pointers = new Map();
  let travelled = 0;

  element.addEventListener("contextmenu", (event) => event.preventDefault());
  element.addEventListener("pointerdown", (event) => {
    element.focus({ preventScroll: true });
    element.setPointerCapture(event.pointerId);
    pointers.set(event.pointerId, [event.clientX, event.clientY]);
    if (pointers.size === 1) travelled = 0;
    event.preventDefault();
  });

  element.addEventListener("pointermove", (event) => {
    const before = pointers.get(event.pointerId);
    if (!before || !camera()) return;
    const height = element.clientHeight, now = [event.clientX, event.clientY];
    const [right, down] = [(now[0] - before[0]) / height, (now[1] - before[1]) / height];
    if (!right && !down) return;
    travelled += Math.hypot(right, down) * height;
    if (pointers.size >= 2) pinch(event.pointerId, before, now, height);
    else if (event.shiftKey || event.buttons & 6) camera().pan(right, down);
    else camera().orbit(right * TURN, down * TURN);
    pointers.set(event.pointerId, now);
    moved();
  });

  // Two fingers: their distance zooms, their middle pans.
  function pinch(id, before, now, height) {
    const other = [...pointers].find(([key]) => key !== id)[1];
    const apart = (p) => Math.max(Math.hypot(p[0] - other[0], p[1] - other[1]), 1);
    camera().zoom(apart(now) / apart(before));
    const [right, down] = add(now, before.map((v) => -v)).map((v) => v / (2 * height));
    camera().pan(right, down);
  }

  const ended = (event) => {
    if (!pointers.delete(event.pointerId) || pointers.size || event.type !== "pointerup" || travelled > 4) return;
    const box = element.getBoundingClientRect();
    tapped(event.clientX - box.left, event.clientY - box.top);
  };
  element.addEventListener("pointerup", ended);
  element.addEventListener("pointercancel", ended);

  element.addEventListener(
    "wheel",
    (event) => {
      if (!camera()) return;
      event.preventDefault();
      const lines = event.deltaMode === 1 ? 16 : 1;
      camera().zoom(Math.exp((-event.deltaY * lines) / 600));
      moved();
    },
    { passive: false },
  );

  element.addEventListener("keydown", (event) => {
    if (!camera() || event.ctrlKey || event.metaKey || event.altKey) return;
    const arrows = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    if (event.key in arrows) {
      const [right, down] = arrows[event.key].map((v) => v * KEY);
      if (event.shiftKey) camera().pan(right, down);
      else camera().orbit(right * TURN, down * TURN);
    } else if (event.key === "+" || event.key === "=") camera().zoom(1 + 2 * KEY);
    else if (event.key === "-" || event.key === "_") camera().zoom(1 / (1 + 2 * KEY));
    else {
      if (pressed(event.key)) event.preventDefault();
      return;
    }
    event.preventDefault();
    moved();
  });
}
