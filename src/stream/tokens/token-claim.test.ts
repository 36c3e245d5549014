import assert from 'node:assert/strict';
import type { TestContext } from 'node:test';
import { testOnDialects } from '../../../test/support/databases/dialects.js';
import { databaseFor } from '../../../test/support/databases/test-database.js';
import { withStatementHook } from '../../../test/support/recording/statement-hooks.js';
import { sql } from '../../db/database.js';
import { controlEntryAppender } from '../../event-log/open.js';
import { SqlLogStore } from '../../event-log/sql/sql-log-store.js';
import type { Takeover } from '../../events/control-entry.js';
import { silentLogger } from '../../logging/logger.js';
import { StreamTokens } from './stream-token.js';
import { type ClaimingStream, TokenClaim } from './token-claim.js';
import { type Claim, TokenHolders } from './token-holders.js';
import { TokenReleases } from './token-releases.js';

const test = await testOnDialects('token claims');

/** How long a client waits before it reconnects after the end of its stream. */
const retryMs = 6000;

/** A stream that takes a round trip to its client as complete when the promise of `onRoundTrip` settles. */
class TestStream implements ClaimingStream {
  readonly id: string;
  readonly claim: TokenClaim;
  isOpen = true;
  closedAs: string | undefined;
  /** True while the stream sends no events. */
  isHeld = false;
  roundTrips = 0;
  /** Called at the start of each round trip. */
  onRoundTrip: () => Promise<unknown> = async () => {};

  constructor(id: string, claim: TokenClaim) {
    this.id = id;
    this.claim = claim;
  }

  close(reason: string): void {
    if (!this.isOpen) return;
    this.closedAs = reason;
    this.isOpen = false;
    this.claim.end(this.id, retryMs);
  }

  async roundTrip(): Promise<void> {
    this.roundTrips += 1;
    await this.onRoundTrip();
  }

  hold(): void {
    this.isHeld = true;
  }

  release(): void {
    this.isHeld = false;
  }

  run(): Promise<void> {
    return this.claim.run(this);
  }

  /** Applies a takeover by another stream, as `EventStream.applyTakeover` does. */
  apply(takeover: Takeover): void {
    this.claim.recordTakeover(takeover);
    if (this.claim.isReplaced) this.close('replaced');
  }
}

async function openClaims(t: TestContext) {
  let failuresLeft = 0;
  const db = withStatementHook(await databaseFor(t), () => {
    if (failuresLeft === 0) return;
    failuresLeft -= 1;
    throw new Error('connection lost');
  });
  const wallClock = () => 1_800_000_000_000;
  await SqlLogStore.open(db, { wallClock, newEpoch: 'e' });
  await db.execute(
    sql`insert into users (username, username_key, password_hash, first_name, last_name,
        password_changed_at, created_at, updated_at)
      values ('ada', 'ada', 'none', 'A', 'B', 0, 0, 0)`,
  );
  const [user] = await db.query<{ id: number }>(sql`select id from users`);
  const tokens = new StreamTokens({
    ...{ db, wallClock, appendControlEntries: controlEntryAppender(db, wallClock) },
    ...{ lifeMs: 300_000, mode: 'resume', streamsPerUserMax: 10 },
  });
  const holders = new TokenHolders({
    ...{ db, wallClock, appendControlEntries: controlEntryAppender(db, wallClock) },
    resumeWindowMs: 43_200_000,
  });
  const sessionId = 's'.repeat(32);
  const token = await tokens.mint({
    userId: String(user?.id),
    sessionId,
    beginning: 'e-0',
    mintedSeq: 0,
  });
  const releases = new TokenReleases(holders, silentLogger);
  const { hash: tokenHash } = await tokens.find(token);
  let lostResponses = 0;
  /** Claims the token. After `loseResponses(count)`, the next `count` claims are committed but reject. */
  const claim = async (request: Claim) => {
    const isClaimed = await holders.claim(request);
    if (lostResponses === 0) return isClaimed;
    lostResponses -= 1;
    throw new Error('connection lost');
  };
  const readState = (hash: string) => holders.readState(hash);
  let takeoverCount = 0;
  const onTakeover = () => {
    takeoverCount += 1;
  };
  /** The tokens that were kept alive, with the wait in ms. */
  const keptAlive: (readonly [hash: string, waitMs: number])[] = [];
  const keepAlive = (hash: string, waitMs: number) => keptAlive.push([hash, waitMs]);
  /** Creates a stream that has read the current state of the token. */
  const open = async (id: string) => {
    const callbacks = { onTakeover, keepAlive, random: () => 0 };
    const parts = { holders: { claim, readState }, releases, ...callbacks };
    return new TestStream(id, new TokenClaim(await tokens.find(token), parts));
  };
  return {
    ...{ open, tokens, holders, releases, tokenHash, keptAlive },
    state: () => holders.readState(tokenHash),
    takeoverCount: () => takeoverCount,
    failStatements: (count: number) => {
      failuresLeft = count;
    },
    loseResponses: (count: number) => {
      lostResponses = count;
    },
  };
}

test('a stream claims an unheld token without a round trip to its client', async (t) => {
  const { open, state, takeoverCount } = await openClaims(t);
  const stream = await open('one');

  await stream.run();

  assert.deepEqual(await state(), { version: 1, holder: 'one' });
  assert.deepEqual([stream.roundTrips, stream.closedAs, takeoverCount()], [0, undefined, 0]);
});

