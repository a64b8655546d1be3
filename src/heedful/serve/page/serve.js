// The page of `heedful serve`. What the server says is the state; the page only shows it and sends clicks.
// Foreign text becomes text nodes, never markup.

import { $, ask } from "./ask.js";

const calm = matchMedia("(prefers-reduced-motion: reduce)");
const SETTLE = 250; // ms in which a second click of a double click would hit the next pair
const RETRY = 2000;
const SHOWN = 150; // heads that have a bar each
const USED = {
  reweighting: "reweighting is used",
  uniform: "all heads count the same",
  single: "the single head is used",
  best_head: "the best head is used",
  fine_tuned: "a fine-tuned head is used",
};

let state = null;
let busy = true;
let shownAt = 0;
let retrying = 0;

// ---- the server

const stateAt = () => `/api/state?criterion=${encodeURIComponent($("criterion").value)}`;

async function load(told = "") {
  busy = true;
  try {
    show(await ask(stateAt()));
    clearTimeout(retrying);
    retrying = 0;
    warn(told);
  } catch (error) {
    failed(error);
  } finally {
    settle();
  }
}

async function send(path, body, said) {
  if (busy || !state || performance.now() - shownAt < SETTLE) return;
  busy = true;
  document.querySelector("main").setAttribute("aria-busy", "true");
  try {
    const next = await ask(path, { ...body, seen: state.seen, criterion: $("criterion").value }, state.csrf);
    const before = state;
    show(next);
    warn("");
    tell(said(before, next));
    toQuestion();
  } catch (error) {
    // 409: other clicks came first. 403: the server was started anew and gives out another number.
    if (error.status === 409 || error.status === 403) await load(error.told);
    else failed(error);
  } finally {
    settle();
  }
}

function settle() {
  busy = false;
  document.querySelector("main").setAttribute("aria-busy", "false");
}

function failed(error) {
  if (error.gone) {
    warn("The server does not answer. What you have clicked so far is on its disk. Start it again with the same command; this page goes on by itself.");
    clearTimeout(retrying);
    retrying = setTimeout(() => load("The server is back. Nothing was lost."), RETRY);
  } else if (error.told) {
    warn(error.told);
  } else {
    warn(`This page met an error of its own: ${error}. Reload it; nothing is lost.`);
    throw error;
  }
}

// ---- what the person does

function choose(label) {
  if (!state?.pair) return;
  const { id } = state.pair;
  send("/api/label", { id, label }, (before, next) => {
    const which = label === 1 ? "First" : label === 0 ? "Second" : "Neither";
    return `${which} noted. ${next.effective.toFixed(1)} of ${next.heads.length} heads count, before ${before.effective.toFixed(1)}. ${next.pair ? "Next pair." : "That was the last pair."}`;
  });
}

function undo() {
  if (!state?.last) return;
  send("/api/undo", { id: state.last.id }, (_, next) => `Taken back. ${next.effective.toFixed(1)} heads count.`);
}

for (const button of document.querySelectorAll("button[data-label]"))
  button.addEventListener("click", (event) => {
    event.stopPropagation();
    choose(Number(button.dataset.label));
  });
for (const card of document.querySelectorAll(".choice"))
  card.addEventListener("click", () => {
    if (!String(getSelection())) choose(Number(card.dataset.label)); // not while text is being copied
  });
$("undo").addEventListener("click", undo);
$("alert-close").addEventListener("click", () => warn(""));
$("criterion").addEventListener("change", () => {
  remember($("criterion").value);
  load();
});
document.addEventListener("keydown", (event) => {
  if (event.repeat || event.ctrlKey || event.altKey || event.metaKey || event.defaultPrevented) return;
  const at = event.target.closest("select, input, textarea") ? "field" : event.target.closest("button, a, summary, .text") ? "own" : "";
  if (at === "field") return;
  const does = {
    ArrowLeft: () => choose(1),
    1: () => choose(1),
    ArrowRight: () => choose(0),
    2: () => choose(0),
    0: () => choose(0.5),
    u: undo,
    U: undo,
    // on a button the space bar presses it, and in a text it scrolls
    ...(at ? {} : { " ": () => choose(0.5) }),
  }[event.key];
  if (does) {
    event.preventDefault();
    does();
  }
});
document.addEventListener("visibilitychange", () => {
  if (!document.hidden && !busy) load();
});

