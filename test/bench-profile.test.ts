import assert from 'node:assert/strict';
import { test } from 'node:test';
import { pathToFileURL } from 'node:url';
import { repository } from '../bench/machine.js';
import { type CallNode, Child } from '../bench/process/child.js';
import { buildBreakdown } from '../bench/profile/breakdown.js';
import { flameGraph } from '../bench/profile/flame.js';
import { getNativePart } from '../bench/profile/native-part.js';
import { betweenCalls, getPart, getThreadPart } from '../bench/profile/part.js';
import { parseCounts } from '../bench/profile/perf.js';
import { type ProfiledRun, profileRun } from '../bench/profile/profiled-run.js';
import { Progress } from '../bench/report/progress.js';
import type { Subject } from '../bench/subject.js';

const home = pathToFileURL(repository).href;

/** Builds a call tree without branches: below a root, each function calls the next. */
function createCallChain(
  ...links: readonly (readonly [name: string, url: string, samples: number])[]
) {
  const all = [['(root)', '', 0], ...links] as const;
  return all.map(
    ([functionName, url, hitCount], index): CallNode => ({
      id: index + 1,
      callFrame: { functionName, url, lineNumber: 6 },
      hitCount,
      children: index + 1 < all.length ? [index + 2] : [],
    }),
  );
}

function createWindow(calls: readonly CallNode[], parts: Partial<ProfiledRun> = {}): ProfiledRun {
  return {
    ...{ cpu: 0, operations: 10, seconds: 0.001, delay: 0, calls, others: [], native: {} },
    main: { name: 'node', cpu: 1000, kernel: 0, waited: 0 },
    ...parts,
  };
}

test('a call is attributed to its file, its package or its Node module', () => {
  // [function, url, part]
  const cases = [
    ['push', `${home}dist/stream/event-stream.js`, 'dist/stream/event-stream.js'],
    ['sign', `${home}node_modules/jsonwebtoken/sign.js`, 'jsonwebtoken'],
    ['read', `${home}node_modules/@photostructure/sqlite/dist/index.js`, '@photostructure/sqlite'],
    ['send', `${home}bench/peers/node_modules/express/lib/response.js`, 'express'],
    ['write', 'node:internal/http2/core', 'node:internal/http2/core'],
    ['(program)', '', betweenCalls.name],
    ['(garbage collector)', '', 'garbage collection'],
  ] as const;

  for (const [functionName, url, name] of cases) {
    assert.equal(getPart({ functionName, url, lineNumber: 0 }, betweenCalls).name, name);
  }
});

test('native calls are attributed to the JavaScript that called them, at any depth', () => {
  const frame = (functionName: string, url = '') => ({ functionName, url, lineNumber: 0 });
  const caller = getPart(frame('read', `${home}dist/db/sqlite/sqlite.js`), betweenCalls);

  const outer = getPart(frame('all'), caller);

  assert.equal(outer.name, 'native, by dist/db/sqlite/sqlite.js');
  assert.deepEqual(getPart(frame('step'), outer), outer);
});

test('the shares of an operation add up to the CPU time of all threads', () => {
  const calls = createCallChain(
    ['push', `${home}dist/a.js`, 30],
    ['(idle)', '', 50],
    ['b', 'node:b', 20],
  );
  // A sample is 10 us and the thread ran for 600 of 1000: 500 us are calls, 100 us of idle were C++.
  const main = { name: 'node', cpu: 600, kernel: 0, waited: 0 };
  const others = [{ name: 'sqlite-writer', cpu: 40, kernel: 0, waited: 0 }];

  const shares = buildBreakdown(createWindow(calls, { main, others }));

  const micros = (name: string) => shares.find((one) => one.name === name)?.micros.toFixed(3);
  assert.equal(micros('dist/a.js'), '30.000');
  assert.equal(micros('node:b'), '20.000');
  assert.equal(micros(betweenCalls.name), '10.000');
  assert.equal(micros('thread sqlite-writer'), '4.000');
});

test('samples of a thread that waited for a core have less weight', () => {
  const calls = createCallChain(['push', `${home}dist/a.js`, 100]);
  const main = { name: 'node', cpu: 400, kernel: 0, waited: 600 };

  const shares = buildBreakdown(createWindow(calls, { main }));

  const all = shares.reduce((sum, { micros }) => sum + micros, 0);
  assert.equal(all.toFixed(3), '40.000');
});

