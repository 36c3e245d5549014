import { randomInt } from 'node:crypto';
import { once } from 'node:events';
import { createServer, type Server } from 'node:net';

/** Below the ephemeral range, from which the operating system assigns ports itself. */
const [lowest, highest] = [12_000, 32_000];

/**
 * Returns a free port, for a program that needs a fixed one or restarts on the same one. An ephemeral
 * port would not do, because any outgoing connection may take it at any moment. No other test gets
 * this port, in this process or another, until this process ends: the port above it stays bound and
 * reserves both.
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

/** Listens on every address; undefined when the port is in use. Does not keep the process alive. */
async function listenOn(port: number): Promise<Server | undefined> {
  const server = createServer().unref();
  try {
    await once(server.listen(port), 'listening');
    return server;
  } catch {
    return undefined;
  }
}
