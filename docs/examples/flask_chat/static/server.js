// What the page asks of the server. Ids in it are ASCII: names in other scripts are percent-encoded.

/** A person's or channel's id for a name, and back. */
export const idOf = (name) => encodeURIComponent(name.trim().normalize("NFC"))
  .replace(/%(20|21|23|24|26|28|29|2B|2C|3A|3B|3C|3D|3E|3F|40|5B|5D|5E|7B|7C|7D)/g, decodeURIComponent)
  .replace(/[*']/g, (char) => `%${char.charCodeAt(0).toString(16).toUpperCase()}`);

export function nameOf(id) {
  try {
    return decodeURIComponent(id);
  } catch {
    return id; // made elsewhere, with a % of its own
  }
}

/** What the server refused, and the reason it gave. */
export class Refused extends Error {
  constructor(status, { reason = "FAILURE", message = "" } = {}) {
    super(message);
    this.status = status;
    this.reason = reason;
  }
}

const form = (fields) => {
  const data = new FormData();
  for (const [name, value] of Object.entries(fields)) if (value != null) data.append(name, value);
  return data;
};

const answerOf = (text) => {
  try {
    return JSON.parse(text);
  } catch {
    return {};
  }
};

async function call(path, options) {
  let response;
  try {
    response = await fetch(path, options);
  } catch {
    throw new Refused(0, { reason: "NETWORK" });
  }
  const answer = answerOf(await response.text());
  if (!response.ok) throw new Refused(response.status, answer);
  return answer;
}

export const get = (path, fields = {}) => call(`${path}?${new URLSearchParams(fields)}`);

export const post = (path, fields = {}) => call(path, { method: "POST", body: form(fields) });

/** Whether a medium is still there. */
export async function isThere(url) {
  const response = await fetch(url, { method: "HEAD" });
  return response.status !== 404;
}

/** Post a form with a file: `onProgress(part)` from 0 to 1, `abort()` gives it up. */
export function upload(path, fields, onProgress) {
  const request = new XMLHttpRequest();
  const done = new Promise((resolve, reject) => {
    request.upload.onprogress = (event) => event.lengthComputable && onProgress(event.loaded / event.total);
    request.upload.onload = () => onProgress(1);
    request.onload = () => {
      const answer = answerOf(request.responseText);
      if (request.status === 200) resolve(answer);
      else reject(new Refused(request.status, answer));
    };
    request.onerror = () => reject(new Refused(0, { reason: "NETWORK" }));
    request.onabort = () => reject(new Refused(0, { reason: "INTERRUPTED" }));
  });
  request.open("POST", path);
  request.send(form(fields));
  return { done, abort: () => request.abort() };
}

const THUMBNAIL = 480; // pixels of its longer side
const THUMBNAIL_BYTES = 24_000; // a message has 32 KB, its name and text included

/** A small JPEG of a picture, or null where the browser cannot read it. */
export async function thumbnail(file) {
  if (!file.type.startsWith("image/")) return null;
  let picture;
  try {
    picture = await createImageBitmap(file);
  } catch {
    return null;
  }
  const canvas = document.createElement("canvas");
  try {
    for (let side = THUMBNAIL; side >= 60; side /= 2) {
      const scale = Math.min(1, side / Math.max(picture.width, picture.height));
      canvas.width = Math.max(1, Math.round(picture.width * scale));
      canvas.height = Math.max(1, Math.round(picture.height * scale));
      const context = canvas.getContext("2d");
      context.fillStyle = "#fff";
      context.fillRect(0, 0, canvas.width, canvas.height);
      context.imageSmoothingQuality = "high";
      context.drawImage(picture, 0, 0, canvas.width, canvas.height);
      for (const quality of [0.8, 0.6]) {
        const blob = await new Promise((resolve) => canvas.toBlob(resolve, "image/jpeg", quality));
        if (blob && blob.size <= THUMBNAIL_BYTES) return blob;
      }
    }
    return null;
  } finally {
    picture.close();
  }
}
