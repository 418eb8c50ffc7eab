// A person's picture, made small enough for the server: `avatar` takes 64 KiB.

const SIDE = 320;

/** A square JPEG of the middle of an image file, as a data URL. */
export async function toAvatar(file) {
  const image = await createImageBitmap(file);
  const side = Math.min(image.width, image.height);
  const canvas = document.createElement('canvas');
  canvas.width = canvas.height = SIDE;
  const pen = canvas.getContext('2d');
  // Transparent parts are white, as on the server.
  pen.fillStyle = 'white';
  pen.fillRect(0, 0, SIDE, SIDE);
  pen.drawImage(image, (image.width - side) / 2, (image.height - side) / 2, side, side, 0, 0, SIDE, SIDE);
  image.close();
  return canvas.toDataURL('image/jpeg', 0.85);
}
