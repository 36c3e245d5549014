/** An open stream of another process. */
export interface RemoteStream {
  readonly userId: string;
  readonly publicId: string;
}

/**
 * The open streams of those users who have reached the limit of streams per user, in the other processes, as
 * of the last heartbeat. Empty while one process has the database for itself.
 */
export class RemoteStreams {
  /** Public ids by user. */
  #publicIds = new Map<string, string[]>();

  /**
   * Returns the number of streams that a user has in other processes; 0 for a user under the limit. Streams
   * with the public id of a stream in `here`, or with `publicId`, do not count: their client has moved to this
   * process, or is about to, and replaces them.
   */
  count(userId: string, here: Iterable<{ readonly publicId: string }>, publicId?: string): number {
    const remoteIds = this.#publicIds.get(userId);
    if (remoteIds === undefined) return 0;
    const movedIds = new Set([publicId]);
    for (const stream of here) movedIds.add(stream.publicId);
    return remoteIds.filter((id) => !movedIds.has(id)).length;
  }

  /** Replaces the streams. */
  set(streams: readonly RemoteStream[]): void {
    this.#publicIds = new Map();
    for (const { userId, publicId } of streams) {
      const publicIds = this.#publicIds.get(userId);
      if (publicIds === undefined) this.#publicIds.set(userId, [publicId]);
      else publicIds.push(publicId);
    }
  }
}
