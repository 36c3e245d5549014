import { formatPosition, parsePosition } from '../events/event-id.js';
import type { Reader } from '../events/topic.js';
import type { LogState, LogStore } from './log-store.js';

/** The position at which a stream starts, and the fields of its `stream.open` event. */
export interface StreamStart {
  readonly seq: number;
  readonly resumed: boolean;
  readonly reason: 'fresh' | 'resumed' | 'unknown_id' | 'too_old' | 'epoch_changed';
  /** Sent as `id` in `stream.open`: the position `seq`, from which this client can resume. */
  readonly id: string;
}

/** The positions from which a client asks its stream to start. */
export interface StartRequest {
  /** The id of the last event that the client has received. Takes precedence over `beginning`. */
  readonly lastEventId: string | undefined;
  /** The beginning of the stream token, if it has one. */
  readonly beginning: string | undefined;
  /**
   * The newest removal of a topic of the client by the backend. A client that starts before it may have missed events of
   * that topic. Default: 0.
   */
  readonly lossSeq?: number;
}

/** Determines where a stream starts. */
export class ResumeResolver {
  readonly #store: Pick<LogStore, 'findLastTrimmedSeq'>;

  constructor(store: Pick<LogStore, 'findLastTrimmedSeq'>) {
    this.#store = store;
  }

  /**
   * Returns the start of a stream for a reader. `state` must have been read before anything
   * else was read for the stream. A client can resume from any position up to the head, even one whose
   * event it may not receive. The stream starts at the head if there is no valid position, or if an event
   * for the client may have been trimmed after that position.
   */
  async resolve(
    state: LogState,
    reader: Reader,
    { lastEventId, beginning, lossSeq = 0 }: StartRequest,
  ): Promise<StreamStart> {
    const given = lastEventId ?? beginning;
    if (given === undefined) return toStart(state, state.seq, false, 'fresh');
    const position = parsePosition(given);
    if (position === undefined) return toStart(state, state.seq, false, 'unknown_id');
    if (position.epoch !== state.epoch) return toStart(state, state.seq, false, 'epoch_changed');
    if (position.seq > state.seq) return toStart(state, state.seq, false, 'unknown_id');
    if (position.seq < lossSeq || (await this.#hasLostEvents(state, reader, position.seq)))
      return toStart(state, state.seq, false, 'too_old');
    const reason = lastEventId === undefined ? 'fresh' : 'resumed';
    return toStart(state, Math.max(position.seq, state.trimmedSeq), true, reason);
  }

  /** Returns whether an event for the reader with a higher number than `seq` may have been trimmed. */
  async #hasLostEvents(state: LogState, reader: Reader, seq: number): Promise<boolean> {
    return seq < state.trimmedSeq && (await this.#store.findLastTrimmedSeq(reader, seq)) > seq;
  }
}

function toStart(
  { epoch }: LogState,
  seq: number,
  resumed: boolean,
  reason: StreamStart['reason'],
): StreamStart {
  return { seq, resumed, reason, id: formatPosition({ epoch, seq }) };
}
