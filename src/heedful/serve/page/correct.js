// The page of `heedful correct run --person web`. What the server says is the state; the page shows it and says what is typed.
// Foreign text becomes text nodes, never markup.

import { $, ask, element, placeCameras, watchCameras } from "./ask.js";

const DRAFT = "heedful correct draft";
const GONE = "The server does not answer. What was said is on its disk; start it again with the same command, and this page goes on.";
const LONGEST = 9000; // ms of a saying; the server takes ten seconds

let state = null;
let busy = 0;

// ---- the server

async function send(path, body) {
  if (!state) return false;
  busy += 1;
  try {
    const next = await ask(path, body, state.csrf);
    show(next);
    warn("");
    return true;
  } catch (error) {
    warn(error);
    return false;
  } finally {
    busy -= 1;
  }
}

function warn(error) {
  const text = error?.gone ? GONE : (error?.told ?? String(error));
  $("alert").hidden = !text;
  if ($("alert").textContent !== text) $("alert").textContent = text;
}

async function look() {
  if (!busy) {
    try {
      const fresh = await ask("/api/state");
      if (!busy) show(fresh);
      if ($("alert").textContent === GONE) warn("");
    } catch (error) {
      warn(error);
    }
  }
  setTimeout(look, state?.phase === "running" ? 150 : 500);
}

// ---- what the person does

async function say(words, source = "typed") {
  return words.trim() !== "" && (await send("/api/say", { words, source }));
}

$("form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const words = $("words").value;
  $("words").value = "";
  if (!(await say(words)) && !$("words").value) $("words").value = words; // not taken: it is not lost
  keepDraft();
});
$("words").addEventListener("input", keepDraft);
$("undo").addEventListener("click", () => say("undo"));
$("begin").addEventListener("click", async () => {
  if (await send("/api/begin", {})) $("words").focus();
});
for (const button of document.querySelectorAll("[data-mark]"))
  button.addEventListener("click", () => send("/api/end", { mark: button.dataset.mark }));

function keepDraft() {
  try {
    sessionStorage.setItem(DRAFT, $("words").value);
  } catch {
    // a browser that keeps nothing loses what was not sent
  }
}

// ---- speech

let recording = null;

async function listen() {
  if (recording) return;
  recording = { parts: [] };
  $("speak").classList.add("listening");
  $("speak").textContent = "Listening";
  try {
    const stream = await navigator.mediaDevices.getUserMedia({ audio: { channelCount: 1 } });
    const context = new AudioContext({ sampleRate: 16000 });
    await context.audioWorklet.addModule("/mic.js");
    const taker = new AudioWorkletNode(context, "taker");
    taker.port.onmessage = ({ data }) => recording?.parts.push(data);
    context.createMediaStreamSource(stream).connect(taker);
    Object.assign(recording, { stream, context, timer: setTimeout(understand, LONGEST) });
    if (recording.released) understand();
  } catch (error) {
    stopListening();
    warn(`The microphone cannot be used: ${error.message ?? error}`);
  }
}

function stopListening() {
  const { stream, context, timer, parts } = recording;
  recording = null;
  clearTimeout(timer);
  for (const track of stream?.getTracks() ?? []) track.stop();
  context?.close();
  $("speak").classList.remove("listening");
  $("speak").textContent = "Hold to speak";
  return parts;
}

async function understand() {
  if (!recording) return;
  if (!recording.context) {
    recording.released = true; // the microphone has not opened yet
    return;
  }
  const parts = stopListening();
  const sound = new Int16Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) for (const value of part) sound[at++] = Math.max(-1, Math.min(1, value)) * 32767;
  try {
    const { words } = await ask("/api/speech", sound.buffer, state.csrf);
    if (words) await say(words, "spoken");
    else $("said").textContent = "That was not understood. Say it again, or type it.";
  } catch (error) {
    warn(error);
  }
}

$("speak").addEventListener("pointerdown", listen);
for (const name of ["pointerup", "pointercancel", "pointerleave"]) $("speak").addEventListener(name, understand);
$("speak").addEventListener("keydown", (event) => [" ", "Enter"].includes(event.key) && !event.repeat && listen());
$("speak").addEventListener("keyup", understand);

// ---- showing

const seconds = (value) => `${value.toFixed(1)} s`;
const percent = (share) => `${(100 * share).toFixed(share < 0.0995 ? 1 : 0)}%`;

