import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { json } from '../src/http/reply.js';
import { route } from '../src/http/router.js';
import { data, fields, flag, frame, headers, ping, RawH2, type } from './support/clients/raw-h2.js';
import { startHttp } from './support/servers/http-server.js';

setFlagsFromString('--expose-gc');
const collectGarbage = runInNewContext('gc') as () => void;

/**
 * Returns the bytes in use after garbage collection. The memory of unreachable Buffers is freed one
 * event-loop iteration later than the Buffers themselves.
 */
async function getHeldBytes(): Promise<number> {
  for (let round = 0; round < 3; round += 1) {
    collectGarbage();
    await new Promise(setImmediate);
  }
  const { heapUsed, external } = process.memoryUsage();
  return heapUsed + external;
}

const mib = 1024 * 1024;
/**
 * One byte of data and a frame of an unknown type, which together fill a TLS record. A body that kept a
 * view of the byte would keep the whole Buffer of the record alive.
 */
const byteInFullRecord = (byte: string) => [
  data(1, byte),
  frame(0xfa, flag.none, 0, Buffer.alloc(16_000)),
];

const routes = [
  route('POST', '/whole', async (exchange) => json(200, await exchange.body())),
  route('POST', '/lines', async (exchange) => {
    const values: unknown[] = [];
    const limits = { bytesMax: 8192, lineBytesMax: 8192, deadlineMs: 60_000 };
    for await (const { value } of exchange.lines(limits)) values.push(value);
    return json(200, values[0]);
  }),
];

for (const [path, media] of [
  ['/whole', 'application/json'],
  ['/lines', 'application/x-ndjson'],
] as const) {
  test(`a body that arrives byte by byte keeps only its own bytes in memory (${path})`, async (t) => {
    const { port } = await startHttp(t, routes, { limits: { bodyMs: 60_000 } });
    const client = await RawH2.open(port);
    t.after(() => client.destroy());
    client.send(headers(1, fields('POST', path, [['content-type', media]]), flag.endHeaders));
    client.send(data(1, '"'));
    const bytesBefore = await getHeldBytes();

    for (let round = 1; round <= 20; round += 1) {
      for (let sent = 0; sent < 100; sent += 1) client.send(...byteInFullRecord('x'));
      client.send(ping());
      const isPingReceived = () =>
        client.frames.filter((received) => received.type === type.ping).length >= round;
      await client.tls.until(isPingReceived);
    }

    const grownBytes = (await getHeldBytes()) - bytesBefore;
    assert.ok(grownBytes < 8 * mib, `2000 bytes hold ${(grownBytes / mib).toFixed(1)} MiB`);
    client.send(data(1, '"', flag.endStream));
    assert.equal(await client.readJson(1), 'x'.repeat(2000));
  });
}
