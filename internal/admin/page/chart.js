// Lines over the last minutes. A sample has a time t in milliseconds, and what there was in the second before it.
import { clock, isolated, toMinute } from "./format.js";
import { make, put, set, shape } from "./dom.js";

export const span = 180; // seconds that are drawn
const height = 30;
const gap = 3500; // milliseconds without a sample after which a line is interrupted

const blank = () => shape("svg", { viewBox: `0 0 ${span} ${height}`, preserveAspectRatio: "none", "aria-hidden": "true" });

// path is a line through the samples up to now, and the area below it. Undefined values are left out.
function path(samples, now, of, top, most) {
  let line = "", area = "", x = 0, from, before;
  const close = () => { if (from !== undefined) area += `L${x} ${height}L${from} ${height}Z`; from = undefined; };
  for (const s of samples) {
    const v = of(s);
    if (v === undefined) continue;
    const joined = before !== undefined && s.t - before <= most;
    if (!joined) close();
    before = s.t;
    x = (span - (now - s.t) / 1000).toFixed(1);
    if (x < 0) { before = undefined; continue; }
    const y = (height - (height - 1) * Math.min(1, v / top)).toFixed(1);
    line += joined ? `L${x} ${y}` : `M${x} ${y}h.1`; // a dot, if nothing follows
    area += joined ? `L${x} ${y}` : `M${x} ${height}L${x} ${y}`;
    from ??= x;
  }
  close();
  return [line, area];
}

const greatest = (samples, of) => samples.reduce((top, s) => Math.max(top, of(s) ?? 0), 0);

// A Spark is a small line of new clients without a scale, and a second line of those that were refused.
export class Spark {
  constructor() {
    this.area = shape("path", { class: "area" });
    this.line = shape("path", { class: "line" });
    this.bad = shape("path", { class: "line bad" });
    this.svg = blank();
    this.svg.append(this.area, this.line, this.bad);
  }
  draw(samples, now, of, bad) {
    const top = Math.max(greatest(samples, of), greatest(samples, bad), 1e-9);
    const [line, area] = path(samples, now, of, top, gap);
    set(this.line, "d", line);
    set(this.area, "d", area);
    set(this.bad, "d", samples.some((s) => bad(s) > 0) ? path(samples, now, bad, top, gap)[0] : "");
  }
}

// scale is the next number above n that is easy to read, and so is its half. Half of a whole number is whole.
function scale(n, whole) {
  if (!(n > 0)) return whole ? 2 : 1;
  const power = 10 ** Math.floor(Math.log10(n));
  const top = [1, 2, 3, 4, 5, 6, 8, 10].map((m) => m * power).find((m) => m >= n * 0.999);
  return whole && top < 10 ? 2 * Math.ceil(top / 2) : top;
}

// A Chart has a scale, times, and shows the value of a moment that is pointed at, with the mouse or by the arrow keys.
// All charts of a service point at the same moment: they share a cursor, which is {t: milliseconds or undefined}.
export class Chart {
  constructor({ name, unit, of, show, bad, whole = false, sparse = false }, service, cursor, moved) {
    Object.assign(this, { name, unit: unit ?? name, of, show, bad, whole, cursor, moved, most: sparse ? 30e3 : gap });
    this.value = make("span", { class: "value" });
    this.top = make("span", { class: "top" });
    this.half = make("span", { class: "half" });
    this.svg = blank();
    this.grid = shape("path", { class: "grid" });
    this.area = shape("path", { class: "area" });
    this.line = shape("path", { class: "line" });
    this.badLine = shape("path", { class: "line bad" });
    this.at = shape("path", { class: "at" });
    this.svg.append(this.grid, this.area, this.line, this.badLine, this.at);
    this.samples = [];
    this.plot = make("div", { class: "plot", role: "slider", tabindex: "0", "aria-valuemin": -span, "aria-valuemax": 0,
      "aria-valuenow": 0, "aria-label": `${name} of ${isolated(service)}, last 3 minutes` }, this.svg);
    this.pointed = make("span"); // the time that is pointed at
    this.times = make("div", { class: "times", "aria-hidden": "true" }, this.pointed);
    const top = make("figcaption", {}, make("span", {}, name), this.value);
    const scale = make("div", { class: "scale", "aria-hidden": "true" }, this.top, this.half, make("span", {}, "0"));
    this.figure = make("figure", { class: "chart" }, top, scale, this.plot, this.times);
    this.listen();
  }

