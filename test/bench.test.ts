import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { encodeFrame, encodeHeaderBlock, frameTypes } from '../bench/load/frames.js';
import { Latencies } from '../bench/load/latencies.js';
import { createMarkedData, nowMicros, Tally } from '../bench/load/marked-events.js';
import { BuildError, resolveRef, treeBuild } from '../bench/process/build.js';
import { Child } from '../bench/process/child.js';
import { buildComparisonTable, compareFigures } from '../bench/report/compare.js';
import { createFigure, type Figure, runInterleaved } from '../bench/report/figure.js';
import { findRegressions, findRepeatedRegressions } from '../bench/report/smoke.js';
import { Bench } from '../bench/subject.js';

const bytes = (text: string) => Buffer.from(text);

test('a tally counts marked events no matter where reads split them', () => {
  const text = [1, 2, 3]
    .map((number) => `id: x\ndata: ${createMarkedData(number, 60)}\n\n`)
    .join('');
  for (let cut = 0; cut <= text.length; cut += 1) {
    const tally = new Tally();
    const published: number[] = [];
    const [head, tail] = [bytes(text.slice(0, cut)), bytes(text.slice(cut))];

    for (const part of [head, tail]) {
      tally.feed(part, 0, part.length, (at) => published.push(at));
    }

    assert.deepEqual([tally.events, tally.sum, tally.outOfOrder], [3, 6, 0], `cut at ${cut}`);
    assert.ok(published.every((at) => Math.abs(nowMicros() - at) < 60e6));
  }
});

test('a tally detects missing, duplicate and reordered events', () => {
  const feed = (numbers: readonly number[]) => {
    const tally = new Tally();
    const part = bytes(numbers.map((number) => createMarkedData(number, 40)).join('\n'));
    tally.feed(part, 0, part.length, () => {});
    return [tally.events, tally.sum, tally.outOfOrder];
  };

  assert.deepEqual(feed([1, 2, 3]), [3, 6, 0]);
  assert.deepEqual(feed([1, 3]), [2, 4, 0]);
  assert.deepEqual(feed([1, 2, 2]), [3, 5, 1]);
  assert.deepEqual(feed([2, 1, 3]), [3, 6, 1]);
});

test('a tally ignores bytes of a buffer outside the given range', () => {
  const text = `${createMarkedData(1, 40)}${createMarkedData(2, 40)}`;
  const tally = new Tally();

  tally.feed(bytes(text), 0, 40, () => {});

  assert.equal(tally.events, 1);
});

test('latency percentiles are rounded up to the next step of 50 microseconds', () => {
  const latencies = new Latencies();
  for (let ms = 1; ms <= 1000; ms += 1) latencies.add(ms * 1000);

  const { count, p50Ms, p99Ms, p999Ms, maxMs } = latencies.summary;

  assert.deepEqual([count, p50Ms, p99Ms, p999Ms, maxMs], [1000, 500.05, 990.05, 999.05, 1000]);
});

test('a ratio is computed per run, and its median is compared with the goal', () => {
  const result = createFigure({
    ...{ subject: 'some', what: 'thing', parameters: {}, unit: 'us', runs: [10, 30, 20] },
    reference: { what: 'other', runs: [10, 10, 10] },
    goal: { on: 'ratio', is: '<=', bound: 2 },
  });

  assert.deepEqual(result.ratio, { median: 2, min: 1, max: 3 });
  assert.equal(result.isGoalReached, true);
  assert.equal(
    createFigure({ ...result, goal: { on: 'value', is: '<=', bound: 19 } }).isGoalReached,
    false,
  );
});

test('measurements are interleaved, and every other round runs in reverse order', async () => {
  const order: string[] = [];
  const record = (name: string) => async () => order.push(name);

  const rounds: number[] = [];
  await runInterleaved(3, { a: record('a'), b: record('b') }, (round) => rounds.push(round));

  assert.equal(order.join(''), 'abbaab');
  assert.deepEqual(rounds, [1, 2, 3]);
});

test('frames and header blocks are encoded as specified', () => {
  // RFC 9113 §4.1 and RFC 7541 §6.2.2, with a length of 130 encoded as in §5.1.
  assert.equal(
    encodeFrame(frameTypes.ping, 1, 0, bytes('12345678')).toString('hex').slice(0, 18),
    '000008060100000000',
  );
  assert.equal(encodeHeaderBlock({ a: 'b' }).toString('hex'), '0001610162');
  assert.equal(
    encodeHeaderBlock({ a: 'b'.repeat(130) })
      .toString('hex')
      .slice(0, 10),
    '0001617f03',
  );
});

test('a regression of a figure is reported only when both measurements show it', () => {
  const measured = (...ratios: readonly number[]): Figure[] =>
    ratios.map((ratio, index) =>
      createFigure({
        ...{ subject: 'some', what: `thing ${index}`, parameters: {}, unit: 'us', runs: [ratio] },
        reference: { what: 'other', runs: [1] },
        ...{ goal: { on: 'ratio', is: '<=', bound: 1 }, isStableUnderLoad: true },
      }),
    );

  const regressions = findRepeatedRegressions(measured(2, 1, 2), measured(1, 2, 3), []);

  assert.deepEqual(
    regressions.map(({ what }) => what),
    ['thing 2'],
  );
});

