// Endpoints are the table of a service's endpoints. More than a dozen are shown by groups of the same state and reason,
// which can be opened.
import { brief, count, isGood, latency, now, when, words, isolated } from "./format.js";
import { breakable, flash, make, put, set } from "./dom.js";
import { drain, undrain } from "./drain.js";

const few = 12;
const window = 10e3; // milliseconds that the rates of endpoints are averaged over
const columns = [["endpoint", ""], ["state", ""], ["active", "n"], ["clients/s", "n"], ["failed", "n"], ["latency", "n"], ["weight", "n"], ["", "do"]];
const said = { clients: "clients/s", failed: "attempts to reach it that failed", latency: "the mean time to connect, of the last 10 s if there was a dial" };

export class Endpoints {
  constructor(service) {
    this.service = service;
    this.element = make("div", { class: "endpoints" });
    this.looks = []; // the counters of all endpoints by ID, for the last seconds: {t, of}
    this.groups = new Map(); // by state and reason; one that is called "" if there are few endpoints
  }

  // tick keeps the counters, so that rates can be told.
  tick(t) {
    this.looks.push({ t, of: new Map(this.service.data.endpoints.map((e) => [e.id, e.counters])) });
    while (this.looks[0].t < t - window) this.looks.shift();
  }

  // lately is what an endpoint did in the last seconds.
  lately(e) {
    const c = e.counters, last = this.looks.at(-1);
    const first = this.looks.find((l) => l.of.get(e.id));
    const b = first?.of.get(e.id);
    if (!c || !b || first === last || c.picks < b.picks) return {};
    const dials = c.dials - b.dials;
    return { clients: (c.picks - b.picks) * 1000 / (last.t - first.t), failed: c.dials_failed - b.dials_failed,
      latency: dials > 0 ? (c.dial_seconds - b.dial_seconds) / dials : undefined };
  }

  draw() {
    const all = this.service.data.endpoints;
    const by = new Map();
    for (const e of all) {
      const key = all.length > few ? `${e.state} ${e.reason}` : "";
      if (!by.has(key)) by.set(key, []);
      by.get(key).push(e);
    }
    for (const [key, g] of this.groups) if (!by.has(key)) { g.element.remove(); this.groups.delete(key); }
    for (const key of [...by.keys()].sort().reverse()) { // what is out comes first
      const members = by.get(key);
      let g = this.groups.get(key);
      if (!g) {
        g = key === "" ? new Table(this) : new Group(this, members);
        this.groups.set(key, g);
      }
      if (!g.element.isConnected || g.element.parentElement !== this.element) this.place(g, key);
      g.draw(members);
    }
    if (all.length > 0) { this.none?.remove(); this.none = undefined; return; }
    this.none ??= this.element.appendChild(make("p", { class: "soft" }, "The service has no endpoints. “lictor explain” says what it asks Consul for."));
  }

  // place puts a group before those whose key is smaller.
  place(group, key) {
    const after = [...this.groups].filter(([k, g]) => k < key && g.element.parentElement === this.element).sort().at(-1);
    this.element.insertBefore(group.element, after?.[1].element ?? null);
  }
}

// A Group is a summary of endpoints with the same state and reason. Its table is made when it is opened.
class Group {
  constructor(all, members) {
    this.all = all;
    this.name = make("b", { class: isGood(members[0]) ? "in" : "out" });
    this.sums = make("span");
    this.element = make("details", {}, make("summary", {}, this.name, " ", this.sums));
    this.element.open = members[0].state === "out" && members.length <= few;
    this.element.addEventListener("toggle", () => this.draw(this.members));
  }

  draw(members) {
    this.members = members;
    const { state, reason } = members[0];
    const sum = (f) => members.reduce((n, e) => n + (f(e) ?? 0), 0);
    put(this.name, `${members.length} ${state}: ${words(reason)}`);
    const failed = sum((e) => this.all.lately(e).failed);
    put(this.sums, `${count(sum((e) => e.counters?.active))} active, ${count(sum((e) => this.all.lately(e).clients))} clients/s` +
      (failed ? `, ${count(failed)} failed attempts in 10 s` : ""));
    if (!this.element.open) { this.table?.element.remove(); this.table = undefined; return; }
    if (!this.table) this.element.append((this.table = new Table(this.all, `, ${state}: ${words(reason)}`)).element);
    this.table.draw(members);
  }
}

