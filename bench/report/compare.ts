import { inspect } from 'node:util';
import { machine } from '../machine.js';
import {
  type Build,
  BuildError,
  buildTree,
  createRefBuild,
  type RefBuild,
  resolveRef,
  treeBuild,
} from '../process/build.js';
import { Bench, type Subject } from '../subject.js';
import { createFigure, type Figure, runInterleaved } from './figure.js';
import { Progress } from './progress.js';
import { buildMarkdownTable, formatNumber, formatSpread, getDescription } from './table.js';

/** The subjects that a comparison measures by default: the hot paths. */
export const comparedByDefault = [
  'fan-out',
  'publish',
  'requests',
  'logins',
  'memory',
  'resume',
] as const;

const runsByDefault = 5;
/** Expected duration of a run in a comparison, relative to a full run. */
const comparisonDurationRatio = 0.25;

/**
 * Measures the working tree and a git ref in turn and prints a ratio for each figure. Sets the exit
 * code: 1 when a subject could not be measured, 2 when the ref does not exist. Throws `BuildError`.
 */
export async function compare(
  ref: string,
  subjects: readonly Subject[],
  runs = runsByDefault,
): Promise<void> {
  let commit: string;
  try {
    commit = resolveRef(ref);
  } catch (cause) {
    if (!(cause instanceof BuildError)) throw cause;
    process.stderr.write(`${cause.message}\n`);
    process.exitCode = 2;
    return;
  }
  const shortCommit = commit.slice(0, 8);
  const name = commit.startsWith(ref) ? shortCommit : `${ref} (${shortCommit})`;
  const comparison = new Comparison(createRefBuild(name, commit), runs);
  const interrupt = (signal: NodeJS.Signals) => void comparison.interrupt(signal);
  process.on('SIGINT', interrupt).on('SIGTERM', interrupt);
  try {
    await comparison.run(subjects);
  } finally {
    await comparison.end();
    process.off('SIGINT', interrupt).off('SIGTERM', interrupt);
  }
}

class Comparison {
  readonly #other: RefBuild;
  readonly #runs: number;
  #bench: Bench | undefined;
  #isInterrupted = false;

  constructor(other: RefBuild, runs: number) {
    this.#other = other;
    this.#runs = runs;
  }

  async run(subjects: readonly Subject[]): Promise<void> {
    process.stderr.write(`building this tree and ${this.#other.name}\n`);
    buildTree();
    this.#other.make();
    const figures: Figure[] = [];
    const failed: string[] = [];
    // The builds block the event loop, so signals that arrived during them are handled only here.
    await new Promise(setImmediate);
    const progress = new Progress(subjects, (this.#runs / 5) * comparisonDurationRatio);
    for (const subject of subjects) {
      if (this.#isInterrupted) return;
      process.stderr.write(`${progress.startText}\n`);
      const startedAt = performance.now();
      try {
        const subjectFigures = await this.#measure(subject);
        if (subjectFigures.length === 0) failed.push(subject.name);
        figures.push(...subjectFigures);
      } catch (cause) {
        if (this.#isInterrupted) return;
        failed.push(subject.name);
        process.stderr.write(`${subject.name} failed: ${inspect(cause)}\n`);
      }
      process.stderr.write(`${progress.finish((performance.now() - startedAt) / 1000)}\n`);
    }
    process.stdout.write(`${machine.cpu}, Node ${machine.node}\n\n`);
    process.stdout.write(`${buildComparisonTable(this.#other.name, figures)}\n`);
    for (const name of failed) process.stdout.write(`Not measured, see the error above: ${name}\n`);
    if (failed.length > 0) process.exitCode = 1;
  }

  /** Stops the current measurement, removes the worktree and ends the process. */
  async interrupt(signal: NodeJS.Signals): Promise<void> {
    if (this.#isInterrupted) return;
    this.#isInterrupted = true;
    process.stderr.write(`${signal}: cleaning up\n`);
    try {
      await this.end();
    } finally {
      process.exit(signal === 'SIGINT' ? 130 : 143);
    }
  }

  async end(): Promise<void> {
    try {
      await this.#bench?.end();
    } finally {
      this.#other.remove();
    }
  }

  async #measure(subject: Subject): Promise<Figure[]> {
    const { tree, other } = await runInterleaved(
      this.#runs,
      {
        tree: () => this.#measureOnce(subject, treeBuild),
        other: () => this.#measureOnce(subject, this.#other),
      },
      (round) => process.stderr.write(`  run ${round} of ${this.#runs}\n`),
    );
    return compareFigures(this.#other.name, tree, other);
  }

  /**
   * Measures a build once. Starts new processes, so that the spread includes differences between
   * processes.
   */
  async #measureOnce(subject: Subject, build: Build): Promise<readonly Figure[]> {
    if (this.#isInterrupted) throw new Error('Cannot measure: interrupted');
    const bench = new Bench({ compared: build });
    this.#bench = bench;
    try {
      return await subject.run(bench);
    } catch (cause) {
      throw new Error(`Cannot measure ${build.name}`, { cause });
    } finally {
      await bench.end();
    }
  }
}

/**
 * Returns one figure for each figure that all runs of both builds have measured. Its `runs` are the
 * values of this tree, and its `reference` has the values of the other build. Figures of reference
 * programs are missing, because a comparison does not run these programs.
 */
export function compareFigures(
  otherName: string,
  tree: readonly (readonly Figure[])[],
  other: readonly (readonly Figure[])[],
): Figure[] {
  const getValues = (runs: typeof tree, { subject, what }: Figure) =>
    runs.map(
      (run) =>
        run.find((one) => one.subject === subject && one.what === what)?.median ?? Number.NaN,
    );
  return (tree[0] ?? []).flatMap((one) => {
    const { subject, what, parameters, unit } = one;
    const [treeValues, otherValues] = [getValues(tree, one), getValues(other, one)];
    if (![...treeValues, ...otherValues].every(Number.isFinite)) return [];
    const reference = { what: otherName, runs: otherValues };
    return [createFigure({ subject, what, parameters, unit, runs: treeValues, reference })];
  });
}

/** Formats a table: the median of each build, and the median, minimum and maximum of the ratios. */
export function buildComparisonTable(otherName: string, figures: readonly Figure[]): string {
  const columns = ['subject', 'what', 'this tree', otherName, 'ratio, median (min to max)'];
  const rows = figures.map((one) => [
    one.subject,
    getDescription(one),
    `${formatNumber(one.median)} ${one.unit}`.trim(),
    `${formatNumber(one.reference?.median ?? Number.NaN)} ${one.unit}`.trim(),
    one.ratio === undefined ? '' : formatSpread(one.ratio),
  ]);
  return buildMarkdownTable(columns, rows);
}
