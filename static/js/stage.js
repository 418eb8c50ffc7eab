// The stage: one tile per picture, placed by `layout.js`, and the mixed picture with its overlay.

import { contain, grid, spotlight } from './layout.js';
import { play, remoteTemplate, Tile } from './tile.js';

/** Distance between tiles, CSS pixels. */
const GAP = 8;
/** The track id by which the server knows the mixed picture. */
const MIXED_PICTURE = 'mixed-video';
/** The server draws names into the mixed picture, except on tiles lower than this (canvas pixels). */
const LOWEST_NAMED_TILE = 48;

/** All tiles and where they are. */
export class Stage {
  #root = document.getElementById('stage');
  #container = document.getElementById('remotes');
  #mix = document.getElementById('mix');
  #mixed = document.getElementById('mixed');
  #overlay = document.getElementById('mix-overlay');
  #template = remoteTemplate();
  #tiles = new Map();
  #layout = null;
  #pinned = null;
  #mode = 'sfu';
  #selfId = null;
  #peers = new Map();
  #speaker = null;
  #onBlocked;
  #onSize;
  #reportedMix = '';

  /** `onBlocked()`: a sound may not play before a tap. `onSize(trackId, width, height)`: a picture's size changed. */
  constructor({ onBlocked, onSize }) {
    this.#onBlocked = onBlocked;
    this.#onSize = onSize;
    this.self = new Tile(document.getElementById('self-tile'), { videoChanged: () => this.arrange() });
    this.self.root.classList.add('mirrored');
    new ResizeObserver(() => this.arrange()).observe(this.#root);
    this.#mixed.addEventListener('resize', () => this.arrange());
    document.addEventListener('visibilitychange', () => this.reportSizes());
  }

  /** `{remote, tile}` of everybody shown. */
  get entries() {
    return [...this.#tiles.values()];
  }

  setSelf(clientId) {
    this.#selfId = clientId;
  }

  setMode(mode) {
    this.#mode = mode;
    if (mode !== 'mcu') this.#layout = null;
    this.#mix.hidden = mode !== 'mcu';
    this.#reportedMix = '';
    this.arrange();
  }

  /** The mixed picture and sound, or the sound alone: its element plays also while it is not shown. */
  setMixed(stream) {
    const source = stream?.getTracks().length > 0 ? stream : null;
    if (this.#mixed.srcObject !== source) this.#mixed.srcObject = source;
    if (!source) return;
    play(this.#mixed).then((allowed) => allowed || this.#onBlocked());
    this.arrange();
  }

  setLayout(layout) {
    this.#layout = layout?.canvas?.width > 0 && layout.canvas.height > 0 && Array.isArray(layout.tiles) ? layout : null;
    this.arrange();
  }

  setRemote(remote) {
    let entry = this.#tiles.get(remote.key);
    if (!entry) {
      const tile = Tile.remote(this.#template, () => this.#togglePin(remote.key), {
        videoChanged: () => this.arrange(),
      });
      tile.root.dataset.clientId = remote.clientId;
      tile.root.dataset.source = remote.source;
      entry = { remote, tile, reported: '' };
      this.#tiles.set(remote.key, entry);
      this.#container.append(tile.root);
    }
    entry.tile.setPerson(remote.clientId, remote.name, remote.source === 'screen' ? ' · screen' : '');
    entry.tile.setStream(remote.stream).then((allowed) => allowed || this.#onBlocked());
    this.setPeers([...this.#peers.values()]);
    this.arrange();
  }

  removeRemote(remote) {
    const entry = this.#tiles.get(remote.key);
    if (!entry) return;
    entry.tile.video.srcObject = null;
    entry.tile.root.remove();
    this.#tiles.delete(remote.key);
    if (this.#pinned === remote.key) this.#pinned = null;
    this.arrange();
  }

  clear() {
    for (const { remote } of this.entries) this.removeRemote(remote);
    this.setMode('sfu');
    this.setMixed(null);
    this.#peers.clear();
    this.#speaker = null;
    this.#markSpeaker();
  }

  /** Names, speaking and muted as the server tells them. */
  setPeers(peers) {
    this.#peers = new Map(peers.map((peer) => [peer.client_id, peer]));
    for (const { remote, tile } of this.entries) {
      const peer = this.#peers.get(remote.clientId);
      if (!peer || remote.source === 'screen') continue;
      tile.setPerson(remote.clientId, peer.name);
      tile.setSpeaking('server', peer.speaking === true);
      tile.setMuted(peer.muted === true);
    }
    const own = this.#peers.get(this.#selfId);
    if (own) this.self.setSpeaking('server', own.speaking === true);
    this.#markSpeaker();
    if (this.#mode === 'mcu') this.#arrangeMix();
  }

  /** Whom the server calls the active speaker; stays until another speaks. */
  setSpeaker(clientId) {
    this.#speaker = clientId ?? null;
    this.#markSpeaker();
    if (this.#mode === 'mcu') this.#arrangeMix();
  }

  #markSpeaker() {
    for (const { remote, tile } of this.entries) {
      tile.root.classList.toggle('active-speaker', remote.source !== 'screen' && remote.clientId === this.#speaker);
    }
    this.self.root.classList.toggle('active-speaker', this.#selfId !== null && this.#selfId === this.#speaker);
  }

  /** Places everything anew. Cheap enough to be called on every change. */
  arrange() {
    const { clientWidth: width, clientHeight: height } = this.#root;
    if (width === 0 || height === 0) return;
    if (this.#mode === 'mcu') {
      this.#arrangeMix();
      return;
    }
    this.self.root.classList.remove('over-mix', 'corner');
    const entries = this.entries;
    const screens = entries.filter(({ remote }) => remote.source === 'screen');
    const large = this.#tiles.get(this.#pinned) ?? screens[0];
    const rest = entries.filter((entry) => entry !== large);
    const selfTiles = this.self.root.hidden ? [] : [{ tile: this.self }];
    const order = large ? [large, ...selfTiles, ...rest] : [...selfTiles, ...rest];
    const rects = (large ? spotlight : grid)(order.length, width, height, GAP);
    order.forEach(({ tile, remote }, index) => {
      tile.place(rects[index], { fit: remote?.source === 'screen' ? 'whole' : 'fill' });
      tile.root.classList.toggle('large', order[index] === large);
    });
    this.reportSizes();
  }

  /** Tells the server how large each picture is shown; 0x0 while the page is hidden. */
  reportSizes({ again = false } = {}) {
    const scale = window.devicePixelRatio || 1;
    if (this.#mode === 'mcu') {
      this.#reportMix(scale, again);
      return;
    }
    for (const entry of this.entries) {
      const { video } = entry.remote;
      if (!video) continue;
      const shown = document.visibilityState === 'visible';
      const width = shown ? Math.round(entry.tile.root.clientWidth * scale) : 0;
      const height = shown ? Math.round(entry.tile.root.clientHeight * scale) : 0;
      const report = `${video.id} ${width} ${height}`;
      if (report === entry.reported && !again) continue;
      if (this.#onSize(video.id, width, height)) entry.reported = report;
    }
  }

  /** The whole stage: the server fits its canvas into it, and turns it where that is tall. */
  #reportMix(scale, again) {
    const shown = document.visibilityState === 'visible';
    const width = shown ? Math.round(this.#root.clientWidth * scale) : 0;
    const height = shown ? Math.round(this.#root.clientHeight * scale) : 0;
    const report = `${width} ${height}`;
    if (report === this.#reportedMix && !again) return;
    if (this.#onSize(MIXED_PICTURE, width, height)) this.#reportedMix = report;
  }

  /** Plays everything; called from a tap. */
  async playAll() {
    const videos = [this.#mixed, ...this.entries.map(({ tile }) => tile.video)].filter((video) => video.srcObject);
    const allowed = await Promise.all(videos.map(play));
    return allowed.every(Boolean);
  }

  #togglePin(key) {
    this.#pinned = this.#pinned === key ? null : key;
    this.arrange();
  }

  #arrangeMix() {
    const { clientWidth: width, clientHeight: height } = this.#root;
    const { videoWidth, videoHeight } = this.#mixed;
    this.#mix.classList.toggle('playing', videoWidth > 0);
    const canvas = this.#layout?.canvas ?? { width: videoWidth || 16, height: videoHeight || 9 };
    const area = contain(canvas.width / canvas.height, width, height);
    for (const element of [this.#overlay, this.#mixed]) {
      element.style.left = `${area.x}px`;
      element.style.top = `${area.y}px`;
      element.style.width = `${area.width}px`;
      element.style.height = `${area.height}px`;
    }
    const scale = area.width / canvas.width;
    const tiles = videoWidth > 0 ? this.#layout?.tiles ?? [] : [];
    this.#overlay.replaceChildren(...tiles.map((tile) => this.#mixLabel(tile, scale)));
    const own = tiles.find((tile) => tile.client_id === this.#selfId);
    this.#placeSelfOverMix(own, area, scale, { width, height });
    this.reportSizes();
  }

  /** The own tile covers its place in the mix: the own picture without the way there and back. */
  #placeSelfOverMix(own, area, scale, stage) {
    this.self.root.classList.toggle('over-mix', Boolean(own));
    this.self.root.classList.toggle('corner', !own);
    this.self.root.classList.remove('large');
    if (own) {
      this.self.place({
        x: area.x + own.x * scale, y: area.y + own.y * scale, width: own.width * scale, height: own.height * scale,
      });
    } else {
      const width = Math.min(220, stage.width * 0.3);
      const rect = { width, height: width * 0.625 };
      this.self.place({ x: stage.width - width - 12, y: stage.height - rect.height - 12, ...rect });
    }
  }

  #mixLabel(tile, scale) {
    const peer = this.#peers.get(tile.client_id);
    const label = this.#template.cloneNode(true);
    for (const part of ['video', '.pin', '.avatar']) label.querySelector(part).remove();
    label.className = 'mix-tile';
    label.dataset.clientId = tile.client_id;
    label.classList.toggle('speaking', peer?.speaking === true);
    label.classList.toggle('active-speaker', tile.client_id === this.#speaker);
    label.classList.toggle('small', tile.width * scale < 200);
    const own = tile.client_id === this.#selfId;
    label.classList.toggle('muted', own ? this.self.root.classList.contains('muted') : peer?.muted === true);
    label.classList.toggle('own', own);
    label.classList.toggle('nameless', tile.height < LOWEST_NAMED_TILE);
    label.querySelector('.tile-name').textContent = own ? 'You' : peer?.name ?? '';
    label.querySelector('.tag').hidden = !own && !peer;
    label.style.left = `${tile.x * scale}px`;
    label.style.top = `${tile.y * scale}px`;
    label.style.width = `${tile.width * scale}px`;
    label.style.height = `${tile.height * scale}px`;
    return label;
  }
}
