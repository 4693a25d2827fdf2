// Small builders of labelled controls. Text only ever comes in as text.

let numbers = 0;

export function element(tag, className = "", properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.className = className;
  made.append(...children.filter(Boolean));
  return made;
}

export const button = (text, pressed, properties = {}) =>
  element("button", "scene-button", { type: "button", textContent: text, onclick: pressed, ...properties });

export const group = (title, ...children) =>
  element("fieldset", "scene-group", {}, element("legend", "", { textContent: title }), ...children);

function labelled(text, input, ...more) {
  input.id ||= `control-${(numbers += 1)}`;
  const made = element("div", "scene-control", {}, element("label", "", { textContent: text, htmlFor: input.id }), input, ...more);
  made.input = input;
  return made;
}

export function range(text, value, low, high, step, changed, properties = {}) {
  const digits = step >= 1 ? 0 : step >= 0.1 ? 1 : 2;
  const shown = element("output", "", { textContent: Number(value).toFixed(digits) });
  const input = element("input", "", { type: "range", min: low, max: high, step, ...properties });
  input.value = value; // after its range, which would clamp it
  input.addEventListener("input", () => {
    shown.textContent = Number(input.value).toFixed(digits);
    changed(Number(input.value));
  });
  return labelled(text, input, shown);
}

export function choice(text, options, value, changed, properties = {}) {
  const input = element("select", "", properties, ...options.map(([key, name]) => new Option(name, key, false, key === value)));
  input.addEventListener("change", () => changed(input.value));
  return labelled(text, input);
}

export function tick(text, value, changed, properties = {}) {
  const input = element("input", "", { type: "checkbox", checked: value, ...properties });
  input.addEventListener("change", () => changed(input.checked));
  return element("label", "scene-tick", {}, input, text);
}
