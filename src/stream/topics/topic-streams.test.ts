import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createParser } from 'eventsource-parser';
import { SimulatedClient } from '../../../test/support/clients/simulated-client.js';
import { MemoryLogStore } from '../../../test/support/databases/memory-log-store.js';
import { unlimitedRetention } from '../../../test/support/unlimited-retention.js';
import { EventLog } from '../../event-log/event-log.js';
import { getAudiences } from '../../events/audience.js';
import type { ControlEntry } from '../../events/control-entry.js';
import { silentLogger } from '../../logging/logger.js';
import { EventStream, type StreamEnd } from '../event-stream.js';
import { Registry } from '../registry.js';
import { WriteScheduler } from '../write-scheduler.js';
import { noStoredRows, type StoredRows, TopicRows } from './topic-rows.js';

const limits = {
  ...{ heartbeatMs: 1e9, stallMs: 1e9, retryMs: 2000 },
  ...{ unsentSoftBytes: 500, unsentHardBytes: 1024 * 1024 },
};
const wallClock = () => 1_000_000;
const nextTurn = () => new Promise((resolve) => setImmediate(resolve));

interface OpenOptions {
  readonly userId?: string;
  readonly tokenHash?: string;
  readonly rows?: StoredRows;
  /** Where the stream starts. Default: the newest entry. */
  readonly after?: number;
  /** Called before the stream is registered. */
  readonly meanwhile?: () => Promise<void>;
}

/** An event log in memory with a registry. */
async function openHarness(history: (store: MemoryLogStore) => void = () => {}) {
  const store = new MemoryLogStore('e');
  history(store);
  store.release();
  const eventLog = await EventLog.open({
    ...{ store, log: silentLogger, wallClock, limits: unlimitedRetention },
  });
  const registry = new Registry({
    limits: { streamsMax: 1e9, perUserMax: 1e9, perIpMax: 1e9 },
    ...{ monotonicClock: wallClock, random: () => 0.5 },
  });
  eventLog.subscribe(registry);
  const scheduler = new WriteScheduler(wallClock);
  const open = async (options: OpenOptions = {}) => {
    const { userId = '1', tokenHash, rows = noStoredRows, meanwhile } = options;
    const audiences = getAudiences(userId, `s${userId}`);
    const events: { event: string; id: string | undefined; data: string }[] = [];
    const parser = createParser({
      onEvent: ({ event = 'message', id, data }) => events.push({ event, id, data }),
    });
    const client = new SimulatedClient(userId, (bytes) => parser.feed(bytes.toString()));
    const ends: StreamEnd[] = [];
    const pendingOpen = registry.pendingOpens.add();
    const headAtOpen = store.entries.length;
    const after = options.after ?? headAtOpen;
    await meanwhile?.();
    const stream = new EventStream({
      id: 'c1',
      subscriber: { userId, sessionId: `s${userId}`, audiences, ipKey: 'ip', tokenHash },
      client: { address: '192.0.2.1', userAgent: undefined },
      openedAt: 1e6,
      start: { seq: after, resumed: true, reason: 'resumed', id: `e-${after}` },
      topics: new TopicRows(audiences, rows),
      ...{ headAtOpen, claim: undefined, publicId: 'public', endsAt: 1e12 },
      hasHeartbeatEvents: false,
      sink: client.connect(),
      ...{ eventLog, scheduler, limits, monotonicClock: wallClock, random: () => 0.5 },
      onEnd: (ended, end) => {
        ends.push(end);
        registry.remove(ended);
      },
    });
    registry.add(stream, pendingOpen);
    if (stream.isOpen) stream.open();
    /** Lets the client accept everything, and returns the events since the last call, without `stream.open`. */
    const receive = async () => {
      for (let turn = 0; turn < 6; turn += 1) {
        await nextTurn();
        client.sink?.acceptBytes(1e9);
      }
      return events.splice(0).filter(({ event }) => event !== 'stream.open');
    };
    /** Like `receive`, but returns the data of published events only. */
    const receiveData = async () =>
      (await receive()).filter(({ event }) => event === 'message').map(({ data }) => data);
    return { stream, client, events, ends, receive, receiveData };
  };
  const publish = (data: string, ...audiences: string[]) => {
    store.appendExternally(audiences, data);
    return eventLog.catchUp();
  };
  const change = (entry: ControlEntry) => {
    store.appendControlEntry(entry);
    return eventLog.catchUp();
  };
  return { store, eventLog, registry, open, publish, change };
}

