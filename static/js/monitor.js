// What is watched all the time during a call: figures once a second, voices several times a second.

import { caption, render, StatsReader } from './stats.js';
import { everyBeat, Hold, Microphone, receivedLevel } from './voice.js';

const READING_PERIOD = 1000;
/** Readings without a new frame after which a camera counts as off. */
const STALL_READINGS = 3;

/** Watches one session at a time and shows on the stage and in the panel what it sees. */
export class Monitor {
  /** The last reading (see StatsReader.read), null before the first. */
  figures = null;

  #stage;
  #panel;
  #session = null;
  #reader = null;
  #microphone = new Microphone();
  #ownVoice = new Hold();
  #voices = new Map();
  #stalls = new Map();

  constructor(stage, panel) {
    this.#stage = stage;
    this.#panel = panel;
    everyBeat((now) => this.#listen(now));
    setInterval(() => this.#read(), READING_PERIOD);
  }

  /** Reads the figures of the session's present call; null reads none. */
  follow(session) {
    this.#session = session;
    this.#reader = session ? new StatsReader(session.call.pc) : null;
    this.figures = null;
    this.draw();
  }

  /** The own microphone's track; null where there is none. */
  listenTo(track) {
    this.#microphone.follow(track);
  }

  forget(remote) {
    this.#voices.delete(remote.key);
    this.#stalls.delete(remote.key);
  }

  close() {
    this.follow(null);
    this.#microphone.close();
    this.#voices.clear();
    this.#stalls.clear();
  }

  /** Shows the figures while the panel is open, and takes them off the tiles when it is not. */
  draw() {
    if (!this.figures || this.#panel.hidden) {
      this.#panel.replaceChildren();
      for (const { tile } of this.#stage.entries) tile.setCaption('');
      this.#stage.self.setCaption('');
      return;
    }
    const { tracks } = this.figures;
    const owners = new Map();
    for (const { remote, tile } of this.#stage.entries) {
      for (const kind of ['audio', 'video']) {
        if (remote[kind]) owners.set(remote[kind].track.id, remote.name || 'Guest');
      }
      const video = remote.video && tracks.find((one) => one.trackId === remote.video.track.id);
      tile.setCaption(video ? caption(video) : '');
    }
    const camera = this.#session.localStream.getVideoTracks()[0];
    const own = camera && tracks.find((one) => one.direction === 'out' && one.trackId === camera.id);
    this.#stage.self.setCaption(own ? caption(own) : '');
    const others = this.#session.mode === 'mcu' ? 'Mixed' : 'Someone';
    render(this.#panel, this.figures, (one) => (one.direction === 'out' ? 'You' : owners.get(one.trackId) ?? others));
  }

  async #read() {
    const reader = this.#reader;
    const call = this.#session?.call;
    if (call?.pc?.connectionState !== 'connected') return;
    const figures = await reader.read().catch(() => null); // The connection was closed meanwhile.
    if (!figures || reader !== this.#reader) return;
    this.figures = figures;
    this.#report(call.channel);
    this.#findStalls();
    this.draw();
  }

  /** The server's view of this link's sending side lacks what only the browser knows. */
  #report(channel) {
    if (channel?.readyState !== 'open') return;
    channel.send(JSON.stringify({
      type: 'stats',
      data: {
        available_outgoing_bitrate: Math.round(this.figures.availableOutgoing ?? 0),
        quality_limitation_reason: this.figures.limitation,
      },
    }));
  }

  /** A camera that was switched off sends nothing: its last frame must not stay. A still screen is no such thing. */
  #findStalls() {
    for (const { remote, tile } of this.#stage.entries) {
      if (remote.source === 'screen' || !remote.video) continue;
      const frames = this.figures.tracks.find((one) => one.trackId === remote.video.track.id)?.frames ?? 0;
      const before = this.#stalls.get(remote.key) ?? { frames: -1, count: 0 };
      const count = frames === before.frames ? before.count + 1 : 0;
      this.#stalls.set(remote.key, { frames, count });
      tile.setStalled(count >= STALL_READINGS);
    }
  }

  #listen(now) {
    if (!this.#session) return;
    this.#stage.self.setSpeaking('local', this.#ownVoice.update(this.#microphone.level(), now));
    for (const { remote, tile } of this.#stage.entries) {
      if (!remote.audio) continue;
      if (!this.#voices.has(remote.key)) this.#voices.set(remote.key, new Hold());
      tile.setSpeaking('local', this.#voices.get(remote.key).update(receivedLevel(remote.audio.receiver), now));
    }
  }
}
