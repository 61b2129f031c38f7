// The page: where one is, what is said there, and what is on its way.

import { Refused, get, idOf, isThere, nameOf, post, thumbnail, upload } from "./server.js";
import { clock, complaint, dateAndTime, day, size, t, toggleLanguage, translate } from "./words.js";

const UPLOADS_AT_ONCE = 3; // a browser has six connections to a server, and events take one
const TOGETHER = 5 * 60_000; // messages of one person in that time stand together
const COLOURS = ["#0d6b5c", "#8a3b12", "#2f55a4", "#7a2f6f", "#4a6113", "#96304a", "#50459b", "#0f6684"];

const $ = (id) => document.getElementById(id);

let me = null; // what /api/me said
let states = new Map(); // person → ONLINE, UNREACHABLE or OFFLINE, of those we have written with
let places = new Map(); // "channel/lobby" → place
let current = null; // the place that is shown
let events = null; // the EventSource
let uploading = 0;
const queue = []; // uploads that wait

// -- small things --

/** An element: its properties, then its children. */
function el(tag, properties = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name in node && name !== "list") node[name] = value;
    else if (value !== undefined) node.setAttribute(name, value);
  }
  node.append(...children.filter((child) => child != null));
  return node;
}

function icon(name) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const use = document.createElementNS("http://www.w3.org/2000/svg", "use");
  use.setAttribute("href", `#i-${name}`);
  svg.setAttribute("aria-hidden", "true");
  svg.append(use);
  return svg;
}

function face(id) {
  const name = nameOf(id);
  let sum = 0;
  for (const char of id) sum = (sum * 31 + char.codePointAt(0)) >>> 0;
  const node = el("span", { className: "face" }, [...name][0]?.toUpperCase() ?? "?");
  node.style.setProperty("--face", COLOURS[sum % COLOURS.length]); // CSSOM: the page's policy allows no style attributes
  node.setAttribute("aria-hidden", "true");
  return node;
}

function notice(text) {
  const node = el("p", {}, text);
  $("notices").append(node);
  setTimeout(() => node.remove(), 5000);
}

const titleOf = (place) => (place.kind === "channel" && place.id === me.lobby ? t("lobby") : nameOf(place.id));
const keyOf = (kind, id) => `${kind}/${id}`;
const hashOf = (place) => `#${place.kind}/${encodeURIComponent(place.id)}`;
const lobby = () => placeOf("channel", me.lobby);
const isOnline = (id) => lobby().members.has(id) || states.get(id) === "ONLINE";
const isOver = (message) => message.expires_at > 0 && message.expires_at * 1000 <= Date.now();
const urlOf = (message) => `/media/${encodeURIComponent(message.media_id)}`;

// -- places --

function placeOf(kind, id) {
  const key = keyOf(kind, id);
  if (!places.has(key)) {
    places.set(key, { kind, id, key, unread: 0, records: [], seen: new Set(), loaded: false, more: false, members: new Set(), draft: "", tray: [] });
  }
  return places.get(key);
}

const readMoments = () => JSON.parse(localStorage.getItem(`read/${me.uid}`) ?? "{}");

function markRead(place) {
  place.unread = 0;
  const moments = readMoments();
  moments[place.key] = Math.max(Date.now(), place.records.at(-1)?.at ?? 0);
  localStorage.setItem(`read/${me.uid}`, JSON.stringify(moments));
}

function entry(place) {
  const isHere = place.kind === "peer" && isOnline(place.id);
  const link = el("a", { href: hashOf(place), className: "place" });
  if (place === current) link.setAttribute("aria-current", "page");
  link.append(place.kind === "channel" ? el("span", { className: "hash", ariaHidden: "true" }, "#") : face(place.id));
  link.append(el("span", { className: "name" }, titleOf(place)));
  if (place.kind === "peer") link.append(el("span", { className: isHere ? "dot on" : "dot" }, el("span", { className: "unseen" }, t(isHere ? "online" : "offline"))));
  if (place.unread) link.append(el("span", { className: "badge" }, String(place.unread), el("span", { className: "unseen" }, ` ${t("unread")}`)));
  return el("li", {}, link);
}

