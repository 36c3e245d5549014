import { readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { machine } from './machine.js';
import { buildTree } from './process/build.js';
import { writeReport } from './profile/report.js';
import { compare, comparedByDefault } from './report/compare.js';
import { type Figure, readResults, writeResults } from './report/figure.js';
import { drawPlots } from './report/plots.js';
import { Progress } from './report/progress.js';
import { findRegressions, findRepeatedRegressions, formatRegression } from './report/smoke.js';
import { buildTable } from './report/table.js';
import { Bench, type BenchOptions, type Subject } from './subject.js';

const subjectNames = [
  'footprint',
  'fan-out',
  'batch',
  'publish',
  'requests',
  'logins',
  'login-storm',
  'growth',
  'memory',
  'resume',
] as const;

/** Number of runs when a regression is measured again: enough to rule out a deviation by chance. */
const repeatRuns = 7;

/** Durations of a subject relative to its `seconds`, which are those of five full runs. */
const profilePace = 0.5;
const smokePace = 0.05;

/** Name of the stored results of a smoke run, which later smoke runs are compared with. */
const smokeName = 'smoke';

const usage = `Measures a build of Herald against its references, on this machine.

Usage: npm run bench [-- [--runs <n>] [--smoke [--keep]] [<subject> ...]]
       npm run bench -- --profile [<subject> ...]
       npm run bench -- --compare <git ref> [--runs <n>] [<subject> ...]

  --runs    number of runs of each measurement; default 5, or 3 in a smoke run
  --smoke   short run, under two minutes; fails when a ratio is worse by more than 1.5 times
            than both its goal and the smoke run in bench/results, and the same is true
            when it is measured again, with 7 runs
  --keep    stores this smoke run as the baseline of later smoke runs
  --profile profiles the CPU with V8's profiler and writes bench/profiles. Linux only
  --compare measures the working tree and the build of a git ref in turn, 5 times, and prints
            the ratio of each figure; measures no references and stores nothing. Subjects by
            default: ${comparedByDefault.join(', ')}

Subjects: ${subjectNames.join(', ')}`;

type Arguments = ReturnType<typeof readArguments>;

interface Outcome {
  readonly figures: readonly Figure[];
  /** Subjects that could not be measured. */
  readonly failed: readonly string[];
}

async function main(): Promise<void> {
  let args: Arguments;
  try {
    args = readArguments();
  } catch (cause) {
    const problem = cause instanceof Error ? cause.message : String(cause);
    process.stderr.write(`Cannot read arguments: ${problem}\n\n${usage}\n`);
    process.exitCode = 2;
    return;
  }
  const { values, runs } = args;
  if (values.help) {
    process.stdout.write(`${usage}\n`);
    return;
  }
  const byDefault = values.compare === undefined ? subjectNames : comparedByDefault;
  const chosen = args.subjects.length === 0 ? byDefault : args.subjects;
  const subjects = await Promise.all(chosen.map(loadSubject));
  if (values.compare !== undefined) return compare(values.compare, subjects, runs);
  buildTree();
  if (values.profile) return profileAll(subjects);
  const { keep } = values;
  const { figures, failed } = values.smoke
    ? await runSmoke(
        subjects.filter((one) => !one.isTooNoisyForSmoke),
        { keep, runs },
      )
    : await runFull(subjects, runs);
  process.stdout.write(`${machine.cpu}, Node ${machine.node}\n\n${buildTable(figures)}\n`);
  for (const { what, note } of figures) {
    if (note !== undefined) process.stdout.write(`- ${what}: ${note}\n`);
  }
  for (const name of failed) process.stdout.write(`Not measured, see the error above: ${name}\n`);
  if (failed.length > 0) process.exitCode = 1;
}

/** Parses the command line. Throws for unknown or conflicting arguments. */
function readArguments() {
  const { values, positionals } = parseArgs({
    options: {
      smoke: { type: 'boolean', default: false },
      keep: { type: 'boolean', default: false },
      profile: { type: 'boolean', default: false },
      compare: { type: 'string' },
      runs: { type: 'string' },
      help: { type: 'boolean', default: false },
    },
    allowPositionals: true,
  });
  const { smoke, keep, profile } = values;
  const isCompared = values.compare !== undefined;
  const unknown = positionals.find((name) => !(subjectNames as readonly string[]).includes(name));
  if (unknown !== undefined) throw new Error(`there is no subject '${unknown}'`);
  if (Number(smoke) + Number(profile) + Number(isCompared) > 1) {
    throw new Error('--smoke, --profile and --compare cannot be combined');
  }
  if (keep && !smoke) throw new Error('--keep requires --smoke');
  const runs = values.runs === undefined ? undefined : Number(values.runs);
  if (runs !== undefined && profile) throw new Error('--runs and --profile cannot be combined');
  if (runs !== undefined && !(Number.isInteger(runs) && runs >= 1 && runs <= 100)) {
    throw new Error('--runs must be a whole number from 1 to 100');
  }
  return { values, runs, subjects: positionals };
}

async function runFull(subjects: readonly Subject[], runs: number | undefined): Promise<Outcome> {
  const outcome = await runAll(subjects, { smoke: false, runs });
  const stored = subjectNames.flatMap(readResults);
  writeTable(stored);
  await drawPlots(stored);
  return outcome;
}

async function runSmoke(
  subjects: readonly Subject[],
  { keep, runs }: { keep: boolean; runs: number | undefined },
): Promise<Outcome> {
  const first = await runAll(subjects, { smoke: true, runs });
  if (keep && first.failed.length === 0) writeResults(smokeName, first.figures);
  const stored = readResults(smokeName);
  const suspects = new Set(findRegressions(first.figures, stored).map(({ subject }) => subject));
  if (suspects.size === 0) return first;
  process.stderr.write(`Measuring regressed subjects again: ${[...suspects].join(', ')}\n`);
  const repeated = subjects.filter(({ name }) => suspects.has(name));
  const second = await runAll(repeated, { smoke: true, runs: runs ?? repeatRuns });
  for (const regression of findRepeatedRegressions(first.figures, second.figures, stored)) {
    process.exitCode = 1;
    process.stdout.write(`${formatRegression(regression)}\n`);
  }
  const unsuspected = first.figures.filter(({ subject }) => !suspects.has(subject));
  return {
    figures: [...unsuspected, ...second.figures],
    failed: [...first.failed, ...second.failed],
  };
}

/**
 * Profiles the subjects one by one and prints their reports. Skips subjects without a `profile`.
 */
async function profileAll(chosen: readonly Subject[]): Promise<void> {
  const subjects = chosen.filter(({ profile }) => profile !== undefined);
  const progress = new Progress(subjects, profilePace);
  for (const subject of subjects) {
    process.stderr.write(`${progress.startText}\n`);
    const startedAt = performance.now();
    const bench = new Bench({ profile: true });
    try {
      await subject.run(bench);
      process.stdout.write(`${writeReport(subject, bench.profiledRuns)}\n`);
    } finally {
      await bench.end();
    }
    process.stderr.write(`${progress.finish((performance.now() - startedAt) / 1000)}\n`);
  }
}

/**
 * Runs the subjects one by one. Except in a smoke run, stores the results of each subject as soon as it
 * has finished, so that a later failure does not lose them.
 */
async function runAll(subjects: readonly Subject[], options: BenchOptions): Promise<Outcome> {
  const bench = new Bench(options);
  const figures: Figure[] = [];
  const failed: string[] = [];
  const progress = new Progress(subjects, bench.isShort ? smokePace : bench.runs / 5);
  for (const subject of subjects) {
    process.stderr.write(`${progress.startText}\n`);
    const startedAt = performance.now();
    try {
      const subjectFigures = await subject.run(bench);
      if (!options.smoke) writeResults(subject.name, subjectFigures);
      figures.push(...subjectFigures);
      await bench.closeAll();
    } catch (cause) {
      failed.push(subject.name);
      const text = cause instanceof Error ? cause.stack : String(cause);
      process.stderr.write(`${subject.name} failed: ${text}\n`);
      await bench.closeAll();
    }
    const seconds = (performance.now() - startedAt) / 1000;
    process.stderr.write(`${progress.finish(seconds)}\n`);
  }
  await bench.end();
  return { figures, failed };
}

async function loadSubject(name: string): Promise<Subject> {
  const { subject } = (await import(new URL(`./subjects/${name}.ts`, import.meta.url).href)) as {
    subject: Subject;
  };
  return subject;
}

/** Replaces the table of results in `bench/README.md`. */
function writeTable(figures: readonly Figure[]): void {
  const readme = fileURLToPath(new URL('./README.md', import.meta.url));
  const text = readFileSync(readme, 'utf8');
  const table = `<!-- results -->\n\n${buildTable(figures)}\n\n<!-- /results -->`;
  const updated = text.replace(/<!-- results -->[\s\S]*<!-- \/results -->/, () => table);
  writeFileSync(readme, updated);
}

await main();
