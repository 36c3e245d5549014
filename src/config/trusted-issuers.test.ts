import assert from 'node:assert/strict';
import { generateKeyPairSync, randomBytes } from 'node:crypto';
import { test } from 'node:test';
import { testCertificate } from '../../test/support/servers/certificate.js';
import { userIdPattern } from '../events/audience.js';
import { ConfigError, loadConfig } from './config.js';
import type { TrustedIssuer } from './trusted-issuers.js';

type Kind = 'rsa' | 'ec' | 'ed25519';

function generatePem(type: Kind, options: object = {}) {
  const { publicKey, privateKey } = generateKeyPairSync(
    type as 'ec',
    options as { namedCurve: string },
  );
  return {
    publicPem: publicKey.export({ type: 'spki', format: 'pem' }).toString(),
    privatePem: privateKey.export({ type: 'pkcs8', format: 'pem' }).toString(),
  };
}

const rsa = generatePem('rsa', { modulusLength: 2048 });
const shortRsa = generatePem('rsa', { modulusLength: 1024 });
const ec = generatePem('ec', { namedCurve: 'P-256' });
const ed25519 = generatePem('ed25519');
const secrets = [32, 48, 64].map((bytes) => `hex:${randomBytes(bytes).toString('hex')}`);
const [secret = '', secret48 = '', secret64 = ''] = secrets;

const files: Readonly<Record<string, string>> = {
  ...{ 'rsa.pem': rsa.publicPem, 'private.pem': rsa.privatePem, 'short.pem': shortRsa.publicPem },
  ...{ 'ec.pem': ec.publicPem, 'both.pem': `${rsa.publicPem}\n${ec.publicPem}` },
  ...{ 'ed25519.pem': ed25519.publicPem, '4.pem': rsa.publicPem.repeat(4) },
  ...{ '5.pem': rsa.publicPem.repeat(5), 'mixed.pem': rsa.publicPem + rsa.privatePem },
  'damaged.pem': rsa.publicPem.replace(/\n.{20}/, '\n'),
  ...{ 'ca.pem': testCertificate.cert, 'key.pem': testCertificate.key, empty: '', text: 'x' },
  ...{ secret, secret48, secret64, secrets: `\n${secret}\n\n ${secret64}\r\n` },
  ...{ secrets4: `${secret}\n`.repeat(4), secrets5: `${secret}\n`.repeat(5) },
  ...{ weak: 'x'.repeat(64), bytes: `${'\ufffd'.repeat(5)}${secret}`, damaged: `${secret}!` },
};

function load(list: unknown, env: Record<string, string> = {}) {
  const content = typeof list === 'string' ? list : JSON.stringify(list);
  const readFile = (path: string) => {
    const text = path === 'issuers.json' ? content : files[path];
    if (text === undefined) throw Object.assign(new Error('no such file'), { code: 'ENOENT' });
    return text;
  };
  return loadConfig({ TRUSTED_ISSUERS_FILE: 'issuers.json', ...env }, { readFile }).trustedIssuers;
}

function getProblems(list: unknown, env: Record<string, string> = {}): readonly string[] {
  try {
    load(list, env);
  } catch (error) {
    assert.ok(error instanceof ConfigError);
    return error.problems;
  }
  return [];
}

const withJwks = {
  issuer: 'https://id.example.com/',
  audience: 'herald',
  jwksUrl: 'https://id.example.com/jwks.json',
  algorithms: ['RS256'],
  userPrefix: 'id:',
};
const { jwksUrl: _, ...withoutKeys } = withJwks;
const withPublicKey = { ...withoutKeys, publicKeyFile: 'rsa.pem' };
const withSecret = { ...withoutKeys, secretFile: 'secret', algorithms: ['HS256'] };

/** Returns the settings of the only issuer. */
function loadOne(entry: object): TrustedIssuer {
  const [issuer] = load([entry]).issuers;
  assert.ok(issuer !== undefined);
  return issuer;
}

test('without an issuers file no issuer is trusted, and the maximum token lifetime is a day', () => {
  assert.deepEqual(loadConfig({}).trustedIssuers, { issuers: [], tokenLifeMaxMs: 86_400_000 });
});

test('an issuer with a JWKS is read with its defaults', () => {
  assert.deepEqual(loadOne(withJwks), {
    issuer: 'https://id.example.com/',
    audiences: ['herald'],
    algorithms: ['RS256'],
    keys: { kind: 'jwks', url: 'https://id.example.com/jwks.json', ca: undefined },
    userClaim: 'sub',
    userPrefix: 'id:',
    rightsClaim: undefined,
    rights: new Map(),
  });
});

