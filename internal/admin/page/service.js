// A Service is one row of the list: what is known of a service, and what is drawn of it.
import { Spark, span } from "./chart.js";
import { Details } from "./details.js";
import { count, isGood, latency, now, size, waiting, words } from "./format.js";
import { make, put } from "./dom.js";
import { choose, view } from "./view.js";

export const marks = { fine: "✓", degraded: "▲", refusing: "✕" };
export const states = { fine: "fine", degraded: "degraded", refusing: "refuses clients" };
const worst = ["refusing", "degraded", "fine"];
const mostDots = 12;

// What the list can be sorted by, the greatest first. Services that are equal are sorted by name.
export const orders = {
  state: (s) => -worst.indexOf(s.data.state),
  name: () => 0,
  active: (s) => s.active,
  clients: (s) => s.rates.clients,
  refused: (s) => s.data.refused_rate,
  bytes: (s) => s.rates.bytes,
  latency: (s) => s.latency(),
};

// The samples of before this page was opened are asked for when a service comes into sight, a few at a time.
const asking = [];
let asked = 0;
async function ask(service) {
  if (service) asking.push(service);
  if (asked >= 3 || asking.length === 0) return;
  asked++;
  const s = asking.shift();
  try {
    const answer = await (await fetch(`v1/services/${encodeURIComponent(s.name)}/history`)).json();
    s.past(answer.samples, answer.interval_seconds * 1000, now());
  } catch { /* the line begins now, then */ }
  asked--;
  ask();
}

const sight = new IntersectionObserver((entries) => {
  for (const e of entries) e.target.service.see(e.isIntersecting);
}, { rootMargin: "200px" });

export class Service {
  constructor(name) {
    this.name = name;
    this.samples = []; // oldest first: {t, clients, refused, bytes, latency, active}, of a second each
    this.rates = { clients: 0, bytes: 0 };
    this.li = make("li");
    this.li.service = this;
    this.button = make("button", { type: "button", "aria-expanded": "false" }, make("b", {}, make("bdi", {}, name)));
    this.badge = make("span", { class: "badge", title: "Clients without a certificate of the mesh are served in plain text." }, "permissive");
    this.badge.hidden = true;
    this.row = make("div", { class: "row" }, make("h3", {}, this.button, this.badge));
    this.row.addEventListener("click", (e) => {
      if (e.target.closest("a") || !getSelection().isCollapsed && !this.button.contains(e.target)) return;
      const open = new Set(view.open);
      if (!open.delete(name)) open.add(name);
      choose({ open });
    });
    this.li.append(this.row);
    sight.observe(this.li);
  }

  remove() {
    sight.unobserve(this.li);
    this.li.remove();
  }

  // take notes what is new.
  take(data) {
    this.data = data;
    this.text = undefined;
    this.in = data.endpoints.reduce((n, e) => n + (e.state === "in"), 0);
    this.good = data.endpoints.filter(isGood).length;
    this.active = data.counters.connections_active + data.counters.sessions_active;
    if (this.visible) this.draw();
  }

  // isLike reports whether each word is in what is known of the service.
  isLike(wanted) {
    const d = this.data;
    this.text ??= [d.name, d.protocol, d.source, d.set, states[d.state], ...(d.reasons ?? []).map((r) => r.kind + " " + r.text), ...d.listeners,
      ...(d.exposed?.clients ?? []).map((c) => c.identity), ...d.endpoints.flatMap((e) => [e.id, e.address, e.state, e.reason, ...(e.tags ?? [])])].join(" ").toLowerCase();
    return wanted.every((w) => this.text.includes(w));
  }

  // tick notes what there was since the last tick. Nothing is known after the first one, which is not the same as zero.
  tick(t, seconds) {
    const c = this.data.counters, b = seconds > 0 ? this.counters : undefined;
    this.counters = c;
    this.details?.tick(t);
    if (!b || c.connections < b.connections || c.sessions < b.sessions) return; // another process or another service
    const rate = (f) => Math.max(0, f(c) - f(b)) / seconds;
    const dials = c.dials - b.dials;
    this.rates = { clients: rate((x) => x.connections + x.sessions), bytes: rate((x) => x.bytes_up + x.bytes_down) };
    this.samples.push({ t, ...this.rates, refused: rate((x) => x.refused), active: this.active,
      latency: dials > 0 ? (c.dial_seconds - b.dial_seconds) / dials : undefined });
    while (this.samples[0].t < t - span * 1000) this.samples.shift();
    while (this.samples.at(-2)?.t > t) this.samples.splice(-2, 1); // the clock was set back
  }

