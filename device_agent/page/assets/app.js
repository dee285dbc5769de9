"use strict";
// The page asks the agent once a second for everything that changes, and shows it. It decides nothing.

const tokenOf = (page) => page.querySelector("meta[name=page-token]").content;
let token = tokenOf(document);
const at = (id) => document.getElementById(id);
const SPARK_MS = 3600e3;
const SILENT_MS = 5000;
const SPANS = [["1 hour", 3600e3], ["1 day", 86400e3], ["1 week", 604800e3], ["1 month", 2678400e3], ["1 year", 31622400e3]];
// Codes of UCUM as people write them.
const UNITS = {
  Cel: "°C", "[degF]": "°F", L: "l", mL: "ml", "L/min": "l/min", m3: "m³", "m3/h": "m³/h", "m/s2": "m/s²", "ug/m3": "µg/m³",
  "g/m3": "g/m³", "uS/cm": "µS/cm", "[ppm]": "ppm", "[ppb]": "ppb", "[pH]": "pH", lx: "lx", "W/m2": "W/m²", Ohm: "Ω", uT: "µT",
  "V.A": "VA", "kW.h": "kWh", "W.h": "Wh", deg: "°", "deg/s": "°/s", By: "B", MBy: "MB", "dB[mW]": "dBm", "uSv/h": "µSv/h", 1: "",
};
const cards = new Map();
const past = new Map(); // "device.point" -> [[at, number], …] of the last hour
let described = new Map();
let heardAt = 0;

function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value != null) element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

function drawn(tag, attributes) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
}

const unitOf = (point) => (point && point.unit ? UNITS[point.unit] ?? point.unit : "");

function written(value, point) {
  if (value === null || value === undefined) return "–";
  if (typeof value === "boolean") return value ? "on" : "off";
  if (typeof value !== "number") return String(value);
  return Number.isInteger(value) ? String(value) : String(Number(value.toPrecision(6)));
}

function withUnit(value, point) {
  const unit = value === null || value === undefined ? "" : unitOf(point);
  return written(value, point) + (unit ? ` ${unit}` : "");
}

function lasting(seconds) {
  const s = Math.max(0, Math.round(seconds));
  if (s < 90) return `${s} s`;
  if (s < 5400) return `${Math.round(s / 60)} min`;
  if (s < 172800) return `${Math.round(s / 3600)} h`;
  return `${Math.round(s / 86400)} days`;
}

function say(text) {
  const toast = at("said");
  toast.textContent = text;
  toast.hidden = false;
  clearTimeout(say.timer);
  say.timer = setTimeout(() => { toast.hidden = true; }, 8000);
}

// -- asking ----------------------------------------

const post = (question) => fetch("api/ask", {
  method: "POST",
  headers: { "Content-Type": "application/json", "X-Page-Token": token },
  body: JSON.stringify(question),
});

async function ask(question) {
  try {
    let response = await post(question);
    if (response.status === 403) { // a daemon that was started again has another token
      token = tokenOf(new DOMParser().parseFromString(await (await fetch("./")).text(), "text/html"));
      response = await post(question);
    }
    if (!response.ok) return { error: { message: (await response.text()).trim() } };
    const answer = await response.json();
    return answer.ok ? answer.result : { error: answer.error };
  } catch {
    return { unheard: true, error: { message: "The device did not answer. Whether it was done is not known." } };
  }
}

function outcome(answer) {
  if (answer.error) return answer.error.message;
  if (answer.state === "done") return answer.verified ? "Done, and read back." : "Done.";
  return `The answer is: ${answer.state}.`;
}

function confirmed(title, text, yes, stopping = false) {
  const dialog = at("confirm");
  at("confirm-title").textContent = title;
  at("confirm-text").textContent = text;
  const go = at("confirm-yes");
  go.textContent = yes;
  go.className = stopping ? "stop" : "go";
  dialog.showModal();
  return new Promise((resolve) => {
    const end = (answer) => { dialog.close(); resolve(answer); };
    go.onclick = () => end(true);
    at("confirm-no").onclick = () => end(false);
    dialog.oncancel = () => resolve(false);
  });
}

