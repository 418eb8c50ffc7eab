// One stay in a room: one signalling, one peer connection, and who sends what on it. Both get over breaks of the network
// by themselves; where they do not, the session makes a new call.

import { Negotiation, preferH264 } from './negotiation.js';
import { Signal } from './signal.js';

/** `welcome` follows `clientid` at once; a server that has none is not waited for longer than this, ms. */
const WELCOME_WAIT = 500;
/** Another way is looked for when the connection has been interrupted for this long, and again after each such time, ms. */
const RESTART_AFTER = 1500;
const RESTART_PERIOD = 5000;
/** A connection that is not back this long after it was interrupted is built anew, ms. */
const RESTART_LIMIT = 20_000;
/** How long a camera keeps its full size whatever the line may carry, ms. */
const SHARP_START = 5_000;
/** A track that ended while this page asked for it: nothing that its user did, or could do something about. */
const GONE_MEANWHILE = /^subscribe_tracks: there is no track /;
/** The id of the mixed stream. */
const MIXED = 'mixed';
/** Sources of the wire protocol. */
const MEDIA = 'media';
const SCREEN = 'screen';
const MUSIC = 'music';

/** Ids as the server has them: Firefox puts braces around them. */
export function bareId(id) {
  return id.replace(/^\{|\}$/g, '');
}

/**
 * Handlers, all called with plain data:
 * `joined({clientId, name, mode, audio})`, `connection(state)`, `mode(mode, reason, audio)`, `peers(list)`, `layout(layout)`,
 * `speaker(clientId)`, `remote(remote)` (new or changed), `gone(remote)`, `mixed(stream)`, `voice(streamId, speaking)`,
 * `channel(dataChannel)`, `signalling(works)`, `error(sentence)`, `ended({opened, final, reason})`.
 *
 * A remote is `{key, clientId, name, source, stream, audio, video}`; audio and video are
 * `{id, track, receiver}` or null.
 */
export class Call {
  pc = null;
  clientId = null;
  mode;
  /** How the others' sound comes: forwarded or mixed. */
  audio;
  peers = [];
  remotes = new Map();
  mixedStream = new MediaStream();
  channel = null;

  #signal;
  #handlers;
  #publishing;
  #publishes;
  /** What of `audio` was asked for last: what is not wanted any more is not subscribed to. */
  #audioWish;
  #sound;
  #negotiation = null;
  #local = new Map();
  #available = new Map();
  #unclaimed = new Set();
  #early = [];
  #welcomeTimer = 0;
  #restartTimer = 0;
  /** Since when the connection has been interrupted; 0: it is not. */
  #interrupted = 0;

