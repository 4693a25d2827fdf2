// The pieces that the SIREN tab is built of.

// An element with children; strings become text, never markup.
export function element(tag, names = "", ...children) {
  const made = document.createElement(tag);
  if (names) made.className = names;
  made.append(...children);
  return made;
}

// A place where a file is dropped or, by a click, chosen. It has `file` and `take(file)`, and calls `changed`.
export function dropZone(id, title, hint) {
  const input = Object.assign(element("input", "siren-hidden"), { type: "file", id, accept: "image/*" });
  const thumbnail = element("img", "siren-thumbnail");
  Object.assign(thumbnail, { alt: "", hidden: true });
  const name = element("strong", "", title), small = element("span", "", hint);
  const zone = element("label", "siren-drop", thumbnail, element("span", "siren-drop-text", name, small), input);
  zone.file = null;
  zone.changed = () => {};
  zone.take = (file) => {
    zone.file = file;
    URL.revokeObjectURL(thumbnail.src);
    thumbnail.src = URL.createObjectURL(file);
    thumbnail.hidden = false;
    thumbnail.onerror = () => (thumbnail.hidden = true); // the server says what is wrong with it
    name.textContent = file.name;
    small.textContent = `${(file.size / 1024).toFixed(0)} KiB`;
    zone.classList.add("siren-filled");
    zone.changed(file);
  };
  input.addEventListener("change", () => input.files[0] && zone.take(input.files[0]));
  for (const kind of ["dragenter", "dragover"]) {
    zone.addEventListener(kind, (event) => (event.preventDefault(), zone.classList.add("siren-over")));
  }
  for (const kind of ["dragleave", "drop"]) zone.addEventListener(kind, () => zone.classList.remove("siren-over"));
  zone.addEventListener("drop", (event) => {
    event.preventDefault();
    const file = event.dataTransfer?.files[0];
    if (!file) return;
    event.stopPropagation();
    zone.take(file);
  });
  return zone;
}

// One choice of several, [value, text, explanation]; has `value`.
export function radios(name, title, choices, picked) {
  const group = element("fieldset", `siren-radios ${name}`);
  if (title) group.append(element("legend", "", title));
  const about = element("div", "siren-about");
  const row = element("div", "siren-row");
  group.value = choices[0][0];
  for (const [value, text, more] of choices) {
    const input = Object.assign(element("input"), { type: "radio", name, value, checked: value === group.value });
    input.addEventListener("change", () => {
      group.value = value;
      about.textContent = more ?? "";
      picked(value);
    });
    row.append(element("label", "siren-radio", input, element("span", "", text)));
  }
  group.append(row);
  if (choices[0][2]) {
    about.textContent = choices[0][2];
    group.append(about);
  }
  return group;
}

// A number on a line; has `value`, `set` and `enable`.
export function slider(id, title, least, most, step, value, said) {
  const input = Object.assign(element("input"), { type: "range", id, min: least, max: most, step, value });
  const text = element("output", "", said(value));
  const label = element("label", "siren-slider", element("span", "siren-slider-title", title, text), input);
  const show = () => {
    text.textContent = said(Number(input.value));
    input.style.setProperty("--siren-share", `${(100 * (input.value - least)) / (most - least)}%`);
  };
  show();
  input.addEventListener("input", show);
  Object.defineProperty(label, "value", { get: () => Number(input.value) });
  label.set = (number) => {
    input.value = number;
    show();
  };
  label.enable = (on) => {
    input.disabled = !on;
    label.classList.toggle("siren-off", !on);
  };
  return label;
}

export function progressBar() {
  const fill = element("div", "siren-fill");
  const bar = element("div", "siren-bar", fill);
  bar.setAttribute("role", "progressbar");
  bar.set = (share, live) => {
    fill.style.width = `${(100 * Math.min(share, 1)).toFixed(1)}%`;
    bar.classList.toggle("siren-live", live);
    bar.setAttribute("aria-valuenow", String(Math.round(100 * share)));
  };
  return bar;
}

// Where a fit stands, in a line.
export function sentence(status) {
  if (status.state === "waiting") return "Waiting for its turn …";
  const quality = status.psnr === null || status.psnr === undefined ? "" : ` · ${status.psnr.toFixed(1)} dB`;
  if (status.state === "done") return `Done: ${status.step} steps in ${status.seconds.toFixed(0)} s${quality}`;
  if (status.state === "stopped") return `Stopped after ${status.step} steps${quality}`;
  const left = status.left === null ? "" : ` · ${clock(status.left)} left`;
  return `${status.paused ? "Paused at step" : "Step"} ${status.step}${quality} · ${status.rate.toFixed(1)} steps/s${left}`;
}

// What it is fitted to.
export function facts(status) {
  const size = `${status.width} × ${status.height}`, [wide, tall] = status.original;
  const of = wide === status.width && tall === status.height ? "" : ` of the file's ${wide} × ${tall}`;
  const numbers = status.parameters ? `; the network has ${status.parameters.toLocaleString("en")} numbers` : "";
  return `Fitted to ${size} pixels${of}${of ? " (more time, more pixels)" : ""}${numbers}.`;
}

function clock(seconds) {
  const whole = Math.round(seconds);
  return `${Math.floor(whole / 60)}:${String(whole % 60).padStart(2, "0")}`;
}
