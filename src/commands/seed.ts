import { parseArguments, print, readConfig, runCommand } from './command.js';
import { readDemoUser, seed } from './demo-user.js';

const usage = `Creates the demo user of fixtures/, unless it exists. Refused in production.

Usage: npm run seed`;

await runCommand(usage, async (args) => {
  parseArguments(args, {});
  const isNew = await seed(readConfig());
  const { username, password } = readDemoUser();
  if (isNew) print(`User ${username} created with password ${password}`);
  else print(`User ${username} already exists`);
});
