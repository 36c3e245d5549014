import { readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { machine } from './machine.js';
import { BuildError, buildTree } from './process/build.js';
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

/**
 * Default number of runs when a suspected regression is measured again. More than in the first measurement, so
 * that the median varies less.
 */
const repeatRuns = 7;

/** Expected durations of a profile and of a smoke run, relative to `Subject.seconds`. */
const profileDurationRatio = 0.5;
const smokeDurationRatio = 0.05;

/** Name of the stored results of the smoke run that later smoke runs are compared with. */
const smokeName = 'smoke';

const usage = `Builds Herald and measures it and its reference programs on this machine.

Usage: npm run bench [-- [--runs <n>] [--smoke [--keep]] [<subject> ...]]
       npm run bench -- --profile [<subject> ...]
       npm run bench -- --compare <git ref> [--runs <n>] [<subject> ...]

  --runs    number of runs of each measurement; default 5, or 3 in a smoke run
  --smoke   short run, under two minutes on an idle machine. Checks the ratios of CPU and memory.
            Exits with code 1 when a ratio is more than 1.5 times worse than its goal and more
            than 1.5 times worse than in the stored smoke run (bench/results), both in this run
            and when its subject is measured again (7 runs, or --runs)
  --keep    replaces the baseline of later smoke runs by this one, if no subject failed; also when
            it has regressions or measured only some subjects
  --profile profiles the server's CPU time with V8's profiler; writes bench/profiles. Linux only
  --compare measures the working tree and the build of a git ref in turn, 5 times or --runs
            times, and prints the ratio of each figure; measures no references and stores
            nothing. Default subjects: ${comparedByDefault.join(', ')}

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
        subjects.filter(({ isTooNoisyForSmoke }) => !isTooNoisyForSmoke),
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
  const isComparison = values.compare !== undefined;
  const unknown = positionals.find((name) => !(subjectNames as readonly string[]).includes(name));
  if (unknown !== undefined) throw new Error(`there is no subject '${unknown}'`);
  if (Number(smoke) + Number(profile) + Number(isComparison) > 1) {
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
  const stored = readResults(smokeName); // Before `writeResults`, which replaces them.
  if (keep && first.failed.length === 0) writeResults(smokeName, first.figures);
  const suspectNames = new Set(
    findRegressions(first.figures, stored).map(({ subject }) => subject),
  );
  if (suspectNames.size === 0) return first;
  process.stderr.write(`Measuring regressed subjects again: ${[...suspectNames].join(', ')}\n`);
  const repeated = subjects.filter(({ name }) => suspectNames.has(name));
  const second = await runAll(repeated, { smoke: true, runs: runs ?? repeatRuns });
  for (const regression of findRepeatedRegressions(first.figures, second.figures, stored)) {
    process.exitCode = 1;
    process.stdout.write(`${formatRegression(regression)}\n`);
  }
  const otherFigures = first.figures.filter(({ subject }) => !suspectNames.has(subject));
  return {
    figures: [...otherFigures, ...second.figures],
    failed: [...first.failed, ...second.failed],
  };
}

/**
 * Profiles the subjects one by one and prints their reports. Skips subjects without a `profile`.
 */
async function profileAll(chosen: readonly Subject[]): Promise<void> {
  const subjects = chosen.filter(({ profile }) => profile !== undefined);
  const progress = new Progress(subjects, profileDurationRatio);
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
  const progress = new Progress(subjects, bench.isShort ? smokeDurationRatio : bench.runs / 5);
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

try {
  await main();
} catch (cause) {
  if (!(cause instanceof BuildError)) throw cause;
  process.stderr.write(`${cause.message}\n`);
  process.exitCode = 1;
}