test('a rights claim, and rights of every user of the issuer, are read', () => {
  const more = { rightsClaim: 'https://shop.example/rights', rights: { 'news:*': ['listen'] } };

  const { rightsClaim, rights } = loadOne({ ...withJwks, ...more });

  assert.equal(rightsClaim, 'https://shop.example/rights');
  assert.deepEqual(rights, new Map([['news:*', ['listen']]]));
});

test('an invalid rights claim and invalid rights are refused', () => {
  const name = 'TRUSTED_ISSUERS_FILE: issuer 1:';
  const getProblem = (fields: object) => getProblems([{ ...withJwks, ...fields }])[0] ?? '';

  for (const rightsClaim of ['', ' x', 7, null])
    assert.ok(getProblem({ rightsClaim }).startsWith(`${name} rightsClaim must be a text`));
  for (const rights of [null, [], 'news', { 'news*': ['listen'] }, { news: ['publish'] }])
    assert.ok(getProblem({ rights }).startsWith(`${name} rights `), JSON.stringify(rights));
});

test('the CA file, several audiences, the user claim and an empty user prefix of an issuer are read', () => {
  const more = { caFile: 'ca.pem', audience: ['a', 'b'], userClaim: 'email', userPrefix: '' };

  const { keys, audiences, userClaim, userPrefix } = loadOne({ ...withJwks, ...more });

  assert.deepEqual(keys, { kind: 'jwks', url: withJwks.jwksUrl, ca: testCertificate.cert });
  assert.deepEqual([audiences, userClaim, userPrefix], [['a', 'b'], 'email', '']);
});

test('the public keys of an issuer are read from a file', () => {
  const algorithms = ['RS256', 'PS512', 'ES256'];

  const { keys } = loadOne({ ...withPublicKey, publicKeyFile: 'both.pem', algorithms });

  const pems = [rsa.publicPem.trim(), ec.publicPem.trim()];
  assert.deepEqual(keys, { kind: 'publicKeys', pems });
  loadOne({ ...withPublicKey, publicKeyFile: '4.pem' });
  loadOne({ ...withPublicKey, publicKeyFile: 'ed25519.pem', algorithms: ['EdDSA', 'Ed25519'] });
});

test('the secrets of an issuer are read from the lines of a file', () => {
  const { keys } = loadOne({ ...withSecret, secretFile: 'secrets' });

  const expected = [secret, secret64].map((text) => Buffer.from(text.slice(4), 'hex'));
  assert.deepEqual(keys, { kind: 'secrets', secrets: expected });
  loadOne({ ...withSecret, secretFile: 'secrets4' });
  loadOne({ ...withSecret, secretFile: 'secret48', algorithms: ['HS256', 'HS384'] });
});

const listProblem = ['TRUSTED_ISSUERS_FILE must be a JSON list of 1 to 20 issuers'];
const many = Array.from({ length: 21 }, (_, index) => ({ ...withJwks, issuer: `issuer-${index}` }));

test('an issuers file that is not a list of 1 to 20 issuers is refused', () => {
  for (const content of ['null', '{"issuer":"x"}', '"x"', many])
    assert.deepEqual(getProblems(content), listProblem);
  assert.deepEqual(getProblems(many.slice(1)), []);
  assert.deepEqual(getProblems([]), [
    'TRUSTED_ISSUERS_FILE lists no issuer: list at least one, or unset the setting',
  ]);
});

test('an issuers file that is not JSON is refused with the line and column of the error', () => {
  for (const [content, position] of [
    ['[{\n  "issuer": "x",\n}]', 'line 3, column 1'],
    ['[{\n', 'line 2, column 1, the end of the file'],
    ['issuer: x', 'line 1, column 1'],
  ] as const)
    assert.deepEqual(getProblems(content), [`TRUSTED_ISSUERS_FILE is not JSON: ${position}`]);
});

test('an issuers file that cannot be read is reported', () => {
  assert.deepEqual(getProblems([], { TRUSTED_ISSUERS_FILE: 'missing' }), [
    'TRUSTED_ISSUERS_FILE names a file that cannot be read (ENOENT)',
  ]);
});

const long = 'x'.repeat(2049);
const texts = 'a text of 1 to 2048 characters without space at its ends';

