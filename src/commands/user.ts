import { type Account, Users } from '../auth/users.js';
import { silentLog } from '../logging/log.js';
import { withAccounts } from './accounts.js';
import {
  CommandError,
  type Commands,
  readArguments,
  readConfig,
  runOneOf,
  say,
} from './command.js';
import { withDatabase } from './database.js';
import { readNewPassword } from './password-prompt.js';
import { tableOf, timeText } from './table.js';

const usage = `Makes and changes users. It may be used while the server runs.

Usage: npm run user -- <command>

  create <username> [--first-name <name>] [--last-name <name>]
                       asks for a password; without a terminal, reads it from standard input
  list [--json]        all users; with --json one object a line
  passwd <username>    asks for a new password; all sessions end
  disable <username>   all sessions end, and nobody can log in
  enable <username>    undoes it
  delete <username> --yes`;

const commands: Commands = {
  async create(args) {
    const text = { type: 'string', default: '' } as const;
    const options = { 'first-name': text, 'last-name': text };
    const { values, named } = readArguments(args, options, ['username']);
    const config = readConfig();
    const password = await readNewPassword();
    const names = { firstName: values['first-name'], lastName: values['last-name'] };
    const { id, username } = await withAccounts(config, ({ accounts }) =>
      accounts.create({ ...names, username: named.username, password }),
    );
    say(`User ${username} made, with id ${id}`);
  },

  async list(args) {
    const { values } = readArguments(args, { json: { type: 'boolean' } });
    const all = await withDatabase(readConfig(), silentLog, (db) => allOf(new Users({ db })));
    if (values.json === true) for (const account of all) say(JSON.stringify(publicPart(account)));
    else say(tableOf(['id', 'username', 'name', 'state', 'made', 'last login'], all.map(rowOf)));
  },

  async passwd(args) {
    const { named } = readArguments(args, {}, ['username']);
    const config = readConfig();
    const password = await readNewPassword();
    await withAccounts(config, ({ accounts }) => accounts.setPassword(named.username, password));
    say(`User ${named.username} has a new password, and no session`);
  },

  async disable(args) {
    const { named } = readArguments(args, {}, ['username']);
    await withAccounts(readConfig(), ({ accounts }) => accounts.disable(named.username));
    say(`User ${named.username} is disabled`);
  },

  async enable(args) {
    const { named } = readArguments(args, {}, ['username']);
    await withAccounts(readConfig(), ({ accounts }) => accounts.enable(named.username));
    say(`User ${named.username} is enabled`);
  },

  async delete(args) {
    const { values, named } = readArguments(args, { yes: { type: 'boolean' } }, ['username']);
    const config = readConfig();
    if (values.yes !== true) {
      const what = `user ${named.username} and all that is theirs`;
      throw new CommandError(`Cannot delete ${what}: --yes confirms it`);
    }
    await withAccounts(config, ({ accounts }) => accounts.delete(named.username));
    say(`User ${named.username} is deleted`);
  },
};

await runOneOf(usage, commands);

async function allOf(users: Users): Promise<Account[]> {
  const all: Account[] = [];
  for (let page = await users.list(); page.length > 0; ) {
    all.push(...page);
    page = await users.list({ afterId: page.at(-1)?.id ?? '0' });
  }
  return all;
}

function rowOf(account: Account): string[] {
  const { id, username, firstName, lastName, disabledAt, createdAt, lastLoginAt } = account;
  const state = disabledAt === undefined ? 'enabled' : 'disabled';
  const name = `${firstName} ${lastName}`.trim();
  return [id, username, name, state, timeText(createdAt), timeText(lastLoginAt)];
}

/** Times are epoch ms, absent when it has not happened; no hash leaves the database. */
function publicPart(account: Account): object {
  const { id, username, firstName, lastName, disabledAt, createdAt, lastLoginAt } = account;
  return { id, username, firstName, lastName, disabledAt, createdAt, lastLoginAt };
}
