// A drop zone for scenes: folders, a .zip or loose files go to the server, whose reader says what they are.
//
//     import {uploadZone} from "./upload.js";
//     uploadZone(div, {onReady({upload, downscale}) { ... }});
//
// What the server says is only ever set as text: names of files are a stranger's words.

const KEPT = /\.(png|jpe?g|json|npy|npz|txt|bin|ply|zip)$/i;
const AT_ONCE = 3;
const FACTORS = [1, 2, 3, 4, 6, 8];

export function uploadZone(element, {onReady}) {
  const api = new URL("api/uploads", document.baseURI).href;
  const page = build(element);
  let job = null; // the upload that the page shows: {token, requests, cancelled}

  function show(stage) {
    element.dataset.stage = stage;
    for (const [name, part] of Object.entries(page.stages)) part.hidden = name !== stage;
  }

  function fail(sentence) {
    page.error.textContent = sentence;
    page.error.hidden = false;
    show("choose");
  }

  function drop(old) {
    if (!old) return;
    old.cancelled = true;
    for (const request of old.requests) request.abort();
    if (old.token && !old.trained) fetch(`${api}/${old.token}`, {method: "DELETE", keepalive: true}).catch(() => {});
  }

  function cancel() {
    drop(job);
    job = null;
    page.error.hidden = true;
    show("choose");
  }

  async function take(found) {
    cancel();
    const mine = (job = {token: null, requests: new Set(), cancelled: false, trained: false});
    page.say(0, 0, 0, 0);
    show("send");
    try {
      const all = await found;
      const files = all.filter(({name}) => wanted(name));
      if (!files.length) throw new Error(nothing(all.length));
      const size = files.reduce((sum, {file}) => sum + file.size, 0);
      const begun = await ask(mine, "POST", api);
      mine.token = begun.upload;
      if (mine.cancelled) return drop(mine);
      if (size > begun.limit) throw new Error(`upload: expected at most ${amount(begun.limit)} in all, found ${amount(size)}`);
      await sendAll(mine, files, size);
      mine.leftOut = all.length - files.length;
      await check(mine, null);
    } catch (error) {
      if (mine.cancelled) return;
      drop(mine);
      job = null;
      fail(error.message);
    }
  }

  async function sendAll(mine, files, size) {
    const sent = new Map(); // bytes on their way or there, by file
    const queue = [...files];
    let done = 0;
    const tell = () => page.say(done, files.length, [...sent.values()].reduce((a, b) => a + b, 0), size);
    async function worker() {
      for (let next = queue.shift(); next && !mine.cancelled; next = queue.shift()) {
        const {name, file} = next;
        const url = `${api}/${mine.token}/files/${name.split("/").map(encodeURIComponent).join("/")}`;
        await ask(mine, "PUT", url, file, (loaded) => {
          sent.set(name, Math.min(loaded, file.size));
          tell();
        });
        sent.set(name, file.size);
        done += 1;
        tell();
      }
    }
    await Promise.all(Array.from({length: AT_ONCE}, worker));
    if (mine.cancelled) throw new Error("cancelled");
  }

  async function check(mine, downscale) {
    page.wait(downscale ? `Reading the scene at 1/${downscale} of its size …` : "Reading the scene …");
    show("send");
    const url = `${api}/${mine.token}/check${downscale ? `?downscale=${downscale}` : ""}`;
    const report = await ask(mine, "POST", url);
    if (mine.cancelled) return;
    mine.downscale = report.downscale;
    page.report(report, (mine.leftOut || 0) + report.skipped, `${api}/${mine.token}/plot.png?${report.downscale}`);
    show("ready");
    page.train.focus({preventScroll: true});
  }

  page.onFiles = take;
  page.cancel.addEventListener("click", cancel);
  page.again.addEventListener("click", cancel);
  page.train.addEventListener("click", () => {
    job.trained = true; // it's no longer this zone's to remove
    onReady({upload: job.token, downscale: job.downscale});
  });
  page.downscale.addEventListener("change", async () => {
    const mine = job;
    page.error.hidden = true;
    try {
      await check(mine, Number(page.downscale.value));
    } catch (error) {
      if (mine.cancelled) return;
      page.downscale.value = String(mine.downscale);
      fail(error.message);
      show("ready"); // what was read before still holds
    }
  });
  listen(page, element);
  show("choose");
}

