import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { localHosts, writeCertificate } from '../src/commands/certificate-files.js';
import { type Build, treeBuild } from './process/build.js';
import { Child, type Measured } from './process/child.js';
import type { Settings } from './process/herald.js';
import { type Watched, watch } from './process/watch.js';
import { type ProfiledRun, profileRun } from './profile/profiled-run.js';
import { type Figure, runInterleaved } from './report/figure.js';

/** Something that is measured: one file each, named as it is asked for. */
export interface Subject {
  readonly name: string;
  readonly about: string;
  /** What five runs take on two cores that are free. */
  readonly seconds: number;
  /** What `Bench.watch` counts, so that a profile can tell CPU for each, and which window it draws. */
  readonly profile?: { readonly operation: string; readonly drawn: string };
  /** Has nothing that a short run on a busy machine could tell. */
  readonly isTooNoisyForSmoke?: boolean;
  run(bench: Bench): Promise<Figure[]>;
}

export interface BenchOptions {
  readonly smoke?: boolean;
  readonly profile?: boolean;
  /** One of two builds that are compared: measured once, and without references. */
  readonly compared?: Build;
  /** Default: 5, or 3 in a smoke run. */
  readonly runs?: number | undefined;
}

/** What a subject works with. Everything it opens by `use` is closed when it is over. */
export class Bench {
  /** A smoke run or a comparison: fewer streams, fewer events, and not every figure. */
  readonly isShort: boolean;
  /** The Herald that is measured. */
  readonly build: Build;
  /** Whether what Herald is compared with is measured too. */
  readonly hasReferences: boolean;
  /** How often each measurement runs. */
  readonly runs: number;
  /** With V8's profiler, to see what the CPU goes into. */
  readonly isProfiling: boolean;
  /** What was watched with the profiler, by its name; the last of each name. */
  readonly windows = new Map<string, ProfiledRun>();
  /** `CERTIFICATE` and `PRIVATE_KEY`, of a kind that all servers use. */
  readonly certificate: Settings;
  readonly #folder = mkdtempSync(join(tmpdir(), 'herald-bench-'));
  readonly #closers: (() => unknown)[] = [];
  #folders = 0;

  constructor({ smoke = false, profile = false, compared, runs = smoke ? 3 : 5 }: BenchOptions) {
    this.isShort = smoke || compared !== undefined;
    this.hasReferences = compared === undefined;
    this.build = compared ?? treeBuild;
    this.isProfiling = profile;
    this.runs = profile ? 2 : runs; // The first to be compiled.
    if (compared !== undefined) this.runs = 1;
    const certificateFile = join(this.#folder, 'server.cert');
    const privateKeyFile = join(this.#folder, 'server.key');
    writeCertificate({ certificateFile, privateKeyFile }, localHosts);
    this.certificate = { CERTIFICATE: certificateFile, PRIVATE_KEY: privateKeyFile };
  }

  /** Returns the size for a smoke run, for a full one or for a comparison. */
  size(smoke: number, full: number, compared = smoke): number {
    if (!this.hasReferences) return compared;
    return this.isShort ? smoke : full;
  }

  print(text: string): void {
    process.stderr.write(`  ${text}\n`);
  }

  /** A new empty folder. */
  folder(): string {
    this.#folders += 1;
    const path = join(this.#folder, String(this.#folders));
    mkdirSync(path);
    return path;
  }

  /**
   * Runs each of several measurements in turn, as many rounds as there are runs. Those of references
   * have no results in a comparison.
   */
  async interleaved<Name extends string, Result, Reference extends string = never>(
    measurements: Readonly<Record<Name, () => Promise<Result>>>,
    references = {} as Readonly<Record<Reference, () => Promise<Result>>>,
  ): Promise<Record<Name | Reference, Result[]>> {
    if (!this.hasReferences) {
      const none = Object.fromEntries(Object.keys(references).map((name) => [name, []]));
      const results = await runInterleaved(this.runs, measurements, () => {});
      return { ...results, ...none } as Record<Name | Reference, Result[]>; // As named above.
    }
    const all = { ...measurements, ...references };
    return runInterleaved(this.runs, all, (round) => this.print(`run ${round} of ${this.runs}`));
  }

  /** Opens something when it is first asked for: a reference, which a comparison never asks for. */
  lazy<Thing>(open: () => Promise<Thing>): () => Promise<Thing> {
    let opened: Promise<Thing> | undefined;
    return () => {
      opened ??= open();
      return opened;
    };
  }

  /**
   * What a server spends while something is done with it: the one way to measure a load. `name` says
   * who does what, in few words; `work` answers how many operations it did.
   */
  async watch(child: Measured, name: string, work: () => Promise<number>): Promise<Watched> {
    if (!this.isProfiling || !(child instanceof Child)) return watch(child, work);
    const window = await profileRun(child, work);
    this.windows.set(name, window);
    return window;
  }

  async use<Thing extends { stop(): Promise<void> }>(opening: Promise<Thing>): Promise<Thing> {
    const thing = await opening;
    this.#closers.push(() => thing.stop());
    return thing;
  }

  onClose(close: () => unknown): void {
    this.#closers.push(close);
  }

  /** Stops what `use` was handed, the newest first. */
  async closeAll(): Promise<void> {
    for (let close = this.#closers.pop(); close !== undefined; close = this.#closers.pop()) {
      await close();
    }
  }

  async end(): Promise<void> {
    await this.closeAll();
    rmSync(this.#folder, { recursive: true, force: true });
  }
}
