import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { collectingLog } from './support/recording/collecting-log.js';
import { generateIssuerKey, JwksServer } from './support/servers/issuer.js';
import { tempFolder } from './support/servers/process.js';
import { startSystem } from './support/servers/system.js';

const hourSeconds = 3600;

/** Starts Herald with two trusted issuers, whose users have the prefixes `shop:` and `blog:`. */
async function startIssuers(t: TestContext) {
  const [shopKeys, blogKeys] = [await JwksServer.start(t), await JwksServer.start(t)];
  const [shopKey, blogKey] = [await generateIssuerKey('same'), await generateIssuerKey('same')];
  shopKeys.respondWithKeys(shopKey);
  blogKeys.respondWithKeys(blogKey);
  const folder = tempFolder(t);
  const [file, caFile] = [join(folder, 'issuers.json'), join(folder, 'ca.pem')];
  writeFileSync(caFile, shopKeys.ca);
  const common = { audience: 'herald', algorithms: ['ES256'], caFile };
  const issuers = [
    {
      ...{ issuer: 'https://shop.example', jwksUrl: shopKeys.url, userPrefix: 'shop:', ...common },
      ...{ rightsClaim: 'topics', rights: { 'shop:*': ['listen'] } },
    },
    { issuer: 'https://blog.example', jwksUrl: blogKeys.url, userPrefix: 'blog:', ...common },
  ];
  writeFileSync(file, JSON.stringify(issuers));
  const time = { now: 1_800_000_000_000, elapsedMs: 0 };
  const lines: Record<string, unknown>[] = [];
  const system = await startSystem(t, {
    log: collectingLog(lines),
    env: { TRUSTED_ISSUERS_FILE: file, PUBLIC_TOPICS: 'news' },
    wallClock: () => time.now,
    monotonicClock: () => performance.now() + time.elapsedMs,
  });
  const client = await system.connect();
  const seconds = () => time.now / 1000;
  const sign = (claims: object = {}, key = shopKey, iss = 'https://shop.example') =>
    key.sign({
      ...{ iss, sub: '7', aud: 'herald', iat: seconds(), exp: seconds() + hourSeconds },
      ...claims,
    });
  const signForBlog = () => sign({}, blogKey, 'https://blog.example');
  const post = async (path: string, bearer: string, json?: object) =>
    client.ask('POST', path, { bearer, json });
  const publish = (userId: string, data: string) => system.post({ to: { users: [userId] }, data });
  /** Returns issuer and reason of each refused JWT in the log. */
  const getRefusals = () =>
    lines
      .filter(({ phrase }) => phrase === 'JWT refused')
      .map(({ issuer, reason }) => [issuer, reason]);
  const parts = { system, client, time, sign, signForBlog, post, publish, shopKeys, shopKey };
  return { ...parts, lines, getRefusals };
}

test('GET /me returns the id and the issuer of a user of a trusted issuer', async (t) => {
  const { client, sign } = await startIssuers(t);

  const { status, body } = await client.ask('GET', '/me', { bearer: await sign() });

  assert.deepEqual(
    { status, body },
    { status: 200, body: { id: 'shop:7', issuer: 'https://shop.example' } },
  );
});

test('users of two issuers with the same sub receive only their own events', async (t) => {
  const { client, sign, signForBlog, post, publish, time } = await startIssuers(t);
  const minted = await post('/stream/token', await sign());
  assert.equal(minted.status, 200, minted.text);
  assert.equal(minted.body['endsAt'], time.now + hourSeconds * 1000);
  const shop = await client.openStream(`/stream/live/${minted.body['streamToken']}`);
  const blog = await client.listenAs(await signForBlog());
  const opening = JSON.parse((await shop.event('stream.open')).data);
  assert.equal(opening.user, 'shop:7');

  await publish('shop:7', 'to the shop');
  await publish('blog:7', 'to the blog');
  await publish('7', 'to the account');
  await shop.until(() => shop.dataByType('message').at(-1));
  await blog.until(() => blog.dataByType('message').at(-1));

  assert.deepEqual(shop.dataByType('message'), ['to the shop']);
  assert.deepEqual(blog.dataByType('message'), ['to the blog']);
  for (const stream of [shop, blog]) stream.abort();
});