// First what would happen, then the question, then the command with an id of its own.
async function command(question, title, yes) {
  const preview = await ask({ ...question, dry_run: true });
  if (preview.error) return say(preview.error.message);
  const gives = preview.hand_over ? " Somebody else drives it now and would have to give way." : "";
  if (!(await confirmed(title, `It moves something real.${gives}`, yes))) return;
  say(outcome(await ask({ ...question, id: `page-${crypto.getRandomValues(new Uint32Array(4)).join("-")}` })));
}

at("stop").addEventListener("click", async () => {
  const text = "Every actuator goes to its safe state at once. Nothing moves until somebody releases the stop at the device.";
  if (await confirmed("Emergency stop?", text, "Stop", true)) say(outcome(await ask({ op: "stop" })));
});

// -- devices ----------------------------------------

function control(device, point) {
  const set = (value) => command(
    { op: "set", device, values: { [point.name]: value } },
    `Set ${device} ${point.name} to ${withUnit(value, point)}?`, `Set to ${withUnit(value, point)}`,
  );
  const label = `${device} ${point.name}`;
  if (point.type === "boolean") {
    const toggle = make("button", { type: "button", role: "switch", "aria-checked": "false", "aria-label": label }, "off");
    toggle.onclick = () => set(toggle.getAttribute("aria-checked") !== "true");
    return { element: make("div", { class: "control" }, toggle), show: (value) => {
      toggle.setAttribute("aria-checked", String(value === true));
      toggle.textContent = value === null || value === undefined ? "not known" : written(value);
    } };
  }
  const number = point.type !== "string";
  const bounds = number ? { min: point.minimum, max: point.maximum, step: point.type === "integer" ? 1 : "any" } : {};
  const field = make("input", { type: number ? "number" : "text", "aria-label": label, ...bounds });
  const parts = [field];
  let slider = null;
  if (number && point.minimum != null && point.maximum != null) {
    const step = point.type === "integer" ? 1 : (point.maximum - point.minimum) / 100;
    slider = make("input", { type: "range", "aria-label": `${label}, slider`, ...bounds, step });
    slider.oninput = () => { field.value = slider.value; touched = true; };
    parts.unshift(slider);
  }
  let touched = false;
  field.oninput = () => { touched = true; if (slider) slider.value = field.value; };
  const send = () => {
    if (number && (field.value === "" || !field.checkValidity())) return say(field.validationMessage || "Give a number.");
    touched = false;
    return set(number ? Number(field.value) : field.value);
  };
  field.onkeydown = (event) => { if (event.key === "Enter") send(); };
  parts.push(make("button", { type: "button", "aria-label": `Set ${label}`, onclick: send }, "Set"));
  return { element: make("div", { class: "control" }, ...parts), show: (value) => {
    if (touched || field.matches(":focus") || value === null || value === undefined) return;
    field.value = value;
    if (slider) slider.value = value;
  } };
}

function pointRow(device, point) {
  const value = make("span", { class: "value" });
  const age = make("span", { class: "age" });
  const spark = make("button", { type: "button", class: "spark", "aria-label": `History of ${device} ${point.name}` });
  spark.onclick = () => showHistory(device, point);
  const row = make("div", { class: "point" },
    make("span", { class: "name", title: point.description || "" }, point.name), value, age, spark);
  const driven = point.write ? control(device, point) : null;
  if (driven) row.append(driven.element);
  return { row, show(latest, now) {
    const known = latest ? latest.values[point.name] : null;
    const flag = latest && latest.flags ? latest.flags[point.name] : null;
    value.replaceChildren(written(known, point));
    if (known !== null && known !== undefined && unitOf(point)) value.append(make("span", { class: "unit" }, unitOf(point)));
    age.className = flag ? "age flag" : "age";
    const old = latest && latest.clock !== "unset" ? `${lasting((now - latest.at) / 1000)} ago` : "";
    age.textContent = [flag ? flag.replaceAll("_", " ") : "", old].filter(Boolean).join(", ");
    if (driven) driven.show(known);
    const line = sparkline(past.get(`${device}.${point.name}`) || [], now, point.type === "boolean");
    spark.replaceChildren(line || "history");
  } };
}

