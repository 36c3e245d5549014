import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { localHosts, writeCertificate } from '../src/commands/certificate-files.js';
import { type Build, treeBuild } from './process/build.js';
import { Child, type MeasurableServer } from './process/child.js';
import type { Settings } from './process/herald.js';
import { measureServer, type ServerUsage } from './process/watch.js';
import { type ProfiledRun, profileRun } from './profile/profiled-run.js';
import { type Figure, runInterleaved } from './report/figure.js';

/** A benchmark. Its file in `subjects/` has the name of the subject. */
export interface Subject {
  readonly name: string;
  /** What is measured, in a few words; printed before the subject runs. */
  readonly about: string;
  /** Duration of five runs on two idle cores. */
  readonly seconds: number;
  /**
   * `operation` says what one operation of `Bench.measureServer` is. `flameGraphRun` is the `name` of
   * the measurement that a flame graph is drawn of.
   */
  readonly profile?: { readonly operation: string; readonly flameGraphRun: string };
  /**
   * Excludes the subject from smoke runs, because its short runs on a busy machine are not usable.
   */
  readonly isTooNoisyForSmoke?: boolean;
  run(bench: Bench): Promise<Figure[]>;
}

export interface BenchOptions {
  readonly smoke?: boolean;
  readonly profile?: boolean;
  /** One of the two builds of a comparison. It is measured once, without references. */
  readonly compared?: Build;
  /** Default: 5, or 3 in a smoke run. */
  readonly runs?: number | undefined;
}

/** The environment of a subject. Stops everything that `use` opened after the subject ends. */
export class Bench {
  /** True in a smoke run or a comparison: fewer streams, events and figures. */
  readonly isShort: boolean;
  /** The Herald build to measure. */
  readonly build: Build;
  /** Whether the references, which Herald is compared with, are measured, too. */
  readonly hasReferences: boolean;
  /** How often each measurement runs. */
  readonly runs: number;
  /** Whether V8's profiler runs during each `measureServer`. */
  readonly isProfiling: boolean;
  /** The last profiled run of each name that was given to `measureServer`. */
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

  /** Returns the size for the kind of run. Default of `compared`: the size of a smoke run. */
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
  folder(): string {
    this.#folderCount += 1;
    const path = join(this.#folder, String(this.#folderCount));
    mkdirSync(path);
    return path;
  }

  /**
   * Runs the measurements in turn, `runs` times each. In a comparison the references are not run
   * and have no results.
   */
  async interleaved<Name extends string, Result, Reference extends string = never>(
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
   * Returns a function that calls `open` once and returns its result each time. For references, because
   * a comparison does not need them.
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
   * Every measurement must use this method, so that it can be profiled. `name` is a short label of
   * server and operation.
   */
  async measureServer(
    child: MeasurableServer,
    name: string,
    work: () => Promise<number>,
  ): Promise<ServerUsage> {
    if (!this.isProfiling || !(child instanceof Child)) return measureServer(child, work);
    const run = await profileRun(child, work);
    this.profiledRuns.set(name, run);
    return run;
  }

  /** Returns what `opening` resolves to, and stops it when the subject ends. */
  async use<Thing extends { stop(): Promise<void> }>(opening: Promise<Thing>): Promise<Thing> {
    const thing = await opening;
    this.#closers.push(() => thing.stop());
    return thing;
  }

  /** Calls `close` when the subject ends. */
  onClose(close: () => unknown): void {
    this.#closers.push(close);
  }

  /** Runs the closers of `use` and `onClose`, in reverse order. */
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
