import { randomInt } from 'node:crypto';
import { once } from 'node:events';
import { createServer, type Server } from 'node:net';

/** Below what the operating system gives to connections and to whoever asks it for any port. */
const [lowest, highest] = [12_000, 32_000];

/**
 * A port that nobody listens on, for a program that has to be told one, or that comes back to it. What
 * the system itself would give is taken again at any moment, by each connection that somebody opens.
 * Nor does another test get it, of this process or another, until this process ends: the port above
 * it is taken, and stands for both.
 */
export async function freePort(): Promise<number> {
  for (let tries = 0; tries < 1000; tries += 1) {
    const port = 2 * randomInt(lowest / 2, highest / 2);
    const guard = await listenOn(port + 1);
    if (guard !== undefined && (await isFree(port))) return port;
    guard?.close();
  }
  throw new Error('Cannot find a free port');
}

async function isFree(port: number): Promise<boolean> {
  const server = await listenOn(port);
  if (server === undefined) return false;
  server.close();
  await once(server, 'close');
  return true;
}

/** On every address; undefined when somebody else does. Keeps no process alive. */
async function listenOn(port: number): Promise<Server | undefined> {
  const server = createServer().unref();
  try {
    await once(server.listen(port), 'listening');
    return server;
  } catch {
    return undefined;
  }
}
