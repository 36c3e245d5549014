import { availableParallelism } from 'node:os';
import { parseArgs } from 'node:util';
import { type Mutant, readMutantFiles } from './mutants.js';
import { SourceTree, selectTests, type TestRun } from './source-tree.js';

const usage = `Applies one small fault (a mutant) at a time to the source and runs the test that must detect it.

Usage: npm run mutants [-- [--jobs <n>] [<filter> ...]]

  <filter>    only mutants with this text in their name, source file or test file
  --jobs <n>  number of tests that run in parallel; default: the number of cores, ${availableParallelism()}

The mutants are in test/mutants/*.json, one file per folder of src. Each is applied to a copy of the
working tree, in which its test must pass first.

Exit code: 0 when every mutant was killed, 1 when one survived or could not be tried, 2 for wrong
arguments.`;

type Outcome =
  | 'killed'
  | 'SURVIVED'
  /** `before` does not occur exactly once in the source, or another error prevented the test. */
  | 'DOES NOT APPLY'
  /** The test fails without the mutant. */
  | 'TEST DOES NOT PASS'
  | 'TEST DID NOT END'
  /** The source with the mutant cannot be loaded. */
  | 'TEST DID NOT RUN';

interface Result {
  readonly mutant: Mutant;
  readonly outcome: Outcome;
  readonly reason: string;
}

async function main(): Promise<void> {
  const { jobs, filters } = readArguments();
  const mutants = readMutantFiles()
    .flatMap((file) => file.mutants)
    .filter((mutant) => filters.length === 0 || filters.some((filter) => has(mutant, filter)));
  if (mutants.length === 0) throw new UsageError('no mutant has this text in its name or files');
  const trees: SourceTree[] = [];
  const removeTrees = () => {
    for (const tree of trees) tree.remove();
  };
  process.on('exit', removeTrees);
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, () => process.exit(1));
  for (let job = 0; job < Math.min(jobs, mutants.length); job += 1) trees.push(new SourceTree());
  const startedAt = performance.now();
  const waiting = [...mutants];
  const results: Result[] = [];
  const baselines = new Baselines(mutants);
  const work = async (tree: SourceTree) => {
    for (let mutant = waiting.shift(); mutant !== undefined; mutant = waiting.shift()) {
      const result = await tryMutant(tree, mutant, baselines);
      results.push(result);
      print(`${result.outcome.padEnd(9)} ${mutant.file}: ${mutant.name}; ${result.reason}`);
    }
  };
  await Promise.all(trees.map(work));
  const killed = results.filter(({ outcome }) => outcome === 'killed').length;
  const seconds = Math.round((performance.now() - startedAt) / 1000);
  print(`\n${killed} of ${mutants.length} mutants killed in ${seconds} s`);
  for (const { mutant, outcome } of results) {
    if (outcome !== 'killed') print(`${outcome}: ${mutant.file}: ${mutant.name}`);
  }
  process.exitCode = killed === mutants.length ? 0 : 1;
}

/** The results of tests without a mutant. Each test file runs once, with the tests that its mutants name. */
class Baselines {
  readonly #mutants: readonly Mutant[];
  readonly #runs = new Map<string, Promise<TestRun>>();

  constructor(mutants: readonly Mutant[]) {
    this.#mutants = mutants;
  }

  /** Returns the results of the test of a mutant, which runs in `tree` unless its file has run. Never rejects. */
  async get({ test, testName }: Mutant, tree: SourceTree): Promise<TestRun> {
    const names = this.#mutants.filter((mutant) => mutant.test === test).map((one) => one.testName);
    const run = this.#runs.get(test) ?? tree.runTests(test, [...new Set(names)]);
    this.#runs.set(test, run);
    return selectTests(await run, [testName]);
  }
}

/** Tests one mutant. Never rejects: an error is an outcome. */
async function tryMutant(tree: SourceTree, mutant: Mutant, baselines: Baselines): Promise<Result> {
  const testTitle = `"${mutant.testName}" in ${mutant.test}`;
  try {
    const original = await baselines.get(mutant, tree);
    const unfit = getUnfitReason(original);
    if (unfit !== undefined) {
      return { mutant, outcome: 'TEST DOES NOT PASS', reason: `${testTitle} ${unfit} without it` };
    }
    const { passed, failed, isTimedOut } = await tree.withMutant(mutant, () =>
      tree.runTests(mutant.test, [mutant.testName]),
    );
    const [first] = failed;
    if (first !== undefined) return { mutant, outcome: 'killed', reason: `by "${first}"` };
    if (isTimedOut) return { mutant, outcome: 'TEST DID NOT END', reason: testTitle };
    if (passed.length === 0) return { mutant, outcome: 'TEST DID NOT RUN', reason: testTitle };
    return { mutant, outcome: 'SURVIVED', reason: `${testTitle} did not fail` };
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    return { mutant, outcome: 'DOES NOT APPLY', reason };
  }
}

/** Returns why a test cannot be used for a mutant; undefined when it can. */
function getUnfitReason({ passed, failed, isTimedOut }: TestRun): string | undefined {
  if (isTimedOut) return 'does not end';
  if (failed.length > 0) return 'fails';
  return passed.length === 0 ? 'does not run' : undefined;
}

class UsageError extends Error {}

function readArguments(): { jobs: number; filters: readonly string[] } {
  const { values, positionals } = parse();
  if (values.help) {
    print(usage);
    process.exit(0);
  }
  const jobs = values.jobs === undefined ? availableParallelism() : Number(values.jobs);
  if (!Number.isInteger(jobs) || jobs < 1) throw new UsageError('--jobs must be 1 or more');
  return { jobs, filters: positionals };
}

function parse() {
  try {
    return parseArgs({
      options: { jobs: { type: 'string' }, help: { type: 'boolean', default: false } },
      allowPositionals: true,
    });
  } catch (cause) {
    throw new UsageError(cause instanceof Error ? cause.message : String(cause));
  }
}

function has({ name, file, test }: Mutant, filter: string): boolean {
  const lowerCase = filter.toLowerCase();
  return [name, file, test].some((text) => text.toLowerCase().includes(lowerCase));
}

function print(line: string): void {
  process.stdout.write(`${line}\n`);
}

try {
  await main();
} catch (error) {
  if (!(error instanceof UsageError)) throw error;
  process.stderr.write(`Cannot run mutants: ${error.message}\n\n${usage}\n`);
  process.exitCode = 2;
}
