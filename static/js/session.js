// A session is what the user sees as "being in the room": the local media, and one call after another when the
// connection breaks.

import { Call } from './call.js';
import * as media from './media.js';
import { socketUrl } from './signal.js';

/** Waits before joining again, ms; the last one repeats. */
const BACKOFF = [500, 1000, 2000, 4000, 8000];

/**
 * Handlers: those of Call except `ended`, and `retrying(attempt)`, `refused(reason)` (over, back to the lobby),
 * `localChanged()`.
 */
export class Session {
  call = null;
  mode;
  /** How the others' sound is wanted while they are forwarded: forwarded or mixed. */
  audio;
  microphoneOn = true;
  cameraOn = true;
  name = '';

  #options;
  #handlers;
  #stream = new MediaStream();
  #screen = null;
  #attempt = 0;
  #everJoined = false;
  #retryTimer = 0;
  #over = false;
  #switchingCamera = false;

  /** `options`: `{room, name, mode, audio, publish, music, stereo}`; `stream`: camera and microphone, null for a viewer. */
  constructor(options, stream, handlers) {
    this.#options = options;
    this.#handlers = handlers;
    this.mode = options.mode;
    this.audio = options.audio;
    if (stream) this.#stream = stream;
    this.microphoneOn = this.#stream.getAudioTracks().length > 0;
    this.cameraOn = this.#stream.getVideoTracks().length > 0;
    for (const track of this.#stream.getTracks()) this.#watch(track);
    this.#join();
  }

  get publishes() {
    return this.#options.publish;
  }

  get localStream() {
    return this.#stream;
  }

  get sharing() {
    return this.#screen !== null;
  }

  leave() {
    this.#over = true;
    clearTimeout(this.#retryTimer);
    this.call?.leave();
    media.stop(this.#stream);
    media.stop(this.#screen);
    this.#screen = null;
  }

  /** The device may be on another network: does at once what would wait for the next try or the next silence. */
  networkChanged() {
    if (this.#retryTimer) {
      clearTimeout(this.#retryTimer);
      this.#join();
    } else {
      this.call?.networkChanged();
    }
  }

  switchMode(mode) {
    this.call?.switchMode(mode);
  }

  switchAudio(audio) {
    this.audio = audio;
    this.call?.switchAudio(audio);
  }

  /** Mutes or unmutes the microphone; asks for one where there was none. */
  async toggleMicrophone() {
    const track = this.#stream.getAudioTracks()[0];
    if (!track) {
      await this.#add('microphone', await media.openMicrophone());
      this.microphoneOn = true;
    } else {
      this.microphoneOn = !this.microphoneOn;
      track.enabled = this.microphoneOn;
      this.call?.setMuted('microphone', !this.microphoneOn);
    }
    this.#handlers.localChanged();
  }

  /** Switches the camera off (its light goes out) or on again. */
  async toggleCamera() {
    if (this.#switchingCamera) return;
    this.#switchingCamera = true;
    try {
      if (this.cameraOn) await this.#cameraOff();
      else await this.#add('camera', await media.openCamera());
      this.cameraOn = !this.cameraOn;
    } finally {
      this.#switchingCamera = false;
      this.#handlers.localChanged();
    }
  }

  /** Shares a screen, or stops sharing. */
  async toggleScreen() {
    if (this.#screen) {
      this.#stopScreen();
      return;
    }
    const screen = await media.openScreen();
    if (!screen) return;
    if (this.#over) {
      media.stop(screen);
      return;
    }
    this.#screen = screen;
    for (const track of screen.getTracks()) {
      track.addEventListener('ended', () => this.#stopScreen(screen));
      this.call?.publish(screenSlot(track), track, screen);
    }
    this.#handlers.localChanged();
  }

  #stopScreen(which = this.#screen) {
    if (!which || which !== this.#screen) return;
    this.#screen = null;
    for (const slot of ['screen', 'screen-sound']) this.call?.unpublish(slot);
    media.stop(which);
    this.#handlers.localChanged();
  }

  async #cameraOff() {
    this.call?.setMuted('camera', true);
    await this.call?.replace('camera', null);
    for (const track of this.#stream.getVideoTracks()) {
      track.stop();
      this.#stream.removeTrack(track);
    }
  }

  /** A fresh device track goes onto the slot's m-line, or gets one. */
  async #add(slot, track) {
    if (this.#over) {
      track.stop();
      return;
    }
    this.#watch(track);
    this.#stream.addTrack(track);
    if (this.call?.publishes(slot)) {
      await this.call.replace(slot, track);
      this.call.setMuted(slot, false);
    } else {
      this.call?.publish(slot, track, this.#stream);
    }
  }

  /** A device that is pulled out ends its track; that is not an error, only a change. */
  #watch(track) {
    track.addEventListener('ended', () => {
      if (this.#over || !this.#stream.getTracks().includes(track)) return;
      this.#stream.removeTrack(track);
      this.call?.setMuted(track.kind === 'audio' ? 'microphone' : 'camera', true);
      if (track.kind === 'audio') this.microphoneOn = false;
      else this.cameraOn = false;
      this.#handlers.localChanged();
    });
  }

  #join() {
    this.#retryTimer = 0;
    const { room, name, publish, music, stereo } = this.#options;
    const url = socketUrl(window.location, {
      room_id: room, name, mode: this.mode, audio: this.audio === 'mixed' ? 'mixed' : null, publish: publish ? null : '0',
    });
    const options = { mode: this.mode, audio: this.audio, publishes: publish, local: this.#slots(), music, stereo };
    this.call = new Call(url, options, {
      ...this.#handlers,
      joined: (who) => this.#joined(who),
      mode: (mode, reason, audio) => {
        this.mode = mode;
        this.#handlers.mode(mode, reason, audio);
      },
      connection: (state) => {
        if (state === 'connected') this.#attempt = 0;
        this.#handlers.connection(state);
      },
      ended: (how) => this.#ended(how),
    });
  }

  #slots() {
    const slots = new Map();
    for (const track of this.#stream.getTracks()) {
      slots.set(track.kind === 'audio' ? 'microphone' : 'camera', { track, stream: this.#stream });
    }
    for (const track of this.#screen?.getTracks() ?? []) {
      slots.set(screenSlot(track), { track, stream: this.#screen });
    }
    return slots;
  }

  #joined(who) {
    this.#everJoined = true;
    this.name = who.name || this.#options.name;
    this.mode = who.mode;
    this.#handlers.joined(who);
    // The new call publishes in the microtask after this; a muted microphone stays muted there.
    queueMicrotask(() => {
      if (!this.microphoneOn) this.call?.setMuted('microphone', true);
    });
  }

  #ended({ opened, final, reason }) {
    if (this.#over) return;
    if (final || (!opened && !this.#everJoined)) {
      this.leave();
      this.#handlers.refused(reason || (opened ? 'The server ended the call.' : 'The server cannot be reached.'));
      return;
    }
    const wait = BACKOFF[Math.min(this.#attempt, BACKOFF.length - 1)];
    this.#attempt += 1;
    this.#handlers.retrying(this.#attempt);
    this.#retryTimer = setTimeout(() => this.#join(), wait * (0.75 + Math.random() / 2));
  }
}

function screenSlot(track) {
  return track.kind === 'audio' ? 'screen-sound' : 'screen';
}