test('a regression is a ratio that is over 1.5 times worse than its goal and its stored ratio', () => {
  const buildSample = (ratio: number, parts: Partial<Figure> = {}): Figure => ({
    ...createFigure({
      ...{ subject: 'some', what: 'thing', parameters: {}, unit: 'us', runs: [ratio] },
      reference: { what: 'other', runs: [1] },
      ...{ goal: { on: 'ratio', is: '<=', bound: 2 }, isStableUnderLoad: true },
    }),
    ...parts,
  });
  const atLeast = { goal: { on: 'ratio', is: '>=', bound: 20 } } as const;
  // [ratio, other fields, stored ratio, whether it is a regression]
  const cases = [
    [2.9, {}, undefined, false],
    [3.1, {}, undefined, true],
    [3.1, {}, 2.5, false], // The stored ratio missed the goal, too.
    [3.9, {}, 2.5, true],
    [3.1, {}, 1, true],
    [3.1, { isStableUnderLoad: false }, undefined, false],
    [14, atLeast, undefined, false],
    [13, atLeast, undefined, true],
    [13, atLeast, 15, false],
  ] as const;

  for (const [ratio, parts, before, isRegression] of cases) {
    const stored = before === undefined ? [] : [buildSample(before, parts)];

    const regressions = findRegressions([buildSample(ratio, parts)], stored);

    assert.equal(regressions.length, isRegression ? 1 : 0, `${ratio} after ${before}`);
  }
});

test('a comparison computes the ratio of two builds per run for each figure', () => {
  const buildRun = (cpu: number, rate: number): Figure[] => {
    const base = { subject: 'some', parameters: { streams: 5 } };
    return [
      createFigure({ ...base, what: 'CPU', unit: 'us', runs: [cpu] }),
      createFigure({ ...base, what: 'rate', unit: '/s', runs: [rate] }),
    ];
  };

  const figures = compareFigures(
    'v1',
    [buildRun(10, 300), buildRun(60, 100), buildRun(30, 200)],
    [buildRun(10, 100), buildRun(20, 100), buildRun(20, 100)],
  );

  assert.deepEqual(
    figures.map(({ what, median, reference, ratio }) => [what, median, reference?.median, ratio]),
    [
      ['CPU', 30, 20, { median: 1.5, min: 1, max: 3 }],
      ['rate', 200, 100, { median: 2, min: 1, max: 3 }],
    ],
  );
  assert.equal(
    buildComparisonTable('v1', figures.slice(0, 1)),
    [
      '| subject | what            | this tree | v1    | ratio, median (min to max) |',
      '|---------|-----------------|-----------|-------|----------------------------|',
      '| some    | CPU (streams 5) | 30 us     | 20 us | 1.5 (1 to 3)               |',
    ].join('\n'),
  );
});

test('a comparison omits figures that a run of either build did not measure', () => {
  const buildNamedSample = (what: string, ...runs: readonly number[]) =>
    createFigure({ ...{ subject: 'some', what, parameters: {}, unit: 'us' }, runs });
  const both = buildNamedSample('both', 1);
  const tree = [
    [both, buildNamedSample('new', 1), buildNamedSample('reference'), buildNamedSample('once', 1)],
    [both, buildNamedSample('new', 1), buildNamedSample('reference'), buildNamedSample('once')],
  ];
  const other = [
    [both, buildNamedSample('once', 1), buildNamedSample('reference', 1)],
    [both, buildNamedSample('once', 1), buildNamedSample('reference', 1)],
  ];

  const figures = compareFigures('v1', tree, other);

  assert.deepEqual(
    figures.map(({ what }) => what),
    ['both'],
  );
});

test('a comparison measures a build once and opens no references', async () => {
  const done: string[] = [];
  const measure = (name: string) => async () => done.push(name);

  for (const options of [{ compared: treeBuild }, { runs: 2 }]) {
    const bench = new Bench(options);
    const opened = bench.lazy(measure('opened'));
    try {
      const results = await bench.runInterleaved(
        { herald: measure('herald') },
        {
          async bare() {
            await opened();
            return done.push('bare');
          },
        },
      );
      done.push(`${results.herald.length} and ${results.bare.length}`);
    } finally {
      await bench.end();
    }
  }

  assert.deepEqual(done, [
    ...['herald', '1 and 0'],
    ...['herald', 'opened', 'bare', 'bare', 'herald', '2 and 2'],
  ]);
});

test('a comparison rejects a git ref that does not refer to a commit', () => {
  for (const ref of ['no-such-ref', '', '--all', 'HEAD:package.json']) {
    assert.throws(() => resolveRef(ref), BuildError, ref);
  }
});

test('a build that fails is reported in one line without a stack', () => {
  const runFile = fileURLToPath(new URL('../bench/run.ts', import.meta.url));
  const tsx = import.meta.resolve('tsx');

  // Without a PATH there is no npm.
  const { status, stderr } = spawnSync(process.execPath, ['--import', tsx, runFile, 'publish'], {
    env: { PATH: '/nowhere' },
    encoding: 'utf8',
  });

  assert.equal(status, 1);
  assert.match(stderr, /^Cannot measure: the working tree does not build \(npm run: .*\)\n$/);
});

test('a request for which a process has no handler is rejected', async () => {
  const requestHandler = new URL('../bench/process/request-handler.ts', import.meta.url);
  const script = `
    import { handleRequests } from '${requestHandler}';
    handleRequests({ double: (number) => 2 * number, nothing: () => {} });
    console.log('ready');`;
  const child = await Child.start({
    args: ['--import', import.meta.resolve('tsx'), '--input-type=module', '--eval', script],
    readyPattern: /ready/,
  });
  try {
    assert.equal(await child.ask('double', 4), 8);
    assert.equal(await child.ask('nothing'), undefined);
    await assert.rejects(
      child.ask('triple', 4),
      /Cannot answer 'triple': there is no such handler/,
    );
  } finally {
    await child.stop();
  }
});
