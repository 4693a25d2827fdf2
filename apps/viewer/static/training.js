// The training's curves, drawn while the form that shows them is open.

import { drawCurve } from "./curve.js";

const EVERY = 1000; // milliseconds

export function trainingCurves(place) {
  const [rise, fall] = ["training-psnr", "training-loss"].map((id) => Object.assign(document.createElement("canvas"), { id, className: "curve" }));
  place.replaceChildren(rise, fall);
  const look = async () => {
    if (place.isConnected) setTimeout(look, EVERY);
    if (!place.parentElement?.clientWidth || document.hidden) return;
    try {
      const { curve, seconds } = await (await fetch("/api/training")).json();
      place.classList.toggle("curves-empty", !curve.length);
      if (!curve.length) return;
      drawCurve(rise, curve.map(([at, psnr]) => [at, psnr]), "PSNR of training rays (dB)", seconds, 1);
      drawCurve(fall, curve.map(([at, , loss]) => [at, loss]), "loss", seconds, 4);
    } catch {
      // The scene's view says that the server doesn't answer.
    }
  };
  look();
}