function members(kind: 'members_added' | 'members_removed' | 'topic_revoked', ...ids: string[]) {
  return { kind, members: { topic: 'a', userIds: ids.length === 0 ? ['1'] : ids } } as const;
}

function choice(
  kind: 'topics_chosen' | 'topics_given_up' | 'choices_removed',
  ...topics: string[]
) {
  return { kind, choice: { tokenHash: 'h', topics } } as const;
}

function topicRows(memberships: readonly string[], choices: readonly string[] = [], since = 0) {
  const toRows = (topics: readonly string[]) => topics.map((topic) => ({ topic, since }));
  return { memberships: toRows(memberships), choices: toRows(choices) };
}

test('a live stream receives the events of a topic between the entries of joining and leaving', async () => {
  const { open, publish, change } = await openHarness();
  const { receive } = await open();
  await receive();

  await publish('before', 't:a'); // 1
  await change(members('members_added')); // 2
  await publish('between', 't:a'); // 3
  await publish('other topic', 't:A');
  await change(members('members_removed')); // 5
  await publish('after', 't:a');

  const topics = (added: string[], removed: string[], id: string) => {
    return { event: 'stream.topics', id, data: JSON.stringify({ added, removed, id }) };
  };
  assert.deepEqual(await receive(), [
    topics(['a'], [], 'e-2'),
    { event: 'message', id: 'e-3', data: 'between' },
    topics([], ['a'], 'e-5'),
  ]);
});

test('stream.open lists the chosen topics with their positions, and counts memberships', async () => {
  const { open } = await openHarness();
  const first = await open({ rows: topicRows(['m1', 'm2'], ['b', 'a'], 7) });
  const second = await open();

  const opened = [];
  for (const { events, client } of [first, second]) {
    await nextTurn();
    client.sink?.acceptBytes(1e9);
    opened.push(JSON.parse(events[0]?.data ?? '{}'));
  }

  const [{ topics, memberships }, withoutTopics] = opened;
  const expected = ['a', 'b'].map((topic) => ({ topic, after: 'e-7' }));
  assert.deepEqual({ topics, memberships }, { topics: expected, memberships: 2 });
  assert.deepEqual([withoutTopics.topics, withoutTopics.memberships], [[], 0]);
});

test('a stream that replays is notified of a new topic without an id', async () => {
  const { open, publish, change } = await openHarness((store) => {
    store.appendExternally(['u:1'], 'missed');
  });
  const { receive } = await open({ after: 0 });

  await change(members('members_added')); // 2, before the client has accepted anything.
  await publish('of the topic', 't:a');

  const data = JSON.stringify({ added: ['a'], removed: [], id: 'e-2' });
  const received = await receive();
  const byId = (id: string) => received.findIndex((event) => event.id === id);
  assert.deepEqual(
    received.filter(({ event }) => event === 'stream.topics'),
    [{ event: 'stream.topics', id: undefined, data }],
  );
  assert.ok(byId('e-1') >= 0 && byId('e-1') < byId('e-3'));
});

test('a stream that replays ends when the backend removes a topic, and nothing of the topic follows', async () => {
  for (const kind of ['members_removed', 'topic_revoked'] as const) {
    const { open, change } = await openHarness((store) => {
      for (const audience of ['t:a', 'u:1']) store.appendExternally([audience], audience);
    });
    const { receive, receiveData, ends } = await open({ after: 0, rows: topicRows(['a']) });

    await change(members(kind));

    assert.deepEqual(ends, [{ reason: 'behind' }], kind);
    const closing = (await receive()).at(-1);
    assert.equal(closing?.event, 'stream.close');
    assert.deepEqual(await receiveData(), []);
  }
});

