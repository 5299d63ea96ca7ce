// Details are what an open row shows: why the service is as it is, charts, and its endpoints.
import { Chart } from "./chart.js";
import { Endpoints } from "./endpoints.js";
import { Exposed } from "./exposed.js";
import { brief, count, isolated, latency, now, size, waiting, when, words } from "./format.js";
import { make, put } from "./dom.js";

const drawn = [
  { name: "clients/s", of: (x) => x.clients, bad: (x) => x.refused ?? 0, show: count, whole: true },
  { name: "bytes/s", of: (x) => x.bytes, show: size, whole: true },
  { name: "dial latency", of: (x) => x.latency, show: latency, sparse: true },
  { name: "active", of: (x) => x.active, show: count, whole: true },
];

export class Details {
  constructor(service) {
    this.service = service;
    this.reasons = make("ul", { class: "reasons" });
    this.about = make("p");
    this.near = make("p");
    this.problem = make("p");
    this.identity = make("p");
    this.path = make("p");
    this.lately = make("b", { class: "bad" });
    this.total = make("span");
    this.refused = make("p", {}, this.lately, this.total);
    this.sources = make("ol", { class: "sources" });
    const cursor = {};
    this.charts = drawn.map((d) => new Chart(d, service.name, cursor, () => this.drawCharts()));
    this.endpoints = new Endpoints(service);
    this.exposed = new Exposed();
    this.element = make("div", { class: "more" }, this.reasons, this.about, this.identity, this.exposed.element, this.path, this.near, this.problem, this.refused, this.sources,
      make("div", { class: "charts" }, ...this.charts.map((c) => c.figure)), this.endpoints.element);
  }

  tick(t) { this.endpoints.tick(t); }

  draw() {
    const d = this.service.data;
    const reasons = d.reasons ?? [];
    list(this.reasons, (reasons.length > 1 || reasons[0]?.since || reasons[0]?.text.length > 80 ? reasons : []).map((r) => r.text + (r.since ? `, since ${when(Date.parse(r.since))}` : "")));
    put(this.about, `From ${d.source}; changed ${d.last_change ? ago(d.last_change) : "never"}` + (d.last_success ? `, confirmed ${ago(d.last_success)}.` : "."));
    put(this.near, nearness(d.near));
    this.near.hidden = !d.near;
    put(this.problem, [d.problem && !reasons.some((r) => r.text.includes(d.problem)) ? d.problem : "", waiting(d)].filter(Boolean).join("; "));
    this.problem.hidden = this.problem.textContent === "";
    this.identity.hidden = !d.identity;
    put(this.identity, d.identity ? inMesh(d) : "");
    this.exposed.draw(d.exposed);
    this.path.hidden = d.path.asked === "off" && !d.kernel;
    put(this.path, pathOf(d));
    list(this.sources, (d.sources ?? []).map((s) => s.name + (s.active ? ": in use" : ": not in use") + (s.detail ? ", " + s.detail : "")));
    this.drawRefused();
    this.drawCharts();
    this.endpoints.draw();
  }

  drawRefused() {
    const { refused_rate_by: rates = {}, counters } = this.service.data;
    const by = (all) => Object.entries(all).sort((a, b) => b[1] - a[1]).map(([why, n]) => `${count(n)} ${words(why)}`).join(", ");
    const lately = by(rates);
    const total = by(counters.refused_by ?? {});
    this.refused.hidden = total === "";
    put(this.lately, lately ? `Clients refused a second, of the last 10 s: ${lately}. ` : "");
    put(this.total, `Clients refused since the start: ${total}.`);
  }

  drawCharts() {
    const s = this.service, last = s.samples.at(-1);
    for (const c of this.charts) c.draw(s.samples, now(), last ? (c.show === latency ? latency(s.latency()) : c.said(last)) : "–");
  }
}

// inMesh says as whom a service dials in the service mesh, or is served to it.
const inMesh = ({ identity: i, exposed }) => `${exposed ? "Is served to the mesh" : "Dials in the mesh"} as ${isolated(i.name)}: ${i.state}` +
  (i.expires ? `, ${isolated(i.spiffe_id)}, certificate from ${when(Date.parse(i.received))} until ${when(Date.parse(i.expires))}.` : ", without a certificate.");

// pathOf says on which path the service is.
function pathOf({ path, kernel: k }) {
  const why = path.why ? isolated(path.why) : "";
  const text = !path.kernel ? `Lictor forwards, not the kernel: ${why}.` : `Kernel path: ${why ? "but " + why : "clients on this host connect straight to the endpoints"}.`;
  return text + (k ? ` On the kernel path: ${count(k.connections_active)} of ${count(k.connections)} connections are open, ${count(k.dials_failed)} failed.` : "");
}

// nearness says which endpoints the service prefers, and how many clients stay near.
function nearness(n) {
  if (!n) return "";
  if (n.problem) return `Prefers the same ${n.prefer}, which is not known: ${isolated(n.problem)}.`;
  const percent = (x) => `${Math.round(100 * x)} %`, all = n.stayed + n.left;
  return `Prefers the same ${n.prefer} (${isolated(n.zone)})${n.strict ? ", strictly" : ""}: ${percent(n.weight)} of the weight is there, and ${percent(n.share)} of the clients stay.` +
    (all ? ` So far ${count(n.left)} of ${count(all)} clients left.` : "");
}

const ago = (t) => `${brief(now() - Date.parse(t))} ago (${when(Date.parse(t))})`;

function list(ul, texts) {
  ul.hidden = texts.length === 0;
  while (ul.childElementCount > texts.length) ul.lastChild.remove();
  texts.forEach((text, i) => put(ul.children[i] ?? ul.appendChild(make("li")), text));
}