// One request; resolves to its JSON, rejects with the server's sentence.
function ask(job, method, url, body = null, progress = null) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    job.requests.add(request);
    request.open(method, url);
    if (progress) request.upload.addEventListener("progress", (event) => progress(event.loaded));
    request.addEventListener("loadend", () => {
      job.requests.delete(request);
      const answer = parse(request.responseText);
      if (request.status >= 200 && request.status < 300 && answer) resolve(answer);
      else reject(new Error(complaint(request.status, answer)));
    });
    request.send(body);
  });
}

function parse(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

function complaint(status, answer) {
  const said = answer && (answer.error || answer.detail);
  if (typeof said === "string") return said;
  return status ? `server: expected an answer, found status ${status}` : "server: expected an answer, found no connection";
}

function wanted(name) {
  return KEPT.test(name) && !name.split("/").some((part) => part.startsWith(".") || part === "__MACOSX");
}

function nothing(count) {
  const found = count ? `${count} ${count === 1 ? "file" : "files"} of other kinds` : "an empty folder";
  return `upload: expected photos (.png, .jpg) and their poses (such as transforms.json), found ${found}`;
}

// Dropped things as [{name, file}], names relative to what was dropped. The entries must be taken before the event ends.
function dropped(transfer) {
  const entries = [...transfer.items].filter((i) => i.kind === "file").map((i) => i.webkitGetAsEntry?.() ?? i.getAsFile());
  return Promise.all(entries.filter(Boolean).map((entry) => (entry instanceof File ? [named(entry)] : walk(entry)))).then(
    (lists) => lists.flat(),
  );
}

async function walk(entry) {
  if (entry.isFile) {
    const file = await new Promise((resolve, reject) => entry.file(resolve, reject));
    return [{name: entry.fullPath.replace(/^\/+/, ""), file}];
  }
  const reader = entry.createReader();
  const files = [];
  for (;;) {
    const some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject)); // a hundred at a time
    if (!some.length) return files;
    for (const inner of some) files.push(...(await walk(inner)));
  }
}

function named(file) {
  return {name: file.webkitRelativePath || file.name, file};
}

function amount(bytes) {
  return bytes < 1e6 ? `${Math.ceil(bytes / 1e3)} KB` : bytes < 1e9 ? `${(bytes / 1e6).toFixed(1)} MB` : `${(bytes / 1e9).toFixed(2)} GB`;
}

function listen(page, element) {
  let depth = 0; // entering a child leaves its parent
  const mark = (step) => {
    depth = Math.max(0, depth + step);
    page.target.classList.toggle("upload-over", depth > 0);
  };
  const here = (event) => [...(event.dataTransfer?.types || [])].includes("Files");
  element.addEventListener("dragenter", (event) => here(event) && (event.preventDefault(), mark(1)));
  element.addEventListener("dragover", (event) => here(event) && event.preventDefault());
  element.addEventListener("dragleave", (event) => here(event) && mark(-1));
  element.addEventListener("drop", (event) => {
    if (!here(event)) return;
    event.preventDefault();
    mark(-depth);
    page.onFiles(dropped(event.dataTransfer));
  });
  for (const input of [page.files, page.folder]) {
    input.addEventListener("change", () => {
      const files = [...input.files].map(named);
      input.value = ""; // so that the same choice counts again
      if (files.length) page.onFiles(files);
    });
  }
}

function make(tag, name, text = "", more = {}) {
  const node = Object.assign(document.createElement(tag), {className: name, ...more});
  if (text) node.textContent = text;
  return node;
}

