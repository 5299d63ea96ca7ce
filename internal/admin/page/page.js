// The page of the admin listener. Everything that comes from the API may have been written by anybody who can register a service in
// Consul: it goes into the page as text, never as markup. No library, no build step.
const keep = 180; // samples, one a second
const $ = (id) => document.getElementById(id);
const services = new Map(); // by name: what is known, drawn and remembered of a service
const open = new Set(); // names of services that are shown in full
let anew = true; // the next list is a whole one

// make returns an element with text and attributes.
function make(tag, text, attributes = {}) {
  const e = document.createElement(tag);
  if (text !== undefined && text !== "") e.textContent = text;
  for (const [k, v] of Object.entries(attributes)) e.setAttribute(k, v);
  return e;
}
function put(e, text) { if (e.textContent !== text) e.textContent = text; }
function shape(tag, attributes) {
  const e = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [k, v] of Object.entries(attributes)) e.setAttribute(k, v);
  return e;
}

const count = (n) => n === 0 ? "0" : n < 10 ? n.toFixed(1) : Math.round(n).toLocaleString("en");
function size(n) {
  const units = ["B", "kB", "MB", "GB", "TB", "PB"];
  let i = 0;
  while (n >= 999.5 && i < units.length - 1) { n /= 1000; i++; }
  return (i === 0 || n >= 99.95 ? n.toFixed(0) : n.toFixed(1)) + " " + units[i];
}
const latency = (s) => s === 0 ? "–" : s < 0.001 ? (s * 1e6).toFixed(0) + " µs" : s < 1 ? (s * 1e3).toFixed(1) + " ms" : s.toFixed(1) + " s";
function brief(ms) {
  const s = Math.max(0, ms / 1000);
  return s < 60 ? Math.floor(s) + "s" : s < 3600 ? Math.floor(s / 60) + "m" : s < 172800 ? Math.floor(s / 3600) + "h" : Math.floor(s / 86400) + "d";
}
const ago = (t) => brief(now() - Date.parse(t)) + " ago";
let skew = 0; // the server's clock less the browser's
const now = () => Date.now() + skew;

// chart is a line over the samples; draw gives it points.
function chart(className) {
  const svg = shape("svg", { class: "line " + className, viewBox: `0 0 ${keep - 1} 30`, preserveAspectRatio: "none", "aria-hidden": "true" });
  svg.append(shape("polygon", {}), shape("polyline", {}));
  return svg;
}
function draw(svg, samples, of) {
  const top = Math.max(...samples.map(of), 1e-9);
  const x0 = keep - samples.length;
  const points = samples.map((s, i) => `${x0 + i},${(29 - 27 * of(s) / top).toFixed(1)}`).join(" ");
  svg.lastChild.setAttribute("points", points);
  svg.firstChild.setAttribute("points", samples.length ? `${x0},30 ${points} ${keep - 1},30` : "");
}

// add makes the row of a service that is new.
function add(name) {
  const li = make("li");
  const row = make("button", "", { class: "row", type: "button", "aria-expanded": "false" });
  const title = make("span", "", { class: "name" });
  const s = { name, li, row, title: make("b", name), note: make("i"), ends: make("span", "", { class: "ends" }), line: chart(""), samples: [], rates: { clients: 0, bytes: 0, latency: 0, active: 0 } };
  title.append(s.title, s.note);
  s.cells = ["active", "clients/s", "per s", "dial"].map((unit) => make("span", "", { class: "n", "data-unit": unit }));
  row.append(title, s.ends, ...s.cells, s.line);
  row.addEventListener("click", () => toggle(s));
  li.append(row);
  li.service = s;
  seen.observe(li);
  services.set(name, s);
  return s;
}

// The samples from before this page was opened are asked for when a service comes into sight, a few at a time.
const seen = new IntersectionObserver((entries) => {
  for (const e of entries) {
    const s = e.target.service;
    s.visible = e.isIntersecting;
    if (s.visible && !s.asked) { s.asked = true; asking.push(s); ask(); }
    if (s.visible) refresh(s);
  }
}, { rootMargin: "200px" });
const asking = [];
let busy = 0;
async function ask() {
  if (busy >= 3 || asking.length === 0) return;
  busy++;
  const s = asking.shift();
  try {
    const answer = await (await fetch(`v1/services/${encodeURIComponent(s.name)}/history`)).json();
    s.samples = [...answer.samples.slice(0, answer.samples.length - s.samples.length), ...s.samples].slice(-keep);
    if (s.visible) refresh(s);
  } catch { /* the line begins now, then */ }
  busy--;
  ask();
}

