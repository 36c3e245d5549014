import { installPeers } from '../subjects/support/peers.js';
import type { Figure } from './figure.js';
import { type Line, plot } from './plot.js';

/** Draws what the kept figures can tell; a plot without figures is left as it is. */
export async function drawAll(figures: readonly Figure[]): Promise<void> {
  const print = (text: string) => process.stderr.write(`  ${text}\n`);
  if (!installPeers({ print })) {
    print('no plots: what draws them comes with the peers');
    return;
  }
  for (const [name, { lines, ...axes }] of Object.entries(buildPlots(figures))) {
    if (lines.some(({ points }) => points.length > 0)) await plot(name, { ...axes, lines });
  }
}

function buildPlots(figures: readonly Figure[]) {
  return {
    batch: {
      title: 'Server CPU per delivered event, HTTP/2',
      x: { name: 'events a request, one request at a time', isLog: true },
      y: { name: 'microseconds', isLog: true },
      lines: batchLines(figures),
    },
    memory: {
      title: 'Resident memory, one stream a connection, HTTP/2 over TLS',
      x: { name: 'idle streams' },
      y: { name: 'MiB over the idle server' },
      lines: buildCurves(figures, 'memory'),
    },
    'login-storm': {
      title: 'Longest latency of each quarter of a second: calm, then 64 logins at once',
      x: { name: 'seconds' },
      y: { name: 'milliseconds' },
      lines: buildCurves(figures, 'login-storm'),
    },
    growth: {
      title: 'Server CPU a request against rows in each table, embedded database',
      x: { name: 'rows', isLog: true },
      y: { name: 'microseconds' },
      lines: growthLines(figures),
    },
  };
}

function batchLines(figures: readonly Figure[]): Line[] {
  const own = getSeries(figures, 'batch', 'events a request');
  const alone = own[0]?.[1].reference?.median ?? 0;
  return [
    { name: 'Herald', points: own.map(([x, { median }]) => [x, median] as const) },
    { name: 'bare loop, one at a time', points: own.map(([x]) => [x, alone] as const) },
  ];
}

function growthLines(figures: readonly Figure[]): Line[] {
  const own = getSeries(figures, 'growth', 'rows');
  const works = new Set(own.map(([, { parameters }]) => String(parameters['request'])));
  return [...works].map((name) => ({
    name,
    points: own
      .filter(([, { parameters }]) => parameters['request'] === name)
      .map(([x, { median }]) => [x, median] as const),
  }));
}

/** CPU of a subject that has a number for this parameter, in its order. */
function getSeries(figures: readonly Figure[], subject: string, parameter: string) {
  return figures
    .filter(
      (one) =>
        one.subject === subject &&
        one.unit === 'us' &&
        typeof one.parameters[parameter] === 'number',
    )
    .map((one) => [Number(one.parameters[parameter]), one] as const)
    .sort(([a], [b]) => a - b);
}

function buildCurves(figures: readonly Figure[], subject: string): Line[] {
  return figures.flatMap(({ subject: own, what, curve }) =>
    own === subject && curve !== undefined ? [{ name: what, points: curve }] : [],
  );
}
