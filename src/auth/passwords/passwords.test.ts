import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { silentLogger } from '../../logging/logger.js';
import type { Pool } from '../../workers/pool.js';
import type { AuthJobs } from '../jobs.js';
import { createKeyRing } from '../key-ring.js';
import { openAuthThreads } from '../threads.js';
import { Passwords, type PasswordsOptions, type StoredPassword } from './passwords.js';

const cost = { memoryKib: 7168, passes: 1, lanes: 1 };
const password = 'correct zebra staple';

let threads: Pool<AuthJobs>;

before(async () => {
  const secret = Buffer.from(Array.from({ length: 32 }, (_, index) => index * 7));
  threads = await openAuthThreads({
    count: 2,
    queuePerThreadMax: 64,
    queueWaitMaxMs: 60_000,
    ring: createKeyRing({ algorithm: 'HS256', secret }),
    log: silentLogger,
  });
});

after(() => threads.close());

/** Records the jobs sent to `threads`, in order, and runs them. */
function recordJobs(): { run: Pool<AuthJobs>['run']; names: string[] } {
  const names: string[] = [];
  const run: Pool<AuthJobs>['run'] = (name, input, options) => {
    names.push(name);
    return threads.run(name, input, options);
  };
  return { run, names };
}

const open = (changes: Partial<PasswordsOptions> = {}) =>
  Passwords.open({ threads, cost, lengthMin: 8, ...changes });

const pepper = (version: number) => ({ version, key: Buffer.alloc(16, version) });

test('only the right password matches its hash', async () => {
  const passwords = await open();

  const stored = await passwords.hash(password);

  assert.match(stored.hash, /^\$argon2id\$v=19\$m=7168,t=1,p=1\$[^$]{22}\$[^$]{43}$/);
  assert.equal(stored.pepperVersion, 0);
  assert.equal(await passwords.verify(password, stored), true);
  assert.equal(await passwords.verify(`${password} `, stored), false);
  assert.equal(await passwords.verify(password.toUpperCase(), stored), false);
});

test('two hashes of the same password differ', async () => {
  const passwords = await open();

  const [one, other] = await Promise.all([passwords.hash(password), passwords.hash(password)]);

  assert.notEqual(one.hash, other.hash);
});

for (const [one, other] of [
  ['caf\u00e9 au lait', 'cafe\u0301 au lait'],
  ['\uff43\uff4f\uff46\uff46\uff45\uff45 black', 'coffee black'],
] as const) {
  test(`${JSON.stringify(one)} and ${JSON.stringify(other)} are the same password`, async () => {
    const passwords = await open();

    assert.equal(await passwords.verify(other, await passwords.hash(one)), true);
    assert.equal(await passwords.verify(one, await passwords.hash(other)), true);
  });
}

const rightHash = async (passwords: Passwords) => passwords.hash(password);
const withHash = (hash: string) => async (): Promise<StoredPassword> => ({
  hash,
  pepperVersion: 0,
});

// [description, given password, stored hash, expected result]
const guesses: readonly (readonly [
  string,
  unknown,
  (passwords: Passwords) => Promise<StoredPassword | undefined>,
  boolean,
])[] = [
  ['the right password', password, rightHash, true],
  ['a wrong password', 'wrong', rightHash, false],
  ['an unknown user', password, async () => undefined, false],
  ['an empty password', '', rightHash, false],
  ['no password', undefined, rightHash, false],
  ['a number', 7, rightHash, false],
  ['a list', [1, 2], rightHash, false],
  ['an overlong password', 'x'.repeat(513), rightHash, false],
  ['a password of a megabyte', 'x'.repeat(1_000_000), rightHash, false],
  ['a lone surrogate', '\ud800', rightHash, false],
  ['a stored hash that is empty', password, withHash(''), false],
  ['a stored hash that is no hash', password, withHash('plain'), false],
  ['a stored hash of bcrypt', password, withHash('$2b$10$abcdefghijklmnopqrstuv'), false],
  [
    'a stored hash that asks for two terabytes',
    password,
    withHash(`$argon2id$v=19$m=2147483648,t=1,p=1$${'A'.repeat(22)}$${'A'.repeat(43)}`),
    false,
  ],
  [
    'a stored hash with an unknown pepper',
    password,
    async (passwords) => ({ ...(await passwords.hash(password)), pepperVersion: 9 }),
    false,
  ],
];