// fallback is the source that serves instead of the first one, if one does.
function fallback(data) {
  return (data.sources ?? []).slice(1).find((s) => s.active);
}

// take notes what is new of a service.
function take(data) {
  const s = services.get(data.name) ?? add(data.name);
  s.data = data;
  s.trouble = data.set === "none" ? "no answer yet" + (data.problem ? ": " + data.problem : "")
    : data.stale_since ? `stale since ${new Date(data.stale_since).toLocaleTimeString()}: ${data.problem}`
    : data.set === "saved" ? "saved from before the start, not confirmed yet"
    : data.empty_until
      ? `no endpoint: ${data.waiting ?? 0} clients wait for one until ${new Date(data.empty_until).toLocaleTimeString()}`
    : fallback(data) ? `served by ${fallback(data).name}: ${fallback(data).detail}`
    : data.panicking ? "so many endpoints fail that their failures are ignored"
    : data.waiting ? `${data.waiting} clients wait for room` : data.problem ?? "";
  s.in = data.endpoints.filter((e) => e.state === "in").length;
  s.active = data.counters.connections_active + data.counters.sessions_active;
  s.words = [data.name, data.protocol, data.source, data.set, s.trouble, data.stale_since ? "stale" : "", ...data.listeners,
    ...data.endpoints.flatMap((e) => [e.id, e.address, e.state, e.reason, ...(e.tags ?? [])])].join(" ").toLowerCase();
  refresh(s);
}

// sample notes the rates since the last one.
function sample(s, seconds) {
  const c = s.data.counters, b = s.before ?? c;
  s.before = c;
  const rate = (f) => Math.max(0, f(c) - f(b)) / seconds;
  const dials = c.dials - b.dials;
  s.rates = {
    clients: rate((x) => x.connections + x.sessions), bytes: rate((x) => x.bytes_up + x.bytes_down),
    latency: dials > 0 ? (c.dial_seconds - b.dial_seconds) / dials : 0, active: s.active,
  };
  s.samples.push(s.rates);
  if (s.samples.length > keep) s.samples.shift();
}

// lately is the newest latency: there is none in a second without a dial.
function lately(s) {
  for (let i = s.samples.length - 1; i >= Math.max(0, s.samples.length - 30); i--) if (s.samples[i].latency > 0) return s.samples[i].latency;
  return 0;
}

function refresh(s) {
  if (!s.data) return;
  put(s.note, s.trouble || `${s.data.protocol} ${s.data.listeners.join(" ")}`);
  s.note.className = s.trouble ? "bad" : "";
  const out = s.data.endpoints.length - s.in;
  const look = `${s.in}/${out}`;
  if (s.look !== look) {
    s.look = look;
    const dots = [];
    for (let i = 0; i < Math.min(s.data.endpoints.length, 12); i++) dots.push(make("span", "", { class: i < s.in ? "dot" : "dot out" }));
    const text = s.in === 0 ? make("span", "none in" + (out ? `, ${out} out` : ""), { class: "none" }) : make("span", out ? `${s.in} in, ${out} out` : `${s.in} in`);
    s.ends.replaceChildren(...dots, text);
  }
  if (!s.visible) return;
  put(s.cells[0], String(s.active));
  put(s.cells[1], count(s.rates.clients));
  put(s.cells[2], size(s.rates.bytes));
  put(s.cells[3], latency(lately(s)));
  draw(s.line, s.samples, (x) => x.clients + x.bytes / 1e9 + x.active / 1e6);
  if (s.more) detail(s);
}