function build(element) {
  element.classList.add("upload-zone");
  const page = {onFiles: () => {}, stages: {}};
  page.error = make("div", "upload-error", "", {id: "upload-error", hidden: true});
  page.error.setAttribute("role", "alert");
  page.stages = {choose: buildChoose(page), send: buildSend(page), ready: buildReady(page)};
  element.replaceChildren(page.error, ...Object.values(page.stages));
  return page;
}

function buildChoose(page) {
  page.files = make("input", "upload-input", "", {type: "file", multiple: true, id: "upload-files", tabIndex: -1});
  page.folder = make("input", "upload-input", "", {type: "file", multiple: true, id: "upload-folder", tabIndex: -1});
  page.folder.webkitdirectory = true;
  page.files.setAttribute("aria-label", "Files or a .zip of a scene");
  page.folder.setAttribute("aria-label", "Folder of a scene");
  const folder = make("button", "upload-button", "Choose a folder", {type: "button"});
  const files = make("button", "upload-button", "Choose files or a .zip", {type: "button"});
  folder.addEventListener("click", () => page.folder.click());
  files.addEventListener("click", () => page.files.click());
  const row = make("div", "upload-row upload-middle");
  row.append(folder, files);
  page.target = make("div", "upload-target");
  page.target.append(
    make("div", "upload-title", "Drop a folder of posed photos, or its .zip"),
    make("div", "upload-hint", "Blender, instant-ngp and nerfstudio (transforms.json), Nerfies, NR-NeRF, LLFF or COLMAP"),
    row,
    page.folder,
    page.files,
  );
  return page.target;
}

function buildSend(page) {
  const box = make("div", "upload-target");
  const bar = make("progress", "upload-bar", "", {max: 1});
  const words = make("div", "upload-hint");
  words.setAttribute("role", "status");
  bar.setAttribute("aria-label", "Upload");
  page.cancel = make("button", "upload-button", "Cancel", {type: "button"});
  page.say = (done, count, bytes, size) => {
    if (count) bar.value = size ? bytes / size : 1;
    else bar.removeAttribute("value");
    words.textContent = count ? `${done} of ${count} files, ${amount(bytes)} of ${amount(size)}` : "Looking at the files …";
  };
  page.wait = (text) => {
    bar.removeAttribute("value");
    words.textContent = text;
  };
  const row = make("div", "upload-row upload-middle");
  row.append(page.cancel);
  box.append(bar, words, row);
  return box;
}

function buildReady(page) {
  const box = make("div", "upload-ready");
  const summary = make("div", "upload-summary", "", {id: "upload-summary"});
  const notes = make("ul", "upload-warnings");
  const plot = make("img", "upload-plot", "", {alt: "Cameras, box and points of the scene, and the box on some of its photos"});
  const label = make("label", "upload-label", "Downscale photos by ");
  page.downscale = make("select", "upload-select", "", {id: "upload-downscale"});
  label.append(page.downscale);
  page.train = make("button", "upload-button upload-primary", "Train this scene", {type: "button", id: "upload-train"});
  page.again = make("button", "upload-button", "Choose another", {type: "button"});
  const row = make("div", "upload-row");
  row.append(label, make("span", "upload-space"), page.again, page.train);
  box.append(summary, notes, plot, row);
  page.report = (report, leftOut, picture) => {
    summary.textContent = report.summary;
    const lines = [...report.warnings];
    if (leftOut) lines.push(`${leftOut} ${leftOut === 1 ? "file" : "files"} of other kinds left out`);
    notes.replaceChildren(...lines.map((line) => make("li", "", line)));
    notes.hidden = !lines.length;
    plot.src = picture;
    const factors = [...new Set([...FACTORS, report.suggested, report.downscale])].sort((a, b) => a - b);
    page.downscale.replaceChildren(
      ...factors.map((k) => make("option", "", k === report.suggested ? `${k} (suggested)` : `${k}`, {value: String(k)})),
    );
    page.downscale.value = String(report.downscale);
  };
  return box;
}
