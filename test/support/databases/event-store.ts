import type { TestContext } from 'node:test';
import { Failure } from '../../../src/errors.js';
import { EventLog } from '../../../src/event-log/event-log.js';
import type { LoggableEvent } from '../../../src/event-log/log-store.js';
import { controlEntryAppender } from '../../../src/event-log/open.js';
import { SqlLogStore } from '../../../src/event-log/sql/sql-log-store.js';
import { ApiKeys, publisherKeys } from '../../../src/identity/api-keys.js';
import { silentLogger } from '../../../src/logging/logger.js';
import { unlimitedRetention } from '../unlimited-retention.js';
import { databaseFor } from './test-database.js';

/** Creates an event, by default for user 1. */
export const event = (data: string, audiences = ['u:1'], expiresAt?: number): LoggableEvent => ({
  audiences,
  type: 'note',
  data,
  expiresAt,
});

/** Creates an event with its own idempotency key. */
export const keyedEvent = (key: string, data: string): LoggableEvent => ({
  ...event(data),
  idempotency: { key, bodyHash: data.padEnd(64, '0'), index: undefined },
});

export const request = (...events: LoggableEvent[]) => ({ events, idempotency: undefined });

export const keyedRequest = (key: string, body: string, ...events: LoggableEvent[]) => ({
  events,
  idempotency: { key, bodyHash: body.padEnd(64, '0') },
});

/** Creates the control entry for the end of these sessions. */
export const ended = (...sessionIds: string[]) => ({ kind: 'sessions_ended', sessionIds }) as const;

/** Stored size of an event with one byte of data and one recipient. */
export const smallEventBytes = 1 + 128;

/** The audiences of user 1 in session x. */
export const audiences = ['all', 'u:1', 's:x'];

/** Limits of a page that no test reaches. */
export const page = { eventsMax: 100, bytesMax: 1000 };

/** Opens an empty event log of epoch `e1` on a clock that the test sets. */
export async function openStore(t: TestContext) {
  const db = await databaseFor(t);
  const time = { now: 1_800_000_000_000 };
  const wallClock = () => time.now;
  const store = await SqlLogStore.open(db, { wallClock, newEpoch: 'e1' });
  const openLog = (limits = unlimitedRetention) =>
    EventLog.open({ store, log: silentLogger, wallClock, limits });
  return { db, time, wallClock, store, openLog };
}

/** Opens an empty event log on a clock that the test sets, with the API keys `one` and `two`. */
export async function openStoreWithKeys(t: TestContext) {
  const db = await databaseFor(t);
  const time = { now: 1_800_000_000_000 };
  const wallClock = () => time.now;
  const store = await SqlLogStore.open(db, { wallClock, newEpoch: 'e1', keys: publisherKeys });
  const appendControlEntries = controlEntryAppender(db, wallClock);
  const keys = new ApiKeys({ db, log: silentLogger, wallClock, appendControlEntries });
  const create = async (name: string) => (await keys.create({ name, scopes: ['publish'] })).id;
  return { db, time, store, keys, one: await create('one'), two: await create('two') };
}

export function isUnavailable(error: unknown): boolean {
  return error instanceof Failure && error.name === 'service_unavailable';
}
