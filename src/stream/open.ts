import type { Config } from '../config/config.js';
import type { Database } from '../db/database.js';
import type { EventLog } from '../event-log/event-log.js';
import { type AppendControlEntries, headSeqSql, trimmedSeqSql } from '../event-log/open.js';
import type { Route } from '../http/router.js';
import type { Logger } from '../logging/logger.js';
import type { WarningAggregator } from '../logging/warning-aggregator.js';
import { ClusterSync, createProcessId } from './cluster-sync.js';
import { type ListOpenStreams, selectOpenStreams } from './open-streams/open-stream.js';
import { Registry } from './registry.js';
import { type StreamAccess, streamRoutes } from './routes.js';
import { type StreamMetrics, Streams } from './streams.js';
import { StreamTokens } from './tokens/stream-token.js';
import { TokenHolders } from './tokens/token-holders.js';
import { Choices } from './topics/choices.js';
import { TopicLookup } from './topics/topic-lookup.js';
import { UserCount } from './user-count.js';

export interface StreamingOptions {
  readonly db: Database;
  readonly eventLog: EventLog;
  readonly config: Config['stream'];
  readonly access: StreamAccess;
  readonly appendControlEntries: AppendControlEntries;
  readonly metrics: StreamMetrics;
  readonly log: Logger;
  readonly warnings: WarningAggregator;
  readonly wallClock: () => number;
  readonly monotonicClock: () => number;
  readonly random: () => number;
}

/**
 * The streaming feature: everything between the event log and clients. Close it after the server.
 */
export interface Streaming {
  readonly routes: readonly Route[];
  readonly streams: Streams;
  readonly registry: Registry;
  readonly tokens: StreamTokens;
  readonly listOpenStreams: ListOpenStreams;
  readonly cleanUpTasks: Readonly<Record<string, () => Promise<number>>>;
  close(): Promise<void>;
}

/**
 * Creates the streaming feature and subscribes it to the event log. Rejects if the database fails.
 */
export async function openStreaming(options: StreamingOptions): Promise<Streaming> {
  const {
    db,
    eventLog,
    config,
    access,
    appendControlEntries,
    metrics,
    log,
    warnings,
    wallClock,
    monotonicClock,
    random,
  } = options;
  const registry = new Registry({ limits: config, monotonicClock, random });
  const userCount = new UserCount(registry);
  const background = db.background ?? db;
  const { tokenLifeMs: lifeMs, resumeWindowMs, tokenMode: mode } = config;
  const { perUserMax: streamsPerUserMax } = config;
  const tokens = new StreamTokens({
    ...{ db, wallClock, appendControlEntries, lifeMs, mode, streamsPerUserMax },
  });
  const holders = new TokenHolders({
    ...{ db: background, wallClock, appendControlEntries, resumeWindowMs },
  });
  const choices = new Choices({ db, appendControlEntries, headSeqSql });
  const { findLiveSession } = access;
  const streams = new Streams({
    ...{
      registry,
      userCount,
      eventLog,
      tokens,
      holders,
      topicLookup: new TopicLookup(db, trimmedSeqSql),
      findLiveSession,
      metrics,
      log,
      warnings,
      wallClock,
      monotonicClock,
      random,
    },
    limits: config,
  });
  eventLog.subscribe(registry);
  // Only one server process uses the embedded database. Several processes can share any other database.
  const clocks = { wallClock, monotonicClock };
  const parts = {
    db: background,
    requestDb: db,
    registry,
    userCount,
    log,
    streamsPerUserMax,
    ...clocks,
  };
  const clusterSync = db.dialect === 'sqlite' ? undefined : await ClusterSync.start(parts);
  eventLog.startPolling(); // Last, so that no poller runs if a step above has rejected.
  return {
    routes: streamRoutes({ access, eventLog, streams, tokens, choices, log, warnings }),
    ...{ streams, registry, tokens },
    listOpenStreams:
      clusterSync === undefined
        ? createLocalList(registry)
        : (query) => clusterSync.listStreams(query),
    cleanUpTasks: { streamTokens: () => tokens.sweep() },
    async close() {
      await clusterSync?.close();
      await streams.close();
    },
  };
}

/** Returns a function that lists the streams of this process, which shares its database with no other process. */
function createLocalList(registry: Registry): ListOpenStreams {
  const processId = createProcessId();
  return async (query) => {
    const { user } = query;
    const streams = user === undefined ? registry.streams : registry.getUserStreams(user);
    return selectOpenStreams(streams, processId, query);
  };
}
