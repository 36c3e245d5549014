import { type Database, type Dialect, list, type Sql, sql, tuples } from '../../db/database.js';
import type { Audience } from '../../events/audience.js';
import type { Reader, TopicsBySeq } from '../../events/topic.js';
import type { SeqRange } from '../log-store.js';
import type { LogHead } from './log-generation.js';

/** The next events that a reader receives. */
export interface VisibleEvents {
  /** In ascending order, each once. */
  readonly seqs: readonly number[];
  /** Every visible event up to this number is in `seqs`. */
  readonly endSeq: number;
  /** See `TopicsBySeq`; undefined if there are no such events. */
  readonly topicsBySeq: TopicsBySeq | undefined;
  /** Head of the event log, and how far it is trimmed, in the snapshot in which the events were found. */
  readonly head: (LogHead & { readonly trimmedSeq: number }) | undefined;
}

/** Audiences of a reader that one part of a statement searches for events above `after`. */
interface Part {
  readonly audiences: readonly Audience[];
  readonly after: number;
}

interface FoundRow {
  readonly epoch: string;
  readonly head_seq: number;
  readonly trimmed_seq: number;
  /** Null in the only row if nothing is found. */
  readonly audience: Audience | null;
  readonly seq: number;
}

/** Up to this number of topics, each is searched by a part of its own. */
const singleTopicsMax = 16;
/** Further parts for topics since a position above the start, in ascending order of these positions. */
const lateGroupsMax = 16;
/** Groups of several audiences are searched in a range with at most this number of matches in all. */
const groupRowsMax = 2048;
/** First range in which groups are searched. */
const firstRange = 2048;
/** A second range is chosen to contain so many pages, if events are as frequent as in the first. */
const pagesInSecondRange = 2;
const shrinkFactor = 8;
/** A shrunk range grows once by at most this factor, which is too small to reach the range with too many matches. */
const growthMax = shrinkFactor / 2;
/** A shrunk range grows to this share of the most matches, because the others may be closer together. */
const growthShare = 0.8;

/**
 * Finds the next events for a reader with topics, at most `eventsMax`.
 *
 * An audience that is searched alone is a limited index range in ascending order. Many topics are searched
 * together, because a union of a thousand ranges is planned for longer than it runs. There is no order then in
 * which a database could find the first matches without sorting all of them. So the range is limited instead:
 * first to 2048 entries, then, if they contain too little, to as many as should contain two pages, which are all
 * entries if there was nothing. A range with more than 2048 matches is reduced to an eighth until it has not, and
 * then grows once if it contains too little, because each event may have many of the topics. So most pages need one or
 * two statements, and a page can have fewer than `eventsMax` events before its end.
 */
export async function findVisibleEvents(
  db: Database,
  reader: Reader,
  range: SeqRange,
  eventsMax: number,
): Promise<VisibleEvents> {
  const { after, upTo } = range;
  const parts = toParts(reader, range);
  const hasGroup = parts.some(isGroup);
  let end = hasGroup ? Math.min(upTo, after + firstRange) : upTo;
  let found: VisibleEvents | undefined;
  let isShrinking = false;
  let hasGrown = false;
  for (;;) {
    const searched = parts.filter((part) => part.after < end || part.after === after);
    const rows = await db.query<FoundRow>(buildSearch(db.dialect, searched, { end, eventsMax }));
    const matches = countMatches(rows);
    const groupMatches = countGroupMatches(searched, matches);
    if (groupMatches > groupRowsMax) {
      if (hasGrown && found !== undefined) return found;
      isShrinking = true;
      end = after + Math.max(1, Math.floor((end - after) / shrinkFactor));
      if (found !== undefined && end <= found.endSeq) return found;
      continue;
    }
    const completeUpTo = Math.min(
      end,
      ...searched.map((part) => findEnd(part, matches, eventsMax)),
    );
    found = toVisibleEvents(rows, reader, { completeUpTo, eventsMax });
    const { length } = found.seqs;
    if (end >= upTo || length >= eventsMax || hasGrown) return found;
    if (isShrinking) {
      const growth = length * 2 > eventsMax ? 1 : pickGrowth(groupMatches);
      if (growth === 1) return found;
      hasGrown = true;
      end = after + (end - after) * growth;
      continue;
    }
    if (end > after + firstRange) return found;
    end = Math.min(upTo, after + Math.ceil(firstRange * pagesInSecondRange * (eventsMax / length)));
  }
}

/** Returns what is to be searched: each audience alone, or together with many others. */
function toParts({ audiences, topics }: Reader, { after, upTo }: SeqRange): Part[] {
  const fixed = audiences.map((audience) => ({ audiences: [audience], after }));
  const bounds = [...topics]
    .map(([audience, since]) => ({ audience, after: Math.max(after, since) }))
    .filter((bound) => bound.after < upTo);
  if (bounds.length <= singleTopicsMax)
    return [
      ...fixed,
      ...bounds.map((bound) => ({ audiences: [bound.audience], after: bound.after })),
    ];
  const early = bounds.filter((bound) => bound.after === after).map(({ audience }) => audience);
  const late = bounds.filter((bound) => bound.after > after).sort((a, b) => a.after - b.after);
  const groups: Part[] = early.length === 0 ? [] : [{ audiences: early, after }];
  const groupSize = Math.ceil(late.length / lateGroupsMax);
  for (let start = 0; start < late.length; start += groupSize) {
    const group = late.slice(start, start + groupSize);
    // The lowest position of the group. Older events of the others are skipped when they are found.
    const lowest = group[0]?.after ?? after;
    groups.push({ audiences: group.map(({ audience }) => audience), after: lowest });
  }
  return [...fixed, ...groups];
}

