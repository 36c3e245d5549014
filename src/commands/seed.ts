import { readArguments, readConfig, runCommand, say } from './command.js';
import { readDemoUser, seed } from './demo-user.js';

const usage = `Makes the demo user of fixtures/. It may be run again. Refused in production.

Usage: npm run seed`;

await runCommand(usage, async (args) => {
  readArguments(args, {});
  const isNew = await seed(readConfig());
  const { username, password } = readDemoUser();
  if (isNew) say(`User ${username} made, with password ${password}`);
  else say(`User ${username} is there already`);
});
