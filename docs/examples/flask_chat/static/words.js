// What the page says, in each language, and how it writes times and sizes.

const WORDS = {
  en: {
    otherLanguage: "中文", title: "Photo chat", tagline: "Photos, files and words, as they happen.",
    yourName: "Your name", signIn: "Sign in", signOut: "Sign out",
    conversations: "Conversations", channels: "Channels", people: "People", lobby: "Everyone",
    newChannel: "New channel", newPerson: "Write to a person", channelName: "Name of the channel", personName: "Name of the person",
    open: "Open", cancel: "Cancel", close: "Close", back: "All conversations",
    nobody: "Nobody else is here yet. Open this page in another browser and sign in with another name.",
    members: "Who is here", hereNow: "Here now", you: "you", online: "online", offline: "offline", unread: "unread",
    memberCount: (n) => (n === 1 ? "Only you are here" : `${n} people here`),
    messages: "Messages", yourMessage: "Message", send: "Send", attach: "Add photos or files", tray: "To be sent", remove: (name) => `Remove ${name}`,
    dropHere: "Drop photos and files here", earlier: "Earlier messages",
    emptyChannel: "Nothing here yet. Say hello, or drop a photo.", emptyPeer: (name) => `This is between you and ${name}. Drop a photo to begin.`,
    photoBy: (name, who) => `Photo ${name} from ${who}`, photo: "photo", download: "Download", downloadOf: (name) => `Download ${name}`,
    before: "Photo before", after: "Next photo", keptUntil: (when) => `kept until ${when}`,
    expired: "No longer available: media are kept for seven days.", expiredShort: "Expired",
    waiting: "Waiting", uploading: (name) => `Sending ${name}`, finishing: "Almost there", cancelOf: (name) => `Cancel ${name}`,
    cancelled: "Cancelled; nothing was sent.", failed: "Not sent.", again: "Try again", discard: "Discard",
    received: "Received", kept: "Will be there when they come back", reconnecting: "The connection is lost; trying again …",
    elsewhere: "You are signed in somewhere else.", useHere: "Continue here",
    tooLarge: (name) => `${name} is larger than 30 MB.`, empty: (name) => `${name} is empty.`, today: "Today", yesterday: "Yesterday",
    says: { INVALID_ARGUMENT: "This name does not work; try a shorter or plainer one.", INVALID_USERID: "There can be no such name.", EXCEED_LIMIT: "You are in 20 channels already.", TOO_OFTEN: "Too fast; wait a moment.", SIZE_OVERFLOW: "Too large: at most 30 MB.", TIMEOUT: "The server took too long.", NETWORK: "The server cannot be reached.", FAILURE: "Something went wrong." },
  },
  zh: {
    otherLanguage: "English", title: "图聊", tagline: "照片、文件和文字，即时送达。",
    yourName: "你的名字", signIn: "进入", signOut: "退出",
    conversations: "会话", channels: "频道", people: "联系人", lobby: "大厅",
    newChannel: "新建频道", newPerson: "给某人发消息", channelName: "频道名称", personName: "对方的名字",
    open: "打开", cancel: "取消", close: "关闭", back: "全部会话",
    nobody: "还没有别人。用另一个浏览器打开此页，换个名字进入试试。",
    members: "成员", hereNow: "当前在线", you: "我", online: "在线", offline: "离线", unread: "未读",
    memberCount: (n) => (n === 1 ? "只有你在这里" : `${n} 人在线`),
    messages: "消息", yourMessage: "输入消息", send: "发送", attach: "添加照片或文件", tray: "待发送", remove: (name) => `移除 ${name}`,
    dropHere: "松手即可添加照片和文件", earlier: "更早的消息",
    emptyChannel: "还没有消息。打个招呼，或者拖一张照片进来。", emptyPeer: (name) => `这里只有你和 ${name}。发张照片开始吧。`,
    photoBy: (name, who) => `${who} 的照片 ${name}`, photo: "照片", download: "下载", downloadOf: (name) => `下载 ${name}`,
    before: "上一张", after: "下一张", keptUntil: (when) => `保存至 ${when}`,
    expired: "已过期：照片和文件保存七天。", expiredShort: "已过期",
    waiting: "等待中", uploading: (name) => `正在发送 ${name}`, finishing: "即将完成", cancelOf: (name) => `取消发送 ${name}`,
    cancelled: "已取消，没有发送。", failed: "发送失败。", again: "重试", discard: "放弃",
    received: "已送达", kept: "对方上线后送达", reconnecting: "连接已断开，正在重试……",
    elsewhere: "你已在别处登录。", useHere: "在此继续",
    tooLarge: (name) => `${name} 超过 30 MB。`, empty: (name) => `${name} 是空文件。`, today: "今天", yesterday: "昨天",
    says: { INVALID_ARGUMENT: "这个名字不能用，请换一个更短或更简单的。", INVALID_USERID: "没有这样的名字。", EXCEED_LIMIT: "你已加入 20 个频道。", TOO_OFTEN: "太快了，请稍候。", SIZE_OVERFLOW: "文件太大，最多 30 MB。", TIMEOUT: "服务器响应超时。", NETWORK: "无法连接服务器。", FAILURE: "出错了。" },
  },
};

const LOCALES = { en: "en-GB", zh: "zh-CN" };
let language = localStorage.getItem("language") ?? (navigator.language.startsWith("zh") ? "zh" : "en");

/** The words for a key; those with a blank take it as an argument. */
export const t = (key, ...args) => {
  const words = WORDS[language][key];
  return typeof words === "function" ? words(...args) : words;
};

/** What to say of an error of the server's. */
export const complaint = (reason) => t("says")[reason] ?? t("says").FAILURE;

export function toggleLanguage() {
  language = language === "en" ? "zh" : "en";
  localStorage.setItem("language", language);
}

/** Fill in all words of the page. */
export function translate() {
  document.documentElement.lang = LOCALES[language];
  for (const node of document.querySelectorAll("[data-t]")) node.textContent = t(node.dataset.t);
  for (const node of document.querySelectorAll("[data-placeholder]")) node.placeholder = t(node.dataset.placeholder);
  for (const node of document.querySelectorAll("[data-label]")) {
    const label = t(node.dataset.label);
    node.setAttribute("aria-label", label);
    if (node.matches(".icon")) node.title = label;
  }
}

const format = (moment, options) => new Intl.DateTimeFormat(LOCALES[language], options).format(moment);

export const clock = (moment) => format(moment, { hour: "2-digit", minute: "2-digit", hour12: false });

export const dateAndTime = (moment) => format(moment, { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit", hour12: false });

export function day(moment) {
  const days = Math.round((new Date().setHours(0, 0, 0, 0) - new Date(moment).setHours(0, 0, 0, 0)) / 86_400_000);
  if (days === 0) return t("today");
  if (days === 1) return t("yesterday");
  return format(moment, { weekday: "long", day: "numeric", month: "long" });
}

export function size(bytes) {
  const units = ["B", "kB", "MB"];
  const power = bytes < 1000 ? 0 : bytes < 1_000_000 ? 1 : 2;
  const number = new Intl.NumberFormat(LOCALES[language], { maximumFractionDigits: power }).format(bytes / 1000 ** power);
  return `${number} ${units[power]}`;
}
