/** Small line plots as SVG: one panel for each quantity, side by side. */
export interface Panel {
  readonly title: string;
  readonly series: readonly {
    readonly name: string;
    /** In the order of x. */
    readonly points: readonly (readonly [x: number, y: number])[];
  }[];
}

const [WIDTH, HEIGHT] = [340, 220];
const [LEFT, RIGHT, TOP, BOTTOM] = [46, 12, 26, 36];
const COLOURS = ["#1f6feb", "#d1242f", "#1a7f37", "#8250df"];

/** @param xTitle what the horizontal axes of all panels show */
export function plot(xTitle: string, panels: readonly Panel[]): string {
  const content = panels.map((panel, index) =>
    `<g transform="translate(${index * WIDTH} 0)">${drawn(panel, xTitle)}</g>`
  );
  const width = WIDTH * panels.length;
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${HEIGHT}" width="${width}" ` +
    `height="${HEIGHT}" font-family="sans-serif" font-size="10"><rect width="100%" height="100%" ` +
    `fill="white"/>\n${content.join("\n")}\n</svg>\n`;
}

function drawn({ title, series }: Panel, xTitle: string): string {
  const all = series.flatMap(({ points }) => points);
  const most = { x: niceMaximum(all.map(([x]) => x)), y: niceMaximum(all.map(([, y]) => y)) };
  const x = (value: number) => round(LEFT + value / most.x * (WIDTH - LEFT - RIGHT));
  const y = (value: number) => round(HEIGHT - BOTTOM - value / most.y * (HEIGHT - TOP - BOTTOM));
  const text = (at: number, base: number, words: string, more = "") =>
    `<text x="${at}" y="${base}" ${more}>${words}</text>`;
  const parts = [text(LEFT, 14, title, 'font-weight="bold"')];
  for (const share of [0, 0.25, 0.5, 0.75, 1]) {
    const [vx, vy] = [share * most.x, share * most.y];
    parts.push(
      `<path d="M${x(0)} ${y(vy)}H${x(most.x)}" stroke="#ddd"/>`,
      text(LEFT - 4, y(vy) + 3, String(round(vy)), 'text-anchor="end"'),
      text(x(vx), HEIGHT - BOTTOM + 13, round(vx).toLocaleString("en"), 'text-anchor="middle"'),
    );
  }
  parts.push(text(WIDTH / 2, HEIGHT - 6, xTitle, 'text-anchor="middle"'));
  for (const [index, { name, points }] of series.entries()) {
    const colour = COLOURS[index % COLOURS.length];
    const line = points.map(([px, py]) => `${x(px)},${y(py)}`).join(" ");
    parts.push(
      `<polyline points="${line}" fill="none" stroke="${colour}" stroke-width="1.5"/>`,
      ...points.map(([px, py]) => `<circle cx="${x(px)}" cy="${y(py)}" r="2.5" fill="${colour}"/>`),
      text(LEFT + 8, TOP + 10 + 12 * index, name, `fill="${colour}"`),
    );
  }
  return parts.join("\n");
}

/** From zero to the next of 1, 2, 4, 5, 8, 10 times a power of ten. */
function niceMaximum(values: readonly number[]): number {
  const most = Math.max(...values, 1e-9);
  const power = 10 ** Math.floor(Math.log10(most));
  return power * ([1, 2, 4, 5, 8].find((factor) => factor * power >= most) ?? 10);
}

function round(value: number): number {
  return Math.round(value * 100) / 100;
}
