import { migrate, reset, status } from '../db/migrations/migrate.js';
import type { DatabaseOptions } from '../db/options.js';
import { databaseOptions } from '../db/options.js';
import { silentLog } from '../logging/log.js';
import { readArguments, readConfig, runCommand, say, UsageError } from './command.js';
import { timeText } from './table.js';

const usage = `Brings the tables of the database up to date. Without --reset it never drops
one. It may be run again.

Usage: npm run sync -- [options]

  --dry-run                  tells what it would do
  --status                   tells what was done and what is pending
  --reset --yes=<database>   drops all tables of Herald and makes them again, empty;
                             refused in production`;

interface Step {
  readonly version: number;
  readonly name: string;
}

await runCommand(usage, async (args) => {
  const { values } = readArguments(args, {
    'dry-run': { type: 'boolean' },
    status: { type: 'boolean' },
    reset: { type: 'boolean' },
    yes: { type: 'string' },
  });
  const {
    'dry-run': isDry = false,
    status: isStatus = false,
    reset: isReset = false,
    yes,
  } = values;
  if ([isDry, isStatus, isReset].filter(Boolean).length > 1) {
    throw new UsageError(
      'Cannot read arguments: --dry-run, --status and --reset exclude each other',
    );
  }
  if (yes !== undefined && !isReset) {
    throw new UsageError('Cannot read arguments: --yes goes with --reset');
  }
  const config = readConfig();
  const options = databaseOptions(config, silentLog);
  if (isStatus) return tellStatus(options);
  if (isDry) return tellPlan(options);
  const { production } = config;
  const { applied, version } = await (isReset
    ? reset(options, { production, yes })
    : migrate(options));
  if (isReset) say('All tables dropped');
  for (const step of applied) say(`Applied  ${nameOf(step)}`);
  say(`The schema is at version ${version}${applied.length === 0 ? '; nothing was pending' : ''}`);
});

async function tellStatus(options: DatabaseOptions): Promise<void> {
  const found = await status(options);
  if (found === undefined) return say('There is no database yet: npm run sync makes it');
  for (const step of found.applied) say(`Applied  ${nameOf(step)}, ${timeText(step.appliedAt)}`);
  if (found.unfinished !== undefined) say(`Cut off  ${nameOf(found.unfinished)}`);
  for (const step of found.pending) say(`Pending  ${nameOf(step)}`);
  say(`The schema is at version ${found.version}; this program needs ${found.latest}`);
}

async function tellPlan(options: DatabaseOptions): Promise<void> {
  const found = await status(options);
  if (found === undefined) return say('Would make the database and all tables');
  for (const step of found.pending) say(`Would apply  ${nameOf(step)}`);
  if (found.pending.length === 0) say('Nothing is pending');
}

function nameOf({ version, name }: Step): string {
  return `${version} ${name}`;
}
