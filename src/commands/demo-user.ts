import { readFileSync } from 'node:fs';
import type { Config } from '../config/config.js';
import { type AccountParts, withAccounts } from './accounts.js';
import { CommandError } from './command.js';

export interface DemoUser {
  readonly username: string;
  readonly password: string;
  readonly firstName: string;
  readonly lastName: string;
}

/** Reads the demo user from `fixtures/`. The relative path is the same from `src` and from `dist`. */
export function readDemoUser(): DemoUser {
  const file = new URL('../../fixtures/demo-user.json', import.meta.url);
  return JSON.parse(readFileSync(file, 'utf8')) as DemoUser; // A file of this package, which tests read.
}

/** Creates the demo user and returns true; returns false when the name is taken. Throws in production. */
export async function seed(config: Config): Promise<boolean> {
  refuseInProduction(config);
  return withAccounts(config, createDemoUser);
}

/** Like `seed`, on an open database. The password is public, so never call it in production. */
export async function createDemoUser({ accounts, users }: AccountParts): Promise<boolean> {
  const demoUser = readDemoUser();
  if ((await users.findByName(demoUser.username)) !== undefined) return false;
  await accounts.create(demoUser, { weakPassword: true });
  return true;
}

function refuseInProduction({ isProduction }: Config): void {
  if (!isProduction) return;
  const remedy = 'npm run user -- create makes a user with a password of its own';
  throw new CommandError(`Cannot seed: this is production; ${remedy}`);
}