function showPlaces() {
  const focused = document.activeElement?.closest?.("a.place")?.getAttribute("href");
  const all = [...places.values()];
  for (const id of lobby().members) if (!places.has(keyOf("peer", id))) all.push({ kind: "peer", id, unread: 0 });
  const byName = (a, b) => titleOf(a).localeCompare(titleOf(b));
  const channels = all.filter((place) => place.kind === "channel");
  channels.sort((a, b) => (b.id === me.lobby) - (a.id === me.lobby) || byName(a, b));
  const people = all.filter((place) => place.kind === "peer" && place.id !== me.uid);
  people.sort((a, b) => isOnline(b.id) - isOnline(a.id) || byName(a, b));
  $("channels").replaceChildren(...channels.map(entry));
  $("people").replaceChildren(...people.map(entry));
  $("nobody").hidden = people.length > 0;
  if (focused) document.querySelector(`a.place[href="${CSS.escape(focused)}"]`)?.focus();
  const unread = all.reduce((sum, place) => sum + place.unread, 0);
  document.title = (unread ? `(${unread}) ` : "") + (current ? `${titleOf(current)} · ${t("title")}` : t("title"));
  showRoomHead();
}

function showRoomHead() {
  document.body.classList.toggle("in-room", current !== null);
  $("room").hidden = current === null;
  $("show-members").hidden = $("members").hidden = current?.kind !== "channel";
  if (!current) return;
  $("room-name").textContent = titleOf(current);
  const isHere = current.kind === "peer" && isOnline(current.id);
  $("room-state").textContent = current.kind === "channel" ? t("memberCount", current.members.size) : t(isHere ? "online" : "offline");
  $("room-state").className = isHere ? "on" : "";
  const members = [...current.members].sort((a, b) => nameOf(a).localeCompare(nameOf(b)));
  $("member-list").replaceChildren(...members.map((id) => {
    const inside = [face(id), el("span", { className: "name" }, nameOf(id) + (id === me.uid ? ` (${t("you")})` : ""))];
    return el("li", {}, id === me.uid ? el("span", { className: "place" }, ...inside) : el("a", { className: "place", href: hashOf({ kind: "peer", id }) }, ...inside));
  }));
}

/** Show the place that the address names. */
async function goTo() {
  if (!me) return;
  const [kind, id] = location.hash.slice(1).split("/").map(decodeURIComponent);
  if (current) {
    current.draft = $("text").value;
    current = null;
  }
  if (!id || !["channel", "peer"].includes(kind)) {
    if (matchMedia("(min-width: 50rem)").matches) location.replace(hashOf(lobby()));
    else showPlaces();
    return;
  }
  const known = places.has(keyOf(kind, id));
  const place = (current = placeOf(kind, id));
  $("text").value = place.draft;
  markRead(place);
  showPlaces();
  showTray();
  showMessages();
  try {
    const { members, online } = await post("/api/open", { kind, id });
    if (kind === "channel") place.members = new Set(members);
    else states.set(id, online ? "ONLINE" : "OFFLINE");
    if (!place.loaded) await loadHistory(place);
    if (place === current) markRead(place);
  } catch (error) {
    if (!known) places.delete(place.key);
    if (current === place) location.hash = "";
    return problem(error);
  }
  if (current !== place) return;
  showPlaces();
  if (matchMedia("(pointer: fine)").matches) $("text").focus();
}

/** Tell what went wrong, or that one is signed out. */
function problem(error) {
  if (!(error instanceof Refused)) throw error;
  if (error.status === 401) showWelcome();
  else notice(complaint(error.reason));
}

// -- messages --

const mark = (uid, at, message) => `${uid} ${at} ${message.media_id ?? message.text}`;

