import { type Audience, topicAudience } from '../../events/audience.js';
import type { Frame } from '../../events/frame.js';
import { MultiMap } from '../../util/multi-map.js';
import type { EventStream } from '../event-stream.js';
import type { TopicEntry } from './topic-rows.js';

/** Holds the open streams that have topics, indexed by the audiences of these topics. */
export class TopicIndex {
  readonly #streams = new MultiMap<Audience, EventStream>();

  /** Number of topics that have a stream. */
  get size(): number {
    return this.#streams.size;
  }

  add(stream: EventStream): void {
    for (const audience of stream.topics.topicAudiences) this.#streams.add(audience, stream);
  }

  remove(stream: EventStream): void {
    for (const audience of stream.topics.topicAudiences) this.#streams.delete(audience, stream);
  }

  /** Pushes an event to the streams that receive it because of this topic, and returns their number. */
  deliver(audience: Audience, frame: Frame): number {
    let count = 0;
    for (const stream of this.#streams.get(audience)) {
      if (!stream.topics.covers(audience, frame.seq)) continue;
      count += 1;
      stream.push(frame);
    }
    return count;
  }

  /** Returns the streams that receive an event with the number `seq` because of this topic. */
  find(audience: Audience, seq: number): readonly EventStream[] {
    const streams = [...this.#streams.get(audience)];
    return streams.filter(({ topics }) => topics.covers(audience, seq));
  }

  /** Applies the control entry `seq` to a stream whose user or token it names. This may close the stream. */
  apply(stream: EventStream, entry: TopicEntry, seq: number): void {
    if (!stream.isOpen) return;
    const change = stream.topics.apply(entry, seq);
    for (const topic of change.added) this.#streams.add(topicAudience(topic), stream);
    for (const topic of change.removed) this.#streams.delete(topicAudience(topic), stream);
    stream.applyTopics(change, seq);
  }
}
