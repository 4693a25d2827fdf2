// Lines over the picture: the photos' cameras, a film's path, the crop box.

import { add, norm, scale } from "./camera.js";

const TAP = 14; // pixels around a camera that count as it

// A photo's frustum: its eye and the corners of its picture.
function frustum(photo, size) {
  const column = (i) => [photo.pose[0][i], photo.pose[1][i], photo.pose[2][i]];
  const [x, y, z, eye] = [0, 1, 2, 3].map(column);
  const high = size * Math.tan((photo.fov * Math.PI) / 360), wide = high * photo.aspect;
  const ahead = add(eye, scale(z, -size));
  const corners = [[-1, -1], [1, -1], [1, 1], [-1, 1]].map(([a, b]) => add(ahead, add(scale(x, a * wide), scale(y, b * high))));
  return { eye, corners };
}

export class Overlay {
  constructor(canvas) {
    this.canvas = canvas;
  }

  // Anew, for this camera. photos, path (from the server), box: null where they aren't shown.
  draw(camera, { photos, chosen, path, box, keyframes }, size) {
    const something = photos || path || box || keyframes?.length;
    if (!something && !this.drawn) return; // most of the time, and a drag has other things to do
    this.drawn = something;
    const ratio = window.devicePixelRatio || 1, { clientWidth: width, clientHeight: height } = this.canvas;
    this.canvas.width = Math.round(width * ratio);
    this.canvas.height = Math.round(height * ratio);
    const context = this.canvas.getContext("2d");
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    this.pen = { context, camera, width, height };
    (photos || []).forEach((photo, index) => this.photo(photo, index === chosen, size));
    (keyframes || []).forEach((key) => this.photo({ ...key, aspect: width / height }, false, 0.7 * size, "#ff5ca8"));
    if (path) this.line(path.loop ? [...path.places, path.places[0]] : path.places, "#ff5ca8", 2.5);
    if (box) this.box(box);
  }

  photo(photo, chosen, size, paint = null) {
    const { eye, corners } = frustum(photo, size);
    if (norm(add(eye, scale(this.pen.camera.eye, -1))) < 0.3 * size) return; // one sees out of it
    const color = paint || (chosen ? "#ffb000" : photo.held_out ? "#ff6f59" : "#35c9ff");
    this.line([...corners, corners[0]], color, chosen ? 2.5 : 1);
    corners.forEach((corner) => this.line([eye, corner], color, chosen ? 2 : 0.7));
  }

  box([a, b, c, d, e, f]) {
    const at = (i) => [i & 1 ? d : a, i & 2 ? e : b, i & 4 ? f : c];
    for (let i = 0; i < 8; i++) for (const bit of [1, 2, 4]) if (!(i & bit)) this.line([at(i), at(i | bit)], "#7dff6b", 1.5);
  }

  line(points, color, width) {
    const { context, camera } = this.pen;
    context.strokeStyle = color;
    context.lineWidth = width;
    context.lineJoin = "round";
    context.beginPath();
    let drawing = false;
    for (const point of points) {
      const at = camera.project(point, this.pen.width, this.pen.height);
      if (at && drawing) context.lineTo(...at);
      else if (at) context.moveTo(...at);
      drawing = Boolean(at);
    }
    context.stroke();
  }

  // The number of the photo whose camera is there, or -1.
  hit(camera, photos, x, y) {
    let best = -1, nearest = TAP;
    photos.forEach((photo, index) => {
      const eye = photo.pose.map((row) => row[3]);
      const at = camera.project(eye, this.canvas.clientWidth, this.canvas.clientHeight);
      const apart = at ? Math.hypot(at[0] - x, at[1] - y) : Infinity;
      if (apart < nearest) [best, nearest] = [index, apart];
    });
    return best;
  }
}
