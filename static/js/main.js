// The page: ties the lobby, the controls, the stage and the session together.

import { toAvatar } from './avatar.js';
import { LayoutControl } from './layout-control.js';
import { captureMusic, captureObstacle, canShareScreen, openCameraAndMicrophone, MediaError } from './media.js';
import { Monitor } from './monitor.js';
import { Session } from './session.js';
import { Stage } from './stage.js';
import {
  $, copyText, hideMessage, recall, remember, setBanner, setButton, setView, showMessage, showToast, startTheme,
} from './ui.js';

/** Errors that `talksy.errors` keeps; older ones are dropped first. */
const MAX_ERRORS = 100;

const query = new URLSearchParams(location.search);
const errors = [];
const stage = new Stage({ onBlocked: () => { $('tap').hidden = false; }, onSize: reportSize });
const layoutControl = new LayoutControl($('layout'), $('layout-people'), (wish) => session?.call?.send('layout', wish));
const monitor = new Monitor(stage, $('stats-panel'));

let session = null;
let peers = [];
let starting = false;
let wakeLock = null;
let reachable = true;
let avatar = null;

// ---- Joining and leaving -------------------------------------------------------------------------------------

async function join(publish) {
  if (starting || session) return;
  starting = true;
  hideMessage();
  const options = {
    room: $('room').value.trim(),
    name: $('name').value.trim(),
    mode: chosenMode(),
    audio: $('one-sound').checked ? 'mixed' : 'forwarded',
    publish,
    music: query.get('music') === '1',
    stereo: query.get('stereo') === '1',
  };
  if (options.music) captureMusic();
  remember('name', options.name);
  setStarting(true);
  try {
    let stream = null;
    if (publish) {
      const opened = await openCameraAndMicrophone();
      stream = opened.stream;
      if (opened.notice) showMessage(opened.notice, 'info');
    }
    enter(options, stream);
  } catch (error) {
    fail(error);
  } finally {
    starting = false;
    setStarting(false);
    if (!session) $('view-only').focus(); // The way in that still works.
  }
}

/** `mode=auto` of the address stands while nothing else is chosen. */
function chosenMode() {
  const mode = document.querySelector('input[name=mode]:checked').value;
  return mode === 'sfu' && query.get('mode') === 'auto' ? 'auto' : mode;
}

function enter(options, stream) {
  history.replaceState(null, '', pageUrl(options));
  setView('call');
  $('room-label').textContent = options.room || 'default';
  document.title = `${options.room || 'default'} · Talksy Unit`;
  setBanner('Connecting…');
  session = new Session(options, stream, {
    joined, connection, peers: showPeers, remote: showRemote, gone: forget,
    mode: showMode, layout: showLayout, mixed: (mix) => stage.setMixed(mix),
    speaker: (clientId) => stage.setSpeaker(clientId), voice, channel: () => stage.reportSizes({ again: true }),
    signalling, error: noteError, retrying, refused, localChanged: showLocal,
  });
  showLocal();
  showMode(session.mode, null, session.audio);
  keepAwake();
}

/** A phone's screen stays on during a call. The lock ends whenever the page is hidden, so it is asked for again. */
async function keepAwake() {
  if (!session || document.visibilityState !== 'visible') return;
  const lock = await navigator.wakeLock?.request('screen').catch(() => null);
  if (session) wakeLock = lock;
  else lock?.release();
}

function joined({ clientId, mode, audio }) {
  reachable = true;
  monitor.follow(session);
  stage.setSelf(clientId);
  stage.clear();
  showMode(mode, null, audio);
  showLocal();
  if (avatar) session.call?.send('avatar', avatar);
}

/** The picture that stands for this person while there is none of a camera; without one, its initials do. */
async function setAvatar(file) {
  avatar = file ? await toAvatar(file) : null;
  session?.call?.send('avatar', avatar);
}

function leave() {
  if (!session) return;
  session.leave();
  session = null;
  peers = [];
  stage.clear();
  stage.self.setStream(null);
  stage.self.root.hidden = true;
  monitor.close();
  wakeLock?.release();
  wakeLock = null;
  setBanner(null);
  $('tap').hidden = true;
  showStats(false);
  document.title = 'Talksy Unit';
  setView('lobby');
}

function refused(reason) {
  leave();
  fail(new Error(reason));
}

function retrying(attempt) {
  stage.clear();
  monitor.follow(null);
  setBanner(`Connection lost. Joining again (try ${attempt})…`);
  $('link-dot').dataset.state = 'lost';
}

// ---- What the call tells -------------------------------------------------------------------------------------

function connection(state) {
  $('link-dot').dataset.state = state;
  if (state === 'connected') setBanner(reachable ? null : 'The server cannot be reached. Trying again…');
  if (state === 'disconnected') setBanner('The connection is interrupted…');
  if (state === 'failed') setBanner('The connection broke. Trying another way…');
  showAlone();
}