for (const [what, given, store, expected] of guesses) {
  test(`verify with ${what} runs exactly one verification job and returns ${expected}`, async () => {
    const { run, names } = recordJobs();
    const passwords = await open({ threads: { run } });
    const stored = await store(passwords);
    names.length = 0;

    const isRight = await passwords.verify(given, stored);

    assert.equal(isRight, expected);
    assert.deepEqual(names, ['verifyPassword']);
  });
}

test('a thread rejects a hash with a cost out of bounds without computing it', async () => {
  const hash = `$argon2id$v=19$m=2147483648,t=1,p=1$${'A'.repeat(22)}$${'A'.repeat(43)}`;

  assert.equal(await threads.run('verifyPassword', { password, hash }), false);
});

test('verification rejects when the signal is already aborted', async () => {
  const passwords = await open();
  const signal = AbortSignal.abort();

  await assert.rejects(passwords.verify(password, undefined, { signal }), { name: 'AbortError' });
});

for (const bytes of [1, 512]) {
  test(`a password of ${bytes} bytes is hashed without truncation`, async () => {
    const passwords = await open({ lengthMin: 1 });
    const long = 'x'.repeat(bytes);
    const stored = await passwords.hash(long);

    assert.equal(await passwords.verify(long, stored), true);
    assert.equal(await passwords.verify(long.slice(1), stored), false);
  });
}

test('a password is verified only with the pepper of its hash', async () => {
  const plain = await open();
  const peppered = await open({ pepper: pepper(1) });
  const stored = await peppered.hash(password);

  assert.equal(stored.pepperVersion, 1);
  assert.equal(await peppered.verify(password, stored), true);
  assert.equal(await peppered.verify(password, { ...stored, pepperVersion: 0 }), false);
  assert.equal(await plain.verify(password, { ...stored, pepperVersion: 0 }), false);
  assert.equal(await plain.verify(password, stored), false);
});

test('hashes with the previous pepper or without one are still verified and need a rehash', async () => {
  const [none, first] = [await open(), await open({ pepper: pepper(1) })];
  const second = await open({ pepper: pepper(2), previousPepper: pepper(1) });

  for (const older of [none, first]) {
    const stored = await older.hash(password);
    assert.equal(await second.verify(password, stored), true);
    assert.equal(await second.verify('wrong', stored), false);
    assert.equal(older.needsRehash(stored), false);
    assert.equal(second.needsRehash(stored), true);
  }
});

test('a process with the old pepper verifies a hash with the new pepper, and does not rehash it', async () => {
  const old = await open({ pepper: pepper(1), previousPepper: pepper(2) });
  const swapped = await open({ pepper: pepper(2), previousPepper: pepper(1) });

  const stored = await swapped.hash(password);

  assert.equal(await old.verify(password, stored), true);
  assert.equal(old.needsRehash(stored), false);
  assert.equal(swapped.needsRehash(await old.hash(password)), true);
});

test('a hash with a pepper is rehashed without a pepper when none is set', async () => {
  const peppered = await open({ pepper: pepper(1) });
  const removing = await open({ previousPepper: pepper(1) });

  const stored = await peppered.hash(password);

  assert.equal(await removing.verify(password, stored), true);
  assert.equal(removing.needsRehash(stored), true);
});

const salt = 'A'.repeat(22);
const tag = 'A'.repeat(43);