/** Take a message that was sent or has come; says whether it is new. */
function take(place, record) {
  const names = [record.id, record.id ? null : mark(record.uid, record.at, record.message)].filter(Boolean);
  if (names.some((name) => place.seen.has(name))) return false;
  for (const name of names) place.seen.add(name);
  place.records.push(record);
  return true;
}

async function loadHistory(place) {
  const oldest = place.loaded ? place.records.find((record) => !record.upload) : null;
  const fields = { kind: place.kind, id: place.id, ...(oldest ? { before: oldest.at } : {}) };
  const { messages, more } = await get("/api/messages", fields);
  const found = [];
  for (const one of messages) {
    const at = one.message_props.server_received_ts;
    const names = [one.message_id, mark(one.source, at, one.message)];
    if (names.some((name) => place.seen.has(name)) || place.records.some((record) => record.id === one.message_id)) continue;
    for (const name of names) place.seen.add(name);
    found.push({ id: one.message_id, uid: one.source, at, message: one.message });
  }
  place.records = [...found, ...place.records]; // what came meanwhile is newer
  place.loaded = true;
  place.more = more;
  if (place === current) showMessages(oldest);
}

const atEnd = () => $("log").scrollHeight - $("log").scrollTop - $("log").clientHeight < 120;
const toEnd = () => $("log").scrollTo({ top: $("log").scrollHeight });

/** Show all messages; with `keep`, that record stays where it is. */
function showMessages(keep = null) {
  const fromEnd = $("log").scrollHeight - $("log").scrollTop;
  const list = $("messages");
  list.replaceChildren();
  let before = null;
  for (const record of current.records) {
    append(list, record, before);
    before = record;
  }
  const isEmpty = current.loaded && !current.records.length;
  $("empty").hidden = !isEmpty;
  $("empty").lastElementChild.textContent = current.kind === "channel" ? t("emptyChannel") : t("emptyPeer", titleOf(current));
  $("earlier").hidden = !current.more;
  if (keep) $("log").scrollTop = $("log").scrollHeight - fromEnd;
  else toEnd();
}

/** Show one more message, at the end. */
function showNew(record) {
  const stay = !atEnd() && record.uid !== me.uid;
  append($("messages"), record, current.records.at(-2) ?? null);
  $("empty").hidden = true;
  if (!stay) toEnd();
}

function append(list, record, before) {
  const newDay = !before || new Date(before.at).toDateString() !== new Date(record.at).toDateString();
  if (newDay) list.append(el("li", { className: "day" }, el("span", {}, day(record.at))));
  const follows = !newDay && before.uid === record.uid && record.at - before.at < TOGETHER;
  list.append(bubble(record, follows));
}

function bubble(record, follows) {
  const mine = record.uid === me.uid;
  const item = el("li", { className: `message ${mine ? "mine" : "theirs"}${follows ? " follows" : ""}` });
  const body = el("div", { className: "bubble" });
  const said = el("p", { className: "who" }, nameOf(record.uid));
  if (mine || current.kind === "peer") said.className = "who unseen";
  const time = el("time", { dateTime: new Date(record.at).toISOString() }, clock(record.at));
  if (record.upload) body.append(...uploadParts(record));
  else body.append(...contentParts(record));
  const foot = el("p", { className: "foot" }, time);
  if (record.received != null) foot.append(el("span", {}, t(record.received ? "received" : "kept")));
  item.append(mine ? "" : face(record.uid), el("div", { className: "column" }, said, body, foot));
  record.node = item;
  return item;
}

/** Show a message again, in its place. */
function showAgain(record) {
  if (!record.node?.isConnected) return;
  const follows = record.node.classList.contains("follows");
  const old = record.node;
  const focused = old.contains(document.activeElement);
  old.replaceWith(bubble(record, follows));
  if (focused) record.node.querySelector("button, a")?.focus();
}

