// Where tiles go. Pure arithmetic: sizes in, rectangles out (CSS pixels).

/** Shapes a tile may take, width by height: a camera picture is cropped a little rather than framed in black. */
const WIDEST = 16 / 9;
const NARROWEST_LANDSCAPE = 4 / 3;
const NARROWEST_PORTRAIT = 3 / 4;

/** Size of the tiles beside a spotlight, as a share of the area's long side, within these pixels. */
const STRIP_SHARE = 0.2;
const STRIP_MIN = 96;
const STRIP_MAX = 260;

/**
 * The grid whose tiles cover most of `width` x `height`; the last row is centred.
 * Returns `count` rectangles `{x, y, width, height}` in reading order.
 */
export function grid(count, width, height, gap) {
  return pack(count, width, height, gap, width >= height ? NARROWEST_LANDSCAPE : NARROWEST_PORTRAIT);
}

/**
 * One large rectangle first, then `count - 1` small ones in a strip: at the right of a wide area, below a tall one.
 */
export function spotlight(count, width, height, gap) {
  if (count <= 1) return grid(count, width, height, gap).map(() => ({ x: 0, y: 0, width, height }));
  const wide = width >= height;
  const strip = Math.min(STRIP_MAX, Math.max(STRIP_MIN, (wide ? width : height) * STRIP_SHARE));
  const main = wide
    ? { x: 0, y: 0, width: width - strip - gap, height }
    : { x: 0, y: 0, width, height: height - strip - gap };
  const area = wide ? { width: strip, height } : { width, height: strip };
  const small = pack(count - 1, area.width, area.height, gap, NARROWEST_LANDSCAPE).map((tile) => ({
    ...tile,
    x: tile.x + (wide ? main.width + gap : 0),
    y: tile.y + (wide ? 0 : main.height + gap),
  }));
  return [main, ...small];
}

/** The rectangle of a picture of `ratio` that is shown whole and centred in `width` x `height`. */
export function contain(ratio, width, height) {
  const fitted = fit(width, height, ratio, ratio);
  return { x: (width - fitted.width) / 2, y: (height - fitted.height) / 2, ...fitted };
}

/** The grid whose tiles have the largest area, none narrower than `narrowest`. */
function pack(count, width, height, gap, narrowest) {
  if (count <= 0 || width <= 0 || height <= 0) return [];
  let best = null;
  for (let columns = 1; columns <= count; columns += 1) {
    const rows = Math.ceil(count / columns);
    const size = fit((width - gap * (columns - 1)) / columns, (height - gap * (rows - 1)) / rows, narrowest);
    if (!best || size.width * size.height > best.width * best.height + 0.5) best = { columns, rows, ...size };
  }
  return place(count, best, width, height, gap);
}

function fit(width, height, narrowest, widest = WIDEST) {
  if (width <= 0 || height <= 0) return { width: 0, height: 0 };
  if (width / height > widest) return { width: height * widest, height };
  if (width / height < narrowest) return { width, height: width / narrowest };
  return { width, height };
}

function place(count, { columns, rows, width: w, height: h }, width, height, gap) {
  const top = (height - rows * h - (rows - 1) * gap) / 2;
  return Array.from({ length: count }, (_, index) => {
    const row = Math.floor(index / columns);
    const inRow = Math.min(columns, count - row * columns);
    const left = (width - inRow * w - (inRow - 1) * gap) / 2;
    return { x: left + (index % columns) * (w + gap), y: top + row * (h + gap), width: w, height: h };
  });
}