test('a stream that replays does not end when a topic is removed that it does not have', async () => {
  const { open, change } = await openHarness((store) => {
    store.appendExternally(['u:1'], 'missed');
  });
  const { receive, ends } = await open({ after: 0, rows: topicRows([], ['a']), tokenHash: 'h' });

  await change(members('members_removed'));
  await change(choice('choices_removed', 'b'));

  assert.deepEqual(
    (await receive()).map(({ data }) => data),
    ['missed'],
  );
  assert.deepEqual(ends, []);
});

test('a live stream without the removed topic is told the position, so that its client resumes after it', async () => {
  const { open, change } = await openHarness();
  const { receive } = await open();
  await receive();

  await change(members('members_removed'));

  const data = JSON.stringify({ added: [], removed: [], id: 'e-1' });
  assert.deepEqual(await receive(), [{ event: 'stream.topics', id: 'e-1', data }]);
});

test('a client that reads nothing while its topics change is closed as overflow at the hard limit', async () => {
  const { open, registry } = await openHarness();
  const { stream, receive, ends, client } = await open({ tokenHash: 'h' });
  await receive();
  const topics = Array.from({ length: 50 }, (_, index) => `${index}`.padStart(128, 'x'));
  let unsentMax = 0;

  for (let seq = 1; seq <= 400 && stream.isOpen; seq += 1) {
    const kind = seq % 2 === 1 ? 'topics_chosen' : 'topics_given_up';
    await registry.applyControl(choice(kind, ...topics), seq);
    await nextTurn(); // One frame per flush cycle.
    unsentMax = Math.max(unsentMax, stream.unsentBytes);
  }

  assert.deepEqual(ends, [{ reason: 'overflow' }]);
  assert.equal(client.sink?.closed, true);
  assert.ok(unsentMax > limits.unsentHardBytes && unsentMax < limits.unsentHardBytes + 10_000);
});

test('a page that arrives after a topic was given up has no events of that topic', async () => {
  const { store, registry, open } = await openHarness((history) => {
    for (const audiences of [['t:a'], ['u:1'], ['t:b'], ['t:a', 't:b'], ['t:a', 'u:1']])
      history.appendExternally(audiences, audiences.join());
  });
  store.hold();
  const rows = topicRows(['b'], ['a', 'b']);
  const { receiveData, ends } = await open({ after: 0, rows, tokenHash: 'h' });
  await nextTurn();
  store.step(0); // The page is read, but has not arrived.

  registry.applyControl(choice('topics_given_up', 'a', 'b'), 6);
  store.release();

  assert.deepEqual(await receiveData(), ['u:1', 't:b', 't:a,t:b', 't:a,u:1']);
  assert.deepEqual(ends, []);
});

test('a choice is that of the streams of its token, and ends without the membership', async () => {
  const { open, publish, change } = await openHarness();
  const withToken = await open({ tokenHash: 'h', rows: topicRows(['b']) });
  const other = await open({ tokenHash: 'other' });
  const bearer = await open();
  for (const { receive } of [withToken, other, bearer]) await receive();

  await change(choice('topics_chosen', 'a', 'b'));
  await publish('first', 't:a', 't:b');
  await change(choice('topics_given_up', 'a', 'b'));
  await publish('second', 't:a');
  await publish('third', 't:b');

  const received = await withToken.receive();
  assert.deepEqual(
    received.map(({ data }) => data),
    [
      '{"added":["a"],"removed":[],"id":"e-1"}',
      'first',
      '{"added":[],"removed":["a"],"id":"e-3"}',
      'third',
    ],
  );
  for (const { receive } of [other, bearer]) assert.deepEqual(await receive(), []);
});

test('an event for a user and topics of the user is received once', async () => {
  const { open, publish, registry } = await openHarness();
  const { receiveData } = await open({ rows: topicRows(['a', 'b']) });
  await receiveData();

  await publish('once', 'u:1', 't:a', 't:b');
  const bytes = Buffer.from('data: volatile\n\n');
  registry.deliverVolatile({ audiences: ['t:a', 'u:1', 't:b'] }, { seq: 0, bytes }, 1);

  assert.deepEqual(await receiveData(), ['once', 'volatile']);
});

