import { installPeers } from '../subjects/support/peers.js';
import type { Figure } from './figure.js';
import { drawPlot, type Line } from './plot.js';

/** Draws the plots of the figures. Does not touch the file of a plot without figures. */
export async function drawPlots(figures: readonly Figure[]): Promise<void> {
  const print = (text: string) => process.stderr.write(`  ${text}\n`);
  if (!installPeers({ print })) {
    print('no plots: d3 is installed together with bench/peers, and that installation failed');
    return;
  }
  for (const [name, { lines, ...axes }] of Object.entries(buildPlots(figures))) {
    if (lines.some(({ points }) => points.length > 0)) await drawPlot(name, { ...axes, lines });
  }
}

function buildPlots(figures: readonly Figure[]) {
  return {
    batch: {
      title: 'Server CPU per delivered event, HTTP/2',
      x: { name: 'events per request, one request at a time', isLog: true },
      y: { name: 'microseconds', isLog: true },
      lines: buildBatchLines(figures),
    },
    memory: {
      title: 'Resident memory, one stream per connection, HTTP/2 over TLS',
      x: { name: 'idle streams' },
      y: { name: 'MiB more than the idle server' },
      lines: buildCurves(figures, 'memory'),
    },
    'login-storm': {
      title:
        'Longest latency of each quarter of a second: without logins, then with 64 concurrent logins',
      x: { name: 'seconds' },
      y: { name: 'milliseconds' },
      // The figures are p99; their curves are the longest latencies.
      lines: buildCurves(figures, 'login-storm').map(({ name, points }) => ({
        name: name.replace(/, p99$/, ''),
        points,
      })),
    },
    growth: {
      title: 'Server CPU per request by rows in each table, embedded database',
      x: { name: 'rows', isLog: true },
      y: { name: 'microseconds' },
      lines: buildGrowthLines(figures),
    },
  };
}

function buildBatchLines(figures: readonly Figure[]): Line[] {
  const series = getSeries(figures, 'batch', 'events per request');
  // The bare loop is measured beside each size, but always with one event per request.
  return [
    { name: 'Herald', points: series.map(([x, { median }]) => [x, median] as const) },
    {
      name: 'bare loop, one event per request',
      points: series.map(([x, { reference }]) => [x, reference?.median ?? 0] as const),
    },
  ];
}

function buildGrowthLines(figures: readonly Figure[]): Line[] {
  const series = getSeries(figures, 'growth', 'rows');
  const requests = new Set(series.map(([, { parameters }]) => String(parameters['request'])));
  return [...requests].map((name) => ({
    name,
    points: series
      .filter(([, { parameters }]) => parameters['request'] === name)
      .map(([x, { median }]) => [x, median] as const),
  }));
}

/**
 * Returns the CPU figures of a subject (those in microseconds) that have a number as `parameter`, as
 * pairs of this number and the figure, sorted by the number.
 */
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
  return figures
    .filter((one) => one.subject === subject)
    .flatMap(({ what, curve }) => (curve === undefined ? [] : [{ name: what, points: curve }]));
}
