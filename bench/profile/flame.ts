import type { CallNode } from '../process/child.js';
import { formatNumber } from '../report/table.js';
import { getMicrosPerSample, isIdle } from './breakdown.js';
import { betweenCalls, type CpuOrigin, getCallOrigin, type OriginKind } from './cpu-origin.js';
import type { ProfiledRun } from './profiled-run.js';

const width = 1200;
const rowHeight = 16;
const topMargin = 30;
/** Boxes narrower than this share of the width are omitted, because they would be unreadable. */
const boxShareMin = 0.003;
const charWidth = 6.1;

const colours: Partial<Record<OriginKind, string>> = {
  "Node's C++ and the kernel: TLS, HTTP/2 frames, sockets": '#9aa5b1',
  'JavaScript of Herald or of the reference': '#f2a65a',
  'JavaScript of Node': '#8ecae6',
  'JavaScript of packages': '#b7d7a8',
  'garbage collection, main thread': '#d98880',
  'native code called by JavaScript': '#cdd3da',
};

/** All calls of one function with the same callers. */
interface Frame {
  readonly name: string;
  readonly origin: CpuOrigin;
  micros: number;
  readonly callees: Map<string, Frame>;
}

/**
 * Renders the call tree of the main thread as SVG: nested boxes whose width is their share of the CPU
 * time.
 */
export function renderFlameGraph(title: string, run: ProfiledRun): string {
  const root = buildTree(run);
  const boxes: string[] = [];
  const depth = draw(root, { x: 0, level: 0, pixelsPerMicro: width / root.micros }, boxes);
  const height = topMargin + (depth + 1) * rowHeight + 4;
  const perOperation = formatNumber(root.micros / run.operations);
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" font-family="monospace" font-size="10">`,
    `<rect width="${width}" height="${height}" fill="#fff"/>`,
    `<text x="4" y="18" font-size="13">${escapeXml(title)}: ${perOperation} us</text>`,
    ...boxes,
    '</svg>\n',
  ].join('\n');
}

function buildTree(run: ProfiledRun): Frame {
  const sampleMicros = getMicrosPerSample(run);
  const byId = new Map(run.calls.map((node) => [node.id, node]));
  const root = createFrame('main thread', betweenCalls);
  const addSamples = (node: CallNode, into: Frame): number => {
    into.micros += node.hitCount * sampleMicros;
    let sum = node.hitCount * sampleMicros;
    for (const child of (node.children ?? []).flatMap((id) => byId.get(id) ?? [])) {
      if (isIdle(child)) continue;
      const name = getLabel(child);
      const callee =
        into.callees.get(name) ?? createFrame(name, getCallOrigin(child.callFrame, into.origin));
      into.callees.set(name, callee);
      const micros = addSamples(child, callee);
      into.micros += micros;
      sum += micros;
    }
    return sum;
  };
  const [rootCall] = run.calls;
  const sampledMicros = rootCall === undefined ? 0 : addSamples(rootCall, root);
  const betweenCallsFrame = root.callees.get('(program)') ?? createFrame('(program)', betweenCalls);
  betweenCallsFrame.micros += run.mainThread.cpuMicros - sampledMicros;
  root.callees.set('(program)', betweenCallsFrame);
  root.micros = run.mainThread.cpuMicros;
  return root;
}

function createFrame(name: string, origin: CpuOrigin): Frame {
  return { name, origin, micros: 0, callees: new Map() };
}

/** Returns the name and file of a function, or the file and line if it is anonymous. */
function getLabel({ callFrame: { functionName, url, lineNumber } }: CallNode): string {
  const file = url
    .replace(/.*\/(dist|node_modules|bench)\//, '')
    .replace('node:internal/', 'node:');
  if (file === '') return functionName;
  return functionName === '' ? `${file}:${lineNumber + 1}` : `${functionName} ${file}`;
}

/** Draws a frame and its callees. Returns the level of the deepest box. */
function draw(
  frame: Frame,
  { x, level, pixelsPerMicro }: { x: number; level: number; pixelsPerMicro: number },
  boxes: string[],
): number {
  const boxWidth = frame.micros * pixelsPerMicro;
  const [left, y, roundedWidth] = [
    x.toFixed(1),
    topMargin + level * rowHeight,
    boxWidth.toFixed(1),
  ];
  const fill = colours[frame.origin.kind] ?? '#eee';
  boxes.push(
    `<rect x="${left}" y="${y}" width="${roundedWidth}" height="15" fill="${fill}" stroke="#fff"/>`,
  );
  const label = frame.name.slice(0, Math.max(0, Math.floor((boxWidth - 4) / charWidth)));
  if (label.length > 2) {
    boxes.push(`<text x="${(x + 2).toFixed(1)}" y="${y + 11}">${escapeXml(label)}</text>`);
  }
  let deepest = level;
  let calleeX = x;
  for (const callee of [...frame.callees.values()].sort((a, b) => b.micros - a.micros)) {
    if (callee.micros * pixelsPerMicro < boxShareMin * width) continue;
    deepest = Math.max(
      deepest,
      draw(callee, { x: calleeX, level: level + 1, pixelsPerMicro }, boxes),
    );
    calleeX += callee.micros * pixelsPerMicro;
  }
  return deepest;
}

function escapeXml(text: string): string {
  return text.replaceAll('&', '&amp;').replaceAll('<', '&lt;');
}
