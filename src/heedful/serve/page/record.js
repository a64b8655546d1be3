// The page of `heedful demos record --web`. What the server says is the state; the page shows it and says what is held.
// Foreign text becomes text nodes, never markup.

import { $, ask, element, placeCameras, watchCameras } from "./ask.js";

const MOVING = "wsadrfqejlikco ";
const MARKS = { y: "success", n: "failure", x: "discard" };
const TELL = 90; // ms between two messages about held keys; the server lets the grip go after 400
const held = new Set();

let state = null;
let busy = false;

// ---- the server

const post = (path, body) => ask(path, body, state.csrf);

async function send(path, body) {
  if (busy || !state) return;
  busy = true;
  try {
    show(await post(path, body));
    warn("");
  } catch (error) {
    warn(error);
  } finally {
    busy = false;
  }
}

const GONE = "The server does not answer. Saved episodes are on its disk; start it again with the same command.";

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
    } catch (error) {
      warn(error);
    }
  }
  setTimeout(look, state?.take ? 200 : 500);
}

// ---- what is held

async function tellHeld() {
  if (state?.take && state.teleop === "keyboard") {
    try {
      await post("/api/keys", { keys: [...held] });
    } catch {
      // The next message may get through; without any the robot stops by itself.
    }
  }
}

setInterval(() => held.size && tellHeld(), TELL);

const typing = (target) => target instanceof HTMLInputElement || target instanceof HTMLTextAreaElement;

addEventListener("keydown", (event) => {
  if (typing(event.target) || event.ctrlKey || event.metaKey || event.altKey || !state?.take) return;
  const key = event.key.toLowerCase();
  if (MARKS[key] && !event.repeat) {
    held.clear();
    send("/api/end", { mark: MARKS[key] });
  } else if (MOVING.includes(key) && key.length === 1) {
    event.preventDefault(); // the space bar must not press a button
    const first = !held.has(key);
    held.add(key);
    if (first) tellHeld();
  }
});
addEventListener("keyup", (event) => {
  held.delete(event.key.toLowerCase());
  if (!held.size) tellHeld();
});
for (const name of ["blur", "pagehide"])
  addEventListener(name, () => {
    held.clear();
    tellHeld();
  });

// ---- buttons

const buttons = {
  begin: ["/api/begin", { practice: false }],
  practice: ["/api/begin", { practice: true }],
  next: ["/api/next", {}],
  scene: ["/api/scene", {}],
  success: ["/api/end", { mark: "success" }],
  failure: ["/api/end", { mark: "failure" }],
  discard: ["/api/end", { mark: "discard" }],
};
for (const [id, [path, body]] of Object.entries(buttons))
  $(id).addEventListener("click", () => {
    $(id).blur();
    send(path, body);
  });

$("form").addEventListener("submit", (event) => {
  event.preventDefault();
  const ticked = [...$("kinds").querySelectorAll("input:checked")].map((box) => Number(box.value));
  send("/api/setup", {
    collector: $("collector").value,
    building: $("building").value,
    ticked,
    typed: $("typed").value,
  });
});

// ---- showing

function show(next) {
  const first = !state;
  state = next;
  if (first) {
    $("kinds").replaceChildren(
      ...next.kinds.map((kind, i) =>
        element("label", {}, element("input", { type: "checkbox", value: i, checked: next.ticked.includes(i) }), kind),
      ),
    );
    $("collector").value = next.collector;
    $("building").value = next.building;
    $("typed").value = next.typed;
    placeCameras($("cameras"), next.cameras);
  }
  document.body.classList.toggle("recording", next.phase === "recording");
  $("count").textContent = `${next.saved} episodes, ${next.successes} successes · scene ${next.scene || "not said yet"}`;
  $("said").textContent = next.problem || next.said;
  $("phase").textContent = { setup: "Before anything is recorded", ready: "Next task", recording: "Recording" }[next.phase];
  $("task").textContent = next.take
    ? next.take.task
    : next.prompt
      ? next.prompt.task
      : `Say first: ${next.missing.join(", ")}`;
  $("here").textContent = next.take && next.here ? `Here: ${next.here}` : "";
  const prompts = next.prompt && !next.take ? [...next.prompt.warnings] : [];
  if (next.prompt?.change && !next.take) prompts.unshift(`Change the scene first: ${next.prompt.change}`);
  $("prompts").hidden = !prompts.length;
  $("prompts").replaceChildren(...prompts.map((text) => element("li", {}, text)));
  $("before").hidden = next.phase === "recording";
  $("during").hidden = next.phase !== "recording";
  $("begin").disabled = $("next").disabled = next.phase !== "ready";
  $("begin").disabled ||= !next.connected;
  $("practice").disabled = !next.connected;
  $("grip").textContent = next.take ? (held.size ? "The grip is held." : "The grip is let go.") : "";
  if (next.take)
    $("time").textContent = `${next.take.seconds.toFixed(1)} s, ${next.take.frames} frames, ${next.take.idle} idle` +
      (next.take.practice ? ", practice: nothing is saved" : "");
  showEpisodes(next.episodes);
  document.querySelector("main").setAttribute("aria-busy", "false");
}

let listed = "";
function showEpisodes(episodes) {
  const now = JSON.stringify(episodes);
  if (now === listed || $("kept").contains(document.activeElement)) return;
  listed = now;
  $("kept").replaceChildren(
    ...episodes.map((one) => {
      const other = one.success ? "failure" : "success";
      const revise = element("button", { type: "button" }, `Mark as ${other}`);
      revise.addEventListener("click", () => {
        revise.blur();
        send("/api/mark", { name: one.name, success: !one.success });
      });
      const words = element("input", {
        value: one.language.replaceAll("\n", "; "),
        placeholder: "what was done, in words; up to three with semicolons",
        ariaLabel: `What was done in ${one.name}`,
        maxLength: 600,
      });
      const form = element("form", {}, words, element("button", { type: "submit" }, "Say"));
      form.addEventListener("submit", (event) => {
        event.preventDefault();
        document.activeElement.blur();
        send("/api/describe", { name: one.name, texts: words.value.split(";") });
      });
      const badge = element("span", { className: `verdict ${one.success ? "win" : "loss"}` }, one.success ? "success" : "failure");
      const line = element("div", { className: "line" }, badge, element("span", { className: "task" }, one.task));
      line.append(element("span", { className: "note" }, `${one.frames} frames`), revise);
      const item = element("li", {}, line, form);
      item.dataset.name = one.name;
      return item;
    }),
  );
}

look();
watchCameras($("cameras"), () => state ?? { cameras: [], pictures: -1 });
