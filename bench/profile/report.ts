import { mkdirSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { machine } from '../machine.js';
import { markdown, numberText } from '../report/table.js';
import type { Subject } from '../subject.js';
import { buildBreakdown, type Share } from './breakdown.js';
import { flameGraph } from './flame.js';
import type { ProfiledRun } from './profiled-run.js';

const folder = fileURLToPath(new URL('../profiles/', import.meta.url));

/** Parts below this share of every column are merged into one row per kind. */
const rowMin = 0.01;

interface Column {
  readonly name: string;
  readonly window: ProfiledRun;
  readonly shares: readonly Share[];
}

/** Writes `profiles/<subject>.md` and a flame graph beside it. Returns the text. */
export function writeReport(subject: Subject, windows: ReadonlyMap<string, ProfiledRun>): string {
  const { name, profile } = subject;
  if (profile === undefined) throw new Error(`Cannot profile ${name}: it has no windows`);
  const columns = [...windows].map(([title, window]) => ({
    ...{ name: title, window },
    shares: buildBreakdown(window),
  }));
  const drawn = windows.get(profile.drawn);
  const text = `# What \`${name}\` costs

\`npm run bench -- ${name} --profile\`, ${new Date().toISOString().slice(0, 10)}, ${machine.cpu},
Node ${machine.node}. Microseconds of CPU for one ${profile.operation}, all threads. The second
of two runs, with V8's profiler on, which makes it dearer; see "Where the CPU goes" in [the README](../README.md).

${buildTable(columns, ({ shares }) => sumBy(shares, ({ kind }) => kind), [buildKernelRow(columns)])}

Closer, without what has less than ${rowMin * 100} % of every column:

${buildTable(columns, ({ shares }) => sumBy(shares, getColumnName(columns)))}
${formatNativeCounts(columns)}${drawn === undefined ? '' : `\nThe main thread of *${profile.drawn}*, without sleep:\n\n![](${name}.svg)\n`}`;
  mkdirSync(folder, { recursive: true });
  writeFileSync(`${folder}${name}.md`, text);
  if (drawn !== undefined) {
    const title = `${name}: ${profile.drawn}, main thread`;
    writeFileSync(`${folder}${name}.svg`, flameGraph(title, drawn));
  }
  return text;
}

function formatNativeCounts(columns: readonly Column[]): string {
  if (columns.every(({ window }) => Object.keys(window.native).length === 0)) return '';
  return `
By the machine code at the top, all threads but the profiler's, as \`perf\` sees it:

${buildTable(columns, getNativeCounts)}
`;
}

/** Scales the samples of `perf` to the CPU without the profiler's thread. */
function getNativeCounts({ window, shares }: Column): Map<string, number> {
  const cpu = sumOf(shares.filter(({ kind }) => kind !== 'the profiler itself'));
  const counts = Object.entries(window.native);
  const all = counts.reduce((sum, [, count]) => sum + count, 0);
  return new Map(counts.map(([name, count]) => [name, (count / all) * cpu]));
}

function buildTable(
  columns: readonly Column[],
  getCells: (column: Column) => Map<string, number>,
  after: readonly (readonly string[])[] = [],
): string {
  const cells = columns.map(getCells);
  const sums = cells.map((column) => [...column.values()].reduce((sum, value) => sum + value, 0));
  const getLargestShare = (row: string) =>
    Math.max(...cells.map((column, index) => (column.get(row) ?? 0) / (sums[index] ?? 1)));
  const rows = [...new Set(cells.flatMap((column) => [...column.keys()]))]
    .sort((a, b) => getLargestShare(b) - getLargestShare(a))
    .map((row) => [row, ...cells.map((column) => micros(column.get(row) ?? 0))]);
  const all = ['**all**', ...sums.map(micros)];
  return markdown(['', ...columns.map(({ name }) => name)], [...rows, all, ...after]);
}

/** Returns a function that names a part, or the rest of its kind if it is small in all columns. */
function getColumnName(columns: readonly Column[]): (share: Share) => string {
  const large = new Set(
    columns.flatMap(({ shares }) => {
      const sum = sumOf(shares);
      return shares.filter((one) => one.micros >= rowMin * sum).map((one) => one.name);
    }),
  );
  return ({ kind, name }) => (large.has(name) ? name : `the rest: ${kind}`);
}

function buildKernelRow(columns: readonly Column[]): string[] {
  const cells = columns.map(({ window: { main, others, operations } }) =>
    micros([main, ...others].reduce((sum, { kernel }) => sum + kernel, 0) / operations),
  );
  return ['of it, in the kernel', ...cells];
}

function sumOf(shares: readonly Share[]): number {
  return shares.reduce((sum, share) => sum + share.micros, 0);
}

function sumBy(shares: readonly Share[], getKey: (share: Share) => string): Map<string, number> {
  const sums = new Map<string, number>();
  for (const share of shares) {
    const key = getKey(share);
    sums.set(key, (sums.get(key) ?? 0) + share.micros);
  }
  return sums;
}

function micros(value: number): string {
  return value === 0 ? '' : numberText(value);
}
