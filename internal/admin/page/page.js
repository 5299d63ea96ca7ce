// The page of the admin listener. It follows /v1/watch, and draws what is new once a second: only what is in sight, and
// only what is different. No library, no build step.
import { happened, told } from "./events.js";
import { count, isolated, now, setNow, size, when } from "./format.js";
import { byID, make, move, put, set } from "./dom.js";
import { Service, marks, orders } from "./service.js";
import { changed, choose, link, view } from "./view.js";

const services = new Map(); // by name
const list = byID("services"), find = byID("find"), sort = byID("sort"), only = byID("only");
const perFrame = 50; // rows that are moved in one frame
const orderEvery = 5; // seconds after which changed figures change the order
const silence = 10e3; // milliseconds without a message after which there is nothing to trust
let loaded = false; // the services are known
let anew = true; // the next list of services is a whole one

// arrange hides the services that are not looked for, and puts the others into order. The order stays while somebody
// points at a row or is in it, unless they ask for another one.
function arrange({ order = true } = {}) {
  const wanted = view.find.toLowerCase().split(/\s+/).filter(Boolean);
  let shown = 0;
  for (const s of services.values()) {
    const is = (!view.only || s.data.state === view.only || view.only === "trouble" && s.data.state !== "fine") && (wanted.length === 0 || s.isLike(wanted));
    if (s.li.hidden === is) s.li.hidden = !is;
    if (is) shown++;
  }
  put(byID("shown"), shown === services.size ? "" : `${count(shown)} of ${count(services.size)}`);
  byID("empty").hidden = !loaded || shown > 0;
  put(byID("none"), services.size === 0 ? "No service is configured." : "No service is like that.");
  byID("all").hidden = services.size === 0;
  if (order) place();
}

// place puts the services into order, some in each frame: to move a thousand rows at once would be felt.
let placing = 0;
async function place() {
  const run = ++placing, of = orders[view.sort] ?? orders.state;
  const all = [...services.values()].map((s) => [of(s), s]).sort(([a, s], [b, z]) => b - a || (s.name < z.name ? -1 : 1));
  let at = list.firstChild, moved = 0;
  for (const [, s] of all) {
    if (moved === perFrame) {
      moved = 0;
      await new Promise(requestAnimationFrame);
      if (run !== placing || at && at.parentNode !== list || s.li.parentNode !== list) return; // another order, or other services
    }
    if (s.li === at) at = at.nextSibling;
    else if (s.li === at?.nextSibling) at = s.li.nextSibling; // only the one before it is elsewhere
    else { move(list, s.li, at); moved++; }
  }
}

const isInUse = () => list.contains(document.activeElement) || matchMedia("(hover: hover)").matches && list.matches(":hover");

// show makes the page look like the view.
function show() {
  if (find.value !== view.find) find.value = view.find;
  sort.value = view.sort in orders ? view.sort : "state";
  only.value = view.only;
  for (const s of services.values()) s.open(view.open.has(s.name));
  arrange();
}

// go brings a service into sight, and returns its button.
function go(name) {
  const s = services.get(name);
  s?.li.scrollIntoView({ block: "center" });
  return s?.button;
}

// pills says the state in words and numbers.
function pills(status) {
  const fine = status.services - status.refusing - status.degraded;
  const all = [];
  if (status.services === 0) all.push(["unknown", "", "no service is configured"]);
  if (status.refusing) all.push(["refusing", "refusing", `${count(status.refusing)} ${status.refusing === 1 ? "refuses" : "refuse"} clients`]);
  if (status.degraded) all.push(["degraded", "degraded", `${count(status.degraded)} degraded`]);
  else if (status.state === "degraded") all.push(["degraded", "", "degraded"]);
  if (fine && all.length) all.push(["few", "fine", `${count(fine)} fine`]);
  else if (fine) all.push(["fine", "fine", fine === 1 ? "the service is fine" : `all ${count(fine)} services are fine`]);
  return all;
}

let drawnState; // what the header says, so that a screen reader is told only of a change
function header(state, host, all, reasons) {
  const look = JSON.stringify([state, host, all, reasons]);
  if (look === drawnState) return;
  drawnState = look;
  set(byID("icon"), "href", `icon-${state}.svg`);
  const said = all.filter(([kind]) => kind !== "few").map(([, , text]) => text).join(", ");
  document.title = (host ? host + ": " : "") + said + " – Lictor";
  put(byID("host"), host);
  byID("state").replaceChildren(...all.flatMap(([kind, filter, text]) => {
    const parts = [make("span", { "aria-hidden": "true" }, (marks[kind] ?? marks[filter] ?? "") + " "), text];
    return [filter ? link(make("a", { class: "pill " + kind }, ...parts), () => ({ only: filter, find: "" })) : make("span", { class: "pill " + kind }, ...parts), " "];
  }));
  byID("reasons").replaceChildren(...reasons.map((r) => make("li", {}, make("bdi", {}, r))));
}

// causes are the reasons why sources fail that several services share: one cause, one line.
function causes() {
  const by = new Map();
  for (const s of services.values()) {
    for (const r of s.data.reasons ?? []) if (r.kind === "stale") by.set(r.text, { since: r.since, n: (by.get(r.text)?.n ?? 0) + 1 });
  }
  return [...by].filter(([, { n }]) => n > 1).sort((a, b) => b[1].n - a[1].n).slice(0, 3)
    .map(([text, { n, since }]) => ({ text: `${count(n)} services: ${text}`, since }));
}

// address says at which of several addresses of Consul the lictor is.
function address(consul) {
  if (!consul || consul.addresses.length < 2 && !consul.moves) return "";
  const since = `Consul at ${isolated(consul.address)} since ${when(Date.parse(consul.since))}`;
  return consul.moves ? `${since}, before at ${isolated(consul.from)}: ${isolated(consul.why)}` : since;
}