function actions(device, list) {
  const buttons = list.filter((action) => !action.gives).map((action) => {
    const fields = action.arguments.map((argument) => make("input", {
      type: argument.type === "string" ? "text" : argument.type === "boolean" ? "checkbox" : "number", step: "any",
      "aria-label": `${argument.name} of ${action.name}`, required: argument.required,
      placeholder: unitOf(argument) ? `${argument.name}, ${unitOf(argument)}` : argument.name,
    }));
    const run = () => {
      const args = {};
      for (const [i, argument] of action.arguments.entries()) {
        const field = fields[i];
        if (argument.type === "boolean") args[argument.name] = field.checked;
        else if (field.value !== "") args[argument.name] = argument.type === "string" ? field.value : Number(field.value);
        else if (argument.required) return say(`${action.name} needs ${argument.name}.`);
      }
      return command({ op: "do", device, action: action.name, args }, `${action.name} of ${device}?`, action.name);
    };
    return make("div", { class: "control" }, ...fields, make("button", { type: "button", onclick: run }, action.name));
  });
  return make("div", {}, ...buttons);
}

function card(name) {
  const about = described.get(name);
  const state = make("span", { class: "state" });
  const driven = make("p", { class: "driven" });
  const note = make("p", { class: "note" });
  const points = ((about && about.points) || []).map((point) => pointRow(name, point));
  const element = make("article", { class: "card", "aria-label": name },
    make("div", { class: "head" }, make("h3", {}, name), state), driven, note, ...points.map((point) => point.row),
    actions(name, (about && about.actions) || []));
  return { element, show(entry, now) {
    state.textContent = entry.state;
    state.className = entry.state === "online" ? "state" : "state bad";
    const left = entry.safe_in_s === undefined ? "" : `, safe in ${lasting(entry.safe_in_s)}`;
    driven.textContent = entry.driven_by ? `driven by ${entry.driven_by}${left}` : entry.at_safe === false ? `away from its safe state${left}` : "";
    driven.hidden = !driven.textContent;
    const notes = Object.entries(entry.notes || {}).filter(([, said]) => String(said) !== entry.detail);
    note.textContent = [entry.detail || entry.reason || "", ...notes.map(([about, said]) => `${about.replaceAll("_", " ")}: ${said}`)].filter(Boolean).join("; ");
    note.hidden = !note.textContent;
    for (const point of points) point.show(entry.latest, now);
  } };
}

async function learn(names) {
  const response = await fetch("api/describe");
  const answer = await response.json();
  described = new Map((answer.ok ? answer.result : []).filter((device) => device.points).map((device) => [device.device, device]));
  cards.clear();
  at("devices").replaceChildren(...names.map((name) => {
    const made = card(name);
    cards.set(name, made);
    return made.element;
  }));
  await Promise.all(names.map(remember));
}

// -- the last hour, and any other ----------------------------------------

async function recorded(device, from, to, every) {
  const query = new URLSearchParams({ device, from: Math.round(from), to: Math.round(to), every_s: Math.max(1, Math.round(every)) });
  const response = await fetch(`api/history?${query}`);
  if (!response.ok) throw new Error((await response.text()).trim());
  const answer = await response.json();
  if (answer.ok === false) throw new Error(answer.error.message);
  return answer.readings;
}

function numeric(value) {
  return typeof value === "boolean" ? Number(value) : typeof value === "number" ? value : null;
}

async function remember(device) {
  const now = Date.now();
  try {
    for (const reading of await recorded(device, now - SPARK_MS, now, 60)) keep(device, reading);
  } catch { /* without a history the line begins now */ }
}

function keep(device, reading) {
  for (const [point, value] of Object.entries(reading.values)) {
    const number = numeric(value);
    if (number === null) continue;
    const key = `${device}.${point}`;
    const line = past.get(key) || [];
    if (line.length && line.at(-1)[0] >= reading.at) continue;
    line.push([reading.at, number]);
    while (line.length > 1 && (line[0][0] < reading.at - SPARK_MS || line.length > 3700)) line.shift();
    past.set(key, line);
  }
}

function path(line, from, to, low, high, width, height, steps) {
  const x = (t) => ((t - from) / (to - from)) * width;
  const y = (v) => height - 2 - ((v - low) / (high - low || 1)) * (height - 4);
  return line.map(([t, v], i) => {
    const across = x(t).toFixed(1), up = y(v).toFixed(1);
    return i && steps ? `H${across}V${up}` : `${i ? "L" : "M"}${across} ${up}`;
  }).join("");
}