// A Table has roles, because a narrow screen shows its cells below each other: without roles it would be no table then.
class Table {
  constructor(all, which = "") {
    this.all = all;
    const name = `Endpoints of ${isolated(all.service.name)}${which}`;
    this.lines = new Map(); // by ID
    this.body = make("tbody", { role: "rowgroup" });
    const head = make("tr", { role: "row" }, ...columns.map(([name, kind]) => make("th", { scope: "col", role: "columnheader", class: kind, ...(said[name] && { title: said[name] }) },
      ...(name ? [name] : [make("span", { class: "hidden" }, "actions")]))));
    this.table = make("table", { role: "table", "aria-label": name }, make("thead", { role: "rowgroup" }, head), this.body);
    this.element = make("div", { class: "scroll", role: "region", tabindex: "0", "aria-label": name }, this.table);
  }

  draw(members) {
    const there = new Set();
    this.table.classList.toggle("even", members.every((e) => e.weight === 1));
    for (const e of members) {
      there.add(e.id);
      let l = this.lines.get(e.id);
      if (!l) {
        this.lines.set(e.id, l = new Line(e, this.all.service));
        this.body.append(l.tr);
        if (this.drawn) flash(l.tr);
      }
      l.draw(e, this.all.lately(e));
    }
    for (const [id, l] of this.lines) if (!there.has(id)) { l.tr.remove(); this.lines.delete(id); }
    this.drawn = true;
  }
}

// A Line is one endpoint. It is changed in place, so that the focus stays.
class Line {
  constructor(e, service) {
    this.cells = columns.map(([name, kind]) => make("td", { role: "cell", class: kind, "data-unit": name }));
    this.address = make("div", { class: "where" });
    this.cells[0].append(make("div", { class: "id" }, breakable(e.id)), this.address, ...(e.tags ?? []).map((t) => make("bdi", { class: "tag" }, t)));
    this.zone = this.cells[0].appendChild(make("bdi", { class: "tag" }));
    this.state = make("b");
    this.why = make("bdi");
    this.cells[1].append(this.state, " ", this.why);
    this.failed = make("span");
    this.more = make("span", { class: "bad" });
    this.cells[4].append(this.failed, this.more);
    this.button = make("button", { type: "button" });
    this.button.disabled = document.body.classList.contains("stopped");
    this.button.addEventListener("click", () => this.e.reason === "drained" ? undrain(service, this.e, this.button) : drain(service, this.e, this.button));
    this.cells[7].append(this.button);
    this.tr = make("tr", { role: "row" }, ...this.cells);
  }

  draw(e, lately) {
    this.e = e;
    if (this.dialled !== e.address) {
      this.dialled = e.address;
      this.address.hidden = e.address === e.id; // as with static endpoints
      this.address.replaceChildren(e.address.startsWith("[") ? breakable(e.address) : e.address);
    }
    put(this.state, e.state);
    this.state.className = isGood(e) ? "in" : "out";
    put(this.why, why(e));
    put(this.zone, e.zone ? e.zone + (e.near ? ", near" : "") : "");
    this.zone.hidden = !e.zone;
    const c = e.counters;
    put(this.cells[2], c ? count(c.active) : "–");
    put(this.cells[3], lately.clients === undefined ? "–" : count(lately.clients));
    put(this.failed, c ? count(c.dials_failed) : "–");
    put(this.more, lately.failed > 0 ? `+${count(lately.failed)} in 10 s` : "");
    put(this.cells[5], latency(lately.latency ?? (c?.dials > 0 ? c.dial_seconds / c.dials : 0)));
    put(this.cells[6], String(e.weight));
    const drained = e.reason === "drained";
    this.button.hidden = !drained && e.state !== "in";
    put(this.button, drained ? "Undrain" : "Drain");
    set(this.button, "aria-label", `${drained ? "Undrain" : "Drain"} ${isolated(e.id)}`);
  }
}

// why says in words why an endpoint gets clients or does not.
function why(e) {
  const past = e.since && brief(now() - Date.parse(e.since));
  const rest = e.until ? `, for another ${brief(Date.parse(e.until) - now())}` : "";
  if (e.reason === "drained") return `${e.detail}; since ${when(Date.parse(e.since))} (${past})${rest}`;
  return words(e.reason) + (past ? " for " + past : "") + rest + [e.detail, e.name?.problem].filter(Boolean).map((text) => ": " + text).join("");
}
