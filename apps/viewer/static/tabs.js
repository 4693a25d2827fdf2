// Fills the other tabs once Gradio has put their places on the page.

import { sirenPanel } from "./siren.js";
import { trainingCurves } from "./training.js";
import { uploadZone } from "./upload.js";

async function train({ upload, downscale }) {
  const body = JSON.stringify({ upload, downscale });
  const answer = await fetch("/api/training", { method: "POST", headers: { "Content-Type": "application/json" }, body });
  if (!answer.ok) throw new Error((await answer.json()).error);
  // The scene's tab is the first one.
  document.querySelector('#tabs [role="tab"]').click();
}

const places = {
  "upload-zone": (place) => uploadZone(place, { onReady: train }),
  "siren-panel": sirenPanel,
  "training-curves": trainingCurves,
};

function fill() {
  for (const [id, make] of Object.entries(places)) {
    const place = document.getElementById(id);
    if (!place || place.dataset.filled) continue;
    place.dataset.filled = "yes";
    make(place);
  }
}
fill();
new MutationObserver(fill).observe(document.documentElement, { childList: true, subtree: true });
