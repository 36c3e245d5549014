import { mkdirSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { machine } from '../machine.js';
import { buildMarkdownTable, formatNumber } from '../report/table.js';
import type { Subject } from '../subject.js';
import { buildBreakdown, type Share } from './breakdown.js';
import { renderFlameGraph } from './flame.js';
import type { ProfiledRun } from './profiled-run.js';

const folder = fileURLToPath(new URL('../profiles/', import.meta.url));

/** Origins below this share of every column are merged into one row per kind. */
const rowShareMin = 0.01;

interface Column {
  readonly name: string;
  readonly run: ProfiledRun;
  readonly shares: readonly Share[];
}

/** Writes `profiles/<subject>.md` and a flame graph beside it. Returns the text of the report. */
export function writeReport(subject: Subject, runs: ReadonlyMap<string, ProfiledRun>): string {
  const { name, profile } = subject;
  if (profile === undefined) throw new Error(`Cannot profile ${name}: it defines no profile`);
  const columns = [...runs].map(([title, run]) => ({
    ...{ name: title, run },
    shares: buildBreakdown(run),
  }));
  const flameGraphRun = runs.get(profile.flameGraphRun);
  const text = `# CPU profile of the benchmark \`${name}\`

\`npm run bench -- ${name} --profile\`, ${new Date().toISOString().slice(0, 10)}, ${machine.cpu},
Node ${machine.node}. Microseconds of CPU time per ${profile.operation}, all threads, from the second of
two runs. V8's profiler adds to the cost; see "Where the CPU goes" in [the README](../README.md).${profile.columns === undefined ? '' : `\n\n${profile.columns}`}

${buildTable(columns, ({ shares }) => sumBy(shares, ({ kind }) => kind), [buildKernelRow(columns)])}

The same CPU time by file, module, package and thread. Rows below ${rowShareMin * 100} % of every column are merged by kind:

${buildTable(columns, ({ shares }) => sumBy(shares, createRowNamer(columns)))}
${formatNativeCounts(columns)}${flameGraphRun === undefined ? '' : `\nFlame graph of the main thread during *${profile.flameGraphRun}*, without sleep:\n\n![](${name}.svg)\n`}`;
  mkdirSync(folder, { recursive: true });
  writeFileSync(`${folder}${name}.md`, text);
  if (flameGraphRun !== undefined) {
    const title = `${name}: ${profile.flameGraphRun}, main thread`;
    writeFileSync(`${folder}${name}.svg`, renderFlameGraph(title, flameGraphRun));
  }
  return text;
}

function formatNativeCounts(columns: readonly Column[]): string {
  if (columns.every(({ run }) => Object.keys(run.nativeCounts).length === 0)) return '';
  return `
The CPU time without the profiler's thread, by component of the machine code, from \`perf\` samples:

${buildTable(columns, getNativeCounts)}
`;
}

/** Converts the samples of `perf` to CPU time per operation, without the profiler's thread. */
function getNativeCounts({ run, shares }: Column): Map<string, number> {
  const cpuMicros = sumMicros(shares.filter(({ kind }) => kind !== "V8's CPU profiler"));
  const counts = Object.entries(run.nativeCounts);
  const sampleCount = counts.reduce((sum, [, count]) => sum + count, 0);
  return new Map(counts.map(([name, count]) => [name, (count / sampleCount) * cpuMicros]));
}

function buildTable(
  columns: readonly Column[],
  getCells: (column: Column) => Map<string, number>,
  extraRows: readonly (readonly string[])[] = [],
): string {
  const cells = columns.map(getCells);
  const sums = cells.map((column) => [...column.values()].reduce((sum, value) => sum + value, 0));
  const getLargestShare = (row: string) =>
    Math.max(...cells.map((column, index) => (column.get(row) ?? 0) / (sums[index] ?? 1)));
  const rows = [...new Set(cells.flatMap((column) => [...column.keys()]))]
    .sort((a, b) => getLargestShare(b) - getLargestShare(a))
    .map((row) => [row, ...cells.map((column) => micros(column.get(row) ?? 0))]);
  const totalRow = ['**all**', ...sums.map(micros)];
  return buildMarkdownTable(
    ['', ...columns.map(({ name }) => name)],
    [...rows, totalRow, ...extraRows],
  );
}

/** Returns a function that names the row of a share. Small shares of the same kind have one row. */
function createRowNamer(columns: readonly Column[]): (share: Share) => string {
  const large = new Set(
    columns.flatMap(({ shares }) => {
      const sum = sumMicros(shares);
      return shares.filter((one) => one.micros >= rowShareMin * sum).map((one) => one.name);
    }),
  );
  return ({ kind, name }) => (large.has(name) ? name : `${kind} (merged rows)`);
}

function buildKernelRow(columns: readonly Column[]): string[] {
  const cells = columns.map(({ run: { mainThread, otherThreads, operations } }) =>
    micros(
      [mainThread, ...otherThreads].reduce((sum, { kernelMicros }) => sum + kernelMicros, 0) /
        operations,
    ),
  );
  return ['of which kernel time as counted by the OS (10 ms steps, with the profiler)', ...cells];
}

function sumMicros(shares: readonly Share[]): number {
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
  return value === 0 ? '' : formatNumber(value);
}
