import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { ask } from '../../test/support/clients/ask.js';
import { databaseFor } from '../../test/support/databases/test-database.js';
import { startOpenApiCheck } from '../../test/support/openapi/observer.js';
import { withStatementLog } from '../../test/support/recording/statement-hooks.js';
import { startHttp } from '../../test/support/servers/http-server.js';
import { unlimitedRetention } from '../../test/support/unlimited-retention.js';
import { loadConfig } from '../config/config.js';
import { Failure } from '../errors.js';
import { EventLog } from '../event-log/event-log.js';
import { controlEntryAppender, headSeqSql, trimmedSeqSql } from '../event-log/open.js';
import { SqlLogStore } from '../event-log/sql/sql-log-store.js';
import { silentLogger } from '../logging/logger.js';
import { WarningAggregator } from '../logging/warning-aggregator.js';
import { Metrics } from '../metrics.js';
import { Registry } from './registry.js';
import { type StreamAccess, streamRoutes } from './routes.js';
import { Streams } from './streams.js';
import { StreamTokens } from './tokens/stream-token.js';
import { TokenHolders } from './tokens/token-holders.js';
import { Choices } from './topics/choices.js';
import { TopicLookup } from './topics/topic-lookup.js';
import { UserCount } from './user-count.js';

const neverCalled = () => {
  throw new Error('not used in this test');
};

/** Starts a server with the routes of streams. Nothing polls, so requests run all statements. */
async function startServer(t: TestContext, access: Partial<StreamAccess> = {}) {
  const statements: string[] = [];
  const db = withStatementLog(await databaseFor(t), statements);
  const [wallClock, monotonicClock, random] = [Date.now, Date.now, Math.random];
  const appendControlEntries = controlEntryAppender(db, wallClock);
  const common = { db, wallClock, appendControlEntries };
  const store = await SqlLogStore.open(db, { wallClock, newEpoch: 'e' });
  const eventLog = await EventLog.open({
    ...{ store, log: silentLogger, wallClock, limits: unlimitedRetention },
  });
  const { stream: limits } = loadConfig({});
  const registry = new Registry({ limits, monotonicClock, random });
  const tokens = new StreamTokens({
    ...{ ...common, lifeMs: 1000, mode: 'resume', streamsPerUserMax: 10 },
  });
  const warnings = new WarningAggregator({ log: silentLogger, monotonicClock });
  const streams = new Streams({
    ...{ registry, eventLog, tokens, limits, wallClock, monotonicClock, random },
    userCount: new UserCount(registry),
    topicLookup: new TopicLookup(db, trimmedSeqSql),
    holders: new TokenHolders({ ...common, resumeWindowMs: 1e6 }),
    findLiveSession: neverCalled,
    metrics: new Metrics(),
    log: silentLogger,
    warnings,
  });
  const routes = streamRoutes({
    ...{ eventLog, streams, tokens, warnings, log: silentLogger },
    choices: new Choices({ ...common, headSeqSql }),
    access: {
      parseCredential: ({ headers }) => headers['authorization']?.slice('Bearer '.length) ?? '',
      checkStreamRate: () => {},
      ...{ verifyUser: neverCalled, findLiveSession: neverCalled },
      ...{ checkTokenRate: neverCalled, reportLeak: neverCalled },
      ...access,
    },
  });
  const { port } = await startHttp(t, routes);
  const stopCheck = startOpenApiCheck(port);
  t.after(stopCheck);
  /** Opens a stream; returns the status of the response and the statements that it cost. */
  const open = async (path: string, bearer?: string) => {
    statements.length = 0;
    const parts = bearer === undefined ? {} : { bearer };
    const { status } = await ask('h2', port, 'GET', path, parts);
    return { status, statements: [...statements] };
  };
  return { open };
}

const unknownToken = 'f'.repeat(128);

test('a malformed stream token costs no query', async (t) => {
  const { open } = await startServer(t);

  for (const text of ['none', unknownToken.slice(1), unknownToken.toUpperCase()]) {
    assert.deepEqual(await open(`/stream/live/${text}`), { status: 401, statements: [] });
  }
  const { status, statements } = await open(`/stream/live/${unknownToken}`);
  assert.equal(status, 401);
  assert.equal(statements.length, 2); // The head of the event log, and the token.
});

test('opening a stream over the rate of an address costs no query', async (t) => {
  const checkStreamRate = () => {
    throw new Failure('too_many_requests', 'too many');
  };
  const { open } = await startServer(t, { checkStreamRate });

  const refused = { status: 429, statements: [] };
  assert.deepEqual(await open(`/stream/live/${unknownToken}`), refused);
  assert.deepEqual(await open('/stream/live', unknownToken), refused);
});
