// A curve over seconds, on a canvas of any size, in the page's own colours.

// points: [[seconds, value], ...]; title: what the value is; seconds: of the whole axis; digits: of the values.
export function drawCurve(canvas, points, title, seconds, digits = 0) {
  const ratio = window.devicePixelRatio || 1, wide = canvas.clientWidth, tall = canvas.clientHeight;
  if (!wide || !tall) return;
  Object.assign(canvas, { width: Math.round(wide * ratio), height: Math.round(tall * ratio) });
  const context = canvas.getContext("2d"), look = getComputedStyle(canvas);
  context.scale(ratio, ratio);
  context.font = `11px ${look.fontFamily}`;
  context.fillStyle = context.strokeStyle = look.color;
  const values = points.map((point) => point[1]);
  const high = Math.max(...values), low = Math.min(...values), span = Math.max(high - low, 10 ** -digits / 2);
  const box = { left: 44, right: wide - 8, top: 18, bottom: tall - 18 };
  const x = (second) => box.left + (box.right - box.left) * Math.min(second / seconds, 1);
  const y = (value) => box.bottom - (box.bottom - box.top) * ((value - low) / span);
  context.globalAlpha = 0.7;
  context.fillText(title, box.left, 11);
  context.textAlign = "right";
  context.fillText(`${Math.round(seconds)} s`, box.right, tall - 4);
  if (points.length) {
    context.fillText(high.toFixed(digits), box.left - 5, box.top + 5);
    if (points.length > 1) context.fillText(low.toFixed(digits), box.left - 5, box.bottom + 1);
  }
  context.globalAlpha = 0.3;
  context.beginPath();
  context.moveTo(box.left, box.top);
  context.lineTo(box.left, box.bottom);
  context.lineTo(box.right, box.bottom);
  context.stroke();
  context.globalAlpha = 1;
  context.lineWidth = 2;
  context.lineJoin = "round";
  context.strokeStyle = look.getPropertyValue("--siren-accent") || look.getPropertyValue("--color-accent") || look.color;
  context.beginPath();
  for (const [second, value] of points) context.lineTo(x(second), y(value));
  context.stroke();
}
