import type { Audience } from '../events/audience.js';
import { formatPosition, type Position, parsePosition } from '../events/event-id.js';
import type { LogState, LogStore } from './log-store.js';

/** The position at which a stream starts, and the fields of its `stream.open` event. */
export interface StreamStart {
  readonly seq: number;
  readonly resumed: boolean;
  readonly reason: 'fresh' | 'resumed' | 'unknown_id' | 'too_old' | 'epoch_changed';
  /** Sent as `id` in `stream.open`: a position that this reader can resume from. */
  readonly id: string;
}

export interface ResumeResolverOptions {
  readonly store: LogStore;
  readonly epoch: string;
}

/** Determines where a stream starts, from the position that its client sent or that Herald stored. */
export class ResumeResolver {
  readonly #store: LogStore;
  readonly #epoch: string;

  constructor({ store, epoch }: ResumeResolverOptions) {
    this.#store = store;
    this.#epoch = epoch;
  }

  /**
   * Returns the start of a stream whose client has seen everything up to `lastEventId`. The id of
   * an event that this client could not receive is treated like an id that was never issued. The
   * audiences of trimmed events are not stored, so the id of any trimmed event is accepted, unless an
   * event for this reader was trimmed after it.
   */
  async resolveLastEventId(
    audiences: readonly Audience[],
    lastEventId: string | undefined,
  ): Promise<StreamStart> {
    if (lastEventId === undefined) return this.#startAtHead(audiences, 'fresh');
    const position = parsePosition(lastEventId);
    if (position === undefined) return this.#startAtHead(audiences, 'unknown_id');
    const { seq } = position;
    const state = await this.#store.stateWithVisibility(audiences, seq);
    const loss = await this.#findLoss(position, state, audiences);
    if (loss !== undefined) return this.#startAtHead(audiences, loss);
    if (seq > state.trimmedSeq && !state.isVisible)
      return this.#startAtHead(audiences, 'unknown_id');
    return toResumedStart(Math.max(seq, state.trimmedSeq), lastEventId);
  }

  /** Returns the start of a stream that resumes from a position that Herald stored. */
  async resolvePosition(
    audiences: readonly Audience[],
    storedPosition: string,
  ): Promise<StreamStart> {
    const position = parsePosition(storedPosition);
    if (position === undefined) return this.#startAtHead(audiences, 'unknown_id');
    const state = await this.#store.state();
    const loss = await this.#findLoss(position, state, audiences);
    if (loss !== undefined) return this.#startAtHead(audiences, loss);
    const seq = Math.max(position.seq, state.trimmedSeq);
    return toResumedStart(seq, await this.#getResumeId(audiences, seq));
  }

  /** Returns a start at the stored head, which this process may not have applied yet. */
  async #startAtHead(
    audiences: readonly Audience[],
    reason: StreamStart['reason'],
  ): Promise<StreamStart> {
    const { seq } = await this.#store.state();
    return { seq, resumed: false, reason, id: await this.#getResumeId(audiences, seq) };
  }

  /** Returns the id of the reader's newest event up to `upTo`, from which the reader can resume. */
  async #getResumeId(audiences: readonly Audience[], upTo: number): Promise<string> {
    const visible = await this.#store.lastVisible(audiences, upTo);
    const seq = visible ?? (await this.#store.state()).trimmedSeq;
    return formatPosition({ epoch: this.#epoch, seq });
  }

  /**
   * Returns why a stream cannot resume from a position. Trimmed events matter only if they were visible
   * to the reader.
   */
  async #findLoss(
    { epoch, seq }: Position,
    { seq: newestSeq, trimmedSeq }: LogState,
    audiences: readonly Audience[],
  ): Promise<StreamStart['reason'] | undefined> {
    if (epoch !== this.#epoch) return 'epoch_changed';
    if (seq > newestSeq) return 'unknown_id';
    if (seq >= trimmedSeq || (await this.#store.lastTrimmed(audiences)) <= seq) return undefined;
    return 'too_old';
  }
}

function toResumedStart(seq: number, id: string): StreamStart {
  return { seq, resumed: true, reason: 'resumed', id };
}