test('a volatile event reaches streams that had the topic at the head with which it was accepted', async () => {
  const { open, registry } = await openHarness();
  const { receiveData } = await open({ rows: topicRows(['a'], [], 5) });
  await receiveData();
  const deliver = (data: string, stamp: number) => {
    const bytes = Buffer.from(`data: ${data}\n\n`);
    registry.deliverVolatile({ audiences: ['t:a'] }, { seq: 0, bytes }, stamp);
  };

  for (const stamp of [4, 5, 6]) deliver(String(stamp), stamp);

  assert.deepEqual(await receiveData(), ['5', '6']);
});

test('entries that are applied while a stream is being opened change its topics before stream.open', async () => {
  const { open, change, publish } = await openHarness();
  await change(members('members_removed')); // 1, reflected in what is read.

  const { events, receiveData, client } = await open({
    ...{ rows: topicRows(['b'], ['c']), tokenHash: 'h' },
    meanwhile: async () => {
      await change(members('members_added'));
      await change(members('members_added', '2'));
      await change(choice('topics_chosen', 'd'));
      await change(choice('topics_given_up', 'c'));
    },
  });
  await publish('a', 't:a');
  await publish('d', 't:d');
  await publish('c', 't:c');
  await nextTurn();
  client.sink?.acceptBytes(1e9);

  const { topics, memberships } = JSON.parse(events[0]?.data ?? '{}');
  assert.deepEqual(
    { topics, memberships },
    { topics: [{ topic: 'd', after: 'e-4' }], memberships: 2 },
  );
  assert.equal(events.filter(({ event }) => event === 'stream.topics').length, 0);
  events.splice(0, 1);
  assert.deepEqual(await receiveData(), ['a', 'd']);
});

test('a removal while a stream is being opened ends it before stream.open', async () => {
  const { open, change, registry } = await openHarness();

  const { events, ends, client } = await open({
    rows: topicRows(['a']),
    meanwhile: () => change(members('members_removed')),
  });
  client.sink?.acceptBytes(1e9);

  assert.deepEqual(ends, [{ reason: 'behind' }]);
  assert.deepEqual(
    events.map(({ event }) => event),
    ['stream.close'],
  );
  assert.ok(registry.isEmpty);
});

test('an entry that was appended before a stream was opened does not change its topics', async () => {
  const { store, eventLog, open } = await openHarness();
  store.appendControlEntry(members('members_removed')); // 1, which this process has not applied.
  store.appendControlEntry(members('members_added')); // 2

  const { receive, ends } = await open({ rows: topicRows(['a'], [], 2) });
  await eventLog.catchUp();

  assert.deepEqual(await receive(), []);
  assert.deepEqual(ends, []);
});

test('a stream that is opened in a process that lags behind receives no event from before it joined', async () => {
  const { store, eventLog, open } = await openHarness();
  for (const data of ['before', 'after']) {
    store.appendExternally(['t:a'], data); // 1, and 3
    if (data === 'before') store.appendControlEntry(members('members_added')); // 2
  }

  const { receiveData } = await open({ rows: topicRows(['a'], [], 2), after: 0 });
  assert.deepEqual(await receiveData(), []);
  await eventLog.catchUp();

  assert.deepEqual(await receiveData(), ['after']);
});

test('a held stream is told of all changes of its topics at once, after it is released and before their events', async () => {
  const { open, publish, change } = await openHarness();
  const rows = topicRows(['m'], ['b', 'c', 'd']);
  const { stream, receive, ends } = await open({ tokenHash: 'h', rows });
  await receive();
  stream.hold();

  await change(choice('topics_chosen', 'e', 'f')); // 1
  await publish('e', 't:e');
  await change(choice('topics_given_up', 'b', 'c', 'f')); // 3
  await publish('b', 't:b');
  await change(choice('topics_chosen', 'c')); // 5
  await change(members('members_added')); // 6
  stream.hold(); // The claim waits for another round trip.
  await publish('c', 't:c');
  assert.deepEqual(await receive(), []);
  stream.release();

  const data = JSON.stringify({ added: ['a', 'c', 'e'], removed: ['b'], id: 'e-6' });
  const [first, ...others] = await receive();
  assert.deepEqual(
    { ...first, data: sortLists(first?.data) },
    { event: 'stream.topics', id: undefined, data },
  );
  assert.deepEqual(
    others.map((event) => event.data),
    ['e', 'c'],
  );
  assert.deepEqual(ends, []);
});

