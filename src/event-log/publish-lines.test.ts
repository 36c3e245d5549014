import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { NewEvent } from '../events/publish-request.js';
import { BodyBudget } from '../http/body/body-budget.js';
import { publishLines } from './publish-lines.js';

const mib = 1024 * 1024;

/** Publishes one line per element of `data`. Returns the number of events in each batch. */
async function publishBatches(
  data: readonly unknown[],
  budget = new BodyBudget(8 * mib),
): Promise<number[]> {
  const batches: number[] = [];
  await publishLines(generateLines(data), {
    limits: { eventBytesMax: mib },
    ...{ wallClock: () => 0, budget },
    publish: async (events: readonly NewEvent[]) => {
      batches.push(events.length);
      return events.map(() => null);
    },
    key: 'batches are written when they are full',
    signal: new AbortController().signal,
  });
  return batches;
}

async function* generateLines(data: readonly unknown[]) {
  for (const each of data) {
    const value = { to: 'all', data: each };
    yield { value, text: JSON.stringify(value) };
  }
}

test('the budget of a batch counts the bytes of its lines, not their characters', async () => {
  const data = ['é'.repeat(1000)];
  const bytes = Buffer.byteLength(JSON.stringify({ to: 'all', data: data[0] }));

  await assert.rejects(publishBatches(data, new BodyBudget(bytes - 1)), {
    name: 'service_unavailable',
  });
  assert.deepEqual(await publishBatches(data, new BodyBudget(bytes)), [1]);
});

test('a batch is full at 1 MiB of data, whatever the number of its characters', async () => {
  for (const character of ['x', 'é', '語', '🐝']) {
    const text = character.repeat(1000);
    const oneByteLess = text + 'x'.repeat(mib - Buffer.byteLength(text) - 1);

    assert.deepEqual(await publishBatches([oneByteLess, 'x', 'x']), [2, 1], character);
    assert.deepEqual(await publishBatches([`${oneByteLess}x`, 'x', 'x']), [1, 2], character);
  }
});

test('a body that fails releases the bytes of its unwritten lines', async () => {
  const budget = new BodyBudget(mib);

  await assert.rejects(publishBatches(['x'.repeat(1000), undefined], budget), {
    name: 'missing_required_parameter',
  });

  assert.equal(budget.tryAcquire(mib), true);
});
