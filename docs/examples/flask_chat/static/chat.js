// The page of the photo chat. What others send is only ever put in as text.
import { TEXTS } from "./texts.js";

const LIMIT = 30 * 1024 * 1024;
const $ = (id) => document.getElementById(id);
const state = {
  name: document.documentElement.dataset.name,
  language: localStorage.getItem("language") ?? (navigator.language.startsWith("zh") ? "zh" : "en"),
  channels: ["lobby", "photos"],
  people: [],
  talk: null, // {kind, name}
  seen: new Set(), // keys of the messages shown
  unread: new Map(), // "kind/name" → count
  events: null,
};

// -- words --

const say = (key, ...parts) => parts.reduce((text, part) => text.replace("{}", part), TEXTS[state.language][key]);

function speak() {
  document.documentElement.lang = state.language === "zh" ? "zh-CN" : "en";
  document.title = say("title");
  for (const node of document.querySelectorAll("[data-text]")) node.textContent = say(node.dataset.text);
  for (const node of document.querySelectorAll("[data-hint]")) node.placeholder = say(node.dataset.hint);
  for (const node of document.querySelectorAll("[data-label]")) {
    node.setAttribute("aria-label", say(node.dataset.label));
    if (node.localName === "button") node.title = say(node.dataset.label);
  }
  for (const node of document.querySelectorAll(".language")) {
    node.textContent = state.language === "zh" ? "English" : "中文";
    node.lang = state.language === "zh" ? "en" : "zh-CN";
  }
}

function switchLanguage() {
  state.language = state.language === "zh" ? "en" : "zh";
  localStorage.setItem("language", state.language);
  speak();
  if (state.name) {
    listTalks();
    if (state.talk) openTalk(state.talk.kind, state.talk.name, { quietly: true });
  }
}

// -- the server --

async function ask(method, path, body) {
  const response = await fetch(path, {
    method,
    headers: { "X-Chat": "1", ...(body && { "Content-Type": "application/json" }) },
    body: body && JSON.stringify(body),
  });
  if (response.status === 204) return null;
  const answer = await response.json();
  if (!response.ok) throw new Error(answer.error ?? response.statusText);
  return answer;
}

const place = (kind, name) => `talks/${kind}/${encodeURIComponent(name)}`;
const complain = (error) => { $("problem").textContent = error ? say("failed", error.message ?? error) : ""; };

// -- signing in --

async function signIn(event) {
  event.preventDefault();
  const problem = $("sign-in").querySelector(".problem");
  problem.textContent = "";
  try {
    state.name = (await ask("POST", "session", { name: $("name").value })).name;
    await begin();
  } catch (error) {
    problem.textContent = error.message;
  }
}

async function begin() {
  $("sign-in").hidden = true;
  $("chat").hidden = false;
  $("me").textContent = state.name;
  listTalks();
  await showPeople();
  await openTalk("channel", state.channels[0], { quietly: true });
}

async function signOut() {
  state.events?.close();
  await ask("DELETE", "session");
  location.reload();
}

// -- channels and people --

function item(kind, name, online) {
  const entry = document.createElement("li");
  const button = document.createElement("button");
  const face = document.createElement("span");
  face.className = kind === "channel" ? "face square" : `face${online ? " online" : ""}`;
  face.textContent = kind === "channel" ? "#" : name[0].toUpperCase();
  face.ariaHidden = "true";
  const label = document.createElement("span");
  label.className = "label";
  label.textContent = name;
  button.append(face, label);
  const unread = state.unread.get(`${kind}/${name}`);
  if (unread) {
    const count = document.createElement("span");
    count.className = "count";
    count.textContent = unread;
    button.append(count);
  }
  const spoken = [name, kind === "peer" && say(online ? "online" : "offline"), unread && say("unread", unread)];
  button.ariaLabel = spoken.filter(Boolean).join(", ");
  button.ariaCurrent = String(state.talk?.kind === kind && state.talk?.name === name);
  button.addEventListener("click", () => openTalk(kind, name));
  entry.append(button);
  return entry;
}

function listTalks() {
  $("channels").replaceChildren(...state.channels.map((name) => item("channel", name)));
  const known = [...state.people].sort((one, other) => other.online - one.online || one.name.localeCompare(other.name));
  $("people").replaceChildren(...known.map(({ name, online }) => item("peer", name, online)));
  $("nobody").hidden = known.length > 0;
}

