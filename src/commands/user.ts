import { type Account, Users } from '../auth/users.js';
import type { Database } from '../db/database.js';
import {
  formatTopicRights,
  noRights,
  parseTopicRights,
  type TopicRights,
} from '../events/topic-rights.js';
import { silentLogger } from '../logging/logger.js';
import { withAccounts } from './accounts.js';
import {
  CommandError,
  parseArguments,
  print,
  readConfig,
  runSubcommand,
  type Subcommands,
  UsageError,
} from './command.js';
import { withDatabase } from './database.js';
import { readNewPassword } from './password-prompt.js';
import { formatTable, formatTime } from './table.js';

const usage = `Creates and changes users. May be used while the server runs.

Usage: npm run user -- <command>

  create <username> [--first-name <name>] [--last-name <name>]
                       asks for a password; without a terminal, reads it from standard input
  list [--json]        all users; with --json one object per line
  passwd <username>    asks for a new password; all sessions end
  disable <username>   all sessions end, and the user cannot log in
  enable <username>    the user can log in again
  rights <username> [--set <json> | --clear]
                       shows or replaces what the user may do with topics, such as
                       '{"orders:17": ["listen"], "team:3:*": ["listen", "history"]}'
  delete <username> --yes
                       all sessions end, and the user's data is deleted`;

const commands: Subcommands = {
  async create(args) {
    const text = { type: 'string', default: '' } as const;
    const options = { 'first-name': text, 'last-name': text };
    const { values, positionals } = parseArguments(args, options, ['username']);
    const config = readConfig();
    const password = await readNewPassword();
    const names = { firstName: values['first-name'], lastName: values['last-name'] };
    const { id, username } = await withAccounts(config, ({ accounts }) =>
      accounts.create({ ...names, username: positionals.username, password }),
    );
    print(`User ${username} created with id ${id}`);
  },

  async list(args) {
    const { values } = parseArguments(args, { json: { type: 'boolean' } });
    const all = await withDatabase(readConfig(), silentLogger, (db) => listAll(new Users({ db })));
    if (values.json === true)
      for (const account of all) print(JSON.stringify(toPublicFields(account)));
    else
      print(
        formatTable(['id', 'username', 'name', 'state', 'created', 'last login'], all.map(toRow)),
      );
  },

  async passwd(args) {
    const { positionals } = parseArguments(args, {}, ['username']);
    const config = readConfig();
    const password = await readNewPassword();
    await withAccounts(config, ({ accounts }) =>
      accounts.setPassword(positionals.username, password),
    );
    print(`User ${positionals.username} has a new password; all sessions ended`);
  },

  async disable(args) {
    const { positionals } = parseArguments(args, {}, ['username']);
    await withAccounts(readConfig(), ({ accounts }) => accounts.disable(positionals.username));
    print(`User ${positionals.username} is disabled`);
  },

  async enable(args) {
    const { positionals } = parseArguments(args, {}, ['username']);
    await withAccounts(readConfig(), ({ accounts }) => accounts.enable(positionals.username));
    print(`User ${positionals.username} is enabled`);
  },

  async rights(args) {
    const options = { set: { type: 'string' }, clear: { type: 'boolean' } } as const;
    const { values, positionals } = parseArguments(args, options, ['username']);
    const rights = parseGivenRights(values.set, values.clear);
    const config = readConfig();
    if (rights === undefined) {
      const find = (db: Database) => new Users({ db }).findByName(positionals.username);
      const account = await withDatabase(config, silentLogger, find);
      if (account === undefined) {
        throw new CommandError(`Cannot find user ${positionals.username}: no such username`);
      }
      print(formatTopicRights(account.rights));
      return;
    }
    await withAccounts(config, ({ setRights }) => setRights(positionals.username, rights));
    print(`User ${positionals.username} has new rights`);
  },

  async delete(args) {
    const { values, positionals } = parseArguments(args, { yes: { type: 'boolean' } }, [
      'username',
    ]);
    const config = readConfig();
    if (values.yes !== true) {
      const what = `user ${positionals.username} and all their data`;
      throw new CommandError(`Cannot delete ${what}: --yes confirms it`);
    }
    await withAccounts(config, ({ accounts }) => accounts.delete(positionals.username));
    print(`User ${positionals.username} is deleted`);
  },
};

await runSubcommand(usage, commands);

async function listAll(users: Users): Promise<Account[]> {
  const all: Account[] = [];
  for (let page = await users.list(); page.length > 0; ) {
    all.push(...page);
    page = await users.list({ afterId: page.at(-1)?.id ?? '0' });
  }
  return all;
}

/** Returns undefined if the options neither set nor clear rights. Throws a `UsageError` for invalid rights. */
function parseGivenRights(
  text: string | undefined,
  isCleared: boolean | undefined,
): TopicRights | undefined {
  if (text === undefined) return isCleared === true ? noRights : undefined;
  if (isCleared === true)
    throw new UsageError('Cannot read arguments: --set cannot be combined with --clear');
  const rights = parseTopicRights(parseJson(text));
  if (typeof rights === 'string') throw new UsageError(`Cannot read arguments: --set ${rights}`);
  return rights;
}

/** Returns undefined for a text that is not JSON. */
function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined; // JSON.parse throws only for a text that is not JSON.
  }
}

function toRow(account: Account): string[] {
  const { id, username, firstName, lastName, disabledAt, createdAt, lastLoginAt } = account;
  const state = disabledAt === undefined ? 'enabled' : 'disabled';
  const name = `${firstName} ${lastName}`.trim();
  return [id, username, name, state, formatTime(createdAt), formatTime(lastLoginAt)];
}

/** Returns the fields for JSON output, without the password hash. Times are epoch ms or absent. */
function toPublicFields(account: Account): object {
  const { id, username, firstName, lastName, disabledAt, createdAt, lastLoginAt } = account;
  return { id, username, firstName, lastName, disabledAt, createdAt, lastLoginAt };
}