  /**
   * `publishes`: false for a viewer. `local`: slot → `{track, stream}` to publish from the start.
   * `music`: the microphone is not to be taken for a voice. `stereo`: sound has two channels, both ways.
   */
  constructor(url, { mode, audio, publishes, local, music = false, stereo = false }, handlers) {
    this.#sound = { music, stereo };
    this.mode = mode === 'mcu' ? 'mcu' : 'sfu';
    this.#audioWish = audio;
    this.audio = audioOf(this.mode, audio);
    this.#handlers = handlers;
    this.#publishing = local;
    this.#publishes = publishes;
    this.#signal = new Signal(url, {
      message: (type, data, status) => this.#receive(type, data, status),
      broken: () => this.#handlers.signalling(false),
      resumed: () => this.#handlers.signalling(true),
      closed: (how) => this.#end(how),
    });
  }

  get socket() {
    return this.#signal.socket;
  }

  /** Sends an envelope of the protocol. */
  send(type, data) {
    return this.#signal.send(type, data);
  }

  /** The device may be on another network: both ways to the server are tried anew. */
  networkChanged() {
    this.#signal.probe();
    if (this.pc?.connectionState && this.pc.connectionState !== 'new') this.pc.restartIce();
  }

  /** Leaves for good. */
  leave() {
    this.send('leave');
    this.#shut();
  }

  /** The server is asked for the other way of delivery; its `mode` message says when it is so. */
  switchMode(mode) {
    this.send('switch_mode', mode);
  }

  /** As switchMode, for the others' sound: `forwarded` or `mixed`. */
  switchAudio(audio) {
    this.#audioWish = audio;
    this.send('switch_audio', audio);
  }

  /** Publishes a track in a slot: microphone, camera, screen or screen-sound. */
  publish(slot, track, stream) {
    if (!this.pc) {
      this.#publishing.set(slot, { track, stream });
      return;
    }
    const init = { direction: 'sendonly', streams: [stream] };
    if (slot === 'camera') Object.assign(init, simulcast(track));
    const transceiver = this.pc.addTransceiver(track, init);
    if (track.kind === 'video') preferH264(transceiver);
    if (slot === 'camera') startSharp(transceiver.sender);
    this.#local.set(slot, { transceiver, id: bareId(track.id), muted: false, announced: false });
  }

  /** Whether the slot has an m-line. */
  publishes(slot) {
    return this.#local.has(slot);
  }

  /** Puts another track (or none) on the slot's m-line. Needs no negotiation. */
  async replace(slot, track) {
    const local = this.#local.get(slot);
    if (local) await local.transceiver.sender.replaceTrack(track);
    else if (!track) this.#publishing.delete(slot);
  }

  /** Tells the server that a slot is muted, so that nothing of it is forwarded or mixed. */
  setMuted(slot, muted) {
    const local = this.#local.get(slot);
    if (!local) return;
    local.muted = muted;
    if (local.announced) this.send('mute', { track_id: local.id, muted });
  }

  /** Ends a slot; its m-line is stopped and can be used again. */
  unpublish(slot) {
    this.#publishing.delete(slot);
    const local = this.#local.get(slot);
    if (!local) return;
    this.#local.delete(slot);
    if (local.transceiver.stop) local.transceiver.stop();
    else this.pc.removeTrack(local.transceiver.sender);
  }

  #receive(type, data, status) {
    if (type === 'error' || !status) {
      if (GONE_MEANWHILE.test(data)) return;
      this.#handlers.error(typeof data === 'string' ? data : 'The server could not do that.');
    } else if (type === 'clientid') {
      this.clientId = String(data);
      this.#welcomeTimer = setTimeout(() => this.#connect({}), WELCOME_WAIT);
    } else if (type === 'welcome') {
      this.#connect(data ?? {});
    } else if (this.pc) {
      this.#dispatch(type, data);
    } else {
      this.#early.push([type, data]);
    }
  }

  #dispatch(type, data) {
    switch (type) {
      case 'offer': this.#negotiation.handleOffer(data?.sdp ?? data); break;
      case 'answer': this.#negotiation.handleAnswer(data?.sdp ?? data); break;
      case 'candidate': if (data) this.#negotiation.handleCandidate(data); break;
      case 'allow_renegotiation': this.#negotiation.handleAllowed(data); break;
      case 'tracks_added': this.#typeTracks(data); break;
      case 'tracks_available': this.#subscribe(data); break;
      case 'mode': this.#setMode(data); break;
      case 'room_peers': this.#setPeers(data?.peers); break;
      case 'layout': this.#handlers.layout(data); break;
      case 'active_speaker': this.#handlers.speaker(data?.client_id); break;
      case 'voice_detected': this.#voice(data); break;
      default: // Newer servers may say more than this page understands.
    }
  }

  /** The server knows us: makes the peer connection, publishes, and catches up with what came meanwhile. */
  #connect(welcome) {
    clearTimeout(this.#welcomeTimer);
    if (this.pc) return;
    this.clientId ??= welcome.client_id ?? null;
    if (welcome.mode === 'mcu' || welcome.mode === 'sfu') this.mode = welcome.mode;
    this.audio = audioOf(this.mode, welcome.audio);
    const iceServers = Array.isArray(welcome.ice_servers) ? welcome.ice_servers : [];
    this.pc = new RTCPeerConnection({ iceServers, bundlePolicy: 'max-bundle' });
    this.pc.ontrack = (event) => this.#track(event);
    this.pc.ondatachannel = ({ channel }) => this.#openChannel(channel);
    this.pc.onconnectionstatechange = () => this.#connectionChanged();
    this.#negotiation = new Negotiation(this.pc, {
      send: (type, data) => this.send(type, data),
      fail: (sentence) => this.#handlers.error(sentence),
      heard: () => !this.#signal.broken,
      offersFirst: this.#publishes,
      stereo: this.#sound.stereo,
    });
    this.#handlers.joined({ clientId: this.clientId, name: welcome.name ?? '', mode: this.mode, audio: this.audio });
    for (const [slot, { track, stream }] of this.#publishing) this.publish(slot, track, stream);
    for (const [type, data] of this.#early.splice(0)) this.#dispatch(type, data);
  }

  /** The server saw our tracks and wants to know what they show. */
  #typeTracks(tracks) {
    const types = {};
    for (const id of Object.keys(tracks ?? {})) {
      const entry = [...this.#local].find(([, local]) => local.id === bareId(id));
      types[id] = this.#source(entry?.[0]);
      if (entry) {
        entry[1].announced = true;
        if (entry[1].muted) this.send('mute', { track_id: entry[1].id, muted: true });
      }
    }
    this.send('tracks_added', types);
  }

  #source(slot) {
    if (slot?.startsWith('screen')) return SCREEN;
    return slot === 'microphone' && this.#sound.music ? MUSIC : MEDIA;
  }

  #subscribe(tracks) {
    const wanted = [];
    for (const track of Object.values(tracks ?? {})) {
      if (!track?.client_id || track.client_id === this.clientId) continue;
      if (track.kind === 'audio' && this.#audioWish === 'mixed') continue;
      const id = track.track_id ?? track.id;
      this.#available.set(`${track.client_id} ${id}`, { ...track, id });
      wanted.push({ client_id: track.client_id, track_id: id });
    }
    if (wanted.length === 0 || this.mode !== 'sfu') return;
    this.send('subscribe_tracks', wanted);
    for (const arrival of [...this.#unclaimed]) this.#claim(arrival);
  }

  #track({ track, streams, receiver, transceiver }) {
    const stream = streams[0] ?? new MediaStream([track]);
    const arrival = { track, stream, receiver, mid: transceiver.mid };
    stream.addEventListener('removetrack', (event) => {
      if (event.track === track) this.#drop(arrival);
    });
    track.addEventListener('ended', () => this.#drop(arrival));
    this.#unclaimed.add(arrival);
    this.#claim(arrival);
  }

  /** Finds out whose track arrived: someone's whom we were told about, else the mix. */
  #claim(arrival) {
    const info = this.#lookUp(arrival);
    if (info) {
      this.#unclaimed.delete(arrival);
      if (this.mode === 'sfu') this.#attach(info, arrival);
    } else if (this.mode === 'mcu' || (arrival.track.kind === 'audio' && arrival.stream.id === MIXED)) {
      this.#unclaimed.delete(arrival);
      this.#mix(arrival);
    }
  }

  /**
   * By stream id, which every browser keeps; the track id decides where one stream holds several of a kind.
   * Somebody who joined anew publishes under the old ids: whoever has no track yet, and came last, is meant.
   */
  #lookUp({ track, stream }) {
    const inStream = [...this.#available.values()]
      .filter((info) => info.kind === track.kind && bareId(info.stream_id ?? '') === bareId(stream.id));
    const exact = inStream.filter((info) => bareId(info.id) === bareId(track.id));
    const candidates = exact.length > 0 ? exact : inStream;
    const waiting = candidates.filter((info) => !this.remotes.get(remoteKey(info))?.[track.kind]);
    return waiting.at(-1) ?? candidates.at(-1) ?? null;
  }

  #attach(info, { track, stream, receiver }) {
    const source = info.source_type === SCREEN ? SCREEN : MEDIA;
    const key = remoteKey(info);
    const known = this.remotes.get(key);
    const remote = known ?? { key, clientId: info.client_id, name: '', source, stream, audio: null, video: null };
    // Two people with one stream id share the browser's stream object: each tile gets its own tracks only.
    const alone = [...this.remotes.values()].every((other) => other === remote || other.stream !== stream);
    if (!known && !alone) remote.stream = new MediaStream();
    if (!remote.stream.getTracks().includes(track)) remote.stream.addTrack(track);
    remote.name = this.#nameOf(info.client_id) ?? info.client_name ?? '';
    remote[track.kind] = { id: info.id, track, receiver, info };
    this.remotes.set(key, remote);
    this.#handlers.remote(remote);
  }

  #mix({ track }) {
    for (const old of this.mixedStream.getTracks()) {
      if (old.kind === track.kind) this.mixedStream.removeTrack(old);
    }
    this.mixedStream.addTrack(track);
    this.#handlers.mixed(this.mixedStream);
  }

  #drop({ track }) {
    for (const arrival of this.#unclaimed) if (arrival.track === track) this.#unclaimed.delete(arrival);
    if (this.mixedStream.getTracks().includes(track)) {
      this.mixedStream.removeTrack(track);
      this.#handlers.mixed(this.mixedStream);
    }
    for (const remote of this.remotes.values()) {
      if (remote[track.kind]?.track !== track) continue;
      remote.stream.removeTrack(track);
      const { id, info } = remote[track.kind];
      const key = `${remote.clientId} ${id}`;
      // It may have been announced anew since.
      if (this.#available.get(key) === info) this.#available.delete(key);
      remote[track.kind] = null;
      if (remote.audio || remote.video) this.#handlers.remote(remote);
      else this.#forget(remote);
    }
  }

  #forget(remote) {
    this.remotes.delete(remote.key);
    this.#handlers.gone(remote);
  }

  #setMode(data) {
    const mode = data?.mode;
    if (mode !== 'sfu' && mode !== 'mcu') return;
    const changed = mode !== this.mode;
    this.mode = mode;
    this.audio = audioOf(mode, data.audio);
    if (changed && mode === 'mcu') {
      for (const remote of [...this.remotes.values()]) this.#forget(remote);
    } else if (changed) {
      this.#available.clear(); // Everything is announced again.
    }
    const ended = (kind) => (kind === 'audio' ? this.audio !== 'mixed' : mode !== 'mcu');
    for (const track of this.mixedStream.getTracks()) if (ended(track.kind)) this.mixedStream.removeTrack(track);
    this.#handlers.mode(mode, data.reason, this.audio);
    this.#handlers.mixed(this.mixedStream);
    for (const arrival of [...this.#unclaimed]) this.#claim(arrival);
  }

  #setPeers(list) {
    if (!Array.isArray(list)) return;
    const before = this.peers;
    this.peers = list.filter((peer) => typeof peer?.client_id === 'string');
    const present = new Set(this.peers.map((peer) => peer.client_id));
    const left = new Set(before.map((peer) => peer.client_id).filter((id) => !present.has(id)));
    for (const [key, info] of this.#available) if (left.has(info.client_id)) this.#available.delete(key);
    for (const remote of [...this.remotes.values()]) {
      if (left.has(remote.clientId)) this.#forget(remote);
      else remote.name = this.#nameOf(remote.clientId) ?? remote.name;
    }
    this.#handlers.peers(this.peers);
  }

  #nameOf(clientId) {
    return this.peers.find((peer) => peer.client_id === clientId)?.name;
  }

  #voice(data) {
    const packets = Array.isArray(data?.packets) ? data.packets : [];
    this.#handlers.voice(bareId(data?.stream_id ?? ''), packets.at(-1)?.isVoice === true);
  }

  #openChannel(channel) {
    if (channel.label !== 'internal') return;
    this.channel = channel;
    channel.onmessage = (event) => this.#channelMessage(event.data);
    const opened = () => this.#handlers.channel(channel);
    if (channel.readyState === 'open') opened();
    else channel.onopen = opened;
  }

  #channelMessage(text) {
    let message;
    try {
      message = JSON.parse(text);
    } catch {
      return;
    }
    if (message?.type === 'vad_started' || message?.type === 'vad_ended') {
      this.#handlers.voice(bareId(message.data?.streamID ?? ''), message.type === 'vad_started');
    }
  }

  #connectionChanged() {
    const state = this.pc.connectionState;
    if (state === 'connected') {
      clearTimeout(this.#restartTimer);
      this.#restartTimer = 0;
      this.#interrupted = 0;
    } else if ((state === 'disconnected' || state === 'failed') && !this.#interrupted) {
      this.#interrupted = performance.now();
      this.#restartTimer = setTimeout(() => this.#restart(), state === 'failed' ? 0 : RESTART_AFTER);
    }
    this.#handlers.connection(state);
  }

  /** Looks for another way, until there is one, or it has taken too long although the server can be reached. */
  #restart() {
    const late = performance.now() - this.#interrupted > RESTART_LIMIT;
    if (late && !this.#signal.broken) {
      this.#end({ opened: true, final: false });
      return;
    }
    if (this.pc.signalingState === 'stable') this.pc.restartIce();
    this.#restartTimer = setTimeout(() => this.#restart(), RESTART_PERIOD);
  }

  #end(how) {
    this.#shut();
    this.#handlers.ended(how);
  }

  #shut() {
    clearTimeout(this.#welcomeTimer);
    clearTimeout(this.#restartTimer);
    this.#negotiation?.close();
    this.#signal.close();
    if (this.pc) {
      this.pc.ontrack = this.pc.onconnectionstatechange = null;
      this.pc.close();
    }
    this.remotes.clear();
  }
}

