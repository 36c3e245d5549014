import assert from 'node:assert/strict';
import { Readable } from 'node:stream';
import { type TestContext, test } from 'node:test';
import fc from 'fast-check';
import { H2Client, type H2Stream } from './support/clients/h2-client.js';
import { skipFor } from './support/databases/new-database.js';
import { races } from './support/races.js';
import { clusterFor } from './support/servers/cluster.js';
import { startSystem } from './support/servers/system.js';

/** JSON as a publisher writes it, and as a reader must receive it. */
interface JsonText {
  readonly sent: string;
  readonly received: string;
}

interface SentEvent {
  readonly to: 'ada' | 'bob' | 'both' | 'all';
  readonly data: JsonText;
}

/** A request of a publisher. `keys`: where its idempotency keys are, in the header or in each event. */
interface SentRequest {
  readonly form: 'single' | 'array' | 'lines';
  readonly events: readonly SentEvent[];
  readonly keys: 'none' | 'header' | 'event';
  /** Whether the request is sent again: after its response, or at the same moment. */
  readonly retry: 'none' | 'after' | 'concurrent';
  /** Sizes of the pieces in which the body is sent. */
  readonly pieces: readonly number[];
}

/** `target` is the index of a server process, modulo the number of processes. */
type Step =
  | ({
      readonly kind: 'publish';
      readonly isAwaited: boolean;
      readonly target: number;
    } & SentRequest)
  | { readonly kind: 'cut'; readonly target: number; readonly isIdInQuery: boolean }
  | { readonly kind: 'pause' | 'resume' };

const whitespace = fc.constantFrom('', ' ', '\t', '  ');
const scalars = fc.oneof(
  fc.constantFrom('12345678901234567890', '-0', '1e400', '1.10', 'true', 'null', '"\\u2028\\/"'),
  fc.string({ unit: 'grapheme' }).map((text) => JSON.stringify(text)),
  fc.integer().map(String),
);
const { json } = fc.letrec<{ json: JsonText; array: JsonText; object: JsonText }>((tie) => ({
  json: fc.oneof(
    { maxDepth: 3 },
    scalars.map((text) => ({ sent: text, received: text })),
    tie('array'),
    tie('object'),
  ),
  array: fc.tuple(whitespace, fc.array(tie('json'), { maxLength: 4 })).map(([blank, items]) => {
    const sent = items.map((item) => item.sent).join(`${blank},${blank}`);
    const received = items.map((item) => item.received).join(',');
    return { sent: `[${blank}${sent}${blank}]`, received: `[${received}]` };
  }),
  // A name may occur more than once in an object.
  object: fc
    .tuple(
      whitespace,
      fc.array(fc.tuple(fc.constantFrom('a', 'b', 'é'), tie('json')), { maxLength: 4 }),
    )
    .map(([blank, members]) => {
      const sent = members.map(([name, value]) => `"${name}"${blank}:${blank}${value.sent}`);
      const received = members.map(([name, value]) => `"${name}":${value.received}`);
      return {
        sent: `{${blank}${sent.join(`,${blank}`)}${blank}}`,
        received: `{${received.join(',')}}`,
      };
    }),
}));
const text = fc
  .oneof(
    fc.string({ unit: 'grapheme' }),
    fc
      .array(fc.constantFrom('\r', '\n', '\r\n', 'data: ', ':', ' ', 'é', '\u2028'))
      .map((parts) => parts.join('')),
    fc.integer({ min: 1, max: 30_000 }).map((length) => 'x\n'.repeat(length)),
  )
  .map((value) => ({ sent: JSON.stringify(value), received: '' }));
/** A string in `data` is received as its text; a stream turns every line end into LF. */
const data = fc.oneof(json, json, text).map(({ sent, received }) => {
  if (!sent.startsWith('"')) return { sent, received };
  return { sent, received: JSON.parse(sent).replaceAll(/\r\n|\r/g, '\n') as string };
});
const event: fc.Arbitrary<SentEvent> = fc.record({
  to: fc.constantFrom('ada', 'ada', 'bob', 'both', 'all'),
  data,
});
const request: fc.Arbitrary<SentRequest> = fc
  .record({
    form: fc.constantFrom('single', 'array', 'lines'),
    events: fc.array(event, { minLength: 1, maxLength: 5 }),
    keys: fc.constantFrom('none', 'header', 'event'),
    retry: fc.constantFrom('none', 'after', 'concurrent'),
    pieces: fc.array(fc.integer({ min: 1, max: 200 }), { maxLength: 10 }),
  })
  .map(({ form, events, keys, retry, pieces }) => {
    const sentEvents = form === 'single' ? events.slice(0, 1) : events;
    return { form, events: sentEvents, keys, retry: keys === 'none' ? 'none' : retry, pieces };
  });
