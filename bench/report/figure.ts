import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { machine } from '../machine.js';

export type Unit = 'us' | 'ms' | 's' | '/s' | 'KiB' | 'MiB' | 'events' | '';

/** Median and range of several runs. */
export interface Spread {
  readonly median: number;
  readonly min: number;
  readonly max: number;
}

/** A bound on the ratio to the reference, or on the value itself. */
export interface Goal {
  readonly on: 'ratio' | 'value';
  readonly is: '<=' | '>=';
  readonly bound: number;
}

/** A measured value with the context that is needed to interpret it. */
export interface Figure extends Spread {
  readonly subject: string;
  readonly what: string;
  readonly parameters: Readonly<Record<string, string | number>>;
  readonly unit: Unit;
  readonly runs: readonly number[];
  readonly reference?: { readonly what: string; readonly runs: readonly number[] } & Spread;
  /** The spread of the ratios of each run, so that a slowdown of the whole machine does not affect it. */
  readonly ratio?: Spread;
  readonly goal?: Goal;
  readonly isGoalReached?: boolean;
  /** A caveat, such as a limit of the method or a load that was the bottleneck. */
  readonly note?: string;
  /**
   * Whether the ratio hardly changes on a busy machine. True for ratios of CPU time and memory, false for
   * ratios of rates and latencies.
   */
  readonly isStableUnderLoad?: boolean;
  /** Points of a plot: pairs of x and y. */
  readonly curve?: readonly (readonly [x: number, y: number])[];
}

export interface FigureParts
  extends Pick<
    Figure,
    | 'subject'
    | 'what'
    | 'parameters'
    | 'unit'
    | 'runs'
    | 'goal'
    | 'note'
    | 'isStableUnderLoad'
    | 'curve'
  > {
  readonly reference?: { readonly what: string; readonly runs: readonly number[] };
}

const folder = fileURLToPath(new URL('../results', import.meta.url));

/**
 * Creates a figure: computes its spread, its ratio to the reference, and whether the goal is reached.
 */
export function createFigure({ reference, goal, ...parts }: FigureParts): Figure {
  const { runs } = parts;
  const spread = computeSpread(runs);
  const roundedReference = reference && { ...reference, runs: roundToFourDigits(reference.runs) };
  const ratio =
    reference &&
    computeSpread(runs.map((run, index) => run / (reference.runs[index] ?? Number.NaN)));
  const goalValue = goal?.on === 'ratio' ? ratio?.median : spread.median;
  const { is, bound = 0 } = goal ?? {};
  const isGoalReached =
    goalValue !== undefined && (is === '<=' ? goalValue <= bound : goalValue >= bound);
  return {
    ...parts,
    runs: roundToFourDigits(runs),
    ...spread,
    ...(roundedReference && {
      reference: { ...roundedReference, ...computeSpread(reference.runs) },
    }),
    ...(ratio && { ratio }),
    ...(goal && { goal, isGoalReached }),
  };
}

/** Computes median and range, rounded to four significant digits. Without values, all three are NaN. */
export function computeSpread(values: readonly number[]): Spread {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = (sorted.length - 1) / 2;
  const low = sorted[Math.floor(middle)] ?? Number.NaN;
  const high = sorted[Math.ceil(middle)] ?? Number.NaN;
  const [median = 0, min = 0, max = 0] = roundToFourDigits([
    (low + high) / 2,
    sorted[0] ?? Number.NaN,
    sorted.at(-1) ?? Number.NaN,
  ]);
  return { median, min, max };
}

/** Creates the figure of the server's event loop delay. `circumstance` says when it was measured. */
export function createDelayFigure(
  parts: Pick<FigureParts, 'subject' | 'parameters' | 'runs'>,
  circumstance: string,
): Figure {
  return createFigure({ ...parts, what: `event loop delay, p99, ${circumstance}`, unit: 'ms' });
}

/** Rounds to four significant digits, because measurements are not more precise. */
function roundToFourDigits(values: readonly number[]): number[] {
  return values.map((value) => Number(value.toPrecision(4)));
}

/**
 * Runs the measurements in turn, `times` times each, with the order reversed in every second round, so
 * that drift of the machine affects all measurements equally.
 */
export async function runInterleaved<Name extends string, Result>(
  times: number,
  measurements: Readonly<Record<Name, () => Promise<Result>>>,
  onRound: (round: number) => void,
): Promise<Record<Name, Result[]>> {
  const names = Object.keys(measurements) as Name[];
  const results = Object.fromEntries(names.map((name) => [name, [] as Result[]]));
  for (let round = 0; round < times; round += 1) {
    onRound(round + 1);
    const order = round % 2 === 0 ? names : names.toReversed();
    for (const name of order) results[name]?.push(await measurements[name]());
  }
  return results as Record<Name, Result[]>; // Safe: `results` has these names.
}

/** Stores figures under a name, one per line, and replaces those that were stored under it. */
export function writeResults(name: string, figures: readonly Figure[]): void {
  mkdirSync(folder, { recursive: true });
  const date = new Date().toISOString().slice(0, 10);
  const lines = figures.map((one) => `${JSON.stringify({ ...one, ...machine, at: date })}\n`);
  writeFileSync(join(folder, `${name}.jsonl`), lines.join(''));
}

/** Returns the figures that are stored under a name, or an empty array. */
export function readResults(name: string): Figure[] {
  const file = join(folder, `${name}.jsonl`);
  if (!existsSync(file)) return [];
  return readFileSync(file, 'utf8')
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line) as Figure);
}
