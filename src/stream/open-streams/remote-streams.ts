/** An open stream of another process. */
export interface RemoteStream {
  readonly userId: string;
  readonly publicId: string;
}

/**
 * The open streams in other processes, as of the last heartbeat, of users who have reached the limit of streams
 * per user. Empty while only one process uses the database.
 */
export class RemoteStreams {
  /** Public ids by user. */
  #publicIds = new Map<string, string[]>();

  /**
   * Returns the number of streams that a user has in other processes; 0 for a user under the limit. Streams
   * whose public id is `publicId` or occurs in `localStreams` do not count: their client has moved to this
   * process, or is about to, and replaces them.
   */
  count(
    userId: string,
    localStreams: Iterable<{ readonly publicId: string }>,
    publicId?: string,
  ): number {
    const remoteIds = this.#publicIds.get(userId);
    if (remoteIds === undefined) return 0;
    const movedIds = new Set([publicId]);
    for (const stream of localStreams) movedIds.add(stream.publicId);
    return remoteIds.filter((id) => !movedIds.has(id)).length;
  }

  /** Replaces all remote streams. */
  set(streams: readonly RemoteStream[]): void {
    this.#publicIds = new Map();
    for (const { userId, publicId } of streams) {
      const publicIds = this.#publicIds.get(userId);
      if (publicIds === undefined) this.#publicIds.set(userId, [publicId]);
      else publicIds.push(publicId);
    }
  }
}