for (const [what, hash, isNeeded] of [
  ['of the current cost', `$argon2id$v=19$m=7168,t=1,p=1$${salt}$${tag}`, false],
  ['with other memory', `$argon2id$v=19$m=8192,t=1,p=1$${salt}$${tag}`, true],
  ['with other passes', `$argon2id$v=19$m=7168,t=2,p=1$${salt}$${tag}`, true],
  ['with other lanes', `$argon2id$v=19$m=7168,t=1,p=2$${salt}$${tag}`, true],
  ['with a short salt', `$argon2id$v=19$m=7168,t=1,p=1$${'A'.repeat(11)}$${tag}`, true],
  ['with a short tag', `$argon2id$v=19$m=7168,t=1,p=1$${salt}$${'A'.repeat(22)}`, true],
  ['of argon2d', `$argon2d$v=19$m=7168,t=1,p=1$${salt}$${tag}`, true],
  ['that is malformed', 'plain', true],
] as const) {
  test(`a hash ${what} ${isNeeded ? 'needs' : 'does not need'} a rehash`, async () => {
    const passwords = await open();

    assert.equal(passwords.needsRehash({ hash, pepperVersion: 0 }), isNeeded);
  });
}

// [description, password, expected message]
const refusals = [
  ['a number', 7, /well-formed text/],
  ['undefined', undefined, /well-formed text/],
  ['an empty text', '', /1 to 512 bytes/],
  ['a text of 513 bytes', `${'é'.repeat(256)}x`, /1 to 512 bytes/],
  ['a text that normalises to more than 512 bytes', '\ufdfa'.repeat(20), /1 to 512 bytes/],
  ['a lone surrogate', 'long enough \udc00', /well-formed text/],
  ['a text of 7 characters', 'ghj!4kz', /8 characters or more/],
  ['a text of 7 characters outside the basic plane', '\u{1F41D}'.repeat(7), /8 characters or more/],
  ['eight blanks', '        ', /must not be blank/],
  ['white space of other kinds', '\t\u00a0\u2003\u3000'.repeat(2), /must not be blank/],
  ['the username', 'Grace.Hopper', /must not be the username/],
  ['the username in another case', ' gRACE.hOPPER', /must not be the username/],
  ['a common password', 'password', /too common/],
  ['a common password in capitals', 'PASSWORD123', /too common/],
  ['a common password with a year', 'Summer2025', /too common/],
  ['a keyboard pattern', '1qaz2wsx', /too common/],
] as const;

for (const [what, given, message] of refusals) {
  test(`${what} cannot be set as a password`, async () => {
    const passwords = await open();

    assert.throws(() => passwords.validate(given, 'grace.hopper'), {
      name: 'invalid_request',
      message,
      info: { body: ['password'] },
    });
  });
}

for (const given of [
  'ghj!4kzq',
  '\u{1F400}\u{1F401}\u{1F402}\u{1F403}\u{1F404}\u{1F405}\u{1F406}\u{1F407}',
  `ü${'é'.repeat(255)}`,
  password,
  'pass\0word zz',
]) {
  test(`${JSON.stringify(given).slice(0, 30)} can be set as a password`, async () => {
    const passwords = await open();

    assert.equal(passwords.validate(given, 'grace.hopper'), given);
  });
}

test('an invalid password is not hashed', async () => {
  const passwords = await open();

  for (const odd of ['', '\ud800', 'x'.repeat(513)]) {
    await assert.rejects(passwords.hash(odd), { name: 'invalid_request' });
  }
});

const invalidOptions: readonly (readonly [string, Partial<PasswordsOptions>, RegExp])[] = [
  ['a cost below the limits', { cost: { ...cost, memoryKib: 7167 } }, /out of bounds/],
  ['a cost above the limits', { cost: { ...cost, lanes: 9 } }, /out of bounds/],
  ['a cost of NaN', { cost: { ...cost, passes: Number.NaN } }, /out of bounds/],
  ['a pepper of version 0', { pepper: pepper(0) }, /different versions/],
  [
    'two peppers of one version',
    { pepper: pepper(1), previousPepper: pepper(1) },
    /different versions/,
  ],
];

for (const [what, changes, message] of invalidOptions) {
  test(`Passwords.open rejects ${what}`, async () => {
    await assert.rejects(open(changes), { message });
  });
}