function buildSearch(
  dialect: Dialect,
  parts: readonly Part[],
  { end, eventsMax }: { end: number; eventsMax: number },
): Sql {
  const single = parts
    .filter((part) => !isGroup(part))
    .map((part) => buildRange(part, end, eventsMax));
  const build = dialect === 'postgres' ? buildJoinedGroup : buildGroup;
  const grouped = parts.filter(isGroup).map((part) => build(part, end));
  const ranges = [...single, ...(grouped.length === 0 ? [] : [limitGroups(unite(grouped))])];
  return sql`select log_head.epoch, log_head.seq as head_seq, log_head.trimmed_seq,
      found.audience, found.seq
    from log_head left join (${unite(ranges)}) found on 1 = 1 where log_head.id = 1`;
}

function isGroup({ audiences }: Part): boolean {
  return audiences.length > 1;
}

function buildRange({ audiences, after }: Part, end: number, eventsMax: number): Sql {
  const [audience = ''] = audiences;
  return sql`select audience, seq from event_audiences
    where audience = ${audience} and seq > ${after} and seq <= ${end}
    order by seq limit ${eventsMax}`;
}

function buildGroup({ audiences, after }: Part, end: number): Sql {
  return limitGroups(sql`select audience, seq from event_audiences
    where audience in (${list(audiences)}) and seq > ${after} and seq <= ${end}`);
}

/**
 * Builds the same for PostgreSQL, which would read the whole table in the hope of finding enough matches early,
 * also for topics without events. The limit in the joined query leaves it no other plan than one search per topic.
 */
function buildJoinedGroup({ audiences, after }: Part, end: number): Sql {
  return limitGroups(sql`select recipient.audience, recipient.seq
    from (values ${tuples(audiences.map((audience) => [audience]))}) topic (audience)
    cross join lateral (
      ${limitGroups(sql`select audience, seq from event_audiences
        where audience = topic.audience collate "C" and seq > ${after} and seq <= ${end}`)}
    ) recipient`);
}

function limitGroups(rows: Sql): Sql {
  return sql`${rows} limit ${groupRowsMax + 1}`;
}

function unite(ranges: readonly Sql[]): Sql {
  return ranges
    .map((range, index) => sql`select audience, seq from (${range}) ${alias(index)}`)
    .reduce((all, part) => sql`${all} union all ${part}`);
}

/** What was found for one audience. */
interface Matches {
  readonly count: number;
  readonly lastSeq: number;
}

type MatchesByAudience = ReadonlyMap<Audience, Matches>;

function countMatches(rows: readonly FoundRow[]): MatchesByAudience {
  const matches = new Map<Audience, Matches>();
  for (const { audience, seq } of rows) {
    if (audience === null) continue;
    const { count, lastSeq } = matches.get(audience) ?? { count: 0, lastSeq: 0 };
    matches.set(audience, { count: count + 1, lastSeq: Math.max(lastSeq, seq) });
  }
  return matches;
}

function countGroupMatches(parts: readonly Part[], matches: MatchesByAudience): number {
  const grouped = parts.filter(isGroup).flatMap(({ audiences }) => audiences);
  return grouped.reduce((sum, each) => sum + (matches.get(each)?.count ?? 0), 0);
}

/** Returns the factor by which a shrunk range with so many matches grows, at least 1. */
function pickGrowth(groupMatches: number): number {
  const factor = Math.floor((groupRowsMax * growthShare) / Math.max(1, groupMatches));
  return Math.max(1, Math.min(growthMax, factor));
}

/** Returns the number up to which every match of a part was found. */
function findEnd({ audiences }: Part, matches: MatchesByAudience, eventsMax: number): number {
  const [audience = '', ...others] = audiences;
  const { count, lastSeq } = matches.get(audience) ?? { count: 0, lastSeq: 0 };
  return others.length === 0 && count === eventsMax ? lastSeq : Number.POSITIVE_INFINITY;
}

function toVisibleEvents(
  rows: readonly FoundRow[],
  { topics }: Reader,
  { completeUpTo, eventsMax }: { completeUpTo: number; eventsMax: number },
): VisibleEvents {
  const ofFixedAudiences = new Set<number>();
  const ofTopics = new Map<number, Audience[]>();
  for (const { audience, seq } of rows) {
    if (audience === null || seq > completeUpTo) continue;
    const since = topics.get(audience);
    if (since === undefined) ofFixedAudiences.add(seq);
    else if (seq > since) addTopic(ofTopics, seq, audience);
  }
  const all = [...new Set([...ofFixedAudiences, ...ofTopics.keys()])].sort((a, b) => a - b);
  const seqs = all.slice(0, eventsMax);
  const onlyOfTopics = seqs.flatMap((seq): [number, readonly Audience[]][] => {
    const found = ofFixedAudiences.has(seq) ? undefined : ofTopics.get(seq);
    return found === undefined ? [] : [[seq, found]];
  });
  const [first] = rows;
  return {
    seqs,
    endSeq: seqs.length < all.length ? (seqs.at(-1) ?? completeUpTo) : completeUpTo,
    topicsBySeq: onlyOfTopics.length > 0 ? new Map(onlyOfTopics) : undefined,
    head: first && { epoch: first.epoch, seq: first.head_seq, trimmedSeq: first.trimmed_seq },
  };
}

function addTopic(topicsBySeq: Map<number, Audience[]>, seq: number, topic: Audience): void {
  const topics = topicsBySeq.get(seq);
  if (topics === undefined) topicsBySeq.set(seq, [topic]);
  else topics.push(topic);
}

/** Returns a distinct alias, because derived tables need one. */
export function alias(index: number): Sql {
  return { texts: [`range_${index}`], values: [] };
}
