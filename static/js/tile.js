// One picture with its name.

/** A picture that would lose more than this factor of its area by filling the tile is shown whole instead. */
const MAX_CROP = 1.6;

/** A picture with its name. It never shows markup that came from the network: names are set as text. */
export class Tile {
  #reasons = new Set();
  #hasVideo = false;
  #stalled = false;

  constructor(root, { videoChanged = () => {} } = {}) {
    this.root = root;
    this.video = root.querySelector('video');
    this.video.addEventListener('resize', () => {
      this.#showPicture();
      videoChanged();
    });
    this.video.addEventListener('emptied', () => this.#showPicture());
    this.#showPicture();
  }

  static remote(template, onPin, options) {
    const root = template.cloneNode(true);
    root.querySelector('.pin').addEventListener('click', onPin);
    return new Tile(root, options);
  }

  setPerson(id, name, suffix = '') {
    const shown = name || 'Guest';
    this.root.querySelector('.tile-name').textContent = shown + suffix;
    this.root.querySelector('.avatar').textContent = initials(shown);
    this.root.style.setProperty('--hue', hue(id ?? shown));
    this.root.querySelector('.pin')?.setAttribute('aria-label', `Show ${shown} large`);
    this.video.setAttribute('aria-label', shown + suffix);
  }

  /** Sets the stream and plays it; resolves to false when the browser wants a tap first. */
  async setStream(stream) {
    this.#hasVideo = Boolean(stream?.getVideoTracks().length);
    if (this.video.srcObject !== stream) this.video.srcObject = stream;
    this.#showPicture();
    return stream ? play(this.video) : true;
  }

  /** No new pictures arrive: the name card is shown until there are some again. */
  setStalled(stalled) {
    this.#stalled = stalled;
    this.#showPicture();
  }

  /** Several sources may say that somebody speaks; the border is shown while any of them does. */
  setSpeaking(source, speaking) {
    if (speaking) this.#reasons.add(source);
    else this.#reasons.delete(source);
    this.root.classList.toggle('speaking', this.#reasons.size > 0);
  }

  setMuted(muted) {
    this.root.classList.toggle('muted', muted);
  }

  setCaption(text) {
    let caption = this.root.querySelector('.caption');
    if (!caption && text) {
      caption = document.createElement('div');
      caption.className = 'caption';
      this.root.append(caption);
    }
    if (caption) caption.textContent = text;
  }

  place(rect, { fit } = {}) {
    const { style } = this.root;
    style.left = `${rect.x}px`;
    style.top = `${rect.y}px`;
    style.width = `${rect.width}px`;
    style.height = `${rect.height}px`;
    this.root.classList.toggle('small', rect.width < 200);
    const { videoWidth, videoHeight } = this.video;
    const crop = videoHeight ? (videoWidth / videoHeight) / (rect.width / rect.height) : 1;
    this.root.classList.toggle('whole', fit === 'whole' || Math.max(crop, 1 / crop) > MAX_CROP);
  }

  #showPicture() {
    const visible = this.#hasVideo && this.video.videoWidth > 0 && !this.#stalled;
    this.root.classList.toggle('has-picture', visible);
  }
}

/** Plays a media element. False: the browser wants a gesture of the user first. */
export async function play(video) {
  try {
    await video.play();
    return true;
  } catch (error) {
    return error.name !== 'NotAllowedError';
  }
}

/** What remote tiles are cloned from. */
export function remoteTemplate() {
  const self = document.getElementById('self-tile');
  const root = document.createElement('div');
  root.className = 'tile';
  const avatar = document.createElement('div');
  avatar.className = 'avatar';
  avatar.setAttribute('aria-hidden', 'true');
  const video = document.createElement('video');
  video.playsInline = true;
  video.autoplay = true;
  const pin = document.createElement('button');
  pin.type = 'button';
  pin.className = 'pin ghost small';
  pin.append(icon('i-pin'));
  root.append(avatar, video, self.querySelector('.tag').cloneNode(true), pin);
  return root;
}

/** An icon of the page's sprite. */
function icon(id) {
  const svg = document.createElementNS('http://www.w3.org/2000/svg', 'svg');
  const use = document.createElementNS('http://www.w3.org/2000/svg', 'use');
  svg.setAttribute('aria-hidden', 'true');
  use.setAttribute('href', `#${id}`);
  svg.append(use);
  return svg;
}

function initials(name) {
  const words = name.trim().split(/\s+/).filter(Boolean);
  const letters = words.length > 1 ? [words[0], words.at(-1)] : words;
  return letters.map((word) => [...word][0].toUpperCase()).join('') || '?';
}

/** A colour that stays with a person: a small string hash onto the colour circle, degrees. */
function hue(text) {
  let hash = 7;
  for (const char of text) hash = (hash * 31 + char.codePointAt(0)) % 360;
  return String(hash);
}