function sparkline(line, now, steps) {
  const seen = line.filter(([t]) => t >= now - SPARK_MS);
  if (seen.length < 2) return null;
  const values = seen.map(([, v]) => v);
  const svg = drawn("svg", { viewBox: "0 0 128 32", preserveAspectRatio: "none", "aria-hidden": "true" });
  svg.append(drawn("path", { class: "line", d: path(seen, seen[0][0], now, Math.min(...values), Math.max(...values), 128, 32, steps) }));
  return svg;
}

const shown = { device: "", point: null, from: 0, to: 0 };

async function showHistory(device, point) {
  Object.assign(shown, { device, point });
  at("history-title").textContent = `${device} ${point.name}${unitOf(point) ? `, ${unitOf(point)}` : ""}`;
  at("spans").replaceChildren(...SPANS.map(([text, ms]) => make("button", { type: "button", "data-ms": ms, onclick: () => span(ms) }, text)));
  at("history").showModal();
  await span(SPANS[0][1]);
}

const span = (ms) => draw(Date.now() - ms, Date.now(), ms);

async function draw(from, to, ms = 0) {
  Object.assign(shown, { from, to });
  for (const button of at("spans").children) button.setAttribute("aria-pressed", String(Number(button.dataset.ms) === ms));
  at("chart-text").textContent = "loading";
  try {
    const readings = await recorded(shown.device, from, to, (to - from) / 400e3);
    if (shown.from !== from || shown.to !== to) return;
    chart(readings.map((r) => [r.at, numeric(r.values[shown.point.name])]).filter(([, v]) => v !== null), from, to);
  } catch (error) {
    at("chart").replaceChildren();
    at("chart-text").textContent = error.message;
  }
}

function chart(line, from, to) {
  const width = Math.max(260, at("chart").clientWidth), height = 220;
  if (!line.length) {
    at("chart").replaceChildren();
    at("chart-text").textContent = "Nothing was recorded in this span.";
    return;
  }
  const values = line.map(([, v]) => v);
  const low = Math.min(...values), high = Math.max(...values);
  const svg = drawn("svg", { viewBox: `0 0 ${width} ${height + 20}`, role: "img", "aria-label": at("history-title").textContent });
  for (const y of [2, height / 2, height - 2]) svg.append(drawn("line", { class: "grid", x1: 0, x2: width, y1: y, y2: y }));
  svg.append(drawn("path", { class: "line", d: path(line, from, to, low, high, width, height, shown.point.type === "boolean") }));
  const days = to - from > 172800e3;
  const clock = (t) => new Date(t).toLocaleString([], days ? { dateStyle: "short" } : { hour: "2-digit", minute: "2-digit" });
  const labels = [[0, height + 16, "start", clock(from)], [width / 2, height + 16, "middle", clock((from + to) / 2)], [width, height + 16, "end", clock(to)],
    [4, 14, "start", withUnit(high, shown.point)], [4, height - 6, "start", withUnit(low, shown.point)]];
  for (const [x, y, anchor, text] of labels) {
    const label = drawn("text", { x, y, "text-anchor": anchor });
    label.textContent = text;
    svg.append(label);
  }
  zoomable(svg, from, to, width, height);
  at("chart").replaceChildren(svg);
  const last = values.at(-1);
  at("chart-text").textContent = `${line.length} values, from ${withUnit(low, shown.point)} to ${withUnit(high, shown.point)}, last ${withUnit(last, shown.point)}. Drag over a part to see it closer.`;
}

function zoomable(svg, from, to, width, height) {
  const mark = drawn("rect", { class: "mark", y: 0, height, width: 0 });
  svg.append(mark);
  const where = (event) => {
    const box = svg.getBoundingClientRect();
    return Math.min(1, Math.max(0, (event.clientX - box.left) / box.width));
  };
  let begin = null;
  svg.onpointerdown = (event) => { begin = where(event); svg.setPointerCapture(event.pointerId); };
  svg.onpointermove = (event) => {
    if (begin === null) return;
    const end = where(event);
    mark.setAttribute("x", Math.min(begin, end) * width);
    mark.setAttribute("width", Math.abs(end - begin) * width);
  };
  svg.onpointerup = (event) => {
    const [a, b] = [begin, where(event)].sort((one, two) => one - two);
    begin = null;
    if ((b - a) * (to - from) > 10e3) draw(from + a * (to - from), from + b * (to - from));
    else mark.setAttribute("width", 0);
  };
}

