import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  type ClosingCode,
  encodeClosing,
  encodeOpening,
  encodeTopics,
  heartbeatEvent,
  pickRetryMs,
} from './control-events.js';

test('stream.open says where the stream starts, and has its position as id', () => {
  const { seq, bytes } = encodeOpening({
    start: { seq: 7, resumed: true, reason: 'resumed', id: 'e-7' },
    ...{ publicId: 'public', userId: '1', endsAt: 1e12, heartbeatMs: 15_000, retryMs: 4000 },
    ...{ topics: [{ topic: 'a', after: 'e-5' }], memberships: 2 },
  });

  const data =
    '{"v":1,"resumed":true,"reason":"resumed","id":"e-7","stream":"public","user":"1",' +
    '"endsAt":1000000000000,"heartbeat":15000,"topics":[{"topic":"a","after":"e-5"}],"memberships":2}';
  assert.equal(bytes.toString(), `retry: 4000\nevent: stream.open\ndata: ${data}\nid: e-7\n\n`);
  assert.equal(seq, 0);
});

test('stream.topics has an id if the client has got every earlier event', () => {
  const change = { added: ['a'], removed: ['b', 'c'], id: 'e-7' };

  const text = 'event: stream.topics\ndata: {"added":["a"],"removed":["b","c"],"id":"e-7"}\n';
  assert.equal(encodeTopics(change, true).bytes.toString(), `${text}id: e-7\n\n`);
  assert.equal(encodeTopics(change, false).bytes.toString(), `${text}\n`);
});

// [code, whether the client is to reconnect, `retry:`]
const closings: readonly (readonly [ClosingCode, boolean, number])[] = [
  ['draining', true, 2000],
  ['behind', true, 2000],
  ['failed', true, 2000],
  ['refused', true, 2000],
  ['replaced', false, 300_000],
  ['revoked', false, 300_000],
  ['expired', false, 300_000],
];

for (const [code, reconnect, retryMs] of closings) {
  test(`stream.close with ${code} asks the client ${reconnect ? 'to reconnect' : 'not to reconnect'}`, () => {
    const data = `{"code":"${code}","reconnect":${reconnect},"renew":false}`;

    assert.equal(
      encodeClosing(code, 2000).toString(),
      `retry: ${retryMs}\nevent: stream.close\ndata: ${data}\n\n`,
    );
  });
}

test('a heartbeat event has no id and no data', () => {
  assert.equal(heartbeatEvent.toString(), 'event: stream.heartbeat\ndata: {}\n\n');
});

test('a retry time is random, from one to three times the configured one', () => {
  const picked = [0, 0.5, 1].map((value) => pickRetryMs(2001, () => value));

  assert.deepEqual(picked, [2001, 4002, 6003]);
});