  // past puts earlier samples before those that are known. The last of them is of the time t.
  past(samples, interval, t) {
    const first = this.samples[0]?.t ?? t;
    const earlier = samples.map((s, i) => ({ ...s, latency: s.latency || undefined, t: t - (samples.length - 1 - i) * interval }));
    this.samples = [...earlier.filter((s) => s.t < first - interval / 2), ...this.samples];
    if (this.visible) this.draw();
  }

  // latency is the newest one of the last half a minute: there is none in a second without a dial.
  latency() {
    return this.samples.findLast((s) => s.latency !== undefined && s.t > now() - 30e3)?.latency ?? 0;
  }

  see(visible) {
    this.visible = visible;
    if (!visible) return;
    if (!this.cells) this.build();
    this.draw();
    if (!this.asked) { this.asked = true; ask(this); }
  }

  // build makes the rest of the row, which is worth it only once it is seen.
  build() {
    this.mark = make("span", { "aria-hidden": "true" });
    this.said = make("span", { class: "hidden" });
    this.where = make("span", { class: "where" });
    this.ends = make("div", { class: "ends" });
    this.spark = new Spark();
    this.cells = ["active", "clients/s", "refused/s", "bytes/s", "dial"].map((unit) => {
      const number = make("span");
      this.row.append(make("div", { class: "n" }, number, make("small", {}, " " + unit)));
      return number;
    });
    this.why = make("p", { class: "why" });
    this.row.firstChild.before(this.mark);
    this.row.firstChild.after(this.said);
    this.row.querySelector("h3").after(this.where, this.ends);
    this.row.append(this.spark.svg, this.why);
  }

  // draw shows what is known now. It changes only what is different.
  draw() {
    if (!this.cells || !this.data) return;
    const d = this.data, refused = d.refused_rate ?? 0;
    const old = d.set !== "fresh" || d.stale_since !== undefined;
    this.row.className = "row " + d.state + (old ? " old" : "");
    this.mark.className = "mark " + d.state;
    put(this.mark, marks[d.state]);
    put(this.said, states[d.state]);
    this.badge.hidden = !d.permissive;
    put(this.where, `${d.protocol} ${d.listeners.join(" ")}`);
    this.drawEnds();
    this.drawWhy();
    put(this.cells[0], count(this.active));
    const known = this.samples.length > 0;
    put(this.cells[1], known ? count(this.rates.clients) : "–");
    put(this.cells[2], count(refused));
    this.cells[2].classList.toggle("bad", refused > 0);
    put(this.cells[3], known ? size(this.rates.bytes) : "–");
    put(this.cells[4], latency(this.latency()));
    this.spark.draw(this.samples, now(), (x) => x.clients, (x) => x.refused ?? 0);
    this.details?.draw();
  }

  // drawEnds shows a dot for each endpoint, or a bar if there are many.
  drawEnds() {
    const all = this.data.endpoints.length, out = all - this.in;
    const look = `${this.good}/${this.in}/${out}`;
    if (this.look === look) return;
    this.look = look;
    const parts = [];
    if (all > mostDots) {
      const good = make("span");
      good.style.width = 100 * this.good / all + "%";
      parts.push(make("span", { class: "share", "aria-hidden": "true" }, good));
    } else {
      for (let i = 0; i < all; i++) parts.push(make("span", { class: i < this.good ? "dot" : "dot out" }));
    }
    const none = this.in === 0, ejected = this.in - this.good;
    const text = none ? (out ? `none in, ${out} out` : "no endpoints") : `${this.in} in` + (ejected ? ` (${ejected} ejected)` : "") + (out ? `, ${out} out` : "");
    parts.push(make("span", none ? { class: "bad" } : {}, text));
    this.ends.replaceChildren(...parts);
  }

  // drawWhy says in a line why the service is not fine.
  drawWhy() {
    const reasons = this.data.reasons ?? [];
    this.why.hidden = reasons.length === 0;
    if (reasons.length === 0) return;
    const more = reasons.length > 1 ? `and ${reasons.length - 1} more` : "";
    const text = [reasons[0].text, waiting(this.data), more].filter(Boolean).join("; ");
    const by = Object.entries(this.data.refused_rate_by ?? {}).sort((a, b) => b[1] - a[1]);
    const refused = by.length ? ` (${count(this.data.refused_rate)} clients/s refused: ${by.map(([why]) => words(why)).join(", ")})` : "";
    const whole = states[this.data.state] + ": " + text + refused;
    if (this.told === whole) return;
    this.told = whole;
    this.why.replaceChildren(make("b", {}, states[this.data.state]), ": ", make("bdi", {}, text), refused);
    this.why.title = whole;
  }

  // open shows the service in full, or not.
  open(is) {
    if (is === (this.details !== undefined)) return;
    this.button.setAttribute("aria-expanded", String(is));
    if (!is) { this.details.element.remove(); this.details = undefined; return; }
    this.details = new Details(this);
    this.li.append(this.details.element);
    this.details.draw();
  }
}
