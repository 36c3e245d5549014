import type { Clock } from '../clock.js';
import { controlEntryAppender } from '../event-log/open.js';
import { type ApiKey, scopes } from '../identity/api-key.js';
import { ApiKeys } from '../identity/api-keys.js';
import type { GivenLimits } from '../identity/key-limits.js';
import { openLogger } from '../logging/logger.js';
import { formatRate } from '../util/token-bucket.js';
import {
  CommandError,
  parseArguments,
  print,
  printError,
  readConfig,
  runSubcommand,
  type Subcommands,
  UsageError,
} from './command.js';
import { withDatabase } from './database.js';
import { formatTable, formatTime } from './table.js';

const usage = `Creates, changes and revokes API keys. May be used while the server runs.

Usage: npm run key -- <command>

  create --name <name> --scope <scope> [--scope <scope>] [limits]
                       prints the key once; scopes: ${scopes.join(', ')}
  list [--json]        all keys; with --json one object per line
  change <id or name> <limits>
                       sets these limits and keeps the others
  revoke <id or name>  the key is refused from now on

Limits:

  --user-prefix <text> the key may address only users whose id begins with this text; it may not broadcast
                       or address sessions; '' removes the limit; required with --scope tickets
  --topics <pattern>   the key may address only topics that match a pattern; repeat the option to allow
                       several; it may not broadcast or address users or sessions; a pattern is a topic,
                       'orders:*' for those that begin with orders:, or '*'; none removes the limit
  --expires-at <time>  such as 2027-01-31T12:00:00Z; none removes it
  --rate <rate>        such as 100/1000: 100 requests in 1000 ms, in each process; none removes it`;

const limitOptions = {
  'user-prefix': { type: 'string' },
  topics: { type: 'string', multiple: true },
  'expires-at': { type: 'string' },
  rate: { type: 'string' },
} as const;

const commands: Subcommands = {
  async create(args) {
    const options = {
      name: { type: 'string' },
      scope: { type: 'string', multiple: true },
      ...limitOptions,
    } as const;
    const { name, scope, ...limits } = parseArguments(args, options).values;
    if (name === undefined) throw new UsageError('Cannot read arguments: needs --name');
    if (scope === undefined) throw new UsageError('Cannot read arguments: needs --scope');
    const given = { name, scopes: scope, ...parseLimits(limits) };
    const { id, key } = await withKeys((keys) => keys.create(given));
    // Standard output contains only the key, so that scripts can read it.
    printError(`Key ${name} created with id ${id}; it is shown only once:`);
    print(key);
  },

  async list(args) {
    const { values } = parseArguments(args, { json: { type: 'boolean' } });
    const { all, now } = await withKeys(async (keys, wallClock) => {
      return { all: await keys.list(), now: wallClock() };
    });
    if (values.json === true) {
      for (const { rate, ...key } of all)
        print(JSON.stringify({ ...key, rate: rate && formatRate(rate) }));
      return;
    }
    const rows = all.map((key) => toRow(key, now));
    print(formatTable(columns, rows));
  },

  async change(args) {
    const { values, positionals } = parseArguments(args, limitOptions, ['id or name']);
    if (Object.keys(values).length === 0)
      throw new UsageError('Cannot read arguments: needs a limit to change');
    const idOrName = positionals['id or name'];
    if (!(await withKeys((keys) => keys.change(idOrName, parseLimits(values))))) {
      throw new CommandError(`Cannot change key ${idOrName}: no active key has this id or name`);
    }
    print(`Key ${idOrName} is changed`);
  },

  async revoke(args) {
    const { positionals } = parseArguments(args, {}, ['id or name']);
    const idOrName = positionals['id or name'];
    if (!(await withKeys((keys) => keys.revoke(idOrName)))) {
      throw new CommandError(`Cannot revoke key ${idOrName}: no active key has this id or name`);
    }
    print(`Key ${idOrName} is revoked`);
  },
};