function show(next) {
  const first = !state;
  if (first || String(next.cameras) !== String(state.cameras)) placeCameras($("cameras"), next.cameras);
  if (first) {
    $("bank").replaceChildren(...next.commands.map((value) => element("option", { value })));
    try {
      $("words").value = sessionStorage.getItem(DRAFT) ?? "";
    } catch {
      // no draft
    }
  }
  state = next;
  const running = next.phase === "running";
  document.body.classList.toggle("told", running && next.by === "person");
  $("count").textContent = `${next.run} · episode ${next.episode} · ${next.done} saved`;
  $("who").textContent = running
    ? next.by === "person"
      ? `You said so. The robot follows for ${seconds(next.held.left)} more.`
      : "The robot chose this itself."
    : next.connected
      ? "No episode is running."
      : "The robot does not answer yet.";
  $("command").textContent = running ? next.command || "…" : next.more ? "Ready" : "All episodes are there";
  $("hold").hidden = !next.held || !running;
  if (next.held) $("hold").firstElementChild.style.width = `${(100 * next.held.left) / next.held.whole}%`;
  $("said").textContent = next.problem || next.said;
  $("before").hidden = running;
  $("during").hidden = !running;
  for (const button of document.querySelectorAll(".own")) button.hidden = next.simulated;
  $("begin").disabled = !next.connected || !next.more;
  $("send").disabled = $("speak").disabled = !running;
  $("undo").disabled = !next.undoable;
  $("speak").hidden = !next.speech || !navigator.mediaDevices;
  $("time").textContent = seconds(next.seconds);
  showCandidates(next.candidates, running);
  $("progress").hidden = !next.stages.length;
  $("stages").replaceChildren(
    ...next.stages.map(([name, done]) => element("li", { className: done ? "done" : "" }, name)),
  );
  showBar(next.parts, next.seconds);
  showRows(next.rows, running);
  document.querySelector("main").setAttribute("aria-busy", "false");
}

function showCandidates(candidates, running) {
  const list = $("candidates");
  while (list.children.length > candidates.length) list.lastElementChild.remove();
  while (list.children.length < candidates.length) {
    const bar = element("span", { className: "meter" }, element("i", {}));
    const parts = [element("span", { className: "name" }), element("span", { className: "share" }), bar];
    const button = element("button", { type: "button", title: "Say this" }, ...parts);
    button.addEventListener("click", () => say(button.querySelector(".name").textContent));
    list.append(element("li", {}, button));
  }
  candidates.forEach(([command, share], i) => {
    const button = list.children[i].firstElementChild;
    button.disabled = !running;
    button.querySelector(".name").textContent = command;
    button.querySelector(".share").textContent = percent(share);
    button.querySelector(".meter i").style.width = `${100 * share}%`;
  });
}

function showBar(parts, whole) {
  $("bar").replaceChildren(
    ...parts.map(([at, command, person], i) => {
      const until = parts[i + 1]?.[0] ?? whole;
      const part = element("i", { className: person ? "person" : "", title: `${seconds(at)}: ${command}` });
      part.style.width = `${(100 * (until - at)) / Math.max(whole, 1e-3)}%`;
      return part;
    }),
  );
  $("bar").ariaLabel = parts.map(([at, command, person]) => `${seconds(at)} ${command}${person ? ", yours" : ""}`).join("; ");
}

const MEANT = { accepted: "win", undone: "tie", replaced: "tie", refused: "loss" };
let listed = "";

function showRows(rows, running) {
  $("nothing").hidden = rows.length > 0;
  const now = JSON.stringify([rows, running]);
  if (now === listed) return;
  listed = now;
  $("rows").replaceChildren(
    ...rows.toReversed().map((row) => {
      const became = row.command
        ? [element("b", {}, row.command), row.overridden ? ` instead of ${row.overridden}` : ""]
        : [row.reason];
      const parts = [
        element("span", { className: "at" }, seconds(row.seconds)),
        element("span", { className: "words" }, row.source === "spoken" ? `“${row.words}”` : row.words),
        element("span", { className: "became" }, ...became),
        element("span", { className: `badge verdict ${MEANT[row.status] ?? ""}` }, row.status),
      ];
      if (running && row.runner_up && row.status === "accepted") {
        const other = element("button", { type: "button" }, `rather: ${row.runner_up}`);
        other.addEventListener("click", () => say(row.runner_up));
        parts[2].append(" ", other);
      }
      const item = element("li", { className: row.status }, ...parts);
      item.dataset.id = row.id;
      return item;
    }),
  );
}

look();
watchCameras($("cameras"), () => state ?? { cameras: [], pictures: -1 });
