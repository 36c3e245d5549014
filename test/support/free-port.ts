import { randomInt } from 'node:crypto';
import { once } from 'node:events';
import { createServer, type Server } from 'node:net';

/** A range below the ephemeral ports, which the operating system assigns itself. */
const [portMin, portMax] = [12_000, 32_000];

/**
 * Returns a free port, for a program that needs a fixed port or restarts on the same one. It is not an
 * ephemeral port, because any outgoing connection may take one of those at any moment. No other test,
 * in this process or another, gets this port until this process ends: the port above it stays bound,
 * which reserves both.
 */
export async function freePort(): Promise<number> {
  for (let tries = 0; tries < 1000; tries += 1) {
    const port = 2 * randomInt(portMin / 2, portMax / 2);
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

/** Listens on every address; returns undefined when the port is in use. Does not keep the process alive. */
async function listenOn(port: number): Promise<Server | undefined> {
  const server = createServer().unref();
  try {
    await once(server.listen(port), 'listening');
    return server;
  } catch {
    return undefined;
  }
}
