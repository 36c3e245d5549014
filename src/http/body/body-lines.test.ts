import assert from 'node:assert/strict';
import { PassThrough, Readable } from 'node:stream';
import { test } from 'node:test';
import type { Failure } from '../../errors.js';
import { type LineLimits, readLines } from './body-lines.js';

const limits = { bytesMax: 1000, lineBytesMax: 20, depthMax: 3, deadlineMs: 60_000 };
const headers = { 'content-type': 'application/x-ndjson; charset=utf-8' };
const sendContinue = () => {};

/** Creates a body that arrives in these chunks. */
function createBody(...chunks: (string | Buffer)[]) {
  const input = Readable.from(
    chunks.map((piece) => Buffer.from(piece)),
    { objectMode: false },
  );
  return { input, headers, sendContinue, isBodyTruncated: false };
}

async function readAllLines(
  body: Parameters<typeof readLines>[0],
  limitChanges: Partial<LineLimits> = {},
) {
  const values: unknown[] = [];
  for await (const { value } of readLines(body, { ...limits, ...limitChanges })) values.push(value);
  return values;
}

const isFailure = (name: string, info: object | undefined) => (failure: Failure) => {
  assert.equal(failure.name, name);
  assert.deepEqual(failure.info, info);
  return true;
};

test('lines are parsed to values, however the body is split into chunks', async () => {
  const text = '{"a":"é🐝"}\r\n\n 7 \n[1,[2]]\n  \n"x"';
  const bytes = Buffer.from(text);

  for (let size = 1; size <= bytes.length; size += 1) {
    const chunks: Buffer[] = [];
    for (let start = 0; start < bytes.length; start += size) {
      chunks.push(bytes.subarray(start, start + size));
    }

    assert.deepEqual(await readAllLines(createBody(...chunks)), [{ a: 'é🐝' }, 7, [1, [2]], 'x']);
  }
  assert.deepEqual(await readAllLines(createBody('')), []);
  assert.deepEqual(await readAllLines(createBody('\n\n')), []);
});

test('an error in a line is reported with the index of its value', async () => {
  const index = { index: 1 };
  const line = { bytesMax: 20, index: 1 };

  await assert.rejects(readAllLines(createBody('1\n{\n')), isFailure('invalid_request', index));
  await assert.rejects(
    readAllLines(createBody('1\n\n[[[[1]]]]')),
    isFailure('invalid_request', index),
  );
  await assert.rejects(
    readAllLines(createBody('1\n"', Buffer.from([0xff]), '"\n')),
    isFailure('invalid_request', index),
  );
  const long = `1\n"${'x'.repeat(18)}"`;
  assert.deepEqual(await readAllLines(createBody(long)), [1, 'x'.repeat(18)]);
  await assert.rejects(readAllLines(createBody(`${long} `)), isFailure('payload_too_large', line));
});

test('the line number in the message of an error counts from 1 and includes blank lines', async () => {
  await assert.rejects(readAllLines(createBody('{')), /\(line 1\)$/);
  await assert.rejects(readAllLines(createBody('1\n\n\r\n{\n5\n')), /\(line 4\)$/);
  const long = `1\n\n"${'x'.repeat(20)}"`;
  await assert.rejects(readAllLines(createBody(long)), /: line 3 is over the limit of 20 bytes$/);
});

test('the size limit applies to the declared and to the received length', async () => {
  const bytes = { bytesMax: 5 };
  const declared = { ...createBody('1'), headers: { ...headers, 'content-length': '6' } };

  assert.deepEqual(await readAllLines(createBody('1\n', '2\n', '3'), bytes), [1, 2, 3]);
  await assert.rejects(
    readAllLines(createBody('1\n', '2\n', '34'), bytes),
    isFailure('payload_too_large', bytes),
  );
  await assert.rejects(readAllLines(declared, bytes), isFailure('payload_too_large', bytes));
});

test('a body that is not application/x-ndjson is refused', async () => {
  const body = { ...createBody('1'), headers: { 'content-type': 'application/json' } };

  await assert.rejects(readAllLines(body), isFailure('unsupported_media_type', undefined));
});

test('the last line of a truncated body is not yielded', async () => {
  const values: unknown[] = [];
  const input = new PassThrough();
  const body = { input, headers, sendContinue, isBodyTruncated: false };
  input.write('1\n2\n3');

  const reading = (async () => {
    for await (const { value } of readLines(body, limits)) {
      values.push(value);
      if (values.length === 2) input.end(); // Node ends an aborted HTTP/2 stream like this.
      body.isBodyTruncated = true;
    }
  })();

  await assert.rejects(reading, isFailure('invalid_request', undefined));
  assert.deepEqual(values, [1, 2]);
  await assert.rejects(
    readAllLines({ ...createBody('1'), headers: { ...headers, 'content-length': '2' } }),
    isFailure('invalid_request', undefined),
  );
});

test('a client that sends nothing until the deadline is refused', async () => {
  const input = new PassThrough();
  input.write('1\n');

  await assert.rejects(
    readAllLines({ input, headers, sendContinue, isBodyTruncated: false }, { deadlineMs: 1 }),
    isFailure('request_timeout', undefined),
  );
  assert.equal(input.listenerCount('readable'), 0);
});

test('lines are not read before they are requested', async () => {
  let produced = 0;
  const input = new Readable({
    highWaterMark: 1000,
    read() {
      produced += 1;
      this.push(produced <= 100 ? `"${'x'.repeat(498)}"` : null);
      if (produced <= 100) this.push('\n');
    },
  });
  const large = { ...limits, bytesMax: 1e6, lineBytesMax: 1000 };
  const lines = readLines({ input, headers, sendContinue, isBodyTruncated: false }, large);

  await lines.next();
  for (let turn = 0; turn < 10; turn += 1) await new Promise((resolve) => setImmediate(resolve));

  assert.ok(produced < 10, `${produced} lines were read when one was requested`);
  await lines.return(undefined);
});
