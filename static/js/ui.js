// Small pieces of the surface: messages, theme, buttons, stored preferences.

const TOAST_TIME = 4000;

export const $ = (id) => document.getElementById(id);

/** Shows a sentence until it is closed. `kind`: "error" or "info". */
export function showMessage(text, kind = 'error') {
  $('message-text').textContent = text;
  $('message').dataset.kind = kind;
  $('message').hidden = false;
}

export function hideMessage() {
  $('message').hidden = true;
  $('message-text').textContent = '';
}

let toastTimer = 0;

/** A passing remark. */
export function showToast(text) {
  clearTimeout(toastTimer);
  $('toast').textContent = text;
  $('toast').hidden = false;
  toastTimer = setTimeout(() => { $('toast').hidden = true; }, TOAST_TIME);
}

/** A line across the call, for as long as its reason lasts; null takes it away. */
export function setBanner(text) {
  $('banner').textContent = text ?? '';
  $('banner').hidden = text === null;
}

export function setView(view) {
  document.body.dataset.view = view;
  $('lobby').hidden = view !== 'lobby';
  $('call').hidden = view !== 'call';
}

/** A two-state button: its label, icon and pressed state. */
export function setButton(id, { pressed, label, icon, title, disabled = false }) {
  const button = $(id);
  button.setAttribute('aria-pressed', String(pressed));
  button.disabled = disabled;
  if (label) button.querySelector('span').textContent = label;
  if (icon) button.querySelector('use').setAttribute('href', `#${icon}`);
  if (title) button.title = title;
}

/** Reads a preference; browsers that keep nothing (private windows) simply have none. */
export function recall(key) {
  try {
    return localStorage.getItem(`talksy.${key}`);
  } catch {
    return null;
  }
}

export function remember(key, value) {
  try {
    localStorage.setItem(`talksy.${key}`, value);
  } catch {
    // Nothing is kept then.
  }
}

/** The system's theme unless the user chose one. */
export function startTheme() {
  const chosen = recall('theme');
  if (chosen === 'dark' || chosen === 'light') document.documentElement.dataset.theme = chosen;
  $('theme').addEventListener('click', () => {
    const dark = document.documentElement.dataset.theme
      ? document.documentElement.dataset.theme === 'dark'
      : matchMedia('(prefers-color-scheme: dark)').matches;
    document.documentElement.dataset.theme = dark ? 'light' : 'dark';
    remember('theme', document.documentElement.dataset.theme);
  });
}

/** Puts text on the clipboard; false where the page may not. */
export async function copyText(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const area = document.createElement('textarea');
    area.value = text;
    area.className = 'offscreen';
    document.body.append(area);
    area.select();
    const copied = document.execCommand('copy');
    area.remove();
    return copied;
  }
}