function remember(criterion) {
  try {
    localStorage.setItem("heedful criterion", criterion);
  } catch {
    // a browser that keeps nothing asks with the default again
  }
}

function remembered() {
  try {
    return localStorage.getItem("heedful criterion") || "";
  } catch {
    return "";
  }
}

// ---- what is shown

function make(tag, name, text) {
  const made = document.createElement(tag);
  if (name) made.className = name;
  if (text !== undefined) made.textContent = text;
  return made;
}

function warn(told) {
  $("alert").hidden = !told;
  $("alert-text").textContent = told;
}

const tell = (said) => {
  $("said").textContent = said;
};

function toQuestion() {
  const question = $("question");
  question.focus({ preventScroll: true });
  const top = $("ask").getBoundingClientRect().top;
  if (top < 0 || top > innerHeight / 2) $("ask").scrollIntoView({ block: "start", behavior: calm.matches ? "auto" : "smooth" });
}

function show(next) {
  const before = state;
  state = next;
  $("run").textContent = next.run;
  document.title = `${next.run}: which answer is better?`;
  $("count").textContent = `${next.seen.toLocaleString("en")} answered, ${next.left.toLocaleString("en")} left`;
  showPair(next.pair, before?.pair);
  showWeights(next.heads, next.effective);
  $("used").textContent = USED[next.used] ?? next.used;
  $("used").classList.toggle("better", next.used === "reweighting");
  $("reason").textContent = next.why;
  showLast(next.last);
  showExamples(next.examples, next.seen);
  $("ties").textContent = next.ties ? `(${next.ties} without a winner ${next.ties === 1 ? "is" : "are"} left out)` : "";
  $("export").hidden = !next.seen;
}

function showPair(pair, before) {
  for (const part of document.querySelectorAll("#pair, #tie, .pick-short, .keys")) part.hidden = !pair;
  $("prompt").hidden = !pair;
  $("done").hidden = !!pair;
  if (!pair) {
    $("question").textContent = "All pairs are answered";
    $("done").textContent = "There is no pair left to ask about. Export the answers, or undo to change the last one.";
    return;
  }
  $("question").textContent = "Which answer is better?";
  if (pair.id === before?.id && $("first").textContent) return;
  $("prompt").replaceChildren(
    ...pair.prompt.map(({ role, text }) => {
      const turn = make("div", "turn");
      if (role) turn.append(make("span", "role", role));
      const said = make("div", "text", text);
      said.dir = "auto";
      turn.append(said);
      return turn;
    }),
  );
  for (const side of ["first", "second"]) {
    $(side).textContent = pair[side] || "(empty)";
    $(side).classList.toggle("empty", !pair[side]);
    $(side).scrollTop = 0;
  }
  shownAt = before === undefined ? 0 : performance.now();
  if (!calm.matches && before) $("pair").animate([{ opacity: 0.2 }, { opacity: 1 }], 180);
}