const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 5,
    arbitrary: fc.tuple(request, fc.boolean(), fc.nat(1)).map(([sent, isAwaited, target]) => ({
      kind: 'publish' as const,
      isAwaited,
      target,
      ...sent,
    })),
  },
  {
    weight: 2,
    arbitrary: fc.record({
      kind: fc.constant('cut' as const),
      target: fc.nat(1),
      isIdInQuery: fc.boolean(),
    }),
  },
  {
    weight: 1,
    arbitrary: fc.record({ kind: fc.constantFrom('pause' as const, 'resume' as const) }),
  },
);

/** One or two server processes, and for each a connection that publishes events. */
interface Deployment {
  readonly urls: readonly string[];
  readonly publishers: readonly H2Client[];
  /** Ada's access token. */
  readonly bearer: string;
  readonly apiKey: string;
  readonly userIds: Readonly<Record<'ada' | 'bob', string>>;
}

const env = {
  ...{ STREAM_OPEN_IP_RATE: '100000/1000', STREAM_TOKEN_USER_RATE: '100000/1000' },
  ...{ STREAM_UNSENT_SOFT: '4096', MAX_STREAMS_PER_USER: '100' },
};

/** A client with one event stream. After each `cut` it resumes at the last event id that it has received. */
class Reader {
  /** One connection for each process, closed after a run because Herald limits the resets of a connection. */
  readonly #clients: readonly H2Client[];
  readonly #path: string;
  readonly #earlier: H2Stream[] = [];
  #stream: H2Stream;
  #lastId: string | undefined;

  private constructor(clients: readonly H2Client[], path: string, stream: H2Stream) {
    this.#clients = clients;
    this.#path = path;
    this.#stream = stream;
  }

  static async open({ urls, bearer }: Deployment): Promise<Reader> {
    const clients = await Promise.all(urls.map((url) => H2Client.connect(url)));
    const [client] = clients as [H2Client];
    const { body } = await client.ask('POST', '/stream/token', { bearer });
    const path = `/stream/live/${body['streamToken']}`;
    return new Reader(clients, path, await client.openStream(path));
  }

