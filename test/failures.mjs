// A reporter for the file that `TEST_FAILURES` names: each failed test with its file and its error, so
// that `.ci/run` can show them again at its very end, where nobody has to look for them.
/** @param {AsyncIterable<import('node:test/reporters').TestEvent>} events */
export default async function* report(events) {
  for await (const { type, data } of events) {
    if (type !== 'test:fail') continue;
    const { error } = data.details;
    if (error?.failureType === 'subtestsFailed') continue; // They are told themselves.
    const text = String(error?.cause?.stack ?? error?.cause ?? error);
    yield `${data.name} (${data.file ?? 'no file'}:${data.line ?? 0})\n`;
    yield `${text.split('\n').slice(0, 12).join('\n')}\n`.replace(/^/gm, '    ').trimEnd();
    yield '\n';
  }
}
