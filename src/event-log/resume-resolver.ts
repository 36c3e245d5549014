import type { Audience } from '../events/audience.js';
import { formatPosition, type Position, parsePosition } from '../events/event-id.js';
import type { LogState, LogStore } from './log-store.js';

/** Where a stream begins, and what its client is told about it in `stream.open`. */
export interface StreamStart {
  readonly seq: number;
  readonly resumed: boolean;
  readonly reason: 'fresh' | 'resumed' | 'unknown_id' | 'too_old' | 'epoch_changed';
  /** Goes out as `id`: a position that this reader may come back with. */
  readonly id: string;
}

export interface ResumeResolverOptions {
  readonly store: LogStore;
  readonly epoch: string;
  /** The newest event that was delivered. */
  readonly head: () => number;
}

/** From what a client says it has seen to where its stream starts. */
export class ResumeResolver {
  readonly #store: LogStore;
  readonly #epoch: string;
  readonly #head: () => number;

  constructor({ store, epoch, head }: ResumeResolverOptions) {
    this.#store = store;
    this.#epoch = epoch;
    this.#head = head;
  }

  /**
   * Where a reader starts that says it has seen everything up to `lastEventId`. A position that it
   * may not see is treated as one never issued. Of what was trimmed nobody knows any more whose it
   * was: there every position counts, and is good when nothing for this reader came after it.
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

  /** Where a reader starts that comes back to a position which Herald itself kept for it. */
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

  async #startAtHead(
    audiences: readonly Audience[],
    reason: StreamStart['reason'],
  ): Promise<StreamStart> {
    const seq = this.#head();
    return { seq, resumed: false, reason, id: await this.#getResumeId(audiences, seq) };
  }

  /** What the reader may come back with for `seq`: its own newest event up to there. */
  async #getResumeId(audiences: readonly Audience[], upTo: number): Promise<string> {
    const visible = await this.#store.lastVisible(audiences, upTo);
    const seq = visible ?? (await this.#store.state()).trimmedSeq;
    return formatPosition({ epoch: this.#epoch, seq });
  }

  /** What was trimmed counts only if the reader might have seen it. */
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