const columns = [
  ...[
    'id',
    'name',
    'scopes',
    'state',
    'user prefix',
    'topics',
    'expires',
    'rate',
    'created',
    'last used',
  ],
];

await runSubcommand(usage, commands);

function toRow(key: ApiKey, now: number): string[] {
  const { id, name, scopes, userPrefix, topics, expiresAt, rate, createdAt, lastUsedAt } = key;
  return [
    ...[id, name, scopes.join(','), getState(key, now)],
    userPrefix === undefined ? '' : `'${userPrefix}'`,
    topics?.join(',') ?? '',
    formatTime(expiresAt),
    rate === undefined ? '' : formatRate(rate),
    ...[formatTime(createdAt), formatTime(lastUsedAt)],
  ];
}

function getState({ expiresAt, revokedAt }: ApiKey, now: number): string {
  if (revokedAt !== undefined) return 'revoked';
  return expiresAt !== undefined && expiresAt <= now ? 'expired' : 'active';
}

interface LimitValues {
  readonly 'user-prefix'?: string | undefined;
  readonly topics?: readonly string[] | undefined;
  readonly 'expires-at'?: string | undefined;
  readonly rate?: string | undefined;
}

/**
 * Parses the limit options. Throws a `UsageError` for an invalid time, for `--user-prefix none`, and for
 * `--topics none` together with other topics.
 */
function parseLimits(values: LimitValues): GivenLimits {
  const { 'user-prefix': userPrefix, topics, 'expires-at': expiresAt, rate } = values;
  // For every other option `none` removes the limit. For --user-prefix it is rejected, because as a prefix
  // it would exclude nearly every user.
  if (userPrefix === 'none') {
    const hint =
      "use '' to remove the limit, or end the prefix with a separator, for example 'none:'";
    throw new UsageError(`Cannot read arguments: --user-prefix none is ambiguous: ${hint}`);
  }
  return {
    userPrefix,
    topics: topics === undefined ? undefined : parseTopics(topics),
    expiresAt: expiresAt === undefined ? undefined : parseTime(expiresAt),
    rate: rate === 'none' ? null : rate,
  };
}

/** Returns null for `none`. */
function parseTopics(given: readonly string[]): readonly string[] | null {
  if (!given.includes('none')) return given;
  if (given.length === 1) return null;
  throw new UsageError('Cannot read arguments: --topics none cannot be combined with topics');
}

/**
 * Parses a date and a time with an offset from UTC, and returns epoch ms. Returns null for `none`.
 * Spec: RFC 3339, section 5.6; seconds may be left out.
 */
function parseTime(text: string): number | null {
  if (text === 'none') return null;
  const pattern = /^\d{4}-\d\d-(\d\d)T\d\d:\d\d(?::\d\d(?:\.\d{1,3})?)?(?:Z|[+-]\d\d:\d\d)$/;
  const day = pattern.exec(text)?.[1];
  // `Date` reads the 30th of February as the 2nd of March.
  const isDay = new Date(`${text.slice(0, 10)}T00:00:00Z`).getUTCDate() === Number(day);
  const time = Date.parse(text);
  if (isDay && !Number.isNaN(time)) return time;
  const rule = 'a date and time such as 2027-01-31T12:00:00Z, or none';
  throw new UsageError(`Cannot read arguments: --expires-at must be ${rule}`);
}

/** Runs `work` with the API keys. Logs only to files, because scripts read standard output. */
async function withKeys<Result>(
  work: (keys: ApiKeys, wallClock: Clock) => Promise<Result>,
): Promise<Result> {
  const config = readConfig();
  const log = await openLogger({ ...config.log, stdout: false });
  try {
    return await withDatabase(config, log, (db, wallClock) => {
      const appendControlEntries = controlEntryAppender(db, wallClock);
      return work(new ApiKeys({ db, log, wallClock, appendControlEntries }), wallClock);
    });
  } finally {
    await log.close();
  }
}
