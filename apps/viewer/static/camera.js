// The person's camera: a pose, and the point that it turns about. Poses are camera-to-world, 3 rows of 4 (OpenGL axes).

export const add = (a, b) => a.map((v, i) => v + b[i]);
export const scale = (a, s) => a.map((v) => v * s);
export const dot = (a, b) => a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
export const norm = (a) => Math.sqrt(dot(a, a));
const column = (pose, i) => [pose[0][i], pose[1][i], pose[2][i]];

// Rodrigues: v turned by `angle` about the unit vector `axis`.
export function turned(v, axis, angle) {
  const c = Math.cos(angle), s = Math.sin(angle), along = dot(axis, v) * (1 - c);
  const across = [
    axis[1] * v[2] - axis[2] * v[1], axis[2] * v[0] - axis[0] * v[2], axis[0] * v[1] - axis[1] * v[0],
  ];
  return v.map((value, i) => value * c + across[i] * s + axis[i] * along);
}

export class Camera {
  constructor(scene) {
    this.scene = scene;
    this.reset();
  }

  reset() {
    this.place(this.scene.home, this.scene.fov);
  }

  // At a pose, turning about the point ahead of it that is nearest to what the capture is about.
  place(pose, fov) {
    [this.x, this.y, this.z, this.eye] = [0, 1, 2, 3].map((i) => column(pose, i));
    const ahead = -dot(add(this.scene.focus, scale(this.eye, -1)), this.z);
    this.distance = Math.max(ahead, 2 * this.scene.near);
    this.fov = fov;
  }

  get target() {
    return add(this.eye, scale(this.z, -this.distance));
  }

  get pose() {
    return [0, 1, 2].map((i) => [this.x[i], this.y[i], this.z[i], this.eye[i]]);
  }

  // Radians about the vertical and about the picture's horizontal. Where photos look outward it turns on the spot.
  orbit(across, down) {
    const target = this.target, spot = this.scene.kind === "outward";
    const level = Math.acos(Math.min(1, Math.max(-1, dot(this.z, this.scene.up))));
    const tilt = Math.min(Math.max(spot ? down : -down, 0.02 - level), Math.PI - 0.02 - level); // not over the poles
    this.turn(this.scene.up, spot ? across : -across);
    this.turn(this.x, tilt);
    this.tidy();
    if (!spot) this.eye = add(target, scale(this.z, this.distance));
  }

  turn(axis, angle) {
    [this.x, this.y, this.z] = [this.x, this.y, this.z].map((v) => turned(v, axis, angle));
  }

  // Shares of the picture's height.
  pan(right, down) {
    const height = 2 * this.distance * Math.tan((this.fov * Math.PI) / 360);
    this.eye = add(this.eye, add(scale(this.x, -right * height), scale(this.y, down * height)));
  }

  // Nearer to the target by this factor.
  zoom(factor) {
    const target = this.target;
    const span = this.scene.far - this.scene.near;
    this.distance = Math.min(Math.max(this.distance / factor, 0.02 * this.scene.near + 1e-4), this.scene.far + span);
    this.eye = add(target, scale(this.z, this.distance));
  }

  // To a share of a path as the server lays it: places, and where each looks.
  follow({ places, ahead, loop }, share) {
    const stop = share * (loop ? places.length : places.length - 1), i = Math.floor(stop);
    const mix = (rows) => {
      const [a, b] = [rows[i], rows[(i + 1) % rows.length]];
      return a.map((v, k) => v + (b[k] - v) * (stop - i));
    };
    this.eye = mix(places);
    this.z = scale(mix(ahead), -1);
    const up = this.scene.up;
    this.x = [up[1] * this.z[2] - up[2] * this.z[1], up[2] * this.z[0] - up[0] * this.z[2], up[0] * this.z[1] - up[1] * this.z[0]];
    this.tidy();
  }

  // Many small turns must not shear the axes.
  tidy() {
    this.z = scale(this.z, 1 / norm(this.z));
    this.x = add(this.x, scale(this.z, -dot(this.x, this.z)));
    this.x = scale(this.x, 1 / norm(this.x));
    const [x, z] = [this.x, this.z];
    this.y = [z[1] * x[2] - z[2] * x[1], z[2] * x[0] - z[0] * x[2], z[0] * x[1] - z[1] * x[0]];
  }

  // Where a world point is in a picture of that size, as [column, row]; null behind the camera.
  project(point, width, height) {
    const from = add(point, scale(this.eye, -1));
    const depth = -dot(from, this.z);
    if (depth <= 1e-6) return null;
    const focal = (0.5 * height) / Math.tan((this.fov * Math.PI) / 360);
    return [width / 2 + (focal * dot(from, this.x)) / depth, height / 2 - (focal * dot(from, this.y)) / depth];
  }
}
