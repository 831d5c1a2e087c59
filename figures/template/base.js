"use strict";
// Small tools: elements, packed data, numbers as text, colours of the current scheme.

const $ = (id) => document.getElementById(id);

function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key === "onclick") made.addEventListener("click", value);
    else if (value !== null && value !== undefined) made.setAttribute(key, value);
  }
  for (const child of children) made.append(child);
  return made;
}

async function inflated(id) {
  const text = $(id).textContent.trim();
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

async function packedJson(id) {
  return JSON.parse(new TextDecoder().decode(await inflated(id)));
}

const ARRAYS = { "<i2": Int16Array, "<u2": Uint16Array, "<i4": Int32Array, "|u1": Uint8Array };

// The inverse of figures/packing.py: byte planes to numbers, differences between deltas summed up.
function unpackAssociations(bytes) {
  const size = new DataView(bytes.buffer, bytes.byteOffset).getUint32(0, true);
  const header = JSON.parse(new TextDecoder().decode(bytes.subarray(4, 4 + size)));
  const width = header.nidps.length;
  const n = header.deltas.length * width;
  const columns = {};
  for (const [name, entry] of Object.entries(header.arrays)) {
    const Kind = ARRAYS[entry.type];
    const values = new Kind(n);
    const each = Kind.BYTES_PER_ELEMENT;
    const raw = new Uint8Array(values.buffer);
    const start = 4 + size + entry.offset;
    for (let plane = 0; plane < each; plane++) {
      for (let i = 0; i < n; i++) raw[i * each + plane] = bytes[start + plane * n + i];
    }
    if (entry.differences) for (let i = width; i < n; i++) values[i] += values[i - width];
    columns[name] = values;
  }
  const logs = (codes, large) => {
    const values = new Float64Array(n);
    for (let i = 0; i < n; i++) values[i] = codes[i] === 65535 ? NaN : codes[i] * header.steps.p;
    for (const [i, value] of large) values[i] = value;
    return values;
  };
  const p = logs(columns.p, header.large_p);
  const q = logs(columns.q, header.large_q);
  return { ...header, ...columns, p, q, n, width, counts: columns.n };
}

const SEX_WORDS = { female: "women", male: "men", both: "both sexes", all: "all subjects" };
const sexWord = (sex) => SEX_WORDS[sex] || sex;
const contrastWord = (contrast) => (contrast === "ensemble" ? "combination" : contrast);
const minus = (text) => text.replace("-", "\u2212");
const fixed = (value, digits) => (Number.isFinite(value) ? minus(value.toFixed(digits)) : "\u2013");
const thousands = (value) => value.toString().replace(/\B(?=(\d{3})+(?!\d))/g, ",");

function probability(nlog10) {
  if (!Number.isFinite(nlog10)) return "\u2013";
  const value = 10 ** -nlog10;
  if (value >= 0.001) return value.toPrecision(2);
  const power = Math.ceil(nlog10);
  return `${(10 ** (power - nlog10)).toFixed(1)}e\u2212${power}`;
}

const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

// The state of the page lives in the address, so that a view can be sent.
const state = new URLSearchParams(location.hash.slice(1));

function remember(changes) {
  for (const [key, value] of Object.entries(changes)) {
    if (value === "" || value === null || value === undefined) state.delete(key);
    else state.set(key, value);
  }
  const text = state.toString();
  try {
    history.replaceState(null, "", text ? `#${text}` : location.pathname + location.search);
  } catch (refused) {
    if (text) location.hash = text;
  }
}

function download(name, content, kind) {
  const address = URL.createObjectURL(content instanceof Blob ? content : new Blob([content], { type: kind }));
  const link = element("a", { href: address, download: name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(address), 1000);
}

function fillSelect(select, choices, chosen) {
  select.replaceChildren(...choices.map(([value, words]) => element("option", { value }, words)));
  if (choices.some(([value]) => value === chosen)) select.value = chosen;
}
