// A reporter for `run.ts`: writes a JSON line for each test that passed or failed.
/** @param {AsyncIterable<import('node:test/reporters').TestEvent>} events */
export default async function* report(events) {
  for await (const { type, data } of events) {
    if (type !== 'test:pass' && type !== 'test:fail') continue;
    const isSkipped = data.skip !== undefined && data.skip !== false;
    const isSuite = data.details?.type === 'suite';
    if (isSkipped || isSuite) continue;
    yield `${JSON.stringify({ name: data.name, hasPassed: type === 'test:pass' })}\n`;
  }
}