function contentParts({ message, uid, gone }) {
  const parts = [];
  if (message.type === "TEXT") parts.push(words(message.text));
  else if (message.type === "RAW") parts.push(words("…"));
  else {
    const over = gone || isOver(message);
    parts.push(message.type === "IMAGE" ? photo(message, uid, over) : file(message, over));
    if (message.description) parts.push(words(message.description));
  }
  return parts;
}

/** A text, its addresses as links. */
function words(text) {
  const node = el("p", { className: "words" });
  for (const [index, part] of text.split(/(https?:\/\/[^\s<>"]+[^\s<>".,;:!?)\]}。，！？；：）])/).entries()) {
    node.append(index % 2 ? el("a", { href: part, target: "_blank", rel: "noopener noreferrer" }, part) : part);
  }
  return node;
}

function sized(node, width, height) {
  if (!(width > 0 && height > 0)) return node;
  const ratio = Math.min(2.4, Math.max(0.5, width / height));
  node.style.setProperty("--ratio", String(ratio));
  return node;
}

const thumbnailOf = (message) => (message.thumbnail ? `data:image/jpeg;base64,${message.thumbnail}` : null);

function photo(message, uid, over) {
  const label = t("photoBy", message.file_name, uid === me.uid ? t("you") : nameOf(uid));
  if (over) {
    const image = message.thumbnail ? el("img", { src: thumbnailOf(message), alt: label }) : null;
    const node = el("div", { className: "photo over" }, image, el("p", { className: "gone" }, icon("gone"), t("expired")));
    return sized(node, message.width, message.height);
  }
  const image = el("img", { src: thumbnailOf(message) ?? urlOf(message), alt: label, loading: "lazy", decoding: "async" });
  const node = el("button", { type: "button", className: "photo", ariaHasPopup: "dialog", onclick: () => view(message.media_id) }, image);
  return sized(node, message.width, message.height);
}

const sheet = (name) => el("span", { className: "sheet", ariaHidden: "true" }, name.includes(".") ? name.split(".").pop().slice(0, 4) : "");

const about = (name, says) => el("span", { className: "about" }, el("span", { className: "name" }, name), el("span", { className: "size" }, says));

function file(message, over) {
  const says = over ? t("expiredShort") : size(message.size);
  const inside = [sheet(message.file_name), about(message.file_name, says)];
  if (over) return el("div", { className: "file", title: t("expired") }, ...inside);
  const link = el("a", { className: "file", href: `${urlOf(message)}?download`, download: message.file_name, ariaLabel: `${t("downloadOf", message.file_name)}, ${says}` }, ...inside, icon("save"));
  link.addEventListener("click", async (event) => {
    if (!event.isTrusted) return; // our own, below
    event.preventDefault();
    if (await isThere(urlOf(message))) link.click();
    else markGone(message.media_id);
  });
  return link;
}

function markGone(mediaId) {
  for (const place of places.values()) {
    for (const record of place.records) {
      if (record.message?.media_id === mediaId && !record.gone) {
        record.gone = true;
        showAgain(record);
      }
    }
  }
}

// -- the full picture --

let viewed = null;

const photos = () => current.records.filter((record) => record.message?.type === "IMAGE" && !record.upload);

