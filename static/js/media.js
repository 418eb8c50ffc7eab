// Camera, microphone and screen: asking for them, and saying in plain words why they cannot be had.

const CAMERA = { width: { ideal: 1280 }, height: { ideal: 720 }, frameRate: { ideal: 30, max: 30 } };
const MICROPHONE = { echoCancellation: true, noiseSuppression: true, autoGainControl: true };
const MUSIC = { echoCancellation: false, noiseSuppression: false, autoGainControl: false, channelCount: { ideal: 2 } };
const SCREEN = { video: { frameRate: { ideal: 15, max: 30 } }, audio: true };

let microphone = MICROPHONE;

/** From now on the microphone is for music: nothing of its sound is taken for noise. */
export function captureMusic() {
  microphone = MUSIC;
}

/** Why capturing is impossible on this page, or null. */
export function captureObstacle(scope = window) {
  if (scope.navigator.mediaDevices?.getUserMedia) return null;
  if (!scope.isSecureContext) {
    return 'Browsers give camera and microphone to secure pages only, and this page came over plain http. '
      + 'Open it as https:// (start the server with --tls), or on the server itself as '
      + `http://localhost:${scope.location.port || 80}. You can join as a viewer right now.`;
  }
  return 'This browser does not offer camera and microphone to web pages. You can join as a viewer.';
}

/** Whether this browser can share a screen (phones usually cannot). */
export function canShareScreen() {
  return Boolean(navigator.mediaDevices?.getDisplayMedia);
}

/** A refusal in words for the user; the browser's error is its `cause`. */
export class MediaError extends Error {
  constructor(message, cause) {
    super(message, { cause });
    this.name = 'MediaError';
  }
}

/**
 * Camera and microphone, or whichever of the two exists.
 * Resolves to `{stream, notice}`: the notice says what is missing. Throws a MediaError when nothing can be had.
 */
export async function openCameraAndMicrophone() {
  const obstacle = captureObstacle();
  if (obstacle) throw new MediaError(obstacle);
  let first;
  try {
    return { stream: await open({ video: CAMERA, audio: microphone }), notice: null };
  } catch (error) {
    first = error;
  }
  if (first.name === 'NotAllowedError') return microphoneUnlessDenied(first);
  const attempts = [
    [{ audio: microphone }, `${cameraTrouble(first)} You join with sound only.`],
    [{ video: CAMERA }, 'No microphone can be used. The others see you but do not hear you.'],
  ];
  for (const [constraints, notice] of attempts) {
    try {
      return { stream: await open(constraints), notice };
    } catch (error) {
      if (error.name === 'NotAllowedError') throw explain(error);
    }
  }
  throw explain(first);
}

/** One fresh camera track, for a camera that was switched off or plugged in later. */
export async function openCamera() {
  return (await openOne({ video: CAMERA })).getVideoTracks()[0];
}

/** One fresh microphone track. */
export async function openMicrophone() {
  return (await openOne({ audio: microphone })).getAudioTracks()[0];
}

/** A screen, window or tab with its sound where the browser gives it; null when the user closes the chooser. */
export async function openScreen() {
  try {
    const stream = await navigator.mediaDevices.getDisplayMedia(SCREEN);
    for (const track of stream.getVideoTracks()) track.contentHint = 'detail';
    return stream;
  } catch (error) {
    if (error.name === 'NotAllowedError' || error.name === 'AbortError') return null;
    throw new MediaError(`The screen cannot be shared (${error.message}).`, error);
  }
}

/** Ends every track: the camera's light goes out. */
export function stop(stream) {
  for (const track of stream?.getTracks() ?? []) track.stop();
}

async function open(constraints) {
  try {
    return await navigator.mediaDevices.getUserMedia(constraints);
  } catch (error) {
    if (error.name !== 'OverconstrainedError') throw error;
    const plain = Object.fromEntries(Object.keys(constraints).map((kind) => [kind, true]));
    return navigator.mediaDevices.getUserMedia(plain);
  }
}

async function openOne(constraints) {
  const obstacle = captureObstacle();
  if (obstacle) throw new MediaError(obstacle);
  try {
    return await open(constraints);
  } catch (error) {
    throw explain(error);
  }
}

/** The camera was refused. Where the microphone alone is allowed already, go on with it; never ask twice. */
async function microphoneUnlessDenied(refusal) {
  const state = await permission('microphone');
  if (state !== 'granted') throw explain(refusal);
  try {
    const stream = await open({ audio: microphone });
    return { stream, notice: 'The browser refuses the camera on this page. You join with sound only.' };
  } catch (error) {
    throw explain(error);
  }
}

async function permission(name) {
  try {
    return (await navigator.permissions.query({ name })).state;
  } catch {
    return 'unknown'; // Firefox before 131 does not know these names.
  }
}

function cameraTrouble(error) {
  return error.name === 'NotReadableError'
    ? 'The camera is used by another program or cannot be started.'
    : 'No camera was found.';
}

function explain(error) {
  const texts = {
    NotAllowedError: 'The browser refuses camera and microphone on this page. Allow them in the site settings '
      + '(the icon beside the address) and press Start again, or join as a viewer.',
    NotFoundError: 'No camera and no microphone was found. Plug one in and press Start again, or join as a viewer.',
    NotReadableError: 'Camera and microphone cannot be started; another program may be using them. '
      + 'Close it and press Start again, or join as a viewer.',
    SecurityError: 'The browser forbids camera and microphone for this page. You can join as a viewer.',
  };
  return new MediaError(texts[error.name] ?? `Camera and microphone cannot be used (${error.message}).`, error);
}
