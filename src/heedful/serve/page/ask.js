// What the pages of this server have in common: asking it, making elements, and showing cameras.
// Foreign text becomes text nodes, never markup.

export const $ = (id) => document.getElementById(id);

export function element(name, properties, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

// A JSON answer. Throws {gone: true} where there is none, and {status, told} where the server says what is wrong.
// body: what is sent, with the number that the page was given (csrf); bytes go as they are, all else as JSON.
export async function ask(path, body, csrf) {
  const bytes = body instanceof ArrayBuffer;
  const request = body
    ? {
        method: "POST",
        headers: { "content-type": bytes ? "application/octet-stream" : "application/json", "x-heedful-csrf": csrf },
        body: bytes ? body : JSON.stringify(body),
      }
    : {};
  let answer;
  try {
    answer = await fetch(path, { ...request, cache: "no-store", credentials: "same-origin" });
  } catch {
    throw { gone: true };
  }
  // a proxy in between may answer something else than JSON; the status is enough then
  const told = await answer.json().catch(() => ({}));
  if (!answer.ok) throw { status: answer.status, told: told.error || `The server answered ${answer.status}.` };
  return told;
}

// One figure for each camera, in `box`.
export function placeCameras(box, cameras) {
  box.replaceChildren(
    ...cameras.map((camera) => {
      const name = camera.replace("observation.images.", "").replaceAll("_", " ");
      return element("figure", {}, element("img", { alt: `Camera: ${name}` }), element("figcaption", {}, name));
    }),
  );
}

// Keep the pictures in `box` new. read(): {cameras, pictures}, pictures being a number that grows with each new one.
export async function watchCameras(box, read) {
  let shown = -1;
  for (;;) {
    const { cameras, pictures } = read();
    if (pictures > 0 && pictures !== shown && !document.hidden) {
      shown = pictures;
      await Promise.all(cameras.map((camera, i) => refresh(box.children[i]?.querySelector("img"), camera, shown)));
    }
    await new Promise((done) => setTimeout(done, 120));
  }
}

function refresh(image, camera, number) {
  if (!image) return null;
  return new Promise((done) => {
    image.onload = image.onerror = done;
    image.src = `/api/picture?camera=${encodeURIComponent(camera)}&n=${number}`;
  });
}