  close(): void {
    for (const client of this.#clients) client.destroy();
  }

  /** Every published event that has arrived so far, over all streams. */
  get events() {
    return [...this.#earlier, this.#stream]
      .flatMap((stream) => stream.events)
      .filter(({ type }) => /^t\d+$/.test(type));
  }

  /** Resets the stream and opens it again, at the process `target`. */
  async cut(target: number, isIdInQuery: boolean): Promise<void> {
    this.#stream.abort();
    await this.#stream.ended();
    this.#earlier.push(this.#stream);
    this.#lastId = this.#stream.events.findLast(({ id }) => id !== undefined)?.id ?? this.#lastId;
    const client = this.#clients[target % this.#clients.length] as H2Client;
    const id = this.#lastId;
    if (id === undefined) this.#stream = await client.openStream(this.#path);
    else if (isIdInQuery) this.#stream = await client.openStream(`${this.#path}?lastEventId=${id}`);
    else this.#stream = await client.openStream(this.#path, { 'last-event-id': id });
  }

  pause(): void {
    this.#stream.stream.pause();
  }

  resume(): void {
    this.#stream.stream.resume();
  }

  /** Resumes reading, and settles once the event of this type has arrived. */
  async readUntil(type: string): Promise<void> {
    this.resume();
    await this.#stream.until(() => this.#stream.events.find((one) => one.type === type));
  }
}

let eventCount = 0;

/**
 * Sends a request; sends a retried request a second time, to the other process if there are two. Returns
 * its events with their ids, which are undefined after JSON lines, because their response has no ids. Throws
 * when a response is not 201, or when the two responses differ.
 */
async function publish(
  { publishers, apiKey, userIds }: Deployment,
  { form, events, keys, retry, pieces }: SentRequest,
  target: number,
): Promise<{ type: string; event: SentEvent; id: string | undefined }[]> {
  const audiences = {
    ada: { users: [userIds.ada] },
    bob: { users: [userIds.bob] },
    both: { users: [userIds.bob, userIds.ada] },
    all: 'all',
  };
  const sent = events.map((one) => {
    eventCount += 1;
    return { type: `t${eventCount}`, event: one };
  });
  const bodies = sent.map(({ type, event: { to, data } }) => {
    const ownKey = keys === 'event' ? `,"idempotencyKey":"key of ${type}"` : '';
    return `{"to":${JSON.stringify(audiences[to])},"type":"${type}","data":${data.sent}${ownKey}}`;
  });
  const body = form === 'array' ? `[${bodies.join(' , ')}]` : bodies.join('\n');
  const headers = {
    'content-type': form === 'lines' ? 'application/x-ndjson' : 'application/json',
    ...(keys === 'header' && { 'idempotency-key': `key of ${sent[0]?.type}` }),
  };
  const ask = async (index: number) => {
    const client = publishers[index % publishers.length] as H2Client;
    const parts = { bearer: apiKey, headers, body: Readable.from(split(body, pieces)) };
    const answer = await client.ask('POST', '/events', parts);
    assert.equal(answer.status, 201, answer.text);
    return answer.body;
  };
  const first = ask(target);
  if (retry === 'after') await first;
  const answers = await Promise.all(retry === 'none' ? [first] : [first, ask(target + 1)]);
  if (retry !== 'none') assert.deepEqual(answers[0], answers[1]);
  const { id, ids } = answers[0] as { id?: string; ids?: string[] };
  return sent.map((one, index) => ({ ...one, id: id ?? ids?.[index] }));
}

/** Yields pieces of the body with these sizes, and then the remainder. */
function* split(body: string, pieces: readonly number[]): Generator<Buffer> {
  let remainder = Buffer.from(body);
  for (const size of pieces) {
    yield remainder.subarray(0, size);
    remainder = remainder.subarray(size);
  }
  if (remainder.length > 0) yield remainder;
}

async function run(deployment: Deployment, steps: readonly Step[]): Promise<void> {
  const reader = await Reader.open(deployment);
  try {
    await takeSteps(deployment, reader, steps);
  } finally {
    reader.close();
  }
}

/**
 * Takes the steps and publishes a final event. Asserts that the reader has received each acknowledged event for
 * Ada exactly once, unchanged and in order.
 */
async function takeSteps(
  deployment: Deployment,
  reader: Reader,
  steps: readonly Step[],
): Promise<void> {
  const publishing: ReturnType<typeof publish>[] = [];
  for (const one of steps) {
    if (one.kind === 'publish') {
      const published = publish(deployment, one, one.target);
      published.catch(() => {}); // Reported below, with the seed.
      publishing.push(published);
      if (one.isAwaited) await published;
    } else if (one.kind === 'cut') await reader.cut(one.target, one.isIdInQuery);
    else reader[one.kind]();
  }
  const acknowledged = (await Promise.all(publishing)).flat();
  const finalEvent: SentEvent = { to: 'ada', data: { sent: '1', received: '1' } };
  const finalRequest: SentRequest = {
    form: 'single',
    events: [finalEvent],
    keys: 'none',
    retry: 'none',
    pieces: [],
  };
  const [final] = await publish(deployment, finalRequest, 0);
  await reader.readUntil(final?.type ?? '');

  const { events } = reader;
  const expected = new Map(
    [...acknowledged, { ...final, type: final?.type ?? '', event: finalEvent, id: final?.id }]
      .filter(({ event: { to } }) => to !== 'bob')
      .map((one) => [one.type, one]),
  );
  const order = events.map(({ id }) => Number(id?.split('-')[1]));
  assert.deepEqual(
    order,
    [...new Set(order)].sort((a, b) => a - b),
  );
  assert.deepEqual(events.map(({ type }) => type).sort(), [...expected.keys()].sort());
  for (const { type, id, data } of events) {
    const found = expected.get(type);
    assert.equal(data, found?.event.data.received);
    if (found?.id !== undefined) assert.equal(id, found.id);
  }
  // The events of a request arrive in the order in which the request lists them.
  const position = new Map(events.map(({ type }, index) => [type, index]));
  for (const sent of await Promise.all(publishing)) {
    const positions = sent.flatMap(({ type }) => position.get(type) ?? []);
    assert.deepEqual(
      positions,
      [...positions].sort((a, b) => a - b),
    );
  }
}

async function startEmbedded(t: TestContext): Promise<Deployment> {
  const system = await startSystem(t, { env });
  const publisher = await system.connect();
  return {
    ...{ apiKey: system.apiKey, userIds: system.userIds, urls: [system.url] },
    ...{ publishers: [publisher], bearer: await publisher.accessToken('ada') },
  };
}

async function startTwoProcesses(t: TestContext): Promise<Deployment> {
  const { apiKey, userIds, start } = await clusterFor(t, 'postgres');
  const apps = [await start(env), await start(env)];
  const urls = apps.map(({ port }) => `https://127.0.0.1:${port}`);
  const publishers = await Promise.all(urls.map((url) => H2Client.connect(url)));
  t.after(() => {
    for (const client of publishers) client.destroy();
  });
  const [publisher] = publishers as [H2Client];
  const bearer = await publisher.accessToken('ada');
  return { apiKey, userIds, urls, publishers, bearer };
}

const property = (deployment: Deployment) =>
  fc.asyncProperty(fc.array(step, { minLength: 1, maxLength: 12 }), (steps) =>
    run(deployment, steps),
  );

test('sqlite: a client that is disconnected at random receives every acknowledged event once, in order and unchanged', async (t) => {
  const deployment = await startEmbedded(t);

  await fc.assert(property(deployment), {
    numRuns: races.runs,
    seed: races.seed,
    includeErrorInReport: true,
  });
});

test('postgres: a client that moves between two processes receives every acknowledged event once, in order and unchanged', {
  skip: await skipFor('postgres'),
}, async (t) => {
  const deployment = await startTwoProcesses(t);

  await fc.assert(property(deployment), {
    numRuns: races.runs,
    seed: races.seed,
    includeErrorInReport: true,
  });
});