test('the user of a JWT listens to topics of its claim, of its issuer and for everybody', async (t) => {
  const { sign, signForBlog, post } = await startIssuers(t);
  const topics = ['team:1', 'shop:sales', 'news'];
  const claims = { topics: { 'team:*': ['listen'] } };

  const minted = await post('/stream/token', await sign(claims), { topics });
  assert.equal(minted.status, 200, minted.text);
  const refusedTopics = async (bearer: string) => {
    const { status, body } = await post('/stream/token', bearer, { topics });
    return [status, (body['info'] as { topics: unknown }).topics];
  };

  assert.deepEqual(await refusedTopics(await sign()), [403, ['team:1']]);
  assert.deepEqual(await refusedTopics(await sign({ topics: 'team:1' })), [403, ['team:1']]);
  assert.deepEqual(await refusedTopics(await signForBlog()), [403, ['team:1', 'shop:sales']]);
});

test('a stream ends when its JWT expires, unless a fresh JWT extends it', async (t) => {
  const { client, sign, post, time } = await startIssuers(t);
  const lifeSeconds = 240; // Less than the life of a stream token that no stream has claimed yet.
  const signShort = () => sign({ exp: time.now / 1000 + lifeSeconds });
  const mint = async () =>
    String((await post('/stream/token', await signShort())).body['streamToken']);
  const [kept, lost] = [await mint(), await mint()];
  const keptStream = await client.openStream(`/stream/live/${kept}`);
  const lostStream = await client.openStream(`/stream/live/${lost}`);
  const direct = await client.listenAs(await signShort());
  await Promise.all([keptStream.opening(), lostStream.opening()]);
  time.now += (lifeSeconds - 1) * 1000;
  const accessToken = await signShort();

  const extended = await post('/stream/extend', kept, { accessToken });
  time.now += 1000;
  await Promise.all([lostStream.ended(), direct.ended()]);

  assert.deepEqual(extended.body, { endsAt: time.now - 1000 + lifeSeconds * 1000 }, extended.text);
  for (const stream of [lostStream, direct])
    assert.deepEqual(JSON.parse(stream.dataByType('stream.close')[0] ?? ''), {
      ...{ code: 'expired', reconnect: false, renew: true },
    });
  assert.equal(keptStream.isEnded, false);
  keptStream.abort();
});

test('a fresh JWT of another user does not extend a stream', async (t) => {
  const { sign, signForBlog, post } = await startIssuers(t);
  const { body } = await post('/stream/token', await sign());

  const accessToken = await signForBlog();
  const { status, body: refusal } = await post('/stream/extend', String(body['streamToken']), {
    accessToken,
  });

  assert.deepEqual({ status, name: refusal['name'] }, { status: 403, name: 'user_not_allowed' });
});

test('after a disconnect, JWTs that were issued before it and JWTs without iat are refused', async (t) => {
  const { system, client, sign, post, time } = await startIssuers(t);
  const [old, withoutIat, forOtherUser, forDevice] = await Promise.all([
    sign(),
    sign({ iat: undefined }),
    sign({ sub: '8' }),
    sign({ sub: '9', sid: 'phone' }),
  ]);
  const stream = await client.listenAs(old);
  time.now += 1500;
  const inTheSecond = await sign({ iat: Math.floor(time.now / 1000) });

  await post('/v1/disconnect', system.apiKey, { user: 'shop:7' });
  await post('/v1/disconnect', system.apiKey, { user: 'shop:9', sessions: ['phone'] });
  time.now += 1000;
  const fresh = await sign({ iat: Math.floor(time.now / 1000) });

  assert.equal((await stream.closing())?.code, 'revoked');
  const status = async (token: string) => {
    const [me, minted] = [
      await client.ask('GET', '/me', { bearer: token }),
      await post('/stream/token', token),
    ];
    assert.equal(me.status, minted.status);
    return me.status;
  };
  assert.equal(await status(old), 401);
  assert.equal(await status(withoutIat), 401);
  assert.equal(await status(inTheSecond), 401);
  assert.equal(await status(forDevice), 401);
  assert.equal(await status(await sign({ sub: '9', sid: 'laptop', iat: 1_800_000_000 })), 200);
  assert.equal(await status(forOtherUser), 200);
  assert.equal(await status(fresh), 200);
});

test('a disconnect with issuedBefore refuses only JWTs that were issued before this time', async (t) => {
  const { system, client, sign, post, time } = await startIssuers(t);
  const [old, newer] = [await sign({ iat: 1_799_999_990 }), await sign()];

  await post('/v1/disconnect', system.apiKey, { user: 'shop:7', issuedBefore: time.now });

  assert.equal((await client.ask('GET', '/me', { bearer: old })).status, 401);
  assert.equal((await client.ask('GET', '/me', { bearer: newer })).status, 200);
});