function view(mediaId) {
  const all = photos();
  const index = all.findIndex((record) => record.message.media_id === mediaId);
  if (index < 0) return;
  const record = all[index];
  const { message } = record;
  viewed = mediaId;
  $("viewer-name").textContent = message.file_name || t("photo");
  const facts = [nameOf(record.uid), dateAndTime(record.at), size(message.size)];
  if (message.expires_at) facts.push(t("keptUntil", dateAndTime(message.expires_at * 1000)));
  $("viewer-about").textContent = facts.join(" · ");
  $("viewer-text").textContent = message.description;
  $("viewer-before").disabled = index === 0;
  $("viewer-after").disabled = index === all.length - 1;
  $("viewer-save").href = `${urlOf(message)}?download`;
  $("viewer-save").download = message.file_name;
  const image = $("viewer-photo");
  const gone = (isGone) => {
    $("viewer-gone").hidden = !isGone;
    $("viewer-gone").textContent = t("expired");
    $("viewer-save").hidden = isGone;
    image.classList.toggle("over", isGone);
  };
  image.alt = t("photoBy", message.file_name, nameOf(record.uid));
  if (message.width) image.width = message.width;
  else image.removeAttribute("width");
  if (message.height) image.height = message.height;
  else image.removeAttribute("height");
  const small = thumbnailOf(message);
  if (small) image.src = small;
  else image.removeAttribute("src");
  delete image.dataset.full;
  gone(record.gone || isOver(message));
  if (!record.gone && !isOver(message)) {
    const full = new Image();
    full.src = urlOf(message);
    full.decode().then(
      () => {
        if (viewed !== mediaId) return;
        image.src = full.src;
        image.dataset.full = "yes";
      },
      async () => {
        if (await isThere(full.src)) return; // a picture that the browser cannot show; it can be saved
        markGone(mediaId);
        if (viewed === mediaId) gone(true);
      },
    );
  }
  if (!$("viewer").open) $("viewer").showModal();
}

function turn(step) {
  const all = photos();
  const next = all[all.findIndex((record) => record.message.media_id === viewed) + step];
  if (next) view(next.message.media_id);
}

// -- sending --