at("history-close").onclick = () => at("history").close();

// -- the rest ----------------------------------------

function facts(status) {
  const { link, outbox, guard } = status;
  const state = link.joined ? (link.up ? "joined, link up" : "joined, link down") : link.state;
  at("link").textContent = [state, link.trouble].filter(Boolean).join(": ");
  at("agent").textContent = document.title = status.agent;
  const rows = [
    ["Version", status.version],
    ["Link", `${at("link").textContent}; ${link.losses} ${link.losses === 1 ? "loss" : "losses"}`],
    ["Waiting to be sent", `${outbox.events ?? 0} events, ${((outbox.bytes ?? 0) / 1e6).toFixed(1)} MB${outbox.trouble ? `; kept in memory only: ${outbox.trouble}` : ""}`],
    ["Clock", status.clock.set ? `set (${status.clock.source})` : "not set"],
    ["Guard", guard.up ? "watching" : "not there"],
  ];
  at("facts").replaceChildren(...rows.flatMap(([name, text]) => [make("dt", {}, name), make("dd", {}, text)]));
  const sessions = status.sessions.map((session) => make("p", {}, `${session.task}: ${session.streams.join(", ")}, ends in ${lasting(session.remaining_s)}`));
  at("sessions").replaceChildren(...(sessions.length ? sessions : [make("p", { class: "state" }, "Nobody is connected.")]));
  const stop = status.emergency_stop;
  const text = stop.latched ? `Emergency stop, pressed by ${stop.who}. It is released at the device: device-agent release` : stop.barred || "";
  banner(text);
}

function banner(text) {
  if (at("banner").textContent === text) return;
  at("banner").textContent = text;
  at("banner").hidden = !text;
}

function journal(rows) {
  const made = rows.slice().reverse().map((row) => make("tr", {},
    make("td", {}, new Date(row.at_ms).toLocaleString()), make("td", {}, row.who), make("td", {}, row.device),
    make("td", {}, row.what), make("td", {}, row.rule ? `${row.result} (${row.rule})` : row.result)));
  if (!made.length) made.push(make("tr", {}, make("td", { colspan: 5 }, "Nothing was driven yet.")));
  at("journal").replaceChildren(...made);
}

let learning = false;
let journalSeen = "";

async function update(state) {
  heardAt = Date.now();
  if (!state.status) return;
  const names = state.status.devices.map((entry) => entry.device);
  if (!learning && names.join() !== [...cards.keys()].join()) {
    learning = true;
    try { await learn(names); } finally { learning = false; }
  }
  for (const entry of state.status.devices) {
    if (entry.latest && entry.latest.clock !== "unset") keep(entry.device, entry.latest);
    cards.get(entry.device)?.show(entry, Date.now());
  }
  facts(state.status);
  const rows = JSON.stringify(state.journal);
  if (rows !== journalSeen) journal(state.journal || []);
  journalSeen = rows;
}

// Only while somebody looks: a browser opens six connections to a server, for all its tabs together.
let updates = null;

function listen() {
  if (document.hidden === (updates === null)) return;
  if (document.hidden) {
    updates.close();
    updates = null;
    return;
  }
  const source = updates = new EventSource("api/updates");
  source.addEventListener("message", (event) => update(JSON.parse(event.data)));
  source.addEventListener("error", () => { // what was refused, as one page too many, is tried again here
    if (source.readyState !== EventSource.CLOSED || source !== updates) return;
    updates = null;
    setTimeout(listen, SILENT_MS);
  });
}

document.addEventListener("visibilitychange", () => {
  heardAt = Date.now(); // as fresh as it is going to be in a second
  listen();
});
listen();
setInterval(() => {
  if (document.hidden || Date.now() - heardAt < SILENT_MS) return;
  at("link").textContent = "no connection";
  banner("No connection to the device: what is shown may be old.");
}, 1000);