test('a stream that ends before it has claimed its token keeps the token alive until its client reconnects', async (t) => {
  const { open, failStatements, keptAlive, tokenHash } = await openClaims(t);
  const [failing, holder] = [await open('one'), await open('two')];
  await holder.run();

  failStatements(1);
  const running = failing.run();
  failing.close('draining');
  await running;
  holder.close('draining');

  assert.deepEqual(keptAlive, [[tokenHash, retryMs]]);
});

test('a stream claims the token of another stream after a round trip to its own client', async (t) => {
  const { open, state, takeoverCount } = await openClaims(t);
  await (await open('one')).run();
  const two = await open('two');
  two.onRoundTrip = async () => {
    assert.equal((await state())?.holder, 'one');
    assert.equal(two.isHeld, true);
  };

  await two.run();

  assert.deepEqual(await state(), { version: 2, holder: 'two' });
  assert.deepEqual([two.roundTrips, two.isHeld, takeoverCount()], [1, false, 1]);
});

test('a stream whose client leaves during the round trip does not claim its token', async (t) => {
  const { open, state } = await openClaims(t);
  await (await open('one')).run();
  const two = await open('two');
  two.onRoundTrip = async () => two.close('client');

  await two.run();

  assert.deepEqual(await state(), { version: 1, holder: 'one' });
});

test('a stream that loses the race for a token reads it again and waits for a round trip', async (t) => {
  const { open, state } = await openClaims(t);
  const [late, early] = [await open('late'), await open('early')];
  await early.run();

  await late.run();

  assert.deepEqual(await state(), { version: 2, holder: 'late' });
  assert.equal(late.roundTrips, 1);
});

test('a stream is replaced by a takeover with a higher version, not with an equal one', async (t) => {
  const { open, tokenHash } = await openClaims(t);
  const one = await open('one');
  await one.run();

  one.apply({ tokenHash, version: 1, streamId: 'earlier' });
  const wasOpen = one.isOpen;
  one.apply({ tokenHash, version: 2, streamId: 'two' });

  assert.equal(wasOpen, true);
  assert.equal(one.closedAs, 'replaced');
});

test('a takeover that arrives during a claim ends the stream only if its version is higher than the claimed one', async (t) => {
  const { open, holders, tokenHash } = await openClaims(t);
  await (await open('one')).run();
  const outcomes: (string | undefined)[] = [];
  for (const takenVersion of [2, 99]) {
    const stream = await open(`stream ${takenVersion}`);
    stream.onRoundTrip = async () =>
      stream.apply({ tokenHash, version: takenVersion, streamId: 'other' });
    await stream.run();
    outcomes.push(stream.closedAs);
  }

  assert.deepEqual(outcomes, [undefined, 'replaced']);
  assert.equal((await holders.readState(tokenHash))?.version, 3);
});

test('a stream whose token was revoked closes as revoked', async (t) => {
  const { open, tokens, tokenHash } = await openClaims(t);
  const stream = await open('one');
  await tokens.revokeLeaked(tokenHash);

  await stream.run();

  assert.equal(stream.closedAs, 'revoked');
});

test('a stream stays open while the database fails, and then claims its token', async (t) => {
  const { open, state, failStatements } = await openClaims(t);
  const stream = await open('one');
  failStatements(2);

  await stream.run();

  assert.equal(stream.isOpen, true);
  assert.deepEqual(await state(), { version: 1, holder: 'one' });
});

test('a stream whose claim was committed, but whose response was lost, recognizes that it holds the token', async (t) => {
  const { open, state, loseResponses } = await openClaims(t);
  const stream = await open('one');
  loseResponses(1);

  await stream.run();

  assert.deepEqual(await state(), { version: 1, holder: 'one' });
  assert.deepEqual([stream.isOpen, stream.roundTrips], [true, 0]);
});

test('a stream closes as failed after losing ten claims to other streams', async (t) => {
  const { open, holders, tokenHash, state } = await openClaims(t);
  await (await open('zero')).run();
  const stream = await open('one');
  stream.onRoundTrip = async () => {
    const current = await state();
    assert.ok(current);
    await holders.claim({ tokenHash, state: current, streamId: `n${stream.roundTrips}` });
  };

  await stream.run();

  assert.equal(stream.closedAs, 'failed');
  assert.equal(stream.roundTrips, 10);
  assert.equal((await state())?.holder, 'n10');
});

test('a stream that ends during its claim releases its token afterwards', async (t) => {
  const { open, releases, state } = await openClaims(t);
  const stream = await open('one');
  const running = stream.run();
  stream.close('client');

  await running;
  await releases.idle();

  assert.deepEqual(await state(), { version: 1, holder: undefined });
});

test('the tokens of streams that end during a release are released together in the next statements', async (t) => {
  const db = await databaseFor(t);
  const batches: number[] = [];
  const holders = new TokenHolders({
    ...{ db, wallClock: () => 0, appendControlEntries: async () => 0, resumeWindowMs: 1 },
  });
  const releases = new TokenReleases(
    {
      release: (batch) => {
        batches.push(batch.length);
        return holders.release(batch);
      },
    },
    silentLogger,
  );

  for (let count = 0; count < 1200; count += 1)
    releases.add({ tokenHash: `t${count}`, streamId: `s${count}` }, Promise.resolve());
  await releases.idle();

  assert.deepEqual(batches, [1, 500, 500, 199]);
});
