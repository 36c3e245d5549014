import { controlEntryAppender } from '../event-log/open.js';
import { ApiKeys, scopes } from '../identity/api-keys.js';
import { openLogger } from '../logging/logger.js';
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

const usage = `Creates and revokes API keys. May be used while the server runs.

Usage: npm run key -- <command>

  create --name <name> --scope <scope>
                       prints the key once; scopes: ${scopes.join(', ')}
  list [--json]        all keys; with --json one object per line
  revoke <id or name>  the key is refused from now on`;

const commands: Subcommands = {
  async create(args) {
    const options = {
      name: { type: 'string' },
      scope: { type: 'string', multiple: true },
    } as const;
    const { name, scope } = parseArguments(args, options).values;
    if (name === undefined) throw new UsageError('Cannot read arguments: needs --name');
    if (scope === undefined) throw new UsageError('Cannot read arguments: needs --scope');
    const { id, key } = await withKeys((keys) => keys.create({ name, scopes: scope }));
    // Standard output contains only the key, so that scripts can read it.
    printError(`Key ${name} created with id ${id}; it is shown only once:`);
    print(key);
  },

  async list(args) {
    const { values } = parseArguments(args, { json: { type: 'boolean' } });
    const all = await withKeys((keys) => keys.list());
    if (values.json === true) for (const key of all) print(JSON.stringify(key));
    else {
      const rows = all.map(({ id, name, scopes, createdAt, lastUsedAt, revokedAt }) => {
        const state = revokedAt === undefined ? 'active' : 'revoked';
        return [id, name, scopes.join(','), state, formatTime(createdAt), formatTime(lastUsedAt)];
      });
      print(formatTable(['id', 'name', 'scopes', 'state', 'created', 'last used'], rows));
    }
  },

  async revoke(args) {
    const { named } = parseArguments(args, {}, ['id or name']);
    const idOrName = named['id or name'];
    if (!(await withKeys((keys) => keys.revoke(idOrName)))) {
      throw new CommandError(`Cannot revoke key ${idOrName}: no active key has this id or name`);
    }
    print(`Key ${idOrName} is revoked`);
  },
};

await runSubcommand(usage, commands);

/** Runs `work` with the API keys. Logs only to files, because scripts read standard output. */
async function withKeys<Result>(work: (keys: ApiKeys) => Promise<Result>): Promise<Result> {
  const config = readConfig();
  const log = await openLogger({ ...config.log, stdout: false });
  try {
    return await withDatabase(config, log, (db, wallClock) => {
      const appendControlEntries = controlEntryAppender(db, wallClock);
      return work(new ApiKeys({ db, log, wallClock, appendControlEntries }));
    });
  } finally {
    await log.close();
  }
}