const newId = () => crypto.randomUUID?.() ?? [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");

async function sendText(place, text) {
  const record = { id: newId(), uid: me.uid, at: Date.now(), message: { type: "TEXT", text }, upload: { name: text, state: "sending", isText: true } };
  begin(place, record, () => sendOneText(place, record));
}

function begin(place, record, start) {
  record.upload.start = start;
  place.records.push(record);
  if (place === current) showNew(record);
  start();
}

async function sendOneText(place, record) {
  record.upload.state = "sending";
  showAgain(record);
  try {
    sent(await post("/api/text", { kind: place.kind, id: place.id, text: record.message.text, message_id: record.id }));
  } catch (error) {
    failed(record, error);
  }
}

function sendFile(place, { file: source, url }, description) {
  const picture = source.type.startsWith("image/");
  const record = { id: newId(), uid: me.uid, at: Date.now(), upload: { name: source.name, source, url: picture ? url : null, description, state: "waiting", part: 0 } };
  begin(place, record, () => {
    record.upload.state = "waiting";
    showAgain(record);
    queue.push([place, record]);
    pump();
  });
}

function pump() {
  while (uploading < UPLOADS_AT_ONCE && queue.length) {
    const [place, record] = queue.shift();
    uploading += 1;
    sendOneFile(place, record).finally(() => {
      uploading -= 1;
      pump();
    });
  }
}

async function sendOneFile(place, record) {
  const state = record.upload;
  state.state = "sending";
  state.part = 0;
  showAgain(record);
  const fields = {
    kind: place.kind,
    id: place.id,
    message_id: record.id,
    description: state.description,
    thumbnail: await thumbnail(state.source),
    file: state.source,
  };
  if (state.state !== "sending") return; // cancelled meanwhile
  const running = upload("/api/media", fields, (part) => progress(record, part));
  state.abort = running.abort;
  try {
    sent(await running.done);
  } catch (error) {
    if (error.reason !== "INTERRUPTED") failed(record, error);
  }
}

function progress(record, part) {
  if (!record.upload) return; // the answer was faster
  record.upload.part = part;
  const bar = record.node?.querySelector("progress");
  if (!bar) return;
  if (part < 1) bar.value = part;
  else bar.removeAttribute("value"); // the server passes it on
  record.node.querySelector(".state").textContent = part < 1 ? `${Math.floor(part * 100)} %` : t("finishing");
}

function cancel(record) {
  record.upload.state = "cancelled";
  const waiting = queue.findIndex(([, other]) => other === record);
  if (waiting >= 0) queue.splice(waiting, 1);
  if (record.upload.abort) {
    // The server may have all of it already. If it is too late there too, "Sent" brings the message.
    post("/api/cancel", { message_id: record.id }).catch(problem);
    record.upload.abort();
  }
  drop(record);
  notice(t("cancelled"));
  $("text").focus();
}

function drop(record) {
  for (const place of places.values()) place.records = place.records.filter((other) => other !== record);
  if (record.upload?.url) URL.revokeObjectURL(record.upload.url);
  if (record.node?.isConnected) showMessages();
}

function failed(record, error) {
  if (error.status === 401) return showWelcome();
  record.upload.state = "failed";
  record.upload.reason = error.reason;
  showAgain(record);
}

/** A message of ours is sent: from this page, or another one. */
function sent({ kind, id, message_id, message, sent_at, received }) {
  const place = placeOf(kind, id);
  const waiting = place.records.find((record) => record.id === message_id);
  if (waiting && !waiting.upload) return;
  if (waiting) {
    if (waiting.upload.url) URL.revokeObjectURL(waiting.upload.url);
    delete waiting.upload;
    place.seen.add(message_id);
    Object.assign(waiting, { message, at: sent_at, received });
    if (place === current) showAgain(waiting);
  } else {
    const record = { id: message_id, uid: me.uid, at: sent_at, message, received };
    if (take(place, record) && place === current) showNew(record);
  }
  if (place === current) {
    if (atEnd()) toEnd();
    markRead(place);
  }
  showPlaces();
}

function uploadParts(record) {
  const { name, url, source, state, part, reason, isText, description } = record.upload;
  const parts = [];
  if (isText) parts.push(words(name));
  else if (url) parts.push(el("div", { className: "photo" }, el("img", { src: url, alt: name, onload: ({ target }) => sized(target.parentNode, target.naturalWidth, target.naturalHeight) })));
  else parts.push(el("div", { className: "file" }, sheet(name), about(name, size(source.size))));
  if (description) parts.push(words(description));
  if (state === "failed") {
    parts.push(el("div", { className: "failed" },
      el("p", { role: "alert" }, `${t("failed")} ${complaint(reason)}`),
      el("button", { type: "button", onclick: record.upload.start }, t("again")),
      el("button", { type: "button", onclick: () => drop(record) }, t("discard"))));
  } else if (!isText) {
    const bar = el("progress", { max: 1, ariaLabel: t("uploading", name) });
    if (part < 1) bar.value = part;
    const says = state === "waiting" ? t("waiting") : part < 1 ? `${Math.floor(part * 100)} %` : t("finishing");
    parts.push(el("div", { className: "moving" }, bar, el("span", { className: "state" }, says),
      el("button", { type: "button", ariaLabel: t("cancelOf", name), onclick: () => cancel(record) }, t("cancel"))));
  }
  return parts;
}

// -- the tray: what the next message takes along --

function choose(files) {
  if (!current) return;
  for (const chosen of files) {
    if (chosen.size > me.media_bytes) notice(t("tooLarge", chosen.name));
    else if (chosen.size === 0) notice(t("empty", chosen.name));
    else current.tray.push({ file: chosen, url: chosen.type.startsWith("image/") ? URL.createObjectURL(chosen) : null });
  }
  showTray();
  $("text").focus();
}

function showTray() {
  $("tray").hidden = !current?.tray.length;
  $("tray").replaceChildren(...(current?.tray ?? []).map((item) => el("li", {},
    item.url ? el("img", { src: item.url, alt: "" }) : sheet(item.file.name),
    el("span", { className: "name" }, item.file.name),
    el("button", { type: "button", className: "icon", ariaLabel: t("remove", item.file.name), onclick: () => {
      current.tray = current.tray.filter((other) => other !== item);
      if (item.url) URL.revokeObjectURL(item.url);
      showTray();
      $("text").focus();
    } }, icon("close")))));
  grow();
}

function send() {
  const text = $("text").value.trim();
  const items = current.tray;
  if (!text && !items.length) return;
  current.tray = [];
  items.forEach((item, index) => sendFile(current, item, index === 0 ? text : ""));
  if (!items.length) sendText(current, text);
  $("text").value = "";
  showTray();
}

function grow() {
  const area = $("text");
  area.style.height = "auto";
  area.style.height = `${Math.min(area.scrollHeight, 160)}px`;
}

// -- events --

function arrived(kind, id, uid, data) {
  const place = placeOf(kind, id);
  const record = { uid, at: data.message_props.server_received_ts, message: data.message };
  if (!take(place, record)) return;
  if (place === current && document.visibilityState === "visible") markRead(place);
  else place.unread += 1;
  if (place === current) showNew(record);
  showPlaces();
}

function listen() {
  events?.close();
  let quiet = null;
  const source = (events = new EventSource(`/api/events?last_event_id=${encodeURIComponent(me.last_event_id)}`));
  const on = (name, handle) => source.addEventListener(name, (event) => source === events && handle(JSON.parse(event.data)));
  on("ready", ({ recovered }) => {
    clearTimeout(quiet);
    quiet = null;
    banner(null);
    if (!recovered) start().catch(problem);
  });
  source.onerror = () => {
    if (source !== events) return;
    if (source.readyState === EventSource.CLOSED) {
      setTimeout(() => source === events && start().catch(problem), 2000);
    }
    quiet ??= setTimeout(() => source === events && banner(t("reconnecting")), 2500);
  };
  on("MessageFromPeer", (data) => arrived("peer", data.peer_id, data.peer_id, data));
  on("ChannelMessage", (data) => arrived("channel", data.channel_id, data.member_id, data));
  on("Sent", sent);
  on("MemberJoined", ({ channel_id, member_id }) => {
    placeOf("channel", channel_id).members.add(member_id);
    showPlaces();
  });
  on("MemberLeft", ({ channel_id, member_id }) => {
    placeOf("channel", channel_id).members.delete(member_id);
    showPlaces();
  });
  on("PeersOnlineStatusChanged", (data) => {
    for (const [id, state] of Object.entries(data.states)) states.set(id, state);
    showPlaces();
  });
  on("ConnectionStateChanged", ({ new_state }) => {
    if (new_state !== "ABORTED") return;
    source.close();
    banner(t("elsewhere"), t("useHere"), () => start().catch(problem));
  });
}

function banner(text, action = null, run = null) {
  $("banner").hidden = !text;
  $("banner").replaceChildren(text ?? "", action ? el("button", { type: "button", onclick: run }, action) : "");
}

// -- signing in and out --

function showWelcome() {
  events?.close();
  events = me = current = null;
  places = new Map();
  states = new Map();
  $("app").hidden = true;
  $("welcome").hidden = false;
  document.title = t("title");
  $("name").focus();
}

/** Begin, or begin anew after something was missed. */
async function start() {
  const answer = await get("/api/me");
  if (!answer.uid) return showWelcome();
  me = answer;
  const moments = readMoments();
  lobby().members = new Set(me.online);
  for (const { kind, id, last } of me.conversations) {
    const place = placeOf(kind, id);
    if (place !== current && last > (moments[place.key] ?? 0)) place.unread = Math.max(1, place.unread);
  }
  for (const place of places.values()) {
    place.records = place.records.filter((record) => record.upload); // the rest comes from the history
    place.seen.clear();
    place.loaded = false;
  }
  $("self").replaceChildren(face(me.uid), el("span", { className: "name" }, nameOf(me.uid)));
  $("welcome").hidden = true;
  $("app").hidden = false;
  banner(null);
  listen();
  await goTo();
}

$("sign-in").addEventListener("submit", async (event) => {
  event.preventDefault();
  $("sign-in-error").textContent = "";
  try {
    await post("/api/sign-in", { uid: idOf($("name").value) });
    await start();
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    $("sign-in-error").textContent = complaint(error.reason);
    $("name").focus();
  }
});

$("sign-out").addEventListener("click", async () => {
  events.close();
  await post("/api/sign-out").catch(() => {});
  location.hash = "";
  showWelcome();
});

for (const button of document.querySelectorAll(".language")) {
  button.addEventListener("click", () => {
    toggleLanguage();
    translate();
    if (!me) return;
    showPlaces();
    showTray();
    if (current) showMessages();
  });
}

let opening = "channel";

function openDialog(kind) {
  opening = kind;
  $("opener-title").textContent = t(kind === "channel" ? "newChannel" : "newPerson");
  $("opener-label").textContent = t(kind === "channel" ? "channelName" : "personName");
  $("opener-name").value = "";
  $("opener-error").textContent = "";
  $("opener").showModal();
}

$("new-channel").addEventListener("click", () => openDialog("channel"));
$("new-person").addEventListener("click", () => openDialog("peer"));
$("opener").addEventListener("submit", async (event) => {
  event.preventDefault();
  const place = { kind: opening, id: idOf($("opener-name").value) };
  try {
    if (place.kind === "peer" && place.id === me.uid) throw new Refused(400, { reason: "INVALID_USERID" });
    await post("/api/open", place);
    $("opener").close();
    location.hash = hashOf(place);
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    $("opener-error").textContent = complaint(error.reason);
  }
});

// -- the composer --

$("composer").addEventListener("submit", (event) => {
  event.preventDefault();
  send();
});
$("text").addEventListener("input", grow);
$("text").addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return; // an input method's Enter is its own
  event.preventDefault();
  send();
});
$("text").addEventListener("paste", (event) => {
  if (event.clipboardData.files.length) {
    event.preventDefault();
    choose(event.clipboardData.files);
  }
});
$("file").addEventListener("change", () => {
  choose([...$("file").files]);
  $("file").value = "";
});

