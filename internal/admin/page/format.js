// Numbers, times and text for people.

// count is a number of something, or of something a second.
export const count = (n) => n === 0 ? "0" : n < 10 && !Number.isInteger(n) ? n.toFixed(1) : Math.round(n).toLocaleString("en");

// size is a number of bytes.
export function size(n) {
  const units = ["B", "kB", "MB", "GB", "TB", "PB"];
  let i = 0;
  while (n >= 999.5 && i < units.length - 1) { n /= 1000; i++; }
  return (i === 0 || n >= 99.95 || Number.isInteger(n) ? n.toFixed(0) : n.toFixed(1)) + " " + units[i];
}

// latency is a time in seconds, or nothing.
export function latency(s) {
  if (!(s > 0)) return "–";
  const [n, unit] = s < 0.001 ? [s * 1e6, "µs"] : s < 1 ? [s * 1e3, "ms"] : [s, "s"];
  return (unit === "µs" || n >= 99.95 || Number.isInteger(n) ? n.toFixed(0) : n.toFixed(1)) + " " + unit;
}

// brief is how long something takes, from milliseconds.
export function brief(ms) {
  const s = Math.max(0, ms / 1000);
  return s < 60 ? Math.floor(s) + "s" : s < 3600 ? Math.floor(s / 60) + "m" : s < 172800 ? Math.floor(s / 3600) + "h" : Math.floor(s / 86400) + "d";
}

const time = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const minute = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit" });
const day = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short" });

// clock is the local time of a moment, to the second.
export const clock = (t) => time.format(t);
export const toMinute = (t) => minute.format(t);

// when is clock, with the date if that is not today.
export function when(t) {
  const date = day.format(t);
  return date === day.format(now()) ? clock(t) : date + " " + clock(t);
}

let skew = 0; // the server's clock less the browser's
// now is the server's time.
export const now = () => Date.now() + skew;
export function setNow(t) { skew = t - Date.now(); }

// words turns a name of the API, such as slow_start, into words.
export const words = (name) => name.replaceAll("_", " ");

// isolated keeps the direction of text from elsewhere off the text around it, where no <bdi> can be.
export const isolated = (text) => "\u2068" + text + "\u2069";

// isGood reports whether an endpoint gets clients, and not only because too many endpoints are ejected.
export const isGood = (e) => e.state === "in" && e.reason !== "ejected" && e.reason !== "trial";

// waiting says how many clients of a service wait, and until when if it has lost its last endpoint.
export function waiting(service) {
  if (!service.waiting && !service.empty_until) return "";
  const n = service.waiting ?? 0;
  const until = service.empty_until ? ` for an endpoint until ${clock(Date.parse(service.empty_until))}` : "";
  return `${count(n)} ${n === 1 ? "client waits" : "clients wait"}${until}`;
}