/** Sorts the lists of a `stream.topics`, whose order has no meaning. */
function sortLists(data = '{}') {
  const { added, removed, id } = JSON.parse(data);
  return JSON.stringify({ added: added.sort(), removed: removed.sort(), id });
}

test('a held stream without changes of its topics sends no stream.topics when it is released', async () => {
  const { open, change, publish } = await openHarness();
  const { stream, receive } = await open({ tokenHash: 'h', rows: topicRows([], ['a']) });
  await receive();
  stream.hold();
  await change(choice('topics_chosen', 'a')); // The stream has it already.
  await change(members('members_removed', '2'));
  await publish('to the user', 'u:1');

  stream.release();

  assert.deepEqual(
    (await receive()).map(({ data }) => data),
    ['to the user'],
  );
});

test('a held stream ends when the backend removes one of its topics', async () => {
  const { open, change } = await openHarness();
  const { stream, receive, ends } = await open({ rows: topicRows(['a']), tokenHash: 'h' });
  await receive();
  stream.hold();
  await change(choice('topics_chosen', 'secret'));

  await change(members('members_removed'));
  stream.release();

  assert.deepEqual(ends, [{ reason: 'behind' }]);
  assert.deepEqual(
    (await receive()).map(({ event }) => event),
    ['stream.close'],
  );
});

test('a change of members is applied to at most 200 streams in one turn, and then to the others', async () => {
  const { open, registry } = await openHarness();
  const streams: EventStream[] = [];
  for (const userId of ['1', '2', '3']) {
    for (let count = 0; count < 150; count += 1) streams.push((await open({ userId })).stream);
  }
  const countMembers = () => streams.filter(({ topics }) => topics.membershipCount === 1).length;
  const counts: number[] = [];

  const applied = registry.applyControl(members('members_added', '1', '3', '2', '4'), 1);
  while (counts.at(-1) !== 450) {
    counts.push(countMembers());
    await nextTurn();
  }
  await applied;

  assert.deepEqual(counts, [200, 400, 450]);
});

test('five changes of 200 members each take five turns, and changes without streams none', async () => {
  const { open, store, eventLog } = await openHarness();
  const userIds = Array.from({ length: 200 }, (_, index) => String(index));
  for (const userId of userIds) await open({ userId });
  for (let count = 0; count < 100; count += 1)
    store.appendControlEntry(members('members_added', 'of no stream'));
  for (const topic of ['a', 'b', 'c', 'd', 'e'])
    store.appendControlEntry({ kind: 'members_added', members: { topic, userIds } });
  const heads: number[] = [];

  const applying = eventLog.catchUp();
  while (eventLog.head < 105) {
    await nextTurn();
    heads.push(eventLog.head);
  }
  await applying;

  assert.deepEqual(heads, [101, 102, 103, 104, 105]);
});

test('a stream that is registered between two slices gets the change, too', async () => {
  const { open, registry } = await openHarness();
  for (let count = 0; count < 201; count += 1) await open();
  const entry = members('members_added');
  let applied: Promise<void> | undefined;

  const { stream } = await open({
    meanwhile: async () => {
      applied = registry.applyControl(entry, 1);
    },
  });

  assert.equal(stream.topics.membershipCount, 1);
  await applied;
  assert.equal(stream.topics.membershipCount, 1);
  assert.ok([...registry.streams].every(({ topics }) => topics.membershipCount === 1));
});

test('the index of topics has no streams that have ended', async () => {
  const { open, registry, change } = await openHarness();
  const { stream, receive } = await open({
    rows: topicRows(['a', 'b'], ['b', 'c']),
    tokenHash: 'h',
  });
  await receive();
  assert.equal(registry.topicCount, 3);

  await change(choice('topics_given_up', 'b', 'c'));
  await change(members('members_added'));
  assert.equal(registry.topicCount, 2);
  stream.close('draining');

  assert.equal(registry.topicCount, 0);
  assert.ok(registry.isEmpty);
});
