import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { localHosts, writeCertificate } from '../src/certificates/certificate-files.js';
import { type Build, treeBuild } from './process/build.js';
import { Child, type MeasurableServer } from './process/child.js';
import type { Settings } from './process/herald.js';
import { measureServer, type ServerUsage } from './process/server-usage.js';
import { type ProfiledRun, profileRun } from './profile/profiled-run.js';
import { type Figure, runInterleaved } from './report/figure.js';

/** A benchmark. Its file in `subjects/` has the name of the subject. */
export interface Subject {
  readonly name: string;
  /** What is measured, in a few words; printed before the subject runs. */
  readonly about: string;
  /** Estimated duration of five full runs on two idle cores. */
  readonly seconds: number;
  /**
   * `operation` names what `Bench.measureServer` counts, such as `login`. `flameGraphRun` is the `name`
   * of the measurement that the flame graph shows. `columns` explains the columns of the report.
   */
  readonly profile?: {
    readonly operation: string;
    readonly flameGraphRun: string;
    readonly columns?: string;
  };
  /**
   * Excludes the subject from smoke runs, because short runs on a busy machine give unusable figures.
   */
  readonly isTooNoisyForSmoke?: boolean;
  run(bench: Bench): Promise<Figure[]>;
}

export interface BenchOptions {
  readonly smoke?: boolean;
  readonly profile?: boolean;
  /** One of the two builds of a comparison, to be measured once and without references. */
  readonly compared?: Build;
  /** Default: 5, or 3 in a smoke run. Ignored with `profile` (2 runs) and `compared` (1 run). */
  readonly runs?: number | undefined;
}

/**
 * The environment in which subjects run: the build to measure, sizes, folders and measurements. After a
 * subject, `closeAll` stops everything that the subject passed to `use` and `onClose`.
 */
export class Bench {
  /** True in a smoke run or a comparison: fewer streams, events and figures. */
  readonly isShort: boolean;
  /** The Herald build to measure. */
  readonly build: Build;
  /** Whether references are measured, too. False in a comparison of two builds. */
  readonly hasReferences: boolean;
  /** Number of runs of each measurement. */
  readonly runs: number;
  /** Whether V8's profiler runs during each call of `measureServer`. */
  readonly isProfiling: boolean;
  /** The last profiled run by the `name` that was passed to `measureServer`. */
  readonly profiledRuns = new Map<string, ProfiledRun>();
  /** `CERTIFICATE` and `PRIVATE_KEY`, shared by all servers. */
  readonly certificate: Settings;
  readonly #folder = mkdtempSync(join(tmpdir(), 'herald-bench-'));
  readonly #closers: (() => unknown)[] = [];
  #folderCount = 0;

  constructor({ smoke = false, profile = false, compared, runs = smoke ? 3 : 5 }: BenchOptions) {
    this.isShort = smoke || compared !== undefined;
    this.hasReferences = compared === undefined;
    this.build = compared ?? treeBuild;
    this.isProfiling = profile;
    this.runs = profile ? 2 : runs; // The first of the two profiled runs is a warm-up.
    if (compared !== undefined) this.runs = 1;
    const certificateFile = join(this.#folder, 'server.cert');
    const privateKeyFile = join(this.#folder, 'server.key');
    writeCertificate({ certificateFile, privateKeyFile }, localHosts);
    this.certificate = { CERTIFICATE: certificateFile, PRIVATE_KEY: privateKeyFile };
  }

  /** Returns the size for this kind of run. In a comparison: `compared`, by default the smoke size. */
  size({
    smoke,
    full,
    compared = smoke,
  }: {
    smoke: number;
    full: number;
    compared?: number;
  }): number {
    if (!this.hasReferences) return compared;
    return this.isShort ? smoke : full;
  }

  print(text: string): void {
    process.stderr.write(`  ${text}\n`);
  }

  /** Creates an empty folder and returns its path. */
  createFolder(): string {
    this.#folderCount += 1;
    const path = join(this.#folder, String(this.#folderCount));
    mkdirSync(path);
    return path;
  }

  /**
   * Runs the measurements in turn, `runs` times each. In a comparison the references are not run
   * and have no results.
   */
  async runInterleaved<Name extends string, Result, Reference extends string = never>(
    measurements: Readonly<Record<Name, () => Promise<Result>>>,
    references = {} as Readonly<Record<Reference, () => Promise<Result>>>,
  ): Promise<Record<Name | Reference, Result[]>> {
    if (!this.hasReferences) {
      const noResults = Object.fromEntries(Object.keys(references).map((name) => [name, []]));
      const results = await runInterleaved(this.runs, measurements, () => {});
      // Safe: the object has exactly these names.
      return { ...results, ...noResults } as Record<Name | Reference, Result[]>;
    }
    const allMeasurements = { ...measurements, ...references };
    return runInterleaved(this.runs, allMeasurements, (round) =>
      this.print(`run ${round} of ${this.runs}`),
    );
  }

  /**
   * Returns a function that calls `open` at the first call and always returns that result. Used for
   * references, because a comparison does not open them.
   */
  lazy<Thing>(open: () => Promise<Thing>): () => Promise<Thing> {
    let opened: Promise<Thing> | undefined;
    return () => {
      opened ??= open();
      return opened;
    };
  }

  /**
   * Measures the resources that a server uses during `work`, which returns the number of operations.
   * Every measurement must use this method, so that it can be profiled. `name` is a short label for
   * the server and the operation.
   */
  async measureServer(
    server: MeasurableServer,
    name: string,
    work: () => Promise<number>,
  ): Promise<ServerUsage> {
    if (!this.isProfiling || !(server instanceof Child)) return measureServer(server, work);
    const run = await profileRun(server, work);
    this.profiledRuns.set(name, run);
    return run;
  }

  /** Waits for `opening` and returns its result. Stops the result when the subject ends. */
  async use<Thing extends { stop(): Promise<void> }>(opening: Promise<Thing>): Promise<Thing> {
    const thing = await opening;
    this.#closers.push(() => thing.stop());
    return thing;
  }

  /** Calls `close` when the subject ends. */
  onClose(close: () => unknown): void {
    this.#closers.push(close);
  }

  /** Stops everything passed to `use` and calls the functions passed to `onClose`, last first. */
  async closeAll(): Promise<void> {
    for (let close = this.#closers.pop(); close !== undefined; close = this.#closers.pop()) {
      await close();
    }
  }

  /** Closes everything and deletes all folders. */
  async end(): Promise<void> {
    await this.closeAll();
    rmSync(this.#folder, { recursive: true, force: true });
  }
}