/** Media goes on without signalling; but who comes and goes is not told. */
function signalling(works) {
  reachable = works;
  connection(session?.call?.pc?.connectionState ?? 'connecting');
}

function showPeers(list) {
  peers = list;
  $('people-count').textContent = String(Math.max(1, list.length));
  stage.setPeers(list);
  layoutControl.setPeople(list);
  showAlone();
}

function showLayout(layout) {
  stage.setLayout(layout);
  layoutControl.show(layout);
}

function showRemote(remote) {
  stage.setRemote(remote);
  showAlone();
}

function forget(remote) {
  stage.removeRemote(remote);
  monitor.forget(remote);
  showAlone();
}

function showMode(mode, reason, audio) {
  document.body.dataset.mode = mode;
  const mixed = mode === 'mcu';
  setButton('mode', {
    pressed: mixed,
    label: mixed ? 'MCU' : 'SFU',
    title: mixed ? 'Mixed (MCU). Press for forwarded streams (SFU)' : 'Forwarded (SFU). Press for one mixed picture (MCU)',
  });
  const oneSound = audio === 'mixed';
  setButton('audio', {
    pressed: oneSound,
    title: oneSound ? 'One mixed sound. Press for everybody’s own' : 'Everybody’s own sound. Press for one mixed sound',
  });
  stage.setMode(mode);
  if (reason === 'bandwidth') showToast('Your line is weak: you get the mixed picture for now.');
  if (reason === 'recovered') showToast('Your line is good again: you get everybody’s own stream.');
  showAlone();
}

function voice(streamId, speaking) {
  for (const { remote, tile } of stage.entries) {
    if (remote.stream.id.replace(/[{}]/g, '') === streamId) tile.setSpeaking('voice', speaking);
  }
}

function showAlone() {
  const others = peers.filter((peer) => peer.client_id !== session?.call?.clientId).length;
  const empty = session && session.mode === 'sfu' && stage.entries.length === 0;
  $('alone').hidden = !empty || (session.publishes && others === 0 && session.localStream.getVideoTracks().length > 0);
  $('alone').textContent = others === 0
    ? 'Nobody else is here yet. Copy the link and invite someone.'
    : 'Nobody sends picture or sound yet.';
}

function reportSize(trackId, width, height) {
  const channel = session?.call?.channel;
  if (channel?.readyState !== 'open') return false;
  channel.send(JSON.stringify({ type: 'video_size', data: { track_id: trackId, width, height } }));
  return true;
}

// ---- Controls ------------------------------------------------------------------------------------------------

function showLocal() {
  if (!session) return;
  const { publishes, microphoneOn, cameraOn, sharing, localStream } = session;
  stage.self.root.hidden = !publishes;
  stage.self.setPerson(session.call?.clientId, session.name, session.name ? ' (you)' : '');
  if (!session.name) stage.self.root.querySelector('.tile-name').textContent = 'You';
  stage.self.setStream(localStream);
  stage.self.setStalled(!cameraOn);
  stage.self.setMuted(!microphoneOn);
  monitor.listenTo(localStream.getAudioTracks()[0] ?? null);
  setButton('mute', {
    pressed: publishes && !microphoneOn,
    disabled: !publishes,
    label: microphoneOn || !publishes ? 'Mute' : 'Unmute',
    icon: microphoneOn ? 'i-mic' : 'i-mic-off',
    title: microphoneOn ? 'Mute microphone (M)' : 'Unmute microphone (M)',
  });
  setButton('camera', {
    pressed: publishes && !cameraOn,
    disabled: !publishes,
    icon: cameraOn ? 'i-cam' : 'i-cam-off',
    title: cameraOn ? 'Camera off (V)' : 'Camera on (V)',
  });
  setButton('screen', {
    pressed: sharing,
    disabled: !publishes || !canShareScreen(),
    label: sharing ? 'Stop sharing' : 'Share',
    title: sharing ? 'Stop sharing your screen' : 'Share your screen',
  });
  document.body.classList.toggle('sharing', sharing);
  stage.arrange();
  showAlone();
}

/** Runs a control that may be refused by the browser. */
async function attempt(action) {
  try {
    await action();
  } catch (error) {
    fail(error);
  }
}

function showStats(open) {
  setButton('stats', { pressed: open });
  $('stats-panel').hidden = !open;
  monitor.draw();
}

function setStarting(busy) {
  for (const id of ['start', 'view-only']) $(id).disabled = busy;
  $('start').textContent = busy ? 'Starting…' : 'Start';
}

function pageUrl({ room, name, mode, audio, publish }) {
  const next = new URLSearchParams(location.search);
  const said = { room_id: room, name, mode: mode === 'sfu' ? '' : mode, audio: audio === 'mixed' ? audio : '' };
  for (const [key, value] of Object.entries(said)) {
    if (value) next.set(key, value);
    else next.delete(key);
  }
  if (publish) next.delete('publish');
  return `${location.pathname}?${next}`;
}

