import { ApiKeys, scopes } from '../identity/api-keys.js';
import { openLog } from '../logging/log.js';
import {
  CommandError,
  type Commands,
  complain,
  readArguments,
  readConfig,
  runOneOf,
  say,
  UsageError,
} from './command.js';
import { withDatabase } from './database.js';
import { tableOf, timeText } from './table.js';

const usage = `Makes and revokes API keys. It may be used while the server runs.

Usage: npm run key -- <command>

  create --name <name> --scope <scope>
                       prints the key, this once; scopes: ${scopes.join(', ')}
  list [--json]        all keys; with --json one object a line
  revoke <id or name>  refused from now on`;

const commands: Commands = {
  async create(args) {
    const options = {
      name: { type: 'string' },
      scope: { type: 'string', multiple: true },
    } as const;
    const { name, scope } = readArguments(args, options).values;
    if (name === undefined) throw new UsageError('Cannot read arguments: needs --name');
    if (scope === undefined) throw new UsageError('Cannot read arguments: needs --scope');
    const { id, key } = await withKeys((keys) => keys.create({ name, scopes: scope }));
    // Standard output has the key alone, so that a script can take it.
    complain(`Key ${name} made, with id ${id}; it is shown this once:`);
    say(key);
  },

  async list(args) {
    const { values } = readArguments(args, { json: { type: 'boolean' } });
    const all = await withKeys((keys) => keys.list());
    if (values.json === true) for (const key of all) say(JSON.stringify(key));
    else {
      const rows = all.map(({ id, name, scopes, createdAt, lastUsedAt, revokedAt }) => {
        const state = revokedAt === undefined ? 'good' : 'revoked';
        return [id, name, scopes.join(','), state, timeText(createdAt), timeText(lastUsedAt)];
      });
      say(tableOf(['id', 'name', 'scopes', 'state', 'made', 'last used'], rows));
    }
  },

  async revoke(args) {
    const { named } = readArguments(args, {}, ['id or name']);
    const which = named['id or name'];
    if (!(await withKeys((keys) => keys.revoke(which)))) {
      throw new CommandError(`Cannot revoke key ${which}: there is none that is good`);
    }
    say(`Key ${which} is revoked`);
  },
};

await runOneOf(usage, commands);

/** What it does is told to the log's files, not to standard output, which is the command's. */
async function withKeys<Result>(work: (keys: ApiKeys) => Promise<Result>): Promise<Result> {
  const config = readConfig();
  const log = await openLog({ ...config.log, stdout: false });
  try {
    return await withDatabase(config, log, (db) => work(new ApiKeys({ db, log })));
  } finally {
    await log.close();
  }
}