function showWeights(heads, effective) {
  $("effective").textContent = effective >= 99.95 ? effective.toFixed(0) : effective.toFixed(1);
  $("of").textContent = `of ${heads.length}`;
  const meter = $("meter");
  meter.setAttribute("aria-valuemax", heads.length);
  meter.setAttribute("aria-valuenow", effective.toFixed(1));
  meter.firstElementChild.style.width = `${(100 * effective) / heads.length}%`;

  let shown = heads.map((head, i) => ({ ...head, i }));
  const order = [...shown].sort((a, b) => b.weight - a.weight || a.i - b.i);
  if (heads.length > SHOWN) shown = order.slice(0, SHOWN).sort((a, b) => a.i - b.i);
  const top = Math.max(order[0].weight, 1.25 / heads.length);
  const bars = $("bars");
  while (bars.children.length > shown.length) bars.lastElementChild.remove();
  while (bars.children.length < shown.length) bars.append(make("i"));
  shown.forEach(({ name, weight }, at) => {
    const bar = bars.children[at];
    bar.style.height = `${Math.max((100 * weight) / top, 0.8)}%`;
    bar.title = `${name}: ${percent(weight)}`;
    bar.dataset.weight = weight;
    bar.classList.toggle("heavy", weight > 1.001 / heads.length);
  });
  bars.style.setProperty("--even", `${100 / heads.length / top}%`);
  const even = order[0].weight - order.at(-1).weight < 1e-9;
  const three = order.slice(0, 3).map(({ name, weight }) => `${name} (${percent(weight)})`);
  const few = heads.length > SHOWN ? `the ${SHOWN} heaviest of ${heads.length} heads; ` : "";
  $("heaviest").textContent = few + (even ? "all weights are the same" : `heaviest: ${three.join(", ")}`);
  bars.setAttribute("aria-label", `Weights of ${heads.length} heads. ${$("heaviest").textContent}.`);
}

const percent = (share) => `${(100 * share).toFixed(share < 0.0995 ? 1 : 0)}%`;

function showLast(last) {
  $("undo").disabled = !last;
  if (!last) {
    $("last").textContent = "";
    return;
  }
  const which = last.label === 1 ? "the first answer" : last.label === 0 ? "the second answer" : "neither";
  let said = `Last: ${which}`;
  if (last.expected !== null && last.label !== 0.5)
    said += `; the reward had put that at ${percent(last.label === 1 ? last.expected : 1 - last.expected)}`;
  $("last").textContent = `${said}.`;
}

function showExamples(examples, seen) {
  const list = $("ranked");
  const one = new Set(examples.map(({ prompt }) => prompt)).size === 1;
  $("examples").hidden = !examples.length;
  $("examples-note").textContent = one && examples.length
    ? `Answers to: ${examples[0].prompt}`
    : "Answers to different questions, the best first: a picture of the taste, no contest.";
  const known = new Map([...list.children].map((item) => [Number(item.dataset.number), item]));
  const from = new Map([...known].map(([number, item]) => [number, item.getBoundingClientRect().top]));
  const scores = examples.map(({ score }) => score);
  const low = Math.min(...scores);
  const range = Math.max(...scores) - low;
  examples.forEach((example, place) => {
    let item = known.get(example.number);
    if (!item) {
      item = make("li");
      item.dataset.number = example.number;
      if (!one) item.append(make("div", "asked", example.prompt));
      item.append(make("div", "text", example.text || "(empty)"), make("div", "score"), make("div", "moved"));
      for (const text of item.querySelectorAll(".text, .asked")) text.dir = "auto";
      item.querySelector(".score").append(make("i"));
    }
    item.querySelector(".score i").style.width = range > 0 ? `${4 + (96 * (example.score - low)) / range}%` : "50%";
    const moved = item.querySelector(".moved");
    const by = example.begun - place;
    moved.textContent = !seen || by === 0 ? "" : `${by > 0 ? "▲" : "▼"} ${Math.abs(by)} since the start`;
    moved.className = by > 0 ? "moved up" : "moved down";
    known.delete(example.number);
    if (list.children[place] !== item) list.insertBefore(item, list.children[place] ?? null);
  });
  for (const item of known.values()) item.remove();
  if (calm.matches) return;
  for (const item of list.children) {
    const shift = (from.get(Number(item.dataset.number)) ?? NaN) - item.getBoundingClientRect().top;
    if (shift) item.animate([{ transform: `translateY(${shift}px)` }, { transform: "none" }], { duration: 350, easing: "ease-out" });
  }
}

// ---- begin

async function begin() {
  const before = remembered();
  if ([...$("criterion").options].some(({ value }) => value === before)) {
    $("criterion").value = before;
    await load();
    return;
  }
  // no choice was made here yet: the server says which
  try {
    const first = await ask("/api/state");
    $("criterion").value = first.criterion;
    show(first);
    settle();
  } catch (error) {
    failed(error);
    settle();
  }
}

begin();