test('while the keys of an issuer cannot be fetched, streams are refused with reconnect true, and other requests get 503', async (t) => {
  const { client, sign, post, shopKeys, time } = await startIssuers(t);
  const token = await sign();
  await shopKeys.stop();
  const otherKey = await generateIssuerKey('rotated');
  const unknownKid = await sign({}, otherKey);
  time.elapsedMs += 2 * hourSeconds * 1000; // The fetched keys are used for an hour.

  for (const bearer of [token, unknownKid]) {
    const stream = await client.openStream('/stream/live', { authorization: `Bearer ${bearer}` });
    assert.equal(stream.status, 200);
    const { code, reconnect } = JSON.parse((await stream.event('stream.close')).data);
    assert.deepEqual({ code, reconnect }, { code: 'refused', reconnect: true });
    for (const answer of [
      await post('/stream/token', bearer),
      await client.ask('GET', '/me', { bearer }),
    ]) {
      assert.equal(answer.status, 503, answer.text);
      assert.ok(Number(answer.headers['retry-after']) >= 1);
    }
  }
});

test('a JWT within the clock tolerance after its exp is accepted, but opens and extends no stream', async (t) => {
  const { client, sign, post, time, getRefusals } = await startIssuers(t);
  const bearer = await sign();
  const fresh = await post('/stream/token', await sign({ exp: time.now / 1000 + 2 * hourSeconds }));
  time.now += hourSeconds * 1000;
  const accept = { accept: 'text/event-stream' };

  const answers = [
    await post('/stream/token', bearer),
    await post('/stream/extend', String(fresh.body['streamToken']), { accessToken: bearer }),
    await client.ask('GET', '/stream/live', { bearer }),
    await client.ask('GET', '/stream/live', { bearer, headers: accept }),
  ];

  for (const { status, body, headers } of answers) {
    assert.deepEqual({ status, name: body['name'] }, { status: 401, name: 'expired_token' });
    assert.match(headers['www-authenticate'] ?? '', /The access token is expired/);
  }
  assert.equal((await client.ask('GET', '/me', { bearer })).status, 200);
  assert.deepEqual(getRefusals(), [['https://shop.example', 'expired']]);
});

test('the log says why Herald refused a JWT, and contains no text of the JWT', async (t) => {
  const { system, client, sign, post, lines, getRefusals, time } = await startIssuers(t);
  const own = await client.login('ada');
  const statuses: number[] = [];
  const ask = async (bearer: string) =>
    statuses.push((await client.ask('GET', '/me', { bearer })).status);
  const [old, withoutIat] = [await sign(), await sign({ iat: undefined })];
  time.now += 1000;
  await post('/v1/disconnect', system.apiKey, { user: 'shop:7' });

  await ask(old);
  await ask(withoutIat);
  await ask(await sign({ iss: 'https://evil.example', sub: 'mallory' }));
  await ask(await sign({ iss: 7, sub: 'mallory' }));
  await ask(`${own.accessToken.slice(0, -5)}AAAAA`);
  await ask('opaque');
  await ask(await sign({ aud: 'mallory' }));

  assert.deepEqual(
    statuses,
    statuses.map(() => 401),
  );
  assert.deepEqual(getRefusals(), [
    ['https://shop.example', 'issued_before'],
    ['https://shop.example', 'no_issued_at'],
    [undefined, 'issuer_unknown'],
    ['https://shop.example', 'audience'],
  ]);
  assert.doesNotMatch(JSON.stringify(lines), /mallory|evil|AAAAA/);
});

test('a JWT of a trusted issuer is not accepted as the access token of a local account', async (t) => {
  const { client, sign, post } = await startIssuers(t);
  const bearer = await sign();

  assert.equal((await post('/logout', bearer)).status, 401);
  assert.equal((await client.ask('GET', '/anything', { bearer })).status, 401);
  const { status, body, headers } = await client.ask('GET', '/me', {
    bearer: await sign({ aud: 'another service' }),
  });
  assert.deepEqual({ status, name: body['name'] }, { status: 401, name: 'invalid_token' });
  assert.match(headers['www-authenticate'] ?? '', /error="invalid_token"/);
});
