import { randomInt } from 'node:crypto';
import { once } from 'node:events';
import { createServer } from 'node:net';

/** Below what the operating system gives to connections and to whoever asks it for any port. */
const range = [12_000, 32_000] as const;

/**
 * A port that nobody listens on, for a program that has to be told one. What the system itself would
 * give is taken again at any moment, by each connection that somebody opens.
 */
export async function freePort(): Promise<number> {
  for (let tries = 0; tries < 100; tries += 1) {
    const port = randomInt(...range);
    if (await isFree(port)) return port;
  }
  throw new Error('Cannot find a free port');
}

async function isFree(port: number): Promise<boolean> {
  const server = createServer();
  try {
    await once(server.listen(port), 'listening'); // On every address.
  } catch {
    return false;
  }
  server.close();
  await once(server, 'close');
  return true;
}