function toggle(s) {
  const show = !open.has(s.name);
  if (show) open.add(s.name); else open.delete(s.name);
  s.row.setAttribute("aria-expanded", String(show));
  if (!show) { s.more?.remove(); s.more = undefined; return; }
  s.more = make("div", "", { class: "more" });
  s.about = make("p");
  s.charts = [["clients/s", (x) => x.clients, count], ["bytes/s", (x) => x.bytes, size], ["dial latency", (x) => x.latency, latency], ["active", (x) => x.active, count]].map(([name, of, show]) => {
    const figure = make("figure"), caption = make("figcaption"), value = make("span"), svg = chart("tall");
    caption.append(make("span", name), value);
    figure.append(caption, svg);
    return { figure, value, svg, of, show };
  });
  const charts = make("div", "", { class: "charts" });
  charts.append(...s.charts.map((c) => c.figure));
  const table = make("table"), head = make("tr"), scroll = make("div", "", { class: "scroll" });
  head.append(...["endpoint", "address", "weight", "state", "why", ""].map((t) => make("th", t, { scope: "col" })));
  const thead = make("thead");
  thead.append(head);
  s.body = make("tbody");
  s.lines = new Map();
  table.append(make("caption", `Endpoints of ${s.name}`, { hidden: "" }), thead, s.body);
  scroll.append(table);
  s.more.append(s.about, charts, scroll);
  s.li.append(s.more);
  detail(s);
}

// detail updates what is shown in full, in place, so that the focus stays.
function detail(s) {
  put(s.about, s.trouble || `from ${s.data.source}, changed ${s.data.last_change ? ago(s.data.last_change) : "never"}` + (s.data.last_success ? `, confirmed ${ago(s.data.last_success)}` : ""));
  s.about.className = s.trouble ? "bad" : "";
  for (const c of s.charts) {
    draw(c.svg, s.samples, c.of);
    put(c.value, c.of(s.samples.at(-1) ?? s.rates) === 0 && c.show === latency ? latency(lately(s)) : c.show(c.of(s.samples.at(-1) ?? s.rates)));
  }
  const there = new Set();
  for (const e of s.data.endpoints) {
    there.add(e.id);
    let l = s.lines.get(e.id);
    if (!l) {
      l = { tr: make("tr", "", { class: "new" }), cells: [0, 1, 2, 3, 4, 5].map(() => make("td")), button: make("button", "", { type: "button" }) };
      l.id = make("div");
      l.cells[0].append(l.id, ...(e.tags ?? []).map((t) => make("span", t, { class: "tag" })));
      l.cells[5].append(l.button);
      l.tr.append(...l.cells);
      l.button.addEventListener("click", () => drain(s, e.id, l.button));
      s.lines.set(e.id, l);
      s.body.append(l.tr);
    }
    put(l.id, e.id);
    put(l.cells[1], e.address);
    put(l.cells[2], String(e.weight));
    put(l.cells[3], e.state);
    l.cells[3].className = e.state;
    put(l.cells[4], e.reason + (e.since ? " for " + brief(now() - Date.parse(e.since)) : "") + (e.until ? ", for another " + brief(Date.parse(e.until) - now()) : "") + (e.detail ? ": " + e.detail : ""));
    const drained = e.reason === "drained";
    l.button.hidden = !drained && e.state !== "in";
    l.button.dataset.action = drained ? "undrain" : "drain";
    put(l.button, drained ? "Undrain" : "Drain");
    l.button.setAttribute("aria-label", `${drained ? "Undrain" : "Drain"} ${e.id}`);
  }
  for (const [id, l] of s.lines) if (!there.has(id)) { l.tr.remove(); s.lines.delete(id); }
}

async function drain(s, endpoint, button) {
  button.disabled = true;
  try {
    const answer = await fetch(`v1/services/${encodeURIComponent(s.name)}/${button.dataset.action}`, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(button.dataset.action === "drain" ? { endpoint, force: true } : { endpoint }) });
    if (!answer.ok) throw new Error((await answer.json()).error);
  } catch (e) { put(s.about, String(e)); s.about.className = "bad"; }
  button.disabled = false;
}

// arrange puts the rows into order and hides those that are not looked for.
function arrange() {
  const words = $("find").value.toLowerCase().split(/\s+/).filter(Boolean);
  const by = $("sort").value;
  const of = { trouble: (s) => (s.in === 0 ? 4 : 0) + (s.trouble ? 2 : 0) + (s.data.endpoints.length > s.in ? 1 : 0), active: (s) => s.active, clients: (s) => s.rates.clients, bytes: (s) => s.rates.bytes, latency: lately }[by];
  const all = [...services.values()].sort((a, b) => (of ? of(b) - of(a) : 0) || (a.name < b.name ? -1 : a.name > b.name ? 1 : 0));
  let shown = 0, at = $("services").firstChild;
  for (const s of all) {
    s.li.hidden = !words.every((w) => s.words.includes(w));
    if (!s.li.hidden) shown++;
    if (s.li === at) at = at.nextSibling;
    else $("services").insertBefore(s.li, at);
  }
  put($("shown"), shown === services.size ? "" : `${shown} of ${services.size}`);
  $("empty").hidden = shown > 0 || anew;
  put($("empty"), services.size === 0 ? "No service is configured." : "No service is like that.");
}

