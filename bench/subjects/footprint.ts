import { readdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import type { Build } from '../process/build.js';
import { createSettings, prepareDatabase, startHerald } from '../process/herald.js';
import { createFigure, type Figure } from '../report/figure.js';
import type { Bench, Subject } from '../subject.js';

export const subject: Subject = {
  name: 'footprint',
  about: 'start-up time, idle memory, installed size',
  seconds: 5,
  isTooNoisyForSmoke: true,

  async run(bench: Bench): Promise<Figure[]> {
    const settings = createSettings(bench.createFolder(), bench.certificate);
    await prepareDatabase(bench.build, settings, { memberCount: 1 });
    const startMs: number[] = [];
    const rssMib: number[] = [];
    for (let run = 0; run < bench.runs; run += 1) {
      const startedAt = performance.now();
      const herald = await startHerald(bench.build, settings);
      startMs.push(performance.now() - startedAt);
      await pause(500);
      await herald.collectGarbage();
      rssMib.push((await herald.usage()).rssBytes / 2 ** 20);
      await herald.stop();
    }
    const base = { subject: 'footprint', parameters: {} };
    return [
      createFigure({
        ...base,
        what: 'from `node dist/server.js` to listening',
        unit: 'ms',
        runs: startMs,
      }),
      createFigure({ ...base, what: 'resident memory, idle', unit: 'MiB', runs: rssMib }),
      createFigure({
        ...{ ...base, what: 'node_modules without development packages', unit: 'MiB' },
        runs: [getInstalledBytes(bench.build) / 2 ** 20],
      }),
    ];
  },
};

/** Returns the size of all packages that the lock file does not mark as development packages. */
function getInstalledBytes({ folder }: Build): number {
  const lock = JSON.parse(readFileSync(join(folder, 'package-lock.json'), 'utf8')) as {
    packages: Record<string, { dev?: boolean; optional?: boolean; devOptional?: boolean }>;
  };
  return Object.entries(lock.packages)
    .filter(([path, { dev, devOptional }]) => path !== '' && !dev && !devOptional)
    .reduce((sum, [path]) => sum + readSizeBytes(join(folder, path)), 0);
}

/** Returns the size of a file, or of a folder without nested packages, which have their own entries. */
function readSizeBytes(path: string): number {
  const stats = statSync(path, { throwIfNoEntry: false });
  if (stats === undefined) return 0; // An optional package for another platform is not installed.
  if (!stats.isDirectory()) return stats.size;
  return readdirSync(path)
    .filter((name) => name !== 'node_modules')
    .reduce((sum, name) => sum + readSizeBytes(join(path, name)), 0);
}
