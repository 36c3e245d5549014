import { migrationsByDialect } from '../db/migrations/list.js';
import { migrate, readSchemaStatus, reset } from '../db/migrations/migrate.js';
import { getLatestVersion } from '../db/migrations/migration.js';
import type { DatabaseOptions } from '../db/options.js';
import { toDatabaseOptions } from '../db/options.js';
import { silentLogger } from '../logging/logger.js';
import { parseArguments, print, readConfig, runCommand, UsageError } from './command.js';
import { formatTime } from './table.js';

const usage = `Brings the tables of the database up to date. Drops no table without --reset.
May be run again at any time.

Usage: npm run sync -- [options]

  --dry-run                  prints what it would do
  --status                   prints applied and pending migrations
  --reset --yes=<database>   drops all tables of Herald and creates them again;
                             refused in production`;

interface MigrationStep {
  readonly version: number;
  readonly name: string;
}

await runCommand(usage, async (args) => {
  const { values } = parseArguments(args, {
    'dry-run': { type: 'boolean' },
    status: { type: 'boolean' },
    reset: { type: 'boolean' },
    yes: { type: 'string' },
  });
  const {
    'dry-run': isDryRun = false,
    status: isStatusOnly = false,
    reset: isReset = false,
    yes,
  } = values;
  if ([isDryRun, isStatusOnly, isReset].filter(Boolean).length > 1) {
    throw new UsageError(
      'Cannot read arguments: --dry-run, --status and --reset exclude each other',
    );
  }
  if (yes !== undefined && !isReset) {
    throw new UsageError('Cannot read arguments: --yes goes with --reset');
  }
  const config = readConfig();
  const options = toDatabaseOptions(config, silentLogger);
  if (isStatusOnly) return printStatus(options);
  if (isDryRun) return printPlan(options);
  const { isProduction } = config;
  const { applied, version } = await (isReset
    ? reset(options, { isProduction, yes })
    : migrate(options));
  if (isReset) print('All tables dropped');
  for (const step of applied) print(`Applied  ${formatStep(step)}`);
  print(
    `The schema is at version ${version}${applied.length === 0 ? '; nothing was pending' : ''}`,
  );
  const latest = getLatestVersion(migrationsByDialect[options.dialect]);
  if (version > latest) printNewer(latest);
});

async function printStatus(options: DatabaseOptions): Promise<void> {
  const schema = await readSchemaStatus(options);
  if (schema === undefined) return print('There is no database yet: npm run sync creates it');
  for (const step of schema.applied)
    print(`Applied  ${formatStep(step)}, ${formatTime(step.appliedAt)}`);
  if (schema.unfinished !== undefined) print(`Partial  ${formatStep(schema.unfinished)}`);
  for (const step of schema.pending) print(`Pending  ${formatStep(step)}`);
  print(`The schema is at version ${schema.version}; this program needs ${schema.latest}`);
  if (schema.version > schema.latest) printNewer(schema.latest);
}

async function printPlan(options: DatabaseOptions): Promise<void> {
  const schema = await readSchemaStatus(options);
  if (schema === undefined) return print('Would create the database and all tables');
  for (const step of schema.pending) print(`Would apply  ${formatStep(step)}`);
  if (schema.pending.length === 0) print('Nothing is pending');
}

function printNewer(latest: number): void {
  print(`A newer Herald migrated the schema; this program knows up to ${latest} and can use it`);
}

function formatStep({ version, name }: MigrationStep): string {
  return `${version} ${name}`;
}