let inside = 0; // dragenter and dragleave come for every element on the way

$("room").addEventListener("dragenter", (event) => {
  if (!event.dataTransfer.types.includes("Files")) return;
  event.preventDefault();
  inside += 1;
  $("drop").classList.add("shown");
});
$("room").addEventListener("dragover", (event) => event.preventDefault());
$("room").addEventListener("dragleave", () => {
  inside = Math.max(0, inside - 1);
  if (!inside) $("drop").classList.remove("shown");
});
$("room").addEventListener("drop", (event) => {
  event.preventDefault();
  inside = 0;
  $("drop").classList.remove("shown");
  choose(event.dataTransfer.files);
});
for (const name of ["dragover", "drop"]) addEventListener(name, (event) => event.preventDefault()); // a file beside the room opens nothing

// -- the rest --

for (const button of document.querySelectorAll("[data-close]")) button.addEventListener("click", () => button.closest("dialog").close());
$("viewer").addEventListener("close", () => {
  viewed = null;
});
$("viewer").addEventListener("click", (event) => {
  if (event.target.matches(".stage, figure")) $("viewer").close();
});
$("viewer").addEventListener("keydown", (event) => {
  if (event.key === "ArrowLeft") turn(-1);
  if (event.key === "ArrowRight") turn(1);
});
$("viewer-before").addEventListener("click", () => turn(-1));
$("viewer-after").addEventListener("click", () => turn(1));
$("earlier").addEventListener("click", () => loadHistory(current).catch(problem));
$("show-members").addEventListener("click", () => {
  const shown = $("members").classList.toggle("shown");
  $("show-members").setAttribute("aria-expanded", String(shown));
});
addEventListener("hashchange", () => {
  $("members").classList.remove("shown");
  $("show-members").setAttribute("aria-expanded", "false");
  goTo();
});
document.addEventListener("visibilitychange", () => {
  if (document.visibilityState !== "visible" || !current) return;
  markRead(current);
  showPlaces();
});
translate();
start().catch((error) => {
  showWelcome();
  problem(error);
});
