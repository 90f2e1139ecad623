const MOST = 40; // results shown
const field = document.querySelector("input[type=search]");
const count = document.getElementById("count"), results = document.getElementById("results");
const intro = count.textContent;
const entries = data.map(([title, kind, address, text]) =>
  ({ title, kind, address, text, name: title.toLowerCase(), body: text.toLowerCase() }));

function startsWord(text, word) {  // "shift" starts a word of "the shift" and of "hl.shift_rows"
  const place = text.indexOf(word);
  return place === 0 || (place > 0 && !/[a-z0-9]/.test(text[place - 1])) ||
    (place > 0 && text.split(/[^\p{L}\p{N}]+/u).some(part => part.startsWith(word)));
}
function points({ name, body }, word) {
  if (name === word) return 12;
  if (name.startsWith(word)) return 8;
  if (name.includes(word)) return startsWord(name, word) ? 6 : 4;
  if (body.includes(word)) return startsWord(body, word) ? 2 : 1;
  return 0;
}
function find(words) {  // entries that have every word, those first that are called so
  const found = [], together = words.join(" ");
  for (const entry of entries) {
    const each = words.map(word => points(entry, word));
    if (!each.every(Boolean)) continue;
    found.push([each.reduce((a, b) => a + b, points(entry, together)), entry]);
  }
  return found.sort((a, b) => b[0] - a[0]).map(([, entry]) => entry);
}
function around({ text, body }, words) {  // about 180 letters of the text, with the first word
  const places = words.map(word => body.indexOf(word)).filter(place => place >= 0);
  let start = Math.max(0, Math.min(...places, text.length) - 60);
  if (!places.length) start = 0;
  if (start) start = text.indexOf(" ", start) + 1;
  const end = start + 180;
  return (start ? "… " : "") + text.slice(start, end) + (end < text.length ? " …" : "");
}
function marked(element, text, words) {  // the text, each of the words in it in <mark>
  const escaped = words.map(word => word.replace(/[.*+?^${}()|[\]\\]/g, "\\$&"));
  text.split(new RegExp(`(${escaped.join("|")})`, "i")).forEach((part, i) => {
    const child = i % 2 ? document.createElement("mark") : document.createTextNode(part);
    if (i % 2) child.textContent = part;
    element.append(child);
  });
  return element;
}
function row(entry, words) {
  const item = document.createElement("li"), link = document.createElement("a");
  const kind = document.createElement("span"), text = document.createElement("p");
  link.href = entry.address;
  kind.className = "kind";
  kind.textContent = entry.kind;
  item.append(marked(link, entry.title, words), kind, marked(text, around(entry, words), words));
  return item;
}
function show() {
  const words = field.value.toLowerCase().split(/\s+/).filter(Boolean);
  const found = words.length ? find(words) : [];
  results.replaceChildren(...found.slice(0, MOST).map(entry => row(entry, words)));
  const many = found.length > MOST ? `, the first ${MOST} shown` : "";
  const said = `${found.length} ${found.length === 1 ? "result" : "results"}${many}`;
  count.textContent = !words.length ? intro : found.length ? said :
    "Nothing has all of these words: try fewer, or the start of one.";
}
document.addEventListener("keydown", event => {  // arrows move from the field through the results
  const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  const stops = [field, ...results.querySelectorAll("a")];
  const next = stops[stops.indexOf(document.activeElement) + step];
  if (!step || !stops.includes(document.activeElement) || !next) return;
  event.preventDefault();
  next.focus();
});
field.value = new URLSearchParams(location.search).get("q") || "";
field.addEventListener("input", show);
field.focus();
show();