let last = 0;
function tick(status) {
  skew = Date.parse(status.now) - Date.now();
  put($("version"), status.version);
  const ready = $("ready");
  put(ready, status.ready ? "ready" : `not ready: ${(status.not_ready ?? []).length} of ${status.services} without an answer`);
  ready.className = "pill " + (status.ready ? "good" : "bad");
  $("stale").hidden = status.stale === 0;
  put($("stale"), `${status.stale} stale`);
  const failed = status.last_reload && !status.last_reload.ok;
  $("failed-reload").hidden = !failed;
  if (failed) { put($("failed-reload"), "last reload failed"); $("failed-reload").title = status.last_reload.error; }
  put($("t-services"), String(status.services));
  put($("t-in"), String(status.endpoints_in));
  put($("t-out"), String(status.endpoints_out));
  put($("t-active"), String(status.connections_active + status.sessions_active));
  const t = Date.parse(status.now);
  if (t - last < 900) return; // something happened between two seconds
  const seconds = last ? (t - last) / 1000 : 1;
  last = t;
  let clients = 0, bytes = 0;
  for (const s of services.values()) {
    sample(s, seconds);
    clients += s.rates.clients;
    bytes += s.rates.bytes;
    if (s.visible) refresh(s);
  }
  put($("t-clients"), count(clients));
  put($("t-bytes"), size(bytes));
  if ($("sort").value !== "name") arrange();
}

function happened(events) {
  const list = $("events");
  for (const e of events) {
    const li = make("li", "", { class: "new" });
    li.append(make("time", new Date(e.time).toLocaleTimeString(), { datetime: e.time }), " ", make("span", e.kind, { class: "kind " + e.kind.replace(/[^a-z_]/g, "") }), " ", make("b", e.service ?? ""), " ", e.text);
    list.prepend(li);
  }
  while (list.childElementCount > 200) list.lastChild.remove();
}

function connect() {
  const source = new EventSource("v1/watch");
  source.addEventListener("open", () => { anew = true; last = 0; $("events").replaceChildren(); });
  source.addEventListener("error", () => {
    put($("ready"), "no connection to lictor");
    $("ready").className = "pill bad";
    if (source.readyState === EventSource.CLOSED) setTimeout(connect, 3000); // it does not try again by itself after an answer that is an error
  });
  source.addEventListener("services", (m) => {
    const data = JSON.parse(m.data);
    const whole = new Set(data.services.map((s) => s.name));
    const gone = anew ? [...services.keys()].filter((n) => !whole.has(n)) : data.removed;
    for (const n of gone) { const s = services.get(n); if (s) { seen.unobserve(s.li); s.li.remove(); services.delete(n); open.delete(n); } }
    const size = services.size;
    for (const s of data.services) take(s);
    const changed = anew || gone.length > 0 || services.size !== size;
    anew = false;
    if (changed || $("find").value) arrange();
  });
  source.addEventListener("events", (m) => happened(JSON.parse(m.data)));
  source.addEventListener("status", (m) => tick(JSON.parse(m.data)));
}

$("find").addEventListener("input", arrange);
$("sort").addEventListener("change", arrange);
document.addEventListener("keydown", (e) => {
  const field = e.target.closest?.("input, select");
  if (e.key === "/" && !field) { e.preventDefault(); $("find").focus(); return; }
  if (e.key === "Escape" && e.target === $("find")) { $("find").value = ""; arrange(); return; }
  if ((e.key === "ArrowDown" || e.key === "ArrowUp") && (!field || e.target === $("find"))) {
    const rows = [...document.querySelectorAll("#services > li:not([hidden]) > .row")];
    const i = rows.indexOf(document.activeElement);
    const to = rows[e.key === "ArrowDown" ? i + 1 : i - 1] ?? (i < 0 ? rows[0] : undefined);
    if (to) { e.preventDefault(); to.focus(); }
  }
});
connect();
