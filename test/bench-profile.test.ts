import assert from 'node:assert/strict';
import { test } from 'node:test';
import { pathToFileURL } from 'node:url';
import { repositoryFolder } from '../bench/machine.js';
import { type CallNode, Child } from '../bench/process/child.js';
import { buildBreakdown } from '../bench/profile/breakdown.js';
import { betweenCalls, getCallOrigin, getThreadOrigin } from '../bench/profile/cpu-origin.js';
import { renderFlameGraph } from '../bench/profile/flame.js';
import { getNativeComponent } from '../bench/profile/native-component.js';
import { parseCounts } from '../bench/profile/perf.js';
import { type ProfiledRun, profileRun } from '../bench/profile/profiled-run.js';
import { Progress } from '../bench/report/progress.js';
import type { Subject } from '../bench/subject.js';

const home = pathToFileURL(repositoryFolder).href;

/**
 * Builds a call tree without branches: the root calls the first function, and each calls the next.
 */
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

function createRun(calls: readonly CallNode[], parts: Partial<ProfiledRun> = {}): ProfiledRun {
  return {
    ...{
      cpuMicrosPerOperation: 0,
      operations: 10,
      seconds: 0.001,
      loopDelayP99Ms: 0,
      calls,
      otherThreads: [],
      nativeCounts: {},
    },
    mainThread: { name: 'node', cpuMicros: 1000, kernelMicros: 0, waitedMicros: 0 },
    ...parts,
  };
}

test('a call on the stack is attributed to its file, its package or its Node module', () => {
  // [function, url, name of the origin]
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
    assert.equal(getCallOrigin({ functionName, url, lineNumber: 0 }, betweenCalls).name, name);
  }
});

test('a native call is attributed to the JavaScript that called it, directly or through native code', () => {
  const frame = (functionName: string, url = '') => ({ functionName, url, lineNumber: 0 });
  const caller = getCallOrigin(frame('read', `${home}dist/db/sqlite/sqlite.js`), betweenCalls);

  const outer = getCallOrigin(frame('all'), caller);

  assert.equal(outer.name, 'native code called by dist/db/sqlite/sqlite.js');
  assert.deepEqual(getCallOrigin(frame('step'), outer), outer);
});

test('the shares of an operation add up to the CPU time of all threads', () => {
  const calls = createCallChain(
    ['push', `${home}dist/a.js`, 30],
    ['(idle)', '', 50],
    ['b', 'node:b', 20],
  );
  // One sample stands for 10 us. The thread ran for 600 of 1000 us, and calls ran for 500 us, so the
  // C++ that V8 counted as idle ran for the other 100 us. The results are per operation, of which
  // there were 10.
  const mainThread = { name: 'node', cpuMicros: 600, kernelMicros: 0, waitedMicros: 0 };
  const otherThreads = [{ name: 'sqlite-writer', cpuMicros: 40, kernelMicros: 0, waitedMicros: 0 }];

  const shares = buildBreakdown(createRun(calls, { mainThread, otherThreads }));

  const micros = (name: string) => shares.find((one) => one.name === name)?.micros.toFixed(3);
  assert.equal(micros('dist/a.js'), '30.000');
  assert.equal(micros('node:b'), '20.000');
  assert.equal(micros(betweenCalls.name), '10.000');
  assert.equal(micros('thread sqlite-writer'), '4.000');
});

test('a sample stands for less CPU when the thread waited for a core', () => {
  const calls = createCallChain(['push', `${home}dist/a.js`, 100]);
  const mainThread = { name: 'node', cpuMicros: 400, kernelMicros: 0, waitedMicros: 600 };

  const shares = buildBreakdown(createRun(calls, { mainThread }));

  const all = shares.reduce((sum, { micros }) => sum + micros, 0);
  assert.equal(all.toFixed(3), '40.000');
});

test('the CPU of a thread is attributed by the name of the thread in the kernel', () => {
  // Node 20 does not name its threads, so those that the probe does not name are libuv's pool.
  assert.equal(getThreadOrigin('node').name, getThreadOrigin('libuv-worker').name);
  assert.equal(getThreadOrigin('jobs').name, 'thread jobs');
  assert.equal(getThreadOrigin('v8:ProfEvntProc').kind, "V8's CPU profiler");
});

