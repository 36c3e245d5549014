import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { type TestContext, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { fetchEventSource } from '@microsoft/fetch-event-source';
import { createEventSource } from 'eventsource-client';
import { EventCollector } from './support/clients/event-collector.js';
import { TestNetwork } from './support/clients/event-source.js';
import { type System, startSystem } from './support/servers/system.js';
import { withDeadline } from './support/with-deadline.js';

interface LibraryClient {
  readonly network: TestNetwork;
  readonly received: EventCollector;
  close(): void;
}

interface LibraryEvent {
  readonly event?: string | undefined;
  readonly id?: string | undefined;
  readonly data: string;
}

type StartClient = (url: string, bearer: string) => LibraryClient;

const accept = { Accept: 'text/event-stream' } as const;

/** Returns a `fetch` for both libraries, over a network that a test can break. */
function asFetch(network: TestNetwork): typeof fetch {
  return (async (url: string, { headers, signal }: RequestInit) =>
    network.fetch(url, {
      headers: { ...accept, ...(headers as Record<string, string>) },
      ...{
        signal,
        mode: 'cors',
        credentials: 'same-origin',
        cache: 'no-store',
        redirect: 'follow',
      },
    })) as unknown as typeof fetch;
}

/** Records an event that a library has delivered. An empty id or type means that the event has none. */
function collect(received: EventCollector, event: LibraryEvent) {
  const { event: type = '', id = '', data } = event;
  received.events.push({ type: type || 'message', id: id || undefined, data });
  received.feed(new Uint8Array());
}

/** Throws in `onclose` and returns a pause in `onerror`, as `docs/clients.md` says. */
const startFetchEventSource: StartClient = (url, bearer) => {
  const network = new TestNetwork('h2');
  const received = new EventCollector();
  const closing = new AbortController();
  // The library expects the globals of a browser.
  Object.assign(globalThis, { window: globalThis, document: { removeEventListener() {} } });
  void fetchEventSource(url, {
    headers: { authorization: `Bearer ${bearer}` },
    openWhenHidden: true,
    fetch: asFetch(network),
    signal: closing.signal,
    onmessage: (event) => collect(received, event),
    onclose: () => {
      throw new Error('reconnect'); // Otherwise the library does not reconnect.
    },
    onerror: () => 10, // Milliseconds until the next attempt.
  });
  return { network, received, close: () => closing.abort() };
};

const startEventSourceClient: StartClient = (url, bearer) => {
  const network = new TestNetwork('h2');
  const received = new EventCollector();
  const source = createEventSource({
    url,
    headers: { authorization: `Bearer ${bearer}` },
    fetch: asFetch(network) as never,
    onMessage: (event) => collect(received, event),
  });
  return { network, received, close: () => source.close() };
};

async function openClient(system: System, startClient: StartClient, bearer: string) {
  const client = startClient(`${system.url}/stream/live`, bearer);
  system.onClose(() => client.close());
  await client.received.until(() => client.received.dataByType('stream.open')[0]);
  return client;
}

for (const [name, startClient] of [
  ['@microsoft/fetch-event-source', startFetchEventSource],
  ['eventsource-client', startEventSourceClient],
] as const) {
  for (const kind of ['an access token', 'a stream token']) {
    test(`${name} with ${kind} misses no event, even when it is disconnected before its first event`, async (t) => {
      const system = await startSystem(t, { env: { STREAM_RETRY: '100' } });
      const login = await system.connect();
      const bearer =
        kind === 'an access token'
          ? await login.accessToken('ada')
          : ((await login.streamPath('ada')).split('/').at(-1) ?? '');
      const { received, network } = await openClient(system, startClient, bearer);

      network.disconnect();
      const first = await system.publish('ada', 'while it was disconnected', { type: 'note' });
      await received.until(() => received.ids.at(-1) === first || undefined);
      network.disconnect();
      await system.publish('ada', { line: 'one\ntwo' });
      await system.publish('ada', 'two\nlines');
      await received.until(() => received.dataByType('message')[1]);
      await system.restart();
      await system.publish('ada', 'after a restart');
      await received.until(() => received.dataByType('message')[2]);

      assert.deepEqual(received.dataByType('note'), ['while it was disconnected']);
      assert.deepEqual(received.dataByType('message'), [
        '{"line":"one\\ntwo"}',
        'two\nlines',
        'after a restart',
      ]);
      const reasons = received.dataByType('stream.open').map((data) => JSON.parse(data).reason);
      assert.deepEqual(reasons, ['fresh', 'resumed', 'resumed', 'resumed']);
      const types = new Set(received.events.map(({ type }) => type));
      types.delete('count'); // Sent only if the number of users changes between two seconds.
      assert.deepEqual([...types].sort(), ['message', 'note', 'stream.close', 'stream.open']);
    });
  }
}

/** Debian's Python, because other Python installations do not find Debian's packages. */
const python = '/usr/bin/python3';
const noHttpx =
  spawnSync(python, ['-c', 'import httpx, h2']).status === 0 ? false : 'httpx is not installed';

/** Reads a stream with httpx in a child process; collects the lines that the process prints. */
function openHttpx(t: TestContext, system: System, url: string) {
  const script = fileURLToPath(new URL('./support/clients/httpx_stream.py', import.meta.url));
  const child = spawn(python, [script, url, join(system.folder, 'server.cert')]);
  t.after(() => child.kill());
  const lines: string[] = [];
  const received = new EventCollector();
  createInterface({ input: child.stdout }).on('line', (line) => {
    lines.push(line);
    received.feed(Buffer.from(`${line}\n`));
  });
  let errors = '';
  child.stderr.on('data', (bytes: Buffer) => {
    errors += bytes;
  });
  const ended = new Promise<number | null>((resolve) => {
    child.once('close', (code) => {
      received.end();
      resolve(code);
    });
  });
  const exited = () =>
    withDeadline(ended, () => `the exit of httpx: ${lines.join('; ')} ${errors}`);
  return { lines, received, exited, getErrors: () => errors };
}

test('httpx over HTTP/2 receives stream.close and the regular end of its stream when the server stops', {
  skip: noHttpx,
}, async (t) => {
  const system = await startSystem(t);
  const client = await system.connect();
  const url = system.url + (await client.streamPath('ada'));
  const { lines, received, exited, getErrors } = openHttpx(t, system, url);
  await received.opening();
  const id = await system.publish('ada', 'x'.repeat(60_000));
  await received.until(() => received.ids.at(-1) === id || undefined);

  await system.stop();
  const code = await exited();

  assert.deepEqual([code, getErrors()], [0, '']);
  assert.equal(lines[0], 'version HTTP/2 200');
  assert.equal(lines.at(-1), 'connection closed');
  assert.deepEqual(await received.closing(), { code: 'draining', reconnect: true });
});
