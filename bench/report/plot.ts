import { mkdirSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

export interface Plot {
  readonly title: string;
  readonly x: Axis;
  readonly y: Axis;
  readonly lines: readonly Line[];
}

export interface Axis {
  readonly name: string;
  /** Logarithmic, base 10; values must be above 0. */
  readonly isLog?: boolean;
}

export interface Line {
  readonly name: string;
  readonly points: readonly (readonly [x: number, y: number])[];
}

/** The d3 functions for scales, ticks and paths. d3 is one of the packages of `bench/peers`. */
type Drawing = typeof import('../peers/drawing.js');

const [width, height] = [760, 400];
const margins = { left: 70, right: 200, top: 40, bottom: 50 };
const [right, bottom] = [width - margins.right, height - margins.bottom];
const colours = ['#1f6f8b', '#c8553d', '#6a994e', '#7b5ea7'];
const dotsMax = 60;

/** Draws `plots/<name>.svg`: axes, ticks and lines; a line with at most `dotsMax` points has dots. */
export async function drawPlot(name: string, content: Plot): Promise<void> {
  const drawing = await import('../peers/drawing.js');
  const folder = fileURLToPath(new URL('../plots/', import.meta.url));
  mkdirSync(folder, { recursive: true });
  writeFileSync(`${folder}${name}.svg`, renderSvg(drawing, content));
}

function renderSvg(drawing: Drawing, { title, x, y, lines }: Plot): string {
  const points = lines.flatMap((line) => line.points);
  const xScale = buildScale(
    drawing,
    x,
    points.map((point) => point[0]),
  ).range([margins.left, right]);
  const yScale = buildScale(
    drawing,
    y,
    points.map((point) => point[1]),
  ).range([bottom, margins.top]);
  const rotation = `transform="translate(16 ${(bottom + margins.top) / 2}) rotate(-90)"`;
  const [formatX, formatY] = [xScale.tickFormat(6), yScale.tickFormat(6)];
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" font-family="sans-serif" font-size="12">`,
    `<rect width="${width}" height="${height}" fill="#fff"/>`,
    text([margins.left, 22], title, 'font-weight="bold" font-size="14"'),
    text([(margins.left + right) / 2, height - 12], x.name, 'text-anchor="middle"'),
    text([0, 0], y.name, `text-anchor="middle" ${rotation}`),
    ...xScale
      .ticks(6)
      .flatMap((tick) => [
        `<path d="M${rounded(xScale(tick))} ${bottom}V${margins.top}" stroke="#e4e4e4"/>`,
        text([xScale(tick), bottom + 18], formatX(tick), 'text-anchor="middle"'),
      ]),
    ...yScale
      .ticks(6)
      .flatMap((tick) => [
        `<path d="M${margins.left} ${rounded(yScale(tick))}H${right}" stroke="#e4e4e4"/>`,
        text([margins.left - 8, yScale(tick) + 4], formatY(tick), 'text-anchor="end"'),
      ]),
    ...lines.map(({ name, points: values }, index) => {
      const colour = colours[index % colours.length] ?? '#000';
      const points = values.map(
        ([valueX, valueY]) => [rounded(xScale(valueX)), rounded(yScale(valueY))] as const,
      );
      const dots = points.length > dotsMax ? [] : points;
      return [
        `<path d="${drawing.line()(points)}" fill="none" stroke="${colour}" stroke-width="2"/>`,
        ...dots.map(([cx, cy]) => `<circle cx="${cx}" cy="${cy}" r="3" fill="${colour}"/>`),
        text([right + 12, margins.top + 16 + index * 18], name, `fill="${colour}"`),
      ].join('\n');
    }),
    '</svg>\n',
  ].join('\n');
}

/** Builds a scale for the values that starts and ends at round numbers. A linear scale starts at 0. */
function buildScale(
  { scaleLinear, scaleLog }: Drawing,
  { isLog }: Axis,
  values: readonly number[],
) {
  const largest = Math.max(...values);
  return isLog === true
    ? scaleLog()
        .domain([Math.min(...values), largest])
        .nice()
    : scaleLinear().domain([0, largest]).nice();
}

function rounded(position: number): number {
  return Math.round(position * 10) / 10;
}

function text([x, y]: readonly [number, number], content: string, attributes: string): string {
  const safe = content.replaceAll('&', '&amp;').replaceAll('<', '&lt;');
  return `<text x="${rounded(x)}" y="${rounded(y)}" ${attributes}>${safe}</text>`;
}
