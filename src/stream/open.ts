import type { Config } from '../config/config.js';
import type { Database } from '../db/database.js';
import { Broker } from '../event-log/broker.js';
import { EventLog } from '../event-log/event-log.js';
import { Follower } from '../event-log/log-poller.js';
import { TableLog } from '../event-log/sql/sql-log-store.js';
import { BodyBudget } from '../http/body/body-budget.js';
import type { Route } from '../http/router.js';
import type { Log } from '../logging/log.js';
import type { Repeats } from '../logging/warning-aggregator.js';
import { Neighbours } from './cluster-sync.js';
import { Registry } from './registry.js';
import { type StreamAccess, streamRoutes } from './routes.js';
import { StreamTokens } from './stream-token.js';
import { type StreamMetrics, Streams } from './streams.js';

export interface StreamingOptions {
  readonly db: Database;
  readonly config: Pick<Config, 'stream' | 'eventLog' | 'publish'>;
  readonly access: StreamAccess;
  readonly metrics: StreamMetrics;
  readonly log: Log;
  readonly repeats: Repeats;
  readonly clock: () => number;
  readonly uptime: () => number;
  readonly random: () => number;
  /** The epoch of a log that is begun now: 1 to 15 of `0-9 a-z`, never used before. */
  readonly newEpoch: string;
  /** Told once when the log was replaced by another: all streams have ended, and nothing works any more. */
  readonly onReplaced: () => void;
}

/** Everything between a publisher and its listeners. Close it after the server. */
export interface Streaming {
  readonly routes: readonly Route[];
  readonly streams: Streams;
  readonly registry: Registry;
  readonly eventLog: EventLog;
  readonly cleanUpTasks: Readonly<Record<string, () => Promise<number>>>;
  close(): Promise<void>;
}

/** Builds it on an open database; begins the log when there is none. */
export async function openStreaming(options: StreamingOptions): Promise<Streaming> {
  const { db, access, metrics, log, repeats, clock, uptime, random, newEpoch } = options;
  const { stream, eventLog: limits } = options.config;
  const bodies = new BodyBudget(options.config.publish.bodiesBytesMax);
  const publish = { ...options.config.publish, linesBytesMax: limits.bytesMax, bodies };
  const registry = new Registry({ limits: stream, uptime });
  const onReplaced = () => {
    log.error({}, 'the event log was replaced under this process, which has to begin anew');
    registry.startDraining();
    registry.closeAll('behind'); // On return, `stream.open` tells that the epoch has changed.
    options.onReplaced();
  };
  const store = await TableLog.open(db, { clock, newEpoch, onReplaced });
  const eventLog = await EventLog.open({ store, log, clock, limits });
  const broker = new Broker({ log: eventLog, registry });
  const { tokenLifeMs: lifeMs, resumeWindowMs, tokenMode: mode } = stream;
  const tokens = new StreamTokens({ db, clock, lifeMs, resumeWindowMs, mode });
  const { liveSession } = access;
  const streams = new Streams({
    ...{ registry, eventLog, tokens, liveSession, metrics, log, clock, uptime, random },
    limits: stream,
  });
  const neighbourhood = await openNeighbourhood(options, { eventLog, registry, tokens });
  return {
    routes: streamRoutes({ access, streams, tokens, broker, publish, log, repeats, clock }),
    ...{ streams, registry, eventLog },
    cleanUpTasks: {
      streamTokens: () => tokens.sweep(),
      idempotencyKeys: () => store.sweepKeys(clock()),
      eventLog: () => eventLog.trim(),
    },
    async close() {
      await neighbourhood.close();
      await streams.close();
      await eventLog.close();
    },
  };
}

/** The embedded database has one process; on the others any number may share it. */
async function openNeighbourhood(
  { db, log, clock }: StreamingOptions,
  { eventLog, registry, tokens }: { eventLog: EventLog; registry: Registry; tokens: StreamTokens },
): Promise<{ close(): Promise<void> }> {
  if (db.dialect === 'sqlite') return { async close() {} };
  const pollMs = { busy: 25, quiet: 250, woken: 1000 };
  // First what may reject: then nothing is left behind.
  const neighbours = await Neighbours.start({ db, registry, tokens, log, clock });
  const follower = Follower.start({ eventLog, log, wakeUps: db.wakeUps, pollMs });
  return {
    async close() {
      await follower.close();
      await neighbours.close();
    },
  };
}