// [description, issuer, problems after `TRUSTED_ISSUERS_FILE: issuer 1`]
const refusals: readonly [string, unknown, readonly string[]][] = [
  ['a text', 'x', [' must be an object']],
  ['null', null, [' must be an object']],
  ['a list', [withJwks], [' must be an object']],
  [
    'an empty object',
    {},
    [
      ...[': algorithms is required', ': issuer is required', ': audience is required'],
      ': exactly one of jwksUrl, publicKeyFile, secretFile is required',
      ': userPrefix is required: "" if the user claim itself is the user id',
    ],
  ],
  [
    'a misspelled field',
    { ...withJwks, audiance: 'x' },
    [': unknown field "audiance": is it audience?'],
  ],
  [
    'a field that does not exist',
    { ...withJwks, keys: {} },
    [
      ': unknown field "keys": the fields are issuer, audience, jwksUrl, caFile, publicKeyFile, secretFile, algorithms, userClaim, userPrefix, rightsClaim, rights',
    ],
  ],
  ...['issuer', 'audience', 'userClaim'].flatMap((field) =>
    ['', ' x', 'x ', long, 7, null, {}].map((value): [string, unknown, readonly string[]] => [
      `${field} ${JSON.stringify(value).slice(0, 10)}`,
      { ...withJwks, [field]: value },
      [`: ${field} must be ${texts}`],
    ]),
  ),
  ...[[], ['a', 'a'], ['a', 7], [''], Array.from('abcdefghijk')].map(
    (audience): [string, unknown, readonly string[]] => [
      `audience ${JSON.stringify(audience)}`,
      { ...withJwks, audience },
      [': audience must be a list of 1 to 10 different texts'],
    ],
  ),
  ...['RS256', [], ['RS256', 'RS256'], [7], {}].map(
    (algorithms): [string, unknown, readonly string[]] => [
      `algorithms ${JSON.stringify(algorithms)}`,
      { ...withJwks, algorithms },
      [': algorithms must be a list of 1 to 11 different texts'],
    ],
  ),
  ...['none', 'rs256', 'HS256', 'ES256K'].map((algorithm): [string, unknown, readonly string[]] => [
    `${algorithm} with a JWKS`,
    { ...withJwks, algorithms: ['RS256', algorithm] },
    [
      ': algorithms may list only RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, ES512, EdDSA, Ed25519 with jwksUrl and publicKeyFile',
    ],
  ]),
  [
    'HS256 with a public key',
    { ...withPublicKey, algorithms: ['HS256'] },
    [
      ': algorithms may list only RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, ES512, EdDSA, Ed25519 with jwksUrl and publicKeyFile',
    ],
  ],
  [
    'RS256 with a secret',
    { ...withSecret, algorithms: ['RS256', 'HS256'] },
    [': algorithms may list only HS256, HS384, HS512 with secretFile'],
  ],
  [
    'two sources of keys',
    { ...withJwks, publicKeyFile: 'rsa.pem' },
    [': exactly one of jwksUrl, publicKeyFile, secretFile is required'],
  ],
  ...[
    ...['http://id.example.com/jwks', 'id.example.com', 'file:///etc/passwd', '//id.example.com'],
    ...['https://user@id.example.com/', 'https://:password@id.example.com/', 'https://'],
  ].map((jwksUrl): [string, unknown, readonly string[]] => [
    `jwksUrl ${jwksUrl}`,
    { ...withJwks, jwksUrl },
    [': jwksUrl must be a URL that begins with https://, without a password'],
  ]),
  ['a CA without a JWKS', { ...withPublicKey, caFile: 'ca.pem' }, [': caFile is only for jwksUrl']],
  ...['key.pem', 'empty', 'text', 'rsa.pem'].map((caFile): [string, unknown, readonly string[]] => [
    `the file ${caFile} as a CA`,
    { ...withJwks, caFile },
    [': caFile must hold certificates (PEM)'],
  ]),
  ...['caFile', 'publicKeyFile', 'secretFile'].map(
    (field): [string, unknown, readonly string[]] => [
      `${field} that is missing`,
      {
        ...{ caFile: withJwks, publicKeyFile: withPublicKey, secretFile: withSecret }[field],
        [field]: 'missing',
      },
      [`: ${field} names a file that cannot be read (ENOENT)`],
    ],
  ),
  ...['private.pem', 'mixed.pem', 'damaged.pem', '5.pem', 'empty', 'text', 'ca.pem'].map(
    (publicKeyFile): [string, unknown, readonly string[]] => [
      `the file ${publicKeyFile} as public keys`,
      { ...withPublicKey, publicKeyFile },
      [': publicKeyFile must hold 1 to 4 blocks BEGIN PUBLIC KEY (PEM) and nothing secret'],
    ],
  ),
  [
    'a short RSA key',
    { ...withPublicKey, publicKeyFile: 'short.pem' },
    [
      ': publicKeyFile has a key that fits none of algorithms: key 1',
      ': publicKeyFile must hold an RSA key of 2048 bits or more for RS256',
    ],
  ],
  [
    'an algorithm without a key',
    { ...withPublicKey, algorithms: ['RS256', 'ES256', 'EdDSA'] },
    [
      ': publicKeyFile must hold an EC key on prime256v1 for ES256',
      ': publicKeyFile must hold an Ed25519 key for EdDSA',
    ],
  ],
  [
    'a key without an algorithm',
    { ...withPublicKey, publicKeyFile: 'both.pem' },
    [': publicKeyFile has a key that fits none of algorithms: key 2'],
  ],
  ...['empty', 'secrets5'].map((secretFile): [string, unknown, readonly string[]] => [
    `the file ${secretFile} as secrets`,
    { ...withSecret, secretFile },
    [': secretFile must hold 1 to 4 secrets, one a line'],
  ]),
  [
    'a secret that is too short for its algorithm',
    { ...withSecret, algorithms: ['HS256', 'HS384'] },
    [': secretFile: secret 1 must have 48 bytes or more for HS384'],
  ],
  [
    'a short secret',
    { ...withSecret, secretFile: 'text' },
    [': secretFile: secret 1 must have 32 bytes or more for HS256'],
  ],
  [
    'a weak secret',
    { ...withSecret, secretFile: 'weak' },
    [': secretFile: secret 1 must be random: it has fewer than 10 different bytes'],
  ],
  [
    'a public key as a secret',
    { ...withSecret, secretFile: 'rsa.pem' },
    [': secretFile must hold 1 to 4 secrets, one a line'],
  ],
  [
    'a secret with an invalid character',
    { ...withSecret, secretFile: 'damaged' },
    [': secretFile must be valid hex on one line'],
  ],
  [
    'a secret that is not UTF-8',
    { ...withSecret, secretFile: 'bytes' },
    [': secretFile must be text in UTF-8, not bytes'],
  ],
  ...['a b', 'a"', 'a,', 'a\\', '*', 'é', 'x'.repeat(255), null, 7].map(
    (userPrefix): [string, unknown, readonly string[]] => [
      `userPrefix ${JSON.stringify(userPrefix).slice(0, 10)}`,
      { ...withJwks, userPrefix },
      [
        ': userPrefix must be a text of at most 254 printable ASCII characters without space, ", comma, \\ and *',
      ],
    ],
  ),
];