/**
 * The camera in up to three sizes, smallest first, so that the server can give each receiver what it has room for. A small
 * camera is sent as it is. With a voice and all headers, lines of 300 kbit/s carry the first, and of 600 the second.
 */
function simulcast(track) {
  const { width = 0, height = 0 } = track.getSettings?.() ?? {};
  const lines = Math.min(width, height);
  const quarter = { rid: 'q', scaleResolutionDownBy: 4, maxBitrate: 150_000 };
  const half = { rid: 'h', scaleResolutionDownBy: 2, maxBitrate: 350_000 };
  const full = { rid: 'f', scaleResolutionDownBy: 1, maxBitrate: 1_500_000 };
  if (lines >= 540) return { sendEncodings: [quarter, half, full] };
  return lines >= 480 ? { sendEncodings: [half, full] } : {};
}

/**
 * Chromium sizes a picture by its estimate of the line, which is a guess of 300 kbit/s until the connection stands: every
 * camera would begin at 360 lines and grow for eight seconds. So the size is fixed at first; then the browser's rule for
 * cameras holds again.
 */
function startSharp(sender) {
  prefer(sender, 'maintain-resolution');
  setTimeout(() => prefer(sender, 'maintain-framerate'), SHARP_START);
}

function prefer(sender, degradationPreference) {
  const parameters = sender.getParameters();
  // Refused by browsers that want an encoding first (older Firefox); they do not size by a guess either.
  sender.setParameters({ ...parameters, degradationPreference }).catch(() => {});
}

/** In mode mcu the sound is always mixed; servers that do not tell of it forward it otherwise. */
function audioOf(mode, audio) {
  return mode === 'mcu' || audio === 'mixed' ? 'mixed' : 'forwarded';
}

/** A tile is one stream of one person. */
function remoteKey(info) {
  return `${info.client_id} ${info.stream_id}`;
}