let host = "", last = 0, ticks = 0;
function tick(status) {
  const t = Date.parse(status.now);
  setNow(t);
  host = status.host ?? "";
  put(byID("version"), status.version);
  const at = address(status.consul);
  put(byID("consul"), at);
  byID("consul").hidden = !at;
  const all = status.reasons ?? [];
  const reasons = [...all.filter((r) => r.kind === "refusing"), ...causes(), ...all.filter((r) => r.kind !== "refusing")].map((r) => r.text + (r.since ? `, since ${when(Date.parse(r.since))}` : ""));
  header(status.services === 0 && status.state === "fine" ? "unknown" : status.state, host, pills(status), reasons);
  put(byID("t-services"), count(status.services));
  put(byID("t-in"), count(status.endpoints_in));
  put(byID("t-out"), count(status.endpoints_out));
  put(byID("t-active"), count(status.connections_active + status.sessions_active));
  if (t >= last && t - last < 900) return; // something happened between two seconds
  const seconds = last && t > last ? (t - last) / 1000 : 0; // unknown at first, and if the clock was set back
  last = t;
  let clients = 0, bytes = 0, refused = 0;
  for (const s of services.values()) {
    s.tick(t, seconds);
    clients += s.rates.clients;
    bytes += s.rates.bytes;
    refused += s.data.refused_rate ?? 0;
    if (s.visible) s.draw();
  }
  put(byID("t-clients"), seconds ? count(clients) : "–");
  put(byID("t-refused"), count(refused));
  byID("t-refused").classList.toggle("bad", refused > 0);
  put(byID("t-bytes"), seconds ? size(bytes) : "–");
  if (++ticks % orderEvery === 0) arrange({ order: !isInUse() });
}

// update takes the services that have changed.
function update(data) {
  const there = new Set(data.services.map((s) => s.name));
  const gone = anew ? [...services.keys()].filter((name) => !there.has(name)) : data.removed;
  const first = !loaded;
  let other = gone.length > 0;
  for (const name of gone) { services.get(name)?.remove(); services.delete(name); }
  for (const d of data.services) {
    let s = services.get(d.name);
    if (!s) {
      services.set(d.name, s = new Service(d.name));
      list.append(s.li);
      other = true;
    }
    const state = s.data?.state;
    s.take(d);
    if (state !== d.state) other = true;
    if (view.open.has(d.name)) s.open(true);
  }
  anew = false;
  loaded = true;
  byID("loading").hidden = true;
  if (other || view.find) arrange({ order: first || !isInUse() });
  if (first && view.open.size) go([...view.open][0]);
}

// stop has all turn grey, or not.
function stop(is) {
  document.body.classList.toggle("stopped", is);
  for (const button of list.querySelectorAll("td button")) button.disabled = is;
}

let heard = 0; // when the last message came
function alive() {
  heard = Date.now();
  if (document.body.classList.contains("stopped")) stop(false);
}

// stopped says that nothing is known any more. Whatever is still shown is grey.
function stopped() {
  if (document.body.classList.contains("stopped")) return;
  stop(true);
  const text = heard ? `no data since ${when(now() - Date.now() + heard)}` : "no data: Lictor does not answer";
  header("unknown", host, [["unknown", "", text]], heard ? ["All that is shown below is of that time. The page tries to connect again."] : ["The page tries to connect again."]);
  put(byID("loading"), "No data yet: Lictor does not answer.");
}

let source, watchdog;
function connect() {
  source?.close();
  clearTimeout(watchdog);
  source = new EventSource("v1/watch");
  const on = (name, f) => source.addEventListener(name, (m) => { listen(); alive(); f(JSON.parse(m.data)); });
  const listen = () => { clearTimeout(watchdog); watchdog = setTimeout(() => { stopped(); connect(); }, silence); };
  source.addEventListener("open", () => { anew = true; last = 0; listen(); });
  source.addEventListener("error", () => {
    stopped();
    if (source.readyState === EventSource.CLOSED) { clearTimeout(watchdog); watchdog = setTimeout(connect, 3000); } // it does not try again by itself
  });
  on("services", update);
  on("events", happened);
  on("status", (status) => { tick(status); told(); });
  listen();
}

find.addEventListener("input", () => choose({ find: find.value }, { typed: true }));
sort.addEventListener("change", () => choose({ sort: sort.value }));
only.addEventListener("change", () => choose({ only: only.value }));
byID("all").addEventListener("click", () => choose({ find: "", only: "" }));
byID("events").addEventListener("service", (e) => go(e.detail)?.focus({ preventScroll: true }));
changed.addEventListener("view", show);
document.addEventListener("keydown", (e) => {
  if (e.defaultPrevented || e.ctrlKey || e.metaKey || e.altKey || document.querySelector("dialog[open]")) return;
  const field = e.target.closest?.("input, select, textarea");
  if (e.key === "/" && !field) { e.preventDefault(); find.focus(); return; }
  if (e.key === "Escape" && e.target === find) { choose({ find: "" }); return; }
  const step = { ArrowDown: 1, ArrowUp: -1 }[e.key];
  if (!step) return;
  const rows = [...list.querySelectorAll(":scope > li:not([hidden]) > .row button")];
  const i = rows.indexOf(document.activeElement);
  if (i < 0 && e.target !== find && e.target !== document.body) return; // the arrows scroll what has the focus
  const to = i < 0 ? (step > 0 ? rows[0] : undefined) : rows[i + step];
  if (to) { e.preventDefault(); to.focus(); }
});
show();
connect();