async function showPeople() {
  try {
    state.people = (await ask("GET", "people")).people;
    listTalks();
    note();
  } catch { /* the next look will tell */ }
}

function newChannel(event) {
  event.preventDefault();
  const name = $("channel-name").value.trim().replace(/^#/, "");
  if (!name) return;
  $("channel-name").value = "";
  if (!state.channels.includes(name)) state.channels.push(name);
  openTalk("channel", name);
}

// -- a conversation --

async function openTalk(kind, name, { quietly = false } = {}) {
  state.talk = { kind, name };
  state.unread.delete(`${kind}/${name}`);
  state.seen.clear();
  if (!quietly) $("chat").classList.add("talking");
  $("talk-name").textContent = (kind === "channel" ? "# " : "") + name;
  $("messages").replaceChildren();
  complain();
  listTalks();
  try {
    const told = await ask("GET", place(kind, name));
    if (state.talk.kind !== kind || state.talk.name !== name) return; // another was opened meanwhile
    state.talk.members = told.members;
    note();
    told.messages.forEach(show);
    if (!told.messages.length) {
      const empty = document.createElement("div");
      empty.className = "empty";
      empty.textContent = say("empty");
      $("messages").append(empty);
    }
    toEnd();
    if (!state.events) listen(told.last_event_id);
    if (!quietly && matchMedia("(hover: hover)").matches) $("text").focus();
  } catch (error) {
    complain(error);
    if (kind === "channel" && !["lobby", "photos"].includes(name)) {
      state.channels = state.channels.filter((one) => one !== name);
      listTalks();
    }
  }
}

function note() {
  if (!state.talk) return;
  const { kind, name, members } = state.talk;
  const there = state.people.find((one) => one.name === name)?.online;
  $("talk-note").textContent = kind === "channel" ? say("members", members?.length ?? 1) : say(there ? "online" : "offline");
}

const toEnd = () => { $("messages").scrollTop = $("messages").scrollHeight; };

function show(told) {
  // What is in the history may also come as an event.
  const key = told.source === state.name ? told.message_id : `${told.source} ${told.message_props.server_received_ts}`;
  if (state.seen.has(key)) return;
  state.seen.add(key);
  $("messages").querySelector(".empty")?.remove();
  const entry = document.createElement("div");
  entry.className = `message${told.source === state.name ? " mine" : ""}`;
  const who = document.createElement("div");
  who.className = "who";
  who.textContent = told.source;
  const when = document.createElement("time");
  const moment = new Date(told.message_props.server_received_ts);
  when.dateTime = moment.toISOString();
  when.textContent = moment.toLocaleTimeString(document.documentElement.lang, { hour: "2-digit", minute: "2-digit" });
  entry.append(who, ...content(told.message, entry), when);
  const { scrollHeight, scrollTop, clientHeight } = $("messages");
  const atEnd = scrollHeight - scrollTop - clientHeight < 120;
  $("messages").append(entry);
  if (atEnd || told.source === state.name) toEnd();
}

function content(message, entry) {
  const parts = [];
  if (message.type === "TEXT") parts.push(paragraph(message.text));
  else if (message.type === "IMAGE" || message.type === "FILE") {
    const expired = message.expires_at * 1000 < Date.now();
    entry.classList.toggle("expired", expired);
    parts.push(message.type === "IMAGE" ? picture(message, expired, entry) : file(message, expired));
    if (expired) parts.push(hint(say("expired")));
    if (message.description) parts.push(paragraph(message.description));
  }
  return parts;
}

function paragraph(text) {
  const made = document.createElement("p");
  made.textContent = text;
  return made;
}

function hint(text) {
  const made = paragraph(text);
  made.className = "hint";
  return made;
}

const source = (message) => `media/${message.media_id}`;

function picture(message, expired, entry) {
  const button = document.createElement("button");
  button.className = "thumb";
  button.type = "button";
  button.setAttribute("aria-label", say("open", message.file_name));
  button.disabled = expired;
  const image = document.createElement("img");
  image.alt = say("photo_from", message.file_name);
  image.src = message.thumbnail ? `data:image/jpeg;base64,${message.thumbnail}` : source(message);
  const width = message.thumbnail_width || message.width;
  const height = message.thumbnail_height || message.height;
  if (width && height) Object.assign(image, { width: Math.min(width, 420), height: Math.round(height * Math.min(1, 420 / width)) });
  button.append(image);
  button.addEventListener("click", () => enlarge(message, entry));
  return button;
}

function enlarge(message, entry) {
  const image = $("picture-image");
  $("picture-name").textContent = `${message.file_name}, ${bytes(message.size)}`;
  $("picture-save").href = `${source(message)}?save=1`;
  image.alt = say("photo_from", message.file_name);
  image.onerror = () => {
    $("picture").close();
    markExpired(entry);
  };
  image.src = source(message);
  $("picture").showModal();
}

function markExpired(entry) {
  if (entry.classList.contains("expired")) return;
  entry.classList.add("expired");
  entry.querySelector(".thumb, .card")?.setAttribute("disabled", "");
  entry.querySelector("time").before(hint(say("expired")));
}

function file(message, expired) {
  const card = document.createElement(expired ? "div" : "a");
  card.className = "card";
  if (!expired) {
    card.href = `${source(message)}?save=1`;
    card.download = message.file_name;
  }
  const sheet = document.createElement("span");
  sheet.className = "sheet";
  sheet.ariaHidden = "true";
  sheet.textContent = (message.file_name.split(".").pop() || "").slice(0, 4).toUpperCase();
  if (message.thumbnail) {
    const image = document.createElement("img");
    image.src = `data:image/jpeg;base64,${message.thumbnail}`;
    image.alt = "";
    image.width = 42;
    sheet.replaceChildren(image);
  }
  const words = document.createElement("span");
  const name = document.createElement("b");
  name.textContent = message.file_name;
  const size = document.createElement("span");
  size.className = "hint";
  size.textContent = `${bytes(message.size)}${expired ? "" : `, ${say("download")}`}`;
  words.append(name, size);
  card.append(sheet, words);
  return card;
}

const bytes = (size) => size < 1e6 ? `${Math.max(1, Math.round(size / 1e3))} KB` : `${(size / 1e6).toFixed(1)} MB`;

// -- sending --

async function sendText(event) {
  event.preventDefault();
  const text = $("text").value.trim();
  if (!text || !state.talk) return;
  const { kind, name } = state.talk;
  $("text").value = "";
  grow();
  complain();
  try {
    arrive(await ask("POST", `${place(kind, name)}/text`, { text }));
  } catch (error) {
    $("text").value = text;
    complain(error);
  }
}

function sendFiles(files) {
  complain();
  for (const one of files) {
    if (one.size > LIMIT) $("problem").textContent = say("too_large", one.name);
    else sendFile(one);
  }
}

function sendFile(one) {
  const { kind, name } = state.talk;
  const row = document.createElement("li");
  const label = document.createElement("span");
  const bar = document.createElement("progress");
  const cancel = document.createElement("button");
  label.textContent = `${one.name}, ${bytes(one.size)}`;
  bar.max = 1;
  bar.value = 0;
  bar.setAttribute("aria-label", one.name);
  cancel.type = "button";
  cancel.textContent = say("cancel");
  cancel.setAttribute("aria-label", `${say("cancel")}: ${one.name}`);
  row.append(label, bar, cancel);
  $("uploads").append(row);

  const request = new XMLHttpRequest(); // fetch tells no progress of uploads
  const end = (problem) => {
    row.remove();
    if (problem) complain(problem);
  };
  request.open("POST", `${place(kind, name)}/files`);
  request.setRequestHeader("X-Chat", "1");
  request.responseType = "json";
  request.upload.addEventListener("progress", (event) => { bar.value = event.loaded / event.total; });
  request.addEventListener("load", () => {
    if (request.status === 200) arrive(request.response);
    end(request.status === 200 ? null : new Error(request.response?.error ?? request.statusText));
  });
  request.addEventListener("error", () => end(new Error(one.name)));
  request.addEventListener("abort", () => {
    end();
    $("problem").textContent = say("cancelled", one.name);
  });
  cancel.addEventListener("click", () => request.abort());
  const form = new FormData();
  form.append("file", one);
  request.send(form);
}

// -- what arrives --

function arrive(told) {
  const kind = told.is_channel ? "channel" : "peer";
  const name = kind === "peer" && told.source !== state.name ? told.source : told.destination;
  if (kind === "channel" && !state.channels.includes(name)) state.channels.push(name);
  if (state.talk?.kind === kind && state.talk.name === name) show(told);
  else if (told.source !== state.name) {
    state.unread.set(`${kind}/${name}`, (state.unread.get(`${kind}/${name}`) ?? 0) + 1);
    if (kind === "peer" && !state.people.some((one) => one.name === name)) showPeople();
    listTalks();
  }
}

function listen(lastEventId) {
  const events = state.events = new EventSource(`events?last_event_id=${encodeURIComponent(lastEventId)}`);
  const on = (name, handle) => events.addEventListener(name, (event) => handle(JSON.parse(event.data)));
  on("ready", ({ recovered }) => {
    $("connection").textContent = "";
    if (!recovered) {
      $("connection").textContent = say("lost");
      openTalk(state.talk.kind, state.talk.name, { quietly: true });
    }
  });
  on("Sent", arrive);
  on("MessageFromPeer", ({ message, peer_id, message_props }) =>
    arrive({ message, source: peer_id, destination: state.name, is_channel: false, message_props }));
  on("ChannelMessage", ({ message, member_id, channel_id, message_props }) =>
    arrive({ message, source: member_id, destination: channel_id, is_channel: true, message_props }));
  const moved = ({ channel_id, member_id }, there) => {
    showPeople();
    const { talk } = state;
    if (talk?.kind !== "channel" || talk.name !== channel_id || !talk.members) return;
    talk.members = talk.members.filter((one) => one !== member_id).concat(there ? [member_id] : []);
    note();
  };
  on("MemberJoined", (told) => moved(told, true));
  on("MemberLeft", (told) => moved(told, false));
  events.addEventListener("error", () => { $("connection").textContent = say("connecting"); });
}

// -- hands --

function grow() {
  $("text").style.height = "auto";
  $("text").style.height = `${Math.min($("text").scrollHeight + 2, 144)}px`;
}

$("sign-in").querySelector("form").addEventListener("submit", signIn);
$("sign-out").addEventListener("click", signOut);
$("new-channel").addEventListener("submit", newChannel);
$("composer").addEventListener("submit", sendText);
$("text").addEventListener("input", grow);
$("text").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) sendText(event);
});
$("text").addEventListener("paste", (event) => {
  if (event.clipboardData.files.length) {
    event.preventDefault();
    sendFiles(event.clipboardData.files);
  }
});
$("attach").addEventListener("click", () => $("file").click());
$("file").addEventListener("change", () => {
  sendFiles($("file").files);
  $("file").value = "";
});
$("back").addEventListener("click", () => $("chat").classList.remove("talking"));
$("picture-close").addEventListener("click", () => $("picture").close());
$("picture").addEventListener("click", (event) => { if (event.target === $("picture")) $("picture").close(); });
$("picture").addEventListener("close", () => {
  $("picture-image").onerror = null;
  $("picture-image").removeAttribute("src");
});
for (const node of document.querySelectorAll(".language")) node.addEventListener("click", switchLanguage);

const section = document.querySelector("section");
for (const name of ["dragenter", "dragover"]) {
  section.addEventListener(name, (event) => {
    if (!event.dataTransfer.types.includes("Files")) return;
    event.preventDefault();
    section.classList.add("dragging");
  });
}
for (const name of ["dragleave", "drop"]) {
  section.addEventListener(name, (event) => {
    if (name === "dragleave" && section.contains(event.relatedTarget)) return;
    section.classList.remove("dragging");
  });
}
section.addEventListener("drop", (event) => {
  event.preventDefault();
  if (state.talk) sendFiles(event.dataTransfer.files);
});

speak();
if (state.name) {
  begin().catch(() => { // the session is another process's
    state.name = "";
    $("chat").hidden = true;
    $("sign-in").hidden = false;
  });
} else $("sign-in").hidden = false;
setInterval(() => { if (state.name && !document.hidden) showPeople(); }, 15000);
