import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { basename, join, relative } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('..', import.meta.url));

/** The field's own term for each exported name that it replaced. */
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
  GateShut: 'Throttled',
  Gathered: 'ByteAccumulator',
  LogIdentity: 'LogGeneration',
  LogStarts: 'ResumeResolver',
  LostPeers: 'DeadPeerDetector',
  Neighbours: 'ClusterSync',
  Outbox: 'WriteScheduler',
  Permit: 'Attempt',
  Reader: 'Subscriber',
  Repeats: 'WarningAggregator',
  Slip: 'SettingTypo',
  SqliteGuest: 'CliSqliteDatabase',
  TableAppender: 'SqlAppender',
  TableLog: 'SqlLogStore',
  TakeoverWatch: 'TokenLeakDetector',
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

/** File names without extension that terms of the field replaced as well. */
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

test('no export has a name that a term of the field replaced', () => {
  const violations = paths.flatMap((path) =>
    findExports(readFileSync(join(root, path), 'utf8'))
      .filter((name) => Object.hasOwn(replacedNames, name))
      .map((name) => `${path}: ${name}, use ${replacedNames[name]}`),
  );

  assert.deepEqual(violations, []);
});

test('no file has a name that a term of the field replaced', () => {
  const violations = paths.filter((path) =>
    replacedFiles.includes(basename(path).replace(/(\.test)?\.(ts|mjs)$/, '')),
  );

  assert.deepEqual(violations, []);
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