test('the shares of a profiled process include the CPU time of all its threads', {
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
    const run = await profileRun(child, async () => {
      await child.ask('spin');
      return 4;
    });

    const shares = buildBreakdown(run);
    const sum = shares.reduce((all, { micros }) => all + micros, 0);
    const cpu = [run.mainThread, ...run.otherThreads].reduce(
      (all, thread) => all + thread.cpuMicros,
      0,
    );
    assert.ok(Math.abs(sum * run.operations - cpu) < 1, `${sum} x 4 is not ${cpu}`);
    assert.ok(shares.some(({ name, micros }) => name === '[eval]' && micros > 0));
    assert.ok(run.otherThreads.some(({ name }) => name === 'V8Worker'));
  } finally {
    await child.stop();
  }
});

test('machine code is attributed to a component by its symbol and file', () => {
  const node = '/usr/bin/node';
  // [symbol, file, component]
  const cases = [
    ['tcp_sendmsg', '[kernel.kallsyms]', 'kernel, from `perf` samples'],
    ['nghttp2_session_mem_send', node, 'nghttp2: HTTP/2 frames and headers'],
    ['_aesni_ctr32_ghash_6x', node, 'OpenSSL: TLS and other cryptography'],
    ['node::http2::Http2Session::SendPendingData', node, "Node's C++"],
    ['v8::internal::Scavenger::Process', node, 'V8: garbage collection'],
    ['v8::internal::compiler::Pipeline::Run', node, 'V8: compiling'],
    ['Builtins_LoadIC', node, 'V8: built-in functions'],
    ['[unknown]', '/tmp/perf-7.map', 'JavaScript, compiled'],
    ['_int_malloc', '/usr/lib/libc.so.6', 'malloc and free'],
    ['fill_block', '/a/node_modules/argon2/prebuilds/argon2.node', 'addon argon2'],
    [
      'sqlite3_step',
      '/a/node_modules/@photostructure/sqlite/build/sqlite.node',
      'SQLite (@photostructure/sqlite)',
    ],
  ] as const;

  for (const [symbol, file, name] of cases) assert.equal(getNativeComponent(symbol, file), name);
});

test('samples of perf are counted by component, except those of the profiler thread', () => {
  const lines = [
    '            node   141155e v8::internal::Scavenger::Process (/usr/bin/node)',
    '   sqlite-writer  ffffffff816f0d2e fsync (deleted) ([kernel.kallsyms])',
    '   v8:ProfEvntProc   1411 v8::internal::TickSample::Init (/usr/bin/node)',
    '',
  ];

  assert.deepEqual(parseCounts(lines.join('\n')), {
    'V8: garbage collection': 1,
    'kernel, from `perf` samples': 1,
  });
});

test('a flame graph has a box for each call above a minimum width, and none for idle time', () => {
  const calls = createCallChain(
    ['push', `${home}dist/<a>.js`, 600],
    ['', 'node:b', 399],
    ['c', 'node:c', 1],
  );
  const idle = createCallChain(['(idle)', '', 1000]);

  const svg = renderFlameGraph('some', createRun(calls));

  assert.match(svg, /push &lt;a>.js/);
  assert.match(svg, /node:b:7/);
  assert.doesNotMatch(svg, /node:c/);
  assert.doesNotMatch(renderFlameGraph('some', createRun(idle)), /idle/);
});

test('the remaining time of a run is estimated from the finished subjects', () => {
  const subject = (seconds: number): Subject => ({
    ...{ name: `of ${seconds}`, about: 'some', seconds },
    run: () => Promise.resolve([]),
  });
  const progress = new Progress([subject(60), subject(540), subject(600)], 1);

  assert.match(progress.startText, /^1 of 3, of 60: some; about 20 min left$/);
  assert.match(progress.finish(180), /^of 60: 3 min, 3 min in total$/);
  assert.match(progress.startText, /^2 of 3, of 540: some; about 38 min left$/);
});