for (const [what, entry, problems] of refusals) {
  test(`a trusted issuer with ${what} is reported with its number and field`, () => {
    const expected = problems.map((problem) => `TRUSTED_ISSUERS_FILE: issuer 1${problem}`);

    assert.deepEqual(getProblems([entry]), expected);
  });
}

test('all problems of an issuers file and of other settings are reported together', () => {
  const issuers = [
    { ...withJwks, audience: '' },
    { ...withSecret, issuer: 'b', userPrefix: undefined },
  ];

  const problems = getProblems(issuers, { PORT: 'many', TRUSTED_TOKEN_MAX_LIFE: '1h' });

  const names = problems.map((problem) => problem.split(' ').slice(0, 4).join(' '));
  assert.deepEqual(names, [
    'PORT must be a',
    'TRUSTED_ISSUERS_FILE: issuer 1: audience',
    'TRUSTED_ISSUERS_FILE: issuer 2: userPrefix',
    'TRUSTED_TOKEN_MAX_LIFE must be a',
  ]);
});

test('an issuer that is listed twice is refused, whatever else differs', () => {
  assert.deepEqual(getProblems([withJwks, withSecret]), [
    'TRUSTED_ISSUERS_FILE: issuer "https://id.example.com/" is listed twice',
  ]);
  const { issuer } = withJwks;
  assert.deepEqual(getProblems([withJwks, { ...withJwks, issuer: issuer.slice(0, -1) }]), []);
});

test("a trusted issuer with the name of Herald's own issuer is refused", () => {
  assert.deepEqual(getProblems([{ ...withJwks, issuer: 'herald' }]), [
    'TRUSTED_ISSUERS_FILE must not list ACCESS_TOKEN_ISSUER, the issuer of the tokens of Herald itself',
  ]);
});

test('a user prefix may have the characters of a user id, and at most 254', () => {
  for (let code = 0; code < 256; code += 1) {
    const character = String.fromCharCode(code);
    const isAccepted = getProblems([{ ...withJwks, userPrefix: character }]).length === 0;
    assert.equal(isAccepted, userIdPattern.test(character), `code ${code}`);
  }
  assert.deepEqual(getProblems([{ ...withJwks, userPrefix: 'x'.repeat(254) }]), []);
});

for (const [name, hint] of [
  ['TRUSTED_ISSUER_FILE', 'did you mean TRUSTED_ISSUERS_FILE?'],
  ['TRUSTED_TOKEN_LIFE', 'see .env.example'],
] as const) {
  test(`the misspelled setting ${name} is reported`, () => {
    assert.deepEqual(getProblems([withJwks], { [name]: 'x' }), [
      `${name} is not a setting of Herald: ${hint}`,
    ]);
  });
}

test('problems never show a secret', () => {
  const { message } = new ConfigError(
    getProblems([{ ...withSecret, secretFile: 'damaged', algorithms: ['HS512'] }]),
  );

  assert.doesNotMatch(message, new RegExp(secret.slice(4, 20)));
});
