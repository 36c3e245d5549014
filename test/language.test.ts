import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { basename, join, relative } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('..', import.meta.url));

/** Standard terms by the exported names that they replaced. */
const replacedNames: Readonly<Record<string, string>> = {
  AcceptLimit: 'ConnectionLimiter',
  Admission: 'ConcurrencyLimiter',
  Broker: 'EventLog.publish',
  Case: 'PendingRequest',
  Chunks: 'ChunkCache',
  Closers: 'CloseStack',
  Connection: 'EventStream',
  Crew: 'WorkerSupervisor',
  Desk: 'RequestDispatcher',
  Follower: 'LogPoller',
  Gate: 'AttemptLimiter',
  GateShut: 'AttemptRefused',
  Gathered: 'ByteAccumulator',
  LogIdentity: 'LogGeneration',
  LogStarts: 'ResumeResolver',
  LostPeers: 'DeadPeerDetector',
  Neighbours: 'ClusterSync',
  Outbox: 'WriteScheduler',
  Permit: 'Attempt',
  Repeats: 'WarningAggregator',
  Slip: 'SettingTypo',
  SqliteGuest: 'CliSqliteDatabase',
  TableAppender: 'SqlAppender',
  TableLog: 'SqlLogStore',
  TakeoverWatch: 'TokenLeakDetector',
  Throttle: 'PasswordAttemptLimiter',
  Turns: 'Semaphore',
  WakeUps: 'Notifier',
  WatchedDatabase: 'HealthCheckedDatabase',
  Wheel: 'TimerWheel',
  complain: 'printError',
  forsake: 'startNewEpoch',
  isElastic: 'hasVariableArity',
  refusingInBand: 'rejectInStream',
  say: 'print',
  unacknowledged: 'readUnackedBytes',
};

/** File names, without extension, that standard terms replaced, too. */
const replacedFiles: readonly string[] = [
  'accept-limit',
  'admission',
  'broker',
  'chunks',
  'closers',
  'crew',
  'desk',
  'follower',
  'gate',
  'gathered',
  'log-identity',
  'log-starts',
  'lost-peers',
  'neighbours',
  'outbox',
  'postgres-wake-ups',
  'repeats',
  'setting-forms',
  'setting-slips',
  'sqlite-guest',
  'table-appender',
  'table-log',
  'takeover-watch',
  'throttle',
  'turns',
  'unacknowledged',
  'wake-ups',
  'watched-database',
  'wheel',
];

const paths = ['src', 'test', 'bench'].flatMap((folder) =>
  readdirSync(join(root, folder), { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile() && /\.(ts|mjs)$/.test(entry.name))
    .map((entry) => relative(root, join(entry.parentPath, entry.name)).replaceAll('\\', '/'))
    .filter((path) => !path.includes('node_modules/')),
);

test('no export has a name that a standard term has replaced', () => {
  const violations = paths.flatMap((path) =>
    findExports(readFileSync(join(root, path), 'utf8'))
      .filter((name) => Object.hasOwn(replacedNames, name))
      .map((name) => `${path}: ${name}, use ${replacedNames[name]}`),
  );

  assert.deepEqual(violations, []);
});

test('no file has a name that a standard term has replaced', () => {
  const violations = paths.filter((path) =>
    replacedFiles.includes(basename(path).replace(/(\.test)?\.(ts|mjs)$/, '')),
  );

  assert.deepEqual(violations, []);
});

/** Names in comments that are defined elsewhere: by jsonwebtoken, mariadb and HSTS. */
const foreignNames = ['JsonWebTokenError', 'foundRows', 'includeSubDomains'];

test('a name in a comment occurs in the code', () => {
  const own = relative(root, fileURLToPath(import.meta.url));
  const files = paths
    .filter((path) => path !== own)
    .map((path) => ({ path, ...separateComments(readFileSync(join(root, path), 'utf8')) }));
  const texts = [
    ...files.map(({ code }) => code),
    readFileSync(join(root, 'package.json'), 'utf8'),
  ];
  const known = new Set([...texts.join('\n').matchAll(/\w+/g)].map(([word]) => word));

  const unknown = files.flatMap(({ path, comments }) =>
    findNames(comments)
      .filter((name) => !known.has(name) && !foreignNames.includes(name))
      .map((name) => `${path}: ${name}`),
  );

  assert.ok(files.flatMap(({ comments }) => findNames(comments)).length > 100);
  assert.deepEqual(unknown, []);
});

test('names are found in each form of a comment', () => {
  const { code, comments } = separateComments(`
    /** Calls \`oneName(twoNames)\`, not plainWords. */
    const url = 'https://a.invalid'; // See \`#threeNames\`.
    /*
     * As in \`FourNames.fiveNames\` and \`lower\`.
     */
    const kept = \`sixNames\`;`);

  assert.deepEqual(findNames(comments), [
    ...['oneName', 'twoNames', 'threeNames', 'FourNames', 'fiveNames'],
  ]);
  assert.match(code, /https:\/\/a\.invalid'; *\n\s+const kept = `sixNames`;$/);
});

test('findExports finds exported names in each form of a declaration', () => {
  const text = [
    'export class Desk {',
    'export interface Case {',
    'export type Slip = string;',
    'export const turns = 1;',
    'export async function say() {}',
    'export abstract class Gate {}',
    'export { one, type Two, three as Wheel };',
  ].join('\n');

  assert.deepEqual(findExports(text), [
    ...['Desk', 'Case', 'Slip', 'turns', 'say', 'Gate'],
    ...['one', 'Two', 'Wheel'],
  ]);
});

function findExports(text: string): string[] {
  const declared =
    /^export (?:default )?(?:declare )?(?:abstract )?(?:async )?(?:class|interface|type|const|let|function\*?|enum) (\w+)/gm;
  const listed = /^export (?:type )?\{([^}]*)\}/gm;
  return [
    ...[...text.matchAll(declared)].map(([, name = '']) => name),
    ...[...text.matchAll(listed)].flatMap(([, names = '']) =>
      names
        .split(',')
        .map(
          (name) =>
            name
              .trim()
              .replace(/^type /, '')
              .split(' as ')
              .at(-1) ?? '',
        )
        .filter((name) => name !== ''),
    ),
  ];
}

/** Splits a file into its comments and what is left of it. */
function separateComments(text: string): { readonly code: string; readonly comments: string } {
  const comment = /(?<=^|\s)(?:\/\*[\s\S]*?\*\/|\/\/.*)/g;
  return { code: text.replace(comment, ''), comments: (text.match(comment) ?? []).join('\n') };
}

/** Returns the words in backticks that have a capital after a small letter. */
function findNames(comments: string): string[] {
  return [...comments.matchAll(/`([^`\n]+)`/g)].flatMap(([, quoted = '']) =>
    (quoted.match(/\w+/g) ?? []).filter((word) => /[a-z][A-Z]/.test(word)),
  );
}