function invitation() {
  const link = new URL(location.pathname, location.origin);
  const room = $('room').value.trim();
  if (room) link.searchParams.set('room_id', room);
  return link.href;
}

// ---- Errors --------------------------------------------------------------------------------------------------

function noteError(sentence) {
  errors.push(sentence);
  if (errors.length > MAX_ERRORS) errors.shift();
  showMessage(sentence);
}

function fail(error) {
  noteError(error instanceof MediaError ? error.message : `${error.message || error}`);
}

// ---- Wiring --------------------------------------------------------------------------------------------------

startTheme();
$('room').value = query.get('room_id') === 'null' ? '' : query.get('room_id') ?? '';
$('name').value = query.get('name') ?? recall('name') ?? '';
if (query.get('mode') === 'mcu') document.querySelector('input[name=mode][value=mcu]').checked = true;
$('one-sound').checked = query.get('audio') === 'mixed';
const viewer = query.get('publish') === '0';
if (viewer) $('lobby-hint').textContent = 'This link is for watching: Start asks for no camera and no microphone.';
else if (captureObstacle()) showMessage(captureObstacle(), 'info');

$('join').addEventListener('submit', (event) => {
  event.preventDefault();
  join(!viewer);
});
$('avatar').addEventListener('change', () => {
  setAvatar($('avatar').files[0] ?? null).catch(() => showMessage('This file is no picture that the browser can read.'));
});
$('view-only').addEventListener('click', () => join(false));
$('disconnect').addEventListener('click', leave);
$('mute').addEventListener('click', () => attempt(() => session?.toggleMicrophone()));
$('camera').addEventListener('click', () => attempt(() => session?.toggleCamera()));
$('screen').addEventListener('click', () => attempt(() => session?.toggleScreen()));
$('mode').addEventListener('click', () => session?.switchMode(session.mode === 'mcu' ? 'sfu' : 'mcu'));
$('audio').addEventListener('click', () => session?.switchAudio(session.call?.audio === 'mixed' ? 'forwarded' : 'mixed'));
$('stats').addEventListener('click', () => showStats($('stats-panel').hidden));
$('message-close').addEventListener('click', hideMessage);
$('copy').addEventListener('click', async () => {
  if (await copyText(invitation())) showToast('Link copied');
  else showMessage(`Copy this link: ${invitation()}`, 'info');
});
$('tap').addEventListener('click', async () => { $('tap').hidden = await stage.playAll(); });
document.addEventListener('keydown', (event) => {
  if (!session || event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
  if (event.target.closest?.('input, textarea, select')) return;
  const button = { m: 'mute', v: 'camera', s: 'stats' }[event.key.toLowerCase()];
  if (button) $(button).click();
});
window.addEventListener('online', () => session?.networkChanged());
// The event also tells of every new guess of speed and delay; only another kind of network is another network.
let network = navigator.connection?.type;
navigator.connection?.addEventListener?.('change', () => {
  const before = network;
  network = navigator.connection.type;
  if (navigator.onLine && before !== network) session?.networkChanged();
});
document.addEventListener('visibilitychange', keepAwake);
window.addEventListener('pagehide', (event) => {
  if (!event.persisted) leave();
});

/** For tests, scripts and the curious: what the page knows. */
window.talksy = {
  errors,
  get pc() { return session?.call?.pc ?? null; },
  get socket() { return session?.call?.socket ?? null; },
  get connected() { return this.pc?.connectionState === 'connected'; },
  get mode() { return session?.mode ?? null; },
  get clientId() { return session?.call?.clientId ?? null; },
  get peers() { return peers; },
  get audio() { return session?.call?.audio ?? null; },
  get mixed() {
    const mixes = session?.mode === 'mcu' || this.audio === 'mixed';
    return mixes ? session.call?.mixedStream ?? null : null;
  },
  get remotes() {
    return stage.entries.map(({ remote, tile }) => ({
      clientId: remote.clientId,
      name: remote.name,
      source: remote.source,
      stream: remote.stream,
      videoElement: tile.video,
    }));
  },
  /** A plain summary that survives JSON. */
  state() {
    return {
      connected: this.connected,
      mode: this.mode,
      audio: this.audio,
      clientId: this.clientId,
      signaling: this.pc?.signalingState ?? null,
      ice: this.pc?.iceConnectionState ?? null,
      remotes: this.remotes.map(({ clientId, name, source }) => ({ clientId, name, source })),
      microphoneOn: session?.microphoneOn ?? false,
      cameraOn: session?.cameraOn ?? false,
      sharing: session?.sharing ?? false,
      errors: [...errors],
    };
  },
  /** The last second's figures, see StatsReader.read; null before the first. */
  stats() { return monitor.figures; },
};