  listen() {
    const point = (e) => {
      const box = this.plot.getBoundingClientRect();
      this.point(this.now - span * 1000 * (1 - (e.clientX - box.left) / box.width));
    };
    this.plot.addEventListener("pointermove", point);
    this.plot.addEventListener("pointerdown", point);
    this.plot.addEventListener("pointerleave", () => this.point(undefined));
    this.plot.addEventListener("blur", () => this.point(undefined));
    this.plot.addEventListener("keydown", (e) => {
      const i = this.samples.indexOf(this.sample() ?? this.samples.at(-1));
      const to = { ArrowLeft: i - 1, ArrowDown: i - 1, ArrowRight: i + 1, ArrowUp: i + 1, PageDown: i - 10, PageUp: i + 10, Home: 0, End: this.samples.length - 1 }[e.key];
      if (e.key === "Escape") this.point(undefined);
      if (to === undefined || this.samples.length === 0) return;
      e.preventDefault();
      this.point(this.samples[Math.max(0, Math.min(to, this.samples.length - 1))].t);
    });
  }

  point(t) {
    this.cursor.t = t;
    this.moved();
    this.tell();
  }

  // tell makes the value known to those who do not see it.
  tell() {
    const s = this.sample() ?? this.samples.at(-1);
    if (!s) return;
    set(this.plot, "aria-valuenow", String(Math.round((s.t - this.now) / 1000)));
    set(this.plot, "aria-valuetext", `${this.said(s)} at ${clock(s.t)}`);
  }

  // sample is the one that the cursor points at.
  sample() {
    if (this.cursor.t === undefined) return undefined;
    return this.samples.findLast((s) => s.t <= this.cursor.t + 500) ?? this.samples[0];
  }

  said(s) {
    const v = this.of(s);
    return (v === undefined ? "–" : this.show(v)) + (this.bad?.(s) > 0 ? `, ${this.show(this.bad(s))} refused` : "");
  }

  draw(samples, now, newest) {
    this.samples = samples.filter((s) => now - s.t <= span * 1000);
    this.now = now;
    const top = scale(Math.max(greatest(this.samples, this.of), this.bad ? greatest(this.samples, this.bad) : 0), this.whole);
    put(this.top, this.show(top));
    put(this.half, this.show(top / 2));
    const [line, area] = path(this.samples, now, this.of, top, this.most);
    set(this.line, "d", line);
    set(this.area, "d", area);
    set(this.badLine, "d", this.bad && this.samples.some((s) => this.bad(s) > 0) ? path(this.samples, now, this.bad, top, gap)[0] : "");
    const s = this.sample();
    const x = s && span - (now - s.t) / 1000;
    this.drawTimes(x);
    put(this.value, s ? this.said(s) : newest);
    const isHeard = document.activeElement === this.plot && this.plot.hasAttribute("aria-valuetext");
    if (!isHeard) this.tell(); // a reader of the value is not told a new one each second
    set(this.at, "d", s ? `M${x.toFixed(1)} 0V${height}` : "");
    this.pointed.hidden = !s;
    if (!s) return;
    put(this.pointed, clock(s.t));
    this.pointed.style.left = `clamp(1.8rem, ${(100 * x / span).toFixed(1)}%, 100% - 1.8rem)`;
  }

  // drawTimes draws a line and a label for each whole minute, but no label at pointed, where another one is.
  drawTimes(pointed) {
    let grid = `M0 1H${span}M0 ${height / 2 + .5}H${span}`;
    const labels = [];
    for (let t = Math.ceil((this.now / 1000 - span) / 60) * 60e3; t <= this.now; t += 60e3) {
      const x = span - (this.now - t) / 1000;
      grid += `M${x.toFixed(1)} 0V${height}`;
      if (!(Math.abs(x - pointed) < 0.3 * span)) labels.push([x / span, toMinute(t)]);
    }
    set(this.grid, "d", grid);
    while (this.times.childElementCount > labels.length + 1) this.times.firstChild.remove();
    while (this.times.childElementCount < labels.length + 1) this.times.prepend(make("span"));
    labels.forEach(([x, text], i) => {
      const label = this.times.children[i];
      put(label, text);
      label.style.left = (100 * x).toFixed(1) + "%";
      label.hidden = x < 0.1 || x > 0.9;
    });
  }
}