test('threads are identified by their kernel name', () => {
  // Node 20 does not name its threads: those that the probe did not name are libuv's pool.
  assert.equal(getThreadPart('node').name, getThreadPart('libuv-worker').name);
  assert.equal(getThreadPart('jobs').name, 'thread jobs');
  assert.equal(getThreadPart('v8:ProfEvntProc').kind, 'the profiler itself');
});

test('a profile covers all threads of a process', {
  skip: process.platform !== 'linux',
}, async () => {
  const script = `process.on('message', ({ id, ask }) => {
    if (ask === undefined) return;
    let sum = 0;
    for (let turn = 0; turn < 1e8; turn += 1) sum += Math.sqrt(turn);
    process.send({ id, answer: sum });
  });
  console.log('ready');`;
  const child = await Child.start({ args: ['-e', script], readyPattern: /ready/ });
  try {
    const window = await profileRun(child, async () => {
      await child.ask('spin');
      return 4;
    });

    const shares = buildBreakdown(window);
    const sum = shares.reduce((all, { micros }) => all + micros, 0);
    const cpu = [window.main, ...window.others].reduce((all, thread) => all + thread.cpu, 0);
    assert.ok(Math.abs(sum * window.operations - cpu) < 1, `${sum} x 4 is not ${cpu}`);
    assert.ok(shares.some(({ name, micros }) => name === '[eval]' && micros > 0));
    assert.ok(window.others.some(({ name }) => name === 'V8Worker'));
  } finally {
    await child.stop();
  }
});

test('machine code is attributed to its library', () => {
  const node = '/usr/bin/node';
  // [symbol, file, part]
  const cases = [
    ['tcp_sendmsg', '[kernel.kallsyms]', 'the kernel'],
    ['nghttp2_session_mem_send', node, 'nghttp2: HTTP/2 frames and headers'],
    ['_aesni_ctr32_ghash_6x', node, 'OpenSSL: TLS and other cryptography'],
    ['node::http2::Http2Session::SendPendingData', node, "Node's C++"],
    ['v8::internal::Scavenger::Process', node, 'V8: garbage collection'],
    ['v8::internal::compiler::Pipeline::Run', node, 'V8: compiling'],
    ['Builtins_LoadIC', node, 'V8: built-in functions'],
    ['[unknown]', '/tmp/perf-7.map', 'JavaScript, compiled'],
    ['_int_malloc', '/usr/lib/libc.so.6', 'malloc and free'],
    ['fill_block', '/a/node_modules/argon2/prebuilds/argon2.node', 'addon argon2'],
  ] as const;

  for (const [symbol, file, name] of cases) assert.equal(getNativePart(symbol, file), name);
});

test('lines of perf are counted, except those of the profiler thread', () => {
  const lines = [
    '            node   141155e v8::internal::Scavenger::Process (/usr/bin/node)',
    '   sqlite-writer  ffffffff816f0d2e fsync (deleted) ([kernel.kallsyms])',
    '   v8:ProfEvntProc   1411 v8::internal::TickSample::Init (/usr/bin/node)',
    '',
  ];

  assert.deepEqual(parseCounts(lines.join('\n')), { 'V8: garbage collection': 1, 'the kernel': 1 });
});

test('a flame graph has a box for each call above a minimum width, and none for idle time', () => {
  const calls = createCallChain(
    ['push', `${home}dist/<a>.js`, 600],
    ['', 'node:b', 399],
    ['c', 'node:c', 1],
  );
  const idle = createCallChain(['(idle)', '', 1000]);

  const svg = flameGraph('some', createWindow(calls));

  assert.match(svg, /push &lt;a>.js/);
  assert.match(svg, /node:b:7/);
  assert.doesNotMatch(svg, /node:c/);
  assert.doesNotMatch(flameGraph('some', createWindow(idle)), /idle/);
});

test('the remaining time of a run is estimated from the part that is done', () => {
  const subject = (seconds: number): Subject => ({
    ...{ name: `of ${seconds}`, about: 'some', seconds },
    run: () => Promise.resolve([]),
  });
  const progress = new Progress([subject(60), subject(540), subject(600)], 1);

  assert.match(progress.next, /^1 of 3, of 60: some; some 20 min left$/);
  assert.match(progress.finish(180), /^of 60: 3 min, 3 min in all$/);
  assert.match(progress.next, /^2 of 3, of 540: some; some 38 min left$/);
});
