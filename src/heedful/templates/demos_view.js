"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const films = [...document.querySelectorAll("video")];
  const at = document.getElementById("at");
  const now = document.getElementById("now");
  const said = document.getElementById("said");
  const button = document.getElementById("play");
  const svg = (name, attributes) => {
    const node = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
    return node;
  };
  const element = (name, text) => {
    const node = document.createElement(name);
    node.textContent = text;
    return node;
  };

  document.getElementById("tasks").textContent = data.tasks.join(" · ");
  for (const [name, value] of Object.entries(data.meta)) {
    const row = document.createElement("tr");
    row.append(element("th", name), element("td", value));
    document.getElementById("meta").append(row);
  }

  const marks = [];
  const cursors = [];
  const W = 1000, H = 160;
  for (const [name, lines] of Object.entries(data.signals)) {
    const figure = document.createElement("figure");
    const plot = svg("svg", { viewBox: `0 0 ${W} ${H}`, class: "signal", role: "img" });
    plot.append(svg("title", {}));
    plot.firstChild.textContent = name;
    const known = lines.flat().filter((v) => v !== null);
    const low = Math.min(...known), high = Math.max(...known), range = high - low || 1;
    const x = (k) => (data.length > 1 ? (k / (data.length - 1)) * W : 0);
    const y = (v) => H - 6 - ((v - low) / range) * (H - 12);
    lines.forEach((line, d) => {
      let path = "", pen = "M";
      line.forEach((v, k) => {
        if (v === null) pen = "M";
        else { path += `${pen}${x(k).toFixed(1)} ${y(v).toFixed(1)}`; pen = "L"; }
      });
      plot.append(svg("path", { d: path, class: `line-${d % 8}` }));
    });
    const cursor = svg("line", { x1: 0, x2: 0, y1: 0, y2: H, class: "cursor" });
    plot.append(cursor);
    cursors.push([cursor, x]);
    plot.addEventListener("click", (event) => {
      const box = plot.getBoundingClientRect();
      seek(Math.round(((event.clientX - box.left) / box.width) * (data.length - 1)));
    });
    figure.append(plot, element("figcaption", name));
    document.getElementById("signals").append(figure);
  }

  for (const [name, bands] of Object.entries(data.bands)) {
    const figure = document.createElement("figure");
    const strip = element("div", "");
    strip.className = "strip";
    const percent = (k) => `${(100 * k) / data.length}%`;
    for (const [start, stop, text, strong] of bands) {
      const band = element("button", text);
      band.type = "button";
      band.title = `${(start / data.fps).toFixed(1)} s: ${text}`;
      band.className = strong ? "strong" : "";
      band.style.left = percent(start);
      band.style.width = percent(stop - start);
      band.addEventListener("click", () => seek(start));
      strip.append(band);
    }
    const cursor = document.createElement("i");
    strip.append(cursor);
    marks.push((k) => { cursor.style.left = percent(k); });
    figure.append(strip, element("figcaption", name));
    document.getElementById("bands").append(figure);
  }
  if (data.table) {
    const table = document.createElement("table");
    const head = document.createElement("tr");
    head.append(...["", ...data.table.head].map((name) => element("th", name)));
    table.append(head);
    for (const [start, stop, cells] of data.table.rows) {
      const row = document.createElement("tr");
      const link = element("button", `${(start / data.fps).toFixed(2)} s`);
      link.type = "button";
      link.addEventListener("click", () => seek(start));
      const first = document.createElement("td");
      first.append(link);
      row.append(first, ...cells.map((text) => element("td", text)));
      marks.push((k) => row.classList.toggle("on", k >= start && k < stop));
      table.append(row);
    }
    document.getElementById("table").append(element("h2", data.table.title), table);
  }

  const items = data.language.map(([time, style, role, content]) => {
    const item = document.createElement("li");
    const link = element("button", `${time.toFixed(2)} s`);
    link.type = "button";
    link.addEventListener("click", () => seek(Math.round(time * data.fps)));
    item.append(link, element("b", ` ${style} (${role}): `), element("span", content));
    document.getElementById("language").append(item);
    return item;
  });

  let frame = 0, playing = false, began = 0;
  function show() {
    at.value = frame;
    now.textContent = `frame ${frame} of ${data.length}, ${(frame / data.fps).toFixed(2)} s`;
    for (const [cursor, x] of cursors) {
      cursor.setAttribute("x1", x(frame));
      cursor.setAttribute("x2", x(frame));
    }
    for (const mark of marks) mark(frame);
    const holds = {};
    data.language.forEach(([time, style, , content], k) => {
      const since = frame - Math.round(time * data.fps);
      const on = style === "subtask" ? since >= 0 : since >= 0 && since < 2 * data.fps;
      items[k].classList.remove("on");
      if (on) holds[style] = k;
    });
    for (const k of Object.values(holds)) items[k].classList.add("on");
    said.textContent = Object.values(holds).map((k) => data.language[k][3]).join(" · ");
  }
  function seek(k) {
    frame = Math.max(0, Math.min(data.length - 1, k));
    // The middle of a frame's time: a browser rounds the seconds it is given.
    for (const film of films) film.currentTime = (frame + 0.5) / data.fps;
    began = performance.now() - (frame / data.fps) * 1000;
    show();
  }
  function tick() {
    if (!playing) return;
    frame = Math.floor(((performance.now() - began) / 1000) * data.fps);
    if (frame >= data.length) { frame = data.length - 1; stop(); }
    show();
    if (playing) requestAnimationFrame(tick);
  }
  function stop() {
    playing = false;
    button.textContent = "Play";
    for (const film of films) film.pause();
    seek(frame);
  }
  button.addEventListener("click", () => {
    if (playing) { stop(); return; }
    if (frame >= data.length - 1) seek(0);
    playing = true;
    button.textContent = "Pause";
    began = performance.now() - (frame / data.fps) * 1000;
    for (const film of films) film.play();
    requestAnimationFrame(tick);
  });
  at.addEventListener("input", () => { if (playing) stop(); seek(Number(at.value)); });
  document.addEventListener("keydown", (event) => {
    if (event.target === at || playing) return;
    if (event.key === "ArrowRight") seek(frame + 1);
    if (event.key === "ArrowLeft") seek(frame - 1);
  });
  seek(0);
})();
