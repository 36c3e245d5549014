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

/** How a request is written. `own`: each event has an idempotency key of its own. */
interface SentRequest {
  readonly form: 'single' | 'array' | 'lines';
  readonly events: readonly SentEvent[];
  readonly key: 'none' | 'header' | 'own';
  readonly isRetried: boolean;
  /** Sizes of the pieces in which the body is sent. */
  readonly pieces: readonly number[];
}

type Step =
  | ({ readonly kind: 'publish'; readonly isAwaited: boolean; readonly via: number } & SentRequest)
  | { readonly kind: 'cut'; readonly via: number; readonly inQuery: boolean }
  | { readonly kind: 'pause' | 'resume' };

const blanks = fc.constantFrom('', ' ', '\t', '  ');
const leaves = fc.oneof(
  fc.constantFrom('12345678901234567890', '-0', '1e400', '1.10', 'true', 'null', '"\\u2028\\/"'),
  fc.string({ unit: 'grapheme' }).map((text) => JSON.stringify(text)),
  fc.integer().map(String),
);
const { json } = fc.letrec<{ json: JsonText; array: JsonText; object: JsonText }>((tie) => ({
  json: fc.oneof(
    { maxDepth: 3 },
    leaves.map((text) => ({ sent: text, received: text })),
    tie('array'),
    tie('object'),
  ),
  array: fc.tuple(blanks, fc.array(tie('json'), { maxLength: 4 })).map(([blank, items]) => {
    const sent = items.map((item) => item.sent).join(`${blank},${blank}`);
    const received = items.map((item) => item.received).join(',');
    return { sent: `[${blank}${sent}${blank}]`, received: `[${received}]` };
  }),
  // The same name may occur twice.
  object: fc
    .tuple(
      blanks,
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
/** Data that is a string arrives unchanged, except that a stream has one kind of line end. */
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
    key: fc.constantFrom('none', 'header', 'own'),
    isRetried: fc.boolean(),
    pieces: fc.array(fc.integer({ min: 1, max: 200 }), { maxLength: 10 }),
  })
  .map(({ form, events, key, isRetried, pieces }) => {
    const sentEvents = form === 'single' ? events.slice(0, 1) : events;
    return { form, events: sentEvents, key, isRetried: isRetried && key !== 'none', pieces };
  });
const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 5,
    arbitrary: fc
      .tuple(request, fc.boolean(), fc.nat(1))
      .map(([sent, isAwaited, via]) => ({ kind: 'publish' as const, isAwaited, via, ...sent })),
  },
  {
    weight: 2,
    arbitrary: fc.record({
      kind: fc.constant('cut' as const),
      via: fc.nat(1),
      inQuery: fc.boolean(),
    }),
  },
  {
    weight: 1,
    arbitrary: fc.record({ kind: fc.constantFrom('pause' as const, 'resume' as const) }),
  },
);

/** One or two processes, and a connection of the publishers to each. */
interface Deployment {
  readonly urls: readonly string[];
  readonly publishers: readonly H2Client[];
  /** Access token of Ada. */
  readonly bearer: string;
  readonly apiKey: string;
  readonly userIds: Readonly<Record<'ada' | 'bob', string>>;
}

const env = {
  ...{ STREAM_OPEN_IP_RATE: '100000/1000', STREAM_TOKEN_USER_RATE: '100000/1000' },
  ...{ STREAM_UNSENT_SOFT: '4096', MAX_STREAMS_PER_USER: '100' },
};

/** A reader that returns to its position whenever it is cut. */
class Reader {
  /** One for each process. Closed after a run, because Node limits how many streams a connection resets. */
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

  async cut(via: number, inQuery: boolean): Promise<void> {
    this.#stream.abort();
    await this.#stream.ended();
    this.#earlier.push(this.#stream);
    this.#lastId = this.#stream.events.findLast(({ id }) => id !== undefined)?.id ?? this.#lastId;
    const client = this.#clients[via % this.#clients.length] as H2Client;
    const id = this.#lastId;
    if (id === undefined) this.#stream = await client.openStream(this.#path);
    else if (inQuery) this.#stream = await client.openStream(`${this.#path}?lastEventId=${id}`);
    else this.#stream = await client.openStream(this.#path, { 'last-event-id': id });
  }

  pause(): void {
    this.#stream.stream.pause();
  }

  resume(): void {
    this.#stream.stream.resume();
  }

  /** Settles once the event of this type has arrived. */
  async readUntil(type: string): Promise<void> {
    this.resume();
    await this.#stream.until(() => this.#stream.events.find((one) => one.type === type));
  }
}

let eventCount = 0;

/**
 * Sends a request, and again if it is retried, perhaps to the other process. Returns its events with their
 * ids, which the response to JSON lines does not have. Throws unless they are acknowledged.
 */
async function publish(
  { publishers, apiKey, userIds }: Deployment,
  { form, events, key, isRetried, pieces }: SentRequest,
  via: number,
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
    const own = key === 'own' ? `,"idempotencyKey":"key of ${type}"` : '';
    return `{"to":${JSON.stringify(audiences[to])},"type":"${type}","data":${data.sent}${own}}`;
  });
  const body = form === 'array' ? `[${bodies.join(' , ')}]` : bodies.join('\n');
  const headers = {
    'content-type': form === 'lines' ? 'application/x-ndjson' : 'application/json',
    ...(key === 'header' && { 'idempotency-key': `key of ${sent[0]?.type}` }),
  };
  const answers = [];
  for (let left = isRetried ? 2 : 1; left > 0; left -= 1) {
    const client = publishers[(via + left) % publishers.length] as H2Client;
    const parts = { bearer: apiKey, headers, body: Readable.from(cutUp(body, pieces)) };
    const answer = await client.ask('POST', '/events', parts);
    assert.equal(answer.status, 201, answer.text);
    answers.push(answer.body);
  }
  if (isRetried) assert.deepEqual(answers[0], answers[1]);
  const { id, ids } = answers[0] as { id?: string; ids?: string[] };
  return sent.map((one, index) => ({ ...one, id: id ?? ids?.[index] }));
}

function* cutUp(body: string, pieces: readonly number[]): Generator<Buffer> {
  let rest = Buffer.from(body);
  for (const size of pieces) {
    yield rest.subarray(0, size);
    rest = rest.subarray(size);
  }
  if (rest.length > 0) yield rest;
}

async function run(deployment: Deployment, steps: readonly Step[]): Promise<void> {
  const reader = await Reader.open(deployment);
  try {
    await check(deployment, reader, steps);
  } finally {
    reader.close();
  }
}

async function check(
  deployment: Deployment,
  reader: Reader,
  steps: readonly Step[],
): Promise<void> {
  const publishing: ReturnType<typeof publish>[] = [];
  for (const one of steps) {
    if (one.kind === 'publish') {
      const published = publish(deployment, one, one.via);
      publishing.push(published);
      if (one.isAwaited) await published;
    } else if (one.kind === 'cut') await reader.cut(one.via, one.inQuery);
    else reader[one.kind]();
  }
  const acknowledged = (await Promise.all(publishing)).flat();
  const last: SentEvent = { to: 'ada', data: { sent: '1', received: '1' } };
  const single: SentRequest = {
    form: 'single',
    events: [last],
    key: 'none',
    isRetried: false,
    pieces: [],
  };
  const [end] = await publish(deployment, single, 0);
  await reader.readUntil(end?.type ?? '');

  const { events } = reader;
  const expected = new Map(
    [...acknowledged, { ...end, type: end?.type ?? '', event: last, id: end?.id }]
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
  // Events of one request arrive in its order.
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

async function startTwo(t: TestContext): Promise<Deployment> {
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

test('sqlite: what is acknowledged is received once, in order and unchanged, by a reader that is cut at random', async (t) => {
  const deployment = await startEmbedded(t);

  await fc.assert(property(deployment), {
    numRuns: races.runs,
    seed: races.seed,
    includeErrorInReport: true,
  });
});

test('postgres: what is acknowledged is received once, in order and unchanged, by a reader that moves between two processes', {
  skip: await skipFor('postgres'),
}, async (t) => {
  const deployment = await startTwo(t);

  await fc.assert(property(deployment), {
    numRuns: races.runs,
    seed: races.seed,
    includeErrorInReport: true,
  });
});
